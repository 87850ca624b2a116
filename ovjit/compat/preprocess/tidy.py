"""OpenVINO's rewrites of a model after pre- and post-processing are put in.

Equal operations are merged; divisions by constants become products; scales before convolutions, and other
orders of channels, become part of the weights; constants are folded. Results stay equal, up to the rounding
of weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.api.model.boundary import Constant, constant_node
from ovjit.api.model.custom import Op
from ovjit.api.model.folding import COMPRESSED, fold, values_of
from ovjit.api.model.merge_equal_nodes import merge_equal_nodes
from ovjit.api.model.model import Model
from ovjit.api.model.model_rules import (
    ModelNode,
    ModelUses,
    ModelValue,
    ModelWriter,
    apply_rules,
    copy_rt_info,
)
from ovjit.api.model.node import Input, Node, Output, make_node
from ovjit.records import NamedTuple
from ovjit.rewrite.canonical import multiply_by_reciprocal
from ovjit.rewrite.pattern import constant, op, value
from ovjit.rewrite.rules import rule
from ovjit.rewrite.weight_scales import scale_inputs

#: Marks what scales and subtracts before a model, and what that has become part of.
NOTE = "preprocessing_0"
_HALVES = {"f16", "bf16"}


def tidy(model: Model) -> None:
    """Rewrite a valid model in place. The names of its outputs and of kept operations stay."""
    merge_equal_nodes(model)
    for rules in ([multiply_by_reciprocal], [scale_weights], [convert_before_transposing]):
        apply_rules(rules, model, names_all=False)
    fold(model, keep=_is_unfolded)
    apply_rules([reorder_weights], model, names_all=False)
    fold(model, keep=_is_unfolded)


def _is_unfolded(node: Node) -> bool:
    """True for nodes that are not folded: ShapeOf, FakeQuantize, conversions of half or quantized weights."""
    if _KEPT.fits(node._op):
        return True
    widened = _WIDENED.first(ModelNode(node).output)
    return widened is not None and (widened["x"].dtype in _HALVES or _is_scaled(node))


#: Shapes and fake quantization; small numbers that become reals.
_KEPT = op["ShapeOf FakeQuantize"](...)
_WIDENED_HALF = op.Convert(value("x").where(lambda x: x.dtype in _HALVES))
_WIDENED = op.Convert(value("x").where(lambda x: x.dtype in _HALVES or x.dtype in COMPRESSED))


def _is_scaled(node: Node) -> bool:
    """True if the node, or its difference to a zero point, is multiplied by something."""
    users = {user._op.name: user for user in node._users or ()}
    shifted = users.get("Subtract") if node._op.name == "Convert" else None
    return "Multiply" in users or (shifted is not None and _is_scaled(shifted))


def mark(output: Output) -> Output:
    """Mark the node as made by a preprocessing step."""
    output._node.get_rt_info()._set(NOTE, {})
    return output


def _number(port: Output) -> np.ndarray | None:
    return port._node.value if isinstance(port._node, Constant) else None


# -- scales -------------------------------------------------------------------------------------------------


@rule(scale_inputs.before)
def scale_weights(
    w: ModelWriter, node: ModelNode, x: ModelValue, factor: ModelValue, weights: ModelValue
) -> Any:
    """`scale_inputs`, also of weights that nodes compute -> a convolution of constant weights"""
    computed = _evaluate(weights.port._node)
    if computed is not None:
        weights = w.b.constant(computed, weights.dtype)
    return scale_inputs.after(w, node, x, factor, weights)


def _evaluate(node: Node) -> np.ndarray | None:
    """The value of a node that only constants go into, None where one of them is stored as a half."""
    values: dict[Node, list[np.ndarray]] = {}
    for inner in Model._walk_from([node]):
        if isinstance(inner, Constant):
            values[inner] = [inner.value]
            continue
        if not inner._inputs or isinstance(inner, Op) or not inner._op.may_fold:
            return None
        if _WIDENED_HALF.matches(ModelNode(inner).output):
            return None
        result = values_of(inner, [values[source._node][source._index] for source in inner._inputs])
        if result is None:
            return None
        values[inner] = [*result]
    return values[node][0]


# -- transposes and the order of channels -------------------------------------------------------------------


@rule(op.Convert(op.Transpose(value("x"), constant("order")).named("transposed").once))
def convert_before_transposing(
    w: ModelWriter, node: ModelNode, x: ModelValue, order: ModelValue, transposed: ModelValue
) -> Any:
    """Convert(Transpose(x)) -> Transpose(Convert(x))"""
    converted = w.b.add(node.op, [x], node.attrs).output
    return w.b.add(transposed.node.op, [converted, order], transposed.node.attrs).output


class _Reorder(NamedTuple):
    """A constant whose elements along `axis` follow an order of channels."""

    target: Input
    axis: int


@rule(op.Gather(value("x"), constant("order"), constant("axis"), batch_dims=lambda n: not n))
def reorder_weights(
    node: ModelNode, x: ModelValue, order: ModelValue, axis: ModelValue, readers: ModelUses
) -> ModelValue | None:
    """Convolution(f(Gather(x, another order of channels)), w) -> Convolution(f'(x), w in that order)"""
    numbers, axis_value, shape = order.constant, axis.constant, x.shape
    if numbers is None or axis_value is None:
        return None
    if shape is None or numbers.ndim != 1 or axis_value.size != 1:
        return None
    at = int(axis_value.reshape(-1)[0]) % max(len(shape), 1)
    if shape[at] != numbers.size or sorted(numbers.tolist()) != [*range(numbers.size)]:
        return None
    reorders = _find_reorders(readers, node.of, at, numbers.size)
    if reorders is None:
        return None
    back = constant_node(np.argsort(numbers), "i64").output(0)
    for target, along in dict.fromkeys(reorders):
        source = target.get_source_output()
        result = make_node("Gather", [source, back, constant_node([along]).output(0)], {}, opset=8)
        copy_rt_info(result, node.of, source._node)
        target._node._connect(target._index, result.output(0))
    return x


_ARITHMETIC = {"Add", "Subtract", "Multiply", "Divide", "Power", "Maximum", "Minimum"}


def _find_reorders(users: ModelUses, node: Node, axis: int, length: int) -> list[_Reorder] | None:
    """The nodes that can absorb a channel order of a node's output; None unless all its consumers are
    convolutions."""
    reorders: list[_Reorder] = []
    pending = [(node, axis)]
    convolutions = 0
    while pending:
        node, axis = pending.pop()
        targets = users.inputs_of(node)
        if not targets:
            return None
        for target in targets:
            user, name, index = target._node, target._node._op.name, target._index
            if name == "Convolution" and index == 0 and axis == 1:
                absorbers = _in_constants(user, 1, 1, length)
                convolutions += 1
            else:
                output_axis, absorbers = _find_output_axis(user, name, index, axis), []
                if output_axis is None:
                    return None
                pending.append((user, output_axis))
                if name in _ARITHMETIC or name == "FakeQuantize":
                    rank = len(user._tensors[0]._type.shape or ())
                    absorbers = _in_operands(user, axis - rank, length, index)
            if absorbers is None:
                return None
            reorders += absorbers
    return reorders if convolutions else None


def _find_output_axis(user: Node, name: str, index: int, axis: int) -> int | None:
    """The output axis with the order of `axis` of input `index`; None if the node does not keep the order."""
    others = list(user._inputs)
    del others[index]
    if name in _ARITHMETIC or (name == "FakeQuantize" and index == 0):
        ranks = {len(t._type.shape or ()) for t in (user._tensors[0], user._inputs[index]._tensor)}
        return axis if len(ranks) == 1 and all(isinstance(o._node, Constant) for o in others) else None
    if name == "Transpose" and index == 0 and _number(others[0]) is not None:
        return [int(i) for i in others[0]._node.value].index(axis)
    if name == "Pad" and index == 0:
        sizes = [_number(other) for other in others[:2]]
        return None if any(size is None or size[axis] for size in sizes) else axis
    return axis if user._op.scalar is not None and not others else None


def _in_operands(node: Node, axis: int, length: int, without: int | None = None) -> list[_Reorder] | None:
    """The constants that feed the inputs of an elementwise operation, except input `without`, as in
    `_in_constants`. `axis` is negative."""
    reorders: list[_Reorder] = []
    for i in range(len(node._inputs)):
        absorbers = [] if i == without else _in_constants(node, i, axis, length)
        if absorbers is None:
            return None
        reorders += absorbers
    return reorders


def _in_constants(node: Node, index: int, axis: int, length: int) -> list[_Reorder] | None:
    """The constants whose reordering along `axis` (negative: from the end) has the effect of reordering the
    input. [] if no element moves; None if something other than constants and elementwise nodes feeds it."""
    source = node._inputs[index]
    shape = source._tensor._type.shape
    if shape is None:
        return None
    if axis < -len(shape) or shape[axis] == 1 != length:
        return []  # the same for all
    if shape[axis] != length:
        return None
    if isinstance(source._node, Constant):
        return [_Reorder(Input._of(node, index), axis % len(shape))]
    name, producer = source._node._op.name, source._node
    if name not in ("Convert", "FakeQuantize", "Add", "Subtract", "Multiply", "Divide"):
        return None
    return _in_operands(producer, axis if axis < 0 else axis - len(shape), length)
