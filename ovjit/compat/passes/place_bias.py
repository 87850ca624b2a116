"""Bias by the position of a key that a mask adds to scores, where it is not linear.

    mask[head, query, key] = bias[head, key]  where the query sees the key

Falcon rounds its slopes' products to bf16. Slopes stand for the linear part. The remainder becomes further
elements of the key: one for each of the heads that share it, of which a head of queries reads its own.
"""

from __future__ import annotations

import numpy as np

from ovjit.api.model.boundary import constant_node
from ovjit.api.model.boundary import new_output as _op
from ovjit.api.model.node import Output
from ovjit.compat.passes.longest import copy_subgraph
from ovjit.compat.passes.probe import Probe, before, is_a


def place_bias(mask: Output, rows: dict[int, np.ndarray]) -> Output | None:
    """The output [1, heads, 1, keys] that the mask adds, computed from `attention_mask` alone. None if no
    output equals all `rows`: past tokens -> values added to the last query's scores [heads, keys]."""
    for output in _by_mask_alone(mask):
        shape = output._tensor._type.shape
        if shape is not None and len(shape) == 4 and shape[2] == 1 and _adds(output, rows):
            return output
    return None


def columns(bias: Output, ones: Output, positions: Output, slopes: np.ndarray) -> Output:
    """[tokens, heads]: the bias of keys at these places [tokens], less that of slopes [heads]. `ones`: a mask
    [1, keys] of the longest sequence."""
    sources = before(bias)
    parameter = next(x for x in sources if is_a(x._node, "Parameter"))
    row = copy_subgraph(bias, set(sources), {parameter: ones})
    table = _op("Reshape", row, np.array([len(slopes), -1]), special_zero=False)
    biases = _op("Transpose", _op("Gather", table, positions, np.array(1)), np.array([1, 0]))
    distance = _op("Convert", _op("Unsqueeze", positions, np.array([1])), destination_type="f32")
    return _op("Subtract", biases, _op("Multiply", distance, constant_node(slopes[None]).output(0)))


def with_columns(key: Output, column: Output, heads: int, shared: int) -> Output:
    """Keys [tokens, 1, shared, size] with the columns [tokens, heads] of the heads that share each."""
    each = heads // shared
    more = _op("Reshape", column, np.array([0, 1, shared, each]), special_zero=True)
    zeros = [_op("Multiply", _first(more), constant_node(np.float32(0)).output(0))] * (each % 2)
    return _op("Concat", key, more, *zeros, axis=3)  # an even number more, for 4 bits


def with_factors(query: Output, scale: Output, heads: int, shared: int) -> Output:
    """Queries [tokens, 1, heads, size] with the inverse scale where a head's own column lies."""
    each = heads // shared
    ends = np.zeros((1, 1, heads, each + each % 2), np.float32)
    ends[0, 0, np.arange(heads), np.arange(heads) % each] = 1
    row = _op("Divide", constant_node(ends).output(0), scale)
    tokens = _op("Gather", _op("ShapeOf", query, output_type="i64"), np.array([0]), np.array(0))
    target = _op("Concat", tokens, np.array(ends.shape[1:]), axis=0)
    return _op("Concat", query, _op("Broadcast", row, target, mode="bidirectional"), axis=3)


def _first(x: Output) -> Output:
    return _op("Slice", x, *(np.array([n]) for n in (0, 1, 1, 3)))


def _by_mask_alone(mask: Output) -> list[Output]:
    """The outputs before the mask that depend on `attention_mask` alone, largest subgraph first."""
    order = sorted(before(mask), key=lambda x: len(before(x)), reverse=True)
    outputs = []
    for output in order:
        ends = [x._node for x in before(output) if not x._node._inputs]
        inputs = [node for node in ends if not is_a(node, "Constant")]
        if inputs and all("attention_mask" in node._tensors[0]._names for node in inputs):
            outputs.append(output)
    return outputs


def _adds(output: Output, rows: dict[int, np.ndarray]) -> bool:
    """Whether this is each of these rows, whose beginnings are alike: a key's place decides."""
    longest = rows[max(rows)]
    for past, row in rows.items():
        value = Probe(past).try_values([output])
        if value is None or not np.array_equal(value[0], row[None, :, None]):
            return False
        if not np.array_equal(row, longest[:, : past + 1]):
            return False
    return True
