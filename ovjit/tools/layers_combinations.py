"""Operations by the ways in which their operands are read, and layers by what follows them, for
`ovjit.tools.ship`: each combination is rare, but a network has some of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import ovjit as ov
from ovjit.tools.layers_networks import conv, image, ints, layer_norm, linear, number, one, real, tensor

o = ov.opset13
WIDE = 64
#: Tensors of two to four dimensions, and those with one element for each row.
SHAPES = ((16, WIDE), (1, 16, WIDE), (1, 4, 16, WIDE))


def operands() -> Iterator[Any]:
    """A tensor beside another one, a number for each row, and one for all."""
    for shape in SHAPES:
        rows = (*shape[:-1], 1)
        for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
            make = getattr(o, name)
            yield one(lambda x, f=make: f(x, number(0.3)), tensor(*shape))
            yield one(make, tensor(*shape), tensor(*rows))
            if name in ("subtract", "divide"):
                yield one(lambda x, f=make: f(number(0.3), x), tensor(*shape))
        yield one(o.multiply, tensor(*rows), tensor(*shape))
        for name in ("gelu", "sigmoid", "tanh", "exp", "swish", "relu", "softplus"):
            yield one(getattr(o, name), tensor(*shape))
        yield one(lambda x: o.clamp(x, -0.7, 0.9), tensor(*shape))
        yield one(lambda x: o.power(x, number(2)), tensor(*shape))
        yield one(o.multiply, tensor(2, *shape), tensor(2, *shape))


def _of_two(channel: Any) -> list[Any]:
    """Functions of two tensors, with a factor for each channel."""
    return [
        lambda x, y: o.relu(o.add(x, y)),
        lambda x, y: o.add(o.add(x, channel), y),
        lambda x, y: o.relu(o.add(o.add(x, channel), y)),
        lambda x, y: o.add(o.multiply(x, channel), y),
        lambda x, y: o.add(o.multiply(x, number(0.3)), y),
        lambda x, y: o.add(x, o.multiply(channel, o.subtract(y, x))),
        lambda x, y: o.multiply(o.add(x, y), number(0.3)),
        lambda x, y: o.multiply(o.add(x, number(0.3)), y),
        lambda x, y: o.multiply(x, o.sigmoid(y)),
        lambda x, y: o.multiply(x, o.gelu(y)),
        lambda x, y: o.add(x, o.gelu(y)),
        lambda x, y: o.divide(o.subtract(x, y), number(0.3)),
        lambda x, y: o.add(o.divide(x, number(0.3)), y),
    ]


def _of_one(channel: Any) -> list[Any]:
    return [
        lambda x: o.add(o.multiply(x, channel), channel),
        lambda x: o.add(o.multiply(x, number(0.3)), number(0.2)),
        lambda x: o.multiply(o.add(x, number(0.3)), number(0.2)),
        lambda x: o.multiply(o.add(x, channel), number(0.2)),
        lambda x: o.gelu(o.add(x, channel)),
        lambda x: o.gelu(o.multiply(x, channel)),
        lambda x: o.gelu(x, "tanh"),
        lambda x: o.multiply(o.multiply(x, number(0.3)), channel),
        lambda x: o.add(o.multiply(x, channel), o.multiply(x, number(0.3))),
        lambda x: o.exp(o.minimum(x, number(4.1))),
        lambda x: o.multiply(o.exp(o.minimum(x, number(4.1))), channel),
    ]


def chains() -> Iterator[Any]:
    """Sums and products one after the other. Factors are those of the last dimension, or an image's."""
    for shape, channel in (*((shape, real(WIDE)) for shape in SHAPES), (SHAPES[-1], real(1, 4, 1, 1))):
        for make in _of_two(channel):
            yield one(make, tensor(*shape), tensor(*shape))
        for make in _of_one(channel):
            yield one(make, tensor(*shape))


def integers() -> Iterator[Any]:
    """Positions, tokens and masks."""
    for shape in ((8,), (1, 8), (1, 1, 8)):
        for kind in (np.int64, np.int32):
            for name in ("add", "multiply", "equal", "not_equal", "less", "less_equal", "greater_equal"):
                make = getattr(o, name)
                yield one(make, *(tensor(*shape, kind=kind) for _ in "xy"))
                yield one(lambda x, f=make, k=kind: f(x, k(3)), tensor(*shape, kind=kind))
            yield one(o.subtract, *(tensor(*shape, kind=kind) for _ in "xy"))
            yield one(lambda x, k=kind: o.subtract(k(3), x), tensor(*shape, kind=kind))
            for other in ("i32", "i64", "f32"):
                differs = lambda x, k=kind, t=other: o.convert(o.not_equal(x, k(3)), t)  # noqa: E731
                yield one(differs, tensor(*shape, kind=kind))
                yield one(lambda x, k=kind, t=other: o.convert(o.add(x, k(3)), t), tensor(*shape, kind=kind))
        for make in (o.logical_and, o.logical_or):
            yield one(make, *(tensor(*shape, kind=np.bool_) for _ in "xy"))
    for kind in (np.int64, np.int32):  # padding is not counted
        ids = tensor(-1, -1, kind=kind)
        for other in ("i32", "i64"):
            kept = o.convert(o.not_equal(ids, kind(1)), "i32")
            counted = o.multiply(o.convert(o.cum_sum(kept, np.int64(1)), other), o.convert(kept, other))
            places = o.add(o.convert(counted, "i64"), np.int64(1))
            made = [o.gather(real(32, WIDE), each, np.int64(0)) for each in (o.convert(ids, "i32"), places)]
            yield ov.Model([o.add(*made)], [ids], "places")
    yield from _selected()


def _selected() -> Iterator[Any]:
    for shape in SHAPES:
        x, seen = tensor(*shape), tensor(*shape, kind=np.bool_)
        hidden = number(-3.4e38)
        for given, beside in ((x, hidden), (hidden, x), (number(0), hidden)):
            yield ov.Model([o.select(seen, given, beside)], [x, seen], "selected")
        yield ov.Model([o.softmax(o.select(seen, x, hidden), -1)], [x, seen], "selected")


def rows() -> Iterator[Any]:
    """What stands before softmaxes, and behind norms and means."""
    for shape in ((4, 16, 16), (1, 4, 16, 16), (1, 4, 16, 49), (-1, 4, -1, -1)):
        channel = real(shape[-1]) if shape[-1] > 0 else number(0.7)
        for make in (
            lambda x: o.softmax(o.multiply(x, number(0.3)), -1),
            lambda x: o.softmax(o.divide(x, number(1.3)), -1),
            lambda x, c=channel: o.softmax(o.add(x, c), -1),
            lambda x, c=channel: o.softmax(o.add(o.multiply(x, number(0.3)), c), -1),
        ):
            yield one(make, tensor(*shape))
        yield one(lambda x, y: o.softmax(o.add(x, y), -1), tensor(*shape), tensor(*shape))
        yield one(
            lambda x, y: o.softmax(o.multiply(o.add(x, y), number(0.3)), -1), tensor(*shape), tensor(*shape)
        )
    yield from norms()
    for act in (o.gelu, o.relu, o.hswish, o.swish):
        yield one(lambda x, f=act: f(layer_norm(x, WIDE)), tensor(*SHAPES[1]))
    for name in ("mean", "sum", "max"):
        reduce = getattr(o, f"reduce_{name}")
        for axes, shape in ((ints(-1), SHAPES[1]), (ints(1), SHAPES[1]), (ints(2, 3), (1, 4, 48, 64))):
            for keep in (True, False):
                yield one(lambda x, f=reduce, a=axes, k=keep: f(x, a, k), tensor(*shape))
                yield one(lambda x, f=reduce, a=axes, k=keep: o.add(f(x, a, k), number(0.3)), tensor(*shape))
                yield one(
                    lambda x, f=reduce, a=axes, k=keep: o.multiply(f(x, a, k), number(0.3)), tensor(*shape)
                )


def norms() -> Iterator[Any]:
    """Rows of a length of 1, and those that are divided by their length beside the mean one."""
    for shape, axes in (((1, 8, 8, WIDE), ints(1, 2)), (SHAPES[1], ints(-1)), (SHAPES[1], ints(1)),
                        ((1, 4, 16, 49), ints(-1))):  # fmt: skip

        def length(x: Any, axes: Any = axes) -> Any:
            return o.power(o.reduce_sum(o.power(x, number(2)), axes, True), number(0.5))

        yield one(lambda x, f=length: o.divide(x, o.maximum(f(x), number(1e-12))), tensor(*shape))
        yield one(lambda x, f=length: o.divide(x, o.add(f(x), number(1e-6))), tensor(*shape))
        if shape[-1] == WIDE:

            def beside(x: Any, f: Any = length) -> Any:
                ratio = o.divide(f(x), o.add(o.reduce_mean(f(x), ints(-1), True), number(1e-6)))
                return o.add(x, o.add(o.multiply(o.multiply(x, ratio), real(WIDE)), real(WIDE)))

            yield one(beside, tensor(*shape))


def products() -> Iterator[Any]:
    """Matrix products and what follows them."""
    for lead in ((-1,), (-1, -1)):  # few rows have kernels of their own
        x, y, z = (tensor(*lead, wide) for wide in (WIDE, 2 * WIDE, 2 * WIDE))
        channel = real(2 * WIDE, value=0.5)
        plain, sums = o.matmul(x, real(2 * WIDE, WIDE), False, True), linear(x, WIDE, 2 * WIDE)
        for made in (
            *(act(sums) for act in (o.relu, o.gelu, o.swish, o.sigmoid, o.tanh, o.hswish, o.softplus, o.exp)),
            *(act(plain) for act in (o.relu, o.gelu, o.swish, o.sigmoid)),
            o.gelu(sums, "tanh"), o.multiply(plain, number(0.3)), o.multiply(sums, number(0.3)),
            o.add(o.multiply(plain, number(0.3)), channel), o.divide(sums, number(1.3)),
            o.select(o.greater(sums, number(20)), sums, o.softplus(sums)), o.power(o.relu(sums), number(2)),
            o.multiply(sums, o.sigmoid(o.multiply(sums, number(1.702)))),
        ):  # fmt: skip
            yield ov.Model([made], [x], "product")
        for made in (
            o.add(plain, y), o.add(sums, y), o.multiply(sums, y), o.relu(o.add(sums, y)),
            o.add(o.multiply(sums, channel), y), o.add(o.multiply(plain, channel), y),
            o.add(o.add(o.multiply(plain, channel), channel), y),
            o.add(o.multiply(plain, number(0.3)), channel),
            o.add(o.multiply(sums, number(0.3)), y),
        ):  # fmt: skip
            yield ov.Model([made], [x, y], "product")
        yield ov.Model([o.add(o.add(sums, y), z)], [x, y, z], "product")
    for rows, columns in ((16, 16), (-1, -1)):
        a, b = tensor(-1, 4, rows, 16), tensor(-1, 4, columns, 16)
        biases = tensor(-1, 1, 1, columns), tensor(1, 4, rows, columns)
        scores = o.matmul(a, b, False, True)
        for made in (scores, o.multiply(scores, number(0.3)), o.divide(scores, number(1.3))):
            yield ov.Model([made], [a, b], "scores")
            for bias in biases:
                yield ov.Model([o.add(made, bias)], [a, b, bias], "scores")
            yield ov.Model([o.add(o.add(made, biases[1]), biases[0])], [a, b, *biases], "scores")


def windows() -> Iterator[Any]:
    """Convolutions and what follows them: depthwise ones by size and stride, grouped ones, sums."""
    channels, side = 32, 28

    def act(x: Any) -> list[Any]:
        return [x, *(f(x) for f in (o.relu, o.hswish, o.swish, o.gelu)), o.clamp(x, 0.0, 6.0)]

    def convolved(x: Any, size: int, stride: int, groups: int, dilation: int = 1) -> Any:
        return conv(x, channels, channels, size, stride, groups, dilation)

    start = image(side, channels)
    for size in (3, 5, 7):
        for stride in (1, 2):
            for made in act(convolved(start, size, stride, channels)):
                yield ov.Model([made], [start], "depthwise")
        yield ov.Model([o.add(convolved(start, size, 1, channels), start)], [start], "depthwise")
        for made in act(convolved(start, size, 1, channels, 2))[: 3 if size < 7 else 0]:
            yield ov.Model([made], [start], "depthwise")
    for stride in (1, 2):
        for made in act(convolved(start, 3, stride, 4))[:4]:
            yield ov.Model([made], [start], "grouped")
    for size in (1, 3):
        y = image(side, channels)
        sums = convolved(start, size, 1, 1)
        for made in (
            o.relu(o.add(o.add(sums, y), start)), o.add(o.add(sums, y), start), o.add(o.relu(sums), y),
            o.multiply(o.relu(sums), y), o.multiply(sums, y), o.add(o.swish(sums), y),
            o.relu(o.add(o.multiply(sums, number(0.3)), y)),
        ):  # fmt: skip
            yield ov.Model([made], [start, y], "sums")
        for f in (o.tanh, o.sigmoid, o.gelu, o.mish, o.hswish, o.elu):
            made = f(sums, 1.0) if f is o.elu else f(sums)
            yield ov.Model([made], [start], "sums")


def heads() -> Iterator[Any]:
    """Boxes from what a detector says of anchors, places of what is found, and parts of maps."""
    boxes, moves = tensor(-1, 4), tensor(-1, 4)
    low, high = o.split(boxes, np.int64(1), 2).outputs()
    shift, growth = o.split(moves, np.int64(1), 2).outputs()
    size = o.subtract(high, low)
    middle = o.add(o.multiply(shift, size), o.add(low, o.multiply(size, number(0.5))))
    half = o.multiply(o.multiply(o.exp(o.minimum(growth, number(4.135))), size), number(0.5))
    found = [o.clamp(made, 0.0, 800.0) for made in (o.subtract(middle, half), o.add(middle, half))]
    yield ov.Model([o.concat(found, 1)], [boxes, moves], "boxes")
    for shape in ((-1,), (-1, -1)):
        yield one(lambda x: o.non_zero(o.greater(x, number(0.05)), "i64"), tensor(*shape))
        yield one(lambda x: o.convert(o.multiply(x, number(0.3)), "i64"), tensor(*shape))
        for kind in (np.int64, np.int32, np.float32):
            for place in (np.int64, np.int32):
                given = tensor(*shape, kind=kind), tensor(-1, kind=place)
                yield one(lambda x, i: o.gather(x, i, np.int64(0)), *given)
    for kind in (np.int64, np.int32, np.float32):
        for axis in (0, 1):
            for t in ("i64", "i32"):
                best = o.topk(tensor(4, 16, kind=kind), np.int64(1), axis, "max", "none", t)
                yield ov.Model([best.output(1)], [best.input_value(0).get_node()], "best")
            for name in ("min", "max", "sum"):
                least = getattr(o, f"reduce_{name}")
                given = tensor(4, 16, kind=kind)
                yield one(lambda x, f=least, a=axis: f(x, ints(a), False), given)
                yield one(lambda x, f=least, a=axis: o.convert(f(x, ints(a), False), "i64"), given)
    for mode in ("avg", "max"):
        maps, places, of = tensor(1, 16, 8, 8), tensor(-1, 4), tensor(-1, kind=np.int64)
        yield ov.Model([o.roi_align(maps, places, of, 7, 7, 2, 0.25, mode)], [maps, places, of], "parts")


def sequences() -> Iterator[Any]:
    """Sequences of several lengths, and spectra of sound."""
    size = 32
    for kind, gates in (("lstm", 4), ("gru", 3)):
        x, lengths = tensor(-1, -1, size), tensor(-1, kind=np.int64)
        batch = o.gather(o.shape_of(x, "i64"), ints(0), np.int64(0))
        for direction, ways in (("forward", 1), ("bidirectional", 2)):
            state = o.broadcast(number(0), o.concat([batch, ints(ways, size)], 0))
            states = [state] * (2 if kind == "lstm" else 1)
            weights = [real(ways, gates * size, size)] * 2
            made = getattr(o, f"{kind}_sequence")(
                x, *states, lengths, *weights, real(ways, gates * size), size, direction
            )
            yield ov.Model([made.output(0), made.output(1)], [x, lengths], "ragged")
    frames = tensor(1, -1, 64)
    spectrum = o.rdft(o.multiply(frames, real(64)), ints(-1))
    power = o.reduce_sum(o.multiply(spectrum, spectrum), ints(-1), False)
    yield ov.Model([o.log(o.add(power, number(1e-6)))], [frames], "spectrum")
    yield one(lambda x: o.irdft(x, ints(1)), tensor(4, 33, 2))
    sound = tensor(1, WIDE, -1)
    each = o.mvn(sound, ints(-1), True, 1e-5, "INSIDE_SQRT")
    yield ov.Model([o.gelu(o.add(o.multiply(each, real(1, WIDE, 1)), real(1, WIDE, 1)))], [sound], "sound")


def combinations() -> Iterator[Any]:
    """All of them."""
    for some in (operands, chains, integers, rows, products, windows, heads, sequences):
        yield from some()
