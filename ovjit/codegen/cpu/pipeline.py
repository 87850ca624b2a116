"""Numba's pipeline for kernels: its bytecode analysis, then the language of kernels in one pass."""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
from numba.core import compiler, types
from numba.core.compiler_machinery import LoweringPass, PassManager, register_pass
from numba.core.untyped_passes import FixupArgs, TranslateByteCode

from ovjit.codegen.cpu.language import lower


@register_pass(mutates_CFG=False, analysis_only=True)
class LowerKernel(LoweringPass):
    """Types and LLVM of the kernels' language: the result's library is an LLVM module."""

    _name = "ovjit_lower_kernel"

    def __init__(self) -> None:
        LoweringPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        state.cr = compiler.compile_result(library=lower(state.func_ir, state.library))
        return False


class _Passes(PassManager):
    #: Numba repairs liveness and control flow after each pass; ours change neither.
    _ENFORCING = False


class KernelCompiler(compiler.CompilerBase):
    """A `pipeline_class` of Numba's for what is in the language of kernels; raises Outside for the rest."""

    def define_pipelines(self) -> list[PassManager]:
        passes = _Passes("ovjit kernel")
        passes.add_pass(TranslateByteCode, "analyse the bytecode")
        passes.add_pass(FixupArgs, "check the arguments")
        passes.add_pass(LowerKernel, "types and LLVM of the kernels' language")
        passes.finalize()
        return [passes]


class _Unneeded:
    """In place of Numba's contexts, which take 0.15 s to fill with what kernels do not use."""

    call_conv = None

    def refresh(self) -> None:
        pass

    def subtarget(self, **options: Any) -> _Unneeded:
        return self


def lower_kernel(function: Any, symbol: str, arity: int) -> ir.Module:
    """The LLVM module of a Python function, with the C function `symbol`. Raises Outside when it is not in
    the language."""
    flags = compiler.Flags()
    flags.error_model = "numpy"
    context = _Unneeded()
    arguments = (types.int64,) * arity
    result = compiler.compile_extra(
        context, context, function, arguments, types.int64, flags, {}, symbol, KernelCompiler
    )
    return result.library
