"""Blobs beside OpenVINO's: bytes, `export_model`, and `import_model`.

    python -m bench.blobs MODEL.xml ... [--rounds 7] [--json out.json]

Each engine has a process of its own that compiles the model in f32. In interleaved rounds it exports its
blob and imports it again: ovjit from the file, OpenVINO from its bytes. CPU times are those of all threads.
`bytes_ratio`, `export`, `import` (CPU time), `export_wall` and `import_wall` are medians over the rounds of
the ratios to OpenVINO. `peak_mb` is the largest memory of ovjit's process, `openvino_mb` of OpenVINO's.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import command
from bench.startup import environment

ENGINES = ("ovjit", "openvino")
KEYS = ("model",)
COLUMNS = ("model", "bytes", "bytes_ratio", "export_ms", "export", "export_wall", "import_ms", "import",
           "import_wall", "peak_mb", "openvino_mb")  # fmt: skip
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
            if i:  # the first round loads modules
                runs[engine].append(run)
    for process in processes.values():
        process.communicate()
    ours, openvino_runs = (runs[engine] for engine in ENGINES)
    pairs = list(zip(ours, openvino_runs, strict=True))
    ratios = [statistics.median(a[k] / b[k] for a, b in pairs) for k in range(5)]
    return {
        "model": path.stem,
        "bytes": ours[0][0],
        "export_ms": 1e3 * statistics.median(run[1] for run in ours),
        "import_ms": 1e3 * statistics.median(run[3] for run in ours),
        **dict(zip(("bytes_ratio", "export", "export_wall", "import", "import_wall"), ratios, strict=True)),
        "peak_mb": ours[-1][5],
        "openvino_mb": openvino_runs[-1][5],
    }


def main(argv: list[str] | None = None) -> int:
    parser = command.parser("blobs", __doc__)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(path, options.rounds, Path(folder)) for path in options.models]
    return command.finish(options, "blobs", KEYS, COLUMNS, rows, rounds=options.rounds)


if __name__ == "__main__":
    sys.exit(main())
