"""Calls of LLVM's intrinsics, and the number of a thread's lane."""

from __future__ import annotations

import llvmlite.ir as ir

_I32, _I64 = ir.IntType(32), ir.IntType(64)


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
