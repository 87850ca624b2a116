"""Pillow's bicubic, bilinear and Lanczos filters, in its fixed-point numbers of 22 bits after the point.

`genai.images.pixels.resize` rounds floats as the operation Interpolate does, so its pixels differ by up to 1.
Pipelines of openvino_genai have both: these filters for pictures in prompts, the operation for pictures that
are generated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ovjit.codegen.native_routines import address, native
from ovjit.genai.vision.pixels import BITS

#: Weights of absolute distances in pixels of the smaller picture.
_Filter = Callable[[np.ndarray], np.ndarray]
#: The most lanes of a vector of i32.
_LANES = 16
_STEPS = "ovjit.genai.vision.resizing_steps"
_resize_rows = native(_STEPS, "resize_rows")
_resize_columns = native(_STEPS, "resize_columns")


def _weigh_cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -0.5."""
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _weigh_linear(x: np.ndarray) -> np.ndarray:
    return np.where(x < 1, 1 - x, 0.0)


def _weigh_lanczos(x: np.ndarray) -> np.ndarray:
    angles = np.pi * np.where(x == 0, 1, x)
    return np.where(
        x == 0, 1.0, np.where(x < 3, np.sin(angles) * np.sin(angles / 3) / (angles * angles / 3), 0.0)
    )


@functools.lru_cache(64)
def _choose_weights(old: int, new: int, weigh: _Filter, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """(the first pixel of each output i32 [new], its weights i32 [new, taps]): all pixels exist. `reach` of
    the filter is its largest distance."""
    scale = old / new
    reach *= max(scale, 1.0)
    centers = (np.arange(new) + 0.5) * scale
    begins = np.maximum((centers - reach + 0.5).astype(np.int64), 0)[:, None]
    ends = np.minimum((centers + reach + 0.5).astype(np.int64), old)[:, None]
    count = int((ends - begins).max())
    firsts = np.minimum(begins, old - count)
    taps = firsts + np.arange(count)
    distances = np.abs((taps - centers[:, None] + 0.5) * (1.0 / max(scale, 1.0)))
    weights = weigh(distances) * ((begins <= taps) & (taps < ends))
    weights /= weights.cumsum(1)[:, -1:]  # one after another, as Pillow sums
    fixed = weights * (1 << BITS)
    weights = np.trunc(fixed + np.where(fixed < 0, -0.5, 0.5)).astype(np.int32)
    return firsts[:, 0].astype(np.int32), np.ascontiguousarray(weights)


def _resize(image: np.ndarray, height: int, width: int, weigh: _Filter, reach: float) -> np.ndarray:
    """Columns first, then rows, as in openvino_genai."""
    rows, columns, channels = image.shape
    if columns != width:
        tables = _choose_weights(columns, width, weigh, reach)
        source, image = np.ascontiguousarray(image), np.empty((rows, width, channels), np.uint8)
        memory, taps = np.empty((columns, channels, _LANES), np.int32), tables[1].shape[1]
        arrays = map(address, (source, image, *tables, memory))
        _resize_columns(*arrays, rows, taps, columns, width)
    if rows != height:
        tables = _choose_weights(rows, height, weigh, reach)
        source, image = np.ascontiguousarray(image), np.empty((height, width, channels), np.uint8)
        arrays = map(address, (source, image, *tables))
        _resize_rows(*arrays, height, tables[1].shape[1], width * channels)
    return image


def resize_bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture u8 [height, width, 3] in another size."""
    return _resize(image, height, width, _weigh_cubic, 2.0)


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture u8 [height, width, 3] in another size."""
    return _resize(image, height, width, _weigh_linear, 1.0)


def resize_lanczos(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture u8 [height, width, 3] in another size."""
    return _resize(image, height, width, _weigh_lanczos, 3.0)


@functools.cache
def _cubic(transformation: str, coefficient: float, mode: str) -> Any:
    """The compiled model that resizes frames u8 [frames, height, width, 3] to sizes [2]."""
    from ovjit.api.model.model import Model
    from ovjit.api.run.core import Core
    from ovjit.compat import opset13 as ops

    frames, sizes = ops.parameter([-1] * 4, np.uint8), ops.parameter([2], np.int64)
    planes = ops.transpose(ops.convert(frames, np.float32), ops.constant(np.array([0, 3, 1, 2])))
    resized = ops.interpolate(
        planes, sizes, mode=mode, shape_calculation_mode="sizes", pads_begin=[0, 0], pads_end=[0, 0],
        axes=ops.constant(np.array([2, 3])), coordinate_transformation_mode=transformation,
        nearest_mode="floor", cube_coeff=coefficient,
    )  # fmt: skip
    return Core().compile_model(Model([ops.result(resized)], [frames, sizes]), "CPU")


def resize_cubic(
    frames: np.ndarray, height: int, width: int, transformation: str, coefficient: float, mode: str = "cubic"
) -> np.ndarray:
    """Resize frames u8 [frames, height, width, 3] to f32 [frames, 3, height, width], by the operation
    Interpolate. Mode `cubic` always reads four pixels, also when it reduces."""
    sizes = np.array([height, width])
    return np.array(_cubic(transformation, coefficient, mode)([frames, sizes])[0])
