"""The loss of connectionist temporal classification."""

from __future__ import annotations

import math
from typing import Any

from ovjit.build import Output
from ovjit.readers.numerics.counted_loops import repeat_steps
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.operators.losses import MEAN, NONE, reduced_loss
from ovjit.readers.torch.registry import aten


@aten("_ctc_loss", "ctc_loss")
def ctc_loss(
    n: Call, x: Output, targets: Output, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: int = MEAN, zero_infinity: bool = False,
) -> Any:  # fmt: skip
    """-log of the probability of labels, of log probabilities [time, samples, classes].

    Labels are [samples, longest], or those of all samples in a row.
    """
    single = n.rank(x) == 2
    x = n.unsqueeze(x, [1]) if single else x
    steps, lengths = (_lengths(n, v) for v in (input_lengths, target_lengths))
    rows = _pad_labels(n, n.convert(targets, "i64"), lengths, blank)
    out = n("Negative", _log_likelihood(n, x, _with_blanks(n, rows, blank), steps, lengths))
    if n.op == "aten::_ctc_loss":
        return [out, None]
    if zero_infinity:
        out = n("Select", n("Equal", out, n.like(out, math.inf)), n.like(out, 0), out)
    if reduction == MEAN:
        out = n("Divide", out, n.convert(n("Maximum", lengths, n.const(1)), n.dtype(x)))
    if reduction != NONE:
        return reduced_loss(n, out, reduction)
    return n.squeeze(out, [0]) if single else out


def _lengths(n: Call, lengths: Any) -> Output:
    value = n.ints(list(lengths)) if isinstance(lengths, (list, tuple)) else n.tensor(lengths)
    return n.reshape(n.convert(n.tensor(value), "i64"), [-1])


def _pad_labels(n: Call, targets: Output, lengths: Output, blank: int) -> Output:
    """Labels as [samples, longest]; blanks follow those that count."""
    if n.rank(targets) == 1:
        ends = n("CumSum", lengths, n.const(0), exclusive=False, reverse=False)
        longest = n("ReduceMax", n("Concat", lengths, n.const([0]), axis=0), [0], keep_dims=False)
        columns = n.unsqueeze(n.upto(longest), [0])
        positions = n("Add", n.unsqueeze(n("Subtract", ends, lengths), [1]), columns)
        # a blank is appended: places behind the last label read it
        with_blank = n("Concat", targets, n.const([blank]), axis=0)
        last = n("ShapeOf", targets, output_type="i64")
        targets = n("Gather", with_blank, n("Minimum", positions, last), 0)
    else:
        columns = n.unsqueeze(n.arange(n.size(targets, 1)), [0])
    counts = n("Less", columns, n.unsqueeze(lengths, [1]))
    return n("Select", counts, targets, n.const(blank))


def _with_blanks(n: Call, targets: Output, blank: int) -> Output:
    """[samples, 2 longest + 1]: a blank before and after each label."""
    pairs = n.unsqueeze(targets, [2])
    pairs = n("Concat", n.alike(pairs, blank), pairs, axis=2)
    flat = n("Reshape", pairs, n.const([0, -1]), special_zero=True)
    count = n("Concat", n.dim_of(targets, 0), n.const([1]), axis=0)
    return n("Concat", flat, n("Broadcast", n.const(blank), count), axis=1)


def _shift_rows(n: Call, rows: Output, fill: float) -> list[Output]:
    """Rows moved by one and by two places, with a number at the free ones."""
    count = n("Concat", n.dim_of(rows, 0), n.const([2]), axis=0)
    with_margin = n("Concat", n("Broadcast", n.like(rows, fill), count), rows, axis=1)
    return [n("Slice", with_margin, [2 - by], [-by], [1], [1]) for by in (1, 2)]


def _log_likelihood(n: Call, x: Output, labels: Output, steps: Output, lengths: Output) -> Output:
    """The sum over all paths forward: alpha(t, s) follows alpha(t - 1, s), that of s - 1, and that of s - 2
    where the labels differ. Before the first step, the first blank has probability 1 and all others 0."""
    count = n.size(labels, 1)
    positions = n.unsqueeze(n.arange(count), [0])
    start = n("Select", n("Equal", positions, n.const(0)), n.like(x, 0), n.like(x, -math.inf))
    start = n.expand(start, n("ShapeOf", labels, output_type="i64"))
    skips = n("NotEqual", labels, _shift_rows(n, labels, 0)[1])

    def step(t: Output, state: list[Output], others: list[Output]) -> list[Output]:
        x, labels, skips, steps = others
        alpha, nothing = state[0], n.like(others[0], -math.inf)
        one, two = _shift_rows(n, alpha, -math.inf)
        parts = [alpha, one, n("Select", skips, two, nothing)]
        most = n("Maximum", n("Maximum", parts[0], parts[1]), parts[2])
        most = n("Select", n("Equal", most, nothing), n.like(x, 0), most)
        terms = [n("Exp", n("Subtract", v, most)) for v in parts]
        total = n("Log", n("Add", n("Add", terms[0], terms[1]), terms[2]))
        emission = n("GatherElements", n("Gather", x, t, 0), labels, axis=1)
        result = n("Add", n("Add", total, most), emission)
        return [n("Select", n("Less", t, n.unsqueeze(steps, [1])), result, alpha)]

    alpha = repeat_steps(n, n.index(n.size(x, 0)), [start], step, [x, labels, skips, steps])[0]
    last = n("Multiply", n.unsqueeze(lengths, [1]), n.const(2))
    has_labels = n("Greater", last, n.const(0))
    before = n("GatherElements", alpha, n("Maximum", n("Subtract", last, n.const(1)), n.const(0)), axis=1)
    before = n("Select", has_labels, before, n.like(x, -math.inf))
    ends = n("Concat", n("GatherElements", alpha, last, axis=1), before, axis=1)
    most = n("ReduceMax", ends, [1], keep_dims=True)
    most = n("Select", n("Equal", most, n.like(x, -math.inf)), n.like(x, 0), most)
    total = n("ReduceSum", n("Exp", n("Subtract", ends, most)), [1], keep_dims=True)
    return n.squeeze(n("Add", n("Log", total), most), [1])
