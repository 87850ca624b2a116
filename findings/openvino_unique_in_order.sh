#!/bin/sh
# OpenVINO: Unique in the order of appearance is right only if the model reads the third output.
#
# Versions: openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Unique of all elements, not sorted, counts the different elements it has met in the part that writes output 2, the places of the inputs
# among the unique elements. If output 2 is not read, the count stays 0: all elements are written to place 0, the others stay 0, the first places
# of appearance are all 0 and the numbers of appearances are all 1. So a model that wants the values alone gets numbers that are not in its input.
# The length is right, and so are sorted elements and Unique along an axis. By the specification, the outputs do not depend on each other.
# An ONNX model with sorted=0 and one output is affected. ONNX Runtime is right. Issue 31004 reports wrong results of a
# model with Unique in 2025.3 without a cause; nothing about this one was found.
#
# Output seen, for [3, 1, 3, 3, 2, 1, 3, 2]:
#   ONNX Runtime                      values [3, 1, 2]   first [0, 1, 4]   counts [4, 2, 2]
#   all outputs read                  values [3, 1, 2]   first [0, 1, 4]   counts [4, 2, 2]
#   values read                       values [3, 0, 0]
#   values and first read             values [3, 0, 0]   first [0, 0, 0]
#   values and counts read            values [3, 0, 0]   counts [1, 1, 1]
#   values and counts read, sorted    values [1, 2, 3]   counts [2, 2, 4]
#   values and counts read, axis 0    values [3, 1, 2]   counts [4, 2, 2]
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
import openvino

NAMES = ("values", "first", "places", "counts")
x = np.array([3, 1, 3, 3, 2, 1, 3, 2], np.int64)


def run(read, **attributes):
    """The named outputs of ONNX Runtime and of OpenVINO; the model has no others."""
    node = onnx.helper.make_node("Unique", ["x"], [name if name in read else "" for name in NAMES], **attributes)
    # the first output of Unique cannot be left out
    node.output[0] = "values"
    vector = lambda name, size: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [size])
    graph = onnx.helper.make_graph([node], "graph", [vector("x", len(x))], [vector(name, name) for name in read])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    right = [array.tolist() for array in session.run(None, {"x": x})]
    compiled = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    # more than once, so that what an earlier call left would show
    calls = [[np.array(array).tolist() for array in compiled(x).values()] for _ in range(3)]
    assert calls[1:] == calls[:-1], calls
    return dict(zip(read, right)), dict(zip(read, calls[0]))


def show(title, results):
    parts = [f"{name} {results[name]}" for name in NAMES if name in results and name != "places"]
    print(f"{title:33} {'   '.join(parts)}")


right, found = run(NAMES, sorted=0)
assert right == found == {"values": [3, 1, 2], "first": [0, 1, 4], "places": [0, 1, 0, 0, 2, 1, 0, 2], "counts": [4, 2, 2]}
show("ONNX Runtime", right)
show("all outputs read", found)
seen = {"values": [3, 0, 0], "first": [0, 0, 0], "counts": [1, 1, 1]}
for read in (("values",), ("values", "first"), ("values", "counts")):
    expected, found = run(read, sorted=0)
    assert expected == {name: right[name] for name in read}
    show(f"{' and '.join(read)} read", found)
    assert found == {name: seen[name] for name in read}, "OpenVINO has changed"
for title, attributes in (("sorted", {"sorted": 1}), ("axis 0", {"sorted": 0, "axis": 0})):
    expected, found = run(("values", "counts"), **attributes)
    show(f"values and counts read, {title}", found)
    assert found == expected
PYTHON
