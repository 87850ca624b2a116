"""XAttention: selects the blocks of keys for each block of a prompt's queries.

The attention is estimated from sums along antidiagonals. Queries and keys are grouped by `stride`; in a pair
of groups, the i-th query from the end meets the i-th key. So `stride` dot products stand for a tile of stride
x stride scores; the last group may have fewer. For each block of queries, the blocks of keys with the largest
sums are kept until they reach the part `threshold` of the total. The first block and the diagonal one are
always kept.
"""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit_ops.attention.cpu_attention_kernels import soften
from ovjit_ops.attention.cpu_paged_numbers import fill

#: The smallest supported block of XAttention. It determines the size of the buffer of marks.
LEAST_BLOCK = 16
#: Bytes before the marks. The first word is the number of tokens of a block, or 0 if all blocks are computed.
HEADER = 64


@inline
def opposite(q, q_row, k, k_row, stride, first, stop, size, T):
    """The sum of the dot products of `stride` queries, in reverse order, with `stride` keys: of the pairs
    from `first` to `stop`, which are there."""
    acc = const[f32](0.0)
    for i in range(first, stop):
        for j in range(0, size, VL):
            query = loadm[T](q + (stride - 1 - i) * q_row + j * SIZE[T], size - j)
            acc = fma(query, loadm[T](k + i * k_row + j * SIZE[T], size - j), acc)
    return spread[f32](hadd[f32](acc))


#: Sequences and thresholds; blocks of a row of marks; heads of queries, and heads of queries per head of
#: keys. Elements of a key; byte strides of tokens of queries and keys; the offset of sums in scratch memory.
SPARSE_SIZES = Raw("sequences thresholds side queries group key_size q_row x_row sums_at")


@inline
def keep_largest(marks, sums, block, target):
    """Mark the first block, block `block`, and then the largest ones, until their sums reach `target`."""
    have = ld[f32](sums)
    st[u8](marks, 1)
    if block > 0:
        have += ld[f32](sums + block * 4)
        st[u8](marks + block, 1)
    for _ in range(block - 1):
        if have < target:
            best = 1
            for b in range(1, block):
                more = ld[f32](sums + b * 4) > ld[f32](sums + best * 4)
                if ld[u8](marks + b) == 0 and (ld[u8](marks + best) != 0 or more):
                    best = b
            st[u8](marks + best, 1)
            have += ld[f32](sums + best * 4)


@kernel(sizes=SPARSE_SIZES)
def paged_sparse(
    q: Ptr, k: Ptr, table: Ptr, scale: Ptr, threshold: Ptr, block_size: Ptr, strides: Ptr, selected: Ptr,
    sizes, *, T,
):  # fmt: skip
    """kept[head, block of queries, block of keys] = 1 for selected blocks, else 0."""
    head = chunk // sizes.side
    block = chunk % sizes.side
    each = ld[i32](block_size) + 0
    stride = ld[i32](strides) + 0
    new = ld[i64](table + 72)
    fits = 0
    if sizes.sequences == 1 and sizes.thresholds > 0 and ld[i64](table + 64) == 0 and new > 1:
        if each >= 16 and stride > 0 and each % max(stride, 1) == 0:
            fits = 1
    if fits == 0:
        if chunk == 0:
            st[i64](selected, 0)
        return 0
    if chunk == 0:
        st[i64](selected, each)
    if block * each >= new:
        return 0
    per = each // stride
    sums = scratch + sizes.sums_at
    fill(sums, 0, block + 1, 0.0)
    factor = splat[f32](scale) * (const[f32](1.0) / cast[f32](spread[i32](stride)))
    p = q + head * sizes.key_size * SIZE[T]
    t = k + head // sizes.group * sizes.key_size * SIZE[T]
    for i in range(block * per, min((block + 1) * per, (new + stride - 1) // stride)):
        first = stride - min(stride, new - i * stride)
        for j in range(i + 1):
            stop = min(stride, new - j * stride)
            product = opposite(
                p + i * stride * sizes.q_row, sizes.q_row, t + j * stride * sizes.x_row, sizes.x_row, stride,
                first, stop, sizes.key_size, T,
            )  # fmt: skip
            storem[f32](scratch + 64 + j * 4, product * factor, 1)
        storem[f32](scratch, const[f32](-inf), 1)
        storem[f32](scratch + 4, const[f32](0.0), 1)
        shrink = soften(scratch + 64, scratch, scratch + 4, i + 1, "f32")
        reciprocal = const[f32](1.0) / maximum(splat[f32](scratch + 4), shrink)
        for j in range(i + 1):
            at = sums + j // per * 4
            storem[f32](at, fma(splat[f32](scratch + 64 + j * 4), reciprocal, splat[f32](at)), 1)
    marks = selected + 64 + (head * sizes.side + block) * sizes.side
    total = ld[f32](sums)
    for b in range(sizes.side):
        st[u8](marks + b, 0)
        if b > 0 and b <= block:
            total += ld[f32](sums + b * 4)
    target = total * ld[f32](threshold)
    keep_largest(marks, sums, block, target)
