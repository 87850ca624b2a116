"""Proves that the steps of a plan and their chunks have no data races. Run under OVJIT_CHECK=1.

The plan is walked once, step by step. A map has the last writing step and its buffer for each byte of the
arena and of the outputs. The checks:

- A step reads only bytes that were written for the buffer that it names, halos included.
- A group's inputs are unchanged: no step has written in place over a value with later readers. Nor has one
  over the model's outputs, which are read after the last step.
- A step that may overlap the previous step in time neither reads nor writes that step's outputs.
- No two chunks of a step write the same byte, and no chunk reads a byte that another chunk writes. This needs
  a step that states the bytes of each chunk (`touches`, for most kernels a `Rows`). Other steps of several
  chunks may overwrite a tensor only by a view of equal offset and shape.

Inputs and constants have no writer, except the inputs in `Planner.written_inputs`. For these the lowering
states that its chunks are disjoint. OvjitError names the step and the byte.

A planning with traced numbers is checked for the numbers that it was made with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ovjit.errors import OvjitError
from ovjit.graph.traced import as_found_number
from ovjit.planning.touches import Touches, Trace, without_traces
from ovjit.planning.views import ARENA, FIRST_IO, Buffer, View

if TYPE_CHECKING:
    from ovjit.graph.graph import Value
    from ovjit.planning.plan_steps import Step


class Planning(Protocol):
    """A planner with all its steps (`ovjit.planning.plan.Planner`)."""

    output_buffers: list[Buffer]
    outputs: list[Value]
    written_inputs: set[Buffer]
    grown: list[View]
    steps: list[Step]
    trace: Trace | None

    @property
    def views(self) -> Mapping[Value, View]: ...


def _view_without_traces(view: View) -> View:
    """The view, without traces."""
    halo = [(as_found_number(before), as_found_number(after)) for before, after in view.halo]
    shape, strides = without_traces(view.shape), without_traces(view.strides)
    return View(view.buffer, shape, strides, view.itemsize, as_found_number(view.offset), halo)


def _entries_of(array: np.ndarray, view: View, shape: Sequence[int]) -> np.ndarray:
    """`array` has one entry per byte, from the first byte of `view` on: the entries of the view's bytes, as
    an array of `shape` and itemsize."""
    strides = [s * array.itemsize for s in (*view.strides, 1)]
    return np.lib.stride_tricks.as_strided(array, (*shape, view.itemsize), strides)


class _Memory:
    """The last writer of each byte of the arena and of the outputs: the step, and the buffer's number."""

    def __init__(self, planner: Planning, arena: int):
        sizes = {ARENA: arena} | {b.base: as_found_number(b.size) for b in planner.output_buffers}
        self.step = {base: np.full(size, -1, np.int32) for base, size in sizes.items()}
        self.owner = {base: np.full(size, -1, np.int32) for base, size in sizes.items()}
        self.numbers: dict[int, int] = {}
        for view in planner.grown:  # written before the first step
            window = self.window(self.owner[view.buffer.base], _view_without_traces(view), False)
            window[...] = self.number(view.buffer)

    def number(self, buffer: Buffer) -> int:
        return self.numbers.setdefault(id(buffer), len(self.numbers))

    def window(self, array: np.ndarray, view: View, halo: bool) -> np.ndarray:
        """The entries of `array` for the bytes of `view`, with its halo if `halo`."""
        offset, shape = view.buffer.offset + view.offset, list(view.shape)
        if halo:
            for axis, (before, after) in enumerate(view.halo):
                offset -= before * view.strides[axis]
                shape[axis] += before + after
        if not all(shape):
            return array[:0]
        return _entries_of(array[offset:], view, shape)


def check_races(planner: Planning, arena: int) -> None:
    """Check a finished planning. `arena`: the arena's size in bytes. Raises OvjitError."""
    trace = planner.trace
    assert trace is not None and len(trace.steps) == len(planner.steps)
    trace.settle(planner.views)
    memory = _Memory(planner, arena)
    groups = iter([*trace.groups, (len(trace.steps), None)])
    following = next(groups)
    open_since = 0  # the first step that may still run when this one begins
    for index, (traced_reads, traced_writes, touches) in enumerate(trace.steps):
        reads, writes = (list(map(_view_without_traces, views)) for views in (traced_reads, traced_writes))
        while following[0] <= index:
            current, following = following, next(groups)
            if current[1] is not None:
                _check_inputs(planner, memory, current[1], following[0], current[0])
        name = f"step {index} of {planner.steps[index].name!r}"
        for view in reads:
            _check_read(planner, memory, view, name)
        for view in writes:
            if view.buffer.base != ARENA and view.buffer.base < FIRST_IO + _inputs(planner):
                if view.buffer not in planner.written_inputs:
                    raise OvjitError(f"internal error: {name} writes to an input or a constant")
        for views, halo in ((reads, True), (writes, False)):
            _check_beside(memory, range(open_since, index), views, halo, name)
        if not planner.steps[index].goes_on:
            open_since = index + 1
        chunks = as_found_number(planner.steps[index].chunks)
        checked = set() if touches is None else _check_chunks(touches, chunks, reads, writes, name)
        if chunks > 1:
            _check_in_place([view for view in reads if id(view.buffer) not in checked], writes, name)
        for view in writes:
            if view.buffer in planner.written_inputs:
                continue
            memory.window(memory.step[view.buffer.base], view, False)[...] = index
            memory.window(memory.owner[view.buffer.base], view, False)[...] = memory.number(view.buffer)
    for value, buffer in zip(planner.outputs, planner.output_buffers, strict=True):
        result = planner.views.get(value)
        if result is not None and result.buffer is buffer:
            _check_unchanged(planner, memory, value, len(trace.steps), "the caller")


def _inputs(planner: Planning) -> int:
    return planner.output_buffers[0].base - FIRST_IO if planner.output_buffers else 1 << 30


def _check_read(planner: Planning, memory: _Memory, view: View, name: str) -> None:
    base = view.buffer.base
    if base not in memory.owner:
        return
    owners = memory.window(memory.owner[base], view, True)
    wrong = owners != memory.number(view.buffer)
    if wrong.any():
        at = np.argwhere(wrong)[0]
        step = int(memory.window(memory.step[base], view, True)[tuple(at)])
        who = "no step wrote" if step < 0 else f"{planner.steps[step].name!r} wrote for another value"
        raise OvjitError(
            f"internal error: {name} reads data that {who}: element {at[:-1].tolist()}, with its halo, of a "
            f"view of {list(view.shape)}"
        )


def _check_beside(memory: _Memory, before: range, views: Sequence[View], halo: bool, name: str) -> None:
    """Raise OvjitError if a step touches bytes written by the steps `before`, which may still be running."""
    for view in views:
        if before and view.buffer.base in memory.step:
            last = int(memory.window(memory.step[view.buffer.base], view, halo).max(initial=-1))
            if last in before:
                raise OvjitError(
                    f"internal error: {name} begins before step {last}, on which it depends, is complete"
                )


def _check_inputs(planner: Planning, memory: _Memory, group: Any, end: int, first: int) -> None:
    """Raise OvjitError if an input of `group`, whose steps are `first` to `end`, was overwritten before."""
    trace = planner.trace
    assert trace is not None
    read = {id(view.buffer) for reads, _, _ in trace.steps[first:end] for view in reads}
    for value in group.inputs:
        view = planner.views.get(value)
        if view is not None and id(view.buffer) in read:
            _check_unchanged(planner, memory, value, first, repr(group.name))


def _check_unchanged(planner: Planning, memory: _Memory, value: Value, first: int, reader: str) -> None:
    """Raise OvjitError if a step before `first` has overwritten `value`, which was complete before it."""
    view = _view_without_traces(planner.views[value])
    if view.buffer.base not in memory.step:
        return
    assert planner.trace is not None
    done = planner.trace.done.get(value, first)
    late = int(memory.window(memory.step[view.buffer.base], view, False).max(initial=-1))
    if done <= first and late >= done:
        raise OvjitError(
            f"internal error: step {late} ({planner.steps[late].name!r}) overwrites {value!r}, which "
            f"{reader} still reads"
        )


def _check_chunks(
    touches: Touches, chunks: int, reads: Sequence[View], writes: Sequence[View], name: str
) -> set[int]:
    """Raise OvjitError if two chunks write a byte, one reads what another writes, or one writes outside of
    the views. Returns the ids of the buffers for which `touches` states the bytes that chunks read."""
    spans = {id(b): b for view in (*reads, *writes) for b in (view.buffer,)}
    size = dict.fromkeys(spans, 0)
    parts = [touches(chunk) for chunk in range(chunks)]
    for read, written in parts:
        for buffer, offsets in (*read, *written):
            if id(buffer) not in spans:
                raise OvjitError(
                    f"internal error: a chunk of {name} accesses a tensor that it does not declare"
                )
            if offsets.size:
                if offsets.min() < 0:
                    raise OvjitError(f"internal error: {name} accesses bytes before its tensor")
                size[id(buffer)] = max(size[id(buffer)], int(offsets.max()) + 1)
    writer = {key: np.full(n, -1, np.int32) for key, n in size.items()}
    for part, does in ((1, "writes"), (0, "reads")):
        for chunk, touched in enumerate(parts):
            for buffer, offsets in touched[part]:
                entry = writer[id(buffer)][offsets]
                other = entry[(entry >= 0) & (entry != chunk)]
                if other.size:
                    both = f"chunk {chunk} of {name} {does} what its chunk {int(other[0])} writes"
                    raise OvjitError(f"internal error: {both}")
                if part == 1:
                    writer[id(buffer)][offsets] = chunk
    for view in writes:
        all_there = [one for one in writes if one.buffer is view.buffer]
        declared = np.zeros(max(size[id(view.buffer)], *(one.reach[1] for one in all_there)), bool)
        for one in all_there:
            if one.count:
                _entries_of(declared[one.offset :], one, one.shape)[...] = True
        beside = (writer[id(view.buffer)] >= 0) & ~declared[: size[id(view.buffer)]]
        if beside.any():
            at = int(beside.argmax())
            raise OvjitError(f"internal error: {name} writes byte {at}, outside of its output")
    return {id(buffer) for read, _ in parts for buffer, _ in read}


def _shares_bytes(one: View, other: View) -> bool:
    """True if views of one buffer have a byte in common: parts of a concatenation's pixels may lie between
    each other."""
    is_of_one = np.zeros(max(one.reach[1], other.reach[1]), bool)
    _entries_of(is_of_one[one.offset :], one, one.shape)[...] = True
    return bool(_entries_of(is_of_one[other.offset :], other, other.shape).any())


def _check_in_place(reads: Sequence[View], writes: Sequence[View], name: str) -> None:
    for view in writes:
        for other in reads:
            if other.buffer is view.buffer and (other.offset, other.shape) != (view.offset, view.shape):
                low, high = max(view.reach[0], other.reach[0]), min(view.reach[1], other.reach[1])
                if low < high and _shares_bytes(view, other):
                    raise OvjitError(
                        f"internal error: chunks of {name} overwrite bytes that other chunks read"
                    )
