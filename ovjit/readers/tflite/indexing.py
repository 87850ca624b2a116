"""Operators that pick elements by indices or by their size."""

from __future__ import annotations

from typing import Any

from ovjit.readers.numerics.slices import replace_at
from ovjit.readers.tflite.elementwise import typed
from ovjit.readers.tflite.node import LiteNode
from ovjit.readers.tflite.registry import tflite_op, tflite_ops


@tflite_op("SCATTER_ND")
def scatter_nd(n: LiteNode) -> Any:
    """Scatter with addition into zeros."""
    zeros = n.broadcast(n.like(n[1], 0), n[2])
    return n("ScatterNDUpdate", zeros, n[0], n[1], reduction="sum", opset=15)


@tflite_op("DYNAMIC_UPDATE_SLICE")
def dynamic_update_slice(n: LiteNode) -> Any:
    """Inputs: a tensor, a part of it, and where that begins. A part that would go over the end is moved
    back."""
    x, update, starts = n[0], n[1], n.convert(n[2], "i64")
    shape, sizes = n.shape(x), n.shape(update)
    rows = []
    for axis in range(n.rank(x)):
        if shape and sizes and isinstance(shape[axis], int) and shape[axis] == sizes[axis]:
            continue
        size = n.dim_of(update, axis)
        start = n("Maximum", n.slice(starts, 0, axis, axis + 1), n.const([0]))
        start = n("Minimum", start, n("Subtract", n.dim_of(x, axis), size))
        rows.append((axis, n("Add", start, n.upto(size))))
    return replace_at(n, x, update, rows)


@tflite_op("SPARSE_TO_DENSE")
def sparse_to_dense(n: LiteNode) -> Any:
    """Inputs: places, the shape, values there, and the value elsewhere."""
    count = n.count_of_axes(n[1], "the number of dimensions")
    return n("ScatterNDUpdate", n.broadcast(n[3], n[1]), n.reshape(n[0], [-1, count]), n[2])


@tflite_op("UNIQUE")
def unique(n: LiteNode) -> Any:
    """Values in the order in which they come, and where each element's value is among them."""
    outputs = n.all("Unique", n[0], sorted=False, index_element_type=typed(n.option("IdxOutType", 2)))
    return [outputs[0], outputs[2]]


#: Operators that are one expression.
tflite_ops({
    "GATHER": lambda n: n("Gather", n[0], n[1], n.option("Axis", 0), batch_dims=n.option("BatchDims", 0)),
    "GATHER_ND": lambda n: n("GatherND", n[0], n[1], batch_dims=0),
    "EMBEDDING_LOOKUP": lambda n: n("Gather", n[1], n[0], 0),
    # indices that are not there, negative ones among them, have no hot element
    "ONE_HOT": lambda n: n("OneHot", n[0], n[1], n[2], n[3], axis=n.option("Axis")),
    "TOPK_V2": lambda n: n.top_k(n[0], n[1], -1, index=n.out(1).dtype),
})  # fmt: skip
