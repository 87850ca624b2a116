"""Networks that TensorFlow's converter writes as TensorFlow Lite files, and the files written by hand: ovjit
beside the interpreter LiteRT. With a folder as a second argument, small files and answers are kept there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow import keras

import ovjit as ov

SEED = 20261123
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
LAYERS = keras.layers


def mobile() -> keras.Model:
    """Inverted residuals with squeeze and excitation, as MobileNetV3 has them."""
    x = image = keras.Input((16, 16, 3))
    x = LAYERS.Activation("hard_swish")(LAYERS.BatchNormalization()(LAYERS.Conv2D(8, 3, 2, "same")(x)))
    for stride in (1, 2):
        kept = x
        x = LAYERS.Activation("relu6")(LAYERS.Conv2D(16, 1)(x))
        x = LAYERS.BatchNormalization()(LAYERS.DepthwiseConv2D(3, stride, "same")(x))
        gate = LAYERS.GlobalAveragePooling2D(keepdims=True)(x)
        gate = LAYERS.Conv2D(16, 1, activation="sigmoid")(LAYERS.Conv2D(4, 1, activation="relu")(gate))
        x = LAYERS.Conv2D(8, 1)(LAYERS.Multiply()([x, gate]))
        x = LAYERS.Add()([x, kept]) if stride == 1 else x
    x = LAYERS.GlobalAveragePooling2D()(x)
    return keras.Model(image, LAYERS.Dense(10, activation="softmax")(x))


def segmenting() -> keras.Model:
    """Down and up again: pads, pooling, transposed convolutions, resizing, concatenation."""
    x = image = keras.Input((16, 16, 2))
    down = LAYERS.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = LAYERS.MaxPooling2D()(down)
    x = LAYERS.Conv2D(8, 3, dilation_rate=2, padding="same", activation="relu")(x)
    x = LAYERS.ZeroPadding2D(1)(LAYERS.AveragePooling2D(2)(x))
    x = LAYERS.Conv2D(8, 3, activation="tanh")(x)
    x = LAYERS.UpSampling2D(interpolation="bilinear")(x)
    x = LAYERS.Conv2DTranspose(4, 3, 2, padding="same")(x)
    x = LAYERS.Concatenate()([x, down])
    return keras.Model(image, LAYERS.Conv2D(3, 1, activation="softmax")(x))


def recurrent() -> keras.Model:
    """LSTM and GRU, which the converter makes loops or fused operators of."""
    x = sequence = keras.Input((6, 5))
    x = LAYERS.LSTM(4, return_sequences=True, unroll=True)(x)
    return keras.Model(sequence, LAYERS.Dense(3)(LAYERS.GRU(4, unroll=True)(x)))


def attending() -> keras.Model:
    """A layer of a transformer."""
    x = words = keras.Input((8, 12))
    x = LAYERS.LayerNormalization()(LAYERS.Add()([x, LAYERS.MultiHeadAttention(2, 6)(x, x)]))
    h = LAYERS.Dense(12)(LAYERS.Dense(24, activation="gelu")(x))
    return keras.Model(words, LAYERS.LayerNormalization()(LAYERS.Add()([x, h])))


class Looping(tf.Module):
    """A loop with a data-dependent number of iterations."""

    @tf.function(input_signature=[tf.TensorSpec([4], tf.float32)])
    def __call__(self, x):
        return tf.while_loop(lambda v: tf.reduce_sum(v) < 100.0, lambda v: (v * 1.5 + 1.0,), [x])[0]


NETWORKS = {"mobile": mobile, "segmenting": segmenting, "recurrent": recurrent, "attending": attending}
FORMS = ("f32", "f16", "dynamic", "i8", "i16x8")


def converted(model: keras.Model, form: str, rng: np.random.Generator) -> bytes:
    """The file of a network: real numbers, weights of 16 or 8 bits, or quantised throughout."""
    shape = model.inputs[0].shape[1:]
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if form != "f32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if form == "f16":
        converter.target_spec.supported_types = [tf.float16]
    if form in ("i8", "i16x8"):
        examples = [rng.normal(size=(1, *shape)).astype(np.float32) for _ in range(16)]
        converter.representative_dataset = lambda: ([x] for x in examples)
        ops = tf.lite.OpsSet
        if form == "i8":
            converter.target_spec.supported_ops = [ops.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        else:
            wide = ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            converter.target_spec.supported_ops = [wide, ops.TFLITE_BUILTINS]
    return converter.convert()


def random_input(row: Any, rng: np.random.Generator) -> np.ndarray:
    shape, dtype = tuple(row["shape"]), np.dtype(row["dtype"])
    if dtype.kind == "f":
        return rng.normal(0.5, 1.2, shape).astype(dtype)
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(bool)
    low, high = {"int8": (-128, 128), "uint8": (0, 256), "int16": (-3000, 3000)}.get(dtype.name, (1, 4))
    return np.asarray(rng.integers(low, high, shape).astype(dtype))


def interpreted(data: bytes, rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random inputs and LiteRT's answers."""
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    inputs = []
    for row in interpreter.get_input_details():
        inputs.append(random_input(row, rng))
        interpreter.set_tensor(row["index"], inputs[-1])
    interpreter.invoke()
    return inputs, [interpreter.get_tensor(row["index"]) for row in interpreter.get_output_details()]


def check(data: bytes, name: str, form: str, folder: Path | None = None) -> None:
    rng = np.random.default_rng([SEED, len(name)])
    compiled = ov.compile_model(ov.Core().read_model(data), "CPU", F32)
    kept = {}
    for i in range(3):
        inputs, wanted = interpreted(data, rng)
        result = compiled(inputs)
        for j, want in enumerate(wanted):
            got = result[j]
            assert got.dtype == want.dtype and got.shape == want.shape, (name, form, got.shape, want.shape)
            if want.dtype.kind in "iu" and want.dtype.itemsize < 4:
                far = np.abs(got.astype(int) - want.astype(int)).max()
                assert far <= (3 if want.dtype.itemsize == 1 else 40), f"{name} {form}: {far} steps"
            else:
                bound = {"dynamic": 3e-2, "i16x8": 1e-2, "f16": 1e-4}.get(form, 1e-5)
                np.testing.assert_allclose(got, want, rtol=bound, atol=bound, err_msg=f"{name} {form}")
        if folder is not None:
            kept |= {f"x{i}": inputs[0], f"y{i}": wanted[0]}
    if folder is not None:
        (folder / f"{name}_{form}.tflite").write_bytes(data)
        np.savez_compressed(folder / f"{name}_{form}.npz", **kept)


#: Files by hand that LiteRT does not run, or computes without what its own schema says.
LEFT_OUT = ("SQUARE i32", "CONV_2D no bias", "BROADCAST_TO", "BROADCAST_ARGS", "STABLEHLO_COMPOSITE", "ADD 4",
            "SUB 4", "MUL 4", "DIV 4", "CONV_2D 0 4", "CONV_2D 1 4", "CAST FLOAT32 UINT8")  # fmt: skip


def by_hand() -> Iterator[tuple[str, bytes]]:
    from tests.support.tflite.cases import all_cases
    from tests.support.tflite.nets import quantized_net

    yield from ((name, data) for name, data in all_cases().items() if not name.startswith(LEFT_OUT))
    for row in (("INT8", True), ("INT8", False), ("UINT8", False), ("INT16", True)):
        yield f"net {row}", quantized_net(*row)


def main(keep: Path | None = None) -> None:
    tf.random.set_seed(SEED)
    keras.utils.set_random_seed(SEED)
    for name, make in NETWORKS.items():
        model = make()
        for form in FORMS:
            if form == "i16x8" and name in ("recurrent", "attending"):
                continue  # the converter has no operators of 16 bits for them
            small = keep if name in ("mobile", "segmenting") and form in ("f32", "i8", "f16") else None
            data = converted(model, form, np.random.default_rng(SEED))
            check(data, name, form, small)
    looping = Looping()
    function = looping.__call__.get_concrete_function()
    check(tf.lite.TFLiteConverter.from_concrete_functions([function], looping).convert(), "looping", "f32")
    for name, data in by_hand():
        check(data, name, "f32")


if __name__ == "__main__":
    main(Path(sys.argv[2]) if len(sys.argv) > 2 else None)
