"""Common kernels that come with ovjit, so that a first start does not compile them.

`ovjit/data/kernels_<isa>.xz` holds their object code: for each instruction set it is made for one CPU by its
name, and is the same on all of them. What multiplies in further formats or rounds to bf16 is there for each
set of features that such CPUs have. `python -m ovjit.tools.ship` writes the files. They are part of the
package and trusted as such; a file that other sources or another llvmlite made is not looked at. With no
file, or OVJIT_SHIPPED=0, everything works as before.

A file is the 32 bytes of `generators()`, then an xz stream: the length of a JSON object that says where each
kernel's content is (little-endian, 4 bytes), the object, the contents, common ones first. In them the
kernel's symbol is `SYMBOL`.
"""

from __future__ import annotations

import functools
import struct
import sys
from collections.abc import Mapping

from ovjit import debug
from ovjit.codegen import compiling
from ovjit.codegen.cpu import machine
from ovjit.codegen.cpu.isa import Isa, extra_features
from ovjit.codegen.versions import code_digest, installed
from ovjit.hashes import sha256

#: As long as the symbols of kernels: LLVM lays an object out by its names, and renamed to another of its
#: length it is the same bytes whoever made it.
SYMBOL = "ovjit_" + "shipped_kernel_".ljust(40, "0")
_LENGTH = struct.Struct("<I")
_PIECE = 1 << 17  # unpacked at least at a time


@functools.cache
def generators() -> bytes:
    """32 bytes that name what makes the contents: ovjit's code generators, LLVM, and the system."""
    parts = (
        code_digest(),
        installed("llvmlite"),
        sys.platform,
        machine.name(),
    )
    return sha256("\0".join(parts).encode()).digest()


def is_plain(source: str, key: str, form: str) -> bool:
    """True for a kernel whose code is the same on every CPU of an instruction set, whatever a CPU has
    besides: others multiply in further formats, or round to bf16."""
    return form == "f32" and not any(word in source for word in ("bf16", "dot_bytes")) and "bf16" not in key


def content_key(source: str, key: str, form: str, intrinsics: str, isa: Isa) -> str:
    """The name of a kernel's content: a hash of its source, key and intrinsics' file, and of what the CPU
    has, where the code depends on it."""
    extra = () if is_plain(source, key, form) else extra_features(isa)
    parts = (source, key, intrinsics, isa.name, *extra)
    return sha256("\0".join(parts).encode()).hexdigest()[:40]


def file_name(isa: Isa) -> str:
    return f"kernels_{isa.name}.xz"


def pack(contents: Mapping[str, bytes]) -> bytes:
    """The file with these contents by their keys, in this order; equal ones are there once."""
    import json
    import lzma

    places: dict[bytes, tuple[int, int]] = {}
    index: dict[str, tuple[int, int]] = {}
    size = 0
    for key, content in contents.items():
        if content not in places:
            places[content] = size, len(content)
            size += len(content)
        index[key] = places[content]
    head = json.dumps({"python": _python(), "kernels": index}).encode()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    body = _LENGTH.pack(len(head)) + head + b"".join(places)
    return generators() + lzma.compress(body, filters=filters)


class Archive:
    """What a file has. Unpacked as far as somebody asks, as most of a start's kernels stand at its beginning:
    to be asked by one thread at a time."""

    def __init__(self, content: bytes):
        """ValueError when other sources or versions made the file."""
        import json
        import lzma

        if content[:32] != generators():
            raise ValueError("of other code generators")
        self._decoder = lzma.LZMADecompressor()
        self._rest = content[32:]
        self._have = bytearray()
        self._unpack(_LENGTH.size)
        (length,) = _LENGTH.unpack_from(self._have)
        self._start = _LENGTH.size + length
        self._unpack(self._start)
        head = json.loads(self._have[_LENGTH.size : self._start])
        self._places: dict[str, tuple[int, int]] = head["kernels"]
        #: The Python that made it: what Numba's ordinary pipeline compiles may depend on it.
        self.python: str = head["python"]

    def _unpack(self, size: int) -> None:
        while len(self._have) < size:
            more = self._decoder.decompress(self._rest, max(size - len(self._have), _PIECE))
            self._rest = b""
            if not more and self._decoder.needs_input:
                raise EOFError("the file ends within a kernel")
            self._have += more

    def find(self, key: str) -> bytes | None:
        """The content under a key; None when there is none."""
        if key not in self._places:
            return None
        at, size = self._places[key]
        begin = self._start + at
        self._unpack(begin + size)
        return bytes(self._have[begin : begin + size])

    def all(self) -> dict[str, bytes]:
        """All contents by their keys."""
        return {key: self.find(key) or b"" for key in self._places}


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@functools.cache
def _archive(isa: Isa) -> Archive | None:
    try:
        import pkgutil  # not for those who find their kernels

        content = pkgutil.get_data("ovjit.data", file_name(isa))
        return Archive(content) if content else None
    except (OSError, ImportError, ValueError):  # not there, or a Python without lzma
        return None


def find(key: str, isa: Isa) -> bytes | None:
    """What came with ovjit under that key, None when nothing did."""
    if debug.flag("OVJIT_SHIPPED") == "0" or debug.flag("OVJIT_JIT"):
        return None
    archive = _archive(isa)
    if archive is None:
        return None
    with compiling.lock:
        return archive.find(key)
