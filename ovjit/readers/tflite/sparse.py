"""Weights that are stored sparse, as dense arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.build import stored_size
from ovjit.build.tensors import from_storage
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.dtypes import ELEMENT_TYPES

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
    """The values at their places; an index of a dimension in blocks counts blocks."""
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
