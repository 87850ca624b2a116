"""The state of a loop that Python leads, iteration by iteration: what the next one reads, and what the
previous ones have added to the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.graph import dtypes
from ovjit.graph.bodies import CONCAT, MERGED, SLICED
from ovjit.graph.shapes import is_static

if TYPE_CHECKING:
    from ovjit.execution.job import Job


class LoopProgress:
    """State of a loop with the ports `ends`: the body's next inputs, its last results, and the parts of the
    outputs that each iteration adds."""

    def __init__(self, ends: Any, arrays: Sequence[np.ndarray], iterations: int | None, go_on: bool):
        """The state before the first iteration. `arrays`: inputs of the loop."""
        self.ends = ends
        self.iterations = iterations  # None: no end
        self.go_on = go_on
        self.done = 0
        self.last_results: list[Any] | None = None
        self.carried, self.sliced = ends.of(MERGED), ends.of(SLICED)
        self.feeds: list[Any] = [None] * len(ends.body.inputs)
        for port in ends.inputs:
            if port.kind != SLICED:
                self.feeds[port.inner] = arrays[port.outer]
        #: Concatenated outputs, as a list of parts per output; outputs of a single iteration.
        self.parts: dict[int, list[np.ndarray]] = {port.outer: [] for port in ends.of(CONCAT)}
        self.picked: dict[int, np.ndarray] = {}
        #: Memory of carried values that the next iteration may overwrite, by the body's result.
        self.spares: dict[int, np.ndarray] = {}
        self.counter = self._counter()
        backs = {port.back for port in self.carried}
        copied = {port.inner for port in ends.of(CONCAT)}
        self.backs = backs
        self.reusable = backs - copied if len(backs) == len(self.carried) else set()

    def _counter(self) -> np.ndarray | None:
        at = self.ends.iteration
        if at == -1:
            return None
        type = self.ends.body.inputs[at].type
        shape = type.shape if is_static(type.shape) else ()
        self.feeds[at] = np.zeros(shape, dtypes.numpy_dtype(type.dtype))
        return self.feeds[at]

    @property
    def goes_on(self) -> bool:
        return self.go_on and (self.iterations is None or self.done < self.iterations)

    def begin(self, arrays: Sequence[np.ndarray]) -> None:
        """Set the next iteration's slices and counter."""
        from ovjit_ops.control.ends import part

        for port in self.sliced:
            self.feeds[port.inner] = np.ascontiguousarray(part(port, arrays[port.outer], self.done))
        if self.counter is not None:
            self.counter[...] = self.done

    def end(self, inner: Job) -> None:
        """Store the results of an iteration, which the job `inner` has run."""
        from ovjit_ops.control.ends import one_element

        result = self.last_results = list(inner.outputs)
        for r in self.backs:
            spare = self.spares.pop(r, None)
            fits = spare is not None and spare.shape == inner.outputs[r].shape
            result[r] = inner.take_output(r, spare) if fits else inner.release_output(r)
        for port in self.ends.outputs:
            if port.kind == CONCAT:
                array = result[port.inner]
                self.parts[port.outer].append(array if port.inner in self.backs else array.copy())
            elif port.iteration == self.done:
                self.picked[port.outer] = result[port.inner].copy()
        for port in self.carried:
            if self.done and port.back in self.reusable:
                self.spares[port.back] = self.feeds[port.inner]
            self.feeds[port.inner] = result[port.back]
        if self.ends.condition != -1:
            self.go_on = bool(one_element(result[self.ends.condition], "the condition of a loop's body"))
        self.done += 1

    def results(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs of the loop."""
        return list(self.ends.results(arrays, self.last_results, self.parts, self.picked, self.done))
