#!/bin/sh
# MNN's converter for ONNX: Split drops the rest, Pad takes nothing off, OneHot puts classes first, logarithms of sums are clamped.
#
# Versions: MNN 3.6.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Each model is valid for ONNX's checker; MNN converts and runs it without an error.
# - Split with num_outputs gives the last output what is left; here each has the quotient rounded down, and the last numbers are in none.
# - Pad by a negative number takes numbers off; here negative pads are 0, in a result of the right shape.
# - OneHot without an axis puts the classes last; here first. The transposed result has the same number of elements.
# - Einsum ii->i is the diagonal; here the matrix comes back.
# - LogSoftmax before opset 13 works over all axes from the given one on; here over that one alone. (Softmax-11 is right.)
# - The exponential is taken of at most 87, and nothing is subtracted before: Softplus ends at 87, ReduceLogSumExp of n numbers at
#   87 + log(n), and as both are finite nothing shows.
# - Round rounds halves to even; here away from zero.
#
# Output seen:
#   Split of 7, num_outputs 2      ONNX Runtime [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]    MNN [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
#   Pad by -1 and 1                ONNX Runtime [[[1.0, 2.0, 0.0], [4.0, 5.0, 0.0]]]       MNN [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]
#   OneHot                         ONNX Runtime [[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]       MNN [[[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]]
#   Einsum ii->i                   ONNX Runtime [[1.0, 4.0]]                               MNN [[[1.0, 2.0], [3.0, 4.0]]]
#   LogSoftmax-11 of [1, 2, 2]     ONNX Runtime [[[[-1.386, -1.386], [-1.386, -1.386]]]]   MNN [[[[-0.693, -0.693], [-0.693, -0.693]]]]
#   ReduceLogSumExp of 100 and 101 ONNX Runtime [[101.313]]                                MNN [87.693]
#   Softplus of 200                ONNX Runtime [[200.0]]                                  MNN [[87.0]]
#   Round of halves                ONNX Runtime [[0.0, 2.0, 2.0]]                          MNN [[1.0, 2.0, 3.0]]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q MNN==3.6.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" - <<'PYTHON'
import subprocess
import sys

import MNN.expr
import MNN.nn
import numpy as np
import onnx
import onnxruntime


# the command mnnconvert calls the same function and then reports its arguments to a server, for which it installs a package
CONVERT = "import MNN, _tools; _tools.mnnconvert('mnnconvert -f ONNX --modelFile model.onnx --MNNModel model.mnn --bizCode none'.split())"


def run(opset, text, x):
    """Return what ONNX Runtime and MNN give for an ONNX model of one input `x` and outputs `y` (and `z`)."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> graph {text}')
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    right = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})
    subprocess.run([sys.executable, "-c", CONVERT], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    net = MNN.nn.load_module_from_file("model.mnn", ["x"], [output.name for output in model.graph.output])
    kind = MNN.expr.float if x.dtype == np.float32 else MNN.expr.int
    tensor = MNN.expr.const(x.astype(np.float32 if kind == MNN.expr.float else np.int32), list(x.shape), MNN.expr.NCHW, kind)
    found = net.forward([tensor])
    found = [np.array(y.read()).reshape(y.shape) for y in (found if isinstance(found, list) else [found])]
    return right, found


def check(title, opset, text, x, wanted, seen):
    right, found = ([np.round(y.astype(float), 3).tolist() for y in results] for results in run(opset, text, x))
    print(f"{title:30} ONNX Runtime {right}".ljust(86), f"MNN {found}", flush=True)
    assert right == wanted
    assert found == seen, "the behaviour has changed"


seven = np.arange(7, dtype=np.float32)
table = np.arange(6, dtype=np.float32).reshape(2, 3)
parts = "(float[7] x) => (float[{}] y, float[{}] z) {{ y, z = Split<axis = 0, num_outputs = 2>(x) }}"
check("Split of 7, num_outputs 2", 21, parts.format(4, 3), seven, [[0, 1, 2, 3], [4, 5, 6]], [[0, 1, 2], [3, 4, 5]])
pad = "(float[2,3] x) => (float[2,3] y) <int64[4] pads = {0, -1, 0, 1}> { y = Pad(x, pads) }"
check("Pad by -1 and 1", 21, pad, table, [[[1, 2, 0], [4, 5, 0]]], [[[0, 1, 2], [3, 4, 5]]])
hot = "(int64[2] x) => (float[2,3] y) <int64 depth = {3}, float[2] values = {0, 1}> { y = OneHot(x, depth, values) }"
check("OneHot", 21, hot, np.array([0, 2]), [[[1, 0, 0], [0, 0, 1]]], [[[1, 0], [0, 0], [0, 1]]])
diagonal = '(float[2,2] x) => (float[2] y) { y = Einsum<equation = "ii->i">(x) }'
check("Einsum ii->i", 21, diagonal, np.array([[1, 2], [3, 4]], np.float32), [[1, 4]], [[[1, 2], [3, 4]]])
check(
    "LogSoftmax-11 of [1, 2, 2]", 11, "(float[1,2,2] x) => (float[1,2,2] y) { y = LogSoftmax<axis = 1>(x) }",
    np.zeros((1, 2, 2), np.float32), [[[[-1.386, -1.386]] * 2]], [[[[-0.693, -0.693]] * 2]],
)
check(
    "ReduceLogSumExp of 100 and 101", 17, "(float[2] x) => (float[1] y) { y = ReduceLogSumExp<axes = [0]>(x) }",
    np.array([100, 101], np.float32), [[101.313]], [87.693],
)
check("Softplus of 200", 21, "(float[1] x) => (float[1] y) { y = Softplus(x) }", np.array([200], np.float32), [[200]], [[87]])
check("Round of halves", 21, "(float[3] x) => (float[3] y) { y = Round(x) }", np.array([0.5, 1.5, 2.5], np.float32), [[0, 2, 2]], [[1, 2, 3]])
PYTHON
