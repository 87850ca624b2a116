"""Relaxes constant patterns of Reshape that hold the size of a batch, before a model is reshaped.

Exporters write `Reshape(x, [64, 800])` before a MatMul. The pattern fits no other batch, and an open batch
would stay 64 after it. OpenVINO's `Model.reshape` relaxes these patterns, and so does this module:

| the Reshape is                                          | pattern   | becomes                     |
|---------------------------------------------------------|-----------|-----------------------------|
| the first operand of a MatMul with weights              | [N, K]    | [-1, K]; [K, -1] transposed |
| the second operand of a MatMul with weights             | [K, N]    | [K, -1]; [-1, K] transposed |
| after MatMul(Reshape(x[B, S, K], [-1, K]), weights)    | [B, S, M] | sizes of x, M               |
| any, to one axis                                        | [N]       | [-1]                        |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ovjit.api.model.boundary import Constant, Parameter
from ovjit.api.model.model_parts import ModelParts
from ovjit.api.model.node import Node, Output
from ovjit.graph.op import find_op
from ovjit.graph.shapes import Shape
from ovjit.rewrite.pattern import op

#: A node whose input was replaced: the node, the index of the input, the value that it was before.
Change = tuple[Node, int, Output]

_MATMUL, _RESHAPE = op.MatMul(...), op.Reshape(...)


def relax_patterns(nodes: Iterable[Node]) -> list[Change]:
    """Gives Reshapes among `nodes` patterns that fit other batches; results for the sizes that the model has
    stay. Returns the changes."""
    changes = []
    for node in nodes:
        for reshape, pattern, source in _find_relaxed(node):
            if source is not None or _pattern(reshape) != pattern:
                changes.append((reshape, 1, reshape._inputs[1]))
                reshape._connect(1, make_sizes(source, [0, 1] if source is not None else [], pattern))
    return changes


def _find_relaxed(node: Node) -> Iterator[tuple[Node, list[int], Output | None]]:
    """Yields (Reshape, new pattern, the value whose first two sizes stand before it)."""
    if _MATMUL.fits(node._op):
        transposed = [bool(node._attrs[key]) for key in ("transpose_a", "transpose_b")]
        for index in (0, 1):
            reshape, weights = node._inputs[index]._node, node._inputs[1 - index]
            if len(_pattern(reshape)) == 2 and _is_weights(weights):
                depth = _shape(weights)[0 if transposed[1 - index] == (index == 1) else 1]
                if type(depth) is int and depth > 0:
                    yield reshape, [-1, depth] if transposed[index] == (index == 1) else [depth, -1], None
    elif pattern := _pattern(node):
        if len(pattern) == 1:
            yield node, [-1], None
        elif len(pattern) == 3 and (source := _find_flat_source(node._inputs[0]._node)) is not None:
            if list(_shape(source))[:2] == pattern[:2] and pattern[2] > 0:
                yield node, pattern[2:], source


def make_sizes(source: Output | None, axes: list[int], sizes: list[int]) -> Output:
    """The sizes of `source` along `axes`, then the constants `sizes`, as i64. No source: `axes` is empty."""
    constant = make_constant(sizes)
    if source is None:
        return constant
    leading = make_node(
        "Gather", make_node("ShapeOf", source, output_type="i64"), make_constant(axes), make_constant(0)
    )
    return make_node("Concat", leading, constant, axis=0) if sizes else leading


def make_constant(values: Any) -> Output:
    """A constant of i64."""
    return Constant._of(np.array(values, np.int64), "i64").output(0)


def make_node(name: str, *inputs: Output, **attributes: Any) -> Output:
    """The output of a new node."""
    record = find_op(name)
    return Node._new(record, inputs, record.check_attributes(attributes), None).output(0)


def _find_flat_source(product: Node) -> Output | None:
    """x of MatMul(Reshape(x[B, S, K], [-1, K]), weights); None for another node."""
    if not _MATMUL.fits(product._op) or not _is_weights(product._inputs[1]):
        return None
    reshape = product._inputs[0]._node
    source = reshape._inputs[0] if _pattern(reshape)[:1] == [-1] else None
    return source if source is not None and len(_shape(source)) == 3 else None


def _pattern(node: Node) -> list[int]:
    """The constant pattern of a Reshape of a computed value; [] for other nodes."""
    if not _RESHAPE.fits(node._op) or isinstance(node._inputs[0]._node, Constant):
        return []
    constant = node._inputs[1]._node
    return list(constant.value.tolist()) if isinstance(constant, Constant) else []


def _shape(value: Output) -> Shape:
    return value._tensor._type.shape or ()


def _is_weights(value: Output) -> bool:
    """True for a matrix that no input and no state has a part in."""
    nodes = ModelParts._walk_from([value._node])
    varying = any(isinstance(node, Parameter) or node._op.role == "read" for node in nodes)
    return len(_shape(value)) == 2 and not varying
