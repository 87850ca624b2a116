#!/bin/sh
# m2cgen: XGBoost's Poisson, gamma, Tweedie and logistic regressors lose their link, stopped training counts all trees, and NaN goes to the right.
#
# Versions: m2cgen 0.10.0, xgboost-cpu 3.2.0, lightgbm 4.7.0, scikit-learn 1.9.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# m2cgen writes trained models as programs in many languages, and refuses what it does not know ("Unknown missing_type: Zero"). The programs
# in Python of these models have other results than the models, without an error or a warning; the trees are the same for all languages.
# - XGBoost: the objective is read of no regressor. The program of count:poisson, reg:gamma and reg:tweedie ends at the sum of the trees, to
#   which it adds base_score itself and not its logarithm; reg:logistic has neither the logistic function nor the logit. LightGBM's objectives
#   are read, and the same losses are right there.
# - XGBoost with early stopping predicts with the trees up to the best round. m2cgen asks for best_ntree_limit, which XGBoost no longer
#   has, and writes all trees.
# - XGBoost's thresholds are numbers of the training rows in float32. The program has them with as many digits as float32 needs and compares
#   in double, so a row that is equal to a threshold goes left where XGBoost sends it right.
# - LightGBM's linear_tree=True has a linear function in each leaf; the program has the leaf's constant.
# - Decision trees and forests of scikit-learn learn where NaN goes; in the program it is not below the threshold, so it goes right.
# XGBoost's squared error and classes, where base_score is given, and LightGBM's NaN are right.
#
# No report of these was found.
#
# Output seen on 2026-11-29 (two rows that differ, if any do):
#   XGBoost, squared error         model [1.024, 3.025]                       program the same
#   XGBoost, rows of the training  model [2.404, 1.433]                       program [2.454, 1.279]
#   XGBoost, two classes           model [[0.939, 0.061], [0.061, 0.939]]     program the same
#   XGBoost, count:poisson         model [1.159, 1.902]                       program [1.464, 1.959]
#   XGBoost, reg:gamma             model [0.893, 2.313]                       program [1.203, 2.155]
#   XGBoost, reg:tweedie           model [0.908, 2.874]                       program [1.22, 2.372]
#   XGBoost, reg:logistic          model [0.124, 0.327]                       program [-1.151, 0.082]
#   XGBoost, stopped early         model [0.56, 0.406]                        program [0.368, 1.295]
#   LightGBM, poisson              model [1.724, 3.005]                       program the same
#   LightGBM, gamma                model [1.051, 2.82]                        program the same
#   LightGBM, tweedie              model [1.337, 3.175]                       program the same
#   LightGBM, NaN                  model [1.513, 1.637]                       program the same
#   LightGBM, linear_tree          model [1.298, 3.027]                       program [1.44, 3.479]
#   scikit-learn, NaN              model [1.842, 1.842]                       program [7.398, 7.398]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q m2cgen==0.10.0 xgboost-cpu==3.2.0 lightgbm==4.7.0 scikit-learn==1.9.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import m2cgen
import numpy as np
from lightgbm import LGBMRegressor
from sklearn.tree import DecisionTreeRegressor
from xgboost import XGBClassifier, XGBRegressor

generator = np.random.default_rng(0)
rows = generator.normal(size=(300, 4)).astype(np.float32)
values = np.exp(0.5 * rows[:, 0]) + rows[:, 1] ** 2 + 0.1
share = values / values.max()
others = generator.normal(size=(300, 4)).astype(np.float32)
holes, other_holes = (np.where(generator.random(x.shape) < 0.3, np.nan, x).astype(np.float32) for x in (rows, others))
BASE = 0.4


def run(model, inputs):
    names = {}
    exec(m2cgen.export_to_python(model), names)
    return np.array([names["score"]([float(value) for value in row]) for row in inputs])


def check(name, model, targets, inputs=rows, asked=others, meaning=None, **fitting):
    """Compare for the rows `asked`. `meaning` gives the program's results; None if they are the model's, "other" if they are neither."""
    model.fit(inputs, targets, **fitting)
    right = model.predict_proba(asked) if hasattr(model, "predict_proba") else model.predict(asked)
    found = run(model, asked)
    differ = ~np.isclose(right, found, rtol=1e-3, atol=1e-3)
    first = np.flatnonzero(differ)[:2] if differ.ndim == 1 and differ.any() else np.arange(2)
    shown = [y[first].astype(float).round(3).tolist() for y in (right, found)]
    print(f"{name:30} model {shown[0]!s:36} program {shown[1] if differ.any() else 'the same'}")
    assert differ.any() == (meaning is not None), f"{name} has changed"
    if callable(meaning):
        assert np.allclose(meaning(model), found, rtol=1e-3, atol=1e-3), f"{name} has changed"


def boosted(objective, **options):
    return XGBRegressor(objective=objective, n_estimators=9, max_depth=3, base_score=BASE, **options)


def scores(link):
    """Return the meaning of a program that adds base_score to the trees: the margins, in which `link` of base_score is."""
    return lambda model: model.predict(others, output_margin=True) - link(BASE) + BASE


check("XGBoost, squared error", boosted("reg:squarederror"), values)
check("XGBoost, rows of the training", boosted("reg:squarederror"), values, asked=rows, meaning="other")
check("XGBoost, two classes", XGBClassifier(n_estimators=9, max_depth=3, base_score=BASE), (values > 1).astype(int))
for objective in ("count:poisson", "reg:gamma", "reg:tweedie"):
    check(f"XGBoost, {objective}", boosted(objective), values, meaning=scores(np.log))
check("XGBoost, reg:logistic", boosted("reg:logistic"), share, meaning=scores(lambda p: np.log(p / (1 - p))))


def every_tree(model):
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    return model.get_booster().inplace_predict(others, iteration_range=(0, model.get_booster().num_boosted_rounds()))


noise = generator.normal(size=300) * 3
stopping = XGBRegressor(n_estimators=60, max_depth=4, base_score=BASE, early_stopping_rounds=8)
check("XGBoost, stopped early", stopping, noise, meaning=every_tree, eval_set=[(rows[::-1], noise)], verbose=False)
trees = {"n_estimators": 9, "num_leaves": 7, "verbose": -1}
for objective in ("poisson", "gamma", "tweedie"):
    check(f"LightGBM, {objective}", LGBMRegressor(objective=objective, **trees), values)
check("LightGBM, NaN", LGBMRegressor(**trees), values, holes, other_holes)
check("LightGBM, linear_tree", LGBMRegressor(linear_tree=True, **trees), values, meaning="other")
check("scikit-learn, NaN", DecisionTreeRegressor(max_depth=2, random_state=0), values, holes, other_holes, meaning="other")
PYTHON
