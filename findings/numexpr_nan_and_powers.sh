#!/bin/sh
# NumExpr: max and min of an array skip NaN where maximum and minimum of two arrays keep it, and powers of -infinity depend on how they are written.
#
# Versions: numexpr 2.14.2, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# NumExpr takes an expression as a text, with NumPy's names, and compiles it. What it does not know it refuses.
# - The reductions max and min leave NaN out, as NumPy's nanmax does; sum and prod keep it, and so do maximum and minimum of two arrays. So
#   "max(a)" of a column with a hole is a number, and its sum is not.
# - x**-0.5, x**1.5 and the like are written as roots and products by the default optimization. For -infinity they are NaN then, and with
#   optimization="none" and in NumPy infinite or 0. x**0.5 with optimization="none" is infinite for -infinity; as a root it is NaN, as in NumPy.
# - An integer to the power of -1 as a constant is refused, as NumPy refuses all negative powers of integers. As an array it is 0.
# No warning. Issue 535 of numexpr made maximum and minimum of two keep NaN in 2025; no report of the reductions was found.
#
# Output seen on 2026-11-29:
#   max(a)           aggressive  NumPy nan                        NumExpr 5.0
#   min(a)           aggressive  NumPy nan                        NumExpr 2.0
#   max(a)           aggressive  NumPy nan                        NumExpr 5.0
#   sum(a)           aggressive  NumPy nan                        NumExpr nan
#   maximum(a, b)    aggressive  NumPy [2.0, nan, 5.0, 3.0]       NumExpr [2.0, nan, 5.0, 3.0]
#   minimum(a, b)    aggressive  NumPy [0.0, nan, 0.0, 0.0]       NumExpr [0.0, nan, 0.0, 0.0]
#   maximum(b, a)    aggressive  NumPy [2.0, nan, 5.0, 3.0]       NumExpr [2.0, nan, 5.0, 3.0]
#   x**-0.5          aggressive  NumPy [0.0, 0.5, 0.0]            NumExpr [nan, 0.5, 0.0]
#   x**-0.5          none        NumPy [0.0, 0.5, 0.0]            NumExpr [0.0, 0.5, 0.0]
#   x**1.5           aggressive  NumPy [inf, 8.0, inf]            NumExpr [nan, 8.0, inf]
#   x**1.5           none        NumPy [inf, 8.0, inf]            NumExpr [inf, 8.0, inf]
#   x**2.5           aggressive  NumPy [inf, 32.0, inf]           NumExpr [nan, 32.0, inf]
#   x**2.5           none        NumPy [inf, 32.0, inf]           NumExpr [inf, 32.0, inf]
#   x**0.5           aggressive  NumPy [nan, 2.0, inf]            NumExpr [nan, 2.0, inf]
#   x**0.5           none        NumPy [nan, 2.0, inf]            NumExpr [inf, 2.0, inf]
#   i**j             aggressive  NumPy ValueError                 NumExpr [0, 0, 0]
#   i**-1            refused: Integers to negative integer powers are not allowed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q numexpr==2.14.2 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numexpr
import numpy as np

nan, infinity = float("nan"), float("inf")
holes = np.array([2.0, nan, 5.0, 3.0])
others = np.zeros(4)


def check(text, wanted, same, optimization="aggressive", **names):
    """Compare a text in NumExpr with NumPy; `wanted` is NumExpr's result."""
    found = np.asarray(numexpr.evaluate(text, local_dict=names, global_dict={}, optimization=optimization))
    functions = {"max": np.max, "min": np.min, "sum": np.sum, "maximum": np.maximum, "minimum": np.minimum}
    with np.errstate(all="ignore"):
        try:
            right = np.asarray(eval(text, functions, names))
        except ValueError as error:
            right = error
    equal = not isinstance(right, ValueError) and np.allclose(right, found, equal_nan=True)
    shown = "ValueError" if isinstance(right, ValueError) else right.round(3).tolist()
    print(f"{text:16} {optimization:11} NumPy {shown!s:26} NumExpr {found.round(3).tolist()}")
    assert equal == same and np.allclose(found, wanted, equal_nan=True), f"{text} has changed"


check("max(a)", 5, False, a=holes)
check("min(a)", 2, False, a=holes)
check("max(a)", 5, False, a=holes.astype(np.float32))
check("sum(a)", nan, True, a=holes)
check("maximum(a, b)", holes, True, a=holes, b=others)
check("minimum(a, b)", [0, nan, 0, 0], True, a=holes, b=others)
check("maximum(b, a)", holes, True, a=holes, b=others)

ends = np.array([-infinity, 4.0, infinity])
for power, right in ((-0.5, [0, 0.5, 0]), (1.5, [infinity, 8, infinity]), (2.5, [infinity, 32, infinity])):
    check(f"x**{power}", [nan, *right[1:]], False, x=ends)
    check(f"x**{power}", right, True, "none", x=ends)
check("x**0.5", [nan, 2, infinity], True, x=ends)
check("x**0.5", [infinity, 2, infinity], False, "none", x=ends)

bases, powers = np.array([2, -2, 3]), np.array([-1, -1, -2])
check("i**j", [0, 0, 0], False, i=bases, j=powers)
try:
    numexpr.evaluate("i**-1", local_dict={"i": bases}, global_dict={})
    raise SystemExit("i**-1 has changed")
except ValueError as error:
    print("i**-1            refused:", error)
PYTHON
