"""Native MaxPool that also says where each maximum is: channels last, a vector of channels at a time.

The first of equals counts, and a NaN is the largest. A chunk is a range of output rows; windows are clipped
to the input, over one or two spatial dimensions.
"""

from __future__ import annotations

import functools

import numpy as np

from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.function import kernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.words import VL, Ptr, cast, const, i64, inf, loadm, select, share, spread, storem
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import ChannelsLast, Lowering
from ovjit.compiler.plan import Planner, ceil_div, split
from ovjit.graph.dtypes import FLOATS
from ovjit.graph.shapes import normalize_axis
from ovjit_ops.pooling.cpu_windows import (
    first_tap,
    picture_strides,
    row_and_column,
    taps,
    window_values,
    windows_of,
)


@kernel
def pool_indices(
    x: Ptr, y: Ptr, where: Ptr, channels: Ptr, x_n, x_h, x_w, y_n, y_h, y_w, z_n, z_h, z_w, oh, ow, h, w, c,
    kh, kw, sh, sw, dh, dw, ph, pw, by_row, by_image, rows, per_chunk, *, T, index,
):  # fmt: skip
    for row in share(rows, per_chunk):
        img = row // oh
        oi = row % oh
        top = oi * sh - ph
        i0 = first_tap(top, dh)
        i1 = taps(top, dh, kh, h)
        for oj in range(ow):
            left = oj * sw - pw
            j0 = first_tap(left, dw)
            j1 = taps(left, dw, kw, w)
            source = x + img * x_n + top * x_h + left * x_w
            target = y + img * y_n + oi * y_h + oj * y_w
            places = where + img * z_n + oi * z_h + oj * z_w
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
                    at = at + (loadm[i64](channels + k * 8, rest) + spread[i64](img * by_image))
                storem[T](target + k * SIZE[T], best, rest)
                storem[index](places + k * SIZE[index], cast[index](at), rest)


@functools.cache
def indices_kernel(dtype: str, index: str) -> Kernel:
    return pool_indices.kernel(f"max_pool_indices_{dtype}_{index}", T=dtype, index=index)


class PoolIndices(ChannelsLast):
    def __init__(self, group: Group):
        super().__init__(group)
        self.node = group.last
        self.data = self.node.inputs[0]
        self.out, self.index = self.node.outputs
        self.kernel = indices_kernel(self.out.dtype, self.index.dtype)
        self.kernels = (self.kernel,)

    def plan(self, planner: Planner) -> None:
        shape, out = planner.shape(self.data), planner.shape(self.out)
        x = planner.with_halo(self.data, [(0, 0)] * len(shape))
        y, z = planner.channels_last_output(self.out), planner.channels_last_output(self.index)
        if not y.count:
            return
        row, column = row_and_column(windows_of(self.node, shape[2:], out[2:]))
        values = window_values(row, column)
        for name, view in (("x", x), ("y", y), ("z", z)):
            values |= dict(zip((f"{name}_n", f"{name}_h", f"{name}_w"), picture_strides(view), strict=True))
        axis = normalize_axis(self.node.attrs["axis"], len(shape))
        inside = row.extent * column.extent
        channels = np.arange(shape[1], dtype=np.int64) * (inside if axis <= 1 else 0)
        rows = out[0] * row.outputs
        per_chunk = split(rows, column.outputs * shape[1] * row.kernel * column.kernel * 3)
        values |= {
            "x": x.ptr, "y": y.ptr, "where": z.ptr, "channels": planner.data.view(channels, "i64").ptr,
            "c": shape[1], "by_row": column.extent if axis <= 2 else 0,
            "by_image": shape[1] * inside if axis == 0 else 0, "rows": rows, "per_chunk": per_chunk,
        }  # fmt: skip
        flops = y.count * row.kernel * column.kernel
        planner.step(self.kernel, values, ceil_div(rows, per_chunk), [x], [y, z], flops)


def lower_indices(group: Group) -> Lowering | None:
    """Native for floats in one or two dimensions."""
    data = group.last.inputs[0]
    return PoolIndices(group) if data.dtype in FLOATS and len(data.shape) in (3, 4) else None
