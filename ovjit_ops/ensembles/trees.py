"""TreeEnsemble: rows of features go down all trees of a forest, and each target combines their leaves.

A node is a row (mode, feature, true child, false child) of `nodes` and an element of `thresholds`. The mode
is a comparison of the feature with the threshold, plus NAN_TRUE if NaN takes the true child. A leaf has the
index of its first weight instead of the true child. A tree is a row (root, first target, number of targets)
of `trees`: each of its leaves has as many consecutive weights.

A leaf without a weight for one of these targets has the neutral element there: -0.0 in sums, else NaN. It is
also the result of a target for which no leaf of a row has a weight.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.op import Positive, TensorType, Word, op
from ovjit_ops.common.checks import check_rank, check_same_type, check_type

LEAF, LEQ, LT, EQ = range(4)
#: Added to a mode: NaN takes the true child.
NAN_TRUE = 4
NEUTRAL = {"sum": -0.0, "min": np.nan, "max": np.nan}
TYPES = ("f32", "f64")


def distinct(numbers: np.ndarray) -> np.ndarray:
    """The different integers among `numbers`, ascending. NumPy's `unique` is slow for millions: it hashes."""
    ordered = np.sort(numbers, axis=None)
    return ordered[np.diff(ordered, prepend=ordered[:1] - 1) != 0]


def levels(nodes: np.ndarray, roots: np.ndarray) -> Iterator[np.ndarray]:
    """The distinct inner nodes at each depth, from the roots on. Raises InferenceError for a cycle."""
    level = distinct(roots)
    for _ in range(len(nodes)):
        level = level[(nodes[level, 0] & 3) != LEAF]
        if not level.size:
            return
        yield level
        level = distinct(nodes[level, 2:4])
    if level.size and ((nodes[level, 0] & 3) != LEAF).any():
        raise InferenceError("the nodes of a tree form a cycle")


def are_separate(children: np.ndarray, roots: np.ndarray, count: int) -> bool:
    """Whether none of `count` nodes is twice a child, or a child and a root: no path from a root has a
    cycle."""
    uses = np.bincount(children.reshape(-1), minlength=count)
    return bool(uses.max(initial=0) <= 1 and (uses[roots] == 0).all() and len(distinct(roots)) == len(roots))


def check_forest(
    nodes: np.ndarray, trees: np.ndarray, weights: np.ndarray, targets: int, features: int
) -> bool:
    """Whether the trees are separate. Raises InferenceError unless children, features, targets and weights
    exist, and no path has a cycle."""
    modes, is_leaf = nodes[:, 0], (nodes[:, 0] & 3) == LEAF
    inner = np.flatnonzero(~is_leaf)
    used, children = nodes[:, 1][inner], nodes[:, 2:4][inner]
    if modes.min(initial=0) < 0 or modes.max(initial=0) > EQ + NAN_TRUE or used.min(initial=0) < 0:
        raise InferenceError("a tree node has an unknown mode or a negative feature")
    if used.max(initial=0) >= features:
        raise InferenceError(f"a tree node reads a feature beyond the {features}")
    if children.min(initial=0) < 0 or children.max(initial=-1) >= len(nodes):
        raise InferenceError("a tree node has a child that does not exist")
    roots, first, count = trees.T.astype(np.int64)
    if ((roots < 0) | (roots >= len(nodes)) | (first < 0) | (count < 1) | (first + count > targets)).any():
        raise InferenceError(f"a tree has a root that does not exist, or targets beyond the {targets}")
    separate = are_separate(children, roots, len(nodes))
    if not separate:
        for _ in levels(nodes, roots):
            pass
    starts = nodes[:, 2][is_leaf]
    most = len(weights) - int(count.max(initial=0))
    if (
        len(starts)
        and (starts.min() < 0 or starts.max() > most)
        and _leaves_outside(nodes, trees, len(weights))
    ):
        raise InferenceError("a leaf has weights that do not exist")
    return separate


def _leaves_outside(nodes: np.ndarray, trees: np.ndarray, size: int) -> bool:
    """Whether the weights of a leaf that a tree reaches are outside of all `size` weights."""
    for root, _, count in trees.tolist():
        level = np.array([root])
        while level.size:
            leaf = (nodes[level, 0] & 3) == LEAF
            starts = nodes[level[leaf], 2]
            if ((starts < 0) | (starts + count > size)).any():
                return True
            level = distinct(nodes[level[~leaf], 2:4])
    return False


def true_children(values: np.ndarray, modes: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Whether each value takes the true child of its node."""
    kind = modes & 3
    yes = np.where(
        kind == LT, values < thresholds, np.where(kind == EQ, values == thresholds, values <= thresholds)
    )
    return yes | (np.isnan(values) & (modes >= NAN_TRUE))


def reach_leaves(data: np.ndarray, thresholds: np.ndarray, nodes: np.ndarray, root: int) -> np.ndarray:
    """The leaf of one tree that each row reaches."""
    rows = np.arange(len(data))
    at = np.full(len(data), root, np.int64)
    for _ in range(len(nodes)):
        here = nodes[at]
        inner = (here[:, 0] & 3) != LEAF
        if not inner.any():
            break
        values = data[rows, np.where(inner, here[:, 1], 0)]
        yes = true_children(values, here[:, 0], thresholds[at])
        at = np.where(inner, np.where(yes, here[:, 2], here[:, 3]), at)
    return at


def combine(total: np.ndarray, more: np.ndarray, reduction: str) -> np.ndarray:
    """The result of a target after one more tree."""
    if reduction == "sum":
        return total + more
    better = more < total if reduction == "min" else more > total
    return np.where(better | np.isnan(total), more, total)


@op("TreeEnsemble", opset=1, plugin="extension", types=TYPES, native=TYPES, part="keep",
    lower=".cpu_trees:Forest.of")  # fmt: skip
class TreeEnsemble:
    """The sum, minimum or maximum of the leaves of all trees, in the order of the trees: [rows, targets]."""

    words = {"reduction": "sum min max"}

    def infer(
        data, thresholds, nodes, trees, weights, *, targets: Positive, features: Positive, reduction: Word
    ):
        check_type(data, TYPES)
        for name, x, rank in (("thresholds", thresholds, 1), ("weights", weights, 1)):
            check_same_type(x, data, name)
            check_rank(x, rank, name)
        for name, x, width in (("nodes", nodes, 4), ("trees", trees, 3)):
            check_type(x, ("i32",), name)
            check_rank(x, 2, name)
            fits = x.shape is None or not isinstance(x.shape[1], int) or x.shape[1] == width
            check(fits, f"{name} should have {width} columns, not the shape {x}")
        if data.rank is None:
            return TensorType(data.dtype, None)
        check_rank(data, 2, "data")
        width = data.shape[1]
        dynamic = not isinstance(width, int)
        check(dynamic or width >= features, f"the trees read {features} features; the data has {width}")
        return TensorType(data.dtype, (data.shape[0], targets))

    def ref(data, thresholds, nodes, trees, weights, *, targets, features, reduction):
        if data.shape[1] < features or len(thresholds) != len(nodes):
            raise InferenceError(f"the trees read {features} features; the data has {data.shape[1]}")
        nodes, trees = nodes.astype(np.int64), trees.astype(np.int64)
        check_forest(nodes, trees, weights, targets, features)
        out = np.full((len(data), targets), NEUTRAL[reduction], data.dtype)
        for root, first, count in trees.tolist():
            leaves = reach_leaves(data, thresholds, nodes, root)
            more = weights[nodes[leaves, 2][:, None] + np.arange(count)]
            out[:, first : first + count] = combine(out[:, first : first + count], more, reduction)
        return out
