"""Native routines that resize pictures: weighted sums of pixels in i32, one vector of sums at a time."""

from ovjit.codegen.kernel_language import *
from ovjit.codegen.parts import block_routine
from ovjit.genai.vision.pixels import BITS

#: One half of weights.
HALF = 1 << (BITS - 1)
#: Vectors of sums that are computed together.
VECTORS = 4


@inline
def round_sums(sums):
    """Sums as u8."""
    return cast[u8](minimum(maximum(sums >> const[i32](BITS), const[i32](0)), const[i32](255)))


@block_routine
def resize_rows(pixels, resized, begins, all_weights, new_rows, taps, size):
    """Each new row is a sum of `taps` rows from its begin on. `pixels`: u8 [rows, size]; `resized`: u8 [new
    rows, size]; `begins`: i32 [new rows]; `all_weights`: i32 [new rows, taps]."""
    sums = registers()
    for row in range(new_rows):
        source = pixels + (ld[i32](begins + row * 4) + 0) * size
        target = resized + row * size
        weights = all_weights + row * taps * 4
        i = 0
        while i + VECTORS * VL <= size:
            for u in static_range(VECTORS):
                sums[u] = const[i32](HALF)
            for tap in range(taps):
                weight = splat[i32](weights + tap * 4)
                at = source + tap * size + i
                for u in static_range(VECTORS):
                    sums[u] = sums[u] + cast[i32](load[u8](at + u * VL)) * weight
            for u in static_range(VECTORS):
                store[u8](target + i + u * VL, round_sums(sums[u]))
            i += VECTORS * VL
        while i < size:
            total = const[i32](HALF)
            for tap in range(taps):
                values = loadm[u8](source + tap * size + i, size - i)
                total = total + cast[i32](values) * splat[i32](weights + tap * 4)
            storem[u8](target + i, round_sums(total), size - i)
            i += VL
    return 0


@inline
def sum_columns(pixels, weights, taps, target, step, count):
    """Three channels of one pixel in each of `count` rows: lanes are rows. `pixels` i32 [taps, 3, lanes]."""
    sums = registers()
    for c in static_range(3):
        sums[c] = const[i32](HALF)
    for tap in range(taps):
        weight = splat[i32](weights + tap * 4)
        for c in static_range(3):
            sums[c] = sums[c] + load[i32](pixels + (tap * 3 + c) * VL * 4) * weight
    for c in static_range(3):
        strided_store[u8](target + c, step, round_sums(sums[c]), count)


@block_routine
def resize_columns(image, resized, begins, weights, memory, rows, taps, columns, new_columns):
    """Each new column is a sum of `taps` columns from its begin on. `image`: u8 [rows, columns, 3];
    `resized`: u8 [rows, new columns, 3]; `begins`: i32 [new columns]; `weights`: i32 [new columns, taps];
    `memory`: i32 [columns, 3, lanes]."""
    step = columns * 3
    for row in range(0, rows, VL):
        source = image + row * step
        target = resized + row * new_columns * 3
        i = 0
        while i + 4 <= step:
            four = gather[i32](source + i, step, rows - row)
            for k in static_range(4):
                pixels = (four >> const[i32](8 * k)) & const[i32](255)
                store[i32](memory + (i + k) * VL * 4, pixels)
            i += 4
        while i < step:
            store[i32](memory + i * VL * 4, cast[i32](strided[u8](source + i, step, rows - row)))
            i += 1
        for column in range(new_columns):
            first = memory + (ld[i32](begins + column * 4) + 0) * 3 * VL * 4
            sum_columns(
                first, weights + column * taps * 4, taps, target + column * 3, new_columns * 3, rows - row
            )
    return 0
