"""The kernels of paged attention: queries against blocks of keys, and the sums of blocks of values.

An item (`cpu_paged_plan`) is a range of a sequence's queries and a range of blocks of its table. A chunk
computes it for one head of keys, with the queries of all heads that share this head: keys and values are read
once for all of them. For several blocks at a time it computes

    s = q k^T scale + bias          m' = max(m, row maxima of s)       p = exp(s - m')
    l' = l exp(m - m') + row sums   o' = o exp(m - m') + p v

in scratch memory. A sequence with many blocks is split into parts, whose sums `paged_merge` combines.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.cpu.targets import CACHE_LINE
from ovjit.codegen.kernel_language import *
from ovjit.graph.paged_caches import TOP
from ovjit.records import NamedTuple
from ovjit_ops.attention.cpu_attention_kernels import (
    EXP,
    MOST_FOLDED,
    begin_softmax,
    finite,
    scale_row,
    soften,
    sum_lanes,
)
from ovjit_ops.attention.cpu_paged_numbers import fill, unpack_block, widen

#: Addresses of the scale of scores, the window, the slopes of ALiBi, sinks, and relative positions of keys.
SCORING = Raw("*scale *window *slopes *sinks *ramp")
#: Masks of keys: pairs of new tokens with the begin of each sequence's pairs, kinds of tokens, the blocks
#: that XAttention keeps, and the number of blocks along a side of its table.
HIDDEN = Raw("*pairs *pairs_at *kinds *selected side")
#: Indices in the table of the number of items, and of the first item.
ITEMS = Raw("number_at items_at")
#: Heads of keys, heads of queries per head of keys, elements of a key and of a value, tokens of a block.
HEAD_SHAPE = Raw("heads group key_size value_size block")
#: Byte strides of block, head and token in both caches; and elements of a value's group.
STEPS = "k_block k_head k_row v_block v_head v_row"
CACHE_STEPS = Raw(f"{STEPS} v_group")
#: Row strides and offsets in scratch memory of queries, scores, sums and unpacked blocks.
ROW_MEMORY = Raw("q_step s_step o_step u_step s_at o_at m_at l_at u_at c_at less_at p_at")
#: The same for one query's scores.
SCORE_MEMORY = Raw("q_step u_step u_at s_at")


class PagedMode(NamedTuple):
    """Constants of the kernels: element types of q and y, storage of keys and values; inputs that there may
    be, as ALiBi's slopes, sinks, masks of pairs, types of tokens, and XAttention's blocks; `summed`: sums of
    queries are stored for scores."""

    T: str = ""
    out: str = ""
    kind: str = ""
    vkind: str = ""
    sloped: bool = False
    sinking: bool = False
    paired: bool = False
    typed: bool = False
    summed: bool = False
    sparse: bool = False


@inline
def scaled_rows(q, to, to_row, rows, group, size, q_row, factor, T, tall):
    """Store the queries of a group's heads, times `factor`, as rows in scratch memory, padded with zeros to
    whole vectors and tiles of `tall` rows."""
    for m in range(rows * group):
        p = q + m // group * q_row + m % group * size * SIZE[T]
        j = 0
        while j + VL <= size:
            store[f32](to + m * to_row + j * 4, load[T](p + j * SIZE[T]) * factor)
            j += VL
        if j < size:
            store[f32](to + m * to_row + j * 4, loadm[T](p + j * SIZE[T], size - j) * factor)
    for m in range(rows * group, (rows * group + tall - 1) // tall * tall):
        for j in range(0, size, VL):
            store[f32](to + m * to_row + j * 4, const[f32](0.0))


@inline
def prefetch_lines(at, stop, size):
    """Prefetch `size` bytes from `at` on, none after `stop`. Returns the address after them."""
    end = min(at + size, stop)
    line = at
    while line < end:
        prefetch(line)
        line += CACHE_LINE
    return line


@inline
def multiply_keys(acc, q, q_step, k, k_row, first, count, size, kind, tall, ahead, ragged):
    """The products in each lane of `tall` rows of q with `ahead` keys from key `first` on; behind `count`
    keys, the last one is repeated."""
    key = registers()
    for i, a in np.ndindex(tall, ahead):
        acc[i, a] = const[f32](0.0)
    for j in range(0, size, VL):
        for a in static_range(ahead):
            at = k + min(first + a, count - 1) * k_row + j * SIZE[kind]
            number = loadm[kind](at, size - j) if ragged else load[kind](at)
            key[a] = cast[f32](number) if kind == "u8" else number
        for i in static_range(tall):
            query = load[f32](q + i * q_step + j * 4)
            for a in static_range(ahead):
                acc[i, a] = fma(query, key[a], acc[i, a])


@inline
def dots(
    q, q_step, k, k_row, t, t_step, rows, count, size, kind, ahead, ragged, coming, coming_size, room, *,
    tall, lanes,
):  # fmt: skip
    """Compute the products of `rows` rows of q with `count` keys, `tall` rows and `ahead` keys at a time.
    Meanwhile, prefetch `coming_size` bytes from `coming` on. Products of a vector of keys are stored at
    `room`, and their lanes are summed together."""
    acc, sums = registers()
    each = (coming_size * ahead // count + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
    line = coming
    for m in range(0, rows, tall):
        p = q + m * q_step
        for s in range(0, count, ahead):
            line = prefetch_lines(line, coming + coming_size, each)
            multiply_keys(acc, p, q_step, k, k_row, s, count, size, kind, tall, ahead, ragged)
            if lanes > MOST_FOLDED or (tall == 1 and kind != "u8"):
                for a in static_range(ahead):
                    if s + a < count:
                        for i in static_range(tall):
                            product = spread[f32](hadd[f32](acc[i, a]))
                            storem[f32](t + (m + i) * t_step + (s + a) * 4, product, 1)
            else:
                for i, a in np.ndindex(tall, ahead):
                    store[f32](room + ((i * VL + s % VL + a) * VL) * 4, acc[i, a])
                if (s + ahead) % VL == 0 or s + ahead >= count:
                    first = s // VL * VL
                    for i in range(tall):
                        for n in static_range(lanes):
                            sums[n] = load[f32](room + ((i * VL + n) * VL) * 4)
                        sum_lanes(sums)
                        storem[f32](t + (m + i) * t_step + first * 4, sums[0], count - first)


@inline
def by_channels(q, q_step, k, to, less, rows, size):
    """Store rows of q times the scales of a block's channels to `to`, and each row's correction for zeros to
    `less`: q (scale (n - zero)) = (q scale) n - (q scale) zero."""
    for m in range(rows):
        acc = const[f32](0.0)
        for j in range(0, size, VL):
            scaled = loadm[f32](q + m * q_step + j * 4, size - j) * loadm[f32](k + j * 4, size - j)
            store[f32](to + m * q_step + j * 4, scaled)  # zeros after its end, as `dots` reads them
            acc = fma(scaled, loadm[f32](k + (size + j) * 4, size - j), acc)
        storem[f32](less + m * 4, spread[f32](hadd[f32](acc)), 1)


@inline
def take_less(t, t_step, less, rows, count):
    """Subtract a number per row, at `less`, from the scores."""
    for m in range(rows):
        number = splat[f32](less + m * 4)
        for j in range(0, count, VL):
            at = t + m * t_step + j * 4
            storem[f32](at, loadm[f32](at, count - j) - number, count - j)


@inline
def add_values(
    w, w_step, v, v_row, o, o_step, rows, count, value_size, kind, ahead, coming, coming_size, *, tall, ragged
):
    """Add weighted values to `rows` sums at o, `tall` rows and `ahead` vectors at a time. A value of u8 has
    a scale and a zero before its numbers: w (scale (n - zero)) = (w scale) n - (w scale) zero. Meanwhile,
    prefetch `coming_size` bytes from `coming` on."""
    acc, value, base = registers()
    each = coming_size * ahead * VL // (count * value_size)
    each = (each + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
    line = coming
    for m in range(0, rows, tall):
        for j in range(0, value_size, ahead * VL):
            for i in static_range(tall):
                if kind == "u8":
                    base[i] = const[f32](0.0)
                for a in static_range(ahead):
                    acc[i, a] = load[f32](o + (m + i) * o_step + (j + a * VL) * 4)
            for s in range(count):
                line = prefetch_lines(line, coming + coming_size, each)
                head = v + s * v_row
                if kind == "u8":
                    factor = splat[f32](head)
                    zero = splat[f32](head + 4)
                for a in static_range(ahead):
                    at = head + (8 if kind == "u8" else 0) + (j + a * VL) * SIZE[kind]
                    number = loadm[kind](at, value_size - j - a * VL) if ragged else load[kind](at)
                    value[a] = cast[f32](number) if kind == "u8" else number
                for i in static_range(tall):
                    weight = splat[f32](w + (m + i) * w_step + s * 4)
                    if kind == "u8":
                        weight = weight * factor
                        base[i] = fma(weight, zero, base[i])
                    for a in static_range(ahead):
                        acc[i, a] = fma(weight, value[a], acc[i, a])
            for i in static_range(tall):
                for a in static_range(ahead):
                    total = acc[i, a] - base[i] if kind == "u8" else acc[i, a]
                    store[f32](o + (m + i) * o_step + (j + a * VL) * 4, total)


@inline
def incline(t, ramp, slope, distance, count):
    """Add slope (kpos - qpos) to the scores of adjacent keys. The first key is at `distance` from the
    query."""
    offset = cast[f32](spread[i32](distance))
    for j in range(0, count, VL):
        away = loadm[f32](ramp + j * 4, count - j) + offset
        storem[f32](t + j * 4, fma(slope, away, loadm[f32](t + j * 4, count - j)), count - j)


@inline
def find_sequence(row, *, it, scoring):
    """Load a sequence from its row of the table into `it`: number of cached and of new tokens, index of the
    first new token, index of its first block in the list; and the window."""
    it["past"] = ld[i64](row)
    it["new"] = ld[i64](row + 8)
    it["begin"] = ld[i64](row + 16)
    it["entry"] = ld[i64](row + 24)
    it["seen"] = ld[i32](scoring.window) + 0


@inline
def find_item(item, *, it, tensors, scoring, items, shape, mode):
    """Load an item of the table, and its sequence, into `it`: the first query, the number of
    queries, and that times the heads of a group; the range of blocks, the slot of the result; the first
    token; the end of the keys that a row attends to."""
    at = tensors.table + (items.items_at + item * 6) * 8
    row = tensors.table + (8 + ld[i64](at) * 8) * 8
    it["row"] = row
    it["sequence"] = ld[i64](at)
    find_sequence(row)
    it["first"] = ld[i64](at + 8)
    it["rows"] = ld[i64](at + 16)
    it["start"] = ld[i64](at + 24)
    it["stop"] = it["start"] + ld[i64](at + 32)
    it["slot"] = ld[i64](at + 40)
    it["token"] = it["begin"] + it["first"]
    it["count"] = it["rows"] * shape.group
    it["behind"] = it["past"] + it["first"] + it["rows"]
    if mode.typed:
        it["behind"] = it["past"] + it["new"]


@inline
def hide(line, base, columns, position, head, *, it, hidden, mode):
    """Mask scores with -inf, for a query at position `position` and keys from position `base` on. Masked are
    later keys, except tokens of the same image (`kinds` not 0); keys before the window; keys that `pairs`
    masks; and blocks that XAttention does not keep."""
    past = it["past"]
    new = it["new"]
    begin = it["begin"]
    if mode.sparse:
        each = ld[i64](hidden.selected)
        if each > 0:
            for b in range(base // each, (base + columns - 1) // each + 1):
                if (
                    ld[u8](hidden.selected + 64 + (head * hidden.side + position // each) * hidden.side + b)
                    == 0
                ):
                    fill(line, b * each - base, min((b + 1) * each - base, columns), -inf)
    last = position
    start = position
    if mode.typed:
        if ld[i32](hidden.kinds + (begin + position - past) * 4) != 0:
            last += 1
            while (
                last < past + new
                and ld[i32](hidden.kinds + (begin + min(last, past + new - 1) - past) * 4) != 0
            ):
                last += 1
            last -= 1
            while start > past and ld[i32](hidden.kinds + (begin + max(start - 1, past) - past) * 4) != 0:
                start -= 1
    if it["seen"] > 0:
        fill(line, 0, min(min(position + 1 - it["seen"], start) - base, columns), -inf)
    fill(line, last + 1 - base, columns, -inf)
    if mode.paired:
        at = ld[i32](hidden.pairs_at + it["sequence"] * 4) + 0
        if ld[i32](hidden.pairs_at + it["sequence"] * 4 + 4) > at:
            for j in range(max(past - base, 0), min(columns, last + 1 - base)):
                if ld[u8](hidden.pairs + at + (position - past) * new + base + j - past) == 0:
                    storem[f32](line + j * 4, const[f32](-inf), 1)


@inline
def bias_scores(line, b, columns, position, query, *, it, scoring, hidden, shape, mode):
    """Add ALiBi to the scores of a query at position `position` of head `query`, with keys from block b on,
    and mask them."""
    if mode.sloped:
        slope = splat[f32](scoring.slopes + query * 4)
        incline(line, scoring.ramp, slope, b * shape.block - position, columns)
    hide(line, b * shape.block, columns, position, query)


@inline
def block_of(b, *, it, tensors):
    """The block of the caches that is block b of the item's sequence; negative if it is absent."""
    return ld[i32](tensors.entries + (it["entry"] + b) * 4) + 0


@inline
def keys_of(index, head, *, tensors, caches):
    """The address of a head's keys in a block."""
    return tensors.keys + index * caches.k_block + head * caches.k_head


@inline
def values_of(index, head, *, tensors, caches):
    """The address of a head's values in a block."""
    return tensors.values + index * caches.v_block + head * caches.v_head


@inline
def hide_absent(line, b, blocks, columns, *, it, tensors, shape):
    """-inf for the keys of those of `blocks` blocks from block b on that are absent."""
    for i in range(blocks):
        if block_of(b + i) < 0:
            fill(line, i * shape.block, min((i + 1) * shape.block, columns), -inf)


@inline
def score_block(
    k, to, count, live, coming, coming_size, *, shape, caches, memory, mode, tall, ahead, ragged, lanes
):
    """Compute the scores of `count` queries in scratch memory with the first `live` keys of a block."""
    queries = scratch
    keys = k
    row = caches.k_row
    if mode.kind == "u8":
        queries = scratch + memory.c_at
        by_channels(scratch, memory.q_step, k, queries, scratch + memory.less_at, count, shape.key_size)
        keys = k + shape.key_size * 8
    if mode.kind == "u4":
        keys = scratch + memory.u_at
        row = memory.u_step
        unpack_block(k, caches.k_row, keys, row, 0, live, shape.key_size, 0, mode.kind, True)
    dots(
        queries, memory.q_step, keys, row, to, memory.s_step, count, live, shape.key_size,
        "f32" if mode.kind == "u4" else mode.kind, ahead, ragged, coming, coming_size,
        scratch + memory.p_at,
    )  # fmt: skip
    if mode.kind == "u8":
        take_less(to, memory.s_step, scratch + memory.less_at, count, live)


def added_type(vkind: str, grouped: bool) -> str:
    """The element type in which values are added: f32 for those that are unpacked first."""
    return "f32" if vkind in TOP and (grouped or vkind != "u8") else vkind


@inline
def add_block(
    w, v, count, live, coming, coming_size, *, shape, caches, memory, mode, grouped, tall, across, ragged
):
    """Add the first `live` values of a block, weighted by w, to the sums of `count` queries."""
    values = v
    row = caches.v_row
    if added_type(mode.vkind, grouped) != mode.vkind:
        values = scratch + memory.u_at
        row = memory.u_step
        unpack_block(
            v, caches.v_row, values, row, 0, live, shape.value_size, caches.v_group, mode.vkind, False
        )
    add_values(
        w, memory.s_step, values, row, scratch + memory.o_at, memory.o_step, count, live, shape.value_size,
        added_type(mode.vkind, grouped), across, coming, coming_size,
    )  # fmt: skip


@inline
def inverse(total):
    """1 / a sum of weights, 0 for a row without weights."""
    return select(total > const[f32](0.0), const[f32](1.0) / total, const[f32](0.0))


@inline
def keep_sums(token, query, top, scaled, *, tensors, shape):
    """Store a query's maximum score and the reciprocal of its sum of weights."""
    to = tensors.sums + (token * shape.heads * shape.group + query) * 8
    storem[f32](to, top, 1)
    storem[f32](to + 4, scaled, 1)


@inline
def finish_row(head, m, *, tensors, steps, it, shape, memory, mode):
    """Store row m of an item to y: its sums divided by the sum of weights. If `summed`, also store the
    maximum score and the reciprocal of the sum of weights to `sums`."""
    token = it["token"] + m // shape.group
    query = head * shape.group + m % shape.group
    scaled = inverse(splat[f32](scratch + memory.l_at + m * 4))
    result = tensors.y + token * steps.y_row + query * shape.value_size * SIZE[mode.out]
    for j in range(0, shape.value_size, VL):
        values = loadm[f32](scratch + memory.o_at + m * memory.o_step + j * 4, shape.value_size - j) * scaled
        storem[mode.out](result + j * SIZE[mode.out], values, shape.value_size - j)
    if mode.summed:
        top = splat[f32](scratch + memory.m_at + m * 4)
        keep_sums(token, query, finite(top), scaled)


@inline
def begin_row(m, sink, *, memory, mode):
    """Initialise row m: maximum -inf and sum of weights 0; with `sinking`, those of the sink at the address
    `sink`, unless that is 0."""
    begin_softmax(scratch + memory.m_at + m * 4, scratch + memory.l_at + m * 4, 0, False)
    if mode.sinking:
        if sink != 0:
            begin_softmax(scratch + memory.m_at + m * 4, scratch + memory.l_at + m * 4, sink, True)


@inline
def weigh_row(line, m, b, columns, head, kind, *, it, scoring, hidden, shape, memory, mode):
    """Replace the scores of row m, with keys from block b on, by weights of type `kind`: ALiBi, masks, and
    the online softmax. The sums of earlier blocks are rescaled to the new maximum."""
    position = it["past"] + it["first"] + m // shape.group
    query = head * shape.group + m % shape.group
    bias_scores(line, b, columns, position, query)
    shrink = soften(line, scratch + memory.m_at + m * 4, scratch + memory.l_at + m * 4, columns, kind)
    if b > it["start"]:
        o = scratch + memory.o_at + m * memory.o_step
        scale_row(o, o, shape.value_size, shrink)


@inline
def begin_rows(head, *, it, scoring, shape, memory, tall, mode):
    """Initialise the sums, maxima and weights of all rows. If a sequence is split, only its first part counts
    the sink."""
    for m in range((it["count"] + tall - 1) // tall * tall):
        o = scratch + memory.o_at + m * memory.o_step
        for j in range(0, memory.o_step, VL * 4):
            store[f32](o + j, const[f32](0.0))
        sink = 0
        if m < it["count"] and it["slot"] <= ld[i64](it["row"] + 32):
            sink = scoring.sinks + (head * shape.group + m % shape.group) * 4
        begin_row(m, sink)


@inline
def score_blocks(
    t, b, blocks, columns, head, *, it, tensors, shape, caches, memory, mode, tall, ahead, ragged, lanes
):
    """Store the scores of an item's queries with `blocks` blocks from block b on to t; -inf for absent
    blocks."""
    for i in range(blocks):
        index = block_of(b + i)
        live = min(shape.block, columns - i * shape.block)
        if index < 0:
            for m in range(it["count"]):
                fill(t + m * memory.s_step, i * shape.block, i * shape.block + live, -inf)
        else:
            k = keys_of(index, head)
            to = t + i * shape.block * 4
            coming = values_of(max(block_of(b), 0), head)
            coming_size = caches.v_head
            if i + 1 < blocks:
                coming = keys_of(max(block_of(b + i + 1), 0), head)
                coming_size = caches.k_head
            score_block(k, to, it["count"], live, coming, coming_size)


@inline
def following_keys(b, head, *, it, tensors, shape, caches):
    """The address of the keys of block b; after the item's last block, those of the next head's first."""
    block = b
    other = head
    if b >= it["stop"]:
        block = it["start"]
        other = min(head + 1, shape.heads - 1)
    return keys_of(max(block_of(block), 0), other)


@inline
def add_blocks(
    t, b, blocks, columns, head, *, it, tensors, shape, caches, memory, mode, grouped, tall, across, ragged
):
    """Add the values of `blocks` blocks from block b on, weighted by t, to the sums."""
    for i in range(blocks):
        index = block_of(b + i)
        live = min(shape.block, columns - i * shape.block)
        if index >= 0:
            v = values_of(index, head)
            w = t + i * shape.block * 4
            coming = following_keys(b + blocks, head)
            coming_size = caches.k_head
            if i + 1 < blocks:
                coming = values_of(max(block_of(b + i + 1), 0), head)
                coming_size = caches.v_head
            add_block(w, v, it["count"], live, coming, coming_size)


@inline
def keep_row(head, m, *, tensors, steps, it, shape, memory):
    """Store the sums of row m, its maximum score and sum of weights to the item's slot."""
    o = scratch + memory.o_at + m * memory.o_step
    p = tensors.partial + (it["slot"] * shape.heads + head) * steps.slot_size + m * (memory.o_step + 8)
    for j in range(0, shape.value_size, VL):
        storem[f32](p + j * 4, load[f32](o + j * 4), shape.value_size - j)
    storem[f32](p + memory.o_step, splat[f32](scratch + memory.m_at + m * 4), 1)
    storem[f32](p + memory.o_step + 4, splat[f32](scratch + memory.l_at + m * 4), 1)


#: Queries, results, both caches, the plan's table, block indices, sums of parts and of queries.
ROW_TENSORS = Raw("*q *y *keys *values *table *entries *partial *sums")
#: Blocks that are processed at a time, bytes of a row of q and of y, and of a head's slot of sums.
ROW_STEPS = Raw("part q_row y_row slot_size")


@kernel(
    tensors=ROW_TENSORS, scoring=SCORING, hidden=HIDDEN, items=ITEMS, shape=HEAD_SHAPE,
    caches=CACHE_STEPS, memory=ROW_MEMORY, steps=ROW_STEPS,
)  # fmt: skip
def paged_rows(
    tensors, scoring, hidden, items, shape, caches, memory, steps, *, mode, tall, ahead, across, grouped,
    ragged, lanes,
):  # fmt: skip
    """Attention of an item's queries to its blocks. Stores y, or for a part of a sequence its sums, with
    `slot_size` bytes per slot and head. `ragged`: loads of keys and values are masked, as their sizes are not
    multiples of the elements that are loaded together.

    While a block is computed, the lines of the block that follows it are prefetched. Blocks lie anywhere in
    memory, and hardware prefetchers stop at the end of each. On a Zen 3 whose core reads 14 GB/s, caches of
    f32 were read at 4.8 GB/s without these prefetches, and at 11.5 GB/s with them.
    """
    it = registers()
    item = chunk // shape.heads
    head = chunk % shape.heads
    if item >= ld[i64](tensors.table + items.number_at * 8):
        return 0
    find_item(item)
    factor = splat[f32](scoring.scale)
    scaled_rows(
        tensors.q + it["token"] * steps.q_row + head * shape.group * shape.key_size * SIZE[mode.T], scratch,
        memory.q_step, it["rows"], shape.group, shape.key_size, steps.q_row, factor, mode.T, tall,
    )  # fmt: skip
    begin_rows(head)
    for b in range(it["start"], it["stop"], steps.part):
        blocks = min(steps.part, it["stop"] - b)
        columns = min(blocks * shape.block, it["behind"] - b * shape.block)
        t = scratch + memory.s_at
        score_blocks(t, b, blocks, columns, head)
        for m in range(it["count"]):
            weigh_row(t + m * memory.s_step, m, b, columns, head, "f32")
        add_blocks(t, b, blocks, columns, head)
    for m in range(it["count"]):
        if it["slot"] < 0:
            finish_row(head, m)
        else:
            keep_row(head, m)


#: Heads of keys, heads of queries per head of keys, elements of a value.
MERGED_SHAPE = Raw("heads group value_size")
#: Results, the plan's table, sums of parts and of queries.
MERGED_TENSORS = Raw("*y *table *partial *sums")
#: Bytes of a row of y, of a row of sums, and of a head's slot of sums.
MERGED_STEPS = Raw("y_row o_step slot_size")


@kernel(tensors=MERGED_TENSORS, shape=MERGED_SHAPE, steps=MERGED_STEPS)
def paged_merge(tensors, shape, steps, *, mode):
    """y of sequences that are split into parts: o = sum of o_i exp(m_i - m), and l likewise."""
    row = tensors.table + (8 + chunk // shape.heads * 8) * 8
    head = chunk % shape.heads
    parts = ld[i64](row + 40)
    slot = ld[i64](row + 32)
    token = ld[i64](row + 16)
    if parts > 1:
        for m in range(ld[i64](row + 8) * shape.group):
            p = tensors.partial + (slot * shape.heads + head) * steps.slot_size + m * (steps.o_step + 8)
            step = shape.heads * steps.slot_size
            top = const[f32](-inf)
            for i in range(parts):
                top = maximum(top, splat[f32](p + i * step + steps.o_step))
            top = finite(top)
            total = const[f32](0.0)
            for i in range(parts):
                less = splat[f32](p + i * step + steps.o_step) - top
                weight = applied(EXP, less)
                total = fma(weight, splat[f32](p + i * step + steps.o_step + 4), total)
            scaled = inverse(total)
            query = head * shape.group + m % shape.group
            if mode.summed:
                keep_sums(token + m // shape.group, query, top, scaled)
            to = (
                tensors.y
                + (token + m // shape.group) * steps.y_row
                + query * shape.value_size * SIZE[mode.out]
            )
            for j in range(0, shape.value_size, VL):
                acc = const[f32](0.0)
                for i in range(parts):
                    less = splat[f32](p + i * step + steps.o_step) - top
                    weight = applied(EXP, less)
                    acc = fma(weight, loadm[f32](p + i * step + j * 4, shape.value_size - j), acc)
                storem[mode.out](to + j * SIZE[mode.out], acc * scaled, shape.value_size - j)


@inline
def add_shares(to, line, sums, count):
    """Add the weights exp(score - maximum) / sum of the scores at `line` to the numbers at `to`."""
    for j in range(0, count, VL):
        less = loadm[f32](line + j * 4, count - j) - splat[f32](sums)
        weight = applied(EXP, less)
        total = fma(weight, splat[f32](sums + 4), loadm[f32](to + j * 4, count - j))
        storem[f32](to + j * 4, total, count - j)


@inline
def sequence_of(entry, table, sequences):
    """The sequence that an entry of the list of blocks belongs to; -1 if none."""
    sequence = -1
    for i in range(sequences):
        begin = ld[i64](table + (8 + i * 8) * 8 + 24)
        if begin <= entry and entry < begin + ld[i64](table + (8 + i * 8) * 8 + 56):
            sequence = i
    return sequence


#: Queries, cached keys, the plan's table, block indices, sums of queries, numbers of counted queries, the
#: weights of keys, and their number.
SCORE_TENSORS = Raw("*q *keys *table *entries *sums *recent *y *count")
#: Sequences, block indices, bytes of a row of q, elements of `recent` (one serves all sequences), and the
#: maximum new tokens of a sequence that does not use the matrix unit.
SCORE_COUNTS = Raw("sequences listed q_row recents short_rows")


@inline
def round_to_bf16(p, row, count, size):
    """Round rows of f32 at p to bf16 precision, in place."""
    for t in range(count):
        for j in range(0, size, VL):
            at = p + t * row + j * 4
            storem["bf16"](at, loadm[f32](at, size - j), size - j)
            storem[f32](at, loadm["bf16"](at, size - j), size - j)


@kernel(
    tensors=SCORE_TENSORS, scoring=SCORING, hidden=HIDDEN, shape=HEAD_SHAPE,
    caches=CACHE_STEPS, memory=SCORE_MEMORY, counts=SCORE_COUNTS,
)  # fmt: skip
def paged_scores(
    tensors, scoring, hidden, shape, caches, memory, counts, *, mode, rounded, tall, lanes,
):  # fmt: skip
    """The sum of a block's weights over all heads and the last queries of its sequence: `recent` queries, all
    if that is negative, one if it is absent.

    The sums of queries belong to the scores that `paged_rows` and similar kernels compute. `rounded`: for
    sequences of more than `short_rows` new tokens a matrix unit computed these from q and k rounded to bf16.
    """
    it = registers()
    if chunk == 0:
        st[i64](tensors.count, ld[i64](tensors.table + 32))
    if chunk >= counts.listed:
        return 0
    s = sequence_of(chunk, tensors.table, counts.sequences)
    if s < 0:
        return 0
    row = tensors.table + (8 + s * 8) * 8
    it["sequence"] = s
    find_sequence(row)
    b = chunk - it["entry"]
    live = min(shape.block, it["past"] + it["new"] - b * shape.block)
    to = tensors.y + (ld[i64](row + 48) + b * shape.block) * 4
    fill(to, 0, live, 0.0)
    last = 1
    if counts.recents == 1:
        last = ld[i32](tensors.recent) + 0
    if counts.recents > 1 and s < counts.recents:
        last = ld[i32](tensors.recent + s * 4) + 0
    if last < 0:
        last = it["new"]
    first = max(it["new"] - last, 0)
    index = block_of(b)
    factor = splat[f32](scoring.scale)
    if index < 0:
        return 0
    for head in range(shape.heads):
        k = keys_of(index, head)
        lines = k
        row_of = caches.k_row
        if mode.kind in TOP or rounded:
            lines = scratch + memory.u_at
            row_of = memory.u_step
            widen(k, caches.k_row, lines, row_of, live, shape.key_size, 0, mode.kind, True)
            if rounded:
                if it["new"] > counts.short_rows:
                    round_to_bf16(lines, row_of, live, shape.key_size)
        for r in range(first, it["new"]):
            token = it["begin"] + r
            for g in range(shape.group):
                line = scratch + memory.s_at
                query = head * shape.group + g
                p = tensors.q + token * counts.q_row + query * shape.key_size * SIZE[mode.T]
                scaled_rows(
                    p, scratch, memory.q_step, 1, 1, shape.key_size, counts.q_row,
                    const[f32](1.0) if rounded else factor, mode.T, tall,
                )  # fmt: skip
                if rounded:
                    if it["new"] > counts.short_rows:
                        round_to_bf16(scratch, memory.q_step, 1, shape.key_size)
                    scale_row(scratch, scratch, shape.key_size, factor)
                dots(
                    scratch, memory.q_step, lines, row_of, line, 0, 1, live, shape.key_size,
                    "f32" if mode.kind in TOP or rounded else mode.kind, 4, True, k, 0, 0,
                )  # fmt: skip
                bias_scores(line, b, live, it["past"] + r, query)
                p = tensors.sums + (token * shape.heads * shape.group + query) * 8
                add_shares(to, line, p, live)
