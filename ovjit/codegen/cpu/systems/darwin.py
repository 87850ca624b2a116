"""macOS: its kernel compares and waits like a futex. libSystem has the functions since 10.12; no header
declares them."""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu.systems.calls import I32, I64, call, clamp
from ovjit.codegen.cpu.systems.posix import SYMBOLS as SYMBOLS
from ovjit.codegen.cpu.systems.posix import give_way as give_way
from ovjit.codegen.cpu.systems.posix import now as now

_COMPARE_AND_WAIT, _NO_ERRNO, _WAKE_ALL = 1, 0x01000000, 0x100


def sleep_on(b: ir.IRBuilder, p: Any, value: Any, ns: Any) -> None:
    # in microseconds; 0 would wait forever
    timeout = b.trunc(clamp(b, b.sdiv(ns, I64(1000)), 1, (1 << 32) - 1), I32)
    low = b.and_(value, I64((1 << 32) - 1))
    call(b, "__ulock_wait", I32, I32(_COMPARE_AND_WAIT | _NO_ERRNO), p, low, timeout)


def wake(b: ir.IRBuilder, p: Any, count: Any) -> None:
    one, every = (I32(_COMPARE_AND_WAIT | _NO_ERRNO | more) for more in (0, _WAKE_ALL))
    call(b, "__ulock_wake", I32, b.select(b.icmp_signed(">", count, I64(1)), every, one), p, I64(0))
