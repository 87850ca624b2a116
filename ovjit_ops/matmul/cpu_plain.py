"""Matrix products in the elements' own type: f64, and integers that wrap around.

    y[m, n] = sum over k of a[m, k] b[k, n]

A block of `ROWS` rows and two vectors of columns is in registers; a's elements come from any place, b's
columns are adjacent. There is no packing: what is slow about such products is their type.
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
    share,
    splat,
    static_range,
    storem,
)
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering, place_constants
from ovjit.compiler.plan import Constants, Planner, ceil_div, split
from ovjit.compiler.views import Layout, View, merge_dims, placed_values, plain, product
from ovjit.graph.graph import Value

TYPES = frozenset("f64 i8 i16 i32 i64 u8 u16 u32 u64".split())
#: Rows in registers for each instruction set: twice as many accumulators, each of two registers for 8 bytes.
ROWS = {"avx512": 4, "avx2": 2, "generic": 2}


@inline
def multiplied(e, w, total, T):
    return fma(e, w, total) if T == "f64" else total + e * w


@kernel
def plain_product(
    a: Ptr, b: Ptr, y: Ptr, m, n, k, a_m, a_k, b_k, y_m, row_blocks, column_blocks, items, per_chunk, *, T,
    height,
):  # fmt: skip
    """A chunk is a range of (matrix, block of rows, block of columns)."""
    x = registers()
    c = registers()
    w = registers()
    for item in share(items, per_chunk):
        j = (item % column_blocks) * 2 * VL
        block = item // column_blocks
        i = (block % row_blocks) * height
        pa, pb, py = placed(block // row_blocks, a, b, y)
        pb += j * SIZE[T]
        py += i * y_m + j * SIZE[T]
        for r in static_range(height):
            # rows that are not there repeat the last one, and are not stored
            x[r] = pa + min(i + r, m - 1) * a_m
            for v in static_range(2):
                c[r, v] = const[T](0)
        left = n - j
        h = 0
        if left >= 2 * VL:
            while h < k:
                for v in static_range(2):
                    w[v] = load[T](pb + v * VL * SIZE[T])
                for r in static_range(height):
                    e = splat[T](x[r] + h * a_k)
                    for v in static_range(2):
                        c[r, v] = multiplied(e, w[v], c[r, v], T)
                pb += b_k
                h += 1
        else:
            while h < k:
                for v in static_range(2):
                    w[v] = loadm[T](pb + v * VL * SIZE[T], left - v * VL)
                for r in static_range(height):
                    e = splat[T](x[r] + h * a_k)
                    for v in static_range(2):
                        c[r, v] = multiplied(e, w[v], c[r, v], T)
                pb += b_k
                h += 1
        for r in static_range(height):
            if i + r < m:
                for v in static_range(2):
                    storem[T](py + v * VL * SIZE[T], c[r, v], left - v * VL)
            py += y_m


@functools.cache
def plain_kernel(dtype: str, rows: int) -> Kernel:
    return plain_product.kernel(f"plain_product_{dtype}_{rows}", T=dtype, height=rows)


class PlainProduct(Lowering):
    """MatMul of f64 or integers with any number of batch dimensions."""

    def __init__(self, group: Group):
        super().__init__(group)
        assert group.anchor is not None
        self.node = group.anchor
        self.out = self.node.output
        self.rows = ROWS[host_isa().name]
        self.kernel = plain_kernel(self.out.dtype, self.rows)
        self.kernels = (self.kernel,)

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
        y = planner.allocate(planner.shape(self.out), size)
        if not y.count:
            planner.alias_or_copy(self.out, y)
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
            planner.alias_or_copy(self.out, y)
            return
        row_blocks, column_blocks = ceil_div(m, self.rows), ceil_div(n, 2 * host_isa().lanes)
        items = product(extents) * row_blocks * column_blocks
        per_chunk = split(items, k * self.rows * 2 * host_isa().lanes)
        values: dict[str, Any] = {
            "a": a.ptr, "b": b.ptr, "y": whole.ptr, "m": m, "n": n, "k": k, "a_m": a.strides[-2],
            "a_k": a.strides[-1], "b_k": b.strides[-2], "y_m": n * size, "row_blocks": row_blocks,
            "column_blocks": column_blocks, "items": items, "per_chunk": per_chunk,
        }  # fmt: skip
        values |= placed_values(extents, a=rows[0], b=rows[1], y=rows[2])
        planner.step(
            self.kernel, values, ceil_div(items, per_chunk), [a, b], [y], 2.0 * product(batch) * m * n * k
        )
        planner.alias_or_copy(self.out, y)

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
    assert group.anchor is not None
    a, b = group.anchor.inputs
    if group.body:
        return None  # what is behind the sums is a step of its own
    return PlainProduct(group) if a.dtype in TYPES and a.dtype == b.dtype and a.shape and b.shape else None
