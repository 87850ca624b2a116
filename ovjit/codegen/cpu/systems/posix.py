"""Other systems with POSIX's clock. Threads sleep for 50 microseconds: wake-up is slower, but equivalent."""

from __future__ import annotations

import time
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu.systems.calls import BILLION, I32, call, memory, word

SYMBOLS: dict[str, str] = {}
#: The number of the clock on this system; Windows has another clock.
_MONOTONIC = getattr(time, "CLOCK_MONOTONIC", 1)


def now(b: ir.IRBuilder) -> Any:
    spec = memory(b, 2)
    call(b, "clock_gettime", I32, I32(_MONOTONIC), spec)
    return b.add(b.mul(b.load(word(b, spec)), BILLION), b.load(word(b, spec, 1)))


def give_way(b: ir.IRBuilder) -> None:
    call(b, "sched_yield", I32)


def sleep_on(b: ir.IRBuilder, p: Any, value: Any, ns: Any) -> None:
    call(b, "usleep", I32, I32(50))


def wake(b: ir.IRBuilder, p: Any, count: Any) -> None:
    """Nothing: sleepers wake by themselves."""
