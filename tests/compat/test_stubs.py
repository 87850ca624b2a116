"""ovjit beside OpenVINO's own stubs: the differences are those that docs/types.md lists."""

from __future__ import annotations

import runpy
import sys
import types
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support import stub_differences as stubs
from tests.support.run import command

#: Names of packages that are imported when they are first used, or by tables, and what mypy has to see.
PROGRAM = """
import ovjit.genai as genai
import ovjit.onnxruntime as ort

class Printer(genai.StreamerBase):
    def end(self) -> None: ...

def answer(folder: str) -> genai.VLMDecodedResults:
    config = genai.GenerationConfig(max_new_tokens=3)
    reveal_type(config.is_beam_search())
    tokenizer: genai.Tokenizer = genai.LLMPipeline(folder, "CPU").get_tokenizer()
    reveal_type(tokenizer.encode("hello").input_ids)
    reveal_type(ort.InferenceSession("model.onnx").get_inputs()[0].name)
    return genai.VLMPipeline(folder, "CPU").generate("hello")

complex_number: complex = genai.StreamingStatus.RUNNING
missing = genai.NoSuchName
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_page_is_the_one_that_the_tool_makes() -> None:
    pytest.importorskip("mypy", reason="needs ovjit[lint]")
    pytest.importorskip("torch", reason="modules of OpenVINO import it")
    assert stubs.PAGE.read_text() == stubs.table(), "run python -m tests.support.stub_differences"


def test_sentences_have_meanings() -> None:
    assert stubs.kind('stub parameter "arg0" differs from runtime parameter "sources"') == (
        "a positional argument has another name"
    )
    assert stubs.kind("is not present at runtime") == "is not there"


@pytest.mark.long
def test_lazily_imported_names_have_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's program in an environment with ovjit and the stubs that its wheel has."""
    pytest.importorskip("mypy", reason="needs ovjit[lint]")
    parts = "hatchling.builders.hooks.plugin.interface".split(".")
    for length in range(1, len(parts) + 1):  # what the hook of the build imports
        monkeypatch.setitem(sys.modules, ".".join(parts[:length]), types.ModuleType("hatchling"))
    sys.modules["hatchling.builders.hooks.plugin.interface"].BuildHookInterface = object  # type: ignore[attr-defined]
    texts = runpy.run_path(str(ROOT / ".ci" / "stubs.py"))["stubs"](ROOT)
    assert command(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env").returncode == 0
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    for name, text in texts.items():
        path = site / "ovjit-stubs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    numpy = Path(__import__("numpy").__file__).parents[1]
    (site / "paths.pth").write_text(f"{ROOT}\n{numpy}\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    done = command(
        sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable",
        tmp_path / "env" / "bin" / "python", "program.py", folder=tmp_path, PYTHONPATH="",
    )  # fmt: skip
    notes = [line.partition(" note: ")[2] for line in done.stdout.splitlines() if " note: " in line]
    types_of = ("bool", "ovjit.api.tensors.tensor.Tensor", "str")
    assert notes == [f'Revealed type is "{each}"' for each in types_of], done.stdout + done.stderr
    assert "Incompatible types in assignment" in done.stdout and 'no attribute "NoSuchName"' in done.stdout
    assert "Found 2 errors" in done.stdout, done.stdout
