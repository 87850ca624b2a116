"""Bags of embeddings: sums, means or maxima of rows of a table, by segments.

An index out of range raises InferenceError, or in EmbeddingBagRanges is a row of zeros. Memory outside of the
table is never read.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.dtypes import FULL
from ovjit.graph.op import TensorType, Word, op
from ovjit.graph.shapes import ANY, Dim
from ovjit_ops.common.checks import check_rank, check_same_type, check_type
from ovjit_ops.common.dims import Dims, unify
from ovjit_ops.common.values import INDEX_TYPES, check_one, check_scalar, extent_of, in_f32, shape_scalar
from ovjit_ops.elementwise.arithmetic import NUMBERS, divide
from ovjit_ops.indexing.cpu_embedding import LOWEST
from ovjit_ops.indexing.cpu_segments import lowest_of
from ovjit_ops.indexing.gather import checked_indices, gather


def check_indices(named: dict[str, TensorType | None]) -> None:
    """Raise ModelError unless indices are i32 or i64, all of one type."""
    kinds = {x.dtype for x in named.values() if x is not None} - {"dynamic"}
    for name, x in named.items():
        check_type(x, INDEX_TYPES, name)
    for name in ("num_segments", "default_index"):
        one = named.get(name)
        if one is not None:
            check_one(one, name)
    check(len(kinds) <= 1, f"{', '.join(named)} should have the same element type")


def check_weights(
    table: TensorType,
    weights: TensorType | None,
    reduction: str = "sum",
) -> None:
    check(reduction == "sum" or weights is None, "per_sample_weights are valid only with the reduction sum")
    check_same_type(weights, table, "per_sample_weights")


def sum_rows(
    table: np.ndarray,
    indices: np.ndarray,
    weights: np.ndarray | None,
    bag: np.ndarray,
    bags: int,
    default: int | None,
    mean: bool = False,
) -> np.ndarray:
    """out[bag[i]] += table[indices[i]] * weights[i]. An empty bag is the row `default`, or zeros.

    Means of integers are rounded towards zero. Raises InferenceError for an index out of range.
    """
    rows = table[checked_indices(indices, table.shape[0])]
    if weights is not None:
        rows = rows * weights.reshape(-1, *(1,) * (table.ndim - 1)).astype(rows.dtype)
    out = np.zeros((bags, *table.shape[1:]), rows.dtype)
    np.add.at(out, bag, rows)
    count = np.bincount(bag, minlength=bags)
    if mean:
        divisor = np.maximum(count, 1).reshape(-1, *(1,) * (table.ndim - 1))
        integers = rows.dtype.kind in "iu"  # the divisor wraps in this type, as in OpenVINO
        out = divide(out, divisor.astype(rows.dtype) if integers else divisor, m_pythondiv=False)
        out = out.astype(rows.dtype)
    if default is not None and default >= 0 and (count == 0).any():
        if default >= table.shape[0]:
            raise InferenceError(f"the default index {default} is out of range for {table.shape[0]} rows")
        out[count == 0] = table[default]
    return out


def _default(x: np.ndarray | None) -> int | None:
    return None if x is None else int(x.reshape(-1)[0])


def offset_bags(offsets: np.ndarray, count: int) -> np.ndarray:
    """The bag of each of `count` indices. Raises InferenceError for offsets that decrease or are out of
    range."""
    starts = offsets.astype(np.int64)
    if starts.size and (starts.min() < 0 or starts.max() > count or (np.diff(starts) < 0).any()):
        raise InferenceError(f"offsets should increase from 0 to {count}, not {starts.tolist()[:8]} ...")
    if count and (not starts.size or starts[0] != 0):
        raise InferenceError("the first offset should be 0")
    return np.repeat(np.arange(len(starts)), np.diff(np.append(starts, count)))


def _infer_offsets(table, indices, offsets, default, weights, reduction):
    check_weights(table, weights, reduction)
    check_indices({"indices": indices, "offsets": offsets, "default_index": default})
    dims = unify(indices=(indices, "N"), offsets=(offsets, "B"), per_sample_weights=(weights, "N"))
    return _bags(table, dims["B"])


def _bags(table: TensorType, bags: Any) -> TensorType:
    check_type(table, NUMBERS)
    if table.shape is None:
        return TensorType(table.dtype, None)
    check(table.shape, f"the table should have at least one dimension, not {table}")
    return TensorType(table.dtype, (bags, *table.shape[1:]))


@in_f32
def _offsets(table, indices, offsets, default=None, weights=None, *, reduction="sum"):
    if not len(offsets) * math.prod(table.shape[1:]):  # empty: indices are not checked
        return np.zeros((len(offsets), *table.shape[1:]), table.dtype)
    bag = offset_bags(offsets, len(indices))
    return sum_rows(table, indices, weights, bag, len(offsets), _default(default), reduction == "mean")


@op(
    "EmbeddingBagOffsetsSum",
    opset=3,
    types=NUMBERS,
    native=FULL,
    lower=".cpu_embedding:Bags.of",
)
class EmbeddingBagOffsetsSum:
    """Sums of rows of a table. Bag i has the indices from offsets[i] to the next offset."""

    def infer(emb_table, indices, offsets, default_index=None, per_sample_weights=None):
        return _infer_offsets(emb_table, indices, offsets, default_index, per_sample_weights, "sum")

    ref = _offsets


@op("EmbeddingBagOffsets", opset=15, like=EmbeddingBagOffsetsSum)
class EmbeddingBagOffsets:
    """EmbeddingBagOffsetsSum with a choice of sums or means."""

    words = {"reduction": "sum mean"}

    def infer(
        emb_table, indices, offsets, default_index=None, per_sample_weights=None, *, reduction: Word = "sum"
    ):
        return _infer_offsets(emb_table, indices, offsets, default_index, per_sample_weights, reduction)


def _ranges(table, indices, starts, ends, weights=None, *, reduction="sum"):
    rows = gather(table, indices, 0)
    if weights is not None:
        rows = rows * weights.reshape(-1, *(1,) * (table.ndim - 1))
    reduce: Any = {"sum": np.sum, "mean": np.mean, "max": np.max}[reduction]
    nothing = LOWEST if reduction == "max" else 0
    out = np.full((len(starts), *table.shape[1:]), nothing, table.dtype)
    for bag, (first, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        part = rows[first:end]
        if len(part):
            out[bag] = reduce(part, axis=0)
    return out


@op("EmbeddingBagRanges", types=("f32",), internal=True, native=("f32",), lower=".cpu_embedding:Bags.of")
class EmbeddingBagRanges:
    """Sums, means or maxima of rows of a table. Bag i has the indices from starts[i] to ends[i], which are
    bounds as in Slice. An index out of range is a row of zeros."""

    words = {"reduction": "sum mean max"}

    def infer(emb_table, indices, starts, ends, per_sample_weights=None, *, reduction: Word = "sum"):
        check_weights(emb_table, per_sample_weights, reduction)
        check_indices({"indices": indices, "starts": starts, "ends": ends})
        lists = {"starts": (starts, "B"), "ends": (ends, "B"), "indices": (indices, "N")}
        return _bags(emb_table, unify(**lists, per_sample_weights=(per_sample_weights, "N"))["B"])

    ref = _ranges


def _infer_packed(table, indices, weights, reduction):
    check_weights(table, weights, reduction)
    check_indices({"indices": indices})
    return _bags(table, unify(indices=(indices, "BN"), per_sample_weights=(weights, "BN"))["B"])


@in_f32
def _packed(table, indices, weights=None, *, reduction="sum"):
    bags, each = indices.shape
    if not bags * math.prod(table.shape[1:]):
        return np.zeros((bags, *table.shape[1:]), table.dtype)
    bag = np.repeat(np.arange(bags), each)
    flat = None if weights is None else weights.reshape(-1)
    return sum_rows(table, indices.reshape(-1), flat, bag, bags, None, reduction == "mean")


@op("EmbeddingBagPackedSum", opset=3, types=NUMBERS, native=FULL, lower=".cpu_embedding:Bags.of")
class EmbeddingBagPackedSum:
    """Sums of rows of a table, with the same number of indices in every bag."""

    def infer(emb_table, indices, per_sample_weights=None):
        return _infer_packed(emb_table, indices, per_sample_weights, "sum")

    ref = _packed


@op("EmbeddingBagPacked", opset=15, like=EmbeddingBagPackedSum)
class EmbeddingBagPacked:
    """EmbeddingBagPackedSum with a choice of sums or means."""

    words = {"reduction": "sum mean"}

    def infer(emb_table, indices, per_sample_weights=None, *, reduction: Word = "sum"):
        return _infer_packed(emb_table, indices, per_sample_weights, reduction)


def checked_segments(segment_ids: np.ndarray, segments: int | None) -> tuple[np.ndarray, int]:
    """(segment ids, number of segments). Raises InferenceError for ids that are negative or decrease."""
    ids = segment_ids.astype(np.int64).reshape(-1)
    if ids.size and (ids[0] < 0 or (ids[1:] < ids[:-1]).any()):  # a difference may overflow
        raise InferenceError("segment_ids should not be negative and not decrease")
    count = (int(ids[-1]) + 1 if ids.size else 0) if segments is None else segments
    if count < 0:
        raise InferenceError(f"num_segments {count} should not be negative")
    return ids, count


@op("EmbeddingSegmentsSum", opset=3, types=NUMBERS, native=FULL, lower=".cpu_embedding:Bags.of")
class EmbeddingSegmentsSum:
    """Sums of rows of a table by the segment of each index."""

    def infer(
        emb_table, indices, segment_ids, num_segments=None, default_index=None, per_sample_weights=None
    ):
        named = {"indices": indices, "segment_ids": segment_ids, "num_segments": num_segments}
        check_indices({**named, "default_index": default_index})
        check_weights(emb_table, per_sample_weights)
        unify(
            indices=(indices, "N"), segment_ids=(segment_ids, "N"),
            per_sample_weights=(per_sample_weights, "N"),
        )  # fmt: skip
        return _bags(emb_table, ANY if num_segments is None else extent_of(num_segments, "num_segments"))

    @in_f32
    def ref(table, indices, segment_ids, num_segments=None, default_index=None, weights=None):
        ids, count = checked_segments(segment_ids, _default(num_segments))
        if ids.size and ids[-1] >= count:
            raise InferenceError(f"segment {ids[-1]} is out of range for {count} segments")
        return sum_rows(table, indices, weights, ids, count, _default(default_index))


@op("SegmentMax", opset=16, types=NUMBERS, lower=".cpu_segments:Segments.of")
class SegmentMax:
    """The maximum of the rows of each segment. An empty one is 0, or the lowest finite number of the type."""

    words = {"fill_mode": "ov::op::FillMode: zero lowest"}

    def infer(data, segment_ids, num_segments=None, *, fill_mode: Word):
        check_indices({"segment_ids": segment_ids})
        check_indices({"num_segments": num_segments})
        check_type(data, NUMBERS)
        check_rank(segment_ids, 1, "segment_ids")
        if data.shape is None:
            return TensorType(data.dtype, None)
        check(data.shape, f"the data should have at least one dimension, not {data}")
        dims = Dims(N=data.shape[0])
        dims.fit("segment_ids", segment_ids, "N")
        count: Dim = ANY
        if num_segments is not None:
            segments = shape_scalar(num_segments, "num_segments")
            check_scalar(num_segments, "num_segments must be a scalar input. Got: {shape}")
            count = ANY if segments is None else segments
        elif segment_ids.value is not None:
            count = checked_segments(np.asarray(segment_ids.value), None)[1]
        return TensorType(data.dtype, (count, *data.shape[1:]))

    def ref(data, segment_ids, num_segments=None, *, fill_mode):
        ids, count = checked_segments(segment_ids, _default(num_segments))
        shape = (count, *data.shape[1:])
        out = np.full(shape, lowest_of(data.dtype), data.dtype)
        used = ids < count
        np.maximum.at(out, ids[used], data[used])
        if fill_mode == "zero":
            out[np.bincount(ids[used], minlength=count)[:count] == 0] = 0
        return out
