"""This machine's target. No other module of the compiler depends on the machine.

`OVJIT_ISA` (avx512, avx2, neon, generic) selects a smaller instruction set than the CPU has. `OVJIT_HIDE`
hides features such as VNNI.
"""

from __future__ import annotations

import functools
from collections.abc import Collection

from ovjit import debug
from ovjit.codegen.cpu import machine
from ovjit.codegen.cpu.targets import CARD_FEATURES, EXTRA, MATRIX, SLOW_DOTS, TARGETS, Target, target_of
from ovjit.errors import UnsupportedError

#: LLVM's name of a feature -> Linux's, if different.
_LINUX = {
    "avx512bf16": "avx512_bf16", "avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni",
    "avx512fp16": "avx512_fp16",
    "amx-bf16": "amx_bf16", "amx-int8": "amx_int8",
    "bmi": "bmi1", "lzcnt": "abm",
    "neon": "asimd", "lse": "atomics", "dotprod": "asimddp", "fp16fml": "asimdfhm",
}  # fmt: skip

#: An instruction set and features that are assumed instead of this CPU's, see `assume`.
_assumed: tuple[str, frozenset[str]] | None = None


def assume(name: str, extra: Collection[str]) -> None:
    """Make `host_target` return this instruction set with these features of EXTRA, whatever the CPU is. Code
    for it can be compiled but not run."""
    global _assumed
    _assumed = name, frozenset(extra)


@functools.cache
def _cpu_fields() -> tuple[str, ...] | None:
    """Fields of this CPU in Linux's /proc/cpuinfo, flags last; None if a field is missing."""
    fields = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")
    try:
        with open("/proc/cpuinfo", "rb") as file:
            lines = file.read(1 << 14).split(b"\n\n")[0].decode().splitlines()
    except (OSError, ValueError):
        return None
    cpu = {name.strip(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    return tuple(cpu[name] for name in fields) if all(cpu.get(name) for name in fields) else None


@functools.cache
def _features() -> frozenset[str]:
    """The features of TARGETS and EXTRA that this CPU has. Raises UnsupportedError for an unsupported
    machine.

    Linux lists the features that programs may use. Asking LLVM would need an import of llvmlite.
    """
    machine.check()
    here = [target for target in TARGETS.values() if target.machine == machine.name()]
    named = {f for target in here for f in target.features}
    named |= {f for f, name in EXTRA.items() if TARGETS[name] in here}
    if machine.is_arm():
        return frozenset(f for f in named if _LINUX.get(f, f) in machine.arm_features())
    have = _listed_features(named)
    return have if have.isdisjoint(MATRIX) or machine.may_use_tiles() else have - MATRIX


def _listed_features(named: Collection[str]) -> frozenset[str]:
    """The features of `named` that an x86-64 CPU has, including those that need permission."""
    fields = _cpu_fields()
    if fields is None:
        with machine.needing("llvmlite"):
            import llvmlite.binding as llvm

        by_feature = llvm.get_host_cpu_features()
        return frozenset(f for f in named if by_feature.get(f))
    flags = fields[-1].split()
    return frozenset(f for f in named if _LINUX.get(f, f) in flags)


@functools.cache
def has_f16() -> bool:
    """Whether this CPU has AVX512-FP16, with which OpenVINO computes in f16. No code here uses it."""
    return machine.is_x86() and bool(_listed_features(["avx512fp16"]))


def usable() -> list[str]:
    """The instruction sets that this CPU has, the widest first."""
    return [name for name, target in TARGETS.items() if _features().issuperset(target.features)]


@functools.cache
def best_target() -> str:
    """The widest instruction set that this CPU has."""
    return usable()[0]


def host_target() -> Target:
    """The target to compile for. Raises ValueError if `OVJIT_ISA` is unknown or not supported by this CPU,
    UnsupportedError for an unsupported machine."""
    return _host(debug.flag("OVJIT_ISA"), debug.flag("OVJIT_HIDE"), _assumed)


def running_target() -> Target:
    """The target of code that runs in this process, regardless of `assume`."""
    return _host(debug.flag("OVJIT_ISA"), debug.flag("OVJIT_HIDE"), None)


@functools.cache
def _host(requested: str, hide: str, assumed: tuple[str, frozenset[str]] | None) -> Target:
    if assumed:
        return target_of(*assumed, machine.name())
    name = requested or best_target()
    if name not in TARGETS or (name != best_target() and name not in usable()):
        choice = ", ".join(usable())
        raise ValueError(f"OVJIT_ISA={name} is not usable on this CPU; choose one of {choice}")
    features = _features() - _hidden(hide)
    features -= _failing(name, features)
    has_dots = "avx512bf16" in features and "amx-bf16" not in features
    slow = {SLOW_DOTS} if has_dots and _has_slow_dots() else set()
    return target_of(name, features | slow, machine.name())


#: Intel's model number of Cooper Lake, whose dot products take as long as multiply-adds.
_COOPER_LAKE = ("6", "85")


def _has_slow_dots() -> bool:
    """Whether this CPU's dot products of bf16 are slow, if it has them."""
    vendor, *model = (_cpu_fields() or ("",))[:3]
    return vendor == "GenuineIntel" and (*model,) != _COOPER_LAKE


def _failing(name: str, features: frozenset[str]) -> frozenset[str]:
    """The features of a matrix unit that do not pass its test."""
    units = [f for f in MATRIX & features if EXTRA[f] == name]
    if not units:
        return frozenset()
    from ovjit.codegen.cpu import amx_test

    return amx_test.failing(units, target_of(name, features), _cpu_fields())


def check_runs(target: Target) -> None:
    """Raise UnsupportedError for code that this CPU cannot run."""
    if target.machine != machine.name():
        raise UnsupportedError(
            f"code for {target.name} does not run on this CPU, whose architecture is {machine.name()}"
        )
    missing = sorted({*target.features, *target.extras} - _features())
    if missing:
        lacking = ", ".join(missing)
        raise UnsupportedError(f"code for {target.name} does not run on this CPU, which lacks {lacking}")


@functools.cache
def _hidden(names: str) -> frozenset[str]:
    """The features that OVJIT_HIDE names."""
    hidden = frozenset(filter(None, names.split(",")))
    unknown = sorted(hidden - {*EXTRA, *CARD_FEATURES})
    if unknown:
        raise ValueError(
            f"OVJIT_HIDE={names}: {', '.join(unknown)} is unknown; the features that can "
            f"be hidden are {', '.join((*EXTRA, *CARD_FEATURES))}"
        )
    return hidden
