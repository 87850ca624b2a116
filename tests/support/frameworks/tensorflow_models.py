"""Makes one network in each format of TensorFlow's in the folder that is given, and reads it with ovjit."""

from __future__ import annotations

import functools
import importlib
import os
import random
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import openvino
import tensorflow as tf
from tensorflow import keras
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import ovjit as ov

PACKAGES = (ov, openvino)
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


class Scaled(tf.Module):
    """A module with a function of TensorFlow's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(normal(4, 3))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"product": x @ self.weight, "norm": tf.norm(x, axis=1)}


class Own(keras.Model):
    """A model whose inputs nobody has declared."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(4)

    def call(self, x: Any) -> Any:
        return {"a": self.dense(x["p"]), "b": x["q"] * 2} if isinstance(x, dict) else self.dense(x)


RNG = np.random.default_rng(20261125)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def names(model: ov.Model) -> list[list[str]]:
    return [
        sorted(name for port in ports for name in port.get_names()) for ports in (model.inputs, model.outputs)
    ]


def run(what: Any, *given: np.ndarray, **options: Any) -> tuple[ov.Model, list[np.ndarray]]:
    model = ov.convert_model(what, **options)
    results = ov.compile_model(model, "CPU", F32)(list(given))
    return model, [results[i] for i in range(len(results))]


def convert_objects(folder: Path) -> None:
    """Everything that OpenVINO's `convert_model` takes of TensorFlow and Keras."""
    layers, x, y = keras.layers, normal(2, 8), normal(2, 4)
    near = {"rtol": 1e-4, "atol": 1e-5}
    sequential = keras.Sequential([
        keras.Input((7,), dtype="int32"), layers.Embedding(20, 8, mask_zero=True),
        layers.Bidirectional(layers.LSTM(6, return_sequences=True)), layers.GRU(5), layers.Dense(3, "gelu"),
    ])  # fmt: skip
    text = RNG.integers(0, 20, (2, 7)).astype(np.int32)
    np.testing.assert_allclose(run(sequential, text)[1][0], sequential(text), **near)
    sequential.save(folder / "sequential.keras")
    np.testing.assert_allclose(run(folder / "sequential.keras", text)[1][0], sequential(text), **near)
    first, second = keras.Input((8,), name="first"), keras.Input((4,), name="second")
    ends = [layers.Dense(3)(first), layers.Dense(2)(second)]
    several = keras.Model([first, second], ends)
    model, made = run(several, x, y)
    assert names(model)[0] == ["first", "second"]
    for got, want in zip(made, several([x, y]), strict=True):
        np.testing.assert_allclose(got, want, **near)
    by_name = keras.Model({"z": first, "c": second}, {"two": ends[0], "one": ends[1]})
    model = ov.convert_model(by_name)
    assert names(model) == [["c", "z"], ["one", "two"]]
    found, want = ov.compile_model(model, "CPU", F32)({"z": x, "c": y}), by_name({"z": x, "c": y})
    for name in ("one", "two"):
        np.testing.assert_allclose(found[name], want[name], **near)
    own = Own()
    np.testing.assert_allclose(run(own, x, example_input=x)[1][0], own(x), **near)
    given = {"p": x, "q": y}
    model, made = run(own, x, y, example_input=given)
    assert names(model)[1] == ["a", "b"]
    np.testing.assert_allclose(made[1], 2 * y)
    dense = layers.Dense(4)
    np.testing.assert_allclose(run(dense, x, example_input=x)[1][0], dense(x), **near)
    scaled = Scaled()
    tf.saved_model.save(scaled, folder / "scaled", signatures={"serving_default": scaled.__call__})
    loaded = tf.saved_model.load(folder / "scaled")
    want = scaled(y)
    for what in (scaled, scaled.__call__, loaded, loaded.signatures["serving_default"], folder / "scaled"):
        model, made = run(what, y)
        assert names(model) == [["x"], ["norm", "product"]], what
        np.testing.assert_allclose(made[0], want["norm"], **near)
        np.testing.assert_allclose(made[1], want["product"], **near)
    graph = tf.Graph()
    with graph.as_default():
        image = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 3], name="image")
        product = tf.nn.conv2d(image, tf.constant(normal(3, 3, 3, 4)), 1, "SAME", name="conv")
        tf.reduce_mean(product, [1, 2], name="mean")
    for what in (graph, graph.as_graph_def()):
        model, made = run(what, normal(2, 8, 8, 3))
        assert names(model) == [["image:0"], ["mean:0"]] and made[0].shape == (2, 4)
        try:
            ov.convert_model(what, output="conv:0")  # it has its channels first
        except RuntimeError as error:
            assert "No node with name conv:0" in str(error), error
        else:
            raise AssertionError("a tensor in the layout of the exporter has a name of TensorFlow's")
    try:
        ov.convert_model(tf.function(lambda x: x))
    except RuntimeError as error:
        assert "example_input" in str(error), error
    else:
        raise AssertionError("a function without an example was converted")


def fibonacci(x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 5, clear_after_read=False).write(0, x[0]).write(1, x[1])
    made = tf.while_loop(
        lambda i, t: i < 5, lambda i, t: (i + 1, t.write(i, t.read(i - 1) + t.read(i - 2))), [2, array]
    )
    return made[1].stack()


def convert_made_anew() -> None:
    """Complex numbers, lists, TensorArrays, cases; integers and sizes that the exporter gets wrong."""
    rows, numbers = normal(5, 3), np.array([-7, 7, -8], np.int32)

    def filtered(x: Any) -> Any:
        return tf.signal.irfft(tf.signal.rfft(x) * tf.complex(tf.ones([2]) * 0.5, tf.ones([2])), [3])

    def cases(x: Any) -> Any:
        number = tf.cast(tf.reduce_sum(x) > 0, tf.int32)
        return tf.switch_case(number, [lambda: x * 2, lambda: x - 1])

    functions = [
        lambda x: tf.scan(lambda total, row: total * 0.5 + row, x), fibonacci, filtered, cases,
        lambda x: tf.math.real(tf.exp(tf.complex(x, x[::-1])) / tf.complex(x, x + 1)),
    ]  # fmt: skip
    for number, function in enumerate(functions):
        made = tf.function(function, input_signature=[tf.TensorSpec([5, 3])])
        np.testing.assert_allclose(
            run(made, rows)[1][0], made(rows), rtol=1e-4, atol=1e-5, err_msg=str(number)
        )
    for name in ("floordiv", "floormod"):
        made = tf.function(getattr(tf.math, name), input_signature=[tf.TensorSpec([3], tf.int32)] * 2)
        np.testing.assert_array_equal(
            run(made, numbers, numbers[::-1] + 3)[1][0], made(numbers, numbers[::-1] + 3)
        )
    resize = tf.compat.v1.image.resize_bilinear
    made = tf.function(
        lambda x: resize(x, [9, 12], align_corners=True), input_signature=[tf.TensorSpec([2, 5, 6, 3])]
    )
    image = normal(2, 5, 6, 3)
    np.testing.assert_allclose(run(made, image)[1][0], made(image), rtol=1e-4, atol=1e-5)


def _scaled(images: Any, size: Any, **options: Any) -> Any:
    """Images that are scaled to a size, and moved: a part of the result is beyond them."""
    scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(images)[1:3], tf.float32)
    return tf.raw_ops.ScaleAndTranslate(
        images=images, size=size, scale=scale * 0.8, translation=[0.7, 0.3], **options
    )


def convert_resizing() -> None:
    """Images of many sizes by pixels that are weighted, as known and as open sizes."""
    raw, image = tf.raw_ops, normal(2, 5, 7, 3)
    ways = [
        (raw.ResizeBicubic, {"half_pixel_centers": True}), (raw.ResizeBicubic, {"align_corners": True}),
        (raw.ResizeBicubic, {}), (raw.ResizeArea, {"align_corners": True}), (raw.ResizeArea, {}),
    ]  # fmt: skip
    kernels = "lanczos3 lanczos5 triangle keyscubic".split()
    ways += [(_scaled, {"kernel_type": kernel, "antialias": kernel != "lanczos5"}) for kernel in kernels]
    sizes = whole([9, 12], [5, 7], [3, 15], [2, 4], [1, 1])
    for way, options in ways:
        function = tf.function(
            lambda x, s: way(images=x, size=s, **options),  # noqa: B023
            input_signature=[tf.TensorSpec([None] * 4), tf.TensorSpec([2], tf.int32)],
        )
        resized = ov.compile_model(ov.convert_model(function), "CPU", F32)
        for size in sizes:
            want, where = function(image, size).numpy(), f"{way} {options} {size}"
            fixed = tf.function(
                lambda x: way(images=x, size=size, **options),  # noqa: B023
                input_signature=[tf.TensorSpec(image.shape)],
            )
            for got in (resized([image, size])[0], run(fixed, image)[1][0]):
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=where)
    rng = np.random.default_rng(20261127)
    for options in ({"half_pixel_centers": True}, {"align_corners": True}, {}):
        nearest = functools.partial(raw.ResizeNearestNeighbor, **options)
        function = tf.function(
            lambda x, s: nearest(images=x, size=s),  # noqa: B023
            input_signature=[tf.TensorSpec([None] * 4), tf.TensorSpec([2], tf.int32)],
        )
        resized = ov.compile_model(ov.convert_model(function), "CPU", F32)
        for height, width, *size in [(28, 16, 69, 61), (33, 39, 18, 3), *rng.integers(1, 70, (40, 4))]:
            pixels = normal(2, height, width, 2)
            want = function(pixels, whole(*size)).numpy()
            np.testing.assert_array_equal(resized([pixels, whole(*size)])[0], want, err_msg=str(size))
        for size in ((10, 28), (9, 12)):
            fixed = tf.function(lambda x: nearest(images=x, size=size))  # noqa: B023
            made = run(fixed, image, example_input=tf.constant(image))[1][0]
            np.testing.assert_array_equal(made, fixed(image), err_msg=f"{options} {size}")
    layers, known, unknown = keras.layers, (5, 7, 3), (None, None, 3)
    for shape, layer in (
        (known, layers.Resizing(9, 12, "bicubic")), (unknown, layers.Resizing(3, 15, "bicubic")),
        (known, layers.Resizing(9, 4, "area")), (known, layers.UpSampling2D(2, interpolation="bicubic")),
    ):  # fmt: skip
        model = keras.Sequential([keras.Input(shape), layer])
        np.testing.assert_allclose(
            run(model, image)[1][0], model(image), rtol=1e-5, atol=1e-5, err_msg=f"{layer} {shape}"
        )


def convert_patches() -> None:
    """Parts of images of open sizes."""
    image = normal(2, 7, 6, 3)
    for sizes, strides, rates, padding in (
        ([1, 3, 4, 1], [1, 2, 1, 1], [1, 1, 1, 1], "SAME"),
        ([1, 2, 3, 1], [1, 1, 1, 1], [1, 2, 2, 1], "VALID"),
        ([1, 2, 2, 1], [1, 3, 3, 1], [1, 1, 1, 1], "SAME"),
    ):  # fmt: skip
        given = functools.partial(
            tf.image.extract_patches, sizes=sizes, strides=strides, rates=rates, padding=padding
        )
        function = tf.function(given, input_signature=[tf.TensorSpec([None] * 4)])
        np.testing.assert_array_equal(run(function, image)[1][0], given(image), err_msg=padding)


def convert_diagonals() -> None:
    """Diagonals of matrices, single and several, at either side; unit matrices of an open size."""
    raw, linalg, x, padding = tf.raw_ops, tf.linalg, normal(2, 4, 5), np.float32(3)
    count = whole(3)[0]
    cases: dict[str, tuple[Any, ...]] = {
        "eye": (lambda n: (tf.eye(n, batch_shape=[2]), tf.eye(n, n + 1, batch_shape=[1, 3]), tf.eye(n + 2, n),
                           tf.eye(n), linalg.diag(tf.fill([2, n], 1.0), k=1)), count),
        "no rows": (tf.eye, count * 0),
        "old": (lambda a: (raw.MatrixDiag(diagonal=a), raw.MatrixDiagPart(input=a),
                           raw.MatrixSetDiag(input=a, diagonal=a[:, :, 0] * 2)), x),
        "types": (lambda a: (linalg.diag(a > 0), linalg.diag(tf.cast(a * 9, tf.int64))), x),
        "MatrixDiagPartV2": (lambda a: raw.MatrixDiagPartV2(input=a, k=[-1, 2], padding_value=padding), x),
    }  # fmt: skip
    sides = ("RIGHT_LEFT", "LEFT_RIGHT", "LEFT_LEFT", "RIGHT_RIGHT")
    for k in (0, 1, -2, 4, (-1, 2), (1, 3), (-3, -1), (0, 0), (-3, 4)):
        for side in sides if isinstance(k, tuple) else sides[:1]:
            options = {"k": k, "align": side}
            part = functools.partial(linalg.diag_part, **options, padding_value=padding)
            made = functools.partial(linalg.diag, **options, padding_value=padding)
            cases[f"{options}"] = (
                lambda a, d, p=part, m=made, o=options: (
                    p(a), linalg.set_diag(a, d, **o), m(d), m(d, num_rows=9), m(d, num_cols=8),
                ), x, part(x).numpy(),
            )  # fmt: skip
    compare(cases)


def convert_loops(folder: Path) -> None:
    """Loops of single operators, as graphs of TensorFlow 1 have them; lists that are written backwards."""
    rows = np.abs(normal(5, 3))

    def backwards(x: Any) -> Any:
        array = tf.TensorArray(tf.float32, 5)
        made = tf.while_loop(lambda i, t: i >= 0, lambda i, t: (i - 1, t.write(i, x[i] * 2.0)), [4, array])
        return made[1].stack()

    def joined(x: Any) -> Any:
        array = tf.TensorArray(tf.float32, 5)
        made = tf.while_loop(
            lambda i, t: i < 5, lambda i, t: (i + 1, t.write(i, x[i : i + 1] * 2.0)), [0, array]
        )
        return made[1].concat()

    def growing(x: Any) -> Any:
        start = tf.shape(x)[0] - 3
        return tf.while_loop(
            lambda i, v: i < 5, lambda i, v: (i + 1, tf.concat([v, v + 2.0], 0)), [start, x[:1]],
            shape_invariants=[tf.TensorShape([]), tf.TensorShape([None, 3])],
        )[1]  # fmt: skip

    def ended(x: Any) -> Any:
        total = tf.zeros([3])
        for i in tf.range(5):
            if tf.reduce_sum(total) > 2.0:
                break
            total = total + x[i]
        return total

    def scanned(x: Any) -> Any:
        return tf.scan(lambda total, row: total * 0.5 + row, x)

    signature = [tf.TensorSpec([5, 3], tf.float32, "x")]
    for function in (scanned, backwards, fibonacci, joined, growing, ended):
        made = tf.function(function, input_signature=signature)
        want = made(rows).numpy()
        for lowered in (False, True):
            concrete = made.get_concrete_function()
            frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=lowered)
            graph = frozen.graph.as_graph_def()
            tf.io.write_graph(graph, str(folder), "loop.pb", as_text=False)
            model, results = run(folder / "loop.pb", rows)
            assert names(model)[0] == ["x:0"], names(model)
            where = f"{function.__name__} {lowered}"
            np.testing.assert_allclose(results[0], want, rtol=1e-4, atol=1e-5, err_msg=where)


def convert_unread(folder: Path) -> None:
    """Inputs that nothing reads stay, in their places, as in OpenVINO."""

    class Some(tf.Module):
        @tf.function(input_signature=[
            tf.TensorSpec([2], name="x"),
            tf.TensorSpec([None, 3], tf.int32, "y"),
            tf.TensorSpec([2], name="z"),
        ])  # fmt: skip
        def __call__(self, x: Any, y: Any, z: Any) -> Any:
            return {"made": x * 2 + z}

    module = Some()
    tf.saved_model.save(module, str(folder / "some"), signatures=module.__call__)
    first, second = keras.Input((3,), name="first"), keras.Input((2,), name="second")
    model = keras.Model([second, first], keras.layers.Dense(2)(first))
    with tf.Graph().as_default() as graph:
        a = tf.compat.v1.placeholder(tf.float32, [2], "a")
        tf.compat.v1.placeholder(tf.int32, [None, 4], "b")
        tf.identity(a * 2, "made")
    for what in (module, str(folder / "some"), model, graph):
        mine, theirs = (
            [(p.get_names(), str(p.get_partial_shape()), str(p.get_element_type())) for p in made.inputs]
            for made in (package.convert_model(what) for package in PACKAGES)
        )
        assert mine == theirs, (what, mine, theirs)


def convert_operators() -> None:
    """Operators that the exporter does not know."""
    x, spd, places = normal(3, 4), normal(4, 4), np.sort(normal(2, 6))
    spd, positive = spd @ spd.T + 4 * np.eye(4, dtype=np.float32), np.maximum(x, 0)
    # two of three channels, or all, are often equal
    colours = np.random.default_rng(20261127).integers(0, 4, (2, 16, 16, 3)).astype(np.float32) / 3
    raw, solve, linalg = tf.raw_ops, tf.linalg.triangular_solve, tf.linalg
    cases: dict[str, tuple[Any, ...]] = {
        "Erfc": (tf.math.erfc, x), "Lgamma": (tf.math.lgamma, x), "Erfinv": (tf.math.erfinv, np.tanh(x)),
        "Digamma": (tf.math.digamma, np.abs(x) + 0.2), "Ndtri": (tf.math.ndtri, 1 / (1 + np.exp(-x))),
        "BesselI0e": (tf.math.bessel_i0e, x), "BesselI1e": (tf.math.bessel_i1e, x),
        "BesselI0": (tf.math.bessel_i0, x), "BesselI1": (tf.math.bessel_i1, x), "Expm1": (tf.math.expm1, x),
        "Log1p": (tf.math.log1p, positive), "Xlogy": (tf.math.xlogy, positive, positive),
        "Xlog1py": (tf.math.xlog1py, positive, np.abs(x)), "Xdivy": (tf.math.xdivy, positive, positive),
        "MulNoNan": (tf.math.multiply_no_nan, x, positive), "L2Loss": (tf.nn.l2_loss, x),
        "TruncateMod": (lambda a: raw.TruncateMod(x=a, y=0.7), x), "Inv": (lambda a: raw.Inv(x=a), x + 9),
        "Mod": (lambda a: raw.Mod(x=a, y=3), (x * 9).astype(np.int32)),
        "EuclideanNorm": (lambda a: (tf.math.reduce_euclidean_norm(a, 1),
                                     tf.math.reduce_euclidean_norm(a, [0, 1], keepdims=True)), x),
        "LinSpace": (lambda a: tf.linspace(a, a * 2, 5), np.float32(2)), "Cholesky": (linalg.cholesky, spd),
        "MatrixInverse": (linalg.inv, spd), "Cross": (linalg.cross, x[:, :3], x[:, 1:]),
        "MatrixSolve": (lambda a, b: (linalg.solve(a, b), linalg.solve(a, b, adjoint=True)),
                        spd + np.tri(4, dtype=np.float32), x.T),
        "MatrixTriangularSolve": (lambda a, b: (solve(a, b), solve(a, b, lower=False, adjoint=True)),
                                  spd, x.T),
        "Bucketize": (lambda a: raw.Bucketize(input=a, boundaries=[-1.0, 0.0, 1.0]),
                      np.array([-2, -1, 0, 0.5, 1, 3], np.float32)),
        "Bitcast": (lambda a: tf.bitcast(a, tf.int32), x),
        "ScatterNd": (lambda a: (tf.scatter_nd([[0], [2], [0]], a, [5, 4]),
                                 tf.scatter_nd([[1, 0], [1, 0], [0, 1]], a[:, 0], [2, 2])), x),
        "ShapeN": (lambda a: tuple(raw.ShapeN(input=[a, a[0], a[:0]])), x),
        "CumulativeLogsumexp": (lambda a: tuple(
            tf.math.cumulative_logsumexp(a, axis, exclusive, reverse)
            for axis, exclusive, reverse in ((0, False, False), (1, False, True), (-1, True, False),
                                             (0, True, True))), x * 9),
        "InTopKV2": (lambda a: tuple(tf.math.in_top_k(whole(2, 0, 7), a, k) for k in (1, 2, 4)), x),
        "ApproxTopK": (lambda a: tuple(tf.math.approx_max_k(a, 2)), x),
        "TanhGrad": (lambda a, b: (raw.TanhGrad(y=a, dy=b), raw.SigmoidGrad(y=a, dy=b)), x, positive),
        "BroadcastArgs": (lambda a, b: (raw.BroadcastArgs(s0=a, s1=b), raw.BroadcastArgs(s0=b, s1=a)),
                          whole(1, 5), whole(7, 3, 1)),
        "HistogramFixedWidth": (lambda a: tf.histogram_fixed_width(a, [-1.0, 0.7], 5), x),
        "AdjustSaturation": (lambda a: tuple(tf.image.adjust_saturation(a, f) for f in (0.4, 1.0, 3.0)),
                             colours),
        "RGBToHSV": (tf.image.rgb_to_hsv, colours), "HSVToRGB": (tf.image.hsv_to_rgb, colours),
        "FakeQuantWithMinMaxVars": (lambda a: (
            tf.quantization.fake_quant_with_min_max_vars(a, -1.0, 1.3),
            tf.quantization.fake_quant_with_min_max_vars(a, 0.1, 1.5, num_bits=4, narrow_range=True)), x),
        "FakeQuantWithMinMaxArgs": (lambda a: (
            tf.quantization.fake_quant_with_min_max_args(a),
            tf.quantization.fake_quant_with_min_max_args(a, -1, 1.2, narrow_range=True)), x),
        "FakeQuantWithMinMaxVarsPerChannel": (
            lambda a: tf.quantization.fake_quant_with_min_max_vars_per_channel(
                a, [-1.0, -2, -0.3, -1], [1.0, 1, 1, 2]), x),
        "small": (lambda a: (tf.math.log1p(a) * 1e6, tf.math.expm1(a) * 1e6, tf.math.xlog1py(1e6, a)),
                  x / 1e6),
        "LowerBound": (lambda a, b: tf.searchsorted(a, b), places, places[:, 1:3]),
        "UpperBound": (lambda a, b: tf.searchsorted(a, b, side="right"), places, places[:, 1:3]),
    }  # fmt: skip
    compare(cases)


def compare(cases: dict[str, tuple[Any, ...]]) -> None:
    """Functions of TensorFlow beside themselves: name -> function, operands."""
    for name, (function, *given) in cases.items():
        given = [
            np.asarray(value, value.dtype if value.dtype != np.float64 else np.float32) for value in given
        ]
        want = [np.asarray(value) for value in tf.nest.flatten(function(*map(tf.constant, given)))]
        made = run(tf.function(function), *given, example_input=tuple(map(tf.constant, given)))[1]
        for got, value in zip(made, want, strict=True):
            assert got.dtype == value.dtype and got.shape == value.shape, (name, got.dtype, got.shape)
            np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-4, err_msg=name)


def whole(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def convert_segments() -> None:
    """What puts rows together by numbers: negative numbers, empty segments, several dimensions of numbers."""
    raw, rows, small = tf.raw_ops, normal(5, 3), (normal(5, 3) * 9).astype(np.int32)
    rising, any_order, squares = whole(0, 0, 2, 4, 4), whole(3, -1, 0, 3, -1), whole([0, 1], [-1, 1])
    indices, values = np.array([[0, 1], [2, 0], [2, 3]]), normal(3)
    kinds, sparse = ("Sum", "Prod", "Max", "Min"), ("Sum", "Mean", "SqrtN")

    def segments(kind: str) -> Callable[..., Any]:
        made = getattr(raw, f"Segment{kind}")
        return lambda a, b, k: (made(data=a, segment_ids=k), made(data=b, segment_ids=k))

    def unsorted(kind: str) -> Callable[..., Any]:
        made = getattr(raw, f"UnsortedSegment{kind}")
        return lambda a, b, k, s, c: (
            made(data=a, segment_ids=k, num_segments=5), made(data=b, segment_ids=k, num_segments=c),
            made(data=tf.reshape(a[:4], [2, 2, 3]), segment_ids=s, num_segments=3),
        )  # fmt: skip

    def sparse_segments(kind: str) -> Callable[..., Any]:
        short, long = (getattr(raw, f"SparseSegment{kind}{end}") for end in ("", "WithNumSegments"))
        return lambda a, i, k: (
            short(data=a, indices=i, segment_ids=k),
            long(data=a, indices=i, segment_ids=k, num_segments=7),
        )

    def product(i: Any, v: Any, a: Any) -> Any:
        multiply = raw.SparseTensorDenseMatMul
        return tuple(
            multiply(a_indices=i, a_values=v, a_shape=[4, 4], b=a, adjoint_a=x, adjoint_b=y)
            for x in (False, True)
            for y in (False, True)
        )

    logits, labels = normal(6, 2, 4), np.array([[0, 0], [0, 1], [1, 0]])
    compare({
        **{f"Segment{kind}": (segments(kind), rows, small, rising) for kind in kinds},
        **{f"UnsortedSegment{kind}": (unsorted(kind), rows, small, any_order, squares, whole(6)[0])
           for kind in kinds},
        **{f"SparseSegment{kind}": (sparse_segments(kind), rows, whole(4, 0, 0, 2), whole(0, 0, 2, 3))
           for kind in sparse},
        "SegmentMean": (lambda a, k: raw.SegmentMean(data=a, segment_ids=k), rows, rising),
        "Bincount": (lambda k, w: (
            raw.Bincount(arr=k, size=4, weights=w),
            raw.Bincount(arr=k, size=4, weights=tf.zeros([0], tf.int32)),
            raw.DenseBincount(input=k, size=4, weights=w),
            raw.DenseBincount(input=k, size=9, weights=tf.zeros([0]), binary_output=True),
        ), whole([0, 3, 3], [1, 0, 7]), normal(2, 3)),
        "InvertPermutation": (lambda k: raw.InvertPermutation(x=k), whole(2, 0, 3, 1)),
        "SparseFillEmptyRows": (lambda i, v: tuple(raw.SparseFillEmptyRows(
            indices=i, values=v, dense_shape=tf.constant([5, 4], tf.int64), default_value=9.0)),
            indices, values),
        "SparseTensorDenseAdd": (lambda i, v, a: raw.SparseTensorDenseAdd(
            a_indices=i, a_values=v, a_shape=tf.constant([4, 4], tf.int64), b=a),
            indices, values, normal(4, 4)),
        "SparseTensorDenseMatMul": (product, indices, values, normal(4, 4)),
        "SparseToDense": (lambda i, v: (
            raw.SparseToDense(sparse_indices=i, output_shape=[4, 4], sparse_values=v, default_value=7.0),
            raw.SparseToDense(sparse_indices=i[1:, 1], output_shape=[4], sparse_values=v[0],
                              default_value=0.0),
        ), indices, values),
        "ListDiff": (lambda a, b: (*raw.ListDiff(x=a, y=b), *raw.ListDiff(x=a, y=b, out_idx=tf.int64)),
                     whole(3, 1, 2, 3, 5), whole(1, 5)),
        "UnravelIndex": (lambda k, d: (tf.unravel_index(k, d), tf.unravel_index(k[1], d)),
                         whole(0, 5, 11), whole(2, 3, 2)),
        "CTCLoss": (lambda x, i, v, c: raw.CTCLoss(
            inputs=x, labels_indices=i, labels_values=v, sequence_length=c)[0],
            logits, labels, whole(0, 2, 1), whole(6, 5)),
        "OneHot": (lambda k: tuple(tf.one_hot(k, 3, 2.0, -1.0, axis) for axis in (0, 1, -1)),
                   whole([-1, 0, 2], [3, -3, 1])),
    })  # fmt: skip


def convert_layers() -> None:
    """Recurrent cells, normalization in training, boxes, convolutions with stated padding, open operands."""
    raw, x = tf.raw_ops, normal(4, 2, 5)
    state, peeps, bias = [normal(2, 3), normal(2, 3)], normal(3, 3), normal(12)

    def recurrent(version: str, **options: Any) -> Callable[..., Any]:
        def function(v: Any, c: Any, h: Any, w: Any, p: Any, b: Any) -> Any:
            given = {"x": v, "cs_prev": c, "h_prev": h, "w": w, "wci": p[0], "wcf": p[1], "wco": p[2], "b": b}
            whole, part = (
                getattr(raw, f"BlockLSTM{version}")(
                    seq_len_max=tf.constant(count, tf.int64), **given, **options
                )
                for count in (4, 3)
            )
            # of the gates behind the longest sequence, TensorFlow has what was in the memory
            return *whole, part.cs, part.h

        return function

    def cell(v: Any, c: Any, h: Any, w: Any, p: Any, b: Any) -> Any:
        return tuple(raw.LSTMBlockCell(x=v[0], cs_prev=c, h_prev=h, w=w, wci=p[0], wcf=p[1], wco=p[2], b=b,
                                       use_peephole=True, cell_clip=0.3))  # fmt: skip

    def gru(v: Any, h: Any, w: Any, u: Any) -> Any:
        return tuple(raw.GRUBlockCell(x=v[0], h_prev=h, w_ru=w, w_c=u, b_ru=w[0], b_c=u[0]))

    def normalized(v: Any, s: Any) -> Any:
        options = {"x": v, "scale": s, "offset": s * 2, "is_training": True}
        return (
            *raw.FusedBatchNorm(**options, mean=[], variance=[])[:3],
            *raw.FusedBatchNormV3(**options, mean=s, variance=s, exponential_avg_factor=0.25)[:3],
        )

    def boxes(b: Any, s: Any) -> Any:
        most = {"boxes": b, "scores": s, "max_output_size": 4, "iou_threshold": 0.4}
        limit = {**most, "score_threshold": 0.2}
        return (
            raw.NonMaxSuppression(**most), raw.NonMaxSuppressionV2(**most), raw.NonMaxSuppressionV3(**limit),
            *raw.NonMaxSuppressionV4(**limit, pad_to_max_output_size=True),
            *raw.NonMaxSuppressionV5(**limit, soft_nms_sigma=0.5),
            *raw.NonMaxSuppressionV5(**limit, soft_nms_sigma=0.0),
        )  # fmt: skip

    def back(v: Any, w: Any) -> Any:
        pads = {"padding": "EXPLICIT", "explicit_paddings": [0, 0, 1, 1, 1, 0, 0, 0]}
        once, twice = ({"filter": w, "out_backprop": v, "strides": [1, s, s, 1], **pads} for s in (1, 2))
        return (
            raw.Conv2DBackpropInput(input_sizes=[2, 6, 6, 3], **once),
            raw.Conv2DBackpropInput(input_sizes=[2, 12, 12, 3], **twice),
        )

    corners = np.sort(RNG.random((8, 4)).astype(np.float32), 1)
    more = [*state, normal(8, 12), peeps, bias]
    image, cells = normal(8, 4, 5, 2), whole([1, 0], [0, 2])
    compare({
        "BlockLSTM": (recurrent("", use_peephole=True, cell_clip=0.4, forget_bias=0.7), x, *more),
        "BlockLSTMV2": (recurrent("V2"), x, *more), "LSTMBlockCell": (cell, x, *more),
        "GRUBlockCell": (gru, x, state[0], normal(8, 6), normal(8, 3)),
        "FusedBatchNorm": (normalized, normal(2, 4, 5, 3), normal(3)),
        "NonMaxSuppression": (boxes, corners, RNG.permutation(8) / 8),
        "Conv2DBackpropInput": (back, normal(2, 6, 6, 4), normal(3, 2, 3, 4)),
        "ssim": (lambda a, b: tf.image.ssim(a, b, 1.0), *RNG.random((2, 1, 16, 16, 3)).astype(np.float32)),
        "BatchToSpaceND": (lambda v, b, c: raw.BatchToSpaceND(input=v, block_shape=b, crops=c),
                           image, whole(2, 2), cells),
        "Rank": (lambda v, a: tf.rank(tf.reduce_sum(v, a)) + tf.zeros([2], tf.int32), image, whole(1, -1)),
        "Transpose": (tf.transpose, image, whole(2, 0, 3, 1)),
        "LinSpace": (lambda a, c: tf.linspace(a, a * 2, c), normal(1)[0], whole(6)[0]),
        "EuclideanNorm": (lambda v, a: raw.EuclideanNorm(input=v, axis=a), image, whole(1, -1)),
        "ToBool": (lambda a, b: (raw.ToBool(input=a), raw.ToBool(input=b), raw.ToBool(input=b[:0])),
                   whole(3)[0], normal(2)),
    })  # fmt: skip


def convert_convolutions() -> None:
    """Transposed convolutions with more rows than their windows reach, of known and of open sizes."""
    layers, raw = keras.layers, tf.raw_ops
    cases = [
        (layers.Conv2DTranspose, (7, 5), [(3, 2, 1), (3, 3, 2), (1, 2, None), (2, 3, 1), (4, 2, None)]),
        (layers.Conv3DTranspose, (4, 3, 5), [(3, 2, 1), (2, 3, None)]),
        (layers.Conv1DTranspose, (6,), [(3, 2, 1), (2, 3, None)]),
    ]
    for layer, size, options in cases:
        x = normal(2, *size, 3)
        for window, stride, more in options:
            for padding in ("valid", "same"):
                for shape in (size, [None] * len(size)):
                    made = layer(
                        4, window, strides=stride, output_padding=more, padding=padding,
                        bias_initializer="random_normal",
                    )  # fmt: skip
                    model = keras.Sequential([keras.Input((*shape, 3)), made])
                    check(ov.convert_model(model), x, model(x), f"{made} {window, stride, more, padding}")
    for rank in (1, 2, 3):
        for shape in ([5] * rank, [None] * rank):
            x, made = normal(2, *[5] * rank, 4), getattr(layers, f"Conv{rank}D")(6, 2, groups=2)
            model = keras.Sequential([keras.Input((*shape, 4)), made])
            check(ov.convert_model(model), x, model(x), f"{made} in groups, {shape}")
    pads = {"padding": "EXPLICIT", "explicit_paddings": [0, 0, 1, 0, 0, 1, 0, 0]}
    x, weights = normal(2, 6, 5, 4), normal(3, 2, 3, 4)
    for shape in ([2, 6, 5, 4], [None, None, None, 4]):
        function = tf.function(
            lambda v: raw.Conv2DBackpropInput(
                input_sizes=tf.concat([tf.shape(v)[:1], [13, 10, 3]], 0), filter=weights, out_backprop=v,
                strides=[1, 2, 2, 1], **pads,
            ), input_signature=[tf.TensorSpec(shape)],
        )  # fmt: skip
        check(ov.convert_model(function), x, function(x), f"stated padding, {shape}")


def convert_assignments(folder: Path) -> None:
    """Variables that a call assigns to: states of random numbers, and others that its results do not read."""
    sequence = normal(2, 5, 3)
    for layer in (keras.layers.LSTM, keras.layers.GRU):
        model = keras.Sequential([keras.Input((5, 3)), layer(4, dropout=0.2, recurrent_dropout=0.3)])
        model.export(str(folder / "dropout"), verbose=False)
        for given in (model, str(folder / "dropout")):
            check(ov.convert_model(given), sequence, model(sequence), f"{layer} {given}")
    state = tf.Variable(1.0)

    def before(v: Any) -> Any:
        known = state.read_value()
        state.assign_sub(3.0)
        state.assign(5.0)
        return v * known

    def after(v: Any) -> Any:
        state.assign_add(1.0)
        return v * state

    def in_branch(v: Any) -> Any:
        state.assign(2.0)
        if tf.reduce_sum(v) > 0:
            state.assign_sub(v[0])
        else:
            state.assign(state * v[1])
        return v * state

    def in_loop(v: Any) -> Any:
        state.assign(0.5)
        for i in tf.range(3):
            if v[i] > 0:
                state.assign_add(v[i] * state)
        return v + state.read_value()

    def in_both(v: Any) -> Any:
        """What the variable held before does not matter."""
        if tf.reduce_sum(v) > 0:
            state.assign(v[0])
        else:
            state.assign(v[1])
        return v * state

    x = normal(3)
    signed = functools.partial(tf.function, input_signature=[tf.TensorSpec([3])])
    for function in map(signed, (in_branch, in_loop, in_both)):
        converted = ov.convert_model(function)
        for value in (x, abs(x), -abs(x)):
            check(converted, value, function(value), f"{function}")
    state.assign(1.0)
    for function in map(signed, (before, after)):
        module = tf.Module()
        module.state, module.call = state, function
        tf.saved_model.save(module, str(folder / "assigning"), signatures=function)
        for given in (function, str(folder / "assigning")):
            if function.python_function is after:
                assert "reads a variable after an assignment" in refusal(ov, given)
            else:
                check(ov.convert_model(given), x, x, f"{function} {given}")


class Looking(tf.Module):
    """Looks numbers up in a table, or how many it has."""

    def __init__(self, keys: list[int], kind: Any, table: str = "static"):
        super().__init__()
        given = tf.constant(keys, tf.int64), tf.cast(tf.range(10, 10 + len(keys)), kind)
        default = tf.constant(7, kind)
        if keys and table == "static":
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(*given), default)
        elif table != "dense":
            self.table = tf.lookup.experimental.MutableHashTable(tf.int64, kind, default)
        else:
            self.table = tf.lookup.experimental.DenseHashTable(tf.int64, kind, default, -100, -101)
        if keys and table != "static":
            self.table.insert(*given)
        self.is_flat = table == "dense"

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64)])
    def __call__(self, x: Any) -> Any:
        if self.is_flat:
            return tf.reshape(self.table.lookup(tf.reshape(x, [-1])), tf.shape(x))
        return self.table.lookup(x)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
    def count(self, x: Any) -> Any:
        return self.table.size() + x


def convert_signatures(folder: Path) -> None:
    """The default one of several signatures, else the first; also of a file of TensorFlow 1."""
    module = Looking([4, 1], tf.float32)
    spec = tf.TensorSpec([None], tf.float32, "my-input")
    functions = (lambda x: {"y": x + 1}), (lambda x: {"y": x * 2})
    first, second = (tf.function(function, input_signature=[spec]) for function in functions)
    lookup, path, x = module.__call__, str(folder / "signatures"), normal(3)
    for keys, want in (("b default a", x * 2), ("b serving_default a", x * 2), ("z b a", x + 1)):
        signatures = dict(zip(keys.split(), (first, second, lookup), strict=True))
        tf.saved_model.save(module, path, signatures=signatures)
        for given, name in ((path, "my-input"), (tf.saved_model.load(path), "my_input")):
            model, (got,) = run(given, x)
            np.testing.assert_array_equal(got, want, keys)
            assert names(model) == [[name], ["y"]]
        loaded = tf.saved_model.load(path).signatures["a"]
        _, (found,) = run(loaded, np.array([[1, 2]]))
        np.testing.assert_array_equal(found, [[11, 7]])
    tf.saved_model.save(module, path)
    assert "no signatures" in refusal(ov, path)
    old = tf.compat.v1
    with tf.Graph().as_default(), old.Session() as session:
        a, b = old.placeholder(tf.float32, [None, 2]), old.placeholder(tf.float32, [2])
        w = old.get_variable("w", initializer=np.float32([[1, 2], [3, 4]]))
        session.run(old.global_variables_initializer())
        ends = {"y": a @ w, "z": b * 2}
        old.saved_model.simple_save(session, str(folder / "old"), {"zz": a, "my-input": b}, ends)
    for given in (str(folder / "old"), tf.saved_model.load(str(folder / "old"))):
        model, (y, z) = run(given, np.float32([1, 2]), np.float32([[1, 0]]))
        assert names(model) == [["my-input", "zz"], ["y", "z"]]
        np.testing.assert_array_equal(y, [[1, 2]])
        np.testing.assert_array_equal(z, [2, 4])


def convert_lookups(folder: Path) -> None:
    """Tables of integers, found and not."""
    layer, x = keras.layers.IntegerLookup, np.array([[1, 2, 3, 9], [5, 0, -3, 3]])
    options: list[dict[str, Any]] = [
        {}, {"num_oov_indices": 3, "mask_token": 0}, {"invert": True}, {"output_mode": "multi_hot"},
        {"output_mode": "count"}, {"output_mode": "tf_idf", "idf_weights": [0.1, 0.2, 0.3]},
    ]  # fmt: skip
    kinds = tf.int32, tf.int64, tf.float32
    whats: list[Any] = [Looking(keys, kind) for keys in ([4, 1, -3], []) for kind in kinds]
    whats += [Looking(keys, tf.float64, table) for keys in ([4, 1], []) for table in ("mutable", "dense")]
    whats += [
        keras.Sequential([keras.Input((4,), dtype="int64"), layer(vocabulary=[1, 3, 5], **each)])
        for each in options
    ]
    for what in whats:
        path = str(folder / "looking")
        if isinstance(what, Looking):
            tf.saved_model.save(what, path, signatures=what.__call__)
        else:
            what.export(path, verbose=False)
        for given in (what, path):
            _, (found,) = run(given, x)
            np.testing.assert_array_equal(found, what(x).numpy(), str(given))
        if isinstance(what, Looking):
            _, (count,) = run(what.count.get_concrete_function(), np.int64(3))
            assert count == what.count(3).numpy()


def convert_lookups_of_text(folder: Path) -> None:
    """Tables of texts, found and not."""
    layer, x = keras.layers.StringLookup, np.array([["x", "é", "q"], ["y", "", "x"]])
    options: list[dict[str, Any]] = [{}, {"mask_token": "q"}, {"output_mode": "multi_hot"}, {"invert": True}]
    for each in options:
        kind = "int64" if each.get("invert") else "string"
        what = keras.Sequential([keras.Input((3,), dtype=kind), layer(vocabulary=["é", "x", "y"], **each)])
        values = np.array([[1, 0, 2], [3, 3, 0]]) if each.get("invert") else x
        want = what(tf.constant(values)).numpy()
        what.export(str(folder / "words"), verbose=False)
        for given in (what, str(folder / "words")):
            _, (found,) = run(given, values)
            np.testing.assert_array_equal(
                found, np.char.decode(want.astype("S"), "utf-8") if want.dtype == object else want, str(each)
            )
    keys, values = tf.constant(["b", "a"]), tf.constant(["é", "none"])
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), "else")
    function = tf.function(table.lookup, input_signature=[tf.TensorSpec([None], tf.string)])
    _, (found,) = run(function, np.array(["a", "c", "b"]))
    assert found.tolist() == ["none", "else", "é"]


def convert_what_the_exporter_spoils() -> None:
    """Elements that are not selected, types and letters that it takes for others."""
    x, y = np.float32([-1, 0, 2, np.inf]), np.float32([0.5, 0, -2, np.inf])

    def select(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, ...]:
        rows = tf.raw_ops.Select(condition=b > 0, x=tf.reshape(a, [4, 1]), y=tf.zeros([4, 1]))
        return tf.where(a > 0, tf.math.log(a), b), rows

    def compare(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, ...]:
        low = tf.cast(a, tf.bfloat16), tf.cast(b, tf.bfloat16)
        angle = tf.cast(tf.atan2(low[0] + 1.0, low[1]), tf.float32)
        return low[0] * 0.3 == low[0] * 0.4, low[0] != low[1], angle, tf.atan2(a + 1, b)

    def multiply(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, ...]:
        a, b = tf.reshape(a[:3], [1, 3]), tf.reshape(b, [1, 4])
        low = tf.einsum("...i,...i->...", tf.cast(a, tf.bfloat16), tf.cast(a, tf.bfloat16))
        return tf.raw_ops.Einsum(inputs=[a, b], equation="aB,ab->Bb"), tf.cast(low, tf.float32)

    def pool(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, ...]:
        values = tf.reshape(tf.split(tf.stack([a, b]), 2)[1], [1, 2, 2, 1])
        low, whole = (
            tf.cast(values, tf.bfloat16) * 2,
            tf.cast(tf.clip_by_value(values, -9, 9), tf.int32) + 2**24,
        )
        first, second = tf.nn.max_pool2d(low, 2, 1, "SAME"), tf.nn.max_pool2d(whole, 2, 2, "SAME")
        greatest = tf.cast(tf.reduce_max(low, [1, 2]), tf.float32)
        resized = tf.raw_ops.ResizeBilinear(images=tf.clip_by_value(low, -9, 9), size=[3, 5]) + 0.5
        return tf.cast(first, tf.float32), second - 2**24, greatest, whole * 2, resized

    spec = tf.TensorSpec([4], tf.float32)
    for function in (select, compare, multiply, pool):
        given = y[::-1].copy() if function is multiply else y
        want = function(tf.constant(x), tf.constant(given))
        _, found = run(tf.function(function, input_signature=[spec, spec]), x, given)
        for a, b in zip(found, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-2, err_msg=function.__name__)
    keras.config.set_dtype_policy("mixed_bfloat16")
    a = keras.Input((6, 8), dtype="bfloat16")
    ends = [keras.ops.median(a, axis=1), keras.layers.Attention()([a, a]), keras.layers.SimpleRNN(2)(a)]
    model = keras.Model(a, ends)
    keras.config.set_dtype_policy("float32")
    rows = normal(2, 6, 8).astype(tf.bfloat16.as_numpy_dtype)
    for found, want in zip(run(model, rows)[1], model(rows), strict=True):
        low = found.view(rows.dtype).astype(np.float32)
        np.testing.assert_allclose(low, tf.cast(want, tf.float32), atol=0.05)


def convert_narrow_types(folder: Path) -> None:
    """bf16 and float8 stay what they are, as f16 has other limits; a cast to a type and back rounds."""
    weights = tf.constant(normal(4, 3), tf.bfloat16)
    eighth = tf.dtypes.experimental.float8_e4m3fn

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.bfloat16, name="x")])
    def function(x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        large = tf.constant(3e38, tf.bfloat16) * x
        coarse = tf.cast(tf.cast(x, eighth), tf.float32)
        return tf.nn.relu(x @ weights), large, tf.cast(x, tf.float16) * 2, coarse

    x = tf.constant(normal(2, 4), tf.bfloat16)
    concrete = function.get_concrete_function()
    model = ov.convert_model(concrete)
    assert model.input(0).get_element_type() == ov.Type.bf16
    assert [str(port.get_element_type()) for port in model.outputs][:3] == [
        "<Type: 'bfloat16'>", "<Type: 'bfloat16'>", "<Type: 'float16'>",
    ]  # fmt: skip
    bits = ov.Tensor(ov.Type.bf16, [2, 4])
    bits.data[:] = x.numpy().view(bits.data.dtype)
    found = ov.compile_model(model, "CPU", F32)(bits)
    for i, want in enumerate(function(x)):
        value = np.asarray(found[i])
        np.testing.assert_array_equal(value.view(want.dtype.as_numpy_dtype), want.numpy(), str(i))
    for policy in ("bfloat16", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        made = network()
        keras.config.set_dtype_policy("float32")
        image = normal(2, 8, 8, 3)
        made.export(folder / policy, verbose=False)
        for what in (made, folder / policy):
            (value,) = run(what, image)[1]
            np.testing.assert_allclose(value.view(tf.bfloat16.as_numpy_dtype).astype(np.float32),
                                       np.asarray(made(image)).astype(np.float32), atol=0.02)  # fmt: skip
    dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16)])
    exact = dense.predict(rows := normal(3, 4), verbose=0)
    dense.quantize("float8")
    (value,) = run(dense, rows)[1]
    np.testing.assert_allclose(value, dense(rows), rtol=1e-5, atol=1e-6)
    assert np.abs(value - exact).max() > 1e-3


def convert_calls(folder: Path) -> None:
    """Functions for XLA, which TensorFlow does not put in the places of their calls."""
    factor = tf.Variable(normal(4))

    @tf.function(jit_compile=True)
    def inner(v: Any) -> Any:
        return tf.nn.relu(v * factor)

    class Calling(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
        def __call__(self, x: Any) -> Any:
            return inner(inner(x) + 1) - tf.cond(tf.reduce_sum(x) > 0, lambda: inner(x), lambda: x)

    module = Calling()
    module.factor = factor
    tf.saved_model.save(module, str(folder / "calling"), signatures=module.__call__)
    for x in (normal(3, 4), -np.abs(normal(2, 4))):
        want = module(tf.constant(x)).numpy()
        for what in (module, str(folder / "calling")):
            check(ov.convert_model(what), x, want, "calls")
    layers = [tf.keras.layers.DepthwiseConv2D(3), tf.keras.layers.Conv2D(4, 3), tf.keras.layers.Flatten()]
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 3)), *layers])
    image = normal(2, 8, 8, 3)
    check(ov.convert_model(model), image, model(image).numpy(), "depthwise")


def convert_signals() -> None:
    """Fourier transforms; what else is made of complex numbers is refused by name."""
    x, sig = normal(2, 4, 6, 8), tf.signal

    def pairs(v: Any) -> Any:
        return tf.complex(v, v * v)

    cases: dict[str, Callable[[Any], Any]] = {
        "RFFT": lambda v: (tf.math.real(sig.rfft(v)), tf.math.imag(sig.rfft(v, [6])), tf.abs(sig.rfft(v))),
        "FFT": lambda v: (tf.math.imag(sig.fft(pairs(v))), tf.abs(sig.fft(pairs(v)))),
        "IFFT": lambda v: tf.math.real(sig.ifft(tf.math.conj(pairs(v)))),
        "FFT2D": lambda v: tf.math.real(sig.ifft2d(sig.fft2d(pairs(v)))),
        "FFT3D": lambda v: (tf.math.imag(sig.fft3d(pairs(v))), tf.math.imag(sig.ifft3d(pairs(v)))),
        "IRFFT": lambda v: (sig.irfft(sig.rfft(v)), sig.irfft(sig.rfft(v), [7]), sig.irfft(sig.rfft(v) * 2)),
        "RFFT2D": lambda v: (tf.abs(sig.rfft2d(v)), sig.irfft2d(sig.rfft2d(v))),
        "RFFT3D": lambda v: (tf.math.imag(sig.rfft3d(v)), sig.irfft3d(sig.rfft3d(v))),
        "STFT": lambda v: (tf.abs(sig.stft(v, 4, 2)), sig.inverse_stft(sig.stft(v, 4, 2), 4, 2)),
    }
    for name, function in cases.items():
        made = run(tf.function(function, autograph=False), x, example_input=tf.constant(x))[1]
        for got, want in zip(made, tf.nest.flatten(function(tf.constant(x))), strict=True):
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)
    try:
        ov.convert_model(tf.function(sig.rfft, autograph=False), example_input=tf.constant(x))
    except RuntimeError as error:
        assert "the result of RFFT is an output of the model" in str(error), error
    else:
        raise AssertionError("complex results were read")


def read_damaged_files(folder: Path) -> None:
    """Frozen graphs with bytes that changed: read, or refused, and never the end of the process."""

    def loop(x: Any) -> Any:
        at = tf.constant(0)
        while at < 3:
            x, at = x * 2.0, at + 1
        return tf.split(x + 1.0 if tf.reduce_sum(x) > 0 else x, 2, 1)

    seed, path, read = 20261127, folder / "damaged.pb", 0
    rng = random.Random(seed)
    concrete = tf.function(loop).get_concrete_function(tf.TensorSpec([3, 4], tf.float32))
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False).graph.as_graph_def()
    content = frozen.SerializeToString()
    del next(n for f in frozen.library.function for n in f.node_def if n.op == "Const").attr["value"]
    path.write_bytes(frozen.SerializeToString())
    try:
        ov.Core().read_model(path)
    except RuntimeError as error:
        assert "value" in str(error), error
    else:
        raise AssertionError("a constant without a value was read")
    for turn in range(300):
        changed = bytearray(content)
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        path.write_bytes(changed)
        try:
            ov.Core().read_model(path)
            read += 1
        except RuntimeError as error:
            assert len(str(error)) < 2000, (seed, turn, error)
    assert 0 < read < 300, (seed, read)


def read_hostile_keras(folder: Path) -> None:
    """Code of a layer is not run, another checksum and a bomb are refused."""
    made = folder / "made"
    layers = keras.layers
    place = str(made)
    code = layers.Lambda(lambda x: (os.makedirs(place, exist_ok=True), x)[1], output_shape=(4,))
    keras.Sequential([layers.Input((4,)), code]).save(folder / "code.keras")
    keras.Sequential([layers.Input((4,)), code]).save(folder / "code.h5")
    shutil.rmtree(made, ignore_errors=True)
    net = keras.Sequential([layers.Input((4,)), layers.Dense(300)])
    net.save(folder / "net.keras")
    kernel = net.layers[0].kernel.numpy().tobytes()
    data = bytearray((folder / "net.keras").read_bytes())
    data[data.index(kernel) + 2] ^= 16
    (folder / "damaged.keras").write_bytes(data)
    with zipfile.ZipFile(folder / "net.keras", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(300 << 20))
    refused = {
        "code.keras": "Lambda",
        "code.h5": "Lambda",
        "damaged.keras": "CRC",
        "net.keras": "twice its size",
    }
    for name, word in refused.items():
        assert word in refusal(ov, folder / name), name
    assert not made.exists()


def graph_of(count: int) -> Any:
    """sigmoid(relu(sum of `count` placeholders))"""
    with tf.Graph().as_default() as graph:
        given = [tf.compat.v1.placeholder(tf.float32, [1, 2], f"Input{i}") for i in range(count)]
        tf.nn.sigmoid(tf.nn.relu(tf.add_n(given), name="Relu"), name="Sigmoid")
    return graph


def refusal(package: Any, *args: Any, **options: Any) -> str:
    """What convert_model says of what it does not take."""
    try:
        package.convert_model(*args, **options)
    except Exception as error:
        return str(error)
    raise AssertionError(f"{args[0]} {options} was converted by {package.__name__}")


def convert_described(folder: Path) -> None:
    """Forms of inputs, names that are refused, sessions, checkpoints and extensions, as OpenVINO has them."""
    zeros = tf.zeros((2, 3, 4))
    for given in (tf.shape(zeros), zeros.shape, tf.TensorShape((2, 3, 4))):
        shapes = [p.convert_model(graph_of(1), input=given).input().get_partial_shape() for p in PACKAGES]
        assert len({str(shape) for shape in shapes}) == 1, shapes
    for options in ({"input": "Relu"}, {"input": "none"}, {"output": "Relu"}, {"output": "none"}):
        mine, theirs = (refusal(p, graph_of(2), **options) for p in (ov, openvino))
        assert mine == theirs, (mine, theirs)
    for package in PACKAGES:
        assert "Please provide 'example_input'" in refusal(package, tf.function(lambda a, b: a + b))
    session = tf.compat.v1.Session(graph=graph_of(2))
    x = [normal(1, 2), normal(1, 2)]
    want = 1 / (1 + np.exp(-np.maximum(x[0] + x[1], 0)))
    np.testing.assert_allclose(run(session, *x)[1][0], want, rtol=1e-5)
    first = keras.Input((4,), name="first")
    model = keras.Model(first, keras.layers.Dense(3)(first))
    y = normal(2, 4)
    np.testing.assert_allclose(run(tf.train.Checkpoint(model), y)[1][0], model(y), rtol=1e-4, atol=1e-5)
    factor = tf.Variable([7.0, 5.0])
    made = run(tf.function(lambda value: value * factor), np.float32([2]), input=[1])[1][0]
    np.testing.assert_array_equal(made, [14, 10])
    convert_extended(folder)


def convert_extended(folder: Path) -> None:
    """Extensions for operators, and operators in branches that nothing converts."""
    for package in PACKAGES:
        front = package.frontend
        theirs = importlib.import_module(f"{package.__name__}.frontend.tensorflow")
        elu = lambda node: package.opset10.elu(node.get_input(0), 1.0).outputs()  # noqa: B023, E731
        for made in (front.ConversionExtension, theirs.ConversionExtension):
            model = package.convert_model(graph_of(1), extension=made("Relu", elu))
            assert "Elu" in [node.get_type_name() for node in model.get_ops()]
        model = package.convert_model(graph_of(1), extension=theirs.OpExtension("Sin", "Relu"))
        assert "Sin" in [node.get_type_name() for node in model.get_ops()]

    def writing(name: str) -> Any:
        @tf.function(input_signature=[tf.TensorSpec([])])
        def writes(x: Any) -> Any:
            tf.raw_ops.WriteFile(filename=name, contents="")
            return tf.constant(0.0)

        return writes.get_concrete_function()

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [], "x")
        branches = {"then_branch": writing("never.txt"), "else_branch": writing("neither.txt")}
        tf.raw_ops.If(cond=x < 0, input=[x], Tout=[tf.float32], **branches)
    tf.io.write_graph(graph.as_graph_def(), str(folder), "writing.pb", as_text=False)
    for package in PACKAGES:
        said = refusal(package, folder / "writing.pb")
        assert "No conversion rule found for operations: WriteFile" in said, said


def ports_of_a_frozen_graph(folder: Path) -> None:
    """Inputs and outputs are in the order in which they are named, if not all of them are."""
    with tf.Graph().as_default() as graph:
        a, b, c = (tf.compat.v1.placeholder(tf.float32, [None, 3], name) for name in "abc")
        for value, name in ((b * c, "v"), (c + a, "w"), (a - b, "u")):
            tf.abs(value, name=name)
    tf.io.write_graph(graph.as_graph_def(), str(folder), "three.pb", as_text=False)
    for inputs, outputs in (("a", "u"), ("c", "wu"), ("ca", "uw"), ("ba", "wvu"), ("cba", "v"), ("cc", "vv")):
        given = {"input": [f"{name}:0" for name in inputs], "output": [f"{name}:0" for name in outputs]}
        told = []
        for package in PACKAGES:
            model = package.convert_model(folder / "three.pb", **given)
            told.append([[port.get_any_name() for port in ports] for ports in (model.inputs, model.outputs)])
        count = len(set(inputs))
        assert told[0][0][:count] == told[1][0][:count] and told[0][1] == told[1][1], (given, told)
    assert [port.get_any_name() for port in ov.convert_model(folder / "three.pb").outputs] == [
        port.get_any_name() for port in openvino.convert_model(folder / "three.pb").outputs
    ]
    told = [edited(package, folder / "three.pb") for package in PACKAGES]
    assert told[0] == told[1], told


def edited(package: Any, path: Path) -> list[Any]:
    """Ports after edits of places, which have the names of operations or of their outputs."""
    front = package.frontend.FrontEndManager().load_by_framework("tf")

    def outputs(model: Any) -> None:
        model.set_partial_shape(model.get_place_by_tensor_name("a:0"), package.PartialShape([2, 3]))
        model.override_all_outputs([model.get_place_by_tensor_name("u")])

    def inputs(model: Any) -> None:
        model.override_all_inputs([model.get_place_by_tensor_name("c:0")])

    def part(model: Any) -> None:
        model.extract_subgraph(model.get_inputs(), [model.get_place_by_tensor_name("w:0")])

    told: list[Any] = []
    for edit in (outputs, inputs, part):
        model = front.load(str(path))
        assert model.get_place_by_tensor_name("none") is None
        edit(model)
        made = front.convert(model)
        shapes = [(port.get_any_name(), str(port.get_partial_shape())) for port in made.inputs]
        first = [shape for shape in shapes if edit is not inputs or shape[0] == "c:0"]
        told.append(
            [len(shapes), shapes[0][0] == "c:0", sorted(first), [p.get_any_name() for p in made.outputs]]
        )
    return told


def meta_graphs(folder: Path) -> None:
    """The values of variables come from the checkpoint; a signature names inputs and outputs."""
    for kind in ("references", "resources"):
        path = folder / f"{kind}.meta"
        values, ids, want = meta_graph(path, kind == "resources")
        names = ["x:0", "ids:0", "probs:0"]
        for signed in (False, True):
            if signed:
                sign(path)
                names = ["data", "ids", "probs"]
            for package in PACKAGES:
                model = package.Core().read_model(path)
                assert {names[0], names[1]} == {port.get_any_name() for port in model.inputs}, model.inputs
                given = {names[0]: values, names[1]: ids}
                got = package.compile_model(model, "CPU", F32)(given)[names[2]]
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6, err_msg=f"{kind} {signed}")
        for end in (".index", ".meta"):
            Path(f"{folder / kind}{end}").write_bytes(b"")
            try:
                ov.Core().read_model(path)
            except RuntimeError as error:
                assert kind in str(error), error
            else:
                raise AssertionError(f"{kind} was read without its {end}")


def meta_graph(path: Path, resources: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Writes a classifier with its checkpoint. Returns its inputs and what it answers."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session, v1.variable_scope("", use_resource=resources):
        x = v1.placeholder(tf.float32, [None, 4], "x")
        ids = v1.placeholder(tf.int32, [None], "ids")
        weight, table = (v1.get_variable(name, [rows, 5]) for name, rows in (("weight", 4), ("table", 7)))
        bias = v1.get_variable("bias", [5], initializer=v1.constant_initializer(0.3))
        looked_up = tf.nn.embedding_lookup(table, ids)
        probs = tf.nn.softmax(tf.matmul(x, weight) + bias + looked_up, name="probs")
        session.run(v1.global_variables_initializer())
        given = {x: normal(3, 4), ids: np.array([1, 6, 0], np.int32)}
        v1.train.Saver().save(session, str(path.with_suffix("")))
        return given[x], given[ids], session.run(probs, given)


def sign(path: Path) -> None:
    """Adds a signature to a meta graph."""
    meta = tf.compat.v1.MetaGraphDef()
    meta.ParseFromString(path.read_bytes())
    signature = meta.signature_def["serving_default"]
    signature.method_name = "predict"
    for ends, names in (
        (signature.inputs, {"data": "x", "ids": "ids"}),
        (signature.outputs, {"probs": "probs"}),
    ):
        for name, node in names.items():
            kind = tf.int32 if node == "ids" else tf.float32
            ends[name].name, ends[name].dtype = f"{node}:0", kind.as_datatype_enum
    path.write_bytes(meta.SerializeToString())


def main(folder: Path) -> None:
    convert_described(folder)
    convert_objects(folder)
    read_damaged_files(folder)
    read_hostile_keras(folder)
    convert_made_anew()
    convert_resizing()
    convert_patches()
    convert_diagonals()
    convert_loops(folder)
    convert_unread(folder)
    convert_operators()
    convert_segments()
    convert_layers()
    convert_convolutions()
    convert_signals()
    convert_assignments(folder)
    convert_lookups(folder)
    convert_lookups_of_text(folder)
    convert_what_the_exporter_spoils()
    convert_narrow_types(folder)
    convert_signatures(folder)
    convert_calls(folder)
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
    ports_of_a_frozen_graph(folder)
    meta_graphs(folder)
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
