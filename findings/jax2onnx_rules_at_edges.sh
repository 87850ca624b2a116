#!/bin/sh
# jax2onnx: where JAX's rules at edges differ from those of ONNX's operators of the same name, the model follows ONNX.
#
# Versions: jax2onnx 0.17.1, jax 0.10.2, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Functions of JAX become the operator that is named alike; what JAX documents for the rest is lost without an error or a warning.
# - dynamic_slice moves a start that is too large back, so the result has always its size. ONNX's Slice cuts: the result is shorter or
#   empty, although the model declares the full size. (dynamic_update_slice is clamped rightly.)
# - lax.round rounds halves away from zero unless it is told otherwise; ONNX's Round rounds them to even.
# - one_hot gives zeros for an index below 0, as for padding; ONNX's OneHot counts it from the end.
# - jax.image.resize takes the later one of two pixels that are equally near; Resize is told to take the earlier: each halving of an
#   image takes the other pixels.
# - Complex numbers are pairs of floats in the model. abs does not know: it has one more axis and the magnitudes of both parts.
# - dot of a matrix and a vector under vmap keeps an axis of 1.
#
# Output seen:
#   dynamic_slice from 2 of 6            JAX [2.0, 3.0, 4.0]                       ONNX [2.0, 3.0, 4.0]
#   dynamic_slice from 4 of 6            JAX [3.0, 4.0, 5.0]                       ONNX [4.0, 5.0]
#   dynamic_slice from 7 of 6            JAX [3.0, 4.0, 5.0]                       ONNX []
#   lax.round                            JAX [-3.0, -1.0, 1.0, 3.0, 4.0]           ONNX [-2.0, 0.0, 0.0, 2.0, 4.0]
#   one_hot of -1                        JAX [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]    ONNX [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
#   resize, nearest, 6 to 3              JAX [1.0, 3.0, 5.0]                       ONNX [0.0, 2.0, 4.0]
#   resize, nearest, 6 to 2              JAX [1.0, 4.0]                            ONNX [1.0, 4.0]
#   abs of rfft                          JAX [1.0, 1.0, 1.0]                       ONNX [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
#   vmap of dot                          JAX [[1.0, 2.0]]                          ONNX [[[1.0], [2.0]]]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q jax2onnx==0.17.1 jax==0.10.2 jaxlib==0.10.2 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/environment/bin/python" - <<'PYTHON'
import logging

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from jax import lax

logging.disable(logging.WARNING)
from jax2onnx import to_onnx

f32, i32 = np.float32, np.int32


def check(title, function, wanted, seen, *inputs):
    in_jax = np.asarray(function(*(jnp.asarray(x) for x in inputs)))
    to_onnx(function, [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs], return_mode="file", output_path="model.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
    found = session.run(None, {one.name: x for one, x in zip(session.get_inputs(), inputs)})[0]
    values = [(np.round(y.astype(float), 3) + 0.0).tolist() for y in (in_jax, found)]
    print(f"{title:36} JAX {values[0]!s:41} ONNX {values[1]}")
    assert np.array_equal(values[0], wanted, equal_nan=True), values[0]
    assert np.array_equal(values[1], seen, equal_nan=True), "the behaviour has changed"


x = np.arange(6, dtype=f32)
window = lambda x, start: lax.dynamic_slice_in_dim(x, start, 3)
check("dynamic_slice from 2 of 6", window, [2, 3, 4], [2, 3, 4], x, np.array(2, i32))
check("dynamic_slice from 4 of 6", window, [3, 4, 5], [4, 5], x, np.array(4, i32))
check("dynamic_slice from 7 of 6", window, [3, 4, 5], [], x, np.array(7, i32))
check("lax.round", lax.round, [-3, -1, 1, 3, 4], [-2, 0, 0, 2, 4], np.array([-2.5, -0.5, 0.5, 2.5, 3.5], f32))
check("one_hot of -1", lambda x: jax.nn.one_hot(x, 3), [[0, 1, 0], [0, 0, 0]], [[0, 1, 0], [0, 0, 1]], np.array([1, -1], i32))
check("resize, nearest, 6 to 3", lambda x: jax.image.resize(x, (3,), "nearest"), [1, 3, 5], [0, 2, 4], x)
check("resize, nearest, 6 to 2", lambda x: jax.image.resize(x, (2,), "nearest"), [1, 4], [1, 4], x)
check("abs of rfft", lambda x: jnp.abs(jnp.fft.rfft(x)), [1, 1, 1], [[1, 0], [0, 1], [1, 0]], np.array([0, 1, 0, 0], f32))
check("vmap of dot", jax.vmap(lambda x: jnp.dot(x, x[0])), [[1, 2]], [[[1], [2]]], np.array([[[1, 0], [2, 1]]], f32))
PYTHON
