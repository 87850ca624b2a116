"""Layers as exporters to ONNX write them, for `ovjit.tools.ship`: activations, positions, masks and boxes in
several operations, and open sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import ovjit as ov
from ovjit.tools.layers_networks import affine, conv, image, ints, layer_norm, linear, number, real

o = ov.opset13
WIDE, HEADS = 64, 4


def by_sigmoid(x: Any) -> Any:
    return o.multiply(x, o.sigmoid(x))


def by_erf(x: Any) -> Any:
    inner = o.add(o.erf(o.divide(x, number(2**0.5))), number(1))
    return o.multiply(o.multiply(x, inner), number(0.5))


def by_power(x: Any) -> Any:
    cube = o.multiply(o.power(x, number(3)), number(0.044715))
    inner = o.tanh(o.multiply(o.add(x, cube), number(0.7978845608)))
    return o.multiply(o.multiply(x, number(0.5)), o.add(inner, number(1)))


def words(shape: tuple[int, ...] = (-1, -1), name: str = "ids") -> Any:
    return o.parameter(list(shape), np.int64, name=name)


def length_of(ids: Any) -> Any:
    return o.gather(o.shape_of(ids, "i64"), np.int64(1), np.int64(0))


def line(length: Any) -> Any:
    return o.range(np.int64(0), length, np.int64(1), "i64")


def table(x: Any, rows: int = 32) -> Any:
    return o.gather(real(rows, WIDE), x, np.int64(0))


def split(x: Any, order: tuple[int, ...] = (0, 2, 1, 3)) -> Any:
    return o.transpose(o.reshape(x, ints(0, -1, HEADS, WIDE // HEADS), True), ints(*order))


def attention(x: Any, masked: Any) -> Any:
    """`masked`: what is done to products of queries and keys."""
    q, v = (split(linear(x, WIDE, WIDE)) for _ in "qv")
    k = split(linear(x, WIDE, WIDE), (0, 2, 3, 1))
    z = o.matmul(o.softmax(masked(o.matmul(q, k, False, False)), -1), v, False, False)
    merged = o.reshape(o.transpose(z, ints(0, 2, 1, 3)), ints(0, -1, WIDE), True)
    return o.add(x, linear(merged, WIDE, WIDE))


def encoders() -> Iterator[Any]:
    """BERT's three tables and RoBERTa's positions, which count what is no padding."""
    for act in (by_erf, by_power, by_sigmoid):
        ids, kinds, mask = words(), words(name="kinds"), words(name="mask")
        places = o.slice(o.constant(np.arange(64)[None]), ints(0), o.unsqueeze(length_of(ids), ints(0)),
                         ints(1), ints(1))  # fmt: skip
        x = layer_norm(o.add(o.add(table(ids), table(kinds, 2)), table(places, 64)), WIDE)
        shown = o.unsqueeze(o.unsqueeze(o.convert(mask, "f32"), ints(1)), ints(2))
        bias = o.multiply(o.subtract(number(1), shown), number(-10000))
        x = layer_norm(attention(x, lambda s, b=bias: o.add(o.divide(s, number(4)), b)), WIDE)
        y = linear(act(linear(x, WIDE, 2 * WIDE)), 2 * WIDE, WIDE)
        yield ov.Model([layer_norm(o.add(x, y), WIDE)], [ids, kinds, mask], "encoder")
    ids = words()
    keep = o.convert(o.logical_not(o.equal(ids, np.int64(1))), "i32")
    places = o.add(o.convert(o.multiply(o.cum_sum(keep, np.int64(1)), keep), "i64"), np.int64(1))
    x = layer_norm(o.add(table(ids), table(places)), WIDE)
    seen = o.unsqueeze(o.convert(keep, "boolean"), ints(1, 2))
    bias = o.select(seen, number(0), number(-3.4028234663852886e38))
    x = attention(x, lambda s: o.add(o.multiply(s, number(0.25)), bias))
    yield ov.Model([x], [ids], "positions")
    yield ov.Model([places], [ids], "places")


def decoders() -> Iterator[Any]:
    """Masks by comparisons of positions, keys of the past as inputs, relative positions in buckets."""
    for causal in ("places", "table", "line"):
        ids, places = words(), words(name="places")
        past = o.parameter([-1, HEADS, -1, WIDE // HEADS], np.float32, name="past")
        x = table(ids)
        new = split(linear(x, WIDE, WIDE))
        keys = o.concat([past, new], 2)
        total = o.gather(o.shape_of(keys, "i64"), np.int64(2), np.int64(0))
        scores = o.matmul(split(linear(x, WIDE, WIDE)), o.transpose(keys, ints(0, 1, 3, 2)), False, False)
        columns = line(total)
        if causal == "places":
            seen = o.less_equal(o.unsqueeze(columns, ints(0, 1, 2)), o.unsqueeze(places, ints(1, 3)))
            scores = o.multiply(scores, number(0.25))
            scores = o.select(seen, scores, number(-3.4028234663852886e38))
        elif causal == "table":
            whole = o.constant(np.tril(np.ones((64, 64), np.uint8))[None, None])
            ends = o.unsqueeze(total, ints(0)), o.unsqueeze(o.subtract(total, length_of(ids)), ints(0))
            part = o.slice(whole, ends[1], ends[0], ints(1), ints(2))
            part = o.slice(part, ints(0), ends[0], ints(1), ints(3))
            scores = o.divide(scores, number(4))
            scores = o.select(o.convert(part, "boolean"), scores, number(-10000))
        else:
            rows = o.unsqueeze(line(length_of(ids)), ints(1))
            keep = o.less_equal(o.unsqueeze(columns, ints(0)), rows)
            hidden = o.multiply(o.subtract(number(1), o.convert(keep, "f32")), number(-3.4e38))
            scores = o.add(scores, hidden)
        z = o.matmul(o.softmax(scores, -1), keys, False, False)
        z = o.reshape(o.transpose(z, ints(0, 2, 1, 3)), ints(0, 0, WIDE), True)
        x = o.add(x, linear(z, WIDE, WIDE))
        gated = o.matmul(x, real(WIDE, 2 * WIDE), False, False)
        gated = o.multiply(by_sigmoid(gated), o.matmul(x, real(WIDE, 2 * WIDE, value=0.02), False, False))
        yield ov.Model([linear(gated, 2 * WIDE, 32), keys], [ids, places, past], "decoder")
    ids = words()
    rows = line(length_of(ids))
    gap = o.subtract(o.unsqueeze(rows, ints(0)), o.unsqueeze(rows, ints(1)))
    gap = o.negative(o.minimum(gap, o.broadcast(np.int64(0), o.shape_of(gap, "i64"))))
    far = o.divide(o.convert(o.maximum(gap, np.int64(1)), "f32"), number(4))
    far = o.multiply(o.divide(o.log(far), number(1.3862944)), number(4))
    far = o.minimum(o.add(o.convert(far, "i64"), np.int64(4)), np.int64(7))
    bucket = o.select(o.less(gap, np.int64(4)), gap, far)
    bias = o.transpose(o.gather(real(8, HEADS), bucket, np.int64(0)), ints(2, 0, 1))
    keep = o.less_equal(o.unsqueeze(rows, ints(0)), o.unsqueeze(rows, ints(1)))
    hidden = o.multiply(o.subtract(number(1), o.convert(keep, "f32")), number(-3.4e38))
    added = o.add(o.unsqueeze(bias, ints(0)), hidden)
    yield ov.Model([attention(table(ids), lambda s: o.add(s, added))], [ids], "buckets")


def detectors() -> Iterator[Any]:
    """Sigmoids beside products, boxes from a grid of open size, and what suppresses them."""
    start = o.parameter([-1, 3, 64, 64], np.float32)
    x = by_sigmoid(conv(by_sigmoid(conv(start, 3, 32, 3, 2)), 32, 32, 3, 2))
    x = o.add(x, by_sigmoid(conv(by_sigmoid(conv(x, 32, 32)), 32, 32)))
    x = by_sigmoid(conv(x, 32, 32, 3, 1, 32))
    found = o.reshape(conv(x, 32, 8), ints(0, 8, -1), True)
    boxes, chances = o.variadic_split(found, np.int64(1), ints(4, 4)).outputs()
    scores = o.sigmoid(chances)
    chosen = o.non_max_suppression(
        o.transpose(boxes, ints(0, 2, 1)), scores, np.int64(5), number(0.4), number(0.2),
        sort_result_descending=False,
    )  # fmt: skip
    yield ov.Model([boxes, scores.output(0), chosen.output(0)], [start], "suppressed")

    start = o.parameter([1, 3, -1, -1], np.float32)
    size = o.parameter([1, 2], np.float32)
    x = o.prelu(conv(o.prelu(conv(start, 3, 32, 3, 2), real(1)), 32, 32, 3, 2), real(1))
    head = conv(x, 32, 14)
    shape = o.shape_of(head, "i64")
    rows, columns = (o.gather(shape, np.int64(i), np.int64(0)) for i in (2, 3))
    ends = o.concat([ints(1, 2, 7), o.slice(shape, ints(2), ints(4), ints(1))], 0)
    y = o.transpose(o.reshape(head, ends, False), ints(0, 3, 4, 1, 2))
    tx, ty, tw, th, conf, kinds = o.variadic_split(y, np.int64(4), ints(1, 1, 1, 1, 1, 2)).outputs()
    at = [o.reshape(o.convert(line(n), "f32"), ints(*s), False)
          for n, s in ((columns, (1, 1, -1, 1, 1)), (rows, (1, -1, 1, 1, 1)))]  # fmt: skip
    middle = [o.multiply(o.add(o.sigmoid(t), g), number(16)) for t, g in zip((tx, ty), at, strict=True)]
    sizes = [o.multiply(o.exp(t), real(1, 1, 1, 2, 1, value=5)) for t in (tw, th)]
    halves = [o.divide(t, number(2)) for t in sizes]
    sides = [make(m, h) for make in (o.subtract, o.add) for m, h in zip(middle, halves, strict=True)]
    boxes = o.reshape(o.concat(sides, 4), ints(1, -1, 4), False)
    boxes = o.minimum(o.maximum(boxes, number(0)), o.concat([size, size], 1))
    scores = o.reshape(o.multiply(o.sigmoid(conf), o.sigmoid(kinds)), ints(1, -1, 2), False)
    scores = o.transpose(scores, ints(0, 2, 1))
    given = boxes, scores, np.int64(10), number(0.5), number(0.3)
    chosen, sorted_ = (o.non_max_suppression(*given, sort_result_descending=each) for each in (False, True))
    yield ov.Model([boxes.output(0), scores.output(0), chosen.output(0)], [start, size], "grid")
    yield ov.Model([sorted_.output(0)], [start, size], "grid")


def classifiers() -> Iterator[Any]:
    """Bytes made numbers around 0 first, a slope for each channel, normalisation behind sums."""
    for scale in (np.array([2**-7], np.float32), number(1 / 127.5)):
        start = image(28)
        x = o.multiply(o.subtract(start, scale * number(127.5) ** 2), scale)
        x = o.prelu(conv(x, 3, 8, 3), real(8, value=0.1))
        y = conv(o.prelu(conv(affine(x, 8), 8, 8, 3), real(8)), 8, 8, 3, 2)
        y = affine(o.add(y, conv(x, 8, 8, 1, 2)), 8)
        row = o.reshape(y, ints(1, -1), False)
        row = o.add(o.matmul(row, real(16, 8 * 14 * 14), False, True), real(16))
        yield ov.Model([o.add(o.multiply(row, real(1, 16, value=0.5)), real(1, 16))], [start], "faces")


def sounds() -> Iterator[Any]:
    """Features of sound: spectra, their logarithms, and gates of two parts."""
    signal = o.parameter([1, -1], np.float32)
    spectrum = ov.opset15.stft(signal, np.hanning(64).astype(np.float32), np.int64(64), np.int64(32), False)
    power = o.reduce_sum(o.multiply(spectrum, spectrum), ints(3), False)
    mel = o.log(o.add(o.matmul(power, real(33, 16), False, False), number(1e-6)))
    yield ov.Model([mel], [signal], "spectra")

    signal = o.parameter([1, 32, -1], np.float32)
    window = real(64, 32, 3), [1], [2], [2], [2]
    both = o.add(o.convolution(signal, *window), real(1, 64, 1))
    one, other = o.split(both, np.int64(1), 2).outputs()
    gate = o.multiply(o.tanh(one), o.sigmoid(other))
    yield ov.Model([gate], [signal], "gates")


def resized() -> Iterator[Any]:
    """Maps of open sizes, enlarged to sizes that are computed; positions of another image's size."""
    for mode, how in (
        ("linear_onnx", "half_pixel"),
        ("linear_onnx", "align_corners"),
        ("cubic", "half_pixel"),
    ):
        start, like = (o.parameter([-1, 3, -1, -1], np.float32, name=n) for n in ("start", "like"))
        x = conv(start, 3, 16, 3, 2)
        sizes = o.slice(o.shape_of(like, "i64"), ints(2), ints(4), ints(1))
        y = o.interpolate(x, sizes, mode, "sizes", axes=ints(2, 3), coordinate_transformation_mode=how)
        yield ov.Model([y], [start, like], "resized")
    start = o.parameter([-1, 3, -1, -1], np.float32)
    x = o.convolution(start, real(WIDE, 3, 8, 8), [8, 8], [0, 0], [0, 0], [1, 1])
    x = o.add(x, real(1, WIDE, 1, 1))
    cells = o.divide(o.slice(o.shape_of(start, "i64"), ints(2), ints(4), ints(1)), ints(8))
    places = o.interpolate(real(1, WIDE, 4, 4), cells, "cubic", "sizes", axes=ints(2, 3))
    both = [o.transpose(o.reshape(t, ints(0, WIDE, -1), True), ints(0, 2, 1)) for t in (x, places)]
    whole = layer_norm(o.add(*both), WIDE)
    plain = o.mvn(linear(o.gelu(linear(whole, WIDE, WIDE)), WIDE, WIDE), ints(-1), True, 1e-5, "INSIDE_SQRT")
    yield ov.Model([plain, o.gelu(whole)], [start], "places")


def normed() -> Iterator[Any]:
    """Normalised rows, with the numbers that are added to variances."""
    for small in (1e-12, 1e-7, 1e-6, 1e-5):

        def norm(x: Any, eps: float = small) -> Any:
            return o.mvn(x, ints(-1), True, eps, "INSIDE_SQRT")

        def scaled(x: Any) -> Any:
            return o.add(o.multiply(norm(x), real(WIDE, value=0.5)), real(WIDE))

        a, b, c = (o.parameter([-1, -1, WIDE], np.float32) for _ in "abc")
        two = o.add(a, b)
        for make in (norm, scaled, lambda x: o.multiply(norm(x), real(WIDE, value=0.5))):
            yield ov.Model([make(a)], [a], "normed")
            yield ov.Model([make(two)], [a, b], "normed")
        yield ov.Model([scaled(o.add(two, c))], [a, b, c], "normed")
        yield ov.Model([scaled(linear(a, WIDE, WIDE)), two], [a, b], "normed")


def numbers() -> Iterator[Any]:
    """Sums of places and extents, which models with open sizes compute."""
    shape: tuple[int, ...]
    for shape in ((), (-1,), (-1, -1)):
        x, y = (o.parameter(list(shape), np.int64) for _ in "xy")
        for make in (o.add, o.subtract, o.multiply):
            yield ov.Model([make(x, y)], [x, y], "pair")
            yield ov.Model([make(x, np.int64(3))], [x], "constant")
        yield ov.Model([o.subtract(np.int64(3), x)], [x], "from")
        yield ov.Model([o.add(o.subtract(x, y), np.int64(3))], [x, y], "extent")
        yield ov.Model([o.equal(x, np.int64(3))], [x], "equal")
        for size in (14, 16, 32):
            yield ov.Model([o.divide(x, np.int64(size))], [x], "patches")
    boxes = o.parameter([-1, -1, 4], np.float32)
    given = real(1, 1, 4)
    yield ov.Model([o.add(o.multiply(boxes, given), given)], [boxes], "scaled")
    yield ov.Model([o.multiply(o.exp(o.multiply(boxes, given)), given)], [boxes], "sizes")
    yield ov.Model([o.multiply(o.subtract(boxes, given), given)], [boxes], "moved")
    yield ov.Model([o.subtract(o.multiply(boxes, given), given)], [boxes], "shifted")
    for value in (2, 4, 8, 0.5):
        for shape in ((-1, -1, 4), (-1, -1, 4, 8)):
            x = o.parameter(list(shape), np.float32)
            yield ov.Model([o.multiply(x, number(value))], [x], "times")
    for shape in ((-1, -1, 8), (-1, 4, -1, 8)):
        other = (-1, -1, 1) if len(shape) == 3 else (-1, 1, -1, 8)
        x, y = (o.parameter(list(each), np.float32) for each in (shape, other))
        yield ov.Model([o.multiply(x, y)], [x, y], "spread")
    x = o.parameter([-1, -1, 1], np.float32)
    yield ov.Model([o.multiply(x, real(8))], [x], "angles")
    yield ov.Model([o.convert(o.non_zero(boxes, "i64"), "i32")], [boxes], "places")


def exported() -> Iterator[Any]:
    """All of them, the commonest first."""
    yield from encoders()
    yield from detectors()
    yield from decoders()
    yield from classifiers()
    yield from sounds()
    yield from resized()
    yield from normed()
    yield from numbers()
