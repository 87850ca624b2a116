"""UNet2DConditionModel: the noise in a latent."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.images.autoencoder import read_scale_factor
from ovjit.genai.images.networks import PATH, Network, NetworkConfig, choose_overload, with_device

_TITLE = "the UNet"


class _Config(NetworkConfig):
    """config.json of an UNet; `time_cond_proj_dim` is -1 but for latent consistency models."""

    _defaults = {"in_channels": 4, "sample_size": 0, "time_cond_proj_dim": -1}


_Config.__name__ = "Config"


class UNet2DConditionModel:
    """A denoiser: UNet2DConditionModel(folder), UNet2DConditionModel(model, weights, config,
    vae_scale_factor), both with a device and its properties, UNet2DConditionModel(blob_tensor, config,
    vae_scale_factor, device, **properties), or UNet2DConditionModel(another)."""

    Config = _Config
    _network: Network
    #: The inputs that are the same in all steps.
    _states: dict[str, np.ndarray]

    def __init__(self, *arguments: Any, **kwargs: Any):
        tools = {"config": _Config, "vae_scale_factor": int}
        overloads = [
            {"model": UNet2DConditionModel},
            *with_device({"root_dir": PATH}, {"model": str, "weights": Tensor, **tools}),
            {"blob_tensor": Tensor, **tools, "device": str},
        ]
        values, properties = choose_overload(type(self).__name__, overloads, arguments, kwargs)
        model, folder = values.get("model"), values.get("root_dir")
        if isinstance(model, UNet2DConditionModel):
            vars(self).update(vars(model))
            self._network, self._states = copy.copy(self._network), dict(self._states)
            return
        self._states = {}
        if folder is None:
            self._config, self._scale_factor = values["config"], values["vae_scale_factor"]
        else:
            path = Path(os.fsdecode(folder))
            self._config = _Config(path / "config.json")
            self._scale_factor = read_scale_factor(path.parent / "vae_decoder" / "config.json")
        self._network = Network.load(_TITLE, values, properties)

    def get_config(self) -> _Config:
        return self._config

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

    def compile(self, device: str, **kwargs: Any) -> None:
        self._network.compile(device, kwargs)

    def do_classifier_free_guidance(self, guidance_scale: float) -> bool:
        """True if a latent is denoised with and without the prompt."""
        return bool(guidance_scale > 1 and self._config.time_cond_proj_dim < 0)

    def set_adapters(self, adapters: Any) -> None:
        if adapters is not None:
            raise UnsupportedError("ovjit does not support adapters of pictures yet: leave them out")

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

    def export_model(self, export_path: Any) -> None:
        """Write the compiled model for `blob_path` of the constructor."""
        self._network.export(export_path)
