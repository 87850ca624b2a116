"""Changes to blobs of one's own key, made without it: what needs no key is kept or made right."""

from __future__ import annotations

import random
import struct

import numpy as np

from ovjit.storage.container import _BODY, _ENTRY, _TABLE, AUTHENTICATED, SECTIONS, Container, checksum

KINDS = ("rectangle", "rectangle", "rows", "bit", "bytes", "swap")


def place_of(content: bytes, kind: str) -> tuple[int, int]:
    """(offset, size) of a section."""
    _, offset, size, *_ = _ENTRY.unpack_from(content, _TABLE + SECTIONS.index(kind) * _ENTRY.size)
    return offset, size


def keep_sums(words: np.ndarray, one: int, other: int, by: int) -> None:
    """Change four words of a matrix of 1024 columns so that the sums of rows and columns stay: those at
    `one` and `other`, and the other corners of their rectangle."""
    (row, column), (last, behind) = divmod(one, 1024), divmod(other, 1024)
    with np.errstate(over="ignore"):
        for r, c, change in ((row, column, by), (row, behind, -by), (last, column, -by), (last, behind, by)):
            words[r * 1024 + c] += np.uint64(change & (2**64 - 1))


def forge(content: bytes, kind: str, how: str, rng: random.Random) -> bytes:
    """The blob with another content of a section; everything that needs no key is made right."""
    offset, size = place_of(content, kind)
    part = np.frombuffer(content, np.uint8)[offset : offset + size].copy()
    words = part[: size // 8 * 8].view("<u8")
    if how == "rectangle" and words.size > 2048:
        one = rng.randrange(words.size // 1024 - 1) * 1024 + rng.randrange(1023)
        row = rng.randrange(one // 1024 + 1, words.size // 1024)
        other = row * 1024 + rng.randrange(one % 1024 + 1, 1024)
        keep_sums(words, one, other, rng.choice((1, -1, 7, 2**32, -(2**40), 2**62)))
    elif how == "rows" and words.size > 2048:
        words[:2048] = np.roll(words[:2048], 1024)
    elif how == "swap" and size >= 16:
        one, other = (rng.randrange(words.size) for _ in range(2))
        words[[one, other]] = words[[other, one]]
    elif how == "bytes":
        for _ in range(rng.randrange(1, 9)):
            part[rng.randrange(size)] = rng.randrange(256)
    else:
        part[rng.randrange(size)] ^= 1 << rng.randrange(8)
    forged = bytearray(content)
    forged[offset : offset + size] = part.tobytes()
    return resum(forged)


def resum(content: bytearray) -> bytes:
    """The blob with right checksums."""
    for i, kind in enumerate(SECTIONS):
        offset, size = place_of(bytes(content), kind)
        row = _TABLE + i * _ENTRY.size
        content[row + 24 : row + 40] = checksum(bytes(content[offset : offset + size]))
    content[_BODY - 16 : _BODY] = checksum(bytes(content[: _BODY - 16]))
    return bytes(content)


def older_format(content: bytes, version: int) -> bytes:
    """The blob in format 4, whose checksums of small sections cover sums of columns, which are zeros; or in
    format 5, whose checksums are SHA-256."""
    out = bytearray(content)
    struct.pack_into("<I", out, 8, version)
    for i, kind in enumerate(SECTIONS):
        offset, size = place_of(content, kind)
        row = _TABLE + i * _ENTRY.size
        out[row + 24 : row + 40] = checksum(content[offset : offset + size], version)
    out[_BODY - 16 : _BODY] = checksum(bytes(out[: _BODY - 16]), version)
    return bytes(out)


def first_format(content: bytes) -> bytes:
    """The blob in format 1: without tags and compression, and sections where they lay then."""
    sections = Container(memoryview(content)).sections
    entry, entries = struct.Struct("<8sQQ16s"), []
    body = _TABLE + entry.size * len(SECTIONS) + 16
    out = bytearray(body)
    for kind in SECTIONS:
        out += bytes(-len(out) % 64)
        part = bytes(sections[kind])
        entries.append(entry.pack(kind.encode(), len(out), len(part), checksum(part, 1)))
        out += part
    out[:_TABLE] = content[:_TABLE]
    struct.pack_into("<I", out, 8, 1)
    struct.pack_into("<Q", out, 16, len(out))
    out[_TABLE : body - 16] = b"".join(entries)
    out[body - 16 : body] = checksum(bytes(out[: body - 16]), 1)
    return bytes(out)


__all__ = [
    "AUTHENTICATED", "KINDS", "SECTIONS", "first_format", "forge", "keep_sums", "older_format", "place_of",
    "resum",
]  # fmt: skip
