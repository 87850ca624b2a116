"""Modules under other names: `ovjit.opset8` is `ovjit.compat.opset8`, `openvino.runtime` is `ovjit.runtime`.

The same module object stands under both names, so nothing is loaded twice and classes are the same.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Alias:
    """Finds modules below some names as those below others.

    It looks before Python's own finders do: by the path of an aliased package they would load its modules a
    second time. It has the methods that `importlib.abc` asks of finders and loaders, without the import.
    """

    def __init__(self, names: Mapping[str, str], itself: bool):
        self.names = names  # name -> the package or module that it stands for
        self.itself = itself  # the names themselves are aliases, not only what is below them
        self._real_specs: dict[str, Any] = {}

    def real(self, fullname: str) -> str:
        """The name that `fullname` is an alias for, "" if it is none."""
        name = fullname
        while name:
            target = self.names.get(name)
            if target is not None:
                return target + fullname[len(name) :] if self.itself or name != fullname else ""
            name = name.rpartition(".")[0]
        return ""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec under which the module is imported, None for what this alias is not about."""
        real = self.real(fullname)
        spec = _spec(real) if real else None
        if spec is None:
            return None
        loader: Any = self
        return ModuleSpec(fullname, loader, is_package=spec.submodule_search_locations is not None)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, imported under its own name."""
        module = importlib.import_module(self.real(spec.name))
        self._real_specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to run: the module gets back its own spec, which has just been replaced."""
        alias = module.__spec__
        if alias is not None:
            module.__spec__ = self._real_specs.pop(alias.name)

    def _ask(self, method: str, fullname: str) -> Any:
        real = self.real(fullname)
        spec = _spec(real)
        if spec is None or spec.loader is None:
            raise ImportError(f"no source code is available for {fullname!r}", name=fullname)
        return getattr(spec.loader, method)(real)

    # what `python -m` and tracebacks ask a loader for

    def get_code(self, fullname: str) -> Any:
        """The code of the module that the name stands for."""
        return self._ask("get_code", fullname)

    def get_source(self, fullname: str) -> str | None:
        """The text of the module that the name stands for."""
        return self._ask("get_source", fullname)

    def get_filename(self, fullname: str) -> str:
        """The file of the module that the name stands for."""
        return self._ask("get_filename", fullname)

    def is_package(self, fullname: str) -> bool:
        """Whether the module that the name stands for is a package."""
        return self._ask("is_package", fullname)


def _spec(name: str) -> ModuleSpec | None:
    from importlib.util import find_spec

    try:
        return find_spec(name)
    except ModuleNotFoundError:
        return None


def install(prefix: str, target: str) -> None:
    """Let every submodule of `target` be importable below `prefix` too. Does nothing the second time."""
    _add({prefix: target}, itself=False)


def install_names(names: Mapping[str, str]) -> None:
    """Make each module, and its submodules, importable by a second name: {name: module}."""
    _add(names, itself=True)


def _add(names: Mapping[str, str], itself: bool) -> None:
    for finder in sys.meta_path:
        if isinstance(finder, Alias) and finder.names == names:
            return
    alias: Any = Alias(names, itself)
    sys.meta_path.insert(0, alias)
