"""EAGLE-3: a draft of one layer that reads features of the model for which it proposes tokens: hidden states
after three of its layers, which the draft's matrix `fc` joins.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.run.core import Core
from ovjit.compat import opset13 as ops
from ovjit.errors import OvjitError
from ovjit.genai.batches import Request
from ovjit.genai.blocks import RowInputs
from ovjit.genai.features import STATES, FeatureProposer, add_features, find_port, find_residuals
from ovjit.genai.speculation import Draft
from ovjit.generation.decoder import model_file
from ovjit.generation.tokenizer import read_settings

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
    add_features(draft, find_residuals(draft, ["midlayer"]))
    words, target = find_table(model), find_table(draft)
    if words is not None and target is not None:
        target.replace_source_output(words.get_source_output())
    states = find_port(draft.inputs, STATES).get_node()
    product = next(node for node in draft.get_ordered_ops() if node.get_type_name() == "MatMul"
                   and node.input_value(0).get_node() is states)  # fmt: skip
    residuals = find_residuals(model, [f"layers.{layer}/" for layer in layers])
    joined = ops.matmul(ops.concat(residuals, -1), product.input_value(1), False, True)
    states.set_partial_shape(product.output(0).get_partial_shape())
    for taker in product.output(0).get_target_inputs():
        taker.replace_source_output(states.output(0))
    add_features(model, [joined.output(0)])
    draft.validate_nodes_and_infer_types()
    return draft, offsets


class EagleProposer(FeatureProposer):
    """Proposes tokens for requests in common batches. Changes `model`, the one of `source`, for which it
    proposes, so that it computes features. `rows`: the inputs of a model that takes embeddings."""

    takes_trees, name = True, "EAGLE-3"

    def __init__(self, draft: Draft, source: Any, model: Any, rows: RowInputs | None = None):
        changed, self._offsets = prepare_models(draft.path, source, model)
        super().__init__(draft, changed, rows)

    def propose(self, requests: Sequence[Request], most: int) -> None:
        super().propose(requests, most)
        for request in requests:  # what is after the model's features is to be computed from them again
            if id(request) in self._rows:
                row, tokens = self._rows[id(request)], request.rows[0]
                self._pool.rewind(row, len(tokens.tokens) - tokens.logit_count)

    def _choose(self, logits: np.ndarray) -> int:
        word = int(logits.argmax())
        return word + (0 if self._offsets is None else int(self._offsets[word]))
