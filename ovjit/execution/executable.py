"""Executables: compiled models, shared by all requests."""

from __future__ import annotations

import math
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovjit import debug, locks
from ovjit.execution import blocks, runner, streams
from ovjit.execution.runner import ENDED, QUEUED, RUNNING, STATE
from ovjit.execution.table import Table
from ovjit.forks import ForkLock, made_once, members
from ovjit.graph import dtypes
from ovjit.graph.graph import Graph, Value
from ovjit.graph.shapes import check_shapes, is_static
from ovjit.out_of_memory import as_memory_errors

if TYPE_CHECKING:
    from ovjit.execution.job import Job
    from ovjit.planning.growing import Room

#: Maximum bytes of a model's cached tables, one per set of shapes. Least recently used ones are dropped.
TABLE_BYTES = 128 << 20
#: Maximum cached tables of traced plans, which are cheaper to make again than to keep.
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
        """`program`: loaded, from the compiler or a `StoredProgram`. Its `loaded_plan` returns plans with the
        addresses of their kernels.

        `graph`: the compiler's input graph, if known. `watch`: called with each value and its difference from
        the reference, see `ovjit.execution.watch`. `job`: the class of jobs. `segments(cut, config)` makes
        the object that runs a graph with graph breaks. `bodies()` makes the object that evaluates host nodes.
        """
        self.watch = watch
        self._new_job = job
        self._new_segments = segments
        self._graph = graph
        self.config = dict(config)
        self.program = program
        #: Objects with a dtype and a shape.
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
        #: Whether plans are checked, including tables that are updated in place.
        self.proves = debug.is_on("OVJIT_CHECK")
        #: The one table of a program without steps, whose composite runs all shapes.
        self._composite: Table | None = None
        #: Keys of tables of traced plans, oldest first.
        self._traced_shapes: OrderedDict[tuple, None] = OrderedDict()
        #: The segments of a graph with graph breaks, once one was found, see `ovjit.execution.segments`.
        self._chain: Any = None
        self._new_bodies = bodies
        self._capacity = int(config.get("CPU_RUNTIME_CACHE_CAPACITY", 5000)) or 1
        self._lock = ForkLock("model")
        self._jobs: weakref.WeakSet[Job] = weakref.WeakSet()
        blocks.users.add(self)
        self.static = all(is_static(v.shape) for v in self.inputs)
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

    @made_once
    def bodies(self) -> Any:
        """The object that evaluates nodes on the host, see `ovjit.execution.control`."""
        return self._new_bodies()

    @property
    def main(self) -> Executable:
        """The executable with the weights and plans: this one, or the stateless one of a model with state."""
        return getattr(self.program, "main", self)

    @property
    def graph(self) -> Graph:
        """The compiler's input graph. For an imported model it is read from the blob."""
        return self.program.graph_of() if self._graph is None else self._graph

    def table(
        self, shapes: tuple[tuple[int, ...], ...], room: Room | None = None, before: Any = None
    ) -> Table:
        """The table for these input shapes and capacities, from a least-recently-used cache. A table of the
        trace `before` is not cached, and exclusive to the caller."""
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
        table.in_python |= self._new_job.leads_in_python
        if debug.level() >= debug.PLANS:
            debug.tell(table.plan.describe())
        if not self.static:
            plan.words = []  # only export needs it, for static shapes
        if before is not None and plan.trace is before and not table.bodies and not self.profiling:
            table.moves = debug.level() < debug.PLANS and all(v.shape is not None for v in self.inputs)
            return table
        if plan.composite is self.program:
            self._composite = table
        else:
            self._keep(key, table, plan.trace is not None)
        return table

    @as_memory_errors("plan the model for these shapes")
    def _plan(self, shapes: tuple[tuple[int, ...], ...], room: Room | None) -> Any:
        """The plan, with the addresses of its kernels. With graph breaks, the plan of the segments."""
        if self._chain is not None:
            check_shapes(self.inputs, shapes)
            return self._chain.plan(shapes, self.outputs)
        result = self.program.loaded_plan
        plan = result(shapes) if room is None else result(shapes, room=room)
        if plan.cut is not None:
            plan.composite = self._cut(plan.cut)
        return plan

    def _keep(self, key: tuple, table: Table, traced: bool) -> None:
        """Put a table into the cache, and drop the least recently used ones if the cache is full."""
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
        """The segments of a graph with graph breaks, made once for all shapes."""
        with self._lock.lock:
            if self._chain is None:
                self._chain = self._new_segments(cut, self.config)
            return self._chain

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
    def is_cut(self) -> bool:
        """Whether a graph break was found."""
        return self._chain is not None

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
