"""Instruction sets: how wide vectors are and how many accumulators a tile can hold.

The instruction set follows the host's CPU; `OVJIT_ISA` (avx512, avx2, neon, generic) asks for a lesser one,
and `OVJIT_HIDE` takes features like VNNI for absent. `ovjit.codegen.cpu.neon` has what is AArch64's alone.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import NamedTuple

from ovjit import debug
from ovjit.codegen.cpu import machine
from ovjit.errors import UnsupportedError


class Isa(NamedTuple):
    """`lanes` f32 lanes of a vector; a tile has `tile_rows` x (`tile_vectors` * lanes) accumulators."""

    name: str
    lanes: int
    tile_rows: int
    tile_vectors: int
    cpu: str  # LLVM's name of the CPU that passes and code generation see, whatever CPU is there
    features: tuple[str, ...]  # CPU features that the host must have
    extras: tuple[str, ...] = ()  # those of EXTRA that code may use besides

    @property
    def machine(self) -> str:
        """The architecture that its code is for; of `generic`, this machine's."""
        return _MACHINES.get(self.name) or machine.name()

    @property
    def is_arm(self) -> bool:
        return self.machine == machine.AARCH64


#: What came with AVX2; a virtual machine may hide some, which code would use.
_HASWELL = ("fma", "bmi", "bmi2", "f16c", "lzcnt", "movbe")
_AVX512 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
# Code for the exact CPU was tried for AVX-512. Of 45 kernels, sapphirerapids, icelake-server and znver4 have
# 0.98 to 1.09 of the instructions, 1.00 in the median. Each would need its own file.
ISAS = {
    "avx512": Isa("avx512", 16, 14, 2, "x86-64-v4", (*_AVX512, *_HASWELL)),
    "avx2": Isa("avx2", 8, 6, 2, "haswell", ("avx2", *_HASWELL)),
    "neon": Isa("neon", 4, 12, 2, "", ("neon",)),
    "generic": Isa("generic", 4, 4, 2, "", ()),
}
_MACHINES = {"avx512": machine.X86_64, "avx2": machine.X86_64, "neon": machine.AARCH64}

#: Features of the CPU beyond an instruction set's own that LLVM text may depend on, see `has_features`, and
#: the instruction set whose code they are for.
EXTRA = {
    "avx512bf16": "avx512", "avx512vnni": "avx512", "avxvnni": "avx2",
    "lse": "neon", "dotprod": "neon", "i8mm": "neon", "bf16": "neon",
}  # fmt: skip

#: What Linux calls features that LLVM calls otherwise.
_LINUX = {
    "avx512bf16": "avx512_bf16", "avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni",
    "bmi": "bmi1", "lzcnt": "abm",
    "neon": "asimd", "lse": "atomics", "dotprod": "asimddp",
}  # fmt: skip

#: An instruction set and features that are assumed instead of this CPU's, see `assume`.
_assumed: tuple[str, frozenset[str]] | None = None


def assume(isa: str, extra: Collection[str]) -> None:
    """Print text in this process as for a CPU of that instruction set with those of EXTRA, whatever the CPU
    is. The text can be compiled, and not run."""
    global _assumed
    _assumed = isa, frozenset(extra)


@functools.cache
def _said() -> tuple[str, ...] | None:
    """What Linux says of this CPU, its flags last; None where that is not all there."""
    said = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")
    try:
        with open("/proc/cpuinfo", "rb") as file:
            lines = file.read(1 << 14).split(b"\n\n")[0].decode().splitlines()
    except (OSError, ValueError):
        return None
    cpu = {name.strip(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    return tuple(cpu[name] for name in said) if all(cpu.get(name) for name in said) else None


@functools.cache
def _features() -> frozenset[str]:
    """Those features of this CPU that ISAS and EXTRA name. OvjitError for another machine than code can be
    made for.

    Linux lists those that it lets programs use; to ask LLVM, llvmlite would have to be imported.
    """
    machine.check()
    here = [isa for isa in ISAS.values() if _MACHINES.get(isa.name) == machine.name()]
    named = {f for isa in here for f in isa.features}
    named |= {f for f, name in EXTRA.items() if ISAS[name] in here}
    if machine.is_arm():
        return frozenset(f for f in named if _LINUX.get(f, f) in machine.arm_features())
    said = _said()
    if said is None:
        import llvmlite.binding as llvm

        found = llvm.get_host_cpu_features()
        return frozenset(f for f in named if found.get(f))
    flags = said[-1].split()
    return frozenset(f for f in named if _LINUX.get(f, f) in flags)


def usable() -> list[str]:
    """The instruction sets that this CPU has, the widest first."""
    return [n for n, isa in ISAS.items() if _features().issuperset(isa.features)]


@functools.cache
def best_isa() -> str:
    """The widest instruction set that this CPU has."""
    return usable()[0]


def host_isa() -> Isa:
    """The instruction set to compile for. Raises ValueError for an `OVJIT_ISA` unknown or not of this CPU,
    UnsupportedError for a machine that no code is made for."""
    return _host(debug.flag("OVJIT_ISA"), debug.flag("OVJIT_HIDE"), _assumed)


@functools.cache
def _host(asked: str, hide: str, assumed: tuple[str, frozenset[str]] | None) -> Isa:
    if assumed:
        return target_of(*assumed)
    wanted = asked or best_isa()
    if wanted not in ISAS or (wanted != best_isa() and wanted not in usable()):
        choice = ", ".join(usable())
        raise ValueError(f"OVJIT_ISA={wanted} is not usable on this CPU; choose one of {choice}")
    return target_of(wanted, _features() - _hidden(hide))


def check_runs(isa: Isa) -> None:
    """Raise UnsupportedError for code that this CPU cannot run."""
    missing = sorted({*isa.features, *isa.extras} - _features())
    if missing:
        lacking = ", ".join(missing)
        raise UnsupportedError(f"code for {isa.name} does not run on this CPU, which lacks {lacking}")


def target_of(name: str, features: Collection[str] = ()) -> Isa:
    """An instruction set by its name, on a CPU that has these of EXTRA, too."""
    return ISAS[name]._replace(extras=tuple(f for f, of in EXTRA.items() if of == name and f in features))


def has_features(isa: Isa, features: tuple[str, ...]) -> bool:
    """True when code for `isa` may use these features of the CPU. ValueError for one that is not known."""
    unknown = set(features) - {*EXTRA, *isa.features}
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: text that depends on it has to be told apart, see EXTRA")
    return {*isa.features, *isa.extras}.issuperset(features)


@functools.cache
def _hidden(names: str) -> frozenset[str]:
    """The features that OVJIT_HIDE names."""
    hidden = frozenset(filter(None, names.split(",")))
    unknown = sorted(hidden - set(EXTRA))
    if unknown:
        raise ValueError(f"OVJIT_HIDE={names}: {', '.join(unknown)} is none of {', '.join(EXTRA)}")
    return hidden


def llvm_names(isa: Isa) -> tuple[str, str]:
    """(cpu, features) for LLVM."""
    return isa.cpu, ",".join(f"+{f}" for f in isa.extras)
