"""Replaces loops of which all inputs are constants by their results.

    Loop(constants; body) -> constants

Exporters write such loops for tables and masks. What would take long in NumPy is left to the compiled body.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ovjit.errors import OvjitError
from ovjit.graph.graph import Builder, Graph, Node, Value
from ovjit.graph.interp import evaluate_node
from ovjit.graph.shapes import bounds
from ovjit.rewrite.pattern import operation
from ovjit.rewrite.rules import rule
from ovjit_ops.control.ends import ports_of

#: The nodes that a loop may evaluate at most, the elements of each, and the elements of its results.
MOST_NODES, MOST_ELEMENTS, MOST_RESULTS = 5_000, 1 << 14, 1 << 22


def _has_constants(node: Node, inputs: Sequence[Value]) -> bool:
    return all(v.node.op.role == "constant" for v in inputs)


@rule(operation(lambda record: record.name in ("Loop", "TensorIterator"))(...), quick=_has_constants)
def fold_constant_loop(b: Builder, node: Node) -> Sequence[Value] | None:
    """Loop(constants) -> constants     if it ends, and has few iterations of few small nodes"""
    arrays = [a for a in (v.constant for v in node.inputs) if a is not None]
    if len(arrays) < len(node.inputs):
        return None
    if node.op.name == "TensorIterator":
        count = ports_of(node.attrs, len(arrays)).slice_iterations([a.shape for a in arrays]) or 1
    else:
        count = int(arrays[0].reshape(-1)[0]) if arrays[0].size == 1 else -1
    if count < 0 or count * _count_evaluations(node.attrs["body"]) > MOST_NODES:
        return None
    values = [v for v in (*node.inputs, *node.outputs) if v.dtype != "string"]
    if len(values) < len(node.inputs) + len(node.outputs) or not _is_small(node.outputs, MOST_RESULTS):
        return None
    try:
        results = evaluate_node(node, arrays)
    except OvjitError:
        return None  # the inference raises it
    return [b.constant(x, v.dtype, name=node.name) for x, v in zip(results, node.outputs, strict=True)]


def _count_evaluations(body: Graph) -> float:
    """The nodes that an iteration evaluates; infinite if it has an effect, or a node that is large or runs a
    body."""
    count = 0
    for node in body.nodes:
        if node.op.role in ("parameter", "constant", "result"):
            continue
        if not node.op.may_fold or not _is_small(node.outputs, MOST_ELEMENTS):
            return float("inf")
        count += 1
    return max(count, 1)


def _is_small(values: Sequence[Value], limit: int) -> bool:
    """Whether none can have more than `limit` elements."""
    return all(_most_elements(v) <= limit for v in values)


def _most_elements(value: Value) -> float:
    if value.shape is None:
        return math.inf
    extents = [bounds(d)[1] for d in value.shape]
    return math.prod([math.inf if e is None else e for e in extents])
