"""Latency with a neighbour: another process keeps one of the cores busy while a model runs on all of them.

    python -m bench.interference [--models resnet50] [--threads 2] [--rounds 10] [--json out.json]

In every round each engine runs for a while on the quiet machine, and then beside a process that spins on one
core, to which it is bound. `worse` is the 90th percentile beside it divided by the median of the quiet
machine. With two cores, 2 is the speed of the other core alone. More is time lost waiting for the thread that
shares its core.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import command, networks, report
from bench.busy import busy_neighbours
from bench.engines import ENGINES, cores
from bench.rounds import PAUSE, workers
from bench.run import Subject

KEYS = ("model", "threads", "engine")
COLUMNS = (*KEYS, "quiet_ms", "quiet_p90_ms", "busy_ms", "busy_p90_ms", "worse", "version")
#: Seconds that the neighbour has to get going.
START = 0.1


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """A process that is busy on the last core that this one may use."""
    with busy_neighbours(1, max(os.sched_getaffinity(0))):
        time.sleep(START)
        yield


def measure(
    subject: Subject, threads: int, engines: list[str], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """One row for each engine."""
    with workers(engines, lambda w: w.ask("load", threads=threads, **subject.files)) as (ready, _):
        versions = {e: w.ask("version") for e, w in ready.items()}
        quiet: dict[str, list[float]] = {e: [] for e in ready}
        busy: dict[str, list[float]] = {e: [] for e in ready}
        for i in range(rounds):
            order = list(ready)[i % max(len(ready), 1) :] + list(ready)[: i % max(len(ready), 1)]
            for engine in order:
                time.sleep(PAUSE)
                quiet[engine] += ready[engine].ask("run", seconds=seconds)
            with neighbour():
                for engine in order:
                    time.sleep(PAUSE)
                    busy[engine] += ready[engine].ask("run", seconds=seconds)
    rows = []
    for engine in ready:
        median = statistics.median(quiet[engine])
        p90 = report.quantile(busy[engine], 0.9)
        rows.append({
            "model": subject.name, "threads": threads, "engine": engine, "quiet_ms": median / 1e6,
            "quiet_p90_ms": report.quantile(quiet[engine], 0.9) / 1e6,
            "busy_ms": statistics.median(busy[engine]) / 1e6, "busy_p90_ms": p90 / 1e6, "worse": p90 / median,
            "version": versions[engine],
        })  # fmt: skip
    return rows


def main() -> int:
    parser = command.parser("interference", __doc__)
    names, default = ("digits", *networks.NAMES), ["ovjit", "openvino"]
    parser.add_argument("--models", nargs="+", choices=names, default=["resnet50"], metavar="MODEL")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=default, metavar="ENGINE")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="for one engine in one half of a round")
    parser.add_argument("--folder", type=Path, default=None, help="where the networks are")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            subject = Subject(name, Path(folder), arguments.folder)
            rows += measure(
                subject, arguments.threads, arguments.engines, arguments.rounds, arguments.seconds
            )
    print(report.table(rows, COLUMNS))
    said = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    report.write(arguments.json, "interference", KEYS, rows, **said)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
