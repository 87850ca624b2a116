"""Intrinsics that call functions, whose LLVM text is added to the kernel's module.

Printing text takes a tenth of the time that llvmlite's objects take for the same instructions. Parts are
definitions and declarations by name, so that parts shared by several intrinsics are added once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu import types
from ovjit.codegen.cpu.printing import Builder, Module
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.cpu.types import Intrinsic, signature

#: name of a function -> its LLVM text
Parts = Mapping[str, str]

_I64 = ir.IntType(64)


def inline_function(
    isa: Target, name: str, result: ir.Type, arguments: Sequence[ir.Type], body: Callable[..., Any]
) -> dict[str, str]:
    """The parts of a function for `isa` that LLVM inlines at each call, with the declarations that it needs.
    `body(builder, *arguments)` emits its result."""
    module = Module(isa, name)
    function = ir.Function(module, ir.FunctionType(result, arguments), name)
    function.linkage = "internal"
    function.attributes.add("alwaysinline")
    builder = Builder(function.append_basic_block("entry"))
    value = body(builder, *function.args)
    if value is None:
        builder.ret_void()
    else:
        builder.ret(value)
    return {f.name: str(f) for f in module.functions}


def calling(name: str, count: int, parts: Parts) -> Intrinsic:
    """An intrinsic of `count` int64s that calls the function `name` of `parts`, with the fast calling
    convention. The function is external until the kernel's module makes it internal."""

    def call(b: ir.IRBuilder, *values: ir.Value) -> None:
        function = b.module.globals.get(name)
        if function is None:
            function = ir.Function(b.module, ir.FunctionType(ir.VoidType(), [_I64] * count), name)
            function.calling_convention = "fastcc"
        b.call(function, values, cconv="fastcc")

    takes = signature(types.void, *[types.int64] * count)
    intrinsic = Intrinsic("tile", count, lambda *kinds: (takes, call))
    intrinsic.parts = parts
    return intrinsic


def parts_of(intrinsics: Iterable[Any]) -> str:
    """The LLVM text of all parts of these intrinsics; "" without parts."""
    texts: dict[str, str] = {}
    for one in intrinsics:
        texts.update(getattr(one, "parts", {}))
    return "\n".join(texts.values())
