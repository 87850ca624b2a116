"""Routines that find the matches of an automaton (`automata`) in strings: pieces, marks, replacements.

An automaton: classes, table, columns, the states at the start and elsewhere. In front of the classes is a
table of bytes: 1 for those that may begin a match.
"""

from ovjit.codegen.parts import block_routine, inline
from ovjit.codegen.words import i32, i64, ld, st, u8
from ovjit_ops.text.cpu_byte_steps import checked_ranges, copy_bytes
from ovjit_ops.text.cpu_native import FULL

#: The highest bit of each of 8 bytes.
_HIGH = -0x7F7F7F7F7F7F7F80
#: Behaviours of RegexSplit, as `splits.BEHAVIOURS` has them.
REMOVE, ISOLATE, CONTIGUOUS, WITH_PREVIOUS, WITH_NEXT = range(5)


@inline
def size_of_char(head):
    """The bytes of a valid character, by its first byte."""
    count = 1
    if head >= 0xF0:
        count = 4
    elif head >= 0xE0:
        count = 3
    elif head >= 0xC0:
        count = 2
    return count


@inline
def valid_size(text, size, at):
    """The bytes of the character at `at`; 0 if they are not UTF-8."""
    head = ld[u8](text + at) + 0
    count = 1
    if head >= 0x80:
        count = size_of_char(head)
        if head < 0xC2 or head > 0xF4 or at + count > size:
            count = 0
        else:
            second = ld[u8](text + at + 1) + 0
            good = 1
            for j in range(1, count):
                if ld[u8](text + at + j) >> 6 != 2:
                    good = 0
            if head == 0xE0 and second < 0xA0:
                good = 0
            if head == 0xED and second > 0x9F:
                good = 0
            if head == 0xF0 and second < 0x90:
                good = 0
            if head == 0xF4 and second > 0x8F:
                good = 0
            if good == 0:
                count = 0
    return count


@inline
def point_of_char(text, at, count):
    """The code point of a valid character of `count` bytes."""
    point = ld[u8](text + at) + 0
    if count == 2:
        point = ((point & 31) << 6) | (ld[u8](text + at + 1) & 63)
    elif count == 3:
        second = ld[u8](text + at + 1) & 63
        point = ((point & 15) << 12) | (second << 6) | (ld[u8](text + at + 2) & 63)
    elif count == 4:
        second = ld[u8](text + at + 1) & 63
        third = ld[u8](text + at + 2) & 63
        point = ((point & 7) << 18) | (second << 12) | (third << 6) | (ld[u8](text + at + 3) & 63)
    return point


@inline
def is_valid_text(text, size):
    """1 if the bytes are UTF-8, without surrogates, overlong forms and numbers above 10FFFF."""
    good = 1
    at = 0
    while at < size and good == 1:
        head = ld[u8](text + at) + 0
        if head < 0x80:
            at += 1
            while at + 8 <= size and ld[i64](text + at) & _HIGH == 0:
                at += 8
        else:
            count = valid_size(text, size, at)
            good = min(count, 1)
            at += count
    return good


@inline
def match_at(text, size, begin, state0, classes, table, columns):
    """The end of the match that begins at `begin`; -1 without one."""
    match_end = -1
    state = state0
    position = begin
    while state != 0:
        column = columns - 1
        count = 0
        if position < size:
            head = ld[u8](text + position) + 0
            if head < 0x80:
                count = 1
                column = ld[u8](classes + head) + 0
                if head == 10 and position + 1 == size:
                    column = columns - 2
            else:
                count = size_of_char(head)
                point = 0xFFFD
                if position + count > size:  # of texts that are not UTF-8
                    count = size - position
                else:
                    point = point_of_char(text, position, count)
                column = ld[u8](classes + min(point, 0x10FFFF)) + 0
        entry = ld[i32](table + (state * columns + column) * 4) + 0
        if entry & 1 != 0:
            match_end = position
        state = entry >> 1
        if position >= size:
            state = 0
        position += count
    return match_end


@inline
def next_match(text, size, start, classes, table, columns, first, other):
    """begin << 32 | end of the first match from `start`; -1 if there is none, or one of no bytes."""
    span = -1
    begin = start
    while begin <= size:
        state = other
        if begin == 0:
            state = first
        else:
            while begin < size and ld[u8](classes + ld[u8](text + begin) - 256) == 0:
                begin += 1
        end = match_at(text, size, begin, state, classes, table, columns)
        if end >= 0:
            if end > begin:
                span = (begin << 32) | end
            break
        if begin == size:
            break
        head = ld[u8](text + begin) + 0
        step = size_of_char(head)
        begin = min(begin + step, size)
    return span


@inline
def put_piece(begins, ends, marks, pieces, begin, end, mark):
    """Store a piece after the first `pieces` ones."""
    st[i32](begins + pieces * 4, begin)
    st[i32](ends + pieces * 4, end)
    st[u8](marks + pieces, mark)


@block_routine
def split_strings(
    begins, ends, chars, strings, chars_size, classes, table, columns, first_state, other_state, row_begins,
    row_ends, rows, skips, behaviour, invert, most, match_mark, new_begins, new_ends, to_begins, to_ends,
    marks, room,
):  # fmt: skip
    """Cut ragged strings in pieces with marks (u8). Returns the number of pieces, or an error. `skips`: marks
    (u8) of strings that are kept whole, or 0. `most`: splits of a string. `match_mark`: that of matches.
    `room`: for pieces."""
    pieces = 0
    for row, first, last in checked_ranges(row_begins, row_ends, 0, rows, strings):
        st[i32](new_begins + row * 4, pieces)
        for k, start, stop in checked_ranges(begins, ends, first, last, chars_size):
            size = stop - start
            text = chars + start
            mark = 0
            if pieces + 2 > room:
                return FULL
            if skips != 0:
                mark = ld[u8](skips + k) + 0
            if mark != 0:
                put_piece(to_begins, to_ends, marks, pieces, start, stop, 1)
                pieces += 1
            else:
                before = pieces
                remembered = -1
                at = 0
                searching = is_valid_text(text, size)
                going = 1
                while going == 1:
                    if pieces + 2 > room:
                        return FULL
                    # a gap, then a match; the last gap is what follows the last match
                    span = -1
                    if searching == 1:
                        span = next_match(text, size, at, classes, table, columns, first_state, other_state)
                    match_begin = size
                    match_end = size
                    if span >= 0:
                        match_begin = span >> 32
                        match_end = span & 0xFFFFFFFF
                    for part in range(2):
                        begin = at
                        end = match_begin
                        match = invert
                        if part == 1:
                            begin = match_begin
                            end = match_end
                            match = 1 - invert
                        there = 1
                        if begin == end:
                            there = 0
                        if part == 1 and span < 0:
                            there = 0
                            if behaviour == WITH_NEXT and at >= size and remembered != size:
                                # the last match is a piece, although it has nothing after it
                                there = 1
                                match = invert
                                begin = remembered
                                end = size
                        if there == 1:
                            emit = 1
                            if behaviour == REMOVE:
                                if match == 1:
                                    emit = 0
                            elif behaviour == WITH_PREVIOUS:
                                if match == 0 and end != size:
                                    remembered = begin
                                    emit = 0
                                elif match == 1:
                                    begin = remembered
                            elif behaviour == WITH_NEXT:
                                if match == 1:
                                    remembered = begin
                                    emit = 0
                                elif remembered != -1:
                                    begin = remembered
                            if emit == 1:
                                if pieces - before == most:
                                    end = size
                                begin = start + max(begin, 0)
                                end = start + min(end, size)
                                put_piece(to_begins, to_ends, marks, pieces, begin, end, match * match_mark)
                                pieces += 1
                    at = match_end
                    if span < 0:
                        going = 0
        st[i32](new_ends + row * 4, pieces)
    return pieces


@block_routine
def replace_matches(
    begins, ends, chars, strings, chars_size, classes, table, columns, first_state, other_state, skips,
    replace_all, front, front_size, keep_match, back, back_size, template_size, new_begins, new_ends, out,
    room,
):  # fmt: skip
    """Replace matches in strings. Returns the number of new bytes, or an error.

    `skips`: marks (u8) of strings that are kept, or 0. `front`, `back`: texts around what is kept of a match.
    `template_size`: that of the template times the number of groups. `room`: for bytes. A string whose result
    is larger than the package's buffer stays as it is.
    """
    out_size = 0
    for k, start, stop in checked_ranges(begins, ends, 0, strings, chars_size):
        size = stop - start
        text = chars + start
        before = out_size
        at = 0
        going = 1  # in texts that are not UTF-8, too, as in the package
        if skips != 0:
            if ld[u8](skips + k) != 0:
                going = 0
        while going == 1:
            span = next_match(text, size, at, classes, table, columns, first_state, other_state)
            if span < 0:
                going = 0
            else:
                begin = span >> 32
                end = span & 0xFFFFFFFF
                if out_size + end - at + front_size + back_size > room:
                    return FULL
                copy_bytes(out + out_size, text + at, begin - at)
                out_size += begin - at
                copy_bytes(out + out_size, front, front_size)
                out_size += front_size
                if keep_match != 0:
                    copy_bytes(out + out_size, text + begin, end - begin)
                    out_size += end - begin
                    copy_bytes(out + out_size, back, back_size)
                    out_size += back_size
                at = end
                if replace_all == 0:
                    going = 0
        if out_size + size - at > room:
            return FULL
        copy_bytes(out + out_size, text + at, size - at)
        out_size += size - at
        if out_size - before > 4 * (size + template_size):
            out_size = before
            copy_bytes(out + out_size, text, size)
            out_size += size
        st[i32](new_begins + k * 4, before)
        st[i32](new_ends + k * 4, out_size)
    return out_size
