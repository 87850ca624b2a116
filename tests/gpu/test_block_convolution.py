"""Convolutions by blocks of warps: beside the reference, what the interpreter finds, PTX that the toolkit's
assembler takes, and tensor maps by the stand-in for the driver."""

from __future__ import annotations

import subprocess
from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.engine import compile_graph as compile_for_card
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.interp import evaluate
from ovjit_ops.convolution import gpu_block_convolution
from ovjit_ops.convolution.gpu_block_convolution import Box, block_convolution, find_box
from ovjit_ops.matmul.gpu_block_products import FEATURE, TILES, BlockTile
from tests.support.assembler import find_ptxas
from tests.support.fake_cuda import FakeCuda
from tests.support.plan_memory import PlanMemory
from tests.support.run import run_job
from tests.support.sweeps import some
from tests.support.warp_meanings import NotArrived

SEED = 20261129
#: The tiles of convolutions.
NARROW = [tile for tile in TILES if tile.columns < 256]
HOPPER = TARGETS["cuda"]._replace(extras=(FEATURE,))
#: Data, filters, strides, pads before and behind, dilations, a residual.
CASES: tuple[Any, ...] = (
    ((1, 64, 9, 11), (40, 64, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), False),
    ((2, 64, 7, 7), (64, 64, 1, 1), (1, 1), (0, 0), (0, 0), (1, 1), True),
    ((1, 128, 9, 9), (24, 128, 3, 3), (2, 2), (1, 1), (1, 1), (1, 1), True),
    ((3, 64, 5, 6), (16, 64, 3, 3), (1, 1), (2, 2), (2, 2), (2, 2), False),
    ((5, 64, 4, 4), (72, 64, 2, 3), (1, 2), (0, 2), (1, 0), (1, 1), False),
    ((2, 64, 70), (32, 64, 5), (1,), (2,), (2,), (1,), True),
    ((1, 192, 17, 3), (8, 192, 1, 1), (2, 1), (0, 0), (0, 0), (1, 1), False),
)  # fmt: skip


def graph_of(case: Any, kind: str) -> tuple[Graph, list[np.ndarray]]:
    """relu(convolution + bias), with a residual that is added before, and inputs that `kind` has exactly."""
    data, filters, strides, begin, end, dilations, residual = case
    rng, exact = np.random.default_rng(SEED), numpy_dtype(kind)
    b = Builder()
    weights = rng.standard_normal(filters).astype(exact).astype(np.float32)
    x = b.add("Parameter", (), {"shape": data, "element_type": "f32"}).output
    attrs = {"strides": strides, "pads_begin": begin, "pads_end": end, "dilations": dilations}
    y = b.add("Convolution", [x, b.constant(weights)], attrs).output
    bias = rng.standard_normal((1, filters[0], *[1] * (len(data) - 2))).astype(np.float32)
    y = b.add("Add", [y, b.constant(bias)]).output
    arrays = [rng.standard_normal(data).astype(exact).astype(np.float32)]
    if residual:
        more = b.add("Parameter", (), {"shape": y.shape, "element_type": "f32"}).output
        arrays.append(rng.standard_normal(y.shape).astype(np.float32))
        y = b.add("Add", [y, more]).output
    return b.finish([b.add("Relu", [y]).output]), arrays


def run(plan: Any, inputs: list[np.ndarray]) -> np.ndarray:
    memory = PlanMemory(plan, inputs, ["f32"])
    return memory.run_words()[0]


@pytest.mark.parametrize(
    "case", some(list(CASES), 4), ids=lambda case: "x".join(map(str, (*case[0], *case[1])))
)
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_convolutions_beside_the_reference(case: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    number = CASES.index(case) + (kind == "bf16")
    monkeypatch.setattr(gpu_block_convolution, "TILES", (NARROW[number % len(NARROW)],))
    monkeypatch.setattr(gpu_block_convolution, "PROCESSORS", 2)
    graph, arrays = graph_of(case, kind)
    plan = compile_graph(graph, HOPPER, Options(precision=kind)).plan([a.shape for a in arrays])
    names = [step.kernel.name for step in plan.steps]
    assert any(name.startswith("block_convolution") for name in names), names
    want = evaluate(graph, arrays)[0]
    result = run(plan, arrays)
    # operands of the epilogue may have been rounded
    room = 3e-6 if len(arrays) == 1 else 3e-3 if kind == "f16" else 2e-2
    assert np.abs(result - want).max() <= room * np.abs(want).max(), f"seed {SEED}"


def test_boxes_have_few_tiles() -> None:
    for space, rows, strides, most in (
        ((1, 56, 56), 128, (1, 1), 28), ((1, 14, 14), 64, (1, 1), 4), ((4, 7, 7), 128, (1, 1), 2),
        ((1, 1, 1000), 64, (1, 1), 16), ((1, 28, 28), 128, (2, 2), 7), ((1, 3, 500), 128, (8, 8), 16),
    ):  # fmt: skip
        box = find_box(space, rows, strides)
        assert np.prod(box) <= rows and box.tiles(space) <= most, (space, box)
        assert max(box.lines * strides[0], box.pixels * strides[1], box.images) <= 256
    assert Box(1, 2, 3).tiles((2, 3, 4)) == 8


def test_a_window_before_the_wait_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_block_convolution, "PROCESSORS", 1)
    monkeypatch.setattr(gpu_block_convolution, "TILES", (BlockTile(1, 32, 2),))
    graph, arrays = graph_of(CASES[0], "f16")
    plan = compile_graph(graph, HOPPER, Options(precision="f16")).plan([a.shape for a in arrays])
    (kernel,) = [s.kernel for s in plan.steps if s.kernel.name.startswith("block_convolution")]
    for word in ("await_phase", "await_space", "await_leaders"):
        with monkeypatch.context() as patch:
            lines = [
                line.replace(line.strip(), "pass") if line.strip().startswith(word) else line
                for line in kernel.source.splitlines()
            ]
            patch.setattr(kernel, "source", "\n".join(lines))
            with pytest.raises(NotArrived):
                run(plan, arrays)


@pytest.mark.skipif(find_ptxas() is None, reason="the CUDA toolkit's assembler is not installed")
@pytest.mark.parametrize("tile", some(NARROW, 1), ids=lambda tile: f"{tile.rows}x{tile.columns}")
@pytest.mark.parametrize("operand", ["", "f16"])
def test_convolutions_are_assembled_without_spills(tile: BlockTile, operand: str) -> None:
    source = block_convolution(
        T="f16", sums="f32", out="f16", body=None, first=operand, second=operand, third="", rows=tile.rows,
        columns=tile.columns, stages=tile.stages,
    ).source  # fmt: skip
    command = [str(find_ptxas()), "-arch=sm_90a", "-v", "-o", "/dev/null", "/dev/stdin"]
    ptx = compile_ptx(source, "entry")
    done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " 0 bytes spill stores" in done.stderr, done.stderr
    assert "Potential Performance Loss" not in done.stderr, done.stderr


def test_tensor_maps_describe_the_data(cuda: FakeCuda) -> None:
    graph, arrays = graph_of(CASES[2], "f16")
    job = compile_for_card(graph, {"card": 0, "INFERENCE_PRECISION_HINT": "f16"}).new_job()
    run_job(job, arrays)
    want = evaluate(graph, arrays)[0]
    assert np.abs(job.outputs[0] - want).max() <= 3e-3 * np.abs(want).max()
    assert "cuTensorMapEncodeTiled" in cuda.calls
