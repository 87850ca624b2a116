"""UNet2DConditionModel: the noise in a latent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.images.autoencoder import AutoencoderKL, compute_scale_factor
from ovjit.genai.images.networks import Network, NetworkConfig, SingleNetwork

_TITLE = "the UNet"


class UNet2DConditionModel(SingleNetwork):
    """A denoiser: UNet2DConditionModel(folder), UNet2DConditionModel(model, weights, config,
    vae_scale_factor), both with a device and its properties, UNet2DConditionModel(blob_tensor, config,
    vae_scale_factor, device, **properties), or UNet2DConditionModel(another)."""

    class Config(NetworkConfig):
        """config.json of an UNet; `time_cond_proj_dim` is -1 but for latent consistency models."""

        _defaults = {"in_channels": 4, "sample_size": 0, "time_cond_proj_dim": -1}

    #: The inputs that are the same in all steps.
    _states: dict[str, np.ndarray]

    def __init__(self, *arguments: Any, **kwargs: Any):
        tools = {"config": self.Config, "vae_scale_factor": int}
        values, properties = self._choose_overload(tools, arguments, kwargs)
        model, folder = values.get("model"), values.get("root_dir")
        if isinstance(model, UNet2DConditionModel):
            self._copy_from(model)
            self._states = dict(self._states)
            return
        self._states = {}
        if folder is None:
            self._config, self._scale_factor = values["config"], values["vae_scale_factor"]
        else:
            path = Path(os.fsdecode(folder))
            self._config = self.Config(path / "config.json")
            config = AutoencoderKL.Config(path.parent / "vae_decoder" / "config.json")
            self._scale_factor = compute_scale_factor(config)
        self._network = Network.load(_TITLE, values, properties)

    def reshape(
        self, batch_size: int, height: int, width: int, tokenizer_model_max_length: int
    ) -> UNet2DConditionModel:
        """Fix the number of latents, the pixels of pictures, and the number of tokens."""
        model = self._network.check_model()
        rows = {
            "timestep": {0: 1},
            "sample": {0: batch_size, 2: height // self._scale_factor, 3: width // self._scale_factor},
            "encoder_hidden_states": {0: batch_size, 1: tokenizer_model_max_length},
            **{name: {0: batch_size} for name in ("time_ids", "text_embeds", "timestep_cond")},
        }
        shapes = {}
        for port in model.inputs:
            shape = port.get_partial_shape()
            for axis, size in rows.get(port.get_any_name(), {}).items():
                shape[axis] = size
            shapes[port] = shape
        model.reshape(shapes)
        return self

    def do_classifier_free_guidance(self, guidance_scale: float) -> bool:
        """True if a latent is denoised with and without the prompt."""
        return bool(guidance_scale > 1 and self._config.time_cond_proj_dim < 0)

    def set_hidden_states(self, tensor_name: str, encoder_hidden_states: Tensor) -> None:
        """Set an input for all `infer` that follow. RuntimeError for an unknown name."""
        names = [port.get_any_name() for port in self._network.check_request().get_compiled_model().inputs]
        if tensor_name not in names:
            raise OvjitError(f"{_TITLE} has no input {tensor_name!r}: it has {names}")
        self._states[tensor_name] = encoder_hidden_states.data

    def infer(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The noise in latents, or what the scheduler's `prediction_type` says."""
        feeds = {**self._states, "sample": sample.data, "timestep": timestep.data}
        return Tensor(self._network.run(feeds)[0])
