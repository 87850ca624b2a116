#!/bin/sh
# ONNX Runtime fuses to LayerNormalization what is none: mean - x loses its sign, a fourth moment becomes the variance, an axis becomes the last.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6, sympy 1.14.0, Python 3.11, Linux x86-64.
#
# A layer normalization that was written with operators, (x - mean) / sqrt(mean of (x - mean)^2 + epsilon) * scale + shift, is found
# and made one operator by the default optimizations of a session. They look for the names of the operators in this order:
# - Sub is taken for x - mean, whichever of the two is first. mean - x, as in a layer that learns to reflect, has the other sign in the result.
# - Pow is taken for the square. With any other constant exponent, as for a fourth moment, the result is that of the square.
# onnxruntime.transformers.optimizer, whose models are for the same engine, checks both. It does not look at the axes instead:
# - A normalization over the channels of a picture or the rows of a sequence (axis 1), or over two axes, becomes one over the last axis, if
#   scale and shift have one dimension.
# Neither warns. With all optimizations disabled, everything is as ONNX says, and so is the last axis in all of them.
#
# Other faults of the fusion are known (onnxruntime issues 25855 and 31147); no report of these was found.
#
# Output seen on 2026-11-29 (the largest difference to the run without optimizations):
#   layer norm                         default session  0.000   transformers.optimizer  0.000
#   mean - x                           default session  5.972   transformers.optimizer  0.000
#   exponent 4                         default session  1.554   transformers.optimizer  0.000
#   layer norm, axis 1                 default session  0.000   transformers.optimizer  1.876
#   layer norm, axes 1 and 2           default session  0.000   transformers.optimizer  1.695
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6 sympy==1.14.0
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.optimizer import optimize_by_fusion

logging.disable(logging.CRITICAL)
generator = np.random.default_rng(0)
SHAPE = (2, 8, 8)
x = (generator.normal(size=SHAPE) + 0.3).astype(np.float32)
scale, shift = (generator.normal(size=8).astype(np.float32) for _ in range(2))
OFF, ON = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def layer_norm(axes=(2,), exponent=2.0, reverse=False):
    """Return the model and its result in float64."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=axes),
        helper.make_node("Sub", ["mean", "x"] if reverse else ["x", "mean"], ["d"]),
        helper.make_node("Pow", ["d", "exponent"], ["power"]),
        helper.make_node("ReduceMean", ["power"], ["variance"], axes=axes),
    ]
    wide = x.astype(np.float64)
    d = wide - wide.mean(axes, keepdims=True)
    d = -d if reverse else d
    result = d / np.sqrt((d**exponent).mean(axes, keepdims=True) + 1e-5) * scale + shift
    return finish(nodes, exponent), result


def finish(nodes, exponent):
    nodes += [
        helper.make_node("Add", ["variance", "epsilon"], ["sum"]),
        helper.make_node("Sqrt", ["sum"], ["root"]),
        helper.make_node("Div", ["d", "root"], ["quotient"]),
        helper.make_node("Mul", ["quotient", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["y"]),
    ]
    constants = {"exponent": np.float32(exponent), "epsilon": np.float32(1e-5), "scale": scale, "shift": shift}
    given = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xy"]
    for i, node in enumerate(nodes):
        node.name = f"node{i}"
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], given)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def run(model, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def check(name, case, session_right, optimizer_right):
    model, result = case
    assert np.allclose(run(model, OFF), result, atol=1e-3)
    session = abs(run(model, ON) - result).max()
    fused = optimize_by_fusion(onnx.ModelProto.FromString(model.SerializeToString()), "bert", num_heads=2, hidden_size=8).model
    optimizer = abs(run(fused, OFF) - result).max()
    print(f"{name:34} default session {session:6.3f}   transformers.optimizer {optimizer:6.3f}")
    assert (session < 1e-3) == session_right and (optimizer < 1e-3) == optimizer_right, f"{name} has changed"


check("layer norm", layer_norm(), True, True)
check("mean - x", layer_norm(reverse=True), False, True)
check("exponent 4", layer_norm(exponent=4.0), False, True)
check("layer norm, axis 1", layer_norm((1,)), True, False)
check("layer norm, axes 1 and 2", layer_norm((1, 2)), True, False)
flipped = run(layer_norm(reverse=True)[0], ON)
plain = layer_norm()[1]
assert np.allclose(flipped, plain, atol=1e-3), "the behaviour has changed"
PYTHON
