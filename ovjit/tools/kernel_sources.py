"""The sources of all modules with kernels or code generators, for installations without `.py` files.

A wheel gets `ovjit/data/texts.xz` when it is built (`.ci/stubs.py`); `python -m ovjit.tools.ship --texts`
writes it into the package. `ovjit.codegen.module_texts` reads it.
"""

from __future__ import annotations

import re
from pathlib import Path

from ovjit.codegen import module_texts

#: Decorators that make a function a kernel, or a part of one.
_DECORATED = re.compile(r"^\s*@(kernel|inline|routine|rows)\b", re.MULTILINE)


def collect_sources() -> dict[str, str]:
    """module -> source, for all modules that have kernels or generate machine code."""
    top = Path(__file__).parents[2]
    sources = {}
    for path in sorted((*top.glob("ovjit/**/*.py"), *top.glob("ovjit_ops/**/*.py"))):
        name = ".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text(encoding="utf-8")
        if name.startswith(module_texts.GENERATORS) or _DECORATED.search(text):
            sources[name] = text
    return sources


def write_sources(folder: Path) -> Path:
    """Write the current sources to a file in `folder`, and return its path."""
    path = folder / module_texts.FILE
    path.write_bytes(module_texts.pack(collect_sources()))
    return path
