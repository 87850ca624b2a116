"""Blocks of keys and values: shared by sequences that fork, and by prompts with a common prefix."""

from __future__ import annotations

import copy
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ovjit.genai.scheduler import SchedulerConfig
from ovjit.generation.paged import PagedDecoder
from ovjit.generation.paged_tables import Tables

#: Blocks of the first cache, of the first tables of states, and the number up to which a cache grows before
#: blocks of prefixes are dropped.
_FIRST, _FIRST_STATES, _KEPT = 32, 16, 512
NONE: Mapping[int, range] = {}
NO_INPUTS: Mapping[str, np.ndarray] = {}
#: (block before, tokens of this block) of a prefix.
_Key = tuple[int, tuple[int, ...]]


class Row:
    """A sequence in the cache: all of its tokens, the number of those that are computed, its blocks, and the
    number of last tokens whose logits are needed. If blocks were evicted: the number of their tokens, what
    the other tokens are worth, and the numbers of blocks [layers, blocks] that they have moved by since the
    last step. `prompt`: of tokens with pictures. `states`: number of tokens -> block of the states after
    them; those of fewer than `fewest` tokens, to which it is never truncated, are dropped."""

    fewest = sys.maxsize

    def __init__(self, tokens: Sequence[int], prompt: Any = None):
        self.tokens, self.prompt = list(tokens), prompt
        self.logit_count = 1
        self.clear()

    def clear(self) -> None:
        """Mark all tokens as not computed."""
        self.length = self.evicted = 0
        self.blocks: list[int] = []
        self.states: dict[int, int] = {}
        self.importance: Any = None
        self.shifts: np.ndarray | None = None

    def key(self, begin: int, end: int) -> tuple[int, ...]:
        """A key of the tokens from number `begin` to `end`, which equal prefixes share."""
        keys = [] if self.prompt is None else self.prompt.keys[begin:end]
        return (*keys, *self.tokens[begin + len(keys) : end])

    @property
    def cache_length(self) -> int:
        """Tokens in the cache."""
        return self.length - self.evicted

    @property
    def remaining(self) -> int:
        """Tokens that are not computed yet."""
        return len(self.tokens) - self.length


class RowInputs(Protocol):
    """Makes inputs of a decoder that takes embeddings. `names`: those that it may have; `embed`: the
    embeddings of tokens."""

    names: Collection[str]
    embed: Callable[[np.ndarray], np.ndarray]

    def __call__(self, pairs: Sequence[tuple[Row, int]]) -> Mapping[str, np.ndarray]:
        """The inputs for rows and the numbers of their next tokens."""


def drop_owners(owners: Counter[int], blocks: Iterable[int]) -> Iterator[int]:
    """Count an owner less of each block. Yields those that have none any more."""
    for block in blocks:
        owners[block] -= 1
        if not owners[block]:
            del owners[block]
            yield block


class StateBlocks:
    """The blocks of a decoder's tables of states. The first one keeps zeros, with which sequences begin. A
    block is written once, so that forks share those that are there."""

    def __init__(self, decoder: PagedDecoder):
        self._decoder, self._owners = decoder, Counter[int]()
        decoder.grow_states(_FIRST_STATES)
        self._free = list(range(1, _FIRST_STATES))

    def inputs(self, pairs: Sequence[tuple[Row, int]]) -> dict[str, np.ndarray]:
        """The lists of blocks for rows and the numbers of their next tokens: a block for the states after
        the last token, or after each of them if some are proposals."""
        blocks, steps = list[list[int]](), list[int]()
        for row, count in pairs:
            step = 1 if row.logit_count > 1 else count
            begin = row.states[row.length] if row.length else 0
            fewest = min(row.fewest, row.length)
            older = {n: row.states.pop(n) for n in [*row.states] if fewest <= n <= row.length}
            self._give_back(row.states.values())
            added = [self._take() for _ in range(count // step)]
            ends = range(row.length + step, row.length + count + 1, step)
            row.states = {row.length: begin, **older, **dict(zip(ends, added, strict=True))}
            blocks.append([begin, *added])
            steps.append(step)
        lists = {
            "block_indices": np.concatenate(blocks), "past_lens": np.zeros(len(steps)),
            "block_indices_begins": np.cumsum([0, *map(len, blocks)]), "cache_interval": np.array(steps),
        }  # fmt: skip
        return {f"la.{name}": values.astype(np.int32) for name, values in lists.items()}

    def rewind(self, row: Row) -> None:
        """Shorten a row's computed tokens to the greatest number whose states are stored."""
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
        self._free += drop_owners(self._owners, filter(None, blocks))


class BlockPool:
    """The blocks of a decoder's caches. A limit comes from `num_kv_blocks` or `cache_size` (in GiB); without
    one, caches grow. `inputs`: those of a model that takes embeddings."""

    def __init__(self, decoder: PagedDecoder, config: SchedulerConfig, inputs: RowInputs | None = None):
        self.decoder, self.size, self._inputs = decoder, decoder.block, inputs
        self.limit = config.num_kv_blocks
        if not self.limit and config.cache_size:
            self.limit = (config.cache_size << 30) // sum(decoder.layer_bytes)
        self._states = StateBlocks(decoder) if decoder.has_states else None
        # only states after the newest tokens are stored
        self._shares_prefixes = config.enable_prefix_caching and self._states is None
        decoder.allocate(self.limit or _FIRST)
        self._free = list(range(decoder.blocks))[::-1]
        self._owners: Counter[int] = Counter()
        self._blocks: dict[_Key, int] = {}
        self._keys: dict[int, _Key] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # of prefixes that no sequence uses

    @property
    def count(self) -> int:
        """Blocks that sequences use."""
        return len(self._owners)

    def _take(self) -> int | None:
        """A block, None if there is none."""
        if not self._free and not self.limit and (not self._idle or self.decoder.blocks < _KEPT):
            before = self.decoder.blocks
            self.decoder.grow(2 * before)
            self._free = list(range(before, 2 * before))[::-1]
        if not self._free and self._idle:
            block, _ = self._idle.popitem(last=False)
            self._forget(block)
        if not self._free:
            return None
        block = self._free.pop()
        self._owners[block] = 1
        return block

    def _forget(self, block: int) -> None:
        """Drop a prefix, and those that continue it: they cannot be found any more."""
        del self._blocks[self._keys.pop(block)]
        self._free.append(block)
        for key in [key for key in self._blocks if key[0] == block]:
            following = self._blocks[key]
            if following in self._idle:
                del self._idle[following]
                self._forget(following)
            else:
                del self._blocks[key], self._keys[following]

    def reserve(self, row: Row, count: int) -> bool:
        """Blocks for `count` further tokens of a row. False if there are too few; those that it got stay."""
        if row.cache_length % self.size and row.blocks:
            last = row.blocks[-1]
            if len(row.blocks) * self.size > row.cache_length and self._owners[last] > 1:
                block = self._take()
                if block is None:
                    return False
                self.decoder.copy_block(last, block)
                self._owners[last] -= 1
                row.blocks[-1] = block
        while len(row.blocks) * self.size < row.cache_length + count:
            block = self._take()
            if block is None:
                return False
            row.blocks.append(block)
        return True

    def compute(
        self, rows: Sequence[Row], counts: Sequence[int], skipped: Mapping[int, range] = NONE,
        more: Mapping[str, np.ndarray] = NO_INPUTS,
    ) -> np.ndarray:  # fmt: skip
        """Compute the next `counts` tokens of rows that have blocks for them. Returns the hidden states
        [tokens, width], valid until the next call. `skipped`: index of a row -> indices of its blocks that
        these tokens do not attend to. `more`: further inputs of the decoder."""
        pairs = list(zip(rows, counts, strict=True))
        past, begins, blocks, ends = list[int](), [0], list[int](), [0]
        for i, (row, count) in enumerate(pairs):
            hidden_blocks = skipped.get(i, range(0))
            past.append(row.cache_length - len(hidden_blocks) * self.size)
            visible = [*row.blocks[: hidden_blocks.start], *row.blocks[hidden_blocks.stop :]]
            blocks += visible[: -(-(past[-1] + count) // self.size)]
            begins.append(begins[-1] + count)
            ends.append(len(blocks))
        longest = max(length + count for length, count in zip(past, counts, strict=True))
        tables = Tables(*(np.array(each, np.int32) for each in (past, begins, blocks, ends, longest)))
        spans = [(row.tokens, range(row.length, row.length + count)) for row, count in pairs]
        tokens = np.array([each for all_tokens, span in spans for each in all_tokens[span.start : span.stop]])
        positions = np.array([i for _, span in spans for i in span])
        if self._inputs is not None:
            more = {**more, **self._inputs(pairs)}
        if self._states is not None:
            more = {**more, **self._states.inputs(pairs)}
        hidden = self.decoder.hidden(tokens, positions, tables, more)
        for row, count in pairs:
            row.length += count
        return hidden

    def find_prefix(self, row: Row) -> None:
        """Assign to a row without blocks those cached blocks that hold its prefix. Tokens whose logits are
        needed are always computed."""
        before = -1
        while self._shares_prefixes and row.length + self.size <= len(row.tokens) - row.logit_count:
            key = before, row.key(row.length, row.length + self.size)
            block = self._blocks.get(key)
            if block is None:
                return
            self._idle.pop(block, None)
            self._owners[block] += 1
            row.blocks.append(block)
            row.length += self.size
            before = block

    def keep_prefix(self, row: Row) -> None:
        """Let later rows find the full blocks of this row, but for proposed tokens: they may be replaced."""
        if not self._shares_prefixes or row.evicted:
            return
        before, confirmed = -1, len(row.tokens) + 1 - row.logit_count
        for i in range(min(row.length, confirmed) // self.size):
            block = row.blocks[i]
            key = before, row.key(i * self.size, (i + 1) * self.size)
            cached = self._blocks.get(key)
            if cached is None and block not in self._keys:
                self._blocks[key], self._keys[block] = block, key
                cached = block
            if cached != block:  # the same tokens, computed in another block
                return
            before = block

    def drop_prefixes(self) -> None:
        """Forget all prefixes: the decoder computes others now."""
        self._free += self._idle
        self._idle.clear()
        self._blocks.clear()
        self._keys.clear()

    def fork(self, row: Row) -> Row:
        """A row with the same tokens and the same blocks."""
        child = Row(row.tokens, row.prompt)
        child.length, child.evicted, child.blocks = row.length, row.evicted, list(row.blocks)
        child.importance = copy.deepcopy(row.importance)
        if self._states is not None:
            child.states = self._states.share(row)
        self._owners.update(child.blocks)
        return child

    def keep(self, row: Row, retained: Sequence[np.ndarray]) -> bool:
        """Keep only the blocks with the indices `retained` [layers][count] of a row. False if shared blocks
        must be copied and no block is free: the row has all of its blocks then."""
        count = len(retained[0])
        first = int(min(np.append(np.flatnonzero(each != np.arange(count)), count)[0] for each in retained))
        targets, copies = row.blocks[:count], list[int]()
        for i in range(first, count):
            if self._owners[targets[i]] > 1 or targets[i] in self._keys:
                block = self._take()
                if block is None:
                    self._give_back(copies)
                    return False
                copies.append(block)
                targets[i] = block
        for layer, indices in enumerate(retained):
            sources = [row.blocks[i] for i in indices[first:]]
            self.decoder.move_blocks(layer, sources, targets[first:])
        self._give_back(block for block in row.blocks if block not in targets)
        row.evicted += (len(row.blocks) - count) * self.size
        row.blocks = targets
        return True

    def release(self, row: Row) -> None:
        """Release the blocks of a row. Its tokens stay, and are computed again."""
        self._give_back(row.blocks)
        if self._states is not None:
            self._states.release(row)
        row.clear()

    def rewind(self, row: Row, length: int) -> None:
        """Keep at most so many computed tokens of a row."""
        row.length = min(row.length, length)
        if self._states is not None:
            self._states.rewind(row)

    def _give_back(self, blocks: Iterable[int]) -> None:
        for block in drop_owners(self._owners, blocks):
            if block in self._keys:
                self._idle[block] = None
            else:
                self._free.append(block)
