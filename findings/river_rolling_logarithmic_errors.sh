#!/bin/sh
# river: the root mean squared logarithmic error of a window is not a number soon after the first value leaves it, or a complex one.
#
# Versions: river 0.26.1, scikit-learn 1.9.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# utils.Rolling computes a metric over the last values: each new value is added with update, and the oldest is taken away with revert.
# RMSLE is RMSE of logarithms. Its update takes the logarithms; its revert is that of RMSE, and takes away the square of the plain error, which
# is larger. So the mean of the window falls with each step, by as much as the values are large. First the errors are too small, by a fifth in
# the first steps of a window of 300, then the mean is negative and its root NaN with NumPy's numbers and imaginary with Python's. A dashboard
# that shows the error of the last hour shows a model that gets better and better until the number is gone.
# Without a window RMSLE is right, as are all other regression metrics in a window (RMSE, MAE, MAPE, SMAPE, R2 are checked).
#
# No report of this was found.
#
# Output seen on 2026-11-29:
#   RMSLE, window  20, after  20 values   scikit-learn 0.157   river 0.157
#   RMSLE, window  20, after  23 values   scikit-learn 0.173   river 0.239 i
#   RMSLE, window  20, after  35 values   scikit-learn 0.275   river 0.484 i
#   RMSLE, window  20, after 600 values   scikit-learn 0.290   river 8.478 i
#   RMSLE, window 300, after 300 values   scikit-learn 0.231   river 0.231
#   RMSLE, window 300, after 303 values   scikit-learn 0.231   river 0.218
#   RMSLE, window 300, after 315 values   scikit-learn 0.231   river 0.180
#   RMSLE, window 300, after 600 values   scikit-learn 0.234   river 1.483 i
#   RMSE, MAE, MAPE, SMAPE and R2 are right
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q river==0.26.1 scikit-learn==1.9.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import sklearn.metrics
from river import metrics, utils

generator = np.random.default_rng(0)
truths = generator.gamma(2, 2, 600)
guesses = truths * np.exp(generator.normal(size=600) * 0.3)


def roll(kind, window, steps):
    metric = utils.Rolling(kind(), window)
    for pair in zip(truths[:steps].tolist(), guesses[:steps].tolist()):
        metric.update(*pair)
    return metric.get()


def last(score, window, steps):
    return score(truths[max(0, steps - window) : steps], guesses[max(0, steps - window) : steps])


def logarithmic(a, b):
    return sklearn.metrics.root_mean_squared_log_error(a, b)


for window in (20, 300):
    for steps in (window, window + 3, window + 15, 600):
        found, right = roll(metrics.RMSLE, window, steps), last(logarithmic, window, steps)
        text = f"{found:.3f}" if isinstance(found, float) else f"{found.imag:.3f} i"
        print(f"RMSLE, window {window:3}, after {steps:3} values   scikit-learn {right:.3f}   river {text}")
        assert np.isclose(found, right) == (steps == window), "the behaviour has changed"
assert isinstance(roll(metrics.RMSLE, 20, 600), complex), "the behaviour has changed"
for kind, score in (
    (metrics.RMSE, sklearn.metrics.root_mean_squared_error),
    (metrics.MAE, sklearn.metrics.mean_absolute_error),
    (metrics.MAPE, lambda a, b: 100 * sklearn.metrics.mean_absolute_percentage_error(a, b)),
    (metrics.SMAPE, lambda a, b: 200 * np.mean(abs(a - b) / (a + b))),
    (metrics.R2, sklearn.metrics.r2_score),
):
    assert np.isclose(roll(kind, 20, 600), last(score, 20, 600)), f"{kind.__name__} has changed"
print("RMSE, MAE, MAPE, SMAPE and R2 are right")
PYTHON
