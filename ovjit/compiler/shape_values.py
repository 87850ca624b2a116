"""Concrete types: shape inference with all input shapes given, and values that follow from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence

from ovjit.graph.bodies import infer_values
from ovjit.graph.graph import Graph, Value
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import is_static


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
        types.update(zip(node.outputs, infer_values(node, [types[v] for v in node.inputs]), strict=True))
    return types
