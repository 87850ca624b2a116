"""Native Bucketize and SearchSorted: a binary search for each value, or all numbers counted in vectors.

A search of a list of 100 takes 7 unpredictable branches, 40 ns. Comparing values with all 100, a vector of
them at a time, takes 3 ns.
"""

from __future__ import annotations

from typing import NamedTuple

from ovjit.codegen.function import inline, kernel
from ovjit.codegen.tensors import Raw, Share
from ovjit.codegen.words import *
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import NotNative, Planner
from ovjit.planning.views import product

#: Longest list that is compared with number by number.
COUNTED = 256
TYPES = frozenset("f32 f64 i8 i16 i32 i64 u8 u16 u32 u64".split())
_SIGN = -(1 << 63)


@inline
def number_at(p, T):
    """The element at p, u64 as the int64 in its order."""
    return ld[i64](p) ^ _SIGN if T == "u64" else ld[T](p)


class Sizes(NamedTuple):
    """Numbers of a list, bytes between lists, values of a list."""

    n: int
    row: int
    m: int


@kernel(sizes=Raw(Sizes), of=Raw(Share))
def search(x: Ptr, rows: Ptr, y: Ptr, sizes, of, *, T, index, right):
    """y[i] = how many of the row's n numbers are below x[i] (not above it when `right`).

    A number that is not one, NaN, stands above all others.
    """
    for item in share(of.items, of.per_chunk):
        value = number_at(x + item * SIZE[T], T)
        p = rows + item // sizes.m * sizes.row
        low = 0
        high = sizes.n
        while low < high:
            middle = (low + high) // 2
            number = number_at(p + middle * SIZE[T], T)
            reached = number > value if right else number >= value
            if reached:
                high = middle
            else:
                low = middle + 1
        st[index](y + item * SIZE[index], low)


@kernel(of=Raw(Share))
def search_count(x: Ptr, rows: Ptr, y: Ptr, n, of, *, T, index, right):
    """The same for one list, by counting: the numbers are compared with vectors of values."""
    zero = const[index](0)
    one = const[index](1)
    stop = min(chunk * of.per_chunk + of.per_chunk, of.items)
    for item in range(chunk * of.per_chunk, stop, VL):
        value = loadm[T](x + item * SIZE[T], stop - item)
        below = zero
        for i in range(n):
            number = splat[T](rows + i * SIZE[T])
            reached = number > value if right else number >= value
            below = below + select(reached, zero, one)
        storem[index](y + item * SIZE[index], below, stop - item)


class Search(Lowering):
    """Values looked up in one sorted list, or each row of them in a list of its own."""

    takes = (TYPES,)
    constant_inputs = None

    def set_up(self) -> None:
        attrs = self.node.attrs
        first, second = self.node.inputs
        if first.dtype != second.dtype or not second.shape:
            raise NotNative
        bucketize = self.node.op.name == "Bucketize"
        self.values, self.sequence = (first, second) if bucketize else (second, first)
        right = not attrs["with_right_bound"] if bucketize else attrs["right_mode"]
        constants = {"T": self.values.dtype, "index": attrs["output_type"], "right": right}
        self.search, self.count = search(**constants), search_count(**constants)
        self.kernels = (self.search, self.count)

    def plan(self, planner: Planner) -> None:
        x, rows = planner.contiguous(self.values), planner.contiguous(self.sequence)
        y = planner.row_major_output(self.node.output)
        n = rows.shape[-1]
        items = product(x.shape)
        several = len(rows.shape) > 1
        counted = n <= COUNTED and not several
        values = {
            "x": x.ptr, "rows": rows.ptr, "y": y.ptr, "n": n, "row": n * rows.itemsize if several else 0,
            "m": max(x.shape[-1], 1) if several else max(items, 1), "items": items,
        }  # fmt: skip
        kernel = self.count if counted else self.search
        work = n / 4 if counted else 40 * max(n, 2).bit_length()
        planner.share_step(kernel, values, items, work, [x, rows], [y])
