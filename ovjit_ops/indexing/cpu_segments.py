"""Native SegmentMax: the rows of a segment are found by a binary search and compared in registers.

Segments are shared out. Numbers that fall, or are negative, are error code 1.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import ml_dtypes
import numpy as np

from ovjit.codegen.function import kernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.tensors import Raw
from ovjit.codegen.words import *
from ovjit.graph.dtypes import FLOATS, numpy_dtype
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import Planner, ceil_div, split
from ovjit.planning.views import product
from ovjit_ops.common.values import INDEX_TYPES
from ovjit_ops.indexing.cpu_embedding import first_of

TYPES = frozenset((*FLOATS, "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"))


class Sizes(NamedTuple):
    """Rows, elements of a row, segments; segments of a chunk."""

    rows: int
    width: int
    many: int
    per_chunk: int


@kernel(sizes=Raw(Sizes))
def segment_max(x: Ptr, ids: Ptr, y: Ptr, sizes, *, T, index, lowest, empty):
    """y[s] = the largest of the rows whose number is s, `empty` where there are none."""
    if chunk == 0:  # the first chunk sees to it that numbers do not fall
        last = 0
        for i in range(sizes.rows):
            number = ld[index](ids + i * SIZE[index]) + 0
            if number < last:
                return 1
            last = number
    for s in share(sizes.many, sizes.per_chunk):
        first = first_of(ids, s, sizes.rows, index)
        end = first_of(ids, s + 1, sizes.rows, index)
        for j in range(0, sizes.width, VL):
            best = const[T](lowest)
            if end <= first:
                best = const[T](empty)
            for i in range(first, end):
                best = maximum(best, loadm[T](x + (i * sizes.width + j) * SIZE[T], sizes.width - j))
            storem[T](y + (s * sizes.width + j) * SIZE[T], best, sizes.width - j)


def lowest_of(dtype: np.dtype) -> float | int:
    """The lowest finite number of a type."""
    return int(np.iinfo(dtype).min) if dtype.kind in "iu" else float(ml_dtypes.finfo(dtype).min)


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
        many, width = y.shape[0], product(y.shape[1:])
        cost = width * max(1, ids.count // max(many, 1))
        per_chunk = split(many, cost)
        values = {
            "x": x.ptr, "ids": ids.ptr, "y": y.ptr, "rows": ids.count, "width": width, "many": many,
            "per_chunk": per_chunk,
        }  # fmt: skip
        # without segments, too, the numbers are looked at
        planner.step(self.kernel, values, max(ceil_div(many, per_chunk), 1), [x, ids], [y], x.count)
