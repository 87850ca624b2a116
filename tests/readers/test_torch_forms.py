"""Forms of operators: written to `out`, items of lists counted from the end, counts, random numbers."""

from __future__ import annotations

import math
from typing import List  # noqa: UP035 - by this name scripts know them

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
SEED = 20261127
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def module(function):
    class Module(torch.nn.Module):
        pass

    Module.forward = lambda self, *inputs: function(*inputs)
    return Module().eval()


def results(model, *inputs):
    made = ov.compile_model(model, "CPU", EXACT)([x.numpy() for x in inputs])
    return [made[i] for i in range(len(made))]


def drawn(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(SEED)).to(dtype)


def same(got, wanted) -> None:
    wanted = wanted if isinstance(wanted, (tuple, list)) else (wanted,)
    assert len(got) == len(wanted)
    for have, want in zip(got, wanted, strict=True):
        assert have.dtype == want.numpy().dtype
        assert have.shape == tuple(want.shape)
        np.testing.assert_allclose(have, want.numpy(), rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")


def ways(function, inputs):
    """The models of a trace and of an exported program."""
    with torch.no_grad():
        yield ov.convert_model(torch.jit.trace(function, inputs), example_input=inputs)
        yield ov.convert_model(torch.export.export(module(function), inputs))


@pytest.mark.parametrize("count, dim", [([1], 0), ([2], 2), ([3], None), (2, 1), ([2, 3], 1)])
def test_one_count_repeats_all_elements(count, dim) -> None:
    inputs = (drawn(2, 2, 3), torch.tensor(count))
    for model in ways(lambda x, count: x.repeat_interleave(count, dim), inputs):
        same(results(model, *inputs), inputs[0].repeat_interleave(inputs[1], dim))


def test_indices_of_counts() -> None:
    inputs = (torch.tensor([2, 0, 1, 3]),)
    for model in ways(torch.repeat_interleave, inputs):
        same(results(model, *inputs), torch.repeat_interleave(*inputs))


@pytest.mark.parametrize("index", [-3, -2, -1, 0, 1])
@pytest.mark.parametrize("length", [2, 3])
def test_parts_of_an_open_dimension_counted_from_its_end(index, length) -> None:
    script = torch.jit.CompilationUnit(
        f"def part(x):\n    return torch.split(x, {length}, 1)[{index}]\n"
    ).part
    compiled = ov.compile_model(ov.convert_model(script, input=[([-1, -1], np.float32)]), "CPU", EXACT)
    for columns in (9, 8, 7):
        x = drawn(2, columns)
        same([compiled([x.numpy()])[0]], script(x))


def to_out(x, y, z):
    summed = torch.sum(x, 1, out=y)
    stacked = torch.stack([x, x + 1], 0, out=z)
    return summed, y, stacked, z


def test_programs_write_to_out() -> None:
    inputs = (drawn(2, 3), torch.zeros(2), torch.zeros(2, 2, 3))
    for model in ways(to_out, inputs):
        same(results(model, *inputs), to_out(*(x.clone() for x in inputs)))


def test_small_forms() -> None:
    """Norms over all, numbers as tensors of PyTorch's default type, conjugated transposes."""
    scale = torch.tensor([1.5])

    def function(x):
        return torch._weight_norm(x, scale, -1), torch.scalar_tensor(x.shape[0]), x.H

    inputs = (drawn(3, 4),)
    for model in ways(function, inputs):
        same(results(model, *inputs), function(*inputs))


MEANS, DEVIATIONS = torch.tensor([-20.0, 0.0, 50.0]), torch.tensor([0.5, 2.0, 4.0])


NORMAL = {
    "in place": (lambda x: x.clone().normal_(mean=3.0, std=2.0), 3.0, 2.0),
    "tensors": (lambda x: torch.normal(x * 0 + MEANS, x * 0 + DEVIATIONS), MEANS, DEVIATIONS),
    "means": (lambda x: torch.normal(x * 0 + MEANS), MEANS, 1.0),
    "means, a number": (lambda x: torch.normal(x * 0 + MEANS, 2.0), MEANS, 2.0),
    "a number, deviations": (lambda x: torch.normal(1.0, x * 0 + DEVIATIONS), 1.0, DEVIATIONS),
    "a size": (lambda x: torch.normal(5.0, 3.0, x.shape), 5.0, 3.0),
    "out": (lambda x: torch.normal(x * 0 + MEANS, 2.0, out=torch.empty_like(x)), MEANS, 2.0),
    "a size, out": (lambda x: torch.normal(5.0, 3.0, x.shape, out=torch.empty_like(x)), 5.0, 3.0),
}


@pytest.mark.parametrize("name", NORMAL)
def test_normal_numbers_have_their_mean_and_deviation(name) -> None:
    function, mean, deviation = NORMAL[name]
    inputs = (torch.zeros(20000, 3),)
    for model in ways(function, inputs):
        (made,) = results(model, *inputs)
        assert made.dtype == np.float32
        error = np.abs(made.mean(0) - np.broadcast_to(mean, 3))
        # six standard errors: one test in 10^8 fails by chance
        assert (error < 6 * np.broadcast_to(deviation, 3) / np.sqrt(20000)).all()
        np.testing.assert_allclose(made.std(0), np.broadcast_to(deviation, 3), rtol=0.04)


def test_exponential_numbers() -> None:
    inputs = (torch.zeros(60000),)
    model = next(iter(ways(lambda x: x.clone().exponential_(2.0), inputs)))
    (made,) = results(model, *inputs)
    assert made.min() > 0
    np.testing.assert_allclose(
        [made.mean(), made.std(), np.median(made)], [0.5, 0.5, np.log(2) / 2], rtol=0.04
    )


def test_integers_lie_in_their_range() -> None:
    def function(x):
        made = torch.empty([5000], dtype=torch.int64)
        torch.randint(3, 7, [5000], out=made)
        return made, torch.randint_like(x, 2, 5), torch.randint_like(x, 3)

    inputs = (torch.zeros(5000),)
    for model in ways(function, inputs):
        listed, between, below = results(model, *inputs)
        assert listed.dtype == np.int64
        assert between.dtype == below.dtype == np.float32
        assert [sorted(set(v.tolist())) for v in (listed, between, below)] == [
            [3, 4, 5, 6],
            [2, 3, 4],
            [0, 1, 2],
        ]


def padded_batch(images: List[torch.Tensor]):  # noqa: UP006
    """Images of different sizes in one tensor, whose sizes are multiples of 8."""
    rows = max([image.shape[1] for image in images])
    columns = max([image.shape[2] for image in images])
    shape = [
        len(images),
        3,
        int(math.ceil(float(rows) / 8.0) * 8.0),
        int(math.ceil(float(columns) / 8.0) * 8),
    ]
    batch = images[0].new_full(shape, 0)
    for i in range(batch.shape[0]):
        image = images[i]
        batch[i, : image.shape[0], : image.shape[1], : image.shape[2]].copy_(image)
    return batch


@pytest.mark.parametrize("count", [1, 2])
def test_scripts_batch_a_list_of_images(count) -> None:
    script = torch.jit.script(padded_batch)
    example = [drawn(3, 9 + i, 14 - i) for i in range(count)]
    compiled = ov.compile_model(ov.convert_model(script, example_input=(example,)), "CPU", EXACT)
    for more in (0, 3, 8):
        images = [drawn(3, 9 + i + more, 14 - i) for i in range(count)]
        same([compiled([image.numpy() for image in images])[0]], script(images))


def test_empty_parts_are_not_joined() -> None:
    """As what rotary embeddings leave of a head that they turn as a whole: quantizers are put before each."""

    class Rotated(torch.nn.Module):
        def forward(self, x):
            rows = x.reshape(-1, 3)
            return torch.cat([rows[..., :3] * 2, rows[..., 3:].double()], -1)

    x = torch.rand(2, 3)
    model = ov.convert_model(Rotated(), example_input=x)
    assert not [node for node in model.get_ops() if node.get_type_name() == "Concat"]
    made = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x.numpy())[0]
    np.testing.assert_array_equal(made, Rotated()(x).numpy())
    assert made.dtype == np.float64


@pytest.mark.parametrize("space", [torch.linspace, torch.logspace])
@pytest.mark.parametrize("ends", [(1.0, 1.2), (-1.5, 4.9), (0.9, 3.9)])
def test_ends_of_integer_spaces_are_cut_to_integers_first(space, ends) -> None:
    inputs = tuple(map(torch.tensor, ends))
    for model in ways(lambda a, b: space(a, b, 4, dtype=torch.int64), inputs):
        same(results(model, *inputs), space(*inputs, 4, dtype=torch.int64))


def test_an_index_without_elements_may_have_another_rank() -> None:
    inputs = (drawn(5), torch.ones(2, 0, dtype=torch.int64))
    for model in ways(lambda x, index: torch.gather(x, 0, index), inputs):
        same(results(model, *inputs), torch.gather(inputs[0], 0, inputs[1]))


@pytest.mark.parametrize(
    "mode, antialias", [("bicubic", False), ("bicubic", True), ("bilinear", False), ("bilinear", True)]
)
@pytest.mark.parametrize("size", [(17, 41), (41, 17)])
def test_resized_bytes_are_rounded_after_each_axis_and_stay_bytes(mode, antialias, size) -> None:
    inputs = (
        torch.randint(0, 256, (1, 3, 24, 30), generator=torch.Generator().manual_seed(SEED)).to(torch.uint8),
    )

    def resized(x):
        return torch.nn.functional.interpolate(x, size, mode=mode, antialias=antialias)

    wanted = resized(*inputs).numpy().astype(int)
    for model in ways(resized, inputs):
        (got,) = results(model, *inputs)
        assert got.dtype == np.uint8
        apart = abs(got - wanted)  # PyTorch's weights are integers: halves may go to either side
        assert apart.max() <= 1 and (apart > 0).mean() < 0.05, f"seed {SEED}"


def conjugated(x, y):
    a, b = torch.view_as_complex(x), torch.view_as_complex(y)
    return torch.view_as_real(torch.vdot(a, b)), torch.view_as_real(torch.vdot(b, a))


def test_a_dot_product_of_complex_vectors_conjugates_the_first() -> None:
    inputs = (drawn(5, 2), drawn(2, 5).reshape(5, 2) + 1)
    for model in ways(conjugated, inputs):
        same(results(model, *inputs), conjugated(*inputs))


@pytest.mark.parametrize("count", [0, 1, 4])
def test_spaces_of_complex_numbers_are_pairs(count) -> None:
    def spaced(x):
        made = torch.linspace(-2, 3, count, dtype=torch.complex64)
        return torch.view_as_real(made * (1 + 2j)) + x

    inputs = (drawn(2),)
    for model in ways(spaced, inputs):
        same(results(model, *inputs), spaced(*inputs))


@pytest.mark.parametrize("equation", ["bixy,ioxy->boxy", "bixy,ioxy", "...xy,ioxy->...io"])
def test_sums_of_products_of_complex_tensors(equation) -> None:
    def summed(x, y):
        a, b = torch.view_as_complex(x), torch.view_as_complex(y)
        three = torch.einsum("bixy,bixy,boxy->b", a, a + 1, b * 2j)
        return torch.view_as_real(torch.einsum(equation, a, b)), torch.view_as_real(three)

    inputs = (drawn(3, 3, 2, 4, 2), drawn(3, 3, 2, 4, 2) + 1)
    for model in ways(summed, inputs):
        same(results(model, *inputs), summed(*inputs))


class Remembering(torch.nn.Module):
    """Keeps what it computes in a buffer, numbers, a list and a dict, and reads it the next time."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(16, 4))
        self.plain = torch.zeros(16, 4)
        self.count, self.found, self.seen, self.last = 0, {}, [], None

    def forward(self, x):
        length = x.shape[0]
        if self.count < length:
            self.table[:length] = torch.arange(length)[:, None] + torch.ones(4)
            self.count = length
            table = self.table[:length].clone()
        else:
            table = self.table[:length] * 0
        if "scale" not in self.found:
            self.found["scale"] = torch.full((4,), 2.0 + len(self.seen))
        self.seen.append(length)
        self.last = torch.zeros(4) if self.last is None else self.last + 1
        self.calls = getattr(self, "calls", 0) + 1
        shift = self.plain[:length].sum()
        self.plain[:length] = 3
        return table * self.found["scale"] * x + self.last + self.calls + shift


def test_a_module_is_as_before_after_a_conversion() -> None:
    made, inputs = Remembering().eval(), (drawn(5, 4),)
    before = dict(vars(made))
    model = ov.convert_model(made, example_input=inputs)
    same(results(model, *inputs), Remembering()(*inputs))
    assert vars(made).keys() == before.keys()
    assert all(vars(made)[name] is value for name, value in before.items())
    assert (made.found, made.seen) == ({}, [])
    assert not made.table.any() and not made.plain.any()


#: Windows and shifts by sizes, some of them one number where a list is expected.
BY_SIZES = {
    "whole": lambda x: torch.nn.functional.max_pool1d(x, x.size(2)).squeeze(2),
    "whole of one sample": lambda x: torch.nn.functional.max_pool1d(x[0], x.size(2)),
    "planes": lambda x: torch.nn.functional.avg_pool2d(x.unsqueeze(1), x.shape[1:]),
    "named": lambda x: torch.nn.functional.max_pool2d(x.unsqueeze(1), kernel_size=x.size()[1:]),
    "halves": lambda x: torch.nn.functional.max_pool1d(x, x.shape[2] // 2),
    "squares": lambda x: torch.nn.functional.max_pool2d(x.unsqueeze(1), x.shape[2] // 2),
    "padded": lambda x: torch.nn.functional.avg_pool1d(x, x.shape[2] // 2, 2, 1),
    "steps": lambda x: torch.nn.functional.max_pool1d(x, 3, stride=x.shape[2] // 3, padding=1, dilation=2),
    "norms": lambda x: torch.nn.functional.lp_pool1d(x, 2, x.shape[2]),
    "all named": lambda x: torch.roll(
        input=torch.nn.functional.avg_pool1d(input=x, kernel_size=x.shape[2] // 2), shifts=1, dims=0
    ),
    "adaptive": lambda x: torch.nn.functional.adaptive_avg_pool1d(x, x.shape[2] // 2),
    "shifts": lambda x: torch.roll(x, x.shape[2] // 2, 2) + x.roll(x.shape[1] - 1, dims=1),
}


@pytest.mark.parametrize("name", BY_SIZES)
def test_windows_and_shifts_by_sizes(name) -> None:
    compiled = ov.compile_model(
        ov.convert_model(module(BY_SIZES[name]), example_input=drawn(2, 3, 6)), "CPU", EXACT
    )
    for shape in ((2, 3, 6), (1, 5, 9), (3, 4, 8)):
        x = drawn(*shape)
        same([compiled(x.numpy())[0]], BY_SIZES[name](x))


def pooled_in_a_script(x):
    whole = torch.nn.functional.max_pool1d(x, x.size(2))
    return whole, torch.nn.functional.avg_pool1d(x, x.size(2) // 2)


def test_windows_of_scripts_by_sizes() -> None:
    script = torch.jit.script(pooled_in_a_script)
    compiled = ov.compile_model(ov.convert_model(script, example_input=(drawn(2, 3, 6),)), "CPU", EXACT)
    for shape in ((2, 3, 6), (1, 5, 9)):
        x = drawn(*shape)
        made = compiled(x.numpy())
        same([made[0], made[1]], pooled_in_a_script(x))


@pytest.mark.parametrize("dim", [0, -1])
def test_complex_numbers_are_picked_by_indices(dim) -> None:
    """As Lumina's rotary embedding gathers them, which OpenVINO refuses."""

    def picked(x, index):
        numbers = torch.view_as_complex(x)
        found = [
            torch.gather(numbers, dim, index),
            torch.take_along_dim(numbers, index[:1] if dim == 0 else index.repeat(2, 1), dim),
            torch.take_along_dim(numbers, index.reshape(-1)),
            torch.take(numbers, index),
        ]
        return tuple(map(torch.view_as_real, found))

    inputs = (drawn(4, 3, 2), torch.tensor([[1, 2, 0], [2, 0, 1]]))
    for model in ways(picked, inputs):
        same(results(model, *inputs), picked(*inputs))


def contracted(x, y):
    numbers = torch.view_as_complex(x)
    made = [
        torch.tensordot(numbers, torch.view_as_complex(y), dims=([2, 0], [1, 2])),
        torch.tensordot(numbers, torch.view_as_complex(y), dims=([1], [0])),
        torch.tensordot(numbers, y[..., 0] + 0j, dims=([2], [1])),
    ]
    return tuple(map(torch.view_as_real, made))


def test_contractions_of_complex_numbers() -> None:
    """OpenVINO refuses them."""
    inputs = (drawn(2, 5, 4, 2), drawn(5, 4, 2, 2))
    for model in ways(contracted, inputs):
        same(results(model, *inputs), contracted(*inputs))


def assigned_parts(x):
    made = torch.zeros(*x.shape, 3)
    made.data[..., 0] = x
    made.data[..., 1] = x * 2
    return made.sum(-1)


def scaled_in_place(x):
    made = x * 1
    made.data.mul_(3)
    made.data[0].zero_()
    return made


def replaced(x):
    made = x * 2
    made.data = x + 1
    return made


#: What reads and writes `data` of tensors, which PyTorch's trace does not record.
BY_DATA = {
    "read": lambda x: x * x.data.sign() + x.data.max(),
    "mask": lambda x: torch.where(x.data > 0, x, x.data * 3),
    "parts": assigned_parts,
    "in place": scaled_in_place,
    "assigned": replaced,
}


@pytest.mark.parametrize("name", BY_DATA)
def test_data_of_tensors_is_recorded(name) -> None:
    compiled = ov.compile_model(
        ov.convert_model(module(BY_DATA[name]), example_input=drawn(2, 3)), "CPU", EXACT
    )
    for shape in ((2, 3), (4, 3)):
        x = drawn(*shape) - 0.2
        same([compiled(x.numpy())[0]], BY_DATA[name](x))
