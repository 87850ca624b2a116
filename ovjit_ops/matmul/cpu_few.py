"""Products of few rows with a computed matrix, which is read once, where it lies: to pack it for tiles would
take longer than to multiply it.

    y[r, j] = sum over k of a[r, k] b[k, j]

Where columns are adjacent, `DEEP` of k are multiplied at a time, for all columns of a block; where k is
adjacent, `DEEP` columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ovjit.codegen.function import inline, kernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.tensors import Raw
from ovjit.codegen.words import *
from ovjit.planning.plan import Planner, ceil_div
from ovjit.planning.views import DIMS, View, merge_dims, placed_values, product
from ovjit.tiles.lowering import Tiled
from ovjit.tiles.rows import ROW_OPERANDS, finish_row, row_step

#: Rows up to which it pays.
FEW = 12
#: The number of factors at a time, and the length of partial sums over k. Partial sums are added to one
#: another, since the rounding error of a sum grows with the length of its chain.
DEEP, LONG = 8, 4096
#: Columns of a block: several pages of a matrix are read side by side, some adjacent bytes of each.
COLUMNS, TURNED = 512, 128
SIZE_F32 = 4


@inline
def add_products(sums, p, b_k, w, deep, left, whole):
    """A vector of columns at p. Products are summed before they meet the sum so far, which rounds less."""
    total = w[0] * (load[f32](p) if whole else loadm[f32](p, left))
    for d in static_range(1, deep):
        total = fma(w[d], load[f32](p + d * b_k) if whole else loadm[f32](p + d * b_k, left), total)
    store[f32](sums, load[f32](sums) + total)


class Sizes(NamedTuple):
    """Rows, depth and outputs."""

    rows: int
    k: int
    outs: int


class Steps(NamedTuple):
    """Bytes from row to row of a and y, and along both axes of b."""

    a_w: int
    b_k: int
    b_n: int
    y_w: int


class Shares(NamedTuple):
    """Outputs of a block, blocks of a row; items, and how many a chunk takes."""

    block: int
    blocks: int
    items: int
    per_chunk: int


@kernel(sizes=Raw(Sizes), steps=Raw(Steps), shares=Raw(Shares))
def few_rows(
    a: Ptr, b: Ptr, y: Ptr, sizes, steps, shares, e=ROW_OPERANDS, *, operands, body, out, vectors, lanes,
):  # fmt: skip
    """A chunk is a range of (matrix, block of columns). The elements of a's rows are adjacent."""
    made, w, at, c = registers()
    for item in share(shares.items, shares.per_chunk):
        matrix = item // shares.blocks
        first = item % shares.blocks * shares.block
        pa, pb = placed(matrix, a, b)
        pb += first * steps.b_n
        count = min(shares.block, sizes.outs - first)
        if steps.b_n == SIZE_F32:
            into = scratch
            for start in range(0, max(sizes.k, 1), LONG):
                stop = min(start + LONG, sizes.k)
                for i in range(0, sizes.rows * shares.block * SIZE_F32, VL * SIZE_F32):
                    store[f32](into + i, const[f32](0))
                h = start
                for deep in (DEEP, 1):
                    while h + deep <= stop:
                        for r in range(sizes.rows):
                            for d in static_range(deep):
                                w[d] = splat[f32](pa + r * steps.a_w + (h + d) * SIZE_F32)
                            sums = into + r * shares.block * SIZE_F32
                            p = pb
                            j = count
                            while j >= VL:
                                add_products(sums, p, steps.b_k, w, deep, j, True)
                                sums += VL * SIZE_F32
                                p += VL * SIZE_F32
                                j -= VL
                            if j > 0:
                                add_products(sums, p, steps.b_k, w, deep, j, False)
                        pb += deep * steps.b_k
                        h += deep
                if start > 0:
                    for i in range(0, sizes.rows * shares.block * SIZE_F32, VL * SIZE_F32):
                        store[f32](scratch + i, load[f32](scratch + i) + load[f32](into + i))
                into = scratch + sizes.rows * shares.block * SIZE_F32
        else:
            for start in range(0, max(sizes.k, 1), LONG):
                for j in range(0, count, DEEP):
                    for r in range(sizes.rows):
                        for d in static_range(DEEP):
                            at[d] = pb + min(j + d, count - 1) * steps.b_n + start * SIZE_F32
                            c[d] = const[f32](0)
                        p = pa + r * steps.a_w + start * SIZE_F32
                        left = min(LONG, sizes.k - start)
                        while left >= VL:
                            x = load[f32](p)
                            for d in static_range(DEEP):
                                c[d] = fma(x, load[f32](at[d]), c[d])
                                at[d] += VL * SIZE_F32
                            p += VL * SIZE_F32
                            left -= VL
                        if left > 0:
                            x = loadm[f32](p, left)
                            for d in static_range(DEEP):
                                c[d] = fma(x, loadm[f32](at[d], left), c[d])
                        for d in static_range(DEEP):
                            if j + d < count:
                                sums = scratch + (r * shares.block + j + d) * SIZE_F32
                                if start > 0:
                                    st[f32](sums, ld[f32](sums) + hadd[f32](c[d]))
                                else:
                                    st[f32](sums, hadd[f32](c[d]))
        for r in range(sizes.rows):
            for j in range(0, count, vectors * lanes):
                for v in static_range(vectors):
                    made[0, v] = load[f32](scratch + (r * shares.block + j + v * lanes) * SIZE_F32)
                finish_row(
                    made, 0, e, y, steps.y_w, matrix * sizes.rows + r, (first + j) // (vectors * lanes),
                    sizes.outs, vectors, lanes, operands, body, out,
                )  # fmt: skip


def few_rows_kernel(lowering: Tiled, names: str) -> Kernel:
    """Its kernel for the epilogue of a product."""
    name = f"matmul_few_{lowering.target.name}{'_' + names if names else ''}"
    target, constants = lowering.target, lowering.epilogue.constants("f32")
    return few_rows.kernel(name, vectors=target.tile_vectors, lanes=target.lanes, **constants)


def plan_few(lowering: Tiled, kernel: Kernel, planner: Planner, a: View, b: View, y: View) -> bool:
    """The product of [..., m, k] and [..., k, n], whose other dimensions are the same; the last dimension of
    the output y has the n columns. False where the matrices do not lie as it takes."""
    (m, k), n, size = a.shape[-2:], b.shape[-1], SIZE_F32
    b_k, b_n = b.strides[-2], size if n == 1 else b.strides[-1]
    y = y if y.shape else View(y.buffer, (1,), (y.itemsize,), y.itemsize, y.offset)
    y_w = row_step(y)
    if (a.strides[-1] != size and k > 1) or y_w is None or y.strides[-1] != y.itemsize:
        return False
    if b_n != size and b_k != size:
        return False
    batch = len(a.shape) - 2
    extents, strides = merge_dims(a.shape[:batch], [a.strides[:batch], b.strides[:batch]])
    if len(extents) > DIMS:
        return False
    block = COLUMNS if b_n == size else TURNED
    matrices, blocks = product(extents), ceil_div(n, block)
    values: dict[str, Any] = {
        "a": a.ptr, "b": b.ptr, "y": y.ptr, "rows": m, "k": k, "outs": n, "a_w": a.strides[-2], "b_k": b_k,
        "b_n": b_n, "y_w": y_w, "block": block, "blocks": blocks, "items": matrices * blocks,
    }  # fmt: skip
    operands, reads = lowering.operand_rows(planner)
    planner.need_scratch((2 if b_n == size else 1) * m * block * size)
    values |= placed_values(extents, a=strides[0], b=strides[1]) | operands
    flops = 2.0 * matrices * m * n * k
    planner.share_step(kernel, values, matrices * blocks, m * k * block, [a, b, *reads], [y], flops)
    return True
