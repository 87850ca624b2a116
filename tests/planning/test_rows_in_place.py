"""Rows are normalized where they lie: in the arena, and in the memory of an output of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import ANY
from tests.support.run import run
from tests.support.traced_pairs import check

SEED = 20261122
WIDE = 300
FINISHES = ("", "scaled", "times what it is made of", "with what it is made of", "and read meanwhile",
            "in the midst")  # fmt: skip


def _kind(b: Builder, name: str, x: Value) -> Value:
    if name == "MVN":
        attrs = {"normalize_variance": True, "eps": 1e-5, "eps_mode": "INSIDE_SQRT"}
        return b.add("MVN", [x, b.constant(np.array([1], np.int64))], attrs).output
    if name == "RMS":
        square = b.add("Multiply", [x, x]).output
        mean = b.add("ReduceMean", [square, b.constant(np.array([1], np.int64))], {"keep_dims": True}).output
        sums = b.add("Add", [mean, b.constant(np.float32(1e-6))]).output
        root = b.add("Sqrt", [sums]).output
        return b.add("Multiply", [b.add("Divide", [b.constant(np.float32(1)), root]).output, x]).output
    return b.add(name, [x], {"axis": 1}).output


def _graph(name: str, rows: Any, finish: str) -> Graph:
    rng, b = np.random.default_rng(SEED), Builder()
    x = b.add("Parameter", (), {"shape": (rows, 24), "element_type": "f32"}).output
    weights = b.constant(rng.standard_normal((24, WIDE)).astype(np.float32))
    scores = b.add("MatMul", [x, weights]).output
    made = _kind(b, name, scores)
    if finish == "scaled":
        made = b.add("Multiply", [made, b.constant(rng.standard_normal(WIDE).astype(np.float32))]).output
    elif finish == "times what it is made of":
        made = b.add("Multiply", [made, scores]).output
    elif finish == "with what it is made of":
        return b.finish([made, scores])
    elif finish == "and read meanwhile":
        return b.finish([made, b.add("ReduceMax", [scores, b.constant(np.array([0], np.int64))]).output])
    elif finish == "in the midst":
        back = b.constant(rng.standard_normal((WIDE, 5)).astype(np.float32))
        made = b.add("MatMul", [made, back]).output
    return b.finish([made])


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax", "MVN", "RMS"])
@pytest.mark.parametrize("finish", FINISHES)
def test_results_are_those_of_the_reference(name: str, finish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    for rows in (7, ANY):
        graph = _graph(name, rows, finish)
        counts = (7,) if rows == 7 else (7, 40, 1, 7)
        sets = [[rng.standard_normal((n, 24)).astype(np.float32)] for n in counts]
        executable = check(graph, sets, f"{name} {finish}")
        for arrays in sets:
            for got, want in zip(run(executable, arrays), evaluate(graph, arrays), strict=True):
                np.testing.assert_allclose(got, want, 2e-4, 2e-4, err_msg=f"{name} {finish} {rows}")


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax", "MVN"])
def test_rows_that_die_need_no_memory_of_their_own(name: str) -> None:
    size = 64 * WIDE * 4
    plan = compile_graph(_graph(name, 64, "scaled"), {}).program.plan(((64, 24),))
    assert plan.arena_size < size  # the product is made in the output
    plan = compile_graph(_graph(name, 64, "in the midst"), {}).program.plan(((64, 24),))
    assert size <= plan.arena_size < 1.5 * size
    plan = compile_graph(_graph(name, 64, "times what it is made of"), {}).program.plan(((64, 24),))
    assert plan.arena_size >= size  # its rows are read while results are written
