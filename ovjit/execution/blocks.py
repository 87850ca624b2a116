"""Recycled memory: arenas of threads that lead jobs, and blocks of large results.

The system clears fresh pages. In a virtual machine it may also have to request them from its host. This can
take longer than the computation. So large blocks are mapped in pages of 2 MiB where these are cheaper. A
block keeps its pages when it grows, and is reused when the arrays in it are freed.
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

#: Bytes of a large page. Arenas from this size on are mapped in large pages.
HUGE_PAGE = 2 << 20
#: Nanoseconds of thread time above which a large page counts as expensive. Clearing one normally takes a
#: tenth of this, and its 512 small pages half of it.
DEAR_PAGE = 2_000_000
#: Minimum bytes of an array in a recycled block. A block takes 3 us to lend, and copying 393 kB takes 10 us,
#: so smaller arrays do not gain. A block has at most MOST_UNUSED times the requested size.
LARGE, MOST_UNUSED = 1 << 20, 4
#: Minimum bytes for values of growing variables, which live for many inferences.
LARGE_STATE = 64 << 10
#: MADV_POPULATE_WRITE of Linux. It takes two thirds of the time of one fault per page.
_POPULATE = 23
#: Minimum bytes of growth for which the control group's limit is checked. The check takes a fraction of the
#: time of the page faults.
LOOKED_AT = 16 << 20
#: Bytes of the control group's limit that stay free for other memory.
_SPARE = 4 << 20
#: Minimum bytes of growth in large pages. One expensive large page takes longer than fewer small ones.
WORTH_LARGE = 32 << 20
#: Limits of the total bytes of free blocks, without the largest: the first number, or twice the largest
#: block's bytes up to the second number.
KEPT = 24 << 20, 64 << 20
#: Maximum bytes that `prepare` allocates before an inference.
MOST_PREPARED = 64 << 20
#: Whether memory mappings can grow in place, or move with their pages.
REMAPS = sys.platform == "linux" and hasattr(mmap, "MADV_HUGEPAGE")


class Arena:
    """Aligned memory that grows and never shrinks.

    If REMAPS, a large arena grows by mapping more pages. Existing pages are kept, and only new ones fault.
    """

    __slots__ = ("address", "memory", "ready", "size")

    #: Whether a large page took longer than DEAR_PAGE in this process. Arenas then grow by small pages.
    large_are_dear = False

    def __init__(self, size: int = 0, unit: int = HUGE_PAGE):
        self.address = self.size = 0
        #: Bytes of a mapping that have been populated, or requested.
        self.ready = 0
        self.memory: np.ndarray | mmap.mmap | None = None
        self.reserve(size, unit)

    def reserve(self, size: int, unit: int = HUGE_PAGE) -> None:
        """Grow to at least `size` bytes, with their pages. From `unit` bytes on, the size is rounded up to a
        multiple of `unit`. The content is undefined afterwards. Raises MemoryError."""
        if size <= self.size:
            return
        if size - self.ready >= LOOKED_AT:
            _check_limit(size, size - self.ready)
        if size >= unit and REMAPS:
            self._map(-(-size // unit) * unit, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
            return
        self.size = self.address = self.ready = 0  # a valid empty arena if the allocation fails
        self.memory = None  # frees the old memory before new is allocated
        memory = np.empty(size + 64, np.uint8)
        self.address = (memory.ctypes.data + 63) // 64 * 64
        self.memory = memory
        self.size = size  # last: it makes the arena valid

    def _map(self, size: int, used: int) -> None:
        self.size = self.address = 0
        memory, self.memory = self.memory, None
        begin, self.ready = self.ready if isinstance(memory, mmap.mmap) else 0, 0
        try:
            if isinstance(memory, mmap.mmap):
                memory.resize(size)
            else:
                memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError, ValueError) as error:
            raise MemoryError(f"cannot allocate an arena of {size} bytes: {error}") from error
        self.address = np.frombuffer(memory, np.uint8).ctypes.data
        self.memory, self.ready = memory, used
        self.size = size  # last: it makes the arena valid
        large = not begin or size - begin >= WORTH_LARGE
        # the same advice for the whole mapping: the system only grows a mapping of one kind
        _advise(memory, mmap.MADV_HUGEPAGE if large and not Arena.large_are_dear else mmap.MADV_NOHUGEPAGE)
        if large:
            self._touch(memory, begin)
        _advise(memory, _POPULATE, begin, used - begin)
        if not Arena.large_are_dear:  # lets the system merge small pages later
            _advise(memory, mmap.MADV_HUGEPAGE)

    def _touch(self, memory: mmap.mmap, begin: int) -> None:
        """Touch each large page from offset `begin` on, and stop using large pages once one is expensive.
        They are expensive if a virtual machine must request them from its host, or if the system must move
        other pages. Small pages are often available from recent frees."""
        first = begin + -(self.address + begin) % HUGE_PAGE
        for page in range(first, self.size - HUGE_PAGE + 1, HUGE_PAGE):
            if Arena.large_are_dear:
                break
            start = time.thread_time_ns()
            memory[page] = 0
            if time.thread_time_ns() - start > DEAR_PAGE:
                Arena.large_are_dear = True
                _advise(memory, mmap.MADV_NOHUGEPAGE)  # existing large pages stay


def _check_limit(size: int, more: int) -> None:
    """Raise MemoryError if `more` bytes exceed the control group's limit: the system would kill the
    process."""
    for last in (False, True):
        available = memory_left()
        if available is None or more <= available - _SPARE:
            return
        if not last:
            release_arenas()
    raise MemoryError(
        f"cannot allocate an arena of {size} bytes: the memory limit of this process's "
        f"control group leaves {available} bytes"
    )


def _advise(memory: mmap.mmap, *advice: int) -> None:
    """`madvise`, ignoring advice that the system does not support."""
    with contextlib.suppress(OSError):
        memory.madvise(*advice)


@functools.lru_cache(32)
def _lease(size: int) -> Any:
    """The type of the base object of an array in a block of `size` bytes. It returns the block to the free
    list when the last view is gone."""
    return type("Lease", (ctypes.c_ubyte * size,), {"arena": None, "__del__": _give_back})


def _give_back(lease: Any) -> None:
    # `users` is None at interpreter exit; `users.data` avoids the slow `WeakSet.__len__`
    if users is not None and users.data and lease.arena is not None:  # type: ignore[attr-defined]
        give(lease.arena)


#: Live compiled models. Without any, freed blocks are returned to the system.
users: weakref.WeakSet[Any] = weakref.WeakSet()


#: Free blocks, most recently freed last. All operations on the list are atomic, since arrays may be freed at
#: any time, in any thread.
free_blocks: list[Arena] = []


def give(arena: Arena) -> None:
    """Add a block to the free list, and drop free blocks beyond the limits of KEPT."""
    free_blocks.append(arena)
    while len(free_blocks) > 1 and sum([block.size for block in free_blocks]) > KEPT[0]:
        *others, largest = sorted(free_blocks, key=lambda block: block.size) or [arena]
        if sum(block.size for block in others) <= max(KEPT[0], min(2 * largest.size, KEPT[1])):
            return
        with contextlib.suppress(ValueError, StopIteration):  # another thread has taken it
            free_blocks.remove(next(block for block in free_blocks if block is not largest))


def _take_block(size: int) -> Arena:
    """A block of at least `size` bytes: the smallest free one that fits, else the largest free one, grown.

    The most recently freed block is tried first, and usually fits. After a copy of results, the caches hold
    those, and inspecting each further block takes four times as long."""
    try:
        arena = free_blocks.pop()
    except IndexError:
        return Arena(size, mmap.PAGESIZE)
    if size <= arena.size < size + mmap.PAGESIZE:
        return arena
    free_blocks.append(arena)
    while True:
        blocks = free_blocks[::-1]  # the most recently used one may still be in caches
        fitting = [b for b in blocks if size <= b.size <= max(MOST_UNUSED * size, HUGE_PAGE)]
        growing = [b for b in blocks if b.size < size]
        if not fitting and not growing:
            return Arena(size, mmap.PAGESIZE)
        arena = min(fitting, key=lambda b: b.size) if fitting else max(growing, key=lambda b: b.size)
        try:
            free_blocks.remove(arena)
        except ValueError:
            continue  # another thread has taken it
        arena.reserve(size, mmap.PAGESIZE)
        return arena


def lent(size: int, shape: Sequence[int] = (), dtype: Any = np.uint8) -> np.ndarray:
    """An array in a recycled block of `size` bytes, at a multiple of 64: of `shape` if given, else of bytes.
    The block is freed with the last reference."""
    arena = _take_block(size)
    lease = _lease(arena.size).from_address(arena.address)
    lease.arena = arena
    return np.ndarray(shape or (size,), dtype, lease)


def new_array(shape: Sequence[int], dtype: np.dtype, large: int = LARGE) -> np.ndarray:
    """A vector-aligned, uninitialised array. From `large` bytes on it is in a recycled block."""
    if dtype.hasobject:
        return np.full(shape, b"", dtype)  # strings
    size = math.prod(shape) * dtype.itemsize
    return lent(size, shape, dtype) if size >= large else aligned_bytes(size).view(dtype).reshape(shape)


def copy_results(array: np.ndarray) -> np.ndarray:
    """A row-major copy of results for the caller."""
    if array.nbytes < LARGE or array.dtype.hasobject:
        return array.copy()
    copy = lent(array.nbytes, array.shape, array.dtype)
    np.copyto(copy, array)
    return copy


#: Free arenas, for callers that run inferences on their own threads.
free_arenas: list[Arena] = []


def take_arena(size: int = 0) -> Arena:
    """A free arena of at least `size` bytes for exclusive use, or a new one. Raises MemoryError."""
    try:
        arena = free_arenas.pop()
    except IndexError:
        arena = Arena()
    if arena.size < size:
        arena.reserve(size)
    return arena


def release_arenas() -> None:
    """Return unused memory to the system."""
    free_arenas.clear()
    free_blocks.clear()


def prepare(working: int, arrays: Sequence[int], states: Sequence[int]) -> None:
    """Allocate and free an arena of `working` bytes, and blocks for large `arrays` and growing `states`, so
    that their pages exist. Sizes are in bytes."""
    large = [size for size in arrays if size >= LARGE] + [size for size in states if size >= LARGE_STATE]
    with contextlib.suppress(MemoryError):
        if working + sum(large) <= MOST_PREPARED:
            arena = take_arena()
            arena.reserve(working, mmap.PAGESIZE)
            free_arenas.append(arena)
            _ = [lent(size) for size in large]  # all alive at once, so that they are distinct blocks
