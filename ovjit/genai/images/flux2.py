"""Flux 2 Klein: prompts are read by a language model, and pictures are further tokens of the denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.images.config import ImageGenerationConfig
from ovjit.genai.images.denoisers import Flux2Transformer2DModel
from ovjit.genai.images.diffusion import Latents, Task
from ovjit.genai.images.flow import Flux, unpack
from ovjit.genai.images.metrics import measure_part
from ovjit.genai.images.text_encoders import Qwen3TextEncoder
from ovjit.genai.json_files import read_json

#: The position of a given picture on the first axis, where the new one has 0.
_PICTURE = 10
#: The layers of the text encoder whose states are read, whatever its config.json says.
_LAYERS = (9, 18, 27)


class Flux2(Flux):
    """A text encoder, a transformer whose latents are tokens, and an autoencoder with normalized latents."""

    title = "Flux2KleinPipeline"
    _networks: ClassVar[dict[str, Any]] = {
        "text_encoder": Qwen3TextEncoder, "transformer": Flux2Transformer2DModel,
    }  # fmt: skip
    _aliases = {"Qwen3ForCausalLM": "Qwen3TextEncoder", "AutoencoderKLFlux2": "AutoencoderKL"}
    _adapts_text = False
    _condition_axis = 1
    _runs_apart = True
    _guided_above = 1.0
    _unused_prompts = (*Flux._unused_prompts, "prompt_2")
    _settings = {
        "guidance_scale": 4.0, "num_inference_steps": 50, "strength": 1.0, "taylorseer_config": None,
    }  # fmt: skip

    #: True for a model that takes no guidance.
    is_distilled = False
    #: Mean and standard deviation of the channels of a token.
    norm = np.zeros(1, np.float32), np.ones(1, np.float32)

    _from_folder = ("is_distilled", "norm")

    def _read_folder(self, folder: Path, index: Mapping[str, Any]) -> None:
        self.is_distilled = bool(index.get("is_distilled", False))
        self.norm = _read_norm(read_json(folder / "vae_decoder" / "config.json"))

    def _check_config(self, config: ImageGenerationConfig) -> None:
        strength, config.strength = config.strength, 1.0
        super()._check_config(config)
        config.strength = strength

    def _count_rows(self, guidance_scale: float) -> int:
        return 1 if self.is_distilled else super()._count_rows(guidance_scale)

    def _choose_times(self, config: ImageGenerationConfig) -> None:
        config.strength, config.taylorseer_config = 1.0, None
        super()._choose_times(config)

    def _denoiser_height(self, height: int) -> int:
        return height * (1 + (self.task is Task.IMAGE))

    def generate(
        self, prompt: str, image: np.ndarray | None, mask: np.ndarray | None, keywords: dict[str, Any]
    ) -> Tensor:
        if image is not None:
            factor = self._size_factor()
            height, width = (size - size % factor for size in image.shape[1:3])
            keywords = {"height": height, "width": width, **keywords}
        return super().generate(prompt, image, mask, keywords)

    def _encode_prompt(self, prompt: str, config: ImageGenerationConfig) -> None:
        self._encode_apart((prompt, ""), config, _LAYERS)
        positions = np.zeros((1, self._states[0]["encoder_hidden_states"].shape[1], 4), np.float32)
        positions[..., 3] = np.arange(positions.shape[1])
        self._set_states(config, txt_ids=positions)
        self._set_guidance(config)

    def _prepare(
        self, config: ImageGenerationConfig, image: np.ndarray | None, mask: np.ndarray | None
    ) -> Latents:
        latents = super()._prepare(config, image, mask)
        positions = [self._list_positions(0)]
        if latents.image is not None:
            mean, deviation = self.norm
            reference = (latents.image - mean) / deviation
            latents.condition = np.repeat(reference, config.num_images_per_prompt, 0)
            positions.append(self._list_positions(_PICTURE))
        self._set_states(config, img_ids=np.concatenate(positions)[None])
        return latents

    def _list_positions(self, first: int) -> np.ndarray:
        """The position [tokens, 4] of each token of a picture: the picture's, its row, its column, 0."""
        rows, columns = np.indices([size // 2 for size in self._sizes], np.float32)
        zeros = np.zeros_like(rows)
        return np.stack((zeros + first, rows, columns, zeros), -1).reshape(-1, 4)

    def _begins_with_noise(self, config: ImageGenerationConfig) -> bool:
        return True

    def _encode_picture(self, pixels: np.ndarray, config: ImageGenerationConfig) -> np.ndarray:
        with measure_part(self.metrics._vae, "encoder"):
            encoded = self.vae.encode(Tensor(pixels)).data
        scale, shift = self._vae_scale()
        return encoded / scale + shift

    def _vae_scale(self) -> tuple[np.float32, np.float32]:
        """(scale, shift) that the autoencoder applies to latents, and this model does not."""
        config = self.vae.get_config()
        return np.float32(config.scaling_factor), np.float32(config.shift_factor)

    def decode(self, latent: Tensor) -> Tensor:
        (mean, deviation), (scale, shift) = self.norm, self._vae_scale()
        latents = unpack(latent.data * deviation + mean, *self._sizes)
        return self.vae.decode(Tensor((latents - shift) * scale))


def _read_norm(config: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation) of the channels of tokens. RuntimeError for other numbers of channels."""
    count = config.get("latent_channels", 32) * int(np.prod(config.get("patch_size", [2, 2])))
    arrays = [np.array(config.get(f"bn_running_{what}_data", []), np.float32) for what in ("mean", "var")]
    if any(array.shape != (count,) for array in arrays):
        raise OvjitError(
            "config.json of the VAE decoder should have 'bn_running_mean_data' and 'bn_running_var_data' of "
            f"{count} numbers"
        )
    mean, variance = arrays
    return mean, np.sqrt(variance + np.float32(config.get("batch_norm_eps", 1e-4)))
