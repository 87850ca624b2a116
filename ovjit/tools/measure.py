"""`ovjit benchmark`: latency and throughput of models, with the option names of OpenVINO's benchmark_app.

In: one or more model files (IR, ONNX or a blob), and lists of precisions, hints or numbers of streams to
compare. Every combination is a subject. Subjects are measured in interleaved rounds, so other load of the
machine affects all alike. Out: a table; with --json or --csv files.

    ovjit benchmark -m model.xml -hint latency
    ovjit benchmark -m model.xml other.onnx -infer_precision f32 bf16 -t 20 --json report.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.records import NamedTuple
from ovjit.tools import terminal
from ovjit.tools.benchmark_options import SECONDS, parser
from ovjit.tools.subjects import Subject, Timed, counters, subjects


class Result(NamedTuple):
    """The measurements of a subject: each inference; for each round, the number of inferences and the
    seconds."""

    subject: Subject
    timed: list[Timed]
    rounds: list[tuple[int, float, float]]  # inferences, seconds, median latency

    @property
    def latencies(self) -> list[float]:
        """The latencies of all inferences in milliseconds."""
        return [t.ms for t in self.timed]

    @property
    def throughput(self) -> float:
        """Images (or other samples of the batch) per second."""
        return self.subject.batch * sum(r[0] for r in self.rounds) / sum(r[1] for r in self.rounds)

    def summary(self, percentile: int = 50) -> dict[str, Any]:
        """The subject's row in tables and files."""
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


def measure(
    chosen: Sequence[Subject], seconds: float, count: int, rounds: int, warm_up: bool = True
) -> list[Result]:
    """Measure all subjects, interleaved, in `rounds` rounds. `seconds`: the time for all subjects together.
    `count`: the inferences of each subject, instead of a time; 0: the time counts."""
    results = [Result(subject, [], []) for subject in chosen]
    each = seconds / (rounds * len(chosen))
    for subject in chosen if warm_up else ():
        subject.run(min(each, 0.2), 3 if count else 0)
    with terminal.progress("measuring", rounds * len(chosen)) as done:
        for r in range(rounds):
            share = count // rounds + (r < count % rounds) if count else 0
            if count and not share:
                continue
            for i, result in enumerate(results):
                timed, spent = result.subject.run(each, share)
                result.timed.extend(timed)
                result.rounds.append((len(timed), spent, statistics.median(t.ms for t in timed)))
                done(r * len(chosen) + i + 1)
    return results


def ratios(results: Sequence[Result]) -> list[float | None]:
    """The latency of each subject relative to the first: the median of the ratios of the rounds."""
    first = results[0].rounds
    return [
        None if result is results[0]
        else statistics.median(a[2] / b[2] for a, b in zip(result.rounds, first, strict=True))
        for result in results
    ]  # fmt: skip


@terminal.reporting(*terminal.FAULTS, ImportError, TypeError)
def main(argv: Sequence[str] | None = None) -> int:
    """Run `ovjit benchmark` with these arguments. Returns the exit code."""
    options = parser().parse_args(argv)
    _check_targets(options)
    chosen = subjects(options)
    count = options.number_iterations or 0
    seconds = options.time if options.time else SECONDS * len(chosen)
    results = measure(chosen, seconds, count, options.rounds, not options.no_warmup)
    rows = [r.summary(options.latency_percentile) for r in results]
    for row, ratio in zip(rows, ratios(results), strict=True):
        row["ratio"] = ratio
    if options.pcseq:
        for result, row in zip(results, rows, strict=True):
            row["shapes"] = _by_shape(result, options.latency_percentile)
    _write(options, results, rows)
    percentile = f"p{options.latency_percentile}_ms"
    columns = ["name", "api", "requests", "count", "median_ms", "average_ms", "min_ms", "max_ms", percentile,
               "p90_ms", "p99_ms", "throughput_fps", "compile_ms", "first_ms"]  # fmt: skip
    columns = list(dict.fromkeys(columns + (["ratio"] if len(rows) > 1 else [])))
    terminal.show_table(columns, [[row[c] for c in columns] for row in rows])
    if options.pcseq:
        for row in rows:
            table = row["shapes"]
            terminal.show_table(list(table[0]), [list(line.values()) for line in table], row["name"])
    if options.perf_counts:
        for subject in chosen:
            terminal.show_table(STEPS, _steps(subject, options.perf_counts_sort), subject.name)
    return 0


def _by_shape(result: Result, percentile: int) -> list[dict[str, Any]]:
    """-pcseq: the latencies for each set of data that was measured, named by its shapes."""
    ports = result.subject.compiled.inputs
    rows = []
    for which, arrays in enumerate(result.subject.data):
        ms = np.array([t.ms for t in result.timed if t.data == which])
        if not len(ms):
            continue
        names = [port.get_any_name() if port.names else f"input {i}" for i, port in enumerate(ports)]
        shapes = " ".join(
            f"{name}[{','.join(map(str, a.shape))}]" for name, a in zip(names, arrays, strict=True)
        )
        rows.append({
            "shapes": shapes, "count": len(ms), "median_ms": float(np.median(ms)),
            "average_ms": float(ms.mean()), "min_ms": float(ms.min()), "max_ms": float(ms.max()),
            f"p{percentile}_ms": float(np.percentile(ms, percentile)),
        })  # fmt: skip
    return rows


STEPS = ("node", "status", "type", "kernel", "ms", "cpu_ms")


def _steps(subject: Subject, order: str = "no_sort") -> list[tuple[Any, ...]]:
    """The steps of one inference, in the order that -pcsort selects."""
    request = subject.compiled.create_infer_request()
    request.infer(subject.data[0])
    rows = [
        (
            row.node_name, row.status.name, row.node_type, row.exec_type,
            1e3 * row.real_time.total_seconds(), 1e3 * row.cpu_time.total_seconds(),
        )
        for row in request.get_profiling_info()
    ]  # fmt: skip
    if order == "simple_sort":
        rows = [row for row in rows if row[1] == "EXECUTED"]
    return rows if order == "no_sort" else sorted(rows, key=lambda row: -row[4])


def _check_targets(options: argparse.Namespace) -> None:
    """Raise errors before the measurement that would otherwise follow it: files that cannot be written, and
    pages that cannot be drawn."""
    for path in (options.json, options.csv, options.dump_config, options.exec_graph_path):
        if path is not None and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            what = "is not a writable folder" if path.parent.exists() else "does not exist"
            raise ValueError(f"{str(path)!r} cannot be written: {str(path.parent)!r} {what}")


def _write(options: argparse.Namespace, results: Sequence[Result], rows: Sequence[dict[str, Any]]) -> None:
    if options.json:
        full = [row | {"latencies_ms": r.latencies} for row, r in zip(rows, results, strict=True)]
        options.json.write_text(json.dumps({"results": full}, indent=1))
    if options.csv:
        _write_csv(options.csv, _flat(rows))
    if options.report_type:
        _report(options, results, rows)
    if options.dump_config:
        names = (
            "PERFORMANCE_HINT NUM_STREAMS INFERENCE_NUM_THREADS INFERENCE_PRECISION_HINT EXECUTION_MODE_HINT"
        )
        first = results[0].subject.compiled
        keys = first.get_property("SUPPORTED_PROPERTIES")
        properties = {name: _json_value(first.get_property(name)) for name in names.split() if name in keys}
        options.dump_config.write_text(json.dumps({options.target_device: properties}, indent=1))
    if options.exec_graph_path:
        import ovjit as ov

        ov.serialize(results[0].subject.compiled.get_runtime_model(), str(options.exec_graph_path))


def _report(options: argparse.Namespace, results: Sequence[Result], rows: Sequence[dict[str, Any]]) -> None:
    """-report_type: the files of benchmark_app, with its names."""
    tables = [("benchmark_report", _flat(rows))]
    if options.pcseq:
        shapes = [{"name": row["name"], **line} for row in rows for line in row["shapes"]]
        tables.append(("benchmark_shapes_report", shapes))
    if counters(options):
        steps = [
            {"name": r.subject.name, **dict(zip(STEPS, row, strict=True))}
            for r in results for row in _steps(r.subject, options.perf_counts_sort)
        ]  # fmt: skip
        tables.append((f"benchmark_{options.report_type}_report", steps))
    options.report_folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables:
        if options.json_stats:
            (options.report_folder / f"{name}.json").write_text(json.dumps(table, indent=1))
        else:
            _write_csv(options.report_folder / f"{name}.csv", table)


def _flat(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without nested tables."""
    return [{name: value for name, value in row.items() if name != "shapes"} for row in rows]


def _write_csv(path: Any, rows: Sequence[dict[str, Any]]) -> None:
    import csv

    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _json_value(value: Any) -> Any:
    """A property as a value for JSON, in a form that the options accept again."""
    if hasattr(value, "get_type_name"):
        return value.get_type_name()
    return value if isinstance(value, (bool, int, float, str)) else getattr(value, "name", str(value))
