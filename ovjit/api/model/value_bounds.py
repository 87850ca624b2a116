"""Bounds of the values of a graph's outputs, from constants and from the bounds of shapes.

Used for integer vectors that become shapes: ShapeOf, and what moves, joins or adds its elements.
"""

from __future__ import annotations

import numpy as np

from ovjit.api.model.boundary import Constant
from ovjit.api.model.node import Output
from ovjit.graph import dtypes
from ovjit.graph.shapes import bounds

Bounds = tuple[np.ndarray, np.ndarray]

#: Operations that never fall when an input rises: bounds go through one by one.
_RISING = {
    "Add", "Broadcast", "Ceiling", "Concat", "Convert", "Floor", "Gather", "Identity", "Maximum", "Minimum",
    "ReduceMax", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Slice", "Split", "Squeeze", "StridedSlice",
    "Tile", "Transpose", "Unsqueeze", "VariadicSplit",
}  # fmt: skip
#: Operations that never fall when an input rises, as long as nothing is negative.
_RISING_FROM_ZERO = {"Multiply", "ReduceProd"}
#: Operations that fall when the second input rises; Divide only of numbers that are not negative.
_FALLING_IN_SECOND = {"Subtract", "Divide"}


def value_bounds(output: Output) -> Bounds | None:
    """(smallest, largest) values of an output, or None. A dynamic dimension's largest value is that of its
    type."""
    bounds_by_output: dict[tuple[int, int], Bounds | None] = {}
    pending = [output]
    while pending:
        current = pending[-1]
        key = id(current._node), current._index
        if key in bounds_by_output:
            pending.pop()
            continue
        wait = [s for s in current._node._inputs if (id(s._node), s._index) not in bounds_by_output]
        if wait and current._node._op.role != "shape":
            pending += wait
            continue
        inputs = [bounds_by_output.get((id(s._node), s._index)) for s in current._node._inputs]
        bounds_by_output[key] = _bounds(current, inputs)
        pending.pop()
    return bounds_by_output[id(output._node), output._index]


def _bounds(output: Output, inputs: list[Bounds | None]) -> Bounds | None:
    node = output._node
    if isinstance(node, Constant):
        return node.value, node.value
    dtype = (
        dtypes.numpy_dtype(output._tensor._type.dtype) if output._tensor._type.dtype != "dynamic" else None
    )
    if node._op.role == "shape" and dtype is not None:
        shape = node._inputs[0]._tensor._type.shape
        if shape is None:
            return None
        top = np.iinfo(dtype).max
        pairs = [bounds(d) for d in shape]
        return (
            np.array([low for low, _ in pairs], dtype),
            np.array([top if high is None else high for _, high in pairs], dtype),
        )
    known_bounds = [pair for pair in inputs if pair is not None]
    if not inputs or len(known_bounds) != len(inputs) or node._op.ref is None or node._op.stateful:
        return None
    lows, highs = [low for low, _ in known_bounds], [high for _, high in known_bounds]
    fixed = all(low is high or np.array_equal(low, high) for low, high in known_bounds)
    name = node._op.name
    from_zero = all(low.dtype.kind in "iuf" and (low >= 0).all() for low in lows)
    if not fixed:
        if name in _FALLING_IN_SECOND and (name == "Subtract" or from_zero):
            lows[1], highs[1] = highs[1], lows[1]
        elif name == "Abs":
            low, high = np.abs(lows[0]), np.abs(highs[0])
            least = np.where((lows[0] < 0) & (highs[0] > 0), 0, np.minimum(low, high))
            return least.astype(low.dtype), np.maximum(low, high)
        elif name not in _RISING and not (name in _RISING_FROM_ZERO and from_zero):
            return None
    attrs = node._graph_attrs()
    return node._op.evaluate(lows, attrs)[output._index], node._op.evaluate(highs, attrs)[output._index]
