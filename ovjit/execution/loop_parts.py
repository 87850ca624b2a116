"""The parts of a loop's body for native iterations: executables, and slots for their values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.execution import iteration_steps as ts
from ovjit.execution import streams
from ovjit.execution.executable import Executable
from ovjit.execution.job import Job
from ovjit.graph.bodies import CONCAT, LAST, MERGED, SLICED
from ovjit.records import NamedTuple


class Slot(NamedTuple):
    number: int
    rank: int
    dtype: np.dtype


class Extent(NamedTuple):
    """A run-time extent of a part: the slot with the number, the index of the element, and the slot whose
    dimension gets the number. For a valid prefix of `full_slot`: the axis of that dimension."""

    numbers: Slot
    element: int
    slot: Slot
    full_slot: Slot | None = None
    axis: int = 0


class Part(NamedTuple):
    """A part of the body: its executable and job, the slots of inputs and outputs, and its run-time
    extents."""

    executable: Executable
    job: Job
    inputs: list[Slot]
    outputs: list[Slot]
    extents: list[Extent]


class Unfit(Exception):
    """The body, or its current state, does not support native iterations."""


class LoopParts:
    """The parts of a body, after Python has run it once."""

    def __init__(self, ends: Any, executable: Executable, inner: Job):
        """`inner`: the job of the body's `executable`, which has run. Raises Unfit."""
        self.ends = ends
        self.executable = executable
        self._inner = inner
        self._slots: list[Slot] = []
        self._fixed: dict[int, np.ndarray] = {}  # constants, by their slots
        self._parts: list[Part] = []
        self._blocks: list[tuple[int, Any]] = []
        self._keep: list[Any] = []
        self._buffers: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._concatenations: dict[int, np.ndarray] = {}
        #: Consecutive native runs with too few iterations.
        self.poor = 0
        self._check_ports()
        self.feeds = [self._slot(a.ndim, a.dtype) for a in inner.inputs if a is not None]
        self._extents: list[Extent] = []  # before the part that is found next
        self.results = self._find_parts(executable, inner, self.feeds)
        if self._extents:
            raise Unfit
        self._traces: Any = None
        self._check_carried()

    def __del__(self) -> None:
        if streams is not None:  # the interpreter may be ending
            for address, words in getattr(self, "_blocks", ()):
                streams.give_block(address, words, self._keep)

    def _check_ports(self) -> None:
        """Raise Unfit unless slices and concatenations are along the first axis, the latter in order."""
        for port in self.ends.outputs:
            if (port.kind == CONCAT and (port.stride != 1 or port.axis != 0)) or (
                port.kind == LAST and port.iteration != -1
            ):
                raise Unfit
        if any(port.axis != 0 for port in self.ends.of(SLICED)):
            raise Unfit

    def _check_carried(self) -> None:
        """Raise Unfit unless each carried value is a new result of the iteration, or constant, with the rank
        and type that the iteration has read."""
        feeds = {slot.number: i for i, slot in enumerate(self.feeds)}
        for port in self.ends.of(MERGED):
            slot, feed = self.results[port.back], self.feeds[port.inner]
            if feeds.get(slot.number, port.inner) != port.inner:
                raise Unfit
            if (slot.rank, slot.dtype) != (feed.rank, feed.dtype):
                raise Unfit
        if any(not slot.rank for _, slot in self._concatenated_ports()):
            raise Unfit
        again = {port.back for port in self.ends.of(MERGED)}
        for port in self.ends.outputs:
            if port.kind == LAST and self.results[port.inner].number in feeds and port.inner not in again:
                raise Unfit  # the slot is overwritten before the loop's end
        if self.ends.condition != -1 and self.results[self.ends.condition].dtype != np.bool_:
            raise Unfit

    def _slot(self, rank: int, dtype: Any) -> Slot:
        if rank > ts.MOST_RANK or np.dtype(dtype).hasobject:
            raise Unfit
        self._slots.append(Slot(len(self._slots), rank, np.dtype(dtype)))
        return self._slots[-1]

    def _find_parts(self, executable: Executable, job: Job, ins: list[Slot]) -> list[Slot]:
        """Add the parts of `executable` to `_parts`. Returns the slots of its results."""
        chain = executable._chain
        if chain is None:
            return self._add(executable, job, ins)
        results = ins[:1] * len(executable.outputs)
        targets = [[i] for i in range(len(results))]
        remainder = chain.first
        while True:
            remainder = remainder.in_use()
            cut, part = remainder.cut, remainder.part
            if (part is None and cut is None) or (part is not None and part not in job.parts):
                raise Unfit
            if cut is None:
                for slot, indices in zip(self._find_parts(part, job.parts[part], ins), targets, strict=True):
                    for i in indices:
                        results[i] = slot
                return results
            if not all(node.op.views for node in cut.hosts):
                raise Unfit
            have = dict(zip(cut.graph.inputs, ins, strict=True))
            if part is not None:
                before = [have[v] for v in cut.before.inputs]
                have.update(zip(cut.early, self._find_parts(part, job.parts[part], before), strict=True))
            for value in (*cut.graph.outputs, *cut.extents, *cut.passed):
                if value not in have and value.constant is not None:
                    have[value] = self._constant(value.constant)
            for node in cut.hosts:
                sliced, number = (have[v] for v in node.inputs)
                have[node.output] = slot = self._slot(sliced.rank, sliced.dtype)
                self._extents.append(Extent(number, 0, slot, sliced, node.attrs["axis"]))
            here, targets = cut.distribute(targets)
            for value, i in here:
                results[i] = have[value]
            if not targets:
                return results
            ins = [have[v] for v in cut.passed]
            remainder = remainder.following([slot.rank for slot in ins])
            for value in cut.extents:
                for element in range(math.prod(cut.extents_of[value])):
                    self._extents.append(Extent(have[value], element, self._slot(3, np.uint8)))
                    ins.append(self._extents[-1].slot)

    def _constant(self, array: np.ndarray) -> Slot:
        slot = self._slot(array.ndim, array.dtype)
        self._fixed[slot.number] = np.ascontiguousarray(array).reshape(array.shape)
        return slot

    def _add(self, executable: Executable, job: Job, inputs: list[Slot]) -> list[Slot]:
        table = job._table
        plain = type(job) is Job and not executable.profiling and job.room is None
        traced = getattr(executable.program, "traces", None) is not None
        if not plain or table is None or (table.in_python and not traced):
            raise Unfit
        shapes = table.plan.output_shapes
        outputs = [self._slot(len(shape), a.dtype) for shape, a in zip(shapes, job.outputs, strict=True)]
        self._parts.append(Part(executable, job, inputs, outputs, self._extents))
        self._extents = []
        self._blocks.append(streams.take_block())
        return outputs

    def _concatenated_ports(self) -> list[tuple[Any, Slot]]:
        return [(port, self.results[port.inner]) for port in self.ends.of(CONCAT)]
