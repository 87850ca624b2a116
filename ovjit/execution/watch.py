"""Every step beside its NumPy reference: for `ovjit.tools.compare`, and `OVJIT_COMPARE=1`.

A watched program has the same kernels, layouts and memory plan as any other. In addition, its plans list the
step after which each group is complete (`Plan.probes`). A `WatchedJob` stops there, runs the group's nodes by
their references on the actual results of the previous steps, and reports the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError
from ovjit.execution.blocks import Arena
from ovjit.execution.job import Job
from ovjit.execution.table import Table
from ovjit.graph.graph import Node, Value
from ovjit.graph.interp import evaluate_node
from ovjit.records import NamedTuple

#: Maximum difference of a step from its reference, relative to the output's largest value. Integers: equal.
LIMITS = {"f64": 1e-9, "f32": 1e-4, "f16": 1e-2, "bf16": 5e-2}


class Difference(NamedTuple):
    """One value of the program compared with its reference.

    `error`: the largest difference relative to the reference's largest finite value; infinite if only one of
    both is NaN or infinite. `at`: its index, with the elements `got` and `want`. `total`: the error against
    the reference of the whole model up to this value, so that it has the errors of all previous steps; NaN if
    it was not requested.
    """

    name: str
    type: str
    kernel: str
    dtype: str
    shape: tuple[int, ...]
    error: float
    at: tuple[int, ...] = ()
    got: Any = None
    want: Any = None
    total: float = math.nan

    @property
    def limit(self) -> float:
        return LIMITS.get(self.dtype, 0.0)


class WatchedJob(Job):
    """A job that calls its executable's `watch(value, difference)` for each value that steps compute."""

    __slots__ = ("_next", "values")

    def _stops(self, table: Table) -> Sequence[int]:
        probes = table.plan.probes or ()
        return sorted({*table.host, *(end for end, _, _ in probes), len(table.plan.steps)})

    def _run_segments(self, arena: Arena) -> None:
        self._next = 0
        #: The actual elements of the values between groups.
        self.values: dict[Value, np.ndarray] = {}
        for value, array in zip(self.executable.program.graph.inputs, self.inputs, strict=True):
            assert array is not None
            self.values[value] = array
        super()._run_segments(arena)

    def _observe(self, done: int) -> None:
        assert self._table is not None
        plan = self._table.plan
        probes = plan.probes or []
        while self._next < len(probes) and probes[self._next][0] <= done:
            end, group, views = probes[self._next]
            first = probes[self._next - 1][0] if self._next else 0
            steps = plan.steps[first:end]
            self._next += 1
            kernels = [s.kernel.name if s.kernel is not None else "ref_numpy" for s in steps]
            expected = self._reference(group.nodes, plan.types)
            for value, view in views:
                self.values[value] = got = np.array(self._array(value, view))
                if expected is not None and self.executable.watch is not None:
                    error, at = largest_error(got, expected[value])
                    here = got.size and got.shape == expected[value].shape
                    numbers = (got[at], expected[value][at]) if here else (None, None)
                    kernel = kernels[-1] if kernels else "a view"
                    kind = group.node.op.name
                    worst = Difference(group.name, kind, kernel, value.dtype, got.shape, error, at, *numbers)
                    self.executable.watch(value, worst)

    def _reference(self, nodes: Sequence[Node], types: Mapping[Value, Any]) -> dict[Value, np.ndarray] | None:
        """The results of the nodes' references on the actual inputs. None for nodes with state."""
        result: dict[Value, np.ndarray] = {}

        def find_value(value: Value) -> np.ndarray:
            for values in (result, self.values):
                if value in values:
                    return values[value]
            if types[value].value is not None:
                return types[value].value
            # no step has written it: its reader reads the source of a deferred value
            run(value.node)
            return result[value]

        def run(node: Node) -> None:
            outputs = evaluate_node(node, [find_value(v) for v in node.inputs])
            result.update(zip(node.outputs, outputs, strict=True))

        for node in nodes:
            if node.op.ref is None or node.op.stateful:
                return None
            run(node)
        return result


def largest_error(got: np.ndarray, want: np.ndarray) -> tuple[float, tuple[int, ...]]:
    """The largest difference in parts of `want`'s largest finite value, and where it is."""
    if got.shape != want.shape:
        return math.inf, (0,) * got.ndim
    if got.size == 0:
        return 0.0, ()
    if got.dtype.kind in "biu":
        a, b = got.astype(object), want.astype(object)
        off = np.array(abs(a - b), np.float64)
        scale = float(max(1, np.abs(b).max()))
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            a, b = got.astype(np.float64), want.astype(np.float64)
            equal = (a == b) | (np.isnan(a) & np.isnan(b))
            off = np.where(equal, 0.0, np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), math.inf))
        finite = np.abs(b[np.isfinite(b)])
        scale = float(finite.max(initial=0.0)) or 1.0
    at = tuple(int(i) for i in np.unravel_index(int(off.argmax()), off.shape))
    return float(off[at]) / scale, at


def stop_at_difference(value: Value, worst: Difference) -> None:
    """The watch of OVJIT_COMPARE=1. Raises InferenceError at the first step that is off beyond its limit."""
    if worst.error > worst.limit:
        raise InferenceError(
            f"step {worst.name!r} ({worst.type}, {worst.kernel}) differs from its reference by "
            f"{worst.error:.3g} of the largest value (limit {worst.limit:g}): at {list(worst.at)} it is "
            f"{worst.got}, the reference is {worst.want}"
        )
