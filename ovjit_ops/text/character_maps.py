"""SentencePiece's normalizer: the longest key of a table at each place is replaced, and blanks are tidied."""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ovjit.errors import InferenceError

REPLACEMENT = b"\xef\xbf\xbd"
SPACE = "▁".encode()
FORMS = ("identity", "nfc", "nfd", "nfkc", "nfkd")
#: Maximum keys of one prefix; a damaged trie may have cycles.
_MOST_BYTES = 1 << 10
_LEAF, _VALUE, _LABEL = 1 << 8, (1 << 31) - 1, (1 << 31) | 0xFF


class Table:
    """Keys and what replaces them, by the first bytes of a text."""

    def __init__(self, entries: Mapping[bytes, bytes]):
        self._entries = entries
        self._longest = max(map(len, entries), default=0)
        self._heads = {key[0] for key in entries}

    def longest(self, text: bytes, at: int) -> tuple[int, bytes]:
        """(bytes of the longest key at `at`, what replaces it); 0 without a key."""
        if text[at] in self._heads:
            for size in range(min(self._longest, len(text) - at), 0, -1):
                replacement = self._entries.get(text[at : at + size])
                if replacement is not None:
                    return size, replacement
        return 0, b""


class CompiledTable:
    """A table of replacements from SentencePiece's `precompiled_charsmap`: a double array and the texts."""

    def __init__(self, table: bytes):
        size = int.from_bytes(table[:4], "little")
        if size % 4 or not 4 <= size <= len(table) - 4:
            raise InferenceError(f"a table of characters has a trie of {size} bytes, but {len(table)} in all")
        self.units = np.frombuffer(table, "<u4", size // 4, 4)
        self.texts = table[4 + size :]
        self._units: list[int] = self.units.tolist()
        last = int((self.units[self.units > _VALUE] & _VALUE).max(initial=0))
        if not self.texts.endswith(b"\0") or last >= len(self.texts):
            raise InferenceError(f"a table of characters is damaged: a text at {last} of {len(self.texts)}")

    def longest(self, text: bytes, at: int) -> tuple[int, bytes]:
        node = _child(self._units[0], 0)
        count, offset = 0, -1
        for end in range(at, min(len(text), at + _MOST_BYTES)):
            node ^= text[end]
            unit = self._units[node] if node < len(self._units) else 0xFFFF
            if unit & _LABEL != text[end]:
                break
            node = _child(unit, node)
            if unit & _LEAF and node < len(self._units):
                count, offset = end + 1 - at, self._units[node] & _VALUE
        if not count:
            return 0, b""
        return count, self.texts[offset : self.texts.index(b"\0", offset)]

    def keeps_ascii(self, byte: int) -> bool:
        """Whether a byte stands for itself if another one of ASCII follows."""
        node = _child(self._units[0], 0) ^ byte
        if node >= len(self._units) or self._units[node] & _LABEL != byte:
            return True
        unit = self._units[node]
        if unit & _LEAF:
            return False
        below = _child(unit, node)
        children = (below ^ other for other in range(128))
        return not any(p < len(self._units) and self._units[p] & _LABEL == p ^ below for p in children)


def _child(unit: int, node: int) -> int:
    return node ^ (unit >> 10) << ((unit & 1 << 9) >> 6)


def valid_length(text: bytes, at: int) -> int:
    """The bytes of the character at `at`; 0 if they are not UTF-8."""
    head = text[at]
    count = 1 if head < 0x80 else 2 if 0xC2 <= head < 0xE0 else 3 if head < 0xF0 else 4 if head < 0xF8 else 0
    if head in (0xC0, 0xC1) or 0x80 <= head < 0xC0:
        return 0
    try:
        text[at : at + count].decode()
    except UnicodeDecodeError:
        return 0
    return count if len(text) - at >= count else 0


def normalizer(table: Any, dummy_prefix: bool, remove_extra: bool, escape: bool) -> Callable[[bytes], bytes]:
    """The function that normalizes a text by a table (None: without one)."""
    space = SPACE if escape else b" "

    def step(text: bytes, at: int) -> tuple[bytes, int]:
        if table is not None:
            count, by = table.longest(text, at)
            if count:
                return by, count
        count = valid_length(text, at)
        return (text[at : at + count], count) if count else (REPLACEMENT, 1)

    def normalize(text: bytes) -> bytes:
        at = 0
        while remove_extra and at < len(text):
            piece, count = step(text, at)
            if piece != b" ":
                break
            at += count
        if at >= len(text):
            return b""
        out = bytearray(space if dummy_prefix else b"")
        after_space = remove_extra
        while at < len(text):
            piece, count = step(text, at)
            if after_space:
                piece = piece.lstrip(b" ")
            if piece:
                out += piece.replace(b" ", SPACE) if escape else piece
                after_space = piece.endswith(b" ")
            at += count
            if not remove_extra:
                after_space = False
        while remove_extra and out.endswith(space):
            del out[-len(space) :]
        return bytes(out)

    return normalize


@functools.lru_cache(16)
def table_of_form(form: str, case_fold: bool) -> Table | None:
    """The table of a normalization form; None for one that changes nothing."""
    entries = entries_of_form(form, case_fold)
    return Table(entries) if entries else None


#: Characters of Unicode 15 to 17 with a normalization or a folded form: SentencePiece's tables are of 14.
_LATER = (
    (0x1C89, 0x1C8A), (0xA7CB, 0xA7CF), (0xA7D2, 0xA7D4), (0xA7DA, 0xA7DC), (0xA7F1, 0xA7F1),
    (0x105C0, 0x105FF), (0x10D50, 0x10D65), (0x11380, 0x113FF), (0x16100, 0x1613F), (0x16D40, 0x16D7F),
    (0x16EA0, 0x16EBF), (0x1CCD6, 0x1CCF9), (0x1E030, 0x1E06D),
)  # fmt: skip


def form_of(name: str) -> str:
    return name.lower()


def entries_of_form(form: str, case_fold: bool) -> dict[bytes, bytes]:
    """Character or sequence of characters -> what stands for it, in UTF-8."""
    singles, alike, sequences = sequences_of_form(form, case_fold)
    variants: dict[str, list[str]] = {}
    for char, by in alike.items():
        variants.setdefault(by, []).append(char)
    entries = {}
    for sequence, by in sequences.items():
        for chosen in itertools.product(*([part, *variants.get(part, ())] for part in sequence)):
            entries["".join(chosen)] = by
    return {key.encode(): by.encode() for key, by in (entries | singles).items()}


@functools.lru_cache(16)
def sequences_of_form(form: str, case_fold: bool) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """(character -> what stands for it, character -> the one that it decomposes to, sequence of characters
    after that -> what stands for it).

    A composed form has the decomposition of each character. It does not put marks into their canonical order.
    """
    singles: dict[str, str] = {}
    alike: dict[str, str] = {}
    sequences: dict[str, str] = {}
    if form != "identity":
        singles = _normal_forms(form.upper())
    if form.endswith("c"):
        decompositions = _normal_forms(form.upper()[:-1] + "D")
        alike = {char: parts for char, parts in decompositions.items() if len(parts) == 1}
        for char, parts in decompositions.items():
            composed = singles.get(char, char)
            if len(parts) > 1 and composed != parts:
                sequences[parts] = composed
        sequences = _without_redundant(singles, sequences)
    if case_fold:
        fold = _folds()
        sequences = {key: by.translate(fold) for key, by in sequences.items()}
        singles = {key: by.translate(fold) for key, by in singles.items()}
        for point, by in fold.items():
            singles.setdefault(chr(point), by)
    return singles, alike, sequences


def _normal_forms(form: str) -> dict[str, str]:
    """Character -> its normal form, for the characters whose form differs."""
    normalize: Callable[[Any, str], str] = unicodedata.normalize
    pairs = ((char, normalize(form, char)) for char in _characters())
    return {char: normalized for char, normalized in pairs if normalized != char}


@functools.lru_cache(1)
def _characters() -> str:
    """The characters of Unicode 14 that may have another form."""
    later = {point for first, last in _LATER for point in range(first, last + 1)}
    points = (i for i in range(0x80, 0x110000) if not 0xD800 <= i < 0xE000 and i not in later)
    return "".join([c for c in map(chr, points) if unicodedata.decomposition(c) or "가" <= c <= "힣"])


def _folds() -> dict[int, str]:
    """Code point -> its folded character."""
    later = {point for first, last in _LATER for point in range(first, last + 1)}
    folds = {}
    for point in range(1, 0x1F000):  # letters with case are below
        char = chr(point)
        folded = char.casefold()
        if len(folded) > 1:  # simple folding gives one character
            folded = char.lower()
        if folded != char and len(folded) == 1 and point not in later:
            folds[point] = folded
    return folds


def _without_redundant(singles: Mapping[str, str], sequences: Mapping[str, str]) -> dict[str, str]:
    """The sequences that shorter keys do not replace in the same way."""
    needed: dict[str, str] = {}
    for key in sorted(sequences, key=len):
        if _replace_by_shorter(singles, needed, key) != sequences[key]:
            needed[key] = sequences[key]
    return needed


def _replace_by_shorter(singles: Mapping[str, str], sequences: Mapping[str, str], text: str) -> str:
    """The text by keys that are shorter than it."""
    out, at = [], 0
    while at < len(text):
        for size in range(min(len(text) - 1, len(text) - at), 1, -1):
            replacement = sequences.get(text[at : at + size])
            if replacement is not None:
                break
        else:
            size, replacement = 1, singles.get(text[at], text[at])
        out.append(replacement)
        at += size
    return "".join(out)
