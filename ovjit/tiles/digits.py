"""One row times integers of 4 bits, in byte arithmetic: elements of the row are split into three digits.

    x[k] ~ p[g] * (65536 * high[k] + 256 * middle[k] + low[k]),  p[g] = max |x[k]| / LARGEST,  g = k // group

The error is that of f32, relative to the largest element of a group. `vpmaddubsw` multiplies four elements of
depth at once by the integers, 0 to 15, masked out of their words. The sums of `DEEP` words fit 16 bits. This
takes two thirds of the instructions of a conversion of each integer to f32. Sums of a group are exact
integers until the digits are combined:

    y[n] = bias[n] + sum over g of p[g] * scale[g, n] * sum over the digits d of
           256**d * (sum of d[k] * integers[k, n] - zero[g, n] * sum of d[k])

Several rows share the conversion to f32, so digits are no faster for them.

    digits     [k / 8][digit, the highest first][8] i8: even elements of depth first
    of groups  [group][4] f32: p, and the sums of the digits
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel_language import *
from ovjit.records import NamedTuple
from ovjit.tiles.compressed import Unpack, begin_panels, fetch, minus_zeros, next_group
from ovjit.tiles.rows import ROW_OPERANDS, finish_row

#: Digits of an element.
DIGITS = 3
#: The largest integer that is split into digits: its digits do not exceed 127.
LARGEST = 127 * 65536.0
#: Groups with a smaller scale become zeros.
LEAST = 2.0**-126
#: Words of eight integers whose products are added in 16 bits: 2 * 15 * 128 for each half of a byte.
DEEP = 4
_BYTE = "i8"
#: The element of depth of each digit in a word: even ones first.
LANE_ORDER = np.array([0, 2, 4, 6, 1, 3, 5, 7], np.int32)


def takes_digits(unpack: Unpack, isa: Target) -> bool:
    """Whether one row is multiplied by digits. Requires vectors of eight lanes, one per integer of a word."""
    plain = unpack.bits == 4 and unpack.shifts_data and not (unpack.has_nested_scales or unpack.has_low)
    return plain and isa.name == "avx2"


class GroupSizes(NamedTuple):
    """Elements of a row and of a group, groups; groups of a chunk."""

    depth: int
    size: int
    groups: int
    per_chunk: int


@kernel(sizes=Raw(GroupSizes))
def _to_digits(x: Ptr, q: Ptr, p: Ptr, lane_order: Ptr, sizes, *, T):
    """q [words][DIGITS][8], groups filled up with zeros to whole words; p [groups][4]"""
    order = load[i32](lane_order)
    words = (sizes.size + 7) // 8
    base = const[f32](256.0)
    half = const[f32](0.5)
    for g in share(sizes.groups, sizes.per_chunk):
        source = x + g * sizes.size * SIZE[T]
        target = q + g * words * 24
        stop = min(sizes.size, sizes.depth - g * sizes.size)
        peak = const[f32](0.0)
        wrong = const[f32](0.0)
        for i in range(0, stop, VL):
            some = loadm[T](source + i * SIZE[T], stop - i)
            peak = maximum(peak, absolute(some))
            wrong = wrong + some * const[f32](0.0)  # NaN if there is one, or an infinity
        scale = spread[f32](hmax[f32](peak)) / const[f32](LARGEST)
        # below that its reciprocal is infinite
        steps = select(scale > const[f32](LEAST), const[f32](1.0) / scale, const[f32](0.0))
        highs = const[f32](0.0)
        middles = const[f32](0.0)
        lows = const[f32](0.0)
        for i in range(0, stop, VL):
            rounded = rint(permute[f32](loadm[T](source + i * SIZE[T], stop - i), order) * steps)
            upper = floor(rounded / base + half)
            low = rounded - upper * base
            high = floor(upper / base + half)
            middle = upper - high * base
            storem[_BYTE](target, cast[_BYTE](high), VL)
            storem[_BYTE](target + 8, cast[_BYTE](middle), VL)
            storem[_BYTE](target + 16, cast[_BYTE](low), VL)
            highs = highs + high
            middles = middles + middle
            lows = lows + low
            target += 24
        st[f32](p + g * 16, lane[f32](scale, 0) + hadd[f32](wrong))
        st[f32](p + g * 16 + 4, hadd[f32](highs))
        st[f32](p + g * 16 + 8, hadd[f32](middles))
        st[f32](p + g * 16 + 12, hadd[f32](lows))


def digits_kernel(dtype: str) -> Kernel:
    """A row of `dtype` in digits."""
    return _to_digits.kernel(f"digits_{dtype}", T=dtype)


@inline
def multiply_words(at, total, count, *, vectors, lanes):
    """Add the products of `count` words of depth, which are summed in 16 bits first."""
    w, some = registers()
    fetch(at["q", 0], count * vectors * lanes * 4, 1)
    # Computing all words of one vector before the next also fits the registers, and is not faster.
    for word in static_range(count):
        for v in static_range(vectors):
            both = load[i32](at["q", 0] + (word * vectors + v) * lanes * 4)
            w[0, v] = both & const[i32](0x0F0F0F0F)
            w[1, v] = (both >> const[i32](4)) & const[i32](0x0F0F0F0F)
        for d, half in np.ndindex(DIGITS, 2):
            data = splat[i32](at["x"] + ((word * DIGITS + d) * 8 + half * 4))
            for v in static_range(vectors):
                two = dot_pairs(w[half, v], data)
                some[d, v] = add_pairs(some[d, v], two) if word or half else two
    for d, v in np.ndindex(DIGITS, vectors):
        total[d, v] = sum_pairs(total[d, v], some[d, v])
    at["x"] += count * DIGITS * 8
    at["q", 0] += count * vectors * lanes * 4


class StoredWords(NamedTuple):
    """Packed integers, scales and zeros; bytes of a panel of each; elements of a group and in all."""

    q: Ptr
    s: Ptr
    z: Ptr
    q_panel: int
    s_panel: int
    z_panel: int
    g_size: int
    depth: int


@kernel(stored=Raw(StoredWords))
def digits_product(
    x: Ptr, p: Ptr, b: Ptr, y: Ptr, stored, b_step, outs, panels, per_chunk, e=ROW_OPERANDS, *, operands,
    body, out, vectors, lanes, unpack,
):  # fmt: skip
    """The product of a row in digits with weights that `pack_compressed` has packed. A chunk is a range of
    panels."""
    at, total, acc, part = registers()
    if unpack.zero == "one":
        zero = -splat[f32](stored.z)
    for c in share(panels, per_chunk):
        begin_panels(at, 1, c)
        at["x"] = x
        at["p"] = p
        for v in static_range(vectors):
            acc[0, v] = load[f32](b + c * b_step + v * lanes * 4)
        first = 0
        while first < stored.depth:
            stop = min(first + stored.g_size, stored.depth)
            for d, v in np.ndindex(DIGITS, vectors):
                total[d, v] = const[i32](0)
            while first + 8 * DEEP <= stop:
                multiply_words(at, total, DEEP)
                first += 8 * DEEP
            while first < stop:
                multiply_words(at, total, 1)
                first += 8
            for v in static_range(vectors):
                for d in static_range(DIGITS):
                    part[d] = cast[f32](total[d, v])
                if unpack.zero:
                    shift = minus_zeros(at, 0, zero, v * lanes, unpack)
                    for d in static_range(DIGITS):
                        part[d] = fma(splat[f32](at["p"] + (4 * d + 4)), shift, part[d])
                for d in static_range(1, DIGITS):
                    part[0] = fma(part[0], const[f32](256.0), part[d])
                scale = load[unpack.scale](at["s", 0] + v * lanes * SIZE[unpack.scale])
                acc[0, v] = fma(part[0], scale * splat[f32](at["p"]), acc[0, v])
            at["p"] += 16
            next_group(at, 1, vectors * lanes, unpack)
            first = stop
        finish_row(acc, 0, e, y, 0, 0, c, outs)


def product_kernel(name: str, epilogue: Epilogue, isa: Target, unpack: Unpack) -> Kernel:
    """The product of one row."""
    return digits_product.kernel(
        name, vectors=isa.tile_vectors, lanes=isa.lanes, unpack=unpack, **epilogue.constants("f32")
    )
