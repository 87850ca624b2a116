"""Models of f16 are computed in f32, as OpenVINO does. Results are rounded at outputs and at f16 storage.

    Add(x: f16, y: f16)                   -> Convert(Add(Convert(x, f32), Convert(y, f32)), f16)
    Convert(Convert(x: f32, f16), f32)    -> x
    Add(Transpose(x: f16), y: f32)        -> Add(Transpose(Convert(x, f32)), y)

Otherwise conversions would break the patterns of other passes (attention, normalizations, rotations), and
each result would be rounded before the next operation. Operations that only move elements stay in f16 if
their input is f16. Values that depend on constants only are left to folding, or to the passes for compressed
weights.

The pass is a single walk and not a set of rules: the rewrite of a node depends on the history of its inputs,
such as the f32 value from which an f16 was rounded.
"""

from __future__ import annotations

import numpy as np

from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, rebuild
from ovjit.rewrite.conversions import converts
from ovjit.rewrite.low_precision import MOVES, part_of
from ovjit.rewrite.pattern import op

#: Constants with fewer elements are converted here, since other passes read their elements.
FEW = 1 << 12
_ROUND = op.Round(...)
_SAME = op.Identity(...)
#: Reads the bits of f16.
_BITS = op.BitCast(...)


class _Wide(dict[Value, Value]):
    """f16 value of the new graph -> the same value in f32, unrounded or exact. `moved`: results of moves, for
    which an f32 move is added so that patterns of f32 match it."""

    def __init__(self) -> None:
        self.moved: dict[Value, tuple[Node, tuple[Value, ...]]] = {}

    def of(self, b: Builder, value: Value) -> Value:
        if value.dtype != "f16":
            return value
        if value not in self:
            stored, name = value.stored_array, f"{value.node.name}/f32"
            if value in self.moved:
                node, inputs = self.moved[value]
                arguments = [self.of(b, inputs[0]), *inputs[1:]]
                self[value] = b.add(node.op, arguments, node.attrs, name=name, origins=node.origins).output
            elif isinstance(stored, np.ndarray) and stored.size < FEW:
                self[value] = b.constant(stored.astype(np.float32), "f32", name=value.node.name)
            else:
                self[value] = b.add("Convert", [value], {"destination_type": "f32"}, name=name).output
        return self[value]


def widen_halves(graph: Graph) -> Graph:
    """The graph with arithmetic of f16 in f32."""
    if not any(v.dtype == "f16" for node in graph.nodes if node.op.role != "constant" for v in node.outputs):
        return graph
    widened = _Wide()
    computed: set[Value] = set()  # keys of `widened` that were rounded from f32
    fixed: set[Value] = set()  # values that depend on constants only
    # ONNX divides in f16 before it rounds to integers: the quotient has other ties
    ties = {node.inputs[0] for node in graph.nodes if _ROUND.fits(node.op)}

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        if fixed.issuperset(inputs):
            fixed.update(node.outputs if inputs or node.op.role == "constant" else ())
            return None
        if converts(node):
            (x,) = inputs
            if x in computed and node.output.dtype == "f32":
                return None if node.output in ties else [widened[x]]
            if x.dtype != "f32" or node.output.dtype != "f16":
                return None
            (result,) = b.instead(node, inputs)
            widened[result] = x
            computed.add(result)
            return [result]
        half_inputs = [v for v in inputs if v.dtype == "f16"]
        if not half_inputs or _needs_halves(node):
            return None
        if _SAME.fits(node.op):
            return list(inputs)  # with the bits of its NaN
        if part_of(node) == "carry" and not all(v in computed or v in fixed for v in half_inputs):
            if not MOVES.fits(node.op):
                return None
            (half,) = b.instead(node, inputs)
            widened.moved[half] = node, inputs
            return [half]
        arguments = [widened.of(b, v) for v in inputs]
        outputs = []
        results = b.add(node.op, arguments, node.attrs, name=node.name, origins=node.origins).outputs
        for old, new in zip(node.outputs, results, strict=True):
            if old.dtype != new.dtype:
                attrs = {"destination_type": "f16"}
                half = b.add("Convert", [new], attrs, name=f"{node.name}/f16", origins=node.origins).output
                widened[half] = new
                computed.add(half)
                new = half
            outputs.append(new)
        return outputs

    return rebuild(graph, visit)


def _needs_halves(node: Node) -> bool:
    """Whether an operation cannot take f32 for f16: it has a body, its bits count, or an attribute fixes its
    output type to f16."""
    fixed = any(isinstance(a, str) and a == "f16" for a in node.attrs.values()) and not _SAME.fits(node.op)
    return fixed or node.op.runs_body or node.op.role == "result" or _BITS.fits(node.op)
