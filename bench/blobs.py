"""Blobs beside OpenVINO's: bytes, `export_model`, and `import_model`.

    python -m bench.blobs [MODEL.xml or name ...] [--rounds 7] [--json out.json]

Names are those of `SMALL`, which are the default, and of `bench.first`. Each engine has a process of its own
that compiles the model in f32. In interleaved rounds it exports its blob and imports it again: ovjit from the
file, OpenVINO from its bytes. CPU times are those of all threads. `bytes_ratio`, `export`, `import` (CPU
time), `export_wall` and `import_wall` are medians over the rounds of the ratios to OpenVINO. `first_export`
is the ratio of the first exports, which import modules, and trace plans of models with open shapes. `peak_mb`
is the largest memory of ovjit's process, `openvino_mb` of OpenVINO's.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, first, networks, transformers
from bench.startup import environment
from bench.transformers import Net, Sizes

ENGINES = ("ovjit", "openvino")
KEYS = ("model",)
COLUMNS = ("model", "bytes", "bytes_ratio", "export_ms", "export", "export_wall", "first_export", "import_ms",
           "import", "import_wall", "peak_mb", "openvino_mb")  # fmt: skip
MINI = Sizes(layers=4, wide=256, heads=4, shared=2, inner=704, words=4000)


def add(package: Any) -> Any:
    """The sum of two inputs."""
    a, b = (package.opset13.parameter([8], np.float32, name=name) for name in "ab")
    return package.Model([package.opset13.add(a, b)], [a, b], "add")


def mlp(package: Any, batch: int = 1) -> Any:
    """Three layers; batch -1: of any size."""
    net = Net(package, "mlp")
    x = y = net.ops.parameter(package.PartialShape([batch, 64]), np.float32, name="x")
    for ins, outs in ((64, 256), (256, 256)):
        y = net.ops.relu(net.linear(y, ins, outs))
    return package.Model([net.ops.softmax(net.linear(y, 256, 10), 1)], [x], "mlp")


def resnet18(package: Any) -> Any:
    net = Net(package, "resnet18")
    ops, ins = net.ops, 64
    x = ops.parameter([1, 3, 224, 224], np.float32, name="x")
    y = ops.relu(net.conv(x, 3, ins, 7, 2))
    y = ops.max_pool(y, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)
    for outs, stride in zip((64, 64, 128, 128, 256, 256, 512, 512), (1, 1, 2, 1, 2, 1, 2, 1), strict=True):
        z = net.conv(ops.relu(net.conv(y, ins, outs, 3, stride)), outs, outs, 3)
        y = ops.relu(ops.add(z, y if ins == outs else net.conv(y, ins, outs, 1, stride)))
        ins = outs
    return package.Model([net.linear(ops.reduce_mean(y, net.ints(2, 3), False), 512, 1000)], [x], "resnet18")


def decoder(package: Any, stored: str) -> Any:
    """A small stateful decoder with compressed weights."""
    return transformers.llama(Net(package, "mini", stored), MINI)


MODELS: dict[str, Callable[[Any], Any]] = {
    "add": add,
    "mlp": mlp,
    "mlp-open": functools.partial(mlp, batch=-1),
    "resnet18": resnet18,
    "bert-mini": lambda package: transformers.bert(Net(package, "bert-mini"), 64, layers=4, wide=384),
    "decoder-u8": functools.partial(decoder, stored="u8"),
    "decoder-i4": functools.partial(decoder, stored="i4"),
}
SMALL = (*MODELS, "digits", "ocr-cls", "ocr-rec", "squeezenet", "lstm", "resnet50-int8")
CHILD = """
import importlib, json, sys, time
engine, xml, blob = sys.argv[1:]
core = importlib.import_module(engine).Core()
compiled = core.compile_model(core.read_model(xml), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
def times(function):
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, time.process_time() - cpu, time.perf_counter() - wall
def export():
    content = compiled.export_model()
    return content if isinstance(content, bytes) else content.getvalue()
def load():
    return core.import_model(blob if engine == "ovjit" else open(blob, "rb").read(), "CPU")
for _ in sys.stdin:
    content, *exporting = times(export)
    with open(blob, "wb") as file:
        size = file.write(content)
    del content
    model, *importing = times(load)
    del model
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps([size, *exporting, *importing, int(peak.split()[1]) / 1e3]), flush=True)
"""


def path_of(name: str, folder: Path) -> Path:
    """The file of a model: a path, or that of a name, which is made if it is missing."""
    if name.endswith((".xml", ".onnx")):
        return Path(name)
    folder.mkdir(parents=True, exist_ok=True)
    return (
        first.save_by(name, MODELS[name])(folder) if name in MODELS else first.subjects()[name].make(folder)
    )


def measure(path: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """The row of a model."""
    processes = {
        engine: subprocess.Popen(
            [sys.executable, "-c", CHILD, engine, str(path), str(folder / f"{engine}.blob")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
        )
        for engine in ENGINES
    }  # fmt: skip
    runs: dict[str, list[list[float]]] = {engine: [] for engine in ENGINES}
    for i in range(rounds + 1):
        for engine in ENGINES[:: 1 if i % 2 else -1]:
            process = processes[engine]
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            run = json.loads(process.stdout.readline())
            runs[engine].append(run)
    for process in processes.values():
        process.communicate()
    first_export = runs["ovjit"][0][1] / runs["openvino"][0][1]
    ours, openvino_runs = (runs[engine][1:] for engine in ENGINES)
    pairs = list(zip(ours, openvino_runs, strict=True))
    ratios = [statistics.median(a[k] / b[k] for a, b in pairs) for k in range(5)]
    return {
        "model": path.stem,
        "bytes": ours[0][0],
        "export_ms": 1e3 * statistics.median(run[1] for run in ours),
        "import_ms": 1e3 * statistics.median(run[3] for run in ours),
        **dict(zip(("bytes_ratio", "export", "export_wall", "import", "import_wall"), ratios, strict=True)),
        "first_export": first_export,
        "peak_mb": ours[-1][5],
        "openvino_mb": openvino_runs[-1][5],
    }


def main(argv: list[str] | None = None) -> int:
    parser = command.parser("blobs", __doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=SMALL)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        cache = networks.default_folder() / f"blobs-{first.VERSION}"
        paths = [path_of(name, cache) for name in options.models]
        rows = [measure(path, options.rounds, Path(folder)) for path in paths]
    return command.finish(options, "blobs", KEYS, COLUMNS, rows, rounds=options.rounds)


if __name__ == "__main__":
    sys.exit(main())
