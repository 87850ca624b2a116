"""Stable Diffusion 1, 2 and XL, and latent consistency models: an UNet denoises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.genai.images.config import ImageGenerationConfig
from ovjit.genai.images.denoisers import UNet2DConditionModel
from ovjit.genai.images.diffusion import Diffusion, Task
from ovjit.genai.images.metrics import measure_part
from ovjit.genai.images.pixels import shrink
from ovjit.genai.images.text_encoders import CLIPTextModel, CLIPTextModelWithProjection


def embed_guidance(scale: float, size: int) -> np.ndarray:
    """The guidance scale as sines and cosines f32 [1, size], as latent consistency models take it."""
    half = size // 2
    rates = np.exp(np.arange(half, dtype=np.float32) * np.float32(-np.log(10000.0) / (half - 1)))
    angles = rates * np.float32(scale * 1000)
    embedding = np.zeros((1, size), np.float32)
    embedding[0, :half], embedding[0, half : 2 * half] = np.sin(angles), np.cos(angles)
    return embedding


class StableDiffusion(Diffusion):
    """A text encoder, an UNet and an autoencoder for a task."""

    _networks: ClassVar[dict[str, Any]] = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel}

    @property
    def title(self) -> str:  # type: ignore[override]
        return "Latent Consistency Model" if self._is_lcm() else "Stable Diffusion"

    def _takes_mask(self) -> bool:
        return bool(self.denoiser.get_config().in_channels == 2 * self.vae.get_config().latent_channels + 1)

    def _is_lcm(self) -> bool:
        return bool(self.denoiser.get_config().time_cond_proj_dim >= 0)

    def _default_config(self) -> ImageGenerationConfig:
        config = super()._default_config()
        if self.task is Task.IMAGE:
            config.height = config.width = -1
        config.guidance_scale, config.num_inference_steps = (8.5, 4) if self._is_lcm() else (7.5, 50)
        config.strength = 0.8 if self.task is Task.IMAGE else 1.0
        return config

    @property
    def _unused_prompts(self) -> Sequence[str]:  # type: ignore[override]
        others = ["prompt_2", "prompt_3", "negative_prompt_2", "negative_prompt_3"]
        return [*others, "negative_prompt"] if self._is_lcm() else others

    def _count_rows(self, guidance_scale: float) -> int:
        return 1 + self.denoiser.do_classifier_free_guidance(guidance_scale)

    def _count_tokens(self) -> int:
        return int(self.networks["text_encoder"].get_config().max_position_embeddings)

    def _encode_prompt(self, prompt: str, config: ImageGenerationConfig) -> None:
        has_negative = self._count_rows(config.guidance_scale) > 1
        with measure_part(self.metrics._encoders, "text_encoder"):
            states = self.networks["text_encoder"].infer(prompt, config.negative_prompt or "", has_negative)
        self._set_states(config, encoder_hidden_states=states.data)

    def _set_states(self, config: ImageGenerationConfig, **states: np.ndarray) -> None:
        if self._is_lcm():
            size = self.denoiser.get_config().time_cond_proj_dim
            states["timestep_cond"] = embed_guidance(config.guidance_scale - 1, size)
        super()._set_states(config, **states)

    def _build_condition(self, mask: np.ndarray, masked_image: np.ndarray) -> np.ndarray:
        return np.concatenate((shrink(mask, *masked_image.shape[2:]), masked_image), 1)


class StableDiffusionXL(StableDiffusion):
    """Two text encoders, an UNet that takes the picture's sizes, and an autoencoder for a task."""

    title = "Stable Diffusion XL"
    _networks: ClassVar[dict[str, Any]] = {
        "text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection,
        "unet": UNet2DConditionModel,
    }  # fmt: skip
    #: True if the states of a missing negative prompt are zeros, not those of an empty text.
    force_zeros = True
    _from_folder = ("force_zeros",)
    _unused_prompts = ("prompt_3", "negative_prompt_3")

    def _read_folder(self, folder: Path, index: Mapping[str, Any]) -> None:
        self.force_zeros = bool(index.get("force_zeros_for_empty_prompt", True))

    def _default_config(self) -> ImageGenerationConfig:
        config = super()._default_config()
        config.num_inference_steps = 50
        config.guidance_scale = 7.5 if self.task is Task.INPAINTING else 5.0
        config.strength = {Task.TEXT: 1.0, Task.IMAGE: 0.3, Task.INPAINTING: 0.9999}[self.task]
        return config

    def _encode_prompt(self, prompt: str, config: ImageGenerationConfig) -> None:
        rows = self._count_rows(config.guidance_scale)
        is_zero = rows > 1 and config.negative_prompt is None and self.force_zeros
        # the first encoder reads the second prompt
        texts = dict(
            zip(("text_encoder_2", "text_encoder"), self._list_prompts(prompt, config, 2), strict=True)
        )
        states, outputs = {}, {}
        for name, pair in texts.items():
            with measure_part(self.metrics._encoders, name):
                outputs[name], states[name] = self.networks[name].infer_states(pair, rows > 1 and not is_zero)
        hidden = np.concatenate((states["text_encoder"], states["text_encoder_2"]), -1)
        pooled = outputs["text_encoder_2"]
        if is_zero:
            hidden, pooled = (np.concatenate((np.zeros_like(each), each)) for each in (hidden, pooled))
        sizes = np.array(
            [[config.width, config.height, 0, 0, config.width, config.height]] * rows, np.float32
        )
        self._set_states(config, encoder_hidden_states=hidden, text_embeds=pooled, time_ids=sizes)
