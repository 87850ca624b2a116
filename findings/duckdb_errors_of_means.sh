#!/bin/sh
# DuckDB: sem, the standard error of the mean, divides by n where its own stddev divides by n - 1, so it is too small, and 0 for a single number.
#
# Versions: duckdb 2.0.1, Python 3.11, Linux x86-64.
#
# sem(x) "returns the standard error of the mean", says duckdb_functions(). That is the sample's standard deviation by the root of n: what is known
# of the mean from these numbers alone. SciPy's and pandas's sem are so, and so are stddev and variance in DuckDB itself, which
# divide by n - 1, and skewness and kurtosis, which have their corrections for samples.
# - sem(x) is stddev_pop(x) / sqrt(count(x)): for two numbers it is 0.71 of the right one, for three 0.82, for ten 0.95. Runs of
#   benchmarks, replicates of an experiment and folds of a validation come in threes, fives and tens; an interval of plus and minus 1.96 sem,
#   beside stddev / sqrt(count) in the next query, is so narrower than it ought to be.
# - One number has the error 0, as if the mean were exact: a group of one looks like the surest of all. stddev is NULL there, and pandas's sem NaN.
# A window (OVER) has the same values, and DECIMAL and integers too. Nothing warns. No report of it was found.
#
# Output seen on 2026-12-01:
#   [10.0, 12.0]                   stddev / sqrt(n) 1.0000   Python 1.0000   sem 0.7071   of it 0.707
#   [1.0, 2.0, 3.0]                stddev / sqrt(n) 0.5774   Python 0.5774   sem 0.4714   of it 0.816
#   [0.81, 0.79, 0.84, 0.8, 0.86]  stddev / sqrt(n) 0.0130   Python 0.0130   sem 0.0117   of it 0.894
#   [7.0]                          stddev / sqrt(n) None   sem 0.0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q duckdb==2.0.1
"$folder/env/bin/python" - <<'PYTHON'
import math
import statistics

import duckdb

description = duckdb.sql("SELECT DISTINCT description FROM duckdb_functions() WHERE function_name = 'sem'").fetchall()
assert description == [("Returns the standard error of the mean",)], description

for values in ([10.0, 12.0], [1.0, 2.0, 3.0], [0.81, 0.79, 0.84, 0.80, 0.86], [7.0]):
    numbers = "(VALUES " + ", ".join(f"(CAST({value} AS DOUBLE))" for value in values) + ") t(x)"
    query = "SELECT sem(x), stddev(x) / sqrt(count(x)), stddev_pop(x) / sqrt(count(x)), sem(x::DECIMAL(9, 2))"
    found, right, population, decimal = duckdb.sql(f"{query} FROM {numbers}").fetchall()[0]
    windowed = duckdb.sql(f"SELECT sem(x) OVER () FROM {numbers}").fetchall()
    assert all(math.isclose(other, found, abs_tol=1e-12) for other in (decimal, *(row[0] for row in windowed)))
    assert math.isclose(found, population), "DuckDB has changed"
    if len(values) == 1:
        print(f"{values!s:30} stddev / sqrt(n) {right}   sem {found}")
        assert found == 0 and right is None, "DuckDB has changed"
        continue
    by_python = statistics.stdev(values) / math.sqrt(len(values))
    print(f"{values!s:30} stddev / sqrt(n) {right:.4f}   Python {by_python:.4f}   sem {found:.4f}   of it {found / right:.3f}")
    assert math.isclose(right, by_python, rel_tol=1e-9)
    assert math.isclose(found / right, math.sqrt((len(values) - 1) / len(values))), "DuckDB has changed"
PYTHON
