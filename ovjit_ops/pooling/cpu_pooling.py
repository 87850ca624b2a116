"""Native MaxPool and AvgPool: channels last, a vector of channels at a time.

A chunk is a range of output rows. Windows are clipped to the input, so no halo is needed. The kernel has two
spatial dimensions; one is a row of height 1.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.function import inline, kernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.words import VL, Ptr, const, loadm, maximum, share, storem
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import ChannelsLast, Lowering
from ovjit.compiler.plan import Planner, ceil_div, split
from ovjit.compiler.races import Piece, Rows
from ovjit.compiler.views import View, channels_last
from ovjit.graph.dtypes import FLOATS, numpy_dtype
from ovjit.graph.graph import Value
from ovjit_ops.common.windows import pool_window, resolve_pads
from ovjit_ops.pooling.cpu_pool_indices import lower_indices

#: Windows of at most so many taps are written out.
LARGEST_UNROLLED = 9


@inline
def taps(start, dilation, window, end):
    """Taps of a window from `start` on that are before `end`."""
    return max(0, min(window, (end - start + dilation - 1) // dilation))


@kernel
def pool(
    x: Ptr, y: Ptr, x_n, x_h, x_w, y_n, y_h, y_w, oh, ow, h, w, c, kh, kw, sh, sw, dh, dw, ph, pw, eh, ew,
    rows, per_chunk, exclude, *, T, lowest, window,
):  # fmt: skip
    """The largest of each window, or where `lowest` is None its mean; all taps of a small `window` that is
    inside of the input are written out."""
    for row in share(rows, per_chunk):
        img = row // oh
        oi = row % oh
        # taps i0 <= i < i1 read rows 0 <= oi * sh - ph + i * dh < h
        top = oi * sh - ph
        i0 = max(0, (dh - 1 - top) // dh)
        i1 = min(kh, (h - top + dh - 1) // dh)
        for oj in range(ow):
            left = oj * sw - pw
            j0 = max(0, (dw - 1 - left) // dw)
            j1 = min(kw, (w - left + dw - 1) // dw)
            if lowest is None:
                if exclude == 1:
                    number = max(i1 - i0, 0) * max(j1 - j0, 0)
                else:  # what is inside of the padded input: rounding up may put some taps behind it
                    number = taps(top, dh, kh, h + eh) * taps(left, dw, kw, w + ew)
                count = const[T](max(number, 1))
            source = x + img * x_n + top * x_h + left * x_w
            target = y + img * y_n + oi * y_h + oj * y_w
            k = 0
            if window and i0 == 0 and i1 == window[0] and j0 == 0 and j1 == window[1]:
                while k < c:
                    p = source + k * SIZE[T]
                    acc = loadm[T](p + 0 * dh * x_h + 0 * dw * x_w, c - k)
                    for i, j in list(np.ndindex(*window))[1:]:
                        v = loadm[T](p + i * dh * x_h + j * dw * x_w, c - k)
                        acc = acc + v if lowest is None else maximum(acc, v)
                    if lowest is None:
                        acc = acc / count
                    storem[T](target + k * SIZE[T], acc, c - k)
                    k += VL
            while k < c:
                acc = const[T](0.0 if lowest is None else lowest)
                for i in range(i0, i1):
                    p = source + i * dh * x_h + j0 * dw * x_w + k * SIZE[T]
                    for _ in range(j0, j1):
                        v = loadm[T](p, c - k)
                        acc = acc + v if lowest is None else maximum(acc, v)
                        p += dw * x_w
                if lowest is None:
                    acc = acc / count
                storem[T](target + k * SIZE[T], acc, c - k)
                k += VL


@functools.cache
def pool_kernel(kind: str, dtype: str, window: tuple[int, int]) -> Kernel:
    """kind: "max" or "avg"; dtype: any of FLOATS, or bytes for "max". (0, 0) stands for large windows."""
    name = f"{kind}_pool_{dtype}" + (f"_{window[0]}x{window[1]}" if window[0] else "")
    smallest = -np.inf if dtype in FLOATS else int(np.iinfo(numpy_dtype(dtype)).min)
    lowest = smallest if kind == "max" else None
    return pool.kernel(name, T=dtype, lowest=lowest, window=window if window[0] else ())


class Window(NamedTuple):
    """One dimension of a pooling window: input and output extents, and how the window moves."""

    extent: int
    outputs: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0


def small_window(kernel: tuple[int, int]) -> tuple[int, int]:
    """The window that a kernel is printed for: (0, 0) where it is too large to be written out."""
    return kernel if kernel[0] * kernel[1] <= LARGEST_UNROLLED else (0, 0)


class Pooling(ChannelsLast):
    """One pooling window over one to three spatial dimensions.

    Windows over three are done in two steps, over the last two dimensions and then over the first: the
    largest of the largest, and the mean of means.
    """

    def __init__(self, group: Group, kind: str):
        super().__init__(group)
        assert group.anchor is not None
        self.node = group.anchor
        self.data: Value = self.node.inputs[0]
        self.out = self.node.outputs[0]
        kernel = tuple(self.node.attrs["kernel"])
        self.kernel = pool_kernel(kind, self.out.dtype, small_window(_two(kernel[-2:], 1)))
        self.kernels: tuple[Kernel, ...] = (self.kernel,)
        if len(kernel) == 3:
            self.deep = pool_kernel(kind, self.out.dtype, small_window((kernel[0], 1)))
            self.kernels = (self.kernel, self.deep)

    def windows(self, extents: Sequence[int], outputs: Sequence[int]) -> list[Window]:
        """One for each spatial dimension."""
        window = pool_window(len(extents), self.node.attrs, torch=True)
        del window["rounding"]
        begin, end = resolve_pads(extents=extents, **window)
        rows = (extents, outputs, window["kernel"], window["strides"], window["dilations"], begin, end)
        return [Window(*row) for row in zip(*rows, strict=True)]

    def plan(self, planner: Planner) -> None:
        shape, out = planner.shape(self.data), planner.shape(self.out)
        x = planner.with_halo(self.data, [(0, 0)] * len(shape))
        y = planner.channels_last_output(self.out)
        windows = self.windows(shape[2:], out[2:])
        if not y.count:
            return
        if len(windows) < 3:
            row = Window(1, 1, 1) if len(windows) == 1 else windows[0]
            self.pool(planner, self.kernel, x, y, shape[0], shape[1], row, windows[-1])
            return
        # a picture of the first step is a slice of the data; one of the second has the slices as its rows
        depth, row, column = windows
        between = (shape[0], shape[1], shape[2], row.outputs, column.outputs)
        middle = planner.allocate(between, x.itemsize, channels_last(5))
        for n in range(shape[0]):
            a, b = x.slice(0, n, 1), middle.slice(0, n, 1)
            a, b = (_plane(v, v.shape[2], v.strides[2], v.shape[3:], v.strides[3:]) for v in (a, b))
            self.pool(planner, self.kernel, a, b, shape[2], shape[1], row, column)
        flat = row.outputs * column.outputs
        size = (flat,)
        across = Window(flat, flat, 1)
        for n in range(shape[0]):
            a, b = middle.slice(0, n, 1), y.slice(0, n, 1)
            if b.strides[3] == column.outputs * b.strides[4]:
                a = _plane(a, 1, 0, (a.shape[2], *size), (a.strides[2], a.strides[4]))
                b = _plane(b, 1, 0, (b.shape[2], *size), (b.strides[2], b.strides[4]))
                self.pool(planner, self.deep, a, b, 1, shape[1], depth, across)
                continue
            for i in range(row.outputs):  # the output has a border
                c, d = a.slice(3, i, 1), b.slice(3, i, 1)
                c, d = (
                    _plane(v, 1, 0, (v.shape[2], v.shape[4]), (v.strides[2], v.strides[4])) for v in (c, d)
                )
                line = Window(column.outputs, column.outputs, 1)
                self.pool(planner, self.deep, c, d, 1, shape[1], depth, line)

    def pool(
        self, planner: Planner, kernel: Kernel, x: View, y: View, n: int, c: int, row: Window, column: Window
    ) -> None:
        """Add the step that pools n pictures of c adjacent channels."""
        values: dict[str, Any] = {
            "oh": row.outputs, "ow": column.outputs, "kh": row.kernel, "kw": column.kernel, "sh": row.stride,
            "sw": column.stride, "dh": row.dilation, "dw": column.dilation, "ph": row.before,
            "pw": column.before, "eh": row.after, "ew": column.after, "h": row.extent, "w": column.extent,
        }  # fmt: skip
        values |= dict(zip(("x_n", "x_h", "x_w"), _strides(x), strict=True))
        values |= dict(zip(("y_n", "y_h", "y_w"), _strides(y), strict=True))
        rows = n * row.outputs
        per_chunk = split(rows, column.outputs * c * row.kernel * column.kernel)
        values |= {
            "x": x.ptr, "y": y.ptr, "c": c, "rows": rows, "per_chunk": per_chunk,
            "exclude": int(self.node.attrs.get("exclude_pad", False)),
        }  # fmt: skip
        y_n, y_h, y_w = _strides(y)
        one = Piece(y.ptr, (y_n, y_h), (column.outputs, c), (y_w, y.itemsize), y.itemsize)
        touches = Rows((n, row.outputs), per_chunk, (), [one])
        flops = rows * column.outputs * c * row.kernel * column.kernel
        planner.step(kernel, values, ceil_div(rows, per_chunk), [x], [y], flops, touches=touches)


def _plane(view: View, n: int, n_step: int, shape: Sequence[int], strides: Sequence[int]) -> View:
    """The same memory as n pictures [n, channels, *shape]."""
    steps = (n_step, view.strides[1], *strides)
    return View(view.buffer, (n, view.shape[1], *shape), steps, view.itemsize, view.offset)


def _two(values: Any, missing: int) -> tuple[int, int]:
    values = tuple(int(v) for v in values)
    return values if len(values) == 2 else (missing, values[0])


def _strides(view: View) -> tuple[int, int, int]:
    return (view.strides[0], *((0, view.strides[2]) if len(view.shape) == 3 else view.strides[2:]))  # type: ignore[return-value]


def lower_pooling(group: Group) -> Lowering | None:
    """Native for reals and the maximum of bytes; with indices, for reals in one or two dimensions."""
    anchor = group.anchor
    assert anchor is not None
    data = anchor.inputs[0]
    known = FLOATS if anchor.op.name == "AvgPool" else (*FLOATS, "u8", "i8")
    if data.dtype not in known or len(data.shape) not in (3, 4, 5):
        return None
    if 1 in group.used:
        return lower_indices(group)
    return Pooling(group, "max" if anchor.op.name == "MaxPool" else "avg")
