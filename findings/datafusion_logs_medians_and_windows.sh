#!/bin/sh
# DataFusion: log(1000) is below 3 where log10(1000) is 3, the median of two halves is infinite, and the correlation of two rows is 0.06.
#
# Versions: datafusion 55.0.0, pyarrow 26.0.1, duckdb 2.0.1, Python 3.11, Linux x86-64.
#
# - log(x) is to base 10 if no base is named, so it is the function log10 under another name. It is computed as a quotient of natural logarithms:
#   log(1000) is 2.9999999999999996, log(1000000) 5.999999999999999, log(1000000000) 8.999999999999998. floor(log(x)), the usual way to the order of
#   magnitude and to the number of digits, is one too small for them; log10 is exact. log(10, x) and log(2, x) are as log; for Float32, log is exact.
# - median of two middle numbers adds them in their type and halves the sum. Of 60000 and 65000 in Float16, the type of many columns of
#   embeddings and activations, it is infinite; percentile_cont(x, 0.5), the same number by its definition, is 62496 (62500 in Float16). For
#   Float64 it takes numbers above 9e307. The median of Int8, which could overflow in the same way, is right.
# - round(x, 2) of a Float32 multiplies by 100 before it rounds: of 5e36, a number without a fraction, it is infinite, as is trunc(x, 2).
#   In Float64 both return the number.
# - Windows that move (ROWS 1 PRECEDING) take the leaving row out of running sums. After one row of 1e9 the correlation of two rows, which is 1 or -1
#   by definition, is 0.06 and 0.12, and their standard deviation 11.3 where 0.7 is right. One NaN or infinite row makes all later windows NaN.
#   The same query in DuckDB has the right numbers in each window that the row has left; corr in such windows is new in this year's releases.
# Nothing warns. Issue 13247 of DataFusion speaks of NaN from variances without a cause.
#
# Output seen on 2026-12-01:
#   log          [1.0, 2.0, 2.9999999999999996, 4.0, 5.999999999999999, 8.999999999999998]
#   floor(log)   [1, 2, 2, 4, 5, 8]
#   log10        [1.0, 2.0, 3.0, 4.0, 6.0, 9.0]
#   Float32 log  [1.0, 2.0, 3.0, 4.0, 6.0, 9.0]
#   Float16  median inf   percentile_cont 62496.0
#   Float32  median 62500.0   percentile_cont 62500.0
#   Float64  median 62500.0   percentile_cont 62500.0
#   round(5e36, 2) inf   trunc(5e36, 2) inf   round(5e35, 2) 4.9999998e+35   Float64 5e+36
#   corr of two rows    [nan, 1.0, -1.0, 0.0625, 0.1243]   by DuckDB [nan, 1.0, -1.0, 1.0, 1.0]
#   stddev of two rows  [nan, 707106780.4794, 707106780.4794, 11.3137, 11.3798]   by DuckDB [nan, 707106780.4794, 707106780.4794, 0.7071, 1.4142]
#   avg of two rows after NaN  [1.0, nan, nan, nan, nan]   by DuckDB [1.0, nan, nan, 1.5, 3.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q datafusion==55.0.0 pyarrow==26.0.1 duckdb==2.0.1
"$folder/env/bin/python" - <<'PYTHON'
import math

import datafusion
import duckdb

context = datafusion.SessionContext()


def query(text):
    """The rows of a query, as lists."""
    return [list(row.values()) for row in context.sql(text).to_pylist()]


powers = "(VALUES (10.0), (100.0), (1000.0), (10000.0), (1000000.0), (1000000000.0)) t(x)"
right = [1, 2, 3, 4, 6, 9]
rows = query(f"SELECT log(x), floor(log(x)), log10(x), log(arrow_cast(x, 'Float32')), log(10, x) FROM {powers} ORDER BY x")
logs, floors, tens, narrow, named = zip(*rows)
print(f"log          {list(logs)}\nfloor(log)   {[int(number) for number in floors]}\nlog10        {list(tens)}\nFloat32 log  {list(narrow)}")
assert list(tens) == right == list(narrow) and named == logs
assert list(floors) == [1, 2, 2, 4, 5, 8], "DataFusion has changed"

for kind in ("Float16", "Float32", "Float64"):
    values = f"(SELECT arrow_cast(x, '{kind}') AS x FROM (VALUES (60000.0), (65000.0)) t(x))"
    (median, percentile), = query(f"SELECT median(x), percentile_cont(x, 0.5) FROM {values}")
    print(f"{kind}  median {median}   percentile_cont {percentile}")
    assert (median, percentile) == ((math.inf, 62496) if kind == "Float16" else (62500, 62500)), "DataFusion has changed"
(small,), = query("SELECT median(arrow_cast(x, 'Int8')) FROM (VALUES (100), (127)) t(x)")
assert small == 113.5

(rounded, cut, smaller, double), = query(
    "SELECT round(arrow_cast(x, 'Float32'), 2), trunc(arrow_cast(x, 'Float32'), 2), round(arrow_cast(x / 10, 'Float32'), 2), "
    "round(x, 2) FROM (VALUES (5e36)) t(x)"
)
print(f"round(5e36, 2) {rounded}   trunc(5e36, 2) {cut:.8g}   round(5e35, 2) {smaller:.8g}   Float64 {double:.8g}")
assert math.isinf(rounded) and math.isinf(cut) and math.isclose(smaller, 5e35, rel_tol=1e-6) and double == 5e36, "DataFusion has changed"


def move(function, values):
    """A function of each two successive rows, by DataFusion and by DuckDB."""
    rows = ", ".join(f"({place}, CAST('{value}' AS DOUBLE))" for place, value in enumerate(values))
    text = f"SELECT {function} OVER (ORDER BY i ROWS 1 PRECEDING) AS value FROM (VALUES {rows}) t(i, x) ORDER BY i"
    pairs = zip(query(text), duckdb.sql(text).fetchall())
    return [[math.nan if row[0] is None else round(row[0], 4) for row in column] for column in zip(*pairs)]


def match(found, wanted):
    return all(math.isclose(a, b, abs_tol=1e-3) or math.isnan(a) and math.isnan(b) for a, b in zip(found, wanted, strict=True))


NAN = math.nan
large = [1.0, 1e9, 1.0, 2.0, 4.0]
spread = 707106780.4794
for title, function, values, seen, wanted in (
    ("corr of two rows   ", "corr(x, i)", large, [NAN, 1, -1, 0.0625, 0.1243], [NAN, 1, -1, 1, 1]),
    ("stddev of two rows ", "stddev(x)", large, [NAN, spread, spread, 11.3137, 11.3798], [NAN, spread, spread, 0.7071, 1.4142]),
    ("avg of two rows after NaN ", "avg(x)", [1.0, NAN, 1.0, 2.0, 4.0], [1, NAN, NAN, NAN, NAN], [1, NAN, NAN, 1.5, 3]),
):
    found, right = move(function, values)
    print(f"{title} {found}   by DuckDB {right}")
    assert match(right, wanted)
    assert match(found, seen), "DataFusion has changed"
PYTHON
