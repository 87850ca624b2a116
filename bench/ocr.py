"""Text recognition in the forms of PaddleOCR's mobile models, with seeded random weights.

A recogniser of lines, a detector of lines and a classifier of their orientation, built as those of
`bench.transformers` are. Batch and sizes are open, and letters are the 6,623 of its Chinese model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.transformers import Net

LETTERS = 6625
#: Blocks of the backbones: outputs, size of the window, stride, gate.
NARROW = ((32, 3, (1, 1), False), (64, 3, (2, 1), False), (64, 3, (1, 1), False), (128, 5, (1, 2), True),
          (128, 5, (1, 1), False), (240, 5, (2, 1), True), (240, 5, (1, 1), True))  # fmt: skip
EVEN = ((24, 3, (1, 1), False), (48, 3, (2, 2), False), (48, 3, (1, 1), False), (96, 5, (2, 2), False),
        (96, 5, (1, 1), False), (192, 5, (2, 2), True), (192, 5, (1, 1), True))  # fmt: skip


class Paddle:
    """Layers in the form that Paddle's exporter gives them."""

    def __init__(self, net: Net):
        self.net, self.ops = net, net.ops

    def conv(
        self, x: Any, ins: int, outs: int, size: int = 1, stride: tuple[int, int] = (1, 1), groups: int = 1
    ) -> Any:
        net, ops, pads = self.net, self.ops, [size // 2] * 2
        window = (list(stride), pads, pads, [1, 1])
        if groups == 1:
            y = ops.convolution(x, net.weights(outs, ins, size, size, gain=1.4), *window)
        else:
            shape = (groups, outs // groups, ins // groups, size, size)
            y = ops.group_convolution(x, net.weights(*shape, gain=1.4, fan=size * size), *window)
        return ops.add(y, net.const(net.rng.standard_normal((1, outs, 1, 1), np.float32) * 0.05))

    def hard_swish(self, x: Any) -> Any:
        net, ops = self.net, self.ops
        return ops.divide(ops.multiply(x, ops.clamp(ops.add(x, net.const(3.0)), 0.0, 6.0)), net.const(6.0))

    def affine(self, x: Any) -> Any:
        """A learnt scale and a learnt offset of a whole map."""
        net, ops = self.net, self.ops
        scale, offset = (net.const(net.rng.uniform(0.5, 1, 1).astype(np.float32)) for _ in "ab")
        return ops.add(ops.multiply(x, scale), offset)

    def gate(self, x: Any, wide: int) -> Any:
        """A gate for each channel: squeeze and excitation."""
        ops = self.ops
        few = ops.relu(self.conv(ops.reduce_mean(x, self.net.ints(2, 3), True), wide, wide // 4))
        return ops.hard_sigmoid(self.conv(few, wide // 4, wide), self.net.const(1 / 6), self.net.const(0.5))

    def block(self, x: Any, ins: int, outs: int, size: int, stride: tuple[int, int], gated: bool) -> Any:
        """A depthwise and a pointwise convolution, each with affine maps around the activation."""
        y = self.affine(self.conv(x, ins, ins, size, stride, ins))
        y = self.affine(self.hard_swish(y)) if stride == (1, 1) else y
        y = self.ops.multiply(y, self.gate(y, ins)) if gated else y
        return self.affine(self.hard_swish(self.affine(self.conv(y, ins, outs))))

    def maps(self, image: Any, blocks: tuple) -> list[tuple[Any, int]]:
        """The results of the blocks, and their channels."""
        x, ins = self.conv(image, 3, 16, 3, (2, 2)), 16
        found = []
        for outs, size, stride, gated in blocks:
            x, ins = self.block(x, ins, outs, size, stride, gated), outs
            found.append((x, ins))
        return found

    def enlarged(self, x: Any, times: int) -> Any:
        scales = self.net.const([float(times)] * 2)
        return self.ops.interpolate(
            x, scales, "nearest", "scales", axes=self.net.ints(2, 3),
            coordinate_transformation_mode="asymmetric",
        )  # fmt: skip


def _mixing(net: Net, x: Any, wide: int, heads: int) -> Any:
    """A layer of attention over [B, L, wide], whose products are one."""
    ops = net.ops
    apart = net.ints(0, -1, 3, heads, wide // heads)
    parts = ops.reshape(net.linear(net.layer_norm(x, wide), wide, 3 * wide), apart, True)
    parts = ops.transpose(parts, net.ints(2, 0, 3, 1, 4))
    q, k, v = (ops.gather(parts, net.const(i, np.int64), net.const(0, np.int64)) for i in range(3))
    q = ops.multiply(q, net.const(float((wide // heads) ** -0.5)))
    seen = ops.softmax(ops.matmul(q, ops.transpose(k, net.ints(0, 1, 3, 2)), False, False), -1)
    z = ops.reshape(
        ops.transpose(ops.matmul(seen, v, False, False), net.ints(0, 2, 1, 3)), net.ints(0, -1, wide), True
    )
    x = ops.add(x, net.linear(z, wide, wide, gain=0.5))
    y = ops.swish(net.linear(net.layer_norm(x, wide), wide, 2 * wide))
    return ops.add(x, net.linear(y, 2 * wide, wide, gain=0.5))


def recogniser(net: Net) -> Any:
    """[n, 3, 48, w] -> chances of letters, [n, w / 8, LETTERS]"""
    paddle, ops, wide = Paddle(net), net.ops, 120
    image = ops.parameter(net.ov.PartialShape([-1, 3, 48, -1]), np.float32, name="x")
    x, ins = paddle.maps(image, NARROW)[-1]
    x = ops.avg_pool(x, [3, 2], [0, 0], [0, 0], [3, 2], True)
    start = x
    y = ops.swish(paddle.conv(ops.swish(paddle.conv(x, ins, ins // 8, 3)), ins // 8, wide))
    shape = ops.shape_of(y, "i64")
    rows = ops.transpose(ops.reshape(y, net.ints(0, wide, -1), True), net.ints(0, 2, 1))
    for _ in range(2):
        rows = _mixing(net, rows, wide, 8)
    rows = net.layer_norm(rows, wide)
    y = ops.reshape(ops.transpose(rows, net.ints(0, 2, 1)), shape, False)
    y = ops.concat([start, ops.swish(paddle.conv(y, wide, ins))], 1)
    y = ops.swish(paddle.conv(ops.swish(paddle.conv(y, 2 * ins, ins // 8, 3)), ins // 8, wide))
    y = ops.reduce_mean(y, net.ints(2), False)
    y = net.linear(ops.transpose(y, net.ints(0, 2, 1)), wide, LETTERS)
    return net.model([ops.softmax(y, 2)], [image], "ocr-rec")


def detector(net: Net) -> Any:
    """[n, 3, h, w] -> chances that a pixel is text"""
    paddle, ops, wide = Paddle(net), net.ops, 96
    image = ops.parameter(net.ov.PartialShape([-1, 3, -1, -1]), np.float32, name="x")
    found = [paddle.maps(image, EVEN)[i] for i in (0, 2, 4, 6)]

    def gated(x: Any, ins: int, size: int) -> Any:
        y = paddle.conv(x, ins, wide, size)
        return ops.add(y, ops.multiply(y, paddle.gate(y, wide)))

    levels = [gated(x, ins, 1) for x, ins in found]
    for i in (2, 1, 0):
        levels[i] = ops.add(levels[i], paddle.enlarged(levels[i + 1], 2))
    parts = [gated(x, wide, 3) for x in levels]
    whole = ops.concat([paddle.enlarged(x, 2**i) if i else x for i, x in reversed(list(enumerate(parts)))], 1)
    y = ops.relu(paddle.conv(whole, 4 * wide, 24, 3))
    for outs, act in ((24, ops.relu), (1, ops.sigmoid)):
        y = ops.convolution_backprop_data(y, net.weights(24, outs, 2, 2, fan=24), [2, 2])
        y = act(ops.add(y, net.const(net.rng.standard_normal((1, outs, 1, 1), np.float32) * 0.05)))
    return net.model([y], [image], "ocr-det")


def orientation(net: Net) -> Any:
    """[n, 3, 48, 192] -> chances of upright and upside down"""
    paddle, ops = Paddle(net), net.ops
    image = ops.parameter(net.ov.PartialShape([-1, 3, 48, 192]), np.float32, name="x")
    x, ins = paddle.maps(image, EVEN)[-1]
    x = ops.reshape(ops.reduce_mean(x, net.ints(2, 3), True), net.ints(0, -1), True)
    return net.model([ops.softmax(net.linear(x, ins, 2), 1)], [image], "ocr-cls")


MODELS: dict[str, Callable[[Net], Any]] = {
    "ocr-rec": recogniser, "ocr-det": detector, "ocr-cls": orientation,
}  # fmt: skip
#: Sizes of inputs that ranges are measured with.
SIZES = {"ocr-rec": (1, 3, 48, 320), "ocr-det": (1, 3, 320, 320), "ocr-cls": (1, 3, 48, 192)}
