#!/bin/sh
# Awkward Array: max of numbers with a NaN is NaN over everything, leaves it out along an axis, and is -infinity where NaN is all there is.
#
# Versions: awkward 2.14.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# ak.max "returns the maximum value in each group", and ak.nanmax is the one that "treats nan values as missing"; sum and mean have
# such a pair as well, and keep NaN.
# - With axis=None, NaN is kept by max and min, as in NumPy.
# - Along an axis, the kernel compares each number with the best one so far, beginning with -infinity, and a comparison with NaN is false. So max
#   leaves NaN out as ak.nanmax does, and the largest of the largest of each list is not the largest of all.
# - A list of NaN alone has the maximum -infinity and the minimum infinity, numbers that are nowhere in the array. ak.nanmax has None there, as for
#   a list without numbers. ptp, the difference of both, is -infinity.
# - argmax begins with the first number and not with -infinity: a NaN in the first place stays the answer, any other is left out. So max of
#   [nan, 5] is 5 and argmax 0, where the NaN is. With axis=None it is the other way round: max is NaN, and at argmax is a number.
# np.max and np.argmax of an Awkward array call these. Nothing warns. No report was found.
#
# Output seen on 2026-11-29:
#   max     of all  nan   of each list [2.0, 5.0, None, -inf]
#   min     of all  nan   of each list [1.5, 5.0, None, inf]
#   ptp     of all  nan   of each list [0.5, 0.0, None, -inf]
#   nanmax  of all  5.0   of each list [2.0, 5.0, None, None]
#   argmax  of all  4.0   of each list [1, 0, None, 0]
#   sum     of all  nan   of each list [nan, nan, 0.0, nan]
#   np.max nan, np.argmax 4, there 5.0; largest of the largest 5.0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q awkward==2.14.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import awkward
import numpy as np

nan, infinity = float("nan"), float("inf")
lists = awkward.Array([[1.5, 2.0, nan], [nan, 5.0], [], [nan]])
KEPT = {"sum": (nan, [nan, nan, 0.0, nan])}
WANTED = {
    "max": (nan, [2.0, 5.0, None, -infinity]),
    "min": (nan, [1.5, 5.0, None, infinity]),
    "ptp": (nan, [0.5, 0.0, None, -infinity]),
    "nanmax": (5.0, [2.0, 5.0, None, None]),
    "argmax": (4, [1, 0, None, 0]),
} | KEPT


def same(found, wanted):
    return found is None if wanted is None else found is not None and np.isclose(found, wanted, equal_nan=True)


for name, (every, each) in WANTED.items():
    function = getattr(awkward, name)
    found, rows = function(lists, axis=None), awkward.to_list(function(lists, axis=1))
    print(f"{name:7} of all {float(found):4}   of each list {rows}")
    assert same(found, every) and all(map(same, rows, each)), f"{name} has changed"

flat = np.array([1.5, 2.0, nan, nan, 5.0, nan])
assert np.isnan(flat.max()) and flat.argmax() == 2
largest, place = np.max(lists), np.argmax(lists)
print(f"np.max {largest}, np.argmax {place}, there {flat[place]}; largest of the largest {awkward.max(awkward.max(lists, axis=1), axis=None)}")
assert np.isnan(largest) and place == 4 and awkward.max(awkward.max(lists, axis=1), axis=None) == 5
assert np.isnan(np.array([[1.5, nan], [nan, 5]]).max(axis=1)).all()
PYTHON
