"""Queues of requests under the hint THROUGHPUT: what `bench.run --throughput` adds to latencies.

Each engine compiles the model for THROUGHPUT and fills an `AsyncInferQueue` of the size that it asks for. In
interleaved rounds the queue is kept full for a moment. `per_s`: inferences in a second, the median over the
rounds; `queue_ratio`: the time for one inference divided by the peer's, as `ratio` is for latencies;
`streams` and `jobs`: NUM_STREAMS and the queue's length; `stream_mb`: resident memory that each job beyond
the first adds, once all have run.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from bench import report
from bench.engines import PEERS
from bench.rounds import interleave, workers
from bench.worker import Worker

COLUMNS = ("per_s", "queue_ratio", "queue_low", "queue_high", "streams", "jobs", "stream_mb")


def measure(subject: Any, threads: int, chosen: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """engine -> the columns of its row. Engines without queues are left out."""

    def prepare(worker: Worker) -> dict[str, Any]:
        said: dict[str, Any] = worker.ask("load_queue", threads=threads, **subject.files)
        return said

    with workers([e for e in chosen if e != "onnxruntime"], prepare) as (ready, said):
        times = interleave(ready, rounds, lambda w: w.ask("run_queue", seconds=seconds))
    found = {}
    for engine, measured in times.items():
        each = [t for part in measured for t in part]
        row: dict[str, Any] = {"per_s": 1e9 / statistics.median(each), **said[engine]}
        if PEERS[engine] in times:
            ratios = report.ratios(measured, times[PEERS[engine]])
            row |= {f"queue_{name.removeprefix('ratio_')}": value for name, value in ratios.items()}
        found[engine] = row
    return found


def resident() -> float:
    """The resident memory of this process, in MB (10^6 bytes); 0 where the system does not tell it."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmRSS"):
                    return int(line.split()[1]) * 1024 / 1e6
    except OSError as error:
        print(f"no resident memory: {error}", file=sys.stderr)
    return 0.0


class Queue:
    """The worker's side: a full queue of one compiled model."""

    def __init__(self, engine: Any, paths: dict[str, str], inputs: list[Any], threads: int):
        module = engine.module
        config = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads, **engine.hints}
        compiled = engine.core.compile_model(paths[engine.file], "CPU", config)
        one = compiled.create_infer_request()
        one.infer(inputs)
        before = resident()
        self._queue = module.AsyncInferQueue(compiled)
        for request in self._queue:
            for i, array in enumerate(inputs):
                request.set_input_tensor(i, module.Tensor(array))
        self.jobs = len(self._queue)
        self.run(0.0, least=3 * self.jobs)
        self.told = {
            "streams": int(compiled.get_property("NUM_STREAMS")),
            "jobs": self.jobs,
            # the request before shares its memory with the first job
            "stream_mb": (resident() - before) / max(1, self.jobs - 1),
        }

    def run(self, seconds: float, least: int = 0) -> float:
        """Nanoseconds for one inference, of a queue that is full for `seconds` and `least` inferences."""
        clock, done = time.perf_counter_ns, 0
        began = clock()
        end = began + int(seconds * 1e9)
        while clock() < end or done < max(least, 2 * self.jobs):
            self._queue.start_async()
            done += 1
        self._queue.wait_all()
        return (clock() - began) / done
