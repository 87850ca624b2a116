#!/bin/sh
# xarray, flox and numbagg: with numbagg installed, the mean of 10 million f32 temperatures by group is 268 instead of 288, and nobody asked for another engine.
#
# Versions: xarray 2026.9.0, flox 0.11.2, numbagg 0.9.6, numba 0.68.1, pandas 3.1.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# DataArray.groupby(...).mean() uses flox where it is installed, and flox uses numbagg where that is installed. numbagg's kernels for groups add
# one element after the other to a sum of the array's own type, so a large sum in f32 loses digits of what is added: for temperatures of 288 K
# a group of 500,000 has an error of 1e-5, one of 10 million of 7 %. group_nanvar is worse: 65 where 100 is right for 2.5 million values, and 5,700
# for 10 million. numpy adds f32 in pairs, and flox's other engines and pandas have seven digits, too. So the same line of xarray gives
# another climate after `pip install numbagg`. numbagg.nansum adds in the same way: 20 million values sum up to 7 % more than they are, since
# the spacing of f32 from 2^32 on is 512, and 288 is rounded up to it. Nothing warns.
#
# Output seen on 2026-12-01 (two groups of so many values, normal with mean 288 and standard deviation 10):
#      50,000   numbagg 288.0391   default 288.0391   engine numpy 288.0380   pandas 288.0380   without flox 288.0380   in f64 288.0380
#     500,000   numbagg 288.0138   default 288.0138   engine numpy 288.0166   pandas 288.0166   without flox 288.0166   in f64 288.0166
#   2,500,000   numbagg 287.9951   default 287.9951   engine numpy 288.0009   pandas 288.0009   without flox 288.0009   in f64 288.0010
#  10,000,000   numbagg 267.9606   default 267.9606   engine numpy 287.9990   pandas 287.9990   without flox 287.9990   in f64 287.9990
#   numbagg.group_nanvar   50,000 99.4   500,000 100.3   2,500,000 65.4   10,000,000 5733.7
#   sum of 20,000,000   numbagg 6.1829e+09   numpy 5.76e+09   in f64 5.76e+09
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q xarray==2026.9.0 flox==0.11.2 numbagg==0.9.6 numba==0.68.1 pandas==3.1.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numbagg
import numpy as np
import pandas as pd
import xarray as xr

values = np.random.default_rng(0).normal(288, 10, 20_000_000).astype(np.float32)
labels = np.arange(values.size) % 2
variances = {}
for size in (100_000, 1_000_000, 5_000_000, 20_000_000):
    some, groups = values[:size], labels[:size]
    grouped = xr.DataArray(some, dims="x", coords={"group": ("x", groups)}).groupby("group")
    means = {
        "numbagg": numbagg.group_nanmean(some, groups)[0],
        "default": grouped.mean().values[0],
        "engine numpy": grouped.mean(engine="numpy").values[0],
        "pandas": pd.Series(some).groupby(groups).mean()[0],
    }
    with xr.set_options(use_flox=False):
        means["without flox"] = grouped.mean().values[0]
    assert {mean.dtype.name for mean in means.values()} == {"float32"}
    right = some[::2].astype(np.float64).mean()
    shown = "   ".join(f"{name} {mean:.4f}" for name, mean in means.items())
    print(f"{size // 2:>12,}   {shown}   in f64 {right:.4f}")
    for name in ("engine numpy", "pandas", "without flox"):
        assert abs(means[name] - right) < 1e-4, f"{name} has changed"
    for name in ("numbagg", "default"):
        assert abs(means[name] - right) > 8e-4, f"{name} has changed"
    variances[size // 2] = numbagg.group_nanvar(some, groups)[0]
assert means["numbagg"] == means["default"] < 270, "numbagg has changed"
print("numbagg.group_nanvar   " + "   ".join(f"{size:,} {variance:.1f}" for size, variance in variances.items()))
assert variances[50_000] < 101 and variances[2_500_000] < 70 and variances[10_000_000] > 5000, "numbagg has changed"
total, right = numbagg.nansum(values), values.astype(np.float64).sum()
print(f"sum of 20,000,000   numbagg {total:.5g}   numpy {np.nansum(values):.5g}   in f64 {right:.5g}")
assert total > 1.07 * right and abs(np.nansum(values) / right - 1) < 1e-6, "numbagg has changed"
PYTHON
