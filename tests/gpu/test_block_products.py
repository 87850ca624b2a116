"""Products by blocks of warps (`wgmma`, TMA): the meaning of the words beside products in float64, what it
finds, PTX that the toolkit's assembler takes, and launches by the stand-in for the driver."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.engine import compile_graph as compile_for_card
from ovjit.execution.numpy_words import Memory
from ovjit.gpu import device_job, driver
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.symbolic import Interval
from ovjit_ops.matmul import gpu_block_lowering
from ovjit_ops.matmul.gpu_block_products import FEATURE, TILES, BlockTile, block_product
from tests.support.assembler import find_ptxas
from tests.support.block_meanings import Deadlock
from tests.support.card_words import CardWords
from tests.support.fake_cuda import FakeCuda, install
from tests.support.gpu_words import program
from tests.support.plan_memory import PlanMemory
from tests.support.sweeps import some
from tests.support.warp_meanings import NotArrived

SEED = 20261129
HOPPER = TARGETS["cuda"]._replace(extras=(FEATURE,))
DTYPES = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "u8": np.uint8}


def graph_of(shape: Any, weights: np.ndarray, bias: np.ndarray | None, residual: bool, kind: str) -> Graph:
    """x w; or relu(x w + bias), with `residual` plus a second input; x [..., k], w [k, n]."""
    b = Builder()
    element = "i8" if kind == "u8" else "f32"
    x = b.add("Parameter", (), {"shape": shape, "element_type": element}).output
    y = b.add("MatMul", [x, b.constant(weights)], {"transpose_a": False, "transpose_b": False}).output
    if bias is not None:
        y = b.add("Relu", [b.add("Add", [y, b.constant(bias)]).output]).output
    if residual:
        more = b.add(
            "Parameter", (), {"shape": (*shape[:-1], weights.shape[1]), "element_type": "f32"}
        ).output
        y = b.add("Add", [y, more]).output
    return b.finish([y])


def run(plan: Any, inputs: list[np.ndarray], dtype: str = "f32") -> np.ndarray:
    memory = PlanMemory(plan, inputs, [dtype])
    return memory.run_words()[0]


def rounded(array: np.ndarray, kind: str) -> np.ndarray:
    if kind == "f32":  # TF32
        return (array.view(np.uint32) & 0xFFFFE000).view(np.float32).astype(np.float64)
    return array.astype(np.int64) if kind == "u8" else array.astype(DTYPES[kind]).astype(np.float64)


#: (rows, n, depth): tails of tiles, strips, steps and rings; several tiles of a block.
SIZES = [
    ((5,), 40, 96), ((70,), 136, 272), ((2, 33), 72, 64), ((129,), 8, 1040), ((3, 1, 7), 264, 16), ((1,),
    32, 128),
    ((64,), 64, 2064), ((200,), 48, 400),
]  # fmt: skip


@pytest.mark.parametrize("tile", some(TILES, 3), ids=lambda tile: f"{tile.rows}x{tile.columns}")
@pytest.mark.parametrize("kind", DTYPES)
def test_products_beside_float64(kind: str, tile: BlockTile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_block_lowering, "TILES", (tile,))
    monkeypatch.setattr(gpu_block_lowering, "PROCESSORS", 3)
    number = TILES.index(tile)
    for i in (number, number + 2):
        rows, n, k = SIZES[i % len(SIZES)]
        rng = np.random.default_rng([SEED, i])
        integers = kind == "u8"
        bias = None if integers or i % 3 == 0 else rng.standard_normal(n).astype(np.float32)
        residual = not integers and i % 2 == 0
        if integers:
            x = rng.integers(-128, 128, (*rows, k)).astype(np.int8)  # rewritten for u8
            w = rng.integers(-128, 128, (k, n)).astype(np.int8)
        else:
            x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((*rows, k), (k, n)))
        graph = graph_of(x.shape, w, bias, residual, kind)
        inputs = [x]
        if residual:
            inputs.append(rng.standard_normal((*rows, n)).astype(np.float32))
        precision = kind if kind in ("f16", "bf16") else "f32"
        options = Options(precision=precision, tf32=True)
        plan = compile_graph(graph, HOPPER, options).plan([v.shape for v in graph.inputs])
        names = [step.kernel.name for step in plan.steps]
        assert any(name.startswith("block_product") for name in names), names
        result = run(plan, inputs, "i8" if integers else "f32")
        want = rounded(x, kind) @ rounded(w, kind)
        if integers:
            np.testing.assert_array_equal(result, want.astype(result.dtype), err_msg=f"seed {SEED}")
            continue
        size = np.abs(rounded(x, kind)) @ np.abs(rounded(w, kind))
        if bias is not None:
            want = np.maximum(want + bias, 0)
        if residual:
            want = want + inputs[1]
        assert np.all(np.abs(result - want) <= size * 2e-6 + 1e-6), f"seed {SEED}"


@pytest.mark.parametrize("kind", ["f16", "f32", "u8"])
def test_parts_of_the_depth_are_added_up(kind: str) -> None:
    """Few tiles of a long depth: each block has a part, and a further step has the epilogue."""
    rng, integers = np.random.default_rng(SEED), kind == "u8"
    if integers:
        x, w = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((40, 4096), (4096, 40)))
    else:
        x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((40, 2048), (2048, 40)))
    bias = None if integers else rng.standard_normal(40).astype(np.float32)
    graph = graph_of(x.shape, w, bias, not integers, kind)
    inputs = [x] if integers else [x, rng.standard_normal((40, 40)).astype(np.float32)]
    options = Options(precision="f16" if kind == "f16" else "f32", tf32=True)
    plan = compile_graph(graph, HOPPER, options).plan([v.shape for v in graph.inputs])
    names = [step.kernel.name for step in plan.steps]
    (number,) = (i for i, name in enumerate(names) if name.startswith("block_product_parts"))
    assert names[number + 1].startswith("add_parts") and plan.chunks_of(number) % 4 == 0, names
    result, want = run(plan, inputs, "i8" if integers else "f32"), rounded(x, kind) @ rounded(w, kind)
    if integers:
        np.testing.assert_array_equal(result, want.astype(result.dtype), err_msg=f"seed {SEED}")
        return
    size = np.abs(rounded(x, kind)) @ np.abs(rounded(w, kind))
    want = np.maximum(want + bias, 0) + inputs[1]
    assert np.all(np.abs(result - want) <= size * 2e-6 + 1e-6), f"seed {SEED}"


def test_blocks_have_several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_block_lowering, "PROCESSORS", 2)
    rng = np.random.default_rng(SEED)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((150, 2064), (2064, 104)))
    graph = graph_of(x.shape, w, None, False, "f16")
    plan = compile_graph(graph, HOPPER, Options(precision="f16")).plan([x.shape])
    (number,) = (i for i, step in enumerate(plan.steps) if step.kernel.name.startswith("block_product"))
    assert plan.chunks_of(number) == 2
    want = rounded(x, "f16") @ rounded(w, "f16")
    assert np.abs(run(plan, [x]) - want).max() < 1e-3


def source_of(tile: BlockTile, kind: str = "f16", out: str = "f16", **how: Any) -> str:
    sums = "i32" if kind == "u8" else "f32"
    body = {"body": None, "first": "", "second": "", "third": "", "computed": False, **how}
    return block_product(
        T=kind, sums=sums, out=out, rows=tile.rows, columns=tile.columns, stages=tile.stages, **body
    ).source


def failure_of(plan: Any, x: np.ndarray) -> type[BaseException] | None:
    try:
        run(plan, [x])
    except (NotArrived, Deadlock) as error:
        return type(error)
    return None


#: Word -> where it stands: each is needed, and without it the interpreter fails.
NEEDED = (
    "await_phase",
    "arrive(",
    "await_space",
    "await_leaders",
    "meet_block",
    "await_group_32_f16(csums, 0)",
)


@pytest.mark.parametrize("word", NEEDED)
def test_what_a_card_would_read_too_early_is_found(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(SEED)
    tile = BlockTile(1, 32, 2)
    monkeypatch.setattr(gpu_block_lowering, "TILES", (tile,))
    monkeypatch.setattr(gpu_block_lowering, "PROCESSORS", 1)  # a block has two tiles
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((40, 640), (640, 40)))
    graph = graph_of(x.shape, w, None, False, "f16")
    plan = compile_graph(graph, HOPPER, Options(precision="f16")).plan([x.shape])
    assert failure_of(plan, x) is None
    (kernel,) = [step.kernel for step in plan.steps if step.kernel.name.startswith("block_product")]
    lines = kernel.source.splitlines()
    found = [i for i, line in enumerate(lines) if re.match(rf"(csums = )?{re.escape(word)}", line.strip())]
    assert found
    for i in found:
        without = "\n".join([*lines[:i], re.sub(r"\S.*", "pass", lines[i]), *lines[i + 1 :]])
        with monkeypatch.context() as patch:
            patch.setattr(kernel, "source", without)
            assert failure_of(plan, x) is not None, lines[i]


def test_all_warps_that_wait_are_a_deadlock() -> None:
    args = np.zeros(64, np.int64)
    memory = Memory([(args.ctypes.data, args.nbytes, "memory")])
    lines = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", "    p = block_memory(64, 2)",
             "    if warp_number() == 0:", "        begin_barrier(p, 1)", "    meet_block()",
             "    await_phase(p, 0)", "    return 0", ""]  # fmt: skip
    with pytest.raises(Deadlock, match="nothing is on its way"):
        program("\n".join(lines), CardWords(32, memory))(0, args.ctypes.data, 0, 0)


@pytest.mark.skipif(find_ptxas() is None, reason="the CUDA toolkit's assembler is not installed")
@pytest.mark.parametrize("tile", some(TILES, 1), ids=lambda tile: f"{tile.rows}x{tile.columns}")
def test_products_are_assembled_without_spills(tile: BlockTile) -> None:
    for kind in DTYPES:
        out = "i32" if kind == "u8" else kind
        ptx = compile_ptx(source_of(tile, kind, out), "entry")
        command = [str(find_ptxas()), "-arch=sm_90a", "-v", "-o", "/dev/null", "/dev/stdin"]
        done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert " 0 bytes spill stores" in done.stderr, done.stderr
        assert "Potential Performance Loss" not in done.stderr, done.stderr  # such as serialized products


def run_job(job: Any, x: np.ndarray) -> np.ndarray:
    job.set_input(0, x)
    job.run()
    return np.array(job.outputs[0])


def test_a_card_of_capability_9_runs_blocks(cuda: FakeCuda) -> None:
    rng = np.random.default_rng(SEED)
    w, bias = rng.standard_normal((96, 40)).astype(np.float32), rng.standard_normal(40).astype(np.float32)
    graph = graph_of((Interval(1, None), 96), w, bias, False, "f16")
    job = compile_for_card(graph, {"card": 0, "INFERENCE_PRECISION_HINT": "f16"}).new_job()
    for rows in (3, 80, 3, *range(90, 90 + device_job.MOST_GRAPHS)):  # the last ones update graphs
        x = rng.standard_normal((rows, 96)).astype(np.float32)
        want = np.maximum(rounded(x, "f16") @ rounded(w, "f16") + bias, 0)
        assert np.abs(run_job(job, x) - want).max() < 1e-3, rows
    assert "cuLaunchKernelEx" in cuda.calls and cuda.calls.count("cuFuncSetAttribute") > 0


def test_other_cards_run_warps(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability in ((8, 0), (8, 9), (10, 0), (12, 0)):  # sm_90a is for 9.0 alone
        install(monkeypatch, FakeCuda(capability=capability))
        assert driver.features_of(0) == (("sm_90",) if capability == (10, 0) else ())
    for version, features in ((12030, ()), (12040, ("sm_90", "sm_90a"))):
        fake = install(monkeypatch, FakeCuda())
        fake.version = version
        assert driver.features_of(0) == features
    for hidden, features in (("sm_90a", ("sm_90",)), ("sm_90,sm_90a", ())):
        monkeypatch.setenv("OVJIT_HIDE", hidden)
        assert driver.features_of(0) == features
    driver.forget()
