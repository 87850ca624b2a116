"""Gather, GatherElements, GatherND: elements at indexed positions.

A negative index counts from the end. An index out of range gives zeros in Gather, and raises InferenceError
in the other operations. Memory outside of a tensor is never accessed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.op import Count, Int, TensorType, op
from ovjit.graph.shapes import ANY, Dim, Interval, merge, normalize_axis, text
from ovjit_ops.common.images import chosen_images
from ovjit_ops.common.values import (
    INTEGERS,
    shape_scalar,
    with_value,
)
from ovjit_ops.movement.shape import MOVABLE


def check_index_type(indices: TensorType, says: str = "") -> None:
    """Raise ModelError unless indices are integers. `says`: OpenVINO's message."""
    integral = indices.dtype in (*INTEGERS, "dynamic")
    check(integral, f"{says} indices should be integers, not {indices.dtype}".lstrip())


def checked_indices(indices: np.ndarray, extent: int) -> np.ndarray:
    """Indices counted from 0. Raises InferenceError if one is out of [-extent, extent)."""
    values = indices.astype(np.int64)
    if values.size and (values.min() < -extent or values.max() >= extent):
        raise InferenceError(
            f"an index is out of range for {extent} elements: "
            f"the indices are {values.min()} .. {values.max()}"
        )
    return np.where(values < 0, values + extent, values)


def gather(data: np.ndarray, indices: np.ndarray, axis: int, batch_dims: int = 0) -> np.ndarray:
    """data[..., indices, ...] along `axis`; zeros, or empty texts, for indices out of range."""
    extent = data.shape[axis]
    empty = np.full((), b"", object) if data.dtype.kind == "O" else np.zeros((), data.dtype)
    positions = indices.astype(np.int64)
    valid = (positions >= -extent) & (positions < extent)
    shape = (*data.shape[:axis], *indices.shape[batch_dims:], *data.shape[axis + 1 :])
    if extent == 0 or not math.prod(shape):
        return np.full(shape, empty, data.dtype)
    rows = np.where(valid, np.where(positions < 0, positions + extent, positions), 0)
    batch = data.shape[:batch_dims]
    flat_data = data.reshape(math.prod(batch), *data.shape[batch_dims:])
    flat = rows.reshape(math.prod(batch), *indices.shape[batch_dims:])
    out = np.stack([np.take(d, i, axis - batch_dims) for d, i in zip(flat_data, flat, strict=True)]).reshape(
        shape
    )
    if not valid.all():
        tail = data.ndim - axis - 1
        lead = (*batch, *(1,) * (axis - batch_dims), *indices.shape[batch_dims:], *(1,) * tail)
        out = np.where(valid.reshape(lead), out, empty)
    return out


def _infer_gather(data: TensorType, indices: TensorType, axis: TensorType, batch_dims: int) -> TensorType:
    check_index_type(indices, "Indices element type must be of an integral number type.")
    integral = "Axis element type must be of an integral number type."
    one = "Axis input must be scalar or have 1 element. But instead got axis_shape = {shape}"
    along = shape_scalar(axis, "axis", integral, one)
    if data.shape is None or indices.shape is None:
        return TensorType(data.dtype, None)
    batch = batch_dims + len(indices.shape) if batch_dims < 0 else batch_dims
    check(0 <= batch <= len(indices.shape), f"batch_dims {batch_dims} is out of range for {indices}")
    check(data.shape, "the data of Gather should have at least one dimension; a scalar is given")
    rank = len(data.shape) + len(indices.shape) - 1 - batch
    if along is None:
        return TensorType(data.dtype, (ANY,) * rank)
    along = normalize_axis(along, len(data.shape))
    check(
        batch <= along,
        "After normalization batch_dims must be <= axis. But instead got: batch_dims = "
        f"{batch}, axis = {along}",
    )
    lead: list[Dim] = []
    for d, i in zip(data.shape[:batch], indices.shape[:batch], strict=True):
        both = merge(d, i)
        check(
            both is not None,
            f"Shapes {text(data.shape)} and {text(indices.shape)} are not consistent. data and indices must "
            "have equal or intersecting sizes until batch_dims",
        )
        lead.append(both)  # type: ignore[arg-type]
    shape = (*lead, *data.shape[batch:along], *indices.shape[batch:], *data.shape[along + 1 :])
    return with_value(
        TensorType(data.dtype, shape),
        lambda d, i, a: gather(d, i, along, batch),
        data,
        indices,
        axis,
        partially=True,
    )


@op("Gather", opset=1, types=MOVABLE, lower=".cpu_gather:lower_gather", images=chosen_images, carried=1)
class Gather1:
    """The slices `indices` of the data along `axis`."""

    def infer(data, indices, axis):
        return _infer_gather(data, indices, axis, 0)

    def ref(data, indices, axis, *, batch_dims=0):
        batch = batch_dims + indices.ndim if batch_dims < 0 else batch_dims
        return gather(data, indices, normalize_axis(int(axis.reshape(-1)[0]), data.ndim), batch)


@op("Gather", opset=7, like=Gather1)
class Gather7:
    """Gather with the first `batch_dims` dimensions shared by data and indices."""

    def infer(data, indices, axis, *, batch_dims: Int = 0):
        return _infer_gather(data, indices, axis, batch_dims)


@op("Gather", opset=8, like=Gather7)
class Gather8:
    """Gather-7 with negative indices, and zeros for those out of range."""


@op("GatherElements", opset=6, types=MOVABLE, lower=".cpu_gather:GatherElements.of", carried=1)
class GatherElements:
    """out[i, j, k] = data[indices[i, j, k], j, k] for axis 0, and so on."""

    def infer(data, indices, *, axis: Int = 0):
        says = f"indices must be of int32 or int64 type. But instead got: {indices.dtype}."
        check_index_type(indices, says)
        check(
            None in (data.rank, indices.rank) or data.rank == indices.rank,
            f"data and indices rank must be equal. But instead got: {data.rank} and {indices.rank}",
        )
        if data.shape is not None and indices.shape is not None:
            check(data.shape, "indices rank must be >= 1.")
            along = normalize_axis(axis, len(data.shape))
            pairs = enumerate(zip(data.shape, indices.shape, strict=True))
            # equal, except along the axis
            dims = [b if i == along else merge(a, b) for i, (a, b) in pairs]
            check(
                None not in dims,
                f"Shapes {text(data.shape)} and {text(indices.shape)} are not consistent, `data` and "
                "`indices` must have equal or intersecting dimensions, except for the dimension at axis "
                f"index.{axis}",
            )
            return TensorType(data.dtype, tuple(d for d in dims if d is not None))
        if data.shape is not None:
            along = normalize_axis(axis, len(data.shape))
            return TensorType(data.dtype, tuple(ANY if i == along else d for i, d in enumerate(data.shape)))
        return TensorType(data.dtype, indices.shape)

    def ref(data, indices, *, axis=0):
        axis = normalize_axis(axis, data.ndim)
        return np.take_along_axis(data, checked_indices(indices, data.shape[axis]), axis)


def _infer_gather_nd(data: TensorType, indices: TensorType, batch_dims: int, flatten: bool) -> TensorType:
    check_index_type(indices, f"The indices type is expected to be an integer type. Got: {indices.dtype}.")
    if data.shape is None or indices.shape is None:
        return TensorType(data.dtype, None)
    check(data.shape, "Data rank must be at least 1.")
    check(indices.shape, "Indices rank must be at least 1.")
    for shape, name in ((data.shape, "data"), (indices.shape, "indices")):
        check(batch_dims < len(shape), f"Number of batch dimensions must not exceed a rank of {name}.")
    depth = indices.shape[-1]
    batch: tuple[Any, ...] = tuple(map(merge, data.shape[:batch_dims], indices.shape[:batch_dims]))
    check(None not in batch, "Batch dimensions of data and indices must be the same.")
    if isinstance(depth, Interval):
        return TensorType(data.dtype, None)
    check(
        1 <= depth <= len(data.shape) - batch_dims,
        "Length of a tuple with indices must not exceed a rank of data tensor excluding batch "
        f"dimensions. {indices} selects {depth} of the dimensions of {data}",
    )
    if flatten and batch_dims > 1:
        batch = (math.prod(batch),)
    return TensorType(data.dtype, (*batch, *indices.shape[batch_dims:-1], *data.shape[batch_dims + depth :]))


def _gather_nd(data: np.ndarray, indices: np.ndarray, batch_dims: int, flatten: bool) -> np.ndarray:
    batch, depth = data.shape[:batch_dims], indices.shape[-1]
    if not math.prod((*indices.shape[:-1], *data.shape[batch_dims + depth :])):
        indices = np.zeros_like(indices)  # empty: indices are not checked
        data = np.zeros([max(d, 1) if batch_dims <= a < batch_dims + depth else d
                         for a, d in enumerate(data.shape)], data.dtype)  # fmt: skip
    points = tuple(checked_indices(indices[..., k], data.shape[batch_dims + k]) for k in range(depth))
    tail = indices.ndim - 1 - batch_dims
    grids = tuple(
        np.arange(b).reshape((1,) * i + (b,) + (1,) * (batch_dims - i - 1 + tail))
        for i, b in enumerate(batch)
    )
    out = data[grids + points]
    return out.reshape(math.prod(batch), *out.shape[batch_dims:]) if flatten and batch_dims > 1 else out


@op(
    "GatherND", opset=5, types=MOVABLE, lower=".cpu_gather:GatherND.of", carried=1
)  # fmt: skip
class GatherND5:
    """The slices of the data that index tuples select, with merged batch dimensions."""

    def infer(data, indices, *, batch_dims: Count = 0):
        return _infer_gather_nd(data, indices, batch_dims, True)

    def ref(data, indices, *, batch_dims=0):
        return _gather_nd(data, indices, batch_dims, True)


@op("GatherND", opset=8, like=GatherND5)
class GatherND8:
    """The slices of the data that index tuples select."""

    def infer(data, indices, *, batch_dims: Count = 0):
        return _infer_gather_nd(data, indices, batch_dims, False)

    def ref(data, indices, *, batch_dims=0):
        return _gather_nd(data, indices, batch_dims, False)
