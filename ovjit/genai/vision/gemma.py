"""Gemma 3 and Gemma 3n: pictures of one size. Their tokens have a type of their own, or each token has
embeddings for all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Family, Visual
from ovjit.genai.vision.pixels import normalize, read_mean
from ovjit.genai.vision.processors import read_processor
from ovjit.genai.vision.resizing import resize_bilinear

_START, _TOKEN, _END = "<start_of_image>", "<image_soft_token>", "<end_of_image>"


class Gemma3(Family):
    """Gemma 3. The vision encoder takes `pixel_values` f32 [1, 3, height, width]."""

    native = _START
    picture_token = _TOKEN
    _first = 1

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        config = read_processor(folder)
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


class LayerEmbeddings(Family):
    """The base of families whose tokens have embeddings for each layer, by a network of their own."""

    networks: ClassVar[tuple[str, ...]] = ("text_embeddings_per_layer",)

    def inputs(self, ids: np.ndarray, slots: np.ndarray, visuals: Sequence[Any]) -> dict[str, np.ndarray]:
        """`per_layer_inputs` f32 [rows, tokens, layers, size]."""
        request = self._requests[self.networks[0]]
        return {"per_layer_inputs": np.array(request.infer([ids])[0], np.float32)}


class Gemma3n(LayerEmbeddings):
    """Gemma 3n. The vision encoder takes `pixel_values` f32 [1, 3, height, width] in [0, 1]."""

    native = picture_token = _TOKEN
    _first = 1

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        size = read_processor(folder).get("size") or {}
        self._size = (int(size.get("height", 896)), int(size.get("width", 896)))

    def encode(self, image: np.ndarray) -> Visual:
        resized = resize_bilinear(image[0], *self._size)
        pixels = normalize(resized[None], np.zeros(3, np.float32), np.ones(3, np.float32))
        features = self._requests["vision_embeddings"].infer({"pixel_values": pixels})[0]
        return Visual(np.array(features, np.float32)[0])

    def write(self, visual: Visual) -> str:
        return f"\n\n{_START}{_TOKEN * len(visual.features)}{_END}\n\n"
