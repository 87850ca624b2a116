"""Activation functions, one call each, as in `ovjit_ops.elementwise.arithmetic`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ovjit.codegen import trace as t
from ovjit.errors import check
from ovjit.graph.op import Float, TensorType, Word, op
from ovjit.graph.shapes import Interval, broadcast, is_static
from ovjit_ops.common.checks import check_same_type
from ovjit_ops.common.values import check_one, check_scalar, in_f32, operands_as_first
from ovjit_ops.elementwise.arithmetic import (
    NUMBERS,
    REALS,
    function,
    reference_erf,
    same_type,
    unary,
)

SQRT_HALF = math.sqrt(0.5)
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)

unary("Relu", lambda x: np.maximum(x, 0), lambda x: t.maximum(x, 0))
function("Sigmoid", lambda x: 1 / (1 + np.exp(-x)), lambda x: t.over_logistic(1, x))
function(
    "HSigmoid",
    lambda x: np.clip(x + 3, 0, 6) / 6,
    lambda x: t.minimum(t.maximum(x + 3, 0), 6) * (1 / 6),
    opset=5,
)
function(
    "HSwish",
    lambda x: x * (np.clip(x + 3, 0, 6) / 6),
    lambda x: x * (t.minimum(t.maximum(x + 3, 0), 6) * (1 / 6)),
    opset=4,
)
unary(
    "SoftSign",
    lambda x: x / (1 + np.abs(x)),
    lambda x: x / (1 + t.absolute(x)),
    opset=9,
    types=REALS,
)


def _softplus(x: np.ndarray) -> np.ndarray:
    """ln(1 + e^x), without overflow and without loss of small values."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _mish_body(x: Any) -> Any:
    # tanh(ln u) = (u^2 - 1) / (u^2 + 1) with u = 1 + e^x; for x > 20 it is 1 in all float types
    w = t.exp(t.minimum(x, 20.0))
    n = w * (w + 2)
    return x * (n / (n + 2))


unary(
    "SoftPlus",
    _softplus,
    lambda x: t.maximum(x, 0) + t.log1p_up_to_one(t.exp(-t.absolute(x))),
    opset=4,
    types=REALS,
)
unary("Mish", lambda x: x * np.tanh(_softplus(x)), _mish_body, opset=4, types=REALS, ulp=8)


def _infer_elu(data: TensorType, *, alpha: Float) -> TensorType:
    return same_type(data, NUMBERS)


function(
    "Elu",
    lambda x, *, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))).astype(x.dtype),
    lambda x, *, alpha: t.where(x > 0, x, alpha * (t.exp(t.minimum(x, 0)) - 1)),
    infer=_infer_elu,
    variants=({"alpha": 1.0}, {"alpha": 0.3}),
    ulp=16,
)


def _gelu(erf: Callable, tanh: Callable) -> Callable:
    """Gelu of arrays or tracers, composed of the given functions."""

    def gelu(x: Any, *, approximation_mode: str = "ERF") -> Any:
        if approximation_mode.lower() == "tanh":
            return 0.5 * x * (1 + tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)))
        return 0.5 * x * (1 + erf(x * SQRT_HALF))

    return gelu


def _infer_gelu(data: TensorType, *, approximation_mode: Word = "ERF") -> TensorType:
    return same_type(data, REALS)


_GELU: tuple[Callable, Callable] = _gelu(reference_erf, np.tanh), _gelu(t.erf, t.tanh)
unary("Gelu", *_GELU, opset=2, types=REALS, ulp=64)
unary(
    "Gelu", *_GELU, opset=7, types=REALS, infer=_infer_gelu, ulp=64,
    words={"approximation_mode": "op::GeluApproximationMode: erf tanh"},
    variants=({"approximation_mode": "ERF"}, {"approximation_mode": "TANH"}),
)  # fmt: skip


def _real(*tensors: TensorType) -> TensorType:
    """The type of the first tensor. Raises ModelError unless all have the same float type."""
    for other in tensors[1:]:
        check_same_type(other, tensors[0], "an input")
    return same_type(tensors[0], REALS)


def _number(x: TensorType, what: str, data: TensorType) -> None:
    """Raise ModelError unless x has a single element and broadcasts to the data."""
    check_one(x, what)
    most = 1 if data.rank is None else min(data.rank, 1)
    check(x.rank is None or x.rank <= most, f"{what} should be a scalar, not {x}")


@op("HardSigmoid", opset=1, types=REALS, in_real=3, any_number=True)
class HardSigmoid:
    """max(0, min(1, alpha * x + beta))"""

    def infer(data, alpha, beta):
        for name, x in (("alpha", alpha), ("beta", beta)):
            check_scalar(x, f"A scalar is expected for the '{name}' input. Got: {{shape}}")
        return _real(data, alpha, beta)

    ref = in_f32(lambda x, a, b: np.clip(a.reshape(()) * x + b.reshape(()), x.dtype.type(0), x.dtype.type(1)))

    def scalar(x, alpha, beta):
        return t.minimum(t.maximum(alpha * x + beta, 0), 1)


@op("Selu", opset=1, types=REALS, ulp=16)
class Selu:
    """lambda * (x if x > 0 else alpha * (e^x - 1))"""

    def infer(data, alpha, lambda_value):
        _number(alpha, "alpha", data)
        _number(lambda_value, "lambda", data)
        return _real(data, alpha, lambda_value)

    @in_f32
    def ref(x, alpha, lambda_value):
        negative = alpha.reshape(()) * np.expm1(np.minimum(x, 0))
        return np.asarray(lambda_value.reshape(()) * np.where(x > 0, x, negative), dtype=x.dtype)

    def scalar(x, alpha, lambda_value):
        return lambda_value * t.where(x > 0, x, alpha * (t.exp(t.minimum(x, 0)) - 1))


@op("Swish", opset=4, types=REALS, ulp=8, any_number=True)
class Swish:
    """x / (1 + e^(-beta x)); beta is 1 when not given."""

    def infer(data, beta=None):
        if beta is None:
            return _real(data)
        check_scalar(beta, "Swish input with beta must be scalar but it has rank: {rank}")
        return _real(data, beta)

    @in_f32
    def ref(x, beta=None):
        return np.asarray(x / (1 + np.exp(-x if beta is None else -x * beta.reshape(()))), dtype=x.dtype)

    def scalar(x, beta=None):
        return t.over_logistic(x, x if beta is None else x * beta)


def align_slope(data: tuple, slope: tuple) -> tuple:
    """The shape of PRelu's slope for broadcasting: a 1-D slope with the extent of dimension 1 is along it.
    Leading dimensions of 1 that the data does not have are dropped."""
    while len(slope) > len(data) and isinstance(slope[0], int) and slope[0] == 1:
        slope = slope[1:]
    if len(slope) == 1 and len(data) > 1 and slope[0] != 1 and slope[0] == data[1]:
        return (slope[0], *(1 for _ in data[2:]))
    return slope


def aligned_slope(data: tuple | None, slope: tuple | None) -> tuple[tuple, tuple] | None:
    """Both shapes, the slope's by `align_slope`; None if that depends on dynamic dimensions."""
    if data is None or slope is None:
        return None
    if len(slope) == 1 < len(data) and slope[0] != 1:
        if isinstance(data[1], Interval) or isinstance(slope[0], Interval):
            return None
    return data, align_slope(data, slope)


@op(
    "PRelu",
    opset=1,
    types=NUMBERS,
    align=aligned_slope,
    rules=[operands_as_first],
    rules_for=["PRelu"],
    any_number=True,
)
class PRelu:
    """x if x >= 0 else slope * x; the slope broadcasts to the data (see `align_slope`)."""

    def infer(data, slope):
        check(slope.dtype in (*NUMBERS, "dynamic"), f"the slope {slope} should have a numeric type")
        if is_static(data.shape) and is_static(slope.shape):
            out = broadcast(data.shape, align_slope(data.shape, slope.shape))
            check(out == data.shape, f"the slope {slope} cannot be broadcast to {data}")
        return same_type(data, NUMBERS)

    @in_f32
    def ref(x, slope):
        factor = slope.reshape(align_slope(x.shape, slope.shape)).astype(x.dtype)
        return np.where(x < 0, x * factor, x).astype(x.dtype)

    def scalar(x, slope):
        return t.where(x < 0, x * slope, x)
