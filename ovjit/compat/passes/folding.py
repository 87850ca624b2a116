"""Constant folding on a Model that users edit, and types of constants changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ovjit.api.model.boundary import Constant
from ovjit.api.model.custom import Op
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.api.model.rt_info import RTMap
from ovjit.errors import OvjitError
from ovjit.graph import dtypes
from ovjit.graph.shapes import is_static

#: Constants of these types are weights that are meant to stay small.
COMPRESSED = {"u1", "u2", "u3", "u4", "u6", "u8", "i4", "i8", "nf4", "f4e2m1", "f8e4m3", "f8e5m2", "f8e8m0"}
#: No result of folding is bigger than this.
MAX_BYTES = 1 << 28


def fold(
    model: Model, keep_compressed: bool = False, keep: Callable[[Node], bool] = lambda node: False
) -> bool:
    """Put constants in the place of nodes whose inputs are constants, or that only ask for a known shape.

    Decompression of f16 weights stays; `keep_compressed` leaves that of all weights, `keep` what it is true
    of. True if anything changed.
    """
    changed = False
    for node in model.get_ordered_ops():
        if _foldable(node, keep_compressed) and not keep(node):
            values = _values(node)
            if values is not None:
                _replace(node, values)
                changed = True
    return changed


def _foldable(node: Node, keep_compressed: bool) -> bool:
    if isinstance(node, (Constant, Op)) or not node._inputs or node._op.ref is None:
        return False
    if node._op.name in ("Result", "Assign", "ReadValue") or node._op.stateful:
        return False
    if node._op.name == "ShapeOf":
        return is_static(node._inputs[0]._tensor._type.shape)
    if not all(isinstance(source._node, Constant) for source in node._inputs):
        return False
    if node._op.name == "Convert":
        if node._rt_info is not None and any(key.startswith("decompression") for key in node._rt_info._items):
            return False
        if keep_compressed and node._inputs[0]._tensor._type.dtype in COMPRESSED:
            return False
    return True


def _values(node: Node) -> tuple[np.ndarray, ...] | None:
    if node._op.name == "ShapeOf":
        dtype = dtypes.numpy_dtype(node._tensors[0]._type.dtype)
        return (np.array(node._inputs[0]._tensor._type.shape, dtype),)
    size = 0
    for tensor in node._tensors:
        if is_static(tensor._type.shape) and tensor._type.dtype != "dynamic":
            count = 1
            for d in tensor._type.shape:
                count *= d
            size += count * 8
    if size > MAX_BYTES:
        return None
    try:
        inputs = [source._node.value for source in node._inputs]  # type: ignore[attr-defined]
        return node._op.evaluate(inputs, node._graph_attrs())
    except OvjitError:
        return None  # what is wrong is said where the node runs


def _replace(node: Node, values: tuple[np.ndarray, ...]) -> None:
    for index, value in enumerate(values):
        type_ = node._tensors[index]._type
        row = dtypes.ELEMENT_TYPES.get(type_.dtype)
        packed = row is not None and row.numpy is None
        name = node.get_friendly_name() + (f".{index}" if len(values) > 1 else "")
        made = Constant._of(value, type_.dtype, tuple(type_.shape) if packed else None, name)
        if node._rt_info is not None:
            made._rt_info = RTMap(dict(node._rt_info._items))
        Output._of(node, index).replace(made.output(0))


def drop_unneeded(model: Model) -> bool:
    """Take out nodes that give back an input as it is. True if anything changed."""
    changed = False
    for node in model.get_ordered_ops():
        source = _passed_on(node)
        if source is not None:
            name = node.get_friendly_name()
            if _is_output(node) and (_is_output(source._node) or not source._node._inputs):
                continue  # both names are the user's
            node.output(0).replace(source)
            if _is_output(source._node) and len(source._node._tensors) == 1:
                source._node.set_friendly_name(name)
            changed = True
    return changed


def _is_output(node: Node) -> bool:
    return any(user._op.name == "Result" for user in node._users or ())


#: Arithmetic -> the number that changes nothing, and the operands that it may be.
NEUTRAL = {"Add": (0, (0, 1)), "Multiply": (1, (0, 1)), "Subtract": (0, (1,)), "Divide": (1, (1,))}


def _passed_on(node: Node) -> Output | None:
    """The input that comes out of a node as it is, or None."""
    if not node._inputs or len(node._tensors) != 1 or isinstance(node, Op):
        return None
    if node._op.name in NEUTRAL:
        return _beside_neutral(node)
    source = node._inputs[0]
    if node._op.name == "Transpose" and source._node._op.name == "Transpose":
        first, second = _numbers(source._node._inputs[1]), _numbers(node._inputs[1])
        if first is not None and second is not None and first.size == second.size > 0:
            return source._node._inputs[0] if _rising(first[second]) else None
    return source if _is_idle(node) else None


def _beside_neutral(node: Node) -> Output | None:
    """Values that are added to a single 0, multiplied by a single 1, and so on. Constants are excluded, as
    they are weights with scales and zero points. So are values whose shape would change."""
    number, places = NEUTRAL[node._op.name]
    for place in places:
        value, other = _numbers(node._inputs[place]), node._inputs[1 - place]
        if value is None or value.size != 1 or value.reshape(-1)[0] != number:
            continue
        root = other._node._inputs[0]._node if other._node._op.name == "Convert" else other._node
        shape = other._tensor._type.shape
        if not isinstance(root, Constant) and shape is not None and value.ndim <= len(shape):
            return other
    return None


def _is_idle(node: Node) -> bool:
    name = node._op.name
    source, result = node._inputs[0]._tensor._type, node._tensors[0]._type
    if name == "Convert":
        return source.dtype == result.dtype != "dynamic"
    if name in ("Reshape", "Squeeze", "Unsqueeze", "Broadcast", "Tile"):
        return is_static(source.shape) and source.shape == result.shape
    if name == "Transpose":
        order = _numbers(node._inputs[1])
        return order is not None and order.size > 0 and _rising(order)
    if name == "Concat":
        return len(node._inputs) == 1
    if name == "Split":
        return True  # of one output
    if name == "Pad":
        sizes = [_numbers(port) for port in node._inputs[1:3]]
        return all(size is not None and not size.any() for size in sizes)
    return name == "Identity"


def _numbers(port: Output) -> np.ndarray | None:
    return port._node.value if isinstance(port._node, Constant) else None


def _rising(order: np.ndarray) -> bool:
    """Whether an order of dimensions is the one that they have."""
    return bool((order.reshape(-1) == np.arange(order.size)).all())
