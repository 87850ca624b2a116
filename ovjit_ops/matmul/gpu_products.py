"""Matrix products on GPUs.

    y[m, n] = epilogue(sum over k of a[m, k] b[n, k])

`tensor_product` is for tensor cores: factors of f16, bf16 or f32, of which the 19 upper bits are multiplied
(TF32), with sums in f32, and of bytes with sums in i32. An item is a tile of the result for one warp. 16 rows
of a or b, each a step of 32 bytes along k, are a piece of the warp's shared memory. Their two halves of 16
bytes are swapped in every other four rows, so that eight rows of a half lie in different banks. `stages`
steps are on their way at a time. Sums pass through the shared memory, so that a lane has a column of the
result, and operands of the epilogue are read as by any kernel.

`row_product` is for few rows, whose time is that of reading b: lanes have elements along k, and add up what
they have at the end. `half_product` takes what these do not: any strides and depths. A lane has a column.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.function import FunctionKernel, inline, kernel, spaced
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.tensor_cores import MOST_SHARED
from ovjit.codegen.words import *
from ovjit.forks import made_once
from ovjit.graph.dtypes import FLOATS, HALVES
from ovjit.graph.graph import Value
from ovjit.graph.shapes import bounds
from ovjit.planning.launch import launch
from ovjit.planning.lower import Lowering, place_constants
from ovjit.planning.plan import Constants, NotNative, Planner, ceil_div
from ovjit.planning.views import Layout, View, product
from ovjit.records import NamedTuple

#: Lanes of a vector on GPUs.
LANES = 32
#: Bytes of a row in a step along k, and rows of a piece of shared memory.
STEP, PIECE = 32, 16
#: Bytes between rows of sums in shared memory, besides the sums: the rows of a column are in different banks.
GAP = 32
#: Rows of an item of `half_product`.
ITEM_ROWS = 8
#: Maximum rows of `row_product`, columns of its items, and vectors of each column that are read together.
MOST_ROWS, COLUMNS, DEEP = 4, 4, 4
#: Element type of a -> that of sums.
SUMS = {"f16": "f32", "bf16": "f32", "f32": "f32", "i8": "i32", "u8": "i32"}
#: Maximum operands of an epilogue.
OPERANDS = 3
#: Products of 16 x 8 x 32 bytes that a card may multiply at a time: four of each of some 132 multiprocessors.
AT_ONCE = 528
#: Elements that are multiplied in the time in which one is read.
READ = 24


class Tile(NamedTuple):
    """Rows and columns of an item, and the steps along k that are in shared memory."""

    rows: int
    columns: int
    stages: int

    def cost(self, m: int, n: int) -> int:
        """The estimated time of a product, relative to that with other tiles."""
        rounds = ceil_div(ceil_div(m, self.rows) * ceil_div(n, self.columns), AT_ONCE)
        return rounds * (self.rows * self.columns + READ * (self.rows + self.columns))


TILES = (Tile(64, 64, 3), Tile(32, 64, 4), Tile(32, 32, 4), Tile(16, 64, 4), Tile(16, 32, 4))


@inline
def offset_of_half(line, half):
    """The offset in a piece of a half (0 or 16) of a row."""
    return (line << const[i32](5)) + (half ^ ((line << const[i32](2)) & const[i32](16)))


@inline
def find_addresses(at, *, columns):
    """Set the row and the half of it that a lane copies, and the offsets in a piece to which it copies, where
    it has a half of a row of a or of b for `read_tiles`, and where its sums are."""
    lane = lane_numbers[i32]()
    at["line"] = lane >> const[i32](1)
    at["half"] = (lane & const[i32](1)) << const[i32](4)
    at["copy"] = offset_of_half(at["line"], at["half"])
    at["row"] = offset_of_half(lane & const[i32](15), lane & const[i32](16))
    line = (lane & const[i32](7)) + ((lane >> const[i32](1)) & const[i32](8))
    at["column"] = offset_of_half(line, (lane << const[i32](1)) & const[i32](16))
    row = (lane >> const[i32](2)) * const[i32](columns * 4 + GAP)
    at["sums"] = row + ((lane & const[i32](3)) << const[i32](3))


@inline
def find_rows(x, at, last_m, last_n, a_m, b_n, *, rows, columns):
    """Set x[i] to the offsets of the halves of rows of a, then of b, that a lane copies. Rows that are not
    there repeat the last one, and are not stored."""
    for i in static_range((rows + columns) // PIECE):
        line = cast[i64](at["line"]) + const[i64](i * PIECE if i * PIECE < rows else i * PIECE - rows)
        if i * PIECE < rows:
            x[i] = minimum(line, spread[i64](last_m)) * spread[i64](a_m)
        else:
            x[i] = minimum(line, spread[i64](last_n)) * spread[i64](b_n)
        x[i] = x[i] + cast[i64](at["half"])


@inline
def fetch(x, at, pa, pb, into, remaining, *, rows, columns):
    """Start the copies of a step: rows of a at pa + x[i], and of b. `remaining`: bytes of a row from the step
    on, a multiple of 16."""
    sizes = minimum(maximum(spread[i32](remaining) - at["half"], const[i32](0)), const[i32](16))
    for i in static_range((rows + columns) // PIECE):
        copy_async(into + i * PIECE * STEP, at["copy"], pa if i * PIECE < rows else pb, x[i], sizes)
    commit_copies()


@inline
def multiply(c, f, step, at, *, T, rows, columns):
    """Add the products of a step to the sums."""
    for i in static_range(rows // PIECE):
        f[i] = read_tiles(step + i * PIECE * STEP, at["row"])
    for j in static_range(columns // PIECE):
        f["b"] = read_tiles(step + (rows + j * PIECE) * STEP, at["column"])
        for i in static_range(rows // PIECE):
            c[i, j, 0] = mma[T](f[i], f["b"], 0, c[i, j, 0])
            c[i, j, 1] = mma[T](f[i], f["b"], 1, c[i, j, 1])


@inline
def load_operands(o, p, q, r, p_n, q_n, r_n, count, *, first, second, third):
    """Load the epilogue's operands of `count` columns."""
    if first:
        o[1] = gather[first](p, p_n, count)
    if second:
        o[2] = gather[second](q, q_n, count)
    if third:
        o[3] = gather[third](r, r_n, count)


@inline
def store_tile(
    c, o, at, shared, y, p, q, r, row, column, py, pp, pq, pr, *, T, sums, out, rows, columns, body, first,
    second, third,
):  # fmt: skip
    """Store a tile of sums, with the epilogue applied, by way of the shared memory, once all copies to it
    have arrived."""
    await_copies(0)
    for i in static_range(rows // PIECE):
        warp_barrier()
        for j, h in np.ndindex(columns // PIECE, 2):
            share_sums[T](shared + (j * 2 + h) * 32, at["sums"], c[i, j, h], 8 * (columns * 4 + GAP))
        warp_barrier()
        for k in range(min(PIECE, y.size.m - row - i * PIECE)):
            line_of = i * PIECE + k
            for v in static_range(columns // LANES):
                count = y.size.n - column - v * LANES
                load_operands(
                    o, p.at(pp, m=line_of, n=v * LANES), q.at(pq, m=line_of, n=v * LANES),
                    r.at(pr, m=line_of, n=v * LANES), p.stride.n, q.stride.n, r.stride.n, count,
                )  # fmt: skip
                total = read_shared[sums](shared + k * (columns * 4 + GAP) + v * LANES * 4)
                if body:
                    total = applied(body, total, *o)
                spaced(y.at(py, m=line_of, n=v * LANES), y.stride.n, total, count, out)
    warp_barrier()


@kernel(
    over="... m/rows n/columns", a="... m ka", b="... n kb", y="... m n", p="... m n", q="... m n",
    r="... m n",
)  # fmt: skip
def tensor_product(
    a: Tensor, b: Tensor, y: Tensor, p: Tensor, q: Tensor, r: Tensor, depth, *, T, sums, out, rows, columns,
    stages, body, first, second, third,
):  # fmt: skip
    """T, sums, out: element types of a and b (i8 if a is u8), of sums, and of y. `depth`: bytes of a row of
    a, a multiple of 16. p, q, r: operands of the epilogue, of the types `first`, `second` and `third` ("":
    none)."""
    c, f, x, o, at = registers()
    shared = shared_memory(stages * (rows + columns) * STEP)
    find_addresses(at)
    steps = (depth + STEP - 1) // STEP
    for row, column, pa, pb, py, pp, pq, pr in items(a, b, y, p, q, r):
        find_rows(x, at, y.size.m - 1 - row, y.size.n - 1 - column, a.stride.m, b.stride.n)
        for i, j, h in np.ndindex(rows // PIECE, columns // PIECE, 2):
            c[i, j, h] = zero_sums[T]()
        for s in static_range(stages - 1):
            into = shared + s * (rows + columns) * STEP
            fetch(x, at, pa + s * STEP, pb + s * STEP, into, depth - s * STEP)
        for s in range(steps):
            await_copies(stages - 2)
            warp_barrier()
            multiply(c, f, shared + s % stages * ((rows + columns) * STEP), at)
            ahead = s + stages - 1
            into = shared + ahead % stages * ((rows + columns) * STEP)
            fetch(x, at, pa + ahead * STEP, pb + ahead * STEP, into, max(depth - ahead * STEP, 0))
        store_tile(c, o, at, shared, y, p, q, r, row, column, py, pp, pq, pr)


@kernel(
    over="... n/columns", a="... m ka", b="... n kb", y="... m n", p="... m n", q="... m n", r="... m n",
)  # fmt: skip
def row_product(
    a: Tensor, b: Tensor, y: Tensor, p: Tensor, q: Tensor, r: Tensor, depth, *, T, out, rows, columns, body,
    first, second, third,
):  # fmt: skip
    """As `tensor_product`, for up to `rows` rows. `depth`: elements of a row."""
    c, w, o, at = registers()
    lane = lane_numbers[i32]()
    for column, pa, pb, py, pp, pq, pr in items(a, b, y, p, q, r):
        for i, j in np.ndindex(rows, columns):
            c[i, j] = const[f32](0)
        for j in static_range(columns):  # columns and rows that are not there repeat the last one
            at[j] = b.at(pb, n=min(j, y.size.n - 1 - column))
        for h in range(0, depth, DEEP * VL):
            for d in static_range(DEEP):
                for j in static_range(columns):
                    w[d, j] = loadm[T](at[j] + (h + d * VL) * SIZE[T], depth - h - d * VL)
            for i in static_range(rows):
                for d in static_range(DEEP):
                    v = loadm[T](
                        a.at(pa, m=min(i, y.size.m - 1)) + (h + d * VL) * SIZE[T], depth - h - d * VL
                    )
                    for j in static_range(columns):
                        c[i, j] = fma(v, w[d, j], c[i, j])
        count = min(y.size.n - column, columns)
        for i in static_range(rows):
            if i < y.size.m:
                total = const[f32](0)
                for j in static_range(columns):
                    total = select(lane == const[i32](j), spread[f32](hadd[f32](c[i, j])), total)
                load_operands(
                    o, p.at(pp, m=i), q.at(pq, m=i), r.at(pr, m=i), p.stride.n, q.stride.n, r.stride.n, count
                )
                if body:
                    total = applied(body, total, *o)
                spaced(y.at(py, m=i), y.stride.n, total, count, out)


@kernel(over="... n/width m/rows", a="... m k", b="... k n", y="... m n")
def half_product(a: Tensor, b: Tensor, y: Tensor, *, T, out, width, rows):
    """T, out: element types of a and b, and of y."""
    x, c = registers()
    for j, i, pa, pb, py in items(a, b, y):
        count = y.size.n - j
        for r in static_range(rows):
            # rows that are not there repeat the last one, and are not stored
            x[r] = a.at(pa, m=min(r, y.size.m - 1 - i))
            c[r] = const[f32](0)
        for h in range(a.size.k):
            w = gather[T](pb, b.stride.n, count)
            for r in static_range(rows):
                c[r] = fma(splat[T](x[r] + h * a.stride.k), w, c[r])
            pb += b.stride.k
        for r in static_range(rows):
            if i + r < y.size.m:
                spaced(py, y.stride.n, c[r], count, out)
            py += y.stride.m


class ProductOnTensorCores(Lowering):
    """A product on tensor cores with an epilogue: kernels and steps. Subclasses set up `operands`."""

    permutes = True
    #: The operands of the epilogue.
    operands: Sequence[Value]
    by_tile: Mapping[Tile, Kernel]
    row_kernel: Kernel | None = None
    #: Constant operands as [..., rows, k].
    matrices: Mapping[Value, Any] = {}
    #: The traced epilogue.
    body: Any = made_once(lambda self: self.group.make_body(0))

    def make_kernel(self, source: FunctionKernel, *words: Any, **constants: Any) -> Kernel:
        """The kernel with the epilogue, whose name begins with `words`."""
        types = [v.dtype for v in self.operands] + [""] * OPERANDS
        constants |= dict(zip(("first", "second", "third"), types, strict=False))
        name = "_".join(map(str, (*words, *(n.op.name.lower() for n in self.group.body[:4]))))
        dtype, out = self.node.inputs[0].dtype, self.out.dtype
        return source.kernel(name, T=dtype, out=out, body=self.body, **constants)

    def make_tile_kernels(self, tiles: Sequence[Tile]) -> dict[Tile, Kernel]:
        """`tensor_product` for each of the tiles."""
        types = dtype, _ = self.node.inputs[0].dtype, self.out.dtype
        return {
            tile: self.make_kernel(
                tensor_product, "tensor_product", *types, *tile, sums=SUMS[dtype], **tile._asdict()
            )
            for tile in tiles
        }

    def plan_product(self, planner: Planner, a: View, b: View) -> None:
        """Plan the product of a [..., m, k] and b [..., n, k]."""
        y = planner.row_major_output(self.out)
        if not y.count:
            return
        (m, k), n = a.shape[-2:], b.shape[-2]
        batch, size = y.shape[:-2], a.itemsize
        operands = [planner.view(v).expand(y.shape) for v in self.operands]
        operands += [no_operand(b, y.shape)] * (OPERANDS - len(operands))
        tensors = {name: view.expand((*batch, *view.shape[-2:])) for name, view in (("a", a), ("b", b))}
        tensors |= dict(zip(("y", "p", "q", "r"), (y, *operands), strict=True))
        flops = 2.0 * product(batch) * m * n * k
        if self.row_kernel is not None and m <= MOST_ROWS:
            launch(
                planner,
                self.row_kernel,
                tensors,
                ("y",),
                work=k * m * COLUMNS,
                flops=flops,
                columns=COLUMNS,
                depth=k,
            )
            return
        tile = min(self.by_tile, key=lambda tile: tile.cost(m, n))
        launch(
            planner, self.by_tile[tile], tensors, ("y",), work=k * tile.rows * tile.columns, flops=flops,
            rows=tile.rows, columns=tile.columns, depth=k * size,
        )  # fmt: skip

    def _matrix(self, planner: Planner, value: Value, turn: bool) -> View:
        """An operand as [..., rows, k] whose rows begin at multiples of 16 bytes, by a copy if necessary."""
        if value in self.matrices:
            return planner.constants.view(self.matrices[value], value.dtype)
        view, rank = planner.view(value), len(value.shape)
        order = (*range(rank - 2), rank - 1, rank - 2) if turn else (*range(rank),)
        steps = (*view.permute(order).strides[:-1], view.offset)
        aligned = view.permute(order).strides[-1] == view.itemsize and all(step % 16 == 0 for step in steps)
        if not aligned:
            view = planner.copy(value, Layout(order))
        return view.permute(order)


class TensorProduct(ProductOnTensorCores):
    """MatMul on tensor cores, of matrices whose rows are multiples of 16 bytes, with an epilogue."""

    takes: Sequence[Collection[str] | None] = (SUMS.keys(),)
    ranks: Sequence[Collection[int]] = (range(2, 9), range(2, 9))

    def set_up(self) -> None:
        a, b = self.node.inputs
        dtype, out = a.dtype, self.out.dtype
        transposed = self.node.attrs["transpose_a"], self.node.attrs["transpose_b"]
        depths = a.shape[-2 if transposed[0] else -1], b.shape[-1 if transposed[1] else -2]
        depth = next((d for d in depths if isinstance(d, int)), 0)
        self.operands = self.group.operands
        if b.dtype != ("i8" if dtype == "u8" else dtype) or (
            dtype == "f32" and not self.group.context.options.tf32
        ):
            raise NotNative
        if (
            out not in (*FLOATS, "i32")
            or not depth
            or depth * SIZE[dtype] % 16
            or len(self.operands) > OPERANDS
        ):
            raise NotNative
        self.m, self.n = a.shape[-1 if transposed[0] else -2], b.shape[-2 if transposed[1] else -1]
        self.by_tile = self.make_tile_kernels(self._tiles())
        if dtype in FLOATS:
            self.row_kernel = self.make_kernel(
                row_product, "row_product", dtype, out, rows=MOST_ROWS, columns=COLUMNS
            )
        low, high = bounds(self.m)
        self.kernels = [self.row_kernel] if self.row_kernel is not None and low <= MOST_ROWS else []
        if self.row_kernel is None or high is None or high > MOST_ROWS:
            self.kernels += self.by_tile.values()

    def _tiles(self) -> Sequence[Tile]:
        """The tiles among which plans choose."""
        if isinstance(self.m, int) and isinstance(self.n, int):
            return [min(TILES, key=lambda tile: tile.cost(self.m, self.n))]
        return TILES

    def pack(self, constants: Constants) -> None:
        super().pack(constants)
        turns = zip(self.node.inputs, self._turns(), strict=True)
        self.matrices = {v: _transpose(v.constant, turn) for v, turn in turns if v.constant is not None}
        for value, matrix in self.matrices.items():
            constants.view(matrix, value.dtype)

    def _turns(self) -> tuple[bool, bool]:
        """Whether the operands' matrices have to be transposed to [..., rows, k]."""
        return bool(self.node.attrs["transpose_a"]), not self.node.attrs["transpose_b"]

    def plan(self, planner: Planner) -> None:
        a, b = (
            self._matrix(planner, value, turn)
            for value, turn in zip(self.node.inputs, self._turns(), strict=True)
        )
        self.plan_product(planner, a, b)


class HalfProduct(Lowering):
    """MatMul of f16 or bf16 with any number of batch dimensions. Nothing is fused into it."""

    takes = (HALVES,)

    def set_up(self) -> None:
        a, b = self.node.inputs
        if self.group.body or a.dtype != b.dtype or self.out.dtype not in (a.dtype, "f32"):
            raise NotNative
        self.kernel = half_product(T=a.dtype, out=self.out.dtype, width=self.target.lanes, rows=ITEM_ROWS)

    def pack(self, constants: Constants) -> None:
        place_constants(constants, self.node.inputs)

    def plan(self, planner: Planner) -> None:
        x, w = self.node.inputs
        a = _matrix(planner.view(x), bool(self.node.attrs["transpose_a"]), 0)
        b = _matrix(planner.view(w), bool(self.node.attrs["transpose_b"]), 1)
        y = planner.row_major_output(self.out)
        if not y.count:
            return
        (m, k), n, lanes = a.shape[-2:], b.shape[-1], self.target.lanes
        batch = y.shape[: len(y.shape) - (len(x.shape) > 1) - (len(w.shape) > 1)]
        tensors = {name: view.expand((*batch, *view.shape[-2:])) for name, view in (("a", a), ("b", b))}
        launch(
            planner, self.kernel, {**tensors, "y": y.as_shape((*batch, m, n))}, ("y",),
            work=k * ITEM_ROWS * lanes, flops=2.0 * product(batch) * m * n * k, width=lanes, rows=ITEM_ROWS,
        )  # fmt: skip


def no_operand(view: View, shape: Sequence[int]) -> View:
    """A view of this shape for an operand that a kernel does not have: an element that it reads anyway."""
    return View(view.buffer, tuple(shape), (0,) * len(shape), view.itemsize, view.offset)


def _transpose(array: np.ndarray, turn: bool) -> np.ndarray:
    return np.ascontiguousarray(array.swapaxes(-1, -2)) if turn else array


def _matrix(view: View, transposed: bool, axis: int) -> View:
    """An operand as [..., rows, columns]. A vector gets a dimension of 1 at `axis`."""
    rank = len(view.shape)
    if rank == 1:
        shape, strides = [1, view.shape[0]], [0, view.strides[0]]
        turn = slice(None, None, -1 if axis else 1)
        return View(view.buffer, tuple(shape[turn]), tuple(strides[turn]), view.itemsize, view.offset)
    return view.permute((*range(rank - 2), rank - 1, rank - 2)) if transposed else view


assert all(MOST_SHARED >= tile.stages * (tile.rows + tile.columns) * STEP for tile in TILES)
