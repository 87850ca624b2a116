"""EAGLE-3: a draft of one layer that reads hidden states of the model for which it proposes tokens.

The draft at position i reads the token i + 1 and the features of the model at i: hidden states behind three
of its layers, which the draft's matrix `fc` joins. Behind the last features it goes on with its own hidden
states.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.run.core import Core
from ovjit.api.tensors.tensor import Tensor
from ovjit.compat import opset13 as ops
from ovjit.errors import OvjitError
from ovjit.genai.batches import Request
from ovjit.genai.blocks import NO_INPUTS, BlockPool, Row
from ovjit.genai.config import GenerationConfig
from ovjit.genai.drafts import DraftedRequest, DraftProposer
from ovjit.genai.figures import now_us
from ovjit.genai.speculation import Draft, Proposer, limit_proposals
from ovjit.generation.decoder import Decoder, model_file
from ovjit.generation.head import keep_last
from ovjit.generation.paged import PagedDecoder

FEATURES, _STATES = "last_hidden_state", "hidden_states"
#: Tables with more rows are those of words, whatever their name is.
_FEW_WORDS = 1000


def choose_layers(source: Any) -> list[int]:
    """The layers whose hidden states are read, by config.json in the model's folder. RuntimeError for fewer
    than 10 layers, and for an IR in memory."""
    file = source / "config.json" if isinstance(source, Path) else Path("config.json of the IR in memory")
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    count = config.get("num_hidden_layers") or config.get("text_config", {}).get("num_hidden_layers", 0)
    if count < 10:
        raise OvjitError(f"EAGLE-3 needs a model of at least 10 layers: {str(file)!r} says {count}")
    return [2, count // 2, count - 3]


def find_residuals(model: Any, names: Sequence[str]) -> list[Any]:
    """The first sum with a projection of a product in the layer of each name. RuntimeError if one is
    missing."""
    sums: dict[str, Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Add" or node.input_value(1).get_node().get_type_name() != "MatMul":
            continue
        if node.input_value(1).get_node().input_value(0).get_node().get_type_name() == "Multiply":
            for name in names:
                if name in node.get_friendly_name():
                    sums.setdefault(name, node.output(0))
    missing = sorted(set(names) - sums.keys())
    if missing:
        raise OvjitError(
            f"EAGLE-3 finds no hidden states of {', '.join(missing)}: export the model with optimum-cli"
        )
    return [sums[name] for name in names]


def find_table(model: Any) -> Any | None:
    """The input of the Gather of embeddings that is its table."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Gather":
            table = node.input_value(0)
            shape, name = table.get_partial_shape(), table.get_node().get_friendly_name()
            is_large = (
                shape.rank.is_static
                and len(shape) > 1
                and shape[0].is_static
                and shape[0].get_length() > _FEW_WORDS
            )
            if is_large or "embed_tokens" in name or "embedding" in name:
                return node.input(0)
    return None


class EagleDraft:
    """The draft's model, before it is compiled: `change` takes its matrix `fc`, and gives it the embeddings
    of the other model."""

    def __init__(self, draft: Draft, source: Any, change: Callable[[Any], Collection[str]] | None):
        self._source, self._change = draft, change
        self.model, self._layers = Core().read_model(model_file(draft.path)), choose_layers(source)
        table: Any = next((r.input_value(0).get_node() for r in self.model.get_results()
                           if "d2t" in r.input_value(0).get_node().get_friendly_name()), None)  # fmt: skip
        #: For each word of the draft, the distance to the same word of the other model.
        self.offsets: np.ndarray | None = None
        if table is not None:
            self.offsets = np.array(table.data)
            self.model.remove_result(table.output(0).get_target_inputs().pop().get_node())
        add_result(self.model, find_residuals(self.model, ["midlayer"])[0])

    def load(self, decoder: Decoder, device: str) -> EagleProposer:
        """The compiled draft, for a decoder whose model has been changed."""
        _, properties = self._source.split_properties()
        keep_last(self.model, 1)
        draft = Core().compile_model(self.model, self._source.device or device, properties)
        return EagleProposer(Decoder(draft, 0, (_STATES,)), decoder, self.offsets)

    def change(self, model: Any) -> Collection[str]:
        """Let the model that proposals are for compute features, an output of its own. Returns the names of
        constant inputs."""
        source, target = find_table(model), find_table(self.model)
        if source is not None and target is not None:
            target.replace_source_output(source.get_source_output())
        states = next(p for p in self.model.get_parameters() if _STATES in p.output(0).get_names())
        product = next(node for node in self.model.get_ordered_ops() if node.get_type_name() == "MatMul"
                       and node.input_value(0).get_node() is states)  # fmt: skip
        layers = find_residuals(model, [f"layers.{layer}/" for layer in self._layers])
        joined = ops.matmul(ops.concat(layers, -1), product.input_value(1), False, True)
        states.set_partial_shape(product.output(0).get_partial_shape())
        for taker in product.output(0).get_target_inputs():
            taker.replace_source_output(states.output(0))
        add_result(model, joined.output(0))
        self.model.validate_nodes_and_infer_types()
        return () if self._change is None else self._change(model)


def add_result(model: Any, value: Any) -> None:
    result = ops.result(value)
    result.output(0).set_names({FEATURES})
    model.add_results([result])


class EagleProposer(Proposer):
    """Proposes tokens for the sequence of a decoder, which computes features."""

    takes_trees = True

    def __init__(self, draft: Decoder, decoder: Decoder, offsets: np.ndarray | None):
        super().__init__(draft, None)
        self._offsets, self._features = offsets, np.zeros((0, 0), np.float32)
        #: Tokens whose keys and values the draft has computed from features.
        self._settled = 0
        decoder.on_feed = self._note

    def _note(self, begin: int, request: Any) -> None:
        """Keep the features of tokens that the model has read, from `begin` on."""
        features, before = request.get_tensor(FEATURES).data[0], self._features
        end = begin + len(features)
        if end > len(before) or not begin:
            self._features = np.zeros((2 * end, features.shape[1]), np.float32)
            if begin:
                self._features[:begin] = before[:begin]
        self._features[begin:end] = features

    def propose(self, tokens: Sequence[int], most: int, config: GenerationConfig) -> list[int]:
        """At most `most` tokens that follow. The last token's features are not there yet."""
        most = limit_proposals(most, config)
        pairs = enumerate(zip(self._tokens, tokens, strict=False))
        common = next((i for i, (old, new) in pairs if old != new), min(len(self._tokens), len(tokens)))
        length = min(self._settled, common - 1, len(tokens) - 2)
        self._tokens, self._settled = [], 0  # until it is done: it may fail
        if length > 0:
            self._decoder.rewind(length)
        else:
            self._decoder.reset()
        length, last = self._decoder.length, len(tokens) - 1
        words, states, proposed = list(tokens[length + 1 :]), self._features[length:last], list[int]()
        while len(proposed) < most:
            word, states = self._read(words, states, 0 if proposed or length else len(words))
            proposed.append(word + (0 if self._offsets is None else int(self._offsets[word])))
            words = proposed[-1:]
        self._tokens, self._settled = list(tokens), last
        return proposed

    def _read(self, words: Sequence[int], states: np.ndarray, prompt: int) -> tuple[int, np.ndarray]:
        """The most likely word behind these, and the draft's hidden states [1, width] of the last of them."""
        start = now_us()
        self._decoder._request.set_tensor(_STATES, Tensor(np.ascontiguousarray(states[None])))
        word = int(self._decoder.feed(words)[-1].argmax())
        self.metrics._add_draft_inference(start, len(words), 1)
        self.metrics._processed += len(words) - prompt
        return word, np.array(self._decoder._request.get_tensor(FEATURES).data[0, -1:])


class BatchedEagleProposer(DraftProposer):
    """Proposes tokens for requests in common batches. Changes `model`, for which it proposes, so that it
    computes features."""

    takes_trees, _skipped = True, 1

    def __init__(self, draft: Draft, source: Any, model: Any):
        eagle = EagleDraft(draft, source, None)
        eagle.change(model)
        super().__init__(draft, eagle.model, inputs=(_STATES,), outputs=(FEATURES,), defers=False)
        self._offsets = eagle.offsets
        #: The features of the tokens in the model's blocks, and their number in a block.
        self._features, self._size = np.zeros((0, 1), np.float32), 1
        #: The draft's own hidden states [1, width] of the last token of a request.
        self._states: dict[int, np.ndarray] = {}

    def note(self, pool: BlockPool, rows: Sequence[Row], counts: Sequence[int]) -> None:
        values = _features_of(pool.decoder)
        self._size, before = pool.size, self._features
        if len(before) < pool.decoder.blocks * pool.size:
            self._features = np.zeros((pool.decoder.blocks * pool.size, values.shape[1]), np.float32)
            self._features[: len(before)] = before
        for row, count, end in zip(rows, counts, np.cumsum(counts), strict=True):
            self._features[self._slots(row, row.length - count, row.length)] = values[end - count : end]

    def _slots(self, row: Row, begin: int, end: int) -> np.ndarray:
        """Where features of tokens from number `begin` to `end` of a sequence of the model are."""
        numbers = np.arange(begin, end)
        return np.asarray(row.blocks)[numbers // self._size] * self._size + numbers % self._size

    def propose(self, requests: Sequence[Request], most: int) -> None:
        super().propose(requests, most)
        for request in requests:  # what is behind the model's features is to be computed from them again
            if id(request) in self._rows:
                row, tokens = self._rows[id(request)], request.rows[0]
                row.length = min(row.length, len(tokens.tokens) - tokens.logit_count)

    def _choose(self, logits: np.ndarray) -> int:
        word = int(logits.argmax())
        return word + (0 if self._offsets is None else int(self._offsets[word]))

    def _compute(
        self, requests: Sequence[DraftedRequest], more: Mapping[str, np.ndarray] = NO_INPUTS
    ) -> np.ndarray:
        pairs = [(request.row, self._rows[id(request)]) for request in requests]
        states = [
            self._features[self._slots(row, own.length, len(own.tokens))]
            if len(own.tokens) < len(row.tokens) else self._states[id(request)]
            for request, (row, own) in zip(requests, pairs, strict=True)
        ]  # fmt: skip
        ends = np.cumsum([len(each) for each in states])
        logits = super()._compute(requests, {_STATES: np.concatenate(states)[:, None]})
        values = _features_of(self._decoder)
        for request, end in zip(requests, ends, strict=True):
            self._states[id(request)] = np.array(values[end - 1 : end])
        return logits

    def release(self, request: Request) -> None:
        self._states.pop(id(request), None)
        super().release(request)


def _features_of(decoder: PagedDecoder) -> np.ndarray:
    """The features [tokens, width] that a decoder has computed."""
    values = decoder.requests[0].get_tensor(FEATURES).data
    return values.reshape(-1, values.shape[-1])
