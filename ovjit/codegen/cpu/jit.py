"""From the source of a kernel to its object code.

Only this module, `pipeline.py` and `by_numba.py` import Numba, and no other module imports these two.

A kernel is a function `kernel(bases, args, chunk, scratch) -> int` of int64s (see `ovjit.execution.runner`),
printed as Python and decorated with `@njit(nogil=True)`. It is a compilation unit: one C function with the
kernel's symbol, optimised once for the target's instruction set and emitted as an object. Numba compiles it
with ovjit's pipeline (`pipeline.py`). Code outside of its language, and all code with OVJIT_JIT=numba, uses
Numba's ordinary pipeline (`by_numba.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import llvmlite.binding as llvm
import numba

from ovjit import debug, logs
from ovjit.codegen import compiling
from ovjit.codegen.cpu import vector as simd
from ovjit.codegen.cpu.emit import Kind, optimise, parse, set_exports, target_machine
from ovjit.codegen.cpu.llvm_parts import parts_of
from ovjit.codegen.cpu.objects import entry
from ovjit.codegen.cpu.pipeline import lower_kernel
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.cpu.types import Outside
from ovjit.codegen.source import define_functions

#: Number of a kernel's arguments.
_ARITY = 4

#: A vector type in LLVM text; compare-and-swap.
_VECTOR, _SWAP = re.compile(r"<\d+ x "), " cmpxchg "

#: (symbol, reason) of each kernel that Numba's ordinary pipeline compiled in this process.
fallbacks: list[tuple[str, str]] = []


def assembly(source: str, symbol: str, isa: Target, extra: Mapping[str, Any] | None = None) -> str:
    """The assembly of a kernel, for reading."""
    return _compile(
        lambda module, kind: str(target_machine(isa, kind).emit_assembly(module)), source, symbol, isa, extra
    )


def optimised_text(source: str, symbol: str, isa: Target, extra: Mapping[str, Any] | None = None) -> str:
    """The LLVM module of a kernel after LLVM's passes. It is the same on every CPU of the instruction set.

    It has the external function `symbol`: int64 x 4 -> int64. `source` defines `kernel`, and may define more
    functions, with symbols `entry(symbol, name)`. `extra` adds intrinsics to those of
    `ovjit.codegen.cpu.vector`. Raises numba.core.errors.NumbaError, with the line, for source that Numba
    cannot type either.
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
    try:
        if debug.flag("OVJIT_JIT") != "numba":
            with compiling.lock:
                return emit(*_optimise_module(_print, source, symbol, isa, extra, shown))
    except Outside as error:
        fallbacks.append((symbol, str(error)))
        logs.debug("%s is compiled by Numba's standard pipeline: %s", symbol, error)
    from ovjit.codegen.cpu import by_numba

    def module(source: str, symbol: str, isa: Target, extra: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        functions = _define(source, symbol, isa, extra, word=by_numba.word, njit=numba.njit)
        return by_numba.module_of(functions, isa, _ARITY), functions

    with compiling.lock:
        return emit(*_optimise_module(module, source, symbol, isa, extra, shown))


def _optimise_module(
    make: Callable[..., tuple[Any, dict[str, Any]]],
    source: str,
    symbol: str,
    isa: Target,
    extra: Mapping[str, Any],
    shown: str,
) -> tuple[llvm.ModuleRef, Kind]:
    generated, functions = make(source, symbol, isa, extra)
    kind = _kind(str(generated))
    printed = isinstance(generated, str)
    module = parse(generated, isa) if printed else generated
    parts = parts_of(extra.values())
    if parts:
        module.link_in(parse(parts, isa))
    set_exports(module, symbol, functions, shown or symbol)
    optimise(module, isa, bool(parts), kind, from_numba=not printed)
    return module, kind


def _kind(text: str) -> Kind:
    """The kind of a kernel, by its LLVM text."""
    if _SWAP in text:
        return Kind.WAITING
    return Kind.VECTORS if _VECTOR.search(text) else Kind.SCALARS


def _print(source: str, symbol: str, isa: Target, extra: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(LLVM text of the module of the functions in `source`, functions by symbol), by ovjit's pipeline."""
    functions = _define(source, symbol, isa, extra)
    return str(lower_kernel(functions, _ARITY, isa)), functions


def _define(
    source: str, symbol: str, isa: Target, extra: Mapping[str, Any], **typing: Callable[..., Any]
) -> dict[str, Any]:
    """symbol -> Python function to compile. `typing`: `word` and `njit` where Numba types the functions. Its
    own decorator is for these only, since its objects take longer to create than a source takes to
    compile."""
    names = simd.namespace(isa.lanes)
    defined = define_functions(source, f"<ovjit {symbol}>", isa.lanes, names, extra, **typing)
    return {entry(symbol, name): f for name, f in defined.items()}
