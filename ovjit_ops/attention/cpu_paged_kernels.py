"""The kernels of paged attention: queries against blocks of keys, and the sums of blocks of values.

An item (`cpu_paged_plan`) is some queries of a sequence and some blocks of its table. A chunk takes it for
one head of keys, with the queries of all heads that share it: key and value are read once for all of them.
Blocks are taken some at a time,

    s = q k^T scale + bias          m' = max(m, row maxima of s)       p = exp(s - m')
    l' = l exp(m - m') + row sums   o' = o exp(m - m') + p v

in scratch memory. A sequence of many blocks is cut into parts, and `paged_merge` adds these up.
"""

from __future__ import annotations

from ovjit.codegen.function import inline, kernel
from ovjit.codegen.words import *
from ovjit.graph.paged_caches import TOP
from ovjit_ops.attention.cpu_attention_kernels import EXP, soften
from ovjit_ops.attention.cpu_paged_numbers import fill, unpack_block


@inline
def scaled_rows(q, to, to_row, tall, rows, group, size, q_row, factor, T):
    """Queries of the heads of a group, times a number, row after row in scratch memory, and zeros behind them
    up to whole vectors and `tall` rows."""
    for m in range((rows * group + 3) // 4 * 4):
        p = q + m // group * q_row + m % group * size * SIZE[T]
        live = 0
        if m < rows * group:
            live = size
        for j in range(0, size, VL):
            left = max(min(live - j, VL), 0)
            v = loadm[T](p + j * SIZE[T], left)
            store[f32](to + m * to_row + j * 4, v * factor)


@inline
def dots(q, q_step, k, k_row, t, t_step, rows, count, size, kind, tall, ahead):
    """Products of `rows` rows of q with `count` keys, `tall` rows and `ahead` keys at a time."""
    acc, key = registers()
    for m in range(0, rows, tall):
        p = q + m * q_step
        for s in range(0, count, ahead):
            for i in static_range(tall):
                for a in static_range(ahead):
                    acc[i, a] = const[f32](0.0)
            for j in range(0, size, VL):
                for a in static_range(ahead):
                    at = k + min(s + a, count - 1) * k_row + j * SIZE[kind]
                    number = loadm[kind](at, size - j)
                    key[a] = cast[f32](number) if kind == "u8" else number
                for i in static_range(tall):
                    query = load[f32](p + i * q_step + j * 4)
                    for a in static_range(ahead):
                        acc[i, a] = fma(query, key[a], acc[i, a])
            for a in static_range(ahead):
                if s + a < count:
                    for i in static_range(tall):
                        product = spread[f32](hadd[f32](acc[i, a]))
                        storem[f32](t + (m + i) * t_step + (s + a) * 4, product, 1)


@inline
def by_channels(q, q_step, k, to, less, rows, size):
    """Rows of q times the scales of a block's channels, at `to`; and at `less`, for each row, what the zeros
    take from a product with numbers as they are: q (scale (n - zero)) = (q scale) n - (q scale) zero."""
    for m in range(rows):
        acc = const[f32](0.0)
        for j in range(0, size, VL):
            scaled = loadm[f32](q + m * q_step + j * 4, size - j) * loadm[f32](k + j * 4, size - j)
            storem[f32](to + m * q_step + j * 4, scaled, size - j)
            acc = fma(scaled, loadm[f32](k + (size + j) * 4, size - j), acc)
        storem[f32](less + m * 4, spread[f32](hadd[f32](acc)), 1)


@inline
def take_less(t, t_step, less, rows, count):
    """Scores of each row less a number."""
    for m in range(rows):
        number = splat[f32](less + m * 4)
        for j in range(0, count, VL):
            at = t + m * t_step + j * 4
            storem[f32](at, loadm[f32](at, count - j) - number, count - j)


@inline
def add_bytes(w, w_step, v, v_row, o, o_step, rows, count, wide, tall, ahead):
    """To `rows` sums at o, values of bytes by weight: w (scale (n - zero)) = (w scale) n - (w scale) zero."""
    acc, value, base = registers()
    for m in range(0, rows, tall):
        for j in range(0, wide, ahead * VL):
            for i in static_range(tall):
                base[i] = const[f32](0.0)
                for a in static_range(ahead):
                    acc[i, a] = load[f32](o + (m + i) * o_step + (j + a * VL) * 4)
            for s in range(count):
                head = v + s * v_row
                factor = splat[f32](head)
                zero = splat[f32](head + 4)
                for a in static_range(ahead):
                    value[a] = cast[f32](loadm[u8](head + 8 + j + a * VL, wide - j - a * VL))
                for i in static_range(tall):
                    weight = splat[f32](w + (m + i) * w_step + s * 4) * factor
                    base[i] = fma(weight, zero, base[i])
                    for a in static_range(ahead):
                        acc[i, a] = fma(weight, value[a], acc[i, a])
            for i in static_range(tall):
                for a in static_range(ahead):
                    store[f32](o + (m + i) * o_step + (j + a * VL) * 4, acc[i, a] - base[i])


@inline
def add_values(w, w_step, v, v_row, o, o_step, rows, count, wide, kind, tall, ahead):
    """To `rows` sums at o, values by weight, `tall` rows and `ahead` vectors at a time."""
    acc, value = registers()
    for m in range(0, rows, tall):
        for j in range(0, wide, ahead * VL):
            for i in static_range(tall):
                for a in static_range(ahead):
                    acc[i, a] = load[f32](o + (m + i) * o_step + (j + a * VL) * 4)
            for s in range(count):
                for a in static_range(ahead):
                    at = v + s * v_row + (j + a * VL) * SIZE[kind]
                    value[a] = loadm[kind](at, wide - j - a * VL)
                for i in static_range(tall):
                    weight = splat[f32](w + (m + i) * w_step + s * 4)
                    for a in static_range(ahead):
                        acc[i, a] = fma(weight, value[a], acc[i, a])
            for i in static_range(tall):
                for a in static_range(ahead):
                    store[f32](o + (m + i) * o_step + (j + a * VL) * 4, acc[i, a])


@inline
def incline(t, ramp, slope, distance, count):
    """slope (kpos - qpos) added to scores of adjacent keys, of which the first is `distance` away."""
    behind = cast[f32](spread[i32](distance))
    for j in range(0, count, VL):
        away = loadm[f32](ramp + j * 4, count - j) + behind
        storem[f32](t + j * 4, fma(slope, away, loadm[f32](t + j * 4, count - j)), count - j)


@inline
def hide(
    line, base, columns, place, past, new, seen, sequence, begin, pairs, pairs_at, kinds, kept, side, head,
    paired, typed, sparse,
):  # fmt: skip
    """-inf for the keys from the position `base` on that a query at `place` does not see: those behind it,
    but for tokens of one picture (`kinds` not 0); those before its window; those that `pairs` hides, and
    blocks that XAttention does not keep."""
    if sparse:
        each = ld[i64](kept)
        if each > 0:
            for b in range(base // each, (base + columns - 1) // each + 1):
                if ld[u8](kept + 64 + (head * side + place // each) * side + b) == 0:
                    fill(line, b * each - base, min((b + 1) * each - base, columns), -inf)
    last = place
    start = place
    if typed:
        if ld[i32](kinds + (begin + place - past) * 4) != 0:
            last += 1
            while last < past + new and ld[i32](kinds + (begin + min(last, past + new - 1) - past) * 4) != 0:
                last += 1
            last -= 1
            while start > past and ld[i32](kinds + (begin + max(start - 1, past) - past) * 4) != 0:
                start -= 1
    if seen > 0:
        fill(line, 0, min(min(place + 1 - seen, start) - base, columns), -inf)
    fill(line, last + 1 - base, columns, -inf)
    if paired:
        at = ld[i32](pairs_at + sequence * 4) + 0
        if ld[i32](pairs_at + sequence * 4 + 4) > at:
            for j in range(max(past - base, 0), min(columns, last + 1 - base)):
                if ld[u8](pairs + at + (place - past) * new + base + j - past) == 0:
                    storem[f32](line + j * 4, const[f32](-inf), 1)


@kernel
def paged_rows(
    q: Ptr, y: Ptr, keys: Ptr, values: Ptr, table: Ptr, entries: Ptr, scale: Ptr, window: Ptr, slopes: Ptr,
    sinks: Ptr, ramp: Ptr, partial: Ptr, sums: Ptr, pairs: Ptr, pairs_at: Ptr, kinds: Ptr, kept: Ptr, side,
    number_at, items_at, heads, group, size, wide, block, part, q_row,
    y_row, k_block, k_head, k_row, v_block, v_head, v_row, v_group, q_step, s_step, o_step, u_step, s_at,
    o_at, m_at, l_at, u_at, c_at, less_at, slot_size, *, T, out, kind, vkind, sloped, sinking, paired, typed,
    summed, sparse, tall, grouped,
):  # fmt: skip
    """Queries of an item with its blocks: y, or the sums so far, `slot_size` bytes a slot and head."""
    item = chunk // heads
    head = chunk % heads
    if item >= ld[i64](table + number_at * 8):
        return 0
    at = table + (items_at + item * 6) * 8
    row = table + (8 + ld[i64](at) * 8) * 8
    first = ld[i64](at + 8)
    rows = ld[i64](at + 16)
    start = ld[i64](at + 24)
    stop = start + ld[i64](at + 32)
    slot = ld[i64](at + 40)
    past = ld[i64](row)
    token = ld[i64](row + 16) + first
    entry = ld[i64](row + 24)
    seen = ld[i32](window) + 0
    count = rows * group
    new = ld[i64](row + 8)
    behind = past + first + rows  # of the last key that a row of the item sees
    if typed:
        behind = past + new
    factor = splat[f32](scale)
    scaled_rows(
        q + token * q_row + head * group * size * SIZE[T], scratch, q_step, tall, rows, group, size, q_row,
        factor, T,
    )  # fmt: skip
    for m in range((count + tall - 1) // tall * tall):
        o = scratch + o_at + m * o_step
        for j in range(0, o_step, VL * 4):
            store[f32](o + j, const[f32](0.0))
        storem[f32](scratch + m_at + m * 4, const[f32](-inf), 1)
        storem[f32](scratch + l_at + m * 4, const[f32](0.0), 1)
        if sinking:
            if m < count and slot <= ld[i64](row + 32):
                sink = splat[f32](sinks + (head * group + m % group) * 4)
                storem[f32](scratch + m_at + m * 4, sink, 1)
                storem[f32](scratch + l_at + m * 4, const[f32](1.0), 1)
    for b in range(start, stop, part):
        many = min(part, stop - b)
        columns = min(many * block, behind - b * block)
        t = scratch + s_at
        for i in range(many):
            index = ld[i32](entries + (entry + b + i) * 4) + 0
            live = min(block, columns - i * block)
            if index < 0:
                for m in range(count):
                    fill(t + m * s_step, i * block, i * block + live, -inf)
            else:
                k = keys + index * k_block + head * k_head
                to = t + i * block * 4
                if kind == "u8":
                    by_channels(scratch, q_step, k, scratch + c_at, scratch + less_at, count, size)
                    dots(
                        scratch + c_at, q_step, k + size * 8, k_row, to, s_step, count, live, size, kind,
                        tall, 4 // tall,
                    )  # fmt: skip
                    take_less(to, s_step, scratch + less_at, count, live)
                elif kind == "u4":
                    room = scratch + u_at
                    unpack_block(k, k_row, room, u_step, 0, live, size, 0, kind, True)
                    dots(
                        scratch, q_step, room, u_step, to, s_step, count, live, size, "f32", tall, 4 // tall
                    )
                else:
                    dots(scratch, q_step, k, k_row, to, s_step, count, live, size, kind, tall, 4 // tall)
        for m in range(count):
            place = past + first + m // group
            line = t + m * s_step
            if sloped:
                incline(
                    line,
                    ramp,
                    splat[f32](slopes + (head * group + m % group) * 4),
                    b * block - place,
                    columns,
                )
            hide(
                line, b * block, columns, place, past, new, seen, ld[i64](at), ld[i64](row + 16), pairs,
                pairs_at, kinds, kept, side, head * group + m % group, paired, typed, sparse,
            )  # fmt: skip
            shrink = soften(line, scratch + m_at + m * 4, scratch + l_at + m * 4, columns, "f32")
            if b > start:
                o = scratch + o_at + m * o_step
                for j in range(0, wide, VL):
                    store[f32](o + j * 4, load[f32](o + j * 4) * shrink)
        for i in range(many):
            index = ld[i32](entries + (entry + b + i) * 4) + 0
            live = min(block, columns - i * block)
            if index >= 0:
                v = values + index * v_block + head * v_head
                w = t + i * block * 4
                sums_of = scratch + o_at
                if vkind == "u8" and not grouped:
                    add_bytes(w, s_step, v, v_row, sums_of, o_step, count, live, wide, tall, 4 // tall)
                elif vkind in TOP:
                    room = scratch + u_at
                    unpack_block(v, v_row, room, u_step, 0, live, wide, v_group, vkind, False)
                    add_values(
                        w, s_step, room, u_step, sums_of, o_step, count, live, wide, "f32", tall, 4 // tall
                    )
                else:
                    add_values(
                        w, s_step, v, v_row, sums_of, o_step, count, live, wide, vkind, tall, 4 // tall
                    )
    for m in range(count):
        o = scratch + o_at + m * o_step
        if slot < 0:
            total = splat[f32](scratch + l_at + m * 4)
            scaled = select(total > const[f32](0.0), const[f32](1.0) / total, const[f32](0.0))
            p = y + (token + m // group) * y_row + (head * group + m % group) * wide * SIZE[out]
            for j in range(0, wide, VL):
                storem[out](p + j * SIZE[out], load[f32](o + j * 4) * scaled, wide - j)
            if summed:
                p = sums + (((token + m // group) * heads + head) * group + m % group) * 8
                storem[f32](p, splat[f32](scratch + m_at + m * 4), 1)
                storem[f32](p + 4, scaled, 1)
        else:
            p = partial + (slot * heads + head) * slot_size + m * (o_step + 8)
            for j in range(0, wide, VL):
                storem[f32](p + j * 4, load[f32](o + j * 4), wide - j)
            storem[f32](p + o_step, splat[f32](scratch + m_at + m * 4), 1)
            storem[f32](p + o_step + 4, splat[f32](scratch + l_at + m * 4), 1)


@kernel
def paged_merge(
    y: Ptr, table: Ptr, partial: Ptr, sums: Ptr, heads, group, wide, y_row, o_step, slot_size, *, out, summed
):  # fmt: skip
    """y of sequences whose blocks were cut into parts: o = sum of o_i exp(m_i - m), l the same."""
    row = table + (8 + chunk // heads * 8) * 8
    head = chunk % heads
    parts = ld[i64](row + 40)
    slot = ld[i64](row + 32)
    token = ld[i64](row + 16)
    if parts > 1:
        for m in range(ld[i64](row + 8) * group):
            p = partial + (slot * heads + head) * slot_size + m * (o_step + 8)
            step = heads * slot_size
            top = const[f32](-inf)
            for i in range(parts):
                top = maximum(top, splat[f32](p + i * step + o_step))
            top = select(top == const[f32](-inf), const[f32](0.0), top)
            total = const[f32](0.0)
            for i in range(parts):
                less = splat[f32](p + i * step + o_step) - top
                weight = applied(EXP, less)
                total = fma(weight, splat[f32](p + i * step + o_step + 4), total)
            scaled = select(total > const[f32](0.0), const[f32](1.0) / total, const[f32](0.0))
            if summed:
                to = sums + (((token + m // group) * heads + head) * group + m % group) * 8
                storem[f32](to, top, 1)
                storem[f32](to + 4, scaled, 1)
            to = y + (token + m // group) * y_row + (head * group + m % group) * wide * SIZE[out]
            for j in range(0, wide, VL):
                acc = const[f32](0.0)
                for i in range(parts):
                    less = splat[f32](p + i * step + o_step) - top
                    weight = applied(EXP, less)
                    acc = fma(weight, loadm[f32](p + i * step + j * 4, wide - j), acc)
                storem[out](to + j * SIZE[out], acc * scaled, wide - j)


@kernel
def paged_scores(
    q: Ptr, keys: Ptr, table: Ptr, entries: Ptr, scale: Ptr, window: Ptr, slopes: Ptr, ramp: Ptr, sums: Ptr,
    pairs: Ptr, pairs_at: Ptr, kinds: Ptr, kept: Ptr, recent: Ptr, y: Ptr, count: Ptr, side, sequences,
    listed, heads, group, size, block, q_row, k_block, k_head, k_row, recent_step, q_step, u_step, u_at, s_at,
    *, T, kind, sloped, paired, typed, sparse,
):  # fmt: skip
    """The weights that the keys of a block have got of the last queries of its sequence, of all heads: of
    `recent` queries, of all where that is negative, of one where nothing is said."""
    if chunk == 0:
        st[i64](count, ld[i64](table + 32))
    if chunk >= listed:
        return 0
    s = 0
    for i in range(sequences):
        entry = ld[i64](table + (8 + i * 8) * 8 + 24)
        if entry <= chunk and chunk < entry + ld[i64](table + (8 + i * 8) * 8 + 56):
            s = i + 1
    if s == 0:
        return 0
    s -= 1
    row = table + (8 + s * 8) * 8
    past = ld[i64](row)
    new = ld[i64](row + 8)
    b = chunk - ld[i64](row + 24)
    live = min(block, past + new - b * block)
    to = y + (ld[i64](row + 48) + b * block) * 4
    fill(to, 0, live, 0.0)
    last = 1
    if recent_step >= 0:
        last = ld[i32](recent + s * recent_step) + 0
    if last < 0:
        last = new
    first = max(new - last, 0)
    index = ld[i32](entries + chunk * 4) + 0
    seen = ld[i32](window) + 0
    factor = splat[f32](scale)
    if index < 0:
        return 0
    for head in range(heads):
        k = keys + index * k_block + head * k_head
        if kind in TOP:
            unpack_block(k, k_row, scratch + u_at, u_step, 0, live, size, 0, kind, True)
        for r in range(first, new):
            token = ld[i64](row + 16) + r
            for g in range(group):
                line = scratch + s_at
                place = q + token * q_row + (head * group + g) * size * SIZE[T]
                scaled_rows(place, scratch, q_step, 1, 1, 1, size, q_row, factor, T)
                if kind in TOP:
                    dots(scratch, q_step, scratch + u_at, u_step, line, 0, 1, live, size, "f32", 1, 4)
                else:
                    dots(scratch, q_step, k, k_row, line, 0, 1, live, size, kind, 1, 4)
                if sloped:
                    slope = splat[f32](slopes + (head * group + g) * 4)
                    incline(line, ramp, slope, b * block - past - r, live)
                hide(
                    line, b * block, live, past + r, past, new, seen, s, ld[i64](row + 16), pairs, pairs_at,
                    kinds, kept, side, head * group + g, paired, typed, sparse,
                )  # fmt: skip
                p = sums + ((token * heads + head) * group + g) * 8
                for j in range(0, live, VL):
                    less = loadm[f32](line + j * 4, live - j) - splat[f32](p)
                    weight = applied(EXP, less)
                    total = fma(weight, splat[f32](p + 4), loadm[f32](to + j * 4, live - j))
                    storem[f32](to + j * 4, total, live - j)
