"""The memory under tensors: addresses of arrays, aligned arrays, strings, and what may be shared."""

from __future__ import annotations

import contextlib
import ctypes
import math
import weakref
from typing import Any, Final

import numpy as np

from ovjit.api.tensors.types import Type, type_of_dtype
from ovjit.errors import ModelError
from ovjit.execution.addresses import address_of, field_address, slow_address

#: Memory that ovjit makes starts at a multiple of this many bytes.
ALIGNMENT: Final = 64

STRING: Final = Type.string
_NOT_SHARED = "SHARED MEMORY MODE FOR THIS TENSOR IS NOT APPLICABLE!"


class NOWHERE:
    """An address where no array is."""

    value = -1


class _SlowPlace:
    """The address of an array, looked up by NumPy's means each time."""

    def __init__(self, array: np.ndarray):
        self._array = weakref.ref(array)

    @property
    def value(self) -> int:
        array = self._array()
        return -1 if array is None else slow_address(array)


def _field_place(
    array: np.ndarray, _at: Any = ctypes.c_size_t.from_address, _offset: int = object.__basicsize__,
) -> Any:  # fmt: skip
    return _at(id(array) + _offset)


#: place_of(array).value -> as address_of, a few ns each time, while the array lives: `resize` moves it
place_of: Any = _field_place if address_of is field_address else _SlowPlace


def shape_error(what: str, type_: Type, shape: tuple[int, ...]) -> RuntimeError:
    return RuntimeError(f"{what} for type: {type_._name} and shape: [{','.join(map(str, shape))}]")


def new_array(type_: Type, shape: tuple[int, ...]) -> np.ndarray:
    """Aligned memory for a tensor, not cleared (strings: empty). RuntimeError when there is not that much."""
    if type_._dtype is None:
        raise RuntimeError("a tensor of type dynamic can't have memory: give the element type")
    count = math.prod(shape)  # exact: NumPy's product would wrap around
    size = type_._bytes(count)
    if size >= 2**63 - ALIGNMENT or len(shape) > 32 or any(dim >= 2**63 for dim in shape):
        raise shape_error("Cannot allocate memory", type_, shape)
    try:
        if type_ is STRING:
            strings = np.empty(shape, object)
            strings.fill(b"")
            return strings
        raw = np.empty(size + ALIGNMENT, np.uint8)
        extent = shape if type_._itemsize else (size,)
        return np.ndarray(extent, type_._dtype, raw, -address_of(raw) % ALIGNMENT)
    except (MemoryError, ValueError) as error:
        raise shape_error("Cannot allocate memory", type_, shape) from error


def encode_texts(array: np.ndarray) -> np.ndarray:
    """An array of str as an object array of UTF-8 bytes. Raises TypeError for other elements."""
    texts = array.ravel().tolist()
    return np.fromiter(map(str.encode, texts), object, len(texts)).reshape(array.shape)


def encode_strings(array: np.ndarray) -> np.ndarray:
    """An array of str or bytes as an object array of UTF-8 bytes."""
    if array.dtype.kind in "UO":
        with contextlib.suppress(TypeError):  # not all are str
            return encode_texts(array)
    result = np.empty(array.shape, object)
    result.reshape(-1)[:] = [
        text.encode() if isinstance(text, str) else text for text in array.ravel().tolist()
    ]
    return result


#: Up to so many strings are decoded one by one.
FEW_STRINGS = 16


def decode_array(strings: np.ndarray) -> np.ndarray:
    """An array of UTF-8 bytes as a NumPy array of str (`U`); invalid bytes are replaced. Of many strings,
    equal ones are decoded once."""
    values = strings.ravel().tolist()
    if len(values) <= FEW_STRINGS:
        return np.array([value.decode("utf-8", "replace") for value in values], "U").reshape(strings.shape)
    numbers: dict[bytes, int] = {}
    indices = [numbers.setdefault(value, len(numbers)) for value in values]
    texts = np.array([value.decode("utf-8", "replace") for value in numbers], "U")
    return texts[indices].reshape(strings.shape)


def decode_text(value: str | bytes) -> str | bytes:
    """The str of UTF-8 bytes; other bytes as they are."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def check_texts(array: np.ndarray) -> None:
    """Raise ModelError, with OpenVINO's words, for an object array with other elements than texts: str that
    has a form in UTF-8, or bytes."""
    for index, value in enumerate(array.reshape(-1).tolist() if array.dtype == object else ()):
        if not isinstance(value, (str, bytes)):
            raise ModelError(
                f"Unsupported data type: object: element {index} is of {type(value).__name__}; convert it to "
                "str or bytes"
            )
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ModelError(f"element {index} is not a text that UTF-8 has ({error})") from None


def check_lendable(array: np.ndarray) -> Type:
    """The Type of an array that is to be shared; RuntimeError when its memory can't be a tensor's."""
    type_ = type_of_dtype(array.dtype)
    if type_ is STRING:
        raise RuntimeError(f"{_NOT_SHARED} String types can be only copied.")
    if not array.flags.c_contiguous:
        raise RuntimeError(f"{_NOT_SHARED} Passed numpy array must be C contiguous.")
    return type_


def as_container(array: np.ndarray, type_: Type) -> np.ndarray:
    """A view of an array of this type as tensors hold it: the bits of bf16 and 8-bit floats."""
    dtype = type_._dtype
    return array.view() if dtype is None or dtype == type_._row.numpy else array.view(dtype)


def check_native(array: np.ndarray) -> None:
    if not array.dtype.isnative:
        raise RuntimeError(f"{_NOT_SHARED} The byte order of {array.dtype} is foreign.")
