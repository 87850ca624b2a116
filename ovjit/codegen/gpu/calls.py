"""Calls of LLVM's intrinsics, the number of a thread's lane, and numbers of 16 bits."""

from __future__ import annotations

import llvmlite.ir as ir

_I16, _I32, _I64 = (ir.IntType(n) for n in (16, 32, 64))


def call(b: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    """Call an intrinsic of LLVM, which is declared at its first use."""
    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(result, [a.type for a in arguments]), name)
    return b.call(function, list(arguments))


def lane_number(b: ir.IRBuilder, bits: int = 32) -> ir.Value:
    """This thread's lane, read once in a block."""
    by_bits = b.block.__dict__.setdefault("lane_number", {})
    if bits not in by_bits:
        by_bits[32] = call(b, "llvm.nvvm.read.ptx.sreg.laneid", _I32)
        by_bits[64] = b.zext(by_bits[32], _I64)
    return by_bits[bits]


def to_bf16(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The bits of an f32 as bf16, rounded to nearest even; a NaN stays one."""
    bits = b.bitcast(value, _I32)
    odd = b.and_(b.lshr(bits, _I32(16)), _I32(1))
    rounded = b.lshr(b.add(b.add(bits, _I32(0x7FFF)), odd), _I32(16))
    quiet = b.or_(b.lshr(bits, _I32(16)), _I32(0x40))
    return b.trunc(b.select(b.fcmp_unordered("uno", value, value), quiet, rounded), _I16)
