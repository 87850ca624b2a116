"""Numba's pipeline for kernels: read the source as blocks, then lower the kernel language in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import llvmlite.ir as ir
from numba.core import bytecode, compiler
from numba.core import types as numba_types
from numba.core.compiler_machinery import AnalysisPass, LoweringPass, PassManager, register_pass

from ovjit.codegen.cpu.emit import triple
from ovjit.codegen.cpu.language import lower
from ovjit.codegen.cpu.printing import Module
from ovjit.codegen.cpu.reading import read
from ovjit.codegen.cpu.targets import Target


@register_pass(mutates_CFG=False, analysis_only=True)
class ReadSource(AnalysisPass):
    """Reads the function's source as blocks, instead of Numba's IR of its bytecode."""

    _name = "ovjit_read_source"

    def __init__(self) -> None:
        AnalysisPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        state.kernel = read(state.func_id.func)
        return False


@register_pass(mutates_CFG=False, analysis_only=True)
class LowerKernel(LoweringPass):
    """Types the kernel language and emits LLVM, into the LLVM function that is passed as library."""

    _name = "ovjit_lower_kernel"

    def __init__(self) -> None:
        LoweringPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        lower(state.kernel, state.library)
        state.cr = compiler.compile_result(library=state.library)
        return False


class _Passes(PassManager):
    #: Numba repairs liveness and control flow after each pass. These passes change neither.
    _ENFORCING = False


class KernelCompiler(compiler.CompilerBase):
    """A Numba `pipeline_class` for the kernel language. Raises Outside for other code."""

    def compile_extra(self, func: Any) -> Any:
        """As in the base class, without its list of the bytecode's instructions."""
        self.state.func_id = bytecode.FunctionIdentity.from_function(func)
        self.state.lifted, self.state.lifted_from = (), None
        return self._compile_core()

    def define_pipelines(self) -> list[PassManager]:
        passes = _Passes("ovjit kernel")
        passes.add_pass(ReadSource, "read the source")
        passes.add_pass(LowerKernel, "types and LLVM of the kernels' language")
        passes.finalize()
        return [passes]


class _Unneeded:
    """Replaces Numba's contexts, which take 0.15 s to initialize and are not used by kernels."""

    call_conv = None

    def refresh(self) -> None:
        pass

    def subtarget(self, **options: Any) -> _Unneeded:
        return self


def lower_kernel(functions: Mapping[str, Any], arity: int, isa: Target) -> Module:
    """The LLVM module of Python functions by their symbols, as C functions of `arity` int64s for `isa`.

    Raises Outside if a function is not in the kernel language.
    """
    module = Module(isa)
    module.triple = triple(isa)
    flags = compiler.Flags()
    flags.error_model = "numpy"
    context = _Unneeded()
    i64, number = ir.IntType(64), numba_types.int64
    for symbol, python in functions.items():
        function = ir.Function(module, ir.FunctionType(i64, [i64] * arity), symbol)
        function.attributes.add("nounwind")
        compiler.compile_extra(
            context, context, python, (number,) * arity, number, flags, {}, function, KernelCompiler
        )
    return module
