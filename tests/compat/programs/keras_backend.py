"""Keras with OpenVINO as its backend: operations, layers, and models that Keras exports and OpenVINO runs.
Prints a line of JSON: case -> results.

    python keras_backend.py FOLDER
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino

os.environ["KERAS_BACKEND"] = "openvino"
import keras
from keras import layers, ops

rng = np.random.default_rng(0)
x, y = (rng.standard_normal((3, 4, 5)).astype(np.float32) for _ in range(2))
matrix = x[0, :, :4] @ x[0, :, :4].T + 4 * np.eye(4, dtype=np.float32)
integers, bytes_ = rng.integers(-9, 9, (3, 4)).astype(np.int32), rng.integers(0, 255, (3, 4)).astype(np.uint8)
pictures, rows = rng.random((2, 6, 8, 3)).astype(np.float32), rng.standard_normal((2, 16)).astype(np.float32)
kernel = rng.standard_normal((3, 3, 3, 4)).astype(np.float32)

OPERATIONS = {
    "einsum": lambda: ops.einsum("abc,abd->cd", x, y),
    "floor_divide": lambda: ops.floor_divide(integers, np.where(integers, integers, 2)[::-1]),
    "mod": lambda: ops.mod(x, -0.3),
    "arctan2": lambda: ops.arctan2(x, y),
    "argsort": lambda: ops.argsort(x, axis=1),
    "bincount": lambda: ops.bincount(np.array([[1, 2, 2, 5], [0, 0, 1, 3]], np.int32), minlength=8),
    "bitwise": lambda: ops.bitwise_xor(ops.bitwise_left_shift(integers, 2), 5),
    "cross": lambda: ops.cross(x[0, :, :3], y[0, :, :3]),
    "digitize": lambda: ops.digitize(x, np.array([-1, 0, 0.5, 2], np.float32)),
    "gcd": lambda: ops.gcd(integers, 6),
    "histogram": lambda: ops.histogram(x, 5),
    "isin": lambda: ops.isin(integers, [1, 2, 3], invert=True),
    "median": lambda: ops.median(x, axis=1),
    "quantile": lambda: ops.quantile(x, [0.25, 0.5], axis=1, method="nearest"),
    "nanmean": lambda: ops.nanmean(np.where(x > 1, np.nan, x), axis=2),
    "repeat": lambda: ops.repeat(x, [1, 0, 2], axis=0),
    "sort": lambda: ops.sort(x, axis=1),
    "unique": lambda: ops.unique(integers),
    "view": lambda: ops.view(x, "int32"),
    "u8": lambda: ops.divide(bytes_, bytes_[::-1] + 1),
    "pools": lambda: [ops.max_pool(pictures, 3, 2, "same"), ops.average_pool(pictures, 3, 2, "same")],
    "adaptive pools": lambda: ops.adaptive_average_pool(pictures, (4, 3)),
    "convolutions": lambda: [
        ops.conv(pictures, kernel, 2, "same"),
        ops.conv_transpose(pictures, kernel.transpose(0, 1, 3, 2), 2),
    ],
    "attention": lambda: ops.dot_product_attention(
        *[rng.standard_normal((2, 5, 2, 8)).astype(np.float32)] * 3, is_causal=True
    ),
    "fold": lambda: ops.fold(rng.standard_normal((2, 12, 20)).astype(np.float32), (5, 6), 2),
    "top_k": lambda: ops.top_k(x, 3),
    "fft": lambda: [*ops.fft2((x, y)), *ops.rfft(x, 8), ops.irfft(ops.rfft(x), 5)],
    "stft": lambda: [*ops.stft(rows, 8, 4, 8), ops.istft(ops.stft(rows, 8, 4, 8), 8, 4, 8)],
    "factors": lambda: [
        ops.cholesky(matrix),
        *ops.lu_factor(matrix),
        *ops.qr(x[0]),
        ops.solve(matrix, x[0]),
        ops.det(matrix),
    ],
    "resize": lambda: ops.image.resize(pictures, (12, 9), interpolation="bicubic"),
    "hsv": lambda: ops.image.hsv_to_rgb(ops.image.rgb_to_hsv(pictures)),
    "patches": lambda: ops.image.extract_patches(pictures, (3, 3), padding="same"),
    "scan": lambda: ops.scan(lambda c, e: (c + e, c * e), ops.zeros(()), rows[0]),
    "while_loop": lambda: ops.while_loop(lambda i, e: i < 5, lambda i, e: (i + 1, e * 2), (0, ops.ones(2))),
    "wrong axis": lambda: ops.softmax(ops.convert_to_tensor(x), axis=7),
}
LAYERS = {
    "dense": (rows, [layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dense(3, "softmax")]),
    "pictures": (
        pictures,
        [
            layers.Conv2D(8, 3, 2, "same", activation="silu"),
            layers.SeparableConv2D(4, 2),
            layers.GlobalAveragePooling2D(),
        ],
    ),
    "up": (
        pictures,
        [layers.Conv2DTranspose(4, 3, 2, "same"), layers.UpSampling2D(2, interpolation="bilinear")],
    ),
    "recurrent": (x, [layers.LSTM(5, return_sequences=True), layers.Bidirectional(layers.GRU(3))]),
    "activations": (
        rows,
        [layers.Activation(a) for a in ("elu", "selu", "gelu", "softplus", "swish", "mish", "log_softmax")],
    ),
    "normalizations": (
        x,
        [layers.LayerNormalization(), layers.RMSNormalization(), layers.UnitNormalization()],
    ),
}


def plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    array = np.asarray(ops.convert_to_numpy(value))
    return [str(array.dtype), list(array.shape), array.astype(float).round(4).ravel().tolist()]


def operate(name: str) -> Any:
    try:
        return plain(OPERATIONS[name]())
    except Exception as error:
        return "RuntimeError" if isinstance(error, RuntimeError) else type(error).__name__


def build(name: str, folder: Path) -> Any:
    data, stack = LAYERS[name]
    first = last = keras.Input(data.shape[1:])
    for layer in stack:
        last = layer(last)
    model = keras.Model(first, last)
    for variable in model.weights:
        array = rng.standard_normal(variable.shape).astype(np.float32) * 0.3
        variable.assign(np.abs(array) + 0.5 if "variance" in variable.path else array)
    if name == "recurrent":
        return plain(
            model(data)
        )  # Keras exports the first states of one row, which no other number of rows fits
    path = str(folder / f"{name}.xml")
    model.export(path, format="openvino", verbose=False)
    read = openvino.Core().read_model(path)
    compiled = openvino.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    shape = str(read.inputs[0].partial_shape)
    return [plain(model(data)), shape, *(plain(found) for found in compiled([data]).values())]


def main() -> None:
    folder = Path(sys.argv[1])
    out = {name: operate(name) for name in OPERATIONS} | {name: build(name, folder) for name in LAYERS}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
