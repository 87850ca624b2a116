"""Element types: one row each, under OpenVINO's names.

Everywhere inside ovjit an element type is its name ("f32", "i64", "boolean" ...);
`ovjit.Type` is the public face of the same rows.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from ovjit.graph.levels import F4E2M1_LEVELS, NF4_LAST, NF4_LEVELS

#: Floating-point types in which kernels compute.
FULL = ("f32", "f64")
#: Floating-point storage types, which kernels compute in f32.
HALVES = frozenset(("f16", "bf16"))
#: The types that vector kernels compute in.
FLOATS = (*FULL, "f16", "bf16")


class ElementType:
    """One element type, and all that is known of values stored in it.

    `bits`: its size in memory. `kind`: f float, i signed, u unsigned, b boolean, s string, ? unknown. `cpp`:
    its name in OpenVINO's C++. `levels`: the values of 4-bit codes, f32[16]. `last`: the largest number that
    gets each code but the last, f32[15]; then NumPy has no such type, and arrays have one code in each byte.
    `weights`: weights may be stored in it, see `ovjit.graph.stored_floats`.
    """

    __slots__ = ("_numpy", "bits", "cpp", "kind", "last", "levels", "name", "weights")

    def __init__(
        self, name: str, bits: int, numpy: Any, kind: str, cpp: str = "", levels: np.ndarray | None = None,
        last: np.ndarray | None = None, weights: bool = False,
    ):  # fmt: skip
        """`numpy`: a NumPy type, the name of one of ml_dtypes' types, or None."""
        self.name, self.bits, self.kind, self.cpp = name, bits, kind, cpp or name
        self.levels, self.last, self.weights = levels, last, weights
        if last is not None:
            numpy = [(name, np.uint8)]  # distinguishes arrays of codes from those of u8
        self._numpy = numpy if numpy is None or isinstance(numpy, str) else np.dtype(numpy)

    @property
    def numpy(self) -> np.dtype | None:
        """The NumPy dtype of its values; None if NumPy has none."""
        dtype = self._numpy
        if isinstance(dtype, str):  # imported late: most programs do not need ml_dtypes
            import ml_dtypes

            dtype = self._numpy = np.dtype(getattr(ml_dtypes, dtype))
        return dtype

    @property
    def is_real(self) -> bool:
        return self.kind == "f"

    @property
    def is_integral(self) -> bool:
        return self.kind in "iub"

    @property
    def is_packed(self) -> bool:
        """True when several elements share a byte."""
        return self.bits < 8 and self.kind in "iuf"

    @property
    def is_small(self) -> bool:
        """True for numbers of at most 8 bits."""
        return self.bits <= 8 and self.kind in "iuf"

    @property
    def is_coded(self) -> bool:
        """True when arrays have codes, which stand for the levels."""
        return self.last is not None

    def encode(self, x: np.ndarray) -> np.ndarray:
        """The code of the nearest level of each number. NaN gets the first code."""
        assert self.last is not None and self.levels is not None
        real = np.asarray(x).astype(np.float32)
        codes = np.searchsorted(self.last, np.where(np.isnan(real), self.levels[0], real), side="left")
        return codes.astype(np.uint8).reshape(real.shape).view(self._numpy)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The levels as f32."""
        assert self.levels is not None
        return self.levels[np.ascontiguousarray(codes).view(np.uint8).reshape(codes.shape) & 15]


#: name -> ElementType, in OpenVINO's order.
ELEMENT_TYPES: dict[str, ElementType] = {
    row.name: row
    for row in (
        ElementType("dynamic", 0, None, "?"),
        ElementType("boolean", 8, np.bool_, "b", "char"),
        ElementType("bf16", 16, "bfloat16", "f", "bfloat16"),
        ElementType("f16", 16, np.float16, "f", "float16", weights=True),
        ElementType("f32", 32, np.float32, "f", "float"),
        ElementType("f64", 64, np.float64, "f", "double"),
        ElementType("i4", 4, "int4", "i", "int4_t"),
        ElementType("i8", 8, np.int8, "i", "int8_t"),
        ElementType("i16", 16, np.int16, "i", "int16_t"),
        ElementType("i32", 32, np.int32, "i", "int32_t"),
        ElementType("i64", 64, np.int64, "i", "int64_t"),
        ElementType("u1", 1, None, "u", "uint1_t"),
        ElementType("u2", 2, "uint2", "u", "uint2_t"),
        ElementType("u3", 3, None, "u", "uint3_t"),
        ElementType("u4", 4, "uint4", "u", "uint4_t"),
        ElementType("u6", 6, None, "u", "uint6_t"),
        ElementType("u8", 8, np.uint8, "u", "uint8_t"),
        ElementType("u16", 16, np.uint16, "u", "uint16_t"),
        ElementType("u32", 32, np.uint32, "u", "uint32_t"),
        ElementType("u64", 64, np.uint64, "u", "uint64_t"),
        ElementType("nf4", 4, None, "f", "nfloat4", NF4_LEVELS, NF4_LAST, weights=True),
        ElementType("f8e4m3", 8, "float8_e4m3fn", "f", weights=True),
        ElementType("f8e5m2", 8, "float8_e5m2", "f", weights=True),
        ElementType("string", 0, np.object_, "s"),
        ElementType("f4e2m1", 4, "float4_e2m1fn", "f", levels=F4E2M1_LEVELS, weights=True),
        ElementType("f8e8m0", 8, "float8_e8m0fnu", "f"),
    )
}

#: Floating-point types in which no kernel computes: operations that do not accept them get f32.
SMALL = frozenset(row.name for row in ELEMENT_TYPES.values() if row.kind == "f" and row.is_small)

_BY_NUMPY = {
    row._numpy: row.name for row in ELEMENT_TYPES.values() if not isinstance(row._numpy, (str, type(None)))
}
#: dtype of codes -> their element type.
_CODED = {row._numpy: row for row in ELEMENT_TYPES.values() if row.is_coded}
#: Element types of which f16 rounds some levels.
ROUNDED = tuple(
    row.name for row in ELEMENT_TYPES.values()
    if row.levels is not None and (row.levels.astype(np.float16) != row.levels).any()
)  # fmt: skip
#: Element types without a NumPy dtype.
WITHOUT_DTYPE = frozenset(row.name for row in ELEMENT_TYPES.values() if row._numpy is None) - {"dynamic"}


def numpy_dtype(name: str) -> np.dtype:
    """The NumPy dtype that holds values of element type `name`.

    Raises TypeError when there is none (u1, u3, u6, dynamic).
    """
    dtype = ELEMENT_TYPES[name].numpy
    if dtype is None:
        raise TypeError(f"element type {name} has no NumPy dtype")
    return dtype


def from_numpy(dtype: np.dtype | type) -> str:
    """The element type's name for a NumPy dtype; strings of any kind are "string".

    Raises TypeError for a dtype that no element type stands for.
    """
    dtype = np.dtype(dtype)
    if dtype.kind in "USO":
        return "string"
    native = dtype.newbyteorder("=")
    name = _BY_NUMPY.get(native)
    if name is None and "ml_dtypes" in sys.modules:  # otherwise none of its dtypes can exist
        name = _of_ml_dtypes().get(native)
    if name is None:
        raise TypeError(f"Unsupported data type: {dtype}")
    return name


@functools.cache
def _of_ml_dtypes() -> dict[np.dtype | None, str]:
    """dtype -> name, for the types of ml_dtypes, which `_BY_NUMPY` does not have."""
    return {row.numpy: row.name for row in ELEMENT_TYPES.values() if row.numpy not in _BY_NUMPY}


def cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`array.astype(dtype)`, also from and to types of codes. Overflows are not errors."""
    row = _CODED.get(dtype)
    if row is not None:
        return array if array.dtype == dtype else row.encode(array)
    with np.errstate(all="ignore"):
        return decode(array).astype(dtype)


def decode(array: np.ndarray) -> np.ndarray:
    """The values of an array of codes, in f32; other arrays as they are."""
    row = _CODED.get(array.dtype)
    return array if row is None else row.decode(array)


#: Elements per block of a scan, so that a block stays in the second-level cache.
_LOOKED_AT = 1 << 16
#: Types whose subnormal numbers CPUs multiply in microcode -> bits of the fraction.
_FRACTIONS = {"f32": 23, "bf16": 7}


def unpack_low_first(data: np.ndarray, bits: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Unpack elements of 2 or 4 bits from bytes, first element in the lowest bits. Returns an array of
    `shape` and the ml_dtypes `dtype`."""
    shifts = np.arange(8 // bits, dtype=np.uint8) * np.uint8(bits)
    raw = data.reshape(-1, 1) >> shifts
    raw &= (1 << bits) - 1  # in place: tables may be large
    if dtype.name.startswith("int"):  # sign-extended, as ml_dtypes keeps it
        raw ^= 1 << (bits - 1)
        raw -= 1 << (bits - 1)
    return raw.reshape(-1)[: math.prod(shape)].view(dtype).reshape(shape)


def truncate_to(x: np.ndarray, to: np.dtype | type) -> np.ndarray:
    """Reals truncated to a signed integer type; its minimum for NaN and for values that do not fit."""
    info, integral = np.iinfo(to), np.trunc(x)
    fits = (integral >= float(info.min)) & (integral < -float(info.min))
    return np.where(fits, np.where(fits, integral, 0).astype(to), info.min).astype(to)


def flush_subnormals(array: np.ndarray) -> bool:
    """Replace subnormal numbers of a row-major f32 or bf16 array by zeros of the same sign, in place. Returns
    whether there were any. Arrays of other types are unchanged."""
    changed = False
    for part, tiny, sign in subnormals_in(array):
        np.copyto(part, part & sign, where=tiny)
        changed = True
    return changed


def subnormals_in(array: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
    """Yield the parts of a row-major f32 or bf16 array with subnormal numbers, as unsigned integers: (part,
    where they are, bit of the sign)."""
    assert array.flags.c_contiguous
    bits = _FRACTIONS.get(from_numpy(array.dtype))
    if bits is None:
        return
    size = array.itemsize
    numbers = array.reshape(-1).view(f"u{size}")
    normal, sign = numbers.dtype.type(1 << bits), numbers.dtype.type(1 << 8 * size - 1)
    least = (1 << bits) - (1 << 8 * size - 1)  # the smallest negative normal number's bits as an integer
    for first in range(0, numbers.size, _LOOKED_AT):
        part = numbers[first : first + _LOOKED_AT]
        if part.min() >= normal and part.view(f"i{size}").min() >= least:
            continue  # neither subnormal numbers nor zeros
        tiny = (part & ~sign) - 1 < normal - 1  # unsigned: 0 - 1 wraps to the maximum
        if tiny.any():
            yield part, tiny, sign


def all_finite(array: Any) -> bool:
    """Whether a constant has no infinity and no NaN. A sum takes a tenth of the time of comparisons."""
    if not isinstance(array, np.ndarray) or array.dtype.kind in "biu":
        return True  # integers, some of few bits
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(np.isfinite(array.sum(dtype=np.float32)) or np.isfinite(array).all())


def real_for(kind: str) -> str:
    """The element type in which functions of reals compute integers of this type."""
    return "f32" if kind in ("i8", "u8") else "f64"


def intermediate_integer(kind: str) -> str:
    """The intermediate integer type of a conversion from reals to integers of this type."""
    return "i64" if kind in ("u32", "i64", "u64") else "i32"


def round_to_integer(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Reals as integers, rounded half to even. Up to 8 bits saturate, wider ones wrap as in Convert."""
    row = ELEMENT_TYPES[from_numpy(dtype)]
    array = cast(np.rint(array), numpy_dtype(intermediate_integer(row.name)))
    if row.bits <= 8:
        limit = 1 << (row.bits - (row.kind == "i"))
        array = np.clip(array, -limit if row.kind == "i" else 0, limit - 1)
    return array.astype(dtype)
