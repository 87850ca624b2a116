"""Broadcast, Tile, Pad and Range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, ModelError, check
from ovjit.graph.dtypes import from_numpy, numpy_dtype
from ovjit.graph.op import DType, TensorType, Word, op
from ovjit.graph.shapes import ANY, Dim, Interval, Shape, bounds, broadcast, is_static
from ovjit.graph.symbolic import subtract, sym_int, sym_max
from ovjit.graph.traced import is_traced, is_traced_number, whole_numbers
from ovjit_ops.common.checks import check_same_type
from ovjit_ops.common.images import pad_images
from ovjit_ops.common.slices import broadcast_mode, broadcast_plan
from ovjit_ops.common.values import (
    INTEGERS,
    check_scalar,
    given_rank,
    length,
    partial_dims,
    partial_sizes,
    shape_value,
    with_value,
)
from ovjit_ops.elementwise.arithmetic import NUMBERS, cases
from ovjit_ops.movement.shape import MOVABLE


def _infer_broadcast(data: TensorType, target_shape: TensorType, axes: TensorType | None, mode: str):
    mode = broadcast_mode(mode)
    check(mode != "explicit" or axes is not None, "the explicit mode needs axes_mapping")
    integral = "Broadcast shape must be an integral number, but is: {type}"
    flat = "Broadcast shape rank must be 1, but has {rank}"
    target = shape_value(target_shape, "target_shape", integral, flat)
    mapping = None if axes is None else shape_value(axes, "axes_mapping")
    if target is None:
        rank = given_rank(target_shape)
        dims = partial_sizes(target_shape)
        if dims is not None:
            shape = broadcast(data.shape, tuple(dims)) if mode == "bidirectional" else tuple(dims)
            return TensorType(data.dtype, shape)
        if mode == "bidirectional":
            shape = None if rank is None else broadcast(data.shape, (ANY,) * rank)
            return TensorType(data.dtype, shape)
        return TensorType(data.dtype, None if rank is None else (ANY,) * rank)
    check(all(v >= 0 for v in target), f"target_shape {target.tolist()} should not be negative")
    if is_static(data.shape) and (mode != "explicit" or mapping is not None):
        view, out = broadcast_plan(data.shape, target.tolist(), mapping, mode)
        return with_value(
            TensorType(data.dtype, out),
            lambda x: np.broadcast_to(x.reshape(view), out).copy(),
            data,
            partially=True,
        )
    if mode == "bidirectional":
        return TensorType(data.dtype, broadcast(data.shape, tuple(target.tolist())))
    return TensorType(data.dtype, target.tolist())


_BROADCASTS: list[tuple[Any, ...]] = [
    ((), [5], {"mode": "numpy"}),
    ((17,), [3, 17], {"mode": "numpy"}),
    ((3, 1), [2, 3, 16], {"mode": "numpy"}),
    ((1,), [0, 3], {"mode": "numpy"}),
    ((2, 3), [2, 3], {"mode": "numpy"}),
    ((16,), [2, 16, 3, 3], [1], {"mode": "explicit"}),
    ((2, 3), [2, 3, 4], [0, 1], {"mode": "explicit"}),
    ((1, 4), [5, 3, 4], [1, 2], {"mode": "explicit"}),
]


@op("Broadcast", opset=1, types=MOVABLE, lower=".cpu_slices:lower_broadcast", bounds=(1,))
class Broadcast1:
    """Repeats the data to `target_shape`, by NumPy's rule or along the dimensions `axes_mapping`."""

    words = {"mode": "ov::op::BroadcastType: NUMPY EXPLICIT NONE"}

    def infer(data, target_shape, axes_mapping=None, *, mode: Word = "numpy"):
        return _infer_broadcast(data, target_shape, axes_mapping, mode)

    def ref(data, target_shape, axes_mapping=None, *, mode="numpy"):
        target = target_shape.reshape(-1).tolist()
        view, out = broadcast_plan(data.shape, target, axes_mapping, broadcast_mode(mode))
        return np.broadcast_to(data.reshape(view), out).copy()

    samples = cases(*_BROADCASTS)


@op(
    "Broadcast", opset=3,
    like=Broadcast1,
)  # fmt: skip
class Broadcast3:
    """Broadcast-1 with the mode bidirectional, in which the data and the target shape are broadcast to each
    other."""

    words = {"mode": "ov::op::BroadcastType: NUMPY EXPLICIT NONE BIDIRECTIONAL"}
    samples = cases(
        *_BROADCASTS,
        ((3, 17), [17], {"mode": "bidirectional"}),
        ((3, 1), [1, 5], {"mode": "bidirectional"}),
        ((2, 3, 4), [1], {"mode": "bidirectional"}),
    )


def _tile(data: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    times = [int(v) for v in repeats.reshape(-1)]
    rank = max(len(times), data.ndim)
    shape = (1,) * (rank - data.ndim) + data.shape
    counts = [1] * (rank - len(times)) + times
    if 0 in (*shape, *counts):  # NumPy would repeat all other dimensions first
        return np.zeros([d * n for d, n in zip(shape, counts, strict=True)], data.dtype)
    return np.tile(data, counts)


@op("Tile", opset=1, types=MOVABLE, lower=".cpu_blocks:Tiled", bounds=(1,))
class Tile:
    """Repeats the data `repeats` times along each dimension, aligned at the last one."""

    def infer(data, repeats):
        integral = "Tile repeats must have any integer element type, but has {type}"
        times = shape_value(repeats, "repeats", integral, "Tile repeats must be of rank 1")
        dims = partial_sizes(repeats) if times is None else whole_numbers(times)
        if dims is None or data.shape is None:
            count = given_rank(repeats)
            rank = None if data.rank is None or count is None else max(data.rank, count)
            return TensorType(data.dtype, None if rank is None else (ANY,) * rank)
        check(all(bounds(v)[0] >= 0 for v in dims), f"repeats {dims} should not be negative")
        rank = max(len(dims), len(data.shape))
        shape = (1,) * (rank - len(data.shape)) + data.shape
        counts = [1] * (rank - len(dims)) + list(dims)
        out = TensorType(data.dtype, tuple(d * n for d, n in zip(shape, counts, strict=True)))
        return with_value(out, _tile, data, repeats, partially=True)

    ref = _tile

    samples = cases(
        ((5,), [3]),
        ((2, 17), [3, 1]),
        ((2, 3), [2, 1, 4]),
        ((2, 3, 4), [2]),
        ((3,), [0]),
    )


def pad_array(x: np.ndarray, begin: Sequence[int], end: Sequence[int], mode: str, value: Any) -> np.ndarray:
    """`x` padded by `begin` and `end` elements per dimension; negative pads crop. Raises ModelError for
    invalid pads."""
    for d, b, e in zip(x.shape, begin, end, strict=True):
        check_pad(d, int(b), int(e), mode)
    grown = [(max(0, int(b)), max(0, int(e))) for b, e in zip(begin, end, strict=True)]
    options = {"constant_values": value} if mode == "constant" else {}
    out = np.pad(x, grown, mode="edge" if mode == "edge" else mode, **options)  # type: ignore[call-overload]
    cut = tuple(
        slice(max(0, -int(b)), n - max(0, -int(e))) for n, b, e in zip(out.shape, begin, end, strict=True)
    )
    return np.ascontiguousarray(out[cut])


def check_pad(extent: int, begin: int, end: int, mode: str) -> None:
    """Raise ModelError if a dimension cannot be padded in this mode."""
    most = {
        "constant": None,
        "edge": None if extent else 0,
        "reflect": max(0, extent - 1),
        "symmetric": extent,
    }[mode]
    check(
        extent + begin + end >= 0,
        f"padding by {begin} and {end} removes more than the {extent} elements of the axis",
    )
    if mode == "edge":
        says = "EDGE padding mode requires an input of dimension of at least 1 at each spatial axis."
    else:
        says = f"{mode.upper()} padding mode requires that 'pads_begin[D]' and 'pads_end[D]' must be not "
        says += f"greater than 'data_shape[D]{' - 1' if mode == 'reflect' else ''}'."
    check(
        most is None or max(begin, end) <= most,
        f"{says} an axis of {extent} elements accepts at most {most} more",
    )


def _infer_pad(
    data: TensorType,
    pads_begin: TensorType,
    pads_end: TensorType,
    value: TensorType | None,
    mode: str,
    negative: bool,
) -> TensorType:
    check(
        value is None or value.dtype in (data.dtype, "dynamic"),
        f"Argument element types do not match (input arg element type: {data.dtype}, arg_pad element type: "
        f"{value and value.dtype}).",
    )
    check(value is None or value.rank in (None, 0), f"the pad value {value} should be a scalar")
    begin, end = (
        shape_value(
            pads,
            name,
            f"{name} must be an integral number, but is: {{type}}).",
            f"Argument for {name} is not 1D.",
        )
        for pads, name in ((pads_begin, "pads_begin"), (pads_end, "pads_end"))
    )
    rank = data.rank if data.rank is not None else (given_rank(pads_begin) or given_rank(pads_end))
    if rank is None:
        return TensorType(data.dtype, None)
    for pads, name in ((pads_begin, "pads_begin"), (pads_end, "pads_end")):
        check(
            length(pads) in (None, rank),
            f"length of {name} mismatches with rank of input, expect {rank}, but got {length(pads)}",
        )
    if data.shape is None:
        return TensorType(data.dtype, (ANY,) * rank)
    if begin is None or end is None:
        first = partial_dims(pads_begin) if begin is None else begin.tolist()
        last = partial_dims(pads_end) if end is None else end.tolist()
        return TensorType(data.dtype, _partly_padded(data.shape, first, last, negative))
    check(
        negative or (min(begin, default=0) >= 0 and min(end, default=0) >= 0),
        "the pads should not be negative",
    )
    out: list[Dim] = []
    for d, b, e in zip(data.shape, begin.tolist(), end.tolist(), strict=True):
        if isinstance(d, Interval):
            out.append(d + (b + e) if b + e >= 0 else d - (-b - e))
        else:
            check_pad(d, b, e, mode)
            out.append(d + b + e)
    return TensorType(data.dtype, out)


def _partly_padded(
    shape: Shape, begin: Sequence[Dim] | None, end: Sequence[Dim] | None, negative: bool
) -> Shape:
    """The output shape for pads of which at least bounds are known; None: not even these."""
    if begin is None or end is None:
        return (ANY,) * len(shape)
    out: list[Dim] = []
    for d, first, last in zip(shape, begin, end, strict=True):
        pads = first + last if negative else sym_max(first, 0) + sym_max(last, 0)
        out.append(sym_max(d + pads, 0))
    return tuple(out)


@op(
    "Pad", opset=1, types=NUMBERS,
    lower=".cpu_pad:Padded", images=pad_images, bounds=(1, 2),
)  # fmt: skip
class Pad1:
    """Pads each dimension with `pads_begin` elements before and `pads_end` after the data."""

    words = {"pad_mode": "ov::op::PadMode: CONSTANT EDGE REFLECT SYMMETRIC"}

    def infer(data, pads_begin, pads_end, pad_value=None, *, pad_mode: Word):
        return _infer_pad(data, pads_begin, pads_end, pad_value, pad_mode, False)

    def ref(data, pads_begin, pads_end, pad_value=None, *, pad_mode):
        fill = data.dtype.type(0) if pad_value is None else pad_value.reshape(())
        begin, end = (pads.reshape(-1).tolist() for pads in (pads_begin, pads_end))
        return pad_array(data, begin, end, pad_mode, fill)


@op("Pad", opset=12, like=Pad1)
class Pad12:
    """Pad-1 in which negative pads crop."""

    def infer(data, pads_begin, pads_end, pad_value=None, *, pad_mode: Word):
        return _infer_pad(data, pads_begin, pads_end, pad_value, pad_mode, True)


def range_length(start: Any, stop: Any, step: Any) -> int:
    """The number of elements of start, start + step, ... before `stop`. Raises InferenceError for step 0, NaN
    or infinity."""
    if not step or step != step or start != start or stop != stop or math.inf in (abs(start), abs(stop)):
        raise InferenceError(f"a range from {start} to {stop} by {step} is infinite")
    if isinstance(step, float):
        return max(0, math.ceil((stop - start) / step))
    return sym_max(0, -(-(stop - start) // step))


def _open_range(start: TensorType, stop: TensorType, step: TensorType) -> Dim:
    """The extent of a range with partially known limits."""
    limits: list[Dim] = []
    for x in (start, stop, step):
        value = x.value if x.partial is None else x.partial
        if x.dtype not in INTEGERS or value is None or is_traced(value):
            return ANY
        limits.append(value.item())
    first, last, by = limits
    if isinstance(by, Interval) or by == 0:
        return ANY
    way = subtract(last, first) if by > 0 else subtract(first, last)
    return (sym_max(way, 0) + abs(by) - 1) // abs(by)


def _infer_range(start: TensorType, stop: TensorType, step: TensorType, dtype: str) -> TensorType:
    for name, x in (("start", start), ("stop", stop), ("step", step)):
        check_scalar(x, f"'{name}' input is not a scalar")
        ok = not is_static(x.shape) or math.prod(x.shape) == 1
        check(
            ok and x.dtype in (*NUMBERS, "dynamic"),
            f"the limits of a range should be scalar numbers, not {x}",
        )
    if start.value is None or stop.value is None or step.value is None:
        return TensorType(dtype, (_open_range(start, stop, step),))
    check(step.value.item() != 0, "'step' cannot be zero, nan, or infinite.")
    try:
        count = range_length(*_range_limits(start.value, stop.value, step.value, dtype))
    except InferenceError as error:
        raise ModelError(str(error)) from error
    out = TensorType(dtype, (count,))
    return (
        with_value(out, lambda *v: _range(v[0], v[1], v[2], dtype), start, stop, step)
        if not is_traced_number(count) and count <= 1024
        else out
    )


def _range_limits(start: Any, stop: Any, step: Any, dtype: str) -> tuple[Any, Any, Any]:
    limits = [np.asarray(v) for v in (start, stop, step)]
    if any(map(is_traced, limits)) and (
        dtype[0] in "iu" or all(is_traced(v) or v.dtype.kind in "iu" for v in limits)
    ):
        return tuple(sym_int(v.item()) for v in limits)
    # Limits of an integer range are truncated first: a range from 0 to 4.7 in i64 ends before 4.
    values = [(v if v.dtype.kind in "iubf" else v.astype(np.float64)).item() for v in limits]
    if dtype[0] in "iu":
        return tuple(int(v) for v in values)  # type: ignore[return-value]
    return tuple(float(v) for v in values)  # type: ignore[return-value]


def _range(start: np.ndarray, stop: np.ndarray, step: np.ndarray, dtype: str) -> np.ndarray:
    first, last, by = _range_limits(start, stop, step, dtype)
    count = range_length(first, last, by)
    numbers: np.ndarray = np.arange(count, dtype=np.int64 if dtype[0] in "iu" else np.float64)
    numbers *= by
    numbers += first
    return numbers.astype(numpy_dtype(dtype), copy=False)


@op("Range", opset=1, types=NUMBERS, lower=".cpu_range:Ranged.of", bounds=(0, 1, 2))
class Range1:
    """start, start + step, ... before stop."""

    def infer(start, stop, step):
        for x in (stop, step):
            check_same_type(x, start, "the limit")
        return _infer_range(start, stop, step, start.dtype)

    def ref(start, stop, step):
        return _range(start, stop, step, from_numpy(start.dtype))


@op("Range", opset=4, like=Range1)
class Range4:
    """start, start + step, ... before stop, as `output_type`."""

    words = {"output_type": NUMBERS}

    def infer(start, stop, step, *, output_type: DType):
        return _infer_range(start, stop, step, output_type)

    def ref(start, stop, step, *, output_type):
        return _range(start, stop, step, output_type)
