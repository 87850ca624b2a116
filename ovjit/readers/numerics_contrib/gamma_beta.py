"""Zeta, and the incomplete gamma and beta functions, of f64: by sums and continued fractions.

Loops end where no element changes any more. Elements of the other branch are given numbers that end at once.
"""

from __future__ import annotations

import math

from ovjit.build import Output
from ovjit.build.builder import Builder
from ovjit.readers.numerics.counted_loops import repeat_steps
from ovjit.readers.numerics.special import digamma, log_gamma

#: Terms of zeta that are added up before its expansion, and the expansion's numbers of Bernoulli from B2 on.
SUMMED = 12
#: Below this, too little is left of a number that the terms are added to. A loop adds up terms until all
#: arguments are above it, but no more than so many.
LEAST, MOST_LIFTED = -4, 10_000
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
#: The most steps of a sum or fraction, the change by which it ends, and what stands for 0 in a fraction.
MOST, NEAR, TINY = 5000, 1e-15, 1e-300


def zeta(n: Builder, s: Output, q: Output) -> Output:
    """The sum of (q + k)^-s over all k from 0 on, by the formula of Euler and Maclaurin, where s > 1. It is
    infinite at s = 1 and where q is a whole number that is not positive."""
    power, offset = n("Negative", s), q
    out, q = _lift(n, power, q)
    for k in range(SUMMED):
        out = n("Add", out, n("Power", n("Add", q, n.like(q, k)), power))
    w, one = n("Add", q, n.like(q, SUMMED)), n.like(q, 1)
    last = n("Power", w, power)
    quotient = n("Divide", w, n("Subtract", s, one))
    out = n("Add", out, n("Multiply", last, n("Add", quotient, n.like(q, 0.5))))
    term = n("Multiply", n("Divide", s, w), last)
    for j, number in enumerate(BERNOULLI, 1):
        out = n("Add", out, n("Multiply", term, n.like(q, number / math.factorial(2 * j))))
        for more in (2 * j - 1, 2 * j):
            term = n("Multiply", term, n("Divide", n("Add", s, n.like(s, more)), w))
    pole = n("LogicalAnd", n("LessEqual", offset, n.like(q, 0)), n("Equal", offset, n("Floor", offset)))
    outside = n("LogicalOr", n("Less", q, n.like(q, LEAST)), n("Less", s, one))
    out = n("Select", outside, n.like(q, math.nan), out)
    return n("Select", n("LogicalOr", pole, n("Equal", s, one)), n.like(q, math.inf), out)


def _lift(n: Builder, power: Output, q: Output) -> list[Output]:
    """The sum of the first terms (q + k)^power, and the q + k behind them, which is at least LEAST."""

    def step(_: Output, state: list[Output], others: list[Output]) -> list[Output]:
        total, at = state
        return [n("Add", total, n("Power", at, others[0])), n("Add", at, n.like(at, 1))]

    least = n.like(q, LEAST)
    every = n.concat([n.reshape(q, [-1]), n.like(q, [LEAST])], 0)  # of no elements, the lowest is LEAST
    low = n("ReduceMin", n("Select", n("Less", every, least), every, least), [0], keep_dims=False)
    missing = n("Minimum", n("Subtract", least, n("Floor", low)), n.like(q, MOST_LIFTED))
    return repeat_steps(n, n.convert(missing, "i64"), [n("Subtract", q, q), q], step, [power])


def polygamma(n: Builder, order: Output, x: Output) -> Output:
    """digamma's derivative: (-1)^(order + 1) order! zeta(order + 1, x); NaN for an order that is not whole or
    is negative."""
    one = n.like(order, 1)
    next_one = n("Add", order, one)
    odd = n("FloorMod", order, n.like(order, 2))
    sign = n("Subtract", n("Multiply", odd, n.like(order, 2)), one)
    size = n("Multiply", n("Exp", log_gamma(n, next_one)), zeta(n, next_one, x))
    none = n("Equal", order, n.like(order, 0))
    result = n("Select", none, digamma(n, x), n("Multiply", sign, size))
    valid = n("LogicalAnd", n("Equal", n("Floor", order), order), n("GreaterEqual", order, n.like(order, 0)))
    return n("Select", valid, result, n.like(result, float("nan")))


def gamma_parts(n: Builder, a: Output, x: Output) -> tuple[Output, Output]:
    """The regularized incomplete gamma functions, the lower and the upper one, which add up to 1."""
    one, zero = n.like(x, 1), n.like(x, 0)
    low = n("Less", x, n("Add", a, one))
    factor = n("Subtract", n("Subtract", n("Multiply", a, n("Log", x)), x), log_gamma(n, a))
    factor = n("Exp", factor)
    series = _series(n, n("Select", low, a, one), n("Select", low, x, zero))
    below = n("Multiply", n("Divide", factor, a), series)
    fraction = _fraction_of_gamma(n, n("Select", low, one, a), n("Select", low, one, x))
    above = n("Multiply", factor, fraction)
    lower = n("Select", low, below, n("Subtract", one, above))
    upper = n("Select", low, n("Subtract", one, below), above)
    wrong = n("LogicalOr", n("Less", x, zero), n("Less", a, zero))
    wrong = n("LogicalOr", wrong, n("LogicalAnd", n("Equal", a, zero), n("Equal", x, zero)))
    wrong = n("LogicalOr", wrong, n("LogicalOr", n("NotEqual", x, x), n("NotEqual", a, a)))
    endless = n("Equal", x, n.like(x, math.inf))
    full = n("LogicalOr", endless, n("Equal", a, zero))
    empty = n("LogicalOr", n("Equal", x, zero), n("Equal", a, n.like(a, math.inf)))
    empty = n("LogicalAnd", empty, n("LogicalNot", endless))
    return _ends(n, lower, wrong, full, empty), _ends(n, upper, wrong, empty, full)


def _ends(n: Builder, x: Output, wrong: Output, full: Output, empty: Output) -> Output:
    x = n("Select", empty, n.like(x, 0), n("Select", full, n.like(x, 1), x))
    return n("Select", wrong, n.like(x, math.nan), x)


def _series(n: Builder, a: Output, x: Output) -> Output:
    """1 + x / (a + 1) + x^2 / ((a + 1) (a + 2)) + ..."""

    def step(k: Output, state: list[Output], others: list[Output]) -> list[Output]:
        (total, term), (a, x) = state, others
        divisor = n("Add", a, n("Add", n.convert(k, "f64"), n.like(a, 1)))
        term = n("Divide", n("Multiply", term, x), divisor)
        total = n("Add", total, term)
        return [total, term, n.any_of(n("Greater", term, n("Multiply", total, n.like(total, NEAR))))]

    one = n("Add", n("Multiply", a, n.like(a, 0)), n.like(a, 1))
    return repeat_steps(n, MOST, [one, one], step, [a, x], ends=True)[0]


def _not_zero(n: Builder, x: Output) -> Output:
    return n("Select", n("Less", n("Abs", x), n.like(x, TINY)), n.like(x, TINY), x)


def _fraction_step(
    n: Builder, state: list[Output], top: Output, bottom: Output
) -> tuple[list[Output], Output]:  # fmt: skip
    """The next state (value, c, d) of a continued fraction by Lentz's method, and the value's change."""
    value, c, d = state
    d = n("Divide", n.like(d, 1), _not_zero(n, n("Add", bottom, n("Multiply", top, d))))
    c = _not_zero(n, n("Add", bottom, n("Divide", top, c)))
    change = n("Multiply", c, d)
    return [n("Multiply", value, change), c, d], change


def _changes(n: Builder, change: Output) -> Output:
    """Whether any value has changed by more than its last bits."""
    gap = n("Abs", n("Subtract", change, n.like(change, 1)))
    return n.any_of(n("Greater", gap, n.like(gap, NEAR)))


def _fraction_of_gamma(n: Builder, a: Output, x: Output) -> Output:
    """1 / (x + 1 - a - 1 (1 - a) / (x + 3 - a - 2 (2 - a) / (x + 5 - a - ...)))"""

    def step(k: Output, state: list[Output], others: list[Output]) -> list[Output]:
        a, bottom = others
        i = n("Add", n.convert(k, "f64"), n.like(a, 1))
        top = n("Multiply", i, n("Subtract", a, i))
        bottom = n("Add", bottom, n("Multiply", i, n.like(a, 2)))
        result, change = _fraction_step(n, state, top, bottom)
        return [*result, _changes(n, change)]

    bottom = n("Add", n("Subtract", x, a), n.like(x, 1))
    first = n("Divide", n.like(x, 1), _not_zero(n, bottom))
    large = n("Add", n("Multiply", first, n.like(first, 0)), n.like(first, 1 / TINY))
    return repeat_steps(n, MOST, [first, large, first], step, [a, bottom], ends=True)[0]


def beta_part(n: Builder, a: Output, b: Output, x: Output) -> Output:
    """The regularized incomplete beta function."""
    one, zero = n.like(x, 1), n.like(x, 0)
    total = n("Add", a, b)
    mean = n("Divide", n("Add", a, one), n("Add", total, n.like(x, 2)))
    right = n("Greater", x, mean)  # as 1 - I(b, a, 1 - x), whose fraction ends sooner
    complement = n("Subtract", one, x)
    first, second = n("Select", right, b, a), n("Select", right, a, b)
    argument, other = n("Select", right, complement, x), n("Select", right, x, complement)
    size = n("Add", n("Multiply", first, n("Log", argument)), n("Multiply", second, n("Log", other)))
    size = n("Add", size, log_gamma(n, total))
    size = n("Exp", n("Subtract", n("Subtract", size, log_gamma(n, a)), log_gamma(n, b)))
    inside = n("LogicalAnd", n("Greater", argument, zero), n("Less", argument, one))
    valid = n("LogicalAnd", n("Greater", a, zero), n("Greater", b, zero))
    usable = n("LogicalAnd", valid, inside)
    first, second = (n("Select", usable, v, one) for v in (first, second))
    result = _fraction_of_beta(n, first, second, n("Select", usable, argument, zero))
    result = n("Divide", n("Multiply", size, result), first)
    result = n("Select", n("Equal", argument, zero), zero, result)
    result = n("Select", right, n("Subtract", one, result), result)
    outside = n("LogicalOr", n("Less", x, zero), n("Greater", x, one))
    for at_end, number, still in ((a, one, b), (b, zero, a)):  # at 0, all of it is at one end
        alone = n("LogicalAnd", n("Equal", at_end, zero), n("Greater", still, zero))
        result, valid = n("Select", alone, number, result), n("LogicalOr", valid, alone)
    wrong = n("LogicalOr", n("LogicalNot", valid), n("LogicalOr", outside, n("NotEqual", x, x)))
    return n("Select", wrong, n.like(x, math.nan), result)


def _fraction_of_beta(n: Builder, a: Output, b: Output, x: Output) -> Output:
    """Two terms of the fraction in each step."""

    def step(k: Output, state: list[Output], others: list[Output]) -> list[Output]:
        a, b, x = others
        one, i = n.like(a, 1), n("Add", n.convert(k, "f64"), n.like(a, 1))
        twice = n("Multiply", i, n.like(a, 2))
        before, middle, after = (n("Add", n("Add", a, twice), n.like(a, more)) for more in (-1, 0, 1))
        even = n("Multiply", n("Multiply", i, n("Subtract", b, i)), x)
        even = n("Divide", even, n("Multiply", before, middle))
        odd = n("Multiply", n("Add", a, i), n("Add", n("Add", a, b), i))
        odd = n("Multiply", n("Divide", odd, n("Multiply", middle, after)), n("Negative", x))
        result, _ = _fraction_step(n, state, even, one)
        result, change = _fraction_step(n, result, odd, one)
        return [*result, _changes(n, change)]

    one = n("Add", n("Multiply", x, n.like(x, 0)), n.like(x, 1))
    share = n("Divide", n("Multiply", n("Add", a, b), x), n("Add", a, one))
    first = n("Divide", one, _not_zero(n, n("Subtract", one, share)))
    return repeat_steps(n, MOST, [first, one, first], step, [a, b, x], ends=True)[0]
