"""Intrinsics in NEON instructions: functions with the names and arguments of those in `vector.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu.printing import isa_of
from ovjit.codegen.cpu.targets import has_features
from ovjit.codegen.cpu.vector_types import INTS, Vec, bf16_vector, call_intrinsic, lane_indices, suffix, vec

_I8, _I16, _I32 = (ir.IntType(n) for n in (8, 16, 32))
_BYTES, _HALVES, _WORDS = (ir.VectorType(t, 128 // t.width) for t in (_I8, _I16, _I32))
_FLOATS = ir.VectorType(ir.FloatType(), 4)
_FOUR_HALVES, _EIGHT_BYTES = ir.VectorType(_I16, 4), ir.VectorType(_I8, 8)

#: An exclusive or of u8 data with it gives i8 that are 128 less.
FLIP = -128


def _has(b: ir.IRBuilder, feature: str) -> bool:
    return has_features(isa_of(b), (feature,))


def _same(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


#: Instruction -> (its types in LLVM's name, the type of x and w, whether w is its first factor).
PRODUCTS: dict[str, tuple[str, ir.VectorType, bool]] = {
    "usdot": (".v4i32.v16i8", _BYTES, False),  # four products of u8 of x and i8 of w a lane (i8mm)
    "sdot": (".v4i32.v16i8", _BYTES, True),  # four products of i8 a lane (dotprod)
    "usmmla": (
        ".v4i32.v16i8",
        _BYTES,
        False,
    ),  # [2, 2] sums: two rows of eight u8 of x, two of i8 of w (i8mm)
    "bfdot": (".v4f32.v8bf16", bf16_vector(8), True),  # two products of bf16 a lane (bf16)
    "bfmmla": ("", bf16_vector(8), False),  # [2, 2] sums: two rows of four bf16 of each (bf16)
    "fmlal": (".v4f32.v8f16", ir.VectorType(ir.HalfType(), 8), True),  # of the first four f16 (fp16fml)
    "fmlal2": (".v4f32.v8f16", ir.VectorType(ir.HalfType(), 8), True),  # of the last four
}


def product(b: ir.IRBuilder, name: str, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """acc + the products of `x` and `w` by an instruction of PRODUCTS."""
    types, kind, swapped = PRODUCTS[name]
    factors = [b.bitcast(v, kind) for v in ((w, x) if swapped else (x, w))]
    return call_intrinsic(b, f"llvm.aarch64.neon.{name}{types}", acc.type, [acc, *factors])


def dot_bytes(b: ir.IRBuilder, kind: Vec, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """acc + the four products of u8 of `x` and i8 of `w`, exactly."""
    if _has(b, "i8mm"):
        return product(b, "usdot", acc, x, w)
    if _has(b, "dotprod"):
        # x w = (x - 128) w + 64 w + 64 w, as 128 is not an i8
        x = b.xor(b.bitcast(x, _BYTES), _same(_BYTES, FLIP))
        for data in (x, _same(_BYTES, 64), _same(_BYTES, 64)):
            acc = product(b, "sdot", acc, data, w)
        return acc
    return dot_by_pairs(b, acc, x, w)


def dot_signed(b: ir.IRBuilder, kind: Vec, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value | None:
    """acc + the four products of i8 of `x` and `w`, exactly; None without dotprod."""
    return product(b, "sdot", acc, w, x) if _has(b, "dotprod") else None


def dot_by_pairs(b: ir.IRBuilder, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """`dot_bytes` without an instruction that multiplies and adds bytes: 16-bit products, added in pairs."""
    x, w = b.bitcast(x, _BYTES), b.bitcast(w, _BYTES)
    pair_sums = []
    for part in (0, 8):
        some = lane_indices(*range(part, part + 8))
        low, high = (b.shuffle_vector(v, ir.Constant(_BYTES, ir.Undefined), some) for v in (x, w))
        pair = b.zext(low, _HALVES), b.sext(high, _HALVES)
        pair_sums.append(_pairs(b, *pair))
    return b.add(acc, _added_pairs(b, *pair_sums))


def _pairs(b: ir.IRBuilder, x: ir.Value, w: ir.Value) -> ir.Value:
    """[i32 x 4]: the sums of two products of i16."""
    parts = []
    for part in (0, 4):
        some = lane_indices(*range(part, part + 4))
        low, high = (b.shuffle_vector(v, ir.Constant(_HALVES, ir.Undefined), some) for v in (x, w))
        parts.append(call_intrinsic(b, "llvm.aarch64.neon.smull.v4i32", _WORDS, [low, high]))
    return _added_pairs(b, *parts)


def _added_pairs(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return call_intrinsic(b, "llvm.aarch64.neon.addp.v4i32", _WORDS, [x, y])


def dot_halves(b: ir.IRBuilder, kind: Vec, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """acc + the two products of i16 of `x` and `w` in each lane of i32."""
    return b.add(acc, _pairs(b, b.bitcast(x, _HALVES), b.bitcast(w, _HALVES)))


def sum_pairs(b: ir.IRBuilder, kind: Vec, acc: ir.Value, x: ir.Value) -> ir.Value:
    """acc + the two i16 in each lane of `x`."""
    added = call_intrinsic(b, "llvm.aarch64.neon.saddlp.v4i32.v8i16", _WORDS, [b.bitcast(x, _HALVES)])
    return b.add(acc, added)


def look_up(b: ir.IRBuilder, kind: Vec, table: ir.Value, codes: ir.Value) -> ir.Value:
    """table[code] of bytes, for codes 0 to 15."""
    operands = [b.bitcast(table, _BYTES), b.bitcast(codes, _BYTES)]
    return b.bitcast(call_intrinsic(b, "llvm.aarch64.neon.tbl1.v16i8", _BYTES, operands), codes.type)


def permute_lanes(b: ir.IRBuilder, v: ir.Value, index: ir.Value) -> ir.Value:
    """The lanes index % 4 of a vector of 4-byte lanes, by a table look-up of their bytes."""
    lanes = b.and_(index, _same(_WORDS, 3))
    codes = b.add(b.mul(lanes, _same(_WORDS, 0x04040404)), _same(_WORDS, 0x03020100))
    moved = look_up(b, vec("i32", 4), v, codes)
    return b.bitcast(moved, v.type)


def reciprocal(b: ir.IRBuilder, kind: Vec, x: ir.Value) -> ir.Value | None:
    """An approximation of 1 / x within 2**-14: the CPU's estimate of 8 bits and one Newton step."""
    if x.type != _FLOATS:
        return None
    name = "llvm.aarch64.neon.frec%s.v4f32"
    about = call_intrinsic(b, name % "pe", _FLOATS, [x])
    return b.fmul(about, call_intrinsic(b, name % "ps", _FLOATS, [about, x]))


def extreme(b: ir.IRBuilder, which: str, x: ir.Value, y: ir.Value) -> ir.Value:
    """fmax or fmin; NaN propagates. For zeros with different signs, max_ gives +0 and min_ -0."""
    kind = {"float": "f32", "double": "f64"}[str(x.type.element)]
    name = {"max": "maximum", "min": "minimum"}[which]
    return call_intrinsic(b, f"llvm.{name}.v{x.type.count}{kind}", x.type, [x, y])


def _nearest(b: ir.IRBuilder, x: ir.Value, signed: bool) -> ir.Value:
    """f32 to the nearest i32 or u32, ties to even; saturating, NaN gives 0."""
    return call_intrinsic(b, f"llvm.aarch64.neon.fcvtn{'s' if signed else 'u'}.v4i32.v4f32", _WORDS, [x])


def round_to_int(b: ir.IRBuilder, x: ir.Value, to: Vec) -> ir.Value | None:
    """f32 to the nearest integer, ties to even, for values that the type represents. u8 saturates, and NaN
    gives 0. None for types that it does not support."""
    if x.type != _FLOATS or INTS[to.elem] > 32:
        return None
    rounded = _nearest(b, x, to.is_signed)
    if to.elem == "u8":
        top = _same(_WORDS, 255)
        rounded = b.select(b.icmp_unsigned("<", rounded, top), rounded, top)
    return rounded if INTS[to.elem] == 32 else b.trunc(rounded, to.ir)


def saturate(b: ir.IRBuilder, source: Vec, x: ir.Value, to: Vec) -> ir.Value | None:
    """Float to integer: truncated and saturated; NaN gives 0. fcvtzs saturates f32 to 32 bits and f64 to 64
    bits. None for types that it does not support."""
    bits = INTS[to.elem]
    if (source.elem, to.lanes) != ("f32", 4) or bits > 32:
        return None
    sign = "s" if to.is_signed else "u"
    saturated = call_intrinsic(b, f"llvm.fpto{sign}i.sat.v4i32.v4f32", _WORDS, [x])
    if bits == 32:
        return saturated
    ends = (-(1 << bits - 1), (1 << bits - 1) - 1) if to.is_signed else (0, (1 << bits) - 1)
    for least, end in zip((True, False), ends, strict=True):
        if to.is_signed or not least:
            limit, compare = _same(_WORDS, end), b.icmp_signed if to.is_signed else b.icmp_unsigned
            saturated = b.select(compare("<" if least else ">", saturated, limit), limit, saturated)
    return b.trunc(saturated, to.ir)


def truncate_or_min(b: ir.IRBuilder, x: ir.Value, to: Vec) -> ir.Value | None:
    """Float to a signed integer, truncated; the type's minimum for NaN and for values that do not fit. fcvtzs
    gives the minimum below it, so only an upper bound is compared. None for f64 to 32 bits."""
    bits = INTS[to.elem]
    if bits == 64:
        x = b.fpext(x, ir.VectorType(ir.DoubleType(), to.lanes)) if x.type == _FLOATS else x
    elif x.type != _FLOATS:
        return None
    truncated = call_intrinsic(b, f"llvm.fptosi.sat.{suffix(to.ir)}.{suffix(x.type)}", to.ir, [x])
    fits = b.fcmp_ordered("<", x, ir.Constant(x.type, [2.0 ** (bits - 1)] * to.lanes))
    return b.select(fits, truncated, ir.Constant(to.ir, [-(2 ** (bits - 1))] * to.lanes))


def join_bytes(b: ir.IRBuilder, how: str, elem: str, *vectors: ir.Value) -> ir.Value:
    """`round_int` or `saturate` of four vectors, as one vector of bytes. i32 are narrowed to 16 bits, then to
    bytes, both saturating."""
    integers = [_nearest(b, x, elem == "i8") if how == "round_int" else x for x in vectors]
    # results of `round_int` to u8 are unsigned, sums are signed
    narrowing = "uqxtn" if how == "round_int" and elem == "u8" else "sqxtn"
    last = {"uqxtn": "uqxtn", "sqxtn": "sqxtun" if elem == "u8" else "sqxtn"}[narrowing]
    narrow = [call_intrinsic(b, f"llvm.aarch64.neon.{narrowing}.v4i16", _FOUR_HALVES, [x]) for x in integers]
    eight = lane_indices(*range(8))
    eights = [b.shuffle_vector(x, y, eight) for x, y in (narrow[:2], narrow[2:])]
    parts = [call_intrinsic(b, f"llvm.aarch64.neon.{last}.v8i8", _EIGHT_BYTES, [x]) for x in eights]
    return b.shuffle_vector(*parts, lane_indices(*range(16)))


def rounds_bf16(b: ir.IRBuilder) -> bool:
    """Whether an instruction rounds f32 to bf16."""
    return _has(b, "bf16")


def to_bf16(b: ir.IRBuilder, v: ir.Value) -> ir.Value:
    """f32 rounded to the nearest bf16, ties to even; NaN stays NaN (bfcvtn)."""
    return b.bitcast(b.fptrunc(v, bf16_vector(v.type.count)), ir.VectorType(_I16, v.type.count))


#: Name of a function in `vector.py` -> NEON's function. A result of None: NEON has no code for the types.
WORDS: dict[str, Callable[..., Any]] = {
    one.__name__: one
    for one in (
        dot_bytes,
        dot_signed,
        dot_halves,
        sum_pairs,
        look_up,
        round_to_int,
        saturate,
        truncate_or_min,
        join_bytes,
    )  # fmt: skip
} | {"_reciprocal": reciprocal}
