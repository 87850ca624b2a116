"""The tile kernel on the convolutions of ResNet-50, beside this core's measured peak of multiply-adds.

    python -m bench.tiles [--network resnet50] [--format f32 u8i8 ...] [--rounds 15] [--json tiles.json]

Every distinct convolution of the network (with bias and relu, without Winograd) is a model of its own. Only
its tile step is timed, on one core; halos and layouts are other steps. In every round each shape runs a few
times, between two measurements of the peak. Its time is the fastest of the round, its share that of the
higher peak. Medians over the rounds are shown, and shares below GOALS are marked. `roof` is the largest
possible share: the epilogue uses the same ports as the products, and words may have room for more channels
than there are. `gbs` is the step's traffic in a second. u8i8 writes reals, u8i8u8 bytes, as within a network.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import command, networks, report

KEYS = ("network", "format", "shape")
COLUMNS = (
    "format", "shape", "count", "kernel", "us", "gflops", "peak", "share", "share_low", "roof", "gbs", "below"
)  # fmt: skip
GOALS = {"f32": 0.9, "bf16": 0.85, "u8i8": 0.85, "u8i8u8": 0.85}
#: Vector instructions for each vector of results behind the products, as AVX-512 has them: the activation;
#: conversion, scale and activation of sums; scale, rounding and a quarter of four that narrow four (of
#: deep sums the conversion, too).
EPILOGUE = {"f32": 1, "bf16": 1, "u8i8": 3, "u8i8u8": 3}
RUNS = 8


class Shape(NamedTuple):
    """A convolution of one image: [channels, height, width] by [outs, channels, kernel, kernel]."""

    channels: int
    height: int
    width: int
    outs: int
    kernel: int
    stride: int
    pad: int

    def __str__(self) -> str:
        size = f"{self.channels}x{self.height}x{self.width}"
        return f"{size} {self.kernel}x{self.kernel}/{self.stride} -> {self.outs}"

    @property
    def flops(self) -> float:
        sizes = [(d + 2 * self.pad - self.kernel) // self.stride + 1 for d in (self.height, self.width)]
        return 2.0 * sizes[0] * sizes[1] * self.outs * self.channels * self.kernel**2


def shapes(name: str, folder: Path | None = None) -> Counter[Shape]:
    """The distinct convolutions of a network, in order, and how often each is there."""
    import ovjit as ov

    found: Counter[Shape] = Counter()
    for node in ov.Core().read_model(str(networks.build(name, folder))).get_ordered_ops():
        if node.get_type_name() == "Convolution":
            _, channels, height, width = node.input(0).get_shape()
            outs, _, kernel, _ = node.input(1).get_shape()
            attrs = node.get_attributes()
            stride, pad = attrs["strides"][0], attrs["pads_begin"][0]
            found[Shape(channels, height, width, outs, kernel, stride, pad)] += 1
    return found


def request_of(shape: Shape, form: str) -> Any:
    """A request of the convolution's model on random data, ready to infer; "u8i8": data that is quantized
    to 8 bits by its FakeQuantize, and weights of 8 bits with a scale for each channel; "u8i8u8": results that
    are quantized, too, and read as bytes by a pooling."""
    import ovjit as ov

    rng = np.random.default_rng(networks.SEED)
    ops = ov.opset8
    data = rng.standard_normal((1, *shape[:3]), np.float32)
    weights = rng.standard_normal((shape.outs, shape.channels, shape.kernel, shape.kernel), np.float32)
    x = ops.parameter(list(data.shape), np.float32)
    strides, pads = [shape.stride] * 2, [shape.pad] * 2
    source, factors = x, ops.constant(weights)
    if form.startswith("u8i8"):
        source = ops.fake_quantize(ops.relu(x), *map(np.float32, (0, 4, 0, 4)), 256)
        scale = np.abs(weights).max((1, 2, 3), keepdims=True) / 127
        stored = ops.constant(np.round(weights / scale).astype(np.int8))
        factors = ops.multiply(ops.convert(stored, np.float32), ops.constant(scale))
    y = ops.convolution(source, factors, strides, pads, pads, [1, 1])
    bias = rng.standard_normal((1, shape.outs, 1, 1), np.float32)
    y = ops.relu(ops.add(y, ops.constant(bias)))
    if form == "u8i8u8":
        y = ops.fake_quantize(y, *map(np.float32, (0, 30, 0, 30)), 256)
        y = ov.opset1.max_pool(y, [1, 1], [0, 0], [0, 0], [2, 2])
    model = ov.Model([y], [x], "tile")
    config = {"INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True}
    config["INFERENCE_PRECISION_HINT"] = "bf16" if form == "bf16" else "f32"
    compiled = ov.Core().compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    request.set_input_tensor(0, ov.Tensor(data))
    for _ in range(3):
        request.infer()
    return request


def tile_row(request: Any) -> Any:
    """The profile's row of the tile step."""
    rows = [row for row in request._job.profile() if row.exec_type.startswith("conv_")]
    assert len(rows) == 1, rows
    return rows[0]


def measure(found: Counter[Shape], form: str, rounds: int) -> list[dict[str, Any]]:
    from ovjit.codegen.cpu.formats import available_formats
    from ovjit.codegen.cpu.host import host_target
    from ovjit.tools.roofline import dot_peak

    words = next((f for f in available_formats(host_target()) if form.startswith(f.name)), None)
    if words is None:
        raise SystemExit(f"this CPU has no {form}")
    requests = {shape: request_of(shape, form) for shape in found}
    times: dict[Shape, list[float]] = {shape: [] for shape in found}
    peaks: dict[Shape, list[float]] = {shape: [] for shape in found}
    for _ in range(rounds):
        before = dot_peak(words)
        for shape, request in requests.items():
            spent = []
            for _ in range(RUNS):
                request.infer()
                spent.append(tile_row(request).real_ns)
            after = dot_peak(words)
            times[shape].append(min(spent))
            peaks[shape].append(max(before, after))
            before = after
    rows = []
    for shape, count in found.items():
        row = tile_row(requests[shape])
        assert row.flops > shape.flops * (1 - 1e-6), (shape, row)  # more: channels that fill up words
        shares = [shape.flops / ns * 1e9 / peak for ns, peak in zip(times[shape], peaks[shape], strict=True)]
        us = statistics.median(times[shape]) / 1e3
        depth = shape.channels * shape.kernel**2 / words.group
        padded = depth * row.flops / shape.flops
        rows.append({
            "network": "", "format": form, "shape": str(shape), "count": count, "kernel": row.exec_type,
            "us": us,
            "gflops": shape.flops / us / 1e3, "peak": statistics.median(peaks[shape]) / 1e9,
            "share": statistics.median(shares), "share_low": report.quantile(shares, 0.25),
            "roof": depth / (padded + EPILOGUE[form]), "gbs": row.bytes / us / 1e3,
            "below": "!" if statistics.median(shares) < GOALS[form] else None,
        })  # fmt: skip
    return rows


def main() -> int:
    parser = command.parser("tiles", __doc__)
    parser.add_argument("--network", choices=networks.NAMES, default="resnet50")
    parser.add_argument("--format", nargs="+", choices=GOALS, default=["f32"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, default=None, help="where the networks are")
    arguments = parser.parse_args()
    os.environ["OVJIT_WINOGRAD"] = "0"
    found = shapes(arguments.network, arguments.folder)
    rows: list[dict[str, Any]] = []
    for form in arguments.format:
        rows += [row | {"network": arguments.network} for row in measure(found, form, arguments.rounds)]
    print(report.table(rows, COLUMNS))
    flops = sum(shape.flops * count for shape, count in found.items())
    for form in arguments.format:
        own = [row for row in rows if row["format"] == form]
        us = sum(row["us"] * row["count"] for row in own)
        peak = statistics.median(row["peak"] for row in own)
        gflops = flops / us / 1e3
        below = sum(row["below"] is not None for row in own)
        print(
            f"{form}: all {sum(found.values())} convolutions {gflops:.1f} of {peak:.1f} GFLOP/s, "
            f"{gflops / peak:.3f}; {below} of {len(own)} shapes below {GOALS[form]}"
        )
    report.write(arguments.json, "tiles", KEYS, rows, rounds=arguments.rounds, goals=GOALS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
