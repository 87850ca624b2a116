"""Threads are started and recorded whole, or not at all, whatever a signal's handler raises meanwhile."""

from __future__ import annotations

import random
import signal
import threading

import pytest

from ovjit import os_threads
from tests.support.run import printed

#: Starts threads until an alarm comes, 400 times. Alarms repeat: Python drops one that comes in a finalizer.
PROGRAM = """
import random, signal, sys, threading, time
from ovjit import os_threads

class Alarm(Exception):
    pass

def ring(*_):
    raise Alarm

os_threads.start(print, ("begin",), "first")
generator, ran, recorded, alarms = random.Random(int(sys.argv[1])), [], [], 0
signal.signal(signal.SIGALRM, ring)
while alarms < 400:
    try:
        signal.setitimer(signal.ITIMER_REAL, generator.uniform(20e-6, 300e-6), 1.0)
        while True:
            os_threads.start(ran.append, (1,), "short", recorded.append)
    except Alarm:
        alarms += 1
signal.signal(signal.SIGALRM, signal.SIG_IGN)
until = time.monotonic() + 60
while time.monotonic() < until and (
    len(ran) != len(recorded) or any(t.name == "short" for t in threading.enumerate())
):
    time.sleep(0.01)
print(len(ran), len(recorded), len(threading.enumerate()))
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers")
def test_starts_under_alarms() -> None:
    seed = random.randrange(1 << 32)
    ran, recorded, here = map(int, printed("-c", PROGRAM, seed).splitlines()[-1].split())
    assert ran == recorded > 0 and here == 1, (
        f"seed {seed}: {ran} ran, {recorded} are recorded, {here} are here"
    )


@pytest.mark.timeout(60)
@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_no_thread_can_be_started(error, monkeypatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise error("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        os_threads.start(print, (), "none")
