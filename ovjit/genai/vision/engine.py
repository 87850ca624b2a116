"""A decoder that reads embeddings of tokens and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.errors import UnsupportedError
from ovjit.genai.engine import Engine
from ovjit.genai.vision.family import Family, Prompt

#: The inputs of language models that are fed.
_INPUTS = frozenset((
    "inputs_embeds", "attention_mask", "position_ids", "beam_idx", "token_type_ids", "visual_pos_masks",
    "deepstack_visual_embeds",
))  # fmt: skip


class EmbeddingEngine(Engine):
    """A decoder that takes embeddings [rows, tokens, size] of tokens and pictures."""

    _input_name = "inputs_embeds"

    def __init__(self, compiled: Any, embedder: Any, family: Family):
        names = [port.get_names() for port in compiled.inputs]
        self._names = [name for port_names in names for name in _INPUTS & port_names]
        if len(self._names) != len(names):
            raise UnsupportedError(f"a language model with the inputs {names} is not supported")
        self._request, self._embedder, self._family = compiled.create_infer_request(), embedder, family
        self._length, self._can_extend = 0, False
        self._tokens = []
        self._prompt: Prompt | None = None

    def embed(self, ids: np.ndarray) -> np.ndarray:
        return np.array(self._embedder.infer([ids])[0], np.float32)

    def start(self, prompt: Any) -> np.ndarray:
        """Read a Prompt. Returns the logits [1, words] of the next token."""
        self._reset([0])
        self._prompt = prompt
        return self._infer(prompt.embeds, np.zeros(1, np.int32))

    def _feed(self, values: np.ndarray, parents: np.ndarray) -> dict[str, np.ndarray]:
        feeds, prompt = super()._feed(values, parents), self._prompt
        assert prompt is not None
        if not self._length:
            return {**feeds, "position_ids": prompt.positions, **prompt.inputs}
        ids, nowhere = np.zeros(values.shape[:2], np.int64), np.zeros(0, np.int64)
        axes = prompt.positions.shape[:-2]
        positions = np.broadcast_to(feeds["position_ids"] + prompt.shift, (*axes, *ids.shape)).copy()
        return {**feeds, "position_ids": positions, **self._family.inputs(ids, nowhere, ())}
