"""ErfInv: the inverse of the error function."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np

from ovjit.codegen import trace as t
from ovjit_ops.elementwise.arithmetic import REALS, unary

#: Coefficients (Giles, 2010) of erfinv(x) / x with w = -ln(1 - x^2): NEAR in powers of w - 2.5 for w < 5, FAR
#: in powers of sqrt(w) - 3 for others.
NEAR = [2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
        -0.00417768164, 0.246640727, 1.50140941]  # fmt: skip
FAR = [-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
       0.00943887047, 1.00167406, 2.83297682]  # fmt: skip


def _erfinv(x: np.ndarray) -> np.ndarray:
    """The inverse error function: from quantiles of the normal distribution, with two Newton steps, in
    f64."""

    def one(y: float) -> float:
        if not -1 < y < 1:
            return math.inf * y if abs(y) == 1 else math.nan
        z = NormalDist().inv_cdf((1 - abs(y)) / 2) / -math.sqrt(2)
        for _ in range(2):
            error = (math.erf(z) - abs(y)) if abs(y) < 0.5 else (1 - abs(y)) - math.erfc(z)
            z -= error / (2 / math.sqrt(math.pi) * math.exp(-z * z))
        return math.copysign(z, y)

    return np.vectorize(one, otypes=[np.float64])(x.astype(np.float64)).astype(x.dtype)


def _erfinv_body(x: Any) -> Any:
    w = -t.log((1 - x) * (1 + x))
    near, far = w - 2.5, t.sqrt(w) - 3
    p: Any = near * 0 + NEAR[0]
    q: Any = far * 0 + FAR[0]
    for a, b in zip(NEAR[1:], FAR[1:], strict=True):
        p, q = p * near + a, q * far + b
    z = t.where(w < 5, p, q) * x
    if t.dtype(x) == "f64":
        for _ in range(2):
            z = z - (t.erf(z) - x) * (math.sqrt(math.pi) / 2) * t.exp(z * z)
    return t.where(t.absolute(x) == 1, x * math.inf, z)


unary(
    "ErfInv",
    _erfinv,
    _erfinv_body,
    opset=17,
    types=REALS,
    domain=(-0.99, 0.99),
    ulp=64,
)
