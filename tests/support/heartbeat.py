"""A thread that must not be kept waiting: what a server's event loop is beside inference."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

#: s. What the issue of requests and threads promises: "a thread beside them never waits 100 ms".
LONGEST = 0.1
#: What holds the GIL does so every time. What the machine takes once (a page fault's disk, a neighbour, a
#: scheduler's whim) it does not take this many times in a row.
ATTEMPTS = 5

Result = TypeVar("Result")


class Heartbeat:
    """`with Heartbeat() as beat: ...`; then `beat.gap` is the longest time in s between two beats of 1 ms.

    Time counts as far as this process has used the CPU in it: who holds the GIL computes, while other
    programs on the machine take time from both threads.
    """

    def __init__(self) -> None:
        self.gap = 0.0
        self.beats = 0
        self.where = ""

    def __enter__(self) -> Heartbeat:
        self._watched = threading.get_ident()
        self._stop = False
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        while self.beats < 3:
            time.sleep(0.001)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stop = True
        self._thread.join()

    def _beat(self) -> None:
        last, last_cpu = time.perf_counter(), time.process_time()
        while not self._stop:
            time.sleep(0.001)
            now, cpu = time.perf_counter(), time.process_time()
            gap = min(now - last, cpu - last_cpu)
            if gap > self.gap:
                self.gap = gap
                frame = sys._current_frames().get(self._watched)
                self.where = "".join(traceback.format_stack(frame)[-6:]) if gap > LONGEST / 2 else ""
            self.beats += 1
            last, last_cpu = time.perf_counter(), time.process_time()


def gives_way(what: str, call: Callable[[], Result]) -> Result:
    """What `call()` gives. Fails where `call` holds the GIL for `LONGEST` each of `ATTEMPTS` times."""
    for _ in range(ATTEMPTS):
        with Heartbeat() as beat:
            result = call()
        if beat.gap < LONGEST:
            return result
    raise AssertionError(f"{what} held the GIL for {1e3 * beat.gap:.0f} ms, until\n{beat.where}")
