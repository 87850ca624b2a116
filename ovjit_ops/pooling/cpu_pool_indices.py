"""Native MaxPool and AdaptiveMaxPool that also say where each maximum is, a vector of channels at a time.

The first of equals counts, and a NaN is the largest. A chunk is a range of output rows; windows are clipped
to the input, over one or two spatial dimensions.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.function import inline, kernel
from ovjit.codegen.words import *
from ovjit.compiler.lower import ChannelsLast
from ovjit.compiler.plan import NotNative, Planner, ceil_div
from ovjit.graph.dtypes import FLOATS
from ovjit.graph.shapes import normalize_axis
from ovjit_ops.pooling.cpu_windows import (
    Window,
    first_tap,
    picture_strides,
    row_and_column,
    taps,
    window_values,
    windows_of,
)


@inline
def largest_of(
    source, target, places, i0, i1, j0, j1, dh, dw, x_h, x_w, top, left, by_row, base, channels, c, T, index
):
    """The largest of the taps of a window, for each of c channels, and where it is."""
    for k in range(0, c, VL):
        rest = c - k
        best = const[T](-inf)
        at = spread[i64](0)
        fresh = 1
        for i in range(i0, i1):
            for j in range(j0, j1):
                v = loadm[T](source + i * dh * x_h + j * dw * x_w + k * SIZE[T], rest)
                here = spread[i64]((top + i * dh) * by_row + left + j * dw)
                if fresh == 1:
                    at = here
                    best = v
                    fresh = 0
                else:
                    better = (v > best) | ((v != v) & (best == best))
                    at = select(better, here, at)
                    best = select(better, v, best)
        if fresh == 0:
            at = at + (loadm[i64](channels + k * 8, rest) + spread[i64](base))
        storem[T](target + k * SIZE[T], best, rest)
        storem[index](places + k * SIZE[index], cast[index](at), rest)


@kernel
def max_pool_indices(
    x: Ptr, y: Ptr, where: Ptr, channels: Ptr, x_n, x_h, x_w, y_n, y_h, y_w, z_n, z_h, z_w, oh, ow, h, w, c,
    kh, kw, sh, sw, dh, dw, ph, pw, by_row, by_image, rows, per_chunk, *, T, index, adaptive,
):  # fmt: skip
    """With `adaptive` windows, they split the input into oh x ow parts."""
    for row in share(rows, per_chunk):
        img = udiv(row, oh)
        oi = urem(row, oh)
        if adaptive:
            top = oi * h // oh
            i0 = 0
            i1 = ((oi + 1) * h + oh - 1) // oh - top
        else:
            top = oi * sh - ph
            i0 = first_tap(top, dh)
            i1 = taps(top, dh, kh, h)
        for oj in range(ow):
            if adaptive:
                left = oj * w // ow
                j0 = 0
                j1 = ((oj + 1) * w + ow - 1) // ow - left
            else:
                left = oj * sw - pw
                j0 = first_tap(left, dw)
                j1 = taps(left, dw, kw, w)
            source = x + img * x_n + top * x_h + left * x_w
            target = y + img * y_n + oi * y_h + oj * y_w
            places = where + img * z_n + oi * z_h + oj * z_w
            largest_of(
                source, target, places, i0, i1, j0, j1, dh, dw, x_h, x_w, top, left, by_row, img * by_image,
                channels, c, T, index,
            )  # fmt: skip


class PoolIndices(ChannelsLast):
    takes = (FLOATS, None)
    ranks = ((3, 4),)

    def set_up(self) -> None:
        self.data = self.node.inputs[0]
        self.index = self.node.outputs[1]
        self.adaptive = self.node.op.name == "AdaptiveMaxPool"
        self.kernel = max_pool_indices(T=self.out.dtype, index=self.index.dtype, adaptive=self.adaptive)

    def plan(self, planner: Planner) -> None:
        shape, out = planner.shape(self.data), planner.shape(self.out)
        x = planner.with_halo(self.data, [(0, 0)] * len(shape))
        if self.adaptive and any(e == 0 for e in shape[2:]):  # windows of nothing are refused
            raise NotNative
        y, z = planner.channels_last_output(self.out), planner.channels_last_output(self.index)
        if not y.count:
            return
        if self.adaptive:
            windows = [Window(e, o, ceil_div(e, o)) for e, o in zip(shape[2:], out[2:], strict=True)]
        else:
            windows = windows_of(self.node, shape[2:], out[2:])
        row, column = row_and_column(windows)
        values = window_values(row, column)
        for name, view in (("x", x), ("y", y), ("z", z)):
            values |= dict(zip((f"{name}_n", f"{name}_h", f"{name}_w"), picture_strides(view), strict=True))
        axis = 2 if self.adaptive else normalize_axis(self.node.attrs["axis"], len(shape))
        inside = row.extent * column.extent
        channels = np.arange(shape[1], dtype=np.int64) * (inside if axis <= 1 else 0)
        rows = out[0] * row.outputs
        values |= {
            "x": x.ptr, "y": y.ptr, "where": z.ptr, "channels": planner.data.view(channels, "i64").ptr,
            "c": shape[1], "by_row": column.extent if axis <= 2 else 0,
            "by_image": shape[1] * inside if axis == 0 else 0, "rows": rows,
        }  # fmt: skip
        taps = row.kernel * column.kernel
        work = column.outputs * shape[1] * taps * 3
        planner.share_step(self.kernel, values, rows, work, [x], [y, z], y.count * taps)
