"""A model output with another shape than the kernel's result is written in place, not copied."""

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

SEED = 20261126
#: What a graph returns of a product -> the steps that copy.
RETURNED = {"reshaped": 0, "squeezed": 0, "twice": 1, "softmax": 0, "beside another reader": 0, "as it is": 1}


def _reshaped(b: Builder, x: Value, *shape: int) -> Value:
    attrs = {"special_zero": False}
    return b.add("Reshape", [x, b.constant(np.array(shape, np.int64))], attrs).output


def _graph(returned: str, rows: Any) -> Graph:
    rng, b = np.random.default_rng(SEED), Builder()
    x = b.add("Parameter", (), {"shape": (rows, 24), "element_type": "f32"}).output
    y = b.add("MatMul", [x, b.constant(rng.standard_normal((24, 36)).astype(np.float32))]).output
    if returned == "reshaped":
        return b.finish([_reshaped(b, _reshaped(b, y, -1, 6, 6), -1, 12)])
    if returned == "squeezed":
        return b.finish([b.add("Unsqueeze", [y, b.constant(np.array([0], np.int64))]).output])
    if returned == "twice":
        return b.finish([_reshaped(b, y, -1, 9), _reshaped(b, y, -1, 4)])
    if returned == "softmax":
        return b.finish([_reshaped(b, b.add("Softmax", [y], {"axis": 1}).output, -1)])
    if returned == "beside another reader":
        return b.finish([_reshaped(b, y, -1), b.add("Softmax", [y], {"axis": 1}).output])
    return b.finish([y, _reshaped(b, y, -1)])


@pytest.mark.parametrize("returned", RETURNED)
def test_outputs_are_those_of_the_reference(returned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    for rows in (7, ANY):
        graph = _graph(returned, rows)
        sets = [
            [rng.standard_normal((n, 24)).astype(np.float32)] for n in ((7,) if rows == 7 else (7, 1, 40))
        ]
        executable = check(graph, sets, returned)
        for arrays in sets:
            for got, want in zip(run(executable, arrays), evaluate(graph, arrays), strict=True):
                np.testing.assert_allclose(got, want, 2e-4, 2e-4, err_msg=f"{returned} {rows}, seed {SEED}")


@pytest.mark.parametrize("returned, copies", RETURNED.items())
def test_no_more_is_copied_than_there_are_outputs_of_one_value(returned: str, copies: int) -> None:
    plan = compile_graph(_graph(returned, 64), {}).program.plan(((64, 24),))
    made = [step for step in plan.steps if step.kernel is not None and step.kernel.name.startswith("copy")]
    assert len(made) == copies, [step.kernel.name for step in plan.steps if step.kernel is not None]
