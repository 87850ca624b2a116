"""ROIAlign and ROIAlignRotated: regions of feature maps as small maps of one size, by bilinear samples.

    data [N, C, H, W]  rois [R, 4 or 5]  batch_indices [R]  ->  [R, C, pooled_h, pooled_w]

A region is divided into pooled_h x pooled_w bins, and each bin into samples. The maximum of a bin is at least
0: OpenVINO's CPU device gives 0 for a bin of negative samples.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from ovjit.graph.dtypes import FULL
from ovjit.graph.op import Bool, Int, Positive, Single, TensorType, Word, op
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import INTEGERS, widen_floats
from ovjit_ops.detection import sampling
from ovjit_ops.elementwise.arithmetic import REALS, random_array


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


def _regions(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> np.ndarray:
    first = rng.uniform(-2, shape[3], (count, 2))
    rois = np.concatenate([first, first + rng.uniform(0.1, shape[3], (count, 2))], 1)
    return rois.astype(np.float32)


def _samples(aligned: tuple[str, ...], rng: np.random.Generator, dtype: str = "f32"):
    shapes = [(2, 3, 7, 9), (1, 17, 5, 6), (3, 33, 8, 8), (1, 1, 1, 1), (2, 5, 4, 4)]
    for i, (mode, ratio) in enumerate([("avg", 2), ("max", 0), ("avg", 0), ("max", 1), ("avg", 3)] * 2):
        shape = shapes[i % 5]
        rois = _regions(rng, shape, 0 if i == 9 else 4 + i)
        attrs = {
            "pooled_h": 1 + i % 3, "pooled_w": 2 + i % 4, "sampling_ratio": ratio, "mode": mode,
            "spatial_scale": 0.25 + i / 9,
        }  # fmt: skip
        if aligned:
            attrs["aligned_mode"] = aligned[i % len(aligned)]
        batches = rng.integers(0, shape[0], len(rois)).astype(np.int32)
        yield [random_array(rng, shape, dtype), rois.astype(rois.dtype), batches], attrs


@op(
    "ROIAlign", opset=3, types=REALS, native=FULL, samples=partial(_samples, ()),
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


@op("ROIAlign", opset=9, like=ROIAlign3, samples=partial(_samples, tuple(sampling.OFFSETS)))
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

    def samples(rng, dtype="f32"):
        shapes = [(2, 3, 7, 9), (1, 17, 5, 6), (3, 33, 8, 8)]
        for i in range(8):
            shape = shapes[i % 3]
            count = 0 if i == 7 else 5
            middle, size = rng.uniform(0, shape[3], (count, 2)), rng.uniform(0.5, shape[3], (count, 2))
            rois = np.concatenate([middle, size, rng.uniform(-4, 4, (count, 1))], 1).astype(np.float32)
            attrs = {
                "pooled_h": 1 + i % 3, "pooled_w": 2 + i % 2, "sampling_ratio": (2, 0, 1)[i % 3],
                "spatial_scale": 0.5 + i / 8, "clockwise_mode": i % 2 == 0,
            }  # fmt: skip
            batches = rng.integers(0, shape[0], count).astype(np.int64)
            yield [random_array(rng, shape, dtype), rois, batches], attrs
