"""Layers of models that NNCF quantised to 8 bits, for `ovjit.tools.ship`.

Convolutions and matrix products read FakeQuantize, and weights are i8 times a scale by output channel. Ranges
are signed (-128 to 127 steps), unsigned after rectifiers, or asymmetric around a whole zero point. Ranges
before a depthwise convolution are by channel. Ends of ranges are numbers that no two models share, so that
kernels read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import ovjit as ov
from ovjit.tools.layers_networks import learnt, pool, real

o = ov.opset13
Layer = Callable[[Any], Any]
#: Steps below zero of the three kinds of ranges.
SIGNED, UNSIGNED, ASYMMETRIC = 128, 0, 117


class Quantised:
    """Builds one model. `below`: the kind of ranges of what may be negative. `step`: of the first one."""

    def __init__(self, below: int = SIGNED, step: float = 0.0117):
        self.below = below
        self.step = step

    def ranged(self, x: Any, below: int | None = None, channels: int = 0, step: float = 0) -> Any:
        """FakeQuantize with 256 levels, `step` apart or a new number; by channel of an image where `channels`
        is given."""
        below = self.below if below is None else below
        self.step = step or self.step * 1.013
        steps = real(1, channels, 1, 1, value=self.step) if channels else np.float32(self.step)
        ends = [np.asarray(level * steps, np.float32) for level in (-below, 255 - below)]
        return o.fake_quantize(x, *ends, *ends, 256)

    def weights(self, *shape: int) -> Any:
        """i8 times a scale for each of the first dimension."""
        stored = o.constant(np.ones(shape, np.int8))
        return o.multiply(o.convert(stored, "f32"), real(shape[0], *[1] * (len(shape) - 1)))

    def conv(self, x: Any, ins: int, outs: int, size: int = 1, stride: int = 1, dilation: int = 1) -> Any:
        pads = [size // 2 * dilation] * 2
        y = o.convolution(x, self.weights(outs, ins, size, size), [stride] * 2, pads, pads, [dilation] * 2)
        return o.add(y, real(1, outs, 1, 1))

    def depthwise(self, x: Any, wide: int, size: int = 3, stride: int = 1) -> Any:
        pads = [size // 2] * 2
        kernels = self.weights(wide, 1, 1, size, size)
        y = o.group_convolution(x, kernels, [stride] * 2, pads, pads, [1, 1])
        return o.add(y, real(1, wide, 1, 1))

    def linear(self, x: Any, ins: int, outs: int) -> Any:
        return o.add(o.matmul(x, self.weights(outs, ins), False, True), real(outs))


#: name -> (function, kind of the range of its result; None: as the model has it).
ACTIVATIONS: dict[str, tuple[Layer, int | None]] = {
    "none": (lambda x: x, None),
    "relu": (o.relu, UNSIGNED),
    "relu6": (lambda x: o.clamp(x, 0.0, 6.0), UNSIGNED),
    "swish": (o.swish, None),
    "hswish": (o.hswish, None),
    "leaky": (lambda x: o.prelu(x, real(1, value=0.1)), None),
    "gelu": (o.gelu, None),
}


def _plain(x: Any, ins: int, outs: int) -> Any:
    """A convolution that is not quantised, as those of one pixel."""
    y = o.convolution(x, real(outs, ins, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    return o.add(y, real(1, outs, 1, 1))


#: A step of ranges that are wider than what a clamp at 6 leaves: with lower ones it changes nothing.
WIDE = 0.0241


def _convolutional(name: str, below: int, stem: int, step: float = 0.0117) -> Any:
    """Stem, plain and depthwise convolutions, residual additions, pools, and a classifier."""
    q = Quantised(below, step)
    function, kind = ACTIVATIONS[name]
    image = o.parameter([1, 3, 112, 112], np.float32)

    def act(x: Any, channels: int = 0) -> Any:
        return q.ranged(function(x), kind, channels)

    x = act(q.conv(q.ranged(image), 3, 32, stem, 2), 32)
    x = q.ranged(q.conv(act(q.depthwise(x, 32)), 32, 64))
    for size, stride in ((3, 1), (1, 1), (3, 2), (1, 2)):
        x = act(q.conv(x, 64, 64, size, stride))
    middle = x  # 14 x 14
    for size, stride in ((3, 1), (3, 2), (5, 1)):
        grown = act(q.conv(x, 64, 64), 64)
        x = q.ranged(q.conv(act(q.depthwise(grown, 64, size, stride)), 64, 64))
    x = q.ranged(o.add(x, q.ranged(q.conv(x, 64, 64))))
    x = act(o.add(x, q.ranged(q.conv(x, 64, 64, 3))))
    x = act(o.add(x, q.ranged(q.conv(x, 64, 64))))
    x = act(o.add(q.ranged(q.conv(x, 64, 64)), x))
    x = act(o.add(q.ranged(q.conv(act(q.conv(x, 64, 64)), 64, 64)), q.ranged(q.conv(x, 64, 64))))
    small = x  # 7 x 7
    for most, size, stride in ((True, 3, 2), (True, 2, 2), (False, 3, 1)):
        x = act(q.conv(pool(x, size, stride, most), 64, 64))
    tails: list[Layer] = [
        lambda x: q.ranged(o.reduce_mean(x, np.array([2, 3]), True), kind),
        lambda x: q.ranged(o.avg_pool(x, [1, 1], [0, 0], [0, 0], [7, 7], False), kind),
        lambda x: q.ranged(o.reduce_mean(x, np.array([2, 3]), False), kind),
        lambda x: o.reduce_mean(x, np.array([2, 3]), True),
    ]
    outputs = []
    for tail in tails:
        # the last one's mean has so many elements that several threads share it
        start, wide = (middle, 1024) if tail is tails[-1] else (small, 64)
        row = o.reshape(tail(act(q.conv(start, 64, wide))), np.array([1, wide]), False)
        outputs.append(o.softmax(row if tail is tails[-1] else q.linear(row, 64, 48), 1))
    return ov.Model([*outputs, function(q.conv(x, 64, 64))], [image], "quantised")


def _squeezed(name: str, below: int, whole: bool = False) -> Any:
    """Squeeze and excitation of EfficientNet and MobileNetV3, and a mean without kept dimensions. `whole`:
    the gates are quantised, too."""
    q = Quantised(below)
    function, kind = ACTIVATIONS[name]
    image = o.parameter([1, 3, 56, 56], np.float32)
    x = q.ranged(function(q.conv(q.ranged(image), 3, 32, 3, 2)), kind, 32)
    for size, stride, gate in ((3, 1, o.sigmoid), (5, 2, o.sigmoid), (3, 2, o.hsigmoid)):
        x = q.ranged(function(q.depthwise(x, 32, size, stride)), kind)
        inner = o.relu if gate is o.hsigmoid else function
        mean = o.reduce_mean(x, np.array([2, 3]), True)
        if whole:
            few = q.ranged(inner(q.conv(q.ranged(mean, kind), 32, 8)), UNSIGNED if inner is o.relu else kind)
            gates = q.ranged(gate(q.conv(few, 8, 32)), UNSIGNED)
        else:
            gates = q.ranged(gate(_plain(inner(_plain(mean, 32, 8)), 8, 32)), UNSIGNED)
        x = q.ranged(q.conv(q.ranged(o.multiply(x, gates), kind), 32, 32))
        x = q.ranged(function(q.conv(x, 32, 32)), kind, 32)
    mean = q.ranged(o.reduce_mean(x, np.array([2, 3]), False), kind)
    return ov.Model([q.linear(mean, 32, 48)], [image], "squeezed")


def _paddle(below: int) -> Any:
    """PaddleOCR's blocks: learnt scales and offsets, hard swishes of several operations, gates."""
    q = Quantised(below)
    image = o.parameter([-1, 3, 48, -1], np.float32)

    def act(x: Any, channels: int = 0) -> Any:
        x = q.ranged(learnt(x))
        clipped = q.ranged(o.clamp(o.add(x, np.float32(3)), 0.0, 6.0), UNSIGNED)
        return q.ranged(learnt(o.divide(o.multiply(x, clipped), np.float32(6))), UNSIGNED, channels)

    def gated(x: Any) -> Any:
        mean = q.ranged(o.reduce_mean(x, np.array([2, 3]), True))
        few = q.ranged(o.relu(q.conv(mean, 32, 8)), UNSIGNED)
        gate = o.hard_sigmoid(q.conv(few, 8, 32), np.float32(1 / 6), np.float32(0.5))
        return q.ranged(o.multiply(x, q.ranged(gate, UNSIGNED)))

    x = q.ranged(q.conv(q.ranged(image), 3, 32, 3, 2), channels=32)
    for size, stride, gate in ((3, 1, False), (3, 2, True), (5, 1, False), (5, 2, True), (5, 1, True)):
        y = q.depthwise(x, 32, size, stride)
        y = act(y) if stride == 1 else q.ranged(learnt(y))
        y = gated(y) if gate else y
        x = act(q.conv(y, 32, 32), 32)
    x = q.ranged(o.avg_pool(x, [3, 2], [0, 0], [0, 0], [3, 2], True))
    x = q.ranged(o.swish(q.conv(x, 32, 32, 3)))
    row = q.ranged(o.reduce_mean(x, np.array([2]), False))
    row = q.linear(o.transpose(row, np.array([0, 2, 1])), 32, 97)
    return ov.Model([o.softmax(row, 2)], [image], "paddle")


def _branching(name: str, below: int) -> Any:
    """Concatenations, splits, shuffles, enlarged maps and outputs of detectors and segmenters."""
    q = Quantised(below)
    function, kind = ACTIVATIONS[name]
    image = o.parameter([1, 3, 224, 224], np.float32)

    def step(x: Any, ins: int, outs: int, size: int = 1, stride: int = 1) -> Any:
        return q.ranged(function(q.conv(x, ins, outs, size, stride)), kind)

    def nearest(x: Any) -> Any:
        scales, axes = np.array([2, 2], np.float32), np.array([2, 3])
        return o.interpolate(
            x, scales, "nearest", "scales", axes=axes, coordinate_transformation_mode="asymmetric"
        )

    x = step(step(q.ranged(image), 3, 32, 3, 2), 32, 64, 3, 2)
    x = step(step(x, 64, 64, 1), 64, 64)
    shared = q.step  # what is concatenated has one range
    first, second = o.split(x, np.int64(1), 2).outputs()
    y = step(step(second, 32, 32, 3), 32, 32, 3)
    third = q.ranged(o.add(second, y), step=shared)
    y = step(step(third, 32, 32, 3), 32, 32, 3)
    x = step(o.concat([first, second, third, q.ranged(o.add(third, y), step=shared)], 1), 128, 64)
    deep = step(x, 64, 64, 3, 2)
    pooled = [deep]
    for _ in range(2):
        pooled.append(pool(pooled[-1], 5, 1))
    deep = step(o.concat(pooled, 1), 192, 128)
    deep = step(step(deep, 128, 128, 3), 128, 128, 3)  # large enough for Winograd's algorithm
    for result in (q.ranged(function(q.conv(deep, 128, 128, 3))), q.ranged(q.conv(deep, 128, 128, 3))):
        deep = q.ranged(o.add(result, q.ranged(function(q.conv(deep, 128, 128, 3)))), kind)
    plain = [function(q.conv(deep, 128, 128, 3)), o.reduce_mean(deep, np.array([2, 3]), True)]
    plain.append(_plain(plain[-1], 128, 8))
    deep = step(deep, 128, 64)
    x = step(o.concat([nearest(deep), x], 1), 128, 64)
    kept = q.ranged(function(q.conv(x, 64, 64, 3)))  # read by a pool and, later, by a concatenation
    low = step(step(pool(kept, 2, 2), 64, 64, 3), 64, 64, 3)
    low = q.ranged(q.conv(q.ranged(nearest(low), kind), 64, 64, 3))
    x = step(step(o.concat([low, kept], 1), 128, 64, 3), 64, 64, 3)
    x = step(
        o.concat([step(x, 64, 32), step(step(x, 64, 32), 32, 32, 3), step(pool(x, 3, 1), 64, 32)], 1), 96, 64
    )
    large = q.ranged(
        o.interpolate(x, np.array([2, 2], np.float32), "linear_onnx", "scales", axes=np.array([2, 3]))
    )
    large = step(large, 64, 32, 3)
    boxes, kinds = q.conv(step(x, 64, 64, 3), 64, 64), q.conv(step(x, 64, 64, 3), 64, 80)
    found = o.reshape(o.concat([boxes, kinds], 1), np.array([1, 144, -1]), False)
    sides, kinds = o.variadic_split(found, np.int64(1), np.array([64, 80])).outputs()
    chances = o.transpose(o.reshape(sides, np.array([1, 4, 16, -1]), False), np.array([0, 2, 1, 3]))
    steps = np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1)
    weighed = q.ranged(o.multiply(o.softmax(chances, 1), steps), UNSIGNED)
    sides = o.reduce_sum(weighed, np.array([1]), False)
    outputs = [*plain, sides, o.sigmoid(kinds), q.conv(large, 32, 2), o.sigmoid(q.conv(large, 32, 1))]
    return ov.Model(outputs, [image], "branching")


def _transformer(
    below: int, rows: int, patches: bool, before: bool, gelu: str, scaled: str, tail: str
) -> Any:
    """Two layers of BERT (sums are normalised) or ViT (`before` products), from words or `patches`. `tail`:
    what reads the last norm's first row, plainly or quantised, or its whole, "hidden"."""
    q = Quantised(below)
    wide, heads, inner = 256, 4, 512
    size = wide // heads
    mask: Any = None
    inputs: list[Any]
    if patches:
        inputs = [o.parameter([1, 3, 56, 56], np.float32)]
        y = o.convolution(q.ranged(inputs[0]), q.weights(wide, 3, 8, 8), [8, 8], [0, 0], [0, 0], [1, 1])
        y = o.reshape(o.add(y, real(1, wide, 1, 1)), np.array([1, wide, 49]), False)
        x = o.add(o.concat([real(1, 1, wide), o.transpose(y, np.array([0, 2, 1]))], 1), real(1, 50, wide))
        rows = 50
    else:
        inputs = [o.parameter([1, rows], np.int64) for _ in "ab"]
        x = o.add(o.gather(q.weights(256, wide), inputs[0], np.int64(0)), real(1, rows, wide))
        seen = o.unsqueeze(q.ranged(o.convert(inputs[1], "f32"), UNSIGNED, step=1 / 255), np.array([1, 2]))
        hidden = o.multiply(o.subtract(np.float32(1), seen), np.float32(-10000))
        mask = q.ranged(hidden, UNSIGNED if scaled == "divide" else None)
    x = q.ranged(x)

    def layer_norm(x: Any) -> Any:
        y = o.mvn(x, np.array([-1]), True, 1e-5, "INSIDE_SQRT")
        return o.add(o.multiply(y, real(wide)), real(wide))

    def norm(x: Any) -> Any:
        return q.ranged(layer_norm(x))

    def split(x: Any) -> Any:
        return o.transpose(o.reshape(x, np.array([0, 0, heads, size]), True), np.array([0, 2, 1, 3]))

    def attended(y: Any) -> Any:
        a, b, c = (split(q.ranged(q.linear(y, wide, wide))) for _ in "abc")
        if scaled == "sdpa":
            z = o.scaled_dot_product_attention(a, b, c, *([] if mask is None else [mask]))
        else:
            products = o.matmul(a, b, False, True)
            factor = np.float32(size**0.5)
            logits = o.divide(products, factor) if scaled == "divide" else o.multiply(products, 1 / factor)
            logits = logits if mask is None else o.add(q.ranged(logits), mask)
            z = o.matmul(q.ranged(o.softmax(logits, -1), UNSIGNED), c, False, False)
        z = o.reshape(o.transpose(q.ranged(z), np.array([0, 2, 1, 3])), np.array([0, 0, wide]), True)
        return q.ranged(q.linear(z, wide, wide))

    x = x if before else norm(x)
    for _ in range(2):
        x = q.ranged(o.add(x, attended(norm(x) if before else x)))
        x = x if before else norm(x)
        y = q.ranged(o.gelu(q.linear(norm(x) if before else x, wide, inner), gelu))
        added = q.ranged(o.add(x, q.ranged(q.linear(y, inner, wide))))
        x = added if before else norm(added)
    last = layer_norm(added)
    if tail == "hidden":
        return ov.Model([last, q.linear(norm(added), wide, 256)], inputs, "transformer")
    first = o.gather(last if tail == "plain" else q.ranged(last), np.int64(0), np.int64(1))
    result = q.linear(first, wide, 256)
    return ov.Model([o.tanh(result) if tail == "pooled" else result], inputs, "transformer")


def _smoothed(below: int) -> Any:
    """A layer before whose products channels are scaled so that they have like ranges."""
    q, wide = Quantised(below), 64
    start = x = o.parameter([-1, -1, wide], np.float32)
    for act in (o.gelu, o.relu, o.swish):
        y = o.mvn(x, np.array([-1]), True, 1e-5, "INSIDE_SQRT")
        y = o.add(o.multiply(y, real(wide)), real(wide))
        y = act(q.linear(q.ranged(o.multiply(y, real(wide))), wide, 2 * wide))
        x = o.add(x, q.linear(q.ranged(o.multiply(y, real(2 * wide))), 2 * wide, wide))
    mean = q.ranged(o.reduce_mean(x, np.array([1]), False))
    last = q.linear(q.ranged(o.multiply(x, real(wide))), wide, 48)
    return ov.Model([last, q.linear(mean, wide, 48)], [start], "smoothed")


def quantised() -> Iterator[Any]:
    """All of them, the commonest first."""
    kinds: Sequence[int] = (SIGNED, ASYMMETRIC)
    for below in kinds:
        for name in ("relu", "relu6", "swish", "none"):
            yield _convolutional(name, below, 7 if name == "relu" else 3)
        yield _convolutional("relu6", below, 3, WIDE)
        for name in ("relu", "swish"):
            yield _branching(name, below)
        for patches, before, scaled in (
            (False, False, "divide"),
            (False, False, "sdpa"),
            (True, True, "multiply"),
            (True, True, "sdpa"),
        ):
            for tail in ("plain", "pooled", "quantised") if scaled != "sdpa" else ("hidden",):
                yield _transformer(below, 32, patches, before, "erf", scaled, tail)
        for name in ("swish", "hswish"):
            yield _squeezed(name, below)
            yield _squeezed(name, below, True)
        yield _smoothed(below)
        yield _paddle(below)
    for below in kinds:
        for name in ("hswish", "leaky", "gelu"):
            yield _convolutional(name, below, 3)
        yield _branching("leaky", below)
        yield _transformer(below, 32, False, True, "tanh", "multiply", "pooled")
