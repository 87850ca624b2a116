"""Native DeformablePSROIPooling in f32: channels last, vectors of channels.

A chunk is a range of (region, row of bins). Where a sample lies is computed in f64 and held inside of the
map, whatever offsets say.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.function import inline, kernel, spaced
from ovjit.codegen.words import *
from ovjit.compiler.plan import NotNative, Planner
from ovjit.compiler.views import named_strides
from ovjit_ops.detection.cpu_roi_pooling import (
    Regions,
    at_least,
    image_of,
    interpolated,
    region_values,
    rounded,
)


@inline
def held(place, extent):
    """A place that is at most half an element outside, as the nearest one that is inside."""
    value = place
    if value < 0.0:
        value = 0.0
    if value > extent - 1.0:
        value = extent - 1.0
    return value


@inline
def several(p, step, count, adjacent):
    """The channels of a bin at a place: every `step` bytes one."""
    return loadm[f32](p, count) if adjacent else gather[f32](p, step, count)


@kernel
def deformable_pooling(
    x: Ptr, rois: Ptr, offsets: Ptr, settings: Ptr, y: Ptr, images, h, w, classes, each, step, x_n, x_h, x_w,
    r_n, r_k, o_n, o_c, o_h, o_w, y_n, y_c, y_h, y_w, group, part, bins_y, bins_x, rows, per_chunk, *, moved,
    adjacent,
):  # fmt: skip
    """The mean of each bin's samples. `moved`: there are offsets; `adjacent`: a bin reads all channels."""
    scale = ld[f64](settings)
    reach = ld[f64](settings + 8)
    for row in share(rows, per_chunk):
        r = row // group
        i = row % group
        roi = rois + r * r_n
        image = image_of(roi, images)
        if image >= images:
            return 1
        x1 = rounded(ld[f32](roi + r_k) * 1.0)
        y1 = rounded(ld[f32](roi + 2 * r_k) * 1.0)
        x2 = rounded(ld[f32](roi + 3 * r_k) * 1.0)
        y2 = rounded(ld[f32](roi + 4 * r_k) * 1.0)
        left = x1 * scale - 0.5
        top = y1 * scale - 0.5
        w_roi = at_least((x2 + 1) * scale - 0.5 - left, 0.1)
        h_roi = at_least((y2 + 1) * scale - 0.5 - top, 0.1)
        step_y = h_roi / group / bins_y
        step_x = w_roi / group / bins_x
        for j in range(group):
            for label in range(classes):
                y0 = top + i * h_roi / group
                x0 = left + j * w_roi / group
                if moved:
                    o = offsets + r * o_n + i * part // group * o_h + j * part // group * o_w
                    x0 += ld[f32](o + 2 * label * o_c) * reach * w_roi
                    y0 += ld[f32](o + (2 * label + 1) * o_c) * reach * h_roi
                source = x + max(image, 0) * x_n + label * each * step + (i * group + j) * 4
                target = y + r * y_n + i * y_h + j * y_w + label * each * y_c
                for k in range(0, each, VL):
                    acc = const[f32](0.0)
                    many = 0
                    for a in range(bins_y):
                        py = y0 + a * step_y
                        if image >= 0 and py >= -0.5 and py <= h - 0.5:
                            fy = held(py, h)
                            i0 = whole(fy)
                            i1 = min(i0 + 1, h - 1)
                            dy = cast[f32](spread[f64](fy - i0))
                            for b in range(bins_x):
                                px = x0 + b * step_x
                                if px >= -0.5 and px <= w - 0.5:
                                    fx = held(px, w)
                                    j0 = whole(fx)
                                    j1 = min(j0 + 1, w - 1)
                                    dx = cast[f32](spread[f64](fx - j0))
                                    p = source + k * step
                                    v00 = several(p + i0 * x_h + j0 * x_w, step, each - k, adjacent)
                                    v01 = several(p + i0 * x_h + j1 * x_w, step, each - k, adjacent)
                                    v10 = several(p + i1 * x_h + j0 * x_w, step, each - k, adjacent)
                                    v11 = several(p + i1 * x_h + j1 * x_w, step, each - k, adjacent)
                                    sample = interpolated(v00, v01, v10, v11, dx, dy)
                                    acc = acc + sample
                                    many += 1
                    acc = acc / cast[f32](spread[f64](max(many, 1) * 1.0))
                    spaced(target + k * y_c, y_c, acc, each - k, f32)


class DeformablePooling(Regions):
    def set_up(self) -> None:
        self.data, self.rois, *self.offsets = self.node.inputs
        self.kernel = deformable_pooling(
            moved=bool(self.offsets), adjacent=self.node.attrs["group_size"] == 1
        )

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        dim, group, part = attrs["output_dim"], attrs["group_size"], attrs["part_size"]
        shape = planner.shape(self.data)
        regions = planner.shape(self.rois)[0]
        moved = [planner.shape(v) for v in self.offsets]
        classes = max(moved[0][1] // 2, 1) if moved else 1
        fit = all(o[0] >= regions and min(o[2:]) >= part and o[1] >= 2 for o in moved)
        if not fit or dim % classes or 0 in shape:
            raise NotNative
        x, rois, y = self.views(planner)
        if not y.count:
            return
        samples = attrs["spatial_bins_y"] * attrs["spatial_bins_x"]
        numbers = (np.float32(attrs["spatial_scale"]), np.float32(attrs["trans_std"]))
        values = region_values(planner, x, rois, y, numbers)
        values |= {
            "classes": classes, "each": dim // classes, "step": group * group * 4, "group": group,
            "part": part, "bins_y": attrs["spatial_bins_y"], "bins_x": attrs["spatial_bins_x"],
        }  # fmt: skip
        offsets = [planner.view(v) for v in self.offsets]
        for view in offsets:
            values |= {"offsets": view.ptr, **named_strides(o=(view, "nchw"))}
        reads, work = [x, rois, *offsets], group * dim * samples * 8
        planner.share_step(self.kernel, values, values["rows"], work, reads, [y], 8.0 * y.count * samples)
