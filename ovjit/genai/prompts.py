"""Prompts as tokens: texts with the chat's template, chats, Tensors of tokens."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.config import GenerationConfig
from ovjit.genai.figures import measure
from ovjit.genai.history import ChatHistory
from ovjit.genai.results import PerfMetrics
from ovjit.genai.tokenizer import TokenizedInputs, Tokenizer


class Prompts:
    """The side of a pipeline that reads prompts, and the chat of `start_chat`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.history = ChatHistory()
        self.in_chat = False

    def start_chat(self, system_message: str) -> None:
        warnings.warn("start_chat is deprecated: give a ChatHistory to generate", DeprecationWarning, 3)
        self.in_chat = True
        self.history.clear()
        if system_message:
            self.history.append({"role": "system", "content": system_message})

    def finish_chat(self) -> None:
        warnings.warn("finish_chat is deprecated: give a ChatHistory to generate", DeprecationWarning, 3)
        self.in_chat = False
        self.history.clear()

    def end_turn(self, length: int, answer: str | None) -> None:
        """Complete the chat that had `length` messages before a call. None, for a call that failed or was
        cancelled, removes its question."""
        if answer is None:
            self.history.set_messages(self.history.get_messages()[:length])
        elif len(self.history) > length:
            self.history.append({"role": "assistant", "content": answer})

    def tokens_of(
        self, inputs: Any, config: GenerationConfig, metrics: PerfMetrics
    ) -> tuple[list[list[int]], bool]:
        """(tokens of each prompt, whether results are texts)."""
        if isinstance(inputs, TokenizedInputs):
            ids, mask = np.array(inputs.input_ids.data), np.array(inputs.attention_mask.data)
            return [[int(t) for t in row[keep != 0]] for row, keep in zip(ids, mask, strict=True)], False
        if isinstance(inputs, Tensor):
            ids = ids_of(inputs)
            if ids.ndim != 2:
                raise OvjitError(f"input_ids should have the shape [batch, length], not {list(ids.shape)}")
            return [[int(t) for t in row] for row in ids], False
        if isinstance(inputs, ChatHistory):
            return [self.read_chat(inputs, config, metrics)], True
        if isinstance(inputs, (str, bytes)):
            return self.read_texts([_text_of(inputs)], config, metrics), True
        if isinstance(inputs, (Sequence, Iterator)) and not isinstance(inputs, bytearray):
            inputs = list(inputs)
            if not inputs:
                raise IndexError("the list of prompts is empty")
            if not all(isinstance(text, (str, bytes)) for text in inputs):
                raise TypeError("prompts should be a list of str")
            return self.read_texts([_text_of(text) for text in inputs], config, metrics), True
        raise TypeError(
            "inputs should be str, a list of str, ChatHistory, TokenizedInputs or Tensor, not "
            f"{type(inputs).__name__}"
        )

    def read_chat(self, chat: ChatHistory, config: GenerationConfig, metrics: PerfMetrics) -> list[int]:
        """The tokens of a chat. RuntimeError without messages, or if the template is switched off."""
        if not chat or not config.apply_chat_template:
            raise OvjitError("a ChatHistory needs messages, and apply_chat_template=True")
        return self.encode([self._render(chat, metrics)], False, metrics)[0]

    def read_texts(self, texts: list[str], config: GenerationConfig, metrics: PerfMetrics) -> list[list[int]]:
        """The tokens of texts, each with the chat's template; with that of all messages in a chat."""
        if self.in_chat:
            if len(texts) > 1:
                raise OvjitError("a chat takes one prompt at a time")
            self.history.append({"role": "user", "content": texts[0]})
            return self.encode([self._render(self.history, metrics)], False, metrics)
        if not config.apply_chat_template or not self.tokenizer.chat_template:
            return self.encode(texts, True, metrics)
        chats = [ChatHistory([{"role": "user", "content": text}]) for text in texts]
        return self.encode([self._render(chat, metrics) for chat in chats], False, metrics)

    def encode(self, texts: Sequence[str], special: bool, metrics: PerfMetrics) -> list[list[int]]:
        """The tokens of texts as they are. `special`: with special tokens."""
        prompts = []
        for text in texts:
            with measure(metrics.raw_metrics.tokenization_durations):
                encoded = self.tokenizer.encode(text, add_special_tokens=special)
                prompts.append(np.array(encoded.input_ids.data)[0].tolist())
        return prompts

    def _render(self, history: ChatHistory, metrics: PerfMetrics) -> str:
        with measure(metrics.raw_metrics.chat_template_durations):
            return self.tokenizer.apply_chat_template(history, True)


def _text_of(text: str | bytes) -> str:
    """A text, which may be given as UTF-8. TypeError for bytes that are none."""
    try:
        return text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise TypeError(f"a prompt should be UTF-8: {error}") from error


def ids_of(tensor: Tensor) -> np.ndarray:
    """The tokens of a Tensor. RuntimeError for another element type."""
    ids = np.array(tensor.data)
    if ids.dtype != np.int64:
        raise OvjitError(f"input_ids should be i64, not {ids.dtype}")
    return ids
