"""Proves dynamic dimensions equal, by type inference with a symbol for each dimension of the inputs.

Equal bounds prove nothing: two dimensions with the same bounds may be 1 and 5 in one inference, and then
broadcast. Dimensions with the same symbolic expression are equal.
"""

from __future__ import annotations

from ovjit.errors import OvjitError
from ovjit.graph.graph import Graph, Node, Value, infer_outputs
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import Dim, is_static
from ovjit.graph.symbolic import named, statically_known_equal


class Symbols:
    """The type of each value of a graph, with a symbolic expression for each dynamic dimension."""

    def __init__(self, graph: Graph):
        self._types: dict[Value, TensorType] = {}
        for number, node in enumerate(graph.nodes):
            if all(is_static(v.shape) for v in node.outputs):
                continue  # the declared types
            for value, shape in zip(node.outputs, self._infer(node), strict=True):
                symbolic = None if shape is None else named(shape, number, value.index)
                self._types[value] = TensorType(value.dtype, symbolic, value.type.value)

    def type(self, value: Value) -> TensorType:
        return self._types.get(value, value.type)

    def same(self, a: Value, b: Value) -> bool:
        """True if both values have the same shape for all values of the dynamic dimensions."""
        first, second = self.type(a).shape, self.type(b).shape
        return (
            first is not None
            and second is not None
            and len(first) == len(second)
            and all(statically_known_equal(x, y) for x, y in zip(first, second, strict=True))
        )

    def _infer(self, node: Node) -> list[tuple[Dim, ...] | None]:
        declared = [v.shape for v in node.outputs]
        if not node.inputs:
            return declared
        try:
            types = infer_outputs(node, [self.type(v) for v in node.inputs])
        except OvjitError:
            return declared
        shapes = [t.shape for t in types]
        # a declared dimension may be static where the inferred one is not
        pairs = zip(shapes, declared, strict=True)
        if any(a is None or b is None or len(a) != len(b) for a, b in pairs):
            return declared
        return [
            tuple(d if isinstance(d, int) else s for s, d in zip(a, b, strict=True))
            for a, b in zip(shapes, declared, strict=True)
        ]
