"""The plan for one set of input shapes: the argument block of each step, and the address of each tensor.

A `Planner` visits the lowerings in order with concrete shapes. A lowering gets views of its inputs
(`value_views.py`: a copy is inserted if a view does not fit), gets output buffers (here), and adds steps
(`step_list.py`). Then buffers get offsets in one arena by lifetime, and pointers become (base, offset) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovjit import debug
from ovjit.codegen.cpu.targets import Target
from ovjit.graph.graph import Node, Value
from ovjit.graph.symbolic import alike
from ovjit.graph.traced import is_traced_number
from ovjit.planning.arena import assign_offsets
from ovjit.planning.chunks import PARALLEL_WORK
from ovjit.planning.chunks import ceil_div as ceil_div
from ovjit.planning.chunks import split as split
from ovjit.planning.constants import ALIGNMENT as ALIGNMENT
from ovjit.planning.constants import Constants as Constants
from ovjit.planning.constants import Filling as Filling
from ovjit.planning.constants import Panels as Panels
from ovjit.planning.constants import align_up, is_native
from ovjit.planning.constants import aligned_bytes as aligned_bytes
from ovjit.planning.constants import element_size as element_size
from ovjit.planning.plan_steps import Plan as Plan
from ovjit.planning.plan_steps import Probe as Probe
from ovjit.planning.plan_steps import Step as Step
from ovjit.planning.plan_steps import Strides as Strides
from ovjit.planning.races import check_races
from ovjit.planning.step_list import NotNative as NotNative
from ovjit.planning.value_views import ValueViews, has_halo
from ovjit.planning.views import (
    ARENA,
    CONSTANTS,
    FIRST_IO,
    PLAN_DATA,
    Buffer,
    Layout,
    Ptr,
    View,
    product,
    row_major,
    row_major_layout,
    same_strides,
)

NO_STRIDES = Strides({}, {})


class Planner(ValueViews):
    """Plans concrete shapes. This class allocates outputs; the base classes add steps and hold the views."""

    def __init__(
        self,
        types: Mapping[Value, Any],
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        layouts: Mapping[Value, Layout],
        constants: Constants,
        strides: Strides = NO_STRIDES,
        *,
        target: Target,
    ):
        super().__init__(types, layouts, constants, target)
        self.outputs = list(outputs)
        self.last_use: Mapping[Value, int] = {}  # value -> index of the last group that reads it
        self.index = 0  # of the group that is being planned
        #: Buffers of inputs that steps write in place: the caches of paged attention.
        self.written_inputs: set[Buffer] = set()
        self.pinned: set[Buffer] = set()  # buffers that must not be overwritten in place
        self.read_later: set[Value] = set()  # values that later lowerings of the current group read
        #: Deferred value -> (the value whose elements it repeats, axis -> number of repetitions).
        self.repeats: dict[Value, tuple[Value, Mapping[int, int]]] = {}
        self.placed: dict[Value, View] = {}  # where the producer must write
        self.offered: dict[Value, View] = {}  # where the producer may write if it writes row-major
        self.overwritten: set[Value] = set()  # offered values over which their only reader writes its result
        #: Value -> the order of its dimensions in memory in which its only reader, a view, is row-major.
        self.reader_orders: dict[Value, Sequence[int]] = {}
        self.readers: Mapping[Value, int] = {}  # value -> groups that read it; a model output counts as one
        self._instead: list[tuple[View, View]] = []  # (view that the group writes, view that gets a copy)
        self._reserved: dict[Value, View] = {}
        self._unclear: dict[Buffer, tuple[View, Layout]] = {}  # reserved, with the halo not cleared
        #: Views of inputs that share the memory of an output.
        self.grown: list[View] = []
        self._lay_ends(inputs, strides)

    def _lay_ends(self, inputs: Sequence[Value], strides: Strides) -> None:
        """Make the views of inputs, the buffers of outputs, and place outputs that have given strides."""
        types, outputs = self.types, self.outputs
        for i, value in enumerate(inputs):
            view = self.views[value] = self._end(value, Buffer(0, FIRST_IO + i), strides.inputs.get(i))
            view.buffer.size = _span(view.shape, view.strides, view.itemsize)
        sizes = (product(types[v].shape) * element_size(v.dtype) for v in outputs)
        self.output_buffers = [Buffer(size, base) for base, size in enumerate(sizes, FIRST_IO + len(inputs))]
        self._output_of = {v: i for i, v in reversed(list(enumerate(outputs)))}
        self._output_strides = strides.outputs
        for i, steps in strides.outputs.items():
            value = outputs[i]
            self.output_buffers[i].size = _span(types[value].shape, steps, element_size(value.dtype))
            if self._output_of[value] == i and value not in self.views and types[value].value is None:
                self.placed[value] = self._end(value, self.output_buffers[i], steps)
        for output, i in strides.over.items():
            view = self._end(inputs[i], self.output_buffers[output], strides.inputs[i])
            self.views[inputs[i]] = view
            self.grown.append(view)

    def _end(self, value: Value, buffer: Buffer, strides: Sequence[int] | None = None) -> View:
        """The view of a model input or output in `buffer`: with `strides` if given, else row-major."""
        shape, size = self.shape(value), element_size(value.dtype)
        return View(buffer, shape, strides or row_major(shape, size), size)

    def output(self, value: Value, layout: Layout | None = None, over: Sequence[View] = ()) -> View:
        """The view to which a group writes `value`, in `layout` (default: the layout pass's choice).

        It is, in this order: the place that a concatenation has chosen; the memory of a row-major model
        output; a view of `over` that fits; a new buffer. Memory whose values are read later
        (`is_read_later`) is not written. The group must read each view of `over` at the index that it writes.
        """
        shape, itemsize = self.shape(value), element_size(value.dtype)
        placed = self.placed.get(value)
        if placed is not None:
            self.clear_halo(placed.buffer)
            self.views[value] = placed
            return placed
        layout = layout or self.layouts.get(value) or row_major_layout(len(shape))
        there = self._output_view(value) if value in self._output_of else self.offered.get(value)
        if there is not None and (self.is_read_later(there.buffer, value) or not _is_plain(layout, shape)):
            there = None
        if there is None:
            there = next((v for v in over if self._may_overwrite(v, shape, itemsize, layout)), None)
        view = self.allocate(shape, itemsize, layout) if there is None else there
        self.views[value] = view
        return view

    def is_read_later(self, buffer: Buffer, value: Value | None = None) -> bool:
        """Whether a step after the current lowering may read a value of this memory: by any view of it, as a
        model output, or by a deferred step. The new result `value` does not count.

        Each decision to write over existing values asks this. It is about memory, because a value without
        later readers may be a view of one that has some."""
        if buffer in self.pinned:
            return True
        values = self.views.in_buffer.get(buffer, ())
        return any(
            v is not value and (self.last_use.get(v, -1) > self.index or v in self.read_later) for v in values
        )

    def goes_out(self, value: Value) -> bool:
        """Whether a row-major `value` may be written to the memory of a model output."""
        return value in self._output_of or value in self.offered

    def _output_view(self, value: Value) -> View:
        """The memory of a model output as a row-major view."""
        return self._end(value, self.output_buffers[self._output_of[value]])

    def offer_output(self, value: Value, source: Value, reshaped: bool = False) -> None:
        """Let the producer of `source` write to the memory of `value`, whose group may overwrite `source`.
        Has no effect unless `value` is a model output or written to the memory of one, its group is the only
        reader of `source`, and both have the same element size and shape. `reshaped`: `value` is a view of
        `source` with another shape. Then `source` may have other readers, unless a group after `value`
        overwrites this memory."""
        at = self._output_of.get(value)
        there = self.offered.get(value) if at is None else self._output_view(value)
        if there is None or value in self.placed or at in self._output_strides:
            return
        overwritten = not reshaped or value in self.overwritten
        if self.is_fixed(source) or (overwritten and self.readers.get(source) != 1):
            return
        sizes = element_size(source.dtype), element_size(value.dtype)
        if sizes[0] == sizes[1] and (reshaped or self.shape(source) == self.shape(value)):
            self.offered[source] = self._end(source, there.buffer)
            if overwritten:
                self.overwritten.add(source)

    def _may_overwrite(self, view: View, shape: Sequence[int], itemsize: int, layout: Layout) -> bool:
        size, strides, offset = layout.allocate(shape, itemsize)
        buffer = view.buffer
        return (
            bool(self.last_use)
            and buffer.base == ARENA
            and (len(view.shape), view.itemsize, view.offset) == (len(shape), itemsize, offset)
            and all(map(alike, view.shape, shape))
            and buffer.size == size
            and same_strides(shape, view.strides, strides)
            and view.halo == layout.halo
            and buffer in self.views.in_buffer
            and not self.is_read_later(buffer)
        )

    def channels_last_output(
        self, value: Value, axis: int = 1, over: Sequence[View] = (), any_order: bool = False
    ) -> View:
        """An output view whose elements along `axis` are adjacent, with the layout pass's halo and gaps.
        `any_order`: the other dimensions have the order that its reader wants, if there is one."""
        rank = len(value.shape)
        axis %= rank
        order = tuple(self.reader_orders.get(value, ())) if any_order else ()
        if order[-1:] != (axis,):
            order = (*(a for a in range(rank) if a != axis), axis)
        placed = self.placed.get(value)
        if placed is not None and placed.shape[axis] > 1 and placed.strides[axis] != placed.itemsize:
            del self.placed[value]  # the concatenation will copy it
        layout = self.layouts.get(value)
        halo, gap = (layout.halo, layout.gap) if layout else (None, False)
        return self.output(value, Layout(order, halo, gap), over)

    def defer(self, value: Value, make: Callable[[], View], source: Value) -> None:
        """Register `make` as the lazy producer of `value`. It runs at the first `view(value)`. A consumer
        that reads the source never triggers it. Inputs of a concatenation are made when it is planned, and
        need no memory before."""
        self.pinned.add(self.view(source).buffer)
        if value in self._output_of:
            self.views[value] = make()
        else:
            self.deferred[value] = self._group, make

    def repeat(self, value: Value, source: Value, times: Mapping[int, int], make: Callable[[], View]) -> None:
        """Defer `value`, in which each element of `source` occurs `times[axis]` times along an axis.
        Elementwise consumers may read the source by `before_repeats` instead."""
        self.repeats[value] = source, times
        self.defer(value, make, source)

    def before_repeats(self, value: Value) -> tuple[View, Mapping[int, int]] | None:
        """(view of the source, axis -> repetitions) of a deferred repetition; None if it has been made."""
        if value not in self.deferred or value not in self.repeats:
            return None
        source, times = self.repeats[value]
        return self.view(source), times

    def place_output(self, value: Value, view: View) -> None:
        """Make the producer of `value` write to `view`, a part of a buffer of `reserve`."""
        self.placed[value] = view

    def is_fixed(self, value: Value) -> bool:
        """True for values whose memory is already decided: inputs, constants, outputs, placed values."""
        return (
            value in self.views
            or value in self._output_of
            or value in self.placed
            or self.types[value].value is not None
        )

    def reserve(self, value: Value) -> View:
        """The view of an output whose parts other groups write. Its halo is cleared before the first write.

        Repeated calls for a value return the same view.
        """
        if value not in self._reserved:
            self._reserved[value] = self._reserve(value)
        return self._reserved[value]

    def _reserve(self, value: Value) -> View:
        shape, itemsize = self.shape(value), element_size(value.dtype)
        placed = self.placed.get(value)
        if placed is not None:
            return placed
        layout = self.layouts.get(value) or row_major_layout(len(shape))
        if value in self._output_of and _is_plain(layout, shape):
            return self._output_view(value)
        view = self._new_tensor(shape, itemsize, layout)
        self.pinned.add(view.buffer)
        if has_halo(view):
            self._unclear[view.buffer] = (view, layout)
        return view

    def clear_halo(self, buffer: Buffer) -> None:
        pending = self._unclear.pop(buffer, None)
        if pending is not None:
            self.halo_step(*pending)

    def row_major_output(self, value: Value) -> View:
        """A row-major view, without gaps, to which `value` is written."""
        view = self.output(value, row_major_layout(len(value.shape)))
        return self.instead(view) if value in self.placed else view

    def row_major_outputs(self, node: Node) -> list[View]:
        """`row_major_output` of each output of a node."""
        return [self.row_major_output(v) for v in node.outputs]

    def instead(self, target: View, layout: Layout | None = None) -> View:
        """A new buffer that the group writes instead of `target`. `end` copies it to `target`."""
        view = self.allocate(target.shape, target.itemsize, layout)
        self._instead.append((view, target))
        return view

    def end(self) -> None:
        """Called after the group's last step: add the copies that `instead` requires."""
        for view, target in self._instead:
            self.copy_step(view, target, "the kernel cannot write the result's memory order")
        self._instead.clear()

    def alias_or_copy(self, value: Value, view: View) -> None:
        """Make `view` the view of `value`, or copy it to where a concatenation has placed `value`."""
        placed = self.placed.get(value)
        if placed is None:
            self.views[value] = view
        else:
            self.clear_halo(placed.buffer)
            self.copy_step(view, placed, "a view becomes part of a concatenation")
            self.views[value] = placed

    def finish(self, lay_out: Callable[[list[Buffer]], int] | None = None) -> Plan:
        """The plan. `lay_out` assigns buffer offsets and returns the arena's size in bytes."""
        plan = Plan()
        self.write_outputs()
        plan.steps = self.steps
        plan.data = self.data.materialize()
        lay_out = lay_out or (lambda buffers: assign_offsets(buffers, ALIGNMENT))
        plan.arena_size = lay_out(self.used_buffers())
        if self.trace is not None:
            check_races(self, plan.arena_size)
        plan.scratch_size = align_up(self.scratch + 4096)
        plan.scratch_offset = align_up(plan.arena_size)
        plan.words = [_resolve(step.args) for step in self.steps]
        if debug.flag("OVJIT_INTERP") == "kernels":
            plan.pieces = [[self._piece(a) for a in s.args if isinstance(a, Ptr)] for s in self.steps]
        for step in self.steps:
            step.args = ()  # `words` has them; one plan is kept per set of shapes
        work = sum(s.flops + s.bytes for s in self.steps if s.control is None)  # bodies have their own plans
        plan.parallel = work > PARALLEL_WORK
        plan.output_shapes = [self.shape(v) for v in self.outputs]
        plan.written = tuple(sorted(buffer.base - FIRST_IO for buffer in self.written_inputs))
        return plan

    def _piece(self, pointer: Ptr) -> tuple[int, int, int]:
        """(base, offset, bytes) of the memory that a step may access through this pointer."""
        buffer = pointer.buffer
        if buffer.base in (CONSTANTS, PLAN_DATA):
            home = self.constants if buffer.base == CONSTANTS else self.data
            return (buffer.base, *home.piece(buffer.offset + pointer.offset))
        return buffer.base, buffer.offset, buffer.size

    def write_outputs(self) -> None:
        """Copy model outputs that no step has written in place: other layouts, inputs, constants,
        duplicates."""
        copies: list[tuple[Value, View, View]] = []
        for i, value in enumerate(self.outputs):
            buffer = self.output_buffers[i]
            view = self.view(value)
            shape = self.shape(value) if is_native(value.dtype) else view.shape
            strides = self._output_strides.get(i) or row_major(shape, view.itemsize)
            target = View(buffer, shape, strides, view.itemsize)
            if view.buffer is buffer and view.offset == 0:
                if view.count == 0 or same_strides(view.shape, view.strides, strides):
                    continue
            copies.append((value, view, target))
        written = {target.buffer for _, _, target in copies}
        for k, (value, view, target) in enumerate(copies):
            if view.buffer in written:  # it is read before the other outputs are written
                self.begin(_OutputGroup(value))
                temporary = self.allocate(view.shape, view.itemsize)
                self.copy_step(view, temporary, "read before another output is written")
                copies[k] = value, temporary, target
        for value, view, target in copies:
            self.begin(_OutputGroup(value))
            self.copy_step(view, target, "an output that no step could write in place")


def _span(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> int:
    """Bytes from the start of a tensor's first element to the end of its last one. Traced extents are not
    compared with 0: of an empty tensor nothing is read."""
    if any(not is_traced_number(d) and d == 0 for d in shape):
        return 0
    return sum((d - 1) * s for d, s in zip(shape, strides, strict=True)) + itemsize


class _OutputGroup:
    def __init__(self, value: Value):
        self.name = f"{value.node.name}/output"
        self.origins = value.node.origins
        self.nodes: list[Node] = []
        self.inputs, self.outputs = {value}, (value,)
        self.anchor, self.body = None, ()


def in_place_candidates(views: Sequence[View], others: Sequence[View] = ()) -> list[View]:
    """The `views` that a step may overwrite: no other operand reads their memory at other places."""

    def fits(view: View, other: View) -> bool:
        if other.buffer is not view.buffer:
            return True  # without a guard on the equality of strides
        return (view.offset, view.strides, view.shape) == (other.offset, other.strides, other.shape)

    return [
        v for v in views if all(fits(v, o) for o in views) and all(o.buffer is not v.buffer for o in others)
    ]


def _is_plain(layout: Layout, shape: Sequence[int]) -> bool:
    first = next((i for i, axis in enumerate(layout.order) if axis != i), len(shape))
    return not any(map(any, layout.halo)) and [i for i in layout.order[first:] if shape[i] != 1] == [
        i for i in range(first, len(shape)) if shape[i] != 1
    ]


def _resolve(args: Sequence[Any]) -> list[int]:
    out: list[int] = []
    for arg in args:
        if isinstance(arg, Ptr):
            out += (arg.buffer.base, arg.buffer.offset + arg.offset)
        else:
            out.append(int(arg))
    return out
