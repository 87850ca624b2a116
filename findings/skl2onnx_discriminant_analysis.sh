#!/bin/sh
# skl2onnx: LinearDiscriminantAnalysis of two classes has the probabilities of twice its score.
#
# Versions: scikit-learn 1.9.1, skl2onnx 1.20.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# scikit-learn has the logistic function of the score. The converter writes a classifier with the coefficients and their negatives, and
# softmax over both scores: the logistic function of the difference, which is twice the score. Labels are right, so tests that compare
# labels pass; 0.65 becomes 0.78, and thresholds other than a half let other rows through. All solvers; three classes are right, and
# so is LogisticRegression, whose two classes are written as one score.
#
# Output seen (the probability of the second class of three rows):
#   LinearDiscriminantAnalysis svd, 2 classes    scikit-learn [0.686, 0.654, 1.0]   ONNX [0.827, 0.782, 1.0]
#   LinearDiscriminantAnalysis lsqr, 2 classes   scikit-learn [0.686, 0.654, 1.0]   ONNX [0.827, 0.782, 1.0]
#   LinearDiscriminantAnalysis svd, 3 classes    as scikit-learn
#   LogisticRegression, 2 classes                as scikit-learn
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
two = (x[:, 0] > 0).astype(int)


def check(name, estimator, labels, is_right):
    estimator.fit(x, labels)
    model = to_onnx(estimator, x[:1], options={"zipmap": False})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found_labels, found = session.run(None, {"X": x})
    wanted, score = estimator.predict_proba(x), estimator.decision_function(x)
    assert np.array_equal(found_labels, estimator.predict(x))
    assert np.allclose(found, wanted, atol=1e-4) == is_right, f"{name} has changed"
    if is_right:
        print(f"{name:44} as scikit-learn")
        return
    assert np.allclose(found[:, 1], 1 / (1 + np.exp(-2 * score)), atol=1e-4)
    print(f"{name:44} scikit-learn {wanted[:3, 1].astype(float).round(3).tolist()}   ONNX {found[:3, 1].astype(float).round(3).tolist()}")


for solver in ("svd", "lsqr", "eigen"):
    check(f"LinearDiscriminantAnalysis {solver}, 2 classes", LinearDiscriminantAnalysis(solver=solver), two, False)
check("LinearDiscriminantAnalysis svd, 3 classes", LinearDiscriminantAnalysis(), two + (x[:, 1] > 0.5), True)
check("LogisticRegression, 2 classes", LogisticRegression(), two, True)
PYTHON
