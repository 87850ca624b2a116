"""The memory layout of a forest for its kernels.

The nodes of a tree are records in breadth-first order. Both children of a node are adjacent, the true child
first, so that a record names one position. A record is the threshold, or a leaf's weight if its tree has one
target, followed by a link:

    leaf          1 | first weight << 1
    inner node    flags | feature << 4 | position of the true child << (4 + bits of features)

Narrow records have f32 thresholds and links of 32 bits: 8 bytes. Wide records have 16: the threshold in 8,
then `flags | feature << 4`, then the position, or a leaf's first weight.
"""

from __future__ import annotations

import numpy as np

from ovjit.errors import InferenceError
from ovjit.records import NamedTuple
from ovjit_ops.ensembles.trees import EQ, LEAF, LT, NAN_TRUE, check_forest

#: Flags of a link.
IS_LEAF, IS_NAN_TRUE, IS_LT, IS_EQ = 1, 2, 4, 8
FLAG_BITS = 4
#: The first records of each tree are also stored as vectors: thresholds, then links.
HEAD = 16
#: Maximum records of a forest, and maximum features: indices are i32, in words of records and rows.
MOST_RECORDS, MOST_FEATURES = 1 << 28, 1 << 22


class PackedForest(NamedTuple):
    """`records` [n, words] and `heads` [trees, 2, HEAD] as i32; `trees` [trees, 4]: first record, depth,
    first target, number of targets."""

    records: np.ndarray
    heads: np.ndarray
    trees: np.ndarray
    weights: np.ndarray
    wide: bool
    feature_bits: int
    modes: str  #: "leq" or "lt" if all nodes have this mode, else "any"
    has_nan: bool  #: whether NaN takes the true child of a node
    single: bool  #: whether each tree has one target


class _Order(NamedTuple):
    """Records in breadth-first order of each tree: their nodes, trees and positions. `pairs`: node ->
    position of its true child. `sizes`, `depths`: records and depth of each tree."""

    nodes: np.ndarray
    trees: np.ndarray
    places: np.ndarray
    pairs: np.ndarray
    sizes: np.ndarray
    depths: np.ndarray


def pack_forest(
    thresholds: np.ndarray, nodes: np.ndarray, trees: np.ndarray, weights: np.ndarray, targets: int
) -> PackedForest:
    """The layout of valid arrays of a TreeEnsemble. Raises InferenceError for invalid ones."""
    nodes, trees = nodes.astype(np.int64), trees.astype(np.int64)
    if len(thresholds) != len(nodes):
        raise InferenceError(f"{len(thresholds)} thresholds are given for {len(nodes)} tree nodes")
    check_forest(nodes, trees, weights, targets)
    order = _breadth_first(nodes, trees[:, 0])
    if order is None:
        thresholds, nodes, trees = _separate_trees(thresholds, nodes, trees)
        order = _breadth_first(nodes, trees[:, 0])
        assert order is not None
    starts = np.cumsum(order.sizes) - order.sizes
    rows = starts[order.trees] + order.places
    by_row = np.empty(len(rows), np.int64)
    by_row[rows] = np.arange(len(rows))
    node, tree, place = (x[by_row] for x in (order.nodes, order.trees, order.places))
    mode, feature = nodes[node, 0], nodes[node, 1]
    leaf = (mode & 3) == LEAF
    inner = mode[~leaf]
    bits = max(1, int(feature[~leaf].max(initial=0)).bit_length())
    room = max(int(order.sizes.max(initial=1)) << bits + FLAG_BITS, len(weights) << 1)
    wide = thresholds.dtype != np.float32 or room > 1 << 31
    single = bool((trees[:, 2] == 1).all())
    one = leaf & (trees[tree, 2] == 1)
    values = np.where(leaf, 0, thresholds[node])
    values[one] = weights[nodes[node[one], 2]]
    flags = (mode >= NAN_TRUE) * IS_NAN_TRUE | ((mode & 3) == LT) * IS_LT | ((mode & 3) == EQ) * IS_EQ
    links = np.where(leaf, IS_LEAF, flags | feature << FLAG_BITS)
    child = np.where(leaf, nodes[node, 2], order.pairs[node])
    if wide:
        records = np.zeros((len(rows), 4), np.int32)
        records[:, : thresholds.itemsize // 4] = values.view(np.int32).reshape(len(rows), -1)
        records[:, 2], records[:, 3] = links, child
    else:
        links |= np.where(leaf, child << 1, child << bits + FLAG_BITS)
        records = np.stack([values.view(np.int32), links.astype(np.int32)], 1)
    heads = np.zeros((len(trees), 2, HEAD), np.int32)
    if not wide:
        near = place < HEAD
        heads[tree[near], :, place[near]] = records[near]
    kinds = np.unique(inner & 3)
    modes = {(): "leq", (1,): "leq", (2,): "lt"}.get(tuple(kinds.tolist()), "any")
    table = np.stack([starts, order.depths, trees[:, 1], trees[:, 2]], 1)
    return PackedForest(
        records, heads, table, weights, wide, bits, modes, bool((inner >= NAN_TRUE).any()), single
    )


def _breadth_first(nodes: np.ndarray, roots: np.ndarray) -> _Order | None:
    """The order of records. None if two trees share an inner node."""
    leaf = (nodes[:, 0] & 3) == LEAF
    count = len(roots)
    pairs, owner = np.full(len(nodes), -1), np.full(len(nodes), -1)
    sizes, depths = np.ones(count, np.int64), np.zeros(count, np.int64)
    node, tree, place = roots, np.arange(count), np.zeros(count, np.int64)
    found = [(node, tree, place)]
    for depth in range(1, len(nodes) + 1):
        inner = ~leaf[node]
        parent, of = node[inner], tree[inner]
        known = pairs[parent] >= 0
        if known.any() and (owner[parent[known]] != of[known]).any():
            return None
        parent, of = parent[~known], of[~known]
        first = np.sort(np.unique(parent, return_index=True)[1])
        if len(first) < len(parent):
            owner[parent] = of  # the last tree of a shared node
            if (owner[parent] != of).any():
                return None
            parent, of = parent[first], of[first]
        if not len(parent):
            break
        many = np.bincount(of, minlength=count)
        rank = np.arange(len(of)) - (np.cumsum(many) - many)[of]
        at = sizes[of] + 2 * rank
        pairs[parent], owner[parent] = at, of
        sizes += 2 * many
        depths[of] = depth
        node, tree = nodes[parent, 2:4].reshape(-1), np.repeat(of, 2)
        place = (at[:, None] + np.arange(2)).reshape(-1)
        found.append((node, tree, place))
    return _Order(*(np.concatenate(column) for column in zip(*found, strict=True)), pairs, sizes, depths)


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
            level = np.unique(nodes[inner, 2:4])
            level = level[~reached[level]]
        own = np.flatnonzero(reached)
        place = np.cumsum(reached) - 1 + size
        part = nodes[own].copy()
        inner = (part[:, 0] & 3) != LEAF
        part[inner, 2:4] = place[part[inner, 2:4]]
        parts.append((thresholds[own], part))
        rows[i, 0] = place[root]
        size += len(own)
        if size > MOST_RECORDS:
            raise InferenceError("the trees share too many nodes")
    return np.concatenate([t for t, _ in parts]), np.concatenate([p for _, p in parts]), rows
