"""Branches whose results have different ranks, loops whose shapes follow the counter, and nodes on the host
that are checked once for each set of types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.graph.bodies import INVARIANT, LAST, MERGED, Port
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.interp import evaluate
from ovjit.graph.op import find_op
from ovjit.graph.shapes import ANY
from tests.support.run import run, run_job
from tests.support.sweeps import some


def _parameter(b: Builder, dims: Any, kind: str = "f32") -> Value:
    return b.add("Parameter", (), {"shape": dims, "element_type": kind}).output


def _branch(squeezes: bool) -> Graph:
    b = Builder()
    x = _parameter(b, (ANY, 6))
    out = b.add("ReduceMax", (x, b.constant(np.int64(0))), {"keep_dims": not squeezes}).output
    return b.finish([out])


def _ranked() -> Graph:
    """An If with results of rank 1 or 2, and what is no elementwise operation behind it."""
    b = Builder()
    x, chosen = _parameter(b, (ANY, 6)), _parameter(b, (), "boolean")
    ports = [Port(INVARIANT, 1, 0)]
    attrs = {
        "then_body": _branch(True), "else_body": _branch(False),
        "then_inputs": ports, "else_inputs": ports,
        "then_outputs": [Port(LAST, 0, 0)], "else_outputs": [Port(LAST, 0, 0)],
    }  # fmt: skip
    either = b.add("If", (chosen, x), attrs).output
    assert either.shape is None
    wide = b.add("Add", (either, b.constant(np.float32(1)))).output
    top = b.add("TopK", (wide, b.constant(np.int64(2))), {"axis": -1, "mode": "max", "sort": "value"})
    total = b.add("ReduceSum", (top.outputs[0], b.constant(np.int64(-1))), {"keep_dims": False}).output
    return b.finish([total, top.outputs[1]])


@pytest.mark.parametrize("seed", some(range(12), 4))
def test_operations_behind_a_branch_of_open_rank_are_native(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = _ranked()
    executable = compile_graph(graph, {})
    job = executable.new_job()
    for _ in range(4):
        x = rng.standard_normal((int(rng.integers(1, 5)), 6)).astype(np.float32)
        chosen = np.array(bool(rng.integers(2)))
        run_job(job, (x, chosen))
        for got, want in zip(job.outputs, evaluate(graph, [x, chosen]), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=f"seed {seed} {chosen}")
    names = {row.node_type for row in job.profile() if row.exec_type == "ref_numpy"}
    assert not names & {"TopK", "ReduceSum", "Add"}, names


def _counted(rank: int) -> Graph:
    """A branch: the numbers of rows and columns [2], or their product, of rank 0 or 1."""
    b = Builder()
    sizes = _parameter(b, (2,), "i64")
    if rank == 2:
        return b.finish([b.add("Abs", (sizes,)).output])
    product = b.add("ReduceProd", (sizes, b.constant(np.int64(0))), {"keep_dims": bool(rank)})
    return b.finish([product.output])


@pytest.mark.parametrize("rank", (0, 1))
def test_a_branch_of_open_rank_whose_values_follow_from_shapes_breaks_no_graph(rank: int) -> None:
    """DeBERTa's exports have it: once the shapes are known, nothing of the branch is left to run."""
    b = Builder()
    x = _parameter(b, (ANY, ANY))
    sizes = b.add("ShapeOf", (x,), {"output_type": "i64"}).output
    rows = b.add("Gather", (sizes, b.constant(np.int64(0)), b.constant(np.int64(0)))).output
    is_high = b.add("Greater", (rows, b.constant(np.int64(3)))).output
    ports = [Port(INVARIANT, 1, 0)]
    attrs = {
        "then_body": _counted(2), "else_body": _counted(rank),
        "then_inputs": ports, "else_inputs": ports,
        "then_outputs": [Port(LAST, 0, 0)], "else_outputs": [Port(LAST, 0, 0)],
    }  # fmt: skip
    counts = b.add("If", (is_high, sizes), attrs).output
    assert rank or counts.shape is None
    goal = b.add("Reshape", (counts, b.constant(np.array([-1]))), {"special_zero": False}).output
    shaped = b.add("Reshape", (x, goal), {"special_zero": False}).output
    executable = compile_graph(b.finish([b.add("Tanh", (shaped,)).output]), {})
    for shape in ((2, 3), (5, 4), (3, 3), (4, 1)):
        data = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape) / 8
        want = np.tanh(data if shape[0] > 3 else data.reshape(-1))
        (got,) = run(executable, [data])
        assert got.shape == want.shape, shape
        np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=str(shape))


def _steps(kind: str) -> Graph:
    """A loop that puts row k of x into column k of a square of zeros, by OneHot or by Pad."""
    body = Builder()
    k, x, square = _parameter(body, (), "i64"), _parameter(body, (5, 5)), _parameter(body, (5, 5))
    zero, one = body.constant(np.array([0])), body.constant(np.array([1]))
    at = body.add("Unsqueeze", (k, body.constant(np.int64(0)))).output
    after = body.add("Add", (at, one)).output
    rest = body.add("Slice", (x, at, body.constant(np.array([5])), one, zero)).output  # [5 - k, 5]
    row = body.add("Slice", (rest, zero, one, one, zero)).output  # [1, 5]
    column = body.add("Transpose", (row, body.constant(np.array([1, 0])))).output
    if kind == "Pad":
        left = body.add("Concat", (zero, at), {"axis": 0}).output
        wide = body.add("Subtract", (body.constant(np.array([5])), after)).output
        right = body.add("Concat", (zero, wide), {"axis": 0}).output
        part = body.add(find_op("Pad", 12), (column, left, right), {"pad_mode": "constant"}).output
    else:
        shape = body.add("ShapeOf", (rest,), {"output_type": "i64"}).output
        height = body.add("Gather", (shape, body.constant(np.int64(0)), body.constant(np.int64(0)))).output
        numbers = (body.constant(np.float32(1)), body.constant(np.float32(0)))
        hot = body.add(find_op("OneHot", 1), (zero, height, *numbers), {"axis": -1}).output  # [1, 5 - k]
        part = body.add("MatMul", (column, hot)).output  # [5, 5 - k]
        left = body.add("Concat", (zero, at), {"axis": 0}).output
        part = body.add(
            find_op("Pad", 12), (part, left, body.constant(np.array([0, 0]))), {"pad_mode": "constant"}
        ).output
    made = body.add("Add", (square, part)).output
    again = body.constant(np.array(True))
    follows = body.add("Add", (k, body.constant(np.int64(1)))).output
    graph = body.finish([made, again, follows])
    b = Builder()
    x = _parameter(b, (5, 5))
    start = b.constant(np.zeros((5, 5), np.float32))
    inputs = [b.constant(np.int64(5)), b.constant(np.array(True)), x, start, b.constant(np.int64(0))]
    attrs = {
        "body": graph, "condition_result": 1, "iteration_parameter": -1,
        "input_ports": [Port(INVARIANT, 2, 1), Port(MERGED, 3, 2, 0), Port(MERGED, 4, 0, 2)],
        "output_ports": [Port(LAST, 0, 0)],
    }  # fmt: skip
    return b.finish([b.add("Loop", inputs, attrs).output])


@pytest.mark.parametrize("kind", ["Pad", "OneHot"])
def test_loops_whose_shapes_follow_a_counter(kind: str) -> None:
    rng = np.random.default_rng(3)
    graph = _steps(kind)
    for _ in range(3):
        x = rng.standard_normal((5, 5)).astype(np.float32)
        np.testing.assert_array_equal(run(graph, [x])[0], x.T, err_msg=kind)


def test_what_type_inference_reads_is_noted() -> None:
    """A node on the host is checked again where its operation looks at elements."""
    gather, tanh, pad = find_op("Gather", 8), find_op("Tanh"), find_op("Pad", 12)
    x, at, axis = np.zeros((3, 4), np.float32), np.array([2]), np.int64(1)
    assert tanh.types_without_values([x], {}, [False])[0].shape == (3, 4)
    attrs = gather.check_attributes({})
    assert gather.types_without_values([x, at, np.asarray(axis)], attrs, [False, False, True])[0].shape == (
        3,
        1,
    )
    assert gather.types_without_values([x, at, np.asarray(axis)], attrs, [False, False, False]) is None
    pads = [x, np.array([0, 1]), np.array([0, 0])]
    assert pad.types_without_values(pads, pad.check_attributes({"pad_mode": "constant"}), [False] * 3) is None
    low = find_op("Sqrt")
    assert low.types_without_values([np.zeros(3, np.int32)], {}, [False]) is None  # computed in f32


def test_elements_of_small_arrays_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose shape a computed list gives is inferred once for each list, and refuses bad ones."""
    b = Builder()
    x, shape = _parameter(b, (1,)), _parameter(b, (2,), "i64")
    graph = b.finish([b.add("Broadcast", (x, shape), {"mode": "numpy"}).output])
    op, inferred = find_op("Broadcast", 3), []
    check = type(op).infer_types

    def count(self: Any, inputs: Any, attrs: Any) -> Any:
        inferred.append(self.name)
        return check(self, inputs, attrs)

    job = compile_graph(graph, {}).new_job()
    monkeypatch.setattr(type(op), "infer_types", count)
    seen = []
    for dims in ([2, 3], [2, 3], [4, 1], [2, 3], [4, 1]):
        inferred.clear()
        run_job(job, [np.full(1, sum(dims), np.float32), np.array(dims)])
        np.testing.assert_array_equal(job.outputs[0], np.full(dims, sum(dims), np.float32))
        seen.append(len(inferred))
    assert seen[1] == seen[3] == seen[4] == 0 < min(seen[0], seen[2])
    for _ in range(2):
        job.set_input(1, np.array([-1, 3]))
        with pytest.raises(OvjitError, match="negative"):
            job.run()
