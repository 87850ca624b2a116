"""Operations that search or trace values: Bucketize, SearchSorted, Unique, GatherTree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.dtypes import FULL, from_numpy, numpy_dtype
from ovjit.graph.op import Bool, DType, Index, TensorType, op
from ovjit.graph.shapes import ANY, Dim, Interval, bounds, is_static, normalize_axis
from ovjit_ops.common.checks import check_same_type, check_type
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import shape_scalar
from ovjit_ops.elementwise.arithmetic import NUMBERS

#: Element types with a native Unique.
UNIQUE = frozenset((*NUMBERS, "boolean"))


def sorted_places(sequence: np.ndarray, values: np.ndarray, right: bool) -> np.ndarray:
    """The insertion position of each value in the sorted sequence: before equal elements, or with `right`
    after them."""
    return np.searchsorted(sequence, values, side="right" if right else "left")


@op("Bucketize", opset=3, types=NUMBERS, native=FULL, lower=".cpu_search:Search.of")
class Bucketize:
    """The index of the bucket of each element. Buckets are given by their bounds, in ascending order."""

    def infer(data, buckets, *, output_type: Index = "i64", with_right_bound: Bool = True):
        for x in (data, buckets):
            check_type(x, NUMBERS)
        check(buckets.rank in (None, 1), f"Buckets input must be a 1D tensor. Got: {buckets}")
        return TensorType(output_type, data.shape)

    def expand(w, node, inputs):
        """Bucketize(data: i32, buckets: f32) -> Bucketize of both in a common type"""
        kinds = [numpy_dtype(v.dtype) for v in inputs]
        if kinds[0] == kinds[1]:
            return None
        kind = from_numpy(np.result_type(*kinds))
        both = [w("Convert", v, destination_type=kind) if v.dtype != kind else v for v in inputs]
        return w.b.instead(node, both)

    def ref(data, buckets, *, output_type="i64", with_right_bound=True):
        kind = np.result_type(*(x.dtype if x.dtype.kind in "iuf" else np.float32 for x in (data, buckets)))
        indices = sorted_places(buckets.astype(kind), data.astype(kind), not with_right_bound)
        return indices.astype(numpy_dtype(output_type))


@op("SearchSorted", opset=15, types=NUMBERS, native=FULL, lower=".cpu_search:Search.of")
class SearchSorted:
    """The insertion position of each value in the sorted sequence of its row."""

    def infer(sorted_sequence, values, *, right_mode: Bool = False, output_type: Index = "i64"):
        check_same_type(sorted_sequence, values, "sorted_sequence")
        if sorted_sequence.rank in (None, 1):
            return TensorType(output_type, values.shape)
        if values.shape is None:
            return TensorType(output_type, (*sorted_sequence.shape[:-1], ANY))
        check(
            len(sorted_sequence.shape) == len(values.shape),
            f"{sorted_sequence} and {values} should have the same rank",
        )
        lead = "".join(chr(ord("a") + i) for i in range(len(values.shape) - 1))
        dims = unify(sorted_sequence=(sorted_sequence, lead + "N"), values=(values, lead + "M"))
        return TensorType(output_type, dims.shape(lead + "M"))

    def ref(sequence, values, *, right_mode=False, output_type="i64"):
        kind = numpy_dtype(output_type)
        if sequence.ndim == 1:
            return sorted_places(sequence, values, right_mode).astype(kind)
        out = np.empty(values.shape, kind)
        for row in np.ndindex(values.shape[:-1]):
            out[row] = sorted_places(sequence[row], values[row], right_mode)
        return out


@op("Unique", opset=10, types=[*NUMBERS, "boolean"])
class Unique:
    """The distinct elements (or slices along `axis`), in ascending order or by first occurrence.

    Further outputs: the first index of each, for each element the index of its distinct one, and counts.
    """

    def infer(
        data,
        axis=None,
        *,
        sorted: Bool = True,
        index_element_type: Index = "i64",
        count_element_type: Index = "i64",
    ):
        index, count = index_element_type, count_element_type

        def types(shape, distinct, size):
            return (
                TensorType(data.dtype, shape),
                TensorType(index, (distinct,)),
                TensorType(index, (size,)),
                TensorType(count, (distinct,)),
            )

        if axis is None:
            size = math.prod(data.shape) if is_static(data.shape) else ANY
            distinct = _at_most(size)
            return types((distinct,), distinct, size)
        along = shape_scalar(axis, "axis")
        if data.shape is None or along is None:
            return types(None if data.shape is None else (ANY,) * len(data.shape), ANY, ANY)
        along = normalize_axis(along, len(data.shape))
        part = _at_most(data.shape[along])
        # OpenVINO bounds the lists by the number of elements, not of slices. Empty slices are all equal.
        distinct = _at_most(math.prod(data.shape) or data.shape[along]) if is_static(data.shape) else ANY
        return types((*data.shape[:along], part, *data.shape[along + 1 :]), distinct, data.shape[along])

    def ref(data, axis=None, *, sorted=True, index_element_type="i64", count_element_type="i64"):
        along = None if axis is None else normalize_axis(int(axis.reshape(-1)[0]), data.ndim)
        index = numpy_dtype(index_element_type)
        count_type = numpy_dtype(count_element_type)
        if along is None:
            data, along = data.reshape(-1), 0
        rows = np.moveaxis(data, along, 0)
        flat = rows.reshape(rows.shape[0], math.prod(rows.shape[1:]))
        if flat.dtype.kind == "O":  # strings: their ranks
            flat = np.unique(flat, return_inverse=True)[1].reshape(flat.shape)
        elif flat.dtype.kind not in "iufb":
            flat = flat.astype(np.float32)
        if flat.shape[1] == 1:
            _, first, inverse, count = np.unique(flat[:, 0], True, True, True)
        elif not flat.shape[1] or not flat.shape[0]:
            first = np.zeros(min(1, flat.shape[0]), np.int64)
            inverse, count = np.zeros(flat.shape[0], np.int64), np.full(len(first), flat.shape[0])
        else:
            _, first, inverse, count = np.unique(flat, True, True, True, axis=0)
        if not sorted:
            order = np.argsort(first)
            first, count = first[order], count[order]
            inverse = np.argsort(order)[inverse]
        values = np.take(data, first, along)
        return values, first.astype(index), inverse.reshape(-1).astype(index), count.astype(count_type)

    def expand(w, node, inputs):
        """Unique(x) -> ValidPrefix of the outputs of PaddedUnique(x as rows), except for the output of one
        index per element"""
        data, axes = inputs[0], inputs[1:]
        if data.shape is None or data.dtype not in UNIQUE:
            return None
        if any(v.type.value is None for v in axes) or any(bounds(d)[1] == 0 for d in data.shape):
            return None
        order: tuple[int, ...] = ()
        dims: list[Any] = [-1]
        if axes:
            along, rank = int(axes[0].type.value.reshape(-1)[0]), len(data.shape)
            order = (along % rank, *(a for a in range(rank) if a != along % rank))
            data = w("Transpose", data, order)
            dims = w.shape(data)
        rows = w("Reshape", data, (dims[0], math.prod(dims[1:])), special_zero=False)
        values, first, inverse, counts, number = w.outputs("PaddedUnique", rows, **node.attrs)
        values = w("Reshape", values, dims, special_zero=False)
        cut = [w("ValidPrefix", x, number, axis=0) for x in (values, first, counts)]
        if order:
            cut[0] = w("Transpose", cut[0], tuple(np.argsort(order).tolist()))
        return [cut[0], cut[1], inverse, cut[2]]


@op("PaddedUnique", internal=True, types=NUMBERS, lower=".cpu_unique:LoweredUnique.of")
class PaddedUnique:
    """The outputs of Unique in buffers of the maximum size, and the number of distinct rows."""

    def infer(data, *, sorted: Bool, index_element_type: DType, count_element_type: DType):
        room: Dim = ANY if data.shape is None else data.shape[0]
        kinds = (index_element_type, index_element_type, count_element_type)
        lists = (TensorType(kind, (room,)) for kind in kinds)
        return (TensorType(data.dtype, data.shape), *lists, TensorType("i64", (1,)))

    def ref(data, **attrs):
        values, first, inverse, counts = Unique.ref(data, np.array(0), **attrs)
        missing = (0, len(data) - len(values))
        cut = (np.pad(values, (missing, (0, 0))), np.pad(first, missing), inverse, np.pad(counts, missing))
        return (*cut, np.array([len(values)]))


def _at_most(d):
    """The dimension of the distinct elements among d: 1 to d, or 0 if there are none."""
    low, high = bounds(d)
    if high == 0:
        return 0
    return high if high == 1 and low == 1 else Interval(min(low, 1), high)


@op(
    "GatherTree", opset=1, types=["f32", "i32", "i64"], native=("f32",),
    lower=".cpu_gather_tree:GatherTree.of"
)  # fmt: skip
class GatherTree:
    """The beams of a beam search, traced back from their ends by the parents of every step."""

    def infer(step_ids, parent_idx, max_seq_len, end_token):
        dims = unify(
            step_ids=(step_ids, "TBW"), parent_idx=(parent_idx, "TBW"), max_seq_len=(max_seq_len, "B"),
            end_token=(end_token, ""),
        )  # fmt: skip
        for name, x in (("parent_idx", parent_idx), ("max_seq_len", max_seq_len), ("end_token", end_token)):
            check_same_type(x, step_ids, name)
        check_type(step_ids, NUMBERS)
        has_shape = step_ids.shape is not None or parent_idx.shape is not None
        return TensorType(step_ids.dtype, dims.shape("TBW") if has_shape else None)

    def ref(step_ids, parent_idx, max_seq_len, end_token):
        steps, batch, width = step_ids.shape
        out = np.full(step_ids.shape, end_token, step_ids.dtype)
        for b in range(batch):
            number = max_seq_len[b]
            if number != number:
                raise InferenceError("a length of GatherTree is NaN")
            length = int(np.clip(number, -1, steps))
            for beam in range(width):
                at = beam
                for t in range(length - 1, -1, -1):
                    if not -1 < at < width:  # also for NaN
                        raise InferenceError(f"parent {at} of step {t} is out of range [0, {width - 1}]")
                    out[t, b, beam] = step_ids[t, b, int(at)]
                    at = parent_idx[t, b, int(at)]
                ended = np.flatnonzero(out[:, b, beam] == end_token)
                if ended.size:
                    out[ended[0] :, b, beam] = end_token
        return out
