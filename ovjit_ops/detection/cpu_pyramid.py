"""Native PyramidAlign in f32: which map serves each region, and then ROIAlign on every map of its regions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.codegen.function import kernel
from ovjit.codegen.words import *
from ovjit.compiler.lower import Lowering, Shapes
from ovjit.compiler.plan import NotNative, Planner
from ovjit.compiler.views import Layout, channels_last, named_strides
from ovjit.graph.graph import Value
from ovjit_ops.detection.cpu_roi_align import roi_align
from ovjit_ops.detection.cpu_roi_pooling import region_values
from ovjit_ops.detection.sampling import OFFSETS


@kernel
def pyramid_levels(rois: Ptr, at: Ptr, r_n, r_k, regions, *, many):
    """at[level, r] = 0 where that map serves the region, else -1. 224 pixels square are level 2."""
    for r in range(0, regions, VL):
        left = regions - r
        p = rois + r * r_n
        w = gather[f32](p + 2 * r_k, r_n, left) - gather[f32](p, r_n, left)
        h = gather[f32](p + 3 * r_k, r_n, left) - gather[f32](p + r_k, r_n, left)
        area = w * h
        side = sqrt(maximum(area, const[f32](0.0))) / const[f32](224.0) + const[f32](1e-6)
        # through f64, so that the logarithm is rounded once
        height = cast[f32](libm_log[f64](cast[f64](side)) * const[f64](1 / math.log(2.0)))
        level = floor(const[f32](2.0) + height)
        known = (area > const[f32](0.0)) & (level - level == const[f32](0.0))
        level = select(known, level, const[f32](0.0))
        level = minimum(maximum(level, const[f32](0.0)), const[f32](many - 1.0))
        for k in range(many):
            mine = select(level == const[f32](k * 1.0), const[i32](0), const[i32](-1))
            storem[i32](at + (k * regions + r) * 4, mine, left)


class PyramidAlign(Lowering):
    """A step that sorts out regions, and one for each map."""

    takes = (("f32",),)

    def set_up(self) -> None:
        self.rois, *self.maps = self.node.inputs
        self.levels = pyramid_levels(many=len(self.maps))
        self.kernel = roi_align(mean=True, turned=False, index="i32", partial=True)
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
        values: dict[str, Any] = {
            "rois": rois.ptr, "at": at.ptr, "regions": regions, **named_strides(r=(rois, "nk"))
        }
        planner.step(self.levels, values, 1, [rois], [at], 100 * regions)
        shift, after = OFFSETS["half_pixel_for_nn" if attrs["aligned"] else "asymmetric"]
        samples = max(attrs["sampling_ratio"], 1) ** 2
        work = size * samples * channels * 8 // len(maps)
        for i, (x, scale) in enumerate(zip(maps, attrs["pyramid_scales"], strict=True)):
            values = region_values(planner, x, rois, y, (np.float32(1 / scale), shift, after))
            values |= {
                "at": at.ptr + i * regions * 4, "at_n": 4, "ratio": attrs["sampling_ratio"],
                "clamp": int(not attrs["aligned"]),
            }  # fmt: skip
            flops = y.count * samples * 8 // len(maps)
            planner.share_step(self.kernel, values, values["rows"], work, [x, rois, at], [y], flops)
        planner.need_scratch((channels + 64) * 4)
