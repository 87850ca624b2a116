"""Paged attention in NumPy: the contents of blocks, and attention over them.

The caches are written in place, as by the native kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.errors import InferenceError
from ovjit.graph.dtypes import from_numpy
from ovjit.graph.paged_caches import FLAT, HEAD, LEAST, TOP, CacheKind
from ovjit_ops.attention.cpu_paged_plan import FIRST, ITEM, SEQUENCE, WRITE, sizes

#: Error code of the native check -> message.
FAULTS = {
    5: "subsequence_begins should increase from 0 to the number of rows of the query",
    6: "past_lens should not be negative",
    7: "block_indices_begins should increase from 0 and stay within block_indices",
    8: "a sequence has fewer blocks than its past and new tokens need",
    9: "block_indices is outside of the cache, or a new token has block -1",
    10: "rotated_block_indices or rotation_deltas are outside of the cache or of rotation_trig_lut",
    11: "qq_bias_begins should give each sequence the offset of its squared new tokens in qq_bias",
    13: "rotation_deltas should have one row per entry of rotated_block_indices, with one number or "
    "one per token of a block; rows of rotation_trig_lut should have the length of a key",
}


def _refuse(condition: Any, number: int) -> None:
    if condition:
        raise InferenceError(f"paged attention: {FAULTS[number]}")


def list_work(
    past_lens: Any, begins: Any, entries: Any, ends: Any, window: Any, query: Any, *caches: Any, block: int,
    part: int, rows: int, short_rows: int, writing: bool, typed: bool = False,
) -> np.ndarray:  # fmt: skip
    """The int64 table of work (`cpu_paged_plan`). Raises InferenceError for invalid tables."""
    sequences, tokens = len(past_lens), len(query)
    layout = sizes(sequences, tokens, len(entries), block, part, rows)
    table = np.zeros(layout["words"], np.int64)
    cache_blocks, window_size = min(len(c) for c in caches), int(window.reshape(-1)[0])
    writes, short, long = [], [], []
    slots = lengths = 0
    _refuse(begins[0] != 0 or begins[-1] != tokens, 5)
    _refuse(ends[0] != 0, 7)
    for s in range(sequences):
        past, first, end, entry, stop = (
            int(x) for x in (past_lens[s], begins[s], begins[s + 1], ends[s], ends[s + 1])
        )
        _refuse(not first <= end <= tokens, 5)
        _refuse(not entry <= stop <= len(entries), 7)
        _refuse(past < 0, 6)
        new = end - first
        blocks = -(-(past + new) // block)
        _refuse(blocks > stop - entry, 8)
        indices = entries[entry:stop]
        _refuse((indices < -1).any() or (indices >= cache_blocks).any(), 9)
        touched = range(past // block, blocks) if new else range(0)
        _refuse(writing and any(indices[i] < 0 for i in touched), 9)
        row = [past, new, first, entry, -1, 0, lengths, blocks]
        lengths += past + new
        writes += [[s, i] for i in touched]
        start = max(past + 1 - window_size, 0) // block if window_size > 0 and not typed else 0
        if 0 < new <= short_rows:
            parts = -(-(blocks - start) // part)
            if parts > 1:
                row[4:6] = slots, parts
            for i in range(parts):
                block_count = min(part, blocks - start - i * part)
                short.append([s, 0, new, start + i * part, block_count, slots if parts > 1 else -1])
                slots += parts > 1
        for r in range(0, new, rows) if new > short_rows else ():
            count = min(rows, new - r)
            at = max(past + r + 1 - window_size, 0) // block if window_size > 0 and not typed else 0
            stop_at = past + (new if typed else r + count)
            long.append([s, r, count, at, -(-stop_at // block) - at, -1])
        table[FIRST + s * SEQUENCE :][:SEQUENCE] = row
    for name, items, width in (("writes", writes, WRITE), ("few", short, ITEM), ("many", long, ITEM)):
        table[layout[f"{name}_at"] :][: len(items) * width] = np.ravel(items)
    table[:5] = len(writes), len(short), len(long), slots, lengths
    return table


def kinds_of_arrays(
    key: Any, value: Any, keys: np.ndarray, values: np.ndarray
) -> tuple[CacheKind, CacheKind]:
    """The kinds of caches without attributes, from the arrays' types and shapes."""
    kind, vkind = from_numpy(keys.dtype), from_numpy(values.dtype)
    heads = keys.shape[1]
    block = values.shape[2]
    return (
        CacheKind(kind, heads, block, key.shape[1] // heads, 0, True),
        CacheKind(vkind, heads, block, value.shape[1] // heads),
    )


def _bytes_of(cache: np.ndarray, kind: CacheKind) -> np.ndarray:
    """A cache as u8 [blocks, heads, bytes of a block], without a copy."""
    return cache.reshape(len(cache), kind.heads, -1).view(np.uint8)


def _unpack_codes(data: np.ndarray, kind: CacheKind) -> np.ndarray:
    """Bytes as f32: each is a code, or has the codes of two elements, the first in its high half."""
    if kind.kind == "u8":
        return data.astype(np.float32)
    return (
        np.stack([data >> 4, data & 15], -1).reshape(*data.shape[:-1], 2 * data.shape[-1]).astype(np.float32)
    )


def _pack_codes(numbers: np.ndarray, kind: CacheKind) -> np.ndarray:
    levels = np.clip(np.rint(numbers), 0, TOP[kind.kind]).astype(np.uint8)
    return levels if kind.kind == "u8" else levels[..., ::2] << 4 | levels[..., 1::2]


def _scales(low: np.ndarray, high: np.ndarray, kind: CacheKind) -> tuple[np.ndarray, np.ndarray]:
    flat = np.maximum(np.abs(low) * np.float32(FLAT), np.float32(LEAST))
    factor = np.maximum((high - low) / np.float32(TOP[kind.kind]), flat).astype(np.float32)
    return factor, (-low / factor).astype(np.float32)


def read_block(cache: np.ndarray, index: int, head: int, kind: CacheKind, count: int) -> np.ndarray:
    """The first `count` tokens of a block as f32 [count, size]."""
    if not kind.packed:
        return cache[index, head, :count].astype(np.float32)
    data = _bytes_of(cache, kind)[index, head]
    if kind.by_channel:
        factor, zero = data[: HEAD * kind.size].view(np.float32).reshape(2, kind.size)
        rows = data[HEAD * kind.size :].reshape(kind.tokens, kind.row)[:count]
        return (_unpack_codes(rows, kind) - zero) * factor
    rows = data.reshape(kind.tokens, kind.row)[:count]
    scales = (
        np.ascontiguousarray(rows[:, : HEAD * kind.groups]).view(np.float32).reshape(count, kind.groups, 1, 2)
    )
    numbers = _unpack_codes(rows[:, HEAD * kind.groups :], kind).reshape(count, kind.groups, -1)
    return ((numbers - scales[..., 1]) * scales[..., 0]).reshape(count, kind.size)


def write_block(
    cache: np.ndarray, index: int, head: int, kind: CacheKind, first: int, new: np.ndarray
) -> None:
    """Write tokens [n, size] to a block, from token `first` on. Scales of channels that do not cover them are
    widened, and the earlier tokens quantized anew."""
    count = first + len(new)
    if not kind.packed:
        cache[index, head, first:count] = new.astype(cache.dtype)
        return
    data = _bytes_of(cache, kind)[index, head]
    if not kind.by_channel:
        rows = data.reshape(kind.tokens, kind.row)[first:count]
        groups = new.astype(np.float32).reshape(len(new), kind.groups, -1)
        factor, zero = _scales(groups.min(-1), groups.max(-1), kind)
        rows[:, : HEAD * kind.groups] = np.stack([factor, zero], -1).reshape(len(new), -1).view(np.uint8)
        rows[:, HEAD * kind.groups :] = _pack_codes(
            (groups / factor[..., None] + zero[..., None]).reshape(len(new), -1), kind
        )
        return
    new = new.astype(np.float32)
    tokens = np.concatenate([read_block(cache, index, head, kind, first), new])
    _quantize_anew(data, kind, tokens, new, first > 0)


def write_token(
    cache: np.ndarray, index: int, head: int, kind: CacheKind, at: int, token: np.ndarray
) -> None:
    """Overwrite token `at` of a block by a token [size]. Scales of channels that do not cover it are
    widened."""
    if not (kind.packed and kind.by_channel):
        write_block(cache, index, head, kind, at, token[None])
        return
    tokens = read_block(cache, index, head, kind, kind.tokens)
    tokens[at] = token
    _quantize_anew(_bytes_of(cache, kind)[index, head], kind, tokens, token[None], True)


def _quantize_anew(
    data: np.ndarray, kind: CacheKind, tokens: np.ndarray, new: np.ndarray, has_tokens: bool
) -> None:
    """Write the tokens `tokens` [n, size] to a block with scales of channels. If it `has_tokens`, scales that
    do not cover the `new` ones are widened, and others stay; else they are those of `new`."""
    scales = data[: HEAD * kind.size].view(np.float32).reshape(2, kind.size)
    low, high = new.min(0), new.max(0)
    if has_tokens:
        factor, zero = scales.copy()
        least, most = -zero * factor, (TOP[kind.kind] - zero) * factor
        widen_floats = _scales(np.minimum(low, least), np.maximum(high, most), kind)
        scales[...] = np.where((low >= least) & (high <= most), (factor, zero), widen_floats)
    else:
        scales[...] = _scales(low, high, kind)
    numbers = data[HEAD * kind.size :].reshape(kind.tokens, kind.row)
    numbers[: len(tokens)] = _pack_codes(tokens / scales[0] + scales[1], kind)


def _number(x: np.ndarray) -> Any:
    return x.reshape(-1)[0]


def check_extras(
    begins: Any, rotated: Any, deltas: Any, pairs_at: Any, angles: Any, pairs: Any, cache_blocks: int,
    block: int, size: int,
) -> None:  # fmt: skip
    """Raise InferenceError for rotated blocks, rows of angles or pairs of queries that are out of range."""
    if rotated.size:
        each = deltas.shape[1] if deltas.ndim > 1 else 1
        row = angles.shape[1] if angles.ndim > 1 else size
        _refuse(len(deltas) < len(rotated) or each not in (1, block), 13)
        _refuse(row != size or angles.size % size, 13)
        outside, used = (rotated < 0).any() or (rotated >= cache_blocks).any(), deltas[: len(rotated)]
        _refuse(outside or (used < 0).any() or (used >= angles.size // size).any(), 10)
    if pairs_at.size:
        new, pair_counts = np.diff(begins), np.diff(pairs_at)
        _refuse((pairs_at < 0).any() or (pair_counts < 0).any() or pairs_at[-1] > pairs.size, 11)
        _refuse(((pair_counts > 0) & (pair_counts != new * new)).any(), 11)


def evictable_blocks(
    block: int, cache_blocks: int, past_lens: Any, begins: Any, entries: Any, ends: Any, start: Any,
    sizes_of: Any, sets: Any, set_begins: Any,
) -> list[np.ndarray]:  # fmt: skip
    """The blocks of evictable tokens, for each sequence that has such. Raises InferenceError if they are not
    whole blocks among the `cache_blocks` ones of a cache."""
    first, block_lists, sequences = int(_number(start)), [], len(past_lens)
    if len(sizes_of) > sequences or (set_begins.size and len(set_begins) <= len(sizes_of)):
        raise InferenceError(
            f"adaptive RKV: {len(sizes_of)} evictable sizes and {len(set_begins)} begins of block sets "
            f"do not match {sequences} sequences"
        )
    for s, evictable in enumerate(sizes_of.tolist()):
        if not evictable:
            continue
        blocks_of = -(-(int(past_lens[s]) + int(begins[s + 1]) - int(begins[s])) // block)
        listed = entries[max(int(ends[s]), 0) : max(int(ends[s + 1]), 0)][:blocks_of]
        low, high = (int(x) for x in set_begins[s : s + 2]) if set_begins.size else (0, 0)
        wrong = evictable < 0 or first < 0 or evictable % block > 0 or first % block > 0
        wrong = wrong or not 0 <= low <= high <= len(sets)
        if high > low:
            listed = sets[max(low, 0) : high]
        wrong = wrong or first + evictable > len(listed) * block
        blocks = listed[first // block : (first + evictable) // block]
        if wrong or (blocks < 0).any() or (blocks >= cache_blocks).any():
            raise InferenceError(
                f"adaptive RKV: sequence {s} has no {evictable} evictable tokens after its first {first}; "
                f"both should be multiples of {block}"
            )
        block_lists.append(blocks)
    return block_lists


def diversity(keys: CacheKind, cache: Any, *tables: Any) -> np.ndarray:
    """Dissimilarity of keys, f32: [evictable tokens / block, evictable tokens] of each sequence, flattened.

    An element is minus the sum, over the tokens of a block, of their cosines with a token. Cosines below the
    mean of their row count as 0, as does that of a token with itself. Heads are averaged. `tables`: see
    `evictable_blocks`.
    """
    block, results = keys.tokens, []
    for blocks in evictable_blocks(block, len(cache), *tables):
        tokens = len(blocks) * block
        total = np.zeros((tokens, tokens), np.float32)
        for h in range(keys.heads):
            k = np.concatenate([read_block(cache, int(b), h, keys, block) for b in blocks])
            k = k / np.sqrt((k * k).sum(-1, keepdims=True) + np.finfo(np.float32).eps)
            near = k @ k.T
            np.fill_diagonal(near, 0)
            total += np.where(near >= near.mean(1, keepdims=True), near, 0)
        results.append(-(total / keys.heads).reshape(tokens // block, block, tokens).sum(1).reshape(-1))
    return np.concatenate(results).astype(np.float32) if results else np.zeros(0, np.float32)


def kept_blocks(
    q: np.ndarray, k: np.ndarray, scale: Any, threshold: Any, each: Any, stride: Any
) -> np.ndarray:
    """The mask [tokens, tokens] of the keys that XAttention computes for each query (`cpu_paged_sparse`)."""
    tokens, each, stride = len(q), int(each), int(stride)
    mask = np.ones((tokens, tokens), bool)
    if each < 16 or stride < 1 or each % stride:
        return mask
    n, per = -(-tokens // stride), each // stride
    shape, missing = (n, stride, q.shape[1]), ((0, n * stride - tokens), (0, 0))
    a, b = (np.pad(x.astype(np.float32), missing).reshape(shape) for x in (q, k))
    row = n, stride * q.shape[1]
    scores = a[:, ::-1].reshape(row) @ b.reshape(row).T * np.float32(scale / stride)
    scores = np.where(np.tril(np.ones((n, n), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights = weights / weights.sum(1, keepdims=True)
    blocks = -(-tokens // each)
    for i in range(blocks):
        rows = weights[i * per : (i + 1) * per]
        sums = np.array([rows[:, j * per : (j + 1) * per].sum() for j in range(i + 1)])
        keep = {0, i}
        for j in np.argsort(-sums, kind="stable").tolist():
            if sums[list(keep)].sum() >= sums.sum() * threshold:
                break
            keep.add(j)
        for j in set(range(i + 1)) - keep:
            mask[i * each : (i + 1) * each, j * each : (j + 1) * each] = False
    return mask


def _rotate(cache: Any, keys: CacheKind, rotated: Any, deltas: Any, angles: Any) -> None:
    """Rotate the keys of blocks in place."""
    angles = angles.astype(np.float32).reshape(-1, keys.size)
    cosines, sines = np.split(angles, 2, 1)
    for i, block in enumerate(rotated.tolist()):
        rows = np.broadcast_to(deltas[i], keys.tokens)
        for h in range(keys.heads):
            low, high = np.split(read_block(cache, block, h, keys, keys.tokens), 2, 1)
            c, s = cosines[rows], sines[rows]
            write_block(cache, block, h, keys, 0, np.concatenate([low * c - high * s, low * s + high * c], 1))


def _write_tokens(cache: Any, kind: CacheKind, table: Any, head: int, past: int, fresh: Any) -> None:
    """Write the tokens from position `past` on into the blocks of a sequence."""
    block = kind.tokens
    for b in range(past // block, -(-(past + len(fresh)) // block)):
        low = max(past, b * block)
        write_block(cache, table[b], head, kind, low - b * block, fresh[low - past : (b + 1) * block - past])


def _read_tokens(cache: Any, kind: CacheKind, table: Any, head: int, count: int) -> tuple[Any, Any]:
    """(the first `count` tokens of a sequence [count, size], whether each has a block). Tokens without a
    block are zeros."""
    block, tokens, there = kind.tokens, np.zeros((count, kind.size), np.float32), np.ones(count, bool)
    for b in range(-(-count // block)):
        at = slice(b * block, min((b + 1) * block, count))
        if table[b] < 0:
            there[at] = False
        else:
            tokens[at] = read_block(cache, table[b], head, kind, at.stop - at.start)
    return tokens, there


def _scored_tokens(recent: Any, sequence: int, new: int) -> slice:
    """The new tokens whose weights are added to the scores: the last `recent` ones of a sequence. A negative
    number means all, an empty `recent` one."""
    at = sequence if recent.size > 1 else 0
    last = int(recent[at]) if at < recent.size else 1
    return slice(max(new - (new if last < 0 else last), 0), new)


def _visible(there: Any, past: int, new: int, window: int, types: Any) -> Any:
    """The mask [new, past + new] of the keys that each new token attends to: earlier ones in the window, and
    all of its image. `types`: whether each new token is part of an image."""
    positions, columns = past + np.arange(new)[:, None], np.arange(past + new)
    visible = (columns <= positions) & there
    if window > 0:
        visible &= columns > positions - window
    for i in np.flatnonzero(types):
        first, stop = i, i + 1
        while stop < new and types[stop]:
            stop += 1
        while first and types[first - 1]:
            first -= 1
        visible[i, past + first : past + stop] = there[past + first : past + stop]
    return visible


def _softmax(logits: Any, sink: Any) -> Any:
    """The weights of keys. A sink is one more logit in the denominator. Zeros if no key is visible."""
    top = np.maximum(logits.max(-1, keepdims=True, initial=-np.inf), sink)
    top = np.where(np.isfinite(top), top, 0)
    weights = np.exp(logits - top)
    total = weights.sum(-1, keepdims=True) + np.exp(sink - top)
    return np.where(total > 0, weights / np.where(total > 0, total, 1), 0)


def paged_attention(
    query: Any, key: Any, value: Any, key_cache: Any, value_cache: Any, past_lens: Any, begins: Any,
    entries: Any, ends: Any, scale: Any, window: Any, slopes: Any, *more: Any, writing: bool = True,
    kinds: tuple[CacheKind, CacheKind] | None = None, diverse: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """(attention [tokens, features], summed weights of keys, diversity of keys). Writes new tokens if
    `writing`."""
    keys, values = kinds or kinds_of_arrays(key, value, key_cache, value_cache)
    heads, size, value_size = keys.heads, keys.size, values.size
    group = query.shape[1] // (heads * size)
    sinks, window_size, block = more[8], int(_number(window)), keys.tokens
    recent, types, pairs, pairs_at = more[1], more[13].reshape(-1), more[14], more[15]
    tables, evicted = (past_lens, begins, entries, ends), more[9:13]
    diverse = diverse and more[10].size > 0
    if diverse:
        evictable_blocks(block, len(key_cache), *tables, *evicted)
    list_work(
        past_lens, begins, entries, ends, window, query, key_cache, value_cache, block=block, part=1, rows=1,
        short_rows=1, writing=writing,
    )  # fmt: skip
    rotated, deltas, angles = more[2:5]
    check_extras(begins, rotated, deltas, pairs_at, angles, pairs, len(key_cache), block, size)
    if more[2].size:
        _rotate(key_cache, keys, rotated, deltas, angles)
    scores: list[np.ndarray] = []
    out = np.zeros((len(query), heads * group, value_size), np.float32)
    for s, past in enumerate(past_lens.tolist()):
        rows = slice(int(begins[s]), int(begins[s + 1]))
        new = rows.stop - rows.start
        scores.append(np.zeros(past + new, np.float32))
        scored = _scored_tokens(recent.reshape(-1), s, new)
        table = entries[int(ends[s]) : int(ends[s + 1])].tolist()
        positions, columns = past + np.arange(new)[:, None], np.arange(past + new)
        for h in range(heads):
            for cache, kind, source in ((key_cache, keys, key), (value_cache, values, value)):
                if writing and new:
                    fresh = source[rows].reshape(new, heads, kind.size)[:, h]
                    _write_tokens(cache, kind, table, h, past, fresh)
            k, there = _read_tokens(key_cache, keys, table, h, past + new)
            v, _ = _read_tokens(value_cache, values, table, h, past + new)
            visible = _visible(there, past, new, window_size, types[rows] if types.size else types)
            if pairs_at.size and pairs_at[s + 1] > pairs_at[s]:
                visible[:, past:] &= pairs[pairs_at[s] : pairs_at[s + 1]].reshape(new, new) != 0
            for g in range(group):
                head = h * group + g
                attended = visible
                if more[5].size and len(past_lens) == 1 and not past and new > 1:
                    queries = query[:, head * size : (head + 1) * size]
                    ours = key[:, h * size : (h + 1) * size]
                    attended = visible & kept_blocks(queries, ours, _number(scale), *map(_number, more[5:8]))
                q = query[rows].reshape(new, heads * group, size)[:, head].astype(np.float32)
                logits = q @ k.T * np.float32(_number(scale))
                if slopes.size:
                    logits = logits + np.float32(slopes[head]) * (columns - positions)
                sink = np.float32(sinks.reshape(-1)[head]) if sinks.size else -np.inf
                weights = _softmax(np.where(attended, logits, -np.inf), sink)
                out[rows, head] = weights @ v
                scores[-1] += weights[scored].sum(0)
    result = out.reshape(len(query), heads * group * value_size).astype(query.dtype)
    different = diversity(keys, key_cache, *tables, *evicted) if diverse else np.zeros(0, np.float32)
    return result, np.concatenate([*scores, different[:0]]), different
