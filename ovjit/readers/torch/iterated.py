"""Functions of each element that take as many steps as the elements need: Loops, in i64 and f64."""

from __future__ import annotations

import math
from typing import Any

from ovjit.api.model.node import Output
from ovjit.readers.counted import counted
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.registry import aten

#: Euclid's algorithm for integers of 64 bits takes fewer steps.
EUCLID = 100
#: Series and fractions end here, and where a step changes nothing more than this part of the sum.
MOST_TERMS, PRECISE = 5000, 1e-12
#: The sum of Hurwitz's function is taken up to this argument, its rest by Euler and Maclaurin:
#: (2 k)! / B(2 k) for k = 1, 2, ...
FAR = 9
MACLAURIN = (12.0, -720.0, 30240.0, -1209600.0, 47900160.0, -1.8924375803183791e9, 7.47242496e10,
             -2.950130727918164e12)  # fmt: skip
#: The largest number of terms before that.
MOST_SHIFTS = 10000


def _alike(n: Call, a: Output, b: Output) -> list[Output]:
    """Both in the shape to which they are broadcast."""
    return [n.expand(a, n.shape_of(b)), n.expand(b, n.shape_of(a))]


def _any(n: Call, x: Output) -> Output:
    return n("ReduceLogicalOr", n.reshape(x, [-1]), [0], keep_dims=False)


@aten("gcd", "lcm")
def gcd(n: Call, x: Any, other: Any) -> Output:
    """Euclid's: (a, b) -> (b, a mod b), until all b are 0"""
    given = n.same_kind([x, other])
    kind = n.dtype(given[0])
    a, b = _alike(n, *(n.convert(v, "i64") for v in given))

    def step(_: Output, state: list[Output], __: list[Output]) -> list[Output]:
        a, b = state
        done = n("Equal", b, n.const(0))
        rest = n("Mod", a, n("Select", done, n.const(1), b))
        b = n("Select", done, b, rest)
        return [n("Select", done, a, state[1]), b, _any(n, n("NotEqual", b, n.const(0)))]

    found = counted(n, EUCLID, [n("Abs", a), n("Abs", b)], step, ends=True)[0]
    if n.op == "aten::lcm":
        some = n("Maximum", found, n.const(1))
        found = n("Abs", n("Multiply", n("Divide", a, some), b))
    return n.convert(found, kind)


@aten("igamma", "igammac", "special_gammainc", "special_gammaincc")
def igamma(n: Call, x: Output, other: Output) -> Output:
    """The incomplete gamma function P(a, x), or 1 - P: by its series where x < a + 1, else by the fraction of
    1 - P, which is the modified one of Lentz."""
    given = n.same_kind([x, other])
    kind = n.dtype(given[0])
    a, x = _alike(n, *(n.convert(v, "f64") for v in given))
    zero, one, endless = n.like(a, 0), n.like(a, 1), n.like(a, math.inf)
    plain = n("LogicalAnd", n("Greater", a, zero), n("Greater", x, zero))
    plain = n("LogicalAnd", plain, n("LogicalAnd", n("Less", a, endless), n("Less", x, endless)))
    own = n("Select", plain, a, one)
    at = n("Select", plain, x, one)
    scale = n("Subtract", n("Subtract", n("Multiply", own, n("Log", at)), at), n.also("lgamma", own))
    near = n("Less", at, n("Add", own, one))
    below, above = _series(n, own, at, near)
    below, above = (n("Multiply", n("Exp", scale), v) for v in (below, above))
    upper = n.op.endswith("c")
    parts = [above, n("Subtract", one, below)] if upper else [n("Subtract", one, above), below]
    made = n("Select", near, parts[1], parts[0])
    # at the ends: P(a, 0) = P(inf, x) = 0, P(0, x) = P(a, inf) = 1, and nothing where both or a sign is wrong
    ends = [n("Equal", v, e) for v, e in ((x, zero), (a, endless), (a, zero), (x, endless))]
    low, high = n("LogicalOr", ends[0], ends[1]), n("LogicalOr", ends[2], ends[3])
    both = n("LogicalAnd", low, high)
    made = n("Select", high, zero if upper else one, n("Select", low, one if upper else zero, made))
    wrong = n("LogicalOr", n("Less", a, zero), n("Less", x, zero))
    wrong = n("LogicalOr", wrong, n("LogicalOr", n("IsNaN", a), n("IsNaN", x)))
    wrong = n("LogicalOr", both, wrong)
    return n.convert(n("Select", wrong, n.like(a, math.nan), made), kind)


def _series(n: Call, a: Output, x: Output, near: Output) -> list[Output]:
    """1/a + x/(a (a + 1)) + ..., and 1/(x + 1 - a - 1 (1 - a)/(x + 3 - a - ...)) where `near` is not true"""
    one, tiny = n.like(a, 1), 1e-300
    inner = n("Select", near, x, n.like(a, 0))
    outer = n("Select", near, n("Add", a, one), x)
    first = n("Divide", one, a)
    b = n("Subtract", n("Add", outer, one), a)
    c, d = n.alike(a, 1 / tiny), n("Divide", one, b)

    def step(k: Output, state: list[Output], others: list[Output]) -> list[Output]:
        term, total, b, c, d, fraction = state
        a, inner = others
        i = n("Add", n.convert(k, "f64"), n.like(a, 1))
        term = n("Divide", n("Multiply", term, inner), n("Add", a, i))
        total = n("Add", total, term)
        top = n("Multiply", i, n("Subtract", a, i))
        b = n("Add", b, n.like(a, 2))
        d = n("Add", n("Multiply", top, d), b)
        d = n("Select", n("Less", n("Abs", d), n.like(a, tiny)), n.like(a, tiny), d)
        d = n("Divide", n.like(a, 1), d)
        c = n("Add", b, n("Divide", top, c))
        c = n("Select", n("Less", n("Abs", c), n.like(a, tiny)), n.like(a, tiny), c)
        change = n("Multiply", c, d)
        more = n("Greater", term, n("Multiply", total, n.like(a, PRECISE)))
        apart = n("Abs", n("Subtract", change, n.like(a, 1)))
        more = n("LogicalOr", more, n("Greater", apart, n.like(a, PRECISE)))
        return [term, total, b, c, d, n("Multiply", fraction, change), _any(n, more)]

    made = counted(n, MOST_TERMS, [first, first, b, c, d, d], step, [a, inner], ends=True)
    return [made[1], made[5]]


@aten("special_zeta")
def zeta(n: Call, x: Any, other: Any) -> Output:
    """Hurwitz's sum of (q + k)^-s"""
    s, q = n.same_kind([n.real(n.tensor(x)), n.real(n.tensor(other))])
    return n.convert(_hurwitz(n, *_alike(n, n.convert(s, "f64"), n.convert(q, "f64"))), n.dtype(s))


def _hurwitz(n: Call, s: Output, q: Output) -> Output:
    one, falling = n.like(s, 1), n("Negative", s)
    every = n.concat([n.reshape(q, [-1]), n.like(q, [0])], 0)  # of no elements, the least is 0
    smallest = n("ReduceMin", every, [0], keep_dims=False)
    missing = n("Minimum", n("Subtract", n.like(q, FAR + 1), n("Floor", smallest)), n.like(q, MOST_SHIFTS))

    def step(_: Output, state: list[Output], others: list[Output]) -> list[Output]:
        total, at, _last = state
        at = n("Add", at, n.like(at, 1))
        last = n("Power", at, others[0])
        return [n("Add", total, last), at, last]

    first = n("Power", q, falling)
    total, w, last = counted(n, n.convert(missing, "i64"), [first, q, first], step, [falling])
    whole = n("Divide", n("Multiply", last, w), n("Subtract", s, one))
    total = n("Add", total, n("Subtract", whole, n("Divide", last, n.like(s, 2))))
    rising, power, k = s, n("Divide", last, w), 0
    for number in MACLAURIN:
        total = n("Add", total, n("Divide", n("Multiply", rising, power), n.like(s, number)))
        for _ in range(2):
            k += 1
            rising = n("Multiply", rising, n("Add", s, n.like(s, k)))
            power = n("Divide", power, w)
    left = n("LessEqual", q, n.like(q, 0))
    pole = n("LogicalAnd", left, n("Equal", q, n("Floor", q)))
    unreal = n("LogicalAnd", left, n("NotEqual", s, n("Floor", s)))
    made = n("Select", unreal, n.like(s, math.nan), total)
    made = n("Select", n("LogicalOr", pole, n("Equal", s, one)), n.like(s, math.inf), made)
    return n("Select", n("Less", s, one), n.like(s, math.nan), made)


@aten("polygamma", "special_polygamma")
def polygamma(n: Call, order: Any, self: Output) -> Output:
    """Derivatives of digamma: (-1)^(n + 1) n! zeta(n + 1, x)"""
    count = n.known_int(order, "the order")
    if count == 0:
        return n.also("digamma", self)
    x = n.real(self)
    wide = n.convert(x, "f64")
    s = n.alike(wide, count + 1)
    factor = math.factorial(count) * (1 if count % 2 else -1)
    return n.convert(n("Multiply", _hurwitz(n, s, wide), n.like(wide, factor)), n.dtype(x))
