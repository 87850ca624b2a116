"""Networks side by side: ovjit and OpenVINO in f32, in bf16 and quantized to int8, ONNX Runtime.

    python -m bench.run [--set transformers | --set wheels --folder DIR | --models digits resnet50 ...]
    [--precision f32 bf16 int8] [--threads 1 2] [--batch 64] [--rounds 15] [--throughput] [--json out.json]

For each network and number of threads: the latency in interleaved rounds (`bench.rounds`), its ratio to
OpenVINO's in the same precision, what it takes to compile with empty and with filled caches, to run for the
first time and from the start of a process to its first result, the peak memory of such a process, the
difference of the answers to OpenVINO's in f32, the share of the roofline, and the share of native steps.
`--throughput` adds queues of requests under the hint THROUGHPUT: see `bench.throughput`.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, networks, report, throughput, transformers, wheels
from bench.engines import ENGINES, PEERS, cores
from bench.quantized import quantized
from bench.rounds import interleave, workers
from bench.worker import Worker, WorkerError

KEYS = ("model", "threads", "engine")
COLUMNS = (
    *KEYS, "median_ms", "p90_ms", "ratio", "ratio_low", "ratio_high", "roofline", "cold_s", "cached_s",
    "first_ms", "start_s", "peak_mb", "difference", "native_steps", "native_time", "host_ops",
    *throughput.COLUMNS,
)  # fmt: skip
BASE = "openvino"
PRECISIONS = ("f32", "bf16", "int8")
#: The decoder is left to `bench.generate`: an inference of it is not like the one before.
SETS = {
    "networks": ("digits", *networks.NAMES),
    "transformers": tuple(name for name in transformers.NAMES if name not in transformers.DECODERS),
    "wheels": wheels.NAMES,
}


class Subject:
    """A model to measure: its files, and a file with its inputs."""

    def __init__(self, name: str, scratch: Path, folder: Path | None):
        self.name = name
        self.inputs = str(scratch / f"{name}-inputs.npz")
        if name == "digits":
            from ovjit.data import digits

            xml, images, _ = digits()
            self.paths = {"xml": str(xml)}
            np.savez(self.inputs, images[:1])
        elif name in transformers.NAMES:
            self.paths = {"xml": str(transformers.build(name, folder))}
            np.savez(self.inputs, *transformers.inputs(name))
        elif name in wheels.NAMES:
            if folder is None:
                raise SystemExit(f"{name}: --folder should name the folder with the wheels")
            path = str(wheels.build(name, folder))
            self.paths = {"xml": path, "onnx": path}  # an engine that reads IR reads ONNX, too
            np.savez(self.inputs, *wheels.inputs(name))
        else:
            xml = networks.build(name, folder)
            self.paths = {"xml": str(xml), "onnx": str(xml.with_suffix(".onnx"))}
            np.savez(self.inputs, networks.network_input(name))

    def quantize(self, folder: Path | None) -> None:
        """Add the quantized network to the files. RuntimeError where it cannot be made."""
        self.paths["int8"] = str(quantized(self.name, folder))

    def enlarge(self, batch: int, scratch: Path) -> None:
        """Have models and inputs of so many images, made by the real OpenVINO, in the folder `scratch`."""
        import openvino

        for kind, path in [row for row in self.paths.items() if row[0] != "onnx"]:
            model = openvino.Core().read_model(path)
            shapes = {port: port.partial_shape for port in model.inputs}
            for shape in shapes.values():
                shape[0] = batch
            model.reshape(shapes)
            made = scratch / f"{self.name}-{kind}-{batch}.xml"
            openvino.save_model(model, made, compress_to_fp16=False)
            self.paths[kind] = str(made)
        self.paths.pop("onnx", None)
        with np.load(self.inputs, allow_pickle=False) as arrays:
            several = [np.repeat(arrays[name][:1], batch, axis=0) for name in arrays.files]
        np.savez(self.inputs, *several)

    @property
    def files(self) -> dict[str, Any]:
        return {"paths": self.paths, "inputs": self.inputs}


def measure(
    subject: Subject, threads: int, chosen: list[str], rounds: int, seconds: float, scratch: Path
) -> list[dict[str, Any]]:
    """Latencies: one row for each engine."""

    def prepare(worker: Worker) -> np.ndarray:
        worker.ask("load", threads=threads, **subject.files)
        file = scratch / f"{worker.engine}-answers.npz"
        worker.ask("answers", file=str(file))
        with np.load(file, allow_pickle=False) as arrays:
            return np.asarray(arrays[arrays.files[0]])

    with workers(chosen, prepare) as (ready, answers):
        versions = {e: w.ask("version") for e, w in ready.items()}
        times = interleave(ready, rounds, lambda w: w.ask("run", seconds=seconds))
        ours = [e for e in ready if e.startswith("ovjit")]
        least = {e: ready[e].ask("least_ms", paths=subject.paths, threads=threads) for e in ours}
    rows = []
    for engine, measured in times.items():
        every = [t / 1e6 for part in measured for t in part]
        row: dict[str, Any] = {"model": subject.name, "threads": threads, "engine": engine}
        row |= {"median_ms": statistics.median(every), "p90_ms": report.quantile(every, 0.9)}
        if PEERS[engine] in times:
            row |= report.ratios(measured, times[PEERS[engine]])
        if BASE in times:
            wanted = answers[BASE]
            row["difference"] = float(np.abs(answers[engine] - wanted).max() / np.abs(wanted).max())
        if engine in least:
            row["roofline"] = least[engine] / row["median_ms"]
        row["version"] = versions[engine]
        rows.append(row)
    return rows


def measure_starts(subject: Subject, threads: int, engine: str, repeats: int) -> dict[str, Any]:
    """Times of fresh processes, medians of `repeats`: with empty caches, then with those they have filled.

    cold_s, cached_s: `compile_model` (a path in, so reading included; ONNX Runtime: making the session);
    first_ms: the first inference after that with filled caches; start_s: from the start of the process to the
    first result, the same way; peak_mb: its peak memory.
    """
    found: dict[str, list[float]] = {}
    more: dict[str, Any] = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            for kind in ("cold", "cached"):
                with Worker(engine, {"OVJIT_CACHE": cache}) as worker:
                    given = cache if engine.startswith("openvino") else None
                    said = worker.ask("load", threads=threads, cache=given, **subject.files)
                    start = time.perf_counter() - worker.began
                    found.setdefault(f"{kind}_s", []).append(said["compile_s"])
                    if kind == "cached":
                        found.setdefault("first_ms", []).append(said["first_ms"])
                        found.setdefault("start_s", []).append(start)
                        found.setdefault("peak_mb", []).append(worker.ask("memory"))
                        if engine.startswith("ovjit") and not more:
                            more = worker.ask("profile", paths=subject.paths, threads=threads)
    return {k: statistics.median(v) for k, v in found.items()} | more


def _file_of(engine: str) -> str:
    """Which of a subject's files an engine reads."""
    return {"onnxruntime": "onnx"}.get(engine, "int8" if engine.endswith("-int8") else "xml")


def summary(rows: list[dict[str, Any]], column: str = "ratio", title: str = "") -> list[str]:
    """Geometric means of the ratios in a column over the models but `digits`, by number of threads."""
    lines = []
    for threads in sorted({r["threads"] for r in rows}):
        for engine in ENGINES:
            found = [
                r[column]
                for r in rows
                if (r["threads"], r["engine"]) == (threads, engine) and column in r and r["model"] != "digits"
            ]
            if found and engine != BASE:
                mean = math.exp(statistics.fmean(map(math.log, found)))
                lines.append(
                    f"{title}{threads} thread{'s' * (threads > 1)}: {engine} / {PEERS[engine]} = {mean:.3f} "
                    f"(geometric mean of {len(found)} models, {min(found):.3f} .. {max(found):.3f})"
                )
    return lines


def main() -> int:
    parser = command.parser("run", __doc__)
    models = tuple(name for names in SETS.values() for name in names)
    parser.add_argument("--set", choices=SETS, default="networks", help="which models, where none are named")
    parser.add_argument("--models", nargs="+", choices=models, default=None, metavar="MODEL")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["f32", "bf16"])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=None, metavar="ENGINE")
    parser.add_argument("--threads", nargs="+", type=int, default=[n for n in (1, 2) if n <= cores()])
    parser.add_argument("--batch", type=int, default=1, help="images of an inference; more: no ONNX Runtime")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.4, help="for one engine in one round")
    parser.add_argument("--starts", type=int, default=3, help="processes for the start-up times; 0: none")
    parser.add_argument("--throughput", action="store_true", help="queues under THROUGHPUT, too")
    parser.add_argument("--folder", type=Path, default=None, help="where the networks are")
    arguments = parser.parse_args()
    engines = arguments.engines or [
        e for e in ENGINES if e == BASE or (e.partition("-")[2] or "f32") in arguments.precision
    ]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in arguments.models or SETS[arguments.set]:
            subject = Subject(name, scratch, arguments.folder)
            if any(e.endswith("-int8") for e in engines) and name != "digits":
                subject.quantize(arguments.folder)
            if arguments.batch > 1:
                subject.enlarge(arguments.batch, scratch)
            for threads in arguments.threads:
                print(f"{name}, {threads} thread{'s' * (threads > 1)}", file=sys.stderr)
                chosen = [e for e in engines if _file_of(e) in subject.paths]
                found = measure(subject, threads, chosen, arguments.rounds, arguments.seconds, scratch)
                for row in found if arguments.starts else ():
                    try:
                        row |= measure_starts(subject, threads, row["engine"], arguments.starts)
                    except WorkerError as error:
                        print(f"  no start-up times: {error}", file=sys.stderr)
                if arguments.throughput:
                    given = (subject, threads, chosen, arguments.rounds, arguments.seconds)
                    queues = throughput.measure(*given)
                    found = [row | queues.get(row["engine"], {}) for row in found]
                rows += found
    print(report.table(rows, COLUMNS), *summary(rows), sep="\n")
    print(*summary(rows, "queue_ratio", "queues, "), sep="\n", end="\n" if arguments.throughput else "")
    said = {"rounds": arguments.rounds, "seconds": arguments.seconds, "batch": arguments.batch}
    report.write(arguments.json, "run", KEYS, rows, **said)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
