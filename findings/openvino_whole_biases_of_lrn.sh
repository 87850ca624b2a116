#!/bin/sh
# OpenVINO: LRN takes the whole part of its bias, so a bias of 0.5 is 0 and pixels of zeros become NaN.
#
# Versions: openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Local response normalization divides by (bias + alpha / size * sum of squares) ^ beta. The bias is a real number in OpenVINO's specification, as
# in ONNX's and in PyTorch's (k), and the node of the model holds it as one. The CPU plugin computes with its whole part: 1.75 is 1, and all biases
# below 1 are 0. Such a bias keeps quiet pixels from being amplified; without it they are divided by their own size, and where
# all channels are 0 the result is 0 / 0. Whole biases, as AlexNet's 2 and the default 1, are right, so the known networks do not
# show it. The same model from an ONNX file and from OpenVINO's own operations; ONNX Runtime is right. No error, no warning.
#
# No report of this was found.
#
# Output seen on 2026-11-29 (the largest error, and that of the formula with the whole part):
#   bias 0.25   ONNX Runtime 0.00   OpenVINO, ONNX 3.56, operation 3.56   with 0 0.00   NaN of a blank pixel 6
#   bias 0.75   ONNX Runtime 0.00   OpenVINO, ONNX 4.13, operation 4.13   with 0 0.00   NaN of a blank pixel 6
#   bias  1.0   ONNX Runtime 0.00   OpenVINO, ONNX 0.00, operation 0.00   with 1 0.00   NaN of a blank pixel 0
#   bias 1.75   ONNX Runtime 0.00   OpenVINO, ONNX 0.33, operation 0.33   with 1 0.00   NaN of a blank pixel 0
#   bias  2.0   ONNX Runtime 0.00   OpenVINO, ONNX 0.00, operation 0.00   with 2 0.00   NaN of a blank pixel 0
#   bias  2.5   ONNX Runtime 0.00   OpenVINO, ONNX 0.12, operation 0.12   with 2 0.00   NaN of a blank pixel 0
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

ALPHA, BETA, SIZE = 0.5, 0.75, 3
PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32"}
x = np.random.default_rng(0).normal(size=(2, 6, 3, 3)).astype(np.float32)
blank = x.copy()
blank[0, :, 1, 1] = 0


def normalize(data, bias):
    """LRN over channels in float64."""
    squares = np.pad(data.astype(float) ** 2, ((0, 0), (SIZE // 2, SIZE // 2), (0, 0), (0, 0)))
    sums = sum(squares[:, i : i + data.shape[1]] for i in range(SIZE))
    with np.errstate(invalid="ignore"):
        return data / (bias + ALPHA / SIZE * sums) ** BETA


def operation(bias):
    given = opset.parameter(list(x.shape), np.float32)
    node = opset.lrn(given, opset.constant(np.array([1])), ALPHA, BETA, bias, SIZE)
    assert node.get_attributes()["bias"] == bias
    return ov.compile_model(ov.Model([node], [given]), "CPU", PROPERTIES)


def differ(found, right):
    return np.abs(found - right).max()


for bias in (0.25, 0.75, 1.0, 1.75, 2.0, 2.5):
    text = f"""<ir_version: 10, opset_import: ["": 21]> graph (float[2, 6, 3, 3] x) => (float[2, 6, 3, 3] y) {{
        y = LRN<alpha = {ALPHA}, beta = {BETA}, bias = {bias}, size = {SIZE}>(x)
    }}"""
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    read = ov.Core().compile_model("model.onnx", "CPU", PROPERTIES)
    right, whole = normalize(x, bias), normalize(x, int(bias))
    expected, found = session.run(None, {"x": x})[0], [read(x)[0], operation(bias)(x)[0]]
    errors = [differ(expected, right), *(differ(array, right) for array in found)]
    cut = max(differ(array, whole) for array in found)
    missing = int(np.isnan(read(blank)[0]).sum())
    print("bias {:4}   ONNX Runtime {:.2f}   OpenVINO, ONNX {:.2f}, operation {:.2f}".format(bias, *errors), end="   ")
    print(f"with {int(bias)} {cut:.2f}   NaN of a blank pixel {missing}")
    assert errors[0] < 1e-5 and not np.isnan(session.run(None, {"x": blank})[0]).any(), "ONNX Runtime has changed"
    assert cut < 1e-5 and all((error > 0.05) == (bias % 1 > 0) for error in errors[1:]), "OpenVINO has changed"
    assert missing == (6 if bias < 1 else 0), "OpenVINO has changed"
PYTHON
