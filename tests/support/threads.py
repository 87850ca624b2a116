"""Threads of tests: started together, and switched often, so that races show."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence


def run_threads(
    threads: Sequence[threading.Thread], interval: float = 1e-6, until: float = float("inf")
) -> None:
    """Start the threads and join them. Python switches between threads every `interval` seconds meanwhile.
    At the time `until` of `time.monotonic`, threads may still be alive."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        start_and_join(threads, until)
    finally:
        sys.setswitchinterval(before)


def start_and_join(threads: Sequence[threading.Thread], until: float = float("inf")) -> None:
    """Start the threads and join them, or wait until the time `until` of `time.monotonic`."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(None if until == float("inf") else max(0.0, until - time.monotonic()))
