#!/bin/sh
# tf2onnx: tf.where multiplies what it does not select by 0, einsum takes "A" for "a", pools of integers change other operators.
#
# Versions: tf2onnx 1.17.0, tensorflow-cpu 2.21.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# - tf.where is usually written to keep infinities and NaN out: where(x > 0, log(x), 0). The exporter writes it as c * a + (1 - c) * b, as
#   ONNX Runtime's Where was once slow, and 0 times infinity is NaN. Only a constant with infinities or NaN, or a condition that is IsNaN or
#   IsInf, makes it a Where.
# - The equation of an einsum is made lower case. TensorFlow takes both cases for different indices, so "aA,Ab->ab" becomes "aa,ab->ab": a
#   product with a diagonal if the first operand is square, which it may be by chance, else an error when the model runs.
# - A pool of integers is one of f32 between two casts. The first cast is put behind the operator that makes the operand, so all other
#   operators that read it get floats, too; the model does not load. Integers above 2^24 are rounded.
# - tf.atan2 is a formula of signs that has NaN for two infinities, and pi where y is -0 and x negative.
#
# Output seen:
#   where(x > 0, log(x), 0) of [-1, 0, 4]       TensorFlow [0.0, 0.0, 1.386]            ONNX [nan, nan, 1.386]
#   where(x != 0, 1 / x, 7) of [-1, 0, 4]       TensorFlow [-1.0, 7.0, 0.25]            ONNX [-1.0, nan, 0.25]
#   where(x > 0, x, 0) of [1, inf, -inf]        TensorFlow [1.0, inf, 0.0]              ONNX [1.0, inf, nan]
#   where(x > 0, x, inf) of [1, -3]             TensorFlow [1.0, inf]                   the same
#   einsum aA,Ab->ab                            TensorFlow [3.0, 4.0, 12.0, 16.0]       ONNX [0.0, 0.0, 12.0, 16.0]
#   einsum ac,cb->ab                            TensorFlow [3.0, 4.0, 12.0, 16.0]       the same
#   atan2 of [-0, inf, 1], [-1, inf, 0]         TensorFlow [-3.142, 0.785, 1.571]       ONNX [3.142, nan, 1.571]
#   max_pool2d of 16777217, x - 1               TensorFlow [16777217, 16777216]         ONNX is not valid
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q tf2onnx==1.17.0 tensorflow-cpu==2.21.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 "$folder/environment/bin/python" - 2>"$folder/log" <<'PYTHON' || { tail -5 "$folder/log"; exit 1; }
import logging

import numpy as np
import onnxruntime
import tensorflow as tf
import tf2onnx

logging.disable(logging.WARNING)


def check(title, function, seen, *operands):
    """Compare TensorFlow's result with that of the exported model, which has to be `seen`; None for a model that does not load."""
    signature = [tf.TensorSpec(x.shape, x.dtype) for x in operands]
    traced = tf.function(function, input_signature=signature)
    wanted = traced(*operands).numpy()
    proto, _ = tf2onnx.convert.from_function(traced, input_signature=signature, opset=18)
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        inputs = [x.name for x in session.get_inputs()]
        found = session.run(None, dict(zip(inputs, operands, strict=True)))[0]
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
        found = None
    assert (found is None) == (seen is None), "the behaviour has changed"
    assert seen is None or np.allclose(found, seen, equal_nan=True), "the behaviour has changed"
    rows = [None if x is None else [round(v, 3) for v in x.ravel().tolist()] for x in (wanted, found)]
    same = found is not None and np.array_equal(wanted, found)
    print(f"{title:43} TensorFlow {rows[0]!s:28} {'the same' if same else 'ONNX ' + str(rows[1] or 'is not valid')}")


nan, inf = np.nan, np.inf
x = np.float32([-1, 0, 4])
check("where(x > 0, log(x), 0) of [-1, 0, 4]", lambda x: tf.where(x > 0, tf.math.log(x), 0.0), [nan, nan, np.log(4)], x)
check("where(x != 0, 1 / x, 7) of [-1, 0, 4]", lambda x: tf.where(x != 0, 1 / x, 7.0), [-1, nan, 0.25], x)
check("where(x > 0, x, 0) of [1, inf, -inf]", lambda x: tf.where(x > 0, x, 0.0), [1, inf, nan], np.float32([1, inf, -inf]))
check("where(x > 0, x, inf) of [1, -3]", lambda x: tf.where(x > 0, x, inf), [1, inf], np.float32([1, -3]))
a, b = np.float32([[0, 1], [3, 4]]), np.float32([[0, 0], [3, 4]])
for equation, seen in (("aA,Ab->ab", [[0, 0], [12, 16]]), ("ac,cb->ab", a @ b)):
    check(f"einsum {equation}", lambda a, b, equation=equation: tf.einsum(equation, a, b), seen, a, b)
angles = [np.pi, nan, np.pi / 2]
check("atan2 of [-0, inf, 1], [-1, inf, 0]", tf.atan2, angles, np.float32([-0.0, inf, 1]), np.float32([-1, inf, 0]))
image = np.full((1, 1, 1, 1), 16777217, np.int32)
check("max_pool2d of 16777217, x - 1", lambda x: tf.concat([tf.nn.max_pool2d(x, 1, 1, "SAME"), x - 1], 0), None, image)
PYTHON
