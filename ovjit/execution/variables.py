"""Models with variables: a program with hidden inputs and outputs, and the variables' values of each job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.errors import InferenceError
from ovjit.execution.executable import Executable
from ovjit.execution.job import Job
from ovjit.execution.states import (
    Moves,
    States,
    as_given,
    as_stored,
    as_words,
    beginning,
    copy_row_major,
    in_order,
    lowest,
    move_rows,
    moves_of,
    spacious,
    with_room,
)
from ovjit.execution.states_ahead import Init, StatesAhead
from ovjit.execution.table import Row
from ovjit.forks import ForkLock, made_once
from ovjit.graph import dtypes, shapes
from ovjit.graph.graph import Graph
from ovjit.graph.shapes import check_shapes, fits
from ovjit.planning.growing import CapacityExceeded, GrowingAxis, Room
from ovjit.planning.plan_steps import Plan

if TYPE_CHECKING:
    from ovjit.rewrite.model_variables import Variable


class StatefulProgram(StatesAhead):
    """The program of a graph with ReadValue and Assign. It runs `main`, an executable whose last inputs and
    outputs are the variables. Thread-safe."""

    def __init__(self, main: Executable, variables: Sequence[Variable], graph_of: Callable[[], Graph],
                 starts: Callable[[], list[np.ndarray | Init | None]]):  # fmt: skip
        """`graph_of` returns the graph with its state operations. `starts` returns the initial value of each
        variable: an array, an `Init` that computes it, or None for zeros."""
        self.main = main
        self.variables = tuple(variables)
        #: The dtype and the shape in which each variable is stored.
        self._stored = [(dtypes.numpy_dtype(v.storage.dtype), v.storage.shape) for v in self.variables]
        self.graph_of = graph_of
        self.public_inputs = len(main.inputs) - len(self.variables)
        self.public_outputs = len(main.outputs) - sum(v.assigned for v in self.variables)
        self.inputs: Sequence[Any] = main.inputs[: self.public_inputs]
        self.outputs: Sequence[Any] = main.outputs[: self.public_outputs]
        self._starts = starts
        self._lock = ForkLock("model")
        self._inits: list[np.ndarray | Init | None] | None = None

    def inits(self) -> list[np.ndarray | Init | None]:
        """The initial value of each variable: an array, an `Init` that computes it, or None for zeros."""
        with self._lock.lock:
            if self._inits is None:  # lazy, for imported models
                self._inits = self._starts()
            return self._inits

    # --- a program's interface to `Executable`

    @property
    def layouts(self) -> Mapping[Any, Any]:
        """Empty: the values of `graph` are not those of the compiled graph."""
        return {}

    @property
    def graph(self) -> Graph:
        graph = self.graph_of()
        return Graph(graph.inputs, graph.nodes, graph.public_outputs)

    @property
    def addresses(self) -> Mapping[Any, int]:
        """Empty: only `main` has kernels."""
        return {}

    def load(self) -> None:
        """Nothing to load: `main` is loaded."""

    def host_nodes(self) -> list[str]:
        return self.main.program.host_nodes()

    def loaded_plan(self, shape_list: Sequence[tuple[int, ...]]) -> Plan:
        check_shapes(self.inputs, shape_list)
        plan = Plan()
        plan.composite = self
        plan.input_shapes = tuple(tuple(s) for s in shape_list)
        plan.output_shapes = [v.shape for v in self.outputs]
        return plan

    # --- a composite's interface to `Table`

    def states_of(self, job: Job) -> States:
        states = job.notes.get(self)
        if states is None:
            states = States(self.variables, [init is not None for init in self.inits()])
            states = job.notes.setdefault(self, states)  # two threads may have made them
        return states

    def run(self, job: Job) -> None:
        """Run on this thread: variables in, the main program, variables out."""
        states = self.states_of(job)
        inner = job.part_job(self.main)
        for i, array in enumerate(job.inputs):
            assert array is not None
            inner.set_input(i, array)
        if states.steady is not None and self._step(job, inner, states):
            return
        states.settle()
        moves: dict[tuple[int, int], Moves | None] = {}  # (input with beam indices, rows) -> the reordering
        undo: list[tuple[np.ndarray, Moves, np.ndarray]] = []  # in-place reorderings, to undo after an error
        cells = states.cells
        try:
            self._run(job, inner, states, moves, undo)
        except BaseException:
            if states.cells is cells:
                for rows, moved, before in undo:
                    rows[moved.to] = before
            raise

    def _run(
        self, job: Job, inner: Job, states: States, moves: dict[tuple[int, int], Moves | None],
        undo: list[tuple[np.ndarray, Moves, np.ndarray]],
    ) -> None:  # fmt: skip
        current: list[np.ndarray] = []  # the variables' values before this run, reordered by beams
        begun: dict[Executable, Job] = {}  # jobs that have computed initial values in this run
        for k, variable in enumerate(self.variables):
            stored, memory = states.cells[k]
            value = self._stored_value(job, inner, states, k, begun)
            if variable.order >= 0:
                order = inner.inputs[variable.order]
                assert order is not None
                key = variable.order, len(value)
                if key not in moves:
                    moves[key] = moves_of(order, len(value))
                moved = moves[key]
                keeps = value is stored and memory is not None and not states.shown[k]
                if moved is None or not (keeps or not moved.to.size):
                    value = in_order(value, order)
                elif moved.to.size:
                    rows = as_words(value)
                    undo.append((rows, moved, rows[moved.to]))
                    move_rows(*undo[-1])
            current.append(value)
            inner.set_input(self.public_inputs + k, value)
        grown = self._make_room(inner, states, current)
        self._run_inner(job, inner)
        self._take(inner, states, current, grown)
        if len(grown) == len(self.variables) and inner.moves:
            states.steady = [grown[k][1] for k in range(len(grown))]

    def _stored_value(
        self, job: Job, inner: Job, states: States, k: int, begun: dict[Executable, Job]
    ) -> np.ndarray:
        """The value of variable `k` before this run, or its initial value, in the stored type."""
        value = states.cells[k][0]
        if value is None:
            value = self._initial(job, inner, k, begun)
        return value if value.dtype == self._stored[k][0] else as_stored(value, self.variables[k])

    def _run_inner(self, job: Job, inner: Job) -> None:
        inner.write_for(job, range(self.public_outputs))
        inner.run()
        for i in range(self.public_outputs):
            if inner.outputs[i] is not job.outputs[i]:
                job.give_output(i, inner.outputs[i])

    def _step(self, job: Job, inner: Job, states: States) -> bool:
        """The fast path of a decoder's step: all variables grow in place within their capacity, and none was
        read since the last run. False, without a change, if this does not apply."""
        assert states.steady is not None
        for number, rows in {(v.order, s[0]) for v, s in zip(self.variables, states.steady, strict=True)
                             if v.order >= 0}:  # fmt: skip
            order = inner.inputs[number]
            if order is None or order.tolist() != list(range(rows)):
                return False
        try:
            shapes = inner.bind_with(Room(states.room, self.growing_axes), self.public_inputs, states.steady)
        except CapacityExceeded:
            return False
        if inner.in_python:
            return False
        self._run_inner(job, inner)
        states.steady = [shapes[output] for output in self._grown_outputs]
        return True

    def _initial(self, job: Job, inner: Job, k: int, begun: dict[Executable, Job]) -> np.ndarray:
        """The initial value of variable `k`, in memory of its own. `begun`: see `_run`."""
        init = self.inits()[k]
        if init is None:
            return lowest(self.variables[k])
        if isinstance(init, np.ndarray):
            return copy_row_major(init)
        part = begun.get(init.executable)
        if part is None:
            part = begun[init.executable] = self._begin(job, inner, init)
        variable, value = self.variables[k], part.outputs[init.output]
        if value.dtype != dtypes.numpy_dtype(variable.dtype) or not fits(value.shape, variable.shape):
            raise InferenceError(
                f"the variable {variable.name!r} has the type {variable.dtype} and the shape "
                f"{shapes.text(variable.shape)}, but its initial value is "
                f"{value.dtype}{list(value.shape)}"
            )
        return copy_row_major(value)

    def _begin(self, job: Job, inner: Job, init: Init) -> Job:
        """Run the executable that computes initial values. Returns its job."""
        part = job.part_job(init.executable)
        for i, number in enumerate(init.inputs):
            array = inner.inputs[number]
            if number >= self.public_inputs:
                other = self.variables[number - self.public_inputs]
                if array is None:  # a later variable, on which this one cannot depend
                    array = lowest(other)
                array = as_given(array, other)
            assert array is not None
            part.set_input(i, array)
        part.run()
        return part

    @made_once
    def growing(self) -> dict[int, GrowingAxis]:
        """Variable -> its `GrowingAxis`, for variables that grow in place."""
        assigned = [k for k, v in enumerate(self.variables) if v.assigned]
        pairs = [(self.public_outputs + i, self.public_inputs + k) for i, k in enumerate(assigned)]
        return {axis.input - self.public_inputs: axis for axis in self.main.program.growing(pairs)}

    @made_once
    def _grown_outputs(self) -> list[int]:
        """For each variable the output of `main` that is its next value. All variables must grow."""
        return [self.growing[k].output for k in range(len(self.variables))]

    @made_once
    def growing_axes(self) -> tuple[GrowingAxis, ...]:
        return tuple(self.growing.values())

    def _make_room(
        self, inner: Job, states: States, current: list[np.ndarray]
    ) -> dict[int, tuple[np.ndarray, tuple[int, ...]]]:
        """Give growing variables capacity for the elements that this run appends, in memory without other
        references. Returns for each its whole memory and its shape after the run."""
        growing = self.growing
        if not growing:
            return {}
        if self.main.is_cut:
            return self._make_no_room(inner, current)
        memory: dict[int, np.ndarray] = {}
        room = states.room
        while True:
            for k, growing_axis in growing.items():
                value, buffer = current[k], memory.get(k)
                if buffer is None and value is states.cells[k][0] and not states.shown[k]:
                    buffer = states.cells[k][1]
                if buffer is None or buffer.shape[growing_axis.axis] != room:
                    room = max(room, spacious(value.shape[growing_axis.axis]))
                    buffer = with_room(value, growing_axis.axis, room)
                    current[k] = beginning(buffer, value.shape)
                    inner.set_input(growing_axis.input, current[k])
                memory[k] = buffer
            if any(memory[k].shape[growing_axis.axis] != room for k, growing_axis in growing.items()):
                continue  # a later variable has raised the common capacity
            try:
                shapes = inner.bind_with(Room(room, self.growing_axes))
            except CapacityExceeded as need:
                room = spacious(need.length)
                continue
            if self.main.is_cut:  # a graph break was found for these shapes
                return self._make_no_room(inner, current)
            states.room = room
            return {k: (memory[k], tuple(shapes[growing_axis.output])) for k, growing_axis in growing.items()}

    def _make_no_room(
        self, inner: Job, current: list[np.ndarray]
    ) -> dict[int, tuple[np.ndarray, tuple[int, ...]]]:
        """Run without spare capacity, since the parts of a graph with breaks need contiguous values. Returns
        an empty dict: no variable has memory with capacity."""
        if inner.room is not None:
            inner.unbind()
            inner.room = None
        for k, growing_axis in self.growing.items():
            if not current[k].flags.c_contiguous:
                current[k] = copy_row_major(current[k])
                inner.set_input(growing_axis.input, current[k])
        return {}

    def _take(
        self, inner: Job, states: States, current: Sequence[np.ndarray],
        grown: Mapping[int, tuple[np.ndarray, tuple[int, ...]]],
    ) -> None:  # fmt: skip
        """Store the values after the run. The old values' memory is reused for the next run's values.
        `current`: the values of before, which variables without Assign keep."""
        old, shown = states.cells, states.shown
        cells = list(old)
        updates: list[tuple[int, int]] = []  # (k, output of `inner`)
        i = self.public_outputs
        for k, variable in enumerate(self.variables):
            if k in grown:
                buffer, shape = grown[k]
                cells[k] = beginning(buffer, shape), buffer
            elif not variable.assigned:
                if current[k] is not old[k][0]:
                    cells[k] = current[k], None
                continue
            else:
                self.check_assigned(k, inner.outputs[i].shape)
                updates.append((k, i))
            i += 1
        if not updates:
            states.store(cells)
            return
        bound = inner.is_bound
        pairs: list[tuple[int, int | None]] = []
        for k, i in updates:  # released before they are stored: from then on no run may write to them
            array, (spare, memory), input_index = inner.release_output(i), old[k], self.public_inputs + k
            cells[k] = array, None
            # a value that the caller sees, or that has gaps, is not written to
            if spare is None or shown[k] or memory is not None or spare is not inner.inputs[input_index]:
                pairs.append((i, None))
            elif spare.shape != array.shape or spare.dtype != array.dtype:
                pairs.append((i, None))
            else:
                pairs.append((i, input_index))
        states.store(cells)
        inner.exchange_outputs(pairs, bound)

    def check_assigned(self, k: int, shape: tuple[int, ...]) -> None:
        """Raise InferenceError if variable `k` cannot have a value of this shape."""
        stored_shape = self._stored[k][1]
        if not fits(shape, stored_shape):
            raise InferenceError(
                f"the variable {self.variables[k].name!r} has the shape {shapes.text(stored_shape)}, but the "
                f"assigned tensor has {list(shape)}"
            )

    def rows(self, job: Job) -> list[Row]:
        inner = job.parts.get(self.main) or self.main.new_job()
        return inner.profile()


def inner_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "watch"}
