"""Weights of convolutions that are integers of the model, shifted and scaled: a blob has the integers."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit
from ovjit import opset13
from ovjit.storage.scaled_integers import ScaledIntegers

SEED = 20261201
CHANNELS, LAYERS = 96, 4


def compressed(kind: type, real: str, zeros: bool, taps: int) -> ovjit.Model:
    """Convolutions with weights of 8 bits, as compression of weights writes them."""
    rng = np.random.default_rng([SEED, taps])
    x = opset13.parameter([1, CHANNELS, 14, 14], np.float32, name="x")
    value, per_output = x, (CHANNELS, 1, 1, 1)
    least, most = (0, 256) if kind is np.uint8 else (-127, 128)
    for _ in range(LAYERS):
        integers = rng.integers(least, most, (CHANNELS, CHANNELS, taps, taps)).astype(kind)
        weights = opset13.convert(opset13.constant(integers), real)
        if zeros:
            zero = opset13.constant(rng.integers(100, 127, per_output).astype(kind))
            weights = opset13.subtract(weights, opset13.convert(zero, real))
        factors = (rng.random(per_output) / 100).astype(np.float16 if real == "f16" else np.float32)
        weights = opset13.multiply(weights, opset13.constant(factors))
        if real == "f16":
            weights = opset13.convert(weights, "f32")
        pads = [taps // 2] * 2
        value = opset13.relu(opset13.convolution(value, weights, [1, 1], pads, pads, [1, 1]))
    return ovjit.Model([value], [x], "compressed")


@pytest.mark.parametrize(
    "kind, real, zeros", [(np.int8, "f32", False), (np.uint8, "f32", True), (np.uint8, "f16", True)]
)
@pytest.mark.parametrize("taps", [3, 5])
def test_blobs_have_the_integers(kind: type, real: str, zeros: bool, taps: int) -> None:
    """Filters of 3 x 3 are planes in memory, those of 5 x 5 panels."""
    model = ovjit.Core().compile_model(compressed(kind, real, zeros, taps), "CPU")
    content = model.export_model().getvalue()
    assert len(content) < LAYERS * CHANNELS**2 * taps**2 + 100_000
    again = ovjit.Core().import_model(content, "CPU")
    x = np.random.default_rng(SEED).normal(size=(1, CHANNELS, 14, 14)).astype(np.float32)
    assert again(x)[0].tobytes() == model(x)[0].tobytes()
    assert again.export_model().getvalue() == content
    for mine, other in zip(model._executable.graph.nodes, again._executable.graph.nodes, strict=True):
        if isinstance(mine.attrs.get("value"), np.ndarray):
            np.testing.assert_array_equal(other.attrs["value"], mine.attrs["value"], strict=True)


def test_other_weights_differ() -> None:
    """One changed bit, also in the last row, and the weights are stored."""
    rng = np.random.default_rng(SEED)
    integers = rng.integers(-127, 128, (5, 3, 3)).astype(np.int8)
    scaled = ScaledIntegers(integers, None, rng.random((5, 1, 1), np.float32))
    weights = scaled.weights()
    assert scaled.equals(weights)
    for row in (0, 4):
        changed = weights.copy()
        changed.view(np.int32)[row, 2, 2] ^= 1
        assert not scaled.equals(changed)
