"""Convolutions whose numbers are sizes: a filter for each sample, paddings, and what stays the example's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
from tests.support.torch_modules import Of  # noqa: E402 - it needs PyTorch

F = torch.nn.functional
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
FILTERS = torch.from_numpy(np.random.default_rng(7).random((4, 3, 3, 3), np.float32))


def modulated(x, style):
    """As StyleGAN's: the samples are groups of channels of one sample."""
    b, c, h, w = x.shape
    filters = FILTERS * style[:, None, :, None, None]
    out = F.conv2d(x.reshape(1, -1, h, w), filters.reshape(b * 4, c, 3, 3), padding=1, groups=b)
    return out.reshape(b, 4, h, w)


def enlarged(x, style):
    b, c, h, w = x.shape
    filters = (FILTERS * style[:, None, :, None, None]).transpose(1, 2).reshape(b * c, 4, 3, 3)
    out = torch.conv_transpose2d(x.reshape(1, -1, h, w), filters, None, 2, 0, 0, b)
    return out.reshape(b, 4, *out.shape[2:])


def of_any_channels(x, style):
    """Filters of any number of channels, of a sample without a batch too."""
    channels = x.shape[0] * x.shape[1]
    out = F.conv1d(x.reshape(channels, -1), torch.ones(channels, 1, 5), groups=channels)
    return out.sum(0) + style.sum()


def padded(x, style):
    h, w = x.shape[2:]
    one = F.conv2d(x, FILTERS, padding=(h // 2, w - 3), stride=2)
    return one.sum(1) + F.conv2d(x, FILTERS[:1], None, 1, h // 3).sum() + style.sum()


@pytest.mark.parametrize("function", [modulated, enlarged, of_any_channels, padded])
@pytest.mark.parametrize("samples", [1, 2])
def test_numbers_of_convolutions_that_are_sizes(function, samples) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        model = ov.convert_model(Of(function), example_input=_inputs(samples, 5, 6))
    compiled = ov.compile_model(model, "CPU", EXACT)
    for shape in ((1, 5, 6), (2, 5, 6), (3, 5, 6), (2, 8, 7)):
        given = _inputs(*shape)
        got = compiled([each.numpy() for each in given])[0]
        np.testing.assert_allclose(got, function(*given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, style: F.conv2d(x, FILTERS, stride=x.shape[2] - 3),
        lambda x, style: torch.conv2d(x, FILTERS, None, 1, 0, x.shape[2] - 3),
        lambda x, style: F.conv_transpose2d(x, FILTERS.mT.transpose(0, 1), padding=x.shape[2] - 4),
    ],
)
def test_numbers_that_stay_the_examples_are_told(function) -> None:
    given = _inputs(2, 5, 6)
    with pytest.warns(
        torch.jit.TracerWarning, match=r"by convolution\(\) might cause the trace to be incorr"
    ):
        model = ov.convert_model(Of(function), example_input=given)
    got = ov.compile_model(model, "CPU", EXACT)([each.numpy() for each in given])[0]
    np.testing.assert_allclose(got, function(*given), rtol=1e-4, atol=1e-5)


def _inputs(samples, height, width):
    rng = np.random.default_rng(samples * height * width)
    return tuple(
        torch.from_numpy(rng.random(shape, np.float32))
        for shape in ((samples, 3, height, width), (samples, 3))
    )
