"""Products with constant right-hand matrices at all ranks: right beside float64, and packed once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit_ops.matmul.cpu_compressed import CompressedProduct
from ovjit_ops.matmul.cpu_matmul import TiledMatMul
from ovjit_ops.matmul.cpu_products import Product
from tests.support.compiled import float_types
from tests.support.sweeps import in_turn

SEED = 20261121
K, N = 37, 41
#: left-hand side, leading dimensions of the constant
CASES = [
    ((K,), ()), ((K,), (3,)), ((5, K), ()), ((5, K), (1, 1)), ((5, K), (2, 3)), ((2, 5, K), (1,)),
    ((2, 5, K), (2,)), ((2, 3, 5, K), ()), ((2, 3, 5, K), (3,)), ((2, 1, 5, K), (2, 3)),
    ((2, 3, 5, K), (2, 1)),
    ((2, 3, 4, 5, K), ()), ((2, 3, 4, 5, K), (1, 1, 1, 1, 1)), ((2, 3, 4, 5, K), (3, 1)),
    ((2, 3, 4, 5, K), (2, 1, 4)), ((2, 1, 3, 2, 5, K), ()), ((2, 1, 3, 2, 5, K), (2, 1, 3, 1)),
]  # fmt: skip


def one_step(compiled) -> bool:
    """Whether nothing but products with packed weights multiplies."""
    return [type(low) for low in compiled._executable.program.lowerings if low.group.anchor is not None] == [
        TiledMatMul
    ]


def product(x, weights, turned=(False, False)):
    """relu(x @ w + row)"""
    row = ops.constant(np.linspace(-1, 1, N, dtype=np.float32))
    return ops.relu(ops.add(ops.matmul(x, weights, *turned), row))


def expected(x, w, turned=(False, False)):
    x = x.astype(np.float64)
    x = x.swapaxes(-1, -2) if turned[0] and x.ndim > 1 else x
    w = w.swapaxes(-1, -2) if turned[1] else w
    return np.maximum(np.matmul(x, w.astype(np.float64)) + np.linspace(-1, 1, N, dtype=np.float32), 0)


def check(got, want, low):
    assert got.shape == want.shape
    tolerance = 0.02 if low else 2e-5
    scale = max(1, np.abs(want).max(initial=0))
    np.testing.assert_allclose(got, want, atol=tolerance * scale, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_products_of_constant_matrices(case, precision, monkeypatch) -> None:
    shape, batch = case
    if precision not in float_types():
        pytest.skip("this CPU has no such instructions")
    rng = np.random.default_rng(SEED)
    w = rng.standard_normal((*batch, K, N)).astype(np.float32)
    monkeypatch.setenv("OVJIT_CHECK", "1")
    for closed, (ta, tb) in itertools.product((True, False), ((False, False), (True, True))):
        given = (*shape[:-2], K, shape[-2]) if ta and len(shape) > 1 else shape
        x = ops.parameter(given if closed else [-1] * len(given), np.float32)
        right = ops.constant(np.ascontiguousarray(w.swapaxes(-1, -2)) if tb else w)
        model = ov.Model([product(x, right, (ta, tb))], [x])
        compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        assert one_step(compiled)
        data = rng.standard_normal(given).astype(np.float32)
        want = expected(data, w, (ta, False))
        check(compiled(data)[0], want, precision == "bf16")
        if not closed and len(shape) > 2 and batch[-1:] in ((), (1,)):  # another size of an inner dimension
            more = np.concatenate([data, data], axis=-3)
            check(compiled(more)[0], expected(more, w, (ta, False)), precision == "bf16")


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("batch", [(), (3, 1, 1), (2, 1, 4, 1)], ids=str)
def test_rows_that_are_moved_and_added(closed, batch, monkeypatch) -> None:
    """Dimensions that no strides walk as one, on either side, and operands that broadcast along some."""
    rng = np.random.default_rng(SEED)
    monkeypatch.setenv("OVJIT_CHECK", "1")
    shape = (2, 4, 3, 2, 5, K)
    w = rng.standard_normal((*batch, K, N)).astype(np.float32)
    x = ops.parameter(shape if closed else [-1] * 6, np.float32)
    shapes = ((2, 3, 4, 2, 1, N), (4, 1, 1, N), (2, 3, 1, 2, 5, 1))
    given = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    others = [ops.parameter(g.shape if closed else [-1] * g.ndim, np.float32) for g in given]
    moved = ops.transpose(x, ops.constant(np.array([0, 2, 1, 3, 4, 5])))
    out = ops.matmul(moved, ops.constant(w), False, False)
    for other in others:
        out = ops.add(out, other)
    model = ov.Model([ops.relu(out)], [x, *others])
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    data = rng.standard_normal(shape).astype(np.float32)
    want = np.matmul(data.transpose(0, 2, 1, 3, 4, 5).astype(np.float64), w)
    check(compiled([data, *given])[0], np.maximum(want + sum(g.astype(np.float64) for g in given), 0), False)
    assert not any(isinstance(low, Product) for low in compiled._executable.program.lowerings)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("rank", range(1, 7))
def test_products_of_stored_weights(rank, precision) -> None:
    if precision not in float_types():
        pytest.skip("this CPU has no such instructions")
    rng = np.random.default_rng(SEED)
    depth, outs = 256, 264
    whole = rng.integers(-127, 128, (depth, outs)).astype(np.int8)
    scale = rng.uniform(0.001, 0.02, (1, outs)).astype(np.float32)
    shape = (2, 1, 3, 2, 3, depth)[-rank:]
    config = {"INFERENCE_PRECISION_HINT": precision, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    for closed in (True, False):
        x = ops.parameter(shape if closed else [-1] * (rank - 1) + [depth], np.float32)
        weights = ops.multiply(ops.convert(ops.constant(whole), "f32"), ops.constant(scale))
        compiled = ov.compile_model(ov.Model([ops.matmul(x, weights, False, False)], [x]), "CPU", config)
        assert any(type(low) is CompressedProduct for low in compiled._executable.program.lowerings)
        data = rng.standard_normal(shape).astype(np.float32)
        want = np.matmul(data.astype(np.float64), whole * scale.astype(np.float64))
        check(compiled(data)[0], want, precision == "bf16")


def chosen_model(w, chosen, left, turned, lead, open_lengths, axis=0, halves=False):
    """relu(x @ w[indices]) of matrices that are computed with indices, which are the right or left factor."""
    shape = (*lead, N, 3) if left else (*lead, 3, K)
    shape = shape[:-2] + shape[:-3:-1] if turned else shape
    x = ops.parameter([-1] * len(shape) if open_lengths else shape, np.float32)
    indices = ops.parameter([-1] * len(chosen) if open_lengths else chosen, np.int32)
    table = ops.convert(ops.constant(w.astype(np.float16)), "f32") if halves else ops.constant(w)
    taken = ops.gather(table, indices, ops.constant(np.array(axis)))
    out = ops.matmul(taken, x, False, turned) if left else ops.matmul(x, taken, turned, False)
    return ov.Model([ops.relu(out)], [x, indices])


def chosen_answer(data, w, chosen, left, turned):
    inside = (chosen >= -len(w)) & (chosen < len(w))
    taken = w.astype(np.float64)[np.where(inside, chosen, 0)] * inside[..., None, None]
    data = (data.swapaxes(-1, -2) if turned else data).astype(np.float64)
    return np.maximum(np.matmul(taken, data) if left else np.matmul(data, taken), 0)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(
    "lead, chosen",
    in_turn([((6,), (6,)), ((1,), (6,)), ((2, 3), (2, 3)), ((2, 1), (1, 3)), ((4, 5), (5,))], 2),
    ids=str,
)
def test_products_of_matrices_that_indices_name(lead, chosen, left, precision, monkeypatch) -> None:
    """They are packed once and multiplied where they lie, out of range as zeros, at any length."""
    if precision not in float_types():
        pytest.skip("this CPU has no such instructions")
    rng = np.random.default_rng(SEED)
    monkeypatch.setenv("OVJIT_CHECK", "1")
    w = rng.standard_normal((4, K, N)).astype(np.float16).astype(np.float32)
    for turned, open_lengths, halves in itertools.product((False, True), (False, True), (False, True)):
        model = chosen_model(w, chosen, left, turned, lead, open_lengths, halves=halves)
        compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        anchors = [low.group.node.op.name for low in compiled._executable.program.lowerings]
        assert anchors.count("GatheredMatMul") == 1 and not {"Gather", "MatMul"} & {*anchors}
        for times in (1, 3, 0, 2) if open_lengths else (1,):
            one, two = [(*d[:-1], d[-1] if d[-1] == 1 else d[-1] * times) for d in (lead, chosen)]
            inner = (N, 3) if left else (3, K)
            data = rng.standard_normal((*one, *(inner[::-1] if turned else inner))).astype(np.float32)
            names = rng.integers(-6, 6, two).astype(np.int32)
            want = chosen_answer(data, w, names, left, turned)
            check(compiled([data, names])[0], want, precision == "bf16")


def test_what_is_not_of_matrices_that_indices_name_is_left_alone() -> None:
    rng = np.random.default_rng(SEED)
    w = rng.standard_normal((4, K, N)).astype(np.float32)
    x, names = rng.standard_normal((6, 3, K)).astype(np.float32), rng.integers(0, 4, 6).astype(np.int32)
    y = rng.standard_normal((6, 3, N)).astype(np.float32)
    rows, others = (ops.parameter([6, 3, n], np.float32) for n in (K, N))
    columns = ops.parameter([6], np.int32)
    table = ops.parameter([4, K, N], np.float32)
    computed = ops.gather(table, columns, ops.constant(np.array(0)))
    second = ops.gather(ops.constant(w.swapaxes(0, 1).copy()), columns, ops.constant(np.array(1)))
    of_lists = ops.gather(ops.constant(w[0]), columns, ops.constant(np.array(0)))  # rows, not matrices
    cases = [
        (ops.matmul(rows, computed, False, False), [rows, columns, table], [x, names, w], w[names]),
        (ops.matmul(rows, ops.transpose(second, ops.constant(np.array([1, 0, 2]))), False, False),
         [rows, columns], [x, names], w[names]),
        (ops.matmul(others, of_lists, False, True), [others, columns], [y, names], w[0][names].T),
    ]  # fmt: skip
    for out, parameters, given, right in cases:
        compiled = ov.compile_model(ov.Model([out], parameters), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        check(compiled(given)[0], np.matmul(given[0].astype(np.float64), right.astype(np.float64)), False)
        anchors = [low.group.node.op.name for low in compiled._executable.program.lowerings]
        assert "Gather" in anchors and "MatMul" in anchors


@pytest.mark.parametrize("rows", [13, 193])
def test_columns_of_bytes_at_open_lengths(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Depths that are no multiple of four get a margin of zeros along an open dimension, planned alike with a
    trace and without."""
    rng = np.random.default_rng(SEED)
    monkeypatch.setenv("OVJIT_CHECK", "1")
    a, b = rng.integers(0, 256, (2, 23, rows), np.uint8), rng.integers(0, 256, (2, 31, 23), np.uint8)
    x = ops.parameter([-1, 23, -1], np.uint8)
    compiled = ov.compile_model(ov.Model([ops.matmul(x, ops.constant(b), True, True)], [x]), "CPU")
    for given in (a, a[:1]):
        want = given.swapaxes(1, 2) @ b.swapaxes(1, 2)
        np.testing.assert_array_equal(compiled(given)[0], want, err_msg=f"seed {SEED}")
