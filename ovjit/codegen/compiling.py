"""Compiles kernels that are in no cache, reports progress, and shares the work between processes.

Processes that start together on an empty cache share the work. Each claims a kernel before it compiles it,
and loads other processes' kernels from the cache. A claim ends with its process. A process waits for a
claimed kernel at most PATIENCE seconds.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from ovjit import locks, logs
from ovjit.codegen.cpu import elf, machine
from ovjit.disk.kernel_cache import default_cache
from ovjit.errors import UnsupportedError
from ovjit.forks import ForkLock
from ovjit.out_of_memory import COMPILED, IMPORTED, check_headroom
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.codegen.cpu.targets import Target

#: Held while Numba and LLVM run, and over a fork. Under it, nothing is imported or logged, and no user code
#: is called.
lock = locks.rlock("compiler")
#: Held while a thread compiles a kernel, from the lookup in the cache to the write. Renewed in a forked
#: child.
_turn = ForkLock("turn")

#: Numbers of kernels that this process has compiled, loaded from the cache, and loaded from shipped files.
counts = {"compiled": 0, "cached": 0, "shipped": 0}
_counts = ForkLock("counts")

#: Maximum seconds of waiting for kernels that other processes have claimed.
PATIENCE = 20.0
#: Seconds between lookups while waiting.
_LOOK = 0.003
#: Seconds of compilation before the first log line, and between two lines.
_LONG = 0.5


class Compilable(Protocol):
    """A kernel (`ovjit.codegen.kernel`)."""

    name: str

    def compile(self, isa: Target) -> bytes: ...


def count(what: str) -> None:
    """Increment `counts[what]`."""
    with _counts.lock:
        counts[what] += 1


class Progress(NamedTuple):
    """The argument of a `progress` callback: `done` of `total` kernels are compiled after `seconds`.
    `kernel`: the next one, "" after the last."""

    done: int
    total: int
    kernel: str
    seconds: float


_callback: Callable[[Progress], object] | None = None


def progress(callback: Callable[[Progress], object] | None) -> Callable[[Progress], object] | None:
    """Call `callback(Progress)` before each kernel that `compile_model` or an inference compiles, and after
    the last one. None: no callback. Returns the previous callback.

    The callback runs on the compiling thread. Its exceptions end the compilation; kernels that were compiled
    before stay in the cache. Kernels from the cache are not reported.
    """
    global _callback
    before, _callback = _callback, callback
    return before


class _Teller:
    """Reports the progress of `total` kernels to the callback and the log."""

    def __init__(self, total: int):
        self.total = total
        self.start = self.logged = time.perf_counter()
        self.compiled = self.stored = 0

    def step(self, done: int, kernel: str) -> None:
        now = time.perf_counter()
        if kernel and now - self.logged > _LONG:
            self.logged = now
            logs.info("compiling: %d of %d kernels in %.1f s", done, self.total, now - self.start)
        if _callback is not None:
            _callback(Progress(done, self.total, kernel, now - self.start))

    def end(self) -> None:
        self.step(self.total, "")
        seconds = time.perf_counter() - self.start
        if seconds > _LONG:
            where = "not kept on disk"
            if self.stored or not self.compiled:
                some = f"{self.stored} of them " if self.stored < self.compiled else ""
                where = f"{some}kept for later in {default_cache().folder}"
            logs.info("compiled %d kernels in %.1f s, %s", self.compiled, seconds, where)


def compile_all(missing: Mapping[str, Compilable], isa: Target) -> Iterator[tuple[str, bytes]]:
    """Yield (symbol, object code) of each kernel as it becomes available. `missing`: symbol -> kernel."""
    cache = default_cache()
    teller = _Teller(len(missing))
    waiting, done = list(missing), 0
    limit = time.monotonic() + PATIENCE
    while waiting:
        others = []
        for symbol in waiting:
            claim = cache.claim(symbol)
            if claim is None:
                if time.monotonic() < limit:
                    others.append(symbol)
                    continue
                claim = contextlib.nullcontext()
            with claim, _turn.lock:
                code = cache.get(symbol)
                if code is None:
                    teller.step(done, missing[symbol].name)
                    code = _compile(missing[symbol], isa)
                    teller.compiled += 1
                    teller.stored += cache.write(symbol, code)
                else:
                    count("cached")
            done += 1
            yield symbol, code
        if len(others) == len(waiting):
            time.sleep(_LOOK)
        waiting = others
    teller.end()


_NOT_COMPILED = (
    "kernels cannot be compiled. Those that are shipped or in the cache run: compile the model once where it "
    "is allowed, with the same OVJIT_CACHE, or set OVJIT_INTERP=1, by which NumPy runs models, slowly. It is "
    "the system that forbids it"
)


def _compile(kernel: Compilable, isa: Target) -> bytes:
    start = time.perf_counter()
    if "numba" not in sys.modules:
        check_headroom(IMPORTED, "importing Numba and llvmlite")
    try:
        with machine.needing("what compiles kernels"):
            import llvmlite.binding  # noqa: F401
            import numba  # noqa: F401
    except UnsupportedError:
        elf.check_executable(_NOT_COMPILED)
        raise
    check_headroom(COMPILED, "compiling a kernel")
    code = kernel.compile(isa)
    count("compiled")
    logs.debug("compiled %s in %.0f ms", kernel.name, 1e3 * (time.perf_counter() - start))
    return code
