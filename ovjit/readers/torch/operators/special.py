"""Special functions, and the greatest common divisor, which is a Loop in i64."""

from __future__ import annotations

from ovjit.readers.numerics.counted_loops import repeat_steps
from ovjit.readers.numerics.special import bessel_i, digamma, erfc, log1p, log_gamma, scaled_erfc
from ovjit.readers.torch.rule_language import *


def in_f64(n: Call, x: Output, function: Callable[..., Output], *arguments: Any) -> Output:
    """`function` computed in f64, converted to the type of x."""
    x = n.real(x)
    return n.convert(function(n, n.convert(x, "f64"), *arguments), n.dtype(x))


def _normal(n: Builder, x: Output) -> Output:
    """The normal distribution function: erfc(-x / sqrt(2)) / 2"""
    argument = n("Multiply", x, n.like(x, -math.sqrt(0.5)))
    return n("Multiply", erfc(n, argument), n.like(x, 0.5))


def _log_normal(n: Builder, x: Output) -> Output:
    """Its logarithm: log(erfcx(-x / sqrt(2)) / 2) - x^2 / 2 for very negative x, log(1 - P(> x))
    elsewhere."""
    is_low = n("Less", x, n.like(x, -1))
    low_x = n("Select", is_low, x, n.like(x, -1))
    argument = n("Multiply", low_x, n.like(x, -math.sqrt(0.5)))
    far = n("Log", n("Multiply", scaled_erfc(n, argument), n.like(x, 0.5)))
    far = n("Subtract", far, n("Multiply", argument, argument))
    near = log1p(n, n("Negative", _normal(n, n("Negative", x))))
    return n("Select", is_low, far, near)


aten_rows({
    "lgamma special_gammaln": lambda n, x: in_f64(n, x, log_gamma),
    "digamma special_digamma special_psi": lambda n, x: in_f64(n, x, digamma),
    "erfinv special_erfinv": lambda n, x: n("ErfInv", n.real(x)),
    "erfc special_erfc": lambda n, x: in_f64(n, x, erfc),
    "special_erfcx": lambda n, x: in_f64(n, x, scaled_erfc),
    "special_ndtr": lambda n, x: in_f64(n, x, _normal),
    "special_log_ndtr": lambda n, x: in_f64(n, x, _log_normal),
})  # fmt: skip


@aten("i0", "special_i0", "special_i0e", "special_i1", "special_i1e", "special_modified_bessel_i0",
      "special_modified_bessel_i1")  # fmt: skip
def bessel(n: Call, x: Output) -> Output:
    """I0 and I1; those with an e at the end are times exp(-|x|)."""
    name = n.op.removeprefix("aten::")
    return in_f64(n, x, bessel_i, int("1" in name), name.endswith("e"))


@aten("special_entr")
def entr(n: Call, x: Output) -> Output:
    """-x log(x), 0 at 0 and -inf below"""
    x = n.real(x)
    zero = n.like(x, 0)
    result = n("Negative", n("Multiply", x, n("Log", x)))
    result = n("Select", n("Equal", x, zero), zero, result)
    return n("Select", n("Less", x, zero), n.like(x, -math.inf), result)


#: Euclid's algorithm for integers of 64 bits takes fewer steps.
EUCLID = 100


def broadcast_both(n: Call, a: Output, b: Output) -> list[Output]:
    """Both tensors, broadcast to their common shape."""
    return [n.expand(a, n.shape_of(b)), n.expand(b, n.shape_of(a))]


@aten("gcd", "lcm")
def gcd(n: Call, x: Any, other: Any) -> Output:
    """The greatest common divisor by Euclid's algorithm: (a, b) -> (b, a mod b), until all b are 0"""
    operands = n.same_kind([x, other])
    kind = n.dtype(operands[0])
    a, b = broadcast_both(n, *(n.convert(v, "i64") for v in operands))

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
