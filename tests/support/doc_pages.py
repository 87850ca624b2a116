"""What stands in the pages that people read: blocks of Python and of commands, and links.

Python blocks of a page run one after another as one program, or each as a program if they have a
`__main__`. What a page takes for granted stands beside it in a comment, `<!-- python`, which runs as well.
Commands are the lines of blocks marked `sh`.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tests.support import ROOT

PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    + [*(ROOT / "docs" / "tutorials").glob("*.md")]
)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$|^<!-- python\n(.*?)^-->$", re.M | re.S)
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """`language` as the page marks it; "hidden" for what stands in a comment."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text()
    return [
        Block("hidden", found[3], text.count("\n", 0, found.start()) + 1)
        if found[3] is not None
        else Block(found[1], found[2], text.count("\n", 0, found.start()) + 1)
        for found in _BLOCK.finditer(text)
    ]


def programs(page: Path) -> list[str]:
    """The page's Python as programs."""
    alone, together = [], []
    for block in blocks(page):
        if block.language not in ("python", "hidden"):
            continue
        if 'if __name__ == "__main__":' in block.text:
            alone.append(block.text)
        else:
            together.append(block.text)
    return (["\n".join(together)] if together else []) + alone


def commands(page: Path) -> list[str]:
    """The page's commands, continued lines put together, remarks left out."""
    out: list[str] = []
    for block in blocks(page):
        if block.language == "sh":
            text = block.text.replace("\\\n", " ")
            lines = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in text.splitlines())
            out += [line for line in lines if line]
    return out


def links(page: Path) -> list[str]:
    """Where the page's links go."""
    return _LINK.findall(re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S))


def module_of_docs(name: str) -> ModuleType:
    """`docs/NAME.py` as a module. Other packages may have a folder `docs` on the path, too."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
