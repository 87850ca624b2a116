"""Handlers of signals that use an `AsyncInferQueue` whose calls they interrupt: nothing hangs or is lost.

A handler may run between any two bytecodes of the main thread. It cannot wait for what its own thread does
when it returns: a job that is about to be started or freed. Other threads are never refused for that.
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ovjit
from ovjit.api.run import queue as queues
from ovjit.errors import Busy
from ovjit.execution import job as jobs
from ovjit.execution import runner
from tests.support import api_cases as cases
from tests.support.interrupted import bytecodes, check_handled, sample_of
from tests.support.signal_stack import leave_signal_stack

pytestmark = pytest.mark.thread_unsafe(reason="Python runs handlers of signals in the main thread alone")

X = np.linspace(-1, 1, 8, dtype=np.float32)
#: Bytecodes of each case in the default suite.
SOME = 60


class Use:
    """A queue, what a program does with it, and what its handler does meanwhile."""

    def __init__(self, jobs: int, callback: str, action: str):
        compiled = cases.unary(ovjit, (-1,), NUM_STREAMS=2, INFERENCE_NUM_THREADS=2)
        self.queue = ovjit.AsyncInferQueue(compiled, jobs)
        self.jobs, self.quick, self.action = jobs, 1000 * (callback == "quick"), action
        self.numbers: Counter[int] = Counter()  # of the started inferences
        self.ended: Counter[int] = Counter()
        self.wrong: list[Any] = []
        self.refused = 0
        if callback != "none":
            self.queue.set_callback(self._note)

    def _note(self, request: Any, number: int) -> None:
        self.ended[number] += 1
        if not np.array_equal(request.results[0], np.maximum(X + number, 0)):
            self.wrong.append(number)

    def _start(self, number: int) -> None:
        self.queue.start_async([X + number], number)
        self.numbers[number] += 1

    def scenario(self) -> None:
        self.queue._pool.quick = self.quick
        for number in range(self.jobs + 1):
            self._start(number)
        self.queue.wait_all()

    def handle(self) -> None:
        if self.action == "waits":
            self.queue.wait_all()
            return
        self.queue._pool.suspect = True  # as after an earlier interrupt: nothing is found that is not lost
        try:
            if self.action == "asks":
                self.queue.get_idle_request_id()
                for request in self.queue:
                    request.wait()
            else:
                for number in range(7, 9):
                    self._start(number)
        except Busy as refused:
            assert re.search("handlers? of (a )?signal", str(refused))
            self.refused += 1
        self.queue.wait_all()

    def check(self) -> None:
        pool = self.queue._pool
        self.queue.wait_all()
        for number in range(self.jobs + 2):
            self._start(number)
        self.queue.wait_all()
        assert not self.wrong and (self.ended == self.numbers or pool.callback is None)
        assert sorted(pool.idle) == list(range(self.jobs)), (pool.idle, pool.silent)
        assert not pool.running and not pool.silent and not pool.blocked
        end = time.monotonic() + 20
        while pool.workers.words[runner.LEADERS]:  # no stream is lost
            assert time.monotonic() < end
        for request in self.queue:  # none is busy
            assert request.results is not None


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits in vain finds out soon."""
    monkeypatch.setattr(queues, "_SLICE", 1_000_000)
    monkeypatch.setattr(queues, "_FIRST_SLICE", 100_000)
    monkeypatch.setattr(jobs, "_SLICE", 1_000_000)


def _try(use: Use, choose: Callable[[list[Any]], Any]) -> int:
    for _ in range(4):
        use.scenario()
        use.check()
    places = bytecodes(use.scenario)
    use.check()
    return check_handled(use.scenario, use.handle, use.check, choose(places))


CASES = [
    (jobs, callback, action)
    for action in ("waits", "starts", "asks")
    for callback in ("none", "quick", "on a worker")
    for jobs in (1, 2)
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("jobs", "callback", "action"), CASES)
def test_some_bytecodes(soon: None, jobs: int, callback: str, action: str) -> None:
    use = Use(jobs, callback, action)
    assert _try(use, lambda places: sample_of(places, SOME, 69)) > SOME // 2


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("jobs", "callback", "action"), CASES)
def test_every_bytecode(soon: None, jobs: int, callback: str, action: str) -> None:
    assert _try(Use(jobs, callback, action), lambda places: range(len(places))) > 1000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("callback", ["quick", "on a worker"])
@pytest.mark.parametrize("seconds", [1.5, pytest.param(120, marks=pytest.mark.long)])
def test_alarms_beside_threads_that_fill_the_queue(callback: str, seconds: float) -> None:
    """Nobody but a handler is told that all jobs are taken, and none is lost."""
    leave_signal_stack()
    use = Use(3, callback, "starts")
    failed: list[BaseException] = []
    end = time.monotonic() + seconds

    def handle(*_: object) -> None:
        with contextlib.suppress(Busy):
            use.queue.start_async([X + 7], 7)
            count[7] += 1
        use.queue.wait_all()
        count[9] += 1
        signal.setitimer(signal.ITIMER_REAL, 0.002)

    count: Counter[int] = Counter()

    def fill(number: int) -> None:
        try:
            while time.monotonic() < end:
                use.queue.start_async([X + number], number)
                count[number] += 1
                if count[number] % 50 == 0:
                    use.queue.wait_all()
        except BaseException as error:
            failed.append(error)

    before, interval = signal.signal(signal.SIGALRM, handle), sys.getswitchinterval()
    threads = [threading.Thread(target=fill, args=(number,), daemon=True) for number in range(1, 6)]
    sys.setswitchinterval(1e-5)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        for thread in threads:
            thread.start()
        fill(0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.setswitchinterval(interval)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a wait does not end"
    assert not failed, failed
    assert count.pop(9) > 20
    use.queue.wait_all()
    assert use.ended == count and not use.wrong
    use.numbers = use.ended.copy()
    use.check()
