"""Scripts that write to memory of several names, beside eager mode: views, copies, branches and loops."""

from __future__ import annotations

from typing import List  # noqa: UP035 - by this name scripts know it

import numpy as np
import pytest

import ovjit as ov
from ovjit.readers.torch.scripts import mutation

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


class Turned(torch.nn.Module):
    """Its buffer is the transpose of what lies in memory, so that it is not viewed as a vector."""

    def __init__(self, in_bodies: bool) -> None:
        super().__init__()
        self.in_bodies = in_bodies
        self.register_buffer("turned", torch.arange(12.0).reshape(3, 4).t())

    def forward(self, x: Tensor):
        flat = self.turned.reshape(-1)
        flat.add_(1.0)
        back = self.turned.t().reshape(-1)
        back.mul_(2.0)
        if self.in_bodies:
            for _ in range(x.size(0)):
                self.turned.flatten().zero_()
        return self.turned + x.sum(), flat, back


@pytest.mark.parametrize("in_bodies", [False, True])
def test_strides_of_buffers(in_bodies) -> None:
    script, x = torch.jit.script(Turned(in_bodies)), torch.rand(2, 3)
    for given in (script, torch.jit.trace(Turned(False), (x,), check_trace=False)):
        compiled = ov.compile_model(ov.convert_model(given, example_input=(x,)), "CPU", EXACT)
        wanted, result = given(x), compiled([x.numpy()])
        for i, want in enumerate(wanted):
            np.testing.assert_allclose(result[i], want.numpy(), rtol=1e-6)


def in_another_format(x: Tensor):
    return x.contiguous(memory_format=torch.channels_last) * 1.0


def cloned_in_another_format(x: Tensor):
    return x.clone(memory_format=torch.channels_last)


def like_it_in_another_format(x: Tensor):
    return torch.zeros_like(x, memory_format=torch.channels_last)


def made_in_another_format(x: Tensor):
    made = torch.empty(x.size(), memory_format=torch.channels_last)
    return made.copy_(x)


def turned_into_another_format(x: Tensor):
    return x.to(memory_format=torch.channels_last) + 1


class Writing(torch.nn.Module):
    """Writes to what is a view or a copy of another function's result."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = torch.jit.script(function)

    def forward(self, x: Tensor):
        made = self.function(x)
        flat = made.reshape(-1)
        flat.add_(1.0)
        return made, flat


def written_in_another_format(x: Tensor):
    y = x * 2
    y.to(memory_format=torch.channels_last).add_(1.0)
    return y


FORMATS = [in_another_format, cloned_in_another_format, like_it_in_another_format, made_in_another_format,
           turned_into_another_format]  # fmt: skip


@pytest.mark.parametrize("function", FORMATS)
def test_other_memory_formats_are_not_taken_for_order(function) -> None:
    x = torch.rand(2, 3, 4, 5)
    assert not function(x).is_contiguous()
    script = torch.jit.script(Writing(function))
    made, flat = script(x)
    assert not torch.equal(made.reshape(-1), flat)
    with pytest.raises(RuntimeError, match="writes to a view"):
        ov.convert_model(script, example_input=(x,))


def test_a_copy_in_another_format_is_not_taken_for_the_tensor() -> None:
    x = torch.rand(2, 3, 4, 5)
    assert torch.equal(written_in_another_format(x), x * 2)
    with pytest.raises(RuntimeError, match="writes to a view"):
        ov.convert_model(torch.jit.script(written_in_another_format), example_input=(x,))


#: Shapes of tensors in order; some have lengths of 1, whose strides may be any.
IN_ORDER_SHAPES = [(), (3,), (1,), (2, 3), (3, 1), (1, 4), (1, 1), (2, 3, 4), (2, 1, 4), (1, 3, 1),
                   (2, 3, 4, 5), (2, 1, 4, 5), (1, 3, 4, 1), (2, 3, 1, 1)]  # fmt: skip


def _each_axis(function):
    return lambda x: [function(x, axis) for axis in range(x.dim())]


def _of_lengths(x):
    """The number of channels: a dimension 1, where there is one."""
    return x.size(1) if x.dim() > 1 else 1


def _larger(x):
    return torch.nn.functional.interpolate(x, scale_factor=3.0) if x.dim() == 4 else None


#: What the operators whose results are in order give for a tensor in order, by their names.
IN_ORDER_RESULTS = {
    "addmm": lambda x: torch.addmm(x[0], x, x.mT.contiguous()[:, :1].repeat(1, x.size(1))),
    "amax": _each_axis(torch.amax), "amin": _each_axis(torch.amin),
    "arange": lambda x: torch.arange(x.numel()),
    "argmax": _each_axis(torch.argmax), "argmin": _each_axis(torch.argmin),
    "avg_pool2d": lambda x: torch.nn.functional.avg_pool2d(_larger(x), 2),
    "batch_norm": lambda x: torch.nn.functional.batch_norm(
        x, torch.zeros(_of_lengths(x)), torch.ones(_of_lengths(x))
    ),
    "bmm": lambda x: torch.bmm(x, x.mT.contiguous()),
    "cat": _each_axis(lambda x, axis: torch.cat([x, x, x], axis)),
    "clone": torch.clone,
    "constant_pad_nd": lambda x: torch.constant_pad_nd(x, [1, 2] * x.dim()),
    "cumsum": _each_axis(torch.cumsum),
    "embedding": lambda x: torch.nn.functional.embedding((x > 0.5).long(), torch.rand(2, 3)),
    "empty": lambda x: torch.empty(x.shape), "empty_like": torch.empty_like,
    "eye": lambda x: torch.eye(x.dim(), 5),
    "flip": _each_axis(lambda x, axis: x.flip(axis)),
    "full": lambda x: torch.full(x.shape, 2.0), "full_like": lambda x: torch.full_like(x, 2.0),
    "gather": _each_axis(lambda x, axis: x.gather(axis, torch.zeros(x.shape, dtype=torch.int64))),
    "index_select": _each_axis(lambda x, axis: x.index_select(axis, torch.zeros(4, dtype=torch.int64))),
    "layer_norm": lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:]),
    "linear": lambda x: torch.nn.functional.linear(x, torch.rand(3, x.size(-1)), torch.rand(3)),
    "linspace": lambda x: torch.linspace(0, 1, x.numel()),
    "log_softmax": _each_axis(torch.log_softmax),
    "max": lambda x: [x.max(), *(v for axis in range(x.dim()) for v in x.max(axis))],
    "max_pool2d": lambda x: torch.max_pool2d(_larger(x), 2),
    "mean": _each_axis(torch.mean),
    "min": lambda x: [x.min(), *(v for axis in range(x.dim()) for v in x.min(axis))],
    "mm": lambda x: torch.mm(x, x.mT.contiguous()),
    "ones": lambda x: torch.ones(x.shape), "ones_like": torch.ones_like,
    "outer": lambda x: torch.outer(x, x),
    "pad": lambda x: [torch.nn.functional.pad(x, [2, 0], mode=mode)
                      for mode in ("constant", "reflect", "replicate", "circular")
                      if mode == "constant" or (x.dim() > 1 and x.size(-1) > 2 and x.dim() < 4)],
    "prod": _each_axis(lambda x, axis: torch.prod(x, axis)),
    "rand": lambda x: torch.rand(x.shape), "rand_like": torch.rand_like,
    "randn": lambda x: torch.randn(x.shape), "randn_like": torch.randn_like,
    "repeat": lambda x: x.repeat(2, *[3] * x.dim()),
    "roll": _each_axis(lambda x, axis: x.roll(1, axis)),
    "scalar_tensor": lambda x: torch.scalar_tensor(x.dim()),
    "softmax": _each_axis(torch.softmax),
    "stack": lambda x: [torch.stack([x, x], axis) for axis in range(x.dim() + 1)],
    "sum": lambda x: [x.sum(axis, keep) for axis in range(x.dim()) for keep in (False, True)],
    "tensor": lambda x: torch.tensor(x.tolist()),
    "tril": torch.tril, "triu": torch.triu,
    "zeros": lambda x: torch.zeros(x.shape), "zeros_like": torch.zeros_like,
}  # fmt: skip
#: The numbers of dimensions that operators take, where not any.
RANKS = {
    "addmm": (2,), "mm": (2,), "bmm": (3,), "outer": (1,), "avg_pool2d": (4,), "max_pool2d": (4,),
    "tril": (2, 3, 4), "triu": (2, 3, 4), "batch_norm": (2, 3, 4), "layer_norm": (1, 2, 3, 4),
    "linear": (1, 2, 3, 4), "pad": (1, 2, 3, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(mutation._IN_ORDER))
def test_results_in_order_have_such_strides_in_torch(name) -> None:
    for shape in IN_ORDER_SHAPES:
        if len(shape) not in RANKS.get(name, range(5)):
            continue
        made = IN_ORDER_RESULTS[name](torch.rand(shape))
        for value in made if isinstance(made, (list, tuple)) else [made]:
            assert value.is_contiguous(), (shape, tuple(value.shape), value.stride())


def _given(schema, shapes):
    """Arguments of an operator: tensors in order, and numbers."""
    for i, argument in enumerate(schema.arguments):
        kind = str(argument.type)
        if argument.has_default_value() and kind != "Tensor":
            return
        yield torch.rand(shapes[i % len(shapes)]) if kind == "Tensor" else 1


def test_pointwise_operators_keep_the_order_in_torch() -> None:
    taken = set()
    known = {
        name.split(".")[0] for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")
    }
    for name in sorted(each.removeprefix("aten::") for each in known):
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads():
            operator = getattr(packet, overload)
            schema = operator._schema
            if torch.Tag.pointwise not in operator.tags or any(a.alias_info for a in schema.arguments):
                continue
            for first in IN_ORDER_SHAPES:
                for second in (first, (), (1,), (3, 1), (2, 1, 4), (1, 3, 4, 1), (2, 3, 4, 5)):
                    try:
                        made = operator(*_given(schema, (first, second)))
                    except (RuntimeError, IndexError):  # other types, shapes that do not fit
                        continue
                    taken.add(name)
                    for value in made if isinstance(made, (list, tuple)) else [made]:
                        if isinstance(value, torch.Tensor):
                            assert value.is_contiguous(), (name, first, second, value.stride())
    assert len(taken) > 150


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


def strided_turned_and_sliced(x: Tensor):
    y = x * 2
    turned, right, lower = y.t(), y[:, 1:], y[1:]
    column = y.unbind(1)[1][1:]
    rows = lower.as_strided([2], [1]), lower.as_strided([2], [1], 0), y.as_strided([2, 2], [1, 2], 1)
    columns = turned.as_strided([2, 2], [2, 1]), right.as_strided([1], [1]), column.as_strided([1], [1])
    return rows[0], rows[1], rows[2], columns[0], columns[1], columns[2]


def strided_and_written(x: Tensor):
    y = x * 2
    first = y.as_strided([2, 2], [2, 1])
    later = y[1:].as_strided([2], [1])
    y.add_(1.0)
    first.mul_(2.0)
    for _ in range(2):
        later.sub_(3.0)
        y.as_strided([2, x.size(1) - 1], [x.size(1), 1]).add_(0.5)
    return y, first, later


def strided_copy_and_scatter(x: Tensor):
    y = x * 2
    made = torch.as_strided_copy(y.t(), [2, 2], [2, 1])
    return made, torch.as_strided_scatter(y, made, [2, 2], [2, 1], 1), y


def strided_example(x: Tensor):
    """Its trace tells the strides."""
    y = x.t() + 1
    part = y.as_strided([2, 2], [2, 1])
    part.add_(1.0)
    y.mul_(2.0)
    return y, part


STRIDED_SHAPES = [(3, 4), (5, 2), (4, 4), (3, 6)]


@pytest.mark.parametrize(
    "function", [strided_turned_and_sliced, strided_and_written, strided_copy_and_scatter]
)
def test_what_strides_find(function) -> None:
    check(function, STRIDED_SHAPES)


def test_what_strides_find_by_a_trace() -> None:
    x = torch.rand(3, 4)
    traced = torch.jit.trace(strided_example, (x.clone(),))
    compiled = ov.compile_model(ov.convert_model(traced, example_input=(x,)), "CPU", EXACT)
    for shape in STRIDED_SHAPES:
        x = torch.rand(shape)
        result = compiled([x.numpy()])
        for i, want in enumerate(strided_example(x.clone())):
            np.testing.assert_allclose(result[i], want.numpy(), rtol=1e-6)


def strided_or_not(x: Tensor):
    """A copy for most lengths."""
    return x.t().reshape(-1).as_strided([2, 2], [2, 1], 0)


def strided_in_unknown_order(x: Tensor):
    return (x.t() + 1).as_strided([2, 2], [2, 1])


def scattered_into_turned(x: Tensor):
    return torch.as_strided_scatter((x * 2).t(), torch.zeros(2, 2), [2, 2], [2, 1])


def strided_in_place(x: Tensor):
    return (x * 2).t().as_strided_([2, 2], [2, 1])


@pytest.mark.parametrize(
    "function", [strided_or_not, strided_in_unknown_order, scattered_into_turned, strided_in_place]
)
def test_unknown_strides_are_refused(function) -> None:
    with pytest.raises(RuntimeError, match="whose strides are not known"):
        ov.convert_model(torch.jit.script(function), example_input=(torch.rand(3, 4),))


class StridedBuffers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("turned", torch.arange(12.0).reshape(3, 4).t())
        self.register_buffer("later", torch.arange(12.0).reshape(4, 3)[1:])

    def forward(self, x: Tensor):
        return self.turned.as_strided([4, 3], [3, 1]) + x, self.later.as_strided([2], [3]) * 1


def test_what_strides_find_in_buffers() -> None:
    x, module = torch.rand(4, 3), StridedBuffers()
    compiled = ov.compile_model(ov.convert_model(torch.jit.script(module), example_input=(x,)), "CPU", EXACT)
    for want, made in zip(module(x), compiled([x.numpy()]).values(), strict=True):
        np.testing.assert_allclose(made, want.numpy(), rtol=1e-6)


class Regions(torch.nn.Module):
    """Numbers the regions of a picture, as models with shifted windows do."""

    def forward(self, x):
        made = x.new_zeros(x.shape)
        cuts = (slice(0, -4), slice(-4, -2), slice(-2, None))
        for i, (a, b) in enumerate((a, b) for a in cuts for b in cuts):
            made[a, b] = i
        first = made[0]
        made += x
        return made, first


def test_views_that_are_not_read_again_are_not_computed_again(monkeypatch) -> None:
    from ovjit.readers.torch.scripts.views import View

    computed = []
    again = View.again
    monkeypatch.setattr(View, "again", lambda self, *given: computed.append(self) or again(self, *given))
    module = Regions()
    generator = torch.Generator().manual_seed(SEED)
    given, *others = (torch.rand(shape, generator=generator) for shape in ((6, 7), (9, 8), (5, 5)))
    compiled = ov.compile_model(ov.convert_model(module, example_input=given), "CPU", EXACT)
    assert [view.operator for view in computed] == ["select.int"]
    for x in (given, *others):
        for got, wanted in zip(compiled([x.numpy()]).values(), module(x), strict=True):
            np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-6, err_msg=f"seed {SEED}")


def test_tasks_write_to_what_is_read_outside() -> None:
    def doubled(x: Tensor) -> Tensor:
        part = x[1]
        part.mul_(2.0)
        return part

    def function(x: Tensor):
        made = x + 1.0
        row = made[1:]
        task = torch.jit.fork(doubled, made)
        return torch.jit.wait(task), row, made

    x = torch.rand(3, 4)
    script = torch.jit.script(function)
    compiled = ov.compile_model(ov.convert_model(script, example_input=x), "CPU", EXACT)
    result = compiled(x.numpy())
    for i, wanted in enumerate(script(x)):
        np.testing.assert_allclose(result[i], wanted.numpy(), rtol=1e-6)
