#!/bin/sh
# Polars: floor and ceil of Float16 return the numbers as they are.
#
# Versions: polars 2.1.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Float16 is the newest of the types for fractions. round and truncate of it are right, and so is x // 1; floor and ceil do nothing: floor of 1.5 is 1.5,
# and of -2.5 it is -2.5. Float32 and Float64 are right. It is so for series, expressions, and both engines, in memory and "streaming". A program
# that makes groups of a value's floor gets a group for each value. The page of floor says "rounds down to the nearest integer value", of
# "floating point" columns. No error, no warning.
#
# No report of this was found.
#
# Output seen on 2026-11-29:
#   Float64   floor     [1.0, -3.0, 7.0, 0.0, 3.0]
#   Float64   ceil      [2.0, -2.0, 8.0, 1.0, 3.0]
#   Float64   round     [2.0, -2.0, 8.0, 0.0, 3.0]
#   Float64   truncate  [1.0, -2.0, 7.0, 0.0, 3.0]
#   Float64   x // 1    [1.0, -3.0, 7.0, 0.0, 3.0]
#   Float32   floor     [1.0, -3.0, 7.0, 0.0, 3.0]
#   Float32   ceil      [2.0, -2.0, 8.0, 1.0, 3.0]
#   Float32   round     [2.0, -2.0, 8.0, 0.0, 3.0]
#   Float32   truncate  [1.0, -2.0, 7.0, 0.0, 3.0]
#   Float32   x // 1    [1.0, -3.0, 7.0, 0.0, 3.0]
#   Float16   floor     [1.5, -2.5, 7.75, 0.25, 3.0]
#   Float16   ceil      [1.5, -2.5, 7.75, 0.25, 3.0]
#   Float16   round     [2.0, -2.0, 8.0, 0.0, 3.0]
#   Float16   truncate  [1.0, -2.0, 7.0, 0.0, 3.0]
#   Float16   x // 1    [1.0, -3.0, 7.0, 0.0, 3.0]
#   different floors of 0, 0.25, 0.5 and 0.75: 1 in Float32, 4 in Float16
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q polars==2.1.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import polars as pl

values = np.array([1.5, -2.5, 7.75, 0.25, 3])
COMPUTED = {
    "floor": (lambda x: x.floor(), np.floor),
    "ceil": (lambda x: x.ceil(), np.ceil),
    "round": (lambda x: x.round(), np.round),
    "truncate": (lambda x: x.truncate(), np.trunc),
    "x // 1": (lambda x: x // 1, np.floor),
}

for kind in (pl.Float64, pl.Float32, pl.Float16):
    series = pl.Series("x", values).cast(kind)
    assert np.array_equal(series.cast(pl.Float64), values)
    for name, (compute, reference) in COMPUTED.items():
        lazy = series.to_frame().lazy().select(compute(pl.col("x")))
        ways = [compute(series), lazy.collect()["x"], lazy.collect(engine="streaming")["x"]]
        found = np.array(ways[0].cast(pl.Float64))
        assert all(np.array_equal(way.cast(pl.Float64), found) for way in ways)
        print(f"{kind.__name__}   {name:9} {found.tolist()}")
        wrong = kind == pl.Float16 and name in ("floor", "ceil")
        assert np.array_equal(found, values if wrong else reference(values)), "Polars has changed"

print("different floors of 0, 0.25, 0.5 and 0.75:", end=" ")
parts = pl.Series("x", np.arange(0, 1, 0.25))
found = {kind: parts.cast(kind).floor().n_unique() for kind in (pl.Float32, pl.Float16)}
print(", ".join(f"{count} in {kind.__name__}" for kind, count in found.items()))
assert found == {pl.Float32: 1, pl.Float16: 4}, "Polars has changed"
PYTHON
