"""Samples of `ovjit_ops/ensembles`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit_ops.elementwise.arithmetic import random_array
from ovjit_ops.ensembles.trees import LEAF, LEQ, NAN_TRUE
from tests.support.samples import samples


def random_forest(
    rng: np.random.Generator, count: int, depth: int, features: int, targets: int, mixed: bool
) -> tuple[np.ndarray, ...]:
    """(thresholds, nodes, trees, weights) of random trees. `mixed`: all modes, and several targets a tree."""
    rows: list[list[int]] = []
    trees: list[list[int]] = []
    weights: list[float] = []

    def grow(level: int, width: int) -> int:
        index = len(rows)
        rows.append([LEAF, 0, 0, 0])
        if level == depth or (level and rng.random() < 0.15):
            rows[index][2] = len(weights)
            weights.extend(rng.integers(-8, 9, width) / 4.0)
            return index
        mode = int(rng.integers(1, 4)) + NAN_TRUE * int(rng.integers(2)) if mixed else LEQ
        rows[index] = [mode, int(rng.integers(features)), grow(level + 1, width), grow(level + 1, width)]
        return index

    for _ in range(count):
        width = int(rng.integers(1, targets + 1)) if mixed else 1
        first = int(rng.integers(0, targets - width + 1))
        trees.append([grow(0, width), first, width])
    thresholds = np.round(rng.uniform(-2, 2, len(rows)) * 4) / 4
    tables: list[Any] = [np.array(rows, np.int32), np.array(trees, np.int32)]
    return thresholds, *tables, np.array(weights)


@samples("TreeEnsemble")
def tree_ensemble(rng, dtype="f32"):
    for rows, count, depth, targets, reduction, mixed in (
        (1, 3, 4, 1, "sum", False), (5, 20, 3, 1, "sum", True), (17, 5, 6, 3, "sum", True),
        (33, 40, 5, 1, "min", False), (100, 7, 8, 2, "max", True), (7, 1, 1, 1, "sum", False),
        (0, 2, 2, 1, "sum", False), (200, 3, 12, 20, "sum", True),
    ):  # fmt: skip
        forest = random_forest(rng, count, depth, 6, targets, mixed)
        inputs = [random_array(rng, (rows, 6), dtype, (-2, 2)), *forest]
        inputs[1], inputs[4] = (inputs[i].astype(inputs[0].dtype) for i in (1, 4))
        if mixed and rows:
            inputs[0][rng.random(inputs[0].shape) < 0.1] = np.nan
        yield inputs, {"targets": targets, "features": 6, "reduction": reduction}
