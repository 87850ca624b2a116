"""Plans for many shapes: what is kept is bounded by bytes, and holds nothing that only an export needs."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.execution import compiled_graph as shared
from ovjit.graph.graph import Builder
from ovjit.graph.shapes import ANY
from ovjit.planning.copies import copy_kernel, fill_kernel


def _executable(static: bool = False, layers: int = 20):
    b = Builder()
    y = b.add("Parameter", (), {"shape": (4, 8) if static else (ANY, 8), "element_type": "f32"}).output
    for _ in range(layers):
        y = b.add("Softmax", [y], {"axis": 1}).output
    return compile_graph(b.finish([y]), {})


def test_tables_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    executable = _executable()
    one = executable.table(((1, 8),)).bytes
    monkeypatch.setattr(shared, "TABLE_BYTES", 10 * one)
    for n in range(1, 60):
        executable.table(((n, 8),))
    assert len(executable._tables) <= 10
    assert executable._table_bytes == sum(t.bytes for t in executable._tables.values())
    assert ((59, 8),) in executable._tables, "the latest stays"


def test_one_table_is_kept_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "TABLE_BYTES", 1)
    executable = _executable()
    job = executable.new_job()
    for n in (3, 5, 3):
        job.set_input(0, np.ones((n, 8), np.float32))
        job.run()
        np.testing.assert_allclose(job.outputs[0], 1 / 8, rtol=1e-5)
    assert len(executable._tables) == 1


def test_plans_keep_what_runs() -> None:
    executable = _executable()
    plan = executable.table(((3, 8),)).plan
    assert not plan.words
    assert not any(step.args for step in plan.steps)
    static = _executable(static=True).table(((4, 8),)).plan
    assert static.words, "an export writes them"


def test_copies_and_fills_are_printed_once() -> None:
    assert copy_kernel(4) is copy_kernel(4)
    assert fill_kernel(2) is fill_kernel(2)
