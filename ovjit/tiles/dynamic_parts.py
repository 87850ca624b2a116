"""The parts of products of dynamically quantized rows that `dynamic` and `nested` share."""

import numpy as np

from ovjit.codegen.cpu.targets import CACHE_LINE
from ovjit.codegen.kernel_language import *
from ovjit.tiles.compressed import fetch_group, load_words

_BYTE = "i8"
#: Groups with a smaller scale become zeros.
LEAST = 2.0**-126


@inline
def scale_of(source, first, size, depth, T):
    """The scale of `size` elements of a row, from element `first` on; elements after `depth` are 0."""
    peak = const[f32](0.0)
    for i in range(first, first + size, VL):
        peak = maximum(peak, absolute(loadm[T](source + i * SIZE[T], depth - i)))
    return spread[f32](hmax[f32](peak)) / const[f32](127.0)


@inline
def steps_of(scale):
    """The reciprocal of `scale`; 0 for a scale whose reciprocal would be infinite."""
    return select(scale > const[f32](LEAST), const[f32](1.0) / scale, const[f32](0.0))


@inline
def peak_of(source, *, vectors, T):
    """The bits of the largest absolute number in each lane of `vectors` vectors. As integers, a NaN's are
    largest."""
    peak = bits[i32](absolute(load[T](source)))
    for v in static_range(1, vectors):
        peak = maximum(peak, bits[i32](absolute(load[T](source + v * VL * SIZE[T]))))
    return peak


@inline
def quantize_group(source, target, steps, *, vectors, T):
    """Quantize `vectors` vectors to bytes at `target`. Returns their sum in each lane."""
    total = const[f32](0.0)
    for v in static_range(vectors):
        rounded = rint(load[T](source + v * VL * SIZE[T]) * steps)
        store[_BYTE](target + v * VL, cast[_BYTE](rounded))
        total = total + rounded
    return total


@inline
def quantize_part(source, target, first, size, depth, scale, T):
    """Quantize these elements to bytes at target + first. Returns their sum in each lane."""
    steps = steps_of(scale)
    total = const[f32](0.0)
    for i in range(first, first + size, VL):
        rounded = rint(loadm[T](source + i * SIZE[T], depth - i) * steps)
        total = total + rounded
        store[_BYTE](target + i, cast[_BYTE](rounded))
    return total


@inline
def fetch_ahead(*, height, panel):
    """Prefetch a tile's share of the bytes that follow a part of a panel, while it multiplies a group.
    Else memory is idle during all tiles of a part but the first."""
    if height > 1:
        line = panel["ahead"]
        panel["ahead"] = min(line + panel["share"], panel["end"])
        while line < panel["ahead"]:
            prefetch_l2(line)
            line += CACHE_LINE


@inline
def load_four(w, first, at, n, word, *, vectors, lanes, stored, blocks):
    """Load w[first :, n, v]: words of four bytes, from word `word` of a step on, as many as are stored
    together."""
    if blocks and blocks.is_mixed:
        four = registers()
        for v in static_range(vectors):
            load_words(four, at["q", n], v, vectors * lanes, unpack=blocks)
            for i in static_range(4):
                w[i, n, v] = four[i]
    else:
        for v in static_range(vectors):
            w[first, n, v] = load[i32](at["q", n] + (word * stored.bits // 8 * vectors + v) * lanes * 4)
            if stored.bits == 4:
                w[first + 1, n, v] = (w[first, n, v] >> const[i32](4)) & const[i32](0x0F0F0F0F)
                w[first, n, v] = w[first, n, v] & const[i32](0x0F0F0F0F)
            if stored.levels:
                w[first, n, v] = look_up(at["levels"], w[first, n, v])
                w[first + 1, n, v] = look_up(at["levels"], w[first + 1, n, v])


@inline
def add_in_pairs(short, w, data, i, word, r, n, v, *, stored):
    """Add the products of word `word` of a group, w[i], in 16 bits. Begins a new sum every `stored.sums`
    words, which for centred bytes is in `short` already."""
    two = dot_pairs(w[i, n, v], data)
    if word % stored.sums == 0 and not stored.is_centred:
        short[r, n, v] = two
    else:
        short[r, n, v] = add_pairs(short[r, n, v], two)


@inline
def finish_sums(pairs, step, groups, *, zero, scaled):
    """Multiply the sums of a row's groups by their scales if they are to be `scaled`, or by minus the common
    zero, as i32."""
    if zero or scaled:
        for g in range(0, groups, VL):
            pair = pairs + g * step
            total = gather[f32](pair + 4, step, groups - g)
            if scaled:
                factor = gather[f32](pair, step, groups - g)
                scatter[f32](pair + 4, step, total * factor, groups - g)
            else:
                start = bits[f32](cast[i32](total * const[f32](float(-zero))))
                scatter[f32](pair + 4, step, start, groups - g)


@inline
def begin_tile(
    at, results, row, last, x, p, *, panel, strides, height, panels, vectors, lanes, stored, blocks
):
    """Set the addresses of each panel's weights, scales and zeros, and of each row's data and factors. Load
    what sums begin with."""
    if stored.levels:
        at["levels"] = load[i32](panel["z"])
    for n in static_range(panels):
        at["q", n] = panel["w"] + n * strides.w_panel
        at["s", n] = panel["s"] + n * strides.s_panel
        if stored.zero is None or (blocks and blocks.each_zero):
            at["z", n] = panel["z"] + n * strides.z_panel
    for r in static_range(height):
        at["x", r] = x + min(row + r, last) * strides.x_w
        at["p", r] = p + min(row + r, last) * strides.p_w
    address = panel["sums"] + (row - panel["first"]) * panel["sums_w"]
    for r, n, v in np.ndindex(height, panels, vectors):
        from_bias = n * strides.b_step
        results[r, n, v] = load[f32](address + r * panel["sums_w"] + from_bias + v * lanes * 4)


@inline
def end_tile(results, row, *, panel, height, panels, vectors, lanes):
    """Store the sums to scratch."""
    address = scratch + (row - panel["first"]) * (vectors * lanes * 4)
    for r, n, v in np.ndindex(height, panels, vectors):
        store[f32](address + ((r * panels + n) * vectors + v) * lanes * 4, results[r, n, v])


@inline
def fetch_factors(at, width, *, panels, stored, blocks):
    """Prefetch the following scales and zeros of `width` columns of each panel."""
    for n in static_range(panels):
        if blocks:
            fetch_group(at, n, blocks.scale_bytes, blocks.zero_bytes)
        else:
            fetch_group(at, n, SIZE[stored.scale], stored.zero is None)


@inline
def unpack_integers(at, w, words, *, vectors, lanes, stored, blocks):
    """Unpack `words` words of depth of a panel to bytes at at["to"]."""
    for _ in range(0, words, 4):
        for word in static_range(0, 4, stored.together):
            load_four(w, 0, at, 0, word)
            for half, v in np.ndindex(stored.together, vectors):
                store[i32](at["to"] + ((word + half) * vectors + v) * lanes * 4, w[half, 0, v])
        at["q", 0] += stored.bits * 2 * vectors * lanes
        at["to"] += 16 * vectors * lanes
