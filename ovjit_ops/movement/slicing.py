"""Split, VariadicSplit, Slice, SliceScatter and StridedSlice."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph import shapes
from ovjit.graph.op import MOST_DIMENSIONS, Int, Ints, TensorType, op
from ovjit.graph.symbolic import UNKNOWN
from ovjit.graph.traced import is_traced
from ovjit_ops.common.checks import check_same_type
from ovjit_ops.common.images import images_of, sliced_images
from ovjit_ops.common.slices import as_slice, axis_slices, resolve_slice, slice_extent, strided_plan
from ovjit_ops.common.values import (
    check_scalar,
    length,
    shape_scalar,
    shape_value,
    with_partial,
    with_value,
)
from ovjit_ops.elementwise.arithmetic import cases
from ovjit_ops.movement.shape import MOVABLE

#: Maximum number of outputs of a split. Readers create a record for each.
MOST_PARTS = 1 << 20
#: Maximum entries of a StridedSlice: each dimension is read or inserted by one, plus an empty ellipsis.
MOST_SLICES = 2 * MOST_DIMENSIONS + 1


def _split_axis(data: TensorType, axis: TensorType, one: str) -> int | None:
    value = shape_scalar(axis, "axis", "Element type of 'axis' input must be integer. Got: {type}", one)
    check(data.rank != 0, "Accessing out-of-range dimension: a scalar has no axis to be split along")
    return None if value is None or data.rank is None else shapes.normalize_axis(value, data.rank)


@op("Split", opset=1, types=MOVABLE, lower=".cpu_views:lower_split", images=images_of(0, along=1))
class Split:
    """Splits the data along `axis` into `num_splits` equal parts."""

    def infer(data, axis, *, num_splits: Int):
        check(
            1 <= num_splits <= MOST_PARTS,
            f"Attribute 'num_splits' must be greater than zero. Got: {num_splits}",
        )
        says = "'axis' input must be a scalar. Got: {shape}"
        along = _split_axis(data, axis, says)
        check_scalar(axis, says)
        if along is None:
            shape = None if data.rank is None else (shapes.ANY,) * data.rank
            return (TensorType(data.dtype, shape),) * num_splits
        extent = data.shape[along]
        check(
            isinstance(extent, shapes.Interval) or extent % num_splits == 0,
            f"Dimension of data input shape along 'axis': {extent} must be evenly divisible by 'num_splits' "
            f"attribute value: {num_splits}",
        )
        out = TensorType(data.dtype, (*data.shape[:along], extent // num_splits, *data.shape[along + 1 :]))
        return tuple(
            with_value(out, lambda x, i=i: np.split(x, num_splits, along)[i], data, partially=True)
            for i in range(num_splits)
        )

    def ref(data, axis, *, num_splits):
        along = shapes.normalize_axis(int(axis.reshape(-1)[0]), data.ndim)
        check(
            data.shape[along] % num_splits == 0,
            f"{data.shape[along]} elements are not divisible into {num_splits} parts",
        )
        return tuple(np.ascontiguousarray(part) for part in np.split(data, num_splits, along))

    samples = cases(
        ((8,), 0, {"num_splits": 2}),
        ((2, 6), 1, {"num_splits": 3}),
        ((1, 16, 4, 4), 1, {"num_splits": 2}),
        ((4, 3), -2, {"num_splits": 4}),
        ((3, 5), 0, {"num_splits": 1}),
    )


def split_lengths_of(extent: int, lengths: Sequence[int]) -> list[int]:
    """`lengths` with -1 replaced by the remaining length. Raises ModelError if they do not add up to
    `extent`."""
    lengths = [int(v) for v in lengths]
    low = min(lengths, default=0)
    check(low >= -1, f"Invalid value {low} in split lengths input. Should be >= -1.")
    rest_of = [i for i, v in enumerate(lengths) if v == -1]
    check(
        len(rest_of) <= 1,
        f"Cannot infer split with multiple -1 values at {' and '.join(map(str, rest_of[:2]))}",
    )
    remaining = extent - sum(v for v in lengths if v >= 0)
    check(
        remaining >= 0 if -1 in lengths else remaining == 0,
        f"Total length of splits: {extent - remaining} must match the length of the chosen axis: {extent}",
    )
    return [remaining if v == -1 else v for v in lengths]


@op("VariadicSplit", opset=1, types=MOVABLE, lower=".cpu_views:lower_split", images=images_of(0, along=1))
class VariadicSplit:
    """Splits the data along `axis` into parts of the given lengths. One may be -1, the remaining length."""

    def infer(data, axis, split_lengths):
        along = _split_axis(data, axis, "Axis should be a scalar or of shape [1]. Got {shape} instead.")
        flat = "Split lengths should be a 1-D tensor. Got {rank} instead."
        lengths = shape_value(split_lengths, "split_lengths", flat=flat)
        check(split_lengths.rank != 0, "Split lengths should be a 1-D tensor. Got 0 instead.")
        parts = length(split_lengths)
        if parts is None:
            return ()  # as in OpenVINO, the node has no outputs until their number is known
        check(parts <= MOST_PARTS, f"A split has at most {MOST_PARTS} parts, not {parts}")
        if along is None or lengths is None:
            shape = None if data.rank is None else (shapes.ANY,) * data.rank
            if along is not None:
                shape = (*data.shape[:along], shapes.ANY, *data.shape[along + 1 :])
            return (TensorType(data.dtype, shape),) * parts
        extent = data.shape[along]
        sizes: list[shapes.Dim]
        if isinstance(extent, shapes.Interval):
            sizes = [shapes.ANY if v == -1 else int(v) for v in lengths]
        else:
            sizes = list(split_lengths_of(extent, lengths.tolist()))
        types = [TensorType(data.dtype, (*data.shape[:along], s, *data.shape[along + 1 :])) for s in sizes]
        if data.partial is None or not shapes.is_static(sizes):
            return tuple(types)
        cuts = np.cumsum(sizes)[:-1]
        return tuple(
            with_partial(out, lambda x, i=i: np.split(x, cuts, along)[i], data) for i, out in enumerate(types)
        )

    def ref(data, axis, split_lengths):
        along = shapes.normalize_axis(int(axis.reshape(-1)[0]), data.ndim)
        sizes = split_lengths_of(data.shape[along], split_lengths.reshape(-1))
        cuts = np.cumsum(sizes)[:-1]
        return tuple(np.ascontiguousarray(part) for part in np.split(data, cuts, along))

    samples = cases(
        ((8,), 0, [3, 5]),
        ((2, 17), 1, [1, -1, 8]),
        ((1, 16, 4, 4), 1, [4, 12]),
        ((4, 3), -2, [4]),
        ((5, 2), 0, [0, 5]),
    )


#: OpenVINO's names of the limits of StridedSlice, in the order of its inputs.
_STRIDED = ("Begin", "End", "Strides")


def _slice_inputs(*inputs: TensorType | None, strided: bool = False) -> list[np.ndarray] | None:
    values = []
    for i, x in enumerate(inputs):
        if strided:
            integral = f"{_STRIDED[i]} mask must be an integral number, but is: {{type}}"
            flat = f"{_STRIDED[i]} input must be 1D (has rank: {{rank}})"
        else:
            name = ("start", "stop", "step", "axes")[i]
            integral = f"Slice `{name}` input type must be integer."
            flat = f"Slice `{name}` input must be a 1D tensor. Got rank: {{rank}}"
        value = None if x is None else shape_value(x, "a limit of the slice", integral, flat)
        values.append(value if x is None or i > 1 else _without_ends(x, value))
    return None if any(v is None for v in values) else values  # type: ignore[return-value]


def _without_ends(limit: TensorType, value: np.ndarray | None) -> np.ndarray | None:
    """The numbers of a start or stop, the ends of i32 as those of i64: both are no limit, as in OpenVINO."""
    if limit.dtype != "i32" or value is None or value.dtype.kind != "i":
        return value
    small, large = np.iinfo(np.int32), np.iinfo(np.int64)
    longs = np.where(value == small.max, large.max, value.astype(np.int64))
    return np.where(value == small.min, large.min, longs)


def _with_open(limits: Sequence[TensorType | None]) -> list[np.ndarray] | None:
    """Checked limits of a slice, with UNKNOWN for unknown numbers. None if their count or a step is unknown,
    or if they are traced."""
    result = []
    for i, x in enumerate(limits):
        if x is None:
            continue
        values, count = x.value if x.partial is None or i == 2 else x.partial, length(x)
        if count is None or (values is None and i == 2) or is_traced(values):
            return None
        values = _without_ends(x, values) if i < 2 else values
        result.append(np.full(count, UNKNOWN, object) if values is None else values.reshape(-1))
    return result


#: Samples: (shape of the data, start, stop, step, axes).
_CUTS: list[tuple[Any, ...]] = [
    ((10,), [1], [8], [1]),
    ((10,), [8], [1], [-3]),
    ((2, 17, 5), [0, 1], [2, 16], [1, 2]),
    ((2, 17, 5), [1], [4], [1], [-1]),
    ((3, 4), [2], [1], [1], [0]),
    ((1, 16, 8, 8), [4], [12], [1], [1]),
]


def _index(data: np.ndarray, start: Any, stop: Any, step: Any, axes: Any = None) -> tuple[slice, ...]:
    """The slice as an index for NumPy."""
    cuts = axis_slices(data.ndim, start, stop, step, axes)
    return tuple(
        as_slice(resolve_slice(d, *cuts[i])) if i in cuts else slice(None) for i, d in enumerate(data.shape)
    )


def _slice(data: np.ndarray, *limits: Any) -> np.ndarray:
    return np.ascontiguousarray(data[_index(data, *limits)])


@op(
    "Slice",
    opset=8,
    types=MOVABLE,
    lower=".cpu_slices:lower_slice",
    bounds=(1, 2, 3, 4),
    images=images_of(0, along=4),
)
class Slice:
    """data[start:stop:step] along `axes`; without axes, along the leading dimensions. See `resolve_slice`."""

    def infer(data, start, stop, step, axes=None):
        limits = _slice_inputs(start, stop, step)
        says = "Slice `axes` input type must be integer.", "Slice `axes` input must be a 1D tensor."
        axis_list = None if axes is None else shape_value(axes, "axes", *says)
        check(data.rank != 0, "Slice `data` input can't be a scalar.")
        count = length(start)
        check(
            count is None or data.rank is None or count <= data.rank,
            "Slice `start` input dim size can't be bigger than `data` rank. "
            f"{count} is more than {data.rank}",
        )
        if data.shape is None:
            return TensorType(data.dtype, None)
        counts = {length(x) for x in (start, stop, step)} - {None}
        check(len(counts) <= 1, "Slice `start`, `stop`, `step` inputs must have compatible shapes.")
        if limits is None and (axes is None or axis_list is not None):
            limits = _with_open((start, stop, step))
        if limits is None or (axes is not None and axis_list is None):
            touched = None
            if axis_list is not None:
                touched = {shapes.normalize_axis(int(a), data.rank) for a in axis_list}
            if axes is None and count is not None:
                touched = set(range(count))
            return TensorType(data.dtype, _cut_somehow(data.shape, touched))
        cuts = axis_slices(data.rank, limits[0], limits[1], limits[2], axis_list)
        shape = tuple(slice_extent(d, *cuts[i]) if i in cuts else d for i, d in enumerate(data.shape))
        inputs = [x for x in (data, start, stop, step, axes) if x is not None]
        return with_value(TensorType(data.dtype, shape), _slice, *inputs, partially=True)

    ref = _slice
    samples = cases(*_CUTS, ((10,), [-3], [100], [1]), ((10,), [100], [-100], [-1]))


def _cut_somehow(shape: shapes.Shape, touched: Container[int] | None) -> shapes.Shape:
    """The shape after slices of unknown length along the dimensions `touched`; None: all of them."""
    return tuple(shapes.up_to(d) if touched is None or i in touched else d for i, d in enumerate(shape))


@op("SliceScatter", opset=15, types=MOVABLE, lower=".cpu_slices:ScatteredSlice")
class SliceScatter:
    """Replaces data[start:stop:step] along `axes` by `updates`."""

    def infer(data, updates, start, stop, step, axes=None):
        check_same_type(updates, data, "updates")
        limits = _slice_inputs(start, stop, step)
        axis_list = None if axes is None else shape_value(axes, "axes")
        if data.shape is not None and limits is not None and (axes is None or axis_list is not None):
            cuts = axis_slices(data.rank, limits[0], limits[1], limits[2], axis_list)
            shape = [slice_extent(d, *cuts[i]) if i in cuts else d for i, d in enumerate(data.shape)]
            fits = shapes.compatible_shapes(updates.shape, shape)
            check(fits, f"the updates {updates} should have the shape of the slice")
        if data.shape is None and updates.rank is not None:
            return TensorType(data.dtype, (shapes.ANY,) * updates.rank)
        return TensorType(data.dtype, data.shape)

    def ref(data, updates, start, stop, step, axes=None):
        out = data.copy()
        index = _index(data, start, stop, step, axes)
        shape = out[index].shape
        if updates.shape != shape:
            raise InferenceError(f"the updates have the shape {list(updates.shape)}, the slice {list(shape)}")
        out[index] = updates
        return out


@op("ValidPrefix", internal=True, views=True)
class ValidPrefix:
    """The valid prefix of a buffer of maximum size, as a view: the first contiguous elements, with `count`
    along `axis`. The count depends on data."""

    def infer(data, count, *, axis: Int):
        if data.shape is None:
            return TensorType(data.dtype, None)
        size = shape_scalar(count, "count")
        part = shapes.dim(0, shapes.bounds(data.shape[axis])[1]) if size is None else size
        return TensorType(data.dtype, (*data.shape[:axis], part, *data.shape[axis + 1 :]))

    def ref(data, count, *, axis):
        if axis == 0:
            return data[: count.item()]
        shape = (*data.shape[:axis], count.item(), *data.shape[axis + 1 :])
        return data.reshape(-1)[: math.prod(shape)].reshape(shape)

    samples = cases(
        ((5, 3), [3], {"axis": 0}),
        ((4,), [0], {"axis": 0}),
        ((3, 3), [3], {"axis": 1}),
        ((2, 5), [4], {"axis": 1}),
    )


def _strided_slice(data: np.ndarray, begin: Any, end: Any, strides: Any = None, **masks: Any) -> np.ndarray:
    full = {
        k: masks.get(k, ())
        for k in ("begin_mask", "end_mask", "new_axis_mask", "shrink_axis_mask", "ellipsis_mask")
    }
    index: list[Any] = []
    for step in strided_plan(data.shape, begin, end, strides, full):
        if step[0] == "new":
            index.append(None)
        elif step[0] == "all":
            index.append(slice(None))
        elif step[0] == "pick":
            index.append(step[2])
        else:
            index.append(as_slice(resolve_slice(data.shape[step[1]], *step[2:])))
    return np.array(data[tuple(index)], order="C")


_NO_MASKS: dict[str, Any] = {"begin_mask": (0, 0), "end_mask": (0, 0)}


@op(
    "StridedSlice", opset=1, types=MOVABLE,
    lower=".cpu_slices:lower_strided_slice", bounds=(1, 2, 3), images=sliced_images
)  # fmt: skip
class StridedSlice:
    """data[begin:end:strides], with masks. 1 in begin_mask or end_mask ignores this bound. The other masks
    insert dimensions, remove them, or skip several."""

    def infer(
        data,
        begin,
        end,
        strides=None,
        *,
        begin_mask: Ints,
        end_mask: Ints,
        new_axis_mask: Ints = (),
        shrink_axis_mask: Ints = (),
        ellipsis_mask: Ints = (),
    ):
        masks = {k: v for k, v in locals().items() if k.endswith("_mask")}
        for name, mask in masks.items():
            says = "All masks of StridedSlice must have be 0 or 1:"
            check(all(v in (0, 1) for v in mask), f"{says} {name} {list(mask)}")
        sizes = {len(mask) for name, mask in masks.items() if mask or name in ("begin_mask", "end_mask")}
        check(len(sizes) == 1, "All masks of StridedSlice must have the same size")
        limit_types = (begin, end) if strides is None else (begin, end, strides)
        limits = _slice_inputs(*limit_types, strided=True)
        counts = {length(x) for x in (begin, end)} - {None}
        check(len(counts) <= 1, "Begin and end need to have same number of values.")
        if data.shape is None:
            return TensorType(data.dtype, None)
        count = next((n for x in limit_types if (n := length(x)) is not None), None)
        check((count or 0) <= MOST_SLICES, f"At most {MOST_SLICES} slices are possible, not {count}")
        if limits is None:
            limits = _with_open(limit_types)
        if limits is None and count is None:
            masked = any(map(any, (new_axis_mask, shrink_axis_mask, ellipsis_mask)))
            return TensorType(data.dtype, None if masked else _cut_somehow(data.shape, None))
        somehow = limits is None  # the rank is known, the lengths are not
        if limits is None:
            limits = [np.full(count or 0, UNKNOWN, object)] * 2
        plan = strided_plan(data.shape, limits[0], limits[1], limits[2] if len(limits) == 3 else None, masks)
        shape: list[shapes.Dim] = []
        for step in plan:
            if step[0] == "new":
                shape.append(1)
            elif step[0] == "all":
                shape.append(data.shape[step[1]])
            elif step[0] == "cut":
                extent = data.shape[step[1]]
                shape.append(shapes.up_to(extent) if somehow else slice_extent(extent, *step[2:]))
        if somehow:
            return TensorType(data.dtype, shape)
        inputs = [x for x in (data, begin, end, strides) if x is not None]
        return with_value(TensorType(data.dtype, shape), _strided_slice, *inputs, partially=True, **masks)

    ref = _strided_slice
    samples = cases(
        ((10,), [1], [8], [2], {"begin_mask": (0,), "end_mask": (0,)}),
        ((10,), [1], [8], [1], {"begin_mask": (1,), "end_mask": (0,)}),
        ((2, 17, 5), [0, 3], [2, 0], [1, 1], {"begin_mask": (0, 0), "end_mask": (0, 1)}),
        ((2, 17, 5), [1, 3], [2, 9], [1, 2], {**_NO_MASKS, "shrink_axis_mask": (1, 0)}),
        (
            (2, 5), [0, 0, 1], [1, 1, 4], [1, 1, 1],
            {"begin_mask": (0, 0, 0), "end_mask": (0, 0, 0), "new_axis_mask": (0, 1, 0)},
        ),
        ((2, 3, 4, 5), [0, 1], [0, 3], [1, 1], {**_NO_MASKS, "ellipsis_mask": (1, 0)}),
        ((10,), [0], [0], [-1], {"begin_mask": (1,), "end_mask": (1,)}),
        ((10,), [-3], [100], [1], {"begin_mask": (0,), "end_mask": (0,)}),
        ((1, 16, 8, 8), [0, 4], [1, 12], [1, 1], _NO_MASKS),
    )  # fmt: skip
