"""Linux: the system call futex, for which the C library has no function."""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu import machine
from ovjit.codegen.cpu.printing import isa_of
from ovjit.codegen.cpu.systems.calls import BILLION, I64, call, memory, word
from ovjit.codegen.cpu.systems.posix import SYMBOLS as SYMBOLS
from ovjit.codegen.cpu.systems.posix import give_way as give_way
from ovjit.codegen.cpu.systems.posix import now as now

#: Architecture -> number of the system call futex.
_FUTEX = {machine.X86_64: 202, machine.AARCH64: 98}
_WAIT_PRIVATE, _WAKE_PRIVATE = 128, 129


def sleep_on(b: ir.IRBuilder, p: Any, value: Any, ns: Any) -> None:
    spec = memory(b, 2)
    b.store(b.sdiv(ns, BILLION), word(b, spec))
    b.store(b.srem(ns, BILLION), word(b, spec, 1))
    _futex(b, p, _WAIT_PRIVATE, b.trunc(value, ir.IntType(32)), spec)


def wake(b: ir.IRBuilder, p: Any, count: Any) -> None:
    _futex(b, p, _WAKE_PRIVATE, count, I64(0))


def _futex(b: ir.IRBuilder, p: Any, what: int, value: Any, timeout: Any) -> None:
    number = I64(_FUTEX[isa_of(b).machine])
    call(b, "syscall", I64, number, p, I64(what), value, timeout, I64(0), I64(0), variadic=1)
