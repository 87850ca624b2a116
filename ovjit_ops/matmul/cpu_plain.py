"""Matrix products in the elements' own type: f64, and integers that wrap around.

    y[m, n] = sum over k of a[m, k] b[k, n]

A block of rows and of columns is in registers; a's elements come from any place, b's columns are adjacent.
Where several blocks of rows read the same columns, those are put together first: their rows may be so far
apart that caches keep few of them.

Products of i32 are exact in f32 where the largest elements of both sides and the depth are such that no sum
can pass 2^24: then a multiplication and an addition are one instruction. Elements are looked at before.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.function import DIMS, inline, kernel
from ovjit.codegen.words import *
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import NotNative, Planner, ceil_div, split
from ovjit.compiler.views import Layout, View, merge_dims, placed_values, plain, product
from ovjit.graph.graph import Value
from ovjit.graph.traced import least
from ovjit.graph.traced import most as most_of

TYPES = frozenset("f64 i8 i16 i32 i64 u8 u16 u32 u64".split())
#: Rows in registers for each instruction set, where there are as many: with `wide` vectors of columns there
#: are as many accumulators as registers leave room for.
ROWS = {"avx512": 12, "avx2": 6, "generic": 2}
#: Few rows, and elements whose products take registers of their own.
FEW = 2
#: Bytes of a panel of the right-hand side that is put together: it stays in the second-level cache.
PANEL = 1 << 18
#: Blocks of rows for which that pays.
SEVERAL = 4
#: Types of whose elements a float of the same size may hold the sums, and what all whole numbers below are
#: exact in it.
REAL = {"i32": "f32"}
EXACT = 1 << 24
#: Most parts in which elements are looked at.
PARTS = 32


@inline
def multiplied(e, w, total, T):
    return fma(e, w, total) if T in ("f32", "f64") else total + e * w


@kernel
def magnitude(x: Ptr, y: Ptr, floats: Ptr, kept, count, per_chunk, *, T, real):
    """y[chunk]: the largest absolute value of a chunk's elements, an int64. `kept`: they are written as
    floats too."""
    low = const[T](0)
    high = const[T](0)
    end = min(count, (chunk + 1) * per_chunk)
    for i in range(chunk * per_chunk, end, VL):
        v = loadm[T](x + i * SIZE[T], end - i)
        low = minimum(low, v)
        high = maximum(high, v)
        if kept == 1:
            storem[real](floats + i * SIZE[T], cast[real](v), end - i)
    most = hmax[T](high) + 0
    least_ = hmin[T](low) + 0
    st[i64](y + chunk * 8, max(most, 0 - least_))


@kernel
def plain_product(
    a: Ptr, b: Ptr, y: Ptr, floats: Ptr, left_most: Ptr, right_most: Ptr, lefts, rights, m, n, k, a_m, a_k,
    b_k, y_m, row_blocks, column_blocks, packed, items, per_chunk, *, T, height, wide, real,
):  # fmt: skip
    """A chunk is a range of (matrix, block of columns, block of rows). `packed`: the rows of a block of
    columns are put together in scratch, for all blocks of rows that follow. `left_most` and `right_most`
    have `lefts` and `rights` parts of what `magnitude` finds, where sums may be exact in the type `real`, and
    `floats` the elements of a in it."""
    x, c, w, e = registers()
    panel = -1
    exact = 0
    if real:
        left_size = 0
        for i in range(lefts):
            left_size = max(left_size, ld[i64](left_most + i * 8))
        right_size = 0
        for i in range(rights):
            right_size = max(right_size, ld[i64](right_most + i * 8))
        if lefts > 0 and left_size < EXACT and right_size < EXACT:
            if left_size * right_size < EXACT and left_size * right_size * k < EXACT:
                exact = 1
        moved = exact * (floats - a)
    for item in share(items, per_chunk):
        i = (item % row_blocks) * height
        column = item // row_blocks
        j = (column % column_blocks) * wide * VL
        pa, pb, py = placed(column // column_blocks, a, b, y)
        pb += j * SIZE[T]
        py += i * y_m + j * SIZE[T]
        left = n - j
        step = b_k
        if packed == 1:
            if column != panel:
                panel = column
                for h in range(k):
                    for v in static_range(wide):
                        part = loadm[T](pb + h * b_k + v * VL * SIZE[T], left - v * VL)
                        if real and exact == 1:
                            store[real](scratch + (h * wide + v) * VL * SIZE[T], cast[real](part))
                        else:
                            store[T](scratch + (h * wide + v) * VL * SIZE[T], part)
            pb = scratch
            step = wide * VL * SIZE[T]
        for r in static_range(height):
            # rows that are not there repeat the last one, and are not stored
            x[r] = pa + min(i + r, m - 1) * a_m
            if real:
                x[r] += moved
        h = 0
        for way in ("exact", "whole", "part") if real else ("whole", "part"):
            if way == "part" or (exact == 1 if way == "exact" else packed == 1 or left >= wide * VL):
                E = real if way == "exact" else T  # numbers of different types have different names
                for r, v in np.ndindex(height, wide):
                    c[E, r, v] = const[E](0)
                while h < k:
                    for v in static_range(wide):
                        p = pb + v * VL * SIZE[T]
                        w[E, v] = loadm[E](p, left - v * VL) if way == "part" else load[E](p)
                    for r in static_range(height):
                        e[E] = splat[E](x[r] + h * a_k)
                        for v in static_range(wide):
                            c[E, r, v] = multiplied(e[E], w[E, v], c[E, r, v], E)
                    pb += step
                    h += 1
                if way == "exact":
                    for r, v in np.ndindex(height, wide):
                        c[T, r, v] = trunc_int[T](c[E, r, v])
                break
        for r in static_range(height):
            if i + r < m:
                for v in static_range(wide):
                    storem[T](py + v * VL * SIZE[T], c[T, r, v], left - v * VL)
            py += y_m


class PlainProduct(Lowering):
    """MatMul of f64 or integers with any number of batch dimensions; what follows it is a step of its own."""

    takes = (TYPES,)
    constant_inputs = None

    def set_up(self) -> None:
        a, b = self.node.inputs
        if self.group.body or a.dtype != b.dtype or not a.shape or not b.shape:
            raise NotNative
        dtype, isa = self.out.dtype, host_isa()
        self.wide = 1 if SIZE[dtype] == 8 else 2  # 8 bytes take two registers
        rows = ROWS[isa.name] if dtype not in ("i64", "u64") or isa.name == "avx512" else 4
        self.heights = (FEW, rows)
        # blocks of few rows do not read a panel often enough for a second form of it
        real = {height: REAL.get(dtype, "") if height > FEW else "" for height in self.heights}
        self.products = [plain_product(T=dtype, height=h, wide=self.wide, real=real[h]) for h in self.heights]
        self.kernels = [*self.products, *([magnitude(T=dtype, real=REAL[dtype])] if dtype in REAL else ())]

    def plan(self, planner: Planner) -> None:
        ra, rb = (len(v.shape) for v in self.node.inputs)
        size = SIZE[self.out.dtype]
        a = planner.view(self.node.inputs[0])
        if ra == 1:
            a = View(a.buffer, (1, a.shape[0]), (0, a.strides[0]), size, a.offset)
        elif self.node.attrs["transpose_a"]:
            a = a.permute((*range(ra - 2), ra - 1, ra - 2))
        b = self._right(planner, self.node.inputs[1], rb)
        y = planner.row_major_output(self.out)
        if not y.count:
            return
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        batch = y.shape[: len(y.shape) - (ra > 1) - (rb > 1)]
        a, b = a.expand((*batch, m, k)), b.expand((*batch, k, n))
        whole = y.reshape((*batch, m, n))
        assert whole is not None  # it has no gaps
        extents, rows = merge_dims(list(batch), [v.strides[: len(batch)] for v in (a, b, whole)])
        if len(extents) > DIMS:  # operands without gaps merge to three at most, but for odd broadcasts
            inputs = [planner.contiguous(v) for v in self.node.inputs]
            planner.host_step(self.node, inputs, [y])
            return
        tall = m > 2 * FEW
        height, width = self.heights[tall], self.wide * host_isa().lanes
        row_blocks, column_blocks = ceil_div(m, height), ceil_div(n, width)
        items = product(extents) * row_blocks * column_blocks
        work = k * height * width
        panel = k * width * size
        packed = panel <= PANEL and least(row_blocks, split(items, work)) >= SEVERAL
        if packed:
            planner.need_scratch(panel)
        values = {
            "a": a.ptr, "b": b.ptr, "y": whole.ptr, "m": m, "n": n, "k": k, "a_m": a.strides[-2],
            "a_k": a.strides[-1], "b_k": b.strides[-2], "y_m": n * size, "row_blocks": row_blocks,
            "column_blocks": column_blocks, "packed": int(packed), "items": items,
        }  # fmt: skip
        values |= placed_values(extents, a=rows[0], b=rows[1], y=rows[2])
        most = self._magnitudes(planner) if packed else []
        for name, view in zip(("left_most", "right_most", "floats"), most or (None,) * 3, strict=True):
            values[name] = (view or y).ptr
        values |= {"lefts": most[0].count if most else 0, "rights": most[1].count if most else 0}
        flops = 2.0 * product(batch) * m * n * k
        planner.share_step(self.products[tall], values, items, work, [a, b, *most], [y], flops)

    def _magnitudes(self, planner: Planner) -> list[View]:
        """The largest absolute values of both sides, in parts, and the left one as floats; none where a float
        is no help, or an operand has gaps."""
        views = [planner.view(v) for v in self.node.inputs]
        if self.out.dtype not in REAL or not all(v.is_contiguous for v in views):
            return []
        floats = planner.allocate((views[0].count,), views[0].itemsize)
        found: list[View] = []
        for view in views:
            count, kept = view.count, not found
            per_chunk = most_of(split(count, view.itemsize), ceil_div(count, PARTS))
            chunks = ceil_div(count, per_chunk)
            sizes = planner.allocate((chunks,), 8)
            values = {"x": view.ptr, "y": sizes.ptr, "floats": floats.ptr, "kept": int(kept), "count": count,
                      "per_chunk": per_chunk}  # fmt: skip
            made = [sizes, floats] if kept else [sizes]
            planner.step(self.kernels[-1], values, chunks, [view], made)
            found.append(sizes)
        return [*found, floats]

    def _right(self, planner: Planner, value: Value, rank: int) -> View:
        """The right-hand side as [..., k, n] with adjacent columns."""
        view = planner.view(value)
        if rank == 1:
            return View(
                view.buffer, (view.shape[0], 1), (view.strides[0], view.itemsize), view.itemsize, view.offset
            )
        turned = self.node.attrs["transpose_b"]
        columns = rank - 2 if turned else rank - 1
        if view.shape[columns] > 1 and view.strides[columns] != view.itemsize:
            order = (*range(rank - 2), rank - 1, rank - 2)
            view = planner.copy(value, Layout(order) if turned else plain(rank))
        return view.permute((*range(rank - 2), rank - 1, rank - 2)) if turned else view
