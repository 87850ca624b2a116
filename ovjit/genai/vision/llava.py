"""LLaVA: a picture's features take the places of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.genai.json_files import read_json
from ovjit.genai.vision.resizing import resize_bicubic
from ovjit.genai.vision.tags import insert_tags

_F32 = np.float32


class Llava:
    """The pictures of LLaVA. `request` is that of the vision encoder: `pixel_values` f32 [1, 3, height,
    width] to features [1, tokens, size]."""

    #: The text of a picture's token.
    native = "<image>"

    def __init__(self, folder: Path, request: Any):
        config = read_json(folder / "preprocessor_config.json")
        crop, size = config.get("crop_size") or {}, config.get("size") or {}
        self._crop = (int(crop.get("height", 336)), int(crop.get("width", 336)))
        self._shortest = int(size.get("shortest_edge", 336))
        self._mean = np.array(config.get("image_mean") or [0, 0, 0], _F32)
        self._deviation = np.array(config.get("image_std") or [1, 1, 1], _F32)
        self._request = request

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """A picture u8 [1, height, width, 3] as pixel values: the shortest edge resized, the middle cut."""
        height, width = image.shape[1:3]
        scale = _F32(self._shortest) / _F32(min(height, width))
        sizes = [int(_F32(size) * scale) for size in (height, width)]
        resized = resize_bicubic(image[0], *(max(pair) for pair in zip(sizes, self._crop, strict=True)))
        first_row, first_column = (
            (old - new) // 2 for old, new in zip(resized.shape[:2], self._crop, strict=True)
        )
        cropped = resized[first_row : first_row + self._crop[0], first_column : first_column + self._crop[1]]
        values = (cropped.astype(_F32) / _F32(255) - self._mean) / self._deviation
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None])

    def encode(self, image: np.ndarray) -> np.ndarray:
        """The features f32 [tokens, size] of a picture."""
        return np.array(self._request.infer({"pixel_values": self.preprocess(image)})[0], _F32)[0]

    def insert_tags(self, prompt: str, base: int, features: Sequence[np.ndarray]) -> tuple[str, list[int]]:
        """The prompt with the tokens of its pictures, and the pictures' numbers."""
        text, numbers = insert_tags(prompt, self.native, base, len(features))
        pieces = text.split(self.native)
        tags = [f"{self.native * len(features[number - base])}\n" for number in numbers]
        return "".join(part for pair in zip(pieces, [*tags, ""], strict=True) for part in pair), numbers

    def merge(
        self, ids: np.ndarray, embeds: np.ndarray, features: Sequence[np.ndarray], token: int
    ) -> np.ndarray:
        """Embeddings [1, tokens, size] with features in runs of the picture's token. The last picture has the
        last run: a tokenizer may have cut the first tokens."""
        is_picture = np.concatenate(([False], ids[0] == token, [False]))
        begins = np.flatnonzero(~is_picture[:-1] & is_picture[1:])
        ends = np.flatnonzero(is_picture[:-1] & ~is_picture[1:])
        merged = embeds.copy()
        for begin, end, values in zip(begins[::-1], ends[::-1], features[::-1], strict=False):
            count = min(len(values), end - begin)
            merged[0, begin : begin + count] = values[len(values) - count :]
        return merged
