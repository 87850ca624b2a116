"""Attention as exporters write it becomes one operation; what only looks like it is left alone.

Oracle: NumPy in f64. `SEED` makes all the data.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as o

SEED = 20261121
B, H, L, S, E = 2, 3, 17, 33, 8


def data(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def attention(q: Any, k: Any, v: Any, mask: Any, scale: Any, cap: float = 0) -> np.ndarray:
    scores = np.matmul(q.astype(np.float64), k.astype(np.float64).swapaxes(-1, -2)) * scale
    scores = np.tanh(scores / cap) * cap if cap else scores
    scores = scores if mask is None else scores + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.matmul(weights / weights.sum(-1, keepdims=True), v.astype(np.float64))


def is_one_operation(compiled: ov.CompiledModel, inputs: list[np.ndarray]) -> bool:
    plan = compiled._executable.table(tuple(x.shape for x in inputs)).plan
    return any(s.kernel is not None and "attention" in s.kernel.name for s in plan.steps)


def compiled_of(outputs: list[Any], inputs: list[Any]) -> ov.CompiledModel:
    return ov.Core().compile_model(ov.Model(outputs, inputs), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


#: How the scores are scaled -> what it makes of the product, and of q before it.
SCALES = {
    "times": lambda s: o.multiply(s, np.float32(0.25)),
    "times, the other way": lambda s: o.multiply(o.constant(np.full((1, 1), 0.25, np.float32)), s),
    "divided": lambda s: o.divide(s, np.float32(4)),
    "none": lambda s: s,
}
#: Shapes of masks that the scores surely take.
MASKS = {
    "none": None, "columns": (1, 1, 1, S), "rows too": (B, 1, L, S), "all": (B, H, L, S), "vector": (S,),
}  # fmt: skip


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("turned", [False, True])
def test_forms(mask: str, scale: str, turned: bool) -> None:
    rng = np.random.default_rng(SEED)
    arrays = [data(rng, B, H, L, E), data(rng, B, H, S, E), data(rng, B, H, S, E + 3)]
    shape = MASKS[mask]
    hidden = None if shape is None else np.where(rng.random(shape) < 0.3, -1e4, 0).astype(np.float32)
    q, k, v = (o.parameter(list(x.shape), np.float32) for x in arrays)
    if turned:
        # the key comes as [B, S, H, E], and is turned so that no product needs to
        arrays[1] = np.ascontiguousarray(arrays[1].transpose(0, 2, 1, 3))
        k = o.parameter(list(arrays[1].shape), np.float32)
        product = o.matmul(q, o.transpose(k, np.array([0, 2, 3, 1])), False, False)
    else:
        product = o.matmul(q, k, False, True)
    scores = SCALES[scale](product)
    if hidden is not None:
        scores = o.add(hidden, scores) if turned else o.add(scores, hidden)
    compiled = compiled_of([o.matmul(o.softmax(scores, -1), v, False, False)], [q, k, v])
    assert is_one_operation(compiled, arrays)
    key = arrays[1].transpose(0, 2, 1, 3) if turned else arrays[1]
    want = attention(arrays[0], key, arrays[2], hidden, 1.0 if scale == "none" else 0.25)
    np.testing.assert_allclose(compiled(arrays)[0], want, atol=2e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("rank", [3, 5])
def test_other_ranks_and_lengths(rank: int, is_open: bool) -> None:
    rng = np.random.default_rng(SEED)
    lead = (2, 1, 3)[: rank - 2]
    for rows, columns in ((1, 5), (9, 4), (40, 300), (3, 1), (2, 0), (17, 0)):
        arrays = [data(rng, *lead, n, E) for n in (rows, columns, columns)]
        lengths = [-1 if is_open else n for n in (rows, columns, columns)]
        q, k, v = (o.parameter(ov.PartialShape([*lead, n, E]), np.float32) for n in lengths)
        scores = o.divide(o.matmul(q, k, False, True), np.float32(2))
        compiled = compiled_of([o.matmul(o.softmax(scores, rank - 1), v, False, False)], [q, k, v])
        assert is_one_operation(compiled, arrays) or not columns
        want = attention(*arrays, None, 0.5) if columns else np.zeros_like(arrays[0])
        message = f"{rows} x {columns}, seed {SEED}"
        np.testing.assert_allclose(compiled(arrays)[0], want, atol=2e-5, err_msg=message)


@pytest.mark.parametrize("turned", [False, True])
def test_open_lengths_and_grouped_heads(turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As exporters write keys and values that groups of heads share, and masks of one row: nothing is
    repeated, and a few traces do for all lengths."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, turned])
    groups, shared = 3, 2

    def repeated(x: Any) -> Any:
        length = o.gather(o.shape_of(x, "i64"), np.array([2], np.int64), np.int64(0))
        sizes = (np.array([n], np.int64) for n in (1, shared, groups, E))
        one, heads, times, size = (o.constant(n) for n in sizes)
        wide = o.broadcast(o.unsqueeze(x, np.int64(2)), o.concat([one, heads, times, length, size], 0))
        return o.reshape(wide, np.array([0, shared * groups, -1, E], np.int64), True)

    q = o.parameter(ov.PartialShape([1, shared * groups, -1, E]), np.float32)
    k, v = (o.parameter(ov.PartialShape([1, shared, -1, E]), np.float32) for _ in "kv")
    mask = o.parameter(ov.PartialShape([1, 1, 1, -1]), np.float32)
    keys = repeated(k)
    if turned:
        product = o.matmul(q, o.transpose(keys, np.array([0, 1, 3, 2])), False, False)
    else:
        product = o.matmul(q, keys, False, True)
    scores = o.add(o.multiply(product, np.float32(0.25)), mask)
    compiled = compiled_of([o.matmul(o.softmax(scores, -1), repeated(v), False, False)], [q, k, v, mask])
    for length in (1, 5, 6, 7, 16, 31, 32, 33, 64, 65, 300, 288, 257):
        arrays = [data(rng, 1, h, length, E) for h in (shared * groups, shared, shared)]
        arrays.append(np.where(rng.random((1, 1, 1, length)) < 0.3, -1e4, 0).astype(np.float32))
        assert is_one_operation(compiled, arrays)
        steps = compiled._executable.table(tuple(x.shape for x in arrays)).plan.steps
        assert not any("Broadcast" in s.type for s in steps)
        each = [np.repeat(x, groups, 1) for x in arrays[1:3]]
        want = attention(arrays[0], *each, arrays[3], 0.25)
        message = f"{length} tokens, seed {SEED}"
        np.testing.assert_allclose(compiled(arrays)[0], want, atol=2e-5, err_msg=message)
    assert compiled._executable.program.traces.total <= 4


@pytest.mark.parametrize("rows", [L, 4])
@pytest.mark.parametrize("is_open", [False, True])
def test_guarded_weights_and_scaled_keys(rows: int, is_open: bool) -> None:
    """As PyTorch's exporter writes its attention: q and the turned key are scaled, and rows without weights,
    masked altogether or with a score that is NaN, are 0."""
    rng = np.random.default_rng([SEED, rows, is_open])
    arrays = [data(rng, B, H, n, E) for n in (rows, S, S)]
    mask = np.where(rng.random((B, 1, rows, S)) < 0.3, -np.inf, 0).astype(np.float32)
    mask[0, 0, 2], mask[1, 0, 3, 7] = -np.inf, np.nan
    shapes = [[-1, -1, -1, E]] * 3 + [[-1] * 4] if is_open else [list(x.shape) for x in (*arrays, mask)]
    q, k, v, added = (o.parameter(ov.PartialShape(s), np.float32) for s in shapes)
    root = np.float32(0.6)
    turned = o.multiply(o.transpose(k, np.array([0, 1, 3, 2])), root)
    scores = o.add(o.matmul(o.multiply(q, root), turned, False, False), added)
    weights = o.softmax(scores, -1)
    guarded = o.select(o.is_nan(weights), np.float32(0), weights)
    compiled = compiled_of([o.matmul(guarded, v, False, False)], [q, k, v, added])
    assert is_one_operation(compiled, [*arrays, mask])
    missing = np.zeros((B, rows), bool)
    missing[0, 2] = missing[1, 3] = True
    want = attention(*arrays, np.where(missing[:, None, :, None], 0, mask), 0.36)
    want = np.where(missing[:, None, :, None], 0, want)
    got = compiled([*arrays, mask])[0]
    np.testing.assert_allclose(got, want, atol=2e-5, err_msg=f"seed {SEED}")
    assert not got[np.broadcast_to(missing[:, None], (B, H, rows))].any()


@pytest.mark.parametrize("rows", [L, 4])
def test_a_softmax_of_nothing_is_nan(rows: int) -> None:
    """Where everything is masked the softmax is 0 / 0, other than in ScaledDotProductAttention."""
    rng = np.random.default_rng([SEED, rows])
    arrays = [data(rng, B, H, n, E) for n in (rows, S, S)]
    mask = np.where(rng.random((B, 1, rows, S)) < 0.3, -np.inf, 0).astype(np.float32)
    mask[..., 0] = 0
    mask[0, 0, 2] = -np.inf
    q, k, v, added = (o.parameter(list(x.shape), np.float32) for x in (*arrays, mask))
    weights = o.softmax(o.add(o.matmul(q, k, False, True), added), -1)
    compiled = compiled_of([o.matmul(weights, v, False, False)], [q, k, v, added])
    assert is_one_operation(compiled, [*arrays, mask])
    got = compiled([*arrays, mask])[0]
    nan = np.zeros((B, H, rows), bool)
    nan[0, :, 2] = True
    np.testing.assert_array_equal(np.isnan(got), np.broadcast_to(nan[..., None], got.shape))


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("sizes", [(1, 33), (5, 8), (6, 7), (19, 513), (40, 1200)])
@pytest.mark.parametrize("masked", [False, True])
def test_capped_scores(sizes: tuple[int, int], is_open: bool, masked: bool) -> None:
    """Scores that a tanh keeps below a limit, before the mask: a few rows, many, and several blocks of
    columns."""
    rows, columns = sizes
    rng = np.random.default_rng([SEED, rows, is_open, masked])
    arrays = [data(rng, B, H, n, E) * 3 for n in (rows, columns, columns)]
    shapes = [[B, H, -1 if is_open else n, E] for n in (rows, columns, columns)]
    hidden = np.where(rng.random((B, 1, rows, columns)) < 0.3, np.finfo(np.float32).min, 0).astype(np.float32)
    q, k, v = inputs = [o.parameter(ov.PartialShape(s), np.float32) for s in shapes]
    scores = o.divide(o.multiply(o.matmul(q, k, False, True), np.float32(0.25)), np.float32(5))
    scores = o.multiply(o.tanh(scores), np.float32(5))
    if masked:
        inputs.append(o.parameter(ov.PartialShape([B, 1, -1, -1] if is_open else hidden.shape), np.float32))
        scores = o.add(scores, inputs[-1])
        arrays.append(hidden)
    compiled = compiled_of([o.matmul(o.softmax(scores, -1), v, False, False)], inputs)
    assert is_one_operation(compiled, arrays)
    want = attention(*arrays[:3], hidden if masked else None, 0.25, 5)
    np.testing.assert_allclose(compiled(arrays)[0], want, atol=3e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("rows", [3, L])
def test_several_masks_and_factors_by_head(rows: int) -> None:
    """A bias of relative positions beside a mask, and scores scaled for each head, in two layers that have
    the same bias and mask: their sum is there once."""
    rng = np.random.default_rng([SEED, rows])
    arrays = [data(rng, B, H, rows, E), data(rng, B, H, S, E), data(rng, B, H, S, E)]
    bias = data(rng, 1, H, rows, S)
    mask = np.where(rng.random((B, 1, 1, S)) < 0.3, -1e4, 0).astype(np.float32)
    by_head = np.linspace(0.2, 0.9, H, dtype=np.float32).reshape(H, 1, 1)
    q, k, v, added, hidden = inputs = [
        o.parameter(list(x.shape), np.float32) for x in (*arrays, bias, mask)
    ]  # fmt: skip
    outputs = []
    for factor in (by_head, by_head[:1] * 2):
        scores = o.multiply(o.matmul(q, k, False, True), factor)
        scores = o.add(o.add(scores, added), hidden)
        outputs.append(o.matmul(o.softmax(scores, -1), v, False, False))
    compiled = compiled_of(outputs, inputs)
    plan = compiled._executable.table(tuple(x.shape for x in (*arrays, bias, mask))).plan
    assert sum(s.kernel is not None and s.type == "SoftmaxAttention" for s in plan.steps) >= 2
    assert not any(s.type == "Softmax" for s in plan.steps)
    assert sum(s.type == "Add" for s in plan.steps) == 1
    got = compiled([*arrays, bias, mask])
    for i, factor in enumerate((by_head, by_head[:1] * 2)):
        want = attention(*arrays, bias + mask, factor)
        np.testing.assert_allclose(got[i], want, atol=2e-5, err_msg=f"seed {SEED}")


def _axis(q: Any, k: Any, v: Any) -> list[Any]:
    return [o.matmul(o.softmax(o.matmul(q, k, False, True), 2), v, False, False)]


def _weights_are_read(q: Any, k: Any, v: Any) -> list[Any]:
    weights = o.softmax(o.matmul(q, k, False, True), -1)
    return [o.matmul(weights, v, False, False), weights]


def _scores_are_read(q: Any, k: Any, v: Any) -> list[Any]:
    scores = o.multiply(o.matmul(q, k, False, True), np.float32(0.5))
    return [o.matmul(o.softmax(scores, -1), v, False, False), scores]


def _product_is_read(q: Any, k: Any, v: Any) -> list[Any]:
    product = o.matmul(q, k, False, True)
    return [o.matmul(o.softmax(o.multiply(product, np.float32(0.5)), -1), v, False, False), product]


def _mask_is_larger(q: Any, k: Any, v: Any) -> list[Any]:
    mask = np.linspace(-1, 1, 5 * S, dtype=np.float32).reshape(5, 1, 1, 1, S)
    scores = o.add(o.matmul(q, k, False, True), mask)
    return [o.matmul(o.softmax(scores, -1), v, False, False)]


def _scaled_by_a_tensor(q: Any, k: Any, v: Any) -> list[Any]:
    factor = np.linspace(0.1, 1, S, dtype=np.float32)
    scores = o.multiply(o.matmul(q, k, False, True), factor)
    return [o.matmul(o.softmax(scores, -1), v, False, False)]


def _scaled_behind_the_mask(q: Any, k: Any, v: Any) -> list[Any]:
    mask = np.linspace(-1, 1, S, dtype=np.float32)
    scores = o.multiply(o.add(o.matmul(q, k, False, True), mask), np.float32(0.5))
    return [o.matmul(o.softmax(scores, -1), v, False, False)]


def _guard_puts_ones(q: Any, k: Any, v: Any) -> list[Any]:
    weights = o.softmax(o.matmul(q, k, False, True), -1)
    return [o.matmul(o.select(o.is_nan(weights), np.float32(1), weights), v, False, False)]


def _guard_asks_the_scores(q: Any, k: Any, v: Any) -> list[Any]:
    scores = o.matmul(q, k, False, True)
    weights = o.softmax(scores, -1)
    return [o.matmul(o.select(o.is_nan(scores), np.float32(0), weights), v, False, False)]


def _guarded_weights_are_read(q: Any, k: Any, v: Any) -> list[Any]:
    weights = o.softmax(o.matmul(q, k, False, True), -1)
    return [o.matmul(o.select(o.is_nan(weights), np.float32(0), weights), v, False, False), weights]


def _key_is_scaled_by_a_tensor(q: Any, k: Any, v: Any) -> list[Any]:
    key = o.multiply(o.transpose(k, np.array([0, 1, 3, 2])), np.linspace(0.1, 1, S, dtype=np.float32))
    return [o.matmul(o.softmax(o.matmul(q, key, False, False), -1), v, False, False)]


def _mask_has_more_heads(q: Any, k: Any, v: Any) -> list[Any]:
    mask = np.linspace(-1, 1, H * S, dtype=np.float32).reshape(1, H, 1, S)
    one, other = (o.reduce_mean(x, np.array([1]), True) for x in (q, k))
    scores = o.add(o.matmul(one, other, False, True), mask)
    return [o.matmul(o.softmax(scores, -1), v, False, False)]


def _capped_by_a_tensor(q: Any, k: Any, v: Any) -> list[Any]:
    caps = np.linspace(1, 2, S, dtype=np.float32)
    scores = o.multiply(o.tanh(o.divide(o.matmul(q, k, False, True), caps)), caps)
    return [o.matmul(o.softmax(scores, -1), v, False, False)]


def _capped_scores_are_read(q: Any, k: Any, v: Any) -> list[Any]:
    scores = o.tanh(o.matmul(q, k, False, True))
    return [o.matmul(o.softmax(o.multiply(scores, np.float32(5)), -1), v, False, False), scores]


def _capped_by_another_function(q: Any, k: Any, v: Any) -> list[Any]:
    scores = o.multiply(o.sigmoid(o.matmul(q, k, False, True)), np.float32(5))
    return [o.matmul(o.softmax(scores, -1), v, False, False)]


def _scaled_by_row(q: Any, k: Any, v: Any) -> list[Any]:
    scores = o.multiply(o.matmul(q, k, False, True), np.linspace(0.1, 1, L, dtype=np.float32)[:, None])
    return [o.matmul(o.softmax(scores, -1), v, False, False)]


def _inner_sum_is_read(q: Any, k: Any, v: Any) -> list[Any]:
    masks = np.linspace(-1, 1, 2 * S, dtype=np.float32).reshape(2, S)
    scores = o.add(o.matmul(q, k, False, True), masks[0])
    return [o.matmul(o.softmax(o.add(scores, masks[1]), -1), v, False, False), scores]


def _chosen_by_a_small_number(q: Any, k: Any, v: Any) -> list[Any]:
    seen = np.arange(S) % 3 > 0
    scores = o.select(seen, o.matmul(q, k, False, True), np.float32(-20))
    return [o.matmul(o.softmax(scores, -1), v, False, False)]


def _chosen_then_masked_by_as_much(q: Any, k: Any, v: Any) -> list[Any]:
    """In a row that sees nothing, what is left are the scores of some columns and the numbers of others."""
    scores = o.select(np.arange(S) < S // 2, o.matmul(q, k, False, True), np.float32(-1e4))
    scores = o.add(scores, np.where(np.arange(S) % 2 > 0, -1e4, -9.999e3).astype(np.float32))
    return [o.matmul(o.softmax(scores, -1), v, False, False)]


def _chosen_scores_are_read(q: Any, k: Any, v: Any) -> list[Any]:
    scores = o.select(np.arange(S) % 3 > 0, o.matmul(q, k, False, True), np.float32(-1e9))
    return [o.matmul(o.softmax(scores, -1), v, False, False), scores]


def _chosen_from_more_rows(q: Any, k: Any, v: Any) -> list[Any]:
    seen = (np.arange(3 * S) % 4 > 0).reshape(3, 1, 1, 1, S)
    scores = o.select(seen, o.matmul(q, k, False, True), np.float32(-1e9))
    return [o.matmul(o.softmax(scores, -1), v, False, False)]


def _windows_of_rows(q: Any, k: Any, v: Any) -> list[Any]:
    """Heads are split here, and no batch."""
    scores = o.reshape(o.matmul(q, k, False, True), np.array([B, 1, H, L, S]), False)
    scores = o.add(scores, np.linspace(0, 3, B * H * S, dtype=np.float32).reshape(B, 1, H, 1, S))
    scores = o.reshape(scores, np.array([B * H, 1, L, S]), False)
    values = o.reshape(v, np.array([B * H, 1, S, E]), False)
    return [o.matmul(o.softmax(scores, -1), values, False, False)]


def _batch_is_masked_before_windows(q: Any, k: Any, v: Any) -> list[Any]:
    """A mask of each element of the batch is none of each window."""
    scores = o.matmul(q, k, False, True)
    scores = o.add(scores, np.linspace(-3, 3, B * S, dtype=np.float32).reshape(B, 1, 1, S))
    scores = o.reshape(scores, np.array([1, B, H, L, S]), False)
    scores = o.add(scores, np.linspace(-1, 1, B * S, dtype=np.float32).reshape(B, 1, 1, S))
    scores = o.reshape(scores, np.array([B, H, L, S]), False)
    return [o.matmul(o.softmax(scores, -1), v, False, False)]


@pytest.mark.parametrize(
    "make",
    [
        _chosen_by_a_small_number, _chosen_then_masked_by_as_much, _chosen_scores_are_read,
        _chosen_from_more_rows, _windows_of_rows, _batch_is_masked_before_windows,
        _capped_by_a_tensor, _capped_scores_are_read, _capped_by_another_function, _scaled_by_row,
        _inner_sum_is_read, _axis, _weights_are_read, _scores_are_read, _product_is_read, _mask_is_larger,
        _scaled_by_a_tensor, _scaled_behind_the_mask, _mask_has_more_heads, _guard_puts_ones,
        _guard_asks_the_scores, _guarded_weights_are_read, _key_is_scaled_by_a_tensor,
    ],
)  # fmt: skip
def test_near_misses_are_left_alone(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(SEED)
    arrays = [data(rng, B, H, L, E), data(rng, B, H, S, E), data(rng, B, H, S, E)]

    def compiled() -> ov.CompiledModel:
        q, k, v = (o.parameter(list(x.shape), np.float32) for x in arrays)
        return compiled_of(make(q, k, v), [q, k, v])

    native = compiled()
    assert not is_one_operation(native, arrays)
    got = [np.array(x) for x in native(arrays).values()]
    monkeypatch.setenv("OVJIT_INTERP", "1")
    for mine, plain in zip(got, compiled()(arrays).values(), strict=True):
        np.testing.assert_allclose(mine, plain, atol=2e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("lead", [4, 2])
def test_masks_of_open_shape(lead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All extents open, as exporters of decoders leave them: the mask may have fewer, as many, or more of
    each than the scores, which then have more, too."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, lead])
    q, k, v = (o.parameter(ov.PartialShape([-1, -1, -1, E]), np.float32) for _ in "qkv")
    mask = o.parameter(ov.PartialShape([-1] * lead), np.float32)
    scores = o.add(o.multiply(o.matmul(q, k, False, True), np.float32(0.25)), mask)
    compiled = compiled_of([o.matmul(o.softmax(scores, -1), v, False, False)], [q, k, v, mask])
    for batch, heads, rows, given in (
        (B, H, L, (B, H, L, S)), (B, H, L, (1, 1, L, S)), (B, H, L, (B, 1, 1, S)), (B, H, L, (1, 1, 1, 1)),
        (1, H, L, (B, 1, L, S)), (B, 1, L, (1, H, 1, S)), (B, H, 1, (B, 1, L, S)), (B, H, 1, (1, 1, 1, S)),
    ):  # fmt: skip
        arrays = [data(rng, batch, heads, n, E) for n in (rows, S, S)]
        arrays.append(np.where(rng.random(given[-lead:]) < 0.3, -1e4, 0).astype(np.float32))
        assert is_one_operation(compiled, arrays)
        want = attention(*arrays[:3], arrays[3], 0.25)
        got, message = compiled(arrays)[0], f"{batch, heads, rows} beside {given[-lead:]}, seed {SEED}"
        assert got.shape == want.shape, message
        np.testing.assert_allclose(got, want, atol=2e-5, err_msg=message)


def test_a_mask_of_unknown_rows_is_no_proof() -> None:
    """With one query the mask's rows would make more of the scores: then they do, natively too."""
    rng = np.random.default_rng(SEED)
    q, k, v = (o.parameter(ov.PartialShape([1, -1, E]), np.float32) for _ in "qkv")
    mask = o.parameter(ov.PartialShape([1, -1, -1]), np.float32)
    scores = o.add(o.matmul(q, k, False, True), mask)
    compiled = compiled_of([o.matmul(o.softmax(scores, -1), v, False, False)], [q, k, v, mask])
    arrays = [data(rng, 1, 1, E), data(rng, 1, 6, E), data(rng, 1, 6, E), data(rng, 1, 4, 6)]
    want = attention(*arrays[:3], arrays[3], 1.0)
    assert want.shape == (1, 4, E)
    np.testing.assert_allclose(compiled(arrays)[0], want, atol=2e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("number", [-math.inf, -3.4028235e38, -1e9, -65504.0, -1e4])
def test_masks_that_take_the_place_of_scores(number: float, is_open: bool) -> None:
    """As exporters write causal masks and padding: Select between scores and a number, either way round. A
    row that sees nothing sees all alike, and nothing where the number is infinite."""
    rng = np.random.default_rng([SEED, is_open])
    for rows, sees, shape in ((L, True, (B, 1, L, S)), (L, False, (1, 1, L, S)), (3, True, (B, 1, 1, S))):
        arrays = [data(rng, B, H, n, E) for n in (rows, S, S)]
        chosen = rng.random((*shape[:2], min(shape[2], rows), S)) < 0.5
        chosen[0, 0, 0] = not sees
        shapes = [[*((-1, -1, -1) if is_open else x.shape[:3]), E] for x in arrays]
        q, k, v = (o.parameter(shape, np.float32) for shape in shapes)
        asked = o.parameter([-1] * 4 if is_open else list(chosen.shape), bool)
        scores = o.multiply(o.matmul(q, k, False, True), np.float32(0.25))
        given = (scores, np.float32(number)) if sees else (np.float32(number), scores)
        weights = o.softmax(o.select(asked, *given), -1)
        compiled = compiled_of([o.matmul(weights, v, False, False)], [q, k, v, asked])
        assert is_one_operation(compiled, [*arrays, chosen])
        exact = np.matmul(arrays[0].astype(np.float64), arrays[1].swapaxes(-1, -2)) * 0.25
        exact = np.where(chosen == sees, exact, number)
        with np.errstate(invalid="ignore"):
            exact = np.exp(exact - exact.max(-1, keepdims=True))
        want = np.matmul(exact / exact.sum(-1, keepdims=True), arrays[2])
        message = f"{rows} rows, {sees}, {shape}, seed {SEED}"
        np.testing.assert_allclose(compiled([*arrays, chosen])[0], want, atol=2e-5, err_msg=message)


def test_scores_whose_shape_makes_the_mask() -> None:
    """As GPT-2 is exported: the scores' own sizes slice the mask from a square, and are not computed for
    that."""
    rng = np.random.default_rng(SEED)
    q, k, v = (o.parameter(ov.PartialShape([-1, H, -1, E]), np.float32) for _ in "qkv")
    scores = o.divide(o.matmul(q, k, False, True), np.float32(4))
    sizes = o.shape_of(scores, "i64")
    rows, columns = (o.gather(sizes, np.array([at]), np.int64(0)) for at in (2, 3))
    square = np.tril(np.ones((1, 1, 64, 64), bool))
    one, two, three = (np.array([n], np.int64) for n in (1, 2, 3))
    seen = o.slice(square, o.subtract(columns, rows), columns, one, two)
    seen = o.slice(seen, np.array([0], np.int64), columns, one, three)
    weights = o.softmax(o.select(seen, scores, np.float32(-1e4)), -1)
    compiled = compiled_of([o.matmul(weights, v, False, False)], [q, k, v])
    for batch, length, past in ((1, 9, 0), (2, 1, 12), (1, 20, 30)):
        arrays = [data(rng, batch, H, n, E) for n in (length, length + past, length + past)]
        assert is_one_operation(compiled, arrays)
        steps = compiled._executable.table(tuple(x.shape for x in arrays)).plan.steps
        assert {"Softmax", "MatMul", "Divide"}.isdisjoint(s.type for s in steps)
        hidden = np.where(np.tril(np.ones((length + past,) * 2))[past:], 0, -1e30)
        want, message = attention(*arrays, hidden, 0.25), f"{length} behind {past}, seed {SEED}"
        np.testing.assert_allclose(compiled(arrays)[0], want, atol=2e-5, err_msg=message)


@pytest.mark.parametrize("is_open", [False, True])
def test_windows_of_images(is_open: bool) -> None:
    """As Swin is exported: a bias for all windows, and a mask for each of an image's."""
    rng, windows = np.random.default_rng(SEED), 6
    bias, mask = data(rng, 1, H, L, L), np.where(rng.random((1, windows, 1, L, L)) < 0.3, -100, 0)
    shape = [-1 if is_open else 2 * windows, H, L, E]
    q, k, v = (o.parameter(shape, np.float32) for _ in "qkv")
    scores = o.add(o.matmul(o.multiply(q, np.float32(0.3)), k, False, True), bias)
    scores = o.reshape(scores, np.array([-1, windows, H, L, L]), False)
    scores = o.add(scores, mask.astype(np.float32))
    scores = o.reshape(scores, np.array([-1, H, L, L]), False)
    compiled = compiled_of([o.matmul(o.softmax(scores, -1), v, False, False)], [q, k, v])
    for images in (2, 1, 3) if is_open else (2,):
        arrays = [data(rng, images * windows, H, L, E) for _ in "qkv"]
        assert is_one_operation(compiled, arrays)
        want = attention(*arrays, np.tile(bias + mask[0], (images, 1, 1, 1)), 0.3)
        np.testing.assert_allclose(compiled(arrays)[0], want, atol=2e-5, err_msg=f"{images}, seed {SEED}")


def test_one_image_of_windows_beside_a_bias_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bias says how many windows there are, the trace that one image has so many: a 1 that is traced."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, windows = np.random.default_rng(SEED), 4
    shape, each = [-1, H, L, E], (windows, 1, L, L)
    q, k, v = (o.parameter(shape, np.float32) for _ in "qkv")
    bias, mask = (o.parameter(each, np.float32) for _ in "bm")
    scores = o.add(o.multiply(o.matmul(q, k, False, True), np.float32(0.3)), bias)
    scores = o.add(o.reshape(scores, np.array([-1, windows, H, L, L]), False), mask)
    scores = o.reshape(scores, np.array([-1, H, L, L]), False)
    compiled = compiled_of([o.matmul(o.softmax(scores, -1), v, False, False)], [q, k, v, bias, mask])
    arrays = [data(rng, windows, H, L, E) for _ in "qkv"] + [data(rng, *each) for _ in "bm"]
    want = attention(*arrays[:3], arrays[3] + arrays[4], 0.3)
    np.testing.assert_allclose(compiled(arrays)[0], want, atol=2e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("is_masked", [False, True])
def test_bf16_models(is_masked: bool) -> None:
    rng = np.random.default_rng(SEED)
    arrays = [data(rng, B, H, n, E).astype(ml_dtypes.bfloat16) for n in (L, S, S)]
    hidden = rng.random((1, 1, L, S)) < 0.3
    q, k, v = (o.parameter(list(x.shape), ov.Type.bf16) for x in arrays)
    scores = o.matmul(q, k, False, True)
    if is_masked:
        scores = o.add(scores, o.constant(np.where(hidden, -1e4, 0).astype(ml_dtypes.bfloat16)))
    compiled = compiled_of([o.matmul(o.softmax(scores, -1), v, False, False)], [q, k, v])
    assert is_one_operation(compiled, arrays)
    want = attention(*arrays, np.where(hidden, -1e4, 0) if is_masked else None, 1.0)
    np.testing.assert_allclose(compiled(arrays)[0].view(ml_dtypes.bfloat16).astype(float), want, atol=0.05)
