"""Native ROIPooling by maxima and PSROIPooling by means, in f32: channels last, vectors of channels.

A chunk is a range of (region, row of bins). Bounds of bins are computed in f64 and held inside of the map.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import ChannelsLast, Host, Lowering
from ovjit.compiler.plan import Planner, ceil_div, split

_FAR = 1 << 30


def _rounded(name: str, value: str) -> str:
    """Lines that round halves away from zero; what is not finite is held near."""
    return f"""
        {name} = {value}
        if {name} >= 0.0:
            {name}_i = imin(whole({name} + 0.5), {_FAR})
        else:
            {name}_i = imax(whole({name} - 0.5), -{_FAR})"""


def _edges() -> str:
    """Lines that give the first corner and the size of the region: of maxima in whole elements."""
    names = ("x1", "y1", "x2", "y2")
    return "".join(_rounded(n, f"ld_f32(roi + {k} * r_k) * before") for k, n in enumerate(names, 1))


@functools.cache
def pooling_kernel(mean: bool) -> Kernel:
    frame = Frame().pointers("x", "rois", "settings", "y")
    frame.integers(
        "images", "h", "w", "c", "step", "x_n", "x_h", "x_w", "r_n", "r_k", "y_n", "y_c", "y_h", "y_w"
    )
    frame.integers("ph", "pw", "rows", "per_chunk")
    if mean:
        size = """
        left = x1_i * scale
        top = y1_i * scale
        w_roi = (x2_i + 1) * scale - left
        h_roi = (y2_i + 1) * scale - top
        if w_roi < 0.1:
            w_roi = 0.1
        if h_roi < 0.1:
            h_roi = 0.1"""
    else:
        size = """
        left = x1_i * 1.0
        top = y1_i * 1.0
        w_roi = imax(x2_i - x1_i + 1, 1) * 1.0
        h_roi = imax(y2_i - y1_i + 1, 1) * 1.0"""
    first = "const_f32(0.0)" if mean else "const_f32(-float_inf)"
    join = "add(acc, v)" if mean else "max_(acc, v)"
    load = "gather_f32(p, step, c - k)" if mean else "loadm_f32(p, c - k)"
    source = f"""@njit(nogil=True)
def kernel(bases, args, chunk, scratch):
{frame.prologue()}
    scale = ld_f64(settings)
    before = ld_f64(settings + 8)
    row = chunk * per_chunk
    stop = imin(row + per_chunk, rows)
    while row < stop:
        r = row // ph
        i = row % ph
        roi = rois + r * r_n
        number = ld_f32(roi) * 1.0
        there = number >= 0.0
        if number >= images:
            return 1
        image = 0
        if there:
            image = whole(number){_edges()}{size}
        y0 = imin(imax(whole((i * h_roi / ph + top) // 1.0), 0), h)
        y9 = imin(imax(whole(0.0 - (0.0 - ((i + 1) * h_roi / ph + top)) // 1.0), 0), h)
        j = 0
        while j < pw:
            x0 = imin(imax(whole((j * w_roi / pw + left) // 1.0), 0), w)
            x9 = imin(imax(whole(0.0 - (0.0 - ((j + 1) * w_roi / pw + left)) // 1.0), 0), w)
            many = 0
            if there:
                many = imax(x9 - x0, 0) * imax(y9 - y0, 0)
            source = x + image * x_n + {"(i * pw + j) * 4" if mean else "0"}
            target = y + r * y_n + i * y_h + j * y_w
            k = 0
            while k < c:
                acc = {first}
                if many > 0:
                    a = y0
                    while a < y9:
                        p = source + a * x_h + x0 * x_w + k * step
                        b = x0
                        while b < x9:
                            v = {load}
                            acc = {join}
                            p += x_w
                            b += 1
                        a += 1
                    {"acc = div(acc, cast_f32(spread_i64(many)))" if mean else "acc = acc"}
                else:
                    acc = const_f32(0.0)
                if y_c == 4:
                    storem_f32(target + k * 4, acc, c - k)
                else:
                    scatter_f32(target + k * y_c, y_c, acc, c - k)
                k += VL
            j += 1
        row += 1
    return 0
"""
    return Kernel(f"roi_pooling_{'mean' if mean else 'max'}", source, frame)


class RoiPooling(ChannelsLast):
    def __init__(self, group: Group):
        super().__init__(group)
        self.node = group.last
        self.data, self.rois = self.node.inputs
        self.out = self.node.output
        self.mean = self.node.op.name == "PSROIPooling"
        self.kernel = pooling_kernel(self.mean)
        self.kernels = (self.kernel,)

    def plan(self, planner: Planner) -> None:
        x = planner.with_halo(self.data, [(0, 0)] * 4)
        rois = planner.view(self.rois)
        if not x.count:
            Host(self.group).plan(planner)
            return
        y = planner.output(self.out)
        if not y.count:
            return
        ph, pw = y.shape[2:]
        scale = float(np.float32(self.node.attrs["spatial_scale"]))
        settings = np.array([scale, 1.0 if self.mean else scale])
        rows = y.shape[0] * ph
        area = x.shape[2] * x.shape[3] / (ph * pw)  # of a bin, if a region is the map
        per_chunk = split(rows, pw * y.shape[1] * area)
        values: dict[str, Any] = {
            "x": x.ptr, "rois": rois.ptr, "settings": planner.data.view(settings, "f64").ptr, "y": y.ptr,
            "images": x.shape[0], "h": x.shape[2], "w": x.shape[3], "c": y.shape[1],
            "step": ph * pw * 4 if self.mean else 4, "x_n": x.strides[0], "x_h": x.strides[2],
            "x_w": x.strides[3], "r_n": rois.strides[0], "r_k": rois.strides[1], "ph": ph, "pw": pw,
            "rows": rows, "per_chunk": per_chunk,
        }  # fmt: skip
        values |= dict(zip(("y_n", "y_c", "y_h", "y_w"), y.strides, strict=True))
        chunks = ceil_div(rows, per_chunk)
        planner.step(self.kernel, values, chunks, [x, rois], [y], float(y.count * area))


def lower_roi_pooling(group: Group) -> Lowering | None:
    """Native in f32, without bilinear samples."""
    data, rois = group.last.inputs
    way = group.last.attrs.get("method") or group.last.attrs["mode"]
    if data.dtype != "f32" or rois.dtype != "f32" or len(data.shape) != 4 or way.lower() == "bilinear":
        return None
    return RoiPooling(group)
