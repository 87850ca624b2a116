#!/bin/sh
# onnx.version_converter: LogSoftmax, Softmax, Hardmax, Resize and Upsample keep their attributes where another operator set gives them another meaning.
#
# Versions: onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# The converter has an adapter for each operator and version. Where there is none, it refuses ("adapter_lookup"); where the adapter says that
# both versions are compatible, it writes the node as it is. Some are not:
# - Softmax and LogSoftmax: up to version 11 all axes from the given one on are one, since 13 the axis stands alone. Upwards, a reshape is
#   added. From 13 downwards nothing is done: 1 over 3 becomes 1 over 12.
# - Hardmax changed in the same way. Downwards it is refused; upwards nothing is done.
# - Resize up to version 10 and Upsample take the pixel at x / scale. Since 11 an attribute says which, and its default are the centres
#   of pixels. The converter adds an input and not the attribute, so every linear upsampling is shifted by a part of a pixel.
# The converted model passes the checker, and ONNX Runtime loads both. The reference evaluator of the package has the same values.
# Upwards Softmax, RoiAlign (whose default changed as well and is written down) and Dropout are right.
#
# Resize from 10 to 11 is onnx's issue 8480; no report of Upsample, Hardmax and the way down of Softmax (pull request 6608) was found.
#
# Output seen on 2026-11-29:
#   Softmax    11 to 13   before [0.083, 0.083, 0.083, 0.083]     after the same
#   Softmax    13 to 12   before [0.333, 0.333, 0.333, 0.333]     after [0.083, 0.083, 0.083, 0.083]
#   Softmax    13 to 11   before [0.333, 0.333, 0.333, 0.333]     after [0.083, 0.083, 0.083, 0.083]
#   Softmax    13 to 12   before [0.25, 0.25, 0.25, 0.25]         after the same
#   LogSoftmax 11 to 13   before [-2.485, -2.485, -2.485, -2.485] after the same
#   LogSoftmax 13 to 12   before [-1.099, -1.099, -1.099, -1.099] after [-2.485, -2.485, -2.485, -2.485]
#   LogSoftmax 13 to 11   before [-1.099, -1.099, -1.099, -1.099] after [-2.485, -2.485, -2.485, -2.485]
#   LogSoftmax 13 to 12   before [-1.386, -1.386, -1.386, -1.386] after the same
#   Hardmax    11 to 13   before [0.0, 0.0, 0.0, 0.0]             after [0.0, 0.0, 0.0, 0.0]
#   Upsample    9 to 10   before [0.0, 0.5, 1.0, 1.5]             after the same
#   Upsample    9 to 11   before [0.0, 0.5, 1.0, 1.5]             after [0.0, 0.25, 0.75, 1.25]
#   Resize     10 to 11   before [0.0, 0.5, 1.0, 1.5]             after [0.0, 0.25, 0.75, 1.25]
#   Upsample    9 to 13   before [0.0, 0.5, 1.0, 1.5]             after [0.0, 0.25, 0.75, 1.25]
#   Resize     10 to 13   before [0.0, 0.5, 1.0, 1.5]             after [0.0, 0.25, 0.75, 1.25]
#   Upsample    9 to 18   before [0.0, 0.5, 1.0, 1.5]             after [0.0, 0.25, 0.75, 1.25]
#   Resize     10 to 18   before [0.0, 0.5, 1.0, 1.5]             after [0.0, 0.25, 0.75, 1.25]
#   Resize     10 to 13   before [0.0, 2.0]                       after [0.5, 2.5]
#   Resize     11 to 13   before [0.0, 0.25, 0.75, 1.25]          after the same
#   RoiAlign   10 to 16   before [0.343, 0.618, 0.682, 0.656]     after the same
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, version_converter


def run(model, inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def check(operator, before, after, inputs, same, given=(), **attributes):
    """Convert a model of one node from one operator set to another, and compare the results."""
    node = helper.make_node(operator, [*inputs, *(f"c{i}" for i in range(len(given)))], ["y"], **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in inputs.items()]
    rank = next(iter(inputs.values())).ndim
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    constants = [numpy_helper.from_array(value, f"c{i}") for i, value in enumerate(given)]
    model = helper.make_model(
        helper.make_graph([node], "g", values, [output], constants), opset_imports=[helper.make_opsetid("", before)], ir_version=8
    )
    onnx.checker.check_model(model)
    converted = version_converter.convert_version(model, after)
    assert converted.opset_import[0].version == after
    onnx.checker.check_model(converted)
    right, found = run(model, inputs), run(converted, inputs)
    equal = right.shape == found.shape and np.allclose(right, found, atol=1e-5)
    shown = [np.round(y.astype(float).ravel()[:4], 3).tolist() for y in (right, found)]
    print(f"{operator:10} {before:2} to {after:2}   before {shown[0]!s:32} after {'the same' if equal else shown[1]}")
    assert equal == same, f"{operator} has changed"


ones = {"x": np.ones((1, 3, 4), np.float32)}
ramp = {"x": np.arange(12, dtype=np.float32).reshape(1, 3, 4)}
for operator in ("Softmax", "LogSoftmax"):
    check(operator, 11, 13, ones, True, axis=1)
    check(operator, 13, 12, ones, False, axis=1)
    check(operator, 13, 11, ones, False, axis=1)
    check(operator, 13, 12, {"x": np.ones((3, 4), np.float32)}, True, axis=1)
check("Hardmax", 11, 13, ramp, False, axis=1)

image = {"x": np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)}
double = np.array([1, 1, 1, 2], np.float32)
check("Upsample", 9, 10, image, True, [double], mode="linear")
for after in (11, 13, 18):
    check("Upsample", 9, after, image, False, [double], mode="linear")
    check("Resize", 10, after, image, False, [double], mode="linear")
half = np.array([1, 1, 1, 0.5], np.float32)
check("Resize", 10, 13, image, False, [half], mode="linear")
check("Resize", 11, 13, image, True, [np.zeros(0, np.float32), double], mode="linear")

pixels = {"x": np.random.default_rng(0).random((1, 1, 6, 6), dtype=np.float32)}
region, batch = np.array([[0.3, 0.2, 4.1, 3.7]], np.float32), np.array([0])
check("RoiAlign", 10, 16, pixels, True, [region, batch], output_height=2, output_width=2, sampling_ratio=2)
PYTHON
