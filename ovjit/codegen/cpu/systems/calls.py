"""Calls of C functions in LLVM."""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu.vector_types import pointer

I32, I64 = ir.IntType(32), ir.IntType(64)
BILLION = I64(1_000_000_000)


def call(b: ir.IRBuilder, name: str, result: ir.Type, *args: ir.Value, variadic: int = 0) -> Any:
    """Call a C function. `variadic`: the number of its named parameters, if it is variadic, else 0."""
    kinds = [a.type for a in args][: variadic or None]
    kind = ir.FunctionType(result, kinds, var_arg=bool(variadic))
    return b.call(b.module.globals.get(name) or ir.Function(b.module, kind, name), args)


def memory(b: ir.IRBuilder, words: int) -> Any:
    """The address of `words` int64s on the stack, in the entry block: inside a loop, each iteration would use
    more stack."""
    with b.goto_entry_block():
        words_on_stack = b.alloca(ir.ArrayType(I64, words))
    return b.ptrtoint(words_on_stack, I64)


def word(b: ir.IRBuilder, address: Any, i: int = 0) -> Any:
    """A pointer to the i-th int64 at an address."""
    return pointer(b, b.add(address, I64(8 * i)), I64)


def clamp(b: ir.IRBuilder, x: Any, least: int, most: int) -> Any:
    for sign, end in (("<", least), (">", most)):
        x = b.select(b.icmp_signed(sign, x, I64(end)), I64(end), x)
    return x
