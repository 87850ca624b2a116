"""Equal nodes are one: the same operation of the same inputs, with the same attributes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, copy_node, rebuild

#: Larger constants are equal only if they are one array.
MOST_BYTES = 64


def merge_equal(graph: Graph) -> Graph:
    """The graph with one node for all equal ones, such as masks that exporters repeat for each layer.

    Elementwise nodes stay, since each reader computes them in its own loop: merged, they would need a tensor.
    Their readers may be equal. Nodes with a state and nodes that run bodies stay.
    """
    result: dict[Hashable, Sequence[Value]] = {}
    equal: dict[Value, Value] = {}  # the result of an elementwise node -> that of an earlier equal one
    numbers: dict[Hashable, int] = {}

    def number(value: Value) -> int:
        return numbers.setdefault(_constant(value) or equal.get(value, value), len(numbers))

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        types = tuple((v.dtype, v.shape) for v in node.outputs)  # lowered nodes may differ in them alone
        key = key_of(node, (node.lowered, types, *map(number, inputs)))
        earlier = None if key is None else result.get(key)
        if earlier is not None and node.op.scalar is None:
            return earlier
        outputs: Sequence[Value] | None = None
        if inputs is not node.inputs or b.is_taken(node.name):
            outputs = copy_node(b, node, inputs).outputs
        results = node.outputs if outputs is None else outputs
        if earlier is not None:
            equal.update(zip(results, earlier, strict=True))
        elif key is not None:
            result[key] = results
        return outputs

    return rebuild(graph, visit)


def key_of(node: Any, inputs: Hashable) -> Hashable:
    """A key that equal nodes share, of a Graph or a Model, with a key of their inputs. None for nodes without
    inputs or with a state, body or effect."""
    if not (node.inputs and node.op.may_fold and node.op.role in ("", "shape")):
        return None
    attributes = frozenset((name, hashable(value)) for name, value in node.attrs.items())
    return node.op, attributes, inputs


def _constant(value: Value) -> Hashable:
    """A key that equal constants share: contents, or the identity of large ones. None for other values."""
    stored = value.stored
    if isinstance(stored, np.ndarray) and stored.nbytes <= MOST_BYTES and not stored.dtype.hasobject:
        return value.dtype, stored.shape, stored.tobytes()
    return None if stored is None else (value.dtype, id(stored))


def hashable(value: Any) -> Hashable:
    """A key of an attribute's value. Numbers are equal if they have the same type and sign, arrays and other
    objects if they are one object."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value, repr(value)
