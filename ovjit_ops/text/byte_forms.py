"""Strings byte by byte: UTF-8 validation, byte tokens, and the characters that stand for bytes in GPT-2."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import numpy as np

from ovjit.errors import InferenceError
from ovjit.graph.op import Bool, TensorType, op
from ovjit_ops.common.checks import check_type
from ovjit_ops.text import packed

REPLACEMENT = b"\xef\xbf\xbd"
#: Number of bytes of a character -> the least code point that needs them.
_LEAST = {2: 0x80, 3: 0x800, 4: 0x10000}


def validate(text: bytes, replace: bool) -> bytes:
    """The text without bytes that are not UTF-8, or with U+FFFD in their place.

    An overlong form gives one U+FFFD for each of its bytes, an unfinished one gives one. Surrogates and
    numbers above 10FFFF are kept.
    """
    bad = REPLACEMENT if replace else b""
    out = bytearray()
    at = 0
    while at < len(text):
        head = text[at]
        count = (
            1
            if head < 128
            else 2
            if head >> 5 == 6
            else 3
            if head >> 4 == 14
            else 4
            if head >> 3 == 30
            else 0
        )
        if count == 1:
            out.append(head)
            at += 1
        elif not count:
            out += bad
            at += 1
        else:
            point, end = head & (0xFF >> (count + 1)), at + 1
            while end < len(text) and end < at + count and text[end] >> 6 == 2:
                point = point << 6 | text[end] & 63
                end += 1
            if end < at + count:
                out += bad
            elif point < _LEAST[count]:
                out += bad * count
            else:
                out += text[at:end]
            at = end
    return bytes(out)


@op("UTF8Validate", plugin="extension", host=".cpu_bytes:prepare_validation")
class UTF8Validate:
    """Drops bytes that are not UTF-8, or replaces them by U+FFFD."""

    def infer(begins, ends, chars, *, replace_mode: Bool = False):
        packed.check_strings((begins, ends, chars))
        return packed.strings_type(begins.shape)

    def ref(begins, ends, chars, *, replace_mode=False):
        return packed.map_strings(lambda text: validate(text, replace_mode), begins, ends, chars)


_BYTE = re.compile(rb"<0x([0-9A-F]{2})>")


def byte_of(token: bytes) -> bytes:
    """The byte of a token such as <0x41>; other tokens as they are."""
    match = _BYTE.fullmatch(token)
    if match is not None:
        return bytes([int(match.group(1), 16)])
    # what else has the form of one is no byte, and the package writes -1
    return b"\xff" if len(token) == 6 and token[:1] == b"<" and token[5:] == b">" else token


@op("ByteFallback", plugin="extension", host=".cpu_bytes:prepare_byte_tokens")
class ByteFallback:
    """Replaces tokens such as <0x41> by their byte."""

    def infer(begins, ends, chars):
        packed.check_strings((begins, ends, chars))
        return packed.strings_type(begins.shape)

    def ref(begins, ends, chars):
        return packed.map_strings(byte_of, begins, ends, chars)


@functools.cache
def chars_of_bytes() -> tuple[bytes, ...]:
    """The character of each byte: itself if it is printed, else the next one from U+0100."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printed]
    points = {b: b for b in printed} | {b: 256 + i for i, b in enumerate(others)}
    return tuple(chr(points[b]).encode() for b in range(256))


@functools.cache
def bytes_of_chars() -> Mapping[bytes, int]:
    return {char: byte for byte, char in enumerate(chars_of_bytes())}


@op("BytesToChars", plugin="extension", host=".cpu_bytes:prepare_bytes_to_chars")
class BytesToChars:
    """Writes each byte as a printed character, as the vocabulary of GPT-2 does."""

    def infer(*inputs):
        packed.check_count(inputs, (5, 6), "BytesToChars")
        packed.check_ragged_strings(inputs[:5])
        types = packed.ragged_strings_type(inputs[0].shape)
        types = (*types[:2], *(TensorType("i32", x.shape) for x in inputs[2:4]), types[4])
        if len(inputs) == 6:
            check_type(inputs[5], ("boolean",), "the marks")
            return (*types, TensorType("boolean", inputs[5].shape))
        return types

    def ref(*inputs):
        begins, ends, *strings = inputs[:5]
        texts = packed.unpack(*strings)
        skips = inputs[5] if len(inputs) == 6 else np.zeros(len(texts), bool)
        packed.check_skips(skips, len(texts))
        chars = chars_of_bytes()
        packed.check_ranges(begins, ends, len(texts), "a row")
        results = [
            text if skip else b"".join([chars[b] for b in text])
            for text, skip in zip(texts, skips, strict=True)
        ]
        return (begins, ends, *packed.pack(results, strings[0].shape), *inputs[5:])


@op("CharsToBytes", plugin="extension", host=".cpu_bytes:prepare_chars_to_bytes")
class CharsToBytes:
    """The bytes that BytesToChars has written, the strings of each row joined."""

    def infer(begins, ends, starts, stops, chars):
        packed.check_ragged_strings((begins, ends, starts, stops, chars))
        return packed.strings_type(begins.shape)

    def ref(begins, ends, starts, stops, chars):
        texts = packed.unpack(starts, stops, chars)
        rows = packed.rows_of(begins, ends, len(texts))
        return packed.pack([b"".join([_bytes_of(texts[i]) for i in row]) for row in rows], begins.shape)


def _bytes_of(text: bytes) -> bytes:
    byte_by_char, out, at = bytes_of_chars(), bytearray(), 0
    while at < len(text):
        count = 1 if text[at] < 128 else 2
        char = text[at : at + count]
        # a single byte stands for itself, printed or not
        byte = char[0] if count == 1 else byte_by_char.get(char)
        if byte is None:
            raise InferenceError(f"CharsToBytes: {char!r} is not a character that stands for a byte")
        out.append(byte)
        at += count
    return bytes(out)
