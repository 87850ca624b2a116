"""Operations of real numbers that take integers, too: computed in f32 and cut off, as OpenVINO has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit
from ovjit.graph import dtypes
from ovjit.graph.interp import evaluate

SEED = 20261121
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def _spots(o: Any) -> Any:
    return o.constant(np.random.default_rng(SEED).uniform(-1, 1, (2, 5, 6, 2)).astype(np.float32))


#: name: (the graph, the element types that OpenVINO's CPU takes)
CASES: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "Softmax": (lambda o, x: o.softmax(x, 1), "i32 i64 u8 i8"),
    "LogSoftmax": (lambda o, x: o.log_softmax(x, -1), "i32 i64 u8 i8"),
    "MVN": (lambda o, x: o.mvn(x, o.constant(np.array([2, 3])), True, 1e-5, "INSIDE_SQRT"), "i32 i64 u8 i8"),
    "GRN": (lambda o, x: o.grn(x, 0.5), "i32 i64 u8 i8"),
    "LRN": (lambda o, x: o.lrn(x, o.constant(np.array([1])), 1.0, 0.5, 1.0, 3), "i32 i64 u8 i8"),
    "NormalizeL2": (lambda o, x: o.normalize_l2(x, o.constant(np.array([1])), 1e-3, "add"), "u8 i8"),
    "HardSigmoid": (lambda o, x: o.hard_sigmoid(x, _like(o, x, 1), _like(o, x, -2)), "i32 i64 i8"),
    "FakeQuantize": (
        lambda o, x: o.fake_quantize(x, *(_like(o, x, v) for v in (-4, 4, -8, 8)), 5),
        "i32 i64 i16",
    ),
    "AvgPool": (lambda o, x: o.avg_pool(x, [1, 1], [1, 1], [0, 0], [2, 2], True), "i32 i64 u8 i8"),
    "AvgPool with padding": (lambda o, x: o.avg_pool(x, [1, 1], [1, 1], [0, 0], [2, 2], False), "i32 u8 i8"),
    "AdaptiveAvgPool": (lambda o, x: o.adaptive_avg_pool(x, o.constant(np.array([2, 3]))), "i32 u8 i8"),
    "Interpolate": (
        lambda o, x: o.interpolate(x, np.array([7, 8]), "linear_onnx", "sizes", axes=np.array([2, 3])),
        "i32 i64 u8 i8",
    ),
    "Interpolate, linear": (
        lambda o, x: o.interpolate(x, np.array([7, 8]), "linear", "sizes", axes=np.array([2, 3])),
        "i32 u8 i8",
    ),
    "GridSample": (lambda o, x: o.grid_sample(x, _spots(o), {}), "u8 i8"),
    "Exp": (lambda o, x: o.exp(x), "i32 i64 u8 i8 i16 u16"),
    "Log": (lambda o, x: o.log(x), "i32 u8 i16 u16"),
    "Sin": (lambda o, x: o.sin(x), "i32 i64 u8 i8 i16 u16"),
    "LogicalNot": (lambda o, x: o.logical_not(x), "i32 i64 u8 i8 i16 f32 f16 f64"),
}


def _like(o: Any, x: Any, value: int) -> Any:
    return o.constant(np.array(value), x.get_element_type().to_dtype())


def _model(ov: Any, name: str, kind: np.dtype, shape: Any) -> Any:
    x = ov.opset13.parameter(shape, kind)
    return ov.Model([CASES[name][0](ov.opset13, x)], [x])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("types", ["some", pytest.param("all", marks=pytest.mark.long)])
def test_as_openvino(name: str, opened: bool, types: str) -> None:
    """By default open shapes of every third type, and known shapes of the next ones."""
    kinds = CASES[name][1].split()
    for kind in kinds[opened::3] if types == "some" else kinds:
        dtype = getattr(ovjit.Type, kind).to_dtype()
        data = np.random.default_rng([SEED, len(name)]).integers(-9, 10, (2, 4, 3, 5)).astype(dtype)
        if dtype.kind == "u":
            data = np.random.default_rng([SEED, len(name)]).integers(0, 9, data.shape).astype(dtype)
        shape = [-1, 4, -1, -1] if opened else list(data.shape)
        model = _model(ovjit, name, dtype, shape)
        assert model.output().get_element_type() == getattr(ovjit.Type, kind)
        want = openvino.compile_model(_model(openvino, name, dtype, list(data.shape)), "CPU", EXACT)(data)[0]
        got = ovjit.compile_model(model, "CPU", EXACT)(data)[0]
        assert got.dtype == want.dtype == dtype
        if kind == "i64":  # which OpenVINO computes as 32 bits
            got, want = got.astype(np.int32), want.astype(np.int32)
        for other in (want, evaluate(model._graph(), [data])[0].astype(got.dtype)):
            off = np.abs(got.astype(float) - other.astype(float))
            assert off.max() <= 1 and (off > 0).mean() < 0.02, f"{kind}, seed {SEED}"  # half-way points


def test_mixed_types_are_refused() -> None:
    x = ovjit.opset13.parameter([2, 4, 3], np.int32)
    ones = ovjit.opset13.constant(np.ones(4, np.float32))
    with pytest.raises(RuntimeError):
        ovjit.opset13.group_normalization(x, ones, ones, 2, 1e-5)


@pytest.mark.parametrize("kind, lowest, highest", [("u4", 0, 15), ("i4", -8, 7), ("u2", 0, 3)])
def test_what_is_computed_for_fewer_than_eight_bits_is_rounded_and_saturates(
    kind: str, lowest: int, highest: int
) -> None:
    reals = np.array([-99.0, -0.5, 0.5, 1.5, 2.5, 99.0], np.float32)
    whole = dtypes.round_to_integer(reals, dtypes.numpy_dtype(kind)).astype(np.int8)
    assert whole.tolist() == [lowest, 0, 0, 2, 2, highest]
