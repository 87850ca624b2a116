"""Jobs: one inference of an executable at a time.

A `Job` is what a request is to the runner. `JobMemory` has its inputs, outputs and table, `HostSteps` what
Python does between native steps. Here it is run, started, waited for and cancelled.
"""

from __future__ import annotations

import contextlib
import threading

import numpy as np

from ovjit.errors import Cancelled, InferenceError, OvjitError
from ovjit.execution import blocks, runner, streams
from ovjit.execution.body_jobs import error_text
from ovjit.execution.host_steps import CANCELLED, HostSteps
from ovjit.execution.runner import ABORT, ARENA_SIZE, DONE, ERROR, IDLE, QUEUED, RUNNING
from ovjit.execution.table import Row, step_rows

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
    11: "paged attention: qq_bias_begins should say of each sequence where its new tokens squared lie within "
    "qq_bias",
    12: "PaKVReorder: block_update_indices should name tokens that lie in blocks of their sequence",
    13: "paged attention: rotation_deltas should have a row for each of rotated_block_indices, of one number "
    "or one for each token of a block, and rotation_trig_lut rows as long as a key",
    14: "paged states: subsequence_begins and block_indices_begins should rise from 0 to the number of "
    "tokens and within block_indices",
    15: "paged states: block_indices leads outside of the table of states, a sequence with new tokens has "
    "too few blocks, or a past is negative",
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


class Job(HostSteps):
    """One inference at a time. Not thread-safe: the request that owns it is its guard."""

    __slots__ = ()

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
