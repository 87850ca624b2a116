"""The vocabulary of scalar bodies: what the tracer knows, and the transcendental functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.codegen.approx import (
    erf_f32,
    exp_f32,
    exp_rough,
    log1p_f32,
    log_f32,
    one_more_than_exp,
    tanh_f32,
)
from ovjit.codegen.tracer import *  # noqa: F403  its __all__ is the rest of the vocabulary
from ovjit.codegen.tracer import Tracer


def exp(x: Any) -> Any:
    """e ** x."""
    if not isinstance(x, Tracer):
        return np.exp(x)
    return exp_f32(x) if x.dtype == "f32" else x.recorder.emit("libm_exp", (x.name,), x.dtype)


def over_logistic(x: Any, z: Any) -> Any:
    """x / (1 + e ** -z) for a traced x or 1."""
    if isinstance(z, Tracer) and z.recorder.rough and z.dtype == "f32":
        shrink = rcp(1 + exp_rough(-z))  # noqa: F405
        return x * shrink if isinstance(x, Tracer) else shrink
    below = one_more_than_exp(-z) if isinstance(z, Tracer) and z.dtype == "f32" else 1 + exp(-z)
    return x / below


def log(x: Any) -> Any:
    """The natural logarithm."""
    if not isinstance(x, Tracer):
        return np.log(x)
    return log_f32(x) if x.dtype == "f32" else x.recorder.emit("libm_log", (x.name,), x.dtype)


def log1p(x: Any) -> Any:
    """ln(1 + x), exact where x is small."""
    if not isinstance(x, Tracer):
        return np.log1p(x)
    return log1p_f32(x) if x.dtype == "f32" else x.recorder.emit("libm_log1p", (x.name,), x.dtype)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    if not isinstance(x, Tracer):
        return np.tanh(x)
    return tanh_f32(x) if x.dtype == "f32" else x.recorder.emit("libm_tanh", (x.name,), x.dtype)


def erf(x: Any) -> Any:
    """The error function."""
    if isinstance(x, Tracer) and x.dtype == "f32":
        return erf_f32(x)
    if not isinstance(x, Tracer):
        return np.vectorize(math.erf, otypes=[float])(x).astype(np.asarray(x).dtype)
    return x.recorder.emit("libm_erf", (x.name,), x.dtype)
