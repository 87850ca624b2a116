#!/bin/sh
# NumKong: with AVX-512 the arctangent of 1 in float16 is 0.835, and the norm of five int32 numbers is cut at the root of 2^64.
#
# Versions: numkong 7.8.6, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# NumKong (2026) is the successor of SimSIMD, with kernels for each type and each set of vector instructions.
# - atan of float16 is taken from float32 by AVX-512's conversions and a short polynomial, which is good up to 0.7. From 0.725 to 1.385 it
#   goes away from the arctangent, up to 0.05 (three degrees) at 1, where it falls back: the function is not monotonous, and 45 degrees are 47.8.
#   sin and cos of float16 are off by 0.005 with the same kernels, ten times the distance of two numbers of the type. All other kernels,
#   AVX2 among them, are right to the last digit, so the same program has other angles on another machine. float32 and float64 are right on all.
# - norm returns a float. For integers the sum of squares is an integer of 64 bits that stops at its largest number, so the norm of int32
#   and uint32 is never above 2^32, whatever the vector, and that of int64 seldom above 3.04e9, of one number as well. For the same numbers as
#   float32 it is right. moments, from which the sum comes, stops in the same way.
# Nothing warns. No report of these was found.
#
# Output seen on 2026-11-29:
#   x              0.25   0.50   0.70   0.80   0.90   1.00   1.10   1.30   1.50   3.00
#   right         0.245  0.464  0.611  0.675  0.733  0.785  0.833  0.915  0.983  1.249
#   AVX-512       0.245  0.464  0.612  0.680  0.750  0.835  0.814  0.912  0.982  1.249   errors atan 0.0496 sin 0.0049 cos 0.0049
#   AVX2          0.245  0.464  0.611  0.675  0.733  0.785  0.833  0.915  0.983  1.249   errors atan 0.0005 sin 0.0002 cos 0.0002
#   norm of 5 int32    4294967296   as float32   4801919417   sum of squares 18446744073709551615
#   norm of 5 uint32   4294967296   as float32   9603838835   sum of squares 18446744073709551615
#   norm of 1 int64    3037000500   as float32   5000000000   sum of squares 9223372036854775807
#   norm of 2 int32          2236   as float32         2236   sum of squares 5000000
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q numkong==7.8.6 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import numkong
import numpy as np

points = np.array([0.25, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.3, 1.5, 3], np.float16)
dense = np.unique(np.linspace(-3, 3, 5000).astype(np.float16))


def error(name, right, kind=np.float16):
    given = dense.astype(kind)
    return abs(np.asarray(getattr(numkong, name)(given)).astype(float) - right(given.astype(float))).max()


def show(name):
    angles = np.asarray(numkong.atan(points)).astype(float)
    errors = {function: error(function, right) for function, right in (("atan", np.arctan), ("sin", np.sin), ("cos", np.cos))}
    print(f"{name:12}", *(f"{angle:6.3f}" for angle in angles), "  errors", *(f"{key} {value:.4f}" for key, value in errors.items()))
    return np.asarray(numkong.atan(dense)).astype(float), errors


print("x           ", *(f"{float(point):6.2f}" for point in points))
print("right       ", *(f"{np.arctan(float(point)):6.3f}" for point in points))
for name, right in (("atan", np.arctan), ("sin", np.sin), ("cos", np.cos)):
    assert error(name, right, np.float32) < 1e-5 and error(name, right, np.float64) < 1e-10
present = [name for name, here in numkong.get_capabilities().items() if here]
if "skylake" in present:
    angles, errors = show("AVX-512")
    wrong = abs(angles - np.arctan(dense.astype(float))) > 0.002
    assert 0.7 < abs(dense[wrong]).min() < 0.75 and 1.35 < abs(dense[wrong]).max() < 1.4, "the behaviour has changed"
    assert 0.04 < errors["atan"] < 0.06 and 0.004 < errors["sin"] < 0.006 and (np.diff(angles) < 0).any(), "the behaviour has changed"
    for name in present:
        if name not in ("serial", "haswell"):
            numkong.disable_capability(name)
angles, errors = show("AVX2")
assert max(errors.values()) < 0.0005 and (np.diff(angles) >= 0).all(), "AVX2 has changed"

for kind, values in ((np.int32, [2**31 - 1] * 5), (np.uint32, [2**32 - 1] * 5), (np.int64, [5 * 10**9]), (np.int32, [2000, 1000])):
    vector = np.array(values, kind)
    found, floats = numkong.norm(vector), numkong.norm(vector.astype(np.float32))
    print(f"norm of {len(values)} {kind.__name__:6} {found:12.0f}   as float32 {floats:12.0f}   sum of squares {numkong.moments(vector)[1]}")
    right = np.linalg.norm(vector.astype(float))
    assert np.isclose(floats, right, rtol=1e-5) and np.isclose(found, min(right, 2**32 if kind != np.int64 else 2**31.5), rtol=1e-3), "norm has changed"
PYTHON
