"""KVCrush: keeps some of the blocks with low scores, spread over what they are like.

A token with a score in the upper half is a 1, another one a 0. Blocks are ordered by the number of tokens
that differ from those of an anchor, and of this order blocks at equal distances are kept.
"""

from __future__ import annotations

import numpy as np

from ovjit.genai.enums import KVCrushAnchorPointMode as Anchor
from ovjit.genai.orders import select_first, sort
from ovjit.genai.scheduler import KVCrushConfig


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
