"""Native ROIAlign and ROIAlignRotated in f32: channels last, vectors of channels.

A chunk is a range of (region, row of bins). A bin's samples are added up in scratch, one sample at a time;
where it lies is computed in f64 and checked against the map, so that no region reads anything else.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.function import inline, kernel, spaced
from ovjit.codegen.words import *
from ovjit.compiler.plan import Planner
from ovjit.compiler.views import named_strides
from ovjit_ops.detection.cpu_roi_pooling import Regions, region_values
from ovjit_ops.detection.sampling import MOST_SAMPLES, OFFSETS

_BATCHES = frozenset("i32 i64 u8 i8 u32 i16 u16".split())


@inline
def held(x, least):
    """x where it is at least that, else `least`, NaN included."""
    value = x
    if not value >= least:
        value = least
    return value


@inline
def weight(a, b):
    return cast[f32](spread[f64](a * b))


@inline
def add_sample(source, py, px, h, w, c, x_h, x_w, mean):
    """The bilinear sample at (py, px) to what scratch has for each channel."""
    y = py
    x = px
    if y < 0.0:
        y = 0.0
    if x < 0.0:
        x = 0.0
    i0 = min(whole(y), h - 1)
    j0 = min(whole(x), w - 1)
    i1 = min(i0 + 1, h - 1)
    j1 = min(j0 + 1, w - 1)
    ly = y - i0
    lx = x - j0
    if i1 == i0:
        ly = 0.0
    if j1 == j0:
        lx = 0.0
    w00 = weight(1.0 - ly, 1.0 - lx)
    w01 = weight(1.0 - ly, lx)
    w10 = weight(ly, 1.0 - lx)
    w11 = weight(ly, lx)
    p00 = source + i0 * x_h + j0 * x_w
    p01 = source + i0 * x_h + j1 * x_w
    p10 = source + i1 * x_h + j0 * x_w
    p11 = source + i1 * x_h + j1 * x_w
    for k in range(0, c, VL):
        left = c - k
        v = loadm[f32](p00 + k * 4, left) * w00
        v = fma(loadm[f32](p01 + k * 4, left), w01, v)
        v = fma(loadm[f32](p10 + k * 4, left), w10, v)
        v = fma(loadm[f32](p11 + k * 4, left), w11, v)
        acc = load[f32](scratch + k * 4)
        acc = fma(const[f32](1.0), v, acc) if mean else maximum(acc, v)
        store[f32](scratch + k * 4, acc)


@inline
def store_bin(target, y_c, c, samples, mean):
    count = cast[f32](spread[f64](max(samples, 1) * 1.0))
    for k in range(0, c, VL):
        acc = load[f32](scratch + k * 4)
        if mean:
            acc = acc / count
        spaced(target + k * y_c, y_c, acc, c - k, f32)


@kernel
def roi_align(
    x: Ptr, rois: Ptr, at: Ptr, settings: Ptr, y: Ptr, images, h, w, c, x_n, x_h, x_w, r_n, r_k, at_n, y_n,
    y_c, y_h, y_w, ph, pw, ratio, clamp, rows, per_chunk, *, mean, turned, index,
    partial,
):  # fmt: skip
    """The mean or the maximum of the samples. `turned`: regions have an angle. `index`: type of images.
    `partial`: regions of negative images are left out."""
    scale = ld[f64](settings)
    shift = ld[f64](settings + 8)
    after = ld[f64](settings + 16)
    for row in share(rows, per_chunk):
        r = row // ph
        i = row % ph
        image = ld[index](at + r * at_n) + 0
        if image >= images:
            return 1
        bins = pw
        if image < 0:
            if partial:
                bins = 0
            else:
                return 1
        roi = rois + r * r_n
        if turned:
            w_roi = ld[f32](roi + 2 * r_k) * scale
            h_roi = ld[f32](roi + 3 * r_k) * scale
            angle = spread[f64](ld[f32](roi + 4 * r_k) * 1.0)
            y_y = lane[f64](libm_cos[f64](angle), 0)
            y_x = lane[f64](libm_sin[f64](angle), 0)
            if clamp == 0:
                y_x = 0.0 - y_x
            x_x = y_y
            x_y = 0.0 - y_x
            # of the corner of the region, before it is turned about its centre
            x1 = ld[f32](roi) * scale - 0.5 + (0.0 - w_roi * 0.5) * x_x + (0.0 - h_roi * 0.5) * x_y
            y1 = ld[f32](roi + r_k) * scale - 0.5 + (0.0 - w_roi * 0.5) * y_x + (0.0 - h_roi * 0.5) * y_y
        else:
            x1 = (ld[f32](roi) + shift) * scale + after
            y1 = (ld[f32](roi + r_k) + shift) * scale + after
            w_roi = (ld[f32](roi + 2 * r_k) + shift) * scale + after - x1
            h_roi = (ld[f32](roi + 3 * r_k) + shift) * scale + after - y1
            if clamp == 1:
                w_roi = held(w_roi, 1.0)
                h_roi = held(h_roi, 1.0)
            x_x = 1.0
            x_y = 0.0
            y_x = 0.0
            y_y = 1.0
        n_y = ratio
        n_x = ratio
        if ratio == 0 and bins > 0:
            n_y = whole(0.0 - (0.0 - h_roi / ph) // 1.0 * 1.0)
            n_x = whole(0.0 - (0.0 - w_roi / pw) // 1.0 * 1.0)
            if n_y > MOST_SAMPLES or n_x > MOST_SAMPLES:
                return 2
            n_y = max(n_y, 0)
            n_x = max(n_x, 0)
            if n_y * n_x > MOST_SAMPLES:
                return 2
        step_y = 0.0
        step_x = 0.0
        if n_y * n_x > 0:
            step_y = h_roi / ph / n_y
            step_x = w_roi / pw / n_x
        source = x + image * x_n
        for j in range(bins):
            for k in range(0, c, VL):
                store[f32](scratch + k * 4, const[f32](0.0))
            for a in range(n_y):
                dy = (i * n_y + a + 0.5) * step_y
                for b in range(n_x):
                    dx = (j * n_x + b + 0.5) * step_x
                    py = y1 + dy * y_y + dx * y_x
                    px = x1 + dy * x_y + dx * x_x
                    if py >= -1.0 and py <= h and px >= -1.0 and px <= w:
                        add_sample(source, py, px, h, w, c, x_h, x_w, mean)
            store_bin(y + r * y_n + i * y_h + j * y_w, y_c, c, n_y * n_x, mean)


class RoiAlign(Regions):
    takes = (("f32",), ("f32",), _BATCHES)

    def set_up(self) -> None:
        self.data, self.rois, self.batches = self.node.inputs
        self.turned = self.node.op.name == "ROIAlignRotated"
        mean = self.turned or self.node.attrs["mode"] == "avg"
        self.kernel = roi_align(mean=mean, turned=self.turned, index=self.batches.dtype, partial=False)

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        x, rois, y = self.views(planner)
        at = planner.view(self.batches)
        aligned = attrs.get("aligned_mode", "asymmetric")
        shift, after = OFFSETS[aligned]
        samples = max(attrs["sampling_ratio"], 1) ** 2
        clamp = attrs["clockwise_mode"] if self.turned else aligned == "asymmetric"
        values = region_values(planner, x, rois, y, (np.float32(attrs["spatial_scale"]), shift, after))
        values |= {"at": at.ptr, "ratio": attrs["sampling_ratio"], "clamp": int(clamp)}
        values |= named_strides(at=(at, "n"))
        planner.need_scratch((x.shape[1] + 64) * 4)
        if y.count:
            work, flops = y.shape[3] * samples * x.shape[1] * 8, 8.0 * y.count * samples
            planner.share_step(self.kernel, values, values["rows"], work, [x, rois, at], [y], flops)
