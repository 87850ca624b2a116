"""Native scans: vectors of neighbouring lines advance along the axis.

y[k] = f(... f(f(first, x[0]), x[1]) ..., x[k])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ovjit.codegen.cpu.ir import body_of
from ovjit.codegen.function import kernel, spaced
from ovjit.codegen.words import *
from ovjit.planning.fuse import Group
from ovjit.planning.launch import launch_or_copy
from ovjit.planning.lower import AsInput, Lowering
from ovjit.planning.plan import NotNative, Planner
from ovjit.planning.views import View
from ovjit_ops.indexing.cpu_gather import known_axis


@kernel(over="... lanes/VL", x="... n", y="... n")
def scan(x: Tensor, y: Tensor, exclusive, *, T, combine, first):
    """y[k] combines x[0] ... x[k] along the axis of n elements; without x[k] if `exclusive`."""
    for j, p, q in items(x, y):
        left = x.size.lanes - j
        total = const[T](first)
        for _ in range(x.size.n):
            if x.stride.lanes == SIZE[T]:
                v = loadm[T](p, left)
            else:
                v = gather[T](p, x.stride.lanes, left)
            after = applied(combine, total, v)
            out = after
            if exclusive == 1:
                out = total
            spaced(q, y.stride.lanes, out, left, T)
            total = after
            p += x.stride.n
            q += y.stride.n


class Scan(AsInput):
    """Inputs: data, and the axis as a constant. Attributes: exclusive, reverse."""

    def __init__(self, group: Group, combine: Callable[[Any, Any], Any], first: float | int):
        self.combine, self.first = combine, first
        super().__init__(group)

    def set_up(self) -> None:
        self.data, axis = self.node.inputs
        if not self.data.shape:
            raise NotNative
        dtype = self.out.dtype
        self.axis = known_axis(axis, len(self.data.shape))
        name = f"{self.node.op.name.lower()}_{dtype}"
        self.kernel = scan.kernel(name, T=dtype, combine=body_of(self.combine, 2, dtype), first=self.first)

    def plan(self, planner: Planner) -> None:
        n, attrs = planner.shape(self.data)[self.axis], self.node.attrs

        def seen(view: View) -> View:
            return view.slice(self.axis, n - 1, n, -1) if attrs["reverse"] else view

        launch_or_copy(
            planner, self.kernel, {"x": self.data}, {"y": self.out}, seen,
            axes={"n": self.axis}, work=n * 64, exclusive=int(attrs["exclusive"]),
        )  # fmt: skip


def lower_scan(
    combine: Callable[[Any, Any], Any], first: Callable[[str], float | int]
) -> Callable[[Group], Lowering | None]:
    """A record's `lower`. `combine` takes two traced numbers; `first` gives the initial value for an element
    type."""
    return lambda group: Scan(group, combine, first(group.last.outputs[0].dtype))
