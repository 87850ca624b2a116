"""Native NonZero: blocks of rows are counted, and then every block knows where its positions begin.

Positions of a block are first gathered along its row, without a branch, and then written a vector at a time.
"""

from __future__ import annotations

from typing import Any

from ovjit.codegen.function import kernel
from ovjit.codegen.tensors import BlockShare, Raw
from ovjit.codegen.words import *
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import Planner, ceil_div, split
from ovjit.planning.views import product

#: Elements of a row that are looked at together.
BLOCK = 4096
#: Types that are read as others, in which the same elements are zero.
SAME_BITS = {"boolean": "u8", "u64": "i64"}
#: Dimensions that are told one by one.
MOST_DIMS = 8


@kernel(of=Raw(BlockShare))
def nonzero_count(x: Ptr, counts: Ptr, n, of, *, T):
    """counts[chunk] = how many elements of its blocks are not zero."""
    zero = const[T](0)
    total = 0
    for item in share(of.items, of.per_chunk):
        first = item % of.blocks * BLOCK
        many = min(n - first, BLOCK)
        p = x + (item // of.blocks * n + first) * SIZE[T]
        found = const[i32](0)
        for k in range(0, many, VL):
            v = loadm[T](p + k * SIZE[T], many - k)
            found = found + select(v != zero, const[i32](1), const[i32](0))
        total += hadd[i32](found)
    st[i64](counts + chunk * 8, total)


@kernel
def nonzero_list(
    x: Ptr, counts: Ptr, places: Ptr, number: Ptr, n, e0, e1, e2, e3, e4, e5, e6, chunks, blocks, items,
    per_chunk, *, T, index, rank,
):  # fmt: skip
    """places[d, i] of the number of elements that were counted: where the i-th is along dimension d, of e_d
    elements."""
    e = registers()
    total = 0
    at = 0
    for i in range(chunks):
        if i == chunk:
            at = total
        total += ld[i64](counts + i * 8)
    if chunk == 0:
        st[i64](number, total)
    for item in share(items, per_chunk):
        row = item // blocks
        first = item % blocks * BLOCK
        many = min(n - first, BLOCK)
        p = x + (row * n + first) * SIZE[T]
        found = 0
        for k in range(many):
            st[i64](scratch + found * 8, first + k)
            if ld[T](p + k * SIZE[T]) != 0:
                found += 1
        for k in range(0, found, VL):
            v = cast[index](loadm[i64](scratch + k * 8, found - k))
            storem[index](places + ((rank - 1) * total + at + k) * SIZE[index], v, found - k)
        rest = row
        if found > 0:
            for d in static_range(rank - 2, -1, -1):
                here = cast[index](spread[i64](rest % e[d]))
                rest = rest // e[d]
                for k in range(0, found, VL):
                    storem[index](places + (d * total + at + k) * SIZE[index], here, found - k)
        at += found


class Positions(Lowering):
    """Two steps: counts of all chunks, and the positions."""

    ranks = (range(1, MOST_DIMS + 1),)

    def set_up(self) -> None:
        (self.data,) = self.node.inputs
        dtype = SAME_BITS.get(self.data.dtype, self.data.dtype)
        self.count = nonzero_count(T=dtype)
        self.list = nonzero_list(T=dtype, index=self.node.outputs[0].dtype, rank=len(self.data.shape))
        self.kernels = (self.count, self.list)

    def plan(self, planner: Planner) -> None:
        x = planner.contiguous(self.data)
        made = places, number = planner.row_major_outputs(self.node)
        n = x.shape[-1]
        blocks = ceil_div(n, BLOCK)
        items = product(x.shape[:-1]) * blocks
        per_chunk = split(items, 2 * n if n < BLOCK else 2 * BLOCK)
        chunks = max(ceil_div(items, per_chunk), 1)
        counts = planner.allocate((chunks,), 8)
        shared: dict[str, Any] = {
            "x": x.ptr, "counts": counts.ptr, "n": n, "blocks": max(blocks, 1), "items": items,
            "per_chunk": per_chunk,
        }  # fmt: skip
        planner.step(self.count, shared, chunks, [x], [counts], x.count)
        values = shared | {"places": places.ptr, "number": number.ptr, "chunks": chunks}
        values |= {f"e{d}": extent for d, extent in enumerate(x.shape[:-1])}
        planner.need_scratch(BLOCK * 8)
        planner.step(self.list, values, chunks, [x, counts], made, x.count)
