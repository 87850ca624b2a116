"""Native CTCGreedyDecoder and CTCGreedyDecoderSeqLen: a chunk is a range of sequences."""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import FULL
from ovjit.planning.lower import Lowering, NotNative, Planner, launch

#: Scores whose maximum is computed by vectors before it is searched for.
BLOCK = 256


@inline
def best_label(p, classes, T):
    """The label of the largest score at p; the first of equal ones."""
    best = ld[T](p) * 1.0
    label = 0
    for first in range(0, classes, BLOCK):
        end = min(first + BLOCK, classes)
        largest = const[T](-inf)
        c = first
        while c + VL <= end:
            largest = maximum(largest, load[T](p + c * SIZE[T]))
            c += VL
        if c < end:
            some = loadm[T](p + c * SIZE[T], end - c)
            largest = maximum(largest, blend[T](end - c, some, const[T](-inf)))
        v = hmax[T](largest) * 1.0
        if v > best or (v != v and best == best):
            best = v
            label = first
    at = ld[T](p + label * SIZE[T]) * 1.0
    while at != best and at == at and label + 1 < classes:  # search in its block
        label += 1
        at = ld[T](p + label * SIZE[T]) * 1.0
    return label


@kernel(over="b", x="b t c:1", ends="", blanks="", y="b t:1", counts="b")
def ctc_greedy(x: Tensor, ends: Tensor, blanks: Tensor, y: Tensor, counts: Tensor, *, T, E, B, Y, N, merge):
    """The label of the largest score of each step (the first of equal ones), padded with -1. `ends` has the
    lengths of sequences, and `counts` gets the numbers of labels, of type N. If N is None, `ends` is a mask
    that is 0 from the end of a sequence on. B: the type of the blank; None: the last class is the blank.
    Returns 4 for invalid lengths."""
    steps = x.size.t
    classes = x.size.c
    for b, scores, labels in items(x, y):
        n = steps
        if N is None:
            t = 0
            while t < n:
                if ld[E](ends + (t * x.size.b + b) * SIZE[E]) == 0:
                    n = t
                t += 1
        else:
            n = ld[E](ends + b * SIZE[E]) + 0
            if n < 0 or n > steps:
                return 4
        blank = classes - 1
        if B is not None:
            blank = ld[B](blanks) + 0
        last = -1
        k = 0
        for t in range(n):
            p = x.at(scores, t=t)
            label = best_label(p, classes, T)
            emit = label != blank
            if merge:
                emit = label != blank and label != last
            if emit:
                st[Y](y.at(labels, t=k), label)
                k += 1
            last = label
        for j in range(k, steps):
            st[Y](y.at(labels, t=j), -1)
        if N is not None:
            st[N](counts.at(b=b), k)


class Greedy(Lowering):
    takes = (FULL, None)

    def set_up(self) -> None:
        types = [v.dtype for v in self.node.inputs]
        attrs = self.node.attrs
        self.lengths = len(self.node.outputs) > 1
        if types[1] not in (("i32", "i64") if self.lengths else FULL):
            raise NotNative
        merge = attrs["merge_repeated" if self.lengths else "ctc_merge_repeated"]
        types_out = [v.dtype for v in self.node.outputs]
        self.kernel = ctc_greedy(
            T=types[0], E=types[1], B=types[2] if len(types) > 2 else None, Y=types_out[0],
            N=types_out[1] if self.lengths else None, merge=merge,
        )  # fmt: skip

    def plan(self, planner: Planner) -> None:
        x, ends, *blank = [planner.contiguous(v) for v in self.node.inputs]
        time, batch = (1, 0) if self.lengths else (0, 1)
        steps, sequences, classes = x.shape[time], x.shape[batch], x.shape[2]
        fit = ends.shape[0] == sequences if self.lengths else ends.shape == (steps, sequences)
        if not x.count or not fit:
            raise NotNative
        outputs = planner.row_major_outputs(self.node)
        tensors = {"x": x.permute((batch, time, 2)), "ends": ends}
        if blank:
            tensors["blanks"] = blank[0]
        writes = ("y", "counts")[: len(outputs)]
        tensors |= zip(writes, (outputs[0].as_shape((sequences, steps)), *outputs[1:]), strict=True)
        launch(planner, self.kernel, tensors, writes, work=steps * classes * 4, flops=4.0 * x.count)
