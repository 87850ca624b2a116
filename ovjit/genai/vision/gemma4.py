"""Gemma 4: pictures and videos of any size, as a limited number of patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.json_files import read_json
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Clip, Visual
from ovjit.genai.vision.gemma import LayerEmbeddings
from ovjit.genai.vision.pixels import normalize, read_mean
from ovjit.genai.vision.processors import read_processor
from ovjit.genai.vision.resizing import resize_bicubic
from ovjit.genai.vision.videos import VideoMetadata, find_rate, pick_frames

_START, _IMAGE, _VIDEO, _END = "<|image>", "<|image|>", "<|video|>", "<image|>"


class Limits:
    """The sizes of patches, of pooled patches, and the most tokens of a picture."""

    def __init__(self, config: Mapping[str, Any], patch: int | None = None):
        self.patch = int(config.get("patch_size", 14)) if patch is None else patch
        self.pool, self.tokens = (
            int(config.get("pooling_kernel_size", 3)),
            int(config.get("max_soft_tokens", 280)),
        )
        self.mean, self.deviation = read_mean(config)

    @property
    def most(self) -> int:
        """The most patches of a picture."""
        return self.tokens * self.pool**2

    def choose_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of about as many pixels as the most patches have, multiples of pooled patches.
        RuntimeError for a picture that is too small."""
        unit = self.pool * self.patch
        scale = math.sqrt(float(self.most) * float(self.patch**2) / float(height * width))
        sizes = [math.floor(scale * side / unit) * unit for side in (height, width)]
        if not any(sizes):
            raise OvjitError(f"Cannot resize image to 0x0. Dimensions must be divisible by {unit}")
        longest = self.most // self.pool**2 * unit
        if not sizes[0]:
            return unit, min(math.floor(width / height) * unit, longest)
        if not sizes[1]:
            return min(math.floor(height / width) * unit, longest), unit
        return sizes[0], sizes[1]


class Gemma4(LayerEmbeddings):
    """Gemma 4. The vision encoder takes patches f32 [1, patches, values] with their columns and rows i64
    [1, patches, 2], both padded."""

    native, native_video = _IMAGE, _VIDEO
    _borders = _START, _END

    @classmethod
    def list_networks(cls, folder: Path) -> tuple[str, ...]:
        text = read_json(folder / "config.json").get("text_config") or {}
        return cls.networks if text.get("hidden_size_per_layer_input") else ()

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        vision = read_json(folder / "config.json").get("vision_config") or {}
        self._limits = Limits(self._processor, int(vision.get("patch_size", 14)))
        self._video = read_processor(folder, "video")
        self._video_limits = Limits(self._video)
        port = requests["vision_embeddings"].get_compiled_model().input("pixel_values")
        self._values = int(port.partial_shape[2].get_length())

    def _split(self, image: np.ndarray, limits: Limits) -> tuple[np.ndarray, np.ndarray, int]:
        """(patches, their columns and rows, their number) of a picture u8 [height, width, 3]."""
        merged, height_width = limits.patch * limits.pool, limits.choose_size(*image.shape[:2])
        sides = {3 * limits.patch**2: (limits.patch, limits.most), 3 * merged**2: (merged, limits.tokens)}
        if self._values not in sides:
            raise OvjitError(
                f"Gemma4 vision embeddings pixel_values patch dimension {self._values} is none of "
                f"{list(sides)}"
            )
        side, most = sides[self._values]
        planes = normalize(resize_bicubic(image, *height_width)[None], limits.mean, limits.deviation)[0]
        rows, columns = (size // side for size in height_width)
        tiles = planes.reshape(3, rows, side, columns, side).transpose(1, 3, 2, 4, 0)
        count = rows * columns
        pixels, numbers = np.zeros((1, most, self._values), np.float32), np.full((1, most, 2), -1, np.int64)
        pixels[0, :count] = tiles.reshape(count, -1)
        numbers[0, :count] = np.indices((rows, columns)).reshape(2, -1)[::-1].T
        return pixels, numbers, count

    def _encode(self, image: np.ndarray, limits: Limits) -> np.ndarray:
        """The features f32 [tokens, size] of a picture."""
        pixels, numbers, count = self._split(image, limits)
        feeds = {"pixel_values": pixels, "image_position_ids": numbers}
        features = self.run("vision_embeddings", feeds)
        features = features.reshape(-1, features.shape[-1])
        # an encoder of whole patches gives features of padding, too
        return features if self._values == 3 * limits.patch**2 else features[:count]

    def encode(self, image: np.ndarray) -> Visual:
        return Visual(self._encode(image[0], self._limits))

    def encode_video(self, frames: np.ndarray, metadata: VideoMetadata) -> Clip:
        rate = find_rate(metadata)
        indices = list(metadata.frames_indices) or self._choose_frames(len(frames))
        features = [self._encode(frame, self._video_limits) for frame in pick_frames(frames, indices)]
        times = [float(np.float32(index) / np.float32(rate)) for index in indices]
        return Clip(np.concatenate(features), times)

    def _choose_frames(self, count: int) -> list[int]:
        """The numbers of the frames of a video that are read."""
        config = self._video
        if not config.get("do_sample_frames"):
            return list(range(count))
        chosen = int(config.get("num_frames") or config.get("max_frames") or count)
        chosen = min(chosen, count)
        return [int(i * (count / chosen)) for i in range(chosen)]

    def write(self, visual: Visual) -> str:
        if not isinstance(visual, Clip):
            return super().write(visual)
        pads = _START + _VIDEO * (len(visual.features) // len(visual.times)) + _END
        return " ".join(f"{int(time) // 60:02d}:{int(time) % 60:02d} {pads}" for time in visual.times)

    def inputs(self, ids: np.ndarray, slots: np.ndarray, visuals: Sequence[Any]) -> dict[str, np.ndarray]:
        types = {"token_type_ids": np.isin(ids, self._slot_tokens).astype(np.int64)}
        return (
            {**types, **super().inputs(ids, slots, visuals)} if self.networks[0] in self._requests else types
        )
