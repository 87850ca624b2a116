"""Products with weights of 8 and 4 bits on cards: beside float64, and PTX that the toolkit's assembler
takes."""

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
from ovjit.graph.graph import Builder, Graph
from ovjit_ops.matmul.gpu_block_products import FEATURE
from ovjit_ops.matmul.gpu_code_tiles import MOST_ROWS, TEAM, code_tiles, parts_of_group
from ovjit_ops.matmul.gpu_compressed import compressed_rows, shift_of, unpack_weights
from ovjit_ops.matmul.gpu_depth_parts import PLAIN
from tests.support.assembler import find_ptxas
from tests.support.plan_memory import PlanMemory
from tests.support.sweeps import some

SEED = 20261129
CUDA = TARGETS["cuda"]
#: Rows, n, k, bits, group, signed, zeros, an epilogue.
CASES: list[Any] = [
    ((3,), 40, 96, 4, 32, False, True, True), ((1,), 33, 1040, 8, 2048, True, False, False),
    ((2, 3), 24, 264, 4, 8, False, True, False), ((30,), 40, 136, 8, 64, False, True, True),
    ((1, 17), 72, 64, 4, 64, False, True, False), ((70,), 35, 272, 4, 128, False, False, True),
    ((5,), 8, 2056, 8, 16, True, True, False), ((9,), 64, 128, 8, 32, True, False, True),
    ((8,), 24, 2344, 4, 128, False, True, True), ((2,), 17, 1144, 8, 128, True, True, False),
]  # fmt: skip
DTYPES: dict[str, Any] = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32}


def graph_of(case: Any) -> tuple[Graph, np.ndarray, np.ndarray, np.ndarray | None]:
    """The graph, x, the weights in float64, and the bias if there is an epilogue relu(y + bias)."""
    rows, n, k, bits, group, signed, has_zeros, fused = case
    rng = np.random.default_rng([SEED, n, k])
    low, high = (-128, 127) if signed else (0, (1 << bits) - 1)
    codes = rng.integers(low, high + 1, (k, n)).astype(np.int8 if signed else np.uint8)
    groups = -(-k // group)
    scale = rng.uniform(0.001, 0.02, (groups, n)).astype(np.float32)
    zero = rng.integers(low, high + 1, (groups, n)).astype(np.float32) if has_zeros else None
    b = Builder()
    x = b.add("Parameter", (), {"shape": (*rows, k), "element_type": "f32"}).output
    parts = [b.constant(codes), b.constant(scale), *([] if zero is None else [b.constant(zero)])]
    attrs = {"bits": bits, "group": group, "transpose_a": False, "dynamic": 0, "kind": "", "kinds": 1}
    y, bias = b.add("CompressedMatMul", [x, *parts], attrs).output, None
    if fused:
        bias = rng.standard_normal(n).astype(np.float32)
        y = b.add("Relu", [b.add("Add", [y, b.constant(bias)]).output]).output
    each = np.arange(k) // group
    weights = codes.astype(np.float64) - (0 if zero is None else zero[each])
    return b.finish([y]), rng.standard_normal((*rows, k)).astype(np.float32), weights * scale[each], bias


@pytest.mark.parametrize("case", some(CASES, 5), ids=str)
@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("extras", [(), (FEATURE,)], ids=["warps", "blocks"])
def test_products_beside_float64(case: Any, kind: str, extras: tuple[str, ...]) -> None:
    graph, x, weights, bias = graph_of(case)
    plan = compile_graph(graph, CUDA._replace(extras=extras), Options(precision=kind)).plan([x.shape])
    names = [step.kernel.name for step in plan.steps if step.kernel is not None]
    assert len(names) == len(plan.steps), "a step runs on the host"
    unpacks = int(np.prod(x.shape[:-1])) > MOST_ROWS and kind != "f32"
    assert any(name.startswith("unpack_weights") for name in names) == unpacks, names
    _, _, k, bits, group, *_ = case
    tiled = kind != "f32" and group >= 32 and (bits == 4 or kind == "f16")
    stem = "code_tiles" if tiled else "compressed_rows"
    assert any(name.startswith(stem) for name in names) != unpacks, names
    memory = PlanMemory(plan, [x], ["f32"])
    result = memory.run_words()[0]
    data = x.astype(DTYPES[kind]).astype(np.float64)
    used = weights.astype(np.float32).astype(DTYPES[kind]).astype(np.float64) if unpacks else weights
    want, size = data @ used, np.abs(data) @ np.abs(used)
    if not unpacks:  # zeros are subtracted from sums
        size = size + 0.02 * 255 * np.abs(data).sum(-1, keepdims=True)
    if bias is not None:
        want = np.maximum(want + bias, 0)
    # weights are computed in f32 before they are rounded
    room = {"f16": 2.0**-11, "bf16": 2.0**-8}.get(kind, 0) if unpacks else 0
    assert np.all(np.abs(result - want) <= size * (3e-6 + room) + 1e-5), f"seed {SEED}"


def test_groups_are_powers_of_two_of_units() -> None:
    assert [shift_of(g, 256) for g in (8, 16, 128, 256, 999)] == [0, 1, 4, 31, 31]
    assert [shift_of(g, 256) for g in (4, 12, 24, 100)] == [None] * 4


def test_weights_of_a_model_stay_packed() -> None:
    """A product with Convert, Subtract and Multiply: the constants have the size of the codes."""
    rng = np.random.default_rng(SEED)
    b = Builder()
    x = b.add("Parameter", (), {"shape": (1, 512), "element_type": "f32"}).output
    codes = b.constant(rng.integers(0, 256, (512, 384)).astype(np.uint8))
    wide = b.add("Convert", [codes], {"destination_type": "f32"}).output
    wide = b.add("Subtract", [wide, b.constant(np.float32(127))]).output
    weights = b.add("Multiply", [wide, b.constant(rng.random((1, 384)).astype(np.float32))]).output
    y = b.add("MatMul", [x, weights], {"transpose_a": False, "transpose_b": False}).output
    plan = compile_graph(b.finish([y]), CUDA, Options(precision="f16")).plan([(1, 512)])
    assert any(step.kernel.name.startswith("code_tiles_8") for step in plan.steps)
    assert plan.memory.nbytes < 512 * 384 * 1.1


@pytest.mark.skipif(find_ptxas() is None, reason="the CUDA toolkit's assembler is not installed")
@pytest.mark.parametrize("width", [4, 8])
def test_kernels_are_assembled_without_spills(width: int) -> None:
    plain: dict[str, Any] = {"out": "f16", "width": width, **PLAIN}
    kernels = [compressed_rows(T="f16", rows=4, columns=2, **plain)]
    kernels += [unpack_weights(T="f16", width=width, image=True, tiled=tiled) for tiled in (False, True)]
    parts = [parts_of_group(width, units) for units in (4, 16)]
    for dtype in ("f16", "bf16")[: 3 - width // 4]:
        kernels += [code_tiles(T=dtype, warps=TEAM, **part, **plain) for part in parts]
    for source in (kernel.source for kernel in kernels):
        command = [str(find_ptxas()), "-arch=sm_80", "-v", "-o", "/dev/null", "/dev/stdin"]
        ptx = compile_ptx(source, "entry")
        done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert " 0 bytes spill stores" in done.stderr, done.stderr
