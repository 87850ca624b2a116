"""The plan for one set of input shapes: every step's argument block, and where every tensor lies.

A `Planner` walks the lowered groups in order with concrete shapes. Lowerings ask it for views of their
inputs (it inserts copies where a view does not fit), for output buffers, and add steps. Then buffers get
offsets in one arena by lifetime, and pointers become (base, offset) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ovjit import debug
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.memory import SIZE
from ovjit.codegen.tensors import given_fields
from ovjit.errors import OvjitError
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import Interval, is_static
from ovjit.graph.traced import alike, identity, is_traced, is_traced_number, most, surely_same
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
from ovjit.planning.copies import plan_copy, plan_halo
from ovjit.planning.plan_steps import ControlCall, HostCall
from ovjit.planning.plan_steps import Plan as Plan
from ovjit.planning.plan_steps import Probe as Probe
from ovjit.planning.plan_steps import Step as Step
from ovjit.planning.plan_steps import Strides as Strides
from ovjit.planning.races import Touches, Trace, check_races
from ovjit.planning.views import (
    ARENA,
    CONSTANTS,
    FIRST_IO,
    PLAN_DATA,
    Buffer,
    Layout,
    Ptr,
    View,
    channels_last,
    plain,
    product,
    row_major,
)

Made = TypeVar("Made")


NO_STRIDES = Strides({}, {})


class NotNative(Exception):
    """Raised while a lowering is made, or by its `plan` before it asks for outputs: the reference does it."""


class Views(dict):
    """value -> view, and for each buffer the values that lie in it.

    A view has the shape and the element size of its value: kernels believe both.
    """

    def __init__(self, types: Mapping[Value, Any]) -> None:
        super().__init__()
        self.types = types
        self.in_buffer: dict[Buffer, list[Value]] = {}

    def __setitem__(self, value: Value, view: View) -> None:
        shape = self.types[value].shape
        # elements of packed types and strings are not native: their arrays have shapes of their own
        if is_native(value.dtype) and (
            view.itemsize != SIZE[value.dtype] or (is_static(shape) and view.shape != shape)
        ):
            raise OvjitError(
                f"internal error: {value!r} of {value.dtype}{list(shape)} is planned as {list(view.shape)} "
                f"of {view.itemsize} bytes each"
            )
        super().__setitem__(value, view)
        self.in_buffer.setdefault(view.buffer, []).append(value)


class Planner:
    """Collects the steps for concrete shapes on a target. `types`: value -> (dtype, shape, known value or
    None)."""

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
        self.target = target
        self.types = types
        self.outputs = list(outputs)
        self.layouts = layouts
        self.constants = constants
        self.data = Constants(PLAN_DATA)
        self.views = Views(types)
        self.last_use: Mapping[Value, int] = {}  # value -> index of the last group that reads it
        self.index = 0  # of the group that is being planned
        #: Inputs that steps write where they lie: the caches of paged attention.
        self.written_inputs: set[Buffer] = set()
        self.pinned: set[Buffer] = set()  # buffers that must not be overwritten in place
        self.read_later: set[Value] = set()  # by what else is planned for the group in hand
        self.steps: list[Step] = []
        self.buffers: list[Buffer] = []
        self.scratch = 0
        self.open = False  # True where shapes are open: plans decide nothing by what divides a dimension
        self.may_transpose: Collection[int] = ()  # bytes of the elements for which the program has the kernel
        #: Values that are made at the first request for their view, and the group that makes each.
        self.deferred: dict[Value, tuple[Any, Callable[[], View]]] = {}
        #: Deferred values that are another one with its elements repeated: that one, and axis -> how often.
        self.repeats: dict[Value, tuple[Value, Mapping[int, int]]] = {}
        self.placed: dict[Value, View] = {}  # where a producer is to write, decided before it runs
        self.offered: dict[Value, View] = {}  # where one that writes may do so, if it writes row by row
        self.readers: Mapping[Value, int] = {}  # how many groups read a value; so are the model's outputs
        self.trace: Trace | None = None  # what was planned, where that is checked
        self.probes: list[Probe] = []  # of a watched program
        self._group: Any = None
        self._instead: list[tuple[View, View]] = []  # what the group has written, and what gets a copy of it
        self._fitting: dict[tuple, int] = {}  # of views that are known to lie in their buffers: their bytes
        self._copies: dict[tuple, View] = {}
        self._shared: dict[tuple, Any] = {}
        self._reserved: dict[Value, View] = {}
        self._unclear: dict[Buffer, tuple[View, Layout]] = {}
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
        #: Views of inputs that lie in the memory of an output.
        self.grown: list[View] = []
        for output, i in strides.over.items():
            view = self._end(inputs[i], self.output_buffers[output], strides.inputs[i])
            self.views[inputs[i]] = view
            self.grown.append(view)

    def _end(self, value: Value, buffer: Buffer, strides: Sequence[int] | None = None) -> View:
        """An input or output of the model in this memory, row by row without `strides`."""
        shape, size = self.shape(value), element_size(value.dtype)
        return View(buffer, shape, strides or row_major(shape, size), size)

    # --- what lowerings use

    @property
    def last_is_open(self) -> bool:
        """True where a result of the group that is being planned has an open last dimension."""
        outputs = self._group.outputs if self._group else ()
        return any(isinstance(d, Interval) for v in outputs for d in (v.shape or ())[-1:])

    def begin(self, group: Any) -> None:
        """Steps added from now on belong to `group` (has name, origins and nodes).

        Raises OvjitError where an anchor's value has not the shape that its epilogue writes: kernels walk one
        shape. `lower.TwoWays` is for groups where only the shapes of an inference tell.
        """
        anchor, body = group.anchor, group.body
        if anchor is not None and body:
            have, want = self.shape(anchor.output), self.shape(body[-1].output)
            if have != want:
                raise OvjitError(
                    f"internal error: {anchor.name!r} of {list(have)} is fused with {group.name!r} of "
                    f"{list(want)}"
                )
        self._group = group
        if self.trace is not None:
            self.trace.begin(group, self.views)

    def shape(self, value: Value) -> tuple[int, ...]:
        return self.types[value].shape

    def shape_value(self, value: Value) -> np.ndarray:
        """What a value is if that follows from shapes. Raises NotNative where data decides."""
        known = self.types[value].value
        if known is None:
            raise NotNative
        return known

    def made(self, group: Any) -> list[tuple[Value, View]]:
        """Places of the values that a planned group has made and that have readers."""
        outputs = ((v, self.views.get(v)) for v in group.outputs if v.index in group.used)
        return [(v, view) for v, view in outputs if view is not None]

    def view(self, value: Value) -> View:
        """Where `value` lies. Constants are placed among the constants, row-major."""
        view = self.views.get(value)
        if view is None and value in self.deferred:
            view = self._made_now(value)
        if view is None:
            known = self.types[value].value
            if known is None:
                known = value.constant
            if known is None:
                raise OvjitError(f"internal error: {value!r} is used before it is planned")
            home = self.constants if self.constants.holds(known) else self.data
            view = self.views[value] = (
                home.traced_view(known, value.dtype) if is_traced(known) else home.view(known, value.dtype)
            )
        return view

    def _made_now(self, value: Value) -> View:
        """The view of a deferred value: the steps that make it are added, under its own group's name."""
        asking = self._group
        self._group, make = self.deferred.pop(value)
        view = self.views[value] = make()
        self._group = asking
        return view

    def with_halo(self, value: Value, halo: Sequence[tuple[int, int]]) -> View:
        """A channels-last view of `value` with at least this zero halo, copied into one if need be."""
        return self.with_layout(value, channels_last(len(halo), halo))

    def with_layout(self, value: Value, layout: Layout) -> View:
        """A view of `value` that is adjacent along the layout's fastest dimension and has at least its halo.
        It is copied if needed. The strides of other dimensions are free."""
        view = self.view(value)
        inner = layout.order[-1]
        fits = (view.strides[inner] == view.itemsize or view.shape[inner] == 1) and all(
            have[0] >= need[0] and have[1] >= need[1]
            for have, need in zip(view.halo, layout.halo, strict=True)
        )
        if fits:
            return view
        wanted = self.layouts.get(value)
        return self.copy(value, layout.with_halo(wanted.halo) if wanted else layout)

    def contiguous(self, value: Value) -> View:
        """A row-major view without gaps."""
        view = self.view(value)
        return view if view.is_contiguous else self.copy(value, plain(len(view.shape)))

    def copy(self, value: Value, layout: Layout, axis: int = -1, extent: int = 1) -> View:
        """`value` in another layout, its one element along `axis`, if that is given, there `extent` times;
        made once and shared."""
        key = (value, layout, axis, extent)
        known = self._copies.get(key)
        if known is None:
            source = self.view(value)
            if axis >= 0:
                source = source.expand((*source.shape[:axis], extent, *source.shape[axis + 1 :]))
            known = self._copies[key] = self.allocate(source.shape, source.itemsize, layout)
            self.copy_step(source, known)
        return known

    def shared(self, key: tuple, make: Callable[[], Made]) -> Made:
        """What `make` plans, once for all lowerings that ask by this key."""
        known = self._shared.get(key)
        if known is None:
            known = self._shared[key] = make()
        made: Made = known
        return made

    def allocate(self, shape: Sequence[int], itemsize: int, layout: Layout | None = None) -> View:
        """A new arena tensor. A halo is cleared by a step of its own."""
        layout = layout or plain(len(shape))
        view = self._new_tensor(shape, itemsize, layout)
        if _has_halo(view):
            self.halo_step(view, layout)
        return view

    def _new_tensor(self, shape: Sequence[int], itemsize: int, layout: Layout) -> View:
        size, strides, offset = layout.allocate(shape, itemsize)
        self.buffers.append(Buffer(size))
        return View(self.buffers[-1], shape, strides, itemsize, offset, layout.halo)

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
        """Where `value` is an output of the model and its group alone reads `source`, which it may write
        over: let the producer of that write to the output's memory."""
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
        """An output whose elements along `axis` are adjacent, with the halo that the layout pass wants."""
        rank = len(value.shape)
        axis %= rank
        placed = self.placed.get(value)
        if placed is not None and placed.shape[axis] > 1 and placed.strides[axis] != placed.itemsize:
            del self.placed[value]  # the concatenation will copy it
        layout = self.layouts.get(value)
        halo = layout.halo if layout else None
        return self.output(value, Layout((*(a for a in range(rank) if a != axis), axis), halo), over)

    def defer(self, value: Value, make: Callable[[], View], source: Value) -> None:
        """Register `make` as the lazy producer of `value`. It runs at the first request for its view. A
        consumer that reads the source never triggers it. Parts of a concatenation are made with the whole, so
        they need no memory before."""
        self.pinned.add(self.view(source).buffer)
        if value in self._output_of:
            self.views[value] = make()
        else:
            self.deferred[value] = self._group, make

    def repeat(
        self, value: Value, source: Value, times: Mapping[int, int], make: Callable[[], View]
    ) -> None:
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
        if _has_halo(view):
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

    def step(
        self,
        kernel: Kernel,
        values: Mapping[str, Any],
        chunks: int,
        reads: Sequence[View] = (),
        writes: Sequence[View] = (),
        flops: float = 0,
        type: str | None = None,
        touches: Touches | None = None,
    ) -> None:
        """Add a call of `kernel` with `values` for its frame, structures among them. Views keep their memory
        alive.

        `touches`: which bytes a chunk reads and writes, for the proof that chunks do not meet.
        """
        if not is_traced_number(chunks) and chunks <= 0:
            return
        moved = self._uses(reads, writes, touches)
        args = kernel.frame.pack(given_fields(kernel.signature, values))
        self.steps.append(Step(kernel, args, chunks, *self._told(type), flops, moved))

    def _told(self, type: str | None = None) -> tuple[str, str, tuple[str, ...]]:
        """What a step of the group in hand is called, its type, and the nodes of the model behind it."""
        group = self._group
        return group.name, type or (group.node.op.name if group.nodes else "Reorder"), group.origins

    def share_step(
        self,
        kernel: Kernel,
        values: Mapping[str, Any],
        items: int,
        work: float,
        reads: Sequence[View],
        writes: Sequence[View],
        flops: float = 0,
        touches: Callable[[int], Touches] | None = None,
        type: str | None = None,
    ) -> None:
        """Add a call of a kernel whose chunks `share(items, per_chunk)`. `work`: multiply-adds, or bytes, of
        one item; `touches`: that of `step`, given how many items a chunk takes."""
        per_chunk = split(items, work)
        places = touches(per_chunk) if touches and self.trace else None
        values = {**values, "per_chunk": per_chunk}
        self.step(kernel, values, ceil_div(items, per_chunk), reads, writes, flops, type, places)

    def host_step(self, node: Node, inputs: list[View], outputs: list[View]) -> None:
        self._uses(inputs, outputs)
        self.steps.append(
            Step(None, [], 1, node.name, node.op.name, node.origins, host=HostCall(node, inputs, outputs))
        )

    def control_step(
        self,
        function: str,
        args: Sequence[Any],
        bodies: Sequence[Plan],
        reads: Sequence[View],
        writes: Sequence[View],
        room: int = 0,
        flops: float = 0,
        endless: bool = False,
    ) -> None:
        """Add a step that runs bodies. The first word of its arguments becomes the number of its record."""
        self._uses(reads, writes)
        number = sum(step.control is not None for step in self.steps)
        call = ControlCall(function, bodies, room, endless)
        self.steps.append(Step(None, [number, *args], 1, *self._told(), flops, control=call))

    def copy_step(self, source: View, target: View) -> None:
        if source.shape != target.shape or source.itemsize != target.itemsize:
            raise OvjitError(
                f"internal error: {list(source.shape)} of {source.itemsize} bytes is copied to "
                f"{list(target.shape)} of {target.itemsize} bytes"
            )
        plan_copy(self, source, target)

    def halo_step(self, view: View, layout: Layout) -> None:
        """Zero all of the buffer that is not inside."""
        plan_halo(self, view, layout)

    def need_scratch(self, size: int) -> None:
        self.scratch = most(self.scratch, size)

    # --- the end

    def used_buffers(self) -> list[Buffer]:
        """The buffers of the arena that some step uses."""
        return [b for b in self.buffers if b.first >= 0]

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

    def _uses(self, reads: Sequence[View], writes: Sequence[View], touches: Touches | None = None) -> int:
        """The bytes of what the next step reads and writes, whose memory is kept until then."""
        if self.trace is not None:
            self.trace.step(reads, writes, touches)
        moved = 0
        for view in (*reads, *writes):
            moved += self._within(view)
            self._touch(view.buffer, len(self.steps))
        return moved

    def _within(self, view: View) -> int:
        """The bytes of the view's elements. Raises OvjitError unless all of them, and those of its halo, are
        in its buffer."""
        known = (identity((view.buffer.size, view.offset)), view.identity)
        moved = self._fitting.get(known)
        if moved is not None:  # layers are alike
            return moved
        first, behind = view.reach
        # without elements nothing is touched; traced numbers lie inside then as well, so it is not asked
        traced = is_traced_number(first) or is_traced_number(behind)
        if (traced or first != behind) and (first < 0 or behind > view.buffer.size):
            raise OvjitError(
                f"internal error: a step of {self._group.name!r} would use the bytes {first} to {behind} of "
                f"a buffer of {view.buffer.size}"
            )
        moved = self._fitting[known] = view.count * view.itemsize
        return moved

    def _touch(self, buffer: Buffer, step: int) -> None:
        if buffer.base == ARENA:
            if buffer.first < 0:
                buffer.first = step
            buffer.last = step


def _span(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> int:
    """Bytes from the first element of a tensor to behind its last one."""
    if 0 in shape:
        return 0
    return sum((d - 1) * s for d, s in zip(shape, strides, strict=True)) + itemsize


def _has_halo(view: View) -> bool:
    """Whether there are zeros around a new tensor: one without elements has a halo, too."""
    return any(map(any, view.halo)) and view.buffer.size != 0


def _same_strides(shape: Sequence[int], one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether both say the same of this shape; those of dimensions of 1 say nothing."""
    return all(surely_same(a, b) or a == b or d == 1 for d, a, b in zip(shape, one, other, strict=True))


class _OutputGroup:
    def __init__(self, value: Value):
        self.name = f"{value.node.name}/output"
        self.origins = value.node.origins
        self.nodes: list[Node] = []
        self.outputs = (value,)
        self.anchor, self.body = None, ()


def in_place_candidates(views: Sequence[View], others: Sequence[View] = ()) -> list[View]:
    """Those of `views` whose memory no other operand reads elsewhere."""

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
