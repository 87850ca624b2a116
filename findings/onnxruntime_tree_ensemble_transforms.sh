#!/bin/sh
# ONNX's TreeEnsemble (ai.onnx.ml, version 5) names its transforms by numbers. Three implementations, three meanings.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# The standard: post_transform 0 is NONE, 1 SOFTMAX, 2 LOGISTIC, 3 SOFTMAX_ZERO, 4 PROBIT. Earlier versions of the
# operator had these words as texts, so exporters that move to version 5 write the numbers.
# ONNX Runtime computes the logistic function for 1 and softmax for 2: its own enumeration has them in the other order.
# The evaluator of the package onnx computes neither: it returns the sums for every number.
# So a classifier's probabilities differ by engine without an error or a warning. With one target ONNX Runtime also returns
# the sums (known: onnxruntime issues 24862 and 26596); the exchange shows from two targets on.
#
# Output seen, for the sums [1, 3]:
#   transform  standard            onnxruntime         onnx
#   1          [0.1192, 0.8808]    [0.7311, 0.9526]    [1.0, 3.0]
#   2          [0.7311, 0.9526]    [0.1192, 0.8808]    [1.0, 3.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def stumps(transform):
    """Two trees of one node and two leaves; the first adds to target 0, the second to target 1."""

    def tensor(values, kind):
        return numpy_helper.from_array(np.array(values, kind), "t")

    node = helper.make_node(
        "TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml", n_targets=2, aggregate_function=1,
        post_transform=transform, tree_roots=[0, 1], nodes_featureids=[0, 0],
        nodes_splits=tensor([0, 0], np.float32), nodes_modes=tensor([0, 0], np.uint8),
        nodes_truenodeids=[0, 2], nodes_trueleafs=[1, 1], nodes_falsenodeids=[1, 3], nodes_falseleafs=[1, 1],
        leaf_targetids=[0, 0, 1, 1], leaf_weights=tensor([1, 2, 3, 4], np.float32),
    )
    graph = helper.make_graph(
        [node], "stumps", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    )
    opsets = [helper.make_opsetid("ai.onnx.ml", 5), helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


x, sums = np.array([[-1]], np.float32), np.array([1, 3])
softmax, logistic = np.exp(sums) / np.exp(sums).sum(), 1 / (1 + np.exp(-sums))
said = onnx.defs.get_schema("TreeEnsemble", 5, "ai.onnx.ml").attributes["post_transform"].description
assert said.index("SOFTMAX") < said.index("LOGISTIC"), said
for transform, standard, runtime in ((1, softmax, logistic), (2, logistic, softmax)):
    model = stumps(transform)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    by_runtime, by_onnx = session.run(None, {"x": x})[0][0], ReferenceEvaluator(model).run(None, {"x": x})[0][0]
    print(transform, *(row.round(4).tolist() for row in (standard, by_runtime, by_onnx)))
    assert np.allclose(by_runtime, runtime, atol=1e-5) and not np.allclose(by_runtime, standard, atol=1e-2)
    assert np.array_equal(by_onnx, sums)
print("as described")
PYTHON
