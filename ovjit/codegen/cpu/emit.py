"""From the LLVM text of one kernel to its object code, with llvmlite alone."""

from __future__ import annotations

import functools

import llvmlite.binding as llvm

from ovjit.codegen.cpu.isa import Isa, target


@functools.cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def target_machine(isa: Isa) -> llvm.TargetMachine:
    _initialize()
    cpu, features = target(isa)
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="pic", codemodel="small"
    )


def parse(text: str, isa: Isa) -> llvm.ModuleRef:
    """The module of that text, for this instruction set."""
    if "fma" not in isa.features:
        # Without the instruction LLVM would call libm's fmaf for every lane, some 40 times slower.
        text = text.replace("llvm.fma.", "llvm.fmuladd.")
    return llvm.parse_assembly(text)


def optimise(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    """What is printed is meant: vectors, and how far loops are unrolled."""
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
