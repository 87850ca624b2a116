#!/bin/sh
# ONNX Runtime: ReduceSum and ReduceProd of int64 are computed in float64, so a sum over one number is another number above 2^53.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# ReduceSum is defined for int64, and other operators that add are exact: CumSum and Add. The kernel of ReduceSum adds in
# float64 and converts the result back. Numbers above 2^53 (9.0e15), as times in nanoseconds (1.7e18), hashes and identifiers are, lose their
# last digits: the sum over an axis of length 1 of 1700000000000000001 is 1700000000000000000. That holds for each axis and for all at once, with
# and without optimizations. ReduceProd and Einsum do the same; ReduceMax does not.
# There is no warning, and the result has the type int64. The reference evaluator of the package onnx is exact.
#
# Pull request 28743 (2026, numerical accuracy) says that sums of integers saturate now where they wrapped; of the lost digits it says nothing
# that could be found, and no report was found.
#
# Output seen on 2026-11-29:
#   ReduceSum of one number  right 1700000000000000001                            ONNX Runtime 1700000000000000000
#   ReduceSum, axis 0        right [9007199254740994, 9007199254740995]           ONNX Runtime [9007199254740992, 9007199254740994]
#   ReduceSum, axis 1        right [18014398509481986, 3]                         ONNX Runtime [18014398509481984, 3]
#   ReduceProd of one number right 1700000000000000001                            ONNX Runtime 1700000000000000000
#   ReduceMax of one number  right 1700000000000000001                            ONNX Runtime 1700000000000000001
#   Einsum of one number     right 1700000000000000001                            ONNX Runtime 1700000000000000000
#   CumSum of one number     right [1700000000000000001]                          ONNX Runtime [1700000000000000001]
#   CumSum, axis 1           right [[9007199254740993, 18014398509481986], [1, 3]] ONNX Runtime [[9007199254740993, 18014398509481986], [1, 3]]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

OFF, ON = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def check(name, operator, x, right, wanted, given=(), **attributes):
    """`right` is the exact result, `wanted` what ONNX Runtime gives."""
    node = helper.make_node(operator, ["x", *(f"c{i}" for i in range(len(given)))], ["y"], **attributes)
    values = [helper.make_tensor_value_info(key, TensorProto.INT64, shape) for key, shape in (("x", x.shape), ("y", np.shape(right)))]
    constants = [numpy_helper.from_array(value, f"c{i}") for i, value in enumerate(given)]
    graph = helper.make_graph([node], "g", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    for level in (OFF, ON):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run(None, {"x": x})[0]
        assert found.dtype == np.int64 and np.array_equal(found, wanted), f"{name} has changed: {found}"
    assert np.array_equal(ReferenceEvaluator(model).run(None, {"x": x})[0], right), f"{name}: the reference"
    print(f"{name:24} right {np.asarray(right).tolist()!s:46} ONNX Runtime {found.tolist()}")


time = 1700000000000000001
one = np.array([time])
pairs = np.array([[2**53 + 1, 2**53 + 1], [1, 2]])
check("ReduceSum of one number", "ReduceSum", one, time, time - 1, keepdims=0)
axes = [np.array([0])], [np.array([1])]
check("ReduceSum, axis 0", "ReduceSum", pairs, pairs.sum(0), [2**53, 2**53 + 2], axes[0], keepdims=0)
check("ReduceSum, axis 1", "ReduceSum", pairs, pairs.sum(1), [2**54, 3], axes[1], keepdims=0)
check("ReduceProd of one number", "ReduceProd", one, time, time - 1, keepdims=0)
check("ReduceMax of one number", "ReduceMax", one, time, time, keepdims=0)
check("Einsum of one number", "Einsum", one, time, time - 1, equation="i->")
check("CumSum of one number", "CumSum", one, one, one, [np.array(0)])
check("CumSum, axis 1", "CumSum", pairs, pairs.cumsum(1), pairs.cumsum(1), [np.array(1)])
PYTHON
