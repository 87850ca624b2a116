"""Keys of printed sources in their cache (`ovjit.codegen.texts`).

A key has the constants of a kernel's function, and the plain values that it reads from its module. Functions
with constants of other types, or defined outside of a module's file, have no key. They are printed each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.texts import PACKAGES, Place, place_of

_PLAIN = frozenset((bool, int, float, str, type(None), Body))


class _Shown(str):
    """A text that is shown as it is."""

    __repr__ = str.__str__


#: function -> the values that it and the inline functions that it calls read from their modules, as (module,
#: name, value), and the plain ones as a text. The text is valid while all values are the same objects.
_read: dict[Callable[..., Any], tuple[list[tuple[Any, str, Any]], _Shown]] = {}


def find_entry(function: Callable[..., Any], constants: Mapping[str, Any], *others: Any) -> Place | None:
    """The place of a function's printed source in the cache; None if it is not cached. `others`: further
    values that determine the source."""
    if function.__module__.partition(".")[0] not in PACKAGES or function.__closure__:
        return None
    if not _is_plain((*constants.values(), *others)):
        return None
    return place_of(
        function.__module__, function.__qualname__, sorted(constants.items()), others,
        _show_plain_values(function),
    )  # fmt: skip


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _show_plain_values(function: Callable[..., Any]) -> _Shown:
    """(function, name, value) for the plain values that a function, and the inline functions that it calls,
    read from their modules. A program may have changed them."""
    cached = _read.get(function)
    if cached is not None and all(module.get(name) is value for module, name, value in cached[0]):
        return cached[1]
    read, plain = list[tuple[Any, str, Any]](), list[tuple[str, str, str]]()
    visited, waiting = set[Any](), [function]
    while waiting:
        if (inner := waiting.pop()) in visited:
            continue
        visited.add(inner)
        module = inner.__globals__
        for name in _names_in(inner.__code__):
            value = module.get(name)
            read.append((module, name, value))
            if value is not None and _is_plain(value):
                plain.append((inner.__qualname__, name, repr(value)))
            if hasattr(value, "inlined"):
                waiting.append(value.inlined)  # type: ignore[union-attr]
    shown = _Shown(sorted(plain))
    _read[function] = read, shown
    return shown


def _names_in(code: CodeType) -> tuple[str, ...]:
    names: list[str] = []
    waiting = [code]
    while waiting:
        code = waiting.pop()
        waiting += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
        names += code.co_names
    return tuple(names)
