"""Pictures to the inputs of networks: sizes, ranges, and masks."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.tensors.tensor import Tensor
from ovjit.compat import opset13 as ops
from ovjit.errors import OvjitError

#: Shares of red, green and blue in a gray value.
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)


def check_picture(image: Any, name: str, channels: tuple[int, ...]) -> np.ndarray:
    """The data of a picture: a Tensor u8 [1, height, width, channels], not empty. TypeError, RuntimeError."""
    if not isinstance(image, Tensor):
        raise TypeError(f"{name} should be a Tensor, not {type(image).__name__}")
    data: np.ndarray = image.data
    good = {(1, *data.shape[1:3], count) for count in channels}
    if data.dtype != np.uint8 or data.shape not in good or not data.size:
        counts, shape = " or ".join(map(str, channels)), list(data.shape)
        expected = f"a Tensor of u8 [1, height, width, {counts}]"
        raise OvjitError(f"{name} should be {expected}, not of {data.dtype} {shape}")
    return data


@functools.cache
def _resizer() -> Any:
    """The compiled model that resizes pictures [1, height, width, channels] by Pillow's bicubic filter."""
    from ovjit.api.run.core import Core

    image, sizes = ops.parameter([-1] * 4, np.uint8), ops.parameter([2], np.int64)
    resized = ops.interpolate(
        image, sizes, mode="bicubic_pillow", shape_calculation_mode="sizes", pads_begin=[0, 0],
        pads_end=[0, 0], axes=ops.constant(np.array([1, 2])),
        coordinate_transformation_mode="pytorch_half_pixel", nearest_mode="floor",
    )  # fmt: skip
    return Core().compile_model(Model([ops.result(resized)], [image, sizes]), "CPU")


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture u8 [1, height, width, channels] in another size."""
    return np.array(_resizer()([image, np.array([height, width])])[0])


def normalize(image: np.ndarray) -> np.ndarray:
    """A picture as f32 [1, channels, height, width] in [-1, 1]."""
    values = image.transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray(values / np.float32(127.5) - np.float32(1))


def binarize(mask: np.ndarray) -> np.ndarray:
    """A mask as f32 [1, 1, height, width] of 0 and 1: 1 for its brighter half."""
    values = mask.astype(np.float32)
    gray = values[..., 0] if mask.shape[3] == 1 else values @ _GRAY
    return (gray / np.float32(255) >= 0.5).astype(np.float32)[:, None]


def shrink(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask [1, 1, height, width] in another size: the nearest value to the upper left."""
    rows, columns = (
        np.arange(new) * old // new for new, old in zip((height, width), mask.shape[2:], strict=True)
    )
    return np.ascontiguousarray(mask[:, :, rows][..., columns])
