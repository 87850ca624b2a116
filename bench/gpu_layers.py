"""Layers that `python -m bench.gpu` checks and measures on a card: attention, recurrent layers, angles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import ovjit as ov

op = ov.opset13


class Layer(NamedTuple):
    """A model, its inputs, and the floating-point operations and bytes of an inference."""

    name: str
    model: ov.Model
    inputs: Sequence[np.ndarray]
    flops: float = 0
    moved: float = 0


#: Batch, heads of queries and of keys, queries, keys, elements of a head, whether it is causal.
ATTENTIONS = (
    (1, 12, 12, 128, 128, 64, False), (8, 12, 12, 512, 512, 64, False), (1, 16, 16, 197, 197, 64, False),
    (1, 32, 8, 1024, 1024, 128, True), (2, 8, 8, 1024, 1024, 40, False), (1, 32, 8, 1, 4096, 128, False),
    (16, 32, 8, 1, 2048, 128, False),
)  # fmt: skip
#: Kind, batch, steps, inputs, hidden units.
RECURRENT = (("lstm", 1, 100, 128, 256), ("lstm", 16, 50, 256, 512), ("gru", 1, 100, 128, 256))


def name_attention(
    batch: int, heads: int, key_heads: int, rows: int, columns: int, size: int, causal: bool
) -> str:
    return f"attention {batch}x{heads}/{key_heads} {rows}x{columns}x{size}{' causal' if causal else ''}"


def make_attention(
    batch: int, heads: int, key_heads: int, rows: int, columns: int, size: int, causal: bool
) -> Layer:
    """Attention whose keys and values are inputs, in f16 as a card computes it."""
    rng = np.random.default_rng(5)
    groups = heads // key_heads
    shapes = [(batch, key_heads, groups, rows, size), *[(batch, key_heads, 1, columns, size)] * 2]
    named = zip(shapes, "qkv", strict=True)
    q, k, v = (op.parameter(list(shape), np.float16, name=name) for shape, name in named)
    y = op.convert(op.scaled_dot_product_attention(q, k, v, causal=causal), np.float32)
    arrays = [rng.standard_normal(shape).astype(np.float16) for shape in shapes]
    pairs = batch * heads * rows * columns * (0.5 if causal else 1)
    name = name_attention(batch, heads, key_heads, rows, columns, size, causal)
    moved = sum(a.nbytes for a in arrays)
    return Layer(name, ov.Model([y], [q, k, v]), arrays, 4 * pairs * size, moved)


def make_recurrent(kind: str, batch: int, steps: int, inputs: int, hidden: int) -> Layer:
    """A recurrent layer with random weights."""
    rng = np.random.default_rng(6)
    gates = {"lstm": 4, "gru": 3}[kind]

    def weights(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    x = op.parameter([batch, steps, inputs], np.float32, name="x")
    zeros, lengths = np.zeros((batch, 1, hidden), np.float32), np.full(batch, steps)
    w, r = weights(1, gates * hidden, inputs), weights(1, gates * hidden, hidden)
    bias = np.zeros((1, gates * hidden), np.float32)
    states = [zeros] * (2 if kind == "lstm" else 1)
    build = op.lstm_sequence if kind == "lstm" else op.gru_sequence
    layer = build(x, *states, lengths, w, r, bias, hidden, "forward")
    flops = 2.0 * batch * steps * gates * hidden * (inputs + hidden)
    name = f"{kind} {batch}x{steps}x{inputs} to {hidden}"
    array = rng.standard_normal((batch, steps, inputs)).astype(np.float32)
    return Layer(name, ov.Model([layer.output(0)], [x]), [array], flops)


def make_angles() -> Layer:
    """Sines, cosines and tangents of small and large angles, and powers."""
    x = op.parameter([64, 1024], np.float32, name="x")
    parts = [op.sin(x), op.cos(x), op.power(op.abs(x), np.full((1, 1024), 0.3, np.float32))]
    array = np.exp2(np.random.default_rng(7).uniform(-8, 90, (64, 1024))).astype(np.float32)
    return Layer("angles and powers", ov.Model([op.concat(parts, 1)], [x]), [array], moved=4 * array.nbytes)


def layers() -> Iterator[Layer]:
    yield from (make_attention(*sizes) for sizes in ATTENTIONS)
    yield from (make_recurrent(*sizes) for sizes in RECURRENT)
    yield make_angles()


def small_layers() -> Iterator[Layer]:
    """Layers with the same kernels, and all tails of their tiles."""
    for sizes in ((2, 4, 2, 19, 37, 64, False), (1, 2, 2, 33, 33, 128, True), (1, 8, 2, 1, 50, 80, False)):
        yield make_attention(*sizes)
    yield from (make_recurrent(kind, 3, 7, 16, 33) for kind in ("lstm", "gru"))
    yield make_angles()


def is_right(result: np.ndarray, want: np.ndarray) -> bool:
    """True if results differ by roundings to f16 of the largest."""
    room = 4e-3 * max(float(np.abs(want).max(initial=0)), 1e-3)
    return bool(np.all((np.abs(result - want) <= room) | (result == want)))


def measure_torch_layers(torch: Any) -> Iterator[dict[str, Any]]:
    """PyTorch's times of attention in f16, in CUDA graphs."""
    for batch, heads, key_heads, rows, columns, size, causal in ATTENTIONS:
        shapes = [(batch, heads, rows, size), *[(batch, key_heads, columns, size)] * 2]
        q, k, v = (torch.randn(*shape, device="cuda", dtype=torch.float16) for shape in shapes)

        def run(q: Any = q, k: Any = k, v: Any = v, causal: bool = causal) -> Any:
            attend = torch.nn.functional.scaled_dot_product_attention
            return attend(q, k, v, is_causal=causal, enable_gqa=True)

        for _ in range(3):
            run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(10):
                run()
        graph.replay()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        name = name_attention(batch, heads, key_heads, rows, columns, size, causal)
        yield {"what": name, "torch us": round(begin.elapsed_time(end) * 100, 1)}
