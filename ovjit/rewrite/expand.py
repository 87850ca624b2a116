"""Expansion: operations rewritten to simpler ones that run natively.

`expand(b, node, inputs)` of an operation's record returns the values that replace its outputs, or None to
keep it. f16 and bf16 tensors of operations that do not compute in these types (`Op.native_types`) are upcast
to f32 first. Other types are promoted to the operation's compute type (`Op.promotion`).

Each of these is a rule. The pattern of the rule for `expand` is any operation that has it. The rule is
applied again to its results. The replaced node is kept, to check shapes when dynamic dimensions are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.graph.converted import Converted
from ovjit.graph.dtypes import HALVES, SMALL, cast, intermediate_integer, numpy_dtype
from ovjit.graph.graph import Graph, Node, Value
from ovjit.graph.op import Promotion
from ovjit.rewrite.folding import fold_constants
from ovjit.rewrite.pattern import operation
from ovjit.rewrite.rules import Rule, rule, run_rules
from ovjit.rewrite.writer import Writer

if TYPE_CHECKING:
    from ovjit.compiler.options import Context

#: Maximum number of passes over the results of expansions.
ROUNDS = 4


def expand_graph(graph: Graph, context: Context) -> Graph:
    """The graph with all expansions done."""
    for _ in range(ROUNDS):
        before, graph = graph, run_rules(graph, [*_promotions(graph), expand_operation], context)
        if graph is before:
            break
    return graph


def upcast_graph(graph: Graph, context: Context) -> Graph:
    """The graph with floats of 16 bits and less upcast for operations that do not compute in them."""
    result = run_rules(graph, _promotions(graph), context)
    return graph if result is graph else run_rules(result, [fold_constants])


@rule(operation(lambda record: record.native is not None)(...), quick=lambda node, _: _halves_of(node))
def compute_halves_in_f32(w: Writer, node: Node) -> Any:
    """op(x: f16) -> Convert(op(Convert(x: f16, f32)), f16)     rounded once, at the end"""
    native = node.op.native_types(w.b.context.target)
    if native is None or _halves_of(node).issubset(native):
        return None
    return _compute_in(w, node, "f32", lambda _, kind: kind in HALVES)


@rule(operation(lambda record: True)(...), quick=lambda node, _: _promotion(node))
def compute_in_promotion(w: Writer, node: Node) -> Any:
    """Softmax(x: i8) -> round_to(Softmax(Convert(x, f32)), i8)"""
    promotion = _promotion(node)
    return _compute_in(w, node, promotion.real, promotion.concerns) if promotion is not None else None


@rule(operation(lambda record: record.expand is not None)(...))
def expand_operation(w: Writer, node: Node) -> Any:
    """op(x) -> what the record's `expand` writes."""
    expand = node.op.expand
    result = expand(w, node, node.inputs) if expand is not None else None
    if result is not None:
        w.b.replace(node, node.inputs)
    return result


def _promotions(graph: Graph) -> list[Rule]:
    """The rules of the two above that may apply to the graph. Their patterns match every node."""
    kinds = {v.dtype for n in graph.nodes for v in n.outputs}
    rules = [] if kinds.isdisjoint(HALVES) else [compute_halves_in_f32]
    if not kinds.isdisjoint(SMALL) or any(op.in_real for op in {n.op for n in graph.nodes}):
        rules.append(compute_in_promotion)
    return rules


def round_to(w: Writer, x: Value, kind: str) -> Value:
    """Reals rounded to integers of the type `kind`: see `ovjit.graph.dtypes.round_to_integer`."""
    x = w("Convert", w("Round", x), destination_type=intermediate_integer(kind))
    if kind in ("i8", "u8"):
        limits = np.iinfo(numpy_dtype(kind))
        x = w("Clamp", x, min=float(limits.min), max=float(limits.max))
    return w("Convert", x, destination_type=kind)


def _promotion(node: Node) -> Promotion | None:
    """The operation's compute type, if the node's outputs must be converted back from it. None if the outputs
    have the compute type already, such as means of bytes in f32."""
    promotion = node.op.promotion([v.type for v in node.inputs], node.attrs)
    return promotion if promotion and any(v.dtype == promotion.kind for v in node.outputs) else None


def _halves_of(node: Node) -> set[str]:
    """The 16-bit float types among the node's inputs and outputs."""
    return {v.dtype for v in (*node.outputs, *node.inputs)} & HALVES


def _compute_in(w: Writer, node: Node, real: str, concerns: Callable[[int, str], bool]) -> Sequence[Value]:
    """The node's operation in the type `real`. `concerns(i, type)`: whether input i of this type, or an
    output for i = 0, is converted."""
    inputs = [_convert_to(w, x, real) if concerns(i, x.dtype) else x for i, x in enumerate(node.inputs)]
    result = w.b.add(node.op, inputs, node.attrs, name=f"{node.name}/{real}", origins=node.origins).outputs
    return [
        _back(w, new, old.dtype) if concerns(0, old.dtype) else new
        for new, old in zip(result, node.outputs, strict=True)
    ]


def _back(w: Writer, x: Value, kind: str) -> Value:
    floats = kind in HALVES or kind in SMALL
    return w("Convert", x, destination_type=kind) if floats else round_to(w, x, kind)


def _convert_to(w: Writer, x: Value, kind: str) -> Value:
    """`x` in the type `kind`. Constants are converted now, since expansions may need them before folding."""
    dtype = numpy_dtype(kind)
    if isinstance(x.stored_array, Converted):
        return w.b.constant(Converted(x.stored_array, [dtype]))
    if x.constant is not None:
        return w.b.constant(cast(x.constant, dtype))
    return w("Convert", x, destination_type=kind)
