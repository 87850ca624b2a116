"""Memory in long runs: many calls of changing shapes, many models in a row, many models at once.

    python -m bench.memory [--engines ovjit openvino onnxruntime] [--share 0.1] [--page docs/memory.md]

- calls: 100,000 calls of one network, each with another batch, height and width than the one before.
- models: 1,000 models of 20 structures, each compiled from its file, run once and dropped.
- start: 240 models of 24 structures, compiled from their files and kept, each run once.

Each engine runs each scenario in a process of its own, which tells its resident memory (RSS of
`/proc/self/statm`) and its CPU time as it goes. Caches on disk are empty at the start. ovjit keeps compiled
models of files there, as it does by default. `--share` runs a part of each scenario.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, report

ENGINES = ("ovjit", "openvino", "onnxruntime")
COUNTS = {"calls": 100_000, "models": 1000, "start": 240}
STRUCTURES = {"calls": 1, "models": 20, "start": 24}
#: What is told of each scenario: points of a picture.
POINTS = 50
COLUMNS = ("scenario", "engine", "count", "first_mb", "half_mb", "last_mb", "peak_mb", "cpu_s", "of_openvino")
SEED = 20261123


def build_model(structure: int, seed: int) -> Any:
    """A small convolutional network with open batch, height and width, whose sizes depend on `structure`."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng([structure, seed])
    width, depth = 8 + 4 * (structure % 6), 2 + structure // 6
    nodes, weights, last, channels = [], [], "x", 3
    for i in range(depth):
        w = rng.standard_normal((width, channels, 3, 3)).astype(np.float32) / np.float32(9 * channels) ** 0.5
        weights += [numpy_helper.from_array(w, f"w{i}")]
        nodes += [helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1] * 4)]
        nodes += [helper.make_node("Relu", [f"c{i}"], [f"r{i}"])]
        last, channels = f"r{i}", width
    w = rng.standard_normal((channels, 10)).astype(np.float32)
    weights += [numpy_helper.from_array(w, "w")]
    nodes += [helper.make_node("GlobalAveragePool", [last], ["p"]), helper.make_node("Flatten", ["p"], ["f"])]
    nodes += [helper.make_node("MatMul", ["f", "w"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, f"net{structure}", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_models(folder: Path, structures: int, each: int) -> None:
    """`structure-weights.onnx`, and the IR that OpenVINO makes of it."""
    import onnx
    import openvino

    for structure in range(structures):
        for seed in range(each):
            path = folder / f"{structure}-{seed}.onnx"
            onnx.save(build_model(structure, seed), path)
            openvino.save_model(
                openvino.convert_model(path), path.with_suffix(".xml"), compress_to_fp16=False
            )


def opened(engine: str) -> Callable[[Path], Callable[[np.ndarray], Any]]:
    """What compiles a file, by one thread in f32, and gives what runs it."""
    if engine == "onnxruntime":
        import onnxruntime

        def load(path: Path) -> Callable[[np.ndarray], Any]:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
            return lambda x: session.run(None, {"x": x})[0]

        return load
    core = importlib.import_module(engine).Core()
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}

    def compile_file(path: Path) -> Callable[[np.ndarray], Any]:
        compiled = core.compile_model(str(path.with_suffix(".xml")), "CPU", config)
        request = compiled.create_infer_request()
        return lambda x: request.infer([x])[0]

    return compile_file


def resident() -> float:
    """MB (10^6 bytes) that this process has in memory now."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def scenario(name: str, engine: str, folder: Path, count: int) -> Iterator[dict[str, float]]:
    """Runs it; a row for each of `POINTS`, with what has been done, the memory and the CPU time since."""
    rng = np.random.default_rng(SEED)
    load = opened(engine)
    files = [
        folder / f"{i % STRUCTURES[name]}-{i // STRUCTURES[name] % each(name)}.onnx" for i in range(count)
    ]
    image = np.ones((1, 3, 16, 16), np.float32)
    kept: list[Any] = []
    if name == "calls":
        kept.append(load(files[0]))
    began = time.process_time()
    yield {"done": 0, "mb": resident(), "cpu_s": 0.0}
    for i in range(count):
        if name == "calls":
            batch, height, width = rng.integers(1, 9), *rng.integers(8, 41, 2)
            got = kept[0](np.ones((batch, 3, height, width), np.float32))
            assert got.shape == (batch, 10)
        else:
            model = load(files[i])
            assert model(image).shape == (1, 10)
            if name == "start":
                kept.append(model)
            del model
        if (i + 1) % max(1, count // POINTS) == 0:
            yield {"done": i + 1, "mb": resident(), "cpu_s": time.process_time() - began}


def each(name: str) -> int:
    """Sets of weights of each structure: those of `models` come again, as when models are changed in turn."""
    return {"calls": 1, "models": 10, "start": 10}[name]


def measured(name: str, engine: str, folder: Path, count: int) -> list[dict[str, float]]:
    """The points of one scenario in a process of its own."""
    with tempfile.TemporaryDirectory() as cache:
        quiet = {"OVJIT_CACHE": cache, "OVJIT_SKIP": "", "OMP_NUM_THREADS": "1"}
        child = [sys.executable, "-m", "bench.memory", "--child", name, engine, str(folder), str(count)]
        done = subprocess.run(
            child, capture_output=True, text=True, check=False, env={**os.environ, **quiet}, cwd=report.ROOT
        )
    if done.returncode:
        raise RuntimeError(f"{name} of {engine} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def run(names: list[str], engines: list[str], share: float, jobs: int) -> list[dict[str, Any]]:
    """A row for each scenario and engine, with its points."""
    counts = {name: max(POINTS, int(COUNTS[name] * share)) for name in names}
    with tempfile.TemporaryDirectory() as folder, ThreadPool(jobs) as pool:
        places = {name: Path(folder, name) for name in names}
        for name, place in places.items():
            place.mkdir()
            write_models(place, STRUCTURES[name], each(name))
        asked = [(name, engine, places[name], counts[name]) for name in names for engine in engines]
        found = pool.starmap(measured, asked, chunksize=1)
    rows = [_row(*what, points) for what, points in zip(asked, found, strict=True)]
    for row in rows:
        peers = [r for r in rows if r["scenario"] == row["scenario"] and r["engine"] == "openvino"]
        row["of_openvino"] = row["cpu_s"] / peers[0]["cpu_s"] if peers else None
    return rows


def _row(name: str, engine: str, _: Path, count: int, points: list[dict[str, float]]) -> dict[str, Any]:
    mb = [point["mb"] for point in points]
    row = {"scenario": name, "engine": engine, "count": count, "first_mb": mb[1], "half_mb": mb[len(mb) // 2]}
    row |= {"last_mb": mb[-1], "peak_mb": max(mb), "cpu_s": points[-1]["cpu_s"]}
    return row | {"points": points}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each scenario: resident memory by what has been done."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "ovjit"  # equal results make equal files
    import matplotlib.pyplot as plt

    colours = {"ovjit": "#1f6f8b", "openvino": "#c9a227", "onnxruntime": "#8b1f4f"}
    names = list(dict.fromkeys(row["scenario"] for row in rows))
    figure, panels = plt.subplots(1, len(names), figsize=(4.6 * len(names), 3.6), squeeze=False)
    axes = {
        "calls": "calls of changing shapes",
        "models": "models compiled and dropped",
        "start": "models compiled",
    }
    for panel, name in zip(panels[0], names, strict=True):
        for row in rows:
            if row["scenario"] == name:
                done = [point["done"] for point in row["points"]]
                mb = [point["mb"] for point in row["points"]]
                panel.plot(done, mb, label=row["engine"], color=colours[row["engine"]])
        panel.set_xlabel(axes[name])
        panel.set_ylabel("resident memory, MB")
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


PAGE = """# Memory in long runs

Made by `{command}` on commit {commit},
{about}. Versions: {versions}.

![Resident memory of three scenarios](memory.svg)

| scenario | what runs |
|---|---|
| calls | {calls:,} calls of one network. Each has a random batch (1 to 8), height and width (8 to 40). |
| models | {models:,} models of 20 structures with 10 sets of weights, compiled from files, run, dropped |
| start | {start:,} models of 24 structures with 10 sets of weights, compiled from files, run, kept |

The networks are small: 2 to 5 convolutions, open batch, height and width. Each engine has one process for
each scenario, one thread, f32, and an empty cache on disk. Nothing is collected or trimmed by hand. ovjit
keeps compiled models of files in that cache, as it does by default. A file that comes again is not compiled
again: so four fifths of those of `models`.

Memory is `RSS` in MB (10^6 bytes): after the first {points}th of the run (`first`), in its middle, at its
end, and the largest. `CPU s` is CPU time of the process from the first call or model on. It changes little
with what else the machine does, as wall time would. The last column is CPU time divided by OpenVINO's.

{table}

{notes}
"""


def page(rows: list[dict[str, Any]], made: str, notes: str) -> str:
    """docs/memory.md"""
    from importlib.metadata import version

    about = report.machine()
    names = ("scenario", "engine", "first", "middle", "end", "largest", "CPU s", "CPU of OpenVINO's")
    keys = ("first_mb", "half_mb", "last_mb", "peak_mb")
    lines = [names, ("---",) * len(names)]
    for row in rows:
        figures = [f"{row[key]:.0f}" for key in keys]
        lines.append(
            (row["scenario"], row["engine"], *figures, f"{row['cpu_s']:.1f}", f"{row['of_openvino']:.2f}")
        )
    return PAGE.format(
        **{row["scenario"]: row["count"] for row in rows},
        command=made, commit=about["commit"], points=POINTS, notes=notes,
        about=f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, {about['date'][:10]}",
        versions=", ".join(f"{name} {version(name)}" for name in ("openvino", "onnxruntime")),
        table="\n".join("| " + " | ".join(line) + " |" for line in lines),
    )  # fmt: skip


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        name, engine, folder, count = sys.argv[2:]
        for point in scenario(name, engine, Path(folder), int(count)):
            print(json.dumps(point), flush=True)
        return 0
    parser = command.parser("memory", __doc__)
    parser.add_argument("--scenarios", nargs="+", choices=COUNTS, default=list(COUNTS))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--share", type=float, default=1.0, help="of each scenario (1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (1)")
    parser.add_argument("--page", type=Path, default=None, help="write the page, and its picture beside it")
    given = parser.parse_args()
    if given.page and (set(given.scenarios), set(given.engines)) != (set(COUNTS), set(ENGINES)):
        parser.error("--page needs all scenarios and engines")
    rows = run(given.scenarios, given.engines, given.share, given.jobs)
    print(report.table(rows, COLUMNS))
    report.write(given.json, "memory", ("scenario", "engine"), rows)
    if given.page:
        made = "python -m bench.memory " + " ".join(sys.argv[1:])
        old = given.page.read_text() if given.page.exists() else ""
        notes = old[old.index("## ") :].rstrip() if "\n## " in old else ""  # what was written by hand
        given.page.write_text(page(rows, made, notes).rstrip() + "\n")
        draw(rows, given.page.with_suffix(".svg"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
