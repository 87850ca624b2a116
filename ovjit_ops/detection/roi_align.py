"""ROIAlign and ROIAlignRotated: regions of feature maps as small maps of one size, by bilinear samples.

    data [N, C, H, W]  rois [R, 4 or 5]  batch_indices [R]  ->  [R, C, pooled_h, pooled_w]

A region is divided into pooled_h x pooled_w bins, and each bin into samples. The maximum of a bin is at least
0: OpenVINO's CPU device gives 0 for a bin of negative samples.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.graph.dtypes import FULL
from ovjit.graph.op import Bool, Int, Positive, Single, TensorType, Word, op
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import INTEGERS, widen_floats
from ovjit_ops.detection import sampling
from ovjit_ops.elementwise.arithmetic import REALS


def infer_regions(
    data: TensorType, rois: TensorType, batches: TensorType, numbers: int, attrs: dict[str, Any]
):
    """[R, C, pooled_h, pooled_w]"""
    check_type(data, REALS)
    check_type(batches, INTEGERS, "batch_indices")
    sampling.check_ratio(attrs["sampling_ratio"])
    dims = unify(data=(data, ".C.."), rois=(rois, f"R{numbers}"), batch_indices=(batches, "R"))
    return TensorType(data.dtype, (*dims.shape("RC"), attrs["pooled_h"], attrs["pooled_w"]))


def roi_align(
    data: np.ndarray, rois: np.ndarray, batches: np.ndarray, attrs: dict[str, Any], aligned: str
) -> np.ndarray:
    shift, after = sampling.OFFSETS[aligned]
    height, width, ratio = attrs["pooled_h"], attrs["pooled_w"], attrs["sampling_ratio"]
    out = np.zeros((len(rois), data.shape[1], height, width), widen_floats(data).dtype)
    corners = (widen_floats(rois).astype(np.float64) + shift) * np.float32(attrs["spatial_scale"]) + after
    for r, (image, (x1, y1, x2, y2)) in enumerate(
        zip(sampling.checked_batches(batches, len(data)), corners, strict=True)
    ):
        h, w = y2 - y1, x2 - x1
        if aligned == "asymmetric":
            h, w = max(h, 1.0), max(w, 1.0)
        rows, columns = sampling.bin_samples(h, w, (height, width), ratio)
        if not rows or not columns:
            continue
        y = y1 + (np.arange(height * rows) + 0.5) * (h / height / rows)
        x = x1 + (np.arange(width * columns) + 0.5) * (w / width / columns)
        samples = sampling.bilinear_grid(widen_floats(data[image]), y, x)
        bins = samples.reshape(-1, height, rows, width, columns)
        out[r] = bins.mean((2, 4)) if attrs["mode"] == "avg" else np.maximum(bins.max((2, 4)), 0)
    return out.astype(data.dtype)


@op(
    "ROIAlign", opset=3, types=REALS, native=FULL,
    lower=".cpu_roi_align:RoiAlign.of", ulp=64
)  # fmt: skip
class ROIAlign3:
    """Each bin has the mean or the maximum of its samples. Regions are at least one element wide."""

    words = {"mode": "avg max"}

    def infer(
        data, rois, batch_indices, *, pooled_h: Positive, pooled_w: Positive, sampling_ratio: Int,
        spatial_scale: Single, mode: Word,
    ):  # fmt: skip
        return infer_regions(data, rois, batch_indices, 4, locals())

    def ref(data, rois, batch_indices, **attrs):
        return roi_align(data, rois, batch_indices, attrs, "asymmetric")


@op("ROIAlign", opset=9, like=ROIAlign3)
class ROIAlign9:
    """ROIAlign-3 with three conventions for pixel coordinates. Opset 14 has the same."""

    words = {**ROIAlign3.words, "aligned_mode": sampling.OFFSETS}

    def infer(data, rois, batch_indices, *, mode: Word, aligned_mode: Word = "asymmetric", **attrs):
        return infer_regions(data, rois, batch_indices, 4, attrs)

    def ref(data, rois, batch_indices, **attrs):
        return roi_align(data, rois, batch_indices, attrs, attrs["aligned_mode"])


@op("ROIAlignRotated", opset=15, types=REALS, native=FULL, lower=".cpu_roi_align:RoiAlign.of", ulp=64)
class ROIAlignRotated:
    """Regions given by centre, size and angle (radians). The mean of the samples of each bin."""

    def infer(
        data, rois, batch_indices, *, pooled_h: Positive, pooled_w: Positive, sampling_ratio: Int,
        spatial_scale: Single, clockwise_mode: Bool,
    ):  # fmt: skip
        return infer_regions(data, rois, batch_indices, 5, locals())

    def ref(data, rois, batch_indices, **attrs):
        height, width, ratio = attrs["pooled_h"], attrs["pooled_w"], attrs["sampling_ratio"]
        scale = float(np.float32(attrs["spatial_scale"]))
        out = np.zeros((len(rois), data.shape[1], height, width), widen_floats(data).dtype)
        images = sampling.checked_batches(batch_indices, len(data))
        for r, (image, roi) in enumerate(zip(images, rois, strict=True)):
            cx, cy, w, h, angle = (float(v) for v in widen_floats(roi))
            cx, cy, w, h = cx * scale - 0.5, cy * scale - 0.5, w * scale, h * scale
            rows, columns = sampling.bin_samples(h, w, (height, width), ratio)
            if not rows or not columns:
                continue
            cos, sin = (math.cos(angle), math.sin(angle)) if math.isfinite(angle) else (math.nan, math.nan)
            if attrs["clockwise_mode"]:
                sin = -sin
            v = -h / 2 + (np.arange(height * rows) + 0.5) * (h / height / rows)
            u = -w / 2 + (np.arange(width * columns) + 0.5) * (w / width / columns)
            dy, dx = (p.reshape(-1) for p in np.meshgrid(v, u, indexing="ij"))
            down, right = dy * cos - dx * sin + cy, dy * sin + dx * cos + cx
            samples = sampling.bilinear(widen_floats(data[image]), down, right)
            out[r] = samples.reshape(-1, height, rows, width, columns).mean((2, 4))
        return out.astype(data.dtype)
