#!/bin/sh
# PyTensor: x // 1 of fractions is x and not rounded down, so x // 1 + x % 1 is not x.
#
# Versions: pytensor 3.0.7 (the newest for this Python), numpy 2.4.6, Python 3.11, Linux x86-64.
#
# PyTensor, on which PyMC is built, rewrites an expression before it compiles it. Each expression is compiled with and without rewrites (optimizer=None),
# for float64. Without them NumPy's values come out. With those of "fast_run", which the default mode has as well:
# - A division by 1 is taken out, and // is one of the divisions: 2.7 // 1 is 2.7. Divided by anything else it is rounded down, and integers are right.
#   So x % 1 is still 0.7, and x // 1 + x % 1 is 3.4. The floor of times, ages and positions is commonly written so.
# Nothing warns. No report of this was found.
#
# Output seen on 2026-11-30:
#   x // 1             of [2.7, -0.5, 3.0]         right [2.0, -1.0, 3.0]         rewritten [2.7, -0.5, 3.0]
#   x // 2             of [2.7, -0.5, 3.0]         right [1.0, -1.0, 1.0]         rewritten [1.0, -1.0, 1.0]
#   x % 1              of [2.7, -0.5, 3.0]         right [0.7, 0.5, 0.0]          rewritten [0.7, 0.5, 0.0]
#   x // 1 + x % 1     of [2.7, -0.5, 3.0]         right [2.7, -0.5, 3.0]         rewritten [3.4, 0.0, 3.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q pytensor==3.0.7 numpy==2.4.6
cd "$folder"
PYTENSOR_FLAGS="cxx=,base_compiledir=$folder/cache" "$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode

MODES = {"none": Mode(linker="py", optimizer=None), "fast_run": Mode(linker="py", optimizer="fast_run")}


def check(title, function, reference, numbers, wrong):
    """Compute with and without rewrites; `wrong` has the rewritten values, None where they are right."""
    x = pt.dvector()
    numbers = np.array(numbers)
    right = reference(numbers)
    plain, *rewritten = (pytensor.function([x], function(x), mode=mode)(numbers) for mode in MODES.values())
    shown = [str((values.round(3) + 0.0).tolist()) for values in (right, rewritten[0])]
    print(f"{title:18} of {numbers.tolist()!s:22}   right {shown[0]:24} rewritten {shown[1]}")
    assert np.allclose(plain, right, equal_nan=True), f"{title} without rewrites has changed"
    for found in rewritten:
        assert np.allclose(found, right if wrong is None else wrong, equal_nan=True), f"{title} has changed"


halves = [2.7, -0.5, 3.0]
check("x // 1", lambda x: x // 1.0, lambda x: x // 1, halves, halves)
check("x // 2", lambda x: x // 2.0, lambda x: x // 2, halves, None)
check("x % 1", lambda x: x % 1.0, lambda x: x % 1, halves, None)
check("x // 1 + x % 1", lambda x: x // 1.0 + x % 1.0, lambda x: x, halves, [3.4, 0, 3])
PYTHON
