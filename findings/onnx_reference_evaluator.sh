#!/bin/sh
# ONNX's own reference evaluator: recurrent layers ignore options and lengths, MaxPool adds a border, and old operator sets get new rules.
#
# Versions: onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# onnx.reference.ReferenceEvaluator "computes predictions based on the standard"; converters and engines are tested against it. Each model
# passes the checker. In each row the standard's formula is computed here by NumPy, ONNX Runtime agrees with it, and the evaluator does
# not, without an error or a warning:
# - NegativeLogLikelihoodLoss ignores the class -1 and takes the mean over all, if there are no weights; with ignore_index 1 over the rest.
# - LSTM and GRU do not read activations, clip and sequence_lens, and LSTM input_forget. Short sequences go on with what is behind
#   their end. (RNN refuses activations, and does not read clip.)
# - MaxPool with ceil_mode, a stride of 1 and padding has two rows and columns too many, of the border's values.
# - Softmax, LogSoftmax and Hardmax up to operator set 12 work over all axes from the given one on; here over that one alone.
#
# LRN and LpNormalization are wrong in this release as well, which is known and mended (onnx issue 7805, pull request 8427). No report of the
# above was found.
#
# Output seen on 2026-11-29:
#   loss, ignore_index 1                   ONNX Runtime () [1.956]                     evaluator the same
#   loss, ignore_index -1                  ONNX Runtime () [1.956]                     evaluator () [1.304]
#   LSTM                                   ONNX Runtime (5, 1, 2, 4) [0.454, -0.036]   evaluator the same
#   LSTM, clip 0.2                         ONNX Runtime (5, 1, 2, 4) [0.101, 0.039]    evaluator (5, 1, 2, 4) [0.454, -0.036]
#   LSTM, input_forget                     ONNX Runtime (5, 1, 2, 4) [0.31, -0.091]    evaluator (5, 1, 2, 4) [0.454, -0.036]
#   LSTM, Relu                             ONNX Runtime (5, 1, 2, 4) [0.385, 0.253]    evaluator (5, 1, 2, 4) [0.454, -0.036]
#   LSTM, lengths 3 and 5                  ONNX Runtime (5, 1, 2, 4) [0.454, -0.036]   evaluator (5, 1, 2, 4) [0.454, -0.036]
#   GRU                                    ONNX Runtime (5, 1, 2, 4) [0.088, 0.994]    evaluator the same
#   GRU, clip 0.2                          ONNX Runtime (5, 1, 2, 4) [-0.107, 0.194]   evaluator (5, 1, 2, 4) [0.088, 0.994]
#   GRU, Relu                              ONNX Runtime (5, 1, 2, 4) [0.0, 6.084]      evaluator (5, 1, 2, 4) [0.088, 0.994]
#   MaxPool, padded                        ONNX Runtime (1, 1, 5, 5) [0.418, -0.376]   evaluator the same
#   MaxPool, padded, ceil_mode             ONNX Runtime (1, 1, 5, 5) [0.418, -0.376]   evaluator (1, 1, 7, 7) [0.0, 0.0]
#   Softmax-13                             ONNX Runtime (1, 3, 4) [0.333, 0.333]       evaluator the same
#   Softmax-11                             ONNX Runtime (1, 3, 4) [0.083, 0.083]       evaluator (1, 3, 4) [0.333, 0.333]
#   LogSoftmax-11                          ONNX Runtime (1, 3, 4) [-2.485, -2.485]     evaluator (1, 3, 4) [-1.099, -1.099]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

generator = np.random.default_rng(0)


def normal(*shape):
    return generator.normal(size=shape).astype(np.float32)


def check(name, operator, inputs, formula, same, opset=13, **attributes):
    """Compare the first result of a node with `formula`; None in `inputs` is an input left out, a formula None ONNX Runtime's result."""
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    given = {key: value for key, value in zip(names, inputs) if value is not None}
    values = [helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape) for key, value in given.items()]
    node = helper.make_node(operator, names, ["y"], **attributes)
    session_output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([node], "g", values, [session_output]), opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )
    right = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, given)[0]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, right.shape)
    model.graph.output[0].CopyFrom(output)
    onnx.checker.check_model(model, full_check=True)
    if formula is not None:
        assert right.shape == formula.shape and np.allclose(right, formula, atol=1e-4), f"{name}: ONNX Runtime"
    found = np.asarray(ReferenceEvaluator(model).run(None, given)[0])
    equal = found.shape == right.shape and np.allclose(found, right, atol=1e-4)
    shown = [f"{y.shape} {np.round(y.astype(float).ravel()[-2:], 3).tolist()}" for y in (right, found)]
    print(f"{name:38} ONNX Runtime {shown[0]:30} evaluator {'the same' if equal else shown[1]}")
    assert equal == same, f"{name} has changed"


logs = np.log(np.array([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2]], np.float32))
for ignored in (1, -1):
    target = np.array([0, 2, ignored])
    mean = np.array(-(logs[0, 0] + logs[1, 2]) / 2)
    check(f"loss, ignore_index {ignored}", "NegativeLogLikelihoodLoss", [logs, target], mean, ignored == 1, ignore_index=ignored)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, w, r, b, clip=np.inf, f=logistic, g=np.tanh, coupled=False, lengths=None):
    """Return the hidden states of one direction, float [steps, 1, batch, hidden]."""
    hidden = r.shape[2]
    states, h, c = [], np.zeros((x.shape[1], hidden)), np.zeros((x.shape[1], hidden))
    for step, row in enumerate(x):
        gates = np.clip(row @ w[0].T + h @ r[0].T + b[0, : 4 * hidden] + b[0, 4 * hidden :], -clip, clip)
        i, o, forget, new = np.split(gates, 4, 1)
        i, forget = f(i), f(forget)
        active = np.ones((x.shape[1], 1)) if lengths is None else (step < lengths)[:, None]
        c = active * ((1 - i if coupled else forget) * c + i * g(new))
        h = active * (f(o) * np.tanh(c))
        states.append(h)
    return np.stack(states)[:, None]


arguments = [normal(5, 2, 3), normal(1, 16, 3), normal(1, 16, 4), normal(1, 32)]
recurrent = {"opset": 14, "hidden_size": 4}
check("LSTM", "LSTM", arguments, lstm(*arguments), True, **recurrent)
check("LSTM, clip 0.2", "LSTM", arguments, lstm(*arguments, clip=0.2), False, clip=0.2, **recurrent)
check("LSTM, input_forget", "LSTM", arguments, lstm(*arguments, coupled=True), False, input_forget=1, **recurrent)
rectified = lstm(*arguments, g=lambda x: np.maximum(x, 0))
check("LSTM, Relu", "LSTM", arguments, rectified, False, activations=["Sigmoid", "Relu", "Tanh"], **recurrent)
lengths = np.array([3, 5], np.int32)
check("LSTM, lengths 3 and 5", "LSTM", [*arguments, lengths], lstm(*arguments, lengths=lengths), False, **recurrent)
gated = [normal(5, 2, 3), normal(1, 12, 3), normal(1, 12, 4), normal(1, 24)]
check("GRU", "GRU", gated, None, True, **recurrent)
check("GRU, clip 0.2", "GRU", gated, None, False, clip=0.2, **recurrent)
check("GRU, Relu", "GRU", gated, None, False, activations=["Sigmoid", "Relu"], **recurrent)

image = normal(1, 1, 4, 4)
padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
windows = np.lib.stride_tricks.sliding_window_view(padded, (2, 2), (2, 3)).max((4, 5))
pool = {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}
check("MaxPool, padded", "MaxPool", [image], windows, True, **pool)
check("MaxPool, padded, ceil_mode", "MaxPool", [image], windows, False, ceil_mode=1, **pool)

ones = np.ones((1, 3, 4), np.float32)
check("Softmax-13", "Softmax", [ones], np.full_like(ones, 1 / 3), True, axis=1)
check("Softmax-11", "Softmax", [ones], np.full_like(ones, 1 / 12), False, 11, axis=1)
check("LogSoftmax-11", "LogSoftmax", [ones], np.full_like(ones, -np.log(12)), False, 11, axis=1)
PYTHON
