"""The best in vectors, of neighbours or of a row: in the order that all TopK have."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import ANY
from tests.support.graph_nets import parameter
from tests.support.op_samples import SEED
from tests.support.run import run
from tests.support.sweeps import in_turn, some


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(
    "kind", in_turn([np.float32, np.float64, np.float16, np.int8, np.uint32, np.int64], 2)
)
def test_one_beside_neighbours(kind: type, mode: str) -> None:
    rng = np.random.default_rng(SEED)
    for shape, axis in (((9, 40), 0), ((2, 5, 33), 1), ((3, 21, 4, 7), 1), ((1, 3), 0), ((2, 3, 4, 2, 5), 2)):
        data = rng.integers(0, 9, shape).astype(kind)  # many are equal
        if data.dtype.kind == "f":
            for value in (np.nan, -0.0, np.inf, -np.inf):
                data[rng.random(shape) < 0.1] = value
        b = Builder()
        x = parameter(b, data, (ANY,) * data.ndim)
        attrs = {"axis": axis, "mode": mode, "sort": "value", "index_element_type": "i32"}
        graph = b.finish(b.add("TopK", (x, b.constant(np.array(1))), attrs).outputs)
        executable = compile_graph(graph, {"threads": 2})
        plan = executable.table((shape,)).plan
        assert any(s.kernel is not None and s.kernel.name.startswith("top_1_") for s in plan.steps), shape
        where = f"seed {SEED}: {shape} along {axis}"
        for got, want in zip(run(executable, [data]), evaluate(graph, [data]), strict=True):
            np.testing.assert_array_equal(got, want, err_msg=where)


@pytest.mark.parametrize("kind", some([np.float32, np.uint8, np.int32, np.float64, np.float16, np.uint64], 2))
def test_few_beside_neighbours_and_one_along_a_row(kind: type) -> None:
    rng = np.random.default_rng(SEED)
    for shape, axis, many, name in (
        ((9, 40), 0, 3, "top_in_registers_"), ((2, 4, 35), 1, 4, "top_in_registers_"),
        ((2, 3, 18), 1, 2, "top_in_registers_"), ((9, 40), 0, 6, "top_few_"),
        ((2, 35, 33), 1, 32, "top_few_"), ((3, 5, 4, 70), 1, 5, "top_few_"),
        ((35, 7), 0, 33, "top_few_"), ((257, 7), 0, 33, "topk_"), ((7, 3), 1, 1, "top_1_along_"),
        ((5, 16), 1, 1, "top_1_along_"), ((2, 3, 100), 2, 1, "top_1_along_"),
        ((300, 17), -1, 1, "top_1_along_"), ((3, 1000), 1, 3, "topk_"), ((2, 2, 701), 2, 20, "topk_"),
    ):  # fmt: skip
        data = rng.integers(0, 9 if many > 1 and shape[axis] < 300 else 200, shape).astype(kind)
        if data.dtype.kind == "f":
            for value in (np.nan, -0.0, np.inf, -np.inf):
                data[rng.random(shape) < 0.5 / shape[axis]] = value
        for mode, sort in (("max", "value"), ("min", "index"), ("min", "value")):
            b = Builder()
            x = parameter(b, data, (ANY,) * data.ndim)
            attrs = {"axis": axis, "mode": mode, "sort": sort, "index_element_type": "i64"}
            graph = b.finish(b.add("TopK", (x, b.constant(np.array(many))), attrs).outputs)
            executable = compile_graph(graph, {"threads": 2})
            plan = executable.table((shape,)).plan
            where = f"seed {SEED}: {many} of {shape} along {axis}, {mode} by {sort}"
            assert any(s.kernel is not None and s.kernel.name.startswith(name) for s in plan.steps), where
            for got, want in zip(run(executable, [data]), evaluate(graph, [data]), strict=True):
                np.testing.assert_array_equal(got, want, err_msg=where)


@pytest.mark.parametrize("kind", some([np.float32, np.int64, np.uint8, np.float16], 2))
@pytest.mark.parametrize(("shape", "many"), [((100, 5), 3), ((40, 16), 1), ((3, 17, 7), 4), ((33, 2), 2)])
def test_short_rows_are_searched_beside_each_other(kind: type, shape: tuple[int, ...], many: int) -> None:
    rng = np.random.default_rng(SEED)
    data = rng.integers(0, 5, shape).astype(kind)
    if data.dtype.kind == "f":
        data[rng.random(shape) < 0.1] = np.nan
    for mode, sort in (("max", "value"), ("min", "index")):
        b = Builder()
        attrs = {"axis": -1, "mode": mode, "sort": sort, "index_element_type": "i64"}
        graph = b.finish(b.add("TopK", (parameter(b, data), b.constant(np.array(many))), attrs).outputs)
        executable = compile_graph(graph, {"threads": 2})
        names = [s.kernel.name for s in executable.table((shape,)).plan.steps if s.kernel is not None]
        assert any(name.startswith(("top_1_", "top_in_registers_")) for name in names), names
        assert not any(name.startswith(("top_1_along", "topk_")) for name in names), names
        where = f"seed {SEED}: {many} of {shape}, {mode} by {sort}"
        for got, want in zip(run(executable, [data]), evaluate(graph, [data]), strict=True):
            np.testing.assert_array_equal(got, want, err_msg=where)
