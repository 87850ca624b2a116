"""First compilations of large decoders: time and memory of `compile_model`, ovjit beside OpenVINO.

    python -m bench.large [--stored u8 i4 f16] [--layers 22] [--rounds 3] [--cache] [--json out.json]

The model has TinyLlama's sizes (1.1 billion parameters with 22 layers) and random weights. Each compilation
runs in a new process with an empty kernel cache of its own. `seconds` and `cpu_s` are those of
`compile_model`, `first_ms` is a prompt of 16 tokens after it: OpenVINO packs weights there. `process_s` is
the CPU time of the whole process, from before the import to its end. `peak` is the greatest resident memory
beyond that after the import, as a share of the model's file. `--cache` adds CACHE_DIR: the start that writes
it (`cold`) and the next one (`warm`).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench import command
from bench.networks import default_folder
from bench.transformers import SEED, Net, Sizes, llama

VERSION = 1
KEYS = ("stored", "layers", "engine", "cache")
ENGINES = ("ovjit", "openvino")
STORED = ("u8", "i4", "f16")
#: Elements that are drawn; larger constants repeat them, which no engine notices.
_DRAWN = 1 << 20

WORKER = """
import json, resource, sys, time
engine, path, cache, hints = sys.argv[1:]
import numpy as np
ov = __import__(engine)
core = ov.Core()
config = json.loads(hints) | ({"CACHE_DIR": cache} if cache else {})
def peak():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) * 1024
before = peak()
wall, cpu = time.perf_counter(), time.process_time()
compiled = core.compile_model(path, "CPU", config)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
compiling = peak() - before
request = compiled.create_infer_request()
ids = np.arange(16)[None]
first = time.perf_counter()
logits = request.infer({"input_ids": ids, "attention_mask": np.ones((1, 16), np.int64), "position_ids": ids,
                        "beam_idx": np.zeros(1, np.int32)})[0]
first = time.perf_counter() - first
print(json.dumps({"seconds": wall, "cpu_s": cpu, "first_ms": first * 1e3, "peak_mb": compiling / 1e6,
                  "sum": float(np.abs(logits).sum())}))
"""


class LargeNet(Net):
    """`Net` with constants that cost little to draw, and weights of f16 too."""

    def __init__(self, package: Any, name: str, stored: str):
        super().__init__(package, name, stored)
        self.drawn = self.rng.standard_normal(_DRAWN, np.float32)
        self.bytes = self.rng.integers(0, 256, _DRAWN, np.uint8)

    def repeated(self, drawn: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        start = int(self.rng.integers(0, _DRAWN // 2))
        return np.resize(np.roll(drawn, start), count).reshape(shape)

    def stored_weights(self, out: int, wide: int, gain: float) -> Any:
        ops = self.ops
        if self.stored == "f16":
            real = (self.repeated(self.drawn, (out, wide)) * np.float32(gain / np.sqrt(wide))).astype(
                np.float16
            )
            return ops.convert(ops.constant(real), "f32")
        scale = self.repeated(self.drawn, (out, 1, 1))
        if self.stored == "u8":
            scale = (np.abs(scale) * 0 + gain / np.sqrt(wide) / 74).astype(np.float16)
            whole = self.repeated(self.bytes, (out, 1, wide))
            zero = np.full((out, 1, 1), 128, np.uint8)
            weights = ops.subtract(
                ops.convert(ops.constant(whole), "f16"), ops.convert(ops.constant(zero), "f16")
            )
        else:
            shape = (out, wide // 64, 64)
            scale = np.full((out, wide // 64, 1), gain / np.sqrt(wide) / 4.6, np.float16)
            weights = self.convert_i4(self.repeated(self.bytes, (out * wide // 2,)), shape)
        weights = ops.multiply(weights, ops.constant(scale))
        return ops.convert(ops.reshape(weights, self.ints(out, wide), False), "f32")

    def const(self, value: Any, dtype: Any = None) -> Any:
        array = np.asarray(value)
        if array.size >= _DRAWN and array.dtype == np.float32:  # the table of words, stored as f16 is
            return self.ops.convert(self.ops.constant(array.astype(np.float16)), "f32")
        return super().const(value, dtype)


def build(stored: str, sizes: Sizes, folder: Path | None = None) -> Path:
    """The path of the model's IR, made by the real OpenVINO if it is not there yet."""
    folder = Path(folder or default_folder()) / f"large-{VERSION}-{SEED}"
    path = folder / f"llama-{sizes.layers}x{sizes.wide}-{stored}.xml"
    if path.exists():
        return path
    import openvino

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / path.name
        net = LargeNet(openvino, path.stem, stored)  # it keeps memory of constants until they are saved
        openvino.save_model(llama(net, sizes), made, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):  # the .xml last: it says that the other is complete
            os.replace(made.with_suffix(suffix), path.with_suffix(suffix))
    return path


def compile_once(engine: str, path: Path, cache: str, hints: dict[str, Any]) -> dict[str, Any]:
    """What one process measured."""
    before = os.times()
    with tempfile.TemporaryDirectory() as kernels:
        done = subprocess.run(
            [sys.executable, "-c", WORKER, engine, str(path), cache, json.dumps(hints)],
            capture_output=True, text=True, check=False, env={**os.environ, "OVJIT_CACHE": kernels},
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{engine} failed on {path.name}: {done.stderr[-1000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    after = os.times()
    found["process_s"] = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    found["peak"] = found["peak_mb"] * 1e6 / path.with_suffix(".bin").stat().st_size
    return found


def touch_memory(size: int) -> None:
    """Write `size` bytes in a process that ends: a virtual machine gets pages that no process had before from
    its host, ten times as slowly as others. Without this the first engine would pay for all."""
    code = f"import numpy as np; np.zeros({size}, np.uint8).fill(1)"
    subprocess.run([sys.executable, "-c", code], check=True)


def measure(stored: str, sizes: Sizes, engines: list[str], rounds: int, cache: bool) -> list[dict[str, Any]]:
    """A row for each engine, and for each state of CACHE_DIR: medians of `rounds` processes, interleaved."""
    path = build(stored, sizes)
    path.with_suffix(".bin").read_bytes()  # in the system's cache for all
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for n in range(rounds):
        for engine in engines if n % 2 == 0 else engines[::-1]:
            touch_memory(2 * path.with_suffix(".bin").stat().st_size)
            found.setdefault((engine, ""), []).append(compile_once(engine, path, "", hints))
            if not cache:
                continue
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                for state in ("cold", "warm"):
                    found.setdefault((engine, state), []).append(compile_once(engine, path, folder, hints))
    rows = []
    for (engine, state), all_of in found.items():
        medians = {k: statistics.median(one[k] for one in all_of) for k in all_of[0]}
        rows.append(
            {"stored": stored, "layers": sizes.layers, "engine": engine, "cache": state or "none"} | medians
        )
    return rows


def main() -> int:
    parser = command.parser("large", __doc__)
    parser.add_argument("--stored", nargs="+", default=list(STORED), choices=STORED)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--wide", type=int, default=2048)
    parser.add_argument("--inner", type=int, default=5632)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--shared", type=int, default=4, help="heads of keys and values")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", action="store_true", help="with CACHE_DIR, too")
    a = parser.parse_args()
    sizes = Sizes(a.layers, a.wide, a.heads, a.shared, a.inner, 32000)
    rows = [row for stored in a.stored for row in measure(stored, sizes, a.engines, a.rounds, a.cache)]
    columns = ("seconds", "cpu_s", "process_s", "first_ms", "peak_mb", "peak", "sum")
    return command.finish(a, "large", KEYS, (*KEYS, *columns), rows)


if __name__ == "__main__":
    sys.exit(main())
