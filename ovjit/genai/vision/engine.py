"""A decoder that reads embeddings of tokens and pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import UnsupportedError
from ovjit.genai.blocks import Row
from ovjit.genai.engine import AXIS, Engine
from ovjit.genai.prefixes import Prefixes
from ovjit.genai.vision.family import Family, Prompt
from ovjit.genai.vision.reader import PictureReader

#: The inputs of language models that are fed.
INPUTS = frozenset((
    "inputs_embeds", "attention_mask", "position_ids", "beam_idx", "token_type_ids", "visual_pos_masks",
    "deepstack_visual_embeds", "per_layer_inputs",
))  # fmt: skip


_LAYERS = "deepstack_visual_embeds"
_OF_TOKENS = ("token_type_ids", "visual_pos_masks", "per_layer_inputs")
#: The axis of tokens in inputs of a paged decoder, 1 for others.
_AXES = {"inputs_embeds": 0, "position_ids": -1}


def list_inputs(compiled: Any, constant_inputs: Collection[str] = ()) -> list[str]:
    """The names of a language model's inputs, but for those of adapters. UnsupportedError for others than
    `INPUTS`, and for a model that takes no embeddings."""
    ports = [port.get_names() for port in compiled.inputs if not port.get_names() & {*constant_inputs}]
    names = [name for port_names in ports for name in INPUTS & port_names]
    if len(names) != len(ports) or "inputs_embeds" not in names:
        raise UnsupportedError(f"a language model with the inputs {ports} is not supported")
    return names


class EmbeddingEngine(Engine):
    """A decoder that takes embeddings [rows, tokens, size] of tokens and pictures."""

    _input_name = "inputs_embeds"

    def __init__(
        self, compiled: Any, family: Family, embed: Callable[[np.ndarray], np.ndarray],
        constant_inputs: Collection[str] = (),
    ):  # fmt: skip
        self._names = list_inputs(compiled, constant_inputs)
        self._request, self._family = compiled.create_infer_request(), family
        self._embed = embed
        #: A picture's tokens that have a type see each other, so a state without all of them is another one.
        self._can_extend = "token_type_ids" not in self._names
        self._can_split = self._can_extend and self._states_grow()
        self._length, self._tokens, self._prefixes = 0, [], Prefixes(AXIS)
        self._prompt: Prompt | None = None
        #: The tokens whose embeddings are the next values.
        self._ids = np.zeros((0, 0), np.int64)

    def embed(self, ids: np.ndarray) -> np.ndarray:
        self._ids = ids
        return self._embed(ids)

    def start(self, prompt: Any) -> np.ndarray:
        """Read a Prompt, but for what is in the state of its begin: a chat's turns before. Returns the logits
        [1, words] of the next token."""
        count = self._keep_common(prompt.keys)
        if not count:
            self._reset([0])
        self._prompt = prompt
        logits = self._infer(prompt.embeds[:, count:], np.zeros(1, np.int32))
        self._tokens = list(prompt.keys)
        return logits

    def _feed(self, values: np.ndarray, parents: np.ndarray) -> dict[str, np.ndarray]:
        feeds, prompt, begin = super()._feed(values, parents), self._prompt, self._length
        assert prompt is not None
        nowhere, inputs = np.zeros(0, np.int64), prompt.inputs
        if begin < prompt.ids.shape[1]:
            if begin:
                inputs = _cut(inputs, slice(begin, None))
                if _LAYERS in inputs and not inputs[_LAYERS].shape[1]:
                    inputs = self._family.inputs(prompt.ids[:, begin:], nowhere, ())
            return {**feeds, "position_ids": prompt.positions[..., begin:], **inputs}
        # the axes of positions are in front of rows and tokens
        positions = feeds["position_ids"] + prompt.shift[..., None, None]
        return {**feeds, "position_ids": positions, **self._family.inputs(self._ids, nowhere, ())}


class EmbeddedRows:
    """The inputs of a paged decoder that takes embeddings, for the next tokens of rows whose prompts are
    `Prompt`s."""

    names: Collection[str] = INPUTS
    embed: Callable[[np.ndarray], np.ndarray]

    def __init__(self, reader: PictureReader):
        self.embed, self._family = reader.embed, reader.family

    def __call__(self, pairs: Sequence[tuple[Row, int]]) -> dict[str, np.ndarray]:
        parts = [self._split(row, count) for row, count in pairs]
        names = list(parts[0])
        inputs = {name: np.concatenate([part[name] for part in parts], _AXES.get(name, 1)) for name in names}
        layers = inputs.get(_LAYERS)
        if layers is not None and not layers.shape[1]:
            inputs[_LAYERS] = np.zeros((len(layers), 1, layers.shape[2]), np.float32)
        # tokens are sequences of one
        return {n: x.reshape(-1, 1, *x.shape[2:]) if n in _OF_TOKENS else x for n, x in inputs.items()}

    def _split(self, row: Row, count: int) -> dict[str, np.ndarray]:
        """The inputs of the next `count` tokens of a row."""
        prompt: Prompt = row.prompt
        size = prompt.ids.shape[1]
        begin, end = row.length, row.length + count
        read = slice(min(begin, size), min(end, size))
        new = np.array(row.tokens[max(begin, size) : end], np.int64)[None]
        embeds, positions = [prompt.embeds[0, read]], [prompt.positions[..., 0, read]]
        more = [_cut(prompt.inputs, read)]
        if new.size:
            embeds.append(self.embed(new)[0])
            positions.append(np.arange(max(begin, size), end) + prompt.shift[..., None])
            inputs = self._family.inputs(new, np.zeros(0, np.int64), ())
            more.append({n: x[:, :0] if n == _LAYERS else x for n, x in inputs.items()})
        inputs = {"inputs_embeds": np.concatenate(embeds), "position_ids": np.concatenate(positions, -1)}
        for name in more[0]:
            inputs[name] = np.concatenate([part[name] for part in more], 1)
        return inputs


def _cut(inputs: Mapping[str, np.ndarray], part: slice) -> dict[str, np.ndarray]:
    """Inputs of a prompt for a part of its tokens: features of layers are those of its pictures only."""
    cut = {name: values[:, part] for name, values in inputs.items() if name != _LAYERS}
    if _LAYERS in inputs:
        is_visual = inputs["visual_pos_masks"][0]
        first = int(is_visual[: part.start].sum())
        cut[_LAYERS] = inputs[_LAYERS][:, first : first + int(cut["visual_pos_masks"].sum())]
    return cut
