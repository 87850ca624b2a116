"""Looking inside: the environment variables that ovjit reads, declared once, and the levels of `OVJIT_DEBUG`.
Plans and kernels are printed where their classes are.

`docs/debugging.md` explains them with examples. Variables are read when a model is compiled or a
kernel loaded, never in an inference. Those that change the program that is made say so in `changes_program`:
kernels are found by their content and cannot be mistaken, but what stores whole programs must know
`program_flags`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ovjit.records import NamedTuple


class Flag(NamedTuple):
    """An environment variable: its name, what its values are, what it does."""

    name: str
    values: str
    does: str
    changes_program: bool = False


FLAGS = {
    flag.name: flag
    for flag in (
        Flag("OVJIT_DEBUG", "1 to 5", "print what compiling does to stderr, more with every level"),
        Flag("OVJIT_DUMP", "folder", "write the source of every kernel there when it is loaded"),
        Flag("OVJIT_CHECK", "1", "verify graphs after every pass, steps of plans, and the order of locks"),
        Flag("OVJIT_SKIP", "pass,pass", "leave these passes out; fuse among them: one kernel a node", True),
        Flag(
            "OVJIT_INTERP",
            "1, kernels",
            "1: every node by its NumPy reference; kernels: kernels in plain Python, with bounds checked",
            True,
        ),
        Flag("OVJIT_COMPARE", "1", "run every step beside the reference, stop at the first difference", True),
        Flag("OVJIT_ISA", "avx512, avx2, neon, generic", "compile for a lesser instruction set", True),
        Flag("OVJIT_HIDE", "feature,feature", "avx512vnni, dotprod, ...: as if absent", True),
        Flag("OVJIT_PRECISION", "f32, bf16, f16", "what f32 models compute in where no property says", True),
        Flag("OVJIT_WINOGRAD", "4, 2 or 0", "force F(4x4), F(2x2) or the direct way, for measurements", True),
        Flag("OVJIT_JIT", "numba", "compile kernels by Numba's ordinary pipeline, not by ovjit's", True),
        Flag("OVJIT_SHIPPED", "0", "compile every kernel, none that came with ovjit is used"),
        Flag("OVJIT_CACHE", "folder, or 0", "where compiled kernels are kept; 0: no file is written"),
        Flag("OVJIT_KEY", "64 or more hexadecimal digits", "the key that authenticates stored code"),
        Flag("OVJIT_VLLM", "1", "vLLM runs its models on ovjit"),
    )
}

#: The levels of OVJIT_DEBUG; each includes those before it.
MODELS, PLANS, GRAPHS, SOURCES, ASSEMBLY = range(1, 6)


def flag(name: str) -> str:
    """The value of a declared variable, "" when it is not set."""
    return os.environ.get(FLAGS[name].name, "")


def is_on(name: str) -> bool:
    """True for a switch that is set to 1."""
    return flag(name) == "1"


def skipped_passes() -> list[str]:
    """The passes that OVJIT_SKIP names."""
    return flag("OVJIT_SKIP").split(",")


def skips(name: str) -> bool:
    """True when OVJIT_SKIP names this pass."""
    return name in skipped_passes()


def level() -> int:
    """The level of OVJIT_DEBUG; 0 when unset. ValueError for what is no number."""
    text = flag("OVJIT_DEBUG")
    if text and not text.isdecimal():
        raise ValueError(f"OVJIT_DEBUG={text} is not valid: give a number from 1 to 5")
    return int(text or 0)


def program_flags() -> tuple[str, ...]:
    """The variables that are set and change the program, as name=value, for keys of stored programs."""
    return tuple(f"{f.name}={flag(f.name)}" for f in FLAGS.values() if f.changes_program and flag(f.name))


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- level 1


def show_model(
    seconds: float, kernels: int, loaded: Mapping[str, int], steps: int | None, host: Sequence[str]
) -> None:
    """One line for a compiled model. `steps` is None where they depend on input shapes to come."""
    reused = max(kernels - sum(loaded.values()), 0)  # others may be loaded for a plan
    new = f"{loaded['compiled']} compiled, {loaded['cached']} from the cache, {loaded['shipped']} shipped"
    origins = f"{new}, {reused} known"
    plan = f"{steps} steps" if steps is not None else "steps depend on shapes"
    references = f"{len(host)} by NumPy: {', '.join(host)}" if host else "all native"
    tell(f"ovjit: compiled in {1e3 * seconds:.1f} ms; {kernels} kernels ({origins}); {plan}, {references}")


# --- level 3


class HasNodes(Protocol):
    """A graph (`ovjit.graph.graph`)."""

    @property
    def nodes(self) -> Sequence[object]: ...


def show_pass(name: str, graph: HasNodes, before: HasNodes | None, seconds: float) -> None:
    """Print the graph after a pass, or that it is unchanged: graphs are compared by the names of nodes, as a
    pass may copy unchanged ones."""
    text = repr(graph)
    if before is None:
        tell(f"ovjit: {name}, {len(graph.nodes)} nodes")
    elif repr(before) == text:
        tell(f"ovjit: pass {name}: no change, {1e3 * seconds:.1f} ms")
        return
    else:
        tell(f"ovjit: pass {name}: {len(before.nodes)} nodes -> {len(graph.nodes)}, {1e3 * seconds:.1f} ms")
    tell("\n".join("  " + line for line in text.splitlines()))


def show_rules(applied: Mapping[Any, int]) -> None:
    """The rules that a pass applied, and how often."""
    for rule, count in applied.items():
        tell(f"  {count:4d} x {rule!r}")


def show_groups(groups: Sequence[object]) -> None:
    tell("\n".join([f"ovjit: fused into {len(groups)} groups", *(f"  {group!r}" for group in groups)]))
