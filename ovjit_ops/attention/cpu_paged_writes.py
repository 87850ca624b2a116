"""The kernels that write to a paged cache: new keys and values, and cached keys that are rotated."""

from __future__ import annotations

from ovjit.codegen.function import kernel
from ovjit.codegen.tensors import Raw
from ovjit.codegen.words import *
from ovjit.graph.paged_caches import TOP
from ovjit.records import NamedTuple
from ovjit_ops.attention.cpu_paged_kernels import CacheSteps, HeadShape
from ovjit_ops.attention.cpu_paged_numbers import (
    copy_token,
    keep_range,
    quantize_block,
    quantize_token,
    unpack_block,
)


@kernel(shape=Raw(HeadShape), caches=Raw(CacheSteps))
def paged_write(
    k: Ptr, v: Ptr, keys: Ptr, values: Ptr, table: Ptr, entries: Ptr, shape, caches, writes_at, x_row,
    w_row, u_step, *, T, kind, vkind,
):  # fmt: skip
    """New keys and values to a block of a sequence, for one head."""
    item = chunk // shape.heads
    head = chunk % shape.heads
    if item >= ld[i64](table):
        return 0
    at = table + (writes_at + item * 2) * 8
    row = table + (8 + ld[i64](at) * 8) * 8
    b = ld[i64](at + 8)
    past = ld[i64](row)
    behind = past + ld[i64](row + 8)
    index = ld[i32](entries + (ld[i64](row + 24) + b) * 4) + 0
    first = max(past - b * shape.block, 0)
    count = min(behind - b * shape.block, shape.block)
    token = ld[i64](row + 16) + b * shape.block - past  # of what would be the block's first
    x = k + token * x_row + head * shape.size * SIZE[T]
    p = keys + index * caches.k_block + head * caches.k_head
    if kind in TOP:
        unpack_block(p, caches.k_row, scratch, u_step, 0, first, shape.size, 0, kind, True)
        for t in range(first, count):
            copy_token(x + t * x_row, scratch + t * u_step, shape.size, T, "f32")
        keep_range(p, 0, shape.size, kind, first, scratch, u_step, count)
        quantize_block(p, caches.k_row, shape.size, kind, scratch, u_step, count)
    else:
        for t in range(first, count):
            copy_token(x + t * x_row, p + t * caches.k_row, shape.size, T, kind)
    x = v + token * w_row + head * shape.wide * SIZE[T]
    p = values + index * caches.v_block + head * caches.v_head
    for t in range(first, count):
        if vkind in TOP:
            copy_token(x + t * w_row, scratch, shape.wide, T, "f32")
            quantize_token(scratch, p + t * caches.v_row, shape.wide, caches.v_group, vkind)
        else:
            copy_token(x + t * w_row, p + t * caches.v_row, shape.wide, T, vkind)


@kernel
def paged_rotate(
    keys: Ptr, rotated: Ptr, deltas: Ptr, angles: Ptr, heads, size, block, k_block, k_head, k_row, each,
    u_step, *, kind,
):  # fmt: skip
    """Keys of a cached block turned: halves x, y of a token become x cos - y sin, x sin + y cos, by the row
    of `angles` (cosines, then sines) that `deltas` says of the block, or of each of its tokens."""
    head = chunk % heads
    p = keys + (ld[i32](rotated + chunk // heads * 4) + 0) * k_block + head * k_head
    half = size // 2
    room = scratch + u_step
    if kind in TOP:
        unpack_block(p, k_row, room, u_step, 0, block, size, 0, kind, True)
    for t in range(block):
        delta = ld[i32](deltas + chunk // heads * each * 4) + 0
        if each > 1:
            delta = ld[i32](deltas + (chunk // heads * each + t) * 4) + 0
        x = p + t * k_row
        if kind in TOP:
            x = room + t * u_step
        else:
            copy_token(x, scratch, size, kind, "f32")
            x = scratch
        for j in range(0, half, VL):
            low = loadm[f32](x + j * 4, half - j)
            high = loadm[f32](x + (half + j) * 4, half - j)
            cosine = loadm[f32](angles + (delta * size + j) * 4, half - j)
            sine = loadm[f32](angles + (delta * size + half + j) * 4, half - j)
            storem[f32](x + j * 4, low * cosine - high * sine, half - j)
            storem[f32](x + (half + j) * 4, low * sine + high * cosine, half - j)
        if kind not in TOP:
            copy_token(scratch, p + t * k_row, size, "f32", kind)
    if kind in TOP:
        keep_range(p, 0, size, kind, 0, room, u_step, block)
        quantize_block(p, k_row, size, kind, room, u_step, block)


class Rotation(NamedTuple):
    """Blocks whose keys are turned, and rows of angles for them."""

    rotated: Ptr
    deltas: Ptr


class GuardSizes(NamedTuple):
    """Sequences, blocks that are turned, blocks of the cache and their tokens, blocks that have deltas,
    deltas of one, elements of a key, angles, elements of a row of them, and pairs."""

    sequences: int
    turned: int
    held: int
    block: int
    moved: int
    each: int
    size: int
    angles: int
    row: int
    pairs: int


@kernel(rotation=Raw(Rotation), sizes=Raw(GuardSizes))
def paged_guard(begins: Ptr, rotation, pairs_at: Ptr, done: Ptr, sizes):
    """Refuses blocks, rows of angles and places among pairs that are not there."""
    if sizes.turned > 0:
        if sizes.moved < sizes.turned or (sizes.each != 1 and sizes.each != sizes.block):
            return 13
        if sizes.row != sizes.size or sizes.angles % sizes.size != 0:
            return 13
    for i in range(sizes.turned):
        index = ld[i32](rotation.rotated + i * 4) + 0
        if index < 0 or index >= sizes.held:
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
