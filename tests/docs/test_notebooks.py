"""The notebooks of the tutorials: their cells are those of the pages, and they run.

`docs/notebooks.py` has to run with a Jupyter kernel, which only the test with the marker `pypi` installs. The
others execute the cells by themselves, in order and in one namespace.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import environments
from tests.support.doc_pages import module_of_docs
from tests.support.run import command, python

notebooks = module_of_docs("notebooks")
PAIRS = [pytest.param(page, target, id=page.stem) for page, target in notebooks.pairs()]
#: Executes the code cells of the notebook that it is given; a failure names the cell.
RUN = """
import json, sys
names = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
"""


def test_there_are_five_tasks() -> None:
    tasks = {page.stem for page, _ in notebooks.pairs()}
    assert tasks == {"image", "text", "speech", "own_operation", "server"}
    assert {file.stem for file in notebooks.NOTEBOOKS.iterdir()} == tasks


@pytest.mark.parametrize("page, target", PAIRS)
def test_cells_are_those_of_the_page(page: Path, target: Path) -> None:
    content = json.loads(target.read_text())
    assert notebooks.sources(content) == notebooks.cells_of(page), "run python -m docs.notebooks"
    outputs = [cell["outputs"] for cell in content["cells"] if cell["cell_type"] == "code"]
    assert any(outputs), "it has been run"
    assert not [o for cell in outputs for o in cell if o["output_type"] == "error"]


@pytest.mark.parametrize("page, target", PAIRS)
def test_it_runs(page: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(RUN)
    done = python("run.py", str(target), folder=tmp_path, seconds=110)
    assert done.returncode == 0, done.stderr


def test_a_failing_cell_is_named(tmp_path: Path) -> None:
    cell = {"cell_type": "code", "id": "faulty-3", "source": ["assert 1 == 2\n"]}
    (tmp_path / "run.py").write_text(RUN)
    (tmp_path / "faulty.ipynb").write_text(json.dumps({"cells": [cell]}))
    done = python("run.py", "faulty.ipynb", folder=tmp_path, seconds=60)
    assert done.returncode != 0 and "faulty-3" in done.stderr


def test_links_lead_from_the_notebooks_folder() -> None:
    for page, target in notebooks.pairs():
        for kind, text in notebooks.sources(json.loads(target.read_text())):
            if kind == "markdown":
                for link in notebooks._LINK.findall(text):
                    path = notebooks.NOTEBOOKS / link[1].partition("#")[0]
                    assert path.exists(), f"{page.name}: {link[1]}"


@pytest.mark.pypi
def test_a_jupyter_kernel_runs_them(tmp_path: Path) -> None:
    """By nbclient and ipykernel, from PyPI."""
    fresh = environments.new_environment(tmp_path / "venv")
    environments.install(fresh, "nbclient", "ipykernel")
    code = "from docs import notebooks as n\n"
    code += "for page, _ in n.pairs():\n    n.executed(n.notebook(page))\n    print(page.stem)\n"
    (tmp_path / "run.py").write_text(code)
    done = command(fresh, "run.py", folder=tmp_path, seconds=900)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 5
