#!/bin/sh
# NumPy arrays of the other byte order, as FITS files, NetCDF files and network formats give them, as inputs of models.
#
# Versions: onnxruntime 1.32.0, openvino 2026.4.1, onnx 1.23.2, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# `np.array([1, 2], ">f4")` holds the numbers 1 and 2; NumPy computes with it like with any other array. ONNX Runtime takes
# its dtype for float and copies the bytes: the model gets other numbers, without an error or a warning, from
# InferenceSession.run and from OrtValue.ortvalue_from_numpy. OpenVINO does both: a compiled model that is called with the array
# converts it, and Tensor(array) and constant(array) copy the bytes. So moving a program from the call with arrays to tensors
# changes its answers.
#
# Output seen:
#   InferenceSession.run             [4.6006e-41 8.9683e-44]
#   OrtValue.ortvalue_from_numpy     [4.6006e-41 8.9683e-44]
#   openvino.Tensor                  [4.6006e-41 8.9683e-44]
#   openvino opset13.constant        [4.6006e-41 8.9683e-44]
#   openvino CompiledModel([array])  [1. 2.]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q onnxruntime==1.32.0 openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()
array = np.array([1, 2], ">f4")
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
core = openvino.Core()
compiled = core.compile_model(core.read_model(model), "CPU")
answers = {
    "InferenceSession.run": session.run(None, {"x": array})[0],
    "OrtValue.ortvalue_from_numpy": onnxruntime.OrtValue.ortvalue_from_numpy(array).numpy(),
    "openvino.Tensor": openvino.Tensor(array).data,
    "openvino opset13.constant": openvino.opset13.constant(array).data,
    "openvino CompiledModel([array])": compiled([array])[0],
}
bytes_as_they_are = np.frombuffer(array.tobytes(), "<f4")
for name, answer in answers.items():
    print(f"{name:32} {answer}")
    right = name.endswith("([array])")
    assert np.array_equal(answer, [1, 2] if right else bytes_as_they_are), f"{name} has changed: {answer}"
assert (array + 1 == [2, 3]).all()  # NumPy itself computes with the numbers
PYTHON
