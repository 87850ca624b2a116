"""Native Softmax and LogSoftmax: maximum, exponentials with their sum, scale.

Few rows, and contiguous rows of at least two vectors, are computed one by one. Others are computed side by
side, with one row per lane.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen import trace as t
from ovjit.codegen.cpu.ir import body_of
from ovjit.codegen.function import DIMS
from ovjit.codegen.kernel_language import *
from ovjit.codegen.template import Template, rows
from ovjit.graph.dtypes import FULL, numpy_dtype
from ovjit.graph.graph import Value
from ovjit.graph.shapes import is_static
from ovjit.planning.lower import Group, Lowering, try_launch
from ovjit.planning.plan import Planner, in_place_candidates
from ovjit.planning.row_kernels import RowLowering
from ovjit.planning.views import Layout, View, merge_axes, product


@rows("n")
def softmax(x, y, n, *, keep, normal):
    """y = exp(x - max(x)) / sum(exp(x - max(x))). `keep`: y stores the exponentials in between.

    Results below `normal`, the smallest normal number, are flushed to 0. CPUs take about 150 cycles for a
    vector with a subnormal result, and for each operation that reads it.
    """
    top = splat(-inf)
    for i in vectors(n):
        top = maximum(top, load(x, i))
    top = splat(hmax(top))
    total = splat(0.0)
    for i in vectors(n):
        e = exp_below_zero(load(x, i) - top)
        if keep:
            store(y, i, e)
        total = total + e
    total = splat(hadd(total))
    scale = 1.0 / total
    least = total * normal
    for i in vectors(n):
        if keep:
            finish(y, i, not_below(load(y, i), least) * scale)
        else:
            finish(y, i, not_below(exp_below_zero(load(x, i) - top), least) * scale)


@rows("n")
def log_softmax(x, y, n):
    """y = x - max(x) - log(sum(exp(x - max(x))))"""
    top = splat(-inf)
    for i in vectors(n):
        top = maximum(top, load(x, i))
    top = splat(hmax(top))
    total = splat(0.0)
    for i in vectors(n):
        total = total + exp_below_zero(load(x, i) - top)
    size = log(splat(hadd(total)))
    for i in vectors(n):
        # two subtractions: the sum of a large maximum and the logarithm would lose the logarithm
        finish(y, i, load(x, i) - top - size)


@inline
def side_by_side(p, step, count, way, *, T):
    """One element of each of `count` rows, `step` bytes apart. `way`: "near" for VL adjacent elements, "last"
    for fewer, else a gather."""
    return (
        load[T](p) if way == "near"
        else loadm[T](p, count) if way == "last"
        else gather[T](p, step, count)
    )  # fmt: skip


@inline
def softmax_block(
    p, q, n, x_n, y_n, x_w, y_w, count, top, total, size, way, abreast, logarithm, exp, log, normal,
    *, T,
):  # fmt: skip
    """`softmax` or `log_softmax` of `abreast` vectors of rows, of which `count` rows exist. Scratch memory
    keeps the exponentials."""
    for v in static_range(abreast):
        top[v] = const[T](-inf)
        total[v] = const[T](0.0)
    at = p
    for _ in range(n):
        for v in static_range(abreast):
            top[v] = maximum(top[v], side_by_side(at + v * VL * x_w, x_w, count - v * VL, way))
        at += x_n
    at = p
    e = scratch
    for _ in range(n):
        for v in static_range(abreast):
            below = side_by_side(at + v * VL * x_w, x_w, count - v * VL, way) - top[v]
            weight = applied(exp, below)
            total[v] = total[v] + weight
            if not logarithm:
                store[T](e + v * VL * SIZE[T], weight)
        at += x_n
        e += abreast * VL * SIZE[T]
    for v in static_range(abreast):
        if logarithm:
            weight_sum = total[v]
            size[v] = applied(log, weight_sum)
        else:
            size[v] = const[T](1.0) / total[v]
            total[v] = total[v] * const[T](normal)
    at = p
    e = scratch
    to = q
    for _ in range(n):
        for v in static_range(abreast):
            if logarithm:
                done = side_by_side(at + v * VL * x_w, x_w, count - v * VL, way) - top[v] - size[v]
            else:
                weight = load[T](e + v * VL * SIZE[T])
                done = select(weight < total[v], const[T](0.0), weight) * size[v]
            if way == "near":
                store[T](to + v * VL * SIZE[T], done)
            elif way == "last":
                storem[T](to + v * VL * SIZE[T], done, count - v * VL)
            else:
                scatter[T](to + v * VL * y_w, y_w, done, count - v * VL)
        at += x_n
        to += y_n
        e += abreast * VL * SIZE[T]


#: Vectors of rows that are computed at once.
ABREAST = 4


def softmax_beside(x: Tensor, y: Tensor, *, T, near, logarithm, exp, log, normal):
    """`softmax` or `log_softmax` of rows of n elements, one row per lane."""
    top, total, size = registers()
    for first, p, q in items(x, y):
        count = x.size.lanes - first
        if count >= ABREAST * VL:
            softmax_block(
                p, q, x.size.n, x.stride.n, y.stride.n, x.stride.lanes, y.stride.lanes, count, top, total,
                size, "near" if near else "apart", ABREAST, logarithm, exp, log, normal,
            )  # fmt: skip
        else:
            for at in range(0, count, VL):
                softmax_block(
                    p + at * x.stride.lanes, q + at * y.stride.lanes, x.size.n, x.stride.n, y.stride.n,
                    x.stride.lanes, y.stride.lanes, count - at, top, total, size, "last" if near else "apart",
                    1, logarithm, exp, log, normal,
                )  # fmt: skip


#: near (rows are adjacent) -> kernel
BESIDE = {
    near: kernel(over=f"... lanes/{ABREAST}VL{':1' * near}", x="... n", y="... n")(softmax_beside)
    for near in (True, False)
}
#: Rows with fewer vectors are short: horizontal sums would take as long as the rest.
SHORT = 2
#: Maximum elements of a row whose exponentials fit into scratch memory.
MOST = 4096


class Softmax(RowLowering):
    work = 20.0

    def __init__(self, group: Group, template: Template, axis: int, **constants: Any):
        super().__init__(group, template, (axis,), **constants)
        data = group.node.inputs[0]
        self.beside: list[Kernel] = []
        plainly = data.dtype == self.out.dtype and not (group.body or group.prologue)
        # a dynamic number of rows does not decide: it must be the same in traces
        others = [extent for a, extent in enumerate(data.shape) if a != axis]
        too_few = is_static(others) and product(others) < self.target.lanes
        if plainly and not too_few:
            functions = {"exp": t.exp_below_zero, "log": t.log}
            bodies = {name: body_of(function, dtype=data.dtype) for name, function in functions.items()}
            normal = float(np.finfo(numpy_dtype(data.dtype)).smallest_normal)
            how: dict[str, Any] = {
                "T": data.dtype,
                "logarithm": template is log_softmax,
                "normal": normal,
                **bodies,
            }
            for near, beside in BESIDE.items():
                name = f"{template.function.__name__}_{data.dtype}_{'beside' if near else 'apart'}"
                self.beside.append(beside.kernel(name, near=near, **how))
            self.kernels = (self.kernel, *self.beside)
            if isinstance(data.shape[axis], int):
                self.by_strides = self.kernels

    def plan(self, planner: Planner) -> None:
        if not self.beside or not self._plan_beside(planner):
            super().plan(planner)

    def _plan_beside(self, planner: Planner) -> bool:
        """Plan rows side by side. Returns False if they are faster one by one."""
        x, lanes = planner.view(self.data), self.target.lanes
        (axis,) = self.axes
        n, block = x.shape[axis], ABREAST * lanes
        if (x.strides[axis] == x.itemsize and n >= SHORT * lanes) or n > MOST:
            return False
        order = sorted(range(len(x.shape)), key=lambda a: (-abs(x.strides[a]), a))
        others = [a for a in order if a != axis]
        if len(merge_axes(others, (x,), DIMS + 1)[0]) > DIMS + 1:
            return False
        y = planner.output(self.out, Layout(order), in_place_candidates([x], []))
        if not y.count:
            return True
        planner.need_scratch(n * block * x.itemsize)

        def try_output(y: View) -> bool:
            work, tensors = n * block * self.work, {"x": x, "y": y}
            how: dict[str, Any] = {"axes": {"n": axis}, "work": work, "flops": self.work * y.count}
            return any(try_launch(planner, kernel, tensors, ("y",), **how) for kernel in self.beside)

        done = try_output(y) or try_output(planner.instead(y, Layout(order)))
        assert done
        return True


def _suits_lanes(data: Value, axis: int, lanes: int) -> bool:
    """Whether rows are short, or lie along another dimension than the last, and are many enough to be
    computed side by side."""
    n, shape = data.shape[axis], data.shape
    others = [extent for a, extent in enumerate(shape) if a != axis]
    enough = not is_static(others) or product(others) >= lanes
    longest = MOST if axis < len(shape) - 1 else SHORT * lanes - 1
    return enough and isinstance(n, int) and n <= longest


def lower_softmax(group: Group) -> Lowering | None:
    """The lowering for f32 and f64 with at least one dimension, else None. Also None for what should not be
    fused."""
    anchor = group.node
    data = anchor.inputs[0]
    if data.dtype not in FULL or not data.shape:
        return None
    axis = int(anchor.attrs["axis"]) % len(data.shape)
    if (group.prologue or group.body) and _suits_lanes(data, axis, group.context.target.lanes):
        return None  # rows side by side, and steps of their own for what is fused, are up to 7 times as fast
    if anchor.op.name == "LogSoftmax":
        return Softmax(group, log_softmax, axis)
    normal = float(np.finfo(numpy_dtype(data.dtype)).smallest_normal)
    return Softmax(group, softmax, axis, keep=group.last.output.dtype == data.dtype, normal=normal)
