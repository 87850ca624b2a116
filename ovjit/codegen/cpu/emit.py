"""Operations on the LLVM module of a kernel, by llvmlite alone."""

from __future__ import annotations

import enum
import functools
from collections.abc import Container

import llvmlite.binding as llvm

from ovjit.codegen.cpu import machine
from ovjit.codegen.cpu.targets import Target


class Kind(enum.Enum):
    """The kind of instructions that dominate a kernel. It selects LLVM's passes."""

    VECTORS = enum.auto()
    SCALARS = enum.auto()
    WAITING = enum.auto()  # for memory that threads share; other instructions do not matter


@functools.cache
def initialize() -> None:
    """Initialize LLVM for this machine. Raises UnsupportedError for machines on which LLVM would abort."""
    machine.check()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # of inline assembly in intrinsics


@functools.cache
def initialize_all() -> None:
    """Initialize LLVM for cross-compilation to other machines."""
    initialize()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def triple(isa: Target) -> str:
    """LLVM's triple for code of `isa`: this process's, or Linux on another machine."""
    if isa.machine == machine.name():
        text: str = llvm.get_process_triple()
        return text
    return f"{isa.machine}-unknown-linux-gnu"


def target_machine(isa: Target, kind: Kind) -> llvm.TargetMachine:
    """The target machine of object code: a CPU with all features that code for `isa` may use."""
    return _machine(triple(isa), isa.cpu, isa.llvm_features, level_of(kind))


def level_of(kind: Kind) -> int:
    """The level of code generation: 0 for kernels that wait for memory, which compiles in a fifth of the
    time."""
    return 0 if kind is Kind.WAITING else 3


@functools.cache
def _machine(triple: str, cpu: str, features: str, level: int = 3) -> llvm.TargetMachine:
    if triple == llvm.get_process_triple():
        initialize()
    else:
        initialize_all()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=level, reloc="pic", codemodel=code_model(triple)
    )


def code_model(triple: str) -> str:
    """LLVM's code model: the distance of addresses from the code that uses them.

    LLVM's loader has no stubs for distant functions in macOS's object files. The C library is more than a
    branch's reach away there (128 MiB on Arm, 2 GiB on x86-64). Code of the large model calls by address.
    """
    return "large" if "-apple-" in triple else "small"


def parse(text: str, isa: Target) -> llvm.ModuleRef:
    """The module of LLVM text, for this instruction set."""
    if isa.machine == machine.X86_64 and "fma" not in isa.features:
        # Without the instruction, LLVM would call libm's fmaf for each lane, about 40 times slower.
        text = text.replace("llvm.fma.", "llvm.fmuladd.")
    return llvm.parse_assembly(text)


def set_exports(module: llvm.ModuleRef, symbol: str, functions: Container[str], shown: str) -> None:
    """Make `functions` the only exported names of a module, with `shown` instead of the symbol in their
    names. All other names become independent of the process.

    Numba's own names contain a counter of the process, and would be in the object's symbol table.
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


def optimise(module: llvm.ModuleRef, isa: Target, inlined: bool, kind: Kind, from_numba: bool) -> None:
    """Run LLVM's passes. They only depend on the instruction set, so the module is the same on every CPU that
    has it.

    Kernels state vectorisation, unrolling and hoisting explicitly, so only passes that simplify instructions
    and blocks run, and loop rotation, without which transposes lose 15 %. LLVM's default list of function
    passes takes three times as long. Jump threading gains 20 % for kernels without vectors (TopK) and costs
    others as much (pooling 10 %). `inlined`: the module has tiles, whose functions are inlined.
    `from_numba`: the module has functions that may have to be removed, and loops as in the source.
    """
    made_for = _machine(triple(isa), isa.cpu, "")
    module.triple = triple(isa)
    module.data_layout = str(made_for.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=1 if kind is Kind.VECTORS else 2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    passes = llvm.create_pass_builder(made_for, options)
    if from_numba and not inlined:
        passes.getModulePassManager().run(module, passes)
        return
    manager = llvm.create_new_module_pass_manager()
    if inlined:
        manager.add_always_inliner_pass()
    manager.add_sroa_pass()
    if not inlined:
        manager.add_simplify_cfg_pass()
    manager.add_instruction_combine_pass()
    if not inlined and kind is not Kind.WAITING:
        if kind is Kind.SCALARS:
            manager.add_jump_threading_pass()
        manager.add_loop_rotate_pass()
        manager.add_new_gvn_pass()
        if kind is Kind.SCALARS:
            manager.add_jump_threading_pass()
        manager.add_simplify_cfg_pass()
        manager.add_instruction_combine_pass()
    manager.add_simplify_cfg_pass()
    manager.run(module, passes)
