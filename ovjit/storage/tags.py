"""Authentication codes of large sections: a keyed universal hash at the speed of memory, then HMAC.

    while there is a whole block of 8 KiB:
        content = NH of each block, 32 bytes, with the keys of this level; then the remainder unchanged
    tag = the first 16 bytes of HMAC-SHA256(key, purpose, kind, length, content)

NH is in `ovjit.codegen.cpu.universal_hash`. Two different blocks have equal sums for at most one in 2**128 of
its keys. Only a holder of the user's key knows these; `SECURITY.md` has the bound for the whole. SHA-256 does
0.3 to 2 GB/s on one core and BLAKE2 1 GB/s. This hash does 25 GB/s, so weights are checked as fast as they
are read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.disk.sealed import authentication_code
from ovjit.hashes import BLOCK_BYTES, KEY_BYTES, SUM_BYTES, shake_256

if TYPE_CHECKING:
    from ovjit.codegen.kernel import Kernel

TAG_BYTES = 16
_PURPOSE = b"ovjit: tag of a section"
_KEYS = b"ovjit: keys of the universal hash"


class Tag:
    """The code of a section of `size` bytes under the user's `key`. Its content is added in pieces."""

    def __init__(self, key: bytes, kind: str, size: int):
        self._key, self._kind, self._size = key, kind, size
        self._sums = np.empty(size // BLOCK_BYTES * SUM_BYTES + size % BLOCK_BYTES, np.uint8)
        self._filled = 0
        self._begun = np.empty(0, np.uint8)  # the beginning of a block

    def add(self, piece: np.ndarray) -> None:
        if self._begun.size:
            missing = BLOCK_BYTES - self._begun.size
            self._begun, piece = np.concatenate((self._begun, piece[:missing])), piece[missing:]
            if self._begun.size < BLOCK_BYTES:
                return
            self._hash_blocks(self._begun)
        end = piece.size // BLOCK_BYTES * BLOCK_BYTES
        self._hash_blocks(piece[:end])
        self._begun = piece[end:].copy()

    def _hash_blocks(self, blocks: np.ndarray) -> None:
        self._filled += _hash(blocks, _keys(self._key, 0), self._sums[self._filled :])

    def code(self) -> bytes:
        self._sums[self._filled :] = self._begun
        data, level = self._sums, 1
        while data.size >= BLOCK_BYTES:
            sums = np.empty(data.size // BLOCK_BYTES * SUM_BYTES + data.size % BLOCK_BYTES, np.uint8)
            _hash(data, _keys(self._key, level), sums)
            data, level = sums, level + 1
        length = self._size.to_bytes(8, "little")
        return authentication_code(self._key, _PURPOSE, self._kind.encode(), length, data.data)[:TAG_BYTES]


def tag(key: bytes, kind: str, content: Any) -> bytes:
    """The code of a section with this content under the user's `key`."""
    data = np.frombuffer(content, np.uint8)
    result = Tag(key, kind, data.size)
    result.add(data)
    return result.code()


def needs_kernel(size: int) -> bool:
    """Whether native code is used for the tag of `size` bytes."""
    return size >= BLOCK_BYTES


def _hash(content: np.ndarray, keys: np.ndarray, sums: np.ndarray) -> int:
    """Write the sums of all whole blocks, followed by the remaining bytes. Returns the number of bytes
    written."""
    blocks = content.size // BLOCK_BYTES
    if blocks:
        function()(content.ctypes.data, blocks, keys.ctypes.data, sums.ctypes.data)
    tail = content[blocks * BLOCK_BYTES :]
    end = blocks * SUM_BYTES + tail.size
    sums[blocks * SUM_BYTES : end] = tail
    return end


@functools.lru_cache(16)
def _keys(key: bytes, level: int) -> np.ndarray:
    """The keys of a level: each is used for blocks of that level alone."""
    seed = authentication_code(key, _KEYS, bytes([level]))
    return np.frombuffer(shake_256(seed).digest(KEY_BYTES), np.uint8)


def _intrinsics(isa: Any) -> Mapping[str, Any]:
    from ovjit.codegen.cpu import universal_hash

    return universal_hash.intrinsics()


@functools.cache
def kernel() -> Kernel:
    """The kernel that hashes blocks. Blobs bring its code, under their authentication code."""
    from ovjit.codegen.routines import routines

    return routines("hash_blocks", ("hash_blocks",), "ovjit.execution.hash_steps", _intrinsics)


_functions: dict[str, Callable[[int, int, int, int], int]] = {}


def function(provided: Mapping[str, bytes] | None = None) -> Callable[[int, int, int, int], int]:
    """The kernel's function: of the code that is `provided` (symbol -> authenticated code), else shipped or
    compiled. Provided code is not compared with this version's kernel: to look that up takes longer than all
    checks of a small blob, and blobs of other versions are not used."""
    if "hash" not in _functions:
        from ovjit.codegen import loading
        from ovjit.codegen.cpu import objects

        if provided:
            ((symbol, code),) = provided.items()
            address = objects.load(symbol, code)
            loading.object_code[symbol] = code
        else:
            address = loading.addresses((kernel(),))[kernel()]
        _functions["hash"] = objects.function(address, 4)
    return _functions["hash"]
