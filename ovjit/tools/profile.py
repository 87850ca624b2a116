"""`python -m ovjit profile MODEL`: the time of each step of a model, and its share of the roofline.

In: a model file. Out: a table with one row for each step, in the order of execution, and totals by kernel. A
step's time is the median over the runs. GFLOP/s count its executed arithmetic (for Winograd, the reduced
number). GB/s count the bytes of its inputs and outputs once each. The share of the roofline is the larger of
two: of compute, in the format of its instruction, and of bandwidth, as in `ovjit.tools.roofline`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ovjit.execution.table import Row
from ovjit.records import NamedTuple
from ovjit.tools.benchmark_options import positive
from ovjit.tools.files import graph_file
from ovjit.tools.roofline import Roofline, measure, of_card
from ovjit.tools.terminal import FAULTS, keep_end, reporting

WARM_UP = 3
RUNS = 20
SEED = 1
NO_CONFIG: Mapping[str, Any] = MappingProxyType({})


class Line(NamedTuple):
    """A step, or all steps of a kernel: `us` microseconds, their `share` of the sum, and the share of the
    `roofline` that they reach. `why`: the reason of a copy that no operation asks for."""

    name: str
    type: str
    kernel: str
    us: float
    share: float
    gflops: float
    gbytes: float
    roofline: float
    why: str = ""


class Profile(NamedTuple):
    """`steps` in the order of execution, and `kernels` with totals of their steps (name: how many), slowest
    first."""

    steps: list[Line]
    kernels: list[Line]
    total_us: float
    latency_us: float
    gflops: float
    roofline: Roofline
    #: The work of each thread, as in `Job.by_threads`, in the run whose latency is nearest to the median.
    threads: np.ndarray | None = None

    @property
    def least_us(self) -> float:
        """The microseconds of all steps if each reached the roofline."""
        return sum(line.us * line.roofline for line in self.steps)


def profile(
    model: Any,
    threads: int = 1,
    runs: int = RUNS,
    shapes: Sequence[Sequence[int]] | None = None,
    seed: int = SEED,
    config: Mapping[str, Any] = NO_CONFIG,
    inputs: Sequence[np.ndarray] | None = None,
    device: str = "CPU",
) -> Profile:
    """Profile a model (a path or an `ovjit.Model`) on `inputs`, by default random ones.

    `shapes`: those of random inputs, one for each input, in order. By default dynamic dimensions have their
    minimum, but at least 1. Raises ValueError for shapes that do not fit. `config`: further properties for
    the compilation. `device`: "CPU", or a GPU, for which `threads` have no meaning.
    """
    import ovjit as ov

    if runs < 1:
        raise ValueError(f"the number of runs is {runs}; it should be at least 1")
    hints = {"PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True, **config}
    if device == "CPU":
        hints.setdefault("INFERENCE_NUM_THREADS", threads)
    compiled = ov.Core().compile_model(model, device, hints)
    card = compiled._config.get("card")
    request = compiled.create_infer_request()
    if inputs is None:
        inputs = random_inputs(compiled.inputs, shapes, seed)
    for i, array in enumerate(inputs):
        request.set_input_tensor(i, ov.Tensor(array))
    for _ in range(WARM_UP):
        request.infer()
    times: list[list[int]] = []
    latencies = []
    rows: list[Row] = []
    by_threads = []
    for _ in range(runs):
        start = time.perf_counter()
        request.infer()
        latencies.append(time.perf_counter() - start)
        rows = request._job.profile()
        times.append([row.real_ns for row in rows])
        by_threads.append(request._job.by_threads())
    spent = [statistics.median(column) for column in zip(*times, strict=True)]
    forms = frozenset(row.form for row in rows)
    roofline = measure(threads, forms) if card is None else of_card(card)
    summary = summarise(rows, spent, 1e6 * statistics.median(latencies), roofline)
    usual = min(range(runs), key=lambda i: abs(latencies[i] - summary.latency_us / 1e6))
    return summary._replace(threads=by_threads[usual])


def summarise(rows: Sequence[Row], spent: Sequence[float], latency_us: float, roofline: Roofline) -> Profile:
    """The profile of these rows. `spent`: the nanoseconds of each row."""
    rows = [
        row._replace(flops=0) if row.node_type == "Reorder" else row for row in rows
    ]  # copies compute nothing
    total = sum(spent)
    steps = [_line(row.name, row.node_type, row.exec_type, [row], [ns], total, roofline)._replace(why=row.why)
             for row, ns in zip(rows, spent, strict=True)]  # fmt: skip
    together: dict[str, tuple[list[Row], list[float]]] = {}
    for row, ns in zip(rows, spent, strict=True):
        members, times = together.setdefault(row.exec_type, ([], []))
        members.append(row)
        times.append(ns)
    kernels = [_line(str(len(members)), "", kernel, members, times, total, roofline)
               for kernel, (members, times) in together.items()]  # fmt: skip
    kernels.sort(key=lambda line: -line.us)
    flops = sum(row.flops for row in rows)
    return Profile(steps, kernels, total / 1e3, latency_us, flops / total if total else 0.0, roofline)


def _line(
    name: str, type: str, kernel: str, rows: list[Row], spent: list[float], total: float, roofline: Roofline
) -> Line:
    ns = sum(spent)
    # the time that the roofline would take, so that a kernel's share is its steps' shares weighted by time
    least = sum(roofline.share(row.flops, row.bytes, 1.0, row.form) for row in rows)
    flops, moved = sum(row.flops for row in rows), sum(row.bytes for row in rows)
    if ns <= 0:
        return Line(name, type, kernel, 0.0, 0.0, 0.0, 0.0, 0.0)
    return Line(name, type, kernel, ns / 1e3, ns / total, flops / ns, moved / ns, 1e9 * least / ns)


def random_inputs(
    ports: Sequence[Any], shapes: Sequence[Sequence[int]] | None, seed: int = SEED
) -> list[np.ndarray]:
    """Inputs for the model: normally distributed floats, and zeros for all other types, which may be
    indices."""
    if shapes is not None and len(shapes) != len(ports):
        raise ValueError(f"the model has {len(ports)} inputs, but {len(shapes)} shapes are given")
    rng = np.random.default_rng(seed)
    arrays = []
    for i, port in enumerate(ports):
        partial = port.get_partial_shape()
        if partial.rank.is_dynamic and shapes is None:
            raise ValueError(f"input {i} has a dynamic rank: give its shape")
        shape = tuple(shapes[i]) if shapes is not None else tuple(max(1, d.get_min_length()) for d in partial)
        dtype = port.get_element_type().to_dtype()
        if dtype.kind == "f":
            arrays.append(rng.standard_normal(shape).astype(dtype))
        else:
            arrays.append(np.zeros(shape, dtype))
    return arrays


def table(measured: Profile) -> str:
    """The profile as text."""
    width = {"name": 40, "type": 16, "kernel": 40}

    def text(line: Line, first: str) -> str:
        cells = [
            first.ljust(width["name"]),
            keep_end(line.type, width["type"]).ljust(width["type"]),
            line.kernel[: width["kernel"]].ljust(width["kernel"]),
        ]
        rates = f"{line.gflops:8.1f} {line.gbytes:7.1f} {100 * line.roofline:9.1f}"
        return "  ".join(cells) + f" {line.us:9.1f} {100 * line.share:6.1f} {rates}  {line.why}".rstrip()

    head = "  ".join([f"{{:{width['name']}}}", f"{{:{width['type']}}}", f"{{:{width['kernel']}}}"])
    numbers = f" {'us':>9} {'share%':>6} {'GFLOP/s':>8} {'GB/s':>7} {'roofline%':>9}"
    out = [head.format("node", "type", "kernel") + numbers]
    out += [text(line, keep_end(line.name, width["name"])) for line in measured.steps]
    out += ["", head.format("steps", "", "kernel") + numbers]
    out += [text(line, line.name.rjust(5)) for line in measured.kernels]
    roofline = measured.roofline
    levels = ", ".join(f"{level.bandwidth / 1e9:.0f} GB/s from {level.name}" for level in roofline.levels)
    cores = f"{roofline.threads} core{'s' * (roofline.threads > 1)}"
    peaks = "".join(f", {peak / 1e9:.1f} in {form}" for form, peak in roofline.peaks.items())
    out += [
        "",
        f"steps {measured.total_us:.1f} us, {measured.gflops:.1f} GFLOP/s; "
        f"latency {measured.latency_us:.1f} us (medians)",
        f"roofline of {cores}, {roofline.isa}: {roofline.flops / 1e9:.1f} GFLOP/s in f32{peaks}, {levels}",
    ]
    return "\n".join(out)


def chrome_trace(timed: Profile, title: str) -> dict[str, Any]:
    """An inference in the Trace Event Format: complete events in microseconds.

    Each thread has a row with its part of each step, from its first chunk to the end of its last. If that is
    not known, one row has the steps' medians, one after the other.
    """
    events: list[dict[str, Any]] = []

    def name(tid: int, what: str, text: str) -> None:
        events.append({"ph": "M", "pid": 1, "tid": tid, "ts": 0, "name": what, "args": {"name": text}})

    def step(tid: int, line: Line, start: float, us: float, more: dict[str, Any]) -> None:
        arguments = {
            "kernel": line.kernel, "GFLOP/s": round(line.gflops, 2), "GB/s": round(line.gbytes, 2),
            "share of the roofline": round(line.roofline, 3), **more,
        }  # fmt: skip
        if line.why:
            arguments["why"] = line.why
        events.append({
            "ph": "X", "pid": 1, "tid": tid, "ts": round(start, 3), "dur": round(us, 3), "name": line.name,
            "cat": line.type or "step", "args": arguments,
        })  # fmt: skip

    name(0, "process_name", title)
    if timed.threads is None or len(timed.threads) != len(timed.steps):
        name(0, "thread_name", f"steps, by {timed.roofline.threads} thread(s), medians")
        at = 0.0
        for line in timed.steps:
            step(0, line, at, line.us, {})
            at += line.us
        return {"traceEvents": events, "displayTimeUnit": "ns"}
    for slot in range(timed.threads.shape[1]):
        name(slot, "thread_name", "leading thread" if slot == 0 else f"helper {slot}")
        for line, (first, ended, chunks) in zip(timed.steps, timed.threads[:, slot].tolist(), strict=True):
            if chunks:
                more = {"chunks": chunks, "median of the step, us": round(line.us, 3)}
                step(slot, line, first / 1e3, (ended - first) / 1e3, more)
    return {"traceEvents": events, "displayTimeUnit": "ns"}


@reporting(*FAULTS)
def main(argv: Sequence[str] | None = None) -> int:
    """Print the profile of one model. `argv`: the arguments after the word `profile`. Returns the exit
    code."""
    parser = argparse.ArgumentParser(prog="ovjit profile", description="What each step of a model takes.")
    parser.add_argument("model", help="a model file")
    parser.add_argument("-d", "--device", default="CPU", help="CPU or GPU; default: CPU")
    parser.add_argument("--threads", type=positive, default=1, help="default: 1")
    parser.add_argument(
        "--runs", type=positive, default=RUNS, help=f"the median of so many is shown; default {RUNS}"
    )
    parser.add_argument("--shape", action="append", type=_shape, help="1,3,224,224: of each input, in order")
    parser.add_argument(
        "--trace", type=Path, help="write one inference as a Chrome trace (chrome://tracing, Perfetto)"
    )
    options = parser.parse_args(argv)
    file = graph_file(options.model)
    measured = profile(file, options.threads, options.runs, options.shape, device=options.device)
    if options.trace:
        options.trace.write_text(json.dumps(chrome_trace(measured, Path(options.model).name)))
    print(table(measured))
    return 0


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(d) for d in text.split(",") if d.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write whole numbers, 1,3,224,224") from None
