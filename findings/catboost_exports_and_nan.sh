#!/bin/sh
# CatBoost's exports: a model that learnt to take NaN as the largest value takes it as the smallest in its programs in Python and C++.
#
# Versions: catboost 1.2.10, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# With nan_mode="Max", training sees NaN above all numbers, and the model's files (cbm, JSON, ONNX) say for each feature how NaN is treated.
# save_model(format="python") writes a program that compares each feature with its borders. NaN is not above any border, which is right
# for nan_mode="Min", the default. For "Max" there is no more than this, so each NaN goes the way of the smallest number. The
# program of format="cpp" has the same comparison. Rows without NaN are right, and so is NaN in a column that had none in training. CatBoost
# refuses to export what it cannot (trees that are not symmetric), and here it says nothing.
#
# No report was found.
#
# Output seen on 2026-11-29 (rows that differ from CatBoost's predictions):
#   nan_mode Min  JSON       0 of 305 rows with NaN, 0 of 195 others
#   nan_mode Min  Python     0 of 305 rows with NaN, 0 of 195 others
#   nan_mode Max  JSON       0 of 305 rows with NaN, 0 of 195 others
#   nan_mode Max  Python   305 of 305 rows with NaN, 0 of 195 others
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q catboost==1.2.10 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from catboost import CatBoostRegressor

generator = np.random.default_rng(0)
rows = generator.normal(size=(500, 4)).astype(np.float32)
holes = generator.random(rows.shape) < 0.2
missing = np.where(holes, np.nan, rows).astype(np.float32)
values = rows[:, 0] * 3 + rows[:, 1] ** 2 + 4 * holes[:, 0]
some = holes.any(1)


def run_python(model, inputs):
    model.save_model("model.py", format="python")
    names = {}
    with open("model.py") as file:
        exec(file.read(), names)
    return np.array([names["apply_catboost_model"]([float(value) for value in row]) for row in inputs])


def run_json(model, inputs):
    model.save_model("model.json", format="json")
    return CatBoostRegressor().load_model("model.json", format="json").predict(inputs)


for mode in ("Min", "Max"):
    model = CatBoostRegressor(iterations=20, depth=3, nan_mode=mode, random_seed=0, verbose=0, allow_writing_files=False, thread_count=1)
    model.fit(missing, values)
    right = model.predict(missing)
    lowest = model.predict(np.where(holes, np.float32(-1e6), missing))
    for name, run in (("JSON", run_json), ("Python", run_python)):
        found = run(model, missing)
        differ = ~np.isclose(right, found, atol=1e-4)
        print(f"nan_mode {mode}  {name:8} {differ[some].sum():3} of {some.sum()} rows with NaN, {differ[~some].sum()} of {(~some).sum()} others")
        assert not differ[~some].any(), f"{name} has changed"
        if mode == "Min" or name == "JSON":
            assert not differ.any(), f"{name} has changed"
        else:
            assert differ[some].mean() > 0.5 and np.allclose(found, lowest, atol=1e-4), f"{name} has changed"
    model.save_model("model.cpp", format="cpp")
    with open("model.cpp") as file:
        assert "nan" not in file.read().lower(), "the program in C++ has changed"
PYTHON
