"""The elements of a tensor in a request: lists, strings and raw bytes are converted to arrays, and back.

No length from a client is trusted. A shape is checked before its product is computed. Data are counted before
they are converted. Long lists are converted in pieces, so that other threads can take the GIL.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.integrations.json_pieces import PIECE, Long
from ovjit.integrations.limits import DEFAULT, InvalidRequest, Limits, show

#: element type of OpenVINO -> (datatype of the protocol, NumPy's type of its elements). The protocol's JSON
#: has no bf16: such ports are offered as FP32 and converted.
DATATYPES: dict[str, tuple[str, Any]] = {
    "boolean": ("BOOL", np.bool_),
    "u8": ("UINT8", np.uint8), "u16": ("UINT16", np.uint16), "u32": ("UINT32", np.uint32),
    "u64": ("UINT64", np.uint64), "i8": ("INT8", np.int8), "i16": ("INT16", np.int16),
    "i32": ("INT32", np.int32), "i64": ("INT64", np.int64), "f16": ("FP16", np.float16),
    "bf16": ("FP32", np.float32), "f32": ("FP32", np.float32), "f64": ("FP64", np.float64),
    "string": ("BYTES", np.object_),
}  # fmt: skip
_NUMPY = dict(DATATYPES.values())
#: datatype -> the array type of its elements, little endian as raw bytes have them; and back.
_ELEMENTS = {name: np.dtype(kind).newbyteorder("<") for name, kind in _NUMPY.items()}
_NAMES = {np.dtype(kind): name for name, kind in _NUMPY.items()}
#: Strings in JSON that stand for numbers.
_PLAIN = {int, float, bool, type(None)}


def datatype_of(dtype: Any) -> str:
    """The protocol's name of a NumPy type; "" where it has none."""
    dtype = np.dtype(dtype)
    return "BYTES" if dtype.kind in "OSU" else _NAMES.get(dtype, "")


def array_of(
    name: str, datatype: str, shape: Sequence[int], data: Any, limits: Limits = DEFAULT
) -> np.ndarray:
    """The array of a request's tensor. `data`: nested or flat numbers, strings or bytes; or raw bytes, little
    endian. Raises InvalidRequest if shape, type and data do not fit together."""
    if datatype not in _NUMPY:
        names = ", ".join(sorted(_NUMPY))
        raise InvalidRequest(
            f"input {show(name)}: the datatype {show(datatype)} is unknown; supported datatypes are {names}"
        )
    count = _count(name, shape, limits)
    dtype = np.dtype(_NUMPY[datatype])
    try:
        if datatype == "BYTES":
            if count > limits.strings:
                raise ValueError(f"a tensor has {limits.strings} strings at most")
            array = _join_parts(list(_strings(data, count)), dtype)
        elif isinstance(data, (bytes, bytearray, memoryview)):
            array = _raw(data, datatype, dtype)
        elif isinstance(data, (list, tuple)):
            array = _join_parts(list(_numbers(data, dtype, count, limits)), dtype)
        else:
            array = _to_array(data, dtype).reshape(-1)
        if array.size == count:
            return array.reshape(tuple(shape))
    except _TooManyElements as error:
        raise InvalidRequest(
            f"input {show(name)}: shape {show(shape)} has {count} elements, the data have {error}"
        ) from None
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidRequest(
            f"input {show(name)}: the data are not valid {datatype}: {str(error)[:200]}"
        ) from None
    raise InvalidRequest(
        f"input {show(name)}: shape {show(shape)} has {count} elements, the data have {array.size}"
    )


class _TooManyElements(Exception):
    """The data have more elements than the shape. The argument is their number, or a lower bound of it."""


def _count(name: str, shape: Sequence[Any], limits: Limits) -> int:
    """The number of elements of a shape. Raises InvalidRequest for a shape that no tensor can have."""
    if len(shape) > limits.rank:
        raise InvalidRequest(
            f"input {show(name)}: shape has {len(shape)} dimensions; at most {limits.rank} are accepted"
        )
    if any(not isinstance(d, int) or isinstance(d, bool) or d < 0 for d in shape):
        raise InvalidRequest(f"input {show(name)}: shape {show(shape)} should contain non-negative integers")
    count = 0 if 0 in shape else 1
    for d in shape:
        count *= d
        if max(count, d) >= 1 << 63:
            raise InvalidRequest(
                f"input {show(name)}: shape {show(shape)} has more elements than data can hold"
            )
    return count


def _raw(data: Any, datatype: str, dtype: np.dtype) -> np.ndarray:
    array = np.frombuffer(data, _ELEMENTS[datatype]).astype(dtype, copy=False)
    if datatype == "BOOL":  # any byte but 0 is true, but kernels require 0 or 1
        return array.view(np.uint8) != 0
    # clients may send unaligned data
    return array if array.flags.aligned else array.copy()


def _join_parts(pieces: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    if len(pieces) == 1:
        return pieces[0]
    out, at = np.empty(sum(piece.size for piece in pieces), dtype), 0
    for piece in pieces:  # other threads can run between pieces; `np.concatenate` would block them
        out[at : at + piece.size] = piece
        at += piece.size
    return out


def _numbers(data: Sequence[Any], dtype: np.dtype, count: int, limits: Limits) -> Iterator[np.ndarray]:
    """The numbers of nested lists, row by row, in pieces."""
    collected: list[Any] = []
    had = 0
    for row in _rows(data, [], 0, limits.rank):
        had += len(row)
        if had > count:
            raise _TooManyElements(had if row is data else f"at least {had}")
        if len(collected) + len(row) < PIECE:
            collected += row
            continue
        if collected:
            yield _to_array(collected, dtype)
            collected = []
        for i in range(0, len(row), PIECE):
            yield _to_array(row[i : i + PIECE], dtype)
    if collected:
        yield _to_array(collected, dtype)


def _rows(part: Sequence[Any], lengths: list[int], depth: int, rank: int) -> Iterator[Sequence[Any]]:
    """Yield the innermost lists. Raises ValueError if lists of one level differ in length or depth.
    `lengths`: those of the first list of each level."""
    if depth == rank:
        raise ValueError(f"lists are nested deeper than {rank}")
    parts: Sequence[Sequence[Any]] = part if isinstance(part, Long) else (part,)
    length = sum(map(len, parts))
    nested = length > 0 and isinstance(parts[0][0], (list, tuple))
    if depth == len(lengths):
        lengths.append(length if nested else ~length)
    if lengths[depth] != (length if nested else ~length):
        raise ValueError("lists of one level have different lengths")
    if not nested:
        yield from parts
        return
    for inner in itertools.chain.from_iterable(parts):
        if not isinstance(inner, (list, tuple)):
            raise ValueError("lists and values are mixed at one level")
        yield from _rows(inner, lengths, depth + 1, rank)


def _to_array(data: Any, dtype: np.dtype) -> np.ndarray:
    """Numbers as an array. Raises an error for numbers out of the type's range, which NumPy might wrap."""
    array = np.asarray(data)
    if array.dtype == object and dtype.kind == "f" and _PLAIN.issuperset(map(type, array.reshape(-1))):
        array = array.astype(np.float64)  # null in JSON stands for NaN
    if array.dtype == np.float64 and dtype == np.uint64:  # NumPy's type for a list with 0 and 2 ** 63
        exact = np.asarray(data, object)
        if all(type(x) is int for x in exact.reshape(-1)):
            return exact.astype(dtype)
    if array.size == 0 or array.dtype == dtype:
        return array.astype(dtype, copy=False)
    if array.dtype.kind not in ("biuf" if dtype.kind == "f" else "iu" if dtype.kind in "iu" else "b"):
        raise ValueError(f"the values are of type {array.dtype}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise ValueError(f"the values are outside of {limits.min} to {limits.max}")
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _strings(data: Any, count: int) -> Iterator[np.ndarray]:
    """The strings of nested lists as bytes, in pieces."""
    collected: list[bytes] = []
    had = 0
    for one in _each_string(data, 0):
        collected.append(one)
        if had + len(collected) > count:
            raise _TooManyElements(f"at least {had + len(collected)}")
        if len(collected) == PIECE:
            had += PIECE
            yield _objects(collected)
            collected = []
    if collected:
        yield _objects(collected)


def _objects(strings: list[bytes]) -> np.ndarray:
    out = np.empty(len(strings), object)
    out[:] = strings
    return out


def _each_string(part: Any, depth: int) -> Iterator[bytes]:
    if isinstance(part, str):
        yield part.encode()
    elif isinstance(part, (bytes, bytearray)):
        yield bytes(part)
    elif not isinstance(part, (list, tuple, np.ndarray, Iterator)):
        raise ValueError(f"a string is expected, not {type(part).__name__}")
    elif depth == DEFAULT.rank:
        raise ValueError(f"lists are nested deeper than {depth}")
    else:
        for inner in part:
            yield from _each_string(inner, depth + 1)


def to_list(array: np.ndarray) -> list[Any]:
    """The elements, row by row, for JSON and Python. Strings are text, or bytes if they are not valid
    UTF-8."""
    flat = array.reshape(-1)
    out: list[Any] = []
    for i in range(0, flat.size, PIECE):
        out += flat[i : i + PIECE].tolist()
    return [_text(x) for x in out] if array.dtype.kind in "OSU" else out


def _text(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def unpack_strings(raw: memoryview) -> Iterator[bytes]:
    """The strings of raw bytes, in which a length of four bytes precedes each."""
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise ValueError("the bytes end within a string")
        yield bytes(raw[at + 4 : end])
        at = end


def raw_bytes(array: np.ndarray) -> bytes:
    """The elements in the form of the binary extension: little endian, each string preceded by its length."""
    if array.dtype.kind in "OSU":
        strings = [x.encode() if isinstance(x, str) else bytes(x) for x in array.reshape(-1).tolist()]
        return b"".join(len(x).to_bytes(4, "little") + x for x in strings)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
