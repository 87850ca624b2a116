"""Products of quantized rows with blocks whose scales, and minima, are integers times a factor.

    x[m, k] ~ q[m, k] * p[m, b]              q of 8 bits with a sign, p = max |x[m, k]| / 127,  b = k // 256
    y[m, n] = sum over b of p[m, b] * (scale[b, n] * sum over g in b of inner[g, n] * dot[m, g, n]
                                       + low[b, n] * sum over g in b of minimum[g, n] * total[m, g])
    dot[m, g, n] = sum of k in g of q[m, k] * integers[k, n],   total[m, g] = sum of k in g of q[m, k]

All but the factors of a super-block is integer arithmetic. `vpmaddubsw` sums pairs of products in 16 bits,
and `vpmaddwd` multiplies these sums by the inner scale. A common zero point is subtracted in 16 bits: a sum
begins with -zero times those of q. So it never exceeds that of centred integers, and more words fit 16 bits.

After p are pairs of i16: for minima the sums of q of two groups; for a zero point -zero times the sums of
even and odd pairs of bytes, for each sum in 16 bits. Panels unpacked for several rows have, for each
super-block, factors and inner numbers as lanes of 32 bits:

    scale, low of f32; then for two groups: inner of both groups, twice in a lane; minima of both in a lane
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.cpu.formats import SUPER, Stored
from ovjit.codegen.kernel_language import *
from ovjit.tiles.compressed import fetch
from ovjit.tiles.dynamic_parts import (
    add_in_pairs,
    begin_tile,
    end_tile,
    fetch_ahead,
    fetch_factors,
    load_four,
    quantize_part,
    scale_of,
    unpack_integers,
)

_HALF, _BYTE = "f16", "i8"


@kernel(over="m", x="m k:1", q="m i:1", p="m g w:1")
def _quantize(x: Tensor, q: Tensor, p: Tensor, inner, *, zero, sums, T):
    """Quantize each row in super-blocks. Store each one's scale, and the sums of groups of `inner`
    elements."""
    for _, source, target, words in items(x, q, p):
        for g in range(p.size.g):
            first = g * SUPER
            scale = scale_of(source, first, SUPER, x.size.k, T)
            st[f32](p.at(words, g=g), lane[f32](scale, 0))
            for i in range(0, SUPER, 2 * inner):
                even = quantize_part(source, target, first + i, inner, x.size.k, scale, T)
                odd = quantize_part(source, target, first + i + inner, inner, x.size.k, scale, T)
                if not zero:
                    low = cast[i32](spread[f32](hadd[f32](even))) & const[i32](65535)
                    both = low | (cast[i32](spread[f32](hadd[f32](odd))) << const[i32](16))
                    storem[i32](p.at(words + 4 + udiv(i, inner) * 2, g=g), both, 1)
            if zero:
                for i in range(0, SUPER, 4 * sums):
                    start = sum_start(target + first + i)
                    storem[i32](p.at(words + 4 + udiv(i, sums), g=g), start, 1)


@inline
def sum_start(at, *, zero, sums):
    """-zero times the sums of even and of odd pairs of the bytes of `sums` words at `at`, as two i16."""
    zeros = const[i32](zero * 0x01010101)
    total = dot_pairs(zeros, splat[i32](at))
    for i in static_range(1, sums):
        total = add_pairs(total, dot_pairs(zeros, splat[i32](at + 4 * i)))
    return add_pairs(total ^ const[i32](-1), const[i32](0x00010001))


def quantize_nested(dtype: str, stored: Stored) -> Kernel:
    """The kernel that quantizes rows of `dtype` in super-blocks."""
    zero, sums = (stored.zero, stored.sums) if stored.is_centred else (0, 0)
    name = f"quantize_nested_{dtype}" + (f"_less_{zero}_of_{sums}" if zero else "")
    return _quantize.kernel(name, zero=zero, sums=sums, T=dtype)


def sum_words(stored: Stored) -> int:
    """Words of 32 bits for the sums of a row's super-block."""
    return SUPER // (4 * stored.sums if stored.is_centred else 2 * stored.inner)


def group_words(stored: Stored) -> int:
    """Words of 32 bits for the scale and the sums of a row's group."""
    return 1 + sum_words(stored) if stored.inner else 2


def factor_words(stored: Stored) -> int:
    """Words of a lane for the factors and inner numbers of a super-block."""
    low = bool(stored.low)
    return 1 + low + SUPER // (2 * stored.inner) * (2 + low)


@inline
def load_outer(at, outer, panels, *, vectors, lanes, stored, blocks):
    """Load the factors of a super-block."""
    kind = _HALF if blocks else "f32"
    for n, v in np.ndindex(panels, vectors):
        outer[n, v] = load[kind](at["s", n] + v * lanes * SIZE[kind])
        if stored.low:
            outer[n, v, "low"] = load[kind](at["s", n] + (vectors + v) * lanes * SIZE[kind])
    for n in static_range(panels):
        at["s", n] += vectors * lanes * SIZE[kind] * (2 if stored.low else 1)


@inline
def load_inner(at, scale, low, h, panels, *, vectors, lanes, stored, blocks):
    """Load the inner scales of group `h` of two, twice in a lane, and its minima in half `h` of a lane. Of
    unpacked panels, load the minima of both with the second."""
    for n, v in np.ndindex(panels, vectors):
        if blocks:
            inner = cast[i32](load[blocks.scale](at["s", n] + v * lanes))
            scale[n, v] = inner << const[i32](16)
            if blocks.scale == "u8":
                scale[n, v] = scale[n, v] | inner
            else:
                scale[n, v] = scale[n, v] | (inner & const[i32](65535))
            if stored.low:
                least = cast[i32](load[u8](at["s", n] + (vectors + v) * lanes))
                low[h, n, v] = least << const[i32](16) if h else least & const[i32](65535)
        else:
            scale[n, v] = load[i32](at["s", n] + v * lanes * 4)
            if h and stored.low:
                low[h, n, v] = load[i32](at["s", n] + (vectors + v) * lanes * 4)
    for n in static_range(panels):
        if blocks:
            at["s", n] += vectors * lanes * blocks.scale_bytes
        else:
            at["s", n] += vectors * lanes * (8 if h and stored.low else 4)


@inline
def add_minima(lows, low, h, at, pair, *, height, panels, vectors):
    """Add the minima of group `h` of two, times the sums of q."""
    for r in static_range(height):
        both = splat[i32](at["p", r] + 4 + pair * 4)
        for n, v in np.ndindex(panels, vectors):
            lows[r, n, v] = dot_halves(lows[r, n, v], low[h, n, v], both)


@inline
def multiply_scaled(total, short, w, scale, at, word, starts, *, height, panels, vectors, stored):
    """Add the products of `stored.together` words, from word `word` of a group on, times the inner scales.
    `starts`: offset of the group's first sum after p."""
    for i, r in np.ndindex(stored.together, height):
        data = splat[i32](at["x", r] + (word + i) % 4 * 4)
        if stored.is_centred and (word + i) % stored.sums == 0:
            start = splat[i32](at["p", r] + starts + (word + i) // stored.sums * 4)
            for n, v in np.ndindex(panels, vectors):
                short[r, n, v] = start
        for n, v in np.ndindex(panels, vectors):
            add_in_pairs(short, w, data, i, word + i, r, n, v)
            if (word + i + 1) % stored.sums == 0:
                total[r, n, v] = dot_halves(total[r, n, v], short[r, n, v], scale[n, v])


@inline
def sum_super(at, total, lows, *, panel, height, panels, vectors, lanes, stored, blocks):
    """The integer sums of a super-block, and those of its minima."""
    scale, low, short, w = registers()
    for r, n, v in np.ndindex(height, panels, vectors):
        total[r, n, v] = const[i32](0)
        lows[r, n, v] = const[i32](0)
    for pair in range(SUPER // stored.inner // 2):
        fetch_ahead()
        if height == 1:
            fetch_factors(at, vectors * lanes)
        for h in static_range(2):
            load_inner(at, scale, low, h, panels)
            starts = 4 + (2 * pair + h) * (stored.inner // stored.sums)
            for first in static_range(0, stored.inner, 16):
                if height == 1:
                    for n in static_range(panels):
                        fetch(at["q", n], stored.bits * 2 * vectors * lanes, panels)
                for word in static_range(0, 4, stored.together):
                    for n in static_range(panels):
                        load_four(w, 0, at, n, word)
                    multiply_scaled(total, short, w, scale, at, first // 4 + word, starts)
                for n in static_range(panels):
                    at["q", n] += stored.bits * 2 * vectors * lanes
                for r in static_range(height):
                    at["x", r] += 16
            if stored.low and (blocks or h):
                add_minima(lows, low, h, at, pair)


@inline
def multiply_super(row, last, x, p, *, panel, strides, height, panels, vectors, lanes, stored, blocks):
    """Multiply rows `row` to row + height - 1 (at most `last`) by a part of `panels` panels, and add the
    products to the sums in scratch."""
    at, results, outer, total, lows = registers()
    begin_tile(at, results, row, last, x, p)
    for _block in range(panel["groups"]):
        load_outer(at, outer, panels)
        sum_super(at, total, lows)
        for r in static_range(height):
            by = splat[f32](at["p", r])
            for n, v in np.ndindex(panels, vectors):
                results[r, n, v] = fma(cast[f32](total[r, n, v]), by * outer[n, v], results[r, n, v])
                if stored.low:
                    results[r, n, v] = fma(
                        cast[f32](lows[r, n, v]), by * outer[n, v, "low"], results[r, n, v]
                    )
            at["p", r] += 4 * group_words(stored)
    end_tile(results, row)


@inline
def unpack_nested(at, *, panel, vectors, lanes, stored, blocks):
    """Unpack a part's factors and inner numbers to at["factors"], and its integers to bytes at at["to"]."""
    scale, low, outer, w = registers()
    for _block in range(panel["groups"]):
        load_outer(at, outer, 1)
        for v in static_range(vectors):
            store[f32](at["factors"] + v * lanes * 4, outer[0, v])
            if stored.low:
                store[f32](at["factors"] + (vectors + v) * lanes * 4, outer[0, v, "low"])
        at["factors"] += vectors * lanes * (8 if stored.low else 4)
        for _pair in range(SUPER // stored.inner // 2):
            for h in static_range(2):
                load_inner(at, scale, low, h, 1)
                for v in static_range(vectors):
                    store[i32](at["factors"] + v * lanes * 4, scale[0, v])
                at["factors"] += vectors * lanes * 4
            if stored.low:
                for v in static_range(vectors):
                    store[i32](at["factors"] + v * lanes * 4, low[0, 0, v] | low[1, 0, v])
                at["factors"] += vectors * lanes * 4
        unpack_integers(at, w, SUPER // 4)
