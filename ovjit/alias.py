"""One package under another's name: `import openvino.runtime.opset8` that gives `ovjit.opset8` itself."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class _Alias(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `prefix.x.y` as the module `target.x.y`: the same object, not a second copy."""

    def __init__(self, prefix: str, target: str):
        self.prefix = prefix + "."
        self.target = target + "."

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(self.prefix):
            return None
        real = self.target + fullname[len(self.prefix) :]
        try:
            found = importlib.util.find_spec(real)
        except ModuleNotFoundError:
            return None
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.target + spec.name[len(self.prefix) :])
        self._own: dict[str, Any] = {**getattr(self, "_own", {}), spec.name: module.__spec__}
        return module

    def exec_module(self, module: ModuleType) -> None:
        # the import system has just written the alias's spec into the module, which has run long ago
        alias = module.__spec__
        if alias is not None:
            module.__spec__ = self._own.pop(alias.name)

    def _loader(self, fullname: str) -> Any:
        real = self.target + fullname[len(self.prefix) :]
        spec = importlib.util.find_spec(real)
        if spec is None or spec.loader is None:
            raise ImportError(f"there is no code of {fullname!r}", name=fullname)
        return spec.loader, real

    # what `python -m` and tracebacks ask a loader for

    def get_code(self, fullname: str) -> Any:
        """The code of the module that the name stands for."""
        loader, real = self._loader(fullname)
        return loader.get_code(real)

    def get_source(self, fullname: str) -> str | None:
        """The text of the module that the name stands for."""
        loader, real = self._loader(fullname)
        return loader.get_source(real)

    def get_filename(self, fullname: str) -> str:
        """The file of the module that the name stands for."""
        loader, real = self._loader(fullname)
        return loader.get_filename(real)

    def is_package(self, fullname: str) -> bool:
        """Whether the module that the name stands for is a package."""
        loader, real = self._loader(fullname)
        return loader.is_package(real)


def install(prefix: str, target: str) -> None:
    """Let every submodule of `target` be importable below `prefix` too. Does nothing the second time."""
    for finder in sys.meta_path:
        if isinstance(finder, _Alias) and (finder.prefix, finder.target) == (prefix + ".", target + "."):
            return
    sys.meta_path.insert(0, _Alias(prefix, target))
