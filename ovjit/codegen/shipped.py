"""Common kernels, and printed texts of kernels, that come with ovjit: a first start neither prints nor
compiles them.

`ovjit/data/kernels_<isa>.xz` holds object code: for each instruction set it is made for one CPU by its
name, and is the same on all of them. What multiplies in further formats or rounds to bf16 is there for the
features that it does so by. `ovjit/data/printed_<isa>.xz` holds what functions are printed as
(`ovjit.codegen.texts`). `python -m ovjit.tools.ship` writes the files. They are part of the package and
trusted as such; a file that other sources or another llvmlite made is not looked at. With no file, or
OVJIT_SHIPPED=0, everything works as before.

A file has these parts, integers little-endian:

- 32 bytes that say what made it: `generators()` or `printers()`;
- its length, the counts of pieces and of keys, and the version of Python, two bytes for its numbers: `HEAD`;
- for each piece the number of its dictionary, where it stands, its sizes, compressed and not, and the CRC-32
  of its contents: `PIECE`;
- the keys in order, 20 bytes each, then for each key its piece, its place in it and its size: `PLACE`;
- the pieces. A dictionary is a piece in zlib's format, its own dictionary: of contents that every model
  needs, or that many others resemble. Each further piece is an LZMA2 stream that continues one of the
  dictionary's bytes. So a piece of few contents compresses as well as one of many, and a start unpacks
  little that it does not need.

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
from ovjit.codegen.versions import code_digest, installed, printing_digests
from ovjit.hashes import sha256

if TYPE_CHECKING:
    import mmap

#: As long as the symbols of kernels. LLVM's layout of an object depends on the length of its names, so a
#: renamed object has the same bytes for every maker.
SYMBOL = "ovjit_" + "shipped_kernel_".ljust(40, "0")
HEAD, PIECE, PLACE = struct.Struct("<IHIBB"), struct.Struct("<HIIII"), struct.Struct("<HII")
STAMP, KEY = 32, 20
#: Bytes that pieces of an LZMA2 stream may have as they are; a byte and their number stand before them.
_PLAIN = 1 << 16


@functools.cache
def generators(architecture: str = "") -> bytes:
    """32 bytes that name what makes the contents: ovjit's code generators, LLVM, the system, and the machine
    that they are for, this one where it is not said."""
    parts = (
        code_digest(),
        installed("llvmlite"),
        sys.platform,
        architecture or machine.name(),
    )
    return sha256("\0".join(parts).encode()).digest()


_OF_BYTES = frozenset(("avx512vnni", "avxvnni", "dotprod", "i8mm"))
#: What stands in a kernel's source or key -> the features that its code may use then.
_USED_BY = {
    "bf16": frozenset(("avx512bf16", "bf16")),
    "dot_bytes": _OF_BYTES, "dot_signed": _OF_BYTES,
    "cas(": frozenset(("lse",)), "aadd(": frozenset(("lse",)),
}  # fmt: skip


def needed_by(source: str, key: str, form: str, isa: Target) -> Target:
    """The least of the CPUs on which a kernel's code is the same as on `isa`: it has those features that
    multiply in the kernel's format, round to bf16, or swap words of memory, and no others. LLVM's passes see
    none of them, and its instructions are the same for text that names none."""
    used = set(features_of(form))
    for word, features in _USED_BY.items():
        if word in source or word in key:
            used |= features
    return isa._replace(extras=tuple(f for f in isa.extras if f in used))


def content_key(source: str, key: str, form: str, intrinsics: str, isa: Target) -> str:
    """The name of a kernel's content: a hash of its source, key and intrinsics' file, and of what the CPU
    has, where the code depends on it."""
    parts = (source, key, intrinsics, isa.name, *needed_by(source, key, form, isa).extras)
    return sha256("\0".join(parts).encode()).hexdigest()[:40]


@functools.cache
def printers() -> bytes | None:
    """32 bytes that name what prints texts: the sources that a text depends on, and Python's version. None
    where there are no files of sources to tell by."""
    digests = printing_digests()
    return None if digests is None else sha256("\0".join((*digests, _python())).encode()).digest()


def file_name(isa: Target, kind: str = "kernels") -> str:
    return f"{kind}_{isa.name}.xz"


def filters(reach: int) -> list[dict[str, Any]]:
    """LZMA's parameters, for matches that are `reach` bytes away at most. Machine code has no alignment, and
    the four bits before a byte tell more of it than three."""
    import lzma

    return [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": max(reach, 1 << 12), "lc": 4, "pb": 0}]


def plain(body: bytes) -> bytes:
    """The beginning of an LZMA2 stream with these bytes as they are."""
    parts = []
    for at in range(0, len(body), _PLAIN):
        some = body[at : at + _PLAIN]
        parts += [b"\2" if at else b"\1", (len(some) - 1).to_bytes(2, "big"), some]
    return b"".join(parts)


class Damaged(ValueError):
    """A file's piece is not what it was."""


class Archive:
    """The contents of a file. A piece is unpacked on the first request for one of its contents, and kept.
    Only one thread at a time may ask."""

    def __init__(self, content: bytes | mmap.mmap, stamp: bytes):
        """ValueError when other sources or versions made the file, EOFError where a part is missing."""
        if content[:STAMP] != stamp:
            raise ValueError("of other code generators")
        if len(content) < STAMP + HEAD.size:
            raise EOFError("the file ends within its head")
        self._content = content
        size, pieces, self._count, *python = HEAD.unpack_from(content, STAMP)
        if size != len(content):
            raise EOFError("the file ends within a kernel")
        self._pieces = STAMP + HEAD.size
        self._keys = self._pieces + pieces * PIECE.size
        self._places = self._keys + self._count * KEY
        self._unpacked: dict[int, bytes] = {}
        #: The Python that made it: what Numba's ordinary pipeline compiles may depend on it.
        self.python = ".".join(map(str, python))

    def _key(self, i: int) -> bytes:
        at = self._keys + i * KEY
        return self._content[at : at + KEY]

    def _at(self, i: int) -> bytes:
        piece, begin, size = PLACE.unpack_from(self._content, self._places + i * PLACE.size)
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

        base, at, packed, whole, check = PIECE.unpack_from(self._content, self._pieces + piece * PIECE.size)
        stream = self._content[at : at + packed]
        try:
            if base == piece:
                body = zlib.decompress(stream)
            else:
                begin = self._body(base)
                reader = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters(len(begin) + whole))
                reader.decompress(plain(begin))
                body = reader.decompress(stream)
        except (zlib.error, lzma.LZMAError, EOFError) as error:
            raise Damaged(str(error)) from None
        if len(body) != whole or zlib.crc32(body) != check:
            raise Damaged("a piece has other bytes")
        return body

    def find(self, key: str) -> bytes | None:
        """The content under a key; None when there is none. Raises Damaged."""
        try:
            wanted = bytes.fromhex(key)
        except ValueError:
            return None
        i = bisect_left(range(self._count), wanted, key=self._key)
        return self._at(i) if i < self._count and self._key(i) == wanted else None

    def all(self) -> dict[str, bytes]:
        """All contents by their keys. Raises Damaged."""
        return {self._key(i).hex(): self._at(i) for i in range(self._count)}


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@functools.cache
def _import_readers() -> None:
    """Import what archives are read with: nothing is imported under the compiler's lock. Programs that find
    their kernels in a blob do not need it."""
    with contextlib.suppress(ImportError):
        import lzma  # noqa: F401
        import mmap  # noqa: F401
        import zlib  # noqa: F401


def _packaged(name: str) -> Any:
    """The bytes of a file of `ovjit.data`, mapped where they are a file of their own: a start reads few of
    them. Raises OSError. Importing that package takes longer than to read them."""
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
        return Archive(_packaged(file_name(isa, kind)), stamp) if stamp else None
    except (OSError, ImportError, ValueError, EOFError):  # not there, or a Python without lzma or zlib
        return None


def find(key: str, isa: Target, kind: str = "kernels") -> bytes | None:
    """What came with ovjit under that key, None when nothing did."""
    if debug.flag("OVJIT_SHIPPED") == "0" or debug.flag("OVJIT_JIT"):
        return None
    _import_readers()
    with compiling.lock:
        archive = _archive(isa, kind)
        try:
            return None if archive is None else archive.find(key)
        except (Damaged, ImportError):
            return None
