"""Short garbage collections while much is made that stays, or that nobody else can hold."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from ovjit.forks import ForkLock

#: An interpreter may have frozen so many objects of its own.
_FROZEN_AT_START = 10_000


class _State:
    """Threads inside of `short_collections`, whether older objects are frozen for them, and whether one of
    them leaves cycles."""

    inside = 0
    frozen = False
    cycles = False


_lock = ForkLock()


@contextmanager
def short_collections(cycles: bool = False, lasting: bool = False) -> Iterator[None]:
    """Keep what was alive before out of the garbage collections that this block sets off. `cycles`: it leaves
    many objects in cycles, which are collected at its end and not before. `lasting`: what it makes stays, and
    nothing is collected.

    Full collections look at every object of the process, 0.1 s each with the GIL held; without the older ones
    they take 0.01 s. Compiling a kernel leaves some 30,000 objects in cycles. A process that uses
    `gc.freeze` itself is left as it is.
    """
    with _lock.lock:
        if _State.inside == 0 and gc.isenabled() and gc.get_freeze_count() < _FROZEN_AT_START:
            gc.freeze()
            _State.frozen = True
            if cycles or lasting:
                gc.disable()
        _State.inside += 1
    try:
        yield
    finally:
        with _lock.lock:
            _State.inside -= 1
            _State.cycles |= cycles
            if _State.inside == 0 and _State.frozen:
                gc.enable()
                if _State.cycles:
                    gc.collect()
                gc.unfreeze()
                _State.frozen = _State.cycles = False
