#!/bin/sh
# Blosc2: the sum of a + a along an axis is 800 and the sum of all is -672, and argmax with a NaN depends on how the array is cut into chunks.
#
# Versions: blosc2 4.14.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# - a holds 100 in int8, four rows of three. a + a wraps to -56, as in NumPy, and so does its sum over everything, -672. The sum over
#   an axis, max, mean and std do not wrap: these are computed in 32 bits. The sum of the sums is 2400, and the mean along an axis 200
#   for numbers that are -56 each. For bool, a + a is or, whose sum along an axis counts once and the sum of all twice.
# - argmax and argmin of numbers with a NaN give its place in NumPy, where max is NaN as well. Here max is NaN, and argmax the place of some number
#   or the first one. Which one, changes with the chunks, of which a user need not know: blosc2 chooses them by the machine's caches.
# Nothing warns. No report of these was found.
#
# Output seen on 2026-11-29:
#   a + a of int8, sum    NumPy   -672 [-224, -224, -224]   blosc2   -672 [800, 800, 800] [600, 600, 600, 600]
#   a + a of int8, max    NumPy    -56 [-56, -56, -56]   blosc2    -56 [200, 200, 200] [200, 200, 200, 200]
#   a + a of int8, mean   NumPy  -56.0 [-56.0, -56.0, -56.0]   blosc2  -56.0 [200.0, 200.0, 200.0] [200.0, 200.0, 200.0, 200.0]
#   a + a of bool, sum    all 6   along an axis [2, 1]   of its values 3
#   NaN at 25, chunks (7, 11): max nan   argmax 0   argmin 0
#   NaN at 25, chunks (3, 4): max nan   argmax 47   argmin 69
#   NaN at 25, chunks (2, 11): max nan   argmax 47   argmin 12
#   NaN at 25, chunks (7, 2): max nan   argmax 74   argmin 12
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q blosc2==4.14.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import blosc2
import numpy as np

bytes_ = np.full((4, 3), 100, np.int8)
array = blosc2.asarray(bytes_)
twice = bytes_ + bytes_
for name in ("sum", "max", "mean"):
    values = {}
    for axis in (None, 0, 1):
        found = np.asarray(getattr(array + array, name)(axis=axis))
        text = blosc2.lazyexpr(f"{name}(a + a{'' if axis is None else f', axis={axis}'})", {"a": array}).compute()
        assert np.array_equal(np.asarray(text[()]), found)
        values[axis] = found.tolist()
        right = getattr(twice, name)(axis=axis)
        assert np.array_equal(found, right) == (axis is None), f"{name} has changed"
    print(f"a + a of int8, {name:4}   NumPy {getattr(twice, name)():6} {getattr(twice, name)(axis=0).tolist()}   blosc2 {values[None]:6} {values[0]} {values[1]}")
assert np.array_equal((array + array)[:], twice)
flags = blosc2.asarray(np.array([[True, False], [True, True]]))
both = flags + flags
print(f"a + a of bool, sum    all {int(both.sum())}   along an axis {np.asarray(both.sum(axis=0)).tolist()}   of its values {int(both[:].sum())}")
assert both.sum() == 6 and np.array_equal(both.sum(axis=0), [2, 1]) and both[:].sum() == 3, "sums of bool have changed"

numbers = np.random.default_rng(0).normal(size=(7, 11))
numbers[2, 3] = np.nan
seen = set()
for chunks in ((7, 11), (3, 4), (2, 11), (7, 2)):
    cut = blosc2.asarray(numbers, chunks=chunks, blocks=(2, 2))
    largest, places = blosc2.max(cut), [int(blosc2.argmax(cut)), int(blosc2.argmin(cut))]
    print(f"NaN at {np.argmax(numbers)}, chunks {chunks}: max {float(largest)}   argmax {places[0]}   argmin {places[1]}")
    assert np.isnan(largest) and np.argmax(numbers) == 25 and 25 not in places, "argmax has changed"
    seen.add(tuple(places))
assert len(seen) > 1, "the chunks have no influence any more"
clean = np.nan_to_num(numbers)
assert blosc2.argmax(blosc2.asarray(clean, chunks=(3, 4), blocks=(2, 2))) == clean.argmax()
PYTHON
