"""Tables of a reader: which function reads which operator."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

#: The folder of rules that few models need; it may be missing.
CONTRIBUTED = "numerics_contrib"

#: Reads one operator: takes the node that is being read, returns its outputs (one, or a list in their order).
Rule = Callable[[Any], Any]


class RuleTable:
    """The rules of the reader `ovjit.readers.<reader>`, whose modules `families` register them by `reads`."""

    def __init__(self, reader: str, families: Sequence[str]):
        self._reader, self._families = reader, families
        self._rules: dict[str, Rule] = {}
        self._loaded = False

    def reads(self, *names: str) -> Callable[[Rule], Rule]:
        """Decorator: registers the function as the rule of these operators."""

        def decorate(rule: Rule) -> Rule:
            self._rules.update(dict.fromkeys(names, rule))
            return rule

        return decorate

    def read(self, rules: Mapping[str, Rule]) -> None:
        """Register the functions in a dict of operator names."""
        self._rules.update(rules)

    def find(self, name: str) -> Rule | None:
        """The rule of an operator, None without one."""
        self._load()
        return self._rules.get(name)

    def list_names(self) -> Sequence[str]:
        """The names of the operators with a rule, sorted."""
        self._load()
        return sorted(self._rules)

    def _load(self) -> None:
        if not self._loaded:
            for family in self._families:
                importlib.import_module(f"ovjit.readers.{self._reader}.{family}")
            load_contributed(self._reader)
            self._loaded = True


@cache
def load_contributed(reader: str) -> None:
    """Import the rules that the folder `CONTRIBUTED`, if it is there, has for a reader."""
    for module in getattr(import_contributed(CONTRIBUTED), "RULES", {}).get(reader, ()):
        importlib.import_module(f"ovjit.readers.{CONTRIBUTED}.{module}")


def import_contributed(folder: str) -> Any:
    """The package of a folder of readers that may be missing; None then."""
    try:
        return importlib.import_module(f"ovjit.readers.{folder}")
    except ModuleNotFoundError as error:
        if error.name == f"ovjit.readers.{folder}":
            return None
        raise
