#!/bin/sh
# onnx2torch: CumSum without attributes runs backwards, NonZero is transposed, and PReLU's slopes for columns go to channels.
#
# Versions: onnx2torch 1.5.15, torch 2.13.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# The package makes a PyTorch module of an ONNX file and refuses operators and attributes that it does not know (NotImplementedError).
# These it converts without an error or a warning:
# - CumSum has reverse=0 by default, and PyTorch's exporter leaves the attribute out. Here its default is 1: the sums run from the end to
#   the beginning. Positions that models of text compute from a mask are counted down.
# - NonZero gives a row for each axis; here, as torch.nonzero, a row for each element.
# - PReLU's slopes broadcast from the last axis, so a vector belongs to the columns. Here it belongs to the channels if their number agrees.
# - Pow of integers by floats is of the first's type; here of floats.
# With reverse given, a slope for each channel [C, 1, 1] and equal types, the results agree.
#
# The script puts an empty module in the place of torchvision, which onnx2torch needs for two other operators. No report of these was found.
#
# Output seen on 2026-11-29:
#   CumSum, reverse=0          onnxruntime (4,) float32 [1.0, 3.0, 6.0, 10.0]             onnx2torch the same
#   CumSum                     onnxruntime (4,) float32 [1.0, 3.0, 6.0, 10.0]             onnx2torch (4,) float32 [10.0, 9.0, 7.0, 4.0]
#   CumSum, exclusive          onnxruntime (4,) float32 [0.0, 1.0, 3.0, 6.0]              onnx2torch (4,) float32 [9.0, 7.0, 4.0, 0.0]
#   NonZero                    onnxruntime (2, 3) int64 [0.0, 0.0, 1.0, 0.0]              onnx2torch (3, 2) int64 [0.0, 0.0, 0.0, 2.0]
#   PReLU, slopes [2, 1, 1]    onnxruntime (1, 2, 2, 2) float32 [-1.0, -1.0, -1.0, -1.0]  onnx2torch the same
#   PReLU, slopes [2]          onnxruntime (1, 2, 2, 2) float32 [-1.0, -2.0, -1.0, -2.0]  onnx2torch (1, 2, 2, 2) float32 [-1.0, -1.0, -1.0, -1.0]
#   Pow, integers              onnxruntime (3,) int64 [4.0, 9.0, 16.0]                    onnx2torch the same
#   Pow, integers by floats    onnxruntime (3,) int64 [1.0, 1.0, 2.0]                     onnx2torch (3,) float32 [1.414, 1.732, 2.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/env/bin/pip" install -q --no-deps onnx2torch==1.5.15
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import sys
import types

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

vision, operators = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
operators.nms = operators.roi_align = None
vision.ops = operators
sys.modules.update({"torchvision": vision, "torchvision.ops": operators})
from onnx2torch import convert  # noqa: E402


def check(name, operator, x, result, right, given=(), opset=13, **attributes):
    """Compare both results of one node; `result` is the dtype of the result, `right` says that both agree."""
    types_of = [helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in (x.dtype, result)]
    node = helper.make_node(operator, ["x", *(f"c{i}" for i in range(len(given)))], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", types_of[0], x.shape)],
        [helper.make_tensor_value_info("y", types_of[1], [None] * x.ndim)],
        [numpy_helper.from_array(value, f"c{i}") for i, value in enumerate(given)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    wanted = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    with torch.no_grad():
        found = convert(model).eval()(torch.from_numpy(x)).numpy()
    same = wanted.shape == found.shape and wanted.dtype == found.dtype and np.allclose(wanted, found, atol=1e-5)
    shown = [f"{y.shape} {y.dtype} {np.round(y.astype(float), 3).ravel()[:4].tolist()}" for y in (wanted, found)]
    print(f"{name:26} onnxruntime {shown[0]:46} onnx2torch {'the same' if same else shown[1]}")
    assert same == right, f"{name} has changed"
    return wanted, found


row = np.array([1, 2, 3, 4], np.float32)
axis = [np.array(0)]
check("CumSum, reverse=0", "CumSum", row, np.float32, True, axis, reverse=0)
right, found = check("CumSum", "CumSum", row, np.float32, False, axis)
assert found.tolist() == np.cumsum(row[::-1])[::-1].tolist(), "CumSum has changed"
right, found = check("CumSum, exclusive", "CumSum", row, np.float32, False, axis, exclusive=1)
assert found.tolist() == [9, 7, 4, 0], "CumSum has changed"

holes = np.array([[1, 0, 2], [0, 3, 0]], np.float32)
right, found = check("NonZero", "NonZero", holes, np.int64, False)
assert np.array_equal(right.T, found), "NonZero has changed"

square = -np.ones((1, 2, 2, 2), np.float32)
slopes = np.array([1, 2], np.float32)
check("PReLU, slopes [2, 1, 1]", "PRelu", square, np.float32, True, [slopes[:, None, None]], opset=16)
check("PReLU, slopes [2]", "PRelu", square, np.float32, False, [slopes], opset=16)
whole = np.array([2, 3, 4])
check("Pow, integers", "Pow", whole, np.int64, True, [np.array([2, 2, 2])])
check("Pow, integers by floats", "Pow", whole, np.int64, False, [np.array([0.5, 0.5, 0.5], np.float32)])
PYTHON
