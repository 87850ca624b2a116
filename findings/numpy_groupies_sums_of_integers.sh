#!/bin/sh
# numpy-groupies: nansum of bytes wraps where sum does not, nansum of booleans is True, and the sum of uint64 is a float32.
#
# Versions: numpy-groupies 0.16.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# numpy_groupies.aggregate(groups, values, func="sum") reduces the values of each group, with NumPy's names. It chooses the
# type of the result by the function, and integers need no function for NaN, so a program that says nansum for all its columns does for these, too:
# - sum of int8 has a wider type if the number of values asks for it. nansum has int8 always: ten times 100 is -24. The mean of both is right. For booleans
#   sum counts, and nansum is "any": two of them make True. nancumsum and cumsum are as nansum.
# - prod and nanprod have the type of the values: 100 * 100 is 16 in int8.
# - sum of uint64 is float32, which has seven digits: 1099511627777 + 5 is 1099511627776. nansum of it is exact.
# NumPy's sum, nansum, cumsum and prod of all small integers have 64 bits, and uint64 stays. The engine for NumPy is the one shown. Nothing warns.
#
# No report of these was found.
#
# Output seen on 2026-11-30:
#   sum       of int8     right 1000                 int64     numpy-groupies 1000               int16
#   mean      of int8     right 100.0                float64   numpy-groupies 100.0              float64
#   nansum    of int8     right 1000                 int64     numpy-groupies -24                int8
#   nansum    of uint8    right 300                  uint64    numpy-groupies 44                 uint8
#   nansum    of uint16   right 80000                uint64    numpy-groupies 14464              uint16
#   nansum    of int64    right 200                  int64     numpy-groupies 200                int64
#   cumsum    of int8     right [100, 200]           int64     numpy-groupies [100, -56]         int8
#   nancumsum of int8     right [100, 200]           int64     numpy-groupies [100, -56]         int8
#   prod      of int8     right 10000                int64     numpy-groupies 16                 int8
#   nanprod   of int8     right 10000                int64     numpy-groupies 16                 int8
#   sum       of bool     right 2                    int64     numpy-groupies 2                  int8
#   nansum    of bool     right 2                    int64     numpy-groupies True               bool
#   cumsum    of bool     right [1, 2]               int64     numpy-groupies [True, True]       bool
#   nansum    of uint64   right 1099511627782        uint64    numpy-groupies 1099511627782      uint64
#   sum       of uint64   right 1099511627782        uint64    numpy-groupies 1099511627776.0    float32
#   sum       of int64    right 1099511627782        int64     numpy-groupies 1099511627782      int64
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q numpy-groupies==0.16.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import numpy_groupies


def check(name, values, dtype, wanted):
    """Aggregate two equal groups; `wanted` is the package's result, or None where it is NumPy's."""
    values = np.array(values, dtype)
    groups = np.repeat([0, 1], len(values))
    found = numpy_groupies.aggregate(groups, np.concatenate([values, values]), func=name)
    right = getattr(np, name)(values)
    if "cum" in name:
        found, right = found[: len(values)], np.asarray(right)
    else:
        assert found[0] == found[1]
        found = found[0]
    print(f"{name:9} of {dtype:6}   right {right.tolist()!s:20} {right.dtype!s:7}   numpy-groupies {found.tolist()!s:18} {found.dtype}")
    assert np.array_equal(found, right if wanted is None else wanted), f"{name} of {dtype} has changed"
    assert np.array_equal(found, right) == (wanted is None), f"{name} of {dtype} has changed"


ten = [100] * 10
check("sum", ten, "int8", None)
check("mean", ten, "int8", None)
check("nansum", ten, "int8", -24)
check("nansum", [200, 100], "uint8", 44)
check("nansum", [40000, 40000], "uint16", 14464)
check("nansum", [100, 100], "int64", None)
check("cumsum", [100, 100], "int8", [100, -56])
check("nancumsum", [100, 100], "int8", [100, -56])
check("prod", [100, 100], "int8", 16)
check("nanprod", [100, 100], "int8", 16)
check("sum", [True, True], "bool", None)
check("nansum", [True, True], "bool", True)
check("cumsum", [True, True], "bool", [True, True])
check("nansum", [2**40 + 1, 5], "uint64", None)
check("sum", [2**40 + 1, 5], "uint64", 2**40)
check("sum", [2**40 + 1, 5], "int64", None)
PYTHON
