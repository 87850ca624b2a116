"""Transformers, recurrent taggers and newer convolutional networks, built with seeded random weights.

In: a name of NAMES. Out: its IR in the folder of `bench.networks`, in the forms in which exporters write such
models, and inputs for it. Nothing is trained. Weights keep activations in range, which suffices for time and
rounding.

    python -m bench.transformers [--folder DIR] [name ...]
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import command

SEED = 20261120
VERSION = 1


class Net:
    """Builders over one opset of `package` (ovjit or the real OpenVINO), with weights from a seeded
    generator."""

    def __init__(self, package: Any, name: str, stored: str = "f32"):
        self.ov = package
        self.stored = stored
        self.ops = package.opset13
        self.rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])

    def const(self, value: Any, dtype: Any = None) -> Any:
        array = np.asarray(value)
        if dtype is None and array.dtype == np.float64:
            dtype = np.float32
        return self.ops.constant(array.astype(dtype) if dtype is not None else array)

    def ints(self, *values: int) -> Any:
        return self.const(np.array(values, np.int64))

    def weights(self, *shape: int, gain: float = 1.0, fan: int | None = None) -> Any:
        fan = fan or int(np.prod(shape[1:]))
        return self.const(self.rng.standard_normal(shape, np.float32) * np.float32(gain / np.sqrt(fan)))

    def linear(self, x: Any, wide: int, out: int, bias: bool = True, gain: float = 1.0) -> Any:
        y = self.ops.matmul(x, self.stored_weights(out, wide, gain), False, True)
        return self.ops.add(y, self.const(self.rng.standard_normal((out,), np.float32) * 0.02)) if bias else y

    def stored_weights(self, out: int, wide: int, gain: float) -> Any:
        """[out, wide] as `stored` says: reals, or integers of 8 or 4 bits with f16 scales, as
        nncf.compress_weights writes them (8 bits by row with a zero point, 4 bits symmetric in groups of
        64)."""
        real = self.rng.standard_normal((out, wide), np.float32) * np.float32(gain / np.sqrt(wide))
        if self.stored == "f32":
            return self.const(real)
        ops = self.ops
        group = wide if self.stored == "u8" else 64
        blocks = real.reshape(out, wide // group, group)
        if self.stored == "u8":
            low, high = blocks.min(2, keepdims=True), blocks.max(2, keepdims=True)
            scale = ((high - low) / 255).astype(np.float16)
            zero = np.clip(np.rint(-low / scale.astype(np.float32)), 0, 255).astype(np.uint8)
            whole = np.clip(np.rint(blocks / scale.astype(np.float32)) + zero, 0, 255).astype(np.uint8)
            weights = ops.convert(ops.constant(whole), "f16")
            weights = ops.subtract(weights, ops.convert(ops.constant(zero), "f16"))
        else:
            scale = (np.abs(blocks).max(2, keepdims=True) / 7).astype(np.float16)
            whole = np.clip(np.rint(blocks / scale.astype(np.float32)), -8, 7).astype(np.int8).reshape(-1)
            packed = ((whole[0::2] & 15) | (whole[1::2] << 4)).astype(np.uint8)
            weights = self.convert_i4(packed, blocks.shape)
        weights = ops.multiply(weights, ops.constant(scale))
        return ops.convert(ops.reshape(weights, self.ints(out, wide), False), "f32")

    def convert_i4(self, packed: np.ndarray, shape: tuple[int, ...]) -> Any:
        """The f16 values of 4-bit integers, two in a byte. Their tensor owns its memory, since OpenVINO's
        constants do not keep the array of another."""
        tensor = self.ov.Tensor(self.ov.Type.i4, self.ov.Shape(list(shape)))
        tensor.data.view(np.uint8)[:] = packed
        return self.ops.convert(self.ov.op.Constant(tensor), "f16")

    def layer_norm(self, x: Any, wide: int) -> Any:
        y = self.ops.mvn(x, self.ints(-1), True, 1e-5, "INSIDE_SQRT")
        scale = self.rng.uniform(0.8, 1.2, (wide,)).astype(np.float32)
        shift = self.rng.standard_normal((wide,), np.float32) * np.float32(0.02)
        return self.ops.add(self.ops.multiply(y, self.const(scale)), self.const(shift))

    def rms_norm(self, x: Any, wide: int) -> Any:
        mean = self.ops.reduce_mean(self.ops.power(x, self.const(2.0)), self.ints(-1), True)
        root = self.ops.sqrt(self.ops.add(mean, self.const(1e-6)))
        scale = self.rng.uniform(0.8, 1.2, (wide,)).astype(np.float32)
        return self.ops.multiply(
            self.ops.multiply(x, self.ops.divide(self.const(1.0), root)), self.const(scale)
        )

    def heads(self, x: Any, count: int, size: int) -> Any:
        """[B, L, count * size] -> [B, count, L, size]"""
        split = self.ops.reshape(x, self.ints(0, 0, count, size), True)
        return self.ops.transpose(split, self.ints(0, 2, 1, 3))

    def merge(self, x: Any, wide: int) -> Any:
        return self.ops.reshape(self.ops.transpose(x, self.ints(0, 2, 1, 3)), self.ints(0, 0, wide), True)

    def conv(self, x: Any, ins: int, outs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Any:
        """Convolution with padding that keeps the size at stride 1, and bias."""
        pad, ops = [(kernel - 1) // 2] * 2, self.ops
        if groups == 1:
            y = ops.convolution(
                x, self.weights(outs, ins, kernel, kernel, gain=1.4), [stride] * 2, pad, pad, [1, 1]
            )
        else:
            shape = (groups, outs // groups, ins // groups, kernel, kernel)
            w = self.weights(*shape, gain=1.4, fan=ins // groups * kernel * kernel)
            y = ops.group_convolution(x, w, [stride] * 2, pad, pad, [1, 1])
        return ops.add(y, self.const(self.rng.standard_normal((1, outs, 1, 1), np.float32) * 0.05))

    def model(self, outputs: list[Any], inputs: list[Any], name: str, sinks: list[Any] | None = None) -> Any:
        if sinks:
            return self.ov.Model([self.ops.result(o) for o in outputs], sinks, inputs, name)
        return self.ov.Model(outputs, inputs, name)


def encoder_block(net: Net, x: Any, wide: int, count: int, mask: Any = None, before: bool = False) -> Any:
    """Attention and two layers of GELU; `before`: norms come first, as in ViT and Whisper."""
    ops = net.ops
    y = net.layer_norm(x, wide) if before else x
    q, k, v = (net.heads(net.linear(y, wide, wide), count, wide // count) for _ in range(3))
    if mask is None:
        z = ops.scaled_dot_product_attention(q, k, v)
    else:  # as older exporters write it
        scores = ops.divide(ops.matmul(q, k, False, True), net.const(float(np.sqrt(wide // count))))
        z = ops.matmul(ops.softmax(ops.add(scores, mask), -1), v, False, False)
    z = net.linear(net.merge(z, wide), wide, wide, gain=0.5)
    x = ops.add(x, z)
    x = x if before else net.layer_norm(x, wide)
    y = net.layer_norm(x, wide) if before else x
    y = net.linear(ops.gelu(net.linear(y, wide, 4 * wide), "erf"), 4 * wide, wide, gain=0.5)
    x = ops.add(x, y)
    return x if before else net.layer_norm(x, wide)


def bert(net: Net, length: int, layers: int = 12, wide: int = 768) -> Any:
    """BERT-base: ids and mask in, hidden states and a pooled vector out. A length of -1 is open."""
    ops = net.ops
    shape = net.ov.PartialShape([1, length])
    ids = ops.parameter(shape, np.int64, name="input_ids")
    given = ops.parameter(shape, np.int64, name="attention_mask")
    table = net.const(net.rng.standard_normal((30522, wide), np.float32))
    long = length if length >= 0 else 512
    places: Any = net.const(net.rng.standard_normal((1, long, wide), np.float32) * np.float32(0.2))
    if length < 0:
        end = ops.gather(ops.shape_of(ids, "i64"), net.ints(1), net.const(0, np.int64))
        places = ops.slice(places, net.ints(0), end, net.ints(1), net.ints(1))
    x = net.layer_norm(ops.add(ops.gather(table, ids, net.const(0, np.int64)), places), wide)
    shown = ops.unsqueeze(ops.convert(given, "f32"), net.ints(1, 2))
    mask = ops.multiply(ops.subtract(net.const(1.0), shown), net.const(-10000.0))
    for _ in range(layers):
        x = encoder_block(net, x, wide, 12, mask)
    first = ops.gather(x, net.const(0, np.int64), net.const(1, np.int64))
    pooled = ops.tanh(net.linear(first, wide, wide))
    return net.model([x, pooled], [ids, given], "bert")


def vit(net: Net) -> Any:
    """ViT-S/16 on 224 x 224."""
    ops, wide = net.ops, 384
    image = ops.parameter([1, 3, 224, 224], np.float32, name="image")
    x = ops.convolution(image, net.weights(wide, 3, 16, 16), [16, 16], [0, 0], [0, 0], [1, 1])
    x = ops.transpose(ops.reshape(x, net.ints(1, wide, 196), False), net.ints(0, 2, 1))
    first = net.const(net.rng.standard_normal((1, 1, wide), np.float32))
    places = net.const(net.rng.standard_normal((1, 197, wide), np.float32) * np.float32(0.2))
    x = ops.add(ops.concat([first, x], 1), places)
    for _ in range(12):
        x = encoder_block(net, x, wide, 6, before=True)
    x = ops.gather(net.layer_norm(x, wide), net.const(0, np.int64), net.const(1, np.int64))
    return net.model([net.linear(x, wide, 1000)], [image], "vit")


def whisper(net: Net) -> Any:
    """The encoder of Whisper-tiny on 30 seconds."""
    ops, wide = net.ops, 384
    mel = ops.parameter([1, 80, 3000], np.float32, name="mel")
    x = ops.gelu(ops.convolution(mel, net.weights(wide, 80, 3), [1], [1], [1], [1]), "erf")
    x = ops.gelu(ops.convolution(x, net.weights(wide, wide, 3), [2], [1], [1], [1]), "erf")
    x = ops.transpose(x, net.ints(0, 2, 1))
    x = ops.add(x, net.const(net.rng.standard_normal((1, 1500, wide), np.float32) * np.float32(0.2)))
    for _ in range(4):
        x = encoder_block(net, x, wide, 6, before=True)
    return net.model([net.layer_norm(x, wide)], [mel], "whisper")


class Sizes(NamedTuple):
    """Sizes of a decoder; `shared`: heads of keys and values."""

    layers: int = 12
    wide: int = 768
    heads: int = 12
    shared: int = 12
    inner: int = 3072
    words: int = 50257

    @property
    def size(self) -> int:
        return self.wide // self.heads


LLAMA = Sizes(shared=4, inner=2048, words=32000)
GPT2 = Sizes()
#: Positions that GPT-2's table has.
PLACES = 1024


class Decoder:
    """What stateful decoders have in common in the form that `optimum` exports: input_ids, attention_mask,
    position_ids and beam_idx in, logits out; keys and values in variables that grow."""

    def __init__(self, net: Net, sizes: Sizes):
        self.net, self.sizes, ops = net, sizes, net.ops
        PartialShape = net.ov.PartialShape
        self.ids = ops.parameter(PartialShape([-1, -1]), np.int64, name="input_ids")
        self.given = ops.parameter(PartialShape([-1, -1]), np.int64, name="attention_mask")
        self.places = ops.parameter(PartialShape([-1, -1]), np.int64, name="position_ids")
        self.beams = ops.parameter(PartialShape([-1]), np.int32, name="beam_idx")
        self.zero = net.const(0, np.int64)
        self.words = net.const(net.rng.standard_normal((sizes.words, sizes.wide), np.float32))
        self.x = ops.gather(self.words, self.ids, self.zero)
        self.batch = ops.gather(ops.shape_of(self.ids, "i64"), net.ints(0), self.zero)
        self.sinks: list[Any] = []

    def mask(self) -> Any:
        """0 where a new position sees one of all, else -65504: what is behind it, and what attention_mask
        hides, it does not see."""
        net, ops, zero = self.net, self.net.ops, self.zero
        new = ops.gather(ops.shape_of(self.ids, "i64"), net.const(1, np.int64), zero)
        whole = ops.gather(ops.shape_of(self.given, "i64"), net.const(1, np.int64), zero)
        columns = ops.range(zero, whole, net.const(1, np.int64), "i64")
        rows = ops.range(ops.subtract(whole, new), whole, net.const(1, np.int64), "i64")
        seen = self.seen(ops.unsqueeze(rows, net.ints(1)), ops.unsqueeze(columns, net.ints(0)))
        shown = ops.unsqueeze(ops.convert(self.given, "boolean"), net.ints(1, 2))
        both = ops.logical_and(ops.unsqueeze(seen, net.ints(0, 1)), shown)
        return ops.select(both, net.const(0.0), net.const(-65504.0))

    def seen(self, rows: Any, columns: Any) -> Any:
        """Whether positions, a row each, see others, a column each."""
        return self.net.ops.less_equal(columns, rows)

    def cached(self, value: Any, name: str) -> Any:
        """The values so far, in the order of the beams, with the new ones behind them."""
        net, ops, shared, size = self.net, self.net.ops, self.sizes.shared, self.sizes.size
        shape = net.ov.PartialShape([-1, shared, -1, size])
        start = ops.broadcast(
            net.const(0.0), ops.concat([self.batch, net.ints(shared), net.ints(0), net.ints(size)], 0)
        )
        before = ops.read_value(start, name, np.float32, shape)
        joined = ops.concat([ops.gather(before, self.beams, self.zero), value], 2)
        self.sinks.append(ops.assign(joined, name))
        return joined

    def model(self, logits: Any, name: str) -> Any:
        logits.output(0).tensor.set_names({"logits"})
        return self.net.model([logits], [self.ids, self.given, self.places, self.beams], name, self.sinks)


def llama(net: Net, s: Sizes = LLAMA) -> Any:
    """RMSNorm, RoPE, grouped heads, SwiGLU."""
    decoder, ops = Decoder(net, s), net.ops
    size, wide = s.size, s.wide
    x = decoder.x

    turns = net.const((10000.0 ** (-np.arange(0, size, 2) / size)).reshape(1, -1, 1))
    places = ops.unsqueeze(ops.convert(decoder.places, "f32"), net.ints(1))
    angles = ops.transpose(ops.matmul(turns, places, False, False), net.ints(0, 2, 1))
    angles = ops.unsqueeze(ops.concat([angles, angles], -1), net.ints(1))
    cosine, sine = ops.cos(angles), ops.sin(angles)

    def rotated(x: Any) -> Any:
        ends = net.ints(size // 2), net.ints(np.iinfo(np.int64).max)
        low = ops.slice(x, net.ints(0), ends[0], net.ints(1), net.ints(3))
        high = ops.slice(x, ends[0], ends[1], net.ints(1), net.ints(3))
        half = ops.concat([ops.multiply(high, net.const(-1.0)), low], -1)
        return ops.add(ops.multiply(x, cosine), ops.multiply(half, sine))

    def repeated(x: Any) -> Any:
        """[B, shared, L, size] -> [B, heads, L, size], as exporters write it"""
        times = s.heads // s.shared
        wider = ops.unsqueeze(x, net.ints(2))
        length = ops.gather(ops.shape_of(x, "i64"), net.ints(2), decoder.zero)
        target = ops.concat([decoder.batch, net.ints(s.shared, times), length, net.ints(size)], 0)
        return ops.reshape(ops.broadcast(wider, target), net.ints(0, s.heads, -1, size), True)

    mask = decoder.mask()
    for i in range(s.layers):
        y = net.rms_norm(x, wide)
        q = rotated(net.heads(net.linear(y, wide, wide, False), s.heads, size))
        k = rotated(net.heads(net.linear(y, wide, s.shared * size, False), s.shared, size))
        v = net.heads(net.linear(y, wide, s.shared * size, False), s.shared, size)
        k = decoder.cached(k, f"past_key_values.{i}.key")
        v = decoder.cached(v, f"past_key_values.{i}.value")
        z = ops.scaled_dot_product_attention(q, repeated(k), repeated(v), mask)
        x = ops.add(x, net.linear(net.merge(z, wide), wide, wide, False, gain=0.5))
        y = net.rms_norm(x, wide)
        gate = ops.swish(net.linear(y, wide, s.inner, False))
        up = net.linear(y, wide, s.inner, False)
        x = ops.add(x, net.linear(ops.multiply(gate, up), s.inner, wide, False, 0.5))
    return decoder.model(net.linear(net.rms_norm(x, wide), wide, s.words, False), "llama")


def gpt2(net: Net, s: Sizes = GPT2) -> Any:
    """LayerNorm, learned positions, one product for queries, keys and values, GELU by tanh; the words' table
    makes the logits too."""
    decoder, ops = Decoder(net, s), net.ops
    wide = s.wide
    places = net.const(net.rng.standard_normal((PLACES, wide), np.float32) * np.float32(0.2))
    x = ops.add(decoder.x, ops.gather(places, decoder.places, decoder.zero))
    mask = decoder.mask()
    for i in range(s.layers):
        y = net.linear(net.layer_norm(x, wide), wide, 3 * wide)
        parts = ops.variadic_split(y, net.const(2, np.int64), net.ints(wide, wide, wide))
        q, k, v = (net.heads(parts.output(p), s.heads, s.size) for p in range(3))
        k = decoder.cached(k, f"past_key_values.{i}.key")
        v = decoder.cached(v, f"past_key_values.{i}.value")
        z = ops.scaled_dot_product_attention(q, k, v, mask)
        x = ops.add(x, net.linear(net.merge(z, wide), wide, wide, gain=0.5))
        y = ops.gelu(net.linear(net.layer_norm(x, wide), wide, s.inner), "tanh")
        x = ops.add(x, net.linear(y, s.inner, wide, gain=0.5))
    return decoder.model(ops.matmul(net.layer_norm(x, wide), decoder.words, False, True), "gpt2")


def convnext(net: Net) -> Any:
    """ConvNeXt-T."""
    ops = net.ops
    image = ops.parameter([1, 3, 224, 224], np.float32, name="image")

    def norm(x: Any, wide: int) -> Any:
        y = ops.transpose(x, net.ints(0, 2, 3, 1))
        return ops.transpose(net.layer_norm(y, wide), net.ints(0, 3, 1, 2))

    x = ops.convolution(image, net.weights(96, 3, 4, 4), [4, 4], [0, 0], [0, 0], [1, 1])
    x, before = norm(x, 96), 96
    for depth, wide in zip((3, 3, 9, 3), (96, 192, 384, 768), strict=True):
        if wide != before:
            x = ops.convolution(
                norm(x, before), net.weights(wide, before, 2, 2), [2, 2], [0, 0], [0, 0], [1, 1]
            )
        for _ in range(depth):
            y = net.conv(x, wide, wide, 7, groups=wide)
            y = net.layer_norm(ops.transpose(y, net.ints(0, 2, 3, 1)), wide)
            y = net.linear(ops.gelu(net.linear(y, wide, 4 * wide), "erf"), 4 * wide, wide)
            y = ops.multiply(y, net.const(net.rng.uniform(0.1, 0.5, (wide,))))
            x = ops.add(x, ops.transpose(y, net.ints(0, 3, 1, 2)))
        before = wide
    x = net.layer_norm(ops.reduce_mean(x, net.ints(2, 3), False), 768)
    return net.model([net.linear(x, 768, 1000)], [image], "convnext")


def inverted(
    net: Net, x: Any, ins: int, outs: int, kernel: int, stride: int, grow: int, act: Any, squeeze: bool
) -> Any:
    """The inverted residual of MobileNetV2 and EfficientNet."""
    ops, wide = net.ops, ins * grow
    y = act(net.conv(x, ins, wide)) if grow > 1 else x
    y = act(net.conv(y, wide, wide, kernel, stride, wide))
    if squeeze:
        s = ops.reduce_mean(y, net.ints(2, 3), True)
        few = max(1, ins // 4)
        y = ops.multiply(y, ops.sigmoid(net.conv(act(net.conv(s, wide, few)), few, wide)))
    y = net.conv(y, wide, outs)
    return ops.add(x, y) if stride == 1 and ins == outs else y


def mobilenet(net: Net) -> Any:
    """MobileNetV2."""
    ops = net.ops
    act = lambda x: ops.clamp(x, 0.0, 6.0)  # noqa: E731
    image = ops.parameter([1, 3, 224, 224], np.float32, name="image")
    x, ins = act(net.conv(image, 3, 32, 3, 2)), 32
    rows = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for grow, outs, count, stride in rows:
        for i in range(count):
            x, ins = inverted(net, x, ins, outs, 3, stride if i == 0 else 1, grow, act, False), outs
    x = ops.reduce_mean(act(net.conv(x, 320, 1280)), net.ints(2, 3), False)
    return net.model([net.linear(x, 1280, 1000)], [image], "mobilenet")


def efficientnet(net: Net) -> Any:
    """EfficientNet-B0."""
    ops = net.ops
    image = ops.parameter([1, 3, 224, 224], np.float32, name="image")
    x, ins = ops.swish(net.conv(image, 3, 32, 3, 2)), 32
    rows = (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
    )  # fmt: skip
    for grow, outs, count, stride, kernel in rows:
        for i in range(count):
            step = stride if i == 0 else 1
            x, ins = inverted(net, x, ins, outs, kernel, step, grow, ops.swish, True), outs
    x = ops.reduce_mean(ops.swish(net.conv(x, 320, 1280)), net.ints(2, 3), False)
    return net.model([net.linear(x, 1280, 1000)], [image], "efficientnet")


def unet(net: Net) -> Any:
    """A U-Net of four levels on 256 x 256, upsampling by nearest neighbours."""
    ops = net.ops
    image = ops.parameter([1, 3, 256, 256], np.float32, name="image")

    def two(x: Any, ins: int, outs: int) -> Any:
        return ops.relu(net.conv(ops.relu(net.conv(x, ins, outs, 3)), outs, outs, 3))

    x, ins, kept = image, 3, []
    for wide in (32, 64, 128, 256):
        x, ins = two(x, ins, wide), wide
        kept.append(x)
        x = ops.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    x, ins = two(x, 256, 512), 512
    for wide in (256, 128, 64, 32):
        scales, axes = net.const([2.0, 2.0]), net.ints(2, 3)
        x = ops.interpolate(
            x, scales, "nearest", "scales", axes=axes, coordinate_transformation_mode="asymmetric"
        )
        x, ins = two(ops.concat([net.conv(x, ins, wide, 3), kept.pop()], 1), 2 * wide, wide), wide
    return net.model([net.conv(x, 32, 2)], [image], "unet")


def yolo(net: Net) -> Any:
    """A detector like YOLOv8n on 320 x 320: swish, splits and concatenations, three levels, boxes by a
    softmax."""
    ops = net.ops
    image = ops.parameter([1, 3, 320, 320], np.float32, name="image")

    def step(x: Any, ins: int, outs: int, kernel: int = 1, stride: int = 1) -> Any:
        return ops.swish(net.conv(x, ins, outs, kernel, stride))

    def block(x: Any, ins: int, outs: int, count: int, add: bool) -> Any:
        half = outs // 2
        parts = list(ops.split(step(x, ins, outs), net.const(1, np.int64), 2).outputs())
        for _ in range(count):
            y = step(step(parts[-1], half, half, 3), half, half, 3)
            parts.append(ops.add(parts[-1], y) if add else y)
        return step(ops.concat(parts, 1), half * (count + 2), outs)

    def up(x: Any) -> Any:
        return ops.interpolate(
            x, net.const([2.0, 2.0]), "nearest", "scales", axes=net.ints(2, 3),
            coordinate_transformation_mode="asymmetric",
        )  # fmt: skip

    x = block(step(step(image, 3, 16, 3, 2), 16, 32, 3, 2), 32, 32, 1, True)
    three = block(step(x, 32, 64, 3, 2), 64, 64, 2, True)
    four = block(step(three, 64, 128, 3, 2), 128, 128, 2, True)
    five = block(step(four, 128, 256, 3, 2), 256, 256, 1, True)
    y = step(five, 256, 128)
    pooled = [y]
    for _ in range(3):
        pooled.append(ops.max_pool(pooled[-1], [1, 1], [1, 1], [2, 2], [2, 2], [5, 5]).output(0))
    five = step(ops.concat(pooled, 1), 512, 256)
    four = block(ops.concat([up(five), four], 1), 384, 128, 1, False)
    three = block(ops.concat([up(four), three], 1), 192, 64, 1, False)
    four = block(ops.concat([step(three, 64, 64, 3, 2), four], 1), 192, 128, 1, False)
    five = block(ops.concat([step(four, 128, 128, 3, 2), five], 1), 384, 256, 1, False)
    found = []
    for level, wide in ((three, 64), (four, 128), (five, 256)):
        boxes = net.conv(step(step(level, wide, 64, 3), 64, 64, 3), 64, 64)
        kinds = net.conv(step(step(level, wide, 80, 3), 80, 80, 3), 80, 80)
        found.append(ops.reshape(ops.concat([boxes, kinds], 1), net.ints(1, 144, -1), False))
    boxes, kinds = ops.variadic_split(
        ops.concat(found, 2), net.const(1, np.int64), net.ints(64, 80)
    ).outputs()
    chances = ops.softmax(
        ops.transpose(ops.reshape(boxes, net.ints(1, 4, 16, -1), False), net.ints(0, 2, 1, 3)), 1
    )
    steps = net.const(np.arange(16.0).reshape(1, 16, 1, 1))
    sides = ops.reduce_sum(ops.multiply(chances, steps), net.ints(1), False)
    return net.model([ops.concat([sides, ops.sigmoid(kinds)], 1)], [image], "yolo")


def tagger(net: Net, kind: str) -> Any:
    """Two bidirectional layers of 2 x 128 over 64 words, and a tag for each."""
    ops, wide, length = net.ops, 128, 64
    x = ops.parameter([1, length, 100], np.float32, name="words")
    y, gates = x, {"lstm": 4, "gru": 3}[kind]
    for ins in (100, 2 * wide):
        w = net.weights(2, gates * wide, ins, fan=ins)
        r, b = net.weights(2, gates * wide, wide, fan=wide), net.weights(2, gates * wide, fan=100)
        start, lengths = net.const(np.zeros((1, 2, wide))), net.ints(length)
        if kind == "lstm":
            made = ops.lstm_sequence(y, start, start, lengths, w, r, b, wide, "bidirectional")
        else:
            made = ops.gru_sequence(y, start, lengths, w, r, b, wide, "bidirectional")
        y = ops.reshape(ops.transpose(made.output(0), net.ints(0, 2, 1, 3)), net.ints(0, 0, 2 * wide), True)
    return net.model([ops.softmax(net.linear(y, 2 * wide, 20), -1)], [x], kind)


def tcn(net: Net) -> Any:
    """Dilated one-dimensional convolutions over 1,000 steps."""
    ops = net.ops
    x = ops.parameter([1, 32, 1000], np.float32, name="signal")
    y, ins = x, 32
    for i in range(6):
        far = 2**i
        z = ops.relu(ops.convolution(y, net.weights(64, ins, 3, gain=1.4), [1], [2 * far], [0], [far]))
        z = ops.relu(ops.convolution(z, net.weights(64, 64, 3, gain=1.4), [1], [2 * far], [0], [far]))
        short = y if ins == 64 else ops.convolution(y, net.weights(64, ins, 1), [1], [0], [0], [1])
        y, ins = ops.relu(ops.add(z, short)), 64
    return net.model([ops.convolution(y, net.weights(10, 64, 1), [1], [0], [0], [1])], [x], "tcn")


MODELS: dict[str, Callable[[Net], Any]] = {
    "bert128": lambda net: bert(net, 128),
    "bert384": lambda net: bert(net, 384),
    "vit": vit,
    "whisper": whisper,
    "llama": llama,
    "gpt2": gpt2,
    "convnext": convnext,
    "efficientnet": efficientnet,
    "mobilenet": mobilenet,
    "unet": unet,
    "yolo": yolo,
    "lstm": lambda net: tagger(net, "lstm"),
    "gru": lambda net: tagger(net, "gru"),
    "tcn": tcn,
}
NAMES = tuple(MODELS)
#: Those with a state, and how many words they know: `bench.generate` runs them.
DECODERS = {"llama": LLAMA.words, "gpt2": GPT2.words}


def make(package: Any, name: str, stored: str = "f32") -> Any:
    """The Model `name`, of the classes of `package`; `stored`: f32, u8 or i4 weights of its linear layers."""
    return MODELS[name](Net(package, name, stored))


def inputs(name: str, rows: int = 64, seed: int = SEED) -> list[np.ndarray]:
    """Inputs for the model; a decoder is given a prompt of `rows` tokens."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.startswith("bert"):
        length = int(name[4:])
        return [rng.integers(0, 30522, (1, length)), np.ones((1, length), np.int64)]
    if name in DECODERS:
        return [
            rng.integers(0, DECODERS[name], (1, rows)), np.ones((1, rows), np.int64), np.arange(rows)[None],
            np.zeros(1, np.int32),
        ]  # fmt: skip
    shapes = {
        "whisper": (1, 80, 3000),
        "unet": (1, 3, 256, 256),
        "yolo": (1, 3, 320, 320),
        "tcn": (1, 32, 1000),
    }
    shape = shapes.get(name, (1, 64, 100) if name in ("lstm", "gru") else (1, 3, 224, 224))
    return [rng.standard_normal(shape).astype(np.float32)]


def build(name: str, folder: Path | None = None, stored: str = "f32") -> Path:
    """The path of the model's IR, made by the real OpenVINO if it is not there yet."""
    if name not in NAMES:
        raise ValueError(f"unknown model {name!r} (there are: {', '.join(NAMES)})")
    from bench.networks import default_folder

    folder = Path(folder or default_folder()) / f"transformers-{VERSION}-{SEED}"
    path = folder / f"{name}{'' if stored == 'f32' else '-' + stored}.xml"
    if path.exists():
        return path
    import openvino

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / path.name
        openvino.save_model(make(openvino, name, stored), made, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):  # the .xml last: it says that the other is complete
            os.replace(made.with_suffix(suffix), path.with_suffix(suffix))
    return path


def main() -> int:
    parser = command.parser("transformers", __doc__, json=False)
    parser.add_argument("names", nargs="*", metavar="name", help="default: all")
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    for name in arguments.names or NAMES:
        print(build(name, arguments.folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
