"""Concrete types: shape inference with all input shapes given, and values that follow from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.errors import ModelError, OvjitError
from ovjit.graph.graph import Graph, Node, Value
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import is_static

#: Values of at most this many elements are worked out while planning.
SMALL = 4096


def concrete_types(graph: Graph, shapes: Sequence[tuple[int, ...]]) -> dict[Value, TensorType]:
    """The type of every value for these input shapes, with its value where it depends on shapes only.

    A value whose shape depends on data has a shape with open dimensions. Raises ModelError naming the node
    that does not accept its inputs.
    """
    types: dict[Value, TensorType] = {}
    for value, shape in zip(graph.inputs, shapes, strict=True):
        types[value] = TensorType(value.dtype, shape)
    static = all(is_static(v.shape) for v in graph.inputs)
    for node in graph.nodes:
        if node.op.name == "Parameter":
            continue
        if node.op.name == "Constant" or (static and all(is_static(v.shape) for v in node.outputs)):
            types.update((v, v.type) for v in node.outputs)
            if node.op.name == "Constant" or any(v.type.value is not None for v in node.outputs):
                continue
            if not all(types[v].value is not None for v in node.inputs):
                continue
        types.update(zip(node.outputs, _infer(node, [types[v] for v in node.inputs]), strict=True))
    return types


def _infer(node: Node, inputs: list[TensorType]) -> list[TensorType]:
    try:
        outputs = node.op.infer_types(inputs, node.attrs)
        if all(o.value is not None for o in outputs) or not _computable(node, inputs, outputs):
            return list(outputs)
        values = node.op.evaluate([t.value for t in inputs], node.attrs)  # type: ignore[misc]
    except OvjitError as error:
        raise ModelError(f"node {node.name!r} ({node.op.name}): {error}") from error
    return [TensorType(t.dtype, v.shape, v) for t, v in zip(outputs, values, strict=True)]


def _computable(node: Node, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> bool:
    """True when all inputs are known and small, and so is what comes out."""
    if node.op.ref is None or not inputs or node.op.stateful:
        return False
    if any(t.value is None or t.value.size > SMALL for t in inputs):
        return False
    return all(not is_static(t.shape) or int(np.prod([*t.shape, 1], dtype=object)) <= SMALL for t in outputs)
