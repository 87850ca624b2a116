#!/bin/sh
# MLX on a CPU: softmax of integers depends on its axis, and a running maximum in f16 forgets what came before a NaN.
#
# Versions: mlx 0.32.4 (mlx-cpu), numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Along the last axis softmax and logsumexp of integers are computed in f32. Along any other axis softmax stays in the integers, so that
# all probabilities below one are 0, and logsumexp of unsigned integers subtracts the maximum in them: a difference of -1 is 255, and the
# logarithm is infinite. cummax and cummin have NaN from the first NaN on in f32, as NumPy has. In f16 and bf16 the NaN becomes 0 and the
# numbers before it are forgotten: the running maximum of [3, nan, 1, 2] falls to 1.
# The mean of i32 is the sum, which wraps, divided by the count.
#
# Output seen:
#   softmax of i32, axis 1       [[0.09, 0.245, 0.665], [0.665, 0.09, 0.245]] float32
#   softmax of i32, axis 0       [[0, 0, 0], [0, 0, 0]] int32
#   logsumexp of u8, axis 1      [3.408, 4.408]
#   logsumexp of u8, axis 0      [inf, 2.693, 3.693]
#   cummax of [3, nan, 1, 2]     f32 [3.0, nan, nan, nan]   f16 [3.0, 0.0, 1.0, 2.0]
#   cummin of [3, nan, 1, 2]     f32 [3.0, nan, nan, nan]   f16 [3.0, 0.0, 0.0, 0.0]
#   mean of two 2000000000       -147483648.0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q mlx==0.32.4 mlx-cpu==0.32.4 numpy==2.4.6
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import mlx.core as mx


def check(name, got, wanted):
    print(f"{name:28} {got}")
    assert str(got) == str(wanted), f"{name} has changed: {got}"


def rounded(array):
    return np.round(np.asarray(array, np.float64), 3).tolist()


logits = np.array([[1, 2, 3], [4, 2, 3]])
exponentials = np.exp(logits)
rows = mx.array(logits.astype(np.int32))
for axis, wanted, dtype in ((1, [[0.09, 0.245, 0.665], [0.665, 0.09, 0.245]], "float32"), (0, [[0, 0, 0], [0, 0, 0]], "int32")):
    got = mx.softmax(rows, axis=axis)
    assert str(got.dtype) == f"mlx.core.{dtype}", got.dtype
    check(f"softmax of i32, axis {axis}", rounded(got) if axis else got.tolist(), wanted)
    right = rounded(exponentials / exponentials.sum(axis, keepdims=True))
    assert (wanted == right) == (axis == 1), right
for axis, wanted in ((1, [3.408, 4.408]), (0, [np.inf, 2.693, 3.693])):
    check(f"logsumexp of u8, axis {axis}", rounded(mx.logsumexp(rows.astype(mx.uint8), axis=axis)), wanted)
    assert (wanted == rounded(np.log(exponentials.sum(axis)))) == (axis == 1)
numbers = np.array([3, np.nan, 1, 2], np.float32)
for name, of_halves in (("cummax", [3.0, 0.0, 1.0, 2.0]), ("cummin", [3.0, 0.0, 0.0, 0.0])):
    running = getattr(mx, name)
    for dtype, wanted in ((mx.float32, [3.0, np.nan, np.nan, np.nan]), (mx.float16, of_halves), (mx.bfloat16, of_halves)):
        check(f"{name} of [3, nan, 1, 2]", running(mx.array(numbers).astype(dtype)).tolist(), wanted)
    assert np.isnan((np.maximum if name == "cummax" else np.minimum).accumulate(numbers)[1:]).all()
check("mean of two 2000000000", mx.mean(mx.array([2_000_000_000, 2_000_000_000])).item(), -147483648.0)
PYTHON
