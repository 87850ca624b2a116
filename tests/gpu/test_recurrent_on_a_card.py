"""Recurrent layers on a card: all samples beside their references, in vectors of 32 lanes and in the
interpreter that fails on reading what another lane stores without a barrier."""

from __future__ import annotations

import subprocess
from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.barriers import with_barriers
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.execution.numpy_words import Memory, program
from ovjit.graph.graph import Builder
from ovjit.graph.interp import evaluate
from ovjit.graph.op import find_op
from tests.support.assembler import find_ptxas
from tests.support.lane_order import Ordered
from tests.support.op_samples import samples
from tests.support.plan_memory import PlanMemory
from tests.support.sweeps import some
from tests.support.warps import Warp

RECORD = find_op("RecurrentSteps")
SAMPLES = [(i, *rest) for i, rest in enumerate(samples(RECORD, "f32", 100))]


def plan_of(arrays: list[np.ndarray], attrs: dict[str, Any]) -> tuple[Any, Any, list[np.ndarray]]:
    b, values, data = Builder(), [], []
    for role, array in zip(attrs["roles"], arrays, strict=True):
        if role == "r":
            values.append(b.constant(array))
        else:
            element = "i64" if role == "l" else "f32"
            values.append(b.add("Parameter", (), {"shape": array.shape, "element_type": element}).output)
            data.append(array)
    graph = b.finish(b.add(RECORD, values, attrs).outputs)
    program_ = compile_graph(graph, TARGETS["cuda"], Options(exact=True))
    assert program_.host_nodes() == []
    return graph, program_.plan([tuple(v.shape) for v in graph.inputs]), data


def run(plan: Any, data: list[np.ndarray]) -> list[np.ndarray]:
    memory = PlanMemory(plan, data)

    def run_chunk(source: str, checked: Memory, block: np.ndarray, chunk: int) -> int:
        kernel = program(with_barriers(source), Ordered(32, checked))
        with np.errstate(all="ignore"):
            return kernel(memory.bases.ctypes.data, block.ctypes.data, chunk, memory.scratch)

    return memory.run(run_chunk)


@pytest.mark.parametrize("case", some(SAMPLES, 3), ids=lambda case: f"{case[0]}-{case[3]['kind']}")
def test_layers_have_the_results_of_their_references(case: Any) -> None:
    _, _, arrays, attrs = case
    graph, plan, data = plan_of(arrays, attrs)
    for result, want in zip(run(plan, data), evaluate(graph, data), strict=True):
        np.testing.assert_allclose(result, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("length", [-1, 6])
def test_lengths_that_do_not_fit(direction: str, length: int) -> None:
    """Read from its end, such a sequence is an error. Forwards it has no step or all, and its last state is
    0."""
    _, _, arrays, attrs = next(case for case in SAMPLES if case[3]["roles"] == "xhclr" and case[0] % 4 == 1)
    gates, hidden = arrays[4].shape[1:]
    arrays = [np.array(a[..., :gates]) if i == 0 else np.array(a[:, :1]) for i, a in enumerate(arrays[:3])]
    rng = np.random.default_rng(1)
    steps, batch = arrays[0].shape[1], len(arrays[0])
    weights = rng.uniform(-1, 1, (1, gates, hidden)).astype(np.float32)
    data = [*arrays, np.full(batch, steps), weights]
    _, plan, data = plan_of(data, {**attrs, "direction": direction})
    data = [np.where(np.arange(batch) == 1, length, a) if a.ndim == 1 else a for a in data]
    if direction == "reverse":
        with pytest.raises(AssertionError):
            run(plan, data)
        return
    y, h, c = run(plan, data)
    assert not h[1].any() and not c[1].any() and h[0].any()
    assert y[1].any() == (length > 0)


def test_code_on_threads_has_the_bits_of_vectors() -> None:
    _, _, arrays, attrs = SAMPLES[5]
    _, plan, data = plan_of(arrays, attrs)
    want, memory, warp = run(plan, data), PlanMemory(plan, data), Warp()

    def run_chunk(source: str, checked: Memory, block: np.ndarray, chunk: int) -> int:
        return warp.run(source, memory.bases.ctypes.data, block.ctypes.data, chunk, memory.scratch)

    try:
        for result, right in zip(memory.run(run_chunk), want, strict=True):
            np.testing.assert_array_equal(result, right)
    finally:
        warp.close()


@pytest.mark.skipif(find_ptxas() is None, reason="the CUDA toolkit's assembler is not installed")
def test_layers_are_assembled_without_spills() -> None:
    sources = set()
    for _, _, arrays, attrs in SAMPLES[1::4]:
        sources |= {step.kernel.source for step in plan_of(arrays, attrs)[1].steps}
    for source in sources:
        command = [str(find_ptxas()), "-arch=sm_80", "-v", "-o", "/dev/null", "/dev/stdin"]
        ptx = compile_ptx(source, "entry")
        done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert " 0 bytes spill stores" in done.stderr, done.stderr
