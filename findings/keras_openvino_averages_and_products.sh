#!/bin/sh
# Keras on OpenVINO: operations named after NumPy's have other numbers and other shapes: averages, products, limits, infinities.
#
# Versions: keras 3.15.1, openvino 2026.4.1, numpy 2.4.6, scipy 1.17.1, Python 3.11, Linux x86-64.
#
# keras.ops has functions of NumPy with their names and arguments, and a model runs on any backend. On OpenVINO, a backend for inference:
# - average with weights is the mean of products, which nobody divides by the sum of the weights.
# - cumprod of integers goes through the exponential of a sum of logarithms in f32, so 3 ** 14 is another number; behind a
#   negative number all are -2 ** 31.
# - clip turns the limits to the type of the image first: the limit 300 of bytes is 44.
# - linspace along axis 1 has its steps along the last axis, and whole steps are cut where NumPy's are right (9 for 10).
# - dot of two matrices of higher rank is matmul, vstack of two vectors is one long vector, argmax of all elements has the rank of x.
# - isclose(inf, inf) is False, and logaddexp(inf, inf) is NaN; reciprocal of a negative integer rounds down.
# No error and no warning. Keras's own backend of NumPy agrees with NumPy in all of them.
#
# Output seen:
#   average     NumPy [2.5]                                 Keras on OpenVINO [5.0]
#   cumprod     NumPy [729.0, 531441.0, 1594323.0, 4782969.0] Keras on OpenVINO [729.0, 531441.0, 1594323.0, 4782966.0]
#   cumprod     NumPy [-5.0, -20.0, 0.0, 0.0]               Keras on OpenVINO [-2147483648.0, -2147483648.0, -2147483648.0, -2147483648.0]
#   clip        NumPy [10.0, 100.0, 250.0]                  Keras on OpenVINO [10.0, 44.0, 44.0]
#   linspace    NumPy (2, 3, 4)                             Keras on OpenVINO (2, 4, 3)
#   linspace    NumPy [0.0, 3.0, 6.0, 10.0]                 Keras on OpenVINO [0.0, 3.0, 6.0, 9.0]
#   dot         NumPy (2, 3, 2, 5)                          Keras on OpenVINO (2, 3, 5)
#   vstack      NumPy (2, 3)                                Keras on OpenVINO (6,)
#   argmax      NumPy ()                                    Keras on OpenVINO (1, 1)
#   isclose     NumPy [1.0, 1.0, 1.0]                       Keras on OpenVINO [0.0, 0.0, 1.0]
#   logaddexp   NumPy [inf, -inf, 1.693]                    Keras on OpenVINO [nan, nan, 1.693]
#   reciprocal  NumPy [0.0, 0.0, 1.0]                       Keras on OpenVINO [-1.0, -1.0, 1.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q keras==3.15.1 openvino==2026.4.1 numpy==2.4.6 scipy==1.17.1
KERAS_BACKEND=openvino KERAS_HOME="$folder" "$folder/environment/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from keras import backend, ops

assert backend.backend() == "openvino"


def check(name, *arguments, shapes=False, **options):
    right = np.asarray(getattr(np, name)(*arguments, **options))
    found = np.asarray(ops.convert_to_numpy(getattr(ops, name)(*arguments, **options)))
    told = [str(y.shape) if shapes else str(np.round(y.astype(float), 3).ravel().tolist()) for y in (right, found)]
    print(f"{name:11} NumPy {told[0]:37} Keras on OpenVINO {told[1]}")
    compare = np.array_equal if right.dtype.kind in "iu" else np.allclose
    same = right.shape == found.shape and compare(right, found)
    assert not same, f"{name} has changed"
    return found


def agree(name, *arguments, **options):
    right, found = (np.asarray(y) for y in (getattr(np, name)(*arguments, **options), ops.convert_to_numpy(getattr(ops, name)(*arguments, **options))))
    assert right.shape == found.shape and np.allclose(right, found), name


x, weights = np.float32([1, 2, 3]), np.float32([1, 1, 4])
agree("average", x)
assert np.allclose(check("average", x, weights=weights), np.mean(x * weights))
agree("cumprod", np.float32([2, 3, 4]))
check("cumprod", np.int32([729, 729, 3, 3]))
check("cumprod", np.int32([-5, 4, 0, 1]))
agree("clip", np.uint8([5, 100, 250]), 10, 200)
assert check("clip", np.uint8([5, 100, 250]), 10, 300).tolist() == [10, 44, 44]
agree("linspace", 0, 1, 3)
assert check("linspace", np.zeros((2, 4), np.float32), np.ones((2, 4), np.float32), 3, axis=1, shapes=True).shape == (2, 4, 3)
assert check("linspace", 0, 10, 4, dtype="int32").tolist() == [0, 3, 6, 9]
a, b = np.ones((2, 3, 4), np.float32), np.ones((2, 4, 5), np.float32)
agree("dot", a[0], b[0])
assert check("dot", a, b, shapes=True).shape == (2, 3, 5)
agree("vstack", [a[0], a[1]])
assert check("vstack", [x, x], shapes=True).shape == (6,)
agree("argmax", a, axis=1)
assert check("argmax", a, shapes=True).shape == (1, 1)
infinite = np.float32([np.inf, -np.inf, 1])
check("isclose", infinite, infinite)
check("logaddexp", infinite, infinite)
agree("reciprocal", np.float32([-4, 2]))
check("reciprocal", np.int32([-4, -2, 1]))
PYTHON
