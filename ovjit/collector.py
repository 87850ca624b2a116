"""Python's collector of cyclic garbage while models are read and compiled.

A collection walks all objects that there are. Imports and graphs make tens of thousands that stay, and a
graph of thousands of layers hundreds of thousands. Collections come less often meanwhile, by the thresholds
`SELDOM`. At other times they have those of the program.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

from ovjit.forks import ForkLock

#: Objects that are made between two collections of the young; of those between two of the older.
SELDOM = (50_000, 20, 50)

_lock = ForkLock("collector")
_compilations = 0  # at this moment
_before = (0, 0, 0)


@contextlib.contextmanager
def seldom() -> Iterator[None]:
    """While a model is read or compiled. Thresholds that the program sets meanwhile stay, and a collector
    that is off stays off."""
    global _compilations, _before
    with _lock.lock:
        _compilations += 1
        if _compilations == 1:
            _before = gc.get_threshold()
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
        gc.set_threshold(*_before)


def _in_child() -> None:
    """The threads that compile are the parent's."""
    global _compilations
    if _compilations:
        _compilations = 0
        _restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
