"""Every kernel in plain Python (OVJIT_INTERP=kernels): the bytes it touches are those it was given, and the
answer is the machine code's.

All operations' samples go through it, in the operation's first element type; some of them by default, all,
and other types, behind the marker `long`.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.host import usable
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.kernel import Kernel, KernelArgs
from ovjit.codegen.loading import addresses
from ovjit.engine import compile_graph
from ovjit.errors import InferenceError, OvjitError
from ovjit.execution.numpy_words import F32, Memory, OutOfBounds, Words, program
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.op import Op, find_op
from ovjit.planning.plan import Planner
from ovjit.planning.views import View
from tests.fuzz.guarded_ops import element_types, graph_of, records
from tests.support.in_python import answer, check
from tests.support.samples import samples_of

SEED = 20261121
#: Of each operation's samples so many run by default, no large one among them.
SOME = 1
#: Elements: what has more takes seconds.
LARGE = 3000


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_PRECISION", "f32")


def cases(record: Op, dtype: str) -> Iterator[tuple[int, Graph, list[np.ndarray]]]:
    rng = np.random.default_rng(zlib.crc32(record.name.encode()))
    for sample, (inputs, attrs) in enumerate(samples_of(record, rng, dtype)):
        constants = list(range(1, len(inputs)))
        try:
            graph, arrays = graph_of(record, constants, "", inputs, attrs)
        except OvjitError:
            continue
        if not any(isinstance(a.dtype, np.dtype) and a.dtype.hasobject for a in arrays):
            yield sample, graph, arrays


def chosen(record: Op, count: int) -> Iterator[tuple[str, int, Graph, list[np.ndarray]]]:
    for dtype in element_types(record) if count > SOME else element_types(record)[:1]:
        found = list(cases(record, dtype))
        if count <= SOME:
            small = [c for c in found if sum(a.size for a in c[2]) <= LARGE]
            rng = np.random.default_rng(zlib.crc32(record.name.encode()) + record.opset)
            order = rng.permutation(len(small))
            found = [small[i] for i in order[:count]]
        yield from ((dtype, *case) for case in found)


GROUPS = 8


def check_group(monkeypatch: pytest.MonkeyPatch, group: int, count: int) -> set[str]:
    kernels: set[str] = set()
    for record in records()[group::GROUPS]:
        for dtype, sample, graph, arrays in chosen(record, count):
            where = f"{record.name}-{record.opset} {dtype} sample {sample}"
            kernels |= check(monkeypatch, graph, arrays, where)
    return kernels


@pytest.mark.parametrize("group", range(GROUPS))
def test_some_samples(monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    assert len(check_group(monkeypatch, group, SOME)) > 10


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("group", range(GROUPS))
def test_all_samples(monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    check_group(monkeypatch, group, 1 << 30)


def test_a_byte_too_far_is_an_error_that_names_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A softmax whose output is planned an element too far, among other tensors of the arena."""
    monkeypatch.setenv("OVJIT_INTERP", "kernels")
    monkeypatch.setattr(Planner, "_within", lambda self, view: 0)  # the check that would tell
    planned = Planner.output

    def shifted(self: Planner, value: Any, layout: Any = None, over: Any = ()) -> View:
        view = planned(self, value, layout, over)
        out = View(view.buffer, view.shape, view.strides, view.itemsize, view.offset + wrong)
        self.views[value] = out
        return out

    monkeypatch.setattr(Planner, "output", shifted)
    b = Builder()
    x = b.add("Parameter", (), {"shape": (33,), "element_type": "f32"}).output
    first = b.add("Softmax", [x], {"axis": 0}).output
    second = b.add("Softmax", [first], {"axis": 0}, name="second").output
    y = b.add("Convert", [second], {"destination_type": "f64"}).output  # or rows lie in the model's output
    for wrong in (0, 4, -4):
        got, _ = answer(b.finish([y]), [np.ones(33, np.float32)])
        if wrong:
            assert isinstance(got, str) and "chunk 0 of softmax_f32" in got and "of a tensor" in got, got
        else:
            assert not isinstance(got, str), got


def test_words() -> None:
    """What differs from NumPy's own meaning."""
    data = np.arange(8, dtype=np.float32)
    words = Words(4, Memory([(data.ctypes.data, data.nbytes, "data")]))
    at = data.ctypes.data
    ints = np.array([7, -7, -(2**31), 5], np.int32)
    assert words["loadm_f32"](at + 28, 1).tolist() == [7, 0, 0, 0]
    assert words["loadm_f32"](at + 99, 0).tolist() == [0, 0, 0, 0]  # of no lanes nothing is touched
    for touch in (
        lambda: words["load_f32"](at + 20),
        lambda: words["load_f32"](at - 4),
        lambda: words["storem_f32"](at + 28, np.ones(4, np.float32), 2),
        lambda: words["gather_f32"](at, 12, 4),
        lambda: words["take_f32"](at, np.array([0, 1, 8, 2], np.int32)),
        lambda: words["ld"](at, 4),
        lambda: words["look_up"](ints, np.full(4, 0x0F100F0F, np.int32)),
        lambda: words["dot_pairs"](np.full(4, -1, np.int32), np.full(4, 0x7F7F7F7F, np.int32)),
    ):
        with pytest.raises(OutOfBounds):
            touch()
    assert words["permute_f32"](words["load_f32"](at), np.array([0, -1, 5, 2])).tolist() == [0, 3, 1, 2]
    assert words["div"](ints, np.array([2, 2, -1, 0], np.int32)).tolist() == [3, -3, -(2**31), 0]
    reals = np.array([3e9, -3e9, np.nan, -1.5], np.float32)
    assert words["cast_i32"](reals).tolist() == [2**31 - 1, -(2**31), 0, -1]
    assert words["cast_u8"](reals).tolist() == [255, 0, 0, 0]
    assert words["const_u32"](-1).tolist() == [2**32 - 1] * 4
    third = F32(1) * F32(1 / 3)
    assert third == np.float32(1 / 3) and isinstance(third, F32) and not isinstance(third * 2.0, F32)
    text = (
        "@njit(nogil=True)\ndef kernel(a, b, c, d):\n    a //= b\n    return a + c % d + int(1.0 / 0.0 > 5)\n"
    )
    assert program(text, words)(7, 0, 5, 0) == 1
    assert program(text, words)(-7, 2, 5, 3) == -4 + 2 + 1


USABLE = usable()


def both_ways(kernel: Kernel, v: np.ndarray, w: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """What a kernel of v and w writes, bytes of that shape: in machine code, and in Python."""
    got = np.zeros((2, *shape), np.uint8)
    called = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 4)(addresses([kernel])[kernel])
    for out, run in zip(got, (called, None), strict=True):
        bases = np.array([a.ctypes.data for a in (v, w, out)], np.int64)
        block = np.array([0, 0, 1, 0, 2, 0], np.int64)
        pieces = [(a.ctypes.data, a.nbytes, "memory") for a in (v, w, out, bases, block)]
        run = run or program(kernel.source, Words(v.size // 4, Memory(pieces)))
        run(bases.ctypes.data, block.ctypes.data, 0, 0)
    return got


@pytest.mark.parametrize("isa", USABLE)
def test_words_of_bytes(monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    """In machine code and in Python, beside what is said of each 16 bytes."""
    monkeypatch.setenv("OVJIT_ISA", isa)
    lanes = TARGETS[isa].lanes
    names = ["look_up", *(f"zip_{items}_{half}" for items in ("bytes", "halves") for half in ("low", "high"))]
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
    frame = KernelArgs().pointers("v", "w", "y")
    src += [frame.prologue(), "    a = load_i32(v)", "    b = load_i32(w)"]
    src += [f"    store_i32(y + {4 * lanes * i}, {name}(a, b))" for i, name in enumerate(names)]
    rng = np.random.default_rng(SEED)
    v, w = rng.integers(0, 256, (lanes // 4, 16), np.uint8), rng.integers(0, 16, (lanes // 4, 16), np.uint8)
    want: list[list[int]] = [[] for _ in names]
    for table, codes in zip(v.tolist(), w.tolist(), strict=True):
        want[0] += [table[i] for i in codes]
        for n, (size, first) in enumerate(((1, 0), (1, 8), (2, 0), (2, 8)), 1):
            for i in range(first, first + 8, size):
                want[n] += table[i : i + size] + codes[i : i + size]
    kernel = Kernel(f"words_of_bytes_{isa}", "\n".join([*src, "    return 0", ""]), frame)
    got = both_ways(kernel, v, w, (len(names), 4 * lanes))
    for n, name in enumerate(names):
        for way, out in zip(("machine code", "Python"), got, strict=True):
            assert out[n].tolist() == want[n], f"{name} in {way}, seed {SEED}"


@pytest.mark.parametrize("isa", USABLE)
def test_words_that_fold_groups(monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    """In machine code and in Python: the halves of each 2 n lanes added, those of v before those of w."""
    monkeypatch.setenv("OVJIT_ISA", isa)
    lanes = TARGETS[isa].lanes
    counts = [n for n in (1, 2, 4, 8) if 2 * n <= lanes]
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
    frame = KernelArgs().pointers("v", "w", "y")
    src += [frame.prologue(), "    a = load_f32(v)", "    b = load_f32(w)"]
    src += [f"    store_f32(y + {4 * lanes * i}, fold_{n}(a, b))" for i, n in enumerate(counts)]
    rng = np.random.default_rng(SEED)
    v, w = (rng.standard_normal(lanes).astype(np.float32) for _ in range(2))
    kernel = Kernel(f"words_that_fold_{isa}", "\n".join([*src, "    return 0", ""]), frame)
    got = both_ways(kernel, v.view(np.uint8), w.view(np.uint8), (len(counts), 4 * lanes))
    for i, n in enumerate(counts):
        want: list[float] = []
        for first in range(0, lanes, 2 * n):
            for x in (v, w):
                want += [x[first + j] + x[first + n + j] for j in range(n)]
        for way, out in zip(("machine code", "Python"), got, strict=True):
            assert out[i].view(np.float32).tolist() == want, f"fold_{n} in {way}, seed {SEED}"


@pytest.mark.parametrize("isa", USABLE)
def test_words_of_pairs_of_bytes(monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    """Products of bytes are added in 16 bits, from the least of them to the greatest, and then in 32."""
    monkeypatch.setenv("OVJIT_ISA", isa)
    lanes = TARGETS[isa].lanes
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
    frame = KernelArgs().pointers("v", "w", "y")
    src += [frame.prologue(), "    v0 = load_i32(v)", "    w0 = load_i32(w)", "    two = dot_pairs(v0, w0)"]
    src += ["    four = add_pairs(two, two)", "    store_i32(y, four)"]
    src += [f"    store_i32(y + {4 * lanes}, sum_pairs(const_i32(2147480000), four))", "    return 0", ""]
    rng = np.random.default_rng(SEED)
    v, w = rng.integers(0, 64, 4 * lanes, np.uint8), rng.integers(-128, 128, 4 * lanes, np.int8)
    v[:4], w[:4] = 64, -128
    v[4:6], w[4:6] = (255, 2), (64, 31)
    two = (v.astype(int) * w).reshape(-1, 2).sum(1) * 2
    assert two.min() == -(2**15) and 0 < 2**15 - two.max() < 256
    whole = (two.reshape(-1, 2).sum(1) + 2147480000).astype(np.int32)
    want = np.r_[two.astype(np.int16), whole.view(np.int16)]
    got = both_ways(Kernel(f"words_of_pairs_{isa}", "\n".join(src), frame), v, w, (2, 4 * lanes))
    for way, out in zip(("machine code", "Python"), got, strict=True):
        assert (out.reshape(-1).view(np.int16) == want).all(), f"{way}, seed {SEED}"


@pytest.mark.parametrize("isa", USABLE)
@pytest.mark.parametrize("rows", [1, 3])
def test_integers_of_4_bits(monkeypatch: pytest.MonkeyPatch, isa: str, rows: int) -> None:
    """In groups that end within a word, and of whole runs of words; a panel that ends within a vector."""
    monkeypatch.setenv("OVJIT_ISA", isa)
    rng = np.random.default_rng([SEED, rows])
    for depth, group in ((23, 13), (104, 72)):
        codes = rng.integers(0, 16, (depth, 21)).astype(np.uint8)
        scale, zero = rng.uniform(0.5, 1, (2, 21)).astype(np.float32), rng.integers(0, 16, (2, 21))
        x = rng.standard_normal((rows, depth)).astype(np.float32)
        record, attrs = find_op("CompressedMatMul"), {"bits": 4, "group": group}
        graph, arrays = graph_of(record, [1, 2, 3], "", [x, codes, scale, zero.astype(np.float32)], attrs)
        kernels = check(monkeypatch, graph, arrays, f"{rows} rows, seed {SEED}")
        by_digits = rows == 1 and isa == "avx2"
        assert any(("row_u4z" if by_digits else "rows_u4z") in name for name in kernels), kernels


@pytest.mark.parametrize("isa", USABLE)
@pytest.mark.parametrize("rows", [1, 7, 9])
def test_levels_of_4_bits(monkeypatch: pytest.MonkeyPatch, isa: str, rows: int) -> None:
    """nf4 in groups that end within a word, of a panel that ends within a vector."""
    monkeypatch.setenv("OVJIT_ISA", isa)
    rng = np.random.default_rng([SEED, rows])
    codes = rng.integers(0, 16, (23, 21)).astype(np.uint8)
    scale = rng.uniform(0.5, 1, (2, 21)).astype(np.float32)
    x = rng.standard_normal((rows, 23)).astype(np.float32)
    record, attrs = find_op("CompressedMatMul"), {"bits": 4, "group": 13, "kind": "nf4"}
    graph, arrays = graph_of(record, [1, 2], "", [x, codes, scale], attrs)
    kernels = check(monkeypatch, graph, arrays, f"{rows} rows, seed {SEED}")
    assert any("_l4_" in name for name in kernels), kernels


def test_the_error_of_a_kernel_is_the_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_INTERP", "kernels")
    b = Builder()
    x = b.add("Parameter", (), {"shape": (5,), "element_type": "f32"}).output
    i = b.add("Parameter", (), {"shape": (2,), "element_type": "i64"}).output
    y = b.add("GatherElements", [x, i], {"axis": 0}).output
    job = compile_graph(b.finish([y]), {"threads": 1}).new_job()
    job.set_input(0, np.arange(5, dtype=np.float32))
    job.set_input(1, np.array([4, 9]))
    with pytest.raises(InferenceError, match="an index is out of range"):
        job.run()
    job.set_input(1, np.array([4, 1]))
    job.run()
    assert job.outputs[0].tolist() == [4, 1]
