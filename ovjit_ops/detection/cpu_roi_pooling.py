"""Native ROIPooling by maxima and PSROIPooling by means, in f32: channels last, vectors of channels.

A chunk is a range of (region, row of bins). Bounds of bins are computed in f64 and held inside of the map.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ovjit.codegen.function import inline, kernel, spaced
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.words import (
    VL,
    Ptr,
    cast,
    const,
    f32,
    f64,
    gather,
    i64,
    inf,
    ld,
    loadm,
    maximum,
    share,
    spread,
    whole,
)
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import ChannelsLast, Host, Lowering
from ovjit.compiler.plan import Planner, ceil_div, split

#: Where a corner that is not finite is held.
FAR = 1 << 30


@inline
def rounded(x):
    """Halves away from zero; what is not finite is held near."""
    if x >= 0.0:
        near = min(whole(x + 0.5), FAR)
    else:
        near = max(whole(x - 0.5), -FAR)
    return near


@inline
def at_least(x, least):
    """x, or `least` where it is smaller."""
    value = x
    if value < least:
        value = least
    return value


@inline
def bound(place, extent):
    """A bin's first element on an axis."""
    return min(max(whole(place // 1.0), 0), extent)


@kernel
def roi_pooling(
    x: Ptr, rois: Ptr, settings: Ptr, y: Ptr, images, h, w, c, step, x_n, x_h, x_w, r_n, r_k, y_n, y_c, y_h,
    y_w, ph, pw, rows, per_chunk, *, mean,
):  # fmt: skip
    scale = ld[f64](settings)
    before = ld[f64](settings + 8)
    for row in share(rows, per_chunk):
        r = row // ph
        i = row % ph
        roi = rois + r * r_n
        number = ld[f32](roi) * 1.0
        there = number >= 0.0
        if number >= images:
            return 1
        image = 0
        if there:
            image = whole(number)
        x1 = rounded(ld[f32](roi + r_k) * before)
        y1 = rounded(ld[f32](roi + 2 * r_k) * before)
        x2 = rounded(ld[f32](roi + 3 * r_k) * before)
        y2 = rounded(ld[f32](roi + 4 * r_k) * before)
        if mean:
            left = x1 * scale
            top = y1 * scale
            w_roi = at_least((x2 + 1) * scale - left, 0.1)
            h_roi = at_least((y2 + 1) * scale - top, 0.1)
        else:  # of whole elements
            left = x1 * 1.0
            top = y1 * 1.0
            w_roi = max(x2 - x1 + 1, 1) * 1.0
            h_roi = max(y2 - y1 + 1, 1) * 1.0
        y0 = bound(i * h_roi / ph + top, h)
        y9 = min(max(whole(0.0 - (0.0 - ((i + 1) * h_roi / ph + top)) // 1.0), 0), h)
        for j in range(pw):
            x0 = bound(j * w_roi / pw + left, w)
            x9 = min(max(whole(0.0 - (0.0 - ((j + 1) * w_roi / pw + left)) // 1.0), 0), w)
            many = 0
            if there:
                many = max(x9 - x0, 0) * max(y9 - y0, 0)
            source = x + image * x_n
            if mean:
                source += (i * pw + j) * 4
            target = y + r * y_n + i * y_h + j * y_w
            for k in range(0, c, VL):
                acc = const[f32](0.0 if mean else -inf)
                if many > 0:
                    for a in range(y0, y9):
                        p = source + a * x_h + x0 * x_w + k * step
                        for _ in range(x0, x9):
                            v = gather[f32](p, step, c - k) if mean else loadm[f32](p, c - k)
                            acc = acc + v if mean else maximum(acc, v)
                            p += x_w
                    if mean:
                        acc = acc / cast[f32](spread[i64](many))
                else:
                    acc = const[f32](0.0)
                spaced(target + k * y_c, y_c, acc, c - k, f32)


@functools.cache
def pooling_kernel(mean: bool) -> Kernel:
    return roi_pooling.kernel(f"roi_pooling_{'mean' if mean else 'max'}", mean=mean)


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
