"""Tensors in llama.cpp's blocks -> codes with a scale and perhaps a zero for each group.

    w = (code - zero) * scale          or, with levels,          w = level[code] * scale

Codes of 2, 3, 5 and 6 bits stay in the file's memory until they are packed for products. Types of one scale
in a block have it as f16, where that is exact. The super-blocks of 256 have scales of groups of 16 or 32 as
integers of 3 to 8 bits times an f16. A type with minima has `code * scale + minimum`: its zeros are worked
out on demand, and products take the minima as they are. No weight is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ovjit.errors import UnsupportedError
from ovjit.graph.converted import Codes, Factors, InBlocks, Unmade
from ovjit.graph.dtypes import numpy_dtype
from ovjit.readers.gguf import codebooks
from ovjit.readers.gguf.codebooks import half_at as _half
from ovjit.records import NamedTuple

Read = Callable[[np.ndarray], np.ndarray]


class Form(NamedTuple):
    """Storage format of a tensor type.

    `size` and `block`: bytes and elements of a block. `group`: elements of a group. `bits`: of a code.
    `zero`: the common zero point, or None. `codes`, `scale`, `low`: functions that read codes, scales and
    minima from blocks. Codes of 8 bits are signed and have no zero point. `has_levels`: codes are indices of
    levels, and are read two in a byte.
    """

    size: int
    block: int
    group: int
    bits: int
    zero: int | None
    codes: Read
    scale: Callable[[np.ndarray], Factors]
    low: Callable[[np.ndarray], Factors] | None = None
    has_levels: bool = False


class Groups(NamedTuple):
    """A tensor: codes [rows, groups, elements of a group] of the type `dtype`; scale [rows, groups, 1] and
    zero likewise, or one number, or None; levels of a codebook."""

    codes: np.ndarray | Unmade
    dtype: str
    scale: np.ndarray | Unmade
    zero: np.ndarray | Unmade | None
    levels: np.ndarray | None


def _one(at: int) -> Callable[[np.ndarray], Factors]:
    """A reader of one f16 per block, at byte `at`."""
    return lambda blocks: Factors(_half(blocks, at), None)


def _nibbles(blocks: np.ndarray, run: int) -> np.ndarray:
    """The low 4 bits of each `run` of bytes, then the high ones."""
    runs = blocks.reshape(len(blocks), -1, 1, run)
    return np.concatenate([runs & 15, runs >> 4], 2).reshape(len(blocks), -1)


def _bits(blocks: np.ndarray, width: int, run: int) -> np.ndarray:
    """Unpack codes of `width` bits: of each `run` of bytes first the lowest bits of all, then the next
    ones."""
    shifts = np.arange(0, 8, width).astype(np.uint8)[:, None]
    runs = blocks.reshape(len(blocks), -1, 1, run) >> shifts
    return (runs & np.uint8((1 << width) - 1)).reshape(len(blocks), -1)


def _fifth(blocks: np.ndarray) -> np.ndarray:
    """Codes of 5 bits: 4 bytes with the highest bits, then bytes with the other ones."""
    high = np.unpackbits(np.ascontiguousarray(blocks[:, :4]), axis=1, bitorder="little")
    return _nibbles(blocks[:, 4:], 16) | high << 4


def _q3_k(blocks: np.ndarray) -> np.ndarray:
    return _bits(blocks[:, 32:96], 2, 32) | _bits(blocks[:, :32], 1, 32) << 2


def _q3_k_scale(blocks: np.ndarray) -> Factors:
    factors = blocks[:, 96:108]
    codes = _nibbles(factors[:, :8], 8) | _bits(factors[:, 8:], 2, 4) << 4
    return Factors(_half(blocks, 108), codes.astype(np.int8) - np.int8(32))


def _six_bits(blocks: np.ndarray) -> np.ndarray:
    """The eight scales of 6 bits of Q4_K and Q5_K."""
    first, high = blocks[:, 4:8], blocks[:, 12:16]
    return np.concatenate([first & 63, high & 15 | first >> 2 & 48], 1)


def _six_bits_low(blocks: np.ndarray) -> Factors:
    """The eight minima of 6 bits of Q4_K and Q5_K, which are subtracted."""
    second, high = blocks[:, 8:12], blocks[:, 12:16]
    return Factors(-_half(blocks, 2), np.concatenate([second & 63, high >> 4 | second >> 2 & 48], 1))


def _six_bits_scale(blocks: np.ndarray) -> Factors:
    return Factors(_half(blocks, 0), _six_bits(blocks))


def _q5_k(blocks: np.ndarray) -> np.ndarray:
    return _nibbles(blocks[:, 48:], 32) | _bits(blocks[:, 16:48], 1, 32) << 4


def _q6_k(blocks: np.ndarray) -> np.ndarray:
    return _nibbles(blocks[:, :128], 64) | _bits(blocks[:, 128:192], 2, 32) << 4


def _q6_k_scale(blocks: np.ndarray) -> Factors:
    return Factors(_half(blocks, 208), np.ascontiguousarray(blocks[:, 192:208]).view(np.int8))


def _tq1_0(blocks: np.ndarray) -> np.ndarray:
    """Codes of TQ1_0: five base-3 digits per byte, the most significant first; four in the last bytes."""
    parts = []
    for first, end, count in ((0, 32, 5), (32, 48, 5), (48, 52, 4)):
        powers = np.array([3**i for i in range(count)], np.uint8)[:, None]
        parts.append((blocks[:, None, first:end] * powers).reshape(len(blocks), -1))
    return (np.concatenate(parts, 1).astype(np.uint16) * 3 >> 8).astype(np.uint8)


def _q1_0(blocks: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.ascontiguousarray(blocks[:, 2:]), axis=1, bitorder="little") << 1


def _iq1_s(blocks: np.ndarray) -> np.ndarray:
    return codebooks.grid_of("IQ1_S")[codebooks.iq1_s_index(blocks)].reshape(len(blocks), -1)


def _iq1_s_scale(blocks: np.ndarray) -> Factors:
    return Factors(_half(blocks, 0) / np.float16(8), codebooks.iq1_s_odd(blocks) << 3)


def _iq1_s_low(blocks: np.ndarray) -> Factors:
    """The minima of IQ1_S: codes are 1 above the grid's numbers, and the shift is an eighth."""
    eighths = np.where(codebooks.iq1_s_down(blocks), np.uint8(9), np.uint8(7))
    return Factors(-(_half(blocks, 0) / np.float16(8)), codebooks.iq1_s_odd(blocks) * eighths)


def _by_table(size: int, block: int, group: int, codes: Read, scale: Callable[[np.ndarray], Factors]) -> Form:
    return Form(size, block, group, 4, None, codes, scale, None, True)


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
    "TQ1_0": Form(54, 256, 256, 2, 1, _tq1_0, _one(52)),
    "TQ2_0": Form(66, 256, 256, 2, 1, lambda b: _bits(b[:, :64], 2, 32), _one(64)),
    "Q1_0": Form(18, 128, 128, 2, 1, _q1_0, _one(0)),
    "IQ4_NL": _by_table(18, 32, 32, lambda b: codebooks.join_halves(b[:, 2:], 16), _one(0)),
    "IQ4_XS": _by_table(
        136, 256, 32, lambda b: codebooks.join_halves(b[:, 8:], 16), codebooks.iq4_xs_scale
    ),
    "MXFP4": _by_table(17, 32, 32, lambda b: codebooks.join_halves(b[:, 1:], 16), codebooks.mxfp4_scale),
    "NVFP4": _by_table(36, 64, 16, lambda b: codebooks.join_halves(b[:, 4:], 8), codebooks.nvfp4_scale),
    "IQ3_S": _by_table(110, 256, 32, codebooks.iq3_s, codebooks.scales_in_bytes(106, 110)),
    "IQ3_XXS": _by_table(98, 256, 32, codebooks.iq3_xxs, codebooks.scales_in_words(66, 98, 1)),
    "IQ2_S": _by_table(82, 256, 16, codebooks.iq2_s, codebooks.scales_in_bytes(74, 82)),
    "IQ2_XS": _by_table(74, 256, 16, codebooks.iq2_xs, codebooks.scales_in_bytes(66, 74)),
    "IQ2_XXS": _by_table(66, 256, 32, codebooks.iq2_xxs, codebooks.scales_in_words(2, 66, 2)),
    "IQ1_S": Form(50, 256, 32, 2, None, _iq1_s, _iq1_s_scale, _iq1_s_low),
    "IQ1_M": _by_table(56, 256, 16, codebooks.iq1_m, codebooks.iq1_m_scale),
}  # fmt: skip
#: IQ1_S where an eighth of a factor of f16 is none itself, as it may be below 2**-11.
_FINE = {"IQ1_S": _by_table(50, 256, 32, codebooks.iq1_s, codebooks.iq1_s_scale)}
#: Types whose numbers lie in the file as they are.
REALS = {
    "F32": "f32", "F16": "f16", "BF16": "bf16", "F64": "f64", "I8": "i8", "I16": "i16", "I32": "i32",
    "I64": "i64",
}  # fmt: skip


def check_kind(kind: str) -> None:
    """Raise UnsupportedError, which names the type, for a type that cannot be read."""
    if kind not in FORMS and kind not in REALS:
        raise UnsupportedError(
            f"tensors of type {kind} are not supported; supported types: {', '.join([*REALS, *FORMS])}"
        )


def _real(factors: Factors) -> np.ndarray:
    """Expands factors to f32 [blocks or rows, groups], exactly."""
    outer, inner = factors.outer.astype(np.float32), factors.inner
    if inner is None:
        return outer
    return np.repeat(outer, inner.shape[1] // outer.shape[1], 1) * inner.astype(np.float32)


class _BlockReader:
    """Reads rows [n, bytes] of a type. Where a group has a minimum and the scale 0, its codes are 0 and its
    visible scale is 1, so that a zero can stand for the minimum."""

    def __init__(self, form: Form):
        self.form = form

    def _of_blocks(self, rows: np.ndarray, read: Callable[[np.ndarray], Factors]) -> Factors:
        factors = read(np.ascontiguousarray(rows).reshape(-1, self.form.size))
        return Factors(*(None if v is None else v.reshape(len(rows), -1) for v in factors))  # type: ignore[arg-type]

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


def _form_for(kind: str, rows: np.ndarray) -> tuple[Form, np.ndarray | None]:
    """The form of a type for the bytes of a tensor, and its levels."""
    form = FORMS[kind]
    if kind in _FINE:
        outer = _half(rows.reshape(-1, form.size), 0)
        if not (outer / np.float16(8) * np.float16(8) == outer).all():
            form = _FINE[kind]
    return form, codebooks.levels_of_type(kind) if form.has_levels else None


def groups_of(kind: str, data: np.ndarray, shape: tuple[int, ...], order: np.ndarray | None) -> Groups:
    """A tensor of a type of `FORMS`, rows along all axes but the last; `order`: that of its rows."""
    rows, depth = math.prod(shape[:-1]), shape[-1]
    source = data.reshape(rows, -1)
    form, levels = _form_for(kind, source)
    lead, read = (*shape[:-1], depth // form.group), _BlockReader(form)
    each = (*lead, 1)
    scale: np.ndarray | Unmade = InBlocks(
        source, each, np.dtype(np.float32), read.scale, order, 0, read.scale_factors
    )
    if read.scale_factors(source[:1]).inner is None and form.low is None:
        scale = _in_f16(np.asarray(scale))
    zero: np.ndarray | Unmade | None = None
    if form.low is not None:
        zero = InBlocks(source, each, np.dtype(np.float32), read.zero, order, 0, read.low_factors)
    elif form.zero is not None:
        zero = np.full((1,) * len(each), form.zero, np.float32)
    codes, dtype = _codes_of(form, read, source, (*lead, form.group), order)
    return Groups(codes, dtype, scale, zero, levels)


def _in_f16(scale: np.ndarray) -> np.ndarray:
    """Scales in f16 where it holds all of them exactly."""
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), scale, equal_nan=True) else scale


def _codes_of(
    form: Form, read: _BlockReader, source: np.ndarray, shape: tuple[int, ...], order: np.ndarray | None
) -> tuple[np.ndarray | Unmade, str]:
    """Codes of this shape, and their type. Those of 4 and 8 bits are in memory of their own, which native
    code weaves; others stay in the file's."""
    kind = np.dtype(np.int8 if form.bits == 8 else np.uint8)
    two = 2 if form.has_levels else 1
    blocks = InBlocks(source, (*shape[:-1], shape[-1] // two), kind, read.codes, order, form.bits)
    if form.bits == 8:
        return Codes(np.asarray(blocks).reshape(-1), shape, "i8"), "i8"
    if form.has_levels:
        return Codes(np.asarray(blocks).reshape(-1), shape, "u4"), "u4"
    if form.bits == 4:
        return Codes(_by_twos(blocks, len(source), blocks.size // len(source)), shape, "u4"), "u4"
    return blocks, "u8"


def values_of(kind: str, data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of a small tensor of the type `kind`, f32."""
    if kind in REALS:
        real: np.ndarray = data.view(numpy_dtype(REALS[kind])).reshape(shape).astype(np.float32)
        return real
    groups = groups_of(kind, data, shape, None)
    codes = np.asarray(groups.codes)
    real = codes.astype(np.float32) if groups.levels is None else groups.levels[codes.astype(np.uint8)]
    scale = np.asarray(groups.scale).astype(np.float32)
    if isinstance(groups.zero, InBlocks) and groups.zero.factors is not None:
        low = _real(groups.zero.factors(groups.zero.source))
        return (real * scale + low.reshape(scale.shape)).reshape(shape)
    if groups.zero is not None:
        real = real - np.asarray(groups.zero)
    return (real * scale).reshape(shape)


def _by_twos(codes: InBlocks, rows: int, depth: int) -> np.ndarray:
    """Pack two codes of 4 bits into a byte."""
    result = np.empty((rows, depth // 2), np.uint8)
    some = max(1, (1 << 20) // depth)
    for first in range(0, rows, some):
        part = codes.rows(first, min(first + some, rows))
        result[first : first + some] = part[:, 0::2] | part[:, 1::2] << 4
    return result.reshape(-1)
