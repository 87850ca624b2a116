"""Text encoders of pictures: a prompt to the states that the denoiser reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.images.networks import NetworkConfig, SingleNetwork
from ovjit.genai.tokenizer import Tokenizer


def _find_tokenizer(folder: str) -> str:
    """The folder of the tokenizer beside that of a text encoder. RuntimeError for other names."""
    before, name, after = folder.rpartition("text_encoder")
    if not name:
        raise OvjitError(
            f"the folder of a text encoder should have 'text_encoder' in its path, not {folder!r}"
        )
    return f"{before}tokenizer{after}"


class TextEncoder(SingleNetwork):
    """A tokenizer and a network: TextEncoder(folder), TextEncoder(model, weights, *tools), both with a device
    and its properties, TextEncoder(blob_tensor, *tools, device, **properties), or TextEncoder(another). The
    tools are a config, if the class has one, and the tokenizer."""

    _title = "the text encoder"
    #: The name of the constructor's argument.
    _tokenizer_name: ClassVar[str]

    def __init__(self, *arguments: Any, **kwargs: Any):
        has_config = self.Config is not NetworkConfig
        tools: dict[str, Any] = {"config": self.Config} if has_config else {}
        values, properties = self._choose_overload(
            {**tools, self._tokenizer_name: Tokenizer}, arguments, kwargs
        )
        model: Any = values.get("model")
        folder: Any = values.get("root_dir")
        if isinstance(model, TextEncoder):
            self._copy_from(model)
            return
        #: True if the first row of the outputs is that of a prompt that was not asked for.
        self._is_second_row = False
        if folder is None:
            self._tokenizer = values[self._tokenizer_name]
        else:
            self._tokenizer = Tokenizer(_find_tokenizer(os.fsdecode(folder)))
        if has_config:
            self._config = values.get("config") or self.Config(Path(os.fsdecode(folder)) / "config.json")
        self._load(values, properties)

    def _reshape(self, count: int, length: int) -> None:
        """Fix the number of prompts, 2 with guidance, and of tokens."""
        model = self._network.check_model()
        model.reshape({model.input(0): [count, length]})

    def _encode(self, prompt: str, row: np.ndarray, mask: np.ndarray, **options: Any) -> None:
        """Write the tokens of a prompt and their mask into rows; excess tokens are cut."""
        tokens = self._tokenizer.encode(prompt, **options)
        row[:], mask[:] = self._tokenizer.get_pad_token_id(), 0
        for target, values in ((row, tokens.input_ids.data), (mask, tokens.attention_mask.data)):
            target[: values.shape[1]] = values[0, : len(target)]

    def _infer(self, prompts: tuple[str, str], is_guided: bool, length: int, **options: Any) -> Tensor:
        """The first output for the negative prompt and the prompt; without guidance for the prompt alone."""
        port = self._network.check_request().get_compiled_model().input(0)
        rows = 1 + bool(is_guided)
        shape = [rows, length]
        if not port.get_partial_shape().is_dynamic:
            shape = list(port.get_shape())
            if not rows <= shape[0] <= 2 or shape[1] != length:
                raise OvjitError(
                    f"the text encoder was compiled for {shape} tokens, and cannot take {rows} prompts of "
                    f"{length}: reshape it for them"
                )
        ids = np.empty(shape, port.get_element_type().to_dtype())
        mask = np.empty_like(ids)
        prompt, negative = prompts
        if len(ids) == 2:
            self._encode(negative, ids[0], mask[0], **options)
        self._encode(prompt, ids[-1], mask[-1], **options)
        self._outputs = self._network.run([ids])
        self._is_second_row = len(ids) != rows
        #: The mask of the prompts' tokens, in the type of the tokens.
        self.prompt_mask = mask[-rows:]
        return self.get_output_tensor(0)

    def get_output_tensor(self, idx: int) -> Tensor:
        """An output of the last `infer`."""
        return Tensor(self._outputs[idx][1:] if self._is_second_row else self._outputs[idx])


class CLIPTextModel(TextEncoder):
    """A text encoder with a fixed number of tokens."""

    class Config(NetworkConfig):
        """config.json of a text encoder."""

        _defaults = {"max_position_embeddings": 77, "num_hidden_layers": 12}

    adapter_prefix = "lora_te"
    _tokenizer_name = "clip_tokenizer"

    def reshape(self, batch_size: int) -> CLIPTextModel:
        """Fix the number of prompts: 2 with guidance."""
        self._reshape(batch_size, self._config.max_position_embeddings)
        return self

    def infer(self, pos_prompt: str, neg_prompt: str, do_classifier_free_guidance: bool) -> Tensor:
        """The first output for the negative prompt and the prompt; without guidance for the prompt alone."""
        length = self._config.max_position_embeddings
        return self._infer((pos_prompt, neg_prompt), do_classifier_free_guidance, length)

    def infer_states(self, prompts: tuple[str, str], is_guided: bool) -> tuple[np.ndarray, np.ndarray]:
        """(the first output, the last hidden states but one) for a prompt and its negative prompt."""
        output = self.infer(*prompts, is_guided).data
        return output, self.get_output_tensor(self._config.num_hidden_layers + 1).data


class CLIPTextModelWithProjection(CLIPTextModel):
    """A text encoder whose first output is the projected vector of a prompt."""

    adapter_prefix = "lora_te2"


class T5EncoderModel(TextEncoder):
    """A text encoder for up to `max_sequence_length` tokens."""

    _tokenizer_name = "tokenizer"

    def reshape(self, batch_size: int, max_sequence_length: int) -> T5EncoderModel:
        """Fix the number of prompts, 2 with guidance, and of tokens."""
        self._reshape(batch_size, max_sequence_length)
        return self

    def infer(
        self, pos_prompt: str, neg_prompt: str, do_classifier_free_guidance: bool, max_sequence_length: int,
        **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        """The states of the negative prompt and the prompt; without guidance of the prompt alone. Keywords
        are those of `Tokenizer.encode`."""
        prompts = pos_prompt, neg_prompt
        return self._infer(prompts, do_classifier_free_guidance, max_sequence_length, **kwargs)


class LanguageEncoder(TextEncoder):
    """A language model with the inputs input_ids and attention_mask."""

    adapter_prefix = "text_encoder"
    _tokenizer_name = "tokenizer"

    #: Tokens of a template before each prompt.
    _tokens_before = 0

    def reshape(self, batch_size: int, max_sequence_length: int) -> Any:
        """Fix the number of prompts, 2 with guidance, and of tokens."""
        sizes = [batch_size, max_sequence_length + self._tokens_before]
        self._network.check_model().reshape(dict.fromkeys(("input_ids", "attention_mask"), sizes))
        return self

    def _run_padded(self, texts: Sequence[str], length: int) -> tuple[list[np.ndarray], np.ndarray]:
        """(the outputs for texts that are cut or padded to `length` tokens, their mask)."""
        compiled = self._network.check_request().get_compiled_model()
        dtype = compiled.input("input_ids").get_element_type().to_dtype()
        ids, mask = np.empty((2, len(texts), length), dtype)
        for i, text in enumerate(texts):
            self._encode(text, ids[i], mask[i])
        return self._network.run({"input_ids": ids, "attention_mask": mask}), mask


class Qwen3TextEncoder(LanguageEncoder):
    """A language model whose hidden states of some layers are those of a prompt."""

    class Config(NetworkConfig):
        """config.json of the encoder: the layers whose states are joined."""

        _defaults = {"hidden_size": 0, "hidden_states_layers": [9, 18, 27], "num_hidden_layers": 0}

    def reshape(self, batch_size: int, max_sequence_length: int) -> Any:
        if not 1 <= batch_size <= 2:
            raise OvjitError(f"Qwen3TextEncoder supports batch_size 1 or 2, not {batch_size}")
        return super().reshape(batch_size, max_sequence_length)

    def infer(
        self, pos_prompt: str, neg_prompt: str, do_classifier_free_guidance: bool, max_sequence_length: int
    ) -> Tensor:
        """The states [rows, tokens, layers * size] of the negative prompt and the prompt; without guidance of
        the prompt alone."""
        layers = self._config.hidden_states_layers
        return Tensor(self.infer_layers((pos_prompt, neg_prompt), do_classifier_free_guidance,
                                        max_sequence_length, layers))  # fmt: skip

    def infer_layers(
        self, prompts: tuple[str, str], is_guided: bool, length: int, layers: Sequence[int]
    ) -> np.ndarray:
        """As `infer`, with the hidden states of the layers `layers`."""

        def render(prompt: str) -> str:
            chat, options = [{"role": "user", "content": prompt}], {"enable_thinking": False}
            return self._tokenizer.apply_chat_template(chat, True, extra_context=options)

        texts = [render(prompt) for prompt in (prompts[::-1] if is_guided else prompts[:1])]
        outputs, _ = self._run_padded(texts, length)
        compiled = self._network.check_request().get_compiled_model()
        ports = zip(outputs, compiled.outputs, strict=True)
        by_name = {name: output for output, port in ports for name in port.get_names()}
        names = [f"hidden_states.{layer}" for layer in layers]
        for name in names:
            if name not in by_name:
                raise OvjitError(f"the text encoder has no output {name!r}: export it for this pipeline")
        return np.concatenate([by_name[name] for name in names], -1)
