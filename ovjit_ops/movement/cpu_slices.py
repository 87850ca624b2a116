"""Slices and repetitions as views: Slice, StridedSlice, Broadcast, Reverse, evenly spaced Gather.

A negative step is a negative stride, a repeated dimension a stride of 0. With inputs that are unknown when
shapes are known, the reference runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ovjit.graph.graph import Node
from ovjit.graph.shapes import normalize_axis
from ovjit.graph.traced import is_traced
from ovjit.planning.lower import AsInput, Group, Lowering, NotNative, Planner, View
from ovjit_ops.common import slices

#: known(i): the value of input i; None if it does not exist. Raises NotNative if it is unknown.
Known = Callable[[int], "np.ndarray | None"]


class Viewed(AsInput):
    """An operation whose output is a view of input 0, made by `view(node, source, known)`."""

    def __init__(self, group: Group, view: Callable[[Node, View, Known], View]):
        super().__init__(group)
        self.make = view

    def plan(self, planner: Planner) -> None:
        node = self.group.last

        def value_of(i: int) -> np.ndarray | None:
            return planner.shape_value(node.inputs[i]) if i < len(node.inputs) else None

        planner.alias_or_copy(node.output, self.make(node, planner.view(node.inputs[0]), value_of))


def cut(view: View, axis: int, named: range | slices.TracedRange) -> View:
    """The view of the elements at the indices `named` along `axis`."""
    count = slices.count_of(named)
    if named.step == 1 and not isinstance(named, range):
        return view.slice(axis, named.start, count)
    if count < 2:  # the step may exceed the range of addresses
        return view.slice(axis, named[0] if count else 0, count)
    return view.slice(axis, named[0], count, named.step)


def slice_view(node: Node, source: View, value_of: Known) -> View:
    """The view of Slice."""
    cuts = slices.axis_slices(len(source.shape), value_of(1), value_of(2), value_of(3), value_of(4))
    for axis, limits in cuts.items():
        source = cut(source, axis, slices.resolve_slice(source.shape[axis], *limits))
    return source


class ScatteredSlice(Lowering):
    """SliceScatter: copy the data, then copy the updates into the slice."""

    def plan(self, planner: Planner) -> None:
        node = self.group.last
        limits = [planner.shape_value(v) for v in node.inputs[2:]]
        data, updates = planner.view(node.inputs[0]), planner.view(node.inputs[1])
        out = planner.output(node.output)
        if not out.count:
            return
        planner.copy_step(data, out, "")
        part = slice_view(node, out, lambda i: limits[i - 1] if i <= len(limits) else None)
        planner.copy_step(updates, part, "")


def reverse_view(node: Node, source: View, value_of: Known) -> View:
    """The view of Reverse: negative strides along the reversed axes."""
    axes = value_of(1)
    assert axes is not None
    for axis in slices.axes_to_reverse(axes, len(source.shape), node.attrs["mode"]):
        extent = source.shape[axis]
        source = source if extent < 2 else source.slice(axis, extent - 1, extent, -1)
    return source


def strided_slice_view(node: Node, source: View, value_of: Known) -> View:
    """The view of StridedSlice, with all masks."""
    names = ("begin_mask", "end_mask", "new_axis_mask", "shrink_axis_mask", "ellipsis_mask")
    masks = {k: node.attrs[k] for k in names}
    shape: list[int] = []
    strides: list[int] = []
    offset = source.offset
    for step in slices.strided_plan(source.shape, value_of(1), value_of(2), value_of(3), masks):
        if step[0] == "new":
            shape.append(1)
            strides.append(source.itemsize)
            continue
        extent, stride = source.shape[step[1]], source.strides[step[1]]
        if step[0] == "pick":
            offset += (step[2] % extent) * stride
            continue
        if step[0] == "all":
            shape.append(extent)
            strides.append(stride)
            continue
        named = slices.resolve_slice(extent, *step[2:])
        count = slices.count_of(named)
        shape.append(count)
        strides.append(stride * named.step if count > 1 else stride)
        offset += named[0] * stride if count else 0
    return View(source.buffer, shape, strides, source.itemsize, offset)


def broadcast_view(node: Node, source: View, value_of: Known) -> View:
    """The view of Broadcast: strides of 0."""
    target = value_of(1)
    assert target is not None
    mode = slices.broadcast_mode(node.attrs["mode"])
    axes = value_of(2) if mode == "explicit" else None
    shape, out = slices.broadcast_plan(source.shape, target.reshape(-1).tolist(), axes, mode)
    return source.as_shape(shape).expand(out)


def even_step(indices: np.ndarray) -> int | None:
    """The difference between neighbours in the flattened `indices`; None if it varies."""
    flat = indices.reshape(-1).tolist()
    steps = {b - a for a, b in zip(flat, flat[1:], strict=False)}
    return None if len(steps) > 1 else steps.pop() if steps else 1


def gather_view(node: Node, source: View, value_of: Known) -> View:
    """The view of Gather with evenly spaced indices in range: a slice, with the shape of the indices at
    `axis`. Raises NotNative for other indices."""
    indices, axes = value_of(1), value_of(2)
    assert indices is not None and axes is not None
    axis = normalize_axis(int(axes.reshape(-1)[0]), len(source.shape))
    extent = source.shape[axis]
    if is_traced(indices) and indices.size == 1:
        at = indices.reshape(-1)[0]
        at = at + extent if at < 0 else at
        if not 0 <= at < extent:
            raise NotNative
        return _slice_rows(source, axis, at, 1, 1, indices.shape)
    positions = indices.astype(np.int64)
    positions = np.where(positions < 0, positions + extent, positions)
    step = even_step(positions)
    if step is None or (positions.size and not 0 <= positions.min() <= positions.max() < extent):
        raise NotNative
    first = int(positions.reshape(-1)[0]) if positions.size else 0
    return _slice_rows(source, axis, first, positions.size, step, indices.shape)


def _slice_rows(source: View, axis: int, first: int, count: int, step: int, shape: tuple[int, ...]) -> View:
    part = source.slice(axis, first, count, step)
    return part.as_shape((*part.shape[:axis], *shape, *part.shape[axis + 1 :]))


lower_reverse = partial(Viewed, view=reverse_view)
lower_slice = partial(Viewed, view=slice_view)
lower_strided_slice = partial(Viewed, view=strided_slice_view)
lower_broadcast = partial(Viewed, view=broadcast_view)
