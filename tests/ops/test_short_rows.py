"""Reductions and softmax of short rows, elements by indices, and scans of f16."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.codegen.cpu.host import host_target
from ovjit.engine import compile_graph
from ovjit.errors import InferenceError
from ovjit.graph.graph import Builder
from ovjit.graph.interp import evaluate
from tests.support.graph_nets import add, parameter
from tests.support.op_samples import SEED
from tests.support.run import run
from tests.support.sweeps import some

REDUCTIONS = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceProd", "ReduceL2"]


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("kind", some([np.float32, np.float16, np.int32, np.int64, np.uint8], 2))
def test_short_rows_fill_vectors(name: str, kind: type) -> None:
    rng = np.random.default_rng(SEED)
    if name == "ReduceL2" and np.dtype(kind).kind != "f":
        return
    for shape, axes, fused in (
        ((64, 49, 3), (1,), False), ((40, 50, 3), (0, 1), True), ((1, 32, 32, 4), (1, 2), False),
        ((60, 1, 2), (0,), True), ((6, 36, 5), (1,), False),
    ):  # fmt: skip
        data = (rng.standard_normal(shape) + 1).astype(kind) if np.dtype(kind).kind == "f" else None
        data = rng.integers(0, 3, shape).astype(kind) if data is None else data
        if name == "ReduceProd" and data.dtype.kind == "f":
            data = (1 + data / 64).astype(kind)
        b = Builder()
        x = parameter(b, data)
        value = add(b, "Relu", add(b, "Add", x, np.array(1, kind))) if fused else x
        result = add(b, name, value, np.array(axes), keep_dims=False)
        graph = b.finish([add(b, "Multiply", result, np.array(2, kind)) if fused else result])
        executable = compile_graph(graph, {"threads": 2})
        steps = [s for s in executable.table((shape,)).plan.steps if s.kernel is not None]
        names = [s.kernel.name for s in steps]
        # two steps where a vector has room for two rows
        expected = 2 if 2 * shape[-1] <= host_target().lanes else 1
        assert sum("reduce" in name for name in names) == expected, (shape, names)
        got, want = run(executable, [data])[0], evaluate(graph, [data])[0]
        if got.dtype.kind == "f":
            close = {"rtol": 3e-3 if kind is np.float16 else 2e-5}
            np.testing.assert_allclose(got, want, err_msg=f"{name} {shape} seed {SEED}", **close)
        else:
            np.testing.assert_array_equal(got, want, err_msg=f"{name} {shape} seed {SEED}")


def test_rows_of_no_or_a_prime_number_are_reduced_in_one_step() -> None:
    for shape in ((97, 3), (0, 3), (5, 0), (12, 0, 3)):
        data = np.ones(shape, np.float32)
        b = Builder()
        graph = b.finish([add(b, "ReduceSum", parameter(b, data), np.array([0]), keep_dims=False)])
        executable = compile_graph(graph, {"threads": 1})
        np.testing.assert_array_equal(run(executable, [data])[0], data.sum(0))


@pytest.mark.parametrize("kind", [np.uint8, np.float16, np.int16])
def test_short_elements_by_indices(kind: type) -> None:
    rng = np.random.default_rng(SEED)
    for count, many in ((1000, 333), (5, 40), (3, 1)):
        data = rng.integers(0, 100, count).astype(kind)
        indices = rng.integers(-count, count, many)
        indices[rng.random(many) < 0.2] = count + 3  # gives 0
        b = Builder()
        graph = b.finish([add(b, "Gather", parameter(b, data), parameter(b, indices), np.array(0))])
        executable = compile_graph(graph, {"threads": 1})
        want = np.where(indices < count, data[np.minimum(indices, count - 1)], 0)
        np.testing.assert_array_equal(run(executable, [data, indices])[0], want, err_msg=f"seed {SEED}")


def test_scans_of_f16() -> None:
    rng = np.random.default_rng(SEED)
    for shape, axis in (((1000,), 0), ((3, 37), 1), ((5, 1), 1), ((2, 8, 33), 2)):
        data = rng.integers(-3, 4, shape).astype(np.float16)
        for exclusive in (False, True):
            for reverse in (False, True):
                b = Builder()
                attrs = {"exclusive": exclusive, "reverse": reverse}
                graph = b.finish([add(b, "CumSum", parameter(b, data), np.array(axis), **attrs)])
                got = run(compile_graph(graph, {"threads": 1}), [data])[0]
                np.testing.assert_array_equal(got, evaluate(graph, [data])[0], err_msg=f"{shape} {attrs}")


@pytest.mark.parametrize("kind", some([np.float32, np.int64, np.float64], 2))
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_rows_shorter_than_a_vector_by_indices(kind: type, index: type) -> None:
    """Along the last dimension, the same indices for all rows or others for each; rows of few elements; more
    rows than an item has, and rests of vectors. Of Gather, indices out of range are zeros."""
    rng = np.random.default_rng(SEED)
    for shape, axis, count in (
        ((300, 4), 1, 3),
        ((7, 5), 1, 16),
        ((2, 3, 270, 1), 2, 261),
        ((90, 2, 5), 0, 77),
    ):
        data = rng.integers(-99, 99, shape).astype(kind)
        given = rng.integers(-shape[axis], shape[axis], count).astype(index)
        wanted = data.take(given % shape[axis], axis)
        bad = given.copy()
        bad[[0, -1]] = shape[axis], -shape[axis] - 1
        of_bad = data.take(bad % shape[axis], axis)
        np.moveaxis(of_bad, axis, 0)[[0, -1]] = 0
        for indices, want in ((given, wanted), (bad, of_bad)):
            b = Builder()
            graph = b.finish([add(b, "Gather", parameter(b, data), parameter(b, indices), np.array(axis))])
            executable = compile_graph(graph, {"threads": 2})
            np.testing.assert_array_equal(run(executable, [data, indices])[0], want, f"{shape} seed {SEED}")
    data, each = rng.standard_normal((67, 9)).astype(kind), rng.integers(-9, 9, (67, 5)).astype(index)
    b = Builder()
    graph = b.finish([add(b, "GatherElements", parameter(b, data), parameter(b, each), axis=1)])
    executable = compile_graph(graph, {"threads": 1})
    np.testing.assert_array_equal(run(executable, [data, each])[0], np.take_along_axis(data, each % 9, 1))
    each[66, 4] = 9
    with pytest.raises(InferenceError, match="out of range"):
        run(executable, [data, each])


@pytest.mark.skipif(host_target().lanes < 8, reason="no instruction that gathers")
def test_short_rows_are_gathered_together() -> None:
    data, order = np.zeros((50, 4), np.float32), np.array([1, 0, 3])
    b = Builder()
    graph = b.finish([add(b, "Gather", parameter(b, data), parameter(b, order), np.array(1))])
    steps = compile_graph(graph, {"threads": 1}).table(((50, 4), (3,))).plan.steps
    assert [s.kernel.name for s in steps] == ["indexed_rows_i32_i64_zeros"], steps


@pytest.mark.skipif(host_target().lanes < 8, reason="no instruction that gathers")
@pytest.mark.parametrize(
    ("tail", "kernel"), [((8, 4, 2), "gather_i64_i32"), ((2, 2), "indexed_rows_i32_i64")]
)
@pytest.mark.parametrize("name", ["Gather", "GatherND"])
def test_rows_of_several_dimensions_are_one_row(tail: tuple[int, ...], kernel: str, name: str) -> None:
    """Of more elements than a vector has, they are not cut into short ones."""
    rng = np.random.default_rng(SEED)
    data, order = rng.standard_normal((50, *tail)).astype(np.float32), rng.integers(0, 50, 300)
    b = Builder()
    x, more = parameter(b, data), [np.array(0)] if name == "Gather" else []
    places = order if name == "Gather" else order[:, None]
    executable = compile_graph(b.finish([add(b, name, x, parameter(b, places), *more)]), {"threads": 1})
    np.testing.assert_array_equal(run(executable, [data, places])[0], data[order], err_msg=f"seed {SEED}")
    (step,) = executable.table((data.shape, places.shape)).plan.steps
    assert step.kernel.name.removesuffix("_zeros") == kernel


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
def test_softmax_across_rows_with_neighbours(name: str, kind: type) -> None:
    """What could be fused into rows one by one is apart: short rows, and those along other dimensions, are
    side by side."""
    rng = np.random.default_rng(SEED)
    for shape, axis in (((3, 5, 7, 9), 1), ((60, 33), 0), ((2, 40, 20), 1), ((90, 7), 1), ((5, 40, 4), 2)):
        data = rng.standard_normal(shape).astype(kind)
        b = Builder()
        doubled = add(b, "Multiply", parameter(b, data), np.array(2, kind))
        graph = b.finish([add(b, "Add", add(b, name, doubled, axis=axis), np.array(1, kind))])
        executable = compile_graph(graph, {"threads": 2})
        names = [s.kernel.name for s in executable.table((shape,)).plan.steps]
        assert any(n.endswith(("_beside", "_apart")) for n in names), names
        assert not any("transpose" in n for n in names), names
        got, want = run(executable, [data])[0], evaluate(graph, [data])[0]
        close = {np.float64: 1e-14, np.float32: 2e-6, np.float16: 4e-3}[kind]
        np.testing.assert_allclose(got, want, rtol=close, atol=close, err_msg=f"{shape} seed {SEED}")


@pytest.mark.parametrize("index", ["i32", "i64"])
def test_positions_in_short_rows(index: str) -> None:
    """Several blocks and threads, one element, none, and rows of one."""
    rng = np.random.default_rng(SEED)
    for shape in ((3001, 3), (700, 2, 7), (2, 3, 1, 4, 5, 6, 2), (50, 63), (5, 1), (1, 1), (0, 3)):
        for part in (0.3, 0, 1):
            data = (rng.random(shape) < part).astype(np.float32)
            b = Builder()
            graph = b.finish([add(b, "NonZero", parameter(b, data), output_type=index)])
            got = run(compile_graph(graph, {"threads": 2}), [data])[0]
            assert got.dtype == index.replace("i", "int")
            np.testing.assert_array_equal(got, np.stack(np.nonzero(data)), f"{shape} {part} seed {SEED}")
