"""Runs a graph in NumPy, node by node, by the operations' references, which define their semantics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ovjit.errors import OvjitError
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Graph, Node, Value


def evaluate(
    graph: Graph,
    inputs: Sequence[np.ndarray],
    observe: Callable[[Node, Sequence[np.ndarray]], None] | None = None,
) -> list[np.ndarray]:
    """The graph's outputs for `inputs` (one array per graph input, of its dtype and a fitting shape).

    `observe(node, outputs)` is called after every node. Raises what the failing operation raises, with
    the node named.
    """
    values: dict[Value, np.ndarray] = dict(zip(graph.inputs, inputs, strict=True))
    last = {v: n for n in graph.nodes for v in n.inputs}
    keep = set(graph.outputs)
    for node in graph.nodes:
        if node.op.role == "parameter":
            continue
        try:
            outputs = evaluate_node(node, [values[v] for v in node.inputs])
        except OvjitError as error:
            raise type(error)(f"node {node.name!r} ({node.op.name}): {error}") from error
        values.update(zip(node.outputs, outputs, strict=True))
        if observe is not None:
            observe(node, outputs)
        for value in set(node.inputs):
            if last.get(value) is node and value not in keep:
                del values[value]
    return [values[v] for v in graph.outputs]


def evaluate_node(node: Node, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """A node's outputs by its operation's reference.

    In a graph of mixed types, a node may have tensors of lower types and of f32, or sums of bytes in i32. It
    computes in the wider type, and stores its outputs as they are declared. The inputs of a body have their
    own types."""
    low = {"bf16", "f16", "u8", "i8"} if node.lowered else {"bf16"}
    here = {value.dtype for value in (*node.inputs, *node.outputs)}
    full, low = ("f32", low) if "f32" in here else ("i32", low - {"bf16", "f16"})
    if full not in here or not low & here or (node.op.runs_body and not node.lowered):
        return node.op.evaluate(inputs, node.attrs)
    pairs = zip(node.inputs, inputs, strict=True)
    widened = [x.astype(numpy_dtype(full)) if v.dtype in low else x for v, x in pairs]
    result = node.op.evaluate(widened, node.attrs)
    return [x.astype(numpy_dtype(v.dtype)) for v, x in zip(node.outputs, result, strict=True)]
