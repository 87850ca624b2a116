"""Networks quantised in ONNX's way, for `ovjit.tools.ship`: QuantizeLinear and DequantizeLinear around each
layer, integer operators, and ranges that are found while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import ovjit as ov
from ovjit.tools.layers_networks import ints, layer_norm, mean, pool, real

o = ov.opset13
WIDE, HEADS = 64, 4
BYTES = np.arange(-63, 64, dtype=np.int8)
LIMITS = {"u8": (0.0, 255.0), "i8": (-128.0, 127.0)}


class Linear:
    """Integers of a kind in steps: `zero` stands for 0, and `lowest` where nothing is below 0. Each tensor
    has another scale."""

    def __init__(self, kind: str, zero: int, lowest: int | None = None):
        self.kind, self.zero = kind, np.float32(zero)
        self.lowest = self.zero if lowest is None else np.float32(lowest)
        self._scale = 0.0101

    def scale(self) -> Any:
        self._scale *= 1.0173
        return np.float32(self._scale)

    def moved(self, x: Any, above: bool = False) -> Any:
        zero = self.lowest if above else self.zero
        return o.add(x, zero) if zero else x

    def stored(self, x: Any, scale: Any, above: bool = False) -> Any:
        steps = self.moved(o.round(o.divide(x, scale), "half_to_even"), above)
        return o.convert(o.clamp(steps, *LIMITS[self.kind]), self.kind)

    def real(self, x: Any, scale: Any, above: bool = False) -> Any:
        wide, zero = o.convert(x, "f32"), self.lowest if above else self.zero
        return o.multiply(o.subtract(wide, zero) if zero else wide, scale)

    def ranged(self, x: Any, above: bool = False) -> Any:
        """`above`: nothing in x is below 0."""
        scale = self.scale()
        return self.real(self.stored(x, scale, above), scale, above)

    def weights(self, *shape: int, whole: bool = False) -> Any:
        """Filters of bytes by channel, or with one scale for all."""
        each = (shape[0], *[1] * (len(shape) - 1))
        steps = o.convert(o.constant(np.resize(BYTES, shape)), "f32")
        return o.multiply(steps, np.float32(0.003) if whole else real(*each, value=0.002))

    def conv(self, x: Any, ins: int, outs: int, size: int = 1, stride: int = 1, groups: int = 1) -> Any:
        window = ([stride] * 2, [size // 2] * 2, [size // 2] * 2, [1, 1])
        bias = real(1, outs, 1, 1)
        if groups == 1:
            return o.add(o.convolution(x, self.weights(outs, ins, size, size), *window), bias)
        apart = ints(groups, outs // groups, 1, size, size)
        weights = o.reshape(self.weights(outs, 1, size, size), apart, False)
        return o.add(o.group_convolution(x, weights, *window), bias)

    def linear(self, x: Any, ins: int, outs: int) -> Any:
        return o.add(o.matmul(x, self.weights(outs, ins, whole=True), False, True), real(outs))


def _hard_sigmoid(x: Any) -> Any:
    return o.hard_sigmoid(x, np.float32(1 / 6), np.float32(0.5))


ACTIVATIONS: dict[str, Callable[[Linear, Any], Any]] = {
    "none": lambda q, x: x,
    "relu": lambda q, x: o.relu(x),
    "relu6": lambda q, x: o.clamp(x, 0.0, 6.0),
    "hswish": lambda q, x: o.hswish(x),
    "swish": lambda q, x: o.multiply(x, o.sigmoid(x)),
    "gate": lambda q, x: o.multiply(x, q.ranged(o.sigmoid(x), True)),
    "hard": lambda q, x: o.multiply(x, q.ranged(_hard_sigmoid(x), True)),
}
#: Those whose values are not below 0; those before which the sums are stored, too, and those before which
#: only symmetric ranges are.
ABOVE, APART, APART_SYMMETRIC = ("relu", "relu6"), ("swish", "gate", "hard"), ("relu", "relu6")


def _convolutional(q: Linear, name: str, apart: bool) -> Any:
    """Blocks with sums, depthwise filters and gates, pools and a classifier. `apart`: what comes before an
    activation is stored, too."""
    start = o.parameter([-1, 3, 32, 32], np.float32)
    act, above = ACTIVATIONS[name], name in ABOVE

    def layer(x: Any, *window: int) -> Any:
        y = q.conv(x, *window)
        return q.ranged(act(q, q.ranged(y) if apart else y), above)

    def gated(x: Any, gate: Callable[[Any], Any]) -> Any:
        few = q.ranged(o.relu(q.conv(q.ranged(mean(x), above), 32, 8)), True)
        logits = q.conv(few, 8, 32)
        gates = q.ranged(gate(q.ranged(logits) if apart else logits), True)
        return q.ranged(o.multiply(x, gates), above)

    x = layer(q.ranged(start), 3, 32, 3, 2)
    y = q.ranged(q.conv(layer(layer(x, 32, 32), 32, 32, 3, 1, 32), 32, 32))
    x = q.ranged(o.add(y, x))
    y = q.ranged(q.conv(layer(x, 32, 32, 3), 32, 32))
    x = q.ranged(o.relu(o.add(q.ranged(q.conv(x, 32, 32)), y)), True)
    for _ in range(2):  # read by a sum and by the next layer
        x = q.ranged(o.relu(o.add(q.ranged(q.conv(layer(x, 32, 32), 32, 32, 3)), x)), True)
    x = q.ranged(q.conv(pool(x, 3, 2), 32, 32))
    for _ in range(2):
        x = q.ranged(o.add(q.ranged(q.conv(layer(x, 32, 32), 32, 32)), x))
    if not apart:  # the largest kernels by far, and these are rare
        x = layer(layer(x, 32, 32, 3, 2, 32), 32, 32, 5, 1, 32)
    x = gated(layer(x, 32, 32, 3, 1, 32), o.sigmoid)
    x = gated(layer(x, 32, 32, 5, 1, 32), _hard_sigmoid)
    x = layer(q.ranged(o.concat([x, layer(x, 32, 32)], 1)), 64, 64)
    row = o.reshape(q.ranged(mean(x), above), ints(0, -1), True)
    logits = q.linear(row, 64, 48)
    return ov.Model([q.ranged(logits), logits], [start], "linear")


def _requantized(q: Linear) -> Any:
    """Integer operators: sums of bytes times the ratio of scales, rounded, between bytes."""
    start = o.parameter([-1, 3, 32, 32], np.float32)

    def rounded(x: Any) -> Any:
        return o.convert(o.clamp(q.moved(o.round(x, "half_to_even")), *LIMITS[q.kind]), q.kind)

    def shifted(x: Any) -> Any:
        wide = o.convert(x, "f32")
        return o.subtract(wide, q.zero) if q.zero else wide

    def layer(x: Any, ins: int, outs: int, size: int = 1, stride: int = 1) -> Any:
        weights = o.convert(o.constant(np.resize(BYTES, (outs, ins, size, size))), "f32")
        pads = [size // 2] * 2
        y = o.convolution(shifted(x), weights, [stride] * 2, pads, pads, [1, 1])
        y = o.add(y, np.arange(outs, dtype=np.float32).reshape(1, outs, 1, 1))
        return rounded(o.multiply(y, real(1, outs, 1, 1, value=0.003)))

    x = layer(q.stored(start, q.scale()), 3, 32, 3, 2)
    x = o.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)
    y = layer(layer(x, 32, 32, 3), 32, 32)
    x = q.stored(o.add(q.real(y, q.scale()), q.real(x, q.scale())), q.scale())
    one, other = (q.stored(q.real(each, q.scale()), q.scale()) for each in (x, layer(x, 32, 32)))
    x = o.concat([one, other], 1)
    row = q.stored(o.reshape(mean(q.real(x, q.scale())), ints(0, -1), True), q.scale())
    weights = o.convert(o.constant(np.resize(BYTES, (64, 48))), "f32")
    y = o.matmul(shifted(row), weights, False, False)
    plain = rounded(o.multiply(y, np.float32(0.003)))
    y = rounded(o.multiply(o.add(y, np.arange(48, dtype=np.float32)), np.float32(0.003)))
    return ov.Model([q.real(each, q.scale()) for each in (y, plain)], [start], "requantized")


def _attended(x: Any, linear: Callable[[Any, int, int], Any], ranged: Callable[[Any], Any]) -> Any:
    """A layer of an encoder whose products are what `linear` makes, and their results what `ranged` does."""

    def split(y: Any) -> Any:
        apart = o.reshape(ranged(y), ints(0, -1, HEADS, WIDE // HEADS), True)
        return o.transpose(apart, ints(0, 2, 1, 3))

    a, b, c = (split(linear(x, WIDE, WIDE)) for _ in "abc")
    scores = ranged(o.multiply(o.matmul(a, b, False, True), np.float32(0.3)))
    z = ranged(o.matmul(ranged(o.softmax(scores, -1)), c, False, False))
    z = o.reshape(o.transpose(z, ints(0, 2, 1, 3)), ints(0, -1, WIDE), True)
    x = ranged(layer_norm(o.add(x, linear(z, WIDE, WIDE)), WIDE))
    y = linear(ranged(o.gelu(linear(x, WIDE, 2 * WIDE))), 2 * WIDE, WIDE)
    return ranged(layer_norm(o.add(x, ranged(y)), WIDE))


def _encoder(q: Linear) -> Any:
    start = o.parameter([-1, -1, WIDE], np.float32)
    made = _attended(q.ranged(start), q.linear, q.ranged)
    return ov.Model([made, o.tanh(q.linear(made, WIDE, WIDE))], [start], "linear")


def _dynamic(fused: bool, offset: bool) -> Any:
    """An encoder of which each product finds the range of its rows. `fused`: the sums are scaled by one
    number, the product of both scales. `offset`: there is a bias."""
    start = o.parameter([-1, -1, WIDE], np.float32)
    zero = np.float32(0)

    def stored(x: Any) -> tuple[Any, Any, Any]:
        axes = ints(*range(len(x.output(0).partial_shape)))
        top = o.maximum(o.reduce_max(x, axes, False), zero)
        low = o.minimum(o.reduce_min(x, axes, False), zero)
        scale = o.divide(o.subtract(top, low), np.float32(255))
        safe = o.select(o.equal(scale, zero), np.float32(1), scale)
        steps = o.round(o.divide(o.negative(low), safe), "half_to_even")
        point = o.convert(o.clamp(steps, 0.0, 255.0), "u8")
        steps = o.add(o.round(o.divide(x, safe), "half_to_even"), o.convert(point, "f32"))
        return o.convert(o.clamp(steps, 0.0, 255.0), "u8"), scale, point

    def linear(x: Any, ins: int, outs: int) -> Any:
        whole, scale, point = stored(x)
        weights = o.convert(o.constant(np.resize(BYTES, (ins, outs))), "f32")
        sums = o.matmul(o.subtract(o.convert(whole, "f32"), o.convert(point, "f32")), weights, False, False)
        if not fused:
            sums = o.convert(o.convert(sums, "i32"), "f32")
        y = o.multiply(sums, o.multiply(scale, np.float32(0.005)))
        return o.add(y, real(outs)) if offset else y

    return ov.Model([_attended(start, linear, lambda x: x)], [start], "dynamic")


def linear_quantised() -> Iterator[Any]:
    """All of them, the commonest first."""
    few = ("none", "relu", "gate")
    kinds = (("u8", 128, 128, tuple(ACTIVATIONS)[:5]), ("i8", 0, 0, (*few, "relu6", "hard")),
             ("i8", -5, -128, (*few, "hard")), ("u8", 121, 0, few))  # fmt: skip
    for kind, zero, lowest, names in kinds:
        for name in names:
            yield _convolutional(Linear(kind, zero, lowest), name, name in APART)
            if name in APART_SYMMETRIC and not zero:
                yield _convolutional(Linear(kind, zero, lowest), name, True)
        yield _requantized(Linear(kind, zero))
        yield _encoder(Linear(kind, zero))
    for fused in (False, True):
        for offset in (True, False):
            yield _dynamic(fused, offset)
