"""The memory that the constants of a model file lie in, and checked views of it."""

from __future__ import annotations

import math
import mmap
import os
import stat
import time
from typing import Any, BinaryIO

import numpy as np

from ovjit.build import stored_size
from ovjit.build.tensors import decode_text, from_storage
from ovjit.errors import ModelError
from ovjit.file_maps import map_file
from ovjit.graph.converted import SMALLEST, Unmade, Unpacked
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.storage.origins import Origin, file_state, remember_origin

#: Smaller files are read, not mapped: a mapped file that another process truncates kills this one (SIGBUS).
MAP_FROM = 1 << 20
#: NumPy's limit on dimensions.
MAX_RANK = 64
#: Bytes from which on constants stay where they lie, at any address: a boolean in a file moves all after it.
_LARGE = 1 << 16


def load_weights(source: Any, use_mmap: bool = True) -> np.ndarray:
    """The bytes of a path, a bytes-like object or a Tensor, as a read-only u8 array; None gives no bytes.

    Files from 1 MiB on are mapped unless `use_mmap` is False. Who truncates a mapped file while the model
    lives ends the process: replace such files, do not overwrite them. Raises RuntimeError for a file that
    cannot be read, TypeError for another kind of object.
    """
    if source is None:
        return np.zeros(0, np.uint8)
    if isinstance(source, (str, os.PathLike)):
        with open_regular(source, "weights") as file:
            return mapped_or_read(file, source, use_mmap)
    if hasattr(source, "element_type") and hasattr(source, "data") and not isinstance(source, np.ndarray):
        source = np.ascontiguousarray(source.data)
    if isinstance(source, np.ndarray):
        data = np.ascontiguousarray(source).reshape(-1).view(np.uint8)
    elif hasattr(source, "getbuffer"):
        data = np.frombuffer(source.getvalue(), np.uint8)
    else:
        try:
            data = np.frombuffer(source, np.uint8)
        except (TypeError, ValueError) as error:
            raise TypeError(f"weights are a path, bytes or a Tensor, not {type(source).__name__}") from error
    data = data.view()
    data.flags.writeable = False
    return data


def await_file(path: str) -> bool:
    """True if `path` exists. An xml is away for a moment while it and its weights are replaced: it is waited
    for as long as that takes at most."""
    weights = os.path.splitext(path)[0] + ".bin"
    for _ in range(50):
        if os.path.exists(path):
            return True
        if not path.lower().endswith(".xml") or not os.path.isfile(weights):
            return False
        time.sleep(0.005)
    return False


def open_regular(path: Any, what: str) -> BinaryIO:
    """The file, open for reading. Raises ModelError if it cannot be, or is a folder, FIFO or device."""
    shown = os.fsdecode(path)[:400]
    try:
        # a FIFO or device must not block
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"Could not open the {what}: {shown!r} ({getattr(error, 'strerror', None) or error})"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelError(f"Could not open the {what}: {shown!r} (it is not a regular file)")
    return os.fdopen(descriptor, "rb")


def read_regular(path: Any, what: str) -> tuple[bytes, Origin]:
    """The contents of a file, and its state when they were read. Raises ModelError as `open_regular`."""
    with open_regular(path, what) as file:
        return file.read(), Origin(os.fsdecode(path), file_state(os.fstat(file.fileno())))


def contents_of(file: BinaryIO, use_mmap: bool) -> bytes | mmap.mmap:
    """Returns the contents of a file, memory-mapped if `use_mmap` and it has at least MAP_FROM bytes."""
    if not use_mmap or os.fstat(file.fileno()).st_size < MAP_FROM:
        return file.read()
    return map_file(file.fileno())


def mapped_or_read(file: BinaryIO, path: Any, use_mmap: bool) -> np.ndarray:
    """The bytes of a file of weights. It is remembered where mapped ones lie, which need not be stored."""
    contents = contents_of(file, use_mmap)
    weights = np.frombuffer(contents, np.uint8)
    if not isinstance(contents, bytes):
        remember_origin(weights, path, os.fstat(file.fileno()))
    return weights


def constant_values(
    weights: np.ndarray, offset: int, size: int, element_type: str, shape: tuple[int, ...]
) -> np.ndarray | Unmade:
    """The values of a constant of `size` bytes at `offset`: a view where alignment and type allow; many
    numbers of 4 bits stay in their bytes.

    Raises ModelError unless the bytes are there and are as many as the type and shape need.
    """
    if offset + size > weights.size:
        what = "Incorrect weights in bin file!"
        if not weights.size:
            what = "Empty weights data in bin file or bin file cannot be found!"
        raise ModelError(
            f"{what} The data, {size} bytes at offset {offset}, are outside of the weights' "
            f"{weights.size} bytes: give the .bin file that was saved with this .xml"
        )
    if len(shape) > MAX_RANK:
        raise ModelError(f"the shape has {len(shape)} dimensions; the maximum is {MAX_RANK}")
    count = math.prod(shape)
    data = weights[offset : offset + size]
    if element_type == "string":
        return _strings(data, count).reshape(shape)
    if element_type == "dynamic":
        raise ModelError("the element type is dynamic")
    needed = stored_size(element_type, count)
    if size != needed and count:
        raise ModelError(f"the data have {size} bytes, but {element_type}{list(shape)} needs {needed}")
    row = ELEMENT_TYPES[element_type]
    if not count and row.numpy is not None:
        return np.zeros(shape, row.numpy)
    data = data[:needed]
    if row.kind == "b":
        return (data != 0).reshape(shape)
    itemsize = max(row.bits // 8, 1)
    if size < _LARGE and data.__array_interface__["data"][0] % itemsize:
        data = data.copy()
    if row.is_packed and count >= SMALLEST:
        return Unpacked(data, shape, element_type)
    out = from_storage(data, element_type, shape)
    out.flags.writeable = False
    return out


def packed_strings(data: np.ndarray, count: int, from_start: bool = False) -> list[bytes]:
    """The strings of i32 count, i32 begin of each one and end of the last, and their bytes.

    Begins are those among the bytes of the strings, or with `from_start` among all.
    """
    head = 4 * (count + 2)
    if data.size < head:
        raise ModelError(f"{count} strings do not fit {data.size} bytes")
    numbers = np.frombuffer(data[:head].tobytes(), "<i4").tolist()
    ends, raw = [n + head * (not from_start) for n in numbers[1:]], data.tobytes()
    fit = numbers[0] == count and all(head <= end <= len(raw) for end in ends) and sorted(ends) == ends
    if not fit or (ends[0] != head and not from_start):
        raise ModelError("the strings are damaged: their count or offsets do not fit")
    return [raw[begin:end] for begin, end in zip(ends, ends[1:], strict=False)]


def _strings(data: np.ndarray, count: int) -> np.ndarray:
    """A packed string tensor: UTF-8, or any bytes, as OpenVINO keeps them."""
    out = np.empty(count, object)
    out[:] = [decode_text(text) for text in packed_strings(data, count)]
    return out
