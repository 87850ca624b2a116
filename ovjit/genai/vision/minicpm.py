"""MiniCPM-V: a picture as one view, and as slices of a larger one; each has the same number of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.genai.json_files import read_json
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Family, Visual
from ovjit.genai.vision.pixels import normalize, number_positions
from ovjit.genai.vision.resizing import resize_bicubic
from ovjit.genai.vision.tags import Media

_F32 = np.float32
_UNKNOWN = "<unk>"
_VIEW, _SLICE, _NUMBER = (("<image>", "</image>"), ("<slice>", "</slice>"), ("<image_id>", "</image_id>"))


class Sliced(Visual):
    """An encoded picture with a grid (rows, columns) of slices, and its number in the chat."""

    def __init__(self, features: np.ndarray, grid: tuple[int, int]):
        super().__init__(features)
        self.grid, self.number = grid, 0


def _round_side(side: int, unit: int) -> int:
    """The multiple of `unit` that is nearest to a side, halves upwards."""
    return max(int(_F32(math.floor(_F32(side) / _F32(unit) + _F32(0.5))) * unit), unit)


def fit_size(width: int, height: int, resolution: int, patch: int, grows: bool) -> tuple[int, int]:
    """(width, height) in patches' multiples, of about resolution x resolution pixels: smaller pictures keep
    their size unless it `grows`."""
    if width * height > resolution * resolution or grows:
        ratio = _F32(width) / _F32(height)
        height = int(_F32(resolution) / np.sqrt(ratio))
        width = int(_F32(height) * ratio)
    return _round_side(width, patch), _round_side(height, patch)


def choose_slices(width: int, height: int, resolution: int, most: int) -> tuple[int, int]:
    """(columns, rows) of the slices of an image with the ratio nearest to its own, and about its number of
    pixels; (0, 0) if it is not cut."""
    exact = _F32(width) * _F32(height) / _F32(resolution * resolution)
    count = min(math.ceil(exact), most)
    if count <= 1:
        return 0, 0
    ratio = np.log(_F32(width) / _F32(height))
    best, least = (1, 1), np.inf
    for number in (count - 1, count, count + 1):
        if number == 1 or number > most:
            continue
        for columns in range(1, number + 1):
            rows, remainder = divmod(number, columns)
            error = abs(ratio - np.log(_F32(columns) / _F32(rows))) if not remainder else np.inf
            if error < least:
                best, least = (columns, rows), error
    return best


def embed_positions(height: int, width: int, size: int) -> np.ndarray:
    """Sines and cosines f32 [height * width, size] of columns, then of rows."""
    quarter = size // 4
    frequencies = _F32(1) / np.power(_F32(10000), np.arange(quarter, dtype=_F32) / _F32(quarter))
    rows, columns = np.indices((height, width), _F32).reshape(2, -1, 1)
    angles = [axis * frequencies for axis in (columns, rows)]
    parts: np.ndarray = np.concatenate([f(x) for x in angles for f in (np.sin, np.cos)], 1).astype(_F32)
    return parts


class MiniCPMV(Family):
    """MiniCPM-V 2.6, and the pictures of MiniCPM-o 2.6. The vision encoder takes patches f32 [views, 3,
    patch, patches * patch], and the resampler makes `query_num` tokens of each view."""

    native = "<image>./</image>"
    automatic = "<image>./</image>\n"
    networks: ClassVar[tuple[str, ...]] = ("resampler",)

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        config, settings = self._processor, read_json(folder / "config.json")
        self._patch = int(config.get("patch_size", 14))
        self._resolution = int(config.get("scale_resolution", 448))
        self._most = int(config.get("max_slice_nums", 0))
        #: The encoder's positions on one side.
        self._side = int(config.get("image_size", 980)) // self._patch
        self._mean, self._deviation = (
            np.array(config.get(name, [default] * 3), _F32)
            for name, default in (("norm_mean", 0), ("norm_std", 1))
        )
        self._size, self._count = int(settings.get("hidden_size", 3584)), int(settings.get("query_num", 64))
        self._has_numbers = bool(settings.get("use_image_id", True))
        self._starts = [self.token(_VIEW[0]), self.token(_SLICE[0])]

    # -- pictures

    def slice(self, image: np.ndarray) -> tuple[list[np.ndarray], tuple[int, int]]:
        """(views u8 [height, width, 3] of a picture: all of it, then its slices; their rows and columns)."""
        height, width = image.shape[:2]
        columns, rows = choose_slices(width, height, self._resolution, self._most)
        new_width, new_height = fit_size(width, height, self._resolution, self._patch, not columns)
        views = [resize_bicubic(image, new_height, new_width)]
        if columns:
            slice_width, slice_height = fit_size(
                _round_side(width, columns) // columns, _round_side(height, rows) // rows, self._resolution,
                self._patch, True,
            )  # fmt: skip
            large = resize_bicubic(image, slice_height * rows, slice_width * columns)
            tiles = large.reshape(rows, slice_height, columns, slice_width, 3).transpose(0, 2, 1, 3, 4)
            views += list(tiles.reshape(rows * columns, slice_height, slice_width, 3))
        return views, (rows, columns)

    def encode(self, image: np.ndarray) -> Sliced:
        views, grid = self.slice(image[0])
        sizes = [(view.shape[0] // self._patch, view.shape[1] // self._patch) for view in views]
        most = max(height * width for height, width in sizes)
        pixels = np.zeros((len(views), 3, self._patch, most * self._patch), _F32)
        mask, positions = np.zeros((len(views), 1, most), _F32), np.zeros((len(views), most), np.int64)
        for i, (view, (height, width)) in enumerate(zip(views, sizes, strict=True)):
            planes = normalize(np.ascontiguousarray(view)[None], self._mean, self._deviation)
            tiles = planes.reshape(3, height, self._patch, width, self._patch).transpose(0, 2, 1, 3, 4)
            count = height * width
            pixels[i, :, :, : count * self._patch] = tiles.reshape(3, self._patch, -1)
            mask[i, 0, :count] = 1
            positions[i, :count] = number_positions(height, width, self._side)
        feeds = {"pixel_values": pixels, "patch_attention_mask": mask, "position_ids": positions}
        hidden = self.run("vision_embeddings", feeds)
        features = [self._resample(each[None], *size) for each, size in zip(hidden, sizes, strict=True)]
        return Sliced(np.concatenate(features), grid)

    def _resample(self, hidden: np.ndarray, height: int, width: int) -> np.ndarray:
        """The features f32 [query_num, size] of a view's hidden states [1, patches, ...]."""
        count, patches = height * width, hidden.shape[1]
        positions = np.zeros((patches, 1, self._size), _F32)
        positions[:count, 0] = embed_positions(height, width, self._size)
        mask = (np.arange(patches) >= count).astype(_F32)[None]
        feeds = {"image_feature": hidden, "pos_embed": positions, "key_padding_mask": mask}
        return self.run("resampler", feeds)[0]

    # -- prompts

    def insert_tags(self, prompt: str, bases: tuple[int, int], media: Media) -> tuple[str, list[Any]]:
        for number, image in enumerate(media.images, bases[0]):
            image.number = number
        return super().insert_tags(prompt, bases, media)

    def write(self, visual: Sliced) -> str:
        number = str(visual.number).join(_NUMBER) if self._has_numbers else ""
        tokens, (rows, columns) = _UNKNOWN * self._count, visual.grid
        lines = "\n".join([tokens.join(_SLICE) * columns] * rows)
        return number + tokens.join(_VIEW) + lines

    def find_slots(self, ids: np.ndarray) -> np.ndarray:
        is_slot = np.zeros(ids.shape[1], bool)
        for begin in np.flatnonzero(np.isin(ids[0], self._starts)):
            is_slot[begin + 1 : begin + 1 + self._count] = True
        return is_slot
