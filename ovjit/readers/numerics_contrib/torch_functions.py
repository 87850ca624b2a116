"""PyTorch's functions of Bessel, incomplete gamma functions, zeta and polygamma."""

from __future__ import annotations

import math
from typing import Any

from ovjit.build import Output
from ovjit.readers.numerics_contrib.bessel import first_kind, modified_second_kind, second_kind, spherical
from ovjit.readers.numerics_contrib.gamma_beta import gamma_parts, zeta
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.operators.iterated import broadcast_both
from ovjit.readers.torch.operators.special import in_f64
from ovjit.readers.torch.registry import aten


@aten("special_bessel_j0", "special_bessel_j1", "special_bessel_y0", "special_bessel_y1")
def waves(n: Call, x: Output) -> Output:
    kind = first_kind if n.op[-2] == "j" else second_kind
    return in_f64(n, x, kind, int(n.op[-1]))


@aten("special_modified_bessel_k0", "special_modified_bessel_k1", "special_scaled_modified_bessel_k0",
      "special_scaled_modified_bessel_k1")  # fmt: skip
def decaying(n: Call, x: Output) -> Output:
    return in_f64(n, x, modified_second_kind, int(n.op[-1]), "scaled" in n.op)


@aten("special_spherical_bessel_j0")
def spherical_wave(n: Call, x: Output) -> Output:
    return in_f64(n, x, spherical)


@aten("igamma", "igammac", "special_gammainc", "special_gammaincc")
def igamma(n: Call, x: Output, other: Output) -> Output:
    """The incomplete gamma function P(a, x), or 1 - P."""
    operands = n.same_kind([x, other])
    a, x = broadcast_both(n, *(n.convert(v, "f64") for v in operands))
    result = gamma_parts(n, a, x)[n.op.endswith(("igammac", "gammaincc"))]
    endless = n("LogicalAnd", n("IsInf", a), n("IsInf", x))
    return n.convert(n("Select", endless, n.like(a, math.nan), result), n.dtype(operands[0]))


@aten("special_zeta")
def hurwitz(n: Call, x: Any, other: Any) -> Output:
    """Hurwitz's sum of (q + k)^-s, which is NaN where s < 1, at the sum's poles, too."""
    s, q = n.same_kind([n.real(n.tensor(x)), n.real(n.tensor(other))])
    s_f64, q = broadcast_both(n, n.convert(s, "f64"), n.convert(q, "f64"))
    below = n("Less", s_f64, n.like(s_f64, 1))
    return n.convert(n("Select", below, n.like(s_f64, math.nan), zeta(n, s_f64, q)), n.dtype(s))


@aten("polygamma", "special_polygamma")
def polygamma(n: Call, order: Any, self: Output) -> Output:
    """Derivatives of digamma: (-1)^(n + 1) n! zeta(n + 1, x)"""
    count = n.known_int(order, "the order")
    if count == 0:
        return n.also("digamma", self)
    x = n.real(self)
    x_f64 = n.convert(x, "f64")
    factor = math.factorial(count) * (1 if count % 2 else -1)
    result = zeta(n, n.alike(x_f64, count + 1), x_f64)
    return n.convert(n("Multiply", result, n.like(x_f64, factor)), n.dtype(x))
