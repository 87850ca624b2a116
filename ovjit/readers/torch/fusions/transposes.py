"""Transposes of the last two dimensions as flags of products, and movements after movements as one:
OpenVINO's `convert_model` does so, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.build import Constant, Node
from ovjit.build.rules import ModelNode, ModelUses, ModelValue, ModelWriter
from ovjit.graph.shapes import Dim
from ovjit.graph.symbolic import statically_known_equal
from ovjit.rewrite.pattern import constant, op, value
from ovjit.rewrite.rules import rewrite, rule

_TURNED = op.Transpose(value("x"), constant("order"))
_RESHAPED = op.Reshape(value("x"), ...).once


def input_of_transpose(value: ModelValue) -> ModelValue | None:
    """The input of a Transpose that swaps the last two dimensions; None for other values."""
    match = _TURNED.first(value)
    if match is None:
        return None
    order = match["order"].constant.tolist()
    rank = len(order)
    return match["x"] if rank > 1 and order == [*range(rank - 2), rank - 1, rank - 2] else None


def is_for_products(node: Node) -> bool:
    """True if a node transposes a matrix for MatMuls only, which have a flag for that."""
    if node.get_type_name() != "Transpose":
        return False
    order = node.input_value(1).get_node()
    if not isinstance(order, Constant) or order.value.tolist() != [1, 0]:
        return False
    return all(reader.get_node().get_type_name() == "MatMul" for reader in node.output(0).get_target_inputs())


@rule(op.Transpose(_TURNED, constant("second")))
def merge_transposes(
    w: ModelWriter, node: ModelNode, readers: ModelUses, x: ModelValue, order: ModelValue, second: ModelValue
) -> ModelValue | None:
    """Transpose(Transpose(x, order), second) -> Transpose(x, order[second]), or x if that is its own order"""
    first, then = order.constant, second.constant
    if first is None or then is None or first.size != then.size or not first.size:
        return None
    combined = first.reshape(-1)[then.reshape(-1)].astype(np.int64)
    if combined.tolist() != list(range(combined.size)):
        return w("Transpose", x, combined)
    return None if readers.is_returned(node.of) else x  # results keep a node of their own


@rule(op.Reshape(_RESHAPED, constant("pattern")))
def merge_reshapes(w: ModelWriter, node: ModelNode, x: ModelValue, pattern: ModelValue) -> ModelValue | None:
    """Reshape(Reshape(x), pattern) -> Reshape(x, pattern). A pattern that copies dimensions becomes the
    shape, of which at most one dimension is dynamic."""
    sizes, copies = pattern.constant, node.attrs["special_zero"]
    if sizes is None:
        return None
    if not (sizes == 0).any():
        return w("Reshape", x, pattern, special_zero=copies)
    shape = _as_pattern(node.output.shape)
    return None if shape is None else w("Reshape", x, shape, special_zero=False)


def _as_pattern(shape: Sequence[Dim] | None) -> np.ndarray | None:
    """A shape for Reshape. None if several dimensions are dynamic or one is empty."""
    sizes = [d if isinstance(d, int) else -1 for d in shape or ()]
    return None if shape is None or sizes.count(-1) > 1 or 0 in sizes else np.array(sizes, np.int64)


def _keeps_shape(node: ModelNode, x: ModelValue) -> bool:
    """Whether `x` surely has the shape of the node. False for constants, which keep names of their own, and
    for inputs, of which results have nodes of their own."""
    if x.shape is None or len(x.shape) != len(node.output.shape or ()):
        return False
    if x.node.op.role in ("parameter", "constant"):
        return False
    return all(statically_known_equal(a, b) for a, b in zip(x.shape, node.output.shape, strict=True))


def _keeps_dynamic_shape(node: ModelNode, x: ModelValue) -> bool:
    """`_keeps_shape`, for at most one dynamic dimension: OpenVINO keeps Reshapes with several."""
    return sum(not isinstance(d, int) for d in x.shape or ()) < 2 and _keeps_shape(node, x)


_ELEMENTWISE = op["Add Subtract Multiply Divide"]
_AS_OTHER = op.Broadcast(value("y"), op.ShapeOf(value("x"))).named("broadcast")


@rule(_ELEMENTWISE(value("x"), _AS_OTHER) | _ELEMENTWISE(_AS_OTHER, value("x")))
def absorb_broadcast(
    w: ModelWriter, node: ModelNode, x: ModelValue, y: ModelValue, broadcast: ModelValue
) -> ModelValue | None:
    """Add(x, Broadcast(y, shape of x)) -> Add(x, y)"""
    inputs = [y if value == broadcast else value for value in node.inputs]
    if x.shape is None or y.shape is None or x == y:
        return None
    return w(node.op.name, *inputs)


@rule(op.MatMul(_TURNED, ...) | op.MatMul(value("a"), _TURNED))
def absorb_transpose(w: ModelWriter, node: ModelNode) -> Sequence[ModelValue] | None:
    """MatMul(a, Transpose(b)) -> MatMul(a, b), `transpose_b` the other way; so for a"""
    inputs, attributes = list(node.inputs), dict(node.attrs)
    for i, flag in enumerate(("transpose_a", "transpose_b")):
        if (before := input_of_transpose(inputs[i])) is not None:
            inputs[i], attributes[flag] = before, not attributes[flag]
    return None if inputs == [*node.inputs] else w.b.instead(node, inputs, attributes)


@rule(op.Transpose(value("x"), constant("order")))
def reshape_ones(w: ModelWriter, x: ModelValue, order: ModelValue) -> ModelValue | None:
    """Transpose(x, order) -> Reshape(x), where it moves dimensions of 1 alone, and at most one is dynamic"""
    axes, shape = order.constant, x.shape
    if axes is None or not axes.size or shape is None:
        return None
    moved_axes = [axis for axis in axes.reshape(-1).tolist() if shape[axis] != 1]
    pattern = _as_pattern([shape[axis] for axis in axes.reshape(-1)])
    if moved_axes != sorted(moved_axes) or pattern is None:
        return None
    return w("Reshape", x, pattern, special_zero=False)


_X = value("x")
#: Lists of rules that are applied one after another.
MOVEMENTS = [
    [
        merge_transposes,
        merge_reshapes,
        rewrite(op.Broadcast(_X, ...), _X, _keeps_shape),
        rewrite(op.Reshape(_X, ...), _X, _keeps_dynamic_shape),
        absorb_broadcast,
    ],
    [absorb_transpose],
    [reshape_ones],
    [merge_reshapes],
]
