"""The layers that most networks are made of, as small models: what text is shipped for (`ovjit.tools.ship`).

Only what a kernel depends on matters: kinds of layers and what follows them, element types, the sizes of
windows, and whether a tensor is a model's input or computed. Weights are zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import ovjit as ov
from ovjit.tools.layers_combinations import combinations
from ovjit.tools.layers_exported import exported
from ovjit.tools.layers_further import further
from ovjit.tools.layers_linear import linear_quantised
from ovjit.tools.layers_networks import networks, paddle_hswish, stored_weights
from ovjit.tools.layers_quantized import quantised
from ovjit.tools.layers_varied import varied

o = ov.opset13
#: A function of a layer's input; mypy finds no type for lambdas with defaults.
Layer = Any


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def model(shape: Sequence[int], make: Layer) -> Any:
    x = o.parameter(list(shape), np.float32)
    return ov.Model([make(x)], [x], "layer")


def bias(channels: int, x: Any) -> Any:
    return o.add(x, zeros(1, channels, 1, 1))


def convolution(x: Any, outs: int, channels: int, size: int, stride: int = 1, groups: int = 1) -> Any:
    pads = [size // 2] * 2
    window = ([stride] * 2, pads, pads, [1, 1])
    if groups == 1:
        return bias(outs, o.convolution(x, zeros(outs, channels, size, size), *window))
    weights = zeros(groups, outs // groups, channels // groups, size, size)
    return bias(outs, o.group_convolution(x, weights, *window))


ACTIVATIONS: dict[str, Layer] = {
    "none": lambda x: x, "relu": o.relu, "relu6": lambda x: o.clamp(x, 0.0, 6.0), "swish": o.swish,
    "hswish": o.hswish, "sigmoid": o.sigmoid, "leaky": lambda x: o.prelu(x, zeros(1)),
}  # fmt: skip


def _elementwise() -> Iterator[Any]:
    """Single operations on numbers."""
    for shape in ((8,), (1, 8), (1, 16, 128), (1, 16, 8, 8)):
        x, y = (o.parameter(list(shape), np.float32) for _ in "xy")
        for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
            yield ov.Model([getattr(o, name)(x, y)], [x, y], "pair")
            yield ov.Model([getattr(o, name)(x, zeros(1))], [x], "constant")
            yield ov.Model([getattr(o, name)(x, x)], [x], "twice")
        for name in ("relu", "sigmoid", "tanh", "exp", "sqrt", "hswish", "swish"):
            yield ov.Model([getattr(o, name)(x)], [x], "single")


def _plain() -> Iterator[Any]:
    """Single layers, and what stands between two convolutions."""
    yield from _single()
    for make in _inner():
        yield from between(make)
    yield from _ends()
    # matrix products, as of transformers
    for rows in ((1, 128), (1, 16, 128)):
        wide = zeros(128, 256)
        yield model(rows, lambda x, w=wide: o.matmul(x, w, False, False))
        for name in (o.relu, o.gelu if hasattr(o, "gelu") else o.relu):
            yield model(rows, lambda x, w=wide, a=name: a(o.add(o.matmul(x, w, False, False), zeros(256))))
        yield model(rows, lambda x, w=wide: o.add(o.matmul(x, w, False, False), zeros(256)))
        yield model(rows, lambda x: o.softmax(x, -1))
        yield model(rows, lambda x: o.mvn(x, np.array([-1]), True, 1e-5, "INSIDE_SQRT"))


def _single() -> Iterator[Any]:
    """Convolutions and pooling."""
    # (channels, pixels of a side, outputs, size, stride): the direct way and Winograd's two
    for channels, side, outs, size, stride in (
        (3, 64, 32, 3, 2), (3, 64, 64, 7, 2), (64, 56, 64, 1, 1), (64, 56, 64, 3, 1), (256, 14, 256, 3, 1),
        (512, 7, 512, 3, 1), (128, 56, 128, 3, 2),
    ):  # fmt: skip
        for name in ("none", "relu", "relu6", "swish"):
            if name in ("none", "relu") or (size, stride) == (1, 1):
                activate = ACTIVATIONS[name]
                yield model(
                    (1, channels, side, side),
                    lambda x, a=activate, c=channels, n=outs, k=size, s=stride: a(convolution(x, n, c, k, s)),
                )
    for size in (1, 3):
        yield model((1, 64, 56, 56), lambda x, k=size: o.relu(o.add(convolution(x, 64, 64, k), x)))
    yield model((1, 64, 56, 56), lambda x: o.add(convolution(x, 64, 64, 1), x))
    for name in ("none", "relu", "relu6", "hswish", "swish"):
        for stride in (1, 2):
            yield model(
                (1, 32, 28, 28),
                lambda x, a=ACTIVATIONS[name], s=stride: a(convolution(x, 32, 32, 3, s, groups=32)),
            )
    for size, stride in ((2, 2), (3, 2)):
        window = ([stride] * 2, [size // 2] * 2, [size // 2] * 2, [size] * 2)
        yield model(
            (1, 64, 56, 56), lambda x, w=window: o.relu(o.max_pool(x, w[0], [1, 1], *w[1:]).output(0))
        )


def _inner() -> list[Layer]:
    """Layers between convolutions, where a model of bf16 keeps it."""

    def pool(kind: str, size: int, stride: int) -> Any:
        window = ([stride] * 2, [size // 2] * 2, [size // 2] * 2, [size] * 2)
        if kind == "max":
            return lambda x: o.max_pool(x, window[0], [1, 1], *window[1:]).output(0)
        return lambda x: o.avg_pool(x, *window, kind == "avg")

    def scaled(x: Any) -> Any:
        factor = np.full((1, 64, 1, 1), 0.5, np.float32)
        return o.relu(o.add(o.multiply(x, factor), factor))

    return [
        scaled, o.relu, o.gelu, lambda x: o.concat([x, o.relu(x)], 1),
        lambda x: o.relu(o.concat([x, pool("avg_inside", 3, 1)(x)], 1)),
        lambda x: o.relu(o.add(x, convolution(x, 64, 64, 3))),
        *(pool(kind, size, stride) for kind in ("max", "avg", "avg_inside")
          for size, stride in ((2, 2), (3, 1), (3, 2))),
        *(lambda x, s=stride, a=ACTIVATIONS[name]: a(convolution(x, 64, 64, 3, s, groups=64))
          for stride in (1, 2) for name in ("none", "relu", "relu6", "swish")),
    ]  # fmt: skip


def _ends() -> Iterator[Any]:
    """What is behind the last convolution."""

    def classified(pooled: Any) -> Any:
        row = o.reshape(pooled, np.array([1, 64]), False)
        return o.softmax(o.add(o.matmul(row, zeros(64, 48), False, False), zeros(48)), 1)

    for whole in (
        lambda x: o.avg_pool(x, [1, 1], [0, 0], [0, 0], [7, 7], False),
        lambda x: o.reduce_mean(x, np.array([2, 3]), True),
    ):
        yield model((1, 64, 7, 7), lambda x, w=whole: classified(w(convolution(x, 64, 64, 1))))
    yield model((1, 64, 7, 7), lambda x: o.reduce_mean(x, np.array([2, 3]), True))
    yield model((1, 64, 7, 7), lambda x: o.avg_pool(x, [1, 1], [0, 0], [0, 0], [7, 7], False))


def between(make: Layer, sides: Sequence[int] = (56, 7), channels: int = 64) -> Iterator[Any]:
    """Models with a layer between two convolutions, where one of bf16 keeps bf16."""

    def inside(x: Any) -> Any:
        y = o.concat([make(convolution(x, channels, channels, 1))], 1)
        return convolution(y, channels, y.output(0).shape[1], 1)

    for side in sides:
        yield model((1, channels, side, side), inside)


def _squeezed(gate: Layer) -> Layer:
    """x times a gate for each channel, made of its mean: squeeze and excitation."""

    def layer(x: Any) -> Any:
        few = o.relu(convolution(o.reduce_mean(x, np.array([2, 3]), True), 16, 64, 1))
        return o.multiply(x, gate(convolution(few, 64, 16, 1)))

    return layer


def _nearest(x: Any) -> Any:
    return o.interpolate(
        x, np.array([2, 2], np.float32), "nearest", "scales", axes=np.array([2, 3]),
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip


def _convolutional() -> Iterator[Any]:
    """Convolutional networks of the last ten years."""

    def hard(x: Any) -> Any:
        return o.hard_sigmoid(x, np.float32(1 / 6), np.float32(0.5))

    def deep(size: int, act: Layer, stride: int = 1) -> Layer:
        return lambda x: act(convolution(x, 64, 64, size, stride, groups=64))

    def joined(x: Any) -> Any:  # a normalization that no weights can take
        factor = np.full((1, 128, 1, 1), 0.5, np.float32)
        return o.relu(o.add(o.multiply(o.concat([x, o.relu(x)], 1), factor), factor))

    none, relu, swish = (ACTIVATIONS[name] for name in ("none", "relu", "swish"))
    for channels, side in ((64, 56), (512, 7)):  # Winograd's two

        def square(x: Any, n: int = channels) -> Any:
            return convolution(x, n, n, 3)

        for act in (none, relu, swish):
            yield from between(lambda x, f=square, a=act: a(f(x)), (side,), channels)
        yield from between(lambda x, f=square: o.add(x, swish(f(x))), (side,), channels)
        yield from between(lambda x, f=square: o.relu(o.add(x, f(x))), (side,), channels)
    for act in (swish, hard, o.sigmoid, o.hswish, paddle_hswish):
        yield from between(lambda x, a=act: a(convolution(x, 64, 64, 1)), (7,))
    yield from between(lambda x: o.add(x, convolution(x, 64, 64, 1)), (7,))
    for gate in (hard, o.sigmoid):
        yield from between(_squeezed(gate))
    for size, act in ((3, paddle_hswish), (5, none), (5, relu), (5, swish), (5, o.hswish),
                      (5, paddle_hswish), (7, none)):  # fmt: skip
        yield from between(deep(size, act), (7,))
    yield from between(deep(5, swish, 2), (7,))
    yield from between(joined, (7,))
    yield from between(lambda x: o.lrn(x, np.array([1]), 1e-4, 0.75, 1.0, 5), (7,))
    for groups in (2, 4):
        yield from between(lambda x, g=groups: o.relu(o.shuffle_channels(x, 1, g)), (7,))
    yield from between(_nearest, (7,))
    yield from between(lambda x: o.max_pool(x, [1, 1], [1, 1], [2, 2], [2, 2], [5, 5]).output(0), (7,))
    yield model((1, 64, 7, 7), lambda x: o.sigmoid(convolution(x, 8, 64, 1)))


def _transformers() -> Iterator[Any]:
    """An encoder with a table of words and a mask, in the order of BERT and in that of ViT."""
    wide, heads, length = 64, 2, 16

    def linear(x: Any, wide: int, outs: int) -> Any:
        return o.add(o.matmul(x, zeros(outs, wide), False, True), zeros(outs))

    def norm(x: Any) -> Any:
        y = o.mvn(x, np.array([-1]), True, 1e-5, "INSIDE_SQRT")
        return o.add(o.multiply(y, np.full(wide, 0.5, np.float32)), np.full(wide, 0.5, np.float32))

    def split(x: Any) -> Any:
        apart = o.reshape(x, np.array([0, 0, heads, wide // heads]), True)
        return o.transpose(apart, np.array([0, 2, 1, 3]))

    def block(x: Any, mask: Any, before: bool) -> Any:
        y = norm(x) if before else x
        q, k, v = (split(linear(y, wide, wide)) for _ in range(3))
        if mask is None:
            z = o.scaled_dot_product_attention(q, k, v)
        else:
            scores = o.add(o.divide(o.matmul(q, k, False, True), np.float32(4)), mask)
            z = o.matmul(o.softmax(scores, -1), v, False, False)
        whole = o.reshape(o.transpose(z, np.array([0, 2, 1, 3])), np.array([0, 0, wide]), True)
        x = o.add(x, linear(whole, wide, wide))
        x = x if before else norm(x)
        y = norm(x) if before else x
        x = o.add(x, linear(o.gelu(linear(y, wide, 2 * wide)), 2 * wide, wide))
        return x if before else norm(x)

    for kind in (np.int64, np.int32):
        ids, given = (o.parameter([1, length], kind) for _ in "ab")
        x = o.add(o.gather(zeros(32, wide), ids, np.int64(0)), zeros(1, length, wide))
        shown = o.unsqueeze(o.convert(given, "f32"), np.array([1, 2]))
        mask = o.multiply(o.subtract(np.float32(1), shown), np.float32(-10000))
        x = block(norm(x), mask, False)
        first = o.gather(x, np.int64(0), np.int64(1))
        yield ov.Model([x, o.tanh(linear(first, wide, wide))], [ids, given], "encoder")
    for act in ("erf", "tanh"):
        yield model(
            (1, length, wide), lambda x, a=act: linear(o.gelu(linear(x, wide, 2 * wide), a), 2 * wide, wide)
        )
    yield model((1, length, wide), lambda x: norm(block(block(x, None, True), None, True)))


def _decoders() -> Iterator[Any]:
    """Decoders with keys and values in variables and a mask made of shapes: one in the order of GPT-2 and one
    in that of Llama, as linear layers are stored."""
    for stored in ("f32", "u8", "i4"):
        yield _decoder(stored, True)
        yield _decoder(stored, False)
    for stored in ("even", "i8", "u4", "f16"):
        yield _decoder(stored, True, True)


def _causal_mask(ids: Any, given: Any) -> Any:
    """[batch, 1, new tokens, all tokens]: 0 where a token sees another, a large negative number elsewhere."""
    zero = np.int64(0)
    new, whole = (o.gather(o.shape_of(v, "i64"), np.int64(1), zero) for v in (ids, given))
    columns, rows = (o.range(first, whole, np.int64(1), "i64") for first in (zero, o.subtract(whole, new)))
    seen = o.less_equal(o.unsqueeze(columns, np.array([0])), o.unsqueeze(rows, np.array([1])))
    shown = o.unsqueeze(o.convert(given, "boolean"), np.array([1, 2]))
    both = o.logical_and(o.unsqueeze(seen, np.array([0, 1])), shown)
    return o.select(both, np.float32(0), np.float32(-65504))


def _rotation(places: Any, size: int) -> Callable[[Any], Any]:
    """What turns queries and keys of `size` elements by their positions."""
    real = o.unsqueeze(o.convert(places, "f32"), np.array([1]))
    angles = o.matmul(zeros(1, size // 2, 1), real, False, False)
    angles = o.transpose(angles, np.array([0, 2, 1]))
    angles = o.unsqueeze(o.concat([angles, angles], -1), np.array([1]))
    cosine, sine = o.cos(angles), o.sin(angles)

    def turned(x: Any) -> Any:
        ends = np.array([0]), np.array([size // 2]), np.array([np.iinfo(np.int64).max])
        low, high = (o.slice(x, ends[i], ends[i + 1], np.array([1]), np.array([3])) for i in (0, 1))
        half = o.concat([o.multiply(high, np.float32(-1)), low], -1)
        return o.add(o.multiply(x, cosine), o.multiply(half, sine))

    return turned


def _decoder(stored: str, turns: bool, half: bool = False) -> Any:
    """`turns`: positions turn queries and keys, four of which share a key; RMS norms and a gate. Otherwise
    positions are a table, and the words' table makes the logits too. `half`: that is in f16."""
    wide, size, words = 1024 if stored == "f16" else 256, 64, 1024  # few numbers in f16 are stored in f32
    heads, inner = wide // size, 6 * wide if stored == "f16" else 2 * wide
    shared = 1 if turns else heads
    numbers = [o.parameter([-1, -1], np.int64) for _ in "abc"]
    ids, given, places = numbers
    order, zero = o.parameter([-1], np.int32), np.int64(0)
    table = o.constant(zeros(words, wide))
    if half:
        table = o.convert(o.constant(np.zeros((words, wide), np.float16)), "f32")
    sinks: list[Any] = []
    x = o.gather(table, ids, zero)
    batch = o.gather(o.shape_of(ids, "i64"), np.array([0]), zero)

    def linear(x: Any, ins: int, outs: int) -> Any:
        y = o.matmul(x, stored_weights(stored, outs, ins), False, True)
        return y if turns else o.add(y, zeros(outs))

    def norm(x: Any) -> Any:
        if not turns:
            y = o.mvn(x, np.array([-1]), True, 1e-5, "INSIDE_SQRT")
            return o.add(o.multiply(y, np.full(wide, 0.5, np.float32)), np.full(wide, 0.5, np.float32))
        root = o.sqrt(o.add(o.reduce_mean(o.power(x, np.float32(2)), np.array([-1]), True), np.float32(1e-6)))
        return o.multiply(o.multiply(x, o.divide(np.float32(1), root)), np.full(wide, 0.5, np.float32))

    def split(x: Any, count: int) -> Any:
        return o.transpose(o.reshape(x, np.array([0, 0, count, size]), True), np.array([0, 2, 1, 3]))

    def cached(new: Any) -> Any:
        start = o.broadcast(np.float32(0), o.concat([batch, *map(np.array, ([shared], [0], [size]))], 0))
        name = f"past.{len(sinks)}"
        before = o.read_value(start, name, np.float32, ov.PartialShape([-1, shared, -1, size]))
        joined = o.concat([o.gather(before, order, zero), new], 2)
        sinks.append(o.assign(joined, name))
        return joined

    mask = _causal_mask(ids, given)
    turned = _rotation(places, size)

    def repeated(x: Any) -> Any:
        length = o.gather(o.shape_of(x, "i64"), np.array([2]), zero)
        target = o.concat([batch, np.array([shared, heads // shared]), length, np.array([size])], 0)
        wider = o.broadcast(o.unsqueeze(x, np.array([2])), target)
        return o.reshape(wider, np.array([0, heads, -1, size]), True)

    x = x if turns else o.add(x, o.gather(zeros(1024, wide), places, zero))
    for _ in range(2):
        y = norm(x)
        if turns:
            q, k = turned(split(linear(y, wide, wide), heads)), turned(split(linear(y, wide, size), shared))
            k, v = cached(k), cached(split(linear(y, wide, size), shared))
            k, v = repeated(k), repeated(v)
        else:
            parts = o.variadic_split(linear(y, wide, 3 * wide), np.int64(2), np.array([wide] * 3))
            q, k, v = (split(part, heads) for part in parts.outputs())
            k, v = cached(k), cached(v)
        z = o.scaled_dot_product_attention(q, k, v, mask)
        z = o.reshape(o.transpose(z, np.array([0, 2, 1, 3])), np.array([0, 0, wide]), True)
        x = o.add(x, linear(z, wide, wide))
        y = norm(x)
        if turns:
            y = o.multiply(o.swish(linear(y, wide, inner)), linear(y, wide, inner))
        else:
            y = o.gelu(linear(y, wide, inner), "tanh")
        x = o.add(x, linear(y, inner, wide))
    logits = linear(norm(x), wide, words) if turns else o.matmul(norm(x), table, False, True)
    return ov.Model([o.result(logits)], sinks, [*numbers, order], "decoder")


def _recurrent() -> Iterator[Any]:
    """Sequences of LSTM and GRU cells."""
    size, length = 32, 4
    for kind, gates in (("lstm", 4), ("gru", 3)):
        x = o.parameter([1, length, size], np.float32)
        state = [zeros(1, 1, size)] * (2 if kind == "lstm" else 1)
        weights = [zeros(1, gates * size, size)] * 2
        given = [x, *state, np.array([length]), *weights, zeros(1, gates * size), size, "forward"]
        yield ov.Model([getattr(o, f"{kind}_sequence")(*given).output(0)], [x], "recurrent")


def _moves() -> Iterator[Any]:
    """Integers, truth values and bytes between them."""
    shape = [2, 3, 8]
    for kind in (np.int64, np.int32, np.uint8, np.bool_, np.float32):
        x = o.parameter(shape, kind)
        yield ov.Model([o.transpose(x, np.array([1, 0, 2]))], [x], "turned")
        for other in ("f32", "i64", "i32", "boolean"):
            yield ov.Model([o.convert(x, other)], [x], "converted")
    x = o.parameter(shape, np.int64)
    yield ov.Model([o.equal(x, np.int64(0))], [x], "compared")


def _quantized() -> Iterator[Any]:
    """Convolutions in 8-bit integers, as NNCF writes them: unsigned after a rectifier, signed elsewhere.

    The ends of ranges are numbers that no two models share, so that kernels read them.
    """

    def ranged(x: Any, low: float = 0.0, high: float = 2.37) -> Any:
        ends = [np.full((), end, np.float32) for end in (low, high)]
        return o.fake_quantize(x, *ends, *ends, 256)

    def weights(*shape: int) -> Any:
        ends = [np.full((shape[0], *[1] * (len(shape) - 1)), end, np.float32) for end in (-1.27, 1.27)]
        return o.fake_quantize(np.ones(shape, np.float32), *ends, *ends, 255)

    def layer(x: Any, size: int, stride: int = 1, ins: int = 64) -> Any:
        pads = [size // 2] * 2
        return bias(64, o.convolution(x, weights(64, ins, size, size), [stride] * 2, pads, pads, [1, 1]))

    def signed(x: Any) -> Any:
        return ranged(x, -2.118, 2.64)

    def pooled(x: Any) -> Any:
        return o.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)

    def network(x: Any) -> Any:
        x = ranged(o.relu(pooled(ranged(o.relu(layer(signed(x), 7, 2, 3))))))
        for stride in (1, 2):
            y = signed(layer(ranged(o.relu(layer(x, 3, stride))), 1))
            beside = x if stride == 1 else signed(layer(x, 1, 2))
            x = ranged(o.relu(o.add(y, beside)))
        mean = ranged(o.reduce_mean(x, np.array([2, 3]), False))
        return o.softmax(o.add(o.matmul(mean, weights(48, 64), False, True), zeros(48)), 1)

    yield model((1, 3, 56, 56), network)
    for act in (o.relu, ACTIVATIONS["relu6"]):
        yield model((1, 3, 56, 56), lambda x, a=act: a(layer(ranged(a(layer(signed(x), 3, 2, 3))), 1)))


#: What libraries of array functions compile one at a time, by the types that they are defined for.
NUMBERS = ("f32", "i32", "i64")
PAIRS = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "floor_mod", "mod")
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
SINGLE = ("abs", "negative", "sign", "relu")
SINGLE_F32 = (
    "log", "sin", "cos", "tan", "erf", "floor", "ceiling", "asin", "acos", "atan", "sinh", "cosh", "asinh",
    "acosh", "atanh", "softplus", "mish", "hsigmoid",
)  # fmt: skip
REDUCTIONS = ("sum", "mean", "max", "min", "prod", "l2")


def _functions() -> Iterator[Any]:
    """Models of one operation, as array libraries make them of each function."""

    def alone(make: Layer, *types: str) -> Any:
        given = [o.parameter([2, 3], getattr(ov.Type, t)) for t in types]
        return ov.Model([make(*given)], given, "function")

    for name in SINGLE_F32:
        yield alone(getattr(o, name), "f32")
    yield alone(lambda x: o.gelu(x, "erf"), "f32")
    yield alone(lambda x: o.elu(x, 1.0), "f32")
    yield alone(lambda x: o.round(x, "half_to_even"), "f32")
    yield alone(lambda x: o.log_softmax(x, -1), "f32")
    for t in NUMBERS:
        for name in (*PAIRS, "squared_difference"):
            yield alone(getattr(o, name), t, t)
        for name in SINGLE:
            yield alone(getattr(o, name), t)
        for name in REDUCTIONS:
            for axis in (0, 1):
                yield alone(lambda x, n=name, a=axis: getattr(o, f"reduce_{n}")(x, np.array([a]), False), t)
        yield alone(lambda x: o.clamp(x, 0.0, 1.0), t)
        yield alone(lambda x: o.cum_sum(x, np.int64(0)), t)
        yield alone(lambda x: o.topk(x, np.int64(1), -1, "max", "value").output(0), t)
    for name in ("logical_and", "logical_or", "logical_xor"):
        yield alone(getattr(o, name), "boolean", "boolean")
    yield alone(o.logical_not, "boolean")
    for name in ("and", "or"):
        yield alone(lambda x, n=name: getattr(o, f"reduce_logical_{n}")(x, np.array([1]), False), "boolean")
    for t in (*NUMBERS, "boolean"):
        for name in COMPARISONS:
            yield alone(getattr(o, name), t, t)
        for other in (*NUMBERS, "boolean"):
            if other != t:
                yield alone(lambda x, to=other: o.convert(x, to), t)
        yield alone(o.select, "boolean", t, t)
        yield alone(lambda x: o.pad(x, np.array([1, 1]), np.array([1, 1]), "constant"), t)
        yield alone(lambda x, i: o.gather(x, i, np.int64(0)), t, "i64")
        yield alone(lambda x, i, u: o.scatter_elements_update(x, i, u, np.int64(0)), t, "i64", t)


#: Kinds of layers, the commonest first. What models need together is of one kind.
KINDS = (
    _elementwise, _plain, _convolutional, networks, _transformers, _decoders, _recurrent, _moves, _quantized,
    quantised, exported, further, _functions, combinations, varied, linear_quantised,
)  # fmt: skip


def layers() -> Iterator[Any]:
    """All of them, the commonest first."""
    for some in KINDS:
        yield from some()
