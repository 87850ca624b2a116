"""Constants of a file: views of its bytes, which stay integers where they are quantised."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ovjit.build import Output, make_constant, stored_size
from ovjit.build.builder import Builder
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.converted import Unmade
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.shapes import is_static
from ovjit.readers.files.weights import constant_values, packed_strings
from ovjit.readers.tflite.file import Quant, TensorRow
from ovjit.readers.tflite.sparse import dense

#: What a tensor with a scale may be stored in.
QUANTIZED = frozenset(("i4", "i8", "u8", "i16", "u16", "i32", "i64"))


@dataclass(frozen=True)
class Stored:
    """A constant: its values as they are stored, and how real numbers come of them."""

    name: str
    dtype: str
    array: np.ndarray | Unmade
    quant: Quant | None
    #: The element type that operators see.
    target: str

    def values(self) -> np.ndarray:
        return self.array.array() if isinstance(self.array, Unmade) else self.array

    def as_type(self, target: str) -> Stored:
        """The same constant, which operators see in another element type."""
        return replace(self, target=target)


def is_quantized(row: TensorRow) -> bool:
    """Whether a tensor's numbers stand for reals."""
    return row.quant is not None and row.dtype in QUANTIZED


def read_constant(row: TensorRow) -> Stored:
    """The constant of a tensor with data. ModelError where bytes are missing."""
    assert row.data is not None
    if not is_static(row.shape):
        raise ModelError(f"the constant {row.name[:200]!r} has a dynamic dimension")
    shape: tuple[int, ...] = row.shape
    try:
        if row.dtype == "string":
            texts = np.empty(math.prod(shape), object)
            texts[:] = packed_strings(row.data, texts.size, from_start=True)
            array: np.ndarray | Unmade = texts.reshape(shape)
        elif row.dtype not in ELEMENT_TYPES:
            raise UnsupportedError(f"constants of the type {row.dtype} are not supported")
        elif row.sparsity is not None:
            array = dense(row.data, row.dtype, shape, row.sparsity)
        else:
            array = _dense(row.data, row.dtype, shape)
    except (ModelError, UnsupportedError) as error:
        raise type(error)(f'TensorFlow Lite Frontend: tensor "{row.name[:200]}": {error}') from error
    real = is_quantized(row)
    return Stored(row.name, row.dtype, array, row.quant if real else None, "f32" if real else row.dtype)


def _dense(data: np.ndarray, dtype: str, shape: tuple[int, ...]) -> np.ndarray | Unmade:
    needed = stored_size(dtype, math.prod(shape))
    if needed > data.size:
        raise ModelError(
            f"buffer size ({data.size} bytes) is smaller than required by its shape and type ({needed} "
            "bytes). The model file may be corrupted."
        )
    return constant_values(data, 0, needed, dtype, shape)


def output_of(
    n: Builder, constant: Stored, change: Callable[[np.ndarray], np.ndarray] | None = None,
    channels: Sequence[int] | None = None,
) -> Output:  # fmt: skip
    """A constant as operators see it: Convert, Subtract and Multiply behind the stored integers, which
    decompress them. `change` gives the stored array another layout, in which `channels` is the shape that a
    number for each channel broadcasts in."""
    constant = _center(constant)
    array, quant = constant.array, constant.quant
    if change is not None:
        array = change(constant.values())
    if quant is not None and constant.dtype in ("i32", "i64"):
        scale, zero = quant.fit_rank(len(array.shape))
        numbers = constant.values().astype(np.float64) - zero
        return n.const((numbers * scale).astype(np.float32))
    shape = None if isinstance(array, Unmade) else tuple(array.shape)
    raw = _constant(n, array, constant.dtype, shape, constant.name if change is None else None)
    value = n.convert(raw, constant.target)
    if quant is None:
        return value
    scale, zero = quant.fit_rank(len(array.shape))
    if quant.per_channel() and channels is not None:
        scale, zero = quant.scale.reshape(channels), quant.zero.reshape(channels)
    if zero.any():
        value = n("Subtract", value, n.const(zero.astype(np.float32)))
    return n("Multiply", value, n.const(scale.astype(np.float32)))


def _center(constant: Stored) -> Stored:
    """Bytes about one zero point as i8 about 0, where they fit: products of i8 need no sums of rows."""
    quant = constant.quant
    if constant.dtype != "u8" or quant is None or quant.per_channel():
        return constant
    values, zero = constant.values(), int(quant.zero[0])
    if not values.size or int(values.max()) - zero > 127 or int(values.min()) - zero < -128:
        return constant
    moved = (values.astype(np.int16) - zero).astype(np.int8)
    return replace(constant, dtype="i8", array=moved, quant=replace(quant, zero=np.zeros_like(quant.zero)))


def _constant(
    n: Builder, array: np.ndarray | Unmade, dtype: str, shape: tuple[int, ...] | None, name: str | None
) -> Output:

    if isinstance(array, np.ndarray) and not array.flags.c_contiguous:
        array = np.ascontiguousarray(array).reshape(array.shape)
    label = name or n.reader.name(n.base, "Constant")
    return make_constant(array, dtype, shape, label)
