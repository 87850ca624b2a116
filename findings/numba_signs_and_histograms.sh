#!/bin/sh
# Numba: np.sign of a large unsigned number is the largest of its type, np.histogram of equal values is empty, and NaN is no maximum of complex numbers.
#
# Versions: numba 0.68.1, llvmlite 0.50.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Functions that numba.njit compiles call NumPy's functions by name, and Numba has an implementation of its own for each. The same function with and
# without @njit, on the same arrays:
# - np.sign has one code for all integers. It compares as signed ones, so an unsigned number of the upper half of its type counts as below
#   zero and gets -1, which is 255 for uint8: a picture's bright pixels.
# - np.histogram without a range takes the least and the largest value. If they are equal, NumPy widens the range by a half to both sides, and
#   all values are in the middle bin. Numba divides by the width of zero, and no value is counted.
# - np.max and np.min of complex numbers skip a NaN that is not the first; of real numbers they keep it, in both.
# There is no error and no warning. The documentation lists the three as supported, with "only the 3 first arguments" for histogram.
#
# No report of these was found.
#
# Output seen on 2026-11-29:
#   sign of uint8                      NumPy [0, 1, 1, 1, 1]          Numba [0, 1, 1, 255, 255]
#   sign of uint16                     NumPy [0, 1, 1, 1, 1]          Numba [0, 1, 1, 65535, 65535]
#   sign of uint32                     NumPy [0, 1, 1, 1, 1]          Numba [0, 1, 1, 4294967295, 4294967295]
#   sign of uint64                     NumPy [0, 1, 1, 1, 1]          Numba [0, 1, 1, 18446744073709551615, 18446744073709551615]
#   sign of int8                       NumPy [0, 1, 1, -1]            Numba the same
#   histogram of 1, 2 and 4            NumPy [1, 1, 1]                Numba the same
#   histogram of 2, 2 and 2            NumPy [0, 3, 0]                Numba [0, 0, 0]
#   max of 1, NaN and 3                NumPy nan                      Numba the same
#   max of 1, NaN and 3, complex       NumPy (nan+0j)                 Numba (3+0j)
#   min of 1, NaN and 3, complex       NumPy (nan+0j)                 Numba (1+0j)
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q numba==0.68.1 llvmlite==0.50.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from numba import njit


def check(name, function, array, wanted):
    """`wanted` is what the compiled function gives, None where it agrees with NumPy, "other" where it does not."""
    right, found = np.asarray(function(array)), np.asarray(njit(function)(array))
    same = np.array_equal(right, found, equal_nan=True)
    print(f"{name:34} NumPy {right.tolist()!s:24} Numba {'the same' if same else found.tolist()}")
    assert same == (wanted is None), f"{name} has changed"
    assert wanted is None or isinstance(wanted, str) or np.array_equal(found, wanted), f"{name} has changed"


for kind in (np.uint8, np.uint16, np.uint32, np.uint64):
    top = np.iinfo(kind).max
    half = top // 2
    check(f"sign of {kind.__name__}", lambda x: np.sign(x), np.array([0, 1, half, half + 1, top], kind), np.array([0, 1, 1, top, top], kind))
check("sign of int8", lambda x: np.sign(x), np.array([0, 1, 127, -128], np.int8), None)

check("histogram of 1, 2 and 4", lambda x: np.histogram(x, 3)[0], np.array([1.0, 2.0, 4.0]), None)
check("histogram of 2, 2 and 2", lambda x: np.histogram(x, 3)[0], np.array([2.0, 2.0, 2.0]), "other")

nan = float("nan")
check("max of 1, NaN and 3", lambda x: np.max(x), np.array([1, nan, 3]), None)
check("max of 1, NaN and 3, complex", lambda x: np.max(x), np.array([1, nan, 3], complex), np.array(3 + 0j))
check("min of 1, NaN and 3, complex", lambda x: np.min(x), np.array([1, nan, 3], complex), np.array(1 + 0j))
PYTHON
