"""Native forms of the operations that turn strings into numbers (`vocabularies`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.native_routines import address, native
from ovjit.errors import InferenceError
from ovjit_ops.text.cpu_native import (
    FULL,
    LONG,
    OTHER,
    Scratch,
    Slices,
    as_bytes,
    as_i32,
    ranges_of,
    refuse,
    strings_of,
)
from ovjit_ops.text.packed import pack, unpack, with_known
from ovjit_ops.text.vocabularies import Unigram, bpe_vocabulary, merge_pairs

_STEPS = "ovjit_ops.text.cpu_word_steps"
_build_trie = native(_STEPS, "build_trie")
_build_pairs = native(_STEPS, "build_pairs")
_encode_pairs = native(_STEPS, "encode_pairs")
_encode_pieces = native(_STEPS, "encode_pieces")
_encode_longest = native(_STEPS, "encode_longest")
_encode_paths = native(_STEPS, "encode_paths")
_look_up_words = native(_STEPS, "look_up_words")

#: Bytes and ids of the words that a tokenizer keeps at most.
_CACHE_BYTES, _CACHE_IDS = 1 << 22, 1 << 21
#: The longest string that the first call assumes.
LONGEST = 1000
#: The words that Unigram remembers at most.
WORDS = 20000


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

    def __init__(self, arrays: Sequence[np.ndarray]):
        begins, ends, *strings = arrays[:5]
        self.rows = ranges_of(begins, ends)
        self.shape = begins.shape
        self.buffers, at = strings_of(*strings)
        self.inputs = [address(self.rows[0]), address(self.rows[1]), self.rows[0].size, *at]
        self.room = at[4] + at[3] + 16

    def run(self, call: Callable[[list[int], int, int], int], name: str, longest: int = 0) -> Any:
        """The rows and ids that `call(first arguments, room for ids, longest string)` makes. It is called
        again where the room or the longest string that was assumed is too small."""
        count = self.rows[0].size
        while True:
            out = Slices(count, count, self.room)
            count_or_error = call([*self.inputs, *out.args], self.room, longest)
            if count_or_error == FULL:
                self.room *= 4  # strings of rows may be the same
            elif count_or_error == LONG:
                longest = int((self.buffers[1].astype(np.int64) - self.buffers[0]).max())
            else:
                break
        refuse(count_or_error, name)
        if count_or_error < 0:
            return count_or_error
        begins, ends, ids = out.arrays()
        return begins.reshape(self.shape), ends.reshape(self.shape), ids[:count_or_error]


class _Cache:
    """The words that have been encoded, see `encode_pairs`."""

    def __init__(self, most: int):
        slots = _power_above(2 * most)
        self._arrays: list[np.ndarray] = [
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
        self.cache = (
            _Cache(min(max(attrs["cache_capacity"], 0), 1 << 20)) if attrs["cache_capacity"] > 0 else None
        )
        self.scratch = Scratch()
        self.args = [
            *self.trie.args, address(self.pairs), slots - 1, self.unknown,
            0 if self.bytes is None else address(self.bytes), address(self.suffix), self.suffix.size,
        ]  # fmt: skip

    def __call__(self, *arrays: np.ndarray) -> Any:
        lock = self.scratch.lock.lock
        alone = lock.acquire(blocking=False)
        try:
            scratch = self.scratch if alone else Scratch()
            cache = address(self.cache.block) if alone and self.cache is not None else 0

            def call(first: list[int], room: int, longest: int) -> int:
                most = longest + self.suffix.size + 1
                words = -(-most // 8)
                at = address(scratch.of(words + 17 * most))
                scratch_at = at, at + 8 * words, at + 8 * (words + 8 * most)
                return _encode_pairs(*first, *self.args, *scratch_at, cache, room, longest)

            return _Ragged(arrays).run(call, "BPETokenizer", LONGEST)
        finally:
            if alone:
                lock.release()


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
        options = [*tries[0].args, *tries[1].args, arrays[8].item(), most]
        ragged = _Ragged(arrays)
        return ragged.run(lambda first, room, _: _encode_pieces(*first, *options, room), "WordpieceTokenizer")

    return evaluate


@with_known(5)
def prepare_unigram(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    model = Unigram(inputs[5:9], attrs)
    trie = NativeTrie(list(model.words), list(model.words.values()))
    scores, penalty = np.ascontiguousarray(model.scores), np.array([model.penalty], np.float32)

    options = [*trie.args, address(scores), model.unknown, address(penalty)]
    common, cache = Scratch(), _Cache(WORDS)

    def evaluate(*arrays: np.ndarray) -> Any:
        alone = common.lock.lock.acquire(blocking=False)
        try:
            scratch = common if alone else Scratch()

            def call(first: list[int], room: int, longest: int) -> int:
                each = longest // 2 + 2
                at = address(scratch.of(3 * each))
                scratch_at = at, at + 8 * each, at + 16 * each
                cache_at = address(cache.block) if alone else 0
                return _encode_paths(*first, *options, *scratch_at, room, longest, cache_at)

            return _Ragged(arrays).run(call, "UnigramTokenizer", LONGEST)
        finally:
            if alone:
                common.lock.lock.release()

    evaluate.owned = trie, scores, penalty  # type: ignore[attr-defined]
    return evaluate


@with_known(5)
def prepare_trie(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    words, numbers = unpack(*inputs[5:8]), inputs[8].reshape(-1)
    if len(words) != len(numbers):
        raise InferenceError("TrieTokenizer: Vocab size must be equal to Indices size")
    trie = NativeTrie(words, numbers)

    def evaluate(*arrays: np.ndarray) -> Any:
        result = _Ragged(arrays).run(
            lambda first, room, _: _encode_longest(*first, *trie.args, room), "TrieTokenizer"
        )
        if isinstance(result, int):
            raise InferenceError(f"TrieTokenizer: no word begins with the byte {OTHER - result}")
        return result

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
        strings, at = strings_of(*arrays[:3])
        out = np.empty(strings[0].size, np.int64)
        other = int(arrays[7].reshape(-1)[0])
        code = _look_up_words(*at, *trie.args, address(values), other, address(out))
        refuse(code, "VocabEncoder")
        return out if dtype == np.int64 else out.astype(dtype)

    return evaluate
