"""Bessel functions of the orders 0 and 1, in f64: power series near 0, and asymptotic expansions beyond.

With z = x^2 / 4, the series of order v have the terms z^k / (k! (k + v)!); those of the functions J and Y
alternate. The expansions have products of (4 v^2 - (2 j - 1)^2) / (8 j x). Where one takes over from the
other, both are within 1e-8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ovjit.build import Output
from ovjit.build.builder import Builder
from ovjit.readers.numerics.special import polynomial

#: Where expansions begin, of J and Y, and of K: its series lose exp(2 x) of their digits.
FAR, FAR_MODIFIED = 12.0, 9.0
#: Terms of series, and of expansions: their terms become larger again from 2 x on.
NEAR_TERMS, FAR_TERMS = 40, 18
GAMMA = 0.5772156649015329


def _series(order: int, sign: int, factor: Callable[[int], float] = lambda k: 1.0) -> list[float]:
    """Coefficients of z^k, each times a factor."""
    return [sign**k * factor(k) / (math.factorial(k) * math.factorial(k + order)) for k in range(NEAR_TERMS)]


def _harmonic(order: int) -> Callable[[int], float]:
    """The sum of the digamma function at k + 1 and k + order + 1, by the number k."""

    def factor(k: int) -> float:
        return sum(1 / j for j in range(1, k + 1)) + sum(1 / j for j in range(1, k + order + 1)) - 2 * GAMMA

    return factor


def _expansion(order: int) -> list[float]:
    """Coefficients of 1 / x^k."""
    result = [1.0]
    for k in range(1, FAR_TERMS):
        result.append(result[-1] * (4 * order**2 - (2 * k - 1) ** 2) / (8 * k))
    return result


def _quarter(n: Builder, x: Output) -> Output:
    return n("Multiply", n("Multiply", x, x), n.like(x, 0.25))


def _near(n: Builder, x: Output, order: int, coefficients: Sequence[float]) -> Output:
    """(x / 2)^order times a series."""
    result = polynomial(n, _quarter(n, x), coefficients)
    return n("Multiply", result, n("Multiply", x, n.like(x, 0.5))) if order else result


def _waves(n: Builder, x: Output, order: int, second: bool) -> Output:
    """sqrt(2 / (pi x)) (p cos t - q sin t), or (p sin t + q cos t), of t = x - (order / 2 + 1 / 4) pi"""
    terms, inverse = _expansion(order), n("Divide", n.like(x, 1), x)
    square = n("Multiply", inverse, inverse)
    even, odd = ([(-1) ** i * c for i, c in enumerate(terms[k::2])] for k in (0, 1))
    p, q = polynomial(n, square, even), n("Multiply", polynomial(n, square, odd), inverse)
    angle = n("Subtract", x, n.like(x, (order / 2 + 0.25) * math.pi))
    c, s = n("Cos", angle), n("Sin", angle)
    if second:
        result = n("Add", n("Multiply", p, s), n("Multiply", q, c))
    else:
        result = n("Subtract", n("Multiply", p, c), n("Multiply", q, s))
    return n("Multiply", result, n("Sqrt", n("Multiply", inverse, n.like(x, 2 / math.pi))))


def first_kind(n: Builder, x: Output, order: int) -> Output:
    """J0 or J1, 0 at infinity."""
    size = n("Abs", x)
    inner, outer = n("Minimum", size, n.like(x, FAR)), n("Maximum", size, n.like(x, FAR))
    outer = n("Select", n("IsInf", outer), n.like(x, FAR), outer)
    result = n(
        "Select", n("Less", size, n.like(x, FAR)),
        _near(n, inner, order, _series(order, -1)), _waves(n, outer, order, second=False),
    )  # fmt: skip
    result = n("Multiply", result, n("Sign", x)) if order else result
    return n("Select", n("IsInf", x), n.like(x, 0), n("Select", n("IsNaN", x), x, result))


def second_kind(n: Builder, x: Output, order: int) -> Output:
    """Y0 or Y1: -infinity at 0, no number below."""
    inner, outer = n("Minimum", x, n.like(x, FAR)), n("Maximum", x, n.like(x, FAR))
    log = n("Log", n("Multiply", inner, n.like(x, 0.5)))
    result = n("Multiply", n("Multiply", log, n.like(x, 2)), _near(n, inner, order, _series(order, -1)))
    result = n("Subtract", result, _near(n, inner, order, _series(order, -1, _harmonic(order))))
    if order:
        result = n("Subtract", result, n("Divide", n.like(x, 2), inner))
    result = n("Multiply", result, n.like(x, 1 / math.pi))
    result = n("Select", n("Less", x, n.like(x, FAR)), result, _waves(n, outer, order, second=True))
    return n("Select", n("Equal", x, n.like(x, 0)), n.like(x, -math.inf), result)


def modified_second_kind(n: Builder, x: Output, order: int, scaled: bool) -> Output:
    """K0 or K1: infinity at 0, no number below; scaled ones are times exp(x)."""
    far = n.like(x, FAR_MODIFIED)
    inner, outer = n("Minimum", x, far), n("Maximum", x, far)
    log = n("Multiply", n("Log", n("Multiply", inner, n.like(x, 0.5))), n.like(x, 2))
    near = n("Multiply", log, _near(n, inner, order, _series(order, 1)))
    near = n("Subtract", near, _near(n, inner, order, _series(order, 1, _harmonic(order))))
    near = n("Multiply", near, n.like(x, 0.5 if order else -0.5))
    if order:
        near = n("Add", near, n("Divide", n.like(x, 1), inner))
    inverse = n("Divide", n.like(x, 1), outer)
    beyond = n(
        "Multiply",
        polynomial(n, inverse, _expansion(order)),
        n("Sqrt", n("Multiply", inverse, n.like(x, math.pi / 2))),
    )
    if scaled:
        near = n("Multiply", near, n("Exp", inner))
    else:
        beyond = n("Multiply", beyond, n("Exp", n("Negative", outer)))
    result = n("Select", n("Less", x, far), near, beyond)
    return n("Select", n("Equal", x, n.like(x, 0)), n.like(x, math.inf), result)


def spherical(n: Builder, x: Output) -> Output:
    """sin(x) / x, 1 at 0 and 0 at infinity"""
    is_zero, is_far = n("Equal", x, n.like(x, 0)), n("IsInf", x)
    some = n("Select", n("LogicalOr", is_zero, is_far), n.like(x, 1), x)
    result = n("Divide", n("Sin", some), some)
    return n("Select", is_far, n.like(x, 0), n("Select", is_zero, n.like(x, 1), result))
