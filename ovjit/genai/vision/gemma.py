"""Gemma 3: pictures of one size, whose tokens have a type of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.genai.json_files import read_json
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Family, Visual
from ovjit.genai.vision.pixels import normalize, read_mean
from ovjit.genai.vision.resizing import resize_bilinear

_START, _TOKEN, _END = "<start_of_image>", "<image_soft_token>", "<end_of_image>"


class Gemma3(Family):
    """Gemma 3. The vision encoder takes `pixel_values` f32 [1, 3, height, width]."""

    native = _START
    picture_token = _TOKEN
    _first = 1

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        config = read_json(folder / "preprocessor_config.json")
        size = config.get("size") or {}
        self._size = (int(size.get("height", 896)), int(size.get("width", 896)))
        self._mean, self._deviation = read_mean(config)
        # the lines around pictures stay
        tokenizer.chat_template = tokenizer.chat_template.replace("| trim", "")

    def encode(self, image: np.ndarray) -> Visual:
        pixels = normalize(resize_bilinear(image[0], *self._size)[None], self._mean, self._deviation)
        features = self._requests["vision_embeddings"].infer({"pixel_values": pixels})[0]
        return Visual(np.array(features, np.float32)[0])

    def write(self, visual: Visual) -> str:
        return f"\n\n{_START}{_TOKEN * len(visual.features)}{_END}\n\n"

    def inputs(self, ids: np.ndarray, slots: np.ndarray, visuals: Sequence[Any]) -> dict[str, np.ndarray]:
        types = np.zeros(ids.shape, np.int64)
        types[:, slots] = 1
        return {"token_type_ids": types}
