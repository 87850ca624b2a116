#!/bin/sh
# lleaves: a LightGBM random forest of several classes averages the first class alone, by the trees of all; linear trees lose their functions.
#
# Versions: lleaves 1.3.0, lightgbm 4.7.0, llvmlite 0.44.0, scikit-learn 1.9.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# lleaves compiles the text of a LightGBM model with LLVM and names itself a replacement of Booster.predict. Objectives that it does not
# know it refuses ("multiclassova"). These it compiles without an error or a warning:
# - boosting="rf" says average_output. LightGBM divides each class's sum by its own number of trees. The compiled code divides the sum of
#   class 0 by the number of trees of all classes together, and no other sum. The softmax of these ranks the classes in another way, so the
#   most likely one changes. With raw_score=True, where LightGBM divides nothing, class 0 is divided as well. Regression, two classes and all
#   of gbdt and dart are right: they have one sum, or no average.
# - linear_tree=True has a linear function in each leaf. The compiled code has the leaf's constant.
# The code is that of lleaves/compiler/codegen/codegen.py. No report of these was found.
#
# Output seen on 2026-11-29:
#   gbdt, 3 classes      LightGBM [0.191, 0.631, 0.178]  lleaves the same
#   dart, 3 classes      LightGBM [0.211, 0.591, 0.198]  lleaves the same
#   rf, regression       LightGBM [0.84]                 lleaves the same
#   rf, 2 classes        LightGBM [0.111]                lleaves the same
#   rf, 3 classes        LightGBM [0.096, 0.794, 0.11]   lleaves [0.294, 0.706, 0.0]    198 of 600 classes change
#   linear_tree          LightGBM [0.731]                lleaves [1.282]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q lleaves==1.3.0 lightgbm==4.7.0 llvmlite==0.44.0 scikit-learn==1.9.1 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import lightgbm
import lleaves
import numpy as np

generator = np.random.default_rng(0)
rows = generator.normal(size=(600, 4))
values = rows[:, 0] * 3 + rows[:, 1] ** 2
two, three = (rows[:, 0] > 0.3).astype(int), np.digitize(rows[:, 0] + rows[:, 1], [-0.6, 0.6])
TREES = 9
FOREST = {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}


def softmax(scores):
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def check(name, targets, right=True, **parameters):
    """Compare predictions, and return LightGBM's raw scores, both predictions and lleaves' raw scores."""
    booster = lightgbm.train({"num_leaves": 7, "verbose": -1, **parameters}, lightgbm.Dataset(rows, targets, params=parameters), TREES)
    booster.save_model("model.txt")
    compiled, raw = lleaves.Model("model.txt"), lleaves.Model("model.txt")
    compiled.compile()
    raw.compile(raw_score=True)
    wanted, found = booster.predict(rows), compiled.predict(rows)
    same = np.allclose(wanted, found, atol=1e-6)
    shown = [np.round(np.atleast_1d(y[0]), 3).tolist() for y in (wanted, found)]
    changed = f"{(wanted.argmax(1) != found.argmax(1)).sum()} of {len(rows)} classes change" if wanted.ndim == 2 else ""
    print(f"{name:20} LightGBM {shown[0]!s:22} lleaves {'the same' if same else shown[1]!s:22} {'' if same else changed}".rstrip())
    assert same == right, f"{name} has changed"
    return booster.predict(rows, raw_score=True), wanted, found, raw.predict(rows)


classes = {"objective": "multiclass", "num_class": 3}
check("gbdt, 3 classes", three, **classes)
check("dart, 3 classes", three, boosting="dart", **classes)
check("rf, regression", values, objective="regression", **FOREST)
check("rf, 2 classes", two, objective="binary", **FOREST)
sums, wanted, found, raw = check("rf, 3 classes", three, right=False, **classes, **FOREST)
assert np.allclose(softmax(sums / TREES), wanted, atol=1e-6)
divided = sums / np.array([3 * TREES, 1, 1])
assert np.allclose(raw, divided, atol=1e-6) and np.allclose(softmax(divided), found, atol=1e-6), "the behaviour has changed"
assert (wanted.argmax(1) != found.argmax(1)).any(), "the behaviour has changed"
check("linear_tree", values, right=False, objective="regression", linear_tree=True)
PYTHON
