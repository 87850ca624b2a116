"""LTX-Video: a transformer denoises the tokens of a video along straight paths (arXiv 2501.00103)."""

from __future__ import annotations

import copy
import warnings
from typing import Any, ClassVar

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.images.diffusion import Latents
from ovjit.genai.images.flow import FlowDiffusion
from ovjit.genai.images.generators import draw_noise
from ovjit.genai.images.metrics import measure_part
from ovjit.genai.images.text_encoders import T5EncoderModel
from ovjit.genai.videos.config import (
    VideoGenerationConfig,
    VideoGenerationPerfMetrics,
    complete_config,
    update_config,
)
from ovjit.genai.videos.networks import (
    AutoencoderKLLTXVideo,
    LTXVideoTransformer3DModel,
    check_sizes,
    count_latents,
    count_pixels,
)


def pack(latents: np.ndarray) -> np.ndarray:
    """Latents [n, channels, frames, height, width] as tokens [n, frames * height * width, channels]."""
    return np.ascontiguousarray(latents.reshape(*latents.shape[:2], -1).transpose(0, 2, 1))


def unpack(tokens: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """The latents of `pack`, of `sizes` frames, rows and columns."""
    count, _, channels = tokens.shape
    return np.ascontiguousarray(tokens.transpose(0, 2, 1)).reshape(count, channels, *sizes)


def rescale_guidance(noise: np.ndarray, guided: np.ndarray, share: float) -> np.ndarray:
    """Give each row of the noise a share of the deviation of the guided one (arXiv 2305.08891)."""
    axes = tuple(range(1, noise.ndim))
    target, current = (
        np.std(each, axes, np.float64, keepdims=True).astype(np.float32) for each in (guided, noise)
    )
    scale = np.divide(target, current, out=np.ones_like(current), where=current > 0)
    return np.float32(share) * (noise * scale) + (1 - np.float32(share)) * noise


class LTXVideo(FlowDiffusion):
    """A text encoder, a transformer, and an autoencoder of videos."""

    title = "LTXPipeline"
    _networks: ClassVar[dict[str, Any]] = {
        "text_encoder": T5EncoderModel, "transformer": LTXVideoTransformer3DModel,
    }  # fmt: skip
    _autoencoder = AutoencoderKLLTXVideo
    _metrics = VideoGenerationPerfMetrics
    _adapts_text = False
    _shift_type = "linear"

    def _default_config(self) -> Any:
        return complete_config(VideoGenerationConfig())

    def _merge_config(self, keywords: dict[str, Any]) -> Any:
        config: Any = copy.copy(self.config)
        update_config(config, keywords)
        return complete_config(config)

    def _choose_sizes(self, config: Any, image: np.ndarray | None) -> None:
        self._sizes = count_latents(self.vae.get_config(), config.num_frames, config.height, config.width)

    def _check_config(self, config: Any) -> None:
        check_sizes(config.height, config.width)
        if config.num_videos_per_prompt < 1:
            raise OvjitError("num_videos_per_prompt should be at least 1")
        self._check_tokens(config)
        if self.vae.get_config().timestep_conditioning:
            raise UnsupportedError(
                "ovjit and openvino_genai do not support a decoder with timestep_conditioning: use a "
                "model without it"
            )
        self._check_rows(config)

    def _check_rows(self, config: Any) -> None:
        """Leave out the guidance for a network that is reshaped without it. RuntimeError for other numbers of
        rows."""
        fixed, count = self.denoiser.count_fixed_rows(), config.num_videos_per_prompt
        if fixed == count and config.guidance_scale > 1:
            text = "the pipeline is reshaped for no guidance: guidance_scale is ignored"
            warnings.warn(text, RuntimeWarning, 6)
            config.guidance_scale = 1.0
        rows = count * self._count_rows(config.guidance_scale)
        if fixed not in (0, rows):
            raise OvjitError(
                f"the pipeline was reshaped for {fixed} rows, and cannot take {rows}: num_videos_per_prompt, "
                "twice with a guidance_scale above 1"
            )

    def _count_results(self, config: Any) -> int:
        return int(config.num_videos_per_prompt)

    def _strength_of(self, config: Any) -> float:
        return 1.0

    def _count_latent_tokens(self) -> int:
        return int(np.prod(self._sizes))

    def _time_of(self, index: int) -> np.ndarray:
        tokens = self._count_latent_tokens()
        time: np.ndarray = self.denoiser.shape_time(super()._time_of(index), tokens)
        return time

    def reshape(self, count: int, height: int, width: int, guidance_scale: float, frames: int = 0) -> None:
        """As for pictures, with the number of frames."""
        check_sizes(height, width)
        rows = self._count_rows(guidance_scale)
        self._reshape_encoders(rows)
        self.denoiser.reshape(count * rows, frames, height, width, self.config.max_sequence_length)
        self.vae.reshape(count, frames, height, width)

    def _encode_prompt(self, prompt: str, config: Any) -> None:
        rows, length = self._count_rows(config.guidance_scale), config.max_sequence_length
        encoder = self.networks["text_encoder"]
        options = {"pad_to_max_length": True, "max_length": length, "add_special_tokens": True}
        with measure_part(self.metrics._encoders, "text_encoder"):
            states = encoder.infer(prompt, config.negative_prompt or "", rows > 1, length, **options).data
        self._set_states(config, encoder_hidden_states=states, encoder_attention_mask=encoder.prompt_mask)
        space, time = count_pixels(self.vae.get_config())
        scale = np.array([time / np.float32(config.frame_rate), space, space], np.float32)
        sizes = zip(("num_frames", "height", "width"), self._sizes, strict=True)
        values = {name: np.array(size, np.int64) for name, size in sizes}
        for name, value in {**values, "rope_interpolation_scale": scale}.items():
            self.denoiser.set_hidden_states(name, Tensor(value))

    def _prepare(self, config: Any, image: np.ndarray | None, mask: np.ndarray | None) -> Latents:
        shape = config.num_videos_per_prompt, self.denoiser.get_config().in_channels, *self._sizes
        noise = pack(draw_noise(config.generator, shape))
        return Latents(noise, noise, None)

    def _guide(self, config: Any, without: np.ndarray, guided: np.ndarray) -> np.ndarray:
        mixed, share = super()._guide(config, without, guided), config.guidance_rescale
        return mixed if share <= 0 else rescale_guidance(mixed, guided, share)

    def decode(self, latent: Tensor) -> Tensor:
        config = self.vae.get_config()
        values = unpack(latent.data, self._sizes)
        mean, deviation = (
            np.array(data or [value], np.float32)[:, None, None, None]
            for data, value in ((config.latents_mean_data, 0), (config.latents_std_data, 1))
        )
        return self.vae.decode(Tensor(values * deviation / np.float32(config.scaling_factor) + mean))
