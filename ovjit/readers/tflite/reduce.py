"""Reductions, positions of extremes, running sums, softmax and norms."""

from __future__ import annotations

from ovjit.readers.tflite.elementwise import typed
from ovjit.readers.tflite.rule_language import *

REDUCTIONS = {
    "MEAN": "ReduceMean", "SUM": "ReduceSum", "REDUCE_PROD": "ReduceProd", "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin", "REDUCE_ANY": "ReduceLogicalOr", "REDUCE_ALL": "ReduceLogicalAnd",
}  # fmt: skip


@tflite_op(*REDUCTIONS)
def reduction(n: LiteNode) -> Any:
    """A reduction, done channels-first where the remaining axes keep their order."""
    x, keep, op = n[0], bool(n.option("KeepDims", False)), REDUCTIONS[n.op_type]
    first, constant_axes = n.reader.layouts.find(x), n.value(n[1])
    if first is None or constant_axes is None:
        return n(op, x, n[1], keep_dims=keep)
    rank = n.rank(x)
    axes = n.axes(constant_axes.reshape(-1), rank)
    if keep:
        return n.last(n(op, first, move_axes(axes, rank), keep_dims=True))
    remaining_axes = move_axes([a for a in range(rank) if a not in axes], rank)
    if remaining_axes != sorted(remaining_axes):
        return n(op, x, n[1], keep_dims=False)
    return n(op, first, move_axes(axes, rank), keep_dims=False)


def move_axes(axes: list[int], rank: int) -> list[int]:
    """Axes of a channels-last tensor as axes of its channels-first form."""
    return [1 if a == rank - 1 else a + 1 if a else 0 for a in axes]


@tflite_op("ARG_MAX", "ARG_MIN")
def arg_extreme(n: LiteNode) -> Any:
    """The first index of the largest or smallest element along an axis."""
    x = n[0]
    axes = n.known_ints(1, "the axis")
    if len(axes) != 1:
        raise UnsupportedError("ArgMax/ArgMin must be with a scalar axis input.")
    axis = n.axis(axes[0], n.rank(x))
    mode = "max" if n.op_type == "ARG_MAX" else "min"
    return n.squeeze(n.top_k(x, 1, axis, mode, typed(n.option("OutputType")))[1], [axis])


@tflite_op("SOFTMAX")
def softmax(n: LiteNode) -> Any:
    """softmax(beta * x) along the last axis"""
    x, beta = n[0], n.option("Beta", 1.0)
    if beta != 1:
        x = n("Multiply", x, n.like(x, beta))
    return n("Softmax", x, axis=-1, opset=8)


@tflite_op("SEGMENT_SUM")
def segment_sum(n: LiteNode) -> Any:
    """Sums of rows with equal segment ids, which are sorted and begin with 0."""
    x, numbers = n[0], n[1]
    kind = n.dtype(numbers)
    count = n("Add", n("Gather", numbers, n.like(numbers, -1), 0), n.like(numbers, 1))
    rows = n("Range", n.like(numbers, 0), n.convert(n.scalar(n.dim_of(numbers, 0)), kind), n.like(numbers, 1),
             output_type=kind)  # fmt: skip
    return n("EmbeddingSegmentsSum", x, rows, numbers, n.fold(count))


#: Operators that are one expression.
tflite_ops({
    "CUMSUM": lambda n: n("CumSum", n[0], n[1], exclusive=bool(n.option("Exclusive", False)),
                          reverse=bool(n.option("Reverse", False))),
    "LOG_SOFTMAX": lambda n: n("LogSoftmax", n[0], axis=-1),
    # x / max(sqrt(sum(x ** 2)), eps) along the last axis
    "L2_NORMALIZATION": lambda n: n.activate(
        n("NormalizeL2", n[0], n.const([n.axis(-1, n.rank(n[0]))]), eps=1e-6, eps_mode="max")),
})  # fmt: skip
