"""Products whose rows are a multiple of 4,096 bytes apart: lower tiles read them, see `SET_BYTES`."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as op

SEED = 20261124


def whole_numbers(rng: np.random.Generator, shape) -> np.ndarray:
    """Numbers whose products have exact sums in every format."""
    return rng.integers(-4, 5, shape).astype(np.float32)


def run(model: ov.Model, x: np.ndarray, precision: str) -> np.ndarray:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return np.asarray(compiled(x)[0])


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("depth", [1024, 2048])
@pytest.mark.parametrize("rows", [5, 7, 8, 14, 15, 29])
def test_products(rows: int, depth: int, precision: str) -> None:
    rng = np.random.default_rng([SEED, rows, depth])
    x = op.parameter([-1, depth], np.float32)
    weights, bias = whole_numbers(rng, (depth, 48)), whole_numbers(rng, (48,))
    product = op.relu(op.add(op.matmul(x, op.constant(weights), False, False), op.constant(bias)))
    model = ov.Model([op.multiply(product, op.constant(np.float32(2**-16))).output(0)], [x])
    given = whole_numbers(rng, (rows, depth))
    wanted = np.maximum(given.astype(np.float64) @ weights + bias, 0) / 2**16
    np.testing.assert_array_equal(run(model, given, precision), wanted, f"seed {SEED}")


@pytest.mark.parametrize(
    "size, stride", [((3, 5), 1), ((7, 9), 2), ((17, 1), 1), ((31, 1), 2), ((1, 30), 2)], ids=str
)
def test_convolutions(size: tuple[int, int], stride: int) -> None:
    """Pixels of 1,024 channels of f32, and a window of two of them."""
    rng = np.random.default_rng([SEED, *size, stride])
    x = op.parameter([2, 1024, *size], np.float32)
    taps = (1, 2) if size[1] > 1 else (2, 1)
    weights = whole_numbers(rng, (40, 1024, *taps))
    made = op.convolution(op.relu(x), op.constant(weights), [stride] * 2, [0, 0], [0, 0], [1, 1])
    given = whole_numbers(rng, (2, 1024, *size))
    data = np.maximum(given, 0).astype(np.float64)
    parts = [data[:, :, i : size[0] - taps[0] + 1 + i : stride, j : size[1] - taps[1] + 1 + j : stride]
             for i in range(taps[0]) for j in range(taps[1])]  # fmt: skip
    wanted = sum(
        np.einsum("nchw,oc->nohw", part, tap)
        for part, tap in zip(parts, weights.reshape(40, 1024, 2).transpose(2, 0, 1), strict=True)
    )
    np.testing.assert_array_equal(run(ov.Model([made.output(0)], [x]), given, "f32"), wanted, f"seed {SEED}")
