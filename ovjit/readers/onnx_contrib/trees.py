"""The tree ensembles of ai.onnx.ml, as the operation TreeEnsemble.

Nodes have the modes LEQ, LT and EQ here: the others are these with the children exchanged. A list of
members is a binary search.
"""

from __future__ import annotations

from ovjit.readers.onnx_contrib.scores import *
from ovjit_ops.ensembles.trees import are_separate, distinct

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
_LEAF, _LEQ, _LT, _EQ = range(4)
_NAN_TRUE = 4
_MEMBER, _INNER_MODES = MODES.index("BRANCH_MEMBER"), len(MODES)
#: Mode, or that of a leaf -> mode of the operation; whether the children are exchanged.
_FORMS = np.array([_LEQ, _LT, _LT, _LEQ, _EQ, _EQ, _EQ, _LEAF])
_SWAPPED = np.array([0, 0, 1, 1, 0, 1, 0, 0], bool)
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
_MOST_FEATURE, _MOST_LEVELS = 1 << 26, 1 << 14


class Forest:
    """Nodes, roots and weights of trees in the form of the operation TreeEnsemble.

    `certain`: for each target, whether each row has a weight for it.
    """

    def __init__(
        self, thresholds: np.ndarray, nodes: np.ndarray, trees: np.ndarray, weights: np.ndarray,
        certain: np.ndarray,
    ):  # fmt: skip
        self.thresholds, self.nodes, self.trees, self.weights = thresholds, nodes, trees, weights
        self.certain = certain

    def results(self, n: OnnxNode, x: Output, reduction: str, targets: int) -> Output:
        """[rows, targets]: the results of all trees, in the type of x."""
        inner = self.nodes[:, 0] != _LEAF
        features = int(self.nodes[inner, 1].max(initial=0)) + 1
        kind = np.float64 if n.dtype(x) == "f64" else np.float32
        width = (n.shape(x) or (None, None))[1]
        if isinstance(width, int) and width < features:
            raise ModelError(f"the trees read {features} features, but the input has {width}")
        tables = (self.thresholds.astype(kind), self.nodes.astype(np.int32), self.trees.astype(np.int32))
        return n(
            "TreeEnsemble", x, *map(n.const, (*tables, self.weights.astype(kind))), targets=targets,
            features=features, reduction=reduction.lower(),
        )  # fmt: skip

    def is_scored(self, n: OnnxNode, raw: Output, reduction: str) -> Output:
        """[rows, targets]: whether a row has a weight for the target."""
        if reduction != "SUM":
            return n("LogicalNot", n("IsNaN", raw, opset=10))
        infinite = n("Equal", n("Divide", n.like(raw, 1), raw), n.like(raw, -np.inf))
        return n("LogicalNot", n("LogicalAnd", infinite, n("Equal", raw, n.like(raw, 0))))


def _read_column(n: OnnxNode, name: str, dtype: Any) -> np.ndarray:
    """The list of an attribute, or of its tensor form."""
    tensor = n.attr(f"{name}_as_tensor")
    if tensor is not None and tensor.data_type:
        return _read_array(n, tensor)
    return n.numbers(name, dtype)


def _read_array(n: OnnxNode, tensor: Any) -> np.ndarray:
    value = n.value(n.reader.constant(tensor))
    assert value is not None
    return value.reshape(-1)


def _convert_nodes(
    modes: np.ndarray, features: np.ndarray, children: np.ndarray, thresholds: np.ndarray, missing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(thresholds, nodes) of the operation. `modes`: indices into MODES, above them leaves. `children`: the
    true and the false one of each node. `missing`: whether NaN takes the true child."""
    inner = modes < _INNER_MODES
    features, children = features * inner, children * inner[:, None]
    if features.min(initial=0) < 0 or features.max(initial=0) > _MOST_FEATURE:
        raise ModelError(f"a tree node reads the feature {int(features.min())}")
    swapped = _SWAPPED[modes]
    mode = _FORMS[modes]
    if swapped.any():
        children = np.where(swapped[:, None], children[:, ::-1], children)
        never = swapped & np.isnan(thresholds) & (mode != _EQ)  # no number is above NaN
        mode[never] = _LEQ
        thresholds = np.where(never, np.array(np.inf, thresholds.dtype), thresholds)
    # NaN equals nothing, so that the comparison is false, or "not equal" true
    nan_true = (missing | (modes == MODES.index("BRANCH_NEQ"))) ^ swapped
    return thresholds, np.column_stack([mode + _NAN_TRUE * (nan_true & inner), features, children])


class _Ids:
    """The positions of nodes by the ids of their trees and their own."""

    def __init__(self, trees: np.ndarray, ids: np.ndarray):
        self.names, first = np.unique(trees, return_index=True)
        order = np.argsort(first)  # trees in the order of their first nodes
        self.rank = np.empty(len(order), np.int64)
        self.rank[order] = np.arange(len(order))
        self.tree, self.roots = self.rank_of(trees), first[order]
        self.lowest = int(ids.min(initial=0))
        self.span = int(ids.max(initial=0)) - self.lowest + 1
        if self.span * max(len(order), 1) >= 1 << 62:
            raise ModelError("the ids of tree nodes are too far apart")
        keys = self.tree * self.span + (ids - self.lowest)
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]
        starts = np.searchsorted(self.keys, np.arange(len(order)) * self.span)
        #: For each tree, by how much the key of its first node is above that node's position.
        self.offsets = self.keys[starts] - starts
        twice = np.flatnonzero(self.keys[1:] == self.keys[:-1])
        if twice.size:
            at = self.order[twice[0]]
            raise ModelError(f"the node {int(ids[at])} of the tree {int(trees[at])} is given twice")

    def find(self, tree: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """The position of each node, -1 if there is none. `tree`: ranks of trees."""
        if not len(self.keys):
            return np.full(len(ids), -1)
        steps = ids - self.lowest
        keys = tree * self.span + steps
        if min(steps.min(initial=0), tree.min(initial=0)) < 0 or steps.max(initial=0) >= self.span:
            keys[(steps < 0) | (steps >= self.span) | (tree < 0)] = -1
        at = _search(self.keys, keys, keys - self.offsets[tree])
        return np.where(at < 0, -1, self.order[at])

    def rank_of(self, trees: np.ndarray) -> np.ndarray:
        """The rank of each tree, -1 for unknown ones."""
        if not len(self.names):
            return np.full(len(trees), -1)
        at = _search(self.names, trees, trees - self.names[0])
        return np.where(at < 0, -1, self.rank[at])


def _search(numbers: np.ndarray, targets: np.ndarray, guesses: np.ndarray) -> np.ndarray:
    """The position of each of the `targets` among the ascending `numbers`, -1 if there is none. `guesses`:
    positions if they follow each other without gaps."""
    at = np.clip(guesses, 0, len(numbers) - 1)
    missed = np.flatnonzero(numbers[at] != targets)
    if missed.size:
        at[missed] = np.minimum(np.searchsorted(numbers, targets[missed]), len(numbers) - 1)
        at[missed[numbers[at[missed]] != targets[missed]]] = -1
    return at


def _check_lengths(count: int, *columns: np.ndarray) -> None:
    for column in columns:
        if len(column) != count:
            raise ModelError(f"{len(column)} numbers are given for {count} tree nodes")


class _LeafRows(NamedTuple):
    """The weights of leaves as a file has them: leaves, their trees, targets, values."""

    leaves: np.ndarray
    trees: np.ndarray
    targets: np.ndarray
    values: np.ndarray

    def are_probabilities(self) -> bool:
        """Whether no weight is negative, and the leaves of each tree have equal sums."""
        if (self.values < 0).any():
            return False
        leaves, first, index = np.unique(self.leaves, return_index=True, return_inverse=True)
        sums, tree = np.bincount(index.reshape(-1), self.values), self.trees[first]
        of_tree = np.zeros(int(tree.max(initial=0)) + 1)
        of_tree[tree] = sums
        return bool((np.abs(sums - of_tree[tree]) <= 1e-5 * sums).all())


def _read_by_ids(n: OnnxNode, kind: str, targets: int, reduction: str) -> tuple[Forest, _LeafRows]:
    """The forest of a TreeEnsembleRegressor or TreeEnsembleClassifier."""
    trees, ids = _read_column(n, "nodes_treeids", np.int64), _read_column(n, "nodes_nodeids", np.int64)
    count = n.check_count(len(trees), "nodes of trees", 1 << 24)
    words, numbers = n.attributes.words("nodes_modes")
    word_modes = [MODES.index(word) if word in MODES else _INNER_MODES for word in words]
    modes = np.array(word_modes, np.int64)[numbers]
    features = _read_column(n, "nodes_featureids", np.int64)
    values = _read_column(n, "nodes_values", np.float32)
    sides = [_read_column(n, f"nodes_{side}nodeids", np.int64) for side in ("true", "false")]
    _check_lengths(count, ids, modes, features, values, *sides)
    missing = _read_column(n, "nodes_missing_value_tracks_true", np.int64)
    missing = missing == 1 if len(missing) == count else np.zeros(count, bool)
    node_ids = _Ids(trees, ids)
    leaf = modes == _INNER_MODES
    leaves, inner = np.flatnonzero(leaf), np.flatnonzero(~leaf)
    of_inner, children = node_ids.tree[inner], np.zeros((count, 2), np.int64)
    for column, side in zip(children.T, sides, strict=True):
        column[inner] = node_ids.find(of_inner, side[inner])
    if children.min(initial=0) < 0:
        i = int(np.argmax((children < 0).any(1)))
        raise ModelError(
            f"the node {int(ids[i])} of the tree {int(trees[i])} has a child that does not exist"
        )
    thresholds, nodes = _convert_nodes(modes, features, children, values, missing)

    of, at, which = (n.numbers(f"{kind}_{name}", np.int64) for name in ("treeids", "nodeids", "ids"))
    weights = _read_column(n, f"{kind}_weights", np.float32)
    if not len(of) == len(at) == len(which) == len(weights):
        raise ModelError(
            f"{len(weights)} weights are given for {len(of)} trees, {len(at)} nodes and {len(which)} targets"
        )
    index = node_ids.find(node_ids.rank_of(of), at)
    invalid = np.flatnonzero((index < 0) | (which < 0) | (which >= targets))
    if invalid.size:
        i = int(invalid[0])
        raise ModelError(
            f"the weight of node {at[i]} of tree {of[i]} for target {which[i]} refers to no leaf or target"
        )
    rows = _LeafWeights(node_ids.tree, len(node_ids.roots), targets, reduction)
    at_leaf = np.flatnonzero(leaf[index])
    index, which, weights = index[at_leaf], which[at_leaf], weights[at_leaf]
    nodes[leaves, 2] = rows.fill(n, leaves, index, which, weights)
    most = np.bincount(node_ids.tree).max(initial=0)
    if most > _MOST_LEVELS or not are_separate(children[inner], node_ids.roots, count):
        _check_depth(n, nodes, node_ids.roots)
    forest = Forest(thresholds, nodes, rows.trees(node_ids.roots), rows.weights, rows.certain)
    return forest, _LeafRows(index, node_ids.tree[index], which, weights)


def _check_depth(n: OnnxNode, nodes: np.ndarray, roots: np.ndarray) -> None:
    """Raise ModelError if the nodes of a tree form a cycle, or have too many levels."""
    level = roots
    for depth in range(len(nodes) + 1):
        n.check_count(depth, "levels of trees", _MOST_LEVELS)
        level = distinct(nodes[level[nodes[level, 0] != _LEAF], 2:])
        if not level.size:
            return
    raise ModelError("the nodes of a tree form a cycle")


class _LeafWeights:
    """The weights of leaves, a row of neighbouring targets for each leaf of a tree."""

    weights: np.ndarray
    certain: np.ndarray

    def __init__(self, tree: np.ndarray, count: int, targets: int, reduction: str):
        self.tree, self.count, self.targets, self.reduction = tree, count, targets, reduction
        self.first, self.width = np.zeros(count, np.int64), np.ones(count, np.int64)

    def trees(self, roots: np.ndarray) -> np.ndarray:
        return np.stack([roots, self.first, self.width], 1)

    def fill(
        self, n: OnnxNode, leaves: np.ndarray, leaf_index: np.ndarray, target: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """The position of the first weight of each of the `leaves`, whose weights have these places and
        targets. With one target, the first of a leaf's weights counts."""
        of = self.tree[leaf_index]
        low, high = np.full(self.count, self.targets), np.full(self.count, -1)
        np.minimum.at(low, of, target)
        np.maximum.at(high, of, target)
        self.first = np.where(high >= 0, low, 0)
        self.width = np.where(high >= 0, high - low + 1, 1)
        widths = self.width[self.tree[leaves]]
        size = n.check_count(int(widths.sum()), "weights of leaves")
        starts = np.cumsum(widths) - widths
        row = np.zeros(len(self.tree), np.int64)
        row[leaves] = starts
        at = row[leaf_index] + target - self.first[of]
        self.weights = np.full(size, -0.0 if self.reduction == "SUM" else np.nan, weights.dtype)
        if self.targets == 1:
            self.weights[at[::-1]] = weights[::-1]  # the last assignment of a place counts
        else:
            how = {"SUM": np.add, "MIN": np.fmin, "MAX": np.fmax}[self.reduction]
            how.at(self.weights, at, weights)
        pairs = distinct(leaf_index * self.targets + target)
        met = np.unique(
            self.tree[pairs // self.targets] * self.targets + pairs % self.targets, return_counts=True
        )
        leaf_counts = np.bincount(self.tree[leaves], minlength=self.count)
        self.certain = np.zeros(self.targets, bool)
        self.certain[(met[0] % self.targets)[met[1] == leaf_counts[met[0] // self.targets]]] = True
        return starts


def _predict_targets(
    n: OnnxNode, x: Output, forest: Forest, targets: int, how: str, base: np.ndarray, transform: str
) -> Output:
    """The scores of a regressor, in the type of x. A target without a weight has no base value, either."""
    if base.size not in (0, targets):
        raise ModelError(f"{base.size} base values are given for {targets} targets")
    reduction = "SUM" if how == "AVERAGE" else how
    raw = out = forest.results(n, x, reduction, targets)
    if how == "AVERAGE":
        out = n("Divide", out, n.like(out, len(forest.trees)))
    if base.size:
        out = n("Add", out, n.like(out, base))
    if not forest.certain.all():
        out = n("Select", forest.is_scored(n, raw, reduction), out, n.like(out, 0))
    # ONNX Runtime ignores other transforms of one target
    return transform_scores(n, out, transform if targets > 1 or transform == "PROBIT" else "NONE")


@ml("TreeEnsembleRegressor")
def tree_ensemble_regressor(n: OnnxNode) -> Any:
    targets = n.check_count(n.attr("n_targets") or 1, "targets", 1 << 16)
    how = check_word("aggregate_function", n.attr("aggregate_function") or "SUM", AGGREGATES)
    reduction = "SUM" if how == "AVERAGE" else how
    forest, _ = _read_by_ids(n, "target", targets, reduction)
    base = _read_column(n, "base_values", np.float32)
    x = _read_features(n, forest)
    return n.convert(_predict_targets(n, x, forest, targets, how, base, read_transform(n)), "f32")


def _read_features(n: OnnxNode, forest: Forest) -> Output:
    """The rows of features, in f64 if they or the tables of the trees are."""
    x = read_rows(n)
    doubles = np.float64 in (forest.thresholds.dtype, forest.weights.dtype)
    return n.convert(x, "f64") if doubles else x


@ml("TreeEnsembleClassifier")
def tree_ensemble_classifier(n: OnnxNode) -> Any:
    """(class of each row, scores)"""
    labels = read_labels(n)
    classes = n.check_count(labels.size, "classes", 1 << 16)
    forest, attributes = _read_by_ids(n, "class", classes, "SUM")
    base, transform = _read_column(n, "base_values", np.float32), read_transform(n)
    x = _read_features(n, forest)
    raw = forest.results(n, x, "SUM", classes)
    if classes != 2:
        return _classify_many(n, forest, raw, labels, base, transform)
    return _classify_two(n, forest, raw, labels, base, transform, attributes)


def _classify_many(
    n: OnnxNode, forest: Forest, raw: Output, labels: np.ndarray, base: np.ndarray, transform: str
) -> list[Output]:
    """The class with the highest score among those that have one: by a weight, or a base value."""
    if base.size not in (0, labels.size):
        raise ModelError(f"{base.size} base values are given for {labels.size} classes")
    scores, ranked = raw, raw
    if base.size:
        scores = ranked = n("Add", raw, n.like(raw, base))
    elif not forest.certain.all():
        scores = n("Add", raw, n.like(raw, 0))  # 0 instead of -0 for no weights
        ranked = n("Select", forest.is_scored(n, raw, "SUM"), scores, n.like(raw, -np.inf))
    scores = n.convert(transform_scores(n, scores, transform), "f32")
    return [best_labels(n, ranked, labels), scores]


def _classify_two(
    n: OnnxNode, forest: Forest, raw: Output, labels: np.ndarray, base: np.ndarray, transform: str,
    leaf_weights: _LeafRows,
) -> list[Output]:  # fmt: skip
    """Scores and labels as ONNX Runtime has them. A row without a weight for the second class has one score.
    With two base values the second class has the first one's sum. The label is the second class if its score
    is positive, or above a half if one class has weights and none is negative. Of probabilities of both
    classes the label is that of the higher one."""
    if base.size > 2:
        raise ModelError(f"{base.size} base values are given for two classes")
    one_class = len(distinct(leaf_weights.targets)) < 2
    positive = one_class and bool((leaf_weights.values >= 0).all())
    first, second = n.slice(raw, 1, 0, 1), n.slice(raw, 1, 1, 2)
    zero = n.like(raw, 0)
    there = n("Select", forest.is_scored(n, first, "SUM"), n.like(raw, 1), zero)
    there = n.like(raw, [[1.0]]) if forest.certain[0] else there
    sum_0 = n("Add", first, n.like(raw, base[0] if base.size else 0))
    if base.size == 2:
        high = n("Add", n("Add", first, zero), n.like(raw, base[1]))
        both = n("Concat", n("Multiply", n("Negative", high), there), high, axis=1)
        alone = n("Concat", n("Multiply", sum_0, there), n("Multiply", sum_0, zero), axis=1)
    else:
        both = n("Concat", n("Multiply", sum_0, there), n("Add", second, zero), axis=1)
        alone = n("Concat", n("Subtract", n.like(raw, 1), sum_0) if positive else n("Negative", sum_0), sum_0,
                  axis=1)  # fmt: skip
    limit = n.like(raw, 0.5 if positive else 0.0)
    above_alone = n("Greater", sum_0, limit)
    rival = limit
    if not one_class and leaf_weights.are_probabilities():
        rival = n.slice(both, 1, 0, 1)
    above = n("Greater", n.slice(both, 1, 1, 2), rival)
    both = transform_scores(n, both, transform)
    alone = _transform_alone(n, alone, sum_0, transform, base.size)
    if not (leaf_weights.targets == 1).any():
        scores, above = alone, above_alone
    elif forest.certain[1]:
        scores = both
    else:
        scored = forest.is_scored(n, second, "SUM")
        scores, above = n("Select", scored, both, alone), n("Select", scored, above, above_alone)
    index = n.squeeze(n.convert(above, "i64"), [1])
    return [pick_labels(n, index, labels), n.convert(scores, "f32")]


def _transform_alone(n: OnnxNode, pair: Output, score: Output, transform: str, bases: int) -> Output:
    """Both classes' scores from a single score, which softmax leaves unchanged."""
    if bases == 2:
        return transform_scores(n, pair, transform)
    if transform == "LOGISTIC":
        return n("Sigmoid", n("Concat", n("Negative", score), score, axis=1))
    if transform == "PROBIT":  # ONNX Runtime leaves the second one undefined
        nothing = n("Multiply", score, n.like(score, 0))
        return n("Concat", transform_scores(n, score, transform), nothing, axis=1)
    return pair


@ml("TreeEnsemble", 5)
def tree_ensemble(n: OnnxNode) -> Any:
    targets = n.check_count(n.attr("n_targets") or 1, "targets", 1 << 16)
    how, end = n.attr("aggregate_function", 1), n.attr("post_transform", 0)
    if not 0 <= how < len(AGGREGATES) or not 0 <= end < len(TRANSFORMS):
        raise ModelError(f"the aggregate_function {how} or the post_transform {end} is unknown")
    aggregate = AGGREGATES[how]
    forest = _read_by_places(n, targets, "SUM" if aggregate == "AVERAGE" else aggregate)
    kind = n.dtype(n[0])
    x = _read_features(n, forest)
    scores = _predict_targets(n, x, forest, targets, aggregate, np.zeros(0), TRANSFORMS[end])
    return n.convert(scores, kind if kind in ("f16", "f64") else "f32")


def _read_by_places(n: OnnxNode, targets: int, reduction: str) -> Forest:
    """The forest of a TreeEnsemble, which stores leaves in a list after the nodes."""
    features = np.asarray(n.require("nodes_featureids"), np.int64)
    inner = n.check_count(features.size, "nodes of trees", 1 << 24)
    weights = _read_array(n, n.require("leaf_weights"))
    target = np.asarray(n.require("leaf_targetids"), np.int64)
    leaves = n.check_count(weights.size, "leaves of trees", 1 << 24)
    kinds, values = _read_array(n, n.require("nodes_modes")), _read_array(n, n.require("nodes_splits"))
    if (kinds >= len(MODES)).any() or target.size != leaves:
        raise ModelError("the modes of tree nodes are unknown, or leaves differ in number from their targets")
    if ((target < 0) | (target >= targets)).any():
        raise ModelError("a leaf refers to a target that does not exist")
    missing = np.asarray(n.attr("nodes_missing_value_tracks_true") or [0] * inner, np.int64) != 0
    _check_lengths(inner, kinds, values, missing)
    children = np.zeros((inner, 2), np.int64)
    for s, side in enumerate(("true", "false")):
        indices = np.asarray(n.require(f"nodes_{side}nodeids"), np.int64)
        is_leaf = np.asarray(n.require(f"nodes_{side}leafs"), np.int64) != 0
        if indices.size != inner or is_leaf.size != inner or (indices < 0).any():
            raise ModelError(f"{indices.size} children are given for {inner} tree nodes")
        if (indices >= np.where(is_leaf, leaves, inner)).any():
            raise ModelError("a tree node has a child that does not exist")
        children[:, s] = indices + np.where(is_leaf, inner, 0)
    roots = np.asarray(n.require("tree_roots"), np.int64)
    if not roots.size or ((roots < 0) | (roots >= inner)).any():
        raise ModelError("the root of a tree does not exist")
    doubles = np.float64 if np.float64 in (values.dtype, weights.dtype) else np.float32
    modes = np.concatenate([kinds.astype(np.int64), np.full(leaves, _INNER_MODES)])
    features = np.concatenate([features, np.zeros(leaves, np.int64)])
    thresholds = np.concatenate([values, np.zeros(leaves, values.dtype)]).astype(doubles)
    children = np.concatenate([children, np.zeros((leaves, 2), np.int64)])
    missing = np.concatenate([missing, np.zeros(leaves, bool)])
    if (kinds == _MEMBER).any():
        members = _read_array(n, n.require("membership_values")).astype(doubles)
        modes, features, thresholds, children, missing = _search_members(
            n, members, modes, features, thresholds, children, missing
        )
    thresholds, nodes = _convert_nodes(modes, features, children, thresholds, missing)
    owner = _find_owners(n, nodes, roots)
    of = np.zeros(len(nodes), np.int64) if owner is None else owner
    rows = _LeafWeights(of, len(roots), targets, reduction)
    indices = np.arange(inner, inner + leaves)
    used = indices if owner is None else indices[owner[indices] >= 0]
    starts = rows.fill(n, used, used, target[used - inner], weights.astype(doubles)[used - inner])
    nodes[used, 2] = starts
    if owner is None:  # trees that share nodes have the same targets
        rows.first[:], rows.width[:] = rows.first[0], rows.width[0]
        rows.certain[:] = False
    return Forest(thresholds, nodes, rows.trees(roots), rows.weights, rows.certain)


def _find_owners(n: OnnxNode, nodes: np.ndarray, roots: np.ndarray) -> np.ndarray | None:
    """The tree of each node, -1 for those of none; None if trees share nodes."""
    owner = np.full(len(nodes), -1)
    level, of = roots, np.arange(len(roots))
    for depth in range(len(nodes) + 1):
        n.check_count(depth, "levels of trees", _MOST_LEVELS)
        if not level.size:
            return owner
        has_owner = owner[level] >= 0
        if (owner[level[has_owner]] != of[has_owner]).any():
            return None
        owner[level] = of
        if (owner[level] != of).any():
            return None
        first = np.unique(level, return_index=True)[1]
        level, of = level[first], of[first]
        inner = nodes[level, 0] != _LEAF
        level, of = nodes[level[inner], 2:].reshape(-1), np.repeat(of[inner], 2)
    raise ModelError("the nodes of a tree form a cycle")


def _search_members(
    n: OnnxNode, values: np.ndarray, modes: np.ndarray, features: np.ndarray, thresholds: np.ndarray,
    children: np.ndarray, missing: np.ndarray,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """The nodes with each BRANCH_MEMBER as a binary search of its sorted members, which compares for equality
    last. `values`: the lists of members in the order of their nodes, each with a NaN after it."""
    asking = np.flatnonzero(modes == _MEMBER)
    lists = np.cumsum(np.isnan(values)) - np.isnan(values)
    if len(asking) > (lists[-1] + 1 if len(values) else 0):
        raise ModelError(f"{len(np.unique(lists))} lists of members are given for {len(asking)} nodes")
    pairs = np.unique(np.stack([lists, values], 1)[~np.isnan(values)], axis=0)
    members = pairs[:, 1].astype(values.dtype)
    bounds = np.searchsorted(pairs[:, 0], np.arange(len(asking) + 1))
    count = n.check_count(len(modes) + 2 * len(members), "nodes of trees", 1 << 24)
    grown = [np.resize(a, (count, *a.shape[1:])) for a in (modes, features, thresholds, children, missing)]
    modes, features, thresholds, children, missing = grown
    yes, no = children[asking].T
    at, low, high, free = asking, bounds[:-1], bounds[1:], count - 2 * len(members)
    feature, track = features[asking], missing[asking]
    modes[at] = MODES.index("BRANCH_EQ")
    thresholds[at[low == high]] = np.nan  # no members
    while True:
        one = high - low == 1
        thresholds[at[one]] = members[low[one]]
        more = high - low > 1
        at, low, high, yes, no, feature, track = (a[more] for a in (at, low, high, yes, no, feature, track))
        if not at.size:
            return modes[:free], features[:free], thresholds[:free], children[:free], missing[:free]
        middle = (low + high) // 2
        modes[at], thresholds[at] = MODES.index("BRANCH_LEQ"), members[middle - 1]
        sides = free + np.arange(2 * len(at)).reshape(-1, 2)
        free += 2 * len(at)
        children[at] = sides
        low, high = (np.stack(ends, 1).reshape(-1) for ends in ((low, middle), (middle, high)))
        at = sides.reshape(-1)
        yes, no, feature, track = (np.repeat(a, 2) for a in (yes, no, feature, track))
        modes[at], features[at], missing[at] = MODES.index("BRANCH_EQ"), feature, track
        children[at] = np.stack([yes, no], 1)
