"""Bias that a mask adds to scores: by the value of a key, as Doge's masks do, or by its position.

    mask[head, query, key] = bias[head](value of the key)  where the query sees the key
    mask[head, query, key] = bias[head, key]               not linear in the key

Paged attention has no such input. The bias becomes a further element of the key, and its inverse scale one of
the query: (q, 1 / scale) . (k, bias) * scale = q . k * scale + bias.

Falcon rounds the products of its slopes to bf16. Slopes stand for the linear part. The remainder becomes
further elements of the key: one for each of the heads that share it, of which a head of queries reads its
own.
"""

from __future__ import annotations

import numpy as np

from ovjit.api.model.boundary import constant_node
from ovjit.api.model.boundary import new_output as _op
from ovjit.api.model.node import Node, Output
from ovjit.compat.passes.longest import copy_subgraph
from ovjit.compat.passes.probe import Probe, before, is_a


def place_bias(mask: Output, rows: dict[int, np.ndarray]) -> Output | None:
    """The output [1, heads, 1, keys] that the mask adds, computed from `attention_mask` alone. None if no
    output equals all `rows`: past tokens -> values added to the last query's scores [heads, keys]."""
    for output in _by_mask_alone(mask):
        shape = output._tensor._type.shape
        if shape is not None and len(shape) == 4 and shape[2] == 1 and _depends_on_key_index(output, rows):
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
    zeros = [_op("Multiply", _first_key(more), constant_node(np.float32(0)).output(0))] * (each % 2)
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


def _first_key(x: Output) -> Output:
    return _op("Slice", x, *(np.array([n]) for n in (0, 1, 1, 3)))


def _by_mask_alone(mask: Output) -> list[Output]:
    """The outputs that the mask is computed from and that depend on `attention_mask` alone, largest subgraph
    first."""
    order = sorted(before(mask), key=lambda x: len(before(x)), reverse=True)
    outputs = []
    for output in order:
        ends = [x._node for x in before(output) if not x._node._inputs]
        inputs = [node for node in ends if not is_a(node, "Constant")]
        if inputs and all("attention_mask" in node._tensors[0]._names for node in inputs):
            outputs.append(output)
    return outputs


def _depends_on_key_index(output: Output, rows: dict[int, np.ndarray]) -> bool:
    """True if the output is these rows, and each is the start of the longest: only key indices count."""
    longest = rows[max(rows)]
    for past, row in rows.items():
        value = Probe(past).try_values([output])
        if value is None or not np.array_equal(value[0], row[None, :, None]):
            return False
        if not np.array_equal(row, longest[:, : past + 1]):
            return False
    return True


#: Keys for which a bias is computed, and elements that a head gets more: an even number, for 4 bits.
KEYS, MORE = 6, 2


def score_bias(mask: Output, cache: Node) -> Output | None:
    """The output before the mask with a bias for each row of `cache`, a Concat [batch, heads, tokens, size].
    Its shape is [batch, heads, tokens] or [batch, heads, 1, tokens]. None if there is none."""
    dependents = _dependents(cache.output(0), elements=True)
    if mask not in dependents:
        return None
    shape = cache._tensors[0]._type.shape
    if shape is None or [isinstance(d, int) for d in shape] != [False, True, False, True]:
        return None
    probe = Probe(KEYS - 1)
    values = np.random.default_rng(0).standard_normal((1, shape[1], KEYS, shape[3])).astype(np.float32)
    sources = set(before(mask))
    for output in reversed(dependents):
        if output in sources and _is_row(output, shape[1]) and _is_by_key(probe, output, cache, values):
            return output
    return None


def bias_of(bias: Output, cache: Node, value: Output) -> Output:
    """The bias of new keys, [batch, heads, tokens, 1], by their values [batch, heads, tokens, size]."""
    inside = set(_dependents(cache.output(0), elements=False)) & set(before(bias))
    result = copy_subgraph(bias, inside, {cache.output(0): value})
    heads = cache._tensors[0]._type.shape[1]
    of = result._tensor._type.shape
    column = _op("Reshape", result, np.array([0, of[1], -1, 1], np.int64), special_zero=True)
    if of[1] != heads:
        column = _op("Broadcast", column, np.array([1, heads, 1, 1], np.int64), mode="bidirectional")
    return column


def with_bias(x: Output, bias: Output) -> Output:
    """Rows of heads [..., heads, size] with the bias [..., heads, 1], and zeros, after them."""
    zeros = [_op("Multiply", bias, constant_node(np.float32(0)).output(0))] * (MORE - 1)
    return _op("Concat", x, bias, *zeros, axis=3)


def with_factor(query: Output, scale: Output) -> Output:
    """Queries [..., heads, size] with the number by which a bias is multiplied, and zeros."""
    ends = np.zeros(MORE, np.float32)
    ends[0] = 1
    row = _op("Divide", constant_node(ends.reshape(1, 1, 1, MORE)).output(0), scale)
    lead = _op("Slice", _op("ShapeOf", query, output_type="i64"), *(np.array([n]) for n in (0, 3, 1)))
    more = _op("Broadcast", row, _op("Concat", lead, np.array([MORE]), axis=0), mode="bidirectional")
    return _op("Concat", query, more, axis=3)


def _dependents(output: Output, elements: bool) -> list[Output]:
    """The outputs computed from an output, nearest first; `elements`: without those of its shape alone."""
    outputs = [output]
    visited = {output}
    for source in outputs:
        for target in source.get_target_inputs():
            user = target.get_node()
            if user._op.role in (("shape", "assign") if elements else ("assign",)):
                continue
            fresh = [x for x in user.outputs() if x not in visited]
            visited.update(fresh)
            outputs += fresh
    return outputs


def _is_row(output: Output, heads: int) -> bool:
    """Whether the output may have one number per head and key."""
    shape = list(output._tensor._type.shape or ())
    fits = shape[1:-1] in ([heads], [heads, 1], [1], [1, 1])
    return fits and not isinstance(shape[0], int) and not isinstance(shape[-1], int)


def _is_by_key(probe: Probe, output: Output, cache: Node, values: np.ndarray) -> bool:
    """Whether the numbers of a key depend on its own value only."""
    keys = [0, 3, 4]
    result = [probe.try_values([output], {cache.output(0): v}) for v in (values, values[:, :, keys])]
    if result[0] is None or result[1] is None:
        return False
    full, selected = result[0][0], result[1][0]
    return (
        full.shape[-1] == KEYS
        and np.array_equal(full[..., keys].shape, selected.shape)
        and bool(np.allclose(full[..., keys], selected, rtol=1e-5, atol=1e-6))
    )


def adds_bias(probe: Probe, mask: Output, bias: Output, hidden: float) -> bool:
    """Whether the mask of the last query equals the bias for all visible keys."""
    shape = probe.value(bias).shape
    random = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    none, some = (
        probe.values([mask], {bias: numbers})[0][0, :, -1] for numbers in (np.zeros_like(random), random)
    )
    rows = random.reshape(shape[1], shape[-1])
    if none.shape[0] % len(rows):
        return False
    added = np.where(none < hidden, 0, some - none)
    expected = np.where(none < hidden, 0, np.repeat(rows, none.shape[0] // len(rows), 0))
    return bool(np.allclose(added, expected, atol=1e-5)) and bool((some[none < hidden] < hidden).all())
