#!/bin/sh
# Dask: products of matrices of booleans and bytes depend on how the arrays are cut into chunks, and the norm of bytes wraps.
#
# Versions: dask 2026.8.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# dask.array has NumPy's functions for arrays that are cut into chunks, and the chunks are to change nothing but the speed.
# - A product of matrices is summed over chunks with sum, which counts booleans and widens small integers, as NumPy's sum does and its matmul does not.
#   Two booleans that both are true make 2, in int64, if the rows are cut, and True if they are not. ~ of the one is -3, of the other False. int8
#   wraps inside of a chunk and not between chunks: 100 + 100 is -56 or 200. einsum is the same, with the type int64
#   always; tensordot of booleans is int64 always, with 1 or 2 in it.
# - linalg.norm raises bytes to the power in their own type: the length of [200, 100] is 8.9 where 223.6 is right, whatever the chunks are. NumPy
#   converts integers to float64 before. ord=1 and the largest singular value (ord=2) are right.
# - argmin of all numbers gives the place of a least one, not the first one, if another chunk has one as well and its first row is later.
# Nothing warns. No report of these was found.
#
# Output seen on 2026-11-30:
#   flags @ flags          chunks 2        NumPy [[True, True], [True, True]]       bool      Dask [[True, True], [True, True]]       bool
#   flags @ flags          chunks 1        NumPy [[True, True], [True, True]]       bool      Dask [[2, 1], [1, 1]]                   int64
#   ~(flags @ flags)       chunks 2        NumPy [[False, False], [False, False]]   bool      Dask [[False, False], [False, False]]   bool
#   ~(flags @ flags)       chunks 1        NumPy [[False, False], [False, False]]   bool      Dask [[-3, -2], [-2, -2]]               int64
#   tensordot of flags     chunks 2        NumPy [[True, True], [True, True]]       bool      Dask [[1, 1], [1, 1]]                   int64
#   tensordot of flags     chunks 1        NumPy [[True, True], [True, True]]       bool      Dask [[2, 1], [1, 1]]                   int64
#   int8 @ ones            chunks 2        NumPy [[-56, -56], [1, 1]]               int8      Dask [[-56, -56], [1, 1]]               int8
#   int8 @ ones            chunks 1        NumPy [[-56, -56], [1, 1]]               int8      Dask [[200, 200], [1, 1]]               int64
#   einsum ij->i of int8   chunks 2        NumPy [-56, 1]                           int8      Dask [-56, 1]                           int64
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q dask==2026.8.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import dask.array as da
import numpy as np


def check(title, function, array, wanted):
    """Compare Dask with NumPy; `wanted` has Dask's result for each size of chunks, None where it is NumPy's."""
    for chunks, values in wanted.items():
        found = function(da, da.from_array(array, chunks=chunks)).compute()
        right = function(np, array)
        same = np.allclose(found, right) and found.dtype == right.dtype
        shown = [str(x.tolist() if x.dtype.kind != "f" else x.round(2).tolist()) for x in (right, found)]
        print(f"{title:22} chunks {chunks!s:6}   NumPy {shown[0]:34} {right.dtype!s:7}   Dask {shown[1]:34} {found.dtype}")
        assert same if values is None else np.allclose(found, values) and not same, f"{title} has changed"


flags = np.array([[1, 1], [1, 0]], bool)
check("flags @ flags", lambda xp, x: x @ x, flags, {2: None, 1: [[2, 1], [1, 1]]})
check("~(flags @ flags)", lambda xp, x: ~(x @ x), flags, {2: None, 1: [[-3, -2], [-2, -2]]})
check("tensordot of flags", lambda xp, x: xp.tensordot(x, x, 1), flags, {2: [[1, 1], [1, 1]], 1: [[2, 1], [1, 1]]})
small = np.array([[100, 100], [1, 0]], np.int8)
ones = np.ones((2, 2), np.int8)
check("int8 @ ones", lambda xp, x: x @ xp.asarray(ones), small, {2: None, 1: [[200, 200], [1, 1]]})
check("einsum ij->i of int8", lambda xp, x: xp.einsum("ij->i", x), small, {2: [-56, 1], 1: [200, 1]})

lengths = np.array([[200, 100], [3, 4]], np.uint8)
check("norm of uint8", lambda xp, x: xp.linalg.norm(x, axis=1), lengths, {2: [80**0.5, 5], 1: [80**0.5, 5]})
check("norm, ord 3, of uint8", lambda xp, x: xp.linalg.norm(x, 3, axis=1), lengths, {2: [4, 91 ** (1 / 3)]})
check("norm, ord 2, of uint8", lambda xp, x: xp.linalg.norm(x, 2), lengths, {2: None})
check("norm of int64", lambda xp, x: xp.linalg.norm(x, axis=1), lengths.astype(int), {2: None})

ties = np.array([[2, 1, 0], [3, 3, 3], [0, 3, 3]])
check("argmin", lambda xp, x: xp.argmin(x), ties, {3: None, (3, 2): 6, (1, 3): None})
PYTHON
