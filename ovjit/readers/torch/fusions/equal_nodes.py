"""Nodes that compute the same are one: OpenVINO's `convert_model` does so, too."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np

from ovjit.api.model.boundary import Constant, Result
from ovjit.api.model.custom import Op
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.rewrite.merging import hashable

#: Larger constants are compared where all else is equal, and some of their numbers are.
MOST_BYTES = 256
#: How many numbers of a large constant are looked at first.
SOME = 16


def merge_equal(model: Model) -> None:
    """Let readers of a node take an earlier one of the same operation, inputs and attributes.

    Nodes with a state, a body or another effect stay, and so do those of results, which have names.
    """
    nodes_by_key: dict[Hashable, list[Node]] = {}
    for node in model.get_ordered_ops():
        key = _key(node)
        if key is None:
            continue
        others = nodes_by_key.setdefault(key, [])
        earlier = next((other for other in others if _have_equal_constants(other, node)), None)
        if earlier is None:
            others.append(node)
        elif not _is_result(node):
            for index, output in enumerate(node.outputs()):
                output.replace(Output._of(earlier, index))


def _have_equal_constants(one: Node, other: Node) -> bool:
    return all(
        a is b or np.array_equal(a.value.reshape(-1).view(np.uint8), b.value.reshape(-1).view(np.uint8))
        for a, b in zip(_large(one), _large(other), strict=True)
    )


def _large(node: Node) -> Iterator[Constant]:
    """Constants whose key has a few of their numbers."""
    for value in node._inputs:
        constant = value._node
        if isinstance(constant, Constant) and constant.value.nbytes > MOST_BYTES:
            yield constant


def _key(node: Node) -> Hashable:
    """Return a key that is the same for equal nodes, or None for nodes that are not merged."""
    if isinstance(node, (Op, Constant)) or not node._inputs or not node._tensors or not node._op.may_fold:
        return None
    attributes = frozenset((name, hashable(value)) for name, value in node._attrs.items())
    return node._op, attributes, tuple(map(_source, node._inputs))


def _source(value: Output) -> Hashable:
    """Return a key of an input: its node and output index, or a constant's type, shape and values.

    Of large constants, the key has only some values.
    """
    node = value._node
    if not isinstance(node, Constant) or node.value.dtype.hasobject:
        return node, value._index
    numbers = node.value
    if numbers.nbytes > MOST_BYTES:
        numbers = numbers.reshape(-1)[:: max(1, numbers.size // SOME)]
    return node.get_element_type().get_type_name(), node.value.shape, numbers.tobytes()


def _is_result(node: Node) -> bool:
    targets = (target for output in node.outputs() for target in output.get_target_inputs())
    return any(isinstance(target.get_node(), Result) for target in targets)
