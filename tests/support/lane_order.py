"""The order between the lanes of a warp: a kernel in the interpreter whose lanes may run in any order between
two barriers.

On a card the threads of a warp are ordered by barriers alone. `Ordered` is `CardWords` that note, for each
byte, the lane that stored it and the lanes that loaded it since the last barrier. It raises `Unordered` if
a lane loads what another one has stored, or stores what another one has loaded or stored, without a barrier
between. So a kernel that runs has the same results for every order of its lanes.

Warps of one block, or of one launch, are ordered by their meetings in the same way.

The accesses and barriers of each word are those of its code in `ovjit.codegen.gpu.words`: `st` has barriers
on both sides, shuffles order no memory. Sources are those of `with_barriers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ovjit.codegen.gpu.barriers import BARRIER
from ovjit.codegen.memory import SIZE
from ovjit.execution.numpy_words import Memory
from tests.support import warp_meanings
from tests.support.card_words import CardWords

_NOBODY, _SEVERAL = -1, -2


class Unordered(Exception):
    """Two lanes access a byte, one of them stores it, and no barrier is between."""


class Shadow:
    """For each byte of a piece of memory: the lanes that stored and loaded it, and when, in barriers."""

    def __init__(self, start: int, size: int):
        self.start, self.stop = start, start + size
        self.stored, self.loaded = (np.full(size, _NOBODY, np.int16) for _ in range(2))
        self.stored_at, self.loaded_at = (np.full(size, -1, np.int64) for _ in range(2))


class Ordered(CardWords):
    """Words that check the order of their accesses to memory."""

    def __init__(self, lanes: int, memory: Memory):
        super().__init__(lanes, memory)
        self.now = 0  # barriers so far
        self.shadows = [Shadow(start, stop - start) for start, stop, _ in memory.pieces]
        shared = memory.__dict__.setdefault("of_warps", [])
        if not shared:
            shared += [Shadow(start, stop - start) for start, stop, _ in memory.pieces]
        self.shadows_of_warps = shared

    def __missing__(self, name: str) -> Any:
        if name == BARRIER:
            self[name] = self.meet
            return self.meet
        run = super().__missing__(name)
        word, _, elem = name.rpartition("_")
        if name == "ld":
            access: Any = lambda p, i: self._all(p + i * 8, 8)  # noqa: E731
        elif elem in SIZE and word in _ACCESSES:
            access = _ACCESSES[word](self, SIZE[elem])
        else:
            return run

        def checked(*arguments: Any) -> Any:
            access(*arguments)
            return run(*arguments)

        self[name] = checked
        return checked

    def meet(self) -> None:
        """A barrier of the warp."""
        self.now += 1
        warp_meanings.barrier(self)

    def _note(self, shadows: list[Shadow], now: int, who: int, address: int, size: int, stores: bool) -> None:
        """Lane or warp `who` loads or stores bytes after barrier `now`; _SEVERAL: all lanes do."""
        shadow = next((s for s in shadows if s.start <= address < s.stop), None)
        if shadow is None:
            raise Unordered(f"no memory at {address:#x}")  # the access itself is an error
        span = slice(address - shadow.start, address - shadow.start + size)
        kinds = [("stored", shadow.stored[span], shadow.stored_at[span])]
        if stores:
            kinds.append(("loaded", shadow.loaded[span], shadow.loaded_at[span]))
        for what, others, when in kinds:
            fresh = (when == now) & (others != who)
            if fresh.any():
                raise Unordered(
                    f"{who} {'stores' if stores else 'loads'} what lane or warp {others[fresh][0]} has {what}"
                )
        if stores:
            shadow.stored[span], shadow.stored_at[span] = who, now
        else:
            old = shadow.loaded_at[span] != now
            shadow.loaded[span] = np.where(old | (shadow.loaded[span] == who), who, _SEVERAL)
            shadow.loaded_at[span] = now

    def _access(self, lane: int, address: int, size: int, stores: bool) -> None:
        self._note(self.shadows, self.now, lane, address, size, stores)
        block = getattr(self, "block", None)
        if block is not None:
            self._note(self.shadows_of_warps, block.meetings, self.warp, address, size, stores)

    def load(self, lane: int, address: int, size: int) -> None:
        """Lane `lane` loads bytes; _SEVERAL: all lanes do."""
        self._access(lane, address, size, False)

    def store(self, lane: int, address: int, size: int) -> None:
        """Lane `lane` stores bytes."""
        self._access(lane, address, size, True)

    def _all(self, address: int, size: int) -> None:
        self.load(_SEVERAL, address, size)

    def each(self, access: Callable[[int, int, int], None], p: int, step: int, size: int, n: int) -> None:
        for lane in range(max(0, min(n, self.lanes))):
            access(lane, p + lane * step, size)

    def scalar(self, p: int, size: int) -> None:
        """`st`: barriers before and after the first lane stores."""
        self.meet()
        self.store(0, p, size)
        self.meet()


#: Word -> the accesses of its code, given the words and the bytes of an element.
_ACCESSES: dict[str, Callable[[Ordered, int], Callable[..., None]]] = {
    "load": lambda w, s: lambda p: w.each(w.load, p, s, s, w.lanes),
    "evens": lambda w, s: lambda p: w.each(w.load, p, 2 * s, s, w.lanes),
    "thirds": lambda w, s: lambda p: w.each(w.load, p, 3 * s, s, w.lanes),
    "loadm": lambda w, s: lambda p, n: w.each(w.load, p, s, s, n),
    "gather": lambda w, s: lambda p, step, n: w.each(w.load, p, step, s, n),
    "strided": lambda w, s: lambda p, step, n: w.each(w.load, p, step, s, n),
    "take": lambda w, s: (
        lambda p, index: [w.load(lane, p + int(i) * s, s) for lane, i in enumerate(index.tolist())]
    ),
    "splat": lambda w, s: lambda p: w.load(_SEVERAL, p, s),
    "ld": lambda w, s: lambda p: w.load(_SEVERAL, p, s),
    "store": lambda w, s: lambda p, v: w.each(w.store, p, s, s, w.lanes),
    "storem": lambda w, s: lambda p, v, n: w.each(w.store, p, s, s, n),
    "scatter": lambda w, s: lambda p, step, v, n: w.each(w.store, p, step, s, n),
    "strided_store": lambda w, s: lambda p, step, v, n: w.each(w.store, p, step, s, n),
    "st": lambda w, s: lambda p, x: w.scalar(p, s),
}
