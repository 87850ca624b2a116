"""An ONNX file without its large data, which parsing would copy: these become views of the content.

    content -> (bytes for protobuf to parse, {mark: the bytes that it replaces})

A file is a message of nested messages (protobuf's wire format). Each field has a tag and a number, or a tag,
a length and so many bytes. In all tensors, each large `raw_data` is replaced by a mark. No file can contain
the mark, as a part of it is random. The remainder is parsed unchanged. Malformed parts are left whole, for
protobuf to refuse.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from ovjit.readers.onnx.standard import messages

#: Shorter data are parsed.
SMALLEST = 4096
#: Messages nest no deeper for protobuf.
_DEEPEST = 100
#: A file with more fields is parsed whole: protobuf reads small ones a hundred times as fast.
_MOST_FIELDS = 1 << 18
_RANDOM = 16
#: The ends of attributes that are lists of numbers or strings: the field `type`, which writers have last.
_LISTS = frozenset(b"\xa0\x01" + bytes([kind]) for kind in (6, 7, 8))

#: Field number -> the fields of the message in it, None for data.
_Fields = dict[int, Any]


def cut_out(content: np.ndarray) -> tuple[Any, dict[bytes, np.ndarray]]:
    """(bytes-like, {mark: data}) of a file's bytes, a read-only u8 array that the data are views of."""
    data: dict[bytes, np.ndarray] = {}
    try:
        pieces = _Cut(content, data).message(0, content.size, _message_fields()["onnx.ModelProto"], 0)
    except _OddError:
        return content.data, {}
    return (content.data, {}) if pieces is None else (b"".join(pieces), data)


class _OddError(Exception):
    """The file violates the wire format."""


class _Cut:
    """The scan of one file."""

    def __init__(self, content: np.ndarray, data: dict[bytes, np.ndarray]):
        self._content = content
        self._bytes = content.data
        self._data = data
        self._random = os.urandom(_RANDOM)
        self._remaining_fields = _MOST_FIELDS
        self._attribute = _message_fields()["onnx.AttributeProto"]

    def message(self, at: int, end: int, fields: _Fields, depth: int) -> list[Any] | None:
        """The pieces of the message at `at` without large data; None if nothing is cut out of it."""
        if depth > _DEEPEST:
            raise _OddError
        pieces: list[Any] = []
        copy_from = at
        while at < end:
            tag, after = self._number(at, end)
            kind = tag & 7
            self._remaining_fields -= 1
            if tag >> 3 == 0 or self._remaining_fields < 0:
                raise _OddError
            if kind == 2:
                size, begin = self._number(after, end)
                at = begin + size
                if size >= SMALLEST and at <= end and tag >> 3 in fields:
                    parts = self._field(begin, at, fields[tag >> 3], depth)
                    if parts is not None:
                        pieces += (self._bytes[copy_from:after], _varint(sum(map(len, parts))), *parts)
                        copy_from = at
                elif size < 128:
                    at = self._behind_short(at, end, tag)
            elif kind == 0:
                _, at = self._number(after, end)
            elif kind in (1, 5):
                at = after + (8 if kind == 1 else 4)
            else:
                raise _OddError
        if at > end:
            raise _OddError
        return [*pieces, self._bytes[copy_from:end]] if pieces else None

    def _field(self, begin: int, end: int, fields: _Fields | None, depth: int) -> list[Any] | None:
        """The pieces of a large field, None if nothing is cut out of it."""
        if fields is None:
            return [self._mark(begin, end)]
        if fields is self._attribute and bytes(self._bytes[end - 3 : end]) in _LISTS:
            return None
        return self.message(begin, end, fields, depth + 1)

    def _mark(self, begin: int, end: int) -> bytes:
        mark = self._random + len(self._data).to_bytes(8, "little")
        self._data[mark] = self._content[begin:end]
        return mark

    def _behind_short(self, at: int, end: int, tag: int) -> int:
        """The end of the fields at `at` that have the same tag of one byte and fewer than 128 bytes."""
        content = self._bytes
        while tag < 128 and at + 1 < end and content[at] == tag and content[at + 1] < 128:
            at += 2 + content[at + 1]
        return at

    def _number(self, at: int, end: int) -> tuple[int, int]:
        """(a varint, its end): seven bits per byte, the lowest first."""
        number = shift = 0
        while at < end and shift < 70:
            byte = self._bytes[at]
            at += 1
            number |= (byte & 127) << shift
            if byte < 128:
                return number, at
            shift += 7
        raise _OddError


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


@functools.cache
def _message_fields() -> dict[str, _Fields]:
    """For a ModelProto and all messages in it, the fields that are messages, as the package onnx declares
    them."""
    fields_by_type: dict[str, _Fields] = {}

    def fields_of(kind: Any) -> _Fields:
        fields = fields_by_type.get(kind.full_name)
        if fields is None:
            fields = fields_by_type[kind.full_name] = {}  # which messages within themselves find
            inner = ((field.number, field.message_type) for field in kind.fields)
            fields.update((number, fields_of(message)) for number, message in inner if message is not None)
        return fields

    tensor = messages().TensorProto.DESCRIPTOR
    fields_of(tensor)[tensor.fields_by_name["raw_data"].number] = None
    fields_of(messages().ModelProto.DESCRIPTOR)
    return fields_by_type
