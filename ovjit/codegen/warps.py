"""Sizes of warps and blocks on GPUs, for kernels and for the code of their words.

A kernel's chunk is a warp with shared memory of its own, or a block of several warps (`block_form`).
"""

from __future__ import annotations

import re

from ovjit.records import NamedTuple

#: Warps of a block, each of which has shared memory of its own, and the maximum bytes of that: a block may
#: declare 48 KB.
WARPS = 4
MOST_SHARED = 48 * 1024 // WARPS

# blocks of several warps on GPUs of compute capability 9.0

#: Bytes of a row of a factor in shared memory: 8 rows are an atom, in which 16 bytes are permuted.
LINE, ATOM = 128, 1024
#: Columns of b that lie together, one strip for each LINE bytes of depth, and its bytes.
QUADS = 32
STRIP = QUADS * LINE
#: Warps of a group, rows of its products, and bytes along the depth of one instruction.
GROUP, GROUP_ROWS, DEPTH = 4, 64, 32
#: Columns of products of a group.
COLUMNS = (32, 64, 128, 256)
#: Maximum bytes of shared memory of a block on these cards, besides those that its alignment may take.
MOST_BLOCK = 227 * 1024 - ATOM
_MEMORY = re.compile(
    r"\bblock_memory\((\d+), (\d+)\)|\bgrid_warps\((\w+), (\d+)\)|\bblock_warps\((\d+), (\d+)\)"
)


class Form(NamedTuple):
    """Shared memory in bytes, and warps of the block of a kernel. `requested`: the variable with the number
    of warps, for a kernel whose warps all run at a time: `grid_warps`. `blocks`: those for which a
    multiprocessor has registers."""

    size: int
    warps: int
    requested: str = ""
    blocks: int = 1


def block_form(source: str) -> Form | None:
    """The form of a kernel's block; None for a kernel whose chunks are warps."""
    match = _MEMORY.search(source)
    if match is None:
        return None
    size, warps, requested, grid, team, blocks = match.groups("")
    return Form(int(size or 0), int(warps or grid or team), requested, int(blocks or 1))
