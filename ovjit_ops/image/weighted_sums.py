"""Weighted sums of neighbouring elements along an axis, with constant weights: what a resize becomes if
Interpolate has no mode for it, as ONNX's Resize with antialiasing.

A Model has them as a Gather of the elements, a product and a sum, which store every product. The internal
operation here reads each element where it lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.graph import Replacement, Value
from ovjit.graph.op import Int, TensorType, op
from ovjit.rewrite import pattern
from ovjit.rewrite.pattern import constant, value
from ovjit.rewrite.rules import rule
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.checks import check_rank, check_type, dims
from ovjit_ops.image.resampling import Table, adjacent, resample

#: The sum may have more terms than the Model's by this factor and number: a table has neighbours only.
_MORE, _FEW = 2, 4

_gathered = pattern.op.Gather(value("x"), constant("index"), constant("axis")).once
_selected = pattern.op.Select(constant("zero"), constant("filling"), _gathered).once
_products = pattern.op.Multiply(_gathered | _selected, constant("weights")).once


@rule(pattern.op.ReduceSum(_products, constant("axes"), keep_dims=False))
def recognize_weighted_sums(
    w: Writer, x: Value, index: Value, axis: Value, weights: Value, axes: Value, zero: Value | None = None,
    filling: Value | None = None,
) -> Replacement:  # fmt: skip
    """ReduceSum(Gather(x, index, axis) * weights, axis + 1) -> WeightedSums(x, starts, weights)"""
    at, terms, factors = (v.constant for v in (axis, index, weights))
    assert at is not None and terms is not None and factors is not None
    if x.shape is None or x.dtype != "f32" or at.size != 1 or terms.ndim != 2 or not terms.size:
        return None
    along = int(at.reshape(-1)[0]) % len(x.shape)
    extent, rank = x.shape[along], len(x.shape) + 1
    table_shape = (*terms.shape, *[1] * (rank - along - 2))
    if not isinstance(extent, int) or _only(axes) not in (along + 1, along + 1 - rank):
        return None
    # with a weight of 0, a NaN counts in the Model unless it is replaced
    complete = factors.all() if zero is None or filling is None else _leaves_out(zero, filling, factors)
    if terms.min() < 0 or terms.max() >= extent or factors.shape != table_shape or not complete:
        return None
    table = adjacent(terms.astype(np.int64), factors.reshape(terms.shape).astype(np.float64), extent)
    if table.taps > _MORE * terms.shape[1] + _FEW:
        return None
    starts = w.b.constant(table.start.astype(np.int32))
    return [w("WeightedSums", x, starts, w.b.constant(table.weight.astype(np.float32)), axis=along)]


def _only(axes: Value) -> int | None:
    """The one axis; None for another number of them."""
    array = axes.constant
    return int(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _leaves_out(zero: Value, filling: Value, factors: np.ndarray) -> bool:
    """Whether the elements of weight 0, and only they, are replaced by 0."""
    mask, values = zero.constant, filling.constant
    assert mask is not None and values is not None
    return np.array_equal(mask, factors == 0) and not np.any(values)


@op(
    "WeightedSums", internal=True, lower=".cpu_resize:SumAlongAxis.of", ulp=16,
    rules=[recognize_weighted_sums], rules_for=["ReduceSum"],
)  # fmt: skip
class WeightedSums:
    """y[..., o, ...] = the sum over t of weights[o, t] * x[..., starts[o] + t, ...] along `axis`; elements of
    weight 0 do not count. `starts` and `weights` are constants."""

    def infer(x, starts, weights, *, axis: Int):
        check_type(x, ("f32", "f64"))  # f64: of the reference
        sums = dims(starts, 1, "the starts")
        check_rank(weights, 2, "the weights")
        check(x.shape is None or axis < len(x.shape), f"axis {axis} is out of range for {x}")
        return TensorType(x.dtype, x.shape and (*x.shape[:axis], *sums, *x.shape[axis + 1 :]))

    def ref(x, starts, weights, *, axis):
        return resample(x, axis, Table(starts.astype(np.int64), weights))


def table_of(node: Any) -> Table:
    """The table of a node."""
    starts, weights = (v.constant for v in node.inputs[1:])
    return Table(starts.astype(np.int64), weights.astype(np.float64))
