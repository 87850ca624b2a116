"""Executables: compiled models, shared by all requests."""

from __future__ import annotations

import math
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovjit import debug
from ovjit.execution import blocks, runner, streams
from ovjit.execution.runner import QUEUED, RUNNING, STATE
from ovjit.execution.table import Table
from ovjit.forks import ForkLock, made_once, members
from ovjit.graph import dtypes
from ovjit.graph.graph import Graph, Value
from ovjit.graph.shapes import check_shapes, is_static

if TYPE_CHECKING:
    from ovjit.execution.job import Job
    from ovjit.planning.growing import Room

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
        """Of a `program` that is loaded: the compiler's, or a `StoredProgram`. Its
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
        """Print what was made in so many seconds; `counts`: where its new kernels came from."""
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
        plan = self._plan(shapes, room)
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
        else:
            self._keep(key, table, plan.trace is not None)
        return table

    def _plan(self, shapes: tuple[tuple[int, ...], ...], room: Room | None) -> Any:
        """The plan, with the addresses of its kernels; the segments' one where the graph is cut."""
        if self._chain is not None:
            check_shapes(self.inputs, shapes)
            return self._chain.plan(shapes, self.outputs)
        made = self.program.loaded_plan
        plan = made(shapes) if room is None else made(shapes, room=room)
        if plan.cut is not None:
            plan.composite = self._cut(plan.cut)
        return plan

    def _keep(self, key: tuple, table: Table, traced: bool) -> None:
        """Put a table into the cache, and drop those used least recently where it is full."""
        with self._lock.lock:
            self._drop(key)
            self._tables[key] = table
            self._table_bytes += table.bytes
            if traced:
                self._traced_shapes[key] = None
                if len(self._traced_shapes) > TRACED_TABLES:
                    self._drop(self._traced_shapes.popitem(last=False)[0])
            while len(self._tables) > self._capacity or (
                self._table_bytes > TABLE_BYTES and len(self._tables) > 1
            ):
                self._drop(next(iter(self._tables)))

    def _drop(self, key: tuple) -> None:
        table = self._tables.pop(key, None)
        self._table_bytes -= 0 if table is None else table.bytes

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


def _after_fork() -> None:
    for executable in members(blocks.users):
        executable._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
