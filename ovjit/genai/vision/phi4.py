"""Phi-4-multimodal: a picture as one small view, and as crops of a padded one, whose padding is masked."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.compat import opset13 as ops
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Visual
from ovjit.genai.vision.phi import Phi3Vision
from ovjit.genai.vision.pixels import choose_grid, end_lines, number_positions

_F32 = np.float32
#: Pixels of a crop's side and of a patch's, patches of a crop's side, and the most crops.
_SIDE, _PATCH, _GRID, _CROPS = 448, 14, 32, 36


def choose_crops(height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of the crops: enough to cover the image, else those with the nearest ratio."""
    rows, columns = (math.ceil(_F32(side) / _F32(_SIDE)) for side in (height, width))
    return (rows, columns) if rows * columns <= _CROPS else choose_grid(height, width, _SIDE, _CROPS)


@functools.cache
def _resizer() -> Any:
    """The compiled model (image u8 [1, height, width, 3], its resized (height, width) i64 [2], padding i64
    [4]) -> (the small view, the padded image). Padding is added at the bottom and the right."""
    from ovjit.api.run.core import Core

    def resize(values: Any, sizes: Any, mode: str) -> Any:
        return ops.interpolate(
            values, sizes, mode, "sizes", [0, 0, 0, 0], [0, 0, 0, 0], "pytorch_half_pixel", "floor", False,
            -0.75, ops.constant(np.array([2, 3])),
        )  # fmt: skip

    image = ops.parameter([1, -1, -1, 3], np.uint8)
    size, padding = ops.parameter([2], np.int64), ops.parameter([4], np.int64)
    planes = ops.convert(ops.transpose(image, ops.constant(np.array([0, 3, 1, 2]))), _F32)
    resized = resize(ops.divide(planes, ops.constant(_F32(255))), size, "bilinear_pillow")
    zeros = ops.constant(np.zeros(4, np.int64))
    large = ops.pad(resized, zeros, padding, "constant", ops.constant(_F32(1)))
    large = ops.divide(ops.subtract(large, ops.constant(_F32(0.5))), ops.constant(_F32(0.5)))
    small = resize(large, ops.constant(np.array([_SIDE, _SIDE])), "cubic")
    model = Model([ops.result(small), ops.result(large)], [image, size, padding])
    return Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def preprocess(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(crops f32 [1 + rows * columns, 3, 448, 448] of a picture u8 [1, height, width, 3], the first of all of
    it, the patches of each that are no padding, bool [rows of crops, 32, columns of crops, 32])."""
    height, width = image.shape[1:3]
    rows, columns = choose_crops(height, width)
    ratios = [_F32(count * _SIDE) / _F32(side) for count, side in ((rows, height), (columns, width))]
    sizes = [rows * _SIDE, columns * _SIDE]
    if ratios[1] < ratios[0]:
        sizes[0] = int(_F32(height) * ratios[1])
    else:
        sizes[1] = int(_F32(width) * ratios[0])
    padding = [rows * _SIDE - sizes[0], columns * _SIDE - sizes[1]]
    request = _resizer().create_infer_request()  # its results are nobody else's
    results = request.infer([image, np.array(sizes), np.array([0, 0, *padding])])
    crops = results[1].reshape(3, rows, _SIDE, columns, _SIDE).transpose(1, 3, 0, 2, 4)
    mask = np.ones((rows * _GRID, columns * _GRID), bool)
    for axis, missing in enumerate(padding):
        if missing >= _PATCH:
            np.moveaxis(mask, axis, 0)[mask.shape[axis] - missing // _PATCH :] = False
    pixels = np.concatenate([results[0], crops.reshape(-1, 3, _SIDE, _SIDE)])
    return pixels, mask.reshape(rows, _GRID, columns, _GRID)


def number_patches(mask: np.ndarray) -> np.ndarray:
    """The learned positions i64 [crops, patches] of patches, for masks bool [crops, 32, 32]: those of crops
    with padding are spread over all positions."""
    numbers = np.zeros((len(mask), _GRID * _GRID), np.int64)
    for row, shown in zip(numbers, mask, strict=True):
        counts = int(shown[:, 0].sum()), int(shown[0].sum())
        if all(counts):
            row[shown.reshape(-1)] = number_positions(*counts, _GRID)
    return numbers


class Phi4Multimodal(Phi3Vision):
    """Pictures of Phi-4-multimodal. The vision encoder takes crops f32 [crops, 3, 448, 448], the mask of
    their patches, and positions. Pictures are numbered as those of Phi-3-vision."""

    _behind_tag = ""

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer, None)

    def encode(self, image: np.ndarray) -> Visual:
        pixels, mask = preprocess(image)
        rows, columns = mask.shape[0], mask.shape[2]
        crops = np.ones((len(pixels), _GRID, _GRID), bool)
        crops[1:] = mask.transpose(0, 2, 1, 3).reshape(-1, _GRID, _GRID)
        feeds = {
            "pixel_values": pixels,
            "patch_attention_mask": crops,
            "patch_position_ids": number_patches(crops),
        }
        features = self.run("vision_embeddings", feeds)
        side, size = math.isqrt(features.shape[1]), features.shape[2]
        tiles = features[1:].reshape(rows, columns, side, side, size).transpose(0, 2, 1, 3, 4)
        lines = tiles.reshape(rows * side, columns * side, size)
        # a token covers two patches of each axis
        shown = mask[:, ::2, :, ::2].reshape(rows * side, columns * side)
        lines = end_lines(lines[: int(shown[:, 0].sum()), : int(shown[0].sum())], self._line_end)
        small = end_lines(features[0].reshape(side, side, size), self._line_end)
        joined = np.concatenate([lines, self._view_end[None], small])[None]
        return Visual(self.run("vision_projection", [joined])[0])
