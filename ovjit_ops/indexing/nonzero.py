"""NonZero: the positions of elements that are not zero.

Their number depends on data. An internal operation writes them natively to a buffer of the maximum size, and
ValidPrefix takes the valid prefix.
"""

from __future__ import annotations

import math

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import DType, Index, TensorType, op
from ovjit.graph.shapes import ANY, Dim, bounds, dim
from ovjit_ops.indexing.cpu_nonzero import MOST_DIMS
from ovjit_ops.movement.shape import MOVABLE


@op("NonZero", opset=3, types=MOVABLE)
class NonZero:
    """The positions [rank, n] of all elements that are not zero, in order. A scalar is treated as a vector of
    one element."""

    def infer(data, *, output_type: Index = "i64"):
        most = None if data.shape is None else bounds(math.prod(data.shape))[1]
        if not data.rank:  # unknown rank, or a scalar, for which OpenVINO gives no shape
            return TensorType(output_type, (ANY, dim(0, most) if data.rank is None else ANY))
        return TensorType(output_type, (data.rank, dim(0, most)))

    def ref(data, *, output_type="i64"):
        return np.stack(np.nonzero(np.atleast_1d(data))).astype(numpy_dtype(output_type))

    def expand(w, node, inputs):
        """NonZero(x) -> ValidPrefix(PaddedNonZero(x))"""
        (data,) = inputs
        if data.dtype == "string" or data.shape is None or not 0 < len(data.shape) <= MOST_DIMS:
            return None
        padded = w.outputs("PaddedNonZero", data, **node.attrs)
        return w.b.instead(node, padded, {"axis": 1}, "ValidPrefix")


@op("PaddedNonZero", internal=True, types=MOVABLE, lower=".cpu_nonzero:Positions.of")
class PaddedNonZero:
    """The positions [rank, n], contiguous in a buffer of the maximum size, and n."""

    def infer(data, *, output_type: DType):
        room: Dim = 1
        for d in data.shape or ():
            room = room * d
        shape = None if data.shape is None else (len(data.shape), room)
        return TensorType(output_type, shape), TensorType("i64", (1,))

    def ref(data, *, output_type):
        indices = np.stack(np.nonzero(data)).astype(numpy_dtype(output_type))
        padded = np.zeros(data.ndim * data.size, indices.dtype)
        padded[: indices.size] = indices.reshape(-1)
        return padded.reshape(data.ndim, data.size), np.array([indices.shape[1]])
