#!/bin/sh
# skl2onnx: neighbours that are weighted by their distance all have the same weight.
#
# Versions: scikit-learn 1.9.1, skl2onnx 1.20.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# With weights="distance", scikit-learn weights each of the k neighbours by the inverse of its distance. The converter negates the distances,
# before TopK or behind it, and then takes the larger one of distance and 1e-6, so as not to divide by zero. Negative distances are all
# below, so each weight is 1e6: the model is that of weights="uniform", and a point of the training set has not its own value. It is so
# for regressors and classifiers, f32 and f64, each metric, old and new operator sets, and ONNX's reference evaluator has the same
# numbers. Uniform weights are right, and so is the transformer that gives the distances, which negates them back.
#
# Output seen (points 0, 1 and 4 with the values 0, 10 and 100, k = 2; asked for 0.25, 0.5, 3 and 1):
#   regressor, uniform, minkowski    scikit-learn [5.0, 5.0, 55.0, 5.0]    ONNX [5.0, 5.0, 55.0, 5.0]
#   regressor, distance, minkowski   scikit-learn [2.5, 5.0, 70.0, 10.0]   ONNX [5.0, 5.0, 55.0, 5.0]
#   regressor, distance, manhattan   scikit-learn [2.5, 5.0, 70.0, 10.0]   ONNX [5.0, 5.0, 55.0, 5.0]
#   classifier, uniform              scikit-learn [0, 0, 1, 0]             ONNX [0, 0, 1, 0]
#   classifier, distance             scikit-learn [0, 0, 2, 1]             ONNX [0, 0, 1, 0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
from onnx.reference import ReferenceEvaluator
from skl2onnx import to_onnx
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

points = np.array([[0], [1], [4]], np.float32)
values = np.array([0, 10, 100], np.float32)
asked = np.array([[0.25], [0.5], [3], [1]], np.float32)


def predict(weights):
    """Return the mean of the two nearest points' values, float64 [4], weighted as scikit-learn documents."""
    distances = np.abs(asked.astype(np.float64) - points[:, 0])
    found = []
    for row in distances:
        nearest = np.argsort(row, kind="stable")[:2]
        if weights == "uniform":
            share = np.ones(2)
        elif row[nearest].min() == 0:
            share = (row[nearest] == 0).astype(float)
        else:
            share = 1 / row[nearest]
        found.append((share * values[nearest]).sum() / share.sum())
    return np.array(found)


def run(estimator, dtype, opset=18):
    options = {"zipmap": False} if isinstance(estimator, KNeighborsClassifier) else {}
    model = to_onnx(estimator, points[:1].astype(dtype), target_opset=opset, options={id(estimator): options})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {"X": asked.astype(dtype)}
    found = session.run(None, inputs)
    if not options:
        assert np.allclose(ReferenceEvaluator(model).run(None, inputs)[0], found[0], rtol=1e-5)
    return found


uniform, weighted = predict("uniform"), predict("distance")
for weights, metric in (("uniform", "minkowski"), ("distance", "minkowski"), ("distance", "manhattan")):
    estimator = KNeighborsRegressor(2, weights=weights, metric=metric).fit(points, values)
    right = estimator.predict(asked)
    assert np.allclose(right, weighted if weights == "distance" else uniform, rtol=1e-5)
    for dtype in (np.float32, np.float64):
        for opset in (10, 13, 18):
            found = run(estimator, dtype, opset)[0].ravel()
            assert np.allclose(found, uniform, rtol=1e-5), "the behaviour has changed"
    print(f"regressor, {weights}, {metric}".ljust(32), f"scikit-learn {right.round(2).tolist()!s:24} ONNX {found.round(2).tolist()}")

for weights in ("uniform", "distance"):
    estimator = KNeighborsClassifier(2, weights=weights).fit(points, [0, 1, 2])
    labels, probabilities = run(estimator, np.float64)
    right = estimator.predict(asked)
    assert np.allclose(probabilities, [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0.5, 0]]), "the behaviour has changed"
    print(f"classifier, {weights}".ljust(32), f"scikit-learn {right.tolist()!s:24} ONNX {labels.tolist()}")
    assert right.tolist() == ([0, 0, 2, 1] if weights == "distance" else [0, 0, 1, 0])
    assert labels.tolist() == [0, 0, 1, 0], "the behaviour has changed"
PYTHON
