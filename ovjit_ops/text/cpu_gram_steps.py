"""The routine that counts n-grams of words in texts.

N-grams are a trie of words: node 0 is no node, `first` has the node of an n-gram that begins with a word, and
a hash table has the children of nodes: (node << 32 | word) + 1, child. `columns` has the column of the n-gram
that ends at a node, or -1.
"""

from __future__ import annotations

from ovjit.codegen.parts import inline, routine
from ovjit.codegen.words import f32, i32, i64, ld, st, u8
from ovjit_ops.text.cpu_word_steps import NONE, child_of, pair_slot


@inline
def following_of(node, word, table, mask):
    """The child of a node of n-grams; 0 without one."""
    key = ((node << 32) | word) + 1
    slot = pair_slot(node, word, mask)
    entry = ld(table, 2 * slot)
    while entry != 0 and entry != key:
        slot = (slot + 1) & mask
        entry = ld(table, 2 * slot)
    child = 0
    if entry == key:
        child = ld(table, 2 * slot + 1)
    return child


@inline
def count_at(node, columns, row, binary):
    """Count the n-gram that ends at a node."""
    column = ld[i32](columns + node * 4) + 0
    if column != NONE:
        total = ld[f32](row + column * 4) + 1.0
        if binary != 0:
            total = 1.0
        st[f32](row + column * 4, total)


@inline
def count_row(a, words, count, row):
    """Count the n-grams of the words of one text, up to `skips` words apart."""
    first = ld(a, 12)
    columns = ld(a, 11)
    most = ld(a, 13)
    skips = ld(a, 14)
    binary = ld(a, 18)
    for i in range(count):
        word = ld[i32](words + i * 4) + 0
        node = 0
        if word != NONE:
            node = ld[i32](first + word * 4) + 0
        if node != 0:
            count_at(node, columns, row, binary)
            for step in range(1, skips + 2):
                child = node
                size = 1
                index = i + step
                while size < most and index < count and child != 0:
                    other = ld[i32](words + index * 4) + 0
                    if other == NONE:
                        child = 0
                    else:
                        child = following_of(child, other, ld(a, 9), ld(a, 10))
                    if child != 0:
                        count_at(child, columns, row, binary)
                    index += step
                    size += 1


@routine
def build_grams(a, unused, unused2, unused3):
    """Insert n-grams: words of all (i32), their sizes (i32), columns of them (i32), their number; first,
    table, mask, columns of nodes. A later one replaces an equal one. Returns the number of nodes."""
    words = ld(a, 0)
    first = ld(a, 4)
    table = ld(a, 5)
    mask = ld(a, 6)
    columns = ld(a, 7)
    nodes = 1
    at = 0
    for k in range(ld(a, 3)):
        word = ld[i32](words + at * 4) + 0
        node = ld[i32](first + word * 4) + 0
        if node == 0:
            node = nodes
            nodes += 1
            st[i32](first + word * 4, node)
        end = at + ld[i32](ld(a, 1) + k * 4)
        at += 1
        while at < end:
            word = ld[i32](words + at * 4) + 0
            child = following_of(node, word, table, mask)
            if child == 0:
                child = nodes
                nodes += 1
                slot = pair_slot(node, word, mask)
                while ld(table, 2 * slot) != 0:
                    slot = (slot + 1) & mask
                st[i64](table + slot * 16, ((node << 32) | word) + 1)
                st[i64](table + slot * 16 + 8, child)
            node = child
            at += 1
        st[i32](columns + node * 4, ld[i32](ld(a, 2) + k * 4))
    return nodes


@routine
def count_grams(a, unused, unused2, unused3):
    """Count n-grams of texts, which null characters separate: 0 bytes, their number; 2 what each byte is in
    words, 0 for those between words; 3 whether each byte is a word; 4 the shortest word; 5 root, table, mask,
    values of the trie of words; 9 table, mask, columns, first of n-grams, the longest n-gram; 14 skips,
    memory for words (i32), 16 the counts (f32), their width; 18 whether each is counted once. Returns the
    number of texts."""
    chars = ld(a, 0)
    size = ld(a, 1)
    kinds = ld(a, 2)
    alone = ld(a, 3)
    words = ld(a, 15)
    rows = 0
    count = 0
    length = 0
    node = 0
    alive = 1
    for at in range(size + 1):
        byte = 0
        if at < size:
            byte = ld[u8](chars + at) + 0
        kind = ld[u8](kinds + byte) + 0
        if kind != 0:
            if alive == 1:
                node = child_of(node, kind, ld(a, 5), ld(a, 6), ld(a, 7))
                if node == 0:
                    alive = 0
            length += 1
        if length > 0 and (kind == 0 or alone != 0):
            if length >= ld(a, 4):
                number = NONE + 0
                if alive == 1:
                    number = ld[i32](ld(a, 8) + node * 4) + 0
                st[i32](words + count * 4, number)
                count += 1
            length = 0
            node = 0
            alive = 1
        if byte == 0:
            count_row(a, words, count, ld(a, 16) + rows * ld(a, 17) * 4)
            rows += 1
            count = 0
    return rows
