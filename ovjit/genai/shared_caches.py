"""Gemma 4's token prediction: a draft without a cache, which attends to keys and values of the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.run.core import Core
from ovjit.compat import opset13 as ops
from ovjit.errors import OvjitError
from ovjit.genai.adapters import AdapterConfig
from ovjit.genai.config import GenerationConfig
from ovjit.genai.figures import now_us
from ovjit.genai.speculation import PROPOSED, Draft, Proposer
from ovjit.generation.decoder import Decoder, model_file

#: Inputs of the draft, which are outputs of the model after `_PREFIX`.
CACHES = ("full_attention_key", "full_attention_value", "sliding_attention_key", "sliding_attention_value")
_PREFIX, _STATES = "mtp_", "last_hidden_state"
#: Names of nodes that compute the embeddings of tokens, the first that there is.
_EMBEDDINGS = ("embed_tokens/aten::mul/Multiply", "embed_tokens/aten::embedding/Gather")
#: The axis of tokens of keys and values.
_AXIS = 2


def embed_tokens(model: Model) -> Model:
    """The part of a decoder that computes embeddings. RuntimeError if it has none, or lacks an output."""
    names = {name for port in model.outputs for name in port.get_names()}
    missing = {_PREFIX + name for name in (_STATES, *CACHES)} - names
    nodes = [node for name in _EMBEDDINGS for node in model.get_ordered_ops()
             if name in node.get_friendly_name() and "per_layer" not in node.get_friendly_name()]  # fmt: skip
    if missing or not nodes:
        raise OvjitError(
            f"the model is not one for this draft_model: it lacks {sorted(missing) or 'embed_tokens'}; "
            "export both with optimum-cli"
        )
    ids = next(p for p in model.get_parameters() if "input_ids" in p.output(0).get_names())
    return Model([ops.result(nodes[0].output(0))], [ids], "embeddings")


class SharedCacheProposer(Proposer):
    """Proposes the most likely tokens, one after another, for `decoder`. `model`: the decoder's, to compute
    embeddings; `device`: that of the pipeline."""

    counts_last, name = True, "MTP"

    def __init__(self, draft: Draft, decoder: Decoder, model: Model, device: str):
        super().__init__(decoder, None)
        core, (_, properties) = Core(), draft.split_properties()
        compiled = core.compile_model(embed_tokens(model), device, {"INFERENCE_PRECISION_HINT": "f32"})
        self._embeddings = compiled.create_infer_request()
        file = str(model_file(draft.path))
        self._draft = core.compile_model(file, draft.device or device, properties).create_infer_request()

    def apply(self, adapters: AdapterConfig | None, default: AdapterConfig | None) -> None:
        """Do nothing: the draft has no adapters."""

    def propose(self, tokens: Sequence[int], most: int, config: GenerationConfig) -> list[int]:
        """At most `most` tokens that follow, up to one that ends texts."""
        outputs, length = self._decoder._request.get_tensor, len(tokens)
        caches = {name: np.asarray(outputs(_PREFIX + name).data) for name in CACHES}
        states = np.asarray(outputs(_PREFIX + _STATES).data)
        begin = caches[CACHES[0]].shape[_AXIS] - states.shape[1]
        state = states[:, length - 2 - begin : length - 1 - begin]
        inputs = {name: values[:, :, : length - 1] for name, values in caches.items()}
        inputs["attention_mask"] = np.ones((1, length), np.int64)
        inputs["position_ids"] = np.array([[length - 1]], np.int64)
        proposed, last = list[int](), tokens[-1]
        while len(proposed) < min(most, config.num_assistant_tokens or PROPOSED):
            words = self._embeddings.infer({"input_ids": np.array([[last]], np.int64)})[0]
            start_us = now_us()
            inputs["inputs_embeds"] = np.concatenate([words, state], -1)
            results = self._draft.infer(inputs)
            self.metrics._add_draft_inference(start_us, 1, 1)
            state, last = np.array(results[_STATES]), int(np.argmax(results["logits"][0, -1]))
            proposed.append(last)
            if last in config.stop_token_ids:
                break
        return proposed
