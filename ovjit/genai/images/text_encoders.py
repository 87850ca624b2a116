"""Text encoders of pictures: a prompt to the states that the denoiser reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.images.networks import Network, NetworkConfig, SingleNetwork
from ovjit.genai.tokenizer import Tokenizer


def _find_tokenizer(folder: str) -> str:
    """The folder of the tokenizer beside that of a text encoder. RuntimeError for other names."""
    before, name, after = folder.rpartition("text_encoder")
    if not name:
        raise OvjitError(
            f"the folder of a text encoder should have 'text_encoder' in its path, not {folder!r}"
        )
    return f"{before}tokenizer{after}"


class CLIPTextModel(SingleNetwork):
    """A text encoder: CLIPTextModel(folder), CLIPTextModel(model, weights, config, clip_tokenizer), both with
    a device and its properties, CLIPTextModel(blob_tensor, config, clip_tokenizer, device, **properties), or
    CLIPTextModel(another)."""

    class Config(NetworkConfig):
        """config.json of a text encoder."""

        _defaults = {"max_position_embeddings": 77, "num_hidden_layers": 12}

    def __init__(self, *arguments: Any, **kwargs: Any):
        tools = {"config": self.Config, "clip_tokenizer": Tokenizer}
        values, properties = self._choose_overload(tools, arguments, kwargs)
        model, folder = values.get("model"), values.get("root_dir")
        if isinstance(model, CLIPTextModel):
            self._copy_from(model)
            return
        #: True if the first row of the outputs is that of a prompt that was not asked for.
        self._is_second_row = False
        if folder is None:
            self._config, self._tokenizer = values["config"], values["clip_tokenizer"]
        else:
            self._config = self.Config(Path(os.fsdecode(folder)) / "config.json")
            self._tokenizer = Tokenizer(_find_tokenizer(os.fsdecode(folder)))
        self._network = Network.load("the text encoder", values, properties)

    def reshape(self, batch_size: int) -> CLIPTextModel:
        """Fix the number of prompts: 2 with guidance."""
        model = self._network.check_model()
        model.reshape({model.input(0): [batch_size, self._config.max_position_embeddings]})
        return self

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
            if not rows <= shape[0] <= 2 or shape[1] != length:
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


class CLIPTextModelWithProjection(CLIPTextModel):
    """A text encoder whose first output is the projected vector of a prompt."""
