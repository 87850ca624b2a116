"""Products of dynamically quantized activations with integer weights.

    x[m, k] ~ q[m, k] * p[m, g]          q of 8 bits with a sign, p = max |x[m, k]| / 127,  g = k // size
    y[m, n] = sum over g of p[m, g] * scale[G, n] * sum of k in g of q[m, k] * (integers[k, n] - zero[G, n])

The inner sums are exact integers, by `vpdpbusd`: four bytes of depth per instruction, unsigned weights times
signed activations. NEON's `sdot` multiplies signed bytes, so there weights of 8 bits are signed. A weight
group G has one or more groups g, so a zero's correction is added once per group. Without such instructions,
`vpmaddubsw` adds products of bytes in pairs in 16 bits. Of bytes with few bits, several words are summed so,
before the sums are widened.

    integers [panel][k / 4][width][4] of 8 bits, or [panel][k / 8][width][4] of two times 4: k in the low
             half, k + 4 in the high one
    scales   [panel][group][width] of f16 if that is exact, else of f32
    zeros    [panel][group][width] of u8, if they are not all equal

Codes of 4 bits for levels that are bytes are looked up in a vector's register, at z.

Blocks of a file have integers of 2 to 6 bits, scales with two factors, and minima, as in
`ovjit.tiles.compressed` (4 bits as above). A minimum is added after scaling: it is multiplied with p and the
sum of q. If a scale is an integer times a factor, and no instruction sums four products, `ovjit.tiles.nested`
multiplies them. For more than `FEW_ROWS` rows, panels are multiplied in parts of the depth that fit the
first-level cache. Sums of a part are stored, and the next part begins with them. Parts of panels of 2, 3, 5
and 6 bits are unpacked to bytes, and scales with two factors to f32:

    bytes    [k / 4][width][4]
    factors  [group]([width] scales, perhaps [width] minima)

If a group of weights has several groups g, their sums times p are added before they are multiplied by the
scale. Instructions that sum four products need 8 multiplications for 32 elements of depth, one for p, and one
for the scale of each group of weights.

After each p is the sum of q in f32; times p if there are minima, or zeros of several groups; if all groups
have one zero, minus the zero times the sum, as an i32 with which the integer sums begin.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import SUPER, WORD, Stored, quantizes_rows, summed_words
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.targets import CACHE_LINE, Target
from ovjit.codegen.kernel_language import *
from ovjit.graph.converted import Factored, Unmade
from ovjit.planning.plan import Filling, ceil_div
from ovjit.records import NamedTuple
from ovjit.tiles import weave
from ovjit.tiles.compressed import Unpack, begin_super, fetch, group_low, group_scale, next_group
from ovjit.tiles.dynamic_parts import (
    add_in_pairs,
    begin_tile,
    end_tile,
    fetch_ahead,
    fetch_factors,
    finish_sums,
    load_four,
    peak_of,
    quantize_group,
    quantize_part,
    scale_of,
    steps_of,
    unpack_integers,
)
from ovjit.tiles.mixed import Factor, mixed_steps, nested_scales, one_factor
from ovjit.tiles.nested import factor_words, group_words, multiply_super, unpack_nested
from ovjit.tiles.pack import Woven, fill_later, find_sign_mask, spread_out, tile_width
from ovjit.tiles.rows import ROW_OPERANDS, finish_row

#: Rows of a tile. 6 rows of two vectors of integer sums, and as many of real sums, fill the registers. One
#: row is bound by latency, so 4 rows take little longer. If fewer rows than a tile's remain, the last is
#: repeated.
HEIGHTS = (6, 4, 1)
#: The same if words are assembled from several parts in registers, or products are summed in 16 bits first;
#: and the maximum number of rows for which words are assembled in registers.
IN_REGISTERS, FEW_ROWS = (4, 1), 8
#: The same for unpacked bytes and sums in 16 bits with 16 registers, which those of a higher tile exceed.
OF_BYTES = (2, 1)
#: Bytes of a part of a panel, which stays in the first-level cache while all rows are multiplied with it.
PART_BYTES = 16 * 1024
#: Numbers of remaining rows for which two tiles of 4 are faster than 6 and the remainder.
TWICE = (7, 8)
#: Maximum number of vectors of a group for which the code that quantizes one is repeated.
IN_A_GROUP = 8
#: Panels that one row is multiplied with at a time: two streams of memory. Four are slower for groups of 32.
ABREAST = 2


@kernel(over="m", x="m k:1", q="m i:1", p="m g two:1")
def _quantize(x: Tensor, q: Tensor, p: Tensor, size, *, zero, scaled, T):
    """Quantize each row in groups of `size` elements, padded with zeros; store each group's scale and sum."""
    for _, source, target, pair in items(x, q, p):
        for g in range(p.size.g):
            first = g * size
            scale = scale_of(source, first, size, x.size.k, T)
            total = quantize_part(source, target, first, size, x.size.k, scale, T)
            st[f32](p.at(pair, g=g), lane[f32](scale, 0))
            st[f32](p.at(pair + 4, g=g), hadd[f32](total))
        finish_sums(p.at(pair), p.stride.g, p.size.g)


@kernel(over="m", x="m k:1", q="m i:1", p="m g two:1")
def _quantize_whole(x: Tensor, q: Tensor, p: Tensor, size, *, vectors, zero, scaled, T):
    """`_quantize` for groups of `vectors` vectors that divide rows. Scales of a vector of groups are computed
    at once: a division's latency is as long as the rest of a group."""
    for _, source, target, pair in items(x, q, p):
        for g in range(p.size.g):
            peak = peak_of(source + g * size * SIZE[T])
            st[i32](p.at(pair, g=g), hmax[i32](peak))
        for g in range(0, p.size.g, VL):
            remaining = p.size.g - g
            scale = gather[f32](p.at(pair, g=g), p.stride.g, remaining) / const[f32](127.0)
            scatter[f32](p.at(pair, g=g), p.stride.g, scale, remaining)
            scatter[f32](p.at(pair + 4, g=g), p.stride.g, steps_of(scale), remaining)
        for g in range(p.size.g):
            steps = splat[f32](p.at(pair + 4, g=g))
            total = quantize_group(source + g * size * SIZE[T], target + g * size, steps)
            st[f32](p.at(pair + 4, g=g), hadd[f32](total))
        finish_sums(p.at(pair), p.stride.g, p.size.g)


def quantize_kernel(dtype: str, stored: Stored, vectors: int = 0) -> Kernel:
    """The kernel that quantizes rows of `dtype`, with a scale and sum per group. `vectors`: those of a group,
    if groups divide rows."""
    scaled, zero = stored.scales_sums, stored.common_zero
    name = f"quantize_groups_{dtype}{'_scaled' if scaled else f'_less_{zero}' if zero else ''}"
    if not vectors:
        return _quantize.kernel(name, zero=zero, scaled=scaled, T=dtype)
    return _quantize_whole.kernel(f"{name}_of_{vectors}", vectors=vectors, zero=zero, scaled=scaled, T=dtype)


def vectors_of_group(depth: int, size: int, isa: Target) -> int:
    """Vectors of a group of `size` elements, for a kernel that repeats its code for each; 0: none."""
    vectors, remainder = divmod(size, isa.lanes)
    return vectors if not remainder and not depth % size and vectors <= IN_A_GROUP else 0


@inline
def load_factors(at, scale, zero, outer, e, panels, *, vectors, lanes, stored, blocks):
    """Load the scales, and the negated zeros or minima, of the group of element `e` of depth."""
    if blocks and blocks.has_nested_scales:
        begin_super(outer, at, e, unpack=blocks)
    for n, v in np.ndindex(panels, vectors):
        if blocks:
            scale[n, v] = group_scale(at, n, v, outer, unpack=blocks)
            if stored.levels not in (0.0, 1.0):
                scale[n, v] = scale[n, v] * const[f32](stored.levels)
        else:
            scale[n, v] = load[stored.scale](at["s", n] + v * lanes * SIZE[stored.scale])
        if stored.low and blocks:
            zero[n, v] = group_low(at, n, v, outer, unpack=blocks)
        elif stored.low:
            zero[n, v] = load[stored.low](at["s", n] + (vectors + v) * lanes * SIZE[stored.low])
        elif stored.zero is None:
            zero[n, v] = -cast[f32](load[u8](at["z", n] + v * lanes))
            if stored.less:
                zero[n, v] = zero[n, v] + const[f32](float(stored.less))
    if blocks:
        next_group(at, panels, vectors * lanes, blocks)
    else:
        for n in static_range(panels):
            at["s", n] += vectors * lanes * SIZE[stored.scale] * (2 if stored.low else 1)
            if stored.zero is None:
                at["z", n] += vectors * lanes


@inline
def multiply_words(total, short, w, at, word, *, height, panels, vectors, stored):
    """Add the products of `stored.together` words, from word `word` of a step on."""
    for i, r in np.ndindex(stored.together, height):
        data = splat[i32](at["x", r] + (word + i) % 4 * 4)
        for n, v in np.ndindex(panels, vectors):
            if stored.signed:
                total[r, n, v] = dot_signed(total[r, n, v], w[i, n, v], data)
            elif stored.sums:
                add_in_pairs(short, w, data, i, word + i, r, n, v)
                if (word + i + 1) % stored.sums == 0:
                    total[r, n, v] = sum_pairs(total[r, n, v], short[r, n, v])
            else:
                total[r, n, v] = dot_bytes(total[r, n, v], w[i, n, v], data)


@inline
def multiply_four(total, short, w, at, first, *, height, panels, vectors, lanes, stored, blocks):
    """Add the products of the four words from word `first` of a group on: 16 elements of depth. Of 4 bits,
    each vector has two words."""
    if height == 1:
        for n in static_range(panels):
            fetch(at["q", n], stored.bits * 2 * vectors * lanes, panels)
    for word in static_range(0, 4, stored.together):
        for n in static_range(panels):
            load_four(w, 0, at, n, word)
        multiply_words(total, short, w, at, first + word)
    for n in static_range(panels):
        at["q", n] += stored.bits * 2 * vectors * lanes
    for r in static_range(height):
        at["x", r] += 16


@inline
def sum_group(at, total, *, panel, sizes, height, panels, vectors, lanes, stored, blocks):
    """Compute total[r, n, v], the i32 products of `height` rows with panel n, vector v, over one group of the
    depth."""
    short, w = registers()
    fetch_ahead()
    for r in static_range(height):
        start = splat[i32](at["p", r] + 4) if stored.common_zero else const[i32](0)
        for n, v in np.ndindex(panels, vectors):
            total[r, n, v] = start
    if stored.words:
        for four in static_range(0, stored.words, 4):
            multiply_four(total, short, w, at, four)
    else:
        for _ in range(0, sizes.words, max(4, stored.sums)):
            for four in static_range(0, max(4, stored.sums), 4):
                multiply_four(total, short, w, at, four)


@inline
def add_group(at, results, total, scale, zero, *, height, panels, vectors, stored):
    """Add the sums of a group to results[r, n, v], times the scales of the row and of the column. `zero`:
    terms of the zero points by column, or unused."""
    for r in static_range(height):
        by = splat[f32](at["p", r])
        if stored.zero is None:
            some = splat[f32](at["p", r] + 4)
        for n, v in np.ndindex(panels, vectors):
            product = cast[f32](total[r, n, v])
            if stored.zero is None:
                product = fma(some, zero[n, v], product)
            results[r, n, v] = fma(product, by * scale[n, v], results[r, n, v])
        at["p", r] += 8


@inline
def add_shared_groups(
    at,
    results,
    total,
    scale,
    zero,
    outer,
    count,
    *,
    panel,
    sizes,
    height,
    panels,
    vectors,
    lanes,
    stored,
    blocks,
):
    """Add the sums of `count` groups of rows that share a group of weights: scaled by the rows' factors, then
    together by the weights' scales."""
    partial, correction = registers()
    for r in static_range(height):
        correction[r] = const[f32](0.0)
        for n, v in np.ndindex(panels, vectors):
            partial[r, n, v] = const[f32](0.0)
    for _ in range(count):
        sum_group(at, total)
        for r in static_range(height):
            by = splat[f32](at["p", r])
            if stored.zero is None:
                correction[r] = correction[r] + splat[f32](at["p", r] + 4)
            for n, v in np.ndindex(panels, vectors):
                partial[r, n, v] = fma(cast[f32](total[r, n, v]), by, partial[r, n, v])
            at["p", r] += 8
    load_factors(at, scale, zero, outer, 0, panels)
    for r, n, v in np.ndindex(height, panels, vectors):
        if stored.zero is None:
            partial[r, n, v] = fma(correction[r], zero[n, v], partial[r, n, v])
        results[r, n, v] = fma(partial[r, n, v], scale[n, v], results[r, n, v])


@inline
def add_minima(at, results, low, *, height, panels, vectors):
    """Add the minima of a group of rows."""
    for r in static_range(height):
        some = splat[f32](at["p", r] + 4)
        for n, v in np.ndindex(panels, vectors):
            results[r, n, v] = fma(some, low[n, v], results[r, n, v])


@inline
def multiply_tile(row, last, x, p, *, panel, strides, sizes, height, panels, vectors, lanes, stored, blocks):
    """Multiply rows `row` to row + height - 1 (at most `last`) by a part of `panels` panels, and add the
    products to the sums in scratch."""
    at, results, total, scale, zero, low, outer = registers()
    begin_tile(at, results, row, last, x, p)
    for g in range(0, panel["groups"], sizes.ratio):
        if height == 1:
            fetch_factors(at, vectors * lanes)
        if stored.shared:
            count = min(sizes.ratio, panel["groups"] - g)
            add_shared_groups(at, results, total, scale, zero, outer, count)
        elif stored.words and not blocks:
            # minima before the sums and scales after them: registers do not hold all at once
            if stored.low:
                for n, v in np.ndindex(panels, vectors):
                    low[n, v] = load[stored.low](at["s", n] + (vectors + v) * lanes * SIZE[stored.low])
                add_minima(at, results, low)
            sum_group(at, total)
            load_factors(at, scale, zero, outer, 0, panels)
            add_group(at, results, total, scale, zero)
        else:
            load_factors(at, scale, zero, outer, g * sizes.words * 4, panels)
            for _ in range(g, min(g + sizes.ratio, panel["groups"])):
                if stored.low:
                    add_minima(at, results, zero)
                sum_group(at, total)
                add_group(at, results, total, scale, zero)
    end_tile(results, row)


@inline
def multiply_any(row, last, x, p, panel, height, panels, *, strides, sizes, vectors, lanes, stored, blocks):
    if stored.inner:
        multiply_super(row, last, x, p)
    else:
        multiply_tile(row, last, x, p)


@inline
def multiply_rows(row, stop, x, p, panel, heights, stored, blocks, *, strides, sizes, vectors, lanes):
    """Multiply one panel by a tile of rows from `row` on, whose height suits the remaining rows. Returns the
    row after the tile."""
    remaining = stop - row
    done = row
    for height in heights:
        if (
            height == 1
            or (height in (2, 4) and remaining > 1)
            or (height == 6 and remaining > 4 and remaining != TWICE[0] and remaining != TWICE[1])
        ):
            multiply_any(row, stop - 1, x, p, panel, height, 1)
            done = min(row + height, stop)
            break
    return done


@inline
def begin_part(panel, g, c, w, s, z, b, *, strides, sizes, vectors, lanes, stored, blocks):
    """Set the addresses of panel `c` from group `g` of rows on, and those where sums begin: the bias, or what
    the parts before it have given."""
    width = vectors * lanes
    group = udiv(g, sizes.ratio)
    panel["w"] = w + c * strides.w_panel + g * sizes.words * (stored.bits * width // 2)
    panel["s"] = s + c * strides.s_panel
    if blocks and blocks.has_nested_scales:
        panel["s"] += udiv(g * strides.s_panel, sizes.groups)
    else:
        panel["s"] += group * (width * SIZE[stored.scale])
    if blocks and blocks.each_zero:
        panel["z"] = z + c * strides.z_panel + group * (width * blocks.zero_bytes)
    elif stored.zero is None:
        panel["z"] = z + c * strides.z_panel + group * width
    elif stored.levels:
        panel["z"] = z
    panel["sums"] = scratch
    panel["sums_w"] = width * 4
    # packed bytes of the next part, or of the next panel's first one; prefetches of addresses without memory
    # take long
    size = panel["groups"] * sizes.words * (stored.bits * width // 2)
    panel["ahead"] = panel["w"]
    if c + 1 < sizes.panels or g + panel["groups"] < sizes.groups:
        panel["ahead"] += size
    panel["end"] = panel["ahead"] + size
    if g == 0:
        panel["sums"] = b + c * strides.b_step
        panel["sums_w"] = 0


@inline
def unpack_part(panel, *, sizes, vectors, lanes, stored, blocks):
    """Unpack the part of a panel to scratch: bytes, and scales and minima as f32. Sets the addresses in
    `panel`."""
    at = registers()
    at["q", 0] = panel["w"]
    at["s", 0] = panel["s"]
    if stored.zero is None or (blocks and blocks.each_zero):
        at["z", 0] = panel["z"]
    if stored.levels:
        at["levels"] = load[i32](panel["z"])
    at["to"] = scratch + (sizes.rows_per + HEIGHTS[0]) * (vectors * lanes * 4)
    at["factors"] = at["to"] + sizes.part * sizes.words * 4 * vectors * lanes
    if not stored.keeps_integers:
        panel["w"] = at["to"]
    panel["s"] = at["factors"]
    if stored.inner:
        unpack_nested(at)
    else:
        unpack_groups(at)


@inline
def unpack_groups(at, *, panel, sizes, vectors, lanes, stored, blocks):
    """Unpack a part's scales and minima as f32 to at["factors"], and its integers to bytes at at["to"]."""
    scale, zero, outer, w = registers()
    for g in range(0, panel["groups"], sizes.ratio):
        load_factors(at, scale, zero, outer, g * sizes.words * 4, 1)
        for v in static_range(vectors):
            store[f32](at["factors"] + v * lanes * 4, scale[0, v])
            if stored.low:
                store[f32](at["factors"] + (vectors + v) * lanes * 4, zero[0, v])
        at["factors"] += vectors * lanes * (8 if stored.low else 4)
        if not stored.keeps_integers:
            words = (min(g + sizes.ratio, panel["groups"]) - g) * sizes.words
            unpack_integers(at, w, words)


@inline
def finish_tile(sums, first, done, c, count, e, y, y_w, outs, *, vectors, lanes, operands, body, out):
    """Store the rows from `first` to `done` of `count` panels, whose sums are at `sums`."""
    results = registers()
    address = sums
    for row in range(first, done):
        for panel in range(c, c + count):
            for v in static_range(vectors):
                results[0, v] = load[f32](address + v * lanes * 4)
            finish_row(results, 0, e, y, y_w, row, panel, outs)
            address += vectors * lanes * 4


class ByteStrides(NamedTuple):
    """Bytes between rows of x, of its scales and of y; bytes of a panel of weights, scales, zeros, bias."""

    x_w: int
    p_w: int
    y_w: int
    w_panel: int
    s_panel: int
    z_panel: int
    b_step: int


class Sizes(NamedTuple):
    """Words of a group, groups, groups of a scale and of a part; rows, and those of a chunk; outputs and
    panels."""

    words: int
    groups: int
    ratio: int
    part: int
    rows: int
    rows_per: int
    outs: int
    panels: int
    per_chunk: int


@kernel(strides=Raw(ByteStrides), sizes=Raw(Sizes))
def dynamic_product(
    x: Ptr, p: Ptr, w: Ptr, s: Ptr, z: Ptr, b: Ptr, y: Ptr, strides, sizes, e=ROW_OPERANDS, *, operands,
    body, out, vectors, lanes, stored, blocks, mixed, heights, unpacked_heights,
):  # fmt: skip
    """The product of quantized rows. A chunk is a range of rows times a range of weight panels."""
    panel = registers()
    blocks_of_panels = udiv(sizes.panels + sizes.per_chunk - 1, sizes.per_chunk)
    first_row = udiv(chunk, blocks_of_panels) * sizes.rows_per
    stop_row = min(first_row + sizes.rows_per, sizes.rows)
    c = urem(chunk, blocks_of_panels) * sizes.per_chunk
    stop = min(c + sizes.per_chunk, sizes.panels)
    part_groups = sizes.part
    if sizes.rows <= FEW_ROWS:
        part_groups = sizes.groups
    tiles = udiv(stop_row - first_row + heights[0] - 1, heights[0])
    step = (stored.inner // 2 if stored.inner else sizes.words) * (stored.bits * vectors * lanes // 2)
    panel["share"] = udiv(step + tiles * CACHE_LINE - 1, tiles * CACHE_LINE) * CACHE_LINE
    while c < stop:
        count = 1
        if sizes.rows == 1 and stop - c >= ABREAST:
            count = ABREAST
        for g in range(0, sizes.groups, part_groups):
            panel["groups"] = min(part_groups, sizes.groups - g)
            panel["first"] = first_row
            begin_part(panel, g, c, w, s, z, b)
            q = x + g * sizes.words * 4
            of_groups = p + g * (4 * group_words(stored))
            if mixed:
                if sizes.rows > FEW_ROWS:
                    unpack_part(panel)
            row = first_row
            while row < stop_row:
                done = row + 1
                if count == ABREAST:
                    multiply_any(row, row, q, of_groups, panel, 1, ABREAST)
                elif mixed and sizes.rows > FEW_ROWS:
                    done = multiply_rows(
                        row, stop_row, q, of_groups, panel, unpacked_heights, stored.as_bytes, None
                    )
                else:
                    done = multiply_rows(row, stop_row, q, of_groups, panel, heights, stored, blocks)
                if g + part_groups >= sizes.groups:
                    sums = scratch + (row - first_row) * (vectors * lanes * 4)
                    finish_tile(sums, row, done, c, count, e, y, strides.y_w, sizes.outs)
                row = done
        c += count


def groups_of_part(size: int, ratio: int, groups: int, nested: bool, isa: Target) -> int:
    """Groups of rows of a part of the depth. A part has whole groups of weights, or is in one of them."""
    most = max(1, PART_BYTES // (size * tile_width(isa)))
    unit = ceil_div(SUPER, size) if nested else ratio
    if most >= unit:  # parts of equal length: what a part prefetches is as long as itself
        count = ceil_div(groups, most - most % unit)
        most = ceil_div(groups, count * unit) * unit
    elif nested or unit % most:
        most = unit
    return min(most, groups)


def scratch_bytes(isa: Target, rows: Any, words: int, groups: int, stored: Stored) -> Any:
    """Scratch memory of a chunk: sums of its rows and of a tile beyond them, and an unpacked part with these
    words and groups of weights."""
    factors = factor_words(stored) if stored.inner else 2 if stored.low else 1
    return (rows + HEIGHTS[0] + words + groups * factors) * tile_width(isa) * WORD


def product_kernel(
    name: str, epilogue: Epilogue, isa: Target, stored: Stored, blocks: Unpack | None
) -> Kernel:
    """The product of quantized rows."""
    mixed = unpacks(stored, blocks)
    few_registers = isa.name == "avx2"
    return dynamic_product.kernel(
        name, vectors=isa.tile_vectors, lanes=isa.lanes, stored=stored, blocks=blocks, mixed=mixed,
        heights=IN_REGISTERS if mixed or stored.sums else HEIGHTS,
        unpacked_heights=HEIGHTS if not stored.sums else OF_BYTES if few_registers else IN_REGISTERS,
        **epilogue.constants("f32"),
    )  # fmt: skip


def unpacks(stored: Stored, blocks: Unpack | None) -> bool:
    """Whether parts of panels are unpacked for more than FEW_ROWS rows. Zeros of groups are not unpacked."""
    in_words = blocks is not None and (blocks.is_mixed or blocks.has_nested_scales)
    return stored.levels > 0 or in_words or (stored.sums > 0 and stored.bits == 4 and stored.zero is not None)


def stored_in_blocks(unpack: Unpack, zero: Factor | None, isa: Target, size: int, inner: int = 0) -> Stored:
    """The storage of panels from a file's blocks. `size`: elements of a row's group; `inner`: of a group of
    weights in it."""
    one = int(np.asarray(zero).flat[0]) if unpack.zero == "one" else 0
    low = "f32" if unpack.has_low else ""
    peak = (1 << unpack.bits) - 1
    peak = max(one, peak - one) if inner else peak
    sums = 0 if quantizes_rows(isa) else summed_words(peak, inner or size)
    return Stored(unpack.bits, one, unpack.scale, isa.is_arm, low, sums=sums, inner=inner)


def stored_with_levels(unpack: Unpack, levels: np.ndarray, factor: float, isa: Target, size: int) -> Stored:
    """The storage of panels of codes whose levels are signed bytes times `factor`. Instructions that take
    bytes without a sign get the levels with a zero point, if their sums fit."""
    span, pairs = int(levels.max()) - int(levels.min()), not quantizes_rows(isa)
    zero = 128 if isa.name == "avx512" else -int(levels.min()) if pairs and span < 128 else 0
    sums = summed_words(span, size) if pairs else 0
    return Stored(unpack.bits, zero, unpack.scale, signed=not zero, sums=sums, levels=factor)


def table_of_levels(levels: np.ndarray, stored: Stored, isa: Target) -> np.ndarray:
    """The bytes of 16 levels with their zero point, for each 16 bytes of a vector."""
    return np.tile((levels.astype(np.int16) + (stored.zero or 0)).astype(np.uint8), isa.lanes // 4)


class Packed(NamedTuple):
    """Weights, scales and zeros in panels, and the bytes of a panel of each."""

    stored: Stored
    integers: Filling
    scales: Filling | np.ndarray
    zeros: Filling | None
    w_panel: int
    s_panel: int
    z_panel: int


def pack_dynamic(
    integers: np.ndarray | Unmade, scale: Factor, zero: Factor | None, stored: Stored, size: int,
    isa: Target, blocks: Unpack | None = None,
) -> Packed:  # fmt: skip
    """integers [K, N] (8 bits, or 0 to 15), scale and zero [groups, N] -> panels. K is padded to groups of
    `size`."""
    depth = integers.shape[0]
    width = tile_width(isa)
    rows = ceil_div(depth, size) * size
    signed = integers.dtype.kind == "i"
    flips_sign = signed != bool(stored.less)

    def arrange(integers: np.ndarray) -> np.ndarray:
        outs = integers.shape[1]
        panels = ceil_div(outs, width)
        padded = np.zeros((rows, panels * width), np.uint8)
        padded[:depth, :outs] = integers.view(np.uint8) ^ np.uint8(128 * flips_sign)
        if blocks and blocks.is_mixed:
            steps = padded.reshape(rows // 16, 4, 4, panels, width).transpose(3, 0, 1, 2, 4)
            return mixed_steps(steps, stored.bits, isa.lanes)
        fours: np.ndarray = padded.reshape(rows // 4, 4, panels, width)
        if stored.bits == 4:
            twice = padded.reshape(rows // 8, 2, 4, panels, width)
            fours = twice[:, 0] | (twice[:, 1] << 4)
        return fours.transpose(2, 0, 3, 1)

    zeros, z_panel = None, 0
    scales: Filling | np.ndarray
    if blocks and blocks.has_nested_scales:
        assert isinstance(scale, Factored)
        scales = nested_scales(scale, zero, width)
        s_panel = scales[0].nbytes
    else:
        kind = np.float16 if stored.scale == "f16" else np.float32
        scales, s_panel = spread_out(one_factor(scale), kind, width)
    if blocks and blocks.zero == "low":
        assert zero is not None
        zeros, z_panel = spread_out(one_factor(zero), np.float16, width)
    elif stored.zero is None:
        assert zero is not None and not isinstance(zero, Factored)
        zeros, z_panel = spread_out(zero, np.uint8, width, 128 * signed)
    panel = rows * width * stored.bits // 8
    if rows != depth or stored.bits not in (4, 8):
        woven = None
    elif stored.bits == 4:
        woven = Woven(4, 4, weave.SPREAD, find_sign_mask(integers, 4))
    else:
        woven = Woven(4, 8, mask=0x80808080 * flips_sign)
    packed = fill_later(integers, width, panel, arrange, woven)
    return Packed(stored, packed, scales, zeros, panel, s_panel, z_panel)
