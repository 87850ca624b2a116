"""OneHot: one value at the indexed position, another one elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import Int, TensorType, Word, op
from ovjit.graph.shapes import ANY, normalize_axis
from ovjit_ops.common.values import (
    check_scalar,
    partial_dims,
    partial_sizes,
    shape_scalar,
)
from ovjit_ops.indexing.gather import check_index_type

if TYPE_CHECKING:
    from ovjit.graph.graph import Node, Value
    from ovjit.rewrite.writer import Writer

#: Maximum depth of the expansion, which compares indices with all positions.
MOST_DEPTH = 1 << 20


def _infer_one_hot(indices, depth, on_value, off_value, axis):
    check_index_type(indices, "Indices must be integral element type.")
    check(
        on_value.dtype == off_value.dtype,
        "on_value element type must be compatible with off_value element type. They are "
        f"{on_value.dtype} and {off_value.dtype}",
    )
    count = shape_scalar(depth, "depth", "Depth must be integral element type.")
    for name, x in (("depth", depth), ("on_value", on_value), ("off_value", off_value)):
        check_scalar(x, f"{name} input must be scalar.")
    check(
        count is None or count >= 0,
        f"OneHot depth value can't be negative. The depth is {count}",
    )
    if indices.shape is None:
        return TensorType(on_value.dtype, None)
    along = normalize_axis(axis, len(indices.shape) + 1)
    sizes = partial_sizes(depth)
    new = count if count is not None else ANY if sizes is None else sizes[0]
    return TensorType(on_value.dtype, (*indices.shape[:along], new, *indices.shape[along:]))


def _is_extent(depth: TensorType) -> bool:
    """Whether a depth is known when shapes are, so that a negative one is an error then."""
    return depth.shape == () and partial_dims(depth) is not None


def _hit(w: Writer, node: Node, indices: Value, depth: Value) -> Value:
    """OneHot's comparison of indices with all positions, for a depth that follows from shapes."""
    kind, rank = indices.dtype, len(indices.shape) + 1
    axis = normalize_axis(node.attrs["axis"], rank)
    count = depth if depth.dtype == kind else w("Convert", depth, destination_type=kind)
    if node.attrs.get("negative_indices_mode") == "normalize":
        indices = w("Select", w("Less", indices, 0), w("Add", indices, count), indices)
    zero, one = (np.array(n, numpy_dtype(kind)) for n in (0, 1))
    at = w("Range", zero, count, one, output_type=kind)
    if axis < rank - 1:
        at = w("Reshape", at, (-1, *(1,) * (rank - axis - 1)), special_zero=False)
    return w("Equal", w("Unsqueeze", indices, (axis,)), at)


@op("OneHot", opset=1, types=["i32", "i64"], bounds=(1,))
class OneHot1:
    """on_value at the position of the index along the new dimension, off_value elsewhere. Negative indices
    and those out of range select no position."""

    def infer(indices, depth, on_value, off_value, *, axis: Int):
        return _infer_one_hot(indices, depth, on_value, off_value, axis)

    def ref(indices, depth, on_value, off_value, *, axis, negative_indices_mode="ignore_negative"):
        along = normalize_axis(axis, indices.ndim + 1)
        count = int(depth.reshape(()))
        check(count >= 0, f"depth {count} should not be negative")
        from_end = negative_indices_mode == "normalize"
        named = np.where(indices < 0, indices + count, indices) if from_end else indices
        hit = np.expand_dims(named, along) == np.arange(count).reshape(-1, *(1,) * (indices.ndim - along))
        return np.where(hit, on_value.reshape(()), off_value.reshape(())).astype(on_value.dtype)

    def show(attrs, inputs):
        rank = inputs[0].rank
        return {} if rank is None else {"axis": normalize_axis(attrs["axis"], rank + 1)}

    def expand(w, node, inputs):
        """OneHot(x, depth, on, off) -> Select(Unsqueeze(x) == [0, 1, ... depth - 1], on, off)

        If negative indices count from the end, depth is added to them first.
        """
        indices, depth, on, off = inputs
        constant = depth.type.value
        if indices.shape is not None and constant is None and _is_extent(depth.type):
            return [w("Select", _hit(w, node, indices, depth), on, off)]
        if indices.shape is None or constant is None or constant.reshape(-1)[0] > MOST_DEPTH:
            return None
        count = int(constant.reshape(-1)[0])
        rank = len(indices.shape) + 1
        along = normalize_axis(node.attrs["axis"], rank)
        if node.attrs.get("negative_indices_mode") == "normalize":
            indices = w("Select", w("Less", indices, 0), w("Add", indices, count), indices)
        if indices.dtype == "i64":  # i32 has as many lanes as f32; -1 and count match no position
            indices = w("Convert", w("Clamp", indices, min=-1.0, max=float(count)), destination_type="i32")
        at = np.arange(count, dtype=np.int32)
        hit = w("Equal", w("Unsqueeze", indices, (along,)), at.reshape(-1, *(1,) * (rank - along - 1)))
        return [w("Select", hit, on, off)]


@op("OneHot", opset=16, like=OneHot1)
class OneHot16:
    """OneHot-1 with an option to count negative indices from the end."""

    words = {"negative_indices_mode": "ignore_negative normalize"}

    def infer(
        indices, depth, on_value, off_value, *, axis: Int, negative_indices_mode: Word = "ignore_negative"
    ):
        return _infer_one_hot(indices, depth, on_value, off_value, axis)
