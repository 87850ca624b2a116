"""Small decoders with attention and recurrent layers, in the forms that optimum-intel's newest exports have
and that `paged_attention_transformation` takes: convolutions keep as many tokens as their kernel has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench import hybrids
from bench.hybrids import HEADS, KERNEL, STATES, WIDE, WORDS
from bench.transformers import Net

#: Names -> layers.
LAYERS = {
    "short": ["short", "attention", "short"],
    "delta": ["delta", "attention", "grouped_delta"],
    "space": ["space", "attention", "space"],
    "padded": ["padded", "attention", "masked"],
}
GROUPS = 2


class Paged(hybrids.Hybrid):
    """Layers whose states have the forms of Qwen3-Next, Granite 4 and LFM 2."""

    def windowed(self, x: Any, wide: int, name: str, bias: bool = False) -> Any:
        """A convolution [B, wide, L] over the last KERNEL tokens."""
        net, ops = self.net, self.net.ops
        before, keep = self.kept(f"{name}.conv", wide, KERNEL)
        whole = ops.concat([before, x], -1)
        last = net.ints(np.iinfo(np.int64).max)
        keep(ops.slice(whole, net.ints(-KERNEL), last, net.ints(1), net.ints(2)))
        weight = net.const(net.rng.standard_normal((wide, 1, 1, KERNEL), np.float32) * np.float32(0.5))
        y = ops.group_convolution(whole, weight, [1], [0], [0], [1])
        if bias:
            y = ops.add(y, net.const(net.rng.standard_normal((1, wide, 1), np.float32)))
        start = ops.multiply(self.count, net.ints(-1))
        return ops.slice(y, start, last, net.ints(1), net.ints(2))

    def causal(self, x: Any, wide: int, name: str) -> Any:
        net, ops = self.net, self.net.ops
        y = self.windowed(ops.transpose(x, net.ints(0, 2, 1)), wide, name)
        return ops.transpose(ops.swish(y), net.ints(0, 2, 1))

    def grouped_delta(self, x: Any, name: str) -> Any:
        """Qwen3-Next: fewer heads of queries and keys than of values."""
        return self.delta(x, name, 2)

    def short(self, x: Any, name: str) -> Any:
        """LFM 2: a gated convolution."""
        net, ops = self.net, self.net.ops
        parts = ops.split(
            ops.transpose(net.linear(x, WIDE, 3 * WIDE, False), net.ints(0, 2, 1)), net.const(1, np.int64), 3
        )
        y = self.windowed(ops.multiply(parts.output(0), parts.output(2)), WIDE, name)
        y = ops.transpose(ops.multiply(parts.output(1), y), net.ints(0, 2, 1))
        return net.linear(y, WIDE, WIDE, False)

    def space(self, x: Any, name: str) -> Any:
        """Granite 4: tokens are the second dimension, heads share b and c in groups."""
        net, ops, inner, heads = self.net, self.net.ops, 2 * WIDE, 2 * HEADS
        size, two = inner // heads, net.const(2, np.int64)
        wide = inner + 2 * GROUPS * STATES
        parts = ops.variadic_split(
            net.linear(x, WIDE, inner + wide + heads, False), two, net.ints(inner, wide, heads)
        )
        told = self.windowed(ops.transpose(parts.output(1), net.ints(0, 2, 1)), wide, name, True)
        told = ops.variadic_split(
            ops.transpose(ops.swish(told), net.ints(0, 2, 1)), two,
            net.ints(inner, GROUPS * STATES, GROUPS * STATES),
        )  # fmt: skip
        dt = ops.softplus(parts.output(2))
        x = ops.reshape(told.output(0), net.ints(0, 0, heads, size), True)
        b, c = (self.grouped(told.output(i), heads) for i in (1, 2))
        rate = net.const(-net.rng.uniform(0.5, 4, heads).astype(np.float32))
        kept = ops.reshape(ops.exp(ops.multiply(rate, dt)), net.ints(0, 0, 0, 1, 1), True)
        one, last, row = (net.const(n, np.int32) for n in (1, -1, -2))
        scaled = ops.multiply(ops.unsqueeze(dt, last), b)
        added = ops.multiply(ops.unsqueeze(scaled, row), ops.unsqueeze(x, last))
        before, keep = self.kept(f"{name}.ssm", heads, size, STATES)

        def step(state: Any, a: Any, b: Any, c: Any) -> Any:
            a, b, c = (ops.squeeze(v, one) for v in (a, b, c))
            new = ops.add(ops.multiply(state, a), b)
            return new, ops.unsqueeze(ops.reduce_sum(ops.multiply(new, c), last, False), one)

        lead = [-1, 1, heads]
        rows = [(kept, [*lead, 1, 1]), (added, [*lead, size, STATES]),
                (ops.unsqueeze(c, row), [*lead, 1, STATES])]  # fmt: skip
        y, state = self.loop(rows, 1, before, [-1, -1, heads, size], step)
        keep(state)
        y = ops.add(y, ops.multiply(x, net.const(net.rng.uniform(0.5, 1.5, (heads, 1)).astype(np.float32))))
        y = ops.reshape(y, net.ints(0, 0, inner), True)
        y = net.rms_norm(ops.multiply(y, ops.swish(parts.output(0))), inner)
        return net.linear(y, inner, WIDE, False, gain=0.5)

    def grouped(self, x: Any, heads: int) -> Any:
        """[B, L, groups * states] -> [B, L, heads, states]"""
        net, ops = self.net, self.net.ops
        x = ops.reshape(x, net.ints(0, 0, GROUPS, STATES), True)
        tiled = ops.tile(ops.unsqueeze(x, net.const(3, np.int32)), net.ints(1, 1, 1, heads // GROUPS, 1))
        return ops.reshape(tiled, net.ints(0, 0, -1, STATES), True)


class Padded(Paged):
    """Granite 4 and LFM 2 as optimum-intel exports them: padding is taken out by products, and places, which
    are counted from the cache, are in masks alone."""

    def padded(self, x: Any, name: str) -> Any:
        return self.space(self.net.ops.multiply(x, self.shown()), name)

    def masked(self, x: Any, name: str) -> Any:
        """LFM 2, where a token alone is shown whatever the mask says."""
        net, ops = self.net, self.net.ops
        alone = ops.convert(ops.equal(self.count, net.ints(1)), "f32")
        factor = ops.add(ops.multiply(self.shown(), ops.subtract(net.const(1.0), alone)), alone)
        return self.short(ops.multiply(x, factor), name)

    def shown(self) -> Any:
        """[B, L, 1]: 1 for tokens, and 0 for padding."""
        net, ops = self.net, self.net.ops
        start = ops.multiply(self.count, net.ints(-1))
        last = net.ints(np.iinfo(np.int64).max)
        shown = ops.unsqueeze(ops.slice(self.given, start, last, net.ints(1), net.ints(1)), net.ints(-1))
        return ops.convert(shown, "f32")

    def mask(self) -> Any:
        net, ops, zero, one = self.net, self.net.ops, self.zero, self.net.const(1, np.int64)
        past = self.sinks[-1].input_value(0).get_node().input_value(0)
        past = ops.gather(ops.shape_of(past, "i64"), net.const(2, np.int64), zero)
        rows = ops.add(ops.range(zero, ops.squeeze(self.count, net.ints(0)), one, "i64"), past)
        rows.output(0).tensor.set_names({"q_indices"})
        rows = ops.unsqueeze(rows, net.ints(0))
        whole = ops.gather(ops.shape_of(self.given, "i64"), one, zero)
        columns = ops.range(zero, whole, one, "i64")
        seen = ops.less_equal(ops.unsqueeze(columns, net.ints(0, 1)), ops.unsqueeze(rows, net.ints(2)))
        return ops.select(ops.unsqueeze(seen, net.ints(1)), net.const(0.0), net.const(-65504.0))

    def model(self, logits: Any, name: str) -> Any:
        logits.output(0).tensor.set_names({"logits"})
        return self.net.model([logits], [self.ids, self.given, self.beams], name, self.sinks)


def build(package: Any, name: str) -> Any:
    """The decoder `name` of LAYERS."""
    net = Net(package, f"paged-{name}")
    decoder = (Padded if name == "padded" else Paged)(net)
    x = decoder.x
    for i, kind in enumerate(LAYERS[name]):
        x = net.ops.add(x, getattr(decoder, kind)(net.rms_norm(x, WIDE), f"layers.{i}"))
        x = net.ops.add(x, decoder.dense(net.rms_norm(x, WIDE)))
    return decoder.model(net.linear(net.rms_norm(x, WIDE), WIDE, WORDS, False), name)


HYBRIDS: dict[str, Callable[[Any], Any]] = {
    name: lambda package, n=name: build(package, n) for name in LAYERS
}
