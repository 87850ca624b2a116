"""Numbers to floating-point types of 4 and 8 bits, to the bit as OpenVINO rounds them.

f4e2m1  to nearest even; beyond 6, infinite or NaN: 6 with the sign
f8e4m3  to f16 first, then to nearest even; beyond 464, infinite or NaN: NaN with the sign
f8e5m2  to f16 first, then to nearest even; of a NaN the upper byte, unchanged. (OpenVINO doubles numbers
        below 2^-14 that are rounded up to a power of two on their way to f16; ovjit does not.)
f8e8m0  the next power of two, ties to the even exponent; negative, negative NaN too: the smallest one;
        infinite: the largest
nf4     the nearest of 16 levels, see `ovjit.graph.nf4`
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.nf4 import to_nf4


def _f32(x: np.ndarray) -> np.ndarray:
    """x as f32. A NaN of f16 becomes quiet, as processors convert it."""
    wide = x.astype(np.float32)
    if x.dtype == np.float16:
        bits = wide.view(np.uint32)
        wide = np.where(np.isnan(wide), bits | 0x400000, bits).view(np.float32)
    return wide


def to_f4e2m1(x: np.ndarray) -> np.ndarray:
    wide = _f32(x)
    number = np.where(np.isnan(wide), np.where(np.signbit(wide), -6, 6), wide).astype(np.float32)
    return number.astype(numpy_dtype("f4e2m1"))


def to_f8e4m3(x: np.ndarray) -> np.ndarray:
    return _f32(x).astype(np.float16).astype(numpy_dtype("f8e4m3"))


def to_f8e5m2(x: np.ndarray) -> np.ndarray:
    half = _f32(x).astype(np.float16)
    kind = numpy_dtype("f8e5m2")
    upper = (half.view(np.uint16) >> 8).astype(np.uint8).view(kind)
    return np.where(np.isnan(half), upper, half.astype(kind))


def to_f8e8m0(x: np.ndarray) -> np.ndarray:
    wide = _f32(x)
    bits = wide.view(np.uint32)
    exponent, rest, half = (bits >> 23) & 0xFF, bits & 0x7FFFFF, 0x400000
    up = (rest > half) | ((rest == half) & (exponent & 1 == 1))
    code = np.minimum(exponent + up, 254)
    denormal = rest > 0x600000  # nearer to 2^-126, which is 1, than to 2^-127, which is 0
    code = np.where(exponent == 0, denormal, np.where(np.isnan(wide), 255, code))
    return np.where(np.signbit(wide), 0, code).astype(np.uint8).view(numpy_dtype("f8e8m0"))


#: element type -> its conversion from any array of numbers
SMALL_FLOATS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "f4e2m1": to_f4e2m1, "f8e4m3": to_f8e4m3, "f8e5m2": to_f8e5m2, "f8e8m0": to_f8e8m0,
    "nf4": to_nf4,
}  # fmt: skip
