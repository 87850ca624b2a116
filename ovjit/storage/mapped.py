"""Bytes of blobs in place: mapped files, and private copies of their pages.

Processes that map a file share its pages, and a process that writes to the file changes them. So tables that
kernels follow without a check are read from private pages. `pin` makes these before the content is
authenticated.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ovjit.file_maps import map_file

#: Smaller files are read: truncating a mapped file would kill the processes that use it.
SMALLEST_MAPPED = 1 << 20
ALIGNMENT = 64


class MappedFile(mmap.mmap):
    """A file's bytes, read-only. `pinned`: some pages are this process's own, and none are given back."""

    pinned = False


def read_file(path: str, use_mmap: bool) -> memoryview:
    """The file's bytes: mapped, and so shared with other processes, when it is large and `use_mmap`.

    Raises OSError. Truncating a mapped file kills the processes that use it.
    """
    descriptor = os.open(
        path,
        os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0),
    )
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file")
        if not use_mmap or status.st_size < SMALLEST_MAPPED:
            return memoryview(file.read())
        return memoryview(map_file(descriptor, kind=MappedFile))


def align(section: memoryview) -> np.ndarray:
    """The section's bytes at a multiple of 64: in place if that is one and the memory is read-only."""
    array = np.frombuffer(section, np.uint8)
    return array if section.readonly and array.ctypes.data % ALIGNMENT == 0 else own_copy(section)


def own_copy(section: memoryview) -> np.ndarray:
    """A copy of the bytes at a multiple of 64."""
    raw = np.empty(len(section) + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    copy = raw[start : start + len(section)]
    copy[:] = np.frombuffer(section, np.uint8)
    return copy


def pin(memory: np.ndarray, spans: Iterable[tuple[int, int]]) -> np.ndarray:
    """`memory`, protected from later changes of its file at `spans` (offset, size): these pages of a mapped
    file become private. If the system does not allow that, all of the memory is copied."""
    from ovjit.planning.constants import mapping_of

    home = mapping_of(memory)
    if not isinstance(home, MappedFile):
        return memory
    if not hasattr(mmap, "PROT_READ"):  # Windows
        return own_copy(memory.data)
    from ovjit.codegen.cpu.elf import protect

    begin, end = memory.ctypes.data, memory.ctypes.data + memory.nbytes
    try:
        for first, last in _pages(begin, end, spans):
            home.pinned = True
            protect(first, last - first, mmap.PROT_READ | mmap.PROT_WRITE)
            try:
                # from the page's address: the array is read-only, whatever the page allows
                there: Any = (ctypes.c_uint8 * (last - first)).from_address(first)
                pages = np.frombuffer(there, np.uint8)
                pages[:: mmap.PAGESIZE] = pages[:: mmap.PAGESIZE].copy()  # a write makes a page private
            finally:
                protect(first, last - first, mmap.PROT_READ)
    except OSError:
        return own_copy(memory.data)
    return memory


def _pages(begin: int, end: int, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield (first address, end address) of the pages of `spans` in the memory from `begin` to `end`.
    Adjacent pages are joined. Raises ValueError for a place outside of the memory."""
    first = last = 0
    for offset, size in sorted(spans):
        if not 0 <= offset <= offset + size <= end - begin:
            raise ValueError(f"{size} bytes at {offset} are outside of {end - begin} bytes")
        if not size:
            continue
        low = (begin + offset) // mmap.PAGESIZE * mmap.PAGESIZE
        high = -(-(begin + offset + size) // mmap.PAGESIZE) * mmap.PAGESIZE
        if low > last:
            if last > first:
                yield first, last
            first = low
        last = max(last, high)
    if last > first:
        yield first, last
