"""Memory blocks for threads that lead jobs, and for large results.

The system clears fresh pages. In a virtual machine it may also have to request them from its host. This can
take longer than the computation. So large blocks are mapped in pages of 2 MiB where these are cheaper. They
keep their pages when they grow, and are reused when the arrays in them are freed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import mmap
import sys
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.control_groups import memory_left
from ovjit.planning.constants import aligned_bytes

#: Arenas from this size on are mapped in pages of 2 MiB, which the system may clear at once.
HUGE_PAGE = 2 << 20
#: Nanoseconds of a thread for a large page that are too many: clearing it takes a tenth, its 512 small pages
#: half of that.
DEAR_PAGE = 2_000_000
#: Arrays from so many bytes on lie in blocks that are lent, which takes 3 us: as 393 kB are copied in 10,
#: smaller ones do not. A block is not lent for less than a part of its size.
LARGE, MOST_UNUSED = 1 << 20, 4
#: The same for values of variables that grow, which are there for many inferences.
LARGE_STATE = 64 << 10
#: What Linux takes for the wish to have pages at once, which costs two thirds of having them one by one.
_POPULATE = 23
#: What grows by more asks first whether the control group leaves so much, in a fraction of its pages' time.
LOOKED_AT = 16 << 20
#: What a group is left for all else.
_SPARE = 4 << 20
#: What grows by less does so by small pages: a dear large one takes longer than they all.
WORTH_LARGE = 32 << 20
#: Free blocks beside the largest one keep at most this many bytes, or twice the largest one's bytes up to the
#: second number.
KEPT = 24 << 20, 64 << 20
#: Memory that is made ready before any shape is known is no more.
MOST_PREPARED = 64 << 20
#: Whether mappings of memory can grow where they are, or move with their pages.
REMAPS = sys.platform == "linux" and hasattr(mmap, "MADV_HUGEPAGE")


class Arena:
    """Aligned memory. Grows, never shrinks; use touches its pages.

    Where the system can, a large arena grows by mapping more pages: those that have been touched stay, and
    only the new ones cost a page fault each.
    """

    __slots__ = ("address", "memory", "ready", "size")

    #: Whether large pages have turned out to be dear: then arenas grow by small ones.
    large_are_dear = False

    def __init__(self, size: int = 0, unit: int = HUGE_PAGE):
        self.address = self.size = 0
        #: Of a mapping, how many bytes have their pages, or have been asked for.
        self.ready = 0
        self.memory: np.ndarray | mmap.mmap | None = None
        self.reserve(size, unit)

    def reserve(self, size: int, unit: int = HUGE_PAGE) -> None:
        """Make it `size` bytes at least, a multiple of `unit` if it is larger than that, and have the pages
        of these bytes. What it held is undefined then. Raises MemoryError."""
        if size <= self.size:
            return
        if size - self.ready >= LOOKED_AT:
            _check_limit(size, size - self.ready)
        if size >= unit and REMAPS:
            self._map(-(-size // unit) * unit, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
            return
        self.memory = None  # let go before asking again
        self.address = self.size = 0  # should there not be that much, this is an arena of nothing
        memory = np.empty(size + 64, np.uint8)
        self.address = (memory.ctypes.data + 63) // 64 * 64
        self.memory, self.size = memory, size

    def _map(self, size: int, used: int) -> None:
        memory, self.memory = self.memory, None
        begin = self.ready if isinstance(memory, mmap.mmap) else 0
        self.address = self.size = 0
        try:
            if isinstance(memory, mmap.mmap):
                memory.resize(size)
            else:
                memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError, ValueError) as error:
            raise MemoryError(f"an arena of {size} bytes: {error}") from error
        self.address = np.frombuffer(memory, np.uint8).ctypes.data
        self.memory, self.size, self.ready = memory, size, used
        large = not begin or size - begin >= WORTH_LARGE
        # all of it is advised alike: the system grows a mapping only if it is of one kind
        _advise(memory, mmap.MADV_HUGEPAGE if large and not Arena.large_are_dear else mmap.MADV_NOHUGEPAGE)
        if large:
            self._touch(memory, begin)
        _advise(memory, _POPULATE, begin, used - begin)
        if not Arena.large_are_dear:  # the system may join small pages later, when it has time
            _advise(memory, mmap.MADV_HUGEPAGE)

    def _touch(self, memory: mmap.mmap, begin: int) -> None:
        """Have the system clear large pages from `begin` on, while it has free ones. If a virtual machine
        must request each page from its host, or move other pages, they take longer than small pages. Small
        ones are reused soon after others have freed them."""
        first = begin + -(self.address + begin) % HUGE_PAGE
        for page in range(first, self.size - HUGE_PAGE + 1, HUGE_PAGE):
            if Arena.large_are_dear:
                break
            began = time.thread_time_ns()
            memory[page] = 0
            if time.thread_time_ns() - began > DEAR_PAGE:
                Arena.large_are_dear = True
                _advise(memory, mmap.MADV_NOHUGEPAGE)  # those that are there stay


def _check_limit(size: int, more: int) -> None:
    """Raises MemoryError where the control group leaves no room, for which it would end the process."""
    for last in (False, True):
        left = memory_left()
        if left is None or more <= left - _SPARE:
            return
        if not last:
            release_arenas()
    raise MemoryError(f"an arena of {size} bytes: the limit of this process's control group leaves {left}")


def _advise(memory: mmap.mmap, *advice: int) -> None:
    """Tell the system, which may have no large pages, or be too old to be asked for any at once."""
    with contextlib.suppress(OSError):
        memory.madvise(*advice)


@functools.lru_cache(32)
def _lease(size: int) -> Any:
    """The type of what an array that lies in a block of so many bytes has as its base: without array or view
    of it, the block is free."""
    return type("Lease", (ctypes.c_ubyte * size,), {"arena": None, "__del__": _give_back})


def _give_back(lease: Any) -> None:
    # None where the interpreter is ending; the set itself counts its members in Python
    if users is not None and users.data and lease.arena is not None:  # type: ignore[attr-defined]
        give(lease.arena)


#: The models that there are. Where there is none any more, blocks go back to the system.
users: weakref.WeakSet[Any] = weakref.WeakSet()


#: Free blocks, the last one returned at the end. A thread takes one in one atomic operation, since arrays may
#: be freed at any time, in any thread.
free_blocks: list[Arena] = []


def give(arena: Arena) -> None:
    """Let others have the block."""
    free_blocks.append(arena)
    while len(free_blocks) > 1 and sum([block.size for block in free_blocks]) > KEPT[0]:
        *others, largest = sorted(free_blocks, key=lambda block: block.size) or [arena]
        if sum(block.size for block in others) <= max(KEPT[0], min(2 * largest.size, KEPT[1])):
            return
        with contextlib.suppress(ValueError, StopIteration):  # another thread was quicker
            free_blocks.remove(next(block for block in free_blocks if block is not largest))


def _taken(size: int) -> Arena:
    """A block of `size` bytes: the smallest free one that fits, or the largest of those that can grow to it.

    The search begins at the last one, which fits as a rule. When results are copied the caches are full of
    them, and each further block takes four times as long to inspect."""
    try:
        arena = free_blocks.pop()
    except IndexError:
        return Arena(size, mmap.PAGESIZE)
    if size <= arena.size < size + mmap.PAGESIZE:
        return arena
    free_blocks.append(arena)
    while True:
        blocks = free_blocks[::-1]  # what was used last is in caches
        fitting = [b for b in blocks if size <= b.size <= max(MOST_UNUSED * size, HUGE_PAGE)]
        growing = [b for b in blocks if b.size < size]
        if not fitting and not growing:
            return Arena(size, mmap.PAGESIZE)
        arena = min(fitting, key=lambda b: b.size) if fitting else max(growing, key=lambda b: b.size)
        try:
            free_blocks.remove(arena)
        except ValueError:
            continue  # another thread was quicker
        arena.reserve(size, mmap.PAGESIZE)
        return arena


def lent(size: int, shape: Sequence[int] = (), dtype: Any = np.uint8) -> np.ndarray:
    """`size` bytes at an address that is a multiple of 64, from a block that is freed with the last
    reference. They are an array of `shape`, if one is given."""
    arena = _taken(size)
    lease = _lease(arena.size).from_address(arena.address)
    lease.arena = arena
    return np.ndarray(shape or (size,), dtype, lease)


def new_array(shape: Sequence[int], dtype: np.dtype, large: int = LARGE) -> np.ndarray:
    """An array whose memory is aligned for vectors, from `large` bytes on in a block."""
    if dtype.hasobject:
        return np.full(shape, b"", dtype)  # strings
    size = math.prod(shape) * dtype.itemsize
    return lent(size, shape, dtype) if size >= large else aligned_bytes(size).view(dtype).reshape(shape)


def copied(array: np.ndarray) -> np.ndarray:
    """A row-major copy of results for the caller."""
    if array.nbytes < LARGE or array.dtype.hasobject:
        return array.copy()
    copy = lent(array.nbytes, array.shape, array.dtype)
    np.copyto(copy, array)
    return copy


#: Arenas of callers that run inferences on their own thread, free ones.
free_arenas: list[Arena] = []


def taken_arena() -> Arena:
    """One of them, for this thread alone, or a new one."""
    try:
        return free_arenas.pop()
    except IndexError:
        return Arena()


def release_arenas() -> None:
    """Return unused memory to the system."""
    free_arenas.clear()
    free_blocks.clear()


def prepare(working: int, arrays: Sequence[int], states: Sequence[int]) -> None:
    """Have free memory of these sizes, with its pages: an arena, and blocks for `arrays` and `states` that
    grow, where they are large."""
    large = [size for size in arrays if size >= LARGE] + [size for size in states if size >= LARGE_STATE]
    with contextlib.suppress(MemoryError):
        if working + sum(large) <= MOST_PREPARED:
            arena = taken_arena()
            arena.reserve(working, mmap.PAGESIZE)
            free_arenas.append(arena)
            _ = [lent(size) for size in large]  # at a time
