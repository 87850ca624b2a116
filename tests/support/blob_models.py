"""Models whose blobs are tried: one for each kind of thing that a blob has to hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import ovjit
from ovjit import opset8, opset13
from ovjit.data import digits

RNG_SEED = 7
X = np.random.default_rng(RNG_SEED).normal(size=(2, 8)).astype(np.float32)


class Case(NamedTuple):
    """A model and inputs for it, several lists of them where shapes are open."""

    build: Callable[[], ovjit.Model]
    feeds: list[list[np.ndarray]]


def small_model(scale: float = 1.0) -> ovjit.Model:
    """relu(a @ w + b) and its softmax; names that no count of this process has a part in."""
    rng = np.random.default_rng(3)
    a = opset8.parameter([2, 8], np.float32, name="a")
    w = opset8.constant((rng.normal(size=(8, 5)) * scale).astype(np.float32), name="w")
    product = opset8.matmul(a, w, False, False, name="product")
    b = opset8.constant(rng.normal(size=(1, 5)).astype(np.float32), name="b")
    y = opset8.relu(opset8.add(product, b, name="sum"), name="y")
    p = opset8.softmax(y, 1, name="p")
    y.output(0).set_names({"y", "größe"})
    p.output(0).set_names({"p"})
    return ovjit.Model([y, p], [a], "small")


def host_model() -> ovjit.Model:
    """A model with a step that NumPy does, an axis as a constant, and an output that is a constant."""
    a = opset8.parameter([2, 8], np.float32, name="a")
    total = opset8.cum_sum(opset8.abs(a), opset8.constant(np.int64(1)), name="total")
    outputs = [opset8.exp(total), opset8.constant(np.arange(3, dtype=np.int64))]
    return ovjit.Model(outputs, [a], "host")


def dynamic_model() -> ovjit.Model:
    a = opset8.parameter(ovjit.PartialShape([ovjit.Dimension(1, 9), 8]), np.float32, name="a")
    return ovjit.Model([opset8.softmax(opset8.tanh(a), 1)], [a], "dynamic")


def digits_model(static: bool = True) -> ovjit.Model:
    model = ovjit.Core().read_model(digits()[0])
    if static:
        model.reshape([2, 1, 8, 8])
    return model


def convolutions() -> ovjit.Model:
    """Direct, grouped, depthwise, strided, with a residual, pooling, and a 3x3 that Winograd may take."""
    rng = np.random.default_rng(1)

    def weights(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[-3:]))).astype(np.float32)

    a = opset8.parameter([1, 3, 24, 24], np.float32, name="a")
    x = opset8.convolution(a, opset8.constant(weights(32, 3, 3, 3)), [1, 1], [1, 1], [1, 1], [1, 1])
    y = opset8.convolution(x, opset8.constant(weights(32, 32, 3, 3)), [1, 1], [1, 1], [1, 1], [1, 1])
    x = opset8.relu(opset8.add(x, y))
    x = opset8.group_convolution(x, opset8.constant(weights(32, 1, 1, 5, 5)), [2, 2], [2, 2], [2, 2], [1, 1])
    x = opset8.group_convolution(x, opset8.constant(weights(2, 17, 16, 1, 1)), [1, 1], [0, 0], [0, 0], [1, 1])
    x = opset8.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], False)
    return ovjit.Model([opset8.reduce_mean(x, opset8.constant(np.array([2, 3])), True)], [a], "convolutions")


def integers() -> ovjit.Model:
    """i64 beyond what f64 holds, indices as constant and as input, booleans, several types of results."""
    a = opset8.parameter([4, 6], np.int64, name="a")
    i = opset8.parameter([3], np.int32, name="i")
    table = opset8.constant(np.arange(10 * 5, dtype=np.int64).reshape(10, 5) * (2**53 + 1))
    rows = opset8.gather(table, i, opset8.constant(np.int64(0)))
    picked = opset8.gather(a, opset8.constant(np.array([5, 0, 2], np.int64)), opset8.constant(np.int64(1)))
    large = opset8.greater(a, opset8.constant(np.int64(2**60)))
    results = [rows, picked, large, opset8.add(a, a), opset8.convert(a, "f64"), opset8.convert(large, "u8")]
    return ovjit.Model(results, [a, i], "integers")


def ends() -> ovjit.Model:
    """An input that is a result, a result twice, a scalar, constants of all kinds, an input without use."""
    a = opset8.parameter([2, 3], np.float16, name="a")
    unused = opset8.parameter([1], np.float32, name="unused")
    doubled = opset8.multiply(a, opset8.constant(np.float16(2)))
    total = opset8.reduce_sum(doubled, opset8.constant(np.array([0, 1])), False)
    flags = opset8.constant(np.array([True, False]))
    return ovjit.Model([a, doubled, doubled, total, flags], [a, unused], "ends")


def data_dependent() -> ovjit.Model:
    """The output's shape depends on the data; a step of NumPy between native ones."""
    a = opset8.parameter([3, 5], np.float32, name="a")
    places = opset8.non_zero(opset8.relu(a))
    values = opset8.exp(opset8.tanh(a))
    return ovjit.Model([places, opset8.convert(places, "f32"), values], [a], "data_dependent")


def sequences() -> ovjit.Model:
    """Open in two dimensions: attention over a sequence."""
    rng = np.random.default_rng(2)
    a = opset8.parameter(ovjit.PartialShape([-1, -1, 16]), np.float32, name="a")

    def project(name: str):
        w = opset8.constant(rng.normal(size=(16, 16)).astype(np.float32) / 4, name=name)
        return opset8.matmul(a, w, False, False)

    scores = opset8.softmax(opset8.matmul(project("q"), project("k"), False, True), 2)
    mixed = opset8.matmul(scores, project("v"), False, False)
    axes = opset8.constant(np.array([2], np.int64))
    normal = opset8.mvn(opset8.add(mixed, a), axes, True, 1e-5, "inside_sqrt")
    return ovjit.Model([normal, opset8.shape_of(a)], [a], "sequences")


def rearranged() -> ovjit.Model:
    """Slices, joins, the largest few, scattering: two results of one node, strings among the names."""
    a = opset8.parameter([3, 12], np.float32, name="a")
    halves = opset8.split(a, opset8.constant(np.int64(1)), 2)
    joined = opset8.concat([halves.output(1), halves.output(0)], 1)
    joined.output(0).set_names({"joined", "名前", "a b"})
    top = opset8.topk(a, opset8.constant(np.int64(4)), 1, "max", "value")
    indices = opset8.constant(np.array([2, 0], np.int64))
    updates = opset8.constant(np.full((2, 12), 9, np.float32))
    scattered = opset8.scatter_update(a, indices, updates, opset8.constant(np.int64(0)))
    turned = opset8.transpose(scattered, opset8.constant(np.array([1, 0])))
    padded = opset8.pad(
        turned, opset8.constant(np.array([1, 0])), opset8.constant(np.array([0, 2])), "reflect"
    )
    return ovjit.Model([joined.output(0), *top.outputs(), padded.output(0)], [a], "rearranged")


def nothing() -> ovjit.Model:
    """A dimension of size 0 goes through."""
    a = opset13.parameter(ovjit.PartialShape([-1, 4]), np.float32, name="a")
    return ovjit.Model(
        [opset13.exp(a), opset13.reduce_max(a, opset13.constant(np.array([1])))], [a], "nothing"
    )


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng([RNG_SEED, *shape]).normal(size=shape).astype(np.float32)


CASES = {
    "small": Case(small_model, [[X]]),
    "host": Case(host_model, [[X]]),
    "dynamic": Case(dynamic_model, [[X], [_normal(9, 8)]]),
    "digits": Case(digits_model, [[digits()[1][:2]]]),
    "digits dynamic": Case(lambda: digits_model(False), [[digits()[1][:2]], [digits()[1][:7]]]),
    "convolutions": Case(convolutions, [[_normal(1, 3, 24, 24)]]),
    "integers": Case(integers, [[np.arange(24).reshape(4, 6) * (2**58 + 3), np.array([9, 0, 4], np.int32)]]),
    "ends": Case(ends, [[_normal(2, 3).astype(np.float16), _normal(1)]]),
    "data_dependent": Case(data_dependent, [[_normal(3, 5)], [-_normal(3, 5)]]),
    "sequences": Case(sequences, [[_normal(1, 5, 16)], [_normal(3, 17, 16)]]),
    "rearranged": Case(rearranged, [[_normal(3, 12)]]),
    "nothing": Case(nothing, [[_normal(0, 4)], [_normal(3, 4)]]),
}
