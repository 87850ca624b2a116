"""Paged attention: keys and values in blocks of caches that the caller owns.

Models have `PagedAttentionExtension`. A compiled model has one table of work (`PagedPlan`) for all layers
that read the same tables. The `PagedAttention` of a layer writes new keys and values into the caller's
caches, and reads all tokens of a sequence from there. The caches are inputs of the model, written in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.op import Bool, Int, Str, TensorType, op
from ovjit.graph.paged_caches import CacheKind, kinds_of
from ovjit.graph.shapes import ANY, compatible, is_static
from ovjit_ops.attention.cpu_paged_plan import sizes
from ovjit_ops.attention.paged_reference import (
    check_extras,
    diversity,
    evictable_blocks,
    list_work,
    paged_attention,
)  # fmt: skip
from ovjit_ops.common.checks import check_type
from ovjit_ops.elementwise.arithmetic import REALS


def _check_rank(x: TensorType, name: str, *ranks: int) -> None:
    words = " or ".join(map(str, ranks))
    check(x.rank is None or x.rank in ranks, f"{name} should have {words} dimensions, not {x}")


#: Ranks and element types of the inputs after the caches.
_TABLES = {
    "past_lens": ((1,), ("i32",)), "subsequence_begins": ((1,), ("i32",)), "block_indices": ((1,), ("i32",)),
    "block_indices_begins": ((1,), ("i32",)), "scale": ((0,), REALS), "sliding_window": ((0,), ("i32",)),
    "alibi_slopes": ((1,), REALS), "max_context_len": ((0,), ("i32",)),
    "score_aggregation_window": ((0, 1), ("i32",)), "rotated_block_indices": ((1,), ("i32",)),
    "rotation_deltas": ((1, 2), ("i32",)), "rotation_trig_lut": ((1, 2), ("f16", "f32")),
    "xattention_threshold": ((0, 1), ("f16", "f32")), "xattention_block_size": ((0,), ("i32",)),
    "xattention_stride": ((0,), ("i32",)), "sinks": ((1, 4), REALS),
    "adaptive_rkv_start_size": ((0,), ("i32",)), "adaptive_rkv_evictable_sizes": ((1,), ("i32",)),
    "adaptive_rkv_diversity_block_set_indices": ((1,), ("i32",)),
    "adaptive_rkv_diversity_block_set_indices_begins": ((1,), ("i32",)),
    "token_type_ids": ((1, 2), ("i32",)), "qq_bias": ((1,), ("u8", "boolean")),
    "qq_bias_begins": ((1,), ("i32",)),
}  # fmt: skip


def _features(x: TensorType) -> Any:
    return x.shape[1] if x.shape is not None else ANY


def _check_rows(query: TensorType, *more: TensorType) -> None:
    """Keys and values have as many tokens as queries."""
    for x in more:
        if query.shape is not None and x.shape is not None:
            check(
                compatible(query.shape[0], x.shape[0]),
                f"queries, keys and values should have the same number of tokens, not {query} and {x}",
            )


def _check_counts(inputs: Sequence[TensorType], heads: Any, filled: int) -> None:
    """Optional inputs have one element per head, token or sequence, one for all sequences, or none. Lowered
    inputs may be followed by `filled` times as many neutral elements."""
    tokens, sequences = (x.shape[0] if x.shape else ANY for x in (inputs[0], inputs[5]))
    for number, name, count, one in (
        (11, "alibi_slopes", heads, False), (20, "sinks", heads, False),
        (25, "token_type_ids", tokens, False), (13, "score_aggregation_window", sequences, True),
        (17, "xattention_threshold", sequences, True),
    ):  # fmt: skip
        shape = inputs[number].shape
        if shape is None or not is_static((*shape, count)):
            continue
        elements = math.prod(shape)
        fits = elements == 0 or elements == count or (one and elements == 1)
        fits = fits or (filled > 0 and not one and elements == count * (1 + filled))
        check(fits, f"{name} should have {count} elements, or be empty")


def _width(query: TensorType, key: TensorType, value: TensorType) -> Any:
    """Elements of a row of the result: heads of queries times elements of a value."""
    q, k, v = map(_features, (query, key, value))
    if all(isinstance(n, int) for n in (q, k, v)) and k:
        check(q * v % k == 0, f"queries of {q} elements do not match keys of {k} and values of {v} elements")
        return q * v // k
    return ANY


@op("PagedAttentionExtension", opset=1, plugin="extension", stateful=True, types=REALS, role="pages")
class PagedAttentionExtension:
    """softmax(scale q k^T + bias) v for sequences with keys and values in blocks of caches.

    Outputs are the attention, the weights of keys, and the diversity of keys. `write_kv_cache`: new keys and
    values are written to the caches first.
    """

    def infer(
        query, key, value, key_cache, value_cache, past_lens, subsequence_begins, block_indices,
        block_indices_begins, scale, sliding_window, alibi_slopes, max_context_len, score_aggregation_window,
        rotated_block_indices, rotation_deltas, rotation_trig_lut, xattention_threshold,
        xattention_block_size, xattention_stride, sinks, adaptive_rkv_start_size,
        adaptive_rkv_evictable_sizes, adaptive_rkv_diversity_block_set_indices,
        adaptive_rkv_diversity_block_set_indices_begins, token_type_ids, qq_bias, qq_bias_begins, *,
        write_kv_cache: Bool = True,
    ):  # fmt: skip
        inputs = locals()
        for name in ("query", "key", "value"):
            check_type(inputs[name], REALS)
            _check_rank(inputs[name], name, 2)
        _check_rows(query, key, value)
        for name, (ranks, types) in _TABLES.items():
            x = inputs[name]
            _check_rank(x, name, *ranks)
            check(x.dtype in (*types, "dynamic"), f"{name} should be {' or '.join(types)}, not {x.dtype}")
        for name in ("key_cache", "value_cache"):
            _check_rank(inputs[name], name, 2, 3, 4, 5)
        _check_counts([*inputs.values()], ANY, 0)
        rows = ANY if query.shape is None else query.shape[0]
        return (
            TensorType(query.dtype, (rows, _width(query, key, value))),
            TensorType(query.dtype, (ANY,)),
            TensorType(query.dtype, (ANY,)),
        )

    def ref(*inputs, write_kv_cache=True):
        return tuple(x.astype(inputs[0].dtype) for x in paged_attention(*inputs, writing=write_kv_cache))


@op("PagedPlan", internal=True, lower=".cpu_paged_plan:PagedPlan.of")
class PagedPlan:
    """The table of work of paged attention (`cpu_paged_plan`). Validates all block indices against
    `caches`."""

    def infer(
        past_lens, subsequence_begins, block_indices, block_indices_begins, window, query, *caches,
        block: Int, part: Int, rows: Int, short_rows: Int, writing: Bool, typed: Bool = False,
    ):  # fmt: skip
        shapes = [x.shape for x in (past_lens, query, block_indices)]
        if any(shape is None for shape in shapes):
            return TensorType("i64", (ANY,))
        sequences, tokens, entries = (shape[0] for shape in shapes)
        for name, x in (
            ("subsequence_begins", subsequence_begins),
            ("block_indices_begins", block_indices_begins),
        ):
            check(
                compatible(x.shape[0] if x.shape else ANY, sequences + 1),
                f"{name} should have one element more than there are sequences ({sequences})",
            )
        try:
            words = sizes(sequences, tokens, entries, block, part, rows)["words"]
        except TypeError:
            words = ANY
        return TensorType("i64", (words,))

    def ref(*inputs, **attrs):
        return list_work(*inputs, **attrs)


@op("PagedAttention", internal=True, lower=".cpu_paged:PagedAttention.of", stateful=True, ulp=256)
class PagedAttention:
    """PagedAttentionExtension for caches of known kinds, with its table of work. `precision`: the input type
    of products of prompts."""

    def infer(
        *inputs, keys: Str, values: Str, heads: Int, size: Int, value_size: Int, block: Int, group: Int,
        part: Int, rows: Int, short_rows: Int, writing: Bool, typed: Bool = False, scores: Bool = False,
        precision: Str = "f32",
    ):  # fmt: skip
        query, key, value = inputs[:3]
        _check_rows(query, key, value)
        for x, each in ((query, size), (key, size), (value, value_size)):
            width = _features(x)
            if isinstance(width, int):
                fits = width % (heads * each) == 0 if x is query else width == heads * each
                check(
                    fits,
                    f"queries, keys and values should have {heads} heads of {each} elements, not {x}",
                )
        tokens, features = ANY if query.shape is None else query.shape[0], _features(query)
        _check_counts(inputs, features // size if isinstance(features, int) else ANY, 1)
        out = TensorType(query.dtype, (tokens, _width(query, key, value)))
        entries = inputs[7].shape[0] if inputs[7].shape else ANY
        return (out, TensorType("f32", (entries * block,)), TensorType("i64", (1,))) if scores else out

    def ref(*inputs, part, rows, short_rows, writing, typed=False, scores=False, precision="f32", **kinds):
        out, weights, _ = paged_attention(*inputs[:28], writing=writing, kinds=kinds_of(kinds), diverse=False)
        if not scores:
            return out
        room = np.zeros(len(inputs[7]) * kinds["block"], np.float32)
        room[: weights.size] = weights
        return out, room, np.array([weights.size])


@op("PagedGuard", internal=True, lower=".cpu_paged:PagedGuard.of")
class PagedGuard:
    """Checks rotated blocks and the ranges of pairs of queries. The output has no content."""

    def infer(
        subsequence_begins, rotated_block_indices, rotation_deltas, qq_bias_begins, rotation_trig_lut,
        qq_bias, key_cache, *, rotating: Bool, paired: Bool, block: Int, size: Int,
    ):  # fmt: skip
        return TensorType("i64", (1,))

    def ref(begins, rotated, deltas, pairs_at, angles, pairs, cache, *, rotating, paired, block, size):
        check_extras(begins, rotated, deltas, pairs_at, angles, pairs, len(cache), block, size)
        return np.zeros(1, np.int64)


@op("PagedEvictable", internal=True)
class PagedEvictable:
    """Checks the blocks that `PagedDiversity` reads. The output has no content."""

    def infer(
        key_cache, past_lens, subsequence_begins, block_indices, block_indices_begins, start, sizes, sets,
        set_begins, *, block: Int,
    ):  # fmt: skip
        return TensorType("i64", (1,))

    def ref(cache, *tables, block):
        evictable_blocks(block, len(cache), *tables)
        return np.zeros(1, np.int64)


@op("PagedDiversity", internal=True)
class PagedDiversity:
    """The dissimilarity of keys, see `paged_reference.diversity`. Its size depends on data. The first input,
    the `result` of the attention that writes these keys, only orders the two."""

    def infer(
        result, key_cache, past_lens, subsequence_begins, block_indices, block_indices_begins, start, sizes,
        sets, set_begins, *, keys: Str, heads: Int, size: Int, block: Int,
    ):  # fmt: skip
        return TensorType("f32", (ANY,))

    def ref(result, *inputs, keys, heads, size, block):
        return diversity(CacheKind(keys, heads, block, size, 0, True), *inputs)
