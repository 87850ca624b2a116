"""What the fuzzers of files have in common: small models, hostile values, and running what has been read."""

from __future__ import annotations

import functools
import signal
from typing import Any

import guard_pages
import numpy as np

import ovjit
from ovjit import opset15 as op
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import is_static

NUMBERS = [
    0, 1, -1, 2, 3, 5, 7, 16, 255, 256, 4096, 65536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**62, -(2**62),
    2**63 - 1, 2**63, -(2**63), 2**64, 10**30
]  # fmt: skip
TEXTS = (
    "nan inf -inf 1e400 0.5 true ? -1..5 5..2 ... f32 i64 FP16 string u1 nf4 dynamic same_upper valid "
    "explicit numpy constant max [] {} , ; None __class__ %s 0 -1 1,1 0,0 1,2,3,4,5,6,7,8,9"
).split() + ["", " ", "\x00", "é", "a" * 300]
#: Elements of the largest tensor that is still run, and seconds that a case may take.
MOST, LONGEST = 1 << 20, 40
#: Where numbers get so large, sums of them are as good as any.
WILD = 1e10


@functools.cache
def models() -> list[ovjit.Model]:
    """Small models that between them have most kinds of attributes, constants, types and edges."""
    rng = np.random.default_rng(20261206)

    def weights(*shape: int) -> Any:
        return op.constant(rng.standard_normal(shape).astype(np.float32))

    def ints(*values: int) -> Any:
        return op.constant(np.array(values, np.int64))

    def image() -> ovjit.Model:
        x = op.parameter([1, 3, 8, 8], np.float32, name="image")
        y = op.convolution(x, weights(16, 3, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
        y = op.prelu(op.add(y, weights(1, 16, 1, 1)), weights(16))
        y = op.group_convolution(y, weights(16, 1, 1, 3, 3), [2, 2], [1, 1], [1, 1], [1, 1])
        y = op.max_pool(y, [2, 2], [1, 1], [0, 0], [1, 1], [2, 2]).output(0)
        y = op.avg_pool(y, [1, 1], [0, 0], [1, 1], [2, 2], True)
        y = op.clamp(op.mvn(y, ints(2, 3), True, 1e-5, "inside_sqrt"), -1.0, 1.0)
        return ovjit.Model([op.softmax(y, 1)], [x], "image")

    def indices() -> ovjit.Model:
        x = op.parameter([-1, 6], np.float32, name="rows")
        i = op.parameter([3], np.int64, name="index")
        y = op.gather(x, i, op.constant(np.array(0)))
        z = op.scatter_update(y, ints(0, 2), weights(2, 6), op.constant(np.array(0)))
        s = op.slice(z, ints(0, 5), ints(3, -7), ints(1, -1), ints(0, 1))
        t = op.strided_slice(s, ints(0, 0), ints(2, 4), ints(1, 2), [0, 0], [0, 1], [0, 0], [0, 0], [0, 0])
        k = op.topk(s, op.constant(np.array(2)), 1, "max", "value")
        h = op.one_hot(op.convert(k.output(1), "i64"), op.constant(np.array(4)), op.constant(np.float32(1)),
                       op.constant(np.float32(0)), -1)  # fmt: skip
        return ovjit.Model([k.output(0), h.output(0), t.output(0)], [x, i], "indices")

    def shapes() -> ovjit.Model:
        x = op.parameter([2, -1, 4], np.float32, name="x")
        a = op.reshape(op.transpose(x, ints(1, 0, 2)), ints(0, -1), True)
        b = op.variadic_split(a, op.constant(np.array(1)), ints(3, -1))
        c = op.pad(b.output(0), ints(0, 1), ints(1, 0), "constant", op.constant(np.float32(0.5)))
        d = op.tile(op.broadcast(op.reduce_mean(c, ints(1), True), ints(1, 5)), ints(2, 1))
        e = op.matmul(op.unsqueeze(b.output(1), ints(0)), weights(5, 7), False, False)
        return ovjit.Model([d, op.squeeze(e, ints(0)), op.shape_of(c, "i32")], [x], "shapes")

    def types() -> ovjit.Model:
        x = op.parameter([4, 5], np.float32, name="x")
        packed = op.constant(np.arange(20, dtype=np.uint8).reshape(4, 5))
        scale = op.multiply(op.subtract(op.convert(packed, "f32"), weights(4, 1)), weights(4, 1))
        half = op.convert(op.convert(x, "f16"), "f32")
        wide = op.select(op.greater(half, weights(1)), half, scale)
        whole = op.add(op.convert(wide, "i32"), op.constant(np.int32(7)))
        return ovjit.Model([op.fake_quantize(wide, *(weights(1) for _ in range(4)), 16), whole], [x], "types")

    return [image(), indices(), shapes(), types()]


class _TooLong(Exception):
    pass


def run(read: Any) -> str:
    """Read, compile and run; what is wrong: any exception that is no RuntimeError, or another answer than the
    interpreter's. `read()` gives a Model or a CompiledModel."""
    previous = signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(LONGEST)
    try:
        return _run(read)
    except _TooLong:
        return f"took more than {LONGEST} seconds"
    except RuntimeError as error:
        return str(error) if "internal error" in str(error) else ""
    except Exception as error:
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-1]
        file = where.filename.rpartition("/")[2]
        return f"{type(error).__name__}: {error} ({where.name} in {file}:{where.lineno})"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def _alarm(number: int, frame: Any) -> None:
    raise _TooLong


def _run(read: Any) -> str:
    made = read()
    if isinstance(made, ovjit.Model):
        graph = made._graph()
        if _is_huge(graph):
            return ""
        made = ovjit.compile_model(made, "CPU", {"INFERENCE_NUM_THREADS": 1})
    else:
        graph = made._executable.graph
    if any(v.dtype == "string" for v in (*graph.inputs, *graph.outputs)) or _is_huge(graph):
        return ""
    rng = np.random.default_rng(1)
    arrays = []
    for value in graph.inputs:
        shape = [d if isinstance(d, int) else max(d.lo, 3) for d in value.shape or (3,)]
        if np.prod(shape, dtype=float) > MOST:
            return ""
        arrays.append(_input(rng, shape, value.dtype))
    wild = False

    def largest(node: Any, outputs: Any) -> None:
        nonlocal wild
        real = [o for o in outputs if o.dtype.kind not in "biuO" and o.size]
        wild = wild or any(np.abs(o.astype(np.float64)).max() > WILD for o in real)

    want: Any
    try:
        want = evaluate(graph, arrays, largest)
    except RuntimeError as error:
        want = error
    request = made.create_infer_request()
    tensors = [ovjit.Tensor(guard_pages.guarded(a, guard_pages.BEHIND), shared_memory=True) for a in arrays]
    try:
        request.infer(dict(enumerate(tensors)))
        got = [np.array(t.data) for t in request.output_tensors]
    except RuntimeError as error:
        if "internal error" in str(error) or not isinstance(want, Exception):
            return f"native: {error}; interpreter: {want if isinstance(want, Exception) else 'an answer'}"
        return ""
    if isinstance(want, Exception):
        return f"native: an answer; interpreter: {want}"
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if a.shape != b.shape:
            return f"output {i} has the shape {a.shape}, not {b.shape}"
        if not wild and not _alike(a, b):
            return f"output {i} is {a.reshape(-1)[:6].tolist()}, not {b.reshape(-1)[:6].tolist()}"
    return ""


def _input(rng: np.random.Generator, shape: list[int], dtype: str) -> np.ndarray:
    from ovjit.graph.dtypes import numpy_dtype

    if dtype in ("i32", "i64"):
        return rng.integers(0, 3, shape).astype(numpy_dtype(dtype))
    return (rng.standard_normal(shape) * 3).astype(numpy_dtype(dtype))


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype.kind in "biu":
        return (
            bool((a != b).mean() < 0.2) if a.size else True
        )  # a number beside a limit may round the other way
    x, y = a.astype(np.float64), b.astype(np.float64)
    finite = np.abs(y[np.isfinite(y)])
    limit = 3e-2 * (1 + (finite.max() if finite.size else 0))
    with np.errstate(all="ignore"):
        same = (np.abs(x - y) <= limit) | (x == y) | ~np.isfinite(x) | ~np.isfinite(y)
    return bool(same.all())


def _is_huge(graph: Any) -> bool:
    values = [v for n in graph.nodes for v in n.outputs]
    return any(is_static(v.shape) and np.prod(v.shape, dtype=float) > MOST for v in values)


_installed = False


def install() -> None:
    global _installed
    if not _installed:
        guard_pages.install(guard_pages.BEHIND)
        _installed = True
