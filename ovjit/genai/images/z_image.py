"""Z-Image: prompts are read by a language model, and the denoiser's times run from noise to the picture."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.genai.images.config import ImageGenerationConfig
from ovjit.genai.images.denoisers import Denoiser
from ovjit.genai.images.diffusion import Latents
from ovjit.genai.images.flow import FlowDiffusion
from ovjit.genai.images.networks import NetworkConfig
from ovjit.genai.images.text_encoders import Qwen3TextEncoder

#: Tokens of prompts and of pictures are padded to a multiple of this.
_MULTIPLE = 32
#: Rows and columns of latents in a token.
_PATCH = 2


def list_positions(states: np.ndarray, height: int, width: int) -> dict[str, np.ndarray]:
    """The mask of a prompt's states [n, length, size], and the positions of its tokens and of those of
    latents [height, width]. States of 0 at the end belong to no word."""
    count, length = states.shape[:2]
    words = length - int(np.argmax((states[0] != 0).any(1)[::-1])) if states[0].any() else 0
    padded = min(words + -words % _MULTIPLE, length)
    mask = np.full((count, length), np.finfo(np.float32).min, np.float32)
    mask[:, :words] = 0
    texts = np.zeros((count, length, 3), np.int32)
    texts[:, :padded, 0] = np.arange(1, padded + 1)
    rows, columns = np.indices((height // _PATCH, width // _PATCH)).reshape(2, -1)
    pictures = np.zeros((count, rows.size + -rows.size % _MULTIPLE, 3), np.int32)
    pictures[:, : rows.size] = np.stack([np.full_like(rows, padded + 1), rows, columns], 1)
    return {"encoder_attention_mask": mask, "txt_ids": texts, "img_ids": pictures}


class ZImageTransformer2DModel(Denoiser):
    """The denoiser of Z-Image: it takes the positions [n, tokens, 3] of tokens of texts and pictures."""

    class Config(NetworkConfig):
        """config.json of the transformer."""

        _defaults = {"in_channels": 16, "out_channels": 16, "sample_size": 64}

    _title = "the Z-Image transformer"

    def _list_sizes(self, count: int, height: int, width: int, length: int) -> dict[str, dict[int, int]]:
        latents, text = {0: count, 2: height, 3: width}, {0: count, 1: length}
        names = ("encoder_hidden_states", "encoder_attention_mask", "txt_ids")
        return {"hidden_states": latents, **dict.fromkeys(names, text), "img_ids": {0: count}}

    def step(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """The noise in latents, for the states of a prompt."""
        states = encoder_hidden_states.data
        positions = list_positions(states, *sample.shape[2:])
        self._states |= {"encoder_hidden_states": states, **positions}
        return self.infer(sample, timestep)


class ZImage(FlowDiffusion):
    """A text encoder, a transformer and an autoencoder for a task."""

    title = "ZImagePipeline"
    _networks: ClassVar[dict[str, Any]] = {
        "text_encoder": Qwen3TextEncoder, "transformer": ZImageTransformer2DModel,
    }  # fmt: skip
    _aliases = {"Qwen3ForCausalLM": "Qwen3TextEncoder", "Qwen3Model": "Qwen3TextEncoder"}
    _runs_apart = _draws_noise_first = True
    _guided_above = 0.0
    _settings = {
        "guidance_scale": 5.0, "num_inference_steps": 50, "taylorseer_config": None,
        "max_sequence_length": 512,
    }  # fmt: skip

    def _check_tokens(self, config: ImageGenerationConfig) -> None:
        pass  # a language model reads prompts of any length

    def _choose_sizes(self, config: ImageGenerationConfig, image: np.ndarray | None) -> None:
        if image is not None:
            config.height, config.width = image.shape[1:3]
        super()._choose_sizes(config, image)

    def _default_size(self) -> int:
        return 1024

    def _count_latent_tokens(self) -> int:
        return self._sizes[0] * self._sizes[1] // _PATCH**2

    def _time_of(self, index: int) -> np.ndarray:
        return (np.float32(1000) - super()._time_of(index)) / np.float32(1000)

    def _encode_prompt(self, prompt: str, config: ImageGenerationConfig) -> None:
        encoder = self.networks["text_encoder"]
        layers = encoder.get_config().hidden_states_layers
        self._encode_apart(self._list_prompts(prompt, config, 1)[0], config, layers)

        for each in self._states:
            each |= list_positions(each["encoder_hidden_states"], *self._sizes)

    def _run_denoiser(self, latents: Latents, rows: int, index: int) -> np.ndarray:
        noise, durations = super()._run_denoiser(latents, rows, index), self.metrics.raw_metrics
        # one duration of a step, as in openvino_genai
        times = durations.transformer_inference_durations
        times[-rows:] = [sum(times[-rows:])]
        return -noise
