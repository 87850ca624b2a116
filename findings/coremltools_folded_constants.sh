#!/bin/sh
# coremltools: operations on constants are computed while a program is built, and some of them by another rule than the documented one.
#
# Versions: coremltools 9.0, numpy 2.3.5, Python 3.11, Linux x86-64.
#
# The converter computes what depends on constants only, in NumPy, and the Core ML model has the result. These differ from what the
# documentation of MIL says, and so from the same operation on an input:
# - scatter_along_axis looks at no mode but "update": "add", which is the default and what scatter_add of PyTorch becomes, replaces.
# - clamped_relu adds the clamped positive and the clamped negative half, so a limit below 0 counts twice.
# - softplus_parametric computes log(1 + exp(x)) as it is written, and 100 gives infinity; softplus itself is right.
# - concat with interleave=True puts one tensor behind the other.
# - reduce_log_sum_exp of negative infinities only is NaN.
# - thresholded_relu writes its result into the constant. The caller's NumPy array changes, and so does every other operation on it.
# Nothing is refused and nothing warns. After 9.0 the repository has other code for the first two; no newer version is on PyPI.
#
# Output seen:
#   scatter_along_axis, update     documented [20.0, 2.0, 30.0]    converted [20.0, 2.0, 30.0]
#   scatter_along_axis, add        documented [31.0, 2.0, 33.0]    converted [20.0, 2.0, 30.0]
#   clamped_relu, beta 1           documented [-2.0, -0.5, 1.0]    converted [-2.0, -0.5, 1.0]
#   clamped_relu, beta -1          documented [-2.0, -1.0, -1.0]   converted [-3.0, -2.0, -2.0]
#   softplus                       documented [0.69, 50.0, 100.0]  converted [0.69, 50.0, 100.0]
#   softplus_parametric            documented [0.69, 50.0, 100.0]  converted [0.69, 50.0, inf]
#   concat, interleave             documented [1.0, 3.0, 2.0, 4.0] converted [1.0, 2.0, 3.0, 4.0]
#   reduce_log_sum_exp             documented [-inf, 0.69]         converted [nan, 0.69]
#   thresholded_relu(x) + x        documented [-2.0, 1.0, 10.0]    converted [0.0, 0.0, 10.0]
#   the array of the caller        before     [-2.0, 1.0, 5.0]     after     [0.0, 0.0, 5.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q coremltools==9.0 numpy==2.3.5
TQDM_DISABLE=1 "$folder/environment/bin/python" -W ignore - <<'PYTHON'
import logging

import numpy as np

logging.disable(logging.CRITICAL)
import coremltools
from coremltools.converters.mil import Builder as mb


def convert(build, shape):
    """Return the constant that the converted program adds to its input."""

    @mb.program(input_specs=[mb.TensorSpec(shape)], opset_version=coremltools.target.iOS17)
    def program(x):
        y = build()
        return mb.add(x=x, y=y if y.dtype.__name__ == "fp32" else mb.cast(x=y, dtype="fp32"))

    converted = coremltools.convert(
        program, convert_to="milinternal", compute_precision=coremltools.precision.FLOAT32,
        minimum_deployment_target=coremltools.target.iOS17,
    )
    left = [each for each in converted.functions["main"].operations if each.op_type != "const"]
    assert [each.op_type for each in left] == ["add"], left
    return np.asarray(left[0].y.val)


def check(name, build, documented, seen):
    documented = np.asarray(documented, np.float32)
    found = convert(build, documented.shape)
    print(f"{name:30} documented {documented.ravel().astype(float).round(2).tolist()!s:20} converted {found.ravel().astype(float).round(2).tolist()}")
    assert np.allclose(found, np.asarray(seen, np.float32), rtol=1e-5, equal_nan=True), "coremltools has changed"


data, rows, updates = np.float32([1, 2, 3]), np.int32([0, 0, 2]), np.float32([10, 20, 30])
wanted = data.copy()
np.add.at(wanted, rows, updates)
scatter = lambda mode: mb.scatter_along_axis(data=data, indices=rows, updates=updates, axis=0, mode=mode, validate_indices=False)
check("scatter_along_axis, update", lambda: scatter("update"), [20, 2, 30], [20, 2, 30])
check("scatter_along_axis, add", lambda: scatter("add"), wanted, [20, 2, 30])
x = np.float32([-4, -1, 3])
leaky = lambda beta: mb.clamped_relu(x=x, alpha=np.float32(0.5), beta=np.float32(beta))
check("clamped_relu, beta 1", lambda: leaky(1), np.minimum(np.where(x >= 0, x, x / 2), 1), [-2, -0.5, 1])
check("clamped_relu, beta -1", lambda: leaky(-1), np.minimum(np.where(x >= 0, x, x / 2), -1), [-3, -2, -2])
large = np.float32([0, 50, 100]).reshape(1, 1, 3)
one = np.float32([1])
check("softplus", lambda: mb.softplus(x=large), np.logaddexp(0, large), np.logaddexp(0, large))
check("softplus_parametric", lambda: mb.softplus_parametric(x=large, alpha=one, beta=one), np.logaddexp(0, large), [[[np.log(2), 50, np.inf]]])
a, b = np.float32([1, 2]), np.float32([3, 4])
check("concat, interleave", lambda: mb.concat(values=(a, b), axis=0, interleave=True), np.stack([a, b], 1).ravel(), [1, 2, 3, 4])
nothing = np.float32([[-np.inf, -np.inf], [0, 0]])
check("reduce_log_sum_exp", lambda: mb.reduce_log_sum_exp(x=nothing, axes=[1]), np.logaddexp.reduce(nothing, 1), [np.nan, np.log(2)])

array = np.float32([-2, 1, 5])
both = lambda: mb.add(x=mb.thresholded_relu(x=array, alpha=np.float32(3)), y=array)
check("thresholded_relu(x) + x", both, [-2, 1, 10], [0, 0, 10])
print(f"{'the array of the caller':30} before     {[-2.0, 1.0, 5.0]!s:20} after     {array.tolist()}")
assert array.tolist() == [0, 0, 5], "coremltools has changed"
PYTHON
