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
from ovjit.planning.lower import AsInput, Group, Lowering, NotNative, Planner, product, try_launch
from ovjit_ops.indexing.cpu_gather import known_axis


@inline
def scan_line(source, target, n, exclusive, reverse, first, *, T, combine):
    """Scan a line of n adjacent elements of 2 bytes. They are converted in vectors, in scratch memory: to
    convert one by one takes three times as long."""
    total = const[T](first)
    for k in range(0, n, VL):
        count = min(n - k, VL)
        begin = (k + reverse * (n - 2 * k - count)) * SIZE[T]
        store[f32](scratch, loadm[T](source + begin, count))
        for i in range(count):
            at = scratch + (i + reverse * (count - 1 - 2 * i)) * 4
            after = applied(combine, total, splat[f32](at))
            out = after
            if exclusive == 1:
                out = total
            st[f32](at, lane[f32](out, 0))
            total = after
        storem[T](target + begin, load[f32](scratch), count)


@inline
def scan_lines(x, y, p, q, count, exclusive, reverse, single, first, *, T, combine):
    """Scan `count` neighbouring lines, or a `single` one."""
    total = const[T](first)
    source = x.at(p, n=reverse * (x.size.n - 1))
    target = y.at(q, n=reverse * (x.size.n - 1))
    x_step = x.stride.n * (1 - 2 * reverse)
    y_step = y.stride.n * (1 - 2 * reverse)
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
            store_spaced(target, y.stride.lanes, out, count, T)
        total = after
        source += x_step
        target += y_step


@kernel(over="... lanes/VL", x="... n", y="... n")
def scan(x: Tensor, y: Tensor, exclusive, reverse, *, T, combine, first):
    """y[k] combines x[0] ... x[k] along the axis of n elements; without x[k] if `exclusive`; from the end if
    `reverse`."""
    for j, p, q in items(x, y):
        count = x.size.lanes - j
        # parts of vectors are stored in up to 12 cycles, a single lane in one
        if count == 1 or x.stride.n == SIZE[T]:
            for i in range(min(count, VL)):
                if T in ("f16", "bf16") and x.stride.n == SIZE[T] and y.stride.n == SIZE[T]:
                    scan_line(x.at(p, lanes=i), y.at(q, lanes=i), x.size.n, exclusive, reverse, first)
                else:
                    scan_lines(x, y, x.at(p, lanes=i), y.at(q, lanes=i), 1, exclusive, reverse, True, first)
        else:
            scan_lines(x, y, p, q, count, exclusive, reverse, False, first)


@kernel(over="... lanes/VL", x="... n:1", y="... n:1")
def scan_rows(x: Tensor, y: Tensor, exclusive, reverse, *, T, combine, first):
    """`scan` of lines with adjacent elements of 4 bytes, from the end if `reverse`. Squares of VL lines and
    VL elements are transposed to scratch memory and back: to gather and scatter them takes five cycles an
    element."""
    for j, p, q in items(x, y):
        lines = x.size.lanes - j
        total = const[T](first)
        for k in range(0, x.size.n, VL):
            count = min(x.size.n - k, VL)
            begin = (k + reverse * (x.size.n - 2 * k - count)) * SIZE[T]
            transpose(p + begin, x.stride.lanes, lines, scratch, VL * SIZE[T], count)
            for i in range(count):
                at = scratch + (i + reverse * (count - 1 - 2 * i)) * VL * SIZE[T]
                after = applied(combine, total, load[T](at))
                out = after
                if exclusive == 1:
                    out = total
                store[T](at, out)
                total = after
            transpose(scratch, VL * SIZE[T], count, q + begin, y.stride.lanes, lines)


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
        if SIZE[dtype] == 4 and self.axis == len(self.data.shape) - 1 > 0:
            self.by_rows = scan_rows.kernel(f"{name}_rows", transpose_words, "transpose i32", **kinds)
            self.kernels = self.by_strides = (self.kernel, self.by_rows)

    def plan(self, planner: Planner) -> None:
        n, attrs = planner.shape(self.data)[self.axis], self.node.attrs
        options: dict[str, Any] = {name: int(attrs[name]) for name in ("exclusive", "reverse")}
        options["axes"] = {"n": self.axis}
        # fewer lines than lanes are faster one by one
        lines = product(planner.shape(self.data)[: self.axis])
        if self.by_rows is not None and lines >= self.target.lanes:
            views = {"x": planner.view(self.data), "y": planner.output(self.out)}
            planner.need_scratch(self.target.lanes**2 * views["y"].itemsize)
            if try_launch(planner, self.by_rows, views, ("y",), work=n * 16, **options):
                return
        planner.need_scratch(self.target.lanes * 4)
        launch_or_copy(planner, self.kernel, {"x": self.data}, {"y": self.out}, work=n * 64, **options)


def lower_scan(
    combine: Callable[[Any, Any], Any], first: Callable[[str], float | int]
) -> Callable[[Group], Lowering | None]:
    """A record's `lower`. `combine` takes two traced numbers; `first` gives the initial value for an element
    type."""
    return lambda group: Scan(group, combine, first(group.last.outputs[0].dtype))
