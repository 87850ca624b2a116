#!/bin/sh
# torch.onnx.export: the optimizer that it runs by default fuses clamps to other values, and to a model that lacks a tensor.
#
# Versions: torch 2.14.1, onnxscript 0.7.2, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# onnxscript's optimizer makes one Clip of two clamps, with the larger minimum and the smaller maximum. If the intervals do not meet, the
# minimum is above the maximum, and Clip gives its maximum: relu(clamp(x, -5, -1)) is -1 in place of 0. Min, Max and Clip are not the
# same for shapes, either: limits of shape [1, 1] turn a row into [1, 5], and Clip keeps [5]. The limits' names come from the tensor that
# is clamped, so two clamps of one tensor get equal names; one pair is lost, and no runtime loads the file. With optimize=False, all of
# these are right. onnxscript.optimizer.optimize does the same to ONNX files, and two Flatten of one tensor at different axes lose one of
# their shapes there.
#
# Output seen:
#   relu of clamp(-5, -1)      eager [0.0, 0.0, 0.0]   optimize=False [0.0, 0.0, 0.0]   default [-1.0, -1.0, -1.0]
#   clamp(0, 1).clamp(2, 3)    eager [2.0, 2.0, 2.0]   optimize=False [2.0, 2.0, 2.0]   default [1.0, 1.0, 1.0]
#   limits of shape [1, 1]     eager (1, 3)   optimize=False (1, 3)   default (3,)
#   two clamps of one tensor   optimize=False is right   default is refused: Node input 'x_min_1' is not a graph input, ...
#   two Flatten of one tensor  as given is right   optimized is refused: Node input 'x/shape_1' is not a graph input, ...
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q torch==2.14.1 onnxscript==0.7.2 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import logging

import numpy as np
import onnx
import onnxruntime
import onnxscript.optimizer
import torch

logging.disable(logging.CRITICAL)
onnxruntime.set_default_logger_severity(4)
x = torch.tensor([-9.0, 0.5, 2.5])


def run(model, array):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: array})


def exported(function, optimize):
    class Module(torch.nn.Module):
        def forward(self, x):
            return function(x)

    return torch.onnx.export(Module(), (x,), dynamo=True, optimize=optimize, verbose=False).model_proto


def refused(model, array, name):
    try:
        run(model, array)
    except Exception as error:
        assert f"Node input '{name}' is not a graph input" in str(error), error
        return
    raise AssertionError(f"{name}: the model is loaded now")


def check(name, function, wanted, show):
    eager = show(function(x).numpy())
    plain, default = (show(run(exported(function, optimize), x.numpy())[0]) for optimize in (False, True))
    print(f"{name:26} eager {eager}   optimize=False {plain}   default {default}")
    assert eager == plain and default == wanted, "the optimizer has changed"


def values(array):
    return array.tolist()


check("relu of clamp(-5, -1)", lambda x: torch.relu(x.clamp(-5, -1)), [-1.0] * 3, values)
check("clamp(0, 1).clamp(2, 3)", lambda x: x.clamp(0, 1).clamp(2, 3), [1.0] * 3, values)
limits = torch.tensor([[0.0]]), torch.tensor([[1.0]])
check("limits of shape [1, 1]", lambda x: torch.minimum(torch.maximum(x, limits[0]), limits[1]), (3,), np.shape)


def two_clamps(x):
    return x.clamp(min=0).clamp(max=1), x.clamp(min=-1).clamp(max=2)


for got, wanted in zip(run(exported(two_clamps, False), x.numpy()), two_clamps(x)):
    assert np.array_equal(got, wanted.numpy())
refused(exported(two_clamps, True), x.numpy(), "x_min_1")
print("two clamps of one tensor   optimize=False is right   default is refused")

flat = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["": 20]> g (float[2,3,4] x) => (float[2,12] y, float[6,4] z) '
    "{ y = Flatten<axis=1>(x) z = Flatten<axis=2>(x) }"
)
onnx.checker.check_model(flat, full_check=True)
array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
assert [y.shape for y in run(flat, array)] == [(2, 12), (6, 4)]
refused(onnxscript.optimizer.optimize(flat), array, "x/shape_1")
print("two Flatten of one tensor  as given is right   optimized is refused")
PYTHON
