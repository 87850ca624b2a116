"""Durations of the parts of a picture's generation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ovjit.genai.figures import measure
from ovjit.genai.results import durations


class RawImageGenerationPerfMetrics:
    """Durations of each inference and each step, in microseconds."""

    def __init__(self) -> None:
        self.iteration_durations: list[float] = []
        self.transformer_inference_durations: list[float] = []
        self.unet_inference_durations: list[float] = []


def _split_first(name: str) -> Callable[[Any], tuple[float, float]]:
    """The method that returns (the first, the mean of the others) of a list of durations in milliseconds; 0
    without values."""

    def get(self: ImageGenerationPerfMetrics) -> tuple[float, float]:
        first, *others = getattr(self.raw_metrics, name) or [0.0]
        return first / 1000, sum(others) / 1000 / max(len(others), 1)

    return get


class ImageGenerationPerfMetrics:
    """Durations of the last call of `generate`, in milliseconds."""

    def __init__(self) -> None:
        self.raw_metrics = RawImageGenerationPerfMetrics()
        self._load_time = 0.0
        self._generate_duration = 0.0
        self._encoders: dict[str, float] = {}
        self._vae = {"encoder": 0.0, "decoder": 0.0}

    def get_load_time(self) -> float:
        return self._load_time

    def get_generate_duration(self) -> float:
        return self._generate_duration

    def get_inference_duration(self) -> float:
        """The sum over all networks."""
        raw = self.raw_metrics
        steps = raw.unet_inference_durations or raw.transformer_inference_durations
        return sum(steps) / 1000 + sum(self._encoders.values()) + sum(self._vae.values())

    def get_text_encoder_infer_duration(self) -> dict[str, float]:
        return dict(self._encoders)

    def get_vae_encoder_infer_duration(self) -> float:
        return self._vae["encoder"]

    def get_vae_decoder_infer_duration(self) -> float:
        return self._vae["decoder"]

    _raw_groups = ("raw_metrics",)
    get_iteration_duration = durations("iteration_durations")
    get_unet_infer_duration = durations("unet_inference_durations")
    get_transformer_infer_duration = durations("transformer_inference_durations")
    get_first_and_other_iter_duration = _split_first("iteration_durations")
    get_first_and_other_unet_infer_duration = _split_first("unet_inference_durations")
    get_first_and_other_trans_infer_duration = _split_first("transformer_inference_durations")

    def __copy__(self) -> ImageGenerationPerfMetrics:
        return copy.deepcopy(self)


@contextmanager
def measure_part(durations: dict[str, float], name: str) -> Iterator[None]:
    """Set durations[name] to the duration of a block in milliseconds."""
    times: list[float] = []
    with measure(times):
        yield
    durations[name] = times[0] / 1000
