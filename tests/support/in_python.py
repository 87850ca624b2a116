"""A graph's kernels as machine code and in plain Python: the same bytes, and only those that were given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.graph.graph import Graph


def answer(graph: Graph, arrays: list[np.ndarray]) -> tuple[list[np.ndarray] | str, Any]:
    """The outputs, or what the refusal says; and the plan."""
    try:
        job = compile_graph(graph, {"threads": 1}).new_job()
        for i, array in enumerate(arrays):
            job.set_input(i, np.ascontiguousarray(array).reshape(array.shape))
        job.run()
    except OvjitError as error:
        return str(error), None
    return [np.array(output) for output in job.outputs], job._table.plan


def check(monkeypatch: pytest.MonkeyPatch, graph: Graph, arrays: list[np.ndarray], where: str) -> set[str]:
    """Compare the two ways; the kernels that ran in Python."""
    monkeypatch.delenv("OVJIT_INTERP", raising=False)
    want, _ = answer(graph, arrays)
    monkeypatch.setenv("OVJIT_INTERP", "kernels")
    got, plan = answer(graph, arrays)
    if isinstance(want, str) or isinstance(got, str):
        assert isinstance(want, str) and got == want, f"{where}: {got}"
        return set()
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape, where
        if a.dtype.kind in "iubSO":
            np.testing.assert_array_equal(a, b, err_msg=where)
            continue
        x, y = a.astype(np.float64), b.astype(np.float64)
        # sums have another order here, and the C library's functions other last bits
        limit = 1e-5 if a.dtype == np.float32 else 1e-12 if a.dtype == np.float64 else 1e-2
        scale = np.abs(y[np.isfinite(y)]).max(initial=1e-30)
        with np.errstate(all="ignore"):
            same = (x == y) | (np.isnan(x) & np.isnan(y)) | (np.abs(x - y) <= limit * scale)
        assert same.all(), f"{where}: {x[~same][:4]} where machine code has {y[~same][:4]}"
    return {s.kernel.name for s in plan.steps if s.kernel is not None} if plan.pieces else set()
