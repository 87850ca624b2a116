"""OVJIT_INTERP=kernels: every kernel of a plan in plain Python, each address checked.

The plan is an ordinary one, with its kernels, layouts, arguments and chunks. A step may touch the tensors of
its arguments (`Plan.pieces`) and its thread's scratch. Any other byte, also of another tensor of the arena,
raises `OutOfBounds` with the step's name. Bodies of loops run natively.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.errors import InferenceError
from ovjit.execution import runner
from ovjit.execution.blocks import Arena
from ovjit.execution.job import Job
from ovjit.execution.numpy_words import Memory, OutOfBounds, Words, program
from ovjit.execution.table import Table
from ovjit.planning.plan import Step
from ovjit.planning.views import ARENA, CONSTANTS, PLAN_DATA

_BASES = {ARENA: "a tensor", CONSTANTS: "a constant", PLAN_DATA: "the plan's data"}


class PythonJob(Job):
    """A job whose kernels run in the Python interpreter."""

    __slots__ = ()

    def _run_plan(self, table: Table, arena: Arena) -> None:
        words, steps = self.words, table.plan.steps
        self._bases[0] = arena.address
        words[runner.STARTED] = runner.clock()
        try:
            for i, step in enumerate(steps):
                if step.host is not None:
                    self._run_host(i)
                elif step.kernel is None:
                    words[runner.FIRST], words[runner.STEPS] = i, i + 1
                    self._native.lead(self.address, self._pool.address, arena.address)
                else:
                    words[runner.ERROR] = self._run_step(i, step, arena)
                if words[runner.ABORT] or words[runner.ERROR]:
                    return
        finally:
            words[runner.FIRST], words[runner.STEPS] = 0, len(steps)
            words[runner.ENDED] = runner.clock()

    def _run_step(self, i: int, step: Step, arena: Arena) -> int:
        """Run all chunks of one step. Returns the error in the runner's form, 0 for none."""
        table = self._table
        assert table is not None and table.plan.pieces is not None and step.kernel is not None
        plan, bases, spans = table.plan, self._bases, table.plan.pieces[i]
        args = int(table.rows[i, 1])
        scratch = arena.address + plan.scratch_offset
        count = sum(1 + is_pointer for _, is_pointer in step.kernel.frame.fields)
        pieces = [(bases.ctypes.data, bases.nbytes, "the bases"), (args, 8 * count, "the arguments")]
        pieces += [(scratch, plan.scratch_size, "scratch")]
        for base, offset, size in spans:
            pieces.append((int(bases[base]) + offset, size, _BASES.get(base, "an input or output")))
        isa = self.executable.program.context.target
        names = Words(isa.lanes, Memory(pieces))
        for name, intrinsic in (step.kernel.intrinsics(isa) or {}).items():
            names[name] = _bound(intrinsic, names)
        kernel = program(step.kernel.source, names)
        with np.errstate(all="ignore"):
            for chunk in range(step.chunks):
                try:
                    error = kernel(bases.ctypes.data, args, chunk, scratch)
                except OutOfBounds as fault:
                    where = f"chunk {chunk} of {step.kernel.name}"
                    raise InferenceError(f"node {step.name!r} ({step.type}), {where}: {fault}") from fault
                if error:
                    return i << 32 | error
        return 0


def _bound(intrinsic: Any, words: Words) -> Any:
    """The Python form of an intrinsic: calls `in_python(words, arguments...)`."""

    def call(*arguments: int) -> None:
        intrinsic.in_python(words, *arguments)

    return call
