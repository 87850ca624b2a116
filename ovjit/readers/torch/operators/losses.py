"""Losses whose targets are classes, and their kin."""

from __future__ import annotations

from typing import Any

from ovjit.build import Output
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.registry import aten

#: What PyTorch's numbers of reductions stand for.
NONE, MEAN, SUM = range(3)


@aten("nll_loss", "nll_loss_nd", "nll_loss2d", "nll_loss_forward", "nll_loss2d_forward")
def nll_loss(
    n: Call, x: Output, target: Output, weight: Any = None, reduction: int = MEAN, ignore_index: int = -100
) -> Any:
    """-weight[target] x[target], classes are the dimension 1; targets of `ignore_index` count nothing."""
    axis = 0 if n.rank(x) == 1 else 1
    index = n.convert(target, "i64")
    is_counted = n("NotEqual", index, n.const(ignore_index, "i64"))
    safe = n("Select", is_counted, index, n.const(0))
    losses = n("GatherElements", x, n.unsqueeze(safe, [axis]), axis=axis)
    losses = n("Negative", n.squeeze(losses, [axis]))
    zero = n.like(x, 0)
    weights = n.like(x, 1) if weight is None else n("Gather", weight, safe, n.const(0))
    weights = n("Select", is_counted, weights, zero)
    out = n("Select", is_counted, n("Multiply", losses, weights), zero)  # what is ignored may be infinite
    total = _sum(n, weights)
    if reduction != NONE:
        out = _sum(n, out)
    if reduction == MEAN:
        out = n("Divide", out, total)
    return [out, total] if n.op.endswith("forward") else out


def _sum(n: Call, x: Output) -> Output:
    return n("ReduceSum", x, list(range(n.rank(x))), keep_dims=False) if n.rank(x) else x


@aten("cross_entropy_loss")
def cross_entropy(
    n: Call, x: Output, target: Output, weight: Any = None, reduction: int = MEAN, ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Output:  # fmt: skip
    """-log softmax(x) of the classes that targets name, or times targets that are probabilities."""
    axis = 0 if n.rank(x) == 1 else 1
    logs = n.also("log_softmax", x, axis)
    scale = None if weight is None else n.along(weight, axis, n.rank(x))
    if n.is_real(target):
        return _by_probabilities(n, logs, target, scale, axis, reduction, label_smoothing)
    plain = n.also("nll_loss", logs, target, weight, reduction, ignore_index)
    if not label_smoothing:
        return plain
    is_counted = n("NotEqual", target, n.const(ignore_index, n.dtype(target)))
    spread = n("Negative", logs if scale is None else n("Multiply", logs, scale))
    spread = n("ReduceSum", spread, [axis], keep_dims=False)
    spread = n("Select", is_counted, spread, n.like(spread, 0))
    if reduction != NONE:
        spread = _sum(n, spread)
    if reduction == MEAN:
        safe = n("Select", is_counted, target, n.like(target, 0))
        one = n.like(x, 1) if weight is None else n("Gather", weight, safe, n.const(0))
        spread = n("Divide", spread, _sum(n, n("Select", is_counted, one, n.like(x, 0))))
    share = n("Divide", n.like(x, label_smoothing), n.to_type(n.tensor(n.size(x, axis)), n.dtype(x)))
    return n("Add", n("Multiply", plain, n.like(x, 1 - label_smoothing)), n("Multiply", spread, share))


def _by_probabilities(
    n: Call, logs: Output, target: Output, scale: Any, axis: int, reduction: int, smoothing: float
) -> Output:
    if smoothing:
        share = n("Divide", n.like(logs, smoothing), n.to_type(n.tensor(n.size(logs, axis)), n.dtype(logs)))
        target = n("Add", n("Multiply", target, n.like(target, 1 - smoothing)), share)
    terms = n("Multiply", logs, target)
    terms = terms if scale is None else n("Multiply", terms, scale)
    out = n("Negative", n("ReduceSum", terms, [axis], keep_dims=False))
    if reduction == NONE:
        return out
    out = _sum(n, out)
    if reduction == SUM or axis == 0:
        return out
    count = n.product([d for i, d in enumerate(n.sizes(logs)) if i != axis])
    return n("Divide", out, n.to_type(n.tensor(count), n.dtype(logs)))
