"""Tensors of more than 2 GiB: the last chunk of each step, by the code of 32 threads.

Addresses that are computed in 32 bits would lie before the tensor. Memory is zeros that no page holds, but
for the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from tests.support.plan_memory import PlanMemory
from tests.support.warps import Warp

op = ov.opset13
#: Rows of 1,024 elements of 4 bytes, or of 4,096 bytes.
ROWS = (1 << 19) + 3
ONES = np.ones((1024, 8), np.float32)
#: Name -> (shape and type of the input, the model's operation).
CASES: dict[str, tuple[tuple[int, ...], Any, Callable[[Any], Any]]] = {
    "elementwise": ((ROWS, 4096), np.int8, lambda x: op.maximum(x, np.int8(3))),
    "softmax": ((ROWS, 1024), np.float32, lambda x: op.softmax(x, 1)),
    "sum of rows": ((ROWS, 1024), np.float32, lambda x: op.reduce_sum(x, [1], True)),
    "rows": ((ROWS, 1024), np.float32, lambda x: op.gather(x, np.array([5, ROWS - 1]), np.int64(0))),
    "part": ((ROWS, 1024), np.float32, lambda x: op.relu(op.slice(x, [ROWS - 2], [ROWS], [1], [0]))),
    "product": ((ROWS, 1024), np.float32, lambda x: op.matmul(x, ONES, False, False)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_last_elements_are_reached(name: str) -> None:
    shape, dtype, build = CASES[name]
    x = op.parameter(list(shape), dtype, name="x")
    graph = ov.Model([build(x)], [x])._graph()
    plan = compile_graph(graph, TARGETS["cuda"], Options()).plan([shape])
    data = np.zeros(shape, dtype)
    data[-3:] = np.random.default_rng(7).integers(-8, 8, (3, shape[1]))
    memory, warp = PlanMemory(plan, [data], [graph.outputs[0].dtype]), Warp()
    try:
        for i, (step, words) in enumerate(zip(plan.steps, plan.words, strict=True)):
            assert step.kernel is not None
            block = np.array(list(words) or [0], np.int64)
            chunks = plan.chunks_of(i)
            for chunk in range(max(0, chunks - 2), chunks):
                bases, args = memory.bases.ctypes.data, block.ctypes.data
                assert warp.run(step.kernel.source, bases, args, chunk, memory.scratch) == 0
    finally:
        warp.close()
    end = op.parameter([3, shape[1]], dtype, name="x")
    few = {"rows": lambda x: op.gather(x, np.array([2, 2]), np.int64(0)), "part": lambda x: op.relu(x)}
    model = ov.Model([few.get(name, build)(end)], [end])
    want = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(data[-3:])[0]
    np.testing.assert_allclose(memory.outputs[0][-1], want[-1], rtol=2e-5, atol=2e-5)
