"""Compiled graphs: a program, and a table for each set of input shapes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovjit import debug
from ovjit.execution import runner, streams
from ovjit.execution.table import Table
from ovjit.forks import ForkLock, made_once
from ovjit.graph.graph import Graph, Value
from ovjit.graph.shapes import check_shapes, is_static
from ovjit.out_of_memory import as_memory_errors

if TYPE_CHECKING:
    from ovjit.planning.growing import Room

#: Maximum bytes of a model's cached tables, one per set of shapes. Least recently used ones are dropped.
TABLE_BYTES = 128 << 20
#: Maximum cached tables of traced plans, which are cheaper to make again than to keep.
TRACED_TABLES = 64

#: Called with each value and its difference from the reference, see `ovjit.execution.watch`.
Watch = Callable[[Value, Any], None]
#: (cut, config) -> the object that runs a graph with graph breaks.
NewSegments = Callable[[Any, Mapping[str, Any]], Any]


class CompiledGraph:
    """The part of an executable that its jobs read. Thread-safe."""

    def __init__(
        self, program: Any, config: Mapping[str, Any], graph: Graph | None, watch: Watch | None,
        leads_in_python: bool, segments: NewSegments, bodies: Callable[[], Any],
    ):  # fmt: skip
        """`program`: loaded, from the compiler or a `StoredProgram`. Its `loaded_plan` returns plans with the
        addresses of their kernels.

        `graph`: the compiler's input graph, if known. `leads_in_python`: Python leads all jobs, whatever
        their plans. `bodies()` makes the object that evaluates host nodes.
        """
        self.watch = watch
        self._leads_in_python = leads_in_python
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
        self.static = all(is_static(v.shape) for v in self.inputs)

    @made_once
    def bodies(self) -> Any:
        """The object that evaluates nodes on the host, see `ovjit.execution.control`."""
        return self._new_bodies()

    @property
    def graph(self) -> Graph:
        """The compiler's input graph. For an imported model it is read from the blob."""
        return self.program.graph_of() if self._graph is None else self._graph

    @property
    def is_cut(self) -> bool:
        """Whether a graph break was found."""
        return self._chain is not None

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
        table.in_python |= self._leads_in_python
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
