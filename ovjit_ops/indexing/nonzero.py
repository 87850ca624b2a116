"""NonZero: the positions of elements that are not zero.

Their number depends on data. An internal operation writes them natively to a buffer of the maximum size, and
ValidPrefix takes the valid prefix.

One kernel counts the elements of blocks of rows, so that in the second one each block knows where its
positions begin. These are first compacted without branches, and then stored as vectors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import DType, Index, ObservedType, TensorType, op
from ovjit.graph.shapes import ANY, Dim, bounds, dim
from ovjit.graph.symbolic import sym_max
from ovjit.graph.traced import is_traced
from ovjit.planning.lower import Lowering, Planner, ceil_div, launch, product
from ovjit.planning.plan import split
from ovjit_ops.common.values import with_value
from ovjit_ops.movement.shape import MOVABLE

#: Elements of a row in a block, and of rows that are not listed one by one.
BLOCK, SHORT = 4096, 64
#: Type -> type of the same size with the same zeros, as which it is read.
SAME_BITS = {"boolean": "u8", "u64": "i64"}
#: Maximum number of dimensions. All extents but the last are arguments.
MOST_DIMS = 8
EXTENTS = Table(MOST_DIMS - 1)


@kernel(over=f"row n/{BLOCK}", x="row n:1", counts="")
def nonzero_count(x: Tensor, counts: Tensor, *, T):
    """counts[chunk] = the number of nonzero elements in its blocks."""
    total = 0
    for _, first, p in items(x):
        count = min(x.size.n - first, BLOCK)
        nonzeros = const[i32](0)
        for k in range(0, count, VL):
            v = loadm[T](p + k * SIZE[T], count - k)
            nonzeros = nonzeros + select(v != const[T](0), const[i32](1), const[i32](0))
        total += hadd[i32](nonzeros)
    st[i64](counts + chunk * 8, total)


@inline
def store_along(positions, v, k, count, *, index):
    """Store the positions of a vector along one dimension."""
    storem[index](positions + k * SIZE[index], cast[index](v), count - k)


@kernel(over=f"row n/{BLOCK}", x="row n:1", counts="chunks", positions="", number="")
def nonzero_list(
    x: Tensor, counts: Tensor, positions: Tensor, number: Tensor, extents=EXTENTS, *, T, index, rank, flat
):
    """positions[d, i] = the index of the i-th nonzero element along dimension d, of extent `extents[d]`.
    `number`: the total. `flat`: all elements are one row, and `extents` begin with the second dimension."""
    total = 0
    at = 0
    for i in range(counts.size.chunks):
        if i == chunk:
            at = total
        total += ld[i64](counts + i * 8)
    if chunk == 0:
        st[i64](number, total)
    for row, first, p in items(x):
        count = min(x.size.n - first, BLOCK)
        nonzeros = 0
        for k in range(count):
            st[i64](scratch + nonzeros * 8, first + k)
            if ld[T](p + k * SIZE[T]) != 0:
                nonzeros += 1
        if flat:  # quotients of integers below 2^53 are exact in f64
            for k in range(0, nonzeros, VL):
                v = cast[f64](loadm[i64](scratch + k * 8, nonzeros - k))
                for d in static_range(rank - 1, 0, -1):
                    extent = cast[f64](spread[i64](ld(extents, d - 1)))
                    above = floor(v / extent)
                    store_along(positions + (d * total + at) * SIZE[index], v - above * extent, k, nonzeros)
                    v = above
                store_along(positions + at * SIZE[index], v, k, nonzeros)
        else:
            for k in range(0, nonzeros, VL):
                v = loadm[i64](scratch + k * 8, nonzeros - k)
                store_along(positions + ((rank - 1) * total + at) * SIZE[index], v, k, nonzeros)
            lead = row
            if nonzeros > 0:
                for d in static_range(rank - 2, -1, -1):
                    here = spread[i64](lead % ld(extents, d))
                    lead = lead // ld(extents, d)
                    for k in range(0, nonzeros, VL):
                        store_along(positions + (d * total + at) * SIZE[index], here, k, nonzeros)
        at += nonzeros


class Positions(Lowering):
    """Two steps: counts of all chunks, then positions."""

    ranks = (range(1, MOST_DIMS + 1),)

    def set_up(self) -> None:
        (self.data,) = self.node.inputs
        dtype = SAME_BITS.get(self.data.dtype, self.data.dtype)
        self.count = nonzero_count(T=dtype)
        rank, last = len(self.data.shape), self.data.shape[-1]
        #: Whether rows are so short that it takes less time to compute the indices of each element alone.
        self.flat = rank > 1 and isinstance(last, int) and last < SHORT
        self.list = nonzero_list(T=dtype, index=self.node.outputs[0].dtype, rank=rank, flat=self.flat)
        self.kernels = (self.count, self.list)

    def plan(self, planner: Planner) -> None:
        x = planner.contiguous(self.data)
        positions, number = planner.row_major_outputs(self.node)
        n, extents = x.shape[-1], x.shape[:-1]
        if self.flat:
            n, extents = x.count, x.shape[1:]
        rows = x.as_shape((1 if self.flat else product(extents), n))
        work = 2 * n if n < BLOCK else 2 * BLOCK
        items = rows.shape[0] * ceil_div(n, BLOCK)
        counts = planner.allocate((sym_max(ceil_div(items, split(items, work)), 1),), 8)
        how: dict[str, Any] = {"work": work, "flops": x.count, "disjoint": False, "some": True}
        launch(planner, self.count, {"x": rows, "counts": counts}, ("counts",), **how)
        planner.need_scratch(BLOCK * 8)
        tensors = {"x": rows, "counts": counts, "positions": positions, "number": number}
        every = (*extents, *(1,) * (MOST_DIMS - 1 - len(extents)))
        how |= {f"extents{d}": extent for d, extent in enumerate(every)}
        launch(planner, self.list, tensors, ("positions", "number"), **how)


def find_nonzero(data: np.ndarray, output_type: str = "i64") -> np.ndarray:
    """The positions [rank, n] of all elements that are not zero."""
    return np.stack(np.nonzero(np.atleast_1d(data))).astype(numpy_dtype(output_type))


@op("NonZero", opset=3, types=MOVABLE)
class NonZero:
    """The positions [rank, n] of all elements that are not zero, in order. A scalar is treated as a vector of
    one element."""

    def infer(data, *, output_type: Index = "i64"):
        value = None if type(data) is ObservedType else data.value
        if value is not None and not is_traced(value):
            shape = max(value.ndim, 1), int(np.count_nonzero(value))
            return with_value(TensorType(output_type, shape), find_nonzero, data, output_type=output_type)
        most = None if data.shape is None else bounds(math.prod(data.shape))[1]
        if not data.rank:  # unknown rank, or a scalar, for which OpenVINO gives no shape
            return TensorType(output_type, (ANY, dim(0, most) if data.rank is None else ANY))
        return TensorType(output_type, (data.rank, dim(0, most)))

    ref = find_nonzero

    def expand(w, node, inputs):
        """NonZero(x) -> ValidPrefix(PaddedNonZero(x))"""
        (data,) = inputs
        if data.dtype == "string" or data.shape is None or not 0 < len(data.shape) <= MOST_DIMS:
            return None
        padded = w.outputs("PaddedNonZero", data, **node.attrs)
        return w.b.instead(node, padded, {"axis": 1}, "ValidPrefix")


@op("PaddedNonZero", internal=True, types=MOVABLE, lower=Positions.of)
class PaddedNonZero:
    """The positions [rank, n], contiguous in a buffer of the maximum size, and n."""

    def infer(data, *, output_type: DType):
        room: Dim = 1
        for d in data.shape or ():
            room = room * d
        shape = None if data.shape is None else (len(data.shape), room)
        return TensorType(output_type, shape), TensorType("i64", (1,))

    def ref(data, *, output_type):
        indices = find_nonzero(data, output_type)
        padded = np.zeros(data.ndim * data.size, indices.dtype)
        padded[: indices.size] = indices.reshape(-1)
        return padded.reshape(data.ndim, data.size), np.array([indices.shape[1]])
