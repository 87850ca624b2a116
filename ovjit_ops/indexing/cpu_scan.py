"""Native scans: vectors of neighbouring lines advance along the axis.

y[k] = f(... f(f(first, x[0]), x[1]) ..., x[k])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ovjit.codegen.cpu.ir import body_of
from ovjit.codegen.kernel_language import *
from ovjit.codegen.transpose import transpose, transpose_words
from ovjit.planning.by_kernel import launch_or_copy
from ovjit.planning.lower import AsInput, Group, Lowering, NotNative, Planner, View, product, try_launch
from ovjit_ops.indexing.cpu_gather import known_axis


@inline
def scan_lines(x, y, p, q, count, exclusive, single, first, *, T, combine):
    """Scan `count` neighbouring lines, or a `single` one."""
    total = const[T](first)
    source = p
    target = q
    for _ in range(x.size.n):
        if single:
            v = splat[T](source)
        elif x.stride.lanes == SIZE[T]:
            v = loadm[T](source, count)
        else:
            v = gather[T](source, x.stride.lanes, count)
        after = applied(combine, total, v)
        out = after
        if exclusive == 1:
            out = total
        if single:
            st[T](target, lane[T](out, 0))
        else:
            spaced(target, y.stride.lanes, out, count, T)
        total = after
        source += x.stride.n
        target += y.stride.n


@kernel(over="... lanes/VL", x="... n", y="... n")
def scan(x: Tensor, y: Tensor, exclusive, *, T, combine, first):
    """y[k] combines x[0] ... x[k] along the axis of n elements; without x[k] if `exclusive`."""
    for j, p, q in items(x, y):
        count = x.size.lanes - j
        if count == 1:  # parts of vectors are stored in up to 12 cycles, a single lane in one
            scan_lines(x, y, p, q, count, exclusive, True, first)
        else:
            scan_lines(x, y, p, q, count, exclusive, False, first)


@kernel(over="... lanes/VL", x="... n:1", y="... n:1")
def scan_rows(x: Tensor, y: Tensor, exclusive, *, T, combine, first):
    """`scan` of lines with adjacent elements of 4 bytes. Squares of VL lines and VL elements are transposed
    to scratch memory and back: to gather and scatter them takes five cycles an element."""
    for j, p, q in items(x, y):
        lines = x.size.lanes - j
        total = const[T](first)
        for k in range(0, x.size.n, VL):
            count = min(x.size.n - k, VL)
            transpose(p + k * SIZE[T], x.stride.lanes, lines, scratch, VL * SIZE[T], count)
            for i in range(count):
                at = scratch + i * VL * SIZE[T]
                after = applied(combine, total, load[T](at))
                out = after
                if exclusive == 1:
                    out = total
                store[T](at, out)
                total = after
            transpose(scratch, VL * SIZE[T], count, q + k * SIZE[T], y.stride.lanes, lines)


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
        kinds: dict[str, Any] = {"T": dtype, "combine": body_of(self.combine, 2, dtype), "first": self.first}
        self.kernel, self.by_rows = scan.kernel(name, **kinds), None
        # the last axis has adjacent elements, unless the scan is reversed
        if SIZE[dtype] == 4 and self.axis == len(self.data.shape) - 1 > 0 and not self.node.attrs["reverse"]:
            self.by_rows = scan_rows.kernel(f"{name}_rows", transpose_words, "transpose i32", **kinds)
            self.kernels = self.by_strides = (self.kernel, self.by_rows)

    def plan(self, planner: Planner) -> None:
        n, attrs = planner.shape(self.data)[self.axis], self.node.attrs
        options: dict[str, Any] = {"axes": {"n": self.axis}, "exclusive": int(attrs["exclusive"])}
        if self.by_rows is not None and self._many_lines(planner):
            views = {"x": planner.view(self.data), "y": planner.output(self.out)}
            planner.need_scratch(self.target.lanes**2 * views["y"].itemsize)
            if try_launch(planner, self.by_rows, views, ("y",), work=n * 16, **options):
                return

        def orient(view: View) -> View:
            return view.slice(self.axis, n - 1, n, -1) if attrs["reverse"] else view

        launch_or_copy(
            planner, self.kernel, {"x": self.data}, {"y": self.out}, orient, work=n * 64, **options
        )  # fmt: skip

    def _many_lines(self, planner: Planner) -> bool:
        """Whether there are as many lines as lanes: fewer are faster by gathers."""
        return product(planner.shape(self.data)[: self.axis]) >= self.target.lanes


def lower_scan(
    combine: Callable[[Any, Any], Any], first: Callable[[str], float | int]
) -> Callable[[Group], Lowering | None]:
    """A record's `lower`. `combine` takes two traced numbers; `first` gives the initial value for an element
    type."""
    return lambda group: Scan(group, combine, first(group.last.outputs[0].dtype))
