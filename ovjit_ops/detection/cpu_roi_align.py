"""Native ROIAlign and ROIAlignRotated in f32: channels last, vectors of channels.

A chunk is a range of (region, row of bins). The samples of a bin are added up in scratch memory, one at a
time. Coordinates are computed in f64 and compared with the map, so no region reads outside of it.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.planning.launch import launch
from ovjit.planning.plan import Planner
from ovjit_ops.detection.cpu_roi_pooling import Regions, numbers
from ovjit_ops.detection.sampling import MOST_SAMPLES, OFFSETS

_BATCHES = frozenset("i32 i64 u8 i8 u32 i16 u16".split())


@inline
def clamp_below(x, least):
    """x, but at least `least`, also if x is NaN."""
    value = x
    if not value >= least:
        value = least
    return value


@inline
def weight(a, b):
    return cast[f32](spread[f64](a * b))


@inline
def find_place(to, axis, p, extent):
    """Store the two pixels around p along an axis, and the weight of the second."""
    at = p
    if at < 0.0:
        at = 0.0
    to[axis, 0] = min(to_int(at), extent - 1)
    to[axis, 1] = min(to[axis, 0] + 1, extent - 1)
    to[axis, "part"] = at - to[axis, 0]
    if to[axis, 1] == to[axis, 0]:
        to[axis, "part"] = 0.0


@inline
def add_sample(x, source, to, mean):
    """Add the bilinear sample at a place of an image of x to the channels' sums, or update their maxima."""
    ly = to["y", "part"]
    lx = to["x", "part"]
    w00 = weight(1.0 - ly, 1.0 - lx)
    w01 = weight(1.0 - ly, lx)
    w10 = weight(ly, 1.0 - lx)
    w11 = weight(ly, lx)
    p00 = x.at(source, h=to["y", 0], w=to["x", 0])
    p01 = x.at(source, h=to["y", 0], w=to["x", 1])
    p10 = x.at(source, h=to["y", 1], w=to["x", 0])
    p11 = x.at(source, h=to["y", 1], w=to["x", 1])
    for k in range(0, x.size.c, VL):
        remaining = x.size.c - k
        v = loadm[f32](p00 + k * 4, remaining) * w00
        v = fma(loadm[f32](p01 + k * 4, remaining), w01, v)
        v = fma(loadm[f32](p10 + k * 4, remaining), w10, v)
        v = fma(loadm[f32](p11 + k * 4, remaining), w11, v)
        acc = load[f32](scratch + k * 4)
        acc = fma(const[f32](1.0), v, acc) if mean else maximum(acc, v)
        store[f32](scratch + k * 4, acc)


@inline
def store_bin(y, target, samples, mean):
    count = cast[f32](spread[f64](max(samples, 1) * 1.0))
    for k in range(0, y.size.c, VL):
        acc = load[f32](scratch + k * 4)
        if mean:
            acc = acc / count
        store_spaced(y.at(target, c=k), y.stride.c, acc, y.size.c - k, f32)


@inline
def find_rotated(to, rois, roi, scale, clamp):
    """Store the geometry of a rotated region to `to`: its first corner, its extents, and the steps in x and y
    of one step along each of its own axes."""
    to["w"] = ld[f32](rois.at(roi, k=2)) * scale
    to["h"] = ld[f32](rois.at(roi, k=3)) * scale
    angle = spread[f64](ld[f32](rois.at(roi, k=4)) * 1.0)
    y_y = lane[f64](libm_cos[f64](angle), 0)
    y_x = lane[f64](libm_sin[f64](angle), 0)
    if clamp == 0:
        y_x = 0.0 - y_x
    x_y = 0.0 - y_x
    to["x1"] = ld[f32](roi) * scale - 0.5 + (0.0 - to["w"] * 0.5) * y_y + (0.0 - to["h"] * 0.5) * x_y
    y1 = ld[f32](rois.at(roi, k=1)) * scale - 0.5
    to["y1"] = y1 + (0.0 - to["w"] * 0.5) * y_x + (0.0 - to["h"] * 0.5) * y_y
    to["xx"] = y_y
    to["xy"] = x_y
    to["yx"] = y_x
    to["yy"] = y_y


@inline
def find_upright(to, rois, roi, scale, shift, after, clamp):
    """Store the geometry of an axis-aligned region to `to`: its first corner and its extents."""
    to["x1"] = (ld[f32](roi) + shift) * scale + after
    to["y1"] = (ld[f32](rois.at(roi, k=1)) + shift) * scale + after
    to["w"] = (ld[f32](rois.at(roi, k=2)) + shift) * scale + after - to["x1"]
    to["h"] = (ld[f32](rois.at(roi, k=3)) + shift) * scale + after - to["y1"]
    if clamp == 1:
        to["w"] = clamp_below(to["w"], 1.0)
        to["h"] = clamp_below(to["h"], 1.0)


@kernel(over="r ph", x="n c:1 h w", rois="r k", at="r", y="r c ph pw")
def roi_align(
    x: Tensor, rois: Tensor, at: Tensor, settings: Ptr, y: Tensor, ratio, clamp, *, mean, rotated, index,
    partial,
):  # fmt: skip
    """The mean or the maximum of the samples of each bin. `rotated`: regions have an angle. `index`: type of
    image indices. `partial`: regions with negative indices are skipped.

    Returns 1 for an image out of range, 2 for a region with too many samples.
    """
    to = registers()
    scale = ld[f64](settings)
    shift = ld[f64](settings + 8)
    after = ld[f64](settings + 16)
    for _, i, roi, number, row_of_bins in items(rois, at, y):
        image = ld[index](number) + 0
        if image >= x.size.n:
            return 1
        bins = y.size.pw
        if image < 0:
            if partial:
                bins = 0
            else:
                return 1
        if rotated:
            find_rotated(to, rois, roi, scale, clamp)
        else:
            find_upright(to, rois, roi, scale, shift, after, clamp)
        n_y = ratio
        n_x = ratio
        if ratio == 0 and bins > 0:
            n_y = to_int(0.0 - (0.0 - to["h"] / y.size.ph) // 1.0 * 1.0)
            n_x = to_int(0.0 - (0.0 - to["w"] / y.size.pw) // 1.0 * 1.0)
            if n_y > MOST_SAMPLES or n_x > MOST_SAMPLES:
                return 2
            n_y = max(n_y, 0)
            n_x = max(n_x, 0)
            if n_y * n_x > MOST_SAMPLES:
                return 2
        step_y = 0.0
        step_x = 0.0
        if n_y * n_x > 0:
            step_y = to["h"] / y.size.ph / n_y
            step_x = to["w"] / y.size.pw / n_x
        source = x.at(n=image)
        for j in range(bins):
            for k in range(0, x.size.c, VL):
                store[f32](scratch + k * 4, const[f32](0.0))
            for a in range(n_y):
                dy = (i * n_y + a + 0.5) * step_y
                py = to["y1"] + dy
                if not rotated:
                    find_place(to, "y", py, x.size.h)
                for b in range(n_x):
                    dx = (j * n_x + b + 0.5) * step_x
                    px = to["x1"] + dx
                    if rotated:
                        py = to["y1"] + dy * to["yy"] + dx * to["yx"]
                        px = to["x1"] + dy * to["xy"] + dx * to["xx"]
                    if py >= -1.0 and py <= x.size.h and px >= -1.0 and px <= x.size.w:
                        if rotated:
                            find_place(to, "y", py, x.size.h)
                        find_place(to, "x", px, x.size.w)
                        add_sample(x, source, to, mean)
            store_bin(y, y.at(row_of_bins, pw=j), n_y * n_x, mean)


class RoiAlign(Regions):
    takes = (("f32",), ("f32",), _BATCHES)

    def set_up(self) -> None:
        self.data, self.rois, self.batches = self.node.inputs
        self.rotated = self.node.op.name == "ROIAlignRotated"
        mean = self.rotated or self.node.attrs["mode"] == "avg"
        self.kernel = roi_align(mean=mean, rotated=self.rotated, index=self.batches.dtype, partial=False)

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        x, rois, y = self.views(planner)
        at = planner.view(self.batches)
        aligned = attrs.get("aligned_mode", "asymmetric")
        shift, after = OFFSETS[aligned]
        samples = max(attrs["sampling_ratio"], 1) ** 2
        clamp = attrs["clockwise_mode"] if self.rotated else aligned == "asymmetric"
        settings = numbers(planner, np.float32(attrs["spatial_scale"]), shift, after)
        planner.need_scratch((x.shape[1] + 64) * 4)
        if y.count:
            launch(
                planner, self.kernel, {"x": x, "rois": rois, "at": at, "y": y}, ("y",),
                work=y.shape[3] * samples * x.shape[1] * 8, flops=8.0 * y.count * samples,
                settings=settings, ratio=attrs["sampling_ratio"], clamp=int(clamp),
            )  # fmt: skip
