#!/bin/sh
# skl2onnx: trees send missing values to the right whatever they have learnt, and imputers lose the columns that say what was missing.
#
# Versions: scikit-learn 1.9.1, skl2onnx 1.20.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Since scikit-learn 1.3 trees, and since 1.4 and 1.6 forests, learn for each split whether NaN goes left. The converter writes the
# attribute for this, nodes_missing_value_tracks_true, and reads what was learnt for histogram gradient boosting alone: decision trees,
# random forests and extra trees get 0 everywhere, so NaN goes right. SimpleImputer and KNNImputer with add_indicator=True append a column
# for each feature that had missing values; the model ends with the imputed columns, and declares only them. Both without a warning.
#
# Output seen:
#   DecisionTreeRegressor, NaN left      scikit-learn [0.0, 0.0, 1.0, 1.0, 0.0]    ONNX [0.0, 0.0, 1.0, 1.0, 1.0]
#   DecisionTreeRegressor, NaN right     scikit-learn [0.0, 0.0, 1.0, 1.0, 1.0]    ONNX [0.0, 0.0, 1.0, 1.0, 1.0]
#   DecisionTreeClassifier, NaN left     scikit-learn [0, 0, 1, 1, 0]              ONNX [0, 0, 1, 1, 1]
#   DecisionTreeClassifier, NaN right    scikit-learn [0, 0, 1, 1, 1]              ONNX [0, 0, 1, 1, 1]
#   RandomForestRegressor, NaN left      scikit-learn [0.0, 0.0, 1.0, 1.0, 0.0]    ONNX [0.0, 0.0, 1.0, 1.0, 1.0]
#   RandomForestRegressor, NaN right     scikit-learn [0.0, 0.0, 1.0, 1.0, 1.0]    ONNX [0.0, 0.0, 1.0, 1.0, 1.0]
#   RandomForestClassifier, NaN left     scikit-learn [0, 0, 1, 1, 0]              ONNX [0, 0, 1, 1, 1]
#   RandomForestClassifier, NaN right    scikit-learn [0, 0, 1, 1, 1]              ONNX [0, 0, 1, 1, 1]
#   ExtraTreesClassifier, NaN left       scikit-learn [0, 0, 1, 1, 0]              ONNX [0, 0, 1, 1, 1]
#   ExtraTreesClassifier, NaN right      scikit-learn [0, 0, 1, 1, 1]              ONNX [0, 0, 1, 1, 1]
#   SimpleImputer                        scikit-learn (3, 4), ONNX (3, 2)
#   KNNImputer                           scikit-learn (3, 4), ONNX (3, 2)
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
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor


def run(estimator, x):
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    model = to_onnx(estimator, x[:1], target_opset={"": 18, "ai.onnx.ml": 3}, options=options)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"X": x})[0]


points = np.array([[1], [2], [3], [4], [np.nan]], np.float32)
for kind in (DecisionTreeRegressor, DecisionTreeClassifier, RandomForestRegressor, RandomForestClassifier, ExtraTreesClassifier):
    for side, wanted in (("left", [0, 0, 1, 1, 0]), ("right", [0, 0, 1, 1, 1])):
        estimator = kind(random_state=0).fit(np.tile(points, (9, 1)), wanted * 9)
        right = estimator.predict(points)
        assert right.round().tolist() == wanted
        found = run(estimator, points).ravel()
        assert found.round().tolist() == [0, 0, 1, 1, 1], "the behaviour has changed"
        print(f"{kind.__name__}, NaN {side}".ljust(36), f"scikit-learn {right.round(1).tolist()!s:28} ONNX {found.round(1).tolist()}")

table = np.array([[1, np.nan], [np.nan, 2], [3, 4]], np.float32)
for estimator in (SimpleImputer(add_indicator=True), KNNImputer(n_neighbors=1, add_indicator=True)):
    right = estimator.fit_transform(table)
    assert np.array_equal(right[:, 2:], np.isnan(table))
    found = run(estimator, table)
    assert found.shape == (3, 2) and np.allclose(found, right[:, :2]), "the behaviour has changed"
    print(type(estimator).__name__.ljust(36), f"scikit-learn {right.shape}, ONNX {found.shape}")
PYTHON
