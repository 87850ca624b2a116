"""Elements in memory and in registers: loads and stores of vectors and single elements, as LLVM text.

f16 and bf16 are f32 in registers; boolean is a byte in memory and a bit in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu.neon import words as neon
from ovjit.codegen.cpu.printing import isa_of
from ovjit.codegen.cpu.targets import has_features
from ovjit.codegen.cpu.vector_types import (
    SIZE,
    bf16_vector,
    broadcast,
    call_intrinsic,
    iota_mask,
    lane_indices,
    pointer,
    scalar_ir,
    suffix,
)

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))


def memory_ir(elem: str) -> ir.Type:
    """The LLVM type of one element in memory."""
    if elem == "f16":
        return ir.HalfType()
    if elem in ("bf16", "boolean"):
        return {"bf16": _I16, "boolean": _I8}[elem]
    return scalar_ir(elem)


def _of_lanes(lanes: int) -> tuple[Callable[[ir.Type], ir.Type], Callable[..., ir.Constant]]:
    """(the type of a vector of so many lanes, a constant in each of them); 0: of a scalar."""

    def typed(s: ir.Type) -> ir.Type:
        return ir.VectorType(s, lanes) if lanes else s

    def constant(x: Any, s: ir.Type = _I32) -> ir.Constant:
        return ir.Constant(typed(s), [x] * lanes if lanes else x)

    return typed, constant


def from_memory(builder: ir.IRBuilder, v: ir.Value, elem: str) -> ir.Value:
    """Memory representation -> register representation, scalars and vectors."""
    lanes = v.type.count if isinstance(v.type, ir.VectorType) else 0
    t, k = _of_lanes(lanes)
    if elem == "f16":
        if _has_halves(builder, lanes):
            return builder.fpext(v, t(ir.FloatType()))
        return _half_to_float(builder, v, lanes)
    if elem == "bf16":
        extended = builder.zext(v, t(_I32))
        return builder.bitcast(builder.shl(extended, k(16)), t(ir.FloatType()))
    if elem == "boolean":
        return builder.icmp_unsigned("!=", v, k(0, _I8))
    return v


def to_memory(builder: ir.IRBuilder, v: ir.Value, elem: str) -> ir.Value:
    """Register representation -> memory representation; bf16 rounds to nearest even, NaN stays NaN."""
    lanes = v.type.count if isinstance(v.type, ir.VectorType) else 0
    t, k = _of_lanes(lanes)
    if elem == "f16":
        if _has_halves(builder, lanes):
            return builder.fptrunc(v, t(ir.HalfType()))
        return _float_to_half(builder, v, lanes)
    if elem == "bf16":
        if lanes == _BF16_LANES and has_features(isa_of(builder), ("avx512bf16",)):
            name = f"llvm.x86.avx512bf16.cvtneps2bf16.{32 * lanes}"
            return builder.bitcast(call_intrinsic(builder, name, bf16_vector(lanes), [v]), t(_I16))
        if lanes == 4 and isa_of(builder).name == "neon" and neon.rounds_bf16(builder):
            return neon.to_bf16(builder, v)
        i = builder.bitcast(v, t(_I32))
        odd = builder.and_(builder.lshr(i, k(16)), k(1))
        rounded = builder.lshr(builder.add(builder.add(i, k(0x7FFF)), odd), k(16))
        quiet = builder.or_(builder.lshr(i, k(16)), k(0x40))
        nan = builder.fcmp_unordered("uno", v, v)
        return builder.trunc(builder.select(nan, quiet, rounded), t(_I16))
    if elem == "boolean":
        return builder.zext(v, t(_I8))
    return v


#: Targets with vectors of this many lanes or fewer may have no f16 instructions. LLVM would then call
#: functions of libgcc, which may be missing in a process. Scalars (0 lanes) are converted likewise.
_NO_HALVES = 4


def _has_halves(builder: ir.IRBuilder, lanes: int) -> bool:
    """Whether an instruction converts f16: all AArch64 CPUs have it."""
    return lanes > _NO_HALVES or isa_of(builder).name == "neon"


#: Vectors of this many lanes are rounded to bf16 by an instruction, if the CPU has it. It flushes denormals.
_BF16_LANES = 16


def _half_to_float(b: ir.IRBuilder, v: ir.Value, lanes: int) -> ir.Value:
    """f16 -> f32 by integers: exact, NaN stays NaN."""
    t, k = _of_lanes(lanes)
    h = b.zext(b.bitcast(v, t(_I16)), t(_I32))
    size = b.and_(h, k(0x7FFF))
    shifted = b.shl(size, k(13))
    normal = b.add(shifted, k(112 << 23))
    small = b.bitcast(b.fmul(b.sitofp(size, t(ir.FloatType())), k(2.0**-24, ir.FloatType())), t(_I32))
    finite = b.select(b.icmp_signed("<", size, k(0x400)), small, normal)
    bits = b.select(b.icmp_signed(">=", size, k(0x7C00)), b.or_(shifted, k(0x7F800000)), finite)
    sign = b.shl(b.and_(h, k(0x8000)), k(16))
    return b.bitcast(b.or_(bits, sign), t(ir.FloatType()))


def _float_to_half(b: ir.IRBuilder, v: ir.Value, lanes: int) -> ir.Value:
    """f32 -> f16 by integers: to the nearest, ties to even; NaN stays NaN."""
    t, k = _of_lanes(lanes)
    i = b.bitcast(v, t(_I32))
    size = b.and_(i, k(0x7FFFFFFF))
    moved = b.sub(size, k(112 << 23))
    odd = b.and_(b.lshr(moved, k(13)), k(1))
    normal = b.lshr(b.add(b.add(moved, k(0xFFF)), odd), k(13))
    # below 2^-14: the addition rounds to multiples of 2^-24, which is what the last bit of 0.5 is worth
    half = k(0.5, ir.FloatType())
    raised = b.fadd(b.bitcast(size, t(ir.FloatType())), half)
    small = b.sub(b.bitcast(raised, t(_I32)), k(0x3F000000))
    finite = b.select(b.icmp_signed("<", size, k(0x38800000)), small, normal)
    bounded = b.select(b.icmp_signed(">=", size, k(0x477FF000)), k(0x7C00), finite)
    nan = b.or_(k(0x7E00), b.and_(b.lshr(size, k(13)), k(0x3FF)))
    bits = b.select(b.icmp_signed(">", size, k(0x7F800000)), nan, bounded)
    sign = b.and_(b.lshr(i, k(16)), k(0x8000))
    return b.bitcast(b.trunc(b.or_(bits, sign), t(_I16)), t(ir.HalfType()))


def load_vector(
    builder: ir.IRBuilder, address: ir.Value, elem: str, lanes: int, n: ir.Value | None = None
) -> ir.Value:
    """`lanes` elements at `address`. With `n`, only the first n are read, and other lanes are 0."""
    vt = ir.VectorType(memory_ir(elem), lanes)
    p = pointer(builder, address, vt)

    def load_masked() -> ir.Value:
        return masked_load(builder, p, vt, SIZE[elem], iota_mask(builder, n, lanes))

    def load_full() -> ir.Value:
        return builder.load(p, align=SIZE[elem])

    if n is None:
        v = load_full()
    elif lanes >= _MASKED_LANES or SIZE[elem] >= 4:
        v = load_masked()
    else:
        v = _if_whole(builder, n, lanes, load_full, load_masked)
    return from_memory(builder, v, elem)


#: Vectors with this many lanes are AVX-512's, whose masks are free. Elsewhere a masked store takes about ten
#: times as long as a full one on some CPUs, and a masked load of 1- or 2-byte elements is a branch per lane.
_MASKED_LANES = 16


def _if_whole(
    builder: ir.IRBuilder, n: ir.Value, lanes: int, full: Callable[[], Any], masked: Callable[[], Any]
) -> Any:
    """Emit `full` for n >= lanes, else `masked`, with a branch. Returns the value, if there is one."""
    results = []
    with builder.if_else(builder.icmp_signed(">=", n, n.type(lanes))) as ways:
        for way, make in zip(ways, (full, masked), strict=True):
            with way:
                value = make()
                results.append((value, builder.block))
    if results[0][0] is None:
        return None
    phi = builder.phi(results[0][0].type)
    for value, block in results:
        phi.add_incoming(value, block)
    return phi


def masked_load(
    builder: ir.IRBuilder, p: ir.Value, vt: ir.VectorType, align: int, mask: ir.Value
) -> ir.Value:
    zero = (
        ir.Constant(vt, [0] * vt.count) if not isinstance(vt.element, ir.HalfType) else ir.Constant(vt, None)
    )
    return call_intrinsic(builder, f"llvm.masked.load.{suffix(vt)}.p0", vt, [p, _I32(align), mask, zero])


def hidden(builder: ir.IRBuilder, n: ir.Value) -> ir.Value:
    """`n`, opaque to the optimiser, without an instruction. Equal calls are merged."""
    same = builder.asm(ir.FunctionType(n.type, [n.type]), "", "=r,0", [n], False)
    same.attributes.add("readnone")
    same.attributes.add("nounwind")
    return same


def splat(builder: ir.IRBuilder, address: ir.Value, elem: str, lanes: int) -> ir.Value:
    """The one element at `address` in all lanes."""
    return broadcast(builder, load_scalar(builder, address, elem), lanes)


#: Types that are stored without narrowing of lanes.
_NOT_NARROWED = ("f32", "f64", "i64", "u64")


def store_vector(
    builder: ir.IRBuilder,
    address: ir.Value,
    v: ir.Value,
    elem: str,
    n: ir.Value | None = None,
    part: bool = False,
) -> None:
    """Store lanes of `v`; with `n`, only the first n. `part`: n is less than the number of lanes, and
    `hidden` already."""
    v = to_memory(builder, v, elem)
    vt = v.type
    p = pointer(builder, address, vt)

    def store_full() -> None:
        builder.store(v, p, align=SIZE[elem])

    def store_masked() -> None:
        # LLVM merges narrowing and store. If it knows that n is 1, it drops the narrowing and writes the wide
        # lane: 4 bytes for one bf16. So n is hidden for types that may be narrowed.
        keeps_width = part or elem in _NOT_NARROWED
        mask = iota_mask(builder, n if keeps_width else hidden(builder, n), vt.count)
        arguments = [v, p, _I32(SIZE[elem]), mask]
        call_intrinsic(builder, f"llvm.masked.store.{suffix(vt)}.p0", ir.VoidType(), arguments)

    if n is None:
        store_full()
    elif part or vt.count >= _MASKED_LANES:
        store_masked()
    else:
        _if_whole(builder, n, vt.count, store_full, store_masked)


def load_scalar(b: ir.IRBuilder, p: ir.Value, elem: str) -> ir.Value:
    return from_memory(b, b.load(pointer(b, p, memory_ir(elem)), align=SIZE[elem]), elem)


def store_scalar(b: ir.IRBuilder, p: ir.Value, x: ir.Value, elem: str) -> None:
    if elem == "boolean" and x.type != _I1:
        x = b.trunc(x, _I1)
    v = to_memory(b, x, elem)
    b.store(v, pointer(b, p, v.type), align=SIZE[elem])


def _lane_addresses(b: ir.IRBuilder, p: ir.Value, stride: ir.Value, lanes: int, to: ir.Type) -> ir.Value:
    iota = ir.Constant(ir.VectorType(_I64, lanes), list(range(lanes)))
    addresses = b.add(broadcast(b, p, lanes), b.mul(iota, broadcast(b, stride, lanes)))
    return b.inttoptr(addresses, ir.VectorType(to.as_pointer(), lanes))


def gather(elem: str, lanes: int) -> Any:
    def body(b: ir.IRBuilder, p: ir.Value, stride: ir.Value, n: ir.Value) -> ir.Value:
        t = memory_ir(elem)
        vt = ir.VectorType(t, lanes)
        pointers = _lane_addresses(b, p, stride, lanes, t)
        zero = ir.Constant(vt, None)
        args = [pointers, _I32(SIZE[elem]), iota_mask(b, n, lanes), zero]
        return from_memory(
            b, call_intrinsic(b, f"llvm.masked.gather.{suffix(vt)}.v{lanes}p0", vt, args), elem
        )

    return body


def scatter(elem: str, lanes: int) -> Any:
    def body(b: ir.IRBuilder, p: ir.Value, stride: ir.Value, v: ir.Value, n: ir.Value) -> None:
        v = to_memory(b, v, elem)
        pointers = _lane_addresses(b, p, stride, lanes, v.type.element)
        args = [v, pointers, _I32(SIZE[elem]), iota_mask(b, n, lanes)]
        call_intrinsic(b, f"llvm.masked.scatter.{suffix(v.type)}.v{lanes}p0", ir.VoidType(), args)

    return body


def load_strided(elem: str, lanes: int) -> Any:
    gathered = gather(elem, lanes)
    # no CPU gathers these types; a few shuffles of a contiguous load are faster than scalar loads
    channels = (2, 3, 4) if SIZE[elem] <= 2 else ()

    def body(b: ir.IRBuilder, p: ir.Value, stride: ir.Value, n: ir.Value) -> ir.Value:
        ways = [
            (SIZE[elem], None, lambda: load_vector(b, p, elem, lanes, n)),
            (0, None, lambda: splat(b, p, elem, lanes)),
            *((k * SIZE[elem], lanes, lambda k=k: _every(b, p, elem, lanes, k)) for k in channels),
        ]

        def choose(at: int) -> ir.Value:
            if at == len(ways):
                return gathered(b, p, stride, n)
            step, least, make = ways[at]
            here = b.icmp_signed("==", stride, ir.Constant(_I64, step))
            if least is not None:
                here = b.and_(here, b.icmp_signed(">=", n, ir.Constant(_I64, least)))
            with b.if_else(here) as (then, otherwise):
                with then:
                    mine, mine_from = make(), b.block
                with otherwise:
                    other, other_from = choose(at + 1), b.block
            out = b.phi(mine.type)
            out.add_incoming(mine, mine_from)
            out.add_incoming(other, other_from)
            return out

        return choose(0)

    return body


def _every(b: ir.IRBuilder, p: ir.Value, elem: str, lanes: int, k: int) -> ir.Value:
    """Load every k-th element from address `p`. No byte after the last element is read."""
    t = memory_ir(elem)
    run = ir.VectorType(t, (lanes - 1) * k + 1)
    block = b.load(pointer(b, p, run), align=SIZE[elem])
    chosen = lane_indices(*range(0, k * lanes, k))
    return from_memory(b, b.shuffle_vector(block, ir.Constant(run, ir.Undefined), chosen), elem)


def evens(b: ir.IRBuilder, p: ir.Value, elem: str, lanes: int) -> ir.Value:
    """The even elements of two vectors, which takes one or two shuffles on each CPU."""
    t = ir.VectorType(memory_ir(elem), lanes)
    low = pointer(b, p, t)
    parts = [b.load(at, align=SIZE[elem]) for at in (low, b.gep(low, [_I32(1)], source_etype=t))]
    chosen = lane_indices(*range(0, 2 * lanes, 2))
    return from_memory(b, b.shuffle_vector(*parts, chosen), elem)


def thirds(b: ir.IRBuilder, p: ir.Value, elem: str, lanes: int) -> ir.Value:
    """Elements 0, 3, 6, ... of three vectors: two shuffles of two vectors each."""
    t = ir.VectorType(memory_ir(elem), lanes)
    low = pointer(b, p, t)
    first, second, third = (
        b.load(at, align=SIZE[elem]) for at in (low, *(b.gep(low, [_I32(n)], source_etype=t) for n in (1, 2)))
    )
    before = len(range(0, 2 * lanes, 3))  # elements of the first two vectors
    joined = b.shuffle_vector(first, second, lane_indices(*range(0, 2 * lanes, 3), *range(lanes - before)))
    others = range(3 * before - lanes, 2 * lanes, 3)  # of `joined` and the third vector
    return from_memory(b, b.shuffle_vector(joined, third, lane_indices(*range(before), *others)), elem)


def store_strided(elem: str, lanes: int) -> Any:
    scattered = scatter(elem, lanes)

    def body(b: ir.IRBuilder, p: ir.Value, stride: ir.Value, v: ir.Value, n: ir.Value) -> None:
        near = b.icmp_signed("==", stride, ir.Constant(_I64, SIZE[elem]))
        with b.if_else(near) as (then, otherwise):
            with then:
                store_vector(b, p, v, elem, n)
            with otherwise:
                scattered(b, p, stride, v, n)

    return body


def take(elem: str, lanes: int) -> Any:
    def body(b: ir.IRBuilder, p: ir.Value, index: ir.Value) -> ir.Value:
        t = memory_ir(elem)
        vt = ir.VectorType(t, lanes)
        base = broadcast(b, pointer(b, p, t), lanes)
        pointers = b.gep(base, [index], source_etype=t)
        ones = ir.Constant(ir.VectorType(_I1, lanes), [1] * lanes)
        args = [pointers, _I32(SIZE[elem]), ones, ir.Constant(vt, None)]
        return from_memory(
            b, call_intrinsic(b, f"llvm.masked.gather.{suffix(vt)}.v{lanes}p0", vt, args), elem
        )

    return body
