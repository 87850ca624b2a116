"""Attention that a module writes out, as one operation, where OpenVINO's `convert_model` does so, too."""

from __future__ import annotations

import numpy as np

from ovjit.build.rules import ModelNode, ModelValue, ModelWriter
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.shapes import Interval
from ovjit.graph.symbolic import statically_known_equal
from ovjit.readers.torch.fusions.transposes import input_of_transpose
from ovjit.records import NamedTuple
from ovjit.rewrite.pattern import op, value
from ovjit.rewrite.rules import rule

#: The least rank of q, k and v, and the largest that is taken with a mask.
_LEAST, _MASKED = 3, 4


def _is_single(value: ModelValue) -> bool:
    return value.shape is not None and all(d == 1 for d in value.shape)


_PRODUCT = op.MatMul(value("q"), ..., transpose_a=False).once.named("product")
_SCORES = op.Multiply(_PRODUCT, value("scale").where(_is_single)) | _PRODUCT
_SUM = op.Add(_SCORES, value("mask")).once.named("sum")
_WEIGHTS = op.Softmax(_SUM | _SCORES).named("weights")
_JOINED = op.Concat(_SUM | _SCORES, value("sinks")).named("joined")
_GREATEST = op["TopK ReduceMax"](value("joined"), ...).named("greatest")
_PART = op.Slice(op.Softmax(_JOINED - _GREATEST).once.named("weights"), ...).named("part")
_BROADCAST, _TOP = op.Broadcast(...), op.TopK(...)
_SCALED = op.Multiply(value("k"), value("scale").where(_is_single))


@rule(op.MatMul(_WEIGHTS.once, value("v"), transpose_a=False, transpose_b=False))
def write_attention(
    w: ModelWriter, node: ModelNode, weights: ModelValue, product: ModelValue, q: ModelValue, v: ModelValue,
    scale: ModelValue | None = None, mask: ModelValue | None = None, sum: ModelValue | None = None,
) -> ModelValue | None:  # fmt: skip
    """MatMul(Softmax(MatMul(q, k^T) * scale + mask), v) -> ScaledDotProductAttention(q, k, v, mask, scale)

    One number scales the scores or k. Not matched: quotients, several masks, numbers of heads that may
    differ, masks that change the lengths of the scores, and weights that another node reads. A mask of open
    lengths is taken to have those of the scores. These are OpenVINO's conditions.
    """
    return _write(w, node, weights, product, q, v, scale, mask, sum)


@rule(op.MatMul(_PART.once, value("v"), transpose_a=False, transpose_b=False))
def write_attention_with_sinks(
    w: ModelWriter, node: ModelNode, weights: ModelValue, part: ModelValue, joined: ModelValue,
    greatest: ModelValue, sinks: ModelValue, product: ModelValue, q: ModelValue, v: ModelValue,
    scale: ModelValue | None = None, mask: ModelValue | None = None, sum: ModelValue | None = None,
) -> ModelValue | None:  # fmt: skip
    """x = Concat(MatMul(q, k^T) * scale + mask, sinks)
    MatMul(Slice(Softmax(x - ReduceMax(x))), v) -> ScaledDotProductAttention(q, k, v, mask, scale, sinks)

    The last column of the weights, that of the sinks, is left out. k is not turned, as OpenVINO wants it.
    """
    while _BROADCAST.fits(sinks.node.op):
        sinks = sinks.node.inputs[0]
    heads, result = list(sinks.shape or ()), list(joined.shape or ())
    if (
        heads[:1] + heads[2:] != [1, 1, 1]
        or len(result) != 4
        or not statically_known_equal(heads[1], result[1])
    ):
        return None
    if (
        joined.node.attrs["axis"] not in (-1, 3)
        or not _leaves_last_out(part, 3)
        or not _is_greatest(greatest)
    ):
        return None
    scores = joined.node.inputs[0]
    if not product.node.attrs["transpose_b"]:
        return None
    return _write(w, node, scores, product, q, v, scale, mask, sum, sinks, weights.node.attrs["axis"])


def _is_greatest(value: ModelValue) -> bool:
    """Whether the value is the maximum along the last axis, with that axis kept."""
    attrs = value.node.attrs
    if _TOP.fits(value.node.op):
        of_values = value.index == 0 and attrs["mode"] == "max"
        return of_values and attrs["axis"] in (-1, 3) and list(value.shape or ())[-1:] == [1]
    axes = value.node.inputs[1].constant
    along = None if axes is None else axes.reshape(-1).tolist()
    return along in ([-1], [3]) and bool(attrs["keep_dims"])


def _leaves_last_out(cut: ModelValue, axis: int) -> bool:
    """Whether `cut` is a Slice that drops the last element along the axis."""
    numbers = [x.constant for x in cut.node.inputs[1:]]
    bounds = [int(x.reshape(-1)[0]) for x in numbers if x is not None and x.size == 1]
    return bounds in ([0, -1, 1, axis], [0, -1, 1, axis - 4])


def _write(
    w: ModelWriter, node: ModelNode, weights: ModelValue, product: ModelValue, q: ModelValue, v: ModelValue,
    scale: ModelValue | None, mask: ModelValue | None, sum: ModelValue | None,
    sinks: ModelValue | None = None, axis: int | None = None,
) -> ModelValue | None:  # fmt: skip
    """Put attention in place of `node`, whose scores have the shape of `weights`. None where it cannot be."""
    rank, key = len(weights.shape or ()), _key_of(product)
    axis = weights.node.attrs["axis"] if axis is None else axis
    if rank < _LEAST or (mask is not None and max(rank, len(mask.shape or ())) > _MASKED):
        return None
    if key is None or (scale and key.scale) or axis not in (-1, rank - 1):
        return None
    if not _keeps_heads([q, key.k, v, product, weights, node.output], rank):
        return None
    if sum is not None and not _keeps_lengths(sum, product):
        return None
    factor, kind = scale or key.scale, node.output.dtype
    fitted_mask = _number(w, 0, kind) if mask is None else _fit_mask(w, mask)
    scalar = _number(w, 1, kind) if factor is None else _scalar(w, factor)
    inputs = [q, _turned_back(w, key), v, fitted_mask, scalar]
    return w("ScaledDotProductAttention", *inputs, *([] if sinks is None else [sinks]), causal=False)


class _Key(NamedTuple):
    """The second factor of the scores, without its scale, and whether it is transposed."""

    k: ModelValue
    is_turned: bool
    scale: ModelValue | None


def _key_of(product: ModelValue) -> _Key | None:
    """The keys of a product of queries and keys; None if they are scaled by a tensor."""
    k = product.node.inputs[1]
    is_turned = not product.node.attrs["transpose_b"]
    match = _SCALED.first(k)
    if match is not None:
        return _Key(match["k"], is_turned, match["scale"])
    return None if op.Multiply(...).matches(k) else _Key(k, is_turned, None)


def _keeps_heads(values: list[ModelValue], rank: int) -> bool:
    """Whether all have this rank, and surely the same number of heads."""
    shapes = [value.shape for value in values]
    if any(shape is None or len(shape) != rank for shape in shapes):
        return False
    return all(statically_known_equal(shape[-3], shapes[0][-3]) for shape in shapes)


def _keeps_lengths(total: ModelValue, product: ModelValue) -> bool:
    """Whether the mask does not broadcast the scores: their last two dimensions are the same with and without
    it."""
    first, result = total.node.inputs[0].shape, total.shape
    if first is None or result is None or product.shape is None:
        return False
    ends = [*first[-2:], *result[-2:]]
    if len(first) > 1 and all(isinstance(d, Interval) for d in ends):
        return True
    return all(statically_known_equal(a, b) for a, b in zip(result[-2:], product.shape[-2:], strict=True))


def _turned_back(w: ModelWriter, key: _Key) -> ModelValue:
    """The keys with a row per position."""
    if not key.is_turned:
        return key.k
    if (before := input_of_transpose(key.k)) is not None:
        return before
    rank = len(key.k.shape or ())
    return w("Transpose", key.k, [*range(rank - 2), rank - 1, rank - 2])


def _fit_mask(w: ModelWriter, mask: ModelValue) -> ModelValue:
    """The mask with at least two dimensions, without further leading dimensions of 1."""
    shape = mask.shape or ()
    lengths = [*shape[:-2], None]
    ones = next(i for i, d in enumerate(lengths) if d != 1)
    missing = 2 - len(shape)
    if not ones and missing <= 0:
        return mask
    if mask.constant is not None:
        return w.b.constant(mask.constant.reshape((1,) * missing + mask.constant.shape[ones:]), mask.dtype)
    return w("Squeeze" if ones else "Unsqueeze", mask, [*range(max(ones, missing))])


def _scalar(w: ModelWriter, factor: ModelValue) -> ModelValue:
    """A factor of one element with one dimension or none."""
    if factor.constant is not None:
        return w.b.constant(factor.constant.reshape(()), factor.dtype)
    return factor if len(factor.shape or ()) < 2 else w("Reshape", factor, [1], special_zero=False)


def _number(w: ModelWriter, number: float, kind: str) -> ModelValue:
    return w.b.constant(np.array(number, numpy_dtype(kind)), kind)


ATTENTION = [[write_attention, write_attention_with_sinks]]
