"""Calls on a busy machine, ovjit beside OpenVINO: what other processes cost each kind of call.

    python -m bench.busy [--models digits] [--neighbours 0 4 8 16] [--threads 2] [--pause 2] [--json out.json]

For every number of neighbours, which compute without a pause, the engines take turns as in `bench.calls`. A
pause before each call makes it that of a service: a process that computes all the time gets its share of the
cores, and its percentiles show the scheduler's slices. Times are per inference, in microseconds; `ratio99`
and `ratio999` are quotients of the percentiles. Without neighbours the table shows a quiet machine.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import command, networks, report
from bench.calls import Add
from bench.engines import cores
from bench.rounds import interleave, workers
from bench.run import BASE, Subject
from bench.worker import Worker

KEYS = ("model", "threads", "neighbours", "call", "engine")
COLUMNS = (*KEYS, "p50_us", "p99_us", "p999_us", "ratio50", "ratio99", "ratio999")
ENGINES = ("ovjit", BASE)
#: Percentiles, as shares.
SHARES = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999}


@contextlib.contextmanager
def busy_neighbours(count: int, core: int | None = None) -> Iterator[None]:
    """So many processes that compute without a pause, bound to a core if one is given."""
    bind = "" if core is None else f"import os\nos.sched_setaffinity(0, [{core}])\n"
    program = f"{bind}print(flush=True)\nwhile True: pass"
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def measure(
    subject: Subject,
    threads: int,
    neighbours: list[int],
    jobs: int,
    rounds: int,
    seconds: float,
    pause: float,
) -> list[dict[str, Any]]:
    """One row for each number of neighbours, kind of call and engine."""
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}

    def prepare(worker: Worker) -> list[str]:
        return worker.ask("prepare_calls", config=config, jobs=jobs, **subject.files)

    rows = []
    with workers(ENGINES, prepare) as (ready, answers):
        for count in neighbours:
            with busy_neighbours(count):
                for kind in next(iter(answers.values())):
                    ask = functools.partial(Worker.ask, do="calls", kind=kind, seconds=seconds, pause=pause)
                    times = interleave(ready, rounds, ask)
                    rows += _rows(times, dict(zip(KEYS, (subject.name, threads, count, kind), strict=False)))
    return rows


def _rows(times: dict[str, list[list[float]]], key: dict[str, Any]) -> list[dict[str, Any]]:
    percentiles = {
        engine: {
            name: report.quantile([t / 1e3 for part in parts for t in part], share)
            for name, share in SHARES.items()
        }
        for engine, parts in times.items()
    }
    base = percentiles[BASE]
    return [
        {**key, "engine": engine, **row, **{f"ratio{n[1:-3]}": row[n] / base[n] for n in SHARES}}
        for engine, row in percentiles.items()
    ]


def main() -> int:
    parser = command.parser("busy", __doc__)
    names = ("add", "digits", *networks.NAMES)
    parser.add_argument("--models", nargs="+", choices=names, default=["digits"], metavar="MODEL")
    parser.add_argument("--neighbours", nargs="+", type=int, default=[0, *(n * cores() for n in (2, 4, 8))])
    parser.add_argument("--jobs", type=int, default=4, help="jobs of the queues")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.0, help="for one kind of call in one round")
    parser.add_argument("--pause", type=float, default=2.0, help="milliseconds before each call")
    parser.add_argument("--folder", type=Path, default=None, help="where the networks are")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in arguments.models:
            subject = Add(scratch) if name == "add" else Subject(name, scratch, arguments.folder)
            rows += measure(
                subject, arguments.threads, arguments.neighbours, arguments.jobs, arguments.rounds,
                arguments.seconds, arguments.pause / 1e3,
            )  # fmt: skip
    for count in arguments.neighbours:
        ours = [row for row in rows if row["engine"] == "ovjit" and row["neighbours"] == count]
        for name in ("ratio50", "ratio99", "ratio999"):
            mean = statistics.geometric_mean([row[name] for row in ours])
            print(f"{count} neighbours, {name}: {mean:.2f} in the geometric mean")
    return command.finish(
        arguments, "busy", KEYS, COLUMNS, rows, rounds=arguments.rounds, seconds=arguments.seconds
    )


if __name__ == "__main__":
    raise SystemExit(main())
