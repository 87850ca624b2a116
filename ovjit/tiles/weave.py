"""Panels of a matrix whose rows are outputs, written by native code at the speed of memory.

    panels [panel][word][width]  of  rows [panel * width][word]

A word is the unit that a tile reads for one output: an f32, two bf16, four or eight integers, one f16 or a
byte. On one core NumPy transposes at 0.1 to 0.3 GB/s, these functions at 6 to 9 in the third-level cache.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.codegen.cpu.host import running_target
from ovjit.codegen.cpu.targets import Target
from ovjit.errors import OvjitError

if TYPE_CHECKING:
    from ovjit.codegen.kernel import Kernel

#: Changes of words. Equal to the constants of `weave_steps`, which is only imported to print its kernels.
AS_THEY_ARE, SPREAD, FLUSH, FLUSH_HALVES, BYTES, PAIRS = range(6)
#: The module with the native functions.
STEPS = "ovjit.tiles.weave_steps"
#: Minimum bytes of panels for native code.
WORTH = 1 << 18


#: Sizes of words, in bytes, that native code writes.
WORD_SIZES = (4, 2, 1)


def weaves(size: int, width: int) -> bool:
    """Whether this machine's native code writes panels of `width` words of `size` bytes, for any target."""
    isa = running_target()
    return size in WORD_SIZES and not width % isa.lanes


def rounds(depth: int) -> bool:
    """Whether this machine's native code rounds rows of `depth` elements."""
    return not depth % running_target().lanes


def weave(
    rows: np.ndarray, panels: np.ndarray, width: int, size: int, change: int = AS_THEY_ARE, mask: int = 0
) -> None:
    """Write `panels`, each of `width` outputs, from rows [n * width, bytes] with words of `size` bytes.
    `change`: the change of words, such as FLUSH; `mask`: bits of each four bytes that are flipped before."""
    isa = running_target()
    outs, length = rows.shape
    if rows.dtype != np.uint8 or rows.strides[1] != 1 or length % size or outs % width or width % isa.lanes:
        raise OvjitError(
            f"internal error: {outs} rows of {length} bytes cannot be packed in panels of {width}"
        )
    if not panels.flags.c_contiguous or not panels.flags.writeable or panels.nbytes != outs * length:
        raise OvjitError(
            f"internal error: {panels.nbytes} bytes of panels do not match {outs} rows of {length}"
        )
    if (change or mask) and width * size % (4 * isa.lanes):
        raise OvjitError(
            f"internal error: lines of {width * size} bytes are not a multiple of the vector width"
        )
    sizes = np.array((rows.strides[0], width, length // size, outs // width, size, isa.lanes, mask), np.int64)
    function(size)(rows.ctypes.data, panels.ctypes.data, sizes.ctypes.data, change)


def round_rows(rows: np.ndarray, target: np.ndarray) -> None:
    """Round rows of f32 or f16 to bf16, into the 16-bit array `target`. Subnormals become zeros. Rows have a
    multiple of the vector width."""
    if rows.shape != target.shape or rows.strides[1] != rows.itemsize or target.dtype.itemsize != 2:
        raise OvjitError(f"internal error: bf16 of {rows.shape} cannot be packed in {target.shape}")
    if not target.flags.c_contiguous or rows.shape[1] % running_target().lanes or rows.dtype.kind != "f":
        raise OvjitError(f"internal error: bf16 of {rows.dtype} cannot be packed in rows of {rows.shape[1]}")
    call = _rounding()
    count, length = rows.shape
    if rows.flags.c_contiguous:
        count, length = min(count, 1), rows.size
    source, destination = rows.ctypes.data, target.ctypes.data
    for n in range(count):
        call(source + n * rows.strides[0], destination + 2 * n * length, length, rows.itemsize)


@functools.cache
def kernel(size: int) -> Kernel:
    """The kernel for words of `size` bytes."""
    from ovjit.codegen.routines import routines
    from ovjit.codegen.transpose import ELEMENTS

    def intrinsics(isa: Target) -> dict[str, Any]:
        from ovjit.codegen.cpu import weaving
        from ovjit.codegen.transpose import transpose_words

        return weaving.intrinsics(isa) | transpose_words(isa, ELEMENTS[size])

    return routines(f"weave_{size}", ("weave",), STEPS, intrinsics, f"weave {size}")


@functools.cache
def rounding_kernel() -> Kernel:
    """The kernel that rounds to bf16."""
    from ovjit.codegen.routines import routines

    def intrinsics(isa: Target) -> dict[str, Any]:
        from ovjit.codegen.cpu import weaving

        return weaving.intrinsics(isa)

    return routines("round_rows", ("round_rows",), STEPS, intrinsics, "round rows")


def kernels(isa: Target) -> tuple[Kernel, ...]:
    """The kernels of an instruction set."""
    return (*(kernel(size) for size in WORD_SIZES), rounding_kernel())


@functools.cache
def function(size: int) -> Callable[[int, int, int, int], int]:
    """The native function for words of `size` bytes."""
    return native(kernel(size))


@functools.cache
def _rounding() -> Callable[[int, int, int, int], int]:
    return native(rounding_kernel())


def native(kernel: Kernel) -> Callable[[int, int, int, int], int]:
    """The first function of a kernel, compiled for this machine."""
    from ovjit.codegen.cpu.objects import function as callable_at
    from ovjit.codegen.loading import addresses

    return callable_at(addresses((kernel,), target=running_target())[kernel], 4)
