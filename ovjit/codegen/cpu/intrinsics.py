"""Numba's intrinsics of LLVM builders."""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
from numba.core import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from ovjit.codegen.cpu.vector_types import Vec, broadcast


def make(name: str, sig: Any, body: Any) -> Any:
    """An intrinsic `name` with the fixed signature `sig` and LLVM builder `body(builder, *args)`."""

    def define(typingctx: Any, *args: Any) -> Any:
        def codegen(context: Any, builder: Any, s: Any, values: Any) -> Any:
            out = body(builder, *values)
            return context.get_dummy_value() if sig.return_type == types.void else out

        return sig, codegen

    arguments = ", ".join(f"a{i}" for i in range(len(sig.args)))
    scope: dict[str, Any] = {"define": define}
    exec(f"def {name}(typingctx, {arguments}): return define(typingctx, {arguments})", scope)  # fixed text
    return intrinsic(scope[name])


def generic(name: str, arity: int, result: Any, body: Any) -> Any:
    """An intrinsic over vectors of any element type; `result(vec)` is its type."""

    def define(typingctx: Any, *args: Any) -> Any:
        if not all(isinstance(a, Vec) for a in args):
            return None
        kind = args[-1]

        def codegen(context: Any, builder: Any, s: Any, values: Any) -> Any:
            return body(builder, kind, *values)

        return signature(result(kind), *args), codegen

    arguments = ", ".join(f"a{i}" for i in range(arity))
    scope: dict[str, Any] = {"define": define}
    exec(f"def {name}(typingctx, {arguments}): return define(typingctx, {arguments})", scope)  # fixed text
    return intrinsic(scope[name])


def constant(name: str, kind: Vec, scalar: Any) -> Any:
    """const_T(x): x is a number known to Numba, so LLVM sees a literal."""

    def define(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, s: Any, values: Any) -> Any:
            value = context.cast(builder, values[0], s.args[0], scalar)
            if kind.elem == "boolean" and value.type != ir.IntType(1):
                value = builder.trunc(value, ir.IntType(1))
            return broadcast(builder, value, kind.lanes)

        return signature(kind, x), codegen

    define.__name__ = name
    return intrinsic(define)


def conversion(name: str, to: Vec, body: Any) -> Any:
    def define(typingctx: Any, x: Any) -> Any:
        if not isinstance(x, Vec):
            return None

        def codegen(context: Any, builder: Any, s: Any, values: Any) -> Any:
            return body(builder, x, values[0])

        return signature(to, x), codegen

    define.__name__ = name
    return intrinsic(define)
