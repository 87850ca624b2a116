"""Native GroupedMatMul of rows: each group of rows, whose end depends on data, is multiplied by its own
matrix.

A tile has several rows of one group and two vectors of columns. The kernel derives a tile's group from the
ends. The plan has as many tiles as the worst group lengths need; surplus tiles have no rows.
"""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit.planning.lower import Constants, Layout, Lowering, Planner, ceil_div, launch, place_constants
from ovjit_ops.matmul.cpu_plain import FEW, place_panels, sum_products


@kernel(over="n/width tiles", a="m k", b="g k e", y="m n:1", ends="g:1")
def grouped_product(
    a: Tensor, b: Tensor, y: Tensor, ends: Tensor, panel, tiles, *, T, index, width, tall, short, vectors,
):  # fmt: skip
    """y[i] = a[i] b[g] for the rows i of group g. Blocks of columns of b are `panel` bytes apart. An item is
    a tile of a block; `tiles` is their maximum number. Returns 1 if the ends decrease or differ from the
    rows."""
    x, c, w = registers()
    for j, tile in items():
        first = 0
        stop = 0
        group = 0
        rows = 0
        for g in range(ends.size.g):
            end = ld[index](ends + g * SIZE[index]) + 0
            if end < stop or end > y.size.m:
                return 1
            if rows == 0 and tile >= 0:
                some = (end - stop + tall - 1) // tall
                if tile < some:
                    group = g
                    first = stop + tile * tall
                    rows = min(end - first, tall)
                tile -= some
            stop = end
        if stop != y.size.m:
            return 1
        count = y.size.n - j
        for way in ("tall", "short"):
            if way == "short" or rows > short:
                if rows > 0:
                    pb = b.at(g=group) + j // width * panel
                    for r in static_range(tall if way == "tall" else short):
                        # missing rows repeat the last one, and are not stored
                        x[r] = a.at(m=first + min(r, rows - 1))
                    sum_products(c, w, x, a, b, pb, count, tall if way == "tall" else short, vectors, T, T)
                    for r in static_range(tall if way == "tall" else short):
                        if r < rows:
                            for v in static_range(vectors):
                                q = y.at(m=first + r, n=j + v * VL)
                                storem[T](q, c[r, v], count - v * VL)
                break


class GroupedProduct(Lowering):
    ranks = ((2,),)

    def set_up(self) -> None:
        dtype, rows = self.out.dtype, self.target.shapes.plain
        vectors, index = 1 if SIZE[dtype] == 8 else 2, self.node.inputs[2].dtype
        self.width = vectors * self.target.lanes
        self.tall = rows if dtype not in ("i64", "u64") or self.target.name == "avx512" else 4
        self.kernel = grouped_product(
            T=dtype, index=index, width=self.width, tall=self.tall, short=FEW, vectors=vectors
        )

    def pack(self, constants: Constants) -> None:
        a, b, ends = self.node.inputs
        place_constants(constants, (a, ends))
        right, self.panels = b.constant, None
        if right is not None and right.size:
            self.panels = place_panels(constants, self, right.swapaxes(-1, -2), b.dtype, self.width)

    def plan(self, planner: Planner) -> None:
        rows, right, offsets = self.node.inputs
        groups, n, k = planner.shape(right)
        b = self.panels
        if b is None:  # [G, N, K] with adjacent columns
            b = planner.copy(right, Layout((0, 2, 1))).permute((0, 2, 1))
        y = planner.row_major_output(self.out)
        m, width = y.shape[0], self.width
        tensors = {"a": planner.view(rows), "b": b, "ends": planner.contiguous(offsets), "y": y}
        launch(
            planner, self.kernel, tensors, ("y",), work=k * self.tall * width, flops=2.0 * m * n * k,
            disjoint=False, width=width, tiles=ceil_div(m, self.tall) + groups,
            panel=width * y.itemsize if self.panels is None else k * b.strides[1],
        )  # fmt: skip
