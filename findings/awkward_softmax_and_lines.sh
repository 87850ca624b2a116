#!/bin/sh
# Awkward Array: softmax is NaN from 710 on (in float32 from 89 on) and below -746, and linear_fit has another slope for large x.
#
# Versions: awkward 2.14.0, scipy 1.17.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# - ak.softmax takes the exponential of each number and divides by their sum, and subtracts nothing before. Two numbers that differ by 1 have the
#   probabilities 0.27 and 0.73, wherever they are. From 710 on the exponential is infinite, and so is the sum: all probabilities are NaN. In
#   float32 that begins at 89, and for [88, 89] one is 0 and the other NaN. Far below zero all are 0, and their sum too.
# - ak.linear_fit subtracts products of sums: the slope of y over x is off by a quarter for x near 1e8, as times in seconds and identifiers are
#   (1.7e9), and infinite near 1e9. ak.var, ak.covar and ak.corr of the same numbers subtract the mean first and have all digits, so the slope as
#   covariance by variance is right.
# A RuntimeWarning of NumPy speaks of exp and division. No report of these was found.
#
# Output seen on 2026-11-29:
#   softmax of [0.0, 1.0]       float64   SciPy [0.269, 0.731]   awkward [0.269, 0.731]
#   softmax of [700.0, 701.0]   float64   SciPy [0.269, 0.731]   awkward [0.269, 0.731]
#   softmax of [710.0, 711.0]   float64   SciPy [0.269, 0.731]   awkward [nan, nan]
#   softmax of [-800.0, -799.0] float64   SciPy [0.269, 0.731]   awkward [nan, nan]
#   softmax of [80.0, 81.0]     float32   SciPy [0.26899999380111694, 0.7310000061988831]   awkward [0.26899999380111694, 0.7310000061988831]
#   softmax of [88.0, 89.0]     float32   SciPy [0.26899999380111694, 0.7310000061988831]   awkward [0.0, nan]
#   softmax of [-200.0, -199.0] float32   SciPy [0.26899999380111694, 0.7310000061988831]   awkward [nan, nan]
#   x from 0.0e+00   NumPy 1.0400   linear_fit  1.0400 +- 0.3162   covariance by variance 1.0400
#   x from 1.0e+06   NumPy 1.0400   linear_fit  1.0400 +- 0.3162   covariance by variance 1.0400
#   x from 1.0e+08   NumPy 1.0400   linear_fit  1.3000 +- 0.3536   covariance by variance 1.0400
#   x from 1.0e+09   NumPy 1.0400   linear_fit     inf +- inf   covariance by variance 1.0400
#   x from 1.7e+09   NumPy 1.0400   linear_fit     inf +- inf   covariance by variance 1.0400
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q awkward==2.14.0 scipy==1.17.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import awkward
import numpy as np
import scipy.special

for kind, first in ((np.float64, 0), (np.float64, 700), (np.float64, 710), (np.float64, -800), (np.float32, 80), (np.float32, 88), (np.float32, -200)):
    row = np.array([first, first + 1], kind)
    right = scipy.special.softmax(row)
    found = np.asarray(awkward.softmax(awkward.Array(row[None]), axis=1)[0])
    print(f"softmax of {row.tolist()!s:16} {kind.__name__}   SciPy {np.round(right, 3).tolist()}   awkward {np.round(found, 3).tolist()}")
    large = first in (710, -800, 88, -200)
    assert np.allclose(right, [0.26894, 0.73106], atol=1e-4) and np.isnan(found).any() == large, "softmax has changed"
    assert large or np.allclose(found, right, atol=1e-4)

steps, y = np.array([0, 1, 3, 4.0]), np.array([1, 2, 4, 5.2])
for start in (0, 1e6, 1e8, 1e9, 1.7e9):
    x = steps + start
    rows = awkward.Array([x]), awkward.Array([y])
    fit = awkward.linear_fit(*rows, axis=1)
    slope = awkward.covar(*rows, axis=1)[0] / awkward.var(rows[0], axis=1)[0]
    right = np.polyfit(steps, y, 1)[0]
    print(f"x from {start:7.1e}   NumPy {right:.4f}   linear_fit {fit.slope[0]:7.4f} +- {fit.slope_error[0]:.4f}   covariance by variance {slope:.4f}")
    assert np.isclose(slope, right) and np.isclose(fit.slope[0], right) == (start < 1e8), "linear_fit has changed"
PYTHON
