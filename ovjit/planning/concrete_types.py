"""Concrete types: shape inference for given input shapes, with the values that follow from shapes alone."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from itertools import repeat
from types import MappingProxyType
from typing import Any

import numpy as np

from ovjit.errors import ModelError
from ovjit.graph import dtypes
from ovjit.graph.bodies import infer_values
from ovjit.graph.graph import Graph, Node, Replaced, Value
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import check_shapes, is_static
from ovjit.graph.traced import identity

NO_TWINS: Mapping[Node, Node] = MappingProxyType({})


def concrete_types(
    graph: Graph, shapes: Sequence[tuple[int, ...]], twins: Mapping[Node, Node] = NO_TWINS
) -> dict[Value, TensorType]:
    """The type of every value for these input shapes, with its elements if they depend on shapes only.
    `twins`: node -> an equal node of another layer, whose types it may take over.

    A shape that depends on data has dynamic dimensions. Raises ModelError, with the name of the node that
    does not accept its inputs.
    """
    check_shapes(graph.inputs, shapes)
    types: dict[Value, TensorType] = {}
    for value, shape in zip(graph.inputs, shapes, strict=True):
        types[value] = _with_nothing(TensorType(value.dtype, shape))
    alike = _Alike()
    try:
        _infer_nodes(graph, types, twins, alike)
    except ModelError:
        _check_replaced(graph, types, alike)  # prefer the error of the model's own node, before rewrites
        raise
    _check_replaced(graph, types, alike)
    return types


def _infer_nodes(
    graph: Graph, types: dict[Value, TensorType], twins: Mapping[Node, Node], alike: _Alike
) -> None:
    """Add the types of all nodes' outputs to `types`, which has those of the inputs."""
    static = all(is_static(v.shape) for v in graph.inputs)
    for node in graph.nodes:
        if node.op.role == "parameter":
            continue
        if node.op.role == "constant" or (static and all(is_static(v.shape) for v in node.outputs)):
            types.update((v, v.type) for v in node.outputs)
            if node.op.role == "constant" or any(v.type.value is not None for v in node.outputs):
                continue
            if not all(types[v].value is not None for v in node.inputs):
                continue
        twin = twins.get(node)
        if twin is not None and all(map(_read_alike, node.inputs, twin.inputs, repeat(types))):
            types.update((v, types[same]) for v, same in zip(node.outputs, twin.outputs, strict=True))
            continue
        types.update(zip(node.outputs, alike.infer(node, [types[v] for v in node.inputs]), strict=True))


def _check_replaced(graph: Graph, types: Mapping[Value, TensorType], alike: _Alike) -> None:
    """Raise ModelError if a replaced node does not accept its inputs. Nodes with unknown inputs are
    skipped."""
    result: dict[Value, TensorType] = {}
    for node in graph.replaced:
        types_or_none = [
            v.type if v.node.op.role == "constant" else types.get(v) or result.get(v) for v in node.inputs
        ]
        inputs = [t for t in types_or_none if t is not None]
        if len(inputs) < len(types_or_none):
            continue  # after a node whose types could not be inferred
        if isinstance(node, Replaced):
            pairs = zip(inputs, node.kinds, strict=True)
            inputs = [t if t.dtype == kind else TensorType(kind, t.shape) for t, kind in pairs]
        result.update(zip(node.outputs, alike.infer(node, inputs), strict=True))


def _read_alike(value: Value, other: Value, types: Mapping[Value, TensorType]) -> bool:
    """Whether an input `value` of a node and input `other` of its twin lead to equal output types."""
    if value is other or value.node.op.role == "constant":
        return True
    other_type = types.get(other)  # None if the twin comes later in the order
    return other_type is not None and surely_same_types(types[value], other_type)


def surely_same_types(one: TensorType, other: TensorType) -> bool:
    """Whether two types, and their known values, are equal for all shapes that a trace may serve."""
    if one is other:
        return True
    key = _key_of(one)
    return key is not None and key == _key_of(other)


#: Maximum elements of constants that are compared. Larger ones are weights, and count as different.
MOST_COMPARED = 64


class _Alike:
    """Cache of inferred types by operation, attributes and input types: equal layers are inferred once. Keys
    contain ids, so the types and nodes must outlive it."""

    def __init__(self) -> None:
        self._inferred: dict[tuple, Sequence[TensorType]] = {}
        self._keys: dict[int, tuple | None] = {}  # of types, by id
        self._unread: dict[int, TensorType] = {}  # types without their values, by id

    def infer(self, node: Node, inputs: Sequence[TensorType]) -> Sequence[TensorType]:
        if node.lowered or node.op.runs_body:
            return self._infer(node, inputs)
        if any(t.value is None for t in inputs):
            inputs = [self._without_weights(t) for t in inputs]
        keys = [self._type(t) for t in inputs]
        attrs = None if None in keys else _attributes(node)
        if attrs is None:
            return self._infer(node, inputs)
        key = (node.op, attrs, *keys)
        result = self._inferred.get(key)
        if result is None:
            result = self._inferred[key] = self._infer(node, inputs)
        else:
            _check_ranks(node, result)
        return result

    def _infer(self, node: Node, inputs: Sequence[TensorType]) -> Sequence[TensorType]:
        result = infer_values(node, inputs)
        _check_ranks(node, result)
        return [_with_nothing(t) for t in result]

    def _without_weights(self, type: TensorType) -> TensorType:
        """The type without the elements of a large constant of reals. No shape depends on them, so that
        layers with different weights have equal keys."""
        value = type.value
        if value is None or value.dtype.kind != "f" or value.size <= MOST_COMPARED:
            return type
        stripped = self._unread.get(id(type))
        if stripped is None:
            stripped = self._unread[id(type)] = TensorType(type.dtype, type.shape)
        return stripped

    def _type(self, type: TensorType) -> tuple | None:
        """A key that only equal types share. None if there is no such key."""
        key = self._keys.get(id(type), ())
        if key == ():
            key = self._keys[id(type)] = _key_of(type)
        return key


def _key_of(type: TensorType) -> tuple | None:
    value, shape = type.value, type.shape
    if type.partial is not None or shape is None:
        return None
    dims = identity(shape)
    if value is None:
        return type.dtype, dims
    if value.dtype == object:
        numbers = value.reshape(-1).tolist()
        return type.dtype, dims, value.shape, identity(numbers), tuple(map(builtins.type, numbers))
    if value.size <= MOST_COMPARED:
        return type.dtype, dims, value.dtype.str, value.shape, value.tobytes()
    return type.dtype, dims, id(value)


def _attributes(node: Node) -> tuple | None:
    """The attributes as a key. None if an attribute has a type that is not compared."""
    entries: list[Any] = []
    for name, value in node.attrs.items():
        parts = value if isinstance(value, (list, tuple)) else (value,)
        if not all(part is None or type(part) in (int, float, bool, str) for part in parts):
            return None
        entries.append((name, type(value), *map(repr, parts)))
    return tuple(entries)


def _check_ranks(node: Node, types: Sequence[TensorType]) -> None:
    """Raise ModelError if an output's rank differs from the rank in the graph, on which lowerings depend. An
    example is a Squeeze of a dynamic dimension that is not 1."""
    for value, type in zip(node.outputs, types, strict=True):
        if type.rank != value.type.rank and None not in (type.rank, value.type.rank):
            raise ModelError(
                f"node {node.name!r} ({node.op.name}): its output type is {type}, expected {value.type}"
            )


def _with_nothing(type: TensorType) -> TensorType:
    """Give an integer vector of length 0 its known, empty value, as type inference does."""
    if type.rank != 1 or type.value is not None or dtypes.ELEMENT_TYPES[type.dtype].kind not in "iu":
        return type  # before a traced dimension is compared, which adds a guard
    if type.shape != (0,):
        return type
    return TensorType(type.dtype, type.shape, np.empty(0, dtypes.numpy_dtype(type.dtype)))
