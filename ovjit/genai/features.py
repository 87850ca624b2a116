"""Drafts that read hidden states of the model for which they propose tokens: its features."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.compat import opset13 as ops
from ovjit.errors import OvjitError
from ovjit.genai.batches import Proposals, Request
from ovjit.genai.blocks import NO_INPUTS, BlockPool, Row, RowInputs
from ovjit.genai.drafts import DraftedRequest, DraftProposer
from ovjit.genai.speculation import Draft
from ovjit.generation.paged import PagedDecoder

FEATURES, STATES = "last_hidden_state", "hidden_states"
_LOCATIONS = "hidden_states_decoder_layers"


def add_features(model: Any, values: Sequence[Any]) -> None:
    """Add the output `FEATURES`: these values, joined along their last axis."""
    result = ops.result(ops.concat(list(values), -1) if len(values) > 1 else values[0])
    result.output(0).set_names({FEATURES})
    model.add_results([result])


def find_port(ports: Sequence[Any], name: str) -> Any:
    """The port with this name among its own, None without one."""
    return next((port for port in ports if name in port.get_names()), None)


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
            f"the model has no hidden states of {', '.join(missing)}, which the draft model reads: export it "
            "with optimum-cli"
        )
    return [sums[name] for name in names]


def find_layers(model: Any, layers: Sequence[int]) -> list[Any]:
    """The outputs of the decoder layers with these numbers: from optimum-intel's rt_info, else by the names
    of nodes."""
    if not model.has_rt_info([_LOCATIONS]):
        return find_residuals(model, [f"layers.{layer}/" for layer in layers])
    try:
        outputs = json.loads(model.get_rt_info([_LOCATIONS]).astype(str))["layers"]
        ports = [(outputs[str(i)]["producer"], outputs[str(i)]["output_index"]) for i in layers]
        nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
        return [nodes[name].output(index) for name, index in ports]
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise OvjitError(
            f"the model's {_LOCATIONS} does not name the outputs of the layers {list(layers)}: {error}"
        ) from error


class FeatureReader(Proposals):
    """Takes features of the tokens of requests, which the model computes as an output."""

    has_draft, outputs = True, (FEATURES,)

    def __init__(self) -> None:
        super().__init__()
        #: The features of the tokens in the model's blocks, and their number in a block.
        self._features, self._size = np.zeros((0, 1), np.float32), 1

    def note(self, pool: BlockPool, rows: Sequence[Row], counts: Sequence[int]) -> None:
        values = features_of(pool.decoder)
        self._size, before = pool.size, self._features
        if len(before) < pool.decoder.blocks * pool.size:
            self._features = np.zeros((pool.decoder.blocks * pool.size, values.shape[1]), np.float32)
            self._features[: len(before)] = before
        for row, count, end in zip(rows, counts, np.cumsum(counts), strict=True):
            self._features[self._find_slots(row, row.length - count, row.length)] = values[end - count : end]

    def _find_slots(self, row: Row, begin: int, end: int) -> np.ndarray:
        """Indices of the features of tokens from number `begin` to `end` of a sequence of the model."""
        numbers = np.arange(begin, end)
        return np.asarray(row.blocks)[numbers // self._size] * self._size + numbers % self._size

    def read(self, row: Row, begin: int, end: int) -> np.ndarray:
        """The features [tokens, width] of tokens from number `begin` to `end` of a sequence of the model."""
        return self._features[self._find_slots(row, begin, end)]


class FeatureProposer(DraftProposer, FeatureReader):
    """A draft model with two inputs per position i: token i + 1, and the target model's hidden state at i.
    After the last such state it uses its own hidden states."""

    _skipped = 1

    def __init__(self, draft: Draft, model: Any, rows: RowInputs | None):
        inputs = (STATES, *(() if rows is None else rows.names))
        super().__init__(draft, model, rows, inputs=inputs, outputs=self.outputs, defers=False)
        #: The draft's own hidden states [1, width] of the last token of a request.
        self._states: dict[int, np.ndarray] = {}

    def _begin(self, request: DraftedRequest) -> Row:
        """A row from the second token on."""
        prompt = request.row.prompt
        return Row([], None if prompt is None else prompt.skip_first())

    def _compute(self, requests: Sequence[DraftedRequest],
                 more: Mapping[str, np.ndarray] = NO_INPUTS) -> np.ndarray:  # fmt: skip
        pairs = [(request.row, self._rows[id(request)]) for request in requests]
        states = [
            self.read(row, mine.length, len(mine.tokens))
            if len(mine.tokens) < len(row.tokens) else self._states[id(request)]
            for request, (row, mine) in zip(requests, pairs, strict=True)
        ]  # fmt: skip
        ends = np.cumsum([len(each) for each in states])
        logits = super()._compute(requests, {STATES: np.concatenate(states)[:, None]})
        values = features_of(self._decoder)
        for request, end in zip(requests, ends, strict=True):
            self._states[id(request)] = np.array(values[end - 1 : end])
        return logits

    def release(self, request: Request) -> None:
        self._states.pop(id(request), None)
        super().release(request)


def features_of(decoder: PagedDecoder) -> np.ndarray:
    """The features [tokens, width] that a decoder has computed."""
    values = decoder.requests[0].get_tensor(FEATURES).data
    return values.reshape(-1, values.shape[-1])
