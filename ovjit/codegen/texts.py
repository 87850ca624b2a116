"""The cache of printed sources: function and constants -> the kernel's source.

Printing a kernel takes longer than loading its object code. So sources are kept in the kernel cache, and
those of common kernels are shipped. A key covers the function, its constants, and the state of all files of
`ovjit` and `ovjit_ops` (as for the index of operations, `ovjit.graph.op_index`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ovjit.codegen import shipped
from ovjit.codegen.cpu.host import host_target
from ovjit.disk.kernel_cache import default_cache
from ovjit.hashes import sha256
from ovjit.records import NamedTuple
from ovjit.source_files import package_state

PACKAGES = ("ovjit", "ovjit_ops")

#: source, (name, whether it is a pointer) of the arguments, name -> (table, whether it is the table's first)
Printed = tuple[str, list[tuple[str, bool]], dict[str, tuple[str, bool]]]


class Place(NamedTuple):
    """The keys of a printed source: `name` in the cache, for the present state of the files; `key` among
    shipped sources, whose file has one digest of all files."""

    name: str
    key: str


#: key -> content, while `ovjit.tools.ship` collects sources to ship, else None.
recorded: dict[str, bytes] | None = None
#: (folder of the cache, name) -> source read by this process, as equal layers have equal sources.
_read: dict[tuple[str | None, str], Printed] = {}
_MOST_READ = 4096


def place_of(*parts: Any) -> Place | None:
    """The place of a source that these parts and the files determine; None if the files' state is unknown."""
    state = package_state(*PACKAGES)
    if state is None:
        return None
    key = sha256(repr(parts).encode()).hexdigest()[:40]
    return Place("printed_" + sha256(f"{state} {key}".encode()).hexdigest()[:40], key)


def find_or_print(entry: Place | None, title: str, make: Callable[[], Printed]) -> Printed:
    """The shipped source, else the cached one, else the source that `make` prints, which is then cached if it
    has a place. `title`: its name in the cache."""
    if entry is None:
        return make()
    address = default_cache().path, entry.name
    printed = _read.get(address) if recorded is None else None
    if printed is None:
        printed = _look_up(entry, title, make)
        if len(_read) >= _MOST_READ:
            _read.clear()
        _read[address] = printed
    return printed


def _look_up(entry: Place, title: str, make: Callable[[], Printed]) -> Printed:
    content = shipped.find(entry.key, host_target(), "printed") if recorded is None else None
    if content is None:
        content = default_cache().get(entry.name)
    if content is None:
        content = json.dumps(make()).encode()
        default_cache().write(entry.name, content, {"name": f"the text of {title}"})
    if recorded is not None:
        recorded[entry.key] = content
    text, fields, tables = json.loads(content)
    pairs = [(field, is_pointer) for field, is_pointer in fields]  # JSON only has lists
    return text, pairs, {field: (table, begins) for field, (table, begins) in tables.items()}
