"""Gemma 3 and Gemma 3n: pictures of one size. Their tokens have a type of their own, or each token has
embeddings for all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Family, Visual
from ovjit.genai.vision.pixels import normalize
from ovjit.genai.vision.resizing import resize_bilinear

_START, _TOKEN, _END = "<start_of_image>", "<image_soft_token>", "<end_of_image>"


class Gemma3(Family):
    """Gemma 3. The vision encoder takes `pixel_values` f32 [1, 3, height, width]."""

    native = _START
    picture_token = _TOKEN
    _borders = f"\n\n{_START}", f"{_END}\n\n"
    _first = 1

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        # the lines around pictures stay
        tokenizer.chat_template = tokenizer.chat_template.replace("| trim", "")

    def encode(self, image: np.ndarray) -> Visual:
        resized = resize_bilinear(image[0], *self.read_sizes("size", 896))
        return Visual(self.embed_pictures(resized[None])[0])

    def inputs(self, ids: np.ndarray, slots: np.ndarray, visuals: Sequence[Any]) -> dict[str, np.ndarray]:
        types = np.zeros(ids.shape, np.int64)
        types[:, slots] = 1
        return {"token_type_ids": types}


class LayerEmbeddings(Family):
    """The base of families whose tokens have embeddings for each layer, by a network of their own."""

    networks: ClassVar[tuple[str, ...]] = ("text_embeddings_per_layer",)

    def inputs(self, ids: np.ndarray, slots: np.ndarray, visuals: Sequence[Any]) -> dict[str, np.ndarray]:
        """`per_layer_inputs` f32 [rows, tokens, layers, size]."""
        return {"per_layer_inputs": self.run(self.networks[0], [ids])}


class Gemma3n(LayerEmbeddings):
    """Gemma 3n. The vision encoder takes `pixel_values` f32 [1, 3, height, width] in [0, 1]."""

    native = picture_token = _TOKEN
    _borders = Gemma3._borders
    _first = 1

    def encode(self, image: np.ndarray) -> Visual:
        resized = resize_bilinear(image[0], *self.read_sizes("size", 896))
        pixels = normalize(resized[None], np.zeros(3, np.float32), np.ones(3, np.float32))
        return Visual(self.run("vision_embeddings", {"pixel_values": pixels})[0])
