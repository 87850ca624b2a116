"""Which modules have which operations, so that a program imports only those that it uses.

The index is made of the registry when everything has been imported, and kept beside Python's own bytecode
of `ovjit_ops` for one state of its files (`source_files`). Where there is none, everything is imported.

Other packages may have operations too (entry-point group `ovjit.ops`). They are imported before the first
look into the registry, and looked for in a tenth of the time that importlib.metadata takes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from ovjit.source_files import keep, read_kept

PACKAGE, NAME = "ovjit_ops", "operations_index"


class Index(NamedTuple):
    """name of an operation -> modules of its versions; module that brings rewrite rules -> the operations one
    of which a graph must have for them, none for any graph."""

    modules: dict[str, list[str]]
    rules: dict[str, list[str]]


def read_index() -> Index | None:
    """The index of the files as they are, None when there is none."""
    fields = read_kept(PACKAGE, NAME)
    return Index(*fields) if fields is not None else None


def write_index(records: Iterable[Any]) -> None:
    """Keep the index of these records, which are all there are."""
    keep(PACKAGE, NAME, list(make_index(records)))


def make_index(records: Iterable[Any]) -> Index:
    """The index of these records, each of which knows its module; those of other packages are left out."""
    modules: dict[str, list[str]] = {}
    rules: dict[str, set[str]] = {}
    always: set[str] = set()
    for record in records:
        if record.module.startswith(f"{PACKAGE}."):
            homes = modules.setdefault(record.name, [])
            if record.module not in homes:
                homes.append(record.module)
            if record.rules:
                rules.setdefault(record.module, set()).update(record.rules_for)
            if record.rules and not record.rules_for:
                always.add(record.module)
    return Index(modules, {m: [] if m in always else sorted(names) for m, names in sorted(rules.items())})


def import_other_packages() -> None:
    """Import every package that has operations of its own."""
    if not _others_announced():
        return
    from importlib.metadata import entry_points

    for entry in entry_points(group=_GROUP):
        if entry.value.partition(":")[0] != PACKAGE:
            entry.load()


_GROUP = "ovjit.ops"


def _others_announced() -> bool:
    """Whether the metadata of some distribution announces operations that are not ours; True where that is
    not simply in a folder."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except NotADirectoryError:
            return True
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as file:
                        text = file.read()
                except (OSError, ValueError):
                    continue
                if _GROUP in text and _announces(text):
                    return True
    return False


def _announces(text: str) -> bool:
    """Whether an `entry_points.txt` has operations of another package."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == _GROUP and "=" in line:
            if line.partition("=")[2].partition(":")[0].strip() != PACKAGE:
                return True
    return False
