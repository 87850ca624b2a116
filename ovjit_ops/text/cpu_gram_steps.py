"""The routine that counts n-grams of words in texts.

N-grams are a trie of words: node 0 is no node, `first` has the node of an n-gram that begins with a word, and
a hash table has the children of nodes: (node << 32 | word) + 1, child. `columns` has the column of the n-gram
that ends at a node, or -1.
"""

from ovjit.codegen.parts import block_routine, inline
from ovjit.codegen.words import f32, i32, ld, st, u8
from ovjit_ops.text.cpu_word_steps import NONE, child_of, find_value, pair_slot, put_value


@inline
def following_of(node, word, table, mask):
    """The child of a node of n-grams; 0 without one."""
    slot = pair_slot(node, word, mask)
    child = find_value(table, slot, ((node << 32) | word) + 1, mask)
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
def count_row(words, count, row, table, mask, columns, first, longest, skips, binary):
    """Count the n-grams of the words of one text, up to `skips` words apart."""
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
                while size < longest and index < count and child != 0:
                    other = ld[i32](words + index * 4) + 0
                    if other == NONE:
                        child = 0
                    else:
                        child = following_of(child, other, table, mask)
                    if child != 0:
                        count_at(child, columns, row, binary)
                    index += step
                    size += 1


@block_routine
def build_grams(words, sizes, gram_columns, grams, first, table, mask, columns):
    """Insert n-grams: the words of all, their sizes, the columns of them (i32); `columns` are those of nodes.
    A later one replaces an equal one. Returns the number of nodes."""
    nodes = 1
    at = 0
    for k in range(grams):
        word = ld[i32](words + at * 4) + 0
        node = ld[i32](first + word * 4) + 0
        if node == 0:
            node = nodes
            nodes += 1
            st[i32](first + word * 4, node)
        end = at + ld[i32](sizes + k * 4)
        at += 1
        while at < end:
            word = ld[i32](words + at * 4) + 0
            child = following_of(node, word, table, mask)
            if child == 0:
                child = nodes
                nodes += 1
                slot = pair_slot(node, word, mask)
                put_value(table, slot, ((node << 32) | word) + 1, child, mask)
            node = child
            at += 1
        st[i32](columns + node * 4, ld[i32](gram_columns + k * 4))
    return nodes


@block_routine
def count_grams(
    chars, size, kinds, alone, shortest, root, table, mask, values, gram_table, gram_mask, columns, first,
    longest, skips, words, counts, width, binary,
):  # fmt: skip
    """Count n-grams of texts, which null characters separate. Returns the number of texts.

    `kinds`: each byte's value in words, 0 for those between words. `alone`: each byte is a word. `words`:
    memory for the words of a text (i32). `counts`: f32 [texts, width]. `binary`: each is counted once.
    """
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
                node = child_of(node, kind, root, table, mask)
                if node == 0:
                    alive = 0
            length += 1
        if length > 0 and (kind == 0 or alone != 0):
            if length >= shortest:
                number = NONE + 0
                if alive == 1:
                    number = ld[i32](values + node * 4) + 0
                st[i32](words + count * 4, number)
                count += 1
            length = 0
            node = 0
            alive = 1
        if byte == 0:
            row = counts + rows * width * 4
            count_row(words, count, row, gram_table, gram_mask, columns, first, longest, skips, binary)
            rows += 1
            count = 0
    return rows
