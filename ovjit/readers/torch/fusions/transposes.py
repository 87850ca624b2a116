"""Transposes of the last two dimensions as flags of products, and movements behind movements as one:
OpenVINO's `convert_model` does so, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.api.model.boundary import Constant, Result
from ovjit.api.model.node import Node, Output
from ovjit.api.model.on_models import Seen, SeenNode, made_constant, made_node
from ovjit.graph.shapes import Dim
from ovjit.graph.symbolic import statically_known_equal
from ovjit.rewrite.pattern import constant, op, value
from ovjit.rewrite.rules import rule

_TURNED = op.Transpose(value("x"), constant("order"))
_RESHAPED = op.Reshape(value("x"), ...).once


def input_of_transpose(value: Seen) -> Seen | None:
    """The input of a Transpose of the last two dimensions."""
    match = _TURNED.first(value)
    if match is None:
        return None
    order = match["order"].constant.tolist()
    rank = len(order)
    return match["x"] if rank > 1 and order == [*range(rank - 2), rank - 1, rank - 2] else None


def is_for_products(node: Node) -> bool:
    """Whether a node turns the last two dimensions of what products alone read: they have a flag for that."""
    if node.get_type_name() != "Transpose":
        return False
    order = node.input_value(1).get_node()
    if not isinstance(order, Constant) or order.value.tolist() != [1, 0]:
        return False
    return all(reader.get_node().get_type_name() == "MatMul" for reader in node.output(0).get_target_inputs())


@rule(op.Transpose(_TURNED, constant("second")))
def merge_transposes(node: SeenNode, x: Seen, order: Seen, second: Seen) -> bool | None:
    """Transpose(Transpose(x, order), second) -> Transpose(x, order[second]), or x if that is its own order"""
    first, then = order.constant, second.constant
    if first is None or then is None or first.size != then.size or not first.size:
        return None
    combined = first.reshape(-1)[then.reshape(-1)]
    if combined.tolist() == list(range(combined.size)):
        if any(isinstance(target.get_node(), Result) for target in node.of.output(0).get_target_inputs()):
            return None  # results keep a node of their own
        result = x.port
    else:
        name = node.of.get_friendly_name()
        result = made_node("Transpose", [x.port, made_constant(combined, "i64", f"{name}/Constant")], name)
    node.output.port.replace(result)
    return True


@rule(op.Reshape(_RESHAPED, constant("pattern")))
def merge_reshapes(node: SeenNode, x: Seen, pattern: Seen) -> bool | None:
    """Reshape(Reshape(x), pattern) -> Reshape(x, pattern). A pattern that copies dimensions becomes the
    shape, of which at most one dimension is open."""
    sizes, name = pattern.constant, node.of.get_friendly_name()
    if sizes is None:
        return None
    port, zeros = pattern.port, node.attrs["special_zero"]
    if (sizes == 0).any():
        if (pattern_sizes := _as_pattern(node.output.shape)) is None:
            return None
        port, zeros = made_constant(pattern_sizes, "i64", f"{name}/Constant"), False
    node.output.port.replace(made_node("Reshape", [x.port, port], name, special_zero=zeros))
    return True


def _as_pattern(shape: Sequence[Dim] | None) -> np.ndarray | None:
    """A shape for Reshape. None where several dimensions are open or one is empty."""
    sizes = [d if isinstance(d, int) else -1 for d in shape or ()]
    return None if shape is None or sizes.count(-1) > 1 or 0 in sizes else np.array(sizes, np.int64)


@rule(op.Broadcast(value("x"), ...))
def keep_shape(node: SeenNode, x: Seen) -> bool | None:
    """Broadcast(x) -> x, where x surely has that shape."""
    return _left_out(node, x)


@rule(op.Reshape(value("x"), ...))
def keep_shape_of_reshape(node: SeenNode, x: Seen) -> bool | None:
    """Reshape(x) -> x, where x surely has that shape. OpenVINO keeps those of several open dimensions."""
    several = sum(not isinstance(d, int) for d in x.shape or ()) > 1
    return None if several else _left_out(node, x)


def _left_out(node: SeenNode, x: Seen) -> bool | None:
    """Replace a node by its input, if that surely has the same shape."""
    if x.shape is None or len(x.shape) != len(node.output.shape or ()):
        return None
    if x.port.get_node().get_type_name() in ("Parameter", "Constant"):
        return None  # constants keep names of their own, and results nodes
    if not all(statically_known_equal(a, b) for a, b in zip(x.shape, node.output.shape, strict=True)):
        return None
    node.output.port.replace(x.port)
    return True


_ELEMENTWISE = op["Add Subtract Multiply Divide"]
_AS_OTHER = op.Broadcast(value("y"), op.ShapeOf(value("x"))).named("broadcast")


@rule(_ELEMENTWISE(value("x"), _AS_OTHER) | _ELEMENTWISE(_AS_OTHER, value("x")))
def absorb_broadcast(node: SeenNode, x: Seen, y: Seen, broadcast: Seen) -> bool | None:
    """Add(x, Broadcast(y, shape of x)) -> Add(x, y)"""
    inputs = [y.port if port == broadcast.port else port for port in node.of._inputs]
    if x.shape is None or y.shape is None or x.port == y.port:
        return None
    node.output.port.replace(made_node(node.op.name, inputs, node.of.get_friendly_name()))
    return True


@rule(op.MatMul(_TURNED, ...) | op.MatMul(value("a"), _TURNED))
def absorb_transpose(node: SeenNode) -> bool | None:
    """MatMul(a, Transpose(b)) -> MatMul(a, b), `transpose_b` the other way; so for a"""
    old = node.of
    inputs, attributes = list(old._inputs), dict(old._attrs)
    for i, flag in enumerate(("transpose_a", "transpose_b")):
        if (before := input_of_transpose(node.inputs[i])) is not None:
            inputs[i], attributes[flag] = before.port, not attributes[flag]
    if inputs == list(old._inputs):
        return None
    result = Node._new(old._op, inputs, old._op.check_attributes(attributes), old.get_friendly_name())
    node.output.port.replace(Output._of(result, 0))
    return True


@rule(op.Transpose(value("x"), constant("order")))
def reshape_ones(node: SeenNode, x: Seen, order: Seen) -> bool | None:
    """Transpose(x, order) -> Reshape(x), where it moves dimensions of 1 alone, and at most one is open"""
    axes, shape = order.constant, x.shape
    if axes is None or not axes.size or shape is None:
        return None
    moved_axes = [axis for axis in axes.reshape(-1).tolist() if shape[axis] != 1]
    pattern = _as_pattern([shape[axis] for axis in axes.reshape(-1)])
    if moved_axes != sorted(moved_axes) or pattern is None:
        return None
    name = node.of.get_friendly_name()
    sizes = made_constant(pattern, "i64", f"{name}/Constant")
    node.output.port.replace(made_node("Reshape", [x.port, sizes], name, special_zero=False))
    return True


#: Lists of rules that are applied one after another.
MOVEMENTS = [
    [merge_transposes, merge_reshapes, keep_shape, keep_shape_of_reshape, absorb_broadcast],
    [absorb_transpose],
    [reshape_ones],
    [merge_reshapes],
]
