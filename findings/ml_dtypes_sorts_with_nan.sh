#!/bin/sh
# ml_dtypes: one NaN stops NumPy from sorting bfloat16 and float8, the median is a number beside the middle, and copysign makes NaN of zero.
#
# Versions: ml_dtypes 0.6.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# ml_dtypes gives NumPy the types in which models are stored. For a type of its own NumPy sorts by a function that the type brings. This one
# says that NaN is equal to every number, which is no order:
# - np.sort and np.argsort end with the numbers on both sides of a NaN unsorted; np.unique keeps equal numbers twice, and np.partition does not
#   part. float16 and float32 have NaN at the end, and the numbers before it are sorted.
# - np.median, which is NaN if there is one, looks for it at the end, and gives a number that is not the middle one either.
# - np.searchsorted puts NaN before all numbers and not behind them.
# np.argmax, np.max and np.maximum know of NaN and are right.
# - The types whose names end in "fnuz" have no negative zero; its bits are their NaN. copysign(0, -1) sets the sign without a look at that,
#   so it is NaN. Negation, products and conversions of zero are right.
# Nothing warns. No report of these was found (np.nan_to_num, which leaves NaN as it is, is ml_dtypes issue 346).
#
# Output seen on 2026-11-29:
#   float16        sorted -1 0 0 1 2 3 5 nan nan     unique -1 0 1 2 3 5 nan           median nan  NaN after 3
#   float32        sorted -1 0 0 1 2 3 5 nan nan     unique -1 0 1 2 3 5 nan           median nan  NaN after 3
#   bfloat16       sorted 1 3 nan 0 2 nan -1 0 5     unique 1 3 nan 0 2 nan -1 0 5     median 2    NaN after 0
#   float8_e5m2    sorted 1 3 nan 0 2 nan -1 0 5     unique 1 3 nan 0 2 nan -1 0 5     median 2    NaN after 0
#   float8_e4m3fn  sorted 1 3 nan 0 2 nan -1 0 5     unique 1 3 nan 0 2 nan -1 0 5     median 2    NaN after 0
#   float8_e3m4    sorted 1 3 nan 0 2 nan -1 0 5     unique 1 3 nan 0 2 nan -1 0 5     median 2    NaN after 0
#   float8_e5m2fnuz    copysign(0, -1) nan   -0 0.0   0 * -1 0.0   copysign(1, -1) -1.0
#   float8_e4m3fnuz    copysign(0, -1) nan   -0 0.0   0 * -1 0.0   copysign(1, -1) -1.0
#   float8_e4m3b11fnuz copysign(0, -1) nan   -0 0.0   0 * -1 0.0   copysign(1, -1) -1.0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q ml_dtypes==0.6.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import ml_dtypes
import numpy as np

numbers = [3, 1, float("nan"), 2, 0, float("nan"), -1, 5, 0]
middle = np.sort(np.array(numbers, np.float16))
assert np.array_equal(middle, [-1, 0, 0, 1, 2, 3, 5, np.nan, np.nan], equal_nan=True)


def show(values):
    return " ".join(f"{float(value):g}" for value in np.ravel(values))


for name in ("float16", "float32", "bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e3m4"):
    kind = np.dtype(getattr(np, name, None) or getattr(ml_dtypes, name))
    array = np.array(numbers, np.float32).astype(kind)
    ordered, unique, median = np.sort(array), np.unique(array), np.median(array)
    place = np.searchsorted(np.array([1, 2, 3], kind), np.array(np.nan, kind))
    print(f"{name:14} sorted {show(ordered):26} unique {show(unique):26} median {show(median):4} NaN after {place}")
    builtin = name in ("float16", "float32")
    assert np.array_equal(ordered.astype(float), middle.astype(float), equal_nan=True) == builtin, "the behaviour has changed"
    assert np.array_equal(array[np.argsort(array)].astype(float), ordered.astype(float), equal_nan=True), "argsort has changed"
    assert ((unique == 0).sum() == 1) == builtin, "np.unique has changed"
    assert np.isnan(median) == builtin and place == (3 if builtin else 0), "the behaviour has changed"
    assert np.isnan(np.max(array)) and np.argmax(array) == 2
    clean = array[~np.isnan(array)]
    assert np.array_equal(np.sort(clean).astype(float), middle[:7]), "sorting without NaN has changed"

for name in ("float8_e5m2fnuz", "float8_e4m3fnuz", "float8_e4m3b11fnuz"):
    kind = getattr(ml_dtypes, name)
    zero, minus = kind(0), kind(-1)
    print(f"{name:18} copysign(0, -1) {np.copysign(zero, minus)}   -0 {-zero}   0 * -1 {zero * minus}   copysign(1, -1) {np.copysign(kind(1), minus)}")
    assert np.isnan(np.copysign(zero, minus)), "copysign has changed"
    assert -zero == zero * minus == 0 and np.copysign(kind(1), minus) == -1
PYTHON
