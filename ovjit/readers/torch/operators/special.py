"""Special functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ovjit.build import Output
from ovjit.build.builder import Builder
from ovjit.readers.numerics.special import bessel_i, digamma, erfc, log1p, log_gamma, scaled_erfc
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.registry import aten, aten_rows


def in_f64(n: Call, x: Output, function: Callable[..., Output], *arguments: Any) -> Output:
    """A function that is computed in f64, in the type of the tensor."""
    x = n.real(x)
    return n.convert(function(n, n.convert(x, "f64"), *arguments), n.dtype(x))


def _normal(n: Builder, x: Output) -> Output:
    """The share of a normal distribution below x: erfc(-x / sqrt(2)) / 2"""
    argument = n("Multiply", x, n.like(x, -math.sqrt(0.5)))
    return n("Multiply", erfc(n, argument), n.like(x, 0.5))


def _log_normal(n: Builder, x: Output) -> Output:
    """Its logarithm: log(erfcx(-x / sqrt(2)) / 2) - x^2 / 2 far below 0, log(1 - share above x) elsewhere."""
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
