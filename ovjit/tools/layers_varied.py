"""Layers by what users vary, for `ovjit.tools.ship`: activations behind sums, windows in one direction,
lengths of rows, norms with offsets that are computed, masks, gated units, sums over edges, boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import ovjit as ov
from ovjit.tools.layers_further import instance_norm
from ovjit.tools.layers_networks import (
    conv,
    image,
    ints,
    layer_norm,
    linear,
    number,
    one,
    real,
    stored_weights,
    tensor,
)

o = ov.opset13
WIDE, LAST = 64, ints(-1)


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "leaky": lambda x: o.prelu(x, number(0.07)),
    "elu": lambda x: o.elu(x, 1.0),
    "selu": lambda x: o.selu(x, number(1.6733), number(1.0507)),
    "mish": o.mish,
    "tanh": o.tanh,
    "hsigmoid": o.hsigmoid,
    "softplus": o.softplus,
    "clamp": lambda x: o.clamp(x, -1.0, 1.0),
}


def behind_sums() -> Iterator[Any]:
    """Activations of convolutions, of sums with another map, of products, and of normalised products."""
    for name, act in ACTIVATIONS.items():
        start, beside = image(28, 32), image(28, 32)
        sums = conv(start, 32, 32)
        strides = (1, 2) if name in ("leaky", "elu", "mish") else ()
        depthwise = [act(conv(start, 32, 32, 3, stride, 32)) for stride in strides]
        yield ov.Model([act(sums), *depthwise], [start], "varied")
        yield ov.Model([act(o.add(sums, beside))], [start, beside], "varied")
        yield ov.Model([o.add(act(sums), beside)], [start, beside], "varied")
        x = tensor(-1, WIDE)
        yield ov.Model([act(linear(x, WIDE, 2 * WIDE))], [x], "varied")
        scaled = o.multiply(o.relu(linear(x, WIDE, 2 * WIDE)), real(2 * WIDE))
        yield ov.Model([act(o.add(scaled, real(2 * WIDE)))], [x], "varied")
    x, y = tensor(-1, WIDE), tensor(-1, 2 * WIDE)
    sums = linear(x, WIDE, 2 * WIDE)
    for made in (o.swish(sums, number(1.702)), o.subtract(y, sums), o.subtract(sums, y),
                 o.multiply(o.add(sums, y), number(0.3)), o.multiply(o.add(sums, y), real(2 * WIDE)),
                 o.sigmoid(o.add(sums, y)), o.tanh(o.add(sums, y))):  # fmt: skip
        yield ov.Model([made], [x, y], "varied")
    slopes = real(1, 32, 1, 1, value=0.1)
    start, beside, third = image(28, 32), image(28, 32), image(28, 32)
    sums = conv(start, 32, 32)
    for made in (
        o.prelu(o.add(sums, beside), slopes), o.add(beside, o.multiply(sums, number(0.2))),
        o.prelu(o.multiply(o.add(sums, beside), number(0.3)), number(0.07)),
        o.multiply(o.tanh(sums), o.sigmoid(beside)), o.multiply(o.sigmoid(sums), o.tanh(beside)),
        o.multiply(o.add(sums, beside), number(0.3)), o.multiply(sums, o.sigmoid(beside)),
        o.multiply(o.hsigmoid(sums), beside), o.swish(o.add(sums, beside)), o.gelu(o.add(sums, beside)),
        o.sigmoid(o.add(sums, beside)), o.add(o.gelu(sums), beside), o.exp(sums),
        o.clamp(o.add(o.multiply(sums, number(0.3)), number(0.4)), 0.0, 1.0),
        o.softmax(sums, 1),
        o.clamp(o.add(o.multiply(o.add(sums, beside), number(0.3)), number(0.4)), 0.0, 1.0),
    ):  # fmt: skip
        yield ov.Model([made], [start, beside], "varied")
    gate = o.multiply(o.tanh(sums), o.sigmoid(beside))
    yield ov.Model([o.relu(o.add(gate, third))], [start, beside, third], "varied")
    gates = tensor(1, 32, 1, 1)
    for act in (o.relu, ACTIVATIONS["leaky"], o.swish, o.gelu):
        yield ov.Model([act(o.add(start, o.multiply(beside, gates)))], [start, beside, gates], "varied")
    x, y = tensor(-1, WIDE, -1), tensor(-1, 2 * WIDE, -1)  # channels are the rows
    plain, bias = o.matmul(real(2 * WIDE, WIDE), x, False, False), real(2 * WIDE, 1)
    scaled = o.multiply(plain, real(2 * WIDE, 1, value=0.5))
    for made in (o.add(plain, bias), o.relu(o.add(plain, bias)), o.gelu(o.add(plain, bias)),
                 o.add(scaled, bias), o.add(o.add(plain, bias), y), o.add(scaled, y)):  # fmt: skip
        yield ov.Model([made], [x, y], "varied")


def branches() -> Iterator[Any]:
    """Norms behind activations, sums of depthwise branches, and residuals that are scaled by channels."""
    start, beside = image(28, 32), image(28, 32)
    scale, offset = real(1, 32, 1, 1, value=0.5), real(1, 32, 1, 1)
    for size in (1, 3, 7):
        deep = conv(start, 32, 32, size, 1, 32)
        sums = o.add(deep, beside)
        made = [deep, sums, o.relu(sums), o.gelu(sums), o.gelu(deep)]
        made += [o.add(o.multiply(act(deep), scale), offset) for act in (o.relu, o.gelu)]
        yield from (ov.Model([y], [start, beside], "varied") for y in (made[:2] if size == 1 else made))
    plain = conv(start, 32, 32)
    for act in (o.relu, o.gelu, o.swish):
        scaled = o.multiply(act(plain), scale)
        for y in (scaled, o.add(scaled, offset)):
            yield ov.Model([y], [start], "varied")
    for y in (o.add(start, o.multiply(o.subtract(beside, start), scale)), o.subtract(beside, start),
              o.add(start, o.multiply(beside, scale)), o.multiply(o.gelu(start), beside)):  # fmt: skip
        yield ov.Model([y], [start, beside], "varied")
    x, beside, gamma = tensor(-1, WIDE), tensor(-1, WIDE), real(WIDE, value=0.5)
    y = linear(x, WIDE, WIDE)
    for made_of in (o.multiply(y, gamma), o.add(beside, o.multiply(y, gamma)), o.gelu(o.multiply(y, gamma))):
        yield ov.Model([made_of], [x, beside], "varied")


def in_one_direction() -> Iterator[Any]:
    """Depthwise convolutions of sequences, and of rows and columns of images."""
    sound, picture = tensor(-1, WIDE, -1), image(28, 32)
    acts: list[Callable[[Any], Any]] = [lambda x: x, o.swish, o.relu]
    for size in (3, 5, 7, 15, 31):
        weights, pads = real(WIDE, 1, 1, size), [size // 2]
        y = o.add(o.group_convolution(sound, weights, [1], pads, pads, [1]), real(1, WIDE, 1))
        for act in acts[: 3 if size < 9 else 2 if size < 31 else 1]:
            yield ov.Model([act(y)], [sound], "varied")
    for height, width in ((1, 5), (5, 1), (1, 3), (3, 1), (1, 7), (7, 1)):
        pads = [height // 2, width // 2]
        y = o.group_convolution(picture, real(32, 1, 1, height, width), [1, 1], pads, pads, [1, 1])
        y = o.add(y, real(1, 32, 1, 1))
        yield ov.Model([y, o.sigmoid(y)], [picture], "varied")


def lengths() -> Iterator[Any]:
    """Lengths, deviations, powers and weighted means, of rows and of channels."""
    for shape, axes in (((4, 9, WIDE), LAST), ((4, 9, WIDE), ints(1)), ((2, 32, 7, 9), ints(2, 3)),
                        ((2, 32, 7, 9), ints(1)), ((2, 32, 48, 64), ints(2, 3)),
                        ((2, 2048), LAST)):  # fmt: skip
        x, w = tensor(*shape), tensor(*shape)
        for keep in (True, False):
            length = o.reduce_l2(x, axes, keep)
            mean, square = o.reduce_mean(x, axes, keep), o.reduce_mean(o.multiply(x, x), axes, keep)
            for made in (
                length, o.maximum(length, number(1e-5)), o.add(length, number(1e-5)), o.sqrt(square),
                o.add(o.sqrt(square), number(1e-5)), o.add(mean, number(0.3)), o.relu(mean), o.sigmoid(mean),
                o.power(o.reduce_mean(o.power(x, number(3)), axes, keep), number(0.3333)),
                o.reduce_sum(o.multiply(x, w), axes, keep), o.reduce_mean(o.absolute(x), axes, keep),
                o.reduce_max(x, axes, keep), o.exp(o.reduce_sum(x, axes, keep)),
            ):  # fmt: skip
                yield ov.Model([made], [x, w], "varied")
        centred = o.subtract(x, o.reduce_mean(x, axes, True))
        squares = o.reduce_mean(o.multiply(centred, centred), axes, True)
        for deviation in (
            o.sqrt(o.add(squares, number(1e-5))), o.add(o.sqrt(squares), number(1e-5)),
            o.add(o.sqrt(o.multiply(squares, number(1.02))), number(1e-5)),
        ):  # fmt: skip
            made = o.divide(centred, deviation)
            yield ov.Model([made, o.reduce_mean(x, axes, True), deviation], [x, w], "varied")
        yield ov.Model([o.divide(x, o.maximum(o.reduce_l2(x, axes, True), number(1e-5)))], [x, w], "varied")
        clipped = o.power(o.clamp(x, 1e-6, 3.4e38), number(3))
        yield ov.Model([o.power(o.reduce_mean(clipped, axes, False), number(0.3333))], [x, w], "varied")
        exact = o.subtract(x, o.log(o.reduce_sum(o.exp(x), axes, True)))
        yield ov.Model([o.softmax(x, int(axes[0])), o.log_softmax(x, int(axes[0])), exact], [x, w], "varied")
    for moved in ((4, 1, WIDE), (4, 9, 1)):
        x, m, d = tensor(4, 9, WIDE), tensor(*moved), tensor(*moved)
        for made in (o.divide(o.subtract(x, m), d), o.divide(o.subtract(x, m), o.add(d, number(1e-5))),
                     o.add(o.multiply(x, d), m), o.multiply(o.subtract(x, m), d), o.subtract(x, m),
                     o.divide(x, d), o.multiply(o.divide(x, d), number(0.3)),
                     o.multiply(o.divide(x, d), m)):  # fmt: skip
            yield ov.Model([made], [x, m, d], "varied")


def norms() -> Iterator[Any]:
    """Rows that are normalised: what is added before, and what scales and adds is computed, or behind it."""
    x, y, row = tensor(-1, -1, WIDE), tensor(-1, -1, WIDE), tensor(-1, 1, WIDE)
    seen, plain = tensor(-1, -1, 1), lambda x: o.mvn(x, LAST, True, 1e-6, "INSIDE_SQRT")
    for made in (
        o.add(o.multiply(plain(x), o.add(row, number(1))), row), o.add(layer_norm(x, WIDE), y),
        o.multiply(layer_norm(x, WIDE), seen), o.multiply(layer_norm(o.add(x, y), WIDE), seen),
        o.add(x, layer_norm(y, WIDE)), o.tanh(layer_norm(x, WIDE)), o.add(y, o.multiply(row, x)),
        o.add(o.multiply(x, o.add(row, number(1))), row), o.multiply(o.add(x, y), seen),
        o.multiply(o.multiply(x, number(0.3)), seen), o.add(o.multiply(o.add(x, y), seen), y),
        o.add(o.multiply(layer_norm(x, WIDE), real(WIDE)), y),
    ):  # fmt: skip
        yield ov.Model([made], [x, y, row, seen], "varied")
    for made in (o.add(o.multiply(plain(x), each), each) for each in (real(WIDE), real(WIDE, value=0.3))):
        twice = o.add(o.multiply(plain(x), real(WIDE, value=0.7)), real(WIDE))
        yield ov.Model([made, twice], [x], "varied")
    maps = image(16, 32)
    for act in (lambda x: x, o.relu, ACTIVATIONS["leaky"], o.swish):
        yield ov.Model([act(instance_norm(maps, 32, 2))], [maps], "varied")
    grouped = o.reshape(maps, ints(0, 8, -1), True)
    y = o.reshape(plain(grouped), ints(1, 32, 16, 16), False)
    y = o.add(o.multiply(y, real(1, 32, 1, 1)), real(1, 32, 1, 1))
    each = real(1, 8, 1, value=0.5)
    again = o.reshape(o.add(o.multiply(plain(grouped), each), each), ints(1, 32, 16, 16), False)
    again = o.add(o.multiply(again, real(1, 32, 1, 1)), real(1, 32, 1, 1))
    for act in (lambda x: x, o.relu, o.swish, o.gelu, ACTIVATIONS["leaky"]):
        yield ov.Model([act(y)], [maps], "varied")
        yield ov.Model([act(again)], [maps], "varied")
        yield ov.Model([act(o.group_normalization(maps, real(32), real(32), 8, 1e-5))], [maps], "varied")


def masks() -> Iterator[Any]:
    """Masks of tokens from comparisons, as exporters of decoders and of encoders write them."""
    ids, places = tensor(-1, -1, kind=np.int64), tensor(-1, -1, kind=np.int64)
    wide, tall = (o.unsqueeze(each, ints(*axes)) for each, axes in ((ids, (1, 2)), (places, (1, 3))))
    true = o.constant(np.bool_(True))
    for compare in (o.less_equal, o.less, o.greater, o.greater_equal, o.equal, o.not_equal):
        seen = compare(wide, tall)
        yield ov.Model([seen, o.convert(seen, "f32")], [ids, places], "varied")
    near = o.greater(wide, o.add(tall, np.int64(-7)))
    both = o.bitwise_and(o.bitwise_and(true, near), o.less_equal(wide, tall))
    given = o.convert(wide, "boolean")
    for seen in (both, o.bitwise_and(true, o.less_equal(wide, tall)), o.bitwise_and(true, both),
                 o.bitwise_and(given, both), o.logical_and(given, o.less_equal(wide, tall)),
                 o.logical_not(both), o.logical_or(given, near)):  # fmt: skip
        yield ov.Model([seen], [ids, places], "varied")
        yield ov.Model([o.select(seen, number(0), number(-65504))], [ids, places], "varied")


def words() -> Iterator[Any]:
    """Rows of tables by tokens in i32, angles, and means of the tokens that are shown."""
    ids, places = tensor(-1, -1, kind=np.int64), tensor(-1, -1, kind=np.int64)
    counted = o.convert(ids, "i32")
    angles = tensor(-1, -1, WIDE)
    for stored in ("u8", "i8", "even", "f16", "f32"):
        table = stored_weights(stored, 1024, 4 * WIDE)
        rows = o.gather(table, counted, np.int32(0))
        yield ov.Model([rows], [ids], "varied")
        yield ov.Model([o.matmul(rows, table, False, True)], [ids], "varied")
    yield ov.Model([o.cos(angles), o.sin(angles)], [angles], "varied")
    yield one(lambda x: o.multiply(o.convert(x, "f32"), number(0.3)), ids)
    for kind in (np.int64, np.int32):
        cube, row, column = (tensor(*shape, kind=kind) for shape in ((-1, -1, -1), (1, 1, -1), (-1, -1, 1)))
        for make in (o.add, o.multiply, o.maximum):
            yield one(make, cube, column)
            yield one(make, row, column)
            yield one(make, cube, tensor(1, kind=kind))
            yield one(lambda x, y, f=make: f(o.convert(x, "i32"), o.convert(y, "i32")), cube, column)
            yield one(lambda x, y, f=make: f(o.convert(x, "i32"), y), cube, tensor(1, kind=np.int32))
        yield one(lambda x, k=kind: o.select(o.equal(x, k(-100)), k(1), x), cube)
        yield one(lambda x, y, k=kind: o.select(o.equal(x, k(7)), k(1), y), cube, column)
        real_cube = o.convert(cube, "f32")
        hidden = o.subtract(number(1), real_cube)
        yield ov.Model([o.select(o.convert(hidden, "boolean"), number(-3e38), hidden)], [cube], "varied")
        positive = o.convert(o.greater(cube, kind(0)), "f32")
        yield ov.Model([positive, o.multiply(positive, number(0.3))], [cube], "varied")
    score, added = tensor(-1, 4, -1, -1), tensor(-1, 1, -1, -1)
    total = o.add(score, added)
    yield ov.Model([o.select(o.equal(added, number(0)), total, number(-3e38))], [score, added], "varied")
    shown = o.select(o.greater(added, number(0)), score, number(-3e38))
    yield ov.Model([o.softmax(shown, -1)], [score, added], "varied")
    flags = tensor(-1, 1, -1, -1, kind=np.bool_)
    yield ov.Model([o.softmax(o.select(flags, number(-3e38), score), -1)], [score, flags], "varied")
    yield one(lambda x: o.add(o.convert(x, "i32"), np.int32(3)), ids)
    for element in (np.int64, np.int32, np.float32):
        for place in (np.int64, np.int32):
            given = tensor(-1, 4, kind=element), tensor(-1, kind=place)
            yield one(lambda x, i: o.gather(x, i, np.int64(0)), *given)
    length = o.convert(o.gather(o.shape_of(ids, "i64"), ints(1), np.int64(0)), "i32")
    rows = o.add(o.multiply(counted, length), counted)
    yield ov.Model([rows, o.convert(places, "i32")], [ids, places], "varied")
    kept = o.convert(tensor(-1, -1, kind=np.bool_), "f32")
    flags = kept.input_value(0).get_node()
    x = tensor(-1, -1, WIDE)
    told = o.unsqueeze(kept, ints(2))
    total, count = (o.reduce_sum(each, ints(1), False) for each in (o.multiply(x, told), told))
    yield ov.Model([o.divide(total, o.maximum(count, number(1e-9)))], [x, flags], "varied")
    row = tensor(-1, -1)
    yield ov.Model([o.multiply(row, kept), o.select(flags, row, number(-3e38))], [row, flags], "varied")


def recurrent() -> Iterator[Any]:
    """Recurrent layers whose sequences have lengths: GRUs of both kinds (PyTorch's scales what the product of
    the state gives by the reset gate) and LSTMs. Single cells, too."""
    size = 32
    x, lengths = tensor(-1, -1, size), tensor(-1, kind=np.int64)
    batch = o.gather(o.shape_of(x, "i64"), ints(0), np.int64(0))
    for direction, ways in (("forward", 1), ("bidirectional", 2)):
        state = o.broadcast(number(0), o.concat([batch, ints(ways, size)], 0))
        for after in (True, False):
            weights = [real(ways, 3 * size, size)] * 2
            bias = real(ways, (4 if after else 3) * size)
            made = o.gru_sequence(
                x, state, lengths, *weights, bias, size, direction, linear_before_reset=after
            )
            yield ov.Model([made.output(0), made.output(1)], [x, lengths], "varied")
        weights = [real(ways, 4 * size, size)] * 2
        made = o.lstm_sequence(x, state, state, lengths, *weights, real(ways, 4 * size), size, direction)
        yield ov.Model([made.output(i) for i in range(3)], [x, lengths], "varied")
    x, state, cells = tensor(-1, size), tensor(-1, size), tensor(-1, size)
    made = o.lstm_cell(x, state, cells, *[real(4 * size, size)] * 2, real(4 * size), size)
    yield ov.Model([made.output(0), made.output(1)], [x, state, cells], "varied")
    made = o.gru_cell(x, state, *[real(3 * size, size)] * 2, real(3 * size), size)
    yield ov.Model([made.output(0)], [x, state], "varied")
    found = tensor(-1, -1, size)  # a decoder's attention to these, one step
    shares = o.softmax(o.squeeze(o.matmul(found, o.unsqueeze(state, LAST), False, False), LAST), 1)
    context = o.squeeze(o.matmul(o.unsqueeze(shares, ints(1)), found, False, False), ints(1))
    yield ov.Model([context, o.concat([context, state], 1)], [found, state], "varied")


def graphs() -> Iterator[Any]:
    """Edges between nodes: what is gathered, weighed by a softmax of each node's edges, and added up."""
    x, ends = tensor(-1, WIDE), tensor(-1, kind=np.int64)
    zeros = o.broadcast(number(0), o.shape_of(x, "i64"))
    given = o.gather(x, ends, np.int64(0))
    each = o.broadcast(o.unsqueeze(ends, ints(1)), o.shape_of(given, "i64"))
    for reduction in ("sum", "max", "mean"):
        made = o.scatter_elements_update(zeros, each, given, np.int64(0), reduction)
        yield ov.Model([made], [x, ends], "varied")
    for name in ("none", "sum"):
        made = o.scatter_nd_update(zeros, o.unsqueeze(ends, ints(1)), given, name)
        yield ov.Model([made], [x, ends], "varied")
    a, b, column = tensor(-1, 4), tensor(-1, 4), tensor(-1, 1)
    for act in (o.relu, ACTIVATIONS["leaky"], ACTIVATIONS["elu"], o.tanh, o.sigmoid, o.swish):
        yield one(lambda x, y, f=act: f(o.add(x, y)), a, b)
        yield one(lambda x, y, f=act: f(o.add(x, y)), a, column)
        yield one(lambda x, y, f=act: o.multiply(f(x), y), a, b)
        yield one(act, a)
    for make in (lambda x, y: o.exp(o.subtract(x, y)), lambda x, y: o.divide(x, o.add(y, number(1e-9)))):
        yield one(make, a, b)
        yield one(make, a, column)
    whole = tensor(-1, kind=np.int64)
    for make in (o.floor_mod, o.divide, o.mod, o.maximum, o.minimum, o.subtract):
        yield one(lambda x, f=make: f(x, np.int64(7)), whole)
        yield one(lambda x, f=make: o.add(f(x, np.int64(7)), np.int64(11)), whole)
        yield one(make, whole, tensor(-1, kind=np.int64))
    for size in (2, 4, 8, 14, 16, 32, 64):
        for make in (o.divide, o.floor_mod):
            yield one(lambda x, f=make, n=size: f(x, np.int64(n)), whole)
    for kind in (np.int64, np.int32):
        yield one(lambda x, y: o.multiply(o.convert(x, "f32"), y), tensor(-1, 4, kind=kind), column)


def boxes() -> Iterator[Any]:
    """Boxes from offsets, distances and anchors."""
    found, anchors, column = tensor(-1, -1, 4), tensor(-1, 4), tensor(-1, -1, 1)
    pairs = [o.slice(found, ints(i), ints(i + 2), ints(1), ints(2)) for i in (0, 2)]
    of_anchors = [o.slice(anchors, ints(i), ints(i + 2), ints(1), ints(1)) for i in (0, 2)]
    size = o.subtract(of_anchors[1], of_anchors[0])
    centre = o.add(of_anchors[0], o.multiply(size, number(0.5)))
    for scale in (lambda x: x, lambda x: o.multiply(x, number(0.1))):
        middle = o.add(o.multiply(scale(pairs[0]), size), centre)
        sides = o.multiply(o.exp(o.minimum(scale(pairs[1]), number(4.13))), size)
        half = o.multiply(sides, number(0.5))
        made = o.concat([o.subtract(middle, half), o.add(middle, half)], 2)
        yield ov.Model([made, o.clamp(made, 0.0, 319.0)], [found, anchors], "varied")
    for act in (o.exp, o.relu, o.sigmoid, o.softplus):
        for factor in (number(16), column):
            yield ov.Model([o.multiply(act(found), factor)], [found, column], "varied")
    grid, near = real(1, 9, 4), o.multiply(o.sigmoid(found), number(2.2))
    for made in (
        o.multiply(o.add(found, grid), column), o.multiply(o.add(near, grid), column),
        o.sqrt(o.multiply(o.sigmoid(found), o.sigmoid(column))), o.sqrt(o.multiply(found, column)),
        o.power(near, number(2)), o.multiply(o.power(found, number(2)), column),
        o.convert(o.greater(found, number(0.3)), "f32"), o.convert(o.greater(found, number(0.3)), "i64"),
        o.convert(o.round(o.multiply(found, number(33)), "half_to_even"), "i64"),
        o.convert(o.floor(found), "i32"), o.subtract(number(1), found),
        o.add(o.multiply(found, number(-1)), number(1)),
    ):  # fmt: skip
        yield ov.Model([made], [found, column], "varied")


def pixels() -> Iterator[Any]:
    """Images before the first layer and behind the last."""
    for kind in (np.float32, np.uint8):
        picture = o.parameter([-1, 3, -1, -1], kind)
        x = picture if kind is np.float32 else o.convert(picture, "f32")
        mean, deviation = real(1, 3, 1, 1, value=0.4), real(1, 3, 1, 1, value=0.2)
        for made in (
            o.divide(o.subtract(x, mean), deviation), o.multiply(o.subtract(x, mean), deviation),
            o.divide(o.subtract(o.divide(x, number(255)), mean), deviation),
            o.divide(o.subtract(x, number(0.45)), number(0.22)), o.multiply(x, number(1 / 255)),
            o.clamp(o.add(o.multiply(x, deviation), mean), 0.0, 1.0),
            o.clamp(o.add(o.multiply(x, number(0.22)), number(0.45)), 0.0, 1.0),
        ):  # fmt: skip
            yield ov.Model([made], [picture], "varied")
    start = image(32, 8)
    for size in (5, 7, 9):
        last = conv(start, 8, 3, size)
        for made in (last, o.tanh(last), o.sigmoid(last)):
            yield ov.Model([made], [start], "varied")


#: The commonest first.
KINDS = (
    behind_sums, branches, in_one_direction, lengths, norms, masks, words, recurrent, graphs, boxes, pixels,
)  # fmt: skip


def varied() -> Iterator[Any]:
    """All of them."""
    for some in KINDS:
        yield from some()
