"""The routine of SentencePiece's normalizer (`character_maps`).

A table is one of three kinds: none; a normalization form; a double array. That of a form has, for each
character, the text that replaces it, and a tree of sequences of characters. Characters that decompose to one
character are that character in the tree. Values of characters are in pages of 256.
"""

from ovjit.codegen.parts import block_routine, inline
from ovjit.codegen.words import i32, ld, registers, st, u8, u32
from ovjit_ops.text.cpu_byte_steps import checked_ranges, copy_bytes
from ovjit_ops.text.cpu_native import FULL
from ovjit_ops.text.cpu_split_steps import point_of_char, valid_size
from ovjit_ops.text.cpu_word_steps import find_value, put_value

NO_TABLE, FORM, DOUBLE_ARRAY = range(3)
_LEAF, _VALUE, _LABEL = 1 << 8, (1 << 31) - 1, (1 << 31) | 0xFF


@inline
def value_of(pages, values, point):
    """The value of a character."""
    return ld[i32](values + ((ld[i32](pages + (point >> 8) * 4) << 8) | (point & 255)) * 4) + 0


@inline
def branch_of(node, point, tree, mask):
    """The child of a node of the tree for a character; 0 without one. An entry is node, point and child."""
    slot = ((node * 0x9E3779B1) ^ (point * 0x85EBCA6B) ^ (point >> 9)) & mask
    child = find_value(tree, slot, (node << 21) | point, mask)
    return child


@block_routine
def build_tree(points, stops, numbers, sequences, tree, mask, node_values):
    """Insert sequences of points (i32), which end at `stops`, and their numbers (i32), which become
    `node_values`. Returns the number of nodes. The root is node 1."""
    nodes = 2
    at = 0
    for k in range(sequences):
        node = 1
        while at < ld[i32](stops + k * 4):
            point = ld[i32](points + at * 4) + 0
            child = branch_of(node, point, tree, mask)
            if child == 0:
                child = nodes
                nodes += 1
                slot = ((node * 0x9E3779B1) ^ (point * 0x85EBCA6B) ^ (point >> 9)) & mask
                put_value(tree, slot, (node << 21) | point, child, mask)
                st[i32](node_values + child * 4, 0)
            node = child
            at += 1
        st[i32](node_values + node * 4, ld[i32](numbers + k * 4))
    return nodes


@inline
def find_entry(w, text, size, at, kind, t):
    """w["count"]: the bytes of the longest key at `at`, or 0; w["from"], w["size"]: what replaces it."""
    w["count"] = 0
    if kind == FORM:
        position = at
        node = 1
        first = 1
        while position < size:
            count = valid_size(text, size, position)
            if count == 0:
                break
            point = point_of_char(text, position, count)
            number = 0
            if first == 1:
                number = value_of(ld(t, 0), ld(t, 1), point)
            like = value_of(ld(t, 2), ld(t, 3), point)
            if like == 0:
                like = point
            node = branch_of(node, like, ld(t, 4), ld(t, 5))
            position += count
            if node != 0 and first == 0:
                number = ld[i32](ld(t, 6) + node * 4) + 0
            if number != 0:
                w["count"] = position - at
                w["from"] = ld(t, 9) + ld[i32](ld(t, 7) + number * 4)
                w["size"] = ld[i32](ld(t, 8) + number * 4) + 0
            first = 0
            if node == 0:
                break
    else:
        units = ld(t, 0)
        total = ld(t, 1)
        unit = ld[u32](units) + 0
        node = (unit >> 10) << ((unit & 512) >> 6)
        position = at
        while position < size:
            byte = ld[u8](text + position) + 0
            node = node ^ byte
            if node >= total:
                break
            unit = ld[u32](units + node * 4) + 0
            if unit & _LABEL != byte:
                break
            node = node ^ ((unit >> 10) << ((unit & 512) >> 6))
            position += 1
            if unit & _LEAF != 0 and node < total:
                offset = ld[u32](units + node * 4) & _VALUE
                if offset < ld(t, 3):
                    w["count"] = position - at
                    w["from"] = ld(t, 2) + offset
        if w["count"] > 0:
            length = 0
            while ld[u8](w["from"] + length) != 0:  # the last text ends with a zero, too
                length += 1
            w["size"] = length


@inline
def take_step(w, text, size, at, kind, t, plain):
    """Find the replacement of the text at byte `at`: w["count"] bytes are read, and w["size"] bytes at the
    address w["from"] replace them. `kind`, `t`: the table. `plain`: for each byte below 128, whether nothing
    replaces it; then U+FFFD, for invalid bytes."""
    head = ld[u8](text + at) + 0
    quick = 0
    if head < 0x80:
        if ld[u8](plain + head) != 0:
            quick = 1
            if at + 1 < size:
                if ld[u8](text + at + 1) >= 0x80:
                    quick = 0
    w["count"] = 0
    if quick == 1:
        w["count"] = 1
        w["from"] = text + at
        w["size"] = 1
    elif kind != NO_TABLE:
        find_entry(w, text, size, at, kind, t)
    if w["count"] == 0:
        count = valid_size(text, size, at)
        w["from"] = text + at
        w["size"] = count
        w["count"] = count
        if count == 0:
            w["from"] = plain + 128  # U+FFFD
            w["size"] = 3
            w["count"] = 1


@inline
def put_lower_block(out, at):
    """Store U+2581, which stands for a blank."""
    st[u8](out + at, 0xE2)
    st[u8](out + at + 1, 0x96)
    st[u8](out + at + 2, 0x81)


@block_routine
def normalize_strings(
    begins, ends, chars, strings, chars_size, skips, kind, t, plain, dummy, remove, escape, new_begins,
    new_ends, out, room,
):  # fmt: skip
    """Normalize strings by a table of a kind, `t`: its addresses. Returns the number of new bytes, or an
    error.

    `skips`: marks (u8) of strings that are kept, or 0. `plain`: for each byte of ASCII whether it stands for
    itself if ASCII follows, then U+FFFD. `dummy`: a blank is put in front; `remove`: blanks are dropped;
    `escape`: they are written as U+2581. `room`: for bytes.
    """
    w = registers()
    w["from"] = 0
    w["size"] = 0
    w["count"] = 0
    out_size = 0
    for k, start, stop in checked_ranges(begins, ends, 0, strings, chars_size):
        st[i32](new_begins + k * 4, out_size)
        text = chars + start
        size = stop - start
        skip = 0
        if skips != 0:
            skip = ld[u8](skips + k) + 0
        before = out_size
        if out_size + size + 8 > room:
            return FULL
        if skip != 0:
            copy_bytes(out + out_size, text, size)
            out_size += size
        else:
            at = 0
            leading = remove
            while leading != 0 and at < size:
                take_step(w, text, size, at, kind, t, plain)
                leading = 0
                if w["size"] == 1:
                    if ld[u8](w["from"]) == 32:
                        leading = 1
                        at += w["count"]
            if at < size and dummy != 0:
                if escape != 0:
                    put_lower_block(out, out_size)
                    out_size += 3
                else:
                    st[u8](out + out_size, 32)
                    out_size += 1
            after = remove
            while at < size:
                take_step(w, text, size, at, kind, t, plain)
                if out_size + 3 * w["size"] + 8 > room:
                    return FULL
                j = 0
                if after != 0:
                    while j < w["size"] and ld[u8](w["from"] + j) == 32:
                        j += 1
                if j < w["size"]:
                    after = 0
                    if ld[u8](w["from"] + w["size"] - 1) == 32:
                        after = 1
                while j < w["size"]:
                    byte = ld[u8](w["from"] + j) + 0
                    if byte == 32 and escape != 0:
                        put_lower_block(out, out_size)
                        out_size += 3
                    else:
                        st[u8](out + out_size, byte)
                        out_size += 1
                    j += 1
                if remove == 0:
                    after = 0
                at += w["count"]
            if remove != 0:
                going = 1
                while going == 1:
                    going = 0
                    if escape != 0:
                        if out_size - before >= 3:
                            if ld[u8](out + out_size - 3) == 0xE2 and ld[u8](out + out_size - 2) == 0x96:
                                if ld[u8](out + out_size - 1) == 0x81:
                                    out_size -= 3
                                    going = 1
                    elif out_size > before:
                        if ld[u8](out + out_size - 1) == 32:
                            out_size -= 1
                            going = 1
        st[i32](new_ends + k * 4, out_size)
    return out_size
