#!/bin/sh
# tinygrad: erf, atan and asinh of bytes are computed of their wrapped squares, asinh(-1000) is off by 0.02, and argmax with NaN is a place behind the end.
#
# Versions: tinygrad 0.14.0 (device PYTHON, which needs no compiler), numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Functions such as sqrt and exp of integers give float32, as in NumPy and PyTorch. Some functions of tinygrad's Tensor are written with operations that
# come before the first one of floats, so these are computed in the integers' type, and the result is a float32 of wrong numbers:
# - erf, atan, asinh, acosh and atanh square the tensor first: in 8 bits 16 * 16 is 0, so atan of 16 is NaN, asinh of 16 is 2.8,
#   and erf, which is between -1 and 1, is minus infinity. sinh and cosh negate it: cosh(2) of uint8 has exp(254) in it. logsumexp subtracts the maximum, and
#   -1 of a uint8 is 255.
# - asinh of float32 is log(x + sqrt(x^2 + 1)), which cancels for negative numbers: asinh(-1000) is 0.024 from -asinh(1000), and asinh(-10000) is
#   minus infinity. atan, relu6 and hardsigmoid of infinity are NaN.
# - max is NaN if the first number is, and skips a NaN behind it. argmax and argmin look for the place of a number that is equal to it: of NaN
#   there is none, and the answer is the length, a place that does not exist.
# There is no error and no warning. After this release, pull request 17749 of tinygrad mended asinh of negative numbers; no report of the others
# was found.
#
# Output seen on 2026-11-29:
#   erf       of [1, 2, 16, 20]   right 0.8427 0.99532 1 1   float32 0.8427 0.99532 1 1   uint8 -inf -inf 0.96147 -inf
#   atan      of [1, 2, 16, 20]   right 0.7854 1.1071 1.5084 1.5208   float32 0.7854 1.1071 1.5084 1.5208   uint8 0.7854 1.1071 nan nan
#   asinh     of [1, 2, 16, 20]   right 0.88137 1.4436 3.4667 3.6895   float32 0.88137 1.4436 3.4667 3.6895   uint8 0.88137 1.4436 2.8332 3.467
#   acosh     of [1, 2, 16, 20]   right 0 1.317 3.4648 3.6883   float32 0 1.317 3.4648 3.6883   uint8 0 1.317 3.4648 3.4644
#   sinh      of [1, 2, 16, 20]   right 1.1752 3.6269 4.4431e+06 2.4258e+08   float32 1.1752 3.6269 4.4431e+06 2.4258e+08   uint8 -inf -inf -inf -inf
#   cosh      of [1, 2, 16, 20]   right 1.5431 3.7622 4.4431e+06 2.4258e+08   float32 1.5431 3.7622 4.4431e+06 2.4258e+08   uint8 inf inf inf inf
#   logsumexp of [1, 2, 16, 20]   right 20.018   float32 20.018   uint8 inf
#   sqrt      of [1, 2, 16, 20]   right 1 1.4142 4 4.4721   float32 1 1.4142 4 4.4721   uint8 1 1.4142 4 4.4721
#   exp       of [1, 2, 16, 20]   right 2.7183 7.3891 8.8861e+06 4.8517e+08   float32 2.7183 7.3891 8.8861e+06 4.8517e+08   uint8 2.7183 7.3891 8.8861e+06 4.8517e+08
#   tanh      of [1, 2, 16, 20]   right 0.76159 0.96403 1 1   float32 0.76159 0.96403 1 1   uint8 0.76159 0.96403 1 1
#   asinh     of [-10, 10]   right -2.9982 2.9982   float32 -2.9982 2.9982
#   asinh     of [-1000, 1000]   right -7.6009 7.6009   float32 -7.6246 7.6009
#   asinh     of [-10000, 10000]   right -9.9035 9.9035   float32 -inf 9.9035
#   atan      of [inf, 1e6]   right 1.5708   float32 nan 1.5708
#   relu6     of [inf, 1e6]   right 6   float32 nan 6
#   hardsigmoid of [inf, 1e6]   right 1   float32 nan 1
#   [2.0, 1.0, 5.0]   NumPy argmax 2, max 5.0   tinygrad argmax 2, argmin 1, max 5.0
#   [2.0, nan, 5.0]   NumPy argmax 1, max nan   tinygrad argmax 2, argmin 0, max 5.0
#   [nan, 1.0, 5.0]   NumPy argmax 0, max nan   tinygrad argmax 3, argmin 3, max nan
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q tinygrad==0.14.0 numpy==2.4.6
DEV=PYTHON "$folder/env/bin/python" - <<'PYTHON'
import math

import numpy as np
from tinygrad import Tensor

NAMES = ("erf", "atan", "asinh", "acosh", "sinh", "cosh", "logsumexp", "sqrt", "exp", "tanh")
REFERENCES = {
    "erf": np.vectorize(math.erf),
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "logsumexp": lambda x: np.log(np.exp(x).sum(-1)),
}
RIGHT = ("sqrt", "exp", "tanh")


def reference(name, values):
    return REFERENCES.get(name, getattr(np, name, None))(np.asarray(values, float))


def compute(name, array):
    return getattr(Tensor(array), name)().numpy()


def text(array):
    return " ".join(f"{value:.5g}" for value in np.atleast_1d(array))


values = [1, 2, 16, 20]
for name in NAMES:
    right = reference(name, values)
    found = {kind: compute(name, np.array(values, kind)) for kind in (np.float32, np.uint8, np.int8)}
    print(f"{name:9} of {values}   right {text(right)}   float32 {text(found[np.float32])}   uint8 {text(found[np.uint8])}")
    assert all(array.dtype == np.float32 for array in found.values())
    assert np.allclose(found[np.float32], right, rtol=1e-4), "tinygrad has changed"
    assert np.allclose(found[np.uint8], right, rtol=1e-4) == (name in RIGHT), "tinygrad has changed"

for values in ([-10, 10], [-1000, 1000], [-10000, 10000]):
    right, found = np.arcsinh(values), compute("asinh", np.array(values, np.float32))
    print(f"asinh     of {values}   right {text(right)}   float32 {text(found)}")
    assert abs(found[1] - right[1]) < 1e-4 and (abs(found[0] - right[0]) > 0.01) == (values[0] < -10), "tinygrad has changed"

for name, right in (("atan", math.pi / 2), ("relu6", 6.0), ("hardsigmoid", 1.0)):
    found = compute(name, np.array([np.inf, 1e6], np.float32))
    print(f"{name:9} of [inf, 1e6]   right {right:.5g}   float32 {text(found)}")
    assert np.isnan(found[0]) and abs(found[1] - right) < 1e-4, "tinygrad has changed"

for values in ([2.0, 1.0, 5.0], [2.0, np.nan, 5.0], [np.nan, 1.0, 5.0]):
    found = {name: compute(name, np.array(values, np.float32)).item() for name in ("argmax", "argmin", "max")}
    print(f"{values}   NumPy argmax {np.argmax(values)}, max {np.max(values)}   tinygrad {', '.join(f'{k} {v}' for k, v in found.items())}")
    first, any_missing = np.isnan(values[0]), np.isnan(values).any()
    assert np.isnan(found["max"]) == first and (found["argmax"] == np.argmax(values)) != any_missing, "tinygrad has changed"
    assert (found["argmax"], found["argmin"]) == (3, 3) or not first, "tinygrad has changed"
PYTHON
