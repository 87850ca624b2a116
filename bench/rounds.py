"""Interleaved rounds: what all comparisons of engines here are made of.

In every round each engine runs for a moment, alone, in a process of its own; the order turns from round to
round. What slows the machine down for a while then slows all of them, and the ratio within a round holds.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.worker import Worker, WorkerError

#: Seconds between two engines: pools of threads that spin after their work go to sleep.
PAUSE = 0.03


@contextlib.contextmanager
def workers(
    engines: Sequence[str], prepare: Callable[[Worker], Any]
) -> Iterator[tuple[dict[str, Worker], dict[str, Any]]]:
    """A prepared worker for each engine, and what `prepare` returned. An engine that fails is named on
    stderr and left out."""
    with contextlib.ExitStack() as stack:
        ready: dict[str, Worker] = {}
        said: dict[str, Any] = {}
        for engine in engines:
            worker = stack.enter_context(Worker(engine))
            try:
                said[engine] = prepare(worker)
            except WorkerError as error:
                print(f"  left out: {error}", file=sys.stderr)
            else:
                ready[engine] = worker
        yield ready, said


def interleave(
    ready: dict[str, Worker], rounds: int, run: Callable[[Worker], list[float]]
) -> dict[str, list[list[float]]]:
    """Engine -> the times of each round. `run` has one worker do its part of a round."""
    engines = list(ready)
    times: dict[str, list[list[float]]] = {e: [] for e in engines}
    for i in range(rounds):
        turn = i % len(engines) if engines else 0
        for engine in engines[turn:] + engines[:turn]:
            time.sleep(PAUSE)
            times[engine].append(run(ready[engine]))
    return times
