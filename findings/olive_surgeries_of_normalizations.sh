#!/bin/sh
# Olive: graph surgeries look at the kinds of nodes, and not at attributes, axes and operands: activations and normalizations are others.
#
# Versions: olive-ai 0.13.0, torch 2.13.0, transformers 4.57.6, onnx 1.23.2, onnxruntime 1.32.0, onnxscript 0.7.2, Python 3.11, Linux x86-64.
#
# The pass GraphSurgeries replaces parts of an ONNX model by equal ones for a processor that lacks them. These are not equal:
# - DecomposeQuickGelu writes 1.702 for every alpha. ONNX Runtime makes QuickGelu with alpha = 1 of SiLU: it becomes a GELU.
# - SimplifiedLayerNormToRMSNorm has epsilon 1e-6 for every epsilon; the operator's own default is 1e-5.
# - RMSNormToL2Norm takes any axes and any epsilon for the last axis and 1e-6, and a weight of one element for a row of length one.
# - PowReduceSumPowDiv2LpNorm takes any axes, too, and what is divided by the norm of x is always x: z / norm(x) becomes x / norm(x), and z
#   is no input any more.
# - MatMulAddToGemm flattens rows for Gemm. If Relu is the model's output, nothing gives them their shape back.
# Their documentation draws the patterns with axis -1 and this epsilon; others are replaced as well. Nothing is logged.
#
# Output seen (the first number of the result):
#   QuickGelu, alpha 1.702           model   0.070 (2, 3, 4)  after DecomposeQuickGelu              0.070 (2, 3, 4)
#   QuickGelu, alpha 1.0             model   0.067 (2, 3, 4)  after DecomposeQuickGelu              0.070 (2, 3, 4)
#   RMS norm, epsilon 1e-06          model  -0.746 (2, 3, 4)  after SimplifiedLayerNormToRMSNorm   -0.746 (2, 3, 4)
#   RMS norm, epsilon 0.01           model  -0.715 (2, 3, 4)  after SimplifiedLayerNormToRMSNorm   -0.746 (2, 3, 4)
#   RMS norm, last axis              model   0.746 (2, 3, 4)  after RMSNormToL2Norm                 0.746 (2, 3, 4)
#   RMS norm, axis 1                 model   0.488 (2, 3, 4)  after RMSNormToL2Norm                 0.746 (2, 3, 4)
#   RMS norm, epsilon 1              model   0.238 (2, 3, 4)  after RMSNormToL2Norm                 0.746 (2, 3, 4)
#   RMS norm, one weight             model   0.746 (2, 3, 4)  after RMSNormToL2Norm                 0.373 (2, 3, 4)
#   x / norm, last axis              model   0.187 (2, 3, 4)  after PowReduceSumPowDiv2LpNorm       0.187 (2, 3, 4)
#   x / norm, axis 1                 model   0.141 (2, 3, 4)  after PowReduceSumPowDiv2LpNorm       0.187 (2, 3, 4)
#   z / norm                         model  -3.449 (2, 3, 4)  after PowReduceSumPowDiv2LpNorm       0.187 (2, 3, 4)
#   Relu, then Neg                   model  -1.126 (2, 3, 5)  after MatMulAddToGemm                -1.126 (2, 3, 5)
#   Relu                             model   1.126 (2, 3, 5)  after MatMulAddToGemm                 1.126 (6, 5)
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q torch==2.13.0
"$folder/environment/bin/pip" install -q olive-ai==0.13.0 transformers==4.57.6 onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2
cd "$folder"
HF_HUB_OFFLINE=1 OLIVE_DISABLE_TELEMETRY=1 "$folder/environment/bin/python" -W ignore - 2>/dev/null <<'PYTHON'
import logging

import numpy as np
import onnx
import onnxruntime
from olive.model import ONNXModelHandler
from olive.passes.olive_pass import create_pass_from_dict
from olive.passes.onnx.graph_surgeries import GraphSurgeries

logging.disable(logging.CRITICAL)
x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
X = x.astype(np.float64)


def run(path, feeds):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {each.name: feeds[each.name] for each in session.get_inputs()})[0]


def check(name, surgeon, text, right, equal=False, feeds=None, **constants):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20, "com.microsoft": 1]> g {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items())
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{i}"
    onnx.save(model, "model.onnx")
    surgeries = create_pass_from_dict(GraphSurgeries, {"surgeries": [{"surgeon": surgeon}]}, disable_search=True)
    operated = surgeries.run(ONNXModelHandler(model_path="model.onnx"), f"operated-{name.replace(' ', '-')}")
    feeds = {"x": x} | (feeds or {})
    before, after = run("model.onnx", feeds), run(operated.model_path, feeds)
    assert np.allclose(before, right, rtol=1e-3, atol=1e-5), name
    same = before.shape == after.shape and np.allclose(after, right, rtol=1e-3, atol=1e-5)
    shown = [f"{y.ravel()[0]:7.3f} {y.shape!s:9}" for y in (before, after)]
    print(f"{name:32} model {shown[0]}  after {surgeon:29} {shown[1]}")
    assert same == equal, f"Olive has changed: {name}"


table = lambda body: f"(float[2,3,4] x) => (float[2,3,4] y) {{ {body} }}"
for alpha in (1.702, 1.0):
    right = X / (1 + np.exp(-alpha * X))
    check(f"QuickGelu, alpha {alpha}", "DecomposeQuickGelu", table(f"y = com.microsoft.QuickGelu<alpha={alpha}>(x)"), right, alpha == 1.702)
weight, two, half = np.full(4, 2, np.float32), np.float32(2), np.float32(0.5)
for epsilon in (1e-6, 1e-2):
    body = f"n = SimplifiedLayerNormalization<axis=-1, epsilon={epsilon:.6f}>(x, w) y = Neg(n)"
    right = -2 * X / np.sqrt((X * X).mean(-1, keepdims=True) + epsilon)
    check(f"RMS norm, epsilon {epsilon:g}", "SimplifiedLayerNormToRMSNorm", table(body), right, epsilon == 1e-6, w=weight)
body = table("p = Pow(x, two) m = ReduceMean(p, axes) a = Add(m, epsilon) s = Sqrt(a) d = Div(x, s) y = Mul(d, w)")
for name, axis, epsilon, scale in (("last axis", -1, 1e-6, weight), ("axis 1", 1, 1e-6, weight), ("epsilon 1", -1, 1, weight), ("one weight", -1, 1e-6, weight[:1])):
    right = 2 * X / np.sqrt((X * X).mean(axis, keepdims=True) + epsilon)
    constants = {"two": [two], "axes": np.int64([axis]), "epsilon": np.float32([epsilon]), "w": scale}
    check(f"RMS norm, {name}", "RMSNormToL2Norm", body, right, name == "last axis", **constants)
norm = "p = Pow(x, two) s = ReduceSum(p, axes) n = Pow(s, half)"
z = x[::-1].copy()
for name, axis, text, divided in (
    ("x / norm, last axis", -1, table(f"{norm} y = Div(x, n)"), X), ("x / norm, axis 1", 1, table(f"{norm} y = Div(x, n)"), X),
    ("z / norm", -1, f"(float[2,3,4] x, float[2,3,4] z) => (float[2,3,4] y) {{ {norm} y = Div(z, n) }}", X[::-1]),
):
    right = divided / np.sqrt((X * X).sum(axis, keepdims=True))
    check(name, "PowReduceSumPowDiv2LpNorm", text, right, "last" in name, {"z": z}, two=two, half=half, axes=np.int64([axis]))
weights, bias = np.eye(4, 5, dtype=np.float32), np.ones(5, np.float32)
dense = lambda last: f"(float[2,3,4] x) => (float[2,3,5] y) {{ m = MatMul(x, w) a = Add(m, b) {last} }}"
right = np.maximum(X @ weights + bias, 0)
check("Relu, then Neg", "MatMulAddToGemm", dense("r = Relu(a) y = Neg(r)"), -right, True, w=weights, b=bias)
check("Relu", "MatMulAddToGemm", dense("y = Relu(a)"), right, w=weights, b=bias)
PYTHON
