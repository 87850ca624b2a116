"""Layers that `python -m bench.gpu` checks and measures on a card: attention, recurrent layers, angles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import ovjit as ov
from bench.gpu_worker import Item

op = ov.opset13


class Layer(NamedTuple):
    """A model, its inputs, and the floating-point operations and bytes of an inference."""

    name: str
    model: ov.Model
    inputs: Sequence[np.ndarray]
    flops: float = 0
    moved: float = 0


#: The configuration of a card that computes in f16.
IN_F16 = {"card": 0, "INFERENCE_PRECISION_HINT": "f16"}
#: Batch, heads of queries and of keys, queries, keys, elements of a head, whether it is causal.
ATTENTIONS = (
    (1, 12, 12, 128, 128, 64, False), (8, 12, 12, 512, 512, 64, False), (1, 16, 16, 197, 197, 64, False),
    (1, 32, 8, 1024, 1024, 128, True), (2, 8, 8, 1024, 1024, 40, False), (1, 32, 8, 1, 4096, 128, False),
    (16, 32, 8, 1, 2048, 128, False),
)  # fmt: skip
#: Images, channels, side, output channels, side of the window, stride, groups.
CONVOLUTIONS = (
    (1, 64, 56, 64, 3, 1, 1), (32, 64, 56, 64, 3, 1, 1), (1, 3, 224, 64, 7, 2, 1),
    (1, 1024, 14, 256, 1, 1, 1), (2, 320, 64, 320, 3, 1, 1), (1, 96, 112, 96, 3, 2, 96),
    (1, 256, 28, 256, 3, 1, 32),
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


def name_convolution(batch: int, ins: int, side: int, outs: int, taps: int, groups: int) -> str:
    kinds = {1: "convolution", ins: "depthwise convolution"}
    kind = kinds.get(groups, f"convolution in {groups} groups")
    return f"{kind} {batch}x{ins}x{side}x{side} to {outs} by {taps}x{taps}"


def make_convolution(
    batch: int, ins: int, side: int, outs: int, taps: int, stride: int, groups: int
) -> Layer:
    """relu(convolution + bias), of data that are converted to f16 with channels last."""
    rng = np.random.default_rng(8)
    shape = (outs // groups, ins // groups, taps, taps)
    shape = shape if groups == 1 else (groups, *shape)
    weights = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[-3:]))).astype(np.float32)
    x = op.parameter([batch, ins, side, side], np.float32, name="x")
    pads, build = [taps // 2] * 2, op.convolution if groups == 1 else op.group_convolution
    y = build(x, weights, [stride] * 2, pads, pads, [1, 1])
    y = op.relu(op.add(y, rng.standard_normal((1, outs, 1, 1)).astype(np.float32)))
    array = rng.standard_normal((batch, ins, side, side)).astype(np.float32)
    pixels = batch * (-(-side // stride)) ** 2
    name = name_convolution(batch, ins, side, outs, taps, groups)
    flops = 2.0 * pixels * outs * taps * taps * (ins // groups)
    return Layer(name, ov.Model([y], [x]), [array], flops)


#: Rows, inputs, outputs, bits of a weight.
COMPRESSED = ((1, 4096, 4096, 4), (1, 4096, 4096, 8), (512, 4096, 4096, 4))


def name_compressed(rows: int, ins: int, outs: int, bits: int) -> str:
    return f"product {rows} x {outs} x {ins} of {bits} bits"


def make_compressed(rows: int, ins: int, outs: int, bits: int) -> Layer:
    """A product with integer weights, which have a scale for each output and 128 inputs."""
    rng = np.random.default_rng(9)
    x = op.parameter([rows, ins], np.float32, name="x")
    group = 128 if ins % 128 == 0 else ins
    codes = rng.integers(0, 1 << bits, (ins // group, group, outs)).astype(np.uint8)
    packed = ov.op.Constant(ov.Type.u4, ov.Shape(codes.shape), codes.reshape(-1)) if bits == 4 else codes
    scale = (rng.random((ins // group, 1, outs)) / ins).astype(np.float32)
    middle = np.float32((1 << bits) // 2)
    weights = op.multiply(op.subtract(op.convert(packed, np.float32), middle), scale)
    y = op.matmul(x, op.reshape(weights, [ins, outs], False), False, False)
    moved = ins * outs * bits / 8
    array = rng.standard_normal((rows, ins)).astype(np.float32)
    return Layer(
        name_compressed(rows, ins, outs, bits), ov.Model([y], [x]), [array], 2.0 * rows * ins * outs, moved
    )


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


#: Heads of the decoder, and elements of a token.
HEADS, WIDTH = 4, 64


def make_decoder() -> ov.Model:
    """Attention to all tokens so far, of any number of sequences [batch, new tokens, WIDTH], with keys and
    values in variables, whose rows an input orders."""
    x = op.parameter(ov.PartialShape([-1, -1, WIDTH]), np.float32, name="x")
    beams, zero = op.parameter(ov.PartialShape([-1]), np.int32, name="beam_idx"), np.int64(0)
    heads = op.transpose(op.reshape(x, np.array([0, 0, HEADS, WIDTH // HEADS]), True), [0, 2, 1, 3])
    batch = op.gather(op.shape_of(x, "i64"), np.array([0]), zero)
    sizes = op.concat([batch, np.array([HEADS, 0, WIDTH // HEADS])], 0)
    start, sinks, values = op.broadcast(np.float32(0), sizes), [], []
    for name, factor in (("keys", 0.5), ("values", 2.0)):
        shape = ov.PartialShape([-1, HEADS, -1, WIDTH // HEADS])
        before = op.gather(op.read_value(start, name, np.float32, shape), beams, zero)
        values.append(op.concat([before, op.multiply(op.tanh(heads), np.float32(factor))], 2))
        sinks.append(op.assign(values[-1], name))
    y = op.scaled_dot_product_attention(heads, *values)
    return ov.Model([op.result(y)], sinks, [x, beams], "decoder")


def layers() -> Iterator[Layer]:
    yield from (make_attention(*sizes) for sizes in ATTENTIONS)
    yield from (make_convolution(*sizes) for sizes in CONVOLUTIONS)
    yield from (make_compressed(*sizes) for sizes in COMPRESSED)
    yield from (make_recurrent(*sizes) for sizes in RECURRENT)
    yield make_angles()


def small_layers() -> Iterator[Layer]:
    """Layers with the same kernels, and all tails of their tiles."""
    for sizes in ((2, 4, 2, 19, 37, 64, False), (1, 2, 2, 33, 33, 128, True), (1, 8, 2, 1, 50, 80, False),
                  (1, 8, 2, 1, 700, 80, False)):  # fmt: skip
        yield make_attention(*sizes)
    for sizes in (
        (2, 24, 9, 40, 3, 1, 1), (1, 3, 11, 16, 5, 2, 1), (1, 40, 9, 40, 3, 2, 40), (2, 64, 9, 40, 3, 1, 1),
        (1, 128, 11, 72, 1, 1, 1), (3, 64, 14, 128, 3, 2, 1), (2, 32, 9, 48, 3, 1, 8),
        (1, 48, 7, 96, 3, 2, 2),
    ):  # fmt: skip
        yield make_convolution(*sizes)
    for sizes in ((3, 1024, 72, 4), (5, 1024, 64, 8), (37, 1024, 72, 4)):
        yield make_compressed(*sizes)
    for recurrent in (
        ("lstm", 3, 7, 16, 33), ("gru", 3, 7, 16, 33), ("lstm", 2, 5, 16, 130), ("lstm", 1, 2, 8, 1030),
    ):  # fmt: skip
        yield make_recurrent(*recurrent)
    yield make_angles()


def is_right(result: np.ndarray, want: np.ndarray) -> bool:
    """True if results differ by roundings to f16 of the largest."""
    room = 4e-3 * max(float(np.abs(want).max(initial=0)), 1e-3)
    return bool(np.all((np.abs(result - want) <= room) | (result == want)))


def measure_torch_layers(torch: Any) -> Iterator[Item]:
    """PyTorch's times of attention and convolutions in f16, in CUDA graphs."""
    functional = torch.nn.functional

    def convolve(batch: int, ins: int, side: int, outs: int, taps: int, stride: int, groups: int) -> Any:
        x, w = (
            torch.randn(*shape, device="cuda", dtype=torch.float16).to(memory_format=torch.channels_last)
            for shape in ((batch, ins, side, side), (outs, ins // groups, taps, taps))
        )
        bias = torch.randn(outs, device="cuda", dtype=torch.float16)
        return lambda: torch.relu(functional.conv2d(x, w, bias, stride, taps // 2, groups=groups))

    def attend(
        batch: int, heads: int, key_heads: int, rows: int, columns: int, size: int, causal: bool
    ) -> Any:
        shapes = [(batch, heads, rows, size), *[(batch, key_heads, columns, size)] * 2]
        q, k, v = (torch.randn(*shape, device="cuda", dtype=torch.float16) for shape in shapes)
        product = functional.scaled_dot_product_attention
        return lambda: product(q, k, v, is_causal=causal, enable_gqa=True)

    def run(name: str, make: Callable[..., Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
        return [{"what": name, "torch us": round(time_in_graph(torch, make(*sizes)), 1)}]

    for sizes in CONVOLUTIONS:
        batch, ins, side, outs, taps, _, groups = sizes
        name = name_convolution(batch, ins, side, outs, taps, groups)
        yield Item(f"torch {name}", partial(run, name, convolve, sizes))
    for parts in ATTENTIONS:
        name = name_attention(*parts)
        yield Item(f"torch {name}", partial(run, name, attend, parts))


def time_in_graph(torch: Any, run: Callable[[], Any]) -> float:
    """Microseconds of a call, of ten in a CUDA graph."""
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
    return float(begin.elapsed_time(end) * 100)
