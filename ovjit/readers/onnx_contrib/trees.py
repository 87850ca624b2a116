"""Trees and linear models of ai.onnx.ml: all rows walk down all trees at once, a level at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.api.model.node import Output
from ovjit.errors import ModelError, UnsupportedError
from ovjit.readers.onnx.control import circulated
from ovjit.readers.onnx.node import MOST_NODES, OnnxNode
from ovjit.readers.onnx.text import same_text, text_at
from ovjit.readers.onnx_contrib.ml import ml

if TYPE_CHECKING:
    from ovjit.readers.onnx.scope import Scope

_COMPARISONS = {"BRANCH_LEQ": "LessEqual", "BRANCH_LT": "Less", "BRANCH_GTE": "GreaterEqual",
                "BRANCH_GT": "Greater", "BRANCH_EQ": "Equal", "BRANCH_NEQ": "NotEqual"}  # fmt: skip
_MEMBER = "BRANCH_MEMBER"


class _Forest:
    """Nodes of all trees by number: features, thresholds, comparisons, children, roots. A leaf is its own
    child. `members` are the numbers of which a feature may be one, [nodes, most of them], NaN behind."""

    modes: list[str]
    features: np.ndarray
    values: np.ndarray
    leaf: np.ndarray
    children: np.ndarray
    roots: np.ndarray
    missing: np.ndarray
    members: np.ndarray | None = None

    def depth(self) -> int:
        """The longest way from a root to a leaf. Raises ModelError for a circle."""
        level, depth = self.roots, 0
        while True:
            level = np.unique(level[~self.leaf[level]])
            if not level.size:
                return depth
            level = np.unique(self.children[level].reshape(-1))
            depth += 1
            if depth > len(self.leaf):
                raise ModelError("the nodes of a tree form a cycle")

    def leaves(self, n: OnnxNode, x: Output) -> Output:
        """The number of the leaf that each row comes to in each tree: [rows, trees]"""
        depth = self.depth()
        n.limited(depth, "levels of trees", MOST_NODES)
        kinds = sorted(set(self.modes) - {"LEAF"})
        if unknown := [k for k in kinds if k not in (*_COMPARISONS, _MEMBER)]:
            raise UnsupportedError(f"the comparison {unknown[0][:20]!r} is unknown")
        shape = n.concat([n.dim_of(x, 0), n.const(np.array([len(self.roots)]))], 0)
        at = n.broadcast(n.const(self.roots), shape)
        features = n.const(np.where(self.leaf, 0, self.features))
        values, children = n.like(x, self.values), n.const(self.children.reshape(-1))
        which = n.const(np.array([kinds.index(m) if m in kinds else 0 for m in self.modes], np.int64))
        missing = n.const(self.missing)
        for _ in range(depth):
            mine = n("GatherElements", x, n("Gather", features, at, 0, opset=8), axis=1)
            limit = n("Gather", values, at, 0, opset=8)
            yes: Output | None = None
            for i, kind in enumerate(kinds):
                if kind == _MEMBER:
                    rows = n("Gather", n.like(x, self.members), at, 0, opset=8)
                    own = n("ReduceLogicalOr", n("Equal", n.unsqueeze(mine, [2]), rows), [2], keep_dims=False)
                else:
                    own = n(_COMPARISONS[kind], mine, limit)
                chosen = n("Equal", n("Gather", which, at, 0, opset=8), i)
                yes = own if yes is None else n("Select", chosen, own, yes)
            assert yes is not None
            if self.missing.any():
                track = n("LogicalAnd", n("IsNaN", mine, opset=10), n("Gather", missing, at, 0, opset=8))
                yes = n("LogicalOr", yes, track)
            place = n("Add", n("Multiply", at, 2), n.convert(yes, "i64"))
            at = n("Gather", children, place, 0, opset=8)
        return at


class _ForestByIds(_Forest):
    """Nodes that name their children by the ids of trees and nodes."""

    def __init__(self, n: OnnxNode):
        def column(name: str, dtype: Any) -> np.ndarray:
            tensor = n.attr(f"{name}_as_tensor")
            if tensor is not None:
                return _array(n, tensor)
            return np.asarray(n.attr(name) or [], dtype)

        trees, ids = column("nodes_treeids", np.int64), column("nodes_nodeids", np.int64)
        count = n.limited(len(trees), "nodes of trees", 1 << 22)
        self.modes = [str(m) for m in n.required("nodes_modes")]
        self.features, self.values = column("nodes_featureids", np.int64), column("nodes_values", np.float32)
        numbers = {(int(t), int(i)): k for k, (t, i) in enumerate(zip(trees, ids, strict=True))}
        self.number = numbers
        sides = [column(f"nodes_{side}nodeids", np.int64) for side in ("false", "true")]
        for size in (len(self.modes), *(len(row) for row in (self.features, self.values, *sides))):
            if size != count:
                raise ModelError(f"{size} numbers are given for {count} tree nodes")
        self.leaf = np.array([m == "LEAF" for m in self.modes])
        own = np.arange(count)
        self.children = np.stack([own, own], 1)
        for k in np.flatnonzero(~self.leaf):
            for s, side in enumerate(sides):
                child = numbers.get((int(trees[k]), int(side[k])))
                if child is None:
                    where = f"the node {int(ids[k])} of the tree {int(trees[k])}"
                    raise ModelError(f"{where} has a child that does not exist")
                self.children[k, s] = child
        missing = column("nodes_missing_value_tracks_true", np.int64)
        self.missing = missing.astype(bool) if len(missing) == count else np.zeros(count, bool)
        first: dict[int, int] = {}
        for place, tree in enumerate(trees.tolist()):
            first.setdefault(tree, place)
        self.roots = np.array(list(first.values()), np.int64)

    def weights(self, n: OnnxNode, prefix: str, targets: int) -> np.ndarray:
        """[nodes, targets]: what a leaf adds to each target"""
        kind = "target" if prefix == "target" else "class"
        trees, ids, which = (n.attr(f"{kind}_{name}") or [] for name in ("treeids", "nodeids", "ids"))
        tensor = n.attr(f"{kind}_weights_as_tensor")
        values = n.attr(f"{kind}_weights") or [] if tensor is None else _array(n, tensor).tolist()
        n.limited(len(self.leaf) * targets, "weights of leaves")
        table = np.zeros((len(self.leaf), targets), np.float32)
        for tree, node, target, value in zip(trees, ids, which, values, strict=True):
            place = self.number.get((tree, node))
            if place is None or not 0 <= target < targets:
                raise ModelError(
                    f"the weight of node {node} of tree {tree} for target {target} refers to no leaf"
                )
            table[place, target] += value
        return table


class _ForestByPlaces(_Forest):
    """Nodes that name their children by their places, leaves being a list of their own behind them."""

    def __init__(self, n: OnnxNode):
        features = np.asarray(n.required("nodes_featureids"), np.int64)
        inner = n.limited(features.size, "nodes of trees", 1 << 22)
        self.weights = _array(n, n.required("leaf_weights"))
        self.targets = np.asarray(n.required("leaf_targetids"), np.int64)
        leaves = n.limited(self.weights.size, "leaves of trees", 1 << 22)
        kinds, self.values = _array(n, n.required("nodes_modes")), _array(n, n.required("nodes_splits"))
        names = [*_COMPARISONS, _MEMBER]
        if (kinds >= len(names)).any() or kinds.size != inner or self.targets.size != leaves:
            raise ModelError("the attributes of tree nodes differ in length, or their modes are inconsistent")
        self.modes = [names[int(kind)] for kind in kinds] + ["LEAF"] * leaves
        self.features = np.concatenate([features, np.zeros(leaves, np.int64)])
        self.values = np.concatenate([self.values, np.zeros(leaves, self.values.dtype)])
        self.leaf = np.arange(inner + leaves) >= inner
        own = np.arange(inner + leaves)
        self.children = np.stack([own, own], 1)
        for s, side in enumerate(("false", "true")):
            place = np.asarray(n.required(f"nodes_{side}nodeids"), np.int64)
            is_leaf = np.asarray(n.required(f"nodes_{side}leafs"), np.int64) != 0
            if place.size != inner or is_leaf.size != inner or (place < 0).any():
                raise ModelError(f"{place.size} children are given for {inner} tree nodes")
            if (place >= np.where(is_leaf, leaves, inner)).any():
                raise ModelError("a tree node has a child that does not exist")
            self.children[:inner, s] = place + np.where(is_leaf, inner, 0)
        missing = n.attr("nodes_missing_value_tracks_true") or [0] * inner
        self.missing = np.zeros(inner + leaves, bool)
        self.missing[:inner] = missing
        self.roots = np.asarray(n.required("tree_roots"), np.int64)
        if not self.roots.size or ((self.roots < 0) | (self.roots >= inner)).any():
            raise ModelError("the root of a tree does not exist")
        if _MEMBER in self.modes:
            self._read_members(_array(n, n.required("membership_values")))

    def _read_members(self, values: np.ndarray) -> None:
        """Lists of members, each with a NaN behind it, for the nodes that ask for them in their order."""
        lists = np.split(values, np.flatnonzero(np.isnan(values)) + 1)
        nodes = [i for i, mode in enumerate(self.modes) if mode == _MEMBER]
        if len(lists) < len(nodes):
            raise ModelError(f"{len(lists)} lists of members are given for {len(nodes)} nodes")
        most = max(1, *(len(row) for row in lists))
        self.members = np.full((len(self.modes), most), np.nan, values.dtype)
        for node, row in zip(nodes, lists, strict=False):
            self.members[node, : len(row)] = row


@ml("TreeEnsemble", 5)
def tree_ensemble(n: OnnxNode) -> Any:
    forest, targets = _ForestByPlaces(n), n.limited(n.attr("n_targets") or 1, "targets", 1 << 16)
    if ((forest.targets < 0) | (forest.targets >= targets)).any():
        raise ModelError("a leaf refers to a target that does not exist")
    n.limited(len(forest.modes) * targets, "weights of leaves")
    table = np.zeros((len(forest.modes), targets), forest.weights.dtype)
    table[np.flatnonzero(forest.leaf), forest.targets] = forest.weights
    hows, ends = ("AVERAGE", "SUM", "MIN", "MAX"), ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
    how, end = n.attr("aggregate_function", 1), n.attr("post_transform", 0)
    if not 0 <= how < len(hows) or not 0 <= end < len(ends):
        raise ModelError(f"the aggregate function {how} or the post_transform {end} is unknown")
    return _transformed(n, _summed(n, n[0], forest, table, hows[how]), ends[end])


def _array(n: OnnxNode, tensor: Any) -> np.ndarray:
    value = n.value(n.reader.constant(tensor))
    assert value is not None
    return value.reshape(-1)


def _features(n: OnnxNode) -> Output:
    x = n.convert(n[0], "f32")
    return n.unsqueeze(x, [0]) if n.rank(x) == 1 else x


def _summed(n: OnnxNode, x: Output, forest: _Forest, table: np.ndarray, how: str) -> Output:
    """[rows, targets]: what the leaves of all trees give together"""
    reached = n("Gather", n.like(x, table), forest.leaves(n, x), 0, opset=8)
    if how not in ("SUM", "AVERAGE", "MIN", "MAX"):
        raise UnsupportedError(f"the aggregate function {how[:20]!r} is not supported")
    if how in ("MIN", "MAX"):
        if table.shape[1] != 1:
            raise UnsupportedError(f"the aggregate function {how} of several targets is not supported")
        return n(f"Reduce{how.title()}", reached, [1], keep_dims=False)
    total = n("ReduceSum", reached, [1], keep_dims=False)
    return n("Divide", total, n.like(x, len(forest.roots))) if how == "AVERAGE" else total


@ml("TreeEnsembleRegressor")
def tree_ensemble_regressor(n: OnnxNode) -> Any:
    forest, targets = _ForestByIds(n), n.limited(n.attr("n_targets") or 1, "targets", 1 << 16)
    out = _summed(
        n, _features(n), forest, forest.weights(n, "target", targets), n.attr("aggregate_function") or "SUM"
    )
    base = n.attr("base_values")
    if base:
        out = n("Add", out, np.asarray(base, np.float32))
    return _transformed(n, out)


@ml("TreeEnsembleClassifier")
def tree_ensemble_classifier(n: OnnxNode) -> Any:
    """(class of each row, scores). With weights for one class of two the other has what is left."""
    forest = _ForestByIds(n)
    labels = _labels(n)
    table = forest.weights(n, "class", n.limited(labels.size, "classes", 1 << 16))
    scores = _summed(n, _features(n), forest, table, "SUM")
    base = np.asarray(n.attr("base_values") or [], np.float32)
    named = set(n.attr("class_ids") or [])
    if labels.size == 2 and len(named) == 1:
        one = n.slice(scores, 1, min(named), min(named) + 1)
        if base.size:
            one = n("Add", one, base[-1:].reshape(1, 1))
        positive = not (np.asarray(n.attr("class_weights") or [0]) < 0).any()
        if named == {0}:
            return _of_two(n, one, labels, positive)
        scores = n("Concat", n("Multiply", one, 0.0), one, axis=1)
        above = n("Greater", one, 0.5 if positive else 0.0)
        return [_named(n, n.squeeze(n.convert(above, "i64"), [1]), labels), _transformed(n, scores)]
    if base.size:
        scores = n("Add", scores, base)
    if labels.size == 2:
        above = n("Greater", n.slice(scores, 1, 1, 2), 0.0)
        return [_named(n, n.squeeze(n.convert(above, "i64"), [1]), labels), _transformed(n, scores)]
    return [_best(n, scores, labels), _transformed(n, scores)]


def _of_two(n: OnnxNode, one: Output, labels: np.ndarray, positive: bool) -> list[Output]:
    """(label, scores of both classes) from the score of one: weights that are positive are a probability."""
    above = n("Greater", one, 0.5 if positive else 0.0)
    place = n.squeeze(n.convert(above, "i64"), [1])
    how = n.attr("post_transform") or "NONE"
    if positive and how != "LOGISTIC":
        scores = n("Concat", n("Subtract", 1.0, one), one, axis=1)
        return [_named(n, place, labels), scores]
    both = n("Concat", n("Negative", one), one, axis=1)
    return [_named(n, place, labels), n("Sigmoid", both) if how == "LOGISTIC" else both]


def _labels(n: OnnxNode) -> np.ndarray:
    """The names of classes, numbers or texts."""
    for name in ("classlabels_int64s", "classlabels_ints"):
        if n.attr(name):
            return np.asarray(n.attr(name), np.int64)
    if n.attr("classlabels_strings"):
        return np.asarray(n.attr("classlabels_strings"), object)
    raise ModelError("the labels of the classes are missing")


def _named(n: OnnxNode, place: Output, labels: np.ndarray) -> Output:
    if labels.dtype == object:
        return text_at(n, labels.tolist(), place)
    return n("Gather", n.const(labels), place, 0, opset=8)


def _best(n: OnnxNode, scores: Output, labels: np.ndarray) -> Output:
    return _named(n, n.squeeze(n.top_k(scores, 1, 1)[1], [1]), labels)


def _transformed(n: OnnxNode, scores: Output, how: str | None = None) -> Output:
    """What `post_transform` makes of scores."""
    how = how or n.attr("post_transform") or "NONE"
    if how == "NONE":
        return scores
    if how == "LOGISTIC":
        return n("Sigmoid", scores)
    if how == "SOFTMAX":
        return n("Softmax", scores, axis=1, opset=8)
    if how == "SOFTMAX_ZERO":
        zero = n("Equal", scores, n.like(scores, 0))
        weights = n("Select", zero, n.like(scores, -np.inf), scores)
        return n("Select", zero, n.like(scores, 0), n("Softmax", weights, axis=1, opset=8))
    raise UnsupportedError(f"the post_transform {how[:20]!r} is not supported")


def _linear(n: OnnxNode, count: int) -> Output:
    x = _features(n)
    weights = np.asarray(n.required("coefficients"), np.float32)
    if count < 1 or weights.size % count:
        raise ModelError(f"{weights.size} coefficients are given for {count} rows")
    out = n("MatMul", x, n.const(weights.reshape(count, -1)), transpose_b=True)
    offset = n.attr("intercepts")
    return n("Add", out, np.asarray(offset, np.float32)) if offset else out


@ml("LinearRegressor")
def linear_regressor(n: OnnxNode) -> Any:
    return _transformed(n, _linear(n, n.attr("targets") or 1))


@ml("LinearClassifier")
def linear_classifier(n: OnnxNode) -> Any:
    """(class of each row, scores)"""
    labels = _labels(n)
    rows = len(n.attr("intercepts") or ()) or labels.size
    scores = _linear(n, rows)
    if rows == 1 and labels.size == 2:
        return _of_two(n, scores, labels, False)
    return [_best(n, scores, labels), _transformed(n, scores)]


@ml("FeatureVectorizer")
def feature_vectorizer(n: OnnxNode) -> Any:
    parts = [n.convert(x if n.rank(x) > 1 else n.unsqueeze(x, [1]), "f32") for x in n.tensors()]
    return n.concat(parts, 1)


@ml("OneHotEncoder")
def one_hot_encoder(n: OnnxNode) -> Any:
    if n.dtype(n[0]) == "string" and not n.attr("cats_strings") and n.attr("zeros", 1):
        shape = [n.shape_of(n[0]), n.const(np.array([len(n.required("cats_int64s"))]))]  # no text is a number
        return n.broadcast(0.0, n.concat(shape, 0))
    if n.dtype(n[0]) == "string":
        return n.convert(same_text(n, n[0], n.required("cats_strings")), "f32")
    kinds = np.asarray(n.required("cats_int64s"), np.int64)
    return n.convert(n("Equal", n.unsqueeze(n.convert(n[0], "i64"), [n.rank(n[0])]), kinds), "f32")


@ml("ZipMap")
def zip_map(n: OnnxNode) -> Any:
    """What would be a map for each row, from classes to numbers, is the numbers: models have tensors only.
    Columns are the classes in the order of their labels."""
    _labels(n)
    return n("Identity", n[0])


@ml("SVMRegressor")
def svm_regressor(n: OnnxNode) -> Any:
    """Kernels of a row and each support vector, weighted; without vectors a linear model."""
    x = _features(n)
    weights, rho = (np.asarray(n.required(name), np.float32) for name in ("coefficients", "rho"))
    count = n.attr("n_supports") or 0
    if not rho.size or not weights.size:
        raise ModelError(
            f"{weights.size} coefficients and {rho.size} offsets are given; at least one of each is needed"
        )
    if count:
        vectors = np.asarray(n.required("support_vectors"), np.float32)
        if weights.size != count or not vectors.size or vectors.size % count:
            raise ModelError(
                f"{weights.size} coefficients and {vectors.size} elements do not match {count} vectors"
            )
        kernels = _kernels(n, x, vectors.reshape(count, -1))
    else:
        kernels = x
    out = n("Add", n("MatMul", kernels, n.const(weights.reshape(-1, 1))), rho[:1])
    if n.attr("one_class"):
        return n("Select", n("Greater", out, 0.0), 1.0, -1.0)
    return _transformed(n, out)


#: Elements of a matrix that tells which vectors speak for which pair of classes.
MOST_WEIGHTS = 1 << 24


@ml("SVMClassifier")
def svm_classifier(n: OnnxNode) -> Any:
    """(class of each row, what is decided between each two classes): the class with the most votes.

    Support vectors are ordered by class; row k of the coefficients has a vector's weights against the k-th of
    the other classes.
    """
    labels, each = _labels(n), [int(count) for count in n.attr("vectors_per_class") or ()]
    if not each:
        return _linear_machine(n, labels)
    classes, count = len(each), sum(each)
    vectors, weights, rho = (
        np.asarray(n.required(name), np.float32) for name in ("support_vectors", "coefficients", "rho")
    )
    fits = labels.size == classes > 1 and min(each) >= 0 < count <= vectors.size and vectors.size % count == 0
    if not fits or weights.size != (classes - 1) * count or rho.size != classes * (classes - 1) // 2:
        raise ModelError(
            f"{vectors.size} elements of vectors, {weights.size} coefficients and {rho.size} offsets do "
            f"not match {labels.size} labels with {each[:8]} vectors per class"
        )
    if rho.size * max(count, classes) > MOST_WEIGHTS:
        raise UnsupportedError(f"{count} vectors are not valid for {rho.size} pairs of classes")
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    weights = weights.reshape(classes - 1, count)
    of_class = np.repeat(np.arange(classes), each)
    against = np.stack(
        [
            np.where(of_class == i, weights[j - 1], 0) + np.where(of_class == j, weights[i], 0)
            for i, j in pairs
        ]
    )
    kernels = _kernels(n, _features(n), vectors.reshape(count, -1))
    scores = n("Add", n("MatMul", kernels, n.const(against.astype(np.float32)), transpose_b=True), rho)
    first, second = (np.eye(classes, dtype=np.float32)[[pair[at] for pair in pairs]] for at in (0, 1))
    won = n.convert(n("Greater", scores, 0.0), "f32")
    votes = n("MatMul", won, n.const(first - second))
    best = _best(n, n("Add", votes, second.sum(0)), labels)
    if n.attr("prob_a"):
        return [best, _transformed(n, _probabilities(n, scores, pairs, classes))]
    if classes > 2:
        return [best, _transformed(n, scores)]
    how = n.attr("post_transform") or "NONE"
    if how in ("SOFTMAX", "SOFTMAX_ZERO"):  # of one score of two classes there is nothing to normalise
        return [best, n("Concat", n("Subtract", 1.0, scores), scores, axis=1)]
    return [best, _transformed(n, n("Concat", n("Negative", scores), scores, axis=1))]


def _linear_machine(n: OnnxNode, labels: np.ndarray) -> Any:
    """A support vector machine without vectors: a sum for each class, of which the highest is the right one.
    The second of two classes is it for ONNX Runtime wherever any sum is above a limit."""
    weights, rho = (np.asarray(n.required(name), np.float32) for name in ("coefficients", "rho"))
    if not rho.size or n.attr("prob_a"):
        raise UnsupportedError(
            f"{rho.size} offsets of a machine without vectors, or its probabilities, are not supported"
        )
    n.attributes = {**n.attributes, "intercepts": [float(rho[0])] * labels.size}
    scores = decided = _linear(n, labels.size)
    if labels.size == 2:
        limit = n("GreaterEqual", scores, 0.5) if (weights >= 0).all() else n("Greater", scores, 0.0)
        above = n("ReduceLogicalOr", limit, [1], keep_dims=True)
        decided = n("Select", n("LogicalAnd", above, n.const(np.array([False, True]))), np.inf, scores)
    return [_best(n, decided, labels), _transformed(n, scores)]


def _probabilities(n: OnnxNode, scores: Output, pairs: Sequence[tuple[int, int]], classes: int) -> Output:
    """Probabilities of classes from those of each pair of classes: the p that minimises p' Q p. Newton's
    method updates one class after the other, with libsvm's number of rounds and tolerance."""
    slopes, offsets = (np.asarray(n.attr(f"prob_{which}") or [], np.float32) for which in "ab")
    if slopes.size != len(pairs) or offsets.size != len(pairs):
        raise ModelError(
            f"{slopes.size} and {offsets.size} parameters are given for {len(pairs)} pairs of classes"
        )
    n.limited(classes, "classes whose probabilities are found by iteration", 64)
    of_two = n("Sigmoid", n("Negative", n("Add", n("Multiply", scores, slopes), offsets)))
    of_two = n("Clamp", of_two, min=1e-7, max=float(np.float32(1 - 1e-7)))
    column = np.full((classes, classes), len(pairs) * 2)
    for at, (i, j) in enumerate(pairs):
        column[i, j], column[j, i] = at, len(pairs) + at
    nothing = n("Multiply", n.slice(of_two, 1, 0, 1), 0.0)
    sides = n("Concat", of_two, n("Subtract", 1.0, of_two), nothing, axis=1)
    wins = n("Gather", sides, column, 1, opset=8)  # [rows, i, j]: i rather than j; 0 for i = j
    square = n("ReduceSum", n("Multiply", wins, wins), [1], keep_dims=False)
    ones = np.eye(classes, dtype=np.float32)
    q = n("Subtract", n("Multiply", n.unsqueeze(square, [2]), ones),
          n("Multiply", wins, n.transpose(wins, [0, 2, 1])))  # fmt: skip
    start = n("Add", n("Multiply", square, 0.0), np.float32(1 / classes))

    def once(state: dict[str, Output], _trip: Output, scope: Scope) -> tuple[dict[str, Output], Output]:
        """(p after one more round, whether any row had to go on)"""
        p, q_here = state["p"], scope.capture(q)
        first, weights = p, n.squeeze(n("MatMul", n.unsqueeze(p, [1]), q_here), [1])
        least = n("ReduceSum", n("Multiply", p, weights), [1], keep_dims=True)
        gap = n("ReduceMax", n("Abs", n("Subtract", weights, least)), [1], keep_dims=True)
        busy = n("GreaterEqual", gap, np.float32(0.005 / classes))
        for t in range(classes):
            row = n("Gather", q_here, t, 1, opset=8)
            mine, own = (n.slice(x, 1, t, t + 1) for x in (weights, row))
            step = n("Divide", n("Subtract", least, mine), own)
            more = n("Add", step, 1.0)
            least = n("Add", least, n("Multiply", step, n("Add", n("Multiply", step, own),
                                                          n("Multiply", mine, 2.0))))  # fmt: skip
            least = n("Divide", n("Divide", least, more), more)
            weights = n("Divide", n("Add", weights, n("Multiply", step, row)), more)
            p = n("Divide", n("Add", p, n("Multiply", step, ones[t])), more)
        return {"p": n("Select", busy, p, first)}, n("ReduceLogicalOr", busy, [0, 1], keep_dims=False)

    return circulated(n, once, n.const(max(100, classes)), n.const(True), {"p": start})["p"]


def _kernels(n: OnnxNode, x: Output, vectors: np.ndarray) -> Output:
    """What the kernel of a support vector machine says of each row and vector: [rows, vectors]"""
    gamma, offset, degree = [*(n.attr("kernel_params") or []), 0.0, 0.0, 0.0][:3]
    how = n.attr("kernel_type")
    if how == "RBF":
        gap = n("Subtract", n.unsqueeze(x, [1]), vectors[None])
        far = n("ReduceSum", n("Multiply", gap, gap), [2], keep_dims=False)
        return n("Exp", n("Multiply", far, -float(gamma)))
    out = n("MatMul", x, n.const(vectors), transpose_b=True)
    if how == "LINEAR":
        return out
    out = n("Add", n("Multiply", out, float(gamma)), float(offset))
    if how == "POLY":
        return n("Power", out, float(degree))
    if how == "SIGMOID":
        return n("Tanh", out)
    raise UnsupportedError(f"the kernel {how[:20]!r} is not supported")
