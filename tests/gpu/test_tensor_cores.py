"""Products on tensor cores: the meaning of the words beside products in float64, on many shapes, and PTX that
the CUDA toolkit's assembler takes."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.codegen.warps import MOST_SHARED
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.graph.graph import Builder
from ovjit_ops.matmul import gpu_products
from ovjit_ops.matmul.gpu_products import TILES, Tile
from tests.support.assembler import find_ptxas
from tests.support.gpu_words import Words
from tests.support.plan_memory import PlanMemory
from tests.support.sweeps import some
from tests.support.warp_meanings import NotArrived

SEED = 20261128
DTYPES = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "i8": np.int8, "u8": np.uint8}


def program_of(
    kind: str, shapes: Any, attrs: dict[str, bool], weights: np.ndarray | None, fused: bool
) -> Any:
    """relu(a b + bias) * a tensor, or a b alone. `weights`: the constant b."""
    b = Builder()
    precision = kind if kind in ("f16", "bf16") else "f32"
    element = "f32" if kind in ("f16", "bf16") else kind
    a = b.add("Parameter", (), {"shape": shapes[0], "element_type": element}).output
    if weights is None:
        w = b.add("Parameter", (), {"shape": shapes[1], "element_type": element}).output
    else:
        w = b.constant(weights)
    y = b.add("MatMul", [a, w], attrs).output
    if fused:
        y = b.add("Relu", [b.add("Add", [y, b.constant(bias_of(shapes[1], attrs))]).output]).output
        y = b.add("Multiply", [y, b.constant(np.float32(0.5))]).output
    return compile_graph(b.finish([y]), TARGETS["cuda"], Options(precision=precision, tf32=True))


def bias_of(shape: tuple[int, ...], attrs: dict[str, bool]) -> np.ndarray:
    n = shape[-2 if attrs["transpose_b"] else -1]
    return np.random.default_rng(n).standard_normal(n).astype(np.float32)


def run(plan: Any, inputs: list[np.ndarray], dtype: str) -> np.ndarray:
    memory = PlanMemory(plan, inputs, [dtype])
    return memory.run_words(Words)[0]


def expected(arrays: list[np.ndarray], kind: str, attrs: dict[str, bool], fused: bool) -> Any:
    """The product in float64, or in integers, and the sum of the magnitudes."""
    if kind == "f32":  # TF32
        rounded: Any = [(x.view(np.uint32) & 0xFFFFE000).view(np.float32).astype(np.float64) for x in arrays]
    elif kind in ("i8", "u8"):
        rounded = [x.astype(np.int64) for x in arrays]
    else:
        rounded = [x.astype(DTYPES[kind]).astype(np.float64) for x in arrays]
    a = rounded[0].swapaxes(-1, -2) if attrs["transpose_a"] else rounded[0]
    b = rounded[1].swapaxes(-1, -2) if attrs["transpose_b"] else rounded[1]
    product, size = a @ b, np.abs(a) @ np.abs(b)
    if fused:
        product = np.maximum(product + bias_of(arrays[1].shape, attrs), 0) * 0.5
    return product, size


#: (m, n, k) with all tails of tiles, steps and pieces; the depth is a multiple of 16 bytes.
SIZES = [
    (5, 7, 16), (17, 33, 48), (33, 65, 80), (16, 32, 128), (70, 65, 32), (1, 40, 96), (4, 3, 16), (64, 1, 64),
    (3, 130, 272), (129, 31, 16), (15, 64, 112), (31, 16, 160),
]  # fmt: skip


def cases() -> list[Any]:
    rng = np.random.default_rng(SEED)
    rows = []
    for i, (m, n, k) in enumerate(SIZES):
        for kind in DTYPES:
            attrs = {"transpose_a": bool(rng.integers(2)), "transpose_b": bool(rng.integers(2))}
            batch = [((), ()), ((2,), (2,)), ((2,), (1,)), ((2, 1), (3,))][
                int(rng.integers(4)) if m < 40 else 0
            ]
            rows.append((kind, (m, n, k), batch, attrs, bool(rng.integers(2)), i % 2 == 0))
    return rows


@pytest.mark.parametrize(
    "case", some(cases(), 15), ids=lambda case: f"{case[0]}-{'x'.join(map(str, case[1]))}"
)
def test_products_beside_float64(case: Any) -> None:
    kind, (m, n, k), batch, attrs, is_constant, fused = case
    fused &= kind not in ("i8", "u8")
    shapes = [(*batch[0], m, k), (*batch[1], k, n)]
    for i, name in enumerate(("transpose_a", "transpose_b")):
        if attrs[name]:
            shapes[i] = (*shapes[i][:-2], shapes[i][-1], shapes[i][-2])
    rng = np.random.default_rng([SEED, m, n, k])
    if kind in ("i8", "u8"):
        low, high = (-128, 128) if kind == "i8" else (0, 256)
        arrays = [rng.integers(low, high, shape).astype(DTYPES[kind]) for shape in shapes]
    else:
        arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    program_ = program_of(kind, shapes, attrs, arrays[1] if is_constant else None, fused)
    plan = program_.plan([v.shape for v in program_.graph.inputs])
    names = [step.kernel.name for step in plan.steps if step.kernel is not None]
    assert any(name.startswith(("tensor_product", "row_product")) for name in names), names
    out = kind if kind in ("i8", "u8") else "f32"
    result = run(plan, arrays[: 1 if is_constant else 2], out)
    want, size = expected(arrays, kind, attrs, fused)
    if out != "f32":
        np.testing.assert_array_equal(result, want.astype(result.dtype), err_msg=f"seed {SEED}")
    elif kind == "f32" and m <= gpu_products.MOST_ROWS:
        assert np.all(np.abs(result - want) <= size * 2e-3), f"seed {SEED}"  # rows are multiplied in f32
    else:
        assert np.all(np.abs(result - want) <= size * 2e-6), f"seed {SEED}"


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("m", [2, 19])
def test_code_on_threads_has_the_results_of_the_meaning(kind: str, m: int) -> None:
    """The LLVM code of the kernels, but for the instructions of tensor cores."""
    fused, attrs = kind not in ("i8", "u8"), {"transpose_a": False, "transpose_b": True}
    rng = np.random.default_rng(SEED)
    shapes = [(m, 48), (35, 48)]
    arrays = [rng.integers(0, 9, shape).astype(DTYPES[kind] if not fused else np.float32) for shape in shapes]
    program_ = program_of(kind, shapes, attrs, arrays[1], fused)
    plan, dtype = program_.plan([shapes[0]]), "f32" if fused else kind
    want = run(plan, arrays[:1], dtype)
    memory = PlanMemory(plan, arrays[:1], [dtype])
    np.testing.assert_array_equal(memory.run_threads()[0], want)


def kernel_of(tile: Tile, kind: str = "f16") -> str:
    sums = gpu_products.SUMS[kind]
    kernel = gpu_products.tensor_product(
        T=kind, sums=sums, out=sums, body=None, first="", second="", third="", **tile._asdict()
    )
    return kernel.source


def test_tiles_fit_the_shared_memory() -> None:
    for tile in TILES:
        size = int(re.search(r"shared_memory\((\d+)\)", kernel_of(tile))[1])  # type: ignore[index]
        assert size <= MOST_SHARED and size >= 16 * (tile.columns * 4 + gpu_products.GAP)


def is_too_early(plan: Any, x: np.ndarray) -> bool:
    try:
        run(plan, [x], "f32")
    except NotArrived:
        return True
    return False


def test_what_a_card_would_read_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait and each barrier of the kernel is needed: without it the interpreter fails."""
    rng = np.random.default_rng(SEED)
    x, weights = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 144), (144, 32)))
    attrs = {"transpose_a": False, "transpose_b": False}
    plan = program_of("f16", [x.shape, weights.shape], attrs, weights, False).plan([x.shape])
    (kernel,) = [step.kernel for step in plan.steps if step.kernel.name.startswith("tensor_product")]
    lines = kernel.source.splitlines()
    guards = [
        i for i, line in enumerate(lines) if line.strip().startswith(("warp_barrier", "await_copies(2"))
    ]
    assert len(guards) == 5 and not is_too_early(plan, x)
    # the last one is between the items of a chunk, and this product has a single item
    for i in guards[:-1]:
        without = "\n".join([*lines[:i], re.sub(r"\S.*", "pass", lines[i]), *lines[i + 1 :]])
        with monkeypatch.context() as patch:
            patch.setattr(kernel, "source", without)
            assert is_too_early(plan, x), lines[i]


@pytest.mark.parametrize("kind", DTYPES)
def test_ptx_waits_and_meets_before_it_reads(kind: str) -> None:
    """LLVM keeps the order of copies, waits, barriers and loads of fragments."""
    text = compile_ptx(kernel_of(TILES[-1], kind), "entry")
    order = [
        word for line in text.splitlines()
        for word in ("cp.async.wait_group", "bar.warp.sync", "ldmatrix", "mma.sync") if word in line
    ]  # fmt: skip
    first = order.index("cp.async.wait_group")
    assert order[first : first + 3] == ["cp.async.wait_group", "bar.warp.sync", "ldmatrix"]
    assert "ldmatrix" not in order[:first] and order.count("mma.sync") == 4
    assert text.count("cp.async.ca.shared.global") == 3 * (TILES[-1].stages - 1) + 3


@pytest.mark.skipif(find_ptxas() is None, reason="the CUDA toolkit's assembler is not installed")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("tile", some(TILES, 1), ids=lambda tile: f"{tile.rows}x{tile.columns}")
def test_products_are_assembled_without_spills(tile: Tile, arch: str) -> None:
    for kind in DTYPES:
        command = [str(find_ptxas()), f"-arch={arch}", "-v", "-o", "/dev/null", "/dev/stdin"]
        ptx = compile_ptx(kernel_of(tile, kind), "entry")
        done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert " 0 bytes spill stores" in done.stderr, done.stderr
