"""Runs Python's cyclic garbage collector less often while models are read and compiled.

A collection traverses all objects. Imports and graphs make tens of thousands of permanent objects, and a
graph of thousands of layers hundreds of thousands. Meanwhile the thresholds are `SELDOM`; at other times they
are those of the program. Objects that imports make live as long as the process. So if modules were imported,
the new objects are moved to the oldest generation without a traversal. Before a program has objects of its
own, they leave the collector for good: the end of a process traverses all others four times.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType

from ovjit.forks import ForkLock

#: Objects that are made between two collections of the young; of those between two of the older.
SELDOM = (300_000, 20, 50)

#: A folder of installed packages in a path.
_PACKAGES = re.compile(r"[/\\](site|dist)-packages[/\\]")
#: Packages with functions that run while modules are imported.
_IMPORTERS = ("ovjit", "importlib", "contextlib", "runpy")

_lock = ForkLock("collector")
_compilations = 0  # at this moment
_before = (0, 0, 0)
_modules = 0  # that there were before
_imports_only = True  # of all of them


@contextlib.contextmanager
def seldom(imports_only: bool = False) -> Iterator[None]:
    """A context in which collections are rare: a model is read or compiled, or modules are imported.
    Thresholds that the program sets meanwhile are kept, and a disabled collector stays disabled."""
    global _compilations, _before, _modules, _imports_only
    with _lock.lock:
        _compilations += 1
        _imports_only = imports_only and (_imports_only or _compilations == 1)
        if _compilations == 1:
            _before, _modules = gc.get_threshold(), len(sys.modules)
            if 0 < _before[0] < SELDOM[0]:
                gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        with _lock.lock:
            _compilations = max(0, _compilations - 1)
            if not _compilations:
                _restore()


def _restore() -> None:
    if gc.get_threshold() == SELDOM:
        if len(sys.modules) != _modules:
            _make_old()
        gc.set_threshold(*_before)


def _make_old() -> None:
    """Move all objects to the oldest generation, which only a full collection traverses. The next young
    collection would take a tenth of the time of a first compilation and free almost nothing. This is only
    done after imports, since otherwise garbage of compilations would be freed late."""
    if not gc.get_freeze_count():  # else `unfreeze` would let go of what the program has frozen
        gc.freeze()
        if not (_imports_only and _is_before_program()):
            gc.unfreeze()


def _is_before_program() -> bool:
    """Whether a program has only imported installed packages yet. Frozen cycles are not finalised, so a file
    in one of the program's would lose what it has not written."""
    main = sys.modules["__main__"]
    folder = os.path.dirname(__file__)
    trusted = (os.path.dirname(os.__file__) + os.sep, folder + os.sep, f"{folder}_ops{os.sep}")
    modules = [module for module in list(sys.modules.values()) if module is not main]
    files = [getattr(module, "__file__", None) or __file__ for module in modules]
    return (
        all(name[:2] == "__" or _is_imported(value) for name, value in main.__dict__.items())
        and all(file.startswith(trusted) or _PACKAGES.search(file) for file in files)
        and all(map(_is_importing, sys._current_frames().values()))
    )


def _is_imported(value: object) -> bool:
    """Whether a value in the program's module is a constant, or comes from another module."""
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return value.__module__ != "__main__"
    return value is None or isinstance(value, (ModuleType, str, int, float, type(annotations)))


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a thread executes modules, and no function of theirs."""
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if frame.f_code.co_name != "<module>" and package not in _IMPORTERS:
            return False
        frame = frame.f_back
    return True


def _in_child() -> None:
    """The parent's threads, which compile, do not exist in a child."""
    global _compilations
    if _compilations:
        _compilations = 0
        _restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
