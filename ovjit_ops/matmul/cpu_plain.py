"""Matrix products in the elements' own type: f64, and integers that wrap around.

    y[m, n] = sum over k of a[m, k] b[k, n]

A block of rows and of columns is in registers; a's elements come from any place, b's columns are adjacent.
Where several blocks of rows read the same columns, those are put together first: their rows may be so far
apart that caches keep few of them.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.function import DIMS, inline, kernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.words import (
    VL,
    Ptr,
    const,
    fma,
    load,
    loadm,
    placed,
    registers,
    scratch,
    share,
    splat,
    static_range,
    store,
    storem,
)
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering, place_constants
from ovjit.compiler.plan import Constants, Planner, ceil_div, split
from ovjit.compiler.views import Layout, View, merge_dims, placed_values, plain, product
from ovjit.graph.graph import Value
from ovjit.graph.traced import least
from ovjit_ops.common.outputs import put_outputs, row_major_output

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


@inline
def multiplied(e, w, total, T):
    return fma(e, w, total) if T == "f64" else total + e * w


@kernel
def plain_product(
    a: Ptr, b: Ptr, y: Ptr, m, n, k, a_m, a_k, b_k, y_m, row_blocks, column_blocks, packed, items, per_chunk,
    *, T, height, wide,
):  # fmt: skip
    """A chunk is a range of (matrix, block of columns, block of rows). `packed`: the rows of a block of
    columns are put together in scratch, for all blocks of rows that follow."""
    x = registers()
    c = registers()
    w = registers()
    panel = -1
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
                        store[T](scratch + (h * wide + v) * VL * SIZE[T], part)
            pb = scratch
            step = wide * VL * SIZE[T]
        for r in static_range(height):
            # rows that are not there repeat the last one, and are not stored
            x[r] = pa + min(i + r, m - 1) * a_m
            for v in static_range(wide):
                c[r, v] = const[T](0)
        h = 0
        if packed == 1 or left >= wide * VL:
            while h < k:
                for v in static_range(wide):
                    w[v] = load[T](pb + v * VL * SIZE[T])
                for r in static_range(height):
                    e = splat[T](x[r] + h * a_k)
                    for v in static_range(wide):
                        c[r, v] = multiplied(e, w[v], c[r, v], T)
                pb += step
                h += 1
        else:
            while h < k:
                for v in static_range(wide):
                    w[v] = loadm[T](pb + v * VL * SIZE[T], left - v * VL)
                for r in static_range(height):
                    e = splat[T](x[r] + h * a_k)
                    for v in static_range(wide):
                        c[r, v] = multiplied(e, w[v], c[r, v], T)
                pb += step
                h += 1
        for r in static_range(height):
            if i + r < m:
                for v in static_range(wide):
                    storem[T](py + v * VL * SIZE[T], c[r, v], left - v * VL)
            py += y_m


@functools.cache
def plain_kernel(dtype: str, rows: int, wide: int) -> Kernel:
    return plain_product.kernel(f"plain_product_{dtype}_{rows}", T=dtype, height=rows, wide=wide)


class PlainProduct(Lowering):
    """MatMul of f64 or integers with any number of batch dimensions."""

    def __init__(self, group: Group):
        super().__init__(group)
        self.out = self.node.output
        dtype, isa = self.out.dtype, host_isa()
        self.wide = 1 if SIZE[dtype] == 8 else 2  # 8 bytes take two registers
        rows = ROWS[isa.name] if dtype not in ("i64", "u64") or isa.name == "avx512" else 4
        self.heights = (FEW, rows)
        self.kernels = [plain_kernel(dtype, height, self.wide) for height in self.heights]

    def pack(self, constants: Constants) -> None:
        place_constants(constants, self.node.inputs)

    def plan(self, planner: Planner) -> None:
        ra, rb = (len(v.shape) for v in self.node.inputs)
        size = SIZE[self.out.dtype]
        a = planner.view(self.node.inputs[0])
        if ra == 1:
            a = View(a.buffer, (1, a.shape[0]), (0, a.strides[0]), size, a.offset)
        elif self.node.attrs["transpose_a"]:
            a = a.permute((*range(ra - 2), ra - 1, ra - 2))
        b = self._right(planner, self.node.inputs[1], rb)
        y = row_major_output(planner, self.out)
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
            put_outputs(planner, self.node, [y])
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
        values: dict[str, Any] = {
            "a": a.ptr, "b": b.ptr, "y": whole.ptr, "m": m, "n": n, "k": k, "a_m": a.strides[-2],
            "a_k": a.strides[-1], "b_k": b.strides[-2], "y_m": n * size, "row_blocks": row_blocks,
            "column_blocks": column_blocks, "packed": int(packed), "items": items,
        }  # fmt: skip
        values |= placed_values(extents, a=rows[0], b=rows[1], y=rows[2])
        flops = 2.0 * product(batch) * m * n * k
        planner.share_step(self.kernels[tall], values, items, work, [a, b], [y], flops)
        put_outputs(planner, self.node, [y])

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


def lower_plain(group: Group) -> Lowering | None:
    """Native for f64 and integers."""
    a, b = group.node.inputs
    if group.body:
        return None  # what is behind the sums is a step of its own
    return PlainProduct(group) if a.dtype in TYPES and a.dtype == b.dtype and a.shape and b.shape else None
