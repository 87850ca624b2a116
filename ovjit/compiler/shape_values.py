"""Concrete types: shape inference with all input shapes given, and values that follow from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import ModelError, OvjitError
from ovjit.graph import dtypes
from ovjit.graph.bodies import infer_values
from ovjit.graph.graph import Graph, Node, Value
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import Interval, fits, is_static, text


def concrete_types(graph: Graph, shapes: Sequence[tuple[int, ...]]) -> dict[Value, TensorType]:
    """The type of every value for these input shapes, with its value where it depends on shapes only.

    A value whose shape depends on data has a shape with open dimensions. Raises ModelError naming the node
    that does not accept its inputs.
    """
    check_shapes(graph.inputs, shapes)
    types: dict[Value, TensorType] = {}
    for value, shape in zip(graph.inputs, shapes, strict=True):
        types[value] = _with_nothing(TensorType(value.dtype, shape))
    static = all(is_static(v.shape) for v in graph.inputs)
    for node in graph.nodes:
        if node.op.name == "Parameter":
            continue
        if node.op.name == "Constant" or (static and all(is_static(v.shape) for v in node.outputs)):
            types.update((v, v.type) for v in node.outputs)
            if node.op.name == "Constant" or any(v.type.value is not None for v in node.outputs):
                continue
            if not all(types[v].value is not None for v in node.inputs):
                continue
        made = infer_values(node, [types[v] for v in node.inputs])
        _check_ranks(node, made)
        types.update(zip(node.outputs, map(_with_nothing, made), strict=True))
    return types


def _check_ranks(node: Node, found: Sequence[TensorType]) -> None:
    """ModelError for an output of another rank than the graph has, for which its readers are made: a Squeeze
    of an open dimension that turns out not to be 1."""
    for value, type in zip(node.outputs, found, strict=True):
        if type.rank != value.type.rank and None not in (type.rank, value.type.rank):
            raise ModelError(f"node {node.name!r} ({node.op.name}): it makes {type}, not {value.type}")


def _with_nothing(type: TensorType) -> TensorType:
    """A list of no integers is known, wherever it comes from, as type inference has it."""
    if type.rank != 1 or type.value is not None or dtypes.ELEMENT_TYPES[type.dtype].kind not in "iu":
        return type  # before anybody asks a traced dimension
    if type.shape != (0,):
        return type
    return TensorType(type.dtype, type.shape, np.empty(0, dtypes.numpy_dtype(type.dtype)))


def check_shapes(inputs: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise OvjitError unless each of `inputs` (anything with a shape) is given one that fits.

    Else the types that are stored for static inputs would be used for other shapes. Whatever its bounds, an
    open dimension may be 0: so are inputs that were never set.
    """
    if len(inputs) != len(shapes):
        raise OvjitError(f"internal error: {len(shapes)} shapes are given for {len(inputs)} inputs")
    for i, (value, shape) in enumerate(zip(inputs, shapes, strict=True)):
        expected = value.shape
        if expected is not None and len(shape) == len(expected):
            pairs = zip(shape, expected, strict=True)
            expected = [0 if isinstance(e, Interval) and e.lo > 0 and d == 0 else e for d, e in pairs]
        if not fits(shape, expected):
            raise OvjitError(f"input {i} has the shape {text(value.shape)}; {list(shape)} is given")
