"""First compilations: CPU seconds of `compile_model` on an empty cache, beside OpenVINO without a cache.

    python -m bench.first --make [name ...]              # write the models; torch and nncf make some of them
    python -m bench.first [name ...] [--family ocr] [--rounds 3] [--precision f32] [--json out.json]
    python -m bench.first --by-path [--no-inference] [name ...]  # whole processes, as users write them

Each compilation has a process of its own, in interleaved rounds. Packages are imported before the clock
starts; what `compile_model` imports counts. `ovjit_s` and `openvino_s` are CPU seconds of all threads,
medians over rounds. `ratio` is the median of the ratios of rounds. `start` is that ratio where the import of
the package counts, too. `kernels` counts a model's kernels, and `unshipped` those that do not come with
ovjit. `--missing` prints these by name, and which models need each.

`--by-path` measures processes that import the package, call `compile_model(path)` and run one inference.
`first_s` is the user and system time of such a process with an empty cache, `second_s` of the next one, and
`openvino_s` of OpenVINO's. `first` and `second` are the medians of ratios, `wall` and `second_wall` those of
wall times. Between both, another process stays until its model is kept. `kept` is the share of the model's
bytes that is left in the folder of kept models. Before each process memory is touched, as in `bench.large`:
large pages that no process had before cost ten times as much. With `--no-inference` the processes end after
`compile_model`: OpenVINO packs most weights in the first inference, ovjit in the compilation.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, hybrids, networks, ocr, quantized, report, transformers
from bench.large import touch_memory
from bench.startup import environment

VERSION = 1
KEYS = ("model",)
COLUMNS = (
    "model",
    "family",
    "ovjit_s",
    "openvino_s",
    "ratio",
    "start",
    "ovjit_wall_s",
    "kernels",
    "unshipped",
)
PATH_COLUMNS = (
    "model",
    "family",
    "openvino_s",
    "first_s",
    "second_s",
    "first",
    "second",
    "wall",
    "second_wall",
    "kept_bytes",
    "kept",
)
#: Limits of a first compilation: seconds, and times of OpenVINO's.
SECONDS, TIMES = 1.0, 2.0
#: Small random models of the package transformers.
LIBRARY = (
    "albert", "bart", "clip", "deberta-v2", "distilbert", "gemma2", "hubert", "qwen2", "segformer", "dinov2",
    "t5", "wav2vec2", "whisper", "yolos",
)  # fmt: skip
#: Families of the small ONNX files that tests have.
ONNX = {
    "classic": ("super_resolution", "style_transfer", "ferplus", "arcface"),
    "newer": ("mobilenet_v3", "vit", "swin_window"),
    "quantised": ("quantised_resnet", "quantised_bert", "qdq_mobile"),
    "language": ("tiny_bert", "roberta", "t5", "encoder_decoder"),
    "decoders": ("gpt2_past", "llama"),
    "detection": ("yolov3", "yolov5", "yolov8", "ssd", "faster_rcnn", "mask_head"),
    "segmentation": ("segmentation", "unet_3d"),
    "speech": ("speech_ctc", "wavenet"),
}
_NEWER = {"unet": "segmentation", "yolo": "detection", "whisper": "speech", "bert128": "language",
          "bert384": "language", "lstm": "language", "gru": "language"}  # fmt: skip

Maker = Callable[[Path], Path]


class Subject:
    """A model: its name, its family, and what makes its file in a folder."""

    def __init__(self, name: str, family: str, make: Maker):
        self.name, self.family, self.make = name, family, make


def save_by(name: str, make: Callable[[Any], Any]) -> Maker:
    """An IR that the real OpenVINO writes of what `make` builds of its classes."""

    def maker(folder: Path) -> Path:
        path = folder / f"{name}.xml"
        if not path.exists():
            import openvino

            model = make(openvino)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                made = Path(scratch) / path.name
                openvino.save_model(model, made, compress_to_fp16=False)
                for suffix in (".bin", ".xml"):  # the .xml last: it says that the other is complete
                    os.replace(made.with_suffix(suffix), path.with_suffix(suffix))
        return path

    return maker


def _onnx(name: str) -> Maker:
    def maker(folder: Path) -> Path:
        path = folder / f"onnx-{name}.onnx"
        if not path.exists():
            import onnx

            from tests.support.onnx.exported import NETS

            model, _ = NETS[name](1)
            made = path.with_suffix(".part")
            onnx.save(model, made)
            os.replace(made, path)
        return path

    return maker


def _library(name: str) -> Maker:
    def make(package: Any) -> Any:
        import torch

        from bench import torch_models

        module, example = torch_models.built("transformers", name)
        return package.convert_model(torch.export.export(module, (), example))

    return save_by(f"library-{name}", make)


def _in_bytes(name: str) -> Maker:
    def maker(folder: Path) -> Path:
        if name in networks.NAMES or name in transformers.NAMES:
            return quantized.quantized(name)
        path, source = folder / f"{name}-int8.xml", _ocr(name)(folder)
        rng = np.random.default_rng(VERSION)
        samples = [[rng.standard_normal(ocr.SIZES[name], np.float32)] for _ in range(quantized.SAMPLES)]
        if not path.exists():
            quantized.write(source, path, samples)
        return path

    return maker


def _ocr(name: str) -> Maker:
    return save_by(name, lambda package: ocr.MODELS[name](transformers.Net(package, name)))


def _digits(folder: Path) -> Path:
    from ovjit.data import digits

    return Path(digits()[0])


def subjects() -> dict[str, Subject]:
    """All of them, by name."""
    found = [Subject("digits", "classic", _digits)]
    found += [Subject(n, "classic", lambda _, n=n: networks.build(n)) for n in networks.NAMES]
    for name in transformers.NAMES:
        decodes = name in transformers.DECODERS
        family = "decoders" if decodes else _NEWER.get(name, "newer")
        found.append(Subject(name, family, lambda _, n=name: transformers.build(n)))
        for stored in ("u8", "i4") if decodes else ():
            build = lambda _, n=name, s=stored: transformers.build(n, stored=s)  # noqa: E731
            found.append(Subject(f"{name}-{stored}", "compressed", build))
    for name in ("mamba", "delta"):
        make = save_by(f"hybrid-{name}", lambda package, n=name: hybrids.build(package, n))
        found.append(Subject(f"hybrid-{name}", "decoders", make))
    found += [Subject(n, "ocr", _ocr(n)) for n in ocr.MODELS]
    for name in (*quantized.NAMES, "bert128", "vit", "yolo", "ocr-rec", "ocr-det"):
        found.append(Subject(f"{name}-int8", "quantised", _in_bytes(name)))
    for family, names in ONNX.items():
        found += [Subject(f"onnx-{n}", family, _onnx(n)) for n in names]
    found += [Subject(f"library-{n}", "library", _library(n)) for n in LIBRARY]
    return {one.name: one for one in found}


CHILD = """
import importlib, json, sys, time
package, path, config = sys.argv[1:]
begin = time.process_time()
core = importlib.import_module(package).Core()
cpu, wall = time.process_time(), time.perf_counter()
compiled = core.compile_model(path, "CPU", json.loads(config))
print(time.process_time() - cpu, time.perf_counter() - wall, time.process_time() - begin)
"""
#: What users write. Dynamic dimensions are 1 for the first, 64 for others of images, 8 for others.
BY_PATH = """
import importlib, json, sys
package, path, config, stay = sys.argv[1:]
compiled = importlib.import_module(package).compile_model(path, "CPU", json.loads(config))
if stay == "compile":
    sys.exit()
import numpy as np
shapes = [[d.get_length() if d.is_static else 1 if not i else 64 if len(p.partial_shape) == 4 else 8
           for i, d in enumerate(p.partial_shape)] for p in compiled.inputs]
compiled([np.ones(s, p.element_type.to_dtype()) for s, p in zip(shapes, compiled.inputs)])
if stay == "stay":
    from ovjit.storage import late_writes
    late_writes.finish()
"""
#: Names of all kernels, and of those that had to be compiled.
KERNELS = """
import json, sys
import ovjit
from ovjit.codegen.kernel import Kernel
from ovjit.codegen import loading
path, config = sys.argv[1:]
made, compile = [], Kernel.content
def content(self, isa):
    made.append(self.name)
    return compile(self, isa)
Kernel.content = content
compiled = ovjit.Core().compile_model(path, "CPU", json.loads(config))
print(json.dumps([len(loading.object_code), made]))
"""


def _process(code: str, arguments: Sequence[str], cache: Path) -> str:
    """What a process prints that begins with an empty cache of kernels."""
    shutil.rmtree(cache, ignore_errors=True)
    variables = {**environment(), "OVJIT_CACHE": str(cache)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=variables,
    ).stdout.splitlines()[-1]


def measure(subject: Subject, path: Path, rounds: int, precision: str, cache: Path) -> dict[str, Any]:
    """A row of the table, and which kernels had to be compiled."""
    config = json.dumps({"INFERENCE_PRECISION_HINT": precision})
    count, made = json.loads(_process(KERNELS, [str(path), config], cache))  # writes bytecode, too
    times: dict[str, list[list[float]]] = {"ovjit": [], "openvino": []}
    for i in range(rounds):
        for package in list(times)[:: 1 if i % 2 else -1]:
            said = _process(CHILD, [package, str(path), config], cache)
            times[package].append([float(number) for number in said.split()])
    ours, theirs = times["ovjit"], times["openvino"]

    def ratio(of: int) -> float:
        return statistics.median(a[of] / b[of] for a, b in zip(ours, theirs, strict=True))

    return {
        "model": subject.name,
        "family": subject.family,
        "ovjit_s": statistics.median(run[0] for run in ours),
        "openvino_s": statistics.median(run[0] for run in theirs),
        "ratio": ratio(0),
        "start": ratio(2),
        "ovjit_wall_s": statistics.median(run[1] for run in ours),
        "kernels": count,
        "unshipped": len(made),
        "missing": made,
    }


def _times(package: str, path: Path, precision: str, cache: Path, stay: str = "") -> tuple[float, float]:
    """User and system time, and wall time, of a process of `BY_PATH`. `stay`: "compile" to end before the
    inference, "stay" to end when the model is kept."""
    touch_memory(2 * sum(file.stat().st_size for file in _files(path)))
    config = json.dumps({"INFERENCE_PRECISION_HINT": precision})
    variables = {**environment(), "OVJIT_CACHE": str(cache)}
    arguments = [sys.executable, "-c", BY_PATH, package, str(path), config, stay]
    before, begin = os.times(), time.perf_counter()
    subprocess.run(arguments, check=True, env=variables, stderr=subprocess.DEVNULL)
    after, end = os.times(), time.perf_counter()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, end - begin


def _files(path: Path) -> list[Path]:
    """The files of a model."""
    files = {path, path.with_suffix(".bin")} if path.suffix == ".xml" else {path}
    return [file for file in files if file.exists()]


def measure_by_path(
    subject: Subject, path: Path, rounds: int, precision: str, cache: Path, end: str = ""
) -> dict[str, Any]:
    """A row of the table of `--by-path`. `end`: "compile" for processes that infer nothing."""
    times: dict[str, list[tuple[float, float]]] = {"openvino": [], "first": [], "second": []}
    for package in ("openvino", "ovjit"):  # writes bytecode, and reads the files
        _times(package, path, precision, cache, end)
    for i in range(rounds):
        for package in ("ovjit", "openvino")[:: 1 if i % 2 else -1]:
            if package == "openvino":
                times[package].append(_times(package, path, precision, cache, end))
                continue
            shutil.rmtree(cache, ignore_errors=True)
            times["first"].append(_times(package, path, precision, cache, end))
            _times(package, path, precision, cache, "stay")
            times["second"].append(_times(package, path, precision, cache, end))
    kept_bytes = sum(file.stat().st_size for file in (cache / "models").glob("*"))
    size = sum(file.stat().st_size for file in _files(path))

    def ratio(which: str, of: int) -> float:
        return statistics.median(a[of] / b[of] for a, b in zip(times[which], times["openvino"], strict=True))

    medians = {f"{which}_s": statistics.median(t for t, _ in pairs) for which, pairs in times.items()}
    ratios = {"first": ratio("first", 0), "second": ratio("second", 0)}
    walls = {"wall": ratio("first", 1), "second_wall": ratio("second", 1)}
    facts = {"model": subject.name, "family": subject.family, "kept_bytes": kept_bytes}
    return {**facts, **medians, **ratios, **walls, "kept": kept_bytes / size}


def summary_by_path(rows: Sequence[dict[str, Any]]) -> str:
    means = [f"{of} {statistics.geometric_mean(row[of] for row in rows):.2f}" for of in PATH_COLUMNS[5:9]]
    slowest = max(rows, key=lambda row: row["first"])
    return (
        f"{len(rows)} models, geometric means of OpenVINO's time: {', '.join(means)}; slowest "
        f"{slowest['model']} {slowest['first']:.2f}; {sum(not row['kept'] for row in rows)} not kept; "
        f"at most {max(row['kept_bytes'] for row in rows):,} bytes"
    )


def summary(rows: Sequence[dict[str, Any]]) -> str:
    ratios = [row["ratio"] for row in rows]
    mean, start = (statistics.geometric_mean(row[of] for row in rows) for of in ("ratio", "start"))
    slow = sum(row["ovjit_s"] > SECONDS for row in rows)
    behind = sum(ratio > TIMES for ratio in ratios)
    either = sum(row["ovjit_s"] > SECONDS or row["ratio"] > TIMES for row in rows)
    whole = sum(row["unshipped"] == 0 for row in rows)
    return (
        f"{len(rows)} models: geometric mean {mean:.2f} ({start:.2f} with the import), {slow} above "
        f"{SECONDS:g} s, {behind} above {TIMES:g} times OpenVINO's, {either} either; {whole} find all their "
        "kernels shipped"
    )


def missing(rows: Sequence[dict[str, Any]]) -> str:
    """Kernels that do not come with ovjit, by the number of models that need each."""
    needed: dict[str, list[str]] = collections.defaultdict(list)
    for row in rows:
        for name in dict.fromkeys(row["missing"]):
            needed[name].append(row["model"])
    ordered = sorted(needed.items(), key=lambda item: (-len(item[1]), item[0]))
    return "\n".join(f"{len(models):3d}  {name}  {' '.join(models)}" for name, models in ordered)


def _made(chosen: Sequence[Subject], folder: Path) -> dict[str, Path]:
    """The files of the models. Those that cannot be made here are named on stderr."""
    found = {}
    for subject in chosen:
        try:
            found[subject.name] = subject.make(folder)
        except (ImportError, RuntimeError) as error:
            print(f"{subject.name} is left out: {str(error).splitlines()[0]}", file=sys.stderr)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = command.parser("first", __doc__)
    everything = subjects()
    parser.add_argument("names", nargs="*", metavar="name", help=f"default: all of {' '.join(everything)}")
    parser.add_argument("--family", nargs="+", choices=sorted({s.family for s in everything.values()}))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"))
    parser.add_argument("--make", action="store_true", help="write the models, measure nothing")
    parser.add_argument("--by-path", action="store_true", help="measure whole processes, first and second")
    parser.add_argument("--no-inference", action="store_true", help="end processes of --by-path before it")
    parser.add_argument("--missing", action="store_true", help="print kernels that do not come with ovjit")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(everything):
        parser.error(f"unknown models: {' '.join(sorted(unknown))}")
    chosen = [s for s in everything.values() if not options.names or s.name in options.names]
    chosen = [s for s in chosen if not options.family or s.family in options.family]
    folder = networks.default_folder() / f"first-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = _made(chosen, folder)
    if options.make:
        return 0
    rows: list[dict[str, Any]] = []
    run, columns = (measure_by_path, PATH_COLUMNS) if options.by_path else (measure, COLUMNS)
    if options.no_inference:
        if not options.by_path:
            parser.error("--no-inference needs --by-path")
        run = functools.partial(measure_by_path, end="compile")
    with tempfile.TemporaryDirectory() as scratch:
        for subject in chosen:
            if subject.name in paths:
                cache = Path(scratch) / "cache"
                try:
                    row = run(subject, paths[subject.name], options.rounds, options.precision, cache)
                except subprocess.CalledProcessError as error:
                    print(f"{subject.name} is left out: {error.cmd[3]} fails", file=sys.stderr)
                    continue
                rows.append(row)
                print(report.table(rows[-1:], columns).splitlines()[-1], file=sys.stderr)
    rows.sort(key=lambda row: -row["first" if options.by_path else "ratio"])
    print(report.table(rows, columns))
    print(summary_by_path(rows) if options.by_path else summary(rows))
    if options.missing:
        print(missing(rows))
    report.write(options.json, "first", KEYS, rows, rounds=options.rounds, precision=options.precision)
    return 0


if __name__ == "__main__":
    sys.exit(main())
