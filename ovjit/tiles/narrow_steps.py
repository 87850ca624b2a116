"""Native functions of `ovjit.tiles.narrow`: choose the ways of a vector's words, and write the words."""

from ovjit.codegen.parts import inline, routine
from ovjit.codegen.words import Word, i64, ld, st

pair_sums, exceed = Word("pair_sums"), Word("exceed")
copy_bytes, turn_signs = Word("copy_bytes"), Word("turn_signs")

#: Indices into `sizes.WAYS`.
TWO, ONE, TWO_TURNED, TURNED = range(4)
#: Largest sum of the weights of one sign: times 255 it fits 16 bits.
MOST = 128
#: Largest sum of |w| of two turned words: times 128 it fits 16 bits. Sums of one word saturate at 255.
MOST_TURNED = 255
#: Words that are paired are less than so many words apart.
FAR = 24


@inline
def match(words, sums, record, at, length, most, least, greatest, way):
    """Pair each word with the first later word that fits; both get the way `way`.

    Two unpaired words fit if each byte of their records, `length` bytes at `at`, adds up to at most `most`,
    and if the sum of their ways is between `least` and `greatest`.
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
    """Choose the ways of a vector's words: y = i64 order [words], i64 steps of each way [4].

    `x`: the first word, i8 [lanes, 4]. `sizes`: i64 number of words, bytes of a word (16, 32 or 64), bytes
    between words, bytes of a record. `memory`: a record of zeros, then work space: a record of sums for each
    word, the way of each word, the index of its partner (its own index if unpaired).
    """
    words = ld(sizes, 0)
    size = ld(sizes, 1)
    word_step = ld(sizes, 2)
    record = ld(sizes, 3)
    sums = memory + record
    ways = sums + words * record
    partners = ways + words * 8
    for n in range(words):
        pair_sums(x + n * word_step, sums + n * record, size)
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
    """Write a vector's words to y, sorted by way. Returns the number of bytes.

    `x` and `sizes`: as for `order_words`. `tables`: addresses of the order that it wrote, and of the bias,
    i32 [lanes], to which 128 w or 127 w of turned words is added.
    """
    words = ld(sizes, 0)
    size = ld(sizes, 1)
    word_step = ld(sizes, 2)
    order = ld(tables, 0)
    steps = order + words * 8
    bias = ld(tables, 1)
    to = y
    for way in range(4):
        span = 2 - (way & 1)
        for _step in range(ld(steps, way)):
            for n in range(span):
                word = x + ld(order, n) * word_step
                if way < TWO_TURNED:
                    copy_bytes(word, to + n * size, size)
                else:
                    turn_signs(word, to + n * size, to + (span + n) * size, bias, size)
            order += span * 8
            to += span * size
            if way >= TWO_TURNED:
                to += span * size
    return to - y
