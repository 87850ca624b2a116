"""Bilinear samples of feature maps, as in ROIAlign and its relatives. Coordinates are f64."""

from __future__ import annotations

import math

import numpy as np

from ovjit.errors import InferenceError, check

#: Maximum samples of a bin of a region.
MOST_SAMPLES = 1 << 22


def bilinear(maps: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Sample maps [C, H, W] at coordinates y, x [S] -> [C, S]. Samples more than an element outside, and NaN
    coordinates, give 0. Other coordinates are clamped to the edge."""
    height, width = maps.shape[1:]
    if not height or not width:
        return np.zeros((maps.shape[0], len(y)), maps.dtype)
    good = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = (np.maximum(np.where(good, v, 0), 0) for v in (y, x))
    i0, j0 = y.astype(np.int64), x.astype(np.int64)
    i1, j1 = np.minimum(i0 + 1, height - 1), np.minimum(j0 + 1, width - 1)
    y, x = np.where(i0 >= height - 1, height - 1, y), np.where(j0 >= width - 1, width - 1, x)
    i0, j0 = np.minimum(i0, height - 1), np.minimum(j0, width - 1)
    dy, dx = y - i0, x - j0
    out = np.zeros((maps.shape[0], len(y)), maps.dtype)
    for i, wy in ((i0, 1 - dy), (i1, dy)):
        for j, wx in ((j0, 1 - dx), (j1, dx)):
            out += maps[:, i, j] * (wy * wx).astype(maps.dtype)
    return np.where(good, out, maps.dtype.type(0))


def bilinear_grid(maps: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The maps [C, H, W] interpolated at all pairs of a row of y and a column of x: [C, len(y), len(x)]."""
    coordinates = np.meshgrid(y, x, indexing="ij")
    return bilinear(maps, *(p.reshape(-1) for p in coordinates)).reshape(len(maps), len(y), len(x))


def checked_batches(batches: np.ndarray, images: int) -> np.ndarray:
    """The image of each region. Raises InferenceError for an index out of range."""
    indices = batches.astype(np.int64)
    if indices.size and (indices.min() < 0 or indices.max() >= images):
        raise InferenceError(
            f"regions refer to images {indices.min()} .. {indices.max()}, but the batch has {images} images"
        )
    return indices


def check_ratio(sampling_ratio: int) -> None:
    """Raise ModelError unless this is a valid number of samples along a side of a bin; 0: one per element."""
    check(
        0 <= sampling_ratio and sampling_ratio**2 <= MOST_SAMPLES,
        f"sampling_ratio should be 0 to {math.isqrt(MOST_SAMPLES)}, not {sampling_ratio}",
    )


def grid_size(length: float, bins: int, sampling_ratio: int) -> int:
    """The number of samples of a bin along one side. Raises InferenceError for too many."""
    if sampling_ratio > 0:
        return sampling_ratio
    samples = np.ceil(length / bins)
    if not samples > 0:
        return 0
    if samples > MOST_SAMPLES:
        raise InferenceError("a region is too large")
    return int(samples)


def bin_samples(h: float, w: float, bins: tuple[int, int], sampling_ratio: int) -> tuple[int, int]:
    """Rows and columns of samples of a region's bins. Raises InferenceError for too many."""
    rows, columns = grid_size(h, bins[0], sampling_ratio), grid_size(w, bins[1], sampling_ratio)
    if rows * columns > MOST_SAMPLES:
        raise InferenceError("a region is too large")
    return rows, columns


#: aligned_mode -> (addend of corners before scaling, addend after scaling)
OFFSETS = {"asymmetric": (0.0, 0.0), "half_pixel_for_nn": (0.0, -0.5), "half_pixel": (0.5, -0.5)}
