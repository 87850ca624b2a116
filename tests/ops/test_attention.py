"""Attention natively, with random attributes and shapes, beside the real OpenVINO and NumPy in float64."""

from __future__ import annotations

import ctypes

import ml_dtypes
import numpy as np
import openvino
import pytest

import ovjit
from ovjit.codegen.cpu import host
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.loading import addresses
from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder
from ovjit.tiles.pack import panel_sizes
from ovjit_ops.attention.cpu_attention import COLUMNS
from ovjit_ops.matmul.cpu_products import transposed_panels_kernel
from tests.support.compiled import float_types
from tests.support.run import run_job
from tests.support.sweeps import some

SEED = 7100
CPU = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected(q, k, v, mask, scale, causal):
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) * scale
    if causal:
        rows, columns = scores.shape[-2:]
        scores = np.where(np.arange(columns) <= np.arange(rows)[:, None], scores, -np.inf)
    elif mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    return softmax(scores) @ v


def random_case(rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray | None, float | None, bool]:
    rank = int(rng.integers(3, 6))
    batch = tuple(int(d) for d in rng.integers(1, 4, rank - 2))
    rows, columns = (
        int(rng.choice([1, 2, 5, 6, 7, 14, 15, 29, 33, 64, longest])) for longest in (300, COLUMNS + 44)
    )
    depth, wide = (int(rng.choice([1, 8, 16, 17, 31, 32, 33, 64, 80])) for _ in range(2))

    def data(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    def shared() -> tuple[int, ...]:
        return tuple(1 if rng.random() < 0.3 else d for d in batch)

    heads = shared()
    inputs = [data(*batch, rows, depth), data(*heads, columns, depth), data(*heads, columns, wide)]
    mask: np.ndarray | None = None
    kind = int(rng.integers(0, 4))
    if kind:
        shape = (*shared(), rows, columns) if kind > 1 else (rows, columns)
        if kind == 3:
            shape = (*shape[:-2], 1, columns)
        mask = data(*shape)
        if rng.random() < 0.4:
            mask = mask > -1
            mask[..., 0] = True  # a row of which all is masked has no weights
    scale = float(rng.uniform(0.1, 1)) if rng.random() < 0.4 else None
    return inputs, mask, scale, bool(rng.random() < 0.3)


def attend(lib, inputs, mask, scale, causal, dynamic, config=CPU):
    ops = lib.opset13
    given = [x for x in (*inputs, mask) if x is not None]
    shapes = [lib.PartialShape([-1] * x.ndim) if dynamic else lib.PartialShape(list(x.shape)) for x in given]
    parameters = [ops.parameter(s, lib.Type(x.dtype)) for s, x in zip(shapes, given, strict=True)]
    factor = None if scale is None else np.float32(scale)
    node = ops.scaled_dot_product_attention(
        *parameters[:3], parameters[3] if mask is not None else None, factor, causal
    )
    model = lib.Model([node.output(0)], parameters)
    return np.array(lib.Core().compile_model(model, "CPU", config)(given)[0])


@pytest.mark.parametrize("case", some(range(30), 10))
def test_random_attention(case):
    rng = np.random.default_rng((SEED, case))
    inputs, mask, scale, causal = random_case(rng)
    where = f"seed {(SEED, case)}: {[x.shape for x in inputs]} mask {None if mask is None else mask.shape}"
    got = attend(ovjit, inputs, mask, scale, causal, dynamic=case % 3 == 0)
    factor = inputs[0].shape[-1] ** -0.5 if scale is None else scale
    want = expected(*inputs, mask, factor, causal)
    assert got.shape == want.shape, where
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5, err_msg=where)
    if case < 8:
        theirs = attend(openvino, inputs, mask, scale, causal, dynamic=False)
        np.testing.assert_allclose(got, theirs, rtol=1e-3, atol=1e-4, err_msg=where)


BF16 = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 2}
needs_bf16 = pytest.mark.skipif("bf16" not in float_types(), reason="this CPU has no bf16 instructions")


@needs_bf16
@pytest.mark.parametrize("case", some(range(40), 10))
def test_random_attention_in_bf16(case):
    """Of inputs that bf16 holds exactly: what is lost is the rounding of the weights and of the result."""
    rng = np.random.default_rng((SEED, 1, case))
    inputs, mask, scale, causal = random_case(rng)
    where = f"seed {(SEED, 1, case)}: {[x.shape for x in inputs]} mask {None if mask is None else mask.shape}"
    kind = ml_dtypes.bfloat16
    inputs = [x.astype(kind) for x in inputs]
    native = case % 3 == 1  # the model's own type, else f32 with the hint
    if native and mask is not None and mask.dtype != bool:
        mask = mask.astype(kind)
    if native and scale is not None:
        scale = float(np.float32(scale).astype(kind))
    wide = [x.astype(np.float64) for x in inputs]
    factor = inputs[0].shape[-1] ** -0.5 if scale is None else scale
    given = None if mask is None else mask if mask.dtype == bool else mask.astype(np.float64)
    want = expected(*wide, given, factor, causal)
    size = expected(*wide[:2], np.abs(wide[2]), given, factor, causal)
    if native:
        got = run_native(inputs, mask, scale, causal)
    else:
        given = [x.astype(np.float32) for x in inputs]
        got = attend(ovjit, given, mask, scale, causal, dynamic=case % 3 == 0, config=BF16)
    assert got.shape == want.shape, where
    error = np.abs(got.astype(np.float64) - want)
    limit = (np.abs(want) if native else 0) * 2.0**-8 + size * 2.0**-8 + 1e-6
    assert (error <= limit).all(), f"{where}: {(error / limit).max()} of the limit"


def run_native(inputs, mask, scale, causal):
    """A model whose own type is that of the inputs."""
    b = Builder()
    given = [x for x in (*inputs, mask) if x is not None]
    kinds = ["boolean" if x.dtype == bool else "bf16" for x in given]
    values = [
        b.add("Parameter", (), {"shape": x.shape, "element_type": kind}).output
        for x, kind in zip(given, kinds, strict=True)
    ]
    if scale is not None:
        if mask is None:
            values.append(b.constant(np.zeros((), ml_dtypes.bfloat16)))
        values.append(b.constant(np.array(scale, ml_dtypes.bfloat16)))
    node = b.add("ScaledDotProductAttention", values, {"causal": causal})
    executable = compile_graph(b.finish([node.output]), {})
    assert executable.program.host_nodes() == []
    job = executable.new_job()
    run_job(job, given)
    return np.asarray(job.outputs[0])


@pytest.mark.parametrize("n", [1, 15, 16, 17, 48, 49, 65, 80, 96, 196])
def test_panels_of_keys_are_filled_up_with_zeros(n):
    """What lay there before may be denormal numbers, with which products take five times as long."""
    isa, depth = host_target(), 11
    kernel, sizes = transposed_panels_kernel(isa), panel_sizes(depth, n, isa)
    x = np.random.default_rng(SEED).standard_normal((n, depth)).astype(np.float32)
    y = np.full(sizes.group // 4 + 64, 7e-42, np.float32)
    call = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 4)(addresses([kernel])[kernel])
    panels = -(-n // sizes.width)
    named = {
        "x_n": 4 * depth, "panel": sizes.panel, "depth": depth, "size_n": n, "blocks": panels,
        "item_count": panels, "per_chunk": panels,
    } | dict.fromkeys(("d0", "d1", "d2", "d3"), 1)  # fmt: skip
    bases = np.array([x.ctypes.data, y.ctypes.data], np.int64)
    words = [0, 0, 1, 0, *(named.get(name, 0) for name, _ in kernel.frame.fields[2:])]
    call(bases.ctypes.data, np.array(words, np.int64).ctypes.data, 0, 0)
    at = 0
    for first in range(0, n, sizes.width):
        width = sizes.width if n - first > isa.lanes else isa.lanes
        want = np.zeros((depth, width), np.float32)
        part = x[first : first + width].T
        want[:, : part.shape[1]] = part
        np.testing.assert_array_equal(y[at : at + want.size].reshape(want.shape), want, f"{n}, seed {SEED}")
        at += want.size
    assert at == sizes.group // 4 and (y[at:] == np.float32(7e-42)).all()


@needs_bf16
def test_attention_between_products_has_no_conversions():
    """In a model that is computed in bf16, attention takes and gives bf16."""
    ops, rng = ovjit.opset13, np.random.default_rng(SEED)
    x = ops.parameter([1, 20, 32], np.float32)

    def projected(t):
        return ops.matmul(t, rng.standard_normal((32, 32)).astype(np.float32), False, False)

    heads = [ops.transpose(ops.reshape(projected(x), [0, 0, 4, 8], True), [0, 2, 1, 3]) for _ in range(3)]
    made = ops.transpose(ops.scaled_dot_product_attention(*heads), [0, 2, 1, 3])
    out = projected(ops.reshape(made, [0, 0, 32], True))
    model = ovjit.Model([out.output(0)], [x])
    data = rng.standard_normal((1, 20, 32)).astype(np.float32)
    compiled = ovjit.Core().compile_model(model, "CPU", {**BF16, "PERF_COUNT": True})
    request = compiled.create_infer_request()
    got = request.infer([data])[0]
    kinds = [row.node_type for row in request.get_profiling_info()]
    assert kinds.count("Convert") == 1  # the input's
    want = np.asarray(ovjit.Core().compile_model(model, "CPU", CPU)([data])[0])
    assert np.abs(got - want).max() <= 0.03 * np.abs(want).max()


@needs_bf16
@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("depth", [16, 17])
def test_a_cache_of_f32_is_read_as_it_lies(rows, depth):
    """Keys and values that are joined to a model's inputs stay f32 in a model that is computed in bf16."""
    ops, rng = ovjit.opset13, np.random.default_rng((SEED, rows, depth))
    shape = [1, 2, -1, depth]
    x = ops.parameter(ovjit.PartialShape([1, 2, -1, 24]), np.float32)
    caches = [ops.parameter(ovjit.PartialShape(shape), np.float32) for _ in range(2)]
    weights = [0.2 * rng.standard_normal((24, depth)).astype(np.float32) for _ in range(3)]
    q, k, v = (ops.matmul(x, w, False, False) for w in weights)
    keys, values = (ops.concat([old, new], 2) for old, new in zip(caches, (k, v), strict=True))
    out = ops.scaled_dot_product_attention(q, keys, values)
    model = ovjit.Model([out.output(0), keys.output(0), values.output(0)], [x, *caches])
    data = [rng.standard_normal(s).astype(np.float32) for s in ((1, 2, rows, 24), *[(1, 2, 300, depth)] * 2)]
    compiled = ovjit.Core().compile_model(model, "CPU", {**BF16, "PERF_COUNT": True})
    request = compiled.create_infer_request()
    got = [np.array(t) for t in request.infer(data).values()]
    want = [np.array(t) for t in ovjit.Core().compile_model(model, "CPU", CPU)(data).values()]
    np.testing.assert_array_equal(got[1][:, :, :300], data[1])
    for one, other in zip(got, want, strict=True):
        assert np.abs(one - other).max() <= 0.03 * np.abs(other).max()
    # q's operand, and for tiles of bf16 the keys and values
    rows_of = [row.exec_type for row in request.get_profiling_info()]
    assert rows_of.count("convert_bf16") == (3 if rows > 5 and not host_target().slow_dots else 1)


@pytest.mark.skipif(
    "avx512bf16" not in host_target().extras or "amx-bf16" in host_target().extras, reason="no AVX512-BF16"
)
def test_tiles_are_f32_where_dot_products_are_slow(monkeypatch):
    """With and without a mask, odd depths, several blocks of columns: weights are then not rounded."""
    monkeypatch.setattr(host, "_host", host._host.__wrapped__)
    rng = np.random.default_rng(SEED)
    for rows, columns, depth, masked in ((6, 3, 17, False), (33, 50, 64, True), (40, 1000, 16, False)):
        shapes = [(2, 3, n, depth) for n in (rows, columns, columns)]
        given = [rng.standard_normal(s).astype(ml_dtypes.bfloat16).astype(np.float32) for s in shapes]
        mask = np.where(rng.random((rows, columns)) < 0.2, -np.inf, 0).astype(np.float32) if masked else None
        inputs = [ovjit.opset13.parameter(s, np.float32) for s in shapes]
        out = ovjit.opset13.scaled_dot_product_attention(*inputs, *([] if mask is None else [mask]))
        model = ovjit.Model([out.output(0)], inputs)
        want, errors = expected(*given, mask, depth**-0.5, False), []
        for slow in (False, True):
            monkeypatch.setattr(host, "_has_slow_dots", lambda slow=slow: slow)
            request = ovjit.compile_model(model, "CPU", {**BF16, "PERF_COUNT": True}).create_infer_request()
            errors.append(np.abs(np.asarray(request.infer(given)[0]) - want).max())
            names = [row.exec_type for row in request.get_profiling_info()]
            assert any(name.startswith("attention_f32") for name in names) == slow, names
        assert errors[1] <= errors[0] < 0.02, f"{errors}, seed {SEED}"


def test_attention_is_native():
    q = ovjit.opset13.parameter([2, 3, 40, 16], np.float32)
    node = ovjit.opset13.scaled_dot_product_attention(q, q, q, causal=True)
    model = ovjit.Model([node.output(0)], [q])
    request = ovjit.Core().compile_model(model, "CPU", {"PERF_COUNT": True}).create_infer_request()
    request.infer([np.ones((2, 3, 40, 16), np.float32)])
    assert not [r for r in request.get_profiling_info() if r.exec_type == "ref_numpy"]


@pytest.mark.parametrize("rows", [5, 3000])
def test_small_weights_are_exact(rows):
    """Scores 0 and x: the weight of x has the relative error of the exponential, and is 0 far below."""
    x = np.linspace(-87, 0, rows, dtype=np.float32)
    q = np.stack([x, np.zeros_like(x)], -1)[None]
    k, v = np.array([[[0, 1], [1, 0]]], np.float32), np.array([[[0], [1]]], np.float32)
    got = attend(ovjit, [q, k, v], None, 1.0, False, False)[0, :, 0]
    exact = np.exp(x.astype(np.float64))
    # the exponent, up to 125, is one rounding nearer where it is a fused multiply-add
    rounded = 87 * np.log2(np.e) * 2**-24 if host_target().name == "generic" else 0
    np.testing.assert_allclose(got, exact / (1 + exact), rtol=6e-7 + rounded)
    for far, want in ((-100.0, 0.0), (-3e38, 0.0), (np.nan, np.nan)):
        q[0, :, 0] = far
        np.testing.assert_array_equal(attend(ovjit, [q, k, v], None, 1.0, False, False)[0, :, 0], want)


@needs_bf16
def test_weights_in_bf16_are_rounded_once():
    """Where q is bf16, the exponential is shorter: its error is small beside that of rounding to bf16."""
    ops = ovjit.opset13
    x = np.linspace(-80, 0, 3000).astype(ml_dtypes.bfloat16).astype(np.float32)
    q = np.stack([x, np.zeros_like(x)], -1)[None]
    k, v = np.array([[[0, 1], [1, 0]]], np.float32), np.array([[[0], [1]]], np.float32)
    inputs = [ops.parameter(one.shape, np.float32) for one in (q, k, v)]
    scale = ops.constant(np.float32(1.0))
    zero = ops.constant(np.float32(0.0))
    out = ops.scaled_dot_product_attention(*inputs, zero, scale)
    compiled = ovjit.Core().compile_model(ovjit.Model([out.output(0)], inputs), "CPU", BF16)
    got = np.array(compiled([q, k, v])[0])[0, :, 0]
    weight = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(got, weight / (1 + weight), rtol=2**-8 + 2**-12)


@pytest.mark.parametrize("rows", [5, 40])
@pytest.mark.parametrize("column", [0, 13, COLUMNS + 3])
def test_a_score_that_is_nan_makes_its_row_nan(rows, column):
    rng = np.random.default_rng((SEED, rows, column))
    columns = COLUMNS + 4
    q, k, v = (rng.standard_normal((1, n, 16)).astype(np.float32) for n in (rows, columns, columns))
    mask = np.zeros((rows, columns), np.float32)
    mask[3, column] = np.nan
    got = attend(ovjit, [q, k, v], mask, None, False, False)[0]
    assert np.isnan(got[3]).all()
    np.testing.assert_allclose(
        np.delete(got, 3, 0), np.delete(expected(q, k, v, None, 0.25, False)[0], 3, 0), rtol=1e-4, atol=2e-5
    )


def test_masked_first_columns_and_whole_rows():
    """A block of columns of which all is masked must not poison what follows; a fully masked row is 0."""
    rng = np.random.default_rng(SEED)
    columns = 2 * COLUMNS + 100
    q, k, v = (rng.standard_normal((1, n, 16)).astype(np.float32) for n in (8, columns, columns))
    mask = np.zeros((8, columns), np.float32)
    mask[:, : 2 * COLUMNS + 30] = -np.inf
    mask[3] = -np.inf
    got = attend(ovjit, [q, k, v], mask, None, False, False)
    assert not got[0, 3].any()
    rows = [0, 1, 2, 4, 5, 6, 7]
    want = expected(q, k, v, mask, 0.25, False)
    np.testing.assert_allclose(got[0, rows], want[0, rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hint", ["f32", pytest.param("bf16", marks=needs_bf16)])
@pytest.mark.parametrize("masked", [-65504, -3.4028235e38, -np.inf])
@pytest.mark.parametrize("columns", [130, COLUMNS + 90])
def test_hidden_last_columns_are_not_computed(columns: int, masked: float, hint: str) -> None:
    """Columns behind those that a tile's rows see are skipped: NaN there has no effect. A row that sees none
    still has the weights of all columns, and a mask that is NaN hides nothing."""
    rng = np.random.default_rng((SEED, columns))
    rows, shown = 70, columns - 71
    q, k, v = (rng.standard_normal((1, n, 16)).astype(np.float32) for n in (rows, columns, columns))
    mask = np.zeros((rows, columns), np.float32)
    mask[np.arange(columns) > np.arange(rows)[:, None] * 2 // 3 + shown - 47] = masked
    config = CPU | {"INFERENCE_PRECISION_HINT": hint}
    limits = {"rtol": 1e-4, "atol": 2e-5} if hint == "f32" else {"atol": 3e-2}
    want = expected(q[0], k[0], v[0], mask, 0.25, False)
    np.testing.assert_allclose(attend(ovjit, [q, k, v], mask, None, False, False, config)[0], want, **limits)
    beyond = -(-shown // 16) * 16  # in whole vectors
    k[:, beyond:], v[:, beyond:] = np.nan, np.nan
    np.testing.assert_allclose(attend(ovjit, [q, k, v], mask, None, False, False, config)[0], want, **limits)
    k[:, shown:], v[:, shown:] = 0, 1
    mask[3], mask[40, shown + 5] = -3.4028235e38, np.nan
    got = attend(ovjit, [q, k, v], mask, None, False, False, config)[0]
    np.testing.assert_allclose(got[3], v[0].mean(0), **limits)
    assert np.isnan(got[40]).all()
    others = np.delete(np.arange(rows), [3, 40])
    np.testing.assert_allclose(got[others], want[others], **limits)


@pytest.mark.parametrize("hint", ["f32", pytest.param("bf16", marks=needs_bf16)])
@pytest.mark.parametrize("kind", ["boolean", "f32", "later blocks"])
@pytest.mark.parametrize("rows", [2, 5, 40])
def test_fully_masked_rows_are_zeros(rows, kind, hint):
    """As in PyTorch: NaN of padding on the left would reach all tokens through the next layer's keys. A row
    with a score that is NaN is NaN."""
    rng = np.random.default_rng((SEED, rows))
    columns = COLUMNS + 40 if kind == "later blocks" else 40
    q, k, v = (rng.standard_normal((2, n, 16)).astype(np.float32) for n in (rows, columns, columns))
    hidden = rng.random((2, rows, columns)) < 0.3
    hidden[..., 7], hidden[0, 0], hidden[1, :2] = False, True, True
    mask = ~hidden if kind == "boolean" else np.where(hidden, -np.inf, 0).astype(np.float32)
    q[0, 1] = np.nan
    got = attend(ovjit, [q, k, v], mask, None, False, False, CPU | {"INFERENCE_PRECISION_HINT": hint})
    assert not got[0, 0].any() and not got[1, :2].any() and np.isnan(got[0, 1]).all()
    want = expected(q[:, 2:], k, v, np.where(hidden, -np.inf, 0)[:, 2:], 0.25, False)
    np.testing.assert_allclose(got[:, 2:], want, atol=2e-5 if hint == "f32" else 3e-2)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_grouped_queries_share_their_keys(dynamic, masked):
    """Keys and values that a model repeats for groups of heads are not repeated in memory."""
    rng = np.random.default_rng(SEED)
    ops = ovjit.opset13
    q, k, v = (
        rng.standard_normal(s).astype(np.float32) for s in ((2, 8, 20, 16), (2, 2, 30, 16), (2, 2, 30, 24))
    )
    mask = rng.standard_normal((2, 1, 20, 30)).astype(np.float32)
    given = [q, k, v, mask]
    length = -1 if dynamic else 30
    shapes = [[-1 if dynamic else 2, 8, -1 if dynamic else 20, 16], [2, 2, length, 16], [2, 2, length, 24]]
    parameters = [ops.parameter(ovjit.PartialShape(s), np.float32) for s in shapes]
    parameters.append(ops.parameter(ovjit.PartialShape([2, 1, -1, length]), np.float32))

    def repeated(x, width):
        wide = ops.broadcast(ops.unsqueeze(x, 2), [1, 1, 4, 1, 1], broadcast_spec="BIDIRECTIONAL")
        return ops.reshape(wide, [2, 8, -1, width], False)

    node = ops.scaled_dot_product_attention(
        parameters[0],
        repeated(parameters[1], 16),
        repeated(parameters[2], 24),
        parameters[3] if masked else None,
    )
    used = parameters if masked else parameters[:3]
    compiled = ovjit.Core().compile_model(ovjit.Model([node.output(0)], used), "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    got = request.infer(given[: len(used)])[0]
    want = expected(q, np.repeat(k, 4, 1), np.repeat(v, 4, 1), mask if masked else None, 0.25, False)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    if not dynamic:
        assert not {row.node_type for row in request.get_profiling_info()} & {"Broadcast"}


@pytest.mark.parametrize("size", [64, 40])
@pytest.mark.parametrize("group", [1, 2, 3, 5, 8])
def test_heads_of_one_row_that_share_keys_are_computed_together(group: int, size: int) -> None:
    """The result of each head has the bits of that head alone."""
    rng = np.random.default_rng((SEED, group))
    ops, columns = ovjit.opset13, 133
    shapes = (1, 2 * group, 1, size), (1, 2, columns, size), (1, 2, columns, size)
    q, k, v = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    mask = rng.standard_normal((1, 1, 1, columns)).astype(np.float32)
    parameters = [ops.parameter(list(x.shape), np.float32) for x in (q, k, v, mask)]

    def repeated(x):
        wide = ops.broadcast(ops.unsqueeze(x, 2), [1, 1, group, 1, 1], broadcast_spec="BIDIRECTIONAL")
        return ops.reshape(wide, [1, 2 * group, columns, size], False)

    y = ops.scaled_dot_product_attention(
        parameters[0], repeated(parameters[1]), repeated(parameters[2]), parameters[3]
    )
    request = (
        ovjit.Core()
        .compile_model(ovjit.Model([y.output(0)], parameters), "CPU", CPU | {"PERF_COUNT": True})
        .create_infer_request()
    )
    got = np.array(request.infer([q, k, v, mask])[0])
    names = {row.exec_type for row in request.profiling_info}
    assert any(name.startswith("attention_few") for name in names), names
    for head in range(2 * group):
        shared = slice(head // group, head // group + 1)
        alone = attend(ovjit, [q[:, [head]], k[:, shared], v[:, shared]], mask, None, False, False)
        assert got[:, head].tobytes() == alone[:, 0].tobytes(), f"head {head}"
    want = expected(q, k.repeat(group, 1), v.repeat(group, 1), mask, size**-0.5, False)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5)


def test_heads_that_do_not_fit_are_refused():
    ops = ovjit.opset13
    q, k = ops.parameter([1, 4, 5, 8], np.float32), ops.parameter([1, 3, 5, 8], np.float32)
    with pytest.raises(RuntimeError, match="cannot be broadcast"):
        ops.scaled_dot_product_attention(q, k, k)
