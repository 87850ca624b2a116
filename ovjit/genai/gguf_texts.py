"""The tokenizer of a GGUF file: texts to tokens and back, in the forms of the tokenizer's two IRs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.special_tokens import SPECIAL, SpecialTokens
from ovjit.generation.tables import Tables
from ovjit.generation.tokenizer import Tokenizer, of_tables, read_metadata

#: The number at masked positions.
_FILL = 0
#: Bytes that byte pairs write as themselves. The others are characters from 256 on, in order.
_PRINTED = (*range(33, 127), *range(161, 173), *range(174, 256))
_OTHERS = sorted(set(range(256)) - set(_PRINTED))
#: Character of byte pairs -> its byte.
CHARACTERS = {chr(byte): bytes([byte]) for byte in _PRINTED}
CHARACTERS |= {chr(256 + i): bytes([byte]) for i, byte in enumerate(_OTHERS)}
#: Types of tokens: ordinary pieces, and single bytes such as "<0x0A>".
_NORMAL, _BYTE = 1, 6
#: Types of special tokens: unknown, and control.
_SPECIAL = (2, 3)


class GgufTexts:
    """The tables of a file, and the tokenizer by them. OvjitError for a missing file, or tables that are not
    read."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise OvjitError(f"[load_gguf] Failed to open '{path}': there is no such file")
        info = read_metadata(path)
        self._tables, self._inner = Tables(info), of_tables(info)
        self._types = self._tables.types() or [_NORMAL] * len(self._tables.tokens)
        self._is_of_bytes = self._tables.text("model") == "gpt2"

    def special_tokens(self) -> SpecialTokens:
        tokens, tables = SpecialTokens(), self._tables
        names = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "padding_token_id"}
        for name in SPECIAL:
            number = tables.token(names[name])
            if number is not None:
                tokens.numbers[name], tokens.texts[name] = number, tables.tokens[number]
        tokens.template = tables.text("tokenizer.chat_template")
        return tokens

    def encoder(self) -> Encoder:
        return Encoder(self._inner)

    def decoder(self) -> PieceDecoder | ByteDecoder:
        if not self._is_of_bytes:
            return PieceDecoder(self._inner)
        special = {i for i, kind in enumerate(self._types) if kind in _SPECIAL}
        return ByteDecoder(self.vocabulary(), special)

    def vocabulary(self) -> list[bytes]:
        """The bytes of all tokens. Those of special tokens are their text."""
        tokens = zip(self._tables.tokens, self._types, strict=True)
        return [_bytes_of(*token, self._is_of_bytes) for token in tokens]


def _bytes_of(token: str, kind: int, is_of_bytes: bool) -> bytes:
    if kind == _BYTE:
        return bytes([int(token[1:-1], 16)])
    if kind != _NORMAL or not is_of_bytes:
        return (token.replace("\u2581", " ") if kind == _NORMAL else token).encode()
    return b"".join(CHARACTERS.get(character) or character.encode() for character in token)


class Encoder:
    """Rows of tokens and masks, padded on the left."""

    def __init__(self, inner: Tokenizer):
        self._inner = inner

    def longest(self) -> int:
        """The length to which rows are padded by default: there is none."""
        return 2**31

    def run(self, inputs: Sequence[np.ndarray], options: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """`input_ids` and `attention_mask` [texts, length]. `options`: as those of an IR's flags."""
        limit = options["max_length"]
        rows = [self._inner.tokens_of(text, options["add_special_tokens"]) for text in inputs[0].tolist()]
        if options["truncation"] and limit is not None:
            rows = [row[:limit] for row in rows]
        length = max(map(len, rows), default=0)
        if options["pad_to_max_length"] and limit is not None:
            length = max(length, limit)
        ids = np.full((len(rows), length), _FILL, np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            begin = 0 if options["pad_right"] else length - len(row)
            ids[i, begin : begin + len(row)], mask[i, begin : begin + len(row)] = row, 1
        return {"input_ids": ids, "attention_mask": mask}


class PieceDecoder:
    """Texts of rows of SentencePiece's tokens."""

    def __init__(self, inner: Tokenizer):
        self._inner = inner

    def run(self, inputs: Sequence[np.ndarray], options: Mapping[str, Any]) -> dict[str, np.ndarray]:
        skip = bool(options["skip_special_tokens"])
        return _output([self._inner.text_of(row.tolist(), skip) for row in inputs[0]])


class ByteDecoder:
    """Decodes rows of bytes, two per token, to texts. Invalid UTF-8 is dropped, as by the real package."""

    def __init__(self, vocabulary: Sequence[bytes], special: set[int]):
        self._vocabulary, self._special = vocabulary, special

    def run(self, inputs: Sequence[np.ndarray], options: Mapping[str, Any]) -> dict[str, np.ndarray]:
        hidden = self._special if options["skip_special_tokens"] else set()
        count, texts = len(self._vocabulary), []
        for row in inputs[0].tolist():
            shown = (self._vocabulary[i] for i in row if 0 <= i < count and i not in hidden)
            texts.append(b"".join(shown).decode(errors="ignore"))
        return _output(texts)


def _output(texts: list[str]) -> dict[str, np.ndarray]:
    array = np.empty(len(texts), object)
    array[:] = texts
    return {"string_output": array}
