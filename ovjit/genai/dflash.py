"""DFlash: a draft that proposes all tokens in one inference, from the features of the model and from masks in
their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.api.run.core import Core
from ovjit.compat import opset13 as ops
from ovjit.errors import OvjitError
from ovjit.genai.batches import Request
from ovjit.genai.blocks import RowInputs
from ovjit.genai.drafts import DraftedRequest
from ovjit.genai.eagle import find_table
from ovjit.genai.features import FEATURES, STATES, FeatureReader, add_features, find_layers, find_port
from ovjit.genai.figures import now_us
from ovjit.genai.speculation import PROPOSED, Draft
from ovjit.generation.decoder import model_file
from ovjit.generation.head import last_product

_EMBEDS, _IDS = "inputs_embeds", "input_ids"


def attach_head(draft: Any, model: Any) -> None:
    """Make a draft without a last product compute logits by that of `model`."""
    states = find_port(draft.outputs, FEATURES)
    if states is None or find_port(draft.outputs, "logits") is not None:
        return
    product, _ = last_product(model)
    transposed = product.get_attributes()["transpose_b"]
    result = states.get_node()
    logits = ops.matmul(result.input_value(0), product.input_value(1), False, transposed)
    logits.output(0).set_names({"logits"})
    draft.add_results([ops.result(logits)])


def attach_table(draft: Any, model: Any) -> None:
    """Make a draft whose input is embeddings read tokens, by the embedding table of `model`."""
    embeds = find_port(draft.inputs, _EMBEDS)
    if embeds is None:
        return
    table = find_table(model)
    if table is None:
        raise OvjitError("the model has no table of words, which the draft model reads")
    ids = ops.parameter([-1, -1], np.int64, name=_IDS)
    ids.output(0).set_names({_IDS})
    words = ops.gather(table.get_source_output(), ids, ops.constant(np.int64(0))).output(0)
    for taker in embeds.get_target_inputs():
        taker.replace_source_output(words)
    draft.add_parameters([ids])
    draft.remove_parameter(embeds.get_node())
    draft.validate_nodes_and_infer_types()


def read_settings(draft: Any) -> tuple[list[int], int]:
    """(indices of the model's layers whose hidden states a draft reads, the mask token for positions to
    propose)."""
    values = {}
    for name in ("target_layer_ids", "mask_token_id"):
        if not draft.has_rt_info(["dflash", name]):
            raise OvjitError(f"the draft model has no dflash {name}: export it with optimum-cli")
        values[name] = draft.get_rt_info(["dflash", name]).astype(str)
    try:
        layers = [int(number) for number in values["target_layer_ids"].split(",") if number]
        return layers, int(values["mask_token_id"])
    except ValueError as error:
        raise OvjitError(f"the draft model's dflash settings {values} are no numbers") from error


class DflashProposer(FeatureReader):
    """Proposes tokens for requests. Changes `model`, for which it proposes, so that it computes features.
    `inputs`: those of a model that takes embeddings."""

    name, counts_last = "DFlash", True

    def __init__(self, draft: Draft, model: Any, inputs: RowInputs | None = None):
        super().__init__()
        read = Core().read_model(model_file(draft.path))
        layers, self._mask = read_settings(read)
        attach_head(read, model)
        if inputs is None:
            attach_table(read, model)
        self._embed = None if inputs is None else inputs.embed
        add_features(model, find_layers(model, layers))
        self._compiled = Core().compile_model(read, "CPU", draft.split_properties()[1])
        self._names = {name for port in self._compiled.inputs for name in port.get_names()}
        #: The state of a request: the features that are read.
        self._states: dict[int, _State] = {}

    def propose(self, requests: Sequence[Request], most: int) -> None:
        for request in requests:
            if isinstance(request, DraftedRequest) and request.most > 0:
                request.suggest(self._compute(request, min(request.most, most)))

    def _compute(self, request: DraftedRequest, most: int) -> list[int]:
        """At most `most` following tokens. The draft always proposes `num_assistant_tokens`, even if fewer
        are needed."""
        tokens, count = request.row.tokens, request.config.num_assistant_tokens or PROPOSED
        state = self._states.setdefault(id(request), _State(self._compiled))
        begin, end, start_us = state.length, len(tokens) - 1, now_us()
        ids = np.array([[tokens[-1], *[self._mask] * count]], np.int64)
        values = {
            STATES: self.read(request.row, begin, end)[None], _IDS: ids,
            "position_ids": np.arange(begin, len(tokens) + count)[None],
            "attention_mask": np.ones((1, len(tokens) + count), np.int64), "beam_idx": np.zeros(1, np.int32),
        }  # fmt: skip
        if self._embed is not None:
            values[_EMBEDS] = self._embed(ids)
        logits = state.request.infer({name: x for name, x in values.items() if name in self._names})["logits"]
        state.length = end
        proposed: list[int] = np.asarray(logits)[0, : min(count, most)].argmax(-1).tolist()
        self.metrics._add_draft_inference(start_us, len(proposed), len(proposed))
        return proposed

    def release(self, request: Request) -> None:
        self._states.pop(id(request), None)


class _State:
    """The keys and values of one request in a draft, of `length` features."""

    def __init__(self, compiled: Any):
        self.request, self.length = compiled.create_infer_request(), 0
