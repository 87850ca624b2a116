"""Plans of models with state (KV caches), traced ahead of time, before the shapes of a request are known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.execution.states import lowest, spacious
from ovjit.graph.shapes import GUESS, LONG_GUESS, guess_input_shape, is_static
from ovjit.planning.growing import CapacityExceeded, GrowingAxis, Room
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.execution.executable import Executable
    from ovjit.rewrite.model_variables import Variable


#: Elements that are appended to `LONG_GUESS` ones: another number, or a trace would take both for one.
_MANY = LONG_GUESS * 3 // 4


class Init(NamedTuple):
    """The computation of a variable's initial value: output `output` of `executable`. `inputs`: indices of
    the main program's inputs that it takes."""

    executable: Executable
    inputs: tuple[int, ...]
    output: int


class StatesAhead:
    """Traces plans ahead of time, for a program around `main` whose last inputs are variables."""

    main: Executable
    variables: tuple[Variable, ...]
    inputs: Sequence[Any]
    public_inputs: int
    public_outputs: int
    growing_axes: tuple[GrowingAxis, ...]
    inits: Callable[[], list[np.ndarray | Init | None]]
    #: The (input, axis) that has the total of elements, or None if no input has it. Empty until it is found:
    #: the types of the whole graph are inferred for each candidate.
    _total_axis: tuple[tuple[int, int] | None, ...] = ()

    def trace_ahead(self) -> None:
        """Trace plans before shapes are known (see `Program.trace_ahead`): of a run that appends one element,
        of runs that append many, and of a first run after a reset, which these mostly serve."""
        self._trace_states(1, 1, _MANY)

    def trace_more_ahead(self) -> None:
        """See `Program.trace_more_ahead`: batches of several."""
        self._trace_states(GUESS, 1)

    def _trace_states(self, batch: int, *lengths: int) -> None:
        """Trace plans of a first run of size `batch`, and of next runs that append so many elements."""
        from ovjit.planning.concrete_types import concrete_types  # imported models do not need it

        input_shapes = [guess_input_shape(v.shape, batch) for v in self.inputs]
        states = self._guessed_beginning(input_shapes)
        if states is None:
            return
        first = [*input_shapes, *states]
        result = self._result_shapes(first) if self.growing_axes else None
        if result is None:
            self._traced_for(first, batch == 1)
            return
        growing_axis = self.growing_axes[0]
        length = result[growing_axis.output][growing_axis.axis]
        new = length - states[growing_axis.input - self.public_inputs][growing_axis.axis]
        outputs = iter(range(self.public_outputs, len(result)))
        now = [result[next(outputs)] if v.assigned else s
               for v, s in zip(self.variables, states, strict=True)]  # fmt: skip
        dims = [(i, axis) for i, shape in enumerate(input_shapes) for axis, d in enumerate(shape)
                if d == new and self.inputs[i].shape[axis] != d]  # fmt: skip

        def after(count: int, total: tuple[int, int] | None) -> list[tuple[int, ...]]:
            """The inputs' shapes after `count` more elements. `total`: the (input, axis) that has the
            total."""
            shapes = [list(shape) for shape in input_shapes]
            for i, axis in dims:
                shapes[i][axis] = count + (length if (i, axis) == total else 0)
            return [*map(tuple, shapes), *now]

        for total in self._total_axis or (None, *dims):
            with contextlib.suppress(OvjitError):
                if not self._total_axis:  # GUESS + 2: a length of 1 would broadcast
                    concrete_types(self.main.program.graph, after(GUESS + 2, total))
                self._total_axis = (total,)
                for count in lengths:
                    self._traced_for(after(count, total))
                break
        self._traced_for(first, batch == 1)

    def _result_shapes(self, shapes: Sequence[tuple[int, ...]]) -> Sequence[Any] | None:
        """The shapes of the main program's outputs for these of its inputs. None if they are unknown."""
        with contextlib.suppress(OvjitError):
            result = self.main.program.result_shapes(
                shapes, Room(spacious(2 * LONG_GUESS), self.growing_axes)
            )
            return result if all(map(is_static, result)) else None
        return None

    def _guessed_beginning(self, input_shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]] | None:
        """The variables' initial shapes for inputs of these shapes. None if they are unknown."""
        result: dict[Executable, Sequence[tuple[int, ...]]] = {}
        for init in self.inits():
            if not isinstance(init, Init) or init.executable in result:
                continue
            if max(init.inputs, default=-1) >= len(input_shapes):
                return None  # an initial value depends on another variable
            shapes, begun = [input_shapes[i] for i in init.inputs], init.executable
            trace = begun.program.trace_ahead(shapes)
            plan = None if trace is None else trace.at(shapes)
            if plan is None and not begun.static:
                return None
            result[begun] = [v.shape for v in begun.outputs] if plan is None else plan.output_shapes
        return [
            result[init.executable][init.output] if isinstance(init, Init)
            else lowest(variable).shape if init is None else init.shape
            for init, variable in zip(self.inits(), self.variables, strict=True)
        ]  # fmt: skip

    def _traced_for(
        self, shapes: Sequence[tuple[int, ...]], prepares: bool = False
    ) -> Sequence[tuple[int, ...]] | None:
        """Trace a plan of the main program for these shapes. Returns the outputs' shapes. `prepares`: also
        allocate its memory."""
        program, room = self.main.program, Room(spacious(0), self.growing_axes) if self.growing_axes else None
        try:
            trace = program.trace_ahead(shapes, room)
        except CapacityExceeded as need:
            room = Room(spacious(need.length), self.growing_axes)
            trace = program.trace_ahead(shapes, room)
        plan = None if trace is None else trace.at(shapes, room)
        if plan is None:
            return None
        if prepares:
            rooms: dict[int, list[int]] = {}
            if room is not None:
                for output, _, axis in room.growing_axes:
                    rooms[output] = [*plan.output_shapes[output]]
                    rooms[output][axis] = room.capacity
            self.main.prepare(plan, rooms, self.public_outputs)
        return plan.output_shapes
