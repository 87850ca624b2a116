"""Native forms of the operations that turn strings into numbers (`vocabularies`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError
from ovjit_ops.text.cpu_native import Scratch, address, as_bytes, as_i32, native, refuse, strings_of
from ovjit_ops.text.packed import pack, unpack, with_known
from ovjit_ops.text.vocabularies import Unigram, bpe_vocabulary, merge_pairs

_STEPS = "cpu_word_steps"
_build_trie = native(_STEPS, "build_trie")
_build_pairs = native(_STEPS, "build_pairs")
_encode_pairs = native(_STEPS, "encode_pairs")
_encode_pieces = native(_STEPS, "encode_pieces")
_encode_longest = native(_STEPS, "encode_longest")
_encode_paths = native(_STEPS, "encode_paths")
_look_up_words = native(_STEPS, "look_up_words")

#: Bytes and ids of the words that a tokenizer keeps at most.
_CACHE_BYTES, _CACHE_IDS = 1 << 22, 1 << 21


def _power_above(count: int) -> int:
    return 1 << max(count, 4).bit_length()


class NativeTrie:
    """The trie of words, see `cpu_word_steps`."""

    def __init__(self, words: Sequence[bytes], numbers: Sequence[int]):
        begins, ends, chars = pack(words)
        size = int(chars.size)
        slots = _power_above(2 * size)
        self.root = np.zeros(256, np.int32)
        self.table = np.zeros(slots, np.int64)
        self.values = np.full(size + 1, -1, np.int32)
        self._numbers = as_i32(numbers)
        arrays, words_at = strings_of(begins, ends, chars)
        addresses = self._addresses(slots)
        nodes = _build_trie(*words_at, address(self._numbers), *addresses)
        refuse(nodes, "a vocabulary")
        self.values = self.values[:nodes].copy()
        self.args = self._addresses(slots)

    def _addresses(self, slots: int) -> list[int]:
        return [address(self.root), address(self.table), slots - 1, address(self.values)]


class _Ragged:
    """The first part of the block of routines that encode ragged strings, and their results."""

    def __init__(self, arrays: Sequence[np.ndarray], room: int):
        """`room`: ids for each string beyond the number of its bytes."""
        begins, ends, *strings = arrays[:5]
        rows = [as_i32(begins), as_i32(ends)]
        if rows[0].size != rows[1].size:
            raise InferenceError("the begins and ends of rows differ in number")
        self.kept, at = strings_of(*strings)
        lengths = self.kept[1].astype(np.int64) - self.kept[0]
        count = self._strings_in(rows, lengths)
        self.longest = int(lengths.max(initial=0))
        self.ids = np.empty(count + room * self._pieces + 1, np.int32)
        self.begins, self.ends = np.empty(begins.shape, np.int32), np.empty(begins.shape, np.int32)
        self.kept += rows
        results = [address(x) for x in (self.begins, self.ends, self.ids)]
        self.args = [address(rows[0]), address(rows[1]), rows[0].size, *at[:3], at[3], at[4], *results]

    def _strings_in(self, rows: Sequence[np.ndarray], lengths: np.ndarray) -> int:
        """The bytes of the strings of all rows: a string may be in several."""
        counts = rows[1].astype(np.int64) - rows[0]
        self._pieces = int(counts.sum())
        if counts.size and (counts.min() < 0 or rows[0].min() < 0 or rows[1].max() > lengths.size):
            raise InferenceError("a row is outside of its strings")
        if lengths.size and lengths.min() < 0:
            raise InferenceError("a string ends before it begins")
        if self._pieces == lengths.size and (rows[0][1:] == rows[1][:-1]).all():
            return int(lengths.sum())
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return int((before[rows[1]] - before[rows[0]]).sum())

    def results(self, made: int, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        refuse(made, name)
        return self.begins, self.ends, self.ids[:made]


class _Cache:
    """The words that have been encoded, see `encode_pairs`."""

    def __init__(self, most: int):
        slots = _power_above(2 * most)
        self._arrays = [
            np.zeros(slots, np.int32), np.empty(5 * most, np.int64), np.empty(_CACHE_BYTES, np.uint8),
            np.empty(_CACHE_IDS, np.int32),
        ]  # fmt: skip
        numbers = [slots - 1, 0, most, 0, _CACHE_BYTES, 0, _CACHE_IDS]
        self.block = np.array([*numbers, *map(address, self._arrays)], np.int64)


class BytePairs:
    def __init__(self, inputs: Sequence[np.ndarray], attrs: Mapping[str, Any]):
        vocabulary, pairs = bpe_vocabulary(inputs)
        words, merges = merge_pairs(vocabulary, pairs)
        self.trie = NativeTrie(list(words), list(words.values()))
        slots = _power_above(2 * len(merges))
        self.pairs = np.zeros(2 * slots, np.int64)
        # in order of rank, which is the index in these arrays
        columns = np.array(
            [(vocabulary[a], vocabulary[b], vocabulary[a + b]) for a, b in pairs], np.int32
        ).reshape(-1, 3).T.copy()  # fmt: skip
        _build_pairs(*(address(c) for c in columns), len(pairs), address(self.pairs), slots - 1)
        self.unknown = vocabulary.get(attrs["unk_token"].encode(), -1)
        self.bytes = None
        if attrs["byte_fallback"]:
            self.bytes = as_i32([words.get(b"<0x%02X>" % byte, -1) for byte in range(256)])
        self.suffix = as_bytes(np.frombuffer(attrs["end_suffix"].encode(), np.uint8))
        self.cache = _Cache(min(max(attrs["cache_capacity"], 0), 1 << 20)) if attrs["cache_capacity"] > 0 else None
        self.scratch = Scratch()
        self.args = [
            *self.trie.args, address(self.pairs), slots - 1, self.unknown,
            0 if self.bytes is None else address(self.bytes), address(self.suffix), self.suffix.size,
        ]  # fmt: skip

    def __call__(self, *arrays: np.ndarray) -> Any:
        ragged = _Ragged(arrays, self.suffix.size)
        most = ragged.longest + self.suffix.size + 1
        words = -(-most // 8)
        lock = self.scratch.lock.lock
        alone = lock.acquire(blocking=False)
        try:
            sizes = words, 8 * most, 9 * most
            memory = self.scratch.of(sum(sizes)) if alone else np.empty(sum(sizes), np.int64)
            first = address(memory)
            cache = address(self.cache.block) if alone and self.cache is not None else 0
            made = _encode_pairs(
                *ragged.args, *self.args, first, first + 8 * words, first + 8 * (words + sizes[1]), cache
            )
        finally:
            if alone:
                lock.release()
        return ragged.results(made, "BPETokenizer")


@with_known(5)
def prepare_byte_pairs(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    return BytePairs(inputs[5:], attrs)


@with_known(5, 8)
def prepare_word_pieces(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    mark = attrs["suffix_indicator"].encode()
    words = list(enumerate(unpack(*inputs[5:8])))
    heads = [(i, word) for i, word in words if not word.startswith(mark)]
    tails = [(i, word[len(mark) :]) for i, word in words if word.startswith(mark)]
    tries = [NativeTrie([w for _, w in part], [i for i, _ in part]) for part in (heads, tails)]
    most = attrs["max_bytes_per_word"]

    def evaluate(*arrays: np.ndarray) -> Any:
        ragged = _Ragged(arrays, 1)
        unknown = int(arrays[8].reshape(-1)[0])
        made = _encode_pieces(*ragged.args, *tries[0].args, *tries[1].args, unknown, most)
        return ragged.results(made, "WordpieceTokenizer")

    return evaluate


@with_known(5)
def prepare_unigram(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    model = Unigram(inputs[5:9], attrs)
    trie = NativeTrie(list(model.words), list(model.words.values()))
    scores, penalty = np.ascontiguousarray(model.scores), np.array([model.penalty], np.float32)

    def evaluate(*arrays: np.ndarray) -> Any:
        ragged = _Ragged(arrays, 1)
        each = (ragged.longest + 3) // 2
        memory = np.empty(3 * each, np.int64)
        first = address(memory)
        places = [first, first + 8 * each, first + 16 * each]
        made = _encode_paths(
            *ragged.args, *trie.args, address(scores), model.unknown, address(penalty), *places
        )
        return ragged.results(made, "UnigramTokenizer")

    return evaluate


@with_known(5)
def prepare_trie(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    words, numbers = unpack(*inputs[5:8]), inputs[8].reshape(-1)
    if len(words) != len(numbers):
        raise InferenceError("TrieTokenizer: Vocab size must be equal to Indices size")
    trie = NativeTrie(words, numbers)

    def evaluate(*arrays: np.ndarray) -> Any:
        ragged = _Ragged(arrays, 0)
        made = _encode_longest(*ragged.args, *trie.args)
        if made <= -3:
            raise InferenceError(f"TrieTokenizer: no word begins with the byte {-3 - made}")
        return ragged.results(made, "TrieTokenizer")

    return evaluate


@with_known(3, 7)
def prepare_encoder(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    values = np.ascontiguousarray(inputs[6].reshape(-1), np.int64)
    words: dict[bytes, int] = {}
    for i, word in enumerate(unpack(*inputs[3:6])):
        words.setdefault(word, i)
    dtype = inputs[6].dtype
    empty = words.pop(b"", None)
    trie = NativeTrie(list(words), list(words.values()))
    if empty is not None:
        trie.values[0] = empty

    def evaluate(*arrays: np.ndarray) -> np.ndarray:
        kept, at = strings_of(*arrays[:3])
        out = np.empty(kept[0].size, np.int64)
        other = int(arrays[7].reshape(-1)[0])
        code = _look_up_words(*at, *trie.args, address(values), other, address(out))
        refuse(code, "VocabEncoder")
        return out if dtype == np.int64 else out.astype(dtype)

    return evaluate
