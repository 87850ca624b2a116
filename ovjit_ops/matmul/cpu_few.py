"""Products of few rows with a computed matrix, which is read once and in place. Packing it for tiles would
take longer than the product.

    y[r, j] = sum over k of a[r, k] b[k, j]

If columns are adjacent, `DEEP` steps of k are multiplied at a time, for all columns of a block. If k is
adjacent, `DEEP` columns are.
"""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit.planning.launch import launch
from ovjit.planning.plan import Planner
from ovjit.planning.views import DIMS, View, merge_dims, product
from ovjit.tiles.lowering import Tiled
from ovjit.tiles.rows import ROW_OPERANDS, finish_row, row_step

#: Maximum rows for which this is faster than tiles.
FEW = 12
#: DEEP: factors multiplied at a time. LONG: length of a partial sum over k. The rounding error of a sum grows
#: with its length, so partial sums are added to one another.
DEEP, LONG = 8, 4096
#: Columns of a block, for adjacent columns and for adjacent k. A block reads some adjacent bytes of several
#: pages of a matrix.
COLUMNS, TURNED = 512, 128
SIZE_F32 = 4


@inline
def add_products(sums, p, b_k, w, deep, count, full):
    """Add `deep` products to the sums of a vector of columns at p. They are summed first, which reduces
    rounding. `full`: the vector is full, else it has `count` columns."""
    total = w[0] * (load[f32](p) if full else loadm[f32](p, count))
    for d in static_range(1, deep):
        total = fma(w[d], load[f32](p + d * b_k) if full else loadm[f32](p + d * b_k, count), total)
    store[f32](sums, load[f32](sums) + total)


@inline
def begin_columns(at, c, pb, b_n, j, count, start):
    """`at`: the addresses of element `start` of DEEP columns from j on; c: their sums, set to 0. Columns
    beyond `count` repeat the last one."""
    for d in static_range(DEEP):
        at[d] = pb + min(j + d, count - 1) * b_n + start * SIZE_F32
        c[d] = const[f32](0)


@inline
def multiply_columns(at, c, x, count, full):
    """Add x times the next elements of DEEP columns to their sums."""
    for d in static_range(DEEP):
        c[d] = fma(x, load[f32](at[d]) if full else loadm[f32](at[d], count), c[d])
        if full:
            at[d] += VL * SIZE_F32


@inline
def add_depths(into, pa, pb, a, b, w, first, stop, block, count):
    """Add the products of the depths from `first` to `stop` to a block's sums, for `count` adjacent columns
    of b that begin at pb."""
    h = first
    row = pb
    for deep in (DEEP, 1):
        while h + deep <= stop:
            for r in range(a.size.m):
                for d in static_range(deep):
                    w[d] = splat[f32](pa + r * a.stride.m + (h + d) * SIZE_F32)
                sums = into + r * block * SIZE_F32
                p = row
                j = count
                while j >= VL:
                    add_products(sums, p, b.stride.k, w, deep, j, True)
                    sums += VL * SIZE_F32
                    p += VL * SIZE_F32
                    j -= VL
                if j > 0:
                    add_products(sums, p, b.stride.k, w, deep, j, False)
            row += deep * b.stride.k
            h += deep


@inline
def add_column_sums(c, at, p, count):
    """Add the products of DEEP columns with `count` elements of a row at p to their sums."""
    q = p
    n = count
    while n >= VL:
        x = load[f32](q)
        multiply_columns(at, c, x, VL, True)
        q += VL * SIZE_F32
        n -= VL
    if n > 0:
        x = loadm[f32](q, n)
        multiply_columns(at, c, x, n, False)


@inline
def put_sums(c, sums, count, later):
    """Store the sums of DEEP columns, of which `count` exist. `later`: add them to the stored sums."""
    for d in static_range(DEEP):
        if d < count:
            if later:
                st[f32](sums + d * SIZE_F32, ld[f32](sums + d * SIZE_F32) + hadd[f32](c[d]))
            else:
                st[f32](sums + d * SIZE_F32, hadd[f32](c[d]))


@kernel(over="i0 i1 i2 n/block", a="i0 i1 i2 m k", b="i0 i1 i2 k n", y="")
def few_rows(
    a: Tensor, b: Tensor, y: Tensor, y_w, block, e=ROW_OPERANDS, *, operands, body, out, vectors, lanes,
):  # fmt: skip
    """An item is a block of columns of a matrix. The elements of a's rows are adjacent. Rows of y are y_w
    bytes apart, and matrices follow one another."""
    sums, w, at, c = registers()
    for i0, i1, i2, first, pa, pb in items(a, b):
        above = ((i0 * a.size.i1 + i1) * a.size.i2 + i2) * a.size.m
        count = min(block, b.size.n - first)
        if b.stride.n == SIZE_F32:
            into = scratch
            for start in range(0, max(a.size.k, 1), LONG):
                stop = min(start + LONG, a.size.k)
                for i in range(0, a.size.m * block * SIZE_F32, VL * SIZE_F32):
                    store[f32](into + i, const[f32](0))
                add_depths(into, pa, pb + start * b.stride.k, a, b, w, start, stop, block, count)
                if start > 0:
                    for i in range(0, a.size.m * block * SIZE_F32, VL * SIZE_F32):
                        store[f32](scratch + i, load[f32](scratch + i) + load[f32](into + i))
                into = scratch + a.size.m * block * SIZE_F32
        else:
            for start in range(0, max(a.size.k, 1), LONG):
                for j in range(0, count, DEEP):
                    for r in range(a.size.m):
                        begin_columns(at, c, pb, b.stride.n, j, count, start)
                        p = pa + r * a.stride.m + start * SIZE_F32
                        add_column_sums(c, at, p, min(LONG, a.size.k - start))
                        put_sums(c, scratch + (r * block + j) * SIZE_F32, count - j, start > 0)
        for r in range(a.size.m):
            for j in range(0, count, vectors * lanes):
                for v in static_range(vectors):
                    sums[0, v] = load[f32](scratch + (r * block + j + v * lanes) * SIZE_F32)
                finish_row(sums, 0, e, y, y_w, above + r, (first + j) // (vectors * lanes), b.size.n)


def few_rows_kernel(lowering: Tiled, names: str) -> Kernel:
    """The kernel of few rows with the epilogue of a lowering."""
    name = f"matmul_few_{lowering.target.name}{'_' + names if names else ''}"
    target, constants = lowering.target, lowering.epilogue.constants("f32")
    return few_rows.kernel(name, vectors=target.tile_vectors, lanes=target.lanes, **constants)


def plan_few(lowering: Tiled, kernel: Kernel, planner: Planner, a: View, b: View, y: View) -> bool:
    """Plan the product of a [..., m, k] and b [..., k, n] with equal batch dimensions into y [..., n].
    Returns False, without a step, if the strides are not supported."""
    (m, k), n, size = a.shape[-2:], b.shape[-1], SIZE_F32
    b_k, b_n = b.strides[-2], size if n == 1 else b.strides[-1]
    y = y if y.shape else y.insert(0, stride=y.itemsize)
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
    outer, missing = [1] * (DIMS - len(extents)) + extents, [0] * (DIMS - len(extents))
    tensors = {
        "a": View(a.buffer, (*outer, m, k), (*missing, *strides[0], *a.strides[-2:]), size, a.offset),
        "b": View(b.buffer, (*outer, k, n), (*missing, *strides[1], b_k, b_n), size, b.offset),
        "y": y,
    }
    operands, reads = lowering.operand_rows(planner)
    planner.need_scratch((2 if b_n == size else 1) * m * block * size)
    launch(
        planner, kernel, tensors, ("y",), reads=reads, disjoint=False, work=m * k * block,
        flops=2.0 * product(extents) * m * n * k, y_w=y_w, block=block, **operands,
    )  # fmt: skip
    return True
