"""Reductions of short contiguous rows, elements of 1 and 2 bytes by indices, and scans of f16."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
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
        assert sum("reduce" in s.kernel.name for s in steps) == 2, (shape, [s.kernel.name for s in steps])
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
