#!/bin/sh
# OpenVINO: a Scan that adds its state to its element finds the element in place of the state from the second step on.
#
# Versions: openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# A running sum is the first example of Scan in the standard. OpenVINO makes a TensorIterator of it whose body squeezes a slice of the
# elements and adds the state. The squeezed slice lies in the memory of the slice, and the sum is computed in that memory, too, so the new
# state lies where the next slice comes. Before each step the CPU plugin copies first the slices and then the states: what it copies as
# the state is the next element. So Add(element, state) gives twice the last element, Min and Max the last element, Mul its square, and a
# recurrent layer tanh(x + h W) the value of tanh(x + x W). All types, for Loop and TensorIterator built by hand, too; the number of
# elements may be open. Add(state, element) is right, as the state's own memory is written. There is no error and no warning.
#
# Output seen (the last state, for the elements [1, 2, 4, 8] and [0, 4, 0, 2]; one more each for Mul, an eighth for tanh):
#   Add(state, element)   ONNX Runtime [15.0, 6.0]      OpenVINO [15.0, 6.0]
#   Add(element, state)   ONNX Runtime [15.0, 6.0]      OpenVINO [16.0, 4.0]
#   Mul(element, state)   ONNX Runtime [270.0, 15.0]    OpenVINO [81.0, 9.0]
#   Max(element, state)   ONNX Runtime [8.0, 4.0]       OpenVINO [8.0, 2.0]
#   Min(element, state)   ONNX Runtime [0.0, 0.0]       OpenVINO [8.0, 2.0]
#   tanh(x + h W)         ONNX Runtime [0.786, 0.515]   OpenVINO [0.809, 0.635]
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
from onnx import helper as h

elements = np.array([[1, 0], [2, 4], [4, 0], [8, 2]])
weights = np.array([[0, 0.5], [0.5, 0]], np.float32)


def scan(nodes, dtype):
    kind = h.np_dtype_to_tensor_dtype(np.dtype(dtype))
    vector = lambda name: h.make_tensor_value_info(name, kind, [2])
    table = lambda name: h.make_tensor_value_info(name, kind, ["n", 2])
    nodes = [*nodes, h.make_node("Identity", ["new"], ["copy"])]
    body = h.make_graph(nodes, "body", [vector("state"), vector("element")], [vector("new"), vector("copy")])
    if len(nodes) > 2:
        body.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    node = h.make_node("Scan", ["start", "elements"], ["last", "all"], num_scan_inputs=1, body=body)
    graph = h.make_graph([node], "graph", [vector("start"), table("elements")], [vector("last"), table("all")])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")


def both(start, x):
    feeds = {"start": np.full(2, start, x.dtype), "elements": x}
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(y) for y in session.run(None, feeds)], [np.array(y) for y in compiled(feeds).values()]


def show(title, right, found):
    right, found = (np.round(y.astype(float), 3).tolist() for y in (right, found))
    print(f"{title:21} ONNX Runtime {right!s:16} OpenVINO {found}")


accumulate = {"Add": np.add, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum}
for names, operator, start in (
    (("state", "element"), "Add", 0), (("element", "state"), "Add", 0), (("element", "state"), "Mul", 1),
    (("element", "state"), "Max", 0), (("element", "state"), "Min", 0),
):
    for dtype in (np.float32, np.int32, np.int64):
        scan([h.make_node(operator, list(names), ["new"])], dtype)
        x = elements.astype(dtype) + (operator == "Mul")
        right, found = both(start, x)
        rule, state, wanted = accumulate[operator], np.full(2, start, dtype), []
        for row in x:
            state = rule(row, state)
            wanted.append(state)
        assert np.array_equal(right[1], wanted) and np.array_equal(right[0], wanted[-1])
        seen = wanted if names[0] == "state" else [wanted[0], *(rule(row, row) for row in x[1:])]
        assert np.array_equal(found[1], seen) and np.array_equal(found[0], seen[-1]), "the behaviour has changed"
    show(f"{operator}({', '.join(names)})", right[0], found[0])

recurrence = [
    h.make_node("Constant", [], ["zero"], value_ints=[0]), h.make_node("Unsqueeze", ["state", "zero"], ["row"]),
    h.make_node("MatMul", ["row", "weights"], ["product"]), h.make_node("Squeeze", ["product", "zero"], ["of_state"]),
    h.make_node("Add", ["element", "of_state"], ["sum"]), h.make_node("Tanh", ["sum"], ["new"]),
]
scan(recurrence, np.float32)
x = (elements / 8).astype(np.float32)
right, found = both(0, x)
state, wanted = np.zeros(2), []
for row in x.astype(np.float64):
    state = np.tanh(row + state @ weights)
    wanted.append(state)
seen = np.tanh(x + np.concatenate([np.zeros((1, 2)), x[1:]]) @ weights)
assert np.allclose(right[1], wanted, atol=1e-5)
assert np.allclose(found[1], seen, atol=1e-5), "the behaviour has changed"
show("tanh(x + h W)", right[0], found[0])
PYTHON
