"""Rules that recognize attention in the forms of exporters, and replace it by one operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import Dim, broadcast, is_static
from ovjit.records import NamedTuple
from ovjit.rewrite.pattern import constant, number_of, op, value
from ovjit.rewrite.rules import Uses, rule
from ovjit.rewrite.writer import Writer

#: A Select of scores and a constant is a mask if the constant is at most this: its weights vanish next to
#: those of unmasked scores.
HIDDEN = -1e4
#: Adding ABSORBING to a score gives ABSORBING. So a fully masked row has equal scores, as after a Select. In
#: f32, LARGE absorbs scores below 32. If further masks are added, a Select's own number is kept, because the
#: sum may depend on it. It must then be at most LARGE.
ABSORBING, LARGE = -1e30, -1e9


_WEIGHTS = op.Softmax(value("scores")).named("weights")
_GUARDED = op.Select(op.IsNaN(value("weights")).once, constant("zero"), _WEIGHTS)


@rule(op.MatMul(_WEIGHTS.once | _GUARDED.once, value("v"), transpose_a=False, transpose_b=False))
def recognize_attention(
    w: Writer, node: Node, readers: Uses, weights: Value, scores: Value, v: Value, zero: Value | None = None
) -> Value | None:
    """MatMul(Softmax(scale * MatMul(q, k^T) + mask), v) -> SoftmaxAttention(q, k, v, mask, scale)

    The scale may be factors and divisors of the scores before the mask, or of the key. Factors of one element
    per head are multiplied into q. The key may be transposed by the product, or by a Transpose before it.
    Several masks, such as a bias of relative positions, are added first. A mask may be a Select between the
    scores and a number so low that their weights vanish. cap * tanh(scale * ...) instead of the scaled
    product makes CappedAttention. If a mask of dynamic shape may be larger than the scores, q is broadcast to
    its rows, as a view. Guarded weights, Select(IsNaN(weights), 0, weights), make GuardedAttention.

    Not matched: weights with another consumer, larger masks, and products with other transpositions.
    """
    if not _weighs_rows(weights, scores, v) or not (zero is None or _guards(zero, weights, readers)):
        return None
    parts = _scores(scores, readers)
    if parts is None or (parts.cap and zero is not None):
        return None
    factors = _query_and_key(w, parts, scores, v)
    shape = parts.windows or parts.product.shape
    if factors is None or not _masks_fit(parts, shape, v.dtype):
        return None
    q, key, scale = factors
    for factor in parts.factors:
        q = w("Multiply", q, factor)
    inputs = [q, key, v]
    if parts.windows:
        if any(not is_static(x.shape[1:]) for x in inputs):
            return None
        inputs = [w("Reshape", x, (-1, parts.windows[1], *x.shape[1:]), special_zero=False) for x in inputs]
    if parts.masks:
        mask = _sum(w, parts.masks, v.dtype)
        if not _fits(mask, shape):
            inputs[0] = _with_rows_of(w, q, mask)
        inputs.append(mask)
    else:
        inputs.append(w.b.constant(np.zeros((), numpy_dtype(v.dtype))))
    inputs.append(w.b.constant(np.array(scale, numpy_dtype(v.dtype))))
    attrs: dict[str, Any] = {"causal": False}
    name = "SoftmaxAttention" if zero is None else "GuardedAttention"
    if parts.cap:
        name, attrs["cap"] = "CappedAttention", parts.cap
    out = w(name, *inputs, **attrs)
    return w("Reshape", out, (-1, *node.output.shape[1:]), special_zero=False) if parts.windows else out


def _weighs_rows(weights: Value, scores: Value, v: Value) -> bool:
    """Whether the softmax is along the rows of scores, and attention supports the type and rank of `v`."""
    if v.dtype not in ("f32", "bf16") or scores.shape is None or v.shape is None:
        return False
    rank = len(scores.shape)
    return rank == len(v.shape) and rank in (3, 4, 5) and weights.node.attrs["axis"] in (-1, rank - 1)


def _query_and_key(w: Writer, parts: Scores, scores: Value, v: Value) -> tuple[Value, Value, float] | None:
    """(q, k, scale) of scores; None if types, ranks or factors do not fit."""
    product, scale = parts.product, parts.scale
    q, k = product.node.inputs
    if not product.node.attrs["transpose_b"] and k.node.op.name in ("Multiply", "Divide"):
        for at, each in _by_a_number(k):  # the Transpose of a key may precede its scaling
            k, scale = k.node.inputs[at], scale * each
            break
    key = _key(w, product.node, k)
    if key is None or not (q.dtype == k.dtype == v.dtype) or not _same_rank(q, k, v, product, scores):
        return None
    fit = all(factor.dtype == q.dtype and _keeps(factor, q) for factor in parts.factors)
    return (q, key, scale) if fit else None


def _masks_fit(parts: Any, shape: Any, dtype: str) -> bool:
    """Whether all masks have types that attention reads, and fit scores of this shape."""
    for mask in parts.masks:
        read, kind = (mask.condition, "boolean") if isinstance(mask, Chosen) else (mask, dtype)
        if isinstance(mask, Chosen) and len(parts.masks) > 1 and mask.number > LARGE:
            return False
        if read.dtype != kind or not (_fits if parts.windows else _may_fit)(read, shape):
            return False
    return True


def _guards(zero: Value, weights: Value, readers: Uses) -> bool:
    """Whether a Select replaces NaN weights by 0, and the weights have no other consumer."""
    return number_of(zero) == 0 and len(zero.shape) <= len(weights.shape) and readers.times(weights) == 2


def _alone(value: Value, readers: Uses, *names: str) -> bool:
    """Whether `value` is an output of an operation of these names, and has one consumer."""
    return value.node.op.name in names and readers.single(value)


class Chosen(NamedTuple):
    """A mask that replaces scores: by `number` where `condition` is not `sees`."""

    condition: Value
    sees: bool
    number: float


class Scores(NamedTuple):
    """cap tanh(scale factors q k^T) + masks; without `cap`, scale factors q k^T + masks.

    `product` is the MatMul of q and k. Masks are in the order of application. `windows`: the shape of the
    scores to which masks are applied, with the first dimension split in two (images and windows of Swin).
    None: that of `product`.
    """

    product: Value
    scale: float
    factors: tuple[Value, ...] = ()
    cap: float = 0.0
    masks: tuple[Value | Chosen, ...] = ()
    windows: tuple[Dim, ...] | None = None


def _scores(value: Value, readers: Uses) -> Scores | None:
    """The parts of scores; None if `value` has another form."""
    parts = _scaled_product(value, readers) or _with_cap(value, readers)
    if parts is not None or not _alone(value, readers, "Add", "Select", "Reshape"):
        return parts
    return {"Add": _with_mask, "Select": _with_choice, "Reshape": _in_windows}[value.node.op.name](
        value, readers
    )


def _with_mask(value: Value, readers: Uses) -> Scores | None:
    """Add(scores, mask)"""
    terms = value.node.inputs
    for at in (0, 1):
        parts = _scores(terms[at], readers)
        if parts is not None and _in_place(parts, value, terms[1 - at]):
            return parts._replace(masks=(*parts.masks, terms[1 - at]))
    return None


def _with_choice(value: Value, readers: Uses) -> Scores | None:
    """Select(mask, scores, number), or Select(mask, number, scores)"""
    terms = value.node.inputs
    for at in (1, 2):
        least = number_of(terms[3 - at])
        if least is None or least > HIDDEN or len(terms[3 - at].shape) > len(value.shape):
            continue
        parts = _scores(terms[at], readers)
        if parts is not None and _in_place(parts, value, terms[0]):
            return parts._replace(masks=(*parts.masks, Chosen(terms[0], at == 1, least)))
    return None


def _in_windows(value: Value, readers: Uses) -> Scores | None:
    """Reshape(scores), which splits the first dimension into windows, or joins them again"""
    of = value.node.inputs[0]
    parts, outer, inner = _scores(of, readers), value.shape, of.shape
    if parts is None or outer is None or inner is None or not is_static((*outer[1:], *inner[1:])):
        return None
    if outer[2:] == inner[1:] and parts.windows is None:
        alike = all(_is_for_all(m.condition if isinstance(m, Chosen) else m, inner) for m in parts.masks)
        return parts._replace(windows=outer) if alike else None
    return parts if inner == parts.windows and inner[2:] == outer[1:] else None


def _with_cap(value: Value, readers: Uses) -> Scores | None:
    """The parts of tanh(scores) times a number; None if `value` has another form."""
    if not _alone(value, readers, "Multiply", "Divide"):
        return None
    for at, cap in _by_a_number(value):
        bent = value.node.inputs[at]
        if _alone(bent, readers, "Tanh"):
            parts = _scaled_product(bent.node.inputs[0], readers)
            return None if parts is None else parts._replace(cap=cap)
    return None


def _scaled_product(value: Value, readers: Uses) -> Scores | None:
    """The parts of a MatMul times or divided by numbers, and times factors of one element per matrix; None if
    `value` has another form."""
    scale = 1.0
    factors: list[Value] = []
    while not _alone(value, readers, "MatMul"):
        if not _alone(value, readers, "Multiply", "Divide"):
            return None
        at, each = next(_by_a_number(value), (None, 1.0))
        if at is None:
            terms = value.node.inputs
            sides = (0, 1) if value.node.op.name == "Multiply" else ()
            at = next((i for i in sides if (terms[1 - i].shape or ())[-2:] == (1, 1)), None)
            if at is None:
                return None
            factors.append(terms[1 - at])
        scale *= each
        value = value.node.inputs[at]
    return Scores(value, scale, tuple(factors))


def _by_a_number(value: Value) -> Iterator[tuple[int, float]]:
    """Yields (index of an input, factor) if `value` is a product or quotient of that input and a number."""
    inputs, divides = value.node.inputs, value.node.op.name == "Divide"
    for at in (0,) if divides else (0, 1):
        factor = inputs[1 - at]
        scale = number_of(factor)
        if scale and len(factor.shape) <= len(value.shape):
            yield at, 1 / scale if divides else scale


def _key(w: Writer, product: Node, k: Value) -> Value | None:
    """k of a product q k^T; None for another product."""
    if product.attrs["transpose_a"] or k.shape is None or len(k.shape) < 3:
        return None
    if product.attrs["transpose_b"]:
        return k
    if k.node.op.name != "Transpose" or k.node.inputs[1].constant is None:
        return None
    rank = len(k.shape)
    order = [int(axis) % rank for axis in k.node.inputs[1].constant.reshape(-1)] or [*range(rank)][::-1]
    order[-2:] = order[:-3:-1]
    if order == [*range(rank)]:
        return k.node.inputs[0]
    return w("Transpose", k.node.inputs[0], order)


def _same_rank(*values: Value) -> bool:
    return len({None if v.shape is None else len(v.shape) for v in values}) == 1


def _fits(mask: Value, scores: tuple[Dim, ...]) -> bool:
    """Whether the mask provably has no dimension that the scores lack. Columns need no proof: weights of more
    columns do not fit the values."""
    if mask.shape is None or len(mask.shape) > len(scores):
        return False
    lead = len(scores) - len(mask.shape)
    rows = zip(mask.shape[:-1], scores[lead:-1], strict=True)
    return all(m == 1 or (isinstance(m, int) and m == s) for m, s in rows)


def _in_place(parts: Scores, value: Value, mask: Value) -> bool:
    """Whether a mask of `value` also fits scores of the windows, if there are any."""
    if parts.windows is None or value.shape is None or len(value.shape) == len(parts.windows):
        return True
    return _is_for_all(mask, value.shape)


def _is_for_all(mask: Value, scores: tuple[Dim, ...]) -> bool:
    """Whether the mask is broadcast along the first dimension of the scores."""
    return mask.shape is not None and (len(mask.shape) < len(scores) or mask.shape[0] == 1)


def _may_fit(mask: Value, scores: tuple[Dim, ...]) -> bool:
    """Whether the mask is not provably larger than the scores. An addend of unknown size is taken for a
    mask."""
    if mask.shape is None or len(mask.shape) > len(scores):
        return False
    joint = broadcast(mask.shape, scores)
    if joint is None:
        return False
    return all(
        not isinstance(size, int) or not isinstance(s, int) or size == s
        for size, s in zip(joint, scores, strict=True)
    )


def _keeps(factor: Value, q: Value) -> bool:
    """Whether `q` times `factor` provably has the shape of `q`."""
    if factor.shape is None or q.shape is None or len(factor.shape) > len(q.shape):
        return False
    pairs = zip(reversed(factor.shape), reversed(q.shape), strict=False)
    return all(f == 1 or (isinstance(f, int) and f == n) for f, n in pairs)


def _sum(w: Writer, masks: Sequence[Value | Chosen], dtype: str) -> Value:
    """The sum of all masks. Layers with the same masks share it."""
    total: Value | None = None
    for mask in masks:
        if isinstance(mask, Chosen):
            least = mask.number if len(masks) > 1 else min(mask.number, ABSORBING)
            base = w.b.constant(np.zeros((), numpy_dtype(dtype))) if total is None else total
            hidden = w.b.constant(np.array(least, numpy_dtype(dtype)))
            chosen = (base, hidden) if mask.sees else (hidden, base)
            total = _once(w, "Select", (mask.condition, *chosen), tuple)
        else:
            total = mask if total is None else _once(w, "Add", (total, mask), frozenset)
    assert total is not None
    return total


def _once(w: Writer, name: str, inputs: Sequence[Value], joined: Callable[[Any], Any]) -> Value:
    """The result of an operation. Layers whose inputs have equal keys, combined by `joined`, share it."""
    return w.once((name, joined(map(_key_of, inputs))), lambda: w(name, *inputs))


def _key_of(value: Value) -> Any:
    """A key that is the same for one value, and for equal constants."""
    return value if number_of(value) is None else (value.type.shape, value.dtype, number_of(value))


def _with_rows_of(w: Writer, q: Value, mask: Value) -> Value:
    """q broadcast to all dimensions of the mask except for its columns."""
    rows = w("Slice", w("ShapeOf", mask, output_type="i64"), [0], [-1], [1])
    return w("Broadcast", q, w("Concat", rows, np.ones(1, np.int64), axis=0), mode="bidirectional")
