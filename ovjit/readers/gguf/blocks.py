"""Tensors in llama.cpp's blocks -> codes with a scale and perhaps a zero for each group.

    w = (code - zero) * scale          or, with levels,          w = level[code] * scale

Types of one scale in a block of 32 keep it as f16. The super-blocks of 256 store scales of groups of 16 or 32
as integers of 4 to 8 bits times an f16. Their products, and zeros computed from minima, are f32. A byte has
two codes of up to 4 bits, or one of 5, 6 or 8 bits. No weight is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ovjit.errors import UnsupportedError
from ovjit.graph.converted import Unmade, Unpacked

#: Blocks that are taken apart at a time, so that what is made meanwhile stays small.
AT_ONCE = 1 << 14


class Parts(NamedTuple):
    """codes [blocks, elements], scales [blocks, groups], zeros likewise or None."""

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None = None


class Form(NamedTuple):
    """How a type is read: bytes and elements of a block, elements of a group, the type of codes, the common
    zero (None: as `apart` says), the levels of codes, and the function that unpacks blocks."""

    size: int
    block: int
    group: int
    codes: str
    zero: float | None
    apart: Callable[[np.ndarray], Parts]
    levels: tuple[int, ...] = ()


class Groups(NamedTuple):
    """A tensor: codes [rows, groups, elements of a group] of the type `dtype`; scale [rows, groups, 1] and
    zero likewise, or one number, or None; levels of a codebook."""

    codes: np.ndarray | Unmade
    dtype: str
    scale: np.ndarray
    zero: np.ndarray | None
    levels: np.ndarray | None


def _half(blocks: np.ndarray, at: int) -> np.ndarray:
    """The f16 at a byte of each block, [blocks, 1]"""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)


def _nibbles(blocks: np.ndarray, run: int) -> np.ndarray:
    """The low 4 bits of each `run` of bytes, then the high ones."""
    runs = blocks.reshape(len(blocks), -1, 1, run)
    return np.concatenate([runs & 15, runs >> 4], 2).reshape(len(blocks), -1)


def _bits(blocks: np.ndarray, width: int, run: int) -> np.ndarray:
    """Of each `run` of bytes the lowest `width` bits of all, then the next ones."""
    shifts = np.arange(0, 8, width).astype(np.uint8)[:, None]
    runs = blocks.reshape(len(blocks), -1, 1, run) >> shifts
    return (runs & np.uint8((1 << width) - 1)).reshape(len(blocks), -1)


def _lowered(codes: np.ndarray, scale: np.ndarray, low: np.ndarray) -> Parts:
    """code * scale + low with a zero in the place of `low`; where the scale is 0, codes and scale change."""
    scale, low = np.broadcast_to(scale.astype(np.float64), low.shape), low.astype(np.float64)
    flat = scale == 0
    zero = np.where(flat, -low, -low / np.where(flat, 1, scale))
    by_group = codes.reshape(*low.shape, -1)
    codes = np.where(flat[..., None], np.uint8(0), by_group).reshape(codes.shape)
    return Parts(codes, np.where(flat, 1, scale).astype(np.float32), zero.astype(np.float32))


def _q8_0(blocks: np.ndarray) -> Parts:
    return Parts(blocks[:, 2:].view(np.int8), _half(blocks, 0))


def _q4_0(blocks: np.ndarray) -> Parts:
    return Parts(_nibbles(blocks[:, 2:], 16), _half(blocks, 0))


def _q4_1(blocks: np.ndarray) -> Parts:
    return _lowered(_nibbles(blocks[:, 4:], 16), _half(blocks, 0), _half(blocks, 2))


def _fifth(blocks: np.ndarray) -> np.ndarray:
    """Codes of 5 bits: 4 bytes of the highest bits, then the others."""
    high = np.unpackbits(np.ascontiguousarray(blocks[:, :4]), axis=1, bitorder="little")
    return _nibbles(blocks[:, 4:], 16) | high << 4


def _q5_0(blocks: np.ndarray) -> Parts:
    return Parts((_fifth(blocks[:, 2:]) - np.uint8(16)).view(np.int8), _half(blocks, 0))


def _q5_1(blocks: np.ndarray) -> Parts:
    return _lowered(_fifth(blocks[:, 4:]), _half(blocks, 0), _half(blocks, 2))


def _scaled(half: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Scales of groups: exact in f64, f32 in the end."""
    return half.astype(np.float64) * factors


def _q2_k(blocks: np.ndarray) -> Parts:
    both = blocks[:, :16]
    scale, low = _scaled(_half(blocks, 80), both & 15), -_scaled(_half(blocks, 82), both >> 4)
    return _lowered(_bits(blocks[:, 16:80], 2, 32), scale, low)


def _q3_k(blocks: np.ndarray) -> Parts:
    high, low, factors = blocks[:, :32], blocks[:, 32:96], blocks[:, 96:108]
    whole = _nibbles(factors[:, :8], 8) | _bits(factors[:, 8:], 2, 4) << 4
    scale = _scaled(_half(blocks, 108), whole.astype(np.int8) - np.int8(32))
    return Parts(_bits(low, 2, 32) | _bits(high, 1, 32) << 2, scale)


def _six_bits(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The eight scales and eight minima of 6 bits that lie in 12 bytes."""
    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scale = np.concatenate([first & 63, rest & 15 | first >> 2 & 48], 1)
    return scale, np.concatenate([second & 63, rest >> 4 | second >> 2 & 48], 1)


def _q4_k(blocks: np.ndarray) -> Parts:
    scale, low = _six_bits(blocks[:, 4:16])
    scale, low = _scaled(_half(blocks, 0), scale), -_scaled(_half(blocks, 2), low)
    return _lowered(_nibbles(blocks[:, 16:], 32), scale, low)


def _q5_k(blocks: np.ndarray) -> Parts:
    scale, low = _six_bits(blocks[:, 4:16])
    scale, low = _scaled(_half(blocks, 0), scale), -_scaled(_half(blocks, 2), low)
    return _lowered(_nibbles(blocks[:, 48:], 32) | _bits(blocks[:, 16:48], 1, 32) << 4, scale, low)


def _q6_k(blocks: np.ndarray) -> Parts:
    codes = _nibbles(blocks[:, :128], 64) | _bits(blocks[:, 128:192], 2, 32) << 4
    scale = _scaled(_half(blocks, 208), np.ascontiguousarray(blocks[:, 192:208]).view(np.int8))
    return Parts((codes - np.uint8(32)).view(np.int8), scale)


_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

FORMS = {
    "Q8_0": Form(34, 32, 32, "i8", None, _q8_0),
    "Q4_0": Form(18, 32, 32, "u4", 8.0, _q4_0),
    "Q4_1": Form(20, 32, 32, "u4", None, _q4_1),
    "Q5_0": Form(22, 32, 32, "i8", None, _q5_0),
    "Q5_1": Form(24, 32, 32, "u8", None, _q5_1),
    "Q2_K": Form(84, 256, 16, "u4", None, _q2_k),
    "Q3_K": Form(110, 256, 16, "u4", 4.0, _q3_k),
    "Q4_K": Form(144, 256, 32, "u4", None, _q4_k),
    "Q5_K": Form(176, 256, 32, "u8", None, _q5_k),
    "Q6_K": Form(210, 256, 16, "i8", None, _q6_k),
    "IQ4_NL": Form(18, 32, 32, "u4", None, _q4_0, _NL),
}
#: Types whose numbers lie in the file as they are.
REALS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


def form_of(kind: str) -> Form:
    """How blocks of this type are read. UnsupportedError, which names the type, for one that is not read."""
    form = FORMS.get(kind)
    if form is None:
        raise UnsupportedError(f"tensors of type {kind}; what is read: {', '.join([*REALS, *FORMS])}")
    return form


def groups_of(kind: str, data: np.ndarray, shape: tuple[int, ...], order: np.ndarray | None) -> Groups:
    """A tensor of the type `kind`, rows along all axes but the last; `order`: that of its rows.

    UnsupportedError, which names the type, for one that is not read.
    """
    form = form_of(kind)
    rows, depth = math.prod(shape[:-1]), shape[-1]
    each = depth // form.block
    by_row = data.reshape(rows, each, form.size)
    count, packed = depth // form.group, form.codes == "u4"
    codes = np.empty((rows, depth // 2 if packed else depth), np.int8 if form.codes == "i8" else np.uint8)
    scale: np.ndarray | None = None
    zero: np.ndarray | None = None
    step = max(1, AT_ONCE // each)
    for first in range(0, rows, step):
        end = min(first + step, rows)
        taken = by_row[first:end] if order is None else by_row[order[first:end]]
        parts = form.apart(np.ascontiguousarray(taken.reshape(-1, form.size)))
        whole = parts.codes.reshape(end - first, depth)
        codes[first:end] = whole[:, 0::2] | whole[:, 1::2] << 4 if packed else whole
        if scale is None:
            scale = np.empty((rows, count), np.float16 if parts.scale.dtype == np.float16 else np.float32)
            zero = None if parts.zero is None else np.empty((rows, count), np.float32)
        scale[first:end] = parts.scale.reshape(end - first, count)
        if zero is not None and parts.zero is not None:
            zero[first:end] = parts.zero.reshape(end - first, count)
    assert scale is not None
    lead = (*shape[:-1], count)
    stored: np.ndarray | Unmade = codes.reshape(*lead, -1)
    if packed:
        stored = Unpacked(codes.reshape(-1), (*lead, form.group), "u4")
    if form.zero is not None:
        zero = np.full((1,) * (len(lead) + 1), form.zero, np.float32)
    elif zero is not None:
        zero = zero.reshape(*lead, 1)
    levels = np.array(form.levels, np.float32) if form.levels else None
    return Groups(stored, form.codes, scale.reshape(*lead, 1), zero, levels)
