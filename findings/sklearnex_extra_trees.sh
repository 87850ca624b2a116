#!/bin/sh
# scikit-learn-intelex: the "random" thresholds of ExtraTrees are halves, quarters and eighths of a feature's bins, never in the upper half.
#
# Versions: scikit-learn-intelex 2026.2.0, daal 2026.2.0, scikit-learn 1.9.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Extremely randomized trees draw each threshold evenly between the least and the largest value, and so does scikit-learn, as its
# documentation says. ExtraTreesRegressor and ExtraTreesClassifier of sklearnex, which patch_sklearn() puts in the place of scikit-learn's,
# behave as if the bin of the drawn number were looked for by halving, and the search stopped at the first bin below it: of the
# values 0 to 255 the threshold is the middle with a probability of a half, 63.5 with a quarter, 31.5 with an eighth. 400 trees of one feature
# have seven different roots, none of them above the middle. Where a feature matters above its median, the trees find it late: the error
# for a step at three quarters is twice that for one at a quarter; scikit-learn has the same for both. Other numbers of bins change
# nothing. Forests of the best splits are right, and there is no warning.
#
# oneDAL's issue 3648 (splitting stops too early, closed) and issue 1916 (scores differ) are about this estimator; neither has this.
#
# Output seen (of 400 trees with one split each):
#   sklearn    ExtraTreesRegressor              371 thresholds, above the middle 0.507
#   sklearn    ExtraTreesClassifier             371 thresholds, above the middle 0.507
#   sklearnex  ExtraTreesRegressor                7 thresholds, above the middle 0.000   {127.5: 218, 63.5: 98, 31.5: 58, 15.5: 14, 7.5: 8}
#   sklearnex  ExtraTreesClassifier               7 thresholds, above the middle 0.000   {127.5: 218, 63.5: 98, 31.5: 58, 15.5: 14, 7.5: 8}
#   sklearnex  ExtraTreesRegressor, 1000 bins     7 thresholds, above the middle 0.000   {127.5: 218, 63.5: 98, 31.5: 58, 15.5: 14, 7.5: 8}
#   sklearnex  RandomForestRegressor finds a step at 191.5
#   sklearn    mean error for a step at  63.5 0.170
#   sklearn    mean error for a step at 191.5 0.166
#   sklearnex  mean error for a step at  63.5 0.134
#   sklearnex  mean error for a step at 191.5 0.255
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q scikit-learn-intelex==2026.2.0 daal==2026.2.0 scikit-learn==1.9.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import collections

import numpy as np
import sklearn.ensemble
import sklearnex.ensemble

values = np.arange(256.0)[:, None]


def roots(package, name, y, **options):
    forest = getattr(package.ensemble, name)(n_estimators=400, max_depth=1, random_state=0, n_jobs=1, **options)
    return np.array([tree.tree_.threshold[0] for tree in forest.fit(values, y).estimators_])


def check(package, title, thresholds, even):
    counts = collections.Counter(thresholds.round(1).tolist())
    upper = (thresholds > 127.5).mean()
    frequent = "" if even else f"   {dict(counts.most_common(5))}"
    print(f"{package.__name__:10} {title:32} {len(counts):3} thresholds, above the middle {upper:.3f}{frequent}")
    if even:
        assert len(counts) > 200 and 0.4 < upper < 0.6
    else:
        assert set(counts) <= {2.0**k - 0.5 for k in range(8)} and upper == 0, "the behaviour has changed"
        assert 160 < counts[127.5] < 240 and 60 < counts[63.5] < 140 and 20 < counts[31.5] < 80, "the behaviour has changed"


for package in (sklearn, sklearnex):
    even = package is sklearn
    check(package, "ExtraTreesRegressor", roots(package, "ExtraTreesRegressor", values[:, 0]), even)
    check(package, "ExtraTreesClassifier", roots(package, "ExtraTreesClassifier", values[:, 0].astype(int) % 2), even)
check(sklearnex, "ExtraTreesRegressor, 1000 bins", roots(sklearnex, "ExtraTreesRegressor", values[:, 0], max_bins=1000), False)
best = roots(sklearnex, "RandomForestRegressor", (values[:, 0] > 191.5).astype(float), bootstrap=False)
print("sklearnex  RandomForestRegressor finds a step at", *set(best.tolist()))
assert set(best.tolist()) == {191.5}
step = {}
for package in (sklearn, sklearnex):
    for where in (63.5, 191.5):
        forest = package.ensemble.ExtraTreesRegressor(n_estimators=400, max_depth=2, random_state=0, n_jobs=1)
        rows = forest.fit(values, (values[:, 0] > where).astype(float)).predict(values)
        step[package, where] = np.abs(rows - (values[:, 0] > where)).mean()
        print(f"{package.__name__:10} mean error for a step at {where:5} {step[package, where]:.3f}")
assert abs(step[sklearn, 63.5] - step[sklearn, 191.5]) < 0.02
assert step[sklearnex, 191.5] > 1.5 * step[sklearnex, 63.5], "the behaviour has changed"
PYTHON
