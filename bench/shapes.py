"""Shapes that are met for the first time: what the first inference takes beyond the ones after it.

    python -m bench.shapes [--models decoder recogniser FILE.onnx] [--precision f32] [--shapes 12]

`decoder` is `llama` of `bench.transformers`: after a prompt every token makes all its caches longer, so that
every step is a new shape; it is compared with the same step of a second generation. `recogniser` reads lines
of text of any width by convolutions and attention; so may files be that are named, of inputs [N, 3, 48, W].
ovjit and the real OpenVINO take turns. `beyond` is in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import report, transformers

COLUMNS = ("model", "engine", "first_ms", "again_ms", "beyond_median", "beyond_best", "beyond_worst")
PROMPT = 64


def recogniser(package: Any) -> Any:
    """[1, 3, 48, W] -> [1, W / 8, 6625]: six blocks with squeeze and excite, then two of attention."""
    net = transformers.Net(package, "recogniser")
    ops = net.ops
    image = ops.parameter(package.PartialShape([1, 3, 48, -1]), np.float32, name="image")
    x, wide = ops.hswish(net.conv(image, 3, 32, 3, 2)), 32
    for i, (outs, stride) in enumerate(((64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 1))):
        y = ops.hswish(net.conv(net.conv(x, wide, wide, 5, stride, wide), wide, outs))
        gate = ops.reduce_mean(y, net.ints(2, 3), True)
        gate = ops.sigmoid(net.conv(ops.relu(net.conv(gate, outs, outs // 4)), outs // 4, outs))
        y = ops.multiply(y, gate)
        x, wide = (ops.add(x, y) if i in (5,) else y), outs
    x = ops.transpose(ops.reduce_mean(x, net.ints(2), False), net.ints(0, 2, 1))
    for _ in range(2):
        x = transformers.encoder_block(net, x, wide, 8, before=True)
    return net.model([net.linear(x, wide, 6625)], [image], "recogniser")


def images(request: Any, widths: list[int]) -> list[tuple[float, float]]:
    """(first, again) in seconds of each width, none of which has been met."""
    rng = np.random.default_rng(transformers.SEED)
    out = []
    for width in widths:
        image = rng.standard_normal((1, 3, 48, width), np.float32)
        times = []
        for _ in range(4):
            began = time.perf_counter()
            request.infer([image])
            times.append(time.perf_counter() - began)
        out.append((times[0], min(times[1:])))
    return out


def tokens(request: Any, count: int) -> list[tuple[float, float]]:
    """(first, again) in seconds of each step after the first, which only the prompt's plan precedes."""
    rounds = []
    for _ in range(2):
        request.reset_state()
        times = []
        for length in range(PROMPT, PROMPT + count + 2):
            new = PROMPT if length == PROMPT else 1
            inputs = {
                "input_ids": np.ones((1, new), np.int64), "attention_mask": np.ones((1, length), np.int64),
                "position_ids": np.arange(length - new, length)[None], "beam_idx": np.zeros(1, np.int32),
            }  # fmt: skip
            began = time.perf_counter()
            request.infer(inputs)
            times.append(time.perf_counter() - began)
        rounds.append(times[2:])
    return list(zip(*rounds, strict=True))


def measure(name: str, precision: str, threads: int, count: int) -> list[dict[str, Any]]:
    """A row for each engine."""
    import openvino

    import ovjit

    hints: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    widths = [int(w) for w in np.random.default_rng(7).permutation(np.arange(64, 640, 3))[: count + 1]]
    found: dict[str, list[tuple[float, float]]] = {"ovjit": [], "openvino": []}
    requests = {}
    for engine, package in (("ovjit", ovjit), ("openvino", openvino)):
        if name == "decoder":
            model: Any = str(transformers.build("llama", None, "f32"))
        else:
            model = recogniser(package) if name == "recogniser" else name
        requests[engine] = package.Core().compile_model(model, "CPU", hints).create_infer_request()
    if name == "decoder":
        for engine, request in requests.items():
            found[engine] = tokens(request, count)
    else:
        for width in widths:  # the first one of all is not counted
            for engine, request in requests.items():
                found[engine] += images(request, [width])
        found = {engine: times[1:] for engine, times in found.items()}
    rows = []
    for engine, times in found.items():
        beyond = [(first - again) * 1e3 for first, again in times]
        rows.append({
            "model": Path(name).stem, "engine": engine,
            "first_ms": statistics.median(t[0] for t in times) * 1e3,
            "again_ms": statistics.median(t[1] for t in times) * 1e3,
            "beyond_median": statistics.median(beyond), "beyond_best": min(beyond),
            "beyond_worst": max(beyond),
        })  # fmt: skip
    return rows


def main() -> int:
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m bench.shapes", description=about)
    parser.add_argument("--models", nargs="*", default=["decoder", "recogniser"])
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", type=int, default=12)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.models:
        rows += measure(name, arguments.precision, arguments.threads, arguments.shapes)
    print(report.table(rows, COLUMNS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
