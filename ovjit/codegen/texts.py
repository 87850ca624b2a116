"""Texts that functions were printed as, kept in the kernel cache: to print one takes longer than all else
that a start does with a kernel which is there.

A text is good for one state of the sources of `ovjit` and `ovjit_ops`, as the index of operations is
(`ovjit.graph.op_index`), and for what else its name says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ovjit.disk.cache import default_cache
from ovjit.hashes import sha256
from ovjit.source_files import package_state

PACKAGES = ("ovjit", "ovjit_ops")

#: text, (name, whether it is a pointer) of the arguments, name -> (table, whether it begins there)
Printed = tuple[str, list[tuple[str, bool]], dict[str, tuple[str, bool]]]


def place_of(*parts: Any) -> str | None:
    """The name for what these parts, and the state of all sources, decide; None where that is not known."""
    state = package_state(*PACKAGES)
    return None if state is None else "printed_" + sha256(repr((state, *parts)).encode()).hexdigest()[:40]


def kept(name: str | None, title: str, make: Callable[[], Printed]) -> Printed:
    """What is kept under a name, else what `make` prints of `title`, kept from then on if it has a name."""
    content = None if name is None else default_cache().get(name)
    if content is not None:
        text, fields, tables = json.loads(content)
        pairs = [(field, is_pointer) for field, is_pointer in fields]  # JSON has lists alone
        return text, pairs, {field: (table, begins) for field, (table, begins) in tables.items()}
    made = make()
    if name is not None:
        default_cache().put(name, json.dumps(made).encode(), {"name": f"the text of {title}"})
    return made
