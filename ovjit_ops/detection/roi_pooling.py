"""Pooling of regions of feature maps in bins, by maxima, means or samples: ROIPooling and the
position-sensitive ones.

    data [N, C, H, W]  rois [R, 5] of (image, x1, y1, x2, y2)  ->  [R, channels, pooled, pooled]

A region with a negative image index is ignored, as in OpenVINO: its outputs are 0. An index of N or more
raises InferenceError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.dtypes import FULL
from ovjit.graph.op import Int, Ints, Positive, Single, TensorType, Word, op
from ovjit.graph.shapes import compatible
from ovjit_ops.common.checks import check_rank, check_type
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import widen_floats
from ovjit_ops.detection.sampling import MOST_SAMPLES, bilinear_grid
from ovjit_ops.elementwise.arithmetic import NUMBERS, REALS

#: Default of an attribute that files may omit. It is not written.
ABSENT: Any = None
#: Common fields of the records.
_POOLED: dict[str, Any] = {"types": REALS, "native": FULL, "ulp": 16}


def check_regions(data: TensorType, rois: TensorType, types: Sequence[str] = REALS) -> tuple[Any, ...]:
    """(channels, regions)"""
    check_type(data, types)
    return unify(data=(data, ".C.."), rois=(rois, "R5")).shape("CR")


def regions_of(rois: np.ndarray, images: int) -> list[tuple[int, int, list[float]]]:
    """(index, image, corners) of each region that is not ignored. Raises InferenceError for an image out of
    range."""
    out = []
    for r, (image, *corners) in enumerate(widen_floats(rois).astype(np.float64)):
        if not image >= 0:
            continue
        if image >= images:
            raise InferenceError(f"region {r} refers to image {image:g}, but the batch has {images} images")
        out.append((r, int(image), [float(v) for v in corners]))
    return out


def _round_half_away(x: float) -> int:
    """x rounded, ties away from zero, and clamped to +-2^30; 0 for NaN."""
    if not np.isfinite(x):
        return 0 if np.isnan(x) else int(np.copysign(1 << 30, x))
    x = min(max(x, -(1 << 30)), 1 << 30)
    return int(np.trunc(x + np.copysign(0.5, x)))


def _bins(start: float, size: float, bins: int, extent: int) -> list[tuple[int, int]]:
    """(first element, last element + 1) of each bin, clamped to the extent."""
    out = []
    for i in range(bins):
        first, last = np.floor(i * size / bins + start), np.ceil((i + 1) * size / bins + start)
        low, high = (int(np.clip(np.nan_to_num(v), 0, extent)) for v in (first, last))
        out.append((low, high))
    return out


def crop(maps: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Sample maps [C, H, W] at fractional rows y and columns x -> [C, len(y), len(x)]. Samples outside are
    0."""
    inside = ((v >= 0) & (v <= extent - 1) for v, extent in zip((y, x), maps.shape[1:], strict=True))
    rows, columns = inside
    return np.where(rows[:, None] & columns, bilinear_grid(maps, y, x), maps.dtype.type(0))


def _sample_points(first: float, last: float, count: int, extent: int) -> np.ndarray:
    """`count` coordinates from `first` to `last`, given as fractions of the extent. A single one is in the
    middle."""
    if count == 1:
        return np.array([0.5 * (first + last) * (extent - 1)])
    out = np.arange(count) * ((last - first) * (extent - 1) / (count - 1)) + first * (extent - 1)
    out[-1] = last * (extent - 1)  # rounding must not place it outside
    return out


@op(
    "ROIPooling", opset=2,
    lower=".cpu_roi_pooling:RoiPooling.of", **_POOLED
)  # fmt: skip
class ROIPooling:
    """The maximum of each bin, or one bilinear sample. `output_roi` is the size; older files have pooled_h
    and pooled_w."""

    words = {"method": "max bilinear"}

    def infer(
        data,
        rois,
        *,
        output_roi: Ints = (),
        spatial_scale: Single,
        method: Word = "max",
        output_size: Ints = (),
        pooled_h: Int = ABSENT,
        pooled_w: Int = ABSENT,
    ):
        pooled = _pooled_size(locals())
        check(spatial_scale > 0, f"spatial_scale should be positive, not {spatial_scale}")
        channels, regions = check_regions(data, rois)
        return TensorType(data.dtype, (regions, channels, *pooled))

    def ref(data, rois, **attrs):
        pooled, scale = _pooled_size(attrs), float(np.float32(attrs["spatial_scale"]))
        height, width = data.shape[2:]
        out = np.zeros((len(rois), data.shape[1], *pooled), widen_floats(data).dtype)
        for r, image, (x1, y1, x2, y2) in regions_of(rois, len(data)):
            maps = widen_floats(data[image])
            if attrs["method"] == "bilinear":
                y, x = _sample_points(y1, y2, pooled[0], height), _sample_points(x1, x2, pooled[1], width)
                out[r] = crop(maps, y, x)
                continue
            left, top, right, bottom = (_round_half_away(v * scale) for v in (x1, y1, x2, y2))
            rows = _bins(top, max(bottom - top + 1, 1), pooled[0], height)
            columns = _bins(left, max(right - left + 1, 1), pooled[1], width)
            for i, (a, b) in enumerate(rows):
                for j, (c, d) in enumerate(columns):
                    if a < b and c < d:
                        out[r, :, i, j] = maps[:, a:b, c:d].max((1, 2))
        return out.astype(data.dtype)


def _pooled_size(attrs: dict[str, Any]) -> tuple[int, ...]:
    older = (attrs["pooled_h"] or 0, attrs["pooled_w"] or 0)
    size = tuple(attrs["output_roi"]) or tuple(attrs["output_size"]) or older
    check(len(size) == 2 and min(size) > 0, f"output_roi should have two positive numbers, not {list(size)}")
    return size


@op(
    "PSROIPooling", opset=1,
    lower=".cpu_roi_pooling:RoiPooling.of", **_POOLED
)  # fmt: skip
class PSROIPooling:
    """Position-sensitive pooling, in which each bin has its own channels: means, or bilinear samples of every
    part of a region."""

    words = {"mode": "average bilinear"}

    def infer(
        data,
        rois,
        *,
        output_dim: Positive,
        group_size: Positive = 1,
        spatial_scale: Single,
        spatial_bins_x: Int = 1,
        spatial_bins_y: Int = 1,
        mode: Word = "average",
    ):
        channels, regions = check_regions(data, rois)
        bins = group_size**2
        if mode == "bilinear":  # means use no bins
            check(
                min(spatial_bins_x, spatial_bins_y) > 0,
                "spatial_bins_x and spatial_bins_y should be positive",
            )
            bins = spatial_bins_x * spatial_bins_y
        check(
            compatible(channels, output_dim * bins),
            f"{output_dim} outputs of {bins} bins need {output_dim * bins} channels, not {data}",
        )
        return TensorType(data.dtype, (regions, output_dim, group_size, group_size))

    def ref(data, rois, **attrs):
        dim, group = attrs["output_dim"], attrs["group_size"]
        scale = float(np.float32(attrs["spatial_scale"]))
        height, width = data.shape[2:]
        out = np.zeros((len(rois), dim, group, group), widen_floats(data).dtype)
        for r, image, (x1, y1, x2, y2) in regions_of(rois, len(data)):
            maps = widen_floats(data[image])
            if attrs["mode"] == "average":
                left, top = _round_half_away(x1) * scale, _round_half_away(y1) * scale
                right, bottom = (_round_half_away(x2) + 1) * scale, (_round_half_away(y2) + 1) * scale
                rows = _bins(top, max(bottom - top, 0.1), group, height)
                columns = _bins(left, max(right - left, 0.1), group, width)
                by_bin = maps.reshape(dim, group, group, height, width)
                for i, (a, b) in enumerate(rows):
                    for j, (c, d) in enumerate(columns):
                        if a < b and c < d:
                            out[r, :, i, j] = by_bin[:, i, j, a:b, c:d].mean((1, 2))
                continue
            bins_x, bins_y = attrs["spatial_bins_x"], attrs["spatial_bins_y"]
            x1, y1, x2, y2 = (v * scale for v in (x1, y1, x2, y2))
            parts = maps.reshape(bins_y, bins_x, dim, height, width)
            for v in range(bins_y):
                first, last = (y1 + (v + k) * (y2 - y1) / bins_y for k in (0, 1))
                y = _sample_points(first, last, group, height)
                for u in range(bins_x):
                    left, right = (x1 + (u + k) * (x2 - x1) / bins_x for k in (0, 1))
                    out[r] += crop(parts[v, u], y, _sample_points(left, right, group, width))
            out[r] /= bins_x * bins_y
        return out.astype(data.dtype)


@op(
    "DeformablePSROIPooling", opset=1, lower=".cpu_deformable_pooling:DeformablePooling.of", **_POOLED,
    words={"mode": "bilinear_deformable"},
)  # fmt: skip
class DeformablePSROIPooling:
    """PSROIPooling whose bins are shifted by offsets."""

    def infer(
        data,
        rois,
        offsets=None,
        *,
        output_dim: Positive,
        spatial_scale: Single,
        group_size: Positive = 1,
        mode: Word = "bilinear_deformable",
        spatial_bins_x: Positive = 1,
        spatial_bins_y: Positive = 1,
        trans_std: Single = 1.0,
        part_size: Positive = 1,
    ):
        samples = spatial_bins_x * spatial_bins_y
        check(
            samples <= MOST_SAMPLES,
            f"spatial_bins_x times spatial_bins_y is {samples}; the maximum is {MOST_SAMPLES}",
        )
        channels, regions = check_regions(data, rois, NUMBERS)
        needed_channels = output_dim * group_size**2
        check(compatible(channels, needed_channels), f"{needed_channels} channels are needed: {data}")
        check_type(offsets, NUMBERS, "offsets")
        check_rank(offsets, 4, "offsets")
        return TensorType(data.dtype, (regions, output_dim, group_size, group_size))

    def ref(data, rois, offsets=None, **attrs):
        dim, group, part = attrs["output_dim"], attrs["group_size"], attrs["part_size"]
        scale, reach = (float(np.float32(attrs[name])) for name in ("spatial_scale", "trans_std"))
        height, width = data.shape[2:]
        out = np.zeros((len(rois), dim, group, group), widen_floats(data).dtype)
        classes = 1 if offsets is None else max(offsets.shape[1] // 2, 1)
        if offsets is not None and (
            offsets.shape[0] < len(rois)
            or min(offsets.shape[2:]) < part
            or dim % classes
            or offsets.shape[1] < 2
        ):
            raise InferenceError(
                f"offsets of {offsets.shape} do not match {len(rois)} regions of {part} parts"
            )
        each = dim // classes
        for r, image, (x1, y1, x2, y2) in regions_of(rois, len(data)):
            by_bin = widen_floats(data[image]).reshape(dim, group, group, height, width)
            left, top = _round_half_away(x1) * scale - 0.5, _round_half_away(y1) * scale - 0.5
            roi_w = max((_round_half_away(x2) + 1) * scale - 0.5 - left, 0.1)
            roi_h = max((_round_half_away(y2) + 1) * scale - 0.5 - top, 0.1)
            for label in range(classes):
                channels = slice(label * each, (label + 1) * each)
                for i in range(group):
                    for j in range(group):
                        dx = dy = 0.0
                        if offsets is not None:
                            at = (i * part // group, j * part // group)
                            dx, dy = (float(offsets[r, 2 * label + k][at]) * reach for k in (0, 1))
                        y = top + i * roi_h / group + dy * roi_h
                        x = left + j * roi_w / group + dx * roi_w
                        out[r, channels, i, j] = _moved_bin(
                            by_bin[channels, i, j],
                            y,
                            x,
                            roi_h / group,
                            roi_w / group,
                            (attrs["spatial_bins_y"], attrs["spatial_bins_x"]),
                        )
        return out.astype(data.dtype)


def _moved_bin(
    maps: np.ndarray, y: float, x: float, height: float, width: float, samples: Sequence[int]
) -> np.ndarray:
    """The mean of those samples of a bin that are inside of the maps [C, H, W]."""
    rows = y + np.arange(samples[0]) * (height / samples[0])
    columns = x + np.arange(samples[1]) * (width / samples[1])
    rows = rows[(rows >= -0.5) & (rows <= maps.shape[1] - 0.5)]
    columns = columns[(columns >= -0.5) & (columns <= maps.shape[2] - 0.5)]
    if not len(rows) or not len(columns):
        return np.zeros(len(maps), maps.dtype)
    inside = crop(maps, np.clip(rows, 0, maps.shape[1] - 1), np.clip(columns, 0, maps.shape[2] - 1))
    return inside.mean((1, 2))
