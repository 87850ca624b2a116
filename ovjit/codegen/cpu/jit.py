"""From the source of one kernel to its object code. The only importer of Numba's compiler.

A kernel is a function `kernel(bases, args, chunk, scratch) -> int` of int64s (see
`ovjit.execution.runner`), printed as Python and decorated with `@njit(nogil=True)`. It is compiled as
a unit of its own: Numba types and lowers it, and the module is then given one C function under the
kernel's own symbol, optimised once for the wanted instruction set and emitted as an object.
"""

from __future__ import annotations

import gc
import linecache
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core import compiler, registry, types

from ovjit.codegen.cpu import vector as simd
from ovjit.codegen.cpu.isa import Isa, target

#: Numba's compiler is not re-entrant; its own lock also guards its typing caches.
_lock = threading.RLock()

_compiling = 0  # threads inside of `_short_collections`
_frozen = False

#: An interpreter may have frozen so many objects of its own.
_FROZEN_AT_START = 10_000


@contextmanager
def _short_collections() -> Iterator[None]:
    """Keep what was alive before out of the garbage collections that compiling sets off.

    A kernel leaves some 30,000 objects in cycles. Full collections look at every object of the process for
    them, 0.1 s each with the GIL held; without the older ones they take 0.01 s. A process that uses
    `gc.freeze` itself is left as it is.
    """
    global _compiling, _frozen
    with _lock:
        if _compiling == 0 and gc.isenabled() and gc.get_freeze_count() < _FROZEN_AT_START:
            gc.freeze()
            _frozen = True
        _compiling += 1
    try:
        yield
    finally:
        with _lock:
            _compiling -= 1
            if _compiling == 0 and _frozen:
                gc.collect()
                gc.unfreeze()
                _frozen = False


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


def compile_kernel(
    source: str, symbol: str, isa: Isa, extra: Mapping[str, Any] | None = None, arity: int = 4
) -> bytes:
    """Object code with one external function `symbol`: int64 x arity -> int64.

    `source` defines `kernel`; `extra` adds intrinsics to the names of `ovjit.codegen.cpu.vector`.
    Raises numba.core.errors.NumbaError for source that does not type, naming the line.
    """
    with _short_collections():
        function = _define(source, symbol, isa, extra or {})
        with _lock:
            module, inner = _lower(function, arity)
        return _emit(module, inner, symbol, isa, arity)[0]


def assembly(
    source: str, symbol: str, isa: Isa, extra: Mapping[str, Any] | None = None, arity: int = 4
) -> str:
    """The machine code of a kernel as text, for reading."""
    function = _define(source, symbol, isa, extra or {})
    with _lock:
        module, inner = _lower(function, arity)
    return _emit(module, inner, symbol, isa, arity, text=True)[1]


def _define(source: str, symbol: str, isa: Isa, extra: Mapping[str, Any]) -> Any:
    """The Python function, its source registered so that Numba's errors show the line."""
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
    kernel = names["kernel"].py_func
    for name in kernel.__code__.co_names:
        if name in extra:
            names[name] = extra[name]
        elif name not in names and name != "range":
            names[name] = vocabulary[name]
    return kernel


def _lower(function: Any, arity: int) -> tuple[Any, str]:
    """Numba's typing and lowering: the LLVM module and the name of its function."""
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.release_gil = True
    flags.error_model = "numpy"
    typing, context = registry.cpu_target.typing_context, registry.cpu_target.target_context
    result = compiler.compile_extra(typing, context, function, (types.int64,) * arity, types.int64, flags, {})
    library = result.library
    module = library._final_module
    for linked in library._linking_libraries:
        if linked.name != "nrt":
            module.link_in(linked._final_module, preserve=True)
    return module, result.fndesc.llvm_func_name


def _emit(
    module: Any, inner: str, symbol: str, isa: Isa, arity: int, text: bool = False
) -> tuple[bytes, str]:
    cpu, features = target(isa)
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="pic", codemodel="small"
    )
    wrapper = llvm.parse_assembly(
        _WRAPPER.format(
            inner=inner,
            symbol=symbol,
            types=", ".join(["i64"] * arity),
            values=", ".join(f"i64 %{i}" for i in range(arity)),
        )
    )
    module.link_in(wrapper)
    if "fma" not in isa.features:
        # Without the instruction LLVM would call libm's fmaf for every lane, some 40 times slower.
        for function in module.functions:
            if function.name.startswith("llvm.fma."):
                function.name = function.name.replace("llvm.fma.", "llvm.fmuladd.")
    # Numba's own names carry a counter of this process, and would be in the object's symbol table.
    for i, function in enumerate(module.functions):
        if not function.is_declaration and function.name != symbol:
            function.linkage = "internal"
            function.name = f"{symbol}_f{i}"
    for i, variable in enumerate(module.global_variables):
        if not variable.is_declaration:
            variable.linkage = "internal"
            variable.name = f"{symbol}_v{i}"
    module.name = symbol
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False  # kernels are vectors already
    options.slp_vectorization = False
    options.loop_unrolling = False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    if text:
        return b"", machine.emit_assembly(module)
    return machine.emit_object(module), ""
