"""Random trees and linear models of ai.onnx.ml."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx_samples import Rng, Sample, flip, pick, some, values

ML = "ai.onnx.ml"


def _trees(rng: Rng, features: int, prefix: str, targets: list[int]) -> dict[str, Any]:
    """Attributes of one to four trees, each leaf with a weight for each target."""
    rows: dict[str, list[Any]] = {
        name: []
        for name in (
            "treeids",
            "nodeids",
            "featureids",
            "values",
            "modes",
            "truenodeids",
            "falsenodeids",
            "missing_value_tracks_true",
        )
    }
    leaves: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    kinds = pick(rng, ["BRANCH_LEQ"], ["BRANCH_LT"], ["BRANCH_LEQ", "BRANCH_GT", "BRANCH_GTE"])
    positive = flip(rng)
    for tree in range(int(rng.integers(1, 5))):
        waiting, number = [(0, 0)], 0
        while waiting:
            node, depth = waiting.pop(0)
            leaf = depth == 4 or (depth > 0 and flip(rng, 0.3))
            feature = 0 if leaf else int(rng.integers(features))
            mode = "LEAF" if leaf else str(pick(rng, *kinds))
            children = (0, 0) if leaf else (number + 1, number + 2)
            row = (tree, node, feature, float(rng.standard_normal()), mode, *children, int(flip(rng)))
            for name, value in zip(rows, row, strict=True):
                rows[name].append(value)
            if leaf:
                for target in targets:
                    weight = float(rng.random() if positive else rng.standard_normal())
                    for name, value in zip(leaves, (tree, node, target, weight), strict=True):
                        leaves[name].append(value)
            else:
                number += 2
                waiting += [(child, depth + 1) for child in children]
    out = {f"nodes_{k}": v for k, v in rows.items()}
    out.update({f"{prefix}_{k}": v for k, v in leaves.items()})
    return out


def ml(rng: Rng) -> Sample:
    op = pick(
        rng,
        "TreeEnsembleRegressor",
        "TreeEnsembleClassifier",
        "LinearRegressor",
        "LinearClassifier",
        "FeatureVectorizer",
        "OneHotEncoder",
    )
    features, count = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    x = values(rng, (count, features))
    if op == "TreeEnsembleRegressor":
        targets = pick(rng, 1, 1, 3)
        a = {"n_targets": targets, **_trees(rng, features, "target", list(range(targets)))}
        a.update(
            some(
                rng,
                aggregate_function=pick(
                    rng, "SUM", "AVERAGE", "MIN" if targets == 1 else "SUM", "MAX" if targets == 1 else "SUM"
                ),
                base_values=[float(v) for v in rng.standard_normal(targets)],
            )
        )
        if flip(rng, 0.3):
            x[0, 0] = np.nan
    elif op == "TreeEnsembleClassifier":
        classes = pick(rng, 2, 2, 3)
        which = pick(rng, [0], [1]) if classes == 2 and flip(rng) else list(range(classes))
        labels = [0, 1] if classes == 2 else [5, 7, 9]
        a = {"classlabels_int64s": labels, **_trees(rng, features, "class", which)}
        a.update(some(rng, post_transform=pick(rng, "NONE", "LOGISTIC", "SOFTMAX")))
    elif op == "LinearRegressor":
        targets = int(rng.integers(1, 4))
        a = {"coefficients": [float(v) for v in rng.standard_normal(targets * features)], "targets": targets}
        a.update(some(rng, intercepts=[float(v) for v in rng.standard_normal(targets)]))
    elif op == "LinearClassifier":
        classes = pick(rng, 2, 3)
        a = {
            "coefficients": [float(v) for v in rng.standard_normal(classes * features)],
            "intercepts": [float(v) for v in rng.standard_normal(classes)],
            "classlabels_ints": [3, 1, 2][:classes],
        }
        a.update(
            some(rng, post_transform=pick(rng, "NONE", "LOGISTIC", "SOFTMAX"), multi_class=int(flip(rng)))
        )
    elif op == "FeatureVectorizer":
        return Sample(op, [x, values(rng, (count, 2))], {"inputdimensions": [features, 2]}, 17, domain=ML)
    else:
        return Sample(
            op, [rng.integers(0, 4, (count,))], {"cats_int64s": [0, 2, 3], "zeros": 1}, 17, domain=ML
        )
    outputs = 2 if "Classifier" in op else 1
    return Sample(op, [x], a, 17, outputs, domain=ML, tolerance=1e-4)


FAMILIES = {"ml": ml}
