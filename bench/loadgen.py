"""MLPerf's LoadGen over `AsyncInferQueue`: ovjit and OpenVINO by one harness.

    pip install mlcommons-loadgen
    python -m bench.loadgen [--models digits resnet50 yolo bert128 gpt2] [--engines ovjit openvino]
    [--scenarios SingleStream MultiStream Server Offline] [--seconds 10] [--bound-ms MS] [--threads N]

LoadGen issues the queries and takes the times. Engines alternate, scenario by scenario. Numbers are those of
its own summary. SingleStream has its p90 (ms), MultiStream with 8 samples its p99 (ms), Offline its rate
(samples/s). Server has the largest rate whose p99 keeps the bound (queries/s, found by bisection). Without
`--bound-ms` the bound of a model is ten times the slowest engine's p90 of SingleStream.

`accuracy` is LoadGen's accuracy mode: the share of all samples, read from its log, with the right class. Only
digits have labels. The other models have random weights, and OpenVINO's answers in f32 count as right. A
query of a decoder is a prompt of 64 tokens, and its answer the first token. Runs are shorter than MLPerf's
rules ask for, so these are no MLPerf results.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import command, networks, report, transformers

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
MODELS = ("digits", "resnet50", "yolo", "bert128", "gpt2")
COLUMNS = ("model", "scenario", "engine", "value", "unit", "accuracy", "bound_ms", "valid")
#: Samples of models that have random weights, and runs of a search for a rate.
SAMPLES, STEPS = 16, 6


class Task(NamedTuple):
    """A model's file, its samples, and the right classes where they are known."""

    path: str
    samples: list[dict[int, np.ndarray]]
    labels: list[int]


def task(name: str, folder: Path | None) -> Task:
    """The model `name` of this bench. Labels of random networks are OpenVINO's answers, one after another."""
    if name == "digits":
        from ovjit.data import digits

        path, images, labels = digits()
        return Task(str(path), [{0: image[None]} for image in images], [int(y) for y in labels])
    if name in networks.NAMES:
        path = networks.build(name, folder)
        samples = [{0: networks.network_input(name, i)} for i in range(SAMPLES)]
    else:
        path = transformers.build(name, folder)
        samples = [dict(enumerate(transformers.inputs(name, seed=i))) for i in range(SAMPLES)]
    import openvino

    known = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request, labels = known.create_infer_request(), []
    for sample in samples:
        request.reset_state()
        request.infer(sample)
        labels.append(answer(request))
    return Task(str(path), samples, labels)


def answer(request: Any) -> int:
    """The class: where the first output is largest, of a decoder at its last token."""
    data = request.get_output_tensor(0).data
    return int((data[:, -1] if data.ndim == 3 and len(data) == 1 else data).argmax())


class Subject:
    """An engine with a model behind LoadGen's interface of a system under test."""

    def __init__(self, engine: str, work: Task, threads: int) -> None:
        import importlib

        package = importlib.import_module(engine)
        hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
        self.work = work
        compiled = package.Core().compile_model(
            work.path, "CPU", {**hints, **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
        )
        self.queue = package.AsyncInferQueue(compiled)
        self.queue.set_callback(self._done)
        self.stateful = bool(self.queue[0].query_state())

    def _done(self, request: Any, sample: int) -> None:
        import mlperf_loadgen as lg

        found = np.array([answer(request)], np.int32)
        if self.stateful:
            request.reset_state()
        lg.QuerySamplesComplete([lg.QuerySampleResponse(sample, found.ctypes.data, found.nbytes)])

    def issue(self, samples: Sequence[Any]) -> None:
        for sample in samples:
            self.queue.start_async(self.work.samples[sample.index], sample.id)

    def flush(self) -> None:
        pass  # each sample has been started, and LoadGen waits for the answers

    def run(self, scenario: str, settings: dict[str, Any], accuracy: bool = False) -> dict[str, Any]:
        """LoadGen's summary as a dict of its lines, with "accuracy" (a share) in accuracy mode."""
        import mlperf_loadgen as lg

        asked = lg.TestSettings()
        asked.scenario = getattr(lg.TestScenario, scenario)
        asked.mode = lg.TestMode.AccuracyOnly if accuracy else lg.TestMode.PerformanceOnly
        for key, value in settings.items():
            setattr(asked, key, value)
        with tempfile.TemporaryDirectory() as folder:
            log = lg.LogSettings()
            log.log_output.outdir = folder
            log.log_output.copy_summary_to_stdout = False
            log.enable_trace = False
            count = len(self.work.samples)
            sut = lg.ConstructSUT(self.issue, self.flush)
            library = lg.ConstructQSL(count, count, lambda _: None, lambda _: None)
            try:
                lg.StartTestWithLogSettings(sut, library, asked, log, "none")
            finally:
                self.queue.wait_all()
                lg.DestroyQSL(library)
                lg.DestroySUT(sut)
            if accuracy:
                rows = json.loads((Path(folder) / "mlperf_log_accuracy.json").read_text())
                return {"accuracy": self.right(rows)}
            return summary((Path(folder) / "mlperf_log_summary.txt").read_text())

    def right(self, rows: list[dict[str, Any]]) -> float:
        """The share of right classes in LoadGen's log. RuntimeError unless it has every sample."""
        found = {row["qsl_idx"]: np.frombuffer(bytes.fromhex(row["data"]), np.int32)[0] for row in rows}
        if found.keys() != set(range(len(self.work.samples))):
            raise RuntimeError("LoadGen's log of accuracy lacks samples")
        return float(np.mean([found[i] == label for i, label in enumerate(self.work.labels)]))


def summary(text: str) -> dict[str, Any]:
    """ "name : value" of LoadGen's summary; numbers are float."""
    found: dict[str, Any] = {}
    for key, value in re.findall(r"(?m)^\s*(.+?)\s*:\s*(\S+)\s*$", text):
        found[key] = float(value) if re.fullmatch(r"[\d.]+(e[+-]?\d+)?", value) else value
    return found


def largest_rate(valid: Callable[[float], bool], most: float, steps: int = STEPS) -> float:
    """The largest rate that is valid, by bisection below `most` (which no engine exceeds); 0 if none is."""
    low, high = 0.0, most
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if valid(middle) else (low, middle)
    return low


def milliseconds(found: dict[str, Any], share: str) -> float:
    return next(v for k, v in found.items() if k.startswith(share) and "latency (ns)" in k) / 1e6


def measure(subject: Subject, scenario: str, seconds: float, bound: float) -> dict[str, Any]:
    """A row's value, unit, accuracy and whether LoadGen says VALID. `bound`: of Server, in ms."""
    base = {
        "min_duration_ms": int(seconds * 1e3), "max_duration_ms": int(seconds * 3e3), "min_query_count": 10,
    }  # fmt: skip
    known = subject.run(scenario, {"server_target_qps": 10 * rate_of(subject)}, accuracy=True)
    if scenario == "Server":
        offline = subject.run("Offline", {**base, "offline_expected_qps": rate_of(subject)})
        goal = {"server_target_latency_ns": int(bound * 1e6), "server_target_latency_percentile": 0.99}

        def valid(rate: float) -> bool:
            found = subject.run("Server", {**base, **goal, "server_target_qps": rate})
            return milliseconds(found, "99.00 percentile") <= bound

        rate = largest_rate(valid, offline["Samples per second"])
        return {"value": rate, "unit": "queries/s", "bound_ms": bound, "valid": rate > 0, **known}
    if scenario == "Offline":
        base["offline_expected_qps"] = rate_of(subject)
    found = subject.run(scenario, base)
    value, unit = {
        "SingleStream": lambda: (milliseconds(found, "90.00 percentile"), "ms p90"),
        "MultiStream": lambda: (milliseconds(found, "99.00 percentile"), "ms p99 of 8"),
        "Offline": lambda: (found["Samples per second"], "samples/s"),
    }[scenario]()
    return {"value": value, "unit": unit, "valid": found["Result is"] == "VALID", **known}


def rate_of(subject: Subject) -> float:
    """Samples per second, roughly: a short Offline run, for LoadGen to know how many to issue."""
    found = subject.run("Offline", {"min_duration_ms": 500, "offline_expected_qps": 20, "min_query_count": 1})
    return found["Samples per second"]


def compare(
    name: str, work: Task, engines: Sequence[str], scenarios: Sequence[str], seconds: float,
    bound: float | None, threads: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of a model."""
    subjects = {engine: Subject(engine, work, threads) for engine in engines}
    if bound is None and "Server" in scenarios:
        short = {"min_duration_ms": 500, "min_query_count": 20}
        times = [milliseconds(s.run("SingleStream", short), "90.00 percentile") for s in subjects.values()]
        bound = 10 * max(times)
    return [
        {"model": name, "scenario": scenario, "engine": engine, **measure(s, scenario, seconds, bound or 0)}
        for scenario in scenarios
        for engine, s in subjects.items()
    ]


def main(argv: list[str] | None = None) -> int:
    parser = command.parser("loadgen", __doc__)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--engines", nargs="*", default=["ovjit", "openvino"], choices=["ovjit", "openvino"])
    parser.add_argument("--scenarios", nargs="*", default=SCENARIOS, choices=SCENARIOS)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--bound-ms", type=float, default=None)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for name in arguments.models:
        found = compare(
            name, task(name, arguments.folder), arguments.engines, arguments.scenarios, arguments.seconds,
            arguments.bound_ms, arguments.threads,
        )  # fmt: skip
        print(report.table(found, COLUMNS), flush=True)
        rows += found
    report.write(arguments.json, "loadgen", ["model", "scenario", "engine"], rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
