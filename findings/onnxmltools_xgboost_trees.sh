#!/bin/sh
# onnxmltools, XGBoost: parallel trees of several classes are dealt out wrongly, regressors lose their link and their second value.
#
# Versions: xgboost 3.2.0, onnxmltools 1.16.0, skl2onnx 1.20.0, scikit-learn 1.9.1, onnx 1.23.2, onnxruntime 1.32.0, pandas 3.1.1,
# numpy 2.4.6, Python 3.11, Linux x86-64.
#
# XGBoost writes the trees of a round class by class: with num_parallel_tree=3, and in every XGBRFClassifier, three trees for the first
# class, then three for the second. The converter gives tree i to class i modulo the number of classes, which is right if there is one tree
# for each class and round. Furthermore:
# - An XGBClassifier with multi:softmax gives the margins where multi:softprob has probabilities, as predict_proba has for both.
# - XGBRegressor with reg:logistic or binary:logistic is a logistic function, with binary:hinge a step. The model ends at the trees, and
#   for the logistic function adds the base score itself and not its logit. (count:poisson and others with a logarithm are right.)
# - A regressor of two values adds all trees to the first value, and gives 0 for the second.
# Two classes, one tree for each class, and regressors of one value are right. Nothing warns.
#
# Output seen (the last row):
#   3 classes                              XGBoost [0.242, 0.266, 0.493]  ONNX [0.242, 0.266, 0.493]
#   3 classes, num_parallel_tree=3         XGBoost [0.242, 0.266, 0.493]  ONNX [0.44, 0.363, 0.197]
#   3 classes, XGBRFClassifier             XGBoost [0.267, 0.481, 0.253]  ONNX [0.494, 0.396, 0.11]
#   3 classes, multi:softmax               XGBoost [0.242, 0.266, 0.493]  ONNX [-0.364, -0.27, 0.348]
#   regressor                              XGBoost [4.438]                ONNX [4.438]
#   regressor, reg:logistic                XGBoost [0.834]                ONNX [1.933]
#   regressor, binary:hinge                XGBoost [1.0]                  ONNX [1.292]
#   regressor, 2 values                    XGBoost [4.438, -4.438]        ONNX [3.565, 0.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q --no-deps xgboost==3.2.0
"$folder/environment/bin/pip" install -q onnxmltools==1.16.0 onnx==1.23.2 skl2onnx==1.20.0 scikit-learn==1.9.1 onnxruntime==1.32.0 pandas==3.1.1 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnxmltools
import onnxruntime
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

rng = np.random.default_rng(0)
points = rng.standard_normal((300, 2)).astype(np.float32)
values = np.abs(3 * points[:, 0] + points[:, 1]) + 1
two, three = (values > 3).astype(int), (values > 3).astype(int) + (values > 5)
logistic = lambda margins: 1 / (1 + np.exp(-margins))


def softmax(margins):
    powers = np.exp(margins - margins.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def check(title, booster, target, predict, seen):
    """Compare with two rules, of both of the margins float64 [rows(, outputs)]; the first is XGBoost's, the second the model's."""
    booster.set_params(n_estimators=3, max_depth=2, n_jobs=1).fit(points, target)
    model = onnxmltools.convert_xgboost(booster, initial_types=[("x", FloatTensorType([None, 2]))], target_opset=15)
    silent = onnxruntime.SessionOptions()
    silent.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), silent, providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": points})[-1]
    right = booster.predict_proba(points) if hasattr(booster, "predict_proba") else booster.predict(points)
    margins = booster.predict(points, output_margin=True).astype(np.float64)
    shown = [np.round(np.ravel(y[-1:]).astype(float), 3).tolist() for y in (right, found)]
    print(f"{title:38} XGBoost {shown[0]!s:22} ONNX {shown[1]}")
    wanted = predict(margins)
    assert np.allclose(right.reshape(wanted.shape), wanted, atol=1e-5), "XGBoost does not follow the rule"
    expected = seen(margins, booster)
    assert np.allclose(found.reshape(expected.shape), expected, atol=1e-4), "the behaviour has changed"


def add_trees_by_turns(margins, booster):
    """Return softmax of the margins if the trees of each round belong to the classes 0, 1, 2, 0, 1, 2 ... and not three to each class."""
    inner = booster.get_booster()
    leaves = inner.predict(xgboost.DMatrix(points), pred_leaf=True).astype(int)
    table = inner.trees_to_dataframe()
    table = {tree: rows.set_index("Node")["Gain"].to_dict() for tree, rows in table.groupby("Tree")}
    scores = np.array([[table[tree][node] for tree, node in enumerate(row)] for row in leaves])
    base = margins - np.stack([scores[:, [i for i in range(scores.shape[1]) if i // 3 % 3 == k]].sum(1) for k in range(3)], 1)
    assert np.allclose(base, base[:1], atol=1e-4)
    return softmax(base + np.stack([scores[:, k::3].sum(1) for k in range(3)], 1))


regressor, classifier = xgboost.XGBRegressor, xgboost.XGBClassifier
plain = lambda margins, booster: softmax(margins)
raw = lambda margins, booster: margins
check("3 classes", classifier(), three, softmax, plain)
check("3 classes, num_parallel_tree=3", classifier(num_parallel_tree=3), three, softmax, add_trees_by_turns)
check("3 classes, XGBRFClassifier", xgboost.XGBRFClassifier(), three, softmax, add_trees_by_turns)
check("3 classes, multi:softmax", classifier(objective="multi:softmax"), three, softmax, raw)
check("regressor", regressor(), values, lambda m: m, raw)
share = two.mean()
offset = share - np.log(share / (1 - share))
check("regressor, reg:logistic", regressor(objective="reg:logistic"), two, logistic, lambda margins, booster: margins + offset)
check("regressor, binary:hinge", regressor(objective="binary:hinge"), two, lambda m: (m > 0).astype(float), raw)
# both values' trees are added up into the first, which has its own mean; those of the second are the opposite and cancel them
mean = np.float64(values.mean())
first = lambda margins, booster: np.stack([margins.sum(1) + mean, np.zeros(300)], 1)
check("regressor, 2 values", regressor(), np.stack([values, -values], 1), lambda m: m, first)
PYTHON
