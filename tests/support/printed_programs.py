"""Small programs over the whole API, each run on the real OpenVINO and on ovjit: what they print is compared.

python -m tests.support.printed_programs openvino|ovjit [NAMES]    what each program prints, as JSON
python -m tests.support.printed_programs compare [NAMES]           runs both, and prints what differs

A program stands in `tests/compat/programs/api/*.txt` under a line `# -- name`; its full name is
"file: name". It is ordinary source for `import openvino`, with a few names ready (`names_of`). It may use
`tell(call, *args)`: this prints what the call returns or raises. An exception ends a program, and is printed.
All programs of a package run in one process; if OpenVINO's process ends, the rest runs in a new one, and of
that program the lines before count.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import ROOT
from tests.support.both_packages import plain
from tests.support.opencl_loader import make_loader
from tests.support.run import python

FOLDER = ROOT / "tests" / "compat" / "programs" / "api"
#: Properties whose values are of the machine, or of its load.
MACHINE = (
    "FULL_DEVICE_NAME", "RANGE_FOR_STREAMS", "INFERENCE_NUM_THREADS", "NUM_STREAMS", "DEVICE_ARCHITECTURE",
    "OPTIMAL_NUMBER_OF_INFER_REQUESTS", "INFERENCE_NUM_THREADS_REASON", "RUNTIME_REQUIREMENTS",
    "OPTIMIZATION_CAPABILITIES",
)  # fmt: skip
#: Lines of messages that say where in OpenVINO's sources a check stands, and at which node.
_PLACE = re.compile(
    r"\s*(Exception from|Exception happened during|Check '|While validating node|Shape inference input|"
    r"\[ ?Exception|$)"
)


#: Programs that print something else here for a good reason, by name: how many lines differ, and the reason.
BETTER: dict[str, tuple[int, str]] = {}
for _row in (FOLDER / "better.tsv").read_text().splitlines():
    _name, _lines, _reason = _row.split("\t")
    BETTER[_name] = int(_lines), _reason


def read_programs(wanted: str = "") -> dict[str, str]:
    """Sources by name, of the programs whose names contain `wanted`."""
    found: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*.txt")):
        parts = re.split(r"^# -- (.+)\n", path.read_text(), flags=re.M)[1:]
        for name, source in zip(parts[::2], parts[1::2], strict=True):
            full = f"{path.stem}: {name}"
            assert full not in found, f"two programs are called {full!r}"
            found[full] = source
    return {name: source for name, source in found.items() if wanted in name}


def names_of(ov: Any) -> dict[str, Any]:
    """The names that programs find."""
    ops = importlib.import_module(f"{ov.__name__}.opset13")

    def net(shape: Any = (2, 3), dtype: Any = np.float32, name: str = "net") -> Any:
        """A model with an input "x" and an output "y", its relu."""
        x = ops.parameter(list(shape), dtype, name="x")
        x.output(0).set_names({"x"})
        y = ops.relu(x, name="act")
        y.output(0).set_names({"y"})
        return ov.Model([ops.result(y, name="out")], [x], name)

    names = {f"o{i}": importlib.import_module(f"{ov.__name__}.opset{i}") for i in (1, 6, 9)}
    return names | {
        "__name__": "__main__", "failure": failure, "ov": ov, "np": np, "os": os, "Path": Path, "ops": ops,
        "net": net, "tell": tell, "tell_words": tell_words, "core": ov.Core(), "MACHINE": MACHINE,
        "F32": {"INFERENCE_PRECISION_HINT": "f32"},
    }  # fmt: skip


def tell(call: Any, *args: Any, **kwargs: Any) -> None:
    """Prints what a call returns or raises."""
    try:
        print("returns", plain(call(*args, **kwargs)))
    except Exception as error:
        print(failure(error))


def tell_words(words: str, call: Any, *args: Any, **kwargs: Any) -> None:
    """Prints what a call returns, or the class that it raises and whether its message has `words`."""
    try:
        print("returns", plain(call(*args, **kwargs)))
    except Exception as error:
        print(failure(error).partition(":")[0], "with" if words in str(error) else "without", words)


def failure(error: BaseException) -> str:
    """The builtin class of an exception, and the first line of its message that is no place in sources."""
    kind = next(k for k in type(error).__mro__ if k.__module__ == "builtins").__name__
    text = str(error)
    lines = [line for line in text.splitlines() if not _PLACE.match(line)]
    invoked = " ... Invoked with:" if "\nInvoked with:" in text else ""
    return f"raises {kind}: {(lines or [''])[0].strip()}{invoked}"


class _Lines:
    """Standard output of a program: whole lines as JSON to the real one, so that none is lost."""

    def __init__(self, stream: Any):
        self.stream, self.pending = stream, ""

    def write(self, text: str) -> int:
        *lines, self.pending = (self.pending + text).split("\n")
        for line in lines:
            self.put(line)
        return len(text)

    def put(self, line: str) -> None:
        self.stream.write(json.dumps({"line": line}) + "\n")
        self.stream.flush()

    def flush(self) -> None:
        pass


def run_programs(package: str, wanted: list[str]) -> None:
    """Runs programs, in this process, on a package under the name openvino."""
    warnings.simplefilter("ignore")
    if package == "ovjit":
        importlib.import_module("ovjit.as_openvino")
    ov = importlib.import_module("openvino")
    real, home = sys.stdout, os.getcwd()
    programs = read_programs()
    for name in wanted:
        folder = tempfile.mkdtemp()
        os.chdir(folder)
        real.write(json.dumps({"program": name}) + "\n")
        out = _Lines(real)
        try:
            with contextlib.redirect_stdout(out):  # type: ignore[type-var]
                try:
                    exec(compile(programs[name], name, "exec"), names_of(ov))
                except Exception as error:
                    print(failure(error))
            if out.pending:
                out.put(out.pending)
        finally:
            os.chdir(home)
            shutil.rmtree(folder)
    real.flush()


def printed(package: str, wanted: list[str], loader: Path | None) -> Iterator[tuple[str, list[str]]]:
    """(name, lines) of programs; of one that ends OpenVINO's process the lines before, and a last one.
    `loader`: the folder of an OpenCL loader."""
    variables = {"OVJIT_PRECISION": None}
    if loader is not None:
        variables["LD_LIBRARY_PATH"] = os.pathsep.join([str(loader), os.environ.get("LD_LIBRARY_PATH", "")])
    while wanted:
        done = python("-m", "tests.support.printed_programs", package, json.dumps(wanted), **variables)
        found: list[tuple[str, list[str]]] = []
        for text in done.stdout.splitlines():
            if not text.startswith('{"'):
                continue  # of native code
            row = json.loads(text)
            if "program" in row:
                found.append((row["program"], []))
            else:
                found[-1][1].append(row["line"])
        if done.returncode == 0:
            yield from found
            return
        if package != "openvino" or not found:
            raise AssertionError(f"{package} ended with {done.returncode}: {done.stderr[-3000:]}")
        found[-1][1].append(ENDED)
        yield from found
        wanted = wanted[wanted.index(found[-1][0]) + 1 :]


#: The last line of a program that ended OpenVINO's process.
ENDED = "the process ended"


def same_line(real: str, ours: str) -> bool:
    """Both packages print the same; an error's message may say more here."""
    if real == ours:
        return True
    if real.startswith("raises ") and ours.startswith("raises "):
        kind, _, text = real.partition(": ")
        mine, _, said = ours.partition(": ")
        if kind == mine:
            # of pybind11's messages the form, of others the class alone
            form = "incompatible" in text and text.endswith("Invoked with:")
            return not form or (" arguments. The following" in said and said.endswith("Invoked with:"))
    return False


def differences(wanted: list[str]) -> dict[str, list[tuple[str, str]]]:
    """By name the pairs of lines (OpenVINO's, ovjit's) that differ, of programs with any."""
    found: dict[str, list[tuple[str, str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        loader = make_loader(Path(folder))
        if loader is None:
            wanted = [name for name in wanted if not name.startswith("devices:")]
        both = [list(printed(package, wanted, loader)) for package in ("openvino", "ovjit")]
    for (name, theirs), (_, ours) in zip(*both, strict=True):
        if theirs and theirs[-1] == ENDED:
            theirs.pop()
            ours = ours[: len(theirs)]
        pairs = zip_longest(theirs, ours, fillvalue="(nothing)")
        wrong = [pair for pair in pairs if not same_line(*pair)]
        if wrong:
            found[name] = wrong
    return found


def main(what: str, *words: str) -> None:
    if what == "compare":
        found = differences(list(read_programs(" ".join(words))))
        for name, pairs in found.items():
            print(f"# -- {name}")
            for real, ours in pairs:
                print(f"  OpenVINO: {real[:300]}\n  ovjit:    {ours[:300]}")
        print(f"{len(found)} differ")
    else:
        run_programs(what, json.loads(words[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
