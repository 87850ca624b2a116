"""Native MaxPool and AvgPool in the layout of the data: vectors of channels, or of columns.

A chunk is a range of output rows. Windows are clipped to the input, so no halo is needed. Kernels have two
spatial dimensions, of which the first may be 1.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import FLOATS, HALVES
from ovjit.graph.graph import Value
from ovjit.graph.symbolic import sym_max, sym_min
from ovjit.graph.windows import pool_window
from ovjit.planning.lower import Group, Lowering, Planner, launch
from ovjit.planning.views import Layout, View, channels_last, row_major_layout
from ovjit.records import NamedTuple
from ovjit_ops.pooling.cpu_windows import (
    Window,
    as_picture,
    first_tap,
    lowest,
    row_and_column,
    taps,
    windows_of,
    within,
)

#: Output rows whose input rows are combined before their columns are.
LINES = 8
#: Maximum stride of columns for which vectors are shuffled. Larger ones gather elements.
LARGEST_STEP = 3
#: Maximum taps of an unrolled window.
LARGEST_UNROLLED = 9


@inline
def some(p, n, part, *, T, R):
    """A full vector at p, or n elements if `part`, of type T, converted to R."""
    v = loadm[T](p, n) if part else load[T](p)
    return v if T == R else cast[f32](v)


@kernel(over="n oh", x="n c:1 h w", y="n c:1 oh ow", row=Window, column=Window)
def pool(x: Tensor, y: Tensor, row, column, exclude, *, T, R, lowest, window):
    """The maximum of each window, or its mean if `lowest` is None. Small windows (`window` is not empty) are
    unrolled where they are inside the input. T, R: element types of x and y; the mean of bytes is f32."""
    c = x.size.c
    dh = row.dilation
    dw = column.dilation
    for img, oi, line in items(y):
        # taps i0 <= i < i1 read rows 0 <= top + i * dh < h
        top = oi * row.stride - row.before
        i0 = first_tap(top, dh)
        i1 = taps(top, dh, row.kernel, x.size.h)
        if lowest is None:
            rows = within(top, dh, row.kernel, x.size.h, row.after, exclude)
        for oj in range(y.size.ow):
            left = oj * column.stride - column.before
            j0 = first_tap(left, dw)
            j1 = taps(left, dw, column.kernel, x.size.w)
            if lowest is None:
                columns = within(left, dw, column.kernel, x.size.w, column.after, exclude)
                count = const[R](max(rows * columns, 1))
            source = x.at(n=img, h=top, w=left)
            target = y.at(line, ow=oj)
            k = 0
            for part in static_range(2):  # full vectors, then the remainder
                while k < c - (0 if part else VL - 1):
                    p = source + k * SIZE[T]
                    if window and i0 == 0 and i1 == window[0] and j0 == 0 and j1 == window[1]:
                        acc = some(p, c - k, part)
                        for i, j in list(np.ndindex(*window))[1:]:
                            v = some(x.at(p, h=i * dh, w=j * dw), c - k, part)
                            acc = acc + v if lowest is None else maximum(acc, v)
                    else:
                        acc = const[R](0.0 if lowest is None else lowest)
                        for i in range(i0, i1):
                            q = x.at(p, h=i * dh, w=j0 * dw)
                            for _ in range(j0, j1):
                                v = some(q, c - k, part)
                                acc = acc + v if lowest is None else maximum(acc, v)
                                q += dw * x.stride.w
                    if lowest is None:
                        acc = acc / count
                    if part:
                        storem[R](target + k * SIZE[R], acc, c - k)
                    else:
                        store[R](target + k * SIZE[R], acc)
                    k += VL


class Lines(NamedTuple):
    """Columns of the input that windows touch, and 1 if padding is not counted."""

    used: int
    exclude: int


@inline
def combine(total, v, lowest):
    return total + v if lowest is None else maximum(total, v)


@inline
def join_rows(line, x, source, top, row, used, start, A, *, T, R, lowest, window):
    """Combine the rows of a window that begins at row `top` to a line of `used` columns."""
    dh = row.dilation
    i0 = first_tap(top, dh)
    i1 = taps(top, dh, row.kernel, x.size.h)
    k = 0
    for part in static_range(2):  # full vectors, then the remainder
        while k < used - (0 if part else VL - 1):
            p = x.at(source, h=top + i0 * dh) + k * SIZE[T]
            if window and i0 == 0 and i1 == window[0]:
                acc = some(p, used - k, part)
                for i in static_range(1, window[0]):
                    v = some(x.at(p, h=i * dh), used - k, part)
                    acc = combine(acc, v, lowest)
            else:
                acc = const[R](start)
                for _ in range(i0, i1):
                    v = some(p, used - k, part)
                    acc = combine(acc, v, lowest)
                    p += dh * x.stride.h
            store[A](line + k * SIZE[A], blend[A](used - k, acc, const[A](start)) if part else acc)
            k += VL


@inline
def join_columns(p, column, count, start, A, step, *, lowest, window):
    """A vector of outputs: combine the columns of the line at p."""
    sw = column.stride
    dw = column.dilation
    at = p
    if window:
        best = column_of(at, sw, count, A, step)
        for j in static_range(1, window[1]):
            v = column_of(at + j * dw * SIZE[A], sw, count, A, step)
            best = combine(best, v, lowest)
    else:
        best = const[A](start)
        for _ in range(column.kernel):
            v = column_of(at, sw, count, A, step)
            best = combine(best, v, lowest)
            at += dw * SIZE[A]
    return best


@kernel(over=f"n c oh/{LINES}", x="n c h w:1", y="n c oh ow:1", row=Window, column=Window, lines=Lines)
def pool_planes(x: Tensor, y: Tensor, row, column, lines, *, T, R, A, lowest, window, step):
    """`pool` for adjacent columns. The rows of a window are combined to a line with padding on both sides,
    then the columns of this line are combined. `step`: the column stride 1, 2 or 3; 0: any stride."""
    start = 0.0 if lowest is None else lowest
    ow = y.size.ow
    kw = column.kernel
    sw = column.stride
    dw = column.dilation
    pw = column.before
    span = ((ow - 1) * sw + (kw - 1) * dw + 2 * VL * (sw + 1)) // VL * VL
    for k in range(0, LINES * span, VL):
        store[A](scratch + k * SIZE[A], const[A](start))
    numbers = scratch + LINES * span * SIZE[A]
    if lowest is None:
        for oj in range(ow):
            number = within(oj * sw - pw, dw, kw, x.size.w, column.after, lines.exclude)
            st[A](numbers + oj * SIZE[A], number)
    for img, k, oi, target in items(y):
        source = x.at(n=img, c=k)
        count_rows = min(y.size.oh - oi, LINES)
        for r in range(count_rows):
            top = (oi + r) * row.stride - row.before
            line = scratch + (r * span + pw) * SIZE[A]
            join_rows(line, x, source, top, row, lines.used, start, A)
        for r in range(count_rows):  # separate loop: loads that overlap recent stores differently are slow
            line = scratch + r * span * SIZE[A]
            goal = y.at(target, oh=r)
            if lowest is None:
                top = (oi + r) * row.stride - row.before
                rows = within(top, row.dilation, row.kernel, x.size.h, row.after, lines.exclude)
            k = 0
            for part in static_range(2):
                while k < ow - (0 if part else VL - 1):
                    p = line + k * sw * SIZE[A]
                    best = join_columns(p, column, ow - k, start, A, step)
                    if lowest is None:
                        # elements beyond the end may be denormals, for which a product takes about 100 cycles
                        count = some(numbers + k * SIZE[A], ow - k, part, T=A, R=A)
                        count = count * spread[A](rows)
                        best = best / maximum(count, const[A](1.0))
                    if part:
                        storem[R](goal + k * SIZE[R], best, ow - k)
                    else:
                        store[R](goal + k * SIZE[R], best)
                    k += VL


@inline
def column_of(p, stride, n, A, step):
    """A vector of a line's columns, `stride` apart."""
    if step == 0:
        v = gather[A](p, stride * SIZE[A], n)
    else:
        v = load[A](p) if step == 1 else evens[A](p) if step == 2 else thirds[A](p)
    return v


@functools.cache
def pool_kernel(kind: str, dtype: str, out: str, window: tuple[int, int], step: int = -1) -> Kernel:
    """The pooling kernel. `kind`: "max" or "avg". `dtype`: one of FLOATS; integers for "max"; bytes if `out`,
    the type of the result, is f32. `window`: (0, 0) for large windows. `step`: see `pool_planes`; -1 for
    adjacent channels, which use `pool`."""
    name = f"{kind}_pool_{dtype}" + (f"_{window[0]}x{window[1]}" if window[0] else "")
    pad = lowest(dtype) if kind == "max" else None
    taps_of = window if window[0] else ()
    if step < 0:
        return pool.kernel(name, T=dtype, R=out, lowest=pad, window=taps_of)
    line = "f32" if out in HALVES else out
    name += f"_planes_{step or 'any'}"
    return pool_planes.kernel(name, T=dtype, R=out, A=line, lowest=pad, window=taps_of, step=step)


def small_window(kernel: tuple[int, int]) -> tuple[int, int]:
    """The window to which a kernel is specialised; (0, 0) if it is too large to be unrolled."""
    return kernel if kernel[0] * kernel[1] <= LARGEST_UNROLLED else (0, 0)


class Pooling(Lowering):
    """Pooling over one to three spatial dimensions, in planes or with adjacent channels.

    Three dimensions take two steps, over the last two dimensions and then over the first: the maximum of
    maxima, or the mean of means.
    """

    def __init__(self, group: Group, kind: str):
        super().__init__(group)
        self.kind = kind
        self.data: Value = self.node.inputs[0]
        self.is_adjacent = False

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        """Channels last if the data are."""
        return channels_last(len(self.out.shape)) if self._adjacent(layouts) else None

    def _adjacent(self, layouts: dict[Value, Layout]) -> bool:
        have = layouts.get(self.data)
        return have is not None and have.order == channels_last(len(self.data.shape)).order

    def finalize(self, layouts: dict[Value, Layout]) -> None:
        self.is_adjacent = self._adjacent(layouts)
        window = pool_window(len(self.data.shape) - 2, self.node.attrs)
        sizes, strides = window["kernel"], window["strides"]
        flat = [((1, *sizes)[-2:], strides[-1])]  # (window, column stride) of each step
        if len(sizes) == 3:
            flat.append(((sizes[0], 1), 1))
        self.kernels = [
            pool_kernel(
                self.kind,
                self.data.dtype,
                self.out.dtype,
                small_window(size),
                -1 if self.is_adjacent else step if step <= LARGEST_STEP else 0,
            )  # fmt: skip
            for size, step in flat
        ]

    def plan(self, planner: Planner) -> None:
        shape, out = planner.shape(self.data), planner.shape(self.out)
        rank = len(shape)
        order = channels_last(rank) if self.is_adjacent else row_major_layout(rank)
        inner = order.order[-1]
        x = planner.with_layout(self.data, order)
        y = planner.channels_last_output(self.out, inner)
        windows = windows_of(self.node, shape[2:], out[2:])
        if not y.count:
            return
        if rank < 5:
            self.pool(planner, self.kernels[0], x, y, *row_and_column(windows))
            return
        # the first step has slices of the data as images; in the second, slices are the rows
        depth, row, column = windows
        between = (*shape[:3], row.outputs, column.outputs)
        middle = planner.allocate(between, x.itemsize, order)
        for a, b in zip(_parts(x, 0), _parts(middle, 0), strict=True):
            self.pool(planner, self.kernels[0], _slices(a), _slices(b), row, column)
        flat = row.outputs * column.outputs
        if y.strides[3] == column.outputs * y.strides[4]:
            line = Window(flat, flat, 1)
            self.pool(planner, self.kernels[1], _flat(middle, flat), _flat(y, flat), depth, line)
            return
        line = Window(column.outputs, column.outputs, 1)
        for a, b in zip(_parts(middle, 3), _parts(y, 3), strict=True):  # the output's rows are not contiguous
            a, b = _flat(a, column.outputs), _flat(b, column.outputs)
            self.pool(planner, self.kernels[1], a, b, depth, line)

    def pool(self, planner: Planner, kernel: Kernel, x: View, y: View, row: Window, column: Window) -> None:
        """Add the step that pools images [N, C, H, W] or [N, C, W]."""
        c, taps = x.shape[1], row.kernel * column.kernel
        arguments: dict[str, Any] = {"row": row, "column": column}
        exclude = int(self.node.attrs.get("exclude_pad", False))
        if self.is_adjacent:
            arguments["exclude"] = exclude
        else:
            c = sym_min(row.outputs, LINES)
            reach = (column.outputs - 1) * column.stride + (column.kernel - 1) * column.dilation + 1
            arguments["lines"] = Lines(sym_min(column.extent, sym_max(reach - column.before, 0)), exclude)
            lanes = self.target.lanes
            span = reach + 2 * lanes * (column.stride + 1)
            planner.need_scratch((LINES * span + column.outputs + lanes) * max(x.itemsize, 4))
        launch(
            planner, kernel, {"x": as_picture(x), "y": as_picture(y)}, ("y",),
            work=column.outputs * taps * c, flops=y.count * taps, **arguments,
        )  # fmt: skip


def _parts(view: View, axis: int) -> list[View]:
    return [view.slice(axis, i, 1) for i in range(view.shape[axis])]


def _slices(view: View) -> View:
    """The view of a volume [1, C, D, H, W] as images [D, C, H, W]."""
    _, c, d, *picture = view.shape
    _, c_step, d_step, *steps = view.strides
    return view.as_strided((d, c, *picture), (d_step, c_step, *steps))


def _flat(view: View, count: int) -> View:
    """The view of [N, C, D, H, W] as images [N, C, D, many]."""
    steps = (*view.strides[:3], view.strides[4])
    return view.as_strided((*view.shape[:3], count), steps)


def lower_pooling(group: Group) -> Lowering | None:
    """The lowering of MaxPool and AvgPool. The mean is native for floats, and for bytes if lowered to
    integers."""
    anchor = group.node
    data = anchor.inputs[0]
    if 1 in group.used:
        from ovjit_ops.pooling.cpu_pool_indices import PoolIndices

        return PoolIndices(group)
    if anchor.op.name == "MaxPool":
        return Pooling(group, "max")
    flat = anchor.lowered and len(data.shape) < 5  # between two steps the data have the input's type
    types = (*FLOATS, "u8", "i8") if flat else FLOATS
    return Pooling(group, "avg") if data.dtype in types else None
