"""Which modules have which operations, so that a program imports only those that it uses.

The index is made of the registry when everything has been imported, and kept beside Python's own bytecode
of `ovjit_ops` for one state of its files (`source_files`). One comes with ovjit, for files of the sizes that
they had when it was made: `python -m ovjit.tools.ship --texts`. Where there is none, everything is imported.

Other packages may have operations too (`ovjit.plugins`). They are imported before the first look into the
registry.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from ovjit.hashes import sha256
from ovjit.plugins import import_others
from ovjit.records import NamedTuple
from ovjit.source_files import keep, package_data, read_kept, source_files

PACKAGE, NAME = "ovjit_ops", "operations_index"
FILE = "operations_index.json"


class Index(NamedTuple):
    """name of an operation -> modules of its versions; module that brings rewrite rules -> the operations one
    of which a graph must have for them, none for any graph."""

    modules: dict[str, list[str]]
    rules: dict[str, list[str]]


def read_index() -> Index | None:
    """The index of the files as they are, None when there is none."""
    fields = read_kept(PACKAGE, NAME)
    return Index(*fields) if fields is not None else _shipped_index()


def _shipped_index() -> Index | None:
    """The index that came with ovjit, if it is of the files as they are."""
    import json  # where one has been kept, nothing needs it yet

    try:
        made = json.loads(package_data(FILE))
        if made["files"] == file_sizes():
            keep(PACKAGE, NAME, [made["modules"], made["rules"]])
            return Index(made["modules"], made["rules"])
    except (OSError, ImportError, ValueError, LookupError, AttributeError, TypeError):
        pass  # a program that leaves data out, or another's
    return None


def file_sizes() -> str:
    """A hash of the names and sizes of the sources; "" where they are not files of their own. Times are those
    of an installation."""
    found = source_files(PACKAGE) or []
    rows = [(path.replace(os.sep, "/"), size) for path, size, _ in found if path.endswith(".py")]
    return sha256(repr(rows).encode()).hexdigest() if len(rows) > 1 else ""


def shipped_content(records: Iterable[Any]) -> bytes:
    """What comes with ovjit, of these records, which are all there are."""
    import json

    index = make_index(records)
    made = {"files": file_sizes(), "modules": index.modules, "rules": index.rules}
    return json.dumps(made, separators=(",", ":"), sort_keys=True).encode() + b"\n"


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
    import_others("ovjit.ops", PACKAGE)
