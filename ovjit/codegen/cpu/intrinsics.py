"""Constructors of intrinsics from functions that emit LLVM."""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu.scalars import cast
from ovjit.codegen.cpu.types import Intrinsic, Signature, Type, signature
from ovjit.codegen.cpu.vector_types import Vec, broadcast


def make(name: str, sig: Signature, body: Any) -> Intrinsic:
    """An intrinsic `name` with the fixed signature `sig` and LLVM builder `body(builder, *args)`."""
    return Intrinsic(name, len(sig.args), lambda *kinds: (sig, body))


def generic(name: str, arity: int, result: Any, body: Any) -> Intrinsic:
    """An intrinsic on vectors of any element type; `result(vec)` is its result's type."""

    def resolve(*kinds: Type) -> Any:
        if not all(isinstance(kind, Vec) for kind in kinds):
            return None
        last = kinds[-1]
        return signature(result(last), *kinds), lambda b, *values: body(b, last, *values)

    return Intrinsic(name, arity, resolve)


def constant(name: str, kind: Vec, scalar: Type) -> Intrinsic:
    """const_T(x): x is a literal in the source, so LLVM sees a constant."""

    def resolve(x: Type) -> Any:
        def emit(b: ir.IRBuilder, number: ir.Value) -> ir.Value:
            return broadcast(b, cast(b, number, x, scalar), kind.lanes)

        return signature(kind, x), emit

    return Intrinsic(name, 1, resolve)


def conversion(name: str, to: Vec, body: Any) -> Intrinsic:
    def resolve(x: Type) -> Any:
        if not isinstance(x, Vec):
            return None
        return signature(to, x), lambda b, value: body(b, x, value)

    return Intrinsic(name, 1, resolve)
