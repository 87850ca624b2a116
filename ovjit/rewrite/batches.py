"""Large batches part by part, so that what a layer makes is in a cache when the next one reads it.

    f(x[64, ...])  ->  TensorIterator(x; body: f(x[part, ...])), whose results are concatenated

It is no rule: it replaces the whole graph. Shapes have to be static, and each image of each tensor has to
depend on the same image of the inputs alone (`Op.images`). A part is read from memory once, but weights are
read once for each part: it is done where tensors outweigh weights.
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

#: Bytes that the largest node of a part reads and writes, at most. A whole batch that needs no more stays.
MOST_BYTES = 16 << 20
#: The same, at least: a part should be worth a turn of the loop.
LEAST_BYTES = 2 << 20
#: What nodes of a part hand to one another has this many times the bytes of weights, at least, and of what
#: the graph reads and gives: that alone stays in a cache.
OUTWEIGH = 4


def in_parts(graph: Graph, context: Any) -> Graph:
    """The graph as a loop over parts of its batch, or itself where that would not be faster."""
    count = _count(graph) if context.options.batches else 0
    batches = _find_batches(graph, count) if count > 1 else None
    if batches is None:
        return graph
    part = _size(graph, batches, count)
    if not 0 < part < count:
        return graph
    try:
        body = _body(graph, batches, count, part)
    except ModelError:  # an operation does not take so few images
        return graph
    return graph if body is None else _loop(graph, body, part)


def _count(graph: Graph) -> int:
    """The images of all inputs, 0 where they differ."""
    shapes = [v.shape for v in graph.inputs]
    if not shapes or not graph.outputs or not all(is_static(s) and len(s) for s in shapes):
        return 0
    counts = {s[0] for s in shapes}
    return counts.pop() if len(counts) == 1 else 0


def _find_batches(graph: Graph, count: int) -> set[Value] | None:
    """The values of which each image depends on the same image of the inputs. All others have to be the same
    whatever the inputs are, or be read by nothing; else None."""
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
    """Whether types tell what the node makes, as of the shape of a tensor."""
    return node.op.may_fold and all(v.type.value is not None for v in node.outputs)


def _images(node: Node, batches: Collection[Value]) -> int:
    """Of how many of the node's outputs images follow from the same ones of its inputs."""
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
    """Whether images of what inputs broadcast to, of this rank, have one image of each batch and the same of
    all others."""
    return all(
        len(x.shape) == rank if batch else len(x.shape) < rank or x.shape[0] == 1
        for x, batch in zip(inputs, batched, strict=True)
    )


def _size(graph: Graph, batches: Collection[Value], count: int) -> int:
    """The images of a part: as few as outweigh the weights, if they fit a cache; 0 where there is no such
    divisor of their number."""
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
    """The graph for `part` images; None where an operation makes something else of them."""
    builder = Builder()
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        if node.op.role == "parameter":
            attrs = {**node.attrs, "shape": (part, *node.output.shape[1:])}
            made = builder.add(node.op, (), attrs, name=node.name, origins=node.origins).outputs
        elif node.op.role != "constant" and _is_known(node):
            made = tuple(builder.constant(v.type.value, v.dtype) for v in node.outputs)
        else:
            inputs = [new[v] for v in node.inputs]
            if node.output in batches and node.op.dims_input >= 0:
                _shorten(builder, node, inputs, count, part)
            same = node.output not in batches
            made = builder.copy(node, inputs, [v.type for v in node.outputs] if same else None).outputs
        for old, now in zip(node.outputs, made, strict=True):
            wanted = TensorType(old.dtype, (part, *old.shape[1:])) if old in batches else now.type
            if now.type != wanted:
                return None
            new[old] = now
    return builder.finish(new[v] for v in graph.outputs)


def _shorten(builder: Builder, node: Node, inputs: list[Value], count: int, part: int) -> None:
    """Have the input that lists the output's dimensions begin with `part` where it begins with `count`."""
    place = node.op.dims_input
    dims = node.inputs[place].type.value
    if dims is not None and dims.ndim == 1 and dims.size and dims[0] == count:
        inputs[place] = builder.constant(np.array([part, *dims[1:]], dims.dtype), node.inputs[place].dtype)


def _loop(graph: Graph, body: Graph, part: int) -> Graph:
    """A loop with this body over parts of the inputs."""
    builder = Builder()
    for value in graph.inputs:
        builder.copy(value.node, (), [value.type])
    slices = [Port(SLICED, i, i, stride=part, part_size=part) for i in range(len(graph.inputs))]
    whole = [Port(CONCAT, i, i, stride=part, part_size=part) for i in range(len(graph.outputs))]
    attrs = {"body": body, "input_ports": slices, "output_ports": whole}
    origins = dict.fromkeys(name for node in graph.nodes for name in node.origins if node.inputs)
    loop = builder.add(find_op("TensorIterator"), builder.inputs, attrs, name="batch", origins=origins)
    return builder.finish(loop.outputs)
