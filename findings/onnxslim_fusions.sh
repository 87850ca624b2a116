#!/bin/sh
# onnxslim: fusions of scales look at a constant's length and not at the axis, nor at who else reads what is scaled.
#
# Versions: onnxslim 0.1.98, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# A Mul by four numbers goes into the four filters of a Conv although it scales the columns of an image of width 4 (Add behind a Conv is
# looked at rightly). A Mul behind Reshape and Gemm goes into the weights of the Gemm: whoever else reads the Gemm gets scaled numbers,
# and a column [16, 1] that is multiplied by a row stays a column. MatMul and Add become Gemm although the bias has more rows, which Gemm
# does not broadcast to. An input that only said a shape is taken off the model: calls that give it fail. All of it by the defaults of
# onnxslim.slim, which says nothing.
#
# Output seen:
#   filters of a convolution    right: (1, 4, 4, 4)   after onnxslim: as before
#   columns of a convolution    right: (1, 4, 4, 4)   after onnxslim: other numbers
#   a second reader of a Gemm   right: (2, 4)   after onnxslim: other numbers
#   a column times a row        right: (16, 4)   after onnxslim: (16, 1)
#   a bias of two rows          right: (2, 2, 4)   after onnxslim: (2, 1, 4)
#   inputs                      right: ['x', 'n']   after onnxslim: ['x']
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q onnxslim==0.1.98 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import onnxslim

generator = np.random.default_rng(0)


def draw(*shape):
    return generator.normal(size=shape).astype(np.float32)


def session(model):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def before_and_after(text, x, **constants):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    onnx.checker.check_model(model, full_check=True)
    right = session(model).run(None, {"x": x})[0]
    return right, session(onnxslim.slim(model)).run(None, {"x": x})[0]


def check(name, right, slim, wanted):
    if right.shape == slim.shape:
        found = "as before" if np.allclose(right, slim, rtol=1e-4, atol=1e-5) else "other numbers"
    else:
        found = slim.shape
    print(f"{name:27} right: {right.shape}   after onnxslim: {found}")
    assert found == wanted, f"onnxslim has changed: {found}"


image, filters = draw(1, 3, 4, 4), draw(4, 3, 1, 1)
conv = "(float[1,3,4,4] x) => (float[1,4,4,4] y) { c = Conv(x, w) y = Mul(c, m) }"
check("filters of a convolution", *before_and_after(conv, image, w=filters, m=draw(1, 4, 1, 1)), "as before")
check("columns of a convolution", *before_and_after(conv, image, w=filters, m=draw(4)), "other numbers")
gemm = "c = Gemm<transB=1>(x, w)"
shared = f"(float[2,3] x) => (float[2,4] y, float[1,2,4] z) {{ {gemm} y = Relu(c) d = Reshape(c, s) z = Mul(d, m) }}"
check("a second reader of a Gemm", *before_and_after(shared, draw(2, 3), w=draw(4, 3), m=draw(4), s=[1, 2, 4]), "other numbers")
column = f"(float[4,3] x) => (float[16,4] y) {{ {gemm} d = Reshape(c, s) y = Mul(d, m) }}"
check("a column times a row", *before_and_after(column, draw(4, 3), w=draw(4, 3), m=draw(4), s=[16, 1]), (16, 1))
rows = "(float[2,1,3] x) => (float[2,2,4] y) { c = MatMul(x, w) y = Add(c, b) }"
check("a bias of two rows", *before_and_after(rows, draw(2, 1, 3), w=draw(3, 4), b=draw(2, 4)), (2, 1, 4))
model = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["": 20]> g (float[2,3,4] x, int64[1] n) => (float[6,4] y) '
    "<int64[1] k = {4}> { s = Concat<axis=0>(n, k) y = Reshape(x, s) }"
)
onnx.checker.check_model(model, full_check=True)
inputs = [[each.name for each in session(which).get_inputs()] for which in (model, onnxslim.slim(model))]
print(f"{'inputs':27} right: {inputs[0]}   after onnxslim: {inputs[1]}")
assert inputs == [["x", "n"], ["x"]], inputs
PYTHON
