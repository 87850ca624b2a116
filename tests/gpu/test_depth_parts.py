"""Products of parts of the depth on tensor cores: their sums beside float64, where they are chosen, and the
order of accesses."""

from __future__ import annotations

import subprocess
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.graph.graph import Builder
from ovjit.graph.symbolic import Interval
from ovjit_ops.matmul.gpu_depth_parts import (
    LEAST_PART,
    MOST_PARTS,
    choose_parts,
    counts_of_parts,
    parts_of_rows,
    time_of,
)
from ovjit_ops.matmul.gpu_products import AT_ONCE, TILES
from tests.support.assembler import find_ptxas
from tests.support.lane_order import Ordered
from tests.support.plan_memory import PlanMemory
from tests.support.sweeps import some

SEED = 20261129
HALVES = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}


def program_of(kind: str, shape: Any, n: int, batch: tuple[int, ...] = (), extras: Any = ()) -> Any:
    """relu(x w + bias) * 0.5, or for bytes x w alone; with `batch` the weights are an input."""
    b = Builder()
    element = "f32" if kind in HALVES else kind
    x = b.add("Parameter", (), {"shape": shape, "element_type": element}).output
    w = (
        b.add("Parameter", (), {"shape": (*batch, n, shape[-1]), "element_type": element}).output
        if batch
        else b.constant(weights_of(kind, n, shape[-1]))
    )
    y = b.add("MatMul", [x, w], {"transpose_a": False, "transpose_b": True}).output
    if kind != "i8":
        y = b.add("Relu", [b.add("Add", [y, b.constant(bias_of(n))]).output]).output
        y = b.add("Multiply", [y, b.constant(np.float32(0.5))]).output
    precision = kind if kind in HALVES else "f32"
    target = TARGETS["cuda"]._replace(extras=extras)
    return compile_graph(b.finish([y]), target, Options(precision=precision, tf32=True))


def weights_of(kind: str, n: int, k: int) -> np.ndarray:
    rng = np.random.default_rng([SEED, n, k])
    if kind == "i8":
        return rng.integers(-128, 128, (n, k)).astype(np.int8)
    return rng.standard_normal((n, k)).astype(np.float32)


def bias_of(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal(n).astype(np.float32)


def data_of(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng([SEED, *shape])
    if kind == "i8":
        return rng.integers(-128, 128, shape).astype(np.int8)
    return rng.standard_normal(shape).astype(np.float32)


def rounded(array: np.ndarray, kind: str) -> Any:
    if kind == "f32":  # TF32
        return (array.view(np.uint32) & 0xFFFFE000).view(np.float32).astype(np.float64)
    return array.astype(HALVES[kind]).astype(np.float64) if kind in HALVES else array.astype(np.int64)


def check(plan: Any, kind: str, x: np.ndarray, w: np.ndarray, inputs: list[np.ndarray]) -> None:
    """A plan's results in the interpreter that fails if the order of lanes matters."""
    integers = kind == "i8"
    memory = PlanMemory(plan, inputs, [kind if integers else "f32"])
    result = memory.run_words(Ordered)[0]
    left, right = rounded(x, kind), rounded(w, kind).swapaxes(-1, -2)
    want = left @ right
    if integers:
        np.testing.assert_array_equal(result, want.astype(result.dtype))
        return
    want = np.maximum(want + bias_of(want.shape[-1]), 0) * 0.5
    error = 2e-3 if kind == "f32" and x.shape[-2] <= 4 else 3e-6
    assert np.all(np.abs(result - want) <= np.abs(left) @ np.abs(right) * error), f"seed {SEED}"


def names_of(plan: Any) -> list[str]:
    return [step.kernel.name for step in plan.steps if "copy" not in step.kernel.name]


#: m, n, k: few tiles, with tails of rows and columns; few rows.
SIZES = [(17, 40, 2048), (33, 7, 1536), (5, 33, 4096), (3, 24, 8192), (1, 5, 4096)]


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32", "i8"])
@pytest.mark.parametrize("size", [SIZES[0], *some(SIZES[1:], 0)], ids=str)
def test_sums_of_parts_beside_float64(
    monkeypatch: pytest.MonkeyPatch, kind: str, size: tuple[int, int, int]
) -> None:
    m, n, k = size
    monkeypatch.setattr("ovjit_ops.matmul.gpu_depth_parts.LAUNCH", 0)
    plan = program_of(kind, (m, k), n).plan([(m, k)])
    x, w = data_of(kind, (m, k)), weights_of(kind, n, k)
    last = names_of(plan)[-1]
    if kind in HALVES:
        rows = "row_product_parts" if m <= 4 else "tensor_product_parts"
        assert last.startswith("add_parts") and rows in names_of(plan)[-2]
    check(plan, kind, x, w, [x])


def test_batches_of_computed_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovjit_ops.matmul.gpu_depth_parts.LAUNCH", 0)
    plan = program_of("f16", (2, 9, 2048), 20, (2,)).plan([(2, 9, 2048), (2, 20, 2048)])
    assert "tensor_product_parts" in names_of(plan)[-2]
    x = data_of("f16", (2, 9, 2048))
    w = np.stack([weights_of("f16", 20, 2048), weights_of("f16", 20, 2048)[::-1]])
    check(plan, "f16", x, np.ascontiguousarray(w), [x, np.ascontiguousarray(w)])


def test_rows_of_dynamic_shapes_choose_at_planning() -> None:
    """Few rows and tiles have parts; so many tiles that all warps have one do not."""
    program_ = program_of("f16", (Interval(1, None), 8192), 64)
    kinds = {}
    for rows in (1, 64, 40_000):
        plan = program_.plan([(rows, 8192)])
        kinds[rows] = [name.split("_f")[0] for name in names_of(plan)]
        loaded = set(program_.kernels)
        assert all(step.kernel in loaded for step in plan.steps)
    assert kinds[1][-2:] == ["row_product_parts", "add_parts"]
    assert kinds[64][-2:] == ["tensor_product_parts", "add_parts"]
    assert kinds[40_000][-1] == "tensor_product"


def test_the_estimate_keeps_the_direct_way() -> None:
    for m, n, depth in ((2048, 4096, 8192), (64, 64, 512), (64, 4096, 256), (5, 5, 1024)):
        assert choose_parts(TILES, m, n, depth, 1)[1] == 1, (m, n, depth)
    for m, n, depth in ((64, 64, 32_768), (16, 768, 24_576), (128, 128, 8192 * 8)):
        tile, parts = choose_parts(TILES, m, n, depth, 1)
        assert 1 < parts <= MOST_PARTS and depth // parts >= LEAST_PART
        direct = min(time_of(tile, 1, m, n, depth, 1) for tile in TILES)
        assert time_of(tile, parts, m, n, depth, 1) < direct
    assert parts_of_rows(4096, 8192, 1) == 1 and parts_of_rows(1024, 28_672, 1) == 4
    assert list(counts_of_parts(3 * 32 * 64, 1024)) == [1, 2, 4] and list(counts_of_parts(48, 16)) == [1]
    assert choose_parts(TILES, 64, 64, 32_768, AT_ONCE)[1] == 1  # a batch has tiles enough


def test_plans_have_no_races(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    for m in (2, 40):
        plan = program_of("f16", (m, 16_384), 24).plan([(m, 16_384)])
        assert names_of(plan)[-1].startswith("add_parts")


def test_products_of_blocks_have_parts_if_their_depth_is_long() -> None:
    for k, kernels in (16_384, ["block_product_parts", "add_parts"]), (256, ["block_product"]):
        plan = program_of("f16", (40, k), 24, extras=("sm_90", "sm_90a")).plan([(40, k)])
        names = names_of(plan)[-len(kernels) :]
        assert all(name.startswith(kernel) for name, kernel in zip(names, kernels, strict=True)), names


@pytest.mark.parametrize("m", [2, 18])
def test_code_on_threads_has_the_results_of_the_meaning(m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovjit_ops.matmul.gpu_depth_parts.LAUNCH", 0)
    n, k = 9, 4096
    plan = program_of("f16", (m, k), n).plan([(m, k)])
    x = data_of("f16", (m, k))
    results = [PlanMemory(plan, [x]).run_threads()[0], PlanMemory(plan, [x]).run_words(Ordered)[0]]
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(find_ptxas() is None, reason="the CUDA toolkit's assembler is not installed")
@pytest.mark.parametrize("kind", ["f16", "bf16", "f32"])
def test_kernels_are_assembled_without_spills(kind: str) -> None:
    for m in (3, 40):
        for step in program_of(kind, (m, 16_384), 24).plan([(m, 16_384)]).steps:
            for arch in ("sm_80", "sm_90"):
                command = [str(find_ptxas()), f"-arch={arch}", "-v", "-o", "/dev/null", "/dev/stdin"]
                ptx = compile_ptx(step.kernel.source, "entry")
                done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr
                assert " 0 bytes spill stores" in done.stderr, (step.kernel.name, done.stderr)
