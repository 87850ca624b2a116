"""Mapped files without descriptors of their own: a process may have more models than open files."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
from typing import Any

import numpy as np

#: Linux's flag for a mapping in the place of another one.
_MAP_FIXED = 0x10
#: Mappings that the system may have removed. Unmapping them could remove another thread's.
_lost: list[mmap.mmap] = []


def map_file(
    descriptor: int, size: int = 0, writable: bool = False, kind: type[mmap.mmap] = mmap.mmap
) -> Any:
    """`size` bytes of a file, or all of them, as an object of `kind`: read-only, or shared and `writable`.
    Raises OSError, and ValueError for an empty file.

    Python's own mappings have a descriptor each, before 3.13 always. On Linux, the file is then mapped in the
    place of memory that Python has mapped."""
    if not hasattr(mmap, "MAP_ANONYMOUS"):  # Windows
        return kind(descriptor, size, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
    flags = mmap.MAP_SHARED if writable else mmap.MAP_PRIVATE
    allowed = mmap.PROT_READ | mmap.PROT_WRITE * writable
    if sys.version_info >= (3, 13):
        return kind(descriptor, size, flags, allowed, trackfd=False)
    if not sys.platform.startswith("linux"):
        return kind(descriptor, size, flags, allowed)
    size = size or os.fstat(descriptor).st_size
    pages = kind(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, allowed)
    address = np.frombuffer(pages, np.uint8).ctypes.data
    if _system_mmap()(address, size, allowed, flags | _MAP_FIXED, descriptor, 0) != address:
        _lost.append(pages)
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return pages


def owner_of(array: np.ndarray) -> Any:
    """The object whose memory an array shows, such as bytes or a mapped file. None for an array's own."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner.obj if isinstance(owner, memoryview) else owner


@functools.cache
def _system_mmap() -> Any:
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    function.restype = ctypes.c_void_p
    return function
