"""Running a graph that was cut: native programs with host nodes between them.

The parts are executables of their own, made once for each way of cutting and planned for the shapes that
come; a part that has to be cut again is. Every job has a job for each part that it has run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ovjit.compiler.partition import Cut
from ovjit.errors import InferenceError, OvjitError
from ovjit.execution import runner
from ovjit.execution.job import Executable, Job, Row
from ovjit.forks import ForkLock
from ovjit.graph import interp
from ovjit.graph.bodies import stopping
from ovjit.graph.graph import Graph, Node, Value

#: Makes an executable of a graph and properties.
Build = Callable[[Graph, Mapping[str, Any]], Executable]

#: Cuts within cuts: what is left then runs on the host, because every cut compiles the rest once more.
DEEPEST = 12


class HostTime(NamedTuple):
    """When a node ran on the host, in the runner's clock."""

    node: Node
    began: int
    ended: int


class Stages:
    """The parts of one way of cutting a graph. Thread-safe."""

    def __init__(self, cut: Cut, config: Mapping[str, Any], build: Build):
        """`build` makes the parts' executables."""
        self.cut = cut
        self._build = build
        self._config = {k: v for k, v in config.items() if k != "watch"}
        self._config["stage"] = config.get("stage", 0) + 1
        self._lock = ForkLock()
        self._after: dict[tuple[int, ...], Executable | Graph] = {}
        self.before = None if cut.before is None else build(cut.before, self._config)
        if cut.results and all(v.shape is not None for v in cut.passed):
            self.after([len(v.shape) for v in cut.passed])

    def after(self, ranks: Sequence[int]) -> Executable | Graph:
        """What runs after the host, for values of these ranks: a graph where the references shall run it."""
        key = tuple(ranks)
        with self._lock:
            part = self._after.get(key)
            if part is None:
                graph = self.cut.after(ranks)
                part = graph if self._config["stage"] > DEEPEST else self._build(graph, self._config)
                self._after[key] = part
            return part

    def run_for(self, cut: Cut) -> StagedRun:
        """What a table has in place of steps, for the input shapes of `cut`."""
        return StagedRun(self, cut)


class StagedRun:
    """`Stages` with the types for certain input shapes: what a table has in place of steps."""

    def __init__(self, stages: Stages, cut: Cut):
        self.stages = stages
        self._types = cut.types

    def run(self, job: Job) -> None:
        """Run on this thread and leave the results in `job.outputs`. Raises what went wrong."""
        cut = self.stages.cut
        have: dict[Value, np.ndarray] = dict(zip(cut.graph.inputs, job.inputs, strict=True))  # type: ignore[arg-type]
        times: list[HostTime] = []
        job.notes["times"] = self, times  # of the last run alone: every set of shapes has a run of its own
        if self.stages.before is not None:
            made_before = _run_part(job, self.stages.before, [have[v] for v in cut.before.inputs])  # type: ignore[union-attr]
            have.update(zip(cut.kept, made_before, strict=True))
        for node in cut.hosts:
            if job.words[runner.ABORT]:
                return
            began = runner.clock()
            arrays = [self._value(v, have) for v in node.inputs]
            try:
                made = job.executable.bodies.evaluate(job, node, arrays)
            except OvjitError as error:
                raise InferenceError(f"node {node.name!r} ({node.op.name}): {error}") from error
            have.update(zip(node.outputs, made, strict=True))
            times.append(HostTime(node, began, runner.clock()))
        if cut.results:
            if job.words[runner.ABORT]:
                return
            passed = [np.ascontiguousarray(have[v]).reshape(have[v].shape) for v in cut.passed]
            part = self.stages.after([a.ndim for a in passed])
            if isinstance(part, Graph):
                with stopping(job.stop_if_cancelled):
                    made_later = self._interpret(part, passed, times)
            else:
                made_later = _run_part(job, part, passed)
            have.update(zip(cut.results, made_later, strict=True))
        for i, value in enumerate(cut.graph.outputs):
            job.give_output(i, self._value(value, have))

    def _value(self, value: Value, have: dict[Value, np.ndarray]) -> np.ndarray:
        found = have.get(value)
        if found is None:
            found = value.constant if value.constant is not None else self._types[value].value
        assert found is not None
        return found

    def _interpret(
        self, graph: Graph, inputs: Sequence[np.ndarray], times: list[HostTime]
    ) -> list[np.ndarray]:
        last = runner.clock()

        def note(node: Node, outputs: Sequence[np.ndarray]) -> None:
            nonlocal last
            now = runner.clock()
            if node.op.name != "Constant":
                times.append(HostTime(node, last, now))
            last = now

        try:
            return interp.evaluate(graph, inputs, note)
        except OvjitError as error:
            raise InferenceError(str(error)) from error

    def rows(self, job: Job) -> list[Row]:
        """One row for each step of the parts that have run, in the order in which they did."""
        parts = [p for p in (self.stages.before, *self.stages._after.values()) if p in job.parts]
        rows = [row for part in parts[:1] if part is self.stages.before for row in job.parts[part].profile()]
        timed = job.executable.profiling
        ran, times = job.notes.get("times", (None, ()))
        for node, began, ended in times if ran is self else ():
            spent = ended - began if timed else 0
            status = "EXECUTED" if timed else "NOT_RUN"
            kind = "bodies" if node.op.runs_body else "ref_numpy"
            rows.append(Row(node.name, node.op.name, kind, status, spent, spent, node.origins))
        for part in parts:
            if part is not self.stages.before:
                rows += job.parts[part].profile()
        return rows


def _run_part(job: Job, part: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    inner = job.parts.get(part)
    if inner is None:
        inner = job.parts[part] = part.new_job()
    for i, array in enumerate(inputs):
        inner.set_input(i, array)
    inner.run()
    return inner.outputs
