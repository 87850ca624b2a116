"""The matrices of Winograd convolution F(m, r), and filters transformed by them.

A start with a cached plan needs only this module, and not `ovjit_ops.convolution.cpu_winograd`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ovjit.codegen.cpu.formats import WORD
from ovjit.codegen.cpu.targets import Target
from ovjit.errors import OvjitError
from ovjit.graph.dtypes import flush_subnormals, from_numpy, numpy_dtype
from ovjit.tiles import weave

if TYPE_CHECKING:
    from ovjit.codegen.kernel import Kernel

MATRICES: dict[int, dict[str, list[list[float]]]] = {
    2: {
        "B": [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        "G": [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
        "A": [[1, 1, 1, 0], [0, 1, -1, -1]],
    },
    4: {
        "B": [
            [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
        ],
        "G": [
            [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
        ],
        "A": [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    },
}  # fmt: skip


class WholeMatrices(NamedTuple):
    """G and A for planes of integers. The results are those of `MATRICES`, multiplied by `divisor`."""

    G: list[list[int]]
    A: list[list[int]]
    divisor: int


#: m -> matrices of integers, with the same B. F(4x4) has 24G. Its last row is halved, so that planes fit 16
#: bits.
WHOLE: dict[int, WholeMatrices] = {
    2: WholeMatrices([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], [[1, 1, 1, 0], [0, 1, -1, -1]], 4),
    4: WholeMatrices(
        [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 12]],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 2]],
        576,
    ),
}


def matrices_of(m: int) -> dict[str, list[list[float]]]:
    """`MATRICES`, and those of m = 1: along an axis of one tap, each pixel is a tile."""
    return MATRICES[m] if m > 1 else {"B": [[1]], "G": [[1]], "A": [[1]]}


def plane_shape(m: int, kernel: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(rows and columns of a tile of outputs, rows and columns of its transformed inputs) of windows of 3x3,
    3x1 or 1x3 taps."""
    height, width = (m if taps > 1 else 1 for taps in kernel)
    return (height, width), (len(matrices_of(height)["B"]), len(matrices_of(width)["B"]))


#: Type of planes -> types of filters for which native code is used.
_NATIVE = {"f32": ("f32", "bf16"), "bf16": ("f32", "bf16"), "i16": ("i8",)}
#: Minimum bytes of filters for native code. NumPy takes four times as long, and a kernel is loaded in 1 ms:
#: with 64 KB instead of 256, starts of DenseNet-121 with a kept model take 0.75 of the CPU time.
_NATIVE_BYTES = 1 << 16
#: Channels of filters that NumPy transforms at once, so that they stay in the second-level cache.
_FILLED = 32


def fill_planes(
    memory: np.ndarray, source: np.ndarray, m: int, kind: str, group: int, width: int, last: int
) -> None:
    """Write the transformed filters G w G' of each plane as panels of `width` outputs, the last of `last`.

    Source [O, C, 3, 3], [O, C, 3, 1] or [O, C, 1, 3], or [O, C, D, 3, 3] with D slices of each filter; panels
    have the channels of slice 0 first. Elements have the type `kind`, `group` of them in a word. Subnormals
    become zeros. Integers use the G of `WHOLE`."""
    kernel = source.shape[-2:]
    planes = memory.view(numpy_dtype(kind)).reshape(math.prod(plane_shape(m, kernel)[1]), -1)
    outs, channels = len(source), math.prod(source.shape[1:-2])
    native = source.nbytes >= _NATIVE_BYTES and weave.weaves(WORD, width) and weave.weaves(WORD, last)
    native = native and from_numpy(source.dtype) in _NATIVE.get(kind, ()) and kernel == (3, 3)
    for first in range(0, outs, width):
        some = source[first : first + width]
        some = np.moveaxis(some, 1, -3).reshape(-1, channels, *kernel)
        panel_width = width if len(some) == width else last
        part = planes[:, channels * first :][:, : channels * panel_width]
        if not native:
            _fill_by_numpy(part, some, m, group, panel_width)
        else:
            _transform(some.reshape(len(some), -1), part, panel_width, m, kind)
    if not native:
        flush_subnormals(planes)


def _fill_by_numpy(planes: np.ndarray, filters: np.ndarray, m: int, group: int, width: int) -> None:
    """Write one panel of each plane [planes, C * width], of any type."""
    kernel, integers = filters.shape[-2:], planes.dtype == np.int16
    rows, columns = (np.array(_filter_matrix(t, integers), float) for t in plane_shape(m, kernel)[0])
    for c in range(0, filters.shape[1], _FILLED):
        part = filters[:, c : c + _FILLED]
        depth = part.shape[1]
        panel = np.zeros((*kernel, depth, width))
        panel[..., : len(part)] = part.transpose(2, 3, 1, 0)
        transformed = np.einsum("ij,jkx,lk->ilx", rows, panel.reshape(*kernel, -1), columns, optimize=True)
        words = transformed.reshape(len(planes), depth // group, group, width)
        planes[:, c * width : (c + depth) * width] = words.swapaxes(-1, -2).reshape(len(planes), -1)


def _filter_matrix(m: int, integers: bool) -> Sequence[Sequence[float]]:
    return WHOLE[m].G if integers else matrices_of(m)["G"]


def _transform(filters: np.ndarray, planes: np.ndarray, width: int, m: int, kind: str) -> None:
    """Write one panel of `width` outputs in each of `planes` [(m + 2)^2, channels * width] by native code.

    It is G w G' of the filters w [outputs, channels * 9]: in f32, or in words of two channels in bf16, or in
    i16 by the G of `WHOLE`. Subnormals and missing outputs are zeros."""
    count, channels, group = (m + 2) ** 2, filters.shape[1] // 9, WORD // planes.itemsize
    if planes.shape != (count, channels * width) or planes.strides[1] != planes.itemsize or channels % group:
        raise OvjitError(f"internal error: planes of {planes.shape} do not match filters of {filters.shape}")
    rows = filters.astype(np.float32, copy=False)
    if len(rows) < width:
        rows = np.pad(rows, ((0, width - len(rows)), (0, 0)))
    panel = np.empty(rows.size, np.float32)
    weave.weave(np.ascontiguousarray(rows).view(np.uint8), panel, width, WORD)
    sizes = np.array((channels // group, width, planes.strides[0], group), np.int64)
    _transforming(m, kind)(panel.ctypes.data, planes.ctypes.data, sizes.ctypes.data, 0)


@functools.cache
def filter_kernel(m: int, kind: str = "f32") -> Kernel:
    """The kernel that transforms filters for Winograd's F(m x m, 3 x 3) into planes of the type `kind`: f32,
    bf16 or i16."""
    from ovjit.codegen.routines import routines

    def intrinsics(isa: Target) -> dict[str, Any]:
        from ovjit.codegen.cpu import weaving

        return weaving.filter_planes(isa, _filter_matrix(m, kind == "i16"), kind)

    word = {"f32": "", "bf16": "bf16 ", "i16": "whole "}[kind]
    name = f"filters_{word.replace(' ', '_')}{m}x{m}"
    return routines(name, ("transform_filters",), weave.STEPS, intrinsics, f"filters {word}{m}")


def filter_kernels() -> Iterator[Kernel]:
    """The kernels for all tiles and types."""
    return (filter_kernel(m, kind) for m in MATRICES for kind in _NATIVE)


@functools.cache
def _transforming(m: int, kind: str) -> Callable[[int, int, int, int], int]:
    return weave.native(filter_kernel(m, kind))
