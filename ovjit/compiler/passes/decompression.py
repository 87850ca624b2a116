"""Weights stored as small numbers with half-precision scales are worked out in f32, as OpenVINO does.

    Convert([Reshape] Multiply([Subtract(] Convert(integers, f16), zero: f16)], scale: f16), f32)
    -> [Reshape] Multiply([Subtract(] Convert(integers, f32), zero: f32)], scale: f32)

Taken literally the product would be rounded to f16: 5e-4 of each weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.graph.dtypes import ELEMENT_TYPES, HALVES
from ovjit.graph.graph import Builder, Graph, Node, Value, rebuild

_ARITHMETIC = frozenset(("Multiply", "Subtract"))
_MOVES = frozenset(("Reshape", "Transpose", "Squeeze", "Unsqueeze"))


def decompress_graph(graph: Graph) -> Graph:
    """The graph with all such chains in f32."""
    return rebuild(graph, _visit) if any(map(_ends_chain, graph.nodes)) else graph


def _ends_chain(node: Node) -> bool:
    """True for a conversion of a half to f32 that begins at integers, or floats of 8 or 4 bits, and constants
    alone."""
    if node.op.name != "Convert" or node.output.dtype != "f32" or node.inputs[0].dtype not in HALVES:
        return False
    stored = _stored(node.inputs[0])
    return stored is True


def _stored(value: Value) -> bool | None:
    """Whether a chain has such numbers at its beginning; None where it is no such chain."""
    node = value.node
    if node.op.name == "Constant":
        return False
    if node.op.name == "Convert" and node.inputs[0].node.op.name == "Constant":
        stored = ELEMENT_TYPES[node.inputs[0].dtype]
        return stored.kind in "iu" or stored.bits <= 8
    if node.op.name in _MOVES and all(v.constant is not None for v in node.inputs[1:]):
        return _stored(node.inputs[0])
    if node.op.name not in _ARITHMETIC or value.dtype not in HALVES:
        return None
    sides = [_stored(v) for v in node.inputs]
    return None if None in sides else any(sides)


def _visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    if not _ends_chain(node):
        return None
    out = _wide(b, node.inputs[0], node)
    b.rename(out.node, node.name)
    return [out]


def _wide(b: Builder, value: Value, end: Node) -> Value:
    """`value` of a chain, in f32."""
    node = value.node
    if value.constant is not None:
        return b.constant(value.constant.astype(np.float32))
    if node.op.name == "Convert":
        source = node.inputs[0]
        wide = [b.constant(source.constant, source.dtype)]
        attrs = {"destination_type": "f32"}
    elif node.op.name in _ARITHMETIC:
        wide, attrs = [_wide(b, v, end) for v in node.inputs], node.attrs
    else:
        wide = [_wide(b, node.inputs[0], end), *(b.constant(v.constant, v.dtype) for v in node.inputs[1:])]
        attrs = node.attrs
    return b.add(node.op, wide, attrs, name=f"{end.name}/{node.op.name}", origins=end.origins).output
