"""Equal nodes are one: the same operation of the same inputs, with the same attributes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, copy_node, rebuild

#: Larger constants are equal only if they are one array.
MOST_BYTES = 64


def merge_equal(graph: Graph) -> Graph:
    """The graph with one node for all equal ones. Exporters repeat masks and positions for each layer. Nodes
    with a state and nodes that run bodies stay."""
    made: dict[Hashable, Sequence[Value]] = {}
    names: dict[Hashable, int] = {}  # what stands for an input in keys, numbered

    def number(value: Value) -> int:
        return names.setdefault(_constant(value) or value, len(names))

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        key = None
        if node.op.may_fold and node.op.role in ("", "shape") and inputs:
            attributes = tuple(map(_hashable, node.attrs.values()))
            kinds = tuple((v.dtype, v.shape) for v in node.outputs)
            key = (node.op, node.lowered, tuple(map(number, inputs)), attributes, kinds)
            if key in made:
                return made[key]
        outputs: Sequence[Value] | None = None
        if inputs is not node.inputs or b.is_taken(node.name):
            outputs = copy_node(b, node, inputs).outputs
        if key is not None:
            made[key] = node.outputs if outputs is None else outputs
        return outputs

    return rebuild(graph, visit)


def _constant(value: Value) -> Hashable:
    """What a constant's number depends on. None for other values."""
    stored = value.stored
    if isinstance(stored, np.ndarray) and stored.nbytes <= MOST_BYTES and not stored.dtype.hasobject:
        return value.dtype, stored.shape, stored.tobytes()
    return None if stored is None else (value.dtype, id(stored))


def _hashable(value: Any) -> Hashable:
    """A key of an attribute's value. Numbers are equal if they have the same type and sign, arrays and other
    objects if they are one object."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value, repr(value)
