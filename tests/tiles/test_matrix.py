"""Tiles of a matrix unit: the bits of its interpreter on a machine that has it, and sums beside NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

import ovjit as ov
from ovjit import opset13 as op
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.targets import MATRIX
from ovjit.tiles.matrix import PIXELS
from ovjit_ops.attention.cpu_attention import FEW_ROWS

HERE = MATRIX <= set(host_target().extras)
pytestmark = pytest.mark.skipif(not HERE, reason="this machine has no matrix unit")
#: Pixels of a tile, and what is around that.
HEIGHTS = (1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 100)
SEED = 20261123


def product(rng: np.random.Generator, rows: int, depth: int, columns: int) -> tuple[Any, list[np.ndarray]]:
    """A product with a bias, a residual in place and a relu."""
    x, y = op.parameter([rows, depth], np.float32), op.parameter([rows, columns], np.float32)
    weights = rng.integers(-8, 9, (depth, columns)).astype(np.float32) / 8
    z = op.add(op.matmul(x, op.constant(weights), False, False), op.constant(weights[:1]))
    given = [rng.integers(-8, 9, shape).astype(np.float32) / 8 for shape in ((rows, depth), (rows, columns))]
    want = given[0].astype(np.float64) @ weights + weights[:1] + given[1]
    return ov.Model([op.relu(op.add(z, y))], [x, y], "product"), [*given, np.maximum(want, 0)]


def run(model: Any, given: list[np.ndarray], precision: str = "bf16", **config: Any) -> tuple[Any, list[str]]:
    config |= {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True}
    request = ov.compile_model(model, "CPU", config).create_infer_request()
    request.infer(given)
    return np.array(request.get_output_tensor(0).data), [r.exec_type for r in request.get_profiling_info()]


def check_interpreter(
    model: Any, given: list[np.ndarray], kernel: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The interpreter gives the bits of machine code, of a kernel with this in its name."""
    want, _ = run(model, given)
    monkeypatch.setenv("OVJIT_INTERP", "kernels")
    got, kernels = run(model, given)
    assert any(kernel in name for name in kernels), kernels
    np.testing.assert_array_equal(got, want, err_msg=f"seed {seed}")


@pytest.mark.parametrize("rows", HEIGHTS)
def test_products_of_any_size(rows: int) -> None:
    """Numbers whose sums are exact: every element has to be right."""
    rng = np.random.default_rng(SEED + rows)
    for _ in range(4):
        depth, columns = (int(n) for n in rng.integers(1, 130, 2))
        model, (*given, want) = product(rng, rows, depth, columns)
        got, kernels = run(model, given)
        where = f"seed {SEED + rows}: {rows} x {depth} x {columns}"
        assert any("amx_bf16" in kernel for kernel in kernels), f"{where}: {kernels}"
        # what is stored of the left side and between nodes is bf16
        np.testing.assert_allclose(got, want, rtol=2.0**-7, atol=2.0**-7, err_msg=where)


@pytest.mark.parametrize("turned", [False, True])
def test_products_of_two_computed_tensors(turned: bool) -> None:
    rng = np.random.default_rng(SEED)
    for depth in (64, 96, 48, 17, 2):
        shapes = ((2, 3, 37, depth), (2, 3, 45, depth) if turned else (2, 3, depth, 45))
        given = [rng.integers(-8, 9, shape).astype(np.float32) / 8 for shape in shapes]
        x, y = (op.parameter(list(shape), np.float32) for shape in shapes)
        model = ov.Model([op.matmul(op.relu(x), y, False, turned)], [x, y], "product")
        got, kernels = run(model, given)
        want = np.maximum(given[0], 0) @ (given[1].swapaxes(-1, -2) if turned else given[1])
        where = f"seed {SEED}: depth {depth}"
        assert any("matmul_amx_bf16" in kernel for kernel in kernels), f"{where}: {kernels}"
        np.testing.assert_array_equal(got, want, err_msg=where)


def convolution(rng: np.random.Generator, bytes_: bool) -> tuple[Any, np.ndarray, str]:
    channels, outs = (int(n) for n in rng.integers(1, 70, 2))
    size, stride, dilation = (int(rng.choice(some)) for some in ((1, 2, 3, 5), (1, 2), (1, 2)))
    height, width = (int(n) for n in rng.integers(12, 40, 2))
    shape = [int(rng.integers(1, 3)), channels, height, width]
    x = op.parameter(shape, np.float32)
    whole = rng.integers(-9, 10, (outs, channels, size, size))
    around = ([stride] * 2, [size // 2] * 2, [size // 2] * 2, [dilation] * 2)
    if bytes_:
        ends = [op.constant(np.float32(v)) for v in (0, 4)]
        weights = op.multiply(
            op.convert(op.constant(whole.astype(np.int8)), "f32"), op.constant(np.float32(0.01))
        )
        y = op.convolution(op.fake_quantize(x, *ends, *ends, 256), weights, *around)
        ends = [op.constant(np.float32(v)) for v in (0, 6)]
        y = op.fake_quantize(op.relu(y), *ends, *ends, 256)
        y = op.max_pool(y, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    else:
        y = op.relu(op.convolution(x, op.constant(whole.astype(np.float32) / 16), *around))
    given = (rng.standard_normal(shape) * (2 if bytes_ else 1)).astype(np.float32)
    text = f"{shape} by {whole.shape}, stride {stride}, dilation {dilation}"
    return ov.Model([y], [x], "convolution"), given, text


@pytest.mark.parametrize("seed", range(12))
def test_bytes_have_the_bits_of_vectors(seed: int) -> None:
    model, given, text = convolution(np.random.default_rng(SEED + seed), True)
    got, kernels = run(model, [given], "f32")
    want, others = run(model, [given], "f32", OVJIT_MATRIX_UNIT=False)
    where = f"seed {SEED + seed}: {text}"
    assert any("amx_u8i8" in kernel for kernel in kernels), f"{where}: {kernels}"
    assert not any("amx" in kernel for kernel in others), f"{where}: {others}"
    np.testing.assert_array_equal(got, want, err_msg=where)


@pytest.mark.parametrize("seed", range(8))
def test_convolutions_of_bf16(seed: int) -> None:
    model, given, text = convolution(np.random.default_rng(SEED + seed), False)
    got, kernels = run(model, [given])
    want, _ = run(model, [given], OVJIT_MATRIX_UNIT=False)
    where = f"seed {SEED + seed}: {text}"
    assert any("amx_bf16" in kernel for kernel in kernels), f"{where}: {kernels}"
    scale = np.abs(want).max() + 1e-30
    # sums of f32 in another order; Winograd's transforms of bf16 are coarser
    assert np.abs(got - want).max() / scale < 2e-2, where


def attention(rng: np.random.Generator, *sizes: int, causal: bool) -> tuple[Any, list[np.ndarray]]:
    """Of 2 x 3 heads: rows, columns, depth of q and k, depth of v."""
    rows, columns, depth, wide = sizes
    shapes = [(2, 3, rows, depth), (2, 3, columns, depth), (2, 3, columns, wide)]
    x = [op.parameter(list(shape), np.float32) for shape in shapes]
    model = ov.Model([op.scaled_dot_product_attention(*x, causal=causal)], x, "attention")
    return model, [rng.standard_normal(shape).astype(bfloat16).astype(np.float32) for shape in shapes]


def attended(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool) -> np.ndarray:
    """The same in f64."""
    scores = q.astype(np.float64) @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    if causal:
        scores[..., ~np.tri(*scores.shape[-2:], dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize("rows", (*(n for n in HEIGHTS if n >= FEW_ROWS), 400))
@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_any_size(rows: int, causal: bool) -> None:
    rng = np.random.default_rng([SEED, rows, causal])
    for _ in range(2):
        columns = rows if causal else int(rng.integers(1, 900))
        sizes = rows, columns, *(int(n) for n in rng.integers(1, 140, 2))
        model, given = attention(rng, *sizes, causal=causal)
        got, kernels = run(model, given)
        where = f"seed {[SEED, rows, causal]}: {sizes}"
        assert any("attention_amx_bf16" in kernel for kernel in kernels), f"{where}: {kernels}"
        # weights are rounded to bf16, and so is what is stored
        error, size = np.abs(got - attended(*given, causal)), attended(*given[:2], np.abs(given[2]), causal)
        assert (error <= 2.0**-7 * size + 1e-6).all(), f"{where}: {(error / size).max()}"


@pytest.mark.parametrize("causal", [False, True])
def test_the_interpreter_has_the_bits_of_attention(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = attention(np.random.default_rng(SEED), 35, 35, 40, 19, causal=causal)
    check_interpreter(model, given, "attention_amx_bf16", monkeypatch, SEED)


def test_a_row_with_nan_leaves_the_others() -> None:
    model, given = attention(np.random.default_rng(SEED), 40, 70, 20, 24, causal=False)
    want, _ = run(model, given)
    given[0][0, 1, 33, 5] = np.nan
    got, _ = run(model, given)
    assert np.isnan(got[0, 1, 33]).all()
    got[0, 1, 33] = want[0, 1, 33]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "rows, depth", [(3, 70), (17, 70), (PIXELS, 70), (50, 70), (3, 2), (50, 24), (33, 72)]
)
def test_the_interpreter_has_the_same_bits(rows: int, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are put together, and rows that are one or several lines of less than 16 words."""
    rng = np.random.default_rng(SEED + rows)
    x = op.parameter([rows, depth], np.float32)
    weights = rng.standard_normal((depth, 45)).astype(np.float32)
    model = ov.Model([op.relu(op.matmul(x, op.constant(weights), False, False))], [x], "product")
    given = [rng.standard_normal((rows, depth)).astype(np.float32)]
    check_interpreter(model, given, "amx_bf16", monkeypatch, SEED + rows)


def test_infinities_and_nan() -> None:
    """They stay in their rows and columns, also behind the depth that fills a line."""
    x = np.ones((40, 20), np.float32)
    x[3, 5], x[7, 0], x[39, 19] = np.inf, np.nan, -np.inf
    weights = np.ones((20, 33), np.float32)
    weights[2, 32] = np.inf
    p = op.parameter([40, 20], np.float32)
    model = ov.Model([op.matmul(p, op.constant(weights), False, False)], [p], "product")
    got, _ = run(model, [x])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(got, x @ weights)


def test_models_without_the_unit_are_kept_exported_and_cached(tmp_path) -> None:
    """Their kernels are for another target than this machine's."""
    x = ov.opset13.parameter([4, 64], np.float32)
    weights = np.random.default_rng(5).standard_normal((64, 48)).astype(np.float32)
    path = tmp_path / "m.xml"
    ov.save_model(ov.Model([ov.opset13.matmul(x, weights, False, False)], [x]), path)
    data = np.random.default_rng(6).standard_normal((4, 64)).astype(np.float32)
    config = {"INFERENCE_PRECISION_HINT": "bf16", "OVJIT_MATRIX_UNIT": False}
    core = ov.Core()
    first = core.compile_model(path, "CPU", config)
    want = first(data)[0]
    cached = {**config, "CACHE_DIR": str(tmp_path / "cache")}
    again = [core.compile_model(path, "CPU", given) for given in (config, cached, cached)]
    again.append(core.import_model(first.export_model(), "CPU", config))
    for one in again:
        np.testing.assert_array_equal(one(data)[0], want)
