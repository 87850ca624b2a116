"""Memory of a card that other packages own or use: DLPack capsules and `__cuda_array_interface__`.

Source: the DLPack specification (`DLManagedTensor`), and version 3 of the CUDA array interface.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ovjit.errors import UnsupportedError
from ovjit.gpu.driver import Card
from ovjit.gpu.memory import DeviceTensor, row_strides

#: Kinds of devices: memory of a card, and memory that the driver moves between a card and the host.
CUDA, CUDA_MANAGED = 2, 13
#: Element type -> code and bits of DLPack.
_CODES = {
    **{f"i{bits}": (0, bits) for bits in (8, 16, 32, 64)},
    **{f"u{bits}": (1, bits) for bits in (8, 16, 32, 64)},
    **{f"f{bits}": (2, bits) for bits in (16, 32, 64)},
    "bf16": (4, 16), "boolean": (6, 8),
}  # fmt: skip
_TYPES = {code: name for name, code in _CODES.items()}
_NAME, _USED = b"dltensor", b"used_dltensor"

_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_is_unused = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_content_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_SetName", ctypes.pythonapi)
)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Record(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("rank", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    )  # fmt: skip


class _Imported:
    """A tensor of another package, given back with this object."""

    def __init__(self, record: _Record):
        self._record = record

    def __del__(self) -> None:
        if self._record.deleter:
            _Deleter(self._record.deleter)(ctypes.addressof(self._record))


#: Address of an exported record -> the record and what it refers to.
_exported: dict[int, Any] = {}


@_Deleter
def _delete(address: int) -> None:
    _exported.pop(address, None)


@_Deleter
def _drop_capsule(capsule: int) -> None:
    """Called with a capsule that ends: no consumer has taken its tensor if it still has its first name."""
    if _is_unused(capsule, _NAME):
        _delete(_content_of(capsule, _NAME))


for _immortal in (_NAME, _USED, _delete, _drop_capsule):  # tensors and capsules outlive modules at exit
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_immortal))


def export_capsule(tensor: DeviceTensor, dtype: str, device: tuple[int, int]) -> Any:
    """A DLPack capsule of a tensor, whose memory stays until the consumer gives it back."""
    code = _CODES.get(dtype)
    if code is None:
        raise UnsupportedError(f"DLPack has no element type {dtype}")
    rank = len(tensor.shape)
    shape = (ctypes.c_int64 * rank)(*tensor.shape)
    strides = (ctypes.c_int64 * rank)(*(stride // tensor.itemsize for stride in tensor.strides))
    record = _Record(tensor.address, *device, rank, *code, 1, shape, strides, 0, None)
    record.deleter = ctypes.cast(_delete, ctypes.c_void_p)
    address = ctypes.addressof(record)
    _exported[address] = record, shape, strides, tensor
    return _new_capsule(address, _NAME, ctypes.cast(_drop_capsule, ctypes.c_void_p))


def import_capsule(card: Card, capsule: Any) -> tuple[str, DeviceTensor]:
    """(element type, tensor that shares the memory) of a capsule. TypeError for another object,
    UnsupportedError for a tensor that is not on the card."""
    if not _is_valid(capsule, _NAME):
        raise TypeError("a DLPack capsule named 'dltensor' is expected, which was not used before")
    record = _Record.from_address(_pointer_of(capsule, _NAME))
    check_card(card, record.device_type, record.device_id)
    dtype = _TYPES.get((record.code, record.bits))
    if dtype is None or record.lanes != 1:
        raise UnsupportedError(
            f"a tensor has no element type with code {record.code} of {record.bits} bits in DLPack"
        )
    size, shape = record.bits // 8, tuple(record.shape[: record.rank])
    strides = tuple(s * size for s in record.strides[: record.rank]) if record.strides else None
    address = (record.data or 0) + record.byte_offset
    tensor = new_tensor(card, address, shape, strides, size, None)
    _rename(capsule, _USED)
    return dtype, tensor._replace(owner=_Imported(record))


def import_tensor(card: Card, other: Any, stream: Any) -> tuple[str, DeviceTensor]:
    """(element type, tensor that shares the memory) of an object with `__dlpack__` or
    `__cuda_array_interface__`, when the work that fills it is complete. TypeError for another object."""
    if hasattr(other, "__dlpack__"):
        check_card(card, *other.__dlpack_device__())
        imported = import_capsule(card, other.__dlpack__(stream=stream.value))
        card.synchronize(stream)  # the producer has let it wait for its own
        return imported
    facts = getattr(other, "__cuda_array_interface__", None)
    if facts is None:
        raise TypeError(
            f"{type(other).__name__} has neither __dlpack__ nor __cuda_array_interface__, and so no memory "
            "of a card"
        )
    dtype = np.dtype(facts["typestr"])
    name = "boolean" if dtype == np.bool_ else f"{dtype.kind}{dtype.itemsize * 8}"
    if name not in _CODES or not dtype.isnative:
        raise UnsupportedError(f"a tensor has no elements {facts['typestr']}")
    if facts.get("mask") is not None:
        raise UnsupportedError("a tensor has no mask")
    if facts.get("stream") is not None:
        card.synchronize(ctypes.c_void_p(facts["stream"]))
    address, shape = facts["data"][0] or 0, tuple(facts["shape"])
    if address and 0 not in shape:
        check_card(card, CUDA, card.device_of(address))
    return name, new_tensor(card, address, shape, facts.get("strides"), dtype.itemsize, other)


def check_card(card: Card, kind: int, number: int) -> None:
    """Raises UnsupportedError unless a device of DLPack is this card."""
    if kind not in (CUDA, CUDA_MANAGED) or number != card.facts.number:
        raise UnsupportedError(
            f"the tensor is on device {number} of kind {kind} in DLPack, and not on card "
            f"{card.facts.number}: move it there, or use copy_from"
        )


def new_tensor(
    card: Card, address: int, shape: tuple[int, ...], strides: Any, itemsize: int, owner: Any
) -> DeviceTensor:
    """A contiguous tensor on memory of another package. Raises UnsupportedError for other strides, and for
    addresses that are not aligned."""
    expected = row_strides(shape, itemsize)
    used = expected if strides is None else tuple(strides)
    if any(s != e for s, e, dim in zip(used, expected, shape, strict=True) if dim > 1 and 0 not in shape):
        raise UnsupportedError("the tensor is not contiguous: make a contiguous copy of it first")
    if address % itemsize:
        raise UnsupportedError(f"the tensor's address is not a multiple of its {itemsize} bytes per element")
    return DeviceTensor(card, address, shape, expected, itemsize, owner)


def array_interface(tensor: DeviceTensor, dtype: str, typestr: str) -> Any:
    """The value of `__cuda_array_interface__`. Raises AttributeError for types without a name there."""
    if dtype not in _CODES or dtype == "bf16":
        raise AttributeError(f"__cuda_array_interface__ has no elements of type {dtype}")
    return {
        "shape": tensor.shape, "typestr": typestr, "data": (tensor.address, False), "version": 3,
        "strides": None if tensor.is_contiguous else tensor.strides, "stream": None,
    }  # fmt: skip
