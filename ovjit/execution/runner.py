"""The native runner: one loop that executes any plan's table, and the worker loop around it.

A plan is a table of steps. A step calls one kernel for each of its chunks:

    kernel(bases, args, chunk, scratch) -> 0, or an error code

`bases` has the addresses of arena, constants, inputs and outputs. `args` is the step's block of integers. The
table fixes the content of each chunk, so results do not depend on the thread that runs it.

Threads claim chunks. A step is complete when its chunks are complete, not when all threads have arrived. So a
preempted thread does not block the others, unless it holds a chunk. Threads of even slots claim the first
half of the chunks first, threads of odd slots the second half. Chunks follow the rows of a tensor, so each of
two threads finds the data that it wrote a step before in its own cache. Both claim chunks in ascending order,
as kernels prefetch the weights of the next chunk.

A claim is a compare-and-swap on (generation, next chunk). So a thread that arrives after a job's end claims
nothing, even if the job's memory is in use again. That memory must stay mapped while `ACTIVE` is not 0, which
`streams.py` ensures.

Everything is int64 in memory shared by all threads, in the layout of `ovjit.execution.layout`. The functions
are in `ovjit.execution.runner_functions`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from ovjit.codegen import routines
from ovjit.codegen.cpu.objects import function
from ovjit.codegen.kernel import Kernel
from ovjit.execution import python_calls
from ovjit.execution.layout import *

#: Kernel -> its functions: for every inference, for queues and threads, for control flow, for native loops. A
#: process compiles or loads a kernel at first use.
ROUTINES = {
    "runner": ("walk", "lead", "from_python"),
    "runner_queues": (
        "work", "submit", "wait", "finish", "wake", "publish", "release", "pop", "wake_all", "steal",
    ),
    "runner_control": ("repeat", "branch"),
    "runner_iterate": ("iterate",),
}  # fmt: skip
_HOME = {function: kernel for kernel, functions in ROUTINES.items() for function in functions}


def _intrinsics(isa: Any) -> dict[str, Any]:
    from ovjit.codegen.cpu import atomics

    return atomics.intrinsics()


@functools.cache
def native_kernel(name: str = "runner") -> Kernel:
    """A kernel with several of the runner's functions, cached and loaded like all kernels. The first function
    is its `kernel`."""
    return routines.routines(name, ROUTINES[name], "ovjit.execution.runner_functions", _intrinsics)


def native_kernels(loaded: bool = False) -> tuple[Kernel, ...]:
    """All kernels of the runner. `loaded`: only those that this process has loaded, as printing takes
    time."""
    return tuple(native_kernel(name) for name in ROUTINES if not loaded or ROUTINES[name][0] in _addresses)


class Native:
    """The functions of ROUTINES as Python callables. The first access to one loads its kernel."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name not in _HOME:
            raise AttributeError(name)
        native(_HOME[name])
        return vars(self)[name]


_native = Native()
#: name -> address of the runner's functions that are loaded
_addresses: dict[str, int] = {}
#: Functions that may take long, and release the GIL. The others take less time than releasing it.
_LONG = ("walk", "lead", "work", "wait", "pop", "steal", "iterate")
#: Functions that an inference calls.
_OFTEN = ("lead", "submit", "wait", "finish", "release", "pop", "steal")
#: The number of arguments, if some of the four are unused: each takes time to convert.
_ARGUMENTS = {"lead": 3, "finish": 1, "wake": 2, "publish": 2, "release": 2, "wake_all": 1}


def native(*needed: str) -> Native:
    """The runner, with the `needed` kernels loaded. This may compile them."""
    for name in needed:
        if next(iter(ROUTINES[name])) not in _addresses:
            if name != "runner":
                native("runner")  # has `from_python`
            addresses = routines.load(name, ROUTINES[name], functools.partial(native_kernel, name))
            # Compile all before any is called. A thread that takes a job must not be interrupted while it
            # looks up the function that finishes it.
            vars(_native).update((text, _callable(text, at, addresses)) for text, at in addresses.items())
            _addresses.update(addresses)  # last: after an interrupt above, the next call repeats this
    return _native


def _callable(name: str, address: int, loaded: dict[str, int]) -> Callable[..., int]:
    """A function of the runner for Python. `loaded`: name -> address of those that are loaded with it."""
    entry = loaded.get("from_python") or _addresses["from_python"]
    arity, is_long = _ARGUMENTS.get(name, 4), name in _LONG
    built_in = python_calls.caller(name, address, arity, is_long, entry) if name in _OFTEN else None
    return built_in or function(address, arity, is_long)


def address_of(name: str) -> int:
    """The address of one of the runner's functions."""
    native(_HOME[name])
    return _addresses[name]


def clock() -> int:
    """The runner's clock, in nanoseconds: what `now` of `ovjit.codegen.cpu.systems` reads."""
    if hasattr(time, "clock_gettime_ns"):
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return time.perf_counter_ns()  # Windows: `now` reads the performance counter too
