#!/bin/sh
# NNCF: weights of four bits of an ONNX model before opset 21 change the product itself: a factor, a transposition, the order are lost.
#
# Versions: nncf 3.4.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# compress_weights puts a DequantizeLinear before a layer from opset 21 on. Before, which torch.onnx.export still writes by default, blocks
# need ONNX Runtime's MatMulNBits, which multiplies its input by weights and adds a bias, and NNCF replaces MatMul and Gemm by it:
# - alpha and beta of Gemm are forgotten: a factor of 2 is 1, and a bias that beta = 0 switches off is added.
# - transA is forgotten: the input is not transposed.
# - MatMul(weights, x), with the weights first, becomes x times weights.
# Where sizes differ, the model does not load; where they are equal, the numbers are others. No mode with groups warns. INT8 and the same
# graph with opset 21 are right, as are models without groups.
#
# Output seen (how much of the right result is in the result, by least squares, and the greatest error by the greatest result):
#                              INT8, opset 20  INT4_SYM, 21    INT4_SYM, 20    INT4_ASYM, 20
#   MatMul(x, w)                 1.00  0.00     0.99  0.11     0.99  0.11     0.97  0.08
#   Gemm(x, w, c)                1.00  0.00     1.00  0.07     1.00  0.07     0.99  0.05
#   Gemm<alpha=2.0>(x, w)        1.00  0.00     0.99  0.11     0.49  0.50     0.48  0.51
#   Gemm<beta=0.0>(x, w, c)      1.00  0.00     0.99  0.11     1.03  1.03     1.01  1.03
#   Gemm<transA=1>(x, w)         1.00  0.00     0.99  0.08     0.05  1.05     0.04  1.05
#   MatMul(w, x)                 1.00  0.00     0.98  0.08     0.01  1.58     0.00  1.58
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q nncf==3.4.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" -W ignore - 2>/dev/null <<'PYTHON'
import contextlib
import io
import logging

import numpy as np
import onnx
import onnxruntime

with contextlib.redirect_stdout(io.StringIO()):
    import nncf
logging.disable(logging.CRITICAL)
generator = np.random.default_rng(0)
x = generator.normal(size=(32, 32)).astype(np.float32)
weights = (generator.integers(-7, 8, (32, 32)) / 4).astype(np.float32)
bias = (10 * generator.normal(size=32)).astype(np.float32)
W, X = weights.astype(np.float64), x.astype(np.float64)


def run(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def compress(node, opset, mode):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> g (float[32,32] x) => (float[32,32] y) {{ y = {node} }}')
    model.graph.node[0].name = "layer"
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for array, name in ((weights, "w"), (bias, "c")) if name in node.split("(")[1])
    onnx.checker.check_model(model, full_check=True)
    options = {} if mode == "INT8_ASYM" else {"group_size": 32, "ratio": 1.0, "all_layers": True}
    before = run(model)
    with contextlib.redirect_stdout(io.StringIO()):
        compressed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode[mode], **options)
    return before, run(compressed)


def check(node, right, share_of_four_bits=1, is_right=False):
    seen = []
    for opset, mode in ((20, "INT8_ASYM"), (21, "INT4_SYM"), (20, "INT4_SYM"), (20, "INT4_ASYM")):
        before, after = compress(node, opset, mode)
        assert np.allclose(before, right, atol=1e-3)
        seen.append(((after * right).sum() / (right * right).sum(), np.abs(after - right).max() / np.abs(right).max()))
    print(f"{node:26}", *(f"{share:6.2f} {error:5.2f}  " for share, error in seen))
    for i, (share, error) in enumerate(seen):
        wanted, close = (1, True) if i < 2 else (share_of_four_bits, is_right)
        assert abs(share - wanted) < 0.1 and (error < 0.2) == close, f"NNCF has changed: {node} {seen}"


print(f"{'':26} INT8, opset 20  INT4_SYM, 21    INT4_SYM, 20    INT4_ASYM, 20")
check("MatMul(x, w)", X @ W, is_right=True)
check("Gemm(x, w, c)", X @ W + bias, is_right=True)
check("Gemm<alpha=2.0>(x, w)", 2 * (X @ W), 0.5)
check("Gemm<beta=0.0>(x, w, c)", X @ W)
check("Gemm<transA=1>(x, w)", X.T @ W, 0)
check("MatMul(w, x)", W @ X, 0)
PYTHON
