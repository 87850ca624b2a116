#!/bin/sh
# Keras on PyTorch: average_pool with padding "same" counts the border as data, take(-1) is the last row's number, and "symmetric" repeats one pixel.
#
# Versions: keras 3.15.1, torch 2.13.0, scipy 1.17.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# keras.ops has NumPy's functions and those of networks, and the same results on each backend. On these arguments the backend of PyTorch has others
# than NumPy and SciPy, whose numbers Keras has on NumPy, too. For the pools TensorFlow's rule holds, that padding is not counted:
# - average_pool and the layers AveragePooling1D to 3D with padding="same": if more has to be padded on one side than on the other, the border
#   is padded with copies of its numbers, and they count. The last of [1, 2, 3, 4, 10] by 4 and strides of 2 is 8.5 in place of 7.
#   With equal padding on both sides it is right.
# - take and take_along_axis without an axis work on the flattened array; a negative index counts from its end. Here it is added to the number
#   of rows: -1 of a 3 x 4 matrix is number 2.
# - pad with mode="symmetric" is that of "edge": [1, 2, 3] gets 1, 1 and not 2, 1 to its left.
# - geomspace with an integer dtype casts the logarithm of its ends: from 1 to 20 it ends at 10.
# - image.gaussian_blur without data_format takes channels_last, Keras's default, for channels_first: it blurs columns and channels into each other,
#   and no rows. With data_format="channels_last" it is right.
# Nothing warns.
#
# After this release, pull request 23233 of keras mended the pools and 23230 the symmetric padding; no report of the others was found.
#
# Output seen on 2026-11-29:
#   pool 4, strides 2       right 2 4.75 7                     Keras 1.75 4.75 8.5
#   pool 3, strides 2       right 1.5 3 7                      Keras the same
#   AveragePooling2D(2, 1)  right 21 22 22.5 21.5 22.5 23.5 24.5 25 Keras the same
#   AveragePooling2D(3, 3)  right 7 9.5 19.5 22                Keras 7 9.667 20.333 23
#   take                    right 11 10 5                      Keras 2 1 5
#   take_along_axis         right 11 10 5                      Keras 2 1 5
#   take, axis 1            right 3 7 11                       Keras the same
#   pad, symmetric          right 2 1 1 2 3 3 2 1              Keras 1 1 1 2 3 3 3 3
#   pad, reflect            right 3 2 1 2 3 2 1                Keras the same
#   geomspace of int32      right 1 2 7 20                     Keras 1 2.154 4.642 10
#   geomspace               right 1 2.714 7.368 20             Keras the same
#   blur                    right row [0.    0.124 0.204 0.124 0.   ] column [0.124 0.204 0.124] Keras row [0.    0.124 0.204 0.124 0.   ] column [0.    0.204 0.   ]
#   blur, channels_last     right row [0.    0.124 0.204 0.124 0.   ] column [0.124 0.204 0.124] Keras the same
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q keras==3.15.1 torch==2.13.0 scipy==1.17.1 numpy==2.4.6
cd "$folder"
cat > compute.py <<'PYTHON'
import sys

import numpy as np
from keras import layers, ops

row = np.array([1, 2, 3, 4, 10], np.float32).reshape(1, 5, 1)
square = np.arange(1, 26, dtype=np.float32).reshape(1, 5, 5, 1)
matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
picture = np.zeros((1, 3, 5, 2), np.float32)
picture[0, 1, 2, 0] = 1

results = {
    "pool 4, strides 2": ops.average_pool(row, 4, 2, "same"),
    "pool 3, strides 2": ops.average_pool(row, 3, 2, "same"),
    "AveragePooling2D(2, 1)": layers.AveragePooling2D(2, 1, padding="same")(square),
    "AveragePooling2D(3, 3)": layers.AveragePooling2D(3, 3, padding="same")(square),
    "take": ops.take(matrix, np.array([-1, -2, 5])),
    "take_along_axis": ops.take_along_axis(matrix, np.array([-1, -2, 5]), axis=None),
    "take, axis 1": ops.take(matrix, np.array([-1]), axis=1),
    "pad, symmetric": ops.pad(matrix[0, 1:], ((2, 3),), mode="symmetric"),
    "pad, reflect": ops.pad(matrix[0, 1:], ((2, 2),), mode="reflect"),
    "geomspace of int32": ops.geomspace(1, 20, 4, dtype="int32"),
    "geomspace": ops.geomspace(1, 20, 4),
    "blur": ops.image.gaussian_blur(picture, (3, 3), (1.0, 1.0)),
    "blur, channels_last": ops.image.gaussian_blur(picture, (3, 3), (1.0, 1.0), data_format="channels_last"),
}
np.savez(sys.argv[1], **{name: ops.convert_to_numpy(value) for name, value in results.items()})
PYTHON
KERAS_BACKEND=torch "$folder/env/bin/python" -W ignore compute.py torch.npz
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
from scipy import ndimage


def pool(data, size, stride):
    """The mean of the last axis in windows; what is padded is not counted."""
    count = -(-data.shape[-1] // stride)
    before = max((count - 1) * stride + size - data.shape[-1], 0) // 2
    starts = [i * stride - before for i in range(count)]
    return np.stack([data[..., max(start, 0) : start + size].mean(-1) for start in starts], -1)


row, square = np.array([1, 2, 3, 4, 10.0]), np.arange(1, 26.0).reshape(5, 5)
matrix = np.arange(12.0).reshape(3, 4)
point = np.zeros((3, 5, 2))
point[1, 2, 0] = 1
weights = np.exp([-0.5, 0, -0.5])
for axis in (0, 1):
    point = ndimage.convolve1d(point, weights / weights.sum(), axis, mode="constant")


RIGHT = {
    "pool 4, strides 2": (pool(row, 4, 2), True),
    "pool 3, strides 2": (pool(row, 3, 2), False),
    "AveragePooling2D(2, 1)": (pool(pool(square, 2, 1).T, 2, 1).T, False),
    "AveragePooling2D(3, 3)": (pool(pool(square, 3, 3).T, 3, 3).T, True),
    "take": (matrix.take([-1, -2, 5]), True),
    "take_along_axis": (np.take_along_axis(matrix, np.array([-1, -2, 5]), None), True),
    "take, axis 1": (matrix.take([-1], 1), False),
    "pad, symmetric": (np.pad(matrix[0, 1:], (2, 3), mode="symmetric"), True),
    "pad, reflect": (np.pad(matrix[0, 1:], (2, 2), mode="reflect"), False),
    "geomspace of int32": (np.geomspace(1, 20, 4, dtype=int), True),
    "geomspace": (np.geomspace(1, 20, 4), False),
    "blur": (point, True),
    "blur, channels_last": (point, False),
}


def text(array):
    if array.ndim == 3:
        return f"row {array[1, :, 0].round(3)} column {array[:, 2, 0].round(3)}"
    return " ".join(f"{value:g}" for value in array.round(3).ravel()[-8:])


results = np.load("torch.npz")
for name, (right, wrong) in RIGHT.items():
    found, right = results[name].astype(float).squeeze(), right.squeeze()
    same = found.shape == right.shape and np.allclose(found, right, atol=1e-5)
    print(f"{name:23} right {text(right):28} Keras {'the same' if same else text(found)}")
    assert same != wrong, f"{name}: Keras has changed"
PYTHON
