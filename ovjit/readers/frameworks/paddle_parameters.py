"""The check of a `.pdiparams` file: Paddle itself does not look whether its last tensor is whole.

The file has tensors one after another: u32 0, u64 number of levels (of each: u64 bytes, and they), u32 0,
i32 bytes of a description, the description (protobuf: 1 the type, 2 the dimensions), the elements.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from ovjit.errors import ModelError, unreadable

#: Paddle's number of an element type -> bytes of an element.
_SIZES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16, 32: 1, 33: 1}
#: No description and no levels are larger.
_MOST = 1 << 16


class _Unknown(Exception):
    """The file has another form, of which Paddle is the judge."""


def check_parameters(path: str) -> None:
    """Raise ModelError if a tensor in the file has fewer bytes than its shape needs."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        number = 0
        try:
            while file.tell() < size:
                _pass_tensor(file, size)
                number += 1
        except _Unknown:
            return
        except (EOFError, struct.error):
            why = f"tensor {number} is cut short: the file ends after {size} bytes. Copy the file again"
            raise ModelError(unreadable(path, why)) from None


def _pass_tensor(file: BinaryIO, size: int) -> None:
    """Move past one tensor. Raises EOFError if it goes beyond the end of the file, and _Unknown for another
    form."""
    version, levels = struct.unpack("<IQ", file.read(12))
    if version or levels > _MOST:
        raise _Unknown
    for _ in range(levels):
        _skip(file, struct.unpack("<Q", file.read(8))[0], size)
    version, length = struct.unpack("<Ii", file.read(8))
    if version or not 0 < length < _MOST:
        raise _Unknown
    described = file.read(length)
    if len(described) < length:
        raise EOFError
    _skip(file, _byte_count(described), size)


def _skip(file: BinaryIO, count: int, size: int) -> None:
    if file.tell() + count > size:
        raise EOFError
    file.seek(count, os.SEEK_CUR)


def _byte_count(described: bytes) -> int:
    """The bytes of the elements of a described tensor."""
    at, element, count = 0, -1, 1
    while at < len(described):
        key, at = _varint(described, at)
        value, at = _varint(described, at)
        if key == 0x08:
            element = value
        elif key == 0x10:
            count *= value
        elif key == 0x12:  # packed dimensions
            end = at + value
            while at < end:
                value, at = _varint(described, at)
                count *= value
        else:
            raise _Unknown
    if element not in _SIZES:
        raise _Unknown
    return count * _SIZES[element]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _Unknown
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
