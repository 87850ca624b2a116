"""Threads are started and recorded whole, or not at all, whatever a signal's handler raises meanwhile."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest

from ovjit import os_threads

pytestmark = pytest.mark.thread_unsafe(reason="handlers of signals run on the main thread")


class Alarm(Exception):
    """Raised by the handler."""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers")
def test_starts_under_alarms() -> None:
    def ring(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    seed = random.randrange(1 << 32)
    generator, alarms = random.Random(seed), 0
    ran, recorded = list[int](), list[threading.Thread]()
    try:
        for _ in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, generator.uniform(20e-6, 300e-6))
                while True:
                    os_threads.start(ran.append, (1,), "short", recorded.append)
            except Alarm:
                alarms += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert alarms == 400
    until = time.monotonic() + 60
    while time.monotonic() < until and (
        len(ran) != len(recorded) or any(t.name == "short" for t in threading.enumerate())
    ):
        time.sleep(0.01)
    assert len(ran) == len(recorded) > 0, f"seed {seed}: {len(ran)} threads ran, {len(recorded)} are recorded"


def test_no_thread_can_be_started(monkeypatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        os_threads.start(print, (), "none")
