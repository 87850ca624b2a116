"""Cache eviction: drops the blocks of keys and values that got the least attention.

A sequence keeps its first `start_size` and its last `recent_size` tokens. When the cache has a full block
more than `max_cache_size` tokens, the blocks between them with the lowest scores are dropped: each layer
drops its own. The score of a token is the attention of later tokens to it: of the last `snapkv_window_size`
ones of the prompt, and of generated ones.

KVCrush keeps some of the blocks with low scores, spread over what they are like. A token with a score in the
upper half is a 1, another one a 0. Blocks are ordered by the number of tokens that differ from those of an
anchor, and of this order blocks at equal distances are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.blocks import BlockPool, Row
from ovjit.genai.enums import AggregationMode
from ovjit.genai.enums import KVCrushAnchorPointMode as Anchor
from ovjit.genai.orders import select_first, sort
from ovjit.genai.scheduler import CacheEvictionConfig, KVCrushConfig


class Crush:
    """KVCrush of one sequence. `block`: tokens of a block."""

    def __init__(self, config: KVCrushConfig, block: int):
        self._config, self._block = config, block
        self._random = np.random.MT19937()
        self._random._legacy_seeding(config.rng_seed & 0xFFFFFFFF)

    def drop(self, blocks: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Those of the `blocks` with low scores that are dropped, ascending. `scores`: of the tokens of all
        blocks."""
        budget = self._config.budget
        if not budget or len(blocks) < budget:
            return blocks
        high = np.zeros(len(scores), np.int64)
        high[_find_highest(scores.tolist(), len(scores) // 2)] = 1
        tokens = high.reshape(-1, self._block)
        distances = (tokens != self._anchor(tokens)).sum(1)
        order = np.array(sort(blocks.tolist(), lambda a, b: bool(distances[a] < distances[b])))
        return np.setdiff1d(blocks, order[:: len(order) // budget][:budget])

    def _anchor(self, tokens: np.ndarray) -> np.ndarray:
        """The anchor [tokens of a block] for the ones and zeros [blocks, tokens of a block]."""
        mode, size = self._config.anchor_point_mode, self._block
        if mode is Anchor.RANDOM:
            return (self._random.random_raw(size) >> 31).astype(np.int64)
        if mode is Anchor.MEAN:
            return (tokens.mean(0) > 0.5).astype(np.int64)
        if mode is Anchor.ALTERNATING:
            return np.arange(size) % 2
        return np.full(size, int(mode is Anchor.ONES))


def _find_highest(scores: list[float], count: int) -> list[int]:
    """The indices of the `count` highest scores."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    if 0 < count < len(scores) and scores[order[count - 1]] == scores[order[count]]:
        return select_first(range(len(scores)), count, lambda a, b: scores[a] > scores[b])
    return order[:count]


#: The number of following tokens, the token included, whose highest weight counts for a token.
_POOLED = 7
#: The base of the angles by which keys are rotated, whatever that of the model is, as in openvino_genai.
_THETA = 10000.0


def check_eviction(config: CacheEvictionConfig, block: int) -> None:
    """RuntimeError for sizes that are not multiples of a block's tokens; UnsupportedError for ADAPTIVE_RKV,
    with which openvino_genai fails at the first eviction."""
    if config.aggregation_mode is AggregationMode.ADAPTIVE_RKV:
        raise UnsupportedError("ovjit does not support AggregationMode.ADAPTIVE_RKV: use SUM or NORM_SUM")
    for name in ("start_size", "recent_size", "max_cache_size"):
        size = getattr(config, f"get_{name}")()
        if size % block:
            raise OvjitError(
                f"CacheEvictionConfig.{name} in tokens must be a multiple of block size {block}, not {size}"
            )


class Importance:
    """The scores of one sequence's tokens after the first ones, for each layer [layers, tokens], and the
    number of queries that each token has got weights from."""

    def __init__(self, config: CacheEvictionConfig, block: int):
        self._config, self._block = config, block
        self._start = config.get_start_size()
        self._sums: np.ndarray | None = None
        self._counts = np.zeros((0, 0), np.int64)
        self._prompt_queries = 0
        self._crush = Crush(config.kvcrush_config, block)

    def add(self, weights: np.ndarray, queries: int) -> None:
        """Add the weights [layers, tokens] that all tokens got from the last `queries` ones."""
        window = self._config.snapkv_window_size
        if self._prompt_queries < window:
            self._prompt_queries = min(window, self._prompt_queries + queries)
        if weights.shape[1] <= self._start or (self._sums is None and window and not queries):
            return
        pooled = _pool_following(weights[:, self._start :], _POOLED).astype(np.float64)
        if self._sums is None:
            self._sums = np.zeros((len(pooled), 0))
            self._counts = np.zeros((len(pooled), 0), np.int64)
            self._count(pooled.shape[1], queries if window else 0)
        else:
            is_partial = self._prompt_queries < window
            self._count(pooled.shape[1] - self._sums.shape[1], self._prompt_queries if is_partial else 0)
        pooled[:, : self._sums.shape[1]] += self._sums
        self._sums = pooled

    def _count(self, new: int, queries: int) -> None:
        """Count the queries of a step with `new` tokens: those of a prompt, or as many as there are new
        tokens. Each token gets weights from itself and from later ones."""
        tokens = self._counts.shape[1] + new
        ages = np.arange(tokens, 0, -1)
        if queries:
            self._counts = np.tile(np.minimum(ages, queries), (len(self._counts), 1))
        else:
            before = np.pad(self._counts, ((0, 0), (0, new)))
            self._counts = before + np.minimum(ages, new)

    def choose(self) -> list[np.ndarray]:
        """The blocks that each layer drops, by their indices in the sequence: none if there is room."""
        config, block, sums = self._config, self._block, self._sums
        if sums is None or sums.shape[1] + self._start < config.get_max_cache_size() + block:
            return []
        first, tokens = self._start // block, sums.shape[1] + self._start
        count = tokens // block - first - config.get_recent_size() // block
        surplus = count - config.get_evictable_size() // block
        values = sums / self._counts if config.aggregation_mode is AggregationMode.NORM_SUM else sums
        scores = values[:, : count * block].reshape(len(sums), count, block).sum(2)
        lowest = [np.sort(np.argsort(row, kind="stable")[:surplus]) for row in scores]
        return [
            first + self._crush.drop(blocks, row[: count * block])
            for blocks, row in zip(lowest, sums, strict=True)
        ]

    def forget(self, dropped: Sequence[np.ndarray]) -> None:
        """Forget the scores of dropped blocks."""
        assert self._sums is not None
        retained = np.ones(self._sums.shape, bool)
        for row, blocks in zip(retained, dropped, strict=True):
            for block in blocks:
                begin = block * self._block - self._start
                row[begin : begin + self._block] = False
        self._sums, self._counts = (
            a[retained].reshape(len(retained), -1) for a in (self._sums, self._counts)
        )


def _pool_following(values: np.ndarray, width: int) -> np.ndarray:
    """The maximum of each column [rows, columns] and of the `width` - 1 columns after it."""
    padded = np.pad(values, ((0, 0), (0, width - 1)), constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(padded, width, axis=1).max(2)


class Eviction:
    """Evicts blocks of the rows of a pool. A step takes `inputs`, and gives scores to `update`."""

    def __init__(self, pool: BlockPool, config: CacheEvictionConfig):
        check_eviction(config, pool.size)
        self._pool, self._config = pool, config
        self._layers, self._key_size = len(pool.decoder.layers), pool.decoder.layers[0][0][-1]

    def count_queries(self, row: Row, count: int, prompt: int) -> int:
        """The last tokens, of the `count` next ones of a row, whose weights count: those of the last part of
        a prompt of `prompt` tokens, and of generated ones."""
        window = self._config.snapkv_window_size
        begin = max(prompt - window, 0) if window else row.length
        return min(max(row.length + count - begin, 0), count)

    def inputs(self, rows: Sequence[Row], queries: Sequence[int]) -> dict[str, np.ndarray]:
        """Inputs of the decoder: how many queries of each row count, and the moved keys to be rotated."""
        inputs = {"score_aggregation_window": np.array(queries, np.int32)}
        if not self._config.apply_rotation:
            return inputs
        moved = [(row, row.shifts) for row in rows if row.shifts is not None]
        shifts = np.concatenate([np.zeros((self._layers, 0), np.int64), *(each for _, each in moved)], 1)
        blocks = np.array([block for row, each in moved for block in row.blocks[: each.shape[1]]], np.int32)
        for layer, deltas in enumerate(shifts.astype(np.int32)):
            inputs[f"rotated_block_indices.{layer}"] = blocks[deltas > 0]
            inputs[f"rotation_deltas.{layer}"] = deltas[deltas > 0][:, None]
        inputs["model_rotation_trig_lut"] = self._angles(int(shifts.max(initial=0)) + 1)
        return inputs

    def _angles(self, count: int) -> np.ndarray:
        """Cosines and sines [count, elements of a key] of the angles that move keys to 0, 1, ... blocks
        before their positions."""
        half = self._key_size // 2
        angles = np.outer(
            np.arange(count) * self._pool.size, _THETA ** (np.arange(half) * -2 / self._key_size)
        )
        return np.concatenate([np.cos(angles), -np.sin(angles)], 1).astype(np.float32)

    def update(self, rows: Sequence[Row], queries: Sequence[int], skipped: Collection[int]) -> None:
        """Take the scores of a step, but for the rows `skipped` that have not attended to all blocks."""
        scores = self._pool.decoder.scores_by_sequence()
        for i, (row, weights) in enumerate(zip(rows, scores, strict=True)):
            row.shifts = None
            if i not in skipped:
                row.importance = row.importance or Importance(self._config, self._pool.size)
                row.importance.add(weights, queries[i])

    def evict(self, row: Row) -> None:
        """Drop blocks of a row if it has too many. They stay if no blocks are free for copies of those that
        it shares with other rows."""
        dropped = row.importance.choose() if row.importance is not None else []
        if not len(dropped):
            return
        retained = [np.delete(np.arange(len(row.blocks)), blocks) for blocks in dropped]
        if self._pool.keep(row, retained):
            row.importance.forget(dropped)
            if self._config.apply_rotation:
                row.shifts = np.stack(retained) - np.arange(len(retained[0]))
