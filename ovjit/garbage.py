"""Short garbage collections while much is made that stays, or that nobody else can hold."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ovjit.forks import ForkLock

#: An interpreter may have frozen so many objects of its own.
_FROZEN_AT_START = 10_000
#: So many new objects set off a collection inside of a block, where 700 do else: few of them are garbage.
_SELDOM = 50_000
#: Asking for frozen objects counts them, 30 ms for 300,000. Where there are many, the next question waits for
#: so many times what the last one took.
_REST = 1000


class _State:
    """Threads inside of `short_collections`, whether older objects are frozen for them, how many of them want
    no collection at all, whether one of them has left cycles, and what set off collections before; whether
    the process froze objects itself when that was last asked, and when it may be asked again."""

    inside = 0
    frozen = False
    still = 0
    cycles = False
    thresholds = (0, 0, 0)
    theirs = False
    ask_at = 0.0


_lock = ForkLock()


def _frozen_by_others() -> bool:
    """Whether the process uses `gc.freeze` itself, a while ago at the longest."""
    now = time.perf_counter()
    if now >= _State.ask_at:
        _State.theirs = gc.get_freeze_count() >= _FROZEN_AT_START
        _State.ask_at = now + _REST * (time.perf_counter() - now) if _State.theirs else 0.0
    return _State.theirs


@contextmanager
def short_collections(cycles: bool = False, lasting: bool = False) -> Iterator[None]:
    """Keep what was alive before out of the garbage collections that this block sets off, which are few.
    `cycles`: it leaves many objects in cycles, which are collected at its end and not before. `lasting`: what
    it makes stays, and nothing is collected; where no other block is around it, it is old at the end.

    Full collections look at every object of the process, 0.1 s each with the GIL held; without the older ones
    they take 0.01 s. Compiling a kernel leaves some 30,000 objects in cycles. A process that uses
    `gc.freeze` itself is left as it is.
    """
    with _lock.lock:
        if _State.inside == 0 and gc.isenabled() and not _frozen_by_others():
            gc.freeze()
            _State.frozen = True
            _State.thresholds = gc.get_threshold()
            if _State.thresholds[0]:
                gc.set_threshold(_SELDOM, *_State.thresholds[1:])
        _State.inside += 1
        still = _State.frozen and (cycles or lasting)
        if still:
            _State.still += 1
            gc.disable()
    try:
        yield
    finally:
        with _lock.lock:
            _State.inside -= 1
            _State.cycles |= cycles
            if still:
                _State.still -= 1
            if _State.frozen and _State.still == 0:
                if still:
                    gc.enable()
                if _State.cycles:
                    gc.collect(0)  # what was made since: nothing else is young
                    _State.cycles = False
            if _State.inside == 0 and _State.frozen:
                if gc.get_threshold()[0] == _SELDOM:
                    gc.set_threshold(*_State.thresholds)
                if lasting:
                    gc.freeze()  # and old by the next line, before a collection of the young
                gc.unfreeze()
                _State.frozen = False
