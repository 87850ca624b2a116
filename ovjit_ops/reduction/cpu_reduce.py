"""Native reductions: one kernel for each way the innermost dimension lies.

    "keep"    the contiguous dimension is kept: a vector of outputs, summed over all reduced positions
    "reduce"  the contiguous dimension is reduced: one output, lanes summed in a fixed order at the end

Outer kept and reduced dimensions (up to three of each, after merging) are walked by strides. Where many rows
become one, parts of them are reduced first, and then these: a thread reads the rows that it has just written.
By channels, each of two threads took the other's rows into its cache too, and what wrote over them next, as
the scaling behind squeeze and excitation does, took up to five times as long.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.function import DIMS, inline, kernel, spaced
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.words import *
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import NotNative, Planner, ceil_div
from ovjit.compiler.races import Piece, Rows
from ovjit.compiler.views import View, merge_axes, merge_dims, placed_values, plain, product
from ovjit.graph.dtypes import ELEMENT_TYPES, numpy_dtype
from ovjit.graph.shapes import is_static
from ovjit.graph.traced import least, most


class Reduction(NamedTuple):
    """How lanes are combined, with which neutral element, and what is done before and after."""

    combine: str
    first: float
    before: str = ""
    after: str = ""
    empty: float | str = ""  # what nothing gives where that is another number


def reductions(name: str, dtype: str) -> Reduction | None:
    """How to reduce `dtype`, None where the reference does it."""
    kind = ELEMENT_TYPES[dtype].kind
    if kind == "b":
        logic = {"ReduceLogicalAnd": Reduction("and", True), "ReduceLogicalOr": Reduction("or", False)}
        return logic.get(name)
    bits = SIZE[dtype] * 8
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if kind == "i" else (0, (1 << bits) - 1)
    table = {
        "ReduceSum": Reduction("add", 0),
        "ReduceProd": Reduction("mul", 1),
        "ReduceMax": Reduction("max", low),
        "ReduceMin": Reduction("min", high),
        "ReduceL1": Reduction("add", 0, "absolute"),
    }
    if kind == "f":
        # of halves, which the reference reduces in f32, the lowest f32 is -inf
        most = float(np.finfo(numpy_dtype(dtype)).max) if SIZE[dtype] > 2 else np.inf
        table["ReduceMax"] = Reduction("max", -np.inf, empty=-most)
        table["ReduceMin"] = Reduction("min", np.inf, empty=most)
        table["ReduceMean"] = Reduction("add", 0, after="mean")
        table["ReduceL2"] = Reduction("add", 0, "square", "root")
    return table.get(name)


#: So many numbers are added one after the other, and so many of these sums, and all of those: what a sum of
#: reals loses grows with the length of its chain.
BLOCK = 256

#: Vectors of a kept contiguous dimension that are reduced together.
WIDE = 4

#: In how many parts rows are reduced that become one, at most, and how many bytes make a part.
PARTS, PART_BYTES = 8, 32768


@inline
def wide(v, T, R):
    """Elements of type T as R."""
    return v if T == R else cast[f32](v)


@inline
def combined(a, b, how):
    if how == "add":
        both = a + b
    elif how == "mul":
        both = a * b
    elif how == "max":
        both = maximum(a, b)
    elif how == "min":
        both = minimum(a, b)
    elif how == "and":
        both = a & b
    else:
        both = a | b
    return both


@inline
def taken(acc, v, how):
    """acc combined with v, or with its square or its size."""
    if how.before == "square":
        both = fma(v, v, acc)
    else:
        both = combined(acc, absolute(v) if how.before == "absolute" else v, how.combine)
    return both


@inline
def across(v, how, T):
    """The lanes combined, in all lanes."""
    if how == "add":
        one = hadd[T](v)
    elif how == "mul":
        one = hmul[T](v)
    elif how == "max":
        one = hmax[T](v)
    elif how == "min":
        one = hmin[T](v)
    elif how == "and":
        one = hand[T](v)
    else:
        one = hor[T](v)
    return spread[T](one)


@inline
def rows_combined(acc, p, start, stop, step, left, T, R, how):
    """acc with the vectors at p, `step` bytes from one to the next, from number `start` on to `stop`."""
    total = acc
    q = p + start * step
    for _ in range(start, stop):
        v = wide(loadm[T](q, left), T, R)
        total = taken(total, v, how)
        q += step
    return total


@inline
def row_combined(acc, p, start, stop, T, R, how):
    """acc with the adjacent elements at p from number `start` on to `stop`, whole vectors of them."""
    total = acc
    for j in range(start, stop, VL):
        v = wide(load[T](p + j * SIZE[T]), T, R)
        total = taken(total, v, how)
    return total


@inline
def finished(acc, total, number, R, how):
    """What the combined elements, `total` of them, give."""
    made = acc
    if how.empty != "" and total == 0:
        made = const[R](how.empty)
    if how.after == "mean":
        made = made / number
    elif how.after == "root":
        made = sqrt(made)
    return made


@kernel
def reduce_wide(
    x: Ptr, y: Ptr, n, y_inner, total, run, x_run, r0, x_r0, r1, x_r1, r2, x_r2, parts, per, y_part, items,
    per_chunk, *, T, R, out, how,
):  # fmt: skip
    """`reduce` where the contiguous dimension is kept, WIDE vectors of it at a time: what is adjacent is
    fetched together. No long sums."""
    number = const[R](max(total, 1))
    acc = registers()
    blocks = (n + WIDE * VL - 1) // (WIDE * VL)
    for item in share(items, per_chunk):
        i = (item % blocks) * (WIDE * VL)
        part = item // blocks % parts
        source, target = placed(item // blocks // parts, x, y)
        begin = part * per
        end = min(begin + per, run)
        for u in static_range(WIDE):
            acc[u] = const[R](how.first)
        for b0 in range(r0):
            for b1 in range(r1):
                for b2 in range(r2):
                    p = source + b0 * x_r0 + b1 * x_r1 + b2 * x_r2 + i * SIZE[T] + begin * x_run
                    for _ in range(begin, end):
                        for u in static_range(WIDE):
                            v = wide(loadm[T](p + u * VL * SIZE[T], n - i - u * VL), T, R)
                            acc[u] = taken(acc[u], v, how)
                        p += x_run
        for u in static_range(WIDE):
            if i + u * VL < n:
                v = finished(acc[u], total, number, R, how)
                spaced(target + part * y_part + (i + u * VL) * y_inner, y_inner, v, n - i - u * VL, out)


@kernel
def reduce(
    x: Ptr, y: Ptr, n, y_inner, total, run, x_run, r0, x_r0, r1, x_r1, r2, x_r2, parts, per, y_part, items,
    per_chunk, *, T, R, out, how, keep, long,
):  # fmt: skip
    """An item is an output row: a vector of outputs where the contiguous dimension is kept, of which `run`
    rows are combined, `per` of them for each of `parts` outputs, or one output where it is reduced, of `run`
    adjacent elements; and so along the other reduced dimensions r0 .. r2. T, R, out: element types of x, of
    sums and of y; halves are added in f32. `long`: sums may be of more than BLOCK numbers."""
    number = const[R](max(total, 1))
    first = const[R](how.first)
    blocks = (n + VL - 1) // VL
    block = BLOCK * (1 if keep else VL)
    begin = 0
    end = run if keep else run // VL * VL
    for item in share(items, per_chunk):
        i = 0
        row = item
        if keep:
            i = (item % blocks) * VL
            part = item // blocks % parts
            row = item // blocks // parts
            begin = part * per
            end = min(begin + per, run)
        source, target = placed(row, x, y)
        if keep:
            target += part * y_part
        acc = first
        if long:
            some = first
            many = first
            added = 0
            sums = 0
        for b0 in range(r0):
            for b1 in range(r1):
                for b2 in range(r2):
                    p = source + b0 * x_r0 + b1 * x_r1 + b2 * x_r2 + i * SIZE[T]
                    for start in range(begin, end, block) if long else (0,):
                        stop = min(start + block, end) if long else end
                        if keep:
                            at = start if long else begin
                            acc = rows_combined(acc, p, at, stop, x_run, n - i, T, R, how)
                        else:
                            acc = row_combined(acc, p, start, stop, T, R, how)
                        if long:
                            added += stop - start
                            if added >= block:
                                some = some + acc
                                acc = first
                                added = 0
                                sums += 1
                                if sums % BLOCK == 0:
                                    many = many + some
                                    some = first
                    if not keep and end < run:  # lanes behind the row keep their value
                        v = wide(loadm[T](p + end * SIZE[T], run - end), T, R)
                        v = taken(acc, v, how)
                        acc = blend[R](run - end, v, acc)
        if long and sums > 0:
            acc = many + (some + acc)
        if not keep:
            acc = across(acc, how.combine, R)
        acc = finished(acc, total, number, R, how)
        if keep:
            spaced(target + i * y_inner, y_inner, acc, n - i, out)
        else:
            storem[out](target, acc, 1)


def sum_type(dtype: str, out: str) -> str:
    """The element type in which `dtype` is reduced to `out`: bytes to f32 in f32, all others in their own."""
    return "f32" if dtype in ("u8", "i8") and out == "f32" else dtype


@functools.cache
def reduce_kernel(name: str, inner: str, dtype: str, out: str, short: bool = False) -> Kernel:
    """`short`: no more than BLOCK elements are combined."""
    inside = sum_type(dtype, out)
    how = reductions(name, inside)
    assert how is not None
    sums = how.combine == "add" and ELEMENT_TYPES[inside].kind == "f"
    long = sums and not short
    kind = dtype if out == dtype else f"{dtype}_{out}"
    label = f"{name.lower()}_{inner}_{kind}{'' if long or not sums else '_short'}"
    if inner == "wide":
        return reduce_wide.kernel(label, T=dtype, R=inside, out=out, how=how)
    return reduce.kernel(label, T=dtype, R=inside, out=out, how=how, keep=inner == "keep", long=long)


class Walk(NamedTuple):
    """What is reduced for a row of the output, or an element: see the kernel."""

    inner: str
    n: int
    run: int
    x_run: int
    red: Sequence[int]
    rx: Sequence[int]


class Reduce(Lowering):
    """One reduction over axes that are known."""

    def set_up(self) -> None:
        self.data, axes = self.node.inputs
        inside = sum_type(self.data.dtype, self.out.dtype)
        how = reductions(self.node.op.name, inside)
        if axes.type.value is None or how is None:
            raise NotNative
        rank = len(self.data.shape)
        self.axes = sorted({int(a) % rank for a in axes.type.value.reshape(-1)}) if rank else []
        name, types = self.node.op.name, (self.data.dtype, self.out.dtype)
        extents = [self.data.shape[a] for a in self.axes]
        count = product(extents) if is_static(extents) else None
        short = count is not None and count <= BLOCK
        long = how.combine == "add" and ELEMENT_TYPES[inside].kind == "f" and not short
        kinds = ("keep", "reduce") if long else ("keep", "reduce", "wide")
        self.by_kind = {inner: reduce_kernel(name, inner, *types, short) for inner in kinds}
        self.kernels = self.by_strides = tuple(self.by_kind.values())
        #: Not in parts, each by the kernel that reduces all: what is done before would be done twice.
        self.whole = {*types, inside} != {inside} or name == "ReduceL2"

    def plan(self, planner: Planner) -> None:
        out_shape = planner.shape(self.out)
        y = planner.output(self.out, plain(len(out_shape)))
        if self._plan(planner, planner.view(self.data), y):
            return
        # no dimension is contiguous, or there are too many: copied once, it may do
        if not self._plan(planner, planner.contiguous(self.data), y):
            planner.host_step(self.node, [planner.contiguous(v) for v in self.node.inputs], [y])

    def _plan(self, planner: Planner, x: View, y: View) -> bool:
        """False when `x` does not lie so that a kernel can walk it."""
        if not y.count:
            return True
        rank = len(x.shape)
        keep_axes = [a for a in range(rank) if a not in self.axes]
        # y with the reduced axes put back
        if self.node.attrs.get("keep_dims"):
            y_strides = list(y.strides)
        else:
            y_strides = [0] * rank
            for position, axis in enumerate(keep_axes):
                y_strides[axis] = y.strides[position]
        total = product([x.shape[a] for a in self.axes])
        order = sorted(range(rank), key=lambda a: (-abs(x.strides[a]), a))
        kept, (kx, ky) = merge_dims(
            [x.shape[a] for a in order if a not in self.axes],
            [[s[a] for a in order if a not in self.axes] for s in (x.strides, y_strides)],
            DIMS,
        )
        red, (rx,) = merge_axes([a for a in order if a in self.axes], [x])
        size = x.itemsize
        if kx and kx[-1] == size and (not rx or rx[-1] != size):
            inner, n, y_inner = "keep", kept.pop(), ky.pop()
            kx.pop()
        elif rx and rx[-1] == size:
            inner, n, y_inner = "reduce", red.pop(), 0
            rx.pop()
        elif not red and not kept:
            inner, n, y_inner = "reduce", 1, 0
        else:
            return False
        if len(kept) > DIMS or len(red) > DIMS:
            return False
        walk = Walk(inner, n, *((n, 0) if inner == "reduce" else (1, 0)), red, rx)
        if inner == "keep" and red:
            walk = Walk(inner, n, red[-1], rx[-1], red[:-1], rx[:-1])
        parts = self._parts(kept, walk, size)
        # plans of all shapes have both steps, though there may be one part: they are those of one trace
        if parts is not None and (not is_static(self.data.shape) or parts > 1):
            per = most(1, ceil_div(walk.run, parts))
            parts = most(1, ceil_div(walk.run, per))
            middle = planner.allocate((*kept, parts, n), size)
            *kp, y_part, _ = middle.strides
            self._step(planner, walk, x, kx, middle, (kept, kp, size), 1, (parts, per, y_part))
            walk, x, kx = Walk(inner, n, parts, y_part, [], []), middle, kp
        self._step(planner, walk, x, kx, y, (kept, ky, y_inner), total)
        return True

    def _parts(self, kept: Sequence[int], walk: Walk, size: int) -> int | None:
        """In how many parts rows are reduced, None where they can't be."""
        if self.whole or walk.inner != "keep" or walk.red:
            return None
        most_parts = PARTS // least(PARTS, most(1, product(kept)))
        return most(1, least(most_parts, walk.run, walk.run * walk.n * size // PART_BYTES))

    def _step(
        self,
        planner: Planner,
        walk: Walk,
        x: View,
        kx: Sequence[int],
        y: View,
        kept: tuple[Sequence[int], Sequence[int], int],
        total: int,
        shares: tuple[int, int, int] | None = None,
    ) -> None:
        """Add the step. `kept`: outer kept dimensions, y's strides along them, and along the innermost;
        `shares`: parts, rows of one, and y's stride from one to the next."""
        extents, ky, y_inner = kept
        parts, per, y_part = shares or (1, walk.run, 0)
        n, lanes, kind = walk.n, host_isa().lanes, walk.inner
        if kind == "keep" and "wide" in self.by_kind and n >= WIDE * lanes:
            kind, lanes = "wide", WIDE * lanes
        values = {"x": x.ptr, "y": y.ptr, "n": n, "y_inner": y_inner, "total": total}
        values |= {"run": walk.run, "x_run": walk.x_run, **placed_values(extents, x=kx, y=ky)}
        values |= {"parts": parts, "per": per, "y_part": y_part}
        red, rx = ([f] * (DIMS - len(v)) + list(v) for f, v in ((1, walk.red), (0, walk.rx)))
        for d in range(DIMS):
            values |= {f"r{d}": red[d], f"x_r{d}": rx[d]}
        blocks = ceil_div(n, lanes)
        items, work = product(extents), product(walk.red) * n
        if walk.inner == "keep":
            items, work = items * parts * blocks, product(walk.red) * per * lanes
        values["items"] = items

        def touches(each: int) -> Rows:
            if walk.inner != "keep":
                return Rows(extents, each, (), [Piece(y.ptr, ky, (), (), y.itemsize)])
            return Rows(  # an item is a vector of the innermost dimension; the last one may be short
                (*extents, parts, n), each, (), [Piece(y.ptr, (*ky, y_part, y_inner), (), (), y.itemsize)],
                lambda item: item // blocks * n + min(item % blocks * lanes, n),
            )  # fmt: skip

        planner.share_step(self.by_kind[kind], values, items, work * 2, [x], [y], x.count, touches)
