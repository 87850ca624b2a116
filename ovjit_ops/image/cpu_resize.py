"""Native resizing: one kernel resamples two axes at once, a row of the output at a time.

    row[i]  = sum over t of wv[j, t] * x[vs[j] + t, i]         all of an input row, into scratch, in f32
    y[j, o] = sum over t of wh[o, t] * row[hs[o] + t * step]

Vertical first: rows of the input are shorter than those of an output that grows. Where a row's elements are
adjacent (planar data, or few adjacent channels, which are then part of the row), vectors go along the row:
the inputs of one vector of outputs lie within a vector where the data grows (a permutation), else they are
gathered. Where many channels are adjacent, vectors go along the channels. Nearest needs no sums and moves
elements of any type. More than two axes are done one after the other.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Host, Lowering
from ovjit.compiler.plan import Planner, ceil_div, split
from ovjit.compiler.views import Layout, View, merge_dims, product
from ovjit.errors import InferenceError, ModelError
from ovjit.graph.graph import Value
from ovjit_ops.image.resampling import ROUNDING, Table, given, repeats, settings, tables

_BITS = {1: "u8", 2: "i16", 4: "i32", 8: "i64"}
_OUTER = 3
#: Ways through the horizontal pass.
VERTICAL, PERMUTED, GATHERED, CHANNELS = range(4)
_LOOPS = "oh x_v y_v runs run_len x_run y_run ow x_h y_h c tv th step columns way items per_chunk".split()


def _frame() -> Frame:
    frame = Frame().pointers("x", "y", "vs", "vw", "hs", "hw", "rel").integers(*_LOOPS)
    for d in range(_OUTER):
        frame.integers(f"d{d}", f"x_{d}", f"y_{d}")
    return frame


def _rows(frame: Frame) -> str:
    """The loop over rows: `p` and `q` are the addresses of its input (from the first tap on) and output."""
    return f"""@njit(nogil=True)
def kernel(bases, args, chunk, scratch):
{frame.prologue()}
    item = chunk * per_chunk
    stop = imin(item + per_chunk, items)
    while item < stop:
        j = item % oh
        rest = item // oh
        i2 = rest % d2
        rest = rest // d2
        i1 = rest % d1
        i0 = rest // d1
        p = x + i0 * x_0 + i1 * x_1 + i2 * x_2 + (ld_i32(vs + j * 4) + 0) * x_v
        q = y + i0 * y_0 + i1 * y_1 + i2 * y_2 + j * y_v
"""


@functools.cache
def nearest_kernel(bits: str) -> Kernel:
    """Elements moved as they are."""
    size = SIZE[bits]
    frame = _frame()
    if size == 4:
        row = """
        elif way == 1:
            k = 0
            while k < ow:
                first = ld_i32(hs + k * 4) + 0
                v = loadm_i32(p + first * 4, columns - first)
                storem_i32(q + k * 4, permute_i32(v, load_i32(rel + k * 4)), ow - k)
                k += VL
        elif way == 2:
            k = 0
            while k < ow:
                storem_i32(q + k * 4, take_i32(p, load_i32(hs + k * 4)), ow - k)
                k += VL"""
    else:
        row = f"""
        elif way == 2:
            k = 0
            while k < ow:
                st_{bits}(q + k * {size}, ld_{bits}(p + (ld_i32(hs + k * 4) + 0) * {size}))
                k += 1"""
    source = f"""{_rows(frame)}
        if way == 0:
            r = 0
            while r < runs:
                i = 0
                while i < run_len:
                    left = run_len - i
                    v = loadm_{bits}(p + r * x_run + i * {size}, left)
                    storem_{bits}(q + r * y_run + i * {size}, v, left)
                    i += VL
                r += 1{row}
        else:
            o = 0
            while o < ow:
                s = p + (ld_i32(hs + o * 4) + 0) * x_h
                k = 0
                while k < c:
                    storem_{bits}(q + o * y_h + k * {size}, loadm_{bits}(s + k * {size}, c - k), c - k)
                    k += VL
                o += 1
        item += 1
    return 0
"""
    return Kernel(f"resize_nearest_{bits}", source, frame)


@functools.cache
def resize_kernel(dtype: str, rounded: bool) -> Kernel:
    """Weighted sums in f32 of elements of `dtype`; integers are rounded or cut off."""
    size = SIZE[dtype]
    frame = _frame()
    half = dtype in ("f16", "bf16")
    wide = "%s" if half or dtype == "f32" else "cast_f32(%s)"
    if half or dtype == "f32":
        narrow = "%s"
    else:
        narrow = f"cast_{dtype}(rint(%s))" if rounded else f"cast_{dtype}(%s)"

    def load(address: str) -> str:
        return wide % f"loadm_{dtype}({address}, left)"

    def store(address: str, value: str, left: str) -> str:
        return f"storem_{dtype}({address}, {narrow % value}, {left})"

    source = f"""{_rows(frame)}
        weights = vw + j * tv * 4
        w0 = splat_f32(weights)
        w1 = splat_f32(weights + imin(tv - 1, 1) * 4)
        r = 0
        while r < runs:
            i = 0
            row = scratch + r * run_len * 4
            while i < run_len:
                left = run_len - i
                a = p + r * x_run + i * {size}
                v = {load("a")}
                if tv == 2:
                    v = fma({load("a + x_v")}, w1, mul(v, w0))
                elif tv > 2:
                    v = mul(v, w0)
                    t = 1
                    while t < tv:
                        a += x_v
                        v = fma({load("a")}, splat_f32(weights + t * 4), v)
                        t += 1
                if way == 0:
                    {store(f"q + r * y_run + i * {size}", "v", "left")}
                else:
                    store_f32(row + i * 4, v)
                i += VL
            r += 1
        if way == 1:
            k = 0
            while k < ow:
                s = scratch + (ld_i32(hs + k * 4) + 0) * 4
                places = load_i32(rel + k * 4)
                w = hw + k * 4
                v = mul(permute_f32(load_f32(s), places), load_f32(w))
                t = 1
                while t < th:
                    s += step * 4
                    w += columns * 4
                    v = fma(permute_f32(load_f32(s), places), load_f32(w), v)
                    t += 1
                {store(f"q + k * {size}", "v", "ow - k")}
                k += VL
        elif way == 2:
            k = 0
            while k < ow:
                s = scratch
                places = load_i32(hs + k * 4)
                w = hw + k * 4
                v = mul(take_f32(s, places), load_f32(w))
                t = 1
                while t < th:
                    s += step * 4
                    w += columns * 4
                    v = fma(take_f32(s, places), load_f32(w), v)
                    t += 1
                {store(f"q + k * {size}", "v", "ow - k")}
                k += VL
        elif way == 3:
            o = 0
            while o < ow:
                s = scratch + (ld_i32(hs + o * 4) + 0) * c * 4
                w = hw + o * th * 4
                w0 = splat_f32(w)
                w1 = splat_f32(w + imin(th - 1, 1) * 4)
                k = 0
                while k < c:
                    v = mul(load_f32(s + k * 4), w0)
                    if th == 2:
                        v = fma(load_f32(s + (c + k) * 4), w1, v)
                    else:
                        t = 1
                        while t < th:
                            v = fma(load_f32(s + (t * c + k) * 4), splat_f32(w + t * 4), v)
                            t += 1
                    {store(f"q + o * y_h + k * {size}", "v", "c - k")}
                    k += VL
                o += 1
        item += 1
    return 0
"""
    return Kernel(f"resize_{dtype}{'_rounded' if rounded else ''}", source, frame)


class Axis(NamedTuple):
    """An axis that is resampled."""

    axis: int
    table: Table


def adjacent_axis(view: View) -> int:
    """The dimension whose elements are adjacent; the last one where there is none (all are 1)."""
    found = [a for a, d in enumerate(view.shape) if d > 1 and view.strides[a] == view.itemsize]
    return found[0] if found else len(view.shape) - 1


def plan_resize(
    planner: Planner,
    kernel: Kernel,
    x: View,
    y: View,
    inner: int,
    vertical: Axis | None,
    horizontal: Axis | None,
    nearest: bool,
) -> None:
    """Add the steps that resample one or two axes. The elements of x and y along `inner` are adjacent.

    `horizontal` may be `inner` itself; without one, `vertical` is another axis.
    """
    if not y.count:
        return
    size, lanes = x.itemsize, host_isa().lanes
    taken = {inner} | {a.axis for a in (vertical, horizontal) if a is not None}
    rest = [a for a in range(len(x.shape)) if a not in taken]
    values: dict[str, Any] = dict.fromkeys(("ow", "c", "columns", "x_h", "y_h", "y_run", "x_run"), 0)
    values |= {"step": 1, "th": 1, "way": VERTICAL, "runs": 1, "run_len": x.shape[inner]}
    empty = np.zeros(2 * lanes, np.int32)
    tables = {"hs": empty, "hw": np.zeros(1, np.float32), "rel": empty}
    if horizontal is None:
        beside = [a for a in rest if x.shape[a] > 1]
        if beside:
            run = min(beside, key=lambda a: abs(x.strides[a]))
            rest.remove(run)
            values |= {"runs": x.shape[run], "x_run": x.strides[run], "y_run": y.strides[run]}
            adjacent = x.shape[inner] * size
            if (x.strides[run], y.strides[run]) == (adjacent, adjacent):
                values |= {"runs": 1, "run_len": x.shape[run] * x.shape[inner]}
    else:
        tables |= _horizontal(values, x, y, inner, horizontal, lanes, nearest)
    if vertical is None:
        tables |= {"vs": np.zeros(1, np.int32), "vw": np.ones(1, np.float32)}
        values |= {"oh": 1, "x_v": 0, "y_v": 0, "tv": 1}
    else:
        axis, table = vertical
        tables |= {"vs": table.start.astype(np.int32), "vw": table.weight.astype(np.float32)}
        values |= {"oh": len(table.start), "x_v": x.strides[axis], "y_v": y.strides[axis], "tv": table.taps}
    order = sorted(rest, key=lambda a: (-abs(y.strides[a]), a))
    extents, (xs, ys) = merge_dims(
        [y.shape[a] for a in order], [[v.strides[a] for a in order] for v in (x, y)]
    )
    if len(extents) > _OUTER:
        axis = next(a for a in order if y.shape[a] != 1)
        for i in range(y.shape[axis]):
            a, b = x.slice(axis, i, 1), y.slice(axis, i, 1)
            plan_resize(planner, kernel, a, b, inner, vertical, horizontal, nearest)
        return
    missing = _OUTER - len(extents)
    for d in range(_OUTER):
        row = (1, 0, 0) if d < missing else (extents[d - missing], xs[d - missing], ys[d - missing])
        values |= dict(zip((f"d{d}", f"x_{d}", f"y_{d}"), row, strict=True))
    values |= {name: planner.data.view(array, "i32").ptr for name, array in tables.items()}
    elements = values["runs"] * values["run_len"]
    work = elements * values["tv"] + values["ow"] * max(values["c"], 1) * values["th"] * 2
    items = product(extents) * values["oh"]
    per_chunk = split(items, 2 * work)
    values |= {"x": x.ptr, "y": y.ptr, "items": items, "per_chunk": per_chunk}
    if not nearest:
        planner.need_scratch((elements + (values["step"] * values["th"] + 4) * lanes) * 4)
    planner.step(kernel, values, ceil_div(items, per_chunk), [x], [y], 2 * work * items)


def _horizontal(
    values: dict[str, Any], x: View, y: View, inner: int, horizontal: Axis, lanes: int, nearest: bool
) -> dict[str, np.ndarray]:
    """Sets the values of the horizontal pass; its tables."""
    axis, table = horizontal
    size = x.itemsize
    c = 1 if axis == inner else x.shape[inner]
    x_h, y_h = (size, size) if axis == inner else (x.strides[axis], y.strides[axis])
    width, outputs = x.shape[axis], len(table.start)
    values |= {"runs": width, "run_len": c, "x_run": x_h, "x_h": x_h, "y_h": y_h, "ow": outputs, "c": c}
    if x_h == c * size:
        values |= {"runs": 1, "run_len": width * c}
    flat = c < lanes and y_h == c * size and x_h == c * size
    if not flat:
        values |= {"way": CHANNELS, "th": table.taps}
        return {"hs": table.start.astype(np.int32), "hw": table.weight.astype(np.float32)}
    start = (table.start[:, None] * c + np.arange(c)).reshape(-1)
    n = ceil_div(len(start), lanes) * lanes
    first, relative, near = _places(start, n, lanes)
    near = near and not (nearest and size != 4)
    weight = np.zeros((table.taps, n), np.float32)
    weight[:, : len(start)] = np.repeat(table.weight, c, 0).T
    values |= {
        "ow": len(start),
        "c": 1,
        "step": c,
        "th": table.taps,
        "way": PERMUTED if near else GATHERED,
        "columns": width * c if nearest else n,
    }
    return {"hs": first if near else _padded(start, n), "hw": weight, "rel": relative}


def _padded(start: np.ndarray, n: int) -> np.ndarray:
    out = np.zeros(n, np.int32)
    out[: len(start)] = start
    return out


def _places(start: np.ndarray, n: int, lanes: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """(smallest start of each output's block of lanes, starts from there, whether they fit a vector)"""
    blocks = np.full(n, np.iinfo(np.int32).max, np.int64)
    blocks[: len(start)] = start
    low = blocks.reshape(-1, lanes).min(1, keepdims=True)
    relative = np.where(
        blocks.reshape(-1, lanes) < np.iinfo(np.int32).max, blocks.reshape(-1, lanes) - low, 0
    )
    fits = bool(relative.max(initial=0) < lanes)
    first = np.broadcast_to(low, relative.shape).reshape(-1).astype(np.int32)
    return first, relative.reshape(-1).astype(np.int32), fits


def plan_resample(
    planner: Planner,
    kernel: Kernel,
    x: View,
    y: View,
    inner: int,
    tables: Mapping[int, Table],
    nearest: bool,
    one_by_one: bool = False,
) -> None:
    """Add the steps that resample any axes of `x` into `y`, two at a time; or the last axis first, each
    rounded to elements of the type (`one_by_one`)."""
    left = [Axis(a, t) for a, t in tables.items()]
    if one_by_one:
        left.sort(key=lambda a: -a.axis)
    else:  # what shrinks most goes first
        left.sort(key=lambda a: (len(a.table.start) / max(x.shape[a.axis], 1), -abs(x.strides[a.axis])))
    while len(left) > (1 if one_by_one else 2):
        one = left[0] if one_by_one else next(a for a in left if a.axis != inner)
        left.remove(one)
        shape = list(x.shape)
        shape[one.axis] = len(one.table.start)
        order = sorted(range(len(shape)), key=lambda a: (a == inner, -abs(x.strides[a]), a))
        between = planner.allocate(shape, x.itemsize, Layout(order))
        _plan_axis(planner, kernel, x, between, inner, one, nearest)
        x = between
    left.sort(key=lambda a: (a.axis != inner, abs(x.strides[a.axis])))
    if len(left) == 1:
        _plan_axis(planner, kernel, x, y, inner, left[0], nearest)
    else:
        plan_resize(planner, kernel, x, y, inner, left[1], left[0], nearest)


def _plan_axis(
    planner: Planner, kernel: Kernel, x: View, y: View, inner: int, one: Axis, nearest: bool
) -> None:
    vertical, horizontal = (None, one) if one.axis == inner else (one, None)
    plan_resize(planner, kernel, x, y, inner, vertical, horizontal, nearest)


class Resize(Lowering):
    """Interpolate-4 and -11 without padding."""

    def __init__(self, group: Group):
        super().__init__(group)
        self.node = group.last
        self.data, self.out = self.node.inputs[0], self.node.output
        self.nearest = self.node.attrs["mode"].lower() == "nearest"
        self.kernel = lowering_kernel(self.node.attrs["mode"].lower(), self.data.dtype)
        self.kernels = (self.kernel,)

    def prefers(self, layouts: dict[Value, Layout]) -> Layout | None:
        """As the input lies."""
        layout = layouts.get(self.data)
        return None if layout is None else Layout(layout.order)

    def _goal(self, planner: Planner) -> tuple[Any, Any, Any, dict[str, Any]] | None:
        """Sizes or scales, the axes, and the settings; None where a size is not known while planning."""
        attrs = settings(self.node.attrs, self.node.op.opset)
        by_size = attrs["shape_calculation_mode"] == "sizes"
        inputs = self.node.inputs
        four = self.node.op.opset == 4
        which = inputs[(1 if by_size else 2) if four else 1]
        axes = inputs[3 if four else 2] if len(inputs) > (3 if four else 2) else None
        known = planner.types[which].value
        places = None if axes is None else planner.types[axes].value
        if known is None or (axes is not None and places is None):
            return None
        return (*given(attrs, known, known), places, attrs)

    def _tables(self, x: View, goal: tuple[Any, Any, Any, dict[str, Any]]) -> Mapping[int, Table]:
        try:
            return tables(x.shape, *goal)
        except InferenceError as error:
            raise ModelError(str(error)) from error

    def plan(self, planner: Planner) -> None:
        x = planner.view(self.data)
        goal = self._goal(planner)
        # of open shapes: tables are for one size, and worth a little more speed where that stays
        times = repeats(x.shape, *goal) if goal is not None and planner.open else None
        if times and adjacent_axis(x) not in times:
            self._repeat(planner, x, times)
            return
        found = None if goal is None else self._tables(x, goal)
        mode = self.node.attrs["mode"].lower()
        one_by_one = mode.endswith("pillow") and self.data.dtype != "f32"
        if found is None or (len(found) > 2 and not (self.nearest or one_by_one) and x.itemsize != 4):
            Host(self.group).plan(planner)
            return
        if not found:
            planner.alias_or_copy(self.out, x)
            return
        inner = adjacent_axis(x)
        if x.count and x.shape[inner] > 1 and x.strides[inner] != x.itemsize:
            x = planner.contiguous(self.data)
            inner = adjacent_axis(x)
        y = planner.channels_last_output(self.out, inner)
        plan_resample(planner, self.kernel, x, y, inner, found, self.nearest, one_by_one)


    def _repeat(self, planner: Planner, x: View, times: Mapping[int, int]) -> None:
        """Each element as often as `times` says along its axes: a copy of a view with strides of 0."""
        y = planner.channels_last_output(self.out, adjacent_axis(x))
        shape, read, written = [], [], []
        for axis, (d, a, b) in enumerate(zip(x.shape, x.strides, y.strides, strict=True)):
            n = times.get(axis, 1)
            shape += [d, n]
            read += [a, 0]
            written += [b * n, b]
        source = View(x.buffer, shape, read, x.itemsize, x.offset)
        planner.copy_step(source, View(y.buffer, shape, written, y.itemsize, y.offset))


def lowering_kernel(mode: str, dtype: str) -> Kernel:
    """The kernel that resizes elements of this type."""
    if mode == "nearest":
        return nearest_kernel(_BITS[SIZE[dtype]])
    return resize_kernel(dtype, mode in ROUNDING and dtype not in ("f32", "f16", "bf16"))


#: Element types whose sums are made in f32.
SUMMED = frozenset("f32 f16 bf16 u8 i8 u16 i16".split())


def lower_interpolate(group: Group) -> Lowering | None:
    """Native but for sums of f64 and of integers of 32 bits and more."""
    node = group.last
    if node.attrs["mode"].lower() != "nearest" and node.inputs[0].dtype not in SUMMED:
        return None
    if any(node.attrs["pads_begin"]) or any(node.attrs["pads_end"]):
        return None  # of unknown rank, else it would have been expanded
    return Resize(group)
