#!/bin/sh
# ONNX Runtime's default optimizations: 1 / x * z of integers becomes z / x, and Clip behind Relu in double refuses the model.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# A quotient of one is fused with the product behind it, also for integers, where 1 / x is 0 for every x above 1. A constant of shape
# [1, 1] is fused as well, and the result loses the axis that it had by it: the declared output is [1, 5], the given one [5], with a
# warning in the log at most. Relu and Clip are fused by a routine that knows f32 and f16; for double, int32 and int8, which both
# operators' kernels compute, the session cannot be made. With the optimizations disabled, all three are as ONNX says.
#
# Output seen:
#   1 / x * z, int32           disabled [7, 0, 0, 0, 0]   default [7, 3, 2, 1, 1]
#   1 / x * z, int64           disabled [7, 0, 0, 0, 0]   default [7, 3, 2, 1, 1]
#   a one of shape [1, 1]      disabled (1, 5)   default (5,)
#   Clip(Relu(x)), float       disabled [1, 2, 3, 3, 3]   default [1, 2, 3, 3, 3]
#   Clip(Relu(x)), double      disabled [1, 2, 3, 3, 3]   default Fail
#   Clip(Relu(x)), int32       disabled [1, 2, 3, 3, 3]   default Fail
#   Clip(Relu(x)), int8        disabled [1, 2, 3, 3, 3]   default Fail
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

LEVEL = onnxruntime.GraphOptimizationLevel


def run(text, **arrays):
    """Results without and with the optimizations, or the class of the error that making the session raises."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')
    onnx.checker.check_model(model, full_check=True)
    results = []
    for level in (LEVEL.ORT_DISABLE_ALL, LEVEL.ORT_ENABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 4
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Fail:
            results.append(None)
            continue
        results.append(session.run(None, arrays)[0])
    return results


def check(name, results, wanted, show=lambda array: array.astype(int).tolist()):
    found = ["Fail" if result is None else show(result) for result in results]
    print(f"{name:26} disabled {found[0]}   default {found[1]}")
    assert found == wanted, f"ONNX Runtime has changed: {found}"


x, z = np.arange(1, 6), np.full(5, 7)
for element in ("int32", "int64"):
    text = f"({element}[5] x, {element}[5] z) => ({element}[5] y) <{element} one = {{1}}> {{ q = Div(one, x) y = Mul(q, z) }}"
    results = run(text, x=x.astype(element), z=z.astype(element))
    check(f"1 / x * z, {element}", results, [[7, 0, 0, 0, 0], [7, 3, 2, 1, 1]])
text = "(float[5] x, float[5] z) => (float[1, 5] y) <float[1, 1] one = {1}> { q = Div(one, x) y = Mul(q, z) }"
check("a one of shape [1, 1]", run(text, x=x.astype("f4"), z=z.astype("f4")), [(1, 5), (5,)], np.shape)
for element, numpy_name in (("float", "f4"), ("double", "f8"), ("int32", "i4"), ("int8", "i1")):
    text = f"({element}[5] x) => ({element}[5] y) <{element} low = {{-1}}, {element} high = {{3}}> {{ r = Relu(x) y = Clip(r, low, high) }}"
    clipped = [1, 2, 3, 3, 3]
    results = run(text, x=x.astype(numpy_name))
    check(f"Clip(Relu(x)), {element}", results, [clipped, clipped if element == "float" else "Fail"])
PYTHON
