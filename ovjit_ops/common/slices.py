"""Shapes of slices, by Python's rules with OpenVINO's exceptions, and of Broadcast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.shapes import (
    Dim,
    Interval,
    bounds,
    broadcast,
    dim,
    normalize_axes,
    normalize_axis,
    text,
    up_to,
)
from ovjit.graph.symbolic import UNKNOWN, alike, sym_int, sym_max, sym_min
from ovjit.graph.traced import LARGEST, is_traced_number, whole_numbers
from ovjit.records import NamedTuple


def resolve_slice(
    extent: Any, start: Any, stop: Any, step: int, begin_open: bool = False, end_open: bool = False
) -> range | TracedRange:
    """The indices of extent[start:stop:step]. `begin_open`, `end_open`: without this bound.

    Python's rules, with one exception, as in OpenVINO and ONNX: a negative step that begins before the first
    element begins at it.
    """
    if any(is_traced_number(x) for x in (extent, start, stop, step)):
        return _resolve_traced_slice(extent, start, stop, sym_int(step), begin_open, end_open)
    cut = slice(None if begin_open else start, None if end_open else stop, step)
    first, last, step = cut.indices(extent)
    if step < 0 and first < 0 < extent:
        first = 0
    return range(first, last, step)


class TracedRange(NamedTuple):
    """A `range` of traced numbers. Its count may be traced, which `len` does not allow."""

    start: Any
    step: int
    count: Any

    def __getitem__(self, index: Any) -> Any:
        assert index == 0
        return self.start


def _resolve_traced_slice(
    extent: Any, start: Any, stop: Any, step: int, begin_open: bool, end_open: bool
) -> TracedRange:
    """`resolve_slice` for traced numbers."""

    def inside(at: Any, low: Any, high: Any) -> Any:
        if type(at) is int and at < -LARGEST:  # exporters' "to the start": a sum with it has no trace
            return low
        return sym_min(sym_max(at + extent if at < 0 else at, low), high)

    step = int(step)
    low, high = (0, extent) if step > 0 else (-1, extent - 1)
    first = (low if step > 0 else high) if begin_open else inside(start, low, high)
    last = (high if step > 0 else low) if end_open else inside(stop, low, high)
    if step < 0 and first < 0 and 0 < extent:
        first = 0
    span = last - first if step > 0 else first - last
    return TracedRange(first, step, sym_max(0, -(-span // abs(step))))


def count_of(named: range | TracedRange) -> int:
    """The number of indices."""
    return named.count if isinstance(named, TracedRange) else len(named)


def as_slice(named: range | TracedRange) -> slice:
    """These indices as a slice for NumPy, where a stop of -1 would be the last element."""
    assert isinstance(named, range)  # extents of arrays are ints
    return slice(named.start, None if named.stop < 0 else named.stop, named.step) if named else slice(0, 0)


#: Exporters' value for "to the end".
NO_END = 2**63 - 1
#: Larger counts are unbounded.
COUNTLESS = 2**62


def slice_extent(
    extent: Dim, start: Dim, stop: Dim, step: int, begin_open: bool = False, end_open: bool = False
) -> Dim:
    """The number of elements of extent[start:stop:step], see `resolve_slice`."""
    if not any(isinstance(d, Interval) for d in (extent, start, stop)):
        return count_of(resolve_slice(extent, start, stop, step, begin_open, end_open))
    lo, hi = bounds(extent)
    end_open = end_open or (step > 0 and bounds(stop)[0] >= (NO_END if hi is None else hi))
    if step == 1 and end_open and (begin_open or start == 0):
        return extent
    start, stop = 0 if begin_open else start, 0 if end_open else stop
    if is_traced_number(start) or is_traced_number(stop) or (start == UNKNOWN and stop == UNKNOWN):
        return up_to(extent)
    # The count is monotonic between the numbers that are tried: it changes direction where a limit meets 0 or
    # an end of the extent.
    ends = {0} | {abs(x) for d in (start, stop) for x in bounds(d) if x is not None}
    counts = [
        count_of(resolve_slice(n, first, last, step, begin_open, end_open))
        for n in _list_candidates(extent, ends)
        for first in _list_candidates(start, {0, n, -n})
        for last in _list_candidates(stop, {0, n, -n})
    ]
    most = max(counts)
    return dim(min(counts), None if most * abs(step) >= COUNTLESS else most)


def _list_candidates(d: Dim, bends: set[int]) -> set[int]:
    """The bounds of `d`, and its numbers next to `bends`."""
    lo, hi = bounds(d)
    hi = NO_END if hi is None else hi
    return {lo, hi} | {x for bend in bends for x in range(bend - 1, bend + 2) if lo <= x <= hi}


def dims_of(array: Any) -> list[Dim]:
    """An array of integers as a list of ints; Intervals and traced numbers are kept."""
    return [sym_int(x) for x in np.asarray(array).reshape(-1).tolist()]


def axis_slices(rank: int, start: Any, stop: Any, step: Any, axes: Any) -> dict[int, tuple[Dim, Dim, int]]:
    """axis -> (start, stop, step). start and stop may be dynamic. Raises ModelError if the lists do not match
    or a step is 0."""
    start, stop, step = (dims_of(x) for x in (start, stop, step))
    numbers = list(range(len(start))) if axes is None else [int(v) for v in np.asarray(axes).reshape(-1)]
    check(
        len(start) == len(stop) == len(step),
        "Slice `start`, `stop`, `step` inputs must have compatible shapes.",
    )
    check(
        len(start) == len(numbers),
        "Slice `axes` input must have compatible shape with `start`, `stop`, `step` inputs.",
    )
    check(all(step), "Step must be non-zero")
    normal = [normalize_axis(a, rank) for a in numbers]
    check(len(set(normal)) == len(normal), f"Slice values in `axes` input must be unique. They are {numbers}")
    check(len(normal) <= rank, f"{len(normal)} slices exceed rank {rank}")
    return {a: (b, e, s) for a, b, e, s in zip(normal, start, stop, step, strict=True)}


def strided_plan(
    shape: Sequence[Dim], begin: Any, end: Any, strides: Any, masks: dict[str, Any]
) -> list[tuple]:
    """StridedSlice as a list of steps, one per dimension of the masked index: ("new",), ("all", axis),
    ("pick", axis, index) or ("cut", axis, start, stop, step, begin_open, end_open).

    Raises ModelError for a stride of 0, too many entries or an index out of range.
    """
    begin, end = (dims_of(x) for x in (begin, end))
    strides = [1] * len(begin) if strides is None else whole_numbers(strides)
    check(len(begin) == len(end), "Begin and end need to have same number of values.")
    check(len(begin) == len(strides), "begin, end and strides should have the same length")
    check(all(strides), "Stride must be non-zero")

    def on(mask: str, i: int) -> bool:
        return i < len(masks[mask]) and bool(masks[mask][i])

    n = len(begin)
    check(sum(on("ellipsis_mask", i) for i in range(n)) <= 1, "ellipsis_mask can set at most one ellipsis")
    used = sum(not on("new_axis_mask", i) and not on("ellipsis_mask", i) for i in range(n))
    check(
        used <= len(shape),
        "Input rank plus number of new axis has to be at least the size of Lower and Upper bounds "
        f"vector. {used} slices exceed rank {len(shape)}",
    )
    plan: list[tuple] = []
    axis = 0
    for i in range(n):
        if on("ellipsis_mask", i):
            for _ in range(len(shape) - used):
                plan.append(("all", axis))
                axis += 1
        elif on("new_axis_mask", i):
            plan.append(("new",))
        elif on("shrink_axis_mask", i):
            at = 0 if on("begin_mask", i) else begin[i]
            extent = shape[axis]
            check(
                isinstance(extent, Interval) or isinstance(at, Interval) or -extent <= at < extent,
                f"index {at} is out of range for a dimension of {extent}",
            )
            plan.append(("pick", axis, at))
            axis += 1
        else:
            plan.append(("cut", axis, begin[i], end[i], strides[i], on("begin_mask", i), on("end_mask", i)))
            axis += 1
    plan += [("all", a) for a in range(axis, len(shape))]
    return plan


def _broadcast_axes(shape: tuple[int, ...], target: tuple[int, ...], axes: np.ndarray) -> tuple[int, ...]:
    """The data's shape in the target's rank: 1 for dimensions that `axes` (axes_mapping) does not have."""
    numbers = [int(a) for a in np.asarray(axes).reshape(-1)]
    check(
        len(numbers) == len(shape),
        f"Broadcast axes_mapping shape [{len(numbers)}] doesn't match rank of input tensor {len(shape)}",
    )
    check(
        numbers == sorted(set(numbers)),
        f"Broadcast doesn't permit transposes. axes_mapping AxisVector{{{', '.join(map(str, numbers))}}} not "
        "in sorted order",
    )
    out = [1] * len(target)
    for i, (d, p) in enumerate(zip(shape, numbers, strict=True)):
        check(0 <= p < len(target), f"Broadcast axes_mapping[{i}]: {p} exceeds target rank {len(target)}")
        check(d in (1, target[p]), f"Broadcast target[axes_mapping[{i}]] Expected {d}. Got {target[p]}")
        out[p] = d
    return tuple(out)


def broadcast_mode(mode: str) -> str:
    """Broadcast's mode. OpenVINO writes "none" for the mode "explicit" of Broadcast-1."""
    return "explicit" if mode == "none" else mode


def broadcast_plan(
    shape: tuple[int, ...], target: Sequence[int], axes: np.ndarray | None, mode: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(shape to reshape the data to, shape of the result). Raises ModelError if the data do not broadcast."""
    sizes = tuple(sym_int(v) for v in target)
    check(all(v >= 0 for v in sizes), f"target_shape {list(sizes)} should not be negative")
    if mode == "explicit":
        check(axes is not None, "the explicit mode needs axes_mapping")
        view = _broadcast_axes(shape, sizes, axes)  # type: ignore[arg-type]
    else:
        view = shape
        check(
            mode == "bidirectional" or len(shape) <= len(sizes),
            f"Broadcast target_shape has smaller rank {len(sizes)} than arg shape {len(shape)}",
        )
        for d, t in zip(reversed(shape), reversed(sizes), strict=False):
            if mode == "bidirectional":
                says = f"Broadcast incorrect target shape. Expecting either 1 or {d}. Got {t}"
                check(d == t or 1 in (d, t), says)
            else:
                says = f"Input shape dimension equal {d} cannot be broadcasted (numpy mode) to {t}."
                check(alike(d, t) or d in (1, t), f"{says} Allowed input dimension value would be 1 or {t}")
    out = broadcast(view, sizes)
    check(mode == "bidirectional" or out == sizes, f"{text(shape)} cannot be broadcast to {list(sizes)}")
    return view, tuple(sym_int(d) for d in out or ())


def axes_to_reverse(axes: np.ndarray, rank: int, mode: str) -> tuple[int, ...]:
    """The axes to reverse. Raises ModelError for invalid axes or masks."""
    flat = np.asarray(axes).reshape(-1)
    if mode == "mask":
        check(flat.size == rank, f"the mask has {flat.size} entries; expected {rank}")
        return tuple(int(a) for a in np.flatnonzero(flat))
    return normalize_axes([int(a) for a in flat], rank)
