"""Quantized graphs in integers, beside the same graphs in f32, which are what they mean."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import openvino
import pytest

import ovjit as ov
from ovjit.codegen.cpu import machine
from ovjit.codegen.cpu.host import host_target
from ovjit.graph.interp import evaluate
from ovjit.rewrite.quantization_steps import fit_steps
from tests.support.compiled import product_format
from tests.support.run import printed
from tests.support.sweeps import in_turn, some

SEED = 20261120
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
WORDS = product_format("u8", "i8")
pytestmark = pytest.mark.skipif(WORDS is None, reason="no 8-bit dot products on this CPU")

#: Kernels that compute between products what belongs to their epilogues; a model's input is quantized by
#: multiplyadd_round_quantize.
#: Kernels of convolutions and of matrix products of bytes start so, with a matrix unit and without.
CONVOLUTIONS = ("conv_u8i8", "conv_amx_u8i8")
PRODUCTS = ("matmul_u8i8", "matmul_amx_u8i8")
ARITHMETIC = ("convert", "subtract", "multiply_", "multiplyadd_q", "add", "fakequantize")


def fake_quantize(ops, x, low, high, levels=256):
    limits = [ops.constant(np.float32(v)) for v in (low, high, low, high)]
    return ops.fake_quantize(x, *limits, levels)


def stored_weights(ops, rng, shape, axes, zero=False, kind=np.int8, most=255):
    """Integers, at most so far from 0, a scale for each output channel, perhaps a zero point."""
    info = np.iinfo(kind)
    low, high = max(info.min + 1, -most), min(info.max, most)
    integers = rng.integers(low, high + 1, shape).astype(kind)
    each = [d if a in axes else 1 for a, d in enumerate(shape)]
    real = ops.convert(ops.constant(integers), "f32")
    if zero:
        real = ops.subtract(real, ops.constant(np.float32(128 if kind is np.uint8 else 0)))
    return ops.multiply(real, ops.constant(rng.uniform(0.002, 0.01, each).astype(np.float32)))


def faked_weights(ops, rng, shape, axes):
    each = [d if a in axes else 1 for a, d in enumerate(shape)]
    high = rng.uniform(0.3, 1, each).astype(np.float32)
    reals = ops.constant((rng.uniform(-1, 1, shape) * high).astype(np.float32))
    return ops.fake_quantize(reals, *(ops.constant(v) for v in (-high, high, -high, high)), 255)


def in_integers(model, *arrays):
    """(answers in integers, their kernels)"""
    low = ov.Core().compile_model(model, "CPU", {**F32, "PERF_COUNT": True})
    request = low.create_infer_request()
    got = [request.infer(list(arrays))[i].copy() for i in range(len(model.outputs))]
    return got, [row.exec_type for row in request.get_profiling_info()]


def in_f32(model, *arrays, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("OVJIT_SKIP", "quantize")
        full = ov.Core().compile_model(model, "CPU", {**F32, "EXECUTION_MODE_HINT": "ACCURACY"})
        return [full(list(arrays))[i].copy() for i in range(len(model.outputs))]


def steps_of(model, *arrays, monkeypatch):
    """(answers in integers, answers in f32, kernels of the former)"""
    got, kernels = in_integers(model, *arrays)
    return got, in_f32(model, *arrays, monkeypatch=monkeypatch), kernels


def assert_equal(got, want):
    """Up to the rounding of sums in f32."""
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=3e-6 * np.abs(want).max())


def assert_close(got, want, step):
    """Equal but for a step of the quantization in a hundredth of the places."""
    off = np.abs(got - want)
    assert off.max() <= step * 1.01 and np.mean(off > step * 0.01) < 0.01, (
        off.max(),
        np.mean(off > step * 0.01),
    )


RANGES = [(0.0, 4.0), (-1.0, 2.984375), (-2.0, 1.984375)]


@pytest.mark.parametrize("low, high", RANGES)
@pytest.mark.parametrize("weights", some(["stored", "faked", "u8"], 2))
@pytest.mark.parametrize("channels, groups", [(3, 1), (16, 1), (33, 1), (8, 2), (6, 2), (32, 32)])
def test_convolutions(monkeypatch, low, high, weights, channels, groups):
    """Paddings hold the zero point; bias, residual and the next quantization are in the epilogue."""
    rng = np.random.default_rng([SEED, channels, groups])
    ops = ov.opset8
    outs = 32 if groups == 32 else 18
    shape, axes = (outs, channels, 3, 3), (0,)
    if groups > 1:
        shape, axes = (groups, outs // groups, channels // groups, 3, 3), (0, 1)
    x = ops.parameter([2, channels, 9, 10], np.float32)
    q = fake_quantize(ops, x, low, high)
    make = {"stored": stored_weights, "faked": faked_weights}.get(weights)
    w = make(ops, rng, shape, axes) if make else stored_weights(ops, rng, shape, axes, True, np.uint8)
    convolve = ops.group_convolution if groups > 1 else ops.convolution
    y = convolve(q, w, [1, 1], [1, 1], [1, 1], [1, 1])
    y = ops.add(y, ops.constant(rng.standard_normal((1, outs, 1, 1)).astype(np.float32)))
    out = fake_quantize(ops, ops.relu(y), 0.0, 8.0)
    model = ov.Model([out.output(0), y.output(0)], [x], "m")
    data = rng.uniform(low - 0.5, high + 0.5, (2, channels, 9, 10)).astype(np.float32)
    got, want, kernels = steps_of(model, data, monkeypatch=monkeypatch)
    assert any(k.startswith((*CONVOLUTIONS, "depthwise_u8")) for k in kernels), kernels
    assert "ref_numpy" not in kernels
    assert_equal(got[1], want[1])
    assert_close(got[0], want[0], 8 / 255)


@pytest.mark.parametrize("channels, stride", [(8, 1), (21, 1), (21, 2), (37, 1)])
def test_depthwise_with_a_residual(monkeypatch, channels, stride):
    """Whole vectors of channels and what is left of them; the residual is bytes too."""
    rng = np.random.default_rng([SEED, channels, stride])
    ops = ov.opset8
    x = ops.parameter([2, channels, 9, 11], np.float32)
    q = fake_quantize(ops, x, 0.0, 4.0)
    w = stored_weights(ops, rng, (channels, 1, 1, 3, 3), (0, 1))
    y = ops.group_convolution(q, w, [stride] * 2, [1, 1], [1, 1], [1, 1])
    if stride == 1:
        y = ops.add(y, q)
    out = fake_quantize(ops, ops.relu(y), 0.0, 8.0)
    data = rng.uniform(-0.5, 4.5, (2, channels, 9, 11)).astype(np.float32)
    got, want, kernels = steps_of(
        ov.Model([out.output(0), y.output(0)], [x], "m"), data, monkeypatch=monkeypatch
    )
    assert any(k.startswith("depthwise_u8") for k in kernels), kernels
    assert_equal(got[1], want[1])
    assert_close(got[0], want[0], 8 / 255)


@pytest.mark.parametrize("kind", ["dense", "depthwise"])
@pytest.mark.parametrize("bytes_too", [False, True])
def test_what_meets_a_residual_is_not_rounded(monkeypatch, kind, bytes_too):
    """FakeQuantize between a convolution and Add keeps its range alone, as it does in OpenVINO on x86-64."""
    import openvino

    rng, made = np.random.default_rng([SEED, len(kind), bytes_too]), {}
    shape, axes = ((16, 16, 3, 3), (0,)) if kind == "dense" else ((16, 1, 1, 3, 3), (0, 1))
    state = rng.bit_generator.state
    for package in (ov, openvino):
        for rounds in (True, False):
            ops, rng.bit_generator.state = package.opset8, state
            x = ops.parameter([1, 16, 9, 11], np.float32)
            w = stored_weights(ops, rng, shape, axes, most=63)  # OpenVINO's sums fit 16 bits without VNNI
            convolve = ops.convolution if kind == "dense" else ops.group_convolution
            y = convolve(fake_quantize(ops, x, -2.0, 1.984375), w, [1, 1], [1, 1], [1, 1], [1, 1])
            y = ops.add(y, ops.constant(rng.standard_normal((1, 16, 1, 1)).astype(np.float32)))
            y = fake_quantize(ops, y, -4.0, 3.96875) if rounds else ops.clamp(y, -4.0, 3.96875)
            other = fake_quantize(ops, x, -2.0, 1.984375) if bytes_too else ops.relu(x)
            out = fake_quantize(ops, ops.add(y, other), -6.0, 5.953125)
            made[package, rounds] = package.Model([out.output(0)], [x], "m")
    data = rng.uniform(-2.5, 2.5, (1, 16, 9, 11)).astype(np.float32)
    (got,), (rounded,), _ = steps_of(made[ov, True], data, monkeypatch=monkeypatch)
    (wanted,) = in_f32(made[ov, False], data, monkeypatch=monkeypatch)
    step = 12 / 256
    assert_close(got, wanted, step)
    assert np.mean(np.abs(got - rounded) > step / 2) > 0.03
    if not bytes_too:  # OpenVINO adds in the convolution's epilogue; on Arm in f32, with the quantizers
        real = openvino.Core().compile_model(made[openvino, True], "CPU", F32)
        assert_close(got if machine.is_x86() else rounded, real([data])[0], step)


@pytest.mark.parametrize("depth", [1, 4, 17, 64])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("low, high", RANGES)
def test_matrix_products(monkeypatch, depth, turned, low, high):
    rng = np.random.default_rng([SEED, depth])
    ops = ov.opset8
    shape, axes = ((40, depth), (0,)) if turned else ((depth, 40), (1,))
    x = ops.parameter([3, 7, depth], np.float32)
    y = ops.matmul(fake_quantize(ops, x, low, high), stored_weights(ops, rng, shape, axes), False, turned)
    data = rng.uniform(low, high, (3, 7, depth)).astype(np.float32)
    got, want, kernels = steps_of(ov.Model([y], [x], "m"), data, monkeypatch=monkeypatch)
    assert any(k.startswith(PRODUCTS) for k in kernels)
    assert_equal(got[0], want[0])


def test_pooling_concatenation_and_views_work_on_bytes(monkeypatch):
    rng = np.random.default_rng(SEED)
    ops = ov.opset8
    x = ops.parameter([1, 8, 12, 12], np.float32)
    q = fake_quantize(ops, x, -1.0, 2.984375)
    a = ops.relu(
        ops.convolution(q, stored_weights(ops, rng, (8, 8, 1, 1), (0,)), [1, 1], [0, 0], [0, 0], [1, 1])
    )
    parts = [fake_quantize(ops, v, 0.0, 4.0) for v in (a, ops.relu(x))]
    joined = ops.concat(parts, 1)
    pooled = ops.max_pool(joined, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2])
    y = ops.convolution(pooled, stored_weights(ops, rng, (5, 16, 3, 3), (0,)), [1, 1], [1, 1], [1, 1], [1, 1])
    data = rng.uniform(-2, 4, (1, 8, 12, 12)).astype(np.float32)
    got, want, kernels = steps_of(ov.Model([y], [x], "m"), data, monkeypatch=monkeypatch)
    assert any(k.startswith("max_pool_u8") for k in kernels), kernels
    scale = np.abs(want[0]).max()
    assert np.abs(got[0] - want[0]).max() < 0.02 * scale


def test_a_residual_in_bytes_is_added_in_the_epilogue(monkeypatch):
    rng = np.random.default_rng(SEED)
    ops = ov.opset8
    x = ops.parameter([1, 16, 8, 8], np.float32)
    skip = fake_quantize(ops, x, -1.0, 2.984375)
    one = [1, 1], [1, 1], [1, 1], [1, 1]
    a = fake_quantize(
        ops, ops.relu(ops.convolution(skip, stored_weights(ops, rng, (16, 16, 3, 3), (0,)), *one)), 0.0, 6.0
    )
    b = fake_quantize(
        ops, ops.convolution(a, stored_weights(ops, rng, (16, 16, 3, 3), (0,)), *one), -4.0, 3.96875
    )
    y = fake_quantize(ops, ops.relu(ops.add(b, skip)), 0.0, 6.0)
    z = ops.convolution(y, stored_weights(ops, rng, (4, 16, 1, 1), (0,)), [1, 1], [0, 0], [0, 0], [1, 1])
    data = rng.uniform(-1, 3, (1, 16, 8, 8)).astype(np.float32)
    got, want, kernels = steps_of(ov.Model([z], [x], "m"), data, monkeypatch=monkeypatch)
    assert len([k for k in kernels if k.startswith(CONVOLUTIONS)]) == 3
    assert not any(k.startswith(ARITHMETIC) for k in kernels), kernels
    assert np.abs(got[0] - want[0]).max() < 0.02 * np.abs(want[0]).max()


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (4, 5), (5, 2), (7, 7)])
@pytest.mark.parametrize(
    "channels, rank, stride, dilation",
    [
        (16, 2, 1, 1), (19, 2, 2, 3), (33, 1, 1, 1),
        *(pytest.param(*of, marks=pytest.mark.long) for of in ((16, 2, 2, 3), (19, 2, 1, 1), (33, 1, 2, 3))),
    ],
)  # fmt: skip
def test_depthwise_sums_are_exact(window, stride, dilation, channels, rank):
    """Words of up to four rows: every tap is multiplied once, whatever the window; NumPy's sums in int64."""
    rng = np.random.default_rng([SEED, *window, stride, dilation, channels])
    ops = ov.opset8
    window, size = window[-rank:], (23, 25)[-rank:]
    x = ops.parameter([2, channels, *size], np.uint8)
    w = rng.integers(-128, 128, (channels, *window)).astype(np.int8)
    zero = 7
    real = ops.subtract(ops.convert(x, "f32"), ops.constant(np.float32(zero)))
    factors = ops.convert(ops.constant(w[:, None, None]), "f32")
    pads = [1] * rank
    y = ops.group_convolution(real, factors, [stride] * rank, pads, pads, [dilation] * rank)
    data = rng.integers(0, 256, (2, channels, *size)).astype(np.uint8)
    got, kernels = in_integers(ov.Model([y], [x], "m"), data)
    assert any(k.startswith("depthwise_u8") for k in kernels), kernels
    inside = np.pad(data.astype(np.int64) - zero, [(0, 0), (0, 0), *[(1, 1)] * rank])
    counts = [(d + 2 - (k - 1) * dilation - 1) // stride + 1 for d, k in zip(size, window, strict=True)]
    want = np.zeros((2, channels, *counts), np.int64)
    for tap in np.ndindex(*window):
        at = [slice(t * dilation, t * dilation + (n - 1) * stride + 1, stride)
              for t, n in zip(tap, counts, strict=True)]  # fmt: skip
        want += inside[(..., *at)] * w[(slice(None), *tap)].reshape(-1, *[1] * rank)
    np.testing.assert_array_equal(got[0], want)


@pytest.mark.parametrize("groups, dilation", in_turn([(19, 1), (19, 2), (3, 1), (1, 2)], 2))
@pytest.mark.parametrize("batch", [2, -1])
def test_volumes_by_planes(groups, dilation, batch):
    """Groups, and windows spread along the last dimension; zero points; NumPy's sums in int64."""
    rng = np.random.default_rng([SEED, groups, dilation])
    ops = ov.opset8
    channels, outs, size, stride = (groups, groups, (5, 6, 7), 1) if groups > 3 else (12, 9, (4, 6, 7), 2)
    x = ops.parameter(ov.PartialShape([batch, channels, *size]), np.uint8)
    w = rng.integers(-128, 128, (groups, outs // groups, channels // groups, 2, 3, 3)).astype(np.int8)
    real = ops.subtract(ops.convert(x, "f32"), ops.constant(np.float32(7)))
    given = w if groups > 1 else w[0]
    zero = 0 if groups == 3 else 3  # groups of several outputs have none in integers
    factors = ops.subtract(ops.convert(ops.constant(given), "f32"), ops.constant(np.float32(zero)))
    make = ops.group_convolution if groups > 1 else ops.convolution
    y = make(real, factors, [stride] * 3, [1, 0, 1], [0, 1, 1], [1, 1, dilation])
    data = rng.integers(0, 256, (2, channels, *size)).astype(np.uint8)
    got, kernels = in_integers(ov.Model([y], [x], "m"), data)
    if batch > 0:
        assert any("u8" in k for k in kernels if k.startswith(("conv", "depthwise"))), kernels
    inside = np.pad(data.astype(np.int64) - 7, [(0, 0), (0, 0), (1, 0), (0, 1), (1, 1)])
    inside = inside.reshape(2, groups, channels // groups, *inside.shape[2:])
    spread = (1, 1, dilation)
    counts = [(d - (k - 1) * s - 1) // stride + 1
              for d, k, s in zip(inside.shape[3:], w.shape[3:], spread, strict=True)]  # fmt: skip
    want = np.zeros((2, groups, outs // groups, *counts), np.int64)
    for tap in np.ndindex(*w.shape[3:]):
        at = [slice(t * s, t * s + (n - 1) * stride + 1, stride)
              for t, s, n in zip(tap, spread, counts, strict=True)]  # fmt: skip
        here = w[(slice(None),) * 3 + tap].astype(np.int64) - zero
        want += np.einsum("goc,ngcdhw->ngodhw", here, inside[(..., *at)])
    np.testing.assert_array_equal(got[0], want.reshape(2, outs, *counts))


def _means(ops, q):
    return {
        "AvgPool": lambda: ops.avg_pool(q, [2, 2], [1, 1], [1, 1], [3, 3], True),
        "AvgPool, border counted": lambda: ops.avg_pool(q, [1, 1], [1, 1], [1, 1], [3, 3], False),
        "AvgPool, large": lambda: ops.avg_pool(q, [1, 1], [0, 0], [0, 0], [11, 12], True),
        "ReduceMean": lambda: ops.reduce_mean(q, ops.constant(np.array([2, 3], np.int64)), True),
        "ReduceMean, inner": lambda: ops.reduce_mean(q, ops.constant(np.array([3], np.int64)), False),
        "ReduceMean, channels": lambda: ops.reduce_mean(q, ops.constant(np.array([1], np.int64)), True),
    }


@pytest.mark.parametrize(
    "kind, limits, channels", in_turn(list(itertools.product(_means(None, None), RANGES, [3, 24])), 5)
)
def test_means_read_bytes(monkeypatch, kind, limits, channels):
    """Sums are exact; a border that counts is zeros, which bytes are only where the zero point is 0. Of every
    fifth case by default, which leaves out no kind, no range and no number of channels."""
    low, high = limits
    rng = np.random.default_rng([SEED, channels])
    ops = ov.opset8
    x = ops.parameter([2, channels, 11, 12], np.float32)
    w = stored_weights(ops, rng, (channels, channels, 1, 1), (0,))
    q = fake_quantize(ops, ops.convolution(x, w, [1, 1], [0, 0], [0, 0], [1, 1]), low, high)
    y = _means(ops, q)[kind]()
    z = fake_quantize(ops, y, 0.0, 0.77 * high)  # no step lies halfway between two of q
    data = rng.uniform(-1, 1, (2, channels, 11, 12)).astype(np.float32)
    got, want, kernels = steps_of(
        ov.Model([y.output(0), z.output(0)], [x], "m"), data, monkeypatch=monkeypatch
    )
    counted = kind == "AvgPool, border counted" and low < 0
    read = [k for k in kernels if k.startswith(("avg_pool_u8", "reducemean_")) and "u8" in k]
    assert counted or read, kernels
    assert_close(got[0], want[0], (high - low) / 255)
    assert_close(got[1], want[1], 0.77 * high / 255)


@pytest.mark.parametrize("low, high", RANGES)
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "nearest"])
def test_bytes_are_padded_and_repeated(monkeypatch, mode, low, high):
    rng = np.random.default_rng(SEED)
    ops = ov.opset8
    x = ops.parameter([1, 8, 5, 6], np.float32)
    q = fake_quantize(ops, x, low, high)
    if mode == "nearest":
        sizes, axes = (ops.constant(np.array(v)) for v in ([10, 12], [2, 3]))
        q = ov.opset11.interpolate(q, sizes, mode, "sizes", axes=axes)
    else:
        begin, end = (ops.constant(np.array(p)) for p in ([0, 0, 1, 2], [0, 0, 2, 0]))
        q = ops.pad(q, begin, end, mode, ops.constant(np.float32(high if mode == "constant" else 0)))
    y = ops.convolution(q, stored_weights(ops, rng, (16, 8, 3, 3), (0,)), [1, 1], [1, 1], [1, 1], [1, 1])
    data = rng.uniform(low, high, (1, 8, 5, 6)).astype(np.float32)
    got, want, kernels = steps_of(ov.Model([y], [x], "m"), data, monkeypatch=monkeypatch)
    assert any(k.startswith(CONVOLUTIONS) for k in kernels), kernels
    assert_equal(got[0], want[0])


@pytest.mark.parametrize("mode", ["constant"])
def test_what_is_no_byte_is_not_padded_with(monkeypatch, mode):
    ops = ov.opset8
    x = ops.parameter([1, 8, 5, 6], np.float32)
    pads = ops.constant(np.array([0, 0, 1, 1]))
    q = ops.pad(fake_quantize(ops, x, 0.0, 255.0), pads, pads, mode, ops.constant(np.float32(0.5)))
    w = stored_weights(ops, np.random.default_rng(SEED), (16, 8, 3, 3), (0,))
    y = ops.convolution(q, w, [1, 1], [0, 0], [0, 0], [1, 1])
    data = np.full((1, 8, 5, 6), 7, np.float32)
    got, want, _ = steps_of(ov.Model([y], [x], "m"), data, monkeypatch=monkeypatch)
    assert_equal(got[0], want[0])


@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize("low, high", RANGES)
@pytest.mark.parametrize("pooled", [False, True])
def test_what_is_quantized_after_it_is_joined_or_pooled(monkeypatch, low, high, pooled, pads):
    """Concat of parts in steps of their own, and MaxPool of reals: the same bytes as behind them, exactly."""
    rng = np.random.default_rng([SEED, pads])
    ops = ov.opset8
    x = ops.parameter([2, 6, 9, 10], np.float32)
    q = fake_quantize(ops, x, -1.0, 2.984375)
    one = [1, 1], [0, 0], [0, 0], [1, 1]
    a = ops.convolution(q, stored_weights(ops, rng, (18, 6, 1, 1), (0,)), *one)
    b = fake_quantize(ops, ops.relu(x), 0.0, 3.0)
    c = fake_quantize(ops, ops.negative(x), low, high)
    y = ops.max_pool(a, [2, 2], [1, 1], [pads] * 2, [0, 0], [3, 3]).output(0)
    y = y if pooled else ops.concat([a, b, c], 1)
    out = fake_quantize(ops, y, low, high)
    z = ops.convolution(out, stored_weights(ops, rng, (4, 18 if pooled else 30, 1, 1), (0,)), *one)
    model = ov.Model([z], [x], "m")
    data = rng.uniform(-2, 4, (2, 6, 9, 10)).astype(np.float32)
    got, want, kernels = steps_of(model, data, monkeypatch=monkeypatch)
    if pooled:
        assert any(k.startswith("max_pool_u8") for k in kernels), kernels
    assert not any(k.startswith(ARITHMETIC) for k in kernels), kernels
    off = np.abs(got[0] - want[0])
    assert off.max() < (high - low) / 255 * 1.3 * 3 and off.mean() < 1e-2 * np.abs(want[0]).max(), off.max()


def test_zero_points_around_what_several_read(monkeypatch):
    """Producers write into the border of zero points; others read the same bytes, with another border or
    none, and the model gives them out."""
    rng = np.random.default_rng(SEED)
    ops = ov.opset8
    x = ops.parameter([2, 5, 9, 10], np.float32)
    q = fake_quantize(ops, x, -1.0, 2.984375)
    first = ops.convolution(q, stored_weights(ops, rng, (18, 5, 3, 3), (0,)), [1, 1], [1, 1], [1, 1], [1, 1])
    q2 = fake_quantize(ops, first, -3.0, 2.9765625)
    one = stored_weights(ops, rng, (7, 18, 3, 3), (0,))
    same = ops.convolution(q2, one, [1, 1], [1, 1], [1, 1], [1, 1])
    again = ops.convolution(q2, stored_weights(ops, rng, (7, 18, 3, 3), (0,)), [1, 1], [1, 1], [1, 1], [1, 1])
    wider = ops.convolution(q2, stored_weights(ops, rng, (7, 18, 5, 5), (0,)), [1, 1], [2, 2], [2, 2], [1, 1])
    pooled = ops.max_pool(q2, [1, 1], [1, 1], [1, 1], [0, 0], [3, 3])
    ends = [same, again, wider, pooled.output(0), q2]
    model = ov.Model([ops.add(v, ops.constant(np.float32(0))) for v in ends], [x], "m")
    data = rng.uniform(-1.5, 3, (2, 5, 9, 10)).astype(np.float32)
    got, want, kernels = steps_of(model, data, monkeypatch=monkeypatch)
    assert sum(k.startswith(CONVOLUTIONS) for k in kernels) == 4
    near = [3 * 0.01 * 7 * 9, 3 * 0.01 * 7 * 9, 3 * 0.01 * 7 * 25, 6 / 255 * 1.01, 6 / 255 * 1.01]
    for mine, theirs, most in zip(got, want, near, strict=True):
        off = np.abs(mine - theirs)
        assert off.max() < most and off.mean() < 0.01 * np.abs(theirs).max(), (off.max(), most)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_pads_that_producers_write_into(mode):
    """Of reals too: a border around what an activation or a convolution makes, which others read as well."""
    rng = np.random.default_rng(SEED)
    ops = ov.opset8
    x = ops.parameter([1, 3, 6, 7], np.float32)
    y = ops.relu(x)
    z = ops.convolution(y, ops.constant(rng.standard_normal((4, 3, 3, 3)).astype(np.float32)),
                        [1, 1], [1, 1], [1, 1], [1, 1])  # fmt: skip
    value = ops.constant(np.float32(1.5))

    def pad(v, begin, end):
        at = [ops.constant(np.array(p, np.int64)) for p in (begin, end)]
        return ops.pad(v, *at, mode, *([value] if mode == "constant" else []))

    ends = [pad(y, [0, 0, 1, 2], [0, 0, 3, 0]), pad(z, [0, 0, 2, 1], [0, 0, 0, 1])]
    ends += [pad(z, [0, 1, 0, 0], [0] * 4)]
    model = ov.Model([*(ops.exp(v) for v in ends), z], [x], "m")
    data = rng.standard_normal((1, 3, 6, 7)).astype(np.float32)
    got = ov.Core().compile_model(model, "CPU", F32)(data)
    convolved = got[3]
    options = {"constant_values": 1.5} if mode == "constant" else {}
    relu = np.maximum(data, 0)
    want = [
        np.pad(relu, [(0, 0), (0, 0), (1, 3), (2, 0)], mode, **options),
        np.pad(convolved, [(0, 0), (0, 0), (2, 0), (1, 1)], mode, **options),
        np.pad(convolved, [(0, 0), (1, 0), (0, 0), (0, 0)], mode, **options),
    ]
    for mine, theirs in zip([got[i] for i in range(3)], want, strict=True):
        np.testing.assert_allclose(mine, np.exp(theirs), rtol=1e-5)


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("outs", [1, 2])
def test_channels_with_ranges_of_their_own(monkeypatch, low, pad, outs):
    """A sum that stays in a channel, or in channels of equal ranges, takes its range."""
    rng = np.random.default_rng([SEED, pad, outs])
    ops = ov.opset8
    channels = 34
    x = ops.parameter([2, channels, 7, 9], np.float32)
    span = rng.uniform(1, 4, (1, channels, 1, 1)).astype(np.float32)
    limits = [ops.constant(v) for v in (span * low * 127 / 128, span) * 2]
    q = ops.fake_quantize(x, *limits, 256)
    w = stored_weights(ops, rng, (channels, outs, 1, 3, 3), (0, 1))
    y = ops.group_convolution(q, w, [1, 1], [pad, pad], [pad, pad], [1, 1])
    y = ops.add(y, ops.constant(rng.standard_normal((1, channels * outs, 1, 1)).astype(np.float32)))
    out = fake_quantize(ops, ops.clamp(y, 0.0, 6.0), 0.0, 6.0)
    model = ov.Model([out.output(0), y.output(0)], [x], "m")
    data = rng.uniform(-3, 4.5, (2, channels, 7, 9)).astype(np.float32)
    got, want, kernels = steps_of(model, data, monkeypatch=monkeypatch)
    in_bytes = any(k.startswith((*CONVOLUTIONS, "depthwise_u8")) for k in kernels)
    assert in_bytes or (low and pad), kernels
    step = 0.0 if in_bytes else np.abs(want[1]).max() / 50  # there an input may be rounded otherwise
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=step + 3e-6 * np.abs(want[1]).max())
    assert np.abs(got[0] - want[0]).max() <= 6 / 255 * 1.01 + step


@pytest.mark.parametrize(
    "activation, low, high, gone",
    [
        ("relu", 0.0, 4.0, True), ("relu", -1.0, 2.984375, False), (6.0, 0.0, 4.0, True),
        (6.0, 0.0, 6.0, True), (3.0, 0.0, 4.0, False), ("sigmoid", 0.0, 1.0, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("residual", some([True, False], 1))
def test_what_is_between_sums_and_bytes(monkeypatch, activation, low, high, gone, residual):
    """Scales, bias and residual are one multiply-add each; an activation goes that cuts off what is cut off
    anyway, and no other."""
    rng = np.random.default_rng(SEED)
    ops = ov.opset8
    x = ops.parameter([1, 16, 8, 8], np.float32)
    q = fake_quantize(ops, x, -1.0, 2.984375)
    w = stored_weights(ops, rng, (48, 16, 3, 3), (0,))
    y = ops.convolution(q, w, [1, 1], [1, 1], [1, 1], [1, 1])
    y = ops.add(y, ops.constant(rng.standard_normal((1, 48, 1, 1)).astype(np.float32)))
    if residual:  # read twice, as bytes each time
        wide = fake_quantize(ops, ops.concat([x, x, x], 1), -2.0, 1.984375)
        y = ops.add(ops.add(y, wide), ops.multiply(wide, ops.constant(np.float32(0.3))))
    if activation == "relu":
        y = ops.relu(y)
    elif activation == "sigmoid":
        y = ops.sigmoid(y)
    else:
        y = ops.clamp(y, 0.0, activation)
    out = fake_quantize(ops, y, low, high)
    w = stored_weights(ops, rng, (4, 48, 1, 1), (0,))
    z = ops.convolution(out, w, [1, 1], [0, 0], [0, 0], [1, 1])
    model = ov.Model([out, z], [x], "m")
    data = rng.uniform(-1, 3, (1, 16, 8, 8)).astype(np.float32)
    got, want, kernels = steps_of(model, data, monkeypatch=monkeypatch)
    assert_close(got[0], want[0], (high - low) / 255)
    first = next(k for k in kernels if k.startswith(CONVOLUTIONS))
    if not residual:  # the names of kernels have the first four operations
        assert gone != any(word in first for word in ("relu", "clamp", "sigmoid")), kernels
    assert not any(k.startswith(ARITHMETIC) for k in kernels if "u8" in k), kernels


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_quantize_and_dequantize_as_onnx_has_them(monkeypatch, kind):
    """Convert(Clamp(Round(x / s) + z)) and (Convert(q) - z) * s around a product."""
    rng = np.random.default_rng(SEED)
    ops = ov.opset8
    info, name = np.iinfo(kind), np.dtype(kind).name.replace("uint", "u").replace("int", "i")
    scale, zero = np.float32(0.02), np.float32(3)

    def quantize(v):
        steps = ops.add(ops.round(ops.divide(v, ops.constant(scale)), "half_to_even"), ops.constant(zero))
        return ops.convert(ops.clamp(steps, float(info.min), float(info.max)), name)

    def dequantize(q):
        return ops.multiply(ops.subtract(ops.convert(q, "f32"), ops.constant(zero)), ops.constant(scale))

    x = ops.parameter([1, 5, 9, 9], np.float32)
    w = stored_weights(ops, rng, (8, 5, 3, 3), (0,))
    y = ops.relu(ops.convolution(dequantize(quantize(x)), w, [1, 1], [1, 1], [1, 1], [1, 1]))
    model = ov.Model([y.output(0), quantize(y).output(0)], [x], "m")
    data = rng.uniform(-2, 2, (1, 5, 9, 9)).astype(np.float32)
    got, want, kernels = steps_of(model, data, monkeypatch=monkeypatch)
    assert any(k.startswith(CONVOLUTIONS) for k in kernels), kernels
    assert_equal(got[0], want[0])
    assert np.abs(got[1].astype(int) - want[1]).max() <= 1
    # if the reals have no reader, the division is part of the epilogue's multiply-add
    last = ops.convolution(
        dequantize(quantize(y)), stored_weights(ops, rng, (8, 8, 1, 1), (0,)), [1, 1], [0, 0], [0, 0], [1, 1]
    )
    (got,), (want,), kernels = steps_of(ov.Model([last], [x], "m"), data, monkeypatch=monkeypatch)
    inner, _ = (k for k in kernels if k.startswith(CONVOLUTIONS))
    assert "quantize" in inner and "divide" not in inner, kernels
    assert_close(got, want, scale * 1.27)  # a step, times the largest weight


@pytest.mark.parametrize(
    "why, low, high, levels",
    [
        ("ranges by channel", np.float32([[[[-1]], [[-2]]]]), np.float32([[[[1]], [[2]]]]), 256),
        ("too many levels", -1.0, 1.0, 65536),
        ("no whole zero point, and a border", -1.0, 2.2, 16),
    ],
)
def test_near_misses_stay_in_f32(monkeypatch, why, low, high, levels):
    rng = np.random.default_rng(SEED)
    ops = ov.opset8
    x = ops.parameter([1, 2, 6, 6], np.float32)
    limits = [ops.constant(np.asarray(v, np.float32)) for v in (low, high, low, high)]
    q = ops.fake_quantize(x, *limits, levels)
    pads = [1, 1] if "border" in why else [0, 0]
    y = ops.convolution(q, stored_weights(ops, rng, (4, 2, 3, 3), (0,)), [1, 1], pads, pads, [1, 1])
    data = rng.uniform(-2, 2, (1, 2, 6, 6)).astype(np.float32)
    got, want, kernels = steps_of(ov.Model([y], [x], "m"), data, monkeypatch=monkeypatch)
    assert not any("u8i8" in k for k in kernels), (why, kernels)
    np.testing.assert_array_equal(got[0], want[0])


@pytest.mark.parametrize("levels, low, high", [(255, -1.27, 1.27), (256, -1.28, 1.27), (256, -0.702, 0.828)])
def test_weights_on_halves_of_steps_are_rounded_as_in_f32(monkeypatch, levels, low, high):
    step = (high - low) / (levels - 1)
    zero = np.rint(-low / step)
    halves = (step * (np.arange(levels - 1) + 0.5 - zero)).astype(np.float32)
    weights = halves[np.linspace(0, levels - 2, 64).astype(int)].reshape(8, 8, 1, 1)

    def made(package):
        ops = package.opset13
        x = ops.parameter([8, 8, 1, 1], np.float32)
        limits = [np.full((8, 1, 1, 1), v, np.float32) for v in (low, high, low, high)]
        faked = ops.fake_quantize(ops.constant(weights), *limits, levels)
        q = fake_quantize(ops, x, 0, 255)
        return package.Model([ops.convolution(q, faked, [1, 1], [0, 0], [0, 0], [1, 1])], [x])

    each = np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1)
    (got,), (want,), kernels = steps_of(made(ov), each, monkeypatch=monkeypatch)
    assert any("u8i8" in kernel for kernel in kernels)
    real = openvino.compile_model(made(openvino), "CPU", F32)([each])[0]
    for other in (want, real):
        np.testing.assert_array_equal(np.rint(got / step), np.rint(other / step), f"{levels} {low} {high}")


#: Weights [6, 3] of integers, or of reals to quantize, of which scales, zero points or limits make more.
MORE = {
    "a row, scales": lambda ops, w, s: ops.multiply(ops.convert(ops.constant(w[:1]), "f32"), s),
    "a list, scales": lambda ops, w, s: ops.multiply(s, ops.convert(ops.constant(w[0]), "f32")),
    "a number, scales": lambda ops, w, s: ops.multiply(
        ops.convert(ops.constant(w[0, 0]), "f32"), ops.constant(np.float32(np.abs(w)))
    ),
    "a row, zeros": lambda ops, w, s: ops.multiply(
        ops.subtract(ops.convert(ops.constant(w[:1]), "f32"), ops.constant(np.float32(w[:, :1]))),
        ops.constant(np.float32(0.01)),
    ),
    "a row, turned": lambda ops, w, s: ops.reshape(
        ops.transpose(
            ops.transpose(ops.multiply(ops.convert(ops.constant(w[:1]), "f32"), s), ops.constant([1, 0])),
            ops.constant([1, 0]),
        ),
        ops.constant([6, 3]),
        False,
    ),
    "a row, limits": lambda ops, w, s: ops.fake_quantize(
        ops.constant(np.float32(w[:1])), ops.constant(np.float32(-127)), ops.constant(np.float32(127)),
        ops.negative(s), s, 255,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MORE)
def test_what_scales_weights_may_make_more_of_them(monkeypatch, kind):
    """OpenVINO gives some of them up, and ends the process for others."""
    rng = np.random.default_rng(SEED)
    weights = rng.integers(-60, 61, (6, 3)).astype(np.int8)
    scales = rng.uniform(0.002, 0.01, (6, 1)).astype(np.float32)
    data = rng.uniform(-2, 2, (4, 3)).astype(np.float32)

    ops = ov.opset13
    x = ops.parameter([-1, 3], np.float32)
    q = fake_quantize(ops, x, -2.0, 1.984375)
    y = ops.matmul(q, MORE[kind](ops, weights, ops.constant(scales)), False, True)
    model = ov.Model([y], [x])
    (got,), (want,), _ = steps_of(model, data, monkeypatch=monkeypatch)
    assert_equal(got, want)
    assert_equal(got, evaluate(model._graph(), [data])[0])


def test_open_shapes_and_the_real_openvino(tmp_path):
    """Weights are small: without VNNI, OpenVINO cuts sums of two products off at 16 bits."""
    rng = np.random.default_rng(SEED)

    def build(package):
        local = np.random.default_rng(SEED)
        ops = package.opset8
        x = ops.parameter(package.PartialShape([-1, 3, -1, -1]), np.float32, name="x")
        q = fake_quantize(ops, x, -1.0, 1.0)
        y = ops.relu(
            ops.convolution(
                q, stored_weights(ops, local, (16, 3, 3, 3), (0,), most=63), [2, 2], [1, 1], [1, 1], [1, 1]
            )
        )
        w = stored_weights(ops, local, (8, 16, 3, 3), (0,), most=63)
        y = ops.convolution(fake_quantize(ops, y, 0.0, 4.0), w, [1, 1], [1, 1], [1, 1], [1, 1])
        return package.Model([y], [x], "m")

    mine = ov.Core().compile_model(build(ov), "CPU", F32)
    theirs = openvino.Core().compile_model(build(openvino), "CPU", F32)
    for shape in ((1, 3, 8, 8), (2, 3, 5, 11), (3, 3, 1, 1)):
        data = rng.uniform(-1.2, 1.2, shape).astype(np.float32)
        got, want = mine([data])[0], theirs([data])[0]
        assert np.abs(got - want).max() <= 0.02 * np.abs(want).max() + 0.02, shape


def test_exported_models_compute_in_integers_too(tmp_path):
    rng = np.random.default_rng(SEED)
    ops = ov.opset8
    x = ops.parameter([1, 8, 6, 6], np.float32)
    y = ops.convolution(
        fake_quantize(ops, x, -1.0, 1.0),
        stored_weights(ops, rng, (16, 8, 3, 3), (0,)),
        [1, 1],
        [1, 1],
        [1, 1],
        [1, 1],
    )
    compiled = ov.Core().compile_model(ov.Model([y], [x], "m"), "CPU", F32)
    data = rng.uniform(-1, 1, (1, 8, 6, 6)).astype(np.float32)
    again = ov.Core().import_model(compiled.export_model(), "CPU")
    np.testing.assert_array_equal(compiled([data])[0], again([data])[0])


@pytest.mark.parametrize("groups", [1, 32])
def test_sums_of_the_largest_products_are_exact(groups):
    """255 times 127 or -128, everywhere: sums of two do not fit 16 bits."""
    ops = ov.opset8
    x = ops.parameter([1, 32, 5, 6], np.float32)
    shape = (32, 1, 1, 4, 4) if groups > 1 else (24, 32, 4, 4)
    each = np.where(np.arange(shape[0]) % 2, 127, -128).reshape(-1, *[1] * (len(shape) - 1))
    integers = np.broadcast_to(each, shape).astype(np.int8)
    convolve = ops.group_convolution if groups > 1 else ops.convolution
    y = convolve(
        fake_quantize(ops, x, 0.0, 255.0), ops.convert(ops.constant(integers), "f32"),
        [1, 1], [0, 0], [0, 0], [1, 1],
    )  # fmt: skip
    compiled = ov.Core().compile_model(ov.Model([y], [x], "m"), "CPU", F32)
    got = compiled([np.full((1, 32, 5, 6), 300, np.float32)])[0]
    want = 255 * integers[0].size * each.reshape(1, -1, 1, 1)
    np.testing.assert_array_equal(got, np.broadcast_to(want.astype(np.float32), got.shape))


INSTRUCTIONS = """
from ovjit.codegen.cpu.targets import target_of
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.tiles.driver import tile_kernel
from ovjit.codegen.cpu.formats import find_format

for name, *extra in (("avx512", "avx512vnni"), ("avx512",), ("avx2", "avxvnni"), ("avx2",), ("generic",)):
    target = target_of(name, extra)
    form = find_format("u8", "i8", target)
    if form is None:
        print("none")
        continue
    text = tile_kernel("tile", Epilogue(None, [], "i32"), target, form).text(target)
    print(*(word for word in ("vpdpbusd.512", "vpdpbusd.256", "pmaddw.d.512", "pmadd.wd") if word in text))
"""


def test_each_instruction_set_has_its_instruction():
    assert printed("-c", INSTRUCTIONS).split() == [
        "vpdpbusd.512",
        "pmaddw.d.512",
        "vpdpbusd.256",
        "pmadd.wd",
        "none",
    ]


STORES = """
import re
import numpy as np
import ovjit as ov
from ovjit import opset13 as op
from ovjit.codegen.cpu.targets import target_of
from ovjit.tools.groups import kernels_of

for name, channels in (("avx512", 40), ("avx2", 44), ("avx2", 40)):
    target = target_of(name)
    x = op.parameter([1, channels, 9, 20], np.float32)
    weights = op.constant(np.ones((channels, 1, 1, 3, 3), np.float32))
    y = op.group_convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    kernels = kernels_of(ov.Model([y], [x])._graph(), target)["f32"]
    (one,) = (k for k in kernels if k.name.startswith("depthwise"))
    text = one.text(target)
    print(len(re.findall("call void @llvm.masked.store", text)), len(re.findall(r"store <\\d+ x", text)))
"""


def test_depthwise_convolutions_branch_over_masks_only_where_they_cost():
    # pixels that are computed together, and the last ones: under a mask, and whole
    assert [line.split() for line in printed("-c", STORES).splitlines()] == [
        ["7", "0"],
        ["5", "5"],
        ["0", "13"],
    ]


@pytest.mark.parametrize("low, high", [(0.0, 1e-7), (-1e-7, 127 / 128 * 1e-7)])
@pytest.mark.parametrize("channels, pixels", [(32, 29), (20, 1), (7, 5)])
def test_what_bytes_do_not_hold_is_cut_off(low, high, channels, pixels):
    """Bytes are rounded and joined from i32, which do not hold what is quantized here."""
    rng = np.random.default_rng([SEED, channels, pixels])
    ops = ov.opset13
    x = ops.parameter([1, 8, pixels], np.float32)
    y = ops.convolution(
        fake_quantize(ops, x, 0.0, 4.0), stored_weights(ops, rng, (channels, 8, 1), (0,)), [1], [0], [0], [1]
    )
    y = fake_quantize(ops, ops.multiply(y, ops.constant(np.float32(1e3))), low, high)
    y = ops.convolution(y, stored_weights(ops, rng, (3, channels, 1), (0,)), [1], [0], [0], [1])
    model, data = ov.Model([y], [x]), rng.uniform(0, 4, (1, 8, pixels)).astype(np.float32)
    (want,) = evaluate(model._graph(), [data])
    assert_equal(ov.compile_model(model, "CPU", F32)([data])[0], want)


def test_shuffled_channels_are_convolved_as_bytes(monkeypatch):
    """A shuffle sinks below what treats channels one by one, as in a quantized ShuffleNet."""
    rng = np.random.default_rng(SEED)
    ops = ov.opset8
    x = ops.parameter([1, 16, 6, 6], np.float32)
    q = fake_quantize(ops, ops.shuffle_channels(fake_quantize(ops, x, 0.0, 4.0), 1, 2), 0.0, 4.0)
    w = stored_weights(ops, rng, (16, 1, 1, 3, 3), (0, 1))
    y = ops.group_convolution(q, w, [1, 1], [1, 1], [1, 1], [1, 1])
    data = rng.uniform(-1, 5, (1, 16, 6, 6)).astype(np.float32)
    got, want, kernels = steps_of(ov.Model([y], [x], "m"), data, monkeypatch=monkeypatch)
    assert any(k.startswith("depthwise_u8") for k in kernels), kernels
    assert_equal(got[0], want[0])


def test_ranges_along_another_axis_than_channels_stay_real(monkeypatch):
    """Of which there are as many as channels, or as in one group."""
    rng = np.random.default_rng(SEED)
    ops = ov.opset8
    for shape in ((1, 1, 3, 3), (2, 3, 3, 3)):
        x = ops.parameter(list(shape), np.float32)
        high = ops.constant(rng.uniform(1, 3, (3,)).astype(np.float32))
        low = ops.constant(np.zeros(1, np.float32))
        q = ops.fake_quantize(x, low, high, low, high, 256)
        w = stored_weights(ops, rng, (shape[1], 1, 1, 1, 1), (0,))
        y = ops.group_convolution(q, w, [1, 1], [0, 0], [0, 0], [1, 1])
        data = rng.uniform(-1, 4, shape).astype(np.float32)
        got, want, kernels = steps_of(ov.Model([y], [x], "m"), data, monkeypatch=monkeypatch)
        assert "ref_numpy" not in kernels
        assert_equal(got[0], want[0])


@pytest.mark.parametrize(
    "levels, step, zero", [(301, 1.0, 0), (16, 0.25, 3), (256, 0.5, 128), (1025, 2.0**-5, 7)]
)
@pytest.mark.parametrize("each", [False, True])
def test_halves_between_steps_are_rounded_to_even_where_steps_are_powers_of_two(levels, step, zero, each):
    """FakeQuantize alone, whether its steps are bytes or not, and OpenVINO's."""
    steps = np.arange(-4, 2 * levels + 4).reshape(2, -1) / 2
    data = ((steps - zero) * step).astype(np.float32)
    low = np.full((2, 1) if each else (), -zero * step, np.float32)
    want = (np.rint(np.clip(steps, 0, levels - 1)) - zero) * step
    for package in (ov, openvino):
        ops = package.opset13
        x = ops.parameter(list(data.shape), np.float32)
        ends = [ops.constant(v) for v in (low, np.float32(low + (levels - 1) * step)) * 2]
        model = package.Model([ops.fake_quantize(x, *ends, levels)], [x], "m")
        got = package.Core().compile_model(model, "CPU", F32)([data])[0]
        np.testing.assert_array_equal(np.rint(got / step), want / step, package.__name__)


@pytest.mark.skipif(not WORDS or WORDS.products > 1 or host_target().lanes < 16, reason="lines are longer")
@pytest.mark.parametrize(
    "channels, kernel, outs, stride, open_shape",
    [(3, (7, 7), 64, 2, 0), (1, (5, 5), 40, 1, 1), (2, (6, 7), 48, 3, 0), (5, (3, 3), 72, 1, 1)],
)
@pytest.mark.parametrize("low, high", RANGES)
def test_windows_of_few_channels_are_put_together(
    monkeypatch, channels, kernel, outs, stride, open_shape, low, high
):
    """Lines of a window that are no whole words, from data that a model makes: behind a Relu, in NHWC."""
    rng = np.random.default_rng([SEED, channels, outs])
    ops = ov.opset13
    size = [2, channels, 19, 23]
    x = ops.parameter([-1, channels, -1, -1] if open_shape else size, np.float32)
    w = stored_weights(ops, rng, (outs, channels, *kernel), (0,))
    q = fake_quantize(ops, ops.add(ops.relu(x), ops.constant(np.float32(low))), low, high)
    y = ops.convolution(q, w, [stride] * 2, [2, 3], [3, 2], [2, 1])
    model = ov.Model([y], [x])
    data = rng.uniform(-2, 4, size).astype(np.float32)
    (want,) = evaluate(model._graph(), [data])
    lines = {**F32, "OVJIT_MATRIX_UNIT": False}  # which packs windows without such lines
    compiled = ov.compile_model(model, "CPU", lines)
    gathered = [getattr(one, "gathered", 0) for one in compiled._executable.program.lowerings]
    assert channels * kernel[1] in gathered, gathered
    assert_equal(compiled([data])[0], want)
    monkeypatch.setenv("OVJIT_INTERP", "kernels")
    np.testing.assert_array_equal(ov.compile_model(model, "CPU", lines)([data])[0], compiled([data])[0])


def exact_steps(x, low, high, levels=256):
    """FakeQuantize's steps in f64, of limits as f32 has them."""
    low, high = (np.float64(np.float32(v)) for v in (low, high))
    return np.rint(np.clip((x - low) * ((levels - 1) / (high - low)), 0, levels - 1))


@pytest.mark.parametrize("low, high", [(-2.1, 2.0837), (-1.0, 1.5), (0.0, 3.3)])
def test_inputs_become_the_steps_of_exact_arithmetic(low, high):
    x = ov.opset13.parameter([1, 4, 250, 300])
    weights = ov.opset13.constant(np.eye(4, dtype=np.int8).reshape(4, 4, 1, 1))
    one = ov.opset13.multiply(ov.opset13.convert(weights, "f32"), ov.opset13.constant(np.float32(1)))
    made = fake_quantize(ov.opset13, x, low, high)
    y = ov.opset13.convolution(made, one, [1, 1], [0, 0], [0, 0], [1, 1])
    data = np.random.default_rng(SEED).normal(0, 1, (1, 4, 250, 300)).astype(np.float32)
    got = ov.compile_model(ov.Model([y], [x], "m"), "CPU", F32)(data)[0]
    scale = (np.float64(np.float32(high)) - np.float32(low)) / 255
    want = exact_steps(data.astype(np.float64), low, high)
    wrong = int((np.rint((got - np.float32(low)) / scale) != want).sum())
    # what f32 adds to a zero point of 128 has steps of 2**-16: of the first two ranges' some 2 would be wrong
    assert wrong <= 1, f"{wrong} of {want.size} with limits {low}, {high}, seed {SEED}"


@pytest.mark.parametrize("factor, offsets, share", [(0.01, 3.0, 0.4), (0.003, 3.0, 0.6), (0.01, 0.0, 0.6)])
def test_sums_become_the_steps_of_exact_arithmetic(factor, offsets, share):
    rng = np.random.default_rng([SEED, int(factor * 1e4), int(offsets)])
    factors = np.exp(rng.normal(np.log(factor), 0.3, (1, 96, 1, 1)))
    offset = rng.normal(0, offsets, (1, 96, 1, 1)) if offsets else np.zeros(())
    found = fit_steps(factors, offset, 0, 255)
    assert [a.shape for a in found] == [factors.shape, offset.shape]
    nearest = tuple(a.astype(np.float32) for a in (factors, offset))
    assert all(np.array_equal(a, a.astype(np.float32)) for a in found)
    sums = np.arange(-20_000, 150_000, dtype=np.float64).reshape(-1, 1, 1, 1)

    def wrong(numbers):
        count = 0
        for i in range(96):
            f, o = (np.float64(a.reshape(-1)[i % a.size]) for a in numbers)
            made = np.rint(np.clip((sums * f + o).astype(np.float32), 0, 255))
            f, o = (a.reshape(-1)[i % a.size] for a in (factors, offset))
            count += int((made != np.rint(np.clip(sums * f + o, 0, 255))).sum())
        return count

    before, after = wrong(nearest), wrong(found)
    assert after <= share * before and before > 5, f"{after} wrong, by the nearest f32 {before}, seed {SEED}"


def test_offsets_of_a_whole_tensor_take_no_memory_beside_them():
    """As of positions that are added to patches: the borders of each would be 255 times as many."""
    offset = np.random.default_rng(SEED).normal(0, 50, (1, 197, 768))
    tracemalloc.start()
    found = fit_steps(np.array(0.01), offset, 0, 255)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found[1], offset.astype(np.float32))
    assert found[0] == 0.01 and most < 16 * offset.nbytes


def test_what_is_on_a_grid_stays_on_it_in_f32():
    """Ranges by channel are not computed in bytes: FakeQuantize itself makes the numbers, exact if steps are
    powers of 2."""
    rng = np.random.default_rng(SEED)
    step, zero = np.exp2(rng.integers(-8, -2, (1, 32, 1, 1))), rng.integers(0, 256, (1, 32, 1, 1))
    limits = [(-zero * step).astype(np.float32), ((255 - zero) * step).astype(np.float32)]
    x = ov.opset13.parameter([2, 32, 5, 6])
    y = ov.opset13.fake_quantize(x, *(ov.opset13.constant(v) for v in (*limits, *limits)), 256)
    data = (rng.integers(-40, 40, (2, 32, 5, 6)) / 16).astype(np.float32)
    got = ov.compile_model(ov.Model([y], [x], "m"), "CPU", F32)(data)[0]
    want = (np.clip(np.rint(data / step + zero), 0, 255) - zero) * step
    assert np.array_equal(got, want), f"{np.abs(got - want).max()}, seed {SEED}"


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.5)])
def test_colours_are_quantized_plane_by_plane(low: float, high: float) -> None:
    """A model's input is not turned for its first convolution, however many steps make bytes of it. For a
    matrix unit it is, where windows are large."""
    rng = np.random.default_rng(SEED)
    ops = ov.opset8
    x = ops.parameter([1, 3, 40, 48], np.float32)
    w = stored_weights(ops, rng, (16, 3, 7, 7), (0,))
    y = ops.convolution(fake_quantize(ops, x, low, high), w, [2, 2], [3, 3], [3, 3], [1, 1])
    for unit in (False, None):
        config = F32 | ({} if unit is None else {"OVJIT_MATRIX_UNIT": unit})
        program = ov.compile_model(ov.Model([y], [x], "m"), "CPU", config)._executable.program
        (first,) = (way for way in program.lowerings if way.node.op.name == "Convolution")
        assert first.planar == (not first.form.on_unit) and first.data.dtype == "u8"


@pytest.mark.parametrize("levels", [16, 256, 65536])
@pytest.mark.parametrize("ends", [(-1.17549e-38, 1.17546e-38), (-1e-36, 1e-36), (0, 1e-37), (-1e-30, 1e-30)])
def test_limits_that_are_next_to_each_other(levels, ends):
    """A tensor of zeros has such limits by calibration. The inverse of a step may be no f32."""
    ops, x = ov.opset13, ov.opset13.parameter([2, 6], np.float32)
    low, high = (np.array([[v], [3 * k]], np.float32) for v, k in zip(ends, (-1, 1), strict=True))
    made = ops.fake_quantize(x, *map(ops.constant, (low, high, low, high)), levels)
    data = np.tile(np.array([0, 1, -1, 3e38, *ends], np.float32), (2, 1))
    found = ov.compile_model(ov.Model([made], [x], "near"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(data)[
        0
    ]
    low, high = low.astype(np.float64), high.astype(np.float64)
    step = (high - low) / (levels - 1)
    held = np.clip(data.astype(np.float64), low, high)
    error = np.abs(found - (np.rint((held - low) / step) * step + low))
    assert np.all(error <= 0.01 * (high - low))
