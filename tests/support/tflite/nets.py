"""Small networks as TensorFlow Lite files: quantised images, written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.tflite.cases import i32
from tests.support.tflite.files import G, Op, T, const, quantized, write

SEED = 20261123
ACTIVATION = {"INT8": quantized(0.05, -3), "UINT8": quantized(0.05, 128), "INT16": quantized(0.002, 0)}
RESULT = {"INT8": quantized(0.2, 4), "UINT8": quantized(0.2, 120), "INT16": quantized(0.004, 0)}


def quantized_net(kind: str, per_channel: bool, seed: int = 0) -> bytes:
    """CONV_2D, DEPTHWISE_CONV_2D, ADD, MAX_POOL_2D, MEAN, FULLY_CONNECTED, SOFTMAX."""
    rng = np.random.default_rng([SEED, seed])
    signed = kind != "UINT8"
    low, high, dtype, zero = (-100, 100, np.int8, 0) if signed else (20, 240, np.uint8, 125)
    wide = np.int64 if kind == "INT16" else np.int32
    scale = ACTIVATION[kind]["Scale"][0]

    def filters(name: str, shape: tuple[int, ...], axis: int) -> list[T]:
        scales = rng.uniform(0.005, 0.02, shape[axis] if per_channel else 1)
        values = rng.integers(low, high, shape).astype(dtype)
        bias = rng.integers(-500, 500, shape[axis]).astype(wide)
        return [const(f"{name}w", values, quant=quantized(scales, zero, axis)),
                const(f"{name}b", bias, quant=quantized(scales * scale))]  # fmt: skip

    def at(name: str, *shape: int, quant: Any = ACTIVATION[kind]) -> T:
        return T(name, shape, kind, quant=quant)

    ends = quantized(1 / 32768) if kind == "INT16" else quantized(1 / 256, -128 if signed else 0)
    tensors = [
        at("x", 1, 8, 8, 4), *filters("conv", (4, 3, 3, 4), 0), at("c", 1, 8, 8, 4),
        *filters("deep", (1, 3, 3, 4), 3), at("d", 1, 8, 8, 4), at("a", 1, 8, 8, 4), at("m", 1, 4, 4, 4),
        const("axes", i32(1, 2)), at("e", 1, 4), *filters("full", (5, 4), 0),
        at("f", 1, 5, quant=RESULT[kind]), at("s", 1, 5, quant=ends),
    ]  # fmt: skip
    image = {"Padding": 0, "StrideW": 1, "StrideH": 1}
    pool = {"Padding": 1, "StrideW": 2, "StrideH": 2, "FilterWidth": 2, "FilterHeight": 2}
    relu, deep = {"FusedActivationFunction": 1}, {"DepthMultiplier": 1}
    ops = [Op("CONV_2D", ["x", "convw", "convb"], ["c"], "Conv2DOptions", image | relu),
           Op("DEPTHWISE_CONV_2D", ["c", "deepw", "deepb"], ["d"], "DepthwiseConv2DOptions", image | deep),
           Op("ADD", ["c", "d"], ["a"], "AddOptions"), Op("MAX_POOL_2D", ["a"], ["m"], "Pool2DOptions", pool),
           Op("MEAN", ["m", "axes"], ["e"], "ReducerOptions", {"KeepDims": False}),
           Op("FULLY_CONNECTED", ["e", "fullw", "fullb"], ["f"], "FullyConnectedOptions"),
           Op("SOFTMAX", ["f"], ["s"], "SoftmaxOptions", {"Beta": 1.0})]  # fmt: skip
    return write(G(tensors, ops, ["x"], ["f", "s"]))
