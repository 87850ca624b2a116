"""Compiled graphs: the passes of `pass_pipeline`, fusion, layouts and lowering; and plans for given shapes.

`OVJIT_SKIP=fuse` leaves out fusion. `OVJIT_CHECK=1` verifies plans (`planning/races.py`).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ovjit import collector, debug, logs
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.loading import Loaded
from ovjit.compiler.lowered import LoweredGraph, choose_layouts
from ovjit.compiler.options import Context, Memory
from ovjit.compiler.pass_pipeline import run_passes
from ovjit.errors import OvjitError, sizes_of_64_bits
from ovjit.forks import ForkLock, made_once
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Graph, Node, Value
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import GUESS, IMAGE_GUESSES, check_shapes, guess_input_shape, is_static
from ovjit.graph.traced import Tape, as_found, as_found_number, is_traced
from ovjit.planning.concrete_types import NO_TWINS, concrete_types
from ovjit.planning.growing import CapacityExceeded, Room, check_room, strides_of
from ovjit.planning.lower import Lowering, ReferenceStep
from ovjit.planning.partition import Cut, needs_cut
from ovjit.planning.plan import NO_STRIDES, NotNative, Plan, Planner, Strides
from ovjit.planning.touches import Trace

if TYPE_CHECKING:
    from ovjit.planning.parametric import Parametric, Traces
    from ovjit.planning.repeated_layers import Layers


def _parametric() -> Any:
    """The module of traces, imported for programs with dynamic shapes only."""
    from ovjit.planning import parametric

    return parametric


def functions_for(target: Target) -> Any:
    """The mapping kernel -> address of loaded kernels for a target; for a GPU, kernel -> number of its
    PTX."""
    if target.is_gpu:
        from ovjit.codegen.gpu.functions import Functions

        return Functions(target)
    return Loaded(target=target)


class Program(LoweredGraph):
    """A compiled graph: makes a `Plan` for any input shapes.

    With `watched`, plans list the step after which each value is complete (`Plan.probes`).
    """

    def __init__(self, graph: Graph, context: Context, watched: bool = False, memory: Memory | None = None):
        """`memory`: allocates the bytes of constants."""
        interpreted = debug.is_on("OVJIT_INTERP")
        super().__init__(graph if interpreted else run_passes(graph, context), context, interpreted, memory)
        self.watched = watched
        #: Whether halos depend on concrete shapes.
        self._open_halos = any(lowering.pads for lowering in self.lowerings)
        #: Traced plans for dynamic shapes; None for static shapes, or without tracing.
        stepwise = watched or bool(debug.flag("OVJIT_INTERP")) or _is_closed(self.graph)
        stepwise |= context.target.is_gpu  # traces are evaluated by a kernel of the CPU
        self.traces: Traces | None = None if stepwise else _parametric().Traces()
        #: Traces for guessed shapes, made ahead of time. A blob stores them.
        self.traced_ahead: list[Parametric] = []
        #: Whether kernels compute reals that derive from dimensions. False once a shape depends on one.
        self._leaves_reals = True
        # after a data-dependent shape, the segments that are compiled at run time trace their plans too
        if self.traces or not (context.target.is_gpu or self._has_static_shapes()):
            self.kernels = list(dict.fromkeys([*self.kernels, _parametric().evaluating_kernel()]))
        #: Addresses of the loaded kernels.
        self.addresses: Any = functions_for(context.target)
        self._lock = ForkLock("model")

    def _has_static_shapes(self) -> bool:
        return all(is_static(v.shape) for n in self.graph.nodes for v in n.outputs)

    @made_once
    def layers(self) -> Layers | None:
        """Layers with equal plans, if plans are traced. The search precedes all planning, which may change
        attributes of lowerings. Concurrent planners wait for it."""
        search = None
        if self.traces is not None and not debug.skips("layers"):
            search = import_module("ovjit.planning.repeated_layers")
        with self._lock.lock:
            if "layers" not in self.__dict__:
                layers = None
                if search is not None:
                    outputs = frozenset(self.graph.outputs)
                    lowered = self.lowerings, self._packed, outputs, self.layouts, self.readers
                    layers = search.find_layers(search.Lowered(*lowered))
                self.__dict__["layers"] = layers
                self._packed = []
            return self.__dict__["layers"]

    def load(self, provided: Mapping[str, bytes] | None = None) -> None:
        """Load the kernels, and compile those that neither `provided` nor the cache has.

        With static shapes nothing is loaded here: the plan is made at once and lists its kernels. With
        dynamic shapes all kernels that a plan may need are loaded, so that no inference waits for a
        compilation. Kernels that are not compiled yet, and unlikely to be needed, are skipped.
        """
        self.addresses.provided = provided
        if not _is_closed(self.graph):
            self.addresses.need(self.kernels, self._unlikely)

    def loaded_plan(self, shapes: Sequence[tuple[int, ...]], room: Room | None = None) -> Plan:
        """`plan`, with the addresses of its kernels."""
        plan = self.plan(shapes, room=room)
        if plan.trace is None or not plan.trace.loaded:
            self.addresses.need(plan.kernels())
            if plan.trace is not None:
                plan.trace.loaded = True
        plan.addresses = self.addresses
        return plan

    def _unlikely(self, missing: Collection[Kernel]) -> Collection[Kernel]:
        """Uncompiled alternatives of `by_strides` that a plan for guessed dimensions does not call. Strides
        hardly depend on extents, so other plans rarely need them either."""
        alternatives = self._by_strides.intersection(missing)
        trace = self._guess if alternatives else None
        return () if trace is None else alternatives - {step.kernel for step in trace.steps}

    @made_once
    def _guess(self) -> Parametric | None:
        """The trace of a plan for guessed dimensions. None if it cannot be traced."""
        if any(v.shape is None for v in self.graph.inputs):
            return None
        return self._ahead([guess_input_shape(v.shape) for v in self.graph.inputs], None)

    def _ahead(self, shapes: Sequence[tuple[int, ...]], room: Room | None) -> Parametric | None:
        """A trace for guessed shapes. None if they cannot be planned."""
        traces = self.traces
        if traces is None:
            return None
        before = traces.refused, self._leaves_reals
        with contextlib.suppress(MemoryError):
            trace = self._make_trace(traces, shapes, room)
            if trace is not None:
                return trace
        traces.refused, self._leaves_reals = before
        return None

    def trace_ahead(
        self, shapes: Sequence[tuple[int, ...]] | None = None, room: Room | None = None
    ) -> Parametric | None:
        """Trace the plan for likely input shapes (default: guessed ones) ahead of time, for the first
        inference and for importers of the model's blob. None if it cannot be traced, or guessed dimensions
        contradict each other. Raises CapacityExceeded as `plan` does.
        """
        if self.traces is None or debug.skips("trace_ahead"):
            return None
        if shapes is None:
            trace = self._guess
        else:
            serving = (trace for trace in self.traced_ahead if trace.at(shapes, room) is not None)
            trace = next(serving, None) or self._ahead(shapes, room)
        if trace is not None and trace not in self.traced_ahead:
            self.traced_ahead.append(trace)
            self.traces.add(trace)
        return trace

    def result_shapes(self, shapes: Sequence[tuple[int, ...]], room: Room) -> Sequence[Any]:
        """The outputs' shapes for these input shapes: by a trace, else by inference. Raises OvjitError for
        shapes that an operation does not accept."""
        plan = None if self.traces is None else self.traces.find(shapes, room)
        if plan is not None:
            return plan.output_shapes
        types = concrete_types(self.graph, shapes, self._twins)
        return [types[v].shape for v in self.graph.outputs]

    @property
    def _twins(self) -> Mapping[Node, Node]:
        return NO_TWINS if self.layers is None else self.layers.twins

    def trace_more_ahead(self) -> None:
        """Trace plans for larger images and batches, for blobs. Without them, an imported model would have to
        compile the graph to plan such a size."""
        if not self.traced_ahead:
            return
        shapes = [v.shape for v in self.graph.inputs]
        self.trace_ahead([guess_input_shape(shape, GUESS) for shape in shapes])
        if any(len(shape) == 4 and not is_static(shape[2:]) for shape in shapes):
            for image, batch in itertools.product(IMAGE_GUESSES, (1, GUESS)):
                self.trace_ahead([guess_input_shape(shape, batch, image) for shape in shapes])

    def plan(
        self, shapes: Sequence[tuple[int, ...]], strides: Strides = NO_STRIDES, room: Room | None = None
    ) -> Plan:
        """The plan for these input shapes. `strides`: of inputs and outputs that are not row-major. `room`:
        capacities of growing inputs.

        Raises ModelError if an operation does not accept the shapes, and CapacityExceeded. Thread-safe: a
        program and its lowerings do not change after construction.
        """
        with collector.seldom():
            if self.traces is not None and strides is NO_STRIDES:
                plan = self.traces.find(shapes, room) or self._trace(shapes, room)
                if plan is not None:
                    if debug.is_on("OVJIT_CHECK"):
                        _prove(self, plan, shapes, room)
                    plan.memory = self.memory
                    return plan
            return self._stepwise(shapes, strides, room)

    def _stepwise(
        self, shapes: Sequence[tuple[int, ...]], strides: Strides = NO_STRIDES, room: Room | None = None
    ) -> Plan:
        """The plan without a trace."""
        types = self._types(shapes)
        if needs_cut(types):
            plan = Plan()
            plan.cut = Cut(self.graph, types)
            plan.input_shapes = tuple(tuple(s) for s in shapes)
            plan.output_shapes = [types[v].shape for v in self.graph.outputs]
            plan.memory = self.memory
            return plan
        planner = self._make_planner(types, room, strides, debug.is_on("OVJIT_CHECK"))
        plan = planner.finish()
        if self.watched:
            plan.probes, plan.types = planner.probes, types
        plan.input_shapes = tuple(tuple(s) for s in shapes)
        plan.memory = self.memory
        return plan

    def _make_planner(
        self, types: Mapping[Value, Any], room: Room | None, strides: Strides = NO_STRIDES,
        proved: bool = False, tape: Tape | None = None,
    ) -> Planner:  # fmt: skip
        """A planner with the steps of all groups whose values do not follow from shapes. `tape`: the tape of
        the types, whose last leaf is the capacity of `room`."""
        if room is not None:
            capacity = room.capacity if tape is None else tape.leaf(tape.leaves - 1)
            strides = strides_of(room, self.graph, types, capacity)
        layouts = self.layouts
        if self._open_halos:
            layouts = choose_layouts(self.lowerings, lambda value: types[value].shape)
        planner = Planner(
            types, self.graph.inputs, self.graph.outputs, layouts, self.constants, strides,
            target=self.context.target,
        )  # fmt: skip
        planner.may_transpose = self.transposed
        if not self.watched:
            planner.readers = self.readers
        planner.open = self.traces is not None
        if proved:
            planner.trace = Trace()
        self._plan_steps(planner)
        return planner

    def _plan_steps(self, planner: Planner) -> None:
        types = planner.types
        flags = [any(types[v].value is None for v in low.group.outputs) for low in self.lowerings]
        active = list(itertools.compress(self.lowerings, flags))
        for lowering in reversed(active):
            with sizes_of_64_bits(lowering.group.last.name):
                lowering.place_outputs(planner)
        if not self.watched:  # a watched run reads a step's inputs after the step
            planner.last_use = last_uses(active, self.graph.outputs)
        repeats, following = None, 0
        if self.layers is not None and planner.trace is None:  # the race check needs every step planned
            from ovjit.planning.repeated_layers import Repeats

            repeats = Repeats(planner, self.layers, self.lowerings, flags)
        for index, lowering in enumerate(active):
            if repeats is not None and index >= following:
                following = repeats.enter(index)
            if index < following:
                continue
            planner.index = index
            with sizes_of_64_bits(lowering.group.last.name):
                ways = lowering.ways(planner)
                for i, way in enumerate(ways):
                    planner.read_later = {v for other in ways[i + 1 :] for v in other.group.inputs}
                    planner.begin(way.group)
                    try:
                        way.plan(planner)
                    except NotNative:
                        ReferenceStep(way.group).plan(planner)
                    planner.end()
            if self.watched:
                planner.probes.append((len(planner.steps), lowering.group, planner.views_of(lowering.group)))

    def _trace(self, shapes: Sequence[tuple[int, ...]], room: Room | None) -> Plan | None:
        """Plan with traced numbers, and keep the trace for other shapes. None if it cannot be traced."""
        traces = self.traces
        assert traces is not None
        if not traces.useful:
            return None
        trace = self._make_trace(traces, shapes, room)
        if trace is None:
            return None
        traces.add(trace)
        plan = trace.at(shapes, room)
        if traces.added is not None:
            traces.added(traces)
        return plan

    def _make_trace(
        self, traces: Traces, shapes: Sequence[tuple[int, ...]], room: Room | None
    ) -> Parametric | None:
        tape = None
        try:
            outgrown, traces.outgrown = traces.outgrown, None
            if outgrown is not None and room is not None and outgrown[0] == tuple(shapes):
                _, tape, types = outgrown
                tape.values[tape.leaves - 1] = room.capacity
            else:
                tape, types = self._traced_types(shapes, room)
            if needs_cut(types):
                return None
            if room is not None:
                try:
                    check_room(room, self.graph, types)
                except CapacityExceeded:  # a later attempt with more capacity uses these types
                    traces.outgrown, tape = (tuple(shapes), tape, types), None
                    raise
            planner = self._make_planner(types, room, tape=tape)
            if any(step.host is not None for step in planner.steps):
                if tape.left_reals:  # lowerings may need these reals as constants
                    self._leaves_reals = False
                    return self._make_trace(traces, shapes, room)
                traces.refused = "host steps are not traced"
                return None
            planner.write_outputs()
            return _parametric().Parametric(planner, tape, shapes, room)
        except CapacityExceeded:
            raise
        except OvjitError:
            return None  # planning without a tape raises the error, if there is one
        except _LEAKS as error:
            # code that needs an int got a traced number: plans are made without traces, which takes longer
            traces.refused = f"{type(error).__name__}: {error}"
            logs.debug("the planning trace is not recorded: %s", traces.refused, exc_info=True)
            if debug.is_on("OVJIT_CHECK"):
                raise
            return None
        finally:
            if tape is not None:
                tape.forget()

    def _traced_types(
        self,
        shapes: Sequence[tuple[int, ...]],
        room: Room | None = None,
        like: Sequence[tuple[int, ...]] | None = None,
    ) -> tuple[Tape, dict[Value, TensorType]]:
        """A tape, and types with traced numbers. Inputs share numbers as in a trace for the shapes `like`."""
        check_shapes(self.graph.inputs, shapes)
        tape = Tape([*(d for shape in shapes for d in shape), *([] if room is None else [room.capacity])])
        tape.leaves_reals = self._leaves_reals
        try:
            leaves = _leaves(tape, self.graph.inputs, shapes, like)
            types = concrete_types(self.graph, leaves, self._twins)
        except OvjitError:
            if not tape.left_reals:
                raise
            types = None
        if types is None or (tape.left_reals and needs_cut(types)):  # shapes depend on these reals
            self._leaves_reals = False
            tape.forget()
            return self._traced_types(shapes, room, like)
        return tape, types

    def _types(self, shapes: Sequence[tuple[int, ...]]) -> dict[Value, TensorType]:
        """The types for these shapes. Values that kernels compute under a trace are computed by kernels here
        too, so that no bit of a result depends on earlier plans."""
        if self.traces is not None:
            with contextlib.suppress(*_LEAKS):
                types = {value: _pin_type(t) for value, t in self._traced_types(shapes)[1].items()}
                if not needs_cut(types):
                    return types
        return concrete_types(self.graph, shapes)


#: Exceptions of code that needs an int and got a traced number.
_LEAKS = (TypeError, AttributeError, ValueError, LookupError, ArithmeticError)


def _prove(program: Program, plan: Plan, shapes: Sequence[tuple[int, ...]], room: Room | None) -> None:
    """Raise OvjitError unless planning these shapes anew gives the same plan, free of races. The new planning
    is traced too: it may keep extents of 1 as dimensions, whose strides do not matter."""
    tape, types = program._traced_types(shapes, room, plan.trace.made_for)
    planner = program._make_planner(types, room, proved=True, tape=tape)
    anew = planner.finish(plan.arena.lay_out)
    tape.forget()
    _parametric().check_plan(plan, anew)


def _pin_type(t: TensorType) -> TensorType:
    """A type with plain numbers in place of traced ones."""
    shape = None if t.shape is None else tuple(map(as_found_number, t.shape))
    value = as_found(t.value).astype(numpy_dtype(t.dtype)) if is_traced(t.value) else t.value
    return TensorType(t.dtype, shape, value)


def _is_closed(graph: Graph) -> bool:
    """Whether all inputs have static shapes."""
    return all(is_static(v.shape) for v in graph.inputs)


def _leaves(
    tape: Tape,
    inputs: Sequence[Value],
    shapes: Sequence[tuple[int, ...]],
    like: Sequence[tuple[int, ...]] | None = None,
) -> list[tuple]:
    """The shapes with traced numbers for dynamic dimensions, and guards on static ones.

    Inputs of one type with equal extents along an axis share one number, with a guard on equality. Examples
    are the states of a decoder's layers. So equal layers share the arithmetic on it. `like`: the shapes whose
    extents decide this. Empty inputs are run-time extents, which are equal by chance: they share none.
    """
    out, index = [], 0
    alike: dict[tuple, Any] = {}
    for value, shape in zip(inputs, like or shapes, strict=True):
        dims: list[Any] = []
        for axis, extent in enumerate(shape):
            leaf = tape.leaf(index)
            index += 1
            if value.shape is not None and isinstance(value.shape[axis], int):
                dims.append(leaf.pin())
                continue
            if value.shape is not None and value.shape[0] == 0:
                dims.append(leaf)
                continue
            first = alike.setdefault((value.dtype, value.shape, axis, extent), leaf)
            equal = first == leaf  # a guard
            assert equal
            dims.append(first)
        out.append(tuple(dims))
    return out


def last_uses(lowerings: Sequence[Lowering], outputs: Sequence[Value]) -> dict[Value, int]:
    """value -> index of the last lowering that reads it. A model output counts as read after all
    lowerings."""
    out: dict[Value, int] = {}
    for index, lowering in enumerate(lowerings):
        for node in lowering.group.nodes:
            out.update((value, index) for value in node.inputs)
    out.update((value, len(lowerings)) for value in outputs)
    return out
