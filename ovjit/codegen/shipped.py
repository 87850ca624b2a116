"""LLVM text of common kernels that comes with ovjit, so that a first start does not print it.

`ovjit/data/kernels_<isa>.xz` holds text as LLVM's passes leave it, which depends on the instruction set
and not on the CPU; code generation is left to do. `python -m ovjit.tools.ship` writes the files. They are
part of the package and trusted as such; a file that other sources or another llvmlite made is not looked at.
With no file, or OVJIT_SHIPPED=0, everything works as before.

A file is the 32 bytes of `generators()`, then an xz stream: the length of a JSON object that says where each
kernel's text is (little-endian, 4 bytes), the object, the texts. In them the kernel's symbol is `SYMBOL`.
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


def text_key(source: str, key: str, intrinsics: str, isa: Isa) -> str:
    """The name of a kernel's text: a hash of its source, key and intrinsics' file, and what the CPU has."""
    parts = (source, key, intrinsics, isa.name, *extra_features(isa))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def file_name(isa: Isa) -> str:
    return f"kernels_{isa.name}.xz"


def pack(texts: Mapping[str, str]) -> bytes:
    """The file with these texts by their keys; equal texts are there once."""
    import json
    import lzma

    places: dict[str, tuple[int, int]] = {}
    index: dict[str, tuple[int, int]] = {}
    size = 0
    for key in sorted(texts):
        text = texts[key]
        if text not in places:
            length = len(text.encode())
            places[text] = size, length
            size += length
        index[key] = places[text]
    head = json.dumps({"python": _python(), "texts": index}, sort_keys=True).encode()
    body = "".join(places).encode()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return generators() + lzma.compress(_LENGTH.pack(len(head)) + head + body, filters=filters)


def unpack(content: bytes) -> dict[str, bytes] | None:
    """The texts by their keys; None when other sources or versions made them."""
    import json
    import lzma

    if content[:32] != generators():
        return None
    body = memoryview(lzma.decompress(content[32:]))
    (length,) = _LENGTH.unpack_from(body)
    start = _LENGTH.size + length
    head = json.loads(bytes(body[_LENGTH.size : start]))
    return {key: bytes(body[start + at : start + at + size]) for key, (at, size) in head["texts"].items()}


def written_by(content: bytes) -> str:
    """The Python whose bytecode Numba read: others may number blocks differently, to the same effect."""
    import json
    import lzma

    body = lzma.decompress(content[32:])
    (length,) = _LENGTH.unpack_from(body)
    return json.loads(body[_LENGTH.size : _LENGTH.size + length])["python"]


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@functools.cache
def _texts(isa: Isa) -> dict[str, bytes]:
    try:
        content = pkgutil.get_data("ovjit.data", file_name(isa))
        return (unpack(content) if content else None) or {}
    except (OSError, ImportError):  # not there, or a Python without lzma
        return {}


def find_text(key: str, isa: Isa, symbol: str) -> str | None:
    """The optimised LLVM text of a kernel under its symbol, None when none came with ovjit."""
    if debug.flag("OVJIT_SHIPPED") == "0" or debug.flag("OVJIT_JIT"):
        return None
    text = _texts(isa).get(key)
    return None if text is None else text.decode().replace(SYMBOL, symbol)
