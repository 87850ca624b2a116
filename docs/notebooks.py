"""Notebooks of the tutorials: `docs/tutorials/NAME.md` becomes `docs/notebooks/NAME.ipynb`.

    pip install nbclient ipykernel
    python -m docs.notebooks          # write them and run them, so that they have outputs
    python -m docs.notebooks --check  # whether their cells are those of the pages

A block of Python is a code cell, and the text between two blocks a cell of Markdown.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
TUTORIALS, NOTEBOOKS = DOCS / "tutorials", DOCS / "notebooks"
_BLOCK = re.compile(r"^```python\n(.*?)^```$\n?", re.M | re.S)
_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s]+)")


def cells_of(page: Path) -> list[tuple[str, str]]:
    """(`code` or `markdown`, text) in the page's order. Links lead from the notebooks' folder."""
    parts = _BLOCK.split(page.read_text(encoding="utf-8"))
    cells = []
    for i, part in enumerate(parts):
        text = part.strip("\n")
        if i % 2 == 0:
            text = _LINK.sub(lambda m: f"{m[1]}{_from_notebooks(m[2])}", text)
        if text.strip():
            cells.append(("code" if i % 2 else "markdown", text))
    return cells


def code_of(page: Path) -> list[str]:
    """The code cells of a page."""
    return [text for kind, text in cells_of(page) if kind == "code"]


def _from_notebooks(link: str) -> str:
    return link if link.startswith("../") else f"../tutorials/{link}"


def notebook(page: Path) -> dict[str, Any]:
    """The notebook of a page, in format 4.5, without outputs."""
    cells = []
    for number, (kind, text) in enumerate(cells_of(page)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"{page.stem}-{number}", "metadata": {}}
        cell["source"] = text.splitlines(keepends=True)
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def sources(content: dict[str, Any]) -> list[tuple[str, str]]:
    """(type, text) of a notebook's cells, to compare with `cells_of`."""
    return [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]


def pairs() -> list[tuple[Path, Path]]:
    """Each tutorial and its notebook."""
    return [(page, NOTEBOOKS / f"{page.stem}.ipynb") for page in sorted(TUTORIALS.glob("*.md"))]


def executed(content: dict[str, Any]) -> dict[str, Any]:
    """The notebook after a Jupyter kernel has run it in an empty folder. Raises nbclient's
    CellExecutionError where a cell fails."""
    import nbclient
    import nbformat

    node = nbformat.reads(json.dumps(content), as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(node, timeout=300, resources={"metadata": {"path": folder}}).execute()
    for cell in node.cells:
        cell.metadata.pop("execution", None)  # times of cells
    return json.loads(nbformat.writes(node))


def main(arguments: list[str]) -> int:
    """Write the notebooks, or with --check compare them. Returns the exit code."""
    different = 0
    for page, target in pairs():
        if "--check" in arguments:
            same = target.exists() and sources(json.loads(target.read_text())) == cells_of(page)
            if not same:
                print(f"{target.name} is out of date: run python -m docs.notebooks", file=sys.stderr)
            different += not same
        else:
            target.write_text(json.dumps(executed(notebook(page)), indent=1, ensure_ascii=False) + "\n")
            print(target)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
