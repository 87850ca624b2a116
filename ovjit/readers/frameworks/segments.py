"""Operators of TensorFlow that put rows together by numbers: segments, counts, sparse tensors."""

from __future__ import annotations

import ml_dtypes

from ovjit.graph.dtypes import numpy_dtype
from ovjit.readers.onnx.rule_language import *


def _numbers_below(n: OnnxNode, ids: Output, count: Output) -> Output:
    """Segment ids as i64, negative ones replaced by `count`."""
    numbers = n.convert(ids, "i64")
    out = n("LogicalOr", n("Less", numbers, n.const(0)), n("GreaterEqual", numbers, count))
    return n("Select", out, count, numbers)


def _join_rows(
    n: OnnxNode, x: Output, ids: Output, count: Output, how: str, start: float | int, rank: int
) -> Output:
    """Reduce the rows of `x` with equal ids by `how`, from `start` on. `ids` has `rank` dimensions, the first
    ones of `x`; `count` is the number of segments. Rows with a negative id go to a further row, which is
    dropped.

    There is a row more while they are joined, for numbers that no row has."""
    rows = n("Concat", n("Add", count, n.const([1])), n.slice(n.shape_of(x), 0, rank), axis=0)
    empty = n.broadcast(n.like(x, start), rows)
    indices = n.unsqueeze(_numbers_below(n, ids, n.scalar(count)), [rank])
    result = n("ScatterNDUpdate", empty, indices, x, reduction=how, opset=15)
    return n.slice(result, 0, 0, -1)


def _counts(n: OnnxNode, ids: Output, count: Output) -> Output:
    """Number of occurrences of each id below `count`."""
    ones = n.broadcast(n.const(1, "i64"), n.shape_of(ids))
    return _join_rows(n, ones, ids, count, "sum", 0, n.rank(ids))


def _least(n: OnnxNode, x: Output) -> float | int:
    """The lowest finite number of an element type."""
    row = ELEMENT_TYPES[n.dtype(x)]
    if not row.is_real:
        return int(value_range(n.dtype(x))[0])
    return float(ml_dtypes.finfo(numpy_dtype(n.dtype(x))).min)


def _greatest(n: OnnxNode, x: Output) -> float | int:
    return -_least(n, x) if n.is_real(x) else int(value_range(n.dtype(x))[1])


def _last_number(n: OnnxNode, ids: Output) -> Output:
    """Number of segments, i64 [1]: the last id + 1."""
    with_start = n("Concat", n.const([-1]), n.convert(ids, "i64"), axis=0)
    return n("Add", n.slice(with_start, 0, -1), n.const([1]))


def _of_all(n: OnnxNode, x: Output, sums: Output, ids: Output, count: Output, root: bool = False) -> Output:
    """Sums of segments divided by their numbers of rows, or by the square roots of these; empty segments stay
    0."""
    much = n.convert(n("Maximum", _counts(n, ids, count), n.const(1)), n.dtype(x))
    much = n("Sqrt", much) if root else much
    rank = n.rank(x)
    return n("Divide", sums, n.along(much, 0, rank), m_pythondiv=False)


def _segments(how: str) -> Rule:
    """Rule that reduces segments with sorted ids; empty segments are 0, or 1 for products."""

    def rule(n: OnnxNode) -> Output:
        x, ids = n[0], n[1]
        count = _last_number(n, ids)
        if how in ("sum", "prod", "mean"):
            result = _join_rows(n, x, ids, count, "prod" if how == "prod" else "sum", int(how == "prod"), 1)
            return _of_all(n, x, result, ids, count) if how == "mean" else result
        low, high = value_range(n.dtype(x))
        result = _join_rows(n, x, ids, count, how, low if how == "max" else high, 1)
        empty = n("Equal", _counts(n, ids, count), n.const(0))
        return n("Select", n.along(empty, 0, n.rank(x)), n.like(x, 0), result)

    return rule


def _unsorted_rule(how: str) -> Rule:
    """Rule that reduces segments with unsorted ids; rows with negative ids are left out."""

    def rule(n: OnnxNode) -> Output:
        x, ids = n[0], n[1]
        starts = {"sum": 0, "prod": 1, "max": _least(n, x), "min": _greatest(n, x)}
        count = n.reshape(n.convert(n[2], "i64"), [1])
        return _join_rows(n, x, ids, count, how, starts[how], n.rank(ids))

    return rule


def _sparse_segments(how: str) -> Rule:
    """Rule for x[indices] reduced by sorted segment ids. `how`: "sum", "mean", "root" (sum / sqrt(count))."""

    def rule(n: OnnxNode) -> Output:
        x, ids = n("Gather", n[0], n[1], n.const(0)), n[2]
        count = n.reshape(n.convert(n[3], "i64"), [1]) if len(n) > 3 else _last_number(n, ids)
        result = _join_rows(n, x, ids, count, "sum", 0, 1)
        return result if how == "sum" else _of_all(n, x, result, ids, count, how == "root")

    return rule


def _bincount(n: OnnxNode) -> Output:
    """Counts each number below a size, or sums its weights; a matrix row by row."""
    x, size = n.convert(n[0], "i64"), n.reshape(n.convert(n[1], "i64"), [1])
    weights = None if 0 in (n.shape(n[2]) or ()) else n[2]
    kind, rank = n.dtype(n[2]), n.rank(x)
    if n.op_type == "Bincount" and rank != 1:
        x, rank = n.reshape(x, [-1]), 1
        weights = None if weights is None else n.reshape(weights, [-1])
    if weights is None:
        weights = n.broadcast(n.const(1, kind), n.shape_of(x))
    more = n("Add", size, n.const([1]))
    zeros = n.broadcast(n.const(0, kind), n.concat([n.slice(n.shape_of(x), 0, 0, -1), more], 0))
    indices = _numbers_below(n, x, n.scalar(size))
    result = n("ScatterElementsUpdate", zeros, indices, weights, n.const(-1), reduction="sum", opset=12)
    result = n.slice(result, rank - 1, 0, -1)
    if n.attr("binary_output", 0):
        return n.convert(n("NotEqual", result, n.like(result, 0)), kind)
    return result


def _invert_permutation(n: OnnxNode) -> Output:
    """Inverse of a permutation."""
    positions = n.convert(n.upto(n.dim_of(n[0], 0)), n.dtype(n[0]))
    return n("ScatterElementsUpdate", n[0], n[0], positions, n.const(0), opset=3)


def _filled_rows(n: OnnxNode) -> list[Output]:
    """A sparse tensor with the default value at the start of each empty row, sorted by rows; which rows were
    empty; and where each value is now."""
    indices, values, shape, default = (n[i] for i in range(4))
    rows = n.slice(n.convert(shape, "i64"), 0, 0, 1)
    firsts = n.squeeze(n.slice(indices, 1, 0, 1), [1])
    empty = n("Equal", _counts(n, firsts, rows), n.const(0))
    new = n.swap_rows_and_columns(n("NonZero", empty, output_type="i64"))
    other_columns = n("Subtract", n.dim_of(indices, 1), n.const([1]))
    zeros = n.broadcast(n.const(0), n("Concat", n.dim_of(new, 0), other_columns, axis=0))
    every = n("Concat", indices, n("Concat", new, zeros, axis=1), axis=0)
    filled = n("Concat", values, n.broadcast(default, n.dim_of(new, 0)), axis=0)
    order = n.top_k(n.squeeze(n.slice(every, 1, 0, 1), [1]), n.scalar(n.dim_of(every, 0)), 0, "min")[1]
    positions = n("ScatterElementsUpdate", order, order, n.upto(n.dim_of(order, 0)), n.const(0), opset=3)
    old = n("Slice", positions, [0], n.dim_of(indices, 0), [1], [0])
    return [*(n("Gather", v, order, n.const(0)) for v in (every, filled)), empty, old]


def _dense(n: OnnxNode, indices: Output, values: Output, shape: Output) -> Output:
    zeros = n.broadcast(n.like(values, 0), n.convert(shape, "i64"))
    return n("ScatterNDUpdate", zeros, indices, values, reduction="sum", opset=15)


def _sparse_product(n: OnnxNode) -> Output:
    """The product of a sparse matrix, which is made dense, and a dense matrix."""
    options = {"transpose_a": bool(n.attr("adjoint_a", 0)), "transpose_b": bool(n.attr("adjoint_b", 0))}
    return n("MatMul", _dense(n, n[0], n[1], n[2]), n[3], **options)


def _sparse_to_dense(n: OnnxNode) -> Output:
    """A dense tensor with values (or one value) at indices, and the default value elsewhere."""
    indices, shape, values, default = (n[i] for i in range(4))
    if n.rank(indices) < 2:
        indices = n.reshape(indices, [-1, 1] if n.rank(indices) else [1, 1])
    background = n.broadcast(n.scalar(default), n.convert(shape, "i64"))
    return n("ScatterNDUpdate", background, indices, n.broadcast(values, n.dim_of(indices, 0)), opset=15)


def _difference(n: OnnxNode) -> list[Output]:
    """Elements of the first list that are not in the second one, and their indices."""
    same = n("Equal", n.unsqueeze(n[0], [1]), n.unsqueeze(n[1], [0]))
    is_missing = n("LogicalNot", n("ReduceLogicalOr", same, [1], keep_dims=False))
    kind = n.data_type("out_idx", 6)
    indices = n.squeeze(n("NonZero", is_missing, output_type=kind), [0])
    return [n("Gather", n[0], indices, n.const(0)), indices]


def _unravel_indices(n: OnnxNode) -> Output:
    """Flat indices -> indices along each dimension."""
    count = n.static_shape(n[1], "the number of dimensions")[0]
    dims = [n.slice(n[1], 0, i, i + 1) for i in range(count)]
    quotient, rows = n[0] if n.rank(n[0]) else n.unsqueeze(n[0], [0]), []
    for dim in reversed(dims):
        rows.append(n("FloorMod", quotient, dim))
        quotient = n("Divide", quotient, dim, m_pythondiv=True)
    result = n.concat([n.unsqueeze(row, [0]) for row in reversed(rows)], 0)
    return result if n.rank(n[0]) else n.squeeze(result, [1])


def _ctc_loss(n: OnnxNode) -> list[Output]:
    """CTC loss of logits [time, samples, classes] and labels, a sparse matrix."""
    if n.attr("ignore_longer_outputs_than_inputs", 0):
        raise UnsupportedError("ignore_longer_outputs_than_inputs is not supported")
    logits, indices, values, steps = (n[i] for i in range(4))
    samples = n.dim_of(logits, 1)
    shape = n("Concat", samples, n.dim_of(logits, 0), axis=0)
    labels = _dense(n, indices, values, shape)
    lengths = _counts(n, n.squeeze(n.slice(indices, 1, 0, 1), [1]), samples)
    blank = n.const(0, "i32") if n.op_type == "CTCLossV2" else n.const(n.last_dim(logits) - 1, "i32")
    result = n(
        "CTCLoss", n.transpose(logits, [1, 0, 2]), steps, labels, n.convert(lengths, n.dtype(steps)), blank,
        preprocess_collapse_repeated=bool(n.attr("preprocess_collapse_repeated", 0)),
        ctc_merge_repeated=bool(n.attr("ctc_merge_repeated", 1)), unique=False,
    )  # fmt: skip
    return [result]


SEGMENTS: dict[str, Rule] = {
    **{f"Segment{how.title()}": _segments(how) for how in ("sum", "prod", "max", "min", "mean")},
    **{f"UnsortedSegment{how.title()}": _unsorted_rule(how) for how in ("sum", "prod", "max", "min")},
    **{
        f"SparseSegment{name}{end}": _sparse_segments(how)
        for name, how in (("Sum", "sum"), ("Mean", "mean"), ("SqrtN", "root"))
        for end in ("", "WithNumSegments")
    },
    "Bincount": _bincount,
    "DenseBincount": _bincount,
    "InvertPermutation": _invert_permutation,
    "SparseFillEmptyRows": _filled_rows,
    "SparseTensorDenseAdd": lambda n: n("ScatterNDUpdate", n[3], n[0], n[1], reduction="sum", opset=15),
    "SparseTensorDenseMatMul": _sparse_product,
    "SparseToDense": _sparse_to_dense,
    "ListDiff": _difference,
    "UnravelIndex": _unravel_indices,
    "CTCLoss": _ctc_loss,
    "CTCLossV2": _ctc_loss,
}
