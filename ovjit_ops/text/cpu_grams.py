"""The native count of n-grams of words in texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.native_routines import address, native, routine_at
from ovjit.forks import ForkLock
from ovjit_ops.text.cpu_native import as_i32
from ovjit_ops.text.cpu_words import NativeTrie

_STEPS = "ovjit_ops.text.cpu_gram_steps"
_build_grams = native(_STEPS, "build_grams")
_count_grams = routine_at(_STEPS, "count_grams")
#: Places among its arguments of those that each call gives.
_DATA, _SIZE, _WORDS, _COUNTS = 0, 1, 15, 16


class NativeGrams:
    """Counts n-grams, which are tuples of words, each with a column.

    `kinds`: for each byte what it is in words, 0 for those between words. `alone`: each byte is a word.
    """

    def __init__(
        self, grams: Mapping[tuple[bytes, ...], int], kinds: bytes, alone: bool, shortest: int, width: int,
        skips: int, binary: bool,
    ):  # fmt: skip
        words = {word: i for i, word in enumerate(dict.fromkeys(word for gram in grams for word in gram))}
        self._width = width
        self._trie = NativeTrie(list(words), list(words.values()))
        self._kinds = np.frombuffer(kinds, np.uint8)
        total = sum(map(len, grams))
        slots = 1 << max(2 * total, 4).bit_length()
        self._first = np.zeros(max(len(words), 1), np.int32)
        self._table = np.zeros(2 * slots, np.int64)
        self._columns = np.full(total + 1, -1, np.int32)
        sources = [
            as_i32([words[word] for gram in grams for word in gram]), as_i32(list(map(len, grams))),
            as_i32(list(grams.values())),
        ]  # fmt: skip
        table = [address(self._table), slots - 1, address(self._columns)]
        _build_grams(*map(address, sources), len(grams), address(self._first), *table)
        arguments = [0, 0, address(self._kinds), int(alone), shortest, *self._trie.args, *table]
        arguments += [address(self._first), max(map(len, grams), default=0), skips, 0, 0, width, int(binary)]
        #: The routine's arguments, memory for the numbers of words and its address: of one thread at a time.
        self._block, self._memory = np.array(arguments, np.int64), (np.empty(0, np.int64), 0)
        self._block_at, self._lock = address(self._block), ForkLock("words")

    def count(self, joined: bytes, texts: int) -> np.ndarray:
        """The counts, f32 [texts, width]. `joined`: texts in ASCII with a null character between two."""
        data = np.frombuffer(joined, np.uint8)
        out = np.zeros((texts, self._width), np.float32)
        alone = self._lock.lock.acquire(blocking=False)
        try:
            block = self._block if alone else self._block.copy()
            words, at = self._memory
            if not alone or words.size <= data.size // 2:  # two of them in each int64
                words = np.empty(data.size + 64, np.int64)
                at = address(words)
                self._memory = (words, at) if alone else self._memory
            values = block.data
            values[_DATA], values[_SIZE], values[_WORDS], values[_COUNTS] = (
                address(data),
                data.size,
                at,
                address(out),
            )
            _count_grams(self._block_at if alone else address(block))
        finally:
            if alone:
                self._lock.lock.release()
        return out


def grams_of(levels: Sequence[Mapping[Any, int]], least: int, most: int) -> dict[tuple[bytes, ...], int]:
    """The n-grams of `least` to `most` words with their columns; `levels` has those of 1, 2 ... words, of one
    word as the word itself."""
    grams: dict[tuple[bytes, ...], int] = {}
    for size, level in enumerate(levels[least - 1 : most], least):
        grams.update(((key,) if size == 1 else key, column) for key, column in level.items())
    return grams
