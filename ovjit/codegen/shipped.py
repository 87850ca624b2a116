"""LLVM text of common kernels that comes with ovjit, so that a first start does not print it.

`ovjit/data/kernels_<isa>.xz` holds text as LLVM's passes leave it, which depends on the instruction set
and not on the CPU; code generation is left to do. `python -m ovjit.tools.ship` writes the files. They are
part of the package and trusted as such; a file that other sources or another llvmlite made is not looked at.
With no file, or OVJIT_SHIPPED=0, everything works as before.

A file is the 32 bytes of `generators()`, then an xz stream: the length of a JSON object that says where each
kernel's text is (little-endian, 4 bytes), the object, the texts, common ones first. In them the kernel's
symbol is `SYMBOL`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pkgutil
import struct
import sys
from collections.abc import Mapping

from ovjit import debug
from ovjit.codegen.cpu.isa import Isa, extra_features
from ovjit.codegen.versions import code_digest, installed

SYMBOL = "ovjit_shipped"
_LENGTH = struct.Struct("<I")
_PIECE = 1 << 18  # unpacked at least at a time


@functools.cache
def generators() -> bytes:
    """32 bytes that name what makes the text: ovjit's code generators, LLVM, and the system."""
    parts = (
        code_digest(),
        installed("llvmlite"),
        sys.platform,
        os.uname().machine if hasattr(os, "uname") else "",
    )
    return hashlib.sha256("\0".join(parts).encode()).digest()


def text_key(source: str, key: str, form: str, intrinsics: str, isa: Isa) -> str:
    """The name of a kernel's text: a hash of its source, key and intrinsics' file.

    And of what the CPU has, where the text depends on it: to multiply in other formats, to round to bf16."""
    plain = form == "f32" and not any(word in source for word in ("bf16", "dot_bytes")) and "bf16" not in key
    parts = (source, key, intrinsics, isa.name, *(() if plain else extra_features(isa)))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def file_name(isa: Isa) -> str:
    return f"kernels_{isa.name}.xz"


def pack(texts: Mapping[str, str]) -> bytes:
    """The file with these texts by their keys, in this order; equal texts are there once."""
    import json
    import lzma

    places: dict[str, tuple[int, int]] = {}
    index: dict[str, tuple[int, int]] = {}
    size = 0
    for key, text in texts.items():
        if text not in places:
            length = len(text.encode())
            places[text] = size, length
            size += length
        index[key] = places[text]
    head = json.dumps({"python": _python(), "texts": index}).encode()
    body = "".join(places).encode()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return generators() + lzma.compress(_LENGTH.pack(len(head)) + head + body, filters=filters)


class Texts:
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
        self._places: dict[str, tuple[int, int]] = head["texts"]
        #: The Python whose bytecode Numba read: others may number blocks differently, to the same effect.
        self.python: str = head["python"]

    def _unpack(self, size: int) -> None:
        while len(self._have) < size:
            more = self._decoder.decompress(self._rest, max(size - len(self._have), _PIECE))
            self._rest = b""
            if not more and self._decoder.needs_input:
                raise EOFError("the file ends within its texts")
            self._have += more

    def find(self, key: str) -> bytes | None:
        """The text under a key; None when there is none."""
        if key not in self._places:
            return None
        at, size = self._places[key]
        begin = self._start + at
        self._unpack(begin + size)
        return bytes(self._have[begin : begin + size])

    def all(self) -> dict[str, bytes]:
        """All texts by their keys."""
        return {key: self.find(key) or b"" for key in self._places}


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@functools.cache
def _texts(isa: Isa) -> Texts | None:
    try:
        content = pkgutil.get_data("ovjit.data", file_name(isa))
        return Texts(content) if content else None
    except (OSError, ImportError, ValueError):  # not there, or a Python without lzma
        return None


def find_text(key: str, isa: Isa, symbol: str) -> str | None:
    """The optimised LLVM text of a kernel under its symbol, None when none came with ovjit."""
    if debug.flag("OVJIT_SHIPPED") == "0" or debug.flag("OVJIT_JIT"):
        return None
    texts = _texts(isa)
    text = texts.find(key) if texts else None
    return None if text is None else text.decode().replace(SYMBOL, symbol)
