"""Text2VideoPipeline."""

from __future__ import annotations

import copy
import time
from typing import Any

from ovjit.errors import OvjitError
from ovjit.genai.images.diffusion import Task
from ovjit.genai.images.pipelines import DiffusionPipeline
from ovjit.genai.videos.config import (
    VideoGenerationConfig,
    VideoGenerationResult,
    complete_config,
    warn_of_prompt,
)
from ovjit.genai.videos.ltx import LTXVideo


class Text2VideoPipeline(DiffusionPipeline):
    """Videos from texts: Text2VideoPipeline(folder), Text2VideoPipeline(folder, device, **properties). The
    folder is one of LTX-Video."""

    _task = Task.TEXT
    _kinds = {"LTXPipeline": LTXVideo}

    def get_generation_config(self) -> VideoGenerationConfig:
        return copy.copy(self._impl.config)

    def set_generation_config(self, config: VideoGenerationConfig) -> None:
        """Use this configuration by default; fields that are open are those of the model."""
        if not isinstance(config, VideoGenerationConfig):
            raise TypeError(f"config should be a VideoGenerationConfig, not {type(config).__name__}")
        warn_of_prompt(config, 3)
        self._impl.config = complete_config(copy.copy(config))

    def reshape(
        self, num_videos_per_prompt: int, num_frames: int, height: int, width: int, guidance_scale: float
    ) -> None:
        """Fix all sizes before `compile`; they become those of the configuration. The prompt's tokens are the
        configuration's `max_sequence_length`."""
        start, config = time.perf_counter(), self._impl.config
        self._impl.reshape(num_videos_per_prompt, height, width, guidance_scale, num_frames)
        config.num_videos_per_prompt, config.num_frames = num_videos_per_prompt, num_frames
        config.height, config.width, config.guidance_scale = height, width, guidance_scale
        complete_config(config)
        self._add_load_time(start)

    def generate(self, prompt: str, **kwargs: Any) -> VideoGenerationResult:
        """Videos u8 [n, frames, height, width, 3]. Keywords are fields of VideoGenerationConfig, and
        `callback(step, steps, latent)`, which stops by True."""
        if "generation_config" in kwargs:
            raise OvjitError("generate takes fields as keywords: give set_generation_config a configuration")
        video = self._generate(prompt, None, None, kwargs)
        return VideoGenerationResult(video, copy.copy(self._impl.metrics))
