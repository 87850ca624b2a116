"""Tensors in llama.cpp's blocks -> codes with a scale and perhaps a zero for each group.

    w = (code - zero) * scale          or, with levels,          w = level[code] * scale

Codes of 2, 3, 5 and 6 bits stay in the file's memory until they are packed for products. Types of one scale
in a block of 32 have it as f16. The super-blocks of 256 have scales of groups of 16 or 32 as integers of 4 to
8 bits times an f16. A type with minima has `code * scale + minimum`: its zeros are worked out on demand, and
products take the minima as they are. No weight is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ovjit.errors import UnsupportedError
from ovjit.graph.converted import Codes, Factors, InBlocks, Unmade
from ovjit.records import NamedTuple

Read = Callable[[np.ndarray], np.ndarray]


class Form(NamedTuple):
    """How a type is read: bytes and elements of a block, elements of a group, bits of a code, the common zero
    (None: there is none), the functions that read codes, scales and minima of blocks, and the levels of
    codes. Codes of 8 bits are signed, and have no zero."""

    size: int
    block: int
    group: int
    bits: int
    zero: int | None
    codes: Read
    scale: Callable[[np.ndarray], Factors]
    low: Callable[[np.ndarray], Factors] | None = None
    levels: tuple[int, ...] = ()


class Groups(NamedTuple):
    """A tensor: codes [rows, groups, elements of a group] of the type `dtype`; scale [rows, groups, 1] and
    zero likewise, or one number, or None; levels of a codebook."""

    codes: np.ndarray | Unmade
    dtype: str
    scale: np.ndarray | Unmade
    zero: np.ndarray | Unmade | None
    levels: np.ndarray | None


def _half(blocks: np.ndarray, at: int) -> np.ndarray:
    """The f16 at a byte of each block, [blocks, 1]"""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)


def _one(at: int) -> Callable[[np.ndarray], Factors]:
    """One f16 for a block."""
    return lambda blocks: Factors(_half(blocks, at), None)


def _nibbles(blocks: np.ndarray, run: int) -> np.ndarray:
    """The low 4 bits of each `run` of bytes, then the high ones."""
    runs = blocks.reshape(len(blocks), -1, 1, run)
    return np.concatenate([runs & 15, runs >> 4], 2).reshape(len(blocks), -1)


def _bits(blocks: np.ndarray, width: int, run: int) -> np.ndarray:
    """Of each `run` of bytes the lowest `width` bits of all, then the next ones."""
    shifts = np.arange(0, 8, width).astype(np.uint8)[:, None]
    runs = blocks.reshape(len(blocks), -1, 1, run) >> shifts
    return (runs & np.uint8((1 << width) - 1)).reshape(len(blocks), -1)


def _fifth(blocks: np.ndarray) -> np.ndarray:
    """Codes of 5 bits: 4 bytes of the highest bits, then the others."""
    high = np.unpackbits(np.ascontiguousarray(blocks[:, :4]), axis=1, bitorder="little")
    return _nibbles(blocks[:, 4:], 16) | high << 4


def _q3_k(blocks: np.ndarray) -> np.ndarray:
    return _bits(blocks[:, 32:96], 2, 32) | _bits(blocks[:, :32], 1, 32) << 2


def _q3_k_scale(blocks: np.ndarray) -> Factors:
    factors = blocks[:, 96:108]
    whole = _nibbles(factors[:, :8], 8) | _bits(factors[:, 8:], 2, 4) << 4
    return Factors(_half(blocks, 108), whole.astype(np.int8) - np.int8(32))


def _six_bits(blocks: np.ndarray) -> np.ndarray:
    """The eight scales of 6 bits of Q4_K and Q5_K."""
    first, rest = blocks[:, 4:8], blocks[:, 12:16]
    return np.concatenate([first & 63, rest & 15 | first >> 2 & 48], 1)


def _six_bits_low(blocks: np.ndarray) -> Factors:
    """Their eight minima, which are subtracted."""
    second, rest = blocks[:, 8:12], blocks[:, 12:16]
    return Factors(-_half(blocks, 2), np.concatenate([second & 63, rest >> 4 | second >> 2 & 48], 1))


def _six_bits_scale(blocks: np.ndarray) -> Factors:
    return Factors(_half(blocks, 0), _six_bits(blocks))


def _q5_k(blocks: np.ndarray) -> np.ndarray:
    return _nibbles(blocks[:, 48:], 32) | _bits(blocks[:, 16:48], 1, 32) << 4


def _q6_k(blocks: np.ndarray) -> np.ndarray:
    return _nibbles(blocks[:, :128], 64) | _bits(blocks[:, 128:192], 2, 32) << 4


def _q6_k_scale(blocks: np.ndarray) -> Factors:
    return Factors(_half(blocks, 208), np.ascontiguousarray(blocks[:, 192:208]).view(np.int8))


_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

FORMS = {
    "Q8_0": Form(34, 32, 32, 8, None, lambda b: b[:, 2:].view(np.int8), _one(0)),
    "Q4_0": Form(18, 32, 32, 4, 8, lambda b: _nibbles(b[:, 2:], 16), _one(0)),
    "Q4_1": Form(20, 32, 32, 4, None, lambda b: _nibbles(b[:, 4:], 16), _one(0), _one(2)),
    "Q5_0": Form(22, 32, 32, 5, 16, lambda b: _fifth(b[:, 2:]), _one(0)),
    "Q5_1": Form(24, 32, 32, 5, None, lambda b: _fifth(b[:, 4:]), _one(0), _one(2)),
    "Q2_K": Form(
        84, 256, 16, 2, None, lambda b: _bits(b[:, 16:80], 2, 32),
        lambda b: Factors(_half(b, 80), b[:, :16] & 15), lambda b: Factors(-_half(b, 82), b[:, :16] >> 4),
    ),
    "Q3_K": Form(110, 256, 16, 3, 4, _q3_k, _q3_k_scale),
    "Q4_K": Form(
        144, 256, 32, 4, None, lambda b: _nibbles(b[:, 16:], 32), _six_bits_scale, _six_bits_low
    ),
    "Q5_K": Form(176, 256, 32, 5, None, _q5_k, _six_bits_scale, _six_bits_low),
    "Q6_K": Form(210, 256, 16, 6, 32, _q6_k, _q6_k_scale),
    "IQ4_NL": Form(18, 32, 32, 4, None, lambda b: _nibbles(b[:, 2:], 16), _one(0), levels=_NL),
}  # fmt: skip
#: Types whose numbers lie in the file as they are.
REALS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


def form_of(kind: str) -> Form:
    """How blocks of this type are read. UnsupportedError, which names the type, for one that is not read."""
    form = FORMS.get(kind)
    if form is None:
        raise UnsupportedError(
            f"tensors of type {kind} are not supported; supported types: {', '.join([*REALS, *FORMS])}"
        )
    return form


def _real(factors: Factors) -> np.ndarray:
    """What factors stand for, [blocks, groups]: exact in f32."""
    outer = factors.outer.astype(np.float32)
    return outer if factors.inner is None else outer * factors.inner.astype(np.float32)


class _BlockReader:
    """Reads rows [n, bytes] of a type. Where a group has a minimum and the scale 0, its codes are 0 and its
    visible scale is 1, so that a zero can stand for the minimum."""

    def __init__(self, form: Form):
        self.form = form

    def _of_blocks(self, rows: np.ndarray, read: Callable[[np.ndarray], Factors]) -> Factors:
        found = read(np.ascontiguousarray(rows).reshape(-1, self.form.size))
        return Factors(*(None if v is None else v.reshape(len(rows), -1) for v in found))  # type: ignore[arg-type]

    def scale_factors(self, rows: np.ndarray) -> Factors:
        return self._of_blocks(rows, self.form.scale)

    def low_factors(self, rows: np.ndarray) -> Factors:
        assert self.form.low is not None
        return self._of_blocks(rows, self.form.low)

    def _reals(self, rows: np.ndarray, read: Callable[[np.ndarray], Factors]) -> np.ndarray:
        return _real(read(np.ascontiguousarray(rows).reshape(-1, self.form.size))).reshape(len(rows), -1)

    def scale(self, rows: np.ndarray) -> np.ndarray:
        scale = self._reals(rows, self.form.scale)
        return np.where(scale == 0, np.float32(1), scale) if self.form.low else scale

    def zero(self, rows: np.ndarray) -> np.ndarray:
        assert self.form.low is not None
        low = self._reals(rows, self.form.low).astype(np.float64)
        return (-low / self.scale(rows)).astype(np.float32)

    def codes(self, rows: np.ndarray) -> np.ndarray:
        blocks = np.ascontiguousarray(rows).reshape(-1, self.form.size)
        codes = self.form.codes(blocks).reshape(len(rows), -1)
        if self.form.low is None:
            return codes
        flat = self._reals(rows, self.form.scale) == 0
        if flat.any():
            codes = np.where(np.repeat(flat, self.form.group, 1), np.uint8(0), codes)
        return codes


def groups_of(kind: str, data: np.ndarray, shape: tuple[int, ...], order: np.ndarray | None) -> Groups:
    """A tensor of the type `kind`, rows along all axes but the last; `order`: that of its rows.

    UnsupportedError, which names the type, for one that is not read.
    """
    form = form_of(kind)
    rows, depth = math.prod(shape[:-1]), shape[-1]
    lead = (*shape[:-1], depth // form.group)
    source, read = data.reshape(rows, -1), _BlockReader(form)
    kind_of_codes = np.dtype(np.int8 if form.bits == 8 else np.uint8)
    blocks = InBlocks(source, (*lead, form.group), kind_of_codes, read.codes, order, form.bits)
    codes: np.ndarray | Unmade = blocks
    dtype = "u8"
    if form.bits == 8:  # what lies in memory of its own is woven by native code
        codes, dtype = Codes(np.asarray(blocks).reshape(-1), blocks.shape, "i8"), "i8"
    elif form.bits == 4:
        codes, dtype = Codes(_by_twos(blocks, rows, depth), blocks.shape, "u4"), "u4"
    each = (*lead, 1)
    scale = InBlocks(source, each, np.dtype(np.float32), read.scale, order, 0, read.scale_factors)
    zero: np.ndarray | Unmade | None = None
    if form.low is not None:
        zero = InBlocks(source, each, np.dtype(np.float32), read.zero, order, 0, read.low_factors)
    elif form.zero is not None:
        zero = np.full((1,) * len(each), form.zero, np.float32)
    plain = form.block == form.group and form.low is None
    levels = np.array(form.levels, np.float32) if form.levels else None
    return Groups(codes, dtype, np.asarray(scale).astype(np.float16) if plain else scale, zero, levels)


def _by_twos(codes: InBlocks, rows: int, depth: int) -> np.ndarray:
    """Two codes of 4 bits in a byte."""
    result = np.empty((rows, depth // 2), np.uint8)
    some = max(1, (1 << 20) // depth)
    for first in range(0, rows, some):
        part = codes.rows(first, min(first + some, rows))
        result[first : first + some] = part[:, 0::2] | part[:, 1::2] << 4
    return result.reshape(-1)
