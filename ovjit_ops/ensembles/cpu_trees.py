"""Native TreeEnsemble: the lanes of a vector are rows that go down one tree, or trees that one row goes down.

A step down gathers the records of all lanes, gathers the features that they name, and compares. It has no
branches: lanes that have reached a leaf stay there. The first levels of a tree are read from registers
(`PackedForest.heads`). Chunks are ranges of rows. Each target adds its trees in their order, so results do
not depend on the number of threads or rows.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.function import inline, kernel
from ovjit.codegen.words import *
from ovjit.planning.launch import launch
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import Constants, NotNative, Planner
from ovjit_ops.ensembles.packed_forest import (
    FLAG_BITS,
    HEAD,
    IS_EQ,
    IS_LEAF,
    IS_LT,
    IS_NAN_TRUE,
    MOST_FEATURES,
    MOST_RECORDS,
    pack_forest,
)
from ovjit_ops.ensembles.trees import TYPES

#: Vectors of rows that go down a tree at a time.
VECTORS = 4
#: Rows of an item: a multiple of VECTORS vectors. Their features should stay in the first-level cache.
MOST_ROWS, LEAST_ROWS, CACHED = 512, 64, 1 << 14
#: Int64s of a tree's row: first record, depth, first target, number of targets.
ROW = 4
NONE = {"sum": -0.0, "min": float("nan"), "max": float("nan")}


@inline
def combined(total, more, reduction, T):
    """The result of a target after one more tree."""
    return (
        total + more if reduction == "sum"
        else select((more < total) | (total != total), more, total) if reduction == "min"
        else select((more > total) | (total != total), more, total)
    )  # fmt: skip


@inline
def is_flagged(link, flag):
    return (link & const[i32](flag)) != const[i32](0)


@inline
def goes_true(value, threshold, link, modes, nans):
    """The lanes whose rows take the true child."""
    yes = value < threshold if modes == "lt" else value <= threshold
    if modes == "any":
        same = value == threshold
        yes = select(is_flagged(link, IS_LT), value < threshold, yes)
        yes = select(is_flagged(link, IS_EQ), same, yes)
    if nans:
        yes = yes | (is_flagged(link, IS_NAN_TRUE) & (value != value))
    return yes


@inline
def feature_of(link, bits, wide):
    return (
        link >> const[i32](FLAG_BITS) if wide
        else (link >> const[i32](FLAG_BITS)) & spread[i32]((1 << bits) - 1)
    )  # fmt: skip


@inline
def next_place(place, link, child, yes, bits, wide):
    """The position of the taken child; of a leaf, its own."""
    step = select(yes, const[i32](0), const[i32](1))
    first = child if wide else link >> spread[i32](bits + FLAG_BITS)
    return select(is_flagged(link, IS_LEAF), place, first + step)


@inline
def go_down(near, link, value, child, tree, head, depth, rows, offsets, count, *, T, wide, modes, nans, top,
            bits):  # fmt: skip
    """Move `count` vectors of rows to leaves: their links, weights and, if wide, children are stored in
    registers. `offsets`: the elements from `rows` to the first feature of each row."""
    for u in static_range(count):
        near[u] = const[i32](0)
    if not wide:
        values = load[T](head)
        links = load[i32](head + HEAD * 4)
        for _ in range(min(depth, top)):
            for u in static_range(count):
                link[u] = permute[i32](links, near[u])
                at = load[i32](offsets + u * VL * 4) + feature_of(link[u], bits, wide)
                yes = goes_true(take[T](rows, at), permute[T](values, near[u]), link[u], modes, nans)
                near[u] = next_place(near[u], link[u], link[u], yes, bits, wide)
    while True:
        for u in static_range(count):
            if wide:
                word = near[u] << const[i32](2)
                value[u] = take[T](tree, word if T == "f32" else near[u] << const[i32](1))
                link[u] = take[i32](tree + 8, word)
                child[u] = take[i32](tree + 12, word)
            else:
                word = near[u] << const[i32](1)
                value[u] = take[T](tree, word)
                link[u] = take[i32](tree + 4, word)
        still = link[0]
        for u in static_range(1, count):
            still = still & link[u]
        if hand[boolean](is_flagged(still, IS_LEAF)):
            break
        for u in static_range(count):
            at = load[i32](offsets + u * VL * 4) + feature_of(link[u], bits, wide)
            at = select(is_flagged(link[u], IS_LEAF), load[i32](offsets + u * VL * 4), at)
            yes = goes_true(take[T](rows, at), value[u], link[u], modes, nans)
            near[u] = next_place(near[u], link[u], child[u] if wide else link[u], yes, bits, wide)


@inline
def add_leaves(value, link, child, weights, total, targets, step, count, *, T, wide, single, reduction):
    """Combine the weights of leaves with the results of the tree's targets, `step` bytes apart."""
    if single or targets == 1:
        for u in static_range(count):
            at = total + u * VL * SIZE[T]
            store[T](at, combined(load[T](at), value[u], reduction, T))
    else:
        for u in static_range(count):
            start = child[u] if wide else link[u] >> const[i32](1)
            for j in range(targets):
                at = total + j * step + u * VL * SIZE[T]
                store[T](at, combined(load[T](at), take[T](weights + j * SIZE[T], start), reduction, T))


@kernel(
    over="rows/each", x="rows f:1", y="rows t", records="r:1", heads="h:1", trees="k four:1", weights="w:1"
)
def forest_of_rows(
    x: Tensor, y: Tensor, records: Tensor, heads: Tensor, trees: Tensor, weights: Tensor, each, bits, *,
    T, wide, modes, nans, single, reduction, top,
):  # fmt: skip
    """Lanes are rows. Scratch has the offsets of `each` rows in x, then the results of each target."""
    near, link, value, child = registers()
    size = 16 if wide else 8
    totals = scratch + each * 4
    step = each * SIZE[T]
    features = x.size.f
    for first, p, q in items(x, y):
        rows = min(x.size.rows - first, each)
        vectors = (rows + VL - 1) // VL
        for i in range(vectors * VL):
            st[i32](scratch + i * 4, min(i, rows - 1) * features)
        for j in range(y.size.t):
            for v in range(vectors):
                store[T](totals + j * step + v * VL * SIZE[T], const[T](NONE[reduction]))
        for k in range(trees.size.k):
            row = trees.at(k=k)
            tree = records + ld(row, 0) * size
            depth = ld(row, 1) + 0
            total = totals + ld(row, 2) * step
            targets = ld(row, 3) + 0
            head = heads + k * (2 * HEAD * 4)
            v = 0
            while v + VECTORS <= vectors:
                offsets = scratch + v * VL * 4
                go_down(near, link, value, child, tree, head, depth, p, offsets, VECTORS)
                add_leaves(value, link, child, weights, total + v * VL * SIZE[T], targets, step, VECTORS)
                v += VECTORS
            while v < vectors:
                offsets = scratch + v * VL * 4
                go_down(near, link, value, child, tree, head, depth, p, offsets, 1)
                add_leaves(value, link, child, weights, total + v * VL * SIZE[T], targets, step, 1)
                v += 1
        for j in range(y.size.t):
            for v in range(vectors):
                done = load[T](totals + j * step + v * VL * SIZE[T])
                scatter[T](y.at(q, t=j) + v * VL * y.stride.rows, y.stride.rows, done, rows - v * VL)


@inline
def add_one_leaf(weights, start, total, targets, *, T, reduction):
    """Combine the weights of a leaf of a tree with several targets."""
    for j in range(0, targets, VL):
        at = total + j * SIZE[T]
        more = loadm[T](weights + (start + j) * SIZE[T], targets - j)
        storem[T](at, combined(loadm[T](at, targets - j), more, reduction, T), targets - j)


@kernel(over="rows", x="rows f:1", y="rows t", records="r:1", trees="k four:1", weights="w:1", roots="n:1")
def forest_of_trees(
    x: Tensor, y: Tensor, records: Tensor, trees: Tensor, weights: Tensor, roots: Tensor, bits, *,
    T, wide, modes, nans, single, reduction,
):  # fmt: skip
    """Lanes are trees, `roots` their first records, filled up to full vectors by the last one. Scratch has
    the weight of each tree's leaf, or its position, and then the results."""
    near, link, value, child = registers()
    count = roots.size.n
    starts = scratch + count * SIZE[T]
    totals = starts + count * 4
    for _, p, q in items(x, y):
        for k in range(0, count, VL):
            root = load[i32](roots.at(n=k))
            near[0] = const[i32](0)
            while True:
                if wide:
                    word = (root + near[0]) << const[i32](2)
                    value[0] = take[T](records, word if T == "f32" else (root + near[0]) << const[i32](1))
                    link[0] = take[i32](records + 8, word)
                    child[0] = take[i32](records + 12, word)
                else:
                    word = (root + near[0]) << const[i32](1)
                    value[0] = take[T](records, word)
                    link[0] = take[i32](records + 4, word)
                if hand[boolean](is_flagged(link[0], IS_LEAF)):
                    break
                at = feature_of(link[0], bits, wide)
                at = select(is_flagged(link[0], IS_LEAF), const[i32](0), at)
                yes = goes_true(take[T](p, at), value[0], link[0], modes, nans)
                near[0] = next_place(near[0], link[0], child[0] if wide else link[0], yes, bits, wide)
            store[T](scratch + k * SIZE[T], value[0])
            store[i32](starts + k * 4, child[0] if wide else link[0] >> const[i32](1))
        targets = y.size.t
        if single and targets == 1:
            total = const[T](NONE[reduction])
            for k in range(trees.size.k):
                total = combined(total, splat[T](scratch + k * SIZE[T]), reduction, T)
            storem[T](q, total, 1)
        else:
            for j in range(0, targets, VL):
                store[T](totals + j * SIZE[T], const[T](NONE[reduction]))
            for k in range(trees.size.k):
                row = trees.at(k=k)
                many = ld(row, 3) + 0
                total = totals + ld(row, 2) * SIZE[T]
                if single or many == 1:
                    storem[T](
                        total, combined(splat[T](total), splat[T](scratch + k * SIZE[T]), reduction, T), 1
                    )
                else:
                    add_one_leaf(weights, ld[i32](starts + k * 4) + 0, total, many)
            for j in range(0, targets, VL):
                scatter[T](y.at(q, t=j), y.stride.t, load[T](totals + j * SIZE[T]), targets - j)


class Forest(Lowering):
    """A forest of constant trees."""

    takes = (TYPES, TYPES, ("i32",), ("i32",), TYPES)

    def set_up(self) -> None:
        attrs = self.node.attrs
        thresholds, nodes, trees, weights = (v.constant for v in self.node.inputs[1:])
        if any(array is None for array in (thresholds, nodes, trees, weights)):
            raise NotNative
        self.forest = forest = pack_forest(thresholds, nodes, trees, weights, attrs["targets"])
        if len(forest.records) > MOST_RECORDS or attrs["features"] > MOST_FEATURES or not len(trees):
            raise NotNative
        constants = {
            "T": self.out.dtype, "wide": forest.wide, "modes": forest.modes, "nans": forest.has_nan,
            "single": forest.single, "reduction": attrs["reduction"],
        }  # fmt: skip
        self.lanes = self.target.lanes
        self.of_rows = forest_of_rows(**constants, top=self.lanes.bit_length() - 1)
        self.of_trees = forest_of_trees(**constants)
        self.kernels = (self.of_rows, self.of_trees)
        first = forest.trees[:, 0].astype(np.int32)
        self.roots = np.append(first, np.repeat(first[-1:], -len(first) % self.lanes))
        self.weights = forest.weights if len(forest.weights) else np.zeros(1, thresholds.dtype)
        self.records, self.heads = forest.records.reshape(-1), forest.heads.reshape(-1)

    def arrays(self) -> dict[str, tuple[np.ndarray, str]]:
        return {
            "records": (self.records, "i32"), "heads": (self.heads, "i32"),
            "trees": (self.forest.trees, "i64"), "weights": (self.weights, self.out.dtype),
            "roots": (self.roots, "i32"),
        }  # fmt: skip

    def pack(self, constants: Constants) -> None:
        for array, dtype in self.arrays().values():
            constants.view(array, dtype)

    def plan(self, planner: Planner) -> None:
        x = planner.contiguous(self.node.inputs[0])
        y = planner.row_major_output(self.node.output)
        if not y.count:
            return
        (rows, features), targets, size = x.shape, y.shape[1], y.itemsize
        if features >= MOST_FEATURES:
            raise NotNative
        tables = {name: planner.constants.view(*given) for name, given in self.arrays().items()}
        tensors = {"x": x, "y": y, **tables}
        count = len(self.forest.trees)
        bits = self.forest.feature_bits
        if rows < self.lanes // 2:
            del tensors["heads"]
            planner.need_scratch(len(self.roots) * (size + 4) + (targets + self.lanes) * size)
            launch(
                planner, self.of_trees, tensors, ("y",), work=count * 100, flops=count * rows * 8, bits=bits
            )
            return
        del tensors["roots"]
        unit = VECTORS * self.lanes
        fit = CACHED // (features * size) // unit * unit
        each = max(min(fit, MOST_ROWS), LEAST_ROWS, unit)
        planner.need_scratch(each * (4 + targets * size))
        launch(
            planner, self.of_rows, tensors, ("y",), work=count * each * 8, flops=count * rows * 8, each=each,
            bits=bits,
        )  # fmt: skip
