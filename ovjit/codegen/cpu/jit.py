"""From the source of one kernel to its object code.

Only this module, `pipeline.py` and `by_numba.py` import Numba, and no other module imports these two.

A kernel is a function `kernel(bases, args, chunk, scratch) -> int` of int64s (see `ovjit.execution.runner`),
printed as Python and decorated with `@njit(nogil=True)`. It is a unit of its own: one C function under the
kernel's symbol, optimised once for the wanted instruction set and emitted as an object. Numba compiles it by
ovjit's pipeline (`pipeline.py`). Code outside of the language that this one supports, and all code with
OVJIT_JIT=numba, uses its ordinary pipeline (`by_numba.py`).
"""

from __future__ import annotations

import builtins
import linecache
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import llvmlite.binding as llvm
import numba

from ovjit import debug, logs
from ovjit.codegen import compiling
from ovjit.codegen.cpu import vector as simd
from ovjit.codegen.cpu.emit import Kind, optimise, own, parse, target_machine
from ovjit.codegen.cpu.llvm_parts import parts_of
from ovjit.codegen.cpu.objects import entry
from ovjit.codegen.cpu.pipeline import lower_kernel
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.cpu.types import Intrinsic, Outside

#: Arguments of a kernel.
_ARITY = 4

#: A vector type in LLVM text, and an instruction that swaps what memory has.
_VECTOR, _SWAP = re.compile(r"<\d+ x "), " cmpxchg "

#: (symbol, reason) of what Numba's ordinary pipeline had to do in this process.
fallbacks: list[tuple[str, str]] = []


def assembly(source: str, symbol: str, isa: Target, extra: Mapping[str, Any] | None = None) -> str:
    """The machine code of a kernel as text, for reading."""

    def emit(module: llvm.ModuleRef, kind: Kind) -> str:
        text: str = target_machine(isa, kind).emit_assembly(module)
        return text

    return _compiled(emit, source, symbol, isa, extra or {})


def optimised_text(source: str, symbol: str, isa: Target, extra: Mapping[str, Any] | None = None) -> str:
    """The LLVM module of a kernel after LLVM's passes: the same on every CPU of the instruction set.

    It has the external function `symbol`: int64 x 4 -> int64. `source` defines `kernel`, and perhaps more
    functions, with symbols `entry(symbol, name)`; `extra` adds intrinsics to the names of
    `ovjit.codegen.cpu.vector`. Raises numba.core.errors.NumbaError for source that Numba can't type either,
    naming the line.
    """
    return _compiled(lambda module, _: str(module), source, symbol, isa, extra or {})


def object_code(
    source: str,
    symbol: str,
    isa: Target,
    extra: Mapping[str, Any] | None = None,
    shown: str = "",
) -> bytes:
    """The object code of what `optimised_text` gives.

    `shown` is what the symbol is called in it, in as many letters: LLVM lays an object out by its names.
    """

    def emit(module: llvm.ModuleRef, kind: Kind) -> bytes:
        code: bytes = target_machine(isa, kind).emit_object(module)
        return code

    return _compiled(emit, source, symbol, isa, extra or {}, shown)


_T = TypeVar("_T")


def _compiled(
    emit: Callable[[llvm.ModuleRef, Kind], _T],
    source: str,
    symbol: str,
    isa: Target,
    extra: Mapping[str, Any],
    shown: str = "",
) -> _T:
    """What `emit` makes of the optimised module. All of it under one lock: neither `linecache` nor Numba's
    compiler is for several threads at once, and a fork waits for it."""
    try:
        if debug.flag("OVJIT_JIT") != "numba":
            with compiling.lock:
                return emit(*_optimised(_printed, source, symbol, isa, extra, shown))
    except Outside as error:
        fallbacks.append((symbol, str(error)))
        logs.debug("%s goes through Numba's ordinary pipeline: %s", symbol, error)
    from ovjit.codegen.cpu import by_numba

    def module(source: str, symbol: str, isa: Target, extra: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        functions = _define(source, symbol, isa, extra, by_numba.word, numba.njit)
        return by_numba.module_of(functions, isa, _ARITY), functions

    with compiling.lock:
        return emit(*_optimised(module, source, symbol, isa, extra, shown))


def _optimised(
    make: Callable[..., tuple[Any, dict[str, Any]]],
    source: str,
    symbol: str,
    isa: Target,
    extra: Mapping[str, Any],
    shown: str,
) -> tuple[llvm.ModuleRef, Kind]:
    made, functions = make(source, symbol, isa, extra)
    kind = _kind(str(made))
    printed = isinstance(made, str)
    module = parse(made, isa) if printed else made
    parts = parts_of(extra.values())
    if parts:
        module.link_in(parse(parts, isa))
    own(module, symbol, functions, shown or symbol)
    optimise(module, isa, bool(parts), kind, whole=not printed)
    return module, kind


def _kind(text: str) -> Kind:
    """Of the kernel with this LLVM text."""
    if _SWAP in text:
        return Kind.WAITING
    return Kind.VECTORS if _VECTOR.search(text) else Kind.SCALARS


def _printed(source: str, symbol: str, isa: Target, extra: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The LLVM module of the functions in `source` as text, by our pipeline, and the functions by symbols."""
    functions = _define(source, symbol, isa, extra)
    return str(lower_kernel(functions, _ARITY, isa)), functions


def _define(
    source: str,
    symbol: str,
    isa: Target,
    extra: Mapping[str, Any],
    word: Callable[[Intrinsic], Any] = lambda one: one,
    njit: Callable[..., Any] = lambda **_: lambda function: function,
) -> dict[str, Any]:
    """symbol -> Python function that is given to Numba, the source registered so that errors show the line;
    `word` makes of intrinsics what the functions call, `njit` is their decorator: Numba's own, whose objects
    take longer to make than the text to compile, only where it has to type them."""
    filename = f"<ovjit {symbol}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    names: dict[str, Any] = {
        "njit": njit,
        "float_nan": math.nan,
        "float_inf": math.inf,
        "VL": isa.lanes,
    }
    given = {*names, "__builtins__"}
    exec(compile(source, filename, "exec"), names)  # source printed by ovjit's own emitters
    vocabulary = simd.namespace(isa.lanes)
    defined = {name: getattr(f, "py_func", f) for name, f in names.items() if name not in given}
    for name in {name for f in defined.values() for name in f.__code__.co_names}:
        if name in extra:
            names[name] = word(extra[name])
        elif name not in names and not hasattr(builtins, name):
            names[name] = word(vocabulary[name])
    return {entry(symbol, name): f for name, f in defined.items()}
