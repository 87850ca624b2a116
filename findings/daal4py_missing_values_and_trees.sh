#!/bin/sh
# daal4py: models of LightGBM and XGBoost lose what they take for missing, parallel trees change their class, and labels become class numbers.
#
# Versions: scikit-learn-intelex and daal 2026.2.0, lightgbm 4.7.0, xgboost-cpu 3.2.0, scikit-learn 1.9.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# daal4py.mb.convert_model makes models for Intel's oneDAL, "without any loss of numerical precision". It refuses what it does not know ("Linear
# trees are not supported") and its documentation has a list: categories, one-vs-rest, links of regressors. These models are in neither:
# - XGBClassifier and XGBRegressor with missing=0 send zeros the way of missing values; the converted model compares them.
# - LightGBM with zero_as_missing=True: the same.
# - LightGBM that met no NaN in training takes NaN for 0; the converted model goes by a default that such a split does not have.
# - num_parallel_tree=3 has three trees for each class and round. The converted model deals them out as if there were one. (The list refuses random
#   forests of several classes from TreeLite; these are boosted, and come from XGBoost. XGBRFClassifier is refused by its name.)
# - LightGBM's sigmoid=2 is the factor in the logistic function; the probabilities of the converted model have 1.
# - LGBMClassifier.predict gives the labels it was trained with, and the converted predict numbers from 0.
# NaN in training, with XGBoost's default as well, two and three classes with one tree each, base scores and early stopping are right.
#
# No report of these was found.
#
# Output seen on 2026-11-29 (share of rows that differ, and the first such row):
#   XGBoost, NaN                       0%
#   XGBoost, missing=0                46%   -0.3449999988079071 becomes -0.533
#   XGBoost, missing=0, two classes   44%   [0.8539999723434448, 0.1459999978542328] becomes [0.923, 0.077]
#   LightGBM, NaN in training          0%
#   LightGBM, NaN later               39%   0.212 becomes 1.318
#   LightGBM, NaN later, as zeros      0%
#   LightGBM, zero_as_missing         45%   0.932 becomes 0.805
#   XGBoost, three classes             0%
#   XGBoost, three parallel trees    100%   [0.0989999994635582, 0.8050000071525574, 0.09600000083446503] becomes [0.352, 0.35, 0.298]
#   LightGBM, two classes              0%
#   LightGBM, sigmoid=2              100%   [0.773, 0.227] becomes [0.648, 0.352]
#   LightGBM, labels -1, 5 and 9     100%   5 becomes 1.0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q scikit-learn-intelex==2026.2.0 daal==2026.2.0 lightgbm==4.7.0 xgboost-cpu==3.2.0 scikit-learn==1.9.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from daal4py.mb import convert_model
from lightgbm import LGBMClassifier, LGBMRegressor
from xgboost import XGBClassifier, XGBRegressor

generator = np.random.default_rng(0)
rows = generator.normal(size=(400, 4)).astype(np.float32)
target = rows[:, 0] * 2 + rows[:, 1] ** 2
two, three = (target > 1).astype(int), np.digitize(target, [0, 2])
holes = np.where(generator.random(rows.shape) < 0.2, np.nan, rows).astype(np.float32)
zeros = np.where(generator.random(rows.shape) < 0.3, 0, rows).astype(np.float32)
LIGHT = {"n_estimators": 7, "num_leaves": 7, "verbose": -1, "random_state": 0, "n_jobs": 1}
EXTREME = {"n_estimators": 7, "max_depth": 3, "random_state": 0, "n_jobs": 1}


def check(name, model, asked, method="predict", right=False):
    """Compare a method of a fitted model with that of the converted one, for the rows `asked`."""
    wanted = getattr(model, method)(asked)
    found = np.asarray(getattr(convert_model(model), method)(asked)).reshape(wanted.shape)
    wrong = ~np.isclose(wanted, found, atol=1e-4).reshape(len(asked), -1).all(1)
    first = "" if not wrong.any() else f"   {np.round(wanted[wrong][0], 3).tolist()} becomes {np.round(found[wrong][0].astype(float), 3).tolist()}"
    print(f"{name:32} {wrong.mean():4.0%}{first}")
    assert wrong.any() != right, f"{name} has changed"


check("XGBoost, NaN", XGBRegressor(**EXTREME).fit(holes, target), holes, right=True)
check("XGBoost, missing=0", XGBRegressor(missing=0, **EXTREME).fit(zeros, target), zeros)
check("XGBoost, missing=0, two classes", XGBClassifier(missing=0, **EXTREME).fit(zeros, two), zeros, "predict_proba")
check("LightGBM, NaN in training", LGBMRegressor(**LIGHT).fit(holes, target), holes, right=True)
check("LightGBM, NaN later", LGBMRegressor(**LIGHT).fit(rows, target), holes)
check("LightGBM, NaN later, as zeros", LGBMRegressor(**LIGHT).fit(rows, target), np.nan_to_num(holes), right=True)
check("LightGBM, zero_as_missing", LGBMRegressor(zero_as_missing=True, **LIGHT).fit(zeros, target), zeros)
check("XGBoost, three classes", XGBClassifier(**EXTREME).fit(rows, three), rows, "predict_proba", right=True)
check("XGBoost, three parallel trees", XGBClassifier(num_parallel_tree=3, **EXTREME).fit(rows, three), rows, "predict_proba")
check("LightGBM, two classes", LGBMClassifier(**LIGHT).fit(rows, two), rows, "predict_proba", right=True)
check("LightGBM, sigmoid=2", LGBMClassifier(sigmoid=2, **LIGHT).fit(rows, two), rows, "predict_proba")
check("LightGBM, labels -1, 5 and 9", LGBMClassifier(**LIGHT).fit(rows, np.array([-1, 5, 9])[three]), rows)
PYTHON
