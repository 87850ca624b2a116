"""Muse Glimmer: pictures of a size near their own, and videos with times of their groups of frames."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.genai.config import demand
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Clip, Family, Visual
from ovjit.genai.vision.pixels import normalize, read_mean
from ovjit.genai.vision.processors import read_processor
from ovjit.genai.vision.resizing import resize_lanczos
from ovjit.genai.vision.videos import VideoMetadata, pick_frames

_F32 = np.float32


def choose_size(height: int, width: int, side: int, most: int) -> tuple[int, int]:
    """The rows and columns of at most `most` squares that keep the ratio of a picture best."""
    rows, columns = _F32(height) / _F32(side), _F32(width) / _F32(side)
    if rows * columns > _F32(most):
        ratio = columns / rows
        rows = np.sqrt(_F32(most) / ratio)
        columns = rows * ratio
    pairs = itertools.product((math.floor(rows), math.ceil(rows)), (math.floor(columns), math.ceil(columns)))
    sizes = [pair for pair in pairs if min(pair) >= 1 and math.prod(pair) <= most]
    ratio = _F32(height) / _F32(width)
    default = max(1, int(rows + _F32(0.5))), max(1, int(columns + _F32(0.5)))
    return min(sizes or [default], key=lambda pair: abs(_F32(pair[0]) / _F32(pair[1]) - ratio))


class _Settings:
    """The sizes of a processor of pictures or videos. `most`: tokens of a picture or of a group of frames."""

    def __init__(self, processor: Mapping[str, Any], most: int):
        self.patch, self.merge = int(processor.get("patch_size", 14)), int(processor.get("merge_size", 2))
        self.frames, self.most = int(processor.get("temporal_patch_size", 2)), most
        self.rate, self.count = float(processor.get("fps", 0)), int(processor.get("num_frames", 0))
        self.mean, self.deviation = read_mean(processor)


class MuseGlimmer(Family):
    """Muse Glimmer. The vision encoder takes the patches f32 [patches, values] of a group of frames and their
    grid i64 [1, 3], and gives features [tokens, size]."""

    native, native_video = "<|image|>", "<|video|>"
    picture_token = "<|patch|>"
    _borders = "<|image_start|>", "<|image_end|>"

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        video = read_processor(folder, "video")
        self._picture = _Settings(self._processor, int(self._processor.get("max_image_tokens", 4096)))
        self._video = _Settings(video, int(video.get("max_video_frame_tokens", 144)))

    def _infer(self, frames: np.ndarray, settings: _Settings) -> np.ndarray:
        """The features of a group of frames u8 [frames, height, width, 3], or of one picture."""
        patch, merge = settings.patch, settings.merge
        height, width = frames.shape[1:3]
        sizes = choose_size(height, width, patch * merge, settings.most)
        rows, columns = (count * merge for count in sizes)
        resized = np.stack([resize_lanczos(frame, rows * patch, columns * patch) for frame in frames])
        planes = normalize(resized, settings.mean, settings.deviation)
        planes = np.broadcast_to(planes, (settings.frames, *planes.shape[1:]))
        tiles = planes.reshape(settings.frames, 3, rows, patch, columns, patch).transpose(2, 4, 0, 1, 3, 5)
        feeds = {"pixel_values": np.ascontiguousarray(tiles).reshape(rows * columns, -1),
                 "image_grid_thw": np.array([[1, rows, columns]])}  # fmt: skip
        return self.run("vision_embeddings", feeds)

    def encode(self, image: np.ndarray) -> Visual:
        return Visual(self._infer(image, self._picture))

    def encode_video(self, frames: np.ndarray, metadata: VideoMetadata) -> Clip:
        """RuntimeError for too few frames, and for groups that are not whole."""
        size, rate = self._video.frames, _F32(metadata.fps or self._video.rate)
        demand(len(frames) >= size, f"a video needs at least {size} frames, got {len(frames)}")
        demand(rate > 0, "Muse Glimmer video metadata fps must be positive")
        indices = list(metadata.frames_indices) or self._choose_frames(len(frames), float(rate))
        demand(len(indices) % size == 0, f"the number of frames_indices must be a multiple of {size}")
        chosen = pick_frames(frames, indices)
        features = [self._infer(chosen[i : i + size], self._video) for i in range(0, len(indices), size)]
        return Clip(np.concatenate(features), [float(_F32(index) / rate) for index in indices[::size]])

    def _choose_frames(self, count: int, rate: float) -> list[int]:
        """The numbers of the frames that are read."""
        size = self._video.frames
        demand(self._video.count and self._video.rate, "the video processor needs num_frames and fps")
        chosen = min(int(count * self._video.rate / rate), self._video.count, count)
        chosen = max(chosen - chosen % size, size)
        return [int(i * (count - 1) / (chosen - 1)) for i in range(chosen)]

    def write(self, visual: Visual) -> str:
        if not isinstance(visual, Clip):
            return super().write(visual)
        slots = self.native_video * (len(visual.features) // len(visual.times))
        groups = (f"Time: {time:.1f}s{slots}" for time in visual.times)
        return f"<|vid_start|>{'<|vid_frame_separator|>'.join(groups)}<|vid_end|>"

    def tokenize(self, text: str, special: bool, visuals: Sequence[Any]) -> np.ndarray:
        start = self._tokenizer.get_bos_token()
        return super().tokenize(text, special and not (start and text.startswith(start)), visuals)
