"""Launches of kernels for blocks of several warps, on cards of compute capability 9.0.

The first line of their PTX says how many warps and how much shared memory a block has, and where the
argument block describes the matrix that is copied by boxes: `ovjit.codegen.gpu.ptx`. The driver encodes
that matrix as a tensor map, which is an argument of the launch.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.gpu.driver import Card
from ovjit.records import NamedTuple

#: Bytes of a tensor map, and of its alignment.
MAP_SIZE, MAP_ALIGNMENT = 128, 128
#: CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.
_MOST_SHARED = 8
#: CU_TENSOR_MAP_DATA_TYPE_UINT8, ..._INTERLEAVE_NONE, ..._SWIZZLE_128B, ..._L2_PROMOTION_L2_128B,
#: ..._FLOAT_OOB_FILL_NONE.
_BYTES, _NOT_INTERLEAVED, _SWIZZLED, _PROMOTED, _ZEROS = 0, 0, 3, 2, 0
_EARLY = "// ovjit early\n"
_HEAD = re.compile(rf"(?:{_EARLY})?// ovjit ((?:block|team) .*)\n")


class BlockLaunch(NamedTuple):
    """Warps and bytes of shared memory of a block, and the tensor of which boxes are copied: the number of
    the argument that is its offset after its base; sizes, steps (in bytes; without that of the last
    dimension, whose elements are bytes), the box's extents and strides, the last dimension first. They are
    texts: the number of an argument, or a constant such as #1. Without sizes there is no such tensor.
    `requested`: the number of warps of a launch that run at a time, 0 if they need not."""

    warps: int
    shared: int = 0
    offset: int = 0
    sizes: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    box: tuple[str, ...] = ()
    strides: tuple[str, ...] = ()
    requested: tuple[str, ...] = ("#0",)

    def numbers(self, field: str, block: np.ndarray) -> list[int]:
        """The numbers of a field, given the argument block."""
        texts = getattr(self, field)
        return [int(t[1:]) if t.startswith("#") else int(block[int(t)]) for t in texts]


def starts_early(ptx: str) -> bool:
    """True if a kernel may start while the one before it runs."""
    form = block_launch(ptx)
    return ptx.startswith(_EARLY) or form is not None and bool(form.sizes)


@functools.lru_cache(256)
def block_launch(ptx: str) -> BlockLaunch | None:
    """The launch of a kernel for blocks; None for a kernel whose chunks are warps."""
    match = _HEAD.match(ptx)
    if match is None:
        return None
    kind, warps, *further = match[1].split(" ")
    if kind == "team":
        return BlockLaunch(int(warps), requested=(further[0],))
    shared, offset, *lists = further
    return BlockLaunch(int(warps), int(shared), int(offset), *(tuple(text.split(",")) for text in lists))


def blocks_at_a_time(card: Card, function: Any, form: BlockLaunch) -> int:
    """The number of blocks of a function that a card runs at a time."""
    count = ctypes.c_int()
    threads, shared = 32 * form.warps, ctypes.c_size_t(form.shared)
    name = "cuOccupancyMaxActiveBlocksPerMultiprocessor"
    card.call(name, ctypes.byref(count), function, threads, shared)
    return count.value * card.attribute("MULTIPROCESSOR_COUNT")


def allow_shared_memory(card: Card, function: Any, form: BlockLaunch) -> None:
    """Allow a function more shared memory than the 48 KB that all cards have."""
    card.call("cuFuncSetAttribute", function, _MOST_SHARED, form.shared)


class TensorMap:
    """The driver's description of a tensor of bytes for copies of boxes: sizes, `steps` in bytes, the box's
    extents and strides, the last dimension first. Raises CardError if the driver does not take it."""

    def __init__(
        self, card: Card, address: int, sizes: Sequence[int], steps: Sequence[int], box: Sequence[int],
        strides: Sequence[int],
    ):  # fmt: skip
        self._memory = ctypes.create_string_buffer(MAP_SIZE + MAP_ALIGNMENT)
        begin, rank = ctypes.addressof(self._memory), len(sizes)
        self.address = -(-begin // MAP_ALIGNMENT) * MAP_ALIGNMENT
        long, short = ctypes.c_uint64, ctypes.c_uint32
        # a box of n elements that are s apart has n s elements for the driver
        extents = [n * s for n, s in zip(box, strides, strict=True)]
        card.call(
            "cuTensorMapEncodeTiled", ctypes.c_void_p(self.address), _BYTES, rank, ctypes.c_void_p(address),
            (long * rank)(*sizes), (long * (rank - 1))(*steps), (short * rank)(*extents),
            (short * rank)(*strides), _NOT_INTERLEAVED, _SWIZZLED, _PROMOTED, _ZEROS,
        )  # fmt: skip


def map_of(card: Card, form: BlockLaunch, block: np.ndarray, addresses: np.ndarray) -> TensorMap:
    """The tensor map of a step. `block`: its argument block, of int64s; `addresses`: of the bases."""
    address = int(addresses[block[form.offset - 1]] + block[form.offset])
    return TensorMap(card, address, *(form.numbers(name, block) for name in BlockLaunch._fields[3:7]))
