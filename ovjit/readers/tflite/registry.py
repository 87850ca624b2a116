"""Which function reads which operator: rows keyed by the schema's name of a builtin operator."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

#: The modules with the rows, one for each family of operators.
FAMILIES = ("control", "convolution", "elementwise", "image", "indexing", "linear", "reduce", "tensor")

#: Reads one operator: takes a `LiteNode`, returns its outputs (one, or a list in the operator's order).
Rule = Callable[[Any], Any]

_ROWS: dict[str, Rule] = {}


def tflite_op(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: the function reads these operators."""

    def decorate(rule: Rule) -> Rule:
        for name in names:
            _ROWS[name] = rule
        return rule

    return decorate


@cache
def _load() -> None:
    for family in FAMILIES:
        importlib.import_module(f"ovjit.readers.tflite.{family}")


def find_rule(name: str) -> Rule | None:
    """The function that reads an operator, None if there is none."""
    _load()
    return _ROWS.get(name)


def known_operators() -> Sequence[str]:
    """The names of all operators that have a row."""
    _load()
    return sorted(_ROWS)
