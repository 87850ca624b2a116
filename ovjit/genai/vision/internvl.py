"""InternVL: a picture as crops of a view whose ratio is near its own, and as a small view."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Family, Visual
from ovjit.genai.vision.pixels import choose_grid, split_crops
from ovjit.genai.vision.resizing import resize_bicubic

#: The most crops of a picture.
_CROPS = 12


class InternVL(Family):
    """InternVL. The vision encoder takes crops f32 [crops, 3, side, side]."""

    native = "<image>"
    automatic = "<image>\n"
    picture_token = "<IMG_CONTEXT>"
    _borders = "<img>", "</img>"

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        size = self._processor.get("size") or {}
        self._side = int(size.get("shortest_edge", 336) if isinstance(size, Mapping) else size)

    def encode(self, image: np.ndarray) -> Visual:
        side = self._side
        rows, columns = choose_grid(image.shape[1], image.shape[2], side, _CROPS)
        crops = split_crops(resize_bicubic(image[0], rows * side, columns * side), side)
        if len(crops) > 1:
            crops = np.concatenate([crops, resize_bicubic(image[0], side, side)[None]])
        features = self.embed_pictures(crops)
        return Visual(features.reshape(-1, features.shape[2]))
