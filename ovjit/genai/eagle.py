"""EAGLE-3: a draft of one layer that reads hidden states of the model for which it proposes tokens.

The draft at position i reads the token i + 1 and the features of the model at i: hidden states behind three
of its layers, which the draft's matrix `fc` joins. Behind the last features it goes on with its own hidden
states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.run.core import Core
from ovjit.compat import opset13 as ops
from ovjit.errors import OvjitError
from ovjit.genai.batches import Request
from ovjit.genai.blocks import NO_INPUTS, BlockPool, Row
from ovjit.genai.drafts import DraftedRequest, DraftProposer
from ovjit.genai.speculation import Draft
from ovjit.generation.decoder import model_file
from ovjit.generation.paged import PagedDecoder
from ovjit.generation.tokenizer import read_settings

FEATURES, _STATES = "last_hidden_state", "hidden_states"
#: Tables with more rows are those of words, whatever their name is.
_FEW_WORDS = 1000


def choose_layers(source: Any) -> list[int]:
    """The layers whose hidden states are read, by config.json in the model's folder. RuntimeError for fewer
    than 10 layers, and for an IR in memory."""
    file = source / "config.json" if isinstance(source, Path) else Path("config.json of the IR in memory")
    config = read_settings(file)
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


def prepare_models(path: Path, source: Any, model: Any) -> tuple[Any, np.ndarray | None]:
    """Let the `model` of `source` compute features, by the matrix `fc` of the draft at `path`. Returns the
    draft's model, which takes them, and for each of its words the distance to the same word of `model`."""
    draft, layers = Core().read_model(model_file(path)), choose_layers(source)
    table: Any = next((r.input_value(0).get_node() for r in draft.get_results()
                       if "d2t" in r.input_value(0).get_node().get_friendly_name()), None)  # fmt: skip
    offsets = None if table is None else np.array(table.data)
    if table is not None:
        draft.remove_result(table.output(0).get_target_inputs().pop().get_node())
    add_result(draft, find_residuals(draft, ["midlayer"])[0])
    words, target = find_table(model), find_table(draft)
    if words is not None and target is not None:
        target.replace_source_output(words.get_source_output())
    states = next(p for p in draft.get_parameters() if _STATES in p.output(0).get_names())
    product = next(node for node in draft.get_ordered_ops() if node.get_type_name() == "MatMul"
                   and node.input_value(0).get_node() is states)  # fmt: skip
    residuals = find_residuals(model, [f"layers.{layer}/" for layer in layers])
    joined = ops.matmul(ops.concat(residuals, -1), product.input_value(1), False, True)
    states.set_partial_shape(product.output(0).get_partial_shape())
    for taker in product.output(0).get_target_inputs():
        taker.replace_source_output(states.output(0))
    add_result(model, joined.output(0))
    draft.validate_nodes_and_infer_types()
    return draft, offsets


def add_result(model: Any, value: Any) -> None:
    result = ops.result(value)
    result.output(0).set_names({FEATURES})
    model.add_results([result])


class EagleProposer(DraftProposer):
    """Proposes tokens for requests in common batches. Changes `model`, the one of `source`, for which it
    proposes, so that it computes features."""

    takes_trees, outputs, _skipped = True, (FEATURES,), 1

    def __init__(self, draft: Draft, source: Any, model: Any):
        changed, self._offsets = prepare_models(draft.path, source, model)
        super().__init__(draft, changed, inputs=(_STATES,), outputs=self.outputs, defers=False)
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
        """Indices of the features of tokens from number `begin` to `end` of a sequence of the model."""
        numbers = np.arange(begin, end)
        return np.asarray(row.blocks)[numbers // self._size] * self._size + numbers % self._size

    def propose(self, requests: Sequence[Request], most: int) -> None:
        super().propose(requests, most)
        for request in requests:  # what is after the model's features is to be computed from them again
            if id(request) in self._rows:
                row, tokens = self._rows[id(request)], request.rows[0]
                row.length = min(row.length, len(tokens.tokens) - tokens.logit_count)

    def _choose(self, logits: np.ndarray) -> int:
        word = int(logits.argmax())
        return word + (0 if self._offsets is None else int(self._offsets[word]))

    def _compute(self, requests: Sequence[DraftedRequest],
                 more: Mapping[str, np.ndarray] = NO_INPUTS) -> np.ndarray:  # fmt: skip
        pairs = [(request.row, self._rows[id(request)]) for request in requests]
        states = [
            self._features[self._slots(row, mine.length, len(mine.tokens))]
            if len(mine.tokens) < len(row.tokens) else self._states[id(request)]
            for request, (row, mine) in zip(requests, pairs, strict=True)
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
