"""Native DeformablePSROIPooling in f32: channels last, vectors of channels.

A chunk is a range of (region, row of bins). Coordinates of samples are computed in f64 and clamped to the
map, whatever the offsets.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.planning.launch import launch
from ovjit.planning.plan import NotNative, Planner
from ovjit.records import NamedTuple
from ovjit_ops.detection.cpu_roi_pooling import (
    Regions,
    at_least,
    image_of,
    interpolate,
    numbers,
    round_coordinate,
)


@inline
def clamp_coordinate(coordinate, extent):
    """Clamp a coordinate, which is at most half an element outside, to the map."""
    value = coordinate
    if value < 0.0:
        value = 0.0
    if value > extent - 1.0:
        value = extent - 1.0
    return value


@inline
def several(p, step, count, adjacent):
    """Load `count` channels of a bin, `step` bytes apart."""
    return loadm[f32](p, count) if adjacent else gather[f32](p, step, count)


class Parts(NamedTuple):
    """Classes of offsets, and channels of each; byte stride between channels of a bin; parts with offsets
    along a side; samples of a bin along y and x."""

    classes: int
    each: int
    step: int
    part: int
    bins_y: int
    bins_x: int


@kernel(
    over="r ph", x="n maps:1 h w", rois="r k", offsets="regions moves oh ow", y="r c ph pw", of=Raw(Parts)
)
def deformable_pooling(
    x: Tensor, rois: Tensor, offsets: Tensor, settings: Ptr, y: Tensor, of, *, moved, adjacent
):
    """The mean of each bin's samples. `moved`: with offsets; `adjacent`: the channels of a bin are
    contiguous. Returns 1 for an image out of range."""
    scale = ld[f64](settings)
    reach = ld[f64](settings + 8)
    group = y.size.ph
    for r, i, roi, row_of_bins in items(rois, y):
        image = image_of(roi, x.size.n)
        if image >= x.size.n:
            return 1
        x1 = round_coordinate(ld[f32](roi + rois.stride.k) * 1.0)
        y1 = round_coordinate(ld[f32](roi + 2 * rois.stride.k) * 1.0)
        x2 = round_coordinate(ld[f32](roi + 3 * rois.stride.k) * 1.0)
        y2 = round_coordinate(ld[f32](roi + 4 * rois.stride.k) * 1.0)
        left = x1 * scale - 0.5
        top = y1 * scale - 0.5
        w_roi = at_least((x2 + 1) * scale - 0.5 - left, 0.1)
        h_roi = at_least((y2 + 1) * scale - 0.5 - top, 0.1)
        step_y = h_roi / group / of.bins_y
        step_x = w_roi / group / of.bins_x
        for j in range(group):
            for label in range(of.classes):
                y0 = top + i * h_roi / group
                x0 = left + j * w_roi / group
                if moved:
                    o = offsets.at(regions=r, oh=i * of.part // group, ow=j * of.part // group)
                    x0 += ld[f32](offsets.at(o, moves=2 * label)) * reach * w_roi
                    y0 += ld[f32](offsets.at(o, moves=2 * label + 1)) * reach * h_roi
                source = x.at(n=max(image, 0)) + label * of.each * of.step + (i * group + j) * 4
                target = y.at(row_of_bins, pw=j, c=label * of.each)
                for k in range(0, of.each, VL):
                    acc = const[f32](0.0)
                    samples = 0
                    for a in range(of.bins_y):
                        py = y0 + a * step_y
                        if image >= 0 and py >= -0.5 and py <= x.size.h - 0.5:
                            fy = clamp_coordinate(py, x.size.h)
                            i0 = to_int(fy)
                            i1 = min(i0 + 1, x.size.h - 1)
                            dy = cast[f32](spread[f64](fy - i0))
                            for b in range(of.bins_x):
                                px = x0 + b * step_x
                                if px >= -0.5 and px <= x.size.w - 0.5:
                                    fx = clamp_coordinate(px, x.size.w)
                                    j0 = to_int(fx)
                                    j1 = min(j0 + 1, x.size.w - 1)
                                    dx = cast[f32](spread[f64](fx - j0))
                                    p = source + k * of.step
                                    v00 = several(x.at(p, h=i0, w=j0), of.step, of.each - k, adjacent)
                                    v01 = several(x.at(p, h=i0, w=j1), of.step, of.each - k, adjacent)
                                    v10 = several(x.at(p, h=i1, w=j0), of.step, of.each - k, adjacent)
                                    v11 = several(x.at(p, h=i1, w=j1), of.step, of.each - k, adjacent)
                                    sample = interpolate(v00, v01, v10, v11, dx, dy)
                                    acc = acc + sample
                                    samples += 1
                    acc = acc / cast[f32](spread[f64](max(samples, 1) * 1.0))
                    store_spaced(y.at(target, c=k), y.stride.c, acc, of.each - k, f32)


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
        settings = numbers(planner, np.float32(attrs["spatial_scale"]), np.float32(attrs["trans_std"]))
        tensors = {"x": x, "rois": rois, "y": y}
        if self.offsets:
            tensors["offsets"] = planner.view(self.offsets[0])
        bins = attrs["spatial_bins_y"], attrs["spatial_bins_x"]
        launch(
            planner, self.kernel, tensors, ("y",), work=group * dim * samples * 8,
            flops=8.0 * y.count * samples, settings=settings,
            of=Parts(classes, dim // classes, group * group * 4, part, *bins),
        )  # fmt: skip
