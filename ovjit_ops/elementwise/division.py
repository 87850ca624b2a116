"""Quotients of arrays, and the scalar bodies of Divide, Mod and FloorMod.

All of the bodies are exact: integers of 32 bits in f32 by two quotients, the second of the first one's
remainder; those of 8 and 16 bits by one quotient in f32; remainders of floats by a fused product.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen import trace as t

_SHORT = ("i8", "u8", "i16", "u16")
#: Maximum quotient of floats without the C library: larger ones are rounded to integers of more than one.
FMOD_QUOTIENT = {"f32": 2.0**23, "f64": 2.0**52}


def floor_divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Integer division rounding down; 0 where y is 0. NumPy itself wraps the smallest integer / -1."""
    return np.where(y == 0, 0, x // np.where(y == 0, 1, y)).astype(x.dtype)


def divide(x: np.ndarray, y: np.ndarray, *, m_pythondiv: bool = True) -> np.ndarray:
    """x / y. For integers: rounded down, or towards zero without `m_pythondiv`; 0 if y is 0."""
    if x.dtype.kind == "f":
        return np.divide(x, y)
    q = floor_divide(x, y)
    if m_pythondiv:
        return q
    # towards zero: one more where the quotient was negative and not exact
    inexact = (q * y != x) & (y != 0) & ((x < 0) != (y < 0))
    return np.where(inexact, q + 1, q).astype(x.dtype)


def divide_body(x: Any, y: Any, *, m_pythondiv: bool = True) -> Any:
    """x / y; for integers rounded down, or towards zero without `m_pythondiv`; 0 if y is 0."""
    if t.is_float(x):
        return x / y
    if not (isinstance(x, t.Tracer) or isinstance(y, t.Tracer)):
        return divide(np.asarray(x), np.asarray(y), m_pythondiv=m_pythondiv)
    x, y = _as_tracers(x, y)
    if x.dtype in _SHORT:
        divisor = t.cast(y, "f32")
        quotient = t.cast(x, "f32") / divisor
        return _narrow(t.floor(quotient) if m_pythondiv else quotient, divisor, x.dtype)
    if x.dtype != "i32":
        return x // y if m_pythondiv or x.dtype[0] == "u" else x / y
    quotient, remainder = _nearest_quotient(x, y)
    if m_pythondiv:
        inexact = (remainder != 0) & ((remainder ^ y) < 0)
        return t.where(y == 0, 0, t.where(inexact, quotient - 1, quotient))
    beyond = (remainder != 0) & ((remainder ^ x) < 0)
    return t.where(y == 0, 0, t.where(beyond, quotient - t.where((x ^ y) < 0, -1 + 0 * x, 1), quotient))


def mod_body(x: Any, y: Any) -> Any:
    """The remainder with the sign of x; for integers 0 if y is 0."""
    if not (isinstance(x, t.Tracer) or isinstance(y, t.Tracer)):
        return np.fmod(x, y)
    x, y = _as_tracers(x, y)
    if t.is_float(x):
        return _with_sign(_remainder_size(t.absolute(x), t.absolute(y)), x)
    if x.dtype in _SHORT:
        return _short_remainder(t.trunc, x, y)
    if x.dtype != "i32":
        return t.where(y == 0, 0, x - x / y * y)
    _, remainder = _nearest_quotient(x, y)
    beyond = (remainder != 0) & ((remainder ^ x) < 0)
    return t.where(y == 0, 0, t.where(beyond, remainder + t.where((x ^ y) < 0, -y, y), remainder))


def floor_mod_body(x: Any, y: Any) -> Any:
    """The remainder with the sign of y; for integers 0 if y is 0."""
    if not (isinstance(x, t.Tracer) or isinstance(y, t.Tracer)):
        return np.mod(x, y)
    x, y = _as_tracers(x, y)
    if t.is_float(x):
        divisor = t.absolute(y)
        size = _remainder_size(t.absolute(x), divisor)
        integer = "i32" if x.dtype == "f32" else "i64"
        differ = (t.bits(x, integer) ^ t.bits(y, integer)) < 0
        return _with_sign(t.where(differ & (size != 0), divisor - size, size), y)
    if x.dtype in _SHORT:
        return _short_remainder(t.floor, x, y)
    if x.dtype != "i32":
        remainder = x - x / y * y
        if x.dtype[0] == "i":
            remainder = t.where((remainder != 0) & ((remainder ^ y) < 0), remainder + y, remainder)
    else:
        _, remainder = _nearest_quotient(x, y)
        remainder = t.where((remainder != 0) & ((remainder ^ y) < 0), remainder + y, remainder)
    return t.where(y == 0, 0, remainder)


def _as_tracers(x: Any, y: Any) -> tuple[t.Tracer, t.Tracer]:
    like = x if isinstance(x, t.Tracer) else y
    first, second = (v if isinstance(v, t.Tracer) else t.constant(like, v) for v in (x, y))
    return first, second


def _short_remainder(rounding: Any, x: t.Tracer, y: t.Tracer) -> Any:
    """x - y * rounding(x / y) for integers of 16 bits or fewer. Quotients that are not whole differ from
    integers by 2**-16 (relative) or more, which f32 resolves, and products with the divisor fit it."""
    fx, fy = t.cast(x, "f32"), t.cast(y, "f32")
    return _narrow(fx - rounding(fx / fy) * fy, fy, x.dtype)


def _narrow(result: t.Tracer, divisor: t.Tracer, to: str) -> t.Tracer:
    """The result as an integer of type `to`; 0 if the divisor is 0. Quotients by -1 wrap."""
    result = t.where(divisor == 0, 0.0, result)
    return t.to_int(result, to) if to[0] == "u" else t.cast(t.to_int(result, "i32"), to)


def _nearest_quotient(x: t.Tracer, y: t.Tracer) -> tuple[t.Tracer, t.Tracer]:
    """(q, r) with x = q y + r for i32, which wrap, and |r| <= 0.51 |y|. Undefined for y = 0.

    f32 has x / y within 2**-21 (relative). The first remainder is at most |y| + 2**10, and its quotient is
    within 2**-10 of the exact one. INT_MIN / -1 is INT_MIN, as `trunc_or_min` gives that for 2**31.
    """
    fx, fy = t.cast(x, "f32"), t.cast(y, "f32")
    if isinstance(y.name, tuple):
        inverse = t.constant(fx, 1 / y.name[1] if y.name[1] else 0.0)
    else:
        start = t.rcp(fy)
        inverse = start + start * (1 - fy * start)
    first = t.trunc_or_min(fx * inverse, "i32")
    remainder = x - first * y
    second = t.trunc_or_min(t.round_even(t.cast(remainder, "f32") * inverse), "i32")
    return first + second, remainder - second * y


def _remainder_size(size: t.Tracer, divisor: t.Tracer) -> t.Tracer:
    """The exact remainder of floats that are not negative. A rounded quotient may be one too large, never too
    small."""
    quotient = t.trunc(size / divisor)
    remainder = t.exact_fma(-quotient, divisor, size)
    remainder = t.where(remainder < 0, remainder + divisor, remainder)
    remainder = t.where(size < divisor, size, remainder)  # 0 times an infinite divisor is NaN
    is_large = quotient > FMOD_QUOTIENT[size.dtype]  # false for 0 by 0, which unused lanes have
    return t.seldom("fmod", is_large, size, divisor, remainder)


def _with_sign(size: t.Tracer, like: t.Tracer) -> t.Tracer:
    """`size`, which has no sign, with that of `like`."""
    integer, sign = {"f32": ("i32", -(1 << 31)), "f64": ("i64", -(1 << 63))}[size.dtype]
    return t.bits(t.bits(size, integer) | (t.bits(like, integer) & sign), size.dtype)
