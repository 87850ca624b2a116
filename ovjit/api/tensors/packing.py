"""Values of 1, 2, 3, 4 and 6 bits to bytes and back, as OpenVINO's helpers do it.

The first value goes to the highest bits of a byte: [7, 8] as u4 is 0x78. Models read u4, i4 and nf4 constants
and inputs in the opposite order, low bits first. Both are OpenVINO's conventions. So a tensor filled by
`pack_data` comes out of a model with its pairs swapped (u1 is the same in both).

u3 and u6 are split: the low bits of a group of values are packed together, then their high bits.

  u3: 8 values -> 2 bytes of their low 2 bits, 1 byte of their high bits
  u6: 4 values -> 2 bytes of their low 4 bits, 1 byte of their high 2 bits
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.api.tensors.types import Type
from ovjit.api.tensors.vectors import Shape, static_dims
from ovjit.graph.dtypes import ELEMENT_TYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WHOLE = {row.name: row.bits for row in ELEMENT_TYPES.values() if row.is_packed and 8 % row.bits == 0}
_SPLIT = {"u3": (8, 2, 1), "u6": (4, 4, 2)}  # values in a group, low bits, high bits


def _name(type: Type) -> str:
    name = getattr(type, "_name", None)
    if name not in _WHOLE and name not in _SPLIT:
        raise AssertionError(
            "Packing algorithm for the data types stored in 1, 2 or 4 bits, and in 3 and 6 bits; "
            f"{type} is not one of them"
        )
    return str(name)


def _shifts(bits: int) -> NDArray[np.uint8]:
    return np.arange(8 - bits, -1, -bits, dtype=np.uint8)


def _join(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """(..., n) of which the low `bits` count -> (..., n * bits / 8) bytes, the first value highest."""
    per_byte = 8 // bits
    parts = values.reshape(*values.shape[:-1], values.shape[-1] // per_byte, per_byte)
    return np.bitwise_or.reduce((parts & np.uint8((1 << bits) - 1)) << _shifts(bits), axis=-1)


def _part(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The inverse of _join: (..., n) bytes -> (..., n * 8 / bits)."""
    parts = (packed[..., None] >> _shifts(bits)) & np.uint8((1 << bits) - 1)
    return parts.reshape(*packed.shape[:-1], packed.shape[-1] * (8 // bits))


def pack_data(array: NDArray[Any], type: Type) -> NDArray[np.uint8]:
    """Values -> a flat uint8 array, padded with zeros to a whole number of bytes (u3, u6: of groups).

    Of each value the low bits are kept. AssertionError for a type that isn't packed, RuntimeError for values
    that are no integers or don't fit a byte (i4: a signed one).
    """
    name = _name(type)
    array = np.asarray(array)
    with np.errstate(invalid="ignore"):
        elements = array.astype(np.int8 if name == "i4" else np.uint8, casting="unsafe")
    if not np.array_equal(elements, array):
        raise RuntimeError(f"values of dtype {array.dtype} can't be packed as {name} without rounding")
    flat = elements.reshape(-1).view(np.uint8)
    group = 8 // _WHOLE[name] if name in _WHOLE else _SPLIT[name][0]
    padded = np.concatenate([flat, np.zeros(-flat.size % group, np.uint8)])
    if name in _WHOLE:
        return _join(padded, _WHOLE[name])
    group, low, high = _SPLIT[name]
    groups = padded.reshape(-1, group)
    return np.concatenate([_join(groups, low), _join(groups >> np.uint8(low), high)], axis=1).reshape(-1)


def pack_low_first(value: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Values of 2 or 4 bits as bytes, the first in the lowest bits; unused bits of the last byte are 0."""
    per_byte = 8 // bits
    raw = np.ascontiguousarray(value).reshape(-1).view(np.uint8) & ((1 << bits) - 1)
    padded = np.zeros(-(-raw.size // per_byte) * per_byte, np.uint8)
    padded[: raw.size] = raw
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    return np.bitwise_or.reduce(padded.reshape(-1, per_byte) << shifts, axis=1).astype(np.uint8)


def unpack_data(array: NDArray[Any], type: Type, shape: Shape | Sequence[int]) -> NDArray[Any]:
    """Packed bytes -> values of the given shape: int8 for i4, uint8 otherwise.

    AssertionError for a type that isn't packed, RuntimeError when the bytes hold fewer values than the shape.
    """
    name = _name(type)
    dims = static_dims(shape)
    packed = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if name in _WHOLE:
        values = _part(packed, _WHOLE[name])
    else:
        group, low, high = _SPLIT[name]
        groups = packed[: packed.size // 3 * 3].reshape(-1, 3)
        values = (_part(groups[:, :2], low) | _part(groups[:, 2:], high) << np.uint8(low)).reshape(-1)
    count = math.prod(dims)
    if count > values.size:
        raise RuntimeError(
            f"{packed.size} bytes hold {values.size} values of {name}, but the shape {list(dims)} has "
            f"{count} elements"
        )
    values = values[:count].reshape(dims)
    if name == "i4":
        return np.asarray((values ^ 8).astype(np.int8) - np.int8(8), np.int8)  # an array of a scalar, too
    return values
