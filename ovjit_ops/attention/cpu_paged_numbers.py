"""Conversion of tokens of a paged cache to f32, and back.

Blocks of u8 and u4 elements contain scales and zeros (`ovjit.graph.paged_caches`).
"""

from ovjit.codegen.kernel_language import *
from ovjit.graph.paged_caches import FLAT, LEAST, TOP


@inline
def fill(t, first, stop, value):
    """Store `value` to the f32 elements from `first` to `stop`."""
    for j in range(max(first, 0), stop, VL):
        storem[f32](t + j * 4, const[f32](value), stop - j)


@inline
def dequantize(numbers, T, p, head, to, size, *, group, by_channel):
    """Store (number - zero) * scale to `to` for `size` numbers of type T, u8 or f32. Scales and zeros of
    channels are at `head`, those of groups at p."""
    if by_channel:
        for j in range(0, size, VL):
            stored = loadm[T](numbers + j * SIZE[T], size - j)
            number = cast[f32](stored) if T == "u8" else stored
            centred = number - loadm[f32](head + (size + j) * 4, size - j)
            storem[f32](to + j * 4, centred * loadm[f32](head + j * 4, size - j), size - j)
    else:
        for g in range(0, size, group):
            factor = splat[f32](p + g // group * 8)
            zero = splat[f32](p + g // group * 8 + 4)
            for j in range(g, g + group, VL):
                stored = loadm[T](numbers + j * SIZE[T], g + group - j)
                number = cast[f32](stored) if T == "u8" else stored
                storem[f32](to + j * 4, (number - zero) * factor, g + group - j)


@inline
def unpack_token(p, head, to, size, group, kind, by_channel):
    """Dequantize a token to f32 at `to`. `head`: address of the scales and zeros of channels."""
    numbers = p
    if not by_channel:
        numbers = p + size // group * 8
    if kind == "u8":
        dequantize(numbers, "u8", p, head, to, size)
    else:
        for j in range(0, size // 2, VL):
            both = cast[i32](loadm[u8](numbers + j, size // 2 - j))
            high = cast[f32](both >> const[i32](4))
            low = cast[f32](both & const[i32](15))
            scatter[f32](to + j * 8, 8, high, size // 2 - j)
            scatter[f32](to + j * 8 + 4, 8, low, size // 2 - j)
        dequantize(to, "f32", p, head, to, size)


@inline
def unpack_block(p, row, to, to_row, first, count, size, group, kind, by_channel):
    """Dequantize the tokens from `first` to `count` of the block at p to f32 at `to`."""
    start = p
    if by_channel:
        start = p + size * 8
    for t in range(first, count):
        unpack_token(start + t * row, p, to + t * to_row, size, group, kind, by_channel)


@inline
def copy_token(x, to, size, T, kind):
    """Convert a token from type T to type `kind`."""
    j = 0
    while j + VL <= size:
        store[kind](to + j * SIZE[kind], load[T](x + j * SIZE[T]))
        j += VL
    if j < size:
        storem[kind](to + j * SIZE[kind], loadm[T](x + j * SIZE[T], size - j), size - j)


@inline
def step_of(low, high, most):
    """The scale for values from `low` to `high`, quantized to 0 ... most. It has a positive minimum for equal
    values."""
    flat = maximum(absolute(low) * const[f32](FLAT), const[f32](LEAST))
    return maximum((high - low) * const[f32](1.0 / most), flat)


@inline
def write_numbers(from_, p, size, kind):
    """Store integers, given as f32 at `from_`, as u8 or as u4 pairs at p. The even one of a pair is in the
    high bits."""
    if kind == "u8":
        for j in range(0, size, VL):
            storem[u8](p + j, cast[u8](cast[i32](loadm[f32](from_ + j * 4, size - j))), size - j)
    else:
        for j in range(0, size // 2, VL):
            high = cast[i32](gather[f32](from_ + j * 8, 8, size // 2 - j))
            low = cast[i32](gather[f32](from_ + j * 8 + 4, 8, size // 2 - j))
            storem[u8](p + j, cast[u8]((high << const[i32](4)) | low), size // 2 - j)


@inline
def quantize_token(from_, p, size, group, kind):
    """Quantize an f32 token at `from_` to p, with a scale and a zero for each group. Overwrites `from_`."""
    most = 255.0 if kind == "u8" else 15.0
    numbers = p + size // group * 8
    for g in range(0, size, group):
        low = const[f32](inf)
        high = const[f32](-inf)
        for j in range(g, g + group, VL):
            x = loadm[f32](from_ + j * 4, g + group - j)
            low = blend[f32](g + group - j, minimum(low, x), low)
            high = blend[f32](g + group - j, maximum(high, x), high)
        low = spread[f32](hmin[f32](low))
        high = spread[f32](hmax[f32](high))
        factor = step_of(low, high, most)
        zero = (const[f32](0.0) - low) / factor
        storem[f32](p + g // group * 8, factor, 1)
        storem[f32](p + g // group * 8 + 4, zero, 1)
        for j in range(g, g + group, VL):
            x = loadm[f32](from_ + j * 4, g + group - j) / factor + zero
            x = minimum(maximum(rint(x), const[f32](0.0)), const[f32](most))
            storem[f32](from_ + j * 4, x, g + group - j)
    write_numbers(from_, numbers, size, kind)


@inline
def keep_range(block_at, size, kind, old, room, room_row, count):
    """Update the scales and zeros of a block's channels for its tokens from `old` to `count`, which are f32
    at `room`. Channels that cover the new values, and have `old` tokens, are unchanged."""
    most = 255.0 if kind == "u8" else 15.0
    for j in range(0, size, VL):
        remaining = size - j
        low = const[f32](inf)
        high = const[f32](-inf)
        if old > 0:
            factor = loadm[f32](block_at + j * 4, remaining)
            zero = loadm[f32](block_at + (size + j) * 4, remaining)
            low = (const[f32](0.0) - zero) * factor
            high = (const[f32](most) - zero) * factor
        newest = const[f32](inf)
        largest = const[f32](-inf)
        for t in range(old, count):
            x = loadm[f32](room + t * room_row + j * 4, remaining)
            newest = minimum(newest, x)
            largest = maximum(largest, x)
        bottom = minimum(low, newest)
        top = maximum(high, largest)
        new_factor = step_of(bottom, top, most)
        new_zero = (const[f32](0.0) - bottom) / new_factor
        if old > 0:
            within = (newest >= low) & (largest <= high)
            new_factor = select(within, factor, new_factor)
            new_zero = select(within, zero, new_zero)
        storem[f32](block_at + j * 4, new_factor, remaining)
        storem[f32](block_at + (size + j) * 4, new_zero, remaining)


@inline
def quantize_block(block_at, row, size, kind, room, room_row, count):
    """Quantize all `count` tokens of a block, f32 at `room`, by the scales and zeros of the block. Overwrites
    `room`."""
    most = 255.0 if kind == "u8" else 15.0
    for t in range(count):
        p = room + t * room_row
        for j in range(0, size, VL):
            remaining = size - j
            x = loadm[f32](p + j * 4, remaining) / loadm[f32](block_at + j * 4, remaining)
            x = rint(x + loadm[f32](block_at + (size + j) * 4, remaining))
            storem[f32](p + j * 4, minimum(maximum(x, const[f32](0.0)), const[f32](most)), remaining)
        write_numbers(p, block_at + size * 8 + t * row, size, kind)


@inline
def widen(p, row, to, to_row, count, size, group, kind, by_channel):
    """Convert the first `count` tokens of a block to f32, `size` elements each."""
    if kind in TOP:
        unpack_block(p, row, to, to_row, 0, count, size, group, kind, by_channel)
    else:
        for t in range(count):
            copy_token(p + t * row, to + t * to_row, size, kind, "f32")
