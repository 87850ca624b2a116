#!/bin/sh
# ONNX Runtime's quantize_static: a bias that two layers share is quantized once, so it counts four times, or a quarter, in one of them.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# A bias is divided by the scales of its layer's input and weights and rounded to int32, because it is added to the sums of products.
# Exporters store equal arrays once, and layers share them. The quantizer makes one integer tensor of such a bias, and each layer adds the
# integers to sums of its own scale. Where the second layer's weights are four times the first's:
# - QOperator: the bias has the scale of the first layer, and counts four times in the second. Conv and Gemm are alike.
# - QDQ: the bias has the scale of the last layer beside it, so the file is right, and so is a run without optimizations. With activations of
#   type uint8, the default optimizations fuse Gemm to QGemm, which takes the integers without this scale: a quarter in the first layer. Conv is
#   right, as are activations of type int8, for which nothing is fused.
# Calibration does not see it, as it runs the model before. What ONNX Runtime documents for debugging (the outputs with and without
# quantization, layer by layer) finds it only in runs with optimizations. Nothing warns.
#
# A pull request from 2021 that gave each Conv a bias of its own (onnxruntime 7982) was not merged; nothing about the fused QDQ was found.
#
# Output seen on 2026-11-29 (how often the bias is in the result):
#   Gemm, float                            1.00   1.00
#   Gemm, QUInt8, QOperator                1.00   3.82
#   Gemm, QUInt8, QDQ, not optimized       1.00   1.00
#   Gemm, QUInt8, QDQ                      0.25   1.00
#   Gemm, QInt8, QOperator                 1.00   3.90
#   Gemm, QInt8, QDQ, not optimized        1.00   1.00
#   Gemm, QInt8, QDQ                       1.00   1.00
#   Conv, float                            1.00   1.00
#   Conv, QUInt8, QOperator                1.00   3.80
#   Conv, QUInt8, QDQ, not optimized       1.00   1.00
#   Conv, QUInt8, QDQ                      1.00   1.00
#   Conv, QInt8, QOperator                 1.00   3.93
#   Conv, QInt8, QDQ, not optimized        1.00   1.00
#   Conv, QInt8, QDQ                       1.00   1.00
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

logging.disable(logging.CRITICAL)
generator = np.random.default_rng(0)
OFF, ON = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
SHAPES = {"Gemm": ([64, 16], (16, 6)), "Conv": ([64, 16, 1, 1], (6, 16, 1, 1))}


class Rows(CalibrationDataReader):
    def __init__(self, x):
        self.rest = iter([{"x": x}])

    def get_next(self):
        return next(self.rest, None)


def count_biases(operator, scales, bias, form, activation_type=QuantType.QUInt8, level=ON):
    """Return how often the bias is in each layer's result after quantization; one layer of `operator` for each scale of weights."""
    rows, shape = SHAPES[operator]
    x = generator.normal(size=rows).astype(np.float32)
    pattern = generator.normal(size=shape).astype(np.float32)
    weights = [pattern * np.float32(scale) for scale in scales]
    given = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)] + [numpy_helper.from_array(bias, "c")]
    nodes = [helper.make_node(operator, ["x", f"w{i}", "c"], [f"y{i}"]) for i in range(len(scales))]
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [64, 6, 1, 1][: len(rows)]) for i in range(len(scales))]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows)], outputs, given)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, "float.onnx")
    if form is not None:
        quantize_static("float.onnx", "q.onnx", Rows(x), quant_format=form, activation_type=activation_type, weight_type=QuantType.QInt8)
    file = "float.onnx" if form is None else "q.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    results = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    flat = x.reshape(64, 16).astype(np.float64)
    products = [flat @ (w if operator == "Gemm" else w.reshape(6, 16).T) for w in weights]
    return [float((y.reshape(64, 6) - p).mean(0) @ bias / (bias @ bias)) for y, p in zip(results, products)]


def check(name, counts, wanted):
    print(f"{name:36}", *(f"{count:6.2f}" for count in counts))
    assert np.allclose(counts, wanted, rtol=0.1), f"{name} has changed"


bias = np.array([1, -2, 1.5, -1, 2, 0.5], np.float32)
for operator in SHAPES:
    check(f"{operator}, float", count_biases(operator, (0.25, 1), bias, None), (1, 1))
    for activation_type in (QuantType.QUInt8, QuantType.QInt8):
        for name, form, level in (("QOperator", QuantFormat.QOperator, ON), ("QDQ, not optimized", QuantFormat.QDQ, OFF), ("QDQ", QuantFormat.QDQ, ON)):
            counts = count_biases(operator, (0.25, 1), bias, form, activation_type, level)
            fused = (operator, activation_type, level) == ("Gemm", QuantType.QUInt8, ON)
            wanted = (1, 4) if name == "QOperator" else (0.25, 1) if fused else (1, 1)
            check(f"{operator}, {activation_type.name}, {name}", counts, wanted)
PYTHON
