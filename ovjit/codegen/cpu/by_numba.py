"""Kernels by Numba's ordinary pipeline: those outside of ovjit's kernel language, and all with
OVJIT_JIT=numba.

Tests compare ovjit's pipeline with this one. For Numba, a kernel is an `@njit` function, and its intrinsics
are Numba's.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir
from numba.core import compiler, registry
from numba.core import types as numba_types
from numba.core.types.misc import unliteral
from numba.core.typing.templates import signature as numba_signature
from numba.extending import intrinsic, models, overload, register_model

from ovjit.codegen.cpu import machine, types
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.cpu.types import Intrinsic, Type
from ovjit.codegen.cpu.vector import OPERATORS, namespace
from ovjit.codegen.cpu.vector_types import Vec
from ovjit.errors import UnsupportedError

_WRAPPER = """
declare i32 @"{inner}"(ptr, ptr, {types})
define i64 @"{symbol}"({types}) {{
  %ret = alloca i64
  store i64 0, ptr %ret
  %exc = alloca ptr
  %status = call i32 @"{inner}"(ptr %ret, ptr %exc, {values})
  %value = load i64, ptr %ret
  ret i64 %value
}}
"""


class NumbaVec(numba_types.Type):
    """Numba's type of a vector."""

    def __init__(self, vec: Vec):
        self.vec = vec
        super().__init__(name=vec.name)


@register_model(NumbaVec)
class _Model(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: NumbaVec):
        super().__init__(dmm, fe_type, fe_type.vec.ir)


@functools.cache
def _numba_type(kind: Type) -> Any:
    """Numba's type for one of ovjit's."""
    return NumbaVec(kind) if isinstance(kind, Vec) else getattr(numba_types, kind.name)


#: Numba's types of numbers -> ovjit's. Names differ: Numba's boolean is named bool.
_NUMBERS = {getattr(numba_types, name): kind for name, kind in types.NUMBERS.items()}


def _ours(kind: Any) -> Type:
    """ovjit's type for one of Numba's; for others, a type that no intrinsic takes."""
    if isinstance(kind, NumbaVec):
        return kind.vec
    return _NUMBERS.get(unliteral(kind)) or Type(str(kind))


#: The instruction set of the module under construction, in a list.
_printed_for: list[Target] = []


@functools.cache
def word(one: Intrinsic) -> Any:
    """The intrinsic as a Numba intrinsic."""

    def define(*kinds: Any) -> Any:
        resolved = one.resolve(*map(_ours, kinds))
        if resolved is None:
            return None
        sig, emit = resolved

        def codegen(context: Any, builder: ir.IRBuilder, s: Any, values: Any) -> Any:
            builder.module.isa = _printed_for[-1]
            out = emit(builder, *values)
            return context.get_dummy_value() if sig.return_type is types.void else out

        return numba_signature(_numba_type(sig.return_type), *map(_numba_type, sig.args)), codegen

    names = ", ".join(f"a{i}" for i in range(one.arity))
    scope: dict[str, Any] = {"define": define}
    exec(f"def word(typingctx, {names}): return define({names})", scope)  # fixed text
    scope["word"].__name__ = one.name
    return intrinsic(scope["word"])


def _overload_operators() -> None:
    """Implement operators on vectors by intrinsics, for Numba."""

    def define(name: str, arity: int) -> Any:
        # without annotations, which Numba would compare with those of the lambdas
        def two(a, b):
            if isinstance(a, NumbaVec) and isinstance(b, NumbaVec):
                f = word(namespace(a.vec.lanes)[name])
                return lambda a, b: f(a, b)
            return None

        def one(a):
            if isinstance(a, NumbaVec):
                f = word(namespace(a.vec.lanes)[name])
                return lambda a: f(a)
            return None

        return one if arity == 1 else two

    for function, name in OPERATORS.items():
        overload(function)(define(name, 1 if name in ("neg", "not_") else 2))


_overload_operators()
# Numba loads its typing rules on demand. After this, nothing is imported under the compiler's lock
registry.cpu_target.typing_context.refresh()
registry.cpu_target.target_context.refresh()


def _definitions(module: llvm.ModuleRef) -> set[str]:
    """The functions that a module defines."""
    return {function.name for function in module.functions if not function.is_declaration}


def module_of(functions: Mapping[str, Any], isa: Target, arity: int) -> llvm.ModuleRef:
    """The module of Python functions by their symbols, with C functions that wrap Numba's.

    Raises numba.core.errors.NumbaError, with the line, for source that does not type.
    """
    if isa.machine != machine.name():
        raise UnsupportedError(f"Numba compiles only for this machine, not for {isa.machine}")
    _printed_for[:] = [isa]
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.release_gil = True
    flags.error_model = "numpy"
    typing, context = registry.cpu_target.typing_context, registry.cpu_target.target_context
    i64 = numba_types.int64
    module = llvm.parse_assembly("")
    for symbol, python in functions.items():
        result = compiler.compile_extra(typing, context, python, (i64,) * arity, i64, flags, {})
        library = result.library
        module.link_in(library._final_module)
        for linked in library._linking_libraries:
            if linked.name != "nrt" and not _definitions(linked._final_module) & _definitions(module):
                module.link_in(linked._final_module, preserve=True)
        module.link_in(
            llvm.parse_assembly(
                _WRAPPER.format(
                    inner=result.fndesc.llvm_func_name,
                    symbol=symbol,
                    types=", ".join(["i64"] * arity),
                    values=", ".join(f"i64 %{i}" for i in range(arity)),
                )
            )
        )
    if "fma" not in isa.features:
        for function in module.functions:
            if function.name.startswith("llvm.fma."):
                function.name = function.name.replace("llvm.fma.", "llvm.fmuladd.")
    return module
