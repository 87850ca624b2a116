"""Writes that wait for a model's first inference, on one thread of their own.

A write begins when an inference of its model has ended and none is running, at the latest `PATIENCE` seconds
after the compilation. It never delays the end of the process: the thread is a daemon, and is not waited for.
It is dropped with its model, and in a forked child. The thread has the usual priority: it needs the GIL, and
a thread of low priority that has the GIL would hold up all others on a busy machine.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from typing import Any

from ovjit import os_threads
from ovjit.disk.notice import warn_once
from ovjit.forks import ForkLock
from ovjit.records import NamedTuple

#: Seconds after which a write no longer waits for an inference.
PATIENCE = 5.0
#: Seconds between looks at the models: a quarter of the time that the newest write has waited, within these.
_SHORTEST, _LONGEST = 0.005, 0.25


class Pending(NamedTuple):
    """A write of a model: `write(executable)`. `begin`: when it was requested (monotonic clock)."""

    executable: weakref.ref[Any]
    write: Callable[[Any], None]
    begin: float

    def is_due(self) -> bool:
        executable = self.executable()
        return executable is None or executable.has_run or time.monotonic() > self.begin + PATIENCE


class _Queue:
    """The waiting writes, and the number of threads that are writing."""

    def __init__(self) -> None:
        self.lock = ForkLock("late writes")
        self.clear()

    def clear(self) -> None:
        self.pending, self.has_thread, self.writing = list[Pending](), False, 0

    def take(self, are_due: bool) -> list[Pending]:
        """Remove the writes that are due, or all, and count them as being written."""
        with self.lock.lock:
            writes = [one for one in self.pending if are_due or one.is_due()]
            self.pending = [one for one in self.pending if one not in writes]
            self.writing += bool(writes)
            return writes

    def write(self, writes: list[Pending]) -> None:
        """Run writes that `take` has returned."""
        try:
            for one in writes:
                try:
                    executable = one.executable()
                    if executable is not None:
                        one.write(executable)
                except Exception as error:  # nobody waits for the outcome, and the model runs without it
                    warn_once("late writes", f"a compiled model is not kept: {type(error).__name__}: {error}")
        finally:
            with self.lock.lock:
                self.writing -= bool(writes)

    def next_pause(self) -> float:
        """Seconds until the queue must be checked again; 0 if it is empty, and the thread ends."""
        with self.lock.lock:
            if not self.pending:
                self.has_thread = False
                return 0.0
            waited = time.monotonic() - max(one.begin for one in self.pending)
            return min(max(waited / 4, _SHORTEST), _LONGEST)


_queue = _Queue()


def write_later(executable: Any, write: Callable[[Any], None]) -> None:
    """Call `write(executable)` after its first inference, on another thread."""
    with _queue.lock.lock:
        _queue.pending.append(Pending(weakref.ref(executable), write, time.monotonic()))
        if _queue.has_thread:
            return
        _queue.has_thread = True
    try:
        os_threads.start(_run, (), "ovjit-keeping")
    except RuntimeError:  # no more threads, or the interpreter is ending
        _queue.clear()


def finish() -> None:
    """Run all waiting writes, and wait until they are done."""
    _queue.write(_queue.take(True))
    while _queue.writing:
        time.sleep(_SHORTEST)


def _run() -> None:
    while pause := _queue.next_pause():
        time.sleep(pause)
        _queue.write(_queue.take(False))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_queue.clear)
