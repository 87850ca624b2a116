"""`compile_model` from a model's file: the first one ever, with kernels at hand, and beside OpenVINO's cache.

    python -m bench.compiling [--models add digits resnet50] [--rounds 7] [--precision f32] [--json out.json]

Figures are medians of fresh processes, in interleaved rounds. `first` compiles on an empty cache. `unshipped`
does so without the kernels that come with ovjit. `warm` finds its kernels in the cache. `cached` finds the
whole compiled model in CACHE_DIR, as OpenVINO does.

`compile_cpu_s` is CPU time of all threads within `compile_model`, including its imports. `compile_s` is its
wall time. `start_s` is the time from the start of the process to the first result. `ratio` and `start_ratio`
compare compile_s and start_s with those of OpenVINO with its own CACHE_DIR in the same round, as medians over
rounds.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import command
from bench.rounds import PAUSE
from bench.run import Subject
from bench.startup import environment

BASE = "openvino-cached"
WAYS = ("first", "unshipped", "warm", "cached", "openvino", BASE)
KEYS = ("model", "way")
TIMES = ("compile_cpu_s", "compile_s", "start_s")
COLUMNS = (*KEYS, *TIMES, "ratio", "start_ratio")

CHILD = """
import sys, time
began, package, xml, inputs, config = sys.argv[1:]
import importlib, json
import numpy as np
module = importlib.import_module(package)
with np.load(inputs) as file:
    arrays = [file[name] for name in file.files]
core = module.Core()
config = json.loads(config)
if "CACHE_DIR" in config:
    core.set_property({"CACHE_DIR": config.pop("CACHE_DIR")})
cpu, before = time.process_time(), time.monotonic()
compiled = core.compile_model(xml, "CPU", config)
after, cpu = time.monotonic(), time.process_time() - cpu
compiled(arrays)
print(cpu, after - before, time.monotonic() - float(began))
"""


class Addition:
    """The smallest model there is: eight floats, added to themselves."""

    name = "add"

    def __init__(self, scratch: Path):
        import ovjit

        x = ovjit.opset8.parameter([8], np.float32, name="x")
        path = scratch / "add.xml"
        ovjit.save_model(ovjit.Model([ovjit.opset8.add(x, x)], [x]), path, False)
        self.paths = {"xml": str(path)}
        self.inputs = str(scratch / "add-inputs.npz")
        np.savez(self.inputs, np.ones(8, np.float32))


class Caches:
    """The folders of one model's processes: empty ones for first compilations, others that stay."""

    def __init__(self, scratch: Path, name: str):
        self._scratch, self._name = scratch, name

    def _folder(self, what: str, empty: bool) -> str:
        folder = self._scratch / f"{self._name}-{what}"
        if empty:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        return str(folder)

    def of(self, way: str) -> tuple[dict[str, str], dict[str, str]]:
        """Environment variables and properties of a process that compiles this way."""
        properties = {"CACHE_DIR": self._folder(way, False)} if way in ("cached", BASE) else {}
        if way in ("openvino", BASE):
            return {}, properties
        fresh = way in ("first", "unshipped")
        variables = {"OVJIT_CACHE": self._folder("empty" if fresh else "kernels", fresh)}
        if way == "unshipped":
            variables["OVJIT_SHIPPED"] = "0"
        return variables, properties


def compile_once(subject: Any, way: str, caches: Caches, precision: str) -> dict[str, float]:
    """One process."""
    variables, properties = caches.of(way)
    properties["INFERENCE_PRECISION_HINT"] = precision
    package = "openvino" if way in ("openvino", BASE) else "ovjit"
    given = [package, subject.paths["xml"], subject.inputs, json.dumps(properties)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(time.monotonic()), *given],
        check=True, stdout=subprocess.PIPE, text=True, env={**environment(), **variables},
    )  # fmt: skip
    return dict(zip(TIMES, map(float, done.stdout.split()), strict=True))


def measure(subject: Any, rounds: int, precision: str, scratch: Path) -> list[dict[str, Any]]:
    """A row for each way."""
    caches = Caches(scratch, subject.name)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for i in range(rounds + 1):
        turn = i % len(WAYS)
        for way in WAYS[turn:] + WAYS[:turn]:
            time.sleep(PAUSE)
            taken = compile_once(subject, way, caches, precision)
            if i:  # the first round fills the caches
                found[way].append(taken)
    rows = []
    for way, runs in found.items():
        row: dict[str, Any] = {"model": subject.name, "way": way}
        row |= {name: statistics.median(run[name] for run in runs) for name in TIMES}
        for ratio, name in (("ratio", "compile_s"), ("start_ratio", "start_s")):
            row[ratio] = statistics.median(
                mine[name] / other[name] for mine, other in zip(runs, found[BASE], strict=True)
            )
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = command.parser("compiling", __doc__)
    parser.add_argument("--models", nargs="+", default=["add", "digits", "resnet50"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"))
    parser.add_argument("--networks", type=Path, help="folder of the networks (default: the user's cache)")
    options = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in options.models:
            subject = Addition(scratch) if name == "add" else Subject(name, scratch, options.networks)
            rows += measure(subject, options.rounds, options.precision, scratch)
    return command.finish(
        options, "compiling", KEYS, COLUMNS, rows, rounds=options.rounds, cores=os.cpu_count()
    )


if __name__ == "__main__":
    sys.exit(main())
