"""The index of operations and their modules, so that a program imports only the modules that it uses.

The index is made from the registry when all modules have been imported. It is kept next to Python's bytecode
of `ovjit_ops`, for one state of its files (`source_files`). ovjit also ships an index, which is valid for
one digest of the sources (`source_digests`): `python -m ovjit.tools.ship --texts`. Without an index, all
modules are imported.

Other packages may have operations too (`ovjit.plugins`). They are imported before the first lookup.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ovjit.plugins import load_others
from ovjit.records import NamedTuple
from ovjit.source_digests import package_digest
from ovjit.source_files import keep, package_data, read_kept

PACKAGE, NAME = "ovjit_ops", "operations_index"
FILE = "operations_index.json"


class Index(NamedTuple):
    """`modules`: operation -> modules of its versions. `rules`: module with rewrite rules -> operations of
    which a graph must have one for the rules to apply; none: any graph."""

    modules: dict[str, list[str]]
    rules: dict[str, list[str]]


def read_index() -> Index | None:
    """The index for the current files; None if there is none."""
    fields = read_kept(PACKAGE, NAME)
    return Index(*fields) if fields is not None else _shipped_index()


def _shipped_index() -> Index | None:
    """The shipped index, if it is valid for the current files."""
    import json  # imported late: not needed with a kept index

    try:
        result = json.loads(package_data(FILE))
        if result["sources"] == package_digest(PACKAGE):
            keep(PACKAGE, NAME, [result["modules"], result["rules"]])
            return Index(result["modules"], result["rules"])
    except (OSError, ImportError, ValueError, LookupError, AttributeError, TypeError):
        pass  # the program was packaged without this file, or with another one
    return None


def shipped_content(records: Iterable[Any]) -> bytes:
    """The content of the shipped index for `records`, which must be all."""
    import json

    index = make_index(records)
    result = {"sources": package_digest(PACKAGE), "modules": index.modules, "rules": index.rules}
    return json.dumps(result, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def write_index(records: Iterable[Any]) -> None:
    """Write the index of `records`, which must be all."""
    keep(PACKAGE, NAME, list(make_index(records)))


def make_index(records: Iterable[Any]) -> Index:
    """The index of these records, without those of other packages."""
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
    """Import all packages with the entry point `ovjit.ops`."""
    load_others("ovjit.ops", PACKAGE)
