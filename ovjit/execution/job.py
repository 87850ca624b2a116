"""Executables and jobs: a compiled model, and one inference of it at a time.

`Executable` is shared by all requests of a compiled model. A `Job` is what a request is to the runner: a
block of integers, the addresses of its inputs and outputs, and the plan for its current input shapes.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit import debug
from ovjit.errors import Cancelled, InferenceError, OvjitError
from ovjit.execution import blocks, runner, streams
from ovjit.execution.body_jobs import BodyJobs, error_text
from ovjit.execution.runner import ABORT, ARENA_SIZE, DONE, ERROR, IDLE, QUEUED, RUNNING, STATE
from ovjit.execution.table import Row as Row
from ovjit.execution.table import Table as Table
from ovjit.execution.table import step_rows as step_rows
from ovjit.forks import ForkLock, made_once, members
from ovjit.graph import dtypes
from ovjit.graph.graph import Graph, Value
from ovjit.graph.shapes import check_shapes, is_static
from ovjit.planning.views import FIRST_IO, View

if TYPE_CHECKING:
    from ovjit.planning.growing import Room

#: What a cancelled inference raises, in OpenVINO's words.
CANCELLED = "Infer Request was canceled: the inference was cancelled while it ran"

#: Error codes that kernels return; the text is what went wrong.
KERNEL_ERRORS = {
    1: "an index is out of range",
    2: "a region is too large",
    4: "a length is out of range",
    3: "the picture should be at least one pixel large and its scales positive",
    5: "paged attention: subsequence_begins should rise from 0 to the number of rows of the query",
    6: "paged attention: past_lens should not be negative",
    7: "paged attention: block_indices_begins should rise from 0 and stay within block_indices",
    8: "paged attention: a sequence has fewer blocks than its past and new tokens need",
    9: "paged attention: block_indices leads outside of the cache, or a new token to a block of -1",
    10: "paged attention: rotated_block_indices or rotation_deltas lead outside of the cache or of "
    "rotation_trig_lut",
    12: "PaKVReorder: block_update_indices should name tokens that lie in blocks of their sequence",
    11: "paged attention: qq_bias_begins should say of each sequence where its new tokens squared lie within "
    "qq_bias",
}


_get_ident = threading.get_ident

#: ns. An inference that took less is run by the thread that waits for it.
SHORT_JOB = 300_000
#: ns. Loops without a known end that took less the last time are run by the thread that asks for it.
BRIEF_LOOP = 50_000_000
#: ns after which a thread that waits lets signals through.
_SLICE = 100_000_000
#: The same where there may be no worker.
_MOMENT = 1_000_000


#: The tables that a model keeps for the shapes it has met take about so much memory; the least recently used
#: ones are made anew when they are met again.
TABLE_BYTES = 128 << 20
#: As many tables are kept of plans that a trace has made: to make one again costs less than to keep it.
TRACED_TABLES = 64


class Executable:
    """A compiled graph. Thread-safe."""

    def __init__(
        self,
        program: Any,
        config: Mapping[str, Any],
        graph: Graph | None,
        *,
        watch: Callable[[Value, Any], None] | None,
        job: type[Job],
        segments: Callable[[Any, Mapping[str, Any]], Any],
        bodies: Callable[[], Any],
    ):
        """Of a `program` that is loaded: the compiler's, or an `ovjit.storage.program.StoredProgram`. Its
        `loaded_plan` gives plans with the addresses of their kernels.

        `graph`: as it was given to the compiler, if it is known. `job`: the class of this executable's jobs.
        `segments(cut, config)` makes what runs a graph that has to be cut.
        """
        #: Called with each value and its difference from the reference, see `ovjit.execution.watch`.
        self.watch = watch
        self._new_job = job
        self._new_segments = segments
        self._graph = graph
        self.config = dict(config)
        self.program = program
        #: What the ends are: anything with a dtype and a shape.
        self.inputs: Sequence[Any] = program.inputs if graph is None else graph.inputs
        self.outputs: Sequence[Any] = program.outputs if graph is None else graph.public_outputs
        runner.native("runner")
        self.streams = int(config.get("streams", 1))
        self.threads = int(config.get("threads", 1))
        self.pool = streams.pool_for(self.streams, self.threads * self.streams)
        self.profiling = bool(config.get("PERF_COUNT"))
        self.flushes = bool(config.get("CPU_DENORMALS_OPTIMIZATION"))
        self._tables: OrderedDict[tuple, Table] = OrderedDict()
        self._table_bytes = 0
        #: Whether plans are proved, tables that are made those of other shapes included.
        self.proves = debug.is_on("OVJIT_CHECK")
        #: What runs the program in place of steps, whatever the shapes are, where it has no steps of its own.
        self._composite: Table | None = None
        #: Which of them a trace has made, the oldest first.
        self._traced_shapes: OrderedDict[tuple, None] = OrderedDict()
        #: What runs the graph once it has turned out that it must be cut, see `ovjit.execution.segments`.
        self._chain: Any = None
        self._new_bodies = bodies
        self._capacity = int(config.get("CPU_RUNTIME_CACHE_CAPACITY", 5000)) or 1
        self._lock = ForkLock("model")
        self._jobs: weakref.WeakSet[Job] = weakref.WeakSet()
        blocks.users.add(self)
        self.static = all(is_static(v.shape) for v in self.inputs)
        table = self.table(tuple(tuple(v.shape) for v in self.inputs)) if self.static else None
        if self.threads > 1 and (table is None or table.plan.parallel):
            runner.native("runner_queues")  # the first inference does not wait for it

    def show(self, seconds: float, counts: Mapping[str, int]) -> None:
        """Print what was made, `counts` of whose kernels were compiled and cached, in so many seconds."""
        steps, host = None, self.program.host_nodes()
        if self.static:
            table = self.table(tuple(tuple(v.shape) for v in self.inputs))
            steps = len(table.plan.steps)
            host = [f"{table.plan.steps[i].name} ({table.plan.steps[i].type})" for i in table.host]
        debug.show_model(seconds, len(self.program.addresses), counts, steps, host)

    @made_once
    def bodies(self) -> Any:
        """What evaluates nodes on the host, see `ovjit.execution.control`."""
        return self._new_bodies()

    @property
    def main(self) -> Executable:
        """What has the weights and the plans: itself, or of a model with state the one without state."""
        return getattr(self.program, "main", self)

    @property
    def graph(self) -> Graph:
        """The graph as it was given to the compiler; read from the blob when the model came from one."""
        return self.program.given() if self._graph is None else self._graph

    def table(
        self, shapes: tuple[tuple[int, ...], ...], room: Room | None = None, before: Any = None
    ) -> Table:
        """The table for these input shapes, and room to grow, from a least-recently-used cache. One that the
        trace `before` makes is the caller's own."""
        if self._composite is not None:
            check_shapes(self.inputs, shapes)
            return self._composite
        key = shapes if room is None else (*shapes, room)
        with self._lock.lock:
            table = self._tables.get(key)
            if table is not None:
                self._tables.move_to_end(key)
                return table
        if self._chain is not None:
            check_shapes(self.inputs, shapes)
            plan = self._chain.plan(shapes, self.outputs)
        else:
            made = self.program.loaded_plan
            plan = made(shapes) if room is None else made(shapes, room=room)
            if plan.cut is not None:
                plan.composite = self._cut(plan.cut)
        table = Table(plan, plan.addresses)
        if debug.level() >= debug.PLANS:
            debug.show_plan(table.plan)
        if not self.static:
            plan.words = []  # for export alone, which has the plan of static shapes only
        if before is not None and plan.trace is before and not table.bodies and not self.profiling:
            table.moves = debug.level() < debug.PLANS and all(v.shape is not None for v in self.inputs)
            return table
        if plan.composite is self.program:
            self._composite = table
            return table
        with self._lock.lock:
            known = self._tables.pop(key, None)
            self._tables[key] = table
            self._table_bytes += table.bytes - (0 if known is None else known.bytes)
            if plan.trace is not None:
                self._traced_shapes[key] = None
                if len(self._traced_shapes) > TRACED_TABLES:
                    oldest = self._tables.pop(self._traced_shapes.popitem(last=False)[0], None)
                    self._table_bytes -= 0 if oldest is None else oldest.bytes
            while len(self._tables) > self._capacity or (
                self._table_bytes > TABLE_BYTES and len(self._tables) > 1
            ):
                self._table_bytes -= self._tables.popitem(last=False)[1].bytes
        return table

    def _cut(self, cut: Any) -> Any:
        """What runs a graph that has to be cut; made once, whatever shapes come later."""
        with self._lock.lock:
            if self._chain is None:
                self._chain = self._new_segments(cut, self.config)
            return self._chain

    def __del__(self) -> None:
        # the arenas that this model's callers have grown may be larger than others need
        if blocks is not None:  # the interpreter may be ending
            blocks.release_arenas()

    def prepare(self, plan: Any, states: Mapping[int, Sequence[int]], results: int) -> None:
        """Allocate the working memory and outputs of a plan that was traced ahead of time, with room for
        `states` to grow to these shapes, and for the caller's copies of the first `results`. Otherwise the
        first inference would wait until fresh pages are cleared."""
        ends = enumerate(zip(self.outputs, plan.output_shapes, strict=True))
        sizes = [math.prod(states.get(i, shape)) * dtypes.numpy_dtype(value.dtype).itemsize
                 for i, (value, shape) in ends]  # fmt: skip
        growing = [sizes[i] for i in states]
        arrays = [size for i, size in enumerate(sizes) if i not in states]
        threads = self.threads if plan.parallel else 1
        working = plan.scratch_offset + plan.scratch_size * threads
        blocks.prepare(working, [*arrays, *sizes[:results]], growing)

    @property
    def is_cut(self) -> bool:
        """Whether the graph has turned out to be one that must be cut."""
        return self._chain is not None

    def new_job(self) -> Job:
        job = self._new_job(self)
        self._jobs.add(job)
        return job

    def _after_fork(self) -> None:
        for job in members(self._jobs):
            job._bound = False  # its workers are started anew
            if job.words[STATE] in (QUEUED, RUNNING):
                job.lose()  # forked between two of the steps of its beginning or its end


class Job:
    """One inference at a time. Not thread-safe: the request that owns it is its guard."""

    __slots__ = (
        "__weakref__", "_addresses", "_bases", "_bodies", "_bound", "_busy", "_callback_running", "_counters",
        "_input_shapes", "_keep", "_native", "_own", "_perf", "_pool", "_table", "_targets", "_written_for",
        "address",
        "client", "error", "executable", "inputs", "notes", "outputs", "parts", "room", "words",
    )  # fmt: skip

    def __init__(self, executable: Executable):
        self.executable = executable
        inputs, outputs = len(executable.inputs), len(executable.outputs)
        self.inputs: list[np.ndarray | None] = [None] * inputs
        self._addresses: list[int] = [0] * inputs
        self._input_shapes: list[tuple[int, ...] | None] = [None] * inputs
        self.outputs: list[np.ndarray] = [_initial_output(v) for v in executable.outputs]
        self._own: list[np.ndarray | None] = list(self.outputs)
        self._targets: list[np.ndarray | None] = [None] * outputs
        #: Whose `_done(job)` is called at the end of what was started with `notify`, and `_cut_short(job)`
        #: when Ctrl-C comes in the midst of that.
        self.client: Any = None
        self.error: BaseException | None = None
        #: Of a composite: executable -> this job's job of it, and what else it keeps for this job.
        self.parts: dict[Any, Job] = {}
        self.notes: dict[Any, Any] = {}
        self._callback_running = False
        self._native = runner.native()
        self._pool = executable.pool
        self.address, self.words = streams.take_block()
        self.words[runner.FLUSH] = executable.flushes
        self._bases = np.zeros(FIRST_IO + inputs + outputs, np.int64)
        self._counters = np.zeros(2, np.int64)
        self._perf: np.ndarray | None = None
        self._busy: np.ndarray | None = None
        self._table: Table | None = None
        self._bodies: BodyJobs | None = None
        self._keep: list[Any] = []
        self._bound = False
        #: The job of a composite that has these outputs, too.
        self._written_for: weakref.ref[Job] | None = None
        #: The room that some inputs have to grow: their outputs are written behind them, to no arrays.
        self.room: Room | None = None

    def __del__(self) -> None:
        words = getattr(self, "words", None)
        if words is not None and streams is not None:  # the interpreter may be ending
            streams.give_block(self.address, words, (self._bases, self._counters, self._table, self._keep))

    # --- inputs and outputs

    def set_input(self, i: int, array: np.ndarray, address: int | None = None) -> None:
        """Use `array` (C-contiguous, of the input's NumPy dtype and a fitting shape) for input i."""
        self.inputs[i] = None  # Ctrl-C in between leaves no half of it: the next call sets all
        if array.shape != self._input_shapes[i]:
            self._bound = False
            self._input_shapes[i] = array.shape
        self._bases[FIRST_IO + i] = array.ctypes.data if address is None else address
        self.inputs[i] = array

    def set_output(self, i: int, array: np.ndarray | None) -> None:
        """Write output i to `array` (C-contiguous) from now on; None: to memory of the job's own."""
        self._targets[i] = array
        if array is None:
            own = np.empty_like(self.outputs[i])
            own[...] = self.outputs[i]
            self._own[i] = self.outputs[i] = own
        else:
            self._own[i] = None
            self.outputs[i] = array
        self._bound = False

    def reads(self, address: int, size: int) -> bool:
        """True where an input lies in these bytes, or in some of them."""
        end = address + size
        for i, array in enumerate(self.inputs, FIRST_IO):
            begin = self._bases.item(i)
            if array is not None and begin < end and address < begin + array.nbytes:
                return True
        return False

    def leave(self, array: np.ndarray) -> None:
        """Write no output to memory of the job's own in which `array` lies: it is read from there."""
        begin = array.ctypes.data
        end = begin + array.nbytes
        for i, own in enumerate(self._own):
            if own is not None and own.ctypes.data < end and begin < own.ctypes.data + own.nbytes:
                self.set_output(i, None)

    def leave_results(self, base: Any) -> None:
        """`leave` for a view of `base`, which is that memory itself where a result was shared."""
        for i, own in enumerate(self._own):
            if own is not None and (own is base or own.base is base):
                self.set_output(i, None)

    def _bind(self) -> None:
        """Find the table for the current shapes, give outputs memory, write all addresses."""
        for i, given in enumerate(self.inputs):
            if given is None:
                raise InferenceError(f"input {i} has no data yet")
        executable = self.executable
        shapes: tuple[tuple[int, ...], ...] = tuple(self._input_shapes)  # type: ignore[arg-type]
        table = self._moved(shapes) or self._new_table(shapes)
        plan = table.plan
        words = self.words
        if table is not self._table:
            counters = np.zeros(2 * max(len(plan.steps), 1), np.int64)
            perf = np.zeros(2 * max(len(plan.steps), 1), np.int64) if executable.profiling else None
            threads = executable.threads if plan.parallel else 1
            busy = None
            if perf is not None and threads > 1:
                busy = np.zeros((max(len(plan.steps), 1), threads, runner.BUSY_WORDS), np.int64)
            if not words[runner.ACTIVE]:
                self._keep.clear()  # no late helper looks at the tables of before
            self._keep.append((table, counters, perf, busy))
            # Counters first: a late helper that sees anything of the new table finds no claim of its own.
            words[runner.COUNTERS] = counters.ctypes.data
            if perf is not None:
                words[runner.PERF] = perf.ctypes.data
            words[runner.BUSY] = 0 if busy is None else busy.ctypes.data
            words[runner.TABLE] = table.address
            words[runner.STEPS] = len(plan.steps)
            words[runner.BASES] = self._bases.ctypes.data
            words[runner.THREADS] = threads
            words[runner.SCRATCH] = plan.scratch_offset
            words[runner.SCRATCH_SIZE] = plan.scratch_size
            words[ARENA_SIZE] = plan.scratch_offset + plan.scratch_size * threads
            bodies = BodyJobs(table, executable, self.address, words) if table.bodies else None
            self._bases[1] = plan.memory.ctypes.data
            self._bases[2] = table.data.ctypes.data
            # last: when memory ran out or an interrupt came on the way here, all of it is done again
            self._table, self._counters, self._perf, self._bodies = table, counters, perf, bodies
            self._busy = busy
        if words[runner.THREADS] > 1 or (table.bodies and self._bodies.parallel):  # type: ignore[union-attr]
            self._pool.ensure_workers(helpers_only=True)
        bases, first = self._bases, FIRST_IO + len(self.inputs)
        grown = {} if self.room is None else {output: given for output, given, _ in self.room.places}
        for i, shape in enumerate(plan.output_shapes):
            if i in grown:
                bases[first + i] = bases[FIRST_IO + grown[i]]
                continue
            if not is_static(shape):
                continue  # known only after its host step has run
            self._shape_output(i, tuple(shape))
            bases[first + i] = self.outputs[i].ctypes.data
        self._bound = True

    def _moved(self, shapes: tuple[tuple[int, ...], ...]) -> Table | None:
        """The table of before, made that of other shapes, as each token of a decoder asks for."""
        table, room = self._table, self.room
        if room is None or table is None or not table.moves:
            return None
        self._counters.fill(-1)  # before: a helper that is late finds no claim of its own in the new one
        if not table.move(shapes, room):
            return None
        plan, words = table.plan, self.words
        if self.executable.proves:
            self.executable.program.plan(shapes, room=room)  # which proves what the trace makes
            plan.trace.check_moved(plan, room)
        words[runner.SCRATCH_SIZE] = plan.scratch_size
        words[ARENA_SIZE] = plan.scratch_offset + plan.scratch_size * words[runner.THREADS]
        return table

    def _new_table(self, shapes: tuple[tuple[int, ...], ...]) -> Table:
        """Another table than the one of before. It is this job's own where the one before was made by the
        same trace, with room to grow: then more are to follow."""
        before = None if self.room is None or self._table is None else self._table.plan.trace
        return self.executable.table(shapes, self.room, before)

    def unbind(self) -> None:
        """Find the table anew before the next run."""
        self._bound = False

    def bind_with(
        self, room: Room, first: int = 0, shapes: Sequence[tuple[int, ...]] | None = None
    ) -> list[tuple[int, ...]]:
        """Find the table for the current shapes and `room`, and the outputs' shapes. Raises Outgrown if the
        capacity is exceeded. `shapes`: of the inputs from `first` on, whose memory is unchanged."""
        self.room = room
        if shapes is not None:
            self._bound = False
            self._input_shapes[first:] = shapes
        self._bind()
        assert self._table is not None
        return self._table.plan.output_shapes

    # --- running

    def run(self) -> None:
        """Run on this thread, with the pool's workers helping. Raises what went wrong."""
        if not self._bound:
            self._bind()
        if self._table.endless and not 0 < self.latency_ns < BRIEF_LOOP:  # type: ignore[union-attr]
            if _get_ident() == threading.main_thread().ident:
                self._run_apart()
                return
        words = self.words
        words[ABORT] = 0
        words[ERROR] = 0
        if self._perf is not None:
            self._clear_times()
        self._lead()
        if words[ERROR] or words[ABORT]:
            try:
                raise self._failure()
            finally:
                words[ABORT] = words[ERROR] = 0

    def _run_apart(self) -> None:
        """Run on a worker, so that this thread, Python's main one, hears of Ctrl-C."""
        self.words[runner.STARTED] = self.words[runner.ENDED] = 0  # it was short the last time: no matter
        self.start(False)
        try:
            self.wait()
        except BaseException:
            while self.started:
                self.cancel()
                with contextlib.suppress(OvjitError):
                    self.wait()
            raise

    def _clear_times(self) -> None:
        """The runner adds to the counts, since a body's steps run more than once."""
        assert self._perf is not None
        self._perf[:] = 0
        if self._busy is not None:
            self._busy[:] = 0
        if self._bodies is not None:
            self._bodies.clear_times()

    def _lead(self) -> None:
        """Run on this thread with an arena of the callers'."""
        words = self.words
        arena = blocks.taken_arena()
        if arena.size < words[ARENA_SIZE]:
            arena.reserve(words[ARENA_SIZE])
        if self._table.in_python:  # type: ignore[union-attr]
            self._run_segments(arena)
        else:
            self._native.lead(self.address, self._pool.address, arena.address, 0)
        blocks.free_arenas.append(arena)

    def start(self, notify: bool, queue: int = 0) -> None:
        """Run on a worker. With `notify`, `client._done(job)` is called when it is over, errors included: on
        it, or by the thread that waits at `queue` (the address of a `streams.CompletionQueue`)."""
        if not self._bound:
            self._bind()
        words = self.words
        words[ABORT] = 0
        words[ERROR] = 0
        if self._perf is not None:
            self._clear_times()
        self.error = None
        self._callback_running = False
        if self._table.in_python:  # type: ignore[union-attr]
            words[runner.NOTIFY] = runner.IN_PYTHON
        elif notify and queue:
            words[runner.NOTIFY] = runner.POST
            words[runner.COMPLETIONS] = queue
        else:
            words[runner.NOTIFY] = runner.CALL_BACK if notify else runner.SILENT
        words[runner.STATE] = IDLE  # until it is in the queue: an interrupt may come before
        self._pool.submit(self)

    @property
    def started(self) -> bool:
        """True from the moment when `start` has queued the job until it is over and waited for."""
        return self.words[runner.STATE] != IDLE

    @property
    def queued(self) -> bool:
        """True while no thread has begun the job."""
        return self.words[runner.STATE] == QUEUED

    @property
    def posted(self) -> bool:
        """True for a job that was started with a completion queue."""
        return self.words[runner.NOTIFY] == runner.POST

    @property
    def busy(self) -> bool:
        """True from `start` until the inference is over; a callback may then still be running."""
        return self.words[runner.STATE] in (QUEUED, RUNNING) and not self._callback_running

    def wait(self, timeout_ms: int | None = None) -> bool:
        """True when the inference and its callback are over. Raises the inference's error, once."""
        words, pool = self.words, self._pool
        if timeout_ms is None and words[runner.STATE] == QUEUED and words[runner.NOTIFY] == runner.SILENT:
            self.run_queued()
        wait = self._native.wait
        # short slices let signals through
        if timeout_ms is None:
            while not wait(self.address, _SLICE if pool.workers else _MOMENT, 0, 0):
                self._help_out()
        else:
            left = timeout_ms * 1_000_000
            while not wait(self.address, min(left, _SLICE if pool.workers else _MOMENT), 0, 0):
                left -= _SLICE if pool.workers else _MOMENT
                if left <= 0:
                    return False
                self._help_out()
        if words[runner.STATE] == DONE:
            pool.running.pop(self.address, None)
            if words[ABORT] or words[ERROR]:
                self._note_failure()
            words[runner.STATE] = IDLE  # last: interrupted on the way here, the next wait does it again
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # whose traceback has this frame: a cycle would keep this job's memory
        return True

    def _help_out(self) -> None:
        """Run the job where no worker will: the interpreter is ending, or there are no threads to be had."""
        if not self._pool.workers and self.words[runner.STATE] == QUEUED:
            self.run_queued(even_long=True)

    def run_queued(self, even_long: bool = False) -> bool:
        """Run the job on this thread, callback included, if it still waits for a worker: handing it over
        would take longer than many inferences. False when a worker has it, when all streams are in use, and,
        unless `even_long`, for what is not known to be short, since it could not be interrupted."""
        words = self.words
        latency = words[runner.ENDED] - words[runner.STARTED]
        if not even_long and (not 0 < latency < SHORT_JOB or words[runner.NOTIFY] == runner.IN_PYTHON):
            return False
        pool = self._pool
        try:
            if not self._native.steal(pool.address, self.address, _get_ident(), 0):
                return False
            self.lead_taken()
            pool.complete(self.address)
        except BaseException:
            pool.complete_taken()
            raise
        return True

    def lead_taken(self) -> None:
        """Run a job that this thread has taken out of the queue; what goes wrong is the job's error."""
        try:
            self._lead()
        except BaseException as error:
            if streams.is_interrupt(error):
                if self._table.in_python:  # type: ignore[union-attr]
                    self.error = Cancelled("the inference was interrupted")
                raise
            self.error = error

    def cancel(self) -> None:
        """Stop between two steps; `wait` then raises Cancelled."""
        if self.words[runner.STATE] != DONE:  # IDLE: another thread may be in `run`, which clears it at first
            self._abort()

    def _abort(self) -> None:
        self.words[ABORT] = 1
        if self._bodies is not None:
            self._bodies.abort()
        for part in list(self.parts.values()):
            part._abort()

    @property
    def latency_ns(self) -> int:
        """Nanoseconds that the last inference took."""
        return max(self.words[runner.ENDED] - self.words[runner.STARTED], 0)

    def _note_failure(self) -> None:
        """Make what the runner has left in the job its `error`, unless it has one."""
        if self.error is None:
            self.error = self._failure()
        self.words[ABORT] = self.words[ERROR] = 0

    def _failure(self) -> BaseException:
        error = self.words[ERROR]
        if not error:
            return Cancelled(CANCELLED)
        table, error = (None, error) if self._bodies is None else self._bodies.failure(error)
        step = (table or self._table).plan.steps[error >> 32]  # type: ignore[union-attr]
        code = error & 0xFFFFFFFF
        text = KERNEL_ERRORS.get(code) or error_text(code) or f"error {code}"
        return InferenceError(f"node {step.name!r} ({step.type}): {text}")

    # --- what workers call

    def call_back(self) -> None:
        """Tell the client, on the worker. What that raises is the client's business."""
        words = self.words
        if words[ERROR] or words[ABORT]:
            self._note_failure()
        self._callback_running = True
        client = self.client
        if client is not None and words[runner.NOTIFY]:
            self.client = None  # no cycle stays
            try:
                client._done(self)
            except BaseException as error:
                if streams.is_interrupt(error):
                    self.client = client
                    raise
                self.error = error

    def cut_short(self) -> None:
        """Ctrl-C came during `call_back`."""
        client, self.client = self.client, None
        if client is not None:
            client._cut_short(self)

    def lose(self) -> None:
        """In a forked child: end a job that only the parent has a thread for."""
        if not self._callback_running:
            self.words[ABORT] = 1
            self.error = InferenceError(
                "the process was forked during this inference, which ends in the parent"
            )
            self.call_back()
        self.words[runner.OWNER] = self.words[runner.LEADS] = 0
        self.words[runner.STATE] = DONE

    def run_on_worker(self, arena: blocks.Arena) -> None:
        """A job with host steps, led by a worker through Python."""
        try:
            self.words[runner.STATE] = RUNNING
            arena.reserve(self.words[ARENA_SIZE])
            self._run_segments(arena)
        except BaseException as error:
            self.error = error

    # --- host steps

    def _run_segments(self, arena: blocks.Arena) -> None:
        """Native runs between host steps, which NumPy does here."""
        words, table = self.words, self._table
        assert table is not None
        if table.composite is not None:
            self._run_composite(table.composite)
            return
        steps = len(table.plan.steps)
        self._bases[0] = arena.address
        first, began = 0, 0
        try:
            for stop in self._stops(table):
                if stop > first:
                    words[runner.FIRST], words[runner.STEPS] = first, stop
                    self._native.lead(self.address, self._pool.address, arena.address, 0)
                    began = began or words[runner.STARTED]
                    if words[ABORT]:
                        return
                self._reached(stop)
                first = stop
                if stop < steps and table.plan.steps[stop].host is not None:
                    began = began or runner.clock()
                    self._run_host(stop)
                    first = stop + 1
        finally:
            words[runner.FIRST], words[runner.STEPS] = 0, steps
            words[runner.STARTED], words[runner.ENDED] = began, runner.clock()

    def _run_composite(self, composite: Any) -> None:
        words = self.words
        words[runner.STARTED] = runner.clock()
        try:
            composite.run(self)
        finally:
            words[runner.ENDED] = runner.clock()

    @property
    def moves(self) -> bool:
        """Whether the table is this job's own, see `Table.move`."""
        return self._table is not None and self._table.moves

    @property
    def in_python(self) -> bool:
        """Whether Python leads the job: it looks at the arrays that inputs are."""
        return self._table is None or self._table.in_python

    def write_for(self, job: Job, count: int) -> None:
        """Write the first `count` outputs where `job`, of a composite, has its own; `give_output` is for
        those whose shapes are not known before."""
        self._written_for = weakref.ref(job)
        if not self._bound:
            self._bind()
        assert self._table is not None
        for i in range(count):
            mine, its = self.outputs[i], job.outputs[i]
            if mine is its or mine.dtype != its.dtype or mine.shape != self._table.plan.output_shapes[i]:
                continue
            if mine.shape == its.shape:
                self.outputs[i] = self._own[i] = its
                self._bases[FIRST_IO + len(self.inputs) + i] = its.ctypes.data
            elif job._targets[i] is None:
                job.outputs[i] = job._own[i] = mine

    def _shape_output(self, i: int, shape: tuple[int, ...]) -> None:
        """See that output i has this shape. InferenceError if the caller's array has another one."""
        if self.outputs[i].shape == shape:
            return
        if self._targets[i] is not None:
            raise InferenceError(
                f"output {i} has the shape {list(shape)} for these inputs; "
                f"the tensor that was set for it has {list(self.outputs[i].shape)}"
            )
        self.outputs[i] = self._own[i] = self._memory_for(i, shape)

    def _memory_for(self, i: int, shape: Sequence[int]) -> np.ndarray:
        """An array for output i of another shape. A large one reuses the memory of the previous output if it
        has no other reference."""
        dtype = self.outputs[i].dtype
        other = None if self._written_for is None else self._written_for()
        jobs = [self] if other is None or i >= len(other.outputs) else [self, other]
        if self.outputs[i] is self._own[i]:
            nothing: np.ndarray = np.empty((0,) * self.outputs[i].ndim, dtype)
            for arrays in [arrays for job in jobs for arrays in (job.outputs, job._own)]:
                if arrays[i] is self.outputs[i] and arrays is not self.outputs:
                    arrays[i] = nothing
            self.outputs[i] = nothing  # frees the block, unless the caller has a view of it
        return blocks.new_array(shape, dtype)

    def give_output(self, i: int, result: np.ndarray) -> None:
        """Copy a composite's result to output i. InferenceError if the caller's array has another shape."""
        self._shape_output(i, result.shape)
        self.outputs[i][...] = result

    def take_output(self, i: int, spare: np.ndarray | None = None) -> np.ndarray:
        """Output i of the last run, which the job lets go of: the next run writes it to `spare`, when that
        fits, or to new memory."""
        array = self.outputs[i]
        if spare is None or spare.shape != array.shape or spare.dtype != array.dtype:
            spare = blocks.new_array(array.shape, array.dtype)
        self.outputs[i] = self._own[i] = spare
        self._bases[FIRST_IO + len(self.inputs) + i] = spare.ctypes.data
        return array

    def release_output(self, i: int) -> np.ndarray:
        """As `take_output`; memory for the next run is found when its shapes are known."""
        array = self.outputs[i]
        self.outputs[i] = self._own[i] = np.empty((0,) * (array.ndim + 1), array.dtype)
        self._bound = False
        return array

    def states(self) -> Any:
        """The model's variables in this job, an `ovjit.execution.variables.States`; None when it has none."""
        states_of = getattr(self.executable.program, "states_of", None)
        return None if states_of is None else states_of(self)

    def _stops(self, table: Table) -> Sequence[int]:
        """The steps before which Python takes over, in order; the last is their number."""
        return (*table.host, len(table.plan.steps))

    def _reached(self, done: int) -> None:
        """The first `done` steps have run."""

    def _run_host(self, index: int) -> None:
        table = self._table
        assert table is not None
        step = table.plan.steps[index]
        call = step.host
        assert call is not None
        began = runner.clock()
        try:
            arrays = [self._array(v, view) for v, view in zip(call.node.inputs, call.inputs, strict=True)]
            results = self.executable.bodies.evaluate(self, call.node, arrays)
        except OvjitError as error:
            raise InferenceError(f"node {step.name!r} ({step.type}): {error}") from error
        for value, view, result in zip(call.node.outputs, call.outputs, results, strict=True):
            target = self._array(value, view)
            if target.shape != result.shape:
                raise InferenceError(
                    f"node {step.name!r} ({step.type}) made the shape {list(result.shape)}, "
                    f"not {list(target.shape)}"
                )
            target[...] = result
        if self._perf is not None:
            self._perf[2 * index], self._perf[2 * index + 1] = began, runner.clock()

    def stop_if_cancelled(self) -> None:
        """Raises Cancelled after `cancel`: what runs long on the host calls it now and then."""
        if self.words[ABORT]:
            raise Cancelled(CANCELLED)

    def _array(self, value: Any, view: View) -> np.ndarray:
        """NumPy's view of a tensor of this job."""
        import ctypes

        dtype = dtypes.numpy_dtype(value.dtype)
        if view.count == 0:
            return np.empty(view.shape, dtype)
        address = int(self._bases[view.buffer.base]) + view.buffer.offset + view.offset
        span = sum((d - 1) * s for d, s in zip(view.shape, view.strides, strict=True)) + view.itemsize
        memory = (ctypes.c_uint8 * span).from_address(address)
        return np.ndarray(view.shape, dtype, memoryview(memory), strides=view.strides)

    # --- seeing it

    def profile(self) -> list[Row]:
        """One row for each step of the last run; without profiling the times are 0 and nothing has run."""
        table = self._table
        if table is None:
            return [
                Row(n.name, n.op.name, "", "NOT_RUN", 0, 0, n.origins) for n in self.executable.graph.nodes
            ]
        if table.composite is not None:
            return list(table.composite.rows(self))
        return step_rows(table, self._perf, self._bodies)

    def by_threads(self) -> np.ndarray | None:
        """The work of each thread in the last run, int64 [steps, threads, 3]: begin of its first chunk of the
        step, end of its last one, in ns from the beginning of the run, and the number of chunks. None
        without profiling, and where other jobs ran in the place of steps."""
        table = self._table
        if table is None or self._perf is None or table.composite is not None or table.bodies:
            return None
        began = int(self.words[runner.STARTED])
        if self._busy is not None:
            found = self._busy.copy()
        else:
            found = np.zeros((len(table.plan.steps), 1, runner.BUSY_WORDS), np.int64)
            found[:, 0, :2] = self._perf[: 2 * len(found)].reshape(-1, 2)
            found[:, 0, runner.BUSY_CHUNKS] = [step.chunks for step in table.plan.steps]
        for i in table.host:  # by Python, on the thread that leads
            found[i, 0] = self._perf[2 * i], self._perf[2 * i + 1], 1
        found[..., :2] -= np.where(found[..., 2:] > 0, began, 0)
        return found


def _initial_output(value: Any) -> np.ndarray:
    """An output tensor before the first run: open dimensions are 0."""
    shape = [0 if not isinstance(d, int) else d for d in value.shape or ()]
    array = blocks.new_array(shape, dtypes.numpy_dtype(value.dtype))
    if not array.dtype.hasobject:
        array[...] = 0
    return array


def _after_fork() -> None:
    for executable in members(blocks.users):
        executable._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


__all__ = ["Executable", "Job", "Row"]
