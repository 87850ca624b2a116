"""Matrix products on GPUs of compute capability 9.0: `wgmma`, and copies by TMA.

    y[m, n] = epilogue(sum over k of a[m, k] b[n, k])

A chunk is a block of warps. The first warp of the last group copies steps of 128 bytes along the depth to a
ring of `stages` in the block's shared memory: boxes of rows of a, and tiles of b, which is arranged as the
memory's image. Its group has three idle warps, as registers are divided among groups. The
other one or two groups of four warps multiply 64 rows each. A stage has two barriers: its copies have
arrived, its products are complete. A block has several tiles: while results are stored, the next steps are
copied.

The kernel starts while those before it still run. It copies what it can of b if that is constant, and awaits
them before it reads a and stores results.

The columns of b are permuted within 32, so that a lane has eight adjacent columns of a row: operands are
read, and results stored, 16 bytes at a time.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.codegen.warps import GROUP, GROUP_ROWS, LINE, MOST_BLOCK, QUADS, STRIP
from ovjit.planning.plan import ceil_div
from ovjit.records import NamedTuple

#: Multiprocessors of the cards for which blocks are planned, and bytes in a cycle: that one of them reads
#: while all do, and that all read from memory (an H200 at 1.7 GHz).
PROCESSORS, ONE_RATE, MEMORY_RATE = 132, 53, 2600
#: Bytes in a cycle that all read from the second-level cache. Steps of a part of the depth, at least, and the
#: maximum number of parts.
CACHE_RATE, LEAST_STEPS, MOST_PARTS = 5000, 4, 8
#: Products of a multiprocessor in a cycle, in bytes of depth, and cycles of a kernel besides.
MULTIPLY_RATE, FIXED = 3600, 2700
#: Registers of a thread of two groups that multiply, and of the group that copies: 64 K in all.
MANY, FEW = 224, 56
#: The optional feature of targets that these kernels need.
FEATURE = "sm_90a"


class BlockTile(NamedTuple):
    """Groups of warps, each with 64 rows, columns of a tile, and stages of its ring."""

    groups: int
    columns: int
    stages: int

    @property
    def rows(self) -> int:
        return self.groups * GROUP_ROWS

    @property
    def memory(self) -> int:
        """Bytes of shared memory: stages, and two barriers for each."""
        return self.stages * ((self.rows + self.columns) * LINE + 16)

    def cost(self, m: int, n: int, depth: int, parts: int = 1) -> int:
        """Estimated cycles of a product with a depth in bytes, fitted to an H200. Sums of several parts are
        written, read and added up by a further kernel."""
        tiles, steps = parts * ceil_div(m, self.rows) * ceil_div(n, self.columns), ceil_div(depth, LINE)
        multiplied = self.rows * self.columns * LINE // MULTIPLY_RATE
        step = max(multiplied, (self.rows + self.columns) * LINE // ONE_RATE)
        waves = ceil_div(tiles, PROCESSORS)
        added = 0 if parts == 1 else FIXED + (2 * parts + 1) * 4 * m * n // CACHE_RATE
        time = waves * (steps // parts * step + self.columns * 3)
        return FIXED + added + max(n * depth // MEMORY_RATE, time)


TILES = (
    BlockTile(1, 32, 16), BlockTile(1, 64, 12), BlockTile(1, 128, 8), BlockTile(2, 64, 8), BlockTile(2,
    128, 6),
    BlockTile(2, 256, 4),
)  # fmt: skip
assert all(tile.memory <= MOST_BLOCK for tile in TILES)


@inline
def copy_weights(ring, pb, s, slot, steps, last, boxed, *, rows, columns):
    """Expect a step's copies in a stage, of which a box has `boxed` rows, and start those of b."""
    into = ring["shared"] + slot * ((rows + columns) * LINE)
    full = ring["full"] + slot * 8
    expect_copies(full, (boxed + columns) * LINE)
    copy_strips(into + rows * LINE, pb + s * STRIP, steps * STRIP, last, columns // QUADS, full)


@inline
def begin_ring(ring, *, rows, columns, stages):
    """Reserve a ring of `stages` stages in shared memory, with two barriers each: "full" (its copies have
    arrived) and "free" (its products are done). Sets the fields of `ring`, which starts at stage 0."""
    ring["shared"] = block_memory(stages * ((rows + columns) * LINE + 16), rows // 16 + GROUP)
    ring["full"] = ring["shared"] + stages * ((rows + columns) * LINE)
    ring["free"] = ring["full"] + stages * 8
    ring["warp"] = warp_number()
    if ring["warp"] == 0:
        for s in static_range(stages):
            begin_barrier(ring["full"] + s * 8, 1)
            begin_barrier(ring["free"] + s * 8, rows // 16)
    meet_block()
    ring["slot"] = 0
    ring["phase"] = 0


@inline
def next_slot(ring, *, stages):
    """Move `ring` to the next stage. After the last one it wraps around and its phase changes."""
    ring["slot"] = ring["slot"] + 1
    if ring["slot"] == stages:
        ring["slot"] = 0
        ring["phase"] = ring["phase"] ^ 1


@inline
def multiply_steps(c, ring, steps, *, T, rows, columns, stages):
    """Set c["sums"] to the sums of a tile's products, when the copies of each step have arrived."""
    c["sums"] = zero_group[columns, T]()
    before = ring["free"]
    for s in range(steps):
        await_phase(ring["full"] + ring["slot"] * 8, ring["phase"])
        into = ring["shared"] + ring["slot"] * ((rows + columns) * LINE)
        c["sums"] = multiply_group[columns, T](
            into + ring["warp"] // GROUP * (GROUP_ROWS * LINE), into + rows * LINE, c["sums"]
        )
        c["sums"] = await_group[columns, T](c["sums"], 1)
        if s > 0:
            arrive(before)
        before = ring["free"] + ring["slot"] * 8
        next_slot(ring)
    c["sums"] = await_group[columns, T](c["sums"], 0)
    arrive(before)


@inline
def begin_step(ring, pb, s, steps, last, boxed, *, rows, columns):
    """Expect the copies of a step, once its stage is free, and start those of b, if still to do."""
    if ring["early"] > 0:
        ring["early"] = ring["early"] - 1
    else:
        await_space(ring["free"] + ring["slot"] * 8, ring["phase"] ^ 1)
        copy_weights(ring, pb, s, ring["slot"], steps, last, boxed)


@inline
def load_operand(o, p, offset, valid, *, T, which):
    """Load eight elements of an operand of the epilogue."""
    e = load_eight[T](p, offset, valid)
    for i in static_range(8):
        o[which, i] = part_of_eight[T](e, i)


@inline
def store_eight_sums(
    c, o, v, quad, half, valid, y, y_offset, p, p_offset, q, q_offset, r, r_offset, *, sums, out, columns,
    body, first, second, third,
):  # fmt: skip
    """Store eight sums of a lane, with the epilogue applied."""
    if first:
        load_operand(o, p, p_offset, valid, T=first, which=1)
    if second:
        load_operand(o, q, q_offset, valid, T=second, which=2)
    if third:
        load_operand(o, r, r_offset, valid, T=third, which=3)
    for i in static_range(8):
        total = part_of_group[columns, sums](c["sums"], quad * 16 + i // 2 * 4 + half * 2 + i % 2)
        for which in (1, 2, 3):
            if (first, second, third)[which - 1]:
                v[which] = o[which, i]
        if body:
            total = applied(body, total, *v)
        o[0, i] = total
    store_eight[out](y, y_offset, join_eight[out](*(o[0, i] for i in range(8))), valid)


@inline
def offset_of(line, column, row_step, step):
    """The offset of the lane's element at a line and a column."""
    return line * spread[i64](row_step) + column * spread[i64](step)


@inline
def store_sums(
    c, o, v, y, py, p, q, r, row, column, warp, *, T, sums, out, columns, body, first, second, third
):  # fmt: skip
    """Store a tile of sums, with the epilogue applied."""
    lane = lane_numbers[i32]()
    for half, quad in np.ndindex(2, columns // QUADS):
        line = cast[i64](lane >> const[i32](2)) + spread[i64](row + warp * 16 + half * 8)
        lane_column = cast[i64]((lane & const[i32](3)) << const[i32](3)) + spread[i64](column + quad * QUADS)
        valid = (line < spread[i64](y.size.m)) & (lane_column < spread[i64](y.size.n))
        store_eight_sums(
            c, o, v, quad, half, valid, py, offset_of(line, lane_column, y.stride.m, y.stride.n), p,
            offset_of(line, lane_column, p.stride.m, p.stride.n), q,
            offset_of(line, lane_column, q.stride.m, q.stride.n), r,
            offset_of(line, lane_column, r.stride.m, r.stride.n),
        )  # fmt: skip


@kernel(over="s m/rows n/columns", a="m k", b="n kb", y="s m n", p="m n", q="m n", r="m n")
def block_product(
    a: Tensor, b: Ptr, y: Tensor, p: Tensor, q: Tensor, r: Tensor, depth, each, *, T, sums, out, rows,
    columns, stages, computed, body, first, second, third,
):  # fmt: skip
    """T, sums, out: element types of a and b, of sums, and of y. `depth`: bytes of a row of a, a multiple
    of 16. `each`: steps of each part s of the depth. b: see `arrange`; `computed`: kernels before this one
    write it, so it is not copied early. p, q, r: operands of the epilogue, of the types `first`, `second` and
    `third` ("": none)."""
    c, o, v, ring = registers()
    start_followers()
    begin_ring(ring)
    steps = (depth + LINE - 1) // LINE
    if ring["warp"] < rows // 16:
        if rows > GROUP_ROWS:
            take_registers(MANY)
        await_leaders()
        for part, row, column in items():
            multiply_steps(c, ring, each)
            store_sums(c, o, v, y, y.at(s=part), p, q, r, row, column, ring["warp"])
    else:
        if rows > GROUP_ROWS:
            leave_registers(FEW)
        if ring["warp"] == rows // 16:
            ring["early"] = -1
            for part, row, column in items():
                pb = b + column // QUADS * (steps * STRIP) + part * each * STRIP
                last = (y.size.n - 1 - column) // QUADS
                if ring["early"] < 0:
                    if computed:
                        await_leaders()
                    ring["early"] = min(each, stages)
                    for s in range(ring["early"]):
                        copy_weights(ring, pb, s, s, steps, last, rows)
                    await_leaders()
                for s in range(each):
                    begin_step(ring, pb, s, steps, last, rows)
                    into = ring["shared"] + ring["slot"] * ((rows + columns) * LINE)
                    at = (part * each + s) * LINE
                    full = ring["full"] + ring["slot"] * 8
                    copy_box(into, a, a.stride.m, y.size.m, depth, at, row, rows, full)
                    next_slot(ring)


def arrange(matrix: np.ndarray) -> np.ndarray:
    """A matrix [n, k] as bytes [strips, steps * STRIP]: 32 columns and 128 bytes of depth lie together, in
    the order and with the permutations of `block_product`. Zeros are after its ends."""
    n = matrix.shape[0]
    rows = np.ascontiguousarray(matrix).view(np.uint8).reshape(n, -1)
    padded = np.pad(rows, ((0, -n % QUADS), (0, -rows.shape[1] % LINE)))
    steps = padded.shape[1] // LINE
    # columns 8 t + 2 j + e -> 8 j + 2 t + e
    v = padded.reshape(-1, 4, 4, 2, steps, 8, 16).transpose(0, 4, 2, 1, 3, 5, 6)
    v = v.reshape(-1, steps, 4, 8, 8, 16)
    order = np.arange(8)[None] ^ np.arange(8)[:, None]
    image = np.take_along_axis(v, order[None, None, None, :, :, None], 4)
    return np.ascontiguousarray(image).reshape(-1, steps * STRIP)
