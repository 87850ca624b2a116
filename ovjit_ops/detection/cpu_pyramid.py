"""Native PyramidAlign in f32: selects the map of each region, then runs ROIAlign on every map for its
regions."""

from __future__ import annotations

import math

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.graph import Value
from ovjit.planning.lower import Layout, Lowering, NotNative, Planner, Shapes, View, channels_last, launch
from ovjit_ops.detection.cpu_roi_align import roi_align
from ovjit_ops.detection.cpu_roi_pooling import numbers
from ovjit_ops.detection.sampling import OFFSETS


@kernel(rois="r k", at="level r")
def pyramid_levels(rois: Tensor, at: Tensor, *, level_count):
    """at[level, r] = 0 if the region belongs to this map, else -1. 224 x 224 pixels are level 2."""
    step = rois.stride.r
    for i in range(0, rois.size.r, VL):
        remaining = rois.size.r - i
        x1 = gather[f32](rois.at(r=i, k=0), step, remaining)
        y1 = gather[f32](rois.at(r=i, k=1), step, remaining)
        w = gather[f32](rois.at(r=i, k=2), step, remaining) - x1
        h = gather[f32](rois.at(r=i, k=3), step, remaining) - y1
        area = w * h
        side = sqrt(maximum(area, const[f32](0.0))) / const[f32](224.0) + const[f32](1e-6)
        # in f64, so that the logarithm is rounded once
        height = cast[f32](libm_log[f64](cast[f64](side)) * const[f64](1 / math.log(2.0)))
        level = floor(const[f32](2.0) + height)
        finite = (area > const[f32](0.0)) & (level - level == const[f32](0.0))
        level = select(finite, level, const[f32](0.0))
        level = minimum(maximum(level, const[f32](0.0)), const[f32](level_count - 1.0))
        for k in range(level_count):
            mine = select(level == const[f32](k * 1.0), const[i32](0), const[i32](-1))
            storem[i32](at.at(level=k, r=i), mine, remaining)


class PyramidAlign(Lowering):
    """One step that assigns regions to maps, and one for each map."""

    takes = (("f32",),)

    def set_up(self) -> None:
        self.rois, *self.maps = self.node.inputs
        self.levels = pyramid_levels(level_count=len(self.maps))
        self.kernel = roi_align(mean=True, rotated=False, index="i32", partial=True)
        self.kernels = (self.levels, self.kernel)

    def input_layouts(self, shape: Shapes) -> list[tuple[Value, Layout]]:
        return [(v, channels_last(4)) for v in self.maps]

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        return channels_last(4)

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        if any(0 in planner.shape(v) for v in self.maps):
            raise NotNative
        maps = [planner.with_halo(v, [(0, 0)] * 4) for v in self.maps]
        rois = planner.view(self.rois)
        y = planner.output(self.out)
        if not y.count:
            return
        regions, channels, size, _ = y.shape
        at = planner.allocate((len(maps), regions), 4)
        launch(planner, self.levels, {"rois": rois, "at": at}, ("at",), flops=100 * regions)
        shift, after = OFFSETS["half_pixel_for_nn" if attrs["aligned"] else "asymmetric"]
        samples = max(attrs["sampling_ratio"], 1) ** 2
        work = size * samples * channels * 8 // len(maps)
        for i, (x, scale) in enumerate(zip(maps, attrs["pyramid_scales"], strict=True)):
            here = View(at.buffer, (regions,), (4,), 4, at.offset + i * regions * 4)
            launch(
                planner, self.kernel, {"x": x, "rois": rois, "at": here, "y": y}, ("y",), work=work,
                flops=y.count * samples * 8 // len(maps),
                settings=numbers(planner, np.float32(1 / scale), shift, after),
                ratio=attrs["sampling_ratio"], clamp=int(not attrs["aligned"]),
            )  # fmt: skip
        planner.need_scratch((channels + 64) * 4)
