"""Warnings of traces that are right, or wrong, at other sizes: the models beside PyTorch."""

from __future__ import annotations

import itertools
import sys
import warnings

import numpy as np
import pytest

import ovjit as ov
from ovjit.readers.torch.tracing.index_warnings import calls_operator
from ovjit.readers.torch.tracing.other_sizes import _resize

torch = pytest.importorskip("torch")
from tests.support.torch_modules import Of  # noqa: E402 - it needs PyTorch

F = torch.nn.functional
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
SHAPES = (1, 8, 8), (2, 12, 8), (3, 5, 8), (1, 17, 8)


def warned(function, shape) -> tuple[list[str], ov.Model]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = ov.convert_model(Of(function), example_input=torch.rand(*shape))
    return [str(w.message) for w in told if issubclass(w.category, torch.jit.TracerWarning)], model


def normalised(x):
    """PyTorch's function claims that there is more than one value."""
    flat = x.reshape(x.shape[0] * x.shape[1], 8)
    return F.group_norm(flat, 2).reshape(x.shape) + F.instance_norm(x.transpose(1, 2)).transpose(1, 2)


def gathered(x):
    """Python asks for the number of parts where it makes room for them."""
    first, second, third = (x, *x.chunk(2, dim=-1))
    parts, last = [x.mean(-1), *x.chunk(4, dim=-1)], list(x.chunk(4, 2))[3]
    return first.sum(-1) + (second * third).sum(-1) + parts[0] + parts[1].sum(-1) - last.sum(-1)


def spread(x):
    """What PyTorch's operators take is recorded."""
    length = x.shape[1]
    places = torch.linspace(0.0, 1.0, length) + torch.hann_window(length) + torch.eye(n=length).sum(0)
    return x * places[:, None] + torch.logspace(0.0, 1.0, length, base=2.0).sum()


def of_list(x):
    """Numbers of Python's are constants; sizes are recorded."""
    sizes = torch.tensor([(x.shape[1] - 1) / 2, x.shape[0]]) + torch.tensor([x.shape[1]])
    return x * torch.tensor([0.5, 2.0]).sum() + sizes.sum()


@pytest.mark.parametrize(
    "function", [normalised, gathered, spread, of_list], ids=lambda function: function.__name__
)
def test_what_is_right_at_other_sizes_is_not_warned_of(function) -> None:
    told, model = warned(function, SHAPES[0])
    assert not told
    compiled = ov.compile_model(model, "CPU", EXACT)
    for shape in SHAPES:
        x = torch.rand(*shape)
        np.testing.assert_allclose(compiled([x.numpy()])[0], function(x), rtol=1e-5, atol=1e-5)


def in_windows(x):
    parts = []
    for start in range(0, x.shape[1], 4):
        parts.append(x[:, start : start + 4].softmax(1))
    return torch.cat(parts, 1)


def iterated(x):
    return x * sum(range(x.shape[1]))


@pytest.mark.parametrize("function", [in_windows, iterated], ids=lambda function: function.__name__)
def test_what_is_wrong_at_other_sizes_is_warned_of(function) -> None:
    """The sequence of the example is as long as its vectors: it has another length alone."""
    told, model = warned(function, SHAPES[0])
    assert any("incorrect" in text for text in told)
    x = torch.rand(*SHAPES[0])
    np.testing.assert_allclose(ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0], function(x), rtol=1e-5)


def test_other_sizes_are_tried_once_and_for_one_axis() -> None:
    leaves = [torch.rand(1, 3, 8, 8), torch.rand(1, 8)]
    shapes = [tuple(tuple(leaf.shape) for leaf in made) for made in itertools.islice(_resize(leaves), 30)]
    assert len(shapes) == len(set(shapes))
    assert ((1, 3, 8, 8), (1, 8)) not in shapes
    assert ((1, 3, 8, 9), (1, 8)) in shapes  # an image that is no square
    assert ((2, 3, 8, 8), (2, 8)) in shapes  # more samples
    assert ((1, 3, 9, 9), (1, 9)) in shapes


def test_operators_are_found_in_the_code_that_calls_them(monkeypatch) -> None:
    """Each line calls something with a tensor whose number is asked for."""
    n, x, items, asked = torch.tensor(2), torch.rand(2, 2), [1, 2], list[bool]()

    def index(self):
        asked.append(calls_operator(sys._getframe(1)))
        return 2

    monkeypatch.setattr(torch.Tensor, "__index__", index)
    torch.eye(n)
    torch.linspace(0, 1, steps=n)
    torch.linspace(*(0, 1), n)
    torch._C._fft.fft_fftfreq(n)
    assert asked and all(asked)
    asked.clear()
    range(n)
    items.insert(n, 3)
    bin(n)
    x.tolist().insert(n, 1)
    torch.eye(2).tolist().insert(n, 1)
    assert len(asked) == 5 and not any(asked)


class Upsampling(torch.nn.Module):
    """As in diffusers: `contiguous` gives the tensor itself, which a submodule has made."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        y = self.layer(x)
        if y.shape[0] >= 64:
            y = y.contiguous()
        same = y
        if y.numel() * 2 > pow(2, 9):
            y = y.contiguous() * 2
        return self.layer(y), same


def test_a_branch_of_a_layer_with_weights_is_the_examples_which_is_warned_of() -> None:
    module, x = Upsampling().eval(), torch.rand(2, 3, 5, 6)
    with pytest.warns(torch.jit.TracerWarning, match="Python boolean"):
        model = ov.convert_model(module, example_input=x)
    result = ov.compile_model(model, "CPU", EXACT)([x.numpy()])
    for i, expected in enumerate(module(x)):
        np.testing.assert_allclose(result[i], expected.detach(), rtol=1e-4, atol=1e-5)
