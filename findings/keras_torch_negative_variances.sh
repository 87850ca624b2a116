#!/bin/sh
# Keras on PyTorch: the variance of 11586 and 11588 is -16, so GroupNormalization gives NaN, and BatchNormalization remembers -16 and gives NaN for all data.
#
# Versions: keras 3.15.1, torch 2.13.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# keras.ops.moments is "the mean and variance of x". On PyTorch it is the mean of the squares less the square of the mean, in float32, so numbers far from
# 0 lose it: lengths in millimetres, times in seconds, 16-bit pixels that nobody has scaled. Of two numbers that differ by 2 the variance is 1:
# - From 5002 and 5004 it is 2, from 9999 and 10001 it is 0, and from 11586 and 11588 it is -16.
# - GroupNormalization divides by the root of it: its results, which are -1 and 1, become 0.7, 31.6 and NaN, in predict as well.
# - BatchNormalization does so in training, and keeps a moving variance of -16, which it saves with the model: then predict is NaN for all numbers, near 0 as well.
# ops.var, LayerNormalization, Normalization.adapt and torch.nn.GroupNorm of the same numbers are right. Two numbers have one sum, so no order of
# additions is to blame and each CPU has the same results.
#
# Known in part: pull request 18795 of keras mended moments on TensorFlow and JAX in 2023, for negative variances; PyTorch's was left. Nothing warns,
# and no report of it was found.
#
# Output seen on 2026-11-30:
#   (99, 101)
#     moments                        [1.0]
#     var                            [1.0]
#     GroupNormalization             [-1.0, 0.999]
#     GroupNormalization, predict    [-1.0, 0.999]
#     torch.nn.GroupNorm             [-1.0, 1.0]
#     LayerNormalization             [-1.0, 1.0]
#     Normalization                  [-1.0, 1.0]
#     BatchNormalization, training   [-1.0, 1.0]
#       moving variance              [1.0]
#       predict of 1 less that of 0  [1.0]
#   (5002, 5004)
#     moments                        [2.0]
#     var                            [1.0]
#     GroupNormalization             [-0.707, 0.707]
#     GroupNormalization, predict    [-0.707, 0.707]
#     torch.nn.GroupNorm             [-1.0, 1.0]
#     LayerNormalization             [-1.0, 1.0]
#     Normalization                  [-1.0, 1.0]
#     BatchNormalization, training   [-0.707, 0.707]
#       moving variance              [2.0]
#       predict of 1 less that of 0  [0.707]
#   (9999, 10001)
#     moments                        [0.0]
#     var                            [1.0]
#     GroupNormalization             [-31.625, 31.625]
#     GroupNormalization, predict    [-31.625, 31.625]
#     torch.nn.GroupNorm             [-1.0, 1.0]
#     LayerNormalization             [-1.0, 1.0]
#     Normalization                  [-1.0, 1.0]
#     BatchNormalization, training   [-31.623, 31.623]
#       moving variance              [0.0]
#       predict of 1 less that of 0  [31.625]
#   (11586, 11588)
#     moments                        [-16.0]
#     var                            [1.0]
#     GroupNormalization             [nan, nan]
#     GroupNormalization, predict    [nan, nan]
#     torch.nn.GroupNorm             [-1.0, 1.0]
#     LayerNormalization             [-1.0, 1.0]
#     Normalization                  [-1.0, 1.0]
#     BatchNormalization, training   [nan, nan]
#       moving variance              [-16.0]
#       predict of 1 less that of 0  [nan]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q keras==3.15.1 torch==2.13.0 numpy==2.4.6
cd "$folder"
KERAS_BACKEND=torch KERAS_HOME="$folder" "$folder/env/bin/python" -W ignore - <<'PYTHON'
import keras
import numpy as np
import torch
from keras import layers, ops

NUMBERS = ((99, 101), (5002, 5004), (9999, 10001), (11586, 11588))
VARIANCES = (1, 2, 0, -16)


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor).astype(float).ravel().round(3) + 0.0


for pair, variance in zip(NUMBERS, VARIANCES):
    row = np.array([pair], np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        wrong = np.array([-1, 1]) / np.sqrt(variance + 1e-3)
    batch = layers.BatchNormalization(momentum=0)
    trained = to_numpy(batch(row.T, training=True))
    after = batch(np.array([[0], [1]], np.float32))
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.GroupNormalization(1)(inputs))
    adapted = layers.Normalization()
    adapted.adapt(row.T)
    print(f"{pair}")
    for name, found, expected in (
        ("moments", to_numpy(ops.moments(row, axes=[1])[1]), [variance]),
        ("var", to_numpy(ops.var(row, axis=1)), [1]),
        ("GroupNormalization", to_numpy(layers.GroupNormalization(1)(row)), wrong),
        ("GroupNormalization, predict", to_numpy(model.predict(row, verbose=0)), wrong),
        ("torch.nn.GroupNorm", to_numpy(torch.nn.GroupNorm(1, 2)(torch.tensor(row)).detach()), [-1, 1]),
        ("LayerNormalization", to_numpy(layers.LayerNormalization()(row)), [-1, 1]),
        ("Normalization", to_numpy(adapted(row.T)), [-1, 1]),
        ("BatchNormalization, training", trained, wrong),
        ("  moving variance", to_numpy(batch.moving_variance), [variance]),
        ("  predict of 1 less that of 0", to_numpy(after[1] - after[0]), wrong[1:]),
    ):
        print(f"  {name:30} {found.tolist()}")
        assert np.allclose(found, expected, rtol=0.01, equal_nan=True), f"{name} of {pair}: Keras has changed"
PYTHON
