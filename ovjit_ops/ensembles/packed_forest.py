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

import itertools
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


class _Records(NamedTuple):
    """Records level by level, those of a level tree by tree, with their nodes and trees. The children of each
    record that `opens` are the next pair of the level below; inner nodes that were met before open nothing.
    `bounds`: the first record of each level, and the end. `rows`: record -> its index here. `sizes`: records
    of each tree."""

    node: np.ndarray
    tree: np.ndarray
    opens: np.ndarray
    bounds: np.ndarray
    rows: np.ndarray
    sizes: np.ndarray


def pack_forest(tables: Sequence[np.ndarray], targets: int, features: int, most: int) -> PackedForest:
    """The layout of the inputs of a TreeEnsemble after the data. Trees of up to `most` leaves have words.
    Raises InferenceError for invalid arrays."""
    thresholds, nodes, trees, weights = tables
    nodes, trees = np.asfortranarray(nodes, np.int64), trees.astype(np.int64)
    if len(thresholds) != len(nodes):
        raise InferenceError(f"{len(thresholds)} thresholds are given for {len(nodes)} tree nodes")
    separate = check_forest(nodes, trees, weights, targets, features)
    records = _list_records(nodes, trees[:, 0], separate)
    if records is None:
        thresholds, nodes, trees = _separate_trees(thresholds, nodes, trees)
        records = _list_records(nodes, trees[:, 0], False)
        assert records is not None
    accepted = _FLAGS[nodes[:, 0]]
    bits = max(1, int((nodes[:, 1] * (accepted > 0)).max(initial=0)).bit_length())
    long = thresholds.dtype != np.float32 or int(records.sizes.max(initial=1)) << bits + FLAG_BITS >= 1 << 31
    single = bool((trees[:, 2] == 1).all())
    masks = _pack_masks(thresholds, nodes, weights, accepted, records, most, single)
    firsts = np.cumsum(records.sizes) - records.sizes
    kinds = np.flatnonzero(np.bincount(accepted, minlength=1)[1:]) + 1
    plain = distinct(kinds & ~UNORDERED)
    same = int(plain[0]) if plain.tolist() in ([LOWER], [LOWER | EQUAL]) else MIXED if len(plain) else LOWER
    return PackedForest(
        *_pack_records(thresholds, nodes, weights, accepted, records, bits, long, single),
        np.stack([firsts, trees[:, 1], trees[:, 2], masks.first, masks.word_counts], 1),
        weights if len(weights) else np.zeros(1, thresholds.dtype), masks.starts, masks.entries, masks.leaves,
        masks.features, masks.kinds, long, bits, same, bool((kinds & UNORDERED).any()), single,
    )  # fmt: skip


def _flags_of(mode: int) -> int:
    kind = {LT: LOWER, EQ: EQUAL, LEAF: 0}.get(mode & 3, LOWER | EQUAL)
    return kind | UNORDERED * (kind > 0 and mode >= NAN_TRUE)


#: Mode -> flags; 0 for leaves.
_FLAGS = np.array([_flags_of(mode) for mode in range(2 * NAN_TRUE)])


def _pack_records(
    thresholds: np.ndarray, nodes: np.ndarray, weights: np.ndarray, accepted: np.ndarray, records: _Records,
    bits: int, long: bool, single: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(records, words of 4 bytes as i32; what is found at the leaves)"""
    leaf, node = accepted == 0, records.node[records.rows]
    slots = np.empty(len(node), np.int64)
    slots[records.rows] = np.arange(len(node))
    pairs = np.zeros(len(nodes), np.int64)
    pairs[records.node[records.opens]] = slots[len(records.sizes) :: 2]
    starts = nodes[:, 2] * leaf
    results = (
        np.where(leaf, weights[starts], 0).astype(thresholds.dtype) if single else starts.astype(np.int32)
    )
    links = np.where(leaf, IS_LEAF << bits, nodes[:, 1] | accepted << bits)[node]
    distance = np.where(leaf[node], -1, pairs[node] - np.arange(len(node)))
    values = np.where(leaf, thresholds.dtype.type(np.nan), thresholds)[node]
    words = values.view(np.int32).reshape(len(values), -1)
    if not long:
        return np.column_stack([words, (links | distance << bits + FLAG_BITS).astype(np.int32)]), results[
            node
        ]
    table = np.zeros((len(values), 4), np.int32)
    table[:, : words.shape[1]], table[:, 2], table[:, 3] = words, links, distance
    return table, results[node]


class _Masks(NamedTuple):
    """See PackedForest; `first` and `word_counts` are each tree's words."""

    first: np.ndarray
    word_counts: np.ndarray
    starts: np.ndarray
    entries: np.ndarray
    leaves: np.ndarray
    features: np.ndarray
    kinds: tuple[int, ...]


def _number_leaves(records: _Records) -> tuple[np.ndarray, np.ndarray]:
    """(how many leaves are below each record, the number of the first of them in its tree)"""
    size, low = (~records.opens).astype(np.int64), np.zeros(len(records.node), np.int64)
    levels = [slice(*ends) for ends in itertools.pairwise(records.bounds)]
    inner = [np.flatnonzero(records.opens[level]) for level in levels]
    for i in range(len(levels) - 2, -1, -1):
        below = size[levels[i + 1]]
        size[levels[i]][inner[i]] = below[::2] + below[1::2]
    for i in range(len(levels) - 1):
        at, below = low[levels[i]][inner[i]], low[levels[i + 1]]
        below[::2], below[1::2] = at, at + size[levels[i + 1]][::2]
    return size, low


def _pack_masks(
    thresholds: np.ndarray, nodes: np.ndarray, weights: np.ndarray, accepted: np.ndarray, records: _Records,
    most: int, single: bool,
) -> _Masks:  # fmt: skip
    count = len(records.sizes)
    is_leaf = accepted[records.node] == 0
    size, low = _number_leaves(records)
    # a graph with inner nodes that are there twice has no words
    again = np.bincount(records.tree[~is_leaf & ~records.opens], minlength=count)
    fits = (again == 0) & (size[:count] <= most)
    word_counts = np.where(fits, -(-size[:count] // WORD), 0)
    first, words = np.cumsum(word_counts) - word_counts, int(word_counts.sum())
    ends = np.flatnonzero(is_leaf & fits[records.tree])
    starts = nodes[:, 2][records.node[ends]]
    table = np.zeros((max(1, words), WORD), thresholds.dtype if single else np.int32)
    table.reshape(-1)[first[records.tree[ends]] * WORD + low[ends]] = weights[starts] if single else starts
    inner = np.flatnonzero(records.opens)
    below = size[count::2]  # leaves below the true children
    if not fits.all():
        chosen = fits[records.tree[inner]]
        inner, below = inner[chosen], below[chosen]
    node, tree = records.node[inner], records.tree[inner]
    features, kinds = distinct(nodes[:, 1][node]), distinct(accepted[node])
    row = np.searchsorted(features, nodes[:, 1][node])
    entry, word, mask = _cut_ranges(low[inner], low[inner] + below)
    group = (first[tree[entry]] + word) * len(kinds) + np.searchsorted(kinds, accepted[node])[entry]
    rank = _find_order(group * len(features) + row[entry], words * len(kinds) * len(features))
    values = (
        np.ascontiguousarray(thresholds[node[entry[rank]]])
        .view(np.int32)
        .reshape(-1, thresholds.itemsize // 4)
    )
    entries = np.column_stack([values, row[entry[rank]], mask[rank]]).astype(np.int32)
    bounds = np.append(0, np.cumsum(np.bincount(group, minlength=words * len(kinds)))).astype(np.int64)
    rows = np.arange(max(1, words))[:, None] * len(kinds) + np.arange(len(kinds) + 1)
    return _Masks(
        first, word_counts, bounds[np.minimum(rows, len(bounds) - 1)],
        entries if len(entries) else np.zeros((1, 2 + thresholds.itemsize // 4), np.int32), table,
        features if len(features) else np.zeros(1, np.int64), tuple(kinds.tolist()),
    )  # fmt: skip


def _find_order(keys: np.ndarray, end: int) -> np.ndarray:
    """The indices that sort the keys, all from 0 to below `end`; equal ones stay in their order."""
    bits = len(keys).bit_length()
    if end << bits < 1 << 62:  # NumPy sorts numbers several times as fast as their indices
        return np.sort(keys << bits | np.arange(len(keys))) & (1 << bits) - 1
    return np.argsort(keys, kind="stable")


def _cut_ranges(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(range, word, mask) for each word that a range of leaves is in. Bits in the range are 0."""
    words = (end - 1) // WORD - begin // WORD + 1
    entry = np.repeat(np.arange(len(begin)), words)
    word = begin[entry] // WORD + np.arange(len(entry)) - np.repeat(np.cumsum(words) - words, words)
    above = np.minimum(end[entry] - word * WORD, WORD)
    below = np.maximum(begin[entry] - word * WORD, 0)
    mask = ~(((1 << above) - 1) & ~((1 << below) - 1)) & 0xFFFFFFFF
    return entry, word, mask.astype(np.uint32).view(np.int32)


def _list_records(nodes: np.ndarray, roots: np.ndarray, separate: bool) -> _Records | None:
    """The records of trees without cycles. None if two trees share an inner node. `separate`: no node has two
    parents."""
    is_inner = (nodes[:, 0] & 3) != LEAF
    children = np.ascontiguousarray(nodes[:, 2:4])
    owner = None if separate else np.full(len(nodes), -1)
    node, tree = roots, np.arange(len(roots))
    levels = []
    while len(node):
        inner = np.flatnonzero(is_inner[node])
        if owner is not None:
            before = owner[node[inner]]
            owner[node[inner]] = tree[inner]  # the last tree of a shared node
            if ((before >= 0) & (before != tree[inner]) | (owner[node[inner]] != tree[inner])).any():
                return None
            inner = inner[before < 0]
            inner = inner[np.sort(np.unique(node[inner], return_index=True)[1])]
        opens = np.zeros(len(node), bool)
        opens[inner] = True
        levels.append((node, tree, opens))
        node, tree = children[node[inner]].reshape(-1), np.repeat(tree[inner], 2)
    bounds = np.append(0, np.cumsum([len(opens) for _, _, opens in levels]))
    node, tree, opens = (np.concatenate(column) for column in zip(*levels, strict=True))
    rows, sizes = _find_order(tree, len(roots)), np.bincount(tree, minlength=len(roots))
    return _Records(node, tree, opens, bounds, rows, sizes)


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
