"""PaKVReorder: moves tokens of a paged cache within their sequence, as speculative decoding does."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.op import Int, Str, TensorType, op
from ovjit.graph.paged_caches import CacheKind, kinds_of
from ovjit_ops.attention.paged_reference import read_block, write_token


def move_tokens(
    kinds: tuple[CacheKind, CacheKind], keys: Any, values: Any, entries: Any, ends: Any, moves: Any,
    moves_at: Any,
) -> np.ndarray:  # fmt: skip
    """Move the tokens in place. Raises InferenceError before any is moved if an index is out of range."""
    block, copies, cache_blocks = kinds[0].tokens, [], min(len(keys), len(values))
    lists = (ends, len(entries)), (moves_at[: len(ends)], len(moves) // 2)
    rising = all(x.size and not x[0] and (x[1:] >= x[:-1]).all() and x[-1] <= most for x, most in lists)
    if not rising or len(moves_at) < len(ends):
        raise InferenceError("PaKVReorder: begins should increase from 0, one more than sequences")
    for s in range(len(ends) - 1):
        table = entries[int(ends[s]) : int(ends[s + 1])].tolist()
        rows = moves[2 * int(moves_at[s]) : 2 * int(moves_at[s + 1])].reshape(-1, 2).tolist()
        for row in rows:
            if any(not 0 <= t < len(table) * block or not 0 <= table[t // block] < cache_blocks for t in row):
                raise InferenceError(
                    f"PaKVReorder: the tokens {row} are outside of the blocks of sequence {s}"
                )
            copies.append([(table[t // block], t % block) for t in row])
    for (one, at), (other, to) in copies:
        for cache, kind in zip((keys, values), kinds, strict=True):
            for head in range(kind.heads):
                token = read_block(cache, one, head, kind, block)[at]
                write_token(cache, other, head, kind, to, token)
    return np.zeros(1, np.uint8)


def _infer(key_cache, value_cache, *tables):
    for name, x in (("key_cache", key_cache), ("value_cache", value_cache)):
        check(x.rank in (None, 4), f"{name} should have 4 dimensions, not {x}")
    names = ("block_indices", "block_indices_begins", "block_update_indices", "block_update_indices_begins")
    for name, x in zip(names, tables, strict=True):
        check(
            x.rank in (None, 1) and x.dtype in ("i32", "dynamic"), f"{name} should be i32 with one dimension"
        )
    return TensorType("u8", (1,))


@op("PaKVReorder", opset=1, plugin="extension", stateful=True, role="pages")
class PaKVReorder:
    """Move tokens `block_update_indices` (from, to) within the blocks of each sequence. Returns 0."""

    def infer(
        key_cache, value_cache, block_indices, block_indices_begins, block_update_indices,
        block_update_indices_begins,
    ):  # fmt: skip
        tables = block_indices, block_indices_begins, block_update_indices, block_update_indices_begins
        return _infer(key_cache, value_cache, *tables)

    def ref(*inputs):
        keys, values = (
            CacheKind(str(x.dtype).replace("float", "f"), x.shape[1], x.shape[2], x.shape[3])
            for x in inputs[:2]
        )
        return move_tokens((keys, values), *inputs)


@op("PagedMoves", internal=True, lower=".cpu_paged_moves:PagedMoves.of", stateful=True)
class PagedMoves:
    """PaKVReorder for caches of known kinds."""

    def infer(
        *inputs, keys: Str, values: Str, heads: Int, size: Int, value_size: Int, block: Int, group: Int
    ):  # fmt: skip
        return _infer(*inputs[:6])

    def ref(*inputs, **kinds):
        return move_tokens(kinds_of(kinds), *inputs[:6])
