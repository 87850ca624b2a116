#!/bin/sh
# Voyager: get_distance of two vectors by inner product depends on the vectors that the index holds, and is far below what a query gives.
#
# Versions: voyager 2.2.3, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Index.get_distance(a, b) is "the distance between two provided vectors"; neither has to be in the index. With Space.InnerProduct the
# distance is 1 - a @ b, and query returns exactly that. Inside, each vector that is added gets one more dimension, the root of what its squared
# norm lacks to the largest one so far, so that a nearest neighbour can be found by Euclidean distance; vectors that are asked for get 0 there.
# get_distance gives both of its vectors the added dimension (and cuts it to a whole number), so the product of the two is subtracted as well:
# - In an empty index, and one with small vectors, it is right. After a vector of a larger norm was added it is another number, for the same a
#   and b, and the distance of orthogonal vectors can be anything below 1.
# - Two distances cannot be compared, as the part that is subtracted depends on both norms; the nearer of two vectors by get_distance is another
#   one than by query.
# Euclidean and Cosine are right and do not depend on the index. Nothing warns.
#
# The added dimension came with voyager's pull request 25, which speaks of queries; no report of get_distance was found.
#
# Output seen on 2026-11-29:
#   InnerProduct 0 held   right   1.00  -1.50   get_distance   1.00  -1.50
#   InnerProduct 1 held   right   1.00  -1.50   get_distance   1.00  -1.50
#   InnerProduct 2 held   right   1.00  -1.50   get_distance  -8.00  -1.50   query   1.00  -1.50
#   InnerProduct 3 held   right   1.00  -1.50   get_distance  -8.00  -1.50   query   1.00  -1.50
#   InnerProduct 4 held   right   1.00  -1.50   get_distance -24.00 -21.50   query   1.00  -1.50
#   Euclidean    0 held   right   4.00   9.25   get_distance   4.00   9.25
#   Euclidean    4 held   right   4.00   9.25   get_distance   4.00   9.25   query   4.00   9.25
#   Cosine       0 held   right   1.00   0.49   get_distance   1.00   0.49
#   Cosine       4 held   right   1.00   0.49   get_distance   1.00   0.49   query   1.00   0.49
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q voyager==2.2.3 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
from voyager import Index, Space

a, b, c = (np.array(values, np.float32) for values in ([1, 0, 1, 0], [0, 1, 0, 1], [1.5, 0, 1, 3]))
held = np.array([b, c, [3, 0, 0, 0], [0, 6, 0, 0]], np.float32)

for space, right in (
    (Space.InnerProduct, lambda x, y: 1 - x @ y),
    (Space.Euclidean, lambda x, y: ((x - y) ** 2).sum()),
    (Space.Cosine, lambda x, y: 1 - x @ y / np.sqrt((x @ x) * (y @ y))),
):
    for count in range(len(held) + 1):
        index = Index(space, num_dimensions=4)
        if count:
            index.add_items(held[:count])
        found = [index.get_distance(a, y) for y in (b, c)]
        wanted = [float(right(a, y)) for y in (b, c)]
        queried = {}
        if count >= 2:
            labels, distances = index.query(a, k=count)
            queried = dict(zip(labels.tolist(), distances.tolist()))
            assert np.allclose([queried[0], queried[1]], wanted, atol=1e-5), "query has changed"
        if space == Space.InnerProduct or count in (0, len(held)):
            text = "" if not queried else f"   query {queried[0]:6.2f} {queried[1]:6.2f}"
            print(f"{space.name:12} {count} held   right {wanted[0]:6.2f} {wanted[1]:6.2f}   get_distance {found[0]:6.2f} {found[1]:6.2f}{text}")
        wrong = space == Space.InnerProduct and count >= 2
        assert np.allclose(found, wanted, atol=1e-5) != wrong, "the behaviour has changed"
    if space == Space.InnerProduct:
        assert wanted[1] < wanted[0] and found[0] < found[1], "the order has changed"
PYTHON
