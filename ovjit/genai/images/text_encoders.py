"""Text encoders of pictures: a prompt to the states that the denoiser reads."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.images.networks import PATH, Network, NetworkConfig, choose_overload, with_device
from ovjit.genai.tokenizer import Tokenizer


class _Config(NetworkConfig):
    """config.json of a text encoder."""

    _defaults = {"max_position_embeddings": 77, "num_hidden_layers": 12}


_Config.__name__ = "Config"


def _tokenizer_folder(folder: str) -> str:
    """The folder of the tokenizer beside that of a text encoder. RuntimeError for other names."""
    if "text_encoder" not in folder:
        raise OvjitError(
            f"the folder of a text encoder should have 'text_encoder' in its path, not {folder!r}"
        )
    return folder.replace("text_encoder", "tokenizer", 1)


class CLIPTextModel:
    """A text encoder: CLIPTextModel(folder), CLIPTextModel(model, weights, config, clip_tokenizer), both with
    a device and its properties, CLIPTextModel(blob_tensor, config, clip_tokenizer, device, **properties), or
    CLIPTextModel(another)."""

    Config = _Config
    _network: Network

    def __init__(self, *arguments: Any, **kwargs: Any):
        tools = {"config": _Config, "clip_tokenizer": Tokenizer}
        overloads = [
            {"model": type(self)},
            *with_device({"root_dir": PATH}, {"model": str, "weights": Tensor, **tools}),
            {"blob_tensor": Tensor, **tools, "device": str},
        ]
        values, properties = choose_overload(type(self).__name__, overloads, arguments, kwargs)
        model, folder = values.get("model"), values.get("root_dir")
        if isinstance(model, CLIPTextModel):
            vars(self).update(vars(model))
            self._network = copy.copy(self._network)
            return
        self._is_second_row = False
        if folder is None:
            self._config, self._tokenizer = values["config"], values["clip_tokenizer"]
        else:
            self._config = _Config(Path(os.fsdecode(folder)) / "config.json")
            self._tokenizer = Tokenizer(_tokenizer_folder(os.fsdecode(folder)))
        self._network = Network.load("the text encoder", values, properties)

    def get_config(self) -> _Config:
        return self._config

    def reshape(self, batch_size: int) -> CLIPTextModel:
        """Fix the number of prompts: 2 with guidance."""
        model = self._network.check_model()
        model.reshape({model.input(0): [batch_size, self._config.max_position_embeddings]})
        return self

    def compile(self, device: str, **kwargs: Any) -> None:
        self._network.compile(device, kwargs)

    def set_adapters(self, adapters: Any) -> None:
        if adapters is not None:
            raise UnsupportedError("ovjit does not support adapters of pictures yet: leave them out")

    def _encode(self, prompt: str, row: np.ndarray) -> None:
        """Write the tokens of a prompt to a row; too many are cut."""
        ids = np.array(self._tokenizer.encode(prompt).input_ids.data)[0, : len(row)]
        row[:] = self._tokenizer.get_pad_token_id()
        row[: len(ids)] = ids

    def infer(self, pos_prompt: str, neg_prompt: str, do_classifier_free_guidance: bool) -> Tensor:
        """The first output for the negative prompt and the prompt; without guidance for the prompt alone."""
        port = self._network.check_request().get_compiled_model().input(0)
        rows, length = 1 + bool(do_classifier_free_guidance), self._config.max_position_embeddings
        shape = [rows, length]
        if not port.get_partial_shape().is_dynamic:
            shape = list(port.get_shape())
            if shape[0] < rows or shape[1] != length:
                raise OvjitError(
                    f"the text encoder was compiled for {shape} tokens, and cannot take {rows} prompts of "
                    f"{length}: reshape it for them"
                )
        ids = np.empty(shape, port.get_element_type().to_dtype())
        if len(ids) == 2:
            self._encode(neg_prompt, ids[0])
        self._encode(pos_prompt, ids[-1])
        self._outputs = self._network.run([ids])
        self._is_second_row = len(ids) != rows
        return self.get_output_tensor(0)

    def get_output_tensor(self, idx: int) -> Tensor:
        """An output of the last `infer`."""
        return Tensor(self._outputs[idx][1:] if self._is_second_row else self._outputs[idx])

    def export_model(self, export_path: Any) -> None:
        """Write the compiled model for `blob_path` of the constructor."""
        self._network.export(export_path)


class CLIPTextModelWithProjection(CLIPTextModel):
    """A text encoder whose first output is the projected vector of a prompt."""
