"""Products of one row with compressed weights, beside the bandwidth of memory and beside OpenVINO.

    python -m bench.gemv [--kinds i8 u4z ...] [--groups 0 32 128] [--rounds 7] [--mb 100] [--json gemv.json]

A chain of products of 4096 by 12288 elements and back, in f32, with the options that a model has by default.
In every round the memory is read once before and once after it, which empties caches, too; `share` is the
median, over the rounds, of the bytes of weights, scales and zeros in a second of CPU time, as a share of the
faster of the two. `ratio` is the median of the time as a share of OpenVINO's in the same round. A group of 0
is a whole column; kinds that end in z have zero points. With `--threads 2` times are those of the clock, and
memory is what `ovjit.tools.roofline` finds for two threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench import command, report

KINDS = ("f16", "i8", "u8z", "i4", "u4z", "nf4", "f8e4m3", "f4e2m1", "cb4")
COLUMNS = ("weights", "group", "kernel", "mb", "gbs", "memory", "share", "below", "ratio")
KEYS = ("weights", "group")
GOAL = 0.85
DEPTH, OUTS, SEED = 4096, 12288, 20261122
BITS = {"f16": 16, "i4": 4, "u4": 4, "nf4": 4, "f4e2m1": 4, "cb4": 4}


def weights(
    ov: Any, rng: np.random.Generator, kind: str, group: int, depth: int, outs: int, kept: list[np.ndarray]
) -> tuple[Any, float]:
    """Weights [outs, depth] as they are decompressed, by a package, and the bytes that are stored of them.
    Tensors of OpenVINO's are in memory that is to be `kept` as long as they are."""
    ops = ov.opset13
    stored = kind.removesuffix("z")
    bits, each = BITS.get(stored, 8), group or depth
    if kind == "f16":
        reals = rng.standard_normal((outs, depth), np.float32) / np.float32(depth**0.5)
        return ops.convert(ops.constant(reals.astype(np.float16)), np.float32), 2.0 * depth * outs
    element = getattr(ov.Type, "u4" if kind == "cb4" else stored)
    shape, scales = [outs, depth // each, each], [outs, depth // each, 1]

    def constant(dims: list[int], low: int, high: int) -> Any:
        count = int(np.prod(dims))
        data = rng.integers(low, high, count * bits // 8, np.uint8)
        kept.append(data)
        codes = ops.constant(ov.Tensor(data, dims, element))
        if kind != "cb4":
            return ops.convert(codes, np.float32)
        book = ops.constant(np.sort(np.random.default_rng(SEED).standard_normal(16)).astype(np.float32))
        return ops.gather(book, ops.convert(codes, np.uint8), np.int64(0))

    # without the codes of f8e4m3 that are NaN
    w = constant(shape, 0, 120 if stored == "f8e4m3" else 256)
    size = depth * outs * bits / 8 + 2.0 * outs * (depth // each)
    if kind.endswith("z"):
        w = ops.subtract(w, constant(scales, 0, 256))
        size += outs * (depth // each) * bits / 8
    most = {"f8e4m3": 64, "nf4": 1, "f4e2m1": 4, "cb4": 2}.get(stored, 2**bits)
    factors = rng.uniform(0.5, 1, scales) / depth**0.5 / most
    w = ops.multiply(w, ops.constant(factors.astype(np.float16).astype(np.float32)))
    return ops.reshape(w, np.array([outs, depth]), False), size


def chain(
    ov: Any, kind: str, group: int, threads: int, most: float, kept: list[np.ndarray]
) -> tuple[Any, float, str]:
    """A package's request for products of `most` bytes of weights, their bytes, and the longest's kernel."""
    rng, ops = np.random.default_rng([SEED, group]), ov.opset13
    x = y = ops.parameter([1, DEPTH], np.float32)
    total, dims = 0.0, (DEPTH, OUTS)
    while total < most:
        w, size = weights(ov, rng, kind, group, *dims, kept)
        y, total, dims = ops.matmul(y, w, False, True), total + size, dims[::-1]
    config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
    request = ov.Core().compile_model(ov.Model([y], [x]), "CPU", config).create_infer_request()
    for _ in range(2):
        request.infer([_row()])
    longest = max(request.get_profiling_info(), key=lambda row: row.real_time)
    return request, total, longest.exec_type


def _row() -> np.ndarray:
    return np.random.default_rng(SEED).standard_normal((1, DEPTH), np.float32)


def memory_reader() -> Callable[[], float]:
    """A function that reads more bytes than caches hold. It returns the bytes per second of CPU time."""
    from ovjit.codegen import loading
    from ovjit.codegen.cpu import objects
    from ovjit.codegen.cpu.host import host_target
    from ovjit.tools import roofline

    (address,) = loading.addresses((roofline.stream_kernel(),)).values()
    call, lanes = objects.function(address, 4), host_target().lanes
    block = roofline.STREAMS * lanes * 4
    size = min(max(roofline.MEMORY_BYTES, 4 * roofline.cache_sizes()[1]), roofline.MOST_BYTES)
    count = size // block * block
    x, y = np.ones(count // 4 + 16, np.float32), np.zeros(lanes, np.float32)
    read = roofline.bind_call(call, [x, y], [0, -x.ctypes.data % 64, 1, 0, count, 1])

    def rate() -> float:
        start = time.process_time()
        read()
        return count / (time.process_time() - start)

    return rate


def measure(kind: str, group: int, rounds: int, most: float, threads: int) -> dict[str, Any]:
    import ovjit
    from ovjit.tools import roofline

    kept: list[np.ndarray] = []
    request, total, kernel = chain(ovjit, kind, group, threads, most, kept)
    requests = [request]
    try:
        import openvino
    except ImportError:
        pass
    else:
        requests.append(chain(openvino, kind, group, threads, most, kept)[0])
    clock = time.process_time if threads == 1 else time.perf_counter
    read = memory_reader()
    of_threads = roofline.measure(threads).levels[-1].bandwidth if threads > 1 else 0.0
    data = _row()
    read()
    shares, rates, peaks, ratios = [], [], [], []
    for _ in range(rounds):
        times, reads = [], [read()]
        for one in requests:
            start = clock()
            one.infer([data])
            times.append(clock() - start)
            reads.append(read())
        rates.append(total / times[0])
        peaks.append(of_threads or max(reads[:2]))
        shares.append(rates[-1] / peaks[-1])
        ratios += [times[0] / t for t in times[1:]]
    share = statistics.median(shares)
    return {
        "weights": kind, "group": group, "kernel": kernel, "mb": total / 1e6,
        "gbs": statistics.median(rates) / 1e9, "memory": statistics.median(peaks) / 1e9, "share": share,
        "below": "!" if share < GOAL else None, "ratio": statistics.median(ratios) if ratios else None,
    }  # fmt: skip


def main() -> int:
    parser = command.parser("gemv", __doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--groups", nargs="+", type=int, default=[0, 32, 64, 128])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mb", type=float, default=100, help="of weights at least")
    arguments = parser.parse_args()
    rows = []
    for kind in arguments.kinds:
        for group in arguments.groups if kind != "f16" else [0]:
            rows.append(measure(kind, group, arguments.rounds, arguments.mb * 1e6, arguments.threads))
    print(report.table(rows, COLUMNS))
    settings = {"rounds": arguments.rounds, "threads": arguments.threads, "goal": GOAL}
    report.write(arguments.json, "gemv", KEYS, rows, **settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
