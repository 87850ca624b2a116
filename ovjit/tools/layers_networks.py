"""Small versions of common networks, for `ovjit.tools.ship`: blocks with what stands between them.

Sizes are small, and kinds of layers those of the originals. Weights are constants without meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import ovjit as ov

o = ov.opset13


def real(*shape: int, value: float = 0.01) -> np.ndarray:
    """Numbers from `value` to twice that: equal ones would be folded to one."""
    return np.linspace(value, 2 * value, int(np.prod(shape))).astype(np.float32).reshape(shape)


def number(value: float) -> Any:
    return np.float32(value)


def tensor(*shape: int, kind: Any = np.float32) -> Any:
    return o.parameter(list(shape), kind)


def one(make: Any, *given: Any) -> Any:
    """The model of one layer."""
    return ov.Model([make(*given)], list(given), "layer")


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def stored_weights(stored: str, outs: int, ins: int) -> Any:
    """A matrix [outs, ins] of reals, or of integers with scales as they are compressed: u8 and i8 by row, u8
    with a zero point; `even`: all zero points are 128; i4 and u4 in groups of 64, u4 with zero points."""
    if stored == "f32":
        return np.zeros((outs, ins), np.float32)
    if stored == "f16":
        return o.convert(o.constant(np.zeros((outs, ins), np.float16)), "f32")
    shape = [outs, ins // 64, 64] if stored in ("i4", "u4") else [outs, 1, ins]
    points = np.arange(outs * shape[1]).reshape(outs, -1, 1).astype(np.uint8)  # not one: kernels read them
    if stored in ("i4", "u4"):
        kind = ov.Type.i4 if stored == "i4" else ov.Type.u4
        whole = o.constant(ov.Tensor(np.zeros(outs * ins // 2, np.uint8), ov.Shape(shape), kind))
        points &= 15
    else:
        whole = o.constant(np.full(shape, 100, np.int8 if stored == "i8" else np.uint8))
    if stored == "even":
        points = np.full((outs, 1, 1), 128, np.uint8)
    made = o.convert(whole, "f16")
    if stored in ("u8", "u4", "even"):
        made = o.subtract(made, o.convert(o.constant(points), "f16"))
    made = o.multiply(made, np.full((*shape[:2], 1), 0.5, np.float16))
    return o.convert(o.reshape(made, np.array([outs, ins]), False), "f32")


def image(side: int = 112, channels: int = 3, batch: int = 1) -> Any:
    return o.parameter([batch, channels, side, side], np.float32)


def conv(
    x: Any, ins: int, outs: int, size: int = 1, stride: int = 1, groups: int = 1, dilation: int = 1
) -> Any:
    pads = [size // 2 * dilation] * 2
    window = ([stride] * 2, pads, pads, [dilation] * 2)
    if groups == 1:
        return o.add(o.convolution(x, real(outs, ins, size, size), *window), real(1, outs, 1, 1))
    weights = real(groups, outs // groups, ins // groups, size, size)
    return o.add(o.group_convolution(x, weights, *window), real(1, outs, 1, 1))


def linear(x: Any, ins: int, outs: int) -> Any:
    return o.add(o.matmul(x, real(outs, ins), False, True), real(outs))


def layer_norm(x: Any, wide: int) -> Any:
    y = o.mvn(x, ints(-1), True, 1e-5, "INSIDE_SQRT")
    return o.add(o.multiply(y, real(wide, value=0.5)), real(wide))


def mean(x: Any, keep: bool = True) -> Any:
    return o.reduce_mean(x, ints(2, 3), keep)


def learnt(x: Any) -> Any:
    """With a learnt scale and offset."""
    return o.add(o.multiply(x, real(1, value=0.5)), real(1))


def paddle_hswish(x: Any) -> Any:
    """A hard swish as PaddleOCR exports it."""
    return o.divide(o.multiply(x, o.clamp(o.add(x, np.float32(3)), 0.0, 6.0)), np.float32(6))


def pool(x: Any, size: int, stride: int, most: bool = True) -> Any:
    pads = [size // 2 if size % 2 else 0] * 2
    if most:
        return o.max_pool(x, [stride] * 2, [1, 1], pads, pads, [size] * 2).output(0)
    return o.avg_pool(x, [stride] * 2, pads, pads, [size] * 2, False)


def enlarged(x: Any, mode: str = "nearest", how: str = "asymmetric") -> Any:
    scales = np.array([2, 2], np.float32)
    return o.interpolate(x, scales, mode, "scales", axes=ints(2, 3), coordinate_transformation_mode=how)


def affine(x: Any, channels: int) -> Any:
    return o.add(o.multiply(x, real(1, channels, 1, 1, value=0.5)), real(1, channels, 1, 1))


#: What follows the last map of a classifier; maps are not kept for others.
TAILS: list[Callable[[Any, int], Any]] = [
    lambda x, wide: conv(mean(x), wide, 48),
    lambda x, wide: linear(o.reshape(mean(x), ints(1, wide), False), wide, 48),
    lambda x, wide: linear(mean(x, False), wide, 48),
    lambda x, wide: linear(layer_norm(mean(x, False), wide), wide, 48),
    lambda x, wide: o.softmax(o.reshape(mean(x), ints(1, wide), False), 1),
]


def densenet(side: int, tail: Callable[[Any, int], Any]) -> Any:
    """Layers behind normalisation and a rectifier, concatenated; transitions by average pools."""
    x = start = image(side)
    x, wide = pool(o.relu(conv(x, 3, 64, 7, 2)), 3, 2), 64
    for last in (False, True):
        for _ in range(2):
            y = o.convolution(o.relu(affine(x, wide)), real(64, wide, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
            y = conv(o.relu(affine(y, 64)), 64, 32, 3)
            x, wide = o.concat([x, y], 1), wide + 32
        if not last:
            x, wide = pool(conv(o.relu(affine(x, wide)), wide, 64), 2, 2, False), 64
    x = o.relu(affine(x, wide))
    return ov.Model([tail(x, wide)], [start], "densenet")


def convnext(side: int, tail: Callable[[Any, int], Any]) -> Any:
    """Depthwise 7 x 7, layer norms over channels, a scaled branch."""
    start = image(side)
    x = o.convolution(start, real(64, 3, 4, 4), [4, 4], [0, 0], [0, 0], [1, 1])
    x = o.add(x, real(1, 64, 1, 1))

    def inner(x: Any, wide: int) -> Any:
        y = o.transpose(conv(x, wide, wide, 7, groups=wide), ints(0, 2, 3, 1))
        y = linear(o.gelu(linear(layer_norm(y, wide), wide, 2 * wide)), 2 * wide, wide)
        y = o.transpose(o.multiply(y, real(wide, value=0.1)), ints(0, 3, 1, 2))
        return o.add(x, y)

    x = o.transpose(layer_norm(o.transpose(x, ints(0, 2, 3, 1)), 64), ints(0, 3, 1, 2))
    x = inner(inner(x, 64), 64)
    y = o.transpose(layer_norm(o.transpose(x, ints(0, 2, 3, 1)), 64), ints(0, 3, 1, 2))
    y = o.add(o.convolution(y, real(128, 64, 2, 2), [2, 2], [0, 0], [0, 0], [1, 1]), real(1, 128, 1, 1))
    x = inner(y, 128)
    return ov.Model([tail(x, 128)], [start], "convnext")


def temporal() -> Any:
    """Dilated convolutions over time, with residual sums between rectifiers."""
    x = start = o.parameter([1, 32, 500], np.float32)

    def along(x: Any, ins: int, outs: int, size: int, dilation: int, stride: int = 1) -> Any:
        pads = [(size - 1) * dilation // 2]
        return o.convolution(x, real(outs, ins, size), [stride], pads, pads, [dilation])

    ins = 32
    for dilation in (1, 2):
        y = o.relu(along(x, ins, 64, 3, dilation))
        y = o.relu(along(y, 64, 64, 3, dilation))
        x, ins = o.relu(o.add(y, x if ins == 64 else along(x, ins, 64, 1, 1))), 64
    bias = real(1, 64, 1)
    y = o.gelu(o.add(along(x, 64, 64, 3, 1, 2), bias))
    y = o.swish(o.add(along(y, 64, 64, 5, 1), bias))
    gate = o.multiply(o.tanh(along(y, 64, 64, 3, 2)), o.sigmoid(along(y, 64, 64, 3, 2)))
    return ov.Model([o.add(along(x, 64, 10, 1, 1), real(1, 10, 1)), gate], [start], "temporal")


def residual(act: Callable[[Any], Any], before: bool = False) -> Any:
    """Blocks with the activation behind the sum; grouped, dilated and 5 x 5 convolutions; a gate."""
    start = image()
    x = pool(act(conv(start, 3, 64, 3, 2)), 3, 2)
    for groups, size, dilation in (
        (1, 3, 1),
        (2, 3, 1),
        (8, 3, 1),
        (64, 3, 1),
        (64, 5, 1),
        (64, 3, 2),
        (1, 3, 2),
    ):
        y = act(conv(act(conv(x, 64, 64)), 64, 64, size, 1, groups, dilation))
        y = conv(y, 64, 64)
        gate = o.sigmoid(conv(act(conv(mean(y), 64, 16)), 16, 64))
        hard = o.hsigmoid(conv(o.relu(conv(mean(y), 64, 16)), 16, 64))
        x = act(o.add(x, y)) if not before else o.add(x, o.multiply(y, gate))
        x = act(o.add(o.multiply(y, hard), x)) if groups == 8 else x
    x = act(o.add(conv(x, 64, 128, 1, 2), conv(act(conv(x, 64, 64, 3, 2)), 64, 128)))
    x = act(o.add(act(conv(x, 128, 128, 3)), x))
    x = o.concat([act(conv(x, 128, 32)), act(conv(x, 128, 32, 3)), act(conv(pool(x, 3, 1), 128, 32))], 1)
    row = o.reshape(mean(x), ints(1, 96), False)
    return ov.Model([o.softmax(linear(row, 96, 48), -1), mean(x, False)], [start], "residual")


def detector(act: Callable[[Any], Any]) -> Any:
    """Splits, enlarged maps, pools beside each other; boxes by a softmax, and by offsets and anchors."""
    start = image(128)
    x = act(conv(act(conv(start, 3, 32, 3, 2)), 32, 64, 3, 2))
    first, second = o.split(x, np.int64(1), 2).outputs()
    y = o.add(second, act(conv(act(conv(second, 32, 32, 3)), 32, 32, 3)))
    x = act(conv(o.concat([first, second, y], 1), 96, 64))
    deep = act(conv(x, 64, 64, 3, 2))
    deep = act(conv(o.concat([deep, pool(deep, 5, 1), pool(deep, 9, 1), pool(deep, 13, 1)], 1), 256, 64))
    x = act(conv(o.concat([enlarged(deep), x], 1), 128, 64))
    x = o.add(x, enlarged(conv(deep, 64, 64)))
    found = o.concat([conv(act(conv(x, 64, 64, 3)), 64, 64), conv(act(conv(x, 64, 64, 3)), 64, 80)], 1)
    sides, kinds = o.variadic_split(
        o.reshape(found, ints(1, 144, -1), False), np.int64(1), ints(64, 80)
    ).outputs()
    logits = o.transpose(o.reshape(sides, ints(1, 4, 16, -1), False), ints(0, 2, 1, 3))
    steps = np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1)
    summed = o.reduce_sum(o.multiply(o.softmax(logits, 1), steps), ints(1), False)
    weighed = o.convolution(o.softmax(logits, 1), steps, [1, 1], [0, 0], [0, 0], [1, 1])
    low, high = o.split(summed, np.int64(1), 2).outputs()
    places = real(1, 2, 1024)
    corner, other = o.subtract(places, low), o.add(places, high)
    boxes = o.concat([o.divide(o.add(corner, other), np.float32(2)), o.subtract(other, corner)], 1)
    boxes = o.multiply(boxes, real(1, 1, 1024, value=8))
    raw = o.transpose(o.reshape(conv(x, 64, 255), ints(1, 3, 85, 32, 32), False), ints(0, 1, 3, 4, 2))
    place, size, chance = o.variadic_split(o.sigmoid(raw), np.int64(4), ints(2, 2, 81)).outputs()
    place = o.multiply(o.add(o.multiply(place, np.float32(2)), real(1, 3, 32, 32, 2)), np.float32(8))
    size = o.multiply(o.power(o.multiply(size, np.float32(2)), np.float32(2)), real(1, 3, 32, 32, 2, value=3))
    rows = o.reshape(o.concat([place, size, chance], 4), ints(1, -1, 85), False)
    anchors = o.reshape(o.transpose(conv(x, 64, 24, 3), ints(0, 2, 3, 1)), ints(1, -1, 4), False)
    labels = o.softmax(
        o.reshape(o.transpose(conv(x, 64, 24, 3), ints(0, 2, 3, 1)), ints(1, -1, 4), False), -1
    )
    outputs = [boxes, weighed, o.concat([summed, o.sigmoid(kinds)], 1), rows, o.exp(anchors), labels]
    return ov.Model(outputs, [start], "detector")


def segmenter() -> Any:
    """Transposed and dilated convolutions, enlarged by lines, a map of classes."""
    start = image(128)
    x = o.relu(conv(start, 3, 32, 3, 2))
    y = o.relu(conv(o.relu(conv(x, 32, 64, 3, 2)), 64, 64, 3))
    wide = o.relu(conv(mean(y), 64, 32))
    wide = o.interpolate(wide, ints(32, 32), "linear_onnx", "sizes", axes=ints(2, 3))
    y = o.concat(
        [wide, *(o.relu(conv(y, 64, 32, 3, dilation=d)) for d in (2, 4)), o.relu(conv(y, 64, 32))], 1
    )
    y = o.relu(conv(y, 128, 64))
    up = o.convolution_backprop_data(y, real(64, 32, 2, 2), [2, 2])
    y = o.relu(conv(o.concat([o.add(up, real(1, 32, 1, 1)), x], 1), 64, 32, 3))
    three = o.convolution_backprop_data(y, real(32, 32, 4, 4), [2, 2], pads_begin=[1, 1], pads_end=[1, 1])
    y = o.add(o.relu(o.add(three, real(1, 32, 1, 1))), enlarged(y, "linear_onnx", "half_pixel"))
    y = conv(o.add(y, enlarged(conv(x, 32, 32), "linear_onnx", "align_corners")), 32, 21)
    kinds = o.topk(y, np.int64(1), 1, "max", "none", "i64").output(1)
    return ov.Model([o.softmax(y, 1), o.sigmoid(y), o.result(kinds)], [start], "segmenter")


def reader() -> Any:
    """OCR: convolutions, a bidirectional LSTM along the columns, chances of letters."""
    start = o.parameter([1, 1, 32, 128], np.float32)
    x = pool(o.relu(conv(start, 1, 32, 3)), 2, 2)
    x = pool(o.relu(affine(o.relu(conv(x, 32, 64, 3)), 64)), 2, 2)
    columns = o.transpose(o.reshape(x, ints(1, 512, 32), False), ints(0, 2, 1))
    state, size = real(1, 2, 64), 64
    y = o.lstm_sequence(
        columns,
        state,
        state,
        ints(32),
        real(2, 256, 512),
        real(2, 256, 64),
        real(2, 256),
        size,
        "bidirectional",
    ).output(0)
    y = linear(o.reshape(o.transpose(y, ints(0, 2, 1, 3)), ints(1, 32, 128), False), 128, 37)
    best = o.topk(y, np.int64(1), -1, "max", "none", "i64").output(1)
    return ov.Model([o.softmax(y, -1), o.log_softmax(y, -1), o.result(best)], [start], "reader")


def paddle() -> Iterator[Any]:
    """A recogniser and a detector of text as PaddleOCR exports them: learnt scales and offsets around hard
    swishes, gates, and open sizes."""

    def gate(x: Any, wide: int) -> Any:
        few = o.relu(conv(mean(x), wide, wide // 4))
        return o.hard_sigmoid(conv(few, wide // 4, wide), np.float32(1 / 6), np.float32(0.5))

    def maps(x: Any) -> Iterator[Any]:
        x = conv(x, 3, 32, 3, 2)
        for size, stride, gated in ((3, 1, False), (3, 2, True), (5, 1, False), (5, 2, True), (5, 1, True)):
            y = learnt(conv(x, 32, 32, size, stride, 32))
            y = learnt(paddle_hswish(y)) if stride == 1 else y
            y = o.multiply(y, gate(y, 32)) if gated else y
            yield (x := learnt(paddle_hswish(learnt(conv(y, 32, 32)))))

    lines = o.parameter([-1, 3, 48, -1], np.float32)
    x = o.avg_pool(list(maps(lines))[-1], [3, 2], [0, 0], [0, 0], [3, 2], True)
    y = o.swish(conv(o.swish(conv(x, 32, 16, 3)), 16, 64))
    rows = o.transpose(o.reshape(y, ints(0, 64, -1), True), ints(0, 2, 1))
    for _ in range(2):
        parts = o.reshape(linear(layer_norm(rows, 64), 64, 192), ints(0, -1, 3, 4, 16), True)
        parts = o.transpose(parts, ints(2, 0, 3, 1, 4))
        a, b, c = (o.gather(parts, np.int64(i), np.int64(0)) for i in range(3))
        seen = o.matmul(o.multiply(a, np.float32(0.25)), o.transpose(b, ints(0, 1, 3, 2)), False, False)
        z = o.transpose(o.matmul(o.softmax(seen, -1), c, False, False), ints(0, 2, 1, 3))
        rows = o.add(rows, linear(o.reshape(z, ints(0, -1, 64), True), 64, 64))
        inner = o.swish(linear(layer_norm(rows, 64), 64, 128))
        rows = o.add(rows, linear(inner, 128, 64))
    y = o.reshape(o.transpose(layer_norm(rows, 64), ints(0, 2, 1)), o.shape_of(y, "i64"), False)
    y = o.swish(conv(o.concat([x, o.swish(conv(y, 64, 32))], 1), 64, 64))
    y = linear(o.transpose(o.reduce_mean(y, ints(2), False), ints(0, 2, 1)), 64, 97)
    yield ov.Model([o.softmax(y, 2)], [lines], "recogniser")

    page = o.parameter([-1, 3, -1, -1], np.float32)
    _, low, _, high, _ = maps(page)

    def gated(x: Any, size: int) -> Any:
        y = conv(x, 32, 32, size)
        return o.add(y, o.multiply(y, gate(y, 32)))

    high = gated(high, 1)
    low = gated(o.add(gated(low, 1), enlarged(high)), 3)
    y = o.relu(conv(o.concat([enlarged(gated(high, 3)), low], 1), 64, 24, 3))
    for outs, end in ((24, o.relu), (1, o.sigmoid)):
        y = o.convolution_backprop_data(y, real(24, outs, 2, 2), [2, 2])
        y = end(o.add(y, real(1, outs, 1, 1)))
    yield ov.Model([y], [page], "pages")


def normalised() -> Any:
    """Diffusion and style: group and instance norms with swish, a step's embedding, attention of an image."""
    start, step = image(32, 4), o.parameter([1], np.float32)

    def group(x: Any) -> Any:
        y = o.mvn(o.reshape(x, ints(1, 8, -1), False), ints(2), True, 1e-5, "INSIDE_SQRT")
        return affine(o.reshape(y, ints(1, 64, 32, 32), False), 64)

    angles = o.multiply(o.unsqueeze(step, ints(1)), real(1, 32))
    known = linear(o.swish(linear(o.concat([o.cos(angles), o.sin(angles)], 1), 64, 64)), 64, 64)
    known = o.unsqueeze(o.unsqueeze(linear(o.swish(known), 64, 64), ints(2)), ints(3))
    x = conv(start, 4, 64, 3)
    y = o.add(conv(o.swish(group(x)), 64, 64, 3), known)
    x = o.add(x, conv(o.swish(group(y)), 64, 64, 3))
    instance = affine(o.mvn(x, ints(2, 3), True, 1e-5, "INSIDE_SQRT"), 64)
    x = o.add(x, conv(o.relu(instance), 64, 64, 3))
    tokens = o.transpose(o.reshape(group(x), ints(1, 64, 1024), False), ints(0, 2, 1))
    a, b, c = (linear(tokens, 64, 64) for _ in "abc")
    seen = o.matmul(
        o.softmax(o.multiply(o.matmul(a, b, False, True), np.float32(0.125)), -1), c, False, False
    )
    left, right = o.split(linear(seen, 64, 128), np.int64(2), 2).outputs()
    gated = linear(o.multiply(left, o.gelu(right)), 64, 64)
    back = o.reshape(o.transpose(gated, ints(0, 2, 1)), ints(1, 64, 32, 32), False)
    return ov.Model([conv(o.swish(group(o.add(x, back))), 64, 4, 3)], [start, step], "normalised")


def encoder(stored: str, act: Callable[[Any], Any], rms: bool = False) -> Any:
    """Two layers over words, with weights in the format `stored`: BERT's, or T5's with `rms`."""
    wide, heads, inner = 256, 4, 512
    ids, mask = (o.parameter([1, 32], np.int64) for _ in "ab")
    x = o.add(o.gather(real(512, wide), ids, np.int64(0)), real(1, 32, wide))
    hidden = o.subtract(np.float32(1), o.convert(o.unsqueeze(mask, ints(1, 2)), "f32"))
    hidden = o.multiply(hidden, np.float32(-10000))

    def dense(x: Any, ins: int, outs: int) -> Any:
        y = o.matmul(x, stored_weights(stored, outs, ins), False, True)
        return y if rms else o.add(y, real(outs))

    def norm(x: Any) -> Any:
        if not rms:
            return layer_norm(x, wide)
        square = o.add(o.reduce_mean(o.power(x, np.float32(2)), ints(-1), True), np.float32(1e-6))
        return o.multiply(real(wide), o.multiply(x, o.divide(np.float32(1), o.sqrt(square))))

    def split(x: Any) -> Any:
        return o.transpose(o.reshape(x, ints(0, 0, heads, wide // heads), True), ints(0, 2, 1, 3))

    for _ in range(2):
        a, b, c = (split(dense(norm(x) if rms else x, wide, wide)) for _ in "abc")
        logits = o.matmul(a, b, False, True)
        logits = o.add(logits, real(1, heads, 32, 32)) if rms else o.divide(logits, np.float32(8))
        z = o.matmul(o.softmax(o.add(logits, hidden), -1), c, False, False)
        z = o.reshape(o.transpose(z, ints(0, 2, 1, 3)), ints(0, 0, wide), True)
        x = o.add(x, dense(z, wide, wide))
        x = x if rms else norm(x)
        y = norm(x) if rms else x
        z = act(dense(y, wide, inner))
        z = o.multiply(z, dense(y, wide, inner)) if rms and act is not o.relu else z
        x = o.add(x, dense(z, inner, wide))
        x = x if rms else norm(x)
    x = norm(x) if rms else x
    first = o.gather(x, np.int64(0), np.int64(1))
    return ov.Model([o.tanh(dense(first, wide, wide)), dense(first, wide, 256), x], [ids, mask], "encoder")


def quick_gelu(x: Any) -> Any:
    return o.multiply(x, o.sigmoid(o.multiply(x, np.float32(1.702))))


def networks() -> Iterator[Any]:
    """All of them, the commonest first."""
    yield residual(o.relu)
    for tail in TAILS[:3]:
        yield densenet(56, tail)
    yield densenet(112, TAILS[0])
    yield residual(o.swish, True)
    yield detector(o.swish)
    for tail in TAILS:
        yield convnext(56, tail)
    yield convnext(112, TAILS[3])
    yield segmenter()
    yield temporal()
    yield reader()
    for act in (lambda x: o.clamp(x, 0.0, 6.0), o.hswish):
        yield residual(act, True)
    for act in (lambda x: o.prelu(x, real(1, value=0.1)), o.relu, o.mish):
        yield detector(act)
    for stored in ("f32", "u8", "i4"):
        for act in (o.gelu, lambda x: o.gelu(x, "tanh"), quick_gelu, o.relu):
            yield encoder(stored, act)
        for act in (o.relu, lambda x: o.gelu(x, "tanh")):
            yield encoder(stored, act, True)
    yield normalised()
    yield residual(o.gelu)
    yield from paddle()
