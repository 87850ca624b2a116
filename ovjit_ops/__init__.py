"""The operations: what each one is and how it runs, one class or row per operation, in folders by family.

Importing this package fills the registry of `ovjit.graph.op`: every module of a family is imported, but for
those that only say how something runs (`cpu_*.py`), which records import when they need them, and `common`,
which registers nothing. A new file is found by itself. Nothing here imports Numba.
"""

from __future__ import annotations

import importlib
import pkgutil

#: The families, in the order of `ls`.
FAMILIES = tuple(m.name for m in pkgutil.iter_modules(__path__) if m.ispkg and m.name != "common")

for _family in FAMILIES:
    _package = importlib.import_module(f"{__name__}.{_family}")
    for _module in pkgutil.iter_modules(_package.__path__):
        if not _module.name.startswith("cpu_"):
            importlib.import_module(f"{_package.__name__}.{_module.name}")
