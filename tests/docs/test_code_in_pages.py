"""The code and the commands of the pages run as they stand there."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ovjit.data import DIGITS_XML
from tests.readers.gguf_decoders import Sizes, tensors, write
from tests.support import ROOT, doc_pages
from tests.support.run import python
from tests.support.tflite.cases import one, x


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the pages' programs and commands find where they are run: model.xml, model.onnx, model.gguf,
    model.tflite, images.npy."""
    import onnx

    for suffix in (".xml", ".bin"):
        (tmp_path / f"model{suffix}").write_bytes(DIGITS_XML.with_suffix(suffix).read_bytes())
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Softmax", ["h"], ["y"])]
    ends = [[helper.make_tensor_value_info(name, kind, ["n", 3, "h", "w"])] for name in "xy"]
    opset = [helper.make_opsetid("", 17)]
    graph = helper.make_graph(nodes, "g", *ends)
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "model.onnx")
    s = Sizes("llama", layers=1, words=64)
    if find_spec("tflite") is not None:
        (tmp_path / "model.tflite").write_bytes(one("ABS", [x(2, 3)], [((2, 3), "FLOAT32")]))
    write(tmp_path / "model.gguf", s, tensors(s, "F32", np.random.default_rng(1)))
    np.save(tmp_path / "images.npy", np.zeros((1, 1, 8, 8), np.float32))
    return tmp_path


PROGRAMS = [
    pytest.param(program, id=f"{page.stem}-{i}")
    for page in doc_pages.PAGES
    # test_distributed.py looks at the output of these; test_notebooks.py runs the tutorials
    if page.stem != "distributed" and page.parent.name != "tutorials"
    for i, program in enumerate(doc_pages.programs(page))
]


#: Packages that not every environment of the tests has, and what a program that needs one contains.
NEEDED = {"tflite": ".tflite", "torch": "import torch", "jax": "import jax"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_python(program: str, folder: Path) -> None:
    """In a process of its own: some register operations."""
    for package, sign in NEEDED.items():
        if sign in program:
            pytest.importorskip(package)
    (folder / "program.py").write_text(program)
    done = python("program.py", folder=folder, seconds=110)
    assert done.returncode == 0, done.stderr


#: How commands begin that are not run here, and why.
ELSEWHERE = {
    "python3 -m venv": "needs the network; .ci/run runs the one of the tests",
    "pip install": "needs the network",
    "python -m pip install": "needs the network",
    "pip uninstall": "of an environment that test_vllm.py makes",
    "OVJIT_VLLM=1 serve run": "test_vllm.py does, where it is installed",
    "OVJIT_VLLM=1 python": "test_vllm.py does, where it is installed",
    "SOURCE_DATE_EPOCH": "test_release.py does",
    "sha256sum": "is not of ovjit",
    "python -m pytest": "are these tests",
    "OVJIT_FUZZ_SECONDS": "are these tests, for longer",
    "OVJIT_EXAMPLES": "are these tests, for longer",
    "python -m tests.": "are these tests, for longer",
    "python -m bench.": "measures, for minutes",
    "mlserver start": "test_serving.py does, where it is installed",
    "curl ": "of a server that test_serving.py asks",
    "serve run": "test_serving.py does, where it is installed",
    "tritonserver": "is no Python package",
    "git ": "is not of ovjit",
    "ruff ": "is a step of its own",
}  # fmt: skip
#: Options that say how long is measured.
BOUNDS = {"-t", "--time", "-niter", "--number_iterations"}


def words_of(command: str) -> list[str]:
    """The command's words, as they are run: `ovjit` is a module of this Python."""
    words = shlex.split(command)
    while words and re.fullmatch(r"\w+=\S*", words[0]):
        words.pop(0)
    if words[0] == "ovjit":
        words[:1] = ["python", "-m", "ovjit"]
    if words[1].startswith(("docs/", "tests/")):
        words[1] = str(ROOT / words[1])
    if words[2:4] == ["ovjit", "benchmark"] and not BOUNDS.intersection(words):
        words += ["-t", "0.1"]  # in place of ten seconds for each subject
    return words


#: Each command once, by its words; pages that have it.
COMMANDS: dict[tuple[str, ...], list[str]] = {}
for page in doc_pages.PAGES:
    for command in doc_pages.commands(page):
        if not command.startswith(tuple(ELSEWHERE)):
            COMMANDS.setdefault(tuple(words_of(command)), []).append(f"{page.stem}: {command}")


@pytest.mark.parametrize(
    "words, pages", [pytest.param(words, pages, id=pages[0]) for words, pages in COMMANDS.items()]
)
def test_command(words: tuple[str, ...], pages: list[str], folder: Path) -> None:
    assert words[0] == "python", f"{pages}: neither ours nor in ELSEWHERE"
    done = python(*words[1:], folder=folder, seconds=110)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_reasons_are_used() -> None:
    said = [command for page in doc_pages.PAGES for command in doc_pages.commands(page)]
    unused = [start for start in ELSEWHERE if not any(command.startswith(start) for command in said)]
    assert not unused, unused
