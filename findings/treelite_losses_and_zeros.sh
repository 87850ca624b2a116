#!/bin/sh
# treelite: the exponential loss of gradient boosting has half of its score, and LightGBM's zero_as_missing compares zeros.
#
# Versions: treelite 4.8.1, scikit-learn 1.9.1, lightgbm 4.7.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# treelite.sklearn.import_model and treelite.frontend.from_lightgbm read models that TL2cgen and RAPIDS' forest inference run. What treelite does
# not know it refuses, as linear trees. Here the result differs from the library that trained the model, without an error or a warning:
# - GradientBoostingClassifier with loss="exponential" (AdaBoost as boosting): the probability is the logistic function of twice the score.
#   The imported model has the logistic function of the score. The classes stay, and each probability moves towards a half.
# - LightGBM with zero_as_missing=True sends zeros the way it has learnt for missing values, in each split. In the imported model they
#   are compared with the threshold. All rows without a zero are right.
# GTIL, treelite's own evaluator, is used. All other losses of scikit-learn's boosting, NaN, forests and LightGBM's boosting types are right.
# No report of these was found.
#
# Output seen on 2026-11-29:
#   log_loss         scikit-learn [0.1, 0.093, 0.867, 0.084]     treelite [0.1, 0.093, 0.867, 0.084]
#   exponential      scikit-learn [0.046, 0.041, 0.94, 0.036]    treelite [0.18, 0.171, 0.798, 0.161]
#   zero_as_missing=False  of 379 rows with a zero 0 differ, of the others 0
#   zero_as_missing=True   of 379 rows with a zero 223 differ, of the others 0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q treelite==4.8.1 scikit-learn==1.9.1 lightgbm==4.7.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import treelite
from lightgbm import LGBMRegressor
from sklearn.ensemble import GradientBoostingClassifier
from treelite import gtil

generator = np.random.default_rng(0)
rows = generator.normal(size=(500, 4)).astype(np.float32)
classes = (rows[:, 0] + rows[:, 1] ** 2 > 0.7).astype(int)
values = rows[:, 0] * 3 + rows[:, 1] ** 2


def logistic(scores):
    return 1 / (1 + np.exp(-scores))


for loss, factor in (("log_loss", 1), ("exponential", 2)):
    model = GradientBoostingClassifier(n_estimators=20, loss=loss, random_state=0).fit(rows, classes)
    scores = model.decision_function(rows)
    right = model.predict_proba(rows)[:, 1]
    assert np.allclose(right, logistic(factor * scores))
    found = gtil.predict(treelite.sklearn.import_model(model), rows).ravel()
    assert np.allclose(found, logistic(scores), atol=1e-5), "the behaviour has changed"
    print(f"{loss:16} scikit-learn {right[:4].round(3).tolist()!s:30} treelite {found[:4].round(3).tolist()}")

with_zeros = np.where(generator.random(rows.shape) < 0.3, 0, rows).astype(np.float32)
has_zero = (with_zeros == 0).any(1)
for zero_as_missing in (False, True):
    model = LGBMRegressor(n_estimators=20, num_leaves=7, zero_as_missing=zero_as_missing, verbose=-1).fit(with_zeros, values)
    right = model.predict(with_zeros)
    found = gtil.predict(treelite.frontend.from_lightgbm(model.booster_), with_zeros).ravel()
    wrong = ~np.isclose(right, found, atol=1e-4)
    print(f"zero_as_missing={zero_as_missing!s:6} of {has_zero.sum()} rows with a zero {wrong[has_zero].sum()} differ, of the others {wrong[~has_zero].sum()}")
    assert not wrong[~has_zero].any() and wrong.any() == zero_as_missing, "the behaviour has changed"
    if zero_as_missing:
        assert wrong[has_zero].mean() > 0.2, "the behaviour has changed"
PYTHON
