"""LLaVA-NeXT-Video: LLaVA-NeXT with videos."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ovjit.genai.vision.family import Visual
from ovjit.genai.vision.llava_next import LlavaNext
from ovjit.genai.vision.resizing import resize_cubic
from ovjit.genai.vision.videos import VideoMetadata, pick_frames


class Clip(Visual):
    """An encoded video."""


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
