"""Keys and values of sequences that a decoder with state has read, for prompts that begin like them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

#: Tokens of a block, and the maximum number of blocks, and of their bytes.
BLOCK, BLOCKS, BYTES = 32, 512, 1 << 30
#: (block before, tokens of this block).
_Key = tuple[int, tuple[int, ...]]


class Prefixes:
    """Blocks of `BLOCK` tokens of states whose axis of tokens is `axis`. Those that were used last stay.

    A signal's handler may raise an exception anywhere, so numbers are only listed while their blocks are
    there."""

    def __init__(self, axis: int):
        self._axis = axis
        self._numbers: dict[_Key, int] = {}
        #: Number of a block -> its key and its parts of the states, in the order of their last use.
        self._blocks: OrderedDict[int, tuple[_Key, list[np.ndarray]]] = OrderedDict()
        self._next = 0

    def clear(self) -> None:
        """Forget all blocks."""
        self._numbers.clear()
        self._blocks.clear()

    def find(self, tokens: Sequence[int]) -> list[int]:
        """The blocks with the longest stored begin of these tokens."""
        numbers, before = list[int](), -1
        for begin in range(0, len(tokens) - BLOCK + 1, BLOCK):
            number = self._numbers.get((before, tuple(tokens[begin : begin + BLOCK])))
            if number is None:
                break
            numbers.append(number)
            before = number
        self._use(numbers)
        return numbers

    def add(self, tokens: Sequence[int], states: Sequence[np.ndarray]) -> None:
        """Store the full blocks of a sequence of which these are the states."""
        numbers = self.find(tokens)
        for begin in range(len(numbers) * BLOCK, len(tokens) - BLOCK + 1, BLOCK):
            key = numbers[-1] if numbers else -1, tuple(tokens[begin : begin + BLOCK])
            index = (*[slice(None)] * self._axis, slice(begin, begin + BLOCK))
            number, self._next = self._next, self._next + 1
            self._blocks[number] = key, [np.array(state[index]) for state in states]
            self._numbers[key] = number
            numbers.append(number)
        self._use(numbers)
        size = sum(state.nbytes // state.shape[self._axis] for state in states) * BLOCK
        while len(self._blocks) > min(BLOCKS, BYTES // size):
            number = next(iter(self._blocks))
            self._numbers.pop(self._blocks[number][0], None)
            del self._blocks[number]

    def join(self, blocks: Sequence[int]) -> list[np.ndarray]:
        """The states after the tokens of these blocks, in new memory."""
        parts = zip(*[self._blocks[number][1] for number in blocks], strict=True)
        return [np.concatenate(each, self._axis) for each in parts]

    def _use(self, blocks: Sequence[int]) -> None:
        """Mark blocks as used, so that each of them stays longer than those that follow it."""
        for number in reversed(blocks):
            self._blocks.move_to_end(number)
