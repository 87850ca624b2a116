"""Expansion: operations rewritten to simpler ones that run natively.

`expand(b, node, inputs)` of an operation's record returns the values that replace its outputs, or None to
keep it. f16 and bf16 tensors of operations that do not compute in these types (`Op.native_types`) are upcast
to f32 first. Other types are promoted to the operation's compute type (`Op.stand_in`).

An operation's `expand` is its rule: its pattern is the operation alone. It is asked again of what it made,
and the replaced node is kept for the check of open shapes, which other rules do not need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ovjit.graph.converted import Converted
from ovjit.graph.dtypes import HALVES, SMALL, cast, numpy_dtype, whole_between
from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, rebuild
from ovjit.graph.op import StandIn
from ovjit.rewrite.folding import fold_constants
from ovjit.rewrite.rules import run_rules
from ovjit.rewrite.writer import Writer

if TYPE_CHECKING:
    from ovjit.codegen.cpu.targets import Target
    from ovjit.compiler.options import Context

#: How often what has been expanded is looked at again.
ROUNDS = 4


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
        out, expanded = None, False
        if _is_half(node, context.target):
            out = _computed(Writer(b, node), node, inputs, "f32", lambda _, kind: kind in HALVES)
        elif (found := _stand_in(node)) is not None:
            out = _computed(Writer(b, node), node, inputs, found.real, found.concerns)
        elif expand and node.op.expand is not None:
            expanded, out = True, node.op.expand(Writer(b, node), node, inputs)
        if out is None:
            return None
        changed = True
        if expanded:
            b.replace(node, inputs)
        if out[0].node in b.nodes[b.before :]:
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
    found = {v.dtype for v in (*node.outputs, *node.inputs)} & HALVES
    native = node.op.native_types(target) if found else None
    return native is not None and not found.issubset(native)


def _converted(w: Writer, x: Value, kind: str) -> Value:
    """`x` in the floats `kind`, constants at once: expansions that need their values come before folding."""
    dtype = numpy_dtype(kind)
    if isinstance(x.stored, Converted):
        return w.b.constant(Converted(x.stored, [dtype]))
    if x.constant is not None:
        return w.b.constant(cast(x.constant, dtype))
    return w("Convert", x, destination_type=kind)
