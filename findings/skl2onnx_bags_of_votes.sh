#!/bin/sh
# skl2onnx: BaggingClassifier of estimators without probabilities sums over the rows in place of the estimators, from operator set 13 on.
#
# Versions: scikit-learn 1.9.1, skl2onnx 1.20.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Estimators such as LinearSVC have no probabilities, so scikit-learn's bag has the shares of their votes. The converter counts equal labels
# in a tensor of [estimators, rows, classes]. Below operator set 13, where the axes of ReduceSum are an attribute, it sums along axis 0;
# from there on, where they are an input, along axis 1. The model then has one "row" for each estimator: how many of the rows it puts into
# each class, divided by the number of estimators. One row in gives four out; as many rows as there are estimators have the right shape
# and other numbers, and nothing complains. The default operator set is a newer one. Estimators with probabilities are averaged rightly.
#
# Output seen, of 4 estimators (the last row's shares):
#   LinearSVC, operator set 12, 10 rows            scikit-learn (10, 2), last [1.0, 0.0]      the same
#   LinearSVC, operator set 12, 4 rows             scikit-learn (4, 2), last [1.0, 0.0]       the same
#   LinearSVC, operator set 12, 1 rows             scikit-learn (1, 2), last [0.0, 1.0]       the same
#   LinearSVC, operator set 18, 10 rows            scikit-learn (10, 2), last [1.0, 0.0]      ONNX (4, 2), last [1.75, 0.75]
#   LinearSVC, operator set 18, 4 rows             scikit-learn (4, 2), last [1.0, 0.0]       ONNX (4, 2), last [0.75, 0.25]
#   LinearSVC, operator set 18, 1 rows             scikit-learn (1, 2), last [0.0, 1.0]       ONNX (4, 2), last [0.0, 0.25]
#   LogisticRegression: all the same
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.ensemble import BaggingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

rng = np.random.default_rng(0)
points = rng.standard_normal((60, 3)).astype(np.float32)
classes = (points[:, 0] + rng.standard_normal(60) > 0.3).astype(int)
asked = rng.standard_normal((10, 3)).astype(np.float32)


def run(bag, opset, rows):
    model = to_onnx(bag, points[:1], target_opset={"": opset, "ai.onnx.ml": 3}, options={id(bag): {"zipmap": False}})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"X": rows})


for title, estimator in (("LinearSVC", LinearSVC(random_state=0)), ("LogisticRegression", LogisticRegression())):
    bag = BaggingClassifier(estimator, n_estimators=4, max_samples=9, random_state=0).fit(points, classes)
    votes = np.array([np.eye(2)[one.predict(asked)] for one in bag.estimators_])
    right = bag.predict_proba(asked)
    if title == "LinearSVC":
        assert np.allclose(right, votes.mean(0))
    for opset in (12, 18):
        for rows in (10, 4, 1):
            labels, found = run(bag, opset, asked[:rows])
            same = found.shape == (rows, 2) and np.allclose(found, right[:rows], atol=1e-4)
            if title == "LinearSVC" and opset > 12:
                assert np.allclose(found, votes[:, :rows].sum(1) / 4), "the behaviour has changed"
                assert labels.shape == (4,)
            else:
                assert same, "the behaviour has changed"
            first, last = (np.round(y[-1].astype(float), 2).tolist() for y in (right[:rows], found))
            verdict = "the same" if same else f"ONNX {found.shape}, last {last}"
            print(f"{title}, operator set {opset}, {rows} rows".ljust(46), f"scikit-learn {right[:rows].shape}, last {first}".ljust(42), verdict)
PYTHON
