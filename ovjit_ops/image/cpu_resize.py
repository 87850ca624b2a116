"""Native resizing: one kernel resamples two axes at once, a row of the output at a time.

    row[i]  = sum over t of wv[j, t] * x[vs[j] + t, i]         a full input row, into scratch, in f32
    y[j, o] = sum over t of wh[o, t] * row[hs[o] + t * step]

The vertical pass comes first: for a larger output, rows of the input are shorter. If a row's elements are
adjacent (planar data, or few adjacent channels, which are then part of the row), vectors span the row. For a
larger output, the inputs of a vector of outputs are within one vector, which is permuted; otherwise they are
gathered. If many channels are adjacent, vectors span channels. "nearest" needs no sums, and moves elements of
any type. More than two axes take further passes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.codegen.kernel_language import *
from ovjit.errors import InferenceError, ModelError
from ovjit.graph.shapes import is_static
from ovjit.planning.copies import MOVED
from ovjit.planning.lower import AsInput, Group, Layout, Lowering, NotNative, Planner, View, launch, product
from ovjit.records import NamedTuple
from ovjit_ops.image.cpu_resize_tables import HEAD, Tables, filter_table, nearest_table, spread_table
from ovjit_ops.image.resampling import Resized, find_resizes, repeats, sizes_or_scales
from ovjit_ops.image.resampling import Table as Taps
from ovjit_ops.image.weighted_sums import table_of

#: Horizontal passes: none; lanes are outputs; lanes are channels of an output.
VERTICAL, LANES, CHANNELS = range(3)
#: Whether the inputs of a vector of outputs are within one vector.
GATHERED, PERMUTED = range(2)
FLOATS = ("f32", "f16", "bf16")


@inline
def load_f32(p, T, valid):
    """Load elements as f32."""
    return loadm[T](p, valid) if T in FLOATS else cast[f32](loadm[T](p, valid))


@inline
def store_rounded(q, v, valid, T):
    if T in FLOATS:
        storem[T](q, v, valid)
    else:
        storem[T](q, cast[T](rint(v)), valid)


@inline
def pick_lanes(p, indices, way):
    return permute[f32](load[f32](p), indices) if way == PERMUTED else take[f32](p, indices)


@inline
def drop_unweighted(v, w):
    """Elements that have a weight, and 0 for those of weight 0, whose NaN or infinity does not count."""
    return select(w == const[f32](0.0), const[f32](0.0), v)


@inline
def weigh_pixels(q, p, w, taps, c, T):
    """Store the c channels of an output pixel: the weighted sum of `taps` pixels at p. Addresses are
    incremented, which needs fewer registers."""
    w0 = splat[f32](w)
    w1 = splat[f32](w + min(taps - 1, 1) * 4)
    to = q
    first = p
    second = p + c * 4
    remaining = c
    while remaining > 0:
        v = drop_unweighted(load[f32](first), w0) * w0
        if taps == 2:
            v = fma(drop_unweighted(load[f32](second), w1), w1, v)
        else:
            for t in range(1, taps):
                wt = splat[f32](w + t * 4)
                v = fma(drop_unweighted(load[f32](first + t * c * 4), wt), wt, v)
        store_rounded(to, v, remaining, T)
        first += VL * 4
        second += VL * 4
        to += VL * SIZE[T]
        remaining -= VL


#: Axes of x and y. `i` and `k` are runs of adjacent elements: a full row, or a pixel's channels.
_LINES = {"x": "... in_row in_run i:1", "y": "... row run k:1"}
_TABLES = dict.fromkeys(("vs", "vw", "hs", "hw", "rel"), "")


class Across(NamedTuple):
    """The horizontal pass: its kind, elements between weighted inputs, elements of a row of weights, channels
    of a pixel."""

    way: int
    step: int
    columns: int
    c: int


@kernel(over="... row", **_LINES, **_TABLES, across=Across)
def resize_nearest(
    x: Tensor, y: Tensor, vs: Tensor, vw: Tensor, hs: Tensor, hw: Tensor, rel: Tensor, across, *, T
):
    """Copy the elements of mode "nearest". Tables: see `resize`."""
    near = ld[i32](hs + 4) + 0
    n = y.size.k
    for j, p, q in items(x, y):
        p += (ld[i32](vs + (HEAD + j) * 4) + 0) * x.stride.in_row
        if across.way == VERTICAL:
            for r in range(y.size.run):
                for i in range(0, n, VL):
                    v = loadm[T](x.at(p, in_run=r) + i * SIZE[T], n - i)
                    storem[T](y.at(q, run=r) + i * SIZE[T], v, n - i)
        elif SIZE[T] == 4 and across.way == LANES and near != 0:
            for k in range(0, n, VL):
                first = ld[i32](hs + (HEAD + k) * 4) + 0
                v = loadm[i32](p + first * 4, x.size.i - first)
                storem[i32](q + k * 4, permute[i32](v, load[i32](rel + k * 4)), n - k)
        elif across.way == LANES:
            for k in range(n):
                st[T](q + k * SIZE[T], ld[T](p + (ld[i32](hs + (HEAD + k) * 4) + 0) * SIZE[T]))
        else:
            for o in range(y.size.run):
                s = p + (ld[i32](hs + (HEAD + o) * 4) + 0) * x.stride.in_run
                for k in range(0, across.c, VL):
                    v = loadm[T](s + k * SIZE[T], across.c - k)
                    storem[T](y.at(q, run=o) + k * SIZE[T], v, across.c - k)


@kernel(over="... row", **_LINES, **_TABLES, across=Across)
def resize(x: Tensor, y: Tensor, vs: Tensor, vw: Tensor, hs: Tensor, hw: Tensor, rel: Tensor, across, *, T):
    """Store weighted sums in f32; integer results are rounded. `vs`, `hs`: the index of the first term of
    each sum along the vertical and the horizontal axis, after HEAD numbers, the first of which is the number
    of terms. `vw`, `hw`: weights. `rel`: indices relative to the first one of a vector."""
    tv = ld[i32](vs) + 0
    th = ld[i32](hs) + 0
    near = ld[i32](hs + 4) + 0
    n = y.size.k
    for j, p, q in items(x, y):
        p += (ld[i32](vs + (HEAD + j) * 4) + 0) * x.stride.in_row
        weights = vw + j * tv * 4
        w0 = splat[f32](weights)
        w1 = splat[f32](weights + min(tv - 1, 1) * 4)
        both = tv == 2 and lane[f32](w0, 0) != 0.0 and lane[f32](w1, 0) != 0.0
        for r in range(x.size.in_run):
            for i in range(0, x.size.i, VL):
                valid = x.size.i - i
                a = x.at(p, in_run=r) + i * SIZE[T]
                v = load_f32(a, T, valid)
                if both:
                    v = fma(load_f32(a + x.stride.in_row, T, valid), w1, v * w0)
                else:  # of one tap, too: a row that nothing counts for is 0
                    v = drop_unweighted(v, w0) * w0
                    for t in range(1, tv):
                        a += x.stride.in_row
                        wt = splat[f32](weights + t * 4)
                        v = fma(drop_unweighted(load_f32(a, T, valid), wt), wt, v)
                if across.way == VERTICAL:
                    store_rounded(y.at(q, run=r) + i * SIZE[T], v, valid, T)
                else:
                    store[f32](scratch + (r * x.size.i + i) * 4, v)
        for along in (PERMUTED, GATHERED):
            if across.way == LANES and near == along:
                for k in range(0, n, VL):
                    s = scratch
                    if along == PERMUTED:
                        s += (ld[i32](hs + (HEAD + k) * 4) + 0) * 4
                    indices = load[i32]((rel if along == PERMUTED else hs + HEAD * 4) + k * 4)
                    w = hw + k * 4
                    wt = load[f32](w)
                    v = drop_unweighted(pick_lanes(s, indices, along), wt) * wt
                    for _t in range(1, th):
                        s += across.step * 4
                        w += across.columns * 4
                        wt = load[f32](w)
                        v = fma(drop_unweighted(pick_lanes(s, indices, along), wt), wt, v)
                    store_rounded(q + k * SIZE[T], v, n - k, T)
        if across.way == CHANNELS:
            for o in range(y.size.run):
                s = scratch + (ld[i32](hs + (HEAD + o) * 4) + 0) * across.c * 4
                w = hw + o * th * 4
                to = y.at(q, run=o)
                weigh_pixels(to, s, w, th, across.c, T)


class Axis(NamedTuple):
    """A resampled axis."""

    axis: int
    resized: Resized


def adjacent_axis(view: View) -> int:
    """The contiguous dimension; the last one if there is none."""
    adjacent = [a for a, d in enumerate(view.shape) if view.strides[a] == view.itemsize and d > 1]
    return adjacent[0] if adjacent else len(view.shape) - 1


def _lines(view: View, others: Sequence[int], row: int | None, run: int | None, inner: int) -> View:
    """The view with the dimensions `others`, `row`, `run` and `inner`. None: a dimension of 1."""
    axes = [*others, row, run, inner]
    shape = [1 if a is None else view.shape[a] for a in axes]
    strides = [0 if a is None else view.strides[a] for a in axes]
    return view.as_strided(shape, strides)


def _joins(lines: View) -> bool:
    """Whether the elements of all runs are adjacent."""
    *_, runs, n = lines.shape
    return lines.strides[-2] == n * lines.itemsize or runs == 1


def _merge_runs(lines: View) -> View:
    """The view with all runs merged into one; requires `_joins`."""
    *shape, runs, n = lines.shape
    steps = (*lines.strides[:-2], 0, lines.itemsize)
    return lines.as_strided((*shape, 1, runs * n), steps)


def plan_resize(
    planner: Planner,
    kernel: Kernel,
    x: View,
    y: View,
    inner: int,
    vertical: Axis | None,
    horizontal: Axis | None,
    tables: Tables,
) -> None:
    """Add the steps that resample one or two axes. The elements of x and y along `inner` are adjacent.

    `horizontal` may be `inner` itself; without one, `vertical` is another axis.
    """
    if not y.count:
        return
    lanes = planner.target.lanes
    row = None if vertical is None else vertical.axis
    run = None if horizontal is None or horizontal.axis == inner else horizontal.axis
    others = [a for a in range(len(x.shape)) if a not in (row, run, inner)]
    if horizontal is None:
        beside = [a for a in others if x.shape[a] > 1]
        if beside:
            run = min(beside, key=lambda a: abs(x.strides[a]))
            others.remove(run)
    source, target = (_lines(view, others, row, run, inner) for view in (x, y))
    down = tables.none() if vertical is None else tables.of(*vertical)
    along, within, across = down, down.starts, Across(VERTICAL, 1, 0, 0)
    contiguous = _joins(source)
    if horizontal is None:
        if contiguous and _joins(target):
            source, target = _merge_runs(source), _merge_runs(target)
    else:
        axis, one = horizontal
        c = 1 if run is None else x.shape[inner]
        if c < lanes and contiguous and _joins(target):
            source, target = _merge_runs(source), _merge_runs(target)
            along, within, n = tables.across(axis, one, c, x.itemsize)
            across = Across(LANES, c, n, 0)
        else:
            if contiguous and not tables.nearest:
                source = _merge_runs(source)
            along = tables.of(axis, one)
            within, across = along.starts, Across(CHANNELS, 1, 0, c)
    elements = source.shape[-2] * source.shape[-1]
    outputs = 0 if horizontal is None else target.shape[-2] * target.shape[-1]
    work = elements * down.taps + outputs * along.taps * 2
    if not tables.nearest:
        planner.need_scratch((elements + (across.step * along.taps + 4) * lanes) * 4)
    views = {"vs": down.starts, "vw": down.weights, "hs": along.starts, "hw": along.weights, "rel": within}
    views |= {"x": source, "y": target}
    items = product(target.shape[:-2])
    launch(planner, kernel, views, ("y",), work=2 * work, flops=2 * work * items, across=across)


def plan_resample(
    planner: Planner,
    kernel: Kernel,
    x: View,
    y: View,
    inner: int,
    resizes: Mapping[int, Resized],
    tables: Tables,
    one_by_one: bool = False,
) -> None:
    """Add the steps that resample any axes of `x` into `y`, two at a time; or the last axis first, each
    rounded to elements of the type (`one_by_one`)."""
    pending = [Axis(a, one) for a, one in resizes.items()]
    if one_by_one:
        pending.sort(key=lambda a: -a.axis)
    elif len(pending) > 2:  # the axis that shrinks most comes first
        pending.sort(key=functools.cmp_to_key(functools.partial(_goes_behind, x)))
    while len(pending) > (1 if one_by_one else 2):
        one = pending[0] if one_by_one else next(a for a in pending if a.axis != inner)
        pending.remove(one)
        shape = list(x.shape)
        shape[one.axis] = one.resized.outputs
        order = sorted(range(len(shape)), key=lambda a: (a == inner, -abs(x.strides[a]), a))
        between = planner.allocate(shape, x.itemsize, Layout(order))
        _plan_axis(planner, kernel, x, between, inner, one, tables)
        x = between
    pending.sort(key=lambda a: (a.axis != inner, abs(x.strides[a.axis])))
    if len(pending) == 1:
        _plan_axis(planner, kernel, x, y, inner, pending[0], tables)
    else:
        plan_resize(planner, kernel, x, y, inner, pending[1], pending[0], tables)


def _goes_behind(x: View, a: Axis, b: Axis) -> int:
    """Comparison for sorting: 1 if axis a shrinks less than b, or equally with smaller strides; -1 if
    more."""
    less = a.resized.outputs * b.resized.extent - b.resized.outputs * a.resized.extent
    less = abs(x.strides[b.axis]) - abs(x.strides[a.axis]) if less == 0 else less
    return int(less > 0) - int(less < 0)


def _plan_axis(
    planner: Planner, kernel: Kernel, x: View, y: View, inner: int, one: Axis, tables: Tables
) -> None:
    vertical, horizontal = (None, one) if one.axis == inner else (one, None)
    plan_resize(planner, kernel, x, y, inner, vertical, horizontal, tables)


class Resize(AsInput):
    """Interpolate-4 and -11 without padding."""

    def set_up(self) -> None:
        self.data = self.node.inputs[0]
        self.nearest = self.node.attrs["mode"] == "nearest"
        dtype = self.data.dtype
        self.kernel = resize_nearest(T=MOVED[SIZE[dtype]]) if self.nearest else resize(T=dtype)
        pairs = zip(self.data.shape, self.out.shape, strict=True)
        self.open_axes = [not is_static(pair) for pair in pairs]
        self.kernels: Sequence[Kernel] = (self.kernel,)
        if any(self.open_axes):
            table = nearest_table if self.nearest else filter_table
            self.kernels = (self.kernel, table(), spread_table())
        if self.nearest and not is_static(self.data.shape):
            self.repeats = (self.out,)

    def _goal(self, planner: Planner) -> tuple[Any, Any, Any, dict[str, Any]] | None:
        """(sizes, scales, axes, attributes); None if a size is unknown at planning."""
        attrs = self.node.attrs
        by_size = attrs["shape_calculation_mode"] == "sizes"
        inputs = self.node.inputs
        four = self.node.op.opset == 4
        which = inputs[(1 if by_size else 2) if four else 1]
        axes = inputs[3 if four else 2] if len(inputs) > (3 if four else 2) else None
        values = planner.types[which].value
        dimensions = None if axes is None else planner.types[axes].value
        if values is None or (axes is not None and dimensions is None):
            return None
        return (*sizes_or_scales(attrs, values, values), dimensions, attrs)

    def _find_resizes(self, x: View, goal: tuple[Any, Any, Any, dict[str, Any]]) -> Mapping[int, Resized]:
        try:
            return find_resizes(x.shape, *goal)
        except InferenceError as error:
            raise ModelError(str(error)) from error

    def plan(self, planner: Planner) -> None:
        x = planner.view(self.data)
        goal = self._goal(planner)
        times = repeats(x.shape, *goal) if goal is not None and planner.open else None
        if times and adjacent_axis(x) not in times:
            planner.repeat(self.out, self.data, times, lambda: self._repeat(planner, times))
            return
        resizes = None if goal is None else self._find_resizes(x, goal)
        mode = self.node.attrs["mode"]
        one_by_one = mode.endswith("pillow") and self.data.dtype != "f32"
        if resizes is None or (len(resizes) > 2 and not (self.nearest or one_by_one) and x.itemsize != 4):
            raise NotNative
        if not resizes:
            planner.alias_or_copy(self.out, x)
            return
        inner = adjacent_axis(x)
        if x.count and x.shape[inner] > 1 and x.strides[inner] != x.itemsize:
            x = planner.contiguous(self.data)
            inner = adjacent_axis(x)
        y = planner.channels_last_output(self.out, inner)
        tables = Tables(planner, self.node.attrs, self.open_axes)
        plan_resample(planner, self.kernel, x, y, inner, resizes, tables, one_by_one)

    def _repeat(self, planner: Planner, times: Mapping[int, int]) -> View:
        """Repeat each element `times[axis]` times: a copy of a view with strides of 0. The result is larger
        than the input, so it is made as late as possible."""
        x = planner.view(self.data)
        y = planner.channels_last_output(self.out, adjacent_axis(x))
        planner.copy_step(x.repeat(times), y.split_axes(times), "")
        return y


class TablesOfNode(Tables):
    """The one table of a WeightedSums."""

    def __init__(self, planner: Planner, table: Taps, rank: int):
        super().__init__(planner, {"mode": "weights"}, [False] * rank)
        self._table = table

    def find_table(self, one: Resized) -> Taps:
        return self._table


class SumAlongAxis(AsInput):
    """WeightedSums, as a resize of one axis."""

    takes = (("f32",), ("i32",), ("f32",))

    def set_up(self) -> None:
        if any(v.constant is None for v in self.node.inputs[1:]):
            raise NotNative
        self.data = self.node.inputs[0]
        self.table = table_of(self.node)
        self.kernel = resize(T="f32")

    def plan(self, planner: Planner) -> None:
        x, axis = planner.view(self.data), self.node.attrs["axis"]
        inner = adjacent_axis(x)
        if x.count and x.shape[inner] > 1 and x.strides[inner] != x.itemsize:
            x = planner.contiguous(self.data)
            inner = adjacent_axis(x)
        y = planner.channels_last_output(self.out, inner)
        one = Resized(len(self.table.start), x.shape[axis], None, False)
        tables = TablesOfNode(planner, self.table, len(x.shape))
        plan_resample(planner, self.kernel, x, y, inner, {axis: one}, tables)


#: Element types whose sums are made in f32.
SUMMED = frozenset("f32 f16 bf16 u8 i8 u16 i16".split())


def lower_interpolate(group: Group) -> Lowering | None:
    """The native lowering of Interpolate; none for weighted sums of f64 and of integers with 32 bits or more,
    which run by the reference."""
    node = group.last
    if node.attrs["mode"] != "nearest" and node.inputs[0].dtype not in SUMMED:
        return None
    if any(node.attrs["pads_begin"]) or any(node.attrs["pads_end"]):
        return None  # of unknown rank, else it would have been expanded
    return Resize(group)
