"""Inner jobs: the bodies of If and Loop that control steps (`ovjit.execution.control_steps`) run.

They are made together with the table that has the control steps, and belong to one outer job. They are never
queued: the thread that leads the outer job leads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ovjit.execution import runner, streams
from ovjit.execution.compiled_graph import CompiledGraph
from ovjit.execution.layout import IN_BODY, PAST_END, counter_bytes
from ovjit.execution.table import Row, Table
from ovjit.planning.constants import aligned_bytes
from ovjit.planning.views import FIRST_IO

ALIGNMENT = 64


def counters_for(steps: int, threads: int) -> np.ndarray:
    """Zeroed counters for a table with `steps` steps and up to `threads` threads."""
    counters = aligned_bytes(max(steps, 1) * counter_bytes(threads)).view(np.int64)
    counters.fill(0)
    return counters


class BodyJob:
    """The job of one body."""

    __slots__ = ("_bases", "_counters", "address", "inner", "perf", "table", "words")
    address: int

    def __init__(self, table: Table, executable: CompiledGraph, root: int):
        self.table = table
        self.address, self.words = streams.take_block()
        plan, words = table.plan, self.words
        steps = max(len(plan.steps), 1)
        self._bases = np.zeros(FIRST_IO + len(plan.input_shapes) + len(plan.output_shapes), np.int64)
        self._bases[1] = plan.memory.ctypes.data
        self._bases[2] = table.data.ctypes.data
        self._counters = counters_for(steps, executable.threads)
        self.perf = np.zeros(2 * steps, np.int64) if executable.profiling else None
        threads = executable.threads if plan.parallel else 1
        words[runner.BASES] = self._bases.ctypes.data
        words[runner.COUNTERS] = self._counters.ctypes.data
        words[runner.PERF] = 0 if self.perf is None else self.perf.ctypes.data
        words[runner.BUSY] = 0
        words[runner.FLUSH] = executable.flushes
        table.write_words(words, threads)
        self.inner = BodyJobs(table, executable, root, words)

    def __del__(self) -> None:
        words = getattr(self, "words", None)
        if words is not None and streams is not None:
            memory = [getattr(self, name, None) for name in ("_bases", "_counters", "perf", "table")]
            streams.give_block(self.address, words, memory)


class BodyJobs:
    """The bodies of all control steps of a table, in a job with these `words`; `root` is the address of the
    outermost job."""

    __slots__ = ("_addresses", "_records", "jobs")

    def __init__(self, table: Table, executable: CompiledGraph, root: int, words: Any):
        self.jobs = {
            step: [BodyJob(body, executable, root) for body in bodies]
            for step, bodies in table.bodies.items()
        }
        self._records = []
        for step, bodies in self.jobs.items():
            call = table.plan.steps[step].control
            assert call is not None
            self._records.append(np.array([*(b.address for b in bodies), *[0] * (call.room + 1)], np.int64))
        self._addresses = np.array([r.ctypes.data for r in self._records] or [0], np.int64)
        nested = -(-words[runner.ARENA_SIZE] // ALIGNMENT) * ALIGNMENT
        words[runner.ROOT] = root
        words[runner.NESTED] = nested
        words[runner.CONTROLS] = self._addresses.ctypes.data
        sizes = [body.words[runner.ARENA_SIZE] for body in self]
        if sizes:
            words[runner.ARENA_SIZE] = nested + max(sizes)

    def __iter__(self) -> Iterator[BodyJob]:
        """Iterate over the bodies of this table, without those that are nested in them."""
        return (body for bodies in self.jobs.values() for body in bodies)

    @property
    def parallel(self) -> bool:
        """Whether a body at any depth uses several threads."""
        return any(body.words[runner.THREADS] > 1 or body.inner.parallel for body in self)

    def abort(self) -> None:
        for body in self:
            body.words[runner.ABORT] = 1
            body.inner.abort()

    def clear_times(self) -> None:
        for body in self:
            if body.perf is not None:
                body.perf[:] = 0
            body.inner.clear_times()

    def failure(self, error: int) -> tuple[Table | None, int]:
        """The table and ERROR word of the innermost body that has failed; (None, error) if none has."""
        if error & 0xFFFFFFFF != IN_BODY:
            return None, error
        for body in self.jobs[error >> 32]:
            if body.words[runner.ERROR]:
                inner, code = body.inner.failure(body.words[runner.ERROR])
                return inner or body.table, code
        return None, error


def error_text(code: int) -> str | None:
    """The message for an error code of a control step; None for other codes."""
    return "an iteration exceeds the last part of a sliced input" if code == PAST_END else None


def step_rows(table: Table, perf: np.ndarray | None, bodies: BodyJobs | None) -> list[Row]:
    """One row for each step. Steps of bodies follow the control step that runs them, with the total time of
    all iterations. The control step's own time excludes theirs."""
    rows = []
    for i, step in enumerate(table.plan.steps):
        spent = 0 if perf is None else int(perf[2 * i + 1] - perf[2 * i])
        inner: list[Row] = []
        if bodies is not None:
            for body in bodies.jobs.get(i, ()):
                inner += step_rows(body.table, body.perf, body.inner)
        kind = "ref_numpy" if step.kernel is None else step.kernel.name
        if step.control is not None:
            kind = step.control.function
            spent = max(spent - sum(row.real_ns for row in inner), 0)
        status = "EXECUTED" if perf is not None and spent >= 0 else "NOT_RUN"
        form = "f32" if step.kernel is None else step.kernel.form
        work = table.plan.work_of(i)
        rows.append(
            Row(step.name, step.type, kind, status, spent, spent, step.origins, *work, form, step.why)
        )
        rows += inner
    return rows
