"""The quantised forms: integer operators, dynamic quantisation, QuantizeLinear around each layer.

Weights have 7 bits: sums of wider ones saturate in ONNX Runtime on CPUs without VNNI.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.onnx.nets import Built, F, Net


def quantised_resnet(seed: int) -> Built:
    """The zoo's int8 form: QLinearConv, QLinearAdd, QLinearGlobalAveragePool, QGemm or QLinearMatMul."""
    n = Net(seed, 12, microsoft=True)
    r = n.rng

    def scale(v: float = 0.02) -> str:
        return n.const(np.array(r.uniform(v / 2, v), F))

    def zero() -> str:
        return n.const(np.array(r.integers(100, 150), np.uint8))

    x = n.input("data", r.standard_normal((1, 3, 24, 24)).astype(F), ["N", 3, 24, 24])
    s, z = scale(0.04), zero()
    q = n("QuantizeLinear", x, s, z)

    def conv(q: Any, cin: int, cout: int, k: int, stride: int) -> Any:
        (x, xs, xz), ys, yz = q, n.const(np.array(0.05, F)), zero()
        w = n.const(r.integers(-64, 64, (cout, cin, k, k)).astype(np.int8))
        ws = n.const(r.uniform(0.001, 0.01, cout).astype(F))
        y = n(
            "QLinearConv",
            x,
            xs,
            xz,
            w,
            ws,
            n.const(np.zeros(cout, np.int8)),
            ys,
            yz,
            n.const(r.integers(-300, 300, cout).astype(np.int32)),
            kernel_shape=[k, k],
            strides=[stride, stride],
            pads=[k // 2] * 4,
        )
        return y, ys, yz

    a = conv((q, s, z), 3, 16, 3, 2)
    pooled = n("MaxPool", a[0], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), a[1], a[2]
    b = conv(conv(pooled, 16, 16, 3, 1), 16, 16, 3, 1)
    ys, yz = n.const(np.array(0.06, F)), zero()
    total = n("QLinearAdd", *b, *pooled, ys, yz, domain="com.microsoft"), ys, yz
    c = conv(total, 16, 8, 1, 1)
    parts = n.const(np.array(0.07, F)), zero()
    joined = n("QLinearConcat", *parts, *total, *c, domain="com.microsoft", axis=1), *parts
    gs, gz = scale(), zero()
    pool = n("QLinearGlobalAveragePool", *joined, gs, gz, domain="com.microsoft", channels_last=0)
    flat = n("Flatten", pool, axis=1)
    w, fs = n.const(r.integers(-64, 64, (24, 10)).astype(np.int8)), n.const(np.array(0.003, F))
    os_, oz = n.const(np.array(0.05, F)), zero()
    logits = n(
        "QGemm",
        flat,
        gs,
        gz,
        w,
        fs,
        n.const(np.array(0, np.int8)),
        n.const(r.integers(-500, 500, 10).astype(np.int32)),
        os_,
        oz,
        domain="com.microsoft",
        alpha=1.0,
        transB=0,
    )
    other = n("QLinearMatMul", flat, gs, gz, w, fs, n.const(np.array(0, np.int8)), os_, oz)
    return n.model(n("DequantizeLinear", logits, os_, oz), n("DequantizeLinear", other, os_, oz)), n.values


def quantised_bert(seed: int) -> Built:
    """What ONNX Runtime's dynamic quantiser and its transformer optimiser write together."""
    n = Net(seed, 11, microsoft=True)
    r, h = n.rng, 16
    ms = {"domain": "com.microsoft"}
    ids = n.input("input_ids", r.integers(0, 20, (2, 5)).astype(np.int32), ["batch", "seq"])
    mask = n.input("mask", np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32), ["batch", "seq"])
    kinds = n.input("kinds", r.integers(0, 2, (2, 5)).astype(np.int32), ["batch", "seq"])
    x, lengths = n(
        "EmbedLayerNormalization",
        ids,
        kinds,
        n.weight(20, h, scale=1),
        n.weight(8, h, scale=1),
        n.weight(2, h, scale=1),
        n.const(r.uniform(0.5, 1.5, h)),
        n.weight(h, scale=0.1),
        mask,
        outputs=2,
        epsilon=1e-12,
        **ms,
    )
    q, s, z = n("DynamicQuantizeLinear", x, outputs=3)
    w = n.const(r.integers(-64, 64, (h, 3 * h)).astype(np.int8))
    ws, wz = n.const(np.array(0.005, F)), n.const(np.array(0, np.int8))
    y = n("QAttention", q, w, n.weight(3 * h, scale=0.1), s, ws, lengths, z, wz, num_heads=2, **ms)
    q, s, z = n("DynamicQuantizeLinear", y, outputs=3)
    w2 = n.const(r.integers(-64, 64, (h, h)).astype(np.int8))
    y = n("MatMulIntegerToFloat", q, w2, s, ws, z, wz, n.weight(h, scale=0.1), **ms)
    x = n(
        "SkipLayerNormalization",
        y,
        x,
        n.const(r.uniform(0.5, 1.5, h)),
        n.weight(h, scale=0.1),
        n.weight(h, scale=0.1),
        epsilon=1e-12,
        **ms,
    )
    y = n("DynamicQuantizeMatMul", x, n.const(r.integers(-64, 64, (h, 32)).astype(np.int8)), ws, wz, **ms)
    y = n("FastGelu", y, n.weight(32, scale=0.1), **ms)
    q, s, z = n("DynamicQuantizeLinear", y, outputs=3)
    total = n(
        "Cast", n("MatMulInteger", q, n.const(r.integers(-64, 64, (32, h)).astype(np.int8)), z, wz), to=1
    )
    y = n("Add", n("Mul", total, n("Mul", s, ws)), n.weight(h, scale=0.1))
    return n.model(n("Tanh", n("Add", x, y))), n.values


def qdq_mobile(seed: int) -> Built:
    """QuantizeLinear and DequantizeLinear around each layer, weights per channel."""
    n = Net(seed, 13)
    r = n.rng
    x = n.input("x", r.standard_normal((1, 3, 20, 20)).astype(F), ["n", 3, 20, 20])

    def fake(x: str, scale: float) -> str:
        s, z = n.const(np.array(scale, F)), n.const(np.array(128, np.uint8))
        return n("DequantizeLinear", n("QuantizeLinear", x, s, z), s, z)

    def conv(x: str, cin: int, cout: int, k: int, g: int = 1, s: int = 1) -> str:
        w = n.const(r.integers(-64, 64, (cout, cin // g, k, k)).astype(np.int8))
        ws = r.uniform(0.002, 0.01, cout).astype(F)
        w = n("DequantizeLinear", w, n.const(ws), n.const(np.zeros(cout, np.int8)), axis=0)
        b = n(
            "DequantizeLinear",
            n.const(r.integers(-200, 200, cout).astype(np.int32)),
            n.const(ws * F(0.03)),
            n.const(np.zeros(cout, np.int32)),
            axis=0,
        )
        return n("Conv", x, w, b, kernel_shape=[k, k], pads=[k // 2] * 4, group=g, strides=[s, s])

    x = fake(x, 0.03)
    y = fake(n("Clip", conv(x, 3, 16, 3, s=2), 0.0, 6.0), 0.03)
    z = fake(n("Clip", conv(y, 16, 16, 3, g=16), 0.0, 6.0), 0.03)
    z = fake(n("Add", y, fake(conv(z, 16, 16, 1), 0.04)), 0.05)
    z = fake(n("GlobalAveragePool", z), 0.02)
    w = n(
        "DequantizeLinear",
        n.const(r.integers(-64, 64, (10, 16)).astype(np.int8)),
        n.const(np.array(0.01, F)),
        n.const(np.array(0, np.int8)),
    )
    z = n("Gemm", n("Flatten", z), w, n.weight(10, scale=0.1), transB=1)
    return n.model(fake(z, 0.05)), n.values


NETS = {
    f.__name__: f
    for f in (
        quantised_resnet,
        quantised_bert,
        qdq_mobile,
    )
}
