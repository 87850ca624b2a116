"""Routines that turn strings into numbers: tries, byte pair encoding, WordPiece, Unigram, look-ups.

The trie: a table of 256 children of the root, and a hash table whose entries are (node, byte, child) in one
int64. Node 0 is the root. `values` has the number of the word that ends at a node, or -1.
"""

from __future__ import annotations

from ovjit.codegen.parts import inline, routine
from ovjit.codegen.words import f32, i32, i64, ld, registers, st, u8
from ovjit_ops.text.cpu_byte_steps import copy_bytes
from ovjit_ops.text.cpu_native import FULL, LONG, OTHER, OUTSIDE

#: A number of a word that is none.
NONE = -1
#: Bytes of a symbol: number, symbols before and behind; of an entry of the queue; of an entry of the cache.
SYMBOL, ENTRY, KNOWN = 32, 24, 40


@inline
def slot_of(node, byte, mask):
    return ((node * 0x9E3779B1) ^ (byte * 0x85EBCA6B) ^ (node >> 7)) & mask


@inline
def child_of(node, byte, root, table, mask):
    """The child of a node; 0 without one."""
    child = 0
    if node == 0:
        child = ld[i32](root + byte * 4)
    else:
        key = (node << 8) | byte
        slot = slot_of(node, byte, mask)
        entry = ld(table, slot)
        while entry != 0 and (entry >> 32) != key:
            slot = (slot + 1) & mask
            entry = ld(table, slot)
        child = entry & 0xFFFFFFFF
    return child


@inline
def longest_word(text, at, end, root, table, mask, values):
    """(number + 1) << 32 | end of the longest word at `at`; 0 without one."""
    longest = 0
    node = 0
    position = at
    while position < end:
        node = child_of(node, ld[u8](text + position) + 0, root, table, mask)
        if node == 0:
            break
        position += 1
        number = ld[i32](values + node * 4) + 0
        if number != NONE:
            longest = ((number + 1) << 32) | position
    return longest


@routine
def build_trie(a, unused, unused2, unused3):
    """Insert words: begins, ends, bytes, count, size, numbers, root, table, mask, values. Returns the number
    of nodes. `table` has room."""
    begins = ld(a, 0)
    ends = ld(a, 1)
    chars = ld(a, 2)
    size = ld(a, 4)
    numbers = ld(a, 5)
    root = ld(a, 6)
    table = ld(a, 7)
    mask = ld(a, 8)
    values = ld(a, 9)
    nodes = 1
    for k in range(ld(a, 3)):
        at = ld[i32](begins + k * 4) + 0
        end = ld[i32](ends + k * 4) + 0
        if at < 0 or end < at or end > size:
            return OUTSIDE
        node = 0
        while at < end:
            byte = ld[u8](chars + at) + 0
            child = child_of(node, byte, root, table, mask)
            if child == 0:
                child = nodes
                nodes += 1
                st[i32](values + child * 4, NONE)
                if node == 0:
                    st[i32](root + byte * 4, child)
                else:
                    slot = slot_of(node, byte, mask)
                    while ld(table, slot) != 0:
                        slot = (slot + 1) & mask
                    st[i64](table + slot * 8, (((node << 8) | byte) << 32) | child)
            node = child
            at += 1
        st[i32](values + node * 4, ld[i32](numbers + k * 4))
    return nodes


@inline
def pair_slot(first, second, mask):
    return ((first * 0x9E3779B1) ^ (second * 0x85EBCA6B) ^ ((first * 0x9E3779B1) >> 15)) & mask


@routine
def build_pairs(a, unused, unused2, unused3):
    """Insert merges: left numbers, right numbers, merged numbers, count, table, mask. A later merge of the
    same pair replaces an earlier one. An entry is (left, right) + 1 and (rank, merged)."""
    table = ld(a, 4)
    mask = ld(a, 5)
    for k in range(ld(a, 3)):
        first = ld[i32](ld(a, 0) + k * 4) + 0
        second = ld[i32](ld(a, 1) + k * 4) + 0
        key = ((first << 32) | second) + 1
        slot = pair_slot(first, second, mask)
        while ld(table, 2 * slot) != 0 and ld(table, 2 * slot) != key:
            slot = (slot + 1) & mask
        st[i64](table + slot * 16, key)
        st[i64](table + slot * 16 + 8, (k << 32) | ld[i32](ld(a, 2) + k * 4))
    return 0


@inline
def put_entry(queue, at, key, symbols, merged):
    st[i64](queue + at * ENTRY, key)
    st[i64](queue + at * ENTRY + 8, symbols)
    st[i64](queue + at * ENTRY + 16, merged)


@inline
def rise(queue, start, key, symbols, merged):
    """Put an entry where `start` is free, below entries that come earlier."""
    hole = start
    while hole > 0 and ld(queue, 3 * ((hole - 1) >> 1)) > key:
        above = (hole - 1) >> 1
        put_entry(queue, hole, ld(queue, 3 * above), ld(queue, 3 * above + 1), ld(queue, 3 * above + 2))
        hole = above
    put_entry(queue, hole, key, symbols, merged)


@inline
def push_pair(queue, count, symbols, first, second, order, table, mask):
    """Queue the merge of two neighbouring symbols, if there is one. Returns the new length of the queue."""
    first_number = ld(symbols, 4 * first)
    second_number = ld(symbols, 4 * second)
    key = ((first_number << 32) | second_number) + 1
    slot = pair_slot(first_number, second_number, mask)
    entry = ld(table, 2 * slot)
    while entry != 0 and entry != key:
        slot = (slot + 1) & mask
        entry = ld(table, 2 * slot)
    new_count = count
    if entry == key:
        value = ld(table, 2 * slot + 1)
        rise(queue, count, (value >> 32 << 32) | order, (first << 32) | second, value & 0xFFFFFFFF)
        new_count = count + 1
    return new_count


@inline
def take_first(queue, count):
    """Remove the first of `count` entries, in the order of libstdc++'s heap."""
    last = count - 1
    key = ld(queue, 3 * last)
    symbols = ld(queue, 3 * last + 1)
    merged = ld(queue, 3 * last + 2)
    hole = 0
    child = 0
    while child < (last - 1) >> 1 and last > 1:
        child = 2 * (child + 1)
        if ld(queue, 3 * child) > ld(queue, 3 * (child - 1)):
            child -= 1
        put_entry(queue, hole, ld(queue, 3 * child), ld(queue, 3 * child + 1), ld(queue, 3 * child + 2))
        hole = child
    if last > 1 and last & 1 == 0 and child == (last - 2) >> 1:
        child = 2 * child + 1
        put_entry(queue, hole, ld(queue, 3 * child), ld(queue, 3 * child + 1), ld(queue, 3 * child + 2))
        hole = child
    if last > 0:
        rise(queue, hole, key, symbols, merged)


@inline
def hash_of(text, size):
    """A hash of bytes below 2**32."""
    h = 2166136261
    for k in range(size):
        h = ((h ^ ld[u8](text + k)) * 16777619) & 0xFFFFFFFF
    return h ^ (h >> 15)


@inline
def same_bytes(first, second, size):
    k = 0
    while k < size and ld[u8](first + k) == ld[u8](second + k):
        k += 1
    return k == size


@inline
def put_symbol(symbols, at, number, before, after):
    st[i64](symbols + at * SYMBOL, number)
    st[i64](symbols + at * SYMBOL + 8, before)
    st[i64](symbols + at * SYMBOL + 16, after)
    st[i64](symbols + at * SYMBOL + 24, 1)


@inline
def find_known(w, cache, text, size):
    """w["known"]: the entry of a string in a cache, or 0; w["hash"], w["slot"]: where it would be."""
    w["known"] = 0
    if cache != 0:
        h = hash_of(text, size)
        slot = h & ld(cache, 0)
        entry = ld[i32](ld(cache, 7) + slot * 4) + 0
        while entry != 0 and w["known"] == 0:
            record = ld(cache, 8) + (entry - 1) * KNOWN
            if ld(record, 0) == h and ld(record, 2) == size:
                same = same_bytes(ld(cache, 9) + ld(record, 1), text, size)
                if same:
                    w["known"] = record
            if w["known"] == 0:
                slot = (slot + 1) & ld(cache, 0)
                entry = ld[i32](ld(cache, 7) + slot * 4) + 0
        w["hash"] = h
        w["slot"] = slot


@inline
def take_known(cache, record, to):
    """Copy the ids of an entry."""
    source = ld(cache, 10) + ld(record, 3) * 4
    count = ld(record, 4)
    j = 0
    while j + 2 <= count:
        st[i64](to + j * 4, ld[i64](source + j * 4))
        j += 2
    if j < count:
        st[i32](to + j * 4, ld[i32](source + j * 4))


@inline
def keep_known(w, cache, text, size, ids, count):
    """Add a string and its ids to the cache, if there is room."""
    if cache != 0:
        fits = ld(cache, 1) < ld(cache, 2) and ld(cache, 3) + size <= ld(cache, 4)
        if fits and ld(cache, 5) + count <= ld(cache, 6):
            record = ld(cache, 8) + ld(cache, 1) * KNOWN
            st[i64](record, w["hash"])
            st[i64](record + 8, ld(cache, 3))
            st[i64](record + 16, size)
            st[i64](record + 24, ld(cache, 5))
            st[i64](record + 32, count)
            copy_bytes(ld(cache, 9) + ld(cache, 3), text, size)
            for j in range(count):
                st[i32](ld(cache, 10) + (ld(cache, 5) + j) * 4, ld[i32](ids + j * 4))
            st[i32](ld(cache, 7) + w["slot"] * 4, ld(cache, 1) + 1)
            st[i64](cache + 8, ld(cache, 1) + 1)
            st[i64](cache + 24, ld(cache, 3) + size)
            st[i64](cache + 40, ld(cache, 5) + count)


@routine
def encode_pairs(a, unused, unused2, unused3):
    """Byte pair encoding of ragged strings. Returns the number of ids, or an error.

    The block: begins and ends of rows, their number; begins, ends, bytes of strings, their number, the number
    of bytes; new begins, ends, ids; root, table, mask, values of the trie; table and mask of the merges; the
    number of unknown bytes; the numbers of byte tokens or 0; the suffix and its size; scratch for a string
    with its suffix, symbols, the queue; the cache or 0; room for ids; the longest string that the scratch has
    room for.

    The cache: mask, number of entries, most entries, used bytes, most bytes, used ids, most ids; addresses of
    slots (i32), entries, bytes, ids. An entry: hash, begin and size of its bytes, begin and number of its
    ids.
    """
    row_begins = ld(a, 0)
    row_ends = ld(a, 1)
    begins = ld(a, 3)
    ends = ld(a, 4)
    chars = ld(a, 5)
    strings = ld(a, 6)
    size = ld(a, 7)
    new_begins = ld(a, 8)
    new_ends = ld(a, 9)
    ids = ld(a, 10)
    root = ld(a, 11)
    table = ld(a, 12)
    mask = ld(a, 13)
    values = ld(a, 14)
    pairs = ld(a, 15)
    pairs_mask = ld(a, 16)
    unknown = ld(a, 17)
    byte_tokens = ld(a, 18)
    suffix = ld(a, 19)
    suffix_size = ld(a, 20)
    joined = ld(a, 21)
    symbols = ld(a, 22)
    queue = ld(a, 23)
    cache = ld(a, 24)
    room = ld(a, 25)
    longest = ld(a, 26)
    w = registers()
    w["known"] = 0
    w["hash"] = 0
    w["slot"] = 0
    id_count = 0
    for row in range(ld(a, 2)):
        first = ld[i32](row_begins + row * 4) + 0
        last = ld[i32](row_ends + row * 4) + 0
        if first < 0 or last < first or last > strings:
            return OUTSIDE
        st[i32](new_begins + row * 4, id_count)
        for k in range(first, last):
            begin = ld[i32](begins + k * 4) + 0
            end = ld[i32](ends + k * 4) + 0
            if begin < 0 or end < begin or end > size:
                return OUTSIDE
            length = end - begin
            if id_count + length + suffix_size > room:
                return FULL
            if length > longest:
                return LONG
            text = chars + begin
            find_known(w, cache, text, length)
            if w["known"] != 0:
                take_known(cache, w["known"], ids + id_count * 4)
                id_count += ld(w["known"], 4)
            else:
                string = text
                total = length
                if suffix_size > 0:
                    copy_bytes(joined, text, length)
                    copy_bytes(joined + length, suffix, suffix_size)
                    string = joined
                    total = length + suffix_size
                count = 0
                at = 0
                while at < total:
                    match = longest_word(string, at, total, root, table, mask, values)
                    number = NONE
                    if match != 0:
                        number = (match >> 32) - 1
                        at = match & 0xFFFFFFFF
                    else:
                        if byte_tokens != 0:
                            number = ld[i32](byte_tokens + ld[u8](string + at) * 4) + 0
                        if number == NONE:
                            number = unknown
                        at += 1
                    if number != NONE:
                        put_symbol(symbols, count, number, count - 1, count + 1)
                        count += 1
                head = 0
                if count > 0:
                    st[i64](symbols + (count - 1) * SYMBOL + 16, -1)
                else:
                    head = -1
                initial = count
                queued = 0
                for j in range(count - 1):
                    queued = push_pair(queue, queued, symbols, j, j + 1, j, pairs, pairs_mask)
                order = max(count - 1, 0)
                while queued > 0:
                    both = ld(queue, 1)
                    merged = ld(queue, 2)
                    take_first(queue, queued)
                    queued -= 1
                    left_symbol = both >> 32
                    right_symbol = both & 0xFFFFFFFF
                    if ld(symbols, 4 * left_symbol + 3) != 0 and ld(symbols, 4 * right_symbol + 3) != 0:
                        before = ld(symbols, 4 * left_symbol + 1)
                        after = ld(symbols, 4 * right_symbol + 2)
                        st[i64](symbols + left_symbol * SYMBOL + 24, 0)
                        st[i64](symbols + right_symbol * SYMBOL + 24, 0)
                        put_symbol(symbols, count, merged, before, after)
                        order += 1
                        if before == -1:
                            head = count
                        else:
                            st[i64](symbols + before * SYMBOL + 16, count)
                            queued = push_pair(
                                queue, queued, symbols, before, count, order, pairs, pairs_mask
                            )
                        if after != -1:
                            st[i64](symbols + after * SYMBOL + 8, count)
                            queued = push_pair(queue, queued, symbols, count, after, order, pairs, pairs_mask)
                        count += 1
                start = id_count
                while head != -1:
                    st[i32](ids + id_count * 4, ld(symbols, 4 * head))
                    id_count += 1
                    head = ld(symbols, 4 * head + 2)
                if initial > 0:
                    keep_known(w, cache, text, length, ids + start * 4, id_count - start)
        st[i32](new_ends + row * 4, id_count)
    return id_count


@routine
def encode_pieces(a, unused, unused2, unused3):
    """WordPiece of ragged strings. Returns the number of ids, or an error.

    The block: as that of `encode_pairs` up to the ids; root, table, mask, values of the heads; the same of
    the tails; the number of unknown words; the most bytes of a word; room for ids.
    """
    begins = ld(a, 3)
    ends = ld(a, 4)
    chars = ld(a, 5)
    ids = ld(a, 10)
    unknown = ld(a, 19)
    id_count = 0
    for row in range(ld(a, 2)):
        first = ld[i32](ld(a, 0) + row * 4) + 0
        last = ld[i32](ld(a, 1) + row * 4) + 0
        if first < 0 or last < first or last > ld(a, 6):
            return OUTSIDE
        st[i32](ld(a, 8) + row * 4, id_count)
        for k in range(first, last):
            at = ld[i32](begins + k * 4) + 0
            end = ld[i32](ends + k * 4) + 0
            if at < 0 or end < at or end > ld(a, 7):
                return OUTSIDE
            if id_count + end - at + 1 > ld(a, 21):
                return FULL
            start = id_count
            match = 0
            if end - at <= ld(a, 20):
                match = longest_word(chars, at, end, ld(a, 11), ld(a, 12), ld(a, 13), ld(a, 14))
            while match != 0 and (match & 0xFFFFFFFF) < end:
                st[i32](ids + id_count * 4, (match >> 32) - 1)
                id_count += 1
                at = match & 0xFFFFFFFF
                match = longest_word(chars, at, end, ld(a, 15), ld(a, 16), ld(a, 17), ld(a, 18))
            if match != 0:
                st[i32](ids + id_count * 4, (match >> 32) - 1)
                id_count += 1
            else:
                st[i32](ids + start * 4, unknown)
                id_count = start + 1
        st[i32](ld(a, 9) + row * 4, id_count)
    return id_count


@routine
def encode_longest(a, unused, unused2, unused3):
    """The longest words, one after another. Returns the number of ids, or an error; OTHER - a byte that
    begins no word.

    The block: as that of `encode_pairs` up to the ids; root, table, mask, values; room for ids.
    """
    chars = ld(a, 5)
    id_count = 0
    for row in range(ld(a, 2)):
        first = ld[i32](ld(a, 0) + row * 4) + 0
        last = ld[i32](ld(a, 1) + row * 4) + 0
        if first < 0 or last < first or last > ld(a, 6):
            return OUTSIDE
        st[i32](ld(a, 8) + row * 4, id_count)
        for k in range(first, last):
            at = ld[i32](ld(a, 3) + k * 4) + 0
            end = ld[i32](ld(a, 4) + k * 4) + 0
            if at < 0 or end < at or end > ld(a, 7):
                return OUTSIDE
            if id_count + end - at > ld(a, 15):
                return FULL
            while at < end:
                match = longest_word(chars, at, end, ld(a, 11), ld(a, 12), ld(a, 13), ld(a, 14))
                if match == 0:
                    return OTHER - ld[u8](chars + at)
                st[i32](ld(a, 10) + id_count * 4, (match >> 32) - 1)
                id_count += 1
                at = match & 0xFFFFFFFF
        st[i32](ld(a, 9) + row * 4, id_count)
    return id_count


@inline
def put_path(best, sources, numbers, end, score, begin, number):
    """Store the last word of the best path to `end`, and the path's score."""
    st[f32](best + end * 4, score)
    st[i32](sources + end * 4, begin)
    st[i32](numbers + end * 4, number)


@routine
def encode_paths(a, unused, unused2, unused3):
    """Unigram: the words with the greatest sum of scores. Returns the number of ids, or an error.

    The block: as that of `encode_pairs` up to the ids; root, table, mask, values; scores; the number of
    unknown characters and their score (at an address); scratch: best scores, sources and numbers, for each
    byte of the longest string and two more; room for ids; the longest string that the scratch has room for;
    the cache or 0.
    """
    chars = ld(a, 5)
    ids = ld(a, 10)
    root = ld(a, 11)
    table = ld(a, 12)
    mask = ld(a, 13)
    values = ld(a, 14)
    scores = ld(a, 15)
    unknown = ld(a, 16)
    penalty = ld[f32](ld(a, 17)) * 1.0
    best = ld(a, 18)
    sources = ld(a, 19)
    numbers = ld(a, 20)
    w = registers()
    w["known"] = 0
    w["hash"] = 0
    w["slot"] = 0
    id_count = 0
    for row in range(ld(a, 2)):
        first = ld[i32](ld(a, 0) + row * 4) + 0
        last = ld[i32](ld(a, 1) + row * 4) + 0
        if first < 0 or last < first or last > ld(a, 6):
            return OUTSIDE
        st[i32](ld(a, 8) + row * 4, id_count)
        for k in range(first, last):
            begin = ld[i32](ld(a, 3) + k * 4) + 0
            end = ld[i32](ld(a, 4) + k * 4) + 0
            if begin < 0 or end < begin or end > ld(a, 7):
                return OUTSIDE
            text = chars + begin
            size = end - begin
            if id_count + size + 1 > ld(a, 21):
                return FULL
            if size > ld(a, 22):
                return LONG
            find_known(w, ld(a, 23), text, size)
            if w["known"] != 0:
                take_known(ld(a, 23), w["known"], ids + id_count * 4)
                id_count += ld(w["known"], 4)
                size = 0
            for j in range(size + 1):
                put_path(best, sources, numbers, j, 0.0, -1, unknown)
            at = 0
            while at < size:
                byte = ld[u8](text + at) + 0
                count = 1
                if byte >= 0xF0:
                    count = 4
                elif byte >= 0xE0:
                    count = 3
                elif byte >= 0xC0:
                    count = 2
                count = min(count, size - at)
                score = ld[f32](best + at * 4) * 1.0
                covered = 0
                node = 0
                position = at
                while position < size:
                    node = child_of(node, ld[u8](text + position) + 0, root, table, mask)
                    if node == 0:
                        break
                    position += 1
                    number = ld[i32](values + node * 4) + 0
                    if number != NONE:
                        st[f32](best + (size + 1) * 4, ld[f32](scores + number * 4) * 1.0 + score)
                        total = ld[f32](best + (size + 1) * 4) * 1.0  # rounded to f32
                        if (
                            ld[i32](sources + position * 4) == -1
                            or total > ld[f32](best + position * 4) * 1.0
                        ):
                            put_path(best, sources, numbers, position, total, at, number)
                        if position - at == count:
                            covered = 1
                if covered == 0:
                    position = at + count
                    st[f32](best + (size + 1) * 4, penalty + score)
                    total = ld[f32](best + (size + 1) * 4) * 1.0
                    if ld[i32](sources + position * 4) == -1 or total > ld[f32](best + position * 4) * 1.0:
                        put_path(best, sources, numbers, position, total, at, unknown)
                at += count
            start = id_count
            at = size
            before = NONE
            while at > 0:
                number = ld[i32](numbers + at * 4) + 0
                if number != unknown or before != unknown:
                    st[i32](ids + id_count * 4, number)
                    id_count += 1
                    before = number
                at = ld[i32](sources + at * 4) + 0
            low = start
            high = id_count - 1
            while low < high:
                one = ld[i32](ids + low * 4) + 0
                st[i32](ids + low * 4, ld[i32](ids + high * 4))
                st[i32](ids + high * 4, one)
                low += 1
                high -= 1
            if size > 0:
                keep_known(w, ld(a, 23), text, size, ids + start * 4, id_count - start)
        st[i32](ld(a, 9) + row * 4, id_count)
    return id_count


@routine
def look_up_words(a, unused, unused2, unused3):
    """The value of each string: begins, ends, bytes, their number and size; root, table, mask, values; the
    values of numbers (i64), the default, the results (i64)."""
    chars = ld(a, 2)
    for k in range(ld(a, 3)):
        at = ld[i32](ld(a, 0) + k * 4) + 0
        end = ld[i32](ld(a, 1) + k * 4) + 0
        if at < 0 or end < at or end > ld(a, 4):
            return OUTSIDE
        node = 0
        alive = 1
        while at < end and alive == 1:
            node = child_of(node, ld[u8](chars + at) + 0, ld(a, 5), ld(a, 6), ld(a, 7))
            if node == 0:
                alive = 0
            at += 1
        value = ld(a, 10)
        if alive == 1:
            number = ld[i32](ld(a, 8) + node * 4) + 0
            if number != NONE:
                value = ld(ld(a, 9), number)
        st[i64](ld(a, 11) + k * 8, value)
    return 0
