"""Native CTCLoss of f32: the forward recursion over time in log space. Vectors are along positions in the
target.

A chunk is a range of sequences. Sums are in f64. Lengths, labels and the blank are checked against the shapes
before they are used as indices.
"""

from __future__ import annotations

from ovjit.codegen import trace
from ovjit.codegen.cpu.ir import body_of
from ovjit.codegen.kernel_language import *
from ovjit.planning.lower import Lowering, NotNative, Planner, launch
from ovjit_ops.common.values import INDEX_TYPES

#: The logarithm of 0: finite, so that differences are not NaN, but infinite as f32.
NEVER = -1e300
#: Exponents below are clamped: they do not change a sum whose largest term is 1.
LEAST = -700.0
#: Elements of an array in scratch memory beyond the positions: two before, and a vector after them.
MARGIN = 72


@inline
def log_sum(a, b, c, exp, log):
    """log(exp(a) + exp(b) + exp(c)), relative to the largest, whose exponential is 1."""
    high = maximum(a, b)
    m = maximum(high, c)
    least = const[f64](LEAST)
    second = maximum(minimum(high, c) - m, least)
    third = maximum(minimum(a, b) - m, least)
    more = applied(exp, second)
    total = applied(exp, third)
    total = total + more + const[f64](1.0)
    above = applied(log, total)
    return m + above


@inline
def log_norm(p, line, classes, exp, log):
    """Copy a row of scores to `line`, padded with -inf to whole vectors. Returns the logarithm of the sum of
    their exponentials."""
    tops = const[f32](-inf)
    for k in range(0, classes, VL):
        store[f32](line + k * 4, const[f32](-inf))
        storem[f32](line + k * 4, loadm[f32](p + k * 4, classes - k), classes - k)
        tops = maximum(tops, load[f32](line + k * 4))
    top = hmax[f32](tops) * 1.0
    total = const[f64](0.0)
    for k in range(0, classes, VL):
        below = maximum(cast[f64](load[f32](line + k * 4)) - spread[f64](top), const[f64](LEAST))
        power = applied(exp, below)
        total = total + power
    power_sum = spread[f64](hadd[f64](total))
    size = applied(log, power_sum)
    return spread[f64](top) + size


@inline
def allow_ways(target, stay, skip, count, blank, merge):
    """Set the transitions to the position of each label: `stay` from itself, `skip` from two positions
    before."""
    never = const[f64](NEVER)
    before = blank
    for i in range(count):
        label = ld[i64](target + i * 8) + 0
        s = 2 * i + 1
        if not merge:
            if label != blank:
                storem[f64](stay + s * 8, never, 1)
            if before != blank:
                storem[f64](skip + s * 8, const[f64](0.0), 1)
        elif before != blank and label != before:
            storem[f64](skip + s * 8, const[f64](0.0), 1)
        before = label


@inline
def go_on(alpha, stay, skip, here, norm, n, exp, log):
    """Advance all positions by one step in time."""
    never = const[f64](NEVER)
    vectors = (n + VL - 1) // VL
    for k in range(vectors):  # from the last one, as each reads positions before it
        s = (vectors - 1 - k) * VL * 8
        staying = load[f64](alpha + s) + load[f64](stay + s)
        skipping = load[f64](alpha + s - 16) + load[f64](skip + s)
        total = log_sum(staying, load[f64](alpha + s - 8), skipping, exp, log)
        store[f64](alpha + s, total + maximum(load[f64](here + s) - norm, never))


@inline
def list_labels(target, labels, count, classes, L, collapse, unique):
    """Write the labels of a sequence to `target`, without those that `collapse` or `unique` remove. Returns
    their number, or -1 if a label is out of range."""
    size = 0
    last = -1
    for i in range(count):
        label = ld[L](labels + i * SIZE[L]) + 0
        if label < 0 or label >= classes:
            size = -1
            break
        keep = 1
        if collapse and label == last:
            keep = 0
        if unique:
            for k in range(size):
                if ld[i64](target + k * 8) == label:
                    keep = 0
        if keep == 1:
            st[i64](target + size * 8, label)
            size += 1
        last = label
    return size


@kernel(over="b", x="b t c:1", times="b:1", labels="b m:1", counts="b:1", blanks="", y="b:1")
def ctc_loss(
    x: Tensor, times: Tensor, labels: Tensor, counts: Tensor, blanks: Tensor, y: Tensor, room, *, E, L, N, B,
    merge, collapse, unique, exp, log,
):  # fmt: skip
    """`alpha` has, for each position of the target with blanks around its labels, the log probability of all
    alignments that end there. E, L, N, B: types of lengths, labels, their numbers and the blank (None: the
    last class is the blank). `room`: bytes of an array in scratch memory. Returns 1 or 4 for invalid labels
    or lengths."""
    alpha = scratch + 16
    stay = alpha + room  # 0 if a position may repeat, else NEVER
    skip = stay + room  # the same for transitions from two positions before
    here = skip + room
    target = here + room
    line = target + room
    classes = x.size.c
    blank = classes - 1
    if B is not None:
        blank = ld[B](blanks) + 0
    if blank < 0 or blank >= classes:
        return 1
    never = const[f64](NEVER)
    for _, lines, time_at, sequence, count_at, loss_at in items(x, times, labels, counts, y):
        time = ld[E](time_at) + 0
        count = ld[N](count_at) + 0
        if time < 0 or time > x.size.t or count < 0 or count > labels.size.m or count > time:
            return 4
        size = list_labels(target, sequence, count, classes, L, collapse, unique)
        if size < 0:
            return 1
        n = 2 * size + 1
        storem[f64](alpha - 16, never, 2)
        for s in range(0, n, VL):
            store[f64](alpha + s * 8, never)
            store[f64](here + s * 8, const[f64](0.0))
            store[f64](stay + s * 8, const[f64](0.0))
            store[f64](skip + s * 8, never)
        allow_ways(target, stay, skip, size, blank, merge)
        for t in range(time):
            p = x.at(lines, t=t)
            norm = log_norm(p, line, classes, exp, log)
            at_blank = ld[f32](line + blank * 4) * 1.0
            for i in range(size):
                st[f64](here + 16 * i, at_blank)
                st[f64](here + 16 * i + 8, ld[f32](line + ld[i64](target + i * 8) * 4) * 1.0)
            st[f64](here + 16 * size, at_blank)
            if t == 0:
                first = min(n, 2)
                storem[f64](alpha, maximum(loadm[f64](here, first) - norm, never), first)
            else:
                go_on(alpha, stay, skip, here, norm, n, exp, log)
        end = log_sum(load[f64](alpha + n * 8 - 8), load[f64](alpha + n * 8 - 16), never, exp, log)
        loss = 0.0 - lane[f64](end, 0)
        if time == 0:
            loss = 0.0
        if loss > 1e200:
            storem[f32](loss_at, const[f32](inf), 1)
        else:
            storem[f32](loss_at, cast[f32](spread[f64](loss)), 1)


class CTCLosses(Lowering):
    takes = (("f32",), INDEX_TYPES)

    def set_up(self) -> None:
        attrs = self.node.attrs
        _, E, L, N, *B = (v.dtype for v in self.node.inputs)
        self.kernel = ctc_loss(
            E=E, L=L, N=N, B=B[0] if B else None, merge=attrs["ctc_merge_repeated"],
            collapse=attrs["preprocess_collapse_repeated"], unique=attrs["unique"],
            exp=body_of(trace.exp, dtype="f64"), log=body_of(trace.log, dtype="f64"),
        )  # fmt: skip

    def plan(self, planner: Planner) -> None:
        x, times, labels, counts, *blank = [planner.contiguous(v) for v in self.node.inputs]
        batch, steps, classes = x.shape
        fit = times.shape == counts.shape == (batch,) and labels.shape[0] == batch
        if not x.count or not fit or (blank and blank[0].count != 1):
            raise NotNative
        outputs = planner.row_major_outputs(self.node)
        most = labels.shape[1]
        room = (2 * most + 1 + MARGIN) * 8
        planner.need_scratch(5 * room + (classes + MARGIN) * 4)
        work = steps * (classes * 8 + most * 64)  # exponentials and logarithms in f64
        tensors = {"x": x, "times": times, "labels": labels, "counts": counts, "y": outputs[0]}
        tensors |= zip(("blanks",), blank, strict=False)
        launch(planner, self.kernel, tensors, ("y",), work=work, flops=batch * work, room=room)
