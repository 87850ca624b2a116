"""What is done with the LLVM module of one kernel, with llvmlite alone."""

from __future__ import annotations

import functools
from collections.abc import Container

import llvmlite.binding as llvm

from ovjit.codegen.cpu.isa import Isa, target


@functools.cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def target_machine(isa: Isa, plain: bool = False) -> llvm.TargetMachine:
    """What object code is made for: a CPU with all that code for `isa` may use here, or with no more than the
    instruction set has (`plain`)."""
    cpu, features = target(isa)
    return _machine(cpu, "" if plain else features)


@functools.cache
def _machine(cpu: str, features: str) -> llvm.TargetMachine:
    _initialize()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="pic", codemodel="small"
    )


def parse(text: str, isa: Isa) -> llvm.ModuleRef:
    """The module of that text, for this instruction set."""
    if "fma" not in isa.features:
        # Without the instruction LLVM would call libm's fmaf for every lane, some 40 times slower.
        text = text.replace("llvm.fma.", "llvm.fmuladd.")
    return llvm.parse_assembly(text)


def own(module: llvm.ModuleRef, symbol: str, functions: Container[str], shown: str) -> None:
    """Make `functions` all that others see of a module, with `shown` for the symbol in their names, and its
    bytes the same in every process.

    Numba's own names carry a counter of the process, and would be in the object's symbol table.
    """
    module.name = shown
    for i, function in enumerate(module.functions):
        if function.name in functions:
            function.name = function.name.replace(symbol, shown)
        elif not function.is_declaration:
            function.linkage = "internal"
            function.name = f"{shown}_f{i}"
    for i, variable in enumerate(module.global_variables):
        if not variable.is_declaration:
            variable.linkage = "internal"
            variable.name = f"{shown}_v{i}"


def optimise(module: llvm.ModuleRef, isa: Isa, inlined: bool, vectors: bool, whole: bool) -> None:
    """LLVM's passes, which see the instruction set alone: the module is the same on every CPU that has it.

    What is printed is meant: vectors, and how far loops are unrolled. `inlined`: the module has tiles, whose
    loops need no more than their functions put in. For others LLVM has to hoist what loops do not change:
    without it transposes lose 15 %, LRN 10 %. Threading of jumps costs kernels with vectors as much (pooling
    10 %), and is worth 15 % to those without (TopK). What LLVM's whole pipeline does besides is about calls,
    globals and vectorising: it takes two thirds as long again and makes no kernel faster. `whole`: the module
    has functions that may have to go.
    """
    machine = _machine(isa.cpu, "")
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=1 if vectors else 2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    passes = llvm.create_pass_builder(machine, options)
    if inlined:
        manager = llvm.create_new_module_pass_manager()
        manager.add_always_inliner_pass()
        manager.add_sroa_pass()
        manager.add_instruction_combine_pass()
        manager.add_simplify_cfg_pass()
        manager.run(module, passes)
    elif whole:
        passes.getModulePassManager().run(module, passes)
    else:
        simplification = passes.getFunctionPassManager()
        for function in module.functions:
            if not function.is_declaration:
                simplification.run(function, passes)
