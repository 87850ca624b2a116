"""Samples of `ovjit_ops/attention`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit_ops.attention.paged_reference import list_work
from ovjit_ops.elementwise.arithmetic import random_array
from tests.support.samples import samples


def _samples(rng: np.random.Generator, dtype: str = "f32"):
    def data(*shape: int) -> np.ndarray:
        return random_array(rng, shape, dtype, (-2, 2))

    half = np.asarray(0.3, data(1).dtype)
    for shape, s, e in (((3, 1), 1, 1), ((2, 7), 9, 16), ((1, 2, 17), 33, 8), ((2, 3, 33), 17, 40)):
        q, k, v = data(*shape, e), data(*shape[:-1], s, e), data(*shape[:-1], s, e + 1)
        rows = shape[-1]
        yield [q, k, v], {"causal": False}
        yield [q, k, v], {"causal": True}
        yield [q, k, v, data(rows, s)], {"causal": False}
        yield [q, k, v, rng.random((rows, s)) < 0.9 if s > 1 else np.ones((rows, s), bool)], {"causal": False}
        yield [q, k, v, data(*(1,) * len(shape), s), half], {"causal": False}
        yield [q, k, v, np.zeros((), half.dtype), half], {"causal": True}
    q, k, v = data(2, 4, 5, 8), data(1, 1, 6, 8), data(2, 1, 6, 8)
    yield [q, k, v], {"causal": False}
    yield [q, k, v, data(2, 1, 5, 6)], {"causal": False}
    yield [q, k, v, np.zeros((), half.dtype), half, data(1, 4, 1, 1)], {"causal": False}


samples("ScaledDotProductAttention", 13)(_samples)


@samples("GuardedAttention")
def guarded_attention(rng, dtype="f32"):
    yield from _samples(rng, dtype)
    q, k, v = (random_array(rng, (2, n, 8), dtype, (-2, 2)) for n in (9, 5, 5))
    mask = np.where(rng.random((2, 9, 5)) < 0.3, -math.inf, 0).astype(q.dtype)
    mask[0, 3], mask[1, 7] = -math.inf, math.nan
    yield [q, k, v, mask], {"causal": False}
    yield [q[:, :4], k, v, mask[:, :4]], {"causal": False}


@samples("CappedAttention")
def capped_attention(rng, dtype="f32"):
    for inputs, attrs in _samples(rng, dtype):
        yield inputs, {**attrs, "cap": 1.5}


def _inputs(rng: np.random.Generator, dtype: str) -> list[np.ndarray]:
    """A new sequence, and one with cached tokens; blocks in any order."""
    kind, i32 = numpy_dtype(dtype), np.int32
    caches = [rng.standard_normal((4, 2, 8, n)).astype(kind) for n in (6, 5)]
    rows = [rng.standard_normal((12, n)).astype(kind) for n in (4 * 6, 2 * 6, 2 * 5)]
    tables = [np.array(x, i32) for x in ([0, 9], [0, 11, 12], [2, 0, 1, 3], [0, 2, 4])]

    def none(t, *s):
        return np.zeros(s or (0,), t)

    zero = np.zeros((), i32)
    return [
        *rows, *caches, *tables, np.array(0.4, kind), zero, none(kind), zero, none(i32),
        none(i32), none(i32), none(np.float32), none(np.float32), zero, zero,
        none(kind, 0, 0, 0, 0), zero, none(i32), none(i32), none(i32), none(i32),
        none(np.uint8), none(i32),
    ]  # fmt: skip


#: Attributes of the table of work in samples.
_CUT: dict[str, Any] = {"block": 8, "part": 1, "rows": 4, "short_rows": 1, "writing": True}


@samples("PagedAttentionExtension")
def paged_attention_extension(rng, dtype="f32"):
    yield _inputs(rng, dtype), {"write_kv_cache": True}


@samples("PagedPlan")
def paged_plan(rng, dtype="f32"):
    inputs = _inputs(rng, "f32")
    yield [*inputs[5:9], np.array(0, np.int32), inputs[0], *inputs[3:5]], _CUT


@samples("PagedAttention")
def paged_attention(rng, dtype="f32"):
    inputs = _inputs(rng, dtype)
    table = list_work(*inputs[5:9], np.array(0, np.int32), inputs[0], *inputs[3:5], **_CUT)
    kinds = {"keys": dtype, "values": dtype, "heads": 2, "size": 6, "value_size": 5, "group": 0}
    yield [*inputs, table], {**_CUT, **kinds, "scores": False}
    yield [*inputs, table], {**_CUT, **kinds, "scores": True}


@samples("PagedGuard")
def paged_guard(rng, dtype="f32"):
    tables = [np.array(x, np.int32) for x in ([0, 2], [1, 0], [[0], [3]], [0, 4])]
    more = np.ones((4, 6), np.float32), np.ones(4, np.uint8), np.ones((2, 2, 8, 6), np.float32)
    yield [*tables, *more], {"rotating": True, "paired": True, "block": 8, "size": 6}


@samples("PagedEvictable")
def paged_evictable(rng, dtype="f32"):
    inputs = _inputs(rng, "f32")
    more = [np.array(x, np.int32) for x in (8, [0, 8], [], [])]
    yield [inputs[3], *inputs[5:9], *more], {"block": 8}


@samples("PagedDiversity")
def paged_diversity(rng, dtype="f32"):
    inputs = _inputs(rng, "f32")
    more = [np.array(x, np.int32) for x in (8, [0, 8], [], [])]
    kind = {"keys": "f32", "heads": 2, "size": 6, "block": 8}
    yield [inputs[0], inputs[3], *inputs[5:9], *more], kind


def _sample(rng):
    caches = [rng.standard_normal((4, 2, 8, n)).astype(np.float32) for n in (6, 5)]
    tables = ([2, 0, 1], [0, 2, 3], [15, 3, 4, 5, 1, 0], [0, 2, 3])
    return [*caches, *(np.array(x, np.int32) for x in tables)]


@samples("PaKVReorder")
def pa_kv_reorder(rng, dtype="f32"):
    yield _sample(rng), {}


@samples("PagedMoves")
def paged_moves(rng, dtype="f32"):
    kinds = {"keys": "f32", "values": "f32", "heads": 2, "size": 6, "value_size": 5, "block": 8, "group": 0}
    yield _sample(rng), kinds


@samples("RoPE")
def rope(rng, dtype="f32"):
    for shape, rotary, attrs in (
        ((1, 2, 5, 8), 8, {}),
        ((2, 3, 7, 16), 4, {}),
        ((1, 5, 2, 8), 8, {"input_trans0213": True}),
        ((1, 2, 5, 24), 8, {"slice_start": 8, "slice_stop": 16}),
    ):
        length = shape[1] if attrs.get("input_trans0213") else shape[2]
        turns = [random_array(rng, (1, 1, length, rotary), dtype, (-1, 1)) for _ in range(2)]
        yield [random_array(rng, shape, dtype, (-2, 2)), *turns], {"rotary_ndims": rotary, **attrs}


@samples("RotateHalf")
def rotate_half(rng, dtype="f32"):
    for shape in ((2,), (3, 8), (2, 3, 5, 10), (1, 4, 7, 34), (2, 5, 64), (3, 128)):
        for pairs in (False, True):
            yield [random_array(rng, shape, dtype)], {"pairs": pairs}
