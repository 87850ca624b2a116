"""Copies of cards that transpose squares by way of the shared memory, beside NumPy."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.codegen.transpose import ELEMENTS
from ovjit.codegen.transpose_on_cards import transpose_squares_kernel
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.execution.numpy_words import Memory
from ovjit.graph.graph import Builder
from tests.support.assembler import find_ptxas
from tests.support.gpu_words import program
from tests.support.lane_order import Ordered
from tests.support.plan_memory import PlanMemory
from tests.support.sweeps import some
from tests.support.warp_meanings import NotArrived

SEED = 20261129
TYPES = {8: "i64", 4: "f32", 2: "f16", 1: "u8"}
#: shape, order of its dimensions: whole squares, parts in both directions, outer dimensions.
CASES = [
    ((64, 96), (1, 0)),
    ((2, 33, 47), (0, 2, 1)),
    ((1, 37, 5, 40), (0, 2, 3, 1)),
    ((2, 3, 40, 34), (2, 0, 1, 3)),
    ((1, 70, 1, 32), (3, 2, 1, 0)),
]


def plan_of(shape: tuple[int, ...], order: tuple[int, ...], dtype: str) -> Any:
    """The plan of a transpose for the target of cards."""
    b = Builder()
    x = b.add("Parameter", (), {"shape": shape, "element_type": dtype}).output
    y = b.add("Transpose", [x, b.constant(np.array(order))]).output
    return compile_graph(b.finish([y]), TARGETS["cuda"], Options(exact=True)).plan([shape])


def data_of(shape: tuple[int, ...], size: int) -> np.ndarray:
    kinds = {8: np.int64, 4: np.float32, 2: np.float16, 1: np.uint8}
    return np.random.default_rng([SEED, size, *shape]).integers(0, 100, shape).astype(kinds[size])


def run_in_any_order(plan: Any, data: np.ndarray, dtype: str) -> np.ndarray:
    """The result of a plan in the interpreter that fails if the order of lanes matters."""
    memory = PlanMemory(plan, [data], [dtype])
    return memory.run_words(Ordered)[0]


@pytest.mark.parametrize("shape, order", CASES)
@pytest.mark.parametrize("size", some(ELEMENTS, 2))
def test_elements_of_all_sizes(size: int, shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    plan, data = plan_of(shape, order, TYPES[size]), data_of(shape, size)
    np.testing.assert_array_equal(
        run_in_any_order(plan, data, TYPES[size]), data.transpose(order), err_msg=f"seed {SEED}"
    )
    (step,) = plan.steps
    moves_rows = shape == (2, 3, 40, 34)  # whose elements stay adjacent
    assert step.kernel.name == f"{'copy' if moves_rows else 'transpose'}_{ELEMENTS[size]}"


def test_short_rows_are_gathered() -> None:
    """Rows of less than a sector are read as fast without a square."""
    for columns, name in ((7, "copy_i32"), (8, "transpose_i32")):
        (step,) = plan_of((90, columns), (1, 0), "f32").steps
        assert step.kernel.name == name


def test_squares_are_spread_over_warps() -> None:
    plan = plan_of((1024, 512), (1, 0), "f32")
    assert plan.chunks_of(0) == 32 * 16


def run_in_one_chunk(plan: Any, data: np.ndarray) -> np.ndarray:
    """The result of a plan of one step whose first chunk has all items."""
    memory = PlanMemory(plan, [data])

    def run_chunk(source: str, checked: Memory, block: np.ndarray, chunk: int) -> int:
        if chunk:
            return 0
        count, each = (
            int(re.findall(rf"^    {name} = ld\(args, (\d+)\)$", source, re.M)[0])
            for name in ("item_count", "per_chunk")
        )
        block[each] = block[count]
        kernel = program(source, Ordered(32, checked))
        return kernel(memory.bases.ctypes.data, block.ctypes.data, chunk, memory.scratch)

    return memory.run(run_chunk)[0]


def test_what_a_card_would_read_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each barrier is needed: before columns are read, whole or not, and before the next square."""
    shape = (64, 40)
    plan, data = plan_of(shape, (1, 0), "f32"), data_of(shape, 4)
    (kernel,) = {step.kernel for step in plan.steps}
    np.testing.assert_array_equal(run_in_one_chunk(plan, data), data.T)
    barriers = list(re.finditer(r"warp_barrier\(\)", kernel.source))
    assert len(barriers) == 3
    for found in barriers:
        without = kernel.source[: found.start()] + "pass" + kernel.source[found.end() :]
        with monkeypatch.context() as patch, pytest.raises(NotArrived):
            patch.setattr(kernel, "source", without)
            run_in_one_chunk(plan, data)


@pytest.mark.parametrize("size", ELEMENTS)
def test_code_on_threads_has_the_elements_of_numpy(size: int) -> None:
    shape = (45, 70)
    plan, data = plan_of(shape, (1, 0), TYPES[size]), data_of(shape, size)
    memory = PlanMemory(plan, [data], [TYPES[size]])
    np.testing.assert_array_equal(memory.run_threads()[0], data.T)


@pytest.mark.skipif(find_ptxas() is None, reason="the CUDA toolkit's assembler is not installed")
@pytest.mark.parametrize("size", ELEMENTS)
def test_transposes_are_assembled_without_spills(size: int) -> None:
    ptx = compile_ptx(transpose_squares_kernel(size).source, "entry")
    for arch in ("sm_80", "sm_90"):
        command = [str(find_ptxas()), f"-arch={arch}", "-v", "-o", "/dev/null", "/dev/stdin"]
        done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert " 0 bytes spill stores" in done.stderr, done.stderr
