"""SentencePiece's table of replaced characters, `precompiled_charsmap`.

The table has the size of a trie in bytes, the trie, and texts that end with a zero byte. The trie is a double
array of u32: its keys are parts of texts in UTF-8, its values offsets of the texts that replace them.
`tokenizers.normalizers.Precompiled` looks up whole graphemes and loses some of their characters. This module
replaces the longest key at each place, as SentencePiece and llama.cpp do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.errors import OvjitError

_LEAF, _VALUE, _LABEL = 1 << 8, (1 << 31) - 1, (1 << 31) | 0xFF
#: Maximum characters of a key: a damaged trie may have cycles.
_LONGEST = 64


class Charsmap:
    """Replaces parts of texts by `table`. Raises OvjitError for a damaged table."""

    def __init__(self, table: bytes):
        size = int.from_bytes(table[:4], "little")
        if size % 4 or not 4 <= size <= len(table) - 4:
            raise _make_error(f"a trie of {size} bytes does not fit the table of {len(table)}")
        units = np.frombuffer(table, "<u4", size // 4, 4)
        self._texts = table[4 + size :]
        last = int((units[units > _VALUE] & _VALUE).max(initial=0))
        if not self._texts.endswith(b"\0") or last >= len(self._texts):
            # checked here, since the package drops exceptions of normalizers
            raise _make_error(f"the text at offset {last} is beyond {len(self._texts)} bytes")
        self._units: list[int] = units.tolist()
        #: Characters that begin no key.
        self._unmapped: set[str] = set()

    def replace(self, text: str) -> str:
        """The text with the longest key at each place replaced, from the left."""
        unmapped, parts, at, begin = self._unmapped, list[str](), 0, 0
        while at < len(text):
            if text[at] in unmapped:
                at += 1
                continue
            count, by = self._longest(text, at)
            if count:
                parts += [text[begin:at], by]
                begin = at + count
            at += count or 1
        return "".join([*parts, text[begin:]])

    def normalize(self, text: Any) -> None:
        """The same for a NormalizedString, as `tokenizers.normalizers.Normalizer.custom` calls it."""
        before = text.normalized
        after = self.replace(before)
        if after != before:
            text.clear()
            text.append(after)

    def _longest(self, text: str, at: int) -> tuple[int, str]:
        """(characters of the longest key at `at`, their replacement); (0, "") without a key."""
        node, longest = _child(self._unit(0), 0), (0, 0)
        for end in range(at, min(len(text), at + _LONGEST)):
            for byte in text[end].encode("utf-8", "surrogatepass"):
                node ^= byte
                unit = self._unit(node)
                if unit & _LABEL != byte:
                    if end == at:
                        self._unmapped.add(text[at])
                    return longest[0], self._text(longest[1]) if longest[0] else ""
                node = _child(unit, node)
            value = self._unit(node) if unit & _LEAF else 0
            if value > _VALUE:
                longest = end + 1 - at, value & _VALUE
        return longest[0], self._text(longest[1]) if longest[0] else ""

    def _unit(self, index: int) -> int:
        """The unit at an index. Outside of the array, a unit with a label that is not in UTF-8."""
        return self._units[index] if index < len(self._units) else 0xFF

    def _text(self, offset: int) -> str:
        return self._texts[offset : self._texts.index(b"\0", offset)].decode("utf-8", "replace")


def _child(unit: int, index: int) -> int:
    """The index of a unit's children, to which a child's label is added."""
    return index ^ unit >> 10 << ((unit & 1 << 9) >> 6)


def _make_error(what: str) -> OvjitError:
    return OvjitError(f"tokenizer.ggml.precompiled_charsmap is damaged: {what}")
