#!/bin/sh
# OpenVINO: MatMul with 8-bit weights that have a scale or a zero point for each row of the depth uses the first one for all.
#
# Versions: openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Integer weights W of shape [depth, columns] are turned to numbers by Convert, Subtract of zero points and Multiply by scales, which
# broadcast as everywhere. The CPU plugin takes this chain into its product and keeps scales that belong to the columns. Scales or zero points of shape
# [depth, 1] differ within a column. The plugin takes them, too, and then uses the first number for all rows, without an error or a
# warning. The product is also wrong for weights [columns, depth] with scales [1, depth] and transpose_b, and for ONNX files with
# DequantizeLinear(axis=0), which ONNX Runtime computes rightly. Weights of float16 in the same chain are right, and so are scales for each column.
# By the specification, MatMul multiplies what its input is. No report was found; openvino PR 28431 mended scales of one element.
# The same with ONEDNN_MAX_CPU_ISA=AVX2.
#
# Output seen (the greatest error over the greatest number; the error against the product with the first scale or zero point alone):
#   i8   scales of columns        error 0.00   first alone 0.46
#   i8   scales of rows           error 0.17   first alone 0.00
#   i8   scales of rows, turned   error 0.17   first alone 0.00
#   i8   zero points of rows      error 0.32   first alone 0.00
#   u8   scales of columns        error 0.00   first alone 0.50
#   u8   scales of rows           error 0.22   first alone 0.00
#   u8   scales of rows, turned   error 0.22   first alone 0.00
#   u8   zero points of rows      error 0.48   first alone 0.00
#   f16  scales of rows           error 0.00   first alone 0.41
#   ONNX, DequantizeLinear of axis 0: ONNX Runtime error 0.00, OpenVINO error 0.17, first alone 0.00
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import openvino as ov
from openvino import opset13 as opset

DEPTH, COLUMNS = 16, 8
PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32"}
TYPES = {"i8": np.int8, "u8": np.uint8, "f16": np.float16}
rng = np.random.default_rng(0)
x = rng.integers(-4, 5, (4, DEPTH)).astype(np.float32)
quantized = {kind: rng.integers(0 if kind == "u8" else -8, 8, (DEPTH, COLUMNS)) for kind in TYPES}
scales = {"columns": rng.uniform(0.5, 2, (1, COLUMNS)), "rows": rng.uniform(0.5, 2, (DEPTH, 1))}
points = rng.integers(0, 4, (DEPTH, 1))


def multiply(kind, scale, point=None, turned=False):
    """x by the weights, computed by OpenVINO; `turned`: the weights are [columns, depth]."""
    turn = np.transpose if turned else lambda array: array
    weights = opset.convert(opset.constant(turn(quantized[kind]).astype(TYPES[kind])), "f32")
    if point is not None:
        weights = opset.subtract(weights, opset.convert(opset.constant(turn(point).astype(TYPES[kind])), "f32"))
    weights = opset.multiply(weights, opset.constant(turn(scale).astype(np.float32)))
    given = opset.parameter(list(x.shape), np.float32)
    model = ov.Model([opset.matmul(given, weights, False, turned)], [given])
    return ov.compile_model(model, "CPU", PROPERTIES)(x)[0]


def differ(found, right):
    return np.abs(found - right).max() / np.abs(right).max()


def check(title, kind, right, first, found, is_right):
    error, other = differ(found, right), differ(found, first)
    print(f"{kind:4} {title:24} error {error:.2f}   first alone {other:.2f}")
    assert (error < 1e-5) == is_right and (other < 1e-5) != is_right and max(error, other) > 0.1, "OpenVINO has changed"


for kind, weights in quantized.items():
    for of, scale in scales.items():
        right, first = x @ (weights * scale), x @ (weights * scale[0, 0])
        if kind != "f16" or of == "rows":
            check(f"scales of {of}", kind, right, first, multiply(kind, scale), kind == "f16" or of == "columns")
        if kind != "f16" and of == "rows":
            check("scales of rows, turned", kind, right, first, multiply(kind, scale, turned=True), False)
    if kind != "f16":
        one = np.ones((1, 1))
        right, first = x @ (weights - points), x @ (weights - points[0, 0])
        check("zero points of rows", kind, right, first, multiply(kind, one, points), False)

text = f"""<ir_version: 10, opset_import: ["": 21]> graph (float[4, {DEPTH}] x) => (float[4, {COLUMNS}] y) {{
    w = DequantizeLinear<axis = 0>(q, s)
    y = MatMul(x, w)
}}"""
model = onnx.parser.parse_model(text)
for name, array in (("q", quantized["i8"].astype(np.int8)), ("s", scales["rows"][:, 0].astype(np.float32))):
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "model.onnx")
expected = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
found = ov.Core().compile_model("model.onnx", "CPU", PROPERTIES)(x)[0]
right, first = (x @ (quantized["i8"] * scale) for scale in (scales["rows"], scales["rows"][0, 0]))
errors = differ(expected, right), differ(found, right), differ(found, first)
print("ONNX, DequantizeLinear of axis 0: ONNX Runtime error {:.2f}, OpenVINO error {:.2f}, first alone {:.2f}".format(*errors))
assert errors[0] < 1e-5 and errors[1] > 0.1 and errors[2] < 1e-5, "OpenVINO has changed"
PYTHON
