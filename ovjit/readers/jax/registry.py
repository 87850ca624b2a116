"""Which function reads which primitive of JAX."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

#: The modules with the rows, one for each family of primitives.
FAMILIES = ("control", "elementwise", "indexing", "linear", "shapes", "windows")

#: Reads one equation: takes a `JaxNode`, returns its outputs (one, or a list).
Rule = Callable[[Any], Any]

_ROWS: dict[str, Rule] = {}


def primitive(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: the function reads these primitives."""

    def decorate(rule: Rule) -> Rule:
        for name in names:
            _ROWS[name] = rule
        return rule

    return decorate


@cache
def _load() -> None:
    for family in FAMILIES:
        importlib.import_module(f"ovjit.readers.jax.{family}")


def find_rule(name: str) -> Rule | None:
    """The function that reads a primitive, None if there is none."""
    _load()
    return _ROWS.get(name)


def known_primitives() -> Sequence[str]:
    """The names of all primitives that have a row."""
    _load()
    return sorted(_ROWS)
