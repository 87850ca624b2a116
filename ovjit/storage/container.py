"""The outer form of a blob: sections at aligned offsets, each with a checksum, under one authentication code.

    offset  bytes  meaning (integers little-endian)
         0      8  magic, "OVJITBLB"
         8      4  format version
        12      4  number of sections
        16      8  length of the whole blob
        24      8  name of the key: tells a foreign key from damage, and tells nothing else about the key
        32     32  HMAC-SHA256 over bytes 0 .. 31, the table, and the contents of all `AUTHENTICATED` sections
        64     40  for every section: its kind (8), offset (8), length (8), checksum of its content (16)
               16  checksum of everything before

Sections follow in any order, that of `SECTIONS` where nothing speaks for another, each at the next multiple
of 64, zeros between them. A checksum is against accidents only; the authentication code covers the checksums
of the sections that it does not cover.
"""

from __future__ import annotations

import io
import mmap
import os
import stat
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ovjit.disk.sealed import authentication_code, name_of_key
from ovjit.errors import OvjitError
from ovjit.hashes import same_bytes, sha256_for

MAGIC = b"OVJITBLB"
VERSION = 1
ALIGNMENT = 64
#: Kinds, in the order in which they lie. `weights` belong to the graph, `packed` to the program.
SECTIONS = ("header", "program", "words", "data", "code", "graph", "packed", "weights")
#: What decides about running code, and how. Of the others the authentication code covers the checksum.
AUTHENTICATED = ("header", "program", "words", "data", "code", "graph")
_HEAD = struct.Struct("<8sIIQ8s")
_CODE = 32
_ENTRY = struct.Struct("<8sQQ16s")
_CHECKSUM = 16
_TABLE = _HEAD.size + _CODE
_BODY = _TABLE + _ENTRY.size * len(SECTIONS) + _CHECKSUM
#: Where the first section lies, whatever is in it and in the others.
FIRST = _BODY + -_BODY % ALIGNMENT
_PURPOSE = b"ovjit: blob"
#: Smaller files are read, so that nothing happens to who has truncated a file that is in use.
SMALLEST_MAPPED = 1 << 20
_WRITTEN_AT_ONCE = 1 << 22  # bytes: some milliseconds


#: Bytes of a section: so many from an offset on.
Read = Callable[[int, int], bytes]


class BlobError(OvjitError):
    """A blob that is damaged, or not one of this version: what is wrong with it."""


_ROW = 1024  # 64-bit words
_PIECE = 128  # rows that stay in a core's cache while they are added up in both directions


def checksum(content: Any, read: Read | None = None) -> bytes:
    """16 bytes of SHA-256 over the sums of rows and columns of `content` as a matrix of 64-bit words.

    Row sums see every change of one word and every exchange of rows, column sums every exchange within a row.
    Adding up runs at the speed of memory (15 GB/s on one core, where SHA-256 does 2 and crc32 1 to 7). With
    `read` all but the end of the content is read by it, and takes no memory.
    """
    raw = np.frombuffer(content, np.uint8)
    rows = raw.size // (8 * _ROW)
    words = raw[: rows * 8 * _ROW].view("<u8").reshape(rows, _ROW)
    digest = sha256_for(raw.size // _ROW)(struct.pack("<Q", raw.size))
    columns = np.zeros(_ROW, np.uint64)
    for first in range(0, rows, _PIECE):
        piece = words[first : first + _PIECE]
        if read is not None:
            piece = np.frombuffer(read(8 * _ROW * first, piece.nbytes), "<u8").reshape(piece.shape)
        digest.update(np.add.reduce(piece, axis=1).astype("<u8", copy=False).data)
        columns += np.add.reduce(piece, axis=0)
    digest.update(columns.astype("<u8", copy=False).data)
    digest.update(raw[rows * 8 * _ROW :].data)
    return digest.digest()[:_CHECKSUM]


def write_container(sections: Mapping[str, Any], key: bytes) -> bytes:
    """A blob with these contents (bytes-like, all kinds of `SECTIONS`) under `key`."""
    stream = io.BytesIO()
    for part in container_parts(sections, key):
        write_in_pieces(stream, part)
    return stream.getvalue()


def container_parts(
    sections: Mapping[str, Any], key: bytes, first: str = SECTIONS[0], read: Read | None = None
) -> list[Any]:
    """What one after the other is the blob of `write_container`, without a copy of large sections: the head,
    its checksum, and before each section a gap. `first`: the section that lies before all others, for which
    there may be a `read`."""
    offset = _BODY
    rows: dict[str, bytes] = {}
    parts: list[Any] = []
    for kind in sorted(SECTIONS, key=lambda kind: kind != first):
        content = memoryview(sections[kind]).cast("B")
        gap = -offset % ALIGNMENT
        offset += gap
        parts += (bytes(gap), content)
        summed = checksum(content, read if kind == first else None)
        rows[kind] = _ENTRY.pack(kind.encode(), offset, len(content), summed)
        offset += len(content)
    table = b"".join(rows[kind] for kind in SECTIONS)
    head = _HEAD.pack(MAGIC, VERSION, len(SECTIONS), offset, name_of_key(key))
    head += _authentication(key, head, table, sections) + table
    return [head, checksum(head), *parts]


def code_in(blob: Any) -> bytes:
    """The authentication code of a blob of which at least the head is given."""
    return bytes(memoryview(blob)[_HEAD.size : _TABLE])


def write_in_pieces(stream: io.BytesIO, content: Any) -> None:
    """Write `content` (bytes-like) so that other threads get their turn: a single copy would hold the GIL."""
    view = memoryview(content)
    for first in range(0, len(view), _WRITTEN_AT_ONCE):
        stream.write(view[first : first + _WRITTEN_AT_ONCE])


def _authentication(key: bytes, head: bytes, table: bytes, sections: Mapping[str, Any]) -> bytes:
    return authentication_code(key, _PURPOSE, head, table, *(sections[kind] for kind in AUTHENTICATED))


class Container:
    """A blob taken apart. `sections`: kind -> content; the `AUTHENTICATED` ones are copies of its own."""

    def __init__(self, data: memoryview):
        """Raises BlobError unless head, table and the `AUTHENTICATED` sections are whole."""
        self.sections: dict[str, Any] = {}
        self._sums: dict[str, bytes] = {}
        self._head, self._table = self._read_table(data)
        for kind in AUTHENTICATED:
            self.sections[kind] = bytes(self.sections[kind])
            self.verify(kind)

    def _read_table(self, data: memoryview) -> tuple[bytes, bytes]:
        beginning = bytes(data[:_BODY])
        if beginning[:8] != MAGIC:
            raise BlobError(
                "Cannot import compiled blob: this is no blob of ovjit, it does not begin with OVJITBLB"
            )
        if len(beginning) < _BODY:
            raise BlobError(f"the blob is cut off: it has {len(data)} bytes")
        _, version, count, total, key_name = _HEAD.unpack_from(beginning)
        if version != VERSION:
            raise BlobError(
                f"the blob has format {version}, this ovjit reads format {VERSION}: export the model again"
            )
        if beginning[_BODY - _CHECKSUM :] != checksum(beginning[: _BODY - _CHECKSUM]):
            raise BlobError("the blob is damaged: the checksum of its table is wrong")
        if count != len(SECTIONS):
            raise BlobError(f"the blob is not valid: it has {count} sections, not {len(SECTIONS)}")
        if total != len(data):
            raise BlobError(f"the blob is cut off or padded: it says {total} bytes and has {len(data)}")
        places = []
        for i, kind in enumerate(SECTIONS):
            name, offset, size, code = _ENTRY.unpack_from(beginning, _TABLE + i * _ENTRY.size)
            if name.rstrip(b"\0") != kind.encode():
                raise BlobError(f"the blob is not valid: section {i} is {name!r}, not {kind!r}")
            places.append((offset, size, kind))
            self._sums[kind] = code
        end = _BODY
        for offset, size, kind in sorted(places):
            if offset != end + -end % ALIGNMENT or size > total - min(offset, total):
                raise BlobError(
                    f"the blob is not valid: its section {kind!r} lies at {offset} with {size} bytes"
                )
            end = offset + size
            self.sections[kind] = data[offset:end]
        if end != total:
            raise BlobError(f"the blob is not valid: its sections end at {end}, the blob at {total}")
        self.key_name = key_name
        #: The authentication code, which no other blob of a key has.
        self.code = beginning[_HEAD.size : _TABLE]
        return beginning[: _HEAD.size], beginning[_TABLE : _BODY - _CHECKSUM]

    def verify(self, kind: str) -> None:
        """Raise BlobError unless the section's content has its checksum."""
        if checksum(self.sections[kind]) != self._sums[kind]:
            raise BlobError(f"the blob is damaged: the checksum of its section {kind!r} is wrong")

    def why_foreign(self, key: bytes) -> str:
        """Why this blob does not count as written by the holder of `key`; "" when it does."""
        if self.key_name != name_of_key(key):
            return "it was written with another user's key"
        if not same_bytes(self.code, _authentication(key, self._head, self._table, self.sections)):
            return "its authentication code is wrong"
        return ""


def aligned(section: memoryview) -> np.ndarray:
    """The section's bytes at a multiple of 64: where it lies if that is one and nobody can write there."""
    array = np.frombuffer(section, np.uint8)
    if section.readonly and array.ctypes.data % ALIGNMENT == 0:
        return array
    raw = np.empty(array.size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    copy = raw[start : start + array.size]
    copy[:] = array
    return copy


def read_file(path: str, use_mmap: bool) -> memoryview:
    """The file's bytes: mapped, and so shared with other processes, when it is large and `use_mmap`.

    Raises OSError; who truncates a mapped file kills the processes that use it.
    """
    descriptor = os.open(
        path,
        os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0),
    )
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file")
        if use_mmap and status.st_size >= SMALLEST_MAPPED:
            return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        return memoryview(file.read())
