"""The words for tensor cores and shared memory as LLVM code: `tests.support.warp_meanings` has their meaning.

Shared memory is one array of a block, of which each warp has its own part. An address in it is an int64, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu.vector_types import scalar_ir
from ovjit.codegen.gpu.calls import call, lane_number, to_bf16
from ovjit.codegen.memory import SIZE
from ovjit.codegen.warps import MOST_SHARED, WARPS

_I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
_F16, _F32, _HALVES, _VOID = ir.HalfType(), ir.FloatType(), ir.VectorType(ir.HalfType(), 2), ir.VoidType()
#: Element type -> instruction of m16n8, and the type of a word of its factors.
_PRODUCTS = {
    "f16": ("k16.row.col.f32.f32", _HALVES), "bf16": ("k16.row.col.bf16", _I32),
    "f32": ("k8.row.col.tf32", _I32), "i8": ("k32.row.col.s8", _I32), "u8": ("k32.row.col.u8.s8", _I32),
}  # fmt: skip
_SHARED = "ovjit_shared"


def sum_type(elem: str) -> ir.Type:
    """The type of sums of products of elements of this type."""
    return _I32 if elem[0] in "iu" else _F32


def _pointer(b: ir.IRBuilder, address: ir.Value, kind: ir.Type, space: int) -> ir.Value:
    return b.inttoptr(address, kind.as_pointer(space))


def _shared_pointer(b: ir.IRBuilder, address: ir.Value, kind: ir.Type = _I8) -> ir.Value:
    return _pointer(b, address, kind, 3)


def _offset(b: ir.IRBuilder, base: ir.Value, lanes: ir.Value) -> ir.Value:
    """The address of this lane: base + lane * step."""
    return b.add(base, lanes if lanes.type == _I64 else b.zext(lanes, _I64))


def vector_of(b: ir.IRBuilder, parts: Sequence[ir.Value]) -> ir.Value:
    """Combine registers to a vector."""
    result: ir.Value = ir.Constant(ir.VectorType(parts[0].type, len(parts)), ir.Undefined)
    for i, part in enumerate(parts):
        result = b.insert_element(result, part, _I32(i))
    return result


def _join(b: ir.IRBuilder, parts: ir.Value) -> ir.Value:
    """The four registers of a structure as a vector."""
    return vector_of(b, [b.extract_value(parts, i) for i in range(4)])


def _parts(b: ir.IRBuilder, vector: ir.Value, first: int = 0, count: int = 4) -> list[ir.Value]:
    return [b.extract_element(vector, _I32(first + i)) for i in range(count)]


def _shared_memory(b: ir.IRBuilder, size: ir.Value) -> ir.Value:
    assert 0 < size.constant <= MOST_SHARED, size
    array = b.module.globals.get(_SHARED)
    if array is None:
        array = ir.GlobalVariable(b.module, ir.ArrayType(_I8, size.constant * WARPS), _SHARED, addrspace=3)
        array.linkage, array.align = "internal", 16
        array.initializer = ir.Constant(array.value_type, ir.Undefined)
    warp = b.zext(call(b, "llvm.nvvm.read.ptx.sreg.tid.y", _I32), _I64)
    return b.add(b.ptrtoint(array, _I64), b.mul(warp, size))


def _copy_async(
    b: ir.IRBuilder, to: ir.Value, at: ir.Value, source: ir.Value, offsets: ir.Value, sizes: ir.Value
) -> None:
    pointers = _shared_pointer(b, _offset(b, to, at)), _pointer(b, _offset(b, source, offsets), _I8, 1)
    call(b, "llvm.nvvm.cp.async.ca.shared.global.16.s", _VOID, *pointers, sizes)


def _read_tiles(form: str) -> Callable[..., ir.Value]:
    four = ir.LiteralStructType([_I32] * 4)
    name = f"llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4{form}.b16.p3"
    return lambda b, p, at: _join(b, call(b, name, four, _shared_pointer(b, _offset(b, p, at))))


def _mma(elem: str) -> Callable[..., ir.Value]:
    name, word = _PRODUCTS[elem]
    four = ir.LiteralStructType([sum_type(elem)] * 4)

    def body(b: ir.IRBuilder, rows: ir.Value, columns: ir.Value, half: ir.Value, sums: ir.Value) -> ir.Value:
        words = [*_parts(b, rows), *_parts(b, columns, 2 * half.constant, 2)]
        factors = [b.bitcast(each, word) for each in words]
        return _join(b, call(b, f"llvm.nvvm.mma.m16n8{name}", four, *factors, *_parts(b, sums)))

    return body


def _zero_sums(elem: str) -> Callable[..., ir.Value]:
    return lambda b: ir.Constant(ir.VectorType(sum_type(elem), 4), [0] * 4)


def _share_sums(elem: str) -> Callable[..., None]:
    def body(b: ir.IRBuilder, p: ir.Value, at: ir.Value, sums: ir.Value, step: ir.Value) -> None:
        address = _offset(b, p, at)
        for row in range(2):
            pair: ir.Value = ir.Constant(ir.VectorType(sum_type(elem), 2), ir.Undefined)
            for i, part in enumerate(_parts(b, sums, 2 * row, 2)):
                pair = b.insert_element(pair, part, _I32(i))
            to = b.add(address, step) if row else address
            b.store(pair, _shared_pointer(b, to, pair.type), align=8)

    return body


def part_of_sums(b: ir.IRBuilder, sums: ir.Value, index: ir.Value) -> ir.Value:
    return b.extract_element(sums, _I32(index.constant))


def _pack_sums(elem: str) -> Callable[..., ir.Value]:
    def to_bits(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
        return to_bf16(b, value) if elem == "bf16" else b.bitcast(b.fptrunc(value, _F16), _I16)

    def body(b: ir.IRBuilder, first: ir.Value, second: ir.Value) -> ir.Value:
        elements = [b.zext(to_bits(b, part), _I32) for sums in (first, second) for part in _parts(b, sums)]
        pairs = zip(elements[0::2], elements[1::2], strict=True)
        return vector_of(b, [b.or_(low, b.shl(high, _I32(16))) for low, high in pairs])

    return body


def _read_shared(elem: str) -> Callable[..., ir.Value]:
    kind = scalar_ir(elem)
    return lambda b, p: b.load(
        _shared_pointer(b, b.add(p, b.mul(lane_number(b, 64), _I64(4))), kind), align=4, typ=kind
    )


def _share_elements(elem: str) -> Callable[..., None]:
    def body(b: ir.IRBuilder, p: ir.Value, at: ir.Value, element: ir.Value) -> None:
        b.store(element, _shared_pointer(b, _offset(b, p, at), element.type), align=SIZE[elem])

    return body


def _read_elements(elem: str) -> Callable[..., ir.Value]:
    kind = scalar_ir(elem)
    return lambda b, p, at: b.load(_shared_pointer(b, _offset(b, p, at), kind), align=SIZE[elem], typ=kind)


def _no_arguments(name: str) -> Callable[..., None]:
    def body(b: ir.IRBuilder) -> None:
        call(b, name, _VOID)

    return body


def _await_copies(b: ir.IRBuilder, count: ir.Value) -> None:
    call(b, "llvm.nvvm.cp.async.wait.group", _VOID, _I32(count.constant))


def _lane_numbers(elem: str) -> Callable[..., ir.Value]:
    bits = scalar_ir(elem).width
    return lambda b: lane_number(b, bits)


#: Word -> its code generator, as in `ovjit.codegen.gpu.words`.
BODIES: dict[str, Any] = {
    "shared_memory": _shared_memory, "copy_async": _copy_async, "await_copies": _await_copies,
    "commit_copies": _no_arguments("llvm.nvvm.cp.async.commit.group"), "read_tiles": _read_tiles(""),
    "read_turned": _read_tiles(".trans"), "part_of_sums_T": lambda elem: part_of_sums,
    "join_sums_T": lambda elem: lambda b, *parts: vector_of(b, parts), "pack_sums_T": _pack_sums,
    "mma_T": _mma, "zero_sums_T": _zero_sums, "share_sums_T": _share_sums, "read_shared_T": _read_shared,
    "share_elements_T": _share_elements, "read_elements_T": _read_elements, "lane_numbers_T": _lane_numbers,
}  # fmt: skip
