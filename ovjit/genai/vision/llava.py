"""LLaVA: a picture's features take the places of its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Family, Visual
from ovjit.genai.vision.pixels import normalize
from ovjit.genai.vision.resizing import resize_bicubic

_F32 = np.float32


class Llava(Family):
    """LLaVA. The vision encoder takes `pixel_values` f32 [1, 3, height, width] and gives features
    [1, tokens, size]."""

    native = "<image>"
    _borders = "", "\n"

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        self._crop = self.read_sizes("crop_size", 336)
        self._shortest = int((self._processor.get("size") or {}).get("shortest_edge", 336))

    def scale_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) with the shortest edge of the configuration."""
        scale = _F32(self._shortest) / _F32(min(height, width))
        return int(_F32(height) * scale), int(_F32(width) * scale)

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """A picture u8 [1, height, width, 3] as pixel values: the shortest edge resized, the middle cut."""
        sizes = self.scale_size(*image.shape[1:3])
        resized = resize_bicubic(image[0], *(max(pair) for pair in zip(sizes, self._crop, strict=True)))
        return normalize(resized[self.find_middle(*resized.shape[:2])][None], self._mean, self._deviation)

    def find_middle(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns of the middle of a picture that is cut to the size of the configuration."""
        rows, columns = (
            slice((old - new) // 2, (old - new) // 2 + new)
            for old, new in zip((height, width), self._crop, strict=True)
        )
        return rows, columns

    def encode(self, image: np.ndarray) -> Visual:
        return Visual(self.run("vision_embeddings", {"pixel_values": self.preprocess(image)})[0])
