"""Routines on bytes and rows: UTF-8 validation, byte tokens, characters of bytes, decoding, padding, joining.

Strings are begins, ends (i32) and bytes (u8). Results that are negative are errors (`cpu_native`).
"""

from ovjit.codegen.parts import block_routine, inline, routine
from ovjit.codegen.words import i32, i64, ld, st, u8
from ovjit_ops.text.cpu_native import FULL, OTHER, OUTSIDE


@inline
def copy_bytes(to, source, size):
    """Copy a few bytes: a loop over single ones costs more to begin than it takes."""
    k = 0
    while k + 8 <= size:
        st[i64](to + k, ld[i64](source + k))
        k += 8
    while k < size:
        st[u8](to + k, ld[u8](source + k))
        k += 1


@inline
def checked_ranges(begins, ends, start, stop, limit):
    """Yield (index, begin, end) of the ranges `start` to `stop` of i32 begins and ends. The routine returns
    OUTSIDE at one that is not within `limit` elements."""
    for index in range(start, stop):
        begin = ld[i32](begins + index * 4) + 0
        end = ld[i32](ends + index * 4) + 0
        if begin < 0 or end < begin or end > limit:
            return OUTSIDE
        yield index, begin, end


@inline
def put_replacement(to):
    """U+FFFD in UTF-8."""
    st[u8](to, 0xEF)
    st[u8](to + 1, 0xBF)
    st[u8](to + 2, 0xBD)


@inline
def length_of(head):
    """Bytes of a character by its first byte, as UTF8Validate has it; 0 for none."""
    count = 0
    if head < 0x80:
        count = 1
    elif head >> 5 == 6:
        count = 2
    elif head >> 4 == 14:
        count = 3
    elif head >> 3 == 30:
        count = 4
    return count


@block_routine
def validate_strings(begins, ends, chars, strings, size, new_begins, new_ends, out, replace):
    """Copy strings without what is not UTF-8, or with U+FFFD for it. Returns the number of new bytes, at most
    3 for each byte; with `out` 0, 1 if all strings are valid and follow each other."""
    checked = 0
    if out == 0:
        checked = 1
    out_size = 0
    for k, at, end in checked_ranges(begins, ends, 0, strings, size):
        if checked == 1 and at != out_size:
            return 0
        if checked == 0:
            st[i32](new_begins + k * 4, out_size)
        while at < end:
            head = ld[u8](chars + at) + 0
            count = length_of(head)
            if count == 1:
                if checked == 0:
                    st[u8](out + out_size, head)
                out_size += 1
                at += 1
            elif count == 0:
                if checked == 1:
                    return 0
                if replace != 0:
                    put_replacement(out + out_size)
                    out_size += 3
                at += 1
            else:
                point = head & (0xFF >> (count + 1))
                stop = at + 1
                while stop < end and stop < at + count and ld[u8](chars + stop) >> 6 == 2:
                    point = (point << 6) | (ld[u8](chars + stop) & 63)
                    stop += 1
                least = 0x80
                if count == 3:
                    least = 0x800
                elif count == 4:
                    least = 0x10000
                bad = 0
                if stop < at + count:
                    bad = 1
                elif point < least:
                    bad = count
                if bad > 0:
                    if checked == 1:
                        return 0
                    if replace != 0:
                        for j in range(bad):
                            put_replacement(out + out_size + 3 * j)
                        out_size += 3 * bad
                else:
                    if checked == 0:
                        copy_bytes(out + out_size, chars + at, count)
                    out_size += count
                at = stop
        if checked == 0:
            st[i32](new_ends + k * 4, out_size)
        elif out_size != end:
            return 0
    if checked == 1:
        if out_size != size:
            return 0
        return 1
    return out_size


@inline
def digit_of(byte):
    """The value of a hexadecimal digit with capital letters; -1 for others."""
    value = -1
    if byte >= 48 and byte < 58:
        value = byte - 48
    elif byte >= 65 and byte < 71:
        value = byte - 55
    return value


@block_routine
def put_byte_tokens(begins, ends, chars, strings, size, new_begins, new_ends, out):
    """Copy strings; one as `<0x0A>` becomes its byte. Returns the number of new bytes."""
    out_size = 0
    for k, at, end in checked_ranges(begins, ends, 0, strings, size):
        st[i32](new_begins + k * 4, out_size)
        token = 0
        if end - at == 6:
            if ld[u8](chars + at) == 60 and ld[u8](chars + at + 5) == 62:
                token = 1
        if token == 1:
            high = digit_of(ld[u8](chars + at + 3) + 0)
            low = digit_of(ld[u8](chars + at + 4) + 0)
            value = 255
            if ld[u8](chars + at + 1) == 48 and ld[u8](chars + at + 2) == 120 and high >= 0 and low >= 0:
                value = high * 16 + low
            st[u8](out + out_size, value)
            out_size += 1
        else:
            copy_bytes(out + out_size, chars + at, end - at)
            out_size += end - at
        st[i32](new_ends + k * 4, out_size)
    return out_size


@block_routine
def decode_words(ids, count, begins, ends, chars, words, chars_size, skips, new_begins, new_ends, out):
    """The words of ids; words that `skips` (u8) marks are empty. With `out` 0, only begins and ends are
    written. Returns the number of bytes."""
    out_size = 0
    for k in range(count):
        number = ld[i32](ids + k * 4) + 0
        size = 0
        at = 0
        if number >= 0 and number < words:
            if ld[u8](skips + number) == 0:
                at = ld[i32](begins + number * 4) + 0
                size = ld[i32](ends + number * 4) - at
                if at < 0 or size < 0 or at + size > chars_size:
                    return OUTSIDE
        if out != 0:
            copy_bytes(out + out_size, chars + at, size)
        else:
            st[i32](new_begins + k * 4, out_size)
            st[i32](new_ends + k * 4, out_size + size)
        out_size += size
    return out_size


@block_routine
def write_bytes_as_chars(begins, ends, chars, strings, size, new_begins, new_ends, out, table, skips):
    """Each byte as its character, `table`: the first byte, or both as first | second << 8. Strings that
    `skips` (u8, or 0) marks are copied. Returns the number of new bytes, at most 2 for each byte."""
    out_size = 0
    for k, at, end in checked_ranges(begins, ends, 0, strings, size):
        st[i32](new_begins + k * 4, out_size)
        skipped = 0
        if skips != 0:
            skipped = ld[u8](skips + k) + 0
        for j in range(at, end):
            byte = ld[u8](chars + j) + 0
            if skipped != 0:
                st[u8](out + out_size, byte)
                out_size += 1
            else:
                char = ld[i32](table + byte * 4) + 0
                st[u8](out + out_size, char & 255)
                out_size += 1
                if char > 255:
                    st[u8](out + out_size, char >> 8)
                    out_size += 1
        st[i32](new_ends + k * 4, out_size)
    return out_size


@block_routine
def write_chars_as_bytes(
    row_begins, row_ends, rows, begins, ends, chars, strings, size, new_begins, new_ends, out, table,
):  # fmt: skip
    """Join the strings of each row, with each character as its byte. `table`: i32, index
    (first byte & 3) << 6 | second byte & 63; -1 for none. Returns the number of new bytes, or OTHER for a
    character that stands for no byte."""
    out_size = 0
    for row, first, last in checked_ranges(row_begins, row_ends, 0, rows, strings):
        st[i32](new_begins + row * 4, out_size)
        for _k, at, end in checked_ranges(begins, ends, first, last, size):
            while at < end:
                byte = ld[u8](chars + at) + 0
                at += 1
                if byte >= 128:
                    if at >= end or byte < 0xC2 or byte > 0xC5:
                        return OTHER
                    second = ld[u8](chars + at) + 0
                    if second >> 6 != 2:
                        return OTHER
                    byte = ld[i32](table + (((byte - 0xC2) << 6) | (second & 63)) * 4) + 0
                    at += 1
                    if byte < 0:
                        return OTHER
                st[u8](out + out_size, byte)
                out_size += 1
        st[i32](new_ends + row * 4, out_size)
    return out_size


@block_routine
def pad_rows(row_begins, row_ends, rows, data, elements, length, fill, out, masks, pad_right, keep_length):
    """Dense rows of `length` i32s, and masks (u8) of those that are not `fill`. `keep_length`: all rows have
    that length."""
    for row in range(rows):
        first = ld[i32](row_begins + row * 4) + 0
        last = ld[i32](row_ends + row * 4) + 0
        count = min(last - first, length)
        if keep_length != 0:
            count = length
        if first < 0 or last < first or last > elements or first + count > elements:
            return OUTSIDE
        to = out + row * length * 4
        mask = masks + row * length
        before = 0
        if pad_right == 0:
            before = length - count
        for j in range(before):
            st[i32](to + j * 4, fill)
            st[u8](mask + j, 0)
        for j in range(count):
            st[i32](to + (before + j) * 4, ld[i32](data + (first + j) * 4))
            st[u8](mask + before + j, 1)
        for j in range(before + count, length):
            st[i32](to + j * 4, fill)
            st[u8](mask + j, 0)
    return 0


@routine
def join_rows(a, unused, unused2, unused3):
    """Join the strings of several parts row by row. Returns the number of new elements, or an error.
    Arguments at `a`: numbers of rows and of parts; ids of parts (i32); new begins, ends, elements, ids, room
    for elements. Then for each part: begins, ends, number of rows, elements (i32), their number."""
    out = ld(a, 5)
    numbers = ld(a, 6)
    out_size = 0
    for row in range(ld(a, 0)):
        st[i32](ld(a, 3) + row * 4, out_size)
        for part in range(ld(a, 1)):
            at = a + (8 + 5 * part) * 8
            part_row = 0
            if ld(at, 2) > 1:
                part_row = row
            first = ld[i32](ld(at, 0) + part_row * 4) + 0
            last = ld[i32](ld(at, 1) + part_row * 4) + 0
            if first < 0 or last < first or last > ld(at, 4):
                return OUTSIDE
            if out_size + last - first > ld(a, 7):
                return FULL
            number = ld[i32](ld(a, 2) + part * 4) + 0
            for j in range(last - first):
                st[i32](out + (out_size + j) * 4, ld[i32](ld(at, 3) + (first + j) * 4))
                st[i32](numbers + (out_size + j) * 4, number)
            out_size += last - first
        st[i32](ld(a, 4) + row * 4, out_size)
    return out_size
