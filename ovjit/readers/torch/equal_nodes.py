"""Nodes that compute the same are one: OpenVINO's `convert_model` does so, too."""

from __future__ import annotations

from collections.abc import Hashable

from ovjit.api.model.boundary import Constant, Result
from ovjit.api.model.custom import Op
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.rewrite.merging import hashable

#: Larger constants are equal only if they are one node.
MOST_BYTES = 256


def merge_equal(model: Model) -> None:
    """Let readers of a node take an earlier one of the same operation, inputs and attributes.

    Nodes with a state, a body or another effect stay, and so do those of results, which have names.
    """
    first: dict[Hashable, Node] = {}
    for node in model.get_ordered_ops():
        key = _key(node)
        if key is None:
            continue
        earlier = first.setdefault(key, node)
        if earlier is not node and not _is_result(node):
            for index, output in enumerate(node.outputs()):
                output.replace(Output._of(earlier, index))


def _key(node: Node) -> Hashable:
    """What equal nodes have in common. None for nodes that stay."""
    if isinstance(node, (Op, Constant)) or not node._inputs or not node._tensors or not node._op.may_fold:
        return None
    attributes = frozenset((name, hashable(value)) for name, value in node._attrs.items())
    return node._op, attributes, tuple(map(_source, node._inputs))


def _source(value: Output) -> Hashable:
    """What tells an input from others."""
    node = value._node
    if not isinstance(node, Constant) or node.value.nbytes > MOST_BYTES or node.value.dtype.hasobject:
        return node, value._index
    return node.get_element_type().get_type_name(), node.value.shape, node.value.tobytes()


def _is_result(node: Node) -> bool:
    targets = (target for output in node.outputs() for target in output.get_target_inputs())
    return any(isinstance(target.get_node(), Result) for target in targets)
