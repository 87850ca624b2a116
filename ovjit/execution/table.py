"""A plan as the table of int64 rows that the native runner executes, and the rows of a profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.errors import sizes_of_64_bits
from ovjit.execution import runner
from ovjit.planning.constants import aligned_bytes
from ovjit.planning.plan_steps import Plan
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.planning.growing import Room

#: Approximate bytes of a plan's step, without its arguments.
STEP_BYTES = 320


class Row(NamedTuple):
    """One row of a profile. `names`: the model's nodes that the step computes. `form`: the tile format of its
    arithmetic. `why`: the reason of a copy that no operation asks for."""

    name: str
    node_type: str
    exec_type: str
    status: str
    real_ns: int
    cpu_ns: int
    names: tuple[str, ...] = ()
    flops: float = 0
    bytes: float = 0
    form: str = "f32"
    why: str = ""


class Table:
    """The rows of a plan: (kernel address, argument address, chunks, next control step, goes on)."""

    bodies: dict[int, list[Table]]
    endless: bool
    host: list[int]

    def __init__(self, plan: Plan, addresses: Mapping[Any, int]):
        """`addresses`: of the plan's kernels."""
        self.plan = plan
        #: Whether a single job owns the table and may update it to other shapes.
        self.moves = False
        if plan.block is not None:
            self._fill(plan, addresses)
            return
        steps = plan.steps
        blocks = []
        for step, words in zip(steps, plan.words, strict=True):
            with sizes_of_64_bits(step.name):
                blocks.append(np.array(words or [0], np.int64))
        self.args = np.concatenate(blocks) if blocks else np.zeros(1, np.int64)
        base = self.args.ctypes.data
        rows = np.zeros((max(len(steps), 1), runner.STEP_WORDS), np.int64)
        offset = 0
        for i, (step, block) in enumerate(zip(steps, blocks, strict=True)):
            if step.kernel is not None:
                rows[i, :3] = addresses[step.kernel], base + offset * 8, step.chunks
            elif step.control is not None:
                rows[i, :3] = runner.address_of(step.control.function), base + offset * 8, 1
            offset += block.size
        #: The bodies' tables, by the control step that runs them.
        self.bodies = _tables(plan, addresses)
        self.endless = self._link(rows)
        self.rows = rows
        self.address = rows.ctypes.data
        self.host = [i for i, step in enumerate(steps) if step.host is not None]
        #: The object that runs instead of steps (`ovjit.execution.segments`), with `run(job)` and
        #: `rows(job)`.
        self.composite = plan.composite
        #: Whether Python leads the job, not the runner alone.
        self.in_python = bool(self.host) or plan.composite is not None
        self.in_python |= plan.probes is not None or plan.pieces is not None
        self.data = aligned_bytes(max(plan.data.size, 1))
        self.data[: plan.data.size] = plan.data
        plan.data = self.data[: plan.data.size]
        #: Approximate bytes of the table and its plan.
        self.bytes = self.args.nbytes + rows.nbytes + self.data.nbytes + STEP_BYTES * (1 + len(steps))
        self.bytes += sum(table.bytes for tables in self.bodies.values() for table in tables)

    def _link(self, rows: np.ndarray) -> bool:
        """Write STEP_NEXT and STEP_GOES_ON of each row. Returns whether a loop may be endless."""
        steps = self.plan.steps
        rows[: len(steps), runner.STEP_GOES_ON] = [step.goes_on for step in steps]
        rows[: len(steps), runner.STEP_NEXT] = len(steps)
        before = 0
        for i in self.bodies:
            rows[before : i + 1, runner.STEP_NEXT] = i
            before = i + 1
        calls = (self.plan.steps[i].control for i in self.bodies)
        return any(call is not None and call.endless for call in calls) or any(
            table.endless for tables in self.bodies.values() for table in tables
        )

    def _fill(self, plan: Plan, addresses: Mapping[Any, int]) -> None:
        """Initialise the table of a traced plan, whose arguments and chunks are in arrays."""
        assert plan.block is not None and plan.chunks is not None
        trace, steps = plan.trace, len(plan.steps)
        if trace.table is None:
            trace.table = self._first(plan, addresses)
        self.args = plan.block
        first, self.bodies, self.endless = trace.table
        rows = plan.rows
        rows[:] = first
        rows[:steps, runner.STEP_ARGS] += self.args.ctypes.data
        rows[:steps, runner.STEP_CHUNKS] = plan.chunks
        self.rows = rows
        self.address = rows.ctypes.data
        self.in_python = False
        self.host = []
        self.composite = None
        self.data = plan.data
        self.bytes = plan.numbers.nbytes + self.data.nbytes + STEP_BYTES

    def write_words(self, words: memoryview, threads: int) -> None:
        """Make the runner execute this table in a job with these words, on up to `threads` threads."""
        plan = self.plan
        words[runner.TABLE] = self.address
        words[runner.FIRST], words[runner.STEPS] = 0, len(plan.steps)
        words[runner.THREADS] = threads
        words[runner.SCRATCH] = plan.scratch_offset
        self.write_sizes(words)

    def write_sizes(self, words: memoryview) -> None:
        """Write the sizes of the plan's memory to `words`, for the number of threads that `words` states."""
        plan = self.plan
        words[runner.SCRATCH_SIZE] = plan.scratch_size
        words[runner.ARENA_SIZE] = plan.scratch_offset + plan.scratch_size * words[runner.THREADS]

    def move(self, shapes: Sequence[tuple[int, ...]], room: Room) -> bool:
        """Update the table in place to these shapes. False: the table must be dropped."""
        plan = self.plan
        self.moves = self.moves and plan.trace.move(plan, shapes, room)
        return self.moves

    def _first(
        self, plan: Plan, addresses: Mapping[Any, int]
    ) -> tuple[np.ndarray, dict[int, list[Table]], bool]:
        """The parts that all plans of a trace share: (rows with argument addresses relative to 0, the tables
        of bodies, whose shapes the guards fix, whether a loop may be endless)."""
        kernels = [step.kernel for step in plan.steps]
        rows = np.zeros((max(len(kernels), 1), runner.STEP_WORDS), np.int64)
        rows[: len(kernels), runner.STEP_KERNEL] = [0 if k is None else addresses[k] for k in kernels]
        rows[: len(kernels), runner.STEP_ARGS] = plan.trace.starts
        self.bodies = _tables(plan, addresses)
        for i in self.bodies:
            call = plan.steps[i].control
            assert call is not None
            rows[i, runner.STEP_KERNEL] = runner.address_of(call.function)
        return rows, self.bodies, self._link(rows)


def _tables(plan: Plan, addresses: Mapping[Any, int]) -> dict[int, list[Table]]:
    """The tables of the bodies of a plan's control steps, which jobs share."""
    return {
        i: [Table(body, addresses) for body in step.control.bodies]
        for i, step in enumerate(plan.steps)
        if step.control is not None
    }
