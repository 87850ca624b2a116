"""Pillow's bicubic filter, in its fixed-point numbers of 22 bits after the point.

`genai.images.pixels.resize` rounds floats as the operation Interpolate does, so its pixels differ by up to 1.
Pipelines of openvino_genai have both: this filter for LLaVA, the operation for pictures that are generated.
"""

from __future__ import annotations

import numpy as np

_BITS = 22
#: The reach of the filter in pixels of the smaller picture.
_REACH = 2.0


def _filter(distances: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -0.5."""
    x, a = np.abs(distances), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _choose_weights(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """(the first pixel of each output, its weights i32 [new, taps])."""
    scale = old / new
    reach = _REACH * max(scale, 1.0)
    centers = (np.arange(new) + 0.5) * scale
    begins = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    ends = np.minimum((centers + reach + 0.5).astype(np.int64), old)
    taps = begins[:, None] + np.arange(int((ends - begins).max()))
    weights = _filter((taps - centers[:, None] + 0.5) * (1.0 / max(scale, 1.0))) * (taps < ends[:, None])
    weights /= weights.cumsum(1)[:, -1:]  # one after another, as Pillow sums
    fixed = weights * (1 << _BITS)
    return begins, np.trunc(fixed + np.where(fixed < 0, -0.5, 0.5)).astype(np.int32)


def _resize_rows(image: np.ndarray, new: int) -> np.ndarray:
    """A picture u8 [height, width, 3] with `new` rows."""
    if image.shape[0] == new:
        return image
    begins, weights = _choose_weights(image.shape[0], new)
    sums = np.full((new, *image.shape[1:]), 1 << (_BITS - 1), np.int32)
    for tap in range(weights.shape[1]):
        rows = np.minimum(begins + tap, image.shape[0] - 1)  # beyond the last row weights are 0
        sums += image[rows] * weights[:, tap, None, None]
    return np.clip(sums >> _BITS, 0, 255).astype(np.uint8)


def resize_bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture u8 [height, width, 3] in another size: columns first, then rows, as in openvino_genai."""
    columns = _resize_rows(np.ascontiguousarray(image.transpose(1, 0, 2)), width)
    return _resize_rows(np.ascontiguousarray(columns.transpose(1, 0, 2)), height)
