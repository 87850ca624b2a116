"""Rewrites that make the graph smaller: constants folded, batch normalisation absorbed, no-ops dropped.

Each rule looks at one node of the graph being rebuilt and returns the values that replace its outputs, or
None when it does not match.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ovjit.graph.bodies import may_fold
from ovjit.graph.converted import Converted, is_worth
from ovjit.graph.dtypes import ELEMENT_TYPES, HALVES, flush_subnormals, numpy_dtype
from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, rebuild
from ovjit.graph.shapes import is_static

if TYPE_CHECKING:
    from ovjit.compiler.options import Context

#: A folded constant may have at most this many bytes more than what it is made from.
FOLD_BUDGET = 64 * 1024 * 1024

Rule = Callable[[Builder, Node, tuple[Value, ...], "Uses"], Replacement]


class Uses:
    """How the elements of each value of the old graph are used."""

    def __init__(self, graph: Graph):
        self._uses = graph.uses_of_elements()

    def times(self, value: Value) -> int:
        return len(self._uses.get(value, ()))

    def single(self, value: Value) -> bool:
        return self.times(value) == 1

    def only_weights(self, value: Value) -> bool:
        """Whether its only readers are matrix products that pack it as their right-hand side."""
        return all(
            user is not None and user.op.name in ("MatMul", "ChosenMatMul") and i == 1
            for user, i in self._uses.get(value, ())
        )


def run_rules(graph: Graph, rules: Sequence[Rule], context: Context | None = None) -> Graph:
    """One pass over the graph with all rules; the first that matches a node replaces it. Rules that depend on
    the target or the options need the `context`."""
    if not rules:
        return graph
    uses = Uses(graph)

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        for rule in rules:
            out = rule(b, node, inputs, uses)
            if out is not None:
                return out
        return None

    return rebuild(graph, visit, context=context)


def fold_constants(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Uses) -> Replacement:
    """op(constants) -> constant     when the result is not a bomb"""
    if not inputs or node.op.ref is None or not may_fold(node) or (node.lowered and node.op.multiplied):
        return None  # a reference multiplies numbers of one type
    stored = [v.type.value if v.stored is None else v.stored for v in inputs]
    known = [v.type.value for v in node.outputs]
    if all(k is not None for k in known) and all(v.stored is None for v in inputs):
        return [b.constant(k, v.dtype) for k, v in zip(known, node.outputs, strict=True)]
    given = [a for a in stored if a is not None]
    if len(given) < len(stored) or any(not is_static(v.shape) for v in node.outputs):
        return None
    if any(v.dtype == "string" for v in (*inputs, *node.outputs)):
        return None
    halves = node.op.name == "Convert" and inputs[0].dtype in HALVES and node.output.dtype == "f32"
    first = given[0]
    if halves and isinstance(first, np.ndarray | Converted):
        if is_worth(first) and uses.only_weights(node.output):
            return [b.constant(Converted(first, [np.dtype(np.float32)]), name=node.name)]
    grown = sum(_bytes(v) for v in node.outputs) - sum(a.nbytes for a in given)
    if grown > FOLD_BUDGET:
        return None
    values = node.op.evaluate(map(np.asarray, given), node.attrs)
    return [b.constant(v, o.dtype, name=node.name) for v, o in zip(values, node.outputs, strict=True)]


def _bytes(value: Value) -> int:
    return _item_size(value) * math.prod(value.shape)


def drop_noops(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Uses) -> Replacement:
    """Identity(x) -> x;  Convert(x: T) to T -> x;  Transpose by the identity -> x;  Reshape to the same shape
    -> x;  Floor(x: integers) -> x;  Swish(x, 1) -> Swish(x)"""
    name = node.op.name
    if name == "Swish" and len(inputs) == 2 and np.all(inputs[1].constant == 1.0):
        return b.instead(node, inputs[:1])
    if name == "Identity":
        return [inputs[0]]
    if name in ("Floor", "Ceiling", "Round") and ELEMENT_TYPES[inputs[0].dtype].kind in "iu":
        return [inputs[0]]
    if name == "Convert" and inputs[0].dtype == node.output.dtype:
        return [inputs[0]]
    if name == "Transpose" and inputs[1].constant is not None and inputs[0].shape is not None:
        order = inputs[1].constant.tolist()
        if order == list(range(len(order))) and order:
            return [inputs[0]]
    if name in ("Reshape", "Squeeze", "Unsqueeze", "Broadcast", "Tile") and is_static(inputs[0].shape):
        if inputs[0].shape == node.output.shape:
            return [inputs[0]]
    return None


def align_operands(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Uses) -> Replacement:
    """PRelu(x: [N,C,H,W], slope: [C]) -> PRelu(x, Reshape(slope, [C,1,1]))     broadcasts as NumPy does"""
    align = node.op.align
    if align is None or not all(is_static(v.shape) for v in inputs[1:]) or inputs[0].shape is None:
        return None
    shapes = align(*(v.shape for v in inputs))
    if shapes is None or tuple(shapes[1]) == tuple(inputs[1].shape):
        return None
    pattern = b.constant(np.array(shapes[1], np.int64))
    slope = b.add("Reshape", [inputs[1], pattern], {"special_zero": False}).output
    return b.instead(node, [inputs[0], slope])


def append_dimensions(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Uses) -> Replacement:
    """Add(x: [N,C,H], y: [N], pdpd) -> Add(x, Unsqueeze(y, [1,2]))     broadcasts as NumPy does"""
    if node.attrs.get("auto_broadcast") != "pdpd":
        return None
    x, y = inputs
    assert x.shape is not None and y.shape is not None  # type inference needs both
    missing = np.arange(len(y.shape), len(x.shape))
    if missing.size:
        y = b.add("Unsqueeze", [y, b.constant(missing)], {}).output
    return b.instead(node, [x, y], {**node.attrs, "auto_broadcast": "numpy"})


def transpose_the_narrow(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Uses) -> Replacement:
    """Transpose(f(Convert(x: u8 to f32), c)) -> f(Convert(Transpose(x)), Transpose(c))     of elementwise f:
    fewer bytes are transposed, and what follows fuses"""
    if node.op.name != "Transpose" or inputs[1].constant is None:
        return None
    order = tuple(int(axis) % max(inputs[1].constant.size, 1) for axis in inputs[1].constant)
    steps: list[tuple[Node, int]] = []
    best, smallest = 0, _item_size(inputs[0])
    old, new = node.inputs[0], inputs[0]
    while new.node.op.scalar is not None and new.node.op is old.node.op and uses.single(old):
        varying = [i for i, v in enumerate(new.node.inputs) if v.stored is None]
        if len(varying) != 1 or not _broadcasts_to(new.node, varying[0], len(order)):
            break
        steps.append((new.node, varying[0]))
        old, new = old.node.inputs[varying[0]], new.node.inputs[varying[0]]
        if _item_size(new) < smallest:
            best, smallest = len(steps), _item_size(new)
    if not best:
        return None
    first, index = steps[best - 1]
    value = b.add(node.op, [first.inputs[index], inputs[1]], node.attrs).output
    for step, index in reversed(steps[:best]):
        given = [value if i == index else _transposed(b, v, order) for i, v in enumerate(step.inputs)]
        value = b.instead(step, given)[0]
    return [value]


def _item_size(value: Value) -> int:
    return 1 << 30 if value.dtype == "string" else numpy_dtype(value.dtype).itemsize


def _broadcasts_to(node: Node, index: int, rank: int) -> bool:
    """Whether input `index` decides about the rank of what an elementwise operation computes."""
    shape = node.inputs[index].shape
    others = [v.shape for i, v in enumerate(node.inputs) if i != index]
    numpy_like = node.attrs.get("auto_broadcast", "numpy") == "numpy"
    return numpy_like and shape is not None and len(shape) == rank and all(len(s) <= rank for s in others)


def _transposed(b: Builder, value: Value, order: tuple[int, ...]) -> Value:
    array = value.constant
    assert array is not None
    if array.size == 1:
        return value
    whole = array.reshape((1,) * (len(order) - array.ndim) + array.shape)
    return b.constant(np.ascontiguousarray(whole.transpose(order)), value.dtype)


def expand_batch_norm(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Uses) -> Replacement:
    """BatchNormInference(x; gamma, beta, mean, var) -> x * scale + shift     with constant statistics"""
    if node.op.name != "BatchNormInference":
        return None
    named = dict(zip(node.op.input_names, inputs, strict=True))
    x = named.pop("data")
    if any(v.constant is None for v in named.values()) or x.shape is None:
        return None
    if len({x.shape[1], *(v.shape[0] for v in named.values())}) != 1:
        return None  # the operation's own expansion sees to a number of channels that is open
    c = {k: v.constant.astype(np.float64) for k, v in named.items()}  # type: ignore[union-attr]
    scale = c["gamma"] / np.sqrt(c["variance"] + node.attrs["epsilon"])
    shift = c["beta"] - c["mean"] * scale
    shape = (1, -1) + (1,) * (len(x.shape) - 2)
    dtype = next(iter(named.values())).constant.dtype  # type: ignore[union-attr]
    scaled = b.add("Multiply", [x, b.constant(scale.astype(dtype).reshape(shape))], name=f"{node.name}/scale")
    return b.instead(node, [scaled.output, b.constant(shift.astype(dtype).reshape(shape))], {}, "Add")


def scale_into_weights(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Uses) -> Replacement:
    """Multiply(Convolution(x, w), per-channel c) -> Convolution(x, w * c)     also through Add(constant)"""
    if node.op.name != "Multiply" or node.output.dtype != "f32":
        return None
    for i in (0, 1):
        factor, other = inputs[1 - i].constant, inputs[i]
        if factor is None or not uses.single(node.inputs[i]):
            continue
        add = other.node if other.node.op.name == "Add" else None
        if add is not None:
            side = next((s for s in (0, 1) if add.inputs[s].node.op.name in _WEIGHTED), None)
            if side is None or add.inputs[1 - side].constant is None:
                continue
            old_add = node.inputs[i].node
            if not uses.single(old_add.inputs[side]):
                continue
            conv = add.inputs[side].node
        else:
            conv = other.node
        scaled = _scaled(b, conv, factor) if conv.op.name in _WEIGHTED else None
        if scaled is None:
            continue
        if add is None:
            return scaled
        offset = add.inputs[1 - side].constant * factor  # type: ignore[operator]
        origins = (*add.origins, *node.origins)
        return b.add("Add", [*scaled, b.constant(offset)], name=node.name, origins=origins).outputs
    return None


_WEIGHTED = ("Convolution", "GroupConvolution")
#: Numbers from which on an offset may be there to round: what is added is lost below its last bit.
_ROUNDING = 2.0**16


def join_offsets(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Uses) -> Replacement:
    """Convolution(x, w) + c + d -> Convolution(x, w) + (c + d)     with constants"""
    if node.op.name != "Add" or node.output.dtype != "f32":
        return None
    for i in (0, 1):
        inner, last = inputs[i].node, inputs[1 - i].constant
        if inner.op.name != "Add" or last is None or not uses.single(node.inputs[i]):
            continue
        for sum, first in (inner.inputs, inner.inputs[::-1]):
            if sum.node.op.name not in _WEIGHTED or first.constant is None:
                continue
            if max(np.abs(first.constant).max(initial=0), np.abs(last).max(initial=0)) < _ROUNDING:
                both = b.constant(first.constant + last)
                origins = (*inner.origins, *node.origins)
                return b.add("Add", [sum, both], name=node.name, origins=origins).outputs
    return None


def join_scales(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Uses) -> Replacement:
    """x / c * d -> x * (d / c)     with constants; x * c / d, x * c * d and x / c / d, too"""
    if node.output.dtype != "f32" or (outer := _scale(node, inputs)) is None:
        return None
    i, second = outer
    inner = inputs[i].node
    if not uses.single(node.inputs[i]) or (found := _scale(inner, inner.inputs)) is None:
        return None
    j, first = found
    if np.broadcast(first, second).size > max(first.size, second.size):
        return None  # a table in the place of a row and a column
    with np.errstate(all="ignore"):
        joined = (first * second).astype(np.float32)
    parts = (first, second, joined)
    least, most = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    if not all(((np.abs(part) >= least) & (np.abs(part) <= most)).all() for part in parts):
        return None  # zeros make NaN of infinities, and infinities of what would be none
    origins = (*inner.origins, *node.origins)
    return b.add("Multiply", [inner.inputs[j], b.constant(joined)], name=node.name, origins=origins).outputs


def _scale(node: Node, inputs: Sequence[Value]) -> tuple[int, np.ndarray] | None:
    """(input, factor in f64) of a node that multiplies an input by constants, or divides it by them."""
    if node.op.name not in ("Multiply", "Divide") or node.attrs.get("auto_broadcast", "numpy") != "numpy":
        return None
    for i in (0, 1) if node.op.name == "Multiply" else (0,):
        factor = inputs[1 - i].constant
        if factor is not None and factor.dtype == np.float32:
            wide = factor.astype(np.float64)
            with np.errstate(all="ignore"):
                return i, wide if node.op.name == "Multiply" else 1 / wide
    return None


def _scaled(b: Builder, conv: Node, factor: np.ndarray) -> Replacement:
    """The convolution with its filters multiplied by one factor per output channel."""
    weights = conv.inputs[1].constant
    if weights is None or weights.dtype != np.float32 or conv.output.shape is None:
        return None
    rank = len(conv.output.shape)
    shape = (1,) * (rank - factor.ndim) + factor.shape
    if len(shape) != rank or any(d != 1 for a, d in enumerate(shape) if a != 1):
        return None
    grouped = conv.op.name == "GroupConvolution"
    outs = weights.shape[0] * weights.shape[1] if grouped else weights.shape[0]
    if shape[1] not in (1, outs):
        return None
    each = np.broadcast_to(factor.reshape(-1), (outs,)).astype(np.float64)
    lead = weights.shape[:2] if grouped else weights.shape[:1]
    scaled = weights * each.reshape(*lead, *(1,) * (weights.ndim - len(lead)))
    filters = b.constant(scaled.astype(np.float32))
    return b.instead(conv, [conv.inputs[0], filters])


def flush_factors(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Uses) -> Replacement:
    """MatMul(c, x) -> MatMul(zeros for the subnormal numbers of c, x), MatMul(x, list c) likewise. All other
    constants that are multiplied with what is computed are packed, and flushed then."""
    if node.op.name != "MatMul":
        return None
    given = list(inputs)
    for i, value in enumerate(inputs):
        if (i == 0 or value.type.rank in (0, 1)) and value.constant is not None:
            flushed = value.constant.copy()
            given[i] = b.constant(flushed) if flush_subnormals(flushed) else value
    return None if given == [*inputs] else b.instead(node, given)
