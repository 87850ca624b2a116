"""Native function of `ovjit.tiles.rounding`: choose the numbers of each channel."""

from ovjit.codegen.parts import inline, routine
from ovjit.codegen.words import i64, ld, st
from ovjit.tiles.sizes import FARTHEST_SUM, FINEST, FIRST

#: Larger than any difference of a threshold, and than what is added to FIRST.
FAR, MOST = 1 << 60, 1 << 25


@inline
def first_within(memory, step, modulus, low, width):
    """The least x >= 0 with low <= step * x mod modulus <= low + width; -1 if there is none below MOST.

    The end of the range may exceed the modulus, at most 2**38, and then wraps around. The method is Euclid's
    algorithm. `memory`: work space, i64 [3, levels].
    """
    at = memory
    part = step
    dividend = modulus
    begin = low
    end = low + width
    x = -1
    if end >= dividend or begin == 0:
        x = 0
    while x < 0 and part > 0:
        x = -(-begin // part)
        if x * part > end:
            x = -1
            st[i64](at, part)
            st[i64](at + 8, dividend)
            st[i64](at + 16, begin)
            at += 24
            remainder = dividend % part
            dividend = part
            part = remainder
            reached = -begin % dividend
            begin = -end % dividend
            end = reached
            if begin == 0:
                x = 0
    while at > memory and x >= 0:
        at -= 24
        x = -(-(ld(at, 2) + ld(at, 1) * x) // ld(at, 0))
        if x >= MOST:
            x = -1
    return x


@routine
def choose_starts(x, y, sizes, memory):
    """Choose start and offset of each channel: y = i64 [channels, 2]. Returns how many have both.

    `x`: i64 [channels, 7], for each the factor and the zero, rounded down and up, in units of 2**-fine; the
    least and the largest sum; `fine`; and the exponent of offsets. It ends at the first channel that has no
    such numbers. `sizes`: i64 number of channels, least byte. `memory`: the thresholds between bytes,
    i64 [255] in units of 2**FINEST, then work space.
    """
    least = ld(sizes, 1)
    stack = memory + 255 * 8
    count = 0
    while count < ld(sizes, 0):
        row = x + count * 56
        scale = ld(row, 0)
        low = ld(row, 3)
        high = ld(row, 4)
        fine = ld(row, 5)
        # a zero of more than `above` and less than `below` gives the same bytes
        above = -FAR
        below = FAR
        for t in range(255):
            bound = ld(memory, t) << (fine + FINEST)
            # what is rounded to the half itself becomes the even number
            odd = (t + 1 + least) & 1
            needed = bound - ld(row, 1 + odd) + odd
            n = min(max(-(-needed // scale), low), high + 1)
            if n <= high:
                above = max(above, bound - n * scale)
            if n > low:
                below = min(below, bound - (n - 1) * scale)
        bits = fine + ld(row, 6)
        one = 1 << bits
        if above == -FAR:  # all sums give the least byte
            above = below - 2 - one
        begin = FIRST - FARTHEST_SUM - low
        start = -1
        if below - above >= 2:
            room = min(below - above - 2, one - 1)
            # the least for which begin + start, times the factor, less what f32 has, is between them
            start = first_within(stack, scale % one, one, (above + 1 - begin * scale) % one, room)
        if start < 0 or begin + start >= FIRST + FARTHEST_SUM - high:
            return count
        st[i64](y + count * 16, begin + start - FIRST)
        st[i64](y + count * 16 + 8, -(((begin + start) * scale - above - 1) >> bits))
        count += 1
    return count
