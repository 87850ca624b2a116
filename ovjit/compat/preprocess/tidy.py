"""OpenVINO's rewrites of a model after pre- and post-processing are put in.

Equal operations are merged; divisions by constants become products; scales before convolutions, and other
orders of channels, become part of the weights; constants are folded. Results stay equal, up to the rounding
of weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.api.model.boundary import Constant, Parameter, Result, constant_node
from ovjit.api.model.custom import Op
from ovjit.api.model.folding import COMPRESSED, fold, values_of
from ovjit.api.model.model import Model
from ovjit.api.model.node import Input, Node, Output, make_node
from ovjit.api.model.on_models import Seen, SeenNode, Users, apply_rules
from ovjit.api.model.subgraphs import SubGraphNode
from ovjit.graph.shapes import is_static
from ovjit.records import NamedTuple
from ovjit.rewrite.pattern import constant, op, value
from ovjit.rewrite.rules import rule

#: Marks what scales and subtracts before a model, and what that has become part of.
NOTE = "preprocessing_0"
_HALVES = {"f16", "bf16"}
_REALS = {"f32", "f16", "f64"}


def tidy(model: Model) -> None:
    """Rewrite a valid model in place. The names of its outputs and of kept operations stay."""
    _merge_equal(model)
    for rules in ([multiply_for_divide], [scale_weights], [convert_before_transposing]):
        apply_rules(rules, model)
    fold(model, keep=_is_unfolded)
    apply_rules([reorder_weights], model)
    fold(model, keep=_is_unfolded)


def _is_unfolded(node: Node) -> bool:
    """True for nodes that are not folded: ShapeOf, FakeQuantize, conversions of half or quantized weights."""
    if _KEPT.fits(node._op):
        return True
    widened = _WIDENED.first(SeenNode(node).output)
    return widened is not None and (widened["x"].dtype in _HALVES or _is_scaled(node))


#: Shapes and fake quantization; small numbers that become reals.
_KEPT = op["ShapeOf FakeQuantize"](...)
_WIDENED = op.Convert(value("x").where(lambda x: x.dtype in _HALVES or x.dtype in COMPRESSED))
_WIDENED_HALF = op.Convert(value("x").where(lambda x: x.dtype in _HALVES))


def _is_scaled(node: Node) -> bool:
    """True if the node, or its difference to a zero point, is multiplied by something."""
    users = {user._op.name: user for user in node._users or ()}
    shifted = users.get("Subtract") if node._op.name == "Convert" else None
    return "Multiply" in users or (shifted is not None and _is_scaled(shifted))


def mark(output: Output) -> Output:
    """Note that a step of preprocessing made the node."""
    output._node.get_rt_info()._set(NOTE, {})
    return output


def _take_notes(target: Any, *others: Any) -> None:
    """Copy the runtime information of other nodes or tensors, without overwriting."""
    for other in others:
        for key, note in (other._rt_info._items if other._rt_info is not None else {}).items():
            target.get_rt_info()._items.setdefault(key, note)


def _stand_in(new: Node, old: Node) -> None:
    """`new` gets the name, the notes and the consumers of `old`, both of one output: a result's layout is
    noted at the tensor that it takes."""
    new.set_friendly_name(old.get_friendly_name())
    _take_notes(new, old)
    _take_notes(new._tensors[0], old._tensors[0])
    old.output(0).replace(new.output(0))


def _number(port: Output) -> np.ndarray | None:
    return port._node.value if isinstance(port._node, Constant) else None


# -- equal operations ---------------------------------------------------------------------------------------


def _merge_equal(model: Model) -> None:
    users = Users(model)
    nodes_by_key: dict[Any, list[Node]] = {}
    for node in users.nodes:
        if isinstance(node, (Constant, Parameter, Result, Op, SubGraphNode)) or not node._inputs:
            continue
        if node._op.stateful:
            continue
        alike = nodes_by_key.setdefault(
            (node._op.name, node._op.opset, repr(node._attrs), *map(_source, node._inputs)), []
        )
        for i, other in enumerate(alike):
            if not all(map(_same, node._inputs, other._inputs)):
                continue
            ends = [any(isinstance(t._node, Result) for t in users.all_of(n)) for n in (node, other)]
            if all(ends):
                continue  # both names are the user's
            remaining, duplicate = (node, other) if ends[0] else (other, node)
            for index in range(len(remaining._tensors)):
                Output._of(duplicate, index).replace(remaining.output(index))
            alike[i] = remaining
            break
        else:
            alike.append(node)


def _source(port: Output) -> Any:
    if isinstance(port._node, Constant):
        return port._tensor._type.dtype, port._tensor._type.shape
    return port._node, port._index


def _same(one: Output, other: Output) -> bool:
    if one._node is other._node:
        return one._index == other._index
    first, second = _number(one), _number(other)
    return first is not None and second is not None and first.tobytes() == second.tobytes()


# -- divisions and scales -----------------------------------------------------------------------------------


@rule(op.Divide(value("x"), constant("c"), auto_broadcast="numpy"))
def multiply_for_divide(node: SeenNode, x: Seen, c: Seen) -> bool | None:
    """x / c -> x * (1 / c)"""
    if node.output.dtype not in ("f32", "f16") or c.constant is None:
        return None
    with np.errstate(divide="ignore"):
        inverse = constant_node(np.asarray(1 / c.constant, c.constant.dtype), node.output.dtype)
    _take_notes(inverse, node.of)
    _stand_in(make_node("Multiply", [x.port, inverse.output(0)], {}), node.of)
    return True


#: Which axes of a convolution's weights are its input channels.
_CHANNELS = {
    "Convolution": (1,),
    "GroupConvolution": (0, 2),
    "ConvolutionBackpropData": (0,),
    "GroupConvolutionBackpropData": (0, 1),
}


_SCALED = op.Multiply(value("x"), constant("factor"), auto_broadcast="numpy").named("scaled")


@rule(op[" ".join(_CHANNELS)](_SCALED.once, value("weights"), ...))
def scale_weights(node: SeenNode, x: Seen, factor: Seen, scaled: Seen, weights: Seen) -> bool | None:
    """Convolution(x * c, w) -> Convolution(x, w * c)     c is a number, or one for each channel"""
    placed = _among_weights(factor.port, x.port, weights.port, _CHANNELS[node.op.name])
    if placed is None:
        return None
    product = make_node("Multiply", [weights.port, placed.output(0)], {})
    folded = _evaluate(product)
    if folded is not None:
        product = constant_node(folded, weights.dtype)
    for result in (placed, product, node.of):
        _take_notes(result, scaled.port._node)
    node.of._connect(0, x.port)
    node.of._connect(1, product.output(0))
    return True


def _among_weights(factor: Output, data: Output, weights: Output, axes: tuple[int, ...]) -> Constant | None:
    """The factor as weights are multiplied by it; None where it is none of whole channels."""
    value, shape, kernel = _number(factor), data._tensor._type.shape, weights._tensor._type.shape
    dtype = weights._tensor._type.dtype
    if value is None or shape is None or not is_static(kernel) or factor._tensor._type.dtype != dtype:
        return None
    if dtype not in _REALS:
        return None
    if value.size == 1 and value.ndim <= len(shape):
        return factor._node if value.ndim <= 1 else constant_node(value.reshape(()), dtype)  # type: ignore
    padded = (1,) * (len(shape) - value.ndim) + value.shape
    channels = [kernel[axis] if axis in axes else 1 for axis in range(len(kernel))]
    if len(padded) != len(shape) or padded[1] != np.prod(channels) or value.size != padded[1]:
        return None
    return constant_node(value.reshape(channels), dtype)


def _evaluate(node: Node) -> np.ndarray | None:
    """The value of a node that only constants go into, None where one of them is stored as a half."""
    values: dict[Node, list[np.ndarray]] = {}
    for inner in Model._walk_from([node]):
        if isinstance(inner, Constant):
            values[inner] = [inner.value]
            continue
        if not inner._inputs or isinstance(inner, (Op, SubGraphNode)) or inner._op.stateful:
            return None
        if _WIDENED_HALF.matches(SeenNode(inner).output):
            return None
        result = values_of(inner, [values[source._node][source._index] for source in inner._inputs])
        if result is None:
            return None
        values[inner] = [*result]
    return values[node][0]


# -- transposes and the order of channels -------------------------------------------------------------------


@rule(op.Convert(op.Transpose(value("x"), constant("order")).named("transposed").once))
def convert_before_transposing(
    node: SeenNode, x: Seen, order: Seen, transposed: Seen, readers: Users
) -> bool:
    """Convert(Transpose(x)) -> Transpose(Convert(x))"""
    transpose = transposed.port._node
    converted = Node._new(node.op, [x.port], node.of._attrs)
    result = Node._new(transpose._op, [converted.output(0), order.port], transpose._attrs)
    _stand_in(result, node.of)
    readers.live |= {converted, result}
    return True


class _Reorder(NamedTuple):
    """A constant that an order of channels goes into, along an axis."""

    target: Input
    axis: int


@rule(op.Gather(value("x"), constant("order"), constant("axis"), batch_dims=lambda n: not n))
def reorder_weights(node: SeenNode, x: Seen, order: Seen, axis: Seen, readers: Users) -> bool | None:
    """Convolution(f(Gather(x, another order of channels)), w) -> Convolution(f'(x), w in that order)"""
    numbers, axis_value, shape = order.constant, axis.constant, x.shape
    if node.of not in readers.live or numbers is None or axis_value is None:
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
        _take_notes(result, node.of, source._node)
        target._node._connect(target._index, result.output(0))
    node.of.output(0).replace(x.port)
    return True


_ARITHMETIC = {"Add", "Subtract", "Multiply", "Divide", "Power", "Maximum", "Minimum"}


def _find_reorders(users: Users, node: Node, axis: int, length: int) -> list[_Reorder] | None:
    """The nodes that can absorb a channel order of a node's output; None unless all its consumers are
    convolutions."""
    reorders: list[_Reorder] = []
    pending = [(node, axis)]
    convolutions = 0
    while pending:
        node, axis = pending.pop()
        targets = users.of(node)
        if not targets:
            return None
        for target in targets:
            user, name, index = target._node, target._node._op.name, target._index
            if name == "Convolution" and index == 0 and axis == 1:
                absorbers = _in_weights(user, 1, 1, length)
                convolutions += 1
            else:
                output_axis, absorbers = _find_output_axis(user, name, index, axis), []
                if output_axis is None:
                    return None
                pending.append((user, output_axis))
                if name in _ARITHMETIC or name == "FakeQuantize":
                    absorbers = _in_operands(user, index, axis, length)
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
        return [int(i) for i in others[0]._node.value].index(axis)  # type: ignore[attr-defined]
    if name == "Pad" and index == 0:
        sizes = [_number(other) for other in others[:2]]
        return None if any(size is None or size[axis] for size in sizes) else axis
    return axis if user._op.scalar is not None and not others else None


def _in_operands(user: Node, index: int, axis: int, length: int) -> list[_Reorder] | None:
    """The constants that an elementwise operation combines with its input `index`, as in `_in_weights`."""
    rank = len(user._tensors[0]._type.shape or ())
    reorders: list[_Reorder] = []
    for i in range(len(user._inputs)):
        absorbers = [] if i == index else _in_weights(user, i, axis - rank, length)
        if absorbers is None:
            return None
        reorders += absorbers
    return reorders


def _in_weights(node: Node, index: int, axis: int, length: int) -> list[_Reorder] | None:
    """The constants behind an input that an order along an axis, which may count from the end, goes into.
    None where something else is there."""
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
    reorders: list[_Reorder] = []
    for i in range(len(producer._inputs)):
        more = _in_weights(producer, i, axis if axis < 0 else axis - len(shape), length)
        if more is None:
            return None
        reorders += more
    return reorders
