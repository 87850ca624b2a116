"""Layers of networks that are less common, for `ovjit.tools.ship`: states of sequences, normalised images and
volumes, gates with sums, boxes from priors, products of few rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import ovjit as ov
from ovjit.tools.layers_networks import conv, image, ints, linear, number, real

o = ov.opset13
WIDE, HEADS, STATES = 256, 4, 16


def rows(*shape: int) -> Any:
    return o.parameter(list(shape or (-1, -1, WIDE)), np.float32)


def causal(x: Any, before: Any) -> Any:
    """A convolution over a token and those before it, and SiLU."""
    whole = o.concat([before, o.transpose(x, ints(0, 2, 1))], 2)
    y = o.group_convolution(whole, real(WIDE, 1, 1, 4), [1], [0], [0], [1])
    return o.swish(o.transpose(y, ints(0, 2, 1)))


def last(x: Any, axis: int) -> Any:
    return o.unsqueeze(x, ints(axis))


def state_spaces() -> Iterator[Any]:
    """Decays and inputs of Mamba's states, and what a loop over tokens writes."""
    x, before, made = rows(), rows(-1, WIDE, 3), rows()
    u, gate = causal(x, before), linear(x, WIDE, WIDE)
    dt = o.softplus(linear(u, WIDE, WIDE))
    kept = o.exp(o.multiply(last(dt, 3), real(WIDE, STATES)))
    told = o.matmul(u, real(STATES, WIDE), False, True)
    added = o.multiply(last(o.multiply(dt, u), 3), last(told, 2))
    y = linear(o.multiply(o.add(made, o.multiply(u, real(WIDE))), o.swish(gate)), WIDE, WIDE)
    yield ov.Model([kept, added, y], [x, before, made], "decays")
    x, made, gate = rows(), rows(), rows()
    y = o.multiply(o.add(made, o.multiply(x, real(WIDE))), o.swish(gate))
    yield ov.Model([y], [x, made, gate], "opened")
    for axis, shape in ((1, (-1, -1, WIDE)), (2, (-1, HEADS, -1, WIDE))):
        whole, place = rows(*shape), o.parameter([], np.int32)
        row = rows(*(1 if i == axis else n for i, n in enumerate(shape)))
        y = o.scatter_update(whole, o.unsqueeze(place, np.int32(0)), row, np.int32(axis))
        yield ov.Model([y], [whole, place, row], "written")


def delta_rule() -> Iterator[Any]:
    """Rows of length 1, decays, and a step of a state that is a matrix for each head."""

    def unit(x: Any) -> Any:
        squares = o.reduce_sum(o.multiply(x, x), ints(-1), True)
        return o.multiply(x, o.divide(number(1), o.sqrt(o.add(squares, number(1e-6)))))

    x, before = rows(), rows(-1, WIDE, 3)
    mixed = o.reshape(causal(x, before), ints(0, 0, HEADS, WIDE // HEADS), True)
    keys = unit(o.transpose(mixed, ints(0, 2, 1, 3)))
    extent = o.gather(o.shape_of(keys, "i64"), np.int64(3), np.int64(0))
    asked = o.divide(keys, o.power(o.convert(extent, "f32"), number(0.5)))
    yield ov.Model([asked], [x, before], "asked")
    both = o.transpose(o.matmul(x, real(2 * HEADS, WIDE), False, True), ints(0, 2, 1))
    one, other = o.variadic_split(both, np.int64(1), ints(HEADS, HEADS)).outputs()
    decays = o.multiply(o.softplus(one), real(HEADS, 1))
    squares = o.multiply(o.mvn(x, ints(-1), True, 1e-5, "INSIDE_SQRT"), o.swish(linear(x, WIDE, WIDE)))
    gated = o.multiply(x, o.swish(o.matmul(x, real(WIDE, WIDE), False, True)))
    yield ov.Model([keys, decays, o.sigmoid(other), squares, gated], [x, before], "rows")

    size = WIDE // HEADS
    state = rows(-1, HEADS, size, size)
    q, k, v = (rows(-1, HEADS, size) for _ in "qkv")
    g, beta = (rows(-1, HEADS, 1) for _ in "gb")
    now = o.multiply(state, last(o.exp(g), -1))
    known = o.reduce_sum(o.multiply(now, last(k, -1)), ints(-2), False)
    change = o.multiply(o.subtract(v, known), beta)
    new = o.add(now, o.multiply(last(k, -1), last(change, -2)))
    y = o.reduce_sum(o.multiply(new, last(q, -1)), ints(-2), True)
    yield ov.Model([new, y], [state, q, k, v, g, beta], "step")


def instance_norm(x: Any, channels: int, rank: int) -> Any:
    """As ONNX's InstanceNormalization is read."""
    each, axes = [1, channels, *[1] * rank], ints(*range(2, 2 + rank))
    centred = o.subtract(x, o.reduce_mean(x, axes, True))
    deviation = o.sqrt(o.add(o.reduce_mean(o.multiply(centred, centred), axes, True), number(1e-5)))
    scaled = o.multiply(o.divide(centred, deviation), real(*each, value=0.5))
    return o.add(scaled, real(*each))


def normalised() -> Iterator[Any]:
    """Images and volumes, each normalised by itself."""
    start = image(32)
    x = conv(start, 3, 16, 3)
    x = o.relu(instance_norm(x, 16, 2))
    y = instance_norm(conv(o.relu(instance_norm(conv(x, 16, 16, 3), 16, 2)), 16, 16, 3), 16, 2)
    yield ov.Model([o.add(x, y)], [start], "style")

    start = o.parameter([1, 4, 8, 8, 8], np.float32)
    ones = [1, 1, 1]

    def block(x: Any, ins: int, outs: int) -> Any:
        y = o.convolution(x, real(outs, ins, 3, 3, 3), ones, ones, ones, ones)
        y = o.add(y, real(1, outs, 1, 1, 1))
        return o.prelu(instance_norm(y, outs, 3), number(0.01))

    a = block(start, 4, 8)
    b = block(o.max_pool(a, [2] * 3, ones, [0] * 3, [0] * 3, [2] * 3).output(0), 8, 16)
    up = o.convolution_backprop_data(b, real(16, 8, 2, 2, 2), [2] * 3)
    yield ov.Model([o.softmax(block(o.concat([up, a], 1), 16, 3), 1)], [start], "volume")


def gates() -> Iterator[Any]:
    """Sums split in two, one part of which gates the other; sums of several such layers."""
    x = start = o.parameter([1, 32, -1], np.float32)
    total = None
    for dilation in (1, 2, 4):
        y = o.convolution(x, real(64, 32, 3), [1], [2 * dilation], [0], [dilation])
        one, other = o.split(o.add(y, real(1, 64, 1)), np.int64(1), 2).outputs()
        y = o.multiply(o.tanh(one), o.sigmoid(other))
        x = o.add(x, o.convolution(y, real(32, 32, 1), [1], [0], [0], [1]))
        total = y if total is None else o.add(total, y)
    y = o.convolution(o.relu(total), real(8, 32, 7), [1], [3], [3], [1])
    yield ov.Model([o.tanh(y)], [start], "gates")


def boxes() -> Iterator[Any]:
    """Boxes from priors and from grids that are constants."""
    start = o.parameter([1, 48, 4], np.float32)
    near, far = o.split(start, np.int64(2), 2).outputs()
    middle = o.add(o.multiply(o.multiply(near, number(0.1)), real(1, 48, 2)), real(1, 48, 2, value=0.3))
    sizes = o.multiply(o.exp(o.multiply(far, number(0.2))), real(1, 48, 2))
    ends = [make(middle, o.multiply(sizes, number(0.5))) for make in (o.subtract, o.add)]
    yield ov.Model([o.concat(ends, 2)], [start], "priors")

    chosen = o.parameter([-1, 3], np.int64)
    _, kind, row = o.split(chosen, np.int64(1), 3).outputs()
    kind, row = (o.squeeze(each, ints(1)) for each in (kind, row))
    yield ov.Model([o.add(o.multiply(kind, np.int64(48)), row)], [chosen], "places")

    start = o.parameter([1, 3, 4, 4, 2], np.float32)
    for stride in (8, 16, 32):
        x = o.subtract(o.multiply(start, number(2)), number(0.5))
        x = o.multiply(o.add(x, real(1, 1, 4, 4, 2)), number(stride))
        yield ov.Model([x], [start], "cells")


def few() -> Iterator[Any]:
    """Products of as many rows as an input has, which may be few, and rows of a length."""
    x, y = rows(-1, WIDE), rows(-1, WIDE)
    plain = o.matmul(x, real(32, WIDE), False, True)
    yield ov.Model([plain], [x], "product")
    yield ov.Model([o.add(o.matmul(x, real(WIDE, WIDE), False, True), y)], [x, y], "added")
    a, b = rows(-1, HEADS, -1, STATES), rows(-1, HEADS, -1, STATES)
    bias = rows(1, HEADS, -1, -1)
    products = o.matmul(a, b, False, True)
    yield ov.Model([products], [a, b], "products")
    yield ov.Model([o.add(products, bias)], [a, b, bias], "products")
    other = rows(-1, WIDE)
    yield ov.Model([o.multiply(o.matmul(x, other, False, True), number(2.66))], [x, other], "alike")
    x, y = rows(), rows()
    mean = o.reduce_mean(o.power(x, number(2)), ints(-1), True)
    whole = o.multiply(o.multiply(x, o.divide(number(1), o.sqrt(o.add(mean, number(1e-6))))), real(WIDE))
    yield ov.Model([o.add(whole, y)], [x, y], "rows")
    yield ov.Model([o.multiply(x, o.swish(y))], [x, y], "opened")
    short = o.reduce_sum(o.power(x, number(2)), ints(-1), True)
    yield ov.Model([o.divide(x, o.power(short, number(0.5)))], [x], "unit")


def further() -> Iterator[Any]:
    """All of them."""
    for some in (few, normalised, gates, boxes, state_spaces, delta_rule):
        yield from some()
