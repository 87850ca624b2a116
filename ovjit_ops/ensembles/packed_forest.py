"""The memory layout of a forest for its kernels.

**Records**, to go down a tree. They are in breadth-first order, and both children of a node are adjacent,
the true child first, so that a record names one distance: that to its true child. It is a threshold and a
link:

    inner node    feature | flags << bits of features | distance << (bits of features + 4)
    leaf          0 | IS_LEAF << bits of features | -1 << (bits of features + 4)

The flags tell whether lower, equal and NaN features take the true child. A leaf's threshold is NaN, so that
a step from it takes the "false child", which is the leaf itself. `found` has the leaves' weights, or the
indices of their first weights. Narrow records have f32 and 32 bits. Wide ones have 16 bytes: the threshold
in 8, then feature and flags, then the distance.

**Masks**, to find the leaf of a tree without going down. Leaves are numbered from the true side on, in words
of 32 bits. A node whose false child is taken excludes the leaves below its true child. What remains is a set
whose lowest leaf is the right one. An entry is a threshold, the row of its feature and a mask. Entries of a
word are ordered by what they accept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.errors import InferenceError
from ovjit.records import NamedTuple
from ovjit_ops.ensembles.trees import EQ, LEAF, LT, NAN_TRUE, check_forest, distinct

#: Flags of a link: a leaf, and the features that take the true child.
IS_LEAF, LOWER, EQUAL, UNORDERED = 1, 2, 4, 8
FLAG_BITS = 4
WORD = 32
#: Nodes that accept different features.
MIXED = -1
#: Maximum records of a forest, and maximum features: positions and offsets are i32.
MOST_RECORDS, MOST_FEATURES = 1 << 27, 1 << 22


class PackedForest(NamedTuple):
    """`trees` [n, 5]: first record, first target, number of targets, first word, number of words. Trees
    without words have too many leaves, or are no trees. `starts` [words, kinds + 1]: entries of a word by
    kind. `entries` [n, words of 4 bytes]. `leaves` [words, 32] and
    `leaf_values` [records]: weights if each tree has one target, else indices of first weights."""

    records: np.ndarray
    leaf_values: np.ndarray
    trees: np.ndarray
    weights: np.ndarray
    starts: np.ndarray
    entries: np.ndarray
    leaves: np.ndarray
    features: np.ndarray  #: those that entries read: row of an entry -> feature
    kinds: tuple[int, ...]  #: what entries accept
    wide_records: bool  #: records of 16 bytes, not of 8
    feature_bits: int
    accepted: int  #: what all nodes accept besides NaN; MIXED if they differ
    has_nan: bool  #: whether a node accepts NaN
    single: bool  #: whether each tree has one target


class _Order(NamedTuple):
    """Records in breadth-first order of each tree: their nodes, trees and positions, a row per level.
    `pairs`: node -> position of its true child. `sizes`: records of each tree."""

    levels: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
    pairs: np.ndarray
    sizes: np.ndarray


def pack_forest(tables: Sequence[np.ndarray], targets: int, features: int, most: int) -> PackedForest:
    """The layout of the inputs of a TreeEnsemble behind the data. Trees of up to `most` leaves have words.
    Raises InferenceError for invalid arrays."""
    thresholds, nodes, trees, weights = tables
    nodes, trees = nodes.astype(np.int64), trees.astype(np.int64)
    if len(thresholds) != len(nodes):
        raise InferenceError(f"{len(thresholds)} thresholds are given for {len(nodes)} tree nodes")
    check_forest(nodes, trees, weights, targets, features)
    order = _order_records(nodes, trees[:, 0])
    if order is None:
        thresholds, nodes, trees = _separate_trees(thresholds, nodes, trees)
        order = _order_records(nodes, trees[:, 0])
        assert order is not None
    accepted = _read_flags(nodes[:, 0])
    inner = accepted[accepted > 0]
    bits = max(1, int(nodes[:, 1][accepted > 0].max(initial=0)).bit_length())
    long = thresholds.dtype != np.float32 or int(order.sizes.max(initial=1)) << bits + FLAG_BITS >= 1 << 31
    masks = _pack_masks(thresholds, nodes, trees, weights, accepted, order, most)
    firsts = np.cumsum(order.sizes) - order.sizes
    plain = distinct(inner & ~UNORDERED)
    same = int(plain[0]) if plain.tolist() in ([LOWER], [LOWER | EQUAL]) else MIXED if len(plain) else LOWER
    return PackedForest(
        *_pack_records(thresholds, nodes, trees, weights, accepted, order, bits, long),
        np.stack([firsts, trees[:, 1], trees[:, 2], masks.first, masks.word_counts], 1),
        weights if len(weights) else np.zeros(1, thresholds.dtype), masks.starts, masks.entries, masks.leaves,
        masks.features, masks.kinds, long, bits, same, bool((inner & UNORDERED).any()),
        bool((trees[:, 2] == 1).all()),
    )  # fmt: skip


def _read_flags(modes: np.ndarray) -> np.ndarray:
    """The flags of nodes with these modes; 0 for leaves."""
    kind = modes & 3
    flags = np.where(kind == LT, LOWER, np.where(kind == EQ, EQUAL, LOWER | EQUAL))
    return np.where(kind == LEAF, 0, flags | (modes >= NAN_TRUE) * UNORDERED)


def _pack_records(
    thresholds: np.ndarray, nodes: np.ndarray, trees: np.ndarray, weights: np.ndarray, accepted: np.ndarray,
    order: _Order, bits: int, long: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(records, words of 4 bytes as i32; what is found at the leaves)"""
    firsts = np.cumsum(order.sizes) - order.sizes
    node, tree, slot = (np.concatenate(column) for column in zip(*order.levels, strict=True))
    rows = np.empty(len(node), np.int64)
    rows[firsts[tree] + slot] = np.arange(len(node))
    node, slot = node[rows], slot[rows]
    leaf = accepted[node] == 0
    values = np.where(leaf, thresholds.dtype.type(np.nan), thresholds[node])
    starts = np.where(leaf, nodes[node, 2], 0)
    single = bool((trees[:, 2] == 1).all())
    result = (
        np.where(leaf, weights[starts], 0).astype(thresholds.dtype) if single else starts.astype(np.int32)
    )
    links = np.where(leaf, IS_LEAF << bits, nodes[node, 1] | accepted[node] << bits)
    distance = np.where(leaf, -1, order.pairs[node] - slot)
    words = values.view(np.int32).reshape(len(values), -1)
    if not long:
        return np.column_stack([words, (links | distance << bits + FLAG_BITS).astype(np.int32)]), result
    records = np.zeros((len(values), 4), np.int32)
    records[:, : words.shape[1]], records[:, 2], records[:, 3] = words, links, distance
    return records, result


class _Masks(NamedTuple):
    """See PackedForest; `first` and `word_counts` are each tree's words."""

    first: np.ndarray
    word_counts: np.ndarray
    starts: np.ndarray
    entries: np.ndarray
    leaves: np.ndarray
    features: np.ndarray
    kinds: tuple[int, ...]


class _Leaves(NamedTuple):
    """The leaves of trees that have words: `fits` of each tree; tree, node, number of each leaf. `low`: the
    lowest number below a node; `size`: how many leaves there are."""

    fits: np.ndarray
    tree: np.ndarray
    node: np.ndarray
    number: np.ndarray
    low: np.ndarray
    size: np.ndarray


def _number_leaves(
    nodes: np.ndarray, trees: np.ndarray, leaf: np.ndarray, order: _Order, most: int
) -> _Leaves:
    node, tree, _ = (np.concatenate(column) for column in zip(*order.levels, strict=True))
    leaf_count = np.bincount(tree[leaf[node]], minlength=len(trees))
    times = np.bincount(node, minlength=len(nodes))
    shared = np.bincount(tree[(times[node] > 1) & ~leaf[node]], minlength=len(trees)) > 0
    # inner nodes that are there twice have their children once: such a graph has no words
    proper = leaf_count == np.bincount(tree[~leaf[node]], minlength=len(trees)) + 1
    fits = proper & ~shared & (leaf_count <= most)
    size, low = leaf.astype(np.int64), np.zeros(len(nodes), np.int64)
    inner_levels = [level[fits[of] & ~leaf[level]] for level, of, _ in order.levels]
    for inner in reversed(inner_levels):
        size[inner] = size[nodes[inner, 2]] + size[nodes[inner, 3]]
    root = fits & leaf[trees[:, 0]]
    edges = [(np.flatnonzero(root), trees[root, 0], np.zeros(int(root.sum()), np.int64))]
    for inner, (level, of, _) in zip(inner_levels, order.levels, strict=True):
        yes, no = nodes[inner, 2], nodes[inner, 3]
        # leaves may be shared, so that their numbers belong to the edges
        numbers = np.stack([low[inner], low[inner] + size[yes]], 1).reshape(-1)
        edges.append((np.repeat(of[fits[of] & ~leaf[level]], 2), np.stack([yes, no], 1).reshape(-1), numbers))
        low[yes], low[no] = low[inner], low[inner] + size[yes]
    of, child, number = (np.concatenate(column) for column in zip(*edges, strict=True))
    ends = leaf[child]
    return _Leaves(fits, of[ends], child[ends], number[ends], low, size)


def _pack_masks(
    thresholds: np.ndarray, nodes: np.ndarray, trees: np.ndarray, weights: np.ndarray, accepted: np.ndarray,
    order: _Order, most: int,
) -> _Masks:  # fmt: skip
    leaf = accepted == 0
    leaves = _number_leaves(nodes, trees, leaf, order, most)
    count = -(-np.bincount(leaves.tree, minlength=len(trees)) // WORD)
    first, words = np.cumsum(count) - count, int(count.sum())
    single = bool((trees[:, 2] == 1).all())
    starts = nodes[leaves.node, 2]
    table = np.zeros((max(1, words), WORD), thresholds.dtype if single else np.int32)
    table.reshape(-1)[first[leaves.tree] * WORD + leaves.number] = weights[starts] if single else starts
    node, tree, _ = (np.concatenate(column) for column in zip(*order.levels, strict=True))
    inner = leaves.fits[tree] & ~leaf[node]
    node, tree = node[inner], tree[inner]
    features, row = np.unique(nodes[node, 1], return_inverse=True)
    entry, word, mask = _cut_ranges(leaves.low[node], leaves.low[node] + leaves.size[nodes[node, 2]])
    word_index = first[tree[entry]] + word
    kinds, kind = np.unique(accepted[node], return_inverse=True)
    rank = np.lexsort((row.reshape(-1)[entry], kind.reshape(-1)[entry], word_index))
    size = thresholds.itemsize // 4
    values = np.ascontiguousarray(thresholds[node[entry[rank]]]).view(np.int32).reshape(len(rank), size)
    entries = np.column_stack([values, row.reshape(-1)[entry[rank]], mask[rank]]).astype(np.int32)
    tally = np.bincount(word_index * len(kinds) + kind.reshape(-1)[entry], minlength=words * len(kinds))
    bounds = np.append(0, np.cumsum(tally)).astype(np.int64)
    rows = np.arange(max(1, words))[:, None] * len(kinds) + np.arange(len(kinds) + 1)
    return _Masks(
        first, count, bounds[np.minimum(rows, len(bounds) - 1)],
        entries if len(entries) else np.zeros((1, 2 + size), np.int32), table,
        features if len(features) else np.zeros(1, np.int64), tuple(kinds.tolist()),
    )  # fmt: skip


def _cut_ranges(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(range, word, mask) for each word that a range of leaves is in. Bits in the range are 0."""
    words = (end - 1) // WORD - begin // WORD + 1
    entry = np.repeat(np.arange(len(begin)), words)
    word = begin[entry] // WORD + np.arange(len(entry)) - np.repeat(np.cumsum(words) - words, words)
    above = np.minimum(end[entry] - word * WORD, WORD)
    below = np.maximum(begin[entry] - word * WORD, 0)
    mask = ~(((1 << above) - 1) & ~((1 << below) - 1)) & 0xFFFFFFFF
    return entry, word, mask.astype(np.uint32).view(np.int32)


def _order_records(nodes: np.ndarray, roots: np.ndarray) -> _Order | None:
    """The order of records. None if two trees share an inner node."""
    leaf = (nodes[:, 0] & 3) == LEAF
    count = len(roots)
    pairs, owner = np.full(len(nodes), -1), np.full(len(nodes), -1)
    sizes = np.ones(count, np.int64)
    node, tree, slot = roots, np.arange(count), np.zeros(count, np.int64)
    levels = [(node, tree, slot)]
    for _ in range(len(nodes)):
        inner = ~leaf[node]
        parent, of = node[inner], tree[inner]
        ordered = pairs[parent] >= 0
        if ordered.any() and (owner[parent[ordered]] != of[ordered]).any():
            return None
        parent, of = parent[~ordered], of[~ordered]
        first = np.sort(np.unique(parent, return_index=True)[1])
        if len(first) < len(parent):
            owner[parent] = of  # the last tree of a shared node
            if (owner[parent] != of).any():
                return None
            parent, of = parent[first], of[first]
        if not len(parent):
            break
        pair_count = np.bincount(of, minlength=count)
        rank = np.arange(len(of)) - (np.cumsum(pair_count) - pair_count)[of]
        at = sizes[of] + 2 * rank
        pairs[parent], owner[parent] = at, of
        sizes += 2 * pair_count
        node, tree = nodes[parent, 2:4].reshape(-1), np.repeat(of, 2)
        slot = (at[:, None] + np.arange(2)).reshape(-1)
        levels.append((node, tree, slot))
    return _Order(levels, pairs, sizes)


def _separate_trees(
    thresholds: np.ndarray, nodes: np.ndarray, trees: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same forest with copies of the nodes that several trees share."""
    parts, rows, size = [], trees.copy(), 0
    for i, root in enumerate(trees[:, 0]):
        reached = np.zeros(len(nodes), bool)
        level = np.array([root])
        while level.size:
            reached[level] = True
            inner = level[(nodes[level, 0] & 3) != LEAF]
            level = distinct(nodes[inner, 2:4])
            level = level[~reached[level]]
        members = np.flatnonzero(reached)
        new_index = np.cumsum(reached) - 1 + size
        part = nodes[members].copy()
        inner = (part[:, 0] & 3) != LEAF
        part[inner, 2:4] = new_index[part[inner, 2:4]]
        parts.append((thresholds[members], part))
        rows[i, 0] = new_index[root]
        size += len(members)
        if size > MOST_RECORDS:
            raise InferenceError("the trees share too many nodes")
    return np.concatenate([t for t, _ in parts]), np.concatenate([p for _, p in parts]), rows
