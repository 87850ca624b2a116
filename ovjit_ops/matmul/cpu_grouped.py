"""Native GroupedMatMul of rows: each group, which ends where data say, times a matrix of its own.

A tile is some rows of one group by two vectors of columns. Which group a tile is in is counted from the ends,
so there are as many tiles as groups of any lengths may need.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ovjit.codegen.function import kernel
from ovjit.codegen.tensors import Raw
from ovjit.codegen.words import *
from ovjit.planning.lower import Lowering, place_constants
from ovjit.planning.plan import Constants, Planner, ceil_div
from ovjit.planning.views import Layout
from ovjit_ops.matmul.cpu_plain import FEW, multiplied, place_panels


class Sizes(NamedTuple):
    """Rows, columns, depth and groups."""

    m: int
    n: int
    k: int
    groups: int


class Steps(NamedTuple):
    """Bytes along both axes of a, and along groups and both axes of b."""

    a_m: int
    a_k: int
    b_g: int
    b_j: int
    b_k: int


class Shares(NamedTuple):
    """Tiles of a group; items, and how many a chunk takes."""

    tiles: int
    items: int
    per_chunk: int


@kernel(sizes=Raw(Sizes), steps=Raw(Steps), shares=Raw(Shares))
def grouped_product(a: Ptr, b: Ptr, y: Ptr, ends: Ptr, sizes, steps, shares, *, T, index, tall, few, wide):
    """y[i] = a[i] b[g] of the rows i of group g. Blocks of columns of b are b_j bytes apart."""
    x, c, w = registers()
    for item in share(shares.items, shares.per_chunk):
        tile = item % shares.tiles
        column = item // shares.tiles
        first = 0
        stop = 0
        group = 0
        rows = 0
        for g in range(sizes.groups):
            end = ld[index](ends + g * SIZE[index]) + 0
            if end < stop or end > sizes.m:
                return 1
            if rows == 0 and tile >= 0:
                blocks = (end - stop + tall - 1) // tall
                if tile < blocks:
                    group = g
                    first = stop + tile * tall
                    rows = min(end - first, tall)
                tile -= blocks
            stop = end
        if stop != sizes.m:
            return 1
        j = column * wide * VL
        left = sizes.n - j
        for way in ("tall", "few"):
            if way == "few" or rows > few:
                if rows > 0:
                    pb = b + group * steps.b_g + column * steps.b_j
                    for r in static_range(tall if way == "tall" else few):
                        # rows that are not there repeat the last one, and are not stored
                        x[r] = a + (first + min(r, rows - 1)) * steps.a_m
                    for r, v in np.ndindex(tall if way == "tall" else few, wide):
                        c[r, v] = const[T](0)
                    h = 0
                    for whole in (True, False):
                        if not whole or left >= wide * VL:
                            while h < sizes.k:
                                for v in static_range(wide):
                                    p = pb + v * VL * SIZE[T]
                                    w[v] = load[T](p) if whole else loadm[T](p, left - v * VL)
                                for r in static_range(tall if way == "tall" else few):
                                    e = splat[T](x[r] + h * steps.a_k)
                                    for v in static_range(wide):
                                        c[r, v] = multiplied(e, w[v], c[r, v], T)
                                pb += steps.b_k
                                h += 1
                    for r in static_range(tall if way == "tall" else few):
                        if r < rows:
                            for v in static_range(wide):
                                q = y + (first + r) * sizes.n * SIZE[T] + (j + v * VL) * SIZE[T]
                                storem[T](q, c[r, v], left - v * VL)
                break


class GroupedProduct(Lowering):
    ranks = ((2,),)

    def set_up(self) -> None:
        dtype, rows = self.out.dtype, self.target.shapes.plain
        self.wide = 1 if SIZE[dtype] == 8 else 2
        self.tall = rows if dtype not in ("i64", "u64") or self.target.name == "avx512" else 4
        self.kernel = grouped_product(
            T=dtype, index=self.node.inputs[2].dtype, tall=self.tall, few=FEW, wide=self.wide
        )

    def pack(self, constants: Constants) -> None:
        a, b, ends = self.node.inputs
        place_constants(constants, (a, ends))
        right, self.panels = b.constant, None
        if right is not None and right.size:
            width = self.wide * self.target.lanes
            self.panels = place_panels(constants, self, right.swapaxes(-1, -2), b.dtype, width)

    def plan(self, planner: Planner) -> None:
        left, right, offsets = self.node.inputs
        a, ends = planner.view(left), planner.contiguous(offsets)
        groups, n, k = planner.shape(right)
        y = planner.row_major_output(self.out)
        width, size, m = self.wide * self.target.lanes, y.itemsize, a.shape[0]
        columns = ceil_div(n, width)
        if self.panels is not None:
            b = self.panels
            b_k, b_j = width * size, width * size * k
            b_g = columns * b_j
        else:
            b = planner.copy(right, Layout((0, 2, 1)))  # [G, N, K] with adjacent columns
            b_g, b_j, b_k = b.strides[0], width * size, b.strides[2]
        tiles = ceil_div(m, self.tall) + groups
        values = {
            "a": a.ptr, "b": b.ptr, "y": y.ptr, "ends": ends.ptr, "m": m, "n": n, "k": k, "groups": groups,
            "a_m": a.strides[0], "a_k": a.strides[1], "b_g": b_g, "b_j": b_j, "b_k": b_k, "tiles": tiles,
            "items": tiles * columns,
        }  # fmt: skip
        work = k * self.tall * width
        planner.share_step(self.kernel, values, tiles * columns, work, [a, b, ends], [y], 2.0 * m * n * k)
