"""Intrinsics of the runner: atomics, indirect calls, the clock, and waiting on an address.

    aload(p) astore(p, x) cas(p, old, new) -> 1 if it swapped, aadd(p, x) -> the old value
    call4(f, a, b, c, d) -> int64       call the C function at address f
    now() nanoseconds of the monotonic clock, pause(), give_way() yields to other threads
    no_denormals() -> the thread's previous control word; subnormal inputs and results are then zeros in
    this thread; float_control(word) restores it
    sleep_on(p, value, ns) until the low 32 bits at p change or ns have passed; wake(p, count)

`ovjit.codegen.cpu.systems` has the functions of each operating system.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu import machine, types
from ovjit.codegen.cpu.intrinsics import make
from ovjit.codegen.cpu.printing import isa_of
from ovjit.codegen.cpu.systems import system
from ovjit.codegen.cpu.types import signature
from ovjit.codegen.cpu.vector_types import pointer

_I32, _I64 = ir.IntType(32), ir.IntType(64)

system()  # imported now: under the compiler's lock, an import could wait for a thread that forks


def _external(b: ir.IRBuilder, name: str, result: ir.Type, args: list) -> Any:
    fnty = ir.FunctionType(result, args)
    return b.module.globals.get(name) or ir.Function(b.module, fnty, name)


def _cas(b: ir.IRBuilder, p: Any, old: Any, new: Any) -> Any:
    pair = b.cmpxchg(pointer(b, p, _I64), old, new, "seq_cst", "seq_cst")
    return b.zext(b.extract_value(pair, 1), _I64)


def _store(b: ir.IRBuilder, p: Any, x: Any) -> None:
    b.store_atomic(x, pointer(b, p, _I64), ordering="seq_cst", align=8)


def _call(b: ir.IRBuilder, f: Any, *args: Any) -> Any:
    fnty = ir.FunctionType(_I64, [_I64] * len(args))
    return b.call(b.inttoptr(f, fnty.as_pointer()), args)


def now(b: ir.IRBuilder) -> Any:
    return system().now(b)


def _pause(b: ir.IRBuilder) -> None:
    if isa_of(b).machine == machine.X86_64:
        b.call(_external(b, "llvm.x86.sse2.pause", ir.VoidType(), []), [])
    elif isa_of(b).is_arm:
        # yield gives way to a core's other thread, and takes no time without one. isb takes about as long as
        # x86-64's pause. Waits are counted in these
        for name, number in (("hint", 1), ("isb", 15)):
            b.call(_external(b, f"llvm.aarch64.{name}", ir.VoidType(), [_I32]), [_I32(number)])


def _control_word(b: ir.IRBuilder) -> Any:
    """The thread's floating-point control word; 0 if the machine is unknown."""
    if isa_of(b).machine == machine.X86_64:
        with b.goto_entry_block():
            slot = b.bitcast(b.alloca(_I32), ir.IntType(8).as_pointer())
        b.call(_external(b, "llvm.x86.sse.stmxcsr", ir.VoidType(), [slot.type]), [slot])
        return b.zext(b.load(b.bitcast(slot, _I32.as_pointer())), _I64)
    if isa_of(b).is_arm:
        return b.call(_external(b, "llvm.aarch64.get.fpcr", _I64, []), [])
    return _I64(0)


def _float_control(b: ir.IRBuilder, word: Any) -> None:
    if isa_of(b).machine == machine.X86_64:
        with b.goto_entry_block():
            slot = b.bitcast(b.alloca(_I32), ir.IntType(8).as_pointer())
        b.store(b.trunc(word, _I32), b.bitcast(slot, _I32.as_pointer()))
        b.call(_external(b, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [slot.type]), [slot])
    elif isa_of(b).is_arm:
        b.call(_external(b, "llvm.aarch64.set.fpcr", ir.VoidType(), [_I64]), [word])


def _no_denormals(b: ir.IRBuilder) -> Any:
    before = _control_word(b)
    # Arm: FZ, for inputs and results. SSE: FTZ (bit 15) for results, DAZ (bit 6) for inputs
    zeros = 1 << 24 if isa_of(b).is_arm else 1 << 15 | 1 << 6
    _float_control(b, b.or_(before, _I64(zeros)))
    return before


def intrinsics() -> dict[str, Any]:
    """name -> intrinsic, for the argument `extra` of `jit.optimised_text`."""
    i, void = types.int64, types.void

    def load(b: ir.IRBuilder, p: Any) -> Any:
        return b.load_atomic(pointer(b, p, _I64), ordering="seq_cst", align=8)

    return {
        "aload": make("aload", signature(i, i), load),
        "astore": make("astore", signature(void, i, i), _store),
        "cas": make("cas", signature(i, i, i, i), _cas),
        "aadd": make(
            "aadd", signature(i, i, i), lambda b, p, x: b.atomic_rmw("add", pointer(b, p, _I64), x, "seq_cst")
        ),
        "call4": make("call4", signature(i, i, i, i, i, i), _call),
        "no_denormals": make("no_denormals", signature(i), _no_denormals),
        "float_control": make("float_control", signature(void, i), _float_control),
        "pause": make("pause", signature(void), _pause),
        "give_way": make("give_way", signature(void), lambda b: system().give_way(b)),
        "sleep_on": make("sleep_on", signature(void, i, i, i), lambda b, *x: system().sleep_on(b, *x)),
        "wake": make("wake", signature(void, i, i), lambda b, *x: system().wake(b, *x)),
    }
