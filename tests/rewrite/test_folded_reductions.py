"""Stored constants that are viewed, converted and reduced: folded in f32, whatever their type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ovjit
from ovjit import opset13 as op
from ovjit.graph.interp import evaluate
from tests.support.sweeps import some

SEED = 20261128
#: Integer types -> the bits of their numbers here.
BITS = {"u1": 1, "u2": 2, "u3": 3, "u4": 4, "u6": 6, "u8": 6, "u16": 6, "u32": 6, "u64": 6,
        "i4": 4, "i8": 5, "i16": 5, "i32": 5, "i64": 5}  # fmt: skip
TYPES = [*BITS, "boolean", *"f16 bf16 nf4 f8e4m3 f8e5m2 f4e2m1 f32 f64".split()]
VIEWS: dict[str, Callable[[Any], Any]] = {
    "reshape": lambda x: op.reshape(x, [3, 8], False),
    "slice": lambda x: op.slice(x, [1], [3], [1], [0]),
    "strided_slice": lambda x: op.strided_slice(x, [0, 1], [4, 5], [1, 2], [0, 0], [0, 0]),
    "transpose": lambda x: op.transpose(x, [1, 0]),
    "unsqueeze": lambda x: op.unsqueeze(x, [0]),
    "split": lambda x: op.split(x, 1, 2).output(1),
    "concat": lambda x: op.concat([x, x], 0),
    "gather": lambda x: op.gather(x, [0, 1], 0),
    "tile": lambda x: op.tile(x, [2, 1]),
    "two": lambda x: op.transpose(op.reshape(x, [2, 12], False), [1, 0]),
    "none": lambda x: x,
}
REDUCED: dict[str, Callable[[Any], Any]] = {
    "mean": lambda x: op.reduce_mean(x, [0], False),
    "sum": lambda x: op.reduce_sum(x, [0], True),
    "max": lambda x: op.reduce_max(x, [0], True),
    "l2": lambda x: op.reduce_l2(x, [0], True),
    "pool": lambda x: op.avg_pool(op.reshape(x, [1, 1, -1, 2], False), [1, 1], [0, 0], [0, 0], [1, 2], True),
    "mvn": lambda x: op.mvn(x, [0], True, 1e-5, "inside_sqrt"),
    "softmax": lambda x: op.softmax(x, 0),
    "quantized": lambda x: op.reduce_mean(
        op.fake_quantize(x, np.float32(-1), np.float32(1), np.float32(-1), np.float32(1), 256), [0], False
    ),
    "cumulative": lambda x: op.cum_sum(x, 0),
}
SCALES: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda x: x,
    "scaled": lambda x: op.multiply(x, np.float32(0.25)),
    "with a zero point": lambda x: op.multiply(op.subtract(x, np.float32(3)), np.float32(0.5)),
}


def _constant(dtype: str) -> Any:
    rng = np.random.default_rng(SEED)
    kind = getattr(ovjit.Type, dtype)
    if dtype == "boolean":
        return op.constant(rng.integers(0, 2, (4, 6)).astype(bool), kind)
    if dtype in BITS:
        high = 1 << BITS[dtype] - (dtype[0] == "i")
        return op.constant(rng.integers(0 if dtype[0] == "u" else -high, high, (4, 6)), kind)
    return op.constant(rng.standard_normal((4, 6)).astype(np.float32), kind)


def _check(dtype: str, view: str, reduced: str, scale: str, first: bool) -> None:
    """`first`: the view is of the stored constant; otherwise of the converted one."""
    x: Any = _constant(dtype)
    if first:
        x = SCALES[scale](op.convert(VIEWS[view](x), "f32"))
    else:
        x = VIEWS[view](SCALES[scale](op.convert(x, "f32")))
    y = REDUCED[reduced](x)
    p = op.parameter([2], np.float32)
    model = ovjit.Model(
        [op.add(p, op.reduce_sum(y, [0], False)) if reduced == "pool" else op.relu(p), y], [p]
    )
    arrays = [np.ones(2, np.float32)]
    compiled = ovjit.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got, want = compiled(arrays)[1], evaluate(model._graph(), arrays)[1]
    where = f"{dtype} {view} {reduced} {scale}, the view first: {first}, seed {SEED}"
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, 1e-4, 1e-5, err_msg=where)


@pytest.mark.parametrize("dtype", TYPES)
def test_means_of_views(dtype: str) -> None:
    for i, view in enumerate(VIEWS):
        _check(dtype, view, "mean", list(SCALES)[i % 3], i % 2 == 0)


@pytest.mark.parametrize("reduced", REDUCED)
def test_reductions_of_bytes(reduced: str) -> None:
    for dtype in ("u8", "i8", "u4", "bf16"):
        for scale in SCALES:
            _check(dtype, "reshape", reduced, scale, scale != "scaled")


@pytest.mark.long
@pytest.mark.parametrize("dtype", TYPES)
def test_all_reductions(dtype: str) -> None:
    for view in VIEWS:
        for reduced in REDUCED:
            for scale in SCALES:
                for first in (True, False):
                    _check(dtype, view, reduced, scale, first)


@pytest.mark.parametrize("precision", some(("f32", "bf16", "f16"), 2))
def test_a_mean_that_keras_makes(precision: str) -> None:
    """keras.ops.mean of u8: Convert, ReduceMean, Convert; beside a quantised table."""
    table = np.arange(24, dtype=np.uint8).reshape(4, 6)
    x = op.convert(op.reshape(op.constant(table), [2, 12], False), "f32")
    mean = op.reduce_mean(x, [1], True)
    p = op.parameter([2, 1], np.float32)
    model = ovjit.Model([op.add(p, mean)], [p])
    compiled = ovjit.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    got = compiled([np.zeros((2, 1), np.float32)])[0]
    np.testing.assert_allclose(got, table.reshape(2, 12).mean(1, keepdims=True), 1e-2)
