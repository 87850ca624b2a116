"""Which modules have which operations, so that a program imports only those that it uses.

The index is made of the registry when everything has been imported, and kept beside Python's own bytecode
of `ovjit_ops`, with the same trust. It is good for one state of the package's files: what differs in a name,
size or time makes it void, and everything is imported, as it is where there is none.

Other packages may have operations too (entry-point group `ovjit.ops`). They are imported before the first
look into the registry, and looked for in a tenth of the time that importlib.metadata takes.
"""

from __future__ import annotations

import importlib
import importlib.util
import marshal
import os
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from ovjit.source_files import source_files

PACKAGE = "ovjit_ops"


class Index(NamedTuple):
    """name of an operation -> modules of its versions; module that brings rewrite rules -> the operations one
    of which a graph must have for them, none for any graph."""

    modules: dict[str, list[str]]
    rules: dict[str, list[str]]


def _place() -> str | None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.origin or not os.path.isfile(spec.origin):
        return None  # in a zip archive, say
    try:
        return importlib.util.cache_from_source(
            os.path.join(os.path.dirname(spec.origin), "operations_index.py")
        )
    except NotImplementedError:
        return None


def _state() -> list[Any]:
    """What the index depends on: every source file of the package."""
    return [sys.version, source_files(PACKAGE)]


def read_index() -> Index | None:
    """The index of the files as they are, None when there is none."""
    place = _place()
    if place is None:
        return None
    try:
        with open(place, "rb") as file:
            state, *fields = marshal.loads(file.read())
        return Index(*fields) if state == _state() else None
    except (OSError, ValueError, EOFError, TypeError):
        return None


def write_index(records: Iterable[Any]) -> None:
    """Keep the index of these records, which are all there are."""
    place = _place()
    if place is None or sys.dont_write_bytecode:
        return
    draft = f"{place}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(draft, "wb") as file:
            file.write(marshal.dumps([_state(), *make_index(records)]))
        os.replace(draft, place)
    except OSError:
        return  # a folder that nobody may write to: everything is imported each time


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
