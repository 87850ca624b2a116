"""Pixels to the inputs of vision encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_F32 = np.float32


def read_mean(config: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The means and standard deviations f32 [3] of a `preprocessor_config.json`."""
    mean, deviation = config.get("image_mean") or [0, 0, 0], config.get("image_std") or [1, 1, 1]
    return np.array(mean, _F32), np.array(deviation, _F32)


def normalize(image: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """A picture u8 [height, width, 3] as f32 [1, 3, height, width] around 0."""
    values = (image.astype(_F32) / _F32(255) - mean) / deviation
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def split_crops(image: np.ndarray, side: int) -> np.ndarray:
    """A picture u8 [height, width, 3] as squares u8 [crops, side, side, 3], row by row."""
    rows, columns = image.shape[0] // side, image.shape[1] // side
    tiles = image[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(-1, side, side, 3)
