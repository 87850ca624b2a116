"""Iterations of a loop with changing shapes, without Python between them: `Trips`.

The plans of a body's parts (`ovjit.execution.segments`) are functions of shapes and run-time extents, see
`ovjit.planning.parametric`. So one native function makes the next plan, writes it over the rows of the last
one, and runs it. This is what `ovjit.execution.control` does step by step.

The function stops before an iteration, with all state unchanged, if no known trace applies, if results exceed
their memory, or if the work is worth several threads. Python runs that iteration, and may add traces.

Results use two places alternately, since carried values are read while the next ones are written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ovjit import debug
from ovjit.execution import blocks, runner, streams
from ovjit.execution import trip_steps as ts
from ovjit.execution.job import Job
from ovjit.graph.bodies import CONCAT, LAST, MERGED, SLICED, axis_of, slice_bounds
from ovjit.graph.shapes import Interval, is_static
from ovjit.planning.chunks import PARALLEL_WORK
from ovjit.planning.constants import aligned_bytes
from ovjit.planning.parametric import evaluate_address
from ovjit.planning.views import FIRST_IO

if TYPE_CHECKING:
    from ovjit.execution.control import Round
    from ovjit.execution.executable import Executable

#: ns of native iterations after which Python checks for signals.
_SLICE = 50_000_000
#: Results get this many times the memory that they need, and so much at least. Larger ones are Python's.
_ROOM, _LEAST_ROOM, _MOST_ROOM = 2, 4096, 1 << 24
#: Bytes for concatenated results of iterations: initial and largest. Python collects larger ones.
_FIRST_KEPT, _MOST_KEPT = 1 << 16, 1 << 24
#: As many traces of a part are tried, each in as many memories.
_MOST_TRACES, _MOST_MEMORIES = 4, 4
#: A run of fewer iterations does not pay. After so many such runs in sequence there are no more.
_FEW, _MOST_POOR = 4, 8
_FAR = 1 << 62


class _Slot(NamedTuple):
    number: int
    rank: int
    dtype: np.dtype


class _Told(NamedTuple):
    """A number that is told before a part runs: whose, which of them, the slot that tells it; where that is
    the used part of `whole`, along which axis."""

    numbers: _Slot
    element: int
    slot: _Slot
    whole: _Slot | None = None
    axis: int = 0


class _Part(NamedTuple):
    """A part of the body: what runs it, the slots of its inputs and outputs, and what is told before."""

    executable: Executable
    job: Job
    inputs: list[_Slot]
    outputs: list[_Slot]
    told: list[_Told]


class Unfit(Exception):
    """A body, or a state that it is in, for step by step."""


class Trips:
    """The native iterations of one body in one job, after Python has run one."""

    def __init__(self, ends: Any, executable: Executable, inner: Job):
        """`inner`: the job of the body's `executable`, which has run. Raises Unfit."""
        self.ends = ends
        self.executable = executable
        self._inner = inner
        self._slots: list[_Slot] = []
        self._fixed: dict[int, np.ndarray] = {}  # constants, by their slots
        self._parts: list[_Part] = []
        self._blocks: list[tuple[int, Any]] = []
        self._keep: list[Any] = []
        self._places: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._kept: dict[int, np.ndarray] = {}
        #: Runs in a row that came to nothing.
        self.poor = 0
        self._check_ends()
        self.feeds = [self._slot(a.ndim, a.dtype) for a in inner.inputs if a is not None]
        self._telling: list[_Told] = []  # before the part that is found next
        self.results = self._find_parts(executable, inner, self.feeds)
        if self._telling:
            raise Unfit
        self._traces: Any = None
        self._check_carried()

    def __del__(self) -> None:
        if streams is not None:  # the interpreter may be ending
            for address, words in getattr(self, "_blocks", ()):
                streams.give_block(address, words, self._keep)

    # --- what the body is

    def _check_ends(self) -> None:
        for port in self.ends.outputs:
            if (port.kind == CONCAT and (port.stride != 1 or port.axis != 0)) or (
                port.kind == LAST and port.iteration != -1
            ):
                raise Unfit
        if any(port.axis != 0 for port in self.ends.of(SLICED)):
            raise Unfit

    def _check_carried(self) -> None:
        """Carried values are new in each iteration, or constant. None is read one iteration later."""
        feeds = {slot.number: i for i, slot in enumerate(self.feeds)}
        for port in self.ends.of(MERGED):
            slot = self.results[port.back]
            if feeds.get(slot.number, port.inner) != port.inner:
                raise Unfit
        if any(not slot.rank for _, slot in self._concatenated()):
            raise Unfit
        again = {port.back for port in self.ends.of(MERGED)}
        for port in self.ends.outputs:
            if port.kind == LAST and self.results[port.inner].number in feeds and port.inner not in again:
                raise Unfit  # it has changed when the last iteration is over
        if self.ends.condition != -1 and self.results[self.ends.condition].dtype != np.bool_:
            raise Unfit

    def _slot(self, rank: int, dtype: Any) -> _Slot:
        if rank > ts.MOST_RANK or np.dtype(dtype).hasobject:
            raise Unfit
        self._slots.append(_Slot(len(self._slots), rank, np.dtype(dtype)))
        return self._slots[-1]

    def _find_parts(self, executable: Executable, job: Job, ins: list[_Slot]) -> list[_Slot]:
        """The slots of the results of what runs in `job`, and note the parts that it has."""
        chain = executable._chain
        if chain is None:
            return self._add(executable, job, ins)
        results = ins[:1] * len(executable.outputs)
        places = [[i] for i in range(len(results))]
        rest = chain.first
        while True:
            rest = rest.in_use()
            cut, part = rest.cut, rest.part
            if (part is None and cut is None) or (part is not None and part not in job.parts):
                raise Unfit
            if cut is None:
                for slot, where in zip(self._find_parts(part, job.parts[part], ins), places, strict=True):
                    for i in where:
                        results[i] = slot
                return results
            if not all(node.op.views for node in cut.hosts):
                raise Unfit
            have = dict(zip(cut.graph.inputs, ins, strict=True))
            if part is not None:
                before = [have[v] for v in cut.before.inputs]
                have.update(zip(cut.kept, self._find_parts(part, job.parts[part], before), strict=True))
            for value in (*cut.graph.outputs, *cut.told, *cut.passed):
                if value not in have and value.constant is not None:
                    have[value] = self._constant(value.constant)
            for node in cut.hosts:
                whole, number = (have[v] for v in node.inputs)
                have[node.output] = slot = self._slot(whole.rank, whole.dtype)
                self._telling.append(_Told(number, 0, slot, whole, node.attrs["axis"]))
            here, places = cut.places(places)
            for value, i in here:
                results[i] = have[value]
            if not places:
                return results
            ins = [have[v] for v in cut.passed]
            rest = rest.following([slot.rank for slot in ins])
            for value in cut.told:
                for element in range(math.prod(cut._told_shapes[value])):
                    self._telling.append(_Told(have[value], element, self._slot(3, np.uint8)))
                    ins.append(self._telling[-1].slot)

    def _constant(self, array: np.ndarray) -> _Slot:
        slot = self._slot(array.ndim, array.dtype)
        self._fixed[slot.number] = np.ascontiguousarray(array).reshape(array.shape)
        return slot

    def _add(self, executable: Executable, job: Job, inputs: list[_Slot]) -> list[_Slot]:
        table = job._table
        plain = type(job) is Job and not executable.profiling and job.room is None
        traced = getattr(executable.program, "traces", None) is not None
        if not plain or table is None or (table.in_python and not traced):
            raise Unfit
        shapes = table.plan.output_shapes
        outputs = [self._slot(len(shape), a.dtype) for shape, a in zip(shapes, job.outputs, strict=True)]
        self._parts.append(_Part(executable, job, inputs, outputs, self._telling))
        self._telling = []
        self._blocks.append(streams.take_block())
        return outputs

    # --- what the native function is told

    def _array(self, rows: Sequence[Any]) -> np.ndarray:
        """int64 of these rows, with a word at least; kept as long as this is."""
        array = np.array(rows if len(rows) else [0], np.int64).reshape(-1)
        self._keep.append(array)
        return array

    def _at(self, rows: Sequence[Any]) -> int:
        return self._array(rows).ctypes.data

    def _prepare(self) -> None:
        """Write what the native function is told of the parts, where their traces are others than before."""
        traces = [self._traces_of(part) for part in self._parts]
        grown = [self._found_room(part) for part in self._parts]
        if traces == self._traces and not any(grown):
            return
        self._keep = []
        rows = []
        for part, found, (address, words) in zip(self._parts, traces, self._blocks, strict=True):
            rows.append(self._part_words(part, found, address, words))
        slots = np.zeros((len(self._slots), ts.SLOT_WORDS), np.int64)
        for slot in self._slots:
            slots[slot.number, 1] = slot.rank
        somewhere = aligned_bytes(64)
        for part in self._parts:
            for one in part.told:
                slots[one.slot.number, 0] = somewhere.ctypes.data
        for number, array in self._fixed.items():
            slots[number, 0] = array.ctypes.data
            slots[number, 2 : 2 + array.ndim] = array.shape
        self._words = slots
        self._keep.append((slots, somewhere))
        carried = [(self.feeds[p.inner].number, self.results[p.back].number) for p in self.ends.of(MERGED)]
        self._told = told = self._array([0] * 32)
        self._part_rows = self._array(rows)
        told[ts.T_PARTS], told[ts.T_PARTS_AT] = len(rows), self._part_rows.ctypes.data
        told[ts.T_CARRIED], told[ts.T_CARRIED_AT] = len(carried), self._at(carried)
        told[ts.T_SPARE] = self._at([0] * (ts.SLOT_WORDS * len(carried)))
        told[ts.T_SLOTS], told[ts.T_EVALUATE] = slots.ctypes.data, evaluate_address()
        sliced = [(self.feeds[port.inner].number, 0) for port in self.ends.of(SLICED)]
        self._sliced = self._array(sliced)
        told[ts.T_SLICED], told[ts.T_SLICED_AT] = len(sliced), self._sliced.ctypes.data
        self._kept_rows = np.zeros((len(self.ends.of(CONCAT)), ts.KEPT_ROW), np.int64)
        condition = self.ends.condition
        told[ts.T_GO] = -1 if condition == -1 else self.results[condition].number
        told[ts.T_WORK] = PARALLEL_WORK if self.executable.threads > 1 else _FAR
        self._traces = traces

    def _found_room(self, part: _Part) -> bool:
        """Whether results needed more room than they had; they have it now."""
        more, table = False, part.job._table
        assert table is not None
        for slot, shape in zip(part.outputs, table.plan.output_shapes, strict=True):
            size = math.prod(shape) * slot.dtype.itemsize if is_static(shape) else 0
            if size > _MOST_ROOM:
                raise Unfit
            if slot.number not in self._places or self._places[slot.number][0].nbytes < size:
                size = max(_LEAST_ROOM, _ROOM * size)
                self._places[slot.number], more = (aligned_bytes(size), aligned_bytes(size)), True
        return more

    def _traces_of(self, part: _Part) -> list[Any]:
        """(trace, memory) pairs, and the last table where it is of a plan that is none."""
        table = part.job._table
        if part.executable.is_cut:
            raise Unfit  # it was not when this was made
        found: list[Any] = []
        if table is not None and table.plan.block is None and not table.in_python and not table.bodies:
            found.append(table)
        for trace in list(getattr(part.executable.program, "traces", None) or ())[:_MOST_TRACES]:
            sizes = {size for _, size, _ in trace.data_patches}
            if trace.table is None or not sizes <= {4, 8} or trace.places is not None:
                continue
            if trace.ranks == tuple(slot.rank for slot in part.inputs) and not trace.table[1]:
                found += [(trace, memory) for memory in trace._memories[:_MOST_MEMORIES]]
        return found

    def _part_words(self, part: _Part, found: list[Any], address: int, words: Any) -> list[int]:
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
        self._found_room(part)
        for i, slot in enumerate(outputs):
            first, second = self._places[slot.number]
            out_rows.append((slot.number, FIRST_IO + len(inputs) + i, first.ctypes.data, second.ctypes.data,
                             first.nbytes, slot.dtype.itemsize))  # fmt: skip
        told = [(slot.number, element * slot.dtype.itemsize, slot.dtype.itemsize, to.number,
                 -1 if whole is None else whole.number, (2 + axis) * 8)
                for slot, element, to, whole, axis in part.told]  # fmt: skip
        none = [-1] * leaves
        rows = [self._trace_words(part, one) for one in found]
        return [
            address, bases.ctypes.data, len(told), self._at(told), len(in_rows), self._at(in_rows), leaves,
            self._at(none), self._at(none), self._at(low), self._at(high), len(rows), self._at(rows), 0,
            len(out_rows), self._at(out_rows),
        ]  # fmt: skip

    def _trace_words(self, part: _Part, found: Any) -> list[int]:
        memory = part.executable.program.memory.ctypes.data
        if not isinstance(found, tuple):
            plan = found.plan
            leaves = self._at([d for shape in plan.input_shapes for d in shape])
            made = [d for shape in plan.output_shapes for d in shape]
            begins = [0, *accumulate(map(len, plan.output_shapes))]
            made += [plan.scratch_size, _FAR if plan.parallel and part.executable.threads > 1 else 0]
            self._keep.append(found)
            return [
                0, 0, leaves, 0, found.address, len(plan.steps), 0, self._at(made), begins[-1],
                plan.scratch_offset, memory, found.data.ctypes.data, 0, 0, self._at(begins),
            ]  # fmt: skip
        trace, place = found
        rows, count, size = trace._sizes
        whole = self._array([0] * size)
        results, chunks, words, *_ = trace._parts
        shapes, which = trace._shapes
        begins = [0, *accumulate(map(len, shapes))]
        first = trace.table[0].copy()
        steps = len(trace.steps)
        at = whole.ctypes.data
        first[:steps, runner.STEP_ARGS] += at + 8 * words
        data = aligned_bytes(trace.data.size)
        data[:] = trace.data
        patches = [(data.ctypes.data + to, size, node) for to, size, node in trace.data_patches]
        self._keep.append((first, trace, place, data))
        return [
            rows, count, at, place.address, first.ctypes.data, steps, at + 8 * chunks, at + 8 * results,
            begins[-1], place.arena_size, memory, data.ctypes.data, len(patches), self._at(patches),
            self._at([begins[i] for i in which]),
        ]  # fmt: skip

    # --- running

    def run(self, job: Job, arrays: Sequence[np.ndarray], loop: Round) -> bool:
        """Run as many iterations as possible of a Loop or TensorIterator in `job`, with the inputs `arrays`,
        and store the state after them in `loop`. False if this object must be made again. Raises Cancelled.
        """
        if self.poor > _MOST_POOR or not self._fits(arrays, loop):
            return True
        try:
            self._prepare()
        except Unfit:
            return False
        held: list[np.ndarray] = []
        told, sliced = self._told, 0
        limit = -1 if loop.trips is None else loop.trips
        for port in self.ends.inputs:
            slot, array = self.feeds[port.inner], arrays[port.outer]
            if port.kind != SLICED:
                array = loop.feeds[port.inner]
                self._fill(slot, array, held)
                continue
            first, step, count = slice_bounds(port, array.shape[axis_of(port, array.shape)])
            limit = count if limit < 0 else min(limit, count)
            self._fill(slot, array, held)
            row = self._words[slot.number]
            each = array.nbytes // array.shape[0] if array.shape[0] else 0
            row[0] += (first + loop.done * step) * each
            row[2] = port.part_size
            self._sliced[sliced * ts.SLICED_ROW + 1] = step * each
            sliced += 1
        before = loop.done
        counter = self.ends.iteration
        if counter != -1:
            self._fill(self.feeds[counter], loop.feeds[counter], held)
            told[ts.T_COUNTER] = held[-1].ctypes.data
            told[ts.T_COUNTER_SIZE] = held[-1].itemsize
        told[ts.T_COUNT], told[ts.T_DONE], told[ts.T_GOES_ON], told[ts.T_ROOT] = limit, before, 1, job.address
        self._forget_plans()
        native = runner.native("runner", "runner_trips")
        arena = blocks.taken_arena()
        arena.reserve(max(part.job.words[runner.ARENA_SIZE] for part in self._parts))
        told[ts.T_ARENA] = arena.size
        pool = self.executable.pool.address
        while True:
            self._make_room()
            status = native.trips(told.ctypes.data, pool, arena.address, runner.clock() + _SLICE)
            self._collect(loop)
            if status == ts.CANCELLED:
                job.stop_if_cancelled()
            if status == ts.FULL and not self._more_room():
                break
            if status not in (ts.FULL, ts.UNEVEN, ts.TIME_UP):
                break
        blocks.free_arenas.append(arena)
        loop.done, loop.go_on = int(told[ts.T_DONE]), bool(told[ts.T_GOES_ON])
        self.poor = self.poor + 1 if status == ts.TRIP_OF_PYTHON and loop.done - before < _FEW else 0
        if loop.done == before:
            return True
        carried = {port.back: self.feeds[port.inner] for port in self.ends.of(MERGED)}
        for port in self.ends.of(MERGED):
            loop.feeds[port.inner] = self._taken(self.feeds[port.inner])
        if status == ts.OVER:  # otherwise more iterations follow, or results of a begun one
            loop.made = [None] * len(self.results)
            for port in self.ends.outputs:
                if port.kind == LAST:
                    slot = carried.get(port.inner) or self.results[port.inner]
                    loop.made[port.inner] = self._taken(slot)
        return True

    def _fits(self, arrays: Sequence[np.ndarray], loop: Round) -> bool:
        """Whether the body takes values of these ranks and types."""
        for port in self.ends.inputs:
            array = arrays[port.outer] if port.kind == SLICED else loop.feeds[port.inner]
            slot = self.feeds[port.inner]
            if array.ndim != slot.rank or array.dtype != slot.dtype:
                return False
        return True

    def _fill(self, slot: _Slot, array: np.ndarray, held: list[np.ndarray]) -> None:
        """An input's place and shape."""
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        held.append(array)
        row = self._words[slot.number]
        row[0] = array.ctypes.data
        row[2 : 2 + array.ndim] = array.shape

    def _taken(self, slot: _Slot) -> np.ndarray:
        """A copy of what lies in a slot."""
        import ctypes

        row = self._words[slot.number].tolist()
        shape = row[2 : 2 + slot.rank]
        size = math.prod(shape) * slot.dtype.itemsize
        out = aligned_bytes(size)
        if size:
            ctypes.memmove(out.ctypes.data, row[0], size)
        return out.view(slot.dtype).reshape(shape)

    def _forget_plans(self) -> None:
        """The next iteration looks up its plans again: the last one may have stopped between two."""
        for i in range(len(self._parts)):
            self._part_rows[i * ts.PART_WORDS + ts.P_TRACE] = 0

    # --- concatenated results of all iterations

    def _make_room(self) -> None:
        """Write where it goes."""
        told, rows = self._told, self._kept_rows
        for row, (port, slot) in zip(rows, self._concatenated(), strict=True):
            place = self._kept.get(port.outer)
            if place is None:
                place = self._kept[port.outer] = aligned_bytes(_FIRST_KEPT)
            row[:6] = slot.number, place.ctypes.data, place.nbytes, 0, -1, slot.dtype.itemsize
        told[ts.T_KEPT], told[ts.T_KEPT_AT] = len(rows), rows.ctypes.data

    def _concatenated(self) -> list[tuple[Any, _Slot]]:
        return [(port, self.results[port.inner]) for port in self.ends.of(CONCAT)]

    def _collect(self, loop: Round) -> None:
        """Hand over what there is."""
        for row, (port, slot) in zip(self._kept_rows.tolist(), self._concatenated(), strict=True):
            if row[4] >= 0:
                shape = row[4], *row[ts.K_DIMS + 1 : ts.K_DIMS + slot.rank]
                whole = self._kept[port.outer][: row[3]].view(slot.dtype).reshape(shape)
                loop.kept[port.outer].append(whole.copy())

    def _more_room(self) -> bool:
        """Whether an iteration that had no room has it now."""
        more = False
        for port, _ in self._concatenated():
            size = 4 * self._kept[port.outer].nbytes
            if size <= _MOST_KEPT:
                self._kept[port.outer], more = aligned_bytes(size), True
        return more or any(row[3] for row in self._kept_rows.tolist())


def trips_of(ends: Any, executable: Executable, inner: Job) -> Trips | None:
    """None for a body that goes step by step."""
    try:
        return None if debug.is_on("OVJIT_CHECK") else Trips(ends, executable, inner)
    except Unfit:
        return None
