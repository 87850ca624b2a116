"""Attention that a module writes out, as one operation: OpenVINO's `convert_model` does so, too."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from ovjit.api.model.boundary import Constant
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import find_op
from ovjit.graph.shapes import Interval, surely_equal

#: A node and the index of one of its outputs.
Port = tuple[Node, int]


class Scores(NamedTuple):
    """scale q k^T + mask, where `key_is_transposed` says that `key` is k^T."""

    query: Output
    key: Output
    key_is_transposed: bool
    scale: float
    mask: Output | None


def fuse_attention(model: Model) -> None:
    """MatMul(Softmax(scale * MatMul(q, k^T) + mask), v) -> ScaledDotProductAttention(q, k, v, mask, scale)

    The scale is a number that multiplies or divides the scores. Not matched: tensors of other ranks than 3
    and 4, several masks, masks larger than the scores, and weights that another node reads. As in OpenVINO, a
    mask of open shape, which may be larger, is taken where the query is a Transpose, as that of split heads.
    """
    nodes = model.get_ordered_ops()
    readers: Counter[Port] = Counter((v._node, v._index) for node in nodes for v in node._inputs)
    for node in nodes:
        weights = node._inputs[0]._node if node._op.name == "MatMul" else None
        if weights is None or weights._op.name != "Softmax" or any(node._attrs[t] for t in _TRANSPOSED):
            continue
        rank = len(weights._tensors[0]._type.shape or ())
        last = weights._attrs["axis"] in (-1, rank - 1)
        if rank not in (3, 4) or not last or readers[weights, 0] != 1:
            continue
        found = _scores(weights._inputs[0], readers)
        if found is not None:
            _replace(node, found)


_TRANSPOSED = ("transpose_a", "transpose_b")


def _scores(value: Output, readers: Counter[Port]) -> Scores | None:
    mask, sure = None, True
    if _is(value, "Add"):
        terms = value._node._inputs
        places = [i for i in (0, 1) if _is_product(terms[i])]
        if len(places) != 1 or readers[value._node, 0] != 1:
            return None
        value, mask = terms[places[0]], terms[1 - places[0]]
        shape = value._tensor._type.shape
        other = mask._tensor._type.shape
        if shape is None or other is None or len(other) > len(shape):
            return None
        pairs = zip(reversed(other), reversed(shape), strict=False)
        fits = [a == 1 or surely_equal(a, b) for a, b in pairs]
        if not all(fit or isinstance(a, Interval) for fit, a in zip(fits, reversed(other), strict=True)):
            return None
        sure = all(fits)
    scale = 1.0
    while _is(value, "Multiply", "Divide"):
        inputs = value._node._inputs
        number = _number(inputs[1])
        if number is None or readers[value._node, 0] != 1:
            return None
        scale = scale * number if value._node._op.name == "Multiply" else scale / number
        value = inputs[0]
    node = value._node
    if node._op.name != "MatMul" or node._attrs["transpose_a"] or readers[node, 0] != 1:
        return None
    query, key = node._inputs
    if not sure and not _is(query, "Transpose"):
        return None
    turned = not node._attrs["transpose_b"]
    rank = len(query._tensor._type.shape or ())
    if rank != len(key._tensor._type.shape or ()) or rank not in (3, 4):
        return None
    if turned and _is(key, "Transpose") and readers[key._node, 0] == 1:
        order = _constant(key._node._inputs[1])
        if order is not None and order.tolist() == [*range(rank - 2), rank - 1, rank - 2]:
            key, turned = key._node._inputs[0], False
    return Scores(query, key, turned, scale, mask)


def _is(value: Output, *kinds: str) -> bool:
    return value._node._op.name in kinds


def _is_product(value: Output) -> bool:
    """Whether it is a MatMul behind any number of factors."""
    while _is(value, "Multiply", "Divide") and _number(value._node._inputs[1]) is not None:
        value = value._node._inputs[0]
    return _is(value, "MatMul")


def _constant(value: Output) -> np.ndarray | None:
    return value._node.value if isinstance(value._node, Constant) else None


def _number(value: Output) -> float | None:
    found = _constant(value)
    return float(found.reshape(-1)[0]) if found is not None and found.size == 1 else None


def _replace(node: Node, found: Scores) -> None:
    """Put one ScaledDotProductAttention in the place of the last product."""
    name = node.get_friendly_name()
    kind = node._tensors[0]._type.dtype
    key = found.key
    if found.key_is_transposed:
        rank = len(key._tensor._type.shape or ())
        swapped = np.array([*range(rank - 2), rank - 1, rank - 2])
        order = Output._of(Constant._of(swapped, "i64", None, f"{name}/Constant"), 0)
        key = Output._of(Node._new(find_op("Transpose", None), [key, order], {}, f"{name}/Transpose"), 0)
    given = [found.query, key, node._inputs[1]]
    zero, scale = (
        Output._of(Constant._of(np.array(v, numpy_dtype(kind)), kind, None, f"{name}/{part}"), 0)
        for v, part in ((0, "mask"), (found.scale, "scale"))
    )
    record = find_op("ScaledDotProductAttention", None)
    inputs = [*given, zero if found.mask is None else found.mask, scale]
    made = Node._new(record, inputs, record.check_attributes({"causal": False}), name)
    Output._of(node, 0).replace(Output._of(made, 0))
