"""Blocks of the states of recurrent layers: each keeps those behind one token of a sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ovjit.generation.paged import PagedDecoder

if TYPE_CHECKING:
    from ovjit.genai.blocks import Row

#: Blocks of the first tables.
_FIRST = 16


class StateBlocks:
    """The blocks of a decoder's tables of states. The first one keeps zeros, with which sequences begin. A
    block is written once, so that forks share those that are there."""

    def __init__(self, decoder: PagedDecoder):
        self._decoder, self._owners = decoder, Counter[int]()
        decoder.grow_states(_FIRST)
        self._free = list(range(1, _FIRST))

    def inputs(self, pairs: Sequence[tuple[Row, int]]) -> dict[str, np.ndarray]:
        """The lists of blocks for rows and the numbers of their next tokens: a block for the states behind
        the last token, or behind each of them if some are proposals."""
        blocks, steps = list[list[int]](), list[int]()
        for row, count in pairs:
            step = 1 if row.logit_count > 1 else count
            begin = row.states.pop(row.length) if row.length else 0
            self._give_back(row.states.values())
            taken = [self._take() for _ in range(count // step)]
            ends = range(row.length + step, row.length + count + 1, step)
            row.states = {row.length: begin, **dict(zip(ends, taken, strict=True))}
            blocks.append([begin, *taken])
            steps.append(step)
        lists = {
            "block_indices": np.concatenate(blocks), "past_lens": np.zeros(len(steps)),
            "block_indices_begins": np.cumsum([0, *map(len, blocks)]), "cache_interval": np.array(steps),
        }  # fmt: skip
        return {f"la.{name}": values.astype(np.int32) for name, values in lists.items()}

    def rewind(self, row: Row) -> None:
        """Let a row go on behind the last of its tokens whose states are there."""
        row.length = max((length for length in row.states if length <= row.length), default=0)

    def share(self, row: Row) -> dict[int, int]:
        """The states of a row for a fork of it."""
        self._owners.update(block for block in row.states.values() if block)
        return dict(row.states)

    def release(self, row: Row) -> None:
        self._give_back(row.states.values())

    def _take(self) -> int:
        if not self._free:
            before = self._decoder.state_blocks
            self._decoder.grow_states(2 * before)
            self._free = list(range(before, 2 * before))
        block = self._free.pop()
        self._owners[block] = 1
        return block

    def _give_back(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            if block:
                self._owners[block] -= 1
                if not self._owners[block]:
                    del self._owners[block]
                    self._free.append(block)
