"""Matrix products in the elements' own type: f64, and integers that wrap around.

    y[m, n] = sum over k of a[m, k] b[k, n]

b is first packed into panels: for each k, `vectors` vectors of columns are adjacent. A block of `height` rows
of a, which is read in place, times these columns is in registers. The first-level cache keeps a part of a
panel of columns, which is multiplied by a range of rows before the next part. Few rows are multiplied with b
in place. A constant b is packed once, as floats if these represent its integers.

Products of i32 and i64 are computed in f32 if that is exact: the largest elements of both sides and the depth
bound all sums below 2^24. A multiply-add is then one instruction. A separate step finds the largest elements,
and converts a.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Value
from ovjit.graph.symbolic import sym_max
from ovjit.planning.launch import launch
from ovjit.planning.lower import Lowering, place_constants
from ovjit.planning.plan import Constants, Filling, NotNative, Planner, ceil_div, split
from ovjit.planning.views import CONSTANTS, Buffer, Layout, View, product, row_major, row_major_layout
from ovjit.records import NamedTuple

TYPES = frozenset("f64 i8 i16 i32 i64 u8 u16 u32 u64".split())
#: Rows of a block that is multiplied with b in place. Up to two such blocks are, unless `_choose_blocks`
#: allows more.
FEW = 2
#: Bytes of a part of a panel of columns, for the first-level cache, and the blocks of rows that it serves.
KEPT_BYTES, TOGETHER = 24 * 1024, 16
#: Integer type -> float type in which sums may be exact; all integers below EXACT are exact in it.
REAL = {"i32": "f32", "i64": "f32"}
EXACT = 1 << 24
#: Maximum parts in which the largest elements are searched.
PARTS = 32


@inline
def add_product(e, w, total, T):
    return fma(e, w, total) if T in ("f32", "f64") else total + e * w


@inline
def stored_as(x, R, T):
    """Convert integers below `EXACT`, stored as floats, back to their own type."""
    return x if R == T else cast[T](trunc_int[i32](x))


@kernel(over="parts", x="count:1", y="parts:1", z="copies:1")
def magnitude(x: Tensor, y: Tensor, z: Tensor, part, *, T, real):
    """y[i]: the largest absolute value of the i-th `part` elements, as int64. Negative numbers below -EXACT
    count as -EXACT. `real`: the type of z, which becomes a copy of x; "" for none."""
    for first, target in items(y):
        low = const[T](0)
        high = const[T](0)
        end = min(x.size.count, (first + 1) * part)
        for i in range(first * part, end, VL):
            v = loadm[T](x + i * SIZE[T], end - i)
            low = minimum(low, v)
            high = maximum(high, v)
            if real:
                storem[real](z + i * SIZE[real], cast[real](v), end - i)
        least_ = hmin[T](low) + 0
        if least_ < -EXACT:
            least_ = -EXACT
        st[i64](target, max(hmax[T](high) + 0, 0 - least_))


@inline
def settle(way, bounds, k):
    """Set way["exact"] = 1 if every sum of `k` products is exact in f32, so that any order is right.
    `bounds`: largest magnitudes of both operands."""
    way["exact"] = 0
    way["left"] = 0
    for i in range(bounds.lefts):
        way["left"] = max(way["left"], ld[i64](bounds.left_most + i * 8))
    way["right"] = 0
    for i in range(bounds.rights):
        way["right"] = max(way["right"], ld[i64](bounds.right_most + i * 8))
    if bounds.lefts > 0 and way["left"] < EXACT and way["right"] < EXACT:
        if way["left"] * way["right"] < EXACT and way["left"] * way["right"] * k < EXACT:
            way["exact"] = 1


class Bounds(NamedTuple):
    """Addresses of the largest magnitudes of both operands' parts, and the numbers of parts."""

    left_most: Ptr
    right_most: Ptr
    lefts: int
    rights: int


@kernel(over="... outer/block", x="... outer:1 k", y="... k e", bounds=Bounds)
def put_together(x: Tensor, y: Tensor, bounds, *, T, real, vectors, block):
    """Pack columns [..., outer, k] to [..., block, k, elements of a block]. A block has `vectors` vectors of
    columns, padded with zeros. Elements are converted to `real` if sums are exact in it."""
    way = registers()
    way["exact"] = 0
    if real:
        settle(way, bounds, x.size.k)
    for first, p, q in items(x, y):
        count = x.size.outer - first
        q += first * x.size.k * SIZE[T]
        for kind in ("exact", "own") if real else ("own",):
            if kind == "own" or way["exact"] == 1:
                for _ in range(x.size.k):
                    for i in static_range(vectors):
                        v = loadm[T](p + i * VL * SIZE[T], count - i * VL)
                        store[real if kind == "exact" else T](q, cast[real](v) if kind == "exact" else v)
                        q += VL * SIZE[real if kind == "exact" else T]
                    p += x.stride.k
                break


@inline
def load_sums(c, y, py, i, j, vectors, E, *, height, T):
    """Load the block of y with rows from i on, at py, and columns from j on into c[E, r, v]."""
    for r in static_range(height):
        if i + r < y.size.m:
            for v in static_range(vectors):
                c[E, r, v] = loadm[T](py + r * y.stride.m + v * VL * SIZE[T], y.size.n - j - v * VL)


@inline
def multiply_panels(c, w, e, x, h, pb, height, vectors, R, E):
    """c[E, r, v] += a[r, h] b[h, v], with rows of a at x[E, r] and row h of b's panel at pb; sums are of type
    E, and b of type R."""
    for v in static_range(vectors):
        w[E, v] = stored_as(load[R](pb + v * VL * SIZE[R]), R, E)
    for r in static_range(height):
        e[E] = splat[E](x[E, r] + h * SIZE[E])
        for v in static_range(vectors):
            c[E, r, v] = add_product(e[E], w[E, v], c[E, r, v], E)


@kernel(
    over="... n/width m/rows", a="... m k:1", reals="... m kr:1", b="... k e", y="... m n:1", bounds=Bounds
)
def panel_product(
    a: Tensor, reals: Tensor, b: Tensor, y: Tensor, bounds, depth, *, T, width, rows, height, vectors, real,
    packed,
):  # fmt: skip
    """The product with packed panels. An item has `width` columns of `rows` rows. `reals`: a in the type
    `real`, for exact sums. `packed`: the type of a constant b's panels. Sums over more than `depth` rows of b
    are accumulated in y, which only sums of type T need."""
    c, w, e, x, way = registers()
    if real:
        settle(way, bounds, a.size.k)
    for j, first, ga, gr, gb, gy in items(a, reals, b, y):
        for done in range(0, max(a.size.k, 1), depth):
            some = min(depth, a.size.k - done)
            for i in range(first, min(first + rows, y.size.m), height):
                pb = gb + (j * a.size.k + done * vectors * VL) * SIZE[packed or T]
                py = y.at(gy, m=i - first)
                for kind in ("exact", "own") if real else ("own",):
                    if kind == "own" or way["exact"] == 1:
                        E = real if kind == "exact" else T  # numbers of different types have different names
                        R = packed or E
                        for r in static_range(height):
                            # rows that are not there repeat the last one, and are not stored
                            row = min(i + r, y.size.m - 1) - first
                            x[E, r] = (
                                reals.at(gr, m=row) if kind == "exact" else a.at(ga, m=row)
                            ) + done * SIZE[E]
                        for r, v in np.ndindex(height, vectors):
                            c[E, r, v] = const[E](0)
                        if not real and done > 0:
                            load_sums(c, y, py, i, j, vectors, E)
                        for h in range(some):
                            multiply_panels(c, w, e, x, h, pb, height, vectors, R, E)
                            pb += vectors * VL * SIZE[R]
                        if kind == "exact":
                            for r, v in np.ndindex(height, vectors):
                                c[T, r, v] = trunc_int[T](c[E, r, v])
                        break
                for r in static_range(height):
                    if i + r < y.size.m:
                        for v in static_range(vectors):
                            storem[T](py + v * VL * SIZE[T], c[T, r, v], y.size.n - j - v * VL)
                    py += y.stride.m


@inline
def sum_products(c, w, x, a, b, columns, count, height, vectors, R, T):
    """Compute c[r, v]: the sums over k of a's row at x[r] times `vectors` vectors of b, of type R, from
    `columns` on. `count`: the number of existing columns."""
    for r, v in np.ndindex(height, vectors):
        c[r, v] = const[T](0)
    h = 0
    row = columns
    for full in (True, False):
        if not full or count >= vectors * VL:
            while h < a.size.k:
                for v in static_range(vectors):
                    p = row + v * VL * SIZE[R]
                    w[v] = stored_as(load[R](p) if full else loadm[R](p, count - v * VL), R, T)
                for r in static_range(height):
                    e = splat[T](x[r] + h * a.stride.k)
                    for v in static_range(vectors):
                        c[r, v] = add_product(e, w[v], c[r, v], T)
                row += b.stride.k
                h += 1


@kernel(over="... n/width m/height", a="... m k", b="... k e", y="... m n:1")
def plain_product(a: Tensor, b: Tensor, y: Tensor, panel, *, T, width, height, vectors, packed):
    """The product of few rows, with both sides in place. Blocks of b's columns are `panel` bytes apart.
    `packed`: the type of b's panels, if it is packed."""
    x, c, w = registers()
    for j, i, pa, pb, py in items(a, b, y):
        pb += j // width * panel
        count = y.size.n - j
        for r in static_range(height):
            # rows that are not there repeat the last one, and are not stored
            x[r] = a.at(pa, m=min(r, y.size.m - 1 - i))
        sum_products(c, w, x, a, b, pb, count, height, vectors, packed or T, T)
        for r in static_range(height):
            if i + r < y.size.m:
                for v in static_range(vectors):
                    storem[T](py + v * VL * SIZE[T], c[r, v], count - v * VL)
            py += y.stride.m


def blocks_of(m: int, most: int) -> int:
    """Rows of a block: `most`, or up to a third less, such that the last block has few missing rows."""
    return min(range(most, most - most // 3 - 1, -1), key=lambda rows: ceil_div(m, rows) * (rows + 1))


def place_panels(constants: Constants, key: Any, right: np.ndarray, kind: str, width: int) -> View:
    """Matrices [..., k, n] in panels of `width` columns, as constants of type `kind`. Returns a view
    [..., k, columns] that begins at the first panel; only its first `width` columns have their real place."""
    *batch, k, n = right.shape
    dtype = numpy_dtype(kind)
    layout = (*batch, ceil_div(n, width), k, width)

    def fill(memory: np.ndarray) -> None:
        """Write all panels. Zeros fill up the last one."""
        panels = memory.view(dtype).reshape(layout)
        for j in range(layout[-3]):
            part = right[..., j * width : (j + 1) * width]
            panels[..., j, :, : part.shape[-1]] = part
            panels[..., j, :, part.shape[-1] :] = 0

    size, shape = product(layout) * dtype.itemsize, (*batch, k, layout[-3] * width)
    at = constants.add(Filling(size, fill), (key, "panels")).offset
    home, strides = Buffer(size, CONSTANTS, at), row_major(shape, dtype.itemsize)
    strides[-2] = width * dtype.itemsize
    return View(home, shape, strides, dtype.itemsize)


class PlainProduct(Lowering):
    """MatMul of f64, integers, or f32 on targets without tiles, with any number of batch dimensions. Nothing
    is fused into it."""

    takes = (TYPES | {"f32"},)
    constant_inputs = None

    def set_up(self) -> None:
        a, b = self.node.inputs
        if self.group.body or a.dtype != b.dtype or not a.shape or not b.shape:
            raise NotNative
        dtype, target = self.out.dtype, self.target
        self.permutes = bool(self.node.attrs["transpose_a"])
        columns = b.shape[-2 if self.node.attrs["transpose_b"] else -1] if len(b.shape) > 1 else 1
        is_narrow = isinstance(columns, int) and columns <= target.lanes
        self.vectors = vectors = 1 if is_narrow or SIZE[dtype] == 8 else 2  # 8 bytes take two registers
        self._choose_types(dtype, b.constant)
        block_rows = self._choose_blocks(dtype, a.shape)
        rows, real = self.height, self.real
        self.width = width = vectors * target.lanes
        how: dict[str, Any] = {"T": dtype, "vectors": vectors, "width": width, "packed": self.packed}
        self.in_place_kernel = plain_product(height=block_rows, **how)
        self.panel_kernel = panel_product(rows=rows * TOGETHER, height=rows, real=real, **how)
        self.kernels = [self.in_place_kernel, self.panel_kernel]
        if not self.packed:
            self.rights = put_together(T=dtype, block=width, real=real, vectors=vectors)
            self.kernels.append(self.rights)
        if real:
            self.measures = [
                magnitude(T=dtype, real=copied) for copied in (real, "")[: 2 - bool(self.packed)]
            ]
            self.kernels += self.measures

    def _choose_types(self, dtype: str, constant: Any) -> None:
        """`real`: the float type in which integers may be multiplied. `packed`: the type of a constant b."""
        self.real, self.packed = REAL.get(dtype, ""), ""
        if constant is not None and constant.ndim > 1 and constant.size:
            self.largest = sym_max(int(constant.max()), -int(constant.min())) if self.real else 0
            self.real = self.real if self.largest < EXACT else ""
            self.packed = self.real or dtype

    def _choose_blocks(self, dtype: str, shape: Sequence[Any]) -> int:
        """Set `height`, the rows of a block of packed panels, and `in_place`, the maximum rows that are
        multiplied with b in place. Returns the rows of a block for the latter."""
        target = self.target
        self.height = target.shapes.plain if dtype not in ("i64", "u64") or target.name == "avx512" else 4
        self.in_place = 2 * FEW
        m = () if len(shape) < 2 else shape[-1 if self.node.attrs["transpose_a"] else -2]
        if not isinstance(m, int) or m <= 2 * FEW:
            return FEW
        self.height = blocks_of(m, self.height)
        if self.real or m > 2 * self.height:
            return FEW
        self.in_place = m
        return self.height

    def pack(self, constants: Constants) -> None:
        right = self.node.inputs[1].constant
        if not self.packed or right is None:
            super().pack(constants)
            return
        place_constants(constants, self.node.inputs[:1])
        right = right.swapaxes(-1, -2) if self.node.attrs["transpose_b"] else right
        self.panels = place_panels(constants, self, right, self.packed, self.width)
        if self.real:
            self.right_most = constants.view(np.array([self.largest], np.int64), "i64")

    def plan(self, planner: Planner) -> None:
        ra, rb = (len(v.shape) for v in self.node.inputs)
        size = SIZE[self.out.dtype]
        a = planner.view(self.node.inputs[0])
        if ra == 1:
            a = a.insert(0)
        elif self.node.attrs["transpose_a"]:
            a = a.permute((*range(ra - 2), ra - 1, ra - 2))
        b = self.panels if self.packed else self._right(planner, self.node.inputs[1], rb)
        y = planner.row_major_output(self.out)
        if not y.count:
            return
        m, k, n = a.shape[-2], a.shape[-1], self.out.shape[-1] if self.packed else b.shape[-1]
        batch = y.shape[: len(y.shape) - (ra > 1) - (rb > 1)]
        by_panels = m > self.in_place
        height = self.height if by_panels or self.in_place > 2 * FEW else FEW
        kernel, rows, read = self.in_place_kernel, height, list[View]()
        operands: dict[str, View] = {}
        panel = k * b.strides[-2] if self.packed else self.width * size
        more: dict[str, Any] = {"panel": panel, "height": height}
        if by_panels:
            kernel, rows = self.panel_kernel, height * TOGETHER
            a = matrix_of(planner, self.node.inputs[0], self.node.attrs["transpose_a"])
            reals, read = self._magnitudes(planner, a)
            sizes: Any = read or (y, y)
            bounds = Bounds(*(v.ptr for v in sizes), *(v.count if read else 0 for v in sizes))
            if not self.packed:
                b = self._panels(planner, b.permute((*range(len(b.shape) - 2), -1, -2)), bounds, read)
            depth = k if self.real else KEPT_BYTES // (self.width * size)
            more = {"bounds": bounds, "depth": sym_max(1, depth), "rows": rows}
            operands["reals"] = reals
        operands |= {"a": a, "b": b}
        tensors = {name: view.expand((*batch, *view.shape[-2:])) for name, view in operands.items()}
        launch(
            planner, kernel, {**tensors, "y": y.as_shape((*batch, m, n))}, ("y",), reads=read,
            work=k * rows * self.width, flops=2.0 * product(batch) * m * n * k, width=self.width, **more,
        )  # fmt: skip

    def _panels(self, planner: Planner, x: View, bounds: Bounds, read: Sequence[View]) -> View:
        """Add a step that packs columns [..., n, k] into panels, in the layout of `place_panels`."""
        *batch, n, k = x.shape
        y = planner.allocate((*batch, k, ceil_div(n, self.width) * self.width), x.itemsize)
        launch(
            planner, self.rights, {"x": x, "y": y}, ("y",), work=k * self.width, reads=read, disjoint=False,
            bounds=bounds, block=self.width,
        )  # fmt: skip
        return y

    def _magnitudes(self, planner: Planner, a: View) -> tuple[View, list[View]]:
        """Add steps that find the largest absolute values of parts of both sides, and convert `a`. Returns
        (`a` as `real`, the values); (`a`, none) if the type has no float to multiply in, or an operand's
        memory has gaps."""
        views = [a] if self.packed else [a, planner.view(self.node.inputs[1])]
        if not self.real or not all(v.is_contiguous for v in views):
            return a, []
        reals = planner.allocate(a.shape, SIZE[self.real])
        results: list[View] = []
        for view, kernel, writes in zip(views, self.measures, (("y", "z"), ("y",)), strict=False):
            count = view.count
            part = sym_max(split(count, view.itemsize), ceil_div(count, PARTS))
            results.append(planner.allocate((ceil_div(count, part),), 8))
            tensors = {"x": view.as_shape((count,)), "y": results[-1], "z": reals.as_shape((a.count,))}
            launch(planner, kernel, tensors, writes, work=part, part=part, disjoint=False)
        return reals, [*results, self.right_most] if self.packed else results

    def _right(self, planner: Planner, value: Value, rank: int) -> View:
        """The right-hand side as [..., k, n] with adjacent columns, by a copy if necessary."""
        if rank == 1:
            view = planner.view(value)
            return view.insert(1, stride=view.itemsize)
        return matrix_of(planner, value, self.node.attrs["transpose_b"])


def matrix_of(planner: Planner, value: Value, swapped: bool) -> View:
    """Matrices with adjacent elements along the last dimension, by a copy if necessary. `swapped`: of the
    transposes of the value's."""
    view = planner.view(value)
    rank = len(view.shape)
    columns = rank - 2 if swapped else rank - 1
    if view.shape[columns] > 1 and view.strides[columns] != view.itemsize:
        order = (*range(rank - 2), rank - 1, rank - 2)
        view = planner.copy(value, Layout(order) if swapped else row_major_layout(rank))
    return view.permute((*range(rank - 2), rank - 1, rank - 2)) if swapped else view
