"""Classifiers, segmentation, style transfer and transformers of images; volumes and sound."""

from __future__ import annotations

import numpy as np

from tests.support.onnx.nets import Built, F, Net


def super_resolution(seed: int) -> Built:
    n = Net(seed, 9)
    x = n.input("input", n.rng.random((1, 1, 20, 20)).astype(F), ["batch", 1, 20, 20])
    x = n.conv(n.conv(n.conv(x, 1, 16, 5), 16, 16), 16, 9, act=None)
    y = n("Transpose", n("Reshape", x, n.ints(-1, 1, 3, 3, 20, 20)), perm=[0, 1, 4, 2, 5, 3])
    return n.model(n("Reshape", y, n.ints(-1, 1, 60, 60))), n.values


def segmentation(seed: int) -> Built:
    """FCN and ASPP: dilated convolutions, a global pool that is resized to the others, sizes of the input."""
    n = Net(seed, 11)
    x = n.input("input", n.rng.random((1, 3, 33, 41)).astype(F), ["batch", 3, "height", "width"])
    shape = n("Slice", n("Shape", x), n.ints(2), n.ints(4))
    f = n.conv(n.conv(x, 3, 8, s=2, bn=True), 8, 8, s=2, bn=True)
    parts = [n.conv(f, 8, 8, 1, bn=True), *(n.conv(f, 8, 8, d=d, bn=True) for d in (2, 3))]
    pooled = n.conv(n("GlobalAveragePool", f), 8, 8, 1)
    size = n(
        "Concat",
        n("Slice", n("Shape", pooled), n.ints(0), n.ints(2)),
        n("Slice", n("Shape", f), n.ints(2), n.ints(4)),
        axis=0,
    )
    empty = n.const(np.zeros(0, F))
    parts.append(
        n(
            "Resize",
            pooled,
            empty,
            empty,
            size,
            mode="linear",
            coordinate_transformation_mode="pytorch_half_pixel",
        )
    )
    y = n.conv(n.conv(n("Concat", *parts, axis=1), 32, 8, 1, bn=True), 8, 5, 1, act=None)
    size = n("Concat", n("Slice", n("Shape", y), n.ints(0), n.ints(2)), shape, axis=0)
    y = n("Resize", y, empty, empty, size, mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
    return n.model(y, n("ArgMax", y, axis=1)), n.values


def style_transfer(seed: int) -> Built:
    n = Net(seed, 9)
    x = n.input("img", n.rng.random((1, 3, 32, 32)).astype(F) * 255)

    def block(x: str, cin: int, cout: int, k: int, s: int, relu: bool = True) -> str:
        x = n("Pad", x, mode="reflect", pads=[0, 0, k // 2, k // 2, 0, 0, k // 2, k // 2])
        x = n(
            "Conv",
            x,
            n.weight(cout, cin, k, k),
            n.weight(cout, scale=0.1),
            kernel_shape=[k, k],
            strides=[s, s],
        )
        x = n(
            "InstanceNormalization",
            x,
            n.const(n.rng.uniform(0.5, 1.5, cout)),
            n.weight(cout, scale=0.1),
            epsilon=1e-5,
        )
        return n("Relu", x) if relu else x

    x = block(block(x, 3, 8, 9, 1), 8, 16, 3, 2)
    x = n("Add", block(block(x, 16, 16, 3, 1), 16, 16, 3, 1, False), x)
    x = n("Upsample", x, n.const(np.array([1, 1, 2, 2], F)), mode="nearest")
    x = block(x, 16, 8, 3, 1)
    x = n("Pad", x, mode="reflect", pads=[0, 0, 4, 4, 0, 0, 4, 4])
    return n.model(n("Conv", x, n.weight(3, 8, 9, 9), n.weight(3, scale=0.1))), n.values


def ferplus(seed: int) -> Built:
    """CNTK's export of opset 7: weights that are reshaped, Dropout, MatMul, sums with constants."""
    n = Net(seed, 7)
    x = n.input("Input3", n.rng.random((1, 1, 16, 16)).astype(F) * 255)
    x = n("Mul", n("Sub", x, n.const(np.float32(127.5))), n.const(np.float32(1 / 127.5)))
    for cin, cout in ((1, 8), (8, 8)):
        x = n(
            "Conv",
            x,
            n.weight(cout, cin, 3, 3),
            kernel_shape=[3, 3],
            strides=[1, 1],
            auto_pad="SAME_UPPER",
            dilations=[1, 1],
        )
        x = n("Relu", n("Add", x, n.const(n.rng.standard_normal((cout, 1, 1)) * 0.1)))
        x = n("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID", pads=[0, 0, 0, 0])
        x = n("Dropout", x, ratio=0.25)
    weight = n("Reshape", n.const(n.rng.standard_normal((8, 4, 4, 10)) * 0.1), n.ints(128, 10))
    x = n("MatMul", n("Reshape", x, n.ints(1, 128)), weight)
    return n.model(n("Add", x, n.const(n.rng.standard_normal((1, 10)) * 0.1))), n.values


def arcface(seed: int) -> Built:
    """MXNet's export of opset 7: normalisation first, PRelu with a slope for each channel, Gemm, Dropout."""
    n = Net(seed, 7)
    x = n.input("data", n.rng.random((1, 3, 28, 28)).astype(F) * 255)
    x = n("Mul", n("Sub", x, n.const(np.array([127.5], F))), n.const(np.array([0.0078125], F)))
    x = n.conv(x, 3, 8, bn=True, act="PRelu")
    for s in (2, 2):
        y = n.conv(n.norm(x, 8), 8, 8, bn=True, act="PRelu")
        y = n.conv(y, 8, 8, s=s, act=None, bn=True)
        x = n("Add", y, n.conv(x, 8, 8, 1, s=s, act=None, bn=True))
    x = n("Dropout", n.norm(x, 8), outputs=2, ratio=0.4)[0]
    x = n("Gemm", n("Flatten", x), n.weight(16, 392), n.weight(16, scale=0.1), alpha=1.0, beta=1.0, transB=1)
    return n.model(n.norm(x, 16)), n.values


def mobilenet_v3(seed: int) -> Built:
    """Squeeze and excitation, hard swish, depthwise layers, ReduceMean for pooling."""
    n = Net(seed, 13)
    x = n.input("x", n.rng.random((2, 3, 32, 32)).astype(F), ["batch", 3, 32, 32])
    x = n.conv(x, 3, 8, s=2, act="HardSwish")
    y = n.conv(n.conv(x, 8, 16, 1, act="HardSwish"), 16, 16, 5, act="HardSwish", g=16)
    s = n("ReduceMean", y, axes=[2, 3], keepdims=1)
    s = n("HardSigmoid", n.conv(n.conv(s, 16, 4, 1), 4, 16, 1, act=None), alpha=1 / 6, beta=0.5)
    x = n("Add", x, n.conv(n("Mul", y, s), 16, 8, 1, act=None))
    x = n("Flatten", n("GlobalAveragePool", n.conv(x, 8, 24, 1, act="HardSwish")), axis=1)
    return n.model(n("Softmax", n("Gemm", x, n.weight(10, 24), n.weight(10, scale=0.1), transB=1))), n.values


def shufflenet(seed: int) -> Built:
    n = Net(seed, 9)
    x = n.input("x", n.rng.random((1, 3, 24, 24)).astype(F))
    x = n.conv(x, 3, 8, s=2, bn=True)
    a, b = n("Split", x, outputs=2, axis=1, split=[4, 4])
    b = n.conv(n.conv(n.conv(b, 4, 4, 1, bn=True), 4, 4, g=4, act=None, bn=True), 4, 4, 1, bn=True)
    y = n("Reshape", n("Concat", a, b, axis=1), n.ints(1, 2, 4, 12, 12))
    y = n("Reshape", n("Transpose", y, perm=[0, 2, 1, 3, 4]), n.ints(1, -1, 12, 12))
    y = n("LRN", y, size=5, alpha=1e-4, beta=0.75, bias=1.0)
    y = n("AveragePool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    return n.model(n("ReduceMean", y, axes=[2, 3], keepdims=0)), n.values


def vit(seed: int) -> Built:
    n = Net(seed, 17)
    h, heads = 24, 3
    x = n.input("pixel_values", n.rng.standard_normal((2, 3, 16, 16)).astype(F), ["batch", 3, 16, 16])
    x = n("Conv", x, n.weight(h, 3, 4, 4), n.weight(h, scale=0.1), kernel_shape=[4, 4], strides=[4, 4])
    batch = n("Gather", n("Shape", x), n.const(np.int64(0)), axis=0)
    x = n("Transpose", n("Reshape", x, n.ints(0, h, -1)), perm=[0, 2, 1])
    one = n(
        "Expand",
        n.weight(1, 1, h, scale=1),
        n("Concat", n("Unsqueeze", batch, n.ints(0)), n.ints(1, h), axis=0),
    )
    x = n("Add", n("Concat", one, x, axis=1), n.weight(1, 17, h, scale=1))
    for _ in range(2):
        y = n.layer_norm(x, h, fused=True)
        qkv = n(
            "Transpose",
            n("Reshape", n.linear(y, h, 3 * h), n.ints(0, 17, 3, heads, h // heads)),
            perm=[2, 0, 3, 1, 4],
        )
        q, k, v = (n("Squeeze", t, n.ints(0)) for t in n("Split", qkv, n.ints(1, 1, 1), outputs=3, axis=0))
        scores = n(
            "Softmax",
            n("Mul", n("MatMul", q, n("Transpose", k, perm=[0, 1, 3, 2])), (heads / h) ** 0.5),
            axis=-1,
        )
        out = n("Reshape", n("Transpose", n("MatMul", scores, v), perm=[0, 2, 1, 3]), n.ints(0, 17, h))
        x = n("Add", x, n.linear(out, h, h))
        x = n("Add", x, n.linear(n.gelu(n.linear(n.layer_norm(x, h, fused=True), h, 48)), 48, h))
    return n.model(
        n.linear(n("Gather", n.layer_norm(x, h, fused=True), n.const(np.int64(0)), axis=1), h, 7)
    ), n.values


def swin_window(seed: int) -> Built:
    """Windows rolled by slices and put back, a bias gathered from a table, a mask for each window."""
    n = Net(seed, 13)
    h, side, win = 16, 8, 4
    x = n.input("x", n.rng.standard_normal((2, side * side, h)).astype(F))
    y = n("Reshape", n.layer_norm(x, h), n.ints(2, side, side, h))

    def roll(y: str, by: int) -> str:
        for axis in (1, 2):
            tail = n("Slice", y, n.ints(by), n.ints(2**63 - 1), n.ints(axis))
            y = n("Concat", tail, n("Slice", y, n.ints(0), n.ints(by), n.ints(axis)), axis=axis)
        return y

    y = n("Transpose", n("Reshape", roll(y, 2), n.ints(2, 2, win, 2, win, h)), perm=[0, 1, 3, 2, 4, 5])
    y = n("Reshape", y, n.ints(-1, win * win, h))
    qkv = n("Transpose", n("Reshape", n.linear(y, h, 3 * h), n.ints(-1, 16, 3, 2, 8)), perm=[2, 0, 3, 1, 4])
    q, k, v = (n("Gather", qkv, n.const(np.int64(i)), axis=0) for i in range(3))
    scores = n("MatMul", n("Mul", q, 8**-0.5), n("Transpose", k, perm=[0, 1, 3, 2]))
    bias = n("Gather", n.weight(49, 2, scale=1), n.const(n.rng.integers(0, 49, 256)))
    bias = n("Unsqueeze", n("Transpose", n("Reshape", bias, n.ints(16, 16, 2)), perm=[2, 0, 1]), n.ints(0))
    scores = n("Add", scores, bias)
    mask = n.const(np.where(n.rng.random((1, 4, 1, 16, 16)) < 0.2, -100.0, 0.0))
    scores = n(
        "Reshape", n("Add", n("Reshape", scores, n.ints(-1, 4, 2, 16, 16)), mask), n.ints(-1, 2, 16, 16)
    )
    out = n("Transpose", n("MatMul", n("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    out = n.linear(n("Reshape", out, n.ints(-1, 16, h)), h, h)
    out = n("Transpose", n("Reshape", out, n.ints(2, 2, 2, win, win, h)), perm=[0, 1, 3, 2, 4, 5])
    out = n("Reshape", roll(n("Reshape", out, n.ints(2, side, side, h)), side - 2), n.ints(2, side * side, h))
    return n.model(n("Add", x, out)), n.values


def unet_3d(seed: int) -> Built:
    n = Net(seed, 13)
    x = n.input("x", n.rng.standard_normal((1, 2, 8, 8, 8)).astype(F))

    def conv(x: str, cin: int, cout: int) -> str:
        y = n("Conv", x, n.weight(cout, cin, 3, 3, 3), n.weight(cout, scale=0.1), pads=[1] * 6)
        y = n("InstanceNormalization", y, n.const(np.ones(cout, F)), n.const(np.zeros(cout, F)))
        return n("LeakyRelu", y, alpha=0.01)

    a = conv(x, 2, 4)
    b = conv(n("MaxPool", a, kernel_shape=[2, 2, 2], strides=[2, 2, 2]), 4, 8)
    up = n("ConvTranspose", b, n.weight(8, 4, 2, 2, 2), strides=[2, 2, 2], kernel_shape=[2, 2, 2])
    return n.model(n("Softmax", conv(n("Concat", up, a, axis=1), 8, 3), axis=1)), n.values


def wavenet(seed: int) -> Built:
    """Causal dilated convolutions in one dimension, gated, with skips; a transposed one to upsample."""
    n = Net(seed, 13)
    x = n.input("mel", n.rng.standard_normal((1, 4, 12)).astype(F), [1, 4, "frames"])
    x = n("ConvTranspose", x, n.weight(4, 8, 8), kernel_shape=[8], strides=[4], pads=[2, 2])
    total = None
    for d in (1, 2, 4):
        y = n("Pad", x, n.ints(0, 0, 2 * d, 0, 0, 0))
        y = n("Conv", y, n.weight(16, 8, 3), n.weight(16, scale=0.1), dilations=[d], kernel_shape=[3])
        a, b = n("Split", y, n.ints(8, 8), outputs=2, axis=1)
        y = n("Mul", n("Tanh", a), n("Sigmoid", b))
        x = n("Add", x, n("Conv", y, n.weight(8, 8, 1), kernel_shape=[1]))
        total = y if total is None else n("Add", total, y)
    y = n("Conv", n("Relu", total), n.weight(1, 8, 7), pads=[3, 3], kernel_shape=[7])
    return n.model(n("Tanh", y)), n.values


NETS = {
    f.__name__: f
    for f in (
        super_resolution,
        segmentation,
        style_transfer,
        ferplus,
        arcface,
        mobilenet_v3,
        shufflenet,
        vit,
        swin_window,
        unet_3d,
        wavenet,
    )
}
