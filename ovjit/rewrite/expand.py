"""Expansion: operations rewritten to simpler ones that run natively.

`expand(b, node, inputs)` of an operation's record returns the values that replace its outputs, or None to
keep it. f16 and bf16 tensors of operations that do not compute in these types (`Op.native_types`) are upcast
to f32 first. Other types are promoted to the operation's compute type (`Op.stand_in`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.graph.converted import Converted
from ovjit.graph.dtypes import HALVES, SMALL, cast, numpy_dtype, whole_between
from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, rebuild
from ovjit.graph.op import Op, StandIn
from ovjit.graph.shapes import is_static
from ovjit.rewrite.simplify import fold_constants, run_rules

if TYPE_CHECKING:
    from ovjit.codegen.cpu.targets import Target
    from ovjit.compiler.options import Context

#: How often what has been expanded is looked at again.
ROUNDS = 4


class Writer:
    """Adds nodes that stand for `node`: `w("Add", x, 1.0)`. `w.b.context` is what they are compiled for.

    Numbers become constants of the first value's type, arrays and lists (axes, patterns) their own. Lists may
    have `Extent`s.
    """

    def __init__(self, b: Builder, node: Node):
        self.b = b
        self.node = node

    def __call__(self, op: str | Op, *inputs: Any, **attrs: Any) -> Value:
        return self.outputs(op, *inputs, **attrs)[0]

    def outputs(self, op: str | Op, *inputs: Any, **attrs: Any) -> tuple[Value, ...]:
        """All outputs of a node."""
        like = next(v for v in inputs if isinstance(v, Value))
        values = [self._value(v, like.dtype) for v in inputs]
        name = f"{self.node.name}/{op if isinstance(op, str) else op.name}"
        return self.b.add(op, values, attrs, name=name, origins=self.node.origins).outputs

    def shape(self, x: Value) -> list[Any]:
        """The dimensions, those that are open as `Extent`s."""
        if is_static(x.shape):
            return list(x.shape)
        dims = self("ShapeOf", x, output_type="i64")
        found = enumerate(x.shape)
        return [
            d if isinstance(d, int) else Extent(self, self("Gather", dims, (i,), np.array(0), batch_dims=0))
            for i, d in found
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

    def _value(self, x: Any, dtype: str) -> Value:
        if isinstance(x, Value):
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
    """An open dimension, or what follows from some: i64 [1], which is worked out when shapes are known. It is
    added and multiplied as an int is."""

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
    """An int or an Extent, or 0 where that is less."""
    return max(extent, 0) if isinstance(extent, int) else extent.not_negative()


def expand_graph(graph: Graph, context: Context) -> Graph:
    """The graph with all expansions done."""
    target = context.target
    for _ in range(ROUNDS):
        if not any(n.op.expand is not None or _is_half(n, target) or _stand_in(n) for n in graph.nodes):
            break
        before = len(graph.nodes)
        graph, changed = _round(graph, context, expand=True)
        if not changed and len(graph.nodes) == before:
            break
    return graph


def upcast_graph(graph: Graph, context: Context) -> Graph:
    """The graph with 16-bit floats upcast for operations that do not compute in them."""
    if not any(_is_half(node, context.target) for node in graph.nodes):
        return graph
    return run_rules(_round(graph, context, expand=False)[0], [fold_constants])


def _round(graph: Graph, context: Context, expand: bool) -> tuple[Graph, bool]:
    changed = False

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        nonlocal changed
        first = len(b.nodes)
        out, w, expanded = None, Writer(b, node), False
        if _is_half(node, context.target):
            out = _computed(w, node, inputs, "f32", lambda _, kind: kind in HALVES)
        elif (found := _stand_in(node)) is not None:
            out = _computed(w, node, inputs, found.real, found.concerns)
        elif expanded := expand and node.op.expand is not None:
            out = node.op.expand(w, node, inputs)
        if out is None:
            return None
        changed = True
        if expanded:
            b.replace(node, inputs)
        if out[0].node in b.nodes[first:]:
            b.rename(out[0].node, node.name)
        return out

    return rebuild(graph, visit, context=context), changed


def whole(w: Writer, x: Value, kind: str) -> Value:
    """Reals as integers of this type (`ovjit.graph.dtypes.whole`)."""
    x = w("Convert", w("Round", x), destination_type=whole_between(kind))
    if kind in ("i8", "u8"):
        limits = np.iinfo(numpy_dtype(kind))
        x = w("Clamp", x, min=float(limits.min), max=float(limits.max))
    return w("Convert", x, destination_type=kind)


def _stand_in(node: Node) -> StandIn | None:
    """What the node's operation computes in for elements of another type; None where it is asked for that
    itself, as it is for means of bytes in f32."""
    found = node.op.stand_in([v.type for v in node.inputs], node.attrs)
    return found if found and any(v.dtype == found.kind for v in node.outputs) else None


def _computed(
    w: Writer, node: Node, inputs: Sequence[Value], real: str, concerns: Callable[[int, str], bool]
) -> Sequence[Value]:
    """op(x: f16) -> Convert(op(Convert(x: f16, f32)), f16)     rounded once, at the end
    Softmax(x: i8) -> whole(Softmax(Convert(x, f32)), i8)"""
    given = [_converted(w, x, real) if concerns(i, x.dtype) else x for i, x in enumerate(inputs)]
    made = w.b.add(node.op, given, node.attrs, name=f"{node.name}/{real}", origins=node.origins).outputs
    return [
        _back(w, new, old.dtype) if concerns(0, old.dtype) else new
        for new, old in zip(made, node.outputs, strict=True)
    ]


def _back(w: Writer, x: Value, kind: str) -> Value:
    floats = kind in HALVES or kind in SMALL
    return w("Convert", x, destination_type=kind) if floats else whole(w, x, kind)


def _is_half(node: Node, target: Target) -> bool:
    """True if the operation computes in f32 for this node's 16-bit floats."""
    native = node.op.native_types(target)
    return native is not None and any(
        v.dtype in HALVES and v.dtype not in native for v in (*node.outputs, *node.inputs)
    )


def _converted(w: Writer, x: Value, kind: str) -> Value:
    """`x` in the floats `kind`, constants at once: expansions that need their values come before folding."""
    dtype = numpy_dtype(kind)
    if isinstance(x.stored, Converted):
        return w.b.constant(Converted(x.stored, [dtype]))
    if x.constant is not None:
        return w.b.constant(cast(x.constant, dtype))
    return w("Convert", x, destination_type=kind)
