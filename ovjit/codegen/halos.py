"""Clears the halo of a tensor along all dimensions in one pass.

Rows follow one another in memory. The memory before the first row, between two rows, and after the last one
are gaps, each as long as the halos that meet there.
"""

from __future__ import annotations

from ovjit.codegen.function import kernel
from ovjit.codegen.tensors import SHARE
from ovjit.codegen.words import VL, Ptr, const, i32, placed, share, store, storem, u8


@kernel(of=SHARE)
def clear_gaps(buffer: Ptr, y: Ptr, size, run, of):
    """Zero the gap before each row of `run` bytes, and the gap after the last one; `size` bytes in total."""
    for item in share(of.items, of.per_chunk):
        first = buffer
        if item > 0:
            first = placed(item - 1, y)
            first += run
        stop = buffer + size
        if item < of.items - 1:
            stop = placed(item, y)
        length = stop - first
        for i in range(0, length // (4 * VL) * (4 * VL), 4 * VL):
            store[i32](first + i, const[i32](0))
        for i in range(length // (4 * VL) * (4 * VL), length, VL):
            storem[u8](first + i, const[u8](0), length - i)
