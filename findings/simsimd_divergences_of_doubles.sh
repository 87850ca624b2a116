#!/bin/sh
# SimSIMD: the divergences of float64 take three terms of a series for the logarithm, so they are wrong by factors on each machine.
#
# Versions: simsimd 6.5.16, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# kullbackleibler(a, b) is the sum of a * log(a / b), and jensenshannon is made of two of them. For float64, NumPy's default, the logarithm of
# r is u - u^2 / 2 + u^3 / 3 with u = r - 1. Near r = 1 this is close; at 2 it is 0.83 in place of 0.69, at 10 it is 211 in place of 2.3: the
# series converges for ratios up to 2 alone, and a header says so ("Mercator series", simsimd_approximate_log). The divergence of
# two distributions of 64 numbers is a thousand times too large, for pairs of vectors and for cdist.
# float32 and float16 have a better logarithm where there is a kernel for the machine's vector instructions, as AVX-512, and this one where there
# is none. So whoever turns to doubles to be exact gets the wrong numbers, and the same program has other numbers on another machine.
# Furthermore a cosine distance of vectors with NaN is 1, as between orthogonal ones, and of vectors of zeros 0, as between equal ones.
#
# No report of this was found.
#
# Output seen on 2026-11-29:
#   log  0.5   right -0.693   vector instructions float64  -0.667
#   log  1.1   right  0.095   vector instructions float64   0.095
#   log  2.0   right  0.693   vector instructions float64   0.833
#   log 10.0   right  2.303   vector instructions float64 211.500
#   Kullback-Leibler of 64 numbers: right 0.465   float64 692.175
#   Jensen-Shannon of 64 numbers:   right 0.306   float64 0.334
#   cosine distance of NaN: 1.0
#   cosine distance of zeros: 0.0
#   log  0.5   right -0.693   plain instructions  float64  -0.667   float32  -0.667   float16  -0.667
#   log  1.1   right  0.095   plain instructions  float64   0.095   float32   0.095   float16   0.095
#   log  2.0   right  0.693   plain instructions  float64   0.833   float32   0.833   float16   0.833
#   log 10.0   right  2.303   plain instructions  float64 211.500   float32 211.500   float16 211.500
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q simsimd==6.5.16 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import simsimd


def series(r):
    u = r - 1
    return u - u**2 / 2 + u**3 / 3


def divergence(a, b, logarithm):
    return (a * logarithm(a / b)).sum()


def compare(name, kinds):
    """Compare the logarithm that is in the divergence of two numbers with the series."""
    one = np.ones(1)
    for ratio in (0.5, 1.1, 2.0, 10.0):
        a = np.array([ratio])
        found = [simsimd.kullbackleibler(a.astype(kind), one.astype(kind)) / ratio for kind in kinds]
        print(f"log {ratio:4}   right {np.log(ratio):6.3f}   {name}", *(f"{kind} {value:7.3f}  " for kind, value in zip(kinds, found)))
        assert np.allclose(found, series(ratio), rtol=1e-2), f"{name} has changed"


compare("vector instructions", ["float64"])
a, b = np.random.default_rng(0).random((2, 64)) + 0.01
a, b = a / a.sum(), b / b.sum()
middle = (a + b) / 2
right, found = divergence(a, b, np.log), simsimd.kullbackleibler(a, b)
print(f"Kullback-Leibler of 64 numbers: right {right:.3f}   float64 {found:.3f}")
assert np.isclose(found, divergence(a, b, series), rtol=1e-3), "the behaviour has changed"
assert np.isclose(np.array(simsimd.cdist(a[None], b[None], "kullbackleibler")).item(), found), "cdist has changed"
right, found = (np.sqrt((divergence(a, middle, log) + divergence(b, middle, log)) / 2) for log in (np.log, series))
double = simsimd.jensenshannon(a, b)
print(f"Jensen-Shannon of 64 numbers:   right {right:.3f}   float64 {double:.3f}")
assert np.isclose(double, found, rtol=1e-3), "the behaviour has changed"

nan = float("nan")
for name, vector, wanted in (("NaN", [1, nan], 1), ("zeros", [0, 0], 0)):
    other = np.array(vector if name == "zeros" else [1, 1], float)
    distance = simsimd.cosine(np.array(vector, float), other)
    print(f"cosine distance of {name}: {distance}")
    assert distance == wanted, "the behaviour has changed"

for instructions, present in simsimd.get_capabilities().items():
    if present and instructions != "serial":
        simsimd.disable_capability(instructions)
compare("plain instructions ", ["float64", "float32", "float16"])
PYTHON
