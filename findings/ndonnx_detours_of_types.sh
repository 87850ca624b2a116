#!/bin/sh
# ndonnx: float64 has the digits of float32 in trigonometric functions, and large uint64 numbers have the maximum and the sum 0.
#
# Versions: ndonnx 0.23.0, spox 0.18.2, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# ndonnx has the functions of the array API standard and makes ONNX models of programs that use them. Where ONNX Runtime has no kernel
# for a type, the array is cast to another type and the result back, which the result's type does not show:
# - acos, acosh, asin, asinh, atan, cos, cosh, sinh and tan of float64 are computed in float32: the result is float64 with seven right digits.
#   sin, exp, log and tanh have all sixteen, so sin(x)^2 + cos(x)^2 is off by 1e-8.
# - max, sum and prod of uint64 go by way of a signed or a floating type: the maximum of [2^64 - 1, 2^63, 5] is 0. min is right.
# - pow of uint8, which wraps in NumPy and in the standard's text on integers, is 0 where the exact power is a large one: 250^4.
# - A shift of negative numbers to the right by more than their digits gives -1 in NumPy, as the standard's arithmetic shift; here 0.
# No warning. No report of these was found.
#
# Output seen on 2026-11-29:
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

large = np.array([2**64 - 1, 2**63, 5], np.uint64)
cases = [("max", (large,), 0), ("sum", (large,), 0), ("prod", (large,), 0), ("min", (large,), 5), ("max", (large >> np.uint64(1),), 2**63 - 1)]
cases.append(("pow", (np.array([5, 250], np.uint8), np.array([3, 4], np.uint8)), [125, 0]))
cases.append(("bitwise_right_shift", (np.array([-8, -8]), np.array([2, 63])), [-2, 0]))
for name, arrays, wanted in cases:
    right, found = results(name, *arrays)
    print(f"{name} of {arrays[0].dtype} {arrays[0].tolist()}: NumPy {right.tolist()}, ndonnx {found.tolist()}")
    assert found.dtype == right.dtype and np.array_equal(found, wanted), f"{name} has changed"
PYTHON
