"""Expansion: operations rewritten to simpler ones that run natively.

An operation says how in its own record: `expand(b, node, inputs)` returns the values that replace its
outputs, or None where it stays as it is. Halves and smaller floats that an operation does not
compute (`Op.native`, `Op.widens`) are upcast to f32 first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.compiler.passes.simplify import fold_constants, run_rules
from ovjit.graph.converted import Converted
from ovjit.graph.dtypes import HALVES, SMALL, cast, numpy_dtype, real_for, whole_between
from ovjit.graph.graph import Builder, Graph, Node, Value, rebuild

#: How often what has been expanded is looked at again.
ROUNDS = 4
#: Floating-point types that operations may not compute in.
_STORED = HALVES | SMALL


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
        if not any(n.op.expand is not None or _is_half(n) or _integers(n) for n in graph.nodes):
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
        out = None
        if _is_half(node):
            out = upcast(b, node, inputs)
        elif _integers(node):
            out = _in_real(b, node, inputs)
        elif expand and node.op.expand is not None:
            out = node.op.expand(b, node, inputs)
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


def _integers(node: Node) -> str:
    """The integers that this node computes as reals, "" if none."""
    kind = node.op.integers([v.dtype for v in node.inputs])
    return kind if all(v.dtype == kind for v in node.outputs) else ""  # means of bytes may be made as f32


def _in_real(b: Builder, node: Node, inputs: Sequence[Value]) -> Sequence[Value]:
    """Softmax(x: i8) -> whole(Softmax(Convert(x, f32)))"""
    w, kind = Writer(b, node), _integers(node)
    given = [
        w("Convert", x, destination_type=real_for(kind)) if i < node.op.in_real else x
        for i, x in enumerate(inputs)
    ]
    made = b.add(node.op, given, node.attrs, name=f"{node.name}/real", origins=node.origins)
    return [whole(w, x, kind) for x in made.outputs]


def _is_half(node: Node) -> bool:
    """True where the operation computes in f32 what this node has in halves or smaller floats."""
    native = node.op.native
    if native is not None and any(
        v.dtype in HALVES and v.dtype not in native for v in (*node.outputs, *node.inputs)
    ):
        return True
    small = any(v.dtype in SMALL for v in node.inputs)
    return small and node.op.widens([v.type for v in node.inputs], node.attrs)


def upcast(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
    """op(x: f16) -> Convert(op(Convert(x: f16, f32)), f16)     the halves are rounded once, at the end"""
    w = Writer(b, node)

    def widened(v: Value) -> Value:
        if v.dtype not in _STORED:
            return v
        # constants at once: expansions that need their values come before folding
        if isinstance(v.stored, Converted):
            return b.constant(Converted(v.stored, [np.dtype(np.float32)]))
        if v.stored is not None:
            return b.constant(cast(v.stored, np.dtype(np.float32)))
        return w("Convert", v, destination_type="f32")

    wide = [widened(v) for v in inputs]
    made = b.add(node.op, wide, node.attrs, name=f"{node.name}/{node.op.name}", origins=node.origins)
    return [
        w("Convert", new, destination_type=old.dtype) if old.dtype in _STORED else new
        for new, old in zip(made.outputs, node.outputs, strict=True)
    ]
