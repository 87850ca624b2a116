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
- the counts of chunks and of keys, and the version of Python, two bytes for its two numbers: `_HEAD`;
- for each chunk its sizes, compressed and not: `_CHUNK`;
- the keys in order, 20 bytes each, then for each key its chunk, its place in it and its size: `_PLACE`;
- the chunks, each an LZMA2 stream of its own: what one model needs stands in few of them.

The symbol of a kernel is `SYMBOL` in its object code.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
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
_HEAD, _CHUNK, _PLACE = struct.Struct("<HIBB"), struct.Struct("<II"), struct.Struct("<HII")
_STAMP = 32
_KEY = 20
#: Bytes of a chunk, uncompressed: some 2 ms to unpack. Smaller ones compress worse.
CHUNK = 1 << 18
_DICTIONARY = 1 << 20


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


def _filters() -> list[dict[str, Any]]:
    import lzma

    return [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": _DICTIONARY}]


def _chunks(
    groups: Sequence[Mapping[str, bytes]],
) -> tuple[list[list[bytes]], dict[str, tuple[int, int, int]]]:
    """The contents of each chunk, and key -> (chunk, place, size). Each group begins a chunk."""
    chunks: list[list[bytes]] = []
    places: dict[bytes, tuple[int, int, int]] = {}
    index: dict[str, tuple[int, int, int]] = {}
    for group in groups:
        size = CHUNK
        for key, content in group.items():
            if content not in places:
                if size >= CHUNK:
                    chunks.append([])
                    size = 0
                places[content] = len(chunks) - 1, size, len(content)
                chunks[-1].append(content)
                size += len(content)
            index.setdefault(key, places[content])
    return chunks, index


def pack(groups: Sequence[Mapping[str, bytes]], stamp: bytes) -> bytes:
    """The file with these contents by their keys, 40 hexadecimal digits each; equal ones are there once. What
    is likely to be needed together is a group. `stamp`: what made them, `generators()` or `printers()`."""
    import lzma

    chunks, index = _chunks(groups)
    bodies = [b"".join(chunk) for chunk in chunks]
    packed = [lzma.compress(body, format=lzma.FORMAT_RAW, filters=_filters()) for body in bodies]
    keys = sorted(index)
    return b"".join((
        stamp,
        _HEAD.pack(len(chunks), len(keys), *sys.version_info[:2]),
        *(_CHUNK.pack(len(some), len(body)) for some, body in zip(packed, bodies, strict=True)),
        *map(bytes.fromhex, keys),
        *(_PLACE.pack(*index[key]) for key in keys),
        *packed,
    ))  # fmt: skip


class Archive:
    """The contents of a file. A chunk is unpacked on the first request for one of its contents, and kept.
    Only one thread at a time may ask."""

    def __init__(self, content: bytes | mmap.mmap, stamp: bytes):
        """ValueError when other sources or versions made the file."""
        if content[:_STAMP] != stamp:
            raise ValueError("of other code generators")
        self._content = content
        chunks, self._count, *python = _HEAD.unpack_from(content, _STAMP)
        self._keys = _STAMP + _HEAD.size + chunks * _CHUNK.size
        self._places = self._keys + self._count * _KEY
        at = self._places + self._count * _PLACE.size
        #: (where it begins, compressed size, size) of each chunk.
        self._chunks: list[tuple[int, int, int]] = []
        for sizes in _CHUNK.iter_unpack(content[_STAMP + _HEAD.size : self._keys]):
            self._chunks.append((at, *sizes))
            at += sizes[0]
        if at != len(content):
            raise EOFError("the file ends within a kernel")
        self._unpacked: dict[int, bytes] = {}
        #: The Python that made it: what Numba's ordinary pipeline compiles may depend on it.
        self.python = ".".join(map(str, python))

    def _key(self, i: int) -> bytes:
        at = self._keys + i * _KEY
        return self._content[at : at + _KEY]

    def _at(self, i: int) -> bytes:
        chunk, begin, size = _PLACE.unpack_from(self._content, self._places + i * _PLACE.size)
        if chunk not in self._unpacked:
            import lzma

            at, packed, whole = self._chunks[chunk]
            body = lzma.decompress(self._content[at : at + packed], lzma.FORMAT_RAW, filters=_filters())
            if len(body) != whole:
                raise EOFError("the file ends within a kernel")
            self._unpacked[chunk] = body
        return self._unpacked[chunk][begin : begin + size]

    def find(self, key: str) -> bytes | None:
        """The content under a key; None when there is none."""
        try:
            wanted = bytes.fromhex(key)
        except ValueError:
            return None
        i = bisect_left(range(self._count), wanted, key=self._key)
        return self._at(i) if i < self._count and self._key(i) == wanted else None

    def groups(self) -> list[dict[str, bytes]]:
        """The contents by their keys, chunk by chunk, each in the order of its contents."""
        found: list[list[tuple[int, str, bytes]]] = [[] for _ in self._chunks]
        for i in range(self._count):
            chunk, begin, _ = _PLACE.unpack_from(self._content, self._places + i * _PLACE.size)
            found[chunk].append((begin, self._key(i).hex(), self._at(i)))
        return [{key: content for _, key, content in sorted(chunk)} for chunk in found]

    def all(self) -> dict[str, bytes]:
        """All contents by their keys."""
        return {key: content for group in self.groups() for key, content in group.items()}


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@functools.cache
def _import_readers() -> None:
    """Import what archives are read with: nothing is imported under the compiler's lock. Programs that find
    their kernels in a blob do not need it."""
    with contextlib.suppress(ImportError):
        import lzma  # noqa: F401
        import mmap  # noqa: F401


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
    except (OSError, ImportError, ValueError, EOFError):  # not there, or a Python without lzma
        return None


def find(key: str, isa: Target, kind: str = "kernels") -> bytes | None:
    """What came with ovjit under that key, None when nothing did."""
    if debug.flag("OVJIT_SHIPPED") == "0" or debug.flag("OVJIT_JIT"):
        return None
    _import_readers()
    with compiling.lock:
        archive = _archive(isa, kind)
        return None if archive is None else archive.find(key)
