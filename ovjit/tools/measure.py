"""`ovjit benchmark`: latency and throughput of models, with the option names of OpenVINO's benchmark_app.

In: one or more model files (IR, ONNX or a blob), and lists of precisions, hints or numbers of streams to
compare. Every combination is a subject; all are measured in turn, round after round, so that what the
machine does besides falls on all alike. Out: a table; with --json, --csv or --html files.

    ovjit benchmark -m model.xml -hint latency
    ovjit benchmark -m model.xml other.onnx -infer_precision f32 bf16 -t 20 --html report.html
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ovjit.tools import terminal

#: Seconds without -t and -niter.
SECONDS = 10.0
ROUNDS = 10
_HINTS = {
    "latency": "LATENCY", "throughput": "THROUGHPUT", "tput": "THROUGHPUT", "none": None,
    "cumulative_throughput": "CUMULATIVE_THROUGHPUT", "ctput": "CUMULATIVE_THROUGHPUT",
}  # fmt: skip


class Subject(NamedTuple):
    """A model under one configuration. `batch` is the images of an inference."""

    name: str
    model: str
    api: str
    config: dict[str, Any]
    compiled: Any
    requests: int
    batch: int
    compile_ms: float
    first_ms: float
    arrays: list[np.ndarray]
    run: Callable[[float, int], tuple[list[float], float]]


class Result(NamedTuple):
    """What was measured: milliseconds of each inference, and of each round inferences and seconds."""

    subject: Subject
    latencies: list[float]
    rounds: list[tuple[int, float, float]]  # inferences, seconds, median latency

    @property
    def throughput(self) -> float:
        """Images (or whatever the batch counts) in a second."""
        return self.subject.batch * sum(r[0] for r in self.rounds) / sum(r[1] for r in self.rounds)

    def summary(self, percentile: int = 50) -> dict[str, Any]:
        """The row of tables and files."""
        ms = np.array(self.latencies)
        quantiles = {f"p{q}_ms": float(np.percentile(ms, q)) for q in dict.fromkeys((percentile, 90, 95, 99))}
        return {
            "name": self.subject.name, "model": self.subject.model, "api": self.subject.api,
            "requests": self.subject.requests, "batch": self.subject.batch, "count": len(ms),
            "seconds": sum(r[1] for r in self.rounds), "throughput_fps": self.throughput,
            "median_ms": float(np.median(ms)), "average_ms": float(ms.mean()), "min_ms": float(ms.min()),
            "max_ms": float(ms.max()), **quantiles, "compile_ms": self.subject.compile_ms,
            "first_ms": self.subject.first_ms,
        }  # fmt: skip


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="ovjit benchmark",
        description="Latency and throughput of models, compared in interleaved rounds.",
        allow_abbrev=False,
    )
    add = p.add_argument
    add("-m", "--path_to_model", nargs="+", required=True, metavar="MODEL", help="IR, ONNX or blob files")
    add(
        "-i",
        "--paths_to_input",
        nargs="*",
        default=[],
        metavar="FILE",
        help="an .npy or .bin file for each input, in order",
    )
    add("-d", "--target_device", default="CPU", help="CPU, or AUTO, which is the CPU")
    add(
        "-hint",
        "--perf_hint",
        nargs="+",
        default=["latency"],
        choices=sorted(_HINTS),
        help="latency, throughput, none",
    )
    add("-api", "--api_type", choices=("sync", "async"), help="default: sync for latency, else async")
    add(
        "-niter", "--number_iterations", type=_positive, help="inferences of each subject, in place of a time"
    )
    add(
        "-t",
        "--time",
        type=float,
        metavar="SECONDS",
        help=f"time for all subjects together; default {SECONDS:.0f} each",
    )
    add("-b", "--batch_size", type=_positive, help="the first dimension of all inputs")
    add("-shape", default="", help='"input[1,3,224,224],mask[1,128]" or "[1,3,224,224]"')
    add("-nireq", "--number_infer_requests", type=_positive, help="requests of the asynchronous way")
    add("-nstreams", "--number_streams", nargs="+", default=[None], help="numbers of streams to compare")
    add(
        "-nthreads",
        "--number_threads",
        nargs="+",
        type=_positive,
        default=[None],
        help="numbers of threads to compare",
    )
    add(
        "-infer_precision",
        nargs="+",
        default=[None],
        metavar="TYPE",
        help="f32, bf16, f16: precisions to compare",
    )
    add("-cache_dir", help="CACHE_DIR of the compilations")
    add("-load_config", type=Path, help="a JSON file {device: {property: value}}")
    add("-dump_config", type=Path, help="write the properties that are in force there")
    add("-pc", "--perf_counts", action="store_true", help="print the times of all steps of each subject")
    add("-lp", "--latency_percentile", type=int, default=50, choices=range(1, 101), metavar="1..100")
    add("-exec_graph_path", type=Path, help="write the runtime model of the first subject there (IR)")
    add("--rounds", type=_positive, default=ROUNDS, help="every subject is measured so many times, in turn")
    add("--seed", type=int, default=1, help="of random inputs")
    add("--json", type=Path, help="write all numbers there")
    add("--csv", type=Path, help="write the table there")
    add(
        "--html",
        type=Path,
        help="write one page with histograms there (needs matplotlib: pip install 'ovjit[cli]')",
    )
    return p


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} should be at least 1")
    return value


def subjects(options: argparse.Namespace) -> list[Subject]:
    """One for each combination of what the options list. RuntimeError for models that do not compile."""
    given: dict[str, Any] = {}
    if options.load_config:
        given = json.loads(options.load_config.read_text()).get(options.target_device, {})
    ways = list(itertools.product(
        options.path_to_model, options.perf_hint, options.infer_precision, options.number_streams,
        options.number_threads,
    ))  # fmt: skip
    varied = [len(set(column)) > 1 for column in zip(*ways, strict=True)]
    out = []
    for way in ways:
        model, hint, precision, streams, threads = way
        config: dict[str, Any] = dict(given)
        if _HINTS[hint]:
            config["PERFORMANCE_HINT"] = _HINTS[hint]
        if precision:
            config["INFERENCE_PRECISION_HINT"] = precision
        if streams:
            config["NUM_STREAMS"] = int(streams) if str(streams).lstrip("-").isdecimal() else streams
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        if options.cache_dir:
            config["CACHE_DIR"] = options.cache_dir
        if options.perf_counts:
            config["PERF_COUNT"] = True
        texts = (Path(model).name, hint, precision, f"{streams} streams", f"{threads} threads")
        name = (
            " ".join(str(t) for t, v, w in zip(texts, varied, way, strict=True) if v and w)
            or Path(model).name
        )
        api = options.api_type or ("sync" if hint == "latency" else "async")
        out.append(_open(name, model, api, config, options))
    return out


def _open(name: str, path: str, api: str, config: dict[str, Any], options: argparse.Namespace) -> Subject:
    import ovjit as ov
    from ovjit.tools.profile import random_inputs

    core = ov.Core()
    began = time.perf_counter()
    if Path(path).suffix == ".blob":
        compiled = core.import_model(Path(path).read_bytes(), options.target_device, config)
    else:
        model = core.read_model(path)
        _reshape(model, options)
        compiled = core.compile_model(model, options.target_device, config)
    compile_ms = 1e3 * (time.perf_counter() - began)
    arrays = random_inputs(compiled.inputs, None, options.seed)
    for i, file in enumerate(options.paths_to_input):
        if i >= len(arrays):
            raise ValueError(f"{len(options.paths_to_input)} input files for {len(arrays)} inputs")
        arrays[i] = _input(Path(file), arrays[i])
    batch = options.batch_size or (arrays[0].shape[0] if arrays and arrays[0].ndim > 1 else 1)
    queue = ov.AsyncInferQueue(compiled, options.number_infer_requests or 0) if api == "async" else None
    requests = list(queue) if queue is not None else [compiled.create_infer_request()]
    for request in requests:
        for i, array in enumerate(arrays):
            request.set_input_tensor(i, ov.Tensor(array))
    began = time.perf_counter()
    requests[0].infer()
    first_ms = 1e3 * (time.perf_counter() - began)
    run = _async(queue) if queue is not None else _sync(requests[0])
    return Subject(name, path, api, config, compiled, len(requests), batch, compile_ms, first_ms, arrays, run)


def _reshape(model: Any, options: argparse.Namespace) -> None:
    shapes = {}
    if options.shape:
        text = options.shape.strip()
        if text.startswith("["):
            shapes = {port: _dims(text) for port in model.inputs}
        else:
            for part in filter(None, text.replace("],", "]\n").splitlines()):
                key, bracket, rest = part.strip().partition("[")
                if not bracket:
                    raise ValueError(f"-shape {part!r}: write name[1,3,224,224]")
                shapes[key.strip()] = _dims("[" + rest)
    if options.batch_size and not shapes:
        for port in model.inputs:
            dims = list(port.get_partial_shape())
            shapes[port] = [options.batch_size, *dims[1:]]
    if shapes:
        model.reshape(shapes)


def _dims(text: str) -> list[int]:
    try:
        return [int(d) for d in text.strip().strip("[]").split(",") if d.strip()]
    except ValueError:
        raise ValueError(f"-shape {text!r}: dimensions are whole numbers") from None


def _input(file: Path, like: np.ndarray) -> np.ndarray:
    """The array of a file; raw bytes take the shape that the input has."""
    if file.suffix == ".npy":
        return np.load(file, allow_pickle=False).astype(like.dtype)
    raw = np.fromfile(file, like.dtype)
    if raw.size != like.size:
        raise ValueError(f"{file} has {raw.size} elements of {like.dtype}, the input takes {like.size}")
    return raw.reshape(like.shape)


def _sync(request: Any) -> Callable[[float, int], tuple[list[float], float]]:
    def run(seconds: float, count: int) -> tuple[list[float], float]:
        """Inferences one after the other: their milliseconds, and the seconds of all."""
        times: list[float] = []
        began = now = time.perf_counter()
        while (now - began < seconds) if not count else len(times) < count:
            request.infer()
            before, now = now, time.perf_counter()
            times.append(1e3 * (now - before))
        return times, now - began

    return run


def _async(queue: Any) -> Callable[[float, int], tuple[list[float], float]]:
    times: list[float] = []
    queue.set_callback(lambda request, userdata: times.append(request.latency))

    def run(seconds: float, count: int) -> tuple[list[float], float]:
        times.clear()
        began, started = time.perf_counter(), 0
        while (time.perf_counter() - began < seconds) if not count else started < count:
            queue.start_async()
            started += 1
        queue.wait_all()
        return list(times), time.perf_counter() - began

    return run


def measure(chosen: Sequence[Subject], seconds: float, count: int, rounds: int) -> list[Result]:
    """All subjects in turn, `rounds` times; `seconds` for all together, or `count` inferences of each."""
    results = [Result(subject, [], []) for subject in chosen]
    each = seconds / (rounds * len(chosen))
    for subject in chosen:
        subject.run(min(each, 0.2), 3 if count else 0)  # warm
    with terminal.progress("measuring", rounds * len(chosen)) as done:
        for r in range(rounds):
            share = count // rounds + (r < count % rounds) if count else 0
            if count and not share:
                continue
            for i, result in enumerate(results):
                latencies, spent = result.subject.run(each, share)
                result.latencies.extend(latencies)
                result.rounds.append((len(latencies), spent, statistics.median(latencies)))
                done(r * len(chosen) + i + 1)
    return results


def ratios(results: Sequence[Result]) -> list[float | None]:
    """The latency of each to that of the first: medians of the ratios round by round."""
    first = results[0].rounds
    return [
        None if result is results[0]
        else statistics.median(a[2] / b[2] for a, b in zip(result.rounds, first, strict=True))
        for result in results
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ovjit benchmark` with what follows these words. Returns the exit code."""
    options = parser().parse_args(argv)
    try:
        chosen = subjects(options)
        count = options.number_iterations or 0
        seconds = options.time if options.time else SECONDS * len(chosen)
        results = measure(chosen, seconds, count, options.rounds)
        rows = [r.summary(options.latency_percentile) for r in results]
        for row, ratio in zip(rows, ratios(results), strict=True):
            row["ratio"] = ratio
        _write(options, results, rows)
    except (RuntimeError, ValueError, OSError, ImportError, TypeError) as error:
        print(f"ovjit: {error}", file=sys.stderr)
        return 2
    percentile = f"p{options.latency_percentile}_ms"
    columns = ["name", "api", "requests", "count", "median_ms", "average_ms", "min_ms", "max_ms", percentile,
               "p90_ms", "p99_ms", "throughput_fps", "compile_ms", "first_ms"]  # fmt: skip
    columns = list(dict.fromkeys(columns + (["ratio"] if len(rows) > 1 else [])))
    terminal.show_table(columns, [[row[c] for c in columns] for row in rows])
    if options.perf_counts:
        _show_steps(chosen)
    return 0


def _show_steps(chosen: Sequence[Subject]) -> None:
    for subject in chosen:
        request = subject.compiled.create_infer_request()
        request.infer(subject.arrays)
        rows = [
            (
                row.node_name,
                row.status.name,
                row.node_type,
                row.exec_type,
                1e3 * row.real_time.total_seconds(),
            )
            for row in request.get_profiling_info()
        ]
        terminal.show_table(("node", "status", "type", "kernel", "ms"), rows, subject.name)


def _write(options: argparse.Namespace, results: Sequence[Result], rows: Sequence[dict[str, Any]]) -> None:
    if options.json:
        full = [row | {"latencies_ms": r.latencies} for row, r in zip(rows, results, strict=True)]
        options.json.write_text(json.dumps({"results": full}, indent=1))
    if options.csv:
        import csv

        with open(options.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    if options.html:
        from ovjit.tools.report import benchmark_page

        options.html.write_text(benchmark_page(results, rows))
    if options.dump_config:
        names = (
            "PERFORMANCE_HINT NUM_STREAMS INFERENCE_NUM_THREADS INFERENCE_PRECISION_HINT EXECUTION_MODE_HINT"
        )
        first = results[0].subject.compiled
        properties = {name: _plain(first.get_property(name)) for name in names.split()}
        options.dump_config.write_text(json.dumps({options.target_device: properties}, indent=1))
    if options.exec_graph_path:
        import ovjit as ov

        ov.serialize(results[0].subject.compiled.get_runtime_model(), str(options.exec_graph_path))


def _plain(value: Any) -> Any:
    """A property as JSON holds it, and as it may be given again."""
    if hasattr(value, "get_type_name"):
        return value.get_type_name()
    return value if isinstance(value, (bool, int, float, str)) else getattr(value, "name", str(value))
