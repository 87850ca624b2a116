#!/bin/sh
# OpenVINO: NormalizeL2 with eps_mode "max" adds epsilon on the CPU.
#
# Versions: openvino 2026.4.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# By the specification, NormalizeL2-1 is x / sqrt(eps_mode(sum(x ** 2), eps)), and eps_mode is "max" or "add". The CPU plugin reads the
# mode and gives the same numbers for both, those of "add": a vector whose norm is far above epsilon is not of length 1 afterwards, and one
# below is divided by too much. It holds for all axes and layouts tried, with and without AVX-512. The same formula written with Maximum
# and Sqrt is right. With an epsilon like 1e-10, the difference is below the precision of float32; it shows with larger ones.
# No report was found (openvino PR 12077 moved epsilon under the root).
#
# Output seen (eps 0.5; the length of the vectors after the operation):
#   [2, 4], axis 1             operation, max 0.632 0.990   operation, add 0.632 0.990   formula, max 0.816 1.000
#   [1, 2, 2, 1], axis 1       operation, max 0.632 0.990   operation, add 0.632 0.990   formula, max 0.816 1.000
#   [1, 16, 2, 1], axis 1      operation, max 0.632 0.990   operation, add 0.632 0.990   formula, max 0.816 1.000
#   [2, 1, 4, 2], axes 1 2 3   operation, max 0.632 0.990   operation, add 0.632 0.990   formula, max 0.816 1.000
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q openvino==2026.4.1 numpy==2.4.6
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import openvino as ov
from openvino import opset13 as opset

EPS = 0.5
#: The squares of the lengths before: one below epsilon, one far above.
SQUARES = np.array([1 / 3, 25])


def run(shape, data, build):
    parameter = opset.parameter(shape, np.float32)
    model = ov.Model([build(parameter)], [parameter])
    return ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(data)[0]


def lengths(array, axes):
    return np.sqrt((array.astype(float) ** 2).sum(axes)).ravel()


for shape, axes in (([2, 4], (1,)), ([1, 2, 2, 1], (1,)), ([1, 16, 2, 1], (1,)), ([2, 1, 4, 2], (1, 2, 3))):
    data = np.random.default_rng(0).normal(size=shape)
    size = SQUARES.reshape([2 if extent == 2 and i not in axes else 1 for i, extent in enumerate(shape)])
    data = (data * np.sqrt(size / (data**2).sum(axes, keepdims=True))).astype(np.float32)
    axis = opset.constant(np.array(axes))
    found = {mode: run(shape, data, lambda x: opset.normalize_l2(x, axis, EPS, mode)) for mode in ("max", "add")}

    def formula(x):
        squares = opset.reduce_sum(opset.multiply(x, x), axis, True)
        return opset.divide(x, opset.sqrt(opset.maximum(squares, opset.constant(np.float32(EPS)))))

    right = run(shape, data, formula)
    squares = (data**2).sum(axes, keepdims=True)
    assert np.allclose(right, data / np.sqrt(np.maximum(squares, EPS)), atol=1e-6)
    assert np.allclose(found["add"], data / np.sqrt(squares + EPS), atol=1e-6)
    assert np.allclose(found["max"], found["add"], atol=1e-6), "OpenVINO has changed"
    assert np.abs(found["max"] - right).max() > 0.01
    texts = [
        f"{name} {' '.join(f'{length:.3f}' for length in lengths(array, axes))}"
        for name, array in (("operation, max", found["max"]), ("operation, add", found["add"]), ("formula, max", right))
    ]
    title = f"{shape}, {'axis' if len(axes) == 1 else 'axes'} {' '.join(map(str, axes))}"
    print(f"{title:26} {'   '.join(texts)}")
PYTHON
