"""VideoGenerationConfig, and the results of Text2VideoPipeline."""

from __future__ import annotations

import warnings
from typing import Any

from ovjit.api.tensors.tensor import Tensor
from ovjit.genai.adapters import AdapterConfig
from ovjit.genai.fields import REAL, SIZE, Copied, Instance, Integer, Optional, Settings, Text
from ovjit.genai.images.generators import CppStdGenerator, Generator
from ovjit.genai.images.metrics import ImageGenerationPerfMetrics
from ovjit.genai.images.taylor import TaylorSeerCacheConfig

_SIGNED = Integer(-(2**63))
#: The seed of a call without a generator.
_SEED = 42


class VideoGenerationConfig(Settings):
    """Settings of a video's generation. Pipelines replace -1, None and `num_frames=0` by their own."""

    _fields = {
        "adapters": (None, Optional(Copied(AdapterConfig))), "frame_rate": (None, Optional(REAL)),
        "generator": (None, Optional(Instance(Generator))), "guidance_rescale": (None, Optional(REAL)),
        "guidance_scale": (7.5, REAL), "height": (-1, _SIGNED), "max_sequence_length": (-1, _SIGNED),
        "negative_prompt": (None, Optional(Text())), "num_frames": (0, SIZE),
        "num_inference_steps": (-1, _SIGNED), "num_videos_per_prompt": (1, SIZE),
        "taylorseer_config": (None, Optional(Copied(TaylorSeerCacheConfig))), "width": (-1, _SIGNED),
    }  # fmt: skip


#: Fields of LTX-Video that a configuration leaves open.
_DEFAULTS = {"height": 512, "width": 704, "num_inference_steps": 50, "max_sequence_length": 128,
             "guidance_rescale": 0.0, "num_frames": 161, "frame_rate": 25.0}  # fmt: skip


def complete_config(config: VideoGenerationConfig) -> VideoGenerationConfig:
    """Fill in the fields that are not set, and return the configuration."""
    fresh = VideoGenerationConfig()
    for name, value in _DEFAULTS.items():
        if getattr(config, name) == getattr(fresh, name):
            setattr(config, name, value)
    return config


def update_config(config: VideoGenerationConfig, keywords: dict[str, Any]) -> None:
    """Set fields by the keywords of `generate`; unknown ones are ignored. Without a generator, one is created
    with the seed 42."""
    config.update_fields(keywords)
    if config.generator is None:
        config.generator = CppStdGenerator(_SEED)
    warn_of_prompt(config, 7)
    if config.guidance_scale <= 1:
        config.negative_prompt = None


def warn_of_prompt(config: VideoGenerationConfig, level: int) -> None:
    """A RuntimeWarning for a negative prompt without guidance. `level`: the user's frame."""
    if config.guidance_scale <= 1 and config.negative_prompt is not None:
        warnings.warn("guidance_scale <= 1 ignores negative_prompt", RuntimeWarning, level)


class VideoGenerationPerfMetrics(ImageGenerationPerfMetrics):
    """Durations of one call of `generate`, in milliseconds."""


class VideoGenerationResult:
    """`video`: u8 [n, frames, height, width, 3], empty if the callback has stopped. `perf_metrics`."""

    def __init__(self, video: Tensor, perf_metrics: VideoGenerationPerfMetrics):
        self.video, self.perf_metrics = video, perf_metrics
