"""Graphs with breaks (`ovjit.planning.partition`): a chain of native programs with host nodes between them.

Each part of the chain is an executable. It is compiled when it is first reached, and planned for the actual
shapes. The partition is decided once. A job has an inner job for each part that it ran.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, ModelError, OvjitError
from ovjit.execution import runner
from ovjit.execution.control import contiguous
from ovjit.execution.executable import Executable
from ovjit.execution.job import Job
from ovjit.execution.table import Row
from ovjit.forks import ForkLock
from ovjit.graph.graph import Graph, Node, Value
from ovjit.graph.shapes import guess_dim
from ovjit.planning.concrete_types import concrete_types
from ovjit.planning.partition import Cut, extent_shapes, needs_cut
from ovjit.planning.plan import Plan
from ovjit.records import NamedTuple

#: Makes an executable of a graph and properties.
Build = Callable[[Graph, Mapping[str, Any]], Executable]


#: Maximum values of extents whose empty inputs are cached.
MOST_ENCODED = 4096


class HostTime(NamedTuple):
    """Begin and end of a node's run on the host, by the runner's clock (ns)."""

    node: Node
    begin: int
    end: int


class _ValueSlots:
    """The indices of a cut's values in the list of arrays of one run: inputs first, then constants."""

    def __init__(self, cut: Cut):
        values = [*cut.graph.inputs, *cut.constants, *cut.early, *(v for n in cut.hosts for v in n.outputs)]
        at = {value: i for i, value in enumerate(dict.fromkeys(values))}
        self._empty: list[Any] = [None] * len(at)
        for value, array in cut.constants.items():
            self._empty[at[value]] = array
        self._inputs = [at[value] for value in cut.graph.inputs]
        self._at = at
        self.before = [] if cut.before is None else self.of(cut.before.inputs)
        self.early = self.of(cut.early)
        self.passed = self.of(cut.passed)
        self.hosts = [
            (n, self.of(n.inputs), self.of(n.outputs), n in cut.between, n.op.views and n.op.ref is not None)
            for n in cut.hosts
        ]
        #: Whether one of the nodes is computed by its reference as it is. Views compute nothing.
        self.warns = any(between for *_, between, _ in self.hosts)
        computed = {i for _, _, outputs, *_ in self.hosts for i in outputs}
        #: The values passed on that may have gaps: those of parts have none.
        self.with_gaps = [i for i in self.passed if i in computed]

    def of(self, values: Sequence[Value]) -> list[int]:
        """The indices of these values in the list."""
        return [self._at[value] for value in values]

    def arrays(self, inputs: Sequence[np.ndarray]) -> list[Any]:
        """The list for a run with these inputs."""
        have = self._empty.copy()
        for i, array in zip(self._inputs, inputs, strict=True):
            have[i] = array
        return have

    def value(self, value: Value, have: Sequence[Any]) -> np.ndarray:
        """A value that has been computed, or is constant."""
        index = self._at.get(value)
        array = value.constant if index is None else have[index]
        assert array is not None
        return array


class Remainder:
    """The remainder of a graph at one point of a chain: one program, or a break and another remainder.

    Thread-safe. The first shapes decide `cut` and `part`. They are valid for other shapes: a part in which
    another shape depends on data becomes a chain itself.
    """

    def __init__(self, graph: Graph, config: Mapping[str, Any], build: Build, with_extents: bool = True):
        self.graph = graph
        self._with_extents = with_extents
        self._silent: Remainder | None = None  # the same without run-time extents
        self._config = config
        self._build = build
        self._lock = ForkLock("model")
        self._following: dict[tuple[int, ...], Remainder] = {}
        self._encoded: dict[bytes, list[np.ndarray]] = {}
        self._settled = False
        self._distributed: tuple[Any, ...] = (None, None, None)
        self.cut: Cut | None = None
        self.slots: _ValueSlots | None = None  # of the values of `cut`
        self.part: Executable | None = None  # the remaining graph, or the part before the host nodes
        #: The remainder after the host nodes, once it is known, if no rank depends on data.
        self.only: Remainder | None = None

    def settle(self, shapes: Sequence[tuple[int, ...]], cut: Cut | None = None) -> None:
        """Decide the partition by these input shapes, and compile the next part."""
        with self._lock.lock:
            if self._settled:
                return
            if cut is None:
                types = concrete_types(self.graph, shapes)
                cut = Cut(self.graph, types, self._with_extents) if needs_cut(types) else None
            graph = self.graph if cut is None else cut.before
            self.part = None if graph is None else self._build(graph, self._config)
            self.cut = cut
            self.slots = None if cut is None else _ValueSlots(cut)
            self._settled = True

    def settle_for(self, arrays: Sequence[np.ndarray]) -> None:
        """`settle` for these inputs, once."""
        if not self._settled:
            self.settle([array.shape for array in arrays])

    def distribute(self, cut: Cut, targets: Sequence[Sequence[int]]) -> Any:
        """`cut.distribute(targets)`, cached."""
        entry = self._distributed
        if entry[0] is not cut or entry[1] is not targets:
            entry = self._distributed = cut, targets, cut.distribute(targets)
        return entry[2]

    def encode(self, extents: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The empty inputs that encode these extents, cached."""
        key = b"".join([array.tobytes() for array in extents])
        arrays = self._encoded.get(key)
        if arrays is None:
            if len(self._encoded) >= MOST_ENCODED:
                self._encoded = {}
            shapes = (shape for array in extents for shape in extent_shapes(array))
            arrays = self._encoded[key] = [np.empty(shape, np.uint8) for shape in shapes]
        return arrays

    def following(self, ranks: Sequence[int]) -> Remainder:
        """The remainder after the host nodes, for values of these ranks."""
        key = tuple(ranks)
        tail = self._following.get(key)
        if tail is None:
            assert self.cut is not None
            with self._lock.lock:
                tail = self._following.get(key)
                if tail is None:
                    tail = self._following[key] = Remainder(self.cut.after(ranks), self._config, self._build)
                    if all(v.shape is not None for v in self.cut.passed):
                        self.only = tail
        return tail

    def in_use(self) -> Remainder:
        """This remainder, or a variant without run-time extents if traces do not serve the following parts:
        then each value of an extent would need a plan of its own."""
        if self.cut is None or not self.cut.extents:
            return self
        parts = [remainder.part for remainder in tuple(self._following.values())]
        traces = [getattr(part.program, "traces", None) for part in parts if part is not None]
        if all(t is None or t.useful for t in traces):
            return self
        with self._lock.lock:
            if self._silent is None:
                self._silent = Remainder(self.graph, self._config, self._build, with_extents=False)
            return self._silent


class Chain:
    """The composite that runs a graph with breaks."""

    def __init__(self, cut: Cut, config: Mapping[str, Any], build: Build):
        """`build` makes the parts' executables."""
        inner = {k: v for k, v in config.items() if k != "watch"}
        self.first = Remainder(cut.graph, inner, build)
        self.first.settle((), cut)
        self._all_targets = [[i] for i in range(len(cut.graph.outputs))]
        self._settle_ahead()

    def _settle_ahead(self) -> None:
        """Compile the parts before the first run, with guesses for dynamic dimensions."""
        remainder = self.first
        while remainder.cut is not None and remainder.cut.results:
            if any(v.shape is None for v in remainder.cut.passed):
                return
            remainder = remainder.following([len(v.shape) for v in remainder.cut.passed])
            try:
                remainder.settle([tuple(map(guess_dim, v.shape)) for v in remainder.graph.inputs])
            except OvjitError:
                return  # the guessed dimensions contradict each other: wait for real shapes

    def plan(self, shapes: Sequence[tuple[int, ...]], outputs: Sequence[Value]) -> Plan:
        """A plan without steps, whose composite is this chain."""
        plan = Plan()
        plan.composite = self
        plan.input_shapes = tuple(tuple(s) for s in shapes)
        plan.output_shapes = [v.shape for v in outputs]
        return plan

    def run(self, job: Job) -> None:
        """Run on this thread, with the results in `job.outputs`. Raises the inference's error."""
        remainder = self.first
        arrays: Sequence[np.ndarray] = job.inputs  # type: ignore[assignment]
        targets: Sequence[Sequence[int]] = self._all_targets
        ran: list[HostTime | Node | Executable] = []
        job.notes["ran"] = self, ran  # of the last run alone
        while True:
            if job.words[runner.ABORT]:
                return
            remainder.settle_for(arrays)
            current = remainder.in_use()
            if current is not remainder:
                remainder = current
                remainder.settle_for(arrays)
            cut, at = remainder.cut, remainder.slots
            if cut is None or at is None:
                assert remainder.part is not None
                result = _run_part(job, remainder.part, arrays, targets)
                ran.append(remainder.part)
                for array, indices in zip(result, targets, strict=True):
                    for i in indices:
                        if job.outputs[i] is not array:
                            job.give_output(i, array)
                return
            have = at.arrays(arrays)
            if remainder.part is not None:
                result = _run_part(job, remainder.part, [have[i] for i in at.before])
                for i, array in zip(at.early, result, strict=True):
                    have[i] = array
                ran.append(remainder.part)
            with np.errstate(all="ignore") if at.warns else contextlib.nullcontext():
                _run_hosts(job, at, have, ran)
            here, targets = remainder.distribute(cut, targets)
            for value, i in here:
                job.give_output(i, at.value(value, have))
            if not targets:
                return
            for i in at.with_gaps:
                have[i] = contiguous(have[i])
            arrays = [have[i] for i in at.passed]
            remainder = remainder.only or remainder.following([a.ndim for a in arrays])
            if cut.extents:
                arrays += current.encode([at.value(v, have) for v in cut.extents])

    def rows(self, job: Job) -> list[Row]:
        """One row for each step of the parts that have run, in order."""
        timed = job.executable.profiling
        owner, ran = job.notes.get("ran", (None, ()))
        rows: list[Row] = []
        for item in ran if owner is self else ():
            if isinstance(item, (HostTime, Node)):
                node, spent = (item, 0) if isinstance(item, Node) else (item.node, item.end - item.begin)
                status = "EXECUTED" if timed else "NOT_RUN"
                kind = "bodies" if node.op.runs_body else "ref_numpy"
                rows.append(Row(node.name, node.op.name, kind, status, spent, spent, node.origins))
            else:
                rows += job.parts[item].profile()
        return rows


def _run_hosts(job: Job, at: _ValueSlots, have: list[Any], ran: list[Any]) -> None:
    """Run the nodes on the host, which read and write `have`."""
    executable, words = job.executable, job.words
    timed, evaluate = executable.profiling, executable.bodies.evaluate
    for node, sources, targets, between, is_view in at.hosts:
        if words[runner.ABORT]:
            job.stop_if_cancelled()
        arrays = [have[i] for i in sources]
        if is_view:
            view_of: Any = node.op.ref
            have[targets[0]] = view_of(*arrays, **node.attrs)
            continue
        start = runner.clock() if timed else 0
        try:
            result = evaluate(job, node, arrays, between)
        except OvjitError as error:
            job.stop_if_cancelled()
            raise InferenceError(f"node {node.name!r} ({node.op.name}): {error}") from error
        for i, array in zip(targets, result, strict=True):
            have[i] = array
        ran.append(HostTime(node, start, runner.clock()) if timed else node)


def _run_part(
    job: Job, part: Any, inputs: Sequence[np.ndarray], targets: Sequence[Sequence[int]] = ()
) -> list[np.ndarray]:
    """The outputs of a part. `targets`: the outputs of `job` that each of them becomes."""
    inner = job.part_job(part)
    inner.set_inputs(inputs)
    try:
        if targets and not job.leads_in_python:  # on cards, outputs are memory of the card
            inner.write_for(job, [indices[0] for indices in targets])
        inner.run()
    except ModelError as error:  # a plan by numbers that are data
        raise InferenceError(str(error)) from error
    return inner.outputs
