"""The native functions behind `ovjit.tiles.narrow`: the order of a vector's words, and the words in it."""

from __future__ import annotations

from ovjit.codegen.parts import inline, routine
from ovjit.codegen.words import Word, i64, ld, st

pair_sums, exceed = Word("pair_sums"), Word("exceed")
copy_bytes, turn_signs = Word("copy_bytes"), Word("turn_signs")

#: The numbers of `narrow.WAYS`: two words, one, two turned words, one.
TWO, ONE, TWO_TURNED, TURNED = range(4)
#: The weights of one sign in a sum of 16 bits: 255 times as much fits.
MOST = 128
#: The sizes of the weights in a sum of turned words: 128 times as much fits, and one is not told from 256.
MOST_TURNED = 255
#: The words behind a word that may be added with it.
FAR = 24


@inline
def match(words, sums, record, at, length, most, least, greatest, way):
    """Make each word without a partner, and the first one behind it with which it fits, partners by `way`.

    They fit if no sum of `length` bytes at `at` of their records is above `most`, and if their ways add up to
    `least` to `greatest`, as those of single words do.
    """
    ways = sums + words * record
    partners = ways + words * 8
    for n in range(words):
        mine = ld(ways, n)
        j = n + 1
        stop = 0
        if ld(partners, n) == n:
            stop = min(words, j + FAR - 1)
        while j < stop:
            both = mine + ld(ways, j)
            if ld(partners, j) == j and both >= least and both <= greatest:
                if exceed(sums + n * record + at, sums + j * record + at, length, most) == 0:
                    st[i64](partners + n * 8, j)
                    st[i64](partners + j * 8, n)
                    st[i64](ways + n * 8, way)
                    st[i64](ways + j * 8, way)
                    stop = 0
            j += 1


@routine
def order_words(x, y, sizes, memory):
    """Write the order of a vector's words and the number of steps of each way: y = order [words], steps [4].

    `x` is the first word, of i8 [lanes, 4]. `sizes`: words, bytes of one (16, 32 or 64), bytes from one to
    the next, bytes of a record. `memory` has a record of zeros, a record of sums for each word, and for each
    word its way and the number of its partner, which is its own without one.
    """
    words = ld(sizes, 0)
    size = ld(sizes, 1)
    apart = ld(sizes, 2)
    record = ld(sizes, 3)
    sums = memory + record
    ways = sums + words * record
    partners = ways + words * 8
    for n in range(words):
        pair_sums(x + n * apart, sums + n * record, size)
        st[i64](ways + n * 8, ONE + (TURNED - ONE) * exceed(sums + n * record, memory, size, MOST))
        st[i64](partners + n * 8, n)
    match(words, sums, record, 0, size, MOST, ONE + ONE, ONE + ONE, TWO)
    match(words, sums, record, size, record - size, MOST_TURNED, TURNED + TURNED, TURNED + TURNED, TWO_TURNED)
    match(words, sums, record, size, record - size, MOST_TURNED, ONE + TURNED, TURNED + TURNED, TWO_TURNED)
    to = y
    steps = y + words * 8
    for way in range(4):
        count = 0
        for n in range(words):
            partner = ld(partners, n)
            if ld(ways, n) == way and partner >= n:
                st[i64](to, n)
                to += 8
                if partner > n:
                    st[i64](to, partner)
                    to += 8
                count += 1
        st[i64](steps + way * 8, count)
    return 0


@routine
def write_words(x, y, sizes, tables):
    """Write a vector's words to y in their order; how many bytes that is.

    `x` and `sizes` as those of `order_words`. `tables`: the addresses of what it wrote, and of i32 [lanes] to
    which is added what turned words lack.
    """
    words = ld(sizes, 0)
    size = ld(sizes, 1)
    apart = ld(sizes, 2)
    order = ld(tables, 0)
    steps = order + words * 8
    bias = ld(tables, 1)
    to = y
    for way in range(4):
        span = 2 - (way & 1)
        for _step in range(ld(steps, way)):
            for n in range(span):
                word = x + ld(order, n) * apart
                if way < TWO_TURNED:
                    copy_bytes(word, to + n * size, size)
                else:
                    turn_signs(word, to + n * size, to + (span + n) * size, bias, size)
            order += span * 8
            to += span * size
            if way >= TWO_TURNED:
                to += span * size
    return to - y
