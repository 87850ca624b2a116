"""Numbers that modules compute from sizes with Python: beside PyTorch at other sizes than the example's."""

from __future__ import annotations

import math
import sys
import warnings
from typing import Dict  # noqa: UP035 - by this name scripts know it

import numpy as np
import pytest

import ovjit as ov
from ovjit.readers.torch.tracing.assertions import is_assertion

torch = pytest.importorskip("torch")
from tests.support.torch_modules import Of, asserted, claims  # noqa: E402 - it needs PyTorch

F = torch.nn.functional
SEED = 20261124
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def shorter(x):
    h, w = x.shape[-2:]
    return F.interpolate(x, size=[20, int(20 * w / h)], mode="bilinear", antialias=True)


def centre(x):
    top, left = int(round((x.shape[-2] - 8) / 2.0)), round((x.shape[-1] - 8) / 2.0)
    return x[..., top : top + 8, left : left + 8]


def places(x):
    """As timm's models of images of any size: places are as they were where the size is that of training."""
    table = torch.arange(48.0).reshape(1, 1, 6, 8) / 48
    h, w = x.shape[-2:]
    if h * w == table.shape[-2] * table.shape[-1] and h == 6:
        return x + table
    return x + F.interpolate(table, size=(h, w), mode="bicubic", antialias=True)


def scaled(x):
    factor = torch.tensor([[0.5, 0.25]])
    rows = factor.transpose(0, 1).div_(torch.tensor([[0.5 * x.shape[-2]], [0.5 * x.shape[-1]]]))
    return x.sum((-1, -2))[..., None, None] * rows


def repeated(x):
    grid = torch.linspace(0.0, 1.0, steps=x.shape[-1])[None]
    if x.shape[0] > 1:
        grid = grid.expand(x.shape[0], -1)
    return torch.cat([x[:, 0, 0, :], grid], 1)


def typed(x):
    """As the chunked masks of transformers: Python's types are those of elements."""
    grid = torch.linspace(0.0, 1.0, steps=x.shape[-1])[None]
    if x.shape[0] != grid.shape[0]:
        grid = grid.expand(x.shape[0], -1)
    nothing = torch.zeros(x.shape[0], 1, dtype=int) + torch.zeros(x.shape[0], 1, dtype=float).float()
    return torch.cat([x[:, 0, 0, :], grid], 1) + nothing


def rooted(x):
    side = math.sqrt(x.shape[-1] * x.shape[-2]) * 0.7
    return x[..., : math.floor(side), : min(math.ceil(side), x.shape[-1])] / max(side, 3.0)


def checked(x):
    assert x.shape[-1] % 2 == 0
    if x.shape[1] != 3:
        raise ValueError("colours")
    return F.adaptive_avg_pool2d(x, (int(x.shape[-2] / 2), int(x.shape[-1]) // 2))


def padded(x):
    """As LED pads to whole windows, and cuts off what it has padded."""
    more = (8 - x.shape[-2] % 8) % 8
    if more > 0:
        x = F.pad(x, (0, 0, 0, more))
    y = F.avg_pool2d(x, (8, 1)).repeat_interleave(8, -2) + x
    if more > 0:
        y = y[:, :, :-more]
    return y


def joined(x):
    """As LLaVA joins the features of its images: all parts of a tensor, however many."""
    images, columns = list(x), x.unbind(-1)
    return torch.cat(images, 0)[0].sum() + torch.stack(columns, 1) * torch.cat(columns, -1).mean()


def referenced(x):
    """As Deformable DETR spreads points: one, in the middle, where a feature map has one row."""
    points = torch.linspace(0.5, x.shape[1] - 0.5, x.shape[1], dtype=x.dtype)
    return x * points[:, None, None] + torch.logspace(0.0, 1.0, x.shape[2] - 13, base=2.0).sum()


def selected_in_batches(x):
    """As JetMoE: experts take the rows that are sorted for them, and a batch of positions is expanded if it
    is not the input's."""
    rows = x.flatten(1).sum(1)
    expert = torch.zeros(x.shape[0], 2).scatter(1, (rows > rows.mean()).long()[:, None], 1)
    order = expert.argmax(1).argsort(stable=True)
    first, second = rows[order].split(expert.long().sum(0).tolist())
    made = torch.zeros_like(rows).index_add(0, order, torch.cat([first * 2, second * 3]))
    grid = torch.linspace(0.0, 1.0, steps=x.shape[-1])[None]
    if x.shape[0] != grid.shape[0]:
        grid = grid.expand(x.shape[0], -1)
    return torch.cat([made[:, None], grid], 1)


NUMBERS = [
    selected_in_batches,
    joined,
    referenced,
    shorter,
    centre,
    places,
    scaled,
    repeated,
    typed,
    rooted,
    checked,
    padded,
]


@pytest.mark.parametrize("function", NUMBERS)
def test_numbers_of_python_are_followed(function) -> None:
    torch.manual_seed(SEED)
    sizes = [(1, 3, 14, 24), (2, 3, 20, 26), (3, 3, 16, 12)]
    sizes = [(1, 3, 6, 8), *sizes] if function is places else sizes
    sizes = [(1, 3, 16, 2), *sizes] if function is padded else sizes
    sizes = [*sizes, (2, 1, 15, 4)] if function is referenced else sizes
    examples = [torch.rand(*size) for size in sizes]
    module = Of(function).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ov.convert_model(module, example_input=examples[0].clone())
    compiled = ov.compile_model(model, "CPU", EXACT)
    for x in examples:
        np.testing.assert_allclose(compiled([x.numpy()])[0], module(x), rtol=1e-5, atol=1e-5)


def counted_rows(x):
    return x.reshape(len(x), -1).sum(1) / torch.tensor(len(x)) + torch.ones(len(x)) * torch.numel(x[0])


def mean_of_all(x):
    return x.sum() / torch.tensor(torch.numel(x), device=x.device)


def in_lists(x):
    scale = torch.tensor([x.shape[-1], 2]) + torch.as_tensor(x.shape[-2:], dtype=torch.float32)
    return x[0, 0, :2, :2] * scale / x.new_tensor([x.shape[0], 3]) + torch.asarray([[x.shape[1], 1]] * 2)


def by_numpy(x):
    x = F.pad(x, (0, int(np.ceil(x.shape[-1] / 4) * 4) - x.shape[-1]))
    flat = x.reshape(x.shape[0], int(np.prod(x.shape[1:])))
    return flat[:, : np.minimum(x.shape[-2], x.shape[-1])] / float(np.sqrt(x.shape[1]))


@pytest.mark.parametrize("function", [counted_rows, mean_of_all, in_lists, by_numpy])
def test_sizes_among_numbers_of_lists_and_numpy_are_followed(function) -> None:
    torch.manual_seed(SEED)
    module, example = Of(function).eval(), torch.rand(3, 2, 5, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ov.convert_model(module, example_input=example.clone())
    compiled = ov.compile_model(model, "CPU", EXACT)
    for size in ((3, 2, 5, 7), (2, 3, 9, 6), (5, 4, 4, 10)):
        x = torch.rand(*size)
        np.testing.assert_allclose(compiled([x.numpy()])[0], module(x), rtol=1e-5, atol=1e-5)


def test_a_size_is_equal_to_itself() -> None:
    """Each `x.shape` of a trace has sizes of its own. The other branch holds for the example alone."""

    def turned(x):
        half, shape = int(x.shape[-1] * 0.5), x.shape
        return (x.transpose(0, 1) if x.shape == shape else x.reshape(4, 3))[..., :half]

    module = Of(turned).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ov.convert_model(module, example_input=torch.ones(3, 4))
    compiled, x = ov.compile_model(model, "CPU", EXACT), torch.rand(5, 6)
    np.testing.assert_array_equal(compiled([x.numpy()])[0], module(x))


def test_pythons_functions_are_as_they_were() -> None:
    before = {name: name in globals() for name in ("int", "float", "round", "max", "min")}
    ov.convert_model(Of(rooted), example_input=torch.rand(1, 3, 14, 24))
    assert {name: name in globals() for name in before} == before and math is __import__("math")
    assert not hasattr(torch.Tensor, "__round__") or torch.__version__ >= "2.16"


@pytest.mark.parametrize("has_weights", [False, True], ids=["plain", "weights"])
def test_an_order_of_two_sizes_in_a_function_is_the_examples_which_is_warned_of(has_weights) -> None:
    """A trace has one branch, and PyTorch says so."""

    def order(x, *more):
        return x.sum(-1) if x.shape[-1] > x.shape[-2] else x.sum(-2)

    module, x = (Layer if has_weights else Of)(order), torch.rand(1, 3, 14, 24)
    with pytest.warns(torch.jit.TracerWarning, match="Python boolean"):
        model = ov.convert_model(module, example_input=x)
    got = ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0]
    np.testing.assert_allclose(got, module(x).detach(), rtol=1e-5)


def summed(x):
    """A recurrence that cannot be traced, as decoders that take a traced size for a tensor of places."""
    if isinstance(x.shape[1], torch.Tensor):
        raise IndexError("tuple index out of range")
    out, state = torch.zeros_like(x), torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        state = state * 0.5 + x[:, t]
        out[:, t] = state
    return out


def test_an_exported_loop_takes_the_lengths_of_the_example_alone() -> None:
    """It is unrolled: at another length the model would leave zeros behind the example's last step."""
    module, x = Of(summed), torch.rand(2, 9, 4)
    with pytest.warns(torch.jit.TracerWarning, match="for other lengths"):
        model = ov.convert_model(module, example_input=x)
    assert model.input(0).partial_shape == ov.PartialShape([-1, 9, -1])
    compiled = ov.compile_model(model, "CPU", EXACT)
    x = torch.rand(3, 9, 5)
    np.testing.assert_allclose(compiled([x.numpy()])[0], module(x), rtol=1e-5)
    with pytest.raises(RuntimeError, match="incompatible"):
        compiled([torch.rand(2, 12, 4).numpy()])


class Shorter(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, w = x.shape[-2], x.shape[-1]
        if w <= h:
            return F.interpolate(x, size=[int(20 * h / w), 20], mode="bilinear")
        return F.interpolate(x, size=[20, int(20 * w / h)], mode="bilinear")


class Named(torch.nn.Module):
    """What scripts do: dicts, texts, lists that are compared, ways that leave early."""

    def __init__(self):
        super().__init__()
        self.shorter = Shorter()
        self.names = {"first": "x", "second": "y"}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: Dict[str, torch.Tensor] = {}  # noqa: UP006
        for key, name in self.names.items():
            if name != "y" and isinstance(key, str):
                found[name] = self.shorter(x)
        made = found["x"]
        if list(made.shape[-2:]) == [20, 20]:
            return made
        if made.shape[-1] > 24 or made.shape[-2] > 24:
            padding = [int(round(made.shape[-1] / 8.0)), 1 if made.shape[-2] > 24 else 0]
            made = F.pad(made, padding)
        return made


def test_orders_of_sizes_in_scripts() -> None:
    module = Named().eval()
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ov.convert_model(torch.jit.script(module), example_input=torch.rand(1, 3, 14, 24))
    compiled = ov.compile_model(model, "CPU", EXACT)
    for size in ((1, 3, 14, 24), (2, 3, 30, 26), (2, 3, 26, 27), (1, 3, 13, 13)):
        x = torch.rand(*size)
        np.testing.assert_allclose(compiled([x.numpy()])[0], module(x), rtol=1e-5, atol=1e-5)


def counted_traces(monkeypatch):
    """A list that gets what each trace is made of."""
    traced, trace = [], torch.jit.trace

    def counted(*given, **named):
        traced.append(given)
        return trace(*given, **named)

    monkeypatch.setattr(torch.jit, "trace", counted)
    return traced


class Layer(torch.nn.Module):
    """A function of sizes in a layer with weights, which is never taken as a script."""

    def __init__(self, function):
        super().__init__()
        self.function, self.weight = function, torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.function(x) * self.weight


def boxes_of_classes(x):
    """As SSD finds boxes of each class: other numbers of rows for each."""
    found = []
    for label in range(x.shape[-1]):
        score = x[0, :, label]
        found.append(score[score > 0.5])
    return torch.cat(found)


def test_loops_over_lengths_are_traced_once(monkeypatch) -> None:
    """There is no number to follow. The list gets tensors of unequal shapes."""
    traced = counted_traces(monkeypatch)
    module = Layer(boxes_of_classes).eval()
    torch.manual_seed(SEED)
    with pytest.warns(torch.jit.TracerWarning, match="for other lengths"):
        model = ov.convert_model(module, example_input=torch.rand(1, 30, 5))
    assert len(traced) == 1
    compiled = ov.compile_model(model, "CPU", EXACT)
    for rows in (30, 41):
        x = torch.rand(1, rows, 5)
        np.testing.assert_allclose(compiled([x.numpy()])[0], module(x).detach(), rtol=1e-5)


def kept(x):
    """As detectors: rows that are chosen by their scores, and sizes that Python computes."""
    rows = x.flatten(1).sum(1)
    places = torch.where(rows > rows.mean())[0]
    return torch.cat([x[places] * round(x.shape[-1] / 3), x[:1] * float(x.shape[-2] / 2)])


def experts(x):
    """An answer that depends on whether any row is chosen, and sizes that Python computes."""
    rows = x.flatten(1).sum(1)
    places = torch.where(rows > rows.mean())[0]
    made = x * 1.0
    if places.numel() > 0:
        made.index_add_(0, places, x[places])
    return made


def compared(x):
    """As optical flow: claims about several sizes at once."""
    height, width = x.shape[-2:]
    if (height, width) != x.cumsum(1).shape[-2:]:
        raise ValueError(f"{height} x {width}")
    if any(size < 4 for size in x.shape[-2:]):
        raise ValueError("too small")
    return x * float(height / width)


FUNCTIONS = [(asserted, 2), (kept, 2), (experts, 2), (compared, 2)]


@pytest.mark.parametrize(("function", "most"), FUNCTIONS)
def test_modules_are_traced_once_more_for_all_sizes_at_once(function, most, monkeypatch) -> None:
    """For claims about sizes, and places that are selected."""
    torch.manual_seed(SEED)
    traced, module = counted_traces(monkeypatch), Layer(function).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ov.convert_model(module, example_input=torch.rand(2, 3, 14, 24))
    assert len(traced) == most
    compiled = ov.compile_model(model, "CPU", EXACT)
    for size in ((2, 3, 14, 24), (4, 3, 10, 18), (3, 2, 16, 13)):
        x = torch.rand(*size)
        np.testing.assert_allclose(compiled([x.numpy()])[0], module(x).detach(), rtol=1e-5, atol=1e-5)


def test_branches_that_raise() -> None:
    """Which questions of Python's are claims: one answer to them ends in an exception."""
    asked = []

    class Truth:
        def __init__(self, value):
            self.value = value

        def __bool__(self):
            asked.append(is_assertion(sys._getframe(1)))
            return self.value

        def __eq__(self, other):
            return Truth(isinstance(other, Truth) and self.value == other.value)

    for _ in range(20):  # Python changes the instructions of functions that run often
        asked.clear()
        claims(Truth(True), Truth(False), Truth(False))
        assert asked == [True] * 6 + [False] * 4


def checked(condition, told, is_raised=True):
    """As checks of libraries are: whether it raises an error is asked after the condition."""
    if not condition:
        if is_raised:
            text = f"{told} is asked for"
            raise ValueError(text)
        return False
    return True


def checked_by_helpers(x):
    checked(x.shape[1] == 3, "three channels")
    for size, known in zip(x.shape[1:2], ("3",), strict=True):
        if size != int(known):
            if len(known) == 1:
                told = []
                told.append(f"a size of {known}")
                raise ValueError(told[0])
            return x
    return x[:, :, : int(x.shape[2] / 2)]


def test_checks_that_raise_later_are_claims() -> None:
    module, example = Of(checked_by_helpers).eval(), torch.rand(2, 3, 6, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        model = ov.convert_model(module, example_input=example)
    compiled = ov.compile_model(model, "CPU", EXACT)
    for size in ((2, 3, 6, 5), (1, 3, 9, 4), (3, 3, 4, 8)):
        x = torch.rand(*size)
        np.testing.assert_array_equal(compiled([x.numpy()])[0], module(x))


@pytest.mark.parametrize("upright", [False, True])
def test_pipelines_of_torchvision(upright) -> None:
    """Which side is the shorter is the example's, with PyTorch's warning; lengths are followed."""
    v2 = pytest.importorskip("torchvision.transforms.v2")
    pipeline = v2.Compose([
        v2.Resize(26, antialias=True), v2.CenterCrop(22), v2.Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]),
    ])  # fmt: skip
    torch.manual_seed(SEED)
    sizes = [size[::-1] if upright else size for size in ((30, 40), (33, 47), (25, 60))]
    with pytest.warns(torch.jit.TracerWarning, match="Python boolean"):
        model = ov.convert_model(Of(pipeline), example_input=torch.rand(1, 3, *sizes[0]))
    compiled = ov.compile_model(model, "CPU", EXACT)
    for size in sizes:
        x = torch.rand(2, 3, *size)
        np.testing.assert_allclose(compiled([x.numpy()])[0], pipeline(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["affine", "perspective"])
def test_places_of_torchvision_are_computed_from_sizes(name) -> None:
    """Both write to tensors that a trace would hold as constants."""
    functional = pytest.importorskip("torchvision.transforms.v2").functional
    points = [[0, 0], [29, 0], [29, 19], [0, 19]], [[1, 2], [25, 1], [27, 18], [2, 17]]
    given = {
        "affine": {"angle": 20.0, "translate": [1, 2], "scale": 1.1, "shear": [5.0, 2.0]},
        "perspective": {"startpoints": points[0], "endpoints": points[1]},
    }[name]
    bilinear = pytest.importorskip("torchvision.transforms").InterpolationMode.BILINEAR
    module = Of(lambda x: getattr(functional, name)(x, **given, interpolation=bilinear))
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ov.convert_model(module, example_input=torch.rand(1, 3, 30, 40))
    compiled = ov.compile_model(model, "CPU", EXACT)
    for size in ((1, 3, 30, 40), (1, 3, 36, 25), (2, 3, 20, 33)):
        x = torch.rand(*size)
        np.testing.assert_allclose(compiled([x.numpy()])[0], module(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["ps_roi_align", "ps_roi_pool", "roi_pool"])
def test_regions_of_images_are_pooled(kind: str) -> None:
    ops = pytest.importorskip("torchvision").ops
    sampled = [2] if kind == "ps_roi_align" else []
    scale = 0.3  # no power of 2: halves are where f32 has them
    module = Of(lambda x, boxes: getattr(ops, kind)(x, boxes, (2, 3), scale, *sampled))
    torch.manual_seed(SEED)
    outside = [[0, -9, 3, 70, 50], [1, 60, 60, 80, 90], [1, 7, 7, 6, 6]]
    halves = [[0, *(half / scale for half in (i + 0.5, 0.5, i + 8.5, 9.5))] for i in range(8)]
    boxes = torch.tensor([[0, 1.0, 2, 20, 30], [1, 5, 5, 33, 31], [0, 0, 0, 39, 39], *outside, *halves])
    examples = [(torch.rand(2, 18, 20, 24), boxes), (torch.rand(3, 18, 16, 20), boxes[1:] * 0.7)]
    model = ov.convert_model(torch.jit.trace(module, examples[0]))
    compiled = ov.compile_model(model, "CPU", EXACT)
    for x, regions in examples:
        regions = torch.cat([regions[:, :1].floor(), regions[:, 1:]], 1)
        got = compiled([x.numpy(), regions.numpy()])[0]
        np.testing.assert_allclose(got, module(x, regions), rtol=1e-5, atol=1e-5)


class Windows(torch.nn.Module):
    """Overlapping windows by strides that are computed from those of a view, as Longformer has them."""

    def forward(self, x):
        length, batch, _ = x.shape
        rows = x.view(length, batch, 2, 4).transpose(0, 1).transpose(1, 2).reshape(batch * 2, length, 4)
        rows = rows.view(rows.size(0), torch.div(rows.size(1), 4, rounding_mode="trunc"), 4, rows.size(2))
        size, stride = list(rows.size()), list(rows.stride())
        size[1] = size[1] * 2 - 1
        stride[1] = stride[1] // 2
        return rows.as_strided(size=size, stride=stride)


class Selected(torch.nn.Module):
    """Writes to selected rows, of which the example has one."""

    def forward(self, x, chosen):
        y = torch.zeros_like(x)
        y[chosen > 0] = x[chosen > 0] * 2
        return y


@pytest.mark.parametrize(
    ("module", "example", "others"),
    [
        (Windows(), (torch.rand(8, 1, 8),), [(torch.rand(12, 3, 8),), (torch.rand(4, 2, 8),)]),
        (
            Selected(), (torch.rand(2, 3), torch.tensor([1, 0])),
            [(torch.rand(4, 3), torch.tensor(rows)) for rows in ([1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0])],
        ),
    ],
)  # fmt: skip
def test_strides_and_selected_rows_of_other_sizes(module, example, others) -> None:
    compiled = ov.compile_model(ov.convert_model(module, example_input=example), "CPU", EXACT)
    for given in (example, *others):
        got = compiled([value.numpy() for value in given])[0]
        np.testing.assert_array_equal(got, module(*given).numpy())


def test_a_module_may_give_another_order_while_it_is_traced() -> None:
    """As torchvision's detectors do with equal scores: sizes are followed all the same."""

    def halves(x):
        rows = x.flip(0) if torch.jit.is_tracing() else x
        return rows[..., : int(x.shape[-1] / 2)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ov.convert_model(Of(halves), example_input=torch.rand(2, 3, 8))
    x = torch.rand(4, 3, 13)
    got = ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0]
    np.testing.assert_allclose(got, x.flip(0)[..., :6], rtol=1e-6)


def test_differences_are_for_the_sizes_of_the_example() -> None:
    """Up to PyTorch 2.13 torch.gradient takes the example's sizes for constants."""

    def function(x):
        return torch.gradient(x, spacing=2.0, edge_order=2)

    x = torch.rand(4, 5)
    model = ov.convert_model(Of(function), example_input=x)
    assert model.input(0).partial_shape in (ov.PartialShape([4, 5]), ov.PartialShape([-1, -1]))
    compiled = ov.compile_model(model, "CPU", EXACT)
    for value in [x, torch.rand(6, 7)] if model.is_dynamic() else [x]:
        for i, wanted in enumerate(function(value)):
            np.testing.assert_allclose(compiled([value.numpy()])[i], wanted.numpy(), 1e-5, 1e-5)


class Writing(torch.nn.Module):
    """Writes to its input and to buffers, one in place and one by a new tensor, and asks Python of a size."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.tensor([0.5, -1.0, 2.0]))
        self.register_buffer("mean", torch.ones(3))

    def forward(self, x):
        rows = int(x.shape[0] / 2)
        self.calls.add_(0.5)
        self.mean = 0.5 * self.mean + x.mean(0)
        x.mul_(2).unsqueeze_(0)
        return x[:, :rows] * self.calls + self.mean


def test_what_a_module_writes_to_is_as_before_and_is_read_as_it_was() -> None:
    """A conversion runs a module several times."""
    module, x = Writing(), torch.randn(4, 3)
    before = x.clone(), {name: value.clone() for name, value in module.named_buffers()}
    model = ov.convert_model(module, example_input=x)
    assert x.equal(before[0]) and all(v.equal(before[1][name]) for name, v in module.named_buffers())
    compiled = ov.compile_model(model, "CPU", EXACT)
    for rows in (4, 6, 3):
        x = torch.randn(rows, 3)
        got = compiled(x.numpy())[0]
        np.testing.assert_allclose(got, Writing()(x).numpy(), 1e-5, 1e-5, err_msg=f"seed {SEED}, {rows}")


def halves(x):
    return x.split(x.shape[1] // 2, 1)[1] + 1


def pairs_of_rows(x):
    parts = x.split(2, 1)
    return parts[1] - parts[0]


@pytest.mark.parametrize("function", [halves, pairs_of_rows])
def test_scripts_that_read_some_parts_of_an_open_dimension(function) -> None:
    """Parts behind those that are read do not count, nor does an open length of them matter."""
    script = torch.jit.script(function)
    compiled = ov.compile_model(ov.convert_model(script, example_input=torch.randn(2, 4)), "CPU", EXACT)
    for length in (4, 6, 9):
        x = torch.randn(3, length)
        np.testing.assert_allclose(compiled(x.numpy())[0], function(x).numpy(), 1e-6, 1e-6)


class Excepting(torch.nn.Module):
    """A branch for one iteration that the example does not have."""

    def forward(self, x):
        z = x * 1
        for i in range(x.size(0)):
            if i != 20:
                z[i].add_(float(i))
        return z


def test_a_branch_for_one_iteration_is_warned_of() -> None:
    with pytest.warns(torch.jit.TracerWarning):
        ov.convert_model(Excepting(), example_input=(torch.rand(3, 4),))


class Chained(torch.nn.Module):
    """A comparison of a number that is reached by 2 ** 60 paths."""

    def forward(self, x):
        size = x.shape[0]
        for _ in range(60):
            size = size + size - size
        return x * 2 if size != 7 else x


def test_sources_of_a_number_are_looked_at_once() -> None:
    compiled = ov.compile_model(ov.convert_model(Chained(), example_input=(torch.rand(3, 4),)), "CPU", EXACT)
    for rows in (3, 5):
        x = torch.rand(rows, 4)
        np.testing.assert_array_equal(compiled(x.numpy())[0], (x * 2).numpy())
