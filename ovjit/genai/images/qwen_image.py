"""Qwen-Image: prompts are read by a model of vision and language, pictures by an autoencoder of videos."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.images.autoencoder import AutoencoderKL
from ovjit.genai.images.config import ImageGenerationConfig
from ovjit.genai.images.denoisers import FluxTransformer2DModel
from ovjit.genai.images.flow import Flux
from ovjit.genai.images.metrics import measure_part
from ovjit.genai.images.networks import NetworkConfig
from ovjit.genai.images.noise_levels import read_fields
from ovjit.genai.images.text_encoders import LanguageEncoder

#: The text that the model was trained with around each prompt, and its tokens before the prompt.
_TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
_TOKENS_BEFORE = 34
_MOST_TOKENS = 1024


class Qwen2_5_VLForConditionalGeneration(LanguageEncoder):
    """A language model whose last hidden states are those of a prompt."""

    class Config(NetworkConfig):
        """config.json of the encoder."""

        _defaults = {"hidden_size": 3584}

    _tokens_before = _TOKENS_BEFORE
    #: i64 [rows, tokens]: 1 for the prompts' tokens of the last `infer`.
    _mask: np.ndarray | None = None

    def infer(
        self, pos_prompt: str, neg_prompt: str, do_classifier_free_guidance: bool, max_sequence_length: int
    ) -> Tensor:
        """The states [rows, tokens, size] of the negative prompt and the prompt, 0 after their ends; without
        guidance of the prompt alone."""
        texts = [neg_prompt, pos_prompt] if do_classifier_free_guidance else [pos_prompt]
        texts = [_TEMPLATE.replace("{}", text) for text in texts]
        outputs, mask = self._run_padded(texts, max_sequence_length + _TOKENS_BEFORE)
        counts = (mask != 0).sum(1)[:, None] - _TOKENS_BEFORE
        if counts.min() <= 0:
            raise OvjitError(f"the tokenizer gives a prompt no more than {_TOKENS_BEFORE} tokens: it is not "
                             "that of Qwen-Image")  # fmt: skip
        self._mask = (np.arange(max_sequence_length) < counts).astype(np.int64)
        return Tensor(outputs[0][:, _TOKENS_BEFORE:] * self._mask[..., None].astype(np.float32))

    def get_encoder_attention_mask(self) -> Tensor:
        """i64 [rows, tokens]: 1 for the prompts' tokens of the last `infer`. RuntimeError before it."""
        if self._mask is None:
            raise OvjitError("Encoder attention mask is not available. Run infer() first")
        return Tensor(self._mask)


class AutoencoderKLQwenImage(AutoencoderKL):
    """An autoencoder of videos with one frame, whose latents have mean 0 and deviation 1."""

    class Config(NetworkConfig):
        """config.json of the autoencoder."""

        _defaults = {"z_dim": 16, "input_channels": 3, "temperal_downsample": [], "latents_mean": [],
                     "latents_std": [], "latents_mean_data": [], "latents_std_data": [],
                     "scaling_factor": 1.0, "shift_factor": 0.0}  # fmt: skip
        _constants = frozenset(("scaling_factor", "shift_factor"))

        @property
        def latent_channels(self) -> int:
            return int(self.z_dim)

        @property
        def block_out_channels(self) -> list[Any]:
            """A list as long as those of other autoencoders with the same scale."""
            return [*self.temperal_downsample, None]

    _layouts = ("NCDHW", "NDHWC")

    def _norm(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean, deviation) [channels, 1, 1, 1] of latents."""
        config = self._config
        mean = config.latents_mean_data or config.latents_mean
        deviation = config.latents_std_data or config.latents_std
        pair = (mean, deviation) if mean and deviation else ([0], [1])
        first, second = (np.array(values, np.float32)[:, None, None, None] for values in pair)
        return first, second

    def decode(self, latent: Tensor) -> Tensor:
        mean, deviation = self._norm()
        return Tensor(super().decode(Tensor(latent.data[:, :, None] * deviation + mean)).data[:, 0])

    def encode(self, image: Tensor, generator: Any = None) -> Tensor:
        mean, deviation = self._norm()
        latent = super().encode(Tensor(image.data[:, :, None]), generator).data
        return Tensor(((latent - mean) * (1 / deviation))[:, :, 0])


class QwenImageTransformer2DModel(FluxTransformer2DModel):
    """The denoiser of Qwen-Image: latents are tokens [n, height * width / 4, 4 * channels]."""

    _title = "the Qwen-Image transformer"
    _autoencoder_config = AutoencoderKLQwenImage.Config

    class Config(NetworkConfig):
        """config.json of the transformer, which names `default_sample_size` sample_size."""

        _defaults = {"default_sample_size": 128, "guidance_embeds": False, "in_channels": 64}

        def __init__(self, config_path: Any):
            super().__init__(config_path)
            self.default_sample_size = read_fields(config_path, {"sample_size": 128})["sample_size"]

    def set_hidden_states(self, tensor_name: str, tensor: Tensor) -> None:
        super().set_hidden_states(tensor_name, tensor)

    def _list_sizes(self, count: int, height: int, width: int, length: int) -> dict[str, dict[int, int]]:
        text = {0: count, 1: length}
        sizes = super()._list_sizes(count, height, width, length)
        return {**sizes, "encoder_hidden_states_mask": text, "timestep": {0: count}}


class QwenImage(Flux):
    """A text encoder, a transformer whose latents are tokens, and an autoencoder for a task."""

    title = "QwenImagePipeline"
    _networks: ClassVar[dict[str, Any]] = {
        "text_encoder": Qwen2_5_VLForConditionalGeneration, "transformer": QwenImageTransformer2DModel,
    }  # fmt: skip
    _aliases = {"AutoencoderKL": "AutoencoderKLQwenImage"}
    _autoencoder = AutoencoderKLQwenImage
    _adapts_text = False
    _runs_apart = True
    _shift_type = "linear"
    _guided_above = 1.0
    _unused_prompts = ("prompt_2", "prompt_3", "negative_prompt_2", "negative_prompt_3")
    _settings = {"guidance_scale": 4.0, "num_inference_steps": 50, "taylorseer_config": None}

    def _check_tokens(self, config: ImageGenerationConfig) -> None:
        if config.max_sequence_length > _MOST_TOKENS:
            raise OvjitError(f"'max_sequence_length' must be less or equal to {_MOST_TOKENS}")

    def _encode_prompt(self, prompt: str, config: ImageGenerationConfig) -> None:
        pair, encoder = self._list_prompts(prompt, config, 1)[0], self.networks["text_encoder"]
        is_guided = self._count_rows(config.guidance_scale) > 1
        with measure_part(self.metrics._encoders, "text_encoder"):
            states = encoder.infer(*pair, is_guided, config.max_sequence_length).data
        mask = encoder.get_encoder_attention_mask().data
        # without a negative prompt there is no guidance
        first = 0 if config.negative_prompt is not None else -1
        self._keep_states(
            config, encoder_hidden_states=states[first:], encoder_hidden_states_mask=mask[first:]
        )
        self._set_guidance(config)
        for name, size in zip(("height", "width"), self._sizes, strict=True):
            self.denoiser.set_hidden_states(name, Tensor(np.array(size // 2, np.int64)))

    def _guide(self, config: ImageGenerationConfig, without: np.ndarray, guided: np.ndarray) -> np.ndarray:
        mixed = super()._guide(config, without, guided)
        norms, target = (np.linalg.norm(each, axis=-1, keepdims=True) for each in (mixed, guided))
        return mixed * np.divide(target, norms, out=np.ones_like(norms), where=norms > 1e-8)
