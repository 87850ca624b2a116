"""Pixels to the inputs of vision encoders."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.compat import opset13 as ops

_F32 = np.float32
#: Bits after the point of the weights that resize pictures.
BITS = 22


def read_mean(config: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The means and standard deviations f32 [3] of a `preprocessor_config.json`."""
    mean, deviation = config.get("image_mean") or [0, 0, 0], config.get("image_std") or [1, 1, 1]
    return np.array(mean, _F32), np.array(deviation, _F32)


@functools.cache
def _normalizer() -> Any:
    """The compiled model of `normalize`. Its second input is 255: the quotients of a constant would be
    products."""
    from ovjit.api.run.core import Core

    images = ops.parameter([-1, -1, -1, 3], np.uint8)
    most, mean, deviation = (ops.parameter([count, 1, 1], _F32) for count in (1, 3, 3))
    planes = ops.convert(ops.transpose(images, ops.constant(np.array([0, 3, 1, 2]))), _F32)
    values = ops.divide(ops.subtract(ops.divide(planes, most), mean), deviation)
    model = Model([ops.result(values)], [images, most, mean, deviation])
    return Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def normalize(images: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Pictures u8 [n, height, width, 3] as f32 [n, 3, height, width] around 0."""
    request = _normalizer().create_infer_request()  # its results are nobody else's
    sizes = [values.reshape(-1, 1, 1) for values in (np.full(1, 255, _F32), mean, deviation)]
    planes: np.ndarray = request.infer([images, *sizes])[0]
    return planes


def choose_grid(height: int, width: int, side: int, most: int, fewest: int = 1) -> tuple[int, int]:
    """The rows and columns of `fewest` to `most` crops: those with the nearest ratio. Of equal ratios the
    larger grid, if the picture has more than half of its pixels."""
    ratio, best, least = _F32(width) / _F32(height), (1, 1), np.inf
    grids = [(x, y) for x in range(1, most + 1) for y in range(1, most + 1) if fewest <= x * y <= most]
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        distance = float(abs(ratio - _F32(columns) / _F32(rows)))
        is_large = 2 * height * width > side * side * columns * rows
        if distance < least or (distance == least and is_large):
            least, best = distance, (rows, columns)
    return best


def end_lines(lines: np.ndarray, line_end: np.ndarray) -> np.ndarray:
    """Features f32 [rows, columns, size] as [tokens, size], with `line_end` [size] after each row."""
    ends = np.broadcast_to(line_end, (len(lines), 1, lines.shape[2]))
    return np.concatenate([lines, ends], 1).reshape(-1, lines.shape[2])


def number_positions(rows: int, columns: int, side: int) -> np.ndarray:
    """The learned positions i64 [rows * columns] of patches, of an encoder that has side x side of them."""
    bounds = np.arange(1, side, dtype=_F32) / _F32(side)
    shares = [np.arange(count, dtype=_F32) / _F32(count) for count in (rows, columns)]
    down, right = (np.searchsorted(bounds, share, "right") for share in shares)
    return (down[:, None] * side + right).reshape(-1)


def split_crops(image: np.ndarray, side: int) -> np.ndarray:
    """A picture u8 [height, width, 3] as squares u8 [crops, side, side, 3], row by row."""
    rows, columns = image.shape[0] // side, image.shape[1] // side
    tiles = image[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(-1, side, side, 3)
