"""Constants of a file: views of its bytes, which stay integers where they are quantised. Sparse weights
become dense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ovjit.build import Output, make_constant, stored_size
from ovjit.build.builder import Builder
from ovjit.build.tensors import from_storage
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.converted import Unmade
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.shapes import is_static
from ovjit.readers.files.weights import constant_values, packed_strings
from ovjit.readers.tflite.file import Quant, TensorRow

#: The most elements of a tensor that is made dense.
MOST = 1 << 30
_DENSE, _SPARSE = 0, 1
#: Vectors of a dimension's segments and indices, by their numbers in the schema's union.
_VECTORS = {1: "Int32Vector", 2: "Uint16Vector", 3: "Uint8Vector"}


def dense(data: np.ndarray, dtype: str, shape: tuple[int, ...], sparsity: Any) -> np.ndarray:
    """The dense tensor of a sparse one.

    Dimensions are traversed in `TraversalOrder`: those of the shape, then those within blocks. Each is dense,
    with a size, or sparse, with segments and indices as in compressed sparse rows.
    """
    order = _ints(sparsity.TraversalOrderAsNumpy())
    blocks = _ints(sparsity.BlockMapAsNumpy())
    count = sparsity.DimMetadataLength()
    is_complete = count == len(order) == len(shape) + len(blocks)
    if not is_complete or sorted(order) != list(range(len(order))):
        raise ModelError("Sparse dimension isn't found for sparse tensor: the traversal order does not fit")
    if any(not 0 <= b < len(shape) for b in blocks):
        raise ModelError(f"the block map {blocks} does not fit rank {len(shape)}")
    if math.prod(shape) > MOST:
        raise UnsupportedError(
            f"a sparse tensor of {math.prod(shape)} elements is not supported; the maximum is {MOST}"
        )
    rows = [sparsity.DimMetadata(i) for i in range(count)]
    sizes, indices = _coordinates(rows, data.size * 8)
    values = _values(data, dtype, len(indices[0]) if indices else 1)
    return _fill(values, indices, order, blocks, shape, sizes)


def _coordinates(rows: list[Any], most: int) -> tuple[list[int], list[np.ndarray]]:
    """The size of each traversed dimension (0 for a sparse one), and the index in it of each value."""
    index_by_dim: list[np.ndarray] = []
    position = np.zeros(1, np.int64)  # of each partial coordinate in the level above
    sizes: list[int] = []
    for row in rows:
        if row.Format() == _DENSE:
            size = row.DenseSize()
            if size <= 0:
                raise ModelError("Sparse dimension size must be positive")
            if position.size * size > most:
                raise ModelError("Sparse read would exceed values buffer")
            repeat = np.full(position.size, size)
            level_indices = np.tile(np.arange(size), position.size)
            start = position * size
        elif row.Format() == _SPARSE:
            segments, indices = _vector(row, "ArraySegments"), _vector(row, "ArrayIndices")
            if segments.size != position.max(initial=-1) + 2:
                raise ModelError(
                    f"Sparse segments vector size {segments.size} does not match expected number of dense "
                    f"rows + 1 ({int(position.max(initial=-1)) + 2})"
                )
            if (np.diff(segments) < 0).any() or segments[0] != 0:
                raise ModelError("Sparse segments must be monotonically non-decreasing")
            if segments[-1] > indices.size:
                raise ModelError(
                    f"Sparse index position {segments[-1]} exceeds indices vector size {indices.size}"
                )
            start, repeat = segments[position], segments[position + 1] - segments[position]
            within = np.arange(int(repeat.sum())) - np.repeat(np.cumsum(repeat) - repeat, repeat)
            level_indices = indices[np.repeat(start, repeat) + within]
            size = 0
        else:
            raise UnsupportedError("Unsupported dimension type found")
        within = np.arange(int(repeat.sum())) - np.repeat(np.cumsum(repeat) - repeat, repeat)
        position = np.repeat(start, repeat) + within
        index_by_dim = [np.repeat(p, repeat) for p in index_by_dim] + [level_indices]
        sizes.append(size)
    return sizes, index_by_dim


def _vector(row: Any, name: str) -> np.ndarray:
    import tflite

    kind = _VECTORS.get(getattr(row, f"{name}Type")())
    table = getattr(row, name)()
    if kind is None or table is None:
        raise ModelError("Unsupported vector type of a sparse dimension")
    vector = getattr(tflite, kind)()
    vector.Init(table.Bytes, table.Pos)
    values = np.array(_ints(vector.ValuesAsNumpy()), np.int64)
    if values.size and values.min() < 0:
        raise ModelError(f"Sparse index value must be non-negative, got {values.min()}")
    if name == "ArraySegments" and values.size < 2:
        raise ModelError(f"Sparse segments vector must have at least 2 elements, got {values.size}")
    return values


def _values(data: np.ndarray, dtype: str, count: int) -> np.ndarray:
    row = ELEMENT_TYPES[dtype]
    needed = stored_size(dtype, count)
    if row.numpy is None or needed > data.size:
        raise ModelError(f"Values are not found: {count} of {dtype} need {needed} bytes of {data.size}")
    return from_storage(np.array(data[:needed]), dtype, (count,))


def _fill(
    values: np.ndarray, indices: list[np.ndarray], order: list[int], blocks: list[int],
    shape: tuple[int, ...], sizes: list[int],
) -> np.ndarray:  # fmt: skip
    """Scatter values to their positions. In dimensions with blocks, an index counts blocks."""
    rank = len(shape)
    index_by_axis: dict[int, np.ndarray] = dict(zip(order, indices, strict=True))
    size_by_axis: dict[int, int] = dict(zip(order, sizes, strict=True))
    coordinates = [index_by_axis[axis] for axis in range(rank)]
    for i, axis in enumerate(blocks):
        coordinates[axis] = coordinates[axis] * size_by_axis[rank + i] + index_by_axis[rank + i]
    out = np.zeros(shape, values.dtype)
    for axis, index in enumerate(coordinates):
        if index.size and index.max() >= shape[axis]:
            raise ModelError(
                f"Sparse index value {index.max()} is out of bounds for dimension size {shape[axis]}"
            )
    out[tuple(coordinates)] = values
    return out


def _ints(values: Any) -> list[int]:
    return [] if isinstance(values, int) else [int(v) for v in values]


#: What a tensor with a scale may be stored in.
QUANTIZED = frozenset(("i4", "i8", "u8", "i16", "u16", "i32", "i64"))


@dataclass(frozen=True)
class Stored:
    """A constant: its stored values, with the scale and zero point that make floats of them."""

    name: str
    dtype: str
    array: np.ndarray | Unmade
    quant: Quant | None
    #: The element type that operators see.
    target: str

    def values(self) -> np.ndarray:
        return self.array.array() if isinstance(self.array, Unmade) else self.array

    def as_type(self, target: str) -> Stored:
        """The same constant, with another element type after dequantization."""
        return replace(self, target=target)


def is_quantized(row: TensorRow) -> bool:
    """Whether a tensor's integers represent floats."""
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
    """A constant as operators see it: Convert, Subtract and Multiply after the stored integers, which
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
