#!/bin/sh
# jax2onnx: pools in Flax lose their padding and their default stride, RMSNorm and LinearGeneral their axes.
#
# Versions: jax2onnx 0.17.1, jax 0.10.2, flax 0.12.8, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# While it traces, jax2onnx puts functions of its own in the place of Flax's layers. Each takes the arguments of the layer, and some do
# not read them all; the model that it writes has other numbers, often another shape, and there is no error and no warning.
# - max_pool without strides moves by one in Flax; here by the window. SAME is 7 x 6 in Flax and 4 x 3 here.
# - Padding as pairs of numbers becomes the text of these pairs, which is not "SAME", so nothing is padded, in max_pool and in avg_pool.
# - RMSNorm reads feature_axes alone, so reduction_axes=(1, 2, 3) has no effect.
# - LinearGeneral along another axis than the last reshapes the input and multiplies without moving the axis to the end.
# Padding by name, pools with strides, RMSNorm and LinearGeneral of the last axis are right. When the conversion is done, the originals
# come back, all but jax.numpy.cumsum, which refuses its axis as a second argument for the rest of the program.
#
# Output seen (shape, first and last number):
#   max_pool, strides of 2              Flax (1, 3, 3, 4) [0.362, 1.229]       the same
#   max_pool, no strides                Flax (1, 6, 5, 4) [0.362, 1.229]       ONNX (1, 3, 3, 4) [0.362, 1.229]
#   max_pool, no strides, SAME          Flax (1, 7, 6, 4) [0.362, -1.487]      ONNX (1, 4, 3, 4) [0.362, -0.236]
#   max_pool, padding ((1, 1), (1, 1))  Flax (1, 4, 4, 4) [-0.132, 0.383]      ONNX (1, 3, 3, 4) [0.362, 1.229]
#   avg_pool, padding ((1, 1), (1, 1))  Flax (1, 4, 4, 4) [-0.033, -0.276]     ONNX (1, 3, 3, 4) [0.136, 0.504]
#   RMSNorm                             Flax (1, 7, 6, 4) [-0.392, -1.266]     the same
#   RMSNorm, reduction_axes (1, 2, 3)   Flax (1, 7, 6, 4) [-0.137, -1.547]     ONNX (1, 7, 6, 4) [-0.392, -1.266]
#   LinearGeneral, axis 0               Flax (6, 4, 5) [0.744, -1.188]         ONNX (6, 4, 5) [-0.032, 1.308]
#   jnp.cumsum(x, 0) after all this: jnp.cumsum expects a single positional argument
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q jax2onnx==0.17.1 jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/environment/bin/python" - <<'PYTHON'
import logging

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from flax import nnx

logging.disable(logging.WARNING)
from jax2onnx import to_onnx

image = np.random.default_rng(0).standard_normal((1, 7, 6, 4)).astype(np.float32)
wide = image.astype(np.float64)


def pool(reduce, x, window, stride, pads):
    """Return the pool of a double image [N, H, W, C] that is padded by pads ((top, bottom), (left, right)) with what `reduce` ignores."""
    x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-np.inf if reduce is np.max else 0)
    views = np.lib.stride_tricks.sliding_window_view(x, (window, window), (1, 2))[:, ::stride, ::stride]
    return reduce(views, axis=(-2, -1))


def check(title, function, x, wanted, seen):
    in_flax = np.asarray(function(x), np.float64)
    assert in_flax.shape == wanted.shape and np.allclose(in_flax, wanted, atol=1e-5)
    to_onnx(function, [jax.ShapeDtypeStruct(x.shape, x.dtype)], return_mode="file", output_path="model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x})[0]
    assert found.shape == seen.shape and np.allclose(found, seen, atol=1e-5), "the behaviour has changed"
    same = found.shape == wanted.shape and np.allclose(found, wanted, atol=1e-5)
    values = [np.round(np.ravel(y).astype(float)[[1, -1]], 3).tolist() for y in (in_flax, found)]
    print(f"{title:35} Flax {in_flax.shape} {values[0]}".ljust(74), "the same" if same else f"ONNX {found.shape} {values[1]}")


assert jnp.cumsum(jnp.ones(3), 0).tolist() == [1, 2, 3]
none, one, behind = ((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 1), (0, 1))
check(
    "max_pool, strides of 2", lambda x: nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2)), image,
    pool(np.max, wide, 2, 2, none), pool(np.max, wide, 2, 2, none),
)
check(
    "max_pool, no strides", lambda x: nnx.max_pool(x, window_shape=(2, 2)), image,
    pool(np.max, wide, 2, 1, none), pool(np.max, wide, 2, 2, none),
)
check(
    "max_pool, no strides, SAME", lambda x: nnx.max_pool(x, window_shape=(2, 2), padding="SAME"), image,
    pool(np.max, wide, 2, 1, behind), pool(np.max, wide, 2, 2, ((0, 1), (0, 0))),
)
check(
    "max_pool, padding ((1, 1), (1, 1))", lambda x: nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2), padding=one), image,
    pool(np.max, wide, 2, 2, one), pool(np.max, wide, 2, 2, none),
)
check(
    "avg_pool, padding ((1, 1), (1, 1))", lambda x: nnx.avg_pool(x, window_shape=(2, 2), strides=(2, 2), padding=one), image,
    pool(np.mean, wide, 2, 2, one), pool(np.mean, wide, 2, 2, none),
)

rms = lambda axes: wide / np.sqrt((wide**2).mean(axes, keepdims=True) + 1e-6)
check("RMSNorm", nnx.RMSNorm(4, rngs=nnx.Rngs(0)), image, rms(-1), rms(-1))
check("RMSNorm, reduction_axes (1, 2, 3)", nnx.RMSNorm(4, reduction_axes=(1, 2, 3), rngs=nnx.Rngs(0)), image, rms((1, 2, 3)), rms(-1))

table = image[0, :4]
linear = nnx.LinearGeneral(4, 5, axis=0, rngs=nnx.Rngs(0))
kernel = np.asarray(linear.kernel[...], np.float64)
wrong = (table.astype(np.float64).reshape(-1, 4) @ kernel).reshape(6, 4, 5)
check("LinearGeneral, axis 0", linear, table, np.einsum("iab,io->abo", table.astype(np.float64), kernel), wrong)

try:
    jnp.cumsum(jnp.ones(3), 0)
except TypeError as error:
    print("jnp.cumsum(x, 0) after all this:", error)
else:
    raise AssertionError("the behaviour has changed")
PYTHON
