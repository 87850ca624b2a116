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
_PIECE = 128 * BLOCK_BYTES  # what is asked of a `read` at once
_PURPOSE = b"ovjit: tag of a section"
_KEYS = b"ovjit: keys of the universal hash"

#: Bytes of a section: so many from an offset on.
Read = Callable[[int, int], bytes]


def tag(key: bytes, kind: str, content: Any, read: Read | None = None) -> bytes:
    """The code of a section under the user's `key`. With `read` all but the end of the content is read by it,
    and takes no memory."""
    left = np.frombuffer(content, np.uint8)
    length, level = left.size.to_bytes(8, "little"), 0
    while left.size >= BLOCK_BYTES:
        left = _hashed(left, _keys(key, level), read if level == 0 else None)
        level += 1
    return authentication_code(key, _PURPOSE, kind.encode(), length, left.data)[:TAG_BYTES]


def needs_kernel(size: int) -> bool:
    """Whether the tag of so many bytes takes native code."""
    return size >= BLOCK_BYTES


def _hashed(content: np.ndarray, keys: np.ndarray, read: Read | None) -> np.ndarray:
    """The sums of all whole blocks, and the bytes behind them."""
    whole = content.size // BLOCK_BYTES * BLOCK_BYTES
    out = np.empty(whole // BLOCK_BYTES * SUM_BYTES + content.size - whole, np.uint8)
    step = whole if read is None else _PIECE
    for first in range(0, whole, step):
        part = content[first : min(first + step, whole)]
        if read is not None:
            part = np.frombuffer(read(first, part.size), np.uint8)
        at = out.ctypes.data + first // BLOCK_BYTES * SUM_BYTES
        function()(part.ctypes.data, part.size // BLOCK_BYTES, keys.ctypes.data, at)
    out[out.size - (content.size - whole) :] = content[whole:]
    return out


@functools.lru_cache(16)
def _keys(key: bytes, level: int) -> np.ndarray:
    """The keys of a level: each is used for blocks of that level alone."""
    seed = authentication_code(key, _KEYS, bytes([level]))
    return np.frombuffer(shake_256(seed).digest(KEY_BYTES), np.uint8)


def _module() -> Any:
    from ovjit.execution import hash_steps

    return hash_steps


def _intrinsics(isa: Any) -> Mapping[str, Any]:
    from ovjit.codegen.cpu import universal_hash

    return universal_hash.intrinsics()


@functools.cache
def kernel() -> Kernel:
    """The kernel that hashes blocks. Blobs bring its code, under their authentication code."""
    from ovjit.codegen.routines import routines

    return routines("hash_blocks", ("hash_blocks",), _module, _intrinsics)


_functions: dict[str, Callable[[int, int, int, int], int]] = {}


def function(provided: Mapping[str, bytes] | None = None) -> Callable[[int, int, int, int], int]:
    """The kernel's function, of the code that is `provided` (symbol -> authenticated code) or compiled."""
    if "hash" not in _functions:
        from ovjit.codegen.cpu.objects import function as callable_at
        from ovjit.codegen.loading import addresses

        _functions["hash"] = callable_at(addresses((kernel(),), provided)[kernel()], 4)
    return _functions["hash"]
