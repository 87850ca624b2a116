"""The kernel of attention of few rows: dot products with keys in place, then sums of values in place.

A tile has up to four rows that read the same keys and values: tokens of a head, or one token's heads that
share keys. Keys and values are read and converted once for a tile. Products of a vector's number of keys are
stored lane by lane; their lanes are summed together, since a sum for each key takes longer than its products.
The arithmetic of a row does not depend on the other rows of its tile.

Rows of bytes (`byte_rows`) are in groups of `k_size` and `v_size` numbers. Sums use the stored numbers: the
sum of q (scale number + zero) is scale (sum of q number) + zero (sum of q), and w (scale number + zero) is
(w scale) number, with w zero added once per group.
"""

from __future__ import annotations

import functools

import numpy as np

from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel_language import *
from ovjit.graph.byte_rows import HEAD
from ovjit.records import NamedTuple
from ovjit_ops.attention.cpu_attention_kernels import (
    EXP,
    MOST_FOLDED,
    PACKED,
    TANH,
    AttentionMode,
    finite,
    sum_lanes,
    weigh,
    without_weights,
)

#: Rows of a tile; tile's rows -> keys whose products are computed together, to hide the latency of sums.
HEIGHTS, AHEAD = (4, 3, 2, 1), {1: 4, 2: 4, 3: 2, 4: 2}


class RowNumbers(NamedTuple):
    """Addresses of numbers: the scale of scores, the results of rows without weights, the cap."""

    scale: Ptr
    unseen: Ptr
    cap: Ptr


class RowMemory(NamedTuple):
    """Offsets and row strides in scratch memory: queries as f32, sums of their groups in each lane, products
    of keys in each lane, scores."""

    q_at: int
    q_row: int
    sums_at: int
    sums_row: int
    products_at: int
    s_at: int
    s_row: int


@inline
def copy_queries(pq, height, size, *, q, memory, mode):
    """Store the queries of a tile as f32. For keys as bytes, also store the sums in each lane of groups of
    `size` elements."""
    for i in static_range(height):
        to = scratch + memory.q_at + i * memory.q_row
        for j in range(0, q.size.d, VL):
            store[f32](to + j * 4, loadm[mode.T](pq + i * q.stride.m + j * SIZE[mode.T], q.size.d - j))
        if mode.keys in PACKED:
            for g in range(0, q.size.d, size):
                total = const[f32](0.0)
                for j in range(0, size, VL):
                    total = total + loadm[f32](to + (g + j) * 4, size - j)
                store[f32](scratch + memory.sums_at + i * memory.sums_row + udiv(g, size) * (VL * 4), total)


@inline
def add_products(acc, queries, at, size, height, ahead, *, memory, mode):
    """Add the products in each lane of the queries and `size` elements of `ahead` keys."""
    key = registers()
    if mode.keys == "u4":
        half = udiv(size, 2)
        for j in range(0, half, VL):
            for a in static_range(ahead):
                both = cast[i32](loadm[u8](at[a] + j, half - j))
                key[a, 0] = cast[f32](both & const[i32](15))
                key[a, 1] = cast[f32](both >> const[i32](4))
            for i in static_range(height):
                for n in static_range(2):
                    query = loadm[f32](queries + i * memory.q_row + (j + n * half) * 4, half - j)
                    for a in static_range(ahead):
                        acc[i, a] = fma(query, key[a, n], acc[i, a])
    else:
        j = 0
        while j + VL <= size:
            for a in static_range(ahead):
                elements = load[mode.keys](at[a] + j * SIZE[mode.keys])
                key[a] = cast[f32](elements) if mode.keys == "u8" else elements
            for i in static_range(height):
                query = load[f32](queries + i * memory.q_row + j * 4)
                for a in static_range(ahead):
                    acc[i, a] = fma(query, key[a], acc[i, a])
            j += VL
        if j < size:
            for a in static_range(ahead):
                elements = loadm[mode.keys](at[a] + j * SIZE[mode.keys], size - j)
                key[a] = cast[f32](elements) if mode.keys == "u8" else elements
            for i in static_range(height):
                query = loadm[f32](queries + i * memory.q_row + j * 4, size - j)
                for a in static_range(ahead):
                    acc[i, a] = fma(query, key[a], acc[i, a])


@inline
def multiply_keys(acc, at, height, size, ahead, *, q, memory, mode):
    """The products in each lane of a tile's queries and `ahead` keys at at[0], at[1] ..."""
    part, begin = registers()
    queries = scratch + memory.q_at
    for i, a in np.ndindex(height, ahead):
        acc[i, a] = const[f32](0.0)
    if mode.keys in PACKED:
        head = 0
        for a in static_range(ahead):
            begin[a] = at[a] + udiv(q.size.d, size) * HEAD
        for g in range(0, q.size.d, size):
            for i, a in np.ndindex(height, ahead):
                part[i, a] = const[f32](0.0)
            add_products(part, queries + g * 4, begin, size, height, ahead)
            for i in static_range(height):
                total = load[f32](scratch + memory.sums_at + i * memory.sums_row + head * (VL * 4 // HEAD))
                for a in static_range(ahead):
                    acc[i, a] = fma(part[i, a], splat[f32](at[a] + head), acc[i, a])
                    acc[i, a] = fma(total, splat[f32](at[a] + head + 4), acc[i, a])
            head += HEAD
            for a in static_range(ahead):
                begin[a] += udiv(size, 2) if mode.keys == "u4" else size
    else:
        add_products(acc, queries, at, q.size.d, height, ahead)


@inline
def score_keys(pk, end, height, size, *, q, k, memory, mode, lanes):
    """Store the products of a tile's queries with `end` keys as scores, up to whole vectors."""
    acc, at, sums = registers()
    # bound by loads: products that are stored would be slower
    if height == 1 and (mode.keys not in PACKED or lanes > MOST_FOLDED):
        for s in range(end):
            at[0] = pk + s * k.stride.c
            multiply_keys(acc, at, 1, size, 1)
            storem[f32](scratch + memory.s_at + s * 4, spread[f32](hadd[f32](acc[0, 0])), 1)
    else:
        for s in range(0, end, VL):
            for n in range(0, min(VL, end - s), AHEAD[height]):
                for a in static_range(AHEAD[height]):
                    at[a] = pk + min(s + n + a, end - 1) * k.stride.c
                multiply_keys(acc, at, height, size, AHEAD[height])
                for i, a in np.ndindex(height, AHEAD[height]):
                    store[f32](scratch + memory.products_at + ((i * VL + n + a) * VL) * 4, acc[i, a])
            for i in range(height):
                for n in static_range(lanes):
                    sums[n] = load[f32](scratch + memory.products_at + ((i * VL + n) * VL) * 4)
                sum_lanes(sums)
                store[f32](scratch + memory.s_at + i * memory.s_row + s * 4, sums[0])


@inline
def change_score(product, factor, most, *, mode):
    """Returns the scaled and capped scores of products."""
    score = product * factor
    if mode.capped:
        bent = applied(TANH, score)
        score = bent * most
    return score


@inline
def mask_scores(t, pm, step, end, factor, most, *, mode):
    """Scale and cap the scores at t, and add the mask at pm, if `step` is not 0. Returns the maximum."""
    top = const[f32](-inf)
    j = 0
    while j + VL <= end:
        score = change_score(load[f32](t + j * 4), factor, most)
        if step > 0:
            score = score + load[f32](pm + j * 4)
        store[f32](t + j * 4, score)
        top = select(score > top, score, top)
        j += VL
    if j < end:
        score = change_score(load[f32](t + j * 4), factor, most)
        if step > 0:
            score = score + loadm[f32](pm + j * 4, end - j)
        storem[f32](t + j * 4, score, end - j)
        top = blend[f32](end - j, select(score > top, score, top), top)
    return spread[f32](hmax[f32](top))


@inline
def add_values(acc, base, pv, end, head, first, j, width, height, *, v, memory, mode, vectors, ragged):
    """Add the weighted values of `end` rows: `vectors` vectors from element j of a group on."""
    value = registers()
    step = SIZE[mode.values] if mode.values in SIZE else 1
    for s in range(end):
        row = pv + s * v.stride.c
        if mode.values in PACKED:
            scale = splat[f32](row + head)
            zero = splat[f32](row + head + 4)
        t = row + first + j * step
        for n in static_range(vectors[height - 1]):
            if mode.values == "u4":
                at = t + n * VL
                both = cast[i32](loadm[u8](at, width - j - n * VL) if ragged else load[u8](at))
                value[n] = cast[f32](both & const[i32](15))
                value[vectors[height - 1] + n] = cast[f32](both >> const[i32](4))
            else:
                at = t + n * VL * step
                elements = loadm[mode.values](at, width - j - n * VL) if ragged else load[mode.values](at)
                value[n] = cast[f32](elements) if mode.values == "u8" else elements
        for i in static_range(height):
            weight = splat[f32](scratch + memory.s_at + i * memory.s_row + s * 4)
            if mode.values in PACKED:
                base[i] = fma(weight, zero, base[i])
                weight = weight * scale
            for n in static_range(vectors[height - 1] * (2 if mode.values == "u4" else 1)):
                acc[i, n] = fma(weight, value[n], acc[i, n])


@inline
def sum_values(py, pv, end, height, size, total, unseen, *, y, v, memory, mode, vectors, ragged):
    """y = the weighted sums of values / the sums of weights, total[i]; if that is 0 or NaN, the numbers at
    `unseen`. With 4 bits, the low nibbles have the first half of a group."""
    acc, base = registers()
    width = udiv(size, 2) if mode.values == "u4" else size
    head = 0
    first = udiv(y.size.w, size) * HEAD if mode.values in PACKED else 0
    for g in range(0, y.size.w, size):
        for j in range(0, width, vectors[height - 1] * VL):
            for i in static_range(height):
                base[i] = const[f32](0.0)
                for n in static_range(vectors[height - 1] * (2 if mode.values == "u4" else 1)):
                    acc[i, n] = const[f32](0.0)
            add_values(acc, base, pv, end, head, first, j, width, height)
            for i in static_range(height):
                otherwise = without_weights(total[i], unseen)
                has_weights = total[i] > const[f32](0.0)
                scaled = const[f32](1.0) / total[i]
                for r in static_range(2 if mode.values == "u4" else 1):
                    for n in static_range(vectors[height - 1]):
                        weighted = acc[i, r * vectors[height - 1] + n]
                        if mode.values in PACKED:
                            weighted = weighted + base[i]
                        result = select(has_weights, weighted * scaled, otherwise)
                        at = j + n * VL
                        storem[mode.out](
                            py + i * y.stride.m + (g + r * width + at) * SIZE[mode.out], result, width - at
                        )
        head += HEAD
        first += width


@inline
def attend(
    pq, pk, pv, py, pm, ps, end, height, k_size, v_size, *, q, k, v, y, mask, sink, numbers, memory, mode,
    vectors, ragged, lanes,
):  # fmt: skip
    """Attention of the rows of a tile to `end` keys."""
    total = registers()
    factor = splat[f32](numbers.scale)
    most = factor
    if mode.capped:
        most = splat[f32](numbers.cap)
    copy_queries(pq, height, k_size)
    score_keys(pk, end, height, k_size)
    for i in static_range(height):
        t = scratch + memory.s_at + i * memory.s_row
        top = mask_scores(t, pm + i * mask.stride.m, mask.stride.c, end, factor, most)
        if mode.sinks:
            old = splat[f32](ps + i * sink.stride.m)
            top = maximum(top, old)
        top = finite(top)
        weights = weigh(t, top, end, "f32")
        total[i] = spread[f32](hadd[f32](weights))
        if mode.sinks:
            score = old - top
            weight = applied(EXP, score)
            total[i] = total[i] + weight
    sum_values(py, pv, end, height, v_size, total, numbers.unseen)


@kernel(
    over="... m/block", q="... m d", k="... c key", v="... c value", y="... m w", mask="... m c",
    sink="... m one", numbers=RowNumbers, memory=RowMemory,
)  # fmt: skip
def attention_few(
    q: Tensor, k: Tensor, v: Tensor, y: Tensor, mask: Tensor, sink: Tensor, numbers, memory, block, k_size,
    v_size, *, mode, heights, vectors, ragged, lanes,
):  # fmt: skip
    """Attention of rows that share keys and values, `block` in a tile. `T`, `keys`, `values`, `out`: element
    types of q, k, v and y. `causal`: row m attends to the first m + 1 keys, and tiles have one row. `sinks`:
    each row has one more score, without a value. `capped`: scores are cap tanh(...). `heights`: of tiles.
    `vectors`: those of values that are summed at a time, by the height of a tile; `ragged`: they do not
    divide groups."""
    for first, pq, pk, pv, py, pm, ps in items(q, k, v, y, mask, sink if mode.sinks else mask):
        count = min(block, y.size.m - first)
        end = mask.size.c
        if mode.causal:
            end = min(mask.size.c, first + 1)
            attend(pq, pk, pv, py, pm, ps, end, 1, k_size, v_size)
        else:
            for height in heights:
                if height == 1 or count == height:
                    attend(pq, pk, pv, py, pm, ps, end, height, k_size, v_size)
                    break


def heights_of(target: Target) -> tuple[int, ...]:
    """The heights of tiles. A card takes rows one by one, so that more of them run at a time."""
    return (1,) if target.is_gpu else HEIGHTS


def vectors_of_values(target: Target, width: int, bits: int) -> tuple[int, ...]:
    """The constant `vectors` of the kernel for groups of `width` stored values, 0 if their number is unknown.
    Sums of a tile take at most half of the registers."""
    sums, per_byte = 16 if target.lanes == 16 else 8, 2 if bits == 4 else 1
    available = max(1, width // target.lanes) if width else 4
    chosen = []
    for height in range(1, heights_of(target)[0] + 1):
        limit = max(1, min(sums // (height * per_byte), 4 // per_byte, available))
        divisor = max(n for n in range(1, limit + 1) if not available % n)
        chosen.append(divisor if 2 * divisor > limit else limit)
    return tuple(chosen)


@functools.cache
def few_kernel(target: Target, width: int, mode: AttentionMode) -> Kernel:
    """The kernel of `attention_few`. `width`: elements of a group of values that are stored side by side, 0
    if their number is unknown."""
    vectors = vectors_of_values(target, width, 4 if mode.values == "u4" else 8)
    ragged = not width or any(width % (n * target.lanes) for n in vectors)
    name = name_of("attention_few", {"": mode, "vectors": vectors[0], "ragged": ragged})
    return attention_few.kernel(
        name, mode=mode, heights=heights_of(target), vectors=vectors, ragged=ragged, lanes=target.lanes
    )
