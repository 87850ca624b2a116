#!/bin/sh
# numcodecs: Delta, a filter without loss, gives other numbers back behind a large one or a NaN, and Quantize to three digits makes infinity of 100.
#
# Versions: numcodecs 0.16.6, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# numcodecs has the filters of Zarr's chunks: each number goes through encode when it is stored, and through decode when it is read.
# - Delta stores the difference to the number before and adds them up again. Its documentation warns of small integer types, and says nothing
#   of floats, for which the sum is not the number: [1e8, 1, 2, 3] of float32 comes back as [1e8, 0, 1, 2], and so it stays to the end of the
#   chunk. Behind one NaN, as missing values are written, everything is NaN.
# - Quantize(digits) is documented as lossy, with the digits behind the point that are kept. It multiplies by a power of two, in the type
#   of the array: float16, which ends at 65504, is infinite from 64 on with three digits, and from 512 on with two. NumPy's warning of an overflow
#   is all that is said, when the array is written.
# - FixedScaleOffset of int64 to int64 with offset 0 and scale 1 changes nothing that it should: it goes by way of float64, and 2^53 + 1 is 2^53.
# Integers in Delta, and float32 and float64 in Quantize, are right.
#
# NaN in Delta is numcodecs's issue 765; no report of the others was found.
#
# Output seen on 2026-11-29:
#   Delta of int32               [100000000, 1, 2, 3] -> [100000000, 1, 2, 3]
#   Delta of float32             [1.0, 2.0, 3.0, 4.5] -> [1.0, 2.0, 3.0, 4.5]
#   Delta of float32             [100000000.0, 1.0, 2.0, 3.0] -> [100000000.0, 0.0, 1.0, 2.0]
#   Delta of float64             [1e+17, 1.0, 2.0, 3.0] -> [1e+17, 0.0, 1.0, 2.0]
#   Delta of float64             [1.0, 2.0, nan, 4.0, 5.0] -> [1.0, 2.0, nan, nan, nan]
#   Quantize(1) of float32       [3.299999952316284, 100.0, 1000.0, 30000.0] -> [3.3125, 100.0, 1000.0, 30000.0]
#   Quantize(2) of float32       [3.299999952316284, 100.0, 500.0, 1000.0] -> [3.296875, 100.0, 500.0, 1000.0]
#   Quantize(3) of float32       [3.299999952316284, 60.0, 100.0, 1000.0] -> [3.2998046875, 60.0, 100.0, 1000.0]
#   Quantize(1) of float16       [3.30078125, 100.0, 1000.0, 30000.0] -> [3.3125, 100.0, 1000.0, inf]
#   Quantize(2) of float16       [3.30078125, 100.0, 500.0, 1000.0] -> [3.296875, 100.0, 500.0, inf]
#   Quantize(3) of float16       [3.30078125, 60.0, 100.0, 1000.0] -> [3.30078125, 60.0, inf, inf]
#   FixedScaleOffset of int64    [9007199254740991, -5] -> [9007199254740991, -5]
#   FixedScaleOffset of int64    [9007199254740993, 1152921504606846977] -> [9007199254740992, 1152921504606846976]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q numcodecs==0.16.6 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numcodecs
import numpy as np


def store(codec, array):
    """What comes back of an array."""
    return np.asarray(codec.decode(codec.encode(array))).reshape(array.shape)


def show(title, array, found, equal, wrong):
    print(f"{title:28} {array.tolist()} -> {found.tolist()}")
    assert equal != wrong, f"{title}: numcodecs has changed"


for kind, values, wrong in (
    (np.int32, [10**8, 1, 2, 3], False),
    (np.float32, [1, 2, 3, 4.5], False),
    (np.float32, [1e8, 1, 2, 3], True),
    (np.float64, [1e17, 1, 2, 3], True),
    (np.float64, [1, 2, np.nan, 4, 5], True),
):
    array = np.array(values, kind)
    found = store(numcodecs.Delta(array.dtype), array)
    show(f"Delta of {array.dtype}", array, found, np.array_equal(found, array, equal_nan=kind != np.int32), wrong)

for kind in (np.float32, np.float16):
    for digits, values in ((1, [3.3, 100, 1000, 30000]), (2, [3.3, 100, 500, 1000]), (3, [3.3, 60, 100, 1000])):
        array = np.array(values, kind)
        found = store(numcodecs.Quantize(digits, array.dtype), array)
        close = np.abs(found.astype(float) - array).max() <= 0.5 * 10.0**-digits
        show(f"Quantize({digits}) of {array.dtype}", array, found, close, kind == np.float16)
        assert np.isinf(found[-1]) == (kind == np.float16), "Quantize has changed"

for values, wrong in (([2**53 - 1, -5], False), ([2**53 + 1, 2**60 + 1], True)):
    array = np.array(values)
    found = store(numcodecs.FixedScaleOffset(offset=0, scale=1, dtype="i8", astype="i8"), array)
    show("FixedScaleOffset of int64", array, found, np.array_equal(found, array), wrong)
PYTHON
