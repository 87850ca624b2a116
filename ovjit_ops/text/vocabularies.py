"""Words to numbers and back: byte pair encoding, WordPiece, Unigram, tries, and look-ups.

`prepare` of each takes the inputs that are known before the run (None for others) and returns what evaluates
the operation. A compiled model keeps it, so vocabularies are read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError
from ovjit.graph.op import Bool, Float, Int, Ints, Str, TensorType, op
from ovjit.graph.shapes import ANY
from ovjit_ops.common.checks import check_rank, check_type
from ovjit_ops.common.values import INDEX_TYPES
from ovjit_ops.text import packed


class Trie:
    """Numbers of words, by the longest word at a place."""

    def __init__(self, words: Mapping[bytes, int]):
        self._words = words
        self._longest = max(map(len, words), default=0)

    def find(self, text: bytes, at: int) -> tuple[int, int]:
        """(number of the longest word at `at`, its end); (-1, at) without one."""
        for end in range(min(len(text), at + self._longest), at, -1):
            number = self._words.get(text[at:end], -1)
            if number != -1:
                return number, end
        return -1, at


# -- byte pair encoding


def merge_pairs(
    vocabulary: Mapping[bytes, int], pairs: Sequence[tuple[bytes, bytes]]
) -> tuple[dict[bytes, int], dict[tuple[int, int], tuple[int, int]]]:
    """(the words that no merge makes, pair of numbers -> rank and number of the merged word)."""
    merges: dict[tuple[int, int], tuple[int, int]] = {}
    merged_words: list[bytes] = []
    for rank, (first, second) in enumerate(pairs):
        try:
            key = vocabulary[first], vocabulary[second]
            merges[key] = rank, vocabulary[first + second]
        except KeyError as error:
            raise InferenceError(
                f"BPETokenizer: the vocabulary lacks {error} of the merge {first!r} {second!r}"
            ) from error
        merged_words.append(first + second)
    words = dict(vocabulary)
    for word in merged_words:
        words.pop(word, None)
    return words, merges


class Queue:
    """A heap with the order of libstdc++'s `priority_queue`, which decides among equal entries."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int, int]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def push(self, row: tuple[int, int, int, int, int]) -> None:
        """`row` begins with its rank and its order; the least ones are taken first."""
        self._rows.append(row)
        self._sift_up(len(self._rows) - 1, row)

    def pop(self) -> tuple[int, int, int, int, int]:
        rows = self._rows
        first, last = rows[0], rows.pop()
        count, hole, child = len(rows), 0, 0
        while child < (count - 1) // 2:
            child = 2 * (child + 1)
            if rows[child][:2] > rows[child - 1][:2]:
                child -= 1
            rows[hole], hole = rows[child], child
        if count and count % 2 == 0 and child == (count - 2) // 2:
            child = 2 * child + 1
            rows[hole], hole = rows[child], child
        if count:
            self._sift_up(hole, last)
        return first

    def _sift_up(self, hole: int, row: tuple[int, int, int, int, int]) -> None:
        """Insert a row into the binary heap, from the free position `hole` towards the root."""
        rows = self._rows
        while hole > 0 and rows[(hole - 1) // 2][:2] > row[:2]:
            rows[hole], hole = rows[(hole - 1) // 2], (hole - 1) // 2
        rows[hole] = row


class BytePairs:
    """The encoder of one vocabulary."""

    def __init__(self, inputs: Sequence[np.ndarray], attrs: Mapping[str, Any]):
        """`inputs`: those of BPETokenizer after its strings."""
        vocabulary, pairs = bpe_vocabulary(inputs)
        self.words, self.merges = merge_pairs(vocabulary, pairs)
        self.trie = Trie(self.words)
        self.unknown = vocabulary.get(attrs["unk_token"].encode(), -1)
        self.fuse, self.suffix = attrs["fuse_unk"], attrs["end_suffix"].encode()
        self.fallback = attrs["byte_fallback"]

    def ids(self, piece: bytes) -> list[int]:
        """The numbers of a piece: the longest words that no merge makes, merged by rank, equal ones from the
        left."""
        symbols = self._first(piece + self.suffix)
        following = [*range(1, len(symbols)), -1]
        before = list(range(-1, len(symbols) - 1))
        queue = Queue()

        def push(a: int, b: int, order: int) -> None:
            merge = self.merges.get((symbols[a], symbols[b]))
            if merge is not None:
                queue.push((merge[0], order, a, b, merge[1]))

        order = 0
        for a in range(len(symbols) - 1):
            push(a, a + 1, order)
            order += 1
        alive = [True] * len(symbols)
        head = 0 if symbols else -1
        while queue:
            _, _, a, b, merged = queue.pop()
            if not (alive[a] and alive[b]):
                continue
            alive[a] = alive[b] = False
            new, left_symbol, right_symbol = len(symbols), before[a], following[b]
            symbols.append(merged)
            alive.append(True)
            before.append(left_symbol)
            following.append(right_symbol)
            order += 1
            if left_symbol == -1:
                head = new
            else:
                following[left_symbol] = new
                push(left_symbol, new, order)
            if right_symbol != -1:
                before[right_symbol] = new
                push(new, right_symbol, order)
        out = []
        while head != -1:
            out.append(symbols[head])
            head = following[head]
        return out

    def _first(self, text: bytes) -> list[int]:
        """The numbers before any merge. A byte that begins no word is its byte token, or unknown."""
        out: list[int] = []
        at = 0
        while at < len(text):
            number, end = self.trie.find(text, at)
            if number == -1:
                number = self.words.get(b"<0x%02X>" % text[at], -1) if self.fallback else -1
                if number == -1 and self.unknown != -1:
                    number = self.unknown
                end = at + 1
            if number != -1:
                out.append(number)
            at = end
        return out


def bpe_vocabulary(inputs: Sequence[np.ndarray]) -> tuple[dict[bytes, int], list[tuple[bytes, bytes]]]:
    """(word -> number, pairs in order of rank) from the inputs of BPETokenizer after its strings."""
    vocabulary = {word: i for i, word in enumerate(packed.unpack(*inputs[:3]))}
    firsts, others = packed.unpack(*inputs[3:6]), inputs[6:]
    if len(others) in (3, 7):
        pairs = list(zip(firsts, packed.unpack(*others[:3]), strict=True))
        others = others[3:]
    else:
        pairs = [(a, b if blank else a) for a, blank, b in (pair.partition(b" ") for pair in firsts)]
    if others:
        for token, number in zip(packed.unpack(*others[:3]), others[3].reshape(-1).tolist(), strict=True):
            vocabulary.setdefault(token, number)
    return vocabulary, pairs


def prepare_byte_pairs(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    encoder = BytePairs(inputs[5:], attrs)
    return lambda *arrays: packed.ids_of_rows(encoder.ids, arrays[:5])


def _infer_tokens(inputs: Any, name: str, types: Iterable[str], what: str) -> tuple[TensorType, ...]:
    """The type of ids of ragged strings, for a vocabulary with a number of each word, `what`."""
    packed.check_count(inputs, (9,), name)
    packed.check_ragged_strings(inputs[:5])
    packed.check_strings(inputs[5:8], "the vocabulary")
    check_type(inputs[8], types, what)
    return packed.ragged_type(inputs[0].shape)


@op("BPETokenizer", plugin="extension", host=".cpu_words:prepare_byte_pairs")
class BPETokenizer:
    """Byte pair encoding of ragged strings."""

    def infer(
        *inputs, unk_token: Str = "", fuse_unk: Bool = False, suffix_indicator: Str = "",
        end_suffix: Str = "", byte_fallback: Bool = False, cache_capacity: Int = 20000,
    ):  # fmt: skip
        packed.check_count(inputs, (11, 14, 15, 18), "BPETokenizer")
        packed.check_ragged_strings(inputs[:5])
        for i in range(5, len(inputs) - 2, 3):
            packed.check_strings(
                inputs[i : i + 3], "the vocabulary" if i == 5 else "the merges or added tokens"
            )
        if len(inputs) in (15, 18):
            check_type(inputs[-1], ("i32",), "the ids of added tokens")
        return packed.ragged_type(inputs[0].shape)

    ref = packed.by_host(prepare_byte_pairs)


# -- WordPiece


class WordPieces:
    def __init__(self, inputs: Sequence[np.ndarray], attrs: Mapping[str, Any]):
        """`inputs`: begins, ends and bytes of the vocabulary."""
        mark = attrs["suffix_indicator"].encode()
        words = list(enumerate(packed.unpack(*inputs)))
        self.most = attrs["max_bytes_per_word"]
        self.heads = Trie({word: i for i, word in words if not word.startswith(mark)})
        self.tails = Trie({word[len(mark) :]: i for i, word in words if word.startswith(mark)})

    def ids(self, word: bytes, unknown: int) -> list[int]:
        """The numbers of a word: the longest head, then the longest tails; unknown if one is missing."""
        if len(word) > self.most:
            return [unknown]
        number, at = self.heads.find(word, 0)
        if number == -1:
            return [unknown]
        out = [number]
        while at < len(word):
            number, at = self.tails.find(word, at)
            if number == -1:
                return [unknown]
            out.append(number)
        return out


def prepare_word_pieces(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    encoder = WordPieces(inputs[5:8], attrs)

    def evaluate(*arrays: np.ndarray) -> Any:
        unknown = int(arrays[8].reshape(-1)[0])
        return packed.ids_of_rows(lambda word: encoder.ids(word, unknown), arrays[:5])

    return evaluate


@op("WordpieceTokenizer", plugin="extension", host=".cpu_words:prepare_word_pieces")
class WordpieceTokenizer:
    """The longest words of a vocabulary in each string; words inside of a string have a mark in front."""

    def infer(*inputs, suffix_indicator: Str = "##", max_bytes_per_word: Int = 100):
        return _infer_tokens(inputs, "WordpieceTokenizer", INDEX_TYPES, "the id of unknown words")

    ref = packed.by_host(prepare_word_pieces)


# -- Unigram


class Unigram:
    def __init__(self, inputs: Sequence[np.ndarray], attrs: Mapping[str, Any]):
        """`inputs`: begins, ends and bytes of the vocabulary, and scores."""
        self.words = {word: i for i, word in enumerate(packed.unpack(*inputs[:3]))}
        self.scores = np.asarray(inputs[3], np.float32).reshape(-1)
        if len(self.scores) < len(self.words):
            raise InferenceError("UnigramTokenizer: there are fewer scores than words")
        self.longest = max(map(len, self.words), default=0)
        least = self.scores[: len(inputs[0].reshape(-1))].min(initial=np.inf)
        self.unknown, self.penalty = attrs["unk_token_id"], np.float32(float(least) - 10.0)

    def ids(self, text: bytes) -> list[int]:
        """The numbers of the best path. Consecutive unknown characters are one."""
        size = len(text)
        best = np.zeros(size + 1, np.float32)
        source, number = [-1] * (size + 1), [self.unknown] * (size + 1)
        at = 0
        while at < size:
            count = min(char_length(text[at]), size - at)
            covered = False
            for end in range(at + 1, min(size, at + self.longest) + 1):
                word = self.words.get(text[at:end])
                if word is None:
                    continue
                score = self.scores[word] + best[at]
                if source[end] == -1 or score > best[end]:
                    best[end], source[end], number[end] = score, at, word
                covered = covered or end - at == count
            if not covered:
                end, score = at + count, self.penalty + best[at]
                if source[end] == -1 or score > best[end]:
                    best[end], source[end], number[end] = score, at, self.unknown
            at += count
        out: list[int] = []
        at, last = size, -1
        while at > 0:
            if not (number[at] == self.unknown == last):
                out.append(number[at])
                last = number[at]
            at = source[at]
        return out[::-1]


def char_length(byte: int) -> int:
    """The bytes of the character that begins with `byte`."""
    return 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1


def prepare_unigram(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    encoder = Unigram(inputs[5:9], attrs)
    return lambda *arrays: packed.ids_of_rows(encoder.ids, arrays[:5])


@op("UnigramTokenizer", plugin="extension", host=".cpu_words:prepare_unigram")
class UnigramTokenizer:
    """The words of a vocabulary with the greatest sum of scores."""

    def infer(
        *inputs, byte_fallback: Bool = False, unk_token_id: Int = 0, fuse_unk: Bool = False,
        min_score: Float = float("inf"),
    ):  # fmt: skip
        return _infer_tokens(inputs, "UnigramTokenizer", ("f32",), "the scores")

    ref = packed.by_host(prepare_unigram)


# -- tries and look-ups


def prepare_trie(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    words, numbers = packed.unpack(*inputs[5:8]), inputs[8].reshape(-1).tolist()
    if len(words) != len(numbers):
        raise InferenceError("TrieTokenizer: Vocab size must be equal to Indices size")
    trie = Trie(dict(zip(words, numbers, strict=True)))

    def ids(text: bytes) -> list[int]:
        out: list[int] = []
        at = 0
        while at < len(text):
            number, end = trie.find(text, at)
            if end == at:
                raise InferenceError(f"TrieTokenizer: no word begins with the byte {text[at]}")
            out.append(number)
            at = end
        return out

    return lambda *arrays: packed.ids_of_rows(ids, arrays[:5])


@op("TrieTokenizer", plugin="extension", host=".cpu_words:prepare_trie")
class TrieTokenizer:
    """The longest words of a vocabulary, one after another."""

    def infer(*inputs):
        return _infer_tokens(inputs, "TrieTokenizer", ("i32",), "the ids")

    ref = packed.by_host(prepare_trie)


def prepare_encoder(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    numbers: dict[bytes, int] = {}
    for word, number in zip(packed.unpack(*inputs[3:6]), inputs[6].reshape(-1).tolist(), strict=True):
        numbers.setdefault(word, number)
    dtype = inputs[6].dtype

    def evaluate(*arrays: np.ndarray) -> np.ndarray:
        other = int(arrays[7].reshape(-1)[0])
        return np.array([numbers.get(word, other) for word in packed.unpack(*arrays[:3])], dtype)

    return evaluate


@op("VocabEncoder", plugin="extension", host=".cpu_words:prepare_encoder")
class VocabEncoder:
    """The number of each string in a vocabulary, or a default."""

    def infer(*inputs):
        packed.check_count(inputs, (8,), "VocabEncoder")
        packed.check_strings(inputs[:3])
        packed.check_strings(inputs[3:6], "the vocabulary")
        check_type(inputs[6], INDEX_TYPES, "the ids")
        shape = None if inputs[0].shape is None else inputs[0].shape if inputs[0].rank == 1 else (ANY,)
        return TensorType(inputs[6].dtype, shape)

    ref = packed.by_host(prepare_encoder)


@op("VocabDecoder", plugin="extension", host=".cpu_bytes:prepare_decoder")
class VocabDecoder:
    """The word of each number, as ragged strings with a row for each row of numbers. Numbers that are unknown
    or skipped give an empty string."""

    def infer(*inputs, skip_tokens: Ints = ()):
        packed.check_count(inputs, (4, 5), "VocabDecoder")
        check_type(inputs[0], ("i32",), "the ids")
        check_rank(inputs[0], 2, "the ids")
        packed.check_strings(inputs[1:4], "the vocabulary")
        if len(inputs) == 5:
            check_type(inputs[4], ("i32",), "the skipped ids")
        shape = (ANY,) if inputs[0].shape is None else inputs[0].shape[:1]
        return packed.ragged_strings_type(shape)

    def ref(*inputs, skip_tokens=()):
        ids, words = inputs[0], packed.unpack(*inputs[1:4])
        skipped = set(inputs[4].reshape(-1).tolist() if len(inputs) == 5 else skip_tokens)
        batch, size = ids.shape
        texts = [
            b"" if not 0 <= i < len(words) or i in skipped else words[i] for i in ids.reshape(-1).tolist()
        ]
        each = max(size, 1)  # a row without numbers has one empty string
        rows = [(i * each, (i + 1) * each) for i in range(batch)]
        return (*packed.ragged_ends(rows, (batch,)), *packed.pack(texts or [b""] * batch))
