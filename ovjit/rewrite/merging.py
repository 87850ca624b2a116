"""Equal nodes are one: the same operation of the same inputs, with the same attributes.

`find_equal` finds them in Graphs and in Models, whose nodes and values have the same interface. A Graph
compares large constants by identity, as each look at weights would read their file. A Model compares all
elements (`ovjit.api.model.merge_equal_nodes`), as OpenVINO does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, copy_node, rebuild

#: Larger constants of a Graph are equal only if they are one array.
MOST_BYTES = 64


def merge_equal(graph: Graph) -> Graph:
    """The graph with one node for all equal ones, such as masks that exporters repeat for each layer.

    Elementwise nodes stay, since each reader computes them in its own loop: merged, they would need a tensor.
    Their readers may be equal. Nodes with a state and nodes that run bodies stay.
    """
    equal: dict[Node, Node] = {}  # a node -> an earlier one
    results: dict[Node, Sequence[Value]] = {}

    def source(value: Value) -> Hashable:
        stored = value.stored_array
        if stored is None:
            return equal.get(value.node, value.node), value.index
        if isinstance(stored, np.ndarray) and stored.nbytes <= MOST_BYTES and not stored.dtype.hasobject:
            return value.dtype, stored.shape, stored.tobytes()
        return value.dtype, id(stored)

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        if node in equal and node.op.scalar is None:
            return results[equal[node]]
        outputs = None
        if inputs is not node.inputs or b.is_taken(node.name):
            outputs = copy_node(b, node, inputs).outputs
        results[node] = node.outputs if outputs is None else outputs
        return outputs

    find_equal(graph.nodes, source, lambda earlier, node: equal.setdefault(node, earlier))
    return rebuild(graph, visit) if equal else graph


def find_equal(
    nodes: Iterable[Any], source: Callable[[Any], Hashable], merge: Callable[[Any, Any], Any]
) -> None:
    """Call `merge(earlier, node)` for each node that equals an earlier one; it returns the node with which
    later ones are compared. `source`: a key of an input, which equal inputs share.

    Nodes without inputs or with a state, body or effect are equal to no other."""
    first: dict[Hashable, Any] = {}
    for node in nodes:
        if not (node.inputs and node.op.may_fold and node.op.role in ("", "shape")):
            continue
        attributes = frozenset((name, hashable(value)) for name, value in node.attrs.items())
        types = tuple((v.dtype, v.shape) for v in node.outputs) if node.lowered else ()
        key = node.op, attributes, types, tuple(map(source, node.inputs))
        earlier = first.setdefault(key, node)
        if earlier is not node:
            first[key] = merge(earlier, node)


def hashable(value: Any) -> Hashable:
    """A key of an attribute's value. Numbers are equal if they have the same type and sign, arrays and other
    objects if they are one object."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value, repr(value)
