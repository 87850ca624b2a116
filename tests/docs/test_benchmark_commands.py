"""The commands of benchmarks that the pages show are accepted: they take minutes, so none is run."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support import ROOT, doc_pages

_COMMAND = re.compile(r"python -m (bench\.\w+)([^`\n#]*)")
#: (module, arguments) -> the page that shows it first.
SHOWN: dict[tuple[str, str], str] = {}
#: One of a benchmark's own processes, which takes words by their places.
_CLIENT = "load "
for _page in doc_pages.PAGES:
    for _module, _arguments in _COMMAND.findall(_page.read_text().replace("\\\n", " ")):
        _words = _arguments.strip().rstrip(".,;:)")
        if not _words.startswith(_CLIENT):
            SHOWN.setdefault((_module, _words), _page.stem)


class Accepted(Exception):
    """A parser takes the arguments."""


@pytest.mark.parametrize(("module", "arguments"), SHOWN, ids=[" ".join(key) for key in SHOWN])
def test_arguments_are_accepted(module: str, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words in capitals stand for others, brackets for what may be left out."""
    parse = argparse.ArgumentParser.parse_args

    def accept(parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        parse(parser, *given)
        raise Accepted

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", accept)
    words = shlex.split(re.sub(r"[\[\]]|\.\.\.", " ", arguments))
    monkeypatch.setattr("sys.argv", [module, *words])
    try:
        made = importlib.import_module(module)
    except ModuleNotFoundError as error:
        pytest.skip(f"{module} needs {error.name}")
    with pytest.raises(Accepted):
        made.main()


def test_a_page_of_memory_needs_all_measurements(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused before the measurements, not after them."""
    words = ["--scenarios", "calls", "--share", "0.0001", "--page", str(tmp_path / "memory.md")]
    monkeypatch.setattr("sys.argv", ["bench.memory", *words])
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("bench.memory").main()
    assert "--page needs all scenarios and engines" in capsys.readouterr().err


PAGES = [
    page for page in doc_pages.PAGES if page.parent == ROOT / "docs" and _COMMAND.search(page.read_text())
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_figures_have_a_commit_and_a_machine(page: Path) -> None:
    """A reader can make them again."""
    text = page.read_text()
    assert re.search(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,12}\b", text), "no commit"
    assert re.search(r"EPYC|Xeon|Zen \d|AVX|H[12]00", text), "no machine"


def _exists(module: str, name: str) -> bool:
    """Whether `from module import name` works, or lacks a package that is not ovjit's."""
    try:
        return hasattr(importlib.import_module(module), name) or bool(
            importlib.import_module(f"{module}.{name}")
        )
    except ModuleNotFoundError as error:
        return not (error.name or "").startswith(("ovjit", "bench"))


def test_what_benchmarks_import_from_ovjit_exists() -> None:
    """Also within functions, which no other test runs."""
    missing = []
    for path in (ROOT / "bench").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.split(".")[0] in ("ovjit", "ovjit_ops", "bench"):
                names = [alias.name for alias in node.names if not _exists(module, alias.name)]
                missing += [f"{path.name}: from {module} import {name}" for name in names]
    assert not missing


def test_pages_show_benchmarks() -> None:
    assert len(SHOWN) > 50
