#!/bin/sh
# Blosc2: an integer array that is compared with 2.5 is compared with 2, bytes with 300 are compared with 44, and 3 / 2 is 1.
#
# Versions: blosc2 4.14.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Expressions of blosc2's compressed arrays (blosc2.lazyexpr, or operators of NDArray) are evaluated block by block by a compiler of their own,
# with NumPy's names and types. What it cannot do it leaves to NumExpr or NumPy, and then the result is right. It converts a constant to the array's
# type before it compares:
# - 2 == 2.5 is true and 2 < 2.5 false, for integers of each width. Inside of where and sum, which others compute, the same comparison is right. So
#   sum(i < 2.5) is another number than the sum of i < 2.5.
# - 300 is 44 for uint8, so 50 < 300 is false; 40000 is negative for int16.
# - The quotient of two integer arrays has the type float64 and the rest cut off: 10 / 3 is 3.0. Divided by a constant, it is 3.333.
# - hypot and logaddexp of integers are taken from integers: hypot(1, 5) is 5.
# - % has the sign of the left operand, as in C, and // rounds down, as in Python: i // j * j + i % j is not i.
# Nothing warns. No report of these was found.
#
# Output seen on 2026-11-29:
#   i == 2.5             NumPy [False, False, False, False]          blosc2 [False, True, False, False]
#   i < 2.5              NumPy [True, True, False, False]            blosc2 [True, False, False, False]
#   u < 300              NumPy [True, True, True, True]              blosc2 [True, False, False, False]
#   u == 266             NumPy [False, False, False, False]          blosc2 [True, False, False, False]
#   h > 40000            NumPy [False, False, False, False]          blosc2 [True, True, True, True]
#   u / w                NumPy [3.333, 7.143, 66.667, 2.55]          blosc2 [3.0, 7.0, 66.0, 2.0]
#   i / j                NumPy [0.2, 2.0, 1.5, 1.333]                blosc2 [0.0, 2.0, 1.0, 1.0]
#   hypot(i, j)          NumPy [5.099, 2.236, 3.606, 5.0]            blosc2 [5.0, 2.0, 3.0, 5.0]
#   logaddexp(i, j)      NumPy [5.018, 2.313, 3.313, 4.313]          blosc2 [5.0, 2.0, 3.0, 4.0]
#   k % j                NumPy [3, 0, 1, 0]                          blosc2 [-2, 0, 1, 0]
#   where(i < 2.5, i, 0) NumPy [1, 2, 0, 0]                          the same
#   sum(i < 2.5)         NumPy 2                                     the same
#   i < 3                NumPy [True, True, False, False]            the same
#   u < 200              NumPy [True, True, False, False]            the same
#   h > 20000            NumPy [False, False, False, True]           the same
#   i * 2.5              NumPy [2.5, 5.0, 7.5, 10.0]                 the same
#   u / 3                NumPy [3.333, 16.667, 66.667, 85.0]         the same
#   i / 3                NumPy [0.333, 0.667, 1.0, 1.333]            the same
#   k // j               NumPy [-2, -8, 3, 3]                        the same
#   with operators [False, True, False, False] [True, False, False, False] [3.0, 7.0, 66.0, 2.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q blosc2==4.14.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import blosc2
import numpy as np

ARRAYS = {
    "i": np.array([1, 2, 3, 4]),
    "j": np.array([5, 1, 2, 3]),
    "k": np.array([-7, -8, 7, 9]),
    "h": np.array([1, 2, 3, 30000], np.int16),
    "u": np.array([10, 50, 200, 255], np.uint8),
    "w": np.array([3, 7, 3, 100], np.uint8),
}
COMPRESSED = {name: blosc2.asarray(array) for name, array in ARRAYS.items()}
FUNCTIONS = {"where": np.where, "sum": np.sum, "hypot": np.hypot, "logaddexp": np.logaddexp}


def check(expression, wrong):
    """Compare an expression's value with NumPy's; `wrong` says whether they differ."""
    used = {name: COMPRESSED[name] for name in ARRAYS if name in expression.replace("where", "").replace("sum", "").replace("hypot", "")}
    found = np.asarray(blosc2.lazyexpr(expression, used).compute()[()])
    right = eval(expression, FUNCTIONS, ARRAYS)
    texts = [str(value.tolist() if value.dtype == bool else np.round(value, 3).tolist()) for value in (np.asarray(right), found)]
    print(f"{expression:20} NumPy {texts[0]}".ljust(64), "the same" if np.array_equal(found, right) else f"blosc2 {texts[1]}")
    assert np.array_equal(found, right) != wrong, f"{expression} has changed"


for expression in ("i == 2.5", "i < 2.5", "u < 300", "u == 266", "h > 40000", "u / w", "i / j", "hypot(i, j)", "logaddexp(i, j)", "k % j"):
    check(expression, wrong=True)
for expression in ("where(i < 2.5, i, 0)", "sum(i < 2.5)", "i < 3", "u < 200", "h > 20000", "i * 2.5", "u / 3", "i / 3", "k // j"):
    check(expression, wrong=False)
operators = (COMPRESSED["i"] == 2.5)[:], (COMPRESSED["u"] < 300)[:], (COMPRESSED["u"] / COMPRESSED["w"])[:]
print("with operators", *(result.tolist() for result in operators))
assert operators[0].any() and not operators[1].all() and operators[2][0] == 3, "operators have changed"
PYTHON
