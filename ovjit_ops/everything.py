"""Importing this module fills the registry of `ovjit.graph.op` with all operations."""

import importlib
import pkgutil

import ovjit_ops

#: The packages of families, in alphabetical order.
FAMILIES = tuple(m.name for m in pkgutil.iter_modules(ovjit_ops.__path__) if m.ispkg and m.name != "common")

#: True after all imports. It may be read while this module is being imported.
done = False

for _family in FAMILIES:
    _package = importlib.import_module(f"{ovjit_ops.__name__}.{_family}")
    for _module in pkgutil.iter_modules(_package.__path__):
        if not _module.name.startswith("cpu_"):
            importlib.import_module(f"{_package.__name__}.{_module.name}")

done = True
