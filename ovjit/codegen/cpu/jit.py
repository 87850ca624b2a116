"""From the source of one kernel to its object code. The only importer of Numba's compiler.

A kernel is a function `kernel(bases, args, chunk, scratch) -> int` of int64s (see
`ovjit.execution.runner`), printed as Python and decorated with `@njit(nogil=True)`. It is compiled as
a unit of its own, to one C function under the kernel's own symbol, optimised once for the wanted instruction
set and emitted as an object. Numba compiles it by a pipeline of ours (`pipeline.py`); what is outside of the
language that this one knows, and everything with OVJIT_JIT=numba, by its ordinary one.
"""

from __future__ import annotations

import builtins
import linecache
import math
import re
import threading
from collections.abc import Mapping
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core import compiler, registry, types
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

from ovjit import debug, logs
from ovjit.codegen.cpu import vector as simd
from ovjit.codegen.cpu.emit import optimise, own, parse, target_machine
from ovjit.codegen.cpu.isa import Isa
from ovjit.codegen.cpu.objects import entry
from ovjit.codegen.cpu.parts import parts_of
from ovjit.codegen.cpu.pipeline import lower_kernel
from ovjit.garbage import short_collections

#: Numba's compiler is not re-entrant; its own lock also guards its typing caches.
_lock = threading.RLock()

#: A vector type in LLVM text.
_VECTOR = re.compile(r"<\d+ x ")

#: (symbol, reason) of what Numba's ordinary pipeline had to do in this process.
fallbacks: list[tuple[str, str]] = []

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


def assembly(
    source: str, symbol: str, isa: Isa, extra: Mapping[str, Any] | None = None, arity: int = 4
) -> str:
    """The machine code of a kernel as text, for reading."""
    return target_machine(isa).emit_assembly(_optimised(source, symbol, isa, extra or {}, arity))


def llvm_text(source: str, symbol: str, isa: Isa, extra: Mapping[str, Any] | None = None) -> str:
    """The LLVM module of a kernel before LLVM's passes. Raises NumbaError for what is not in the language."""
    with short_collections(cycles=True), _lock:
        return str(lower_kernel(_define(source, symbol, isa, extra or {}), 4))


def optimised_text(source: str, symbol: str, isa: Isa, extra: Mapping[str, Any] | None = None) -> str:
    """The LLVM module of a kernel after LLVM's passes: the same on every CPU of the instruction set.

    It has the external function `symbol`: int64 x 4 -> int64. `source` defines `kernel`, and perhaps more
    functions, with symbols `entry(symbol, name)`; `extra` adds intrinsics to the names of
    `ovjit.codegen.cpu.vector`. Raises numba.core.errors.NumbaError for source that does not type, naming the
    line.
    """
    with short_collections(cycles=True):
        return str(_optimised(source, symbol, isa, extra or {}, 4))


def object_code(
    source: str,
    symbol: str,
    isa: Isa,
    extra: Mapping[str, Any] | None = None,
    plain: bool = False,
    shown: str = "",
) -> bytes:
    """The object code of what `optimised_text` gives; `plain`: for every CPU of the instruction set.

    `shown` is what the symbol is called in it, in as many letters: LLVM lays an object out by its names.
    """
    with short_collections(cycles=True):
        module = _optimised(source, symbol, isa, extra or {}, 4, shown)
        return target_machine(isa, plain).emit_object(module)


def _optimised(
    source: str, symbol: str, isa: Isa, extra: Mapping[str, Any], arity: int, shown: str = ""
) -> llvm.ModuleRef:
    functions = _define(source, symbol, isa, extra)
    with _lock:
        text = None if debug.flag("OVJIT_JIT") == "numba" else _direct(functions, arity)
        module = parse(text, isa) if text else _by_numba(functions, isa, arity)
        parts = parts_of(extra.values())
        if parts:
            module.link_in(parse(parts, isa))
    own(module, symbol, functions, shown or symbol)
    vectors = _VECTOR.search(text or str(module)) is not None
    optimise(module, isa, bool(parts), vectors)
    return module


def _define(source: str, symbol: str, isa: Isa, extra: Mapping[str, Any]) -> dict[str, Any]:
    """symbol -> Python function, the source registered so that Numba's errors show the line."""
    filename = f"<ovjit {symbol}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    names: dict[str, Any] = {
        "njit": numba.njit,
        "float_nan": math.nan,
        "float_inf": math.inf,
        "VL": isa.lanes,
    }
    exec(compile(source, filename, "exec"), names)  # source printed by ovjit's own emitters
    vocabulary = simd.namespace(isa.lanes)
    defined = {name: f.py_func for name, f in names.items() if isinstance(f, Dispatcher)}
    for name in {name for f in defined.values() for name in f.__code__.co_names}:
        if name in extra:
            names[name] = extra[name]
        elif name not in names and not hasattr(builtins, name):
            names[name] = vocabulary[name]
    return {entry(symbol, name): f for name, f in defined.items()}


def _direct(functions: Mapping[str, Any], arity: int) -> str | None:
    """The module's text by the pipeline of kernels; None for what is not in their language."""
    try:
        return str(lower_kernel(functions, arity))
    except NumbaError as error:
        symbol = next(iter(functions))
        fallbacks.append((symbol, str(error)))
        logs.debug("%s goes through Numba's ordinary pipeline: %s", symbol, error)
        return None


def _defined(module: llvm.ModuleRef) -> set[str]:
    """The functions that a module has the bodies of."""
    return {function.name for function in module.functions if not function.is_declaration}


def _by_numba(functions: Mapping[str, Any], isa: Isa, arity: int) -> llvm.ModuleRef:
    """The module by Numba's ordinary pipeline, with C functions around what Numba makes."""
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.release_gil = True
    flags.error_model = "numpy"
    typing, context = registry.cpu_target.typing_context, registry.cpu_target.target_context
    module = llvm.parse_assembly("")
    for symbol, python in functions.items():
        result = compiler.compile_extra(
            typing, context, python, (types.int64,) * arity, types.int64, flags, {}
        )
        library = result.library
        module.link_in(library._final_module)
        for linked in library._linking_libraries:
            if linked.name != "nrt" and not _defined(linked._final_module) & _defined(module):
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
