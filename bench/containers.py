"""Threads in containers: throughput and tail latency with CPU quotas, affinity and cpusets.

    python -m bench.containers [--settings quota-0.5 nested] [--engines ovjit openvino]

Makes control groups of its own below this process's (v2 `cpu.max`, v1 `cpu.cfs_quota_us`), which takes root,
and removes them. A setting that cannot be made here is left out, and the output says why. In each round each
engine runs in a new process inside the group, with its defaults: one request after the other
(PERFORMANCE_HINT=LATENCY), then a queue of requests (THROUGHPUT). `throttled` is the share of the scheduler's
periods in which the quota stopped the process. `cpu_us` and `queue_cpu_us` are CPU time for each inference.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import command, memory, report

GROUPS = Path("/sys/fs/cgroup")
PERIOD = 100_000
COLUMNS = (
    "setting", "engine", "threads", "streams", "p50_ms", "p99_ms", "cpu_us", "queue_cpu_us", "throttled",
    "per_second", "latency_ratio", "p99_ratio", "throughput_ratio",
)  # fmt: skip
#: Side of the image of the latency run, in pixels.
SIDE = 64


class Setting(NamedTuple):
    """Quotas in CPUs, from the outer group to the inner one (None: no limit); how many CPUs the affinity mask
    or a cpuset has."""

    quotas: tuple[float | None, ...] = ()
    affinity: int | None = None
    cpuset: int | None = None
    #: ovjit's and OpenVINO's INFERENCE_NUM_THREADS; None: the default.
    threads: int | None = None


SETTINGS = {
    "none": Setting(),
    "quota-0.5": Setting((0.5,)),
    "quota-1": Setting((1.0,)),
    "quota-1.5": Setting((1.5,)),
    "quota-1.5, 1 thread": Setting((1.5,), threads=1),
    "nested 1.5 > none": Setting((1.5, None)),
    "nested none > 0.5": Setting((None, 0.5)),
    "affinity-1": Setting(affinity=1),
    "cpuset-1": Setting(cpuset=1),
}


class Refused(RuntimeError):
    """A setting that cannot be made here."""


@contextlib.contextmanager
def group(setting: Setting) -> Iterator[list[Path]]:
    """Folders whose `cgroup.procs` a process writes itself into; the cpu.stat of the last one counts."""
    made: list[Path] = []
    name = f"ovjit-bench-{os.getpid()}"
    try:
        if setting.quotas:
            place = _root("cpu") / name
            for i, quota in enumerate(setting.quotas):
                place = place if i == 0 else place / "inner"
                _make(place, made)
                if quota is not None:
                    _limit(place, quota)
            yield [place]
        elif setting.cpuset is not None:
            place = _root("cpuset") / name
            _make(place, made)
            cpus = sorted(os.sched_getaffinity(0))[: setting.cpuset]
            _write(place / "cpuset.cpus", ",".join(map(str, cpus)))
            _write(place / "cpuset.mems", (_root("cpuset") / "cpuset.mems").read_text().strip() or "0")
            yield [place]
        else:
            yield []
    finally:
        for place in reversed(made):
            with contextlib.suppress(OSError):
                place.rmdir()


def _root(controller: str) -> Path:
    """The folder below which groups of that controller are made."""
    place = GROUPS / controller
    if not place.is_dir():
        place = GROUPS
    if not (place / "cgroup.procs").exists():
        raise Refused(f"there is no control group {place}")
    return place


def _make(place: Path, made: list[Path]) -> None:
    try:
        place.mkdir()
    except OSError as error:
        raise Refused(f"{place} cannot be made: {error}") from None
    made.append(place)


def _limit(place: Path, quota: float) -> None:
    if (place / "cpu.max").exists():
        _write(place / "cpu.max", f"{int(quota * PERIOD)} {PERIOD}")
    else:
        _write(place / "cpu.cfs_period_us", str(PERIOD))
        _write(place / "cpu.cfs_quota_us", str(int(quota * PERIOD)))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error}") from None


def child(engine: str, model: str, seconds: float, threads: int) -> dict[str, Any]:
    """Latency and throughput of a network in this process, with the package's defaults."""
    ov = importlib.import_module(engine)
    core, x = ov.Core(), np.ones((1, 3, SIDE, SIDE), np.float32)
    given = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    read = core.read_model(model)
    read.reshape([1, 3, SIDE, SIDE])
    compiled = core.compile_model(read, "CPU", {"PERFORMANCE_HINT": "LATENCY", **given})
    request = compiled.create_infer_request()
    for _ in range(20):
        request.infer([x])
    times, spent, end = [], time.process_time(), time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        request.infer([x])
        times.append(time.perf_counter() - began)
    spent = (time.process_time() - spent) / len(times)
    queued = core.compile_model(read, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", **given})
    queue, count = ov.AsyncInferQueue(queued), 0
    queue_spent, began = time.process_time(), time.perf_counter()
    while time.perf_counter() < began + seconds:
        queue.start_async([x])
        count += 1
    queue.wait_all()
    per_second, queue_spent = count / (time.perf_counter() - began), time.process_time() - queue_spent
    return {
        "times": times, "per_second": per_second,
        "cpu_us": spent * 1e6, "queue_cpu_us": queue_spent / count * 1e6,
        "threads": compiled.get_property("INFERENCE_NUM_THREADS"),
        "streams": queued.get_property("NUM_STREAMS"),
    }  # fmt: skip


def once(engine: str, setting: Setting, model: Path, seconds: float) -> dict[str, Any]:
    """One process in the setting: what it measured, and the share of periods in which it was stopped."""
    with group(setting) as places:
        cpus = sorted(os.sched_getaffinity(0))[: setting.affinity]

        def enter() -> None:
            for place in places:
                (place / "cgroup.procs").write_text(str(os.getpid()))
            if setting.affinity:
                os.sched_setaffinity(0, cpus)

        command = [sys.executable, "-m", "bench.containers", "--child", engine, str(model), str(seconds)]
        done = subprocess.run(
            [*command, str(setting.threads or 0)], capture_output=True, text=True, cwd=report.ROOT,
            preexec_fn=enter, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{engine} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        found = dict(json.loads(done.stdout.splitlines()[-1]))
        if setting.quotas:
            stat = dict(line.split() for line in (places[-1] / "cpu.stat").read_text().splitlines())
            found["throttled"] = int(stat.get("nr_throttled", 0)) / max(int(stat.get("nr_periods", 0)), 1)
    return found


def measure(name: str, engines: list[str], model: Path, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each engine; ratios are medians over the rounds of ovjit's by OpenVINO's."""
    found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    for i in range(rounds):
        for engine in engines[:: 1 if i % 2 else -1]:
            found[engine].append(once(engine, SETTINGS[name], model, seconds))
    rows = []
    for engine, runs in found.items():
        times = [t for one in runs for t in one["times"]]
        row = {
            "setting": name,
            "engine": engine,
            "threads": runs[0]["threads"],
            "streams": runs[0]["streams"],
        }
        row |= {"p50_ms": statistics.median(times) * 1e3, "p99_ms": report.quantile(times, 0.99) * 1e3}
        row |= {key: statistics.median(one[key] for one in runs) for key in ("cpu_us", "queue_cpu_us")}
        row["per_second"] = statistics.median(one["per_second"] for one in runs)
        if "throttled" in runs[0]:
            row["throttled"] = statistics.median(one["throttled"] for one in runs)
        rows.append(row)
    if {"ovjit", "openvino"} <= set(engines):
        pairs = list(zip(found["ovjit"], found["openvino"], strict=True))
        ours = next(row for row in rows if row["engine"] == "ovjit")
        for key, value in (
            ("latency_ratio", lambda one: statistics.median(one["times"])),
            ("p99_ratio", lambda one: report.quantile(one["times"], 0.99)),
            ("throughput_ratio", lambda one: one["per_second"]),
        ):
            ours[key] = statistics.median(value(a) / value(b) for a, b in pairs)
    return rows


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        engine, model, seconds, threads = sys.argv[2:]
        print(json.dumps(child(engine, model, float(seconds), int(threads))))
        return 0
    parser = command.parser("containers", __doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--engines", nargs="+", choices=["ovjit", "openvino"], default=["ovjit", "openvino"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of latency, and of throughput")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        memory.write_models(Path(folder), 1, 1)
        for name in given.settings:
            try:
                rows += measure(name, given.engines, Path(folder, "0-0.xml"), given.rounds, given.seconds)
            except Refused as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
            print(report.table(rows, COLUMNS), flush=True)
    report.write(given.json, "containers", ("setting", "engine"), rows, rounds=given.rounds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
