"""The functions that scalar bodies may call: those of the tracer, and transcendental functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ovjit.codegen import approx
from ovjit.codegen.tracer import *
from ovjit.codegen.tracer import Tracer


def _function(
    name: str, reference: Callable, in_f32: Callable, doc: str = "", in_f64: Callable | None = None
) -> Callable:
    def function(x: Any) -> Any:
        if not isinstance(x, Tracer):
            return reference(x)
        approximation = in_f32 if x.dtype == "f32" else in_f64 if x.dtype == "f64" else None
        return approximation(x) if approximation else x.recorder.emit(f"libm_{name}", (x.name,), x.dtype)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc or f"{name}(x), elementwise."
    return function


exp = _function("exp", np.exp, approx.exp_f32, "e ** x.", approx.exp_f64)
exp_below_zero = _function(
    "exp", np.exp, approx.exp_below_zero, "e ** x for x <= 0; denormals are 0 in f32.", approx.exp_f64
)
log = _function("log", np.log, approx.log_f32, "The natural logarithm.", approx.log_f64)
log1p_up_to_one = _function(
    "log1p", np.log1p, approx.log1p_up_to_one, "ln(1 + x) for x from 0 to 1.", approx.log1p_f64
)
erf = _function(
    "erf",
    lambda x: np.vectorize(math.erf, otypes=[float])(x).astype(np.asarray(x).dtype),
    approx.erf_f32,
    "The error function.",
    approx.erf_f64,
)
tanh = _function("tanh", np.tanh, approx.tanh_f32, in_f64=approx.tanh_f64)
sin = _function("sin", np.sin, approx.sin_f32)
cos = _function("cos", np.cos, approx.cos_f32)
tan = _function("tan", np.tan, approx.tan_f32)
asin = _function("asin", np.arcsin, approx.asin_f32)
acos = _function("acos", np.arccos, approx.acos_f32)
atan = _function("atan", np.arctan, approx.atan_f32)
sinh = _function("sinh", np.sinh, approx.sinh_f32)
cosh = _function("cosh", np.cosh, approx.cosh_f32)
asinh = _function("asinh", np.arcsinh, approx.asinh_f32)
acosh = _function("acosh", np.arccosh, approx.acosh_f32)
atanh = _function("atanh", np.arctanh, approx.atanh_f32)


def not_below(x: Any, limit: Any) -> Any:
    """x, or 0 if it is below the limit; NaN is kept."""
    return where(x < limit, 0.0, x)


def over_logistic(x: Any, z: Any) -> Any:
    """x / (1 + e ** -z); x is traced or 1."""
    if isinstance(z, Tracer) and z.recorder.approximate and z.dtype == "f32":
        shrink = rcp(1 + approx.exp_approximate(-z))
        return x * shrink if isinstance(x, Tracer) else shrink
    below = approx.one_more_than_exp(-z) if isinstance(z, Tracer) and z.dtype == "f32" else 1 + exp(-z)
    return x / below


def logistic_by_tanh(z: Any, x: Any) -> Any:
    """tanh(x) / (1 + e ** -z)."""
    if isinstance(x, Tracer) and x.dtype == "f32" and not x.recorder.approximate:
        return approx.logistic_by_tanh(z, x)
    return over_logistic(1, z) * tanh(x)
