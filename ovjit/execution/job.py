"""Jobs: one inference of an executable at a time.

A request has one `Job`. `JobMemory` has its inputs, outputs and table. `HostSteps` runs the Python code
between native steps. This class runs, starts, waits for and cancels the job.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import numpy as np

from ovjit.codegen.cpu import machine
from ovjit.errors import Busy, Cancelled, InferenceError, OvjitError
from ovjit.execution import blocks, runner, streams
from ovjit.execution.body_jobs import error_text, step_rows
from ovjit.execution.compiled_graph import CompiledGraph
from ovjit.execution.host_steps import CANCELLED, HostSteps
from ovjit.execution.layout import LATENCY, NOTIFY, OWNER, SILENT, STATE
from ovjit.execution.runner import ABORT, ARENA_SIZE, DONE, ERROR, FAILED, IDLE, QUEUED, RUNNING
from ovjit.execution.table import Row

#: Error codes that kernels return -> error message.
KERNEL_ERRORS = {
    1: "an index is out of range",
    2: "a region is too large",
    4: "a length is out of range",
    3: "the image should have at least one pixel and positive scales",
    5: "paged attention: subsequence_begins should increase from 0 to the number of rows of the query",
    6: "paged attention: past_lens should not be negative",
    7: "paged attention: block_indices_begins should increase from 0 and stay within block_indices",
    8: "paged attention: a sequence has fewer blocks than its past and new tokens need",
    9: "paged attention: block_indices is outside of the cache, or a new token has block -1",
    10: "paged attention: rotated_block_indices or rotation_deltas are outside of the cache or of "
    "rotation_trig_lut",
    11: "paged attention: qq_bias_begins should give each sequence the offset of its squared new "
    "tokens in qq_bias",
    12: "PaKVReorder: block_update_indices should refer to tokens in blocks of their sequence",
    13: "paged attention: rotation_deltas should have one row per entry of rotated_block_indices, with "
    "one number or one per token of a block; rows of rotation_trig_lut should have the length of a "
    "key",
    14: "paged states: subsequence_begins and block_indices_begins should increase from 0 to the "
    "number of tokens and within block_indices",
    15: "paged states: block_indices is outside of the table of states, a sequence with new tokens has "
    "too few blocks, or a past is negative",
}


_get_ident = threading.get_ident

#: ns. If the last inference took less, a queued job is run by the thread that waits for it.
SHORT_JOB = 300_000
#: ns. A loop without a known bound runs on the calling thread only if the last run took less.
BRIEF_LOOP = 50_000_000
#: ns between a waiting thread's checks for signals.
_SLICE = 100_000_000
#: ns between these checks if there may be no worker.
MOMENT = 1_000_000
#: Whether a thread that reads a job's state sees all that was written before it, without a native call.
LOADS_IN_ORDER = machine.is_x86()


class Job(HostSteps):
    """One inference at a time. Not thread-safe: the owning request serialises access."""

    __slots__ = ("parts",)
    #: Whether Python leads every job of this class, whatever its plan.
    leads_in_python = False

    def __init__(self, executable: CompiledGraph):
        super().__init__(executable)
        #: Of a composite: executable -> this job's inner job of it.
        self.parts: dict[Any, Job] = {}

    def part_job(self, part: Any) -> Job:
        """This job's inner job of the executable `part`."""
        inner = self.parts.get(part)
        if inner is None:
            inner = self.parts[part] = part.new_job()
        return inner

    def run(self) -> None:
        """Run on this thread, with help of the pool's workers. Raises the inference's error."""
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
        """Run on a worker, so that this thread, Python's main thread, can receive Ctrl-C."""
        self.words[runner.STARTED] = self.words[runner.ENDED] = 0  # latency 0: `wait` leaves it to the worker
        try:
            self.start(False)
            self.wait()
        except BaseException:
            while self.is_started:
                self.cancel()
                with contextlib.suppress(OvjitError):
                    self.wait()
            raise

    def _clear_times(self) -> None:
        """Reset the profile. The runner accumulates into it, since a body's steps run several times."""
        assert self._perf is not None
        self._perf[:] = 0
        if self._busy is not None:
            self._busy[:] = 0
        if self._bodies is not None:
            self._bodies.clear_times()

    def _lead(self) -> None:
        """Run on this thread, with an arena from the free list."""
        arena = blocks.take_arena(self.words[ARENA_SIZE])
        if self._table.in_python:  # type: ignore[union-attr]
            self._run_segments(arena)
        else:
            self._native.lead(self.address, self._pool.address, arena.address)
        blocks.free_arenas.append(arena)

    def start(self, notify: bool, queue: int = 0) -> None:
        """Run on a worker. With `notify`, `client._done(job)` is called at the end, also after an error. The
        worker calls it, or the thread that waits at `queue` (the address of a `streams.CompletionQueue`)."""
        if not self._bound:
            self._bind()
        if self._perf is not None:
            self._clear_times()
        self.error = None
        self._callback_running = False
        how = SILENT
        if self._table.in_python:  # type: ignore[union-attr]
            how = runner.IN_PYTHON
        elif notify:
            how = runner.POST if queue else runner.CALL_BACK
        self.words[STATE] = IDLE  # an interrupt before `submit` leaves an idle job
        self._pool.submit(self, how, queue)

    def wait(self, timeout_ms: int | None = None) -> bool:
        """Wait until inference and callback are complete. False after a timeout. Raises the error, once."""
        if not self.settle(timeout_ms):
            return False
        error = self.take_error()
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame: the cycle would keep the job's memory alive
        return True

    def settle(self, timeout_ms: int | None = None) -> bool:
        """Wait until inference and callback are complete. False after a timeout. The outcome is in `error`:
        all that this raises comes from elsewhere, such as a signal's handler, and the job may still run."""
        state = self.words[STATE]
        if state == QUEUED or state == RUNNING or not LOADS_IN_ORDER:
            if not (timeout_ms is None and self.run_silent(MOMENT)) and not self._wait(timeout_ms):
                return False
        if self.words[STATE] != IDLE:
            with self.lock:
                self.note_end()  # another thread may have come first, and may have started the next run
        return True

    def note_end(self) -> bool:
        """With the lock held: take notice that the job has ended, if it has. Returns whether it is idle."""
        state = self.words[STATE]
        if state == QUEUED or state == RUNNING or not (LOADS_IN_ORDER or self._wait(0)):
            return False
        if state != IDLE:
            self._pool.running.pop(self.address, None)
            if state == FAILED:
                self._note_failure()
            if self.words[STATE] == state:  # else a signal's handler came between, and started the next run
                self.words[STATE] = IDLE  # last: after an interrupt, the next call repeats this
        return True

    def _wait(self, timeout_ms: int | None) -> bool:
        """Wait for the job's end without the GIL. False after a timeout."""
        pool, wait = self._pool, self._native.wait
        # signals are handled between slices
        slice_ns = _SLICE if pool.workers else MOMENT
        if timeout_ms is None:
            while not wait(self.address, slice_ns, pool.address, 0):
                self._help_out()
            return True
        remaining = timeout_ms * 1_000_000
        while not wait(self.address, min(remaining, slice_ns), pool.address, 0):
            remaining -= slice_ns
            if remaining <= 0:
                return False
            self._help_out()
        return True

    def _help_out(self) -> None:
        """Run the job here if there are no workers: the interpreter is exiting, or threads cannot start.
        Raises Busy if this thread itself is about to finish the job: a handler of a signal waits."""
        if not self._pool.workers and self.words[STATE] == QUEUED:
            self.run_queued(even_long=True)
        elif self.words[STATE] == RUNNING and self.words[OWNER] in (_get_ident(), ~_get_ident()):
            raise Busy("the call that this handler of a signal has interrupted ends it: wait there")

    def run_queued(self, even_long: bool = False) -> bool:
        """Run a queued job on this thread, with its callback: waking a worker takes longer than many
        inferences. False if a worker has begun it or all streams are in use. False also, unless `even_long`,
        if it is not known to be short, since a run on this thread cannot be interrupted."""
        words = self.words
        latency = words[runner.ENDED] - words[runner.STARTED]
        if not even_long and (not 0 < latency < SHORT_JOB or words[NOTIFY] == runner.IN_PYTHON):
            return False
        pool = self._pool
        try:
            arena = self._free_arena()
            address = 0 if arena is None else arena.address
            stolen = self._native.steal(pool.address, self.address, _get_ident(), address)
            if arena is not None:
                blocks.free_arenas.append(arena)
            if not stolen:
                return False
            if arena is None:
                self.lead_taken()
            pool.complete(self)
        except BaseException:
            pool.complete_taken(self)
            raise
        return True

    def run_silent(self, ns: int = 0) -> bool:
        """Run a queued job without a callback on this thread, if it is known to be short: waking a worker
        takes longer. If a worker has just begun it, wait for `ns`. True if it is over. Its end is left to
        `settle`: this takes one native call, `run_queued` two."""
        words = self.words
        if words[STATE] != QUEUED or words[NOTIFY] != SILENT or not 0 < words[LATENCY] < SHORT_JOB:
            return False
        try:
            arena = blocks.take_arena(words[ARENA_SIZE])
        except MemoryError:
            return False
        over = self._native.wait(self.address, ns, self._pool.address, arena.address)
        blocks.free_arenas.append(arena)
        return over == 1

    def _free_arena(self) -> blocks.Arena | None:
        """An arena for native code. None if Python leads the job, or without memory."""
        if self._table.in_python:  # type: ignore[union-attr]
            return None
        try:
            return blocks.take_arena(self.words[ARENA_SIZE])
        except MemoryError:
            return None

    def lead_taken(self) -> None:
        """Run a job that this thread has taken out of the queue. Exceptions become the job's error."""
        try:
            self._lead()
        except BaseException as error:
            if streams.is_interrupt(error):
                if self._table.in_python:  # type: ignore[union-attr]
                    self.error = Cancelled("the inference was interrupted")
                raise
            self.error = error

    def cancel(self) -> None:
        """Stop between two steps. `wait` then raises Cancelled."""
        if self.words[STATE] < DONE:  # IDLE too: another thread may be in `run`
            self._abort()

    def _abort(self) -> None:
        self.words[ABORT] = 1
        if self._bodies is not None:
            self._bodies.abort()
        for part in list(self.parts.values()):
            part._abort()

    def _failure(self) -> BaseException:
        error = self.words[ERROR]
        if not error:
            return Cancelled(CANCELLED)
        table, error = (None, error) if self._bodies is None else self._bodies.failure(error)
        step = (table or self._table).plan.steps[error >> 32]  # type: ignore[union-attr]
        code = error & 0xFFFFFFFF
        text = KERNEL_ERRORS.get(code) or error_text(code) or f"error {code}"
        return InferenceError(f"node {step.name!r} ({step.type}): {text}")

    def run_on_worker(self, arena: blocks.Arena) -> None:
        """Run a job with host steps: a worker executes this in Python."""
        try:
            self.words[STATE] = RUNNING
            arena.reserve(self.words[ARENA_SIZE])
            self._run_segments(arena)
        except BaseException as error:
            self.error = error

    def profile(self) -> list[Row]:
        """One row per step of the last run. Without profiling the times are 0 and the status is NOT_RUN."""
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
        step, end of its last one, both in ns since the run's start, and the number of chunks. None without
        profiling, and for composites and control steps."""
        table = self._table
        if table is None or self._perf is None or table.composite is not None or table.bodies:
            return None
        start = int(self.words[runner.STARTED])
        if self._busy is not None:
            busy = self._busy.copy()
        else:
            busy = np.zeros((len(table.plan.steps), 1, runner.BUSY_WORDS), np.int64)
            busy[:, 0, :2] = self._perf[: 2 * len(busy)].reshape(-1, 2)
            busy[:, 0, runner.BUSY_CHUNKS] = [step.chunks for step in table.plan.steps]
        for i in table.host:  # by Python, on the thread that leads
            busy[i, 0] = self._perf[2 * i], self._perf[2 * i + 1], 1
        busy[..., :2] -= np.where(busy[..., 2:] > 0, start, 0)
        return busy
