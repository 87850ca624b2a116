"""Runs Python's collector of cyclic garbage less often while models are read and compiled.

A collection walks all objects that there are. Imports and graphs make tens of thousands that stay, and a
graph of thousands of layers hundreds of thousands. Collections come less often meanwhile, by the thresholds
`SELDOM`. At other times they have those of the program. What imports make stays for as long as the process
does: where modules were imported meanwhile, the new objects become old without being walked.
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
    """While a model is read or compiled, or modules are imported. Thresholds that the program sets meanwhile
    stay, and a collector that is off stays off."""
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
    """Put all objects with the oldest, which only a full collection walks: the next one of the young would
    take a tenth of the time of a first compilation, and find next to nothing. Where modules were imported,
    and not every time: garbage of compilations would be found late."""
    if not gc.get_freeze_count():  # else `unfreeze` would let go of what the program has frozen
        gc.freeze()
        gc.unfreeze()


def _in_child() -> None:
    """The threads that compile are the parent's."""
    global _compilations
    if _compilations:
        _compilations = 0
        _restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
