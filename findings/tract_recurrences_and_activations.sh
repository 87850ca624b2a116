#!/bin/sh
# tract ignores direction, activations and clip of RNN, GRU and LSTM, drops Celu's factor, and overflows in Softplus and LogSoftmax.
#
# Versions: tract 0.23.9, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Each model is valid for ONNX's checker; tract loads, optimizes and runs it without an error.
# - A recurrent layer of one direction, "reverse", has the results of the same layer with "forward"; the second half of a "bidirectional"
#   layer is right. The attributes activations (so a ReLU network of PyTorch), clip and input_forget are not read.
# - Celu is max(0, x) + min(0, alpha * (exp(x / alpha) - 1)); the outer alpha is left out.
# - GlobalLpPool is the norm of a whole channel; here the sum is divided by the number of elements before the root.
# - Softplus above 89 is infinite, LogSoftmax of a value that is 89 below the largest is -infinity, and ReduceLogSumExp of 100 is infinite:
#   the exponential is taken in float32 before anything is subtracted.
#
# Output seen:
#   RNN forward              onnxruntime [0.462, 0.843, 0.958]    tract [0.462, 0.843, 0.958]
#   RNN reverse              onnxruntime [0.739, 0.896, 0.905]    tract [0.462, 0.843, 0.958]
#   RNN with Relu            onnxruntime [0.5, 1.25, 2.125]       tract [0.462, 0.843, 0.958]
#   RNN, clip 0.1            onnxruntime [0.1, 0.1, 0.1]          tract [0.462, 0.843, 0.958]
#   GRU: tract's reverse is its forward: True
#   LSTM: tract's reverse is its forward: True
#   Celu, alpha 2            onnxruntime [-1.264, 3.0]            tract [-0.632, 3.0]
#   GlobalLpPool, p 1        onnxruntime [10.0]                   tract [2.5]
#   Softplus                 onnxruntime [1.313, 200.0]           tract [1.313, inf]
#   LogSoftmax               onnxruntime [-201.0, 0.0]            tract [-inf, 0.0]
#   ReduceLogSumExp          onnxruntime [101.313]                tract [inf]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q tract==0.23.9 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import tract

f32 = np.float32


def run(text, opset, x):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> g {text}')
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    runnable = tract.onnx().load("model.onnx").into_model().into_runnable()
    return session.run(None, {"x": x})[0], runnable.run([x])[0].to_numpy()


def check(title, opset, text, x, wanted, seen):
    right, found = (np.round(y.astype(float), 3).ravel().tolist() for y in run(text, opset, x))
    print(f"{title:24} onnxruntime {right!s:24} tract {found}")
    assert right == wanted and found == seen, "the behaviour has changed"


steps = np.array([1, 2, 3], f32).reshape(3, 1, 1)
text = "(float[3,1,1] x) => (float[3,1,1,1] y) <float[1,1,1] w = {{0.5}}, float[1,1,1] r = {{0.5}}> {{ y = RNN<hidden_size = 1{}>(x, w, r) }}"
forward = [0.462, 0.843, 0.958]
for title, attribute, wanted in (
    ("RNN forward", "", forward),
    ("RNN reverse", ', direction = "reverse"', [0.739, 0.896, 0.905]),
    ("RNN with Relu", ', activations = ["Relu"]', [0.5, 1.25, 2.125]),
    ("RNN, clip 0.1", ", clip = 0.1", [0.1, 0.1, 0.1]),
):
    check(title, 20, text.format(attribute), steps, wanted, forward)
for kind, gates in {"GRU": 3, "LSTM": 4}.items():
    values = ", ".join(str((i + 1) / 4) for i in range(gates))
    text = "(float[3,1,1] x) => (float[3,1,1,1] y) <float[1,{0},1] w = {{{1}}}, float[1,{0},1] r = {{{1}}}> {{ y = {2}<hidden_size = 1{3}>(x, w, r) }}"
    found = []
    for attribute, wanted in (("", True), (', direction = "reverse"', False)):
        right, seen = run(text.format(gates, values, kind, attribute), 20, steps)
        assert np.allclose(right, seen, atol=1e-5) == wanted, "the behaviour has changed"
        found.append(seen)
    same = bool(np.array_equal(*found))
    print(f"{kind}: tract's reverse is its forward: {same}")
    assert same, "the behaviour has changed"
check(
    "Celu, alpha 2",
    20,
    "(float[2] x) => (float[2] y) { y = Celu<alpha = 2.0>(x) }",
    np.array([-2, 3], f32),
    [-1.264, 3.0],
    [-0.632, 3.0],
)
check(
    "GlobalLpPool, p 1",
    20,
    "(float[1,1,4] x) => (float[1,1,1] y) { y = GlobalLpPool<p = 1>(x) }",
    np.array([[[1, 2, 3, 4]]], f32),
    [10.0],
    [2.5],
)
check("Softplus", 20, "(float[2] x) => (float[2] y) { y = Softplus(x) }", np.array([1, 200], f32), [1.313, 200.0], [1.313, np.inf])
check(
    "LogSoftmax",
    20,
    "(float[1,2] x) => (float[1,2] y) { y = LogSoftmax(x) }",
    np.array([[-1, 200]], f32),
    [-201.0, 0.0],
    [-np.inf, 0.0],
)
check(
    "ReduceLogSumExp",
    17,
    "(float[2] x) => (float[1] y) { y = ReduceLogSumExp<axes = [0]>(x) }",
    np.array([100, 101], f32),
    [101.313],
    [np.inf],
)
PYTHON
