"""Shipped kernels: object code and printed sources of common kernels, so that a first start neither prints
nor compiles them.

`ovjit/data/kernels_<isa>.xz` has object code. It is generated for one CPU model per instruction set, and is
valid on all CPUs with it. Kernels that use optional features (products in further formats, rounding to bf16)
are stored per set of features. `ovjit/data/printed_<isa>.xz` has printed sources (`ovjit.codegen.texts`).
`python -m ovjit.tools.ship` writes the files. They are part of the package and trusted as such. A file of
other sources, or of another llvmlite, is ignored. Without a file, or with OVJIT_SHIPPED=0, kernels are
printed and compiled.

A file has these parts, integers little-endian:

- a stamp of 32 bytes that identifies its generator: `generators()` or `printers()`;
- its length, the counts of pieces and of keys, and the version of Python in two bytes: `HEAD`;
- for each piece the index of its dictionary, its offset, its sizes, compressed and not, and the CRC-32 of its
  contents: `PIECE`;
- the keys in order, 20 bytes each; then for each key its piece, its offset in the piece, and its size:
  `PLACE`;
- the pieces.

Pieces are compressed relative to a dictionary, which is another piece, in zlib's format. A dictionary has
contents that every model needs, or that resemble many others. The other pieces are LZMA2 streams that
continue a stream with the dictionary's bytes. So small pieces compress as well as large ones, and a start
unpacks little that it does not need.

The symbol of a kernel is `SYMBOL` in its object code.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import sys
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from ovjit import debug
from ovjit.codegen import compiling
from ovjit.codegen.cpu import machine
from ovjit.codegen.cpu.formats import features_of
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.versions import code_digest, installed_version, printing_digests
from ovjit.hashes import sha256
from ovjit.out_of_memory import unless_short

if TYPE_CHECKING:
    import mmap

#: Has the length of kernels' symbols. LLVM's object layout depends on the length of names, so a renamed
#: object has the same bytes whichever kernel's name it had.
SYMBOL = "ovjit_" + "shipped_kernel_".ljust(40, "0")
HEAD, PIECE, PLACE = struct.Struct("<IHIBB"), struct.Struct("<HIIII"), struct.Struct("<HII")
STAMP, KEY = 32, 20
#: Maximum bytes of an uncompressed LZMA2 chunk. A control byte and the length precede it.
_PLAIN = 1 << 16


@functools.cache
def generators(architecture: str = "") -> bytes:
    """The 32-byte stamp of object code: a hash of ovjit's code generators, llvmlite's version, the system,
    and the machine architecture (default: this machine's)."""
    parts = (
        code_digest(),
        installed_version("llvmlite"),
        sys.platform,
        architecture or machine.name(),
    )
    return sha256("\0".join(parts).encode()).digest()


_OF_BYTES = frozenset(("avx512vnni", "avxvnni", "dotprod", "i8mm"))
#: Text in a kernel's source or key -> CPU features that its code may use.
_USED_BY = {
    "bf16": frozenset(("avx512bf16", "bf16")),
    "dot_bytes": _OF_BYTES, "dot_signed": _OF_BYTES,
    "cas(": frozenset(("lse",)), "aadd(": frozenset(("lse",)),
}  # fmt: skip


def needed_by(source: str, key: str, form: str, isa: Target) -> Target:
    """The smallest target for which a kernel's code is the same as for `isa`. It has only the features that
    multiply in the kernel's format, round to bf16, or are atomic instructions. LLVM's passes use none of
    these features on their own, so code that does not name them is the same."""
    used = set(features_of(form))
    for word, features in _USED_BY.items():
        if word in source or word in key:
            used |= features
    return isa._replace(extras=tuple(f for f in isa.extras if f in used))


def content_key(source: str, key: str, form: str, intrinsics: str, isa: Target) -> str:
    """The key of a kernel's object code: a hash of its source, key, intrinsics, and the CPU features that the
    code depends on."""
    parts = (source, key, intrinsics, isa.name, *needed_by(source, key, form, isa).extras)
    return sha256("\0".join(parts).encode()).hexdigest()[:40]


@functools.cache
def printers() -> bytes | None:
    """The 32-byte stamp of printed sources: a hash of the modules that print, and Python's version. None if
    there are no source files."""
    digests = printing_digests()
    return None if digests is None else sha256("\0".join((*digests, _python())).encode()).digest()


def file_name(isa: Target, kind: str = "kernels") -> str:
    return f"{kind}_{isa.name}.xz"


def filters(reach: int) -> list[dict[str, Any]]:
    """LZMA's parameters, for matches at most `reach` bytes away. pb=0: x86 code has no alignment. lc=4: four
    context bits compress better than three."""
    import lzma

    return [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": max(reach, 1 << 12), "lc": 4, "pb": 0}]


def store_uncompressed(body: bytes) -> bytes:
    """The beginning of an LZMA2 stream that has these bytes uncompressed."""
    parts = []
    for at in range(0, len(body), _PLAIN):
        some = body[at : at + _PLAIN]
        parts += [b"\2" if at else b"\1", (len(some) - 1).to_bytes(2, "big"), some]
    return b"".join(parts)


class Damaged(ValueError):
    """A piece of a file is corrupt."""


class Archive:
    """The contents of a file. A piece is unpacked at the first lookup of one of its contents, and cached. Not
    thread-safe."""

    def __init__(self, content: bytes | mmap.mmap, stamp: bytes):
        """Raises ValueError if the stamp differs, EOFError if the file is truncated."""
        if content[:STAMP] != stamp:
            raise ValueError("the file was made by other code generators")
        if len(content) < STAMP + HEAD.size:
            raise EOFError("the file ends within its header")
        self._content = content
        size, pieces, self._count, *python = HEAD.unpack_from(content, STAMP)
        if size != len(content):
            raise EOFError("the file ends within a kernel")
        self._pieces = STAMP + HEAD.size
        self._keys = self._pieces + pieces * PIECE.size
        self._index = self._keys + self._count * KEY
        self._unpacked: dict[int, bytes] = {}
        #: The Python version that wrote the file. Code of Numba's ordinary pipeline may depend on it.
        self.python = ".".join(map(str, python))

    def _key(self, i: int) -> bytes:
        at = self._keys + i * KEY
        return self._content[at : at + KEY]

    def _at(self, i: int) -> bytes:
        piece, begin, size = PLACE.unpack_from(self._content, self._index + i * PLACE.size)
        return self._body(piece)[begin : begin + size]

    def _body(self, piece: int) -> bytes:
        """The contents of a piece. Raises Damaged."""
        body = self._unpacked.get(piece)
        if body is None:
            body = self._unpacked[piece] = self._unpack(piece)
        return body

    def _unpack(self, piece: int) -> bytes:
        import lzma
        import zlib

        base, at, packed, length, check = PIECE.unpack_from(self._content, self._pieces + piece * PIECE.size)
        stream = self._content[at : at + packed]
        try:
            if base == piece:
                body = zlib.decompress(stream)
            else:
                begin = self._body(base)
                reader = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters(len(begin) + length))
                reader.decompress(store_uncompressed(begin))
                body = reader.decompress(stream)
        except (zlib.error, lzma.LZMAError, EOFError) as error:
            raise Damaged(str(error)) from None
        if len(body) != length or zlib.crc32(body) != check:
            raise Damaged("a piece differs from its checksum")
        return body

    def find(self, key: str) -> bytes | None:
        """The content of a key; None without one. Raises Damaged."""
        try:
            digest = bytes.fromhex(key)
        except ValueError:
            return None
        i = bisect_left(range(self._count), digest, key=self._key)
        return self._at(i) if i < self._count and self._key(i) == digest else None

    def all(self) -> dict[str, bytes]:
        """All contents by their keys. Raises Damaged."""
        return {self._key(i).hex(): self._at(i) for i in range(self._count)}


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@functools.cache
def _import_readers() -> None:
    """Import the modules that read archives before the compiler's lock is taken, under which nothing may be
    imported. Programs whose kernels are in a blob do not need them."""
    with contextlib.suppress(ImportError):
        import lzma  # noqa: F401
        import mmap  # noqa: F401
        import zlib  # noqa: F401


def _open_data(name: str) -> Any:
    """The bytes of a file of `ovjit.data`, mapped if it is a separate file, since a start reads a small part
    of it. The package is not imported, which would take longer than the read. Raises OSError."""
    path = os.path.join(os.path.dirname(os.path.dirname(__file__)), "data", name)
    if not os.path.isfile(path):  # in an archive
        loader: Any = __spec__.loader
        return loader.get_data(path)
    import mmap

    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@functools.cache
def _archive(isa: Target, kind: str = "kernels") -> Archive | None:
    try:
        stamp = generators(isa.machine) if kind == "kernels" else printers()
        return Archive(_open_data(file_name(isa, kind)), stamp) if stamp else None
    except unless_short(OSError, ImportError, ValueError, EOFError):  # no file, or no lzma or zlib
        return None


def find(key: str, isa: Target, kind: str = "kernels") -> bytes | None:
    """The shipped content of a key; None without one."""
    if debug.flag("OVJIT_SHIPPED") == "0" or debug.flag("OVJIT_JIT"):
        return None
    _import_readers()
    with compiling.lock:
        archive = _archive(isa, kind)
        try:
            return None if archive is None else archive.find(key)
        except (Damaged, ImportError):
            return None
