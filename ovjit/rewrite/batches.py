"""Splits large batches into parts, so that a layer's output is still in a cache when the next layer reads it.

    f(x[64, ...])  ->  TensorIterator(x; body: f(x[part, ...])), whose results are concatenated

The pass is not a rule: it replaces the whole graph. All shapes must be static, and each image of each tensor
must depend on the same image of the inputs only (`Op.images`). Weights are read once for each part, so the
pass applies only if tensors are larger than weights.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ovjit.errors import ModelError
from ovjit.graph.bodies import CONCAT, SLICED, Port
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.graph import Builder, Graph, Node, Value
from ovjit.graph.op import TensorType, find_op
from ovjit.graph.shapes import is_static

#: Maximum bytes that the largest node of a part reads and writes. A batch that needs no more is not split.
MOST_BYTES = 16 << 20
#: Minimum of these bytes, so that a part is worth an iteration of the loop.
LEAST_BYTES = 2 << 20
#: Minimum ratio of the bytes between a part's nodes to the bytes of weights. Also the minimum ratio of the
#: bytes between all nodes to those of the graph's inputs and outputs. Only the former stay in a cache.
OUTWEIGH = 4


def split_batch(graph: Graph, context: Any) -> Graph:
    """The graph as a loop over parts of its batch. The unchanged graph if that would not be faster."""
    count = _count(graph) if context.options.batches else 0
    batches = _find_batches(graph, count) if count > 1 else None
    if batches is None:
        return graph
    part = _size(graph, batches, count)
    if not 0 < part < count:
        return graph
    try:
        body = _body(graph, batches, count, part)
    except ModelError:  # an operation does not accept the smaller batch
        return graph
    return graph if body is None else _loop(graph, body, part)


def _count(graph: Graph) -> int:
    """The common number of images of all inputs; 0 if there is none."""
    shapes = [v.shape for v in graph.inputs]
    if not shapes or not graph.outputs or not all(is_static(s) and len(s) for s in shapes):
        return 0
    counts = {s[0] for s in shapes}
    return counts.pop() if len(counts) == 1 else 0


def _find_batches(graph: Graph, count: int) -> set[Value] | None:
    """The values of which each image depends on the same image of the inputs only. None unless all other
    values are independent of the inputs, or unread."""
    batches: set[Value] = set()
    unknown: set[Value] = set()
    for node in graph.nodes:
        if node.op.role == "parameter":
            batches.add(node.output)
            continue
        if not unknown.isdisjoint(node.inputs):
            return None
        if node.op.role == "constant" or _is_known(node):
            continue
        if batches.isdisjoint(node.inputs):
            if not node.op.may_fold:
                return None
            continue
        good = _images(node, batches)
        fit = [is_static(v.shape) and len(v.shape) > 0 and v.shape[0] == count for v in node.outputs]
        if not good or not all(fit[:good]):
            return None
        batches.update(node.outputs[:good])
        unknown.update(node.outputs[good:])
    return batches if batches.issuperset(graph.outputs) else None


def _is_known(node: Node) -> bool:
    """Whether all outputs are known from types, such as a tensor's shape."""
    return node.op.may_fold and all(v.type.value is not None for v in node.outputs)


def _images(node: Node, batches: Collection[Value]) -> int:
    """The number of first outputs of which each image depends on the same image of the inputs only."""
    types = [v.type for v in node.inputs]
    if not all(is_static(t.shape) for t in types) or node.op.stateful:
        return 0
    batched = [v in batches for v in node.inputs]
    if node.op.images is not None:
        good = node.op.images(types, batched, **node.attrs)
    elif node.op.scalar is not None and node.attrs.get("auto_broadcast") != "pdpd":
        good = broadcast_images(types, batched, len(node.output.shape))
    else:
        good = False
    return len(node.outputs) if good is True else min(int(good), len(node.outputs))


def broadcast_images(inputs: Sequence[TensorType], batched: Sequence[bool], rank: int) -> bool:
    """Whether each image of the broadcast result, of this rank, depends on the same image of each batched
    input, and on all of the others."""
    return all(
        len(x.shape) == rank if batch else len(x.shape) < rank or x.shape[0] == 1
        for x, batch in zip(inputs, batched, strict=True)
    )


def _size(graph: Graph, batches: Collection[Value], count: int) -> int:
    """The number of images of a part: the smallest divisor of `count` that meets the limits above. 0 if there
    is none."""
    most = weights = 0
    for node in graph.nodes:
        if node.op.role == "constant":
            weights += _bytes(node.output)
        elif node.output in batches:
            most = max(most, sum(_bytes(v) for v in {*node.inputs, *node.outputs} if v in batches))
    ends = sum(map(_bytes, {*graph.inputs, *graph.outputs}))
    handed = sum(map(_bytes, batches)) - ends
    if most <= MOST_BYTES or handed <= OUTWEIGH * ends:
        return 0
    low, high = OUTWEIGH * weights * count / handed, MOST_BYTES * count / most
    low = max(low, LEAST_BYTES * count / most)
    return next((n for n in range(1, count) if count % n == 0 and low <= n <= high), 0)


def _bytes(value: Value) -> int:
    return math.prod(value.shape) * ELEMENT_TYPES[value.dtype].bits // 8 if is_static(value.shape) else 0


def _body(graph: Graph, batches: Collection[Value], count: int, part: int) -> Graph | None:
    """The graph for `part` images. None if an output's shape is not the original one with `part` images."""
    builder = Builder()
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        if node.op.role == "parameter":
            attrs = {**node.attrs, "shape": (part, *node.output.shape[1:])}
            result = builder.add(node.op, (), attrs, name=node.name, origins=node.origins).outputs
        elif node.op.role != "constant" and _is_known(node):
            result = tuple(builder.constant(v.type.value, v.dtype) for v in node.outputs)
        else:
            inputs = [new[v] for v in node.inputs]
            if node.output in batches and node.op.dims_input >= 0:
                _set_batch_size(builder, node, inputs, count, part)
            same = node.output not in batches
            result = builder.copy(node, inputs, [v.type for v in node.outputs] if same else None).outputs
        for old, now in zip(node.outputs, result, strict=True):
            expected = TensorType(old.dtype, (part, *old.shape[1:])) if old in batches else now.type
            if now.type != expected:
                return None
            new[old] = now
    return builder.finish(new[v] for v in graph.outputs)


def _set_batch_size(builder: Builder, node: Node, inputs: list[Value], count: int, part: int) -> None:
    """In the input that lists the output's dimensions, replace a first dimension `count` by `part`."""
    index = node.op.dims_input
    dims = node.inputs[index].type.value
    if dims is not None and dims.ndim == 1 and dims.size and dims[0] == count:
        inputs[index] = builder.constant(np.array([part, *dims[1:]], dims.dtype), node.inputs[index].dtype)


def _loop(graph: Graph, body: Graph, part: int) -> Graph:
    """A graph of one TensorIterator with this body over parts of the inputs."""
    builder = Builder()
    for value in graph.inputs:
        builder.copy(value.node, (), [value.type])
    slices = [Port(SLICED, i, i, stride=part, part_size=part) for i in range(len(graph.inputs))]
    concats = [Port(CONCAT, i, i, stride=part, part_size=part) for i in range(len(graph.outputs))]
    attrs = {"body": body, "input_ports": slices, "output_ports": concats}
    origins = dict.fromkeys(name for node in graph.nodes for name in node.origins if node.inputs)
    loop = builder.add(find_op("TensorIterator"), builder.inputs, attrs, name="batch", origins=origins)
    return builder.finish(loop.outputs)
