"""Models with variables: the program with hidden inputs and outputs, and what each job keeps between runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ovjit.errors import InferenceError, OvjitError
from ovjit.execution.blocks import LARGE_STATE, new_array
from ovjit.execution.executable import Executable
from ovjit.execution.job import Job
from ovjit.execution.table import Row
from ovjit.forks import ForkLock, made_once
from ovjit.graph import dtypes, shapes
from ovjit.graph.graph import Graph
from ovjit.graph.shapes import GUESS, LONG_GUESS, check_shapes, fits, guessed_input
from ovjit.planning.growing import Outgrown, Place, Room
from ovjit.planning.plan_steps import Plan

if TYPE_CHECKING:
    from ovjit.rewrite.model_variables import Variable

class Init(NamedTuple):
    """What computes the value that a variable begins with: output `output` of `executable`, which reads the
    inputs of the main program that have the numbers `inputs`."""

    executable: Executable
    inputs: tuple[int, ...]
    output: int


class StatefulProgram:
    """What `Program` is to an executable, for a graph with ReadValue and Assign: runs `main`, an executable
    whose last inputs and outputs are the variables. Thread-safe."""

    def __init__(self, main: Executable, variables: Sequence[Variable], given: Callable[[], Graph],
                 starts: Callable[[], list[np.ndarray | Init | None]]):  # fmt: skip
        """`given` returns the graph with its state operations, `starts` what variables begin with: for each
        an array, what computes it, or None for zeros."""
        self.main = main
        self.variables = tuple(variables)
        self.given = given
        self.public_inputs = len(main.inputs) - len(self.variables)
        self.public_outputs = len(main.outputs) - sum(v.assigned for v in self.variables)
        self.inputs: Sequence[Any] = main.inputs[: self.public_inputs]
        self.outputs: Sequence[Any] = main.outputs[: self.public_outputs]
        self._starts = starts
        self._lock = ForkLock("model")
        self._inits: list[np.ndarray | Init | None] | None = None

    def inits(self) -> list[np.ndarray | Init | None]:
        """For each variable: an array, what computes it, or None for zeros."""
        with self._lock.lock:
            if self._inits is None:  # imported: not needed so far
                self._inits = self._starts()
            return self._inits

    # --- what an executable asks a program for

    @property
    def layouts(self) -> Mapping[Any, Any]:
        """Of the values of `graph`, which are not those that the compiler laid out, none is known."""
        return {}

    @property
    def graph(self) -> Graph:
        graph = self.given()
        return Graph(graph.inputs, graph.nodes, graph.public_outputs)

    @property
    def addresses(self) -> Mapping[Any, int]:
        """It has no kernels of its own."""
        return {}

    def load(self) -> None:
        """`main` has been loaded."""

    def host_nodes(self) -> list[str]:
        return self.main.program.host_nodes()

    def loaded_plan(self, shape_list: Sequence[tuple[int, ...]]) -> Plan:
        check_shapes(self.inputs, shape_list)
        plan = Plan()
        plan.composite = self
        plan.input_shapes = tuple(tuple(s) for s in shape_list)
        plan.output_shapes = [v.shape for v in self.outputs]
        return plan

    def foresee(self) -> None:
        """Trace plans before any shape is known (see `Program.foresee`): of a first run after a reset, and of
        a run that then appends one element."""
        self._foresee(1, 1)

    def foresee_more(self) -> None:
        """See `Program.foresee_more`: runs that append many elements, and batches of several."""
        self._foresee(1, LONG_GUESS)
        self._foresee(GUESS, 1)

    def _foresee(self, batch: int, more: int) -> None:
        """Have plans traced of a first run with a `batch`, and of one that appends so many `more`."""
        from ovjit.planning.concrete_types import concrete_types  # imported models do without

        given = [guessed_input(v.shape, batch) for v in self.inputs]
        states = self._guessed_beginning(given)
        if states is None:
            return
        made = self._foreseen([*given, *states], batch == more == 1)
        if made is None or not self.places:
            return
        place = self.places[0]
        length = made[place.output][place.axis]
        new = length - states[place.input - self.public_inputs][place.axis]
        outputs = iter(range(self.public_outputs, len(made)))
        now = [made[next(outputs)] if v.assigned else s
               for v, s in zip(self.variables, states, strict=True)]  # fmt: skip
        dims = [(i, axis) for i, shape in enumerate(given) for axis, d in enumerate(shape)
                if d == new and self.inputs[i].shape[axis] != d]  # fmt: skip

        def after(count: int, whole: tuple[int, int] | None) -> list[tuple[int, ...]]:
            """The inputs' shapes for so many more; `whole`: which dimension is that of all there are then."""
            shapes = [list(shape) for shape in given]
            for i, axis in dims:
                shapes[i][axis] = count + (length if (i, axis) == whole else 0)
            return [*map(tuple, shapes), *now]

        for whole in (None, *dims):
            with contextlib.suppress(OvjitError):  # by a few: one would fit too much
                concrete_types(self.main.program.graph, after(GUESS + 2, whole))
                self._foreseen(after(more, whole))
                return

    def _guessed_beginning(self, given: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]] | None:
        """The shapes that variables have after a reset, for inputs of these shapes."""
        made: dict[Executable, Sequence[tuple[int, ...]]] = {}
        for init in self.inits():
            if not isinstance(init, Init) or init.executable in made:
                continue
            if max(init.inputs, default=-1) >= len(given):
                return None  # one begins with what follows from another
            shapes, begun = [given[i] for i in init.inputs], init.executable
            trace = begun.program.foresee(shapes)
            plan = None if trace is None else trace.at(shapes)
            if plan is None and not begun.static:
                return None
            made[begun] = [v.shape for v in begun.outputs] if plan is None else plan.output_shapes
        return [
            made[init.executable][init.output] if isinstance(init, Init)
            else lowest(variable).shape if init is None else init.shape
            for init, variable in zip(self.inits(), self.variables, strict=True)
        ]  # fmt: skip

    def _foreseen(
        self, shapes: Sequence[tuple[int, ...]], prepares: bool = False
    ) -> Sequence[tuple[int, ...]] | None:
        """Have a plan of the main program for these shapes traced; the shapes that it makes. `prepares`: have
        memory for it, too."""
        program, room = self.main.program, Room(spacious(0), self.places) if self.places else None
        try:
            trace = program.foresee(shapes, room)
        except Outgrown as need:
            room = Room(spacious(need.length), self.places)
            trace = program.foresee(shapes, room)
        plan = None if trace is None else trace.at(shapes, room)
        if plan is None:
            return None
        if prepares:
            rooms: dict[int, list[int]] = {}
            if room is not None:
                for output, _, axis in room.places:
                    rooms[output] = [*plan.output_shapes[output]]
                    rooms[output][axis] = room.capacity
            self.main.prepare(plan, rooms, self.public_outputs)
        return plan.output_shapes

    # --- what a table asks what runs in place of steps for

    def states_of(self, job: Job) -> States:
        states = job.notes.get(self)
        if states is None:
            states = job.notes[self] = States(self.variables, [init is not None for init in self.inits()])
        return states

    def run(self, job: Job) -> None:
        """Run on this thread: variables in, the main program, variables out."""
        states = self.states_of(job)
        inner = job.parts.get(self.main)
        if inner is None:
            inner = job.parts[self.main] = self.main.new_job()
        for i, array in enumerate(job.inputs):
            assert array is not None
            inner.set_input(i, array)
        if states.steady is not None and self._step(job, inner, states):
            return
        states.settle()
        moves: dict[tuple[int, int], Moves | None] = {}  # what the order of an input does to so many rows
        undo: list[tuple[np.ndarray, Moves, np.ndarray]] = []  # rows that were moved in their places
        try:
            self._run(job, inner, states, moves, undo)
        except BaseException:
            for rows, moved, before in undo:
                rows[moved.to] = before
            raise

    def _run(
        self, job: Job, inner: Job, states: States, moves: dict[tuple[int, int], Moves | None],
        undo: list[tuple[np.ndarray, Moves, np.ndarray]],
    ) -> None:  # fmt: skip
        current: list[np.ndarray] = []  # what the variables are before this run, in the order of the beams
        begun: dict[Executable, Job] = {}  # what has computed what variables begin with
        for k, variable in enumerate(self.variables):
            value = states.values[k]
            if value is None:
                value = self._initial(job, inner, k, begun)
            value = as_stored(value, variable)
            if variable.order >= 0:
                order = inner.inputs[variable.order]
                assert order is not None
                key = variable.order, len(value)
                if key not in moves:
                    moves[key] = moves_of(order, len(value))
                moved = moves[key]
                keeps = value is states.values[k] and states.memory[k] is not None and not states.shown[k]
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
        undo.clear()
        for k, value in enumerate(current):
            if value is not states.values[k]:
                states.values[k], states.memory[k], states.shown[k] = value, None, False
        self._take(inner, states, grown)
        if len(grown) == len(self.variables) and inner.moves:
            states.steady = [grown[k][1] for k in range(len(grown))]

    def _run_inner(self, job: Job, inner: Job) -> None:
        inner.write_for(job, self.public_outputs)
        inner.run()
        for i in range(self.public_outputs):
            if inner.outputs[i] is not job.outputs[i]:
                job.give_output(i, inner.outputs[i])

    def _step(self, job: Job, inner: Job, states: States) -> bool:
        """A run after one that left all variables growing, none of which has been read: then they keep their
        memory and are longer. False otherwise; nothing is changed."""
        assert states.steady is not None
        for number, rows in {(v.order, s[0]) for v, s in zip(self.variables, states.steady, strict=True)
                             if v.order >= 0}:  # fmt: skip
            order = inner.inputs[number]
            if order is None or order.tolist() != list(range(rows)):
                return False
        try:
            shapes = inner.bind_with(Room(states.room, self.places), self.public_inputs, states.steady)
        except Outgrown:
            return False
        if inner.in_python:
            return False
        self._run_inner(job, inner)
        states.steady = [shapes[output] for output in self._grown_outputs]
        return True

    def _initial(self, job: Job, inner: Job, k: int, begun: dict[Executable, Job]) -> np.ndarray:
        """What variable `k` is after a reset, in memory of its own. `begun`: what has run for this run."""
        init = self.inits()[k]
        if init is None:
            return lowest(self.variables[k])
        if isinstance(init, np.ndarray):
            return _owned(init)
        part = begun.get(init.executable)
        if part is None:
            part = begun[init.executable] = self._begin(job, inner, init)
        variable, value = self.variables[k], part.outputs[init.output]
        if value.dtype != dtypes.numpy_dtype(variable.dtype) or not fits(value.shape, variable.shape):
            raise InferenceError(
                f"the variable {variable.name!r} of {variable.dtype} and the shape "
                f"{shapes.text(variable.shape)} begins with {value.dtype}{list(value.shape)}"
            )
        return _owned(value)

    def _begin(self, job: Job, inner: Job, init: Init) -> Job:
        """Run what computes the values that variables begin with."""
        part = job.parts.get(init.executable)
        if part is None:
            part = job.parts[init.executable] = init.executable.new_job()
        for i, number in enumerate(init.inputs):
            array = inner.inputs[number]
            if number >= self.public_inputs:
                other = self.variables[number - self.public_inputs]
                if array is None:  # a variable further on, on which this one cannot depend
                    array = lowest(other)
                array = as_given(array, other)
            assert array is not None
            part.set_input(i, array)
        part.run()
        return part

    @made_once
    def growing(self) -> dict[int, Place]:
        """Variable -> where it grows in place, for those that do."""
        assigned = [k for k, v in enumerate(self.variables) if v.assigned]
        pairs = [(self.public_outputs + i, self.public_inputs + k) for i, k in enumerate(assigned)]
        return {place.input - self.public_inputs: place for place in self.main.program.growing(pairs)}

    @made_once
    def _grown_outputs(self) -> list[int]:
        """The output of the main program that each variable is afterwards, where all of them grow."""
        return [self.growing[k].output for k in range(len(self.variables))]

    @made_once
    def places(self) -> tuple[Place, ...]:
        return tuple(self.growing.values())

    def _make_room(
        self, inner: Job, states: States, current: list[np.ndarray]
    ) -> dict[int, tuple[np.ndarray, tuple[int, ...]]]:
        """Give growing variables room for the elements that this run appends, in memory without other
        references. Returns for each its memory and its future shape."""
        growing = self.growing
        inner.room = None
        if not growing or self.main.is_cut:
            return {}
        memory: dict[int, np.ndarray] = {}
        room = states.room
        while True:
            for k, place in growing.items():
                value, whole = current[k], memory.get(k)
                if whole is None and value is states.values[k] and not states.shown[k]:
                    whole = states.memory[k]
                if whole is None or whole.shape[place.axis] != room:
                    room = max(room, spacious(value.shape[place.axis]))
                    whole = with_room(value, place.axis, room)
                    current[k] = beginning(whole, value.shape)
                    inner.set_input(place.input, current[k])
                memory[k] = whole
            if any(memory[k].shape[place.axis] != room for k, place in growing.items()):
                continue  # one of them needs more than those before it
            try:
                shapes = inner.bind_with(Room(room, self.places))
            except Outgrown as need:
                room = spacious(need.length)
                continue
            if self.main.is_cut:  # as these first shapes have told
                inner.room = None
                for k, place in growing.items():
                    current[k] = _owned(current[k])
                    inner.set_input(place.input, current[k])
                inner.unbind()
                return {}
            states.room = room
            return {k: (memory[k], tuple(shapes[place.output])) for k, place in growing.items()}

    def _take(
        self, inner: Job, states: States, grown: Mapping[int, tuple[np.ndarray, tuple[int, ...]]]
    ) -> None:
        """The new values become the states; where the old ones were, the next values are written."""
        i = self.public_outputs
        for k, variable in enumerate(self.variables):
            if not variable.assigned:
                continue
            new = inner.outputs[i]
            if k in grown:
                whole, shape = grown[k]
                states.values[k], states.memory[k] = beginning(whole, shape), whole
                states.shown[k] = False
                i += 1
                continue
            kept = variable.kept.shape
            if not fits(new.shape, kept):
                raise InferenceError(
                    f"the variable {variable.name!r} of the shape {shapes.text(kept)} is assigned "
                    f"a tensor of {list(new.shape)}"
                )
            spare = None if states.shown[k] else states.values[k]
            states.values[k] = inner.take_output(i, spare)
            states.shown[k] = False
            i += 1

    def rows(self, job: Job) -> list[Row]:
        inner = job.parts.get(self.main) or self.main.new_job()
        return inner.profile()


class States:
    """The values of a job's variables; None after a reset, until a run works out what they begin with."""

    def __init__(self, variables: Sequence[Variable], computed: Sequence[bool]):
        """`computed`: which variables have an initial value other than zeros."""
        self.variables = tuple(variables)
        self._computed = list(computed)
        self.values: list[np.ndarray | None] = [None] * len(self.variables)
        #: Whether the caller holds a tensor on the value's memory, which is then not written again.
        self.shown = [False] * len(self.variables)
        #: The memory with room that the value is the beginning of, of those that grow; for how many elements.
        self.memory: list[np.ndarray | None] = [None] * len(self.variables)
        self.room = 0
        #: The variables' shapes, where all of them grow and `values` are shorter beginnings of their memory.
        self.steady: list[tuple[int, ...]] | None = None
        for k in range(len(self.variables)):
            self.reset(k)

    def settle(self) -> None:
        """Let `values` be what the variables are."""
        shapes, self.steady = self.steady, None
        for k, shape in enumerate(shapes or ()):
            whole = self.memory[k]
            assert whole is not None
            self.values[k] = beginning(whole, shape)

    def reset(self, k: int) -> None:
        self.settle()
        self.values[k] = None if self._computed[k] else lowest(self.variables[k])
        self.memory[k], self.shown[k] = None, False

    def show(self, k: int) -> np.ndarray:
        """The value, zeros after a reset."""
        self.settle()
        value = self.values[k]
        if value is None:
            return lowest(self.variables[k])
        dtype = dtypes.numpy_dtype(self.variables[k].dtype)
        if not value.flags.c_contiguous or value.dtype != dtype:
            # it has room to grow, or is kept otherwise: an ordinary array is in its place from now on
            value = self.values[k] = np.array(as_given(value, self.variables[k]), order="C")
            self.memory[k] = None
        self.shown[k] = True
        return value

    def set(self, k: int, value: np.ndarray) -> None:
        """Take a copy of `value`, of the variable's dtype, as it is kept.

        Raises InferenceError unless the shape fits.
        """
        variable = self.variables[k]
        if not fits(value.shape, variable.shape):
            raise InferenceError(
                f"the variable {variable.name!r} has the shape {shapes.text(variable.shape)}, "
                f"the given tensor {list(value.shape)}"
            )
        self.settle()
        self.values[k] = _owned(as_stored(value, variable))
        self.memory[k], self.shown[k] = None, False


def as_stored(value: np.ndarray, variable: Variable) -> np.ndarray:
    """`value` in the element type that the variable is kept in."""
    if value.dtype == dtypes.numpy_dtype(variable.kept.dtype):
        return value
    rows = variable.rows
    if rows is not None:
        return rows.to_bytes(value)
    return dtypes.cast(value, dtypes.numpy_dtype(variable.stored))


def as_given(value: np.ndarray, variable: Variable) -> np.ndarray:
    """`value`, in which a variable is kept, in the variable's own element type."""
    wanted = dtypes.numpy_dtype(variable.dtype)
    rows = variable.rows
    if value.dtype != wanted and rows is not None:
        return rows.to_floats(value)
    return value.astype(wanted, copy=False)


def inner_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "watch"}


def lowest(variable: Variable) -> np.ndarray:
    """Zeros; open dimensions are 0."""
    shape = [d if isinstance(d, int) else 0 for d in variable.shape or ()]
    return np.zeros(shape, dtypes.numpy_dtype(variable.dtype))


class Moves(NamedTuple):
    """Rows that others take the places of: row `source[i]` goes to the place `to[i]`. `at[i]`: which of `to`
    that source is, -1 for one that stays."""

    to: np.ndarray
    source: np.ndarray
    at: np.ndarray


def moves_of(order: np.ndarray, rows: int) -> Moves | None:
    """What puts so many rows into `order`; None unless it names as many rows, all of them there."""
    if len(order) != rows or ((order < -rows) | (order >= rows)).any():
        return None
    places = np.where(order < 0, order + rows, order).astype(np.int64)
    to = np.flatnonzero(places != np.arange(rows))
    at = np.full(rows, -1, np.int64)
    at[to] = np.arange(to.size)
    return Moves(to, places[to], at[places[to]])


def move_rows(rows: np.ndarray, moves: Moves, before: np.ndarray) -> None:
    """Put rows into order in their places; `before` is what is in the places that change."""
    for to, source, at in zip(*(m.tolist() for m in moves), strict=True):
        rows[to] = rows[source] if at < 0 else before[at]


def in_order(value: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The rows of `value` that `order` names, as Gather has them: zeros for those that are not there."""
    rows = len(value)
    places = order.astype(np.int64)
    there = (places >= -rows) & (places < rows)
    words = as_words(value)
    if there.all():
        return words[places].view(value.dtype)
    out = np.zeros((len(order), *value.shape[1:]), words.dtype)
    out[there] = words[places[there]]
    return out.view(value.dtype)


def as_words(array: np.ndarray) -> np.ndarray:
    """16-bit floats as integers, which NumPy moves by rows and not one by one; other types unchanged."""
    return array if array.dtype.isbuiltin != 2 else array.view(f"u{array.dtype.itemsize}")


#: Room is made for this many elements more than are needed, at least, and for a quarter more.
SPARE = 32


def spacious(length: int) -> int:
    """Room for `length` elements and more."""
    return -(-(length + max(SPARE, length // 4)) // SPARE) * SPARE


def with_room(value: np.ndarray, axis: int, room: int) -> np.ndarray:
    """Memory with room for `room` elements along `axis`, `value` at its beginning."""
    shape = [*value.shape]
    shape[axis] = room
    whole = new_array(shape, value.dtype, LARGE_STATE)
    as_words(beginning(whole, value.shape))[...] = as_words(value)
    return whole


def beginning(whole: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The first elements along each dimension."""
    return whole[tuple(slice(0, n) for n in shape)]


def _owned(array: np.ndarray) -> np.ndarray:
    return np.array(array, order="C")
