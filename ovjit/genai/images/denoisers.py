"""Denoisers: UNet2DConditionModel and the transformers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.images.autoencoder import AutoencoderKL, compute_scale_factor
from ovjit.genai.images.networks import NetworkConfig, SingleNetwork


class Denoiser(SingleNetwork):
    """A network that finds the noise in latents: Denoiser(folder), Denoiser(model, weights, config,
    vae_scale_factor), both with a device and its properties, Denoiser(blob_tensor, config, vae_scale_factor,
    device, **properties), or Denoiser(another)."""

    adapter_prefix = "transformer"
    #: The configuration of the autoencoder.
    _autoencoder_config: Any = AutoencoderKL.Config
    #: The name of the input of latents.
    _sample = "hidden_states"
    #: The inputs that are the same in all steps.
    _states: dict[str, np.ndarray]

    def __init__(self, *arguments: Any, **kwargs: Any):
        tools = {"config": self.Config, "vae_scale_factor": int}
        values, properties = self._choose_overload(tools, arguments, kwargs)
        model, folder = values.get("model"), values.get("root_dir")
        if isinstance(model, Denoiser):
            self._copy_from(model)
            self._states = dict(self._states)
            return
        self._states = {}
        if folder is None:
            self._config, self._scale_factor = values["config"], values["vae_scale_factor"]
        else:
            path = Path(os.fsdecode(folder))
            self._config = self.Config(path / "config.json")
            config = self._autoencoder_config(path.parent / "vae_decoder" / "config.json")
            self._scale_factor = compute_scale_factor(config)
        self._load(values, properties)

    def _list_sizes(self, count: int, height: int, width: int, length: int) -> dict[str, dict[int, int]]:
        """The sizes of the axes of inputs, for latents of `height` and `width`."""
        raise NotImplementedError

    def reshape(self, batch_size: int, height: int, width: int, tokenizer_model_max_length: int) -> Denoiser:
        """Fix the number of latents, the pixels of pictures, and the number of tokens."""
        factor = self._scale_factor
        latents = self._list_sizes(batch_size, height // factor, width // factor, tokenizer_model_max_length)
        self._fix_sizes({"timestep": {0: 1}, **latents})
        return self

    def _fix_sizes(self, sizes: Mapping[str, Mapping[int, int]]) -> None:
        """Reshape the model to these sizes of the axes of its inputs."""
        model, shapes = self._network.check_model(), {}
        for port in model.inputs:
            shape = port.get_partial_shape()
            for axis, size in sizes.get(port.get_any_name(), {}).items():
                shape[axis] = size
            shapes[port] = shape
        model.reshape(shapes)

    def set_hidden_states(self, tensor_name: str, encoder_hidden_states: Tensor) -> None:
        """Set an input for all `infer` that follow. RuntimeError for an unknown name."""
        names = [port.get_any_name() for port in self._network.check_request().get_compiled_model().inputs]
        if tensor_name not in names:
            raise OvjitError(f"{self._title} has no input {tensor_name!r}: it has {names}")
        self._states[tensor_name] = encoder_hidden_states.data

    def infer(self, latent: Tensor, timestep: Tensor) -> Tensor:
        """The noise in latents, or what the scheduler takes instead."""
        feeds = {**self._states, self._sample: latent.data, "timestep": timestep.data}
        return Tensor(self._network.run(feeds)[0])


class UNet2DConditionModel(Denoiser):
    """The denoiser of Stable Diffusion 1, 2 and XL, and of latent consistency models."""

    class Config(NetworkConfig):
        """config.json of an UNet; `time_cond_proj_dim` is -1 but for latent consistency models."""

        _defaults = {"in_channels": 4, "sample_size": 0, "time_cond_proj_dim": -1}

    adapter_prefix = "lora_unet"
    _title, _sample = "the UNet", "sample"

    def _list_sizes(self, count: int, height: int, width: int, length: int) -> dict[str, dict[int, int]]:
        conditions = {name: {0: count} for name in ("time_ids", "text_embeds", "timestep_cond")}
        latents, text = {0: count, 2: height, 3: width}, {0: count, 1: length}
        return {"sample": latents, "encoder_hidden_states": text, **conditions}

    def do_classifier_free_guidance(self, guidance_scale: float) -> bool:
        """True if a latent is denoised with and without the prompt."""
        return bool(guidance_scale > 1 and self._config.time_cond_proj_dim < 0)

    def infer(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The noise in latents, or what the scheduler's `prediction_type` says."""
        return super().infer(sample, timestep)


class SD3Transformer2DModel(Denoiser):
    """The denoiser of Stable Diffusion 3."""

    class Config(NetworkConfig):
        """config.json of the transformer."""

        _defaults = {"in_channels": 16, "joint_attention_dim": 4096, "patch_size": 2, "sample_size": 128}

    _title = "the SD3 transformer"

    def _list_sizes(self, count: int, height: int, width: int, length: int) -> dict[str, dict[int, int]]:
        latents, text = {0: count, 2: height, 3: width}, {0: count, 1: length}
        return {"hidden_states": latents, "encoder_hidden_states": text, "pooled_projections": {0: count}}


class FluxTransformer2DModel(Denoiser):
    """The denoiser of Flux: latents are tokens [n, height * width / 4, 4 * channels]."""

    class Config(NetworkConfig):
        """config.json of the transformer; `guidance_embeds` is true if the guidance scale is an input."""

        _defaults = {"default_sample_size": 128, "guidance_embeds": False, "in_channels": 64}

    _title = "the Flux transformer"

    def _list_sizes(self, count: int, height: int, width: int, length: int) -> dict[str, dict[int, int]]:
        tokens = height * width // 4
        single = {name: {0: count} for name in ("pooled_projections", "guidance")}
        latents, text = {0: count, 1: tokens}, {0: count, 1: length}
        return {"hidden_states": latents, "encoder_hidden_states": text, **single,
                "img_ids": {0: tokens}, "txt_ids": {0: length}}  # fmt: skip


class Flux2Transformer2DModel(FluxTransformer2DModel):
    """The denoiser of Flux 2: times, and positions [n, tokens, 4], have a row for each picture."""

    class Config(NetworkConfig):
        """config.json of the transformer; openvino_genai does not read `default_sample_size`."""

        _defaults = {"default_sample_size": 128, "guidance_embeds": False, "in_channels": 128}
        _constants = frozenset(("default_sample_size",))

    _title = "the Flux 2 transformer"

    def _list_sizes(self, count: int, height: int, width: int, length: int) -> dict[str, dict[int, int]]:
        sizes, rows = super()._list_sizes(count, height, width, length), {0: count}
        tokens = {"img_ids": {**rows, 1: height * width // 4}, "txt_ids": {**rows, 1: length}}
        return {**sizes, **tokens, "timestep": rows}
