"""Functions of each element that take as many steps as the elements need: Loops, in i64 and f64."""

from __future__ import annotations

import math
from typing import Any

from ovjit.build import Output
from ovjit.readers.numerics.counted_loops import repeat_steps
from ovjit.readers.numerics.gamma_beta import gamma_parts, zeta
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.registry import aten

#: Euclid's algorithm for integers of 64 bits takes fewer steps.
EUCLID = 100


def _alike(n: Call, a: Output, b: Output) -> list[Output]:
    """Both in the shape to which they are broadcast."""
    return [n.expand(a, n.shape_of(b)), n.expand(b, n.shape_of(a))]


@aten("gcd", "lcm")
def gcd(n: Call, x: Any, other: Any) -> Output:
    """Euclid's: (a, b) -> (b, a mod b), until all b are 0"""
    operands = n.same_kind([x, other])
    kind = n.dtype(operands[0])
    a, b = _alike(n, *(n.convert(v, "i64") for v in operands))

    def step(_: Output, state: list[Output], __: list[Output]) -> list[Output]:
        a, b = state
        done = n("Equal", b, n.const(0))
        remainder = n("Mod", a, n("Select", done, n.const(1), b))
        b = n("Select", done, b, remainder)
        return [n("Select", done, a, state[1]), b, n.any_of(n("NotEqual", b, n.const(0)))]

    result = repeat_steps(n, EUCLID, [n("Abs", a), n("Abs", b)], step, ends=True)[0]
    if n.op == "aten::lcm":
        some = n("Maximum", result, n.const(1))
        result = n("Abs", n("Multiply", n("Divide", a, some), b))
    return n.convert(result, kind)


@aten("igamma", "igammac", "special_gammainc", "special_gammaincc")
def igamma(n: Call, x: Output, other: Output) -> Output:
    """The incomplete gamma function P(a, x), or 1 - P."""
    operands = n.same_kind([x, other])
    a, x = _alike(n, *(n.convert(v, "f64") for v in operands))
    result = gamma_parts(n, a, x)[n.op.endswith("c")]
    endless = n("LogicalAnd", n("IsInf", a), n("IsInf", x))
    return n.convert(n("Select", endless, n.like(a, math.nan), result), n.dtype(operands[0]))


@aten("special_zeta")
def hurwitz(n: Call, x: Any, other: Any) -> Output:
    """Hurwitz's sum of (q + k)^-s, which is NaN where s < 1, at the sum's poles, too."""
    s, q = n.same_kind([n.real(n.tensor(x)), n.real(n.tensor(other))])
    s_f64, q = _alike(n, n.convert(s, "f64"), n.convert(q, "f64"))
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
