"""Runs Python's cyclic garbage collector less often while models are read and compiled.

A collection traverses all objects. Imports and graphs make tens of thousands of permanent objects, and a
graph of thousands of layers hundreds of thousands. Meanwhile the thresholds are `SELDOM`; at other times they
are those of the program. Objects that imports make live as long as the process. So if modules were imported,
the new objects are moved to the oldest generation without a traversal.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

from ovjit.forks import ForkLock

#: Objects that are made between two collections of the young; of those between two of the older.
SELDOM = (100_000, 20, 50)

_lock = ForkLock("collector")
_compilations = 0  # at this moment
_before = (0, 0, 0)
_modules = 0  # that there were before


@contextlib.contextmanager
def seldom() -> Iterator[None]:
    """A context in which collections are rare: a model is read or compiled, or modules are imported.
    Thresholds that the program sets meanwhile are kept, and a disabled collector stays disabled."""
    global _compilations, _before, _modules
    with _lock.lock:
        _compilations += 1
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
        gc.unfreeze()


def _in_child() -> None:
    """The parent's threads, which compile, do not exist in a child."""
    global _compilations
    if _compilations:
        _compilations = 0
        _restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
