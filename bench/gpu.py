"""Checks and measures the device "GPU" on an NVIDIA card.

    python -m bench.gpu [--quick] [--part checks layers networks] [--json gpu.json] [--seconds 0.2]
                        [--limit 470]
    python -m bench.gpu --page gpu.json

First it checks: each kind of kernel once, layers, and a decoder, beside the CPU's results; products in all
precisions beside float64 (some of them without features of the card, too); ten networks in f32 and f16; each
word of the kernel language beside NumPy's bits; samples of operations beside their references. Then it
measures the time to the first result, memory-bound operations (GB/s), products (TFLOP/s), layers, and
networks (us from call to result), and PyTorch's eager mode and `torch.compile` on the same card if torch is
installed. `--quick` checks, and measures digits alone. `--part` runs some parts alone. It exits with 1 if a
check fails, with 2 without a card, and with 3 after `--limit` seconds, whatever the card does. Checks and
measurements run in a process of their own (`bench.gpu_worker`), which is replaced if it loses the card or
hangs. Results are printed, and the file is replaced, after each; a table of all follows, also if the script
is interrupted or terminated. `--page` writes the results of a file to the page docs/gpu.md.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import ovjit as ov
from bench import gpu_layers, gpu_networks
from bench.gpu_worker import (
    Item,
    Message,
    Section,
    Worker,
    follow_items,
    run_items,
    run_kernel_by_kernel,
    serve,
)
from ovjit.data import digits
from ovjit.engine import compile_graph
from ovjit.errors import ModelError
from ovjit.gpu import driver
from ovjit.graph.interp import evaluate

op = ov.opset13


def run_job(job: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    for i, array in enumerate(arrays):
        job.set_input(i, np.asarray(array, order="C"))  # a single number stays one
    job.run()
    return [np.array(output) for output in job.outputs]


# --- checks


def check_kinds() -> Iterator[Item]:
    """Whether the results of operations in all kinds of kernels for one warp are the CPU's."""

    def check(model: ov.Model) -> bool:
        x = np.random.default_rng(2).standard_normal(model.inputs[0].get_shape()).astype(np.float32)
        want = ov.compile_model(model, "CPU", EXACT)(x)[0]
        result = run_job(compile_graph(model._graph(), {**EXACT, "card": 0}).new_job(), [x])[0]
        return bool(np.allclose(result, want, rtol=1e-4, atol=1e-4))

    for name, model, _ in memory_bound(70):
        yield Item(name, functools.partial(check, model))
    yield Item("paged attention", check_paged)


def check_paged() -> bool:
    """Whether the results of calls with paged caches are the CPU's."""
    from tests.support import paged_op

    config = {**EXACT, "KV_CACHE_PRECISION": "f32"}
    calls = [(0, 5, [0]), (0, 40, [1, 2])], [(5, 1, [0]), (40, 1, [1, 2])]
    outcomes = []
    for device in ("GPU", "CPU"):
        rng, compiled = np.random.default_rng(2), ov.Core().compile_model(paged_op.model(ov), device, config)
        run = paged_op.Run.of(ov, compiled)
        outcomes.append([run(rows, paged_op.rows_of(rng, sum(new for _, new, _ in rows))) for rows in calls])
    pairs = zip(*(itertools.chain(*results) for results in outcomes), strict=True)
    return all(np.allclose(result, want, rtol=1e-3, atol=1e-3) for result, want in pairs)


def check_words(card: driver.Card, step: int = 1) -> Iterator[Item]:
    """Whether the bits of every `step`-th kernel of a word are NumPy's. NaNs may have other payloads."""
    from ovjit.codegen.gpu import ptx
    from ovjit.codegen.gpu.functions import ENTRY
    from tests.support.word_kernels import OUTPUT, WordKernel, word_kernels

    stream = card.create_stream()
    data, out, bases, error = (card.allocate(size) for size in (4096, OUTPUT, 64, 8))

    def check(kernel: WordKernel) -> bool:
        expected, result = kernel.expected(32), np.zeros(OUTPUT, np.uint8)
        function = card.function(ptx.compile_ptx(kernel.source, ENTRY), ENTRY)
        card.upload(data, kernel.data, stream)
        card.upload(bases, np.array([0, 0, 0, data, out], np.int64), stream)
        card.clear(out, OUTPUT, stream)
        card.launch(function, 1, 1, (bases, bases, 0, 1, error, 0, error), stream)
        card.download(result, out, stream)
        card.synchronize(stream)
        return has_same_bits(result, expected)

    for kernel in list(word_kernels())[::step]:
        yield Item(kernel.name, functools.partial(check, kernel))


def has_same_bits(result: np.ndarray, expected: np.ndarray) -> bool:
    """True if bytes are equal but for the payloads of NaNs, as f32 or as f64."""
    for bits, floats in ((np.uint32, np.float32), (np.uint64, np.float64)):
        nan = np.isnan(result.view(floats)) & np.isnan(expected.view(floats))
        if (nan | (result.view(bits) == expected.view(bits))).all():
            return True
    return False


def check_operations(count: int) -> Iterator[Item]:
    """Whether the results of samples of operations are those of the reference."""
    from tests.support.op_samples import graph_of, native_ops, samples, tolerance

    def check(record: Any) -> bool | None:
        outcomes = []
        for _, arrays, attrs in samples(record, "f32", 1):
            try:
                graph, data = graph_of(record, arrays, attrs, "f32")
            except ModelError:
                continue  # the operation does not take f32
            if graph.has_state or any(v.dtype != "f32" for v in graph.outputs):
                continue
            results = run_job(compile_graph(graph, {"card": 0}).new_job(), data)
            for result, want in zip(results, evaluate(graph, data), strict=True):
                allowed = 16 * tolerance(record, np.asarray(want, np.float64), "f32")
                close = (np.abs(result - want) <= allowed) | (result == want)
                outcomes.append(bool((close | (np.isnan(result) & np.isnan(want))).all()))
        return all(outcomes) if outcomes else None

    records = native_ops()
    for record in records[:: max(1, len(records) // count)]:
        yield Item(f"{record.name}-{record.opset}", functools.partial(check, record))


#: Precision -> the properties that select it, and the unit of its rounding of factors.
PRECISIONS: dict[str, tuple[dict[str, str], float]] = {
    "f32": ({"EXECUTION_MODE_HINT": "ACCURACY"}, 2.0**-23),
    "tf32": ({"EXECUTION_MODE_HINT": "PERFORMANCE"}, 2.0**-10),
    "f16": ({"INFERENCE_PRECISION_HINT": "f16"}, 2.0**-11),
    "bf16": ({"INFERENCE_PRECISION_HINT": "bf16"}, 2.0**-8),
}
#: Rows, columns and depth of products: few tiles and a long depth, whole tiles of each size, and tails.
PRODUCTS = (
    (1, 40, 96), (24, 64, 8192), (2, 96, 16384), (3, 768, 768), (5, 7, 16), (17, 33, 48), (70, 65, 80),
    (128, 768, 768), (33, 64, 17), (640, 2048, 512), (2048, 2048, 256), (129, 264, 1032), (40, 4096, 2056),
)  # fmt: skip
#: Features of cards that can be hidden (OVJIT_HIDE), so that a fault is known to be theirs.
HIDDEN = ("sm_90a", "sm_90,sm_90a")


def product_model(m: int, n: int, k: int) -> tuple[ov.Model, np.ndarray, np.ndarray]:
    """relu(x w + bias), w and bias."""
    rng = np.random.default_rng(3)
    x = op.parameter([m, k], np.float32, name="x")
    w, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((k, n), (n,)))
    return ov.Model([op.relu(op.add(op.matmul(x, w, False, False), bias))], [x]), w, bias


def check_product(m: int, n: int, k: int, name: str) -> bool:
    """True if the error of a product in this precision is that of rounding its factors."""
    model, w, bias = product_model(m, n, k)
    properties, unit = PRECISIONS[name]
    x = np.random.default_rng(4).standard_normal((m, k)).astype(np.float32)
    want = np.maximum(x.astype(np.float64) @ w + bias, 0)
    size = np.abs(x).astype(np.float64) @ np.abs(w) + np.abs(bias)
    result = run_job(compile_graph(model._graph(), {"card": 0, **properties}).new_job(), [x])[0]
    return bool((np.abs(result - want) <= size * (3 * unit + 1e-6)).all())


def check_products(count: int) -> Iterator[Item]:
    """Products of the first `count` sizes in all precisions."""
    for m, n, k in PRODUCTS[:count]:
        for name in PRECISIONS:
            yield Item(f"{m} x {n} x {k} in {name}", functools.partial(check_product, m, n, k, name))


def check_features() -> Iterator[Item]:
    """Products in f16 without features of the card, of the first sizes: with the checks of products, they
    tell whether blocks of warps, or early starts, are at fault."""

    def check(hidden: str, size: tuple[int, int, int]) -> bool:
        before = os.environ.get("OVJIT_HIDE")
        os.environ["OVJIT_HIDE"] = hidden
        try:
            return check_product(*size, "f16")
        finally:
            os.environ.pop("OVJIT_HIDE")
            if before is not None:
                os.environ["OVJIT_HIDE"] = before

    for hidden, size in itertools.product(HIDDEN, PRODUCTS[:3]):
        title = f"{' x '.join(map(str, size))} in f16 without {hidden}"
        yield Item(title, functools.partial(check, hidden, size))


def networks() -> Iterator[tuple[str, ov.Model]]:
    """Small networks of common layers with random weights."""
    rng = np.random.default_rng(1)

    def weights(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    for blocks, channels, size in ((2, 16, 32), (4, 32, 56), (6, 64, 56)):
        x = y = op.parameter([1, 3, size, size], np.float32, name="x")
        previous = 3
        for _ in range(blocks):
            y = op.relu(op.convolution(y, weights(channels, previous, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1]))
            previous = channels
        y = op.reduce_mean(y, [2, 3], False)
        y = op.softmax(op.matmul(y, weights(channels, 10), False, False), 1)
        yield f"{blocks} convolutions of {channels}", ov.Model([y], [x])
    x = op.parameter([1, 4, 12, 12], np.float32, name="x")
    y = op.group_convolution(x, weights(4, 1, 1, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    y = op.max_pool(op.clamp(y, 0.0, 6.0), [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    yield "depthwise convolution and pooling", ov.Model([op.reduce_mean(y, [2, 3], False)], [x])
    x = op.parameter([2, 12, 40], np.float32, name="x")
    parts = op.split(op.transpose(x, [0, 2, 1]), 1, 2)
    gathered = op.gather(op.concat([parts.output(1), parts.output(0)], 1), np.arange(39, -1, -1), 1)
    yield "moves", ov.Model([op.reduce_max(op.tanh(gathered), [2], False)], [x])
    x = op.parameter([1, 5, 16], np.float32, name="x")
    zeros, w, r = np.zeros((1, 1, 8), np.float32), weights(1, 32, 16), weights(1, 32, 8)
    lengths, bias = np.array([5]), np.zeros((1, 32), np.float32)
    lstm = op.lstm_sequence(x, zeros, zeros, lengths, w, r, bias, 8, "forward")
    yield "recurrent layer", ov.Model([lstm.output(0)], [x])
    for width, layers in ((64, 1), (128, 2), (256, 2)):
        x = y = op.parameter([1, 16, width], np.float32, name="x")
        for _ in range(layers):
            q, k, v = (op.matmul(y, weights(width, width), False, False) for _ in range(3))
            scores = op.softmax(op.multiply(op.matmul(q, k, False, True), np.float32(width**-0.5)), 2)
            y = op.mvn(op.add(y, op.matmul(scores, v, False, False)), [2], True, 1e-5, "inside_sqrt")
            hidden = op.gelu(op.matmul(y, weights(width, 4 * width), False, False), "erf")
            y = op.mvn(op.add(y, op.matmul(hidden, weights(4 * width, width), False, False)), [2], True, 1e-5,
                       "inside_sqrt")  # fmt: skip
        yield f"{layers} layers of attention, {width}", ov.Model([y], [x])


#: The CPU's properties for results to compare with.
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}


def check_networks() -> Iterator[Item]:
    """Whether the card's results of networks are the CPU's, in f32 and in f16."""

    def check(model: ov.Model, kind: str) -> bool:
        shape = [d if isinstance(d, int) else 1 for d in model.inputs[0].get_partial_shape().get_min_shape()]
        x = np.random.default_rng(0).random([max(d, 1) for d in shape]).astype(np.float32)
        want = ov.compile_model(model, "CPU", EXACT)(x)[0]
        rtol, atol = (1e-3, 1e-4) if kind == "f32" else (0, 5e-3 * float(np.abs(want).max()))
        config = {"card": 0, "INFERENCE_PRECISION_HINT": kind}
        result = run_job(compile_graph(model._graph(), config).new_job(), [x])[0]
        return bool(np.allclose(result, want, rtol=rtol, atol=atol))

    for name, model in itertools.chain([("digits", ov.Core().read_model(digits()[0]))], networks()):
        for kind in ("f32", "f16"):
            yield Item(f"{name} in {kind}", functools.partial(check, model, kind))


def check_layers() -> Iterator[Item]:
    """Whether the card's results of layers in f16 are the CPU's in f32."""

    def check(layer: gpu_layers.Layer) -> bool:
        want = ov.compile_model(layer.model, "CPU", EXACT)(list(layer.inputs))[0]
        job = compile_graph(layer.model._graph(), gpu_layers.IN_F16).new_job()
        return gpu_layers.is_right(run_job(job, layer.inputs)[0], want)

    for layer in gpu_layers.small_layers():
        yield Item(layer.name, functools.partial(check, layer))


def check_variables(steps: int = 4) -> Iterator[Item]:
    """Whether the card's results of a decoder are the CPU's: keys and values stay on the card between
    requests, and beams change their order."""

    def check(count: int) -> bool:
        model, rng = gpu_layers.make_decoder(), np.random.default_rng(10)
        jobs = [compile_graph(model._graph(), config).new_job() for config in (EXACT, {**EXACT, "card": 0})]
        for step in range(count):
            x = rng.standard_normal((2, 5 if step == 0 else 1, gpu_layers.WIDTH)).astype(np.float32)
            inputs = [x, np.array([1, 0] if step == 2 else [0, 1], np.int32)]
            want, result = (run_job(job, inputs)[0] for job in jobs)
        return bool(np.allclose(result, want, rtol=1e-3, atol=1e-4))

    for count in range(1, steps + 1):
        yield Item(f"decoder, {count} steps", functools.partial(check, count))


# --- measurements


def time_of(run: Callable[[], Any], seconds: float) -> float:
    """The median time of a call, in seconds."""
    run()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


#: Repetitions of the steps in a graph whose time is measured.
REPEATED = 10


def kernel_time(job: Any, arrays: Sequence[np.ndarray], times: int = 5, skipped: str = "") -> float:
    """Seconds of the steps of a job, without copies: the least of several replays of a CUDA graph with ten
    repetitions. `skipped`: operations that are not counted. Steps of the host are left out."""
    run_job(job, arrays)
    state, table, best = job.device, job._table, float("inf")
    card, stream = state.card, state.stream
    steps = [i for i, step in enumerate(table.plan.steps) if i not in table.host and step.type != skipped]
    functions = {i: job._functions(card, table, i, i + 1)[0] for i in steps}

    def launch() -> None:
        for i in steps * REPEATED:
            job._launch(state, replay, table, i, functions[i])

    with card:
        replay = state.prepare(job, table)
        graph = card.capture(stream, launch)
        begin, end = card.create_event(), card.create_event()
        try:
            for _ in range(times + 1):
                card.record(begin, stream)
                card.run_graph(graph, stream)
                card.record(end, stream)
                card.synchronize(stream)
                best = min(best, card.elapsed_ns(begin, end) * 1e-9 / REPEATED)
        finally:
            card.destroy_graph(graph)
            for event in (begin, end):
                card.destroy_event(event)
    return best


def memory_bound(count: int = 8192) -> Iterator[tuple[str, ov.Model, float]]:
    """Yield (name, model, bytes that are read and written), for so many rows."""
    rows = op.parameter([count, 1024], np.float32, name="x")
    size = count * 1024 * 4
    yield "relu", ov.Model([op.relu(rows)], [rows]), 2 * size
    yield "softmax", ov.Model([op.softmax(rows, 1)], [rows]), 2 * size
    yield "layer norm", ov.Model([op.mvn(rows, [1], True, 1e-5, "inside_sqrt")], [rows]), 2 * size
    yield "gelu", ov.Model([op.gelu(rows, "erf")], [rows]), 2 * size
    yield "sum of rows", ov.Model([op.reduce_sum(rows, [1], True)], [rows]), size
    yield "sum of columns", ov.Model([op.reduce_sum(rows, [0], True)], [rows]), size
    yield "transpose", ov.Model([op.transpose(rows, [1, 0])], [rows]), 2 * size


def measure_digits(seconds: float) -> Iterator[Item]:
    """The time from a model to its first result, and of further ones, of the network of digits."""

    def run() -> list[dict[str, Any]]:
        xml, images, _ = digits()
        start = time.perf_counter()
        compiled = ov.Core().compile_model(xml, "GPU")
        request, image = compiled.create_infer_request(), np.ascontiguousarray(images[:1], np.float32)
        request.infer(image)
        first = time.perf_counter() - start
        spent = time_of(lambda: request.infer(image), seconds)
        context, port = ov.Core().get_default_context("GPU"), compiled.outputs[0]
        tensors = [context.create_tensor(ov.Type.f32, shape, {}) for shape in (image.shape, [1, 10])]
        tensors[0].copy_from(ov.Tensor(image))
        request.set_input_tensor(tensors[0])
        request.set_tensor(port, tensors[1])
        remote = time_of(request.infer, seconds)
        return [
            {"what": "digits, to the first result", "s": round(first, 2)},
            {"what": "digits", "us": round(1e6 * spent, 1)},
            {"what": "digits, remote tensors", "us": round(1e6 * remote, 1)},
        ]

    yield Item("digits", run)


def measure_rates() -> Iterator[Item]:
    """The rates of memory-bound operations."""
    x = np.random.default_rng(2).standard_normal((8192, 1024)).astype(np.float32)

    def run(name: str, model: ov.Model, moved: float) -> list[dict[str, Any]]:
        job = compile_graph(model._graph(), {"card": 0}).new_job()
        return [{"what": name, "GB/s": round(moved / kernel_time(job, [x]) / 1e9, 1)}]

    for name, model, moved in memory_bound():
        yield Item(name, functools.partial(run, name, model, moved))


def measure_networks(seconds: float) -> Iterator[Item]:
    """The time of small networks from call to result."""

    def run(name: str, model: ov.Model) -> list[dict[str, Any]]:
        graph = model._graph()
        job, x = compile_graph(graph, {"card": 0}).new_job(), np.ones(list(graph.inputs[0].shape), np.float32)
        return [{"what": name, "us": round(time_of(lambda: run_job(job, [x]), seconds) * 1e6, 1)}]

    for name, model in networks():
        yield Item(name, functools.partial(run, name, model))


def measure_layers() -> Iterator[Item]:
    """The time of layers by the card's events, and their rates."""

    def run(layer: gpu_layers.Layer) -> list[dict[str, Any]]:
        job = compile_graph(layer.model._graph(), gpu_layers.IN_F16).new_job()
        spent = kernel_time(job, layer.inputs, 5, skipped="Convert")
        row: dict[str, Any] = {"what": layer.name, "us": round(spent * 1e6, 1)}
        if layer.flops:
            row["TFLOP/s"] = round(layer.flops / spent / 1e12, 2)
        if layer.moved:
            row["GB/s"] = round(layer.moved / spent / 1e9, 1)
        return [row]

    for layer in gpu_layers.layers():
        yield Item(layer.name, functools.partial(run, layer))


#: Sizes of products that are measured.
MEASURED = ((1, 768, 768), (16, 4096, 4096), (128, 768, 768), (512, 3072, 768), (2048, 4096, 4096))


def measure_products() -> Iterator[Item]:
    """The rates of products in each precision, without the conversion of the input."""

    def run(m: int, n: int, k: int) -> list[dict[str, Any]]:
        model, row = product_model(m, n, k)[0], {"what": f"product {m} x {n} x {k}"}
        for name, (properties, _) in PRECISIONS.items():
            if name == "f32" and m * n * k > 1 << 31:
                continue  # tens of milliseconds
            job = compile_graph(model._graph(), {"card": 0, **properties}).new_job()
            spent = kernel_time(job, [np.ones((m, k), np.float32)], skipped="Convert")
            row[f"TFLOP/s {name}"] = round(2 * m * n * k / spent / 1e12, 2)
            if m <= 16:
                row[f"GB/s {name}"] = round(n * k * (2 if "16" in name else 4) / spent / 1e9, 1)
        return [row]

    for size in MEASURED:
        yield Item(f"product {' x '.join(map(str, size))}", functools.partial(run, *size))


def measure_with_torch(measure: Callable[[Any], Iterator[Item]]) -> Iterator[Item]:
    """Measurements that are given the module torch. Without it, or a card in it, one row tells the reason."""
    try:
        import torch

        reason = "" if torch.cuda.is_available() else f"torch {torch.__version__} sees no card"
    except ImportError as error:
        reason = str(error)
    if reason:
        yield Item("torch", lambda: [{"what": "PyTorch", "left out": reason}])
    else:
        yield from measure(torch)


def measure_torch(torch: Any) -> Iterator[Item]:
    """PyTorch's rates of operations, products and layers."""
    f = torch.nn.functional
    x = torch.randn(8192, 1024, device="cuda")
    size = x.numel() * 4
    ways = {
        "relu": (f.relu, 2 * size), "softmax": (lambda a: torch.softmax(a, 1), 2 * size),
        "layer norm": (lambda a: f.layer_norm(a, (1024,)), 2 * size), "gelu": (f.gelu, 2 * size),
        "sum of rows": (lambda a: a.sum(1, True), size), "sum of columns": (lambda a: a.sum(0, True), size),
        "transpose": (lambda a: a.t().contiguous(), 2 * size),
    }  # fmt: skip

    def run(name: str, kind: str, way: Callable[[], Any], moved: int) -> list[dict[str, Any]]:
        way = torch.compile(way) if "compile" in kind else way
        for _ in range(3):
            way(x)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(20):
            way(x)
        end.record()
        end.synchronize()
        return [{"what": name, kind: round(moved / (begin.elapsed_time(end) / 20e3) / 1e9, 1)}]

    for kind in ("torch GB/s", "torch.compile GB/s"):
        for name, (way, moved) in ways.items():
            yield Item(f"{name}, {kind}", functools.partial(run, name, kind, way, moved))
    for m, n, k in MEASURED:
        yield Item(f"torch {m} x {n} x {k}", functools.partial(measure_torch_product, torch, m, n, k))
    yield from gpu_layers.measure_torch_layers(torch)


def measure_torch_product(torch: Any, m: int, n: int, k: int) -> list[dict[str, Any]]:
    """The rates of PyTorch's linear layer with relu, of the better of its two ways, in CUDA graphs."""
    row: dict[str, Any] = {"what": f"product {m} x {n} x {k}"}
    for name, dtype in (("f16", torch.float16), ("bf16", torch.bfloat16), ("tf32", torch.float32)):
        torch.backends.cuda.matmul.allow_tf32 = True
        x, w, bias = (torch.randn(*shape, device="cuda", dtype=dtype) for shape in ((m, k), (n, k), (n,)))

        def run(x: Any = x, w: Any = w, bias: Any = bias) -> Any:
            return torch.relu(torch.nn.functional.linear(x, w, bias))

        def run_fused(x: Any = x, w: Any = w, bias: Any = bias) -> Any:
            return torch.ops.aten._addmm_activation(bias, x, w.t())

        spent = min(gpu_layers.time_in_graph(torch, way) for way in (run, run_fused))
        row[f"torch TFLOP/s {name}"] = round(2e-6 * m * n * k / spent, 2)
    return [row]


#: What encloses the results in the page.
MARKS = "<!-- results of bench.gpu -->", "<!-- end of results -->"


def merge_rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each case, with all of its values. `of torch`: our time as a part of PyTorch's best."""
    rows: dict[str, dict[str, Any]] = {}
    for row in results:
        rows.setdefault(row["what"], {}).update(row)
    for row in rows.values():
        times = [value for key, value in row.items() if key.startswith("torch") and key.endswith(" us")]
        if times and "us" in row:
            row["of torch"] = round(row["us"] / min(times), 2)
    return list(rows.values())


def print_table(results: Sequence[dict[str, Any]]) -> None:
    """Print the merged rows."""
    for row in merge_rows(results):
        print(f"{row['what']:52}", *(f"{key} {value};" for key, value in row.items() if key != "what"))


def page_of(results: dict[str, Any]) -> str:
    """The results of a file as a part of the page."""
    checks = ", ".join(f"{right} of {count} {title}" for title, (right, count) in results["checks"].items())
    rows = []
    for row in merge_rows(results["results"]):
        values = (f"{value} {key}" for key, value in row.items() if key != "what")
        rows.append(f"| {row['what']} | {'; '.join(values)} |")
    head = (
        f"Run on {results['date']} at commit {results['commit']}: {results['card']}, driver for CUDA "
        f"{results['driver']}. Right: {checks}."
    )
    failed = f"\n\nWrong: {', '.join(results['failed'])}." if results["failed"] else ""
    missing = "\n\nThe time was over: a part was not run." if results.get("over") else ""
    return "\n".join([f"{head}{failed}{missing}", "", "| case | result |", "|---|---|", *rows])


def write_page(results: str, page: str = "docs/gpu.md") -> None:
    """Replace the results in the page by those of a JSON file."""
    with open(results, encoding="utf-8") as file:
        part = page_of(json.load(file))
    with open(page, encoding="utf-8") as file:
        before, after = file.read().split(MARKS[0])
    with open(page, "w", encoding="utf-8") as file:
        file.write("\n".join([before + MARKS[0], part, MARKS[1] + after.split(MARKS[1])[1]]))


#: Seconds after which the script ends: with its start and the last process's end, 8 minutes, or 90 seconds
#: with --quick.
LIMIT, QUICK_LIMIT = 470.0, 85.0
#: The part of the time after which measurements begin, whatever is left to check. With --quick there is one.
CHECKS_SHARE, QUICK_CHECKS_SHARE = 0.45, 0.85


#: Parts of the script.
PARTS = "checks", "layers", "networks"


def sections(options: argparse.Namespace) -> list[Section]:
    """All checks, and measurements, in their order: what is fast, and tells most, comes first."""
    quick, seconds = options.quick, options.seconds
    checks: list[Section] = [
        ("kinds", check_kinds),
        ("layers", check_layers),
        ("variables", check_variables),
        ("products", lambda: check_products(7 if quick else len(PRODUCTS))),
        ("features", check_features),
        ("networks", check_networks),
        ("words", lambda: check_words(driver.open_card(0), 4 if quick else 1)),
        ("operations", lambda: check_operations(48)),
    ]

    def measure_large(torch: Any) -> Iterator[Item]:
        return gpu_networks.measure_torch(torch, time_of, seconds, "cuda")

    by_part: dict[str, list[Section]] = {
        "checks": checks,
        "layers": [("", way) for way in (
            lambda: measure_digits(seconds), measure_rates, measure_products, measure_layers,
            lambda: measure_networks(seconds),
        )],
        "networks": [("", way) for way in (
            lambda: gpu_networks.measure_ovjit(time_of, seconds), lambda: measure_with_torch(measure_large),
        )],
    }  # fmt: skip
    if quick:
        return checks + by_part["layers"][:1]
    chosen = [section for part in PARTS if part in options.part for section in by_part[part]]
    return [*chosen, ("", lambda: measure_with_torch(measure_torch))] if "layers" in options.part else chosen


def work(
    options: argparse.Namespace, start: Sequence[int], checks_end: float = float("inf")
) -> Iterator[Message]:
    """The messages of a worker: of the card, and of all items from `start` on."""
    if not driver.cards():
        yield {"broken": f"no card: {driver.why_no_card()}"}
        return
    card = driver.open_card(0)
    yield {
        "card": card.facts.name, "capability": list(card.facts.capability), "driver": card.driver_version(),
    }  # fmt: skip
    if len(start) > 2:
        run_kernel_by_kernel()
    yield from run_items(sections(options), start, checks_end)


def main(
    argv: Sequence[str] | None = None, start_worker: Callable[[Sequence[int]], Any] | None = None
) -> int:
    """`start_worker`: starts a worker from an item on, if not as a process."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="checks of a part, and the time of digits: 90 s")
    parser.add_argument("--json", help="write the results to this file")
    parser.add_argument("--seconds", type=float, default=0.2, help="time for each network")
    parser.add_argument("--page", metavar="JSON", help="write the results of this file to docs/gpu.md")
    parser.add_argument(
        "--limit", type=float, help=f"end after so many seconds: {LIMIT:g}, with --quick {QUICK_LIMIT:g}"
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="these parts alone")
    # of a worker: section and item, and the time at which checks end
    parser.add_argument("--from", dest="start", help=argparse.SUPPRESS)
    parser.add_argument("--checks-end", type=float, default=float("inf"), help=argparse.SUPPRESS)
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser.parse_args(arguments)
    if options.page:
        write_page(options.page)
        return 0
    if options.start:
        serve(work(options, [*map(int, options.start.split(","))], options.checks_end))
        return 0

    limit = options.limit or (QUICK_LIMIT if options.quick else LIMIT)
    checks_end = str(time.time() + limit * (QUICK_CHECKS_SHARE if options.quick else CHECKS_SHARE))

    def start_process(start: Sequence[int]) -> Worker:
        further = "--from", ",".join(map(str, start)), "--checks-end", checks_end
        return Worker([sys.executable, "-m", "bench.gpu", *arguments, *further])

    messages = follow_items(start_worker or start_process, limit)
    with ending_at_signals(), contextlib.closing(messages):
        return fill_results(messages, options.json)


@contextlib.contextmanager
def ending_at_signals() -> Iterator[None]:
    """SIGTERM, as of `timeout` and of schedulers, ends what runs inside like an interrupt from the
    keyboard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def commit() -> str:
    """The short name of the commit, "unknown" outside of a Git repository."""
    try:
        return subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def fill_results(messages: Iterator[Message], path: str | None) -> int:
    """Collect, print and write the results of messages. Returns the exit status."""
    report: dict[str, Any] = {
        "commit": commit(), "date": time.strftime("%Y-%m-%d"), "checks": {}, "failed": [], "results": [],
    }  # fmt: skip
    try:
        collect(messages, report, path)
    except KeyboardInterrupt:
        report["over"] = True
        print("interrupted: what is missing was not measured", file=sys.stderr, flush=True)
    if "card" not in report:
        return 3 if report.get("over") else 2
    write_report(report, path)
    print_checks(report, *report["checks"])
    print_table(report["results"])
    if report["failed"]:
        print("card, capability and driver:", *(report.get(key) for key in ("card", "capability", "driver")))
    return 3 if report.get("over") else int(bool(report["failed"]))


def collect(messages: Iterator[Message], report: dict[str, Any], path: str | None) -> None:
    """Add messages to the report, which is written after each. Ends if there is no card."""
    title = ""
    for message in messages:
        if message.get("title", title) != title:  # a section is over
            print_checks(report, title)
            title = message["title"]
        if "card" in message:
            report.update(message)
        elif "broken" in message:
            print(message["broken"], file=sys.stderr)
            if "card" not in report:
                return
            report["failed"].append(message["broken"])
        elif "over" in message:
            report["over"] = True
            print("the time is over: what is missing was not measured", file=sys.stderr, flush=True)
        elif "left" in message:
            report["over"] = True
            print(f"the time for checks is over: {message['title']} from {message['left']} on", flush=True)
        elif "name" in message:
            add_result(report, message)
        write_report(report, path)


def write_report(report: dict[str, Any], path: str | None) -> None:
    """Replace the file by the results so far: whatever ends this process, the file is whole."""
    if path:
        with open(f"{path}.part", "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
        os.replace(f"{path}.part", path)


def print_checks(report: dict[str, Any], *titles: str) -> None:
    """Print how many checks of sections are right."""
    for title in titles:
        if title in report["checks"]:
            right, count = report["checks"][title]
            print(f"{title}: {right} of {count} right", flush=True)


def add_result(report: dict[str, Any], message: Message) -> None:
    """Add the result of one item to the results, and print it if it is a fault or a measurement."""
    title, name = message["title"], message["name"]
    if "error" in message:
        name = f"{name}: {message['error']}"
    elif not title:
        report["results"] += message["result"]
        for row in message["result"]:
            print(*(f"{key}: {value}" for key, value in row.items()), flush=True)
        return
    elif message["result"] is None:
        return
    good = bool(message.get("result"))
    if title:
        right, count = report["checks"].get(title, (0, 0))
        report["checks"][title] = right + good, count + 1
    if not good:
        report["failed"].append(name)
        print(f"wrong: {title} {name}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
