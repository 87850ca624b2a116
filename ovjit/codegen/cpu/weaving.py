"""Intrinsics that change packed weights in place: rows of whole vectors, in the first-level cache.

    flip_bits(place, size, mask)      exclusive or of each 32-bit word with the low half of `mask`
    spread_nibbles(place, size)       of each word the nibbles 0 1 2 3 4 5 6 7 become 0 4 1 5 2 6 3 7
    flush_tiny(place, size)           subnormal f32 become zeros of their sign

`size` is in bytes, a multiple of a vector's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu import types
from ovjit.codegen.cpu.intrinsics import make
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.cpu.types import signature
from ovjit.codegen.cpu.vector_types import pointer

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _walk(b: ir.IRBuilder, lanes: int, place: Any, size: Any, change: Callable[[Any], Any]) -> None:
    """Load, change and store one vector after the other."""
    kind = ir.VectorType(_I32, lanes)
    before, loop, after = b.block, b.append_basic_block("vectors"), b.append_basic_block("done")
    b.cbranch(b.icmp_signed(">", size, _I64(0)), loop, after)
    b.position_at_end(loop)
    at = b.phi(_I64)
    at.add_incoming(_I64(0), before)
    target = pointer(b, b.add(place, at), kind)
    b.store(change(b.load(target, align=1)), target, align=1)
    following = b.add(at, _I64(4 * lanes))
    at.add_incoming(following, b.block)
    b.cbranch(b.icmp_signed("<", following, size), loop, after)
    b.position_at_end(after)


def _all(lanes: int, value: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I32, lanes), [value] * lanes)


def _swapped(b: ir.IRBuilder, word: Any, lanes: int, mask: int, bits: int) -> Any:
    """The bits of `mask` and those `bits` above them change places."""
    shift = _all(lanes, bits)
    moved = b.and_(b.xor(b.lshr(word, shift), word), _all(lanes, mask))
    return b.xor(word, b.xor(moved, b.shl(moved, shift)))


def intrinsics(isa: Target) -> dict[str, Any]:
    """The three, for vectors of an instruction set."""
    lanes, i = isa.lanes, types.int64
    kind = ir.VectorType(_I32, lanes)

    def flip(b: ir.IRBuilder, place: Any, size: Any, mask: Any) -> None:
        one = b.insert_element(ir.Constant(kind, ir.Undefined), b.trunc(mask, _I32), _I32(0))
        whole = b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), _all(lanes, 0))
        _walk(b, lanes, place, size, lambda word: b.xor(word, whole))

    def spread(b: ir.IRBuilder, place: Any, size: Any) -> None:
        def change(word: Any) -> Any:
            return _swapped(b, _swapped(b, word, lanes, 0x0000FF00, 8), lanes, 0x00F000F0, 4)

        _walk(b, lanes, place, size, change)

    def flush(b: ir.IRBuilder, place: Any, size: Any) -> None:
        def change(word: Any) -> Any:
            tiny = b.icmp_unsigned("==", b.and_(word, _all(lanes, 0x7F800000)), _all(lanes, 0))
            return b.select(tiny, b.and_(word, _all(lanes, 0x80000000)), word)

        _walk(b, lanes, place, size, change)

    return {
        "flip_bits": make("flip_bits", signature(types.void, i, i, i), flip),
        "spread_nibbles": make("spread_nibbles", signature(types.void, i, i), spread),
        "flush_tiny": make("flush_tiny", signature(types.void, i, i), flush),
    }
