"""Matrix products on GPUs.

    y[m, n] = epilogue(sum over k of a[m, k] b[n, k])

`tensor_product` is for tensor cores: factors of f16, bf16 or f32, of which the 19 upper bits are multiplied
(TF32), with sums in f32, and of bytes with sums in i32. An item is a tile of the result for one warp. 16 rows
of a or b, each a step of 32 bytes along k, are a piece of the warp's shared memory. Their two halves of 16
bytes are swapped in every other four rows, so that eight rows of a half lie in different banks. `stages`
steps are on their way at a time. Sums pass through the shared memory, so that a lane has a column of the
result, and operands of the epilogue are read as by any kernel.

`row_product` is for few rows, whose time is that of reading b: lanes have elements along k, and add up what
they have at the end. A lane reads 16 bytes at once of elements of 2 bytes. `half_product` takes what these do
not: any strides and depths. A lane has a column. `add_parts` adds up products of parts of the depth.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.codegen.warps import MOST_SHARED
from ovjit.planning.chunks import ceil_div
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
#: Elements of 2 bytes that a lane reads at once, and such units of each column that are read together.
UNIT, DEEP_UNITS = 8, 2
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

    def tiles_of(self, m: int, n: int) -> int:
        """The number of tiles of a product."""
        return ceil_div(m, self.rows) * ceil_div(n, self.columns)

    def cost(self, m: int, n: int, count: int = 1) -> int:
        """The estimated time of `count` products for an element of the depth, relative to that with other
        tiles."""
        rounds = ceil_div(count * self.tiles_of(m, n), AT_ONCE)
        return rounds * (self.rows * self.columns + READ * (self.rows + self.columns))


TILES = (Tile(64, 64, 3), Tile(32, 64, 4), Tile(32, 32, 4), Tile(16, 64, 4), Tile(16, 32, 4))


@inline
def offset_of_half(line, half):
    """The offset in a piece of a half (0 or 16) of a row."""
    return (line << const[i32](5)) + (half ^ ((line << const[i32](2)) & const[i32](16)))


@inline
def find_addresses(at):
    """Set the row and the half of it that a lane copies, and the offsets in a piece to which it copies, and
    where it has a half of a row of a or of b for `read_tiles`."""
    lane = lane_numbers[i32]()
    at["line"] = lane >> const[i32](1)
    at["half"] = (lane & const[i32](1)) << const[i32](4)
    at["copy"] = offset_of_half(at["line"], at["half"])
    at["row"] = offset_of_half(lane & const[i32](15), lane & const[i32](16))
    line = (lane & const[i32](7)) + ((lane >> const[i32](1)) & const[i32](8))
    at["column"] = offset_of_half(line, (lane << const[i32](1)) & const[i32](16))


@inline
def offset_of_sums(*, columns):
    """The offset of a lane's sums in rows of `columns`."""
    lane = lane_numbers[i32]()
    row = (lane >> const[i32](2)) * const[i32](columns * 4 + GAP)
    return row + ((lane & const[i32](3)) << const[i32](3))


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
def next_stage(step, shared, *, rows, columns, stages):
    """The address in shared memory of the step after one."""
    after = step + (rows + columns) * STEP
    if after == shared + stages * (rows + columns) * STEP:
        after = shared
    return after


@inline
def store_results(
    o, sums_of_lanes, count, y, y_n, p, p_n, q, q_n, r, r_n, *, out, body, first, second, third
):
    """Store the sums of `count` columns, with the epilogue applied."""
    total = sums_of_lanes
    if first:
        o[1] = gather[first](p, p_n, count)
    if second:
        o[2] = gather[second](q, q_n, count)
    if third:
        o[3] = gather[third](r, r_n, count)
    if body:
        total = applied(body, total, *o)
    store_spaced(y, y_n, total, count, out)


@inline
def store_tile(
    c, o, shared, y, p, q, r, row, column, py, pp, pq, pr, *, T, sums, out, rows, columns, body, first,
    second, third,
):  # fmt: skip
    """Store a tile of sums, with the epilogue applied, by way of the shared memory, once all copies to it
    have arrived."""
    await_copies(0)
    offset = offset_of_sums()
    for i in static_range(rows // PIECE):
        warp_barrier()
        for j, h in np.ndindex(columns // PIECE, 2):
            share_sums[T](shared + (j * 2 + h) * 32, offset, c[i, j, h], 8 * (columns * 4 + GAP))
        warp_barrier()
        for k in range(min(PIECE, y.size.m - row - i * PIECE)):
            line_of = i * PIECE + k
            for v in static_range(columns // LANES):
                total = read_shared[sums](shared + k * (columns * 4 + GAP) + v * LANES * 4)
                store_results(
                    o, total, y.size.n - column - v * LANES, y.at(py, m=line_of, n=v * LANES), y.stride.n,
                    p.at(pp, m=line_of, n=v * LANES), p.stride.n, q.at(pq, m=line_of, n=v * LANES),
                    q.stride.n, r.at(pr, m=line_of, n=v * LANES), r.stride.n,
                )  # fmt: skip
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
        step = shared
        free = shared + (stages - 1) * (rows + columns) * STEP
        for s in range(stages - 1, steps + stages - 1):
            await_copies(stages - 2)
            warp_barrier()
            multiply(c, f, step, at)
            fetch(x, at, pa + s * STEP, pb + s * STEP, free, max(depth - s * STEP, 0))
            free = step
            step = next_stage(step, shared)
        store_tile(c, o, shared, y, p, q, r, row, column, py, pp, pq, pr)


@inline
def add_vectors(c, w, at, a, pa, depth, m, *, T, rows, columns):
    """Add the products of rows of a and of columns at at[j] to c[i, j], element by element."""
    for h in range(0, depth, DEEP * VL):
        for d in static_range(DEEP):
            for j in static_range(columns):
                w[d, j] = loadm[T](at[j] + (h + d * VL) * SIZE[T], depth - h - d * VL)
        for i in static_range(rows):
            for d in static_range(DEEP):
                v = loadm[T](a.at(pa, m=min(i, m - 1)) + (h + d * VL) * SIZE[T], depth - h - d * VL)
                for j in static_range(columns):
                    c[i, j] = fma(v, w[d, j], c[i, j])


@inline
def add_units(c, w, at, a, pa, depth, m, *, T, rows, columns):
    """As `add_vectors`, by units of eight elements of a lane."""
    first = lane_numbers[i64]() * const[i64](UNIT)
    for h in range(0, depth, DEEP_UNITS * UNIT * VL):
        for d in static_range(DEEP_UNITS):
            index = first + spread[i64](h + d * UNIT * VL)
            for j in static_range(columns):
                w[d, j] = load_eight[T](at[j], index * const[i64](SIZE[T]), index < spread[i64](depth))
        for i in static_range(rows):
            for d in static_range(DEEP_UNITS):
                index = first + spread[i64](h + d * UNIT * VL)
                row = a.at(pa, m=min(i, m - 1))
                v = load_eight[T](row, index * const[i64](SIZE[T]), index < spread[i64](depth))
                for e in static_range(UNIT):
                    part = part_of_eight[T](v, e)
                    for j in static_range(columns):
                        c[i, j] = fma(part, part_of_eight[T](w[d, j], e), c[i, j])


@inline
def store_lanes(c, o, i, count, y, p, q, r, py, pp, pq, pr, *, out, columns, body, first, second, third):
    """Store `count` columns of row i: the sums of the lanes of c[i, j], with the epilogue applied."""
    lane = lane_numbers[i32]()
    total = const[f32](0)
    for j in static_range(columns):
        total = select(lane == const[i32](j), spread[f32](hadd[f32](c[i, j])), total)
    store_results(
        o, total, count, y.at(py, m=i), y.stride.n, p.at(pp, m=i), p.stride.n, q.at(pq, m=i), q.stride.n,
        r.at(pr, m=i), r.stride.n,
    )  # fmt: skip


@kernel(
    over="... n/columns", a="... m ka", b="... n kb", y="... m n", p="... m n", q="... m n", r="... m n",
)  # fmt: skip
def row_product(
    a: Tensor, b: Tensor, y: Tensor, p: Tensor, q: Tensor, r: Tensor, depth, *, T, out, rows, columns, body,
    first, second, third,
):  # fmt: skip
    """As `tensor_product`, for up to `rows` rows. `depth`: elements of a row, a multiple of 16 bytes."""
    c, w, o, at = registers()
    for column, pa, pb, py, pp, pq, pr in items(a, b, y, p, q, r):
        for i, j in np.ndindex(rows, columns):
            c[i, j] = const[f32](0)
        for j in static_range(columns):  # columns and rows that are not there repeat the last one
            at[j] = b.at(pb, n=min(j, y.size.n - 1 - column))
        if SIZE[T] == 2:
            add_units(c, w, at, a, pa, depth, y.size.m)
        else:
            add_vectors(c, w, at, a, pa, depth, y.size.m)
        count = min(y.size.n - column, columns)
        for i in static_range(rows):
            if i < y.size.m:
                store_lanes(c, o, i, count, y, p, q, r, py, pp, pq, pr)


@kernel(over="... m n/32", part="... m s n", y="... m n", p="... m n", q="... m n", r="... m n")
def add_parts(
    part: Tensor, y: Tensor, p: Tensor, q: Tensor, r: Tensor, *, T, out, body, first, second, third
):
    """The sum of products of parts of the depth, of type T, with the epilogue applied."""
    o = registers()
    for _, column, ps, py, pp, pq, pr in items(part, y, p, q, r):
        count = y.size.n - column
        total = const[T](0)
        for i in range(part.size.s):
            total = total + gather[T](part.at(ps, s=i), part.stride.n, count)
        store_results(o, total, count, py, y.stride.n, pp, p.stride.n, pq, q.stride.n, pr, r.stride.n)


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
                store_spaced(py, y.stride.n, c[r], count, out)
            py += y.stride.m


assert all(MOST_SHARED >= tile.stages * (tile.rows + tile.columns) * STEP for tile in TILES)
