#!/bin/sh
# ndonnx: float64 has the digits of float32 in trigonometric functions, and the maximum of uint64 numbers is none of them.
#
# Versions: ndonnx 0.23.0, spox 0.18.2, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# ndonnx has the functions of the array API standard and makes ONNX models of programs that use them. Where ONNX Runtime has no kernel
# for a type, the array is cast to another type and the result back, which the result's type does not show:
# - acos, acosh, asin, asinh, atan, cos, cosh, sinh and tan of float64 are computed in float32: the result is float64 with seven right digits.
#   sin, exp, log and tanh have all sixteen, so sin(x)^2 + cos(x)^2 is off by 1e-8.
# - max of uint64 goes by way of float64: the maximum of [2^60 + 1, 2] is 2^60, which is not among them. So does cumulative_sum, from its first
#   number on. Both are right for int64, and so are min and sort for uint64.
# - pow of integers is one of float64, so 3^35 has a wrong last digit. (sum and prod are ONNX Runtime's, which lose such digits for int64 as well.)
# - A shift of negative numbers to the right by 63 gives -1 in NumPy, as the standard's arithmetic shift; here 0. By 61 it is right.
# No warning. No report of these was found.
#
# Output seen on 2026-11-29:
#   sin   of float64: float64, error below 1e-14
#   exp   of float64: float64, error below 1e-14
#   log   of float64: float64, error below 1e-14
#   tanh  of float64: float64, error below 1e-14
#   cos   of float64: float64, error above 1e-8
#   tan   of float64: float64, error above 1e-8
#   acos  of float64: float64, error above 1e-8
#   asin  of float64: float64, error above 1e-8
#   atan  of float64: float64, error above 1e-8
#   cosh  of float64: float64, error above 1e-8
#   sinh  of float64: float64, error above 1e-8
#   asinh of float64: float64, error above 1e-8
#   acosh of float64: float64, error above 1e-8
#   max of uint64 [1152921504606846977, 2]: NumPy 1152921504606846977, ndonnx 1152921504606846976
#   cumulative_sum of uint64 [1152921504606846977, 2]: NumPy [1152921504606846977, 1152921504606846979], ndonnx [1152921504606846976, 1152921504606846976]
#   pow of int64 [3], [35]: NumPy [50031545098999707], ndonnx [50031545098999704]
#   bitwise_right_shift of int64 [-8, -8], [61, 63]: NumPy [-1, -1], ndonnx [-1, 0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q ndonnx==0.23.0 spox==0.18.2 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import ndonnx
import numpy as np

NAMES = {"acos": "arccos", "asin": "arcsin", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "pow": "power", "bitwise_right_shift": "right_shift"}


def results(name, *arrays):
    found = getattr(ndonnx, name)(*(ndonnx.asarray(array) for array in arrays)).unwrap_numpy()
    return getattr(np, NAMES.get(name, name))(*arrays), found


points = np.linspace(0.05, 0.95, 50)
for name in ("sin", "exp", "log", "tanh", "cos", "tan", "acos", "asin", "atan", "cosh", "sinh", "asinh", "acosh"):
    right, found = results(name, points + 1 if name == "acosh" else points)
    error = abs(found / right - 1).max()
    exact = name in ("sin", "exp", "log", "tanh")
    print(f"{name:5} of float64: {found.dtype}, error {'below 1e-14' if error < 1e-14 else 'above 1e-8'}")
    assert found.dtype == np.float64 and (error < 1e-14 if exact else 1e-8 < error < 1e-5), f"{name} has changed"

large = np.array([2**60 + 1, 2], np.uint64)
cases = [("max", (large,), 2**60), ("cumulative_sum", (large,), [2**60, 2**60]), ("pow", (np.array([3]), np.array([35])), [3**35 - 3])]
cases += [("bitwise_right_shift", (np.array([-8, -8]), np.array([61, 63])), [-1, 0])]
for name, arrays, wanted in cases:
    right, found = results(name, *arrays)
    print(f"{name} of {arrays[0].dtype} {', '.join(str(array.tolist()) for array in arrays)}: NumPy {right.tolist()}, ndonnx {found.tolist()}")
    assert found.dtype == right.dtype and np.array_equal(found, wanted) and not np.array_equal(found, right), f"{name} has changed"
signed = large.astype(np.int64)
for name, array in (("min", large), ("sort", large), ("max", signed), ("cumulative_sum", signed)):
    assert np.array_equal(*results(name, array)), f"{name} has changed"
PYTHON
