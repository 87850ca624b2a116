#!/bin/sh
# Polars: the mean of two columns of small integers is computed in their type, so the mean of 100 and 100 is -28, and so are sums and dots.
#
# Versions: polars 2.1.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Polars widens small integers where it adds many of them: sum of Int8 and UInt8 is an Int64, "to prevent overflow issues" as its documentation
# says, and so are cum_sum and product; mean is a Float64. Along a row it does not:
# - mean_horizontal is a Float64 as well. The sum behind it is one of the columns' own type: the mean of 100 and 100 in Int8 is -28, and that of 200
#   and 100 in UInt8 is 22. Int16, Int32 and unsigned ones wrap in the same way at their ends; the mean is not even between its numbers.
# - sum_horizontal wraps, and its type is that of the columns.
# - dot of 8 and 16 bits is an Int64, as sum is, but each product is one of the small type: [100, 3] by itself is 25, and in Int64 10009.
# - diff of UInt8 is an Int16, and that of Int8 an Int8: from 100 to -100 it is 56.
# The engine for large data ("streaming") has the same values. Lists are right: list.mean and list.sum of the same numbers. Nothing warns, and
# the pages of mean_horizontal and dot do not speak of it.
#
# sum_horizontal is polars's issue 21515, and pull request 28829 says of arr.dot that it multiplies in the small type. No report of mean_horizontal
# was found.
#
# Output seen on 2026-11-29:
#   Int8    mean right [100.0, -95.0, 3.5]   list.mean [100.0, -95.0, 3.5]   mean_horizontal [-28.0, 33.0, 3.5]   dot right 19012, dot 68 Int64
#   UInt8   mean right [150.0, 250.0, 3.5]   list.mean [150.0, 250.0, 3.5]   mean_horizontal [22.0, 122.0, 3.5]   dot right 82512, dot 80 Int64
#   Int16   mean right [30000.0, -25000.0, 3.5]   list.mean [30000.0, -25000.0, 3.5]   mean_horizontal [-2768.0, 7768.0, 3.5]   dot right 1500000012, dot 12044 Int64
#   UInt16  mean right [60000.0, 35000.0, 3.5]   list.mean [60000.0, 35000.0, 3.5]   mean_horizontal [27232.0, 2232.0, 3.5]   dot right 4600000012, dot 93708 Int64
#   Int32   mean right [2147483647.0, -1073741826.5, 3.5]   list.mean [2147483647.0, -1073741826.5, 3.5]   mean_horizontal [-1.0, 1073741821.5, 3.5]   dot right 4611686024869838861, dot -2147483635 Int32
#   Int8    diff of [100, -100]   56 Int8
#   UInt8   diff of [200, 0]   -200 Int16
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q polars==2.1.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import polars as pl

COLUMNS = {
    pl.Int8: ([100, -100, 3], [100, -90, 4]),
    pl.UInt8: ([200, 250, 3], [100, 250, 4]),
    pl.Int16: ([30000, -30000, 3], [30000, -20000, 4]),
    pl.UInt16: ([60000, 50000, 3], [60000, 20000, 4]),
    pl.Int32: ([2**31 - 1, -(2**31), 3], [2**31 - 1, -5, 4]),
}


def numbers(values):
    return [float(value) for value in values]


for kind, columns in COLUMNS.items():
    frame = pl.DataFrame(dict(zip("ab", columns)), schema={"a": kind, "b": kind})
    wide = np.array(columns, np.int64)
    narrow = wide.astype(frame["a"].to_numpy().dtype)
    mean, total = pl.mean_horizontal("a", "b").alias("mean"), pl.sum_horizontal("a", "b").alias("sum")
    lists = pl.concat_list("a", "b").list
    found = frame.select(mean, total, lists.mean().alias("list mean"), pl.col("a").dot("b").alias("dot"), pl.col("a").sum().alias("down"))
    streamed = frame.lazy().select(mean, total).collect(engine="streaming")
    assert streamed.equals(found.select("mean", "sum"))
    right = wide.mean(0)
    print(
        f"{kind.__name__:7} mean right {numbers(right)}   list.mean {numbers(found['list mean'])}   mean_horizontal {numbers(found['mean'])}"
        f"   dot right {int(wide[0] @ wide[1])}, dot {found['dot'][0]} {found['dot'].dtype}"
    )
    assert np.array_equal(found["list mean"], right) and found["down"][0] == wide[0].sum()
    assert found["mean"].dtype == pl.Float64 and np.array_equal(found["mean"], narrow.sum(0, dtype=narrow.dtype) / 2), "Polars has changed"
    assert np.array_equal(found["sum"], narrow.sum(0, dtype=narrow.dtype)) and found["sum"].dtype == kind, "Polars has changed"
    assert (np.array(found["mean"])[:2] != right[:2]).all() and found["mean"][2] == 3.5, "Polars has changed"
    if kind in (pl.Int8, pl.UInt8):
        products = narrow[0] * narrow[1]
        assert found["dot"].dtype == pl.Int64 and found["dot"][0] == products.sum(dtype=np.int64) != wide[0] @ wide[1], "Polars has changed"

for kind, values in ((pl.Int8, [100, -100]), (pl.UInt8, [200, 0])):
    step = pl.Series(values, dtype=kind).diff()
    print(f"{kind.__name__:7} diff of {values}   {step[1]} {step.dtype}")
    assert (step[1], step.dtype) == ((56, pl.Int8) if kind == pl.Int8 else (-200, pl.Int16)), "Polars has changed"
PYTHON
