"""Native SegmentMax: the rows of a segment are found by binary search, and their maximum is kept in
registers.

Chunks are ranges of segments. Ids that decrease or are negative give error code 1.
"""

from __future__ import annotations

import functools

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import FLOATS, numpy_dtype
from ovjit.planning.lower import Lowering, Planner, launch, product
from ovjit_ops.common.values import INDEX_TYPES
from ovjit_ops.indexing.cpu_embedding import first_of

TYPES = frozenset((*FLOATS, "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"))


@kernel(over="s", x="i w:1", ids="i:1", y="s w:1")
def segment_max(x: Tensor, ids: Tensor, y: Tensor, *, T, index, lowest, empty):
    """y[s] = the maximum of the rows with id s; `empty` if there are none."""
    if chunk == 0:  # the first chunk checks all ids
        last = 0
        for i in range(x.size.i):
            number = ld[index](ids.at(i=i)) + 0
            if number < last:
                return 1
            last = number
    for s, q in items(y):
        first = first_of(ids, s, x.size.i, index)
        end = first_of(ids, s + 1, x.size.i, index)
        for j in range(0, y.size.w, VL):
            best = const[T](lowest)
            if end <= first:
                best = const[T](empty)
            for i in range(first, end):
                best = maximum(best, loadm[T](x.at(i=i) + j * SIZE[T], y.size.w - j))
            storem[T](q + j * SIZE[T], best, y.size.w - j)


def lowest_of(dtype: np.dtype) -> float | int:
    """The lowest finite number of a type."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min)
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).min)


@functools.cache
def segment_kernel(dtype: str, index: str, zero: bool) -> Kernel:
    lowest = lowest_of(numpy_dtype(dtype))
    name = f"segment_max_{dtype}_{index}{'_zero' if zero else ''}"
    empty = type(lowest)(0) if zero else lowest
    return segment_max.kernel(name, T=dtype, index=index, lowest=lowest, empty=empty)


class Segments(Lowering):
    takes = (TYPES, INDEX_TYPES, None)
    constant_inputs = None

    def set_up(self) -> None:
        data, ids = self.node.inputs[:2]
        zero = self.node.attrs["fill_mode"] == "zero"
        self.kernel = segment_kernel(data.dtype, ids.dtype, zero)

    def plan(self, planner: Planner) -> None:
        x, ids = (planner.contiguous(v) for v in self.node.inputs[:2])
        y = planner.row_major_output(self.node.output)
        rows, segments, width = ids.count, y.shape[0], product(y.shape[1:])
        tensors = {"x": x.as_shape((rows, width)), "ids": ids, "y": y.as_shape((segments, width))}
        cost = width * max(1, rows // max(segments, 1))
        # ids are checked even if there are no segments
        launch(planner, self.kernel, tensors, ("y",), work=cost, flops=x.count, some=True)
