"""Packages that are linked to OpenVINO's own library, while ovjit has the name openvino.

Some packages that need openvino are native: their modules load `libopenvino`, which a pure Python package
does not have. The system's loader then speaks of a file that cannot be opened, or a package of versions that
do not fit. What is said here in place of that is known by the modules themselves: by what they are linked to.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from ovjit.disk.notice import warn_once
from ovjit.errors import UnsupportedError

#: What the files of modules and libraries have in them that are linked to OpenVINO's.
_LINKED = (b"libopenvino.", b"@rpath/libopenvino", b"openvino.dll")

#: Native extensions that the program has requested, in order.
refusals: dict[str, None] = {}


class NativeLibraryMissing(ImportError, UnsupportedError):
    """A module is linked to OpenVINO's native library, which ovjit does not have."""


class _Loader(ExtensionFileLoader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        try:
            return super().create_module(spec)
        except ImportError as error:
            if not is_linked(self.path):
                raise
            raise _missing(spec.name, self.path, error) from error


class _Finder(PathFinder):
    """Finds what Python's own finder of files does; extension modules get a loader that can explain."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is ExtensionFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """From now on imports of native modules tell when it is OpenVINO's library that they lack."""
    if _Finder in sys.meta_path:
        return
    indices = [i for i, finder in enumerate(sys.meta_path) if finder is PathFinder]
    sys.meta_path.insert(indices[0] if indices else len(sys.meta_path), _Finder)


def is_linked(path: str) -> bool:
    """Whether a library's file names OpenVINO's own as one that it needs."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(name) >= 0 for name in _LINKED)
    except (OSError, ValueError):
        return False


def is_tokenizers(path: Any) -> bool:
    """Whether a path is that of the library of openvino_tokenizers, whose operations ovjit has
    (`ovjit_ops.text`). The file itself is not needed."""
    return os.path.basename(os.fspath(path)).removeprefix("lib").partition(".")[0] == "openvino_tokenizers"


def refuse_native(path: Any) -> UnsupportedError:
    """The error of an extension that is a native library. Packages catch it and go on without their
    operations, so it is said in the log, too, once for each library."""
    library = os.fspath(path)
    refusals[library] = None
    message = (
        f"Cannot add extension {library!r}: ovjit loads no native libraries; write the operation as a Python "
        "class derived from Op, or register it (docs/adding_an_op.md)"
    )
    if is_linked(library):
        package = os.path.basename(os.path.dirname(library).removesuffix(f"{os.sep}lib"))
        text = (
            f"{library} is linked to OpenVINO's native library, which ovjit does not have: the operations "
            f"of {package} are not available, and reinstalling it does not help. They need the real "
            "openvino, in a separate environment"
        )
        warn_once(f"native {library}", text)
    return UnsupportedError(message)


def _missing(module: str, path: str, error: ImportError) -> NativeLibraryMissing:
    package = module.partition(".")[0]
    return NativeLibraryMissing(
        f"{module} is linked to OpenVINO's native library, but openvino is ovjit here, which has no "
        f"native library: {package} needs the real openvino, in a separate environment ({error})",
        name=module, path=path,
    )  # fmt: skip
