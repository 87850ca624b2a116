"""Routines that turn strings into numbers: tries, byte pair encoding, WordPiece, Unigram, look-ups.

The trie: a table of 256 children of the root, and a hash table whose entries are (node, byte, child) in one
int64. Node 0 is the root. `values` has the number of the word that ends at a node, or -1.
"""

from ovjit.codegen.parts import block_routine, inline
from ovjit.codegen.words import f32, i32, i64, ld, registers, st, u8
from ovjit_ops.text.cpu_byte_steps import checked_ranges, copy_bytes
from ovjit_ops.text.cpu_native import FULL, LONG, OTHER
from ovjit_ops.text.cpu_split_steps import size_of_char

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
def words_at(text, at, end, root, table, mask, values):
    """Yield (number, end) of the words that begin at `at`, the shortest first."""
    node = 0
    position = at
    while position < end:
        node = child_of(node, ld[u8](text + position) + 0, root, table, mask)
        if node == 0:
            break
        position += 1
        number = ld[i32](values + node * 4) + 0
        if number != NONE:
            yield number, position


@inline
def longest_word(text, at, end, root, table, mask, values):
    """(number + 1) << 32 | end of the longest word at `at`; 0 without one."""
    longest = 0
    for number, position in words_at(text, at, end, root, table, mask, values):
        longest = ((number + 1) << 32) | position
    return longest


@block_routine
def build_trie(begins, ends, chars, words, size, numbers, root, table, mask, values):
    """Insert words and their numbers. Returns the number of nodes. `table` has room."""
    nodes = 1
    for k, at, end in checked_ranges(begins, ends, 0, words, size):
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
def find_value(table, start, key, mask):
    """The value of a key in a hash table of (key, value), i64s; 0 without one. `start`: the key's slot."""
    slot = start
    entry = ld(table, 2 * slot)
    while entry != 0 and entry != key:
        slot = (slot + 1) & mask
        entry = ld(table, 2 * slot)
    value = 0
    if entry == key:
        value = ld(table, 2 * slot + 1)
    return value


@inline
def put_value(table, start, key, value, mask):
    """Insert a key, or replace its value."""
    slot = start
    while ld(table, 2 * slot) != 0 and ld(table, 2 * slot) != key:
        slot = (slot + 1) & mask
    st[i64](table + slot * 16, key)
    st[i64](table + slot * 16 + 8, value)


@inline
def pair_slot(first, second, mask):
    return ((first * 0x9E3779B1) ^ (second * 0x85EBCA6B) ^ ((first * 0x9E3779B1) >> 15)) & mask


@block_routine
def build_pairs(lefts, rights, results, merges, table, mask):
    """Insert merges of two numbers. A later merge of the same pair replaces an earlier one. An entry is
    (left, right) + 1 and (rank, merged)."""
    for k in range(merges):
        first = ld[i32](lefts + k * 4) + 0
        second = ld[i32](rights + k * 4) + 0
        key = ((first << 32) | second) + 1
        slot = pair_slot(first, second, mask)
        put_value(table, slot, key, (k << 32) | ld[i32](results + k * 4), mask)
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


@block_routine
def encode_pairs(
    row_begins, row_ends, rows, begins, ends, chars, strings, size, new_begins, new_ends, ids, root, table,
    mask, values, pairs, pairs_mask, unknown, byte_tokens, suffix, suffix_size, joined, symbols, queue,
    cache, room, longest,
):  # fmt: skip
    """Byte pair encoding of ragged strings. Returns the number of ids, or an error.

    `byte_tokens`: their numbers or 0. `joined`, `symbols`, `queue`: scratch, for a string of `longest` bytes
    with its suffix. `cache` or 0. `room`: for ids.

    The cache: mask, number of entries, most entries, used bytes, most bytes, used ids, most ids; addresses of
    slots (i32), entries, bytes, ids. An entry: hash, begin and size of its bytes, begin and number of its
    ids.
    """
    w = registers()
    w["known"] = 0
    w["hash"] = 0
    w["slot"] = 0
    id_count = 0
    for row, first, last in checked_ranges(row_begins, row_ends, 0, rows, strings):
        st[i32](new_begins + row * 4, id_count)
        for _k, begin, end in checked_ranges(begins, ends, first, last, size):
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


@block_routine
def encode_pieces(
    row_begins, row_ends, rows, begins, ends, chars, strings, size, new_begins, new_ends, ids, root, table,
    mask, values, tail_root, tail_table, tail_mask, tail_values, unknown, longest, room,
):  # fmt: skip
    """WordPiece of ragged strings of at most `longest` bytes. Returns the number of ids, or an error."""
    id_count = 0
    for row, first, last in checked_ranges(row_begins, row_ends, 0, rows, strings):
        st[i32](new_begins + row * 4, id_count)
        for _k, at, end in checked_ranges(begins, ends, first, last, size):
            if id_count + end - at + 1 > room:
                return FULL
            start = id_count
            match = 0
            if end - at <= longest:
                match = longest_word(chars, at, end, root, table, mask, values)
            while match != 0 and (match & 0xFFFFFFFF) < end:
                st[i32](ids + id_count * 4, (match >> 32) - 1)
                id_count += 1
                at = match & 0xFFFFFFFF
                match = longest_word(chars, at, end, tail_root, tail_table, tail_mask, tail_values)
            if match != 0:
                st[i32](ids + id_count * 4, (match >> 32) - 1)
                id_count += 1
            else:
                st[i32](ids + start * 4, unknown)
                id_count = start + 1
        st[i32](new_ends + row * 4, id_count)
    return id_count


@block_routine
def encode_longest(
    row_begins, row_ends, rows, begins, ends, chars, strings, size, new_begins, new_ends, ids, root, table,
    mask, values, room,
):  # fmt: skip
    """Tokenize ragged strings greedily: at each position the longest word that matches. Returns the number of
    ids, or an error; OTHER - a byte that begins no word."""
    id_count = 0
    for row, first, last in checked_ranges(row_begins, row_ends, 0, rows, strings):
        st[i32](new_begins + row * 4, id_count)
        for _k, at, end in checked_ranges(begins, ends, first, last, size):
            if id_count + end - at > room:
                return FULL
            while at < end:
                match = longest_word(chars, at, end, root, table, mask, values)
                if match == 0:
                    return OTHER - ld[u8](chars + at)
                st[i32](ids + id_count * 4, (match >> 32) - 1)
                id_count += 1
                at = match & 0xFFFFFFFF
        st[i32](new_ends + row * 4, id_count)
    return id_count


@inline
def put_path(best, sources, numbers, end, score, begin, number):
    """Store the last word of the best path to `end`, and the path's score."""
    st[f32](best + end * 4, score)
    st[i32](sources + end * 4, begin)
    st[i32](numbers + end * 4, number)


@inline
def offer_path(best, sources, numbers, size, end, score, begin, number):
    """Store a path to `end` if there is none, or only worse ones."""
    st[f32](best + (size + 1) * 4, score)
    total = ld[f32](best + (size + 1) * 4) * 1.0  # rounded to f32
    if ld[i32](sources + end * 4) == -1 or total > ld[f32](best + end * 4) * 1.0:
        put_path(best, sources, numbers, end, total, begin, number)


@block_routine
def encode_paths(
    row_begins, row_ends, rows, begins, ends, chars, strings, chars_size, new_begins, new_ends, ids, root,
    table, mask, values, scores, unknown, penalty_at, best, sources, numbers, room, longest, cache,
):  # fmt: skip
    """Unigram: the words with the greatest sum of scores. Returns the number of ids, or an error.

    `penalty_at`: the address of the score of unknown characters. `best`, `sources`, `numbers`: scratch for
    each byte of a string of `longest` bytes and two more. `cache` or 0, see `encode_pairs`.
    """
    penalty = ld[f32](penalty_at) * 1.0
    w = registers()
    w["known"] = 0
    w["hash"] = 0
    w["slot"] = 0
    id_count = 0
    for row, first, last in checked_ranges(row_begins, row_ends, 0, rows, strings):
        st[i32](new_begins + row * 4, id_count)
        for _k, begin, end in checked_ranges(begins, ends, first, last, chars_size):
            text = chars + begin
            size = end - begin
            if id_count + size + 1 > room:
                return FULL
            if size > longest:
                return LONG
            find_known(w, cache, text, size)
            if w["known"] != 0:
                take_known(cache, w["known"], ids + id_count * 4)
                id_count += ld(w["known"], 4)
                size = 0
            for j in range(size + 1):
                put_path(best, sources, numbers, j, 0.0, -1, unknown)
            at = 0
            while at < size:
                count = size_of_char(ld[u8](text + at))
                count = min(count, size - at)
                score = ld[f32](best + at * 4) * 1.0
                covered = 0
                for number, position in words_at(text, at, size, root, table, mask, values):
                    total = ld[f32](scores + number * 4) * 1.0 + score
                    offer_path(best, sources, numbers, size, position, total, at, number)
                    if position - at == count:
                        covered = 1
                if covered == 0:
                    offer_path(best, sources, numbers, size, at + count, penalty + score, at, unknown)
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
                keep_known(w, cache, text, size, ids + start * 4, id_count - start)
        st[i32](new_ends + row * 4, id_count)
    return id_count


@block_routine
def look_up_words(begins, ends, chars, strings, size, root, table, mask, values, word_values, default, out):
    """The value of each string, i64: that of the word's number in `word_values`, or the default."""
    for k, at, end in checked_ranges(begins, ends, 0, strings, size):
        node = 0
        alive = 1
        while at < end and alive == 1:
            node = child_of(node, ld[u8](chars + at) + 0, root, table, mask)
            if node == 0:
                alive = 0
            at += 1
        value = default
        if alive == 1:
            number = ld[i32](values + node * 4) + 0
            if number != NONE:
                value = ld(word_values, number)
        st[i64](out + k * 8, value)
    return 0
