"""Decoders with recurrent layers: the time for a token beside OpenVINO's.

    python -m bench.hybrids [--models mamba mamba2 delta rwkv jamba] [--prompt 64] [--tokens 24]
    [--threads 1] [--rounds 5]

Layers have the forms in which optimum-intel exports them: a causal convolution whose last inputs are a
variable, and a Loop over tokens whose state is another one.

    mamba     state = state exp(dt A) + dt B x,           y = C state             of each channel
    mamba2    the same with one decay for a head
    delta     state = state exp(g), state += k beta (v - k state),  y = q state  (three layers of four, as in
              Qwen3-Next; OpenVINO computes these loops as one operation, GatedDeltaNet)
    rwkv      a mean of values weighted by exp(key), with a decay by channel
    jamba     mamba and attention, experts in every second layer

All are small and random. `token` and `first` are medians over rounds of ovjit's CPU time over OpenVINO's, for
a token and for the prompt; `error` is the largest difference of logits over the largest logit.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, report, transformers
from bench.transformers import Net

COLUMNS = ("model", "threads", "prompt", "first_cpu_ms", "first", "token_cpu_ms", "token", "error")
WIDE, WORDS, KERNEL, STATES, HEADS = 256, 2000, 4, 16, 4
LAYERS = {
    "mamba": ["mamba"] * 4,
    "mamba2": ["mamba2"] * 4,
    "delta": ["delta", "delta", "delta", "attention"],
    "rwkv": ["rwkv"] * 4,
    "jamba": ["mamba", "mamba experts", "attention", "mamba experts"],
}


class Hybrid(transformers.Decoder):
    """A decoder some of whose layers keep a state of one size, whatever the length."""

    def __init__(self, net: Net):
        super().__init__(net, transformers.Sizes(wide=WIDE, heads=HEADS, shared=HEADS, words=WORDS))
        ops = net.ops
        shape = ops.shape_of(self.ids, "i64")
        self.count = ops.gather(shape, net.ints(1), self.zero)

    def kept(self, name: str, *shape: int) -> tuple[Any, Callable[[Any], None]]:
        """A variable of the sequences [batch, *shape], which is zeros at first, and what sets it."""
        net, ops = self.net, self.net.ops
        start = ops.broadcast(net.const(0.0), ops.concat([self.batch, net.ints(*shape)], 0))
        value = ops.read_value(start, name, np.float32, net.ov.PartialShape([-1, *shape]))
        value = ops.gather(value, self.beams, self.zero)

        def keep(new: Any) -> None:
            self.sinks.append(ops.assign(new, name))

        return value, keep

    def causal(self, x: Any, wide: int, name: str) -> Any:
        """A convolution [B, L, wide] over a token and the KERNEL - 1 before it, and SiLU."""
        net, ops = self.net, self.net.ops
        before, keep = self.kept(f"{name}.conv", wide, KERNEL - 1)
        whole = ops.concat([before, ops.transpose(x, net.ints(0, 2, 1))], 2)
        last = net.ints(np.iinfo(np.int64).max)
        keep(ops.slice(whole, net.ints(1 - KERNEL), last, net.ints(1), net.ints(2)))
        weight = net.const(net.rng.standard_normal((wide, 1, 1, KERNEL), np.float32) * np.float32(0.5))
        y = ops.group_convolution(whole, weight, [1], [0], [0], [1])
        return ops.swish(ops.transpose(y, net.ints(0, 2, 1)))

    def loop(
        self, rows: list[tuple[Any, list[int]]], axis: int, state: Any, out: list[int], step: Any
    ) -> list[Any]:
        """`step` for each token along `axis` of the rows (values and the shapes of one token); outputs, which
        take the shape `out` for a token, and the last state."""
        net, ops = self.net, self.net.ops
        shape_of = net.ov.PartialShape
        place = ops.parameter([], np.int32, name="place")
        taken = [ops.parameter(shape_of(shape), np.float32) for _, shape in rows]
        held = ops.parameter(state.get_output_partial_shape(0), np.float32)
        made = ops.parameter(shape_of(out), np.float32)
        new, y = step(held, *taken)
        at = ops.unsqueeze(place, net.const(0, np.int32))
        whole = ops.scatter_update(made, at, y, net.const(axis, np.int32))
        go_on = ops.constant(np.array(True))
        body = net.ov.Model([go_on, new, whole], [place, *taken, held, made], "step")
        target = [net.ints(n) if n > 0 else (self.batch if i == 0 else self.count) for i, n in enumerate(out)]
        target = ops.concat(target, 0)
        start = ops.broadcast(net.const(0.0), target)
        count = ops.squeeze(ops.convert(self.count, "i32"), net.ints(0))
        loop = ops.loop(count, ops.constant(np.array(True)))
        loop.set_function(body)
        loop.set_special_body_ports([0, 0])
        for parameter, (value, _) in zip(taken, rows, strict=True):
            loop.set_sliced_input(parameter, value.output(0), 0, 1, 1, -1, axis)
        loop.set_merged_input(held, state.output(0), new.output(0))
        loop.set_merged_input(made, start.output(0), whole.output(0))
        ends = [loop.get_iter_value(value.output(0), -1) for value in (whole, new)]
        flat = ops.concat([ops.reshape(end, net.ints(-1), False) for end in ends], 0)
        start = ops.reduce_prod(target, net.ints(0), True)
        parts = [(net.ints(0), start), (start, net.ints(np.iinfo(np.int64).max))]
        shapes = target, ops.shape_of(state, "i64")
        return [
            ops.reshape(ops.slice(flat, low, high, net.ints(1), net.ints(0)), shape, False)
            for (low, high), shape in zip(parts, shapes, strict=True)
        ]

    def mamba(self, x: Any, name: str) -> Any:
        net, ops, inner, rank = self.net, self.net.ops, 2 * WIDE, WIDE // 16
        parts = ops.variadic_split(
            net.linear(x, WIDE, 2 * inner, False), net.const(2, np.int64), net.ints(inner, inner)
        )
        u = self.causal(parts.output(0), inner, name)
        told = ops.variadic_split(
            net.linear(u, inner, rank + 2 * STATES, False), net.const(2, np.int64),
            net.ints(rank, STATES, STATES),
        )  # fmt: skip
        dt = ops.softplus(net.linear(told.output(0), rank, inner))
        decay = net.const(-np.tile(np.arange(1, STATES + 1, dtype=np.float32), (inner, 1)))
        wide = ops.unsqueeze(dt, net.ints(3))  # [B, L, inner, 1]
        kept = ops.exp(ops.multiply(wide, decay))
        added = ops.multiply(
            ops.unsqueeze(ops.multiply(dt, u), net.ints(3)), ops.unsqueeze(told.output(1), net.ints(2))
        )
        before, keep = self.kept(f"{name}.ssm", inner, STATES)

        def step(state: Any, a: Any, b: Any, c: Any) -> Any:
            one = net.ints(1)
            new = ops.add(ops.multiply(state, ops.squeeze(a, one)), ops.squeeze(b, one))
            y = ops.matmul(new, ops.unsqueeze(ops.squeeze(c, one), net.ints(2)), False, False)
            return new, ops.unsqueeze(ops.squeeze(y, net.ints(2)), one)

        each = [-1, 1, inner, STATES]
        rows = [(kept, each), (added, each), (ops.convert(told.output(2), "f32"), [-1, 1, STATES])]
        y, last = self.loop(rows, 1, before, [-1, -1, inner], step)
        keep(last)
        skip = net.const(net.rng.uniform(0.5, 1.5, inner).astype(np.float32))
        y = ops.add(y, ops.multiply(u, skip))
        return net.linear(ops.multiply(y, ops.swish(parts.output(1))), inner, WIDE, False, gain=0.5)

    def mamba2(self, x: Any, name: str) -> Any:
        net, ops, inner, heads = self.net, self.net.ops, 2 * WIDE, 2 * HEADS
        size, states = inner // heads, 4 * STATES
        sizes = net.ints(inner, inner + 2 * states, heads)
        whole = net.linear(x, WIDE, 2 * inner + 2 * states + heads, False)
        parts = ops.variadic_split(whole, net.const(2, np.int64), sizes)
        told = ops.variadic_split(
            self.causal(parts.output(1), inner + 2 * states, name), net.const(2, np.int64),
            net.ints(inner, states, states),
        )  # fmt: skip
        dt = ops.transpose(ops.softplus(parts.output(2)), net.ints(0, 2, 1))  # [B, H, L]
        rate = net.const(-net.rng.uniform(0.5, 4, (heads, 1)).astype(np.float32))
        kept = ops.unsqueeze(ops.exp(ops.multiply(dt, rate)), net.ints(3, 4))
        u = net.heads(told.output(0), heads, size)
        scaled = ops.unsqueeze(ops.multiply(u, ops.unsqueeze(dt, net.ints(3))), net.ints(4))
        added = ops.multiply(scaled, ops.unsqueeze(told.output(1), net.ints(1, 3)))
        target = ops.concat([self.batch, net.ints(heads), self.count, net.ints(states)], 0)
        c = ops.broadcast(ops.unsqueeze(told.output(2), net.ints(1)), target)
        before, keep = self.kept(f"{name}.ssm", heads, size, states)

        def step(state: Any, a: Any, b: Any, c: Any) -> Any:
            two = net.const(2, np.int32)
            new = ops.add(ops.multiply(state, ops.squeeze(a, two)), ops.squeeze(b, two))
            seen = ops.multiply(new, ops.unsqueeze(ops.squeeze(c, two), net.const(-2, np.int32)))
            return new, ops.unsqueeze(ops.reduce_sum(seen, net.const(-1, np.int32), False), two)

        lead = [-1, heads, 1]
        rows = [(kept, [*lead, 1, 1]), (added, [*lead, size, states]), (c, [*lead, states])]
        y, last = self.loop(rows, 2, before, [-1, heads, -1, size], step)
        keep(last)
        y = net.merge(y, inner)
        y = net.rms_norm(ops.multiply(y, ops.swish(parts.output(0))), inner)
        return net.linear(y, inner, WIDE, False, gain=0.5)

    def delta(self, x: Any, name: str, shared: int = 1) -> Any:
        """`shared`: how many heads have the same queries and keys."""
        net, ops, heads, size = self.net, self.net.ops, HEADS, WIDE // HEADS
        wide = WIDE // shared
        mixed = self.causal(net.linear(x, WIDE, 2 * wide + WIDE, False), 2 * wide + WIDE, name)
        parts = ops.variadic_split(mixed, net.const(2, np.int64), net.ints(wide, wide, WIDE))
        q, k = (net.heads(parts.output(i), heads // shared, size) for i in range(2))
        v = net.heads(parts.output(2), heads, size)
        if shared > 1:
            own = net.ints(*np.arange(heads) // shared)
            q, k = (ops.gather(x, own, net.const(1, np.int64)) for x in (q, k))
        q, k = self.unit(q), self.unit(k)
        width = ops.gather(ops.shape_of(q, "i64"), net.const(3, np.int64), self.zero)
        q = ops.divide(q, ops.power(ops.convert(width, "f32"), net.const(0.5)))
        both = ops.transpose(net.linear(x, WIDE, 2 * heads, False), net.ints(0, 2, 1))
        two = ops.variadic_split(both, net.const(1, np.int64), net.ints(heads, heads))
        rate = net.const(-net.rng.uniform(0.1, 1, (heads, 1)).astype(np.float32))
        g, beta = ops.multiply(ops.softplus(two.output(0)), rate), ops.sigmoid(two.output(1))
        before, keep = self.kept(f"{name}.recurrent", heads, size, size)

        def step(state: Any, q: Any, k: Any, v: Any, g: Any, beta: Any) -> Any:
            two, last, row = (net.const(n, np.int32) for n in (2, -1, -2))
            q, k, v = (ops.squeeze(x, two) for x in (q, k, v))
            state = ops.multiply(state, ops.unsqueeze(ops.exp(g), last))
            known = ops.reduce_sum(ops.multiply(state, ops.unsqueeze(k, last)), row, False)
            change = ops.multiply(ops.subtract(v, known), beta)
            state = ops.add(state, ops.multiply(ops.unsqueeze(k, last), ops.unsqueeze(change, row)))
            return state, ops.reduce_sum(ops.multiply(state, ops.unsqueeze(q, last)), row, True)

        one, each = [-1, heads, 1], [-1, heads, 1, size]
        rows = [(q, each), (k, each), (v, each), (g, one), (beta, one)]
        y, last = self.loop(rows, 2, before, [-1, heads, -1, size], step)
        keep(last)
        y = net.rms_norm(net.merge(y, WIDE), WIDE)
        y = ops.multiply(y, ops.swish(net.linear(x, WIDE, WIDE, False)))
        return net.linear(y, WIDE, WIDE, False, gain=0.5)

    def unit(self, x: Any) -> Any:
        """Rows of length 1."""
        net, ops = self.net, self.net.ops
        squares = ops.reduce_sum(ops.multiply(x, x), net.ints(-1), True)
        return ops.multiply(x, ops.divide(net.const(1.0), ops.sqrt(ops.add(squares, net.const(1e-6)))))

    def rwkv(self, x: Any, name: str) -> Any:
        """States: sums of values and of weights, and the largest key of both, one above the other."""
        net, ops = self.net, self.net.ops
        before, keep = self.kept(f"{name}.shift", 1, WIDE)
        whole = ops.concat([before, x], 1)
        end = net.ints(np.iinfo(np.int64).max)
        keep(ops.slice(whole, net.ints(-1), end, net.ints(1), net.ints(1)))
        late = ops.slice(whole, net.ints(0), net.ints(-1), net.ints(1), net.ints(1))

        def mixed() -> Any:
            share = net.const(net.rng.uniform(0, 1, WIDE).astype(np.float32))
            return ops.add(ops.multiply(x, share), ops.multiply(late, ops.subtract(net.const(1.0), share)))

        k, v, r = (net.linear(mixed(), WIDE, WIDE, False) for _ in range(3))
        decay = net.const(-net.rng.uniform(0.1, 2, WIDE).astype(np.float32))
        bonus = net.const(net.rng.standard_normal(WIDE, np.float32) * np.float32(0.3))
        state, keep = self.kept(f"{name}.sums", 3, WIDE)

        def step(state: Any, k: Any, v: Any) -> Any:
            k, v = (ops.squeeze(x, net.ints(1)) for x in (k, v))
            parts = ops.split(state, net.const(1, np.int64), 3)
            top, total, weight = (ops.squeeze(parts.output(i), net.ints(1)) for i in range(3))

            def joined(other: Any, key: Any) -> list[Any]:
                most = ops.maximum(other, key)
                old, new = ops.exp(ops.subtract(other, most)), ops.exp(ops.subtract(key, most))
                sums = ops.add(ops.multiply(old, total), ops.multiply(new, v))
                return [most, sums, ops.add(ops.multiply(old, weight), new)]

            seen = joined(top, ops.add(k, bonus))
            rows = joined(ops.add(top, decay), k)
            new = ops.concat([ops.unsqueeze(row, net.ints(1)) for row in rows], 1)
            return new, ops.unsqueeze(ops.divide(seen[1], seen[2]), net.ints(1))

        each = [-1, 1, WIDE]
        y, last = self.loop([(k, each), (v, each)], 1, state, [-1, -1, WIDE], step)
        keep(last)
        y = ops.multiply(ops.sigmoid(r), y)
        return net.linear(y, WIDE, WIDE, False, gain=0.5)

    def attention(self, x: Any, name: str) -> Any:
        net, ops, size = self.net, self.net.ops, WIDE // HEADS
        q, k, v = (net.heads(net.linear(x, WIDE, WIDE, False), HEADS, size) for _ in range(3))
        k, v = self.cached(k, f"{name}.key"), self.cached(v, f"{name}.value")
        z = ops.scaled_dot_product_attention(q, k, v, self.mask())
        return net.linear(net.merge(z, WIDE), WIDE, WIDE, False, gain=0.5)

    def experts(self, x: Any, kinds: int = 4, chosen: int = 2) -> Any:
        """Two experts of four for each row; the others count 0."""
        net, ops = self.net, self.net.ops
        rows = ops.reshape(x, net.ints(-1, WIDE), False)
        best = ops.topk(ops.softmax(net.linear(rows, WIDE, kinds, False), 1), net.const(chosen, np.int64), 1,
                        "max", "value", "i64")  # fmt: skip
        none = ops.broadcast(
            net.const(0.0), ops.concat([ops.gather(ops.shape_of(rows, "i64"), net.ints(0), self.zero),
                                        net.ints(kinds)], 0)
        )  # fmt: skip
        share = ops.scatter_elements_update(none, best.output(1), best.output(0), net.const(1, np.int64))
        gate, up = (net.weights(kinds, 2 * WIDE, WIDE, fan=WIDE) for _ in range(2))
        down = net.weights(kinds, WIDE, 2 * WIDE, fan=4 * WIDE)
        wide = ops.tile(ops.unsqueeze(rows, net.ints(0)), net.ints(kinds, 1, 1))  # as exporters write it
        made = ops.multiply(ops.swish(ops.matmul(wide, gate, False, True)), ops.matmul(wide, up, False, True))
        made = ops.matmul(made, down, False, True)
        made = ops.multiply(made, ops.unsqueeze(ops.transpose(share, net.ints(1, 0)), net.ints(2)))
        target = ops.concat([self.batch, self.count, net.ints(WIDE)], 0)
        return ops.reshape(ops.reduce_sum(made, net.ints(0), False), target, False)

    def dense(self, x: Any) -> Any:
        net, ops = self.net, self.net.ops
        gate, up = (net.linear(x, WIDE, 2 * WIDE, False) for _ in range(2))
        made = ops.multiply(ops.swish(gate), up)
        return net.linear(made, 2 * WIDE, WIDE, False, gain=0.5)


def build(package: Any, name: str) -> Any:
    """The decoder `name` of LAYERS, with the inputs and outputs of `transformers.Decoder`."""
    net = Net(package, f"hybrid-{name}")
    decoder, ops = Hybrid(net), net.ops
    x = decoder.x
    for i, kind in enumerate(LAYERS[name]):
        first, _, second = kind.partition(" ")
        x = ops.add(x, getattr(decoder, first)(net.rms_norm(x, WIDE), f"layers.{i}"))
        if name not in ("mamba", "mamba2"):
            y = net.rms_norm(x, WIDE)
            x = ops.add(x, decoder.experts(y) if second else decoder.dense(y))
    return decoder.model(net.linear(net.rms_norm(x, WIDE), WIDE, WORDS, False), name)


def fed(ids: np.ndarray, begin: int, end: int) -> dict[str, np.ndarray]:
    """The inputs for tokens from `begin` to `end` of one sequence."""
    return {
        "input_ids": ids[None, begin:end], "attention_mask": np.ones((1, end), np.int64),
        "position_ids": np.arange(begin, end)[None], "beam_idx": np.zeros(1, np.int32),
    }  # fmt: skip


class Run:
    """A request, and what a prompt and tokens take."""

    def __init__(self, package: Any, path: str, threads: int):
        config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        core = package.Core()
        self.request = core.compile_model(core.read_model(path), "CPU", config).create_infer_request()
        self.names = {name for p in self.request.model_inputs for name in p.get_names()}

    def __call__(self, ids: np.ndarray, prompt: int) -> tuple[list[np.ndarray], list[float]]:
        self.request.reset_state()
        found, times = [], []
        for begin, end in [(0, prompt), *((i, i + 1) for i in range(prompt, len(ids)))]:
            given = {k: v for k, v in fed(ids, begin, end).items() if k in self.names}
            began = time.process_time()
            self.request.infer(given)
            times.append(time.process_time() - began)
            found.append(np.array(self.request.get_output_tensor(0).data[0]))
        return found, times


def measure(name: str, threads: int, prompt: int, tokens: int, rounds: int, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    import openvino

    import ovjit

    path = folder / f"{name}.xml"
    openvino.save_model(build(openvino, name), path, compress_to_fp16=False)
    both = [Run(package, str(path), threads) for package in (ovjit, openvino)]
    ids = np.random.default_rng(transformers.SEED).integers(0, WORDS, prompt + tokens)
    logits = [run(ids, prompt)[0] for run in both]
    pairs = [(abs(a - b).max(), abs(b).max()) for a, b in zip(*logits, strict=True)]
    first: list[list[float]] = [[], []]
    each: list[list[float]] = [[], []]
    for turn in range(rounds):
        for i in (0, 1) if turn % 2 else (1, 0):
            times = both[i](ids, prompt)[1]
            first[i].append(times[0])
            each[i].append(statistics.median(times[1:]))
    return {
        "model": name, "threads": threads, "prompt": prompt,
        "first_cpu_ms": statistics.median(first[0]) * 1e3,
        "first": statistics.median(a / b for a, b in zip(*first, strict=True)),
        "token_cpu_ms": statistics.median(each[0]) * 1e3,
        "token": statistics.median(a / b for a, b in zip(*each, strict=True)),
        "error": max(a for a, _ in pairs) / max(b for _, b in pairs),
    }  # fmt: skip


def main() -> int:
    parser = command.parser("hybrids", __doc__, json=False)
    parser.add_argument("--models", nargs="*", default=list(LAYERS), choices=LAYERS)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--threads", nargs="*", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.models:
            for threads in arguments.threads:
                row = measure(
                    name, threads, arguments.prompt, arguments.tokens, arguments.rounds, Path(scratch)
                )
                print(row, flush=True)
                rows.append(row)
    print(report.table(rows, COLUMNS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
