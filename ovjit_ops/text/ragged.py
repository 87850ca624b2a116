"""Ragged tensors: joining, cutting, padding, and their other forms."""

from __future__ import annotations

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.op import Bool, Int, TensorType, op
from ovjit.graph.shapes import ANY
from ovjit_ops.common.checks import check_rank, check_type
from ovjit_ops.text import packed


def dense(begins, ends, data, length, fill, pad_right, keep_ends):
    """(a dense tensor of the rows, the mask of what is not filled). `keep_ends`: rows are not cut at their
    ends."""
    size = int(length.reshape(-1)[0])
    if size < 0:
        raise InferenceError(f"RaggedToDense: the length {size} is negative")
    rows = list(packed.rows_of(begins, ends, len(data)))
    out = np.full((len(rows), size, *data.shape[1:]), fill.reshape(-1)[0], data.dtype)
    mask = np.zeros(out.shape, bool)
    for i, row in enumerate(rows):
        count = size if keep_ends else min(len(row), size)
        if row.start + count > len(data):
            raise InferenceError(f"a row of {count} elements is outside of the {len(data)} elements")
        columns = slice(0, count) if pad_right else slice(size - count, size)
        out[i, columns] = data[row.start : row.start + count]
        mask[i, columns] = True
    shape = (*begins.shape, *out.shape[1:])
    return out.reshape(shape), mask.reshape(shape)


@op("RaggedToDense", plugin="extension", host=".cpu_bytes:prepare_dense")
class RaggedToDense:
    """A dense tensor of the rows, cut or filled to one length, and the mask of what was not filled."""

    def infer(*inputs, pad_right: Bool = True, m_pad_max_length: Bool = False):
        packed.check_count(inputs, (5, 6), "RaggedToDense")
        begins, _, data, length, fill = inputs[:5]
        packed.check_ragged(inputs[:3])
        check(length.rank in (None, 0, 1), f"the length should be one integer, not {length}")
        check_rank(fill, 0, "the fill value")
        if begins.shape is None or data.shape is None:
            return TensorType(data.dtype, None), TensorType("boolean", None)
        constant = isinstance(length.value, np.ndarray) and not length.value.dtype.hasobject
        size = int(length.value.reshape(-1)[0]) if constant else ANY
        check(not isinstance(size, int) or size >= 0, f"the length {size} is negative")
        shape = (*begins.shape, size, *data.shape[1:])
        return TensorType(data.dtype, shape), TensorType("boolean", shape)

    def ref(*inputs, pad_right=True, m_pad_max_length=False):
        right = bool(inputs[5].reshape(-1)[0]) if len(inputs) == 6 else pad_right
        begins, ends, data, length, fill = inputs[:5]
        return dense(begins, ends, data, length, fill, right, m_pad_max_length)


@op("RaggedToSparse", plugin="extension", host=True)
class RaggedToSparse:
    """The row and column of each element."""

    def infer(begins, ends):
        packed.check_ends(begins, ends, "the rows")
        return TensorType("i32", (ANY, 2))

    def ref(begins, ends):
        sizes = (ends - begins).reshape(-1)
        if (sizes < 0).any():
            raise InferenceError("a row ends before it begins")
        rows = np.repeat(np.arange(sizes.size), sizes)
        columns = np.arange(rows.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return np.stack([rows, columns], 1).astype(np.int32)


@op("RaggedToRagged", plugin="extension", host=True)
class RaggedToRagged:
    """Begins and ends of rows from the row of each element, in ascending order, and the number of rows."""

    def infer(rows, count):
        check_type(rows, ("i32",), "the rows")
        check_type(count, ("i32",), "the number of rows")
        constant = isinstance(count.value, np.ndarray) and not count.value.dtype.hasobject
        size = int(count.value.reshape(-1)[0]) if constant else ANY
        check(not isinstance(size, int) or size >= 0, f"the number of rows {size} is negative")
        return TensorType("i32", (size,)), TensorType("i32", (size,))

    def ref(rows, count):
        size, rows = int(count.reshape(-1)[0]), rows.reshape(-1)
        if size < 0 or rows.size and rows.min() < 0:
            raise InferenceError("rows and their number should not be negative")
        used = rows[: np.searchsorted(rows, size)] if rows.size else rows
        if np.any(np.diff(used) < 0):
            raise InferenceError("the rows should be in ascending order")
        numbers = np.arange(size)
        begins, ends = np.searchsorted(used, numbers), np.searchsorted(used, numbers, "right")
        return begins.astype(np.int32), ends.astype(np.int32)


@op("RaggedTensorPack", plugin="extension", host=True)
class RaggedTensorPack:
    """The elements of a ragged tensor."""

    def infer(begins, ends, data):
        packed.check_ends(begins, ends, "the rows")
        return TensorType(data.dtype, data.shape)

    def ref(begins, ends, data):
        return data.copy()


SIDES, MODES = (b"left", b"right"), (b"only_first", b"only_second", b"longest_first")


def kept_lengths(first: int, second: int, most: int, mode: bytes) -> tuple[int, int]:
    """The lengths of a pair that are kept so that both have `most` elements, as the mode says."""
    if first + second <= most:
        return first, second
    if mode == b"only_first":
        return min(first, most), second
    if mode == b"only_second":
        return first, min(second, most)
    half, odd = most // 2, most % 2
    if first >= half + odd and second <= half:
        return most - second, second
    if first < half + odd and second > half:
        return first, most - first
    return half + odd * (first >= second), half + odd * (first < second)


@op("Truncate", plugin="extension", host=".cpu_bytes:prepare_truncation")
class Truncate:
    """Cuts the rows of one or two ragged tensors to a length, on a side, as a mode says."""

    def infer(*inputs, m_num_inputs: Int = 0):
        packed.check_count(inputs, (6, 9), "Truncate")
        count = len(inputs) // 3 - 1
        length, side, mode = inputs[-3:]
        check_type(length, ("i32",), "the length")
        packed.check_bytes(side, "the side")
        packed.check_bytes(mode, "the mode")
        types: tuple[TensorType, ...] = ()
        for i in range(count):
            ragged = inputs[3 * i : 3 * i + 3]
            packed.check_ragged(ragged)
            types += tuple(TensorType(x.dtype, x.shape) for x in ragged)
        return types

    def ref(*inputs, m_num_inputs=0):
        most, side, mode = (
            int(inputs[-3].reshape(-1)[0]),
            packed.text_of(inputs[-2]),
            packed.text_of(inputs[-1]),
        )
        check(side in SIDES, f"Unknown truncation side: {side!r}")
        check(mode in MODES, f"Unknown truncation mode: {mode!r}")
        out = [x.copy() for x in inputs[:-3]]
        lengths = [(out[i + 1] - out[i].astype(np.int64)).reshape(-1) for i in range(0, len(out), 3)]
        if len(lengths) == 1:
            new_lengths = [np.minimum(lengths[0], most)]
        else:
            if len(lengths[0]) != len(lengths[1]):
                raise InferenceError("both ragged tensors should have the same number of rows")
            pairs = [kept_lengths(int(a), int(b), most, mode) for a, b in zip(*lengths, strict=True)]
            new_lengths = list(np.array(pairs, np.int64).reshape(-1, 2).T)
        for i, size in zip(range(0, len(out), 3), new_lengths, strict=True):
            begins, ends = out[i], out[i + 1]
            if side == b"right":
                out[i + 1] = (begins + size.reshape(begins.shape)).astype(np.int32)
            else:
                out[i] = (ends - size.reshape(ends.shape)).astype(np.int32)
        return tuple(out)


def combined_shape(inputs, size):
    """The shape of the joined rows' begins: that of a tensor with `size` rows that is no scalar."""
    return next((x.shape for x in inputs[0:-1:3] if x.size == size and x.ndim), ())


def combine(*inputs):
    ids, count = inputs[-1].reshape(-1), (len(inputs) - 1) // 3
    if len(ids) != count:
        raise InferenceError(f"CombineSegments: {count} segments, but {len(ids)} ids")
    parts = [inputs[3 * i : 3 * i + 3] for i in range(count)]
    ranges = [list(packed.rows_of(begins, ends, len(data))) for begins, ends, data in parts]
    size = max(map(len, ranges))
    if any(len(r) not in (1, size) for r in ranges):
        raise InferenceError("CombineSegments: the segments differ in their number of rows")
    rows, pieces, numbers, at = [], [], [], 0
    for row in range(size):
        first = at
        for i, ((_, _, data), spans) in enumerate(zip(parts, ranges, strict=True)):
            span = spans[row if len(spans) > 1 else 0]
            pieces.append(data[span.start : span.stop])
            numbers.append(np.full(len(span), ids[i], ids.dtype))
            at += len(span)
        rows.append((first, at))
    begins, ends = packed.ragged_ends(rows, combined_shape(inputs, size))
    joined = np.concatenate(pieces) if pieces else np.empty(0, inputs[2].dtype)
    marks = np.concatenate(numbers) if numbers else np.empty(0, ids.dtype)
    return begins, ends, joined, begins.copy(), ends.copy(), marks


@op("CombineSegments", plugin="extension", host=".cpu_bytes:prepare_segments")
class CombineSegments:
    """Joins the rows of several ragged tensors, and gives the number of the segment of each element. A tensor
    of one row is repeated."""

    def infer(*inputs):
        check(
            len(inputs) >= 4 and len(inputs) % 3 == 1,
            f"takes ragged tensors and ids, not {len(inputs)} inputs",
        )
        shape, dtype, ids = (), inputs[2].dtype, inputs[-1].dtype
        unknown = False
        for i in range(0, len(inputs) - 1, 3):
            begins, _, data = inputs[i : i + 3]
            packed.check_ragged(inputs[i : i + 3])
            check_rank(data, 1, "the elements of a segment")
            check(
                "dynamic" in (data.dtype, dtype) or data.dtype == dtype,
                f"the segments differ in element type: {data.dtype} and {dtype}",
            )
            dtype = data.dtype if dtype == "dynamic" else dtype
            unknown = unknown or begins.rank is None
            if begins.rank:
                shape = begins.shape if not shape or shape == (1,) else shape
        bounds_shape = None if unknown else shape
        return (*packed.ragged_type(bounds_shape, dtype), *packed.ragged_type(bounds_shape, ids))

    def ref(*inputs):
        return combine(*inputs)


def join_strings(begins, ends, starts, stops):
    packed.check_shapes(starts, stops)
    packed.check_ranges(begins, ends, starts.size, "a row")
    first, ended = begins.reshape(-1), ends.reshape(-1)
    last = np.where(ended > first, ended - 1, ended)  # an empty row takes the string at its place
    if first.size and last.max() >= starts.size:
        raise InferenceError("FuzeRagged: an empty row follows the last string")
    bounds = starts.reshape(-1)[first], stops.reshape(-1)[last]
    return bounds[0].reshape(begins.shape), bounds[1].reshape(begins.shape)


@op("FuzeRagged", plugin="extension", host=".cpu_bytes:prepare_joins")
class FuzeRagged:
    """Joins neighbouring strings of each row, without a copy of their bytes."""

    def infer(begins, ends, starts, stops):
        packed.check_ends(begins, ends, "the rows")
        packed.check_ends(starts, stops, "the strings")
        return TensorType("i32", begins.shape), TensorType("i32", begins.shape)

    def ref(begins, ends, starts, stops):
        return join_strings(begins, ends, starts, stops)
