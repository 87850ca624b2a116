"""Matrix products in the elements' own type: f64, and integers that wrap around.

    y[m, n] = sum over k of a[m, k] b[k, n]

Both sides are first packed into panels, in which elements that are multiplied together are adjacent: `height`
elements of k of as many rows, and `wide` vectors of columns. A block of both is in registers. The first-level
cache keeps a part of a panel of columns, which goes through a range of rows before the next part does. Few
rows are multiplied with b in place. A constant b is packed once, as floats if those represent its integers.

Products of i32 and i64 are exact in f32 if no sum can pass 2^24, by the largest elements of both sides and
the depth. Then a multiplication and an addition are one instruction. Elements are checked before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ovjit.codegen.function import DIMS, inline, kernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.tensors import BlockShare, Raw
from ovjit.codegen.words import *
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Value
from ovjit.graph.symbolic import sym_max
from ovjit.planning.lower import Lowering, place_constants
from ovjit.planning.plan import Constants, Filling, NotNative, Planner, ceil_div, split
from ovjit.planning.views import (
    CONSTANTS,
    Buffer,
    Layout,
    View,
    merge_dims,
    placed_values,
    plain,
    product,
    row_major,
)

TYPES = frozenset("f64 i8 i16 i32 i64 u8 u16 u32 u64".split())
#: Few rows, and elements whose products take registers of their own.
FEW = 2
#: Bytes of a panel of columns that the first-level cache keeps, and blocks of rows that it goes through then.
KEPT_BYTES, TOGETHER = 24 * 1024, 16
#: Types of whose elements a float may hold the sums, and what all whole numbers below are exact in it.
REAL = {"i32": "f32", "i64": "f32"}
EXACT = 1 << 24
#: Most parts in which elements are looked at.
PARTS = 32


@inline
def multiplied(e, w, total, T):
    return fma(e, w, total) if T in ("f32", "f64") else total + e * w


@inline
def stored_as(x, R, T):
    """Integers that lie as floats, below `EXACT`, in their own type."""
    return x if R == T else cast[T](trunc_int[i32](x))


@kernel
def magnitude(x: Ptr, y: Ptr, count, per_chunk, *, T):
    """y[chunk]: the largest absolute value of a chunk's elements, an int64; the lowest int64 is its own."""
    low = const[T](0)
    high = const[T](0)
    end = min(count, (chunk + 1) * per_chunk)
    for i in range(chunk * per_chunk, end, VL):
        v = loadm[T](x + i * SIZE[T], end - i)
        low = minimum(low, v)
        high = maximum(high, v)
    least_ = hmin[T](low) + 0
    if least_ < -EXACT:
        least_ = -EXACT
    st[i64](y + chunk * 8, max(hmax[T](high) + 0, 0 - least_))


@inline
def settle(way, left_most, right_most, lefts, rights, k):
    """way["exact"]: 1 where sums are exact in a float, by what `magnitude` has found of both sides."""
    way["exact"] = 0
    way["left"] = 0
    for i in range(lefts):
        way["left"] = max(way["left"], ld[i64](left_most + i * 8))
    way["right"] = 0
    for i in range(rights):
        way["right"] = max(way["right"], ld[i64](right_most + i * 8))
    if lefts > 0 and way["left"] < EXACT and way["right"] < EXACT:
        if way["left"] * way["right"] < EXACT and way["left"] * way["right"] * k < EXACT:
            way["exact"] = 1


class Bounds(NamedTuple):
    """The largest magnitude of each part of both operands, and how many parts there are."""

    left_most: Ptr
    right_most: Ptr
    lefts: int
    rights: int


class Apart(NamedTuple):
    """Bytes between outer rows and along the depth; outer rows, and the depth."""

    x_o: int
    x_k: int
    outer: int
    k: int


@kernel(bounds=Raw(Bounds), apart=Raw(Apart), of=Raw(BlockShare))
def put_together(x: Ptr, y: Ptr, bounds, apart, of, *, T, real, height, parts, wide):
    """[..., outer, k] -> [..., block, k, elements of a block]: `height` rows, which take `parts` vectors, or
    `wide` vectors of adjacent columns. Zeros stand for what is not there. Elements become `real` where sums
    are exact in it."""
    way = registers()
    way["exact"] = 0
    if real:
        settle(way, bounds.left_most, bounds.right_most, bounds.lefts, bounds.rights, apart.k)
    for item in share(of.items, of.per_chunk):
        p = placed(item // of.blocks, x)
        first = item % of.blocks * (height if height else wide * VL)
        left = apart.outer - first
        p += first * apart.x_o
        q = y + item * apart.k * (height if height else wide * VL) * SIZE[T]
        for kind in ("exact", "own") if real else ("own",):
            if kind == "own" or way["exact"] == 1:
                for _ in range(apart.k):
                    if height:
                        for i in static_range(parts):
                            v = gather[T](p + i * VL * apart.x_o, apart.x_o, min(left, height) - i * VL)
                            storem[real if kind == "exact" else T](
                                q + i * VL * SIZE[real if kind == "exact" else T],
                                cast[real](v) if kind == "exact" else v, height - i * VL,
                            )  # fmt: skip
                        q += height * SIZE[real if kind == "exact" else T]
                    else:
                        for i in static_range(wide):
                            v = loadm[T](p + i * VL * SIZE[T], left - i * VL)
                            store[real if kind == "exact" else T](q, cast[real](v) if kind == "exact" else v)
                            q += VL * SIZE[real if kind == "exact" else T]
                    p += apart.x_k
                break


class PanelSizes(NamedTuple):
    """Rows, columns, depth, depth of a panel; bytes from row to row of y."""

    m: int
    n: int
    k: int
    depth: int
    y_m: int


class GroupShares(NamedTuple):
    """Blocks of rows and columns, groups; items, and how many a chunk takes."""

    row_blocks: int
    column_blocks: int
    groups: int
    items: int
    per_chunk: int


@kernel(bounds=Raw(Bounds), sizes=Raw(PanelSizes), shares=Raw(GroupShares))
def panel_product(a: Ptr, b: Ptr, y: Ptr, bounds, sizes, shares, *, T, height, wide, real, packed):
    """Of panels that are put together. A chunk is a range of (matrix, block of columns, group of blocks of
    rows). `packed`: the type of a constant b's panels. Sums of more than `depth` rows of b wait in y for the
    next ones, which only those in T do."""
    c, w, e, way = registers()
    if real:
        settle(way, bounds.left_most, bounds.right_most, bounds.lefts, bounds.rights, sizes.k)
    for item in share(shares.items, shares.per_chunk):
        first = (item % shares.groups) * TOGETHER
        column = item // shares.groups
        j = (column % shares.column_blocks) * wide * VL
        ga, gb, gy = placed(column // shares.column_blocks, a, b, y)
        for done in range(0, max(sizes.k, 1), sizes.depth):
            some = min(sizes.depth, sizes.k - done)
            for block in range(first, min(first + TOGETHER, shares.row_blocks)):
                i = block * height
                pa = ga + (i * sizes.k + done * height) * SIZE[T]
                pb = gb + (j * sizes.k + done * wide * VL) * SIZE[packed or T]
                py = gy + i * sizes.y_m + j * SIZE[T]
                for kind in ("exact", "own") if real else ("own",):
                    if kind == "own" or way["exact"] == 1:
                        E = real if kind == "exact" else T  # numbers of different types have different names
                        R = packed or E
                        for r, v in np.ndindex(height, wide):
                            c[E, r, v] = const[E](0)
                        if not real and done > 0:
                            for r in static_range(height):
                                if i + r < sizes.m:
                                    for v in static_range(wide):
                                        c[E, r, v] = loadm[T](
                                            py + r * sizes.y_m + v * VL * SIZE[T], sizes.n - j - v * VL
                                        )
                        for _ in range(some):
                            for v in static_range(wide):
                                w[E, v] = stored_as(load[R](pb + v * VL * SIZE[R]), R, E)
                            for r in static_range(height):
                                e[E] = splat[E](pa + r * SIZE[E])
                                for v in static_range(wide):
                                    c[E, r, v] = multiplied(e[E], w[E, v], c[E, r, v], E)
                            pa += height * SIZE[E]
                            pb += wide * VL * SIZE[R]
                        if kind == "exact":
                            for r, v in np.ndindex(height, wide):
                                c[T, r, v] = trunc_int[T](c[E, r, v])
                        break
                for r in static_range(height):
                    if i + r < sizes.m:
                        for v in static_range(wide):
                            storem[T](py + v * VL * SIZE[T], c[T, r, v], sizes.n - j - v * VL)
                    py += sizes.y_m


class Sizes(NamedTuple):
    """Rows, columns and depth."""

    m: int
    n: int
    k: int


class Steps(NamedTuple):
    """Bytes along both axes of a and b, and from row to row of y."""

    a_m: int
    a_k: int
    b_k: int
    b_j: int
    y_m: int


class Shares(NamedTuple):
    """Blocks of rows and columns; items, and how many a chunk takes."""

    row_blocks: int
    column_blocks: int
    items: int
    per_chunk: int


@kernel(sizes=Raw(Sizes), steps=Raw(Steps), shares=Raw(Shares))
def plain_product(a: Ptr, b: Ptr, y: Ptr, sizes, steps, shares, *, T, height, wide, packed):
    """Of few rows, where both sides lie; blocks of b's columns are b_j bytes apart. `packed`: b's type where
    it lies in panels."""
    x, c, w = registers()
    R = packed or T
    for item in share(shares.items, shares.per_chunk):
        i = (item % shares.row_blocks) * height
        column = item // shares.row_blocks
        j = (column % shares.column_blocks) * wide * VL
        pa, pb, py = placed(column // shares.column_blocks, a, b, y)
        pb += column % shares.column_blocks * steps.b_j
        py += i * steps.y_m + j * SIZE[T]
        left = sizes.n - j
        for r in static_range(height):
            # rows that are not there repeat the last one, and are not stored
            x[r] = pa + min(i + r, sizes.m - 1) * steps.a_m
        for r, v in np.ndindex(height, wide):
            c[r, v] = const[T](0)
        h = 0
        for whole in (True, False):
            if not whole or left >= wide * VL:
                while h < sizes.k:
                    for v in static_range(wide):
                        p = pb + v * VL * SIZE[R]
                        w[v] = stored_as(load[R](p) if whole else loadm[R](p, left - v * VL), R, T)
                    for r in static_range(height):
                        e = splat[T](x[r] + h * steps.a_k)
                        for v in static_range(wide):
                            c[r, v] = multiplied(e, w[v], c[r, v], T)
                    pb += steps.b_k
                    h += 1
        for r in static_range(height):
            if i + r < sizes.m:
                for v in static_range(wide):
                    storem[T](py + v * VL * SIZE[T], c[r, v], left - v * VL)
            py += steps.y_m


def blocks_of(m: int, most: int) -> int:
    """Rows of a block, `most` or up to a third less, so that those of the last are few that are not there."""
    return min(range(most, most - most // 3 - 1, -1), key=lambda rows: ceil_div(m, rows) * (rows + 1))


def place_panels(constants: Constants, key: Any, right: np.ndarray, kind: str, width: int) -> View:
    """Matrices [..., k, n] in panels of `width` columns, as constants of type `kind`: a view of [..., 1,
    elements of all panels]."""
    *batch, k, n = right.shape
    dtype = numpy_dtype(kind)
    whole = (*batch, ceil_div(n, width), k, width)

    def fill(memory: np.ndarray) -> None:
        """Panels, zeros behind the last column."""
        panels = memory.view(dtype).reshape(whole)
        for j in range(whole[-3]):
            part = right[..., j * width : (j + 1) * width]
            panels[..., j, :, : part.shape[-1]] = part
            panels[..., j, :, part.shape[-1] :] = 0

    size, shape = product(whole) * dtype.itemsize, (*batch, 1, product(whole[-3:]))
    at = constants.place(Filling(size, fill), (key, "panels")).offset
    home = Buffer(size, CONSTANTS, at)
    return View(home, shape, row_major(shape, dtype.itemsize), dtype.itemsize)


class PlainProduct(Lowering):
    """MatMul of f64 or integers with any number of batch dimensions; what follows it is a step of its own."""

    takes = (TYPES,)
    constant_inputs = None

    def set_up(self) -> None:
        a, b = self.node.inputs
        if self.group.body or a.dtype != b.dtype or not a.shape or not b.shape:
            raise NotNative
        dtype, target = self.out.dtype, self.target
        self.wide = 1 if SIZE[dtype] == 8 else 2  # 8 bytes take two registers
        rows = target.shapes.plain if dtype not in ("i64", "u64") or target.name == "avx512" else 4
        real, self.packed = REAL.get(dtype, ""), ""
        constant = b.constant
        if constant is not None and constant.ndim > 1 and constant.size:
            self.largest = sym_max(int(constant.max()), -int(constant.min())) if real else 0
            real = real if self.largest < EXACT else ""
            self.packed = real or dtype
        self.real = real
        m = () if len(a.shape) < 2 else a.shape[-1 if self.node.attrs["transpose_a"] else -2]
        #: Rows of a block, and rows up to which b is multiplied where it lies.
        self.height, self.in_place = rows, 2 * FEW
        few = FEW
        if isinstance(m, int) and m > 2 * FEW:
            self.height = rows = blocks_of(m, rows)
            if not real and m <= 2 * self.height:
                self.in_place, few = m, rows
        self.few = plain_product(T=dtype, height=few, wide=self.wide, packed=self.packed)
        self.many = panel_product(T=dtype, height=rows, wide=self.wide, real=real, packed=self.packed)
        parts = ceil_div(rows, target.lanes)
        self.lefts = put_together(T=dtype, real=real, height=rows, parts=parts, wide=0)
        self.kernels = [self.few, self.many, self.lefts]
        if not self.packed:
            self.rights = put_together(T=dtype, real=real, height=0, parts=0, wide=self.wide)
            self.kernels.append(self.rights)
        if real:
            self.kernels.append(magnitude(T=dtype))

    def pack(self, constants: Constants) -> None:
        right = self.node.inputs[1].constant
        if not self.packed or right is None:
            super().pack(constants)
            return
        place_constants(constants, self.node.inputs[:1])
        right = right.swapaxes(-1, -2) if self.node.attrs["transpose_b"] else right
        self.panels = place_panels(constants, self, right, self.packed, self.wide * self.target.lanes)
        if self.real:
            self.right_most = constants.view(np.array([self.largest], np.int64), "i64")

    def plan(self, planner: Planner) -> None:
        ra, rb = (len(v.shape) for v in self.node.inputs)
        size = SIZE[self.out.dtype]
        a = self._walked(planner, self.node.inputs[0])
        if ra == 1:
            a = View(a.buffer, (1, a.shape[0]), (0, a.strides[0]), size, a.offset)
        elif self.node.attrs["transpose_a"]:
            a = a.permute((*range(ra - 2), ra - 1, ra - 2))
        b = self.panels if self.packed else self._right(planner, self.node.inputs[1], rb)
        y = planner.row_major_output(self.out)
        if not y.count:
            return
        m, k, n = a.shape[-2], a.shape[-1], self.out.shape[-1] if self.packed else b.shape[-1]
        batch = y.shape[: len(y.shape) - (ra > 1) - (rb > 1)]
        whole = y.as_shape((*batch, m, n))  # it has no gaps
        many = m > self.in_place
        height = self.height if many or self.in_place > 2 * FEW else FEW
        width = self.wide * self.target.lanes
        row_blocks, column_blocks = ceil_div(m, height), ceil_div(n, width)
        b_k, b_j = b.strides[-2], width * size
        if self.packed:
            b_k = width * b.itemsize
            b_j = k * b_k
        values: dict[str, Any] = {
            "m": m, "n": n, "k": k, "a_m": a.strides[-2], "a_k": a.strides[-1], "b_k": b_k, "b_j": b_j,
            "y_m": n * size, "row_blocks": row_blocks, "column_blocks": column_blocks,
        }  # fmt: skip
        read: list[View] = []
        if many:
            read = self._magnitudes(planner)
            left, right = read or (y, y)
            told: dict[str, Any] = {"left_most": left.ptr, "right_most": right.ptr}
            told |= {"lefts": left.count if read else 0, "rights": right.count if read else 0}
            values |= told
            depth = k if self.real else sym_max(1, KEPT_BYTES // (width * size))
            values |= {"depth": sym_max(1, depth), "groups": ceil_div(row_blocks, TOGETHER)}
            a = self._panels(planner, a, self.lefts, height, told, read)
            if not self.packed:
                b = b.permute((*range(len(b.shape) - 2), -1, -2))
                b = self._panels(planner, b, self.rights, width, told, read)
        a, b = a.expand((*batch, *a.shape[-2:])), b.expand((*batch, *b.shape[-2:]))
        extents, rows = merge_dims(list(batch), [v.strides[: len(batch)] for v in (a, b, whole)])
        outer = max(0, len(extents) - DIMS)
        rows_of = TOGETHER if many else 1
        items = product(extents[outer:]) * ceil_div(row_blocks, rows_of) * column_blocks
        flops = 2.0 * product(extents[outer:]) * m * n * k
        for index in np.ndindex(*extents[:outer]):  # operands without gaps merge, but for odd broadcasts
            for name, view, steps in zip("aby", (a, b, whole), rows, strict=True):
                at = view.offset + sum(i * s for i, s in zip(index, steps, strict=False))
                values[name] = View(view.buffer, view.shape, view.strides, view.itemsize, at).ptr
            inner = (steps[outer:] for steps in rows)
            values |= placed_values(extents[outer:], **dict(zip("aby", inner, strict=True)))
            kernel = self.many if many else self.few
            values["items"] = items
            planner.share_step(kernel, values, items, k * height * width * rows_of, [a, b, *read], [y], flops)

    def _walked(self, planner: Planner, value: Value) -> View:
        """Its matrices, which lie along no more dimensions than kernels walk."""
        view = planner.view(value)
        extents, _ = merge_dims(list(view.shape[:-2]), [view.strides[:-2]])
        return view if len(extents) <= DIMS else planner.contiguous(value)

    def _panels(
        self, planner: Planner, x: View, kernel: Kernel, size: int, told: Mapping[str, Any], read: list[View]
    ) -> View:
        """[..., outer, k] in panels of `size`: a view of [..., 1, elements of all panels]."""
        outer, k = x.shape[-2:]
        extents, (steps,) = merge_dims(list(x.shape[:-2]), [x.strides[:-2]])
        blocks = ceil_div(outer, size)
        y = planner.allocate((*x.shape[:-2], 1, blocks * k * size), x.itemsize)
        items = product(extents) * blocks
        values = {"x": x.ptr, "y": y.ptr, "x_o": x.strides[-2], "x_k": x.strides[-1], "outer": outer, "k": k,
                  "blocks": blocks, "items": items, **told}  # fmt: skip
        planner.share_step(kernel, values | placed_values(extents, x=steps), items, k * size, [x, *read], [y])
        return y

    def _magnitudes(self, planner: Planner) -> list[View]:
        """The largest absolute values of both sides, in parts; none where a float is no help, or an operand
        has gaps."""
        views = [planner.view(v) for v in self.node.inputs[: 1 if self.packed else 2]]
        if not self.real or not all(v.is_contiguous for v in views):
            return []
        found: list[View] = []
        for view in views:
            count = view.count
            per_chunk = sym_max(split(count, view.itemsize), ceil_div(count, PARTS))
            chunks = ceil_div(count, per_chunk)
            sizes = planner.allocate((chunks,), 8)
            values = {"x": view.ptr, "y": sizes.ptr, "count": count, "per_chunk": per_chunk}
            planner.step(self.kernels[-1], values, chunks, [view], [sizes])
            found.append(sizes)
        return [*found, self.right_most] if self.packed else found

    def _right(self, planner: Planner, value: Value, rank: int) -> View:
        """The right-hand side as [..., k, n] with adjacent columns."""
        view = self._walked(planner, value)
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
