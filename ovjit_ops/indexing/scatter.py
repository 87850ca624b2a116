"""The Scatter family: writes updates to indexed positions.

An index out of range raises InferenceError. Memory outside of a tensor is never accessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Node, Value
from ovjit.graph.op import Bool, TensorType, Word, op
from ovjit.graph.shapes import Dim, Interval, bounds, compatible, normalize_axis, text
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.checks import check_same_type
from ovjit_ops.common.values import shape_scalar
from ovjit_ops.elementwise.arithmetic import NUMBERS
from ovjit_ops.indexing.gather import check_index_type, checked_indices
from ovjit_ops.movement.shape import MOVABLE


def _copy_for_updates(data: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """A copy of the data to write into. It has objects if the updates are traced numbers."""
    return data.astype(object if updates.dtype.hasobject else data.dtype)


def check_updates(updates: TensorType, *shape: Dim, says: str = "") -> None:
    """Raise ModelError unless `updates` may have the shape `shape`. `says`: the start of the message."""
    fits = updates.shape is None or (
        len(updates.shape) == len(shape)
        and all(compatible(a, b) for a, b in zip(updates.shape, shape, strict=True))
    )
    check(fits, f"{says}the updates {updates} should have the shape {text(shape)}")


def _infer_scatter(
    data: TensorType, indices: TensorType, updates: TensorType, integral: str, same: str
) -> TensorType:
    """The data's type. `integral` and `same`: OpenVINO's messages about the types of indices and updates."""
    check_index_type(indices, integral)
    check_same_type(updates, data, "updates", same)
    return TensorType(data.dtype, data.shape)


@op("ScatterUpdate", opset=3, types=MOVABLE, lower=".cpu_gather:ScatterUpdate.of")
class ScatterUpdate:
    """The data with its slices `indices` along `axis` replaced by `updates`."""

    def infer(data, indices, updates, axis):
        along = shape_scalar(axis, "axis", "Axis element type must be of an integral number type.")
        if along is not None and data.shape is not None:
            check(data.rank, "the data should have at least one dimension; a scalar is given")
            along = normalize_axis(along, data.rank)
            if indices.shape is not None:
                shape = (*data.shape[:along], *indices.shape, *data.shape[along + 1 :])
                rank = f"Got: rank(data) = {data.rank}, rank(indices) = {indices.rank}, rank(updates) = "
                check(
                    updates.rank in (None, len(shape)),
                    f"Updates rank is expected to be rank(indices) + rank(data) - 1. {rank}{updates.rank}",
                )
                check_updates(
                    updates,
                    *shape,
                    says="Updates shape must have appropriate dimensions equal to indices and data "
                    f"dimensions. Updates shape:{text(updates.shape)}, data shape: {text(data.shape)}, "
                    f"indices_shape: {text(indices.shape)}, axis: {along}. ",
                )
        return _infer_scatter(
            data,
            indices,
            updates,
            "Indices element type must be of an integral number type.",
            "Element types for input data and updates do not match (data element type: "
            f"{data.dtype}, updates element type: {updates.dtype}).",
        )

    def ref(data, indices, updates, axis):
        along = normalize_axis(int(axis.reshape(-1)[0]), data.ndim)
        out = _copy_for_updates(data, updates)
        if not updates.size:
            return out
        rows = checked_indices(indices, data.shape[along])
        out[(slice(None),) * along + (rows,)] = updates
        return out


def _scatter_nd(
    data: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, reduction: str = "none"
) -> np.ndarray:
    out = _copy_for_updates(data, updates)
    if not updates.size:
        return out
    points = tuple(checked_indices(indices[..., k], data.shape[k]) for k in range(indices.shape[-1]))
    function: Any = ND_REDUCTIONS[reduction]
    if function is np.subtract and data.dtype == bool:
        function = np.logical_xor
    if function is None:
        out[points] = updates
    else:
        function.at(out, points, updates)
    return out


def _infer_scatter_nd(data: TensorType, indices: TensorType, updates: TensorType) -> TensorType:
    if data.shape is not None and indices.shape is not None:
        check(indices.shape, f"indices should have at least one dimension, not {indices}")
        if not isinstance(indices.shape[-1], Interval):
            depth = indices.shape[-1]
            check(
                depth <= len(data.shape),
                f"Last dimension of indices can be at most the rank of inputs. {indices} selects more "
                f"dimensions than {data} has",
            )
            shape = (*indices.shape[:-1], *data.shape[depth:])
            check(
                updates.rank in (None, len(shape)),
                "Rank of updates must be rank of inputs + rank of indices - last dimension of indices - 1",
            )
            says = "updates_shape[indices_rank-1:] shape must be input_shape[indices_shape[-1]:]: "
            check_updates(updates, *shape, says=says)
    integral = "Indices element type must be i64 or i32:"
    same = "Updates element type must be the same as inputs:"
    return _infer_scatter(data, indices, updates, integral, same)


#: reduction -> how an update is combined with the existing value
ND_REDUCTIONS = {
    "none": None, "sum": np.add, "sub": np.subtract, "prod": np.multiply, "min": np.minimum,
    "max": np.maximum,
}  # fmt: skip


@op(
    "ScatterNDUpdate", opset=4, types=MOVABLE,
    lower=".cpu_gather:ScatterND.of"
)  # fmt: skip
class ScatterNDUpdate4:
    """The data with the slices that index tuples select replaced by `updates`, in order."""

    infer = _infer_scatter_nd
    ref = _scatter_nd


@op(
    "ScatterNDUpdate", opset=15, types=NUMBERS,
    lower=".cpu_gather:ScatterND.of"
)  # fmt: skip
class ScatterNDUpdate15:
    """ScatterNDUpdate-4 with a `reduction` of updates and data."""

    words = {"reduction": f"op::v15::ScatterNDUpdate::Reduction: {' '.join(ND_REDUCTIONS)}"}

    def infer(data, indices, updates, *, reduction: Word = "none"):
        return _infer_scatter_nd(data, indices, updates)

    ref = _scatter_nd


def neutral_element(reduction: str, target: np.dtype) -> Any:
    """The number that a reduction of elements of the type `target` starts from."""
    if reduction in ("sum", "prod"):
        return int(reduction == "prod")
    if target.kind in "iu":
        return np.iinfo(target).max if reduction == "min" else np.iinfo(target).min
    if target.kind == "b":
        return reduction == "min"
    return np.inf if reduction == "min" else -np.inf


REDUCTIONS = {**{k: v for k, v in ND_REDUCTIONS.items() if k != "sub"}, "mean": np.add}


def _scatter_elements(
    data: np.ndarray, indices: np.ndarray, updates: np.ndarray, axes: np.ndarray, *, reduction: str = "none",
    use_init_val: bool = True,
) -> np.ndarray:  # fmt: skip
    """Write each update to the element that its index selects along an axis, or combine it with that
    element."""
    axis = normalize_axis(int(axes.reshape(-1)[0]), data.ndim)
    out = _copy_for_updates(data, updates)
    grid = np.indices(indices.shape)
    at: list[np.ndarray] = list(grid)
    at[axis] = checked_indices(indices, data.shape[axis])
    where = tuple(a.reshape(-1) for a in at)
    function = REDUCTIONS[reduction]
    if function is None:
        out[where] = updates.reshape(-1)
        return out
    if not use_init_val:
        out[where] = neutral_element("sum" if reduction == "mean" else reduction, data.dtype)
    function.at(out, where, updates.reshape(-1))
    if reduction == "mean":
        count = np.zeros(data.shape, dtype=np.int64)
        np.add.at(count, where, 1)
        divisor = np.maximum(count + bool(use_init_val) * (count > 0), 1)
        real = out.dtype.kind not in "iu"  # the kind of bf16 is not "f"
        quotient = out / divisor.astype(out.dtype) if real else np.floor_divide(out, divisor)
        out = quotient.astype(data.dtype)
    return out


def expand_mean(w: Writer, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """A mean -> the sum divided by the number of summands, which is a sum of ones at the same positions"""
    data, indices, updates, axis = inputs
    if node.attrs["reduction"] != "mean":
        return None
    kind = numpy_dtype(data.dtype).kind
    if kind not in "iu" and data.dtype not in ("f16", "bf16", "f32", "f64"):
        return None
    count_type = data.dtype if data.dtype in ("u64", "f64") else "i64" if kind in "iu" else "f32"
    initial = node.attrs["use_init_val"]

    def filled_like(value: int, shaped: Value) -> Value:
        number = w.b.constant(np.array(value, numpy_dtype(count_type)), count_type)
        return w("Broadcast", number, w("ShapeOf", shaped, output_type="i64"), mode="numpy")

    def add_at(onto: Value, added: Value, initial: bool) -> Value:
        how = {"reduction": "sum", "use_init_val": initial}
        return w("ScatterElementsUpdate", onto, indices, added, axis, **how)

    total = add_at(data, updates, initial)
    # The existing value counts as one more if an update is combined with it. Otherwise it is divided by 1.
    count = add_at(filled_like(0, data), filled_like(1, indices), True)
    count = w("Add", count, 1) if initial else w("Maximum", count, 1)
    if kind in "iu":
        quotient = w("Divide", w("Convert", total, destination_type=count_type), count)
        return [w("Convert", quotient, destination_type=data.dtype)]
    return [w("Divide", total, w("Convert", count, destination_type=data.dtype))]


def _infer_scatter_elements(
    data: TensorType, indices: TensorType, updates: TensorType, axis: TensorType
) -> TensorType:
    along = shape_scalar(axis, "axis", "Axis element type must be integral_number, but is: {type}")
    if along is not None and data.rank is not None:
        check(data.rank, "the data should have at least one dimension; a scalar is given")
        normalize_axis(along, data.rank)
    check(
        None in (data.rank, indices.rank) or data.rank == indices.rank,
        f"Indices rank and data rank are required to be equal. Got: {indices.rank} and: {data.rank}",
    )
    if indices.shape is not None:
        says = "Indices and updates input shapes are required to be equal. Got: "
        says += f"{text(indices.shape)} and: {text(updates.shape)} "
        check_updates(updates, *indices.shape, says=says)
    if data.shape is not None and indices.shape is not None and along is not None:
        along = normalize_axis(along, len(data.shape))
        for a, (count, there) in enumerate(zip(indices.shape, data.shape, strict=True)):
            most = bounds(there)[1]
            check(
                a == along or most is None or bounds(count)[0] <= most,
                f"{indices} exceeds {data} along dimension {a}",
            )
    integral = f"Indices element type must be integral_number, but is: {indices.dtype}"
    same = f"Data type and updates type are required to be the same. Got: {data.dtype} and: {updates.dtype}"
    return _infer_scatter(data, indices, updates, integral, same)


@op("ScatterElementsUpdate", opset=3, types=MOVABLE, lower=".cpu_gather:ScatterElements.of")
class ScatterElementsUpdate3:
    """The data with the elements that `indices` select along `axis` replaced by `updates`."""

    infer = _infer_scatter_elements
    ref = _scatter_elements


@op(
    "ScatterElementsUpdate", opset=12, types=NUMBERS,
    lower=".cpu_gather:ScatterElements.of", expand=expand_mean
)  # fmt: skip
class ScatterElementsUpdate12:
    """ScatterElementsUpdate-3 with a `reduction` of updates and data."""

    words = {"reduction": f"op::v12::ScatterElementsUpdate::Reduction: {' '.join(REDUCTIONS)}"}

    def infer(data, indices, updates, axis, *, reduction: Word = "none", use_init_val: Bool = True):
        check(
            reduction != "mean" or data.dtype != "boolean",
            "The 'mean' reduction type is not supported for boolean tensors",
        )
        return _infer_scatter_elements(data, indices, updates, axis)

    ref = _scatter_elements
