"""Special functions."""

from __future__ import annotations

import math

from ovjit.api.model.node import Output
from ovjit.readers.special import bessel_i, digamma, erf_inverse, log_gamma
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.registry import aten


def _wide(n: Call, x: Output) -> tuple[Output, str]:
    """A tensor in f64, and the type that its result has."""
    x = n.real(x)
    return n.convert(x, "f64"), n.dtype(x)


@aten("lgamma", "special_gammaln")
def lgamma_(n: Call, x: Output) -> Output:
    wide, kind = _wide(n, x)
    return n.convert(log_gamma(n, wide), kind)


@aten("digamma", "special_digamma", "special_psi")
def digamma_(n: Call, x: Output) -> Output:
    wide, kind = _wide(n, x)
    return n.convert(digamma(n, wide), kind)


@aten("erfinv", "special_erfinv")
def erfinv(n: Call, x: Output) -> Output:
    wide, kind = _wide(n, x)
    return n.convert(erf_inverse(n, wide), kind)


@aten("i0", "special_i0", "special_i0e", "special_i1", "special_i1e", "special_modified_bessel_i0",
      "special_modified_bessel_i1")  # fmt: skip
def bessel(n: Call, x: Output) -> Output:
    """I0 and I1; those with an e at the end are times exp(-|x|)."""
    wide, kind = _wide(n, x)
    name = n.op.removeprefix("aten::")
    return n.convert(bessel_i(n, wide, int("1" in name), name.endswith("e")), kind)


@aten("special_entr")
def entr(n: Call, x: Output) -> Output:
    """-x log(x), 0 at 0 and -inf below"""
    x = n.real(x)
    zero = n.like(x, 0)
    made = n("Negative", n("Multiply", x, n("Log", x)))
    made = n("Select", n("Equal", x, zero), zero, made)
    return n("Select", n("Less", x, zero), n.like(x, -math.inf), made)
