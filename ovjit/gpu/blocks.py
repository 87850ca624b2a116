"""Launches of kernels for blocks of several warps, on cards of compute capability 9.0.

The first line of their PTX says how many warps and how much shared memory a block has, and where the argument
block describes the matrix that is copied by boxes: `ovjit.codegen.gpu.ptx`. The driver encodes that matrix as a
tensor map, which is an argument of the launch.
"""

from __future__ import annotations

import ctypes
import functools
import re
from typing import Any

import numpy as np

from ovjit.gpu.driver import Card
from ovjit.records import NamedTuple

#: Bytes of a tensor map, and of its alignment.
MAP_SIZE, MAP_ALIGNMENT = 128, 64
#: Bytes of a box's row.
LINE = 128
#: CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.
_MOST_SHARED = 8
#: CU_TENSOR_MAP_DATA_TYPE_UINT8, ..._INTERLEAVE_NONE, ..._SWIZZLE_128B, ..._L2_PROMOTION_L2_128B,
#: ..._FLOAT_OOB_FILL_NONE.
_BYTES, _NOT_INTERLEAVED, _SWIZZLED, _PROMOTED, _ZEROS = 0, 0, 3, 2, 0
_HEAD = re.compile(r"// ovjit block (\d+) (\d+) (\d+),(\d+),(\d+),(\d+) (\d+)\n")


class BlockLaunch(NamedTuple):
    """Warps and bytes of shared memory of a block; the numbers of the arguments that are the matrix's offset
    behind its base, step, rows and depth, in bytes; and the rows of a box."""

    warps: int
    shared: int
    offset: int
    step: int
    rows: int
    depth: int
    height: int


def starts_early(ptx: str) -> bool:
    """True if a kernel may start while the one before it runs."""
    return ptx.startswith("// ovjit early\n") or block_launch(ptx) is not None


@functools.lru_cache(256)
def block_launch(ptx: str) -> BlockLaunch | None:
    """The launch of a kernel for blocks; None for a kernel whose chunks are warps."""
    match = _HEAD.match(ptx)
    return None if match is None else BlockLaunch(*map(int, match.groups()))


def allow_shared_memory(card: Card, function: Any, form: BlockLaunch) -> None:
    """Let a function have more shared memory than the 48 KB that all cards have."""
    card.call("cuFuncSetAttribute", function, _MOST_SHARED, form.shared)


class TensorMap:
    """The driver's description of a matrix [rows, depth] in bytes, `step` bytes apart, for copies of boxes of
    `height` rows. Raises CardError if the driver does not take it."""

    def __init__(self, card: Card, address: int, rows: int, depth: int, step: int, height: int):
        self._memory = ctypes.create_string_buffer(MAP_SIZE + MAP_ALIGNMENT)
        begin = ctypes.addressof(self._memory)
        self.address = -(-begin // MAP_ALIGNMENT) * MAP_ALIGNMENT
        sizes, steps = (ctypes.c_uint64 * 2)(depth, rows), (ctypes.c_uint64 * 1)(step)
        box, ones = (ctypes.c_uint32 * 2)(LINE, height), (ctypes.c_uint32 * 2)(1, 1)
        card.call(
            "cuTensorMapEncodeTiled", ctypes.c_void_p(self.address), _BYTES, 2, ctypes.c_void_p(address), sizes,
            steps, box, ones, _NOT_INTERLEAVED, _SWIZZLED, _PROMOTED, _ZEROS,
        )  # fmt: skip


def map_of(card: Card, form: BlockLaunch, block: np.ndarray, addresses: np.ndarray) -> TensorMap:
    """The tensor map of a step. `block`: its argument block, of int64s; `addresses`: of the bases."""
    address = int(addresses[block[form.offset - 1]] + block[form.offset])
    rows, depth, step = (int(block[i]) for i in (form.rows, form.depth, form.step))
    return TensorMap(card, address, rows, depth, step, form.height)
