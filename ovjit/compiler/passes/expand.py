"""Expansion: operations rewritten to simpler ones that run natively.

An operation says how in its own record: `expand(b, node, inputs)` returns the values that replace its
outputs, or None where it stays as it is. Halves that an operation does not compute
(`Op.native_types`) are upcast to f32 first, and other types that it takes become those that it computes in
(`Op.stand_in`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.compiler.passes.simplify import fold_constants, run_rules
from ovjit.graph.converted import Converted
from ovjit.graph.dtypes import HALVES, SMALL, cast, numpy_dtype, whole_between
from ovjit.graph.graph import Builder, Graph, Node, Value, rebuild
from ovjit.graph.op import StandIn

#: How often what has been expanded is looked at again.
ROUNDS = 4


class Writer:
    """Adds nodes that stand for `node`: `w("Add", x, 1.0)`.

    Numbers become constants of the first value's type, arrays and lists (axes, patterns) their own.
    """

    def __init__(self, b: Builder, node: Node):
        self.b = b
        self.node = node

    def __call__(self, op: str, *inputs: Any, **attrs: Any) -> Value:
        return self.outputs(op, *inputs, **attrs)[0]

    def outputs(self, op: str, *inputs: Any, **attrs: Any) -> tuple[Value, ...]:
        """All outputs of a node."""
        like = next(v for v in inputs if isinstance(v, Value))
        values = [self._value(v, like.dtype) for v in inputs]
        name = f"{self.node.name}/{op}"
        return self.b.add(op, values, attrs, name=name, origins=self.node.origins).outputs

    def _value(self, x: Any, dtype: str) -> Value:
        if isinstance(x, Value):
            return x
        if isinstance(x, np.ndarray):
            return self.b.constant(x)
        if isinstance(x, Sequence):
            return self.b.constant(np.array(x, np.int64))
        return self.b.constant(np.array(x, numpy_dtype(dtype)), dtype)


def expand_graph(graph: Graph) -> Graph:
    """The graph with all expansions done."""
    for _ in range(ROUNDS):
        if not any(n.op.expand is not None or _is_half(n) or _stand_in(n) for n in graph.nodes):
            break
        before = len(graph.nodes)
        graph, changed = _round(graph, expand=True)
        if not changed and len(graph.nodes) == before:
            break
    return graph


def upcast_graph(graph: Graph) -> Graph:
    """The graph with all halves upcast that operations do not compute."""
    if not any(map(_is_half, graph.nodes)):
        return graph
    return run_rules(_round(graph, expand=False)[0], [fold_constants])


def _round(graph: Graph, expand: bool) -> tuple[Graph, bool]:
    changed = False

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        nonlocal changed
        first = len(b.nodes)
        out, w = None, Writer(b, node)
        if _is_half(node):
            out = upcast(w, node, inputs)
        elif (found := _stand_in(node)) is not None:
            out = _computed(w, node, inputs, found)
        elif expand and node.op.expand is not None:
            out = node.op.expand(w, node, inputs)
        if out is None:
            return None
        changed = True
        if out[0].node in b.nodes[first:]:
            b.rename(out[0].node, node.name)
        return out

    return rebuild(graph, visit), changed


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


def _computed(w: Writer, node: Node, inputs: Sequence[Value], stand_in: StandIn) -> Sequence[Value]:
    """Softmax(x: i8) -> whole(Softmax(Convert(x, f32)), i8)"""
    kind = stand_in.kind
    given = [
        _converted(w, x, stand_in.real) if stand_in.concerns(i, x.dtype) else x for i, x in enumerate(inputs)
    ]
    made = w.b.add(node.op, given, node.attrs, name=f"{node.name}/{stand_in.real}", origins=node.origins)
    back = whole if kind not in SMALL else lambda w, x, kind: w("Convert", x, destination_type=kind)
    return [
        back(w, new, kind) if old.dtype == kind else new
        for new, old in zip(made.outputs, node.outputs, strict=True)
    ]


def _is_half(node: Node) -> bool:
    """True where the operation computes in f32 what this node has in halves."""
    native = node.op.native_types
    return native is not None and any(
        v.dtype in HALVES and v.dtype not in native for v in (*node.outputs, *node.inputs)
    )


def upcast(w: Writer, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
    """op(x: f16) -> Convert(op(Convert(x: f16, f32)), f16)     the halves are rounded once, at the end"""
    wide = [_converted(w, x, "f32") if x.dtype in HALVES else x for x in inputs]
    made = w.b.add(node.op, wide, node.attrs, name=f"{node.name}/{node.op.name}", origins=node.origins)
    return [
        w("Convert", new, destination_type=old.dtype) if old.dtype in HALVES else new
        for new, old in zip(made.outputs, node.outputs, strict=True)
    ]


def _converted(w: Writer, x: Value, kind: str) -> Value:
    """`x` in the floats `kind`, constants at once: expansions that need their values come before folding."""
    dtype = numpy_dtype(kind)
    if isinstance(x.stored, Converted):
        return w.b.constant(Converted(x.stored, [dtype]))
    if x.stored is not None:
        return w.b.constant(cast(x.stored, dtype))
    return w("Convert", x, destination_type=kind)
