"""The kernels that write to a paged cache: new keys and values, and rotated keys."""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit.graph.paged_caches import TOP
from ovjit_ops.attention.cpu_paged_kernels import CACHE_STEPS, HEAD_SHAPE
from ovjit_ops.attention.cpu_paged_numbers import (
    copy_token,
    keep_range,
    quantize_block,
    quantize_token,
    unpack_block,
)

#: New keys and values, both caches, the table of the plan, and block indices.
WRITE_TENSORS = Raw("*k *v *keys *values *table *entries")
#: Where the writes begin in the table, in words; bytes of a row of k, of v and of an unpacked token.
WRITE_STEPS = Raw("writes_at x_row w_row u_step")


@kernel(tensors=WRITE_TENSORS, shape=HEAD_SHAPE, caches=CACHE_STEPS, steps=WRITE_STEPS)
def paged_write(tensors, shape, caches, steps, *, T, kind, vkind):
    """Write the new keys and values of one head to one block of a sequence."""
    item = chunk // shape.heads
    head = chunk % shape.heads
    if item >= ld[i64](tensors.table):
        return 0
    at = tensors.table + (steps.writes_at + item * 2) * 8
    row = tensors.table + (8 + ld[i64](at) * 8) * 8
    b = ld[i64](at + 8)
    past = ld[i64](row)
    end = past + ld[i64](row + 8)
    index = ld[i32](tensors.entries + (ld[i64](row + 24) + b) * 4) + 0
    first = max(past - b * shape.block, 0)
    count = min(end - b * shape.block, shape.block)
    token = ld[i64](row + 16) + b * shape.block - past  # row of the block's first token
    x = tensors.k + token * steps.x_row + head * shape.key_size * SIZE[T]
    p = tensors.keys + index * caches.k_block + head * caches.k_head
    if kind in TOP:
        unpack_block(p, caches.k_row, scratch, steps.u_step, 0, first, shape.key_size, 0, kind, True)
        for t in range(first, count):
            copy_token(x + t * steps.x_row, scratch + t * steps.u_step, shape.key_size, T, "f32")
        keep_range(p, shape.key_size, kind, first, scratch, steps.u_step, count)
        quantize_block(p, caches.k_row, shape.key_size, kind, scratch, steps.u_step, count)
    else:
        for t in range(first, count):
            copy_token(x + t * steps.x_row, p + t * caches.k_row, shape.key_size, T, kind)
    x = tensors.v + token * steps.w_row + head * shape.value_size * SIZE[T]
    p = tensors.values + index * caches.v_block + head * caches.v_head
    for t in range(first, count):
        if vkind in TOP:
            copy_token(x + t * steps.w_row, scratch, shape.value_size, T, "f32")
            quantize_token(scratch, p + t * caches.v_row, shape.value_size, caches.v_group, vkind)
        else:
            copy_token(x + t * steps.w_row, p + t * caches.v_row, shape.value_size, T, vkind)


#: Cached keys, indices of rotated blocks, their deltas, and rows of angles.
ROTATE_TENSORS = Raw("*keys *rotated *deltas *angles")
#: Heads, elements of a key, tokens of a block; byte strides of block, head and token; deltas per block, and
#: bytes of an unpacked row.
ROTATE_SHAPE = Raw("heads key_size block k_block k_head k_row each u_step")


@kernel(tensors=ROTATE_TENSORS, shape=ROTATE_SHAPE)
def paged_rotate(tensors, shape, *, kind):
    """Rotate the keys of a cached block in place: the halves x, y of a token become x cos - y sin, x sin + y
    cos. `deltas` has the row of `angles` (cosines, then sines) of the block, or of each of its tokens."""
    head = chunk % shape.heads
    p = (
        tensors.keys
        + (ld[i32](tensors.rotated + chunk // shape.heads * 4) + 0) * shape.k_block
        + head * shape.k_head
    )
    half = shape.key_size // 2
    room = scratch + shape.u_step
    if kind in TOP:
        unpack_block(p, shape.k_row, room, shape.u_step, 0, shape.block, shape.key_size, 0, kind, True)
    for t in range(shape.block):
        delta = ld[i32](tensors.deltas + chunk // shape.heads * shape.each * 4) + 0
        if shape.each > 1:
            delta = ld[i32](tensors.deltas + (chunk // shape.heads * shape.each + t) * 4) + 0
        x = p + t * shape.k_row
        if kind in TOP:
            x = room + t * shape.u_step
        else:
            copy_token(x, scratch, shape.key_size, kind, "f32")
            x = scratch
        for j in range(0, half, VL):
            low = loadm[f32](x + j * 4, half - j)
            high = loadm[f32](x + (half + j) * 4, half - j)
            cosine = loadm[f32](tensors.angles + (delta * shape.key_size + j) * 4, half - j)
            sine = loadm[f32](tensors.angles + (delta * shape.key_size + half + j) * 4, half - j)
            storem[f32](x + j * 4, low * cosine - high * sine, half - j)
            storem[f32](x + (half + j) * 4, low * sine + high * cosine, half - j)
        if kind not in TOP:
            copy_token(scratch, p + t * shape.k_row, shape.key_size, "f32", kind)
    if kind in TOP:
        keep_range(p, shape.key_size, kind, 0, room, shape.u_step, shape.block)
        quantize_block(p, shape.k_row, shape.key_size, kind, room, shape.u_step, shape.block)


#: Indices of rotated blocks, and the rows of angles for them.
ROTATION = Raw("*rotated *deltas")
#: Sequences, rotated blocks, blocks of the cache and their tokens, blocks with deltas, deltas per block,
#: elements of a key, angles, elements of a row of angles, and pairs (-1: not checked).
GUARD_SIZES = Raw("sequences rotations cache_blocks block moved each size angles row pairs")


@kernel(rotation=ROTATION, sizes=GUARD_SIZES)
def paged_guard(begins: Ptr, rotation, pairs_at: Ptr, done: Ptr, sizes):
    """Validate the indices of rotated blocks, the rows of angles, and the ranges of pairs. Returns an error
    code of `paged_reference.FAULTS`, or 0."""
    if sizes.rotations > 0:
        if sizes.moved < sizes.rotations or (sizes.each != 1 and sizes.each != sizes.block):
            return 13
        if sizes.row != sizes.size or sizes.angles % sizes.size != 0:
            return 13
    for i in range(sizes.rotations):
        index = ld[i32](rotation.rotated + i * 4) + 0
        if index < 0 or index >= sizes.cache_blocks:
            return 10
        for t in range(sizes.each):
            turn = ld[i32](rotation.deltas + (i * sizes.each + t) * 4) + 0
            if turn < 0 or turn >= sizes.angles // sizes.size:
                return 10
    if sizes.pairs >= 0:
        for s in range(sizes.sequences):
            new = ld[i32](begins + s * 4 + 4) - ld[i32](begins + s * 4) + 0
            at = ld[i32](pairs_at + s * 4) + 0
            stop = ld[i32](pairs_at + s * 4 + 4) + 0
            if at < 0 or stop < at or stop > sizes.pairs:
                return 11
            if stop > at and stop - at != new * new:
                return 11
    st[i64](done, 0)
