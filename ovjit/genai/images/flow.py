"""Stable Diffusion 3 and Flux: a transformer denoises along straight paths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.images.config import ImageGenerationConfig
from ovjit.genai.images.denoisers import FluxTransformer2DModel, SD3Transformer2DModel
from ovjit.genai.images.diffusion import Diffusion, Latents, Task
from ovjit.genai.images.metrics import measure_part
from ovjit.genai.images.schedulers import FlowMatchEuler
from ovjit.genai.images.taylor import TaylorSeer, TaylorSeerCacheConfig
from ovjit.genai.images.text_encoders import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    LanguageEncoder,
    T5EncoderModel,
)

#: The most tokens of a T5 encoder.
_MOST_TOKENS = 512


class FlowDiffusion(Diffusion):
    """The base of both families: times in f32, a T5 encoder, and outputs that are predicted."""

    _durations = "transformer_inference_durations"
    _settings: ClassVar[dict[str, Any]] = {
        "num_inference_steps": 28, "strength": {Task.TEXT: 1.0, Task.IMAGE: 0.6, Task.INPAINTING: 0.6},
        "taylorseer_config": {Task.TEXT: TaylorSeerCacheConfig(), Task.IMAGE: None, Task.INPAINTING: None},
    }  # fmt: skip
    #: The shift of the schedule, None for that of the scheduler's file.
    _shift_type: str | None = None
    #: Height and width of the latents of the last call, for videos after their frames.
    _sizes: tuple[int, ...] = (0, 0)
    #: The states of each prompt by name, the negative one first, if the denoiser runs once for each.
    _states: Sequence[dict[str, np.ndarray]] = ()

    def _check_config(self, config: ImageGenerationConfig) -> None:
        super()._check_config(config)
        self._check_tokens(config)

    def _check_tokens(self, config: ImageGenerationConfig) -> None:
        if not 0 < config.max_sequence_length <= _MOST_TOKENS:
            raise OvjitError(
                f"T5's 'max_sequence_length' must be less or equal to {_MOST_TOKENS} and above 0, not "
                f"{config.max_sequence_length}"
            )

    def _reshape_encoders(self, rows: int) -> None:
        for network in self.networks.values():
            if isinstance(network, (T5EncoderModel, LanguageEncoder)):
                network.reshape(rows, self.config.max_sequence_length)
            elif network is not self.denoiser:
                network.reshape(rows)

    def _choose_sizes(self, config: ImageGenerationConfig, image: np.ndarray | None) -> None:
        super()._choose_sizes(config, image)
        factor = self.vae.get_vae_scale_factor()
        self._sizes = config.height // factor, config.width // factor

    def _choose_times(self, config: ImageGenerationConfig) -> None:
        if not isinstance(self.scheduler, FlowMatchEuler):
            raise OvjitError(f"Scheduler doesn't support float timesteps: {self.title} needs "
                             "FlowMatchEulerDiscreteScheduler")  # fmt: skip
        tokens, strength = self._count_latent_tokens(), self._strength_of(config)
        self.scheduler.set_timesteps(config.num_inference_steps, strength, tokens, self._shift_type)
        self._taylor = TaylorSeer(config.taylorseer_config, len(self.scheduler.times))

    def _strength_of(self, config: ImageGenerationConfig) -> float:
        """The share of the steps that run."""
        return float(config.strength)

    def _count_latent_tokens(self) -> int | None:
        """The tokens of a picture if the schedule depends on them."""
        return None

    def _encode_apart(self, prompts: tuple[str, str], config: ImageGenerationConfig, layers: Any) -> None:
        """Encode a prompt and its negative prompt separately, and store the states of some layers of the
        encoder."""
        rows, encoder = self._count_rows(config.guidance_scale), self.networks["text_encoder"]
        with measure_part(self.metrics._encoders, "text_encoder"):
            states = encoder.infer_layers(prompts, rows > 1, config.max_sequence_length, layers)
        self._keep_states(config, encoder_hidden_states=states)

    def _keep_states(self, config: ImageGenerationConfig, **states: np.ndarray) -> None:
        """Store states [prompts, ...] for the runs of the denoiser."""
        count, rows = config.num_images_per_prompt, range(len(states["encoder_hidden_states"]))
        self._states = [
            {name: np.repeat(values[i : i + 1], count, 0) for name, values in states.items()} for i in rows
        ]

    def _run_denoiser(self, latents: Latents, rows: int, index: int) -> np.ndarray:
        run, noises = super()._run_denoiser, list[np.ndarray]()
        for states in reversed(self._states):
            for name, values in states.items():
                self.denoiser.set_hidden_states(name, Tensor(values))
            noises.insert(0, run(latents, 1, index)[:, : latents.values.shape[1]])
        if noises:
            return np.concatenate(noises)
        return self._taylor.run(index, lambda: run(latents, rows, index))


class StableDiffusion3(FlowDiffusion):
    """Two text encoders and perhaps a third, a transformer and an autoencoder for a task."""

    title = "Stable Diffusion 3"
    _networks: ClassVar[dict[str, Any]] = {
        "text_encoder": CLIPTextModelWithProjection, "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel, "transformer": SD3Transformer2DModel,
    }  # fmt: skip
    _optional = ("text_encoder_3",)
    _adapts_text = False
    _settings = {"guidance_scale": 7.0, "max_sequence_length": 256}

    def _size_factor(self) -> int:
        return int(super()._size_factor() * self.denoiser.get_config().patch_size)

    def _count_tokens(self) -> int:
        length: int = self.networks["text_encoder"].get_config().max_position_embeddings
        return length + (self.config.max_sequence_length if "text_encoder_3" in self.networks else length)

    def _encode_prompt(self, prompt: str, config: ImageGenerationConfig) -> None:
        rows, pairs = self._count_rows(config.guidance_scale), self._list_prompts(prompt, config, 3)
        outputs, states = [], []
        for name, pair in zip(("text_encoder", "text_encoder_2"), pairs, strict=False):
            with measure_part(self.metrics._encoders, name.replace("encoder", "encode")):
                output, hidden = self.networks[name].infer_states(pair, rows > 1)
            outputs.append(output)
            states.append(hidden)
        clip, third = np.concatenate(states, -1), self.networks.get("text_encoder_3")
        with measure_part(self.metrics._encoders, "text_encode_3"):
            if third is not None:
                last = third.infer(*pairs[2], rows > 1, config.max_sequence_length).data
            else:
                width = self.denoiser.get_config().joint_attention_dim
                last = np.zeros((*clip.shape[:2], width), np.float32)
        padded = np.zeros((*clip.shape[:2], last.shape[2]), np.float32)
        width = min(clip.shape[2], last.shape[2])
        padded[..., :width] = clip[..., :width]
        hidden, pooled = np.concatenate((padded, last), 1), np.concatenate(outputs, -1)
        self._set_states(config, encoder_hidden_states=hidden, pooled_projections=pooled)


def pack(latents: np.ndarray) -> np.ndarray:
    """Latents [n, channels, height, width] as tokens of 2 x 2 [n, height * width / 4, 4 * channels]."""
    count, channels, height, width = latents.shape
    blocks = latents.reshape(count, channels, height // 2, 2, width // 2, 2).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(blocks).reshape(count, height * width // 4, 4 * channels)


def unpack(tokens: np.ndarray, height: int, width: int) -> np.ndarray:
    """The latents of `pack`. RuntimeError for another number of tokens."""
    count, length, channels = tokens.shape
    if length * 4 != height * width:
        raise OvjitError(f"latents of {height} x {width} are {height * width // 4} tokens, not {length}")
    blocks = tokens.reshape(count, height // 2, width // 2, channels // 4, 2, 2).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(blocks).reshape(count, channels // 4, height, width)


class Flux(FlowDiffusion):
    """Two text encoders, a transformer whose latents are tokens, and an autoencoder for a task."""

    title = "FluxPipeline"
    _networks: ClassVar[dict[str, Any]] = {
        "text_encoder": CLIPTextModel, "text_encoder_2": T5EncoderModel,
        "transformer": FluxTransformer2DModel,
    }  # fmt: skip
    _follows_picture = False
    _condition_axis = 2
    _guided_above = math.inf
    _unused_prompts: Sequence[str] = ("negative_prompt", "negative_prompt_2", "negative_prompt_3", "prompt_3")
    _settings = {
        "guidance_scale": {Task.TEXT: 3.5, Task.IMAGE: 7.0, Task.INPAINTING: 7.0}, "max_sequence_length": 512,
    }  # fmt: skip

    def _default_size(self) -> int:
        return int(self.denoiser.get_config().default_sample_size * self.vae.get_vae_scale_factor())

    def _size_factor(self) -> int:
        return 2 * super()._size_factor()

    def _count_latent_tokens(self) -> int:
        return self._sizes[0] * self._sizes[1] // 4

    def _time_of(self, index: int) -> np.ndarray:
        time = super()._time_of(index) / np.float32(1000)
        return np.repeat(time, len(self._states[0]["encoder_hidden_states"])) if self._runs_apart else time

    def _set_guidance(self, config: ImageGenerationConfig) -> None:
        """Set the guidance scale as the denoiser's input, if it has one."""
        if self.denoiser.get_config().guidance_embeds:
            self._set_states(config, guidance=np.array([config.guidance_scale], np.float32))

    def _encode_prompt(self, prompt: str, config: ImageGenerationConfig) -> None:
        first, second = self._list_prompts(prompt, config, 2)
        clip, t5 = self.networks["text_encoder"], self.networks["text_encoder_2"]
        with measure_part(self.metrics._encoders, "text_encoder"):
            clip.infer(first[0], "", False)
        with measure_part(self.metrics._encoders, "text_encoder_2"):
            states = t5.infer(second[0], "", False, config.max_sequence_length).data
        pooled = clip.get_output_tensor(1).data
        self._set_states(config, encoder_hidden_states=states, pooled_projections=pooled)
        self._set_guidance(config)
        rows, columns = np.indices([size // 2 for size in self._sizes], np.float32)
        positions = np.stack((np.zeros_like(rows), rows, columns), -1).reshape(-1, 3)
        self.denoiser.set_hidden_states("img_ids", Tensor(positions))
        self.denoiser.set_hidden_states("txt_ids", Tensor(np.zeros((states.shape[1], 3), np.float32)))

    def _prepare(
        self, config: ImageGenerationConfig, image: np.ndarray | None, mask: np.ndarray | None
    ) -> Latents:
        latents = super()._prepare(config, image, mask)
        if latents.mask is not None:
            latents.mask = np.broadcast_to(latents.mask, latents.values.shape)
        for name, values in vars(latents).items():
            setattr(latents, name, None if values is None else pack(values))
        return latents

    def decode(self, latent: Tensor) -> Tensor:
        return super().decode(Tensor(unpack(latent.data, *self._sizes)))


class FluxFill(Flux):
    """Flux whose transformer takes the masked picture, for inpainting."""

    title = "FluxFillPipeline"
    _settings = {"guidance_scale": 30.0, "num_inference_steps": 50, "strength": 1.0}

    def _takes_mask(self) -> bool:
        return True

    def _begins_with_noise(self, config: ImageGenerationConfig) -> bool:
        return True

    def _build_condition(self, mask: np.ndarray, masked_image: np.ndarray) -> np.ndarray:
        (height, width), factor = self._sizes, self.vae.get_vae_scale_factor()
        blocks = mask.reshape(height, factor, width, factor).transpose(1, 3, 0, 2)
        return np.concatenate((masked_image, blocks.reshape(1, factor**2, height, width)), 1)
