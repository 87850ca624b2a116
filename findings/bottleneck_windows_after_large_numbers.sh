#!/bin/sh
# Bottleneck: after one large number all windows of move_sum, move_mean and move_std are wrong, after an infinite one NaN; nansum of int32 wraps.
#
# Versions: bottleneck 1.6.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# move_sum adds each new number to the sum of a window and subtracts the one that leaves it.
# - A number of 1e16 rounds the small ones away while it is in the window. When it has left, they are missing for ever: each later sum of 1 and 1
#   is 0, and the mean 0. move_var and move_std are off by a factor from then on.
# - After an infinite number all later windows are NaN (infinity minus infinity), as is known of such sums. move_max, move_min and
#   move_median are right again when it has left.
# - nansum of int32 over all axes is computed in 32 bits, and returned as int64: twice 2147483647 is -2. Along an axis it wraps as well, as int32. The
#   mean of the same array is right, and NumPy's sum of int32 is one of int64.
# bottleneck.slow, the package's own functions for what the fast ones do not take ("for unaccelerated dtypes"), are right in all rows. So byte order
# decides: float64 of the other byte order goes to the slow ones, and has other sums. No error, no warning.
#
# Known in part: issue 480 of bottleneck has sums of positive numbers that become negative, and issue 83, closed in 2014, nansum of int32. No
# report of the windows behind one large number was found.
#
# Output seen on 2026-11-29:
#   move_sum    behind 5      right 2 2 3 5            Bottleneck 2 2 3 5                slow 2 2 3 5
#   move_mean   behind 5      right 1 1 1.5 2.5        Bottleneck 1 1 1.5 2.5            slow 1 1 1.5 2.5
#   move_var    behind 5      right 0 0 0.25 0.25      Bottleneck 0 0 0.25 0.25          slow 0 0 0.25 0.25
#   move_std    behind 5      right 0 0 0.5 0.5        Bottleneck 0 0 0.5 0.5            slow 0 0 0.5 0.5
#   move_max    behind 5      right 1 1 2 3            Bottleneck 1 1 2 3                slow 1 1 2 3
#   move_median behind 5      right 1 1 1.5 2.5        Bottleneck 1 1 1.5 2.5            slow 1 1 1.5 2.5
#   move_sum    behind 1e+16  right 2 2 3 5            Bottleneck 0 0 1 3                slow 2 2 3 5
#   move_mean   behind 1e+16  right 1 1 1.5 2.5        Bottleneck 0 0 0.5 1.5            slow 1 1 1.5 2.5
#   move_var    behind 1e+16  right 0 0 0.25 0.25      Bottleneck 0 0 1.25 3.25          slow 0 0 0.25 0.25
#   move_std    behind 1e+16  right 0 0 0.5 0.5        Bottleneck 0 0 1.118 1.803        slow 0 0 0.5 0.5
#   move_sum    behind inf    right 2 2 3 5            Bottleneck nan nan nan nan        slow 2 2 3 5
#   move_mean   behind inf    right 1 1 1.5 2.5        Bottleneck nan nan nan nan        slow 1 1 1.5 2.5
#   move_var    behind inf    right 0 0 0.25 0.25      Bottleneck nan nan nan nan        slow 0 0 0.25 0.25
#   move_std    behind inf    right 0 0 0.5 0.5        Bottleneck nan nan nan nan        slow 0 0 0.5 0.5
#   nansum of int32, axis None   NumPy 4294967304   Bottleneck 8 int64   slow 4294967304
#   nansum of int32, axis 0   NumPy [4294967294, 10]   Bottleneck [-2, 10] int32   slow [4294967294, 10]
#   nansum of int32, axis 1   NumPy [2147483652, 2147483652]   Bottleneck [-2147483644, -2147483644] int32   slow [2147483652, 2147483652]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q bottleneck==1.6.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import bottleneck as bn
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

WINDOW = 2
RIGHT = {"move_sum": np.sum, "move_mean": np.mean, "move_var": np.var, "move_std": np.std, "move_max": np.max, "move_median": np.median}


def text(array):
    return " ".join(f"{value:.4g}" for value in array)


def same(found, right):
    return np.allclose(found, right, rtol=1e-9, atol=1e-9, equal_nan=True)


for first, names in ((5.0, ()), (1e16, tuple(RIGHT)[:4]), (np.inf, tuple(RIGHT)[:4])):
    array = np.array([first, 1, 1, 1, 2, 3])
    for name, function in RIGHT.items():
        # The windows behind the first number.
        right = function(sliding_window_view(array, WINDOW)[1:], axis=-1)
        found = getattr(bn, name)(array, WINDOW)[WINDOW:]
        slow = getattr(bn.slow, name)(array, WINDOW)[WINDOW:]
        swapped = getattr(bn, name)(array.astype(">f8"), WINDOW)[WINDOW:]
        if name in names or first == 5:
            print(f"{name:11} behind {first:<6g} right {text(right):18} Bottleneck {text(found):22} slow {text(slow)}")
        assert same(slow, right) and same(swapped, right), "bottleneck.slow has changed"
        assert same(found, right) == (name not in names), f"{name} {first}: Bottleneck has changed"

large = np.array([[2**31 - 1, 5], [2**31 - 1, 5]], np.int32)
for axis in (None, 0, 1):
    right, found, slow = large.sum(axis), bn.nansum(large, axis), bn.slow.nansum(large, axis)
    kind = np.asarray(found).dtype
    print(f"nansum of int32, axis {axis}   NumPy {np.asarray(right).tolist()}   Bottleneck {np.asarray(found).tolist()} {kind}   slow {np.asarray(slow).tolist()}")
    assert np.array_equal(slow, right)
PYTHON
