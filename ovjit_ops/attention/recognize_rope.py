"""Rules that recognize the rotation of rotary position embeddings in the forms of exporters."""

from __future__ import annotations

import numpy as np

from ovjit.errors import OvjitError
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import Dim, is_static
from ovjit.rewrite.pattern import number_of, op, value
from ovjit.rewrite.rules import rule
from ovjit.rewrite.writer import Writer

_PARTS = ("Slice", "StridedSlice", "Split", "VariadicSplit")


@rule(op.Concat(value("negative"), value("first")))
def recognize_turned(w: Writer, node: Node, negative: Value | None, first: Value) -> Value | None:
    """Concat(-x[h:], x[:h]) -> RotateHalf(x)     for the halves of the last axis

    Concat(Unsqueeze(-x[1::2]), Unsqueeze(x[::2])) -> RotateHalf(x as [..., h, 2])     for adjacent pairs
    Concat(a c - b s, b c + a s) -> x c' + RotateHalf(x) s'     a and b: the halves of x, or its even and odd
                                                            elements; c' and s' repeat each of c and s
    """
    if node.output.shape is None or node.attrs["axis"] not in (-1, len(node.output.shape) - 1):
        return None
    negative = _negation_operand(node.inputs[0])
    if negative is None:
        return _fuse_rotation(w, node.inputs)
    stacked = _beside(first)
    if stacked is not None:
        first, inner = stacked, _beside(negative)
        if inner is None:
            return None
        negative = _negation_operand(inner) or inner
    x = _joint_source(_part(first), _part(negative), stacked is not None)
    if x is None:
        return None
    if stacked is None:
        return w("RotateHalf", x, pairs=x.shape[-1] == 2)
    return w("RotateHalf", _in_pairs(w, x), pairs=True)


def _fuse_rotation(w: Writer, inputs: tuple[Value, ...]) -> Value | None:
    inner = [_beside(v) for v in inputs]
    stacked = None not in inner
    less, more = (v.node for v in (inner if stacked else inputs) if v is not None)
    if (less.op.name, more.op.name) != ("Subtract", "Add"):
        return None
    if any(v.node.op.name != "Multiply" for v in (*less.inputs, *more.inputs)):
        return None
    sums = {frozenset(v.node.inputs) for v in more.inputs}
    (one, other) = (v.node.inputs for v in less.inputs)
    for a, c in (one, one[::-1]):
        for b, s in (other, other[::-1]):
            x = _joint_source(_part(a), _part(b), stacked)
            if x is None or sums != {frozenset((b, c)), frozenset((a, s))}:
                continue
            if all(_is_shared(v, a) for v in (c, s)):
                rotated = w("RotateHalf", x, pairs=stacked)
                factors = [_twice(w, v, stacked) for v in (c, s)]
                out = w("Add", w("Multiply", x, factors[0]), w("Multiply", rotated, factors[1]))
                return _in_pairs(w, out) if stacked else out
    return None


def _is_shared(factor: Value, part: Value) -> bool:
    """Whether a factor is as wide as the part that it multiplies, and is broadcast along another
    dimension."""
    if not factor.shape or not part.shape or factor.shape[-1] != part.shape[-1]:
        return False
    return len(factor.shape) < len(part.shape) or 1 in factor.shape[:-1]


def _twice(w: Writer, factor: Value, pairs: bool) -> Value:
    """A factor with each element twice: for both halves, or adjacent (`pairs`). Computed once for all
    consumers."""

    def repeat() -> Value:
        one = w("Unsqueeze", factor, (-1 if pairs else -2,))
        repeated = w("Broadcast", one, (2,) if pairs else (2, 1), mode="bidirectional")
        width = 2 * factor.shape[-1]
        return w("Reshape", repeated, (*(0,) * (len(factor.shape) - 1), width), special_zero=True)

    return w.once(("twice", factor, pairs), repeat)


def _in_pairs(w: Writer, x: Value) -> Value:
    """x as [..., h, 2]"""
    return w("Reshape", x, (*(0,) * (len(x.shape) - 1), x.shape[-1] // 2, 2), special_zero=True)


def _joint_source(
    one: tuple[Value, list[int]] | None, other: tuple[Value, list[int]] | None, pairs: bool
) -> Value | None:
    """x, if these are its first and second half, or its even and odd elements (`pairs`); else None."""
    if one is None or other is None or one[0] is not other[0]:
        return None
    count, indices = one[0].shape[-1], [*one[1], *other[1]]
    order = [*range(0, count, 2), *range(1, count, 2)] if pairs else [*range(count)]
    return one[0] if indices == order and len(one[1]) == len(other[1]) else None


def _negation_operand(value: Value) -> Value | None:
    """x of -x or x * -1; else None. Negated elements that are unsqueezed are returned as they are."""
    node = value.node
    if node.op.name == "Negative":
        return node.inputs[0]
    if node.op.name == "Multiply":
        return next((x for x, f in (node.inputs, node.inputs[::-1]) if _is_minus_one(f, x)), None)
    inside = _beside(value)
    return value if inside is not None and _negation_operand(inside) is not None else None


def _beside(value: Value) -> Value | None:
    """x of Unsqueeze(x, -1); else None."""
    node = value.node
    axes = node.inputs[1].constant if node.op.name == "Unsqueeze" else None
    last = value.shape is not None and axes is not None and axes.tolist() in ([-1], [len(value.shape) - 1])
    return node.inputs[0] if last else None


def _is_minus_one(factor: Value, x: Value) -> bool:
    return number_of(factor) == -1 and x.shape is not None and len(factor.shape) <= len(x.shape)


def _part(value: Value) -> tuple[Value, list[int]] | None:
    """(x, indices along its last axis) if `value` selects these of each row of x; else None."""
    node = value.node
    x = node.inputs[0] if node.inputs else value
    if node.op.name == "Gather":
        rows, (at, axis) = _source_of_pairs(x), (v.constant for v in node.inputs[1:])
        last = axis is not None and axis.reshape(-1).tolist() in ([-1], [len(x.shape or ()) - 1])
        if rows is None or at is None or at.ndim or not last or node.attrs.get("batch_dims", 0):
            return None
        return rows, [*range(int(at) % 2, rows.shape[-1], 2)]
    if node.op.name not in _PARTS or not x.shape or value.shape is None or not isinstance(x.shape[-1], int):
        return None
    constants = [v.constant for v in node.inputs[1:] if v.constant is not None]
    if value.shape[:-1] != x.shape[:-1] or len(constants) < len(node.inputs) - 1:
        return None
    # Evaluated on elements that encode their positions. The sample has several rows, so that a node that
    # drops or moves rows is not matched.
    sample = np.arange(2 ** (len(x.shape) - 1) * x.shape[-1]).reshape(*(2,) * (len(x.shape) - 1), -1)
    try:
        selected = node.op.evaluate([sample, *constants], node.attrs)[value.index]
    except (OvjitError, ValueError):
        return None
    indices = selected.reshape(-1, selected.shape[-1])[0] if selected.size else selected.reshape(-1)
    same = not indices.size or indices.max() < sample.shape[-1]
    return (x, indices.tolist()) if same and np.array_equal(selected, sample[..., indices]) else None


_PAIRS = value("pairs")


@rule(op.Reshape(op.RotateHalf(_PAIRS, pairs=True).named("rotated") | _PAIRS, value("sizes")))
def out_of_pairs(
    w: Writer, node: Node, pairs: Value, sizes: Value, rotated: Value | None = None
) -> Value | None:
    """Reshape([RotateHalf](x as [..., h, 2])) to the shape of x -> [RotateHalf](x)"""
    x = _source_of_pairs(pairs)
    if x is None or not _is_to(sizes, node, x.shape, x):
        return None
    return x if rotated is None else w("RotateHalf", x, pairs=True)


def _source_of_pairs(value: Value) -> Value | None:
    """x of Reshape(x) to [..., h, 2]; else None."""
    rows = value.node
    if rows.op.name != "Reshape" or not value.shape or value.shape[-1] != 2:
        return None
    x = rows.inputs[0]
    if not x.shape or not isinstance(x.shape[-1], int) or len(value.shape) != len(x.shape) + 1:
        return None
    return x if _is_to(rows.inputs[1], rows, (*x.shape[:-1], x.shape[-1] // 2, 2), x) else None


def _is_to(pattern: Value, node: Node, shape: tuple[Dim, ...], x: Value) -> bool:
    """Whether a Reshape to `pattern` provably gives `shape`, which has all dimensions of x but the last."""
    if pattern.node.op.role == "shape" and pattern.node.inputs[0] is x:
        return shape == x.shape
    dims, sizes = node.output.shape, pattern.constant
    if dims is None or len(dims) != len(shape) or (is_static(dims) and dims != shape):
        return False
    if sizes is None or np.count_nonzero(sizes == -1) > 1:
        return is_static(dims) and is_static(shape)
    same = len(x.shape) - 1 if node.attrs["special_zero"] else 0
    pairs = enumerate(zip(sizes.tolist(), shape, strict=True))
    return all(n in (-1, d) or (n == 0 and i < same) for i, (n, d) in pairs)
