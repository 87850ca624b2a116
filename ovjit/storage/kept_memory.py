"""Constant memory in the file of a future cached model.

Weights that are packed into separate memory and then written to a file use twice as many pages. Fresh pages
are most of the cost of packing. So the file is created and mapped before the weights are packed into it. It
gets its name with the other parts of the blob, once that is known.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.cpu.elf import protect
from ovjit.disk.folders import draft_in, private_folder, write_parts
from ovjit.file_maps import map_file
from ovjit.storage.container import FIRST
from ovjit.storage.mapped import SMALLEST_MAPPED

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)


def large_pages(mapped: mmap.mmap) -> None:
    """Request large pages for a file. Without them, two threads that write to a new file took a page fault
    for each 4 KiB: 100,000 for BERT, a third of the CPU time of its compilation. Populating all pages at once
    (MADV_POPULATE_WRITE) took longer than these faults."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # the system has no large pages
            mapped.madvise(mmap.MADV_HUGEPAGE)


class KeptMemory:
    """The memory of one program's constants, in a file in `folder`. `has_room(size)` says whether it fits.
    The file is kept under a name, or removed when this object is dropped. The memory lives until its last
    reference."""

    def __init__(self, folder: str, has_room: Callable[[int], bool]):
        self.folder, self._has_room = folder, has_room
        self.memory: np.ndarray | None = None
        self._draft: str | None = None
        self._descriptor = -1
        self._buffer = np.empty(0, np.uint8)

    def give(self, size: int) -> np.ndarray | None:
        """Allocate `size` zero bytes at a multiple of 64. Works once. None if they cannot be allocated, or
        are too few for a mapping."""
        if self.memory is not None or size < SMALLEST_MAPPED or not hasattr(os, "posix_fallocate"):
            return None
        if not self._has_room(size):
            return None
        try:
            private_folder(self.folder, ours=False)
            draft = draft_in(self.folder)
            self._descriptor = os.open(draft, _CREATE, 0o600)
            self._draft = draft
            # allocate the disk's blocks now: a write to a mapped hole would fail on a full disk
            os.posix_fallocate(self._descriptor, 0, FIRST + size)
            mapped = map_file(self._descriptor, FIRST + size, writable=True)
            large_pages(mapped)
        except (OSError, ValueError):
            self.drop()
            return None
        self.memory = np.frombuffer(mapped, np.uint8)[FIRST:]
        return self.memory

    def is_memory(self, memory: np.ndarray) -> bool:
        """Whether `memory` is the one from `give`, and can be kept."""
        return self._draft is not None and memory is self.memory

    def read(self, offset: int, size: int) -> np.ndarray:
        """`size` bytes of the memory, valid until the next call. The read does not map further pages of the
        file into this process, since few rows of a table may ever be used. Raises OSError."""
        if self._buffer.size < size:
            self._buffer = np.empty(size, np.uint8)
        buffer = self._buffer[:size]
        if os.preadv(self._descriptor, [buffer.data], FIRST + offset) != size:
            raise OSError("the file has been truncated")
        return buffer

    def keep(self, path: str, before: Sequence[Any], after: Sequence[Any]) -> None:
        """Write the parts `before` the memory and those `after` it, and give the file its name. The memory
        is read-only afterwards. Raises OSError."""
        memory, draft = self.memory, self._draft
        assert memory is not None and draft is not None
        if sum(map(len, before)) != FIRST:
            raise ValueError(f"{sum(map(len, before))} bytes before the memory at {FIRST}")
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        write_parts(self._descriptor, *before)
        os.lseek(self._descriptor, FIRST + memory.nbytes, os.SEEK_SET)
        write_parts(self._descriptor, *after)
        protect(memory.ctypes.data - FIRST, FIRST + memory.nbytes, mmap.PROT_READ)
        os.replace(draft, path)
        self._draft = None

    def drop(self) -> None:
        """Remove the file unless it has been kept."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._draft is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._draft)
            self._draft = None
