#!/bin/sh
# USearch: an index of bytes divides each vector by its length, also for Euclidean distances and inner products, so other neighbours are the nearest.
#
# Versions: usearch 2.26.6, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Index(dtype="i8") holds float vectors in one byte for each number, for any metric. Each vector is divided by its own length, times 127
# (u8: 255, and negative numbers become 0). For "cos" that changes nothing. For "l2sq" and "ip" the length is what they are about, and it is gone:
# - The nearest point to (10, 0) among (11, 2), (1000, 0) and (12, -9) is (1000, 0), at the distance 0. Exact search (exact=True) and the graph agree, as
#   both read the bytes. get() returns (1, 0) for (1000, 0), so the rule is inverted only up to the length.
# - The distances are those of the bytes: 16129 times as large for "l2sq", and 1 minus the product of bytes for "ip", where 1 - a @ b is -9999
#   in one and -16128 in the other. Two indexes cannot be merged by their distances.
# f16 and bf16 keep the lengths and have NumPy's order. Arrays that are int8 already are taken as they are, so the same
# numbers as float32 and as int8 make two different indexes. Nothing warns.
#
# Known in part: issue 405 of USearch (closed) has other matches by inner product in i8, and distances "scaled differently".
#
# Output seen on 2026-11-30:
#   l2sq NumPy      nearest [11.  2.]    [5.0, 980100.0, 85.0]
#   l2sq f32        nearest [11.  2.]    [5.0, 980100.0, 85.0]
#   l2sq f16        nearest [11.  2.]    [5.0, 980100.0, 85.0]
#   l2sq bf16       nearest [11.  2.]    [5.0, 980100.0, 85.0]
#   l2sq i8         nearest [1000.    0.] [493.0, 0.0, 6452.0]
#   l2sq u8         nearest [1000.    0.] [2050.0, 0.0, 2601.0]
#   ip   NumPy      nearest [1000.    0.] [-109.0, -9999.0, -119.0]
#   ip   f32        nearest [1000.    0.] [-109.0, -9999.0, -119.0]
#   ip   f16        nearest [1000.    0.] [-109.0, -9999.0, -119.0]
#   ip   bf16       nearest [1000.    0.] [-109.0, -9999.0, -119.0]
#   ip   i8         nearest [1000.    0.] [-15747.0, -16128.0, -12826.0]
#   ip   u8         nearest [1000.    0.] [-63749.0, -65024.0, -52019.0]
#   cos  NumPy      nearest [1000.    0.] [0.019999999552965164, 0.0, 0.20000000298023224]
#   cos  f32        nearest [1000.    0.] [0.019999999552965164, 0.0, 0.20000000298023224]
#   cos  f16        nearest [1000.    0.] [0.019999999552965164, 0.0, 0.20000000298023224]
#   cos  bf16       nearest [1000.    0.] [0.019999999552965164, 0.0, 0.20000000298023224]
#   cos  i8         nearest [1000.    0.] [0.019999999552965164, 0.0, 0.20000000298023224]
#   cos  u8         nearest [12. -9.]    [0.019999999552965164, 0.0, 0.0]
#   l2sq i8 of float32  arrays, nearest [100   0]
#   l2sq i8 of int8     arrays, nearest [11  2]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q usearch==2.26.6 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from usearch.index import Index

POINTS = np.array([[11, 2], [1000, 0], [12, -9]], np.float32)
QUESTION = np.array([10, 0], np.float32)
RIGHT = {
    "l2sq": ((POINTS - QUESTION) ** 2).sum(axis=1),
    "ip": 1 - POINTS @ QUESTION,
    "cos": 1 - POINTS @ QUESTION / np.linalg.norm(POINTS, axis=1) / np.linalg.norm(QUESTION),
}


def ask(metric, dtype, points=POINTS, question=QUESTION):
    """Return the distance of each point, after checking that exact and approximate search agree."""
    index = Index(ndim=2, metric=metric, dtype=dtype)
    index.add(np.arange(len(points)), points)
    exact, found = index.search(question, len(points), exact=True), index.search(question, len(points))
    assert np.array_equal(exact.keys, found.keys) and np.array_equal(exact.distances, found.distances)
    return found.distances[np.argsort(found.keys)], index


units = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
unit = QUESTION / np.linalg.norm(QUESTION)
for metric, right in RIGHT.items():
    print(f"{metric:4} NumPy      nearest {POINTS[right.argmin()]!s:12} {right.round(2).tolist()}")
    for dtype in ("f32", "f16", "bf16", "i8", "u8"):
        found, index = ask(metric, dtype)
        print(f"{metric:4} {dtype:10} nearest {POINTS[found.argmin()]!s:12} {found.round(2).tolist()}")
        same = np.array_equal(np.argsort(found), np.argsort(right)) and np.allclose(found, right, atol=0.01)
        assert same == (dtype not in ("i8", "u8") or (metric, dtype) == ("cos", "i8")), f"{metric} of {dtype} has changed"
        if dtype == "i8" and metric != "cos":
            a, b = (np.trunc(127 * x).astype(int) for x in (units, unit))
            of_bytes = ((a - b) ** 2).sum(axis=1) if metric == "l2sq" else 1 - a @ b
            assert np.allclose(found, of_bytes, atol=400), "the behaviour has changed"
            assert np.allclose(index.get(1, dtype=np.float32), [1, 0], atol=0.01), "the behaviour has changed"

whole = np.array([[11, 2], [100, 0], [12, -9]])
for dtype in (np.float32, np.int8):
    found, _ = ask("l2sq", "i8", whole.astype(dtype), QUESTION.astype(dtype))
    print(f"l2sq i8 of {np.dtype(dtype).name:8} arrays, nearest {whole[found.argmin()]}")
    assert found.argmin() == (1 if dtype == np.float32 else 0), "the behaviour has changed"
PYTHON
