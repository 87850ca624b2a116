"""Native MaxPool that also says where each maximum is: channels last, a vector of channels at a time.

The first of equals counts, and a NaN is the largest. A chunk is a range of output rows; windows are clipped
to the input, over one or two spatial dimensions.
"""

from __future__ import annotations

import functools
from typing import Any

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
from ovjit_ops.common.windows import pool_window, resolve_pads


@kernel
def pool_indices(
    x: Ptr, y: Ptr, where: Ptr, channels: Ptr, x_n, x_h, x_w, y_n, y_h, y_w, z_n, z_h, z_w, oh, ow, h, w, c,
    kh, kw, sh, sw, dh, dw, ph, pw, by_row, by_image, rows, per_chunk, *, T, index,
):  # fmt: skip
    for row in share(rows, per_chunk):
        img = row // oh
        oi = row % oh
        top = oi * sh - ph
        i0 = max(0, (dh - 1 - top) // dh)
        i1 = min(kh, (h - top + dh - 1) // dh)
        for oj in range(ow):
            left = oj * sw - pw
            j0 = max(0, (dw - 1 - left) // dw)
            j1 = min(kw, (w - left + dw - 1) // dw)
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
        rank = len(shape) - 2
        window = pool_window(rank, self.node.attrs, torch=True)
        del window["rounding"]
        begin, _ = resolve_pads(extents=shape[2:], **window)
        x = planner.with_halo(self.data, [(0, 0)] * len(shape))
        y, z = planner.channels_last_output(self.out), planner.channels_last_output(self.index)
        if not y.count:
            return

        def pair(values: Any, missing: int) -> tuple[int, int]:
            return (missing, values[0]) if rank == 1 else (values[0], values[1])

        values: dict[str, Any] = {}
        for names, row, missing in (
            ("kh kw", window["kernel"], 1), ("sh sw", window["strides"], 1),
            ("dh dw", window["dilations"], 1), ("ph pw", begin, 0), ("h w", shape[2:], 1),
            ("oh ow", out[2:], 1),
            ("x_h x_w", x.strides[2:], 0), ("y_h y_w", y.strides[2:], 0), ("z_h z_w", z.strides[2:], 0),
        ):  # fmt: skip
            values |= dict(zip(names.split(), pair(row, missing), strict=True))
        axis = normalize_axis(self.node.attrs["axis"], len(shape))
        inside = values["h"] * values["w"]
        channels = np.arange(shape[1], dtype=np.int64) * (inside if axis <= 1 else 0)
        rows = out[0] * values["oh"]
        per_chunk = split(rows, values["ow"] * shape[1] * values["kh"] * values["kw"] * 3)
        values |= {
            "x": x.ptr, "y": y.ptr, "where": z.ptr, "channels": planner.data.view(channels, "i64").ptr,
            "x_n": x.strides[0], "y_n": y.strides[0], "z_n": z.strides[0], "c": shape[1],
            "by_row": values["w"] if axis <= 2 else 0, "by_image": shape[1] * inside if axis == 0 else 0,
            "rows": rows, "per_chunk": per_chunk,
        }  # fmt: skip
        flops = y.count * values["kh"] * values["kw"]
        planner.step(self.kernel, values, ceil_div(rows, per_chunk), [x], [y, z], flops)


def lower_indices(group: Group) -> Lowering | None:
    """Native for floats in one or two dimensions."""
    data = group.last.inputs[0]
    return PoolIndices(group) if data.dtype in FLOATS and len(data.shape) in (3, 4) else None
