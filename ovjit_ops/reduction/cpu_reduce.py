"""Native reductions: one kernel for each use of the innermost dimension.

    "keep"    the contiguous dimension is kept: a few vectors of outputs, summed over all reduced positions
    "reduce"  the contiguous dimension is reduced: one output, lanes summed in a fixed order at the end
    "short"   it is reduced and shorter than a vector: a few vectors of outputs, whose elements are strided

Outer kept and reduced dimensions (up to three of each, after merging) are walked by strides. The elementwise
prologue is computed on the way, and the epilogue is applied to the result.

A reduction of many elements to few has two steps: parts are reduced first, then the parts' results. Parts are
ranges of rows, so a thread reads the rows that it has just written. With parts by channels, each of two
threads also loaded the other's rows into its cache. The next writer of these rows, such as the scaling after
squeeze and excitation, took up to five times as long.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.elementwise import Operand
from ovjit.codegen.function import DIMS
from ovjit.codegen.kernel_language import *
from ovjit.codegen.tensors import SHARE
from ovjit.codegen.trace import WIDENED
from ovjit.graph.dtypes import ELEMENT_TYPES, numpy_dtype
from ovjit.graph.graph import Value
from ovjit.graph.shapes import is_static
from ovjit.graph.symbolic import statically_known_equal, sym_max, sym_min
from ovjit.planning.fuse import is_number
from ovjit.planning.lower import Lowering, innermost_axis, layout_of_largest, operand_mode
from ovjit.planning.plan import NotNative, Planner, ceil_div
from ovjit.planning.touches import Piece, Rows
from ovjit.planning.views import Layout, View, merge_dims, placed_values, product, row_major, row_major_layout
from ovjit.records import NamedTuple


class Reduction(NamedTuple):
    """A reduction: the combination of lanes, its neutral element, and the functions applied before and
    after."""

    combine: str
    first: float
    before: str = ""
    after: str = ""
    empty: float | str = ""  # the result for no elements, if it is not the neutral element


def reductions(name: str, dtype: str) -> Reduction | None:
    """The reduction of the operation `name` with accumulators of `dtype`. None: the reference computes it."""
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
        "ReduceMean": Reduction("add", 0, after="mean"),
    }
    if kind == "f":
        # for f16 and bf16, which the reference reduces in f32, the lowest f32 is -inf
        most = float(np.finfo(numpy_dtype(dtype)).max) if SIZE[dtype] > 2 else np.inf
        table["ReduceMax"] = Reduction("max", -np.inf, empty=-most)
        table["ReduceMin"] = Reduction("min", np.inf, empty=most)
        table["ReduceL2"] = Reduction("add", 0, "square", "root")
    return table.get(name)


#: Terms of a sum, at each of three levels: elements, sums, and sums of sums. A sum's rounding error grows
#: with the length of its chain.
BLOCK = 256

#: Vectors of a kept contiguous dimension that are reduced together: of dimensions that may be short, and of
#: others. Rows are far apart, so each of them should be read in long pieces.
NARROW, WIDE = 4, 8
#: Bytes of a cache line.
LINE = 64

#: Maximum parts into which the elements of one output are split, and minimum bytes of a part.
PARTS, PART_BYTES = 8, 32768
#: Minimum adjacent elements of a part, and rows: their results are written and read once more.
SHORTEST_PART, FEWEST_ROWS = 1024, 8
#: The same on GPUs, which run thousands of items at a time, and their number. Both steps are loops over rows:
#: their time is least if they have about as many.
GPU_PARTS, GPU_PART_BYTES, SHORTEST_GPU_PART, GPU_ITEMS = 96, 4096, 256, 2048

#: Maximum instructions per element that the unused lanes of short rows may cost in a prologue. A prologue
#: that costs more is not fused.
MOST_LOST = 8
#: Minimum instructions of a prologue that fills the CPU's out-of-order window. With such prologues, rows are
#: prefetched AHEAD rows before they are read.
SLOW, AHEAD = 8, 4

#: Maximum dimensions of a reduction with prologue or epilogue. The kernels' loops can always walk a
#: contiguous copy of so many.
MOST_FUSED = 7


@inline
def convert_to(v, T, R):
    """Convert v from type T to R."""
    return v if T == R else cast[R](v)


@inline
def combine(a, b, how):
    return (
        a + b if how == "add"
        else a * b if how == "mul"
        else maximum(a, b) if how == "max"
        else minimum(a, b) if how == "min"
        else a & b if how == "and"
        else a | b
    )  # fmt: skip


@inline
def accumulate(acc, v, how):
    """acc combined with v, v^2 or |v|, by `how.before`."""
    return (
        fma(v, v, acc) if how.before == "square"
        else combine(acc, absolute(v) if how.before == "absolute" else v, how.combine)
    )  # fmt: skip


@inline
def across(v, how, T):
    """The combination of all lanes, in each lane."""
    return spread[T](
        hadd[T](v) if how == "add"
        else hmul[T](v) if how == "mul"
        else hmax[T](v) if how == "max"
        else hmin[T](v) if how == "min"
        else hand[T](v) if how == "and"
        else hor[T](v)
    )  # fmt: skip


#: Byte strides of inputs: along the outputs of a vector ("short" only), the run, the other reduced
#: dimensions, and the outer kept ones.
_INPUTS: Any = Each("inputs", "along run r0 r1 r2 0 1 2", unless="one")
#: Byte strides of the epilogue's operands: along a kept contiguous dimension, and the outer kept ones.
_OPERANDS: Any = Each("operands", "inner 0 1 2", unless="one")


@inline
def ones(v, p, items, mode, skip):
    """Load operands with this mode into v: one element, in all lanes."""
    for k, operand in enumerate(items):
        if operand.mode == mode:
            v[k + skip] = splat[operand.dtype](p[k])


@inline
def element(v, q, x, at, count, full, *, inputs, front, T, R):
    """A vector of the elements to reduce, from element `at` on, after the prologue. `full`: all lanes; else
    the first `count` lanes. Operands of mode "w" are strided."""
    for k, operand in enumerate(inputs):
        if operand.mode == "w" and SIZE[operand.dtype] == 4:  # pairs, such as complex numbers
            if x[k, "along"] == 2 * SIZE[operand.dtype] and count > VL:  # reads an element more
                v[k] = evens[operand.dtype](q[k] + at * x[k, "along"])
            else:
                v[k] = strided[operand.dtype](q[k] + at * x[k, "along"], x[k, "along"], count)
        elif operand.mode == "w":
            v[k] = strided[operand.dtype](q[k] + at * x[k, "along"], x[k, "along"], count)
        elif operand.mode == "v" and full:
            v[k] = load[operand.dtype](q[k] + at * SIZE[operand.dtype])
        elif operand.mode == "v":
            v[k] = loadm[operand.dtype](q[k] + at * SIZE[operand.dtype], count)
    e = applied(front, *v)
    return convert_to(e, T, R)


@inline
def find_row(at, row, d1, d2):
    """Set at[0..2] to the indices of `row` along DIMS dimensions."""
    at[1] = udiv(row, d2)
    at[2] = urem(row, d2)
    at[0] = udiv(at[1], d1)
    at[1] = urem(at[1], d1)


@inline
def next_row(at, d1, d2):
    """Advance at[0..2] to the next row."""
    at[2] += 1
    if at[2] == d2:
        at[2] = 0
        at[1] += 1
        if at[1] == d1:
            at[1] = 0
            at[0] += 1


@inline
def find(p, at, x, items):
    """Set p to the operands' addresses for the indices `at`."""
    for k, operand in enumerate(items):
        if not operand.one:
            p[k] = x[k] + at[0] * x[k, 0] + at[1] * x[k, 1] + at[2] * x[k, 2]


@inline
def step_in(q, p, x, b0, b1, b2, start, i, inputs):
    """Set q to the operands' addresses of element `start` of the run at indices b0, b1, b2 of the other
    reduced dimensions, plus i elements along a contiguous dimension."""
    for k, operand in enumerate(inputs):
        if not operand.one:
            q[k] = p[k] + b0 * x[k, "r0"] + b1 * x[k, "r1"] + b2 * x[k, "r2"] + start * x[k, "run"]
            if operand.mode == "v":
                q[k] += i * SIZE[operand.dtype]
            elif operand.mode == "w":
                q[k] += i * x[k, "along"]


@inline
def step_on(q, x, inputs):
    """Advance q by one element along the run."""
    for k, operand in enumerate(inputs):
        if not operand.one:
            q[k] += x[k, "run"]


@inline
def fetch(q, x, n, *, inputs, front, vectors):
    """Prefetch rows of the run, if the prologue is too long for the CPU to reach them out of order; else what
    the next item reads of this row of n elements. Rows are pages apart, which hardware prefetchers do not
    predict."""
    for k, operand in enumerate(inputs):
        if operand.mode == "v" and len(front.lines) >= SLOW:
            for u in static_range(vectors):
                prefetch(q[k] + AHEAD * x[k, "run"] + u * VL * SIZE[operand.dtype])
        elif operand.mode == "v":
            if n > vectors * VL:
                end = 2 * vectors * VL * SIZE[operand.dtype]
                for at in range(vectors * VL * SIZE[operand.dtype], end, LINE):
                    prefetch(q[k] + at)


#: Combinations in which an element may be taken twice.
IDEMPOTENT = ("max", "min", "and", "or")


@inline
def row_combined(acc, v, q, x, start, stop, *, inputs, front, T, R, how):
    """acc combined with the adjacent elements at q from `start` to `stop`, in whole vectors. Where the bits
    do not depend on it, two vectors at a time, as each combination waits for the one before."""
    total = acc
    rest_at = start
    if how.combine in IDEMPOTENT and not front.lines:
        other = acc
        rest_at = stop - (stop - start) % (2 * VL)
        for j in range(start, rest_at, 2 * VL):
            some = element(v, q, x, j, 0, True)
            total = accumulate(total, some, how)
            some = element(v, q, x, j + VL, 0, True)
            other = accumulate(other, some, how)
        total = combine(total, other, how.combine)
    for j in range(rest_at, stop, VL):
        some = element(v, q, x, j, 0, True)
        total = accumulate(total, some, how)
    return total


@inline
def some_of(p, step, count, T):
    """A vector of `count` elements at p, `step` bytes apart."""
    if step == SIZE[T]:
        v = loadm[T](p, count)
    else:
        v = strided[T](p, step, count)
    return v


@inline
def store_values(target, step, value, i, n, w, g, e, along, *, operands, body, out):
    """Apply the epilogue to `value` and store elements i to n - 1, `step` bytes apart. `along`: the name of
    the operands' stride."""
    for k, operand in enumerate(operands):
        if not operand.one:
            w[k + 1] = some_of(g[k] + i * e[k, along], e[k, along], n - i, operand.dtype)
    result = applied(body, value, *w)
    store_spaced(target + i * step, step, result, n - i, out)


@inline
def finish_value(acc, total, number, out_type, *, R, how):
    """The result for `total` combined elements, converted to the type `out_type`."""
    result = acc
    if how.empty != "" and total == 0:
        result = const[R](how.empty)
    if how.after == "mean":
        result = result / number
    elif how.after == "root":
        result = sqrt(result)
    return convert_to(result, R, out_type)


#: Elements of an output, of a run, and along the other reduced dimensions; number of parts, elements of a
#: part, and bytes between parts of y.
REDUCED = Raw("total run r0 r1 r2 parts per y_part")
#: Address of y; extent and byte stride of its contiguous dimension; byte strides of the outer kept
#: dimensions, and the extents of the last two.
KEPT = Raw("*y n y_inner y_0 y_1 y_2 d1 d2")


@inline
def take_next(acc, v, q, x, i, n, *, inputs, front, T, R, how, vectors):
    """Combine `acc` with `vectors` vectors at q, which begin at element i of n."""
    ones(v, q, inputs, "s", 0)
    fetch(q, x, n)
    for u in static_range(vectors):
        if (not front.lines and SIZE[T] > 2 and inputs[0].mode == "v") or i + u * VL < n:
            some = element(v, q, x, u * VL, n - i - u * VL, False)
            acc[u] = accumulate(acc[u], some, how)
    step_on(q, x, inputs)


@inline
def bank_sums(acc, end, bank, sums, first, *, M, vectors):
    """Add `acc`, sums of BLOCK elements, to the second of three levels of sums in `scratch`, which are `bank`
    bytes apart; each BLOCK such `sums`, add that to the third level. Then `acc` starts from `first`."""
    for u in static_range(vectors):
        store[M](scratch + u * VL * SIZE[M], acc[u])
        acc[u] = first
    for slot in range(scratch, end, VL * SIZE[M]):
        sum = load[M](slot + bank) + load[M](slot)
        if sums % BLOCK == 0:
            store[M](slot + 2 * bank, load[M](slot + 2 * bank) + sum)
            sum = first
        store[M](slot + bank, sum)


@kernel(to=KEPT, reduced=REDUCED, of=SHARE)
def reduce_kept(
    to, reduced, of, x=_INPUTS, e=_OPERANDS, *, T, R, M, out, how, long, vectors, inputs, front, operands,
    body,
):  # fmt: skip
    """The contiguous dimension is kept: an item has `vectors` of outputs. It combines `run` rows, or `per`
    of them for each of `parts` outputs, at all indices of the other reduced dimensions r0 .. r2.

    T, R, out: element types of the input, of the reduction and of y. M: the accumulators' type, f32 for f16
    and bf16. `long`: sums may have more than BLOCK terms. `front`: the prologue, of `inputs`. `body`: the
    epilogue, of the result and `operands`."""
    number = const[R](max(reduced.total, 1))
    first = const[R](how.first)
    acc, at, p, q, v, g, w = registers()
    ones(v, x, inputs, "n", 0)
    ones(w, e, operands, "n", 1)
    blocks = (to.n + vectors * VL - 1) // (vectors * VL)
    # in scratch memory: what is combined, sums of BLOCK numbers, sums of BLOCK of these
    bank = vectors * VL * SIZE[M]
    bank_end = scratch + bank
    i = to.n
    for item in share(of.items, of.per_chunk):
        i += vectors * VL
        if i >= to.n:  # the next row; to divide takes as long as to combine some rows
            i = urem(item, blocks) * (vectors * VL)
            row = udiv(item, blocks)
            part = urem(row, reduced.parts)
            row = udiv(row, reduced.parts)
            find_row(at, row, to.d1, to.d2)
            find(p, at, x, inputs)
            find(g, at, e, operands)
            target = to.y + at[0] * to.y_0 + at[1] * to.y_1 + at[2] * to.y_2 + part * reduced.y_part
            begin = part * reduced.per
            end = min(begin + reduced.per, reduced.run)
        for u in static_range(vectors):
            acc[u] = first
        if long:
            for slot in range(scratch, bank_end, VL * SIZE[M]):
                store[M](slot + bank, first)
                store[M](slot + 2 * bank, first)
        added = 0
        sums = 0
        for b0 in range(reduced.r0):
            for b1 in range(reduced.r1):
                for b2 in range(reduced.r2):
                    step_in(q, p, x, b0, b1, b2, begin, i, inputs)
                    for start in range(begin, end, BLOCK) if long else (0,):
                        stop = min(start + BLOCK, end) if long else end
                        for _ in range(start if long else begin, stop):
                            take_next(acc, v, q, x, i, to.n)
                        if long:
                            added += stop - start
                            if added >= BLOCK:
                                added = 0
                                sums += 1
                                bank_sums(acc, bank_end, bank, sums, first)
        for u in static_range(vectors):
            store[M](scratch + u * VL * SIZE[M], acc[u])
        slot = scratch
        for j in range(i, min(i + vectors * VL, to.n), VL):
            value = load[M](slot)
            if long and sums > 0:
                value = load[M](slot + 2 * bank) + (load[M](slot + bank) + value)
            value = finish_value(value, reduced.total, number, body.inputs[0])
            store_values(target, to.y_inner, value, j, to.n, w, g, e, "inner")
            slot += VL * SIZE[M]


#: `KEPT` without a contiguous dimension.
ROWS = Raw("*y y_0 y_1 y_2 d1 d2")


@inline
def take_run(s, v, q, x, begin, end, first, *, inputs, front, T, R, how, long):
    """Combine a run with the state s: the current sum, sums of BLOCK vectors, sums of BLOCK sums; elements
    since the last reset of the current sum, and the number of sums."""
    full_end = end - (end - begin) % VL
    block = BLOCK * VL
    for start in range(begin, full_end, block) if long else (0,):
        stop = min(start + block, full_end) if long else full_end
        at_first = start if long else begin
        s["acc"] = row_combined(s["acc"], v, q, x, at_first, stop)
        if long:
            s["added"] += stop - start
            if s["added"] >= block:
                s["some"] = s["some"] + s["acc"]
                s["acc"] = first
                s["added"] = 0
                s["sums"] += 1
                if s["sums"] % BLOCK == 0:
                    s["many"] = s["many"] + s["some"]
                    s["some"] = first
    if full_end < end:  # lanes after the row keep their value
        last = element(v, q, x, full_end, end - full_end, False)
        last = accumulate(s["acc"], last, how)
        s["acc"] = blend[R](end - full_end, last, s["acc"])


@kernel(to=ROWS, reduced=REDUCED, of=SHARE)
def reduce_rows(
    to, reduced, of, x=_INPUTS, e=_OPERANDS, *, T, R, M, out, how, long, parted, inputs, front, operands,
    body,
):  # fmt: skip
    """The contiguous dimension is reduced: an item is one output, of `run` adjacent elements, or of `per` of
    them if rows are `parted`. Results of consecutive rows are collected in scratch memory, up to NARROW
    vectors, since the epilogue's latency would show for single results."""
    number = const[R](max(reduced.total, 1))
    first = const[R](how.first)
    at, p, q, v, g, w, s = registers()
    ones(v, x, inputs, "n", 0)
    ones(w, e, operands, "n", 1)
    find_row(at, 0 if parted else chunk * of.per_chunk, to.d1, to.d2)
    find(g, at, e, operands)
    begin = 0
    end = reduced.run
    count = 0
    home = to.y
    last = min(chunk * of.per_chunk + of.per_chunk, of.items) - 1
    for item in share(of.items, of.per_chunk):
        if parted:
            part = urem(item, reduced.parts)
            begin = part * reduced.per
            end = min(begin + reduced.per, reduced.run)
            find_row(at, udiv(item, reduced.parts), to.d1, to.d2)
        find(p, at, x, inputs)
        if count == 0:
            home = to.y + at[0] * to.y_0 + at[1] * to.y_1 + at[2] * to.y_2
            if parted:
                home += part * reduced.y_part
            find(g, at, e, operands)
        for name in ("acc", "some", "many"):
            s[name] = first
        s["added"] = 0
        s["sums"] = 0
        for b0 in range(reduced.r0):
            for b1 in range(reduced.r1):
                for b2 in range(reduced.r2):
                    step_in(q, p, x, b0, b1, b2, 0, 0, inputs)
                    ones(v, q, inputs, "s", 0)
                    take_run(s, v, q, x, begin, end, first)
        acc = s["acc"]
        if long and s["sums"] > 0:
            acc = s["many"] + (s["some"] + acc)
        acc = across(acc, how.combine, R)
        storem[M](scratch + count * SIZE[M], acc, 1)
        count += 1
        if parted or count == NARROW * VL or at[2] == to.d2 - 1 or item == last:
            for i in range(0, count, VL):
                values = loadm[M](scratch + i * SIZE[M], count - i)
                values = finish_value(values, reduced.total, number, body.inputs[0])
                store_values(home, to.y_2, values, i, count, w, g, e, 2)
            count = 0
        if not parted:
            next_row(at, to.d1, to.d2)


def sum_type(name: str, dtype: str, out: str) -> str:
    """The type in which `dtype` is reduced to `out`: f32 for bytes to f32, a wider type for means and L2
    norms of integers, else `dtype`."""
    if dtype in ("u8", "i8") and out == "f32":
        return "f32"
    if ELEMENT_TYPES[dtype].kind in "iu" and name in ("ReduceMean", "ReduceL2"):
        return "f64" if name == "ReduceL2" else dtype if SIZE[dtype] == 8 else "i64"
    return dtype


@functools.cache
def as_it_is(dtype: str, out: str) -> Body:
    """The epilogue that stores its input."""
    return Body([dtype], [out], [], ["x0"])


@functools.cache
def _kernel(label: str, kind: str, vectors: int, **constants: Any) -> Kernel:
    constants["M"] = WIDENED.get(constants["R"], constants["R"])
    if kind == "reduce":
        return reduce_rows.kernel(label, **constants)
    del constants["parted"]
    return reduce_kept.kernel(label, vectors=vectors, **constants)


def inner_extents(shape: Sequence[int], axes: Sequence[int], order: Sequence[int] | None) -> tuple[int, int]:
    """The elements of rows, which are kept and contiguous, and the number of adjacent rows."""
    n = run = 1
    for axis in reversed(order or range(len(shape))):
        if axis in axes:
            run *= shape[axis]
        elif run > 1:
            break
        else:
            n *= shape[axis]
    return n, run


def count_rows_of_one(n: int, run: int, lanes: int) -> int:
    """The number of rows of n elements to take as one, so that short rows fill vectors; 1 if that is not
    faster. Rows of 3 in vectors of 16 lanes take as long as rows of 16. The long row's parts are combined
    last."""
    if not 0 < n < lanes:
        return 1
    counts = [p for p in range(2, NARROW * lanes // n + 1) if run % p == 0]
    times = {p: run // p * ceil_div(p * n, lanes) + p + NARROW for p in counts}
    best = min(times, key=times.__getitem__, default=1)
    return best if times.get(best, run) * 3 < run * 2 else 1


class Walk(NamedTuple):
    """The loops of a reduction, see the kernels. Byte strides of a view: along the contiguous dimension (of
    inputs: the run), along the other reduced dimensions, and along the outer kept ones."""

    kind: str
    n: int
    run: int
    red: Sequence[int]
    outer: Sequence[int]
    inputs: Sequence[tuple[int, Sequence[int], Sequence[int]]]
    others: Sequence[tuple[int, Sequence[int], Sequence[int]]]  # y, and the epilogue's operands
    along: int = 0  # of kind "short": bytes between the elements of a vector


def has_adjacent_rows(walk: Walk, views: Sequence[View], modes: str) -> bool:
    """Whether the rows of the run are adjacent in all inputs that are not single numbers."""
    read = [(view, mode) for view, mode in zip(views, modes, strict=True) if mode != "n"]
    rows = [walk.n * view.itemsize if mode == "v" else None for view, mode in read]
    return [step for step, _, _ in walk.inputs] == rows


def cut_long_rows(walk: Walk, count: int, middle: View) -> tuple[Walk, Walk]:
    """The walks that reduce rows of `count` adjacent ones to `middle`, then its parts."""
    size, along = middle.itemsize, middle.strides[:-1]
    inputs = [(step * count, rx, kx) for step, rx, kx in walk.inputs]
    n, run, others = count * walk.n, walk.run // count, [(size, (), along)]
    first = walk._replace(n=n, run=run, inputs=inputs, others=others)
    return first, walk._replace(run=count, inputs=[(size * walk.n, (), along)])


class Reduce(Lowering):
    """A reduction over constant axes."""

    def set_up(self) -> None:
        group, node = self.group, self.node
        self.data, axes = node.inputs
        out, dtype = node.output.dtype, self.data.dtype
        self.sums = sum_type(node.op.name, dtype, out)
        how = reductions(node.op.name, self.sums)
        rank = len(self.data.shape)
        fused = bool(group.prologue or group.body)
        if axes.type.value is None or how is None or (fused and rank > MOST_FUSED):
            raise NotNative
        self.how = how
        self.axes = sorted({int(a) % rank for a in axes.type.value.reshape(-1)}) if rank else []
        self.sources, self.operands = group.sources, group.operands
        self.front = group.make_prologue() or as_it_is(dtype, dtype)
        self.body = group.make_body() or as_it_is(out, out)
        if self._unused_lanes_per_element() * len(self.front.lines) > MOST_LOST:
            raise NotNative
        self.static = is_static(self.data.shape)

    def _unused_lanes_per_element(self) -> float:
        """Unused lanes per element of a row, if the row is statically contiguous; else 0."""
        run = 1
        for axis in reversed(range(len(self.data.shape))):
            extent = self.data.shape[axis]
            if not isinstance(extent, int):
                return 0.0  # a dynamic extent: rows may be long
            if axis not in self.axes and extent != 1:
                break
            run *= extent
        lanes = self.target.lanes
        return ceil_div(run, lanes) * lanes / run - 1 if run > 1 else 0.0

    def finalize(self, layouts: dict[Value, Layout]) -> None:
        """Make the kernels, with the prologue for the chosen layouts."""
        shape = self.data.shape
        #: The order of dimensions; None: the input's memory order at planning.
        self.order: Sequence[int] | None = None
        #: Use of the innermost dimension ("keep", "reduce") -> the mode in which each input is read.
        self.modes = {"keep": "v", "reduce": "v"}
        if self.static and product([shape[a] for a in self.axes]) < self.target.lanes <= self._out_count():
            self.modes["short"] = "w"
        if self.group.prologue:
            layout = layout_of_largest(self.sources, len(shape), layouts)
            self.order = layout.order if layout else range(len(shape))
            axis = innermost_axis(shape, self.order)
            kind = "reduce" if axis is None or axis in self.axes else "keep"
            modes = "".join(operand_mode(v, shape, self.order) for v in self.sources)
            short = "short" in self.modes and kind == "reduce" and modes.replace("n", "") == "v"
            self.modes = {kind: modes} | ({"short": modes.replace("v", "w")} if short else {})
        self.vectors = self._vectors()
        self.by_role = self._kernels()
        self.kernels = self.by_strides = tuple(dict.fromkeys(self.by_role.values()))

    def _out_count(self) -> int:
        return product([d for a, d in enumerate(self.data.shape) if a not in self.axes])

    def _vectors(self) -> int:
        """Number of vectors of a kept contiguous dimension that are reduced together."""
        n = 1
        for axis in reversed(self.order or range(len(self.data.shape))):
            extent = self.data.shape[axis]
            if axis in self.axes:
                break
            if not isinstance(extent, int):
                return NARROW
            n *= extent
        if n <= self.target.lanes and not self.target.is_gpu:
            return 1
        return WIDE if n > NARROW * self.target.lanes else NARROW

    def _kernels(self) -> dict[tuple[str, str], Kernel]:
        """(step, kind) -> kernel. Step "all" is the only one; "first" and "last" are the steps of two."""
        how, sums, name = self.how, self.sums, self.node.op.name
        dtype, result, out = self.data.dtype, self.node.output.dtype, self.out.dtype
        count = product([self.data.shape[a] for a in self.axes]) if self.static else None
        adds = how.combine == "add" and ELEMENT_TYPES[sums].kind == "f"
        short = count is not None and count <= BLOCK
        operand_kinds = "".join("n" if is_number(v) else "s" for v in self.operands)
        before, after = (
            "_".join(n.op.name.lower() for n in nodes[:4]) for nodes in (self.group.prologue, self.group.body)
        )
        self.between = between = WIDENED.get(sums, sums)
        plainly = not before and not after and {dtype, sums, result} == {between}
        plainly = plainly and not how.before and how.after != "root"
        last = how if plainly else how._replace(before="")
        first = how if plainly else how._replace(after="", empty="")
        extents = [d for a, d in enumerate(self.data.shape) if a not in self.axes]
        self.limits = (PARTS, PART_BYTES, SHORTEST_PART, FEWEST_ROWS)
        if self.target.is_gpu:
            self.limits = (GPU_PARTS, GPU_PART_BYTES, SHORTEST_GPU_PART, 1)
        most_parts, part_bytes, *_ = self.limits
        self.rows = product(extents) if is_static(extents) else most_parts
        #: The kinds with two steps. For dynamic shapes that may have many rows, a second step rarely helps.
        self.two_steps = frozenset(("keep", "reduce") if self.rows < most_parts else ("keep",))
        if self.static and product(self.data.shape) * SIZE[dtype] < 2 * part_bytes:
            self.two_steps = frozenset()
        self.two_steps |= self._kinds_with_short_rows()
        kernels: dict[tuple[str, str], Kernel] = {}

        def make(step: str, kind: str, how: Reduction, read: str, out: str, modes: str) -> None:
            front = self.front if step != "last" else as_it_is(read, read)
            inside = sums if step != "last" else read
            body = self.body if step != "first" else as_it_is(inside, out)
            parted = kind == "reduce" and kind in self.two_steps and (step == "first" or plainly)
            long = adds and not short and (step != "last" or plainly)
            length = "short" if adds and not long and kind != "short" else ""
            words = [before if step != "last" else "", name.lower(), kind]
            words += [read if read == out else f"{read}_{out}", length]
            words += ["part" if parted else "", after if step != "first" else ""]
            kernels[step, kind] = _kernel(
                "_".join(filter(None, words)), kind, self.vectors, T=read, R=inside, out=out, how=how,
                long=long, parted=parted, front=front, inputs=tuple(map(Operand, front.inputs, modes)),
                body=body, operands=tuple(map(Operand, body.inputs[1:], operand_kinds)),
            )  # fmt: skip

        for kind, modes in self.modes.items():
            make("all", kind, how, dtype, out, modes)
            if kind in self.two_steps:
                make("first", kind, first, dtype, between, modes)
                make("last", kind, last, between, out, "v")
        return kernels

    def _kinds_with_short_rows(self) -> set[str]:
        """The kinds whose short rows may be taken as longer ones."""
        equal = all(is_number(v) or v.shape == self.data.shape for v in self.sources)
        if not self.static or not equal:
            return set()
        n, run = inner_extents(self.data.shape, self.axes, self.order)
        return {"keep"} if count_rows_of_one(n, run, self.target.lanes) > 1 else set()

    def _views(self, planner: Planner) -> list[View]:
        shape = planner.shape(self.data)
        return [planner.view(v).expand(shape) for v in self.sources]

    def fits(self, planner: Planner) -> bool:
        shape = planner.shape(self.out)
        steps = row_major(shape, SIZE[self.out.dtype])
        return self._walk(self._views(planner), [steps] * (1 + len(self.operands))) is not None

    def plan(self, planner: Planner) -> None:
        shape = planner.shape(self.out)
        y = planner.output(self.out, row_major_layout(len(shape)))
        if not y.count:
            return
        views, more = self._views(planner), [planner.view(v).expand(shape) for v in self.operands]
        walk = self._walk(views, [v.strides for v in (y, *more)])
        if walk is None and not self.group.prologue:
            # too many dimensions, or none is contiguous (or only as a dynamic one is 1): a copy may fit
            steps = row_major(views[0].shape, views[0].itemsize)
            if not all(map(statically_known_equal, views[0].strides, steps)):
                views = [planner.copy(self.data, row_major_layout(len(steps)))]
            walk = self._walk(views, [v.strides for v in (y, *more)])
        if walk is None:
            y = planner.instead(y)
            for k, view in enumerate(more):
                more[k] = planner.allocate(shape, view.itemsize)
                planner.copy_step(view, more[k], "a small operand is expanded")
            walk = self._walk(views, [v.strides for v in (y, *more)])
        if walk is None:
            assert not self.group.prologue and not self.group.body
            planner.host_step(self.node, [planner.contiguous(v) for v in self.node.inputs], [y])
            return
        total = product([views[0].shape[a] for a in self.axes])
        if self.static and self._plan_interleaved(planner, walk, views, y, more, total):
            return
        parts = self._parts(walk)
        # with dynamic shapes there are always two steps, so that one trace serves all shapes
        if parts is None or (self.static and parts == 1):
            self._step(planner, "all", walk, views, y, more, total)
            return
        per = ceil_div(walk.run, parts)
        if walk.kind == "reduce":
            per = ceil_div(per, self.target.lanes) * self.target.lanes
        per = sym_max(1, per)
        parts = sym_max(1, ceil_div(walk.run, per))
        size, inner = SIZE[self.between], (walk.n,) if walk.kind == "keep" else ()
        middle = planner.allocate((*walk.outer, parts, *inner), size)
        along = middle.strides[: len(walk.outer)]
        part = middle.strides[len(walk.outer)]
        first = walk._replace(others=[(size, (), along)])
        self._step(planner, "first", first, views, middle, [], 1, (parts, per, part))
        n = walk.n if inner else parts
        last = walk._replace(n=n, run=parts, red=(), inputs=[(part, (), along)])
        self._step(planner, "last", last, [middle], y, more, total)

    def _plan_interleaved(
        self, planner: Planner, walk: Walk, views: Sequence[View], y: View, more: Sequence[View], total: int
    ) -> bool:
        """Add the steps for short rows, see `count_rows_of_one`. Returns False if rows are not adjacent."""
        count = count_rows_of_one(walk.n, walk.run, self.target.lanes)
        if walk.kind not in self.two_steps & {"keep"} or walk.red or count == 1:
            return False
        if not has_adjacent_rows(walk, views, self.modes["keep"]):
            return False
        middle = planner.allocate((*walk.outer, count * walk.n), SIZE[self.between])
        first, last = cut_long_rows(walk, count, middle)
        self._step(planner, "first", first, views, middle, [], 1)
        self._step(planner, "last", last, [middle], y, more, total)
        return True

    def _walk(self, views: Sequence[View], others: Sequence[Sequence[int]]) -> Walk | None:
        """The loops for these views, or None. `others`: strides of the output and the epilogue's operands."""
        shape, order = views[0].shape, self._order_of(views[0])
        keep = [a for a in order if a not in self.axes]
        ones = [is_number(v) for v in self.sources] if len(views) > 1 else [False]
        walked = [v for v, one in zip(views, ones, strict=True) if not one]
        # strides of `others` along the kept axes
        at = {axis: i for i, axis in enumerate(sorted(keep))}
        keep_dims = self.node.attrs.get("keep_dims")
        steps_of = [[s[a if keep_dims else at[a]] for a in keep] for s in others]
        xs = [[v.strides[a] for a in keep] for v in walked]
        outer, strides = merge_dims([shape[a] for a in keep], [*xs, *steps_of], DIMS)
        kx, ko = strides[: len(xs)], strides[len(xs) :]
        over = [a for a in order if a in self.axes]
        red, rx = merge_dims([shape[a] for a in over], [[v.strides[a] for a in over] for v in walked])
        reduces = self._is_innermost("reduce", walked, rx)
        keeps = self._is_innermost("keep", walked, kx) and not reduces
        kind = self._kind(outer, red, keeps, reduces)
        if not kind:
            return None
        n, run, step, inner, along = 1, 1, [0] * len(walked), [0] * len(ko), 0
        if kind == "reduce" and red:
            n = run = red.pop()
            for s in rx:
                s.pop()
        elif kind != "reduce":
            if outer:
                n, inner, steps = outer.pop(), [s.pop() for s in ko], [s.pop() for s in kx]
                along = steps[0] if kind == "short" else 0
            if red:
                run, step = red.pop(), [s.pop() for s in rx]
        if len(outer) > DIMS or len(red) > DIMS:
            return None
        return Walk(
            kind, n, run, red, outer, list(zip(step, rx, kx, strict=True)),
            [(i, (), s) for i, s in zip(inner, ko, strict=True)], along,
        )  # fmt: skip

    def _kind(self, outer: Sequence[int], red: Sequence[int], keeps: bool, reduces: bool) -> str:
        """The kind of kernel, or "". `keeps`, `reduces`: whether the innermost of these is contiguous."""
        if outer and keeps:
            return "keep"
        if red and reduces:
            short = "short" in self.modes and len(red) == 1 and outer and outer[-1] >= self.target.lanes
            return "short" if short else "reduce"
        if "reduce" not in self.modes:
            return "" if outer else "keep"
        return "reduce" if not red and (self.order is not None or not outer) else ""

    def _order_of(self, view: View) -> Sequence[int]:
        """The axes, innermost last: `self.order` if the kernel depends on it, else by strides."""
        if self.order is not None:
            return self.order
        every = range(len(view.shape))
        if not view.count:  # strides of an empty view have no meaning
            return every
        return sorted(every, key=lambda a: (-abs(view.strides[a]), a))

    def _is_innermost(self, kind: str, walked: Sequence[View], strides: Sequence[Sequence[int]]) -> bool:
        """Whether each operand's innermost stride is the one that the kernel of this kind requires."""
        modes = self.modes.get(kind, "").replace("n", "")
        expected = [v.itemsize if mode == "v" else 0 for v, mode in zip(walked, modes, strict=False)]
        return bool(modes) and all(s and s[-1] == w for s, w in zip(strides, expected, strict=True))

    def _parts(self, walk: Walk) -> int | None:
        """The number of parts; None if the reduction has a single step."""
        size, (limit, part_bytes, shortest, fewest) = SIZE[self.data.dtype], self.limits
        if walk.kind not in self.two_steps:
            return None
        if walk.kind == "reduce":
            worth = walk.run * product(walk.red) * size // part_bytes
            return sym_max(1, sym_min(limit // sym_max(1, self.rows), worth, walk.run // shortest))
        if walk.red:
            return None
        rows = sym_max(1, product(walk.outer))
        if self.target.is_gpu:
            rows = sym_max(rows, rows * ceil_div(walk.n, self.target.lanes) * limit // GPU_ITEMS)
        most_parts = sym_min(limit // sym_min(limit, rows), walk.run // fewest)
        return sym_max(1, sym_min(most_parts, walk.run * walk.n * size // part_bytes))

    def _step(
        self, planner: Planner, step: str, walk: Walk, views: Sequence[View], y: View, more: Sequence[View],
        total: int, shares: tuple[int, int, int] | None = None,
    ) -> None:  # fmt: skip
        """Add the step. `shares`: (parts, elements of the run in a part, byte stride of y's parts)."""
        extents, (y_inner, _, ky), *others = walk.outer, *walk.others
        parts, per, y_part = shares or (1, walk.run, 0)
        n, lanes, kind = walk.n, self.vectors * self.target.lanes, walk.kind
        planner.need_scratch(3 * lanes * 8)
        kernel = self.by_role[step, kind]
        values = {"y": y.ptr, "n": n, "y_inner": y_inner, "total": total, "run": walk.run}
        values |= {"parts": parts, "per": per, "y_part": y_part, **placed_values(extents, y=ky)}
        values |= {f"r{d}": e for d, e in enumerate([*[1] * (DIMS - len(walk.red)), *walk.red])}
        ones = [is_number(v) for v in self.sources] if len(views) > 1 else [False]
        steps = iter(walk.inputs)
        for k, (view, one) in enumerate(zip(views, ones, strict=True)):
            values[f"x{k}"] = view.ptr
            if not one:
                along, rx, kx = next(steps)
                values |= {f"x{k}_along": walk.along, f"x{k}_run": along}
                values |= placed_values(extents, **{f"x{k}": kx})
                values |= {f"x{k}_r{d}": s for d, s in enumerate([*[0] * (DIMS - len(rx)), *rx])}
        for k, (view, (along, _, ke)) in enumerate(zip(more, others, strict=True)):
            values |= {f"e{k}": view.ptr, f"e{k}_inner": along, **placed_values(extents, **{f"e{k}": ke})}
        blocks = ceil_div(n, lanes)
        items, work = product(extents), product(walk.red) * n
        if kind == "reduce":
            items, work = items * parts, product(walk.red) * per
        else:
            items, work = items * parts * blocks, product(walk.red) * per * lanes
        values["items"] = items

        def touches(each: int) -> Rows:
            if kind == "reduce":
                along = (*ky, y_part) if shares else ky
                rows = (*extents, parts) if shares else extents
                return Rows(rows, each, (), [Piece(y.ptr, along, (), (), y.itemsize)])
            return Rows(  # an item is a vector of the innermost dimension; the last one may be short
                (*extents, parts, n), each, (), [Piece(y.ptr, (*ky, y_part, y_inner), (), (), y.itemsize)],
                (*[1] * (len(extents) + 1), lanes),
            )  # fmt: skip

        operations = 2 + len(self.front.lines)
        flops = views[0].count * (operations - 1)
        planner.share_step(kernel, values, items, work * operations, [*views, *more], [y], flops, touches)
