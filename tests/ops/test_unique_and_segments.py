"""Unique and SegmentMax natively: numbers that are none, both zeros, open lengths, segments that fall."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.errors import InferenceError
from ovjit.graph.graph import Builder
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import ANY
from ovjit_ops.indexing.cpu_unique import FEW
from tests.support.graph_nets import add, parameter
from tests.support.op_samples import SEED
from tests.support.run import run, run_job
from tests.support.sweeps import in_turn, some

KINDS = [np.float32, np.float64, np.float16, np.int8, np.int32, np.int64, np.uint32, np.uint64, np.bool_]


def numbers(rng: np.random.Generator, kind: type, many: int) -> np.ndarray:
    x = rng.integers(0, 2 if kind is np.bool_ else 50, many).astype(kind)
    if x.dtype.kind == "f":
        x -= kind(20)
        for value in (np.nan, -0.0, np.inf, -np.inf):
            x[rng.random(many) < 0.1] = value
    if x.dtype.kind == "i":
        x -= kind(20)
    if x.dtype.kind in "iu":  # far apart, so that all bits count
        x *= kind(np.iinfo(kind).max // 64)
    return x


@pytest.mark.parametrize("kind", in_turn(list(KINDS), 2))
def test_unique_of_special_numbers(kind: type) -> None:
    """Beside NumPy's, at lengths that are open: all four lists, in rising order and as they come."""
    rng = np.random.default_rng(SEED)
    b = Builder()
    x = parameter(b, np.zeros(1, kind), (ANY,))
    made = [
        b.add("Unique", (x,), {"sorted": order, "index_element_type": "i32", "count_element_type": "i64"})
        for order in (True, False)
    ]
    graph = b.finish(v for node in made for v in node.outputs)
    executable = compile_graph(graph, {"threads": 1})
    for many in (1, 5, 0, 33, 400):
        data = numbers(rng, kind, many)
        expected = evaluate(graph, [data])
        for i, (got, want) in enumerate(zip(run(executable, [data]), expected, strict=True)):
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want, err_msg=f"seed {SEED}: output {i} of {many}")


@pytest.mark.parametrize("kind", in_turn([np.float32, np.float64, np.int16, np.uint64], 2))
def test_unique_of_few_and_more_kinds(kind: type) -> None:
    """Few are grouped by a table, more are sorted: beside NumPy's on both sides of the bound."""
    rng = np.random.default_rng(SEED)
    b = Builder()
    x = parameter(b, np.zeros(1, kind), (ANY,))
    attrs = {"index_element_type": "i64", "count_element_type": "i32"}
    made = [b.add("Unique", (x,), {"sorted": order, **attrs}) for order in (True, False)]
    graph = b.finish(v for node in made for v in node.outputs)
    executable = compile_graph(graph, {"threads": 1})
    for kinds in (2, FEW - 1, FEW, FEW + 1, 4 * FEW):
        data = np.repeat(np.arange(kinds) - kinds // 3 * (np.dtype(kind).kind != "u"), 3).astype(kind)
        data *= kind(100)
        rng.shuffle(data)
        for i, (got, want) in enumerate(zip(run(executable, [data]), evaluate(graph, [data]), strict=True)):
            np.testing.assert_array_equal(got, want, err_msg=f"seed {SEED}: output {i} of {kinds} kinds")


@pytest.mark.parametrize("kind", some(KINDS, 5))
def test_unique_slices(kind: type) -> None:
    """Beside NumPy's, along each axis of open shapes, without the host; slices with NaN are all different."""
    rng = np.random.default_rng(SEED)
    for case, shape in enumerate([(90, 2), (3, 200), (7, 1), (2, 5, 4), (40, 2, 1)]):
        axis, index = int(rng.integers(0, len(shape))), ("i32", "i64")[case & 1]
        attrs = {"sorted": case != 1, "index_element_type": index, "count_element_type": "i64"}
        b = Builder()
        x = parameter(b, np.zeros(1, kind), (ANY,) * len(shape))
        node = b.add("Unique", (x, b.constant(np.array(axis - len(shape)))), attrs)
        graph = b.finish(node.outputs)
        data = rng.integers(0, 2, shape).astype(kind)
        if data.dtype.kind in "if":
            data -= kind(1)
        if data.dtype.kind == "f":
            data = np.where(data == 0, rng.choice([0.0, -0.0], shape), data).astype(kind)
            data.reshape(-1)[:: 5 if case == 1 else data.size + 1] = np.nan if case == 1 else 1
        job = compile_graph(graph, {"threads": 1, "profiling": True}).new_job()
        run_job(job, [data])
        assert not [row for row in job.profile() if row.exec_type == "ref_numpy"]
        for i, (got, want) in enumerate(zip(job.outputs, evaluate(graph, [data]), strict=True)):
            np.testing.assert_array_equal(got, want, err_msg=f"seed {SEED}: {shape} {axis}, output {i}")


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((8, 0), 0), ((0, 8), 1), ((8, 0), 1), ((0, 8), 0)], ids=str)
def test_unique_slices_of_nothing(shape: tuple[int, int], axis: int, closed: bool) -> None:
    """They are equal: one of eight, where there are any, whether that is known before or not."""
    b = Builder()
    x = parameter(b, np.zeros(1, np.float32), shape if closed else (ANY, ANY))
    attrs = {"sorted": True, "index_element_type": "i32", "count_element_type": "i64"}
    graph = b.finish(b.add("Unique", (x, b.constant(np.array(axis))), attrs).outputs)
    job = compile_graph(graph, {"threads": 1}).new_job()
    data = np.zeros(shape, np.float32)
    run_job(job, [data])
    many = int(shape[axis] > 0)
    for found in (job.outputs, evaluate(graph, [data])):
        values, first, inverse, counts = found
        assert values.shape == tuple(many if a == axis else e for a, e in enumerate(shape))
        assert first.tolist() == [0] * many
        assert inverse.tolist() == [0] * shape[axis]
        assert counts.tolist() == [8] * many


def test_unique_is_native() -> None:
    b = Builder()
    graph = b.finish([add(b, "Unique", parameter(b, np.ones(9, np.float32)))])
    job = compile_graph(graph, {"threads": 1, "profiling": True}).new_job()
    run_job(job, [np.ones(9, np.float32)])
    assert any(row.exec_type.startswith("unique_f32") for row in job.profile())


def segments(ids: list[int], many: int, data: np.ndarray, mode: str = "lowest") -> np.ndarray:
    b = Builder()
    x, numbers = parameter(b, data), np.array(ids, np.int32)
    given = parameter(b, numbers)
    graph = b.finish([add(b, "SegmentMax", x, given, np.int32(many), fill_mode=mode)])
    executable = compile_graph(graph, {"threads": 2})
    assert not executable.table((data.shape, numbers.shape)).host
    (got,) = run(executable, [data, numbers])
    np.testing.assert_array_equal(got, evaluate(graph, [data, numbers])[0], err_msg=f"{ids} {many} {mode}")
    return got


def test_segments_at_their_edges() -> None:
    rng = np.random.default_rng(SEED)
    data = rng.standard_normal((6, 19)).astype(np.float32)
    data[1, 3], data[2, 4], data[:, 5] = np.nan, np.inf, -np.inf
    for mode in ("zero", "lowest"):
        assert np.isnan(segments([0, 0, 0, 2, 2, 5], 6, data, mode)[0, 3])
        segments([0, 0, 3, 4, 9, 9], 4, data, mode)  # what lies behind the last one counts for nothing
        segments([2, 2, 2, 2, 2, 2], 9, data, mode)
        assert segments([0, 1, 2, 3, 4, 5], 0, data, mode).shape == (0, 19)
        segments([], 3, data[:0], mode)


@pytest.mark.parametrize("ids", [[0, 2, 1], [-1, 0, 1]])
@pytest.mark.parametrize("many", [0, 3])
def test_segments_that_fall_are_an_error(ids: list[int], many: int) -> None:
    with pytest.raises(InferenceError):
        segments(ids, many, np.ones((3, 4), np.float32))


def test_searches_of_any_types() -> None:
    """Bucketize of data and bounds of different types and SearchSorted of each, without the host."""
    rng = np.random.default_rng(SEED)
    kinds = [*(k for k in KINDS if k is not np.bool_), np.uint8, np.int16]
    for case in range(40):
        first, second = (kinds[int(i)] for i in rng.integers(0, len(kinds), 2))
        name, second = ("Bucketize", second) if case & 1 else ("SearchSorted", first)
        values = (rng.permutation(100)[:33]).astype(first)
        bounds = np.sort(rng.integers(0, 100, (5, 300)[case & 2 > 0])).astype(second)
        if first is second is np.uint64:  # of which half are negative as int64
            values, bounds = values << np.uint64(57), np.sort(bounds << np.uint64(57))
        given = [values, bounds] if case & 1 else [bounds, values]
        b = Builder()
        attrs = {"with_right_bound": case & 4 > 0} if case & 1 else {"right_mode": case & 4 > 0}
        graph = b.finish([add(b, name, *(parameter(b, x) for x in given), **attrs)])
        job = compile_graph(graph, {"threads": 1, "profiling": True}).new_job()
        run_job(job, given)
        where = f"seed {SEED}: {name} {first} {second}"
        assert not [row for row in job.profile() if row.exec_type == "ref_numpy"], where
        np.testing.assert_array_equal(job.outputs[0], evaluate(graph, given)[0], err_msg=where)
