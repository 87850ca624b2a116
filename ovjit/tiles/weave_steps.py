"""The native functions behind `ovjit.tiles.weave`: rows of a matrix become panels."""

from ovjit.codegen.parts import routine
from ovjit.codegen.words import Word, ld

transpose = Word("transpose")
flip_bits, spread_nibbles, flush_tiny = Word("flip_bits"), Word("spread_nibbles"), Word("flush_tiny")
flush_halves, turn_bytes, turn_pairs = Word("flush_halves"), Word("turn_bytes"), Word("turn_pairs")
round_f32, round_f16 = Word("round_f32"), Word("round_f16")
filter_planes = Word("filter_planes")

#: What is done to words once they are in their place. BYTES and PAIRS spread them first.
AS_THEY_ARE, SPREAD, FLUSH, FLUSH_HALVES, BYTES, PAIRS = range(6)


@routine
def weave(x, y, sizes, change):
    """y[panel][a][b] = x[panel, b][a] for words of `size` bytes, and `change` of what was written.

    `sizes`: bytes from row to row of x, rows of a panel, words of a row, panels, bytes of a word, lanes of a
    vector, bits that are flipped.
    """
    row_step = ld(sizes, 0)
    width = ld(sizes, 1)
    words = ld(sizes, 2)
    panels = ld(sizes, 3)
    size = ld(sizes, 4)
    lanes = ld(sizes, 5)
    mask = ld(sizes, 6)
    line = width * size
    p = x
    q = y
    for _panel in range(panels):
        a = 0
        while a < words:
            b = 0
            while b < width:
                transpose(p + b * row_step + a * size, row_step, width - b, q + b * size, line, words - a)
                b += lanes
            written = min(lanes, words - a) * line
            if mask != 0:
                flip_bits(q, written, mask)
            if change == SPREAD or change >= BYTES:
                spread_nibbles(q, written)
            if change == FLUSH:
                flush_tiny(q, written)
            if change == FLUSH_HALVES:
                flush_halves(q, written)
            if change == BYTES:
                turn_bytes(q, written)
            if change == PAIRS:
                turn_pairs(q, written)
            q += written
            a += lanes
        p += width * row_step
    return 0


@routine
def round_rows(x, y, count, size):
    """y = bf16 of `count` f32, or of f16 where an element has 2 bytes; subnormals are zeros."""
    if size == 4:
        round_f32(x, y, count)
    else:
        round_f16(x, y, count)
    return 0


@routine
def transform_filters(x, y, sizes, unused):
    """y[plane][word][b] = the planes of G w G' of filters w = x[channel][tap][b] in f32.

    `sizes`: words, outputs of a panel, bytes from plane to plane, channels of a word.
    """
    words = ld(sizes, 0)
    line = ld(sizes, 1) * 4
    plane = ld(sizes, 2)
    p = x
    q = y
    taps = 9 * ld(sizes, 3)
    for _word in range(words):
        filter_planes(p, q, line, plane)
        p += taps * line
        q += line
    return 0
