"""Attention that a module writes out, as one operation: OpenVINO's `convert_model` does so, too."""

from __future__ import annotations

import numpy as np

from ovjit.api.model.boundary import Constant
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.api.model.on_models import Seen, SeenNode, Users, applied
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import find_op
from ovjit.graph.shapes import Interval, surely_equal
from ovjit.rewrite.pattern import Scaled, constant, op, value
from ovjit.rewrite.rules import rule

_PRODUCT = op.MatMul(value("q"), value("k"), transpose_a=False).named("product")
_SCORES = Scaled(_PRODUCT.once, "scale")
#: What the scores are is not sure where both terms are such products.
_MASK = value("mask").where(lambda mask: not Scaled(op.MatMul(...), "").matches(mask))
_WEIGHTS = op.Softmax(_SCORES | op.Add(_SCORES, _MASK).once).named("weights")
_SPLIT = op.Transpose(...)
_TURNED = op.Transpose(value("k"), constant("order"))


def fuse_attention(model: Model) -> None:
    """Apply `write_attention` wherever it fits."""
    for _ in applied([write_attention], model, Users(model)):
        pass


@rule(op.MatMul(_WEIGHTS.once, value("v"), transpose_a=False, transpose_b=False))
def write_attention(
    node: SeenNode, readers: Users, weights: Seen, product: Seen, q: Seen, k: Seen, v: Seen, scale: float,
    mask: Seen | None = None,
) -> bool | None:  # fmt: skip
    """MatMul(Softmax(scale * MatMul(q, k^T) + mask), v) -> ScaledDotProductAttention(q, k, v, mask, scale)

    The scale is a number that multiplies or divides the scores. Not matched: tensors of other ranks than 3
    and 4, several masks, masks larger than the scores, and weights that another node reads. As in OpenVINO, a
    mask of open shape, which may be larger, is taken where the query is a Transpose, as that of split heads.
    """
    rank = len(weights.shape or ())
    if rank not in (3, 4) or weights.node.attrs["axis"] not in (-1, rank - 1):
        return None
    if not rank == len(q.shape or ()) == len(k.shape or ()):
        return None
    if mask is not None:
        fits = _fit(mask.shape, weights.shape)
        if fits is None or not (fits or _SPLIT.matches(q)):
            return None
    swapped = [*range(rank - 2), rank - 1, rank - 2]
    turned = not product.node.attrs["transpose_b"]
    found = _TURNED.first(k) if turned and readers.times(k) == 1 else None
    if found is not None and found["order"].constant.tolist() == swapped:
        k, turned = found["k"], False
    key = k.port
    name = node.of.get_friendly_name()
    if turned:
        order = Output._of(Constant._of(np.array(swapped), "i64", None, f"{name}/Constant"), 0)
        key = Output._of(Node._new(find_op("Transpose", None), [key, order], {}, f"{name}/Transpose"), 0)
    kind = node.output.dtype
    zero, factor = (
        Output._of(Constant._of(np.array(number, numpy_dtype(kind)), kind, None, f"{name}/{part}"), 0)
        for number, part in ((0, "mask"), (scale, "scale"))
    )
    record = find_op("ScaledDotProductAttention", None)
    inputs = [q.port, key, v.port, zero if mask is None else mask.port, factor]
    made = Node._new(record, inputs, record.check_attributes({"causal": False}), name)
    node.output.port.replace(Output._of(made, 0))
    return True


def _fit(mask: tuple | None, scores: tuple) -> bool | None:
    """Whether a mask of this shape is surely no larger than the scores; None where it is."""
    if mask is None or len(mask) > len(scores):
        return None
    pairs = list(zip(reversed(mask), reversed(scores), strict=False))
    fits = [a == 1 or surely_equal(a, b) for a, b in pairs]
    if not all(fit or isinstance(a, Interval) for fit, (a, _) in zip(fits, pairs, strict=True)):
        return None
    return all(fits)
