"""Throughput and memory of 1 to 8 processes with one compiled model, by the schedulers that ship it.

    python -m bench.distributed --processes 1 2 4 8 --json distributed.json

The model is six matrix products with 100 MB of weights, compiled for one thread; a task is a batch of 16.
Memory is what the kernel counts for a worker (`/proc/PID/smaps_rollup`, Linux): `private` is its own,
`proportional` counts pages that n processes share as 1/n to each. `dask` is Dask's `scatter`, which sends the
blob to every worker; `dask-ship` and all others use `ship`. Schedulers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

SEED, SIZE, LAYERS, BATCH = 20261120, 2048, 6, 16


def make_model() -> Any:
    """The compiled model."""
    import ovjit as ov
    from ovjit import opset13 as op

    rng = np.random.default_rng(SEED)
    x = op.parameter([BATCH, SIZE], np.float32, name="x")
    y: Any = x
    for _ in range(LAYERS):
        weights = rng.standard_normal((SIZE, SIZE), np.float32) * np.float32(np.sqrt(2 / SIZE))
        y = op.relu(op.matmul(y, op.constant(weights), False, False))
    model = ov.Model(op.reduce_sum(y, [1], False), [x])
    return ov.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})


def task(model: Any, seed: int) -> tuple[int, float, dict[str, float]]:
    """One batch in a worker: its process, a sum of the answers, the process's memory in MB."""
    compiled = model() if hasattr(model, "digest") else model
    x = np.random.default_rng(seed).standard_normal((BATCH, SIZE), np.float32)
    total = float(compiled(x)[0].sum(dtype=np.float64))
    return os.getpid(), total, memory()


def memory() -> dict[str, float]:
    """MB of this process: resident, private, proportional."""
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        found[name] = int(value.split()[0]) / 1e3
    private = found["Private_Clean"] + found["Private_Dirty"]
    return {"resident": found["Rss"], "private": private, "proportional": found["Pss"]}


Run = Callable[[int], list[Any]]


@contextlib.contextmanager
def pool(compiled: Any, processes: int) -> Iterator[Run]:
    from ovjit.integrations.shipping import ship

    model = ship(compiled)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn) as executor:
        yield lambda count: list(executor.map(task, [model] * count, range(count)))


@contextlib.contextmanager
def joblib(compiled: Any, processes: int) -> Iterator[Run]:
    import joblib as library

    from ovjit.integrations.shipping import ship

    model = ship(compiled)
    with library.Parallel(n_jobs=processes) as parallel:
        yield lambda count: parallel(library.delayed(task)(model, i) for i in range(count))


@contextlib.contextmanager
def _dask(compiled: Any, processes: int, shipped: bool) -> Iterator[Run]:
    from distributed import Client, LocalCluster

    from ovjit.integrations.shipping import ship

    cluster = LocalCluster(
        n_workers=processes, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    )
    with cluster, Client(cluster) as client:
        model = ship(compiled) if shipped else client.scatter(compiled, broadcast=True, hash=False)
        yield lambda count: client.gather(client.map(task, [model] * count, list(range(count)), pure=False))


def dask(compiled: Any, processes: int) -> Any:
    return _dask(compiled, processes, False)


def dask_ship(compiled: Any, processes: int) -> Any:
    return _dask(compiled, processes, True)


@contextlib.contextmanager
def ray(compiled: Any, processes: int) -> Iterator[Run]:
    import ray as library

    from ovjit.integrations.ray import ship

    root = str(Path(__file__).resolve().parent.parent)
    library.init(
        num_cpus=processes, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": root}},
    )  # fmt: skip
    try:
        model, remote = ship(compiled), library.remote(task)
        yield lambda count: library.get([remote.remote(model, i) for i in range(count)])
    finally:
        library.shutdown()


WAYS: dict[str, tuple[str, Any]] = {
    "pool": ("ovjit", pool), "joblib": ("joblib", joblib), "dask": ("distributed", dask),
    "dask-ship": ("distributed", dask_ship), "ray": ("ray", ray),
}  # fmt: skip


def measure(way: str, compiled: Any, processes: int, seconds: float) -> dict[str, Any]:
    """One row: batches in a second and the workers' memory, and whether all answers were right."""
    with WAYS[way][1](compiled, processes) as run:
        run(4 * processes)  # start, ship, load
        began = time.perf_counter()
        run(4 * processes)
        each = (time.perf_counter() - began) / 4
        count = processes * max(4, round(seconds / max(each, 1e-3)))
        began = time.perf_counter()
        found = run(count)
        spent = time.perf_counter() - began
    expected = [task(compiled, i)[1] for i in range(min(count, 8))]
    right = all(abs(a - b[1]) <= 1e-6 * abs(a) for a, b in zip(expected, found, strict=False))
    last = {pid: used for pid, _, used in found}
    sums = {key: sum(used[key] for used in last.values()) for key in ("resident", "private", "proportional")}
    return {
        "way": way, "processes": processes, "used": len(last), "batches_per_second": count / spent,
        "right": right, **{f"{key}_mb": value / len(last) for key, value in sums.items()},
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    compiled = make_model()
    rows = []
    for way in options.ways:
        if importlib.util.find_spec(WAYS[way][0]) is None:
            print(f"{way}: {WAYS[way][0]} is not installed", file=sys.stderr)
            continue
        for processes in options.processes:
            row = measure(way, compiled, processes, options.seconds)
            rows.append(row)
            print(
                f"{way:10s} {processes} processes ({row['used']} worked) "
                f"{row['batches_per_second']:7.2f} batches/s   "
                f"MB each: {row['private_mb']:6.1f} private, {row['proportional_mb']:6.1f} proportional, "
                f"{row['resident_mb']:6.1f} resident   {'right' if row['right'] else 'WRONG'}", flush=True,
            )  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return int(not all(row["right"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
