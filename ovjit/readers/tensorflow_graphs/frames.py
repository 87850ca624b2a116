"""Loops of TensorFlow 1: operators that run in frames, between Enter and Exit.

A value of a loop comes in by Enter. It passes Merge and Switch in each iteration, and goes back by
NextIteration, or out by Exit. LoopCond says whether there is another iteration.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.records import NamedTuple

#: The names of the frames in which an operator runs, from the outermost on.
Path = tuple[str, ...]


class Variable(NamedTuple):
    """A loop variable: its Merge, its initial tensor and its tensor for the next iteration."""

    merge: Any
    start: Any
    following: Any


class Frame(NamedTuple):
    """A loop; `constants` are its other Enters, `exits` its results."""

    path: Path
    variables: Sequence[Variable]
    constants: Sequence[Any]
    condition: Any
    exits: Sequence[Any]


class Frames:
    """The loops of a graph."""

    def __init__(self, graph: Any) -> None:
        self.operators = graph.get_operations()
        self.paths: dict[str, Path] = {}
        if any(op.type in ("Enter", "RefEnter") for op in self.operators):
            for op in self.operators:
                self.paths[op.name] = self._path(op)

    def _path(self, op: Any) -> Path:
        outside: Path = ()
        for before in _befores(op):
            # what comes from a NextIteration has no path yet
            path = self.paths.get(before.name, ())
            path = path[:-1] if before.type in ("Exit", "RefExit") else path
            outside = max(outside, path, key=len)
        if op.type in ("Enter", "RefEnter"):
            return (*outside, op.get_attr("frame_name").decode())
        return outside

    def units(
        self, path: Path, computed: Mapping[str, Any], targets: Sequence[Any] | None = None
    ) -> Iterator[Any]:
        """The operators of a frame in an order in which they can run, with Frames in place of loops within.

        `computed` tensors are there already. With targets, what these tensors need."""
        if not self.paths:
            yield from self.operators
            return
        within = {op.name: op for op in self.operators if self.paths[op.name][: len(path)] == path}
        inner: dict[Path, list[Any]] = {}
        for op in within.values():
            inner.setdefault(self.paths[op.name][: len(path) + 1], []).append(op)

        def unit(op: Any) -> Any:
            op_path = self.paths[op.name]
            return op.name if op_path == path else op_path[: len(path) + 1]

        def needs(one: Any) -> list[Any]:
            operators = inner[one] if isinstance(one, tuple) else [within[one]]
            before_names = dict.fromkeys(
                b.name for op in operators if not _is_known(op, computed) for b in _befores(op)
            )
            inside = [within[name] for name in before_names if name in within]
            units = dict.fromkeys(unit(op) for op in inside if not _is_known(op, computed))
            return [each for each in units if each != one]

        ends: Iterable[Any] = within.values() if targets is None else [tensor.op for tensor in targets]
        pending = [unit(within[name]) for name in (op.name for op in ends) if name in within]
        graph: dict[Any, list[Any]] = {}
        while pending:
            one = pending.pop()
            if one not in graph:
                graph[one] = needs(one)
                pending.extend(graph[one])
        for one in TopologicalSorter(graph).static_order():
            yield self._frame(one, inner[one]) if isinstance(one, tuple) else within[one]

    def _frame(self, path: Path, operators: Sequence[Any]) -> Frame:
        frame_operators = [op for op in operators if self.paths[op.name] == path]
        variables = []
        for op in frame_operators:
            sources = {tensor.op.type.removeprefix("Ref"): tensor.op for tensor in op.inputs}
            if op.type in ("Merge", "RefMerge") and "NextIteration" in sources:
                if "Enter" not in sources:
                    raise UnsupportedError(f"the loop {path[-1]} has the variable {op.name} without a start")
                variables.append(Variable(op, sources["Enter"].inputs[0], sources["NextIteration"].inputs[0]))
        conditions = [op for op in frame_operators if op.type == "LoopCond"]
        if len(conditions) != 1:
            raise UnsupportedError(f"the loop {path[-1]} has {len(conditions)} conditions")
        started = {tensor.name for variable in variables for tensor in variable.merge.inputs}
        enters = [op for op in frame_operators if op.type in ("Enter", "RefEnter")]
        constants = [op for op in enters if op.outputs[0].name not in started]
        exits = [op for op in frame_operators if op.type in ("Exit", "RefExit")]
        return Frame(path, variables, constants, conditions[0], exits)


def _befores(op: Any) -> Iterator[Any]:
    """Yield the operators that must run before an operator: sources of its inputs and its control inputs."""
    yield from (tensor.op for tensor in op.inputs)
    yield from op.control_inputs


def _is_known(op: Any, computed: Collection[str]) -> bool:
    return bool(op.outputs) and all(out.name in computed for out in op.outputs)
