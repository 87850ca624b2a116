"""Scripts that write to memory of several names, beside eager mode: views, copies, branches and loops."""

from __future__ import annotations

from typing import List  # noqa: UP035 - by this name scripts know it

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
Tensor = torch.Tensor
SEED = 20261127
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
#: Lengths of 1 make views of what are copies at other lengths.
SHAPES = [(3, 4), (5, 2), (4, 4), (2, 1), (3, 6)]


def check(function, shapes=SHAPES) -> None:
    """Convert a script with an example and with its inputs described, and compare with the function."""
    generator = torch.Generator().manual_seed(SEED)
    examples = [torch.rand(shape, generator=generator) for shape in shapes]
    for given in ({"example_input": (examples[0].clone(),)}, {"input": [([-1, -1], ov.Type.f32)]}):
        compiled = ov.compile_model(ov.convert_model(torch.jit.script(function), **given), "CPU", EXACT)
        for x in examples:
            wanted = function(x.clone())
            result = compiled([x.numpy()])
            assert len(result) == len(wanted)
            for i, want in enumerate(wanted):
                np.testing.assert_allclose(
                    result[i], want.numpy(), rtol=1e-5, atol=1e-6, err_msg=f"{SEED} {i}"
                )


def turned_and_flat(x: Tensor):
    """A copy, but where one of the lengths is 1."""
    flat = x.transpose(0, 1).reshape(-1)
    x.add_(1.0)
    return x, flat


def written_turned_and_flat(x: Tensor):
    y = x * 2
    flat = y.t().flatten()
    flat.add_(1.0)
    return y, flat


def flat_in_order(x: Tensor):
    y = x * 2
    flat = y.reshape(-1)
    flat[0] = 7.0
    rows = y.ravel()
    rows.mul_(2.0)
    return y, flat, rows


def made_contiguous(x: Tensor):
    y = (x * 2).t()
    z = y.contiguous()
    z.add_(1.0)
    same = z.contiguous()
    same.mul_(3.0)
    return y, z


def part_made_flat(x: Tensor):
    y = x * 2
    columns, rows = y[:, :1].reshape(-1), y[1:].reshape(-1)
    y.add_(1.0)
    return columns, rows


def partly_merged(x: Tensor):
    y = torch.stack([x, x + 1, x + 2], 1)
    first = y.flatten(1)
    other = y.transpose(1, 2).reshape(x.size(0), -1)
    y.mul_(2.0)
    return first, other, y


def real_and_imaginary(x: Tensor):
    z = torch.complex(x, x * 2)
    z.imag.mul_(3.0)
    z.real[0] = 5.0
    pairs = torch.view_as_real(z)
    z.mul_(2.0)
    pairs.add_(1.0)
    return torch.view_as_real(z), pairs


def viewed_as_complex(x: Tensor):
    pairs = torch.stack([x, x + 1], -1)
    torch.view_as_complex(pairs).mul_(2.0)
    return (pairs,)


def other_views(x: Tensor):
    y = torch.stack([x, x + 1], 0)
    y.movedim(0, 2)[0].add_(1.0)
    y.diagonal(0, 0, 1).mul_(2.0)
    y.unfold(0, 2, 2).sub_(0.5)
    y.expand_as(y).add_(0.25)
    y.unflatten(0, [1, 2])[0].mul_(1.5)
    return (y,)


ORDERS = [
    turned_and_flat, written_turned_and_flat, flat_in_order, made_contiguous, part_made_flat, partly_merged,
    real_and_imaginary, viewed_as_complex, other_views,
]  # fmt: skip


@pytest.mark.parametrize("function", ORDERS)
def test_views_and_copies(function) -> None:
    check(function)


def last_of_a_loop(x: Tensor):
    y = torch.cat([x, x, x])
    part = y[0]
    for i in range(3):
        part = y[i]
    part.add_(1.0)
    return (y,)


def same_names_in_a_loop(x: Tensor):
    parts: List[Tensor] = []  # noqa: UP006
    wholes: List[Tensor] = []  # noqa: UP006
    for i in range(2):
        whole = x * float(i + 1)
        parts.append(whole[0])
        wholes.append(whole)
    parts[0].add_(1.0)
    return wholes[0], wholes[1], parts[0], parts[1]


def narrower_each_time(x: Tensor):
    y = torch.cat([x, x, x])
    part = y
    for i in range(3):
        part = y[i:]
        part.mul_(2.0)
    part.add_(1.0)
    return y, part


def turned_each_time(x: Tensor):
    y = x * 2
    part = y
    for _ in range(3):
        part = part.t()
        part[0].add_(1.0)
    return y, part


def chosen(y: Tensor, first: bool):
    if first:
        return y[0]
    return y[-1]


def of_a_function(x: Tensor):
    y = x * 2
    first, last = chosen(y, True), chosen(y, False)
    first.add_(1.0)
    last.mul_(3.0)
    return y, first, last


def in_a_tuple_and_a_dict(x: Tensor):
    y = torch.cat([x, x])
    first, second = (y[0], y[1])
    first.add_(second)
    second.zero_()
    held = {"row": y[2]}
    held["row"].mul_(2.0)
    return y, first, second


def part_in_a_branch(x: Tensor):
    y = x * 2
    part, turned = y[0], y.t()
    if bool(x.sum() > 5.0):
        part.add_(1.0)
    else:
        turned[0].mul_(3.0)
    return y, part, turned


def part_in_a_loop(x: Tensor):
    y = x * 2
    turned = y.t()
    for i in range(x.size(1)):
        if bool(turned[i].sum() > 1.5):
            turned[i].zero_()
    y.add_(1.0)
    return y, turned


def until_large(x: Tensor):
    y = x + 1
    count = 0
    while bool(y.sum() < 200.0):
        row = y[0]
        row.add_(10.0)
        count += 1
    return y, torch.tensor(count)


def many_parts(x: Tensor):
    """Most parts are of no use behind their iteration, some are held by a list or a name."""
    y = torch.cat([x, x])
    first, held = y[0], [y[1]]
    for i in range(30):
        part = y[i % 4]
        part.add_(float(i))
        if i % 7 == 0:
            held.append(part[:1])
    y.mul_(2.0)
    first.sub_(1.0)
    held[2].mul_(0.5)
    return y, first, held[0], held[1], held[3]


FLOWS = [
    last_of_a_loop, same_names_in_a_loop, narrower_each_time, turned_each_time, of_a_function,
    in_a_tuple_and_a_dict, many_parts, part_in_a_branch, part_in_a_loop, until_large,
]  # fmt: skip


@pytest.mark.parametrize("function", FLOWS)
def test_memory_through_branches_and_loops(function) -> None:
    check(function)


class Counting(torch.nn.Module):
    """Writes to its own tensors, in bodies, too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(2))
        self.factor = 1.0

    def forward(self, x: Tensor):
        self.seen.add_(x.sum())
        for i in range(x.size(0)):
            self.seen[1] += x[i].sum()
            self.seen.mul_(2.0)
        if bool(x.sum() > 5.0):
            self.seen.add_(1.0)
        return x * self.seen[0], self.seen * 1.0


def test_attributes_are_written_in_bodies() -> None:
    compiled = ov.compile_model(
        ov.convert_model(torch.jit.script(Counting()), example_input=(torch.ones(2, 3),)), "CPU", EXACT
    )
    for shape in SHAPES:
        x = torch.rand(shape, generator=torch.Generator().manual_seed(SEED))
        wanted, result = Counting()(x), compiled([x.numpy()])
        for i, want in enumerate(wanted):
            np.testing.assert_allclose(result[i], want.numpy(), rtol=1e-5, err_msg=f"seed {SEED}")


def from_either_branch(x: Tensor):
    y = x * 2
    part = y[0]
    if bool(x.sum() > 0):
        part = y[1]
    part.add_(1.0)
    return y


def carried_from_around(x: Tensor):
    y = x * 2
    part = y
    for _ in range(x.size(0)):
        part.add_(1.0)
        part = part * 2
    return y, part


def what_a_branch_gives(x: Tensor):
    y = x * 2
    part = y
    if bool(x.sum() > 0):
        part = y.t()
    y.add_(1.0)
    return part


@pytest.mark.parametrize("function", [from_either_branch, carried_from_around, what_a_branch_gives])
def test_memory_that_only_data_tell_is_refused(function) -> None:
    with pytest.raises(RuntimeError, match="writes to a view"):
        ov.convert_model(torch.jit.script(function), example_input=(torch.ones(3, 3),))


def single_parts(x: Tensor):
    y = torch.cat([x, x])
    row, column = y.unbind(0)[1], y.unbind(1)[-1]
    first, last = y.split(2)[0], y.split(2, 1)[-1]
    y.add_(1.0)
    row.mul_(2.0)
    last.sub_(0.5)
    column.mul_(3.0)
    return y, row, column, first, last


def parts_in_inner_branches(x: Tensor):
    y = x * 2
    if x.size(0) > 2:
        part = torch.tensor_split(y, 2, 1)[0]
        if x.size(1) > 3:
            part.sub_(part * 0.5)
        else:
            y.add_(1.0)
    return (y,)


@pytest.mark.parametrize("function", [single_parts, parts_in_inner_branches])
def test_parts_of_open_lengths(function) -> None:
    check(function)


def turned_in_a_branch(x: Tensor):
    if bool(x.sum() > 0):
        x.t_()
    return x


def test_reshaping_in_a_branch_is_refused() -> None:
    with pytest.raises(RuntimeError, match="reshapes what is around it"):
        ov.convert_model(torch.jit.script(turned_in_a_branch), example_input=(torch.ones(3, 3),))


class Choosing(torch.nn.Module):
    """Scripts have no such arguments: it is traced, or exported."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x, *others):
        return self.function(x)


def test_zeros_decide_no_branch() -> None:
    """What is not known without an example is an error, not what zeros lead to."""
    described = {"input": [([-1, -1], ov.Type.f32)]}
    for choice in (lambda x: x * 2 if x.sum() > 1 else x + 1, lambda x: x * 2 if x.shape[0] > 4 else x + 1,
                   lambda x: x.unbind(0)[-1]):  # fmt: skip
        with pytest.raises(RuntimeError):
            ov.convert_model(Choosing(choice), **described)
    compiled = ov.compile_model(
        ov.convert_model(Choosing(lambda x: x.T.reshape(-1) + 1), **described), "CPU", EXACT
    )
    for shape in SHAPES:
        x = torch.rand(shape)
        np.testing.assert_allclose(compiled([x.numpy()])[0], x.T.reshape(-1) + 1, rtol=1e-6)
