"""The arguments of the native loop as arrays of int64: slots, parts and the traces of their plans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ovjit.execution import iteration_steps as ts
from ovjit.execution import runner
from ovjit.execution.loop_parts import LoopParts, Part, Unfit
from ovjit.graph.bodies import CONCAT, MERGED, SLICED
from ovjit.graph.shapes import Interval, is_static
from ovjit.planning.chunks import PARALLEL_WORK
from ovjit.planning.constants import aligned_bytes
from ovjit.planning.parametric import evaluate_address
from ovjit.planning.views import FIRST_IO

#: A result's buffer has _ROOM times its bytes, at least _LEAST_ROOM. A loop with a result of more than
#: _MOST_ROOM bytes is run by Python.
_ROOM, _LEAST_ROOM, _MOST_ROOM = 2, 4096, 1 << 24
#: Maximum traces of a part, and maximum memory plans of a trace, that are tried.
_MOST_TRACES, _MOST_MEMORIES = 4, 4
_FAR = 1 << 62


class LoopArguments(LoopParts):
    """The int64 arrays of the native loop, which are rebuilt when the parts have other traces."""

    def _array(self, rows: Sequence[Any]) -> np.ndarray:
        """An int64 array of these rows, with at least one element. This object keeps it alive."""
        array = np.array(rows if len(rows) else [0], np.int64).reshape(-1)
        self._keep.append(array)
        return array

    def _at(self, rows: Sequence[Any]) -> int:
        return self._array(rows).ctypes.data

    def _prepare(self) -> None:
        """Rebuild the arguments if a part's traces or buffers have changed."""
        traces = [self._traces_of(part) for part in self._parts]
        for part in self._parts:
            self._find_room(part)
        if traces == self._traces:
            return
        self._traces = None  # after an exception below, the next call repeats all of this
        self._keep = []
        rows = []
        for part, entries, (address, words) in zip(self._parts, traces, self._blocks, strict=True):
            rows.append(self._part_words(part, entries, address, words))
        slots = np.zeros((len(self._slots), ts.SLOT_WORDS), np.int64)
        for slot in self._slots:
            slots[slot.number, 1] = slot.rank
        somewhere = aligned_bytes(64)
        for part in self._parts:
            for one in part.extents:
                slots[one.slot.number, 0] = somewhere.ctypes.data
        for number, array in self._fixed.items():
            slots[number, 0] = array.ctypes.data
            slots[number, 2 : 2 + array.ndim] = array.shape
        self._words = slots
        self._keep.append((slots, somewhere))
        carried = [(self.feeds[p.inner].number, self.results[p.back].number) for p in self.ends.of(MERGED)]
        self._state = state = self._array([0] * 32)
        self._part_rows = self._array(rows)
        state[ts.T_PARTS], state[ts.T_PARTS_AT] = len(rows), self._part_rows.ctypes.data
        state[ts.T_CARRIED], state[ts.T_CARRIED_AT] = len(carried), self._at(carried)
        state[ts.T_SPARE] = self._at([0] * (ts.SLOT_WORDS * len(carried)))
        state[ts.T_SLOTS], state[ts.T_EVALUATE] = slots.ctypes.data, evaluate_address()
        sliced = [(self.feeds[port.inner].number, 0) for port in self.ends.of(SLICED)]
        self._sliced = self._array(sliced)
        state[ts.T_SLICED], state[ts.T_SLICED_AT] = len(sliced), self._sliced.ctypes.data
        self._kept_rows = np.zeros((len(self.ends.of(CONCAT)), ts.KEPT_ROW), np.int64)
        condition = self.ends.condition
        state[ts.T_GO] = -1 if condition == -1 else self.results[condition].number
        state[ts.T_WORK] = PARALLEL_WORK if self.executable.threads > 1 else _FAR
        self._traces = traces

    def _find_room(self, part: Part) -> None:
        """Enlarge the buffers of a part's results if needed."""
        table = part.job._table
        assert table is not None
        for slot, shape in zip(part.outputs, table.plan.output_shapes, strict=True):
            size = math.prod(shape) * slot.dtype.itemsize if is_static(shape) else 0
            if size > _MOST_ROOM:
                raise Unfit
            if slot.number not in self._buffers or self._buffers[slot.number][0].nbytes < size:
                size = max(_LEAST_ROOM, _ROOM * size)
                self._traces = None  # the rows have the address of the previous buffers
                self._buffers[slot.number] = aligned_bytes(size), aligned_bytes(size)

    def _traces_of(self, part: Part) -> list[Any]:
        """(trace, memory plan) pairs of a part, and its last table if that is of a plan without a trace."""
        table = part.job._table
        if part.executable.is_cut:
            raise Unfit  # a graph break was found since this object was made
        entries: list[Any] = []
        if table is not None and table.plan.block is None and not table.in_python and not table.bodies:
            entries.append(table)
        for trace in list(getattr(part.executable.program, "traces", None) or ())[:_MOST_TRACES]:
            sizes = {size for _, size, _ in trace.data_patches}
            if trace.table is None or not sizes <= {4, 8} or trace.growing_axes is not None:
                continue
            if trace.ranks == tuple(slot.rank for slot in part.inputs) and not trace.table[1]:
                entries += [(trace, memory) for memory in trace._memories[:_MOST_MEMORIES]]
        return entries

    def _part_words(self, part: Part, entries: list[Any], address: int, words: Any) -> list[int]:
        inputs, outputs = part.inputs, part.outputs
        leaves = sum(slot.rank for slot in inputs)
        bases = self._array([0] * (FIRST_IO + len(inputs) + len(outputs)))
        words[runner.BASES], words[runner.THREADS] = bases.ctypes.data, 1
        words[runner.PERF] = words[runner.BUSY] = words[runner.FIRST] = 0
        words[runner.FLUSH] = part.executable.flushes
        in_rows, out_rows, at = [], [], 0
        low: list[int] = []
        high: list[int] = []
        for i, (slot, end) in enumerate(zip(inputs, part.executable.inputs, strict=True)):
            in_rows.append((slot.number, FIRST_IO + i, at))
            at += slot.rank
            for d in end.shape:
                low.append(d.lo if isinstance(d, Interval) else d)
                most = d.hi if isinstance(d, Interval) else d
                high.append(_FAR if most is None else most)
        self._find_room(part)
        for i, slot in enumerate(outputs):
            first, second = self._buffers[slot.number]
            out_rows.append((slot.number, FIRST_IO + len(inputs) + i, first.ctypes.data, second.ctypes.data,
                             first.nbytes, slot.dtype.itemsize))  # fmt: skip
        extents = [(slot.number, element * slot.dtype.itemsize, slot.dtype.itemsize, to.number,
                 -1 if sliced is None else sliced.number, (2 + axis) * 8)
                for slot, element, to, sliced, axis in part.extents]  # fmt: skip
        none = [-1] * leaves
        rows = [self._trace_words(part, one) for one in entries]
        return [
            address, bases.ctypes.data, len(extents), self._at(extents), len(in_rows), self._at(in_rows),
            leaves, self._at(none), self._at(none), self._at(low), self._at(high), len(rows), self._at(rows),
            0, len(out_rows), self._at(out_rows),
        ]  # fmt: skip

    def _trace_words(self, part: Part, entry: Any) -> list[int]:
        memory = part.executable.program.memory.ctypes.data
        if not isinstance(entry, tuple):
            plan = entry.plan
            leaves = self._at([d for shape in plan.input_shapes for d in shape])
            result = [d for shape in plan.output_shapes for d in shape]
            begins = [0, *accumulate(map(len, plan.output_shapes))]
            result += [plan.scratch_size, _FAR if plan.parallel and part.executable.threads > 1 else 0]
            self._keep.append(entry)
            return [
                0, 0, leaves, 0, entry.address, len(plan.steps), 0, self._at(result), begins[-1],
                plan.scratch_offset, memory, entry.data.ctypes.data, 0, 0, self._at(begins),
            ]  # fmt: skip
        trace, memory_plan = entry
        rows, count, size = trace._sizes
        numbers = self._array([0] * size)
        results, chunks, words, *_ = trace._parts
        shapes, which = trace._shapes
        begins = [0, *accumulate(map(len, shapes))]
        first = trace.table[0].copy()
        steps = len(trace.steps)
        at = numbers.ctypes.data
        first[:steps, runner.STEP_ARGS] += at + 8 * words
        data = aligned_bytes(trace.data.size)
        data[:] = trace.data
        patches = [(data.ctypes.data + to, size, node) for to, size, node in trace.data_patches]
        self._keep.append((first, trace, memory_plan, data))
        return [
            rows, count, at, memory_plan.address, first.ctypes.data, steps, at + 8 * chunks, at + 8 * results,
            begins[-1], memory_plan.arena_size, memory, data.ctypes.data, len(patches), self._at(patches),
            self._at([begins[i] for i in which]),
        ]  # fmt: skip
