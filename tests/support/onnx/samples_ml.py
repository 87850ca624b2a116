"""Random trees and linear models of ai.onnx.ml."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.onnx.samples import Rng, Sample, flip, pick, some, values

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


WORDS = np.array(["", "a", "Zoë", "x y", "monday", "日本"], object)


def ml_features(rng: Rng) -> Sample:
    """What pipelines do before and after their model, and support vectors."""
    op = pick(
        rng,
        "ArrayFeatureExtractor",
        "Binarizer",
        "CategoryMapper",
        "Imputer",
        "LabelEncoder",
        "Normalizer",
        "SVMClassifier",
        "SVMRegressor",
        "Scaler",
    )
    features, count = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    x = values(rng, (count, features))

    def sample(inputs: list[Any], a: dict[str, Any], outputs: int = 1, version: int = 1) -> Sample:
        return Sample(op, inputs, a, 17, outputs, domain=ML, version=version, tolerance=1e-4)

    def floats(size: int) -> list[float]:
        return [float(v) for v in rng.standard_normal(size)]

    if op == "ArrayFeatureExtractor":
        x = WORDS[rng.integers(0, WORDS.size, x.shape)] if flip(rng, 0.2) else x
        return sample([x, rng.integers(0, features, (1, int(rng.integers(1, 4))))], {})
    if op == "Binarizer":
        return sample([x], some(rng, threshold=0.5))
    if op == "CategoryMapper":
        size = int(rng.integers(1, WORDS.size))
        a = {"cats_strings": WORDS[:size].tolist(), "cats_int64s": [int(v) for v in rng.permutation(size)]}
        if flip(rng):
            return sample([rng.integers(0, WORDS.size, x.shape)], {**a, **some(rng, default_string="none")})
        return sample([WORDS[rng.integers(0, WORDS.size, x.shape)]], {**a, **some(rng, default_int64=-7)})
    if op == "Imputer":
        size = pick(rng, 1, features)
        if flip(rng):
            a = {"imputed_value_int64s": [int(v) for v in rng.integers(50, 99, size)]}
            return sample([rng.integers(0, 3, x.shape)], {**a, "replaced_value_int64": 1})
        x[rng.random(x.shape) < 0.4] = mark = pick(rng, np.nan, 5.0)
        return sample([x], {"imputed_value_floats": floats(size), "replaced_value_float": float(mark)})
    if op == "LabelEncoder":
        kinds: dict[str, tuple[Any, Any]] = {
            "strings": (WORDS.tolist(), "none"),
            "int64s": ([0, 1, 2, 5, -3, 9], -7),
            "floats": ([0.5, 7.0, 2.0, -3.0, 1.0, 0.0], 0.25),
        }
        before, after = pick(rng, *kinds), pick(rng, *kinds)
        size = int(rng.integers(1, 6))
        keys = np.array(kinds[before][0], {"strings": object, "int64s": np.int64}.get(before, np.float32))
        a = {f"keys_{before}": kinds[before][0][:size], f"values_{after}": kinds[after][0][-size:]}
        a.update(some(rng, **{f"default_{after[:-1]}": kinds[after][1]}))
        return sample([keys[rng.integers(0, keys.size, x.shape)]], a, version=pick(rng, 2, 4))
    if op == "Normalizer":
        x[0] = pick(rng, x[0], 0)
        return sample([x], some(rng, norm=pick(rng, "MAX", "L1", "L2")))
    if op == "Scaler":
        size = pick(rng, 1, features)
        return sample([x], {"offset": floats(size), "scale": floats(size)})
    kernel = pick(rng, "LINEAR", "POLY", "RBF", "SIGMOID")
    a = {"kernel_type": kernel, "kernel_params": [0.3, 0.2, 2.0]}
    if op == "SVMRegressor":
        vectors = int(rng.integers(1, 6))
        a.update(coefficients=floats(vectors), support_vectors=floats(vectors * features), rho=floats(1))
        return sample([x], {**a, "n_supports": vectors, **some(rng, one_class=int(flip(rng)))})
    classes = pick(rng, 2, 3, 4)
    each = [int(v) for v in rng.integers(1, 4, classes)]
    pairs = classes * (classes - 1) // 2
    a.update(
        vectors_per_class=each,
        support_vectors=floats(sum(each) * features),
        coefficients=floats(sum(each) * (classes - 1)),
        rho=floats(pairs),
    )
    if flip(rng):
        a["classlabels_ints"] = [5, 7, 9, 4][:classes]
    else:
        a["classlabels_strings"] = list("abcd"[:classes])
    if flip(rng):
        a.update(prob_a=[-abs(v) for v in floats(pairs)], prob_b=floats(pairs))
    return sample([x], {**a, **some(rng, post_transform=pick(rng, "NONE", "LOGISTIC", "SOFTMAX"))}, 2)


FAMILIES = {"ml": ml, "ml_features": ml_features}
