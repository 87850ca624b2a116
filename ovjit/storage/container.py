"""The outer form of a blob: sections at aligned offsets, each with a checksum, under one authentication code.

    offset  bytes  meaning (integers little-endian)
         0      8  magic, "OVJITBLB"
         8      4  format version
        12      4  number of sections
        16      8  length of the whole blob
        24      8  name of the key: tells a foreign key from damage, and tells nothing else about the key
        32     32  HMAC-SHA256 over bytes 0 .. 31, the table, and BLAKE2b of each `AUTHENTICATED` section
        64     56  for every section: its kind (8), offset (8), length (8), checksum of its bytes (16), and
                   its tag (16). `AUTHENTICATED` ones have none, but the length of their content once it is
                   decompressed (8; 0: it is not compressed), and zeros (8)
               16  checksum of everything before

Sections follow in any order, by default that of `SECTIONS`. Each is at the next multiple of 64, with zeros
between them. Checksums detect accidents, and need no key. The authentication code covers all `AUTHENTICATED`
sections, and the tags of the others. A tag authenticates its section (`tags`). Authenticated sections are
copied before they are checked, so that a later change of the file has no effect. They may be compressed, in
zlib's format. Checksums and codes are those of the bytes in the blob.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.disk.sealed import authentication_code, name_of_key
from ovjit.disk.store import BLOBS
from ovjit.errors import OvjitError, unless_of_signal
from ovjit.hashes import blake2b, same_bytes, sha256
from ovjit.storage.mapped import ALIGNMENT, align, pin
from ovjit.storage.tags import TAG_BYTES, Tag, tag

MAGIC = BLOBS.kind
VERSION = 6
#: Kinds in their default order. `weights` belong to the graph, `packed` to the program.
SECTIONS = ("header", "program", "words", "data", "code", "graph", "packed", "weights")
#: The sections that decide which code runs, and how. The authentication code covers them directly.
AUTHENTICATED = ("header", "program", "words", "data", "code", "graph")
_HEAD = struct.Struct("<8sIIQ8s")
_CODE = 32
_ENTRY = struct.Struct("<8sQQ16s16s")
#: Supported format -> a row of its table. Of older formats only the graph is used: 1 has no tags, 2 no
#: compressed sections, 3 no factors of weights, 4 sums of columns for all sections, and 5 no BLAKE2b.
_ENTRIES = {1: struct.Struct("<8sQQ16s"), **dict.fromkeys(range(2, VERSION + 1), _ENTRY)}
_FIRST_COMPRESSED, _FIRST_SHORT_SUMS, _FIRST_BLAKE2B = 3, 5, 6
#: Instead of a tag: the length of the content of a compressed section.
_UNPACKED = struct.Struct("<Q8x")
#: Sections of fewer bytes, or of more, are not compressed. The latter bounds the memory of a foreign blob.
_SMALLEST, LARGEST_COMPRESSED = 256, 1 << 26
#: Sections are compressed if they are a larger part of all. The export of three layers (350 kB) without takes
#: 0.82 ms instead of 1.30, that of a decoder (8 MB) 23 instead of 26.
_COMPRESSED_SHARE = 1 / 7
#: zlib's level. On the code of ten kernels (86 kB) level 1 takes 1.8 ms and leaves 0.44, level 6 takes 5.1 ms
#: and leaves 0.40, level 9 takes 24 ms and leaves 0.39. All are decompressed in 0.5 ms.
_LEVEL = 1
#: Compressed parts that the process keeps: kernels have some kB.
_PARTS = 512
_CHECKSUM = 16
_TABLE = _HEAD.size + _CODE
_BODY = _TABLE + _ENTRY.size * len(SECTIONS) + _CHECKSUM
#: Offset of the first section.
FIRST = _BODY + -_BODY % ALIGNMENT
_PURPOSE = b"ovjit: blob"
_WRITTEN_AT_ONCE = 1 << 22  # bytes; a copy takes some milliseconds


class BlobError(OvjitError):
    """A blob is damaged, or has an unsupported version. The message says what is wrong."""


#: Errors of tables with values of other types, or with too few.
_MISFITS = (LookupError, TypeError, ValueError, AttributeError)


@contextlib.contextmanager
def refuse_invalid(subject: str, errors: Any = _MISFITS) -> Iterator[None]:
    """A context in which tables are read: `errors` become a BlobError that `subject` is not valid."""
    try:
        yield
    except OvjitError:
        raise
    except unless_of_signal(*errors) as error:
        raise BlobError(f"{subject} not valid: {type(error).__name__}: {error}") from error


_ROW = 1024  # 64-bit words
_WORD = np.dtype("<u8")
_CACHED_ROWS = 128  # rows that stay in a core's cache while their rows and columns are summed
#: Bytes that are read at once: whole rows, and whole blocks of tags. Half of it took a tenth longer, a
#: quarter a fifth.
_PIECE = 1 << 20

#: (offset, size) -> these bytes of a section. They are valid until the next call.
Read = Callable[[int, int], np.ndarray]


class Checksum:
    """16 bytes of BLAKE2b over the sums of rows and columns of `size` bytes as a matrix of 64-bit words.

    Row sums detect every change of one word and every exchange of rows, column sums every exchange within a
    row. Summation runs at memory speed (15 GB/s on one core; BLAKE2b runs at 1 GB/s, crc32 at 1 to 7). Bytes
    are added in pieces. All pieces but the last have whole rows. Bytes without a whole row have no columns:
    to hash 8 KiB of zeros took 0.03 ms for each of eight sections.
    """

    def __init__(self, size: int, version: int = VERSION):
        """`version`: the blob's format."""
        self._digest = (blake2b if version >= _FIRST_BLAKE2B else sha256)(struct.pack("<Q", size))
        self._columns = np.zeros(_ROW if size >= 8 * _ROW or version < _FIRST_SHORT_SUMS else 0, np.uint64)
        self._remainder = b""

    def add(self, piece: np.ndarray) -> None:
        rows = piece.size // (8 * _ROW)
        end = rows * 8 * _ROW
        words = piece[:end].view(_WORD).reshape(rows, _ROW) if rows else piece
        for first in range(0, rows, _CACHED_ROWS):
            some = words[first : first + _CACHED_ROWS]
            self._digest.update(np.add.reduce(some, axis=1).astype(_WORD, copy=False).data)
            self._columns += np.add.reduce(some, axis=0)
        self._remainder = piece[end:].tobytes() if end < piece.size else b""

    def code(self) -> bytes:
        self._digest.update(self._columns.astype("<u8", copy=False).data)
        self._digest.update(self._remainder)
        return self._digest.digest()[:_CHECKSUM]


def checksum(content: Any, version: int = VERSION) -> bytes:
    """The `Checksum` of these bytes."""
    data = np.frombuffer(content, np.uint8)
    result = Checksum(data.size, version)
    result.add(data)
    return result.code()


class Pieces:
    """The content of a section, in consecutive pieces (bytes-like)."""

    def __init__(self, pieces: Iterable[Any]):
        self.pieces = [memoryview(piece).cast("B") for piece in pieces]
        self.size = sum(map(len, self.pieces))

    def __len__(self) -> int:
        return self.size

    def write(self, stream: io.BytesIO) -> None:
        """Append the content to a stream."""
        for piece in self.pieces:
            write_in_pieces(stream, piece)

    def join(self) -> memoryview:
        """The content in one piece."""
        if len(self.pieces) == 1:
            return self.pieces[0]
        stream = io.BytesIO()
        self.write(stream)
        return stream.getbuffer()


class Parts(bytes):
    """The content of a section whose parts may be those of other blobs, too: each is compressed once."""

    parts: Sequence[bytes]

    def __new__(cls, parts: Sequence[bytes]) -> Parts:
        result = super().__new__(cls, b"".join(parts))
        result.parts = parts
        return result


def write_container(sections: Mapping[str, Any], key: bytes) -> bytes:
    """A blob with these contents (bytes-like or `Pieces`, all kinds of `SECTIONS`) under `key`. Its
    `AUTHENTICATED` sections are compressed if they are not small beside the others."""
    packed = {kind: (sections[kind], 0) for kind in SECTIONS}
    if sum(len(sections[kind]) for kind in AUTHENTICATED) > _COMPRESSED_SHARE * sum(
        map(len, sections.values())
    ):
        packed.update((kind, _compress(sections[kind])) for kind in AUTHENTICATED)
    stream = io.BytesIO()  # grows without a copy, and its value is one, too
    stream.write(bytes(_BODY))
    offsets = {}
    for kind, (content, _) in packed.items():
        stream.write(bytes(-stream.tell() % ALIGNMENT))
        offsets[kind] = stream.tell()
        (content if isinstance(content, Pieces) else Pieces((content,))).write(stream)
    blob = np.frombuffer(stream.getbuffer(), np.uint8)
    table = b"".join(
        _entry(key, kind, offsets[kind], blob[offsets[kind] :][: len(content)], length)
        for kind, (content, length) in packed.items()
    )
    head = _head(key, blob.size, table, {kind: content for kind, (content, _) in packed.items()})
    blob[:_BODY] = np.frombuffer(head + checksum(head), np.uint8)
    del blob
    return stream.getvalue()


def container_parts(
    sections: Mapping[str, Any], key: bytes, first: str = SECTIONS[0], read: Read | None = None
) -> list[Any]:
    """The parts of a blob in order, without copies of large sections: the head, its checksum, then for each
    section a gap and the content. `first`: the section that precedes all others. `read`: reads its bytes.
    Nothing is compressed: caches are read where they were written."""
    offset = _BODY
    rows: dict[str, bytes] = {}
    parts: list[Any] = []
    for kind in sorted(SECTIONS, key=lambda kind: kind != first):
        section = sections[kind]
        content = section.join() if isinstance(section, Pieces) else memoryview(section).cast("B")
        gap = -offset % ALIGNMENT
        offset += gap
        parts += (bytes(gap), content)
        rows[kind] = _entry(key, kind, offset, content, 0, read if kind == first else None)
        offset += len(content)
    head = _head(key, offset, b"".join(rows[kind] for kind in SECTIONS), sections)
    return [head, checksum(head), *parts]


def _entry(key: bytes, kind: str, offset: int, content: Any, length: int, read: Read | None = None) -> bytes:
    """The row of a section in the table. `length`: of its content, if it is compressed."""
    summed, tagged = _codes(key, kind, content, read)
    last = _UNPACKED.pack(length) if kind in AUTHENTICATED else tagged
    return _ENTRY.pack(kind.encode(), offset, len(content), summed, last)


def _head(key: bytes, size: int, table: bytes, sections: Mapping[str, Any]) -> bytes:
    """The head and the table of a blob of `size` bytes."""
    head = _HEAD.pack(MAGIC, VERSION, len(SECTIONS), size, name_of_key(key))
    return head + _authentication(key, head, table, sections) + table


def _compress(content: bytes) -> tuple[bytes, int]:
    """The bytes of a section, and the length of its content; 0 if compression does not pay."""
    import zlib

    if not _SMALLEST <= len(content) <= LARGEST_COMPRESSED:
        return content, 0
    if isinstance(content, Parts):
        begin, end = b"\x78\x01", b"\x03\x00" + zlib.adler32(content).to_bytes(4, "big")
        packed = b"".join((begin, *map(_compress_part, content.parts), end))
    else:
        packed = zlib.compress(content, _LEVEL)
    return (packed, len(content)) if len(packed) < len(content) else (content, 0)


@functools.lru_cache(_PARTS)
def _compress_part(part: bytes) -> bytes:
    """A part of a stream that refers to nothing before it, and ends at a byte."""
    import zlib

    packer = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
    return packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH)


def _decompress(kind: str, packed: bytes, length: int) -> bytes:
    """The content of a compressed section. Allocates no more than `length` bytes. Raises BlobError for
    another content."""
    import zlib

    if length > LARGEST_COMPRESSED:
        raise BlobError(
            f"the blob is not valid: its section {kind!r} has {length} bytes, more than {LARGEST_COMPRESSED}"
        )
    reader = zlib.decompressobj()
    try:
        content = reader.decompress(packed, length)
        more = reader.decompress(reader.unconsumed_tail, 1)  # reads the end of the stream, too
    except zlib.error as error:
        raise BlobError(
            f"the blob is damaged: its section {kind!r} cannot be decompressed: {error}"
        ) from None
    if len(content) != length or more or not reader.eof or reader.unused_data:
        raise BlobError(f"the blob is damaged: its section {kind!r} does not have {length} bytes")
    return content


def _codes(key: bytes, kind: str, content: Any, read: Read | None) -> tuple[bytes, bytes]:
    """The checksum and the tag of a section, in one pass over its pieces. `AUTHENTICATED` sections have no
    tag."""
    data = np.frombuffer(content, np.uint8)
    summed = Checksum(data.size)
    tagged = None if kind in AUTHENTICATED else Tag(key, kind, data.size)
    for first in range(0, data.size, _PIECE):
        piece = data[first : first + _PIECE]
        if read is not None:
            piece = read(first, piece.size)
        summed.add(piece)
        if tagged is not None:
            tagged.add(piece)
    return summed.code(), bytes(TAG_BYTES) if tagged is None else tagged.code()


def code_in(blob: Any) -> bytes:
    """The authentication code in the head of a blob."""
    return bytes(memoryview(blob)[_HEAD.size : _TABLE])


def write_in_pieces(stream: io.BytesIO, content: Any) -> None:
    """Write `content` (bytes-like) in pieces: a single copy would hold the GIL for long."""
    view = memoryview(content)
    stream.writelines(view[i : i + _WRITTEN_AT_ONCE] for i in range(0, len(view), _WRITTEN_AT_ONCE))


def _authentication(key: bytes, head: bytes, table: bytes, sections: Mapping[str, Any]) -> bytes:
    digests = (blake2b(sections[kind]).digest() for kind in AUTHENTICATED)
    return authentication_code(key, _PURPOSE, head, table, *digests)


class Container:
    """The parsed form of a blob. `sections`: kind -> content; `AUTHENTICATED` ones are private copies."""

    def __init__(self, data: memoryview):
        """Raises BlobError unless head, table and the `AUTHENTICATED` sections are whole."""
        self.sections: dict[str, Any] = {}
        self._sums: dict[str, bytes] = {}
        self._tags: dict[str, bytes] = {}
        #: The key that has authenticated the blob.
        self._key: bytes | None = None
        self._head, self._table = self._read_table(data)
        #: The bytes of the `AUTHENTICATED` sections.
        self._stored: dict[str, bytes] = {}
        for kind in AUTHENTICATED:
            stored = self._stored[kind] = self.sections[kind] = bytes(self.sections[kind])
            self.verify(kind)
            length = _UNPACKED.unpack(self._tags[kind])[0] if self.version >= _FIRST_COMPRESSED else 0
            if length:
                self._decompress(kind, stored, length)

    def _decompress(self, kind: str, stored: bytes, length: int) -> None:
        """Raises BlobError for a damaged header or graph. Others are not used without authentication."""
        try:
            self.sections[kind] = _decompress(kind, stored, length)
        except BlobError:
            if kind in ("header", "graph"):
                raise
            self.sections[kind] = b""

    def _read_table(self, data: memoryview) -> tuple[bytes, bytes]:
        beginning = bytes(data[:_BODY])
        if beginning[:8] != MAGIC:
            raise BlobError(
                "Cannot import compiled blob: the data are not a blob of ovjit, which begins with OVJITBLB"
            )
        if len(beginning) < _HEAD.size:
            raise BlobError(f"the blob is truncated: it has {len(data)} bytes")
        _, self.version, count, total, key_name = _HEAD.unpack_from(beginning)
        row = _ENTRIES.get(self.version)
        if row is None:
            raise BlobError(
                f"the blob has format {self.version}; this version of ovjit reads formats up to "
                f"{VERSION}: export the model again"
            )
        body = _TABLE + row.size * len(SECTIONS) + _CHECKSUM
        if len(beginning) < body:
            raise BlobError(f"the blob is truncated: it has {len(data)} bytes")
        if beginning[body - _CHECKSUM : body] != checksum(beginning[: body - _CHECKSUM], self.version):
            raise BlobError("the blob is damaged: the checksum of its table is wrong")
        if count != len(SECTIONS):
            raise BlobError(f"the blob is not valid: it has {count} sections, expected {len(SECTIONS)}")
        if total != len(data):
            raise BlobError(
                f"the blob is truncated or padded: its header states {total} bytes, it has {len(data)}"
            )
        self._read_sections(
            data, body, [row.unpack_from(beginning, _TABLE + i * row.size) for i in range(count)]
        )
        self.key_name = key_name
        #: The authentication code, which identifies a blob among those of a key.
        self.code = beginning[_HEAD.size : _TABLE]
        return beginning[: _HEAD.size], beginning[_TABLE : body - _CHECKSUM]

    def _read_sections(self, data: memoryview, end: int, rows: Sequence[Any]) -> None:
        spans = []
        for kind, (name, offset, size, code, *tags) in zip(SECTIONS, rows, strict=True):
            if name.rstrip(b"\0") != kind.encode():
                raise BlobError(f"the blob is not valid: the section {name!r} is in the place of {kind!r}")
            spans.append((offset, size, kind))
            self._sums[kind] = code
            self._tags[kind] = tags[0] if tags else b""
        for offset, size, kind in sorted(spans):
            if offset != end + -end % ALIGNMENT or size > len(data) - min(offset, len(data)):
                raise BlobError(
                    f"the blob is not valid: its section {kind!r} has offset {offset} and size {size}"
                )
            if any(data[end:offset]):  # no tag covers these bytes, so they must be zeros
                raise BlobError(f"the blob is damaged: the padding before its section {kind!r} is not zero")
            end = offset + size
            self.sections[kind] = data[offset:end]
        if end != len(data):
            raise BlobError(f"the blob is not valid: its sections end at {end}, the blob at {len(data)}")

    def verify(self, kind: str, content: Any = None) -> None:
        """Raise BlobError unless the section's content has its tag; or its checksum, if no key has
        authenticated the blob. `content`: a copy of the section's bytes, if there is one."""
        content = self.sections[kind] if content is None else content
        if self._key is not None and kind not in AUTHENTICATED:
            if not same_bytes(tag(self._key, kind, content), self._tags[kind]):
                raise BlobError(f"the blob is damaged or forged: the tag of its section {kind!r} is wrong")
        elif checksum(content, self.version) != self._sums[kind]:
            raise BlobError(f"the blob is damaged: the checksum of its section {kind!r} is wrong")

    def memory(self, kind: str, spans: Iterable[tuple[int, int]]) -> np.ndarray:
        """The verified content of a section as memory for kernels. Later changes of a mapped file do not
        affect the bytes at `spans` (offset, size)."""
        memory = pin(align(self.sections[kind]), spans)
        self.verify(kind, memory.data)
        return memory

    def copy(self, kind: str, runs: Iterable[tuple[np.ndarray, int]]) -> None:
        """Copy the parts of a section to `runs`, in order: the target and the offset in the section of each.
        Raises BlobError unless they are the whole content, and it has its tag."""
        assert self._key is not None, "no key has authenticated the blob"
        content = np.frombuffer(self.sections[kind], np.uint8)
        tagged, end = Tag(self._key, kind, content.size), 0
        for target, offset in runs:
            if offset != end or target.size > content.size - offset:
                raise BlobError(f"the blob is not valid: parts of its section {kind!r} are missing")
            for first in range(0, target.size, _PIECE):
                part = target[first : first + _PIECE]
                part[:] = content[offset + first :][: part.size]
                tagged.add(part)
            end = offset + target.size
        if end != content.size or not same_bytes(tagged.code(), self._tags[kind]):
            raise BlobError(f"the blob is damaged or forged: the tag of its section {kind!r} is wrong")

    def why_foreign(self, key: bytes) -> str:
        """The reason why `key` does not authenticate the blob; "" if it does."""
        if self.version != VERSION:
            return f"it has format {self.version}; only object code of format {VERSION} is used"
        if self.key_name != name_of_key(key):
            return "it was written with another user's key"
        parts = self._head, self._table, self._stored
        if self._key != key and not same_bytes(self.code, _authentication(key, *parts)):  # hashed once
            return "its authentication code is wrong"
        self._key = key
        return ""
