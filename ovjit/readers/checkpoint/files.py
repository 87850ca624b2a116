"""Tensors of safetensors files, in place.

A file has the length of its header (8 bytes, little-endian), a header in JSON (for each tensor: dtype, shape,
begin and end of its bytes after the header), and the bytes. Everything is checked against the file's size.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import ModelError, UnsupportedError
from ovjit.file_maps import map_file
from ovjit.readers.files.weights import open_regular
from ovjit.readers.gguf.header import Stored

#: Types of tensors that are read: the reader's name and bytes of an element.
KINDS = {"F32": ("F32", 4), "F16": ("F16", 2), "BF16": ("BF16", 2)}
#: The most bytes of a header, and dimensions of a tensor.
HEADER, RANK = 1 << 28, 8
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


def read_tensors(folder: Path) -> dict[str, Stored]:
    """The tensors of a folder by name: `model.safetensors`, or the files that its index names.

    ModelError for a file that is missing or damaged, UnsupportedError for a tensor that is not of reals."""
    tensors: dict[str, Stored] = {}
    for name in _names(folder):
        tensors |= read_tensor_file(folder / name)
    if not tensors:
        raise ModelError(f"{folder} contains neither {WHOLE} nor {INDEX}")
    return tensors


def _names(folder: Path) -> list[str]:
    index = folder / INDEX
    if not index.is_file():
        return [WHOLE] if (folder / WHOLE).is_file() else []
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise ModelError(f"{index}: 'weight_map' should map names of tensors to names of files")
    names = sorted(set(table.values()))
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise ModelError(f"{index}: {name!r} is not the name of a file in this folder")
    return names


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file. ModelError for a file that has none."""
    try:
        with open_regular(str(path), "file") as file:
            value = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} should hold a JSON object")
    return value


def read_tensor_file(path: Path) -> dict[str, Stored]:
    """The tensors of one file by name, with the errors of `read_tensors`."""
    with open_regular(str(path), "file") as file:
        data = np.frombuffer(map_file(file.fileno()) if file.seek(0, 2) else b"", np.uint8)
    return parse_tensors(data, path)


def parse_tensors(data: np.ndarray, path: Path | str) -> dict[str, Stored]:
    """The tensors of a file's bytes. `path`: its name in errors."""
    size = int.from_bytes(data[:8].tobytes(), "little") if data.size >= 8 else -1
    if not 2 <= size <= min(HEADER, data.size - 8):
        raise ModelError(f"{path} is truncated or not a safetensors file: its header has {size} bytes")
    try:
        header = json.loads(data[8 : 8 + size].tobytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: the header is not valid JSON: {error}") from None
    if not isinstance(header, dict):
        raise ModelError(f"{path}: the header should be a JSON object")
    body = data[8 + size :]
    header.pop("__metadata__", None)
    return {name: _tensor(path, name, entry, body) for name, entry in header.items()}


def _tensor(path: Path | str, name: str, entry: Any, body: np.ndarray) -> Stored:
    what = f"{path}: the tensor {name!r}"
    try:
        kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
    except (TypeError, KeyError, ValueError):
        raise ModelError(f"{what} should have a dtype, a shape and two offsets") from None
    if not all(type(n) is int and 0 <= n <= body.size for n in numbers) or len(shape) > RANK:
        raise ModelError(f"{what} has the shape {shape}, but bytes {begin} to {end} of {body.size}")
    if kind not in KINDS:
        raise UnsupportedError(f"{what} has the unsupported type {kind}; supported types: {', '.join(KINDS)}")
    label, bytes_ = KINDS[kind]
    if end - begin != math.prod(shape) * bytes_:
        raise ModelError(f"{what} of the shape {shape} has {end - begin} bytes")
    return Stored(label, tuple(shape), body[begin:end])
