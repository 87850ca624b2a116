"""Executables: compiled models, shared by all requests."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovjit import debug, locks
from ovjit.execution import blocks, runner
from ovjit.execution.compiled_graph import CompiledGraph, NewSegments, Watch
from ovjit.execution.job import Job
from ovjit.execution.runner import ENDED, QUEUED, RUNNING, STATE
from ovjit.forks import members
from ovjit.graph import dtypes
from ovjit.graph.graph import Graph


class Executable(CompiledGraph):
    """A compiled graph with its jobs. Thread-safe."""

    def __init__(
        self, program: Any, config: Mapping[str, Any], graph: Graph | None, *, watch: Watch | None,
        job: type[Job], segments: NewSegments, bodies: Callable[[], Any],
    ):  # fmt: skip
        """`job`: the class of jobs. For the others, see `CompiledGraph`."""
        super().__init__(program, config, graph, watch, job.leads_in_python, segments, bodies)
        self._new_job = job
        self._jobs: weakref.WeakSet[Job] = weakref.WeakSet()
        blocks.users.add(self)
        table = self.table(tuple(tuple(v.shape) for v in self.inputs)) if self.static else None
        if self.threads > 1 and (table is None or table.plan.parallel):
            runner.native("runner_queues")  # loaded here, so that the first inference does not wait

    def show(self, seconds: float, counts: Mapping[str, int]) -> None:
        """Print a summary of the compilation, which took `seconds`. `counts`: sources of new kernels."""
        steps, host = None, self.program.host_nodes()
        if self.static:
            table = self.table(tuple(tuple(v.shape) for v in self.inputs))
            steps = len(table.plan.steps)
            host = [f"{table.plan.steps[i].name} ({table.plan.steps[i].type})" for i in table.host]
        debug.show_model(seconds, len(self.program.addresses), counts, steps, host)

    @property
    def main(self) -> Executable:
        """The executable with the weights and plans: this one, or for a model with state its program without
        state."""
        return getattr(self.program, "main", self)

    def __del__(self) -> None:
        # arenas that this model's callers have grown may be larger than other models need
        if blocks is not None:  # the interpreter may be ending
            blocks.release_arenas()

    def prepare(self, plan: Any, states: Mapping[int, Sequence[int]], results: int) -> None:
        """Allocate the memory of a plan that was traced ahead of time, so that the first inference need not
        wait for fresh pages: arena, outputs, and copies of the first `results` outputs for the caller.
        `states`: output -> shape to which a growing variable may grow."""
        ends = enumerate(zip(self.outputs, plan.output_shapes, strict=True))
        sizes = [math.prod(states.get(i, shape)) * dtypes.numpy_dtype(value.dtype).itemsize
                 for i, (value, shape) in ends]  # fmt: skip
        growing = [sizes[i] for i in states]
        arrays = [size for i, size in enumerate(sizes) if i not in states]
        threads = self.threads if plan.parallel else 1
        working = plan.scratch_offset + plan.scratch_size * threads
        blocks.prepare(working, [*arrays, *sizes[:results]], growing)

    @property
    def has_run(self) -> bool:
        """Whether an inference has ended, and none is running."""
        all_words = [job.words for job in members(self._jobs)]
        running = any(words[STATE] in (QUEUED, RUNNING) for words in all_words)
        return not running and any(words[ENDED] for words in all_words)

    def new_job(self) -> Job:
        job = self._new_job(self)
        self._jobs.add(job)
        return job

    def _after_fork(self) -> None:
        for job in members(self._jobs):
            job._bound = False  # the next run starts new workers
            job.lock = locks.rlock("results")  # a thread of the parent may hold it
            if job.words[STATE] in (QUEUED, RUNNING):
                job.lose()  # forked while the job was being started or finished


def _after_fork() -> None:
    for executable in members(blocks.users):
        executable._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
