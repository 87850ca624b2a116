"""Random tree ensembles of ai.onnx.ml as ONNX models, in all versions and with everything that they allow."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

ML = "ai.onnx.ml"
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
KINDS = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE, np.int64: TensorProto.INT64,
         np.int32: TensorProto.INT32, np.float16: TensorProto.FLOAT16}  # fmt: skip


def model_of(op: str, attributes: dict[str, Any], x: np.ndarray, outputs: list[str], version: int) -> bytes:
    """A model of one operator of ai.onnx.ml, with open dimensions."""
    given = {k: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for k, v in attributes.items()}
    node = helper.make_node(op, ["x"], outputs, domain=ML, **given)
    info = helper.make_tensor_value_info("x", KINDS[x.dtype.type], [None] * x.ndim)
    graph = helper.make_graph([node], "g", [info], [helper.make_empty_tensor_value_info(o) for o in outputs])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


class Shape:
    """One tree: children (-1 for a leaf), features, thresholds, modes, and where NaN goes."""

    def __init__(
        self, rng: np.random.Generator, depth: int, features: int, modes: list[str], grid: np.ndarray
    ):
        self.children: list[tuple[int, int]] = []
        self.rows: list[tuple[int, float, str, int]] = []
        self._grow(rng, depth, features, modes, grid, True)

    def _grow(
        self, rng: Any, depth: int, features: int, modes: list[str], grid: np.ndarray, root: bool
    ) -> int:
        place = len(self.children)
        self.children.append((-1, -1))
        leaf = depth == 0 or (not root and rng.random() < 0.2)
        mode = "LEAF" if leaf else str(rng.choice(modes))
        self.rows.append((int(rng.integers(features)), float(rng.choice(grid)), mode, int(rng.integers(2))))
        if not leaf:
            sides = [self._grow(rng, depth - 1, features, modes, grid, False) for _ in range(2)]
            self.children[place] = (sides[0], sides[1])
        return place

    @property
    def leaves(self) -> list[int]:
        return [i for i, (yes, _) in enumerate(self.children) if yes < 0]


def data_of(rng: np.random.Generator, rows: int, features: int, grid: np.ndarray, kind: type) -> np.ndarray:
    """Features near the thresholds: equal ones, their neighbours in the type, NaN and infinities."""
    x = rng.choice(grid, (rows, features)).astype(np.float64)
    if kind in (np.int64, np.int32):
        return np.round(x * 2).astype(kind)
    x = x.astype(kind)
    turn = rng.integers(0, 8, x.shape)
    x = np.where(turn == 0, np.nextafter(x, kind(np.inf)), x)
    x = np.where(turn == 1, np.nextafter(x, kind(-np.inf)), x)
    x = np.where(turn == 2, rng.standard_normal(x.shape).astype(kind), x)
    if rng.random() < 0.4:
        x[rng.random(x.shape) < 0.15] = np.nan
        x[rng.random(x.shape) < 0.05] = np.inf
        x[rng.random(x.shape) < 0.05] = -np.inf
    return x.astype(kind)


def forest_of(rng: np.random.Generator, features: int, grid: np.ndarray) -> list[Shape]:
    modes = [["BRANCH_LEQ"], ["BRANCH_LT"], ["BRANCH_GT", "BRANCH_GTE"], list(MODES)][int(rng.integers(4))]
    depth, count = int(rng.integers(1, 7)), int(rng.choice([1, 2, 5, 20, 40]))
    return [Shape(rng, depth, features, modes, grid) for _ in range(count)]


def by_ids(
    rng: np.random.Generator, prefix: str, trees: list[Shape], targets: list[list[int]], wide: bool,
    positive: bool,
) -> dict[str, Any]:  # fmt: skip
    """Attributes of a regressor or classifier. `targets`: those of each tree's leaves."""
    nodes: list[tuple[Any, ...]] = []
    weights: list[tuple[Any, ...]] = []
    for t, tree in enumerate(trees):
        for i, ((yes, no), (feature, value, mode, nan)) in enumerate(
            zip(tree.children, tree.rows, strict=True)
        ):
            value = 0.0 if yes < 0 else value  # ONNX Runtime adds that of a leaf without weights
            nodes.append((t, i, feature, value, mode, max(yes, 0), max(no, 0), nan))
        for i in tree.leaves:
            for target in targets[t]:
                weight = float(rng.random() if positive else rng.standard_normal())
                weights.append((t, i, target, weight))
    names = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids",
             "missing_value_tracks_true")  # fmt: skip
    out: dict[str, Any] = dict(
        zip((f"nodes_{n}" for n in names), map(list, zip(*nodes, strict=True)), strict=True)
    )
    if rng.random() < 0.5:
        del out["nodes_missing_value_tracks_true"]
    names = ("treeids", "nodeids", "ids", "weights")
    out.update(zip((f"{prefix}_{n}" for n in names), map(list, zip(*weights, strict=True)), strict=True))
    if wide:
        for name in ("nodes_values", f"{prefix}_weights"):
            out[f"{name}_as_tensor"] = np.array(out.pop(name), np.float64)
    return out


def with_base(rng: np.random.Generator, out: dict[str, Any], size: int, wide: bool) -> None:
    base = [float(v) for v in rng.standard_normal(size)]
    if wide:
        out["base_values_as_tensor"] = np.array(base)
    else:
        out["base_values"] = base


def grid_of(rng: np.random.Generator, wide: bool) -> np.ndarray:
    """Thresholds that f32 has, and if `wide` some that it has not."""
    grid = np.round(rng.standard_normal(12) * 2) / 2
    return np.append(grid, np.nextafter([0.1, 1 / 3], 1) if wide else np.float32([0.1, 1 / 3]))


def regressor(rng: np.random.Generator) -> tuple[bytes, np.ndarray]:
    kind = [np.float32, np.float64][int(rng.integers(2))]
    wide = kind is np.float64 and bool(rng.random() < 0.7)
    features, targets = int(rng.integers(1, 6)), int(rng.choice([1, 1, 2, 5]))
    grid = grid_of(rng, wide)
    trees = forest_of(rng, features, grid)
    some = [sorted(rng.permutation(targets)[: int(rng.integers(1, targets + 1))].tolist()) for _ in trees]
    each = some if rng.random() < 0.5 else [list(range(targets))] * len(trees)
    out = by_ids(rng, "target", trees, each, wide, bool(rng.integers(2)))
    out |= {"n_targets": targets, "post_transform": str(rng.choice(TRANSFORMS)),
            "aggregate_function": str(rng.choice(AGGREGATES))}  # fmt: skip
    if rng.random() < 0.5:
        with_base(rng, out, targets, wide)
    rows = int(rng.choice([1, 2, 7, 17, 40, 100]))
    x = data_of(rng, rows, features, grid, kind)
    return model_of("TreeEnsembleRegressor", out, x, ["y"], 3 if wide else int(rng.choice([1, 3]))), x


def classifier(rng: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """Not with weights for both of two classes, of which ONNX Runtime's label is that of positive sums."""
    kind = [np.float32, np.float32, np.float64, np.float64, np.int64][int(rng.integers(5))]
    wide = kind is np.float64 and bool(rng.random() < 0.7)
    features, classes = int(rng.integers(1, 6)), int(rng.choice([2, 2, 3, 6]))
    grid = grid_of(rng, wide)
    trees = forest_of(rng, features, grid)
    if classes == 2:
        each = [[int(rng.integers(2))]] * len(trees)
    else:
        some = [sorted(rng.permutation(classes)[: int(rng.integers(1, classes + 1))].tolist()) for _ in trees]
        each = some if rng.random() < 0.5 else [list(range(classes))] * len(trees)
    out = by_ids(rng, "class", trees, each, wide, bool(rng.integers(2)))
    transforms = TRANSFORMS[:4] if classes == 2 else TRANSFORMS
    out["post_transform"] = str(rng.choice(transforms))
    if rng.random() < 0.5:
        with_base(rng, out, int(rng.choice([1, 2])) if classes == 2 else classes, wide)
    if rng.random() < 0.5:
        out["classlabels_strings"] = [f"class {i}" for i in range(classes)]
    else:
        out["classlabels_int64s"] = rng.permutation(50)[:classes].tolist()
    rows = int(rng.choice([1, 2, 7, 17, 40, 100]))
    x = data_of(rng, rows, features, grid, kind)
    version = 3 if wide else int(rng.choice([1, 3]))
    return model_of("TreeEnsembleClassifier", out, x, ["label", "scores"], version), x


def ensemble(rng: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """TreeEnsemble of version 5, with lists of members."""
    kind = [np.float32, np.float64][int(rng.integers(2))]
    features, targets = int(rng.integers(1, 6)), int(rng.choice([1, 1, 2, 5]))
    grid = grid_of(rng, kind is np.float64).astype(kind)
    trees = forest_of(rng, features, grid)
    members = rng.random() < 0.5
    inner: list[tuple[Any, ...]] = []
    leaves: list[tuple[Any, ...]] = []
    lists: list[float] = []
    roots = []
    for tree in trees:
        numbers, nodes, ends = {}, len(inner), len(leaves)
        for i, (yes, _) in enumerate(tree.children):
            numbers[i] = nodes if yes >= 0 else ends
            nodes, ends = nodes + (yes >= 0), ends + (yes < 0)
        roots.append(len(inner))
        for (yes, no), (feature, value, mode, nan) in zip(tree.children, tree.rows, strict=True):
            if yes < 0:
                leaves.append((float(rng.standard_normal()), int(rng.integers(targets))))
                continue
            number = MODES.index(mode)
            if members and rng.random() < 0.4:
                number = 6
                size = int(rng.integers(1, 9))
                lists += [*rng.integers(1, 12, size).tolist(), np.nan]  # ONNX Runtime takes integers
            ends_here = [int(tree.children[side][0] < 0) for side in (yes, no)]
            inner.append((feature, value, number, numbers[yes], numbers[no], *ends_here, nan))
    columns = [list(c) for c in zip(*inner, strict=True)]
    out: dict[str, Any] = {
        "nodes_featureids": columns[0], "nodes_splits": np.array(columns[1], kind),
        "nodes_modes": np.array(columns[2], np.uint8), "nodes_truenodeids": columns[3],
        "nodes_falsenodeids": columns[4], "nodes_trueleafs": columns[5], "nodes_falseleafs": columns[6],
        "tree_roots": roots, "leaf_weights": np.array([w for w, _ in leaves], kind),
        "leaf_targetids": [t for _, t in leaves], "n_targets": targets,
        "aggregate_function": int(rng.integers(4)),
        "post_transform": int(rng.choice([0, 3, 4])),  # ONNX Runtime has 1 and 2 exchanged
    }  # fmt: skip
    if rng.random() < 0.5:
        out["nodes_missing_value_tracks_true"] = columns[7]
    if lists:
        out["membership_values"] = np.array(lists, kind)
    rows = int(rng.choice([1, 2, 7, 17, 40, 100]))
    x = data_of(rng, rows, features, grid, kind)
    if lists:
        x = np.where(rng.random(x.shape) < 0.6, rng.integers(0, 13, x.shape), x).astype(kind)
    return model_of("TreeEnsemble", out, x, ["y"], 5), x


FAMILIES = {"regressor": regressor, "classifier": classifier, "ensemble": ensemble}
