"""InternVL: a picture as crops of a view whose ratio is near its own, and as a small view."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Family, Visual
from ovjit.genai.vision.pixels import normalize, read_mean, split_crops
from ovjit.genai.vision.processors import read_processor
from ovjit.genai.vision.resizing import resize_bicubic

_F32 = np.float32
_START, _TOKEN, _END = "<img>", "<IMG_CONTEXT>", "</img>"
#: The most crops of a picture.
_CROPS = 12


def choose_grid(height: int, width: int, side: int) -> tuple[int, int]:
    """The rows and columns of crops: those with the nearest ratio. Of equal ratios the larger grid, if the
    picture has more than half of its pixels."""
    ratio, best, least = _F32(width) / _F32(height), (1, 1), np.inf
    grids = [(x, y) for x in range(1, _CROPS + 1) for y in range(1, _CROPS + 1) if x * y <= _CROPS]
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        distance = float(abs(ratio - _F32(columns) / _F32(rows)))
        is_large = 2 * height * width > side * side * columns * rows
        if distance < least or (distance == least and is_large):
            least, best = distance, (rows, columns)
    return best


class InternVL(Family):
    """InternVL. The vision encoder takes crops f32 [crops, 3, side, side]."""

    native = "<image>"
    automatic = "<image>\n"
    picture_token = _TOKEN

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        config = read_processor(folder)
        size = config.get("size") or {}
        self._side = int(size.get("shortest_edge", 336) if isinstance(size, Mapping) else size)
        self._mean, self._deviation = read_mean(config)

    def encode(self, image: np.ndarray) -> Visual:
        side = self._side
        rows, columns = choose_grid(image.shape[1], image.shape[2], side)
        crops = split_crops(resize_bicubic(image[0], rows * side, columns * side), side)
        if len(crops) > 1:
            crops = np.concatenate([crops, resize_bicubic(image[0], side, side)[None]])
        pixels = normalize(crops, self._mean, self._deviation)
        features = np.array(self._requests["vision_embeddings"].infer({"pixel_values": pixels})[0], _F32)
        return Visual(features.reshape(-1, features.shape[2]))

    def write(self, visual: Visual) -> str:
        return f"{_START}{_TOKEN * len(visual.features)}{_END}"
