"""Ways to ask for an inference, ovjit beside OpenVINO: what a call costs, synchronous and asynchronous.

    python -m bench.calls [--models add digits] [--jobs 4] [--streams 1] [--rounds 15] [--json out.json]

`add` is the documents' smallest model, the sum of two inputs of 8 floats; `digits` is the embedded network;
the names of `bench.networks` work too. Times are per inference, in microseconds; those of queues are of
bursts, divided by the number of items.
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, networks, report
from bench.rounds import interleave, workers
from bench.run import BASE, Subject
from bench.worker import Worker, WorkerError

KEYS = ("model", "threads", "streams", "call", "engine")
COLUMNS = (*KEYS, "p50_us", "p99_us", "ratio", "ratio_low", "ratio_high")
ENGINES = ("ovjit", BASE)


class Add(Subject):
    """[8] + [8], as an IR written by the real OpenVINO."""

    def __init__(self, scratch: Path):
        import openvino

        self.name = "add"
        path = scratch / "add.xml"
        left, right = (openvino.opset8.parameter([8], np.float32, name=name) for name in ("left", "right"))
        model = openvino.Model([openvino.opset8.add(left, right)], [left, right], "add")
        openvino.save_model(model, path, compress_to_fp16=False)
        self.paths = {"xml": str(path)}
        self.inputs = str(scratch / "add-inputs.npz")
        rng = np.random.default_rng(networks.SEED)
        np.savez(self.inputs, *(rng.standard_normal(8, np.float32) for _ in range(2)))


def measure(
    subject: Subject, threads: int, streams: int, jobs: int, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """One row for each kind of call and engine."""
    hint = "LATENCY" if streams == 1 else "THROUGHPUT"
    config = {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}
    rows = []

    def prepare(worker: Worker) -> list[str]:
        return worker.ask("prepare_calls", config=config, jobs=jobs, **subject.files)

    with workers(ENGINES, prepare) as (ready, said):
        for kind in next(iter(said.values()), []):
            try:
                times = interleave(
                    ready, rounds, functools.partial(Worker.ask, do="calls", kind=kind, seconds=seconds)
                )
            except WorkerError as error:
                print(f"  {kind}: {error}", file=sys.stderr)
                continue
            for engine, measured in times.items():
                every = [t / 1e3 for part in measured for t in part]
                row = {
                    "model": subject.name,
                    "threads": threads,
                    "streams": streams,
                    "call": kind,
                    "engine": engine,
                }
                row |= {"p50_us": statistics.median(every), "p99_us": report.quantile(every, 0.99)}
                if BASE in times:
                    row |= report.ratios(measured, times[BASE])
                rows.append(row)
    return rows


def main() -> int:
    parser = command.parser("calls", __doc__)
    models = ("add", "digits", *networks.NAMES)
    parser.add_argument("--models", nargs="+", choices=models, default=models[:2], metavar="MODEL")
    parser.add_argument("--jobs", nargs="+", type=int, default=[4], help="jobs of the queues")
    parser.add_argument("--streams", nargs="+", type=int, default=[1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.1, help="for one kind of call in one round")
    parser.add_argument("--folder", type=Path, default=None, help="where the networks are")
    arguments = parser.parse_args()
    found: dict[tuple, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in arguments.models:
            subject = Add(scratch) if name == "add" else Subject(name, scratch, arguments.folder)
            for streams in arguments.streams:
                for jobs in arguments.jobs:
                    print(f"{name}, {streams} streams, queues of {jobs}", file=sys.stderr)
                    rows = measure(
                        subject, arguments.threads, streams, jobs, arguments.rounds, arguments.seconds
                    )
                    # Calls without a queue are measured again for every number of jobs: the first stays.
                    for row in rows:
                        found.setdefault(tuple(row[k] for k in KEYS), row)
    rows = list(found.values())
    return command.finish(
        arguments, "calls", KEYS, COLUMNS, rows, rounds=arguments.rounds, seconds=arguments.seconds
    )


if __name__ == "__main__":
    raise SystemExit(main())
