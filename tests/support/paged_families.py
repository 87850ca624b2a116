"""Small decoders with state whose attention differs by family, in the forms of exports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench import transformers
from bench.transformers import Decoder, Net, Sizes

SIZES = Sizes(layers=2, wide=64, heads=4, shared=4, inner=96, words=50)
#: Tokens that a layer with a window sees, and experts of a layer.
WINDOW, EXPERTS = 8, 4
#: Places of a table of slopes.
LONGEST = 128


class Family(Decoder):
    """Layers of attention and a gated part; `attended` and `fed` are what families replace."""

    def __init__(self, package: Any, name: str, sizes: Sizes = SIZES):
        super().__init__(Net(package, name), sizes)
        self.name = name

    def build(self) -> Any:
        net, ops, s, x = self.net, self.net.ops, self.sizes, self.x
        mask = self.mask()
        for i in range(s.layers):
            y = net.rms_norm(x, s.wide)
            counts = s.heads, s.shared, s.shared
            q, k, v = (net.heads(net.linear(y, s.wide, n * s.size, False), n, s.size) for n in counts)
            k = self.cached(k, f"past_key_values.{i}.key")
            v = self.cached(v, f"past_key_values.{i}.value")
            z = self.attended(q, k, v, mask, i)
            x = ops.add(x, net.linear(net.merge(z, s.wide), s.wide, s.wide, False, gain=0.5))
            x = ops.add(x, self.fed(net.rms_norm(x, s.wide)))
        return self.model(net.linear(net.rms_norm(x, s.wide), s.wide, s.words, False), self.name)

    def attended(self, q: Any, k: Any, v: Any, mask: Any, layer: int) -> Any:
        return self.net.ops.scaled_dot_product_attention(q, k, v, mask)

    def fed(self, y: Any) -> Any:
        net, s = self.net, self.sizes
        gate = net.ops.swish(net.linear(y, s.wide, s.inner, False))
        up = net.linear(y, s.wide, s.inner, False)
        return net.linear(net.ops.multiply(gate, up), s.inner, s.wide, False, 0.5)


class Sinks(Family):
    """gpt-oss: a logit for each head that takes part in the softmax and has no value."""

    def attended(self, q: Any, k: Any, v: Any, mask: Any, layer: int) -> Any:
        net = self.net
        sink = net.const(net.rng.standard_normal((1, self.sizes.heads, 1, 1), np.float32))
        scale = net.const(np.float32(self.sizes.size**-0.5))
        return net.ops.scaled_dot_product_attention(q, k, v, mask, scale, False, sink=sink)


class Exported(Family):
    """The causal mask as transformers makes it for exporters."""

    def mask(self) -> Any:
        net, ops, zero = self.net, self.net.ops, self.zero
        first, one = net.const(0, np.int32), net.const(1, np.int32)
        new = ops.gather(ops.shape_of(self.ids, "i64"), net.const(1, np.int64), zero)
        whole = ops.gather(ops.shape_of(self.given, "i64"), net.const(1, np.int64), zero)
        past = ops.subtract(whole, new)

        def unsqueezed(x: Any, *axes: int) -> Any:
            for axis in axes:
                x = ops.unsqueeze(x, net.const(axis, np.int64))
            return x

        columns = unsqueezed(ops.range(first, whole, one, "i64"), 0, 1, 2)
        start = ops.gather(ops.range(past, whole, one, "i64"), zero, zero)
        rows = unsqueezed(ops.add(ops.range(first, new, one, "i64"), start), 0, 1, 3)
        shown = ops.unsqueeze(ops.convert(self.given, "boolean"), net.ints(1, 2))
        both = ops.bitwise_and(self.seen(rows, columns), shown)
        shape = ops.concat(
            [self.batch, net.ints(1)] + [ops.unsqueeze(n, net.ints(0)) for n in (new, whole)], 0
        )
        both = ops.broadcast(both, shape, broadcast_spec="BIDIRECTIONAL")
        return ops.select(both, net.const(0.0), net.const(-65504.0))

    def seen(self, rows: Any, columns: Any) -> Any:
        return self.both(self.net.const(True, bool), self.net.ops.less_equal(columns, rows))

    def both(self, one: Any, other: Any) -> Any:
        return self.net.ops.bitwise_and(one, other)


class Windowed(Exported):
    """mistral: every layer sees the last `WINDOW` tokens."""

    def seen(self, rows: Any, columns: Any) -> Any:
        net, ops = self.net, self.net.ops
        last = ops.add(rows, net.const(np.full((1, 1, 1, 1), -WINDOW), np.int64))
        near = self.both(net.const(True, bool), ops.greater(columns, last))
        return self.both(net.const(True, bool), self.both(near, ops.less_equal(columns, rows)))


class Chunked(Exported):
    """llama4: queries see the keys of their own chunk, and no others before them."""

    def __init__(self, package: Any, chunk: int):
        self.chunk = chunk
        super().__init__(package, "chunked")

    def seen(self, rows: Any, columns: Any) -> Any:
        ops, chunk = self.net.ops, self.net.const(self.chunk, np.int64)
        same = ops.equal(ops.divide(rows, chunk), ops.divide(columns, chunk))
        return self.both(same, ops.less_equal(columns, rows))


class Slopes(Exported):
    """bloom: the further a key, the less it counts, by a slope for each head, in the mask."""

    def mask(self) -> Any:
        net, ops = self.net, self.net.ops
        hidden = ops.convert(super().mask(), "boolean")
        slopes = 2.0 ** (-8 * np.arange(1, self.sizes.heads + 1) / self.sizes.heads)
        places = ops.cum_sum(self.given, net.const(-1, np.int64))
        places = ops.multiply(ops.add(places, net.const([[-1]], np.int64)), self.given)
        places = ops.convert(ops.unsqueeze(places, net.const(1, np.int64)), "f32")
        alibi = ops.multiply(net.const(slopes.reshape(1, -1, 1)), places)
        alibi = ops.reshape(alibi, net.ints(-1, 1, 0), True)
        whole = ops.gather(ops.shape_of(self.given, "i64"), net.ints(1), self.zero)
        shape = ops.concat([self.batch, net.ints(-1, 1), whole], 0)
        return ops.select(hidden, net.const(np.finfo(np.float32).min), ops.reshape(alibi, shape, False))


class Rounded(Exported):
    """falcon: products of slopes and places are rounded to bf16, so that steps from key to key differ."""

    def mask(self) -> Any:
        net, ops, heads = self.net, self.net.ops, self.sizes.heads
        hidden = ops.convert(super().mask(), "boolean")
        places = ops.cum_sum(self.given, net.const(-1, np.int64))
        places = ops.multiply(ops.add(places, net.const([[-1]], np.int64)), self.given)
        places = ops.convert(ops.unsqueeze(places, net.const(1, np.int64)), "bf16")
        slopes = net.const(self.slopes(heads).reshape(1, -1, 1), np.float32)
        alibi = ops.convert(ops.multiply(ops.convert(slopes, "bf16"), places), "f32")
        shape = ops.shape_of(self.given, "i64")
        first, whole = (ops.gather(shape, net.ints(i), self.zero) for i in (0, 1))
        alibi = ops.reshape(alibi, ops.concat([first, net.ints(heads, 1), whole], 0), False)
        alibi = ops.divide(alibi, net.const(float(np.sqrt(self.sizes.size))))
        return ops.select(hidden, net.const(np.finfo(np.float32).min), alibi)

    @staticmethod
    def slopes(heads: int) -> np.ndarray:
        return 0.9 ** np.arange(1, heads + 1)

    def attended(self, q: Any, k: Any, v: Any, mask: Any, layer: int) -> Any:
        return super().attended(q, self.repeated(k), self.repeated(v), mask, layer)

    def repeated(self, x: Any) -> Any:
        """[B, shared, L, size] -> [B, heads, L, size]"""
        net, ops, s = self.net, self.net.ops, self.sizes
        if s.heads == s.shared:
            return x
        length = ops.gather(ops.shape_of(x, "i64"), net.ints(2), self.zero)
        target = ops.concat(
            [self.batch, net.ints(s.shared, s.heads // s.shared), length, net.ints(s.size)], 0
        )
        wider = ops.broadcast(ops.unsqueeze(x, net.ints(2)), target)
        return ops.reshape(wider, net.ints(0, s.heads, -1, s.size), True)


class FarRounded(Rounded):
    """Slopes whose products are exact for small places: 257 has no bf16."""

    @staticmethod
    def slopes(heads: int) -> np.ndarray:
        return 0.5 ** np.arange(1, heads + 1)


class Table(Exported):
    """mpt: the end of a table of slopes times places, as long as the keys, where the mask hides nothing."""

    def mask(self) -> Any:
        net, ops, heads = self.net, self.net.ops, self.sizes.heads
        hidden = ops.convert(super().mask(), "boolean")
        places = ops.convert(net.const(np.arange(1 - LONGEST, 1).reshape(1, 1, 1, -1), np.int32), "f32")
        slopes = 2.0 ** (-8 * np.arange(1, heads + 1) / heads)
        table = ops.squeeze(ops.multiply(places, net.const(slopes.reshape(1, -1, 1, 1))), net.ints(0))
        whole = ops.gather(ops.shape_of(self.given, "i64"), net.ints(1), self.zero)
        start = ops.subtract(net.ints(LONGEST), whole)
        last = net.ints(np.iinfo(np.int64).max)
        bias = ops.slice(table, start, last, net.ints(1), net.ints(2))
        shape = ops.maximum(ops.concat([net.ints(1), ops.shape_of(bias, "i64")], 0), net.ints(1, heads, 1, 1))
        return ops.select(hidden, net.const(np.finfo(np.float32).min), ops.broadcast(bias, shape))


class Growing(Family):
    """phimoe: a table of positions that has as many rows as the past and the new tokens."""

    def attended(self, q: Any, k: Any, v: Any, mask: Any, layer: int) -> Any:
        net, ops, size = self.net, self.net.ops, self.sizes.size

        def length(x: Any, axis: int) -> Any:
            return ops.gather(ops.shape_of(x, "i64"), net.const(axis, np.int64), self.zero)

        whole = ops.add(length(k.input_value(0), 2), length(self.ids, 1))
        rows = ops.convert(ops.range(self.zero, whole, net.const(1, np.int64), "i64"), "f32")
        table = self.table(ops.unsqueeze(rows, net.ints(1)), net.const(np.linspace(0, 1, size)), whole)
        turned = ops.unsqueeze(ops.gather(table, self.places, self.zero), net.ints(1))
        return super().attended(ops.multiply(q, turned), k, v, mask, layer)

    def table(self, places: Any, speeds: Any, length: Any) -> Any:
        return self.net.ops.cos(self.net.ops.multiply(places, speeds))


class Chosen(Growing):
    """phimoe with two tables: speeds and a factor that depend on the length."""

    def table(self, places: Any, speeds: Any, length: Any) -> Any:
        net, ops = self.net, self.net.ops

        def chosen(limit: int, longer: Any, shorter: Any) -> Any:
            return ops.select(ops.greater(length, net.const(limit, np.int64)), longer, shorter)

        speeds = chosen(12, ops.multiply(speeds, net.const(3.0)), speeds)
        return ops.multiply(super().table(places, speeds, length), chosen(40, net.const(1.5), net.const(0.5)))


class Counting(Exported):
    """Places that are counted from a cache; the model has no input for them."""

    def build(self) -> Any:
        net, ops, s = self.net, self.net.ops, self.sizes
        # the cache of the first layer, before its own nodes are there
        shape = net.ov.PartialShape([-1, s.heads, -1, s.size])
        start = ops.concat([self.batch, net.ints(s.heads, 0, s.size)], 0)
        before = ops.read_value(
            ops.broadcast(net.const(0.0), start), "past_key_values.0.key", np.float32, shape
        )
        self.first = ops.gather(before, self.beams, self.zero)
        past = ops.gather(ops.shape_of(self.first, "i64"), net.const(2, np.int64), self.zero)
        new = ops.gather(ops.shape_of(self.ids, "i64"), net.const(1, np.int64), self.zero)
        rows = ops.range(self.zero, new, net.const(1, np.int64), "i64")
        rows = ops.add(rows, past)
        rows.output(0).tensor.set_names({"cache_position"})
        self.x = self.placed(self.x, rows)
        return super().build()

    def cached(self, value: Any, name: str) -> Any:
        if name != "past_key_values.0.key":
            return super().cached(value, name)
        joined = self.net.ops.concat([self.first, value], 2)
        self.sinks.append(self.net.ops.assign(joined, name))
        return joined

    def placed(self, x: Any, rows: Any) -> Any:
        """marian: rows of a table, in the order of the places [tokens]."""
        net, ops = self.net, self.net.ops
        table = net.const(net.rng.standard_normal((LONGEST, self.sizes.wide), np.float32))
        return ops.add(x, ops.gather(table, ops.add(rows, net.const(2, np.int64)), self.zero))

    def model(self, logits: Any, name: str) -> Any:
        logits.output(0).tensor.set_names({"logits"})
        return self.net.model([logits], [self.ids, self.given, self.beams], name, self.sinks)


class Tuned(Counting):
    """llama4: factors of later tokens are greater."""

    def placed(self, x: Any, rows: Any) -> Any:
        net, ops = self.net, self.net.ops
        steps = ops.floor(ops.multiply(ops.convert(rows, "f32"), net.const(0.125)))
        later = ops.add(steps, net.const(1.0))
        factors = ops.add(ops.multiply(ops.log(later), ops.divide(steps, later)), net.const(1.0))
        return ops.multiply(x, ops.reshape(factors, net.ints(1, -1, 1), False))

    def model(self, logits: Any, name: str) -> Any:
        return Exported.model(self, logits, name)


class Thrice(Counting):
    """qwen3.5: places of three kinds, which are the same for a text."""

    def placed(self, x: Any, rows: Any) -> Any:
        net, ops = self.net, self.net.ops
        new = ops.gather(ops.shape_of(self.ids, "i64"), net.ints(1), self.zero)
        shape = ops.concat([net.ints(3), self.batch, new], 0)
        places = ops.broadcast(ops.reshape(rows, net.ints(1, 1, -1), False), shape)
        places = ops.convert(ops.unsqueeze(places, net.const(-1, np.int64)), "f32")
        speeds = net.const(net.rng.uniform(0.1, 1, (3, 1, 1, self.sizes.wide)).astype(np.float32))
        return ops.add(x, ops.reduce_sum(ops.cos(ops.multiply(places, speeds)), net.ints(0), False))


class Biased(Windowed):
    """doge: what the mask adds to the scores of a key depends on the key's value. `odd`: and on the query."""

    def __init__(self, package: Any, odd: bool = False):
        self.odd = odd
        super().__init__(package, "biased")

    def attended(self, q: Any, k: Any, v: Any, mask: Any, layer: int) -> Any:
        net, ops, s = self.net, self.net.ops, self.sizes
        tokens = ops.reshape(ops.transpose(v, net.ints(0, 2, 1, 3)), net.ints(0, 0, s.wide), True)
        bias = ops.softplus(net.linear(tokens, s.wide, s.heads, False, 2.0))
        bias = ops.unsqueeze(ops.transpose(bias, net.ints(0, 2, 1)), net.ints(2))
        if self.odd:
            rows = ops.range(self.zero, ops.gather(ops.shape_of(q, "i64"), net.const(2, np.int64), self.zero),
                             net.const(1, np.int64), "f32")  # fmt: skip
            bias = ops.multiply(bias, ops.unsqueeze(ops.cos(rows), net.ints(1)))
            bias = ops.multiply(bias, bias)
        hidden = ops.less(mask, net.const(0.0))
        return super().attended(q, k, v, ops.select(hidden, net.const(-65504.0), bias), layer)


class Sharing(Family):
    """gemma3n: the last layer reads the keys and values of another one."""

    def cached(self, value: Any, name: str) -> Any:
        kind = name.rpartition(".")[2]
        if not hasattr(self, kind):
            setattr(self, kind, super().cached(value, name))
        return getattr(self, kind)


class Experts(Family):
    """mixtral: each token's best two of several gated parts. `equal`: these have the same weights."""

    def __init__(self, package: Any, equal: bool = False):
        self.equal = equal
        super().__init__(package, "experts")

    def fed(self, y: Any) -> Any:
        net, ops, s = self.net, self.net.ops, self.sizes
        chances = ops.softmax(net.linear(y, s.wide, EXPERTS, False), -1)
        best = ops.topk(chances, net.const(2, np.int64), -1, "max", "value", "i64")
        weights = ops.divide(best.output(0), ops.reduce_sum(best.output(0), net.ints(-1), True))
        zeros = ops.multiply(chances, net.const(0.0))
        shares = ops.scatter_elements_update(zeros, best.output(1), weights, net.const(-1, np.int64))
        parts = ops.split(shares, net.const(-1, np.int64), EXPERTS)
        first = super().fed(y)
        others = [first if self.equal else super(Experts, self).fed(y) for _ in range(1, EXPERTS)]
        made = [ops.multiply(one, parts.output(e)) for e, one in enumerate([first, *others])]
        total = made[0]
        for one in made[1:]:
            total = ops.add(total, one)
        return total


def gpt2(package: Any) -> Any:
    return transformers.gpt2(Net(package, "gpt2"), SIZES)


FAMILIES: dict[str, Callable[[Any], Any]] = {
    "gpt2": gpt2,
    "sinks": lambda package: Sinks(package, "sinks").build(),
    "window": lambda package: Windowed(package, "window").build(),
    "slopes": lambda package: Slopes(package, "slopes").build(),
    "experts": lambda package: Experts(package).build(),
    "sharing": lambda package: Sharing(package, "sharing").build(),
    "chunks": lambda package: Chunked(package, 32).build(),
    "growing": lambda package: Growing(package, "growing").build(),
}
#: Families whose slopes, or other numbers of keys, OpenVINO's transformation loses.
LOST: dict[str, Callable[[Any], Any]] = {"table": lambda package: Table(package, "table").build()}
LOST["bias"] = lambda package: Biased(package).build()


def rounded(package: Any, heads: int, shared: int) -> Any:
    sizes = SIZES._replace(wide=16 * heads, heads=heads, shared=shared)
    return Rounded(package, "rounded", sizes).build()


#: Those whose keys have more elements in the cache: for each head that shares one, and an even number.
ROUNDED: dict[str, Callable[[Any], Any]] = {
    "rounded, 4 of 4": lambda package: rounded(package, 4, 4),
    "rounded, 2 of 6": lambda package: rounded(package, 6, 2),
    "rounded, 1 of 4": lambda package: rounded(package, 4, 1),
}
ROUNDED["rounded, far"] = lambda package: FarRounded(package, "far").build()
#: Families whose places OpenVINO's transformation loses.
PLACED: dict[str, Callable[[Any], Any]] = {
    "counting": lambda package: Counting(package, "counting").build(),
    "tuned": lambda package: Tuned(package, "tuned").build(),
    "thrice": lambda package: Thrice(package, "thrice").build(),
}


def chosen(package: Any) -> Any:
    """A decoder whose attention depends on the length of a call."""
    return Chosen(package, "chosen").build()
