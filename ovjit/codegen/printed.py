"""Texts of kernels that functions were printed as, kept in the kernel cache: to print one
takes longer than all else that a start does with a kernel which is there.

A text is good for one state of the sources of `ovjit` and `ovjit_ops`, as the index of operations is
(`ovjit.graph.op_index`), for the constants that the function was given, and for the plain values that it
finds in its module. What has other constants, or stands elsewhere, is printed each time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any

from ovjit import debug
from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.cpu.isa import extra_features, host_isa
from ovjit.hashes import sha256
from ovjit.source_files import package_state

_PACKAGES = ("ovjit", "ovjit_ops")
_PLAIN = (bool, int, float, str, type(None))

#: text, (name, whether it is a pointer) of the arguments, name -> (table, whether it begins there)
Printed = tuple[str, list[tuple[str, bool]], dict[str, tuple[str, bool]]]


def place(function: Callable[..., Any], constants: Mapping[str, Any], *given: Any) -> str | None:
    """The name under which what is printed of a function is kept, `given` what else decides it; None where
    it is not kept."""
    if function.__module__.partition(".")[0] not in _PACKAGES or function.__closure__:
        return None
    if not _is_plain((*constants.values(), *given)):
        return None
    isa = host_isa()
    return place_of(
        function.__module__, function.__qualname__, sorted(constants.items()), given,
        sorted(_found(function, set())), isa.name, extra_features(isa), debug.program_flags(),
    )  # fmt: skip


def place_of(*parts: Any) -> str | None:
    """The name for what these parts, and the state of all sources, decide; None where that is not known."""
    state = package_state(*_PACKAGES)
    return None if state is None else "printed_" + sha256(repr((state, *parts)).encode()).hexdigest()[:40]


def kept(name: str | None, title: str, make: Callable[[], Printed]) -> Printed:
    """What is kept under a name, else what `make` prints of `title`, kept from then on if it has a name."""
    from ovjit.storage.cache import default_cache

    content = None if name is None else default_cache().get(name)
    if content is not None:
        text, fields, tables = json.loads(content)
        pairs = [(field, is_pointer) for field, is_pointer in fields]  # JSON has lists alone
        return text, pairs, {field: (table, begins) for field, (table, begins) in tables.items()}
    made = make()
    if name is not None:
        default_cache().put(name, json.dumps(made).encode(), {"name": f"the text of {title}"})
    return made


def _is_plain(value: Any) -> bool:
    return type(value) in (*_PLAIN, Body) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _found(function: Callable[..., Any], seen: set[Any]) -> Iterator[tuple[str, str, str]]:
    """(function, name, value) of the plain values that a function, and the inline functions that it calls,
    find in their modules: somebody may have set them to others."""
    if function in seen:
        return
    seen.add(function)
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        waiting += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
        for name in code.co_names:
            value = function.__globals__.get(name)
            if value is not None and _is_plain(value):
                yield function.__qualname__, name, repr(value)
            inline = getattr(value, "inlined", None)
            if inline is not None:
                yield from _found(inline, seen)
