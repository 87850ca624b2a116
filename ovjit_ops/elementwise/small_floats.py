"""Conversions to floats of 4 and 8 bits, with the same bits as OpenVINO.

f4e2m1  to nearest even; above 6, infinity and NaN: 6 with the sign
f8e4m3  through f16, to nearest even; above 464, infinity and NaN: NaN with the sign
f8e5m2  through f16, to nearest even; NaN: the upper byte of the f16. (OpenVINO doubles numbers below
        2^-14 that f16 rounds up to a power of two; ovjit does not.)
f8e8m0  the nearest power of two, ties to the even exponent; numbers and NaN with a negative sign: the
        smallest power; infinity: the largest
codes   (nf4) the nearest of 16 levels, see `ovjit.graph.levels`
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ovjit.graph.dtypes import ELEMENT_TYPES, numpy_dtype


def _f32(x: np.ndarray) -> np.ndarray:
    """x as f32. NaN of f16 become quiet, as in the CPU's conversion."""
    floats = x.astype(np.float32)
    if x.dtype == np.float16:
        bits = floats.view(np.uint32)
        floats = np.where(np.isnan(floats), bits | 0x400000, bits).view(np.float32)
    return floats


def to_f4e2m1(x: np.ndarray) -> np.ndarray:
    floats = _f32(x)
    number = np.where(np.isnan(floats), np.where(np.signbit(floats), -6, 6), floats).astype(np.float32)
    return number.astype(numpy_dtype("f4e2m1"))


def to_f8e4m3(x: np.ndarray) -> np.ndarray:
    return _f32(x).astype(np.float16).astype(numpy_dtype("f8e4m3"))


def to_f8e5m2(x: np.ndarray) -> np.ndarray:
    half = _f32(x).astype(np.float16)
    kind = numpy_dtype("f8e5m2")
    upper = (half.view(np.uint16) >> 8).astype(np.uint8).view(kind)
    return np.where(np.isnan(half), upper, half.astype(kind))


def to_f8e8m0(x: np.ndarray) -> np.ndarray:
    floats = _f32(x)
    bits = floats.view(np.uint32)
    exponent, fraction, half = (bits >> 23) & 0xFF, bits & 0x7FFFFF, 0x400000
    up = (fraction > half) | ((fraction == half) & (exponent & 1 == 1))
    code = np.minimum(exponent + up, 254)
    denormal = fraction > 0x600000  # nearer to 2^-126 (code 1) than to 2^-127 (code 0)
    code = np.where(exponent == 0, denormal, np.where(np.isnan(floats), 255, code))
    return np.where(np.signbit(floats), 0, code).astype(np.uint8).view(numpy_dtype("f8e8m0"))


#: element type -> its conversion from any array of numbers
SMALL_FLOATS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "f4e2m1": to_f4e2m1, "f8e4m3": to_f8e4m3, "f8e5m2": to_f8e5m2, "f8e8m0": to_f8e8m0,
    **{row.name: row.encode for row in ELEMENT_TYPES.values() if row.is_coded},
}  # fmt: skip
