"""Runs plans that need Python: host steps (NumPy references) between native steps, and composites (chains of
segments) instead of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import Cancelled, InferenceError, OvjitError
from ovjit.execution import blocks, runner
from ovjit.execution.job_memory import JobMemory
from ovjit.execution.runner import ABORT
from ovjit.execution.table import Table
from ovjit.graph import dtypes
from ovjit.planning.views import View

#: The message of a cancelled inference; it begins with OpenVINO's text.
CANCELLED = "Infer Request was canceled: the inference was cancelled while it ran"


class HostSteps(JobMemory):
    """Runs tables with host steps or composites."""

    __slots__ = ()

    def _run_segments(self, arena: blocks.Arena) -> None:
        table = self._table
        assert table is not None
        if table.composite is not None:
            self._run_composite(table.composite)
        else:
            self._run_plan(table, arena)

    def _run_plan(self, table: Table, arena: blocks.Arena) -> None:
        """Run ranges of native steps, and the host steps between them."""
        words, steps = self.words, len(table.plan.steps)
        self._bases[0] = arena.address
        first, start = 0, 0
        try:
            for stop in self._stops(table):
                if stop > first:
                    words[runner.FIRST], words[runner.STEPS] = first, stop
                    self._native.lead(self.address, self._pool.address, arena.address)
                    start = start or words[runner.STARTED]
                    if words[ABORT]:
                        return
                self._observe(stop)
                first = stop
                if stop < steps and table.plan.steps[stop].host is not None:
                    start = start or runner.clock()
                    self._run_host(stop)
                    first = stop + 1
        finally:
            words[runner.FIRST], words[runner.STEPS] = 0, steps
            words[runner.STARTED], words[runner.ENDED] = start, runner.clock()

    def _run_composite(self, composite: Any) -> None:
        words = self.words
        words[runner.STARTED] = runner.clock()
        try:
            composite.run(self)
        finally:
            words[runner.ENDED] = runner.clock()

    def _stops(self, table: Table) -> Sequence[int]:
        """The steps before which native code returns to Python, in order, and the number of steps."""
        return (*table.host, len(table.plan.steps))

    def _observe(self, done: int) -> None:
        """Called when the first `done` steps have run."""

    def _run_host(self, index: int) -> None:
        table = self._table
        assert table is not None
        step = table.plan.steps[index]
        call = step.host
        assert call is not None
        start = runner.clock()
        try:
            arrays = [self._array(v, view) for v, view in zip(call.node.inputs, call.inputs, strict=True)]
            results = self.executable.bodies.evaluate(self, call.node, arrays)
        except OvjitError as error:
            raise InferenceError(f"node {step.name!r} ({step.type}): {error}") from error
        for value, view, result in zip(call.node.outputs, call.outputs, results, strict=True):
            if tuple(view.shape) != result.shape:
                raise InferenceError(
                    f"node {step.name!r} ({step.type}) returned the shape {list(result.shape)}, "
                    f"expected {list(view.shape)}"
                )
            self._write(value, view, result)
        if self._perf is not None:
            self._perf[2 * index], self._perf[2 * index + 1] = start, runner.clock()

    def _write(self, value: Any, view: View, result: np.ndarray) -> None:
        """Copy a result of a host step to its tensor."""
        self._array(value, view)[...] = result

    def stop_if_cancelled(self) -> None:
        """Raise Cancelled after `cancel`. Long host code calls it regularly."""
        if self.words[ABORT]:
            raise Cancelled(CANCELLED)

    def _array(self, value: Any, view: View) -> np.ndarray:
        """A tensor of this job as a NumPy view. While its address stays it is the same object, by which
        bodies see that an input is where it was."""
        cached: tuple[Any, dict[int, tuple[int, np.ndarray]]] | None = self.notes.get("arrays")
        if cached is None or cached[0] is not self._table:  # which keeps the views, and so their ids
            cached = self.notes["arrays"] = self._table, {}
        address = self._bases.item(view.buffer.base) + view.buffer.offset + view.offset
        entry = cached[1].get(id(view))
        if entry is None or entry[0] != address:
            entry = cached[1][id(view)] = address, _array_at(address, view, dtypes.numpy_dtype(value.dtype))
        return entry[1]


def _array_at(address: int, view: View, dtype: np.dtype) -> np.ndarray:
    import ctypes

    if view.count == 0:
        return np.empty(view.shape, dtype)
    span = sum((d - 1) * s for d, s in zip(view.shape, view.strides, strict=True)) + view.itemsize
    memory = (ctypes.c_uint8 * span).from_address(address)
    return np.ndarray(view.shape, dtype, memoryview(memory), strides=view.strides)
