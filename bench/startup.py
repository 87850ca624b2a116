"""From the start of a process to its first result with a compiled model from a file: ovjit and OpenVINO.

    python -m bench.startup [--models digits resnet50] [--threads N] [--rounds 15] [--json out.json]

Each engine exports its own blob once, for the shape of the input unless --open. Then, in interleaved rounds,
a fresh process imports the engine's package, imports the blob and runs one inference. Milliseconds, medians
over the rounds: `package_ms` from the start of the process until it is imported, `import_ms` from the
blob's path to a compiled model (opening or reading the file included), `infer_ms` the first inference,
`start_ms` all of it. `ratio` is the median over the rounds of start_ms to OpenVINO's in the same round,
`import_ratio` that of import_ms. Files are in the page cache. `openvino-mapped` gives OpenVINO the file as a
Tensor over a memory map.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import command
from bench.engines import cores
from bench.rounds import PAUSE
from bench.run import Subject

#: Engine -> (package, how it gets the blob).
ENGINES = {
    "ovjit": ("ovjit", "path"),
    "openvino": ("openvino", "bytes"),
    "openvino-mapped": ("openvino", "tensor"),
}
BASE = "openvino"
KEYS = ("model", "engine")
TIMES = ("package_ms", "import_ms", "infer_ms", "start_ms")
COLUMNS = (*KEYS, *TIMES, "ratio", "import_ratio", "best_import_ms", "blob_mb", "from_blob")

EXPORT = """
import importlib, json, pathlib, sys
import numpy as np
package, xml, blob, config, inputs = sys.argv[1:]
module = importlib.import_module(package)
core = module.Core()
model = core.read_model(xml)
if inputs:
    with np.load(inputs) as file:
        model.reshape(list(file[file.files[0]].shape))
compiled = core.compile_model(model, "CPU", json.loads(config))
content = compiled.export_model()
pathlib.Path(blob).write_bytes(content if isinstance(content, bytes) else content.getvalue())
"""

CHILD = """
import sys, time
began = int(sys.argv[1])
package, how, blob, inputs = sys.argv[2:]
if package == "ovjit":
    import ovjit as module
else:
    import openvino as module
here = time.monotonic_ns()
import numpy as np
with np.load(inputs) as file:
    array = file[file.files[0]]
core = module.Core()
before = time.monotonic_ns()
if how == "path":
    source = blob
elif how == "bytes":
    with open(blob, "rb") as file:
        source = file.read()
else:
    source = module.Tensor(np.memmap(blob, np.uint8, "r"))
compiled = core.import_model(source, "CPU")
imported = time.monotonic_ns()
result = compiled([array])[0]
done = time.monotonic_ns()
loaded = compiled.get_property("LOADED_FROM_CACHE")
print(here - began, imported - before, done - imported, done - began, loaded)
"""


def environment() -> dict[str, str]:
    """What fresh processes get: they write Python's bytecode in the first round, as an installation does.
    From sources alone, ovjit's import would take three times as long.

    NumPy's OpenBLAS has one thread. Its others wait actively for 0.1 s after NumPy's import. That was up to
    half of the CPU time of ovjit's compilation. Neither package uses OpenBLAS."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "OPENBLAS_NUM_THREADS": "1"}


def export(subject: Subject, engine: str, threads: int, folder: Path, open_shapes: bool) -> Path:
    """The engine's blob of the subject, in f32, for the shape of its input or as open as the model is."""
    package, _ = ENGINES[engine]
    path = folder / f"{subject.name}-{package}.blob"
    if not path.exists():
        config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        config["INFERENCE_PRECISION_HINT"] = "f32"
        command = [sys.executable, "-c", EXPORT, package, subject.paths["xml"], str(path), json.dumps(config)]
        command.append("" if open_shapes else subject.inputs)
        subprocess.run(command, check=True)
    return path


def start(engine: str, blob: Path, inputs: str) -> dict[str, Any]:
    """One process, from its start to its first result."""
    package, how = ENGINES[engine]
    command = [sys.executable, "-c", CHILD, str(time.monotonic_ns()), package, how, str(blob), inputs]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment())
    *times, loaded = done.stdout.split()
    return {**dict(zip(TIMES, (int(t) / 1e6 for t in times), strict=True)), "from_blob": loaded == "True"}


def measure(
    subject: Subject, threads: int, rounds: int, folder: Path, open_shapes: bool
) -> list[dict[str, Any]]:
    """A row for each engine."""
    blobs = {engine: export(subject, engine, threads, folder, open_shapes) for engine in ENGINES}
    found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
    engines = list(ENGINES)
    for i in range(rounds + 1):
        turn = i % len(engines)
        for engine in engines[turn:] + engines[:turn]:
            time.sleep(PAUSE)
            taken = start(engine, blobs[engine], subject.inputs)
            if i:  # the first round fills the page cache
                found[engine].append(taken)
    rows = []
    for engine, runs in found.items():
        row: dict[str, Any] = {"model": subject.name, "engine": engine}
        row |= {name: statistics.median(run[name] for run in runs) for name in TIMES}
        for ratio, name in (("ratio", "start_ms"), ("import_ratio", "import_ms")):
            row[ratio] = statistics.median(
                mine[name] / other[name] for mine, other in zip(runs, found[BASE], strict=True)
            )
        row["best_import_ms"] = min(run["import_ms"] for run in runs)
        row["blob_mb"] = blobs[engine].stat().st_size / 1e6
        if engine == "ovjit":
            row["from_blob"] = str(all(run["from_blob"] for run in runs))
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = command.parser("startup", __doc__)
    parser.add_argument("--models", nargs="+", default=["digits", "resnet50"])
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--open", action="store_true", help="leave open shapes open: digits has one")
    parser.add_argument("--networks", type=Path, help="folder of the networks (default: the user's cache)")
    options = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.models:
            subject = Subject(name, Path(scratch), options.networks)
            rows += measure(subject, options.threads, options.rounds, Path(scratch), options.open)
    return command.finish(
        options, "startup", KEYS, COLUMNS, rows, threads=options.threads, rounds=options.rounds
    )


if __name__ == "__main__":
    sys.exit(main())
