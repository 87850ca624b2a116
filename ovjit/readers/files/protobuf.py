"""Messages of protobuf in files, recognized by their outermost fields."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import BinaryIO

#: Kinds of fields in protobuf's wire format.
NUMBER, BYTES = 0, 2
#: The most outermost fields of a message that are looked at.
_MOST_FIELDS = 1 << 16


def is_message(file: BinaryIO, fields: Mapping[int, int], needed: int) -> bool:
    """True if a file is a whole message of protobuf, judged by its outermost fields, whose data are skipped.
    One of them is `needed`."""
    at, size, has_needed = 0, os.fstat(file.fileno()).st_size, False
    for _ in range(_MOST_FIELDS):
        if at == size:
            return has_needed
        tag, at = _varint(file, at)
        field, kind = tag >> 3, tag & 7
        if fields.get(field) != kind:
            return False
        number, at = _varint(file, at)
        at += number if kind == BYTES else 0
        has_needed |= field == needed
        if not 0 < at <= size:
            return False
    return False


def _varint(file: BinaryIO, at: int) -> tuple[int, int]:
    """(a number, the offset of its end); the end is -1 for what is no number."""
    file.seek(at)
    number = 0
    for index, byte in enumerate(file.read(10)):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, at + index + 1
    return 0, -1
