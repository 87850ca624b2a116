"""From the source of a kernel to its object code.

Only `pipeline.py` imports Numba, and no other module imports it.

A kernel is a function `kernel(bases, args, chunk, scratch) -> int` of int64s (see `ovjit.execution.runner`),
printed as Python and decorated with `@njit(nogil=True)`. It is a compilation unit: one C function with the
kernel's symbol, optimised once for the target's instruction set and emitted as an object. Numba compiles it
with ovjit's pipeline (`pipeline.py`). `tests/support/numba_pipeline.py` compiles it with Numba's ordinary
one, for comparison.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import llvmlite.binding as llvm

from ovjit.codegen import compiling
from ovjit.codegen.cpu import vector as simd
from ovjit.codegen.cpu.emit import Kind, optimise, parse, set_exports, target_machine
from ovjit.codegen.cpu.llvm_parts import parts_of
from ovjit.codegen.cpu.objects import entry
from ovjit.codegen.cpu.pipeline import lower_kernel
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.cpu.types import Outside
from ovjit.codegen.source import define_functions
from ovjit.errors import KernelSourceError

#: Number of a kernel's arguments.
_ARITY = 4

#: A vector type in LLVM text; compare-and-swap.
_VECTOR, _SWAP = re.compile(r"<\d+ x "), " cmpxchg "


def assembly(source: str, symbol: str, isa: Target, extra: Mapping[str, Any] | None = None) -> str:
    """The assembly of a kernel, for reading."""
    return _compile(
        lambda module, kind: str(target_machine(isa, kind).emit_assembly(module)), source, symbol, isa, extra
    )


def optimised_text(source: str, symbol: str, isa: Target, extra: Mapping[str, Any] | None = None) -> str:
    """The LLVM module of a kernel after LLVM's passes. It is the same on every CPU of the instruction set.

    It has the external function `symbol`: int64 x 4 -> int64. `source` defines `kernel`, and may define more
    functions, with symbols `entry(symbol, name)`. `extra` adds intrinsics to those of
    `ovjit.codegen.cpu.vector`. Raises KernelSourceError, with the line, for source that is not in the kernel
    language.
    """
    return _compile(lambda module, _: str(module), source, symbol, isa, extra)


def object_code(
    source: str,
    symbol: str,
    isa: Target,
    extra: Mapping[str, Any] | None = None,
    shown: str = "",
) -> bytes:
    """The object code of the module of `optimised_text`.

    `shown`: the symbol's name in the object, of equal length, since LLVM's layout of an object depends on
    names.
    """
    return _compile(
        lambda module, kind: bytes(target_machine(isa, kind).emit_object(module)), source, symbol, isa, extra,
        shown,
    )  # fmt: skip


_T = TypeVar("_T")


def _compile(
    emit: Callable[[llvm.ModuleRef, Kind], _T],
    source: str,
    symbol: str,
    isa: Target,
    extra: Mapping[str, Any] | None,
    shown: str = "",
) -> _T:
    """`emit` applied to the optimised module. One lock covers all of it: `linecache` and Numba's compiler are
    not thread-safe, and a fork waits for it."""
    extra = extra or {}
    with compiling.lock:
        functions = define(source, symbol, isa, extra)
        try:
            text = str(lower_kernel(functions, _ARITY, isa))
        except Outside as error:
            raise KernelSourceError(str(error)) from error
        kind, module = kind_of(text), parse(text, isa)
        parts = parts_of(extra.values())
        if parts:
            module.link_in(parse(parts, isa))
        set_exports(module, symbol, functions, shown or symbol)
        optimise(module, isa, bool(parts), kind)
        return emit(module, kind)


def kind_of(text: str) -> Kind:
    """The kind of a kernel, by its LLVM text."""
    if _SWAP in text:
        return Kind.WAITING
    return Kind.VECTORS if _VECTOR.search(text) else Kind.SCALARS


def define(source: str, symbol: str, isa: Target, extra: Mapping[str, Any]) -> dict[str, Any]:
    """symbol -> Python function to compile."""
    defined = define_functions(source, f"<ovjit {symbol}>", isa.lanes, simd.namespace(isa.lanes), extra)
    return {entry(symbol, name): f for name, f in defined.items()}
