"""A GGUF file's metadata and tensors, parsed by the package `gguf`.

That package trusts the counts and lengths in a file. They are checked against the file's size first: what is
damaged or hostile is refused here, and the package only sees headers that are whole.
"""

from __future__ import annotations

import math
import os
import re
import struct
from typing import Any

import numpy as np

from ovjit.errors import ModelError, UnsupportedError, unreadable
from ovjit.readers.files import name_errors
from ovjit.readers.files.weights import open_regular
from ovjit.records import NamedTuple

MAGIC = b"GGUF"
#: The most tensors, entries of metadata, dimensions of a tensor, and bytes of a name.
MOST, RANK, NAME = 1 << 17, 4, 1 << 16
#: Characters of a name that messages show.
SHOWN = 100
#: Sizes of the values of metadata, by their types; 8 are texts, 9 arrays.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _ARRAY, _U32 = 8, 9, 4
#: Names of a model's parts end so, counted from 1.
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


class Stored(NamedTuple):
    """A tensor: its type's name, its shape (rows first), and its bytes as the package gives them."""

    kind: str
    shape: tuple[int, ...]
    data: np.ndarray


class GgufFile(NamedTuple):
    """Metadata by name, plain values and lists; tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, Stored]


class _Walk:
    """Parses a header once, and checks bounds."""

    def __init__(self, data: np.ndarray):
        self.data, self.at, self.alignment = data.data, 0, 32

    def take(self, size: int, what: str) -> memoryview:
        if size > len(self.data) - self.at:
            raise ModelError(
                f"the file is truncated or damaged: {what} at byte {self.at} needs {size} bytes, but "
                f"the file has {len(self.data)}"
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str, what: str) -> int:
        return int(struct.unpack("<" + code, self.take(struct.calcsize(code), what))[0])

    def text(self, what: str, most: int | None = None) -> bytes:
        size = self.number("Q", f"the length of {what}")
        if most is not None and size > most:
            raise ModelError(f"{what} has {size} bytes; the maximum is {most}")
        return bytes(self.take(size, what))

    def value(self, kind: int, what: str, inside: bool = False) -> None:
        if kind == _TEXT:
            self.take(self.number("Q", f"the length of {what}"), what)
        elif kind in _SIZES:
            self.take(_SIZES[kind], what)
        elif kind != _ARRAY or inside:
            raise ModelError(f"{what} has values of an unknown type ({kind})")
        else:
            kind, count = self.number("I", what), self.number("Q", f"the length of {what}")
            if kind in _SIZES:
                self.take(_SIZES[kind] * count, what)
                return
            if count > len(self.data) // 8:
                raise ModelError(f"{what} has {count} values, more than the file can hold")
            for _ in range(count):
                self.value(kind, what, inside=True)

    def entry(self) -> None:
        key = self.text("a key of metadata", NAME)
        what = f"metadata {_abbreviate(key)}"
        kind, start = self.number("I", what), self.at
        self.value(kind, what)
        if key == b"general.alignment" and kind == _U32:
            self.alignment = int(struct.unpack("<I", self.data[start : start + 4])[0])

    def tensor(self, sizes: dict[int, tuple[str, int, int]]) -> tuple[str, int, int]:
        """The tensor's name, and the offset and number of its bytes."""
        name = _abbreviate(self.text("a tensor's name", NAME))
        what = f"the tensor {name}"
        rank = self.number("I", what)
        if rank > RANK:
            raise ModelError(f"{what} has {rank} dimensions; the maximum is {RANK}")
        dims = [self.number("Q", what) for _ in range(rank)]
        kind, offset = self.number("I", what), self.number("Q", what)
        if kind not in sizes:
            names = ", ".join(f"{number} {size[0]}" for number, size in sizes.items())
            raise UnsupportedError(f"{what} has the unknown type {kind}; types of the package gguf: {names}")
        label, block, size = sizes[kind]
        if not dims or min(dims) < 1:
            raise ModelError(f"{what} has the shape {dims[::-1]}, which is not valid")
        if dims[0] % block:
            raise ModelError(
                f"{what} has rows of {dims[0]} elements, which is not a multiple of the "
                f"block size {block} of {label}"
            )
        return name, offset, math.prod(dims) // block * size


def _abbreviate(name: bytes) -> str:
    """A name as messages have it: damaged files may have long ones."""
    return f"{name.decode(errors='replace')!r:.{SHOWN}}"


def check_header(data: np.ndarray) -> None:
    """Raises ModelError unless everything that the header names lies within the bytes `data`."""
    import gguf

    sizes = {int(kind): (kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    walk = _Walk(data)
    if bytes(walk.take(4, "the magic number")) != MAGIC:
        raise ModelError("the file does not begin with GGUF")
    version = walk.number("I", "the version")
    if version and not version & 0xFFFF:
        raise UnsupportedError("big-endian GGUF files are not supported")
    if version not in (2, 3):
        raise UnsupportedError(f"GGUF version {version} is not supported; supported versions are 2 and 3")
    tensors, entries = walk.number("Q", "the counts"), walk.number("Q", "the counts")
    for count, what in ((tensors, "tensors"), (entries, "entries of metadata")):
        if count > MOST:
            raise ModelError(f"the header states {count} {what}; the maximum is {MOST}")
    for _ in range(entries):
        walk.entry()
    spans = [walk.tensor(sizes) for _ in range(tensors)]
    if walk.alignment < 1 or walk.alignment & (walk.alignment - 1):
        raise ModelError(f"general.alignment is {walk.alignment}; it should be a power of two")
    start = -(-walk.at // walk.alignment) * walk.alignment
    for name, offset, size in spans:
        if start + offset + size > data.size:
            raise ModelError(
                f"the file is truncated or damaged: the tensor {name} needs {size} bytes at offset "
                f"{start + offset}, but the file has {data.size}"
            )


def _field_value(field: Any) -> Any:
    """The value of a field; a text that is no UTF-8 keeps its bytes as surrogates."""
    from gguf import GGUFValueType

    def text(part: Any) -> str:
        return part.tobytes().decode("utf-8", "surrogateescape")

    if field.types[-1:] == [GGUFValueType.STRING]:
        parts = [text(field.parts[i]) for i in field.data]
        return parts if field.types[0] == GGUFValueType.ARRAY else parts[0]
    return field.contents()


def is_later_part(path: str | os.PathLike[str]) -> bool:
    """Whether this is the file name of a part of a model other than the first."""
    match = _PART.search(os.fspath(path))
    return match is not None and int(match[1]) > 1


def open_gguf(path: str) -> GgufFile:
    """The contents of a file, and of the other parts if it is the first of several; tensors stay mapped.
    ModelError for a damaged file, and for parts that are not there or of another model."""
    first = _open(path)
    count = _count(first, "split.count", path)
    if count < 2:
        return first
    name = _PART.search(path)
    if name is None or int(name[2]) != count or _count(first, "split.no", path) != 0 or int(name[1]) != 1:
        end = f"-00001-of-{count:05}.gguf"
        raise ModelError(f"the file is one of {count} parts of a model: give the first part, named *{end}")
    tensors = dict(first.tensors)
    for number in range(1, count):
        where = f"{path[: name.start()]}-{number + 1:05}-of-{count:05}.gguf"
        if not os.path.isfile(where):
            raise ModelError(f"the part {where!r} of the model is missing")
        with name_errors(where):
            part = _open(where)
        if (_count(part, "split.no", where), _count(part, "split.count", where)) != (number, count):
            raise ModelError(f"{where!r} is not part {number + 1} of {count}, contrary to its name")
        twice = tensors.keys() & part.tensors
        if twice:
            raise ModelError(f"the tensor {min(twice)!r} is in {where!r} and in an earlier part")
        tensors |= part.tensors
    stated = first.metadata.get("split.tensors.count", len(tensors))
    if stated != len(tensors):
        raise ModelError(f"the parts have {len(tensors)} tensors, but the first part states {stated!r:.80}")
    return GgufFile(first.metadata, tensors)


def _count(file: GgufFile, name: str, path: str) -> int:
    count = file.metadata.get(name, 0)
    if not isinstance(count, int):
        raise ModelError(f"the metadata {name!r} of {path!r} is {count!r:.80}, which is not a number")
    return count


def _open(path: str) -> GgufFile:
    """The contents of one file."""
    try:
        import gguf
    except ImportError as error:
        raise UnsupportedError("GGUF files need the package gguf: pip install 'ovjit[gguf]'") from error
    with open_regular(path, "file") as file:
        if os.fstat(file.fileno()).st_size < len(MAGIC):
            raise ModelError(unreadable(path, "the file is not a GGUF file"))
        check_header(np.memmap(file, mode="r"))
    reader = gguf.GGUFReader(path)
    metadata = {name: _field_value(field) for name, field in reader.fields.items()}
    tensors = {
        tensor.name: Stored(tensor.tensor_type.name, tuple(int(d) for d in tensor.shape[::-1]), tensor.data)
        for tensor in reader.tensors
    }
    return GgufFile(metadata, tensors)
