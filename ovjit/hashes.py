"""SHA-256, and codes of authentication by it, without OpenSSL for what is small.

`hashlib` and `hmac` load OpenSSL, which takes 3 ms, a fiftieth of the time from the start of a process to its
first result. What a start hashes is small: names and records. Python's own function does 0.25 GB/s, OpenSSL's
up to 2, so what is larger goes there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

#: From so many bytes on OpenSSL is the faster one, its loading included.
LARGE = 1 << 20
_BLOCK = 64


def _find_function(name: str, *modules: str) -> Callable[..., Any]:
    """The function of the first of these modules that has it: a Python may have been made without some."""
    for module in modules[:-1]:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    return getattr(import_module(modules[-1]), name.lstrip("_"))


#: For what is small. `random` takes its own hash from there, too; from Python 3.12 on it is in `_sha2`.
sha256 = _find_function("sha256", "_sha2", "_sha256", "hashlib")
#: Keys of any length from a short one (FIPS 202).
shake_256 = _find_function("shake_256", "_sha3", "hashlib")
#: Equality in constant time.
same_bytes = _find_function("_compare_digest", "_operator", "hmac")


#: A hash without a key: four times as fast as SHA-256 without OpenSSL.
blake2b = _find_function("blake2b", "_blake2", "hashlib")


def content_hash(content: bytes | memoryview) -> str:
    """A name of these bytes, 64 hexadecimal digits of BLAKE2b (RFC 7693)."""
    return str(blake2b(content, digest_size=32).hexdigest())


def sha256_for(size: int) -> Callable[..., Any]:
    """The hash function for so many bytes: OpenSSL's is included if it has been loaded."""
    small = size < LARGE and "_hashlib" not in sys.modules
    return sha256 if small else import_module("hashlib").sha256


#: What HMAC makes of each byte of a key, for the inner and for the outer hash.
_PADS = tuple(bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


def hmac_sha256(key: bytes, parts: Sequence[bytes | memoryview]) -> bytes:
    """HMAC-SHA256 (RFC 2104) of the parts, one after the other."""
    new = sha256_for(sum(map(len, parts)))
    if len(key) > _BLOCK:
        key = new(key).digest()
    key = key.ljust(_BLOCK, b"\0")
    inner, outer = (new(key.translate(pad)) for pad in _PADS)
    for part in parts:
        inner.update(part)
    outer.update(inner.digest())
    return outer.digest()


#: The universal hash (`ovjit.codegen.cpu.universal_hash`): bytes of a block, of its sums, and of the keys for
#: a block, which the last of the four sums takes three words further.
BLOCK_BYTES, SUM_BYTES, KEY_BYTES = 8192, 32, 8192 + 3 * 8
