"""`python -m ovjit demo`: run the embedded digit classifier, print accuracy, latency, layer times.

Everything goes through the public API, so that `main(openvino)` runs the same on the real OpenVINO.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from ovjit.codegen.compiling import counts
from ovjit.data import digits
from ovjit.tools.terminal import keep_end

CALLS = 400
WARM_UP = 50
PROFILED_RUNS = 20
DRAWN = 6
# Weights and accuracy are fixed; fewer right answers than this are a fault of the runtime.
LEAST_ACCURACY = 0.97


def main(ov: Any = None, device: str = "CPU") -> int:
    """Run on `ov`, a module with OpenVINO's API; on ovjit if None. 0 if the answers are good, else 1."""
    if ov is None:
        import ovjit as ov
    xml, images, labels = digits()
    core = ov.Core()
    steps: list[Any] = []
    before = dict(counts)
    tells = getattr(ov, "progress", lambda callback: None)
    earlier = tells(steps.append)
    try:
        start = perf_counter()
        model = core.read_model(xml)
        read = perf_counter()
        compiled = core.compile_model(model, device, {"PERFORMANCE_HINT": "LATENCY"})
        done = perf_counter()
    finally:
        tells(earlier)
    print(f"{ov.__name__} {ov.get_version()} on {core.get_property(device, 'FULL_DEVICE_NAME')}")
    print(f"read {xml.name} in {1e3 * (read - start):.1f} ms, compiled in {1e3 * (done - read):.1f} ms")
    if hasattr(ov, "progress"):
        print(first_time({kind: count - before[kind] for kind, count in counts.items()}, steps))
    print()

    answers = compiled(images)[0].argmax(axis=1)
    right = int((answers == labels).sum())
    print(draw(images[:DRAWN], answers[:DRAWN], labels[:DRAWN]))
    print(f"{right} of {len(labels)} held-out digits right: accuracy {right / len(labels):.2%}\n")

    queued = print_latencies(ov, compiled, images)
    if not np.array_equal(queued, answers):
        print("the queue's results differ from those of the synchronous call")
        return 1
    profiled = core.compile_model(model, device, {"PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True})
    print_layers(profiled, images)
    return 0 if right >= LEAST_ACCURACY * len(labels) else 1


def draw(images: np.ndarray, answers: np.ndarray, labels: np.ndarray) -> str:
    """Digits side by side, two characters a pixel, and below each what the network reads in it."""
    shades = " \u2591\u2592\u2593\u2588"
    try:
        shades.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        shades = " .:*#"
    levels = np.clip(images[:, 0] / images.max() * len(shades), 0, len(shades) - 1).astype(int)
    width = 2 * images.shape[-1]
    rows = [
        " ".join("".join(2 * shades[level] for level in digit[y]) for digit in levels).rstrip()
        for y in range(images.shape[-2])
    ]
    captions = [
        f"reads {answer}" if answer == label else f"reads {answer}, is {label}"
        for answer, label in zip(answers, labels, strict=True)
    ]
    return "\n".join([*rows, " ".join(text.center(width) for text in captions).rstrip(), ""])


def first_time(kernels: Mapping[str, int], steps: Sequence[Any]) -> str:
    """A line on the origin of kernels and the time of compiling. `kernels`: the increase of
    `compiling.counts`, by kind. `steps`: those that `ovjit.progress` reported."""
    ways = {"shipped": "shipped with ovjit", "cached": "from the cache", "compiled": "compiled"}
    sources = [f"{kernels[kind]} {way}" for kind, way in ways.items() if kernels[kind]]
    if kernels["compiled"]:
        sources[-1] += f" in {sum(step.seconds for step in steps if not step.kernel):.2f} s"
        sources[-1] += " and kept for later processes"
    return f"kernels: {', '.join(sources) or 'loaded before'}"


def print_latencies(ov: Any, compiled: Any, images: np.ndarray) -> np.ndarray:
    """Print the time of one digit for each way of asking; return the classes that a queue found, [n]."""
    singles = [images[i : i + 1] for i in range(len(images))]
    request = compiled.create_infer_request()

    # Every call here lends its input, as compiled(x) does. On the real OpenVINO, a call that copies may copy
    # into the array that an earlier call lent, even one lent to another request of the same compiled model.
    def through_infer(x: np.ndarray) -> None:
        request.infer(x, share_inputs=True)

    def through_start_async(x: np.ndarray) -> None:
        request.start_async(x, share_inputs=True)
        request.wait()

    print("one digit, batch 1                        time per digit")
    rows: list[tuple[str, Callable[[np.ndarray], object]]] = [
        ("sync   compiled(x)", compiled),
        ("sync   request.infer(x)", through_infer),
        ("async  request.start_async(x), wait()", through_start_async),
    ]
    for name, call in rows:
        print(f"  {name:40s} {1e6 * median_seconds(call, singles):9.1f} us   median of {CALLS}")

    classes = np.full(len(images), -1)

    def keep_class(done: Any, index: int) -> None:
        classes[index] = done.get_output_tensor(0).data.argmax()

    for jobs in (2, 4):
        queue = ov.AsyncInferQueue(compiled, jobs)
        queue.set_callback(keep_class)
        seconds = []
        for _ in range(5):
            start = perf_counter()
            for index, x in enumerate(singles):
                queue.start_async(x, index, share_inputs=True)
            queue.wait_all()
            seconds.append((perf_counter() - start) / len(singles))
        name = f"async  AsyncInferQueue, {jobs} jobs, callback"
        print(f"  {name:40s} {1e6 * statistics.median(seconds):9.1f} us   median of 5 x {len(singles)}")
    return classes


def median_seconds(call: Callable[[np.ndarray], object], inputs: list[np.ndarray]) -> float:
    """Median wall time of CALLS calls, each with the next of `inputs`, after WARM_UP that do not count."""
    seconds = []
    for i in range(WARM_UP + CALLS):
        x = inputs[i % len(inputs)]
        start = perf_counter()
        call(x)
        seconds.append(perf_counter() - start)
    return statistics.median(seconds[WARM_UP:])


def print_layers(compiled: Any, images: np.ndarray) -> None:
    """Print each executed layer's mean time over a few runs of the whole batch, with its share of their sum.

    The whole batch, because times have a resolution of 1 us and a layer of one digit takes hardly more.
    """
    request = compiled.create_infer_request()
    layers: dict[tuple[str, str, str], float] = {}
    for run in range(PROFILED_RUNS + 1):
        request.infer(images)
        if run == 0:
            continue  # plans the memory for this batch
        for info in request.get_profiling_info():
            if info.status.name == "EXECUTED":
                key = (info.node_name, info.node_type, info.exec_type)
                layers[key] = layers.get(key, 0.0) + info.real_time.total_seconds() / PROFILED_RUNS
    total = sum(layers.values())
    print(f"\n{len(layers)} executed layers, batch {len(images)}, mean of {PROFILED_RUNS} runs")
    print(f"  {'name':36s} {'type':18s} {'executed as':28s} {'us':>8s} {'share':>6s}")
    for (name, kind, executed), seconds in layers.items():
        share = seconds / total if total else 0.0
        print(f"  {keep_end(name, 36):36s} {keep_end(kind, 18):18s} {keep_end(executed, 28):28s}"
              f" {1e6 * seconds:8.1f} {share:6.1%}")  # fmt: skip
    print(f"  {'sum':36s} {'':18s} {'':28s} {1e6 * total:8.1f}")
