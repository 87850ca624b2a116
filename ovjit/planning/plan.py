"""The plan for one set of input shapes: every step's argument block, and where every tensor lies.

A `Planner` walks the lowered groups in order with concrete shapes. Lowerings ask it for views of their
inputs (`value_views.py`: it inserts copies where a view does not fit), for output buffers (here), and add
steps (`step_list.py`). Then buffers get offsets in one arena by lifetime, and pointers become (base, offset)
pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovjit import debug
from ovjit.codegen.cpu.targets import Target
from ovjit.graph.graph import Node, Value
from ovjit.graph.symbolic import alike, statically_known_equal
from ovjit.planning.arena import assign_offsets
from ovjit.planning.chunks import PARALLEL_WORK
from ovjit.planning.chunks import ceil_div as ceil_div
from ovjit.planning.chunks import split as split
from ovjit.planning.constants import ALIGNMENT as ALIGNMENT
from ovjit.planning.constants import Constants as Constants
from ovjit.planning.constants import Filling as Filling
from ovjit.planning.constants import Panels as Panels
from ovjit.planning.constants import aligned, is_native
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
    plain,
    product,
    row_major,
)

NO_STRIDES = Strides({}, {})


class Planner(ValueViews):
    """Plans concrete shapes. Its bases add steps and know where values lie; here groups get memory."""

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
        #: Inputs that steps write where they lie: the caches of paged attention.
        self.written_inputs: set[Buffer] = set()
        self.pinned: set[Buffer] = set()  # buffers that must not be overwritten in place
        self.read_later: set[Value] = set()  # by what else is planned for the group in hand
        #: Deferred values that are another one with its elements repeated: that one, and axis -> how often.
        self.repeats: dict[Value, tuple[Value, Mapping[int, int]]] = {}
        self.placed: dict[Value, View] = {}  # where a producer is to write, decided before it runs
        self.offered: dict[Value, View] = {}  # where one that writes may do so, if it writes row by row
        self.readers: Mapping[Value, int] = {}  # how many groups read a value; so are the model's outputs
        self._instead: list[tuple[View, View]] = []  # what the group has written, and what gets a copy of it
        self._reserved: dict[Value, View] = {}
        self._unclear: dict[Buffer, tuple[View, Layout]] = {}
        #: Views of inputs that lie in the memory of an output.
        self.grown: list[View] = []
        self._lay_ends(inputs, strides)

    def _lay_ends(self, inputs: Sequence[Value], strides: Strides) -> None:
        """Views of the inputs, buffers of the outputs, and where producers write outputs with strides."""
        types, outputs = self.types, self.outputs
        for i, value in enumerate(inputs):
            view = self.views[value] = self._end(value, Buffer(0, FIRST_IO + i), strides.inputs.get(i))
            view.buffer.size = _span(view.shape, view.strides, view.itemsize)
        sizes = (product(types[v].shape) * element_size(v.dtype) for v in outputs)
        self.output_buffers = [Buffer(size, base) for base, size in enumerate(sizes, FIRST_IO + len(inputs))]
        self._output_of = {v: i for i, v in reversed(list(enumerate(outputs)))}
        self._output_strides = strides.outputs
        for i, given in strides.outputs.items():
            value = outputs[i]
            self.output_buffers[i].size = _span(types[value].shape, given, element_size(value.dtype))
            if self._output_of[value] == i and value not in self.views and types[value].value is None:
                self.placed[value] = self._end(value, self.output_buffers[i], given)
        for output, i in strides.over.items():
            view = self._end(inputs[i], self.output_buffers[output], strides.inputs[i])
            self.views[inputs[i]] = view
            self.grown.append(view)

    def _end(self, value: Value, buffer: Buffer, strides: Sequence[int] | None = None) -> View:
        """An input or output of the model in this memory, row by row without `strides`."""
        shape, size = self.shape(value), element_size(value.dtype)
        return View(buffer, shape, strides or row_major(shape, size), size)

    def output(self, value: Value, layout: Layout | None = None, over: Sequence[View] = ()) -> View:
        """The view to which a group writes `value`, in `layout` (default: that of the layout pass).

        A concatenation may have placed it in its own buffer, and a plain model output is written in place. So
        is one of the views in `over`, which the group reads element by element as it writes, if it fits and
        has no later reader.
        """
        shape, itemsize = self.shape(value), element_size(value.dtype)
        placed = self.placed.get(value)
        if placed is not None:
            self.clear_halo(placed.buffer)
            self.views[value] = placed
            return placed
        wanted = layout or self.layouts.get(value) or plain(len(shape))
        if value in self._output_of and _is_plain(wanted, shape):
            view = self._output_view(value)
        elif value in self.offered and _is_plain(wanted, shape):
            view = self.offered[value]
        else:
            free = next((v for v in over if self._may_overwrite(v, shape, itemsize, wanted)), None)
            view = self.allocate(shape, itemsize, wanted) if free is None else free
        self.views[value] = view
        return view

    def goes_out(self, value: Value) -> bool:
        """Whether it may be written to an output's memory, if row by row."""
        return value in self._output_of or value in self.offered

    def _output_view(self, value: Value) -> View:
        """The memory of an output of the model, row by row."""
        return self._end(value, self.output_buffers[self._output_of[value]])

    def offer_output(self, value: Value, source: Value) -> None:
        """Let the producer of `source` write to the memory of `value`, whose group may overwrite `source`.
        Does nothing unless `value` is an output of the model, the group is the only reader of `source`, and
        both have one shape and size of elements."""
        given = value in self.placed or self._output_of.get(value, -1) in self._output_strides
        if value not in self._output_of or given or self.readers.get(source) != 1 or self.is_fixed(source):
            return
        sizes = element_size(source.dtype), element_size(value.dtype)
        if sizes[0] == sizes[1] and self.shape(source) == self.shape(value):
            self.offered[source] = self._output_view(value)

    def _may_overwrite(self, view: View, shape: Sequence[int], itemsize: int, wanted: Layout) -> bool:
        size, strides, offset = wanted.allocate(shape, itemsize)
        buffer = view.buffer
        return (
            bool(self.last_use)
            and buffer.base == ARENA
            and buffer not in self.pinned
            and (len(view.shape), view.itemsize, view.offset) == (len(shape), itemsize, offset)
            and all(map(alike, view.shape, shape))
            and buffer.size == size
            and _same_strides(shape, view.strides, strides)
            and view.halo == wanted.halo
            and buffer in self.views.in_buffer
            and all(self.last_use.get(v, -1) <= self.index for v in self.views.in_buffer[buffer])
            and self.read_later.isdisjoint(self.views.in_buffer[buffer])
        )

    def channels_last_output(self, value: Value, axis: int = 1, over: Sequence[View] = ()) -> View:
        """An output whose elements along `axis` are adjacent, with the halo and the gaps that the layout pass
        wants."""
        rank = len(value.shape)
        axis %= rank
        placed = self.placed.get(value)
        if placed is not None and placed.shape[axis] > 1 and placed.strides[axis] != placed.itemsize:
            del self.placed[value]  # the concatenation will copy it
        layout = self.layouts.get(value)
        halo, apart = (layout.halo, layout.apart) if layout else (None, False)
        return self.output(value, Layout((*(a for a in range(rank) if a != axis), axis), halo, apart), over)

    def defer(self, value: Value, make: Callable[[], View], source: Value) -> None:
        """Register `make` as the lazy producer of `value`. It runs at the first request for its view. A
        consumer that reads the source never triggers it. Parts of a concatenation are made with the whole, so
        they need no memory before."""
        self.pinned.add(self.view(source).buffer)
        if value in self._output_of:
            self.views[value] = make()
        else:
            self.deferred[value] = self._group, make

    def repeat(self, value: Value, source: Value, times: Mapping[int, int], make: Callable[[], View]) -> None:
        """Defer `value`: each element of `source` as often as `times` says along its axes. Who walks it
        element by element may ask for `before_repeats` in its place."""
        self.repeats[value] = source, times
        self.defer(value, make, source)

    def before_repeats(self, value: Value) -> tuple[View, Mapping[int, int]] | None:
        """Of a value that is not made yet: the elements that are repeated, and how often."""
        if value not in self.deferred or value not in self.repeats:
            return None
        source, times = self.repeats[value]
        return self.view(source), times

    def place(self, value: Value, view: View) -> None:
        """Ask the producer of `value` to write it to `view`, a part of a buffer made by `reserve`."""
        self.placed[value] = view

    def is_fixed(self, value: Value) -> bool:
        """True for values that no step writes to memory of its choice: inputs, constants, outputs."""
        return (
            value in self.views
            or value in self._output_of
            or value in self.placed
            or self.types[value].value is not None
        )

    def reserve(self, value: Value) -> View:
        """An output buffer whose parts others write; its halo is cleared before the first of them.

        A second request for the same value returns the same view.
        """
        known = self._reserved.get(value)
        if known is None:
            known = self._reserved[value] = self._reserve(value)
        return known

    def _reserve(self, value: Value) -> View:
        shape, itemsize = self.shape(value), element_size(value.dtype)
        placed = self.placed.get(value)
        if placed is not None:
            return placed
        wanted = self.layouts.get(value) or plain(len(shape))
        if value in self._output_of and _is_plain(wanted, shape):
            return self._output_view(value)
        view = self._new_tensor(shape, itemsize, wanted)
        self.pinned.add(view.buffer)
        if has_halo(view):
            self._unclear[view.buffer] = (view, wanted)
        return view

    def clear_halo(self, buffer: Buffer) -> None:
        pending = self._unclear.pop(buffer, None)
        if pending is not None:
            self.halo_step(*pending)

    def row_major_output(self, value: Value) -> View:
        """Where `value` is written row by row without gaps."""
        view = self.output(value, plain(len(value.shape)))
        return self.instead(view) if value in self.placed else view

    def row_major_outputs(self, node: Node) -> list[View]:
        """Where all outputs of a node are written row by row."""
        return [self.row_major_output(v) for v in node.outputs]

    def instead(self, target: View, layout: Layout | None = None) -> View:
        """Memory that the group writes in the place of `target`, which gets a copy of it in the end."""
        view = self.allocate(target.shape, target.itemsize, layout)
        self._instead.append((view, target))
        return view

    def end(self) -> None:
        """All steps of the group have been added."""
        for view, target in self._instead:
            self.copy_step(view, target)
        self._instead.clear()

    def alias_or_copy(self, value: Value, view: View) -> None:
        """`value` is `view`, or a copy of it where a concatenation has placed it."""
        placed = self.placed.get(value)
        if placed is None:
            self.views[value] = view
        else:
            self.clear_halo(placed.buffer)
            self.copy_step(view, placed)
            self.views[value] = placed

    def finish(self, lay_out: Callable[[list[Buffer]], int] | None = None) -> Plan:
        """The plan. `lay_out` gives buffers their offsets and returns the size of the arena."""
        plan = Plan()
        self.write_outputs()
        plan.steps = self.steps
        plan.data = self.data.materialize()
        lay_out = lay_out or (lambda buffers: assign_offsets(buffers, ALIGNMENT))
        plan.arena_size = lay_out(self.used_buffers())
        if self.trace is not None:
            check_races(self, plan.arena_size)
        plan.scratch_size = aligned(self.scratch + 4096)
        plan.scratch_offset = aligned(plan.arena_size)
        plan.words = [_resolve(step.args) for step in self.steps]
        if debug.flag("OVJIT_INTERP") == "kernels":
            plan.pieces = [[self._piece(a) for a in s.args if isinstance(a, Ptr)] for s in self.steps]
        for step in self.steps:
            step.args = ()  # the words say it all; a plan is kept for every shape
        work = sum(s.flops + s.bytes for s in self.steps if s.control is None)  # bodies tell for themselves
        plan.parallel = work > PARALLEL_WORK
        plan.output_shapes = [self.shape(v) for v in self.outputs]
        return plan

    def _piece(self, pointer: Ptr) -> tuple[int, int, int]:
        """(base, offset, bytes) of what a step may touch by way of this pointer."""
        buffer = pointer.buffer
        if buffer.base in (CONSTANTS, PLAN_DATA):
            home = self.constants if buffer.base == CONSTANTS else self.data
            return (buffer.base, *home.piece(buffer.offset + pointer.offset))
        return buffer.base, buffer.offset, buffer.size

    def write_outputs(self) -> None:
        """Model outputs that no step writes in place: other layouts, inputs, constants, duplicates."""
        for i, value in enumerate(self.outputs):
            buffer = self.output_buffers[i]
            view = self.view(value)
            shape = self.shape(value) if is_native(value.dtype) else view.shape
            strides = self._output_strides.get(i) or row_major(shape, view.itemsize)
            target = View(buffer, shape, strides, view.itemsize)
            if view.buffer is buffer and view.offset == 0:
                if view.count == 0 or _same_strides(view.shape, view.strides, strides):
                    continue
            self.begin(_OutputGroup(value))
            self.copy_step(view, target)


def _span(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> int:
    """Bytes from the first element of a tensor to behind its last one."""
    if 0 in shape:
        return 0
    return sum((d - 1) * s for d, s in zip(shape, strides, strict=True)) + itemsize


def _same_strides(shape: Sequence[int], one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether both say the same of this shape; those of dimensions of 1 say nothing."""
    pairs = zip(shape, one, other, strict=True)
    return all(statically_known_equal(a, b) or a == b or d == 1 for d, a, b in pairs)


class _OutputGroup:
    def __init__(self, value: Value):
        self.name = f"{value.node.name}/output"
        self.origins = value.node.origins
        self.nodes: list[Node] = []
        self.outputs = (value,)
        self.anchor, self.body = None, ()


def in_place_candidates(views: Sequence[View], others: Sequence[View] = ()) -> list[View]:
    """The `views` that a step may overwrite: no other operand reads their memory at other places."""

    def apart(view: View, other: View) -> bool:
        if other.buffer is not view.buffer:
            return True  # and no trace is for strides that happen to be equal
        return (view.offset, view.strides, view.shape) == (other.offset, other.strides, other.shape)

    return [
        v for v in views if all(apart(v, o) for o in views) and all(o.buffer is not v.buffer for o in others)
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
