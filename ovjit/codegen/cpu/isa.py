"""Instruction sets: how wide vectors are and how many accumulators a tile can hold.

The instruction set follows the host's CPU; `OVJIT_ISA` (avx512, avx2, generic) asks for a lesser one.
"""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple

from ovjit import debug


class Isa(NamedTuple):
    """`lanes` f32 lanes of a vector; a tile has `tile_rows` x (`tile_vectors` * lanes) accumulators."""

    name: str
    lanes: int
    tile_rows: int
    tile_vectors: int
    cpu: str  # LLVM's name; "host" for the machine's own
    features: tuple[str, ...]  # CPU features that the host must have


ISAS = {
    "avx512": Isa("avx512", 16, 14, 2, "host", ("avx512f", "avx512bw", "avx512dq", "avx512vl", "fma")),
    "avx2": Isa("avx2", 8, 6, 2, "haswell", ("avx2", "fma")),
    "generic": Isa("generic", 4, 4, 2, "", ()),
}


@functools.cache
def host_cpu() -> tuple[str, str]:
    """LLVM's name of the CPU and its feature string ("+avx2,-avx512f,...").

    Kept in the kernel cache for this CPU and this llvmlite, which is not imported then.
    """
    from ovjit.storage.cache import default_cache

    record = _record_name()
    known = default_cache().get(record) if record else None
    if known is not None:
        name, _, text = known.decode().partition("\n")
        return name, text
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    text = ",".join(("+" if on else "-") + name for name, on in sorted(features.items()))
    name = llvm.get_host_cpu_name()
    if record:
        default_cache().put(record, f"{name}\n{text}".encode(), {"name": "what LLVM says of this CPU"})
    return name, text


def _record_name() -> str | None:
    """The name under which the cache keeps what LLVM says of this CPU: by all that the system says of it.

    None where the system says nothing.
    """
    from ovjit.codegen.versions import installed

    said = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")
    try:
        with open("/proc/cpuinfo", "rb") as file:
            lines = file.read(1 << 14).split(b"\n\n")[0].decode().splitlines()
    except (OSError, ValueError):
        return None
    cpu = {name.strip(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    if not all(cpu.get(name) for name in said):
        return None
    identity = "\0".join([installed("llvmlite"), *(cpu[name] for name in said)])
    return "cpu_" + hashlib.sha256(identity.encode()).hexdigest()[:40]


@functools.cache
def best_isa() -> str:
    """The widest instruction set that this CPU has."""
    features = host_cpu()[1].split(",")
    return next(n for n, isa in ISAS.items() if all(f"+{f}" in features for f in isa.features))


def host_isa() -> Isa:
    """The instruction set to compile for. Raises ValueError for an `OVJIT_ISA` unknown or not of this CPU."""
    best = best_isa()
    wanted = debug.flag("OVJIT_ISA") or best
    names = list(ISAS)
    if wanted not in ISAS or names.index(wanted) < names.index(best):
        usable = ", ".join(names[names.index(best) :])
        raise ValueError(f"OVJIT_ISA={wanted} is not usable on this CPU; choose one of {usable}")
    return ISAS[wanted]


def has_features(isa: Isa, features: tuple[str, ...]) -> bool:
    """True when code for `isa` may use these features of the CPU beyond the instruction set's own."""
    if not features:
        return True
    on = host_cpu()[1].split(",")
    return isa.cpu == "host" and all(f"+{f}" in on for f in features)


def target(isa: Isa) -> tuple[str, str]:
    """(cpu, features) for LLVM."""
    return host_cpu() if isa.cpu == "host" else (isa.cpu, "")
