"""Merges the equal nodes of a Model, as OpenVINO does after reading and preprocessing."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np

from ovjit.api.model.boundary import Constant
from ovjit.api.model.custom import Op
from ovjit.api.model.model import Model
from ovjit.api.model.model_rules import ModelNode, ModelUses
from ovjit.api.model.node import Node, Output
from ovjit.rewrite.merging import key_of

#: Larger constants are compared where all else is equal, and some of their elements are.
MOST_BYTES = 256
#: How many elements of a large constant are looked at first.
SOME = 16


def merge_equal_nodes(model: Model) -> None:
    """Let readers of a node take another one of the same operation, inputs and attributes.

    Nodes with a state, a body or another effect stay. Of nodes that Results read, each keeps its name.
    """
    uses = ModelUses(model)
    nodes_by_key: dict[Hashable, list[Node]] = {}
    for node in uses.nodes:
        key = None if isinstance(node, Op) else key_of(ModelNode(node), tuple(map(_source, node._inputs)))
        if key is None:
            continue
        others = nodes_by_key.setdefault(key, [])
        for i, other in enumerate(others):
            if not _have_equal_constants(other, node):
                continue
            remaining, duplicate = (node, other) if uses.is_returned(node) else (other, node)
            if uses.is_returned(duplicate):
                continue  # both names are the user's
            for index in range(len(remaining._tensors)):
                Output._of(duplicate, index).replace(Output._of(remaining, index))
            others[i] = remaining
            break
        else:
            others.append(node)


def _have_equal_constants(one: Node, other: Node) -> bool:
    return all(
        a is b or np.array_equal(a.value.reshape(-1).view(np.uint8), b.value.reshape(-1).view(np.uint8))
        for a, b in zip(_large(one), _large(other), strict=True)
    )


def _large(node: Node) -> Iterator[Constant]:
    """Constants whose key has a few of their elements."""
    for value in node._inputs:
        constant = value._node
        if isinstance(constant, Constant) and constant.value.nbytes > MOST_BYTES:
            yield constant


def _source(value: Output) -> Hashable:
    """A key of an input: its node and output index, or a constant's type, shape and elements.

    Of large constants, the key has only some elements.
    """
    node = value._node
    if not isinstance(node, Constant) or node.value.dtype.hasobject:
        return node, value._index
    elements = node.value
    if elements.nbytes > MOST_BYTES:
        elements = elements.reshape(-1)[:: max(1, elements.size // SOME)]
    return value._tensor._type.dtype, value._tensor._type.shape, elements.tobytes()
