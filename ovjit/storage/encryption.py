"""Blobs that the user's own functions encrypt: the property CACHE_ENCRYPTION_CALLBACKS.

The functions, from bytes to bytes, get whole blobs. Output begins with `MARK`, which distinguishes an
encrypted blob from a damaged one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ovjit.storage.container import BlobError

MARK = b"OVJITENC"
PROPERTY = "CACHE_ENCRYPTION_CALLBACKS"


def encrypt(blob: bytes, settings: Mapping[str, Any]) -> bytes:
    """The blob as it leaves the process: as it is without the property."""
    callbacks = settings.get(PROPERTY)
    return MARK + _apply(callbacks[0], blob) if callbacks else blob


def decrypt(data: memoryview, settings: Mapping[str, Any]) -> memoryview:
    """The blob in `data`. BlobError if it is encrypted and the property is not given."""
    if bytes(data[: len(MARK)]) != MARK:
        return data
    callbacks = settings.get(PROPERTY)
    if not callbacks:
        raise BlobError(
            f"the blob is encrypted: pass {PROPERTY} with the functions that it was exported with"
        )
    return memoryview(_apply(callbacks[1], bytes(data[len(MARK) :])))


def _apply(function: Callable[[bytes], Any], content: bytes) -> bytes:
    result = function(content)
    if isinstance(result, str):
        return result.encode()
    if not isinstance(result, (bytes, bytearray, memoryview)):
        raise BlobError(f"a function of {PROPERTY} must return bytes, not {type(result).__name__}")
    return bytes(result)
