"""Operators of TensorFlow Lite that OpenVINO's front end does not read, beside NumPy's answers in f64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ovjit
from tests.support.tflite.cases import i32, one, x
from tests.support.tflite.files import T

SEED = 20261129
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
BOXES = np.array([[0, 0, 1, 1], [0, 0.1, 1, 1.1], [2, 2, 1, 1], [0, 5, 1, 6], [0, 5, 1, 6.1]], np.float32)
SCORES = np.array([0.9, 0.8, 0.7, 0.2, 0.6], np.float32)
POOL = {"Padding": 0, "StrideW": 2, "StrideH": 1, "FilterWidth": 2, "FilterHeight": 3}
VOLUME = {f"{kind}{axis}": 1 for kind in ("Stride", "Dilation") for axis in "DHW"}
VOLUME = {name + "Factor" * name.startswith("Dilation"): 1 for name in VOLUME} | {"StrideH": 2}


def _l2(value: np.ndarray) -> np.ndarray:
    """Windows of 3 x 2, strides of 1 x 2, of an image of 4 x 4 with padding to the same size."""
    rows = [value[:, max(i - 1, 0) : i + 2] for i in range(4)]
    pairs = [[row[:, :, j : j + 2] for j in (0, 2)] for row in rows]
    return np.sqrt(np.stack([np.stack([(p**2).mean((1, 2)) for p in row], 1) for row in pairs], 1))


def _transposed(image: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Filters of 2 x 2 x 2, strides of 1 x 2 x 1, without padding."""
    out = np.zeros((1, 3, 4, 3, filters.shape[3]))
    for d, h, w in np.ndindex(2, 2, 2):
        out[0, d : d + 2, h : h + 4 : 2, w : w + 2] += image[0] @ filters[d, h, w].T
    return out


def _written(whole: np.ndarray, part: np.ndarray, at: tuple[int, int]) -> np.ndarray:
    whole = whole.copy()
    whole[at[0] : at[0] + part.shape[0], at[1] : at[1] + part.shape[1]] = part
    return whole


FILTERS = np.random.default_rng(SEED).normal(size=(2, 2, 2, 3, 2)).astype(np.float32)
SPECIAL = np.array([0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, 1e-30, 2], np.float32)
#: Name -> (file, inputs, answers).
CASES: dict[str, tuple[bytes, list[Any], Callable[..., Any]]] = {
    "ATAN2": (
        one("ATAN2", [x(64), x(64, name="b")], [((64,), "FLOAT32")]),
        [SPECIAL.repeat(8), np.tile(SPECIAL, 8)],
        np.arctan2,
    ),
    "BUCKETIZE": (
        one("BUCKETIZE", [x(2, 3)], [((2, 3), "INT32")], "BucketizeOptions",
            Boundaries=np.array([-1.5, 0, 2], np.float32)),
        [np.array([[-2, -1.5, 0], [1.9, 2, 7]], np.float32)],
        lambda a: np.array([[0, 1, 2], [2, 3, 3]], np.int32),
    ),
    "BITCAST": (
        one("BITCAST", [x(8)], [((8,), "INT32")], "BitcastOptions"),
        [SPECIAL],
        lambda a: SPECIAL.view(np.int32),
    ),
    "RIGHT_SHIFT": (
        one("RIGHT_SHIFT", [x(4, dtype="INT32"), i32(1, 2, 31, 0)], [((4,), "INT32")], "RightShiftOptions"),
        [i32(-9, 100, -1, 5)],
        lambda a: i32(-5, 25, -1, 5),
    ),
    "L2_POOL_2D": (
        one("L2_POOL_2D", [x(1, 4, 4, 3)], [((1, 4, 2, 3), "FLOAT32")], "Pool2DOptions", **POOL),
        [(1, 4, 4, 3)],
        _l2,
    ),
    "CONV_3D_TRANSPOSE": (
        one("CONV_3D_TRANSPOSE", [i32(1, 3, 4, 3, 3), FILTERS, x(1, 2, 2, 2, 2)],
            [((1, 3, 4, 3, 3), "FLOAT32")], "Conv3DOptions", Padding=1, **VOLUME),
        [(1, 2, 2, 2, 2)],
        lambda a: _transposed(a, FILTERS),
    ),
    "NON_MAX_SUPPRESSION_V4": (
        one("NON_MAX_SUPPRESSION_V4", [x(5, 4), x(5, name="s"), i32(4)[0], np.float32(0.5), np.float32(0.3)],
            [((4,), "INT32"), ((), "INT32")], "NonMaxSuppressionV4Options"),
        [BOXES, SCORES],
        lambda a, s: (i32(0, 2, 4, 0), np.int32(3)),
    ),
    "NON_MAX_SUPPRESSION_V5": (
        one("NON_MAX_SUPPRESSION_V5",
            [x(5, 4), x(5, name="s"), i32(5)[0], np.float32(1), np.float32(0.3), np.float32(0.5)],
            [((5,), "INT32"), ((5,), "FLOAT32"), ((), "INT32")], "NonMaxSuppressionV5Options"),
        [BOXES, SCORES],
        lambda a, s: (i32(0, 2, 4, 1, 0), [0.9, 0.7, 0.6, 0.8 * np.exp(-((0.9 / 1.1) ** 2)), 0], np.int32(4)),
    ),
    "DYNAMIC_UPDATE_SLICE": (
        one("DYNAMIC_UPDATE_SLICE", [x(4, 5), x(2, 3, name="u"), T("at", (2,), "INT32")],
            [((4, 5), "FLOAT32")], "DynamicUpdateSliceOptions"),
        [(4, 5), (2, 3), i32(7, -1)],
        lambda a, b, at: _written(a, b, (2, 0)),
    ),
    "DYNAMIC_UPDATE_SLICE all rows": (
        one("DYNAMIC_UPDATE_SLICE", [x(4, 5), x(4, 2, name="u"), T("at", (2,), "INT32")],
            [((4, 5), "FLOAT32")], "DynamicUpdateSliceOptions"),
        [(4, 5), (4, 2), i32(0, 1)],
        lambda a, b, at: _written(a, b, (0, 1)),
    ),
    "SPARSE_TO_DENSE": (
        one("SPARSE_TO_DENSE", [i32([0, 1], [2, 0]), i32(3, 2), x(2), np.float32(-1)],
            [((3, 2), "FLOAT32")], "SparseToDenseOptions"),
        [(2,)],
        lambda a: np.array([[-1, a[0]], [-1, -1], [a[1], -1]]),
    ),
    "SPARSE_TO_DENSE of a vector": (
        one("SPARSE_TO_DENSE", [i32(0, 3), i32(5), x(2), np.float32(7)],
            [((5,), "FLOAT32")], "SparseToDenseOptions"),
        [(2,)],
        lambda a: np.array([a[0], 7, 7, a[1], 7]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str) -> None:
    data, given, answers = CASES[name]
    rng = np.random.default_rng(SEED)
    values = [rng.normal(size=v).astype(np.float32) if isinstance(v, tuple) else v for v in given]
    model = ovjit.Core().read_model(data)
    wanted = answers(*(v.astype(np.float64) if v.dtype == np.float32 else v for v in values))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    made = [ovjit.Tensor(port.get_element_type(), ovjit.Shape([])) for port in model.outputs]
    assert model.evaluate(made, [ovjit.Tensor(np.array(v, order="C")) for v in values])
    compiled = ovjit.compile_model(model, "CPU", F32)(values)
    for i, want in enumerate(wanted):
        for got in (made[i].data, compiled[i]):
            assert got.shape == np.shape(want)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6, err_msg=f"seed {SEED}")


def test_operators_that_are_refused() -> None:
    cast = one("BITCAST", [x(4)], [((4, 2), "INT16")], "BitcastOptions")
    with pytest.raises(RuntimeError, match="a bitcast from f32 to i16 is not supported"):
        ovjit.Core().read_model(cast)
    backwards = {"Boundaries": np.array([2, 1], np.float32)}
    with pytest.raises(RuntimeError, match="boundaries that are not sorted"):
        ovjit.Core().read_model(one("BUCKETIZE", [x(4)], [((4,), "INT32")], "BucketizeOptions", **backwards))
