"""Names of properties, declared by the values that they take."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from ovjit.api.run.property_values import Property

Check = Callable[[object], object]


def declare(module: str, prefix: str, rows: Mapping[Check | None, str]) -> Callable[[str], Property]:
    """Add properties to a module: {function that checks and converts a value: names}, None for those that can
    only be read.

    A name is that of the Python attribute; its key is the same in capitals, after `prefix`. `name=KEY` has
    another one. Returns the module's `__getattr__`, by which type checkers know the properties.
    """
    names = vars(sys.modules[module])
    for check, texts in rows.items():
        for name, _, key in (text.partition("=") for text in texts.split()):
            names[name] = Property(key or prefix + name.upper(), check)
            names["__all__"].append(name)

    def __getattr__(name: str) -> Property:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__
