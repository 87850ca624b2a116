#!/bin/sh
# onnxmltools, LightGBM: random forests are divided by 100, and sigmoid, multiclassova, reg_sqrt, linear trees and zero_as_missing are lost.
#
# Versions: lightgbm 4.7.0, onnxmltools 1.16.0, skl2onnx 1.20.0, scikit-learn 1.9.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6,
# Python 3.11, Linux x86-64.
#
# The converter reads the trees, and of the parameters the objective's first word and the kind of boosting. There is no warning.
# - boosting_type="rf" averages its trees. The model divides by the constant 100, the default number of trees, and for classes divides
#   behind the logistic function. With any other number of trees regression is off by a factor, and every row has the first class.
# - sigmoid=2 is the factor in the logistic function; the model has 1. Labels stay, probabilities do not.
# - multiclassova has a logistic function for each class; its name begins like multiclass, and the model has softmax.
# - reg_sqrt=True trains on square roots and squares what it predicts; the model gives the roots.
# - linear_tree=True has a linear function in each leaf; the model has the leaf's constant.
# - zero_as_missing=True sends zeros the way of NaN; the model compares them.
#
# Output seen (the first row):
#   regression                         LightGBM [3.246]                  ONNX [3.246]
#   2 classes                          LightGBM [0.569, 0.431]           ONNX [0.569, 0.431]
#   3 classes                          LightGBM [0.587, 0.272, 0.141]    ONNX [0.587, 0.272, 0.141]
#   random forest, regression          LightGBM [2.385]                  ONNX [0.095]
#   random forest, 2 classes           LightGBM [0.807, 0.193]           ONNX [1.0, 0.0]
#   2 classes, sigmoid=2               LightGBM [0.569, 0.431]           ONNX [0.535, 0.465]
#   3 classes, multiclassova           LightGBM [0.569, 0.284, 0.137]    ONNX [0.704, 0.212, 0.084]
#   regression, reg_sqrt=True          LightGBM [2.973]                  ONNX [1.724]
#   regression, linear_tree=True       64 of 300 rows differ by more than 0.1
#   regression, zero_as_missing=True   91 of 300 rows differ by more than 0.1
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q lightgbm==4.7.0 onnxmltools==1.16.0 onnx==1.23.2 skl2onnx==1.20.0 scikit-learn==1.9.1 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import lightgbm
import numpy as np
import onnxmltools
import onnxruntime
from onnxmltools.convert.common.data_types import FloatTensorType

rng = np.random.default_rng(0)
points = rng.standard_normal((300, 2)).astype(np.float32)
values = np.abs(3 * points[:, 0] + points[:, 1]) + 1
zeros = np.where(rng.random(points.shape) < 0.3, 0, points).astype(np.float32)
two, three = (values > 3).astype(int), (values > 3).astype(int) + (values > 5)
logistic = lambda scores: 1 / (1 + np.exp(-scores))


def convert(booster, target, x=points):
    """Return the score of each round, float64 [rounds, rows(, classes)], LightGBM's predictions and the model's last output."""
    booster.set_params(n_estimators=4, num_leaves=4, verbose=-1, n_jobs=1, random_state=0).fit(x, target)
    classifies = hasattr(booster, "predict_proba")
    options = {"zipmap": False} if classifies else {}
    types = [("x", FloatTensorType([None, 2]))]
    model = onnxmltools.convert_lightgbm(booster, initial_types=types, target_opset=15, **options)
    silent = onnxruntime.SessionOptions()
    silent.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), silent, providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": x})[-1]
    rounds = [booster.booster_.predict(x, raw_score=True, start_iteration=i, num_iteration=1) for i in range(4)]
    return np.array(rounds), booster.predict_proba(x) if classifies else booster.predict(x), found


def check(title, converted, predict, seen):
    """Compare with the rule that LightGBM documents and the one that the model follows; both map the rounds to a result."""
    rounds, right, found = converted
    shown = [np.round(np.ravel(y[:1]).astype(float), 3).tolist() for y in (right, found)]
    print(f"{title:34} LightGBM {shown[0]!s:24} ONNX {shown[1]}")
    last = lambda y, rule: y[:, 1] if y.ndim == 2 and rule.ndim == 1 and y.shape[1] == 2 else y.reshape(rule.shape)
    wanted, expected = predict(rounds), seen(rounds)
    assert np.allclose(last(right, wanted), wanted), "LightGBM does not follow the rule"
    assert np.allclose(last(found, expected), expected, atol=1e-4), "the behaviour has changed"


regressor, classifier = lightgbm.LGBMRegressor, lightgbm.LGBMClassifier
forest = {"boosting_type": "rf", "subsample": 0.7, "subsample_freq": 1}
total = lambda rounds: rounds.sum(0)
softmax = lambda rounds: np.exp(total(rounds)) / np.exp(total(rounds)).sum(1, keepdims=True)
by_sigmoid = lambda factor: lambda rounds: logistic(factor * total(rounds))
check("regression", convert(regressor(), values), total, total)
check("2 classes", convert(classifier(), two), by_sigmoid(1), by_sigmoid(1))
check("3 classes", convert(classifier(), three), softmax, softmax)
check("random forest, regression", convert(regressor(**forest), values), lambda r: r.mean(0), lambda r: r.sum(0) / 100)
check("random forest, 2 classes", convert(classifier(**forest), two), lambda r: logistic(r.mean(0)), lambda r: logistic(r.sum(0)) / 100)
check("2 classes, sigmoid=2", convert(classifier(sigmoid=2.0), two), by_sigmoid(2), by_sigmoid(1))
shares = lambda rounds: logistic(total(rounds)) / logistic(total(rounds)).sum(1, keepdims=True)
one_by_one = convert(classifier(objective="multiclassova"), three)
check("3 classes, multiclassova", one_by_one, by_sigmoid(1), softmax)
square = lambda rounds: np.sign(total(rounds)) * total(rounds) ** 2
check("regression, reg_sqrt=True", convert(regressor(reg_sqrt=True), values), square, total)

for title, options, x in (("linear_tree=True", {"linear_tree": True}, points), ("zero_as_missing=True", {"zero_as_missing": True}, zeros)):
    rounds, right, found = convert(regressor(**options), values, x)
    assert np.allclose(right, total(rounds))
    wrong = int((np.abs(found.ravel() - right) > 0.1).sum())
    print(f"regression, {title}".ljust(34), f"{wrong} of 300 rows differ by more than 0.1")
    assert wrong > 20, "the behaviour has changed"
PYTHON
