"""Native TreeEnsemble, by masks of leaves or by going down the trees (`packed_forest`).

Masks: the lanes of vectors are rows. Each node is one comparison and one masked "and" for a vector of rows,
without branches and without gathers, which take 16 loads, and more on most CPUs. This is fastest for trees of
up to some hundred leaves. One row, and trees of more leaves, go down instead: GROUP trees or rows at a time,
so that their loads overlap, and without branches that depend on data.

Chunks are ranges of rows. Each target adds its trees in their order, so results do not depend on the number
of threads or rows.
"""

from __future__ import annotations

from typing import Any

from ovjit.codegen.kernel_language import *
from ovjit.planning.lower import Constants, Lowering, NotNative, Planner, launch
from ovjit.records import NamedTuple
from ovjit_ops.ensembles.packed_forest import (
    EQUAL,
    FLAG_BITS,
    IS_LEAF,
    LOWER,
    MIXED,
    MOST_FEATURES,
    MOST_RECORDS,
    UNORDERED,
    WORD,
    pack_forest,
)
from ovjit_ops.ensembles.trees import TYPES

#: Vectors of rows that share the loads of an entry, and trees or rows that go down at a time.
VECTORS, GROUP = 4, 8
#: Up to so many rows go down all trees: about what a vector of rows takes by masks, on any target.
FEW_ROWS = 5
#: Rows of an item: a multiple of VECTORS vectors. Their features should stay in the second-level cache.
MOST_ROWS, CACHED = 512, 1 << 17
#: Trees of up to so many leaves for each lane have masks.
LEAVES_PER_LANE = 32
NONE = {"sum": -0.0, "min": float("nan"), "max": float("nan")}
#: Tables that a single row needs.
ONE_ROW = ("records", "trees", "weights", "leaf_at")
#: Bytes of an entry.
ENTRY = {"f32": 12, "f64": 16}


class ForestKind(NamedTuple):
    """Constants of the kernels: records of 16 bytes; NaN among thresholds; trees of one target each; how
    leaves are combined; the lanes of tables of leaves, 0 without; kinds of tests that masks make."""

    wide_records: bool
    nans: bool
    single: bool
    reduction: str
    tabled: int = 0
    kinds: tuple[Any, ...] = ()


@inline
def combine(total, more, reduction, T):
    """The result of a target after one more tree."""
    return (
        total + more if reduction == "sum"
        else select((more < total) | (total != total), more, total) if reduction == "min"
        else select((more > total) | (total != total), more, total)
    )  # fmt: skip


@inline
def is_refused(value, threshold, kind):
    """The lanes whose features do not take the true child of a node that accepts `kind`."""
    return (
        ~(value <= threshold) if kind == LOWER | EQUAL
        else ~(value < threshold) if kind == LOWER
        else ~(value == threshold) if kind == EQUAL
        else value > threshold if kind == LOWER | EQUAL | UNORDERED
        else value >= threshold if kind == LOWER | UNORDERED
        else (value < threshold) | (value > threshold)
    )  # fmt: skip


@inline
def find_leaves(live, there, leaf, words, length, starts, entries, leaves, columns, step, count, *, T,
                model):  # fmt: skip
    """Store the leaves of `count` vectors of rows in one tree: weights, or indices of first weights.
    `columns`: the features of the rows, `step` bytes apart. `tabled`: lanes of a vector if permutations look
    the weights up, else 0."""
    for u in static_range(count):
        there[u] = const[i32](0)
        if model.single:
            leaf[u] = const[T](0)
        else:
            leaf[u] = const[i32](0)
    for w in range(length):
        row = starts + (words + w) * (len(model.kinds) + 1) * 8
        for u in static_range(count):
            live[u] = const[i32](-1)
        for c in static_range(len(model.kinds)):
            p = entries + ld(row, c) * ENTRY[T]
            for _ in range(ld(row, c + 1) - ld(row, c)):
                threshold = splat[T](p)
                column = columns + ld[i32](p + SIZE[T]) * step
                mask = splat[i32](p + SIZE[T] + 4)
                for u in static_range(count):
                    refused = is_refused(load[T](column + u * VL * SIZE[T]), threshold, model.kinds[c])
                    live[u] = select(refused, live[u] & mask, live[u])
                p += ENTRY[T]
        table = leaves + (words + w) * (WORD * SIZE[T] if model.single else WORD * 4)
        for u in static_range(count):
            lowest = live[u] & -live[u]
            number = ((bits[i32](cast[f32](lowest)) >> const[i32](23)) & const[i32](255)) - const[i32](127)
            number = maximum(number, const[i32](0))
            new = (live[u] != const[i32](0)) & (there[u] == const[i32](0))
            if model.single:
                if model.tabled:
                    value = permute[T](load[T](table), number)
                    for part in static_range(1, WORD // model.tabled):
                        value = select(
                            number >= const[i32](part * model.tabled),
                            permute[T](load[T](table + part * model.tabled * SIZE[T]), number), value,
                        )  # fmt: skip
                else:
                    value = take[T](table, number)
                leaf[u] = select(new, value, leaf[u])
            else:
                value = take[i32](table, number)
                leaf[u] = select(new, value, leaf[u])
            there[u] = there[u] | live[u]


@inline
def refuses(value, threshold, flags, accepted):
    """1 if a feature does not take the true child, else 0."""
    return (
        1 - (value <= threshold) * 1 if accepted == LOWER | EQUAL
        else 1 - (value < threshold) * 1 if accepted == LOWER
        else ((((value < threshold) * LOWER | (value == threshold) * EQUAL | (value != value) * UNORDERED)
               & flags) == 0) * 1
    )  # fmt: skip


@inline
def find_nan(p, count, T):
    """1 if one of `count` elements is NaN, else 0."""
    result = 0
    for i in range(0, count, VL):
        v = loadm[T](p + i * SIZE[T], count - i)
        if hor[boolean](v != v):
            result = 1
    return result


@inline
def go_down(at, row, width, *, T, model, accepted):
    """Move GROUP addresses of records, each for a row of features, from roots to leaves. `width`: the bits
    of features."""
    low = (1 << width) - 1
    while True:
        ends = -1
        for i in static_range(GROUP):
            link = ld[i32](at[i] + (8 if model.wide_records else 4)) + 0
            ends = ends & link
            value = ld[T](row[i] + (link & low) * SIZE[T])
            step = refuses(value, ld[T](at[i]), link >> width, accepted)
            if model.wide_records:
                at[i] = at[i] + (ld[i32](at[i] + 12) + step) * 16
            else:
                at[i] = at[i] + ((link >> (width + FLAG_BITS)) + step) * 8
        if (ends >> width) & IS_LEAF:
            break


@inline
def add_leaves(leaf, weights, total, targets, step, count, *, T, model):
    """Combine the weights of leaves with the results of the tree's targets, `step` bytes apart."""
    if model.single:
        for u in static_range(count):
            at = total + u * VL * SIZE[T]
            store[T](at, combine(load[T](at), leaf[u], model.reduction, T))
    else:
        for u in static_range(count):
            for j in range(targets):
                at = total + j * step + u * VL * SIZE[T]
                store[T](
                    at, combine(load[T](at), take[T](weights + j * SIZE[T], leaf[u]), model.reduction, T)
                )


@inline
def transpose_features(columns, p, features, rows, vectors, step, x, *, T):
    """Store the features that masks read, of all rows of an item, `step` bytes apart."""
    for i in range(features.size.used):
        source = p + ld[i64](features.at(used=i)) * SIZE[T]
        for v in range(vectors):
            part = gather[T](source + v * VL * x.stride.rows, x.stride.rows, rows - v * VL)
            store[T](columns + i * step + v * VL * SIZE[T], part)


@inline
def send_down(at, row, target, root, records, leaf_at, p, rows, vectors, width, has_nan, x, *, T,
              model, accepted):  # fmt: skip
    """Store what the rows of an item find in one tree to `target`, GROUP rows at a time."""
    for r in range(0, vectors * VL, GROUP):
        for i in static_range(GROUP):
            at[i] = root
            row[i] = x.at(p, rows=min(r + i, rows - 1))
        if has_nan:
            go_down(at, row, width, accepted=MIXED)
        else:
            go_down(at, row, width)
        for i in static_range(GROUP):
            number = (at[i] - records) // (16 if model.wide_records else 8)
            if model.single:
                st[T](target + (r + i) * SIZE[T], ld[T](leaf_at + number * SIZE[T]))
            else:
                st[i32](target + (r + i) * 4, ld[i32](leaf_at + number * 4))


@kernel(
    over="rows/each", x="rows f:1", y="rows t", records="r:1", trees="k five:1", weights="w:1",
    starts="i kinds:1", entries="e:1", leaves="l:1", features="used:1", leaf_at="r2:1",
)  # fmt: skip
def forest_of_rows(
    x: Tensor, y: Tensor, records: Tensor, trees: Tensor, weights: Tensor, starts: Tensor, entries: Tensor,
    leaves: Tensor, features: Tensor, leaf_at: Tensor, each, width, masks, *, T, model,
    accepted,
):  # fmt: skip
    """`masks`: the number of trees with masks. Scratch has the results of each target for `each` rows, what
    trees without masks find, and the features that masks read, transposed."""
    live, there, leaf, at, row = registers()
    step = each * SIZE[T]
    target = scratch + y.size.t * step
    columns = target + each * 8
    for first, p, q in items(x, y):
        rows = min(x.size.rows - first, each)
        vectors = (rows + VL - 1) // VL
        has_nan = 0
        if model.nans and masks < trees.size.k:
            has_nan = find_nan(p, rows * x.size.f, T)
        transpose_features(columns, p, features, rows, vectors, step, x)
        for j in range(y.size.t):
            for v in range(vectors):
                store[T](scratch + j * step + v * VL * SIZE[T], const[T](NONE[model.reduction]))
        for k in range(trees.size.k):
            here = trees.at(k=k)
            total = scratch + ld(here, 1) * step
            targets = ld(here, 2) + 0
            words = ld(here, 3) + 0
            length = ld(here, 4) + 0
            if length > 0:
                v = 0
                while v + VECTORS <= vectors:
                    column = columns + v * VL * SIZE[T]
                    find_leaves(
                        live, there, leaf, words, length, starts, entries, leaves, column, step, VECTORS
                    )
                    add_leaves(leaf, weights, total + v * VL * SIZE[T], targets, step, VECTORS)
                    v += VECTORS
                while v < vectors:
                    column = columns + v * VL * SIZE[T]
                    find_leaves(live, there, leaf, words, length, starts, entries, leaves, column, step, 1)
                    add_leaves(leaf, weights, total + v * VL * SIZE[T], targets, step, 1)
                    v += 1
            else:
                root = records + ld(here, 0) * (16 if model.wide_records else 8)
                send_down(at, row, target, root, records, leaf_at, p, rows, vectors, width, has_nan, x)
                for v in range(vectors):
                    if model.single:
                        leaf[0] = load[T](target + v * VL * SIZE[T])
                    else:
                        leaf[0] = load[i32](target + v * VL * 4)
                    add_leaves(leaf, weights, total + v * VL * SIZE[T], targets, step, 1)
        for j in range(y.size.t):
            for v in range(vectors):
                done = load[T](scratch + j * step + v * VL * SIZE[T])
                scatter[T](y.at(q, t=j) + v * VL * y.stride.rows, y.stride.rows, done, rows - v * VL)


@inline
def add_one_leaf(weights, start, total, targets, *, T, model):
    """Combine the weights of one leaf with the results of the tree's targets."""
    for j in range(0, targets, VL):
        at = total + j * SIZE[T]
        more = loadm[T](weights + (start + j) * SIZE[T], targets - j)
        storem[T](at, combine(loadm[T](at, targets - j), more, model.reduction, T), targets - j)


@kernel(over="rows", x="rows f:1", y="rows t", records="r:1", trees="k five:1", weights="w:1", leaf_at="r2:1")
def forest_of_trees(
    x: Tensor, y: Tensor, records: Tensor, trees: Tensor, weights: Tensor, leaf_at: Tensor, width, *, T,
    model, accepted,
):  # fmt: skip
    """Evaluate all trees for one row per item. Scratch holds the leaf that each tree finds, then the
    results."""
    at, row = registers()
    count = trees.size.k
    totals = scratch + (count + GROUP) * 8
    for _, p, q in items(x, y):
        has_nan = 0
        if model.nans:
            has_nan = find_nan(p, x.size.f, T)
        for k in range(0, count, GROUP):
            for i in static_range(GROUP):
                at[i] = records + ld(trees.at(k=min(k + i, count - 1)), 0) * (16 if model.wide_records else 8)
                row[i] = p
            if has_nan:
                go_down(at, row, width, accepted=MIXED)
            else:
                go_down(at, row, width)
            for i in static_range(GROUP):
                number = (at[i] - records) // (16 if model.wide_records else 8)
                if model.single:
                    st[T](scratch + (k + i) * SIZE[T], ld[T](leaf_at + number * SIZE[T]))
                else:
                    st[i32](scratch + (k + i) * SIZE[T], ld[i32](leaf_at + number * 4))
        targets = y.size.t
        if model.single and targets == 1:
            total = const[T](NONE[model.reduction])
            for k in range(count):
                total = combine(total, splat[T](scratch + k * SIZE[T]), model.reduction, T)
            storem[T](q, total, 1)
        else:
            for j in range(0, targets, VL):
                store[T](totals + j * SIZE[T], const[T](NONE[model.reduction]))
            for k in range(count):
                total = totals + ld(trees.at(k=k), 1) * SIZE[T]
                if model.single:
                    storem[T](
                        total,
                        combine(splat[T](total), splat[T](scratch + k * SIZE[T]), model.reduction, T),
                        1,
                    )
                else:
                    add_one_leaf(weights, ld[i32](scratch + k * SIZE[T]) + 0, total, ld(trees.at(k=k), 2) + 0)
            for j in range(0, targets, VL):
                scatter[T](y.at(q, t=j), y.stride.t, load[T](totals + j * SIZE[T]), targets - j)


class Forest(Lowering):
    """A forest of constant trees."""

    takes = (TYPES, TYPES, ("i32",), ("i32",), TYPES)

    def set_up(self) -> None:
        attrs, lanes = self.node.attrs, self.target.lanes
        tables = [v.constant for v in self.node.inputs[1:] if v.constant is not None]
        if len(tables) < 4 or not len(tables[2]):
            raise NotNative
        self.forest = forest = pack_forest(
            tables, attrs["targets"], attrs["features"], LEAVES_PER_LANE * lanes
        )
        if len(forest.records) > MOST_RECORDS or attrs["features"] > MOST_FEATURES:
            raise NotNative
        model = ForestKind(forest.wide_records, forest.has_nan, forest.single, attrs["reduction"])
        constants = {"T": self.out.dtype, "accepted": forest.accepted}
        self.of_trees = forest_of_trees(**constants, model=model)
        model = model._replace(tabled=lanes if self.out.dtype == "f32" and lanes >= 8 else 0)
        self.of_rows = forest_of_rows(**constants, model=model._replace(kinds=forest.kinds))
        self.kernels = (self.of_rows, self.of_trees)
        self.arrays = {
            "records": (forest.records.reshape(-1), "i32"), "trees": (forest.trees, "i64"),
            "weights": (forest.weights, self.out.dtype), "starts": (forest.starts, "i64"),
            "entries": (forest.entries.reshape(-1), "i32"),
            "leaves": (forest.leaves.reshape(-1), self.out.dtype if forest.single else "i32"),
            "features": (forest.features, "i64"),
            "leaf_at": (forest.leaf_values, self.out.dtype if forest.single else "i32"),
        }  # fmt: skip

    def pack(self, constants: Constants) -> None:
        for array, dtype in self.arrays.values():
            constants.view(array, dtype)

    def plan(self, planner: Planner) -> None:
        x = planner.contiguous(self.node.inputs[0])
        y = planner.row_major_output(self.node.output)
        if not y.count:
            return
        (rows, features), targets, size = x.shape, y.shape[1], y.itemsize
        if features < self.node.attrs["features"]:
            raise NotNative
        tensors = {"x": x, "y": y}
        tensors |= {name: planner.constants.view(*source) for name, source in self.arrays.items()}
        forest, lanes = self.forest, self.target.lanes
        count, width = len(forest.trees), forest.feature_bits
        if rows <= FEW_ROWS:
            tensors = {name: tensors[name] for name in ("x", "y", *ONE_ROW)}
            planner.need_scratch((count + GROUP) * 8 + (targets + lanes) * size)
            work = count * 64.0
            launch(planner, self.of_trees, tensors, ("y",), work=work, flops=work * rows, width=width)
            return
        unit, used = VECTORS * lanes, len(forest.features)
        fit = CACHED // ((used + targets) * size) // unit * unit
        each = max(min(fit, MOST_ROWS), unit)
        planner.need_scratch(each * (targets * size + 8 + used * size))
        masks = int((forest.trees[:, 4] > 0).sum())
        work = len(forest.entries) * each / lanes + (count - masks) * each * 16
        flops = work * rows / each
        launch(
            planner, self.of_rows, tensors, ("y",), work=work, flops=flops, each=each, width=width,
            masks=masks,
        )  # fmt: skip
