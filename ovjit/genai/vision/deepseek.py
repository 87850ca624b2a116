"""DeepSeek-OCR-2: a picture as tiles of a view whose ratio is near its own, and as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.config import demand
from ovjit.genai.json_files import read_json
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Family, Visual
from ovjit.genai.vision.pixels import choose_grid, split_crops
from ovjit.genai.vision.resizing import resize_bicubic
from ovjit.genai.vision.tags import Media


class DeepSeekOCR2(Family):
    """DeepSeek-OCR-2. The encoders take squares f32 [n, 3, side, side] and give features [n, tokens, size]:
    one takes whole pictures, the other tiles of large ones. Each prompt has one picture."""

    native = "<image>"
    networks: ClassVar[tuple[str, ...]] = ("vision_embeddings_tiles",)

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        settings, get = read_json(folder / "config.json"), self._processor.get
        if "view_separator" not in settings:
            raise OvjitError("config.json has no view_separator: export the model with optimum-cli")
        self._separator = np.array(settings["view_separator"], np.float32)[None]
        self._side, self._tile = self.read_sizes("size", 1024)[0], int(get("tile_size", 768))
        self._counts = int(get("min_patches", 2)), int(get("max_patches", 6))
        self._background = np.array(get("background_color") or [127] * 3, np.uint8)

    def encode(self, image: np.ndarray) -> Visual:
        height, width = image.shape[1:3]
        parts = []
        if max(height, width) > self._tile:
            rows, columns = choose_grid(height, width, self._tile, self._counts[1], self._counts[0])
            resized = resize_bicubic(image[0], rows * self._tile, columns * self._tile)
            parts.append(self.embed_pictures(split_crops(resized, self._tile), self.networks[0]))
        scale = self._side / max(height, width)
        rows, columns = (max(int(size * scale + 0.5), 1) for size in (height, width))
        view = np.empty((1, self._side, self._side, 3), np.uint8)
        view[:] = self._background
        top, left = (self._side - rows) // 2, (self._side - columns) // 2
        view[0, top : top + rows, left : left + columns] = resize_bicubic(image[0], rows, columns)
        features = [part.reshape(-1, part.shape[-1]) for part in (*parts, self.embed_pictures(view))]
        return Visual(np.concatenate([*features, self._separator]))

    def insert_tags(self, prompt: str, bases: tuple[int, int], media: Media) -> tuple[str, list[Any]]:
        if not any(tag in prompt for tag in (self.native, "<ov_genai_image_")):
            prompt = f"{self.native}\n" * len(media.images) + prompt  # tags of the prompt have no line's end
        return super().insert_tags(prompt, bases, media)

    def merge(self, ids: np.ndarray, embeds: np.ndarray, visuals: Sequence[Any]) -> Any:
        demand(
            len(visuals) == 1, f"DeepSeek-OCR-2 accepts exactly one image per request, but got {len(visuals)}"
        )
        return super().merge(ids, embeds, visuals)
