"""SentencePiece's table of replaced characters, `precompiled_charsmap`, as a normalizer of `tokenizers`.

`tokenizers.normalizers.Precompiled` looks up whole graphemes and loses some of their characters. This module
replaces the longest key at each place, as SentencePiece and llama.cpp do.
"""

from __future__ import annotations

from typing import Any

from ovjit.errors import InferenceError, OvjitError
from ovjit_ops.text.character_maps import CompiledTable


class Charsmap:
    """Replaces parts of texts by `table`. Raises OvjitError for a damaged table."""

    def __init__(self, table: bytes):
        try:
            self._table = CompiledTable(table)
        except InferenceError as error:
            # raised here, since the package drops exceptions of normalizers
            raise OvjitError(f"tokenizer.ggml.precompiled_charsmap is damaged: {error}") from error
        #: Bytes that stay where another one of ASCII follows.
        self._plain = frozenset(filter(self._table.keeps_ascii, range(128)))

    def replace(self, text: str) -> str:
        """The text with the longest key at each place replaced, from the left."""
        content, plain, parts, at, begin = text.encode(), self._plain, list[bytes](), 0, 0
        while at < len(content):
            first = content[at]
            if first in plain and content[at + 1 : at + 2].isascii():
                at += 1
                continue
            count, by = self._table.longest(content, at)
            if count:
                parts += [content[begin:at], by]
                begin = at + count
            at += count or 1 + (first >= 0xC0) + (first >= 0xE0) + (first >= 0xF0)  # a character of UTF-8
        return b"".join([*parts, content[begin:]]).decode("utf-8", "replace")

    def normalize(self, text: Any) -> None:
        """The same for a NormalizedString, as `tokenizers.normalizers.Normalizer.custom` calls it."""
        before = text.normalized
        after = self.replace(before)
        if after != before:
            text.clear()
            text.append(after)
