"""Native iterations of a loop with changing shapes, without Python between them: `Iterations`.

The plans of a body's parts (`ovjit.execution.segments`) are functions of shapes and run-time extents, see
`ovjit.planning.parametric`. So one native function evaluates the next plan, overwrites the previous one's
table, and runs it. `ovjit.execution.control` does the same in Python, iteration by iteration.

The function stops before an iteration, with all state unchanged, if no known trace applies, if results exceed
their memory, or if the work is worth several threads. Python runs that iteration, and may add traces.

Results use two places alternately, since carried values are read while the next ones are written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit import debug
from ovjit.execution import blocks, runner
from ovjit.execution import iteration_steps as ts
from ovjit.execution.job import Job
from ovjit.execution.loop_arguments import LoopArguments
from ovjit.execution.loop_parts import Slot, Unfit
from ovjit.graph.bodies import LAST, MERGED, SLICED, axis_of, slice_bounds
from ovjit.planning.constants import aligned_bytes

if TYPE_CHECKING:
    from ovjit.execution.executable import Executable
    from ovjit.execution.loop_progress import LoopProgress

#: ns of native iterations after which Python checks for signals.
_SLICE = 50_000_000
#: Bytes for concatenated results of iterations: initial and largest. Python collects larger ones.
_FIRST_KEPT, _MOST_KEPT = 1 << 16, 1 << 24
#: A native run of fewer than _FEW iterations does not pay. After _MOST_POOR such runs in a row, none is
#: tried.
_FEW, _MOST_POOR = 4, 8


class Iterations(LoopArguments):
    """The native iterations of one body in one job, after Python has run one."""

    def run(self, job: Job, arrays: Sequence[np.ndarray], loop: LoopProgress) -> bool:
        """Run as many iterations as possible of a Loop or TensorIterator in `job`, with the inputs `arrays`,
        and store the state after them in `loop`. False if this object must be made again. Raises Cancelled.
        """
        if self.poor > _MOST_POOR or not self._fits(arrays, loop):
            return True
        try:
            self._prepare()
        except Unfit:
            return False
        alive: list[np.ndarray] = []
        state = self._state
        limit = self._fill_inputs(arrays, loop, alive)
        before = loop.done
        counter = self.ends.iteration
        if counter != -1:
            self._fill(self.feeds[counter], loop.feeds[counter], alive)
            state[ts.T_COUNTER] = alive[-1].ctypes.data
            state[ts.T_COUNTER_SIZE] = alive[-1].itemsize
        state[ts.T_COUNT], state[ts.T_DONE] = limit, before
        state[ts.T_GOES_ON], state[ts.T_ROOT] = 1, job.address
        self._forget_plans()
        native = runner.native("runner", "runner_iterate")
        arena = blocks.take_arena(max(part.job.words[runner.ARENA_SIZE] for part in self._parts))
        state[ts.T_ARENA] = arena.size
        pool = self.executable.pool.address
        while True:
            self._make_room()
            status = native.iterate(state.ctypes.data, pool, arena.address, runner.clock() + _SLICE)
            self._collect(loop)
            if status == ts.CANCELLED:
                job.stop_if_cancelled()
            if status == ts.FULL and not self._more_room():
                break
            if status not in (ts.FULL, ts.UNEVEN, ts.TIME_UP):
                break
        blocks.free_arenas.append(arena)
        loop.done, loop.go_on = int(state[ts.T_DONE]), bool(state[ts.T_GOES_ON])
        self.poor = self.poor + 1 if status == ts.PYTHON_NEXT and loop.done - before < _FEW else 0
        if loop.done == before:
            return True
        self._hand_over(loop, status == ts.OVER)
        return True

    def _fill_inputs(self, arrays: Sequence[np.ndarray], loop: LoopProgress, alive: list[np.ndarray]) -> int:
        """Write the inputs' addresses and shapes; `alive` keeps the arrays. Returns the maximum number
        of iterations, or -1."""
        sliced = 0
        limit = -1 if loop.iterations is None else loop.iterations
        for port in self.ends.inputs:
            slot, array = self.feeds[port.inner], arrays[port.outer]
            if port.kind != SLICED:
                array = loop.feeds[port.inner]
                self._fill(slot, array, alive)
                continue
            first, step, count = slice_bounds(port, array.shape[axis_of(port, array.shape)])
            limit = count if limit < 0 else min(limit, count)
            self._fill(slot, array, alive)
            row = self._words[slot.number]
            each = array.nbytes // array.shape[0] if array.shape[0] else 0
            row[0] += (first + loop.done * step) * each
            row[2] = port.part_size
            self._sliced[sliced * ts.SLICED_ROW + 1] = step * each
            sliced += 1
        return limit

    def _hand_over(self, loop: LoopProgress, over: bool) -> None:
        """Copy the carried values to `loop`, and its results if the loop is `over`."""
        carried = {port.back: self.feeds[port.inner] for port in self.ends.of(MERGED)}
        for port in self.ends.of(MERGED):
            loop.feeds[port.inner] = self._copy_slot(self.feeds[port.inner])
        if over:  # otherwise more iterations follow, or results of a begun one
            loop.last_results = [None] * len(self.results)
            for port in self.ends.outputs:
                if port.kind == LAST:
                    slot = carried.get(port.inner) or self.results[port.inner]
                    loop.last_results[port.inner] = self._copy_slot(slot)

    def _fits(self, arrays: Sequence[np.ndarray], loop: LoopProgress) -> bool:
        """Whether the current inputs have the ranks and types that this object was made for."""
        for port in self.ends.inputs:
            array = arrays[port.outer] if port.kind == SLICED else loop.feeds[port.inner]
            slot = self.feeds[port.inner]
            if array.ndim != slot.rank or array.dtype != slot.dtype:
                return False
        return True

    def _fill(self, slot: Slot, array: np.ndarray, alive: list[np.ndarray]) -> None:
        """Write an input's address and shape to its slot."""
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        alive.append(array)
        row = self._words[slot.number]
        row[0] = array.ctypes.data
        row[2 : 2 + array.ndim] = array.shape

    def _copy_slot(self, slot: Slot) -> np.ndarray:
        """A copy of the array in a slot."""
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

    def _make_room(self) -> None:
        """Write the buffers of concatenated outputs to the arguments."""
        state, rows = self._state, self._kept_rows
        for row, (port, slot) in zip(rows, self._concatenated_ports(), strict=True):
            buffer = self._concatenations.get(port.outer)
            if buffer is None:
                buffer = self._concatenations[port.outer] = aligned_bytes(_FIRST_KEPT)
            row[:6] = slot.number, buffer.ctypes.data, buffer.nbytes, 0, -1, slot.dtype.itemsize
        state[ts.T_KEPT], state[ts.T_KEPT_AT] = len(rows), rows.ctypes.data

    def _collect(self, loop: LoopProgress) -> None:
        """Append copies of the concatenated outputs to `loop`."""
        for row, (port, slot) in zip(self._kept_rows.tolist(), self._concatenated_ports(), strict=True):
            if row[4] >= 0:
                shape = row[4], *row[ts.K_DIMS + 1 : ts.K_DIMS + slot.rank]
                result = self._concatenations[port.outer][: row[3]].view(slot.dtype).reshape(shape)
                loop.parts[port.outer].append(result.copy())

    def _more_room(self) -> bool:
        """Enlarge buffers of concatenated outputs. Returns whether an iteration that did not fit may fit
        now."""
        more = False
        for port, _ in self._concatenated_ports():
            size = 4 * self._concatenations[port.outer].nbytes
            if size <= _MOST_KEPT:
                self._concatenations[port.outer], more = aligned_bytes(size), True
        return more or any(row[3] for row in self._kept_rows.tolist())


def iterations_of(ends: Any, executable: Executable, inner: Job) -> Iterations | None:
    """The native iterations of a body. None if the body does not support them."""
    try:
        return None if debug.is_on("OVJIT_CHECK") else Iterations(ends, executable, inner)
    except Unfit:
        return None
