"""Subnormal weights of products are zeros, as OpenVINO compiles them; other constants stay as they are."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import openvino
import pytest

import ovjit
from ovjit.graph.dtypes import flush_subnormals

SEED = 20261122
#: What a subnormal weight is multiplied with: it would be seen in the result.
BIG = np.float32(1e30)
F32 = {"INFERENCE_PRECISION_HINT": "f32"}


def weights(shape, axis, seed=SEED):
    """Normal numbers, of which two of three channels along `axis` are subnormal, wholly or in part."""
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.5, 1, shape).astype(np.float32)
    by_channel = np.moveaxis(w, axis, 0)
    by_channel[::3] = rng.uniform(-1e-39, 1e-39, by_channel[::3].shape)
    mixed = by_channel[1::3]
    mixed[rng.random(mixed.shape) < 0.5] = np.float32(1e-40)
    return w


def window(n, **more):
    return {"strides": [1] * n, "pads_begin": [1] * n, "pads_end": [1] * n, "dilations": [1] * n, **more}


def conv(shape, w, axis, name="convolution", **more):
    def build(ov, x, constant):
        attrs = window(len(shape) - 2, **more)
        return getattr(ov.opset8, name)(x, constant(weights(w, axis)), **attrs)

    return shape, build


def matmul(shape, w, axis, left=False, turned=False):
    def build(ov, x, constant):
        c = constant(weights(w, axis))
        return ov.opset8.matmul(c, x, False, False) if left else ov.opset8.matmul(x, c, False, turned)

    return shape, build


def scaled():
    """Filters that become subnormal when the factor behind them is multiplied into them."""

    def build(ov, x, constant):
        weights, factor = (np.where(np.arange(8) % 3, 1, scale) for scale in (1e-21, 1e-18))
        y = ov.opset8.convolution(
            x, constant(np.zeros((8, 4, 3, 3)) + weights.reshape(8, 1, 1, 1)), **window(2)
        )
        return ov.opset8.multiply(y, constant(factor.reshape(1, 8, 1, 1)))

    return (1, 4, 9, 9), build


def recurrent():
    def build(ov, x, constant):
        state, lengths = constant(np.full((1, 1, 16), BIG)), constant(np.array([3]))
        w, r, b = (constant(a) for a in (np.zeros((1, 16, 8)), weights((1, 16, 16), 1), np.zeros((1, 16))))
        node = ov.opset8.rnn_sequence(x, state, lengths, w, r, b, 16, "forward", ["relu"])
        return node.output(0)

    return (1, 3, 8), build


CASES = {
    "convolution": conv((1, 5, 9, 9), (40, 5, 3, 3), 0),
    "a convolution of rows": conv((2, 16, 20), (33, 16, 3), 0),
    "point": conv((1, 64, 7, 7), (70, 64, 1, 1), 0),
    "by Winograd": conv((1, 64, 28, 28), (64, 64, 3, 3), 0),
    "groups": conv((1, 8, 9, 9), (2, 6, 4, 3, 3), 1, "group_convolution"),
    "depthwise": conv((1, 33, 9, 9), (33, 1, 1, 3, 3), 0, "group_convolution"),
    "transposed": conv((1, 5, 7, 7), (5, 20, 3, 3), 1, "convolution_backprop_data"),
    "matmul": matmul((3, 40), (40, 50), 1),
    "matmul turned": matmul((3, 40), (50, 40), 0, turned=True),
    "matmul of many": matmul((2, 3, 40), (2, 40, 33), 2),
    "matmul of a list": matmul((3, 40), (40,), 0),
    "matmul on the left": matmul((40, 5), (7, 40), 0, left=True),
    "scaled": scaled(),
    "recurrent": recurrent(),
}


def answer(ov, shape, build, x, made=lambda array: array):
    """What the model gives, its constants as `made` makes them."""
    p = ov.opset8.parameter(list(shape), np.float32)

    def constant(array):
        return ov.opset8.constant(made(array if array.dtype.kind == "i" else array.astype(np.float32)))

    model = ov.Model([build(ov, p, constant)], [p])
    return ov.compile_model(model, "CPU", F32)(x)[0]


def flushed(array):
    tiny = (np.abs(array) < np.finfo(np.float32).tiny) if array.dtype == np.float32 else False
    return np.where(tiny, np.zeros_like(array), array)


@pytest.mark.parametrize("name", CASES)
def test_subnormal_weights_are_zeros(name):
    """The same bits as with zeros in their place, and what OpenVINO makes of them."""
    shape, build = CASES[name]
    x = np.full(shape, BIG)
    if name == "matmul of a list":
        x[0, weights((40,), 0) > 0.1] = 0
    got = answer(ovjit, shape, build, x)
    np.testing.assert_array_equal(got, answer(ovjit, shape, build, x, flushed))
    assert np.isfinite(got).all() and (got == 0).any() and (got != 0).any()
    np.testing.assert_allclose(
        got, answer(openvino, shape, build, x), rtol=1e-5, atol=1e-6 * np.abs(got).max()
    )
    near = BIG * np.float64(1e-40)  # what one subnormal number would have given
    assert np.abs(got[np.abs(got) < 1e20]).max(initial=0) < near / 1e6


def test_constants_that_are_no_weights_stay():
    """Operands, and what only passes through, are what they were: those of a product, too."""
    w = weights((40, 50), 1)
    p = ovjit.opset8.parameter([40, 50], np.float32)
    q = ovjit.opset8.parameter([3, 40], np.float32)
    c = ovjit.opset8.constant(w)
    outs = [
        ovjit.opset8.multiply(p, c),
        ovjit.opset8.concat([p, c], 0),
        ovjit.opset8.matmul(q, c, False, False),
    ]
    x, rows = np.full((40, 50), BIG), np.full((3, 40), BIG)
    got = list(ovjit.compile_model(ovjit.Model(outs, [p, q]), "CPU", F32)([x, rows]).values())
    np.testing.assert_array_equal(got[0], w * BIG)
    np.testing.assert_array_equal(got[1], np.concatenate([x, w]))
    want = rows.astype(float) @ flushed(w).astype(float)
    np.testing.assert_allclose(got[2], want, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64], ids=str)
@pytest.mark.parametrize("outs", [64, 2048])
def test_weights_of_other_types_are_what_they_are_in_f32(kind, outs):
    """f16's subnormal numbers are normal ones in f32; those of bf16, and of f64 beyond them, are not."""
    w = np.zeros((1024, outs), kind)
    w[:, ::3] = 6e-8
    w[:, 1::3] = 1e-39
    p = ovjit.opset8.parameter([3, 1024], np.float32)
    wide = ovjit.opset8.convert(ovjit.opset8.constant(w), "f32")
    model = ovjit.Model([ovjit.opset8.matmul(p, wide, False, False)], [p])
    x = np.full((3, 1024), BIG)
    got = ovjit.compile_model(model, "CPU", F32)(x)[0]
    want = x.astype(float) @ flushed(w.astype(np.float32)).astype(float)
    assert want.max() > 1e24 and (want == 0).any()
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.float32, ml_dtypes.bfloat16], ids=str)
def test_flushing_keeps_all_that_is_normal(kind):
    """Every pattern of sign, exponent and fraction; nothing else changes, signs of zeros and NaN neither."""
    size = np.dtype(kind).itemsize * 8
    fraction = 23 if size == 32 else 7
    rng = np.random.default_rng(SEED)
    for count in (0, 1, 65536, 70001):
        bits = rng.integers(0, 1 << size, count, f"u{size // 8}")
        small = rng.random(count) < rng.choice([0, 1e-4, 0.5])
        bits[small] &= bits.dtype.type((1 << size - 1) | (1 << fraction) - 1)
        bits[rng.random(count) < 0.1] &= bits.dtype.type(1 << size - 1)
        sign = bits & bits.dtype.type(1 << size - 1)
        rest = bits ^ sign
        tiny = (rest != 0) & (rest < 1 << fraction)
        given = bits.copy().view(kind)
        assert flush_subnormals(given) == tiny.any(), (SEED, count)
        np.testing.assert_array_equal(
            given.view(bits.dtype), np.where(tiny, sign, bits), err_msg=str((SEED, count))
        )
