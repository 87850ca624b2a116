"""DLPack capsules of tensors, also of bfloat16, which NumPy does not exchange.

A capsule of such a tensor passes through NumPy as one of integers of the same width: only the code of the
element type in the capsule's record is replaced.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

#: The code of the element type in DLManagedTensor: after an address, a device of two int32 and the rank.
_CODE = 20
_UNSIGNED, _BFLOAT = 1, 4
BFLOAT16 = 16

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]


class _Capsule:
    """A capsule as an object that `numpy.from_dlpack` takes."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def _code(capsule: Any) -> Any:
    return ctypes.c_uint8.from_address(_pointer_of(capsule, b"dltensor") + _CODE)


def export_capsule(array: np.ndarray, is_bfloat16: bool) -> Any:
    """The capsule of an array, or of bfloat16 elements in an array of uint16."""
    capsule = array.__dlpack__()
    if is_bfloat16:
        _code(capsule).value = _BFLOAT
    return capsule


def import_capsule(data: Any) -> tuple[np.ndarray, bool]:
    """(array that shares the memory, True if its uint16 elements are bfloat16) of a capsule or of an object
    with `__dlpack__`. TypeError for another object, RuntimeError for other than contiguous tensors."""
    capsule = data.__dlpack__() if hasattr(data, "__dlpack__") else data
    if not _is_valid(capsule, b"dltensor"):
        raise TypeError("from_dlpack expected a valid DLPack capsule named 'dltensor'")
    code = _code(capsule)
    is_bfloat16 = code.value == _BFLOAT
    if is_bfloat16:
        code.value = _UNSIGNED
    array = np.from_dlpack(_Capsule(capsule))
    if not array.flags.c_contiguous:
        raise RuntimeError("ORT only supports contiguous tensor for now.")
    return array, is_bfloat16


def view_memory(address: int, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A writable array of memory at an address, which the caller keeps alive."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)
