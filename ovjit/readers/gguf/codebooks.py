"""Types of llama.cpp whose weights are levels of a table times a scale: small tables, grids with signs.

    w = level[code] * scale

A code takes 4 bits, and two are in a byte, the first in the low bits. A grid is a table of rows of 4 or 8
magnitudes; a file has the index of a row, and the signs. Bit 3 of a code is the sign, or that of the shift of
IQ1_S and IQ1_M. Powers of two of a type's formula are in its levels, so that factors of scales are exact.
The grids are those of the package `gguf`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ovjit.graph.converted import Factors

#: Levels of IQ4_NL and IQ4_XS.
NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
#: Type -> the power of two that its formula has beside the integer factors.
_FRACTION = {"IQ2_XXS": 0.125, "IQ2_XS": 0.125, "IQ2_S": 0.125, "IQ3_XXS": 0.25, "IQ3_S": 1.0}
#: The shift of IQ1_S and IQ1_M, up or down.
SHIFT = 0.125


def half_at(blocks: np.ndarray, at: int) -> np.ndarray:
    """The f16 at a byte of each block, [blocks, 1]."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)


def _words(blocks: np.ndarray, first: int, end: int, dtype: str) -> np.ndarray:
    """Bytes of blocks as little-endian integers, [blocks, integers]."""
    return np.ascontiguousarray(blocks[:, first:end]).view(dtype)


def _tables(kind: str) -> Any:
    """The class of the type in the package gguf, with its grid."""
    from gguf import GGMLQuantizationType, quants

    tables = quants._type_traits[GGMLQuantizationType[kind]]
    tables.init_grid()
    return tables


def levels_of_type(kind: str) -> np.ndarray:
    """The 16 levels of a type's codes, f32."""
    if kind in ("IQ4_NL", "IQ4_XS"):
        return np.array(NONLINEAR, np.float32)
    tables = _tables("MXFP4" if kind == "NVFP4" else kind)
    if tables.grid is None:
        return np.array(tables.kvalues, np.float32)
    result = np.zeros(16, np.float32)
    magnitudes = np.array(tables.grid_map, np.float32)
    count = len(magnitudes)
    if kind.startswith("IQ1"):
        result[:count], result[8 : 8 + count] = magnitudes + np.float32(SHIFT), magnitudes - np.float32(SHIFT)
    else:
        result[:count] = magnitudes * np.float32(_FRACTION[kind])
        result[8 : 8 + count] = -result[:count]
    return result


@functools.cache
def grid_of(kind: str) -> np.ndarray:
    """The rows of a type's grid as indices of its magnitudes, u8 [rows, 4 or 8]."""
    tables = _tables(kind)
    grid = tables.grid.reshape(tables.grid_shape)
    return np.searchsorted(np.array(tables.grid_map, np.float32), grid).astype(np.uint8)


@functools.cache
def _joined_grid(kind: str) -> np.ndarray:
    """The rows of the grid as integers, with 4 bits per element."""
    grid = grid_of(kind).astype(np.uint32)
    shifts = 4 * np.arange(grid.shape[1], dtype=np.uint32)
    return np.bitwise_or.reduce(grid << shifts, 1).astype(np.uint16 if grid.shape[1] == 4 else np.uint32)


@functools.cache
def _sign_masks() -> np.ndarray:
    """Byte of signs -> the same bits as bit 3 of eight codes, u32 [256]."""
    bits = np.arange(256, dtype=np.uint32)[:, None] >> np.arange(8, dtype=np.uint32) & 1
    return np.bitwise_or.reduce(bits << (4 * np.arange(8, dtype=np.uint32) + 3), 1)


@functools.cache
def _even_masks() -> np.ndarray:
    """Index of an even number of signs -> bit 3 of eight codes, u32 [128]."""
    return _sign_masks()[np.frombuffer(_tables("IQ2_XXS").ksigns, np.uint8)]


def _codes(kind: str, index: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Bytes of codes: rows of the grid by `index`, with `marks` [blocks, groups of 8] in their bits 3."""
    rows = np.take(_joined_grid(kind), index)
    if rows.dtype == np.uint16:
        rows = rows.view(np.uint32)  # two rows of 4
    return (rows | marks).view(np.uint8)


def _odd(numbers: np.ndarray) -> np.ndarray:
    return (2 * numbers + 1).astype(np.uint8)


def _by_nibbles(data: np.ndarray) -> np.ndarray:
    """The low and the high 4 bits of each byte, side by side."""
    return np.stack([data & 15, data >> 4], 2).reshape(len(data), -1)


def join_halves(data: np.ndarray, run: int) -> np.ndarray:
    """Codes whose first half of each `run` bytes is in the low bits, the second in the high bits -> two in a
    byte, side by side."""
    runs = data.reshape(len(data), -1, run)
    even, odd = runs[:, :, 0::2], runs[:, :, 1::2]
    low, high = even & 15 | odd << 4, even >> 4 | odd & 0xF0
    return np.concatenate([low, high], 2).reshape(len(data), -1)


def scales_in_bytes(first: int, end: int) -> Callable[[np.ndarray], Factors]:
    """The f16 of a block, and odd factors: 4 bits each, in the bytes from `first` to `end`."""
    return lambda blocks: Factors(half_at(blocks, 0), _odd(_by_nibbles(blocks[:, first:end])))


def scales_in_words(first: int, end: int, step: int) -> Callable[[np.ndarray], Factors]:
    """The f16 of a block, and odd factors: the highest 4 bits of each word of 32 bits, of every `step`-th."""
    return lambda blocks: Factors(
        half_at(blocks, 0), _odd(_words(blocks, first, end, "<u4")[:, step - 1 :: step] >> 28)
    )


def iq2_xxs(blocks: np.ndarray) -> np.ndarray:
    words = _words(blocks, 2, 66, "<u4")
    signs = words[:, 1::2, None] >> np.array([0, 7, 14, 21], np.uint32) & 127
    index = np.ascontiguousarray(words[:, 0::2]).view(np.uint8)
    return _codes("IQ2_XXS", index, np.take(_even_masks(), signs.reshape(len(blocks), -1)))


def iq2_xs(blocks: np.ndarray) -> np.ndarray:
    words = _words(blocks, 2, 66, "<u2")
    return _codes("IQ2_XS", words & 511, np.take(_even_masks(), words >> 9))


def _high_bits(high: np.ndarray, width: int) -> np.ndarray:
    """Bits 8 and higher of indices, `width` bits each, the first in the lowest bits."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    parts = high[:, :, None] >> shifts & np.uint8((1 << width) - 1)
    return parts.reshape(len(high), -1).astype(np.uint16) << 8


def iq2_s(blocks: np.ndarray) -> np.ndarray:
    index = blocks[:, 2:34] | _high_bits(blocks[:, 66:74], 2)
    return _codes("IQ2_S", index, np.take(_sign_masks(), blocks[:, 34:66]))


def iq3_xxs(blocks: np.ndarray) -> np.ndarray:
    words = _words(blocks, 66, 98, "<u4")
    signs = words[:, :, None] >> np.array([0, 7, 14, 21], np.uint32) & 127
    return _codes("IQ3_XXS", blocks[:, 2:66], np.take(_even_masks(), signs.reshape(len(blocks), -1)))


def iq3_s(blocks: np.ndarray) -> np.ndarray:
    index = blocks[:, 2:66] | _high_bits(blocks[:, 66:74], 1)
    return _codes("IQ3_S", index, np.take(_sign_masks(), blocks[:, 74:106]))


def iq1_s_index(blocks: np.ndarray) -> np.ndarray:
    """Rows of the grid, [blocks, 32]."""
    high = _words(blocks, 34, 50, "<u2")[:, :, None] >> np.array([0, 3, 6, 9], np.uint16) & 7
    return blocks[:, 2:34] | high.reshape(len(blocks), -1) << 8


def iq1_s_down(blocks: np.ndarray) -> np.ndarray:
    """True where a group's shift is down, [blocks, 8]."""
    return _words(blocks, 34, 50, "<u2") >= 0x8000


def iq1_s_odd(blocks: np.ndarray) -> np.ndarray:
    """The inner scales, [blocks, 8]."""
    return _odd(_words(blocks, 34, 50, "<u2") >> 12 & 7)


def iq1_s(blocks: np.ndarray) -> np.ndarray:
    marks = np.where(iq1_s_down(blocks), np.uint32(0x88888888), np.uint32(0))
    return _codes("IQ1_S", iq1_s_index(blocks), np.repeat(marks, 4, 1))


def iq1_s_scale(blocks: np.ndarray) -> Factors:
    return Factors(half_at(blocks, 0), iq1_s_odd(blocks))


def iq1_m(blocks: np.ndarray) -> np.ndarray:
    high = _by_nibbles(blocks[:, 32:48])
    marks = np.where(high & 8, np.uint32(0x88888888), np.uint32(0))
    return _codes("IQ1_M", blocks[:, :32] | (high & 7).astype(np.uint16) << 8, marks)


def iq1_m_scale(blocks: np.ndarray) -> Factors:
    """The f16 scale of a block, whose bits are the highest bits of four integers."""
    words = _words(blocks, 48, 56, "<u2")
    outer = np.bitwise_or.reduce((words & 0xF000) >> np.array([12, 8, 4, 0], np.uint16), 1, keepdims=True)
    inner = words[:, :, None] >> np.array([0, 3, 6, 9], np.uint16) & 7
    return Factors(outer.astype("<u2").view(np.float16), _odd(inner.reshape(len(blocks), -1)))


def iq4_xs_scale(blocks: np.ndarray) -> Factors:
    high = _words(blocks, 2, 4, "<u2") >> (2 * np.arange(8)).astype(np.uint16) & 3
    inner = _by_nibbles(blocks[:, 4:8]) | high.astype(np.uint8) << 4
    return Factors(half_at(blocks, 0), inner.astype(np.int8) - np.int8(32))


def mxfp4_scale(blocks: np.ndarray) -> Factors:
    """Powers of two by their exponents, halved: levels are doubled. 0 where all codes are 0, so that f16
    holds the scales of most matrices."""
    exponent = blocks[:, :1].astype(np.uint32)
    bits = np.where(exponent < 2, np.uint32(0x00200000) << exponent, (exponent - 1) << 23)
    is_zero = ~((blocks[:, 1:] & 0x77).any(1, keepdims=True))
    return Factors(np.where(is_zero, np.float32(0), bits.astype(np.uint32).view(np.float32)), None)


def nvfp4_scale(blocks: np.ndarray) -> Factors:
    """Floats of 8 bits without a sign, four in a block, halved: levels are doubled."""
    codes = blocks[:, :4]
    exponent, fraction = (codes >> 3 & 15).astype(np.int32), (codes & 7).astype(np.float32)
    small = np.ldexp(fraction, -10)
    real = np.where(exponent == 0, small, np.ldexp(1 + fraction / 8, exponent - 8))
    return Factors(np.where(codes == 0x7F, 0, real).astype(np.float16), None)
