"""Keys of printed sources in their cache (`ovjit.codegen.texts`).

A key has the constants of a kernel's function, and the plain values that it reads from its module. Functions
with constants of other types, or defined outside of a module's file, have no key. They are printed each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.texts import PACKAGES, Place, place_of

_PLAIN = frozenset((bool, int, float, str, type(None), Body))
#: function -> the names that its code, and that of functions within it, reads from other scopes. The names
#: stay, their values may change.
_names: dict[Callable[..., Any], tuple[str, ...]] = {}


def find_entry(function: Callable[..., Any], constants: Mapping[str, Any], *others: Any) -> Place | None:
    """The place of a function's printed source in the cache; None if it is not cached. `others`: further
    values that determine the source."""
    if function.__module__.partition(".")[0] not in PACKAGES or function.__closure__:
        return None
    if not _is_plain((*constants.values(), *others)):
        return None
    return place_of(
        function.__module__, function.__qualname__, sorted(constants.items()), others,
        sorted(_find_plain_values(function, set())),
    )  # fmt: skip


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _find_plain_values(function: Callable[..., Any], visited: set[Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (function, name, value) for the plain values that a function, and the inline functions that it
    calls, read from their modules. A program may have changed them."""
    if function in visited:
        return
    visited.add(function)
    values = function.__globals__
    for name in _names.get(function) or _names.setdefault(function, _names_in(function.__code__)):
        value = values.get(name)
        if value is None:
            continue
        if _is_plain(value):
            yield function.__qualname__, name, repr(value)
        inline = getattr(value, "inlined", None)
        if inline is not None:
            yield from _find_plain_values(inline, visited)


def _names_in(code: CodeType) -> tuple[str, ...]:
    names: list[str] = []
    waiting = [code]
    while waiting:
        code = waiting.pop()
        waiting += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
        names += code.co_names
    return tuple(names)
