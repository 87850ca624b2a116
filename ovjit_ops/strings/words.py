"""StringLookup and TextNGrams: which word of a list a string is, and how often words are in texts.

Strings are objects of Python, so that these are steps of the host: one pass over the strings with a table.
Texts of ASCII are joined, and a native routine counts their n-grams.
Lists of words are attributes in JSON, as words may have the characters that separate lists in files.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import ModelError, check
from ovjit.graph.op import Count, Floats, Ints, Positive, Str, TensorType, Word, op

#: Expressions whose leftmost match by Python is the longest one: a class of characters, once or more; and any
#: character, where a word is one of them.
PLAIN_TOKEN = re.compile(r"\[[A-Za-z0-9_ ,;:!?.-]+\]\+?|\\[wsd]\+?|(?:\(\?s\))?\.")
#: Attributes of nodes -> tables that are made from them, the last ones.
_tables: dict[tuple[Any, ...], tuple[Any, Any]] = {}
_MOST_TABLES = 64
#: Up to so many n-grams are counted one by one, which takes less than calls of NumPy.
_FEW = 64


def _table(make: Callable[..., Any], *sources: Any) -> Any:
    """`make(*sources)`, kept for the same objects: attributes of a node are the same ones in each
    inference."""
    key = (make, *map(id, sources))
    entry = _tables.get(key)
    if entry is None or any(a is not b for a, b in zip(entry[0], sources, strict=True)):
        for old in list(_tables)[: max(0, len(_tables) + 1 - _MOST_TABLES)]:
            _tables.pop(old, None)
        entry = _tables[key] = (sources, make(*sources))
    return entry[1]


def _parse(text: str) -> list[str]:
    try:
        words = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{text[:40]!r} is not a list of words in JSON") from error
    fine = isinstance(words, list) and all(isinstance(word, str) for word in words)
    check(fine, f"{text[:40]!r} is not a list of words in JSON")
    return words


def read_words(text: str) -> list[str]:
    """A list of words from JSON. Raises ModelError if it is none."""
    return _table(_parse, text)


def _numbers(text: str) -> dict[Any, int]:
    """Word -> its first position, as text and as UTF-8."""
    table: dict[Any, int] = {}
    for i, word in enumerate(read_words(text)):
        table.setdefault(word, i)
        table.setdefault(word.encode(), i)
    return table


def _lookup_of(words: str) -> Callable[..., Any]:
    return _lookup_by_table((), {"words": words})


def _check_strings(data: TensorType) -> None:
    check(data.dtype in ("string", "dynamic"), f"expects strings, not {data.dtype}")


def _lookup_by_table(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Callable[..., Any]:
    position, missing = _numbers(attrs["words"]).get, itertools.repeat(-1)

    def look_up(data: np.ndarray) -> np.ndarray:
        positions = map(position, data.reshape(-1).tolist(), missing)
        return np.fromiter(positions, np.int64, data.size).reshape(data.shape)

    return look_up


@op("StringLookup", opset=1, plugin="extension", types=["string"], host=_lookup_by_table)
class StringLookup:
    """The position of each string in a list of words, of equal ones the first; -1 for other strings."""

    def infer(data, *, words: Str):
        _check_strings(data)
        read_words(words)
        return TensorType("i64", data.shape)

    def ref(data, *, words):
        return _table(_lookup_of, words)(data)


class _Grams:
    """Columns of n-grams, for texts of UTF-8. A gram of one word is the word, others are tuples."""

    def __init__(self, pool: str, starts: Sequence[int], columns: Sequence[int]):
        words, numbers = [word.encode() for word in read_words(pool)], iter(columns)
        self.levels: list[dict[Any, int]] = []
        for size, (start, end) in enumerate(zip(starts, [*starts[1:], len(words)], strict=True), 1):
            grams = [tuple(words[i : i + size]) for i in range(start, end, size)]
            keys: list[Any] = [g[0] for g in grams] if size == 1 else grams
            self.levels.append(dict(zip(keys, numbers, strict=False)))


def _is_plain(token: str) -> bool:
    try:
        return PLAIN_TOKEN.fullmatch(token) is not None and bool(re.compile(token))
    except re.error:
        return False


def _count_grams(pool: str, starts: Sequence[int], columns: Sequence[int]) -> tuple[int, int]:
    """(the number of n-grams, the last column). Raises ModelError if they do not fit."""
    ends = [*starts[1:], len(read_words(pool))]
    bounds = [0, *starts, ends[-1]]
    check(len(starts) > 0 and sorted(bounds) == bounds, f"the starts {list(starts)[:8]} are not in order")
    distinct = len({*columns}) == len(columns) and all(column >= 0 for column in columns)
    check(distinct, "columns of n-grams are negative or not distinct")
    count = sum(len(range(a, b, n)) for n, (a, b) in enumerate(zip(starts, ends, strict=True), 1))
    return count, max(columns, default=-1)


def join_texts(texts: Sequence[bytes]) -> bytes | None:
    """The texts with a null character between two; None unless they are ASCII without such characters."""
    joined = b"\0".join(texts)
    return joined if joined.isascii() and joined.count(0) == len(texts) - 1 else None


class _Cutter:
    """Cuts texts of UTF-8 into words of a plain expression. `kinds`: a byte -> the byte in the other case if
    words have it, else 0. `alone`: a word is one character. `table`: `kinds` with blanks instead of 0; None
    if words may have blanks or need more than one pass."""

    def __init__(self, token: str, case: str):
        self.find, self.case = re.compile(token, re.ASCII).findall, case
        single = re.compile(token.removesuffix("+"), re.ASCII)
        letters = [change_case(chr(i), case) for i in range(128)]
        is_letter = [single.fullmatch(c) is not None for c in letters]
        self.alone = not token.endswith("+")
        self.kinds = bytes(
            [0, *(ord(c) if k else 0 for c, k in zip(letters[1:], is_letter[1:], strict=True))]
        )
        self.kinds += bytes(128)
        blank = any(is_letter[ord(c)] for c in "\0 \t\n\v\f\r")
        self.table = None
        if token.endswith("+") and not blank:
            table = [ord(c) if k else 32 for c, k in zip(letters, is_letter, strict=True)]
            self.table = bytes([0, *table[1:], *[32] * 128])

    def cut(self, texts: Sequence[Any]) -> list[list[bytes]]:
        """The words of each text."""
        data = [x if isinstance(x, bytes) else str(x).encode() for x in texts]
        joined = join_texts(data)
        if self.table is not None and joined is not None:
            return [row.split() for row in joined.translate(self.table).split(b"\0")]
        decoded = [x.decode(errors="replace") for x in data]
        return [[word.encode() for word in self.find(change_case(x, self.case))] for x in decoded]


def _count_natively(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Callable[..., Any]:
    from ovjit_ops.text.cpu_grams import NativeGrams, grams_of

    levels = _Grams(*(attrs[name] for name in ("pool", "starts", "columns"))).levels
    grams = grams_of(levels, attrs["least"], attrs["most"])
    cutter, width = _Cutter(attrs["token"], attrs["case"]), attrs["width"]
    native = NativeGrams(
        grams, cutter.kinds, cutter.alone, attrs["shortest"], width, attrs["skips"], attrs["binary"]
    )
    factors = _factors(attrs["scaled"], attrs["columns"], width)
    reference: Any = TextNGrams

    def count(data: np.ndarray) -> np.ndarray:
        texts = data.reshape(-1).tolist()
        joined = join_texts([x if isinstance(x, bytes) else str(x).encode() for x in texts])
        if joined is None:
            return reference.ref(data, **attrs)
        total = native.count(joined, len(texts))
        return total if factors is None else np.multiply(total, factors, out=total)

    return count


def _factors(scaled: Sequence[float], columns: Sequence[int], width: int) -> np.ndarray | None:
    """The factor of each column; None if all are 1."""
    if all(factor == 1 for factor in scaled):
        return None
    factors = np.ones(width, np.float32)
    factors[list(columns)] = scaled
    return factors


@op("TextNGrams", opset=1, plugin="extension", types=["string"], host=_count_natively)
class TextNGrams:
    """Counts each n-gram of a pool among the words of each text: f32 [texts, width].

    Words are the matches of `token` of at least `shortest` characters, converted to `case` first. `starts`:
    offset in the pool of the n-grams of each length. `columns`: the column of each n-gram. N-grams have from
    `least` to `most` words, with up to `skips` words between two. `scaled` are factors of the n-grams, and
    `binary` counts each once.
    """

    words = {"case": "none lower upper"}

    def infer(
        data, *, case: Word, token: Str, shortest: Positive, pool: Str, starts: Ints, columns: Ints,
        width: Count, least: Positive, most: Positive, skips: Count, binary: Count = 0, scaled: Floats = (),
    ):  # fmt: skip
        _check_strings(data)
        check(_table(_is_plain, token), f"the expression {token[:40]!r} is not a plain token")
        check(shortest == 1 or not token.endswith("."), "any character is a word of one character")
        grams, last = _table(_count_grams, pool, starts, columns)
        check(grams == len(columns), f"{len(columns)} different columns are given for {grams} n-grams")
        check(last < width, f"the column {last} is not below the width {width}")
        check(len(scaled) in (0, len(columns)), f"{len(scaled)} factors are given for {len(columns)} n-grams")
        if data.shape is None:
            return TensorType("f32", None)
        check(len(data.shape) == 1 or data.shape[1:] == (1,), f"expects one text in each row, not {data}")
        return TensorType("f32", (data.shape[0], width))

    def ref(
        data, *, case, token, shortest, pool, starts, columns, width, least, most, skips, binary=0, scaled=()
    ):
        grams = _table(_Grams, pool, starts, columns)
        texts = _table(_Cutter, token, case).cut(data.reshape(-1).tolist())
        if shortest > 1:  # characters, of which a plain token has one byte each
            texts = [[word for word in words if len(word) >= shortest] for words in texts]
        beyond, ends, gram_columns = itertools.repeat(width), list[int](), list[int]()
        for words in texts:
            for size, level in enumerate(grams.levels[least - 1 : most], least):
                if size == 1:
                    gram_columns.extend(map(level.get, words, beyond))
                    continue
                for step in range(1, 2 + skips):
                    rows = [words[i * step :] for i in range(size)]
                    gram_columns.extend(map(level.get, zip(*rows, strict=False), beyond))
            ends.append(len(gram_columns))
        total = _count(gram_columns, ends, width)
        if binary:
            total = np.minimum(total, 1)
        factors = _factors(scaled, columns, width)
        return total if factors is None else total * factors


def _count(columns: Sequence[int], ends: Sequence[int], width: int) -> np.ndarray:
    """Counts each column in each row: f32 [rows, width]. `ends`: end of each row in the list of columns."""
    if len(columns) <= _FEW:
        counts, row = np.zeros((len(ends), width + 1), np.float32), 0
        for i, column in enumerate(columns):
            while i >= ends[row]:
                row += 1
            counts[row, column] += 1
        return counts[:, :width]
    rows = np.repeat(np.arange(len(ends)) * (width + 1), np.diff(ends, prepend=0))
    total = np.bincount(rows + np.array(columns, np.int64), minlength=len(ends) * (width + 1))
    return total.reshape(len(ends), width + 1)[:, :width].astype(np.float32)


def change_case(text: str, case: str) -> str:
    """Convert letters to lower or upper case, if both cases are one character with the same number of
    bytes."""
    if case == "none":
        return text
    lower = case == "lower"
    if text.isascii():
        return text.lower() if lower else text.upper()
    return "".join(_other_case(c, lower) for c in text)


def _other_case(letter: str, lower: bool) -> str:
    other = letter.lower() if lower else letter.upper()
    same = len(other) == 1 and ord(letter) < 1 << 16 and len(other.encode()) == len(letter.encode())
    return other if same else letter
