"""LLaVA: the features of a picture replace its tokens. LLaVA-NeXT reads a small view and crops of a larger
one, LLaVA-NeXT-Video videos, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.json_files import read_json
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Clip, Family, Visual
from ovjit.genai.vision.pixels import end_lines, normalize, split_crops
from ovjit.genai.vision.resizing import resize_bicubic, resize_cubic
from ovjit.genai.vision.videos import VideoMetadata, pick_frames

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


#: Sizes [width, height] of larger views.
_SIZES = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def choose_view(height: int, width: int, sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The size (width, height) that keeps most pixels of a picture, with the least rest."""

    def rank(size: tuple[int, int]) -> tuple[int, int]:
        scale = min(_F32(size[0]) / _F32(width), _F32(size[1]) / _F32(height))
        count = min(int(_F32(width) * scale) * int(_F32(height) * scale), width * height)
        return count, count - size[0] * size[1]

    return max(sizes, key=rank)


def fit_view(image: np.ndarray, width: int, height: int, gray: int = 0) -> np.ndarray:
    """A picture u8 [height, width, 3] in the middle of a view, black by default."""
    scales = _F32(width) / _F32(image.shape[1]), _F32(height) / _F32(image.shape[0])
    if scales[0] < scales[1]:
        columns, rows = width, min(math.ceil(_F32(image.shape[0]) * scales[0]), height)
    else:
        columns, rows = min(math.ceil(_F32(image.shape[1]) * scales[1]), width), height
    top, margin = (height - rows) // 2, (width - columns) // 2
    view = np.full((height, width, 3), gray, np.uint8)
    view[top : top + rows, margin : margin + columns] = resize_bicubic(image, rows, columns)
    return view


def cut_border(features: np.ndarray, height: int, width: int) -> np.ndarray:
    """Features [rows, columns, size] of a square view, without the rows or columns that pad a picture of this
    height and width."""
    rows, columns = features.shape[:2]
    if _F32(width) / _F32(height) > _F32(columns) / _F32(rows):
        border = (rows - int(_F32(height) * (_F32(columns) / _F32(width)))) // 2
        return features[border : rows - border]
    border = (columns - int(_F32(width) * (_F32(rows) / _F32(height)))) // 2
    return features[:, border : columns - border]


class LlavaNext(Llava):
    """LLaVA-NeXT."""

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        settings, views = read_json(folder / "config.json"), self._processor.get("image_grid_pinpoints")
        self._sizes = [(int(x), int(y)) for x, y in views or _SIZES]
        patch = int((settings.get("vision_config") or {}).get("patch_size", 14))
        #: The rows and columns of a crop's features.
        self._grid = (self._crop[0] // patch, self._crop[1] // patch)
        if "image_newline" not in settings:
            raise OvjitError("config.json has no image_newline: export the model with optimum-cli")
        self._line_end = np.array(settings["image_newline"], _F32)

    def see(self, pixels: np.ndarray) -> np.ndarray:
        """The features f32 [crops, tokens, size] of crops."""
        return self.run("vision_embeddings", {"pixel_values": pixels})

    def encode(self, image: np.ndarray) -> Visual:
        height, width = image.shape[1:3]
        view = choose_view(height, width, self._sizes)
        large, side = fit_view(image[0], *view), self._crop[0]
        rows, columns = view[1] // side, view[0] // side
        small = resize_bicubic(image[0], self._shortest, self._shortest)
        crops = [small, *split_crops(large, side)]
        pixels = np.concatenate([self.preprocess(crop[None]) for crop in crops])
        features = self.see(pixels)
        size = features.shape[2]
        joined = features[1:].reshape(rows, columns, *self._grid, size).transpose(0, 2, 1, 3, 4)
        shown = cut_border(joined.reshape(rows * self._grid[0], -1, size), height, width)
        return Visual(np.concatenate([features[0], end_lines(shown, self._line_end)]))


class LlavaNextVideo(LlavaNext):
    """LLaVA-NeXT-Video. The vision encoder gives hidden states; the resampler joins those of four neighbours
    in frames; the projector makes features of them."""

    native_video = "<video>"
    networks: ClassVar[tuple[str, ...]] = ("vision_resampler", "multi_modal_projector")
    _images_last = True

    def see(self, pixels: np.ndarray) -> np.ndarray:
        return self._project(self._look(pixels))

    def _look(self, pixels: np.ndarray) -> Any:
        return self._requests["vision_embeddings"].infer({"pixel_values": pixels})["last_hidden_state"]

    def _project(self, hidden: np.ndarray) -> np.ndarray:
        return self.run("multi_modal_projector", {"image_features": hidden})

    def preprocess_frames(self, frames: np.ndarray) -> np.ndarray:
        """Frames u8 [frames, height, width, 3] as pixel values: the shortest edge resized by another filter
        than that of pictures, the middle cut."""
        height, width = self.scale_size(*frames.shape[1:3])
        planes = resize_cubic(frames, height, width, "asymmetric", -0.5)
        cropped = planes[(..., *self.find_middle(height, width))]
        return np.ascontiguousarray(self.normalize_planes(cropped))

    def encode_video(self, frames: np.ndarray, metadata: VideoMetadata) -> Clip:
        """A video u8 [frames, height, width, 3]."""
        pixels = self.preprocess_frames(pick_frames(frames, metadata.frames_indices))
        joined = self._requests["vision_resampler"].infer([self._look(pixels)])[0]
        features = self._project(np.asarray(joined))
        return Clip(features.reshape(-1, features.shape[-1]))

    def tokenize(self, text: str, special: bool, visuals: Any) -> np.ndarray:
        return super().tokenize(text, True, visuals)

    def write(self, visual: Visual) -> str:
        tag = self.native_video if isinstance(visual, Clip) else self.native
        return f"{tag * len(visual.features)}\n"
