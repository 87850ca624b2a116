"""What the fuzzers of files have in common: hostile values, and running what has been read."""

from __future__ import annotations

import functools
import hashlib
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import ovjit
from ovjit import engine as build
from ovjit.api.run import properties_table
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Graph
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import fits, is_static
from ovjit.rewrite.model_variables import Start, lift
from tests.support import guard_pages

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


#: What gives another answer with every search where a list should be sorted and is not, and with every run
#: where a seed is 0.
UNDEFINED = frozenset(("Bucketize", "SearchSorted", "RandomUniform", "Multinomial"))
#: Iterations of the longest loop that is still run.
TRIPS = 100


class _TooLong(Exception):
    pass


class Seen:
    """Programs and answers of graphs that have been there before: most changes are of names and notes, or
    undo each other, and make a graph that is known."""

    def __init__(self) -> None:
        self.programs: dict[Any, Any] = {}
        self.right: set[Any] = set()


seen = Seen()


def read_and_run(
    read: Callable[[], Any], config: dict[str, Any] | None = None, feeds: dict[str, np.ndarray] | None = None
) -> str:
    """Read, compile and run; what is wrong: any exception that is no RuntimeError, or another answer than the
    interpreter's. `read()` gives a Model, which is compiled with `config`, or a CompiledModel; `feeds` are
    given to inputs of these names that still take them."""
    previous = signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(LONGEST)
    try:
        return _run(read, config or {}, feeds or {})
    except _TooLong:
        return f"took more than {LONGEST} seconds"
    except MemoryError:
        return ""  # of a process that has limits
    except RuntimeError as error:
        return str(error) if is_internal(str(error)) else ""
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        file = where.filename.rpartition("/")[2]
        return f"{type(error).__name__}: {error} ({where.name} in {file}:{where.lineno})"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def is_internal(message: str) -> bool:
    """Whether an error of ours stands for one of Python's that no check has caught."""
    return "internal error" in message or "cannot be compiled: " in message


def _alarm(number: int, frame: Any) -> None:
    raise _TooLong


def signature(graph: Graph) -> bytes:
    """A digest of everything in a graph but its names."""
    digest = hashlib.blake2b(digest_size=16)
    _digest(digest, graph)
    return digest.digest()


def _digest(digest: Any, value: Any) -> None:
    if isinstance(value, Graph):
        numbers = {v: (i, v.index) for i, n in enumerate(value.nodes) for v in n.outputs}
        for node in value.nodes:
            ends = [numbers[v] for v in node.inputs], [v.type for v in node.outputs]
            row = node.op.name, node.op.opset, ends
            digest.update(repr(row).encode())
            for key, one in node.attrs.items():
                if key == "shape" and one == getattr(node.attrs.get("value"), "shape", ()):
                    one = None  # a constant's own shape may be told or not
                digest.update(key.encode())
                _digest(digest, one)
        whole = [numbers[v] for v in value.inputs], [numbers[v] for v in value.outputs]
        digest.update(repr(whole).encode())
    elif isinstance(value, np.ndarray):
        digest.update(repr((value.dtype.str, value.shape)).encode())
        digest.update(repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes())
    else:
        digest.update(repr(value).encode())


def _remember_programs() -> None:
    """Compile equal graphs once."""
    make = build.make_program

    def remembered(graph: Graph, config: Any, watched: bool = False, *rest: Any) -> Any:
        hints = [str(config.get(k)) for k in ("INFERENCE_PRECISION_HINT", "EXECUTION_MODE_HINT")]
        key = signature(graph), *hints
        program = seen.programs.get(key)
        if program is None:
            program = seen.programs[key] = make(graph, config, watched, *rest)
            if len(seen.programs) > 200:
                del seen.programs[next(iter(seen.programs))]
        return program

    build.make_program = remembered


def _run(read: Callable[[], Any], config: dict[str, Any], feeds: dict[str, np.ndarray]) -> str:
    made = read()
    if isinstance(made, ovjit.Model):
        graph = made._graph()
        exact = config.get("INFERENCE_PRECISION_HINT") != "bf16"
        key = signature(graph), exact
        if key in seen.right or _is_huge(graph):
            return ""
        made = ovjit.compile_model(made, "CPU", {"INFERENCE_NUM_THREADS": 1, **config})
    else:
        graph = made._executable.graph
        exact = "bf16" not in str(made.get_property("INFERENCE_PRECISION_HINT"))
        key = signature(graph), exact
        if key in seen.right or _is_huge(graph):
            return ""
    wrong = _compare(made, graph, exact, feeds)
    if not wrong:
        if len(seen.right) > 50_000:
            seen.right.clear()
        seen.right.add(key)
    return wrong


def _compare(made: Any, graph: Graph, exact: bool, feeds: dict[str, np.ndarray]) -> str:
    if any(v.dtype == "string" for v in graph.inputs):
        return ""
    rng = np.random.default_rng(1)
    arrays = []
    for value in graph.inputs:
        usual = feeds.get(value.node.name)
        if usual is not None and usual.dtype == numpy_dtype(value.dtype) and fits(usual.shape, value.shape):
            arrays.append(usual)
            continue
        known = (3,) if value.shape is None else value.shape
        shape = [d if isinstance(d, int) else max(d.lo, 3) for d in known]
        if np.prod(shape, dtype=float) > MOST:
            return ""
        arrays.append(_input(rng, shape, value.dtype))
    wild = other_rank = False

    def largest(node: Any, outputs: Any) -> None:
        nonlocal wild, other_rank
        # a Squeeze of an open dimension that is not 1: its readers are made for another rank
        ranks = [v.type.rank for v in node.outputs]
        other_rank |= any(r not in (None, o.ndim) for r, o in zip(ranks, outputs, strict=True))
        for o in outputs:
            if o.size and o.dtype.kind not in "biuO" and not wild:
                with np.errstate(all="ignore"):
                    top = np.abs(o.astype(np.float64)).max()
                wild = not top <= WILD

    want: Any
    try:
        want = _interpreted(graph, arrays, largest)
    except RuntimeError as error:
        want = error
    if other_rank:
        want = RuntimeError("a tensor has another rank than the graph says")
    request = made.create_infer_request()
    tensors = [ovjit.Tensor(guard_pages.guarded(a, guard_pages.BEHIND), shared_memory=True) for a in arrays]
    try:
        request.infer(dict(enumerate(tensors)))
        got = [
            np.array(t.bytes_data if t.element_type == ovjit.Type.string else t.data)
            for t in request.output_tensors
        ]
    except RuntimeError as error:
        if is_internal(str(error)) or not isinstance(want, Exception):
            return f"native: {error}; interpreter: {want if isinstance(want, Exception) else 'an answer'}"
        return ""
    if isinstance(want, Exception):
        if "(Broadcast)" in str(want) and any(map(is_no_step, graph.nodes)):
            return ""
        if "MemoryError" in str(want):
            return ""  # NumPy makes more of it than kernels do
        return f"native: an answer; interpreter: {want}"
    undefined = any(node.op.name in UNDEFINED for node in graph.nodes)
    for i, (a, b, tensor) in enumerate(zip(got, want, request.output_tensors, strict=True)):
        if tensor.element_type.bitwidth < 8:
            a = a if tuple(tensor.shape) != b.shape else b  # data are packed bytes
        if b.dtype.name == "bfloat16" and a.dtype.itemsize == 2:
            a = a.view(b.dtype)  # a tensor of bf16 shows its bits as f16
        if a.shape != b.shape:
            return f"output {i} has the shape {a.shape}, not {b.shape}"
        if exact and not wild and not undefined and not _alike(a, b):
            if _is_as_far(a, b, graph, arrays, i):
                continue
            return f"output {i} is {a.reshape(-1)[:6].tolist()}, not {b.reshape(-1)[:6].tolist()}"
    return ""


def is_no_step(node: Any) -> bool:
    """Whether nothing is left of a Broadcast both ways: a shape without a 1 is that of the result, whatever
    the target, which the interpreter alone refuses where it does not fit."""
    if node.op.name != "Broadcast" or node.attrs["mode"] != "bidirectional":
        return False
    return node.inputs[1].constant is None and node.output.shape == node.inputs[0].shape


def _interpreted(graph: Graph, arrays: list[np.ndarray], observe: Any) -> list[np.ndarray]:
    if not graph.has_state:
        return evaluate(graph, arrays, observe)
    lifted = lift(graph)
    values = []
    for variable, init in zip(lifted.variables, lifted.inits, strict=True):
        if isinstance(init, Start):
            hidden = [np.zeros([getattr(d, "lo", d) for d in v.shape or ()], numpy_dtype(v.dtype))
                      for v in lifted.variables]  # fmt: skip
            given = [*arrays, *hidden]
            values.append(evaluate(init.graph, [given[i] for i in init.inputs], observe)[init.output])
        elif init is None:
            shape = [getattr(d, "lo", d) for d in variable.shape or ()]
            values.append(np.zeros(shape, numpy_dtype(variable.dtype)))
        else:
            values.append(init)
    outputs = evaluate(lifted.main, [*arrays, *values], observe)
    return outputs[: len(outputs) - sum(v.assigned for v in lifted.variables)]


def _input(rng: np.random.Generator, shape: list[int], dtype: str) -> np.ndarray:
    if dtype in ("i32", "i64"):
        return rng.integers(0, 3, shape).astype(numpy_dtype(dtype))
    return (rng.standard_normal(shape) * 3).astype(numpy_dtype(dtype))


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    if b.dtype.hasobject or a.dtype.kind in "USO":
        return _strings(a) == _strings(b)
    if a.dtype.kind in "biu":
        # a number beside a limit may round the other way
        return bool((a != b).mean() < 0.2) if a.size > 4 else True
    x, y = a.astype(np.float64), b.astype(np.float64)
    finite = np.abs(y[np.isfinite(y)])
    limit = 3e-2 * (1 + (finite.max() if finite.size else 0))
    with np.errstate(all="ignore"):
        same = (np.abs(x - y) <= limit) | (x == y) | ~np.isfinite(x) | ~np.isfinite(y)
    return bool(same.all())


def _is_as_far(a: np.ndarray, b: np.ndarray, graph: Graph, arrays: list[np.ndarray], i: int) -> bool:
    """True where the interpreter's own result moves as far when every step of it rounds otherwise."""
    if b.dtype.kind not in "fV":
        return False
    rng = np.random.default_rng(1)

    def round_otherwise(node: Any, outputs: Any) -> None:
        for o in outputs:
            if o.dtype.kind == "f" and o.flags.writeable:
                o[...] = np.nextafter(o, rng.choice([-np.inf, np.inf], o.shape).astype(o.dtype))

    with np.errstate(all="ignore"):
        exact = b.astype(np.float64)
        others = (_interpreted(graph, arrays, round_otherwise)[i] for _ in range(4))
        moved = max(np.nanmax(np.abs(other.astype(np.float64) - exact), initial=0) for other in others)
        return bool(np.nanmax(np.abs(a.astype(np.float64) - exact), initial=0) <= 4 * moved)


def _strings(array: np.ndarray) -> list[bytes]:
    """As NumPy's arrays of bytes show them, which are what `bytes_data` gives: without zeros at the end."""
    flat = array.reshape(-1).tolist()
    words = (v if isinstance(v, bytes) else str(v).encode("utf-8", "surrogateescape") for v in flat)
    return [word.rstrip(b"\0") for word in words]


def _is_huge(graph: Graph) -> bool:
    """Whether to run it would take too long: large tensors, many iterations."""
    for node in graph.nodes:
        for value in node.outputs:
            if is_static(value.shape) and np.prod(value.shape, dtype=float) > MOST:
                return True
        if node.op.name == "Loop" and node.inputs[0].constant is not None:
            trips = node.inputs[0].constant.reshape(-1)
            if trips.size != 1 or not 0 <= trips[0] <= TRIPS:
                return True
        if any(isinstance(v, Graph) and _is_huge(v) for v in node.attrs.values()):
            return True
    return False


_installed = False


def install() -> None:
    global _installed
    if not _installed:
        guard_pages.install(guard_pages.BEHIND)
        # NumPy's integers wrap where Python's do not
        warnings.filterwarnings("error", "overflow encountered in scalar")
        warnings.filterwarnings("ignore", "invalid value encountered in cast|Mean of empty")
        _remember_programs()
        properties_table.usable_cores = functools.cache(properties_table.usable_cores)
        _installed = True
