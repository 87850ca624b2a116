"""Windows: WaitOnAddress, the performance counter, SwitchToThread."""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu.systems.calls import BILLION, I32, I64, call, clamp, memory, word

#: Function -> library. Python's process has loaded them, but LLVM's loader does not search them.
SYMBOLS = {
    "QueryPerformanceCounter": "kernel32", "QueryPerformanceFrequency": "kernel32",
    "SwitchToThread": "kernel32",
    "WaitOnAddress": "kernelbase", "WakeByAddressSingle": "kernelbase", "WakeByAddressAll": "kernelbase",
}  # fmt: skip
_LONGEST = (1 << 32) - 2  # the next number waits forever


def now(b: ir.IRBuilder) -> Any:
    counters = memory(b, 2)
    call(b, "QueryPerformanceCounter", I32, counters)
    call(b, "QueryPerformanceFrequency", I32, b.add(counters, I64(8)))
    count, each = b.load(word(b, counters)), b.load(word(b, counters, 1))
    # whole seconds are separate: the count times a billion overflows 64 bits within half an hour
    seconds, remainder = b.mul(b.udiv(count, each), BILLION), b.mul(b.urem(count, each), BILLION)
    return b.add(seconds, b.udiv(remainder, each))


def give_way(b: ir.IRBuilder) -> None:
    call(b, "SwitchToThread", I32)


def sleep_on(b: ir.IRBuilder, p: Any, value: Any, ns: Any) -> None:
    expected = memory(b, 1)
    b.store(value, word(b, expected))
    milliseconds = b.trunc(clamp(b, b.sdiv(ns, I64(1_000_000)), 1, _LONGEST), I32)
    call(b, "WaitOnAddress", I32, p, expected, I64(4), milliseconds)


def wake(b: ir.IRBuilder, p: Any, count: Any) -> None:
    with b.if_else(b.icmp_signed(">", count, I64(1))) as (several, one):
        with several:
            call(b, "WakeByAddressAll", ir.VoidType(), p)
        with one:
            call(b, "WakeByAddressSingle", ir.VoidType(), p)
