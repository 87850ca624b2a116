"""Registry of the functions that convert PyTorch operators, by operator name with or without overload."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from ovjit.readers.rows import load_contributed
from ovjit.readers.torch.choices import check_choices

#: The modules with the rows, one for each family of operators.
FAMILIES = (
    "attention", "complex", "complex_parts", "create", "elementwise",
    "fourier", "gradients", "indexing", "linalg", "lists", "losses", "nn",
    "norm", "numbers", "pooling", "quant", "quantized", "random", "recurrent", "reduce", "resize",
    "scatter", "sequences", "shapes", "sorting", "special", "vision",
)  # fmt: skip

#: Reads one operator: `rule(call, first argument, named arguments)` returns its outputs.
Rule = Callable[..., Any]


class Row:
    """A rule, and the operator's arguments that it takes by name."""

    def __init__(self, rule: Rule):
        self.rule = rule
        named = list(inspect.signature(rule).parameters.values())[2:]
        self.names = [p.name for p in named]
        #: Whether it takes all arguments, as one does that needs one of a name that Python keeps for itself.
        self.all = any(p.kind is p.VAR_KEYWORD for p in named)

    def __call__(self, call: Any, arguments: Mapping[str, Any]) -> Any:
        """Apply the rule. Raises ModelError for an argument that is not one of its choices."""
        check_choices(call.op, arguments)
        first = next(iter(arguments.values()), None)
        if self.all:
            return self.rule(call, first, **dict(list(arguments.items())[1:]))
        options = {name: arguments[name] for name in self.names if name in arguments}
        return self.rule(call, first, **options)


_ROWS: dict[str, Row] = {}
_CHANGES: dict[str, Callable[[Rule], Rule]] = {}


def aten(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: the function reads these operators.

    Its first argument is the call, its second the operator's first argument; all others have the names of the
    operator's schema. "add" is aten::add with all its overloads, "max.dim" one overload of aten::max, and
    "torchvision::nms" an operator of another library.
    """

    def decorate(rule: Rule) -> Rule:
        row = Row(rule)
        for name in names:
            _ROWS[name if "::" in name else f"aten::{name}"] = row
        return rule

    return decorate


def aten_rows(rules: Mapping[str, Rule]) -> None:
    """Register functions by the names of the operators that they read, blanks between them."""
    for names, rule in rules.items():
        aten(*names.split())(rule)


def changed_later(name: str, change: Callable[[Rule], Rule]) -> None:
    """Replace an operator's rule by `change(rule)` once all families are imported."""
    _CHANGES[name] = change


@cache
def _load() -> None:
    for family in FAMILIES:
        importlib.import_module(f"ovjit.readers.torch.operators.{family}")
    load_contributed("torch")
    for name, change in _CHANGES.items():
        _ROWS[name] = Row(change(_ROWS[name].rule))


def find_rule(name: str, overload: str) -> Row | None:
    """The row of an operator such as ("aten::max", "dim"), None if there is none."""
    _load()
    if overload and (row := _ROWS.get(f"{name}.{overload}")) is not None:
        return row
    return _ROWS.get(name)


def known_operators() -> Sequence[str]:
    """The names of all operators that have a row."""
    _load()
    return sorted(_ROWS)
