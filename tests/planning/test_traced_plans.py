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

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.graph import dtypes, traced
from ovjit.graph.bodies import CONCAT, MERGED, SLICED, Port
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.interp import evaluate
from ovjit.graph.op import Op, find_op
from ovjit.graph.shapes import ANY, Dim
from ovjit.graph.symbolic import sym_max, sym_min
from ovjit.graph.traced import Tape, Traced
from ovjit.planning import concrete_types, parametric
from ovjit_ops.convolution import cpu_winograd
from ovjit_ops.convolution.convolution import convolve
from ovjit_ops.image import resampling
from ovjit_ops.image.interpolate import interpolate
from tests.support.op_samples import native_ops
from tests.support.random_graphs import Maker
from tests.support.run import run
from tests.support.samples import has_samples, samples_of
from tests.support.sweeps import in_turn, some
from tests.support.threads import start_and_join
from tests.support.traced_pairs import check, pair

SEED = 20261120


@pytest.fixture(autouse=True)
def traced_when_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces are of the shapes that tests give; `test_traced_ahead.py` is about others."""
    monkeypatch.setenv("OVJIT_SKIP", "trace_ahead")


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
        names: dict[str, Any] = {"least": sym_min, "most": sym_max}
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
            if parametric.evaluation()(rows.ctypes.data, len(rows), values.ctypes.data, 0):
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


def test_factors_of_no_small_number_are_not_traced() -> None:
    """-2^63 has no positive counterpart: its product with an even number would be 0 in 64 bits, unseen."""
    for number in (-(1 << 63), 1 << 62, (1 << 56) + 1):
        tape = Tape([5])
        assert tape.leaf(0) * number == 5 * number
        assert [row[0] for row in tape.rows] == [traced.EQUAL]
        tape = Tape([5])
        assert tape.leaf(0) * (1 << 40) * (1 << 23) == 5 << 63  # nor what two factors come to
        assert traced.EQUAL in [row[0] for row in tape.rows]


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


@pytest.mark.parametrize("seed", some(range(12), 4))
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


#: Operations whose list of work names the rows that they write: others, of larger shapes, are not written.
LISTED = frozenset(("PagedAttention",))


@pytest.mark.parametrize("record", in_turn(native_ops(), 3, 2), ids=lambda r: f"{r.name}-{r.opset}")
def test_every_operation(record: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third one by default."""
    opened_samples(record, monkeypatch, 1)


@pytest.mark.long
@pytest.mark.parametrize("record", native_ops(), ids=lambda r: f"{r.name}-{r.opset}")
def test_more_of_every_operation(record: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    opened_samples(record, monkeypatch, 8)


def opened_samples(record: Op, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Samples with all dimensions of their data open, and then some of them larger."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    dtype = "f32" if "f32" in record.types else record.types[0]
    assert has_samples(record)
    for inputs, attrs in itertools.islice(samples_of(record, np.random.default_rng(SEED), dtype), most):
        try:
            graph, data = _opened(record, inputs, attrs)
            compile_graph(graph, {})
        except OvjitError:
            continue  # not with open dimensions
        given = [inputs[i] for i in data]
        sets = [given, *(_grown(given, rng) for _ in range(0 if record.name in LISTED else 3))]
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
    start_and_join(threads)
    assert not wrong


# --- what one trace serves


def _recogniser(rng: np.random.Generator, batch: Any = 1) -> Graph:
    """Convolutions over [batch, 3, 32, W], squeeze and excite, a nearest resize, columns into attention."""
    b = Builder()

    def constant(*shape: int) -> Any:
        return b.constant((rng.standard_normal(shape) / 8).astype(np.float32))

    def ints(*values: int) -> Any:
        return b.constant(np.array(values, np.int64))

    same = {"pads_begin": (1, 1), "pads_end": (1, 1), "dilations": (1, 1)}
    x = b.add("Parameter", (), {"shape": (batch, 3, 32, ANY), "element_type": "f32"}).output
    y = b.add("Convolution", [x, constant(24, 3, 3, 3)], {"strides": (2, 2), **same}).output
    y = b.add("HSwish", [b.add("Add", [y, constant(1, 24, 1, 1)]).output]).output
    skip = y
    y = b.add("GroupConvolution", [y, constant(24, 1, 1, 3, 3)], {"strides": (1, 1), **same}).output
    mean = b.add("ReduceMean", [y, ints(2, 3)], {"keep_dims": True}).output
    y = b.add("Multiply", [y, b.add("Sigmoid", [mean]).output]).output
    y = b.add("Add", [y, skip]).output
    half = b.add("MaxPool", [y], {"kernel": (2, 2), "strides": (2, 2), "rounding_type": "ceil"}).outputs[0]
    scales = b.constant(np.array([2, 2], np.float32))
    attrs = {
        "mode": "nearest", "shape_calculation_mode": "scales", "nearest_mode": "floor",
        "coordinate_transformation_mode": "asymmetric",
    }  # fmt: skip
    wide = b.add("Interpolate", [half, scales, ints(2, 3)], attrs).output
    y = b.add("Concat", [half, b.add("MaxPool", [wide], {"kernel": (2, 2), "strides": (2, 2)}).outputs[0]],
              {"axis": 1}).output  # fmt: skip
    y = b.add("ReduceMean", [y, ints(2)], {"keep_dims": False}).output
    y = b.add("Transpose", [y, ints(0, 2, 1)]).output
    length = b.add("Gather", [b.add("ShapeOf", [y]).output, ints(1), ints(0)]).output
    y = b.add("MatMul", [y, constant(48, 144)]).output
    goal = b.add("Concat", [ints(0), length, ints(3, 4, 12)], {"axis": 0}).output
    y = b.add("Reshape", [y, goal], {"special_zero": True}).output
    parts = b.add("Split", [b.add("Transpose", [y, ints(2, 0, 3, 1, 4)]).output, b.constant(np.int64(0))],
                  {"num_splits": 3}).outputs  # fmt: skip
    q, k, v = (b.add("Squeeze", [part, ints(0)]).output for part in parts)
    scores = b.add("MatMul", [q, k], {"transpose_b": True}).output
    y = b.add("MatMul", [b.add("Softmax", [scores], {"axis": -1}).output, v]).output
    return b.finish([b.add("MatMul", [y, constant(12, 97)]).output])


def test_one_trace_serves_all_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    widths = [320, 96, 97, 98, 99, 100, 131, 160, 333, 640, 1000, 322, 48]
    sets = [[rng.standard_normal((1, 3, 32, w)).astype(np.float32)] for w in widths]
    executable = check(_recogniser(rng), sets, "recogniser")
    assert executable.program.traces.total == 1
    kernels = [s.kernel.name for s in executable.program.plan(((1, 3, 32, 320),)).steps]
    assert any("attention" in name for name in kernels)


def test_one_trace_serves_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    shapes = [(1, 320), (2, 320), (4, 320), (3, 340), (5, 400), (2, 350), (1, 330)]
    sets = [[rng.standard_normal((n, 3, 32, w)).astype(np.float32)] for n, w in shapes]
    executable = check(_recogniser(rng, ANY), sets, "recogniser")
    assert executable.program.traces.total == 1


def test_one_trace_turns_what_is_shorter_and_what_is_longer_than_the_other_dimension(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dimensions of one or two are not turned in blocks, which is a plan of its own; no other length is."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, b = np.random.default_rng(SEED), Builder()
    x = b.add("Parameter", (), {"shape": (2, ANY, 32), "element_type": "f32"}).output
    y = b.add("Transpose", [x, b.constant(np.array([0, 2, 1]))])
    sets = [[rng.standard_normal((2, n, 32)).astype(np.float32)] for n in (16, 33, 32, 31, 200, 3)]
    executable = check(b.finish([y.output]), sets, "transposed")
    assert executable.program.traces.total == 1
    assert "transpose" in executable.program.plan(((2, 16, 32),)).steps[0].kernel.name
    few = [[rng.standard_normal((2, n, 32)).astype(np.float32)] for n in (16, 2, 33)]
    assert check(b.finish([y.output]), few, "transposed").program.traces.total == 2


def test_one_trace_serves_halos_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, b = np.random.default_rng(SEED), Builder()

    def constant(*shape: int) -> Any:
        return b.constant((rng.standard_normal(shape) / 8).astype(np.float32))

    x = b.add("Parameter", (), {"shape": (ANY, 3, 4, ANY), "element_type": "f32"}).output
    attrs = {"strides": (1, 1), "dilations": (1, 1)}
    y = b.add("Convolution", [x, constant(64, 3, 1, 1)], {"pads_begin": (0, 0), "pads_end": (0, 0), **attrs})
    pads = {"pads_begin": (2, 2), "pads_end": (2, 2)}
    z = b.add("GroupConvolution", [y.output, constant(64, 1, 1, 5, 5)], {**pads, **attrs})
    shapes = [(1, 100), (1, 600), (2, 100), (1, 1100), (2, 600)]  # two rows, 64 channels: 65536 at 508
    sets = [[rng.standard_normal((n, 3, 4, w)).astype(np.float32)] for n, w in shapes]
    executable = check(b.finish([z.output]), sets, "halos")
    assert executable.program.traces.total == 1
    assert any(s.kernel.name.startswith("clear") for s in executable.program.plan(((1, 3, 4, 100),)).steps)


@pytest.mark.parametrize("mode", in_turn(list(resampling.MODES), 2))
def test_one_trace_serves_resizes_to_any_size(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their tables are made when the plan runs, and are what the reference has: planar data, a few channels
    and many, sizes and scales; every rule for coordinates and for what is nearest."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, resampling.MODES.index(mode)])
    for case in range(10):
        channels, last, by_scale = (3, 1, 33)[case % 3], bool(case % 2), case in (2, 5, 8)
        attrs = {
            "mode": mode, "shape_calculation_mode": "scales" if by_scale else "sizes",
            "coordinate_transformation_mode": resampling.COORDINATES[case % 5],
            "nearest_mode": resampling.NEAREST[(case + case // 5) % 5], "antialias": case % 4 == 1,
            "cube_coeff": -0.5, "pads_begin": (), "pads_end": (),
        }  # fmt: skip
        b = Builder()
        shape = (2, ANY, ANY, channels) if last else (2, channels, ANY, ANY)
        x = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
        like = b.add("Parameter", (), {"shape": (ANY, ANY), "element_type": "f32"}).output
        scales = rng.choice([0.4, 0.75, 1.3, 2.6], 2).astype(np.float32)
        goal = b.constant(scales) if by_scale else b.add("ShapeOf", [like], {"output_type": "i64"}).output
        axes = np.array([1, 2] if last else [2, 3])
        y = b.add(find_op("Interpolate", 11), [x, goal, b.constant(axes)], attrs).output
        tracing = compile_graph(b.finish([y]), {})
        for _ in range(4):
            h, w = (int(v) for v in rng.integers(3, 50, 2))
            sizes = h + rng.choice([-1, 1, 7, 30]), w + rng.choice([-2, 3, 20, 2 * w])
            given = rng.standard_normal((2, h, w, channels) if last else (2, channels, h, w), np.float32)
            (got,) = run(tracing, [given, np.zeros(sizes, np.float32)])
            wanted = (None, scales) if by_scale else (np.array(sizes), None)
            want = interpolate(given, *wanted, axes, attrs)
            where = f"case {case}: {attrs} {given.shape} to {scales if by_scale else sizes}"
            assert got.shape == want.shape, where
            off = 0 if mode == "nearest" else 2e-6
            np.testing.assert_allclose(got, want, rtol=0, atol=off, err_msg=where)
        # large outputs are divided otherwise; whether anything shrinks decides what is filtered
        assert tracing.program.traces.total <= 2 + attrs["antialias"], case


@pytest.mark.parametrize("sizes", [(7, 7), (6, 5), (3,), (2, 3, 2)])
def test_one_trace_serves_parts_of_any_image(sizes: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """AdaptiveAvgPool of open shapes: where its windows begin and end follows from the shape."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, b, pool = np.random.default_rng([SEED, *sizes]), Builder(), find_op("AdaptiveAvgPool", 8)
    open_dims = (ANY,) * len(sizes)
    x = b.add("Parameter", (), {"shape": (ANY, 16, *open_dims), "element_type": "f32"}).output
    executable = compile_graph(b.finish([b.add(pool, [x, b.constant(np.array(sizes))]).output]), {})
    for extents in ((40, 33, 11), (13, 20, 9), (14, 14, 14), (11, 10, 30), (17, 12, 8)):
        given = rng.standard_normal((2, 16, *extents[: len(sizes)])).astype(np.float32)
        (got,) = run(executable, [given])
        want = pool.ref(given.astype(np.float64), np.array(sizes))
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6, err_msg=f"{extents}")
    assert executable.program.traces.total <= 2, "parts are of one element, or of more"


def test_one_trace_serves_one_long_row_and_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """The elements of a sample are a row, which is cut for threads, whether there are other samples or not;
    from the first of them to the last one, at open lengths too."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    for rest in ((300, 500), (ANY, 500), (600, ANY)):
        b = Builder()
        shapes = ((first, *rest) for first in (ANY, 1))
        x, every = (b.add("Parameter", (), {"shape": s, "element_type": "f32"}).output for s in shapes)
        y = b.add("Tanh", [b.add("Add", [x, every]).output]).output
        sets = []
        for n, length in ((1, 300), (2, 350), (1, 400), (3, 300)):
            dims = [d if d is not ANY else length for d in rest]
            sets.append([rng.standard_normal((first, *dims), np.float32) for first in (n, 1)])
        executable = check(b.finish([y]), sets, f"{rest}")
        assert executable.program.traces.total == 1, rest
        plan = executable.program.plan(tuple(a.shape for a in sets[0]))
        assert plan.chunks.sum() > 1, rest


@pytest.mark.parametrize("softmax", [False, True])
def test_one_trace_serves_cells_of_any_image(softmax: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """RegionYolo of open shapes, flattened where classes are a softmax."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, b, yolo = np.random.default_rng(SEED), Builder(), find_op("RegionYolo", 1)
    attrs = {"coords": 4, "classes": 3, "num": 3, "mask": (0, 1, 2), "do_softmax": softmax, "axis": 1,
             "end_axis": 3, "anchors": ()}  # fmt: skip
    x = b.add("Parameter", (), {"shape": (ANY, 24, ANY, ANY), "element_type": "f32"}).output
    executable = compile_graph(b.finish([b.add(yolo, [x], attrs).output]), {})
    for n, height, width in ((2, 13, 13), (3, 5, 9), (2, 26, 20), (5, 8, 11)):
        given = rng.standard_normal((n, 24, height, width)).astype(np.float32)
        (got,) = run(executable, [given])
        want = yolo.ref(given.astype(np.float64), **attrs)
        assert got.shape == want.shape, given.shape
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6, err_msg=f"{given.shape}")
    assert executable.program.traces.total == 1


@pytest.mark.parametrize("odd", [0.0, np.inf])
@pytest.mark.parametrize("spatial", [2, 3])
def test_taps_that_meet_no_data_are_not_multiplied(
    spatial: int, odd: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first dimension of a window, where the image is open and turns out to be small: one trace serves
    all of those. Infinity counts in padding, too, so such weights are all multiplied."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    monkeypatch.setattr(cpu_winograd, "MOST_PLANES", {2: 0, 4: 0})
    rng, b = np.random.default_rng([SEED, spatial]), Builder()
    w = rng.standard_normal((64, 32, *(3,) * spatial)).astype(np.float32) / 16
    w.flat[5] = odd
    x = b.add("Parameter", (), {"shape": (1, 32, *(ANY,) * spatial), "element_type": "f32"}).output
    ones, pads = (1,) * spatial, (4, *(1,) * (spatial - 1))
    attrs = {"strides": ones, "pads_begin": pads, "pads_end": pads, "dilations": (4, *ones[1:]),
             "auto_pad": "explicit"}  # fmt: skip
    y = b.add("Convolution", [x, b.constant(w)], attrs).output
    executable = compile_graph(b.finish([y]), {})
    work = {}
    for first in (3, 2, 4, 9, 5, 1):
        # rows fill the tiles of each instruction set: regions of less would be multiplied together
        others = (28,) if spatial == 2 else (6, 6)
        given = rng.standard_normal((1, 32, first, *others)).astype(np.float32)
        (got,) = run(executable, [given])
        with np.errstate(invalid="ignore"):
            want = convolve(given.astype(np.float64), w[None].astype(np.float64), attrs)
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5, err_msg=f"extent {first}")
        plan = executable.program.plan((given.shape,))
        products = [i for i, step in enumerate(plan.steps) if step.kernel.name.startswith("conv")]
        work[first] = sum(plan.figures(i, 0) or plan.steps[i].flops for i in products)
    traces = "one of three taps has data; two have in the middle or one; extent 1; all taps"
    assert executable.program.traces.total <= 5, traces
    if odd == 0:  # (taps of the slices of an output)
        taps = {3: 3, 5: 2 + 3 * 1 + 2, 9: 4 * 2 + 1 * 3 + 4 * 2}
    else:
        taps = {3: 9, 5: 15, 9: 27}
    assert all(work[n] * taps[3] == work[3] * taps[n] for n in taps), work


@pytest.mark.parametrize("kind", some(["beside others", "lines", "images"], 2))
def test_borders_are_as_wide_as_taps_read_that_meet_data(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows spread wider than images are that are open. Those of lines, and of few rows, leave out columns;
    a concatenation's parts have the border that any of them needs."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, b = np.random.default_rng([SEED, len(kind)]), Builder()
    rank = 1 if kind == "lines" else 2
    x = b.add("Parameter", (), {"shape": (ANY, 32, *(ANY,) * rank), "element_type": "f32"}).output
    thin = {"strides": (1,) * rank, "auto_pad": "valid"}
    made = []
    for _ in range(2 if kind == "beside others" else 1):
        w = b.constant(rng.standard_normal((64, 32, *(1,) * rank)).astype(np.float32) / 6)
        made.append(b.add("Relu", [b.add("Convolution", [x, w], thin).output]).output)
    if kind == "beside others":
        made.append(b.add("Concat", made, {"axis": 1}).output)
    outputs = []
    for v, spread in zip(made * 3, (12, 36, 20), strict=False):
        w = b.constant(rng.standard_normal((64, v.shape[1], *(3,) * rank)).astype(np.float32) / 16)
        attrs = {"strides": (1,) * rank, "auto_pad": "explicit"}
        attrs |= dict.fromkeys(("dilations", "pads_begin", "pads_end"), (spread,) * rank)
        outputs.append(b.add("Convolution", [v, w], attrs).output)
    executable = compile_graph(graph := b.finish(outputs), {"threads": 1})
    for shape in ((2, 7, 8), (1, 9, 9), (1, 40, 41), (1, 5, 50), (2, 50, 5), (1, 12, 13), (1, 1, 1)):
        given = rng.standard_normal((shape[0], 32, *shape[3 - rank :])).astype(np.float32)
        for got, want in zip(run(executable, [given]), evaluate(graph, [given]), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-4, err_msg=f"{shape}, seed {SEED}")
    for size, bare in ((9, True), (30, kind == "lines"), (100, False)):
        plan = executable.program.plan(((1, 32, *(size,) * rank),))
        cleared = [step for step in plan.steps if step.kernel.name.startswith("clear")]
        assert not cleared if bare else cleared, size


@pytest.mark.parametrize("volumes", [False, True])
def test_open_batches_go_by_winograd(volumes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bands, where a batch is large: as many bands as the next power of two needs. Slices of volumes are
    images, beside which the window of the next layer reads a border."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    monkeypatch.setattr(cpu_winograd, "BAND", 400_000)
    rng, b = np.random.default_rng([SEED, volumes]), Builder()
    depth, flat = ((3,), (1,)) if volumes else ((), ())
    x = b.add("Parameter", (), {"shape": (ANY, 32, *depth, 26, 27), "element_type": "f32"}).output
    y = x
    for kernel, pads in (((*flat, 3, 3), (*(0,) * volumes, 1, 1)), ((*depth, 1, 1), (*flat, 0, 0))) * 2:
        w = b.constant(rng.standard_normal((32, 32, *kernel)).astype(np.float32) / 12)
        ones = (1,) * len(kernel)
        made = b.add("Convolution", [y, w], {"strides": ones, "dilations": ones, "pads_begin": pads,
                                             "pads_end": pads, "auto_pad": "explicit"}).output  # fmt: skip
        y = b.add("Relu", [b.add("Add", [made, y]).output]).output
    executable = compile_graph(graph := b.finish([y]), {"threads": 1})
    ways = [low for low in executable.program.lowerings if isinstance(low, cpu_winograd.Winograd)]
    assert len(ways) == 2
    for batch in (1, 2, 3, 7, 8, 5):
        given = rng.standard_normal((batch, 32, *depth, 26, 27)).astype(np.float32)
        (got,) = run(executable, [given])
        (want,) = evaluate(graph, [given])
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4, err_msg=f"batch {batch}, seed {SEED}")
    few, many = (len(executable.program.plan(((n, 32, *depth, 26, 27),)).steps) for n in (1, 8))
    assert many > few
    if not volumes:  # each of which has steps of its own
        assert executable.program.traces.total <= 4


def _decoder(caches: int = 2) -> Graph:
    """Attention of new tokens to past ones, with the mask and the positions worked out from shapes."""
    b = Builder()

    def ints(*values: int) -> Any:
        return b.constant(np.array(values, np.int64))

    def number(value: int) -> Any:
        return b.constant(np.array(value, np.int64))

    def size(x: Any, axis: int) -> Any:
        return b.add("Gather", [b.add("ShapeOf", [x]).output, number(axis), number(0)]).output

    x = b.add("Parameter", (), {"shape": (ANY, ANY, 32), "element_type": "f32"}).output
    past = [b.add("Parameter", (), {"shape": (ANY, 2, ANY, 16), "element_type": "f32"}).output
            for _ in range(caches)]  # fmt: skip
    outputs = []
    q = b.add("Transpose", [b.add("Reshape", [x, ints(0, 0, 2, 16)], {"special_zero": True}).output,
                            ints(0, 2, 1, 3)]).output  # fmt: skip
    before, new = size(past[0], 2), size(x, 1)
    whole = b.add("Add", [before, new]).output
    columns = b.add("Range", [number(0), whole, number(1)], {"output_type": "i64"}).output
    rows = b.add("Range", [before, whole, number(1)], {"output_type": "i64"}).output
    seen = b.add("LessEqual", [b.add("Unsqueeze", [columns, ints(0)]).output,
                               b.add("Unsqueeze", [rows, ints(1)]).output]).output  # fmt: skip
    mask = b.add("Select", [seen, b.constant(np.float32(0)), b.constant(np.float32(-1e9))]).output
    turns = b.add("Cos", [b.add("Convert", [rows], {"destination_type": "f32"}).output]).output
    q = b.add("Multiply", [q, b.add("Unsqueeze", [turns, ints(1)]).output]).output
    for cache in past:
        joined = b.add("Concat", [cache, q], {"axis": 2}).output
        outputs.append(joined)
        q = b.add("ScaledDotProductAttention", [q, joined, joined, mask]).output
    return b.finish([q, *outputs])


def test_one_trace_serves_growing_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)

    def arrays(batch: int, new: int, past: int) -> list[np.ndarray]:
        shapes = [(batch, new, 32), (batch, 2, past, 16), (batch, 2, past, 16)]
        return [rng.standard_normal(s).astype(np.float32) for s in shapes]

    steps = [arrays(1, 1, past) for past in (*range(30, 50), 100, 257, 600)]
    executable = check(_decoder(), steps, "decoder")
    assert executable.program.traces.total == 1
    others = [arrays(1, 7, 0), arrays(1, 9, 0), arrays(3, 1, 12), arrays(3, 1, 13), arrays(2, 5, 40)]
    check(_decoder(), others, "decoder")


def test_one_trace_serves_parts_that_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows for each of three matrices, one after the other: any of the parts may have none."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    b = Builder()
    x = b.add("Parameter", (), {"shape": (ANY, 8), "element_type": "f32"}).output
    ends = [b.constant(np.array([0]))]
    for _ in range(3):
        size = b.add("Parameter", (), {"shape": (0, ANY), "element_type": "u8"}).output
        shape = b.add("ShapeOf", [size]).output
        length = b.add("Gather", [shape, b.constant(np.array([1])), b.constant(np.array(0))]).output
        ends.append(b.add("Add", [ends[-1], length]).output)
    weights = [rng.standard_normal((8, 16)).astype(np.float32) for _ in range(3)]
    parts = []
    for first, last, weight in zip(ends, ends[1:], weights, strict=False):
        part = b.add("Slice", [x, first, last, *map(b.constant, (np.array([1]), np.array([0])))]).output
        product = b.add("MatMul", [part, b.constant(weight)], {"transpose_a": False, "transpose_b": False})
        parts.append(product.output)
    joined = b.add("Concat", parts, {"axis": 0}).output
    graph = b.finish([b.add("Relu", [joined]).output])
    steps, wanted = [], []
    for sizes in ((4, 3, 2), (4, 0, 5), (0, 0, 9), (9, 0, 0), (1, 7, 1), (0, 8, 1), (2, 1, 40), (0, 60, 1)):
        rows = rng.standard_normal((sum(sizes), 8)).astype(np.float32)
        steps.append([rows, *(np.zeros((0, n), np.uint8) for n in sizes)])
        cut = np.split(rows.astype(np.float64), np.cumsum(sizes)[:-1])
        wanted.append(np.maximum(np.concatenate([r @ w for r, w in zip(cut, weights, strict=True)]), 0))
    executable = check(graph, steps, "parts")
    assert executable.program.traces.total == 1
    for given, want in zip(steps, wanted, strict=True):
        np.testing.assert_allclose(run(executable, given)[0], want, atol=1e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("integer", some(["i32", "i64"], 1))
def test_shapes_of_either_integer(integer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arithmetic of shapes in 32 bits, as PyTorch models have it that OpenVINO has converted."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    graph = _arithmetic((ANY, ANY, ANY), integer)
    for shape in [(2, 3, 4), (2, 3, 5), (7, 1, 4), (9, 8, 7), (1, 1, 1)]:
        x = [rng.standard_normal(shape).astype(np.float32)]
        check(graph, [x], f"{integer} {shape}")
        want = run(compile_graph(_arithmetic(shape, integer), {}), x)
        for a, e in zip(run(compile_graph(graph, {}), x), want, strict=True):
            assert a.dtype == e.dtype and np.array_equal(a, e), f"{integer} {shape}"


@pytest.mark.parametrize("name", ["ScatterUpdate", "ScatterElementsUpdate", "ScatterNDUpdate"])
def test_one_trace_serves_what_is_scattered_into_shapes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A length that is written into a pattern, as converters of einsum do, stays a function of the length."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    b = Builder()
    x = b.add("Parameter", (), {"shape": (ANY, 4), "element_type": "f32"}).output
    length = b.add("Gather", [b.add("ShapeOf", [x]).output, *map(b.constant, (np.array([0]), np.array(0)))])
    rest = [] if name == "ScatterNDUpdate" else [b.constant(np.array(0))]
    at = b.constant(np.array([1]) if rest else np.array([[1]]))
    wide = b.add(name, [b.constant(np.array([3, 1, 1])), at, length.output, *rest], {}).output
    out = b.add("Broadcast", [x, wide], {"mode": "bidirectional"})
    rng = np.random.default_rng(SEED)
    steps = [[rng.standard_normal((n, 4)).astype(np.float32)] for n in (20, 21, 35, 40, 77)]
    executable = check(b.finish(out.outputs), steps, name)
    assert executable.program.traces.total == 1


def test_one_trace_serves_products_that_are_walked_in_two_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch dimensions that no operand's strides merge: the open one does not make the number of steps."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    b = Builder()
    x = b.add("Parameter", (), {"shape": (ANY, 3, 17, 4), "element_type": "f32"}).output
    y = b.add("Parameter", (), {"shape": (3, ANY, 4, 6), "element_type": "f32"}).output
    turned = b.add("Transpose", [y, b.constant(np.array([1, 0, 2, 3]))]).output
    product = b.add("MatMul", [x, turned], {"transpose_a": False, "transpose_b": False}).output
    graph = b.finish([b.add("Relu", [product]).output])
    rng = np.random.default_rng(SEED)
    steps = []
    for n in (16, 20, 21, 47, 64):
        shapes = (n, 3, 17, 4), (3, n, 4, 6)
        steps.append([rng.standard_normal(s).astype(np.float32) for s in shapes])
    executable = check(graph, steps, "products")
    assert executable.program.traces.total == 1
    for one, other in steps:
        want = np.maximum(one.astype(np.float64) @ other.transpose(1, 0, 2, 3), 0)
        np.testing.assert_allclose(run(executable, [one, other])[0], want, atol=1e-5, err_msg=f"seed {SEED}")


def _arithmetic(shape: Sequence[Any], integer: str) -> Graph:
    b = Builder()
    numpy_type = dtypes.numpy_dtype(integer)

    def ints(*values: int) -> Any:
        return b.constant(np.array(values, numpy_type))

    x = b.add("Parameter", (), {"shape": tuple(shape), "element_type": "f32"}).output
    extents = b.add("ShapeOf", [x], {"output_type": integer}).output
    seen: list[Any] = [extents]
    for name in ("ReduceProd", "ReduceSum", "ReduceMin", "ReduceMax"):
        seen.append(b.add(name, [extents, ints(0)], {"keep_dims": True}).output)
    for name in ("Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum", "FloorMod"):
        seen.append(b.add(name, [seen[1], seen[2]]).output)
    many = b.add("Greater", [seen[2], ints(20)]).output
    seen.append(b.add("Select", [many, seen[1], ints(-7)]).output)
    seen.append(b.add("Tile", [seen[3], ints(2)]).output)
    ones = b.constant(np.ones(3, numpy_type))
    seen.append(b.add("ScatterUpdate", [ones, ints(1), seen[1], ints(0)]).output)
    seen.append(b.add("ScatterElementsUpdate", [ones, ints(2), seen[1], ints(0)], {}).output)
    joined = b.add("Concat", seen, {"axis": 0}).output
    flat = b.add("Reshape", [x, b.add("Concat", [ints(1), seen[1]], {"axis": 0}).output]).output
    # how many there are depends on data, so that this model is planned in parts
    places = b.add("NonZero", [x], {"output_type": "i64"}).output
    return b.finish([joined, flat, places])


def test_released_memory_comes_back() -> None:
    """Arenas are given back between shapes; what a trace makes does not know them."""
    import ovjit as ov

    rng = np.random.default_rng(SEED)
    x = ov.opset13.parameter(ov.PartialShape([-1, 16]), np.float32)
    w = ov.opset13.constant(rng.standard_normal((16, 16)).astype(np.float32))
    y = ov.opset13.softmax(ov.opset13.matmul(x, w, False, False), 1)
    compiled = ov.Core().compile_model(ov.Model([y], [x], "m"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    want = {}
    for n in (3, 900, 5, 64, 900, 3, 2000):
        data = np.linspace(-1, 1, n * 16, dtype=np.float32).reshape(n, 16)
        got = np.array(compiled(data)[0])
        want.setdefault(n, got)
        np.testing.assert_array_equal(got, want[n])
        compiled.release_memory()


# --- equal layers


def branches(count: int) -> Graph:
    """softmax(relu(a_i) w_i) + a_i for `count` inputs a_i of any number of rows."""
    rng, builder, outputs, inputs = np.random.default_rng(SEED), Builder(), [], []
    for i in range(count):
        a = builder.add("Parameter", (), {"shape": (ANY, 32), "element_type": "f32"}, name=f"a{i}").output
        w = builder.constant(rng.normal(size=(32, 32)).astype(np.float32))
        product = builder.add("MatMul", [builder.add("Relu", [a]).output, w], {}).output
        weighed = builder.add("Softmax", [product], {"axis": 1}).output
        outputs.append(builder.add("Add", [weighed, a]).output)
        inputs.append(a)
    return builder.finish(outputs, inputs)


def test_equal_layers_are_traced_once() -> None:
    """Each more of them adds the guard that its input is as long as the first one's, and nothing else."""
    traces = []
    for count in (2, 7):
        executable = compile_graph(branches(count), {})
        run(executable, [np.ones((5, 32), np.float32)] * count)
        assert executable.program.traces is not None
        traces += executable.program.traces
    few, many = (len(trace.rows) for trace in traces)
    sums = sum(int(what) == traced.ADD for what, *_ in traces[1].rows.tolist())
    assert many - few <= 5 + sums, f"{few} rows for 2 layers, {many} for 7"


def test_types_of_layers_of_other_weights_are_inferred_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inferred: list[str] = []
    real = concrete_types.infer_values

    def infer(node: Any, inputs: Any) -> Any:
        inferred.append(node.op.name)
        return real(node, inputs)

    monkeypatch.setattr(concrete_types, "infer_values", infer)
    graph = branches(6)
    types = concrete_types.concrete_types(graph, [(5, 32)] * 6)
    assert sorted(inferred) == ["Add", "MatMul", "Relu", "Softmax"]
    monkeypatch.undo()
    weights = [v for n in graph.nodes if n.op.name == "Constant" for v in n.outputs]
    assert all(types[v].value is v.constant for v in weights)  # plans read them as ever


def test_inputs_that_were_alike_may_differ() -> None:
    """A trace for equal lengths serves no others; one for others is made, and both go on serving."""
    graph, rng = branches(2), np.random.default_rng(SEED)
    sets = [[rng.normal(size=(n, 32)).astype(np.float32) for n in pair]
            for pair in ((3, 3), (9, 9), (5, 9), (9, 5), (7, 8), (6, 6), (12, 2), (1, 1))]  # fmt: skip
    executable = check(graph, sets, f"seed {SEED}")
    traces = executable.program.traces
    assert traces is not None
    made = traces.total
    for lengths in ((10, 10), (11, 4)):
        run(executable, [rng.normal(size=(n, 32)).astype(np.float32) for n in lengths])
    assert traces.total == made


def test_memory_serves_what_fits_and_fills_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which memory plan serves is what the rule says in NumPy: all buffers fit, and enough of it is used."""
    monkeypatch.setattr(parametric, "LEAST_SPARE", 64)
    executable = compile_graph(branches(2), {})
    rng = np.random.default_rng(SEED)
    chosen = 0
    for trial, count in enumerate(rng.integers(2, 400, 60).tolist()):
        program = executable.program
        before = next(iter(program.traces))._memories if trial else ()
        plan = program.plan(((count, 32),) * 2)
        trace = plan.trace
        sizes = plan.block.base[trace.sizes]

        def fits(memory: Any, sizes: np.ndarray = sizes, trace: Any = trace) -> bool:
            roomy = sizes + np.where(trace.grows, np.maximum(sizes * parametric.SPARE // 8, 64), 0)
            return bool((sizes <= memory.room).all()) and roomy.sum() >= memory.room.sum() / 2

        want = next(filter(fits, before), None)
        if want is None:
            assert plan.arena not in before and fits(plan.arena), f"trial {trial}: {count} rows"
        else:
            assert plan.arena is want, f"trial {trial}: {count} rows"
            chosen += want is not before[0]
    assert chosen, "no memory but the newest has served"


def test_extents_of_more_than_64_bits_are_no_plan() -> None:
    executable = compile_graph(branches(1), {})
    plan = executable.program.plan(((3, 32),))
    for extent in (1 << 56, (1 << 63) - 1, 1 << 63, 1 << 80):
        assert plan.trace.at(((extent, 32),)) is None, extent
    assert plan.trace.at(((5, 32),)).output_shapes == [(5, 32)]


def lengths_as_reals(kind: str) -> Any:
    """x of [1, ?, 8]: its sum over the square root of its length, and that length; the first half of it; it
    and a scale that an operation wants as a constant."""
    x = ops.parameter(ov.PartialShape([1, -1, 8]), np.float32, name="x")
    zero, one = ops.constant(np.array([0], np.int64)), ops.constant(np.array([1], np.int64))
    length = ops.convert(ops.gather(ops.shape_of(x, "i64"), one, zero), "f32")
    if kind == "data":
        return ov.Model([ops.divide(ops.reduce_sum(x, one, True), ops.sqrt(length)), length], [x], kind)
    half = ops.convert(ops.floor(ops.multiply(length, ops.constant(np.float32(0.5)))), "i64")
    if kind == "shape":
        return ov.Model([ops.slice(ops.relu(x), zero, half, one, one)], [x], kind)
    ratio = ops.divide(length, ops.add(length, length))
    y = ops.interpolate(ops.relu(x), ratio, "nearest", "scales", axes=one)
    return ov.Model([y], [x], kind)


@pytest.mark.parametrize("kind", ["data", "shape", "constant"])
def test_reals_made_of_lengths(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are computed by kernels, and one plan serves all lengths, unless shapes follow from them."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(lengths_as_reals(kind), "CPU", config)
    rng = np.random.default_rng(SEED)
    for count in (6, 10, 8, 32, 2):
        x = rng.standard_normal((1, count, 8)).astype(np.float32)
        got = list(compiled(x).values())
        if kind == "data":
            want = [x.sum(1, keepdims=True, dtype=np.float64) / np.sqrt(count), np.array([count])]
        elif kind == "shape":
            want = [np.maximum(x, 0)[:, : count // 2]]
        else:
            want = [np.maximum(x, 0)[:, ::2]]
        for a, b in zip(got, want, strict=True):
            assert a.shape == b.shape, (kind, count)
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=f"{SEED}: {kind}, {count}")
    traces = compiled._executable.program.traces
    assert (traces.total == 1) == (kind == "data") and not traces.refused


@pytest.mark.parametrize("seed", (0, 7))
def test_one_trace_serves_random_numbers_of_any_shape(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a seed each inference draws the same numbers, without one none draws those of another."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    x = ops.parameter(ov.PartialShape([-1, 5]), np.float32)
    ends = ops.constant(np.float32(-2)), ops.constant(np.float32(3))
    drawn = [ops.random_uniform(ops.shape_of(x), *ends, "f32", 0, seed) for _ in range(2)]
    compiled = ov.compile_model(ov.Model(drawn, [x]), "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    longest = np.zeros((0, 5), np.float32)
    for n in (400, 3, 0, 70, 1000, 999):
        made = [np.array(a) for a in request.infer([np.zeros((n, 5), np.float32)]).to_dict().values()]
        assert all(a.shape == (n, 5) and (a >= -2).all() and (a < 3).all() for a in made)
        few = min(n, len(longest))
        assert few == 0 or np.array_equal(made[0][:few], longest[:few]) == (seed != 0), n
        assert n == 0 or np.array_equal(*made) == (seed != 0), n
        longest = max(longest, made[0], key=len)
    assert abs(longest.mean() - 0.5) < 0.1 and abs(longest.std() - 5 / 12**0.5) < 0.1
    rows = request.get_profiling_info()
    assert {row.exec_type for row in rows} <= {"uniform_f32", "seeds_of_now"}, rows
    assert request._job.executable.program.traces.total <= 2


#: Operation, attributes, inputs as functions of a batch, rows and columns.
_REARRANGED: dict[str, tuple[dict[str, Any], Any]] = {
    "NV12toRGB": ({}, lambda n, h, w: [(n, 3 * h, 4 * w, 1)]),
    "NV12toBGR": ({}, lambda n, h, w: [(n, 2 * h, 2 * w, 1), (n, h, w, 2)]),
    "I420toRGB": ({}, lambda n, h, w: [(n, 6 * h, 2 * w, 1)]),
    "RGBtoNV12": ({"single_plane": True}, lambda n, h, w: [(n, 2 * h, 2 * w, 3)]),
    "ReorgYolo": ({"stride": (2,)}, lambda n, h, w: [(n, 8, 2 * h, 2 * w)]),
    "ReverseSequence": ({"batch_axis": 1, "seq_axis": 0}, lambda n, h, w: [(h, n, w), (n,)]),
    "ExtractImagePatches": (
        {"sizes": (3, 2), "strides": (2, 1), "rates": (1, 2), "auto_pad": "same_upper"},
        lambda n, h, w: [(n, 3, h, w)],
    ),
    "BinaryConvolution": (
        {"strides": (1, 2), "pads_begin": (1, 0), "pads_end": (1, 1), "dilations": (1, 1),
         "mode": "xnor-popcount", "pad_value": 1.0},
        lambda n, h, w: [(n, 3, h, w)],
    ),
    "RegionYolo": (
        {"coords": 4, "classes": 3, "num": 2, "do_softmax": True, "mask": (), "axis": 1, "end_axis": 2},
        lambda n, h, w: [(n, 16, h, w)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", in_turn(list(_REARRANGED), 2))
def test_few_traces_serve_what_is_expanded_for_open_shapes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    attrs, shapes = _REARRANGED[name]
    record, rng, b = find_op(name), np.random.default_rng(SEED), Builder()
    attrs = record.check_attributes(attrs)
    values = [
        b.add("Parameter", (), {"shape": shape, "element_type": "f32" if shape[1:] else "i64"})
        for shape in shapes(ANY, ANY, ANY)
    ]
    fixed = [rng.standard_normal((4, 3, 3, 3)).astype(np.float32)] if name == "BinaryConvolution" else []
    every = [*(v.output for v in values), *map(b.constant, fixed)]
    executable = compile_graph(b.finish(b.add(record, every, attrs).outputs), {})
    for n, h, w in ((2, 9, 12), (3, 20, 14), (5, 33, 40), (2, 8, 70), (0, 9, 9), (1, 10, 11)):
        given = [
            rng.uniform(0, 255, shape).astype(np.float32) if len(shape) > 1 else rng.integers(0, h + 1, shape)
            for shape in shapes(n, h, w)
        ]
        (got,), (want,) = run(executable, given), record.evaluate([*given, *fixed], attrs)
        assert got.shape == want.shape, f"{name} of {n}, {h}, {w}"
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-4, err_msg=f"{name} of {n}, {h}, {w}")
    assert executable.program.traces.total <= 2 + 2, "no images and one are planned otherwise than several"
    assert not executable.program.traces.refused


@pytest.mark.parametrize("bins", (9, ANY))
@pytest.mark.parametrize("wanted", some((0, 100, 37), 2))
def test_few_traces_serve_any_number_of_frames(
    wanted: int, bins: Dim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ISTFT of open frames, with a length that is asked for: cut off, or filled up with zeros."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    record, rng, b = find_op("ISTFT"), np.random.default_rng(SEED), Builder()
    x = b.add("Parameter", (), {"shape": (2, bins, ANY, 2), "element_type": "f32"}).output
    window = np.hanning(17)[1:].astype(np.float32)
    numbers = [np.array(n, np.int64) for n in (16, 5, *([wanted] if wanted else []))]
    attrs = record.check_attributes({"center": bool(wanted), "normalized": False})
    values = [b.constant(a) for a in (window, *numbers)]
    executable = compile_graph(b.finish([b.add(record, [x, *values], attrs).output]), {})
    for frames in (7, 9, 30, 8, 22, 0, 25, 12, 40, 10, 33):
        data = rng.standard_normal((2, 9, frames, 2)).astype(np.float32)
        ((got,), (want,)) = run(executable, [data]), record.evaluate([data, window, *numbers], attrs)
        assert got.shape == want.shape, frames
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5, err_msg=f"{frames} frames")
    assert executable.program.traces.total <= 4 and not executable.program.traces.refused


@pytest.mark.parametrize("stop", some((-(2**63), 1 - 2**63, -(2**60), -(2**31)), 2))
def test_one_trace_serves_what_is_reversed_to_the_start(stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporters reverse an axis by a Slice to the smallest integer, whose sum with an extent has no trace."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, b = np.random.default_rng(SEED), Builder()
    x = b.add("Parameter", (), {"shape": (2, ANY), "element_type": "f32"}).output
    cut = b.add("Slice", [x, *(b.constant(np.array([n])) for n in (-1, stop, -1, 1))]).output
    joined = b.add("Concat", [cut, x], {"axis": 1}).output
    sets = [[rng.standard_normal((2, n)).astype(np.float32)] for n in (16, 33, 200, 64)]
    executable = check(b.finish([joined]), sets, f"to {stop}")
    assert executable.program.traces.total == 1
    for (data,) in sets:
        np.testing.assert_array_equal(run(executable, [data])[0], np.concatenate([data[:, ::-1], data], 1))


def _running_sums(lengths: int) -> Graph:
    """A TensorIterator over the first axis of `lengths` inputs [length, 2, 4]: sums of all before."""
    model, b = Builder(), Builder()
    shape = {"shape": (1, 2, 4), "element_type": "f32"}
    total, *parts = (b.add("Parameter", (), shape).output for _ in range(lengths + 1))
    for part in parts:
        total = b.add("Add", [total, part]).output
    body = b.finish([total])
    inputs = [
        model.add("Parameter", (), {"shape": (ANY, 2, 4), "element_type": "f32"}).output
        for _ in range(lengths)
    ]
    start = model.add("Parameter", (), shape).output
    sliced = [Port(SLICED, i, i + 1) for i in range(lengths)]
    attrs = {
        "body": body,
        "input_ports": (*sliced, Port(MERGED, lengths, 0, back=0)),
        "output_ports": (Port(CONCAT, 0, 0),),
    }
    return model.finish(model.add("TensorIterator", [*inputs, start], attrs).outputs)


@pytest.mark.parametrize("lengths", [1, 2])
def test_one_trace_serves_any_number_of_iterations(lengths: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, sets, wanted = np.random.default_rng(SEED), [], []
    for count in (7, 12, 30, 4):
        parts = [rng.standard_normal((count, 2, 4)).astype(np.float32) for _ in range(lengths)]
        start = rng.standard_normal((1, 2, 4)).astype(np.float32)
        sets.append([*parts, start])
        wanted.append(start + np.cumsum(sum(part.astype(np.float64) for part in parts), 0))
    executable = check(_running_sums(lengths), sets, "sums")
    assert executable.program.traces.total == 1
    for given, want in zip(sets, wanted, strict=True):
        np.testing.assert_allclose(run(executable, given)[0], want, atol=1e-4, err_msg=f"seed {SEED}")
