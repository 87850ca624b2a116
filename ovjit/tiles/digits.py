"""One row times integers of 4 bits, by bytes: the row is written in three digits of 8 bits.

    x[k] ~ p[g] * (65536 * high[k] + 256 * middle[k] + low[k]),  p[g] = max |x[k]| / LARGEST,  g = k // group

which is as near as f32 is to the greatest element of a group. `vpmaddubsw` multiplies four elements of depth
at once by the integers 0 to 15 as they are in memory, masked, and the products of `DEEP` words fit 16 bits:
two thirds of the instructions that there are where each integer becomes an f32. Sums of a group are exact
until they are joined:

    y[n] = bias[n] + sum over g of p[g] * scale[g, n] * sum over the digits d of
           256**d * (sum of d[k] * integers[k, n] - zero[g, n] * sum of d[k])

More rows than one share what it takes to make an f32, and are no faster by this.

    digits     [k / 8][digit, the highest first][8] i8: even elements of depth first
    of groups  [group][4] f32: p, and the sums of the digits
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.isa import Isa
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.function import kernel
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.codegen.words import (
    VL,
    Ptr,
    absolute,
    cast,
    const,
    f32,
    floor,
    hadd,
    hmax,
    i32,
    lane,
    load,
    loadm,
    maximum,
    permute,
    rint,
    select,
    share,
    spread,
    st,
    storem,
)
from ovjit.tiles.compressed import AHEAD, Unpack
from ovjit.tiles.pack import tile_width
from ovjit.tiles.rows import RowEpilogue

#: Digits of an element.
DIGITS = 3
#: The greatest whole number that is written in digits: none of them is beyond 127.
LARGEST = 127 * 65536.0
#: Groups with a smaller scale are zeros.
LEAST = 2.0**-126
#: Words of eight integers whose products are added in 16 bits: 2 * 15 * 128 for each half of a byte.
DEEP = 4
_BYTE = "i8"
#: The element of depth that each digit of a word is of.
TURNED = np.array([0, 2, 4, 6, 1, 3, 5, 7], np.int32)


def takes_digits(unpack: Unpack, isa: Isa) -> bool:
    """Whether one row goes by digits: vectors are of eight lanes, as many as a word has integers."""
    return unpack.shifts_data and isa.name == "avx2"


@kernel
def _to_digits(x: Ptr, q: Ptr, p: Ptr, turned: Ptr, depth, size, groups, per_chunk, *, T):
    """q [words][DIGITS][8], groups filled up with zeros to whole words; p [groups][4]"""
    order = load[i32](turned)
    words = (size + 7) // 8
    base = const[f32](256.0)
    half = const[f32](0.5)
    for g in share(groups, per_chunk):
        source = x + g * size * SIZE[T]
        target = q + g * words * 24
        stop = min(size, depth - g * size)
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
            whole = rint(permute[f32](loadm[T](source + i * SIZE[T], stop - i), order) * steps)
            upper = floor(whole / base + half)
            low = whole - upper * base
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


def product_kernel(name: str, epilogue: Epilogue, isa: Isa, unpack: Unpack) -> Kernel:
    """The product of a row in digits with weights that `pack_compressed` has packed. A chunk is a range of
    panels."""
    width, lanes = tile_width(isa), isa.lanes
    vectors = range(width // lanes)
    frame = Frame().pointers("x", "p", "b", "y")
    pointers, integers = unpack.fields()
    frame.pointers(*pointers).integers(*integers)
    finish = RowEpilogue(epilogue)
    finish.add_fields(frame)
    frame.integers("y_w", "b_step", "outs", "panels", "per_chunk")
    src = finish.head(frame)
    src += ["    low_half = const_i32(252645135)", "    four = const_i32(4)", "    base = const_f32(256.0)"]
    if unpack.zero == "one":
        src += ["    minus_zero = neg(splat_f32(z))"]
    src += ["    c = chunk * per_chunk", "    stop = imin(c + per_chunk, panels)", "    while c < stop:"]
    src += ["        " + line for line in _panel(width, lanes, unpack)]
    applied = finish.applied([f"y{v}" for v in vectors], "0", width, lanes)
    src += ["        " + line for line in applied]
    src += ["        c += 1", "    return 0", ""]
    return Kernel(name, "\n".join(src), frame)


def _panel(width: int, lanes: int, unpack: Unpack) -> list[str]:
    """Lines that make `y<vector>` of panel `c`."""
    vectors, digits = range(width // lanes), range(DIGITS)
    out = [*unpack.starts("c"), "x_at = x", "p_at = p"]
    out += [f"y{v} = load_f32(b + c * b_step + {v * lanes * 4})" for v in vectors]
    out += ["e = 0", "while e < depth:", "    stop_e = imin(e + g_size, depth)"]
    out += [f"    a{d}_{v} = const_i32(0)" for d in digits for v in vectors]
    out += [f"    while e + {8 * DEEP} <= stop_e:"]
    out += ["        " + line for line in _words(DEEP, width, lanes)]
    out += ["    while e < stop_e:"]
    out += ["        " + line for line in _words(1, width, lanes)]
    for v in vectors:
        for d in digits:
            out += [f"    t{d} = cast_f32(a{d}_{v})"]
        if unpack.zero:
            out += [f"    zero = {unpack.load_zero(v * lanes)}"]
            out += [f"    t{d} = fma(splat_f32(p_at + {4 * d + 4}), zero, t{d})" for d in digits]
        total = "t0"
        for d in digits[1:]:
            total = f"fma({total}, base, t{d})"
        scale = f"load_{unpack.scale}(s_at + {v * lanes * SIZE[unpack.scale]})"
        out += [f"    y{v} = fma({total}, mul({scale}, splat_f32(p_at)), y{v})"]
    out += ["    p_at += 16", *("    " + line for line in unpack.next_group(width)), "    e = stop_e"]
    return out


def _words(count: int, width: int, lanes: int) -> list[str]:
    """So many words of depth, whose products are added in 16 bits."""
    vectors, digits = range(width // lanes), range(DIGITS)
    stored = count * width * 4
    out = [f"prefetch(q_at + {AHEAD + line})" for line in range(0, stored, 64)]
    # All words of one vector before the next need no register more than there are, and are no faster.
    for word in range(count):
        for v in vectors:
            out += [f"both = load_i32(q_at + {(word * width + v * lanes) * 4})"]
            out += [f"w0_{v} = and_(both, low_half)", f"w1_{v} = and_(shr(both, four), low_half)"]
        for d in digits:
            for half in range(2):
                out += [f"data = splat_i32(x_at + {(word * DIGITS + d) * 8 + half * 4})"]
                for v in vectors:
                    some = f"dot_pairs(w{half}_{v}, data)"
                    out += [f"t{d}_{v} = {f'add_pairs(t{d}_{v}, {some})' if word or half else some}"]
    out += [f"a{d}_{v} = sum_pairs(a{d}_{v}, t{d}_{v})" for d in digits for v in vectors]
    return [*out, f"x_at += {count * DIGITS * 8}", f"q_at += {stored}", f"e += {8 * count}"]
