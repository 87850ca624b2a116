"""The memory of a job: its block of integers, its inputs and outputs, and the table for their shapes.

A signal's handler may raise an exception between any two bytecodes. So what native code reads is never
changed while it counts as valid: `_bound` (the addresses in `_bases`) and `_table` (the words of the runner)
are reset first, then the data are written, and one store makes them valid again. After an exception in
between, the next run repeats all of it. Memory stays referenced until native code no longer has its address.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit import locks
from ovjit.errors import InferenceError
from ovjit.execution import blocks, runner, streams
from ovjit.execution.addresses import address_of
from ovjit.execution.body_jobs import BodyJobs, counters_for
from ovjit.execution.compiled_graph import CompiledGraph
from ovjit.execution.queued_job import QueuedJob
from ovjit.execution.table import Table
from ovjit.graph import dtypes
from ovjit.graph.shapes import is_static
from ovjit.planning.views import FIRST_IO

if TYPE_CHECKING:
    from ovjit.planning.growing import Room


class JobMemory(QueuedJob):
    """A job's inputs and outputs, and the table that the runner executes for their shapes."""

    __slots__ = (
        "_bases", "_bodies", "_bound", "_busy", "_counters", "_input_shapes", "_keep", "_native", "_perf",
        "_pool", "_shared", "_table", "_targets", "_written_for", "executable", "inputs", "lock", "notes",
        "outputs", "room",
    )  # fmt: skip

    def __init__(self, executable: CompiledGraph):
        self.executable = executable
        #: Held while a thread sees the end of a run. Reentrant: a signal's handler may come while it is held.
        self.lock = locks.rlock("results")
        inputs, outputs = len(executable.inputs), len(executable.outputs)
        self.inputs: list[np.ndarray | None] = [None] * inputs
        self._input_shapes: list[tuple[int, ...] | None] = [None] * inputs
        self.outputs: list[np.ndarray] = [_initial_output(v) for v in executable.outputs]
        #: The caller's arrays. Output i belongs to the caller if it is `_targets[i]`, else to the job.
        self._targets: list[np.ndarray | None] = [None] * outputs
        #: Other data that a composite keeps per job.
        self.notes: dict[Any, Any] = {}
        self._native = runner.native()
        self._pool = executable.pool
        self._bases = np.zeros(FIRST_IO + inputs + outputs, np.int64)
        self._counters = counters_for(1, 1)
        self._perf: np.ndarray | None = None
        self._busy: np.ndarray | None = None
        self._table: Table | None = None
        self._bodies: BodyJobs | None = None
        self._keep: list[Any] = []
        self._bound = False
        #: The composite's job with which this job shares output arrays, and the numbers they have there.
        self._written_for: tuple[weakref.ref[JobMemory], Sequence[int]] | None = None
        #: Whether output i was shared since its memory was allocated.
        self._shared = [False] * outputs
        #: Capacity of growing inputs. Their outputs are written to the same memory, not to output arrays.
        self.room: Room | None = None
        super().__init__(*streams.take_block())  # last: what `__del__` gives back with the block is there
        self.words[runner.FLUSH] = executable.flushes

    def __del__(self) -> None:
        words = getattr(self, "words", None)
        if words is not None and streams is not None:  # the interpreter may be ending
            streams.give_block(self.address, words, (self._bases, self._counters, self._table, self._keep))

    @property
    def moves(self) -> bool:
        """Whether the table is this job's own, see `Table.move`."""
        return self._table is not None and self._table.moves

    @property
    def is_bound(self) -> bool:
        """Whether what native code reads is complete."""
        return self._bound

    @property
    def in_python(self) -> bool:
        """Whether Python leads the job, and so reads the input arrays themselves."""
        return self._table is None or self._table.in_python

    def set_input(self, i: int, array: np.ndarray, address: int | None = None) -> None:
        """Use `array` (C-contiguous, of the input's NumPy dtype and a fitting shape) for input i."""
        bound, self._bound = self._bound, False
        self.inputs[i] = None  # after an exception below, the input counts as not set
        if array.shape != self._input_shapes[i]:
            bound = False
            self._input_shapes[i] = array.shape
        self._bases[FIRST_IO + i] = address_of(array) if address is None else address
        self.inputs[i] = array
        self._bound = bound

    def set_inputs(self, arrays: Sequence[np.ndarray]) -> None:
        """`set_input` for all inputs, but arrays without elements that are set already: others may have
        moved."""
        inputs, shapes = self.inputs, self._input_shapes
        for i, array in enumerate(arrays):
            if array.size or array is not inputs[i] or array.shape != shapes[i]:
                self.set_input(i, array)

    def set_output(self, i: int, array: np.ndarray | None) -> None:
        """Write output i to `array` (C-contiguous) from now on. None: to the job's own memory."""
        self._bound = False
        if array is None:
            memory = np.empty_like(self.outputs[i])
            memory[...] = self.outputs[i]
            self.outputs[i] = memory
            self._targets[i] = None
        else:
            self._targets[i] = array
            self.outputs[i] = array

    def reads(self, address: int, size: int) -> bool:
        """True if an input overlaps these bytes."""
        end = address + size
        for i, array in enumerate(self.inputs, FIRST_IO):
            begin = self._bases.item(i)
            if array is not None and begin < end and address < begin + array.nbytes:
                return True
        return False

    def _own_outputs(self) -> list[tuple[int, np.ndarray]]:
        """(i, output i) of the outputs that are not the caller's."""
        pairs = zip(self.outputs, self._targets, strict=True)
        return [(i, array) for i, (array, target) in enumerate(pairs) if array is not target]

    def leave(self, array: np.ndarray) -> None:
        """Allocate new memory for outputs that would overwrite `array`, a view of the job's own output."""
        begin = array.ctypes.data
        end = begin + array.nbytes
        for i, output in self._own_outputs():
            if output.ctypes.data < end and begin < output.ctypes.data + output.nbytes:
                self.set_output(i, None)

    def leave_results(self, base: Any) -> None:
        """`leave` for all views of `base`, which is the memory of a shared result."""
        for i, output in self._own_outputs():
            if output is base or output.base is base:
                self.set_output(i, None)

    def _bind(self) -> None:
        """Find the table for the current shapes, allocate outputs, and write all addresses."""
        self._bound = False
        for i, source in enumerate(self.inputs):
            if source is None:
                raise InferenceError(f"input {i} has no data yet")
        shapes: tuple[tuple[int, ...], ...] = tuple(self._input_shapes)  # type: ignore[arg-type]
        table = self._move_table(shapes) or self._new_table(shapes)
        plan = table.plan
        words = self.words
        if table is not self._table:
            self._take(table)
        if words[runner.THREADS] > 1 or (table.bodies and self._bodies.parallel):  # type: ignore[union-attr]
            self._pool.ensure_workers(helpers_only=True)
        bases, first = self._bases, FIRST_IO + len(self.inputs)
        grown = {} if self.room is None else {output: source for output, source, _ in self.room.growing_axes}
        for i, shape in enumerate(plan.output_shapes):
            if i in grown:
                bases[first + i] = bases[FIRST_IO + grown[i]]
                continue
            if not is_static(shape):
                continue  # known only after its host step has run
            self._shape_output(i, tuple(shape))
            bases[first + i] = self.outputs[i].ctypes.data
        self._bound = True

    def _take(self, table: Table) -> None:
        """Make the runner execute this table from now on."""
        executable, plan, words = self.executable, table.plan, self.words
        self._table = None
        counters = counters_for(len(plan.steps), executable.threads)
        perf = np.zeros(2 * max(len(plan.steps), 1), np.int64) if executable.profiling else None
        threads = executable.threads if plan.parallel else 1
        busy = None
        if perf is not None and threads > 1:
            busy = np.zeros((max(len(plan.steps), 1), threads, runner.BUSY_WORDS), np.int64)
        if not words[runner.ACTIVE]:
            self._keep.clear()  # no late helper reads the previous tables
        self._keep.append((table, counters, perf, busy))
        # Counters first: a late helper that sees any part of the new table then cannot claim a chunk.
        words[runner.COUNTERS] = counters.ctypes.data
        self._publish_counters()
        if perf is not None:
            words[runner.PERF] = perf.ctypes.data
        words[runner.BUSY] = 0 if busy is None else busy.ctypes.data
        words[runner.BASES] = self._bases.ctypes.data
        table.write_words(words, threads)
        bodies = BodyJobs(table, executable, self.address, words) if table.bodies else None
        self._bases[1] = plan.memory.ctypes.data
        self._bases[2] = table.data.ctypes.data
        self._counters, self._perf, self._busy, self._bodies = counters, perf, busy, bodies
        self._table = table  # last: after an exception above, such as Ctrl-C, the next bind repeats all

    def _publish_counters(self) -> None:
        """Make the counters visible to late helpers before all later writes.

        If ACTIVE is 0, no helper exists: a new one finds SLOTS of another generation."""
        if self.words[runner.ACTIVE]:
            at = self.address + runner.COUNTERS * 8
            self._native.publish(at, self.words[runner.COUNTERS])

    def _move_table(self, shapes: tuple[tuple[int, ...], ...]) -> Table | None:
        """Update the current table in place to other shapes, such as those of a decoder's next token. None if
        that is not possible."""
        table, room = self._table, self.room
        if room is None or table is None or not table.moves:
            return None
        self._counters.fill(-1)  # first: a late helper then cannot claim a chunk of the new table
        self._publish_counters()
        if not table.move(shapes, room):
            return None
        if self.executable.proves:
            self.executable.program.plan(shapes, room=room)  # checks the trace's plan
            table.plan.trace.check_moved(table.plan, room)
        table.write_sizes(self.words)
        return table

    def _new_table(self, shapes: tuple[tuple[int, ...], ...]) -> Table:
        """A table for these shapes. It is exclusive to this job if the same trace made the previous table,
        for growing inputs: then it can be updated for the following shapes."""
        before = None if self.room is None or self._table is None else self._table.plan.trace
        return self.executable.table(shapes, self.room, before)

    def unbind(self) -> None:
        """Find the table again before the next run."""
        self._bound = False

    def bind_with(
        self, room: Room, first: int = 0, shapes: Sequence[tuple[int, ...]] | None = None
    ) -> list[tuple[int, ...]]:
        """Find the table for the current shapes and `room`. Returns the outputs' shapes. `shapes`: new shapes
        of the inputs from `first` on, whose addresses are unchanged. Raises CapacityExceeded."""
        self.room = room
        if shapes is not None:
            self._bound = False
            self._input_shapes[first:] = shapes
        self._bind()
        assert self._table is not None
        return self._table.plan.output_shapes

    def write_for(self, job: JobMemory, targets: Sequence[int]) -> None:
        """Write output i directly to the array of output `targets[i]` of a composite's `job`. Outputs of
        other shapes are handed over by `give_output` after the run.

        An array is shared for one run. After it, `job` may give the array away, such as to a variable, so it
        is written again only if `job` still has it.
        """
        self._written_for = weakref.ref(job), targets
        if not self._bound:
            self._bind()
        assert self._table is not None
        for i, target in enumerate(targets):
            mine, its = self.outputs[i], job.outputs[target]
            if mine is its:
                continue
            alike = mine.dtype == its.dtype and mine.shape == self._table.plan.output_shapes[i]
            if alike and mine.shape == its.shape:
                self._shared[i] = True  # first, also below: an exception may come in between
                self._put_output(i, its)
                continue
            if self._shared[i]:
                mine = blocks.new_array(mine.shape, mine.dtype)
                self._put_output(i, mine)
                self._shared[i] = False
            if alike and its is not job._targets[target]:
                self._shared[i] = True
                job.outputs[target] = mine

    def _put_output(self, i: int, array: np.ndarray) -> None:
        """Write output i, which is the job's own, to `array` of the same shape and type."""
        bound, self._bound = self._bound, False
        self.outputs[i] = array
        self._bases[FIRST_IO + len(self.inputs) + i] = address_of(array)
        self._bound = bound

    def _shape_output(self, i: int, shape: tuple[int, ...]) -> None:
        """Give output i this shape. Raises InferenceError if the caller's array has another one."""
        if self.outputs[i].shape == shape:
            return
        if self.outputs[i] is self._targets[i]:
            raise InferenceError(
                f"output {i} has the shape {list(shape)} for these inputs, but the tensor set for it "
                f"has the shape {list(self.outputs[i].shape)}: set a tensor of that shape"
            )
        self._bound = False
        self.outputs[i] = self._memory_for(i, shape)

    def _memory_for(self, i: int, shape: Sequence[int]) -> np.ndarray:
        """An array for output i of another shape. A large one reuses the memory of the previous output if it
        has no other reference."""
        dtype = self.outputs[i].dtype
        nothing: np.ndarray = np.empty((0,) * self.outputs[i].ndim, dtype)
        reference, targets = self._written_for or (None, ())
        job = None if reference is None else reference()
        if job is not None and i < len(targets):
            k = targets[i]
            if job.outputs[k] is self.outputs[i] and self.outputs[i] is not job._targets[k]:
                job.outputs[k] = nothing
        self.outputs[i] = nothing  # frees the block, unless the caller has a view of it
        self._shared[i] = False
        return blocks.new_array(shape, dtype)

    def give_output(self, i: int, result: np.ndarray) -> None:
        """Copy a result to output i of a composite. Raises InferenceError if the caller's array has another
        shape."""
        self._shape_output(i, result.shape)
        self.outputs[i][...] = result

    def take_output(self, i: int, spare: np.ndarray | None = None) -> np.ndarray:
        """Return output i of the last run and give up its ownership. The next run writes to `spare` if its
        shape and type match, else to new memory."""
        array = self.outputs[i]
        if spare is None or spare.shape != array.shape or spare.dtype != array.dtype:
            spare = blocks.new_array(array.shape, array.dtype)
        self._put_output(i, spare)
        return array

    def release_output(self, i: int) -> np.ndarray:
        """Like `take_output`, but the next run's memory is allocated when its shapes are known."""
        array = self.outputs[i]
        self._bound = False
        self.outputs[i] = _empty_of_rank(array.ndim, array.dtype)
        return array

    def exchange_outputs(self, pairs: Sequence[tuple[int, int | None]], bound: bool) -> None:
        """After `release_output`, and after the arrays were stored elsewhere: let the next run write each
        output to the array of an input, which has no other use, and the output's shape and type. None: to
        new memory. `bound`: whether the job was bound before."""
        bases, first = self._bases, FIRST_IO + len(self.inputs)
        for output, source in pairs:
            if source is None:
                return  # the next run allocates it
            self.outputs[output] = self.inputs[source]  # type: ignore[assignment]
            bases[first + output] = bases[FIRST_IO + source]
        self._bound = bound

    def states(self) -> Any:
        """The model's variables in this job as `ovjit.execution.states.States`. None without variables."""
        states_of = getattr(self.executable.program, "states_of", None)
        return None if states_of is None else states_of(self)


@functools.cache
def _empty_of_rank(rank: int, dtype: np.dtype) -> np.ndarray:
    """An array without memory, of a rank that no output of this rank has."""
    return np.empty((0,) * (rank + 1), dtype)


def _initial_output(value: Any) -> np.ndarray:
    """An output tensor before the first run: zeros, dynamic dimensions are 0."""
    shape = [0 if not isinstance(d, int) else d for d in value.shape or ()]
    array = blocks.new_array(shape, dtypes.numpy_dtype(value.dtype))
    if not array.dtype.hasobject:
        array[...] = 0
    return array
