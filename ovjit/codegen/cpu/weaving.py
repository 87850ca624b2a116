"""Intrinsics that transform packed weights in rows of whole vectors, in the first-level cache.

    flip_bits(place, size, mask)      exclusive or of each 32-bit word with the low half of `mask`
    spread_nibbles(place, size)       the nibbles 0 1 2 3 4 5 6 7 of each word become 0 4 1 5 2 6 3 7
    flush_tiny(place, size)           subnormal f32 become zeros with their sign
    flush_halves(place, size)         likewise, of bf16
    turn_bytes(place, size)           transpose each four words of four bytes
    turn_pairs(place, size)           four words of two pairs become their first pairs, then their second
    round_f32(place, target, count)   f32 to bf16, to nearest even, with subnormals flushed
    round_f16(place, target, count)   likewise, of f16
    pair_sums(place, target, size)    for each two adjacent i8, three sums as u8, at most 255: of positive
                                      values, of magnitudes of negative values, of all magnitudes. Each 16
                                      bytes give 8 of the first sums, then 8 of the second. The third sums
                                      begin at target + size
    exceed(x, y, size, most) -> 0/1   whether a sum of u8 of x and y exceeds `most`; no y exceeds it alone
    copy_bytes(place, target, size)
    turn_signs(place, sizes, masks, bias, size)
                                      for i8 w, the magnitudes |w| and masks 0x80 (w >= 0) or 0x7F for an
                                      exclusive or with data; adds 128 w or 127 w of each four to an i32 of
                                      `bias`
    filter_planes(place, target, line, plane)
                                      G w G' of 3 x 3 filters: from lines of `line` bytes, one per tap, to
                                      lines of planes that are `plane` bytes apart. Sums are in f64, rounded
                                      once

`size` is in bytes and a multiple of a vector (of 16 bytes for i8, u8 and copies). `count` is in elements and
a multiple of a vector's lanes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu import types
from ovjit.codegen.cpu.intrinsics import make
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.cpu.types import signature
from ovjit.codegen.cpu.vector_memory import from_memory
from ovjit.codegen.cpu.vector_types import call_intrinsic, pointer

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))


def _walk(b: ir.IRBuilder, lanes: int, start: Any, size: Any, change: Callable[[Any], Any]) -> None:
    """Load, transform and store vectors one after the other."""
    kind = ir.VectorType(_I32, lanes)

    def body(at: Any) -> None:
        target = pointer(b, b.add(start, at), kind)
        b.store(change(b.load(target, align=1)), target, align=1)

    _steps(b, size, 4 * lanes, body)


def _steps(b: ir.IRBuilder, stop: Any, step: int, body: Callable[[Any], None]) -> None:
    """Emit the loop body(0), body(step) ... below `stop`."""
    with b.if_then(b.icmp_signed(">", stop, _I64(0))):
        _accumulate(b, stop, step, lambda at, _: body(at))


def _accumulate(
    b: ir.IRBuilder, stop: Any, step: int, body: Callable[[Any, Any], Any], first: Any = None
) -> Any:
    """Emit the loop state = body(0, first), state = body(step, state) ... below `stop`, which is positive.
    Returns the last state."""
    before, loop, after = b.block, b.append_basic_block("vectors"), b.append_basic_block("done")
    b.branch(loop)
    b.position_at_end(loop)
    at = b.phi(_I64)
    at.add_incoming(_I64(0), before)
    state = None
    if first is not None:
        state = b.phi(first.type)
        state.add_incoming(first, before)
    result = body(at, state)
    following = b.add(at, _I64(step))
    at.add_incoming(following, b.block)
    if state is not None:
        state.add_incoming(result, b.block)
    b.cbranch(b.icmp_signed("<", following, stop), loop, after)
    b.position_at_end(after)
    return result


def _all(lanes: int, value: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I32, lanes), [value] * lanes)


def _swap_bits(b: ir.IRBuilder, word: Any, lanes: int, mask: int, bits: int) -> Any:
    """Exchange the bits of `mask` with the bits `bits` above them."""
    shift = _all(lanes, bits)
    moved = b.and_(b.xor(b.lshr(word, shift), word), _all(lanes, mask))
    return b.xor(word, b.xor(moved, b.shl(moved, shift)))


def _group_by_position(b: ir.IRBuilder, word: Any, lanes: int, size: int) -> Any:
    """Within each four words, order the items of `size` bytes by their place in the word."""
    order = [at + 4 * w + size * i + k for at in range(0, 4 * lanes, 16) for i in range(4 // size)
             for w in range(4) for k in range(size)]  # fmt: skip
    kind = ir.VectorType(_I8, 4 * lanes)
    mask = ir.Constant(ir.VectorType(_I32, 4 * lanes), order)
    return b.bitcast(
        b.shuffle_vector(b.bitcast(word, kind), ir.Constant(kind, ir.Undefined), mask), word.type
    )


def _without_tiny(b: ir.IRBuilder, word: Any, lanes: int, exponent: int, mask: int) -> Any:
    """Words whose `exponent` bits are all 0 keep only the bits `mask`."""
    tiny = b.icmp_unsigned("==", b.and_(word, _all(lanes, exponent)), _all(lanes, 0))
    return b.select(tiny, b.and_(word, _all(lanes, mask)), word)


def _round_to_bf16(b: ir.IRBuilder, word: Any, lanes: int) -> Any:
    """The bits of f32 rounded to bf16, with subnormals flushed."""
    upper = b.lshr(word, _all(lanes, 16))
    even = b.add(b.and_(upper, _all(lanes, 1)), _all(lanes, 0x7FFF))
    near = b.lshr(b.add(word, even), _all(lanes, 16))
    size = b.and_(word, _all(lanes, 0x7FFFFFFF))
    no_number = b.icmp_unsigned(">", size, _all(lanes, 0x7F800000))
    # as in NumPy, NaN becomes the quiet NaN with its sign
    quiet = b.or_(b.and_(upper, _all(lanes, 0x8000)), _all(lanes, 0x7FC0))
    return _without_tiny(b, b.select(no_number, quiet, near), lanes, 0x7F80, 0x8000)


def _rounding(lanes: int, elem: str) -> Callable[..., None]:
    """The intrinsic that converts f32 or f16 to bf16."""
    size = 4 if elem == "f32" else 2

    def emit(b: ir.IRBuilder, source: Any, target: Any, count: Any) -> None:
        words, out = ir.VectorType(_I32, lanes), ir.VectorType(_I16, lanes)
        floats = ir.VectorType(ir.FloatType() if elem == "f32" else ir.HalfType(), lanes)

        def body(at: Any) -> None:
            loaded = b.load(pointer(b, b.add(source, b.mul(at, _I64(size))), floats), align=size)
            rounded = _round_to_bf16(b, b.bitcast(from_memory(b, loaded, elem), words), lanes)
            b.store(b.trunc(rounded, out), pointer(b, b.add(target, b.mul(at, _I64(2))), out), align=2)

        _steps(b, count, lanes, body)

    return emit


def _dot_row(b: ir.IRBuilder, row: Sequence[float], values: Sequence[Any]) -> Any:
    """The dot product of values and a row of a matrix."""
    total = None
    for factor, value in zip(row, values, strict=True):
        if not factor:
            continue
        lanes = value.type.count
        one = value if factor == 1 else b.fmul(value, ir.Constant(value.type, [float(factor)] * lanes))
        total = one if total is None else b.fadd(total, one)
    return total


def filter_planes(isa: Target, matrix: Sequence[Sequence[float]], kind: str = "f32") -> dict[str, Any]:
    """The intrinsic that transforms 3 x 3 filters in f32 by a matrix G, into words of one channel in f32, or
    of two in bf16 or i16. For i16 the filters and the matrix are integers."""
    lanes, i = isa.lanes, types.int64
    floats, doubles, bits = (ir.VectorType(kind, lanes) for kind in (ir.FloatType(), ir.DoubleType(), _I32))
    words: dict[str, Callable[..., Any]] = {"f32": _real_word, "bf16": _bf16_word, "i16": _pair_word}
    channels, word_of = 1 if kind == "f32" else 2, words[kind]

    def emit(b: ir.IRBuilder, start: Any, target: Any, line: Any, plane: Any) -> None:
        def half_transformed(source: Any) -> list[list[Any]]:
            """G times the filters from `source` on, by columns."""
            taps = []
            for _ in range(9):
                taps.append(b.fpext(b.load(pointer(b, source, floats), align=4), doubles))
                source = b.add(source, line)
            return [[_dot_row(b, row, taps[column::3]) for row in matrix] for column in range(3)]

        def body(at: Any) -> None:
            source, to = b.add(start, at), b.add(target, at)
            transforms = [half_transformed(b.add(source, b.mul(line, _I64(9 * c)))) for c in range(channels)]
            for k, row in itertools.product(range(len(matrix)), matrix):
                transformed = [_dot_row(b, row, [column[k] for column in columns]) for columns in transforms]
                b.store(word_of(b, lanes, *transformed), pointer(b, to, bits), align=4)
                to = b.add(to, plane)

        _steps(b, line, 4 * lanes, body)

    return {"filter_planes": make("filter_planes", signature(types.void, i, i, i, i), emit)}


def _real_word(b: ir.IRBuilder, lanes: int, value: Any) -> Any:
    """The bits of f64 rounded to f32, with subnormals flushed."""
    word = b.bitcast(b.fptrunc(value, ir.VectorType(ir.FloatType(), lanes)), ir.VectorType(_I32, lanes))
    return _without_tiny(b, word, lanes, 0x7F800000, 0x80000000)


def _bf16_word(b: ir.IRBuilder, lanes: int, low: Any, high: Any) -> Any:
    """Two numbers in f64, rounded to f32 and then to bf16, with subnormals flushed, as a word."""
    first, second = (_round_to_bf16(b, _real_word(b, lanes, value), lanes) for value in (low, high))
    return b.or_(first, b.shl(second, _all(lanes, 16)))


def _pair_word(b: ir.IRBuilder, lanes: int, low: Any, high: Any) -> Any:
    """Two integers in f64 as two i16 of a word."""
    first, second = (b.fptosi(value, ir.VectorType(_I32, lanes)) for value in (low, high))
    return b.or_(b.and_(first, _all(lanes, 0xFFFF)), b.shl(second, _all(lanes, 16)))


#: Bytes that intrinsics on i8 process at once: four words.
_BLOCK = 16


def _pair_sums(b: ir.IRBuilder, source: Any, target: Any, size: Any) -> None:
    pairs, eight = ir.VectorType(_I16, _BLOCK // 2), ir.VectorType(_I8, _BLOCK // 2)
    bits, zero, most = (ir.Constant(pairs, [_I16(n)] * pairs.count) for n in (8, 0, 255))

    def smaller(x: Any, y: Any) -> Any:
        return b.select(b.icmp_signed("<", x, y), x, y)

    def body(at: Any) -> None:
        word = b.load(pointer(b, b.add(source, at), pairs), align=1)
        both = b.ashr(b.shl(word, bits), bits), b.ashr(word, bits)
        negative = b.neg(b.add(*(smaller(x, zero) for x in both)))
        positive = b.add(b.add(*both), negative)
        sums = b.add(b.add(target, size), b.lshr(at, _I64(1)))
        for total, to in (
            (positive, b.add(target, at)),
            (negative, b.add(b.add(target, at), _I64(_BLOCK // 2))),
            (b.add(positive, negative), sums),
        ):
            b.store(b.trunc(smaller(total, most), eight), pointer(b, to, eight), align=1)

    _steps(b, size, _BLOCK, body)


def _exceed(b: ir.IRBuilder, x: Any, y: Any, size: Any, most: Any) -> Any:
    kind, bits = ir.VectorType(_I8, _BLOCK), ir.IntType(8 * _BLOCK)
    one = b.insert_element(ir.Constant(kind, ir.Undefined), b.trunc(most, _I8), _I32(0))
    limit = b.shuffle_vector(
        one, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(_I32, _BLOCK), None)
    )

    def body(at: Any, exceeding: Any) -> Any:
        first, second = (b.load(pointer(b, b.add(p, at), kind), align=1) for p in (x, y))
        return b.or_(exceeding, call_intrinsic(b, "llvm.usub.sat.v16i8", kind, [first, b.sub(limit, second)]))

    over = _accumulate(b, size, _BLOCK, body, ir.Constant(kind, None))
    return b.zext(b.icmp_unsigned("!=", b.bitcast(over, bits), bits(0)), _I64)


def _copy_bytes(b: ir.IRBuilder, source: Any, target: Any, size: Any) -> None:
    kind = ir.VectorType(_I8, _BLOCK)

    def body(at: Any) -> None:
        block = b.load(pointer(b, b.add(source, at), kind), align=1)
        b.store(block, pointer(b, b.add(target, at), kind), align=1)

    _steps(b, size, _BLOCK, body)


def _turn_signs(b: ir.IRBuilder, source: Any, sizes: Any, masks: Any, bias: Any, size: Any) -> None:
    kind, ints, words = (ir.VectorType(*of) for of in ((_I8, _BLOCK), (_I32, _BLOCK), (_I32, _BLOCK // 4)))
    zero, low, high = (ir.Constant(kind, [_I8(n)] * _BLOCK) for n in (0, 0x7F, -0x80))
    less, more = (ir.Constant(ints, [_I32(n)] * _BLOCK) for n in (127, 128))

    def body(at: Any) -> None:
        w = b.load(pointer(b, b.add(source, at), kind), align=1)
        below = b.icmp_signed("<", w, zero)
        b.store(b.select(below, b.neg(w), w), pointer(b, b.add(sizes, at), kind), align=1)
        b.store(b.select(below, low, high), pointer(b, b.add(masks, at), kind), align=1)
        products = b.mul(b.sext(w, ints), b.select(below, less, more))
        to = pointer(b, b.add(bias, at), words)
        total = b.load(to, align=4)
        for first in range(4):
            order = ir.Constant(words, [_I32(n) for n in range(first, _BLOCK, 4)])
            total = b.add(total, b.shuffle_vector(products, ir.Constant(ints, ir.Undefined), order))
        b.store(total, to, align=4)

    _steps(b, size, _BLOCK, body)


def ordering(isa: Target) -> dict[str, Any]:
    """The intrinsics for i8 weights of `ovjit.tiles.narrow`, in vectors of 128 bits."""
    i = types.int64
    three = signature(types.void, i, i, i)
    return {
        "pair_sums": make("pair_sums", three, _pair_sums),
        "exceed": make("exceed", signature(i, i, i, i, i), _exceed),
        "copy_bytes": make("copy_bytes", three, _copy_bytes),
        "turn_signs": make("turn_signs", signature(types.void, i, i, i, i, i), _turn_signs),
    }


def intrinsics(isa: Target) -> dict[str, Any]:
    """The other intrinsics, for vectors of an instruction set."""
    lanes, i = isa.lanes, types.int64
    kind = ir.VectorType(_I32, lanes)

    def flip(b: ir.IRBuilder, start: Any, size: Any, mask: Any) -> None:
        one = b.insert_element(ir.Constant(kind, ir.Undefined), b.trunc(mask, _I32), _I32(0))
        masks = b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), _all(lanes, 0))
        _walk(b, lanes, start, size, lambda word: b.xor(word, masks))

    def changing(change: Callable[[ir.IRBuilder, Any], Any]) -> Callable[..., None]:
        return lambda b, address, size: _walk(b, lanes, address, size, lambda word: change(b, word))

    def spread(b: ir.IRBuilder, word: Any) -> Any:
        return _swap_bits(b, _swap_bits(b, word, lanes, 0x0000FF00, 8), lanes, 0x00F000F0, 4)

    def flush_halves(b: ir.IRBuilder, word: Any) -> Any:
        upper = _without_tiny(b, word, lanes, 0x7F800000, 0x8000FFFF)
        return _without_tiny(b, upper, lanes, 0x00007F80, 0xFFFF8000)

    changes = {
        "spread_nibbles": spread,
        "flush_tiny": lambda b, word: _without_tiny(b, word, lanes, 0x7F800000, 0x80000000),
        "flush_halves": flush_halves,
        "turn_bytes": lambda b, word: _group_by_position(b, word, lanes, 1),
        "turn_pairs": lambda b, word: _group_by_position(b, word, lanes, 2),
    }
    three = signature(types.void, i, i, i)
    return {
        "flip_bits": make("flip_bits", three, flip),
        **{name: make(name, signature(types.void, i, i), changing(one)) for name, one in changes.items()},
        "round_f32": make("round_f32", three, _rounding(lanes, "f32")),
        "round_f16": make("round_f16", three, _rounding(lanes, "f16")),
    }
