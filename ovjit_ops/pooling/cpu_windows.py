"""The geometry of pooling windows, shared by the kernels. They have two dimensions, of which the first may be
1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.codegen.function import inline
from ovjit.codegen.words import udiv
from ovjit.graph.dtypes import FLOATS, numpy_dtype
from ovjit.graph.graph import Node
from ovjit.graph.symbolic import sym_min
from ovjit.graph.windows import pool_window, resolve_pads
from ovjit.planning.views import View
from ovjit.records import NamedTuple

#: Strides from this one on are clamped to the padded extent.
LONG_STRIDE = 1 << 16


@inline
def first_tap(start, dilation):
    """The first tap, of a window that begins at `start`, that is not before the input."""
    first = 0
    if start < 0:  # a division takes as long as a small window
        first = udiv(dilation - 1 - start, dilation)
    return first


@inline
def taps(start, dilation, window, end):
    """The number of taps, of a window that begins at `start`, before `end`."""
    number = window
    if start + (window - 1) * dilation >= end:
        number = udiv(max(0, end - start + dilation - 1), dilation)
    return number


@inline
def within(start, dilation, window, extent, after, exclude):
    """The number of taps that a mean counts: those inside the input and, unless `exclude` is 1, in its
    padding. Rounding up may place others beyond the padding."""
    number = taps(start, dilation, window, extent + after * (1 - exclude))
    if exclude == 1:
        first = first_tap(start, dilation)
        number = max(number - first, 0)
    return number


def lowest(dtype: str) -> float | int:
    """The padding value of MaxPool: minus infinity, or the smallest integer."""
    return -np.inf if dtype in FLOATS else int(np.iinfo(numpy_dtype(dtype)).min)


class Window(NamedTuple):
    """One dimension of a pooling window: extents of input and output, kernel, stride, dilation, padding."""

    extent: int
    outputs: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0


def windows_of(node: Node, extents: Sequence[int], outputs: Sequence[int]) -> list[Window]:
    """A `Window` for each spatial dimension of a MaxPool or AvgPool."""
    window = pool_window(len(extents), node.attrs)
    del window["rounding"]
    begin, end = resolve_pads(extents=extents, **window)
    window["strides"] = tuple(map(_stride, window["strides"], extents, begin, end))
    rows = (extents, outputs, window["kernel"], window["strides"], window["dilations"], begin, end)
    return [Window(*row) for row in zip(*rows, strict=True)]


def _stride(stride: int, extent: int, begin: int, end: int) -> int:
    """The stride. Long ones are clamped to the padded extent, which limits how far the kernels read ahead."""
    return stride if stride < LONG_STRIDE else sym_min(stride, extent + begin + end)


def row_and_column(windows: Sequence[Window]) -> tuple[Window, Window]:
    """The windows of a row and a column; without rows, of a single row."""
    return (Window(1, 1, 1) if len(windows) == 1 else windows[0]), windows[-1]


def as_picture(view: View) -> View:
    """The view of [N, C, W] as [N, C, 1, W]; [N, C, H, W] is unchanged."""
    return view if len(view.shape) > 3 else view.insert(2)
