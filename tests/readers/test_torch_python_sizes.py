"""Python code that computes with sizes and branches by them: right at other sizes, or told."""

from __future__ import annotations

import inspect
import itertools
import math
import warnings

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import OvjitError

torch = pytest.importorskip("torch")
from tests.support.torch_modules import Of  # noqa: E402 - it needs PyTorch

F = torch.nn.functional
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
SHAPES = (2, 3, 6, 8), (3, 3, 9, 5), (1, 3, 12, 7), (2, 3, 8, 8)


def counted(x):
    return x * x.shape.numel() / x.shape[1:].numel() + torch.Size((x.shape[2], x.shape[3])).numel()


def ordered(x):
    small, large = sorted(x.shape[2:])
    first, second, third = sorted([x.shape[2], 7, x.shape[3]], reverse=True)
    return x[:, :, :small] * large + first * 100 + second - third


def extremes(x):
    """The largest of a list, of a generator, and by a key."""
    furthest = max(x.shape[2:], key=lambda d: abs(d - 7))
    return x * max(x.shape[2:]) + min([x.shape[2], x.shape[3], 7]) - max(d * 2 for d in x.shape) + furthest


def in_math(x):
    h, w = x.shape[2:]
    waves = math.sin(h) + math.cos(w) * math.tanh(h / 10) + math.log10(w) + math.log1p(h) + math.log(h, 2)
    return x * waves + math.hypot(h, w) - math.atan2(h, w) + math.pow(h, 0.5) + math.fmod(h, 4)


def whole_in_math(x):
    h, w = x.shape[2:]
    parts = math.gcd(h, 4)
    rows = x.reshape(x.shape[0], 3, h // parts, parts, w)
    return rows.sum(3)[:, :, : math.isqrt(h)] * pow(h, 2, 5) + round(h / 7, 1) + 2.0 * math.isclose(h, w)


def in_arrays(x):
    sizes = np.array(x.shape[2:])
    half = np.ceil(sizes / 2).astype(int)
    smaller = F.interpolate(x, size=(sizes * 0.5).astype(int).tolist())
    whole = int(np.prod(sizes)) + float(sizes.max()) - float(sizes.mean()) + int(np.clip(sizes[0], 3, 8))
    return torch.zeros(int(half[0]), int(half[1])) + whole, smaller, torch.tensor(sizes) * 2


def by_types(x):
    boxes = x[..., :4] * torch.Tensor([x.shape[-1], x.shape[-2], 1, 2])
    return boxes + torch.FloatTensor((x.shape[0], 1.5, 2, 3)) - torch.LongTensor([x.shape[1], 1, 2, 3])


def counted_parts(x):
    return (
        x * len(x.chunk(5, 3))
        + len(torch.split(x, 3, dim=2))
        + sum(part * 2 for part in x.unbind(1))[:, None]
    )


def any_or_all(x):
    wide = any(d > 8 for d in x.shape)
    return x * (2.0 if wide else 3.0) + (1.0 if all(d > 5 for d in x.shape[2:]) else 0.0)


@pytest.mark.parametrize(
    "function",
    [ordered, extremes, in_math, whole_in_math],
    ids=lambda function: function.__name__,
)
def test_numbers_of_sizes(function) -> None:
    _check(function, SHAPES)


def odd_rows(x):
    if x.shape[2] % 2 == 1:
        x = F.pad(x, (0, 0, 0, 1))
    return x[:, :, ::2] + x[:, :, 1::2]


def remainder(x):
    if x.shape[2] % 2:
        x = F.pad(x, (0, 0, 0, 1))
    elif not (x.shape[3] - 8):
        x = x * 3
    else:
        x, more = x + 1, x.shape[3]
        x = x * more
    return x


def returning(x):
    h, w = x.shape[2:]
    if h > 10:
        return x[:, :, :10].sum(3)
    if h > w:
        y = x.mean(2)
        return y * 2
    return x.sum(3)


def of_one_length(x):
    """The example has another length."""
    return x * x.shape[2] if x.shape[3] == 5 else x - x.shape[2]


def combined(x):
    h, w = x.shape[2:]
    scale = 2.0 if 5 < h < 9 and w in (5, 8) else 5.0
    if h == 8 or not (w != 5):
        x = x.flip(2)
    if x.shape[2:] == (w, h):
        x = x + 1
    return x * scale + (h > w) + (h > w or w > 7) * 3 + (2.0 if bool(h - 6) else 3.0)


def within_loops(x):
    """Branches before, in and behind loops over an open dimension."""
    y = x if x.shape[2] % 2 else x * 3
    parts = []
    for i in range(x.shape[1]):
        part = y[:, i] if x.shape[2] > x.shape[3] else y[:, i] * 2
        parts.append(part + i)
    made = torch.stack(parts, 1)
    if x.shape[3] > 7:
        made = made[:, :, :, :7]
    return made / len(parts)


def counted_by_halving(x):
    """The number of halvings is the example's, and this is told; the answers must not go on without end."""
    h, count = x.shape[2], 0
    while h > 1:
        h, count = h // 2, count + 1
    return x * count


def by_its_number(x):
    """Branches by the number of an iteration, and loops over it."""
    rows, total = x.shape[2], x[:, :, 0]
    for i in range(rows):
        if i > 0:
            total = total * 0.5 + x[:, :, i] * x[:, :, i - 1]
        for j in range(i):
            total = total + x[:, :, i] * (i - 2 * j)
        for j in range(i - 3):
            total = total - x[:, :, j] * 0.25
    return total


def left_early(x):
    total = x[:, :, 0]
    for i in range(x.shape[2]):
        total = total + x[:, :, i]
        if i * i > x.shape[2]:
            total = total * 2
            break
        total = total * 0.5
        if i > 4:
            break
        total = total + 1
    return total


def left_out(x):
    rows, total = x.shape[2], x[:, :, 0]
    for i in range(rows):
        if i == 1 or i == rows - 1:
            continue
        if i % 3 == 0:
            total = total + 1
            continue
        total = total + x[:, :, i]
    return total


def lists_of_some(x):
    """Lists that not every iteration lengthens by one item."""
    rows, some, pairs, either = x.shape[2], [], [], []
    for i in range(rows):
        if i % 3 != 1:
            some.append(x[:, :, i] * i)
        for j in range(i + 1, rows):
            pairs.append(x[:, :, i] * x[:, :, j])
        if i % 2 == 0:
            either.append(x[:, :, i])
        else:
            either.append(x[:, :, i] * 2)
    filtered = sum(x[:, :, i] * i for i in range(rows) if i % 2 == 0)
    return torch.stack(some, 2), torch.stack(pairs, 2), sum(either) / len(some) + filtered


def from_numbers(x):
    """What begins as a number of Python's, and is a tensor or another number after an iteration."""
    total, scaled, count, mean = 0, 0.0, 0, 1
    for i in range(x.shape[2]):
        total = total + x[:, :, i] * i
        count += 2
        mean = mean + i * 0.5
        for part in x.unbind(3):
            scaled += part.tanh() * i
    pairs = 0
    for a, b in zip(x.unbind(2), x.flip(2).unbind(2), strict=True):
        pairs = pairs + a * b
    return total / count, scaled * mean, pairs


def shorter_by_five(x):
    total = x.sum(2)
    for i in range(x.shape[2] - 5):
        total = total + x[:, :, i]
    return total


def looked_up(x):
    """Items of dicts, sets and lists by sizes."""
    h, w = x.shape[2:]
    scales = {6: 2.0, 9: 3.0, 12: 4.0, 8: 5.0}
    by_both = {(6, 8): 2.0, (9, 5): 3.0}
    named = {h: x + 1, w + 100: x}
    y = x * scales[h] + scales.get(w, 7.0) + by_both.get((h, w), 9.0) + named[h]
    y = y * (2.0 if h in {6, 9} else 7.0) + (3.0 if w in scales else 4.0)
    return y + [6, 9, 12, 7][h % 4] + [x, x * 2][w % 2]


def test_positions_that_modules_keep_by_sizes() -> None:
    class Kept(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = {}

        def forward(self, x):
            size = x.shape[2], x.shape[3]
            if size not in self.rows:
                self.rows[size] = torch.arange(size[0])[:, None] * size[1] + torch.arange(size[1])
            return x + self.rows[size]

    module, inputs = Kept(), [torch.rand(shape) for shape in SHAPES]
    module(inputs[0])  # keeps the positions of the example
    compiled = ov.compile_model(ov.convert_model(module, example_input=inputs[0]), "CPU", EXACT)
    for x in inputs:
        np.testing.assert_allclose(compiled([x.numpy()])[0], module(x), rtol=1e-5)


def numbered(x):
    return x * len({x.shape[2], x.shape[3], 9}) + [6, 9, 12, 8].index(x.shape[2])


def test_a_loop_that_ends_by_a_size_ends() -> None:
    module, x = Of(counted_by_halving), torch.rand(2, 3, 6, 8)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        model = ov.convert_model(module, example_input=x)
    np.testing.assert_allclose(ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0], module(x), rtol=1e-5)


def listed_names(x):
    return x * len(str(x.shape[2])) + len(f"{x.shape[3]}")


def chosen_by_name(x):
    return x * (2 if f"{x.shape[2]}x{x.shape[3]}" == "6x8" else 3)


@pytest.mark.parametrize(
    "function", [numbered, listed_names, chosen_by_name], ids=lambda function: function.__name__
)
def test_texts_of_sizes_are_told(function) -> None:
    """A text has the example's sizes."""
    module, x = Of(function), torch.rand(2, 3, 6, 8)
    with pytest.warns(torch.jit.TracerWarning, match="Python (number|boolean)"):
        model = ov.convert_model(module, example_input=x)
    np.testing.assert_allclose(ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0], module(x), rtol=1e-5)


def averaged(x):
    parts = []
    for part in range(x.shape[1]):
        parts.append(x[:, part].tanh())
    return sum(parts) / len(parts)


def averaged_rows(x):
    parts = [part * 2 for part in x.unbind(1)]
    return torch.stack(parts).mean(0) * len(parts) + sum(parts, 1.0)


#: Code whose iterations, branches or items are the example's, as in OpenVINO.
OF_THE_EXAMPLE = (
    counted, any_or_all, counted_parts, odd_rows, remainder, returning, of_one_length, combined, within_loops,
    from_numbers, by_its_number, left_early, left_out, lists_of_some, shorter_by_five, looked_up, averaged,
    in_arrays, by_types,
)  # fmt: skip


@pytest.mark.parametrize("function", OF_THE_EXAMPLE, ids=lambda function: function.__name__)
@pytest.mark.parametrize("has_weights", [False, True], ids=["plain", "weights"])
def test_loops_and_branches_by_sizes_are_the_examples_which_is_warned_of(function, has_weights) -> None:
    module, x = _module(function, has_weights), torch.rand(2, 3, 6, 8)
    with pytest.warns(torch.jit.TracerWarning, match="incorrect"):
        model = ov.convert_model(module, example_input=x)
    result = ov.compile_model(model, "CPU", EXACT)([x.numpy()])
    for i, want in enumerate(_results(module, x)):
        np.testing.assert_allclose(result[i], want, rtol=1e-5, atol=1e-5)


def test_a_model_with_the_parts_of_the_example_takes_no_other_number_of_them() -> None:
    """PyTorch does not warn of `unbind`."""
    x = torch.rand(2, 6, 4)
    compiled = ov.compile_model(ov.convert_model(Of(averaged_rows), example_input=x), "CPU", EXACT)
    np.testing.assert_allclose(compiled([x.numpy()])[0], averaged_rows(x), rtol=1e-5)
    with pytest.raises(RuntimeError):
        compiled([torch.rand(2, 9, 4).numpy()])


class Repeated(torch.nn.Module):
    def forward(self, x):
        return torch.tensor([1.0] * x.shape[1]) + x


def test_scripts_with_lists_of_open_lengths_are_not_taken_for_others() -> None:
    with pytest.raises(OvjitError, match="known when the model is read"):
        ov.convert_model(torch.jit.script(Repeated()), example_input=torch.rand(10, 8))


class Sorted(torch.nn.Module):
    def forward(self, x):
        lengths = [x.shape[1], 9, x.shape[0]]
        lengths.sort()
        smallest = sorted([x.shape[0], x.shape[1]])[0]
        lengths.sort(reverse=True)
        return x[:smallest] * lengths[1] + lengths[0] - lengths[2]


def test_scripts_sort_open_numbers() -> None:
    script = torch.jit.script(Sorted())
    compiled = ov.compile_model(ov.convert_model(script, example_input=torch.rand(10, 8)), "CPU", EXACT)
    for shape in ((10, 8), (3, 12), (5, 5)):
        x = torch.rand(*shape)
        np.testing.assert_allclose(compiled([x.numpy()])[0], script(x), rtol=1e-5)


def doubled_if_wide(x):
    return x * 2 if x.shape[3] > x.shape[2] else x[:, :, ::2] if x.shape[2] % 2 else x


def halves(x):
    """What is asked here is true for all sizes but 1."""
    first, second = x.chunk(2, -1)
    return first.sum(-1) * x.shape[3] + second.sum(-1) + x.reshape(x.shape[0], -1).sum()


def test_conditions_of_programs_are_told() -> None:
    """torch.export takes the example's branches. A program tells for which sizes it holds."""
    x = torch.rand(2, 3, 6, 8)
    dims = (dict.fromkeys(range(4), torch.export.Dim.AUTO),)
    program = torch.export.export(Of(doubled_if_wide), (x,), dynamic_shapes=(dims,))
    if getattr(program, "_guards_code", None) is None:
        pytest.skip("this PyTorch keeps no conditions")
    with pytest.warns(UserWarning, match=r"other sizes than those with .*size\(\)\[3\] > .*size\(\)\[2\]"):
        ov.convert_model(program)
    program = torch.export.export(Of(halves), (x,), dynamic_shapes=(dims,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ov.convert_model(program)
    other = torch.rand(3, 2, 5, 10)
    np.testing.assert_allclose(
        ov.compile_model(model, "CPU", EXACT)([other.numpy()])[0], halves(other), rtol=1e-4
    )


def windows(x):
    """Windows of half a height, every second of them."""
    return x.sum(-1).unfold(-1, x.shape[2] // 2, 2), x.sum(-1).unfold(-1, min(x.shape[2], 5), 1)


def test_windows_by_sizes() -> None:
    _check(windows, SHAPES)


def test_numbers_that_programs_take_from_the_example_are_told() -> None:
    deferred = "prefer_deferred_runtime_asserts_over_guards"
    if deferred not in inspect.signature(torch.export.export).parameters:
        pytest.skip("this PyTorch defers no conditions")
    x, dims = torch.rand(2, 3, 6, 8), (dict.fromkeys(range(4), torch.export.Dim.AUTO),)
    program = torch.export.export(Of(windows), (x,), dynamic_shapes=(dims,), **{deferred: True})
    with pytest.warns(UserWarning, match=r"other sizes than those with .*size\(\)\[2\] ?// ?2\) == 3"):
        ov.convert_model(program)


def _module(function, has_weights):
    module = Of(function)
    if has_weights:
        module.weight = torch.nn.Parameter(torch.ones(1))
    return module


def _results(module, x):
    result = module(x)
    return result if isinstance(result, tuple) else (result,)


def _check(function, shapes) -> None:
    """A module that is converted with the first shape gives what it gives, and nothing is warned of."""
    module = Of(function)
    inputs = [torch.from_numpy(np.random.default_rng(i).random(s, np.float32)) for i, s in enumerate(shapes)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        model = ov.convert_model(module, example_input=inputs[0])
    compiled = ov.compile_model(model, "CPU", EXACT)
    for x in inputs:
        for want, got in itertools.zip_longest(_results(module, x), compiled([x.numpy()]).values()):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
