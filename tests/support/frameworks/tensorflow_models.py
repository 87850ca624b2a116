"""Makes one network in each format of TensorFlow's in the folder that is given, and reads it with ovjit."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import openvino
import tensorflow as tf
from tensorflow import keras
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import ovjit as ov

F32 = {"INFERENCE_PRECISION_HINT": "f32"}


def network() -> keras.Model:
    layers = keras.layers
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = layers.Add()([x, layers.Conv2D(4, 1)(x)])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(5, activation="softmax", name="probs")(x))


def check(model: ov.Model, image: np.ndarray, want: np.ndarray, where: str) -> None:
    got = ov.compile_model(model, "CPU", F32)(image)[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6, err_msg=where)


def main(folder: Path) -> None:
    tf.random.set_seed(20261123)
    model = network()
    image = np.random.default_rng(20261123).normal(size=(2, 8, 8, 3)).astype(np.float32)
    want = model(image).numpy()
    assert want.std() > 0.01
    function = tf.function(lambda x: model(x))
    concrete = function.get_concrete_function(tf.TensorSpec([None, 8, 8, 3], tf.float32, name="image"))
    graph = convert_variables_to_constants_v2(concrete).graph.as_graph_def()
    model.export(folder / "saved", verbose=False)
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    tf.io.write_graph(graph, str(folder), "m.pb", as_text=False)
    tf.io.write_graph(graph, str(folder), "m.pbtxt", as_text=True)
    for name in ("saved", "m.pb", "m.pbtxt", "m.keras", "m.h5"):
        path = folder / name
        for read in (ov.Core().read_model, ov.convert_model):
            check(read(path), image, want, name)
        ours = ov.Core().read_model(path)
        if name in ("saved", "m.pb", "m.pbtxt"):
            real = openvino.Core().read_model(path)
            ports = zip([*ours.inputs, *ours.outputs], [*real.inputs, *real.outputs], strict=True)
            for mine, theirs in ports:
                assert mine.get_names() <= theirs.get_names(), (name, mine, theirs)
                assert str(mine.get_partial_shape()) == str(theirs.get_partial_shape()), (name, mine, theirs)
    for what, example in ((model, None), (function, image), (concrete, None)):
        check(ov.convert_model(what, example_input=example), image, want, str(type(what)))
    broken = {"bad.pb": b"\x0a\x05hello", "bad.keras": b"junk", "bad.h5": b"junk", "none.pb": b""}
    for name, content in broken.items():
        (folder / name).write_bytes(content)
        try:
            ov.Core().read_model(folder / name)
        except RuntimeError as error:
            assert name in str(error), error
        else:
            raise AssertionError(f"{name} was read")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
