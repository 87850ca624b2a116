"""Shapes that are met for the first time: what the first inference takes beyond the ones after it.

    python -m bench.shapes [--models decoder recogniser FILE.onnx] [--precision f32] [--shapes 12]
    python -m bench.shapes --apart [--rounds 5] [--models bert whisper gpt2 llama gpt2-steps FILE.onnx]

`decoder` is `llama` of `bench.transformers`. After a prompt every token makes all its caches longer, so every
step is a new shape. It is compared with the same step of a second generation. `recogniser` reads lines of
text of any width by convolutions and attention. Files may have the same inputs [N, 3, 48, W]. ovjit and the
real OpenVINO are interleaved. `beyond` is in milliseconds.

`--apart` gives each engine and model its own process and counts its CPU time. The table has the inferences of
the first, second and fifth shape beyond the median of later ones with that shape, and the peak resident
memory. Figures are medians of `--rounds` processes. `bert` has an open length, `efficientnet` and `whisper`
an open batch. A shape of a decoder is a prompt of another length, or with `-steps` one more token. Files have
inputs as above, or pages [N, 3, H, W]. Rows are printed as they come.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, report, transformers
from bench.engines import peak_memory

COLUMNS = ("model", "engine", "first_ms", "again_ms", "beyond_median", "beyond_best", "beyond_worst")
PROMPT = 64
APART = ("bert", "efficientnet", "whisper", "gpt2", "llama", "gpt2-steps", "llama-steps")
APART_COLUMNS = ("model", "engine", "again_ms", "beyond_1st", "beyond_2nd", "beyond_5th", "peak_mb")
#: New shapes of `--apart`, and inferences of each after its first.
NEW, AGAIN = 5, 5


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


def opened(package: Any, name: str) -> Any:
    """A model of `bench.transformers` with an open length or batch."""
    if name == "bert":
        net = transformers.Net(package, name)
        return transformers.bert(net, -1)
    model = package.Core().read_model(str(transformers.build(name, None, "f32")))
    if name in ("efficientnet", "whisper"):
        model.reshape([-1, *(d.get_length() for d in list(model.inputs[0].partial_shape)[1:])])
    return model


def shapes_of(name: str, model: Any) -> Iterator[tuple[Any, bool]]:
    """(inputs, whether the state is to be reset before) of shapes none of which is met twice."""
    rng = np.random.default_rng(transformers.SEED)
    kind, _, steps = name.partition("-")
    if kind in transformers.DECODERS:
        lengths = [PROMPT + i if steps else (PROMPT, 37, 150, 91, 113)[i] for i in range(NEW)]
        for length in lengths:
            new = 1 if steps else length
            whole = length + bool(steps)
            yield {
                "input_ids": np.ones((1, new), np.int64), "attention_mask": np.ones((1, whole), np.int64),
                "position_ids": np.arange(whole - new, whole)[None], "beam_idx": np.zeros(1, np.int32),
            }, not steps  # fmt: skip
        return
    for i in range(NEW):
        if name == "bert":
            length = (64, 37, 150, 91, 113)[i]
            yield [rng.integers(0, 30522, (1, length)), np.ones((1, length), np.int64)], False
        elif name in ("efficientnet", "whisper"):
            whole = [d.get_length() for d in list(model.inputs[0].partial_shape)[1:]]
            yield [rng.standard_normal((i + 1, *whole), np.float32)], False
        else:
            line = list(model.inputs[0].partial_shape)[2].is_static or "rec" in Path(name).name
            size = (48, (320, 200, 432, 264, 512)[i]) if line else ((320, 640), (640, 320), (480, 480),
                                                                    (352, 608), (736, 736))[i]  # fmt: skip
            yield [rng.uniform(-1, 1, (1, 3, *size)).astype(np.float32)], False


def alone(engine: str, name: str, precision: str, threads: int) -> dict[str, Any]:
    """The row of one engine, in this process."""
    import importlib

    package = importlib.import_module(engine)
    hints: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    file = name.partition("-")[0] if name in APART else name
    model = opened(package, file) if name in APART else package.Core().read_model(file)
    request = package.Core().compile_model(model, "CPU", hints).create_infer_request()
    prompt = {
        "input_ids": np.ones((1, PROMPT), np.int64), "attention_mask": np.ones((1, PROMPT), np.int64),
        "position_ids": np.arange(PROMPT)[None], "beam_idx": np.zeros(1, np.int32),
    }  # fmt: skip
    states = name in APART and file in transformers.DECODERS
    if states and name.endswith("-steps"):
        request.infer(prompt)

    def timed(given: Any, reset: bool) -> float:
        if reset:
            request.reset_state()
        began = time.process_time()
        request.infer(given)
        return (time.process_time() - began) * 1e3

    beyond, again = [], []
    if states and name.endswith("-steps"):  # the same lengths again, after a reset
        given = list(shapes_of(name, model))
        rounds = [[timed(*one) for one in given]]
        for _ in range(AGAIN):
            request.reset_state()
            request.infer(prompt)
            rounds.append([timed(*one) for one in given])
        again = [statistics.median(times) for times in zip(*rounds[1:], strict=True)]
        beyond = [first - usual for first, usual in zip(rounds[0], again, strict=True)]
    else:
        for given in shapes_of(name, model):
            times = [timed(*given) for _ in range(1 + AGAIN)]
            again.append(statistics.median(times[1:]))
            beyond.append(times[0] - again[-1])
    return {
        "model": Path(name).stem, "engine": engine, "again_ms": statistics.median(again),
        "beyond_1st": beyond[0], "beyond_2nd": beyond[1], "beyond_5th": beyond[4], "peak_mb": peak_memory(),
    }  # fmt: skip


def apart(name: str, precision: str, threads: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each engine, medians of `rounds` processes of its own, interleaved with the other's."""
    found: dict[str, list[dict[str, Any]]] = {"ovjit": [], "openvino": []}
    for _ in range(rounds):
        for engine, rows in found.items():
            command = [sys.executable, "-m", "bench.shapes", "--models", name, "--alone", engine]
            command += ["--precision", precision, "--threads", str(threads)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append(json.loads(said.splitlines()[-1]))
            print(rows[-1], file=sys.stderr, flush=True)
    return [
        rows[0] | {key: statistics.median(row[key] for row in rows) for key in APART_COLUMNS[2:]}
        for rows in found.values()
    ]


def main() -> int:
    parser = command.parser("shapes", __doc__, json=False)
    parser.add_argument("--models", nargs="*", help="default: all but files")
    parser.add_argument("--apart", action="store_true", help="CPU time and memory, a process for each engine")
    parser.add_argument("--alone", metavar="ENGINE", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=1, help="of --apart: processes for each engine")
    arguments = parser.parse_args()
    rows = []
    if arguments.alone:
        row = alone(arguments.alone, arguments.models[0], arguments.precision, arguments.threads)
        print(json.dumps(row))
        return 0
    if arguments.apart:
        for name in arguments.models or APART:
            rows += apart(name, arguments.precision, arguments.threads, arguments.rounds)
        print(report.table(rows, APART_COLUMNS))
        return 0
    for name in arguments.models or ("decoder", "recogniser"):
        rows += measure(name, arguments.precision, arguments.threads, arguments.shapes)
    print(report.table(rows, COLUMNS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
