"""Kernels of all operations with 32 lanes, as NumPy vectors on checked memory, beside their references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.errors import ModelError
from ovjit.graph.graph import Builder
from ovjit.graph.interp import evaluate
from ovjit.graph.op import Op
from tests.support.op_samples import graph_of, native_ops, samples, tolerance
from tests.support.plan_memory import PlanMemory

OPERATIONS = native_ops()
#: Every so many operations run by default.
STRIDE = 9


def parameters() -> list[Any]:
    return [
        record if i % STRIDE == 0 else pytest.param(record, marks=pytest.mark.long)
        for i, record in enumerate(OPERATIONS)
    ]


@pytest.mark.parametrize("record", parameters(), ids=lambda record: f"{record.name}-{record.opset}")
def test_operations(record: Op) -> None:
    for _, arrays, attrs in samples(record, "f32", 1):
        try:
            graph, data = graph_of(record, arrays, attrs, "f32")
        except ModelError:
            pytest.skip("the operation takes no f32")
        if graph.has_state or any(v.dtype != "f32" for v in graph.outputs):
            pytest.skip("results of other types are not compared here")
        program = compile_graph(graph, TARGETS["cuda"], Options(exact=True))
        plan = program.plan([tuple(v.shape) for v in graph.inputs])
        if plan.cut is not None or any(step.kernel is None for step in plan.steps):
            pytest.skip("a step runs on the host")
        expected = evaluate(graph, data)
        for result, want in zip(PlanMemory(plan, data).run_words(), expected, strict=True):
            allowed = 16 * tolerance(record, np.asarray(want, np.float64), "f32")
            same = (np.abs(result - want) <= allowed) | (result == want) | (np.isnan(result) & np.isnan(want))
            assert same.all(), f"{record.name}: {np.argwhere(~same)[:3]}"
        for step in plan.steps:
            compile_ptx(step.kernel.source, "entry")


@pytest.mark.parametrize(
    ("shape", "axis"), [((1024, 96), 0), ((3, 512, 40), 1), ((1, 9000), 1), ((5, 4096), 1)], ids=str
)
def test_long_reductions_have_parts(shape: tuple[int, ...], axis: int) -> None:
    """A card runs thousands of warps: sums of columns have more than a few."""
    b = Builder()
    x = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
    total = b.add("ReduceSum", [x, b.constant(np.array([axis]))], {"keep_dims": False}).output
    plan = compile_graph(b.finish([total]), TARGETS["cuda"], Options(exact=True)).plan([shape])
    assert len(plan.steps) == 2 and plan.chunks_of(0) >= (2 if axis == len(shape) - 1 else 8)
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    want = data.astype(np.float64).sum(axis)
    np.testing.assert_allclose(PlanMemory(plan, [data]).run_words()[0], want, atol=1e-4)
