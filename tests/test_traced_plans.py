"""Plans as functions of their shapes: what a trace makes is what planning anew makes, bit by bit.

Under `OVJIT_CHECK=1` each plan that a trace makes is planned again, step by step, compared word by word and
proved free of races (`Program._prove`). Here graphs meet random sequences of shapes, and results are compared
with those of programs that do not trace.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from test_ops_native import native_ops
from test_random_graphs import Maker

from ovjit.compiler import parametric
from ovjit.errors import OvjitError
from ovjit.execution.build import compile_graph
from ovjit.execution.job import Executable
from ovjit.graph import dtypes, traced
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.op import Op
from ovjit.graph.shapes import ANY
from ovjit.graph.traced import Tape, Traced, least, most

SEED = 20261120


def run(executable: Executable, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    job = executable.new_job()
    for i, array in enumerate(arrays):
        job.set_input(i, np.ascontiguousarray(array).reshape(np.shape(array)))
    job.run()
    return [np.array(out) for out in job.outputs]


def pair(graph: Graph) -> tuple[Executable, Executable]:
    """An executable that traces and one that plans every shape anew."""
    tracing, anew = compile_graph(graph, {}), compile_graph(graph, {})
    anew.program.traces = None
    return tracing, anew


def check(graph: Graph, sets: Sequence[Sequence[np.ndarray]], message: str) -> Executable:
    """Both agree on every set of inputs, errors included."""
    tracing, anew = pair(graph)
    for arrays in sets:
        tracing._tables.clear()
        try:
            want = run(anew, arrays)
        except OvjitError as error:
            with pytest.raises(type(error)):
                run(tracing, arrays)
            continue
        got = run(tracing, arrays)
        shapes = [a.shape for a in arrays]
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            assert a.shape == b.shape, f"{message}, shapes {shapes}, output {i}"
            assert a.tobytes() == b.tobytes(), f"{message}, shapes {shapes}, output {i}"
    return tracing


# --- numbers


def test_traced_numbers_do_as_ints_do() -> None:
    """Random expressions over leaves, replayed for other leaves: the same number, or a guard that says no."""
    rng = np.random.default_rng(SEED)
    operations = ["+", "-", "*", "//", "%", "least", "most", "?"]

    def expression(depth: int) -> str:
        if depth == 0:
            return str(rng.choice(["a", "b", "c", "3", "7", "1", "0", "64"]))
        left, right = expression(depth - 1), expression(int(rng.integers(depth)))
        what = str(rng.choice(operations))
        if what in ("least", "most"):
            return f"{what}({left}, {right})"
        if what == "?":
            return f"({left} if {right} < {expression(0)} else {right})"
        return f"({left} {what} ({right} or 5))" if what in ("//", "%") else f"({left} {what} {right})"

    served = 0
    for trial in range(150):
        text = expression(4)
        leaves = [int(v) for v in rng.integers(0, 40, 3)]
        tape = Tape(leaves)
        names: dict[str, Any] = {"least": least, "most": most}
        made = eval(text, names | {n: tape.leaf(i) for i, n in enumerate("abc")})
        assert made == eval(text, names | dict(zip("abc", leaves, strict=True))), text
        trace = object.__new__(parametric.Parametric)
        node = made.node if type(made) is Traced else tape.constant(made)
        trace._renumber(tape, [node])
        for _ in range(8):
            others = [int(v) for v in rng.integers(0, 40, 3)]
            values = trace.values.copy()
            values[:3] = others
            rows = trace.rows
            if parametric._evaluate()(rows.ctypes.data, len(rows), values.ctypes.data, 0):
                continue
            served += 1
            want = eval(text, names | dict(zip("abc", others, strict=True)))
            assert values[trace._new[node]] == want, f"trial {trial}: {text} for {others}"
    assert served > 300


def test_whatever_needs_an_int_pins() -> None:
    """C's functions see the number, and the trace is for it alone."""
    uses: list[Any] = [
        range, hash, int, float, bin, np.zeros, lambda n: [0] * n, lambda n: {n: 1}, lambda n: n / 3,
        lambda n: np.array([n], np.int64), lambda n: 2**n, lambda n: n < 2.5,
    ]  # fmt: skip
    for use in uses:
        tape = Tape([5])
        use(tape.leaf(0))
        assert [row[0] for row in tape.rows] == [traced.EQUAL], use


def test_overflow_is_no_plan() -> None:
    """Dimensions whose product does not fit are planned, and refused, without a trace."""
    b = Builder()
    x = b.add("Parameter", (), {"shape": (ANY, ANY), "element_type": "f32"}).output
    executable = compile_graph(b.finish([b.add("Transpose", [x, b.constant(np.array([1, 0]))]).output]), {})
    executable.program.plan(((3, 5),))
    for shape in ((1 << 31, 1 << 31), (1 << 40, 1 << 40), (1 << 60, 8)):
        assert executable.program.traces.find((shape,)) is None
        with pytest.raises(OvjitError):
            executable.program.plan((shape,))


# --- graphs


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, seed])
    maker = Maker(rng, dynamic=True)
    graph = maker.grow(int(rng.integers(4, 12)))
    sets = []
    for _ in range(8):
        n, h, w = (int(v) for v in rng.integers((1, 3, 3), (4, 30, 30)))
        sets.append([
            rng.standard_normal((n, a.shape[1], h, w)).astype(np.float32) for a in maker.inputs
        ])  # fmt: skip
    check(graph, sets, f"seed {seed}")


def _opened(record: Op, inputs: Sequence[np.ndarray], attrs: dict) -> tuple[Graph, list[int]]:
    """The operation alone with open dimensions: data as Parameters, all else as Constants."""
    b = Builder()
    values, data = [], []
    dtype = "f32" if "f32" in record.types else record.types[0]
    for i, array in enumerate(inputs):
        element = dtypes.from_numpy(array.dtype)
        weights = i == 1 and record.epilogue
        indices = i > 0 and record.scalar is None and record.variadic is None
        if element == dtype and not weights and not indices:
            shape = tuple(ANY for _ in array.shape)
            values.append(b.add("Parameter", (), {"shape": shape, "element_type": element}).output)
            data.append(i)
        else:
            values.append(b.constant(array, element))
    return b.finish(b.add(record, values, attrs).outputs[:1]), data


def _grown(inputs: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """The same inputs with dimensions that were equal still equal, some of them larger."""
    new = {d: d + int(rng.integers(0, 4)) * int(rng.integers(0, 2)) for a in inputs for d in a.shape if d > 1}
    return [np.resize(a, [new.get(d, d) for d in a.shape]) for a in inputs]


@pytest.mark.parametrize("record", native_ops(), ids=lambda r: f"{r.name}-{r.opset}")
def test_every_operation(record: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples with all dimensions of their data open, and then some of them larger."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    dtype = "f32" if "f32" in record.types else record.types[0]
    assert record.samples is not None
    for inputs, attrs in itertools.islice(record.samples(np.random.default_rng(SEED), dtype), 4):
        try:
            graph, data = _opened(record, inputs, attrs)
            compile_graph(graph, {})
        except OvjitError:
            continue  # not with open dimensions
        sets = [[inputs[i] for i in data]] + [_grown([inputs[i] for i in data], rng) for _ in range(3)]
        check(graph, sets, f"{record!r} {attrs}")


def test_threads_share_traces() -> None:
    """Threads plan and run different shapes of one model at once."""
    rng = np.random.default_rng(SEED)
    graph = Maker(rng, dynamic=True).grow(8)
    tracing, anew = pair(graph)
    inputs = []
    for n in range(1, 9):
        shapes = [(n, v.shape[1], 5 + n, 20 - n) for v in graph.inputs]
        inputs.append([rng.standard_normal(s).astype(np.float32) for s in shapes])
    want = [run(anew, arrays) for arrays in inputs]
    wrong: list[str] = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(inputs))
        for i in order:
            tracing._tables.clear()
            got = run(tracing, inputs[i])
            if any(a.tobytes() != b.tobytes() for a, b in zip(got, want[i], strict=True)):
                wrong.append(f"thread {seed}, shapes {i}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
