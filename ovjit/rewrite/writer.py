"""The `Writer` of rewrites: adds the nodes that replace a node, with dynamic dimensions as numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder, Node, Typed, Value
from ovjit.graph.op import Op
from ovjit.graph.shapes import is_static


class Writer:
    """Adds nodes that replace `node`, of a Graph or a Model: `w("Add", x, 1.0)`. `w.b.context` has the target
    and options; None for Models.

    Numbers become constants of the first value's type. Arrays keep their type, and lists (axes, shapes)
    become i64. Lists may have `Extent`s.
    """

    def __init__(self, b: Builder, node: Node):
        self.b = b
        self.node = node

    def __call__(self, op: str | Op, *inputs: Any, **attrs: Any) -> Value:
        return self.outputs(op, *inputs, **attrs)[0]

    def outputs(self, op: str | Op, *inputs: Any, **attrs: Any) -> tuple[Value, ...]:
        """All outputs of a node."""
        like = next(v for v in inputs if isinstance(v, Typed))
        values = [self._value(v, like.dtype) for v in inputs]
        name = f"{self.node.name}/{op if isinstance(op, str) else op.name}"
        return self.b.add(op, values, attrs, name=name, origins=self.node.origins).outputs

    def once(self, key: Any, make: Callable[[], Value]) -> Value:
        """The result of `make`, which is called once per graph and key."""
        result = self.b.shared.get(key)
        if result is None:
            result = self.b.shared[key] = make()
        return result

    def shape(self, x: Value) -> list[Any]:
        """The dimensions: ints, and `Extent`s for dynamic ones."""
        if is_static(x.shape):
            return list(x.shape)
        dims = self("ShapeOf", x, output_type="i64")
        dims_with_index = enumerate(x.shape)
        return [
            d if isinstance(d, int) else Extent(self, self("Gather", dims, (i,), np.array(0), batch_dims=0))
            for i, d in dims_with_index
        ]

    def part(self, x: Value, first: Any, stop: Any, axis: int) -> Value:
        """x[first:stop] along an axis."""
        return self("Slice", x, (first,), (stop,), (1,), (axis,))

    def numbers(self, count: Any) -> Value:
        """0 ... count - 1, in i64, for an int or an Extent."""
        if isinstance(count, int):
            return self.b.constant(np.arange(count))
        stop = self("Squeeze", count.value, [0])
        return self.outputs("Range", np.array(0), stop, np.array(1), output_type="i64")[0]

    def _value(self, x: Any, dtype: str) -> Any:
        if isinstance(x, Typed):
            return x
        if isinstance(x, Sequence) and any(isinstance(d, Extent) for d in x):
            parts = [d.value if isinstance(d, Extent) else self._value((d,), "i64") for d in x]
            return parts[0] if len(parts) == 1 else self("Concat", *parts, axis=0)
        if isinstance(x, np.ndarray):
            return self.b.constant(x)
        if isinstance(x, Sequence):
            return self.b.constant(np.array(x, np.int64))
        return self.b.constant(np.array(x, numpy_dtype(dtype)), dtype)


class Extent:
    """A dynamic dimension, or a number computed from such: an i64 value [1] of the graph. Supports the
    arithmetic of an int."""

    def __init__(self, w: Writer, value: Value):
        self.w = w
        self.value = value

    def _with(self, op: str, other: Any, **attrs: Any) -> Extent:
        other = other.value if isinstance(other, Extent) else np.array([other])
        return Extent(self.w, self.w(op, self.value, other, **attrs))

    def __add__(self, other: Any) -> Extent:
        return self._with("Add", other)

    def __mul__(self, other: Any) -> Extent:
        return self._with("Multiply", other)

    def __floordiv__(self, other: Any) -> Extent:
        return self._with("Divide", other, m_pythondiv=True)

    def __sub__(self, other: Any) -> Extent:
        return self + other * -1

    def __rsub__(self, other: Any) -> Extent:
        return self * -1 + other

    def not_negative(self) -> Extent:
        return self._with("Maximum", 0)

    __radd__, __rmul__ = __add__, __mul__


def not_negative(extent: Any) -> Any:
    """max(extent, 0), for an int or an Extent."""
    return max(extent, 0) if isinstance(extent, int) else extent.not_negative()
